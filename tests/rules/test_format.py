"""A log of format version 1, written once and checked in, reads the same for ever.

`python -m tests.rules.test_format` wrote it; do not write it again.
"""

import base64
import datetime as dt
import json
import shutil
import uuid
from decimal import Decimal
from pathlib import Path

from eventlog import AppendText, Delete, EventLog, Extend, Merge, TaskWrite
from tests.strict import strictly_equal

DATA = Path(__file__).parents[1] / "data" / "format-1"
BIG = {f"key {i}": "v" * i for i in range(80)}
STATE_AT_4 = {
    "x": 2.5,
    "trail": [1.0, 2.0, 3.0],
    "text": "once upon a time",
    "tree": {"a": {"b": [1, 2, 3]}, "new": None},
    "big": {**BIG, "key 3": b"changed"},
    "types": (
        dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC),
        uuid.UUID(int=7),
        Decimal("1.50"),
        {1, 2},
        frozenset({"a"}),
        2**70,
        bytearray(b"x"),
        dt.timedelta(1, 2, 3),
        float("inf"),
    ),
}


def write(log):
    run = log.run(("sim", "inner"))
    run.append({"x": 1, "trail": Extend([1.0]), "text": "once", "tree": {"a": {"b": [1]}, "gone": 1}, "big": BIG})
    run.append({"x": Delete(), "trail": Extend([2.0]), "text": AppendText(" upon a time")}, task="físico", id="given/1")
    run.append(
        {"tree": Merge({"a": Merge({"b": Extend([2, 3])}), "gone": Delete(), "new": None})}, meta={"why": "test"}
    )
    run.append({"big": Merge({"key 3": b"changed"}), "x": 2.5}, step=10)
    run.commit({**run.state, "types": STATE_AT_4["types"], "trail": [1.0, 2.0, 3.0]})
    run.put_task_writes("given/1", [TaskWrite("task-1", 0, "x", [1]), TaskWrite("task-1", -3, "i", "stop", "~path")])
    run.fork("given/1", "what-if").append({"x": -1})


def write_more(log):
    log.run("long").append_many({"n": i, "log": Extend([f"line {i}"])} for i in range(200))


def test_version_1_reads(tmp_path):
    shutil.copytree(DATA, tmp_path / "log")
    with EventLog.open(tmp_path / "log", readonly=True) as log:
        assert log.runs() == ["long", ("sim", "inner")]
        run = log.run(("sim", "inner"))
        state = run.state
        assert set(state) == set(STATE_AT_4)
        assert all(strictly_equal(state[channel], value) for channel, value in STATE_AT_4.items())
        assert [event.step for event in run.events()] == [0, 1, 2, 10, 11]
        assert run.event("given/1").task == "físico"
        assert run.event(2).meta == {"why": "test"}
        assert dict(run.branch("what-if").state) == {**run.at("given/1"), "x": -1}
        assert [(write.task, write.slot, write.value) for write in run.task_writes("given/1")] == [
            ("task-1", 0, [1]),
            ("task-1", -3, "stop"),
        ]
        long = log.run("long")
        assert dict(long.at(150)) == {"n": 150, "log": [f"line {i}" for i in range(151)]}
        assert list(log.verify()) == []


def test_version_1_goes_on(tmp_path):
    shutil.copytree(DATA, tmp_path / "log")
    with EventLog.open(tmp_path / "log") as log:
        log.run("long").append({"n": 200, "log": Extend(["more"])})
        assert len(log.run("long").state["log"]) == 201
        assert list(log.verify()) == []


def test_its_records_are_written_the_same_today():
    """Same input, same clock: same bytes. A change here is a new format version."""
    expected = json.loads((DATA.parent / "format-1.json").read_text())
    assert records() == expected


def records():
    from eventlog.storage.memory import MemoryStorage

    storage = MemoryStorage()
    ticks = iter(range(1_700_000_000_000_000_000, 1_800_000_000_000_000_000, 1_000_000))
    log = EventLog(storage, clock=lambda: next(ticks))
    write(log)
    write_more(log)
    derivable = b"MV"  # manifests and snapshots: when they are written is policy, not format
    kinds = [kind for kind in range(1, 255) if kind not in derivable]
    pairs = storage.scan([(bytes([kind]), bytes([kind + 1])) for kind in kinds])
    return {key.hex(): base64.b85encode(value).decode() for key, value in pairs}


if __name__ == "__main__":
    assert not DATA.exists(), "it is written once"
    with EventLog.open(DATA) as log:
        write(log)
        local = log._storage
        local._lock.acquire(1)
        local._seal()
        local._lock.release()
        local._fold()
        write_more(log)  # the first run lies in LMDB, the second one in the journal
    (DATA.parent / "format-1.json").write_text(json.dumps(records(), indent=0) + "\n")
