"""What a handle remembers of its last look never hides what was committed since, by whomever."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

from eventlog import EventLog, NotFoundError, TaskWrite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eventlog.storage import Storage


@pytest.fixture
def logs(reopen: Callable[[], Storage]) -> tuple[EventLog, EventLog]:
    """Two handles of one place, as two processes have them."""
    return EventLog(reopen()), EventLog(reopen())


def test_the_greatest_id_is_the_one_that_another_handle_wrote(logs):
    mine, theirs = (log.run("r") for log in logs)
    assert mine.greatest_id() is None
    for n in range(5):
        theirs.append({"n": n}, id=f"id-{n}")
        reader = logs[0].run("r")
        assert [reader.greatest_id() for _ in range(2)] == [f"id-{n}"] * 2
        assert reader.greatest_id() == next(reader.given_ids(limit=1))
    known = logs[0].run("r")
    for n in range(5, 10):
        assert known.greatest_id() == f"id-{n - 1}"
        theirs.append({"n": n}, id=f"id-{n}")
        assert known.greatest_id() == f"id-{n}"


def test_an_id_names_what_it_was_given_to_last(logs):
    mine, theirs = logs[0], logs[1].run("r")
    theirs.append({"n": 0}, id="a")
    reader = mine.run("r")
    for n in range(1, 6):
        assert [reader.at("a")["n"] for _ in range(2)] == [n - 1] * 2
        theirs.write(theirs.prepare({"n": n}, id="a"))
        assert reader.at("a")["n"] == n
        assert reader.event("a").writes == {"n": n}


def test_an_id_that_was_not_there_is_found_once_it_is(logs):
    theirs = logs[1].run("r")
    theirs.append({"n": 0}, id="a")
    reader = logs[0].run("r")
    for _ in range(2):
        with pytest.raises(NotFoundError):
            reader.at("b")
        assert reader.task_writes("b") == []
    theirs.put_task_writes("b", [TaskWrite("t", 0, "c", 1)])
    assert [write.value for write in reader.task_writes("b")] == [1]
    theirs.append({"n": 1}, id="b")
    assert reader.at("b")["n"] == 1
    assert [write.value for write in reader.task_writes("b")] == [1]


def test_the_greatest_id_names_what_it_was_given_to_last(logs):
    theirs = logs[1].run("r")
    theirs.append({"n": 0}, id="a")
    reader = logs[0].run("r")
    for n in range(1, 6):
        assert reader.greatest_id() == "a"
        theirs.write(theirs.prepare({"n": n}, id="a"))
        assert reader.at("a")["n"] == n
    assert reader.greatest_id() == "a"
    theirs.forget(["a"])
    with pytest.raises(NotFoundError):
        reader.at("a")
    assert reader.greatest_id() is None


def test_that_no_task_wrote_holds_until_one_does(logs):
    theirs = logs[1].run("r")
    for event_id in "abc":
        theirs.append({"n": 0}, id=event_id)
    theirs.put_task_writes("b", [TaskWrite("t", 0, "c", "b")])
    reader = logs[0].run("r")

    def written(event_id: str) -> list[str]:
        return [write.value for write in reader.task_writes(event_id)]

    def look() -> list[list[str]]:
        return [written(event_id) for event_id in "aabbcaaddbe"]  # often enough to know that nothing waits

    assert look() == [[], [], ["b"], ["b"], [], [], [], [], [], ["b"], []]
    theirs.put_task_writes("a", [TaskWrite("t", 0, "c", "a")])
    assert look() == [["a"], ["a"], ["b"], ["b"], [], ["a"], ["a"], [], [], ["b"], []]
    theirs.put_task_writes("d", [TaskWrite("t", 0, "c", "d")])  # waits for its event
    assert written("d") == ["d"]
    assert look() == [["a"], ["a"], ["b"], ["b"], [], ["a"], ["a"], ["d"], ["d"], ["b"], []]
    theirs.append({"n": 1}, id="d")
    assert look() == [["a"], ["a"], ["b"], ["b"], [], ["a"], ["a"], ["d"], ["d"], ["b"], []]


def test_a_run_that_is_deleted_and_begun_anew_is_stale_at_once(logs):
    theirs = logs[1]
    theirs.run("r").append({"n": 0}, id="a")
    reader = logs[0].run("r")
    assert [reader.is_stale() for _ in range(2)] == [False, False]
    theirs.run("other").append({"n": 0})
    assert not reader.is_stale()
    theirs.delete("r")
    assert reader.is_stale()
    with pytest.raises(NotFoundError):
        reader.at("a")
    again = logs[0].run("r")
    assert not again.is_stale()
    theirs.run("r").append({"n": 1}, id="a")
    assert again.is_stale()
    assert logs[0].run("r").at("a")["n"] == 1


def test_a_handle_that_was_made_before_the_run_sees_it_begin(logs):
    reader = logs[0].run("r")
    assert [reader.is_stale() for _ in range(2)] == [False, False]
    logs[1].run("r").append({"n": 0}, id="a")
    assert reader.is_stale()


def _append(directory: Path, n: int) -> None:
    with EventLog.open(directory) as log:
        log.run("r").append({"n": n}, id=f"id-{n}")


def test_another_process_is_seen_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    with EventLog.open(tmp_path / "log") as log:
        log.run("r").append({"n": 0}, id="id-0")
        reader = log.run("r")
        assert reader.greatest_id() == "id-0"
        child = spawn.Process(target=_append, args=(tmp_path / "log", 1))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert reader.greatest_id() == "id-1"
        assert reader.at("id-1")["n"] == 1


def test_what_is_kept_back_in_memory_is_seen_too(tmp_path):
    with EventLog.open(tmp_path / "log", synchronous="off") as log:
        run = log.run("r")
        for n in range(3):
            run.append({"n": n}, id=f"id-{n}")
            assert log.run("r").greatest_id() == f"id-{n}" == run.greatest_id()


def test_a_log_that_was_only_read_is_left_as_it_was(tmp_path):
    with EventLog.open(tmp_path / "log") as log:
        log.run("r").append({"n": 0})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "log").rglob("*") if path.is_file()}
    for _ in range(3):
        with EventLog.open(tmp_path / "log") as log:
            assert log.run("r").state["n"] == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "log").rglob("*") if path.is_file()}
    assert set(after) == set(before)
    assert all(after[path] == before[path] for path in before if path.name == "data.mdb" or path.name.isdigit())
