"""Writes until it is killed, and says each number that was acknowledged: location, mode, what, point, countdown."""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys

from eventlog import EventLog
from eventlog.storage import local
from eventlog.storage.journal import JournalFiles, LocalFiles, Window
from eventlog.storage.lmdb import LmdbStorage
from tests.crash import workload

location, mode, what, point, countdown = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
workload.shrink(setattr)
local.FLUSH_INTERVAL_S = 0.002
if mode == "off":
    local._SPILL_BYTES = 700

is_open = False


def reached(name: str) -> None:
    global countdown  # noqa: PLW0603
    if name == point and is_open:
        countdown -= 1
        if countdown <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type, name: str, label: str) -> None:
    inner = getattr(owner, name)

    def outer(*args, **kwargs):
        reached(f"{label}-before")
        result = inner(*args, **kwargs)
        reached(f"{label}-after")
        return result

    setattr(owner, name, outer)


class Files(LocalFiles):
    def write(self, fd: int, data: bytes, offset: int) -> None:
        reached("write-before")
        if len(data) == 12:
            reached("seal-write-before")
        if point == "write-half":
            os.pwrite(fd, data[: random.randrange(len(data))], offset)
            reached("write-half")
        super().write(fd, data, offset)
        if len(data) == 12:
            reached("seal-write-after")
        reached("write-after")

    def window(self, fd: int, offset: int, size: int) -> Window:
        return Stores(mmap.mmap(fd, size, offset=offset))  # on every file system: nothing here fills the disk


class Stores:
    """A window, watched."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def __setitem__(self, where: slice, data: bytes) -> None:
        reached("store-before")
        if len(data) == 12:
            reached("seal-write-before")
        if point == "store-half":
            half = random.randrange(len(data))
            self._window[where.start : where.start + half] = data[:half]
            reached("store-half")
        self._window[where] = data
        if len(data) == 12:
            reached("seal-write-after")
        reached("store-after")


class Words:
    """The header's words, watched."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def __getitem__(self, at: int) -> int:
        return self._words[at]

    def __setitem__(self, at: int, word: int) -> None:
        if word > self._words[at]:
            reached("end-before")
        self._words[at] = word
        reached("end-after")


around(Files, "cut", "cut")
around(Files, "sync", "sync")
around(Files, "sync_directory", "names")
around(JournalFiles, "create", "create")
around(JournalFiles, "remove", "remove")
around(LmdbStorage, "fold", "fold")
around(local.LocalStorage, "_seal", "seal")

storage = local.LocalStorage(location, synchronous=mode, files=Files())
storage._words = Words(storage._words)
is_open = True
os.write(1, b"ready\n")
if what == "log":
    run = EventLog(storage).run("run")
    while True:
        n = len(run) + 1
        run.append({"n": n, f"c{n % 9}": workload.value(n).decode(), "same": "x" * (n % 50)})
        os.write(1, b"%d\n" % n)
else:
    n = workload.count(storage)
    while True:
        n += 1
        storage.commit(*workload.batch_of(n))
        os.write(1, b"%d\n" % n)
