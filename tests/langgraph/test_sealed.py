"""With LangGraph's encrypting serializer nothing that a user says can be read without the key; the rest is as ever."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph, add_messages
from langgraph.types import Command, Interrupt, Send, interrupt

from eventlog import (
    CorruptionError,
    EventLog,
    Extend,
    Limits,
    TaskWrite,
    TooLargeError,
    UnknownTypeError,
    UnserializableError,
)
from eventlog.cli import main
from savers.langgraph import EventLogSaver
from savers.langgraph.serde import SerdeCodec
from tests.langgraph.byhand import Story, config, made
from tests.langgraph.test_contract import Foreign
from tests.langgraph.test_thread import Teller

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

ROOT = Path(__file__).parents[2]
SECRETS = (b"swordfish", b"confidential", b"Zorro")


def strict() -> JsonPlusSerializer:
    return JsonPlusSerializer(allowed_msgpack_modules=None)


def encrypting(key: bytes = b"sixteen bytes ok") -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(strict(), key=key)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path / "log") as opened:
        yield opened
        assert list(opened.verify()) == []


@pytest.fixture
def saver(log: EventLog) -> EventLogSaver:
    return EventLogSaver(log, serde=encrypting())


def put(saver: Any, checkpoint_id: str, parent: str | None = None, metadata: Any = None, **values: Any) -> None:
    checkpoint = made(checkpoint_id, values, dict.fromkeys(values, checkpoint_id))
    saver.put(config(parent), checkpoint, metadata or {"source": "loop"}, checkpoint["channel_versions"])


def values(saver: Any, checkpoint_id: str | None = None) -> dict[str, Any]:
    return saver.get_tuple(config(checkpoint_id)).checkpoint["channel_values"]


def stored(log: EventLog, directory: Path) -> bytes:
    """Every byte of every file."""
    log.flush()
    blobs = [path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()]
    assert blobs
    return b"".join(blobs)


def assert_hidden(log: EventLog, directory: Path, *more: bytes) -> None:
    everything = stored(log, directory)
    assert [word for word in (*SECRETS, *more) if word in everything] == []


class Talk(TypedDict):
    confidential_messages: Annotated[list[Any], add_messages]
    confidential_notes: dict[str, Any]


def test_no_word_of_a_graphs_run_is_in_the_files(tmp_path, log, saver):
    """Names of nodes and channels, values, keys of dicts, metadata, what tasks wrote, what an interrupt asks."""

    def zorro(state: Talk) -> Any:
        said = interrupt("which swordfish?")
        return {
            "confidential_messages": [AIMessage(f"swordfish {said}")],
            "confidential_notes": {**state["confidential_notes"], "swordfish": "swordfish"},
        }

    builder = StateGraph(Talk)
    builder.add_node("Zorro", zorro)
    builder.add_node("sent_Zorro", lambda said: {"confidential_notes": {"swordfish": said, "b": 1}})
    builder.add_edge(START, "Zorro")
    builder.add_conditional_edges("Zorro", lambda state: [Send("sent_Zorro", "swordfish")], ["sent_Zorro"])
    graph = builder.compile(checkpointer=saver)
    asked = {
        "configurable": {"thread_id": "public-thread", "who": "swordfish"},
        "metadata": {"confidential_tag": "swordfish"},
    }
    notes = {f"swordfish {n}": "x" * n for n in range(100)}
    graph.invoke({"confidential_messages": [HumanMessage("swordfish")], "confidential_notes": notes}, asked)
    assert graph.get_state(asked).tasks[0].interrupts[0].value == "which swordfish?"
    graph.invoke(Command(resume="swordfish, please"), asked)
    graph.update_state(asked, {"confidential_notes": {"swordfish": 3, "b": 1}}, as_node="Zorro")
    state = graph.get_state(asked)
    assert state.values["confidential_notes"] == {"swordfish": 3, "b": 1}
    assert [message.content for message in state.values["confidential_messages"]] == [
        "swordfish",
        "swordfish swordfish, please",
    ]
    assert state.metadata["confidential_tag"] == state.metadata["who"] == "swordfish"
    assert_hidden(log, tmp_path)
    assert b"public-thread" in stored(log, tmp_path)
    assert state.config["configurable"]["checkpoint_id"] in log.run("public-thread", codec=saver._codec).given_ids()


def test_a_change_of_a_long_value_and_its_snapshots_are_encrypted(tmp_path, log, saver):
    notes = {f"confidential {n}": {"swordfish": "y" * 50} for n in range(50)}
    text, items = "swordfish " * 300, ["swordfish " * 10] * 20
    put(saver, "00", notes=notes, text=text, items=items)
    for n in range(1, 60):
        notes = {**notes, f"Zorro {n % 7}": {"swordfish": n}}
        text += f"swordfish {n}"
        items = [*items, f"swordfish {n}" * 20]
        put(saver, f"{n:02}", f"{n - 1:02}", notes=notes, text=text, items=items)
    fresh = EventLogSaver(log, serde=encrypting())
    assert values(fresh) == values(saver) == {"notes": notes, "text": text, "items": items}
    assert len(values(fresh, "30")["items"]) == 50
    assert_hidden(log, tmp_path, b"yyyyyyyyyy")
    assert log.stats().bytes < 4_000_000  # nothing was written whole at each step


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    one, other = EventLog.open(tmp_path / "story"), EventLog.open(tmp_path / "story")
    yield Story(*(EventLogSaver(log, serde=encrypting()) for log in (one, one, other)))
    for log in (one, other):
        assert list(log.verify()) == []
        log.close()


@pytest.mark.parametrize("seed", range(20, 23))
def test_any_story_is_answered_as_upstream_answers_it(story: Story, seed: int):
    teller = Teller(story, seed)
    for _ in range(40):
        teller.step()
    story.check_all()


@pytest.mark.parametrize("name", ["~", "~~", "~v:a", "v:a", "~key", "a:b", "é" * 100])
def test_channels_and_nodes_may_have_any_name(story: Story, name: str):
    for n in range(3):
        story.put({name: n, "a": [n], f"~{name}": "x"}, versions_seen={name: {name: n}}, by=n)
    story.put({"a": [3]}, by=1)
    story.check_all()


def test_langgraphs_conformance_suite():
    async def opened() -> AsyncGenerator[EventLogSaver, None]:
        with EventLogSaver.from_conn_string("memory:", serde=encrypting()) as saver:
            yield saver
            assert list(saver.log.verify()) == []

    report = asyncio.run(validate(checkpointer_test(name="encrypted")(opened)))
    assert report.passed_all()


def test_what_tasks_wrote_is_in_order_and_read_by_filters_too(saver):
    put(saver, "1", metadata={"source": "loop", "who": "Zorro"}, n=1)
    put(saver, "2", "1", metadata={"source": "loop", "who": "Alice"}, n=2)
    saver.put_writes(config("1"), [("b", [1]), ("b", None)], "task-2", "~1")
    saver.put_writes(config("1"), [("a", b"x"), ("__interrupt__", Interrupt("?", id="i"))], "task-1", "~2")
    saver.put_writes(config("1"), [("b", "never")], "task-2", "~1")
    (found,) = saver.list(config(), filter={"who": "Zorro"})
    assert found.pending_writes == [
        ("task-2", "b", [1]),
        ("task-2", "b", None),
        ("task-1", "__interrupt__", Interrupt("?", id="i")),
        ("task-1", "a", b"x"),
    ]


class TestWhatIsEqual:
    """Ciphertext differs each time, so what changed is never found by it."""

    def test_is_not_written_again(self, log, saver):
        def state() -> dict[str, Any]:
            return {"messages": [HumanMessage("hello", id=f"{n}") for n in range(50)], "n": 1, "d": {"k": [1.5, [1]]}}

        put(saver, "1", **state())
        saver.put(config("1"), made("2", state(), dict.fromkeys(state(), "2")), {"source": "loop"}, {"n": "2"})
        put(EventLogSaver(log, serde=encrypting()), "3", "2", **state())
        run = saver.run("t")
        names = {checkpoint_id: set(run.event(checkpoint_id).writes) for checkpoint_id in "123"}
        kept = {name for name in names["1"] if not name.startswith("~")} | {"~metadata", "~rest", "~key"}
        assert len(kept) == 6
        assert not kept & (names["2"] | names["3"])
        assert values(saver, "3") == state()

    def test_a_message_more_is_one_message(self, log, saver):
        """However it is read anew, and by whoever goes on."""

        def messages(n: int) -> list[Any]:
            return [HumanMessage("hello " * 100, id=f"{n}") for n in range(n)]

        put(saver, "00", messages=messages(100))
        grown = []
        for n in range(1, 12):
            each = EventLogSaver(log, serde=encrypting()) if n % 3 == 0 else saver
            put(each, f"{n:02}", f"{n - 1:02}", messages=messages(100 + n))
            writes = saver.run("t").event(f"{n:02}").writes
            grown += [write for name, write in writes.items() if not name.startswith("~")]
        assert grown == [Extend(messages(100 + n)[-1:]) for n in range(1, 12)]


def forged(log: EventLog) -> None:
    """Another process has no key, and puts a whole thread."""
    put(EventLogSaver(log), "9", n="forged")


class TestDowngrade:
    """What somebody wrote without the key is refused, and says how to read it on purpose."""

    def test_a_thread_that_is_not_encrypted(self, log, saver):
        forged(log)
        for call in (
            lambda: values(saver),
            lambda: list(saver.list(config())),
            lambda: list(saver.list(config(), filter={"source": "loop"})),
            lambda: put(saver, "91", "9", n=1),
            lambda: put(saver, "91", n=1),
        ):
            with pytest.raises(CorruptionError, match="it is not encrypted") as caught:
                call()
        line = str(caught.value).split("use ")[1].split(" for it")[0]
        assert values(eval(line, {"EventLogSaver": EventLogSaver, "saver": saver})) == {"n": "forged"}

    def test_a_task_write(self, log, saver):
        put(saver, "1", n=1)
        saver.put_writes(config("1"), [("n", "true")], "task-1")
        EventLogSaver(log).put_writes(config("1"), [("n", "forged")], "task-2")
        with pytest.raises(CorruptionError, match="it is not encrypted"):
            saver.get_tuple(config())

    @pytest.mark.parametrize("which", ["a value", "~metadata", "~c", "~rest", "~key", "a version"])
    def test_a_channel_of_an_encrypted_checkpoint(self, log, saver, which):
        put(saver, "1", n=1)
        run = log.run("t", codec=SerdeCodec(strict()))
        (value,) = [name for name in run.state if not name.startswith("~")]
        (version,) = [name for name in run.state if name.startswith("~v:")]
        name = {"a value": value, "a version": version}.get(which, which)
        run.append({name: {"source": "forged"}}, id="2")
        with pytest.raises(CorruptionError, match="it is not encrypted"):
            values(saver, "2")
        with pytest.raises(CorruptionError, match="it is not encrypted"):
            put(saver, "3", "2", n=[1, 2])
        assert values(saver, "1") == {"n": 1}

    def test_without_the_key_what_is_encrypted_is_an_unknown_type(self, log, saver):
        put(saver, "1", n=1)
        saver.put_writes(config("1"), [("n", 1)], "task")
        plain = EventLogSaver(log)
        for call in (
            lambda: values(plain),
            lambda: list(plain.list(config(), filter={"source": "loop"})),
            lambda: put(plain, "2", "1", n=2),
            lambda: put(plain, "2", n=2),
        ):
            with pytest.raises(UnknownTypeError, match="it is encrypted"):
                call()
        assert values(saver) == {"n": 1}

    def test_with_another_key_it_is_not_opened(self, log, saver):
        put(saver, "1", n=1)
        other = EventLogSaver(log, serde=encrypting(b"another 16 bytes"))
        for call in (lambda: values(other), lambda: put(other, "2", "1", n=2)):
            with pytest.raises(CorruptionError, match="another key"):
                call()

    def test_two_runs_hide_one_name_differently(self, log, saver):
        for thread in ("t", "u"):
            where = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
            saver.put(where, made("1", {"n": 1}, {"n": 1}), {}, {"n": 1})
        names = [{name for name in saver.run(thread).state if not name.startswith("~")} for thread in ("t", "u")]
        assert len(names[0]) == len(names[1]) == 1
        assert names[0] != names[1]


def test_a_clone_with_more_types_allowed_is_encrypted_too(tmp_path, log, saver):
    put(saver, "1", x=Foreign("swordfish"))
    with pytest.raises(UnknownTypeError) as caught:
        values(saver)
    names = {"saver": saver}
    exec("saver = " + str(caught.value).split("saver = ")[1], names)
    assert values(names["saver"]) == {"x": Foreign("swordfish")}
    put(names["saver"], "2", "1", x=[Foreign("swordfish")])
    assert values(names["saver"]) == {"x": [Foreign("swordfish")]}
    assert_hidden(log, tmp_path)


def test_a_value_that_cannot_be_kept_is_named_as_its_user_names_it(saver):
    put(saver, "1", confidential=[1])
    with pytest.raises(UnserializableError, match=r"^confidential\[1\]") as caught:
        put(saver, "2", "1", confidential=[1, object()])
    assert caught.value.path == "confidential[1]"
    with pytest.raises(UnserializableError, match=r"^confidential"):
        put(saver, "2", confidential=object())
    small = EventLogSaver(EventLog.open("memory:", limits=Limits(value_bytes=2000)), serde=encrypting())
    with pytest.raises(TooLargeError, match=r"^confidential: value bytes"):
        put(small, "1", confidential="x" * 3000)
    small.log.close()


def test_tools_without_the_key_say_so(tmp_path, log, saver):
    put(saver, "1", notes={"a": 1, "b": "x" * 500})
    put(saver, "2", "1", notes={"a": 2, "b": "x" * 500})
    log.flush()
    for arguments in (["ls"], ["log", "t"], ["show", "t:1"], ["diff", "t:1"]):
        done = subprocess.run(
            [sys.executable, "-m", "eventlog", *arguments, "-s", str(tmp_path / "log")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if arguments != ["diff", "t:1"]:
            assert (done.returncode, done.stderr) == (0, "")
        else:
            assert done.stderr.startswith("eventlog: unknown type tag '+aes': it is encrypted; read it by the saver")


def test_a_runs_own_writes_are_read_with_the_key(saver):
    put(saver, "1", notes={"a": 1, "b": "x" * 500}, items=[1], text="x" * 500)
    put(saver, "2", "1", notes={"a": 2, "b": "x" * 500}, items=[1, 2])
    writes = saver.run("t").event("2").writes
    assert {type(write).__name__ for write in writes.values()} >= {"Merge", "Extend", "Delete"}


def test_one_task_write_says_nothing_but_its_task(log, saver):
    put(saver, "1", n=1)
    saver.put_writes(config("1"), [("confidential", 1)], "task", "Zorro")
    (write,) = log.run("t", codec=saver._codec).task_writes("1")
    assert isinstance(write, TaskWrite)
    assert (write.task, write.channel, write.path) == ("task", "~", "")


def test_the_command_line_shows_what_is_public_and_says_that_the_rest_is_encrypted(
    saver: EventLogSaver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(saver, "a", said=["confidential"])
    put(saver, "b", "a", said=["confidential", "swordfish"])
    saver.put_writes(config("a"), [("said", "Zorro")], "task")
    saver.log.flush()
    store = ["-s", str(tmp_path / "log")]
    for command, shown in (
        ("ls", ["  t\n"]),
        ("log", ["encrypted", "head main"]),
        ("show", ["parent  t:0", "encrypted"]),
    ):
        assert main([*store, command, *([] if command == "ls" else ["t"])]) == 0
        text = capsys.readouterr().out
        assert all(each in text for each in shown), text
    for command in ("log", "show"):
        assert main([*store, command, "t", "--json", *(["--state"] if command == "show" else ["-p"])]) == 0
        assert "encrypted" in str(json.loads(capsys.readouterr().out))
    for options in ([], ["--json"]):
        assert main([*store, "diff", "t:0", "t:1", *options]) == 6
        told = capsys.readouterr()
        assert told.out == ""
        assert "it is encrypted" in told.err
        assert told.err.count("\n") == 1
