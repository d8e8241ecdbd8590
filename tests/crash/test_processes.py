"""Several processes, threads and forks on one log at once; folds happen all the time."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import EventLog
from eventlog.errors import BusyError, CapacityError, ClosedError, EventLogError, ExpectationError, StorageError
from eventlog.storage import local, open_storage
from eventlog.storage.journal import LocalFiles
from eventlog.storage.lmdb import LmdbStorage
from eventlog.storage.local import LocalStorage
from savers import Checkpoint, CheckpointConfig, CheckpointMetadata, EventLogSaver, JsonPlusSerde
from tests.counting import patience
from tests.crash.workload import (
    DEEP,
    batch_of,
    checked,
    child,
    count,
    go_on,
    number,
    reopened,
    shrink,
    state,
)

if TYPE_CHECKING:
    import subprocess


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    shrink(monkeypatch.setattr)
    monkeypatch.setattr(local, "FLUSH_INTERVAL_S", 0.002)


@pytest.fixture
def start():
    """A function that starts a child; all are ended with the test."""
    children: list[subprocess.Popen[str]] = []

    def started(role: str, *args: object) -> subprocess.Popen[str]:
        children.append(child("role_child.py", role, *args))
        return children[-1]

    yield started
    for each in children:
        each.kill()
        each.communicate()


def go(*children: subprocess.Popen[str]) -> None:
    for each in children:
        assert each.stdout.readline() == "ready\n"
    for each in children:
        each.stdin.write("go\n")
        each.stdin.flush()


def said(process: subprocess.Popen[str]) -> list[str]:
    lines = process.communicate(timeout=60)[0].split("\n")[:-1]
    assert process.returncode == 0
    return lines


class TestWriters:
    @pytest.mark.parametrize("mode", ["full", "normal"])
    def test_of_one_run_each_step_has_one_winner(self, tmp_path, start, mode):
        each = 60 * DEEP
        writers = [start("contend", tmp_path / "log", mode, each, f"w{n}") for n in range(3)]
        go(*writers)
        won = [line.split() for writer in writers for line in said(writer)]
        assert sorted(int(step) for step, _ in won) == list(range(3 * each))
        log = EventLog(reopened(tmp_path / "log"))
        assert {(str(event.step), event.id) for event in log.run("shared").events()} == {tuple(line) for line in won}
        assert list(log.verify()) == []
        log.close()

    def test_of_different_runs_never_disturb_each_other(self, tmp_path, start):
        writers = [start("alone", tmp_path / "log", "normal", 120 * DEEP, n) for n in range(3)]
        go(*writers)
        for writer in writers:
            assert said(writer) == [str(n) for n in range(120 * DEEP)]
        log = EventLog(reopened(tmp_path / "log"))
        assert [len(log.run(f"run {n}")) for n in range(3)] == [120 * DEEP] * 3
        assert list(log.verify()) == []
        log.close()

    @pytest.mark.parametrize("readonly", [False, True])
    def test_readers_beside_them_see_growing_prefixes_with_all_that_was_acknowledged(self, tmp_path, start, readonly):
        reopened(tmp_path / "log").close()
        turns = 25 * DEEP
        writers = [start("write", tmp_path / "log", "normal", turns) for _ in range(2)]
        reader = reopened(tmp_path / "log", readonly=readonly)
        go(*writers)
        acked, seen, looks = 0, 0, 0
        streams = {writer.stdout.fileno(): b"" for writer in writers}
        while streams:
            if looks < turns:  # one for each look, so they cannot be done before this one has looked so often
                for writer in writers:
                    os.write(writer.stdin.fileno(), b"turn\n")
            for fd in select.select(list(streams), [], [], 0)[0]:
                data = os.read(fd, 1 << 16)
                if not data:
                    del streams[fd]
                    continue
                *lines, streams_rest = (streams[fd] + data).split(b"\n")
                streams[fd] = streams_rest
                acked = max([acked, *map(int, lines)])
            n = count(reader)
            assert n >= max(acked, seen)
            seen, looks = n, looks + 1
            some = state(n)
            assert (
                reader.get([key for key, _ in some if key[:1] == b"\x0b"]) == [v for k, v in some if k[:1] == b"\x0b"]
                or count(reader) > n
            )
        assert checked(reader) == 500 * DEEP
        assert looks >= turns
        reader.close()

    def test_what_one_process_committed_another_one_sees_at_once(self, tmp_path, start):
        here = reopened(tmp_path / "log")
        there = start("answer", tmp_path / "log", "normal")
        assert there.stdout.readline() == "ready\n"
        for n in range(1, 200 * DEEP, 2):
            assert go_on(here) == n
            there.stdin.write("go\n")
            there.stdin.flush()
            assert there.stdout.readline() == f"{n + 1}\n"
            assert count(here) == n + 1
        checked(here)
        here.close()

    def test_one_that_is_killed_holding_the_lock_holds_up_nobody(self, tmp_path, start):
        here = reopened(tmp_path / "log")
        holder = start("hold", tmp_path / "log", "normal")
        assert holder.stdout.readline() + holder.stdout.readline() == "ready\nheld\n"
        holder.send_signal(signal.SIGSTOP)
        stopped = reopened(tmp_path / "log", lock_timeout_s=0.2)
        begin = time.monotonic()
        with pytest.raises(BusyError):
            go_on(stopped)
        assert 0.15 < time.monotonic() - begin < 20  # by default it waits 30
        assert checked(here) == 0  # reading waits for nobody
        holder.kill()
        assert go_on(here) == 1
        assert go_on(stopped) == 2
        here.close()
        stopped.close()


class TestOff:
    def test_excludes_others(self, tmp_path, start):
        there = start("idle", tmp_path / "log", "off")
        assert there.stdout.readline() == "ready\n"
        with pytest.raises(BusyError):
            reopened(tmp_path / "log", "off", lock_timeout_s=0.1)
        with suppress(BusyError):
            here = reopened(tmp_path / "log", "normal", lock_timeout_s=0.1)
            with pytest.raises(BusyError):
                go_on(here)
            here.close()
        said(there)
        here = reopened(tmp_path / "log", "off", lock_timeout_s=0.1)
        assert go_on(here, 100) == checked(here)
        here.close()

    def test_who_is_refused_leaves_the_journal_as_it_is(self, tmp_path):
        here = reopened(tmp_path / "log", "off")
        go_on(here, 3)
        here.flush()
        with pytest.raises(BusyError):
            reopened(tmp_path / "log", "off", lock_timeout_s=0)
        here.commit([(b"\x20", b"v")])  # nothing is read before
        here.close()
        again = reopened(tmp_path / "log")
        assert checked(again) == 3
        assert again.get([b"\x20"]) == [b"v"]
        again.close()

    def test_a_child_of_a_fork_is_excluded_however_often_it_tries(self, tmp_path):
        here = reopened(tmp_path / "log", "off", lock_timeout_s=0.1)
        go_on(here, 3)
        assert in_child(lambda: [outcome(lambda: go_on(here)) for _ in range(3)]) == str(["BusyError"] * 3)
        assert go_on(here) == 4 == checked(here)
        here.close()

    def test_expectations_hold_among_threads(self, tmp_path):
        here = reopened(tmp_path / "log", "off")
        increments(here, threads=4, each=150)
        here.close()

    def test_what_is_written_first_goes_behind_what_another_one_left_in_the_journal(self, tmp_path):
        other = reopened(tmp_path / "log", "full")
        n = go_on(other, 3)
        here = reopened(tmp_path / "log", "off")
        here.commit([(b"\x20", b"v")])  # nothing is read before
        here.close()
        assert checked(other) == n
        assert other.get([b"\x20"]) == [b"v"]
        other.close()

    def test_no_position_comes_again_whenever_another_thread_asks_for_it(self, tmp_path):
        here, then = reopened(tmp_path / "log", "off"), []

        class Words(list):
            """The words of the header, beside a thread that asks for the position when the end has just moved."""

            def __setitem__(self, place, word):
                super().__setitem__(place, word)
                then.append(here.position())

        here._words, n = Words(here._words), 0
        while not then:
            here.commit([(b"\x20" + number(n := n + 1), bytes(2000))])
        for _ in range(2 * n):
            here.commit([(b"\x20" + number(n := n + 1), bytes(2000))])
            assert here.position() > then[-1]
        here.close()


def outcome(call) -> str:
    try:
        return str(call())
    except Exception as error:  # noqa: BLE001 (what it is, is the question)
        return type(error).__name__


def raising(error: BaseException):
    """A function that raises it."""

    def call(*_: object) -> None:
        raise error

    return call


def in_child(call, timeout_s: float = 60.0) -> str:
    """What `call` returns in the child of a fork; nothing there runs pytest's own ending."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            os.write(write, outcome(call).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        assert select.select([read], [], [], timeout_s)[0], "the child hangs"
        return os.read(read, 1 << 16).decode()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)


def increments(storage, threads: int, each: int) -> None:
    """Every thread counts up one number, by what it expects: dense, each once."""

    def run() -> list[int]:
        won = []
        while len(won) < each:
            n = count(storage) + 1
            with suppress(ExpectationError):
                storage.commit(*batch_of(n))
                won.append(n)
        return won

    with ThreadPoolExecutor(threads) as pool:
        results = [pool.submit(run) for _ in range(threads)]
        won = sorted(n for result in results for n in result.result(60))
    assert won == list(range(1, threads * each + 1))
    assert checked(storage) == threads * each


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestFork:
    @pytest.mark.parametrize("mode", ["full", "normal"])
    def test_parent_and_child_write_and_see_each_other(self, tmp_path, mode):
        here = reopened(tmp_path / "log", mode)
        n = go_on(here, 20)
        for _ in range(5 * DEEP):
            assert in_child(lambda: go_on(here, 20)) == str(n + 20)
            assert checked(here) == n + 20
            n = go_on(here, 20)
            assert in_child(lambda: (count(here), checked(here), here.close())[0]) == str(n)
            assert go_on(here) == n + 1
            n += 1
        here.close()

    @pytest.mark.parametrize("mode", ["full", "normal"])
    def test_where_a_flush_failed_meanwhile_the_child_brings_all_to_the_disk_and_goes_on(self, tmp_path, mode):
        here = reopened(tmp_path / "log", mode)
        n = go_on(here, 20)
        here._head.note_failed(failed=True)  # as the flush of another process does
        assert in_child(lambda: (checked(here), here.close())[0]) == str(n)
        with suppress(StorageError):
            here.close()
        again = reopened(tmp_path / "log", mode)
        assert go_on(again) == n + 1
        again.close()

    def test_a_child_that_was_interrupted_while_it_opened_the_log_anew_does_not_wait_for_itself(
        self, tmp_path, monkeypatch
    ):
        here = reopened(tmp_path / "log", "off", lock_timeout_s=0.1)
        go_on(here, 3)
        here.flush()
        here.inherit()  # as in the child of a process that is gone
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "_restart", raising(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                checked(here)
        assert go_on(here) == 4 == checked(here)
        here.close()

    def test_a_child_that_could_not_bring_all_to_the_disk_flushes_once_another_process_did(self, tmp_path, monkeypatch):
        monkeypatch.setattr(local, "FLUSH_INTERVAL_S", 3600)  # its worker does nothing by itself
        here = reopened(tmp_path / "log")
        n = go_on(here, 3)
        here._head.note_failed(failed=True)  # as the flush of another process does
        here.inherit()
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "_fold", raising(CapacityError("full")))
            with pytest.raises(CapacityError):
                checked(here)
        here._head.note_failed(failed=False)
        assert go_on(here) == n + 1
        assert not here.is_flushed()
        here._work()
        assert here.is_flushed()
        here.close()

    def test_while_another_thread_commits(self, tmp_path):
        here = reopened(tmp_path / "log")
        stop = threading.Event()

        def write() -> int:
            n = 0
            while not stop.is_set():
                n += 1
                here.commit([(b"\x20" + number(n), number(n))])
            return n

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                for n in range(30 * DEEP):
                    assert in_child(lambda: go_on(here, 2)) == str(2 * n + 2)
            finally:
                stop.set()
            last = writing.result(60)
        assert len(list(here.scan([(b"\x20", b"\x21")]))) == last
        assert checked(here) == 60 * DEEP
        here.close()

    @pytest.mark.parametrize("location", ["memory:", "{}/log", "sqlite:///{}/log.db"])
    def test_a_child_uses_a_saver_within_which_a_thread_of_the_parent_was(self, tmp_path, location):
        is_within, go_on = threading.Event(), threading.Event()

        class Slow(JsonPlusSerde):
            def encode(self, value, path="value"):
                if value == "slow":
                    is_within.set()
                    go_on.wait(60.0)
                return super().encode(value, path)

        with EventLogSaver(location.format(tmp_path), serde=Slow()) as saver:
            first, last = Checkpoint.new({"n": 1}), Checkpoint.new({"n": 2})
            at = saver.put(CheckpointConfig("t"), first, CheckpointMetadata("loop", 0))
            slow = (at, Checkpoint.new({"n": "slow"}), CheckpointMetadata("loop", 1))
            with ThreadPoolExecutor(1) as pool:
                putting = pool.submit(saver.put, *slow)
                assert is_within.wait(60.0)
                try:
                    seen = in_child(lambda: saver.get_tuple(CheckpointConfig("t")).checkpoint.id, 20.0)
                    assert seen == first.id
                    ours = in_child(lambda: saver.put(at, last, CheckpointMetadata("loop", 1)).checkpoint_id, 20.0)
                    assert ours == last.id
                finally:
                    go_on.set()
                putting.result(60)
            assert saver.get_tuple(CheckpointConfig("t", slow[1].id)).checkpoint.channel_values == {"n": "slow"}
            if location != "memory:":  # whose children have each a copy of their own
                assert saver.get_tuple(CheckpointConfig("t", last.id)).checkpoint.channel_values == {"n": 2}
            assert list(saver.log.verify()) == []

    def test_a_child_that_never_uses_it_takes_nothing_away(self, tmp_path):
        here = reopened(tmp_path / "log")
        go_on(here, 5)
        assert in_child(here.close) == "None"
        assert go_on(here, 5) == 10
        here._lock.acquire(1.0)
        other = reopened(tmp_path / "log", lock_timeout_s=0.1)
        in_child(here.close)
        with pytest.raises(BusyError):
            go_on(other)
        other.close()
        here._lock.release()
        here.close()

    def test_while_another_thread_opens_and_closes(self, tmp_path):
        here, there, opened = reopened(tmp_path / "log"), reopened(tmp_path / "there"), []

        def turn() -> None:
            opened.append(reopened(tmp_path / "other"))
            there.close()

        local._before_fork()
        thread = threading.Thread(target=turn)
        thread.start()
        thread.join(0.2)
        local._after_fork_in_parent()
        thread.join(60.0)
        for each in (here, *opened):
            assert not each._state.locked()
            assert go_on(each) == 1
            each.close()
        assert not there._state.locked()


@pytest.mark.parametrize(("location", "step"), [("{}/log", "_is_at_rest"), ("sqlite:///{}/log.db", "is_flushed")])
def test_closing_is_no_error_where_another_thread_closes_at_that_moment(tmp_path, monkeypatch, location, step):
    here = open_storage(location.format(tmp_path))
    here.commit([(b"\x20", b"v")])
    then = getattr(here, step)

    def before_another_thread() -> Any:
        monkeypatch.setattr(here, step, then)
        found = then()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(here.close).result(60)
        return found

    monkeypatch.setattr(here, step, before_another_thread)
    here.close()
    again = open_storage(location.format(tmp_path))
    assert again.get([b"\x20"]) == [b"v"]
    again.close()


class HaltingFiles(LocalFiles):
    """Files of which one call, once it is armed, waits, and then looks whether its descriptor is still that file's."""

    def __init__(self, call: str) -> None:
        self.call = call
        self.is_armed = self.is_same = False
        self.reached, self.go_on = threading.Event(), threading.Event()

    def _halt(self, call: str, fd: int) -> None:
        if self.is_armed and call == self.call:
            self.is_armed, before = False, os.fstat(fd).st_ino
            self.reached.set()
            self.go_on.wait(60.0)
            self.is_same = os.fstat(fd).st_ino == before

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._halt("write", fd)
        super().write(fd, data, offset)

    def read(self, fd: int, offset: int, size: int) -> bytes:
        self._halt("read", fd)
        return super().read(fd, offset, size)

    def sync(self, fd: int) -> None:
        self._halt("sync", fd)
        super().sync(fd)


def open_files(directory: Path) -> list[str]:
    """The numbered files of a journal that this process has open; mapped ones do not count."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(fd.readlink())
    return [path.name for path in found if path.parent == directory and path.name.isdigit()]


class TestClose:
    """Descriptors are closed when nobody is at them: their numbers may be another file's at once."""

    @pytest.mark.parametrize(
        ("mode", "call"), [("full", "write"), ("full", "sync"), ("off", "write"), ("normal", "read")]
    )
    def test_waits_for_a_thread_that_is_at_a_file(self, tmp_path, monkeypatch, mode, call):
        monkeypatch.setattr(LocalStorage, "_leave_folded", lambda storage: None)  # that is done, and more came
        monkeypatch.setattr(local, "_SPILL_BYTES", 1)
        files = HaltingFiles(call)
        storage = reopened(tmp_path / "log", mode, files=files)
        if mode == "normal":
            other = reopened(tmp_path / "log")
            go_on(other)
            other.close()
        files.is_armed = True
        with ThreadPoolExecutor(2) as pool:
            working = pool.submit(outcome, lambda: count(storage) if call == "read" else go_on(storage, 2))
            assert files.reached.wait(60.0)
            closing = pool.submit(storage.close)
            time.sleep(0.05)
            files.go_on.set()
            closing.result(60.0)
            assert working.result(60.0) in {"1", "2", "ClosedError"}
        assert files.is_same
        assert not open_files(tmp_path / "log" / "journal")
        again = reopened(tmp_path / "log", "full")
        assert go_on(again) == checked(again)
        again.close()

    def test_what_was_acknowledged_meanwhile_is_there(self, tmp_path):
        for mode in ("full", "normal", "off"):
            storage = reopened(tmp_path / mode, mode)
            acknowledged = []

            def write(kind: int) -> None:
                with suppress(ClosedError):
                    for n in range(1 << 30):
                        key = bytes([kind]) + number(n)
                        storage.commit([(key, b"v" * 90)])  # noqa: B023 (it ends within the round)
                        acknowledged.append(key)  # noqa: B023 (as before)

            with ThreadPoolExecutor(4) as pool:
                writing = [pool.submit(write, kind) for kind in range(16, 20)]
                time.sleep(0.1)
                storage.close()
                for each in writing:
                    each.result(60.0)
            storage = reopened(tmp_path / mode)
            assert None not in storage.get(acknowledged)
            storage.close()

    @pytest.mark.parametrize("mode", ["full", "off"])
    def test_begins_no_work_that_goes_on_behind_it(self, tmp_path, monkeypatch, mode):
        storage = reopened(tmp_path / "log", mode)
        assert go_on(storage) == 1
        monkeypatch.setattr(local, "Worker", None)  # to make one is an error
        storage.close()
        again = reopened(tmp_path / "log", mode)
        assert checked(again) == 1
        again.close()

    def test_leaves_to_others_what_they_are_at(self, tmp_path):
        storage = reopened(tmp_path / "log", "full", lock_timeout_s=0)
        assert go_on(storage) == 1
        with (tmp_path / "log" / "write.lock").open() as other:  # as another process has it that folds
            fcntl.flock(other, fcntl.LOCK_EX)
            storage.close()
        again = reopened(tmp_path / "log", "full")
        assert checked(again) == 1
        again.close()


class SlowFiles(LocalFiles):
    """A disk on which a flush takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def sync(self, fd: int) -> None:
        time.sleep(self.seconds)
        super().sync(fd)


class PatientFiles(LocalFiles):
    """A disk on which a flush ends when the test lets it: how many there are is no matter of time then."""

    def __init__(self) -> None:
        self.syncs = 0
        self.may_end = lambda: True

    def sync(self, fd: int) -> None:
        self.syncs += 1
        deadline = time.monotonic() + 60
        while not self.may_end():
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        super().sync(fd)


def until_sealed(storage: LocalStorage) -> int:
    """Commit until a file is to be folded, and no further: who waits for a fold then waits with few files."""
    n = 0
    while len(storage._layers) == 1:
        n += 1
        storage.commit(*batch_of(n))
    return n


class TestThreads:
    def test_in_full_share_flushes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(local, "FILE_BYTES", 1 << 20)
        files, done = PatientFiles(), []
        storage = reopened(tmp_path / "log", "full", files=files)
        files.may_end = lambda: len(storage._shared._waiters) + len(done) >= 7  # of eight, and one flushes

        def write(kind: int) -> None:
            for n in range(25):
                storage.commit([(bytes([kind]) + number(n), b"v")])
            done.append(kind)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(16, 24)))
        assert 200 / files.syncs >= 3
        storage.close()

    @pytest.mark.parametrize("mode", ["full", "normal", "off"])
    def test_flush_seal_and_fold_at_once(self, tmp_path, mode):
        """A slow flush of a file that is folded and removed meanwhile is no failure."""
        storage = reopened(tmp_path / "log", mode, files=SlowFiles(0.002))

        def write(kind: int) -> None:
            for n in range(100 * DEEP):
                storage.commit([(bytes([kind]) + number(n), b"v" * 90)], expect={bytes([kind]) + number(n): None})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(16, 24)))
        for kind in range(16, 24):
            assert len(list(storage.scan([(bytes([kind]), bytes([kind + 1]))]))) == 100 * DEEP
        storage.close()

    @pytest.mark.parametrize("mode", ["full", "normal"])
    def test_who_commits_waits_for_no_fold_that_stands_still(self, tmp_path, monkeypatch, mode):
        """Writers stand aside while a fold puts a slice; others may keep it from that for as long as they like."""
        storage, stands, goes_on = reopened(tmp_path / "log", mode), threading.Event(), threading.Event()
        fold, waits = LmdbStorage.fold, list[bool]()

        def halting(self, changes, mark, slices):
            def halted(puts):
                for some in slices(puts):
                    stands.set()
                    waits.append(goes_on.wait(20))
                    goes_on.set()
                    yield some

            is_workers = threading.current_thread().name.startswith("eventlog")
            fold(self, changes, mark, halted if is_workers else slices)

        monkeypatch.setattr(LmdbStorage, "fold", halting)
        monkeypatch.setattr(local, "MAX_SEALED", 100)
        n = until_sealed(storage)
        assert stands.wait(20)
        for later in range(n + 1, n + 51):
            storage.commit(*batch_of(later))
        goes_on.set()
        storage.close()
        assert all(waits)
        again = reopened(tmp_path / "log", mode)
        assert checked(again) == n + 50
        again.close()

    @pytest.mark.parametrize("act", ["fork", "close"])
    def test_nobody_waits_for_a_fold_that_rests(self, tmp_path, monkeypatch, act):
        storage, rests, slices = reopened(tmp_path / "log", "normal"), threading.Event(), LocalStorage._slices

        def noticed(self, pairs):
            for some in slices(self, pairs):
                yield some
                rests.set()

        monkeypatch.setattr(LocalStorage, "_slices", noticed)
        monkeypatch.setattr(local, "_SLICE_REST_S", 3600)
        monkeypatch.setattr(local, "MAX_SEALED", 100)
        n = until_sealed(storage)
        assert rests.wait(20)
        with patience(20):
            if act == "fork":
                assert in_child(lambda: 1) == "1"
            storage.close()
        again = reopened(tmp_path / "log")
        assert checked(again) == n
        again.close()

    @pytest.mark.parametrize("mode", ["full", "normal"])
    def test_expectations_hold_among_handles_and_threads(self, tmp_path, mode):
        first, second = reopened(tmp_path / "log", mode), reopened(tmp_path / "log", mode)
        with ThreadPoolExecutor(2) as pool:

            def run(storage) -> int:
                won = 0
                while won < 200:
                    with suppress(ExpectationError):
                        storage.commit(*batch_of(count(storage) + 1))
                        won += 1
                return won

            assert list(pool.map(run, [first, second])) == [200, 200]
        assert checked(first) == checked(second) == 400
        first.close()
        second.close()


class TestLongLived:
    def test_a_reader_gives_back_the_files_that_others_fold(self, tmp_path):
        writer = reopened(tmp_path / "log")
        reader = reopened(tmp_path / "log", readonly=True)
        begin = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(300):
            go_on(writer)
            assert count(reader) == count(writer)
            writer._fold()
        assert len(list(Path("/proc/self/fd").iterdir())) - begin < 12
        writer.close()
        reader.close()

    def test_a_file_that_is_removed_while_a_reader_opens_it_is_no_damage(self, tmp_path):
        writer = reopened(tmp_path / "log")
        go_on(writer, 3)

        class Late(LocalFiles):
            armed = False

            def open(self, path: Path, *, writable: bool, create: bool = False) -> int:
                if self.armed:  # between the look whether it is there and the opening
                    self.armed = False
                    go_on(writer, 30)
                    writer._fold()
                return super().open(path, writable=writable, create=create)

        files = Late()
        reader = reopened(tmp_path / "log", files=files)
        files.armed = True
        assert checked(reader) == 33
        assert go_on(reader) == 34 == checked(writer)
        reader.close()
        writer.close()


class TestDirectory:
    @pytest.mark.parametrize("mode", ["full", "normal"])
    @pytest.mark.parametrize("how", ["deleted", "moved and begun anew"])
    def test_gone_underneath_nothing_is_acknowledged_as_safe(self, tmp_path, mode, how):
        """In `full` at once; in `normal` by the next flush, which comes at the latest within a second."""
        storage = reopened(tmp_path / "log", mode)
        go_on(storage, 3)
        if how == "deleted":
            shutil.rmtree(tmp_path / "log")
        else:
            (tmp_path / "log").rename(tmp_path / "elsewhere")
            reopened(tmp_path / "log").close()
        if mode == "normal":
            with suppress(StorageError):  # a background flush may have come first
                storage.commit(*batch_of(4))
        with pytest.raises(StorageError, match="open the log again"):
            storage.commit(*batch_of(4)) if mode == "full" else storage.flush()
        with pytest.raises(StorageError, match="open the log again"):
            storage.commit(*batch_of(5))
        with suppress(EventLogError):
            storage.close()

    def test_moved_right_after_a_flush_looked_for_it_what_is_committed_then_is_left_to_the_next_one(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(LocalStorage, "_wake", lambda storage: None)  # no other flush
        storage = reopened(tmp_path / "log")
        go_on(storage, 3)
        look = storage._check_place

        def looked() -> None:
            monkeypatch.setattr(storage, "_check_place", look)
            look()
            (tmp_path / "log").rename(tmp_path / "elsewhere")
            reopened(tmp_path / "log").close()
            storage.commit(*batch_of(4))

        monkeypatch.setattr(storage, "_check_place", looked)
        storage.flush()
        with pytest.raises(StorageError, match="open the log again"):
            storage.flush()
        with suppress(EventLogError):
            storage.close()


class Overheard:
    """The words of a journal's header; whenever the end moves, another thread reads at once."""

    def __init__(self, storage) -> None:
        self.words, self.storage = storage._words, storage
        self.readers: list[threading.Thread] = []

    def __getitem__(self, index):
        return self.words[index]

    def __setitem__(self, index, value) -> None:
        self.words[index] = value
        reader = threading.Thread(target=self.storage.get, args=([b"\x20"],))
        reader.start()
        reader.join(0.02)
        self.readers.append(reader)


def test_who_reads_while_a_file_is_sealed_takes_nothing_away(tmp_path):
    storage = reopened(tmp_path / "log", "normal")
    storage._words = overheard = Overheard(storage)
    pairs = [(b"\x20" + number(n), b"v" * 200) for n in range(60)]
    for pair in pairs:
        storage.commit([pair])
    storage._words = overheard.words
    for reader in overheard.readers:
        reader.join()
    storage._fold()
    assert list(storage.scan([(b"\x20", b"\x21")])) == pairs
    storage.close()
