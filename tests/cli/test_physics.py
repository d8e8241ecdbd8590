"""The physics demo told once, in a subprocess; its outcomes and the commands it recommends."""

import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from eventlog import EventLog
from eventlog.cli import physics
from eventlog.cli.physics import FORK, KILL_AT, RUN, STEPS, find_nan, fly, motion, sparkline, wind

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def eventlog(*args):
    command = [sys.executable, "-m", "eventlog", *args]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=120, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "glider log"
    before = os.times()
    done = eventlog("demo", "physics", "--dir", str(directory))
    after = os.times()
    assert done.returncode == 0, done.stderr
    took_s = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, directory, took_s


def test_it_is_killed_in_the_middle_and_loses_nothing(told):
    text, directory, _ = told
    killed = int(re.search(r"SIGKILL at step ([\d,]+)", text)[1].replace(",", ""))
    assert KILL_AT <= killed < STEPS - 1
    assert "verify() finds 0 problems" in text
    with EventLog.open(directory) as log:
        run = log.run(RUN)
        assert [event.step for event in run.events()] == list(range(STEPS))
        assert list(log.verify()) == []


def test_who_looks_late_finds_it_waiting_in_the_middle(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(read=kill))
    monkeypatch.setattr(physics, "_PAUSE_S", 0)
    with pytest.raises(Killed):
        physics.child(str(tmp_path / "log"), "halts")
    with EventLog.open(tmp_path / "log") as log:
        assert KILL_AT <= log.run(RUN).step < STEPS - 1


def test_killing_and_resuming_changes_no_number(told, tmp_path):
    _, directory, _ = told
    with EventLog.open(directory) as log, EventLog.open("memory:") as other:
        undisturbed = other.run(RUN)
        fly(undisturbed, STEPS - 1)
        assert dict(undisturbed.state) == dict(log.run(RUN).state)


def test_it_names_the_first_bad_step_and_the_task_that_wrote_it(told):
    text, directory, _ = told
    with EventLog.open(directory) as log:
        run = log.run(RUN)
        states = [(event, state["v"]) for event, state in run.replay()]
        first = next(event for event, v in states if math.isnan(v))
        assert first.task == "wind"
        assert f"First NaN: {RUN}:{first.step}, written by the task 'wind'" in text
        assert find_nan(run)[0] == first
        assert 0 < sum(math.isnan(v) for _, v in states) < 20  # rare, and it heals
        assert not any(math.isnan(states[index][1]) for index in (0, STEPS // 2, -1))  # halving would find nothing
        assert "scan" in text


def test_the_fork_flies_on_without_it(told):
    text, directory, _ = told
    with EventLog.open(directory) as log:
        run = log.run(RUN)
        first, _ = find_nan(run)
        fixed = run.branch(FORK)
        assert fixed.step == run.step == STEPS - 1
        assert not any(math.isnan(event.writes["v"]) for event in fixed.events())
        assert fixed.at(first.step - 1).event == run.event(first.step - 1)
        assert fixed.state["x"] > run.state["x"] + 50
        assert f"~ x   {run.state['x']!r} → {fixed.state['x']!r}" in text
    curves = re.findall(r"^   (?:main|clamp) +([▁▂▃▄▅▆▇█!]+)$", text, re.MULTILINE)
    assert [len(curve) for curve in curves] == [60, 60]
    assert ["!" in curve for curve in curves] == [True, False]


def test_every_command_that_it_recommends_works(told):
    text, directory, _ = told
    commands = re.findall(r"^   (eventlog .+)$", text, re.MULTILINE)
    assert len(commands) >= 4
    assert {shlex.split(command)[1] for command in commands} == {"ls", "log", "show", "diff"}
    for command in commands:
        done = eventlog(*shlex.split(command)[1:])
        assert done.returncode == 0, done.stderr
        assert done.stdout
        assert str(directory) in command


def test_it_is_told_in_good_time(told):
    assert told[2] < 15  # of a processor, two or three seconds; how long it waits for one, or for a disk, is no matter


def test_the_flight_is_a_function_of_its_step():
    assert wind(32_200, 20.0) == wind(32_200, 20.0)
    assert math.isnan(wind(32_200, 20.0)["v"])
    assert wind(32_200, 20.0, clamp=100)["v"] > 0
    assert math.isnan(motion(1, math.nan, 3.0)["v"])
    assert motion(8, math.nan, 3.0)["v"] < 1


def test_a_sparkline_has_a_column_for_each_part():
    assert sparkline([0.0, 1.0, 2.0, math.nan], 0.0, 2.0, columns=4) == "▁▅█!"
    assert sparkline([1.0], 0.0, 2.0, columns=4) == "▅"
    assert sparkline([5.0, 5.0], 5.0, 5.0, columns=2) == "▁▁"
