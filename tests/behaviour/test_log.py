"""What `EventLog` and `Run` promise: each sentence of their docstrings, over every engine."""

from __future__ import annotations

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import (
    AppendText,
    ClosedError,
    ConflictError,
    Delete,
    Event,
    EventLog,
    Extend,
    IdConflictError,
    InvalidIdError,
    InvalidInputError,
    Limits,
    Merge,
    NotFoundError,
    TaskWrite,
    TooLargeError,
    UnserializableError,
    Update,
)
from eventlog.codec import MSGPACK
from eventlog.events import auto_id
from eventlog.storage.memory import MemoryStorage
from tests.counting import CountingStorage, everything, patience
from tests.strict import Note, named, strictly_equal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventlog import Run
    from eventlog.storage import Storage


@pytest.fixture
def counted(storage: Storage) -> CountingStorage:
    return CountingStorage(storage)


@pytest.fixture
def log(counted: CountingStorage) -> Iterator[EventLog]:
    log = EventLog(counted)
    yield log
    assert list(log.verify()) == []


@pytest.fixture
def run(log: EventLog) -> Run:
    return log.run("r")


def ids(events: Any) -> list[str]:
    return [event.id for event in events]


class TestEmpty:
    def test_an_empty_run(self, log: EventLog, run: Run) -> None:
        assert (len(run), run.step, run.head, dict(run.state), bool(run)) == (0, -1, None, {}, True)
        assert run.branches() == []
        assert list(run.events()) == []
        assert list(run.replay()) == []
        assert (run.name, run.branch_name) == ("r", "main")
        assert run.state.event is None

    def test_is_in_no_catalogue_before_its_first_write(self, log: EventLog, counted: CountingStorage) -> None:
        run = log.run("r")
        run.refresh()
        run.branches()
        run.task_writes("id")
        list(run.events())
        with pytest.raises(NotFoundError):
            run.at(0)
        assert log.runs() == []
        assert "r" not in log
        assert counted.tally.commits == 0
        run.append({})
        assert log.runs() == ["r"]
        assert "r" in log

    def test_has_no_branches_but_main(self, run: Run) -> None:
        assert run.branch("main").branch_name == "main"
        with pytest.raises(NotFoundError):
            run.branch("other")

    def test_cannot_be_forked(self, run: Run) -> None:
        with pytest.raises(InvalidInputError, match="empty"):
            run.fork()


class TestSteps:
    def test_count_from_0(self, run: Run) -> None:
        assert [run.append({"n": n}).step for n in range(3)] == [0, 1, 2]
        assert (len(run), run.step) == (3, 2)

    def test_a_writer_gives_its_own(self, run: Run) -> None:
        steps = [run.append({"n": step}, step=step).step for step in (-1, 4, 5, 100)]
        assert steps == [-1, 4, 5, 100]
        assert run.append({}).step == 101
        assert [event.step for event in run.append_many([{}, {}])] == [102, 103]
        with patience():
            assert [run.at(step)["n"] for step in steps] == steps

    @pytest.mark.parametrize("first", [-1000, -1, 0, 7])
    def test_a_step_in_a_gap_is_not_found(self, run: Run, first: int) -> None:
        given = [first + more for more in (0, 1, 5, 6, 50, 1000, 1001)]
        for step in given:
            run.append({"n": step}, step=step)
        fork = run.fork(first + 6)
        fork.append({"n": "fork"}, step=first + 40)
        with patience():
            for step in range(first - 5, first + 1010):
                if step in given:
                    assert run.at(step)["n"] == step
                else:
                    with pytest.raises(NotFoundError):
                        run.at(step)
            for step in range(first - 5, first + 60):
                if step in given and step <= first + 6:
                    assert fork.at(step)["n"] == step
                elif step == first + 40:
                    assert fork.at(step)["n"] == "fork"
                else:
                    with pytest.raises(NotFoundError):
                        fork.at(step)

    @pytest.mark.parametrize("step", [-3, -1, 3, 1 << 61])
    def test_a_step_outside_the_run_is_not_found(self, run: Run, step: int) -> None:
        run.append_many([{}, {}, {}])
        with patience(), pytest.raises(NotFoundError):
            run.at(step)

    def test_must_grow(self, run: Run) -> None:
        run.append({}, step=5)
        for step in (5, 4, -1):
            with pytest.raises(InvalidInputError, match="grow"):
                run.append({}, step=step)
        assert len(run) == 1


class TestAppend:
    def test_every_write(self, run: Run) -> None:
        run.append({"a": 1, "l": [1], "t": "x", "d": {"k": {"l": [1]}}, "gone": 0})
        writes = {
            "a": 2.0,
            "l": Extend([2, 3]),
            "t": AppendText("y"),
            "d": Merge({"k": Merge({"l": Extend([2]), "new": 1}), 5: None}),
            "gone": Delete(),
            "l2": Extend([1]),
            "t2": AppendText("t"),
            "d2": Merge({"k": 1}),
            "u": Update((1, {2})),
        }
        event = run.append(writes, task="worker", meta={"why": ["test"]})
        wanted = {
            "a": 2.0, "l": [1, 2, 3], "t": "xy", "d": {"k": {"l": [1, 2], "new": 1}, 5: None},
            "l2": [1], "t2": "t", "d2": {"k": 1}, "u": (1, {2}),
        }  # fmt: skip
        assert strictly_equal(dict(run.state), wanted)
        assert (event.task, dict(event.meta), event.branch, event.run) == ("worker", {"why": ["test"]}, "main", "r")
        assert run.head == event
        assert event.writes["d"] == writes["d"]
        assert event.writes["gone"] == Delete()

    def test_a_later_handle_sees_the_same(self, log: EventLog, run: Run) -> None:
        for n in range(50):
            run.append({"n": n, "l": Extend([n]), "t": AppendText("t"), "d": Merge({n % 7: n})})
        other = log.run("r")
        assert strictly_equal(dict(other.state), dict(run.state))
        assert list(other.state) == list(run.state)
        assert ids(other.events()) == ids(run.events())
        assert [dict(event.writes) for event in other.events()] == [dict(event.writes) for event in run.events()]

    def test_writes_make_the_same_change_again(self, log: EventLog, run: Run) -> None:
        run.append({"l": [1], "d": {"a": 1, "b": {"c": "x"}}, "g": 1})
        run.commit({"l": [1, 2], "d": {"a": 2, "b": {"c": "xy"}}, "n": None})
        copy = log.run("copy")
        for event in run.events():
            copy.append(event.writes)
        assert strictly_equal(dict(copy.state), dict(run.state))

    def test_an_event_without_writes(self, run: Run) -> None:
        assert dict(run.append({}).writes) == {}
        assert (len(run), dict(run.state)) == (1, {})

    @pytest.mark.parametrize(
        "writes",
        [
            {"l": AppendText("x")}, {"l": Merge({})}, {"d": Extend([1])}, {"n": Extend([1])}, {"none": Delete()},
            {"d": Merge({"k": Extend([1])})}, {"d": Merge({"m": Merge({"n": AppendText("x")})})}, {"l": Extend("text")},
            {"l": Extend(5)}, {"d": Merge([("a", 1)])}, {"new": Merge([("a", 1)])}, {"d": Merge({"k": Merge(5)})},
            {"t": AppendText(b"x")}, {"d": Merge({"k": Update(1)})}, ["l"], None, {1: 2}, {"l": object()},
        ],
        ids=named,
    )  # fmt: skip
    def test_what_cannot_be_applied_is_refused(self, run: Run, counted: CountingStorage, writes: Any) -> None:
        run.append({"l": [1], "d": {"k": 1, "m": {"n": 1}}, "n": 1, "t": "x"})
        before = dict(run.state)
        with counted.counted() as tally:
            with pytest.raises(InvalidInputError):
                run.append(writes)
            with pytest.raises(InvalidInputError):
                run.append_many([{"fine": 1}, writes])
        assert tally.touched == 0
        assert dict(run.state) == before
        run.append({"l": Extend([2]), "d": Merge({"k": 2})})
        assert run.state["l"] == [1, 2]

    def test_values_are_taken_as_they_are_at_the_call(self, run: Run) -> None:
        given = {"k": [1]}
        run.append({"d": given})
        given["k"].append(2)
        assert run.state["d"] == {"k": [1]}
        assert run.commit({"d": given}).writes == {"d": Merge({"k": Extend([2])})} or run.state["d"] == {"k": [1, 2]}

    def test_a_nested_operation_after_one_that_failed(self, run: Run) -> None:
        run.append({"d": {"a": {}}})
        run.append({"d": Merge({"a": Merge({"l": Extend([1])})})})
        with pytest.raises(InvalidInputError):
            run.append({"d": Merge({"a": Merge({"l": AppendText("x")})})})
        run.append({"d": {"a": {"l": "text"}}})
        run.append({"d": Merge({"a": Merge({"l": AppendText("x")})})})
        assert run.state["d"] == {"a": {"l": "textx"}}


class TestCommit:
    def test_finds_what_changed(self, run: Run) -> None:
        state = {"l": [1], "d": {"a": {"b": ["b" * 50]}, "pad": "p" * 50}, "t": "x", "same": [1, 2]}
        run.commit(state)
        state["l"].append(2)
        state["d"]["a"]["b"].append(2)
        state["t"] += "y"
        event = run.commit(state)
        assert event.writes == {"l": Extend([2]), "d": Merge({"a": Merge({"b": Extend([2])})}), "t": AppendText("y")}
        assert strictly_equal(dict(run.state), state)

    def test_a_channel_that_is_not_in_the_state_is_deleted(self, run: Run) -> None:
        run.commit({"a": 1, "b": 2})
        assert run.commit({"b": 2}).writes == {"a": Delete()}
        assert dict(run.state) == {"b": 2}
        assert run.commit({}).writes == {"b": Delete()}

    def test_a_channel_goes_while_another_comes(self, run: Run) -> None:
        run.commit({"a": 1, "b": 2, "c": 3})
        event = run.commit({"b": 2, "d": 4, "c": 5})
        assert list(event.writes.items()) == [("d", 4), ("c", 5), ("a", Delete())]
        assert dict(run.state) == {"b": 2, "c": 5, "d": 4}

    def test_an_equal_state_is_an_event_without_writes(self, log: EventLog, run: Run) -> None:
        state = {"a": float("nan"), "b": [{"c": Note("x")}], "d": {1: {2}}}
        run.commit(state)
        assert run.commit(state).writes == {}
        assert run.commit(run.state).writes == {}
        assert log.run("r").commit(state).writes == {}

    def test_a_mutable_leaf_changed_in_place(self, run: Run) -> None:
        state = {"note": Note("a"), "set": {1}, "bytes": bytearray(b"a"), "tuple": ([1],)}
        run.commit(state)
        state["note"].tags.append(1)
        state["set"].add(2)
        state["bytes"].extend(b"b")
        state["tuple"][0].append(2)
        assert set(run.commit(state).writes) == set(state)
        assert strictly_equal(dict(run.state), state)

    def test_after_a_conflict_and_refresh_nothing_is_lost(self, log: EventLog, run: Run) -> None:
        state = {"a": [1], "b": {"k": 1, "pad": "p" * 50}}
        run.commit(state)
        log.run("r").append({"b": Merge({"k": "theirs"})})
        state["a"].append(2)
        with pytest.raises(ConflictError):
            run.commit(state)
        run.refresh()
        run.commit(state)
        assert strictly_equal(dict(run.state), state)

    def test_after_a_refused_value_nothing_is_lost(self, run: Run) -> None:
        state: dict[str, Any] = {"a": [1], "b": {"k": [1], "pad": "p" * 50}}
        run.commit(state)
        state["a"].append(2)
        state["b"]["k"].append(print)
        with pytest.raises(UnserializableError, match=r"^b\.k\[1\]"):
            run.commit(state)
        state["b"]["k"][1] = 2
        run.commit(state)
        assert strictly_equal(dict(run.state), state)

    def test_mixed_with_append(self, run: Run) -> None:
        state = {"l": [1], "d": {"k": 1}}
        run.commit(state)
        run.append({"l": Extend([2]), "d": Merge({"k": 2})})
        state["l"].append(3)
        run.commit(state)
        assert strictly_equal(dict(run.state), {"l": [1, 3], "d": {"k": 1}})

    def test_never_larger_than_a_plain_set(self, log: EventLog, counted: CountingStorage) -> None:
        states = [{"d": {f"k{i}": i for i in range(n)}} for n in (40, 3, 1, 0, 30)]
        sizes = []
        for name, write in (("a", "commit"), ("b", "append")):
            run, written = log.run(name), []
            for state in states:
                with counted.counted() as tally:
                    getattr(run, write)(state)
                written.append(tally.bytes_written["E"])
            sizes.append(written)
        assert all(found <= plain for found, plain in zip(*sizes, strict=True)), sizes


class TestAppendMany:
    def test_is_like_many_appends(self, log: EventLog, run: Run, counted: CountingStorage) -> None:
        batch = [{"n": n, "l": Extend([n]), "d": Merge({n % 3: n})} for n in range(100)]
        with counted.counted() as tally:
            events = run.append_many(iter(batch), task="many")
        assert tally.commits <= 2  # one for the name
        assert [event.step for event in events] == list(range(100))
        assert {event.task for event in events} == {"many"}
        one = log.run("one")
        for writes in batch:
            one.append(writes)
        assert strictly_equal(dict(run.state), dict(one.state))
        assert ids(events) == ids(run.events())
        assert [dict(run.at(step)) for step in range(0, 100, 9)] == [dict(one.at(step)) for step in range(0, 100, 9)]

    def test_none_for_none(self, log: EventLog, run: Run, counted: CountingStorage) -> None:
        assert run.append_many([]) == []
        assert counted.tally.commits == 0

    def test_all_or_none(self, run: Run, counted: CountingStorage) -> None:
        run.append({"l": [1]})
        with counted.counted() as tally, pytest.raises(UnserializableError, match=r"^\[2\]\.l\[1\]\.cb") as caught:
            run.append_many([{"l": Extend([2])}, {"n": 1}, {"l": [0, {"cb": print}]}])
        assert caught.value.path == "[2].l[1].cb"
        assert tally.touched == 0
        assert dict(run.state) == {"l": [1]}

    def test_a_late_batch_is_not_written_at_all(self, log: EventLog, run: Run) -> None:
        run.append({"n": 0})
        log.run("r").append({"n": 1})
        with pytest.raises(ConflictError):
            run.append_many([{"n": 2}, {"n": 3}])
        assert [state["n"] for _, state in run.refresh().replay()] == [0, 1]

    def test_updates_see_what_the_batch_wrote_before(self, run: Run) -> None:
        run.append({"l": [0], "d": {"a": 1, "pad": "p" * 50}})
        run.append_many(
            [
                {"l": Update([0, 1]), "d": Update({"a": 2, "pad": "p" * 50})},
                {"l": Update([0, 1, 2]), "d": Update({"a": 1, "pad": "p" * 50})},
                {"l": 5},
                {"l": Update([0])},
            ]
        )
        assert [state["l"] for _, state in run.replay()] == [[0], [0, 1], [0, 1, 2], 5, [0]]
        assert [state["d"]["a"] for _, state in run.replay()] == [1, 2, 1, 1, 1]

    def test_nested_operations_see_what_the_batch_wrote_before(self, run: Run) -> None:
        run.append({"d": {"a": {}}})
        fits = [{"d": Merge({"a": Merge({"x": 1})})}, {"d": Merge({"a": [1]})}, {"d": Merge({"a": Extend([2])})}]
        unfit = [{"d": Merge({"a": Merge({"x": 1})})}, {"d": Merge({"a": [1]})}, {"d": Merge({"a": Merge({"y": 2})})}]
        with pytest.raises(InvalidInputError):
            run.append_many(unfit)
        assert run.state["d"] == {"a": {}}
        run.append_many(fits)
        assert run.state["d"] == {"a": [1, 2]}

    def test_more_than_the_limit(self, storage: Storage) -> None:
        run = EventLog(storage, limits=Limits(batch_events=3)).run("r")
        endless = ({"n": n} for n in count())
        with pytest.raises(TooLargeError):
            run.append_many(endless)
        assert len(run.append_many([{}, {}, {}])) == 3


class TestConflicts:
    def test_a_stale_handle_gets_both_heads(self, log: EventLog, run: Run, counted: CountingStorage) -> None:
        first = run.append({"a": 1})
        stale = log.run("r")
        second = run.append({"a": 2})
        for write in (
            lambda: stale.append({"a": 3}),
            lambda: stale.commit({"a": 3}),
            lambda: stale.append_many([{"a": 3}]),
            lambda: stale.append({"a": 3}, id="an id"),
        ):
            with counted.counted() as tally, pytest.raises(ConflictError, match=r"refresh") as caught:
                write()
            assert (caught.value.expected, caught.value.actual) == (first.id, second.id)
            assert tally.touched == 0
            assert (stale.step, dict(stale.state)) == (0, {"a": 1})
        assert stale.refresh() is stale
        assert stale.append({"a": 3}).step == 2

    def test_on_an_empty_run(self, log: EventLog, run: Run) -> None:
        stale = log.run("r")
        first = run.append({"a": 1})
        with pytest.raises(ConflictError) as caught:
            stale.append({"a": 2})
        assert (caught.value.expected, caught.value.actual) == (None, first.id)
        assert stale.refresh().head == first
        stale.append({"a": 2})
        assert run.refresh().state["a"] == 2

    def test_expected_the_head(self, run: Run) -> None:
        first = run.append({"a": 1}, expected=None)
        second = run.append({"a": 2}, expected=first)
        third = run.commit({"a": 3}, expected=second.id)
        run.append_many([{"a": 4}], expected=third)
        assert run.step == 3

    def test_expected_by_its_other_name(self, run: Run) -> None:
        """An event that was given an id is named by that or by the one its place makes."""
        event = run.append({"a": 1}, id="given")
        assert run.at(auto_id(event.segment, event.seq, event.digest))["a"] == 1
        run.append({"a": 2}, expected=auto_id(event.segment, event.seq, event.digest))

    def test_expected_another_head(self, log: EventLog, run: Run, counted: CountingStorage) -> None:
        first = run.append({"a": 1})
        second = run.append({"a": 2})
        for expected in (first, first.id, None, "e0.7.00000000", "nonsense"):
            with counted.counted() as tally, pytest.raises(ConflictError) as caught:
                run.append({"a": 3}, expected=expected)
            wanted = expected.id if isinstance(expected, Event) else expected
            assert (caught.value.expected, caught.value.actual) == (wanted, second.id)
            assert tally.touched == 0
        with pytest.raises(ConflictError):
            log.run("new").append({}, expected=first.id)

    def test_a_conflict_names_the_head_there_is(self, log: EventLog, run: Run) -> None:
        first = run.append({"a": 1})
        stale = log.run("r")
        second = run.append({"a": 2})
        with pytest.raises(ConflictError) as caught:
            stale.append({"a": 3}, expected=None)
        assert caught.value.actual == second.id != first.id

    def test_expected_is_the_head_the_caller_saw_whatever_the_handle_saw(self, log: EventLog, run: Run) -> None:
        run.append({"a": 1})
        stale = log.run("r")
        second = run.append({"a": 2})
        assert stale.append({"a": 3}, expected=second).step == 2
        assert dict(stale.state) == {"a": 3}

    def test_who_is_late_stays_where_he_was(self, log: EventLog, run: Run) -> None:
        run.append({"list": [0], "text": ""})
        for n in range(80):  # at each distance from the last manifest
            before = dict(run.refresh().state)
            log.run("r").append({"n": n, "text": "x" * (n * 8 % 500), "list": Extend([n])})
            for _ in range(2):
                with pytest.raises(ConflictError):
                    run.append({"text": "late" * 100, "list": Extend(["late" * 200])})
                assert {channel: run.value(channel) for channel in before} == before
            run.refresh().append({"m": n})
            assert dict(run.state) == dict(log.run("r").state)
            assert run.state["list"] == [*before["list"], n]

    def test_a_race_has_one_winner(self, log: EventLog) -> None:
        log.run("r").append({"n": 0})
        runs = [log.run("r") for _ in range(6)]
        start = threading.Barrier(len(runs))

        def write(run: Run) -> bool:
            start.wait()
            try:
                run.append({"n": 1})
            except ConflictError:
                return False
            return True

        with ThreadPoolExecutor(len(runs)) as pool:
            assert sum(pool.map(write, runs)) == 1
        assert len(log.run("r")) == 2


class TestThreads:
    def test_many_handles_dense_steps(self, log: EventLog) -> None:
        def work(n: int) -> list[int]:
            run, steps = log.run("r"), []
            while len(steps) < 12:
                try:
                    steps.append(run.append({"who": n, "all": Extend([n])}).step)
                except ConflictError:
                    run.refresh()
            return steps

        with ThreadPoolExecutor(4) as pool:
            steps = [step for own in pool.map(work, range(4)) for step in own]
        assert sorted(steps) == list(range(48))
        run = log.run("r")
        assert [event.seq for event in run.events()] == list(range(48))
        assert len(run.state["all"]) == 48

    def test_one_handle(self, log: EventLog, run: Run) -> None:
        with ThreadPoolExecutor(4) as pool:
            events = list(pool.map(lambda n: run.append({"all": Extend([n])}), range(60)))
        assert sorted(event.seq for event in events) == list(range(60))
        assert sorted(run.state["all"]) == list(range(60))

    def test_branches_do_not_disturb_each_other(self, log: EventLog, run: Run) -> None:
        run.append({"n": 0})

        def work(n: int) -> str:
            fork = log.run("r").fork()
            for i in range(10):
                fork.append({"n": (n, i)})
            return fork.branch_name

        with ThreadPoolExecutor(4) as pool:
            names = list(pool.map(work, range(8)))
        assert len(set(names)) == 8
        assert {run.branch(name).state["n"] for name in names} == {(n, 9) for n in range(8)}
        assert run.append({"n": 1}).step == 1


class TestIds:
    def test_name_an_event(self, run: Run) -> None:
        event = run.append({"a": 1}, id="first")
        run.append({"a": 2})
        assert event.id == "first"
        assert run.at("first")["a"] == 1
        assert run.event("first") == event
        assert dict(run.event(run.head.id).writes) == {"a": 2}  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        "later", ["nothing", "another event", "a fresh handle", "a stale handle", "an empty handle"]
    )
    @pytest.mark.parametrize(
        ("writes", "step"),
        [({"a": 1}, None), ({"a": 1}, 7), ({"l": Extend([1])}, None), ({"gone": Delete()}, None),
        ({"d": Merge({"k": Extend([1])})}, 9), ({"u": Update([1, 2])}, None), ({"big": "x" * 5000}, None)],
    )  # fmt: skip
    def test_the_same_again_is_done_once(
        self, log: EventLog, run: Run, counted: CountingStorage, later: str, writes: dict[str, Any], step: int | None
    ) -> None:
        empty = log.run("r")
        run.append({"gone": 1, "d": {"k": [0]}, "l": [0], "u": [1]})
        stale = log.run("r")
        event = run.append(writes, id="once", step=step, task="t", meta={"m": 1})
        handle = {"a stale handle": stale, "an empty handle": empty}.get(later, run)
        if later == "another event":
            run.append({"other": 1})
        elif later == "a fresh handle":
            handle = log.run("r")
        with counted.counted() as tally:
            again = handle.append(writes, id="once", step=step, task="t", meta={"m": 1})
        assert again == event
        assert again.id == "once"
        assert tally.touched == 0
        assert len(list(log.run("r").events())) == (3 if later == "another event" else 2)

    def test_commit_again_is_done_once(self, log: EventLog, run: Run) -> None:
        run.commit({"a": [1]})
        event = run.commit({"a": [1, 2], "b": 1}, id="once")
        assert run.commit({"a": [1, 2], "b": 1}, id="once") == event
        assert log.run("r").commit({"a": [1, 2], "b": 1}, id="once") == event
        assert len(run) == 2

    @pytest.mark.parametrize(
        "other", [{"writes": {"a": 2}}, {"writes": {}}, {"task": "other"}, {"meta": {"m": 2}}, {"step": 90}]
    )
    def test_other_content_is_a_conflict(self, run: Run, counted: CountingStorage, other: dict[str, Any]) -> None:
        same = {"writes": {"a": 1}, "task": "t", "meta": {"m": 1}, "step": 3}
        run.append(**same, id="once")
        with counted.counted() as tally, pytest.raises(IdConflictError):
            run.append(**{**same, "step": 4, **other}, id="once")
        assert tally.touched == 0
        assert len(run) == 1
        run.append({"a": 3}, id="another")

    def test_belong_to_their_run(self, log: EventLog, run: Run) -> None:
        run.append({"a": 1}, id="x")
        other = log.run("other")
        other.append({"a": 2}, id="x")
        assert (run.at("x")["a"], other.at("x")["a"]) == (1, 2)

    def test_are_shared_by_branches(self, run: Run) -> None:
        run.append({"a": 1})
        fork = run.fork()
        fork.append({"a": 2}, id="x")
        assert run.at("x")["a"] == 2
        with pytest.raises(IdConflictError):
            run.append({"a": 3}, id="x")

    def test_of_255_bytes(self, run: Run) -> None:
        run.append({"a": 1}, id="é" * 127 + "x")
        assert run.at("é" * 127 + "x")["a"] == 1
        with pytest.raises(InvalidIdError):
            run.append({}, id="é" * 128)


class TestFork:
    def test_shares_what_was_before(self, run: Run) -> None:
        events = run.append_many([{"n": n, "l": Extend([n])} for n in range(5)])
        fork = run.fork(2, "what-if")
        assert (fork.branch_name, fork.step, len(fork), dict(fork.state)) == ("what-if", 2, 3, {"n": 2, "l": [0, 1, 2]})
        assert fork.head == events[2]
        event = fork.append({"l": Extend(["fork"])})
        assert (event.step, event.seq, event.branch) == (3, 3, "what-if")
        assert fork.state["l"] == [0, 1, 2, "fork"]
        assert run.state["l"] == [0, 1, 2, 3, 4]
        assert ids(fork.events()) == [*ids(events[:3]), event.id]
        assert fork.at(1) is not None
        assert fork.at(events[4])["n"] == 4  # any event of the run
        with pytest.raises(NotFoundError):
            fork.at(4)

    def test_by_every_way_to_name_an_event(self, run: Run) -> None:
        event = run.append({"n": 0}, id="zero")
        run.append({"n": 1})
        for place in (0, "zero", event, run.at(0)):
            assert run.fork(place).state["n"] == 0
        assert run.fork().state["n"] == 1

    def test_names(self, run: Run) -> None:
        run.append({})
        assert [run.fork().branch_name for _ in range(3)] == ["fork-1", "fork-2", "fork-3"]
        with pytest.raises(ConflictError):
            run.fork(name="fork-2")
        with pytest.raises(InvalidIdError):
            run.fork(name="a\n")

    def test_a_name_that_an_automatic_one_would_take(self, run: Run) -> None:
        run.append({})
        run.fork(name="fork-2")
        run.fork(name="fork-3")
        assert run.fork().branch_name not in {"fork-2", "fork-3", "main"}

    @pytest.mark.parametrize("where", ["on main", "on the fork"])
    def test_a_name_that_is_taken_stays_with_its_branch(self, log: EventLog, run: Run, where: str) -> None:
        run.append_many([{"n": 0}, {"n": 1}])
        fork = run.fork(0, "taken")
        fork.append({"n": "taken"})
        handle = run if where == "on main" else fork
        for name in ("main", "taken"):
            with pytest.raises(ConflictError):
                handle.fork(0, name)
        assert log.run("r").state["n"] == 1
        assert log.run("r").branch("taken").state["n"] == "taken"

    def test_of_a_fork_of_a_fork(self, run: Run) -> None:
        run.append({"path": [0]})
        handle = run
        for n in range(1, 40):
            handle = handle.fork()
            if n % 3:
                handle.append({"path": Extend([n])})
        assert handle.state["path"] == [n for n in range(40) if n % 3 or not n]
        assert [state["path"][-1] for _, state in handle.replay()] == handle.state["path"]

    def test_branches_lists_them(self, run: Run) -> None:
        first = run.append({"n": 0})
        second = run.append({"n": 1})
        fork = run.fork(0, "b")
        run.fork(name="a").append({"n": 2})
        found = [(branch.name, branch.head, branch.forked_from) for branch in run.branches()]
        assert [name for name, _, _ in found] == ["main", "b", "a"]
        assert found[:2] == [("main", second, None), ("b", first, first.id)]
        assert found[2][2] == second.id
        assert fork.branches() == run.branches()
        with pytest.raises(NotFoundError):
            run.branch("none")

    def test_a_stale_handle_forks_where_it_stands(self, log: EventLog, run: Run) -> None:
        run.append({"n": 0})
        stale = log.run("r")
        run.append({"n": 1})
        assert stale.fork().state["n"] == 0


class TestLooking:
    def test_events(self, run: Run) -> None:
        events = run.append_many([{"n": n} for n in range(300)])
        assert list(run.events()) == events
        assert list(run.events(reverse=True)) == events[::-1]
        assert list(run.events(10, 20)) == events[10:21]
        assert list(run.events(10, 20, reverse=True)) == events[10:21][::-1]
        assert list(run.events(start=events[290])) == events[290:]
        assert list(run.events(stop=events[5].id)) == events[:6]
        with pytest.raises(InvalidInputError):
            list(run.events(20, 10))
        with pytest.raises(NotFoundError):
            list(run.events(5, 300))

    def test_events_across_forks_and_in_reverse(self, run: Run) -> None:
        run.append_many([{"n": n} for n in range(5)])
        fork = run.fork(2)
        fork.append_many([{"n": n} for n in range(10, 15)])
        deeper = fork.fork(4)
        deeper.append({"n": 20})
        numbers = [0, 1, 2, 10, 11, 20]
        assert [event.writes["n"] for event in deeper.events()] == numbers
        assert [event.writes["n"] for event in deeper.events(reverse=True)] == numbers[::-1]
        assert [event.writes["n"] for event in deeper.events(1, 4)] == numbers[1:5]
        with pytest.raises(InvalidInputError):
            list(deeper.events(run.event(4)))

    def test_a_handle_that_is_refreshed_goes_on_from_what_it_has_read(self, log: EventLog, run: Run) -> None:
        run.append({f"c{n}": {"n": n} for n in range(300)})
        other = log.run("r")
        for number in range(250):
            if number % 50 == 0:
                run.append_many([{"n": n} for n in range(150)])  # more than are read one by one
            elif number % 3:
                run.append({f"c{number}": Merge({"m": number}), "text": AppendText("x")})
            else:
                run.append({f"c{number}": Delete(), "big": "y" * 2000})
            if number % 7 == 0 or number > 240:
                assert other.refresh().head == run.head
                assert list(other.state) == list(run.state) == list(log.run("r").state)
                assert dict(other.state) == dict(run.state)
        other.append({"c1": Merge({"by": "other"})})
        assert run.refresh().value("c1") == {"n": 1, "m": 1, "by": "other"}

    def test_refreshing_a_handle_that_nobody_was_ahead_of_reads_a_few_small_records(
        self, counted: CountingStorage, log: EventLog, run: Run
    ) -> None:
        run.append({f"c{n}": n for n in range(500)})
        state = run.state
        with counted.counted() as tally:
            assert run.refresh().state is state
        assert tally.reads <= 3  # branch, segment, head
        assert tally.read < 200
        other = log.run("r")
        assert other.value("c1") == 1
        run.append({"c1": 2})
        with counted.counted() as tally:
            assert other.refresh().value("c1") == 2
        assert tally.read < 1000

    def test_the_value_of_one_channel(self, run: Run) -> None:
        assert run.value("a") is None
        run.append({"a": [1], "b": None})
        assert run.value("a") == [1]
        run.value("a").append(2)
        assert run.value("a") == [1]
        assert run.value("b", "default") is None
        assert run.value("c", "default") == "default"
        run.append({"a": Extend([2])})
        assert run.value("a") == [1, 2]
        run.append({"a": Delete()})
        assert run.value("a") is None

    def test_a_handle_sees_what_it_saw(self, log: EventLog, run: Run) -> None:
        run.append({"n": 0})
        other = log.run("r")
        walk = other.events()
        run.append_many([{"n": 1}, {"n": 2}])
        assert [event.seq for event in walk] == [0]
        assert (len(other), other.state["n"]) == (1, 0)
        other.refresh()
        assert (len(other), other.state["n"]) == (3, 2)

    def test_appending_while_iterating(self, run: Run) -> None:
        run.append_many([{"n": n} for n in range(600)])
        seen = 0
        for event in run.events():
            seen += 1
            if event.seq % 100 == 0:
                run.append({"n": -1})
        assert seen == 600

    def test_replay(self, run: Run) -> None:
        run.append_many([{"n": n, "l": Extend([n]), "big": "x" * 600 + str(n)} for n in range(120)])
        for first, last in ((0, 119), (0, 0), (50, 60), (119, 119)):
            replayed = list(run.replay(first, last))
            assert [event.step for event, _ in replayed] == list(range(first, last + 1))
            for event, state in replayed:
                assert state.event == event
                assert strictly_equal(dict(state), dict(run.at(event)))

    def test_replay_takes_work_in_proportion(self, run: Run) -> None:
        """Counted in lines, not in seconds: the same on every machine."""
        run.append_many([{"l": Extend([n])} for n in range(3000)])
        lines = []
        for stop in (749, 2999):
            lines.append(0)

            def trace(frame: Any, event: str, arg: Any) -> Any:
                lines[-1] += 1
                return trace

            sys.settrace(trace)
            try:
                assert sum(1 for _ in run.replay(0, stop)) == stop + 1
            finally:
                sys.settrace(None)
        assert lines[1] < 6 * lines[0], lines  # four times the events: 4, not 16

    def test_states_never_alias(self, run: Run) -> None:
        run.append({"d": {"l": [1]}})
        state = run.state
        state["d"]["l"].append(2)
        assert state["d"] == {"l": [1]}
        run.state["d"]["l"].append(3)
        next(iter(run.events())).writes["d"]["l"].append(4)
        run.head.writes["d"]["l"].append(5)  # type: ignore[union-attr]
        assert run.state["d"] == run.at(0)["d"] == {"l": [1]}
        run.append({"d": Merge({"l": Extend([2])})})
        assert run.state["d"] == {"l": [1, 2]}
        assert state["d"] == {"l": [1]}
        with pytest.raises(TypeError):
            state["x"] = 1  # type: ignore[index]

    def test_one_channel_is_read_alone(self, log: EventLog, run: Run, counted: CountingStorage) -> None:
        run.append({"big": "x" * 100_000, "small": 1})
        state = log.run("r").at(0)
        with counted.counted() as tally:
            assert state["small"] == 1
        assert tally.read < 1000
        with pytest.raises(KeyError):
            state["none"]
        assert "none" not in state
        assert state.size_bytes >= 100_000

    @pytest.mark.parametrize("where", [1.0, None, True, b"x", [], ("a",)])
    def test_what_names_no_event(self, run: Run, where: Any) -> None:
        run.append({})
        with pytest.raises(InvalidInputError):
            run.at(where)

    @pytest.mark.parametrize("where", ["none", "e0.0.00000000", "e0.9.12345678", "e9999999999.1.12345678", 1])
    def test_what_names_an_event_that_is_not_there(self, run: Run, where: Any) -> None:
        run.append({})
        with pytest.raises(NotFoundError):
            run.at(where)

    def test_state_before_the_first_event_names_none(self, run: Run) -> None:
        empty = run.state
        run.append({})
        with pytest.raises(NotFoundError):
            run.at(empty)

    def test_diff(self, run: Run, log: EventLog) -> None:
        run.append({"a": 1})
        run.append({"a": 2})
        assert run.diff(0, 1) == log.diff(run.at(0), run.at(1)) == run.diff(0)
        with pytest.raises(InvalidInputError):
            log.diff(0, 1)  # type: ignore[arg-type]


class TestPrepare:
    def test_takes_values_as_they_are_then(self, run: Run) -> None:
        given = [1]
        prepared = run.prepare({"l": given}, id="x", meta={"m": 1})
        given.append(2)
        event = run.write(prepared)
        assert (event.id, event.writes, run.state["l"]) == ("x", {"l": [1]}, [1])

    def test_two_writers_of_one_event_both_succeed(self, log: EventLog, run: Run) -> None:
        base = run.append({"n": 0})
        a, b = log.run("r"), log.run("r")
        first = a.write(a.prepare({"n": 1}, at=base))
        second = b.write(b.prepare({"n": 2}, at=base))
        assert first.branch == "main"
        assert second.branch != "main"
        assert (a.state["n"], b.state["n"]) == (1, 2)
        assert second.parent_digest == first.parent_digest == base.digest

    def test_without_a_place_a_late_one_is_a_conflict(self, run: Run) -> None:
        run.append({"n": 0})
        prepared = run.prepare({"n": 1})
        run.append({"n": 2})
        with pytest.raises(ConflictError):
            run.write(prepared)

    def test_an_id_is_taken_over(self, run: Run) -> None:
        run.write(run.prepare({"n": 0}, id="x"))
        event = run.write(run.prepare({"n": 1}, id="x"))
        assert run.at("x")["n"] == 1
        assert run.event("x") == event
        assert len(run) == 2

    def test_under_an_id_that_names_another_event_by_now_it_is_a_conflict(self, log: EventLog, run: Run) -> None:
        base = run.write(run.prepare({"n": 0}, id="x"))
        prepared = run.prepare({"n": 1}, at=base, is_under_id=True)
        other = log.run("r")
        other.write(other.prepare({"n": 9}, at=other.append({"m": 1}), id="x"))
        with pytest.raises(ConflictError, match="read it again"):
            run.write(prepared)
        run.refresh()
        again = run.prepare({"n": 2}, at="x", is_under_id=True)
        run.write(again)
        assert run.state["n"] == 2

    def test_under_an_id_that_was_taken_over_at_the_head_it_is_a_conflict(self, log: EventLog, run: Run) -> None:
        base = run.write(run.prepare({"n": 0}, id="x"))
        other = log.run("r")
        fork = other.fork(at=base)
        fork.write(fork.prepare({"n": 9}, id="x"))  # on another branch: the head stays
        with pytest.raises(ConflictError, match="read it again"):
            run.write(run.prepare({"n": 1}, at=base, is_under_id=True))
        assert run.write(run.prepare({"n": 1}, at=base)).branch == "main"

    def test_what_may_not_fork_fails_where_its_event_is_no_head_any_more(self, log: EventLog, run: Run) -> None:
        base = run.append({"n": 0})
        late = log.run("r")
        prepared = late.prepare({"n": 1}, at=base, may_fork=False)
        run.append({"n": 2})
        for each in (prepared, late.prepare({"n": 3}, at=base, may_fork=False)):
            with pytest.raises(ConflictError):
                late.write(each)
        assert len(run.branches()) == 1
        assert run.write(run.prepare({"n": 4}, at=run.head, may_fork=False)).branch == "main"

    def test_takes_values_that_are_encoded_already(self, run: Run) -> None:
        encoded = {"a": MSGPACK.encode([1, "x"]), "long": MSGPACK.encode("y" * 5000)}
        event = run.write(run.prepare({"b": 2}, encoded=encoded))
        assert event.writes == {"b": 2, "a": [1, "x"], "long": "y" * 5000}
        assert dict(run.state) == dict(run.refresh().state) == event.writes
        with pytest.raises(InvalidIdError):
            run.prepare({}, encoded={"a\n": b"\xc0"})


class TestForms:
    """Events that have their names and types in common are written a shorter way; nothing else may take it."""

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    class Odd(int):
        pass

    @pytest.mark.parametrize("value", [True, 1.0, "1", None, 1 << 70, b"1", [1], Extend([1])], ids=repr)
    def test_a_value_of_another_type_is_what_it_is(self, run: Run, value: Any) -> None:
        for n in range(3):
            run.append({"n": n, "m": [0]})
        for n in range(3):
            run.append({"k": n})
        run.append({"k" if not isinstance(value, Extend) else "m": value})
        written = run.head.writes["k" if not isinstance(value, Extend) else "m"]
        assert (type(written), written) == (type(value), value)

    def test_names_and_types_that_say_they_are_others_are_refused(self, run: Run) -> None:
        for n in range(3):
            run.append({"k": n})
        with pytest.raises(InvalidIdError):
            run.append({self.Name("other"): 4})
        with pytest.raises(UnserializableError):
            run.append({"k": self.Odd(4)})
        with pytest.raises(UnserializableError):
            run.append_many([{"k": 4}, {"k": "\ud800"}])
        assert (len(run), run.state["k"]) == (3, 2)

    @pytest.mark.parametrize("first", [{"n": -1, "t": "x", "f": 0.5}, {"f": 0.5, "n": -1}, {"l": Extend([1])}], ids=str)
    def test_a_batch_of_them_is_to_the_byte_what_one_by_one_is(self, first: dict[str, Any]) -> None:
        batch = [{"n": n, "t": "y" * (n % 90), "f": n / 7} for n in range(400)]
        batch[0] = first
        storages = [MemoryStorage(), MemoryStorage()]
        many, one = (EventLog(storage, clock=count(1 << 60).__next__).run("r") for storage in storages)
        for run in (many, one):
            run.append({"l": [0], "t": "z"}, task="before")
            run.append({"n": 0, "t": "z", "f": 1.0})
        events = many.append_many(batch, task="t")
        singly = [one.append(writes, task="t") for writes in batch]
        assert everything(storages[0]) == everything(storages[1])
        assert [(e.digest, e.parent_digest, e.seq, e.step, e.time_ns, e.task, e.id, e.writes) for e in events] == [
            (e.digest, e.parent_digest, e.seq, e.step, e.time_ns, e.task, e.id, e.writes) for e in singly
        ]
        assert dict(many.state) == dict(one.state)
        assert list(many.state) == list(one.state)
        for run in (many, one):
            run.append({"n": 1, "l": Extend([2])})
        assert dict(many.refresh().state) == dict(one.state)

    @pytest.mark.parametrize(
        ("odd", "path"),
        [
            ({"n": 5, "t": print}, "[7].t"),
            ({"n": 5, "t": "\ud800"}, "[7].t"),
            ({"n": 5, 6: "y"}, "channel"),
            (["n", 5], "writes"),
        ],
        ids=str,
    )
    def test_the_one_that_cannot_be_is_named_amid_a_batch(self, run: Run, odd: Any, path: str) -> None:
        batch = [{"n": n, "t": "y"} for n in range(20)]
        run.append_many(batch)
        with pytest.raises(InvalidInputError, match=re.escape(path)):
            run.append_many([*batch[:7], odd, *batch[8:]])
        assert len(run) == 20

    def test_an_odd_one_amid_a_batch_is_what_it_is(self, run: Run) -> None:
        odd = [
            {"t": "y", "n": 1},
            {"n": 1},
            {},
            {"n": True, "t": "y"},
            {"n": 1, "t": "y" * 5000},
            {"n": 1, "t": Delete()},
        ]
        batch = [{"n": n, "t": "y"} for n in range(3)]
        for writes in odd:
            run.append_many([*batch, writes, *batch])
        written = [event.writes for event in run.events()]
        assert strictly_equal(written, [w for writes in odd for w in [*batch, writes, *batch]])

    def test_what_was_compared_before_is_forgotten(self, run: Run) -> None:
        run.commit({"n": 0, "m": "a"})
        run.commit({"n": 1, "m": "a"})
        run.append_many([{"n": n} for n in range(9)])
        assert run.commit({"n": 1, "m": "a"}).writes == {"n": 1}
        assert dict(run.refresh().state) == {"n": 1, "m": "a"}


class TestTaskWrites:
    def test_stay_as_they_are_sorted(self, run: Run) -> None:
        event = run.append({"a": 1})
        given = [
            TaskWrite("b", 0, "c", [1]),
            TaskWrite("a", 1, "c", 2),
            TaskWrite("a", 0, "c", 3, "z"),
            TaskWrite("a", 0, "c", 4),
        ]
        run.put_task_writes(event, given)
        wanted = sorted(given[:2] + given[2:3], key=lambda write: (write.path, write.task, write.slot))
        assert run.task_writes(event) == wanted
        run.append({"a": 2})
        assert run.task_writes(0) == wanted
        assert run.task_writes(1) == []
        assert dict(run.state) == {"a": 2}

    def test_may_come_before_their_event(self, run: Run) -> None:
        assert run.task_writes("later") == []
        run.put_task_writes("later", [TaskWrite("t", 0, "c", 1)])
        event = run.append({"a": 1}, id="later")
        run.put_task_writes(event, [TaskWrite("t", 0, "c", "ignored"), TaskWrite("t", 1, "c", 2)])
        assert [write.value for write in run.task_writes("later")] == [1, 2]
        assert run.task_writes(event) == run.task_writes(0) == run.task_writes("later")

    def test_a_slot_that_is_taken_stays_a_negative_one_is_replaced(self, run: Run) -> None:
        event = run.append({})
        for value in (1, 2):
            run.put_task_writes(event, [TaskWrite("t", 0, "c", value), TaskWrite("t", -1, "c", value)])
        assert [(write.slot, write.value) for write in run.task_writes(event)] == [(-1, 2), (0, 1)]

    def test_a_negative_slot_is_replaced_even_if_it_came_before_the_event(self, run: Run) -> None:
        run.put_task_writes("later", [TaskWrite("t", -1, "c", 1)])
        event = run.append({}, id="later")
        run.put_task_writes(event, [TaskWrite("t", -1, "c", 2)])
        assert [write.value for write in run.task_writes(event)] == [2]

    def test_all_or_nothing(self, run: Run, counted: CountingStorage) -> None:
        event = run.append({})
        for bad in (TaskWrite("t", 1, "c", print), TaskWrite("", 1, "c", 1), TaskWrite("t", 1 << 40, "c", 1)):
            with counted.counted() as tally, pytest.raises(InvalidInputError):
                run.put_task_writes(event, [TaskWrite("t", 0, "c", 1), bad])
            assert tally.touched == 0
        assert run.task_writes(event) == []

    def test_limits_hold_for_them_too(self, storage: Storage) -> None:
        run = EventLog(storage, limits=Limits(value_bytes=1000)).run("r")
        event = run.append({})
        with pytest.raises(TooLargeError):
            run.put_task_writes(event, [TaskWrite("t", 0, "c", "x" * 2000)])

    def test_from_several_threads(self, log: EventLog, run: Run) -> None:
        event = run.append({})

        def put(n: int) -> None:
            log.run("r").put_task_writes(event, [TaskWrite(f"t{n % 4}", n // 4, "c", n), TaskWrite("same", 0, "c", n)])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(24)))
        assert len(run.task_writes(event)) == 25


class TestDelete:
    def test_nothing_is_left(self, log: EventLog, run: Run, storage: Storage) -> None:
        for n in range(30):
            run.append({"big": "x" * 700, "l": Extend([n])}, id=f"id {n}")
        run.fork(3).append({"n": 1})
        run.put_task_writes("id 3", [TaskWrite("t", 0, "c", "secret")])
        log.run("other").append({"kept": 1})
        log.delete("r")
        assert log.runs() == ["other"]
        assert "r" not in log
        assert sum(key[:1] not in b"NS" for key in everything(storage)) == sum(
            key[:1] not in b"NS"
            for key in everything(storage)
            if log.run("other")._branches.run.to_bytes(8, "big") in key
        )
        assert log.run("other").state["kept"] == 1
        with pytest.raises(NotFoundError):
            log.delete("r")
        with pytest.raises(NotFoundError):
            log.delete("never")
        with pytest.raises(NotFoundError):
            list(log.verify("r"))

    def test_late_writers_and_readers_are_told(self, log: EventLog, run: Run) -> None:
        event = run.append({"big": "x" * 1000, "n": 0})
        run.append({"n": 1})
        empty = log.run("r2")
        fork, other, old = run.fork(name="f"), log.run("r"), run.at(0)
        prepared = run.prepare({"n": 5}, at=event)
        log.delete("r")
        for late in (
            lambda: run.append({"n": 2}), lambda: run.commit({}), lambda: run.append_many([{}]), lambda: run.fork(0),
            lambda: fork.append({"n": 3}), other.fork, other.refresh, lambda: run.write(prepared),
            lambda: run.at(0), lambda: run.at(event), lambda: run.event(0), lambda: old["big"],
            lambda: list(run.events()),
            lambda: list(run.replay()), lambda: run.put_task_writes(event, [TaskWrite("t", 0, "c", 1)]),
        ):  # fmt: skip
            with pytest.raises(NotFoundError):
                late()
        assert empty.step == -1

    def test_a_name_that_is_used_again_starts_empty(self, log: EventLog, run: Run) -> None:
        old = run.append({"a": 1}, id="x")
        run.append_many([{"a": n} for n in range(9)])
        beyond = run.head
        run.put_task_writes("y", [TaskWrite("t", 0, "c", 1)])
        log.delete("r")
        again = log.run("r")
        assert (len(again), again.branches()) == (0, [])
        new = again.append({"b": 1})
        again.append({"b": 2})
        assert dict(again.state) == {"b": 2}
        assert again.task_writes("y") == []
        for gone in (old, old.id, beyond, beyond.id, auto_id(0, 0, old.digest)):  # type: ignore[union-attr]
            with pytest.raises(NotFoundError):
                again.at(gone)  # type: ignore[arg-type]
            with pytest.raises(NotFoundError):
                again.fork(gone)
        with pytest.raises(NotFoundError):
            run.append({"late": 1})
        assert run.name == "r"
        assert new.seq == 0
        log.delete("r")
        log.run("r").append({"c": 1})
        assert dict(log.run("r").state) == {"c": 1}

    def test_while_others_write(self, log: EventLog) -> None:
        log.run("r").append({"n": 0})
        stop = threading.Event()

        def write() -> None:
            run = log.run("r")
            while not stop.is_set():
                try:
                    try:
                        run.append({"n": 1})
                    except ConflictError:
                        run.refresh()
                except NotFoundError:
                    run = log.run("r")

        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(write) for _ in range(2)]
            for _ in range(5):
                with suppress(NotFoundError):
                    log.delete("r")
            stop.set()
            for writer in writers:
                writer.result()
        assert list(log.verify()) == []

    def test_the_greatest_id_that_was_deleted_is_known(self, log: EventLog) -> None:
        assert log.deleted_up_to("r") is None
        for given, known in (("b", "b"), ("a", "b"), ("c", "c"), (None, "c")):
            before = log.deleted_up_to("r")
            run = log.run("r")
            assert not run.is_original  # it is not there yet
            run.append({"n": 1}, id=given)
            run.append({"n": 2})
            assert log.deleted_up_to("r") == before
            assert run.is_original == log.run("r").is_original == (before is None)
            log.delete("r")
            assert log.deleted_up_to("r") == known
        log.run("without ids").append({})
        log.delete("without ids")
        assert log.deleted_up_to("without ids") == ""


class TestNames:
    def test_tuples(self, log: EventLog) -> None:
        names = ["a", ("a", "b"), ("a", "b", "c"), "a.b", ("a.b", "c"), ("a", "b.c"), "ab", ("a", "B")]
        for name in names:
            log.run(name).append({"name": repr(name)})
        assert set(log.runs()) == set(names)
        assert set(log.runs(within="a")) == {"a", ("a", "b"), ("a", "b", "c"), ("a", "b.c"), ("a", "B")}
        assert log.runs(within="none") == []
        for name in names:
            assert log.run(name).state["name"] == repr(name)
            assert log.run(name).name == name

    def test_a_tuple_of_one_is_its_string(self, log: EventLog) -> None:
        log.run(("a",)).append({"n": 1})
        assert log.run("a").state["n"] == 1
        assert log.runs() == ["a"]

    def test_deleting_one_leaves_those_within(self, log: EventLog) -> None:
        for name in ("a", ("a", "b")):
            log.run(name).append({"n": 1})
        log.delete("a")
        assert log.runs() == [("a", "b")]


class TestLog:
    def test_events_have_times_of_the_clock(self, storage: Storage) -> None:
        log = EventLog(storage, clock=lambda: 1_700_000_000_123_456_789)
        event = log.run("r").append({})
        assert event.time_ns == 1_700_000_000_123_456_789
        assert event.time.isoformat() == "2023-11-14T22:13:20.123456+00:00"

    def test_stats(self, log: EventLog, run: Run) -> None:
        run.append({"a": 1})
        stats = log.stats()
        assert (stats.runs, stats.location) == (1, log.location)
        assert stats.bytes > 0
        assert stats.constants

    def test_close(self, storage: Storage) -> None:
        log = EventLog(storage)
        run = log.run("r")
        run.append({"a": 1})
        log.flush()
        with log:
            pass
        log.close()
        for use in (
            lambda: run.append({}),
            lambda: log.run("r"),
            log.runs,
            lambda: list(log.verify()),
            log.flush,
            run.refresh,
        ):
            with pytest.raises(ClosedError):
                use()

    def test_another_codec_is_refused(self, log: EventLog, run: Run) -> None:
        run.append({"a": 1})

        class Other:
            name = "other/1"

            def encode(self, value: Any, path: str = "value") -> bytes:
                return repr(value).encode()

            def decode(self, data: bytes) -> Any:
                raise AssertionError("not read")

        with pytest.raises(InvalidInputError, match="codec"):
            log.run("r", codec=Other())

    def test_drop_snapshots_changes_no_state(self, log: EventLog, run: Run) -> None:
        for n in range(200):
            run.append({"l": Extend([n] * 3), "d": Merge({n % 9: "x" * 60})})
        run.fork(77).append({"l": Extend(["fork"])})
        before = [dict(run.at(step)) for step in range(0, 200, 7)]
        held, other = run.at(150), log.run("r")
        run.drop_snapshots()
        assert [dict(run.at(step)) for step in range(0, 200, 7)] == before
        assert dict(held)["l"] == run.at(150)["l"]
        other.append({"l": Extend(["after"])})
        assert run.refresh().state["l"][-1] == "after"
        assert run.branch("fork-1").state["l"][-1] == "fork"
