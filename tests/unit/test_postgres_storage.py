"""What only the PostgreSQL engine has: its schema, the server's settings, its feed, and what is no log."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypedDict

import psycopg
import pytest
from langgraph.graph import END, START, StateGraph

from eventlog import EventLog
from eventlog.cli import main
from eventlog.errors import (
    BusyError,
    ClosedError,
    ExpectationError,
    FormatError,
    InvalidInputError,
    StorageError,
    TooLargeError,
)
from eventlog.storage import open_storage
from eventlog.storage import postgres as engine
from eventlog.storage.postgres import PostgresStorage
from eventlog.storage.postgres_server import Server, place_of
from savers import PostgresSaver
from savers.langgraph import EventLogSaver as LangGraphSaver
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A, B = b"\x0a", b"\x0b"
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def url(tmp_path) -> str:
    return servers.postgres_location(tmp_path)


@pytest.fixture
def schema(url) -> str:
    return url.rpartition("schema=")[2]


@pytest.fixture
def admin():
    with psycopg.connect(servers.postgres().get_uri(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def storage(url):
    with closing(PostgresStorage(url)) as opened:
        yield opened


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Every statement that is asked, in order."""
    statements: list[str] = []
    ask = Server.ask

    def noting(server: Server, statement: str, arguments: Any) -> Any:
        statements.append(statement)
        return ask(server, statement, arguments)

    monkeypatch.setattr(Server, "ask", noting)
    return statements


class TestPlaces:
    def test_the_password_is_never_shown(self):
        place = place_of("postgresql://ann:s3cret@db.example:6432/app?sslmode=require&schema=runs&connect_timeout=3")
        assert place.shown == "postgresql://ann@db.example:6432/app?schema=runs"
        assert "schema" not in place.conninfo
        assert "s3cret" in place.conninfo
        assert "connect_timeout=3" in place.conninfo

    def test_without_a_schema_the_log_is_called_eventlog(self):
        assert place_of("postgres://db/app").schema == "eventlog"

    def test_may_leave_the_host_to_an_option(self):
        assert place_of("postgresql:///app?host=/run/db").conninfo == "postgresql:///app?host=%2Frun%2Fdb"

    @pytest.mark.parametrize("secret", ["s%zz3cret", "s3?cret", "s3@cret", "s3/cret", "12/s3cret", "s\x003cret"])
    def test_is_never_quoted_where_it_cannot_be_read(self, secret):
        with pytest.raises(InvalidInputError, match="cannot be read") as refused:
            place_of(f"postgresql://ann:{secret}@db/app")
        assert "cret" not in str(refused.value)

    def test_may_have_a_bracket_in_its_password(self):
        assert "s3" not in place_of("postgresql://ann:s3[cret@db/app").shown

    @pytest.mark.parametrize("name", ["", "a b", 'x"; DROP TABLE pairs; --', "1st", "é", "x" * 64, "a%s"])
    def test_a_name_that_is_no_name(self, name):
        with pytest.raises(InvalidInputError, match="letters, digits"):
            open_storage(f"postgresql://db/app?schema={name}")

    def test_a_url_that_cannot_be_read_is_refused_without_its_password(self):
        with pytest.raises(InvalidInputError) as caught:
            open_storage("postgresql://ann:s3cret@db/app?no_such_option=1")
        assert "no_such_option" in str(caught.value)
        assert "s3cret" not in str(caught.value)

    def test_a_server_that_is_not_there(self, tmp_path):
        for where in ("127.0.0.1:1", "no-such-host.invalid"):
            with pytest.raises(StorageError, match="is the server there") as caught:
                open_storage(f"postgresql://ann:s3cret@{where}/app")
            assert "s3cret" not in str(caught.value)

    def test_a_database_that_is_not_there(self, url):
        with pytest.raises(StorageError, match="no_such_base"):
            open_storage(url.replace("/postgres?", "/no_such_base?"))

    def test_the_command_line_takes_a_url(self, url, capsys):
        with EventLog.open(url) as log:
            log.run("trip").append({"spent": 180})
        assert main(["ls", url]) == 0
        assert "trip" in capsys.readouterr().out
        assert main(["show", "-s", url, "trip:0"]) == 0
        assert "180" in capsys.readouterr().out
        assert main(["ls", f"{url}x"]) == 3
        assert "no log at postgresql://" in capsys.readouterr().err

    def test_the_saver_keeps_it_there(self, url):
        with PostgresSaver(url) as saver:
            assert saver.log.location.startswith("postgresql://")
        with pytest.raises(InvalidInputError, match="begins with postgresql://"):
            PostgresSaver("sqlite:///a.db")


class TestSchema:
    def test_readonly_makes_nothing(self, url, schema, admin):
        with pytest.raises(FormatError, match="no log at postgresql://"):
            PostgresStorage(url, readonly=True)
        assert admin.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() == (None,)

    def test_readonly_writes_nothing(self, url, storage):
        storage.commit([(A, b"1")])
        with closing(PostgresStorage(url, readonly=True)) as reader:
            assert reader.get([A]) == [b"1"]
            with pytest.raises(StorageError, match="readonly"):
                reader.commit([(A, b"2")])
        assert storage.get([A]) == [b"1"]

    def test_a_newer_format_is_refused(self, url, schema, storage, admin):
        admin.execute(f"UPDATE {schema}.meta SET value = 99 WHERE name = 'format'")
        for readonly in (False, True):
            with pytest.raises(FormatError, match="format 99"):
                PostgresStorage(url, readonly=readonly)

    def test_older_functions_are_made_anew(self, url, schema, storage, admin):
        storage.commit([(A, b"1")])
        admin.execute(f"UPDATE {schema}.meta SET value = 0 WHERE name = 'functions'")
        admin.execute(f"DROP FUNCTION {schema}.flush")
        with closing(PostgresStorage(url, synchronous="off")) as again:
            again.commit([(A, b"2")], expect={A: b"1"})
            again.flush()
        assert storage.get([A]) == [b"2"]

    def test_tables_of_somebody_else_are_left_alone(self, url, schema, admin):
        admin.execute(f"CREATE SCHEMA {schema} CREATE TABLE pairs (x int)")
        with pytest.raises(FormatError, match="something else"):
            PostgresStorage(url)
        assert admin.execute(f"SELECT count(*) FROM {schema}.pairs").fetchone() == (0,)
        assert admin.execute("SELECT to_regclass(%s)", [f"{schema}.meta"]).fetchone() == (None,)

    @pytest.mark.parametrize(
        "meta",
        [
            "TABLE {}.meta (name text, value bigint)",
            "TABLE {}.meta (a int)",
            "VIEW {}.meta AS SELECT 'format'::text AS name, 'one'::text AS value",
        ],
    )
    def test_another_meta_is_no_log(self, url, schema, admin, meta):
        admin.execute(f"CREATE SCHEMA {schema}")
        admin.execute(f"CREATE {meta.format(schema)}")
        for readonly in (False, True):
            with pytest.raises(FormatError, match="something else"):
                PostgresStorage(url, readonly=readonly)

    def test_what_a_newer_release_made_is_left_alone(self, url, schema, storage, admin):
        admin.execute(f"UPDATE {schema}.meta SET value = CASE name WHEN 'format' THEN 2 ELSE 1 END")
        with pytest.raises(FormatError, match="format 2"):
            PostgresStorage(url)
        assert admin.execute(f"SELECT value FROM {schema}.meta WHERE name = 'functions'").fetchone() == (1,)

    def test_many_may_make_it_at_once(self, url):
        def make(number: int) -> None:
            with closing(PostgresStorage(url)) as made:
                made.commit([(A + bytes([number]), b"")])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(make, range(8)))
        with closing(PostgresStorage(url, readonly=True)) as storage:
            assert len(list(storage.scan([(A, B)]))) == 8

    def test_who_may_not_make_it_is_told(self, url, schema, admin):
        admin.execute(f"CREATE ROLE guest_{schema} LOGIN")
        with pytest.raises(StorageError, match="GRANT"):
            PostgresStorage(
                url.replace("postgres:@", f"guest_{schema}:@").replace("user=postgres", f"user=guest_{schema}")
            )

    def test_a_log_that_was_dropped_meanwhile(self, schema, storage, admin):
        admin.execute(f"DROP SCHEMA {schema} CASCADE")
        with pytest.raises(StorageError, match="dropped while it was open"):
            storage.commit([(A, b"1")])
        with pytest.raises(StorageError, match="dropped while it was open"):
            storage.get([A])


class TestDurability:
    def test_full_needs_a_server_that_flushes(self, url, admin):
        PostgresStorage(url, synchronous="full").close()
        set_to(admin, "fsync", "off")
        try:
            with pytest.raises(StorageError, match='fsync=off, full_page_writes=on; set them, or ask for "normal"'):
                PostgresStorage(url, synchronous="full")
            PostgresStorage(url, synchronous="normal").close()
        finally:
            set_to(admin, "fsync", "on")

    def test_a_mode_that_there_is_not(self, url):
        with pytest.raises(InvalidInputError, match="synchronous is"):
            PostgresStorage(url, synchronous="sometimes")

    @pytest.mark.parametrize(("mode", "waits"), [("full", "on"), ("normal", "on"), ("off", "off")])
    def test_commits_wait_for_the_disk_as_was_asked(self, url, schema, admin, mode, waits):
        with closing(PostgresStorage(url, synchronous=mode)) as storage:
            admin.execute(
                f"CREATE TABLE {schema}.seen AS SELECT ''::text AS how;"
                f"CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"UPDATE {schema}.seen SET how = current_setting('synchronous_commit'); RETURN NULL; END $$;"
                f"CREATE TRIGGER note AFTER INSERT ON {schema}.pairs EXECUTE FUNCTION {schema}.note()"
            )
            storage.commit([(A, b"1")])
            assert admin.execute(f"SELECT how FROM {schema}.seen").fetchone() == (waits,)
            storage.flush()
            assert storage.is_flushed() or mode == "off"  # somebody else may be writing

    def test_transactions_that_see_an_old_moment_are_refused(self, url, storage, admin):
        uri = f"{url}&options=-c%20default_transaction_isolation%3Dserializable"
        with closing(PostgresStorage(uri)) as other, pytest.raises(StorageError, match="READ COMMITTED"):
            other.commit([(A, b"1")])
        assert storage.get([A]) == [None]


class TestCommits:
    def test_each_call_is_one_statement(self, storage, asked):
        storage.commit([(A + bytes([n]), b"v") for n in range(100)], [B], {B: None, A: None})
        storage.get([A + bytes([n]) for n in range(100)])
        assert len(list(storage.scan([(A + bytes([n]), A + bytes([n, 0])) for n in range(50)], limit=30))) == 30
        assert len(asked) == 3

    def test_the_waiting_line_is_per_run(self, storage, admin, schema):
        run, other = b"\x0aRUN-ONE-", b"\x0aRUN-TWO-"
        held = storage._locks([run])
        with admin.transaction():
            admin.execute("SELECT pg_advisory_xact_lock(%s)", held)
            storage.commit([(other, b"1")])
            impatient = PostgresStorage(servers.postgres_url(schema), timeout_s=0.2)
            with closing(impatient), pytest.raises(BusyError, match="nothing was written"):
                impatient.commit([(run, b"1")])
        assert storage.get([run, other]) == [None, b"1"]

    def test_what_threads_commit_meanwhile_goes_together(self, storage, asked):
        def commit(number: int) -> None:
            for n in range(50):
                key = A + b"run %04d" % number
                storage.commit([(key, b"%d" % n), (b"E%04d-%04d" % (number, n), b"")], expect={key: last.get(key)})
                last[key] = b"%d" % n

        last: dict[bytes, bytes] = {}
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(commit, range(16)))
        assert len(asked) < 16 * 50 / 2
        assert storage.get([A + b"run %04d" % number for number in range(16)]) == [b"49"] * 16
        assert len({key for _, key in storage.feed()}) == 16 * 50

    def test_a_conflict_in_a_group_is_only_its_own(self, storage):
        """Whatever is written together: each has its own answer."""
        storage.commit([(A + b"taken---", b"1")])
        barrier = threading.Barrier(8)

        def commit(number: int) -> list[bytes]:
            barrier.wait()
            key, wrong = A + b"run %04d" % number, A + b"taken---"
            try:
                for n in range(20):
                    storage.commit([(key, b"%d" % n)], expect={wrong: b"1" if number % 2 or n < 10 else b"2"})
            except ExpectationError as error:
                return error.keys
            return []

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(commit, range(8)))
        assert found == [[A + b"taken---"], []] * 4
        assert storage.get([A + b"run %04d" % number for number in range(8)]) == [b"9", b"19"] * 4

    def test_who_waits_for_a_run_holds_up_nobody(self, storage, admin):
        run = b"\x0aRUN-ONE-"
        with ThreadPoolExecutor(9) as pool:
            with admin.transaction():
                admin.execute("SELECT pg_advisory_xact_lock(%s)", storage._locks([run]))
                waiting = pool.submit(storage.commit, [(run, b"1")])
                others = [A + b"run %04d" % number for number in range(8)]
                for key in others:
                    pool.submit(storage.commit, [(key, b"1")]).result(60)
                assert not waiting.done()
            waiting.result(60)
        assert storage.get([run, *others]) == [b"1"] * 9

    def test_two_that_expect_nothing_there_never_both_win(self, storage):
        """Also of keys that neither of them writes."""
        barrier = threading.Barrier(8)

        def race(number: int) -> bool:
            barrier.wait()
            try:
                storage.commit([(A + b"12345678" + bytes([number]), b"")], expect=dict.fromkeys(keys))
            except ExpectationError:
                return False
            return True

        keys = [A + b"12345678" + bytes([number]) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(race, range(8))) == 1

    def test_a_batch_over_the_limit(self, storage, monkeypatch):
        monkeypatch.setattr(engine, "_MAX_BATCH_BYTES", 100)
        with pytest.raises(TooLargeError):
            storage.commit([(A, b"v" * 100)])
        assert storage.get([A]) == [None]

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_page_reads_no_more_pairs_than_it_gives(self, storage, admin, monkeypatch, reverse):
        """However many there are behind: by the index, never all of the range and then sorted."""
        storage.commit([(A + b"%08d" % n, b"v" * 100) for n in range(10_000)])
        noting, plans = Server.ask, []

        def explaining(server: Server, statement: bytes, arguments: Any) -> Any:
            explained = b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement
            number = (1).to_bytes(8, "big")
            answer = admin.pgconn.exec_params(explained, [number, *arguments], param_formats=[1] * (1 + len(arguments)))
            plans.append(json.loads(answer.get_value(0, 0)))
            return noting(server, statement, arguments)

        monkeypatch.setattr(Server, "ask", explaining)
        assert len(list(storage.scan([(A, B)], reverse=reverse, limit=3000))) == 3000
        most = max(node["Actual Rows"] * node["Actual Loops"] for plan in plans for node in nodes(plan[0]["Plan"]))
        assert most <= 256 + 1  # with the row that says whose answer it is

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_page_of_long_values_has_few(self, storage, monkeypatch, reverse):
        long, pages = b"v" * (1 << 20), []
        keys = [A + b"%02d" % n for n in range(50)]
        pairs = [*zip(reversed(keys) if reverse else keys, [b""] * 40 + [long] * 10, strict=True)]
        storage.commit(pairs)
        ask = Server.ask

        def noting(server: Server, statement: bytes, arguments: Any) -> Any:
            pages.append(answer := ask(server, statement, arguments))
            return answer

        monkeypatch.setattr(Server, "ask", noting)
        assert list(storage.scan([(A, B), (B, B + B)], reverse=reverse)) == pairs
        assert max(sum(len(value or b"") for _, _, value in page) for page in pages) <= 1 << 20
        assert len(pages) <= 2 + 10 + 1

    def test_a_child_of_fork_has_connections_of_its_own(self, storage):
        storage.commit([(A, b"1")])
        child = os.fork()
        if not child:
            code = 1
            try:
                storage.commit([(A, b"2")], expect={A: b"1"})
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert storage.get([A]) == [b"2"]
        storage.commit([(A, b"3")], expect={A: b"2"})

    def test_closed_while_others_use_it(self, url):
        storage = PostgresStorage(url)
        storage.get([A])
        storage.close()
        storage.close()
        with pytest.raises(ClosedError):
            storage.get([A])


def set_to(admin: Any, name: str, value: str) -> None:
    """Change a setting of the server, and wait until it is true."""
    admin.execute(f"ALTER SYSTEM SET {name} = {value}")
    admin.execute("SELECT pg_reload_conf()")
    while admin.execute(f"SHOW {name}").fetchone() != (value,):
        time.sleep(0.01)


class TestFeed:
    def test_what_a_transaction_that_is_not_over_may_put_is_waited_for(self, storage, schema, admin):
        storage.commit([(b"E1", b"")])
        assert [key for _, key in storage.feed()] == [b"E1"]
        with psycopg.connect(servers.postgres().get_uri()) as slow:
            slow.execute(f"INSERT INTO {schema}.pairs VALUES ('E2', '', pg_current_xact_id())")
            storage.commit([(b"E3", b"")])
            fed = list(storage.feed())
            assert [key for _, key in fed] == [b"E1"]  # for E2 comes before E3
            slow.commit()
        assert [key for _, key in storage.feed(fed[-1][0])] == [b"E2", b"E3"]

    def test_a_position_of_what_the_server_lost_is_refused(self, storage):
        storage.commit([(b"E1", b"")])
        ((position, _),) = storage.feed()
        beyond = position[:8] + (1 << 60).to_bytes(8, "big") + position[16:]
        with pytest.raises(InvalidInputError, match="the server lost"):
            list(storage.feed(beyond))

    def test_a_dump_restored_into_another_cluster_is_fed_whole_and_in_order(self, storage, schema, admin):
        burn = "DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        other = servers.OwnPostgres()
        try:
            storage.commit([(b"E1", b"")])
            admin.execute(burn)  # so that its transactions have numbers that the other's have not reached
            storage.commit([(b"E3", b"")])
            storage.commit([(b"E2", b"")])
            positions = [position for position, _ in storage.feed()]
            servers.restore(servers.dump(schema), other)
            with closing(PostgresStorage(other.url(schema))) as restored:
                restored.commit([(b"E0", b"")])
                assert [key for _, key in restored.feed()] == [b"E1", b"E2", b"E3", b"E0"]
                assert [key for _, key in restored.feed(list(restored.feed())[1][0])] == [b"E3", b"E0"]
                for position in positions:
                    with pytest.raises(InvalidInputError, match="another log gave it"):
                        list(restored.feed(position))
            assert [key for _, key in storage.feed(positions[0])] == [b"E3", b"E2"]
        finally:
            other.stop()

    @pytest.mark.parametrize("position", [b"x", b"12345678", b"12345678X", b"\xff" * 30])
    def test_what_is_no_position(self, storage, position):
        with pytest.raises(InvalidInputError, match="no position"):
            storage.feed(position)


class TestConnections:
    def test_an_idle_connection_that_was_cut_is_not_noticed(self, storage, admin):
        storage.commit([(A, b"1")])
        for n in range(1, 6):
            cut(admin)
            assert storage.get([A]) == [b"%d" % n]
            cut(admin)
            storage.commit([(A, b"%d" % (n + 1))], expect={A: b"%d" % n})
            cut(admin)
            storage.commit([(B, b"%d" % n)], [A + b"x"])
        assert storage.get([A, B]) == [b"6", b"5"]

    def test_any_connection_will_do(self, url, tmp_path, monkeypatch):
        """As behind a pooler that hands each transaction to another one."""
        import itertools

        with closing(PostgresStorage(url)) as storage:
            pools = itertools.cycle([Server(place_of(url), 5) for _ in range(3)])
            opened = list(itertools.islice(pools, 3))
            monkeypatch.setattr(storage._server, "_pooled", lambda: next(pools)._pooled())
            with EventLog(storage) as log:
                run = log.run("a")
                for n in range(20):
                    run.append({"n": n, "list": [n]})
                assert [event.step for event in run.events()] == list(range(20))
                assert run.at(7)["n"] == 7
                assert list(log.verify()) == []
        for each in opened:
            each.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of a plan."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def cut(admin: Any) -> None:
    """Cut all connections but this one."""
    admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'eventlog' AND pid <> pg_backend_pid()"
    )


class OneByOne(LangGraphSaver):
    """Takes calls one at a time: two at once may ask twice for each other's sake. Notes how often each asks."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lock = threading.Lock()
        self.statements: list[str] = []
        self.trips: list[int] = []

    def noted(self, call: Callable[[], Any]) -> Any:
        with self.lock:
            before = len(self.statements)
            returned = call()
            self.trips.append(len(self.statements) - before)
            return returned

    def put(self, *arguments: Any) -> Any:
        return self.noted(lambda: super(OneByOne, self).put(*arguments))

    def put_writes(self, *arguments: Any) -> None:
        self.noted(lambda: super(OneByOne, self).put_writes(*arguments))


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_superstep_of_langgraph_is_two_round_trips(url, asked, durability):
    """One for its `put`, and one for its task's `put_writes`, once the thread has begun."""
    steps = 20

    class State(TypedDict):
        count: int

    builder = StateGraph(State)
    builder.add_node("work", lambda state: {"count": state["count"] + 1})
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", lambda state: "work" if state["count"] < steps else END, ["work", END])
    with OneByOne.from_conn_string(url) as saver:
        saver.statements = asked
        graph = builder.compile(checkpointer=saver)
        # one thread for all that LangGraph hands over, so that it comes in that order: late writes have to look
        config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 50, "max_concurrency": 1}
        graph.invoke({"count": 0}, config, durability=durability)
    assert len(saver.trips) == 2 * steps + 3  # one more of both for the input, and one `put` for the first superstep
    assert saver.trips[10:] == [1] * (2 * steps - 7)
