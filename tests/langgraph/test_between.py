"""What one saver does while another does something, between any two calls of the storage."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from eventlog import ConflictError, EventLog, NotFoundError
from eventlog.storage.memory import MemoryStorage
from savers.langgraph import EventLogSaver
from tests.between import Between, filled
from tests.counting import everything
from tests.engines import DEEP

if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[EventLogSaver], Any]

CHECKPOINTS = 8
IDS = [str(uuid6(clock_seq=n)) for n in range(CHECKPOINTS)]
PLACES = 1000 if DEEP > 1 else 8
"""At how many calls of the one the other comes between."""


def config(thread_id: str, checkpoint_id: str | None = None, namespace: str = "") -> Any:
    named = {"thread_id": thread_id, "checkpoint_ns": namespace}
    return {"configurable": named if checkpoint_id is None else {**named, "checkpoint_id": checkpoint_id}}


def put(saver: EventLogSaver, under: Any, step: int, checkpoint_id: str | None = None, **values: Any) -> str:
    """One checkpoint, all of whose channels have a new version; returns its id."""
    versions = dict.fromkeys(values, saver.get_next_version(f"{step + 1:032}.0000000000"))
    said = {"id": checkpoint_id or str(uuid6(clock_seq=step)), "channel_values": values, "channel_versions": versions}
    checkpoint: Any = {**empty_checkpoint(), **said}
    metadata: Any = {"source": "loop", "step": step, "run_id": f"run-{step % 3}"}
    saver.put(under, checkpoint, metadata, versions)
    return str(checkpoint["id"])


@pytest.fixture(scope="module")
def records() -> dict[bytes, bytes]:
    """Thread "a" with a fork, a namespace, and a copy "b"; and thread "x", which has no copies."""
    storage = MemoryStorage()
    saver = EventLogSaver(EventLog(storage))
    for thread_id in ("a", "x"):
        messages: list[Any] = []
        for n, checkpoint_id in enumerate(IDS):
            messages = [*messages, {"n": n, "text": "y" * 300}]
            under = config(thread_id, IDS[n - 1] if n else None)
            put(saver, under, n, checkpoint_id, messages=messages, n=n, document="d" * 2000)
            saver.put_writes(config(thread_id, checkpoint_id), [("messages", {"n": n + 1}), ("n", n + 1)], f"task-{n}")
        put(saver, config(thread_id, IDS[3]), 4, n=7)
        put(saver, config(thread_id, namespace="sub"), 0, n=1)
    saver.copy_thread("a", "b")
    return everything(storage)


WRITES: dict[str, Act] = {
    "put": lambda saver: put(saver, config("a", IDS[-1]), 20, n=100),
    "put after an old one": lambda saver: put(saver, config("a", IDS[4]), 21, n=100),
    "put in x": lambda saver: put(saver, config("x", IDS[-1]), 23, n=100),
    "put_writes": lambda saver: saver.put_writes(config("a", IDS[-1]), [("n", 5)], "late"),
    "put_writes early": lambda saver: saver.put_writes(config("a", str(uuid6(clock_seq=9))), [("n", 5)], "early"),
}
UPKEEP: dict[str, Act] = {
    "copy_thread": lambda saver: saver.copy_thread("a", "c"),
    "copy_thread x": lambda saver: saver.copy_thread("x", "c"),
    "prune": lambda saver: saver.prune(["a", "x"]),
    "prune to some": lambda saver: saver.prune(["x"], keep_last=3),
    "delete_for_runs": lambda saver: saver.delete_for_runs(["run-1"]),
    "delete_thread": lambda saver: saver.delete_thread("a"),
    "delete_thread b": lambda saver: saver.delete_thread("b"),
}
READS: dict[str, Act] = {
    "get_tuple": lambda saver: saver.get_tuple(config("a")),
    "get_tuple of an old one": lambda saver: saver.get_tuple(config("x", IDS[4])),
    "get_tuple of the copy": lambda saver: saver.get_tuple(config("b", IDS[4])),
    "list": lambda saver: list(saver.list(config("x"))),
    "list all": lambda saver: list(saver.list(None)),
}


def done(act: Act, saver: EventLogSaver) -> Any:
    """What it returns, or why it was not done: nothing but what its caller is told to expect."""
    try:
        return act(saver)
    except (ConflictError, NotFoundError) as error:
        return error


@pytest.mark.parametrize("meanwhile", [*WRITES, *UPKEEP])
@pytest.mark.parametrize("name", [*WRITES, *UPKEEP, *READS])
def test_nothing_is_lost_and_reading_never_fails(records: dict[bytes, bytes], name: str, meanwhile: str) -> None:
    act, other = {**WRITES, **UPKEEP, **READS}[name], {**WRITES, **UPKEEP}[meanwhile]
    alone = Between(filled(records), {})
    act(EventLogSaver(EventLog(alone)))
    calls = alone.calls
    for place in random.Random(f"{name} {meanwhile}").sample(range(calls), min(calls, PLACES)):
        storage = filled(records)
        beside: list[Any] = []
        log = EventLog(storage)
        pause = partial(lambda log, said: said.append(done(other, EventLogSaver(log))), log, beside)
        mine = done(act, EventLogSaver(EventLog(Between(storage, {place: pause}))))
        where = f"after {place} of {calls} calls: {mine!r}, {beside!r}"
        assert list(log.verify()) == [], where
        left = [found.config["configurable"]["checkpoint_id"] for found in EventLogSaver(log).list(None)]
        for which, said in ((name, mine), (meanwhile, *beside)) if beside else ():
            is_deleted = "delete_thread" in (name, meanwhile) and which != "put in x"
            assert not (which in WRITES and isinstance(said, str)) or is_deleted or said in left, where
        needs_it = name in WRITES or name.startswith("copy_thread")
        assert not isinstance(mine, NotFoundError) or (needs_it and meanwhile.startswith("delete_thread")), where
