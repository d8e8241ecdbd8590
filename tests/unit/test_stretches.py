"""What a handle keeps of the events it looked at never shows, but in what it reads."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import pytest

from eventlog import Delete, EventLog, Extend, Merge
from eventlog.storage.memory import MemoryStorage
from tests.counting import CountingStorage
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from eventlog.stretches import Stretch

COUNT = 400
BOUND = 48 << 10


def grown(storage: CountingStorage) -> list[dict]:
    """A run on two branches whose events do all that events can; the state after each of main's, then the fork's."""
    rng, run, states = random.Random(1), EventLog(storage).run("r"), []
    run.append({"n": 0, "list": [], "dict": {}, "large": "x" * 2000})
    states.append(dict(run.state))
    for n in range(1, COUNT):
        if n == COUNT // 2:
            run = run.fork(name="fork")
        writes = {"n": n}
        if n % 100 >= 40:  # before that nothing but small values is set
            kind = rng.randrange(5)
            if kind == 0:
                writes["list"] = Extend([n, "y" * rng.choice([1, 500])])
            elif kind == 1:
                writes["dict"] = Merge({f"k{n % 7}": n})
            elif kind == 2:
                writes["large"] = "z" * rng.choice([10, 600, 3000])
            elif kind == 3:
                writes["gone"] = Delete() if "gone" in states[-1] else "here"
        elif n % 100 >= 20:  # and before that always the same channels
            writes[f"small {n % 3}"] = n
        run.append(writes)
        states.append(dict(run.state))
    return states


@pytest.fixture(scope="module")
def story() -> tuple[CountingStorage, list[dict]]:
    storage = CountingStorage(MemoryStorage())
    return storage, grown(storage)


def test_in_any_order_every_state_is_what_it_was(story):
    storage, states = story
    run = EventLog(storage).run("r").branch("fork")
    rng = random.Random(2)
    steps = [rng.randrange(COUNT) for _ in range(300)] + [*range(COUNT), *range(COUNT - 1, -1, -1)]
    for step in steps:
        state = run.at(step)
        assert state.event.step == step
        assert strictly_equal(dict(state), states[step])
        assert list(state) == list(states[step])


def test_what_a_state_was_used_for_does_not_change_the_next_one(story):
    storage, states = story
    run = EventLog(storage).run("r").branch("fork")
    for step in (50, 45, 50, 47):
        state = dict(run.at(step))
        state["dict"].clear()
        state["list"].append("mine")
        assert strictly_equal(dict(run.at(step)), states[step])


def test_back_step_by_step_reads_each_event_about_once(story):
    storage, _ = story
    run = EventLog(storage).run("r").branch("fork")
    with storage.counted() as tally:
        for step in range(COUNT - 2, COUNT - 42, -1):
            assert run.at(step)["n"] == step
    assert tally.keys_read["M"] <= 10, tally
    assert tally.keys_read["E"] <= 3 * 40 + 100, tally  # one more each, to find its place by the step


def test_a_large_value_that_stayed_is_read_once_whichever_way_one_goes(story):
    storage = CountingStorage(MemoryStorage())
    run = EventLog(storage).run("r")
    run.append({"n": 0, "large": "x" * 2000, "grown": ["y" * 2000]})
    for n in range(1, 200):
        run.append({"n": n, **({"grown": Extend([n])} if n == 100 else {})})
    run = EventLog(storage).run("r")
    assert (len(run.at(150)["large"]), run.at(150)["grown"][-1]) == (2000, 100)
    with storage.counted() as tally:
        for step in (151, 150, 120, 180, 101):
            state = run.at(step)
            assert (state["n"], len(state["large"]), state["grown"][1:]) == (step, 2000, [100])
        assert not tally.keys_read["P"], tally
        assert run.at(99)["grown"] == ["y" * 2000]


def test_what_is_kept_is_bounded(story, monkeypatch):
    monkeypatch.setattr("eventlog.stretches.KEPT_BYTES", BOUND)
    storage, _ = story
    run = EventLog(storage).run("r").branch("fork")
    rng, most = random.Random(3), 0
    for step in (rng.randrange(COUNT) for _ in range(300)):
        run.at(step)
        stretches = run._stretches
        kept = stretches._kept.values()
        most = max(most, len(kept))
        assert sum(stretch.size for stretch in kept) == stretches._size <= BOUND
        assert stretches._order == sorted(stretches._kept) == sorted(stretch[:2] for stretch in kept)
    assert most > 2


def test_what_is_kept_takes_about_the_memory_that_it_is_said_to(story):
    storage, _ = story
    run = EventLog(storage).run("r").branch("fork")
    for step in range(COUNT):
        run.at(step)
    kept = run._stretches._kept.values()
    said, taken = sum(stretch.size for stretch in kept), sum(map(memory_of, kept))
    assert 0.6 * taken < said < 1.5 * taken, (said, taken)


def memory_of(stretch: Stretch) -> int:
    """Bytes of the objects that nothing else holds."""
    found = sum(sys.getsizeof(each) for pair in stretch.pairs for each in (pair, *pair))
    for name, entry in stretch.entries.items():
        found += sum(map(sys.getsizeof, (name, entry, entry.size, entry.debt))) + 100  # its share of the dict's table
        found += sum(sys.getsizeof(each) for each in (entry.full, entry.place, entry.trail) if each is not None)
    return found


def test_dropped_snapshots_are_missed_by_nobody_who_looked_before(story):
    storage = CountingStorage(MemoryStorage())
    states = grown(storage)
    run = EventLog(storage).run("r").branch("fork")
    for step in range(0, COUNT, 5):
        run.at(step)
    EventLog(storage).run("r").drop_snapshots()
    for step in range(0, COUNT, 5):
        assert strictly_equal(dict(run.at(step)), states[step])
