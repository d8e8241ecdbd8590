"""LangGraph's graphs as coroutines: `ainvoke` with its default durability, on all cores, for savers may use threads.

Otherwise as in `graphs`.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.graphs import TAIL, compiled, label
from benchmarks.peers import MEMORY, NULL, OURS, OURS_FULL
from benchmarks.runner import Job, Results, job
from benchmarks.table import Fact, Row, Sheet, figure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SQLITE = "AsyncSqliteSaver NORMAL"
SAVERS = (NULL, OURS, OURS_FULL, MEMORY, SQLITE)
WORKLOADS = ("counter", "chat")


@asynccontextmanager
async def _opened(saver: str, directory: Path) -> AsyncIterator[Any]:
    if saver != SQLITE:
        with peers.opened(saver, directory) as opened:
            yield opened.saver
        return
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with aiosqlite.connect(directory / "checkpoints.sqlite") as base:
        await base.execute("PRAGMA synchronous=NORMAL")
        yield AsyncSqliteSaver(base)


def steps(directory: Path, workload: str, saver: str, n: int) -> dict[str, Any]:
    """So many supersteps in one ainvoke.

    Returns:
        `step_us` over all, `late_us` over the last ones.
    """

    async def run() -> float:
        async with _opened(saver, directory) as opened:
            graph, given = compiled(workload, opened, n, times)
            gc.collect()
            gc.freeze()
            began = time.perf_counter()
            await graph.ainvoke(given, {"configurable": {"thread_id": "thread"}, "recursion_limit": n + 10})
            return time.perf_counter() - began

    times: list[float] = []
    took = asyncio.run(run())
    gaps = [(b - a) * 1e6 for a, b in pairwise(times)]
    return {"step_us": took / n * 1e6, "late_us": statistics.median(gaps[-TAIL:]), "steps": n}


def jobs(*, quick: bool) -> dict[str, Job]:
    """Every saver on both; none in `quick`, whose minute is for what has a target."""
    return {
        label(workload, saver): job("coroutines.steps", workload=workload, saver=saver, n=1000)
        for workload in (() if quick else WORKLOADS)
        for saver in SAVERS
    }


def rows(_: Results) -> list[Row]:
    """No line asks for it."""
    return []


def sheets(found: Results) -> list[Sheet]:
    """A row per workload, a column per saver."""
    n = max((run["steps"] for runs in found.runs.values() for run in runs if "steps" in run), default=0)
    savers = tuple(saver for saver in SAVERS if any(name.endswith(f"/ {saver}") for name in found.runs))

    def fact(workload: str, key: str) -> Fact:
        names = [label(workload, saver) for saver in savers]
        return Fact(workload, tuple(found.trouble(name) or figure(found.median(name, key)) for name in names))

    workloads = [workload for workload in WORKLOADS if label(workload, NULL) in found.runs]
    return [
        Sheet(
            f"LangGraph's coroutines, up to {n:,} steps: {title}",
            savers,
            [fact(workload, key) for workload in workloads],
        )
        for title, key in (("µs a step", "step_us"), ("µs a step over the last 50 steps", "late_us"))
    ]
