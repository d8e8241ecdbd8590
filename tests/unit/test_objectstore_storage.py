"""What only object storage has: one writer that is taken over from, readers beside it, one put for many commits."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from slatedb import uniffi as slate

from eventlog import EventLog
from eventlog.errors import ClosedError, ExpectationError, FormatError, InvalidInputError, StorageError
from eventlog.storage import objectstore_db as databases
from eventlog.storage import open_storage
from eventlog.storage.objectstore import ObjectStoreStorage, _values
from eventlog.storage.objectstore_db import Writer, loop
from eventlog.storage.objectstore_place import place_of, translated
from eventlog.storage.objectstore_recent import Recent
from tests import object_server
from tests.engines import DEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A, B, E = b"A", b"B", b"E"
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/log" if request.param == "file" else object_server.location(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return f"file://{tmp_path}/log"


@pytest.fixture
def storage(url: str) -> Iterator[ObjectStoreStorage]:
    opened = ObjectStoreStorage(url)
    yield opened
    opened.close()


def child(*words: object) -> subprocess.Popen[str]:
    """A process of `tests.objects_child` that has opened the log."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.objects_child", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def said(process: subprocess.Popen[str]) -> list[str]:
    """The rest of what a process says, until it ends."""
    output, _ = process.communicate(timeout=180)
    return output.splitlines()


def safe(lines: list[str]) -> list[str]:
    return [line.removeprefix("safe ") for line in lines if line.startswith("safe ") and len(line) == len(lines[0])]


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestSeam:
    def test_what_was_committed_is_there_after_reopen(self, url):
        with_it = ObjectStoreStorage(url)
        with_it.commit([(A, b"1"), (E + b"1", b"event")], expect={A: None})
        with_it.close()
        again = ObjectStoreStorage(url)
        assert again.get([A, E + b"1", B]) == [b"1", b"event", None]
        assert list(again.scan([(A, b"F")], reverse=True)) == [(E + b"1", b"event"), (A, b"1")]
        with pytest.raises(ExpectationError) as caught:
            again.commit([(B, b"")], expect={A: b"2", E + b"1": b"event"})
        assert caught.value.keys == [A]
        assert again.get([B]) == [None]
        again.close()

    def test_handles_of_one_process_share_the_log(self, storage, url):
        other = ObjectStoreStorage(url)
        other.commit([(A, b"1")])
        storage.commit([(A, b"2")], expect={A: b"1"})
        other.close()
        storage.commit([(A, b"3")])
        assert storage.get([A]) == [b"3"]
        with pytest.raises(ClosedError):
            other.get([A])

    def test_position_counts_commits_and_reads_leave_it(self, storage):
        before = storage.position()
        storage.get([A])
        assert storage.position() == before
        storage.commit([(A, b"1")])
        assert storage.position() > before

    def test_what_is_kept_in_memory_is_bounded_and_never_old(self, folder, monkeypatch):
        monkeypatch.setattr("eventlog.storage.objectstore_recent._BYTES", 100_000)
        storage = ObjectStoreStorage(folder)
        for n in range(45):
            storage.commit([(A + b"%d" % n, bytes([n]) * 4000), (B, b"%d" % n)], is_settled=False)
        recent = storage._writer.recent
        assert recent.get([A + b"44", B])[0] == [bytes([44]) * 4000, b"44"]
        assert recent.get([A + b"0"])[0] is None
        assert sum(len(value) for value in recent._values.values()) < 100_000
        assert storage.get([A + b"0", A + b"44", A]) == [bytes(4000), bytes([44]) * 4000, None]
        storage.commit([(A, b"1")], [A + b"44"])
        assert storage.get([A, A + b"44", B]) == [b"1", None, b"44"]
        storage.close()

    def test_what_is_read_while_it_is_written_is_not_kept(self):
        recent = Recent()
        recent.forget([A])
        known, changes = recent.get([A])
        recent.learn([A], [None], changes)  # the batch is not there yet, and may be before it is said to be
        assert known is recent.get([A])[0] is None
        recent.written({A: b"1"})
        assert recent.get([A])[0] == [b"1"]

    def test_readers_see_nothing_old_beside_what_is_new(self, folder):
        storage = ObjectStoreStorage(folder)
        storage.commit([(A, b"0"), (E + b"0", b"")])
        done = threading.Event()

        def write() -> None:
            for n in range(1, 150):
                storage.commit([(A, b"%d" % n), (E + b"%d" % n, b"")], is_settled=False)
            done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not done.is_set():
                (head,) = storage.get([A])
                following = b"%d" % (int(head or b"0") + 1)
                assert storage.get([E + head]) == [b""]
                storage.get([E + following])  # most likely absent, which must not be remembered for long
            writing.result()
        assert None not in storage.get([E + b"%d" % n for n in range(150)])
        storage.close()

    def test_expectations_hold_against_all_threads(self, storage):
        def count(_: int) -> int:
            lost = 0
            for _ in range(10):
                while True:
                    (value,) = storage.get([A])
                    try:
                        storage.commit([(A, b"%d" % (int(value or b"0") + 1))], expect={A: value})
                        break
                    except ExpectationError:
                        lost += 1
            return lost

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(4)))
        assert storage.get([A]) == [b"40"]


class TestFlushes:
    def test_commits_that_wait_share_one(self, storage):
        flushes = storage._writer.flushes
        barrier = threading.Barrier(8)

        def write(n: int) -> None:
            barrier.wait()
            for each in range(10):
                storage.commit([(A + b"%d-%d" % (n, each), b"")])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        assert storage._writer.flushes - flushes < 80
        assert storage.is_flushed()

    def test_what_need_not_be_settled_waits_for_one(self, storage):
        flushes = storage._writer.flushes
        for n in range(5):
            storage.commit([(A + b"%d" % n, b"")], is_settled=False)
        assert not storage.is_flushed()
        storage.settle()
        storage.settle()
        assert storage._writer.flushes == flushes + 1
        assert storage.is_flushed()

    def test_what_is_forgotten_takes_one_however_many_ids(self, url):
        with EventLog(ObjectStoreStorage(url)) as log:
            run = log.run("a")
            for n in range(40):
                run.append({"n": n}, id=f"{n:02}")
            before = log._storage._writer.flushes
            assert len(run.forget([f"{n:02}" for n in range(30)])) == 30
            assert log.is_flushed()
            assert log._storage._writer.flushes - before <= 2

    def test_many_come_into_a_table_so_that_opening_reads_few(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr("eventlog.storage.objectstore_db._TABLE_S", 0.0)
        storage = ObjectStoreStorage(folder)
        for n in range(70):
            storage.commit([(A, b"%d" % n)])
        until(lambda: any(tmp_path.rglob("compacted/*.sst")))
        storage.close()

    def test_what_a_killed_writer_left_comes_into_a_table(self, folder, tmp_path):
        def count(files: str) -> int:
            return len(list(tmp_path.rglob(f"{files}/*.sst")))

        writer = child("write", folder)
        until(lambda: count("compacted") > 0)  # the one that it begins with
        flushed = count("wal")
        until(lambda: count("wal") > flushed + 1)
        writer.kill()
        said(writer)
        before = count("compacted")
        with EventLog.open(folder):
            until(lambda: count("compacted") > before)

    def test_what_short_lived_writers_leave_behind_goes(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(databases, "_GARBAGE_MS", 0)
        monkeypatch.setattr(databases, "_TIDYING_S", 60.0)
        for n in range(12):
            with EventLog.open(folder) as log:
                log.run("shared").append({"n": n})
        assert len(list(tmp_path.rglob("*.manifest"))) < 12  # each leaves four
        with EventLog.open(folder) as log:
            assert log.run("shared").state["n"] == 11
            assert list(log.verify()) == []

    def test_off_does_not_wait_and_closing_flushes(self, url):
        unsafe = ObjectStoreStorage(url, synchronous="off")
        unsafe.commit([(A, b"1")])
        assert unsafe._writer.flushes == 0
        unsafe.close()
        again = ObjectStoreStorage(url, readonly=True)
        assert again.get([A]) == [b"1"]
        again.close()

    @pytest.mark.parametrize("url", ["s3"], indirect=True)
    def test_a_superstep_of_a_graph_takes_one(self, url, monkeypatch):
        pytest.importorskip("langgraph")
        from savers.langgraph import EventLogSaver
        from tests.objects_graph import THREAD, chain

        flush = slate.Db.flush

        async def as_far_away(db: slate.Db) -> None:
            await asyncio.sleep(0.1)  # as long as a put takes
            await flush(db)

        with EventLogSaver.from_conn_string(url) as saver:
            graph = chain(saver, 10)
            graph.invoke({"said": []}, THREAD)
            monkeypatch.setattr(slate.Db, "flush", as_far_away)
            # else what shares a put comes too late for it where others take the processor
            monkeypatch.setattr(databases, "_LONGEST_WAIT_S", 5.0)
            monkeypatch.setattr(Writer, "_flush_s", property(lambda _: 5.0, lambda *_: None), raising=False)
            flushes = saver.log._storage._writer.flushes
            graph.invoke({"said": []}, THREAD)
            assert saver.log._storage._writer.flushes - flushes <= 10 + 3


class Gate:
    """What waits on SlateDB's thread until a test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self._open = asyncio.Event()

    async def wait(self) -> None:
        self.reached.release()
        await self._open.wait()

    def open(self) -> None:
        async def opened() -> None:
            self._open.set()

        loop().run(opened())


class TestThreads:
    def test_what_was_given_up_is_there_before_the_next_one_looks(self, folder, monkeypatch):
        storage, hasty = ObjectStoreStorage(folder), ObjectStoreStorage(folder, timeout_s=0.2)
        gate, write, queued = Gate(), slate.Db.write, []

        async def later(db: slate.Db, batch: slate.WriteBatch) -> object:
            await gate.wait()
            return await write(db, batch)

        async def through_a_queue(db: slate.Db, batch: slate.WriteBatch) -> object:
            if not queued:
                queued.append(asyncio.create_task(later(db, batch)))
                return await asyncio.shield(queued[0])
            gate._open.set()
            await queued[0]
            return await write(db, batch)

        monkeypatch.setattr(slate.Db, "write", through_a_queue)
        while not queued:  # else it was given up before it came so far
            with pytest.raises(StorageError, match="no answer"):
                hasty.commit([(A, b"1"), (B, b"1")], expect={A: None})
        with pytest.raises(StorageError, match="no answer"):
            hasty.commit([(A, b"2")], expect={A: None})
        assert storage.get([A, B]) == [None, None]
        assert storage.position() is None
        gate.open()
        with pytest.raises(ExpectationError):
            storage.commit([(A, b"2")], expect={A: None})
        assert storage.get([A, B]) == [b"1", b"1"]
        assert storage.position() is not None
        hasty.close()
        storage.close()

    def test_what_failed_after_it_was_given_up_is_said_to_nobody(self, folder, monkeypatch, caplog):
        storage, gate = ObjectStoreStorage(folder), Gate()
        storage._timeout_s = 0.2  # only now: opening may take longer

        async def failing(*_: object) -> None:
            await gate.wait()
            raise slate.Error.Unavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(slate.Db, "write", failing)
            while not storage._writer.begun:
                with pytest.raises(StorageError, match="no answer"):
                    storage.commit([(A, b"1")])
            gate.open()
            loop().run(storage._writer.rest())
        storage._writer.under_way = None
        assert not caplog.records
        assert storage.position() is None
        assert storage.get([A]) == [None]
        storage.close()

    def test_what_is_seen_while_it_is_written_is_a_change_and_is_flushed(self, storage, monkeypatch):
        gate, write, flushes = Gate(), slate.Db.write, storage._writer.flushes

        async def known_late(db: slate.Db, batch: slate.WriteBatch) -> object:
            handle = await write(db, batch)
            await gate.wait()
            return handle

        monkeypatch.setattr(slate.Db, "write", known_late)
        with ThreadPoolExecutor(2) as pool:
            writing = pool.submit(storage.commit, [(A, b"1")], is_settled=False)
            gate.reached.acquire()
            seen, position, is_flushed = storage.get([A]), storage.position(), storage.is_flushed()
            flushing = pool.submit(storage.flush)
            gate.open()
            writing.result()
            flushing.result()
        assert (seen, position, is_flushed) == ([b"1"], None, False)
        assert storage._writer.flushes == flushes + 1
        assert storage.is_flushed()

    def test_who_sees_that_all_is_flushed_is_fed_all(self, storage):
        found = []

        class Watched(Writer):
            def __setattr__(self, name: str, value: object) -> None:
                super().__setattr__(name, value)
                if name == "flushed":
                    found.append((self.fed, self.fed_flushed))

        storage._writer.__class__ = Watched
        storage.commit([(E + b"1", b"")])
        assert found[-1] == (1, 1)

    def test_closing_one_handle_of_several_flushes(self, storage, url):
        for mode in ("off", "normal"):
            other = ObjectStoreStorage(url, synchronous=mode)
            other.commit([(A, b"1")], is_settled=False)
            other.close()
            assert storage.is_flushed()

    def test_a_commit_that_closing_flushed_is_acknowledged(self, folder, monkeypatch):
        storage, gate, settle = ObjectStoreStorage(folder), Gate(), Writer.settle

        async def late(writer: Writer, upto: int) -> None:
            await gate.wait()
            await settle(writer, upto)

        monkeypatch.setattr(Writer, "settle", late)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(storage.commit, [(A, b"1")])
            gate.reached.acquire()
            storage.close()
            gate.open()
            writing.result()
        again = ObjectStoreStorage(folder, readonly=True)
        assert again.get([A]) == [b"1"]
        again.close()

    def test_a_call_that_closing_comes_before_is_told_that_it_is_closed(self, storage):
        late = storage._within(lambda db: db.get(A), "reading")
        storage.close()
        with pytest.raises(ClosedError):
            loop().run(late)

    @pytest.mark.parametrize("url", ["s3"], indirect=True)
    def test_looking_at_the_size_waits_no_longer_either(self, url, monkeypatch):
        storage = ObjectStoreStorage(url)
        storage._timeout_s = 1  # only now: opening may take longer

        async def without_an_answer(*_: object) -> None:
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(slate.Db, "flush_with_options", without_an_answer)
            with pytest.raises(StorageError, match="no answer"):
                storage.size_bytes()
        storage.close()

    def test_none_waits_longer_than_it_was_told_to(self, folder, monkeypatch):
        storage = ObjectStoreStorage(folder)
        storage._timeout_s = storage._writer.timeout_s = 1  # only now: opening may take longer
        begun = time.monotonic()

        async def without_an_answer(_: slate.Db) -> None:
            await asyncio.Event().wait()

        def write(n: int) -> None:
            with pytest.raises(StorageError, match="no answer"):
                storage.commit([(A + b"%d" % n, b"")])

        with monkeypatch.context() as patch:
            patch.setattr(slate.Db, "flush", without_an_answer)
            with ThreadPoolExecutor(40) as pool:
                list(pool.map(write, range(40)))
            storage._writer.timeout_s = 30
        assert time.monotonic() - begun < 30  # one after the other, they would take 40 s
        storage.close()


class TestTakingOver:
    def test_the_former_writer_is_told_and_what_it_was_told_is_safe(self, url):
        first = child("write", url)
        time.sleep(0.3)
        second = child("write", url)
        lines = said(first)
        assert "another process" in lines[-1]
        assert "open the log again" in lines[-1]
        time.sleep(0.2)
        third = child("write", url)
        later = said(second)
        third.kill()
        third.communicate()
        acknowledged = safe(lines) + safe(later)
        with EventLog.open(url) as log:
            ids = [event.id for event in log.run("shared").events()]
            assert set(acknowledged) <= set(ids)
            assert list(log.verify()) == []

    def test_ten_writers_in_turn_some_killed_lose_nothing(self, url):
        rng, acknowledged, told = random.Random(1), [], 0
        with EventLog.open(url) as log:
            log.run("shared").append({"begun": True})
        writing = child("write", url)
        turns = (10 if url.startswith("file") else 5) * DEEP
        for turn in range(turns):
            time.sleep(rng.uniform(0.02, 0.15))
            if turn % 2:
                writing.kill()
            following = child("write", url)
            lines = said(writing)
            acknowledged += safe(lines)
            told += any("another process" in line for line in lines)
            writing = following
        writing.kill()
        acknowledged += safe(said(writing))
        assert told >= turns // 2
        with EventLog.open(url) as log:
            events = list(log.run("shared").events())
            assert [event.step for event in events] == list(range(len(events)))
            assert set(acknowledged) <= {event.id for event in events}
            assert len(acknowledged) > turns
            assert list(log.verify()) == []

    def test_one_that_slept_until_all_was_collected_loses_nothing_that_is_safe(self, url, monkeypatch):
        monkeypatch.setattr("eventlog.storage.objectstore_db._GARBAGE_MS", 0)
        sleeper = child("write", url)
        time.sleep(0.3)
        os.kill(sleeper.pid, signal.SIGSTOP)
        with EventLog.open(url) as log:
            writer = log._storage._writer
            for n in range(10):
                log.run("shared").append({"n": n})
            loop().run(writer.table())
            time.sleep(1.1)  # until the garbage collector sees the table
            loop().run(writer._tidy())
            os.kill(sleeper.pid, signal.SIGCONT)
            lines = said(sleeper)
            assert "another process" in lines[-1]
            assert set(safe(lines)) <= {event.id for event in log.run("shared").events()}
        with EventLog.open(url) as log:
            assert set(safe(lines)) <= {event.id for event in log.run("shared").events()}

    def test_a_call_that_waits_is_told_too(self, folder, monkeypatch):
        seldom = (*databases._settings, ("flush_interval", '"1h"'))  # or it is put before the other one has come up
        monkeypatch.setattr(databases, "_settings", seldom)
        mine = ObjectStoreStorage(folder)
        loop().run(asyncio.wait({mine._writer._tidying}))  # nor does that put it
        mine.commit([(A, b"1")])
        mine.commit([(A, b"2")], is_settled=False)
        other = child("write", folder)
        with pytest.raises(StorageError, match="another process"):
            mine.settle()
        with pytest.raises(StorageError, match="open the log again"):
            mine.commit([(A, b"3")])
        with pytest.raises(StorageError, match="readonly"):
            mine.get([A])
        again = ObjectStoreStorage(folder)
        assert again.get([A]) == [b"1"]
        again.commit([(A, b"4")])
        assert "another process" in said(other)[-1]
        mine.close()
        assert again.get([A]) == [b"4"]
        again.close()


class TestReaders:
    def test_seven_and_one_of_the_feed_beside_one_writer(self, url):
        with EventLog.open(url) as log:
            run = log.run("shared")
            run.append({"n": 0})
            with ThreadPoolExecutor(7) as pool:
                readers = list(pool.map(lambda _: child("read", url, 60), range(7)))
            follower = child("follow", url, 60)
            for n in range(59):
                run.append({"n": n})
            assert [said(each) for each in readers] == [["seen 60"]] * 7
            assert said(follower) == ["fed 60"]

    def test_one_writes_nothing_and_sees_what_was_committed_before(self, tmp_path, folder):
        writer = child("write", folder)
        time.sleep(0.2)
        writer.kill()
        acknowledged = safe(said(writer))
        before = sorted(tmp_path.rglob("*"))
        with EventLog.open(folder, readonly=True) as log:
            assert set(acknowledged) <= {event.id for event in log.run("shared").events()}
            with pytest.raises(StorageError, match="readonly"):
                log.run("other").append({})
        assert sorted(tmp_path.rglob("*")) == before

    def test_one_sees_one_moment_however_often_it_changes(self):
        looks = 0

        class Changing:
            def status(self) -> SimpleNamespace:
                return SimpleNamespace(durable_seq=looks)

            async def get(self, key: bytes) -> bytes:
                nonlocal looks
                looks += looks < 30
                return b"%d" % looks

        assert loop().run(_values(Changing(), [A, B])) == [b"30", b"30"]

    @pytest.mark.parametrize("is_closed", [False, True])
    def test_one_that_closed_itself_is_opened_again_once(self, storage, url, monkeypatch, is_closed):
        reader, gate, get, opened = ObjectStoreStorage(url, readonly=True), Gate(), slate.DbReader.get, []

        async def late(db: slate.DbReader, key: bytes) -> bytes | None:
            if not opened:
                await gate.wait()
            return await get(db, key)

        def open_reader(it: ObjectStoreStorage) -> None:
            opened.append(it)
            open_really(it)

        open_really = ObjectStoreStorage._open_reader
        monkeypatch.setattr(slate.DbReader, "get", late)
        monkeypatch.setattr(ObjectStoreStorage, "_open_reader", open_reader)
        with ThreadPoolExecutor(4) as pool:
            reading = [pool.submit(reader.get, [A]) for _ in range(4)]
            for _ in reading:
                gate.reached.acquire()
            if is_closed:
                reader.close()
            else:
                loop().run(reader._reader.shutdown())
            gate.open()
            told = [each.exception() for each in reading]
        assert [type(each) for each in told] == [ClosedError if is_closed else type(None)] * 4
        assert len(opened) == (0 if is_closed else 1)
        reader.close()

    def test_nothing_is_made_where_there_is_no_log(self, tmp_path, url):
        with pytest.raises(FormatError, match="holds no log"):
            ObjectStoreStorage(url, readonly=True)
        assert list(tmp_path.iterdir()) == []


class TestFeed:
    def test_each_once_in_the_order_of_commits(self, storage, url):
        storage.commit([(E + b"3", b""), (E + b"2", b""), (A, b"")])
        storage.commit([(E + b"1", b"")])
        places = list(storage.feed())
        assert [key for _, key in places] == [E + b"2", E + b"3", E + b"1"]
        assert all(len(place) <= 64 for place, _ in places)
        for n, (place, _) in enumerate(places):
            assert list(storage.feed(place)) == places[n + 1 :]
        reader = ObjectStoreStorage(url, readonly=True)
        assert list(reader.feed(limit=2)) == places[:2]
        reader.close()

    def test_a_number_is_never_used_again(self, url):
        first = ObjectStoreStorage(url)
        first.commit([(E + b"1", b"")])
        ((place, _),) = first.feed()
        first.commit([], [E + b"1"])
        assert list(first.feed()) == []
        first.close()
        again = ObjectStoreStorage(url)
        again.commit([(E + b"2", b"")])
        assert [key for _, key in again.feed(place)] == [E + b"2"]
        again.close()

    def test_what_is_not_in_the_store_is_not_fed(self, storage):
        storage.commit([(E + b"1", b"")], is_settled=False)
        assert [key for _, key in storage.feed()] == [E + b"1"]
        assert storage.is_flushed()

    def test_a_position_of_another_log(self, storage):
        with pytest.raises(InvalidInputError, match="begin without"):
            storage.feed(b"x" * 16)

    def test_a_position_of_what_the_store_lost(self, folder, tmp_path):
        first = ObjectStoreStorage(folder)
        first.commit([(E + b"1", b"")])
        first.close()
        shutil.copytree(tmp_path, tmp_path.with_suffix(".earlier"))
        first = ObjectStoreStorage(folder)
        first.commit([(E + b"2", b"")])
        *_, (place, _) = first.feed()
        first.close()
        shutil.rmtree(tmp_path)
        shutil.copytree(tmp_path.with_suffix(".earlier"), tmp_path)
        again = ObjectStoreStorage(folder)
        with pytest.raises(InvalidInputError, match="set back"):
            list(again.feed(place))
        again.close()


class TestRefusals:
    @pytest.mark.parametrize(
        "bad", ["s3://bucket", "s3:///prefix", "file:///", "s3://b/p?x=1", "gs://b/../c", "az://b/"]
    )
    def test_a_url_that_names_no_place(self, bad):
        with pytest.raises(InvalidInputError):
            open_storage(bad)

    def test_a_folder_gives_no_full(self, folder):
        with pytest.raises(InvalidInputError, match="normal"):
            ObjectStoreStorage(folder, synchronous="full")

    def test_a_newer_format_and_its_writer_is_not_disturbed(self, url):
        newer = ObjectStoreStorage(url)
        record = b"eventlog" + bytes((2,)) + b"12345678"
        databases.loop().run(newer._writer.db.put(b"Mlog", record))
        databases.loop().run(newer._writer.db.flush())
        with pytest.raises(FormatError, match="format 2"):
            ObjectStoreStorage(url, readonly=True)
        script = "import sys; from eventlog.storage import open_storage; open_storage(sys.argv[1])"
        other = subprocess.run(
            [sys.executable, "-c", script, url], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert "FormatError" in other.stderr
        assert "update it" in other.stderr
        newer.commit([(A, b"1")])
        newer.close()

    def test_another_database_of_slatedb(self, folder):
        async def make() -> None:
            db = await slate.DbBuilder(folder.removeprefix("file:///"), slate.ObjectStore.resolve("file:///")).build()
            await db.put(b"x", b"y")
            await db.shutdown()

        databases.loop().run(make())
        for readonly in (True, False):
            with pytest.raises(FormatError, match="prefix of its own"):
                ObjectStoreStorage(folder, readonly=readonly)

    @pytest.mark.parametrize("bad", ["s3://b/p?key=hush", "s3://id:hush@b/p", "file:///p?sig=hush"])
    def test_what_may_be_a_password_in_a_url_is_not_shown(self, bad):
        with pytest.raises(InvalidInputError) as caught:
            open_storage(bad)
        assert "hush" not in str(caught.value)

    def test_a_password_in_the_endpoint_is_not_shown(self):
        said_by_store = slate.Error.Unavailable("Error performing GET http://id:hush@127.0.0.1:9/b/p?sign=hush in 5s")
        told = translated(said_by_store, place_of("s3://b/p"), "reading")
        assert "hush" not in str(told)
        assert "127.0.0.1:9/b/p" in str(told)

    def test_an_endpoint_that_is_none(self, monkeypatch):
        object_server.shared()
        monkeypatch.setenv("AWS_ENDPOINT", "::none")
        with pytest.raises(StorageError, match="call again"):
            ObjectStoreStorage(f"s3://{object_server.BUCKET}/log")

    def test_a_bucket_that_is_missing(self):
        object_server.shared()
        with pytest.raises(StorageError, match="bucket"):
            ObjectStoreStorage("s3://no-such-bucket/log")

    def test_credentials_that_nobody_has(self, monkeypatch):
        strict = object_server.Server(strict=True)
        for name, value in strict.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match=r"403 Forbidden.*credentials"):
            ObjectStoreStorage(f"s3://{object_server.BUCKET}/log")
        strict.stop()

    def test_a_store_that_is_away(self, monkeypatch):
        object_server.shared()
        monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(StorageError, match="network"):
            ObjectStoreStorage(f"s3://{object_server.BUCKET}/log", timeout_s=1)

    def test_a_store_that_goes_away_and_what_was_acknowledged_then(self, monkeypatch):
        own = object_server.Server()
        for name, value in own.environment.items():
            monkeypatch.setenv(name, value)
        storage = ObjectStoreStorage(f"s3://{object_server.BUCKET}/log")
        storage.commit([(A, b"1")])
        storage._timeout_s = storage._writer.timeout_s = 2  # only now: opening may take longer
        own.stop()
        with pytest.raises(StorageError, match="may be there or not"):
            storage.commit([(A, b"2")])
        with pytest.raises(StorageError):
            storage.close()

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_child_of_a_fork_is_told(self, storage):
        storage.commit([(A, b"1")])
        receiving, sending = os.pipe()
        pid = os.fork()
        if not pid:
            told: Any = b""
            try:
                storage.get([A])
            except StorageError as error:
                told = str(error).encode()
            storage.close()
            os.write(sending, told)
            os._exit(0)
        os.waitpid(pid, 0)
        assert b"spawn" in os.read(receiving, 1000)
        os.close(receiving)
        os.close(sending)
        storage.commit([(A, b"2")])


_BUSY = """
import sys, threading, time
from eventlog import EventLog
log = EventLog.open(sys.argv[1])
def write(n):
    run = log.run(f"run {n}")
    while True:
        run.append({"n": n})
threading.excepthook = lambda _: None
for n in range(4):
    threading.Thread(target=write, args=(n,), daemon=True).start()
time.sleep(0.3)
"""


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_process_may_end_while_daemon_threads_write(url):
    for _ in range(4):
        ended = subprocess.run(
            [sys.executable, "-c", _BUSY, url], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_thread_begun_on_one_process_goes_on_in_another(url):
    pytest.importorskip("langgraph")
    from tests.objects_graph import go_on

    assert go_on(url) == 1
    script = "import sys; from tests.objects_graph import go_on; print(go_on(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, cwd=ROOT, check=True)
    assert other.stdout == "2\n"
    assert go_on(url) == 3
