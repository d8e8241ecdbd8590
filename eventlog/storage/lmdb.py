"""LMDB as a storage engine: many threads and many processes of one machine, on a local disk.

Owns everything that is peculiar to LMDB: the map's size, reader slots, named databases, the lock beside it, forks, and
the rule that one process opens one environment once. It must never keep a transaction open across a yield, hand out
memory of the map, open ``lock.mdb`` (closing it would drop the process's locks), or commit anywhere but in `_transact`.

A log's directory::

    data.mdb     LMDB, format 2: the databases "meta", "A" to "Z" for the kinds of key that are called so, "other", and
                 "fed": the order in which keys were put (see fed), by the mark that was moved with them. Format 1 had
                 no "fed"; it gets one when it is first opened for writing: what there was, in key order. "meta" has
                 the format, the mark, and the id that positions of the feed begin with
    lock.mdb     LMDB's own table of readers
    write.lock   the writers' lock: BSD flock, held around every write transaction

A log that is whole is opened for reading, which takes no lock and half the time; the first commit opens it anew for
writing, while readers wait at the gate for no longer than that takes.

Locks are always taken in this order: registry, writers' lock, gate.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from bisect import bisect_right
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import lmdb

from eventlog.errors import (
    CapacityError,
    ClosedError,
    CorruptionError,
    EventLogError,
    ExpectationError,
    FormatError,
    InvalidInputError,
    StorageError,
)
from eventlog.storage.base import FED, MAX_KEY_BYTES
from eventlog.storage.fed import LOG_ID_BYTES, fed_of, in_commit, packed, place_in, read_place, unknown_place, unpacked
from eventlog.storage.locks import WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from eventlog.storage.base import Range

    Pair = tuple[bytes, bytes]
    FileId = tuple[int, int]
    Transaction = lmdb.Transaction[bytes]
    Databases = list[lmdb._Database]  # noqa: SLF001 (the type stubs give it no public name)

T = TypeVar("T")

_FORMAT_NAME = b"eventlog"
_FORMAT_VERSION = 2
_META = b"meta"
_LOG_ID = b"id"
_MARK = b"mark"
_OTHER = b"other"
_FED = b"fed"
_KINDS = 256
_META_AT = _KINDS
_FED_AT = _KINDS + 1
_OWN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""Kinds of key with a database of their own; each one that is opened costs whoever opens the log."""
_NAMED = [(kind, bytes((kind,))) for kind in sorted(_OWN)]

_MAP_LADDER_BYTES = (1 << 40, 1 << 36, 1 << 32, 1 << 30)
_MIN_MAP_BYTES = 1 << 20
_MAX_MAP_BYTES = 1 << 46  # 64 TiB: the next power of two is more than x86-64 can map
_MAX_READERS = 1024

_FED_RECORDS = 16
_PAGE_PAIRS = 256
_PAGE_BYTES = 1 << 20

_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError)
_FOREIGN = (lmdb.InvalidError, lmdb.VersionMismatchError)


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
        self._shared = _join(_Options(self.path, readonly, map_size_bytes, lock_timeout_s))

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
        _check_keys(keys)
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
        return self._pages([_Span.of(start, end) for start, end in ranges], reverse=reverse, limit=limit)

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
        found = self._shared.read(lambda txn, dbs: txn.get(_LOG_ID, db=dbs[_META_AT]))
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
            if len(dbs) <= _FED_AT:
                raise self._unfed()
            span = _Span(_FED_AT, first.to_bytes(8, "big"), None)
            pairs = islice(_forward(txn.cursor(dbs[_FED_AT]), span), _FED_RECORDS)
            return _mark(txn, dbs), [(int.from_bytes(key, "big"), record) for key, record in pairs]

        return self._shared.read(work)

    def position(self) -> None:
        """None: to ask LMDB for its newest transaction costs as much as to read a value."""
        self._check_open()

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
        with _registry_lock:
            if not self._is_closed:
                self._is_closed = True
                _leave(self._shared)

    def fold(self, pairs: Sequence[tuple[bytes, bytes | None]], mark: int, fed: Sequence[bytes]) -> None:
        """Take over sorted `pairs`, None for a key to remove, if the mark is one less than `mark`; move it there.

        The mark says how much of something outside was taken over; it begins at 0. With it goes the order in which
        keys are fed. Otherwise as `commit`.
        """
        self._check_open()
        self._shared.commit(_Fold(pairs, mark, packed(fed) if fed else b""), self._lock_timeout_s)

    def marked(self, keys: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        """The mark, and the values of `keys`: all from one moment. Otherwise as `get`."""
        self._check_open()
        _check_keys(keys)
        return self._shared.read(lambda txn, dbs: (_mark(txn, dbs), _got(txn, dbs, keys)))

    def last_key(self, prefix: bytes) -> tuple[int, bytes]:
        """The mark, and the last key that begins with `prefix`, which names a kind; empty if there is none."""
        self._check_open()
        span = _Span.of(prefix, (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big"))

        def work(txn: Transaction, dbs: Databases) -> tuple[int, bytes]:
            cursor = txn.cursor(dbs[span.kind])
            is_past_end = span.end is not None and cursor.set_range(span.end)
            is_there = (cursor.prev() if is_past_end else cursor.last()) and cursor.key() >= span.start
            return _mark(txn, dbs), _outer(span.kind, cursor.key()) if is_there else b""

        return self._shared.read(work)

    def pages(self, ranges: Sequence[Range], count: int, *, reverse: bool) -> tuple[int, list[tuple[list[Pair], bool]]]:
        """The mark, and of each range its first pairs and whether there may be more of it: all from one moment.

        They are `count` pairs at most; what comes behind a range that was not read whole is left out.
        """
        self._check_open()
        spans = [_Span.of(start, end) for start, end in ranges]

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
            return _mark(txn, dbs), pages

        return self._shared.read(work)

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed(self._location)

    def _pages(self, spans: list[_Span], *, reverse: bool, limit: int | None) -> Iterator[Pair]:
        while spans and (limit is None or limit > 0):
            page, spans = self._page(spans, _PAGE_PAIRS if limit is None else min(limit, _PAGE_PAIRS), reverse=reverse)
            yield from page
            limit = None if limit is None else limit - len(page)

    def _page(self, spans: list[_Span], count: int, *, reverse: bool) -> tuple[list[Pair], list[_Span]]:
        self._check_open()
        return self._shared.read(lambda txn, dbs: _read_page(txn, dbs, spans, count, reverse=reverse))


# Keys in their database -----------------------------------------------------------------------------------------


def _inner(key: bytes) -> bytes:
    """`key` as it stands in its database, in the same order and never empty: without the kind byte if it has its own.

    LMDB has no empty key, so the keys that are all NUL make room by growing by one NUL::

        after the kind byte   ""     00      00 00      00 01   01
        in the database       00     00 00   00 00 00   00 01   01
    """
    if not 0 < len(key) <= MAX_KEY_BYTES:
        _check_keys((key,))
    return _raised(key[1:]) if key[0] in _OWN else key


def _got(txn: Transaction, dbs: Databases, keys: Sequence[bytes]) -> list[bytes | None]:
    """The values of `keys`; of most nothing but the kind is cut off, for theirs is an own one and no NUL follows."""
    return [txn.get(key[1:] if key[0] in _OWN and key[1:2] > b"\0" else _inner(key), None, dbs[key[0]]) for key in keys]


def _check_keys(keys: Sequence[bytes]) -> None:
    sizes = {*map(len, keys)}
    if sizes and not 0 < min(sizes) <= max(sizes) <= MAX_KEY_BYTES:
        raise InvalidInputError(f"a key has 1 to {MAX_KEY_BYTES} bytes, not {min(sizes)} or {max(sizes)}")


def _outer(kind: int, inner: bytes) -> bytes:
    """The key that stands in the database as `inner`."""
    return bytes([kind]) + _lowered(inner) if kind in _OWN else inner


def _raised(rest: bytes) -> bytes:
    return rest if rest.strip(b"\0") else rest + b"\0"


def _lowered(inner: bytes) -> bytes:
    return inner if inner.strip(b"\0") else inner[:-1]


class _Span(NamedTuple):
    """What is still to be read of a range, in the terms of its kind's database: ``start <= key < end``."""

    kind: int
    start: bytes
    end: bytes | None

    @classmethod
    def of(cls, start: bytes, end: bytes) -> _Span:
        if not start:
            msg = "the start of a range is empty; begin it with the byte of its kind"
            raise InvalidInputError(msg)
        if end[:1] < start[:1]:
            return cls(start[0], b"\0", b"")
        if start[0] not in _OWN:
            behind = bytes([start[0] + 1]) if start[0] < _KINDS - 1 else None
            return cls(start[0], start, behind if end[:1] > start[:1] else end)
        return cls(start[0], _raised(start[1:]), None if end[:1] > start[:1] else _raised(end[1:]))

    def after(self, key: bytes, *, reverse: bool) -> _Span:
        return _Span(self.kind, self.start, key) if reverse else _Span(self.kind, key + b"\0", self.end)


@dataclass(frozen=True, slots=True)
class _Batch:
    """One commit, checked and split by kind before any lock is taken."""

    puts: list[tuple[int, bytes, bytes]]
    deletes: list[tuple[int, bytes]]
    expect: list[tuple[bytes, bytes, bytes | None]]
    fed: bytes

    @classmethod
    def of(cls, puts: Sequence[Pair], deletes: Sequence[bytes], expect: Mapping[bytes, bytes | None]) -> _Batch:
        inners = [(_inner(key), key[0], value) for key, value in puts]
        return cls(
            [(kind, inner, value) for inner, kind, value in inners],
            [(kind, inner) for inner, kind in [(_inner(key), key[0]) for key in deletes]],
            [(key, _inner(key), value) for key, value in expect.items()],
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
            cursor = txn.cursor(dbs[_FED_AT])
            number = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 1
            txn.put(number.to_bytes(8, "big"), self.fed, db=dbs[_FED_AT])


@dataclass(frozen=True, slots=True)
class _Fold:
    """A sorted run of changes that moves a mark, in as few calls as LMDB allows."""

    pairs: Sequence[tuple[bytes, bytes | None]]
    mark: int
    fed: bytes

    def apply(self, txn: Transaction, dbs: Databases) -> None:
        if _mark(txn, dbs) != self.mark - 1:
            raise ExpectationError([_MARK])
        pairs, begin = self.pairs, 0
        while begin < len(pairs):
            number = pairs[begin][0][0]
            end = bisect_right(pairs, number, begin, key=lambda pair: pair[0][0])
            cut = 1 if number in _OWN else 0
            puts = [(key[cut:], value) for key, value in pairs[begin:end] if value is not None]
            if cut:
                for index in range(next((n for n, (key, _) in enumerate(puts) if key.strip(b"\0")), len(puts))):
                    puts[index] = (_raised(puts[index][0]), puts[index][1])  # keys of NULs alone sort first
            cursor = txn.cursor(dbs[number])
            # At the tree's end LMDB fills pages only if told that nothing comes between: by a third fewer pages.
            is_behind = bool(puts) and not (cursor.last() and cursor.key() >= puts[0][0])
            cursor.putmulti(puts, append=is_behind)
            if len(puts) < end - begin:
                for gone in [key[cut:] for key, value in pairs[begin:end] if value is None]:
                    txn.delete(_raised(gone) if cut else gone, db=dbs[number])
            begin = end
        mark = self.mark.to_bytes(8, "big")
        txn.put(_MARK, mark, db=dbs[_META_AT])
        if self.fed:
            txn.put(mark, self.fed, db=dbs[_FED_AT])


def _mark(txn: Transaction, dbs: Databases) -> int:
    return int.from_bytes(txn.get(_MARK, db=dbs[_META_AT]) or b"", "big")


def _read_page(
    txn: Transaction, dbs: Databases, spans: list[_Span], count: int, *, reverse: bool
) -> tuple[list[Pair], list[_Span]]:
    """The first `count` pairs of `spans` (fewer when they are large), and what remains to be read of `spans`."""
    page: list[Pair] = []
    room_bytes = _PAGE_BYTES
    walk = _backward if reverse else _forward
    for index, span in enumerate(spans):
        kind = bytes((span.kind,)) if span.kind in _OWN else b""
        is_raised = bool(kind) and not span.start.strip(b"\0")  # behind a key with more than NULs lies no other
        for key, value in walk(txn.cursor(dbs[span.kind]), span):
            page.append((kind + (_lowered(key) if is_raised else key), value))
            room_bytes -= len(value)
            if len(page) == count or room_bytes <= 0:
                return page, [span.after(key, reverse=reverse), *spans[index + 1 :]]
    return page, []


def _forward(cursor: lmdb.Cursor[bytes], span: _Span) -> Iterator[Pair]:
    if cursor.set_range(span.start):
        for pair in cursor.iternext():
            if span.end is not None and pair[0] >= span.end:
                return
            yield pair


def _backward(cursor: lmdb.Cursor[bytes], span: _Span) -> Iterator[Pair]:
    is_past_end = span.end is not None and cursor.set_range(span.end)
    if cursor.prev() if is_past_end else cursor.last():
        for pair in cursor.iterprev():
            if pair[0] < span.start:
                return
            yield pair


# Locks ----------------------------------------------------------------------------------------------------------


class _Gate:
    """Lets the transactions of this process pass together, and whoever moves the map pass alone.

    Moving or closing the map under a transaction would pull its memory away. Passing costs no lock: it relies on
    each step on the set and the flag being atomic, and on both sides announcing themselves before they look.
    """

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._is_shut = False
        self._alone = threading.Lock()

    def __enter__(self) -> None:
        me = threading.get_ident()
        self._inside.add(me)
        while self._is_shut:
            self._inside.discard(me)
            with self._alone:
                self._inside.add(me)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.discard(threading.get_ident())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one inside; the caller must not be inside already."""
        self._alone.acquire()
        try:
            self._wait()  # who is interrupted meanwhile lets the others in again
            yield
        finally:
            self.reopen()

    def shut(self) -> None:
        """Wait until nobody is inside and let nobody in."""
        self._alone.acquire()
        self._wait()

    def _wait(self) -> None:
        self._is_shut = True
        self._inside.discard(threading.get_ident())  # an interrupt may have kept it from going out
        while self._inside:
            time.sleep(0.0002)

    def reopen(self) -> None:
        self._is_shut = False
        self._alone.release()


# The environment that all handles of a directory in this process share ------------------------------------------


class _Options(NamedTuple):
    path: Path
    is_readonly: bool
    map_size_bytes: int | None
    lock_timeout_s: float

    def map_sizes_bytes(self) -> Sequence[int]:
        """The sizes to try, best first."""
        return _MAP_LADDER_BYTES if self.map_size_bytes is None else (max(self.map_size_bytes, _MIN_MAP_BYTES),)


class _NotOpenError(Exception):
    """The environment is not open at this moment: after a fork, or while it becomes writable."""


class _OutcomeUnknownError(Exception):
    """A commit failed so late that the batch may be there or not."""


class _Shared:
    """One LMDB environment of this process, and what it takes to use it safely.

    After a failed flush it is poisoned: what LMDB holds in memory may differ from the disk, so every call fails until
    the directory is opened anew.
    """

    def __init__(self, options: _Options) -> None:
        self.users = 0
        self.file_id: FileId = (0, 0)
        self.failure = ""
        self.gate = _Gate()
        self._options = options
        self._data_path = f"{options.path}/data.mdb"
        self._lock = WriteLock(f"{options.path}/write.lock")
        self._env: lmdb.Environment | None = None
        self._inherited: lmdb.Environment | None = None
        self._dbs: Databases = []
        self._is_closed = False

    def read(self, work: Callable[[Transaction, Databases], T]) -> T:
        """Run `work` in one read transaction. It may run again, so it must change nothing outside."""
        while True:
            try:
                with self.gate, self._live().begin() as txn:
                    return work(txn, self._dbs)
            except _NotOpenError:
                self.open()
            except lmdb.Error as error:
                self._mend(error)

    def commit(self, batch: _Batch | _Fold, timeout_s: float) -> None:
        """Write `batch` under the writers' lock, again and again until it finds room."""
        self._lock.open()
        self._lock.acquire(timeout_s)
        try:
            if self._options.is_readonly:
                self._become_writable()  # only now, for it costs most of an opening, and most logs are only read
            self.check_file()
            while not self._is_committed(batch):
                pass
        finally:
            self._lock.release()

    def open(self) -> None:
        """Open the environment; for the first time, or again in the child of a fork."""
        if self._options.is_readonly:
            self._open_alone()
            return
        self._lock.open()
        self._lock.acquire(self._options.lock_timeout_s)
        try:
            self._open_alone()
        finally:
            self._lock.release()

    @property
    def has_feed(self) -> bool:
        """Whether what is fed has its database: a log of format 1 gets it when it is opened for writing."""
        return len(self._dbs) > _FED_AT

    def make_writable(self) -> None:
        """Open the environment anew for writing, if it is open for reading only."""
        if self._options.is_readonly:
            self._lock.open()
            self._lock.acquire(self._options.lock_timeout_s)
            try:
                self._become_writable()
            finally:
                self._lock.release()

    def _become_writable(self) -> None:
        """The same for who has the writers' lock: so readers wait no longer than it takes to open."""
        with self.gate.alone():
            if not self._options.is_readonly:
                return
            self._options = self._options._replace(is_readonly=False)
            if self.failure or self._is_closed:
                return
            self._close_environment()
            self._open_translated()

    def close(self) -> None:
        """Close for good, once running transactions are done."""
        with self.gate.alone():
            self._is_closed = True
            self._close_environment()
        self._lock.close()

    def inherit(self) -> None:
        """In the child of a fork: keep away from everything that is the parent's. The gate is shut meanwhile."""
        self._inherited, self._env, self._dbs = self._env or self._inherited, None, []
        self._lock.abandon()

    def allocated_bytes(self) -> int:
        try:
            with os.scandir(self._options.path) as entries:
                return sum(entry.stat().st_blocks * 512 for entry in entries if entry.is_file())
        except OSError as error:
            msg = f"{self._options.path} cannot be read: {error}"
            raise StorageError(msg) from error

    def _live(self) -> lmdb.Environment:
        if self.failure:
            msg = f"{self._options.path}: {self.failure}; close every handle of it and open it again"
            raise StorageError(msg)
        if self._is_closed:
            raise _closed(str(self._options.path))
        if self._env is None:
            raise _NotOpenError
        return self._env

    def _is_committed(self, batch: _Batch | _Fold) -> bool:
        """Whether `batch` is written; if not, nothing of it is, and what was in the way is mended: try again."""
        try:
            with self.gate:
                env = self._live()
                _transact(env, lambda txn: batch.apply(txn, self._dbs))
                self._lengthen(env)
        except lmdb.MapFullError:
            self._grow()
        except _OutcomeUnknownError as error:
            self.failure = f"a flush failed ({error}), so what is in memory may differ from the disk"
            msg = f"{self._options.path}: {error}; whether the batch was written is unknown; open again and look"
            raise StorageError(msg) from error
        except _NotOpenError:
            self._open_alone()
        except lmdb.Error as error:
            self._mend(error)
        else:
            return True
        return False

    def _mend(self, error: lmdb.Error) -> None:
        """Remove the cause of `error`, so that the transaction can run again, or raise one of ours."""
        if isinstance(error, lmdb.MapResizedError):
            with self.gate.alone():
                self._resize(0)  # 0: take over the size that another process gave it
        elif not (isinstance(error, lmdb.ReadersFullError) and self._clear_readers()):
            if isinstance(error, lmdb.PanicError):
                self.failure = f"LMDB gave up ({error})"
            raise _translated(error, self._options.path) from error

    def _clear_readers(self) -> int:
        """How many reader slots of killed processes were freed."""
        with self.gate:
            return self._live().reader_check()

    def _grow(self) -> None:
        with self.gate.alone():
            size_bytes = self._live().info()["map_size"] * 2
            if size_bytes > _MAX_MAP_BYTES:
                msg = f"{self._options.path}: the map is at its limit; nothing was written; delete something"
                raise CapacityError(msg)
            self._resize(size_bytes)

    def _resize(self, size_bytes: int) -> None:
        try:
            self._live().set_mapsize(size_bytes)
        except lmdb.Error as error:
            self._close_environment()  # LMDB leaves it unusable: the next call opens it anew
            msg = f"{self._options.path}: the map cannot grow ({error}); nothing was written; raise `ulimit -v`"
            raise CapacityError(msg) from error

    def _lengthen(self, env: lmdb.Environment) -> None:
        """Make the file as long as LMDB counts it, so that a shorter one can be told to have been cut."""
        with suppress(OSError, lmdb.Error):  # the batch is written; who opens a short file looks closer
            need_bytes = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
            if os.stat(self._data_path).st_size < need_bytes:  # noqa: PTH116 (once per commit)
                os.truncate(self._data_path, need_bytes)

    def check_file(self) -> None:
        """Refuse to write into a file that no longer has a name: LMDB would acknowledge, and nobody could read it."""
        if _file_id(self._data_path) != self.file_id:
            msg = f"{self._data_path} was deleted or replaced while open; nothing was written; close and open again"
            raise StorageError(msg)

    def _open_alone(self) -> None:
        with self.gate.alone():
            if self._env is None and not self.failure and not self._is_closed:
                self._close_environment()
                self._open_translated()

    def _open_translated(self) -> None:
        try:
            self._open_environment()
        except lmdb.Error as error:
            raise _translated(error, self._options.path) from error

    def _open_environment(self) -> None:
        env = _mapped(self._options)
        try:
            env.reader_check()
            self._dbs = _checked_readonly(env) if self._options.is_readonly else _checked_or_created(env)
        except BaseException as error:
            env.close()
            if isinstance(error, _ForeignError):
                raise _foreign(self._options.path, str(error)) from error
            raise
        self._env = env
        self.file_id = _file_id(self._data_path) or (0, 0)

    def _close_environment(self) -> None:
        """Close what is open, or what a fork left behind: LMDB refuses to open a file twice in a process."""
        for env in (self._env, self._inherited):
            if env is not None:
                env.close()
        self._env, self._inherited, self._dbs = None, None, []


def _transact(env: lmdb.Environment, work: Callable[[Transaction], T]) -> T:
    """Run `work` in a write transaction and commit it: the one place where anything becomes part of the log."""
    txn = env.begin(write=True)
    try:
        result = work(txn)
    except BaseException:
        txn.abort()
        raise
    number = txn.id()
    try:
        txn.commit()
    except (lmdb.MapFullError, lmdb.DiskError):
        raise  # full before the new root was written: the batch is not there
    except lmdb.Error as error:
        if env.info()["last_txnid"] < number:  # nor is it here; and what was there has no part in it
            raise lmdb.DiskError(str(error)) from error
        raise _OutcomeUnknownError(str(error)) from error
    return result


# Opening --------------------------------------------------------------------------------------------------------


class _ForeignError(Exception):
    """The environment is sound, and not a log that this release reads; the message says why."""


def _mapped(options: _Options) -> lmdb.Environment:
    """The environment with the largest map that the machine gives."""
    for size_bytes in options.map_sizes_bytes():
        try:
            return lmdb.Environment(
                os.fspath(options.path),
                map_size=size_bytes,
                readonly=options.is_readonly,
                create=not options.is_readonly,
                mode=0o600,
                max_dbs=len(_OWN) + 3,
                max_readers=_MAX_READERS,
                max_spare_txns=0,  # a spare one keeps a reader slot, which the child of a fork would free
            )
        except lmdb.MemoryError:
            continue
    msg = f"{options.path}: no address space for a map; raise `ulimit -v`, or give a smaller map_size_bytes"
    raise CapacityError(msg)


def _checked_or_created(env: lmdb.Environment) -> Databases:
    """All databases, made in one go when the environment is new: a handle opened later would cost readers a lock."""

    def work(txn: Transaction) -> Databases:
        record = b"%s %d" % (_FORMAT_NAME, _FORMAT_VERSION)
        if txn.stat()["entries"] == 0:
            txn.put(b"format", record, db=env.open_db(_META, txn=txn))
        meta = _meta(env, txn)
        version = _checked_format(txn.get(b"format", db=meta))
        txn.put(_LOG_ID, os.urandom(LOG_ID_BYTES), db=meta, overwrite=False)
        databases = [*_databases(lambda name: env.open_db(name, txn=txn), meta), env.open_db(_FED, txn=txn)]
        if version < _FORMAT_VERSION:
            _feed_all(txn, databases)
            txn.put(b"format", record, db=meta)
        return databases

    return _transact(env, work)


def _checked_readonly(env: lmdb.Environment) -> Databases:
    meta = _meta(env, None)
    with env.begin() as txn:
        is_fed = _checked_format(txn.get(b"format", db=meta)) == _FORMAT_VERSION and txn.get(_LOG_ID, db=meta)
    databases = _databases(partial(env.open_db, create=False), meta)
    return [*databases, env.open_db(_FED, create=False)] if is_fed else databases


def _feed_all(txn: Transaction, dbs: Databases) -> None:
    """Let what there is be fed, in key order: nobody knows another."""
    inners = _forward(txn.cursor(dbs[FED[0]]), _Span(FED[0], b"\0", None))
    record = packed(_outer(FED[0], inner) for inner, _ in inners)
    txn.put(_mark(txn, dbs).to_bytes(8, "big"), record, db=dbs[_FED_AT])


def _meta(env: lmdb.Environment, txn: Transaction | None) -> lmdb._Database:
    try:
        return env.open_db(_META, txn=txn, create=False)
    except (lmdb.NotFoundError, lmdb.IncompatibleError) as error:
        msg = "it has no record of a log's format"
        raise _ForeignError(msg) from error


def _databases(open_db: Callable[[bytes], lmdb._Database], meta: lmdb._Database) -> Databases:
    """The database of each kind, and behind them the one about the log; the one of what is fed is to follow."""
    databases = [open_db(_OTHER)] * _KINDS
    for kind, name in _NAMED:
        databases[kind] = open_db(name)
    return [*databases, meta]


def _checked_format(record: bytes | None) -> int:
    name, _, version = (record or b"").partition(b" ")
    if name != _FORMAT_NAME or not version.isdigit():
        msg = "it has no record of a log's format"
        raise _ForeignError(msg)
    if int(version) > _FORMAT_VERSION:
        msg = (
            f"its format is version {int(version)} and this release reads up to {_FORMAT_VERSION}; upgrade the package"
        )
        raise _ForeignError(msg)
    return int(version)


_META_PAGE = struct.Struct("=16x I I 16x I 92x Q Q")  # magic, format, page size, last page number, transaction number
_MAGIC = 0xBEEFC0DE
_DATA_FORMAT = 1


class _MetaPage(NamedTuple):
    magic: int
    data_format: int
    page_bytes: int
    last_page: int
    txn_id: int


def _check_data_file(path: str) -> None:
    """Refuse a file that LMDB did not write, or that it would map and then die on (SIGBUS)."""
    for _ in range(3):
        has_bytes, need_bytes = _length_bytes(path)
        if has_bytes >= need_bytes:
            return
        time.sleep(0.01)  # a writer may be about to lengthen it: see _lengthen
    if _lacks_used_pages(path):
        raise CorruptionError(path, f"it has {has_bytes:,} of {need_bytes:,} bytes; it was cut short")


def _length_bytes(path: str) -> tuple[int, int]:
    """How long the file is, and how long it should be; a creation that was killed at its first step needs nothing.

    Source: LMDB 0.9 ``mdb.c``, MDB_meta: each of the first two pages holds one, and the greater transaction counts.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, _META_PAGE.size, 0)
        if not head:
            return 0, 0
        first = _meta_page(path, head)
        second = os.pread(fd, _META_PAGE.size, first.page_bytes)
        has_bytes = os.fstat(fd).st_size  # last: it only grows
    finally:
        os.close(fd)
    if not _is_lmdb(second):
        raise CorruptionError(path, "its second page is damaged or missing")
    newest = max(first, _meta_page(path, second), key=lambda meta: meta.txn_id)
    return has_bytes, (newest.last_page + 1) * first.page_bytes


def _lacks_used_pages(path: str) -> bool:
    """Whether pages that hold something lie beyond the end of the file; slow, for it reads all of it.

    A short file may be sound: LMDB does not write a page that was taken at the end and freed by the same transaction.
    Such a file is left only by a writer that was killed before `_lengthen`.
    """
    try:
        module = import_module("lmdb.verify")
    except ImportError:
        return True  # an older release: better refuse a sound file than die on a damaged one
    return any("beyond EOF" in finding for finding in module.verify(path))


def _is_lmdb(raw: bytes) -> bool:
    return raw[16:20] == struct.pack("=I", _MAGIC)


def _meta_page(path: str, raw: bytes) -> _MetaPage:
    if not _is_lmdb(raw):
        raise _foreign(path, "it is not an LMDB file")
    if len(raw) < _META_PAGE.size:
        raise CorruptionError(path, "it was cut short within its header")
    meta = _MetaPage(*_META_PAGE.unpack(raw))
    if meta.data_format != _DATA_FORMAT:
        raise _foreign(path, f"it has LMDB's data format {meta.data_format}, and a log has {_DATA_FORMAT}")
    return meta


def _check_place(options: _Options) -> FileId | None:
    """Make the directory, and refuse a place that cannot be a log before anything is written there.

    Returns:
        Which file the log is in, None if there is none yet.
    """
    path = options.path
    data_path = f"{path}/data.mdb"
    file_id = _file_id(data_path)
    if file_id is None:
        _make_place(path, is_readonly=options.is_readonly)
    else:
        _check_data_file(data_path)
    return file_id


def _make_place(path: Path, *, is_readonly: bool) -> None:
    if path.exists() and not path.is_dir():
        raise _foreign(path, "it is a file, and a log is a directory")
    if is_readonly:
        msg = f"no log at {path}; check the path, or open it without readonly to create one"
        raise FormatError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


# One environment per file and process -------------------------------------------------------------------------

_registry_lock = threading.Lock()
_shared_by_file: dict[FileId, _Shared] = {}


def _join(options: _Options) -> _Shared:
    with _registry_lock:
        try:
            file_id = _check_place(options)
        except OSError as error:
            msg = f"{options.path} cannot be opened: {error}"
            raise StorageError(msg) from error
        shared = _known(options, file_id) or _opened(options)
        shared.users += 1
        return shared


def _known(options: _Options, file_id: FileId | None) -> _Shared | None:
    shared = None if file_id is None else _shared_by_file.get(file_id)
    if shared is not None and shared.failure:
        shared.close()  # poisoned: its handles stay so, and the new one begins anew
        return None
    if shared is not None and not (options.is_readonly or shared.has_feed):
        shared.make_writable()
    return shared


def _opened(options: _Options) -> _Shared:
    """The environment; one that is whole is opened for reading, and made writable by the first commit."""
    shared = None if options.is_readonly else _opened_whole(options)
    if shared is None:
        shared = _entered(_Shared(options))
    _shared_by_file[shared.file_id] = shared
    return shared


def _opened_whole(options: _Options) -> _Shared | None:
    """The environment, open for reading; None if that is not possible yet, or not at all: opening it says why."""
    shared = None
    with suppress(EventLogError):
        shared = _entered(_Shared(options._replace(is_readonly=True)))
    if shared is not None and not shared.has_feed:
        shared.close()
        return None
    return shared


def _entered(shared: _Shared) -> _Shared:
    try:
        shared.open()
    except BaseException:
        shared.close()
        raise
    return shared


def _leave(shared: _Shared) -> None:
    shared.users -= 1
    if shared.users == 0:
        shared.close()
        if _shared_by_file.get(shared.file_id) is shared:
            del _shared_by_file[shared.file_id]


def _before_fork() -> None:
    """Let running transactions end: in the child nobody would, and LMDB would wait for them for ever."""
    _registry_lock.acquire()
    for shared in _shared_by_file.values():
        shared.gate.shut()


def _after_fork() -> None:
    for shared in _shared_by_file.values():
        shared.gate.reopen()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    for shared in _shared_by_file.values():
        shared.inherit()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


# Small facts ----------------------------------------------------------------------------------------------------


def _file_id(path: str | Path) -> FileId | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (once per commit: a Path would cost more than the call)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _closed(location: str) -> ClosedError:
    return ClosedError(f"{location} was closed; open it again")


def _foreign(path: str | Path, why: str) -> FormatError:
    return FormatError(f"{path} cannot be opened as a log: {why}; give the path of a log, or of a new directory")


def _translated(error: lmdb.Error, path: Path) -> EventLogError:
    """Ours for LMDB's `error`; whenever this is called, nothing was written."""
    if isinstance(error, _DAMAGE):
        return CorruptionError(str(path), str(error))
    if isinstance(error, _FOREIGN):
        return _foreign(path, str(error))
    if isinstance(error, lmdb.DiskError):
        return CapacityError(
            f"{path}: the disk is full, or refuses ({error}); nothing was written; free some space and retry"
        )
    if isinstance(error, lmdb.TxnFullError):
        return CapacityError(f"{path}: the batch is too large for one transaction; nothing was written; split it")
    return StorageError(f"{path}: {error}; nothing was written")
