"""Savers without a graph: `put_writes` and `put`, as LangGraph calls them, and nothing else in the time."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.machine import pin
from benchmarks.payload import text
from benchmarks.peers import IDENTITY, MEMORY, NULL, OURS, POSTGRES, SQLITE, SQLITE_NORMAL
from benchmarks.runner import Job, Results, job
from benchmarks.table import Row, Sheet, at_most, judged, sheet_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAVERS = (NULL, OURS, IDENTITY, MEMORY, SQLITE, SQLITE_NORMAL, POSTGRES)
_LIST_STEPS = 100


class Thread:
    """A thread's checkpoints made by hand, as Pregel makes them: ids that grow, versions from the saver."""

    def __init__(self, saver: Any, values: dict[str, Any]) -> None:
        self.saver = saver
        self.values = values
        first = saver.get_next_version(None, None)
        self.versions = dict.fromkeys(values, first)
        self.config: dict[str, Any] = {"configurable": {"thread_id": "thread", "checkpoint_ns": ""}}
        self.step = -1
        self.put(dict(self.versions))

    def put(self, new: dict[str, Any]) -> float:
        """Seconds in `put`; making the checkpoint is not counted."""
        from langgraph.checkpoint.base.id import uuid6

        self.step += 1
        checkpoint = {
            "v": 4,
            "ts": datetime.now(UTC).isoformat(),
            "id": str(uuid6(clock_seq=self.step)),
            "channel_values": dict(self.values),
            "channel_versions": dict(self.versions),
            "versions_seen": {"__input__": {}, "work": dict(new)},
            "updated_channels": list(new),
        }
        metadata = {"source": "loop", "step": self.step, "parents": {}}
        began = time.perf_counter()
        self.config = self.saver.put(self.config, checkpoint, metadata, new)
        return time.perf_counter() - began

    def move(self, channel: str, value: Any, written: Any) -> float:
        """One superstep that changes one channel: the task's writes, then the checkpoint. Seconds in the saver."""
        self.values = {**self.values, channel: value}
        version = self.versions[channel] = self.saver.get_next_version(self.versions[channel], None)
        task = f"task-{self.step}"
        began = time.perf_counter()
        self.saver.put_writes(self.config, [(channel, written)], task)
        took = time.perf_counter() - began
        return took + self.put({channel: version})


def channels(directory: Path, saver: str, n: int) -> dict[str, Any]:
    """20 channels of 50 B, of which one changes."""
    pin()
    with peers.opened(saver, directory) as opened:
        thread = Thread(opened.saver, {f"channel-{index}": text(50, index) for index in range(20)})
        return _step([thread.move("channel-0", index, index) for index in range(n)])


def growing_list(directory: Path, saver: str, n: int) -> dict[str, Any]:
    """A list of 500 B strings over its last steps up to 2,000 items: each step a new list with one item more."""
    pin()
    with peers.opened(saver, directory) as opened:
        items = [text(500, index) for index in range(2000)]
        thread = Thread(opened.saver, {"items": items[:-n], "other": 1})
        return _step(list(_grown(thread, items, n)))


def _grown(thread: Thread, items: list[str], n: int) -> Iterator[float]:
    for length in range(len(items) - n + 1, len(items) + 1):
        yield thread.move("items", items[:length], [items[length - 1]])


def _step(took: list[float]) -> dict[str, Any]:
    return {"step_us": statistics.fmean(took) * 1e6, "median_us": statistics.median(took) * 1e6}


_ONE, _LIST = "20 channels / ", "list / "


def jobs(*, quick: bool) -> dict[str, Job]:
    """Every saver on both."""
    savers = tuple(saver for saver in SAVERS if not (quick and saver in (POSTGRES, SQLITE)))
    n, grown = (120, 8) if quick else (3000, _LIST_STEPS)
    return {
        **{_ONE + saver: job("alone.channels", saver=saver, n=n) for saver in savers},
        **{_LIST + saver: job("alone.growing_list", saver=saver, n=grown) for saver in savers},
    }


def rows(found: Results) -> list[Row]:
    """Line 6."""

    def one() -> Row:
        value = found.median(_ONE + OURS, "step_us")
        memory, sqlite = (found.median(_ONE + saver, "step_us") for saver in (MEMORY, SQLITE_NORMAL))
        note = f"InMemorySaver {memory:.1f} µs, SqliteSaver NORMAL {sqlite:.0f} µs"
        return at_most("6", "saver alone, 20 channels, one changes: a step", value, 25, "µs", note)

    def listed(name: str, saver: str, limit: float) -> Row:
        took, memory = (found.median(_LIST + which, "step_us") for which in (saver, MEMORY))
        note = f"{took:.0f} against {memory:.0f} µs"
        return at_most("6", name, found.ratio(_LIST + saver, _LIST + MEMORY, "step_us"), limit, note=note)

    sound, identity = "2,000-item list growing: / InMemorySaver", "the same by identity"
    return [
        judged(found, "6", "20 channels", [_ONE + saver for saver in (OURS, MEMORY, SQLITE_NORMAL)], one),
        judged(found, "6", sound, (_LIST + OURS, _LIST + MEMORY), lambda: listed(sound, OURS, 0.2)),
        judged(found, "6", identity, (_LIST + IDENTITY, _LIST + MEMORY), lambda: listed(identity, IDENTITY, 0.1)),
    ]


def sheets(found: Results) -> list[Sheet]:
    """All savers."""
    columns = {"mean a step": ("step_us", "µs"), "median": ("median_us", "µs")}
    return [sheet_of(found, "The saver alone, `put_writes` + `put`", found.runs, columns)]
