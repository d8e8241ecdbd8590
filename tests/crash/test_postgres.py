"""Many processes on one PostgreSQL server, which is killed, and connections that break at every step of a commit."""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from eventlog import EventLog
from eventlog.errors import ExpectationError, StorageError
from eventlog.storage.postgres import PostgresStorage
from tests.counting import patience
from tests.crash.together import PROCESSES, Follower, Processes, acknowledged, checked, there
from tests.engines import DEEP
from tests.proxy import FAULTS, Proxy
from tests.servers import OwnPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

A, B = b"\x0a", b"\x0b"


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    server = OwnPostgres()
    yield server
    server.stop()


@pytest.fixture
def schema() -> str:
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
def url(server, schema) -> str:
    return server.url(schema)


class TestProcesses(Processes):
    kills = 3

    def test_of_a_killed_server_nobody_is_left(self, server, url):
        """Though its first process would start others as soon as it misses one."""
        with closing(PostgresStorage(url)) as storage:
            storage.commit([(A, b"1")])
            assert len(server.processes()) > 2
            server.kill()
            left = server.processes()
            server.start()
            assert left == []


@pytest.fixture
def proxy(server) -> Iterator[Proxy]:
    proxy = Proxy(server.socket, b".commit(")
    yield proxy
    proxy.close()


@pytest.fixture
def storage(server, proxy, schema) -> Iterator[PostgresStorage]:
    with closing(PostgresStorage(server.url_through(proxy.port, schema))) as opened:
        yield opened


class TestNetwork:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_commit_whose_answer_is_lost_is_resolved(self, storage, proxy, fault):
        storage.commit([(A, b"0")])
        for n in range(4):
            proxy.fault = fault
            storage.commit([(A, b"%d" % (n + 1)), (b"E%d" % n, b"")], expect={A: b"%d" % n})
            assert proxy.fault is None
            assert storage.get([A]) == [b"%d" % (n + 1)]
            with pytest.raises(ExpectationError):
                storage.commit([(A, b"no")], expect={A: b"%d" % n})
        proxy.deliver()
        assert storage.get([A]) == [b"4"]
        assert [key for _, key in storage.feed()] == [b"E%d" % n for n in range(4)]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_so_is_one_that_expects_nothing_of_what_it_changes(self, storage, proxy, fault):
        storage.commit([(B, b"there")])
        proxy.fault = fault
        storage.commit([(A, b"old")], expect={B: b"there"})
        storage.commit([(A, b"new")])
        proxy.deliver()
        assert storage.get([A, B]) == [b"new", b"there"]
        proxy.fault = fault
        storage.commit([], [A])
        storage.commit([(A, b"again")])
        proxy.deliver()
        assert storage.get([A]) == [b"again"]

    def test_a_conflict_whose_answer_is_lost_is_one(self, url, storage, proxy):
        with closing(PostgresStorage(url)) as other:
            other.commit([(A, b"1")])
            for fault in FAULTS:
                for wanted in ({A: None}, {B: b"not there"}):
                    proxy.fault = fault
                    with pytest.raises(ExpectationError):
                        storage.commit([(A, b"2")], expect=wanted)
            proxy.deliver()
            assert other.get([A]) == [b"1"]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_an_append_ends_as_committed_or_not(self, server, proxy, schema, fault):
        with EventLog.open(server.url_through(proxy.port, schema)) as log:
            run = log.run("a")
            run.append({"n": 0})
            for n in range(1, 6):
                proxy.fault = fault
                run.append({"n": n})
                proxy.deliver()
            assert [event.step for event in run.events()] == list(range(6))
            assert list(log.verify()) == []

    def test_a_server_that_stays_away_is_an_error_that_says_so(self, server, url):
        with patience(60), closing(PostgresStorage(url, timeout_s=0.5)) as storage:
            there(lambda: storage.commit([(A, b"1")]))  # a first connection may take longer
            server.kill()
            try:
                with pytest.raises(StorageError):
                    storage.get([A])
                with pytest.raises(StorageError):
                    storage.commit([(A, b"2")], expect={A: b"1"})
            finally:
                server.start()
            # the server has just begun, and the pool may still wait before it tries again
            assert there(lambda: storage.get([A])) == [b"1"]
            storage.commit([(A, b"3")], expect={A: b"1"})
            assert storage.get([A]) == [b"3"]

    def test_of_faults_while_threads_commit_together_every_append_ends_as_done(self, server, proxy, schema):
        """An answer that is lost is that of several."""
        rng = random.Random(2)

        def append(number: int) -> list[str]:
            run, ids = log.run(f"run {number}"), []
            for step in range(30 * DEEP):
                proxy.fault = rng.choice([*FAULTS, None])
                ids.append(run.append({"step": step}).id)
                proxy.deliver()
            return ids

        with EventLog.open(server.url_through(proxy.port, schema)) as log:
            with ThreadPoolExecutor(PROCESSES) as pool:
                ids = acknowledged(list(pool.map(append, range(PROCESSES))))
            proxy.fault = None
        with Follower(server.url(schema)) as follower:
            checked(server.url(schema), [f"run {n}" for n in range(PROCESSES)], ids, follower.end(len(ids)))
