"""Many processes on one server of Redis, which is killed, and connections that break at every step of a commit."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from eventlog import ConflictError, EventLog
from eventlog.errors import ExpectationError, StorageError
from eventlog.layout import EVENT
from eventlog.storage.redis import RedisStorage
from tests.engines import DEEP
from tests.redis_proxy import FAULTS, Proxy
from tests.redis_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

A = b"\x0a"
PROCESSES = 8
EACH = 40 * DEEP


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(own) -> Server:
    own.client().flushall()
    return own


def opened(url: str) -> EventLog:
    """The log, as soon as the server is there: opening does not wait for one that is not."""
    while True:
        with suppress(StorageError):
            return EventLog.open(url)
        time.sleep(0.01)


def on_a_run_of_its_own(url: str, me: int, each: int) -> list[str]:
    """Append `each` events; their ids."""
    with opened(url) as log:
        run = log.run(f"run {me}")
        return [run.append({"n": n}).id for n in range(each)]


def on_one_run(url: str, me: int, each: int) -> list[str]:
    """Append `each` events, whoever else does; their ids."""
    won: list[str] = []
    with opened(url) as log:
        run = log.run("shared")
        while len(won) < each:
            try:
                won.append(run.append({"n": len(won), "by": me}).id)
            except ConflictError:
                run.refresh()
    return won


class Follower:
    """Reads the feed of a log, again and again from the last position, while others write."""

    def __init__(self, url: str) -> None:
        self.keys: list[bytes] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        storage, last = RedisStorage(self._url), b""
        is_last = False
        while not is_last:
            is_last = self._stop.is_set()
            for position, key in storage.feed(last, limit=100):
                self.keys.append(key)
                last = position
        storage.close()

    def end(self) -> list[bytes]:
        """All keys that were fed."""
        self._stop.set()
        self._thread.join()
        return self.keys


def all_at_once(work, url: str, each: int) -> list[list[str]]:
    """What each of the processes did."""
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        return pool.starmap(work, [(url, n, each) for n in range(PROCESSES)], chunksize=1)


def checked(url: str, runs: list[str], acknowledged: list[str], fed: list[bytes]) -> None:
    """The log has what was acknowledged, in dense steps, and the feed all of it once, each run in its order."""
    with EventLog.open(url) as log:
        assert list(log.verify()) == []
        assert sorted(log.runs()) == sorted(runs)
        events = [list(log.run(name).events()) for name in runs]
    for of_one in events:
        assert [event.step for event in of_one] == list(range(len(of_one)))
    assert {event.id for of_one in events for event in of_one} == set(acknowledged)
    assert sum(map(len, events)) == len(acknowledged)
    storage = RedisStorage(url)
    stored = [key for key, _ in storage.scan([(EVENT, b"F")])]
    storage.close()
    assert sorted(fed) == stored
    for run in {key[:9] for key in fed}:
        of_one_run = [key for key in fed if key[:9] == run]
        assert of_one_run == sorted(of_one_run)


class TestProcesses:
    def test_on_a_run_each(self, server):
        Follower(server.url()).end()  # makes the log
        follower = Follower(server.url())
        done = all_at_once(on_a_run_of_its_own, server.url(), EACH)
        checked(server.url(), [f"run {n}" for n in range(PROCESSES)], list(chain(*done)), follower.end())

    def test_on_one_run_each_step_has_one_winner(self, server):
        follower = Follower(server.url())
        done = all_at_once(on_one_run, server.url(), EACH)
        assert all(len(ids) == EACH for ids in done)
        checked(server.url(), ["shared"], list(chain(*done)), follower.end())

    @pytest.mark.parametrize("work", [on_a_run_of_its_own, on_one_run])
    def test_while_the_server_is_killed_and_comes_back(self, server, work):
        follower = Follower(server.url())
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(all_at_once, work, server.url(), 12 * EACH)
            rng, kills = random.Random(1), 0
            while kills < 5 and not done.done():
                time.sleep(rng.uniform(0.1, 0.3))
                server.kill()
                server.start()
                kills += 1
            acknowledged = list(chain(*done.result(60)))
        assert kills > 1
        runs = ["shared"] if work is on_one_run else [f"run {n}" for n in range(PROCESSES)]
        checked(server.url(), runs, acknowledged, follower.end())


@pytest.fixture
def proxy(server) -> Iterator[Proxy]:
    proxy = Proxy(server.directory / "socket")
    yield proxy
    proxy.close()


IMPATIENT = "&socket_timeout=0.2"


class TestNetwork:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_commit_whose_answer_is_lost_is_resolved(self, server, proxy, fault):
        RedisStorage(server.url()).commit([(A, b"0")])
        storage = RedisStorage(proxy.url(options=IMPATIENT))
        for n in range(4):
            proxy.fault = fault
            storage.commit([(A, b"%d" % (n + 1)), (b"E%d" % n, b"")], expect={A: b"%d" % n})
            assert proxy.fault is None
            assert storage.get([A]) == [b"%d" % (n + 1)]
            with pytest.raises(ExpectationError):
                storage.commit([(A, b"no")], expect={A: b"%d" % n})
        assert [key for _, key in storage.feed()] == [b"E%d" % n for n in range(4)]
        storage.close()

    def test_a_question_that_comes_late_is_never_done(self, proxy):
        storage = RedisStorage(proxy.url())
        proxy.fault = "question late"
        storage.commit([(A, b"old"), (b"E1", b"")])
        storage.commit([(A, b"new"), (b"E2", b"")])
        assert proxy.deliver() == 1
        assert storage.get([A]) == [b"new"]
        assert [key for _, key in storage.feed()] == [b"E1", b"E2"]
        storage.close()

    def test_a_conflict_whose_answer_is_lost_is_one(self, server, proxy):
        storage, other = RedisStorage(proxy.url()), RedisStorage(server.url())
        other.commit([(A, b"1")])
        for fault in FAULTS:
            proxy.fault = fault
            with pytest.raises(ExpectationError):
                storage.commit([(A, b"2")], expect={A: None})
        proxy.deliver()
        assert other.get([A]) == [b"1"]
        storage.close()
        other.close()

    def test_what_cannot_be_resolved_is_said(self, server, proxy):
        storage = RedisStorage(proxy.url(), timeout_s=0.2)
        storage.commit([(A, b"0")])
        proxy.fault = "answer lost"
        proxy.close()  # so nobody can look
        with pytest.raises(StorageError, match=r"may be there or not.*look before"):
            storage.commit([(A, b"1")])
        storage.close()
        storage = RedisStorage(server.url())
        assert storage.get([A]) == [b"1"]
        storage.close()

    def test_scripts_are_forgotten_while_the_answer_is_lost(self, server, proxy):
        storage = RedisStorage(proxy.url())
        for n in range(5):
            server.client().script_flush()
            proxy.fault = "answer lost"
            storage.commit([(A, b"%d" % (n + 1))], expect={A: b"%d" % n if n else None})
        assert storage.get([A]) == [b"5"]
        storage.close()

    def test_of_random_faults_on_eight_runs_every_append_ends_as_done(self, server):
        proxies = [Proxy(server.directory / "socket") for _ in range(PROCESSES)]
        RedisStorage(server.url()).close()
        follower = Follower(server.url())
        rng = random.Random(2)

        def append(n: int) -> list[str]:
            with EventLog.open(proxies[n].url(options=IMPATIENT)) as log:
                run, ids = log.run(f"run {n}"), []
                for step in range(30 * DEEP):
                    proxies[n].fault = rng.choice([*FAULTS, None])
                    ids.append(run.append({"step": step}).id)
                    proxies[n].deliver()
                return ids

        with ThreadPoolExecutor(PROCESSES) as pool:
            done = list(pool.map(append, range(PROCESSES)))
        checked(server.url(), [f"run {n}" for n in range(PROCESSES)], list(chain(*done)), follower.end())
        for proxy in proxies:
            proxy.close()
