"""What a handle has read of a channel's deltas it does not read again, and what it then shows is what was there."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import EventLog, Extend, Merge, Splice, entries, trails
from eventlog.storage.memory import MemoryStorage
from tests.counting import CountingStorage
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from eventlog.run import Run

BEFORE_A_MANIFEST = 40
"""No more events of these runs lie between two manifests; an event is looked for by its step, and read, too."""


def opened(storage: CountingStorage) -> Run:
    """A handle that has read nothing."""
    return EventLog(storage).run("r")


def grown(first: Any, count: int) -> CountingStorage:
    storage = CountingStorage(MemoryStorage())
    run = opened(storage)
    run.append({"items": first})
    for n in range(1, count):
        run.append({"items": Extend([f"{n} ".ljust(300, "x")])})
    return storage


@pytest.mark.parametrize("first", [[], ["y" * 2000]], ids=["small", "large"])
@pytest.mark.parametrize(("step", "new"), [(380, 0), (300, 0), (20, 0), (700, 300), (401, 1)])
def test_of_a_list_that_grows_only_what_came_since_is_read(first, step, new):
    storage = grown(first, 800)
    run = opened(storage)
    assert len(run.at(400)["items"]) == 400 + len(first)
    with storage.counted() as tally:
        items = run.at(step)["items"]
    assert tally.keys_read["E"] <= new + BEFORE_A_MANIFEST, tally
    assert not tally.keys_read["P"], tally
    assert items == first + [f"{n} ".ljust(300, "x") for n in range(1, step + 1)]


def test_a_list_that_grows_at_every_other_event_however_often():
    storage = CountingStorage(MemoryStorage())
    run = opened(storage)
    run.append({"items": ["x" * 2000], "n": 0})
    run.append_many([{"items": Extend(["m" * 200])} if n % 2 else {"n": n} for n in range(3000)])
    run = opened(storage)
    assert len(run.at(2900)["items"]) == 1451
    with storage.counted() as tally:
        assert [len(run.at(step)["items"]) for step in (2500, 2500, 100)] == [1251, 1251, 51]
    assert tally.keys_read["E"] <= 3 * BEFORE_A_MANIFEST, tally


def written(rng: random.Random, n: int, state: dict[str, Any]) -> dict[str, Any]:
    """One event of one to three of five channels; now and then large, so that payloads lie in parts."""
    size = rng.choice([1, 30, 200, 1500])
    writes: dict[str, Any] = {}
    for channel in rng.sample(["list", "other list", "dict", "edited", "set"], rng.randint(1, 3)):
        if rng.random() < 0.01:
            writes[channel] = {"dict": {}, "set": n}.get(channel, [n])
        elif "list" in channel:
            writes[channel] = Extend([n, "y" * size])
        elif channel == "dict":
            writes[channel] = Merge({f"k{n % 50}": "z" * size})
        elif channel == "edited":
            at = rng.randrange(len(state["edited"]) + 1)
            writes[channel] = Splice([(at, min(1, len(state["edited"]) - at), [n, "e" * size])])
        else:
            writes[channel] = [n] * size
    return writes


@pytest.fixture(scope="module")
def story() -> tuple[CountingStorage, dict[str, dict[str, Any]]]:
    """A run on five branches, and the state after each of its events."""
    storage, states, rng = CountingStorage(MemoryStorage()), {}, random.Random(1)
    main = opened(storage)
    main.append({"list": [], "other list": ["o" * 700], "dict": {}, "edited": [], "set": 0}, id="first")
    states["first"] = dict(main.state)
    branches = [main]
    for n in range(1, 700):
        run = rng.choice(branches)
        if n % 120 == 0:
            event = run.event(rng.choice([each.id for each in run.events()]))
            run = run.fork(at=event, name=f"fork {n}")
            branches.append(run)
        run.append(written(rng, n, dict(run.state)), id=f"event {n}")
        states[f"event {n}"] = dict(run.state)
    return storage, states


@pytest.mark.parametrize("seed", range(4))
def test_from_anywhere_to_anywhere_with_whatever_was_read(story, seed):
    storage, states = story
    rng, run = random.Random(seed), opened(storage)
    for _ in range(400):
        name = rng.choice([*states])
        state, then = run.at(name), states[name]
        for channel in rng.sample([*then], rng.randint(0, len(then))):
            assert strictly_equal(state[channel], then[channel]), (name, channel)


def test_a_replay_touches_only_what_each_event_says(monkeypatch):
    """To put the deltas of all events before together at each costs the square of their number."""
    storage = CountingStorage(MemoryStorage())
    run = opened(storage)
    run.append({"items": []})
    run.append_many({"items": Extend(["x" * 1200])} for _ in range(300))
    flat = entries.flat_ops

    def counted(*args):
        ops = flat(*args)
        touched.append(len(ops))
        return ops

    touched: list[int] = []
    for room in (entries, trails):
        monkeypatch.setattr(room, "flat_ops", counted)
    with storage.counted() as tally:
        for n, (_, state) in enumerate(opened(storage).replay()):
            assert n % 100 or len(state["items"]) == n
    assert sum(touched) < 2000, touched
    assert tally.keys_read["P"] <= 310, tally
