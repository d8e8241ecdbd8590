"""The file of a log in SQLite: how it is made and recognized, its connections, and what its errors mean.

Owns everything that is peculiar to SQLite but the statements. It must never open the file but through SQLite: closing
it again would drop the locks that SQLite holds for this process.

```
 application_id   "evlg"     whose file it is
 user_version     2          the format; 1 had no table of what is fed
 pairs            key, value as the storage engine was given them
 fed              place, key, count: stretches of keys in the order of their commits, see `fed`; place: keys before it
 log              id: what the positions of its feed begin with; a file that has none gets one with its feed
```
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from eventlog.errors import (
    BusyError,
    CapacityError,
    ClosedError,
    CorruptionError,
    EventLogError,
    FormatError,
    StorageError,
)
from eventlog.storage.base import FED
from eventlog.storage.fed import LOG_ID_BYTES, behind, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Stretch = tuple[int, bytes, int]
    FileId = tuple[int, int]

T = TypeVar("T")

_APPLICATION_ID: Final = int.from_bytes(b"evlg", "big")
_FORMAT_VERSION: Final = 2
_TABLE: Final = "CREATE TABLE pairs (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL)"
"""An ordinary table, which grows at its end, and an index. Without rowids the pairs would stand in the index itself,
where a value over a tenth of a page takes pages of its own: twice the bytes for events of some hundred bytes. One table
per kind of key made the file no smaller, and every commit write more pages."""
_FED_TABLE: Final = "CREATE TABLE fed (place INTEGER NOT NULL PRIMARY KEY, key BLOB NOT NULL, count INTEGER NOT NULL)"
_LOG_TABLE: Final = "CREATE TABLE IF NOT EXISTS log (id BLOB NOT NULL)"
_PUT_LOG_ID: Final = "INSERT INTO log SELECT ? WHERE NOT EXISTS (SELECT 1 FROM log)"
_LAST_FED: Final = "SELECT place, key, count FROM fed ORDER BY place DESC LIMIT 1"
_PUT_FED: Final = "INSERT OR REPLACE INTO fed VALUES (?, ?, ?)"
_IS_THERE: Final = "SELECT 1 FROM sqlite_master WHERE name = ?"
_TO_BE_FED: Final = "SELECT key FROM pairs WHERE key >= ? AND key < ? ORDER BY key"
_PAGE_BYTES: Final = 2048
"""A commit writes whole pages to the WAL: a third fewer bytes than with the usual 4096, in a file hardly larger."""
_CHECKPOINT_PAGES: Final = 2048
_WAL_BYTES: Final = 4 << 20
"""So long the WAL grows before SQLite brings it into the database; a large commit may make it longer for a while."""
LONG_WAL_BYTES: Final = 4 * _WAL_BYTES
_PATIENCE_MS: Final = 100
_MAX_IDLE: Final = 8
"""Connections that are kept for later readers; each holds memory and a file."""

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


class _Reader:
    """A connection to read with, and the lock of the thread that does."""

    __slots__ = ("connection", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the connection; the caller has the lock."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None


class Connections:
    """The connections of one handle: one that writes, and one more for each thread that reads at the same time.

    SQLite keeps the locks of a process in memory, and a child of ``fork`` would take its parent's for its own. So all
    connections are closed before a fork; parent and child open their own when they need them.

    Who uses a connection holds its lock by ``with``, which no interrupt can separate from taking or giving it back. A
    reader that an interrupt keeps from becoming idle again is lost for reading, and closed with the others.
    """

    def __init__(self, path: Path, synchronous: str, *, readonly: bool, is_alone: bool) -> None:
        self._path = path
        self._synchronous = synchronous
        self._readonly = readonly
        self._is_alone = is_alone
        self._is_closed = False
        self.begin()

    def begin(self) -> None:
        """Have no connections and free locks; at first, and in the child of a fork."""
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._making = threading.Lock()
        self._readers: list[_Reader] = []
        self._idle: list[_Reader] = []
        self._held: list[threading.Lock] = []

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` with the connection that writes; what an interrupt left undone is rolled back first."""
        with self._writing:
            self._check_open()
            if self._writer is None:
                self._writer = self._opened()
            roll_back(self._writer)
            return work(self._writer)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` with a connection of its own; a handle that is alone on the file has but one."""
        if self._is_alone:
            return self.write(work)
        reader = self._taken()
        try:
            with reader.lock:
                self._check_open()
                if reader.connection is None:
                    reader.connection = self._opened()
                roll_back(reader.connection)
                return work(reader.connection)
        finally:
            self._give_back(reader)

    def _taken(self) -> _Reader:
        with suppress(IndexError):
            return self._idle.pop()
        with self._making:
            reader = _Reader()
            self._readers.append(reader)
            return reader

    def _give_back(self, reader: _Reader) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(reader)
            return
        with self._making, reader.lock:
            reader.close()
            self._readers.remove(reader)

    def shut(self) -> None:
        """Wait until no connection is in use, close all, and let nobody open another one."""
        for lock in (self._writing, self._making):
            lock.acquire()
            self._held.append(lock)
        for reader in self._readers:
            reader.lock.acquire()
            self._held.append(reader.lock)
            reader.close()
        if self._writer is not None:
            self._writer.close()  # the last one of all brings the WAL into the database
        self._writer = None

    def reopen(self) -> None:
        """End what `shut` began, or got to."""
        while self._held:
            self._held.pop().release()

    def drop(self) -> None:
        """Close all connections, and with them every lock; the next use opens others."""
        try:
            self.shut()
        finally:
            self.reopen()

    def close(self) -> None:
        """Close all connections for good. Idempotent."""
        self._is_closed = True
        self.drop()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"{self._path} was closed; open it again")

    def _opened(self) -> sqlite3.Connection:
        """A connection that waits for nobody: who waits in SQLite can neither be interrupted nor fork."""
        mode = "ro" if self._readonly else "rw"
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode={mode}", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            if self._is_alone:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
            connection.execute("PRAGMA trusted_schema=OFF")
        except BaseException:
            connection.close()
            raise
        return connection


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo what was begun, if anything; SQLite itself does so after some errors."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def shorten_wal(connection: sqlite3.Connection, wal: Path, limit_bytes: int) -> int:
    """Bring a long WAL into the database, even if readers follow so closely that SQLite never gets round to it.

    It waits a moment for those who read now; who comes meanwhile needs the WAL no more.

    Returns:
        How long it may be until this should be tried again: twice as long, if somebody goes on reading.
    """
    with suppress(OSError, sqlite3.Error):
        size_bytes = os.stat(wal).st_size  # noqa: PTH116 (once per commit)
        if size_bytes <= limit_bytes:
            return limit_bytes
        limit_bytes = 2 * size_bytes
        connection.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
        try:
            is_busy_still = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.execute("PRAGMA busy_timeout=0")
        return limit_bytes if is_busy_still else LONG_WAL_BYTES
    return limit_bytes


# --- the file -------------------------------------------------------------------------------------------------------


def find_or_make(path: Path, *, readonly: bool) -> None:
    """Refuse a place that cannot be a log; where nothing is, make an empty file unless `readonly`."""
    try:
        if not readonly:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if not stat.S_ISREG(path.stat().st_mode):
            raise _foreign(path, "it is no file")
    except FileNotFoundError:
        raise FormatError(f"no log at {path}; check the path, or open it without readonly to create one") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error}") from error


def make_or_check(connection: sqlite3.Connection, path: Path, synchronous: str, *, readonly: bool) -> None:
    """Make the log in an empty file; refuse any other file that is none."""
    if not readonly and _is_empty(connection):
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        _make(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute(f"PRAGMA synchronous={synchronous}")
    version = _check_format(connection, path)
    if not readonly and not _is_fed(connection):
        _upgrade(connection, version)
    if not readonly and connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
        raise StorageError(f"{path}: SQLite cannot keep a WAL there; a log needs a local disk")


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if _is_empty(connection):  # else another process was first
        connection.execute(_TABLE)
        connection.execute(_FED_TABLE)
        _name_log(connection)
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={_FORMAT_VERSION}")
    connection.execute("COMMIT")


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Whether there is nothing in the file, be it an empty one or a creation that was killed half-way."""
    query = "SELECT (SELECT count(*) FROM sqlite_master), * FROM pragma_application_id, pragma_user_version"
    return bool(connection.execute(query).fetchone() == (0, 0, 0))


def _name_log(connection: sqlite3.Connection) -> None:
    """Give a log its id, unless it has one."""
    connection.execute(_LOG_TABLE)
    connection.execute(_PUT_LOG_ID, (os.urandom(LOG_ID_BYTES),))


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Give a file its id, and one of format 1 its feed: what it holds, in key order, for nobody knows another."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _name_log(connection)
        if version < _FORMAT_VERSION and connection.execute(_IS_THERE, ("fed",)).fetchone() is None:
            connection.execute(_FED_TABLE)
            keys = connection.execute(_TO_BE_FED, (FED, bytes([FED[0] + 1])))
            put_fed(connection, (key for (key,) in keys))
            connection.execute(f"PRAGMA user_version={_FORMAT_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def _is_fed(connection: sqlite3.Connection) -> bool:
    has_feed = connection.execute("PRAGMA user_version").fetchone()[0] >= _FORMAT_VERSION
    return has_feed and connection.execute(_IS_THERE, ("log",)).fetchone() is not None


def last_fed(connection: sqlite3.Connection, path: Path) -> tuple[bytes, Stretch]:
    """The log's id, and the last stretch of keys that are fed: how many are before it, the first key, how many.

    Raises:
        FormatError: the file has no feed yet.
    """
    if not _is_fed(connection):
        raise FormatError(f"{path} was written before there was a feed; open it once for writing")
    log_id: bytes = connection.execute("SELECT id FROM log").fetchone()[0]
    return log_id, _last_fed(connection)


def _last_fed(connection: sqlite3.Connection) -> Stretch:
    found: Stretch | None = connection.execute(_LAST_FED).fetchone()
    return found or (0, b"", 0)


def put_fed(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Let keys be fed, after all others."""
    last: Stretch | None = None
    for start, more in stretches(keys):
        place, first, count = last or _last_fed(connection)
        is_next = count and start == behind(first, count)
        last = (place, first, count + more) if is_next else (place + count, start, more)
        connection.execute(_PUT_FED, last)


def _check_format(connection: sqlite3.Connection, path: Path) -> int:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != _APPLICATION_ID:
        raise _foreign(path, "it is another program's SQLite file, or an empty one")
    if version > _FORMAT_VERSION:
        why = f"its format is version {version} and this release reads up to {_FORMAT_VERSION}; upgrade the package"
        raise _foreign(path, why)
    kinds = {kind for (kind,) in connection.execute("SELECT type FROM sqlite_master WHERE tbl_name = 'pairs'")}
    if "table" not in kinds:
        raise CorruptionError(str(path), "its table 'pairs' is missing")
    if "trigger" in kinds:
        raise _foreign(path, "somebody put a trigger on its table")
    return int(version)


def _foreign(path: Path, why: str) -> FormatError:
    return FormatError(f"{path} cannot be opened as a log: {why}; give the path of a log, or of a new file")


def file_id(path: Path) -> FileId | None:
    """Which file stands there now."""
    try:
        found = os.stat(path)  # noqa: PTH116 (once per commit: a Path would cost more than the call)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Wal:
    """The file to which SQLite writes what is committed, until it brings it into the database.

    SQLite holds no locks on it, so it may be opened beside. It is kept open, because the system reports a failed write
    once to each who has it open, and what SQLite heard of it need not have reached us.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + "-wal")
        self._fd: int | None = None
        self._id: FileId | None = None

    def is_empty(self) -> bool:
        """Whether all there is has been brought into the database, which SQLite flushes before it empties this."""
        try:
            return self.path.stat().st_size == 0
        except FileNotFoundError:
            return True

    def is_new(self) -> bool:
        """Whether it is another file than the one whose name was flushed last."""
        return file_id(self.path) != self._id

    def sync(self) -> None:
        """Bring all that is committed to stable storage: what is not in this file is in the database, and flushed."""
        if self._fd is None or self.is_new():
            self.close()
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            found = os.fstat(self._fd)
            self._id = found.st_dev, found.st_ino
            _sync_directory(self.path.parent)
        os.fsync(self._fd)

    def close(self) -> None:
        """Give it back; the next `sync` opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- errors ---------------------------------------------------------------------------------------------------------


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's code without its details; 0 if the error is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection was in the way: what failed did nothing and may be tried again."""
    return primary_code(error) in _BUSY


def busy(path: Path, timeout_s: float) -> BusyError:
    """Nobody's turn came in time."""
    return BusyError(f"{path}: others held it locked for {timeout_s:g} s; nothing was written; retry")


def translated(error: sqlite3.Error, path: Path) -> EventLogError:
    """Ours for SQLite's `error`; whenever this is called, nothing was written."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_CORRUPT:
        return CorruptionError(str(path), str(error))
    if code == sqlite3.SQLITE_NOTADB:
        return _foreign(path, "it is no SQLite file, or its first bytes are damaged")
    if code == sqlite3.SQLITE_FULL:
        return CapacityError(f"{path}: the disk is full ({error}); nothing was written; free some space and retry")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        why = f"{error}; SQLite must be able to write in its directory, even to read where nobody has it open"
        return StorageError(f"{path} cannot be opened: {why}")
    return StorageError(f"{path}: {error}; nothing was written")
