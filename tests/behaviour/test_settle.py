"""Flushes that are shared, commits that settle later, and keys that are known to be absent without a look at LMDB."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventlog import EventLog
from eventlog.errors import BusyError, ClosedError, ExpectationError, StorageError
from eventlog.storage import local
from eventlog.storage.journal import LocalFiles
from eventlog.storage.lmdb import LmdbStorage
from eventlog.storage.local import LocalStorage
from tests.counting import patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[..., LocalStorage]

KEY = b"A12345678"


class Files(LocalFiles):
    """The machine's files; knows what a flush that returned has brought to stable storage, and how many there were."""

    def __init__(self) -> None:
        self.safe: dict[int, bytes] = {}
        self.syncs = 0  # that somebody waited for
        self.at_sync: Callable[[], None] = lambda: None

    def sync(self, fd: int) -> None:
        self.syncs += not threading.current_thread().name.startswith("eventlog")
        content = self.read(fd, 0, 1 << 30)  # what is written from now on, this flush need not bring there
        self.at_sync()
        super().sync(fd)
        self.safe[os.fstat(fd).st_ino] = content

    def holds(self, data: bytes) -> bool:
        return any(data in content for content in list(self.safe.values()))  # others flush meanwhile


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def open_log(tmp_path: Path, files: Files) -> Iterator[Open]:
    """A function that opens the same directory again and again, on `files` unless told otherwise."""
    opened: list[LocalStorage] = []

    def open_again(mode: Any = "full", **options: Any) -> LocalStorage:
        opened.append(LocalStorage(tmp_path / "log", synchronous=mode, **{"files": files, **options}))
        return opened[-1]

    yield open_again
    for storage in opened:
        with suppress(StorageError):  # one whose flush failed
            storage.close()


@pytest.fixture
def full(open_log: Open, files: Files) -> LocalStorage:
    storage = open_log("full")
    storage.commit([(KEY, b"opened")])
    files.syncs = 0
    return storage


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who settles waits as long as it takes for somebody else's flush: then how many there are is no matter of time."""
    monkeypatch.setattr(local, "_PATIENCE_S", 30.0)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


@contextmanager
def held(storage: LocalStorage) -> Iterator[None]:
    """While another thread has the writers' lock."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(storage._lock.acquire, 1).result()
        try:
            yield
        finally:
            pool.submit(storage._lock.release).result()


# Every engine -----------------------------------------------------------------------------------------------------


class TestContract:
    def test_what_is_not_settled_is_there_as_anything(self, storage):
        storage.commit([(KEY, b"1")], is_settled=False)
        assert storage.get([KEY]) == [b"1"]
        storage.commit([(KEY, b"2")], expect={KEY: b"1"}, is_settled=False)
        with pytest.raises(ExpectationError):
            storage.commit([(KEY, b"3")], expect={KEY: b"1"}, is_settled=False)
        storage.settle()
        assert storage.get([KEY]) == [b"2"]

    def test_settling_needs_nothing_to_settle(self, storage):
        storage.settle()
        storage.settle()

    def test_what_was_not_settled_is_there_after_closing(self, reopen):
        storage = reopen()
        storage.commit([(KEY, b"1")], is_settled=False)
        storage.close()
        assert reopen().get([KEY]) == [b"1"]

    def test_a_closed_storage_settles_nothing(self, storage):
        storage.close()
        with pytest.raises(ClosedError):
            storage.settle()


# One thread -------------------------------------------------------------------------------------------------------


class TestOneThread:
    def test_a_settled_commit_is_flushed_when_it_returns(self, full, files):
        for n in range(20):
            full.commit([(KEY, b"<%d>" % n)])
            assert files.holds(b"<%d>" % n)
            assert full.is_flushed()
        assert files.syncs == 20

    def test_another_one_is_flushed_once_it_is_settled(self, full, files):
        full.commit([(KEY, b"<1>")], is_settled=False)
        assert files.syncs == 0
        assert not full.is_flushed()
        full.settle()
        assert files.holds(b"<1>")
        assert full.is_flushed()
        assert files.syncs == 1
        full.settle()
        assert files.syncs == 1, "there was nothing left"

    @pytest.mark.parametrize("settle", [lambda log: log.commit([(KEY, b"<9>")]), lambda log: log.flush()])
    def test_whatever_flushes_settles_all_before(self, full, files, settle):
        for n in range(5):
            full.commit([(KEY, b"<%d>" % n)], is_settled=False)
        settle(full)
        assert all(files.holds(b"<%d>" % n) for n in range(5))
        full.settle()
        assert files.syncs == 1

    def test_settling_alone_takes_no_longer_than_its_patience(self, full):
        began = time.monotonic()
        for n in range(10):
            full.commit([(KEY, b"%d" % n)], is_settled=False)
            full.settle()
        assert time.monotonic() - began < 10

    def test_over_several_files(self, open_log, files, monkeypatch):
        """A flush brings every file there that it does not find on stable storage."""
        monkeypatch.setattr(local, "FILE_BYTES", 100)
        monkeypatch.setattr(LocalStorage, "_wake", lambda storage: None)
        storage = open_log()
        for n in range(4):
            storage.commit([(KEY, b"<%d>" % n * 40)], is_settled=False)
        storage.settle()
        assert all(files.holds(b"<%d>" % n) for n in range(4))

    @pytest.mark.parametrize("mode", ["normal", "off"])
    def test_in_the_other_classes_nobody_waits_for_a_flush(self, open_log, files, mode):
        storage = open_log(mode)
        files.syncs = 0
        for n in range(20):
            storage.commit([(KEY, b"%d" % n)], is_settled=n % 2 == 0)
            storage.settle()
        assert files.syncs == 0

    def test_who_only_reads_has_nothing_to_settle(self, full, open_log, files):
        reader = open_log(readonly=True)
        full.commit([(KEY, b"<1>")], is_settled=False)
        reader.settle()
        assert files.syncs == 0


# Many threads -----------------------------------------------------------------------------------------------------


class TestManyThreads:
    @pytest.mark.parametrize("file_bytes", [1 << 20, 400])
    def test_what_was_acknowledged_is_flushed_and_flushes_are_shared(self, open_log, files, monkeypatch, file_bytes):
        """Folded is flushed, too."""
        monkeypatch.setattr(local, "FILE_BYTES", file_bytes)
        storage = open_log()
        files.syncs = 0
        threads, each, done = 8, 20, []
        # A flush takes until all others wait for the next one: then how many there are is no matter of time.
        files.at_sync = lambda: until(lambda: len(storage._shared._waiters) + len(done) >= threads - 1)

        def work(me: int) -> list[bytes]:
            lost = []
            for n in range(each):
                key, value = KEY + b"%d-%d" % (me, n), b"<%d-%d>" % (me, n)
                is_settled = (me + n) % 3 > 0
                storage.commit([(key, value)], is_settled=is_settled)
                if not is_settled:
                    storage.settle()
                if not files.holds(value) and storage._lmdb.get([key]) != [value]:
                    lost.append(value)
            done.append(me)
            return lost

        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(work, range(threads))) == [[]] * threads
        if file_bytes > 400:
            assert files.syncs <= threads * each // 2
        began = time.monotonic()
        storage.commit([(KEY, b"alone")])
        assert time.monotonic() - began < 20, "nobody waits for those who are gone"

    def test_who_settles_waits_for_the_flush_that_another_one_needs(self, full, files, patient):
        with ThreadPoolExecutor(4) as pool:
            for n in range(10):
                values = [b"<%d-%d>" % (n, me) for me in range(4)]
                for value in values[1:]:
                    full.commit([(KEY + value, value)], is_settled=False)
                settling = [pool.submit(full.settle) for _ in values[1:]]
                full.commit([(KEY, values[0])])
                for each in settling:
                    each.result(timeout=60)
                assert all(files.holds(value) for value in values)
        assert files.syncs <= 10

    def test_other_handles_of_the_directory_are_served_as_well(self, full, open_log, files):
        other = open_log()
        other.commit([(KEY + b"1", b"<1>")], is_settled=False)
        full.commit([(KEY + b"2", b"<2>")])
        other.settle()
        assert files.holds(b"<1>")
        assert files.syncs == 1


class TestAtOnce:
    @pytest.mark.parametrize("mode", ["full", "normal", "off"])
    def test_it_may_unless_every_commit_waits_for_its_flush(self, open_log, mode):
        with open_log(mode).at_once() as may:
            assert may == (mode != "full")

    def test_who_waits_for_nobody_is_told_that_others_write(self, open_log):
        storage = open_log("normal")
        with ThreadPoolExecutor(1) as pool:
            with held(storage), storage.at_once():
                with pytest.raises(BusyError):
                    storage.commit([(KEY, b"1")])
                writing = pool.submit(storage.commit, [(KEY, b"2")])  # another thread waits, as ever
                with pytest.raises(BusyError):
                    storage.commit([(KEY, b"3")])
                assert not writing.done()
                assert storage.get([KEY]) == [None]
            writing.result(60)
        storage.commit([(KEY + b"4", b"4")])
        assert storage.get([KEY, KEY + b"4"]) == [b"2", b"4"]

    def test_in_one_that_is_within_another_one_it_still_waits_for_nobody(self, open_log):
        storage = open_log("normal")
        with held(storage), storage.at_once():
            with storage.at_once():
                pass
            with patience(), pytest.raises(BusyError):
                storage.commit([(KEY, b"1")])

    def test_afterwards_it_waits_as_ever(self, open_log):
        storage = open_log("normal")

        def write() -> None:
            with pytest.raises(ZeroDivisionError), storage.at_once():
                raise ZeroDivisionError
            storage.commit([(KEY, b"1")])

        with ThreadPoolExecutor(1) as pool:
            with held(storage):
                writing = pool.submit(write)
                time.sleep(0.05)
                assert not writing.done()
            writing.result(60)
        assert storage.get([KEY]) == [b"1"]

    @pytest.mark.parametrize("mode", ["normal", "off"])
    def test_much_is_refused_and_nothing_of_it_written(self, open_log, mode):
        storage, much = open_log(mode), b"v" * (2 << 20)
        with storage.at_once(), pytest.raises(BusyError):
            storage.commit([(KEY, b"1"), (KEY + b"2", much)])
        assert storage.get([KEY, KEY + b"2"]) == [None, None]
        storage.commit([(KEY, b"1"), (KEY + b"2", much)])
        assert storage.get([KEY, KEY + b"2"]) == [b"1", much]

    def test_in_off_it_waits_for_no_other_thread(self, open_log):
        storage = open_log("off")
        with storage._turn, storage.at_once(), pytest.raises(BusyError):
            storage.commit([(KEY, b"1")])
        with storage.at_once():
            storage.commit([(KEY, b"2")])
        assert storage.get([KEY]) == [b"2"]

    def test_much_that_others_wrote_is_left_to_who_may_wait(self, open_log):
        storage, other = open_log("normal"), open_log("normal")
        other.commit([(KEY, b"v" * (2 << 20))])
        with storage.at_once(), pytest.raises(BusyError):
            storage.commit([(KEY + b"2", b"2")])
        storage.commit([(KEY + b"3", b"3")])
        with storage.at_once():
            storage.commit([(KEY + b"4", b"4")])
        assert other.get([KEY + b"2", KEY + b"3", KEY + b"4"]) == [None, b"3", b"4"]

    def test_in_the_child_of_a_fork_it_is_opened_anew_by_who_may_wait(self, open_log):
        storage = open_log("normal")
        storage.commit([(KEY, b"1")])
        storage.inherit()  # as the child of a fork does
        with storage.at_once() as may:
            assert not may
        assert storage.get([KEY]) == [b"1"]
        with storage.at_once() as may:
            assert may

    def test_it_waits_for_no_fold(self, open_log, monkeypatch):
        monkeypatch.setattr(local, "FILE_BYTES", 300)
        monkeypatch.setattr(local, "MAX_SEALED", 1)
        monkeypatch.setattr(LocalStorage, "_wake", lambda storage: None)  # nobody folds in the background
        storage = open_log("normal")
        folded, written = storage._folded(), list[bytes]()

        def write() -> None:
            key = KEY + b"%d" % len(written)
            storage.commit([(key, b"v" * 100)])
            written.append(key)

        with storage.at_once(), suppress(BusyError):
            while len(written) < 100:
                write()
        assert 0 < len(written) < 100
        assert storage._folded() == folded
        assert storage.get([*written, KEY + b"%d" % len(written)]) == [b"v" * 100] * len(written) + [None]
        write()
        assert storage._folded() > folded


class TestSaver:
    def test_a_superstep_waits_for_one_flush(self, full, files, patient):
        """What tasks wrote has to be safe when their `put_writes` returns, and is: by the flush of the checkpoint."""
        from savers.langgraph import EventLogSaver
        from tests.langgraph.byhand import config, made

        log = EventLog(full)
        saver, supersteps, tasks = EventLogSaver(log), 10, 3
        saver.put(config(), made("c00", {"a": 0}, {"a": 0}), {"step": -1}, {"a": 0})
        files.syncs = 0
        with ThreadPoolExecutor(tasks) as pool:
            for n in range(supersteps):
                writes = [
                    pool.submit(saver.put_writes, config(f"c{n:02}"), [("a", f"<write {n} {task}>")], f"task {task}")
                    for task in range(tasks)
                ]
                wanted = sorted((f"task {task}", "a", f"<write {n} {task}>") for task in range(tasks))
                until(lambda n=n, wanted=wanted: sorted(writes_of(saver, f"c{n:02}")) == wanted)
                assert not full.is_flushed()
                made_next = made(f"c{n + 1:02}", {"a": n + 1}, {"a": n + 1})
                saver.put(config(f"c{n:02}"), made_next, {"step": n}, {"a": n + 1})
                for each in writes:
                    each.result(timeout=60)
                assert all(files.holds(b"<write %d %d>" % (n, task)) for task in range(tasks))
        assert files.syncs == supersteps
        assert list(log.verify()) == []

    def test_what_a_task_wrote_without_a_checkpoint_to_follow_is_safe(self, full, files):
        """A superstep that failed halfway: what was done is not to be done again after power loss."""
        from savers.langgraph import EventLogSaver
        from tests.langgraph.byhand import config, made

        saver = EventLogSaver(EventLog(full))
        saver.put(config(), made("c0", {"a": 0}, {"a": 0}), {"step": -1}, {"a": 0})
        files.syncs = 0
        saver.put_writes(config("c0"), [("a", "<written>")], "task")
        assert files.holds(b"<written>")
        assert files.syncs == 1


def writes_of(saver: Any, checkpoint_id: str) -> list[tuple[str, str, Any]]:
    from tests.langgraph.byhand import config

    return [tuple(write) for write in saver.get_tuple(config(checkpoint_id)).pending_writes]


class TestFailure:
    """The disk refuses a flush that many wait for."""

    @pytest.fixture
    def failed(self, full: LocalStorage, files: Files) -> list[Any]:
        """What those raised who waited: some in a commit, some settling."""
        threads, gate = 6, threading.Event()
        full.commit([(KEY + b"before", b"<before>")])

        def fail() -> None:
            gate.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def work(me: int) -> Any:
            try:
                full.commit([(KEY + b"%d" % me, b"%d" % me)], is_settled=me % 2 == 0)
                full.settle()
            except Exception as error:  # noqa: BLE001 (that is what is asked)
                return error
            return None

        files.at_sync = fail
        keys = [KEY + b"%d" % me for me in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            working = [pool.submit(work, me) for me in range(threads)]
            until(lambda: None not in full.get(keys))
            gate.set()
            return [each.result(timeout=60) for each in working]

    def test_all_who_waited_are_told(self, failed):
        assert [type(error) for error in failed] == [StorageError] * len(failed)
        assert all("flush failed" in str(error) for error in failed)

    @pytest.mark.parametrize(
        "call",
        [
            lambda log: log.settle(),
            lambda log: log.flush(),
            lambda log: log.commit([(KEY, b"")]),
            lambda log: log.commit([(KEY, b"")], is_settled=False),
            lambda log: log.get([KEY]),
            lambda log: log.is_flushed(),
        ],
        ids=["settle", "flush", "commit", "commit and settle later", "get", "is_flushed"],
    )
    def test_the_handle_says_so_from_then_on(self, failed, full, files, call):
        files.at_sync = lambda: None
        for _ in range(2):
            with pytest.raises(StorageError, match="open the log again"):
                call(full)

    def test_another_handle_acknowledges_nothing_either(self, full, open_log, files, request):
        other = open_log()
        request.getfixturevalue("failed")
        files.at_sync = lambda: None
        other.commit([(KEY, b"later")], is_settled=False)
        with pytest.raises(StorageError, match="flush failed"):
            other.settle()

    def test_opened_again_it_goes_on_with_all_that_was_acknowledged(self, failed, full, open_log, files):
        files.at_sync = lambda: None
        full.close()
        again = open_log()
        assert again.get([KEY + b"before"]) == [b"<before>"]
        again.commit([(KEY, b"<after>")])
        assert again.is_flushed()


# Keys beyond the last one -----------------------------------------------------------------------------------------
#
# Most keys that are asked for before they are written lie behind the last one of their kind and run. For those LMDB is
# not asked; so what is known of its last keys must never be older than what the journal's layers say.

PREFIXES = [
    KEY,
    b"A12345679",
    b"B12345678",
    b"A" + bytes(8),
    b"A" + b"\xff" * 8,
    b"Z" + b"\xff" * 8,
    b"\x0a2345678",
    b"\xfe" * 9,
    b"\xff" * 9,
]
RESTS = [b"", b"\0", b"\0\0", b"a", b"b", b"b\0", b"c", b"\xff", b"\xff" * 502]
POOL = [prefix + rest for prefix in PREFIXES for rest in RESTS] + [b"A", b"A1234567", b"\xff" * 8]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file per commit, and nobody but the test folds."""
    monkeypatch.setattr(local, "FILE_BYTES", 1)
    monkeypatch.setattr(LocalStorage, "_wake", lambda storage: None)


some_prefixes = st.sampled_from(PREFIXES[:3]) | st.sampled_from(PREFIXES)
keys = st.one_of(st.builds(bytes.__add__, some_prefixes, st.sampled_from(RESTS)), st.sampled_from(POOL))
handles = st.integers(0, 1)
values = st.sampled_from([b"", b"1", b"2"])
ranges = st.builds(
    lambda prefix, low, end, high: (prefix + low, (end if end[0] == prefix[0] else prefix) + high),
    some_prefixes,
    st.sampled_from(RESTS),
    some_prefixes,
    st.sampled_from(RESTS),
)
puts = st.lists(st.tuples(keys, values), max_size=4)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("commit"), handles, st.lists(st.tuples(keys, values), max_size=4), st.lists(keys, max_size=3)
        ),
        st.tuples(st.just("expect"), handles, st.lists(keys, min_size=1, max_size=3), st.booleans()),
        st.tuples(st.just("get"), handles, st.lists(keys, max_size=6), st.none()),
        st.tuples(st.just("scan"), handles, ranges, st.booleans()),
        st.tuples(st.just("fold"), handles, st.none(), st.none()),
        st.tuples(st.just("everything"), handles, st.none(), st.none()),
        st.tuples(st.just("reopen"), handles, st.none(), st.none()),
    ),
    max_size=25,
)


class Pair:
    """Two handles on one directory, and a dict that says what they hold."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self.handles = [LocalStorage(location), LocalStorage(location)]
        self.model: dict[bytes, bytes] = {}

    def do(self, name: str, by: int, *arguments: Any) -> None:
        getattr(self, name)(self.handles[by], *arguments)

    def commit(self, log: LocalStorage, puts: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
        log.commit(puts, deletes)
        self.model = {key: value for key, value in self.model.items() if key not in deletes} | dict(puts)

    def expect(self, log: LocalStorage, wanted: list[bytes], is_right: bool) -> None:
        expected = {key: self.model.get(key) for key in wanted}
        if is_right:
            log.commit([(wanted[0], b"expected")], expect=expected)
            self.model[wanted[0]] = b"expected"
            return
        expected[wanted[0]] = b"other" if self.model.get(wanted[0]) is None else None
        with pytest.raises(ExpectationError) as raised:
            log.commit([(wanted[0], b"never")], expect=expected)
        assert raised.value.keys == wanted[:1]

    def get(self, log: LocalStorage, wanted: list[bytes], _: None) -> None:
        assert log.get(wanted) == [self.model.get(key) for key in wanted]

    def scan(self, log: LocalStorage, bounds: tuple[bytes, bytes], reverse: bool) -> None:
        inside = sorted(pair for pair in self.model.items() if bounds[0] <= pair[0] < bounds[1])
        assert list(log.scan([bounds], reverse=reverse)) == (inside[::-1] if reverse else inside)

    def fold(self, log: LocalStorage, *_: None) -> None:
        log._fold()

    def everything(self, log: LocalStorage, *_: None) -> None:
        self.get(log, POOL, None)
        for prefix in PREFIXES:
            self.scan(log, (prefix, prefix + b"\xff" * 503), False)

    def reopen(self, log: LocalStorage, *_: None) -> None:
        log.close()
        self.handles[self.handles.index(log)] = LocalStorage(self.location)


@pytest.mark.usefixtures("_small")
class TestBeyond:
    def test_what_is_remembered_is_bounded_though_nothing_is_ever_folded(self, tmp_path, monkeypatch):
        """A reader of many runs."""
        monkeypatch.setattr(local, "_MAX_LASTS", 8)
        with closing(LocalStorage(tmp_path / "log")) as log:
            for n in range(100):
                assert log.get([b"A%08d" % n + b"x"]) == [None]
                assert len(log._lasts) <= 8

    @pytest.mark.parametrize("remembered", [4096, 2])
    def test_any_sequence_is_what_a_dict_does(self, tmp_path, monkeypatch, remembered):
        monkeypatch.setattr(local, "_MAX_LASTS", remembered)

        @settings(
            max_examples=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        )
        @given(OPERATIONS)
        def check(operations):
            location = Path(tempfile.mkdtemp(dir=tmp_path))
            pair = Pair(location)
            for operation in operations:
                pair.do(*operation)
                touched = [key for key in POOL if key in pair.model][:8]
                for log in pair.handles:
                    pair.get(log, [*touched, KEY + b"zz"], None)
            for log in pair.handles:
                pair.everything(log)
                log.close()
            shutil.rmtree(location)

        check()

    def test_any_long_sequence_is_what_a_dict_does(self, tmp_path):
        chance = random.Random(7)
        pair = Pair(tmp_path / "log")
        for _ in range(400):
            log, prefix = chance.choice(pair.handles), chance.choice(PREFIXES[:4])
            some = [prefix + chance.choice(RESTS) for _ in range(3)]
            kind = chance.random()
            if kind < 0.4:
                pair.commit(log, [(some[0], b"%d" % chance.randrange(9))], some[1:] if kind < 0.2 else [])
            elif kind < 0.55:
                pair.fold(log)
            elif kind < 0.65:
                pair.expect(log, list(dict.fromkeys(some)), chance.random() < 0.8)
            elif kind < 0.8:
                pair.scan(log, (min(some), max(some)), kind < 0.7)
            else:
                pair.get(log, some, None)
        for log in pair.handles:
            pair.everything(log)
            log.close()

    def test_keys_of_nothing_but_nul_are_folded_as_any(self, tmp_path):
        """LMDB has no empty key, so these stand in it with one NUL more."""
        pair = Pair(tmp_path / "log")
        for log in pair.handles:
            pair.commit(log, [(b"A" + bytes(n), b"%d" % n) for n in (0, 1, 7, 8, 9, 20)] + [(b"A\0\1", b"")], [])
            pair.commit(log, [(b"B" + bytes(3), b"")], [b"A" + bytes(n) for n in (1, 8)])
            log._fold()
            pair.get(log, [b"A" + bytes(n) for n in range(25)] + [b"A\0\1"], None)
            pair.scan(log, (b"A", b"B"), False)
        pair.commit(pair.handles[0], [], [b"A" + bytes(n) for n in range(25)])
        for log in pair.handles:
            log._fold()
            pair.scan(log, (b"A", b"B"), True)
            log.close()

    def test_the_last_key_goes_and_the_next_one_comes(self, open_log):
        """Where the end of a run moves is what is remembered, so it moves both ways, by either handle."""
        one, two = open_log("normal"), open_log("normal")
        there: list[bytes] = []
        for n in range(60):
            writer, other = (one, two) if n % 3 else (two, one)
            if n % 7 < 5:
                there.append(KEY + b"%03d" % n)
                writer.commit([(there[-1], b"")], expect={there[-1]: None})
            else:
                writer.commit([], [there.pop()])
            if n % 4 == 0:
                other._fold()
            wanted = [KEY + b"%03d" % m for m in range(n + 2)]
            for log in (one, two, one):
                assert log.get(wanted) == [b"" if key in there else None for key in wanted]
                assert [key for key, _ in log.scan([(KEY + b"000", KEY + b"\xff")], reverse=True)] == there[::-1]

    def test_what_is_written_behind_the_last_key_is_not_looked_for(self, open_log, monkeypatch):
        """What it is for: a run that grows asks the layers, and LMDB once for its last key."""
        log = open_log("normal")
        log.commit([(b"A" + run + b"%03d" % n, b"") for run in (b"12345677", b"12345679") for n in range(20)])
        log.commit([(KEY + b"%03d" % n, b"") for n in range(20)])
        log.commit([(b"B", b"")])
        log._fold()
        monkeypatch.setattr(local, "FILE_BYTES", 1 << 20)
        assert log.get([KEY + b"zz"]) == [None]
        asked: list[str] = []
        for call in ("last_key", "marked", "get", "pages"):
            inner = getattr(LmdbStorage, call)
            counted = lambda *args, call=call, inner=inner, **options: (asked.append(call), inner(*args, **options))[1]
            monkeypatch.setattr(LmdbStorage, call, counted)
        for n in range(20, 40):
            key = KEY + b"%03d" % n
            log.commit([(key, b"")], expect={key: None})
            assert log.get([KEY + b"%03d" % (n + 1), key]) == [None, b""]
            assert list(log.scan([(key, KEY + b"\xff")])) == [(key, b"")]
        assert asked == ["last_key"]

    def test_each_of_many_ranges_is_looked_at_about_once(self, open_log, monkeypatch):
        """A list that grew at every other event is read by as many; to look at all for each page is their square."""
        log, count = open_log("normal"), 3000
        log.commit([(KEY + b"%05d" % n, b"") for n in range(2 * count)])
        log._fold()
        pages, asked = LmdbStorage.pages, list[int]()

        def counted(storage: LmdbStorage, ranges: Any, *args: Any, **options: Any) -> Any:
            asked.append(len(ranges))
            return pages(storage, ranges, *args, **options)

        monkeypatch.setattr(LmdbStorage, "pages", counted)
        keys = [KEY + b"%05d" % n for n in range(0, 2 * count, 2)]
        for reverse in (False, True):
            asked.clear()
            order = keys[::-1] if reverse else keys
            assert [key for key, _ in log.scan([(key, key + b"\0") for key in order], reverse=reverse)] == order
            assert sum(asked) < 1.5 * count

    @pytest.mark.parametrize("reverse", [False, True])
    def test_what_was_removed_is_passed_by_many_at_once(self, open_log, monkeypatch, reverse):
        """Whoever wants one pair, where a journal file removed thousands: not one page for each of them."""
        log, count = open_log("normal"), 3000
        keys = [KEY + b"%05d" % n for n in range(count)]
        log.commit([(key, b"") for key in keys])
        log._fold()  # so that what lies below has them still
        last = KEY + (b"" if reverse else b"99999")
        log.commit([(last, b"")], keys)
        pages, asked = LmdbStorage.pages, list[int]()

        def counted(storage: LmdbStorage, ranges: Any, *args: Any, **options: Any) -> Any:
            asked.append(len(ranges))
            return pages(storage, ranges, *args, **options)

        monkeypatch.setattr(LmdbStorage, "pages", counted)
        assert list(log.scan([(KEY, KEY + b"\xff")], reverse=reverse, limit=1)) == [(last, b"")]
        assert len(asked) < 2 + count / 200

    @pytest.mark.parametrize("call", ["last_key", "marked"])
    def test_a_get_is_from_one_moment_though_all_is_changed_and_folded_within(self, open_log, monkeypatch, call):
        """Whoever reads has looked at the layers and is about to look at LMDB; just then somebody else is quick."""
        one, two = open_log("normal"), open_log("normal")
        last, other = KEY + b"z", b"B12345678"
        one.commit([(last, b"old")])
        one.commit([(KEY + b"a", b"")])
        one._fold()
        one.commit([(other, b"old")])
        assert one.get([KEY + b"zz"]) == [None]
        inner, todo = getattr(LmdbStorage, call), [1]

        def meanwhile(storage: LmdbStorage, argument: Any) -> Any:
            if todo:
                todo.clear()
                two.commit([(other, b"new")], [last])
                two.commit([(b"C", b"")])
                two._fold()
            return inner(storage, argument)

        monkeypatch.setattr(LmdbStorage, call, meanwhile)
        assert one.get([other, last]) in ([b"old", b"old"], [b"new", None])
        assert not todo
        assert one.get([other, last]) == [b"new", None]

    @pytest.mark.parametrize("call", ["last_key", "get"])
    def test_what_is_expected_is_found_though_all_is_folded_within(self, open_log, monkeypatch, call):
        one, two = open_log("normal"), open_log("normal")
        for n in range(4):
            one.commit([(KEY + b"%d" % n, b"%d" % n)])
            if n == 1:
                one._fold()
        assert one.get([KEY + b"zz"]) == [None]
        inner = getattr(LmdbStorage, call)

        def meanwhile(storage: LmdbStorage, argument: Any) -> Any:
            two._fold()
            return inner(storage, argument)

        monkeypatch.setattr(LmdbStorage, call, meanwhile)
        for n in (0, 3, 2, 1):
            with pytest.raises(ExpectationError):
                one.commit([], expect={KEY + b"%d" % n: None})
            one.commit([(KEY + b"5", b"")], [KEY + b"5"], expect={KEY + b"%d" % n: b"%d" % n, KEY + b"zz": None})


def test_threads_on_two_handles_each_find_what_they_wrote(open_log, monkeypatch):
    """Each thread has a run of its own, which grows and shrinks at its end while all is folded in the background."""
    monkeypatch.setattr(local, "FILE_BYTES", 600)
    monkeypatch.setattr(local, "FLUSH_INTERVAL_S", 0.001)
    logs = [open_log("normal"), open_log("normal")]

    def work(me: int) -> None:
        chance, model, end = random.Random(me), {}, 0

        def key(n: int) -> bytes:
            return b"A" + me.to_bytes(8, "big") + n.to_bytes(2, "big")

        for _ in range(400):
            log = chance.choice(logs)
            if chance.random() < 0.6:
                end += 1
                log.commit([(key(end), b"%d" % end)], expect={key(end): None})
                model[end] = b"%d" % end
            elif end:
                log.commit([], [key(end)])
                model.pop(end)
                end -= 1
            wanted = range(max(0, end - 2), end + 3)
            found = chance.choice(logs).get([key(n) for n in wanted])
            assert found == [model.get(n) for n in wanted]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
