"""LMDB as a storage engine: many threads and many processes of one machine, on a local disk.

Owns what is read and written in one transaction: values, pages of ranges, a batch, a fold of many with the mark that
says how far they go. It must never keep a transaction open across a yield. What LMDB itself asks for is the business of
`lmdb_env`.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from eventlog.errors import ExpectationError, FormatError, StorageError
from eventlog.storage.base import FED, MAX_KEY_BYTES
from eventlog.storage.fed import fed_of, in_commit, packed, place_in, read_place, unknown_place, unpacked
from eventlog.storage.lmdb_env import FED_AT, LOG_ID, MARK, META_AT, REGISTRY, Options, closed, join, leave, mark_of
from eventlog.storage.lmdb_keys import OWN, Span, check_keys, inner_key, lowered, outer_key, raised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import lmdb

    from eventlog.storage.base import Range
    from eventlog.storage.lmdb_env import Databases, Transaction

    Pair = tuple[bytes, bytes]
    Changes = Callable[[], tuple[Iterable[tuple[bytes, bytes | None]], Sequence[bytes]]]
    Slices = Callable[[Sequence[Pair]], Iterable[Sequence[Pair]]]

_FED_RECORDS = 16
_PAGE_PAIRS = 256
_PAGE_BYTES = 1 << 20


class LmdbStorage:
    """A log's directory on a local disk.

    Every commit is on stable storage when it returns. Safe from any thread, from any number of processes, and in the
    child of a ``fork``. Two handles of one directory in one process share one environment. Reading never waits for
    writing.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        *,
        readonly: bool = False,
        map_size_bytes: int | None = None,
        lock_timeout_s: float = 30.0,
    ) -> None:
        """Open the log in the directory `location`; unless `readonly`, create it and its parents where missing.

        Args:
            location: the directory. A new one gets mode 0700, its files 0600.
            readonly: refuse every commit, and create nothing.
            map_size_bytes: size of the map to begin with, the first time the process opens this directory; it grows
                by doubling. By default the largest the machine gives, up to 1 TiB of address space.
            lock_timeout_s: how long a commit waits for other writers.

        Raises:
            FormatError: no log there, something that is not a log, or one of a newer format.
            CorruptionError: the file is shorter than it says.
            CapacityError: no disk space, or no address space for the map.
            BusyError: there is no whole log yet, and another process held the writers' lock all the time.
            StorageError: the operating system refused.
        """
        self._location = os.fspath(location)
        self._is_readonly = readonly
        self._lock_timeout_s = lock_timeout_s
        self._is_closed = False
        self.path = Path(os.path.realpath(self._location))
        self._shared = join(Options(self.path, readonly, map_size_bytes, lock_timeout_s))

    @property
    def location(self) -> str:
        """The directory, as it was given."""
        return self._location

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys` in the order asked, None where absent; all from one moment.

        Raises:
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
            CorruptionError: LMDB found damaged pages.
            StorageError: LMDB failed.
        """
        self._check_open()
        check_keys(keys)
        return self._shared.read(lambda txn, dbs: _got(txn, dbs, keys))

    def scan(
        self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with ``start <= key < end``, range after range; see ``Storage.scan``.

        Each page (256 pairs or 1 MiB, whichever comes first) is one read transaction, so what one page shows is from
        one moment, and an idle reader never makes the file grow.

        Raises:
            ClosedError: the storage was closed, before the call or between two pages.
            InvalidInputError: the start of a range is empty, so it names no kind.
            CorruptionError: LMDB found damaged pages.
            StorageError: LMDB failed.
        """
        self._check_open()
        return self._pages([Span.of(start, end) for start, end in ranges], reverse=reverse, limit=limit)

    def commit(
        self,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,  # noqa: ARG002 (it always is)
    ) -> None:
        """Remove `deletes`, then write `puts`, or nothing; see ``Storage.commit``. A key in both is written.

        Returns when the batch is on stable storage.

        Raises:
            ExpectationError: an expected key differs; nothing was written.
            CapacityError: no room on the disk or in the address space; nothing was written.
            BusyError: the writers' lock was not to be had in time; nothing was written.
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
            CorruptionError: LMDB found damaged pages; nothing was written.
            StorageError: opened readonly, the files were deleted underneath, or the flush failed; the message says
                whether the batch was written.
        """
        self._check_open()
        if self._is_readonly:
            msg = f"{self._location} was opened readonly; nothing was written; open it without readonly to write"
            raise StorageError(msg)
        self._shared.commit(_Batch.of(puts, deletes, expect or {}), self._lock_timeout_s)

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[Pair]:
        """See ``Storage.feed``; what a log of format 1 held when it was first opened for writing comes in key order.

        Raises:
            InvalidInputError: `after` is no position of its feed.
            FormatError: opened readonly, and the log has no feed yet; otherwise as `scan`.
        """
        after = place_in(self.log_id(), after)
        return islice(self._fed(after, *read_place(after)), limit and max(limit, 0))

    def _fed(self, after: bytes, number: int, skip: int) -> Iterator[Pair]:
        while True:
            _, records = self.fed(number)
            if skip and not (records and records[0][0] == number):
                raise unknown_place(after)
            if not records:
                return
            for found, record in records:
                yield from fed_of(after, found, unpacked(record), skip if found == number else 0)
            number, skip = records[-1][0] + 1, 0

    def check_file(self) -> None:
        """Refuse to go on where the file no longer has its name: what others write is in another one."""
        self._check_open()
        self._shared.check_file()

    def log_id(self) -> bytes:
        """What the positions of its feed begin with.

        Raises:
            FormatError: opened readonly, and the log has none yet.
        """
        self._check_open()
        found = self._shared.read(lambda txn, dbs: txn.get(LOG_ID, db=dbs[META_AT]))
        if found is None:
            raise self._unfed()
        return found

    def _unfed(self) -> FormatError:
        return FormatError(f"{self._location} was written before there was a feed; open it once for writing")

    def fed(self, first: int) -> tuple[int, list[tuple[int, bytes]]]:
        """The mark, and the records of what is fed from that number on, the first few: all from one moment.

        Raises:
            FormatError: opened readonly, and the log has none yet.
        """
        self._check_open()

        def work(txn: Transaction, dbs: Databases) -> tuple[int, list[tuple[int, bytes]]]:
            if len(dbs) <= FED_AT:
                raise self._unfed()
            span = Span(FED_AT, first.to_bytes(8, "big"), None)
            pairs, _ = _read_page(txn, dbs, [span], _FED_RECORDS, reverse=False)
            return mark_of(txn, dbs), [(int.from_bytes(key, "big"), record) for key, record in pairs]

        return self._shared.read(work)

    def position(self) -> None:
        """None: to ask LMDB for its newest transaction costs as much as to read a value."""
        self._check_open()

    def at_once(self) -> AbstractContextManager[bool]:
        """Never: every commit waits for its flush."""
        return nullcontext(False)

    def settle(self) -> None:
        """Nothing to do: every commit is settled when it returns."""
        self._check_open()

    def flush(self) -> None:
        """Nothing to do: every commit was flushed before it returned. Raises ``ClosedError`` after ``close``."""
        self._check_open()

    def is_flushed(self) -> bool:
        """Always."""
        self._check_open()
        return True

    def size_bytes(self) -> int:
        """Bytes allocated on disk for the files in the directory; holes in a sparse file do not count.

        Raises:
            ClosedError: the storage was closed.
            StorageError: the directory cannot be read.
        """
        self._check_open()
        return self._shared.allocated_bytes()

    def close(self) -> None:
        """Give this handle back; the last one of the process closes the environment. Idempotent."""
        with REGISTRY:
            if not self._is_closed:
                self._is_closed = True
                leave(self._shared)

    def fold(self, changes: Changes, mark: int, slices: Slices) -> None:
        """Take over `changes`, if the mark is one less than `mark`; move it there.

        The mark says how much of something outside was taken over; it begins at 0. What the changes are is asked only
        once nobody else can take them over: pairs, None for a key to remove, and keys in the order in which they are
        fed. What is put goes in the `slices` that are made of it, one call each. Otherwise as `commit`.
        """
        self._check_open()
        self._shared.commit(_Fold(changes, mark, slices), self._lock_timeout_s)

    def marked(self, keys: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        """The mark, and the values of `keys`: all from one moment. Otherwise as `get`."""
        self._check_open()
        check_keys(keys)
        return self._shared.read(lambda txn, dbs: (mark_of(txn, dbs), _got(txn, dbs, keys)))

    def last_key(self, prefix: bytes) -> tuple[int, bytes]:
        """The mark, and the last key that begins with `prefix`, which names a kind; empty if there is none."""
        self._check_open()
        span = Span.of(prefix, (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big"))

        def work(txn: Transaction, dbs: Databases) -> tuple[int, bytes]:
            cursor = txn.cursor(dbs[span.kind])
            is_past_end = span.end is not None and cursor.set_range(span.end)
            is_there = (cursor.prev() if is_past_end else cursor.last()) and cursor.key() >= span.start
            return mark_of(txn, dbs), outer_key(span.kind, cursor.key()) if is_there else b""

        return self._shared.read(work)

    def pages(self, ranges: Sequence[Range], count: int, *, reverse: bool) -> tuple[int, list[tuple[list[Pair], bool]]]:
        """The mark, and of each range its first pairs and whether there may be more of it: all from one moment.

        They are `count` pairs at most; what comes behind a range that was not read whole is left out.
        """
        self._check_open()
        spans = [Span.of(start, end) for start, end in ranges]

        def work(txn: Transaction, dbs: Databases) -> tuple[int, list[tuple[list[Pair], bool]]]:
            pages: list[tuple[list[Pair], bool]] = []
            left, room_bytes = count, _PAGE_BYTES
            for span in spans:
                pairs, rest = _read_page(txn, dbs, [span], left, reverse=reverse)
                pages.append((pairs, bool(rest)))
                left -= len(pairs)
                room_bytes -= sum([len(value) for _, value in pairs])
                if rest or room_bytes <= 0:
                    break
            return mark_of(txn, dbs), pages

        return self._shared.read(work)

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed(self._location)

    def _pages(self, spans: list[Span], *, reverse: bool, limit: int | None) -> Iterator[Pair]:
        while spans and (limit is None or limit > 0):
            page, spans = self._page(spans, _PAGE_PAIRS if limit is None else min(limit, _PAGE_PAIRS), reverse=reverse)
            yield from page
            limit = None if limit is None else limit - len(page)

    def _page(self, spans: list[Span], count: int, *, reverse: bool) -> tuple[list[Pair], list[Span]]:
        self._check_open()
        return self._shared.read(lambda txn, dbs: _read_page(txn, dbs, spans, count, reverse=reverse))


def _got(txn: Transaction, dbs: Databases, keys: Sequence[bytes]) -> list[bytes | None]:
    """The values of `keys`; of most nothing but the kind is cut off, for theirs is an own one and no NUL follows."""
    return [
        txn.get(key[1:] if key[0] in OWN and key[1:2] > b"\0" else inner_key(key), None, dbs[key[0]]) for key in keys
    ]


@dataclass(frozen=True, slots=True)
class _Batch:
    """One commit, checked and split by kind before any lock is taken."""

    puts: list[tuple[int, bytes, bytes]]
    deletes: list[tuple[int, bytes]]
    expect: list[tuple[bytes, bytes, bytes | None]]
    fed: bytes

    @classmethod
    def of(cls, puts: Sequence[Pair], deletes: Sequence[bytes], expect: Mapping[bytes, bytes | None]) -> _Batch:
        inners = [(inner_key(key), key[0], value) for key, value in puts]
        return cls(
            [(kind, inner, value) for inner, kind, value in inners],
            [(kind, inner) for inner, kind in [(inner_key(key), key[0]) for key in deletes]],
            [(key, inner_key(key), value) for key, value in expect.items()],
            packed(fed) if (fed := in_commit(puts, FED)) else b"",
        )

    def apply(self, txn: Transaction, dbs: Databases) -> None:
        differing = [key for key, inner, value in self.expect if txn.get(inner, db=dbs[key[0]]) != value]
        if differing:
            raise ExpectationError(differing)
        for kind, inner in self.deletes:
            txn.delete(inner, db=dbs[kind])
        for kind, inner, value in self.puts:
            txn.put(inner, value, db=dbs[kind])
        if self.fed:
            cursor = txn.cursor(dbs[FED_AT])
            number = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 1
            txn.put(number.to_bytes(8, "big"), self.fed, db=dbs[FED_AT])


@dataclass(frozen=True, slots=True)
class _Fold:
    """Many changes that move a mark, in few calls."""

    changes: Changes
    mark: int
    slices: Slices

    def apply(self, txn: Transaction, dbs: Databases) -> None:
        if mark_of(txn, dbs) != self.mark - 1:
            raise ExpectationError([MARK])
        changes, fed = self.changes()
        pairs, begin = sorted(changes), 0
        while begin < len(pairs):
            number = pairs[begin][0][0]
            end = bisect_right(pairs, number, begin, key=lambda pair: pair[0][0])
            cut = 1 if number in OWN else 0
            puts = [(key[cut:], value) for key, value in pairs[begin:end] if value is not None]
            if cut:
                for index in range(next((n for n, (key, _) in enumerate(puts) if key.strip(b"\0")), len(puts))):
                    puts[index] = (raised(puts[index][0]), puts[index][1])  # keys of NULs alone sort first
            cursor = txn.cursor(dbs[number])
            # At the tree's end LMDB fills pages only if told that nothing comes between: by a third fewer pages.
            is_behind = bool(puts) and not (cursor.last() and cursor.key() >= puts[0][0])
            for some in self.slices(puts):
                cursor.putmulti(some, append=is_behind)
            if len(puts) < end - begin:
                for gone in [key[cut:] for key, value in pairs[begin:end] if value is None]:
                    txn.delete(raised(gone) if cut else gone, db=dbs[number])
            begin = end
        mark = self.mark.to_bytes(8, "big")
        txn.put(MARK, mark, db=dbs[META_AT])
        if fed:
            txn.put(mark, packed(fed), db=dbs[FED_AT])


def _read_page(
    txn: Transaction, dbs: Databases, spans: list[Span], count: int, *, reverse: bool
) -> tuple[list[Pair], list[Span]]:
    """The first `count` pairs of `spans` (fewer when they are large), and what remains to be read of `spans`."""
    page: list[Pair] = []
    room_bytes = _PAGE_BYTES
    for index, span in enumerate(spans):
        kind = bytes((span.kind,)) if span.kind in OWN else b""
        is_raised = bool(kind) and not span.start.strip(b"\0")  # behind a key with more than NULs lies no other
        start, end = span.start, _BEHIND_ALL if span.end is None else span.end
        for key, value in _walk(txn.cursor(dbs[span.kind]), span, reverse=reverse):  # by the thousand: it calls little
            if key < start if reverse else key >= end:
                break
            page.append((kind + (lowered(key) if is_raised else key), value))
            room_bytes -= len(value)
            if len(page) == count or room_bytes <= 0:
                return page, [span.after(key, reverse=reverse), *spans[index + 1 :]]
    return page, []


_BEHIND_ALL = b"\xff" * (MAX_KEY_BYTES + 1)


def _walk(cursor: lmdb.Cursor[bytes], span: Span, *, reverse: bool) -> Iterable[Pair]:
    """All pairs from the first one of a span on, or backward from its last one; who reads them ends at its other."""
    if not reverse:
        return cursor.iternext() if cursor.set_range(span.start) else ()
    is_past_end = span.end is not None and cursor.set_range(span.end)
    return cursor.iterprev() if (cursor.prev() if is_past_end else cursor.last()) else ()
