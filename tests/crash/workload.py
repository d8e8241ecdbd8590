"""A workload whose whole state follows from the number of its last commit, and what stands after a crash.

Commit n expects commit n - 1, so what is found names one n, and must equal `state(n)`: nothing lost before n, no hole,
no half of a batch, nothing twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventlog.storage import journal, local
from eventlog.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventlog.storage import Storage

ROOT = Path(__file__).resolve().parent.parent.parent
DEEP = int(os.environ.get("EVENTLOG_DEEP", "1"))
SIZES: list[tuple[Any, str, int]] = [
    (local, "FILE_BYTES", 1500),
    (local, "_FIRST_BYTES", 200),
    (local, "_SLICE_PAIRS", 2),
    (journal, "ROOM_BYTES", 400),
    (journal, "WINDOW_BYTES", 400),
]

COUNTER, EACH, SLOT = b"\x0acounter", b"\x0b", b"\x0c"
EVERYTHING = [(b"\0", b"\xff")]
KINDS = [(b"\x0a", b"\x0b"), (b"\x0b", b"\x0c"), (b"\x0c", b"\x0d")]


def shrink(set_to: Callable[[Any, str, int], None]) -> None:
    """Make files small, and the room in them, so that every turn is taken often."""
    for owner, name, size in SIZES:
        set_to(owner, name, size)


def value(n: int) -> bytes:
    return b"%d;" % n * (1 + n * 7919 % 40)


def number(n: int) -> bytes:
    return n.to_bytes(8, "big")


def batch_of(n: int) -> tuple[list[tuple[bytes, bytes]], list[bytes], dict[bytes, bytes | None]]:
    puts = [(EACH + number(n), value(n)), (SLOT + number(n % 7), number(n)), (COUNTER, number(n))]
    deletes = [EACH + number(n - 3)] if n % 5 == 0 else []
    return puts, deletes, {COUNTER: number(n - 1) if n > 1 else None}


def state(n: int) -> list[tuple[bytes, bytes]]:
    pairs: dict[bytes, bytes] = {}
    for each in range(1, n + 1):
        puts, deletes, _ = batch_of(each)
        for key in deletes:
            pairs.pop(key, None)
        pairs.update(puts)
    return sorted(pairs.items())


def count(storage: Storage) -> int:
    found = storage.get([COUNTER])[0]
    return 0 if found is None else int.from_bytes(found, "big")


def checked(storage: Storage) -> int:
    """The number of the last commit that is there, and all before it, exactly."""
    n = count(storage)
    expected = state(n)
    assert list(storage.scan(KINDS)) == expected
    assert storage.get([key for key, _ in expected]) == [content for _, content in expected]
    return n


def go_on(storage: Storage, times: int = 1) -> int:
    n = count(storage)
    for each in range(n + 1, n + times + 1):
        storage.commit(*batch_of(each))
    return n + times


def child(script: str, *args: object, wait: bool = False) -> subprocess.Popen[str]:
    """A process that runs a script of this directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "faulthandler", str(Path(__file__).parent / script), *map(str, args)]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    if wait:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return process


def reopened(location: Path, mode: str = "normal", **options) -> LocalStorage:
    return LocalStorage(location, synchronous=mode, **options)  # type: ignore[arg-type]
