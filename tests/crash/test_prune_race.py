"""Processes that write, fork, prune and read one thread at once: what is kept is what was put."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("langgraph.channels.delta", reason="DeltaChannel, and savers that know it, came later")
from savers.langgraph import EventLogSaver
from tests.crash.pruned import checked, config, put, write
from tests.crash.workload import DEEP, child
from tests.engines import ALONE, LOCATIONS, PERSISTENT

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

ROLES = {"go_on": 6, "fork": 10, "prune": 16, "read": 10}
"""How often each process does what it does; of each but the reader there are two."""


@pytest.fixture
def children(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    location = LOCATIONS[request.param](tmp_path)
    started = [
        child("prune_child.py", role, location, times * DEEP, number * len(ROLES) + n)
        for number in range(2)
        for n, (role, times) in enumerate(ROLES.items())
        if number == 0 or role != "read"
    ]
    yield started
    for each in started:
        each.kill()
        each.communicate()


@pytest.mark.parametrize("children", [engine for engine in PERSISTENT if engine not in ALONE], indirect=True)
def test_what_is_kept_of_a_thread_is_what_was_put(
    children: list[subprocess.Popen[str]], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for each in children:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in children:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    given = [each.communicate(timeout=120 * DEEP)[0].strip() for each in children]
    assert [each.returncode for each in children] == [0] * len(children)
    location = LOCATIONS[request.node.callspec.params["children"]](tmp_path)
    with EventLogSaver.from_conn_string(location) as saver:
        assert list(saver.log.verify()) == []
        kept = [checked(found) for found in saver.list(config())]
        assert kept[0] == max(given)  # the newest is never pruned
        saver.run("t").drop_snapshots()
        assert [checked(found) for found in saver.list(config())] == kept
        put(saver, "9", kept[0])
        write(saver, "9")
        saver.prune(["t"])
        assert [checked(found) for found in saver.list(config())] == ["9"]
        assert list(saver.log.verify()) == []
