"""What many processes do together on one log, wherever it is, and what must be true afterwards."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from eventlog import ConflictError, EventLog
from eventlog.errors import StorageError
from eventlog.layout import EVENT
from eventlog.storage import open_storage
from tests.engines import DEEP

PROCESSES = 8
EACH = 40 * DEEP


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
        storage, position = open_storage(self._url), b""
        is_last = False
        while not is_last:
            is_last = self._stop.is_set()
            for place, key in storage.feed(position, limit=100):
                self.keys.append(key)
                position = place
        storage.close()

    def end(self, count: int = 0) -> list[bytes]:
        """All keys that were fed, at least so many if they come in time: what else a server does may hold them up."""
        deadline = time.monotonic() + 20
        while len(self.keys) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stop.set()
        self._thread.join()
        return self.keys


def all_at_once(work, url: str, each: int) -> list[list[str]]:
    """What each of the processes did."""
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        return pool.starmap(work, [(url, n, each) for n in range(PROCESSES)], chunksize=1)


def acknowledged(done: list[list[str]]) -> list[str]:
    """The ids of all processes."""
    return [each for ids in done for each in ids]


def checked(url: str, runs: list[str], ids: list[str], fed: list[bytes]) -> None:
    """The log has what was acknowledged, in dense steps, and the feed all of it once, each run in its order."""
    with EventLog.open(url) as log:
        assert list(log.verify()) == []
        assert sorted(log.runs()) == sorted(runs)
        events = [list(log.run(name).events()) for name in runs]
    for of_one in events:
        assert [event.step for event in of_one] == list(range(len(of_one)))
    assert {event.id for of_one in events for event in of_one} == set(ids)
    assert sum(map(len, events)) == len(ids)
    storage = open_storage(url)
    stored = [key for key, _ in storage.scan([(EVENT, b"F")])]
    storage.close()
    assert sorted(fed) == stored
    for run in {key[:9] for key in fed}:
        of_one_run = [key for key in fed if key[:9] == run]
        assert of_one_run == sorted(of_one_run)


class Processes:
    """What many processes may do on one server; a test module derives from it, and has `url` and `server`.

    Attributes:
        kills: how often the server is killed.
        times: how many times as much is written meanwhile.
    """

    kills: int
    times: int

    def test_on_a_run_each(self, url):
        EventLog.open(url).close()
        follower = Follower(url)
        ids = acknowledged(all_at_once(on_a_run_of_its_own, url, EACH))
        checked(url, [f"run {n}" for n in range(PROCESSES)], ids, follower.end(len(ids)))

    def test_on_one_run_each_step_has_one_winner(self, url):
        EventLog.open(url).close()
        follower = Follower(url)
        done = all_at_once(on_one_run, url, EACH)
        assert all(len(ids) == EACH for ids in done)
        ids = acknowledged(done)
        checked(url, ["shared"], ids, follower.end(len(ids)))

    @pytest.mark.parametrize("work", [on_a_run_of_its_own, on_one_run])
    def test_while_the_server_is_killed_and_comes_back(self, server, url, work):
        EventLog.open(url).close()
        follower = Follower(url)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(all_at_once, work, url, self.times * EACH)
            rng, kills = random.Random(1), 0
            while kills < self.kills and not done.done():
                time.sleep(rng.uniform(0.1, 0.3))
                server.kill()
                server.start()
                kills += 1
            ids = acknowledged(done.result(120))
        assert kills > 1
        runs = ["shared"] if work is on_one_run else [f"run {n}" for n in range(PROCESSES)]
        checked(url, runs, ids, follower.end(len(ids)))
