"""A codec whose bytes differ each time hides what a run says, and changes nothing else: over every engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from eventlog import (
    AppendText,
    CorruptionError,
    Delete,
    EventLog,
    Extend,
    IdConflictError,
    Merge,
    Splice,
    TaskWrite,
    Update,
)
from eventlog.codec import MSGPACK
from tests.counting import everything

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventlog.storage import Storage

WORD = b"swordfish"
FIRST = {
    "text": "swordfish " * 20,
    "list": ["swordfish"] * 20,
    "dict": {f"swordfish {n}": {"k": [n, "swordfish"]} for n in range(20)},
    "n": 1,
    "gone": "swordfish",
}


class Sealed:
    """Sixteen random bytes, and the data mixed with them; enough that no word can be found."""

    name = "sealed/1"
    unsealed = MSGPACK
    MARK = b"sealed"

    def seal(self, data: bytes) -> bytes:
        pad = os.urandom(16)
        return self.MARK + pad + bytes(byte ^ pad[index % 16] ^ index % 251 for index, byte in enumerate(data))

    def opened(self, data: bytes) -> bytes:
        if not data.startswith(self.MARK):
            raise CorruptionError("a value", "not sealed")
        pad, data = data[6:22], data[22:]
        return bytes(byte ^ pad[index % 16] ^ index % 251 for index, byte in enumerate(data))

    def encode(self, value: Any, path: str = "value") -> bytes:
        return self.seal(MSGPACK.encode(value, path))

    def decode(self, data: bytes) -> Any:
        return MSGPACK.decode(self.opened(data))


@pytest.fixture
def log(storage: Storage) -> Iterator[EventLog]:
    log = EventLog(storage)
    yield log
    assert list(log.verify()) == []
    assert not [record for record in everything(storage).values() if WORD in record]


def test_what_changed_is_found_and_hidden(log):
    run = log.run("r", codec=Sealed())
    run.commit(FIRST)
    state = {key: value for key, value in FIRST.items() if key != "gone"}
    state |= {"text": state["text"] + "swordfish", "list": [*state["list"], "swordfish"]}
    state |= {"dict": {**state["dict"], "swordfish 3": {"k": ["swordfish"]}, "swordfish!": 1}}
    for fresh in (False, True):
        run = log.run("r", codec=Sealed()) if fresh else run
        event = run.commit(state)
        expected = {
            "text": AppendText("swordfish"),
            "list": Extend(["swordfish"]),
            "dict": Merge({"swordfish 3": Merge({"k": Splice([(0, 1, [])])}), "swordfish!": 1}),
            "gone": Delete(),
        }
        assert dict(event.writes) == ({} if fresh else expected)
        assert dict(run.event(event.id).writes) == dict(event.writes)
    assert dict(log.run("r", codec=Sealed()).state) == state
    assert dict(run.at(0)) == FIRST


def test_a_long_history_reads_back_through_its_snapshots(log):
    run = log.run("r", codec=Sealed())
    expected: dict[str, Any] = {"list": [], "dict": {}}
    run.append_many([{"list": Extend(["swordfish"]), "dict": Merge({"swordfish": n})} for n in range(200)])
    for n in range(300):
        writes = {"list": Extend([f"swordfish {n}"]), "dict": Merge({f"swordfish {n % 9}": n}), "n": Update(n // 7)}
        run.append(writes)
    expected["list"] = ["swordfish"] * 200 + [f"swordfish {n}" for n in range(300)]
    fresh = log.run("r", codec=Sealed())
    assert fresh.state["list"] == expected["list"]
    assert fresh.state["dict"] == {"swordfish": 199, **{f"swordfish {n % 9}": n for n in range(300)}}
    assert [state["n"] for _, state in fresh.replay(start=498)] == [298 // 7, 299 // 7]
    assert fresh.at(250)["list"] == expected["list"][:251]
    fresh.drop_snapshots()
    assert log.run("r", codec=Sealed()).state["list"] == expected["list"]


def test_the_same_under_one_id_is_done_once(log):
    run = log.run("r", codec=Sealed())
    first = run.append(FIRST, id="a")
    assert run.append(FIRST, id="a") == first
    second = run.append({"gone": Delete(), "dict": Merge({"swordfish": 2})}, id="b")
    assert run.append({"gone": Delete(), "dict": Merge({"swordfish": 2})}, id="b") == second
    with pytest.raises(IdConflictError):
        run.append({"gone": Delete(), "dict": Merge({"swordfish": 3})}, id="b")


def test_task_writes_are_sealed(log):
    run = log.run("r", codec=Sealed())
    run.append({"n": 1}, id="a")
    run.put_task_writes("a", [TaskWrite("task", 0, "list", ["swordfish"] * 20)])
    run.append({"list": ["swordfish"] * 20})
    assert run.task_writes("a") == [TaskWrite("task", 0, "list", ["swordfish"] * 20)]


def test_what_is_not_sealed_is_refused(log):
    run = log.run("r", codec=Sealed())
    run.append({"n": [1]})
    run.write(run.prepare({}, encoded={"n": MSGPACK.encode([1, 2])}))
    for read in (lambda: run.state["n"], lambda: run.commit({"n": [1, 2, 3]}), lambda: dict(run.head.writes)):
        with pytest.raises(CorruptionError):
            read()
