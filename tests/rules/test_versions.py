"""The lower bounds of what we need from LangGraph are those that CI runs its tests with."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_bounds_are_what_is_tested():
    lines = (ROOT / ".ci/oldest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(need.split(">=") for need in project["optional-dependencies"]["langgraph"])
    assert bounds == {name: tested[name] for name in bounds}
    assert "oldest.txt" in (ROOT / ".ci/run").read_text()
