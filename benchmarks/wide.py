"""Every saver on every LangGraph workload: the rows that no target names, those we lose included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.graphs import SAVERS, TASKS, WORKLOADS, label, sheets
from benchmarks.peers import IDENTITY
from benchmarks.runner import Job, Results, job

if TYPE_CHECKING:
    from benchmarks.table import Row

__all__ = ["jobs", "rows", "sheets"]

_STEPS = {"counter": 1000, "chat": 1000, "chat with tool calls": 500, "chat on DeltaChannel": 1000}


def jobs(*, quick: bool) -> dict[str, Job]:
    """Nothing in `quick`."""
    return {
        label(workload, saver): job("graphs.steps", workload=workload, saver=saver, n=_STEPS.get(workload, 300))
        for workload in ([] if quick else [*WORKLOADS, TASKS])
        for saver in SAVERS
        if not (saver == IDENTITY and "Delta" in workload)
    }


def rows(_found: Results) -> list[Row]:
    """No targets."""
    return []
