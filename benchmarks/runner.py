"""Runs measurements interleaved, each in a process and directory of its own, and keeps every result."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

ROOT = Path(__file__).parent.parent


class Job(NamedTuple):
    """A measurement's name, ``module.function``, and its arguments.

    Attributes:
        is_counted: whether what its rows are made of is counted, so that a second round only shows that it is exact.
    """

    name: str
    arguments: dict[str, Any]
    is_counted: bool = False


def job(name: str, **arguments: Any) -> Job:
    """A job, written short."""
    return Job(name, arguments)


def count(name: str, **arguments: Any) -> Job:
    """A job of which something is counted."""
    return Job(name, arguments, is_counted=True)


@dataclass(slots=True)
class Results:
    """What each round measured, per label."""

    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def trouble(self, *labels: str) -> str:
        """Why one of these has no figures; empty if all have."""
        for label in labels:
            if not self.runs.get(label):
                return "not measured"
            for run in self.runs[label]:
                if "absent" in run or "failed" in run:
                    return str(run.get("absent") or f"failed: {run['failed']}")
        return ""

    def median(self, label: str, key: str) -> float:
        """The median over the rounds."""
        return statistics.median(run[key] for run in self.runs[label])

    def ratio(self, above: str, below: str, key: str) -> float:
        """The median of the rounds' ratios: what drifts between rounds drops out."""
        pairs = zip(self.runs[above], self.runs[below], strict=True)
        return statistics.median(a[key] / b[key] for a, b in pairs if b[key])

    def ratio_within(self, label: str, above: str, below: str) -> float:
        """The median of the rounds' ratios of two figures of one measurement."""
        return statistics.median(run[above] / run[below] for run in self.runs[label])


class Nursery:
    """The process whose children measure."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._one", "--serve"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: Job) -> dict[str, Any]:
        """One measurement."""
        to, back = self._process.stdin, self._process.stdout
        assert isinstance(to, IO) or to is not None
        assert back is not None
        to.write(json.dumps([job.name, job.arguments]) + "\n")
        to.flush()
        return dict(json.loads(back.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def run_interleaved(nursery: Nursery, jobs: dict[str, Job], repeats: int, counts: int) -> Results:
    """Every job once per round, in an order that turns, so that none always follows the same neighbour.

    What is counted is in the first `counts` rounds only. A job that is absent or fails is not tried again.
    """
    results = Results({label: [] for label in jobs})
    labels = list(jobs)
    for turn in range(repeats):
        shift = turn % len(labels) if labels else 0
        for label in labels[shift:] + labels[:shift]:
            if jobs[label].is_counted and turn >= counts:
                continue
            if not turn or not results.trouble(label) or not results.runs[label]:
                results.runs[label].append(nursery.run(jobs[label]))
    return results
