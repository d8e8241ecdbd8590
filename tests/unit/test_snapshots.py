"""The snapshot policy: writing stays within a small constant of what changed, reading of the state's own size.

The workloads are chosen against the policy. All counts are taken at the seam.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import CorruptionError, Delete, EventLog, Extend, Merge, Splice, TooDeepError, snapshots
from eventlog.codec import MSGPACK
from eventlog.entries import Entry, Trail
from eventlog.layout import place_of
from eventlog.storage.memory import MemoryStorage
from tests.counting import CountingStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Steps = Iterator[dict[str, Any]]

FACTOR, FLOOR = 6, 64_000
WRITE_FACTOR, WRITE_FLOOR = 5, 512
KB = "x" * 1000
MB = "y" * 1_000_000


def state_bytes(state: Mapping[str, Any]) -> int:
    return sum(len(name) + len(MSGPACK.encode(value)) for name, value in state.items())


# --- workloads given by their writes ---------------------------------------------------------------------------------


def growing_list(n: int = 3000) -> Steps:
    yield {"list": []}
    for i in range(n):
        yield {"list": Extend([i])}


def growing_list_of_texts(n: int = 3000) -> Steps:
    yield {"list": []}
    for i in range(n):
        yield {"list": Extend([str(i).ljust(400, "x")])}


def one_key_of_a_large_dict(n: int = 3000) -> Steps:
    yield {"dict": {f"k{i}": "x" * 50 for i in range(1000)}}
    for i in range(n):
        yield {"dict": Merge({f"k{i % 1000}": i})}


def sliding_list(n: int = 3000) -> Steps:
    yield {"list": [str(i).ljust(100, "x") for i in range(200)]}
    for i in range(n):
        yield {"list": Splice([(0, 1, []), (200, 0, [str(i).ljust(100, "y")])])}


def one_item_of_a_long_list(n: int = 3000) -> Steps:
    yield {"list": ["x" * 50] * 1000}
    for i in range(n):
        yield {"list": Splice([(i % 1000, 1, [str(i).ljust(50)])])}


def large_value_of_one_key(n: int = 300) -> Steps:
    """Each delta is larger than what is inlined."""
    yield {"dict": {"blob": "x" * 10_000, "rest": "r" * 100}}
    for i in range(n):
        yield {"dict": Merge({"blob": str(i) * 2500})}


def huge_value_of_one_key(n: int = 60) -> Steps:
    yield {"dict": {"blob": "x" * 300_000, "rest": "r" * 100}}
    for i in range(n):
        yield {"dict": Merge({"blob": chr(97 + i % 26) * 300_000})}


def mixed_channels(n: int = 3000) -> Steps:
    yield {"big": list(range(20_000)), "small": [], "n": 0}
    for i in range(n):
        yield {"big": Extend([i]), "small": [i], "n": i}


def many_channels(n: int = 3000) -> Steps:
    yield {f"c{i}": [i] for i in range(500)}
    for i in range(n):
        yield {f"c{i % 500}": Extend([i]), f"c{(i * 7) % 500}": [i]}


def tiny_delta_beside_a_large_set(n: int = 60) -> Steps:
    yield {"list": list(range(100_000)), "blob": MB}
    for i in range(n):
        yield {"list": Extend([i]), "blob": MB[: -1 - i]}


def tiny_delta_beside_many_sets(n: int = 200) -> Steps:
    yield {"list": list(range(2000))}
    for i in range(n):
        yield {"list": Extend([i]), **{f"c{j}": "x" * 500 for j in range(40)}}


def rotating_small_beside_a_big_one(n: int = 2000) -> Steps:
    yield {"big": list(range(50_000)), **{f"s{i}": [] for i in range(100)}}
    for i in range(n):
        yield {f"s{i % 100}": Extend([i]), "big": Extend([i])}


def pairs(n: int = 2000) -> Steps:
    """Every event has a big channel's delta and another small one's: whose trail reads it?"""
    yield {"big": {f"k{i}": KB[:100] for i in range(500)}, **{f"s{i}": {} for i in range(200)}}
    for i in range(n):
        yield {"big": Merge({f"k{i % 500}": KB[:90] + str(i)}), f"s{i % 200}": Merge({"n": i})}


def wide_events(n: int = 120) -> Steps:
    yield {f"c{i}": {"n": 0, "pad": "p" * 20} for i in range(200)}
    for i in range(n):
        yield {f"c{j}": Merge({"n": i}) for j in range(200)}


def shrinking_dict(n: int = 300) -> Steps:
    """A large dict of which nearly everything is removed, key by key."""
    yield {"dict": {f"k{i}": KB for i in range(n)}, "rest": 0}
    for i in range(n - 1):
        yield {"dict": Merge({f"k{i}": Delete()})}


def emptied_at_once(n: int = 300) -> Steps:
    yield {"dict": {f"k{i}": KB for i in range(1000)}, "rest": 0}
    yield {"dict": Merge({f"k{i}": Delete() for i in range(999)})}
    for i in range(n):
        yield {"rest": i}


def replaced_by_something_small(n: int = 300) -> Steps:
    yield {"dict": {"big": MB, "small": 1}}
    yield {"dict": Merge({"big": ""})}
    for i in range(n):
        yield {"dict": Merge({"small": i}), "n": i}


def large_dict_then_grows_in_depth(n: int = 2000) -> Steps:
    yield {"dict": {"inner": {"list": []}}}
    for i in range(n):
        yield {"dict": Merge({"inner": Merge({"list": Extend([i])})})}


def random_mix(n: int = 2000) -> Steps:
    rng = random.Random(7)
    sizes = {f"c{i}": 10 ** rng.randrange(1, 5) for i in range(30)}
    yield {name: {"pad": "p" * size, "n": 0} for name, size in sizes.items()}
    for i in range(n):
        chosen = rng.sample(sorted(sizes), rng.randrange(1, 5))
        yield {name: Merge({"n": i}) if rng.random() < 0.7 else {"pad": "p" * sizes[name], "n": i} for name in chosen}


WRITES: list[Callable[[], Steps]] = [
    growing_list,
    growing_list_of_texts,
    one_key_of_a_large_dict,
    sliding_list,
    one_item_of_a_long_list,
    large_value_of_one_key,
    huge_value_of_one_key,
    mixed_channels,
    many_channels,
    tiny_delta_beside_a_large_set,
    tiny_delta_beside_many_sets,
    rotating_small_beside_a_big_one,
    pairs,
    wide_events,
    shrinking_dict,
    emptied_at_once,
    replaced_by_something_small,
    large_dict_then_grows_in_depth,
    random_mix,
]


class Ran:
    """A workload, run once: what was written, and what any step costs to read."""

    def __init__(self, workload: Callable[[], Steps], *, many: bool = False) -> None:
        self.storage = CountingStorage(MemoryStorage())
        run = EventLog(self.storage).run("r")
        if many:
            run.append_many(list(workload()))
        else:
            for writes in workload():
                run.append(writes)
        self.count = len(run)
        written = self.storage.tally.bytes_written
        self.changed = written["E"] + written["P"]
        self.derived = written["M"] + written["V"]

    def reading(self, step: int) -> tuple[int, int]:
        """Bytes read to materialise a step on a fresh handle, beside what opening it reads, and the state's size."""
        run = EventLog(self.storage).run("r")
        with self.storage.counted() as tally:
            state = dict(run.at(step)) if step != run.step else dict(run.state)
        return tally.read, state_bytes(state)


_ran: dict[str, Ran] = {}


@pytest.fixture(params=WRITES, ids=lambda workload: workload.__name__)
def ran(request: pytest.FixtureRequest) -> Ran:
    name = request.param.__name__
    if name not in _ran:
        _ran[name] = Ran(request.param)
    return _ran[name]


def test_what_is_derived_costs_a_constant_of_what_changed(ran: Ran) -> None:
    total = ran.storage.tally.written
    assert total <= WRITE_FACTOR * ran.changed + WRITE_FLOOR * ran.count, (total, ran.changed, ran.derived, ran.count)


def test_every_state_is_read_at_a_constant_of_its_size(ran: Ran) -> None:
    count = ran.count
    for step in sorted(
        {0, 1, count // 3, count // 2, count - 7, count - 2, count - 1, *range(0, count, count // 12 + 1)}
    ):
        read, size = ran.reading(step)
        assert read <= FACTOR * size + FLOOR, f"step {step}: {read:,} bytes read for a state of {size:,}"


def test_reads_are_few(ran: Ran) -> None:
    run = EventLog(ran.storage).run("r")
    with ran.storage.counted() as tally:
        dict(run.at(ran.count // 2))
    assert tally.gets + tally.scans <= 30, tally


@pytest.mark.parametrize("workload", [one_key_of_a_large_dict, mixed_channels, pairs], ids=lambda w: w.__name__)
def test_one_batch_is_like_many_appends(workload: Callable[[], Steps]) -> None:
    ran = Ran(workload, many=True)
    test_what_is_derived_costs_a_constant_of_what_changed(ran)
    test_every_state_is_read_at_a_constant_of_its_size(ran)


# --- the same through commit ------------------------------------------------------------------------------------------


def commit_growing(state: dict[str, Any], i: int) -> None:
    state.setdefault("messages", []).append({"role": "user", "content": f"{i}" * 20})


def commit_one_key(state: dict[str, Any], i: int) -> None:
    if not i:
        state["docs"] = {f"k{j}": KB for j in range(200)}
    state["docs"][f"k{i % 200}"] = f"new {i}"


def commit_shrinking(state: dict[str, Any], i: int) -> None:
    if not i:
        state.update(docs={f"k{j}": KB for j in range(1000)}, n=0)
    for j in range(10):
        state["docs"].pop(f"k{i * 10 + j - 10}", None) if i * 10 + j < 999 else None
    state["n"] = i


def commit_shrink_at_once(state: dict[str, Any], i: int) -> None:
    if not i:
        state["docs"] = {"big": MB, "small": 1}
    if i == 1:
        state["docs"]["big"] = ""
    state["n"] = i


@pytest.mark.parametrize(
    "change", [commit_growing, commit_one_key, commit_shrinking, commit_shrink_at_once], ids=lambda c: c.__name__
)
def test_commit_keeps_both_bounds(change: Callable[[dict[str, Any], int], None]) -> None:
    def steps() -> Steps:
        yield {}

    ran = Ran(steps)
    run = EventLog(ran.storage).run("r")
    state: dict[str, Any] = {}
    for i in range(400):
        change(state, i)
        run.commit(state)
    ran.count = len(run)
    written = ran.storage.tally.bytes_written
    ran.changed, ran.derived = written["E"] + written["P"], written["M"] + written["V"]
    test_what_is_derived_costs_a_constant_of_what_changed(ran)
    test_every_state_is_read_at_a_constant_of_its_size(ran)


# --- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [{}, {"other": Extend(["y" * 400])}], ids=["alone", "beside another"])
@pytest.mark.parametrize("value", [[], {"rest": "r" * 100_000}], ids=["list", "dict"])
def test_a_state_never_lacks_a_change_whose_event_is_gone(value: Any, beside: dict[str, Any]) -> None:
    """An event that a manifest names, and that no longer is there, is said to be missing."""
    storage = MemoryStorage()
    run = EventLog(storage).run("r")
    run.append({"c": value, "other": []})
    for n in range(100):
        item = str(n).ljust(400, "x")
        run.append({"c": Extend([item]) if type(value) is list else Merge({item: n}), **beside})
    gone = next(key for key, _ in storage.scan([(b"E", b"F")]) if place_of(key)[1] == 50)
    storage.commit([], [gone])
    with pytest.raises(CorruptionError, match="an event that changed 'c' is missing"):
        dict(EventLog(storage).run("r").at(100))


# --- what may be dropped ----------------------------------------------------------------------------------------------


def test_states_are_the_same_without_snapshots() -> None:
    ran = Ran(random_mix)
    run = EventLog(ran.storage).run("r")
    steps = range(0, ran.count, 97)
    before = [dict(run.at(step)) for step in steps]
    held = run.at(1500)
    run.drop_snapshots()
    assert [dict(run.at(step)) for step in steps] == before
    assert dict(held) == dict(run.at(1500))
    assert not list(ran.storage.scan([(b"M", b"N"), (b"V", b"W")]))


def test_another_handle_writes_on_after_they_were_dropped() -> None:
    """And what it writes then names nothing that is gone: later reads cost what they should."""
    ran = Ran(random_mix)
    log = EventLog(ran.storage)
    run = log.run("r")
    for i in range(50):
        run.append({"c0": Merge({"n": i})})
    log.run("r").drop_snapshots()
    for i in range(2000):
        run.append({f"c{i % 30}": Merge({"n": i})})
    fresh = EventLog(ran.storage).run("r")
    assert dict(fresh.state) == dict(run.state)
    assert not list(log.verify())
    with ran.storage.counted() as tally:
        state = dict(EventLog(ran.storage).run("r").state)
    assert tally.read <= FACTOR * state_bytes(state) + FLOOR, tally


def test_a_large_value_that_lies_where_it_lay_is_read_once() -> None:
    """Whatever was changed of it between two looks."""
    ran = Ran(lambda: one_key_of_a_large_dict(200))
    run = EventLog(ran.storage).run("r")
    whole = len(MSGPACK.encode({f"k{i}": "x" * 50 for i in range(1000)}))
    for first, second in ((60, 120), (120, 20)):
        with ran.storage.counted() as tally:
            state = dict(run.at(first))
        assert state["dict"] == {f"k{i}": i if i < first else "x" * 50 for i in range(1000)}
        with ran.storage.counted() as tally:
            state = dict(run.at(second))
        assert state["dict"] == {f"k{i}": i if i < second else "x" * 50 for i in range(1000)}
        assert tally.read < whole, tally


def test_more_large_channels_due_at_once_than_fit_one_number_of_two_bytes() -> None:
    """A run may have more channels than one event may write."""
    entry = Entry(4, 700, 10_000, MSGPACK.encode(["x" * 700]), None, Trail(None, 0, 0, 0))
    entries = {f"c{i}": entry for i in range(70_000)}
    puts, _ = snapshots.materialised(1, (0, 5), entries, MSGPACK)
    assert len({key for key, _ in puts}) == 70_001


def test_the_constants_are_told() -> None:
    with EventLog(MemoryStorage()) as log:
        assert log.stats().constants == snapshots.CONSTANTS


def test_a_value_that_cannot_be_written_whole_is_read_from_its_changes(monkeypatch) -> None:
    """A snapshot is made in somebody's append, who may have nothing to do with it."""

    def too_deep(*_: Any) -> bytes:
        raise TooDeepError("value", "nested too deep")

    monkeypatch.setattr(snapshots, "encoded_value", too_deep)
    with EventLog(MemoryStorage()) as log:
        run = log.run("r")
        run.append({"d": {}, "other": 0})
        for n in range(200):
            run.append({"d": Merge({"n": n})})
            run.append({"other": n})
        assert list(log.verify()) == []
        assert [dict(log.run("r").at(step)) for step in (399, 400)] == [
            {"d": {"n": 199}, "other": 198},
            {"d": {"n": 199}, "other": 199},
        ]
