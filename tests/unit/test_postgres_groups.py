"""Who asks for whom, where threads commit at once; the statement itself is tested where it is asked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventlog.errors import CapacityError
from eventlog.storage.postgres_groups import Answer, Batch, Groups
from eventlog.storage.postgres_server import LostError

WRITTEN = Answer(is_busy=False, differing=[])


def batch(*locks: int, size: int = 1) -> Batch:
    return Batch(list(locks), {}, [], {}, None, size)


class Server:
    """Answers a group when it is let; `groups` are the locks of those that it was asked for."""

    def __init__(self) -> None:
        self.groups: list[list[list[int]]] = []
        self.asked, self.let = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None

    def ask(self, batches: list[Batch]) -> list[Answer]:
        self.groups.append([each.locks for each in batches])
        self.asked.release()
        self.let.acquire()
        if self.error:
            raise self.error
        return [WRITTEN for _ in batches]

    def until_asked(self) -> None:
        assert self.asked.acquire(timeout=60)


class TestGroups:
    @pytest.fixture
    def server(self) -> Server:
        return Server()

    @pytest.fixture
    def groups(self, server) -> Groups:
        return Groups(server.ask)

    @pytest.fixture
    def pool(self):
        with ThreadPoolExecutor(8) as pool:
            yield pool

    def submitted(self, pool, groups, *batches):
        """Futures of the answers; each batch waits before the next comes."""
        futures = []
        for each in batches:
            before = len(groups._waiting)
            futures.append(pool.submit(groups.answer, each))
            while len(groups._waiting) == before:
                pass
        return futures

    def test_who_comes_meanwhile_goes_with_the_next_but_for_those_of_one_run(self, server, groups, pool):
        first = pool.submit(groups.answer, batch(1))
        server.until_asked()
        rest = self.submitted(pool, groups, batch(1), batch(2, 3), batch(3), batch(1), batch(4))
        for _ in range(4):
            server.let.release()
        assert [each.result(60) for each in (first, *rest)] == [WRITTEN] * 6
        assert server.groups == [[[1]], [[1], [2, 3], [4]], [[3], [1]]]

    def test_a_large_one_goes_by_itself_at_once(self, server, groups, pool):
        first = pool.submit(groups.answer, batch(1))
        server.until_asked()
        large = pool.submit(groups.answer, batch(2, size=2 << 20))
        server.until_asked()
        server.let.release(2)
        assert [first.result(60), large.result(20)] == [WRITTEN] * 2
        assert sorted(server.groups) == [[[1]], [[2]]]

    def test_what_fails_fails_for_all_of_the_group_and_nobody_else(self, server, groups, pool):
        first = pool.submit(groups.answer, batch(1))
        server.until_asked()
        rest = self.submitted(pool, groups, batch(2), batch(3))
        server.let.release()
        server.until_asked()
        server.error = CapacityError("full")
        server.let.release()
        assert first.result(60) == WRITTEN
        for each in rest:
            with pytest.raises(CapacityError):
                each.result(60)
        server.error = None
        server.let.release()
        assert groups.answer(batch(1)) == WRITTEN

    def test_where_the_one_who_asks_is_interrupted_the_others_know_that_they_do_not_know(self, server, groups, pool):
        first = pool.submit(groups.answer, batch(1))
        server.until_asked()
        leading, other = self.submitted(pool, groups, batch(2), batch(3))
        server.let.release()
        server.until_asked()
        server.error = KeyboardInterrupt()
        server.let.release()
        assert first.result(60) == WRITTEN
        with pytest.raises(KeyboardInterrupt):
            leading.result(60)
        with pytest.raises(LostError, match="interrupted"):
            other.result(60)
        server.error = None
        server.let.release()
        assert groups.answer(batch(1)) == WRITTEN
