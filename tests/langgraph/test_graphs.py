"""Real graphs on our saver; the same graphs on upstream's own saver, told the same story, end the same.

Ids, times and task ids differ from run to run; what is compared is what a user sees: values, next, step, source,
interrupts, and which checkpoint each one was made from.
"""

from __future__ import annotations

import asyncio
import operator
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Interrupt, Send, interrupt
from typing_extensions import TypedDict

from eventlog import UnserializableError
from savers.langgraph import EventLogSaver
from tests.engines import LOCATIONS, PERSISTENT
from tests.langgraph.upstream import InMemorySaver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG: Any = {"configurable": {"thread_id": "t"}}
DURABILITIES = ["sync", "async", "exit"]


class State(TypedDict, total=False):
    n: int
    log: Annotated[list[str], operator.add]
    seen: Annotated[dict[str, Any], operator.or_]


class Pair:
    """The same story on both savers. `saver` opens ours again each time, as a new process would."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.theirs = InMemorySaver()

    def tell(self, story: Callable[[Any], Any]) -> Any:
        """Run a story on both; the answers have to be equal."""
        with EventLogSaver.from_conn_string(self.location) as saver:
            ours = story(saver)
            assert list(saver.log.verify()) == []
        assert ours == story(self.theirs)
        return ours


@pytest.fixture(params=PERSISTENT)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    return Pair(LOCATIONS[request.param](tmp_path))


def history(graph: Any, config: Any = CONFIG) -> list[dict[str, Any]]:
    """A thread's whole history, newest first, with each checkpoint's parent as a number in it."""
    snapshots = list(graph.get_state_history(config))
    places = {item.config["configurable"]["checkpoint_id"]: place for place, item in enumerate(snapshots)}

    def place(config: Any) -> Any:
        return None if config is None else places[config["configurable"]["checkpoint_id"]]

    return [{**shown(item), "parent": place(item.parent_config)} for item in snapshots]


def shown(item: Any) -> dict[str, Any]:
    return {
        "values": item.values,
        "next": item.next,
        "metadata": {key: (item.metadata or {}).get(key) for key in ("source", "step", "why")},
        "tasks": sorted((task.name, len(task.path), repr(task.error)) for task in item.tasks),
        "interrupts": [found.value for found in item.interrupts],
    }


def counting(*, ask: bool = False, **compile_options: Any) -> Callable[[Any], Any]:
    """begin → work (loops until n is 4) → end; it may ask a person first."""

    def begin(state: State) -> State:
        answer = interrupt({"question": "how many?", "n": state["n"]}) if ask else 0
        return {"n": state["n"] + answer, "log": ["begin"], "seen": {"begin": {"n": state["n"]}}}

    def work(state: State) -> State:
        return {"n": state["n"] + 1, "log": [f"work {state['n']}"], "seen": {f"{state['n']}": [state["n"]]}}

    builder = StateGraph(State)
    builder.add_node("begin", begin)
    builder.add_node("work", work)
    builder.add_edge(START, "begin")
    builder.add_edge("begin", "work")
    builder.add_conditional_edges("work", lambda state: END if state["n"] >= 4 else "work")
    return lambda saver: builder.compile(checkpointer=saver, **compile_options)


# --- run and resume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_run_and_its_history(pair, durability):
    make = counting()
    told = pair.tell(
        lambda saver: (make(saver).invoke({"n": 0, "log": []}, CONFIG, durability=durability), history(make(saver)))
    )
    assert told[0]["log"] == ["begin", "work 0", "work 1", "work 2", "work 3"]
    assert len(told[1]) == (1 if durability == "exit" else 7)
    again = pair.tell(lambda saver: (shown(make(saver).get_state(CONFIG)), history(make(saver))))
    assert again[1] == told[1]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_second_run_goes_on_where_the_first_ended(pair, durability):
    make = counting()
    for number in range(3):
        told = pair.tell(
            lambda saver, n=number: make(saver).invoke({"n": n, "log": [f"{n}"]}, CONFIG, durability=durability)
        )
    assert told["log"].count("begin") == 3
    pair.tell(lambda saver: history(make(saver)))


def noting(saver: Any, written: tuple[str, Any], is_kept: threading.Event) -> Any:
    """The saver; it says when it has kept what a task wrote."""
    put_writes = saver.put_writes

    def noted(config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        put_writes(config, writes, task_id, task_path)
        if written in writes:
            is_kept.set()

    saver.put_writes = noted
    return saver


def test_a_run_that_failed_is_resumed_after_reopening(pair):
    failures = {"left": 0}
    is_kept = threading.Event()

    def flaky(state: State) -> State:
        if failures["left"]:
            failures["left"] -= 1
            assert is_kept.wait(60)
            raise RuntimeError("the network is down")
        return {"log": ["flaky"]}

    builder = StateGraph(State)
    builder.add_node("steady", lambda state: {"log": ["steady"], "n": 1})
    builder.add_node("beside", lambda state: {"log": ["beside"]})
    builder.add_node("flaky", flaky)
    builder.add_edge(START, "steady")
    builder.add_edge("steady", "beside")
    builder.add_edge("steady", "flaky")

    def fail(saver: Any) -> Any:
        failures["left"] = 1
        is_kept.clear()
        graph = builder.compile(checkpointer=noting(saver, ("log", ["beside"]), is_kept))
        with pytest.raises(RuntimeError, match="network"):
            graph.invoke({"log": ["in"]}, CONFIG, durability="sync")
        return shown(graph.get_state(CONFIG))

    told = pair.tell(fail)
    assert told["next"] == ("flaky",)

    def resume(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver)
        return graph.invoke(None, CONFIG), history(graph)

    assert pair.tell(resume)[0]["log"] == ["in", "steady", "beside", "flaky"]


def test_a_run_that_was_stopped_before_a_node_goes_on(pair):
    make = counting(interrupt_before=["work"])
    for expected in (["begin"], ["begin", "work 0"], ["begin", "work 0", "work 1"]):
        told = pair.tell(
            lambda saver: make(saver).invoke(None if history(make(saver)) else {"n": 0, "log": []}, CONFIG)
        )
        assert told["log"] == expected
        assert pair.tell(lambda saver: shown(make(saver).get_state(CONFIG)))["next"] == ("work",)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_interrupt_is_answered_after_reopening(pair, durability):
    make = counting(ask=True)

    def ask(saver: Any) -> Any:
        graph = make(saver)
        found = graph.invoke({"n": 1, "log": []}, CONFIG, durability=durability)
        return [item.value for item in found["__interrupt__"]], shown(graph.get_state(CONFIG)), history(graph)

    told = pair.tell(ask)
    assert told[0] == [{"question": "how many?", "n": 1}]
    assert told[1]["next"] == ("begin",)

    def answer(saver: Any) -> Any:
        graph = make(saver)
        return graph.invoke(Command(resume=2), CONFIG, durability=durability), history(graph)

    assert pair.tell(answer)[0]["n"] == 4


def _asks_twice() -> Any:
    def ask(state: State) -> State:
        first = interrupt("first?")
        second = interrupt(f"second after {first}?")
        return {"log": [first, second]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    return builder


class Slow(EventLogSaver):
    """With async durability, what a task wrote then comes before the checkpoint that it was run on."""

    def put(self, *arguments: Any) -> Any:
        time.sleep(0.1)
        return super().put(*arguments)


def test_the_second_interrupt_replaces_the_first_where_it_came_before_its_checkpoint(tmp_path):
    with Slow.from_conn_string(tmp_path / "runs.log") as saver:
        graph = _asks_twice().compile(checkpointer=saver)
        for given, question in (({"log": []}, "first?"), (Command(resume="one"), "second after one?")):
            graph.invoke(given, CONFIG)
            assert [item.value for item in graph.get_state(CONFIG).interrupts] == [question]
        assert graph.invoke(Command(resume="two"), CONFIG)["log"] == ["one", "two"]
        assert list(saver.log.verify()) == []


def test_two_interrupts_of_one_node(pair):
    builder = _asks_twice()

    def step(given: Any) -> Callable[[Any], Any]:
        def one(saver: Any) -> Any:
            graph = builder.compile(checkpointer=saver)
            found = graph.invoke(given, CONFIG)
            return found.get("log"), [item.value for item in found.get("__interrupt__", ())], history(graph)

        return one

    assert pair.tell(step({"log": []}))[1] == ["first?"]
    assert pair.tell(step(Command(resume="one")))[1] == ["second after one?"]
    assert pair.tell(step(Command(resume="two")))[0] == ["one", "two"]


def test_interrupts_of_parallel_nodes_are_answered_by_their_ids(pair):
    builder = StateGraph(State)
    for name in "abc":
        builder.add_node(name, lambda state, name=name: {"log": [f"{name}: {interrupt(name)}"]})
        builder.add_edge(START, name)

    def ask(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver)
        return sorted(item.value for item in graph.invoke({"log": []}, CONFIG)["__interrupt__"])

    assert pair.tell(ask) == ["a", "b", "c"]

    def answer(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver)
        pending: list[Interrupt] = list(graph.get_state(CONFIG).interrupts)
        first = {item.id: item.value.upper() for item in pending if item.value != "b"}
        left = graph.invoke(Command(resume=first), CONFIG)["__interrupt__"]
        return [item.value for item in left], history(graph)

    assert pair.tell(answer)[0] == ["b"]
    last = lambda saver: (builder.compile(checkpointer=saver).invoke(Command(resume="B"), CONFIG), saver)[0]
    assert pair.tell(last)["log"] == ["a: A", "b: B", "c: C"]


# --- time travel ----------------------------------------------------------------------------------------------------


def _find(graph: Any, step: int) -> Any:
    return next(item for item in graph.get_state_history(CONFIG) if item.metadata["step"] == step)


def test_a_fork_by_update_state_on_an_older_checkpoint(pair):
    make = counting()
    pair.tell(lambda saver: make(saver).invoke({"n": 0, "log": []}, CONFIG))

    def fork(saver: Any) -> Any:
        graph = make(saver)
        before = history(graph)
        at = graph.update_state(_find(graph, 2).config, {"n": 2, "log": ["by hand"]}, as_node="work")
        forked = shown(graph.get_state(at))
        ended = graph.invoke(None, at)
        return before, forked, ended, history(graph), shown(graph.get_state(CONFIG))

    before, forked, ended, after, _ = pair.tell(fork)
    assert forked["values"]["log"] == ["begin", "work 0", "by hand"]
    assert ended["log"] == ["begin", "work 0", "by hand", "work 2", "work 3"]
    assert [item["values"] for item in after[-len(before) :]] == [item["values"] for item in before]
    assert {item["metadata"]["source"] for item in after} == {"input", "loop", "update"}


def test_a_replay_from_an_older_checkpoint(pair):
    make = counting()
    pair.tell(lambda saver: make(saver).invoke({"n": 0, "log": []}, CONFIG))

    def replay(saver: Any) -> Any:
        graph = make(saver)
        return graph.invoke(None, _find(graph, 1).config), history(graph)

    told = pair.tell(replay)
    assert told[0]["log"] == ["begin", "work 0", "work 1", "work 2", "work 3"]
    pair.tell(replay)


def test_forks_of_forks(pair):
    make = counting()
    pair.tell(lambda saver: make(saver).invoke({"n": 0, "log": []}, CONFIG))

    def fork(saver: Any) -> Any:
        graph = make(saver)
        for round_number in range(4):
            old = list(graph.get_state_history(CONFIG))[round_number * 2 + 1]
            at = graph.update_state(old.config, {"n": 3, "log": [f"fork {round_number}"]}, as_node="begin")
            graph.invoke(None, at)
        return history(graph)

    pair.tell(fork)
    pair.tell(fork)


def test_a_copy_of_a_checkpoint_and_updates_of_an_empty_thread(pair):
    make = counting()

    def story(saver: Any) -> Any:
        graph = make(saver)
        graph.update_state(CONFIG, {"n": 3, "log": ["first"]}, as_node="begin")
        first = history(graph)
        ended = graph.invoke(None, CONFIG)
        graph.update_state(_find(graph, 0).config, None, as_node="__copy__")
        copied = shown(graph.get_state(CONFIG))
        graph.update_state(CONFIG, None, as_node=END)
        return first, ended, copied, history(graph)

    told = pair.tell(story)
    assert told[2]["metadata"]["source"] == "fork"
    assert told[2]["values"]["log"] == ["first"]


def test_history_is_filtered_and_limited(pair):
    make = counting()

    def story(saver: Any) -> Any:
        graph = make(saver)
        graph.invoke({"n": 0, "log": []}, {**CONFIG, "metadata": {"why": "test"}})
        all_of_it = list(graph.get_state_history(CONFIG))
        return [
            [shown(item) for item in found]
            for found in (
                graph.get_state_history(CONFIG, filter={"source": "loop", "why": "test"}),
                graph.get_state_history(CONFIG, filter={"why": "other"}),
                graph.get_state_history(CONFIG, limit=2),
                graph.get_state_history(CONFIG, before=all_of_it[3].config),
            )
        ]

    told = pair.tell(story)
    assert [len(found) for found in told] == [6, 0, 2, 3]
    assert told[0][0]["metadata"]["why"] == "test"


# --- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
def test_parallel_nodes_meet_in_a_reducer(pair, durability):
    barrier = threading.Barrier(6, timeout=60)
    at_once: Any = {**CONFIG, "max_concurrency": 12}  # else as many threads as a machine has processors, and four
    builder = StateGraph(State)
    for number in range(6):

        def node(state: State, number: int = number) -> State:
            barrier.wait()
            return {"log": [f"{number}"], "seen": {f"{number}": {"n": number}}}

        builder.add_node(f"fan {number}", node)
        builder.add_edge(START, f"fan {number}")
        builder.add_edge(f"fan {number}", "join")
    builder.add_node("join", lambda state: {"n": len(state["log"]), "log": ["join"]})

    def run(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver)
        return graph.invoke({"log": ["in"]}, at_once, durability=durability), history(graph)

    assert pair.tell(run)[0]["log"] == ["in", "0", "1", "2", "3", "4", "5", "join"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_send(pair, durability):
    builder = StateGraph(State)
    builder.add_node("split", lambda state: {"log": ["split"]})
    builder.add_node("part", lambda state: {"log": [f"part {state['part']}"]})
    builder.add_node("join", lambda state: {"n": len(state["log"])})
    builder.add_edge(START, "split")
    builder.add_conditional_edges("split", lambda state: [Send("part", {"part": n}) for n in range(12)], ["part"])
    builder.add_edge("part", "join")

    def run(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver, interrupt_before=["part"])
        graph.invoke({"log": []}, CONFIG, durability=durability)
        return shown(graph.get_state(CONFIG)), history(graph)

    assert pair.tell(run)[0]["next"] == ("part",) * 12

    def resume(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver)
        return graph.invoke(None, CONFIG, durability=durability), history(graph)

    assert pair.tell(resume)[0]["log"] == ["split", *(f"part {n}" for n in range(12))]


def _parent_of_a_subgraph(*, remembers: bool) -> Callable[[Any], Any]:
    class Inner(TypedDict, total=False):
        n: int
        log: Annotated[list[str], operator.add]
        visits: Annotated[int, operator.add]

    inner = StateGraph(Inner)
    inner.add_node("one", lambda state: {"log": ["inner one"], "visits": 1})
    inner.add_node("two", lambda state: {"log": [f"inner two: {interrupt('inside?')}"]})
    inner.add_edge(START, "one")
    inner.add_edge("one", "two")
    builder = StateGraph(State)
    builder.add_node("before", lambda state: {"log": ["before"]})
    builder.add_node("inner", inner.compile(checkpointer=True if remembers else None))
    builder.add_node("after", lambda state: {"log": ["after"]})
    builder.add_edge(START, "before")
    builder.add_edge("before", "inner")
    builder.add_edge("inner", "after")
    return lambda saver: builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("remembers", [False, True])
def test_a_subgraph_is_interrupted_and_resumed_after_reopening(pair, durability, remembers):
    make = _parent_of_a_subgraph(remembers=remembers)

    def ask(saver: Any) -> Any:
        graph = make(saver)
        found = graph.invoke({"n": 0, "log": []}, CONFIG, durability=durability)
        inner = graph.get_state(CONFIG, subgraphs=True).tasks[0].state
        namespace = inner.config["configurable"]["checkpoint_ns"]
        within: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}
        return [item.value for item in found["__interrupt__"]], shown(inner), history(graph), history(graph, within)

    told = pair.tell(ask)
    assert told[0] == ["inside?"]
    assert told[1]["next"] == ("two",)

    def answer(saver: Any) -> Any:
        graph = make(saver)
        return graph.invoke(Command(resume="yes"), CONFIG, durability=durability), history(graph)

    assert pair.tell(answer)[0]["log"][-2:] == ["inner two: yes", "after"]
    pair.tell(lambda saver: [sorted(item.metadata) for item in saver.list(CONFIG)])
    namespaces = lambda saver: len(
        {item.config["configurable"]["checkpoint_ns"].split(":")[0] for item in saver.list(CONFIG)}
    )
    assert pair.tell(namespaces) == 2


def test_a_subgraph_is_forked_from_within(pair):
    make = _parent_of_a_subgraph(remembers=False)
    pair.tell(lambda saver: bool(make(saver).invoke({"n": 0, "log": []}, CONFIG)))

    def fork(saver: Any) -> Any:
        graph = make(saver)
        inner = graph.get_state(CONFIG, subgraphs=True).tasks[0].state
        graph.update_state(inner.config, {"log": ["by hand"]}, as_node="one")
        found = graph.invoke(Command(resume="yes"), CONFIG)
        return found, history(graph)

    assert "by hand" in pair.tell(fork)[0]["log"]


def test_messages(pair):
    def answer(state: MessagesState) -> Any:
        number = len(state["messages"])
        return {"messages": [AIMessage(f"answer {number}", id=f"a{number}", additional_kwargs={"n": [number]})]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")

    def talk(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver)
        number = len(graph.get_state(CONFIG).values.get("messages", ()))
        found = graph.invoke({"messages": [HumanMessage("hello", id=f"h{number}")]}, CONFIG)
        graph.update_state(CONFIG, {"messages": [HumanMessage("edited", id="h0")]})
        return found, history(graph)

    for turn in range(4):
        told = pair.tell(talk)
        assert len(told[0]["messages"]) == 2 * (turn + 1)
    assert [type(message).__name__ for message in told[0]["messages"][:2]] == ["HumanMessage", "AIMessage"]
    assert told[0]["messages"][0].content == "edited"


def test_a_node_that_changes_its_state_in_place(pair):
    class Loose(TypedDict, total=False):
        bag: dict[str, Any]
        n: int

    def spoil(state: Loose) -> Loose:
        bag = state["bag"]
        bag["items"].append(len(bag["items"]))
        bag["deep"]["k"] = [*bag["deep"].get("k", []), "x"]
        return {"bag": bag, "n": state["n"] + 1}

    builder = StateGraph(Loose)
    builder.add_node("spoil", spoil)
    builder.add_edge(START, "spoil")
    builder.add_conditional_edges("spoil", lambda state: END if state["n"] >= 6 else "spoil")

    def run(saver: Any) -> Any:
        graph = builder.compile(checkpointer=saver)
        ended = graph.invoke({"bag": {"items": [], "deep": {}}, "n": 0}, CONFIG, durability="sync")
        return ended, history(graph)

    told = pair.tell(run)
    assert [len(item["values"]["bag"]["items"]) for item in told[1] if item["values"]] == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_async_graph(pair, durability):
    async def work(state: State) -> State:
        await asyncio.sleep(0)
        return {"n": state["n"] + 1, "log": [f"work {state['n']}"]}

    async def beside(state: State) -> State:
        return {"log": ["beside"], "seen": {"beside": interrupt("beside?")}}

    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_node("beside", beside)
    builder.add_edge(START, "work")
    builder.add_edge(START, "beside")

    def told_as(saver: Any) -> Any:
        async def run() -> Any:
            graph = builder.compile(checkpointer=saver)
            first = await graph.ainvoke({"n": 0, "log": []}, CONFIG, durability=durability)
            asked = [item.value for item in first["__interrupt__"]]
            ended = await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
            found = [shown(item) async for item in graph.aget_state_history(CONFIG)]
            at = await graph.aupdate_state(CONFIG, {"log": ["by hand"]}, as_node="work")
            return asked, ended, found, shown(await graph.aget_state(at))

        return asyncio.run(run())

    told = pair.tell(told_as)
    assert told[0] == ["beside?"]
    assert told[1]["log"] == ["beside", "work 0"]


def test_many_async_runs_at_once(pair):
    make = counting()

    def told_as(saver: Any) -> Any:
        async def run() -> Any:
            graph = make(saver)
            configs: list[Any] = [{"configurable": {"thread_id": f"{n}"}} for n in range(20)]
            ended = await asyncio.gather(*(graph.ainvoke({"n": 0, "log": [f"{n}"]}, c) for n, c in enumerate(configs)))
            return ended, [len([item async for item in graph.aget_state_history(c)]) for c in configs]

        return asyncio.run(run())

    told = pair.tell(told_as)
    assert [item["log"][0] for item in told[0]] == [f"{n}" for n in range(20)]
    assert told[1] == [7] * 20


def test_async_context_manager(tmp_path):
    async def run() -> Any:
        async with EventLogSaver.from_conn_string(tmp_path / "runs.log") as saver:
            graph = counting()(saver)
            ended = await graph.ainvoke({"n": 0, "log": []}, CONFIG)
            assert list(saver.log.verify()) == []
            return ended

    assert asyncio.run(run())["n"] == 4


def test_a_relative_sqlite_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def run() -> Any:
        async with EventLogSaver.from_conn_string("sqlite:///runs.db", synchronous="full") as saver:
            await counting()(saver).ainvoke({"n": 0, "log": []}, CONFIG)
        with EventLogSaver.from_conn_string("sqlite:///runs.db") as saver:
            return counting()(saver).get_state(CONFIG).values

    assert asyncio.run(run())["n"] == 4
    assert [file.name for file in tmp_path.iterdir()] == ["runs.db"]


def test_a_value_that_cannot_be_kept_stops_the_run(tmp_path):
    builder = StateGraph(State)
    builder.add_node("good", lambda state: {"n": 1})
    builder.add_node("bad", lambda state: {"seen": {"callback": lambda: None}})
    builder.add_edge(START, "good")
    builder.add_edge("good", "bad")
    with EventLogSaver.from_conn_string(tmp_path / "runs.log") as saver:
        graph = builder.compile(checkpointer=saver)
        with pytest.raises(UnserializableError):
            graph.invoke({"n": 0, "log": []}, CONFIG, durability="sync")
        assert graph.get_state(CONFIG).values == {"n": 1, "log": [], "seen": {}}
        assert graph.get_state(CONFIG).next == ("bad",)
        assert list(saver.log.verify()) == []


def test_a_saver_is_asked_by_the_graph_and_by_its_user_at_once(tmp_path):
    """A graph in strict mode works on a clone of the saver; the user goes on asking the saver itself."""
    with EventLogSaver.from_conn_string(tmp_path / "runs.log") as saver:
        assert saver.get_tuple(CONFIG) is None
        clone = saver.with_allowlist([("tests", "Something")])
        ended = counting()(clone).invoke({"n": 0, "log": []}, CONFIG)
        found = saver.get_tuple(CONFIG)
        assert found is not None
        assert found.checkpoint["channel_values"]["log"] == ended["log"]
        saver.delete_thread("t")
        assert clone.get_tuple(CONFIG) is None
        again = counting()(clone).invoke({"n": 0, "log": []}, CONFIG)
        assert saver.get_tuple(CONFIG).checkpoint["channel_values"]["log"] == again["log"]
        assert list(saver.log.verify()) == []


def test_a_deleted_thread_begins_anew(pair):
    make = counting()

    def story(saver: Any) -> Any:
        graph = make(saver)
        graph.invoke({"n": 0, "log": []}, CONFIG)
        saver.delete_thread("t")
        return shown(graph.get_state(CONFIG)), graph.invoke({"n": 2, "log": []}, CONFIG), history(graph)

    assert pair.tell(story)[1]["log"] == ["begin", "work 2", "work 3"]


def test_what_a_run_changed_is_what_its_events_say(tmp_path):
    """A step of the log is the superstep; its writes are what the superstep changed, not the whole state."""
    with EventLogSaver.from_conn_string(tmp_path / "runs.log") as saver:
        graph = counting()(saver)
        graph.invoke({"n": 0, "log": ["x" * 1000] * 100}, CONFIG, durability="sync")
        sizes = [len(repr(event.writes.get("log"))) for event in _run(saver).events()]
        assert max(sizes[2:]) < 200
        assert [event.step for event in _run(saver).events()] == [-1, 0, 1, 2, 3, 4, 5]
        assert _run(saver).at(2)["n"] == 1


def _run(saver: EventLogSaver) -> Any:
    from savers.langgraph.serde import SerdeCodec

    return saver.log.run("t", codec=SerdeCodec(saver.serde))
