"""Reading: the latest and a random old checkpoint, a cold open, a history listing, a random old state, a fork."""

from __future__ import annotations

import random
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.alone import Thread
from benchmarks.graphs import compiled
from benchmarks.machine import pin
from benchmarks.ours import disk_bytes, open_log
from benchmarks.payload import text
from benchmarks.peers import MEMORY, OURS, POSTGRES, SQLITE_NORMAL
from benchmarks.runner import Job, Results, count, job
from benchmarks.table import Row, Sheet, at_most, judged, sheet_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eventlog import Run

SAVERS = (OURS, MEMORY, SQLITE_NORMAL, POSTGRES)
SHAPES = ("dict of 1,000", "1,000 channels", "growing list")
_PER_PUT = 10


def small(directory: Path, saver: str, n: int) -> dict[str, Any]:
    """A thread of n checkpoints of a 200 B state."""
    return _read(directory, saver, lambda thread: _count(thread, n))


def chat(directory: Path, saver: str, n: int) -> dict[str, Any]:
    """A thread whose list grew to n messages of 500 B, ten a checkpoint."""
    return _read(directory, saver, lambda thread: _talk(thread, n))


def _count(thread: Thread, n: int) -> None:
    for index in range(n):
        thread.move("count", index, index)


def _talk(thread: Thread, n: int) -> None:
    from langchain_core.messages import HumanMessage

    said: list[Any] = []
    for start in range(0, n, _PER_PUT):
        new = [HumanMessage(text(500, index), id=f"message-{index}") for index in range(start, start + _PER_PUT)]
        said = [*said, *new]
        thread.move("messages", said, new)


def _read(directory: Path, saver: str, grow: Callable[[Thread], None]) -> dict[str, Any]:
    """Write with one handle, read with it: the latest, old ones in random order, the ten newest; then open it anew."""
    pin()
    rng, latest = random.Random(7), {"configurable": {"thread_id": "thread", "checkpoint_ns": ""}}
    with peers.opened(saver, directory) as opened:
        thread = Thread(opened.saver, {"note": "n" * 180, "count": 0, "messages": []})
        grow(thread)
        ids = [read.config for read in opened.saver.list(latest)]
        old = [rng.choice(ids) for _ in range(30)]
        found = {
            "latest_us": _median_us(lambda _: opened.saver.get_tuple(latest), range(30)),
            "old_us": _median_us(opened.saver.get_tuple, old),
            "list_ms": _median_us(lambda _: list(opened.saver.list(latest, limit=10)), range(5)) / 1e3,
        }
    if saver not in (MEMORY, POSTGRES):
        found["cold_ms"] = _median_us(lambda _: _cold(directory, saver, latest), range(5)) / 1e3
    return found


def _cold(directory: Path, saver: str, latest: dict[str, Any]) -> None:
    with peers.opened(saver, directory) as opened:
        assert opened.saver.get_tuple(latest) is not None


def _median_us(call: Callable[[Any], Any], given: Any) -> float:
    return statistics.median(_timed_us(call, argument) for argument in given)


def _timed_us(call: Callable[[Any], Any], argument: Any) -> float:
    began = time.perf_counter()
    call(argument)
    return (time.perf_counter() - began) * 1e6


def seek(directory: Path, shape: str, n: int) -> dict[str, Any]:
    """Materialise random old steps of a 1 MB state, every value decoded, by a handle that wrote none of them.

    Beside it: decoding that very state from one blob that is already in memory. Each is the best of three: of the
    states, each of three rounds over all of them; so what happened to be in the way once is in neither.
    """
    from eventlog.codec import MSGPACK

    pin()
    with open_log(directory) as log:
        _GROW[shape](log.run("run"), n)
    rng, ratios = random.Random(3), []
    with open_log(directory) as log:
        run = log.run("run")
        first = n // 2 if shape == "growing list" else 0
        steps = [rng.randrange(first, n) for _ in range(20)]
        rounds = [[_timed_us(lambda step: dict(run.at(step)), step) for step in steps] for _ in range(3)]
        took = [min(each) for each in zip(*rounds, strict=True)]
        for step, state_us in zip(steps, took, strict=True):
            blob = MSGPACK.encode(dict(run.at(step)))
            ratios.append(state_us / min(_timed_us(MSGPACK.decode, blob) for _ in range(3)))
    return {"mean": statistics.fmean(ratios), "worst": max(ratios), "state_ms": statistics.fmean(took) / 1e3}


def _grow_dict(run: Run, n: int) -> None:
    table = {f"key-{index}": text(1000, index) for index in range(1000)}
    for index in range(n):
        table[f"key-{index * 7 % 1000}"] = text(1000, index)
        run.commit({"table": table})


def _grow_channels(run: Run, n: int) -> None:
    run.append({f"channel-{index}": text(1000, index) for index in range(1000)})
    for index in range(1, n):
        run.append({f"channel-{index * 7 % 1000}": text(1000, index)})


def _grow_list(run: Run, n: int) -> None:
    from eventlog import Extend

    run.append({"items": []})
    for index in range(1, n):
        run.append({"items": Extend([{"role": "user", "content": text(1_000_000 // n, index)}])})


_GROW: dict[str, Callable[[Run, int], None]] = dict(zip(SHAPES, (_grow_dict, _grow_channels, _grow_list), strict=True))


def fork(directory: Path, n: int) -> dict[str, Any]:
    """Forks at random places of a history of n events; bytes are what a hundred of them add to the closed log."""
    from benchmarks.direct import event

    pin()
    rng, count = random.Random(5), 100
    with open_log(directory) as log:
        log.run("run").append_many(event(index) for index in range(n))
    before = disk_bytes(directory)
    with open_log(directory) as log:
        run = log.run("run")
        places = [(f"fork-{index}", rng.randrange(n)) for index in range(count)]
        took = _median_us(lambda place: run.fork(at=place[1], name=place[0]), places)
    return {"fork_us": took, "bytes": (disk_bytes(directory) - before) / count}


def update_state(directory: Path, saver: str, n: int) -> dict[str, Any]:
    """LangGraph's `update_state` on an old checkpoint of a chat: a counter is set there, 200 times; bytes each.

    So often, because LMDB and SQLite both take whole pages.
    """
    pin()
    count = 200
    with peers.opened(saver, directory) as opened:
        graph, given = compiled("chat", opened.saver, n, [])
        graph.invoke(given, {"configurable": {"thread_id": "t"}, "recursion_limit": n + 10}, durability="sync")
        latest = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        old = next(read for read in opened.saver.list(latest) if read.metadata["step"] == n * 9 // 10).config
    before = disk_bytes(directory)
    with peers.opened(saver, directory) as opened:
        graph, _ = compiled("chat", opened.saver, n, [])
        took = _median_us(lambda index: graph.update_state(old, {"count": index}), range(count))
    return {"fork_us": took, "bytes": (disk_bytes(directory) - before) / count}


def jobs(*, quick: bool) -> dict[str, Job]:
    """Chats of 1,000 messages, of 40 in `quick`."""
    savers = SAVERS[:3] if quick else SAVERS
    n, messages, steps = (100, 40, 60) if quick else (1000, 1000, 1500)
    lengths = (100, 1000) if quick else (100, 10_000)
    return {
        **{f"small / {saver}": job("reading.small", saver=saver, n=n) for saver in savers},
        **{f"chat / {saver}": job("reading.chat", saver=saver, n=messages) for saver in savers},
        **{f"seek, {shape}": job("reading.seek", shape=shape, n=steps) for shape in SHAPES},
        **{f"fork, {length} events": job("reading.fork", n=length) for length in lengths},
        **{
            f"update_state / {saver}": count("reading.update_state", saver=saver, n=40 if quick else 1000)
            for saver in (OURS, SQLITE_NORMAL)
        },
    }


def rows(found: Results) -> list[Row]:
    """Lines 9 to 11."""
    made = []
    for what, key in (("latest", "latest_us"), ("a random old one", "old_us")):
        made += _small_rows(found, f"get_tuple, {what}, small state", key)
    made.append(_against(found, "get_tuple, latest, chat: / InMemorySaver", "chat", MEMORY, "latest_us", 1.15))
    for workload in ("small", "chat"):
        name = f"cold open and first get, {workload}: / SqliteSaver"
        made.append(_against(found, name, workload, SQLITE_NORMAL, "cold_ms", 1))
    for shape in SHAPES:
        made += [_seek_row(found, shape, "mean", 4), _seek_row(found, shape, "worst", 6)]
    for name in (name for name in found.runs if name.startswith("fork")):
        made += [_limit(found, name, "fork_us", 100, "µs"), _limit(found, name, "bytes", 512, "B")]
    made.append(_limit(found, f"update_state / {OURS}", "bytes", 512, "B"))
    return made


def _small_rows(found: Results, name: str, key: str) -> list[Row]:
    ours = f"small / {OURS}"
    took = judged(found, "9", name, (ours,), lambda: at_most("9", name, found.median(ours, key), 30, "µs"))
    return [took, _against(found, name + ": / SqliteSaver", "small", SQLITE_NORMAL, key, 2)]


def _against(found: Results, name: str, workload: str, peer: str, key: str, limit: float) -> Row:
    ours, other = f"{workload} / {OURS}", f"{workload} / {peer}"

    def made() -> Row:
        note = f"{found.median(ours, key):,.3g} against {found.median(other, key):,.3g} {key[-2:].replace('us', 'µs')}"
        return at_most("9", name, found.ratio(ours, other, key), limit, note=note)

    return judged(found, "9", name, (ours, other), made)


def _seek_row(found: Results, shape: str, key: str, limit: float) -> Row:
    name, what = f"seek, {shape}", f"a random old 1 MB state, {shape}, {key}: / decoding one blob"
    return judged(found, "10", what, (name,), lambda: at_most("10", what, found.median(name, key), limit))


def _limit(found: Results, name: str, key: str, limit: float, unit: str) -> Row:
    def made() -> Row:
        return at_most("11", f"{name}: {'time' if unit == 'µs' else 'bytes'}", found.median(name, key), limit, unit)

    return judged(found, "11", name, (name,), made)


def sheets(found: Results) -> list[Sheet]:
    """All savers."""
    columns = {
        "latest": ("latest_us", "µs"),
        "old": ("old_us", "µs"),
        "list(10)": ("list_ms", "ms"),
        "cold open and get": ("cold_ms", "ms"),
        "state": ("state_ms", "ms"),
        "fork": ("fork_us", "µs"),
        "bytes": ("bytes", "B"),
    }
    return [sheet_of(found, "Reading and forking", found.runs, columns)]
