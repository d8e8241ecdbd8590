"""What is peculiar to Redis: URLs, settings, what its errors become, the feed, and how pairs lie there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from eventlog import EventLog, MissingExtraError
from eventlog.cli import main
from eventlog.errors import (
    BusyError,
    CapacityError,
    ClosedError,
    EventLogError,
    ExpectationError,
    FormatError,
    InvalidInputError,
    StorageError,
    TooLargeError,
)
from eventlog.storage import redis as engine
from eventlog.storage.redis import RedisStorage
from eventlog.storage.redis_scripts import pair_of, prefix_of
from savers import EventLogSaver, RedisSaver
from tests.counting import patience
from tests.crash.test_processes import in_child
from tests.redis_server import Server, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A = b"\x0a"
ALL_A = (A, b"\x0b")
FED = b"E"

ALWAYS_FULL = 1
"""Bytes: what a server uses at one moment says little, for what clients that have gone took of it falls later."""


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server that nobody else is on."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(own) -> Iterator[Server]:
    """That server, empty, and with the settings that it began with."""
    if not own.is_running():
        own.start()
    client = own.client()
    names = (
        *("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy", "dbfilename"),
        "lua-time-limit",
    )
    before = {name: client.config_get(name)[name] for name in names}
    client.flushall()
    yield own
    if own.is_running():
        client.replicaof("NO", "ONE")
        for name, value in before.items():
            if client.config_get(name)[name] != value:
                client.config_set(name, value)
        until(lambda: is_appending(client))


@pytest.fixture
def opened(server) -> Iterator[Callable[..., RedisStorage]]:
    """A function that opens a log on that server."""
    handles: list[RedisStorage] = []

    def open_one(prefix: str = "eventlog", url: str = "", **options) -> RedisStorage:
        handles.append(RedisStorage(url or server.url(prefix), **options))
        return handles[-1]

    yield open_one
    for handle in handles:
        handle.close()


def stored(storage: RedisStorage) -> list[tuple[bytes, bytes]]:
    return list(storage.scan([ALL_A]))


def is_appending(client: redis.Redis) -> bool:
    """Whether what it holds is in its file: until that was written anew once appending was turned on, it is not."""
    found = client.info("persistence")
    return not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]


def is_busy(server: Server) -> bool:
    """Whether it refuses everything for the sake of a script."""
    try:
        return not server.client().ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)


class TestPlace:
    def test_neither_location_nor_errors_tell_the_password(self, server, opened):
        client = server.client()
        client.acl_setuser("someone", enabled=True, passwords=["+verysecret"], keys=["*"], commands=["+@all"])
        url = f"unix://someone:verysecret@{server.directory}/socket?db=1&prefix=mine&client_name=hush"
        storage = opened(url=url)
        assert storage.location == f"unix://{server.directory}/socket?db=1&prefix=mine"
        client.acl_setuser("someone", passwords=["-verysecret", "+othersecret"])
        for bad in (url, url.replace("verysecret@", "verysecret@x:y@"), url + "&verysecret=1"):
            with pytest.raises(EventLogError) as raised:
                opened(url=bad)
            for error in (raised.value, raised.value.__context__, raised.value.__cause__):
                assert "verysecret@" not in str(error)
                assert ":verysecret" not in str(error)

    def test_a_refused_password_is_said(self, server, opened):
        with pytest.raises(StorageError, match="refuses the user or the password"):
            opened(url=f"unix://nobody:wrong@{server.directory}/socket")

    @pytest.mark.parametrize(
        "url",
        [
            "redis://host:port",
            "redis://[::1",
            "redis://localhost?prefix=",
            "redis://localhost?prefix=a}b",
            "redis://localhost?prefix=%C3%A4",
            "redis://localhost?no_such_option=1",
            "redis://localhost?socket_timeout=soon",
        ],
    )
    def test_urls_that_can_never_be_right(self, url):
        with pytest.raises(InvalidInputError):
            RedisStorage(url)

    def test_logs_share_a_server(self, opened):
        one, other = opened("one"), opened("two")
        one.commit([(A, b"1"), (FED, b"")])
        assert stored(other) == list(other.feed()) == []
        other.commit([(A, b"2")], expect={A: None})
        assert stored(one) == [(A, b"1")]

    def test_all_keys_of_a_log_lie_in_one_slot(self, server, opened):
        opened("one").commit([(bytes([kind]), b"") for kind in range(256)])
        assert {key[: key.index(b"}") + 1] for key in server.client().scan_iter()} == {b"{one}"}

    def test_a_newer_format_is_refused(self, server, opened):
        opened()
        server.client().hset("{eventlog}:log", "format", 2)
        for readonly in (False, True):
            with pytest.raises(FormatError, match=r"version 2.*upgrade"):
                opened(readonly=readonly)

    @pytest.mark.parametrize("name", ["log", "kind:0a", "feed"])
    def test_what_is_anothers_is_neither_opened_nor_written_to(self, server, opened, name):
        server.client().set(f"{{eventlog}}:{name}", "another's")
        with pytest.raises(FormatError, match="prefix"):
            opened().commit([(b"\x01", b""), (A, b"1"), (FED, b"")])
        if name != "log":
            assert opened().get([b"\x01"]) == [None]

    def test_readonly_makes_and_writes_nothing(self, server, opened):
        with pytest.raises(FormatError, match="no log at"):
            opened(readonly=True)
        assert server.client().keys() == []
        opened().commit([(A, b"1")])
        reader = opened(readonly=True)
        before = server.client().keys()
        assert stored(reader) == [(A, b"1")]
        with pytest.raises(StorageError, match="opened readonly"):
            reader.commit([(A, b"2")])
        assert server.client().keys() == before

    def test_without_the_library_it_is_said_what_to_install(self):
        code = (
            "import sys; sys.modules['redis'] = None\n"
            "from eventlog.cli import main\n"
            "sys.exit(main(['ls', '-s', 'redis://localhost']))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 6
        assert 'pip install "eventlog-savers[redis]"' in done.stderr
        assert issubclass(MissingExtraError, ImportError)

    def test_the_command_line_takes_it(self, server, capsys):
        with EventLog.open(server.url("shown")) as log:
            log.run("a run").append({"x": 1})
        assert main(["ls", "-s", server.url("shown")]) == 0
        assert "a run" in capsys.readouterr().out
        assert main(["ls", "-s", server.url("nothing")]) == 3
        assert main(["ls", "-s", "redis://127.0.0.1:1"]) == 3
        assert "cannot be reached" in capsys.readouterr().err

    def test_a_saver_by_its_name(self, server):
        from savers import Checkpoint, CheckpointConfig, CheckpointMetadata

        with RedisSaver(server.url()) as saver:
            saver.put(CheckpointConfig("t"), Checkpoint("1", {"x": 1}), CheckpointMetadata(source="input", step=0))
        with EventLogSaver(server.url()) as again:
            assert again.get_tuple(CheckpointConfig("t")).checkpoint.channel_values == {"x": 1}
        with pytest.raises(InvalidInputError, match="redis://"):
            RedisSaver("agent.db")


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "gives"),
        [
            ({"appendonly": "no"}, {"off"}),
            ({"appendfsync": "no"}, {"off"}),
            ({"appendfsync": "everysec"}, {"off", "normal"}),
            ({"appendfsync": "always"}, {"off", "normal", "full"}),
            ({"appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}, {"off", "normal"}),
        ],
        ids=lambda value: str(sorted(value)),
    )
    def test_what_they_do_not_give_is_refused_and_it_is_said_what_to_set(self, server, opened, settings, gives):
        for name, value in settings.items():
            server.client().config_set(name, value)
        for mode in ("off", "normal", "full"):
            if mode in gives:
                opened(synchronous=mode).commit([(A, b"1")])
            else:
                with pytest.raises(StorageError, match=rf'synchronous="{mode}".*CONFIG SET'):
                    opened(synchronous=mode)
        opened(readonly=True)

    def test_what_a_server_does_not_tell_cannot_be_known(self, server, opened):
        server.client().acl_setuser(
            "app", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"], reset=True
        )
        url = f"unix://app:x@{server.directory}/socket"
        for mode in ("full", "normal"):
            with pytest.raises(StorageError, match="cannot be known"):
                opened(url=url, synchronous=mode)
        opened(url=url, synchronous="off").commit([(A, b"1")])

    @pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "allkeys-random"])
    def test_a_server_that_evicts_is_refused(self, server, opened, policy):
        server.client().config_set("maxmemory-policy", policy)
        with pytest.raises(StorageError, match=r"silently deletes history.*noeviction"):
            opened(synchronous="off")

    def test_a_replica_is_read_and_not_written(self, server, opened):
        storage = opened()
        storage.commit([(A, b"1")])
        server.client().replicaof("127.0.0.1", 1)
        with pytest.raises(StorageError, match="primary"):
            opened()
        with pytest.raises(StorageError, match="primary"):
            storage.commit([(A, b"2")])
        assert stored(opened(readonly=True)) == [(A, b"1")]

    def test_they_are_looked_at_again_on_every_new_connection(self, server, opened):
        storage = opened()
        server.client().config_set("appendonly", "no")
        server.client().client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(StorageError, match="appendonly yes"):
            storage.commit([(A, b"1")])

    def test_flushed_is_only_what_is_known_to_be(self, server, opened):
        storage = opened()
        assert storage.is_flushed()
        storage.flush()
        server.client().config_set("appendfsync", "everysec")
        lazy = opened()
        lazy.commit([(A, b"1")])
        assert not lazy.is_flushed()
        with pytest.raises(StorageError, match=r"7\.2.*appendfsync always"):
            lazy.flush()

    def test_another_mode_is_refused(self, server):
        with pytest.raises(InvalidInputError, match="synchronous"):
            RedisStorage(server.url(), synchronous="sometimes")


class TestRefusals:
    """Each leaves the storage usable, and nothing written."""

    def test_memory_is_full(self, server, opened):
        storage = opened()
        storage.commit([(A + b"1", b"v" * 1000)])
        server.client().config_set("maxmemory", ALWAYS_FULL)
        with pytest.raises(CapacityError, match="raise maxmemory"):
            storage.commit([(A + b"2", b"v")], [A + b"1"])
        assert stored(storage) == [(A + b"1", b"v" * 1000)]
        storage.commit([], [A + b"1"])  # what frees memory is done
        assert stored(storage) == []
        server.client().config_set("maxmemory", 0)
        storage.commit([(A + b"2", b"v")], expect={A + b"2": None})

    def test_memory_is_full_and_another_handle_deletes(self, server):
        with EventLog.open(server.url()) as log:
            for name in ("a", "b", "c"):
                for n in range(50):
                    log.run(name).append({"x": "v" * 1000}, id=f"{n:02}")
            log.copy("b", "copy of b")
        server.client().config_set("maxmemory", ALWAYS_FULL)
        with EventLog.open(server.url()) as log:
            with pytest.raises(CapacityError):
                log.run("a").append({"x": 1})
            for name in ("a", "b", "copy of b"):
                log.delete(name)
            with pytest.raises(CapacityError):
                log.run("c").append({"x": 1})
            assert log.runs() == ["c"]
            assert list(log.verify()) == []
        assert server.client().zcard("{eventlog}:kind:45") == 50
        server.client().config_set("maxmemory", 0)

    def test_where_memory_is_full_only_what_hardly_takes_any_is_put(self, server, opened):
        storage = opened()
        storage.commit([(A + b"1", b"v"), (A + b"2", b"v"), (FED + b"1", b"v")])
        server.client().config_set("maxmemory", ALWAYS_FULL)
        storage = opened()
        for puts in ([(A + b"3", b"")], [(A + b"1", b"w"), (A + b"3", b"")], [(A + b"1", b"w" * 1000)]):
            with pytest.raises(CapacityError):
                storage.commit(puts, [A + b"2"])
        storage.commit([(A + b"1", b"more"), (FED + b"1", b"more")], [A + b"2"], {A + b"1": b"v"})
        assert stored(storage) == [(A + b"1", b"more")]
        assert [key for _, key in storage.feed()] == [FED + b"1"]
        server.client().config_set("maxmemory", 0)

    @pytest.mark.parametrize("command", ["xadd", "zadd", "zremrangebylex", "xdel", "rename"])
    def test_what_a_commit_needs_is_not_allowed(self, server, opened, command):
        opened().commit([(A + b"1", b"v")])
        server.client().acl_setuser(
            "poor", enabled=True, nopass=True, keys=["*"], commands=["+@all", f"-{command}"], reset=True
        )
        storage = opened(url=f"unix://poor:x@{server.directory}/socket")
        with pytest.raises(StorageError, match="nothing was written"):
            storage.commit([(A + b"1", b"w"), (FED, b""), (A + b"2", b"v")], [A + b"1"])
        assert stored(storage) == [(A + b"1", b"v")]

    def test_the_disk_refuses(self, server, opened):
        storage = opened()
        (server.directory / "taken").mkdir(exist_ok=True)
        client = server.client()
        client.config_set("dbfilename", "taken")
        client.config_set("save", "3600 1")
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok")
        with pytest.raises(StorageError, match="MISCONF"):
            storage.commit([(A, b"1")])
        assert stored(storage) == []
        client.config_set("save", "")
        storage.commit([(A, b"1")], expect={A: None})

    def test_somebodys_script_runs_too_long(self, server, opened):
        client = server.client()
        client.config_set("lua-time-limit", 10)
        patient, hasty = opened(), opened(timeout_s=0.05)
        with ThreadPoolExecutor(2) as pool:
            endless = pool.submit(server.client().eval, "while true do end", 0)
            until(lambda: is_busy(server))
            with pytest.raises(BusyError, match="nothing was written"):
                hasty.commit([(A, b"hasty")])
            waiting = pool.submit(patient.commit, [(A, b"patient")], (), {A: None})
            time.sleep(0.05)  # it may have asked by then
            client.script_kill()
            waiting.result(60)
            with suppress(Exception):
                endless.result()
        assert stored(hasty) == [(A, b"patient")]

    def test_a_server_that_loads_is_waited_for(self, server, opened):
        server.client().bgrewriteaof()  # else it loads what all tests before wrote, too, for longer than is waited
        until(lambda: is_appending(server.client()))
        storage = opened()
        keys = [bytes([kind]) + bytes([n]) for kind in range(60) for n in range(250)]
        storage.commit([(key, b"v") for key in keys])
        server.kill()
        server.start("--key-load-delay", "100", is_awaited=False)  # µs a key; it answers at each thousandth
        assert [key for key, _ in opened().scan([(bytes([kind]), bytes([kind + 1])) for kind in range(60)])] == keys
        storage.commit([(keys[0], b"2")], expect={keys[0]: b"v"})
        server.kill()
        server.start()

    def test_the_log_was_deleted_underneath(self, server, opened):
        storage = opened()
        storage.commit([(A, b"1")])
        server.client().flushall()
        with pytest.raises(StorageError, match=r"was deleted.*open it again"):
            storage.commit([(A, b"2")])
        opened()
        with pytest.raises(StorageError, match=r"was deleted.*open it again"):
            storage.commit([(A, b"2")])
        assert stored(opened()) == []

    def test_scripts_and_lanes_are_forgotten_in_between(self, server, opened):
        storage = opened()
        for n in range(20):
            if n % 3 == 0:
                server.client().script_flush()
            if n % 5 == 0:
                server.client().delete(*server.client().keys("*lane*") or ["none"])
            storage.commit([(A, b"%d" % n), (FED + b"%d" % n, b"")], expect={A: b"%d" % (n - 1) if n else None})
            assert storage.get([A]) == [b"%d" % n]
        assert len(list(storage.feed())) == 20

    def test_the_server_was_restarted(self, server, opened):
        storage = opened()
        storage.commit([(A, b"1")])
        server.kill()
        server.start()
        assert storage.get([A]) == [b"1"]
        server.kill()
        server.start()
        storage.commit([(A, b"2")], expect={A: b"1"})
        assert stored(storage) == [(A, b"2")]

    def test_the_server_is_away(self, server, opened):
        storage = opened(timeout_s=0.1)
        storage.commit([(A, b"1")])
        server.kill()
        for call in (lambda: storage.get([A]), lambda: storage.commit([(A, b"2")]), lambda: opened(timeout_s=60)):
            with patience(30), pytest.raises(StorageError, match=r"cannot be reached.*check"):
                call()
        server.start()
        assert stored(storage) == [(A, b"1")]
        storage.commit([(A, b"2")])

    def test_batches_that_the_server_would_not_take(self, opened, monkeypatch):
        storage = opened()
        monkeypatch.setattr(engine, "_MAX_BATCH_BYTES", 1000)
        monkeypatch.setattr(engine, "_MAX_BATCH_KEYS", 10)
        for call in (
            lambda: storage.commit([(A, b"v" * 1001)]),
            lambda: storage.commit([(A, b"v" * 600)], expect={A: b"v" * 600}),
            lambda: storage.commit([(A + bytes([n]), b"") for n in range(6)], [A + bytes([n]) for n in range(5)]),
        ):
            with pytest.raises(TooLargeError, match="Redis"):
                call()
        assert stored(storage) == []

    def test_a_batch_of_many_keys_and_long_values(self, opened):
        storage = opened()
        pairs = [(A + n.to_bytes(3, "big"), bytes([n % 256]) * (n % 300)) for n in range(20_000)]
        storage.commit([*pairs, (b"\x0b", b"v" * (20 << 20))])
        assert stored(storage) == pairs
        assert storage.get([b"\x0b", *(key for key, _ in pairs)]) == [b"v" * (20 << 20), *(value for _, value in pairs)]
        storage.commit([], [key for key, _ in pairs])
        assert stored(storage) == []


class TestBytes:
    @given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=5)), min_size=2))
    def test_members_sort_as_keys_whatever_the_values(self, pairs):
        pairs = dict(pairs)
        for kind in (A, FED):
            place = b"\0\1\2\0\0\0\0\0\0\xff" if kind == FED else b""
            members = {key: prefix_of(kind + key) + place + value for key, value in pairs.items()}
            assert sorted(members.values()) == [members[key] for key in sorted(members)]
            assert [pair_of(kind, member) for member in members.values()] == [(kind + k, v) for k, v in pairs.items()]

    def test_what_is_deleted_gives_its_memory_back(self, server, opened):
        storage = opened()
        storage.commit([(FED + bytes([n]), b"v" * 100) for n in range(200)] + [(A, b"x")])
        storage.commit([(A, b"y")], [FED + bytes([n]) for n in range(200)])
        assert set(server.client().keys("*kind*")) == {b"{eventlog}:kind:0a"}
        assert server.client().xlen("{eventlog}:feed") == 0


class TestFeed:
    def test_commit_by_commit_and_within_one_in_key_order(self, opened):
        storage = opened()
        storage.commit([(FED + b"b", b""), (A, b""), (FED + b"a", b"")])
        storage.commit([(A + b"1", b"")])
        storage.commit([(FED + b"0", b""), (FED + b"\0\0\xff", b"")])
        keys = [FED + b"a", FED + b"b", FED + b"\0\0\xff", FED + b"0"]
        assert [key for _, key in storage.feed()] == keys
        assert [key for _, key in storage.feed(limit=3)] == keys[:3]
        assert list(storage.feed(limit=0)) == []
        positions = [position for position, _ in storage.feed()]
        assert all(0 < len(position) <= 64 for position in positions)
        assert len(set(positions)) == 4
        for n, position in enumerate(positions):
            assert list(opened(readonly=True).feed(position)) == list(storage.feed())[n + 1 :]

    def test_more_than_a_page_and_what_comes_meanwhile(self, opened):
        storage = opened()
        keys = [FED + n.to_bytes(2, "big") for n in range(700)]
        storage.commit([(key, b"v") for key in keys[:600]])
        feed = storage.feed()
        first = [next(feed) for _ in range(10)]
        storage.commit([(key, b"v") for key in keys[600:]])
        assert [key for _, key in [*first, *feed]] == keys

    def test_what_conflicts_is_not_fed_and_what_is_deleted_is_left_out(self, opened):
        storage = opened()
        with pytest.raises(ExpectationError):
            storage.commit([(FED + b"1", b"")], expect={A: b""})
        storage.commit([(FED + b"2", b""), (FED + b"3", b"")])
        (gone, _), (last, _) = storage.feed()
        storage.commit([], [FED + b"2"])
        assert [key for _, key in storage.feed()] == [FED + b"3"]
        storage.commit([], [FED + b"3"])
        storage.commit([(FED + b"4", b"")])
        for position in (b"", gone, last):
            assert [key for _, key in storage.feed(position)] == [FED + b"4"]

    def test_a_position_is_valid_after_everything_was_deleted_and_the_server_restarted(self, server, opened):
        storage = opened()
        storage.commit([(FED + b"1", b"")])
        ((last, _),) = storage.feed()
        storage.commit([], [FED + b"1"])
        server.kill()
        server.start()
        assert list(opened().feed(last)) == []
        storage.commit([(FED + b"2", b"")])
        assert [key for _, key in storage.feed(last)] == [FED + b"2"]

    def test_positions_of_others_are_refused(self, server, opened):
        storage, other = opened(), opened("other")
        storage.commit([(FED, b"")])
        other.commit([(FED, b"")])
        ((theirs, _),) = other.feed()
        for bad in (theirs, b"x", theirs + b"0", b"\xff" * 18):
            with pytest.raises(InvalidInputError, match="position"):
                list(storage.feed(bad))
        ((ours, _),) = storage.feed()
        server.client().delete("{eventlog}:feed")  # as if a replica that lags had taken over
        with pytest.raises(InvalidInputError, match="lost"):
            list(storage.feed(ours))

    def test_after_close(self, opened):
        storage = opened()
        storage.commit([(FED + n.to_bytes(2, "big"), b"v") for n in range(600)])
        feed = storage.feed()
        next(feed)
        storage.close()
        with pytest.raises(ClosedError):
            storage.feed()
        with pytest.raises(ClosedError):
            list(feed)


class TestHandles:
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_parent_and_child_of_a_fork_have_their_own_connections(self, opened):
        storage = opened()
        storage.commit([(A, b"0")])
        for n in range(5):
            in_child(lambda n=n: storage.commit([(A, b"%d child" % n)], expect={A: b"%d" % n}))
            storage.commit([(A, b"%d" % (n + 1))], expect={A: b"%d child" % n})
            in_child(storage.close)
        assert storage.get([A]) == [b"5"]

    def test_connections_and_their_lanes_are_given_back(self, server, opened):
        storage = opened()
        gate = threading.Barrier(12)

        def write(n: int) -> None:
            gate.wait()
            storage.commit([(A + bytes([n]), b"")])

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(write, range(12)))
        assert len(stored(storage)) == 12
        storage.close()
        assert server.client().keys("*lane*") == []
        assert [client for client in server.client().client_list() if "evalsha" in client["cmd"]] == []


@pytest.fixture
def cluster() -> Iterator[list[Server]]:
    """Two servers that share the slots."""
    servers = [Server("--cluster-enabled", "yes", port=True) for _ in range(2)]
    half = 1 << 13
    for n, server in enumerate(servers):
        server.client().execute_command("CLUSTER", "ADDSLOTS", *range(n * half, (n + 1) * half))
    servers[0].client().execute_command("CLUSTER", "MEET", "127.0.0.1", servers[1].port)
    until(lambda: all(server.client().cluster("info")["cluster_state"] == "ok" for server in servers))
    yield servers
    for server in servers:
        server.stop()


def test_a_cluster_is_asked_where_the_log_is(cluster):
    for prefix in ("one", "two", "three"):
        handles = [RedisStorage(server.tcp_url(prefix)) for server in cluster]
        handles[0].commit([(A, b"1"), (FED, b"")])
        handles[1].commit([(A, b"2")], expect={A: b"1"})
        assert stored(handles[0]) == stored(handles[1]) == [(A, b"2")]
        for handle in handles:
            handle.close()
    assert all(server.client().dbsize() for server in cluster)


@pytest.mark.parametrize("url", ["redis://u:12#cret@localhost", "redis://localhost/0?retry=3"])
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url):
    with pytest.raises(InvalidInputError) as caught:
        RedisStorage(url)
    assert "12" not in str(caught.value)
