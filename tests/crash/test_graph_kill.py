"""SIGKILL a real graph within its calls of the saver: resumed by another process, it ends as if never killed.

By default it is killed at every superstep: before the `put` of one and after that of the next, and at some of the tasks
and their writes; ``EVENTLOG_DEEP=2`` kills it at every point there is. In "exit", where LangGraph keeps nothing until
the run ends or asks, it is killed in the tasks, and what was not kept is done again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.workload import DEEP, child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[[str, str, int], dict[str, Any] | None]

SUPERSTEPS = 20


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Goes on with the thread of a log in a process of its own; None if that was killed."""
    server = child("graph_child.py")
    assert server.stdin is not None
    assert server.stdout is not None

    def run(location: str, durability: str, kill_at: int) -> dict[str, Any] | None:
        server.stdin.write(json.dumps([location, durability, kill_at]) + "\n")
        server.stdin.flush()
        ended = json.loads(server.stdout.readline())
        assert "failed" not in (ended or {}), ended
        return ended

    yield run
    server.stdin.close()
    assert server.wait(60) == 0
    server.stdout.close()


def never_killed(run: Run, location: str, durability: str) -> dict[str, Any]:
    ended = run(location, durability, -1)
    assert ended is not None
    assert (ended["problems"], ended["step"]) == ([], SUPERSTEPS)
    assert ended["values"]["log"].count("join 2 yes") == 1
    assert len(ended["values"]["log"]) == 1 + 4 * (1 + 2 + 1 + 3 + 1)
    return ended


def chosen(points: list[str], durability: str) -> list[int]:
    """The points to kill at."""
    numbers = range(len(points))
    if DEEP > 1:
        return list(numbers)
    puts = [number for number in numbers if points[number].split()[1] == "put"]
    tasks = [number for number in numbers if points[number].startswith("task")]
    if durability == "exit":  # puts are few, and between them nothing is kept
        return sorted({*puts, *tasks[::2]})
    root = [number for number in puts if " put  " in points[number]]
    writes = [number for number in numbers if points[number].endswith("writes")]
    return sorted({*root[::4], *root[3::4], *writes[:: len(writes) // 8], *tasks[:: len(tasks) // 6]})


def what_it_did(ended: dict[str, Any]) -> dict[str, Any]:
    return {key: ended[key] for key in ("values", "step", "effects", "problems")}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_killed_graph_ends_as_if_it_was_never_killed(run, tmp_path, durability):
    expected = never_killed(run, str(tmp_path / "whole"), durability)
    points = chosen(expected["points"], durability)
    if durability != "exit":
        steps = {expected["points"][number].split()[-1] for number in points if "put  " in expected["points"][number]}
        assert steps >= {str(step) for step in range(-1, SUPERSTEPS + 1)}
    for point in points:
        location = str(tmp_path / f"{point}")
        assert run(location, durability, point) is None, f"point {point} was never reached"
        ended = run(location, durability, -1)
        assert ended is not None
        assert what_it_did(ended) == what_it_did(expected), f"killed at {point}: {expected['points'][point]}"


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_graph_that_is_killed_again_and_again_gets_to_its_end(run, tmp_path, durability):
    expected = never_killed(run, str(tmp_path / "whole"), durability)
    location, kills = str(tmp_path / "killed"), 0
    while (ended := run(location, durability, 16 + kills % 7)) is None:
        kills += 1
        assert kills < 100
    assert kills >= 4
    assert what_it_did(ended) == what_it_did(expected)
