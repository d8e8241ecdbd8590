"""The views of PostgreSQL say of every event what `EventLog` itself says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import random
import struct
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any, TypedDict

import psycopg
import pytest
from psycopg.types.json import set_json_loads

from eventlog import AppendText, Delete, EventLog, Extend, Merge, Splice
from eventlog.cli.jsonable import jsonable
from savers.phrases import PHRASES
from tests import servers


@pytest.fixture
def url(tmp_path) -> str:
    return servers.postgres_location(tmp_path)


@pytest.fixture
def log(url):
    with EventLog.open(url) as opened:
        yield opened


@pytest.fixture
def rows(url):
    """What a statement answers, with the log's schema in front; JSON as the text that it is."""
    with psycopg.connect(servers.postgres().get_uri(), autocommit=True) as connection:
        set_json_loads(lambda data: data.decode() if isinstance(data, bytes) else data, connection)
        connection.execute(f"SET search_path = {url.rpartition('schema=')[2]}")
        yield lambda statement, *arguments: connection.execute(statement, arguments).fetchall()


def shown(written: Any) -> Any:
    """What a write is in the views, of what `EventLog` says it is."""
    if isinstance(written, Extend):
        return {"$type": "Extend", "items": jsonable(list(written.items))}
    if isinstance(written, Splice):
        return {"$type": "Splice", "edits": jsonable([[*edit[:2], list(edit[2])] for edit in written.edits])}
    if isinstance(written, AppendText):
        return {"$type": "AppendText", "text": written.text}
    if isinstance(written, Merge):
        changes = {key: shown(change) for key, change in written.changes.items()}
        plain = all(isinstance(key, str) for key in changes)
        pairs = {"$dict": [[jsonable(key), change] for key, change in changes.items()]}
        return {"$type": "Merge", "changes": changes if plain else pairs}
    return {"$type": "Delete"} if isinstance(written, Delete) else jsonable(written)


def text_of(value: Any) -> str:
    """JSON that tells 1 from 1.0, and one order of keys from another."""
    return json.dumps(value, ensure_ascii=False)


def check(log, rows) -> int:
    """That the views say the same; the number of events."""
    found = {}
    for run, branch, step, event_id, task, time, meta, writes in rows(
        "SELECT run, branch, step, id, task, time, meta, writes FROM events ORDER BY key"
    ):
        place = (run, branch, event_id)
        assert place not in found
        found[place] = (step, task, time, text_of(json.loads(meta)), text_of(json.loads(writes)))
    expected = {}
    for name in log.runs():
        run = log.run(name)
        shown_name = name if isinstance(name, str) else json.dumps(name, ensure_ascii=False)
        for branch in run.branches():
            for event in run.branch(branch.name).events():
                said = {channel: shown(written) for channel, written in event.writes.items()}
                expected[shown_name, event.branch, event.id] = (
                    event.step,
                    event.task,
                    event.time,
                    text_of(jsonable(dict(event.meta))),
                    text_of(said),
                )
    assert found == expected
    return len(found)


class Mood(enum.Enum):
    CALM = 1


@dataclasses.dataclass
class Trip:
    spent: int
    notes: list[str]


NAIVE = dt.datetime(2026, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 (stored as it is)
VALUES = {
    "null": None,
    "true": True,
    "false": False,
    "numbers": [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64, 2**200],
    "negative": [-1, -32, -33, -128, -129, -32_768, -32_769, -(2**31), -(2**31) - 1, -(2**63), -(2**63) - 1, -(2**200)],
    "texts": ["", "é", "\U0001f600", '"\\/\b\n', "x" * 31, "x" * 32, "x" * 255, "x" * 256, "x" * 70_000],
    "bytes": [b"", b"\0\xff", b"x" * 300, b"x" * 70_000, bytearray(b"y")],
    "lists": [[], list(range(15)), list(range(16))],
    "dicts": [{}, {"b": 1, "a": {"c": []}}, {str(n): n for n in range(16)}],
    "keys": {1: "a", (2, "b"): [None], "c": 3},
    "tuples": ((), (1, ("x",)), [(), []]),
    "sets": [{1}, frozenset({"a"}), set()],
    "dates": [dt.date(1, 2, 3), NAIVE, dt.time(1, 2), dt.time(1, 2, 3, 4, dt.UTC)],
    "zones": [
        dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone(-dt.timedelta(hours=9, minutes=30))),
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(seconds=3723))),
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=23, microseconds=5), "odd")),
    ],
}


class TestValues:
    def test_each_is_the_json_that_the_command_line_shows(self, log, rows):
        log.run("trip").append(VALUES)
        assert check(log, rows) == 1

    def test_heads_of_what_is_long(self, log, rows):
        assert rows(
            r"SELECT shown('\xdd000000020102'::bytea, 'msgpack/1'), shown('\xdf00000001a16102'::bytea, 'msgpack/1'), "
            r"shown('\xdb0000000161'::bytea, 'msgpack/1'), shown('\xc60000000161'::bytea, 'msgpack/1')"
        ) == [("[1, 2]", '{"a": 2}', '"a"', '{"$b64": "YQ=="}')]

    def test_numbers_with_a_point_are_the_same_to_the_last_bit(self, log, rows):
        seeded = random.Random(7)
        drawn = [struct.unpack(">d", seeded.randbytes(8))[0] for _ in range(2000)]
        special = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            1e22,
            1e-7,
            5e-324,
            -5e-324,
            2.2250738585072014e-308,
            1.7976931348623157e308,
        ]
        numbers = [*special, 2.225073858507201e-308, float("nan"), float("inf"), -float("inf"), *drawn]
        log.run("trip").append({"x": numbers})
        ((value,),) = rows("SELECT value FROM writes")
        assert list(map(repr, json.loads(value))) == list(map(repr, jsonable(numbers)))

    def test_what_json_has_no_word_for_is_its_type_and_what_it_is_made_of(self, log, rows):
        each = uuid.UUID(int=5)
        berlin = zoneinfo.ZoneInfo("Europe/Berlin")
        log.run("trip").append(
            {
                "id": each,
                "price": Decimal("1.50"),
                "long": dt.timedelta(days=-1, seconds=3),
                "at": dt.datetime(2026, 7, 1, 12, tzinfo=berlin),
                "mood": Mood.CALM,
                "trip": Trip(3, ["a"]),
                "nul": "a\0b",
                "nuls": {"a\0": 1},
            }
        )
        ((writes,),) = rows("SELECT writes FROM events")
        tag = __name__ + ":"
        assert json.loads(writes) == {
            "id": {"$type": "UUID", "value": str(each)},
            "price": {"$type": "Decimal", "value": "1.50"},
            "long": {"$type": "timedelta", "days": -1, "seconds": 3, "microseconds": 0},
            "at": {"$type": "datetime", "$iso": "2026-07-01T12:00:00", "zone": "Europe/Berlin"},
            "mood": {"$type": tag + "Mood", "value": "CALM"},
            "trip": {"$type": tag + "Trip", "value": {"spent": 3, "notes": ["a"]}},
            "nul": {"$type": "str", "$b64": "YQBi"},
            "nuls": {"$dict": [[{"$type": "str", "$b64": "YQA="}, 1]]},
        }
        assert rows("SELECT writes::jsonb->'price'->>'value' FROM events") == [("1.50",)]

    def test_the_deepest_that_can_be_stored(self, log, rows):
        value: Any = "end"
        for n in range(200):
            value = [value] if n % 2 else {"in": value}
        log.run("trip").append({"deep": value})
        assert check(log, rows) == 1

    def test_what_cannot_be_read_is_its_bytes_and_harms_nothing_else(self, log, rows):
        log.run("trip").append({"x": 1})
        assert rows(r"SELECT shown('\xc1'::bytea, 'msgpack/1'), shown('\x92'::bytea, 'msgpack/1')") == [
            ('{"$type": "msgpack/1", "$b64": "wQ=="}', '{"$type": "msgpack/1", "$b64": "kg=="}')
        ]
        assert rows(r"SELECT shown('\x01'::bytea, 'mine/1')") == [('{"$type": "mine/1", "$b64": "AQ=="}',)]


class TestEvents:
    def test_every_operation(self, log, rows):
        run = log.run(("trips", "by ann"))
        run.append({"list": [1, 2, 3, 4], "text": "a", "dict": {"x": {"y": 1, "l": [1]}, "gone": 1}, "gone": 1})
        run.append({"list": Extend([5]), "text": AppendText("é"), "gone": Delete()}, task="me", meta={"why": [1]})
        run.append({"list": Splice([(0, 1, ["n", (1,)]), (2, 2, []), (5, 0, [{}])]), "new": Extend([])})
        inner = Merge({"y": Delete(), "l": Extend([2]), "z": 3.0, "t": AppendText("b")})
        run.append({"dict": Merge({"x": inner, "gone": Delete(), "deep": {"a": 1}})})
        run.append({"keys": {1: 2}})
        run.append({"keys": Merge({1: 3, "a": 4})})
        run.append({})
        run.append({f"channel {n}": n for n in range(3000)})
        assert check(log, rows) == 8

    def test_what_stands_in_parts_of_its_own(self, log, rows):
        run = log.run("trip")
        run.append({"a": "x" * 100_000, "small": 1, "b": ["y" * 1000] * 100})
        run.append({"b": Extend(["z" * 50_000]), "a": AppendText("w" * 50_000), "small": 2})
        assert check(log, rows) == 2
        assert rows("SELECT count(*) FROM writes WHERE channel = 'a' AND operation = 'text'") == [(1,)]

    def test_runs_branches_ids_and_copies(self, log, rows):
        run = log.run("trip")
        run.append({"x": 1}, id=str(uuid.UUID(int=7)))
        run.append({"x": 2}, id="second")
        for name in ("aside", "again"):
            aside = run.fork(0, name)
            aside.append({"x": name})
            run = aside
        log.run(("other", "é")).append({"y": 1})
        assert check(log, rows) == 5
        log.copy("trip", "copied")
        log.run("copied").append({"x": 9})
        assert rows("SELECT run, branch, writes->>'x' FROM events WHERE run = 'copied'") == [("copied", "main", "9")]
        log.delete(("other", "é"))
        assert [name for name, _ in rows("SELECT run, codec FROM runs ORDER BY run")] == ["copied", "trip"]
        assert rows("SELECT count(*) FROM events WHERE run NOT IN ('trip', 'copied')") == [(0,)]

    def test_a_run_that_was_pruned(self, log, rows):
        run = log.run("trip")
        for n in range(6):
            run.append({"n": n}, id=f"id{n}")
        assert check(log, rows) == 6
        run.prune(["id4", "id5"])
        assert rows("SELECT id, writes->>'n' FROM events ORDER BY key") == [
            (event.id, str(event.writes["n"])) for event in run.events()
        ]

    def test_one_row_for_each_channel(self, log, rows):
        run = log.run("trip")
        run.append({"spent": 180, "city": "Rome"}, task="planner")
        run.append({"spent": 200})
        assert rows("SELECT step, task, channel, operation, value FROM writes WHERE run = 'trip' ORDER BY key, n") == [
            (0, "planner", "spent", "set", "180"),
            (0, "planner", "city", "set", '"Rome"'),
            (1, None, "spent", "set", "200"),
        ]


class Talk(TypedDict):
    said: list[Any]
    count: int


class TestSavers:
    def test_a_thread_of_langgraph(self, url, rows):
        messages = pytest.importorskip("langchain_core.messages")
        graph_of = pytest.importorskip("langgraph.graph")
        from savers.langgraph import EventLogSaver

        def node(state: Talk) -> dict[str, Any]:
            return {"said": [*state["said"], messages.AIMessage("hello", id="m2")], "count": state["count"] + 1}

        builder = graph_of.StateGraph(Talk)
        builder.add_node("node", node)
        builder.add_edge("__start__", "node")
        with EventLogSaver.from_conn_string(url) as saver:
            graph = builder.compile(checkpointer=saver)
            graph.invoke(
                {"said": [messages.HumanMessage("hi", id="m1")], "count": 1}, {"configurable": {"thread_id": "t"}}
            )
        found = rows("SELECT channel, operation, value FROM writes WHERE channel IN ('count', 'said') ORDER BY key, n")
        values = [(channel, json.loads(value)) for channel, _, value in found]
        assert [value for channel, value in values if channel == "count"][-1] == 2
        said = [value for channel, value in values if channel == "said"]
        assert any("hello" in json.dumps(value) and "AIMessage" in json.dumps(value) for value in said)
        assert rows("SELECT count(DISTINCT id) >= 3 FROM events") == [(True,)]

    def test_each_phrase_of_a_message_is_known(self, url, rows):
        EventLog.open(url).close()
        for number, phrase in enumerate(PHRASES):
            assert rows(f"SELECT lengthened('\\x61c1{number:02x}62'::bytea)") == [(b"a" + phrase + b"b",)]

    def test_what_is_encrypted_stays_so(self, url, rows):
        encrypted = pytest.importorskip("langgraph.checkpoint.serde.encrypted")
        from savers.langgraph import EventLogSaver

        serde = encrypted.EncryptedSerializer.from_pycryptodome_aes(key=b"sixteen bytes ok")
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        with EventLogSaver.from_conn_string(url, serde=serde) as saver:
            for n in range(2):
                values = {"x": {"password": ["hunter"] * (n + 1)}}
                checkpoint: Any = {
                    "v": 4,
                    "ts": "2026-01-01T00:00:00+00:00",
                    "id": f"{n}",
                    "channel_values": values,
                    "channel_versions": {"x": f"{n}"},
                    "versions_seen": {},
                }
                config = saver.put(config, checkpoint, {"source": "loop", "step": n}, {"x": f"{n}"})
        found = rows("SELECT channel, operation, value FROM writes ORDER BY key, n")
        assert {json.loads(value)["$type"] for _, _, value in found} == {"+aes"}
        assert "hunter" not in str(found)
        assert "password" not in str(found)

    def test_a_thread_of_the_plain_saver(self, url, rows):
        from savers import PostgresSaver

        with PostgresSaver(url) as saver:
            run = saver.log.run("t", codec=saver.serde)
            run.append({"x": {"a": 1}, "t": "é\0"})
            run.append({"x": Merge({"a": Delete(), "b": [2]})})
        changes = {"$type": "Merge", "changes": {"a": {"$type": "Delete"}, "b": [2]}}
        found = rows("SELECT channel, value FROM writes ORDER BY key, n")
        assert [(channel, json.loads(value)) for channel, value in found if channel == "x"] == [
            ("x", {"a": 1}),
            ("x", changes),
        ]
