"""A handle whose write was interrupted, by Ctrl-C or a time limit, records what comes next, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import ConflictError, EventLog, Extend, Merge
from tests.counting import interrupted_at
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from eventlog import Run

MOVING = {"write_one", "_move", "apply_changes", "accept", "accepted", "_accept", "extend", "splice", "join", "_forget"}
MOVING |= {"_write_draft", "_take_waiting"}
BEGUN = {"l": [{"a": n} for n in range(6)], "d": {"x": 1, "y": [1, 2]}, "s": "text" * 10, "n": 1}


def commit(run: Run, state: dict[str, Any]) -> None:
    del state["l"][2]
    state["l"][1]["a"] = 7
    state["l"].append({"z": [1]})
    state["d"]["k"] = [1]
    state["s"] += "more"
    run.commit(state)


def append(run: Run, state: dict[str, Any]) -> None:
    state["l"].append(9)
    state["d"]["m"] = 1
    state["n"] = 77
    run.append({"l": Extend([9]), "d": Merge({"m": 1}), "n": 77})


def append_many(run: Run, state: dict[str, Any]) -> None:
    state["l"].append(3)
    state["n"] = 5
    run.append_many([{"n": 3}, {"n": 4}, {"l": Extend([3])}, {"n": 5}])


@pytest.mark.parametrize("write", [commit, append, append_many])
def test_wherever_a_handle_is_interrupted_it_records_what_comes_next(write: Any) -> None:
    for line in count(1):
        with EventLog.open("memory:") as log:
            run, state = log.run("r"), {name: value.copy() if name in "ld" else value for name, value in BEGUN.items()}
            state["l"] = [item.copy() for item in state["l"]]
            run.commit(state)
            state["d"]["z"] = 1
            run.commit(state)
            if not interrupted_at(line, MOVING, lambda: write(run, state)):  # noqa: B023 (at once)
                break
            for text in ("one", "two"):
                state["l"].append(text)
                state["l"][0]["a"] = state["d"][text] = text
                try:
                    run.commit(state)
                except ConflictError:  # it was written all the same
                    run.refresh().commit(state)
                assert strictly_equal(dict(run.state), state), line
                assert strictly_equal(dict(log.run("r").state), state), line
            with suppress(ConflictError):
                append(run, state)
            assert strictly_equal(dict(log.run("r").state), state), line
            assert list(log.verify()) == []
    assert line > len(MOVING)
