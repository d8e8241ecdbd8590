"""A log's directory on one machine: a journal in front of LMDB, shared by all processes.

Owns how the two are read as one. A commit is one write to the journal; a full journal file is folded into LMDB by one
synchronous transaction in the background, and removed. A read takes the number of the last folded file from its LMDB
transaction and puts the files after it on top.

```
 LMDB, folded up to file 4     |  5 sealed  |  6 sealed  |  7 ...end
 -------------------------------  layer 5      layer 6      layer 7     newest wins
```

Locks, in the order in which they are taken: the writers' lock (one commit at a time on the machine), `_state` (this
handle's layers; never held while waiting for anybody). Who waits for a flush holds neither. LMDB's own lock is taken
only by who folds.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from eventlog.errors import BusyError, ClosedError, CorruptionError, ExpectationError, InvalidInputError, StorageError
from eventlog.storage import Synchronous, overlay
from eventlog.storage.base import FED, MAX_KEY_BYTES, check_starts
from eventlog.storage.fed import fed_of, in_order, place_in, read_place, unknown_place, unpacked
from eventlog.storage.journal import (
    END,
    OFFSET_MASK,
    REMOVED,
    Head,
    JournalFiles,
    LocalFiles,
    batch,
    batch_checksum,
    batch_head,
    change_head,
    changes,
    position,
    put_keys,
    whole_batches,
)
from eventlog.storage.journal import OFFSET_BITS as BITS
from eventlog.storage.lmdb import LmdbStorage
from eventlog.storage.locks import WriteLock
from eventlog.storage.overlay import ABSENT, Layer, merged
from eventlog.storage.sharing import SharedFlush
from eventlog.storage.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from eventlog.storage.base import Range
    from eventlog.storage.journal import Files
    from eventlog.storage.lmdb import Pair, Slices

FILE_BYTES: Final = 4 << 20
"""A journal file is sealed when it has so many; opening a log reads at most one that is not folded by its writer."""
MAX_SEALED: Final = 4
"""Sealed files that may wait to be folded; a writer that would add one more folds first."""
FLUSH_INTERVAL_S: Final = 0.5
_SPILL_BYTES: Final = 1 << 18
_FIRST_BYTES: Final = 1 << 12
"""Who has written no more since he opened the log gets no window: to make one takes what it saves in ten commits."""
_LARGE_BYTES: Final = 1 << 16
"""Who writes so much at once needs no room behind it: he waits for the disk to take it, not for a new length."""
_PATIENCE_S: Final = 0.005
_SLICE_PAIRS: Final = 512
"""So many a fold puts in half a millisecond."""
_SLICE_REST_S: Final = 0.002
"""With that it still takes half the time in which a loop fills the next file."""
_ASIDE_S: Final = 0.001
"""No writer waits longer for a slice: other threads may keep the fold from it."""
_AT_ONCE_BYTES: Final = 1 << 20
"""To write or read so much takes longer than to hand it to another thread."""
_PAGE_PAIRS: Final = 256
_FIRST_PAGE_PAIRS: Final = 32
_PREFIX_BYTES: Final = 9
"""The kind and the run, in most keys (see the log's layout); of other keys no less true."""
_MAX_LASTS: Final = 4096
_FED: Final = FED[0]
_head, _frame, _checksum = change_head, batch_head, batch_checksum


def _whole(pairs: Sequence[Pair]) -> Sequence[Sequence[Pair]]:
    return [pairs]


class _Read(NamedTuple):
    """How far a journal file was read for the feed: how many keys lie before that offset."""

    number: int
    keys: int
    offset: int


class LocalStorage:
    """The storage engine of a directory.

    Safe from any thread, from any number of processes, and in the child of a ``fork``. Reading never waits for writing.
    What a commit that returned survives:

    - ``synchronous="full"``: power loss. Concurrent callers share one flush.
    - ``"normal"``: the process's death. It is flushed in the background, so power loss takes at most the last
      `FLUSH_INTERVAL_S` seconds, and never anything before what it takes.
    - ``"off"``: nothing but being read by this process; it is written in batches. Nobody else can write meanwhile.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        *,
        readonly: bool = False,
        synchronous: Synchronous = "normal",
        lock_timeout_s: float = 30.0,
        files: Files | None = None,
    ) -> None:
        """Open the log in the directory `location`; unless `readonly`, create it where it is missing.

        Args:
            location: the directory.
            readonly: refuse every commit; neither fold nor cut anything.
            synchronous: see the class.
            lock_timeout_s: how long a commit waits for other writers.
            files: the file system to use for the journal.

        Raises:
            InvalidInputError: `synchronous` is none of the three.
            BusyError: another process has it open with ``synchronous="off"``.
            CorruptionError: the journal is damaged before what was flushed.
            FormatError, CapacityError, StorageError: as `LmdbStorage`.
        """
        if synchronous not in get_args(Synchronous):
            raise InvalidInputError(f'synchronous is "full", "normal" or "off", not {synchronous!r}')
        self._lmdb = LmdbStorage(location, readonly=readonly, lock_timeout_s=lock_timeout_s)
        self._readonly = readonly
        self._mode = synchronous
        self._timeout_s = lock_timeout_s
        self._directory = self._lmdb.path / "journal"
        self._files = JournalFiles(self._directory, files or LocalFiles(), writable=not readonly)
        self._head_path = f"{self._directory}/head"
        self._head_number = 0
        self._lock = WriteLock(f"{self._directory}/lock", has_company=synchronous == "full")
        self._begin()
        try:
            self._open()
            with _coming_and_going:
                _handles.add(self)
        except BaseException:
            self._give_back()  # and seals nothing: who has the log with "off" goes on writing where it was
            raise

    def _begin(self) -> None:
        """What a handle has before it is open; in the child of a fork again."""
        self._opening = threading.RLock()
        self._state = threading.Lock()
        self._shared = SharedFlush()
        self._room = 0
        self._turn = threading.Lock()
        self._holds_lock = False
        self._head: Head | None = None
        self._words: memoryview | list[int] = []
        self._layers: list[Layer] = []
        self._lasts: dict[bytes, bytes] = {}
        self._end = 0
        self._pending = bytearray()
        self._position = 0  # of "off"
        self._named = 0
        self._fed_at = _Read(0, 0, 0)
        self._failure = ""
        self._is_closed = False
        self._is_inherited = False
        self._is_unusable = False  # any of the three: what every call looks at
        self._is_dirty = False
        self._slice_put: threading.Event | None = None  # while a fold puts a slice
        self._is_mending = False
        self._worker: Worker | None = None

    # --- opening --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._readonly:
            self._open_readonly()
        else:
            self._open_journal()
            if self._mode == "off" and not self._holds_lock:  # in the child of a fork, from the last time it was tried
                self._lock.acquire(self._timeout_s)
                self._holds_lock = True
        self._restart(self._folded())
        if self._mode == "off" and not self._readonly:  # nobody else writes, so its commits do not look again
            self._catch_up(self._words[END])
            self._position = self._words[END]
        if self._mode != "full":  # who writes a little needs no room
            self._room = self._words[END] + _FIRST_BYTES
        if self._head is not None and self._head.has_failed and not self._readonly:
            self._write_anew()

    def _open_journal(self) -> None:
        try:
            if not os.path.isdir(self._directory):  # noqa: PTH112 (as for stat)
                self._directory.mkdir(mode=0o700, exist_ok=True)
            self._lock.open()
            self._head = Head(self._head_path, writable=True)
            self._head_number = self._head.file_number
        except OSError as error:
            raise StorageError(f"{self._directory} cannot be opened: {error}") from error
        if not self._head.is_trusted:
            self._recover()
        self._words = self._head.words

    def _write_anew(self) -> None:
        """After a failed flush: the disk may lack what the system shows, so bring all of it into LMDB, which flushes.

        Source: the system reports a failed flush once and may drop the pages, so the next flush proves nothing.
        """
        assert self._head is not None
        if self._mode != "off":
            self._lock.acquire(self._timeout_s)
        try:
            self._is_mending = True  # a flush would find that one failed
            with self._state:
                self._caught_up()
            self._seal()
            self._fold()
            self._head.note_flushed(self._end)
            self._head.note_failed(failed=False)
        finally:
            self._is_mending = False
            if self._mode != "off":
                self._lock.release()

    def _open_readonly(self) -> None:
        with suppress(FileNotFoundError):
            self._head = Head(self._head_path, writable=False)
        if self._head is not None and self._head.is_trusted:
            self._words = self._head.words
        else:  # after a reboot, and no writer came yet: read up to where one would cut
            first = self._folded() + 1
            flushed = 0 if self._head is None else self._head.flushed
            end = self._files.end_of_whole(first, flushed) if self._directory.exists() else position(first, 0)
            self._words = [0, end]

    def _recover(self) -> None:
        """After a reboot, or at the very beginning: find the end in the files, and cut what lies beyond."""
        assert self._head is not None
        self._lock.acquire(self._timeout_s)
        try:
            if self._head.is_trusted:
                return
            first = self._folded() + 1
            end = self._files.end_of_whole(first, self._head.flushed)
            self._files.begin_anew(end)
            self._head.trust(end)
        finally:
            self._lock.release()

    def _folded(self) -> int:
        """The number of the last journal file that LMDB holds; 0 for none."""
        return self._lmdb.marked([])[0]

    def _restart(self, folded: int) -> None:
        """Forget all layers: what is read next begins after the file `folded`."""
        self._files.forget(folded)
        self._lasts = {}
        self._layers, self._end = [Layer(folded + 1)], position(folded + 1, 0)  # one line: see _seal

    @property
    def location(self) -> str:
        """The directory, as it was given."""
        return self._lmdb.location

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See ``Storage.get``."""
        if self._is_unusable:  # before `_state` is held, which opening anew needs
            self._make_usable()
        while True:
            with self._state:
                end = self._caught_up()
                layers, lasts = self._layers, self._lasts
                found: list[Any] = overlay.lookups(layers, keys)
            if ABSENT not in found:
                return found
            missing = [key for key, value in zip(keys, found, strict=True) if value is ABSENT]
            if layers[-1].values and all(self._is_beyond(key, lasts, end) for key in missing):
                return [None if value is ABSENT else value for value in found]
            folded, below = self._lmdb.marked(missing)
            if self._is_older(folded, end):
                if len(missing) == len(keys):
                    return below
                values = iter(below)
                return [next(values) if value is ABSENT else value for value in found]

    def _is_beyond(self, key: bytes, lasts: dict[bytes, bytes], end: int) -> bool:
        """Whether a key that no layer has cannot be in LMDB either: it lies behind the last one of its kind and run.

        That is where most keys lie that are asked for before they are written. The last keys are remembered until
        layers are dropped; who asks has taken the layers before `lasts`, so what LMDB holds since is in the layers.
        """
        prefix = key[:_PREFIX_BYTES]
        last = lasts.get(prefix)
        if last is None:  # the first time it is as cheap to look
            if len(lasts) >= _MAX_LASTS:
                lasts.clear()
            lasts[prefix] = b""
            return False
        if not last:
            if not _PREFIX_BYTES <= len(key) <= MAX_KEY_BYTES or key[0] == 255:  # noqa: PLR2004 (no key of a log)
                return False
            folded, found = self._lmdb.last_key(prefix)
            if folded >= end >> BITS:  # LMDB is ahead of what the layers are of: not one moment
                return False
            last = lasts[prefix] = found or prefix[:1]
        return key > last and len(key) <= MAX_KEY_BYTES

    def _is_older(self, folded: int, end: int) -> bool:
        """Whether what LMDB held is all before the last file read; drops the layers that it holds meanwhile."""
        if folded >= end >> BITS:
            return False
        if folded >= self._layers[0].number:
            with self._state:
                self._drop(folded)
        return True

    def _drop(self, folded: int) -> None:
        """Give up what LMDB holds by now. The caller holds `_state`."""
        self._lasts = {}  # before the layers: see _is_beyond
        self._layers = [layer for layer in self._layers if layer.number > folded] or self._layers[-1:]
        self._files.forget(min(folded, self._layers[0].number - 1))

    def position(self) -> int:
        """See ``Storage.position``: where the journal ends; with ``"off"`` what was kept back is counted from there.

        Raises:
            ClosedError: the storage was closed.
            StorageError: opened readonly, and the directory was deleted or moved: nobody writes what this handle reads.
        """
        if self._is_unusable:
            self._make_usable()
        if self._readonly:  # who writes finds it out by writing
            self._lmdb.check_file()
        if self._words.__class__ is list:
            self._look_for_writer()
        if self._mode == "off" and not self._readonly:  # one number: while it is spilled two would not be of one moment
            return self._position
        return self._words[END]

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """See ``Storage.feed``: the records of folded files, then the other files.

        What a log held before releases that feed first opened it for writing comes in key order. With ``"off"``, what
        is written in one go counts as one commit. After power loss, a position of what was lost is none any more.
        """
        self._check_usable()
        after = place_in(self._lmdb.log_id(), after)
        number, skip = read_place(after)
        if number > self._visible_end() >> BITS:
            raise unknown_place(after)
        if self._mode == "off" and not self._readonly:
            with self._turn:
                self._spill()
        return islice(self._fed(after, number, skip), limit and max(limit, 0))

    def _visible_end(self) -> int:
        """Up to where everything is committed that others see."""
        self.position()  # looks for a writer
        return self._words[END]

    def _fed(self, after: bytes, number: int, skip: int) -> Iterator[tuple[bytes, bytes]]:
        while True:
            end = self._visible_end()
            folded, records = self._lmdb.fed(number)
            for found, record in records:
                yield from fed_of(after, found, unpacked(record), skip if found == number else 0)
                number, skip = found + 1, 0
            if records:
                continue
            if folded >= number:  # nothing in those files is fed
                if skip:
                    raise unknown_place(after)
                number, skip = folded + 1, 0
            if number > end >> BITS:
                return
            try:
                begin, keys = self._fed_in(number, skip, end)
            except FileNotFoundError:
                self._check_folded(number)
                continue
            yield from fed_of(after, number, keys, skip, begin)
            if number == end >> BITS:
                return
            number, skip = number + 1, 0

    def _fed_in(self, number: int, skip: int, end: int) -> tuple[int, list[bytes]]:
        """What is fed of a file that is not folded, from an index on that is at most `skip`; goes on where it was."""
        is_open, known = number == end >> BITS, self._fed_at
        begin = known if known.number == number and known.keys <= skip else _Read(number, 0, 0)
        size = (end & OFFSET_MASK if is_open else 1 << BITS) - begin.offset
        keys, read, is_sealed = self._read_keys(begin, size)
        if not (read.offset == end & OFFSET_MASK if is_open else is_sealed):
            raise CorruptionError(f"{self._files.path(number)}, from byte {read.offset}", "a batch is damaged")
        self._fed_at = read
        return begin.keys, keys

    def _read_keys(self, begin: _Read, size: int) -> tuple[list[bytes], _Read, bool]:
        """The keys of a file that are fed, as far as it is whole; how far that is, and whether it is sealed there."""
        keys: list[bytes] = []
        number, offset = begin.number, begin.offset
        is_sealed = False
        for body, behind in whole_batches(self._files.read_apart(number, offset, size), position(number, offset)):
            if not body:
                is_sealed = True
                break
            keys += in_order(put_keys(body, _FED))
            offset = behind & OFFSET_MASK
        return keys, _Read(number, begin.keys + len(keys), offset), is_sealed

    def _order(self, layer: Layer) -> list[bytes]:
        """The keys of a sealed file that are fed; those of a file that the disk lost, as this handle knows them."""
        if layer.fed is not None:
            return layer.fed
        keys: list[bytes] = []
        is_sealed = False
        with suppress(FileNotFoundError):
            keys, _, is_sealed = self._read_keys(_Read(layer.number, 0, 0), 1 << BITS)
        if not is_sealed:
            known = set(keys)
            keys += [key for key in layer.values if key[:1] == FED and key not in known]
        return keys

    def _check_folded(self, number: int) -> None:
        if self._folded() < number:
            raise CorruptionError(str(self._files.path(number)), "the journal file is missing")

    def scan(
        self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """See ``Storage.scan``. Each page is from one moment; nothing is held between two."""
        if self._is_unusable:
            self._make_usable()
        check_starts(ranges)
        pairs, rest = self._above(ranges, reverse=reverse, limit=limit)
        if not rest:
            return iter(pairs)
        left = None if limit is None else limit - len(pairs)
        return chain(pairs, self._scanned(rest, reverse=reverse, left=left))

    def _above(
        self, ranges: Sequence[Range], *, reverse: bool, limit: int | None
    ) -> tuple[list[tuple[bytes, bytes]], Sequence[Range]]:
        """What a scan begins with, as far as it is known to be in the newest layer alone; and what is still to scan."""
        count = _FIRST_PAGE_PAIRS if limit is None else min(limit, _FIRST_PAGE_PAIRS)
        pairs: list[tuple[bytes, bytes]] = []
        with self._state:
            self._caught_up()
            layer, lasts = self._layers[-1], self._lasts
            if count < 1 or not layer.values or len(self._layers) > 1:
                return pairs, ranges
            for index, (start, end) in enumerate(ranges):
                prefix = start[:_PREFIX_BYTES]
                last = lasts.get(prefix)
                if not last or (end[:_PREFIX_BYTES] != prefix and end > _behind(prefix)):
                    return pairs, ranges[index:]
                keys = layer.keys_between(start, end, count, reverse=reverse)
                is_full = len(keys) == count
                if last >= (keys[0] if reverse and is_full else start):
                    return pairs, ranges[index:]  # LMDB may hold something of it
                if keys:
                    pairs += layer.pairs_of(keys[::-1] if reverse else keys)
                if limit is not None and len(pairs) >= limit:
                    return pairs[:limit], ()
                if is_full:
                    rest = (start, keys[0]) if reverse else (keys[-1] + b"\0", end)
                    return pairs, [rest, *ranges[index + 1 :]]
                if len(pairs) > count:
                    return pairs, ranges[index + 1 :]
        return pairs, ()

    def _scanned(self, ranges: Sequence[Range], *, reverse: bool, left: int | None) -> Iterator[tuple[bytes, bytes]]:
        size = _FIRST_PAGE_PAIRS  # most readers want a few
        # a range lies within one kind of key
        rest = [(start, end if end[:1] == start[:1] else min(end, _behind(start[:1]))) for start, end in ranges]
        is_bare = False
        while rest and (left is None or left > 0):
            # where there was nothing but what was removed, there may be more of it: it is not gone through one by one
            count = size if left is None or is_bare else min(left, size)
            page, left_of = self._page(rest[:count], count, reverse=reverse)  # not all: they may be many
            rest = left_of + rest[count:]
            if left is not None:
                page = page[:left]
                left -= len(page)
            size, is_bare = _PAGE_PAIRS, not page
            yield from page

    def _page(self, ranges: list[Range], count: int, *, reverse: bool) -> tuple[list[tuple[bytes, bytes]], list[Range]]:
        """The first pairs of some ranges, and what remains of those."""
        self._check_usable()
        while True:
            with self._state:
                last, lasts = self._caught_up(), self._lasts
                is_empty = not self._layers[-1].values
            for start, _ in () if is_empty else ranges:
                if not lasts.get(start[:_PREFIX_BYTES]):
                    self._is_beyond(start, lasts, last)  # looks, so that `_above` knows next time
            folded, pages = self._lmdb.pages(ranges, count, reverse=reverse)
            if not self._is_older(folded, last):
                continue
            with self._state:
                if self._layers[0].number <= folded + 1:
                    return self._merged(ranges, pages, count, reverse=reverse)

    def _merged(
        self, ranges: list[Range], pages: list[tuple[list[tuple[bytes, bytes]], bool]], count: int, *, reverse: bool
    ) -> tuple[list[tuple[bytes, bytes]], list[Range]]:
        """What `_page` returns, of what LMDB has of the first ranges. The caller holds `_state`."""
        found: list[tuple[bytes, bytes]] = []
        for index, (below, is_cut) in enumerate(pages):
            start, end = ranges[index]
            room = count - len(found)
            page, edge = merged(below, self._layers, start, end, room, is_cut=is_cut, reverse=reverse)
            found += page
            if edge is not None:
                return found, [(start, edge) if reverse else (edge + b"\0", end), *ranges[index + 1 :]]
            if len(page) == room:
                return found, ranges[index + 1 :]
        return found, ranges[len(pages) :]

    def _caught_up(self) -> int:
        """Read what others committed; returns where the log ends now. The caller holds `_state`."""
        if self._is_unusable:
            self._make_usable()
        if self._words.__class__ is list:
            self._look_for_writer()
        end = self._words[END]
        if end > self._end:
            self._catch_up(end)
        return self._end

    def _look_for_writer(self) -> None:
        """For a readonly handle that was opened after a reboot: whether a writer came since."""
        if self._head is None:
            with suppress(FileNotFoundError):
                self._head = Head(self._head_path, writable=False)
        if self._head is not None and self._head.is_trusted:
            self._words = self._head.words

    def _catch_up(self, end: int) -> None:
        while self._end < end:
            number = self._end >> BITS
            try:
                last = number == end >> BITS
                data = self._files.read(self._end, end) if last else self._read_rest(number)
            except FileNotFoundError:  # folded and removed meanwhile
                folded = self._folded()
                if folded < number:
                    raise CorruptionError(str(self._files.path(number)), "the journal file is missing") from None
                self._restart(folded)
                end = self._words[END]
                continue
            self._take_over(data, end)

    def _read_rest(self, number: int) -> bytes:
        return self._files.read_all(number)[self._end & OFFSET_MASK :]

    def _take_over(self, data: bytes, end: int) -> None:
        """Put batches on the newest layer; after a seal, begin the next one."""
        begin = self._end
        for body, behind in whole_batches(data, begin):
            if body:
                self._layers[-1].fed = None
                self._layers[-1].values.update(changes(body))
                self._end = behind
            else:
                number = (behind >> BITS) + 1
                self._layers, self._end = [*self._layers, Layer(number)], position(number, 0)  # one line: see _seal
                if len(self._layers) > MAX_SEALED + 1:  # others fold: give up what they have folded
                    self._drop(self._folded())
                return
        if (self._end < end and self._end >> BITS == end >> BITS) or self._end == begin:
            raise CorruptionError(
                f"{self._files.path(self._end >> BITS)}, from byte {self._end & OFFSET_MASK}", "a batch is damaged"
            )

    # --- writing --------------------------------------------------------------------------------------------------

    def commit(  # noqa: C901, PLR0912, PLR0915 (the hot path calls little)
        self,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,
    ) -> None:
        """See ``Storage.commit``; what it survives, see the class. A key in both is written."""
        # The hot path: everything here runs once a superstep, so it calls little and looks things up once.
        parts: list[bytes] = []
        fed: list[bytes] = []
        for key in deletes:
            parts += _head(_checked(key), REMOVED), key
        for key, value in puts:
            size = len(key)
            if not 0 < size <= MAX_KEY_BYTES:
                _checked(key)
            if key[0] == _FED:
                fed.append(key)
            parts += _head(size, len(value)), key, value
        body = b"".join(parts)
        if len(body) >= _AT_ONCE_BYTES and self._lock.waits_for_nobody:
            raise self._busy(f"{len(body):,} bytes to write")
        if self._is_unusable or self._readonly:
            self._make_writable()
        if self._mode == "off":
            if self._lock.waits_for_nobody and self._turn.locked():
                raise self._busy("another thread writes")
            with self._turn:  # it holds the writers' lock all the time, so its threads take turns
                self._keep_back(body, puts, deletes, expect)
            return
        slice_put = self._slice_put
        if slice_put is not None:
            slice_put.wait(_ASIDE_S)
        is_held = False
        try:
            is_held = self._lock.acquire(self._timeout_s)
            if self._words[END] != self._end:
                if self._words[END] - self._end >= _AT_ONCE_BYTES and self._lock.waits_for_nobody:
                    raise self._busy("others wrote much")
                with self._state:
                    self._caught_up()
            if expect:
                layers, lasts = self._layers, self._lasts
                known = layers[-1].values
                for key, wanted in expect.items():
                    found = known.get(key, ABSENT)
                    if found == wanted:
                        continue
                    if found is ABSENT and wanted is None and len(layers) == 1:
                        last = lasts.get(key[:_PREFIX_BYTES])
                        if last and last < key:  # see _is_beyond
                            continue
                    self._check(expect)  # it differs, or lies below: look closer
                    break
            if body:
                if self._end & OFFSET_MASK >= FILE_BYTES:
                    self._turn_over()
                at = self._end
                end = at + self._files.write(_frame(len(body), _checksum(body, at)) + body, at)  # as `batch`
                if end > self._room and end - at < _LARGE_BYTES:
                    self._room = self._files.make_room(end, with_window=self._mode != "full")
                self._words[END] = end  # now it is committed; whoever is interrupted here reads it from the file
                layer = self._layers[-1]
                with self._state:
                    if deletes:
                        layer.values.update(dict.fromkeys(deletes))
                    layer.values.update(puts)
                    if layer.fed is not None:
                        layer.fed += in_order(fed)
                    self._end = end
            end = self._end
        finally:
            if is_held:
                self._lock.release()
        if self._mode == "full":
            if body and is_settled:
                self._flush_to(end)
        elif not self._is_dirty:
            self._is_dirty = True
            self._wake()

    def _check(self, expect: Mapping[bytes, bytes | None]) -> None:
        """The caller holds the writers' lock, so nothing can be committed meanwhile."""
        layers, lasts = self._layers, self._lasts
        newest = layers[-1].values
        differing: list[bytes] = []
        missing: list[bytes] = []
        for key, value in expect.items():
            found = newest.get(key, ABSENT)
            if found is ABSENT and len(layers) > 1:
                found = overlay.lookup(layers, key)
            if found is ABSENT:
                last = lasts.get(key[:_PREFIX_BYTES])
                if not (last and last < key) and not self._is_beyond(key, lasts, self._end):
                    missing.append(key)
                    continue
                found = None
            if found != value:
                differing.append(key)
        if missing:
            below = zip(missing, self._lmdb.get(missing), strict=True)
            differing += [key for key, found in below if found != expect[key]]
        if differing:
            raise ExpectationError(differing)

    def _keep_back(
        self,
        body: bytes,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes],
        expect: Mapping[bytes, bytes | None] | None,
    ) -> None:
        """Take over a batch of ``"off"``, to be written with others; the caller has the turn."""
        if self._is_unusable:  # closed meanwhile
            self._make_writable()
        if expect:
            self._check(expect)
        if len(self._pending) + len(body) > _SPILL_BYTES:
            self._spill()
        try:
            with self._state:
                self._layers[-1].values.update(dict.fromkeys(deletes))
                self._layers[-1].values.update(puts)
            self._pending += body
            self._position += len(body)
        except BaseException:  # interrupted half-way: what this handle shows would differ from what it writes
            self._failure, self._is_unusable = "it was interrupted within a commit", True
            raise

    def _spill(self) -> None:
        """Write what ``"off"`` kept back, as one batch; the caller has the turn."""
        if not self._pending:
            return
        self._check_place()
        if self._end & OFFSET_MASK >= FILE_BYTES:
            self._seal()
        data = batch(bytes(self._pending), self._end)
        self._files.write(data, self._end)
        with self._state:
            self._layers[-1].fed = None
            self._end += len(data)
            self._words[END] = self._end
        self._pending.clear()

    def _seal(self) -> None:
        """End the file and begin the next one; fold first, if too many wait. The caller holds the writers' lock."""
        self._check_place()
        if len(self._layers) > MAX_SEALED:
            if self._lock.waits_for_nobody:
                raise self._busy("too much waits to be folded")
            self._hurry()  # while this waits for the worker
            self._fold()  # where that fails nothing is written, so that what waits does not grow
        number = (self._end >> BITS) + 1
        self._files.write(batch(b"", self._end), self._end)
        self._files.create(number)
        with self._state:  # who caught up in between would make the layer, too, and the first one would be folded empty
            self._words[END] = position(number, 0)  # as in commit
            self._layers, self._end = [*self._layers, Layer(number)], position(number, 0)

    def _turn_over(self) -> None:
        """Seal a file that is full, and have it folded at once; as `_seal`."""
        self._seal()
        self._wake()
        self._hurry()

    # --- flushing and folding -------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Return when everything committed before, by whatever process, is on stable storage.

        Raises:
            StorageError: the disk refused; what was acknowledged may be lost, and the handle must be opened again.
        """
        self._check_usable()
        if not self._readonly:
            with self._turn:
                self._spill()
            self._flush_to(self._words[END])

    def is_flushed(self) -> bool:
        """Whether everything committed so far, by whatever process, is on stable storage."""
        self._check_usable()
        return self._head is None or (self._head.flushed >= self._words[END] and not self._pending)

    @contextmanager
    def at_once(self) -> Iterator[bool]:
        """See ``Storage.at_once``: unless each commit waits for its flush, or everything is to be opened anew."""
        if self._mode == "full" or self._is_unusable:
            yield False
        else:
            with self._lock.at_once():
                yield True

    def settle(self) -> None:
        """See ``Storage.settle``: waits for a flush that somebody else needs sooner, for a few milliseconds."""
        if self._is_unusable:
            self._make_usable()
        if self._mode == "full" and not self._readonly:
            self._flush_to(self._words[END], patience_s=_PATIENCE_S)

    def _flush_to(self, end: int, patience_s: float = 0) -> None:
        assert self._head is not None
        self._shared.reach(end, self._head, self._begin_flush, self._flush_all, patience_s)

    def _begin_flush(self) -> int:
        """Up to where everything is committed that stands in the place that is looked at after it."""
        target = self._words[END]
        self._check_place()
        return target

    def _flush_all(self, head: Head, target: int) -> None:
        """Flush what is committed up to there. One thread of the process at a time."""
        try:
            if head.has_failed:
                raise OSError(errno.EIO, "a flush failed, here or in another process")
            for number in range(head.flushed >> BITS, (target >> BITS) + 1):
                self._sync(number)
            if self._named < target >> BITS:
                self._files.sync_names()
                head.sync()
                self._named = target >> BITS
        except OSError as error:
            head.note_failed(failed=True)
            self._failure = f"a flush failed ({error}): what was written last may be lost"
            self._is_unusable = True
            raise StorageError(f"{self.location}: {self._failure}; open the log again and look") from error
        head.note_flushed(target)

    def _sync(self, number: int) -> None:
        try:
            self._files.sync(number)
        except FileNotFoundError:
            if self._folded() < number:  # else LMDB has it, on stable storage
                raise

    def _fold(self, slices: Slices = _whole) -> None:
        """Bring all sealed files into LMDB, oldest first; harmless if another process does the same."""
        while True:
            with self._state:
                self._caught_up()
                layers, open_file = self._layers, self._end >> BITS
            folded = self._folded()
            layer = next((layer for layer in layers if layer.number == folded + 1), None)
            if layer is None or layer.number >= open_file:
                break
            with suppress(ExpectationError):  # another process was first
                self._lmdb.fold(partial(self._changes, layer), layer.number, slices)
        for number in self._files.numbers():
            if number <= folded:
                self._files.remove(number)
        with self._state:
            self._drop(min(folded, (self._end >> BITS) - 1))

    def _work(self) -> None:
        """What the worker does each time it wakes."""
        self._is_dirty = False
        if self._mode == "off" or self._is_mending:
            return
        if not self.is_flushed():
            self._flush_to(self._words[END])
        if self._layers[0].number < self._end >> BITS:
            self._fold(self._slices)

    def _changes(self, layer: Layer) -> tuple[Iterable[tuple[bytes, bytes | None]], Sequence[bytes]]:
        """What a sealed file changes, and the keys in it that are fed, in their order."""
        return layer.values.items(), self._order(layer)

    def _slices(self, pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
        """What a fold puts, in slices; while it puts one, this process's writers stand aside, and between two it rests.

        LMDB lets other threads run at each pair, and wants its turn again. A thread that writes meanwhile would hand
        its own turn over, and have the worker woken, several times a commit: that costs it more than to wait.
        """
        assert self._worker is not None
        for begin in range(0, len(pairs), _SLICE_PAIRS):
            if begin:
                self._worker.hurry.wait(_SLICE_REST_S)
            self._slice_put = slice_put = threading.Event()
            try:
                yield pairs[begin : begin + _SLICE_PAIRS]
            finally:
                self._slice_put = None
                slice_put.set()

    def _wake(self) -> None:
        if self._worker is None:
            self._worker = Worker(self._work, FLUSH_INTERVAL_S)
        self._worker.wake.set()

    def _hurry(self) -> None:
        """End the worker's rests: the one before it works, and those between the slices of a fold."""
        if self._worker is not None:
            self._worker.hurry.set()

    # --- handles --------------------------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """Bytes allocated on disk, for LMDB and for the journal."""
        self._check_usable()
        journal = self._directory.iterdir() if self._directory.exists() else []
        return self._lmdb.size_bytes() + sum(_allocated(path) for path in journal)

    def close(self) -> None:
        """Write and flush what is left, and give everything back. Idempotent."""
        if self._is_closed:
            return
        try:
            if self._worker is not None:
                self._worker.stop()
            if isinstance(self._words, memoryview) and not (self._readonly or self._is_unusable):
                with suppress(ClosedError):  # by another thread, since this one looked
                    self._leave_folded()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        """Close everything, once the threads that are at it are done: a descriptor's number may be another's next."""
        with self._turn:
            try:
                if self._pending and not self._is_unusable:  # of "off", since all was written
                    self._spill()
            finally:
                self._is_closed = self._is_unusable = True
                if self._holds_lock:
                    self._holds_lock = False
                    self._lock.release()
                self._lock.close()
                with self._state:
                    self._files.close()
                self._lmdb.close()
                with _coming_and_going:
                    _handles.discard(self)

    def _leave_folded(self) -> None:
        """Bring everything into LMDB: a log that is closed is one small step from being only that."""
        if self._is_at_rest():
            return
        with self._turn:
            self._spill()
            with suppress(BusyError):  # somebody else writes: the last one to close will do it
                if self._mode != "off":
                    self._lock.acquire(0)
                try:
                    with self._state:
                        self._caught_up()
                    if self._end & OFFSET_MASK:
                        self._seal()
                finally:
                    if self._mode != "off":
                        self._lock.release()
        with suppress(BusyError):  # somebody else folds
            self._fold()
        self._flush_to(self._words[END])

    def _is_at_rest(self) -> bool:
        """Whether LMDB has everything, as it has where a log was only read."""
        assert self._head is not None
        end = self._words[END]
        is_at_start = end == self._end and not end & OFFSET_MASK and len(self._layers) == 1
        return is_at_start and not self._pending and self._head.flushed >= end

    def _busy(self, why: str) -> BusyError:
        """For who waits for nobody."""
        return BusyError(f"{self.location}: {why}; nothing was written; do it where it may wait")

    def _check_usable(self) -> None:
        if self._is_unusable:
            self._make_usable()

    def _make_usable(self) -> None:
        if self._is_closed:
            raise ClosedError(f"{self.location} was closed; open it again")
        if self._failure:
            raise StorageError(f"{self.location}: {self._failure}; open the log again and look")
        with self._opening:  # once, whichever thread is first; opening comes by here itself
            if self._is_inherited:
                self._is_inherited = False
                try:
                    self._open()
                except BaseException:
                    self._is_inherited = True
                    raise
                self._is_unusable = False

    def _check_place(self) -> None:
        """Refuse to write into a directory that no longer has its name: nobody would find what was acknowledged."""
        try:
            is_there = os.stat(self._head_path).st_ino == self._head_number  # noqa: PTH116 (once per commit)
        except OSError:
            is_there = False
        if not is_there:
            self._failure = "the directory was deleted or moved while open; what was written last is gone with it"
            self._is_unusable = True
            raise StorageError(f"{self.location}: {self._failure}; open the log again and look")

    def _make_writable(self) -> None:
        if self._readonly and not self._is_closed:
            raise StorageError(f"{self.location} was opened readonly; nothing was written; open it for writing")
        self._make_usable()

    def inherit(self) -> None:
        """In the child of a fork: keep away from what is the parent's; the next use opens everything anew."""
        was_closed, failure = self._is_closed, self._failure
        self._files.abandon()
        self._lock.abandon()
        self._begin()
        self._is_closed, self._failure, self._is_inherited, self._is_unusable = was_closed, failure, True, True


def _behind(prefix: bytes) -> bytes:
    """The first key after all that begin so; after those whose last byte is the greatest a longer one of them."""
    return prefix[:-1] + bytes((prefix[-1] + 1,)) if prefix[-1] < 255 else prefix + b"\xff" * MAX_KEY_BYTES  # noqa: PLR2004


def _checked(key: bytes) -> int:
    """The length of a key that may be stored."""
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise InvalidInputError(f"a key has 1 to {MAX_KEY_BYTES} bytes, this one {len(key)}")
    return len(key)


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:  # folded meanwhile
        return 0


_handles: weakref.WeakSet[LocalStorage] = weakref.WeakSet()
_coming_and_going = threading.RLock()
"""Held while a handle comes to those or goes, and during a fork: who was locked before it is unlocked after it."""


def _before_fork() -> None:
    """Let running commits end, so that the child finds nothing half done."""
    _coming_and_going.acquire()
    for handle in _handles:
        handle._state.acquire()  # noqa: SLF001 (this module's)
        handle._hurry()  # noqa: SLF001 (LMDB waits for its fold)


def _after_fork_in_parent() -> None:
    for handle in _handles:
        handle._state.release()  # noqa: SLF001 (this module's)
    _coming_and_going.release()


def _after_fork_in_child() -> None:
    for handle in _handles:
        handle.inherit()
    _coming_and_going.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
