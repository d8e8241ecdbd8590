"""What only the LMDB engine has: files, processes, forks, the map's size, and places that are not logs."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest

from eventlog.errors import (
    BusyError,
    CapacityError,
    ClosedError,
    CorruptionError,
    ExpectationError,
    FormatError,
    StorageError,
)
from eventlog.storage import lmdb_env
from eventlog.storage.lmdb import LmdbStorage
from eventlog.storage.lmdb_file import length_bytes
from eventlog.storage.locks import WriteLock
from tests.counting import patience

ROOT = Path(__file__).resolve().parents[2]
A, B = b"\x0a", b"\x0b"
ALL_A = (A, B)


def open_files():
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def open_log(path):
    """Opens the log of this test; closes whatever the test left open, and finds what was not given back."""
    opened = []

    def open_it(location=path, **options):
        opened.append(LmdbStorage(location, **options))
        return opened[-1]

    before, shared = open_files(), set(lmdb_env._shared_by_file)
    yield open_it
    for storage in opened:
        storage.close()
    assert set(lmdb_env._shared_by_file) <= shared
    assert set(open_files()) <= set(before)  # fewer: what another test left may have been collected meanwhile


def spawn(code: str, *arguments: object) -> subprocess.Popen:
    """A Python process of its own that runs `code`; the imports and ``path`` are there already."""
    head = "import os, sys, time\nfrom eventlog.errors import *\nfrom eventlog.storage.lmdb import LmdbStorage\n"
    return subprocess.Popen(
        [sys.executable, "-c", f"{head}path = sys.argv[1]\n{code}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def result(process: subprocess.Popen) -> str:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out.strip()


def kills_itself(process: subprocess.Popen) -> bool:
    errors = process.communicate(timeout=60)[1]
    return process.returncode == -signal.SIGKILL or pytest.fail(errors)


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


def leave_short(storage, path):
    """Take pages at the end of the file and free them in one transaction; how long the file is and should be then."""
    storage.commit([(A + bytes([n]), b"v" * 10_000) for n in range(20)])
    storage.commit([], [A + bytes([n]) for n in range(10)])
    storage.commit([(B, b"")])
    with storage._shared._env.begin(write=True, db=storage._shared._dbs[B[0]]) as txn:
        txn.put(b"small", b"v" * 5000)  # from the free pages, which are known to the transaction from here on
        txn.put(b"large", b"v" * 1_000_000)
        txn.delete(b"large")
    return length_bytes(path / "data.mdb")


class TestFiles:
    def test_parents_are_made_and_only_the_owner_may_read(self, open_log, tmp_path):
        deep = tmp_path / "a" / "b" / "log"
        old = os.umask(0)
        try:
            open_log(deep).commit([(A, b"1")])
        finally:
            os.umask(old)
        assert stat.S_IMODE(deep.stat().st_mode) == 0o700
        assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in deep.iterdir()} == {
            "data.mdb": 0o600,
            "lock.mdb": 0o600,
            "write.lock": 0o600,
        }

    def test_an_existing_empty_directory_is_used(self, open_log, path):
        path.mkdir()
        open_log().commit([(A, b"1")])
        assert open_log().get([A]) == [b"1"]

    def test_location_is_as_given(self, open_log, path, monkeypatch):
        monkeypatch.chdir(path.parent)
        storage = open_log("log")
        assert storage.location == "log"
        monkeypatch.chdir("/")
        storage.commit([(A, b"1")])
        assert storage.get([A]) == [b"1"]

    def test_size_counts_what_is_allocated(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"v" * 1_000_000)])
        assert storage.size_bytes() == sum(file.stat().st_blocks * 512 for file in path.iterdir())
        assert 1_000_000 <= storage.size_bytes() < 2_000_000

    def test_an_idle_scan_does_not_make_the_file_grow(self, open_log):
        storage = open_log()
        storage.commit([(A + bytes([n % 256, n // 256]), b"v") for n in range(1000)])
        idle = storage.scan([ALL_A])
        next(idle)
        for n in range(60):
            storage.commit([(B, bytes([n]) * 100_000)])
        assert storage.size_bytes() < 1_500_000

    def test_flush_and_close_leave_nothing_behind(self, open_log):
        storage = open_log()
        storage.flush()
        storage.close()
        with pytest.raises(ClosedError):
            storage.get([A])

    def test_opened_twice_shares(self, open_log):
        one, two = open_log(), open_log()
        one.commit([(A, b"1")])
        assert two.get([A]) == [b"1"]
        one.close()
        one.close()
        two.commit([(A, b"2")], expect={A: b"1"})
        with pytest.raises(ClosedError):
            one.get([A])

    def test_through_a_symlink_too(self, open_log, path, tmp_path):
        one = open_log()
        (tmp_path / "link").symlink_to(path)
        two = open_log(tmp_path / "link")
        one.commit([(A, b"1")])
        assert two.get([A]) == [b"1"]

    def test_a_readonly_handle_does_not_keep_another_from_writing(self, open_log):
        open_log().close()
        reader = open_log(readonly=True)
        writer = open_log()
        writer.commit([(A, b"1")])
        assert reader.get([A]) == [b"1"]
        with pytest.raises(StorageError, match="readonly"):
            reader.commit([(A, b"2")])

    def test_threads_read_on_while_the_first_commit_comes(self, open_log):
        """What is only read is opened for reading; the first commit opens it anew, under the readers' feet."""
        storage = open_log()
        storage.commit([(A + bytes([n]), b"x") for n in range(100)])

        def read(storage):
            return [len(list(storage.scan([ALL_A]))) for _ in range(20)]

        for n in range(20):
            storage.close()
            storage = open_log()
            with ThreadPoolExecutor(3) as pool:
                counts = [pool.submit(read, storage) for _ in range(3)]
                storage.commit([(B, bytes([n]))])
                assert all(set(count.result()) == {100} for count in counts)
            assert storage.get([B]) == [bytes([n])]

    def test_threads_that_open_and_close_all_the_time(self, open_log):
        keeper = open_log()

        def work(me):
            for n in range(10):
                storage = open_log()
                storage.commit([(A + bytes([me, n]), b"1")])
                storage.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert len(list(keeper.scan([ALL_A]))) == 40

    def test_a_commit_that_comes_while_it_is_closed_makes_no_lock_anew(self, open_log, path, monkeypatch):
        storage = open_log()
        storage.commit([(A, b"1")])
        opening = WriteLock.open

        def late(lock: WriteLock) -> None:
            monkeypatch.undo()
            storage.close()
            (path / "write.lock").unlink()
            opening(lock)

        monkeypatch.setattr(WriteLock, "open", late)
        with pytest.raises(ClosedError):
            storage.commit([(A, b"2")])
        assert not (path / "write.lock").exists()

    def test_who_was_interrupted_on_its_way_in_can_close(self, open_log):
        storage = open_log()

        class Interrupting(set):
            def add(self, thread: int) -> None:
                super().add(thread)
                raise KeyboardInterrupt

        storage._shared.gate._inside = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            storage.get([A])
        with patience():
            storage.close()

    def test_who_is_interrupted_while_he_waits_for_running_calls_lets_others_in_again(self, open_log):
        storage = open_log()

        class Interrupting(set):
            def __len__(self) -> int:
                raise KeyboardInterrupt

        gate = storage._shared.gate
        gate._inside = Interrupting()
        with pytest.raises(KeyboardInterrupt), gate.alone():
            pass
        gate._inside = set()
        with patience():
            assert storage.get([A]) == [None]
            storage.close()

    def test_closing_waits_for_running_calls(self, open_log):
        def work(storage):
            try:
                while True:
                    storage.get([A])
                    storage.commit([(A, b"1")])
            except ClosedError:
                return True

        with ThreadPoolExecutor(4) as pool:
            for _ in range(10):
                storage = open_log()
                working = [pool.submit(work, storage) for _ in range(4)]
                time.sleep(0.01)
                storage.close()
                assert all(done.result(timeout=60) for done in working)


class TestProcesses:
    def test_two_processes_that_retry_lose_nothing(self, open_log, path):
        storage = open_log()
        code = """
storage, wins = LmdbStorage(path), 0
while wins < 60:
    (value,) = storage.get([b"\\x0a"])
    try:
        storage.commit([(b"\\x0a", b"%d" % (int(value or 0) + 1))], expect={b"\\x0a": value})
        wins += 1
    except ExpectationError:
        pass
"""
        for process in [spawn(code, path) for _ in range(3)]:
            result(process)
        assert storage.get([A]) == [b"180"]

    def test_what_one_process_commits_the_next_sees_at_once(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        assert result(spawn("print(LmdbStorage(path).get([b'\\x0a']))", path)) == "[b'1']"
        result(spawn("LmdbStorage(path).commit([(b'\\xfe', b'2')], [b'\\x0a'])", path))
        assert storage.get([A, b"\xfe"]) == [None, b"2"]

    def test_processes_that_create_at_once(self, open_log, path):
        code = "LmdbStorage(path).commit([(b'\\x0a' + sys.argv[2].encode(), b'')])"
        for process in [spawn(code, path, n) for n in range(4)]:
            result(process)
        assert len(list(open_log().scan([ALL_A]))) == 4

    def test_a_killed_writer_loses_nothing_it_was_told_is_written(self, open_log, path):
        code = """
storage, n = LmdbStorage(path), 0
while True:
    pairs = [(b"\\x0a" + (n * 3 + m).to_bytes(4, "big"), b"v" * 2000) for m in range(3)]
    storage.commit(pairs)
    n += 1
    os.write(1, b"%d\\n" % n)
"""
        writer = spawn(code, path)
        for _ in range(20):
            acknowledged = writer.stdout.readline()
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        acknowledged = int(([acknowledged, *writer.stdout.read().split()])[-1])
        writer.communicate()
        storage = open_log(lock_timeout_s=5)
        stored = len(list(storage.scan([ALL_A])))
        assert stored in (acknowledged * 3, (acknowledged + 1) * 3)
        storage.commit([(B, b"the lock is free")])

    def test_a_writer_that_holds_on_makes_others_give_up_in_time(self, open_log, path):
        storage = open_log(lock_timeout_s=0.1)
        code = """
import fcntl
fd = os.open(path + "/write.lock", os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
        head = [sys.executable, "-c", f"import os, sys\npath = sys.argv[1]\n{code}", str(path)]
        holder = subprocess.Popen(head, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout.readline() == b"held\n"
        started = time.monotonic()
        with pytest.raises(BusyError, match="nothing was written"):
            storage.commit([(A, b"1")])
        assert 0.1 <= time.monotonic() - started < 20  # by default it waits 30
        assert storage.get([A]) == [None]  # reading never waits
        holder.communicate()
        storage.commit([(A, b"1")])

    def test_who_opens_and_reads_does_not_wait_for_a_writer(self, open_log, path):
        writer = open_log()
        writer.commit([(A, b"1")])
        writer.close()
        held = WriteLock(str(path / "write.lock"))
        held.open()
        held.acquire(5)
        storage = open_log(lock_timeout_s=0.05)
        assert storage.get([A]) == [b"1"]
        with pytest.raises(BusyError, match="nothing was written"):
            storage.commit([(A, b"2")])
        assert storage.get([A]) == [b"1"]
        held.release()
        held.close()
        storage.commit([(A, b"2")])
        assert storage.get([A]) == [b"2"]

    def test_a_thread_that_holds_on_does_too(self, open_log):
        storage = open_log(lock_timeout_s=0.05)
        storage._shared._lock.acquire(1)
        with pytest.raises(BusyError), ThreadPoolExecutor(1) as pool:
            pool.submit(storage.commit, [(A, b"1")]).result()
        storage._shared._lock.release()
        storage.commit([(A, b"1")])

    def test_reader_slots_of_the_dead_are_freed(self, open_log, path):
        storage = open_log()
        code = f"""
storage = LmdbStorage(path)
transactions = [storage._shared._env.begin() for _ in range({lmdb_env._MAX_READERS})]
os.kill(os.getpid(), 9)
"""
        assert kills_itself(spawn(code, path))
        assert storage.get([A]) == [None]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 and later
class TestFork:
    def test_child_and_parent_both_go_on(self, open_log):
        storage = open_log()
        storage.commit([(A, b"1")])

        def child():
            storage.commit([(A + b"child", b"c")], expect={A: b"1"})
            return storage.get([A, A + b"child"])

        assert in_fork(child) == "[b'1', b'c']"
        storage.commit([(A, b"2")], expect={A + b"child": b"c"})
        assert in_fork(lambda: storage.get([A])) == "[b'2']"
        assert storage.get([A]) == [b"2"]

    def test_the_child_opens_and_closes_as_it_likes(self, open_log, path):
        storage, other = open_log(), open_log()

        def child():
            storage.close()
            other.commit([(A, b"c")])
            third = LmdbStorage(path)
            other.close()
            return third.get([A])

        assert in_fork(child) == "[b'c']"
        assert storage.get([A]) == other.get([A]) == [b"c"]
        storage.commit([(A, b"p")])

    def test_a_child_that_does_nothing_but_close(self, open_log):
        storage = open_log()
        assert in_fork(storage.close) == "None"
        storage.commit([(A, b"p")])

    def test_grandchildren(self, open_log):
        storage = open_log()
        assert in_fork(lambda: in_fork(lambda: storage.commit([(A, b"grandchild")]))) == "None"
        assert storage.get([A]) == [b"grandchild"]

    def test_a_readonly_handle(self, open_log):
        open_log().commit([(A, b"1")])
        reader = open_log(readonly=True)
        assert in_fork(lambda: reader.get([A])) == "[b'1']"

    def test_a_scan_goes_on_in_the_child(self, open_log):
        storage = open_log()
        storage.commit([(A + n.to_bytes(2, "big"), b"") for n in range(1000)])
        scan = storage.scan([ALL_A])
        next(scan)
        assert in_fork(lambda: len(list(scan))) == "999"
        assert len(list(scan)) == 999

    def test_forks_while_threads_read_and_write(self, open_log):
        storage = open_log()
        stop = threading.Event()

        def work(me):
            n = 0
            while not stop.is_set():
                storage.commit([(A + bytes([me]), b"%d" % n)])
                assert storage.get([A + bytes([me])]) == [b"%d" % n]
                n += 1
            return n

        with ThreadPoolExecutor(3) as pool:
            working = [pool.submit(work, me) for me in range(3)]
            for n in range(15):
                assert in_fork(lambda n=n: storage.commit([(B + bytes([n]), b"child")])) == "None"
            stop.set()
            assert all(done.result() for done in working)
        assert len(list(storage.scan([(B, b"\x0c")]))) == 15

    def test_the_child_does_not_hold_the_lock_of_a_dead_parent(self, open_log, path):
        code = """
storage = LmdbStorage(path)
storage._shared._lock.acquire(1)
if os.fork() == 0:
    os.close(1), os.close(2)
    time.sleep(3)
    os._exit(0)
os.kill(os.getpid(), 9)
"""
        assert kills_itself(spawn(code, path))
        open_log(lock_timeout_s=1).commit([(A, b"1")])


class TestMapSize:
    def test_a_small_map_grows_by_itself(self, open_log):
        storage = open_log(map_size_bytes=1)
        for n in range(40):
            storage.commit([(A + bytes([n]), bytes([n]) * 100_000)], expect={A + bytes([n]): None})
        storage.commit([(B, b"v" * 9_000_000)])
        assert [len(value) for _, value in storage.scan([ALL_A])] == [100_000] * 40
        assert len(storage.get([B])[0]) == 9_000_000

    def test_it_grows_while_others_read(self, open_log):
        storage = open_log(map_size_bytes=1)
        stop = threading.Event()

        def read():
            scans = 0
            while not stop.is_set():
                for key, value in storage.scan([ALL_A]):
                    assert (value[:1], len(value)) == (key[1:], 100_000)
                scans += 1
                time.sleep(0.0005)  # the writer needs the interpreter too
            return scans

        with ThreadPoolExecutor(2) as pool:
            reading = [pool.submit(read) for _ in range(2)]
            for n in range(100):
                storage.commit([(A + bytes([n]), bytes([n]) * 100_000)])
            stop.set()
            assert all(done.result() for done in reading)

    def test_another_process_takes_over_the_size(self, open_log, path):
        storage = open_log(map_size_bytes=1)
        storage.commit([(A, b"1")])
        result(spawn("LmdbStorage(path, map_size_bytes=1).commit([(b'\\x0a', b'v' * 8_000_000)])", path))
        assert len(storage.get([A])[0]) == 8_000_000
        result(spawn("LmdbStorage(path, map_size_bytes=1).commit([(b'\\x0a', b'v' * 30_000_000)])", path))
        storage.commit([(B, b"2")])
        assert len(storage.get([A])[0]) == 30_000_000

    def test_it_takes_what_address_space_there_is(self, path):
        code = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (1400 << 20),) * 2)
print(LmdbStorage(path)._shared._env.info()["map_size"] == 1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
try:
    LmdbStorage(path + "2")
except CapacityError as error:
    print("ulimit -v" in str(error))
"""
        assert result(spawn(code, path)).split() == ["True", "True"]

    def test_a_map_that_cannot_grow_is_said_and_harms_nothing(self, path):
        code = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
storage, kept = LmdbStorage(path, map_size_bytes=32 << 20), 0
try:
    while True:
        storage.commit([(b"\\x0b" + bytes([kept]), b"v" * (5 << 20))])
        kept += 1
except CapacityError as error:
    print("cannot grow" in str(error), kept > 4)
storage.commit([(b"\\x0a", b"2")])
print(storage.get([b"\\x0a"]), sum(1 for _ in storage.scan([(b"\\x0b", b"\\x0c")])) == kept)
"""
        assert result(spawn(code, path)).split("\n") == ["True True", "[b'2'] True"]

    def test_at_the_limit(self, open_log, monkeypatch):
        monkeypatch.setattr(lmdb_env, "_MAX_MAP_BYTES", 1 << 21)
        storage = open_log(map_size_bytes=1)
        with pytest.raises(CapacityError, match="nothing was written"):
            storage.commit([(A, b"v" * 10_000_000)])
        storage.commit([(A, b"small")])
        assert storage.get([A]) == [b"small"]


class TestPlaces:
    def test_a_file(self, open_log, path):
        path.write_text("notes")
        with pytest.raises(FormatError, match="is a file"):
            open_log()
        assert path.read_text() == "notes"

    def test_below_a_file(self, open_log, path):
        path.write_text("notes")
        with pytest.raises(StorageError, match="cannot be opened"):
            open_log(path / "log")

    @pytest.mark.parametrize("text", [b"hello", b"x" * 20_000])
    @pytest.mark.parametrize("readonly", [False, True])
    def test_a_text_file_as_data(self, open_log, path, text, readonly):
        path.mkdir()
        (path / "data.mdb").write_bytes(text)
        with pytest.raises(FormatError, match="not an LMDB file"):
            open_log(readonly=readonly)
        assert [file.name for file in path.iterdir()] == ["data.mdb"]

    @pytest.mark.parametrize("readonly", [False, True])
    @pytest.mark.parametrize("name", [None, b"other", b"meta"])
    def test_somebody_elses_lmdb(self, open_log, path, readonly, name):
        with lmdb.open(str(path), max_dbs=4) as env, env.begin(write=True) as txn:
            txn.put(b"theirs", b"1", db=None if name is None else env.open_db(name, txn=txn))
        with pytest.raises(FormatError, match="no record of a log"):
            open_log(readonly=readonly)
        with lmdb.open(str(path), max_dbs=4) as env, env.begin() as txn:
            assert len(list(txn.cursor())) == 1

    @pytest.mark.parametrize("readonly", [False, True])
    def test_a_newer_format(self, open_log, path, readonly):
        open_log().close()
        with lmdb.open(str(path), max_dbs=300) as env, env.begin(write=True) as txn:
            txn.put(b"format", b"eventlog 3", db=env.open_db(b"meta", txn=txn))
        with pytest.raises(FormatError, match=r"version 3 .* reads up to 2; upgrade"):
            open_log(readonly=readonly)

    def test_lmdbs_own_newer_format(self, open_log, path):
        open_log().close()
        raw = bytearray((path / "data.mdb").read_bytes())
        struct.pack_into("=I", raw, 20, 3)
        (path / "data.mdb").write_bytes(raw)
        with pytest.raises(FormatError, match="data format 3"):
            open_log()

    def test_an_empty_data_file_is_a_creation_that_was_killed(self, open_log, path):
        path.mkdir()
        (path / "data.mdb").touch()
        open_log().commit([(A, b"1")])

    @pytest.mark.parametrize("readonly", [False, True])
    def test_a_short_but_sound_file_is_not_refused(self, open_log, path, readonly):
        storage = open_log()
        has_bytes, need_bytes = leave_short(storage, path)
        assert has_bytes < need_bytes
        pairs = list(storage.scan([ALL_A]))
        storage.close()
        again = open_log(readonly=readonly)
        assert list(again.scan([ALL_A])) == pairs
        again.close()
        os.truncate(path / "data.mdb", has_bytes // 2)
        with pytest.raises(CorruptionError, match="cut short"):
            open_log(readonly=readonly)

    def test_a_commit_leaves_no_short_file(self, open_log, path):
        storage = open_log()
        leave_short(storage, path)
        storage.commit([(A, b"")])
        has_bytes, need_bytes = length_bytes(path / "data.mdb")
        assert has_bytes >= need_bytes

    @pytest.mark.parametrize("readonly", [False, True])
    @pytest.mark.parametrize("kept", [40, 100, 4096, 4200, 8192, 200_000, -4096, -1])
    def test_a_truncated_file(self, open_log, path, kept, readonly):
        storage = open_log()
        storage.commit([(A + bytes([n]), b"v" * 3000) for n in range(256)])
        storage.close()
        data = path / "data.mdb"
        os.truncate(data, kept if kept > 0 else data.stat().st_size + kept)
        with pytest.raises(CorruptionError, match=r"cut short|second page"):
            open_log(readonly=readonly)

    def test_damaged_pages_are_reported_and_do_not_kill(self, path):
        LmdbStorage(path).close()
        code = """
storage = LmdbStorage(path)
storage.commit([(b"\\x0a" + n.to_bytes(2, "big"), b"v" * 300) for n in range(2000)])
storage.close()
with open(path + "/data.mdb", "r+b") as file:
    size = file.seek(0, 2)
    for page in range(24, size // 4096):
        file.seek(page * 4096 + 10)
        file.write(b"\\0\\0")
for readonly in (True, False):
    try:
        storage = LmdbStorage(path, readonly=readonly)
        print(len(list(storage.scan([(b"\\x0a", b"\\x0b")]))))
    except EventLogError as error:
        print(type(error).__name__)
"""
        assert set(result(spawn(code, path)).split()) == {"CorruptionError"}

    def test_a_link_as_lock_is_refused(self, open_log, path, tmp_path):
        path.mkdir()
        (tmp_path / "victim").write_text("victim")
        (path / "write.lock").symlink_to(tmp_path / "victim")
        with pytest.raises(StorageError, match="symbolic link"):
            open_log()
        assert (tmp_path / "victim").read_text() == "victim"

    def test_data_deleted_underneath(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
        with pytest.raises(StorageError, match=r"deleted or replaced.*nothing was written"):
            storage.commit([(A, b"2")])
        with pytest.raises(StorageError, match="cannot be read"):
            storage.size_bytes()

    def test_data_replaced_underneath(self, open_log, path):
        storage = open_log()
        storage.commit([(A, b"1")])
        path.rename(path.with_name("moved"))
        new = open_log()
        new.commit([(A, b"new")])
        with pytest.raises(StorageError, match="deleted or replaced"):
            storage.commit([(A, b"2")])
        assert (storage.get([A]), new.get([A])) == ([b"1"], [b"new"])

    def test_opened_by_lmdb_itself_in_this_process(self, open_log, path):
        open_log().close()
        with lmdb.open(str(path)), pytest.raises(StorageError, match="already open"):
            open_log()
        open_log().commit([(A, b"1")])


class TestReadonly:
    @pytest.mark.parametrize("make", [False, True])
    def test_no_log_there(self, open_log, path, make):
        if make:
            path.mkdir()
        with pytest.raises(FormatError, match="no log at"):
            open_log(readonly=True)
        assert path.exists() == make

    def test_it_reads_and_refuses_to_write(self, open_log):
        storage = open_log()
        storage.commit([(A, b"1")])
        storage.close()
        reader = open_log(readonly=True)
        assert reader.get([A, b"\xfe"]) == [b"1", None]
        assert list(reader.scan([ALL_A])) == [(A, b"1")]
        with pytest.raises(StorageError, match=r"readonly.*nothing was written"):
            reader.commit([(A, b"2")])

    def test_it_sees_what_another_process_commits(self, open_log, path):
        open_log(map_size_bytes=1).close()
        reader = open_log(readonly=True, map_size_bytes=1)
        result(spawn("LmdbStorage(path).commit([(b'\\x0a', b'v' * 8_000_000)])", path))
        assert len(reader.get([A])[0]) == 8_000_000


class TestFailures:
    def test_a_full_disk_is_said_and_harms_nothing(self, path):
        code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
storage = LmdbStorage(path)
storage.commit([(b"\\x0a", b"1")])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    storage.commit([(b"\\x0a", b"v" * (4 << 20))])
except StorageError as error:
    print("nothing was written" in str(error))
print(storage.get([b"\\x0a"]))
storage.commit([(b"\\x0a", b"2")])
print(storage.get([b"\\x0a"]))
storage.close()
print(LmdbStorage(path).get([b"\\x0a"]))
"""
        assert result(spawn(code, path)).split("\n") == ["True", "[b'1']", "[b'2']", "[b'2']"]

    def test_no_space_is_a_capacity_error(self, open_log, monkeypatch):
        storage = open_log()
        real = storage._shared._env
        storage._shared._env = FailingEnv(real, lmdb.DiskError("mdb_txn_commit: No space left on device"))
        with pytest.raises(CapacityError, match=r"disk is full.*nothing was written"):
            storage.commit([(A, b"1")])
        storage._shared._env = real
        storage.commit([(A, b"1")])

    def test_an_exception_inside_aborts(self, open_log):
        storage = open_log()
        with pytest.raises(TypeError):
            storage.commit([(A, b"1"), (B, "not bytes")])
        assert storage.get([A]) == [None]
        storage.commit([(A, b"2")])

    def test_an_expectation_leaves_the_lock_free(self, open_log):
        storage = open_log(lock_timeout_s=1)
        with pytest.raises(ExpectationError):
            storage.commit([], expect={A: b"1"})
        assert result(spawn("LmdbStorage(path, lock_timeout_s=1).commit([(b'\\x0a', b'1')])", storage.location)) == ""


class FailingEnv:
    """An environment whose next transaction cannot be committed."""

    def __init__(self, env, error):
        self.env, self.error = env, error

    def begin(self, **options):
        return FailingTransaction(self.env.begin(**options), self.error)


class FailingTransaction:
    def __init__(self, txn, error):
        self.txn, self.error = txn, error

    def __getattr__(self, name):
        return getattr(self.txn, name)

    def commit(self):
        self.txn.abort()
        raise self.error
