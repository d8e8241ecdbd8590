"""Statements of LangGraph's contract about what a graph makes of its saver, and about serializers of all kinds."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from operator import add
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.constants import TASKS
from langgraph.graph import END, START, StateGraph

from eventlog import UnserializableError
from savers.langgraph import EventLogSaver
from tests.engines import LOCATIONS
from tests.langgraph.test_contract import checkpoint, config, put, values
from tests.langgraph.upstream import InMemorySaver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS = 4
who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class State(TypedDict):
    count: Annotated[int, add]
    seen: Annotated[list[str], add]


class Watched(EventLogSaver):
    """Counts what is asked of it, and notes in whose context."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls: Counter[str] = Counter()
        self.callers: set[tuple[str, str]] = set()
        self.ids: list[str] = []

    def _note(self, call: str) -> None:
        self.calls[call] += 1
        self.callers.add((call, who.get()))

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        self._note("put")
        self.ids.append(checkpoint["id"])
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self._note("put_writes")
        super().put_writes(config, writes, task_id, task_path)

    def get_tuple(self, config: Any) -> Any:
        self._note("get_tuple")
        return super().get_tuple(config)


def graph(saver: Any) -> Any:
    """Two tasks a superstep, so many supersteps."""
    builder = StateGraph(State)
    for name in "ab":
        builder.add_node(name, lambda state, name=name: {"count": 1, "seen": [name]})
        builder.add_edge(START, name)
        builder.add_conditional_edges(
            name, lambda state, name=name: name if state["count"] < 2 * STEPS - 1 else END, [name, END]
        )
    return builder.compile(checkpointer=saver)


@pytest.fixture(params=LOCATIONS)
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    with Watched.from_conn_string(LOCATIONS[request.param](tmp_path)) as saver:
        yield saver
        assert list(saver.log.verify()) == []


@pytest.mark.parametrize(("durability", "puts"), [("sync", STEPS + 2), ("async", STEPS + 2), ("exit", 1)])
def test_s35_each_durability_ends_with_the_same_state(watched, durability, puts):
    """And keeps a checkpoint a superstep, the input's and the first one's included, or one for all."""
    ended = graph(watched).invoke({"count": 0, "seen": []}, config(), durability=durability)
    assert ended == graph(InMemorySaver()).invoke({"count": 0, "seen": []}, config(), durability=durability)
    assert (watched.calls["put"], len(list(watched.list(config())))) == (puts, puts)
    assert graph(watched).get_state(config()).values == ended


def test_s36_puts_of_one_run_are_in_order_and_two_runs_on_one_thread_are_both_kept(watched):
    graph(watched).invoke({"count": 0, "seen": []}, config(), durability="async")
    assert watched.ids == sorted(watched.ids)
    ended: list[Any] = []
    runs = [
        threading.Thread(target=lambda: ended.append(graph(watched).invoke({"count": 0, "seen": []}, config())))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(ended) == 2
    assert {found.checkpoint["id"] for found in watched.list(config())} == set(watched.ids)


def test_s37_a_superstep_is_one_put_and_one_put_writes_a_task(watched):
    """And one for the input."""
    graph(watched).invoke({"count": 0, "seen": []}, config(), durability="sync")
    assert watched.calls == {"put": STEPS + 2, "put_writes": 2 * STEPS + 1, "get_tuple": 1}


def test_s38_the_callers_context_is_that_of_the_savers_threads(watched):
    contextvars.copy_context().run(lambda: (who.set("me"), graph(watched).invoke({"count": 0, "seen": []}, config())))
    assert {caller for call, caller in watched.callers if call != "put_writes"} == {"me"}
    assert ("put_writes", "me") in watched.callers  # those of the last task to end come from wherever it ended


def test_s38_many_runs_of_one_loop_are_bounded_and_all_end(watched):
    async def run() -> list[Any]:
        compiled = graph(watched)
        asked = [
            compiled.ainvoke({"count": 0, "seen": []}, {**config(thread=f"t{n}"), "max_concurrency": 2})
            for n in range(8)
        ]
        return await asyncio.gather(*asked)

    assert [ended["count"] for ended in asyncio.run(run())] == [2 * STEPS] * 8


class Own:
    """A serializer of a user's, with a tag that nobody else has."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return f"own-{type(obj).__name__}", repr(obj).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        tag, stored = data
        assert tag.startswith("own-")
        return {"int": int, "str": lambda text: text[1:-1]}[tag[4:]](stored.decode())


class Untyped:
    """One of the kind that LangGraph had before: no tags."""

    def dumps(self, obj: Any) -> bytes:
        return repr(obj).encode()

    def loads(self, data: bytes) -> Any:
        return int(data)


class Nothing(Own):
    """Hands out what it was given."""

    def dumps_typed(self, obj: Any) -> tuple[str, Any]:
        return "nothing", obj


def test_s43_a_serializers_tag_is_stored_with_its_bytes(tmp_path):
    with EventLogSaver.from_conn_string(tmp_path / "log", serde=Own()) as saver:
        put(saver, "a", {"n": 5, "text": "x" * 1000})
    with EventLogSaver.from_conn_string(tmp_path / "log", serde=Own()) as saver:
        assert values(saver) == {"n": 5, "text": "x" * 1000}
        saver.put_writes(config("a"), [("n", 6)], "task")
        assert saver.get_tuple(config("a")).pending_writes == [("task", "n", 6)]


def test_s43_an_untyped_serializer_serves():
    with EventLogSaver.from_conn_string("memory:", serde=Untyped()) as saver:
        put(saver, "a", {"n": 5})
        assert values(saver) == {"n": 5}


def test_s43_what_makes_no_bytes_is_refused():
    with EventLogSaver.from_conn_string("memory:", serde=Nothing()) as saver:
        with pytest.raises(UnserializableError, match="not bytes"):
            put(saver, "a", {"n": [5]})
        assert saver.get_tuple(config()) is None


def test_s44_a_cipher_makes_no_value_another_one():
    """Ciphertext differs each time; what changed is found before it is made."""
    serde = EncryptedSerializer.from_pycryptodome_aes(JsonPlusSerializer(), key=b"k" * 16)
    with EventLogSaver.from_conn_string("memory:", serde=serde) as saver:
        same = {"list": [{"a": 1}] * 50, "text": "x" * 3000, "n": 1}
        put(saver, "a", {**same, "m": 1}, {**dict.fromkeys(same, 1), "m": 1})
        before = saver.log.stats().bytes
        again = {"list": [{"a": 1} for _ in range(50)], "text": "x" * 3000, "n": 1}  # equal, and other objects
        put(saver, "b", {**again, "m": 2}, {**dict.fromkeys(same, 2), "m": 2}, parent="a")
        assert saver.log.stats().bytes - before < 2500
        assert values(saver) == {**again, "m": 2}


def test_s51_an_old_checkpoint_reads_as_upstreams_does(watched):
    """What PostgresSaver makes of pending sends when it reads, LangGraph's loop makes of them, too."""
    for saver in (watched, InMemorySaver()):
        put(saver, "a", {"n": 1})
        saver.put_writes(config("a"), [(TASKS, "packet")], "task")
        old = {**checkpoint("b", {"n": 2}, {"n": 2}), "v": 1, "pending_sends": []}
        saver.put(config("a"), old, {"source": "loop", "step": 1, "parents": {}}, {"n": 2})
        found = saver.get_tuple(config("b")).checkpoint
        assert (found["v"], found["channel_values"], found["pending_sends"]) == (1, {"n": 2}, [])


def test_s52_a_server_opens_it_by_an_async_context_manager(tmp_path):
    async def serve() -> Any:
        async with EventLogSaver.from_conn_string(tmp_path / "log") as saver:
            await graph(saver).ainvoke({"count": 0, "seen": []}, config())
            await saver.acopy_thread("t", "u")
            await saver.adelete_thread("t")
            return [found.config["configurable"]["thread_id"] async for found in saver.alist(None, limit=1)]

    assert asyncio.run(serve()) == ["u"]
