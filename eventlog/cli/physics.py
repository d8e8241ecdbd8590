"""The physics demo: a glider, a rare gust, and a NaN that healed before anybody looked.

A child process flies and is killed; a second one goes on from the log; one pass over the events finds the step that
went wrong; a fork flies on from before it. Runs on the core install, and is deterministic: every step is a function of
its number and the state before it.
"""

from __future__ import annotations

import math
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import eventlog
from eventlog.log import EventLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eventlog.diff import Diff
    from eventlog.events import Event
    from eventlog.run import Run

    _Say = Callable[[str], None]

RUN: Final = "glider"
FORK: Final = "clamp"
STEPS: Final = 50_000
KILL_AT: Final = 20_000
_HALT_AT: Final = 40_000
"""There the process that is to be killed waits for that, however late a busy machine looks."""

_STEP_S: Final = 0.01
_THRUST: Final = 2.0
_DRAG: Final = 0.005
_START: Final = {"v": 20.0, "x": 0.0, "wind": 0.0}

_WIND_EVERY: Final = 200
_SENSOR_EVERY: Final = 8
_USUAL_GUST: Final = 25.0
_RARE_GUST: Final = -900.0
_RARITY: Final = 0.005
_SEED: Final = 69
_CLAMP: Final = 100.0

_WINDOW: Final = 3_000
_COLUMNS: Final = 60
_BARS: Final = "▁▂▃▄▅▆▇█"
_PAUSE_S: Final = 0.002
_POLL_S: Final = 0.002
_WAIT_S: Final = 180.0


# --- the flight -------------------------------------------------------------------------------------------------------


def motion(step: int, v: float, x: float) -> dict[str, float]:
    """What one superstep of the task `motion` writes: thrust against drag.

    The airspeed sensor is read now and then, and only when the speed is no number: the glider has stalled by then.
    """
    if math.isnan(v) and step % _SENSOR_EVERY == 0:
        v = 0.0
    v += (_THRUST - _DRAG * v * v) * _STEP_S
    return {"v": v, "x": x if math.isnan(v) else x + v * _STEP_S}


def wind(step: int, v: float, clamp: float = math.inf) -> dict[str, float]:
    """What one superstep of the task `wind` writes: a gust adds to the speed's square, or takes from it.

    Its bug: nothing keeps the square above zero, and the root of a negative number is no number.
    """
    gust = max(-clamp, min(clamp, _gust(step)))
    square = v * v + gust
    return {"v": math.sqrt(square) if square >= 0 else math.nan, "wind": gust}


def _gust(step: int) -> float:
    chance = random.Random(step + _SEED)  # noqa: S311 (weather, not secrets)
    return _RARE_GUST if chance.random() < _RARITY else chance.gauss(0, _USUAL_GUST)


def fly(run: Run, until: int, *, clamp: float = math.inf, pause_s: float = 0.0) -> None:
    """Go on from wherever the log says the run is, up to the step `until`: `motion` in batches, `wind` between them."""
    if run.step < 0:
        run.append(_START, task="start")
    while run.step < until:
        step, state = run.step + 1, run.state
        if step % _WIND_EVERY == 0:
            run.append(wind(step, state["v"], clamp), task="wind")
        else:
            last = min(until, step + _WIND_EVERY - 1 - step % _WIND_EVERY)
            run.append_many(_motions(step, last, state["v"], state["x"]), task="motion")
        time.sleep(pause_s)


def _motions(first: int, last: int, v: float, x: float) -> Iterator[dict[str, float]]:
    for step in range(first, last + 1):
        writes = motion(step, v, x)
        v, x = writes["v"], writes["x"]
        yield writes


def child(directory: str, halts: str = "") -> None:
    """What a child process does: open the log, and fly to the end from where it stands; slowly, to be watched."""
    with EventLog.open(directory) as log:
        run = log.run(RUN)
        if halts:
            fly(run, _HALT_AT, pause_s=_PAUSE_S)
            sys.stdin.read()  # which ends with the process that is to kill this one, too
        fly(run, STEPS - 1, pause_s=_PAUSE_S)


# --- the story --------------------------------------------------------------------------------------------------------


def main(directory: Path, out: TextIO) -> int:
    """Tell the story, and leave its log in `directory`."""

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    say(f"1. A child process flies {STEPS:,} steps; its log is {directory}")
    killed_at = _fly_and_kill(directory)
    say(f"   SIGKILL at step {killed_at:,}. {_recovered(directory)}")
    say("2. Another process goes on where the log ends.")
    _finish(directory)
    with EventLog.open(directory) as log:
        run = log.run(RUN)
        say(f"   Done: step {run.step:,}, x = {run.state['x']:,.1f} m. Once, v was no number. When, and who wrote it?")
        first, healed = _tell_search(run, say)
        fixed = _tell_fork(run, first, say)
        _tell_curves(run, fixed, first, say)
        _tell_diff(log.diff(run.at(run.step), fixed.at(fixed.step)), say)
    say(_next_commands(directory, first, healed))
    return 0


def _fly_and_kill(directory: Path) -> int:
    """Start a child, kill it in the middle without a warning; the last step that was seen."""
    process = _start_child(directory, "halts")
    try:
        seen = _wait_for(directory, KILL_AT, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return seen


def _start_child(directory: Path, *options: str) -> subprocess.Popen[bytes]:
    package = str(Path(eventlog.__file__).parent.parent)
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    program = "import sys; from eventlog.cli.physics import child; child(*sys.argv[1:])"
    return subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-c", program, str(directory), *options],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _wait_for(directory: Path, step: int, process: subprocess.Popen[bytes]) -> int:
    """Watch the log, not the clock, until it holds a step; returns the one it holds."""
    deadline = time.monotonic() + _WAIT_S
    with EventLog.open(directory) as log:
        run = log.run(RUN)
        while run.refresh().step < step:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the child stopped early: {process.communicate()[1].decode(errors='replace')}")
            time.sleep(_POLL_S)
        return run.step


def _recovered(directory: Path) -> str:
    with EventLog.open(directory) as log:
        problems = len(list(log.verify()))
        return f"The log holds steps 0 to {log.run(RUN).step:,} without a gap; verify() finds {problems} problems."


def _finish(directory: Path) -> None:
    process = _start_child(directory)
    errors = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"the second child failed: {errors.decode(errors='replace')}")


def _tell_search(run: Run, say: _Say) -> tuple[Event, Event]:
    ends = run.at(0)["v"], run.at(STEPS // 2)["v"], run.state["v"]
    started = time.perf_counter()
    first, healed = find_nan(run)
    took_s = time.perf_counter() - started
    say("3. Find the first step where isnan(v).")
    say(f"   At the start v = {ends[0]:.2f}, in the middle {ends[1]:.2f}, at the end {ends[2]:.2f}: fine, it healed.")
    say("   Halving the history assumes that what is bad stays bad, and would find nothing here. So scan: one pass")
    say(f"   forward over {len(run):,} events, {took_s:.2f} s.")
    say(f"   First NaN: {RUN}:{first.step}, written by the task {first.task!r} (gust {first.writes['wind']:,.0f});")
    say(f"   healed at step {healed.step}, from a stall.")
    return first, healed


def find_nan(run: Run) -> tuple[Event, Event]:
    """The event that first made v NaN, and the one that made it a number again."""
    writers = ((event, event.writes.get("v", 0.0)) for event in run.events())
    first = next(event for event, v in writers if math.isnan(v))
    return first, next(event for event, v in writers if not math.isnan(v))


def _tell_fork(run: Run, first: Event, say: _Say) -> Run:
    fixed = run.fork(at=first.step - 1, name=FORK)
    fly(fixed, STEPS - 1, clamp=_CLAMP)
    say(f"4. Fork before it, at step {first.step - 1} (copies nothing), clamp gusts to ±{_CLAMP:.0f}, and fly on:")
    say(f"   {RUN}@{FORK}, step {fixed.step:,}, x = {fixed.state['x']:,.1f} m.")
    return fixed


def _tell_curves(run: Run, fixed: Run, first: Event, say: _Say) -> None:
    window = first.step - _WINDOW // 2, min(first.step + _WINDOW, STEPS - 1)
    curves = [_speeds(one, *window) for one in (run, fixed)]
    finite = [v for curve in curves for v in curve if math.isfinite(v)]
    say(f"5. Both speeds, steps {window[0]:,} to {window[1]:,} (! is NaN):")
    for name, curve in zip(("main", FORK), curves, strict=True):
        say(f"   {name:<5}  {sparkline(curve, min(finite), max(finite))}")


def _speeds(run: Run, first: int, last: int) -> list[float]:
    return [event.writes["v"] for event in run.events(first, last)]


def sparkline(values: Sequence[float], low: float, high: float, columns: int = _COLUMNS) -> str:
    """A curve as one line of bars between `low` and `high`; a column with a NaN in it is ``!``."""
    edges = [len(values) * column // columns for column in range(columns + 1)]
    means = [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges) if b > a]
    scale = (len(_BARS) - 1) / ((high - low) or 1.0)
    return "".join("!" if math.isnan(mean) else _BARS[round((mean - low) * scale)] for mean in means)


def _tell_diff(diff: Diff, say: _Say) -> None:
    say("   What differs at the end:")
    for change in diff:
        say(f"   {change}")


def _next_commands(directory: Path, first: Event, healed: Event) -> str:
    store = shlex.quote(str(directory))
    commands = (
        f"ls {store}",
        f"log -s {store} {RUN}:{healed.step} -n {healed.step - first.step + 2}",
        f"show -s {store} {RUN}:{first.step} --state",
        f"diff -s {store} {RUN}:{first.step}",
        f"diff -s {store} {RUN} {RUN}@{FORK}",
    )
    return "\n".join(["6. Look for yourself:", *(f"   eventlog {command}" for command in commands)])
