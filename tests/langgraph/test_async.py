"""Async calls: the loop waits for nobody's disk, and whoever is cancelled has left all or nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import PutOp
from pydantic import BaseModel, PrivateAttr

from eventlog import EventLog
from eventlog.storage.journal import LocalFiles
from eventlog.storage.local import LocalStorage
from savers.langgraph import EventLogSaver, EventLogStore
from tests.engines import LOCATIONS
from tests.langgraph.byhand import config, made
from tests.own_engine import OneFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOO_LONG_S = 60


class Gate:
    """Holds up whoever passes while it is shut; opens by itself if the loop is held up, too, and says so."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._met = threading.Event()
        self.was_forced = False

    @contextmanager
    def shut(self) -> Iterator[None]:
        self._met.clear()
        self._open.clear()
        forced = threading.Timer(TOO_LONG_S, self._force)
        forced.start()
        try:
            yield
        finally:
            forced.cancel()
            self.open()

    def _force(self) -> None:
        self.was_forced = True
        self.open()

    def open(self) -> None:
        self._open.set()

    def passed(self) -> None:
        if not self._open.is_set():
            self._met.set()
        self._open.wait()

    async def met(self) -> None:
        """Return when somebody stands before it."""
        await asyncio.to_thread(self._met.wait, TOO_LONG_S)
        assert self._met.is_set()
        self._met.clear()


class SlowCommits:
    """A storage whose commits pass a gate."""

    def __init__(self, storage: Any, gate: Gate) -> None:
        self._storage, self._gate = storage, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def at_once(self) -> AbstractContextManager[bool]:
        return nullcontext(False)

    def commit(self, *batch: Any, **options: Any) -> None:
        self._gate.passed()
        self._storage.commit(*batch, **options)


class SlowFlushes(LocalFiles):
    """A file system whose flushes pass a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def sync(self, fd: int) -> None:
        self._gate.passed()
        super().sync(fd)


def flushing(location: str, gate: Gate) -> Any:
    return LocalStorage(location, synchronous="full", files=SlowFlushes(gate))


def committing(location: str, gate: Gate) -> Any:
    return SlowCommits(EventLog.open(location)._storage, gate)


def engines() -> Iterator[Any]:
    yield pytest.param(lambda path, gate: flushing(str(path / "log"), gate), id="flush")
    for name, located in LOCATIONS.items():
        yield pytest.param(lambda path, gate, located=located: committing(located(path), gate), id=name)


@pytest.fixture(params=engines())
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[EventLogSaver, Gate]]:
    """A saver on an empty log, and what holds up its disk."""
    gate = Gate()
    with EventLog(request.param(tmp_path, gate)) as log:
        yield EventLogSaver(log), gate
        assert list(log.verify()) == []


async def aput(saver: EventLogSaver, checkpoint_id: str, under: str | None, value: Any) -> None:
    said = made(checkpoint_id, {"x": value}, {"x": checkpoint_id})
    await saver.aput(config(under), said, {"source": "loop", "step": 1, "parents": {}}, {"x": checkpoint_id})


def value(saver: EventLogSaver, checkpoint_id: str) -> Any:
    found = saver.get_tuple(config(checkpoint_id))
    return None if found is None else found.checkpoint["channel_values"]["x"]


def pending(saver: EventLogSaver, checkpoint_id: str) -> list[Any]:
    found = saver.get_tuple(config(checkpoint_id))
    assert found is not None
    return list(found.pending_writes or [])


@pytest.mark.parametrize(
    "first",
    [
        lambda saver: aput(saver, "b", "a", [["b"]]),
        lambda saver: saver.aput_writes(config("a"), [("x", "w")], "task"),
    ],
    ids=["aput", "aput_writes"],
)
def test_the_loop_never_waits_for_what_another_call_writes(
    opened: tuple[EventLogSaver, Gate], first: Callable[[EventLogSaver], Any]
) -> None:
    saver, gate = opened

    async def run() -> None:
        await aput(saver, "a", None, [["a"]])
        growing = [["c"]]
        with gate.shut():
            tasks = [asyncio.create_task(first(saver))]
            await gate.met()
            tasks.append(asyncio.create_task(aput(saver, "c", "a", growing)))
            tasks.append(asyncio.create_task(saver.aput_writes(config("a"), [("x", "v")], "other")))
            await asyncio.sleep(0)
            growing[0].append("too late")
            growing.append(["too late"])
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert not gate.was_forced
    assert value(saver, "c") == [["c"]]
    assert ("other", "x", "v") in pending(saver, "a")


@pytest.mark.parametrize("location", ["memory:", "log"])
def test_what_waits_for_nobody_is_done_by_the_loop(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To hand it to another thread takes several times what it takes."""
    handed = asyncio.to_thread

    async def run(saver: EventLogSaver) -> None:
        await aput(saver, "a", None, ["a"])  # opens the run
        monkeypatch.setattr(asyncio, "to_thread", refused)
        await saver.aput_writes(config("a"), [("x", "v")], "task")
        await aput(saver, "b", "a", ["a", "b"])
        monkeypatch.setattr(asyncio, "to_thread", handed)

    def refused(*call: Any) -> None:
        pytest.fail(f"{call} was handed to another thread")

    monkeypatch.chdir(tmp_path)
    with EventLog.open(location) as log:
        saver = EventLogSaver(log)
        asyncio.run(run(saver))
        assert value(saver, "b") == ["a", "b"]
        assert pending(saver, "a") == [("task", "x", "v")]


@contextmanager
def held_by_another_process(log: EventLog) -> Iterator[None]:
    fd = os.open(Path(log.location) / "journal" / "lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # of another open file: as another process has it
        yield
    finally:
        os.close(fd)


@contextmanager
def held_by_another_thread(log: EventLog) -> Iterator[None]:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(log._storage._lock.acquire, 1).result()
        try:
            yield
        finally:
            pool.submit(log._storage._lock.release).result()


@pytest.mark.parametrize("held", [held_by_another_process, held_by_another_thread])
def test_the_loop_never_waits_for_another_writer(held: Any, tmp_path: Path) -> None:
    async def run(saver: EventLogSaver) -> None:
        await aput(saver, "a", None, ["a"])
        with held(saver.log):
            writing = [
                asyncio.create_task(saver.aput_writes(config("a"), [("x", "v")], "task")),
                asyncio.create_task(aput(saver, "b", "a", ["a", "b"])),
            ]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in writing)
        await asyncio.gather(*writing)

    with EventLog.open(tmp_path / "log") as log:
        saver = EventLogSaver(log)
        asyncio.run(run(saver))
        assert value(saver, "b") == ["a", "b"]
        assert pending(saver, "a") == [("task", "x", "v")]
        assert list(log.verify()) == []


def test_writes_that_come_one_by_one_are_kept_where_a_thread_writes_them(tmp_path: Path) -> None:
    async def run(saver: EventLogSaver) -> None:
        await aput(saver, "a", None, ["a"])
        with held_by_another_process(saver.log):
            writes: Any = iter([("x", "v")])
            writing = asyncio.create_task(saver.aput_writes(config("a"), writes, "task"))
            await asyncio.sleep(0.05)
        await writing

    with EventLog.open(tmp_path / "log") as log:
        saver = EventLogSaver(log)
        asyncio.run(run(saver))
        assert pending(saver, "a") == [("task", "x", "v")]


def test_an_engine_of_ones_own_is_written_by_threads(tmp_path: Path) -> None:
    async def run(saver: EventLogSaver) -> None:
        await aput(saver, "a", None, ["a"])
        await saver.aput_writes(config("a"), [("x", "v")], "task")
        await aput(saver, "b", "a", ["b"])

    with EventLog(OneFile(tmp_path / "own")) as log:
        saver = EventLogSaver(log)
        asyncio.run(run(saver))
        assert value(saver, "b") == ["b"]


@pytest.mark.parametrize("meanwhile", ["put again", "pruned"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"detection": "identity"},
        {"serde": EncryptedSerializer.from_pycryptodome_aes(key=b"sixteen bytes ..")},
    ],
    ids=["sound", "identity", "encrypted"],
)
def test_s18_what_is_put_after_others_wrote_its_parent_anew_is_as_it_was_when_it_was_put(
    options: dict[str, Any], meanwhile: str
) -> None:
    with EventLog.open("memory:") as log:
        saver, other = EventLogSaver(log, **options), EventLogSaver(log, **options)
        items = [f"item {n}" for n in range(50)]

        async def run() -> None:
            await aput(saver, "a", None, [])
            await aput(saver, "b", "a", items)
            if meanwhile == "put again":
                await aput(other, "b", "a", [])
            else:
                other.prune(["t"])
            growing = [*items, "new"]
            putting = asyncio.create_task(aput(saver, "c", "b", growing))
            await asyncio.sleep(0)
            growing.append("too late")
            await putting

        asyncio.run(run())
        assert value(other, "c") == [*items, "new"]
        assert list(log.verify()) == []


class Locked(BaseModel):
    """Can be encoded, and not be copied."""

    n: int
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


def test_what_cannot_be_copied_is_put_all_the_same(opened: tuple[EventLogSaver, Gate]) -> None:
    log, gate = opened[0].log, opened[1]
    saver = EventLogSaver(log, serde=JsonPlusSerializer(allowed_msgpack_modules=[(Locked.__module__, "Locked")]))

    async def run() -> None:
        await aput(saver, "a", None, ["a"])
        with gate.shut():
            busy = asyncio.create_task(aput(saver, "b", "a", ["b"]))
            await gate.met()
            threading.Timer(0.05, gate.open).start()  # for this call the loop waits
            await aput(saver, "c", "a", Locked(n=3))
        await busy

    asyncio.run(run())
    assert (value(saver, "b"), value(saver, "c").n) == (["b"], 3)


async def cancelled(call: Any, gate: Gate, turns: int | None) -> None:
    """Cancel a call after some turns of the loop; None: while its disk is held up."""
    if turns is None:
        with gate.shut():
            task = asyncio.create_task(call)
            await gate.met()
            task.cancel()
            await asyncio.wait([task])
    else:
        task = asyncio.create_task(call)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turns", [0, 1, 2, 3, None])
def test_s39_what_is_cancelled_is_whole_or_absent(opened: tuple[EventLogSaver, Gate], turns: int | None) -> None:
    saver, gate = opened
    store = EventLogStore(saver.log)
    ops = [PutOp(("of", "a"), f"{n}", {"n": n}) for n in range(9)]  # one namespace: one event

    async def contend() -> None:
        await aput(saver, "a", None, ["a"])
        await store.aput(("of",), "first", {})
        with gate.shut():  # what is put meanwhile is copied first
            busy = asyncio.create_task(aput(saver, "b", "a", ["b"]))
            await gate.met()
            contended = asyncio.create_task(aput(saver, "c", "a", ["c"] * 20))
            for _ in range(turns or 0):
                await asyncio.sleep(0)
            contended.cancel()
            await asyncio.wait([contended])
        await busy

    asyncio.run(contend())  # each run ends once all threads have: so it is the next call that the gate meets
    asyncio.run(cancelled(aput(saver, "d", "a", ["d"] * 20), gate, turns))
    asyncio.run(cancelled(saver.aput_writes(config("a"), [("x", n) for n in range(8)], "task"), gate, turns))
    asyncio.run(cancelled(store.abatch(ops), gate, turns))
    assert value(saver, "b") == ["b"]
    assert value(saver, "c") in (None, ["c"] * 20)
    assert value(saver, "d") in ([["d"] * 20] if turns is None else (None, ["d"] * 20))
    written = [said for _, _, said in pending(saver, "a")]
    assert written in ([[*range(8)]] if turns is None else ([], [*range(8)]))
    assert len(store.search(("of",), limit=20)) in ([10] if turns is None else (1, 10))
    asyncio.run(aput(saver, "z", "a", ["z"]))
    assert value(saver, "z") == ["z"]
