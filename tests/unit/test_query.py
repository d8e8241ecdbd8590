"""Questions to a run."""

from __future__ import annotations

import pytest

from eventlog import Delete, EventLog, Extend, Merge, blame, history


@pytest.fixture
def run():
    with EventLog.open("memory:") as log:
        yield log.run("r")


def test_a_history_is_every_value_a_channel_had_oldest_first(run):
    run.append({"a": [1], "b": 1}, task="first")
    run.append({"b": 2}, task="second")
    run.append({"a": Extend([2])}, task="third")
    run.append({"a": Delete()})
    run.append({"a": None})
    found = [(event.step, event.task, value) for event, value in history(run, "a")]
    assert found == [(0, "first", [1]), (2, "third", [1, 2]), (3, None, Delete()), (4, None, None)]
    assert [value for _, value in history(run, "b")] == [1, 2]


def test_a_channel_that_never_was_has_none(run):
    assert list(history(run, "a")) == []
    assert blame(run, "a") is None
    run.append({"b": 1})
    assert list(history(run, "a")) == []
    assert blame(run, "a") is None


def test_blame_names_the_newest_event_that_wrote_to_a_channel(run):
    run.append({"a": {"x": 1}, "b": 1}, task="first")
    changed = run.append({"a": Merge({"y": 2})}, task="second")
    run.append({"b": 2}, task="third")
    assert blame(run, "a") == changed
    removed = run.append({"a": Delete()})
    assert blame(run, "a") == removed
    assert blame(run, "b").task == "third"


def test_a_branch_has_the_history_before_its_fork_and_its_own(run):
    run.append({"a": 1})
    run.append({"a": 2})
    fork = run.fork(0)
    assert blame(fork, "a").step == 0
    fork.append({"a": 3})
    run.append({"a": 4})
    assert [value for _, value in history(fork, "a")] == [1, 3]
    assert [value for _, value in history(run, "a")] == [1, 2, 4]
    assert blame(fork, "a").branch == fork.branch_name


def test_what_is_asked_for_is_what_the_handle_has_seen(run):
    run.append({"a": 1})
    late = run.branch("main")
    run.append({"a": 2})
    assert [value for _, value in history(late, "a")] == [1]
    assert [value for _, value in history(late.refresh(), "a")] == [1, 2]


def test_asking_for_the_newest_only_reads_back_to_it(run):
    run.append_many([{"b": number} for number in range(500)])
    run.append({"a": 1})
    events = history(run, "b")
    assert next(events)[1] == 0  # lazily, oldest first
    assert blame(run, "a").step == 500
