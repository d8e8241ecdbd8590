"""SlateDB in this process: one thread that speaks to it, and one database for all handles of a log.

Owns the thread, its event loop, who shares a database, and when it is flushed. It must never hold the loop up.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from slatedb import uniffi as slate

from eventlog.errors import CorruptionError, FormatError, StorageError
from eventlog.storage.objectstore_place import is_nothing, taken_over, translated
from eventlog.storage.objectstore_recent import Recent

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from eventlog.storage.objectstore_place import Place

T = TypeVar("T")

META: Final = b"M"
DATA: Final = b"D"
FEED: Final = b"F"
"""First bytes of keys in SlateDB: of the log itself, of what the seam is given, of the feed's entries by number."""

READER_DELAY_S: Final = 1.0
FLUSH_INTERVAL_S: Final = 0.5

_LOG: Final = META + b"log"
FED_FLOOR: Final = META + b"fed"
_MAGIC: Final = b"eventlog"
_FORMAT: Final = 1
_LOG_ID_BYTES: Final = 8
_CACHE_BYTES: Final = 64 << 20
_READER_BYTES: Final = 64 << 20
_RETRIES: Final = 2
_LONGEST_WAIT_S: Final = 0.1
_TABLE_FLUSHES: Final = 64
_TABLE_S: Final = 5.0
"""How many flushes and seconds are between two tables: not more, for who opens the log reads all since, put by put;
not less, for tables are merged no faster."""
_LIFETIME_MS: Final = 600_000
_ENDING_S: Final = 2.0
_TIDYING_S: Final = 1.0
_FLUSHING: Final = "flushing, and what was committed may be there or not"

_settings: Final = (
    ("flush_interval", f'"{int(FLUSH_INTERVAL_S * 1000)}ms"'),
    ("l0_sst_size_bytes", str(16 << 20)),
    ("l0_max_ssts", "32"),
    ("l0_max_ssts_per_key", "32"),
    ("garbage_collector_options.wal_options.interval", '"60s"'),
)

_GARBAGE_MS: Final = 300_000
"""How old what goes must be, as SlateDB has it by default."""


class _Loop:
    """The one thread of a process that speaks to SlateDB."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._is_ending = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="eventlog-objectstore", daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, done by that thread."""
        if self._is_ending:
            work.close()
            raise StorageError("the process is ending, nothing was written; end threads before that")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        """Before the interpreter goes: SlateDB's threads that called back into it then would abort the process."""
        if os.getpid() == self.pid:
            self._is_ending = True
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._thread.join(2 * _ENDING_S)

    async def _end(self) -> None:
        """Let work of daemon threads come to its end, give up what takes long, and stop."""
        mine = asyncio.current_task()
        for is_late in (False, True):
            left = {task for task in asyncio.all_tasks() if task is not mine}
            for task in left if is_late else ():
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=_ENDING_S / (1 + is_late))
        self._loop.stop()


_starting = threading.Lock()
_loops: list[_Loop] = []


def loop() -> _Loop:
    """That thread.

    Raises:
        StorageError: this process is the child of a ``fork`` of one that had it: SlateDB's own threads are not here.
    """
    if not _loops:
        with _starting:
            if not _loops:
                _loops.append(_Loop())
    if not is_here():  # without a lock, which another thread may have held at the fork
        raise StorageError(
            "this process was forked from one that had opened a log in an object store, whose threads are not here; "
            "start it with multiprocessing's 'spawn' or 'forkserver', or open no such log before the fork"
        )
    return _loops[0]


def is_here() -> bool:
    """Whether this process is not the child of a ``fork`` of the one that has the thread."""
    return not _loops or _loops[0].pid == os.getpid()


async def find(place: Place, timeout_s: float) -> slate.DbReader | None:
    """A reader of the log that is there, None where there is none; it writes nothing.

    Raises:
        FormatError: something else is there, or a log of a newer format.
        StorageError: the store failed.
    """
    try:
        return await asyncio.wait_for(_find(place), timeout_s)
    except (slate.Error, slate.InternalError) as error:
        raise translated(error, place, "opening the log") from error
    except TimeoutError as error:
        raise unanswered(place, timeout_s, "opening the log") from error


async def _find(place: Place) -> slate.DbReader | None:
    try:
        reader = await _reader(place)
    except slate.Error as error:
        if is_nothing(error):
            return None
        raise
    if await check(reader, place):
        return reader
    await reader.shutdown()
    return None


async def _reader(place: Place) -> slate.DbReader:
    builder = slate.DbReaderBuilder(place.path, slate.ObjectStore.resolve(place.root))
    builder.with_reader_mode(slate.ReaderMode.FOLLOW_LATEST())  # the other one writes a checkpoint
    builder.with_db_cache(_cache(), 1)
    options = slate.ReaderOptions(
        manifest_poll_interval_ms=int(READER_DELAY_S * 1000),
        checkpoint_lifetime_ms=_LIFETIME_MS,
        max_memtable_bytes=_READER_BYTES,
        skip_wal_replay=False,
        object_store_max_retries=_RETRIES,
    )
    builder.with_options(options)
    return await builder.build()


def _cache() -> slate.DbCache:
    options = slate.MokaCacheOptions(max_capacity=_CACHE_BYTES, time_to_live=None, time_to_idle=None)
    return slate.DbCache.new_moka_cache(options)


async def check(db: slate.Db | slate.DbReader, place: Place) -> bytes:
    """The id of the log that is there, empty if nothing is.

    Raises:
        FormatError: something else is there, or a log of a newer format.
    """
    record = await db.get(_LOG)
    if record is None:
        if await page(db, (b"\0", b"\xff" * 8), 1, reverse=False) != ([], False):
            raise FormatError(f"{place.shown} holds another database of SlateDB; give the log a prefix of its own")
        return b""
    if not record.startswith(_MAGIC) or len(record) != len(_MAGIC) + 1 + _LOG_ID_BYTES:
        raise CorruptionError(place.shown, "what says that it is a log does not read so")
    if record[len(_MAGIC)] != _FORMAT:
        raise FormatError(f"{place.shown} has format {record[len(_MAGIC)]}, this release reads {_FORMAT}; update it")
    return bytes(record[-_LOG_ID_BYTES:])


async def page(
    db: slate.Db | slate.DbReader, bounds: tuple[bytes, bytes], count: int, *, reverse: bool
) -> tuple[list[slate.KeyValue], bool]:
    """The first pairs of a range, `count` or about 1 MiB, and whether there may be more."""
    order = slate.IterationOrder.DESCENDING if reverse else slate.IterationOrder.ASCENDING
    options = slate.ScanOptions(
        durability_filter=slate.DurabilityLevel.MEMORY,
        dirty=False,
        read_ahead_bytes=1,
        cache_blocks=True,
        max_fetch_tasks=1,
        order=order,
    )
    start, end = bounds
    asked = slate.KeyRange(start=start, start_inclusive=True, end=end, end_inclusive=False)
    walk, size = await db.scan_with_options(asked, options), 0
    found: list[slate.KeyValue] = []
    while len(found) < count and size < 1 << 20:
        wanted = min(32, count - len(found))
        got = await walk.next_batch(wanted)
        found += got
        size += sum(len(pair.value) for pair in got)
        if len(got) < wanted:
            return found, False
    return found, True


def unanswered(place: Place, timeout_s: float, doing: str) -> StorageError:
    """What a call is told whose store does not answer."""
    return StorageError(f"{place.shown}: no answer within {timeout_s:g} s while {doing}; see the network")


class Writer:
    """The database of a log, opened for writing: one in a process, whatever handles it has.

    Attributes:
        db: the database.
        log_id: what tells this log from others.
        begun: how many batches it was given.
        written: how many of them are there, or failed: all, or all but the one that is under way.
        flushed: how many of them are in the store.
        flushes: how often it was flushed.
        fed: the number of the newest entry of the feed.
        fed_flushed: of the newest that is in the store.
        recent: what it wrote or read last, as it stands in the database.
        under_way: the batch that is being written, or was last.
        is_sure: whether no batch failed that may be in the database nevertheless.
    """

    def __init__(self, place: Place, timeout_s: float) -> None:
        self.place = place
        self.timeout_s = timeout_s
        self.log_id = b""
        self.begun = self.written = self.flushed = self.flushes = self.fed = self.fed_flushed = 0
        self.handles = 0
        self.opening = threading.Lock()
        self.writing = asyncio.Lock()
        self.recent = Recent()
        self.under_way: asyncio.Task[None] | None = None
        self.is_sure = True
        self._flushing = asyncio.Lock()
        self._flushed = asyncio.Event()
        self._flush_s = 0.0
        self._table_due = _TABLE_FLUSHES, time.monotonic() + _TABLE_S
        self._tabling: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._opened: slate.Db | None = None

    @property
    def db(self) -> slate.Db:
        """The database, while it is this process that writes it."""
        if self._opened is None or self._opened.status().close_reason is not None:
            raise self._gone()
        return self._opened

    def _gone(self) -> StorageError:
        reason = self._opened and self._opened.status().close_reason
        if reason == slate.CloseReason.FENCED:
            return taken_over(self.place)
        lost = "what was not acknowledged may be there or not"
        return StorageError(f"{self.place.shown}: the log had to be closed ({reason}); {lost}; open it again")

    def check(self) -> None:
        """Raise unless it is this process that writes the log."""
        _ = self.db

    def is_open(self) -> bool:
        """Whether it was opened."""
        return self._opened is not None

    def is_done(self) -> bool:
        """Whether it was closed, or taken over, or had to close."""
        return self._opened is not None and self._opened.status().close_reason is not None

    async def open(self) -> None:
        """Look what is there, take the log over from who writes it, and make it where there is none."""
        reader = await find(self.place, self.timeout_s)  # whom it refuses must not disturb the one that writes
        if reader is not None:
            await reader.shutdown()
        await self._within(self._build(), "opening the log")
        self._tidying = asyncio.create_task(self._tidy())

    async def _build(self) -> None:
        builder = slate.DbBuilder(self.place.path, slate.ObjectStore.resolve(self.place.root))
        settings = slate.Settings.default()
        for name, value in _settings:
            settings.set(name, value)
        if self.place.folder:
            settings.set("garbage_collector_options.boundary_files_enabled", "false")  # see _garbage
        builder.with_settings(settings)
        builder.with_db_cache(_cache(), 1)
        db = await builder.build()
        self.log_id = await check(db, self.place) or await self._make(db)
        self.fed = self.fed_flushed = await _newest(db)
        self._opened = db

    async def _make(self, db: slate.Db) -> bytes:
        log_id = os.urandom(_LOG_ID_BYTES)
        await db.put(_LOG, _MAGIC + bytes((_FORMAT,)) + log_id)
        await db.flush()
        return log_id

    async def _tidy(self) -> None:
        """Bring what others left flushed into a table, and remove what nobody needs any more.

        SlateDB removes every ten minutes only, and many a writer lives for seconds: or dies before its first table is
        due, so that whoever opens the log would read what all of them left, put by put.
        """
        await self.table()
        with suppress(slate.Error, slate.InternalError):  # the next one does it
            admin = slate.AdminBuilder(self.place.path, slate.ObjectStore.resolve(self.place.root)).build()
            await admin.run_gc_once(_garbage(self.place))

    async def rest(self) -> None:
        """Wait until the batch that is under way is there or never will be, even if nobody else waits for it."""
        if self.under_way is not None:
            await asyncio.wait({self.under_way})

    async def settle(self, upto: int) -> None:
        """Flush until the first `upto` batches are in the store. Who waits for a flush is served by it, or the next."""
        await self._within(self._settle(upto), _FLUSHING)  # to wait for others' flushes is to wait for the store

    async def _settle(self, upto: int) -> None:
        async with self._flushing:
            if self.flushed >= upto:
                return
            if self.written < upto:
                await self.rest()
            written, fed, begun = self.written, self.fed, time.monotonic()
            await self.db.flush()
            self._flush_s = time.monotonic() - begun
            self.flushes += 1
            self._are_flushed(written, fed)
            if self.flushes >= self._table_due[0] and time.monotonic() >= self._table_due[1]:
                self._table_due = self.flushes + _TABLE_FLUSHES, time.monotonic() + _TABLE_S
                self._tabling = asyncio.create_task(self.table())

    def _are_flushed(self, written: int, fed: int) -> None:
        self.fed_flushed = fed  # first: who sees that all is flushed is fed all of it
        self.flushed = written
        self._flushed.set()
        self._flushed = asyncio.Event()

    async def table(self) -> None:
        """Bring what was flushed into a table, so that who opens the log need not read it put by put."""
        with suppress(slate.Error, slate.InternalError, StorageError):  # who commits is told
            await self.db.flush_with_options(slate.FlushOptions(flush_type=slate.FlushType.MEM_TABLE))

    async def settle_later(self, upto: int) -> None:
        """As `settle`, but wait as long as a flush takes for one that others need."""
        deadline = time.monotonic() + min(self._flush_s, _LONGEST_WAIT_S)
        while self.flushed < upto and (left := deadline - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._flushed.wait(), left)
        await self.settle(upto)

    async def _within(self, work: Coroutine[Any, Any, T], doing: str) -> T:
        try:
            return await asyncio.wait_for(work, self.timeout_s)
        except (slate.Error, slate.InternalError) as error:
            raise translated(error, self.place, doing) from error
        except TimeoutError as error:
            raise unanswered(self.place, self.timeout_s, doing) from error

    async def close(self) -> None:
        """Flush and end it; what another process took over is its business."""
        if self._tidying is not None:
            await asyncio.wait({self._tidying}, timeout=_TIDYING_S)
            self._tidying.cancel()
        if self._opened is not None and not self.is_done():
            await self._within(self._end(self._opened), "closing the log")

    async def _end(self, db: slate.Db) -> None:
        async with self._flushing:  # who waits for a flush is served by this
            written, fed = self.written, self.fed
            await db.shutdown()
            self._are_flushed(written, fed)


async def _newest(db: slate.Db) -> int:
    """The number of the newest entry that the feed ever had."""
    last, _ = await page(db, (FEED, FEED + b"\xff" * 9), 1, reverse=True)
    newest = int.from_bytes(last[0].key[1:], "big") if last else 0
    return max(newest, int.from_bytes(await db.get(FED_FLOOR) or b"", "big"))


def _garbage(place: Place) -> slate.GarbageCollectorOptions:
    """What goes, but for what fences writers off: one that slept until that is gone would acknowledge what is lost.

    In a folder nothing can be replaced on a condition, so SlateDB's files of boundaries would stay at the first one,
    and no manifest would ever go again.
    """
    each = slate.GarbageCollectorDirectoryOptions(min_age_ms=_GARBAGE_MS, dry_run=False)
    return slate.GarbageCollectorOptions(
        manifest_options=each,
        wal_options=each,
        wal_fence_options=None,
        compacted_options=each,
        compactions_options=each,
        disable_boundary_files=bool(place.folder),
    )
