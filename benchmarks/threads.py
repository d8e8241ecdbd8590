# ruff: noqa: RUF001 (the multiplication sign is how tables are read)
"""What issue 4 asks of the savers: bytes in a graph of many nodes, copying a thread, reading a history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypedDict

from benchmarks import peers
from benchmarks.graphs import compiled
from benchmarks.machine import pin
from benchmarks.peers import MEMORY, OURS, SQLITE_NORMAL
from benchmarks.runner import Job, Results, count, job
from benchmarks.table import Row, Sheet, at_most, judged, sheet_of

if TYPE_CHECKING:
    from pathlib import Path

_NODES = 20
RING, COPY, HISTORY = "a ring of 20 nodes", "copy_thread", "history on DeltaChannel"


class _State(TypedDict):
    number: int


def _ring(saver: Any, steps: int) -> Any:
    """20 nodes that take turns; each changes one number of two bytes."""
    from langgraph.graph import END, START, StateGraph

    builder = StateGraph(_State)
    names = [f"node_{index}" for index in range(_NODES)]
    for index, name in enumerate(names):
        after = names[(index + 1) % _NODES]
        builder.add_node(name, lambda state: {"number": state["number"] + 1})
        builder.add_conditional_edges(
            name, lambda state, after=after: after if state["number"] < 200 + steps else END, [after, END]
        )
    builder.add_edge(START, names[0])
    return builder.compile(checkpointer=saver)


def ring(directory: Path, saver: str, n: int) -> dict[str, Any]:
    """Bytes on disk a superstep, once every node has run."""
    with peers.opened(saver, directory) as opened:
        config = {"configurable": {"thread_id": "thread"}, "recursion_limit": n + 10}
        _ring(opened.saver, n).invoke({"number": 200}, config, durability="sync")
    return {"bytes": peers.stored(directory) / n}


def copy(_: Path, n: int) -> dict[str, Any]:
    """Ours: bytes that the log grows by, as keys and values, and how long it takes."""
    pin()
    from eventlog import EventLog
    from savers.langgraph import EventLogSaver

    with EventLog.open("memory:") as log:
        saver = EventLogSaver(log)
        config: Any = {"configurable": {"thread_id": "thread", "checkpoint_ns": ""}}
        for index in range(n):
            version = saver.get_next_version(None, None)
            checkpoint: Any = {
                "v": 4,
                "ts": "2026-01-01T00:00:00.000001+00:00",
                "id": f"{index:08}",
                "channel_values": {"number": index},
                "channel_versions": {"number": version},
                "versions_seen": {},
            }
            config = saver.put(config, checkpoint, {"source": "loop", "step": index}, {"number": version})
        before, began = log.stats().bytes, time.perf_counter()
        saver.copy_thread("thread", "copy")
        took = time.perf_counter() - began
        return {"bytes": log.stats().bytes - before, "us": took * 1e6}


def history(directory: Path, saver: str, n: int) -> dict[str, Any]:
    """Every state of a chat on a DeltaChannel, read through the graph."""
    pin()
    times: list[float] = []
    with peers.opened(saver, directory) as opened:
        graph, given = compiled("chat on DeltaChannel", opened.saver, n, times)
        config: Any = {"configurable": {"thread_id": "thread"}, "recursion_limit": n + 10}
        graph.invoke(given, config, durability="sync")
        began = time.perf_counter()
        states = sum(1 for _ in graph.get_state_history(config))
        took = time.perf_counter() - began
    return {"states": states, "state_us": took / states * 1e6, "seconds": took}


def jobs(*, quick: bool) -> dict[str, Job]:
    """Ours beside who can do the same."""
    n, states = (150, 12) if quick else (2000, 2000)
    found = {f"{RING} / {SQLITE_NORMAL}": count("threads.ring", saver=SQLITE_NORMAL, n=n)}
    found |= {f"{RING} / {OURS} × {k * n}": count("threads.ring", saver=OURS, n=k * n) for k in (1, 2)}
    for events in (10, 300 if quick else 10_000):
        found[f"{COPY} / {events} checkpoints"] = job("threads.copy", n=events)
    for saver in (OURS, MEMORY, SQLITE_NORMAL):
        found[f"{HISTORY} / {saver}"] = job("threads.history", saver=saver, n=states)
    return found


def rows(found: Results) -> list[Row]:
    """Issue 4's lines 4 and 5."""
    short, long = (name for name in found.runs if name.startswith(f"{RING} / {OURS} × "))
    copies = [name for name in found.runs if name.startswith(COPY)]

    def step() -> Row:
        """Between n and 2n steps, as line 7 of issue 3 is measured."""
        whole = found.median(long, "bytes")
        sqlite = found.median(f"{RING} / {SQLITE_NORMAL}", "bytes")
        note = f"from the first one {whole:,.0f} B; SqliteSaver {sqlite:,.0f} B"
        measure = f"{RING}, one 2-byte channel changes: bytes a superstep"
        return at_most("issue 4", measure, 2 * whole - found.median(short, "bytes"), 600, "B", note)

    def flat() -> Row:
        few, many = (found.median(name, "bytes") for name in copies)
        return at_most("issue 4", "copy_thread: bytes, long thread / short", many / few, 1, note=f"{many:.0f} B")

    return [
        judged(found, "issue 4", "ring", (short, long, f"{RING} / {SQLITE_NORMAL}"), step),
        judged(found, "issue 4", "copy_thread", copies, flat),
    ]


def sheets(found: Results) -> list[Sheet]:
    """All of it."""
    columns = {
        "bytes": ("bytes", "B"),
        "time": ("us", "µs"),
        "states": ("states", ""),
        "a state": ("state_us", "µs"),
        "all": ("seconds", "s"),
    }
    return [sheet_of(found, "Threads", found.runs, columns)]
