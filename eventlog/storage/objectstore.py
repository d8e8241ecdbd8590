"""An object store as a storage engine: a log in a bucket, or in a folder, with no server to run.

Owns how a call of the seam becomes calls of SlateDB, what is fed, and what a commit that returned survives.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from slatedb import uniffi as slate

from eventlog.errors import (
    ClosedError,
    ExpectationError,
    FormatError,
    InvalidInputError,
    StorageError,
    TooLargeError,
)
from eventlog.storage.base import FED, check_keys, check_starts
from eventlog.storage.objectstore_db import DATA, FED_FLOOR, FEED, Writer, check, find, is_here, loop, page, unanswered
from eventlog.storage.objectstore_place import place_of, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from eventlog.storage import Synchronous
    from eventlog.storage.base import Range
    from eventlog.storage.objectstore_place import Place

    Pair = tuple[bytes, bytes]
    Database: TypeAlias = slate.Db | slate.DbReader

T = TypeVar("T")

_SYNCHRONOUS: Final = ("full", "normal", "off")
_MAX_BATCH_BYTES: Final = 512 << 20
_FIRST_PAGE_PAIRS: Final = 32
_PAGE_PAIRS: Final = 256
_NUMBER_BYTES: Final = 8
_COMMITTING: Final = "committing, and the batch may be there or not"


class ObjectStoreStorage:
    """A log under a prefix of a bucket (S3, GCS, Azure), or in a folder, kept by SlateDB.

    One process writes, any number read. To open a log for writing takes it over: the process that wrote it before
    loses nothing that it was told is safe, and its commits fail from then on, with a ``StorageError`` that says so. All
    handles of one process share what it has opened, and see each other's commits at once. A handle that was opened
    ``readonly`` in another process sees a commit after about `READER_DELAY_S` seconds, and what was committed before
    it was opened at once. Safe from any thread. Not after a ``fork``: there every call fails, and says what to do.

    A commit goes into memory, where all threads of the process see it, and then into the store by one put, which all
    commits share that came while the one before was under way. What a commit that returned survives:

    - ``synchronous="full"`` and ``"normal"``: whatever the store survives, for it returns once the store has it. So it
      takes as long as a put takes: 100 ms on S3. A folder is not flushed to its disk: it survives the process's death,
      power loss may take more than elsewhere with ``"normal"``, or damage the log, and ``"full"`` is refused there.
    - ``"off"``: nothing at first; it is put within `FLUSH_INTERVAL_S` seconds, or once ``flush`` is called or the log
      is closed.

    With ``is_settled=False`` a commit does not wait, and one `settle` puts all of them at once.

    Credentials and the endpoint come from the environment, as object_store reads it (``AWS_ACCESS_KEY_ID``,
    ``AWS_ENDPOINT``, ``AWS_ALLOW_HTTP``, ``GOOGLE_…``, ``AZURE_…``). A batch has at most 512 MiB. Memory is bounded: 64
    MiB of cache, and what was committed and is not yet in a table of its own (1 GiB at most; then commits wait).
    SlateDB's binding for Python copies what is written byte by byte: 0.4 s for each MB, in which no other thread runs.
    """

    def __init__(
        self, url: str, *, readonly: bool = False, synchronous: Synchronous = "normal", timeout_s: float = 30.0
    ) -> None:
        """Open the log at `url`; unless `readonly`, take it over, and make it where there is none.

        Args:
            url: ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``, ``az://CONTAINER/PREFIX`` or ``file:///PATH``.
            readonly: refuse every commit and write nothing to the store.
            synchronous: see the class.
            timeout_s: how long a call waits for the store.

        Raises:
            InvalidInputError: the URL names no place, or `synchronous` is none of the three, or cannot be given.
            FormatError: no log there, something that is not a log, or one of a newer format.
            CorruptionError: what is there cannot be read.
            StorageError: the store cannot be reached or refuses, or the process was forked.
        """
        if synchronous not in _SYNCHRONOUS:
            raise InvalidInputError(f'synchronous is "full", "normal" or "off", not {synchronous!r}')
        self._place = place_of(url)
        if synchronous == "full" and self._place.folder and not readonly:
            raise InvalidInputError(
                f'{self._place.shown} is not flushed to its disk, so synchronous="full" cannot be given there; say '
                '"normal", or open a log of LMDB or SQLite in its stead'
            )
        self._mode = synchronous
        self._timeout_s = timeout_s
        self._is_closed = False
        self._closing = threading.Lock()
        self._writer: Writer | None = None
        self._reader: slate.DbReader | None = None
        self._log_id = b""
        if readonly:
            self._open_reader()
        else:
            self._writer = _joined(self._place, timeout_s)
            self._log_id = self._writer.log_id

    def _open_reader(self) -> None:
        reader = loop().run(find(self._place, self._timeout_s))
        if reader is None:
            raise FormatError(f"{self._place.shown} holds no log; open it for writing to make one")
        self._log_id = loop().run(check(reader, self._place))
        self._reader = reader

    @property
    def location(self) -> str:
        """The URL."""
        return self._place.shown

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See ``Storage.get``.

        Raises:
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
            CorruptionError: what is there cannot be read.
            StorageError: another process took the log over, the store failed, or the process was forked.
        """
        check_keys(keys)
        if self._writer is None or not self._writer.is_sure:
            return self._read(lambda db: _values(db, keys))
        self._check_open()
        self._writer.check()
        known, changes = self._writer.recent.get(keys)
        if known is None:
            known = self._read(lambda db: _values(db, keys))
            self._writer.recent.learn(keys, known, changes)
        return known

    def scan(
        self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """See ``Storage.scan``. Each page (256 pairs or about 1 MiB) is from one moment; nothing is held between two.

        Raises:
            InvalidInputError: the start of a range is empty, so it names no kind; otherwise as `get`.
        """
        self._check_open()
        check_starts(ranges)
        return self._scanned([bounds for bounds in ranges if bounds[0] < bounds[1]], reverse=reverse, left=limit)

    def _scanned(self, ranges: Sequence[Range], *, reverse: bool, left: int | None) -> Iterator[Pair]:
        for start, end in ranges:
            for pair in self._walk((DATA + start, DATA + end), reverse=reverse, left=left):
                key = pair.key[1:]
                yield key, _bare(key, pair.value)
                left = None if left is None else left - 1

    def _walk(self, bounds: Range, *, reverse: bool, left: int | None) -> Iterator[slate.KeyValue]:
        """The pairs of a range of SlateDB's keys."""
        size, is_cut = _FIRST_PAGE_PAIRS, True  # most readers want a few
        while is_cut and (left is None or left > 0):
            asked, count = bounds, size if left is None else min(left, size)
            got, is_cut = self._read(partial(page, bounds=asked, count=count, reverse=reverse))
            yield from got
            left = None if left is None else left - len(got)
            size = _PAGE_PAIRS
            if got:
                bounds = (bounds[0], got[-1].key) if reverse else (got[-1].key + b"\0", bounds[1])
                is_cut = is_cut and bounds[0] < bounds[1]

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """See ``Storage.feed``. The writer numbers what it commits; what is fed is in the store, whoever writes next.

        Raises:
            InvalidInputError: `after` is no position of this log, or lies beyond its end: the store was set back;
                otherwise as `get` and `settle`.
        """
        self._check_open()
        return self._fed(self._number(after), left=limit)

    def _fed(self, number: int, *, left: int | None) -> Iterator[Pair]:
        self.flush()
        if self._writer is not None and number > self._writer.fed_flushed:
            why = "the store was set back, and lost what was committed up to there; begin without one"
            raise InvalidInputError(f"a position lies beyond the end of the feed of {self.location}: {why}")
        last = b"\xff" * _NUMBER_BYTES if self._writer is None else _number(self._writer.fed_flushed + 1)
        first = FEED + _number(number + 1)
        if first < FEED + last:
            for pair in self._walk((first, FEED + last), reverse=False, left=left):
                yield self._log_id + pair.key[1:], pair.value

    def _number(self, position: bytes) -> int:
        if not position:
            return 0
        number = position.removeprefix(self._log_id)
        if len(number) != _NUMBER_BYTES or len(position) == _NUMBER_BYTES:
            raise InvalidInputError(
                f"{position.hex()} is no position in the feed of {self.location}; begin without one"
            )
        return int.from_bytes(number, "big")

    def _read(self, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
        reader = self._reader
        try:
            return self._run(work, "reading")
        except StorageError:
            if reader is None or reader.status().close_reason is None:
                raise
            self._reopen(reader)
            return self._run(work, "reading")

    def _reopen(self, reader: slate.DbReader) -> None:
        """Open another one in its stead, once: it closes itself when the store was away for long."""
        with self._closing:
            self._check_open()
            if self._reader is reader:
                self._open_reader()

    def _run(self, work: Callable[[Database], Coroutine[Any, Any, T]], doing: str) -> T:
        self._check_open()
        return loop().run(self._within(work, doing))

    async def _within(self, work: Callable[[Database], Coroutine[Any, Any, T]], doing: str) -> T:
        self._check_open()  # again: it may have been closed since
        db = self._reader if self._writer is None else self._writer.db
        if db is None:
            raise ClosedError(f"{self.location} was closed; open it again")
        try:
            return await asyncio.wait_for(work(db), self._timeout_s)
        except (slate.Error, slate.InternalError) as error:
            raise translated(error, self._place, doing) from error
        except TimeoutError as error:
            raise unanswered(self._place, self._timeout_s, doing) from error

    # --- writing --------------------------------------------------------------------------------------------------

    def commit(
        self,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,
    ) -> None:
        """See ``Storage.commit``; what it survives, see the class. A key in both is written.

        Raises:
            ExpectationError: an expected key differs; nothing was written.
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes, or the batch is larger than the class says.
            StorageError: opened readonly, another process took the log over, the store failed or does not answer, or
                the process was forked; the message says whether the batch was written.
        """
        check_keys([key for key, _ in puts])
        check_keys(deletes)
        check_keys(expect or ())
        _check_size(puts)
        self._check_open()
        if self._writer is None:
            raise StorageError(f"{self.location} was opened readonly; nothing was written; open it for writing")
        writer, wanted = self._writer, expect or {}
        written = self._run(lambda db: _written(writer, db, puts, deletes, wanted), _COMMITTING)
        if is_settled and self._mode != "off":
            loop().run(writer.settle(written))

    def position(self) -> int | None:
        """How many commits this process made, for nobody else can make any; None where it reads only.

        None as well while a batch is being written, for it is seen before that is known; and once one failed that may
        be there nevertheless.
        """
        self._check_open()
        if self._writer is None:
            return None
        written = self._writer.written  # before the two others: both may only have come to be since
        return written if self._writer.begun == written and self._writer.is_sure else None

    # --- flushing -------------------------------------------------------------------------------------------------

    def at_once(self) -> AbstractContextManager[bool]:
        """Never: every commit goes to the store."""
        return nullcontext(False)

    def settle(self) -> None:
        """Return when everything that this process committed, or could read, is in the store; with ``"off"`` as well.

        It waits as long as a put takes for one that a commit needs.

        Raises:
            StorageError: another process took the log over, or the store failed or does not answer: what was not
                acknowledged may be there or not.
        """
        self._check_open()
        if self._writer is not None and self._writer.flushed < self._writer.begun:
            loop().run(self._writer.settle_later(self._writer.begun))

    def flush(self) -> None:
        """As `settle`, at once: what is in a store is on stable storage, as far as it knows."""
        self._check_open()
        if self._writer is not None and self._writer.flushed < self._writer.begun:
            loop().run(self._writer.settle(self._writer.begun))

    def is_flushed(self) -> bool:
        """Whether everything committed so far is known to be in the store."""
        self._check_open()
        return self._writer is None or self._writer.flushed == self._writer.begun

    # --- handles --------------------------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """What the log takes in the store.

        In a folder: the bytes of its files. In a bucket: of its tables, as its manifest says; the writer brings what it
        committed into one first, a reader does not count what is in SlateDB's write-ahead log only.
        """
        self._check_open()
        if self._place.folder:
            files = (each for each in Path(self._place.folder).rglob("*") if each.is_file())
            return sum(_size(each) for each in files)
        writer = self._writer
        if writer is not None:
            self.flush()
            self._run(lambda _: writer.table(), "bringing what was committed into a table")
        return self._run(lambda _: _table_bytes(self._place), "looking at the manifest")

    def close(self) -> None:
        """Flush, and give everything back. Idempotent.

        Raises:
            StorageError: the store failed: what was committed and not acknowledged may be there or not.
        """
        if not is_here():
            self._is_closed = True
            return  # the parent's
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        if self._writer is not None:
            _left(self._writer)
        elif self._reader is not None:
            loop().run(self._reader.shutdown())

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"{self.location} was closed; open it again")
        loop()


# What SlateDB is asked for -------------------------------------------------------------------------------------------


async def _values(db: Database, keys: Sequence[bytes]) -> list[bytes | None]:
    """The values of `keys`, all from one moment."""
    if isinstance(db, slate.Db):
        return await _gathered(db if len(keys) == 1 else await db.snapshot(), keys)
    while True:
        before = db.status().durable_seq
        found = await _gathered(db, keys)
        if db.status().durable_seq == before:
            break
    return found


async def _gathered(source: Database | slate.DbSnapshot, keys: Sequence[bytes]) -> list[bytes | None]:
    values = await asyncio.gather(*(source.get(DATA + key) for key in keys))
    return [None if value is None else _bare(key, value) for key, value in zip(keys, values, strict=True)]


async def _written(
    writer: Writer, db: slate.Db, puts: Sequence[Pair], deletes: Sequence[bytes], expect: Mapping[bytes, bytes | None]
) -> int:
    """Commit: the one place where anything becomes part of the log. How many batches were written with this one."""
    async with writer.writing:
        await writer.rest()  # what was given up may come to be there, and is none that this one expects
        found = await _gathered(db, list(expect))
        differing = [key for key, value in zip(expect, found, strict=True) if value != expect[key]]
        if differing:
            raise ExpectationError(differing)
        if puts or deletes:
            batch, fed = await _batch(db, writer.fed, dict(puts), set(deletes))
            values = {**dict.fromkeys(deletes), **dict(puts)}
            writer.recent.forget(values)
            writer.begun += 1
            writer.under_way = asyncio.create_task(_write(writer, db, batch, fed, values))
            writer.under_way.add_done_callback(_looked_at)
            await asyncio.shield(writer.under_way)  # who gives it up does not end it
        return writer.written


async def _write(
    writer: Writer, db: slate.Db, batch: slate.WriteBatch, fed: int, values: Mapping[bytes, bytes | None]
) -> None:
    try:
        await db.write(batch)
    except BaseException:
        writer.is_sure = False  # it may be there nevertheless
        raise
    finally:  # not before: who reads the old must not take it for the new
        writer.fed = fed
        writer.written += 1
    writer.recent.written(values)


def _looked_at(written: asyncio.Task[None]) -> None:
    """Look what became of it: where nobody waits for it any more, asyncio would complain that nobody did."""
    if not written.cancelled():
        written.exception()


async def _batch(
    db: slate.Db, newest: int, puts: Mapping[bytes, bytes], deletes: set[bytes]
) -> tuple[slate.WriteBatch, int]:
    """What SlateDB is to write, and the number of the newest entry of the feed with it."""
    batch = slate.WriteBatch()
    gone = [key for key in deletes if key not in puts]
    for key in gone:
        batch.delete(DATA + key)
    numbers = await _numbers(db, [key for key in gone if key[:1] == FED])
    for number in numbers.values():
        batch.delete(FEED + number)
    if numbers:
        batch.put(FED_FLOOR, _number(newest))  # a number is never used again
    fed = sorted(key for key in puts if key[:1] == FED)
    numbers = await _numbers(db, fed)
    for key in fed:
        if key not in numbers:
            newest += 1
            numbers[key] = _number(newest)
            batch.put(FEED + numbers[key], key)
    for key, value in puts.items():
        batch.put(DATA + key, numbers.get(key, b"") + value)
    return batch, newest


async def _numbers(db: slate.Db, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """The numbers in the feed of those of `keys` that are there."""
    values = await asyncio.gather(*(db.get(DATA + key) for key in keys))
    return {key: value[:_NUMBER_BYTES] for key, value in zip(keys, values, strict=True) if value is not None}


async def _table_bytes(place: Place) -> int:
    admin = slate.AdminBuilder(place.path, slate.ObjectStore.resolve(place.root)).build()
    manifest = await admin.read_manifest(None)
    if manifest is None:
        return 0
    return sum(each.estimated_size_bytes for each in (*manifest.l0, *manifest.compacted))


def _bare(key: bytes, value: bytes) -> bytes:
    """A value without the number in the feed, which those of keys that are fed begin with."""
    return value[_NUMBER_BYTES:] if key[:1] == FED else value


def _number(number: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "big")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # SlateDB removes what no table needs any more


def _check_size(puts: Sequence[Pair]) -> None:
    size = sum(len(key) + len(value) for key, value in puts)
    if size > _MAX_BATCH_BYTES:
        raise TooLargeError("bytes of a batch in an object store", size, _MAX_BATCH_BYTES)


# Who writes which log in this process --------------------------------------------------------------------------------

_registering = threading.Lock()
_writers: weakref.WeakValueDictionary[str, Writer] = weakref.WeakValueDictionary()


def _joined(place: Place, timeout_s: float) -> Writer:
    """The writer of a log, opened if this process has none that is usable; with one handle more."""
    thread = loop()
    while True:
        with _registering:
            writer = _writers.get(place.shown)
            if writer is None or writer.is_done():
                writer = _writers[place.shown] = Writer(place, timeout_s)
        with writer.opening:
            if writer.is_done():
                continue  # its last handle was closed meanwhile, or it could not be opened
            if not writer.is_open():
                thread.run(writer.open())
            writer.handles += 1
            return writer


def _left(writer: Writer) -> None:
    """One handle less; the last one ends the writer, and each leaves what was committed in the store."""
    with writer.opening:
        writer.handles -= 1
        is_last = not writer.handles
        if is_last:
            loop().run(writer.close())
    if not is_last and writer.flushed < writer.begun and not writer.is_done():
        loop().run(writer.settle(writer.begun))
