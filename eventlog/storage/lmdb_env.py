"""The LMDB environment that all handles of a directory in this process share.

Owns everything that is peculiar to LMDB: the map's size, reader slots, named databases, the lock beside it, forks, and
the rule that one process opens one environment once. It must never hand out memory of the map, open ``lock.mdb``
(closing it would drop the process's locks), or commit anywhere but in `_transact`.

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
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import lmdb

from eventlog.errors import CapacityError, ClosedError, CorruptionError, EventLogError, StorageError
from eventlog.storage.base import FED
from eventlog.storage.fed import LOG_ID_BYTES, packed
from eventlog.storage.lmdb_file import check_place, file_id_of, foreign
from eventlog.storage.lmdb_keys import KINDS, OWN, outer_key
from eventlog.storage.locks import WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from eventlog.storage.lmdb_file import FileId

    Transaction = lmdb.Transaction[bytes]
    Databases = list[lmdb._Database]  # noqa: SLF001 (the type stubs give it no public name)

T = TypeVar("T")

_FORMAT_NAME = b"eventlog"
_FORMAT_VERSION = 2
_META = b"meta"
LOG_ID = b"id"
MARK = b"mark"
_OTHER = b"other"
_FED = b"fed"
META_AT = KINDS
"""Where the database about the log stands among `Databases`: behind those of all kinds."""
FED_AT = KINDS + 1
"""Where the one of what is fed stands; a log of format 1 that was not written to since has none."""
_NAMED = [(kind, bytes((kind,))) for kind in sorted(OWN)]

_MAP_LADDER_BYTES = (1 << 40, 1 << 36, 1 << 32, 1 << 30)
_MIN_MAP_BYTES = 1 << 20
_MAX_MAP_BYTES = 1 << 46  # 64 TiB: the next power of two is more than x86-64 can map
_MAX_READERS = 1024

_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError)
_FOREIGN = (lmdb.InvalidError, lmdb.VersionMismatchError)


class Batch(Protocol):
    """What one commit does."""

    def apply(self, txn: Transaction, dbs: Databases) -> None:
        """Do it; it may be asked for again, where there was no room."""


def mark_of(txn: Transaction, dbs: Databases) -> int:
    """How much of something outside was taken over; see `LmdbStorage.fold`."""
    return int.from_bytes(txn.get(MARK, db=dbs[META_AT]) or b"", "big")


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


class Options(NamedTuple):
    """How to open a directory; see `LmdbStorage`."""

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


class Shared:
    """One LMDB environment of this process, and what it takes to use it safely.

    After a failed flush it is poisoned: what LMDB holds in memory may differ from the disk, so every call fails until
    the directory is opened anew.
    """

    def __init__(self, options: Options) -> None:
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

    def commit(self, batch: Batch, timeout_s: float) -> None:
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
        return len(self._dbs) > FED_AT

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
        """What the files of the directory take on the disk."""
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
            raise closed(str(self._options.path))
        if self._env is None:
            raise _NotOpenError
        return self._env

    def _is_committed(self, batch: Batch) -> bool:
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
        if file_id_of(self._data_path) != self.file_id:
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
                raise foreign(self._options.path, str(error)) from error
            raise
        self._env = env
        self.file_id = file_id_of(self._data_path) or (0, 0)

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


def _mapped(options: Options) -> lmdb.Environment:
    """The environment with the largest map that the machine gives."""
    for size_bytes in options.map_sizes_bytes():
        try:
            return lmdb.Environment(
                os.fspath(options.path),
                map_size=size_bytes,
                readonly=options.is_readonly,
                create=not options.is_readonly,
                mode=0o600,
                max_dbs=len(OWN) + 3,
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
        txn.put(LOG_ID, os.urandom(LOG_ID_BYTES), db=meta, overwrite=False)
        databases = [*_databases(lambda name: env.open_db(name, txn=txn), meta), env.open_db(_FED, txn=txn)]
        if version < _FORMAT_VERSION:
            _feed_all(txn, databases)
            txn.put(b"format", record, db=meta)
        return databases

    return _transact(env, work)


def _checked_readonly(env: lmdb.Environment) -> Databases:
    meta = _meta(env, None)
    with env.begin() as txn:
        is_fed = _checked_format(txn.get(b"format", db=meta)) == _FORMAT_VERSION and txn.get(LOG_ID, db=meta)
    databases = _databases(partial(env.open_db, create=False), meta)
    return [*databases, env.open_db(_FED, create=False)] if is_fed else databases


def _feed_all(txn: Transaction, dbs: Databases) -> None:
    """Let what there is be fed, in key order: nobody knows another."""
    record = packed(outer_key(FED[0], inner) for inner in txn.cursor(dbs[FED[0]]).iternext(values=False))
    txn.put(mark_of(txn, dbs).to_bytes(8, "big"), record, db=dbs[FED_AT])


def _meta(env: lmdb.Environment, txn: Transaction | None) -> lmdb._Database:
    try:
        return env.open_db(_META, txn=txn, create=False)
    except (lmdb.NotFoundError, lmdb.IncompatibleError) as error:
        msg = "it has no record of a log's format"
        raise _ForeignError(msg) from error


def _databases(open_db: Callable[[bytes], lmdb._Database], meta: lmdb._Database) -> Databases:
    """The database of each kind, and behind them the one about the log; the one of what is fed is to follow."""
    databases = [open_db(_OTHER)] * KINDS
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


# One environment per file and process -------------------------------------------------------------------------

REGISTRY = threading.Lock()
"""Held while environments are joined and left; a fork waits for it."""
_shared_by_file: dict[FileId, Shared] = {}


def join(options: Options) -> Shared:
    """The environment of a directory, with one user more; opened, if no handle of this process has it open."""
    with REGISTRY:
        try:
            file_id = check_place(options.path, is_readonly=options.is_readonly)
        except OSError as error:
            msg = f"{options.path} cannot be opened: {error}"
            raise StorageError(msg) from error
        shared = _known(options, file_id) or _opened(options)
        shared.users += 1
        return shared


def _known(options: Options, file_id: FileId | None) -> Shared | None:
    shared = None if file_id is None else _shared_by_file.get(file_id)
    if shared is not None and shared.failure:
        shared.close()  # poisoned: its handles stay so, and the new one begins anew
        return None
    if shared is not None and not (options.is_readonly or shared.has_feed):
        shared.make_writable()
    return shared


def _opened(options: Options) -> Shared:
    """The environment; one that is whole is opened for reading, and made writable by the first commit."""
    shared = None if options.is_readonly else _opened_whole(options)
    if shared is None:
        shared = _entered(Shared(options))
    _shared_by_file[shared.file_id] = shared
    return shared


def _opened_whole(options: Options) -> Shared | None:
    """The environment, open for reading; None if that is not possible yet, or not at all: opening it says why."""
    shared = None
    with suppress(EventLogError):
        shared = _entered(Shared(options._replace(is_readonly=True)))
    if shared is not None and not shared.has_feed:
        shared.close()
        return None
    return shared


def _entered(shared: Shared) -> Shared:
    try:
        shared.open()
    except BaseException:
        shared.close()
        raise
    return shared


def leave(shared: Shared) -> None:
    """Give it back; the last user closes it. The caller holds `REGISTRY`."""
    shared.users -= 1
    if shared.users == 0:
        shared.close()
        if _shared_by_file.get(shared.file_id) is shared:
            del _shared_by_file[shared.file_id]


def _before_fork() -> None:
    """Let running transactions end: in the child nobody would, and LMDB would wait for them for ever."""
    REGISTRY.acquire()
    for shared in _shared_by_file.values():
        shared.gate.shut()


def _after_fork() -> None:
    for shared in _shared_by_file.values():
        shared.gate.reopen()
    REGISTRY.release()


def _after_fork_in_child() -> None:
    for shared in _shared_by_file.values():
        shared.inherit()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


# Small facts ----------------------------------------------------------------------------------------------------


def closed(location: str) -> ClosedError:
    """The error of using what was closed."""
    return ClosedError(f"{location} was closed; open it again")


def _translated(error: lmdb.Error, path: Path) -> EventLogError:
    """Ours for LMDB's `error`; whenever this is called, nothing was written."""
    if isinstance(error, _DAMAGE):
        return CorruptionError(str(path), str(error))
    if isinstance(error, _FOREIGN):
        return foreign(path, str(error))
    if isinstance(error, lmdb.DiskError):
        return CapacityError(
            f"{path}: the disk is full, or refuses ({error}); nothing was written; free some space and retry"
        )
    if isinstance(error, lmdb.TxnFullError):
        return CapacityError(f"{path}: the batch is too large for one transaction; nothing was written; split it")
    return StorageError(f"{path}: {error}; nothing was written")
