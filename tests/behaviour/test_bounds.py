"""What forking, reading and writing may cost, counted at the seam.

On memory: the counts are the engine's own, whatever holds the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from eventlog import EventLog, Extend, NotFoundError, TaskWrite, delta
from eventlog.codec import MSGPACK
from eventlog.storage.memory import MemoryStorage
from tests.counting import CountingStorage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventlog.storage import Storage


LONG, CHANNELS, DEPTH = 100_000, 1_000, 1_000
FACTOR, FLOOR = 6, 64_000


def state_bytes(state: Mapping[str, Any]) -> int:
    return sum(len(name) + len(MSGPACK.encode(value)) for name, value in state.items())


def opened(storage: CountingStorage) -> EventLog:
    """A log that remembers nothing."""
    return EventLog(storage)


def build(count: int, *, resting: int = 0) -> CountingStorage:
    storage = CountingStorage(MemoryStorage())
    run = EventLog(storage).run("r")
    run.append({f"c{i}": f"value {i} ".ljust(60, "x") for i in range(resting)} | {"n": 0})
    for begin in range(1, count, 10_000):
        run.append_many([{"n": n} for n in range(begin, min(count, begin + 10_000))])
    assert len(run) == count
    return storage


@pytest.fixture(scope="module")
def short() -> CountingStorage:
    return build(10)


@pytest.fixture(scope="module")
def long() -> CountingStorage:
    return build(LONG, resting=CHANNELS)


@pytest.fixture(scope="module")
def long_narrow() -> CountingStorage:
    return build(LONG)


def nested(events_each: int) -> CountingStorage:
    storage = CountingStorage(MemoryStorage())
    run = EventLog(storage).run("r")
    run.append({f"c{i}": f"value {i} ".ljust(60, "x") for i in range(50)} | {"n": 0, "trail": ["x" * 400]})
    for n in range(DEPTH):
        run = run.fork(name=f"b{n}")
        for _ in range(events_each):
            run.append({"n": n, "trail": Extend([n])})
    return storage


@pytest.fixture(scope="module")
def deep() -> CountingStorage:
    return nested(1)


class TestFork:
    @pytest.mark.parametrize("at", ["head", "middle", "first"])
    def test_costs_the_same_for_every_history(
        self, short: CountingStorage, long_narrow: CountingStorage, at: str
    ) -> None:
        costs = []
        for storage in (short, long_narrow):
            run = opened(storage).run("r")
            place = {"head": None, "middle": len(run) // 2, "first": 0}[at]
            with storage.counted() as tally:
                fork = run.fork(place, name=f"fork at {at}")
            assert fork.step == (run.step if place is None else place)
            assert tally.commits == 1
            assert tally.written <= 512, tally
            assert tally.keys_read["E"] == (place is not None), tally
            costs.append((tally.keys_written.total(), tally.keys_deleted.total(), tally.written))
        assert costs[0] == costs[1], "keys written, keys deleted, bytes written"

    def test_reads_no_more_from_a_long_history(self, short: CountingStorage, long_narrow: CountingStorage) -> None:
        reads = []
        for storage in (short, long_narrow):
            run = opened(storage).run("r")
            with storage.counted() as tally:
                run.fork(name="reads")
            assert tally.read <= 20_000, tally
            reads.append(tally.reads)
        assert reads[1] <= reads[0] + 5

    def test_the_thousandth_costs_what_the_first_cost(self) -> None:
        storage = CountingStorage(MemoryStorage())
        run = EventLog(storage).run("r")
        run.append({"a": 1})
        for n in range(DEPTH):
            with storage.counted() as tally:
                run = run.fork(name=f"b{n}")
            assert tally.written <= 512
            assert tally.reads <= 40, (n, tally)


class TestReading:
    @pytest.mark.parametrize("step", [0, 1, 17, 4_999, 31_337, 50_000, 77_777, LONG - 2, LONG - 1])
    def test_any_step_of_a_long_run_with_many_channels_at_rest(self, long: CountingStorage, step: int) -> None:
        with long.counted() as tally:
            state = dict(opened(long).run("r").at(step))
        assert state["n"] == step
        assert len(state) == CHANNELS + 1
        # The handle itself first reads the newest state's manifest; that is one state more.
        assert tally.read <= FACTOR * state_bytes(state) + FLOOR, tally
        assert tally.reads <= 60, tally

    def test_every_step_one_after_the_other_on_one_handle(self, long: CountingStorage) -> None:
        run = opened(long).run("r")
        for step in range(3, LONG, 3_571):
            with long.counted() as tally:
                state = dict(run.at(step))
            assert state["n"] == step
            assert tally.read <= FACTOR * state_bytes(state) + FLOOR, (step, tally)

    @pytest.mark.parametrize("way", ["at", "replay", "refresh"])
    def test_a_small_value_that_changes_at_every_step_is_not_made_of_all_of_them(
        self, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        steps, applied, replayed = 600, 0, delta.replayed

        def counted(value: Any, operations: Sequence[tuple[int, bytes]], codec: Any) -> Any:
            nonlocal applied
            applied += len(operations)
            return replayed(value, operations, codec)

        def state_at(step: int) -> dict[str, Any]:
            return {"a": [step, "x" * 50], "b": "y" * step}

        storage = MemoryStorage()
        run, reader = EventLog(storage).run("r"), EventLog(storage).run("r")
        if way != "refresh":
            for step in range(steps):
                run.commit(state_at(step))
            reader.refresh()
        states = (state for _, state in reader.replay())
        monkeypatch.setattr(delta, "replayed", counted)
        for step in range(steps):
            if way == "refresh":
                with monkeypatch.context() as patch:
                    patch.setattr(delta, "replayed", replayed)
                    run.commit(state_at(step))
                assert dict(reader.refresh().state) == state_at(step)
            else:
                assert dict(reader.at(step) if way == "at" else next(states)) == state_at(step)
        assert applied <= steps * 2 * 30

    @pytest.mark.parametrize("step", [0, 1, 99, 50_001, LONG - 1])
    def test_a_tiny_state_of_a_long_run(self, long_narrow: CountingStorage, step: int) -> None:
        with long_narrow.counted() as tally:
            assert dict(opened(long_narrow).run("r").at(step)) == {"n": step}
        assert tally.read <= FLOOR, tally

    def test_who_opens_a_run_and_looks_at_its_head_reads_that_event_once(self, long_narrow: CountingStorage) -> None:
        with long_narrow.counted() as tally:
            run = opened(long_narrow).run("r")
            assert run.head is not None
        assert tally.keys_read["E"] == 1, tally
        assert (tally.gets, tally.ranges) == (3, 0), "its name; its beginning and where it ends; that event"
        assert run.head == run.state.event == run.event(LONG - 1)

    def test_the_tip_of_many_nested_forks(self, deep: CountingStorage) -> None:
        run = opened(deep).run("r")
        with deep.counted() as tally:
            tip = run.branch(f"b{DEPTH - 1}")
            state = dict(tip.state)
        assert state["n"] == DEPTH - 1
        assert state["trail"] == ["x" * 400, *range(DEPTH)]
        assert tally.read <= FACTOR * state_bytes(state) + FLOOR, tally
        assert tally.reads <= 100, tally

    @pytest.mark.parametrize("step", [0, 1, 5, 333, 500, 998, DEPTH])
    def test_any_step_below_many_nested_forks(self, deep: CountingStorage, step: int) -> None:
        tip = opened(deep).run("r").branch(f"b{DEPTH - 1}")
        with deep.counted() as tally:
            state = dict(tip.at(step))
        assert state["n"] == max(step - 1, 0)
        assert len(state["trail"]) == step + 1
        assert tally.read <= FACTOR * state_bytes(state) + FLOOR, tally
        assert tally.reads <= 100, tally

    def test_nested_forks_whose_events_carry_what_they_add(self) -> None:
        """A list that grows by what its events hold is never written whole; its reads must not grow with the depth."""
        storage = CountingStorage(MemoryStorage())
        run = EventLog(storage).run("r")
        run.append({"list": [0], "n": 0})
        for n in range(DEPTH):
            run = run.fork(name=f"b{n}")
            run.append({"list": Extend([f"{n}".ljust(400, "x")])})
        run = opened(storage).run("r")
        with storage.counted() as tally:
            state = dict(run.branch(f"b{DEPTH - 1}").state)
        assert len(state["list"]) == DEPTH + 1
        assert tally.read <= FACTOR * state_bytes(state) + FLOOR, tally
        assert tally.reads <= 100, tally

    def test_nested_forks_without_events(self) -> None:
        storage = nested(0)
        run = opened(storage).run("r")
        with storage.counted() as tally:
            tip = run.branch(f"b{DEPTH - 1}")
            state = dict(tip.state)
        assert state["n"] == 0
        assert len(tip) == 1
        assert tip.step == 0
        assert tally.reads <= 60, tally
        assert tally.read <= FACTOR * state_bytes(state) + FLOOR, tally
        tip.append({"n": 1})
        assert dict(opened(storage).run("r").branch(tip.branch_name).state)["n"] == 1
        assert not list(opened(storage).verify())


class TestWriting:
    def test_a_step_costs_what_it_changes_whatever_rests(
        self, long: CountingStorage, long_narrow: CountingStorage
    ) -> None:
        """Amortised over as many steps as a manifest lasts."""
        per_step = []
        for storage in (long_narrow, long):
            run = opened(storage).run("r").fork(name="writing")
            steps = 4_000
            with storage.counted() as tally:
                for n in range(steps):
                    run.append({"n": n})
            per_step.append(tally.written / steps)
        assert per_step[1] <= 2 * per_step[0] + 200, per_step
        assert per_step[1] <= 500, per_step

    def test_an_append_reads_nothing(self, long: CountingStorage) -> None:
        run = opened(long).run("r").fork(name="reading nothing")
        run.append({"n": 0})
        with long.counted() as tally:
            for n in range(100):
                run.append({"n": n})
        assert tally.read == 0, tally

    def test_what_a_task_wrote_before_its_event_is_one_commit(self, short: CountingStorage) -> None:
        run = opened(short).run("r")
        run.put_task_writes("to come", [TaskWrite("t", 0, "x", 0)])
        for n in range(3):
            with short.counted() as tally:
                run.put_task_writes(f"to come {n}", [TaskWrite("t", 0, "x", n)])
            assert (tally.reads, tally.commits) == (0, 1), tally
            run.append({"n": n})


@pytest.mark.parametrize("is_copied", [False, True])
def test_what_a_task_wrote_is_refused_if_another_deleted_the_run_meanwhile(
    storage: Storage, *, is_copied: bool
) -> None:
    run = EventLog(storage).run("r")
    run.append({"n": 0})
    if is_copied:
        EventLog(storage).copy("r", "copy")
    run.put_task_writes("to come", [TaskWrite("t", 0, "x", 0)])
    EventLog(storage).delete("r")
    with pytest.raises(NotFoundError):
        run.put_task_writes("to come, too", [TaskWrite("t", 0, "x", 1)])
    assert not list(EventLog(storage).verify())


def test_verify_is_clean(short: CountingStorage, deep: CountingStorage) -> None:
    for storage in (short, deep):
        assert not list(opened(storage).verify())
