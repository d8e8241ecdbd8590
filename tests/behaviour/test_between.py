"""What one does while another does something, between any two calls of the storage: each is whole, or says why not."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from eventlog import ConflictError, EventLog, Extend, InvalidInputError, Merge, NotFoundError, TaskWrite
from eventlog.storage.memory import MemoryStorage
from tests.between import Between, filled
from tests.counting import everything
from tests.engines import DEEP

if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[EventLog], object]

EVENTS = 40
STRIDE = 1 if DEEP > 1 else 5
"""How many calls lie between two that somebody comes between."""


@pytest.fixture(scope="module")
def records() -> dict[bytes, bytes]:
    """Run "a", with a branch and one without events of its own; and "b", a copy of it that goes its own way."""
    storage = MemoryStorage()
    log = EventLog(storage)
    run = log.run("a")
    run.append({"list": [], "dict": {f"k{n}": "v" * 90 for n in range(60)}, "large": "b" * 2000}, id="e00")
    for n in range(1, EVENTS):
        change = {"list": Extend([{"n": n, "text": "y" * 300}]), "dict": Merge({f"k{n}": n})}
        run.append(change if n % 3 else {"large": "c" * 1000 + str(n)}, id=f"e{n:02}")
        if not n % 5:
            run.put_task_writes(f"e{n:02}", [TaskWrite("task", 0, "list", "z" * 200)])
    run.fork(at="e10", name="side").append({"list": Extend([1])}, id="side")
    log.copy("a", "b")
    log.run("b").fork(at="e12", name="other").append({"list": Extend([2])}, id="other")
    log.run("b").append({"n": 1}, id="b")
    log.run("a").append({"n": 2}, id="head")
    log.run("a").fork(at="e20", name="empty")
    return everything(storage)


def put(log: EventLog) -> None:
    run = log.run("a")
    run.write(run.prepare({"n": 5}, at="e33", id="late"))


def delete_and_begin_anew(log: EventLog) -> None:
    log.delete("a")
    log.run("a").append({"n": 1}, id="e07")


def delete_the_copy_and_prune(log: EventLog) -> None:
    log.delete("b")
    log.run("a").prune(["head", "e39"])


ACTS: dict[str, Act] = {
    "append": lambda log: log.run("a").append({"n": 5}, id="new"),
    "commit": lambda log: log.run("a").commit({"n": 3}),
    "put": put,
    "put task writes": lambda log: log.run("a").put_task_writes("e33", [TaskWrite("u", 0, "list", 1)]),
    "fork": lambda log: log.run("a").fork(at="e33").append({"n": 7}),
    "copy": lambda log: log.copy("a", "c"),
    "forget": lambda log: log.run("a").forget(["e33", "e07"]),
    "prune": lambda log: log.run("a").prune(["head", "e39"]),
    "delete": lambda log: log.delete("a"),
    "delete the copy": lambda log: log.delete("b"),
    "delete the copy and prune": delete_the_copy_and_prune,
    "delete and begin anew": delete_and_begin_anew,
}
LOOKS: dict[str, Act] = {
    "state": lambda log: dict(log.run("a").state),
    "state of the copy": lambda log: dict(log.run("b").state),
    "old state": lambda log: dict(log.run("a").at("e07")),
    "state at a step": lambda log: dict(log.run("a").at(25)),
    "side": lambda log: dict(log.run("a").branch("side").state),
    "events": lambda log: list(log.run("a").events()),
    "replay": lambda log: [dict(state) for _, state in log.run("a").replay("e30")],
    "diff": lambda log: log.run("a").diff("e30", "e35"),
    "task writes": lambda log: log.run("a").task_writes("e30"),
    "refresh": lambda log: log.run("a").refresh(),
}
LISTS: dict[str, Act] = {
    "branches": lambda log: log.run("a").branches(),
    "ids": lambda log: list(log.run("a").given_ids()),
    "count": lambda log: log.run("a").count_events(),
    "runs": lambda log: list(log.runs()),
    "feed": lambda log: list(log.feed()),
    "verify": lambda log: list(log.verify()),
}
DELETING = {"delete", "delete the copy", "delete the copy and prune", "delete and begin anew"}


def refused(act: Act, log: EventLog) -> Exception | None:
    """Why it was not done; anything but what a caller is told to expect fails the test."""
    try:
        act(log)
    except (ConflictError, NotFoundError, InvalidInputError) as error:
        return error
    return None


@pytest.mark.parametrize("meanwhile", ACTS)
@pytest.mark.parametrize("name", [*ACTS, *LOOKS, *LISTS])
def test_each_is_whole_or_says_why_not(records: dict[bytes, bytes], name: str, meanwhile: str) -> None:
    act = {**ACTS, **LOOKS, **LISTS}[name]
    for calls in range(0, 1000, STRIDE):
        storage = filled(records)
        beside: list[Exception | None] = []
        pause = partial(lambda log, said: said.append(refused(ACTS[meanwhile], log)), EventLog(storage), beside)
        between = Between(storage, {calls: pause})
        error = refused(act, EventLog(between))
        if not beside:
            return
        where = f"after {calls} calls: {error!r}, {beside[0]!r}"
        assert list(EventLog(storage).verify()) == [], where
        if meanwhile not in {*DELETING, "prune", "forget"}:
            assert error is None or isinstance(error, ConflictError), where
        if name in LISTS and meanwhile not in {"delete", "delete and begin anew"}:
            assert error is None, where
    pytest.fail("it never ended")


@pytest.mark.parametrize("seed", range(3 * DEEP))
def test_each_is_whole_whoever_comes_between(records: dict[bytes, bytes], seed: int) -> None:
    """Two or three others, one after another, or one between the calls of the other."""
    rng, acts = random.Random(seed), {**ACTS, **LOOKS, **LISTS}

    def run(name: str, others: list[str], storage: MemoryStorage) -> None:
        at = [rng.randrange(calls[name]) for _ in others]
        nested = len(others) == 2 and rng.random() < 0.5
        plan = {at[0]: partial(run, others[0], others[1:], storage)} if nested else {}
        for place, other in () if nested else zip(at, others, strict=True):
            plan[place] = partial(run, other, [], storage)
        refused(acts[name], EventLog(Between(storage, plan)))

    calls: dict[str, int] = {}
    for name, act in acts.items():
        alone = Between(filled(records), {})
        act(EventLog(alone))
        calls[name] = alone.calls
    for _ in range(150):
        storage = filled(records)
        name, others = rng.choice([*acts]), rng.choices([*ACTS], k=rng.choice((2, 2, 3)))
        run(name, others, storage)
        assert list(EventLog(storage).verify()) == [], (name, others)
