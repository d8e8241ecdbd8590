# ruff: noqa: RUF001 (the multiplication sign is how tables are read)
"""The direct loop: a program that appends its own steps, without a framework.

Ours packs, checks, chains and hands back an event each time; the bare insert beside it is given bytes.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.machine import pin
from benchmarks.ours import CountingFiles, disk_bytes, open_log
from benchmarks.runner import Job, Results, job
from benchmarks.table import Row, Sheet, at_least, at_most, judged, sheet_of

if TYPE_CHECKING:
    from pathlib import Path

    from eventlog import Run

EVENT_BYTES = 100
"""What `event` is in MessagePack, to the byte: what the bare insert gets."""

BARE, ONE, MANY = "bare sqlite3 WAL insert, NORMAL", "ours, append, normal", "ours, append_many of 1,000"
ON_ALL_CORES = "ours, append, normal, on all cores"
FULL, FULL_8 = "ours, append, full", "ours, append, full, 8 threads"
FLOOR, FLOOR_ROOM = "pwrite + fdatasync at the end", "pwrite + fdatasync into written room"
OFF, COMMIT = "ours, append, off", "ours, commit of 20 channels, one changes"


def event(index: int) -> dict[str, Any]:
    """A small event: three numbers that change and a note."""
    return {"step": index + 100_000, "x": index * 0.5, "v": index * -0.25, "note": "n" * 60}


def append(directory: Path, n: int) -> dict[str, Any]:
    """One event per commit, `normal`, one thread; each commit is visible to other processes when it returns."""
    pin()
    return _appended(directory, n, "normal")


def append_on_all_cores(directory: Path, n: int) -> dict[str, Any]:
    """The same where the system chooses the cores, as it does for a program: what folds may have one of its own."""
    return _appended(directory, n, "normal")


def append_off(directory: Path, n: int) -> dict[str, Any]:
    """As `append` in `off`, where only this process sees it."""
    pin()
    return _appended(directory, n, "off")


def _appended(directory: Path, n: int, synchronous: str) -> dict[str, Any]:
    with open_log(directory, synchronous) as log:
        run = log.run("loop")
        run.append(event(0))
        began = time.perf_counter()
        for index in range(n):
            run.append(event(index))
        took = time.perf_counter() - began
    return {"event_us": took / n * 1e6, "bytes": disk_bytes(directory) / n}


def append_full(directory: Path, n: int) -> dict[str, Any]:
    """One event per commit, each flushed before it returns; the median, because a disk's flushes have long tails."""
    with open_log(directory, "full") as log:
        run = log.run("loop")
        run.append(event(0))
        took = []
        for index in range(n):
            before = time.perf_counter()
            run.append(event(index))
            took.append(time.perf_counter() - before)
    return {"event_us": statistics.fmean(took) * 1e6, "median_us": statistics.median(took) * 1e6}


def append_many(directory: Path, n: int, batch: int) -> dict[str, Any]:
    """Batches, one commit each; making the batch is in the time."""
    pin()
    with open_log(directory) as log:
        run = log.run("loop")
        run.append(event(0))
        began = time.perf_counter()
        for start in range(0, n, batch):
            run.append_many(event(index) for index in range(start, start + batch))
        return {"event_us": (time.perf_counter() - began) / n * 1e6}


def append_threads(directory: Path, n: int, threads: int) -> dict[str, Any]:
    """`full` from several threads, each with its own run; counts the flushes that they share."""
    files = CountingFiles()
    with open_log(directory, "full", files) as log:
        runs = [log.run(f"run-{index}") for index in range(threads)]
        for run in runs:
            run.append(event(0))
        workers = [threading.Thread(target=_append_all, args=(run, n)) for run in runs]
        flushes, began = files.syncs, time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        total = n * threads
        took = time.perf_counter() - began
        return {"event_us": took / total * 1e6, "per_flush": total / max(files.syncs - flushes, 1)}


def _append_all(run: Run, n: int) -> None:
    for index in range(n):
        run.append(event(index))


def commit(directory: Path, n: int, channels: int) -> dict[str, Any]:
    """A whole state per commit, of which one channel changed; finding it is our work."""
    pin()
    with open_log(directory) as log:
        run = log.run("loop")
        state: dict[str, Any] = {f"channel-{index}": "v" * 50 for index in range(channels)}
        run.commit(state)
        began = time.perf_counter()
        for index in range(n):
            state["channel-0"] = index
            run.commit(state)
        return {"event_us": (time.perf_counter() - began) / n * 1e6}


def jobs(*, quick: bool) -> dict[str, Job]:
    """Loops that last less than a tenth of a second in `quick`."""
    n, flushes = (2_000, 120) if quick else (60_000, 300)
    return {
        BARE: job("floor.sqlite_insert", n=n, size=EVENT_BYTES),
        ONE: job("direct.append", n=n),
        ON_ALL_CORES: job("direct.append_on_all_cores", n=n),
        MANY: job("direct.append_many", n=n, batch=1000),
        "bare sqlite3 WAL insert, NORMAL, 1,000 a transaction": job(
            "floor.sqlite_insert", n=n, size=EVENT_BYTES, batch=1000
        ),
        OFF: job("direct.append_off", n=n),
        COMMIT: job("direct.commit", n=n // 4, channels=20),
        FLOOR: job("floor.pwrite_fdatasync", n=flushes, size=256),
        FULL: job("direct.append_full", n=flushes),
        FULL_8: job("direct.append_threads", n=flushes // 4, threads=8),
        FLOOR_ROOM: job("floor.pwrite_fdatasync", n=flushes, size=256, is_allocated=True),
        "raw file append": job("floor.file_append", n=n),
        "raw LMDB put, 1,000 a transaction": job("floor.lmdb_put", n=n, batch=1000),
        "raw LMDB put, 1 a transaction, no flush": job("floor.lmdb_put", n=n, batch=1),
        "raw LMDB put, 1 a transaction, synchronous": job("floor.lmdb_put", n=flushes, batch=1, is_synchronous=True),
    }


def rows(found: Results) -> list[Row]:
    """Lines 1 to 3."""

    def one() -> Row:
        value = found.ratio(BARE, ONE, "event_us")
        rates = f"{_rate(found, ONE)} against {_rate(found, BARE)} a second; aim 1.6 ×"
        return at_least("1", "append, one small event per commit, `normal`: rate / bare insert", value, 1.3, note=rates)

    def many() -> Row:
        value = found.ratio(BARE, MANY, "event_us")
        return at_least("2", "append_many of 1,000: rate / row 1's bare insert", value, 4, note=_rate(found, MANY))

    def full() -> Row:
        pairs = zip(found.runs[FULL], found.runs[FLOOR], strict=True)
        ratios = sorted(a["median_us"] / b["event_us"] for a, b in pairs)
        note = f"median {found.median(FULL, 'median_us'):,.0f} µs against {found.median(FLOOR, 'event_us'):,.0f} µs"
        name = "`full`, one thread: median append / pwrite + fdatasync"
        return at_most("3", name, ratios[len(ratios) // 2], 1.3, note=note)

    def shared() -> Row:
        return at_least("3", "`full`, 8 threads: commits per flush", found.median(FULL_8, "per_flush"), 3, "")

    def faster() -> Row:
        return at_least("3", "`full`, 8 threads: throughput / one thread", found.ratio(FULL, FULL_8, "event_us"), 2)

    return [
        judged(found, "1", "append", (BARE, ONE), one),
        judged(found, "2", "append_many", (BARE, MANY), many),
        judged(found, "3", "full", (FULL, FLOOR), full),
        judged(found, "3", "8 threads", (FULL_8,), shared),
        judged(found, "3", "8 threads", (FULL, FULL_8), faster),
    ]


def _rate(found: Results, label: str) -> str:
    return f"{1e6 / found.median(label, 'event_us'):,.0f}"


def sheets(found: Results) -> list[Sheet]:
    """Every loop, the floor among them."""
    columns = {"mean per event": ("event_us", "µs"), "median": ("median_us", "µs"), "on disk": ("bytes", "B")}
    return [sheet_of(found, "Direct loop, a 100 B event, and the physical floor", found.runs, columns)]
