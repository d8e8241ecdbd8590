"""Many processes on one server of Redis, which is killed, and connections that break at every step of a commit."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from eventlog.errors import ExpectationError, StorageError
from eventlog.storage.redis import RedisStorage
from eventlog.storage.redis_scripts import COMMIT
from tests.crash.together import PROCESSES, Follower, Processes, acknowledged, checked, opened, there
from tests.engines import DEEP
from tests.proxy import FAULTS, Proxy
from tests.redis_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

A = b"\x0a"
IMPATIENT = "&socket_timeout=0.2"


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(own) -> Server:
    own.client().flushall()
    return own


@pytest.fixture
def url(server) -> str:
    return server.url()


class TestProcesses(Processes):
    kills = 5


@pytest.fixture
def proxy(server) -> Iterator[Proxy]:
    proxy = Proxy(server.directory / "socket", COMMIT.sha)
    yield proxy
    proxy.close()


def through(proxy: Proxy, options: str = "") -> str:
    """The URL of the log by way of a proxy."""
    return f"redis://127.0.0.1:{proxy.port}?prefix=eventlog{options}"


class TestNetwork:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_commit_whose_answer_is_lost_is_resolved(self, server, proxy, fault):
        RedisStorage(server.url()).commit([(A, b"0")])
        storage = there(lambda: RedisStorage(through(proxy, IMPATIENT)))
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
        storage = RedisStorage(through(proxy))
        proxy.fault = "question late"
        storage.commit([(A, b"old"), (b"E1", b"")])
        storage.commit([(A, b"new"), (b"E2", b"")])
        assert proxy.deliver() == 1
        assert storage.get([A]) == [b"new"]
        assert [key for _, key in storage.feed()] == [b"E1", b"E2"]
        storage.close()

    def test_a_conflict_whose_answer_is_lost_is_one(self, server, proxy):
        storage, other = RedisStorage(through(proxy)), RedisStorage(server.url())
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
        storage = RedisStorage(through(proxy), timeout_s=0.2)
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
        storage = RedisStorage(through(proxy))
        for n in range(5):
            server.client().script_flush()
            proxy.fault = "answer lost"
            storage.commit([(A, b"%d" % (n + 1))], expect={A: b"%d" % n if n else None})
        assert storage.get([A]) == [b"5"]
        storage.close()

    def test_of_random_faults_on_eight_runs_every_append_ends_as_done(self, server):
        proxies = [Proxy(server.directory / "socket", COMMIT.sha) for _ in range(PROCESSES)]
        RedisStorage(server.url()).close()
        rng = random.Random(2)

        def append(n: int) -> list[str]:
            with opened(through(proxies[n], IMPATIENT)) as log:
                run, ids = log.run(f"run {n}"), []
                for step in range(30 * DEEP):
                    proxies[n].fault = rng.choice([*FAULTS, None])
                    ids.append(run.append({"step": step}).id)
                    proxies[n].deliver()
                return ids

        with Follower(server.url()) as follower:
            with ThreadPoolExecutor(PROCESSES) as pool:
                ids = acknowledged(list(pool.map(append, range(PROCESSES))))
            checked(server.url(), [f"run {n}" for n in range(PROCESSES)], ids, follower.end())
        for proxy in proxies:
            proxy.close()
