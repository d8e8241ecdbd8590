"""What must not be written, and what must not be read back: secrets, and types that nobody allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send
from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from eventlog import EventLog, UnknownTypeError, UnserializableError
from savers.langgraph import EventLogSaver, guard
from tests.langgraph.byhand import config
from tests.langgraph.test_sealed import encrypting, put, stored, values

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HIDDEN = SecretStr("swordfish")


class Color(Enum):
    RED = "red"


class Model(BaseModel):
    name: str
    key: SecretStr | None = None
    more: Any = None


@dataclass
class Record:
    color: Color
    more: Any = None


class Pair(NamedTuple):
    one: Any
    other: Any


class Moment(datetime):
    """Reads back by a call of a method."""


class Token(SecretStr):
    """A secret of the user's own kind."""


class Own(JsonPlusSerializer):
    """A serializer of the user's own, which writes as LangGraph's does."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return super().dumps_typed(obj)


class Json(JsonPlusSerializer):
    """Writes what LangGraph's once wrote."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "json", json.dumps(obj).encode()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path / "log") as opened:
        yield opened
        assert list(opened.verify()) == []


SERIALIZERS = {
    "the default one": lambda: None,
    "encrypting": encrypting,
    "with pickle": lambda: JsonPlusSerializer(pickle_fallback=True),
    "one's own": Own,
    "encrypting, of one's own": lambda: EncryptedSerializer(encrypting().cipher, Own()),
}


@pytest.fixture(params=SERIALIZERS)
def saver(request: pytest.FixtureRequest, log: EventLog) -> EventLogSaver:
    return EventLogSaver(log, serde=SERIALIZERS[request.param]())


HOLDERS = {
    "itself": (HIDDEN, ""),
    "bytes": ([SecretBytes(b"swordfish")], "[0]"),
    "a generic one": ({"k": Secret[str]("swordfish")}, "['k']"),
    "one's own": ((1, Token("swordfish")), "[1]"),
    "a list": ([1, [2, {"key": HIDDEN}]], "[1][1]['key']"),
    "a set": ({HIDDEN}, "[0]"),
    "a model": ({"m": Model(name="n", key=HIDDEN)}, "['m'].key"),
    "a model's field of any type": (Model(name="n", more=[HIDDEN]), ".more[0]"),
    "a message": ([AIMessage("hi", additional_kwargs={"api_key": HIDDEN})], "[0].additional_kwargs['api_key']"),
    "a dataclass": (Record(Color.RED, {"k": HIDDEN}), ".more['k']"),
    "a named tuple": (Pair(1, HIDDEN), "[1]"),
    "what is sent": (Send("node", {"k": HIDDEN}), ".arg['k']"),
    "what an interrupt asks": (Interrupt([HIDDEN], id="i"), ".value[0]"),
}


class TestSecrets:
    @pytest.mark.parametrize("holder", HOLDERS)
    def test_are_refused_wherever_they_stand(self, tmp_path, log, saver, holder):
        value, where = HOLDERS[holder]
        put(saver, "1", x=[1], y="seen")
        for call, path in (
            (lambda: put(saver, "2", "1", x=value, y="unseen"), "x"),
            (lambda: put(saver, "2", x=value), "x"),
            (lambda: put(saver, "2", "1", x=[1, value], y="unseen"), "x[1]"),
            (lambda: saver.put_writes(config("1"), [("y", "unseen"), ("x", value)], "task"), "x"),
            (lambda: put(saver, "2", "1", {"source": "loop", "why": value}, y="unseen"), "metadata['why']"),
        ):
            with pytest.raises(UnserializableError, match="a secret is never written") as caught:
                call()
            assert caught.value.path == path + where
            assert "swordfish" not in f"{caught.value} {caught.value.__cause__}"
        assert [item.config["configurable"]["checkpoint_id"] for item in saver.list(None)] == ["1"]
        assert saver.get_tuple(config()).pending_writes == []
        everything = stored(log, tmp_path)
        assert b"swordfish" not in everything
        assert b"unseen" not in everything

    def test_that_were_put_into_a_message_in_place_are_refused(self, log):
        saver = EventLogSaver(log)
        message = AIMessage("hi", id="1")
        put(saver, "1", messages=[message])
        message.additional_kwargs["api_key"] = HIDDEN
        with pytest.raises(UnserializableError, match="a secret is never written"):
            put(saver, "2", "1", messages=[message, AIMessage("there", id="2")])

    def test_are_found_by_langgraphs_own_functions(self):
        """At no cost, that is; where these are called otherwise, each value is looked through before."""
        assert guard._guarded_dumps is not None

    def test_are_found_where_langgraph_is_another_release_too(self, monkeypatch, log):
        monkeypatch.setattr(guard, "_guarded_dumps", None)
        saver = EventLogSaver(log)
        put(saver, "1", x=[1, Model(name="n")])
        with pytest.raises(UnserializableError, match="a secret is never written"):
            put(saver, "2", x=[1, Model(name="n", key=HIDDEN)])

    def test_a_word_like_it_is_no_secret(self, saver):
        said = {"text": "SecretStr get_secret_value", "SecretStr": ["SecretBytes"]}
        put(saver, "1", x=said)
        assert values(saver) == {"x": said}

    def test_other_serializers_of_the_process_are_left_alone(self):
        assert JsonPlusSerializer().loads_typed(JsonPlusSerializer().dumps_typed(HIDDEN)) == HIDDEN


def allowing(saver: EventLogSaver) -> str | None:
    """The line of code that a refusal gives; None if nothing is refused."""
    try:
        saver.get_tuple(config())
    except UnknownTypeError as error:
        return str(error)[str(error).index("saver = ") :]
    return None


class TestTypes:
    @pytest.mark.parametrize("value", [Color.RED, Model(name="n", more=1), Record(Color.RED), Pair(1, 2)], ids=repr)
    @pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"k": [1, [value]]}], ids=["bare", "nested"])
    @pytest.mark.parametrize("serde", [lambda: None, encrypting], ids=["plain", "encrypting"])
    def test_that_nobody_allowed_are_refused_until_the_line_is_run(self, log, serde, value, wrap):
        saver = EventLogSaver(log, serde=serde())
        put(saver, "1", x=wrap(value))
        saver.put_writes(config("1"), [("x", wrap(value))], "task")
        names: dict[str, Any] = {"saver": saver}
        while (line := allowing(names["saver"])) is not None:  # one type within another is refused on its own
            exec(line, names)
        found = names["saver"].get_tuple(config())
        assert found.checkpoint["channel_values"] == {"x": wrap(value)}
        assert found.pending_writes == [("task", "x", wrap(value))]
        with pytest.raises(UnknownTypeError):
            saver.get_tuple(config())

    def test_that_are_read_by_calling_a_method_are_refused(self, log):
        saver = EventLogSaver(log)
        put(saver, "1", x=Moment(2026, 1, 1))
        with pytest.raises(UnknownTypeError, match=r"calling fromisoformat\(\)") as caught:
            values(saver)
        assert "with_allowlist" not in str(caught.value)

    def test_what_was_json_is_refused(self, log):
        """It names what is to be called, too."""
        named = {"lc": 2, "type": "constructor", "id": ["pathlib", "Path"], "args": ["x"]}
        writer = EventLogSaver(log, serde=Json())
        put(writer, "1", x=[named])
        for serde in (None, JsonPlusSerializer(allowed_json_modules=True)):
            with pytest.raises(UnknownTypeError, match="could run code") as caught:
                values(EventLogSaver(log, serde=serde))
            assert caught.value.tag == "json"

    @pytest.mark.parametrize("is_strict", ["true", "false"])
    def test_of_a_graphs_state_are_allowed_by_langgraphs_own_switch(self, tmp_path, is_strict):
        """With `LANGGRAPH_STRICT_MSGPACK` LangGraph names the types of the state itself, by `with_allowlist`."""
        done = subprocess.run(
            [sys.executable, "-c", GRAPH, str(tmp_path / "log")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={"LANGGRAPH_STRICT_MSGPACK": is_strict, "PATH": "", "PYTHONPATH": str(ROOT)},
        )
        if is_strict == "true":
            assert done.stdout.strip() == "Record(color=<Color.RED: 'red'>, more=2) n", done.stderr
        else:
            assert "UnknownTypeError" in done.stderr
            assert "saver = saver.with_allowlist([('tests.langgraph.test_secrets', " in done.stderr


GRAPH = """
import sys
from typing import TypedDict
from langgraph.graph import START, StateGraph
from savers.langgraph import EventLogSaver
from tests.langgraph.test_secrets import Color, Model, Record

class State(TypedDict):
    record: Record
    model: Model

def work(state):
    return {"record": Record(Color.RED, (state["record"].more or 0) + 1), "model": Model(name="n")}

builder = StateGraph(State)
builder.add_node("work", work)
builder.add_edge(START, "work")
where = {"configurable": {"thread_id": "t"}}
with EventLogSaver.from_conn_string(sys.argv[1]) as saver:
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"record": Record(Color.RED)}, where)
    graph.invoke({}, where)
    state = graph.get_state(where).values
    print(state["record"], state["model"].name)
"""
