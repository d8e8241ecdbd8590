"""The main job, end to end: runs, is killed, resumes, is asked what went wrong, is forked, and finishes right."""

import io
import re
import shlex
import subprocess
import sys

from eventlog import EventLog
from savers.langgraph import EventLogSaver, demo
from savers.langgraph.demo import main


def test_the_agent(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_POLL_S", 1.0)  # as rarely as a busy machine looks
    out = io.StringIO()
    main(tmp_path / "store", out)
    told = out.getvalue()
    assert "kill -9 after step 6" in told
    assert "resumes at step 6 and ends at step 16" in told
    assert "The first step with spent > 180 is step 12" in told
    assert re.search(r"~ spent +180 → 360", told)
    end = re.search(r"'fix' ends at step (\d+); the customer has paid 180 EUR", told)
    assert end, told
    assert int(end[1]) in {16, 17}  # before 1.2, LangGraph put no checkpoint of its own where a fork is resumed
    assert re.search(r"~ spent +360 → 180", told)
    with EventLog.open(tmp_path / "store", readonly=True) as log:
        run = EventLogSaver(log).run("trip-1")
        fixed = run.branch("fix")
        assert [branch.name for branch in run.branches()] == ["main", "fix"]
        assert (run.step, run.state["spent"]) == (16, 360)
        assert (fixed.step, fixed.state["spent"]) == (int(end[1]), 180)
        assert fixed.event(9) == run.event(9)
        charges = [message.name for message in run.state["messages"] if getattr(message, "name", None) == "charge_card"]
        assert len(charges) == 2
        assert list(log.verify()) == []
    commands = [line.strip() for line in told.splitlines() if line.strip().startswith("eventlog ")]
    assert len(commands) >= 4
    for command in commands:
        arguments = [sys.executable, "-m", "eventlog", *shlex.split(command)[1:]]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout
