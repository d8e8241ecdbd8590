"""What many processes do together on one log, wherever it is, and what must be true afterwards."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import pytest

from eventlog import ConflictError, EventLog
from eventlog.errors import StorageError
from eventlog.layout import EVENT
from eventlog.storage import open_storage
from tests.engines import DEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.pool import AsyncResult
    from typing import Self

T = TypeVar("T")

PROCESSES = 8
EACH = 40 * DEEP
_LONGEST_S = 120 * DEEP
_FORK = multiprocessing.get_context("fork")
_IS_KILLING = _FORK.Event()
"""Set while a server is yet to be killed; whoever writes goes on until then."""


def there(opening: Callable[[], T]) -> T:
    """What is opened, as soon as the server is there and quick enough: opening does not wait for one that is not."""
    while True:
        with suppress(StorageError):
            return opening()
        time.sleep(0.01)


def opened(url: str) -> EventLog:
    """The log, as soon as the server is there."""
    return there(lambda: EventLog.open(url))


def on_a_run_of_its_own(url: str, me: int) -> list[str]:
    """Append `EACH` events or more; their ids."""
    ids: list[str] = []
    with opened(url) as log:
        run = log.run(f"run {me}")
        while len(ids) < EACH or _IS_KILLING.is_set():
            ids.append(run.append({"n": len(ids)}).id)
    return ids


def on_one_run(url: str, me: int) -> list[str]:
    """Append `EACH` events or more, whoever else does; their ids."""
    won: list[str] = []
    with opened(url) as log:
        run = log.run("shared")
        while len(won) < EACH or _IS_KILLING.is_set():
            try:
                won.append(run.append({"n": len(won), "by": me}).id)
            except ConflictError:
                run.refresh()
    return won


class Follower:
    """Reads the feed of a log, again and again from the last position, while others write; it ends with its block.

    The server has to be there when it begins; it may be killed from then on.
    """

    def __init__(self, url: str) -> None:
        self.keys: list[bytes] = []
        self._storage = open_storage(url)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _follow(self) -> None:
        position, is_last = b"", False
        while not is_last:
            is_stopped, before = self._stop.is_set(), len(self.keys)
            for place, key in self._storage.feed(position, limit=100):
                self.keys.append(key)
                position = place
            is_last = is_stopped and len(self.keys) == before
        self._storage.close()

    def end(self, count: int = 0) -> list[bytes]:
        """All keys that were fed, at least so many if they come in time: what else a server does may hold them up."""
        deadline = time.monotonic() + 60
        while len(self.keys) < count and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stop.set()
        self._thread.join()
        return self.keys


@contextmanager
def all_at_once(work: Callable[[str, int], list[str]], url: str) -> Iterator[AsyncResult[list[list[str]]]]:
    """What each of the processes does; all of them are there when the block begins."""
    with _FORK.Pool(PROCESSES) as pool:
        yield pool.starmap_async(work, [(url, n) for n in range(PROCESSES)], chunksize=1)


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
    """

    kills: int

    def test_on_a_run_each(self, url):
        EventLog.open(url).close()
        with Follower(url) as follower:
            with all_at_once(on_a_run_of_its_own, url) as done:
                ids = acknowledged(done.get(_LONGEST_S))
            checked(url, [f"run {n}" for n in range(PROCESSES)], ids, follower.end(len(ids)))

    def test_on_one_run_each_step_has_one_winner(self, url):
        EventLog.open(url).close()
        with Follower(url) as follower:
            with all_at_once(on_one_run, url) as done:
                ids = acknowledged(done.get(_LONGEST_S))
            assert len(ids) == PROCESSES * EACH
            checked(url, ["shared"], ids, follower.end(len(ids)))

    @pytest.mark.parametrize("work", [on_a_run_of_its_own, on_one_run])
    def test_while_the_server_is_killed_and_comes_back(self, server, url, work):
        EventLog.open(url).close()
        rng = random.Random(1)
        _IS_KILLING.set()
        with Follower(url) as follower, all_at_once(work, url) as done:
            try:
                for _ in range(self.kills * DEEP):
                    time.sleep(rng.uniform(0.1, 0.3))
                    server.kill()
                    server.start()
            finally:
                _IS_KILLING.clear()
            ids = acknowledged(done.get(_LONGEST_S))
            runs = ["shared"] if work is on_one_run else [f"run {n}" for n in range(PROCESSES)]
            checked(url, runs, ids, follower.end(len(ids)))
