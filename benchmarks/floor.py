"""The physical floor: what the same bytes cost without any of us."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.machine import pin

if TYPE_CHECKING:
    from pathlib import Path


def file_append(directory: Path, n: int, size: int = 100) -> dict[str, Any]:
    """One `write` per event to a file opened for appending; no flush, no checksum, no index."""
    pin()
    fd = os.open(directory / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    event = b"x" * size
    began = time.perf_counter()
    for _ in range(n):
        os.write(fd, event)
    return {"event_us": _each(began, n)}


def pwrite_fdatasync(directory: Path, n: int, size: int, is_allocated: bool = False) -> dict[str, Any]:
    """One `pwrite` and one `fdatasync` per event, at the end of a file that grows, or into room written before."""
    fd = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
    if is_allocated:
        os.pwrite(fd, bytes(n * size), 0)
        os.fsync(fd)
    event = b"x" * size
    took = []
    for index in range(n):
        began = time.perf_counter()
        os.pwrite(fd, event, index * size)
        os.fdatasync(fd)
        took.append(time.perf_counter() - began)
    return {"event_us": statistics.median(took) * 1e6, "mean_us": statistics.fmean(took) * 1e6}


def lmdb_put(directory: Path, n: int, batch: int, size: int = 100, is_synchronous: bool = False) -> dict[str, Any]:
    """Puts at the tree's end, so many a transaction; without flushing unless asked (unsafe at power loss)."""
    import lmdb

    pin()
    with lmdb.open(str(directory / "db"), map_size=1 << 30, sync=is_synchronous) as env:
        event, key = b"x" * size, 0
        began = time.perf_counter()
        for _ in range(n // batch):
            with env.begin(write=True) as transaction:
                for _ in range(batch):
                    transaction.put(key.to_bytes(8, "big"), event, append=True)
                    key += 1
        return {"event_us": _each(began, key)}


def sqlite_insert(directory: Path, n: int, size: int, batch: int = 1, synchronous: str = "NORMAL") -> dict[str, Any]:
    """A bare insert of bytes that are already encoded: SQLite in WAL mode, so many a transaction, no index but rowid.

    Nothing is packed, hashed or checked, and SQLite's own checkpoints are in the time, as our folds are in ours.
    """
    pin()
    base = sqlite3.connect(directory / "db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute(f"PRAGMA synchronous={synchronous}")
    base.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, data BLOB)")
    event = (b"x" * size,)
    insert, rows = "INSERT INTO events (data) VALUES (?)", [event] * batch
    began = time.perf_counter()
    for _ in range(n // batch):
        if batch == 1:
            base.execute(insert, event)
        else:
            base.execute("BEGIN")
            base.executemany(insert, rows)
            base.execute("COMMIT")
    return {"event_us": _each(began, n // batch * batch)}


def _each(began: float, n: int) -> float:
    return (time.perf_counter() - began) / n * 1e6
