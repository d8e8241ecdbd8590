"""Whether cost grows with history: late steps against early ones, many runs, opening a large log."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.direct import event
from benchmarks.machine import pin
from benchmarks.ours import open_log
from benchmarks.runner import Job, Results, job
from benchmarks.table import Row, Sheet, at_most, figure, judged, sheet_of

if TYPE_CHECKING:
    from eventlog import EventLog, Run

LATE, RUNS = "late steps of one run", "late runs of one log"
_BATCH = 1000


def late_steps(directory: Path, n: int, window: int) -> dict[str, Any]:
    """The mean cost of a step from step 1,000 on, and of the last ones; a window holds what folding costs."""
    pin()
    with open_log(directory) as log:
        run = log.run("run")
        _appended(run, 1000)
        early = _appended(run, window)
        _appended(run, n - 1000 - 2 * window)
        return {"early_us": early, "late_us": _appended(run, window), "n": n}


def _appended(run: Run, n: int) -> float:
    began = time.perf_counter()
    for index in range(n):
        run.append(event(index))
    return (time.perf_counter() - began) / n * 1e6


def late_runs(directory: Path, n: int, window: int) -> dict[str, Any]:
    """The mean cost of beginning a run and appending once: from the 10th on, and for the last ones."""
    pin()
    with open_log(directory) as log:
        _begun(log, 0, 10)
        early = _begun(log, 10, 10 + window)
        _begun(log, 10 + window, n - window)
        return {"early_us": early, "late_us": _begun(log, n - window, n), "n": n}


def _begun(log: EventLog, first: int, last: int) -> float:
    began = time.perf_counter()
    for index in range(first, last):
        log.run(f"run-{index}").append(event(index))
    return (time.perf_counter() - began) / (last - first) * 1e6


def opening(directory: Path, n: int, is_killed: bool) -> dict[str, Any]:
    """Open a log of n events and read its head's state; written by a child that closed it, or killed itself."""
    child = os.fork()
    if not child:
        _written(directory, n, is_killed=is_killed)
        os._exit(0)
    os.waitpid(child, 0)
    before, began = _memory_bytes(), time.perf_counter()
    with open_log(directory) as log:
        opened = time.perf_counter()
        state = dict(log.run("run").state)
        read = time.perf_counter()
        memory = _memory_bytes() - before
    assert state["step"] == 99_999 + n
    return {"open_ms": (opened - began) * 1e3, "first_state_ms": (read - began) * 1e3, "memory_bytes": memory, "n": n}


def _written(directory: Path, n: int, *, is_killed: bool) -> None:
    with open_log(directory) as log:
        run = log.run("run")
        for start in range(0, n, _BATCH):
            run.append_many(event(index) for index in range(start, start + _BATCH))
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)


def _memory_bytes() -> int:
    """Memory of this process that is no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def _opening(n: int, *, is_killed: bool) -> str:
    return f"open {n:,} events, {'after a kill' if is_killed else 'clean'}"


def jobs(*, quick: bool, full: bool = False) -> dict[str, Job]:
    """200,000 events, 10 million in `full`."""
    n = 10_000 if quick else 10_000_000 if full else 200_000
    late, runs = (4_000, 300) if quick else (1_000_000, 100_000) if full else (200_000, 20_000)
    found = {
        LATE: job("scale.late_steps", n=late, window=late // 10 if quick else 30_000),
        RUNS: job("scale.late_runs", n=runs, window=runs // 10),
    }
    for size in (n // 10, n):
        for is_killed in (False, True):
            found[_opening(size, is_killed=is_killed)] = job("scale.opening", n=size, is_killed=is_killed)
    return found


def rows(found: Results) -> list[Row]:
    """Lines 8 and 12."""

    def late(what: str, name: str) -> Row:
        value = found.ratio_within(name, "late_us", "early_us")
        note = f"{found.median(name, 'late_us'):.1f} against {found.median(name, 'early_us'):.1f} µs"
        return at_most("8", f"{what}, of {found.median(name, 'n'):,.0f}", value, 1.15, note=note)

    openings = [name for name in found.runs if name.startswith("open ")]
    made = [
        judged(found, "8", LATE, (LATE,), lambda: late("a late step / step 1,000", LATE)),
        judged(found, "8", RUNS, (RUNS,), lambda: late("a late run's first append / the 10th's", RUNS)),
    ]
    made += [judged(found, "12", name, (name,), partial(_open_row, found, name)) for name in openings[-2:]]
    made.append(judged(found, "12", "memory", openings, lambda: _memory_row(found, openings)))
    return made


def _open_row(found: Results, name: str) -> Row:
    note = f"with the head's state {found.median(name, 'first_state_ms'):.1f} ms"
    return at_most("12", name, found.median(name, "open_ms"), 100, "ms", note)


def _memory_row(found: Results, openings: list[str]) -> Row:
    """Flat: what ten times the events add is less than the journal that may wait to be folded."""
    memory = {name: found.median(name, "memory_bytes") for name in openings}
    added = max(memory[openings[2]] - memory[openings[0]], memory[openings[3]] - memory[openings[1]])
    note = ", ".join(f"{name[5:]}: {figure(value / 1e6)} MB" for name, value in memory.items())
    return at_most("12", "memory that ten times the events add to opening", added / 1e6, 64, "MB", note)


def sheets(found: Results) -> list[Sheet]:
    """All of it."""
    columns = {
        "early": ("early_us", "µs"),
        "late": ("late_us", "µs"),
        "open": ("open_ms", "ms"),
        "with the head's state": ("first_state_ms", "ms"),
        "memory": ("memory_bytes", "B"),
    }
    return [sheet_of(found, "Long histories", found.runs, columns)]
