"""Whatever record is gone or damaged: what is read is what was written, or an error that says where the damage is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import CorruptionError, EventLog, Extend, FormatError, Merge, Splice, TaskWrite
from eventlog.layout import EVENT, MANIFEST, PART, SNAPSHOT
from eventlog.storage.memory import MemoryStorage
from tests.counting import everything
from tests.engines import DEEP

if TYPE_CHECKING:
    from collections.abc import Callable

STATES = (EVENT, PART, MANIFEST, SNAPSHOT)
"""Kinds of records that states are made of."""
SAID = (CorruptionError, FormatError)
"""How damage is told; the second of a byte that says the record's format."""
STEPS = 120


@pytest.fixture(scope="module")
def records() -> dict[bytes, bytes]:
    """A run with lists, dicts and large values, ids, task writes and a fork."""
    storage, rng = MemoryStorage(), random.Random(5)
    run = EventLog(storage).run("r")
    run.append({"list": [], "dict": {f"k{n}": "v" * 60 for n in range(100)}, "large": "b" * 2000, "n": 0})
    for n in range(1, STEPS):
        writes: list[dict[str, Any]] = [
            {"list": Extend([{"n": n, "text": "y" * rng.choice((10, 300, 1500))}])},
            {"dict": Merge({f"k{rng.randrange(100)}": "w" * rng.choice((60, 1200))}), "n": n},
            {"list": Splice([(0, 0, [n])]), "dict": Merge({"k0": n})},
            {"large": "c" * 1500 + str(n)},
        ]
        run.append(rng.choice(writes), id=f"id-{n}")
        if not n % 10:
            run.put_task_writes(f"id-{n}", [TaskWrite("task", 0, "list", n)])
    fork = run.fork(at=STEPS // 2, name="fork")
    for n in range(20):
        fork.append({"list": Extend([n]), "n": n})
    return everything(storage)


def looks(records: dict[bytes, bytes]) -> dict[str, Any]:
    """What each look at a log says, or the error; each with a handle of its own."""
    storage = MemoryStorage()
    storage.commit(list(records.items()))
    log = EventLog(storage)
    calls: dict[str, Callable[[], Any]] = {
        **{f"at {step}": lambda step=step: dict(log.run("r").at(step)) for step in (0, 9, 61, 100, STEPS - 1)},  # type: ignore[misc]
        "by id": lambda: dict(log.run("r").at("id-50")),
        "head": lambda: dict(log.run("r").state),
        "fork": lambda: dict(log.run("r").branch("fork").state),
        "events": lambda: [(event.id, event.writes) for event in log.run("r").branch("fork").events()],
        "replay": lambda: [dict(state) for _, state in log.run("r").replay(90, 99)],
        "task writes": lambda: log.run("r").task_writes("id-50"),
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except SAID as error:
            found[name] = error
    return found


@pytest.mark.parametrize("how", ["gone", "another bit"])
@pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.decode())
def test_nothing_that_is_read_differs_from_what_was_written(records: dict[bytes, bytes], kind: bytes, how: str) -> None:
    whole, rng = looks(records), random.Random(kind)
    assert not any(isinstance(said, SAID) for said in whole.values())
    keys = [key for key in records if key[:1] == kind]
    assert keys
    told = 0
    for key in keys if DEEP > 1 else rng.sample(keys, min(len(keys), 30)):
        damaged = {other: record for other, record in records.items() if other != key}
        if how == "another bit":
            record = bytearray(records[key])
            record[rng.randrange(len(record))] ^= 1 << rng.randrange(8)
            damaged[key] = bytes(record)
        for name, said in looks(damaged).items():
            told += isinstance(said, SAID)
            assert isinstance(said, SAID) or said == whole[name], (key.hex(), name)
    assert told or kind in (MANIFEST, SNAPSHOT)  # those can be derived


@pytest.mark.parametrize("key_of", [min, max])
def test_an_event_that_a_head_or_an_id_names_is_missed(key_of: Callable[[list[bytes]], bytes]) -> None:
    storage = MemoryStorage()
    run = EventLog(storage).run("r")
    for n in range(3):
        run.append({"n": n}, id=f"id-{n}")
    gone = key_of([key for key in everything(storage) if key[:1] == EVENT])
    storage.commit([], [gone])
    log = EventLog(storage)
    with pytest.raises(CorruptionError, match="it is missing; restore it"):
        log.run("r").event("id-0" if key_of is min else "id-2")
