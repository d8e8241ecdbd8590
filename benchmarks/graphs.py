"""LangGraph's graphs, run with each saver: `durability="sync"`, one invoke, pinned to one core.

All savers run the same graph with the same input in the same order; the time of step k is taken in the node itself,
from one call to the next, so it holds everything that LangGraph and the saver do between.
"""

from __future__ import annotations

import gc
import operator
import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from benchmarks import peers
from benchmarks.machine import pin
from benchmarks.ours import written_whole
from benchmarks.payload import text
from benchmarks.peers import IDENTITY, MEMORY, NO, NULL, OURS, OURS_FULL, POSTGRES, SQLITE, SQLITE_NORMAL
from benchmarks.runner import Job, Results, job
from benchmarks.table import Fact, Row, Sheet, at_least, at_most, figure, judged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Node = Callable[[dict[str, Any]], dict[str, Any]]

SAVERS = (NO, NULL, OURS, OURS_FULL, IDENTITY, MEMORY, SQLITE, SQLITE_NORMAL, POSTGRES)
_TASKS = 8
TAIL = 50
_PARTS = 4


def _counter() -> tuple[Any, Node, dict[str, Any]]:
    """A counter beside a note that stays: 200 B."""
    fields = {"count": int, "note": str}
    return fields, lambda state: {"count": state["count"] + 1}, {"count": 0, "note": text(180)}


def _chat(*, tools: bool = False, delta: bool = False) -> tuple[Any, Node, dict[str, Any]]:
    """One message a step, through the reducer that everybody uses."""
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.graph.message import add_messages

    reducer: Any = add_messages
    if delta:
        from langgraph.channels import DeltaChannel
        from langgraph.graph.message import _messages_delta_reducer

        reducer = DeltaChannel(_messages_delta_reducer)

    def speak(state: dict[str, Any]) -> dict[str, Any]:
        said = text(500, state["count"])
        call = {"name": "search", "args": {"query": said[:40], "filters": {"year": 2024}}, "id": f"c{state['count']}"}
        message = AIMessage(said, tool_calls=[call]) if tools else HumanMessage(said)
        return {"messages": [message], "count": state["count"] + 1}

    return {"messages": Annotated[list, reducer], "count": int}, speak, {"messages": [], "count": 0}


def _document() -> tuple[Any, Node, dict[str, Any]]:
    """A megabyte that stays while a counter moves."""
    return (
        {"document": str, "count": int},
        lambda state: {"count": state["count"] + 1},
        {"document": text(1_000_000), "count": 0},
    )


def _table() -> tuple[Any, Node, dict[str, Any]]:
    """A dict of 1,000 entries of 1 kB; each step writes one entry, which the reducer puts into a new dict."""

    def change(state: dict[str, Any]) -> dict[str, Any]:
        at = state["count"]
        return {"table": {f"key-{at * 7 % 1000}": text(1000, at)}, "count": at + 1}

    given = {"table": {f"key-{index}": text(1000, index + 5000) for index in range(1000)}, "count": 0}
    return {"table": Annotated[dict, operator.or_], "count": int}, change, given


def _channels() -> tuple[Any, Node, dict[str, Any]]:
    """1,000 channels, of which one changes."""
    names = [f"channel_{index}" for index in range(999)]
    fields: dict[str, Any] = dict.fromkeys(names, str)
    return (
        {**fields, "count": int},
        lambda state: {"count": state["count"] + 1},
        {**dict.fromkeys(names, "c" * 20), "count": 0},
    )


WORKLOADS: dict[str, Callable[[], tuple[Any, Node, dict[str, Any]]]] = {
    "counter": _counter,
    "chat": _chat,
    "chat with tool calls": lambda: _chat(tools=True),
    "chat on DeltaChannel": lambda: _chat(delta=True),
    "1 MB document stays": _document,
    "one entry of a 1 MB dict": _table,
    "1,000 channels, one changes": _channels,
}
TASKS = "8 parallel tasks a superstep"


def compiled(workload: str, saver: Any, steps: int, times: list[float]) -> tuple[Any, dict[str, Any]]:
    from langgraph.graph import END, START, StateGraph

    if workload == TASKS:
        return _parallel(saver, steps, times)
    fields, node, given = WORKLOADS[workload]()

    def timed(state: dict[str, Any]) -> dict[str, Any]:
        times.append(time.perf_counter())
        return node(state)

    builder = StateGraph(TypedDict("Schema", fields))  # type: ignore[operator]
    builder.add_node("work", timed)
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", lambda state: "work" if state["count"] < steps else END, ["work", END])
    return builder.compile(checkpointer=saver), given


def _parallel(saver: Any, steps: int, times: list[float]) -> tuple[Any, dict[str, Any]]:
    """Every superstep runs all tasks at once; each writes its own channel and the sum."""
    from langgraph.graph import END, START, StateGraph

    names = [f"task_{index}" for index in range(_TASKS)]
    builder = StateGraph(TypedDict("Schema", {**dict.fromkeys(names, int), "count": Annotated[int, operator.add]}))  # type: ignore[operator]

    def task(name: str) -> Node:
        def work(state: dict[str, Any]) -> dict[str, Any]:
            if name == names[0]:
                times.append(time.perf_counter())
            return {name: state.get(name, 0) + 1, "count": 1}

        return work

    def onward(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda state: name if state["count"] < steps * _TASKS else END

    for name in names:
        builder.add_node(name, task(name))
        builder.add_edge(START, name)
        builder.add_conditional_edges(name, onward(name), [name, END])
    return builder.compile(checkpointer=saver), {"count": 0}


def steps(directory: Path, workload: str, saver: str, n: int, is_timed: bool = False) -> dict[str, Any]:
    """So many supersteps in one invoke.

    Returns:
        `step_us` over all, `late_us` over the last ones, `early_us`; `bytes` on disk per step after closing; `flushes`
        per step, waited for by a caller; where `is_timed`, `inside_us`: processor time in the saver's calls per step.
    """
    pin()
    times: list[float] = []
    with peers.opened(saver, directory) as opened:
        spent = _watched(opened.saver) if is_timed else []
        graph, given = compiled(workload, opened.saver, n, times)
        gc.collect()
        gc.freeze()  # the modules are there once: walking them is no saver's work
        config = {"configurable": {"thread_id": "thread"}, "recursion_limit": n + 10}
        before, began = opened.flushes, time.perf_counter()
        graph.invoke(given, config, durability=None if saver == NO else "sync")
        took = time.perf_counter() - began
        flushes = opened.flushes - before
        kept = peers.stored_while_open(opened)
    gaps = [(b - a) * 1e6 for a, b in pairwise(times)]
    return {
        "step_us": took / n * 1e6,
        "late_us": statistics.median(gaps[-TAIL:]),
        "bytes": (peers.stored(directory) if kept is None else kept) / n,
        "flushes": flushes / n,
        "inside_us": sum(spent) / n / 1e3,
        "steps": n,
        "curve_us": _curve(gaps),
    }


def grown(directory: Path, workload: str, n: int) -> dict[str, Any]:
    """One thread of 2n supersteps with our saver: what the second n add to the disk, whatever the first state cost.

    Closed after every quarter of n, so that everything is where it will stay. What that leaves free for the next time
    to take is in both figures then; each part but the first begins with an input, one checkpoint more.

    Returns:
        `first` and `bytes`: bytes on disk per step after n and after 2n; `added`, those of a step between; `manifests`
        and `snapshots` that were written between.
    """
    sizes, whole = [], []
    for part in range(2 * _PARTS):
        reached, until = n * part // _PARTS, n * (part + 1) // _PARTS
        with peers.opened(OURS, directory) as opened:
            graph, given = compiled(workload, opened.saver, until, [])
            config = {"configurable": {"thread_id": "thread"}, "recursion_limit": n + 10}
            graph.invoke({"count": reached} if part else given, config, durability="sync")
        sizes.append(peers.stored(directory))
        whole.append(written_whole(directory))
    half, end = sizes[_PARTS - 1], sizes[-1]
    manifests, snapshots = (after - before for before, after in zip(whole[_PARTS - 1], whole[-1], strict=True))
    found = {"first": half / n, "bytes": end / n / 2, "added": (end - half) / n}
    return {**found, "manifests": manifests, "snapshots": snapshots}


def _curve(gaps: list[float], points: int = 20) -> list[float]:
    """Medians over slices of the run, for the plot."""
    size = max(len(gaps) // points, 1)
    return [statistics.median(gaps[at : at + size]) for at in range(0, len(gaps), size)]


def _watched(saver: Any) -> list[int]:
    """Time every call into the saver, by the processor time of the thread that makes it; nanoseconds per call."""
    spent: list[int] = []

    def watch(name: str) -> None:
        inner = getattr(saver, name)

        def call(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return inner(*arguments, **named)
            finally:
                spent.append(time.thread_time_ns() - began)

        setattr(saver, name, call)

    for name in ("put", "put_writes", "get_next_version"):
        watch(name)
    return spent


def encoded_message(_: Path) -> dict[str, Any]:
    """The size of one chat message as LangGraph's serializer encodes it."""
    from langchain_core.messages import HumanMessage
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    message = HumanMessage(text(500), id="00000000-0000-0000-0000-000000000000")
    return {"bytes": len(JsonPlusSerializer().dumps_typed(message)[1])}


def label(workload: str, saver: str) -> str:
    """How a run of the family is called."""
    return f"{workload} / {saver}"


_INSIDE = "inside / "


def jobs(*, quick: bool) -> dict[str, Job]:
    """What a target names; `wide` runs every saver on every workload."""
    counter, chat = (100, 40) if quick else (2000, 1000)
    plan = {
        "counter": (counter, (NULL, OURS, OURS_FULL, SQLITE)),
        "chat": (chat, (NULL, OURS, IDENTITY, SQLITE_NORMAL)),
        "chat with tool calls": (chat, (NULL, OURS)),
    }
    found = {
        label(workload, saver): job("graphs.steps", workload=workload, saver=saver, n=n)
        for workload, (n, savers) in plan.items()
        for saver in savers
    }
    for saver in (OURS, NULL):
        found[_INSIDE + saver] = job("graphs.steps", workload="counter", saver=saver, n=counter, is_timed=True)
    return found


def rows(found: Results) -> list[Row]:
    """Lines 4 and 5."""

    def of(workload: str, saver: str) -> str:
        return label(workload, saver)

    counter, full, shipped = of("counter", OURS), of("counter", OURS_FULL), of("counter", SQLITE)
    chat, chat_null, chat_sqlite = of("chat", OURS), of("chat", NULL), of("chat", SQLITE_NORMAL)
    tools, tools_null = of("chat with tool calls", OURS), of("chat with tool calls", NULL)
    identity = of("chat", IDENTITY)
    n = len(next(iter(found.runs.values()), []))

    def inside() -> Row:
        value = found.median(_INSIDE + OURS, "inside_us")
        note = f"the do-nothing saver: {found.median(_INSIDE + NULL, 'inside_us'):.1f} µs; median of {n}"
        return at_most("4", "counter: processor time inside the saver a superstep", value, 30, "µs", note)

    def superstep() -> Row:
        note = f"{found.median(counter, 'step_us'):.0f} against {found.median(of('counter', NULL), 'step_us'):.0f} µs"
        value = found.ratio(counter, of("counter", NULL), "step_us")
        return at_most("4", "counter, `normal`: superstep / do-nothing saver", value, 1.15, note=note)

    def flushes() -> Row:
        return at_most("4", "counter, `full`: flushes a superstep", round(found.median(full, "flushes"), 2), 1.01, "")

    def rate() -> Row:
        value = found.ratio(shipped, full, "step_us")
        return at_least("4", "counter, `full`: rate / SqliteSaver as shipped", value, 1.5)

    def late(name: str, ours: str, null: str, limit: float) -> Row:
        note = f"{found.median(ours, 'late_us'):.0f} against {found.median(null, 'late_us'):.0f} µs"
        return at_most("5", name, found.ratio(ours, null, "late_us"), limit, note=note)

    def against_sqlite() -> Row:
        value = found.ratio(chat_sqlite, chat, "late_us")
        return at_least("5", "chat, last steps: rate / SqliteSaver NORMAL", value, 5)

    sound = "chat, last steps: superstep / do-nothing saver, sound detection"
    with_tools = "the same with tool calls"
    by_identity = "chat, last steps: the same by identity"
    return [
        judged(found, "4", "inside the saver", (_INSIDE + OURS, _INSIDE + NULL), inside),
        judged(found, "4", "counter superstep", (counter, of("counter", NULL)), superstep),
        judged(found, "4", "flushes", (full,), flushes),
        judged(found, "4", "rate in full", (full, shipped), rate),
        judged(found, "5", sound, (chat, chat_null), lambda: late(sound, chat, chat_null, 1.5)),
        judged(found, "5", with_tools, (tools, tools_null), lambda: late(with_tools, tools, tools_null, 2)),
        judged(found, "5", "chat against SqliteSaver", (chat, chat_sqlite), against_sqlite),
        judged(found, "5", by_identity, (identity, chat_null), lambda: late(by_identity, identity, chat_null, 1.15)),
    ]


def sheets(found: Results) -> list[Sheet]:
    """Rates, late latencies and bytes: a row per workload, a column per saver."""
    return [
        _sheet(found, "steps a second", lambda name: figure(1e6 / found.median(name, "step_us"))),
        _sheet(found, "µs a step over the last 50 steps", lambda name: figure(found.median(name, "late_us"))),
        _sheet(found, "bytes on disk a step", lambda name: _bytes(found, name)),
    ]


def _bytes(found: Results, name: str) -> str:
    is_on_disk = not name.endswith((f"/ {NO}", f"/ {NULL}", f"/ {MEMORY}"))
    return figure(found.median(name, "bytes")) if is_on_disk else ""


def _sheet(found: Results, title: str, shown: Callable[[str], str]) -> Sheet:
    facts, savers = [], [saver for saver in SAVERS if any(name.endswith(f"/ {saver}") for name in found.runs)]
    for workload in [*WORKLOADS, TASKS]:
        names = [label(workload, saver) for saver in savers]
        if any(name in found.runs for name in names):
            cells = [(found.trouble(name) or shown(name)) if name in found.runs else "" for name in names]
            facts.append(Fact(workload, tuple(cells)))
    length = max((run["steps"] for runs in found.runs.values() for run in runs if "steps" in run), default=0)
    return Sheet(f"LangGraph, up to {length:,} steps: {title}", tuple(savers), facts)
