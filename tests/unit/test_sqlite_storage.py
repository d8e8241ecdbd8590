"""What only the SQLite engine has: its file, processes, forks, flushes, and places that are not logs."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from eventlog import EventLog
from eventlog.errors import (
    BusyError,
    CapacityError,
    ClosedError,
    CorruptionError,
    ExpectationError,
    FormatError,
    InvalidInputError,
    StorageError,
    TooLargeError,
)
from eventlog.storage import open_storage
from eventlog.storage import sqlite as engine
from eventlog.storage.sqlite import SqliteStorage
from tests.crash.workload import checked, count, go_on

ROOT = Path(__file__).resolve().parents[2]
A, B = b"\x0a", b"\x0b"
ALL_A = (A, B)


def open_files() -> set[str]:
    found = set()
    for fd in range(256):
        with suppress(FileNotFoundError):  # nothing is open under that number, or no longer
            found.add(str(Path(f"/proc/self/fd/{fd}").readlink()))
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def open_log(path, tmp_path):
    """Opens the log of this test; closes whatever the test left open, and finds what was not given back."""
    opened = []

    def open_it(location=path, **options):
        opened.append(SqliteStorage(location, **options))
        return opened[-1]

    yield open_it
    for storage in opened:
        storage.close()
    assert [name for name in open_files() if name.startswith(str(tmp_path))] == []


def eventually(is_true) -> bool:
    """Whether something became true; waits long enough for the slowest machine."""
    for _ in range(20_000):
        if is_true():
            return True
        time.sleep(0.001)
    return False


@pytest.fixture
def flushed(monkeypatch, tmp_path):
    """The files of this test that the engine itself asks the operating system to flush."""
    names = []
    real = os.fsync

    def traced(fd):
        name = str(Path(f"/proc/self/fd/{fd}").readlink())
        if name.startswith(str(tmp_path)):
            names.append(name)
        real(fd)

    monkeypatch.setattr(os, "fsync", traced)
    return names


def spawn(code: str, *arguments: object) -> subprocess.Popen:
    """A Python process of its own that runs `code`; the imports and ``path`` are there already."""
    head = "import os, sys, time\nfrom eventlog.errors import *\nfrom eventlog.storage.sqlite import SqliteStorage\n"
    return subprocess.Popen(
        [sys.executable, "-c", f"{head}path = sys.argv[1]\n{code}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def result(process: subprocess.Popen) -> str:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out.strip()


def in_fork(work) -> str:
    """What `work` returns in a forked child; an exception there comes back as its name."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = str(work())
        except BaseException as error:  # noqa: BLE001 (it must not leave the child)
            answer = repr(error)
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answers:
        answer = answers.read()
    assert os.waitpid(pid, 0)[1] == 0
    return answer


def tool(path, *statements: str) -> list:
    """What any other program does with the file; the rows of the last statement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


class TestTheFile:
    def test_it_is_one_file_that_only_its_owner_reads(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        beside = list(path.parent.iterdir())
        assert len(beside) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in beside} == {0o600}
        storage.close()
        assert list(path.parent.iterdir()) == [path]

    def test_other_tools_read_it(self, open_log, path):
        storage = open_log()
        storage.commit([(A + b"k", b"value")])
        assert tool(path, "SELECT key, value FROM pairs") == [(A + b"k", b"value")]
        assert tool(path, "PRAGMA integrity_check") == [("ok",)]

    def test_directories_are_made(self, open_log, tmp_path):
        open_log(tmp_path / "a" / "b" / "log.db").commit([(A, b"1")])

    @pytest.mark.parametrize(
        "name", ["a b", "a?mode=ro", "100%25", "a#b", "ä\u0301ö日本", "a&b=c;d", "%2e%2e", "q'\"`", "a\nb", "-wal"]
    )
    def test_any_name(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for location in (f"sqlite:///{name}.db", f"sqlite:///{tmp_path}/absolute {name}.db"):
            with closing(open_storage(location)) as storage:
                storage.commit([(A, name.encode())])
                assert storage.location == location
            with closing(open_storage(location, readonly=True)) as storage:
                assert storage.get([A]) == [name.encode()]
        assert {file.name for file in tmp_path.iterdir()} >= {f"{name}.db", f"absolute {name}.db"}

    def test_a_name_that_is_no_text(self, tmp_path):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.db")
        with closing(SqliteStorage(path)) as storage:
            storage.commit([(A, b"1")])
        assert [os.fsencode(file.name) for file in tmp_path.iterdir()] == [b"\xff\xfe.db"]

    def test_a_relative_one_stays_where_it_was_opened(self, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        with closing(open_storage("sqlite:///log.db")) as storage:
            monkeypatch.chdir(tmp_path / "elsewhere")
            storage.commit([(A, b"1")])
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(storage.get, [A]).result() == [b"1"]
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_a_link_leads_to_the_same_log(self, open_log, path, tmp_path):
        storage = open_log()
        link = tmp_path / "link.db"
        link.symlink_to(path)
        open_log(link).commit([(A, b"1")])
        assert storage.get([A]) == [b"1"]
        assert not list(tmp_path.glob("link.db-*"))

    @pytest.mark.parametrize(
        "location",
        [
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "sqlite:///:memory:",
            "sqlite:log.db",
            "sqlite://host/log.db",
            "mysql://a/b",
            "S3://b",
            "",
        ],
    )
    def test_other_urls_are_refused(self, location, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InvalidInputError, match=r"sqlite:///PATH"):
            open_storage(location)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["a://b", "sqlite", "sqlite.db", "my sqlite:///x"])
    def test_paths_that_look_a_little_like_urls_are_paths(self, name, tmp_path):
        open_storage(str(tmp_path / name)).close()
        open_storage(tmp_path / "b" / name).close()

    def test_a_nul_in_it(self, tmp_path):
        with pytest.raises(InvalidInputError, match="no path"):
            open_storage(f"sqlite:///{tmp_path}/a\0b")

    def test_no_other_word_for_synchronous(self, path):
        with pytest.raises(InvalidInputError, match='"full", "normal" or "off"'):
            SqliteStorage(path, synchronous="extra")
        assert not path.exists()


class TestForeignFiles:
    @pytest.mark.parametrize("readonly", [False, True])
    @pytest.mark.parametrize("table", ["CREATE TABLE pairs (key, value)", "CREATE TABLE notes (text)"])
    def test_another_programs_is_refused_and_left_alone(self, open_log, path, table, readonly):
        tool(path, table)
        before = path.read_bytes()
        with pytest.raises(FormatError, match="another program's"):
            open_log(readonly=readonly)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("readonly", [False, True])
    def test_no_sqlite_file(self, open_log, path, readonly):
        path.write_bytes(b"something else " * 1000)
        with pytest.raises(FormatError, match="no SQLite file"):
            open_log(readonly=readonly)
        assert path.read_bytes() == b"something else " * 1000

    @pytest.mark.parametrize("readonly", [False, True])
    def test_a_directory(self, open_log, tmp_path, readonly):
        with pytest.raises(FormatError, match="it is no file"):
            open_log(tmp_path, readonly=readonly)

    def test_a_newer_one(self, open_log, path):
        open_log().close()
        tool(path, "PRAGMA user_version=3")
        for readonly in (False, True):
            with pytest.raises(FormatError, match=r"version 3 .*up to 2; upgrade"):
                open_log(readonly=readonly)

    def test_one_with_a_trigger(self, open_log, path):
        open_log().close()
        tool(path, "CREATE TRIGGER t AFTER INSERT ON pairs BEGIN DELETE FROM pairs; END")
        with pytest.raises(FormatError, match="trigger"):
            open_log()

    def test_an_empty_file_becomes_a_log_unless_readonly(self, open_log, path):
        path.touch()
        with pytest.raises(FormatError, match="an empty one"):
            open_log(readonly=True)
        open_log().commit([(A, b"1")])

    def test_a_creation_that_was_killed_is_finished(self, open_log, path):
        tool(path, "PRAGMA journal_mode=WAL")
        assert path.stat().st_size > 0
        open_log().commit([(A, b"1")])

    def test_a_log_that_somebody_took_out_of_wal_mode(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        storage.close()
        tool(path, "PRAGMA journal_mode=DELETE", "VACUUM")
        again = open_log()
        again.commit([(B, b"2")])
        assert again.get([A, B]) == [b"1", b"2"]
        assert tool(path, "PRAGMA journal_mode") == [("wal",)]

    def test_a_log_without_its_table(self, open_log, path):
        open_log().close()
        tool(path, "DROP TABLE pairs")
        with pytest.raises(CorruptionError, match="table 'pairs' is missing"):
            open_log()

    @pytest.mark.parametrize("readonly", [False, True])
    @pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
    def test_damage_is_named(self, open_log, path, damage, readonly):
        storage = open_log()
        storage.commit([(A + n.to_bytes(2, "big"), b"v" * 300) for n in range(2000)])
        storage.close()
        size = path.stat().st_size
        if damage == "cut":
            os.truncate(path, size // 2)
        else:
            with path.open("r+b") as file:
                for page in range(3, size // 2048):
                    file.seek(page * 2048)
                    file.write(bytes(64) if damage == "zeros" else random.Random(page).randbytes(64))
        with pytest.raises(CorruptionError, match=r"log\.db"):
            list(open_log(readonly=readonly).scan([ALL_A]))

    def test_damage_of_one_page_is_contained(self, open_log, path):
        storage = open_log()
        storage.commit([(A + n.to_bytes(2, "big"), b"v" * 300) for n in range(2000)])
        storage.close()
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2 // 2048 * 2048)
            file.write(bytes(64))
        again = open_log()
        found = failed = 0
        for n in range(2000):
            try:
                found += again.get([A + n.to_bytes(2, "big")]) == [b"v" * 300]
            except CorruptionError:
                failed += 1
        assert failed > 0
        assert found > 1900
        again.commit([(B, b"1")])

    def test_deleted_or_replaced_underneath(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        storage.flush()
        for file in path.parent.iterdir():
            file.unlink()
        with pytest.raises(StorageError, match=r"deleted or replaced.*nothing was written"):
            storage.commit([(A, b"2")])
        with pytest.raises(StorageError, match="cannot be read"):
            storage.size_bytes()
        new = open_log()
        new.commit([(A, b"new")])
        with pytest.raises(StorageError, match="deleted or replaced"):
            storage.commit([(A, b"2")])


class TestReadonly:
    def test_no_log_there(self, open_log, path):
        with pytest.raises(FormatError, match="no log at"):
            open_log(readonly=True)
        assert not path.exists()
        with pytest.raises(FormatError, match="no log at"):
            open_log(path.parent / "missing" / "log.db", readonly=True)
        assert not list(path.parent.iterdir())

    @pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
    def test_it_reads_and_refuses_to_write(self, open_log, path, synchronous):
        storage = open_log()
        storage.commit([(A, b"1")])
        storage.close()
        before = path.read_bytes()
        reader = open_log(readonly=True, synchronous=synchronous)
        assert reader.get([A, B]) == [b"1", None]
        assert list(reader.scan([ALL_A])) == [(A, b"1")]
        assert reader.is_flushed()
        reader.flush()
        with pytest.raises(StorageError, match=r"readonly.*nothing was written"):
            reader.commit([(A, b"2")])
        reader.close()
        assert path.read_bytes() == before

    def test_it_sees_what_another_process_commits(self, open_log, path):
        open_log().close()
        reader = open_log(readonly=True)
        assert reader.get([A]) == [None]
        result(spawn("SqliteStorage(path).commit([(b'\\x0a', b'v')])", path))
        assert reader.get([A]) == [b"v"]

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody who must not write")
    def test_where_it_may_not_write_it_says_what_is_missing(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        storage.close()
        path.chmod(0o644)
        for directory in path.parents:
            if directory.stat().st_mode & 0o005 != 0o005:
                directory.chmod(0o755)
        code = "os.setuid(65534)\ntry: SqliteStorage(path, readonly=True)\nexcept StorageError as error: print(error)"
        assert "SQLite must be able to write in its directory" in result(spawn(code, path))


class TestDurability:
    def test_full_flushes_every_commit(self, open_log):
        storage = open_log(synchronous="full")
        for n in range(3):
            storage.commit([(A, b"%d" % n)])
            assert storage.is_flushed()

    def test_normal_flushes_in_the_background(self, open_log, monkeypatch):
        monkeypatch.setattr(engine, "FLUSH_INTERVAL_S", 0.001)
        storage = open_log()
        for n in range(100):
            storage.commit([(A, b"%d" % n)])
            assert eventually(storage.is_flushed)  # by the worker alone

    def test_off_flushes_when_asked(self, open_log):
        storage = open_log(synchronous="off")
        storage.commit([(A, b"1")])
        assert not storage.is_flushed()
        storage.flush()
        assert storage.is_flushed()

    def test_what_another_process_committed_is_not_known_to_be_flushed(self, open_log, path, monkeypatch):
        monkeypatch.setattr(SqliteStorage, "_wake", lambda storage: None)  # nobody else flushes
        storage = open_log()
        storage.commit([(A, b"1")])
        storage.flush()
        assert storage.is_flushed()
        writer = spawn(
            "storage = SqliteStorage(path, synchronous='normal')\nstorage._wake = lambda: None\n"
            "storage.commit([(b'\\x0a', b'2')]); print('done', flush=True); sys.stdin.read()",
            path,
        )
        assert writer.stdout.readline() == "done\n"
        assert not storage.is_flushed()
        storage.flush()
        assert storage.is_flushed()
        result(writer)

    def test_a_flush_reaches_the_wal_that_is_in_use(self, open_log, path, flushed):
        storage = open_log(synchronous="off")
        storage.commit([(A, b"needle in the wal")])
        assert b"needle in the wal" in path.with_name("log.db-wal").read_bytes()
        storage.flush()
        assert flushed == [str(path.parent), f"{path}-wal"]

    def test_full_flushes_the_name_of_a_new_wal(self, open_log, path, flushed):
        storage = open_log(synchronous="full")
        storage.commit([(A, b"1")])
        assert flushed == [str(path.parent), f"{path}-wal"]
        storage.commit([(A, b"2")])  # from here on SQLite's own flush is enough
        assert len(flushed) == 2

    def test_a_flush_that_another_thread_is_about_to_begin_opens_nothing_that_closing_leaves_open(self, open_log):
        storage = open_log(synchronous="off")
        storage.commit([(A, b"1")])
        door = Door(storage._flushing)
        storage._flushing = door
        with ThreadPoolExecutor(1) as pool:
            flushing = pool.submit(storage.flush)
            assert door.reached.wait(60)
            closing_connections = storage._connections.close

            def last() -> None:
                door.let_in.set()
                assert isinstance(flushing.exception(60), ClosedError)
                closing_connections()

            storage._connections.close = last
            storage.close()

    def test_a_failed_flush_poisons_the_handle(self, open_log, monkeypatch):
        storage = open_log(synchronous="off")
        storage.commit([(A, b"1")])

        def fails(fd):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            with pytest.raises(StorageError, match=r"flush failed.*open the log again"):
                storage.flush()
        for call in (lambda: storage.get([A]), lambda: storage.commit([(A, b"2")]), storage.flush, storage.is_flushed):
            with pytest.raises(StorageError, match="open the log again"):
                call()
        storage.close()
        assert open_log().get([A]) == [b"1"]

    def test_a_commit_of_unknown_outcome_poisons_the_handle(self, open_log):
        storage = open_log()
        storage.commit([(A, b"1")])
        real = storage._connections._writer
        storage._connections._writer = FailingConnection(real)
        with pytest.raises(StorageError, match=r"may be there or not; open the log again"):
            storage.commit([(A, b"2")])
        with pytest.raises(StorageError, match="open the log again"):
            storage.get([A])
        storage._connections._writer = real
        storage.close()
        assert open_log().get([A]) == [b"1"]

    def test_closing_leaves_all_in_the_file(self, open_log, path):
        storage = open_log()
        go_on(storage, 50)
        storage.close()
        assert list(path.parent.iterdir()) == [path]
        assert checked(open_log()) == 50


class Door:
    """A lock: who comes first waits until he is let in, others need not."""

    def __init__(self, lock) -> None:
        self.lock = lock
        self.reached, self.let_in = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            self.let_in.wait(60)
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


class FailingConnection:
    """A connection whose next transaction cannot be committed."""

    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def execute(self, statement, *arguments):
        if statement == "COMMIT":
            self.real.execute("ROLLBACK")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self.real.execute(statement, *arguments)


class TestRoom:
    @pytest.mark.parametrize("size", [2_000, 5_000_000])
    def test_a_full_disk_is_said_and_harms_nothing(self, open_log, path, size):
        storage = open_log()
        go_on(storage, 5)
        connection = storage._connections._writer
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(CapacityError, match=r"disk is full.*nothing was written"):
            storage.commit([(A + b"\1", b"1"), (A + b"\2", b"v" * size)])
        assert storage.get([A + b"\1", A + b"\2"]) == [None, None]
        connection.execute("PRAGMA max_page_count=1000000")
        storage.commit([(A + b"\2", b"v" * size)], [A + b"\2"])
        storage.commit([], [A + b"\2"])
        assert go_on(storage, 5) == checked(storage) == 10

    def test_a_limit_of_the_file_system(self, path):
        code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
storage = SqliteStorage(path)
storage.commit([(b"\\x0a", b"1")])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    storage.commit([(b"\\x0a", b"v" * (4 << 20))])
except StorageError as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
storage.close()
again = SqliteStorage(path)
print(again.get([b"\\x0a"]))
again.commit([(b"\\x0a", b"2")])
again.close()
print(SqliteStorage(path).get([b"\\x0a"]))
"""
        first, *rest = result(spawn(code, path)).split("\n")
        assert first in {"StorageError", "CapacityError"}
        assert rest == ["[b'1']", "[b'2']"]

    def test_a_value_larger_than_sqlite_holds(self, open_log, monkeypatch):
        storage = open_log()
        monkeypatch.setattr(engine, "_MAX_VALUE_BYTES", 100)
        with pytest.raises(TooLargeError, match="over the limit of 100"):
            storage.commit([(A, b"v"), (B, b"v" * 101)])
        assert storage.get([A]) == [None]

    def test_the_wal_stays_short_while_others_read_all_the_time(self, open_log, path):
        storage = open_log()
        storage.commit([(A + bytes([n]), b"v" * 1000) for n in range(200)])
        stop = threading.Event()

        def read():
            while not stop.is_set():
                assert len(list(storage.scan([ALL_A]))) == 200

        wal, longest = path.with_name("log.db-wal"), 0
        with ThreadPoolExecutor(3) as pool:
            reading = [pool.submit(read) for _ in range(3)]
            for n in range(600):
                storage.commit([(A + bytes([n % 200]), bytes(200_000))])
                longest = max(longest, wal.stat().st_size)
            stop.set()
            for reader in reading:
                reader.result()
        assert longest < 72 << 20  # of 120 MB written: a busy machine may be too late once, and it is tried at double

    def test_a_reader_that_never_ends_delays_few_commits(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM pairs").fetchall()
            statements = []
            storage._connections._writer.set_trace_callback(statements.append)
            for n in range(40):
                storage.commit([(B + bytes([n]), b"v" * 1_000_000)])
            assert sum("wal_checkpoint" in statement for statement in statements) <= 2
            other.execute("COMMIT")
        storage.commit([(B, b"v" * 60_000_000)])
        assert path.with_name("log.db-wal").stat().st_size < 8 << 20
        assert len(list(storage.scan([(B, b"\x0c")]))) == 41

    def test_a_large_commit_does_not_leave_a_large_wal(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"v" * 30_000_000)])
        storage.commit([(B, b"1")])
        storage.commit([(B, b"2")])
        assert path.with_name("log.db-wal").stat().st_size < 8 << 20


class TestOthers:
    def test_a_batch_that_fails_inside_is_rolled_back(self, open_log):
        storage = open_log(lock_timeout_s=1)
        with pytest.raises(StorageError):
            storage.commit([(A, b"1"), (B, ["no bytes"])])
        assert storage.get([A]) == [None]
        with pytest.raises(ExpectationError):
            storage.commit([], expect={A: b"1"})
        assert result(spawn("SqliteStorage(path, lock_timeout_s=1).commit([(b'\\x0a', b'1')])", storage._path)) == ""

    def test_a_commit_interrupted_half_way_leaves_nothing(self, open_log, path):
        storage = open_log()
        connection = storage._connections._writer
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("REPLACE INTO pairs VALUES (?, ?)", (A, b"half"))  # and there the interrupt came
        storage.commit([(B, b"whole")])
        assert storage.get([A, B]) == [None, b"whole"]

    def test_who_waits_in_vain_is_told_so(self, open_log, path):
        storage = open_log(lock_timeout_s=0.05)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BusyError, match=r"0\.05 s; nothing was written"):
                storage.commit([(A, b"1")])
            assert storage.get([A]) == [None]  # reading waits for nobody
            other.execute("ROLLBACK")
        storage.commit([(A, b"1")])

    def test_who_waits_lets_others_of_its_process_read_and_flush(self, open_log, path):
        storage = open_log(lock_timeout_s=30)
        with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
            other.execute("BEGIN IMMEDIATE")
            waiting = pool.submit(storage.commit, [(A, b"1")])
            storage.flush()
            assert in_fork(lambda: storage.get([A])) == "[None]"
            assert not waiting.done()
            other.execute("ROLLBACK")
            waiting.result()
        assert storage.get([A]) == [b"1"]

    @pytest.mark.parametrize("other", ["full", "normal", "off"])
    def test_off_has_the_file_for_itself(self, open_log, path, other):
        alone = open_log(synchronous="off")
        alone.commit([(A, b"1")])
        code = (
            f"try: SqliteStorage(path, synchronous='{other}', lock_timeout_s=0.05)\n"
            "except BusyError as error: print(error)"
        )
        assert "others held it locked for 0.05 s" in result(spawn(code, path))
        with pytest.raises(BusyError):
            open_log(synchronous=other, lock_timeout_s=0.05)
        assert alone.get([A]) == [b"1"]
        alone.commit([(A, b"2")])
        alone.close()
        assert open_log(synchronous=other).get([A]) == [b"2"]

    def test_off_waits_until_nobody_has_it_open(self, open_log):
        open_log().commit([(A, b"1")])
        with pytest.raises(BusyError):
            open_log(synchronous="off", lock_timeout_s=0.05)

    def test_processes_lose_nothing_and_never_both_win(self, path):
        code = """
storage = SqliteStorage(path)
print("ready", flush=True); sys.stdin.readline()
left = 100
while left:
    (value,) = storage.get([b"\\x0a"])
    try:
        storage.commit([(b"\\x0a", b"%d" % (int(value or 0) + 1))], expect={b"\\x0a": value})
        left -= 1
    except ExpectationError:
        pass
storage.close()
"""
        writers = [spawn(code, path) for _ in range(4)]  # the file is made by all of them at once
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [result(writer) for writer in writers] == [""] * 4
        with closing(SqliteStorage(path)) as storage:
            assert storage.get([A]) == [b"400"]

    def test_many_readers_at_once_do_not_keep_as_many_files(self, open_log, path):
        storage, together = open_log(), threading.Barrier(40)
        storage.commit([(A, b"1")])

        def read(_: int):
            storage._connections.read(lambda _: together.wait())
            return storage.get([A])

        with ThreadPoolExecutor(40) as pool:
            assert list(pool.map(read, range(40))) == [[b"1"]] * 40
        wals = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and str(fd.readlink()) == f"{path}-wal"]
        assert len(wals) < 12


class TestForks:
    @pytest.mark.parametrize("synchronous", ["full", "normal"])
    def test_parent_and_child_both_go_on(self, open_log, synchronous):
        storage = open_log(synchronous=synchronous)
        go_on(storage, 3)

        def child():
            go_on(storage, 3)
            storage.flush()
            checked(storage)
            storage.close()
            return "done"

        assert in_fork(child) == "done"
        assert checked(storage) == 6
        assert in_fork(lambda: os.getppid() and go_on(storage, 2)) == "8"
        assert go_on(storage, 2) == checked(storage) == 10

    def test_a_child_that_goes_on_keeps_its_own_locks(self, open_log, path):
        """The parent closes, which would remove the WAL under a child that leaned on the parent's locks."""
        storage = open_log()
        go_on(storage, 3)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            try:
                go_on(storage, 3)
                os.read(read_end, 1)  # the parent has closed
                go_on(storage, 3)
                os._exit(0 if checked(storage) == 9 else 1)
            finally:
                os._exit(2)
        os.close(read_end)
        assert eventually(lambda: count(storage) == 6)
        storage.close()
        other = open_log()
        assert checked(other) == 6
        os.close(write_end)
        assert os.waitpid(pid, 0)[1] == 0
        assert checked(other) == 9

    def test_a_fork_while_threads_read_and_write(self, open_log):
        storage = open_log()
        stop = threading.Event()

        def work(me: bytes):
            n = 0
            while not stop.is_set():
                n += 1
                storage.commit([(B + me, b"%d" % n)])
                assert storage.get([B + me, A]) == [b"%d" % n, None]
                assert list(storage.scan([(B + me, B + me + b"\0")])) == [(B + me, b"%d" % n)]

        with ThreadPoolExecutor(3) as pool:
            working = [pool.submit(work, bytes([n])) for n in range(3)]
            for n in range(10):
                key = b"\x0c" + bytes([n])
                assert (
                    in_fork(lambda key=key: (storage.commit([(key, b"child")]), storage.get([key]))[1]) == "[b'child']"
                )
            stop.set()
            for each in working:
                each.result()
        assert len(list(storage.scan([(b"\x0c", b"\x0d")]))) == 10

    def test_off_is_taken_again_after_a_fork(self, open_log):
        storage = open_log(synchronous="off", lock_timeout_s=0.05)
        go_on(storage, 2)

        def child():
            os.write(forked, b"1")
            os.read(may_write, 1)
            try:
                storage.commit([(A, b"child")])
            except BusyError:
                return "busy"
            return "written"

        (is_forked, forked), (may_write, let_write) = os.pipe(), os.pipe()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(in_fork, child)
            os.read(is_forked, 1)
            assert go_on(storage, 2) == 4
            os.write(let_write, b"1")
            assert answer.result() == "busy"
        for end in (is_forked, forked, may_write, let_write):
            os.close(end)
        assert checked(storage) == 4

    def test_a_closed_handle_stays_closed_in_the_child(self, open_log):
        storage = open_log()
        storage.close()
        assert "ClosedError" in in_fork(lambda: storage.get([A]))
        with pytest.raises(ClosedError):
            storage.get([A])


KILLED = """
sys.path.insert(0, sys.argv[2])
from tests.crash.workload import batch_of, count
storage = SqliteStorage(path, synchronous=sys.argv[3])
print("ready", flush=True)
n = count(storage)
while True:
    n += 1
    storage.commit(*batch_of(n))
    os.write(1, b"%d\\n" % n)
"""


class TestKills:
    @pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
    def test_what_was_acknowledged_is_there_after_a_kill_at_any_time(self, path, synchronous):
        seed = random.randrange(1 << 32)
        print("seed", seed)
        chance, acked = random.Random(seed), 0
        for cycle in range(12):
            process = spawn(KILLED, path, ROOT, synchronous)
            if cycle:  # the first one is killed at whatever it does: making the file, too
                assert process.stdout.readline() == "ready\n"
            time.sleep(chance.random() ** 2 * (0.08 if cycle else 0.3))
            process.kill()
            lines = process.communicate()[0].split("\n")
            acked = max([acked, *(int(line) for line in lines[:-1] if line.isdigit())])
            with closing(SqliteStorage(path, synchronous=synchronous)) as storage:
                assert checked(storage) >= acked
                acked = go_on(storage, 2)
        assert tool(path, "PRAGMA integrity_check") == [("ok",)]

    def test_several_writers_are_killed_in_the_middle(self, path):
        code = """
storage = SqliteStorage(path)
me = sys.argv[2].encode()
print("ready", flush=True)
n = 0
while True:
    n += 1
    storage.commit([(b"\\x0a" + me, b"%d" % n), (b"\\x0b" + me, b"%d" % n), (b"\\x0c" + me + b"%d" % n, b"v" * 500)])
    os.write(1, b"%d\\n" % n)
"""
        for cycle in range(4):
            writers = [spawn(code, path, f"{cycle}{n}") for n in range(4)]
            for writer in writers:
                assert writer.stdout.readline() == "ready\n"
            for writer in writers:
                assert writer.stdout.readline() == "1\n"
            time.sleep(0.1)
            for writer in writers:
                writer.kill()
            acked = [int(["1", *writer.communicate()[0].split("\n")][-2]) for writer in writers]
            with closing(SqliteStorage(path)) as storage:
                for n, last in enumerate(acked):
                    me = b"%d%d" % (cycle, n)
                    one, other = storage.get([A + me, B + me])
                    assert one == other
                    assert int(one) >= last
                    keys = list(storage.scan([(b"\x0c" + me, b"\x0c" + me + b"\xff")]))
                    assert len(keys) == int(one)
                storage.commit([(A, b"on")])

    def test_a_log_goes_on_after_its_writer_was_killed(self, path):
        code = """
from eventlog import EventLog
run = EventLog.open(f"sqlite:///{path}").run("r")
while True:
    run.append({"n": len(run), "text": "x" * 50})
    os.write(1, b"%d\\n" % len(run))
"""
        process = spawn(code, path)
        while int(process.stdout.readline()) < 50:
            pass
        process.send_signal(signal.SIGKILL)
        acked = max(int(line) for line in ["50", *process.communicate()[0].split("\n")[:-1]])
        with EventLog.open(f"sqlite:///{path}") as log:
            assert list(log.verify()) == []
            run = log.run("r")
            assert len(run) >= acked
            assert run.state["n"] == len(run) - 1
            run.append({"n": -1})
            assert list(log.verify()) == []
