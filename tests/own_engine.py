"""An engine of one's own, in sixty lines: what the README shows as an example, and no more than the protocol asks for.

One file of batches, each the MessagePack of what a commit put and removed; whoever opens it has all of it in memory.
Any number of processes may share it: each call reads, under a lock, what others appended before. It is as simple as
that goes: a ``scan`` goes through all that is there.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING

import msgpack

from eventlog.errors import CapacityError, ClosedError, ExpectationError, InvalidInputError
from eventlog.storage.base import FED, check_keys, check_starts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OneFile:
    """Keeps every promise of ``Storage``; each commit is flushed before it returns."""

    def __init__(self, path: Path) -> None:
        self.location, self._file, self._lock = str(path), path.open("a+b", buffering=0), threading.Lock()
        self._id = os.fstat(self._file.fileno()).st_ino.to_bytes(8, "big")  # so no other log's position is taken
        self._pairs: dict[bytes, bytes] = {}
        self._fed: list[bytes] = []
        self._end = 0  # of the last whole batch that was read

    @contextmanager
    def _current(self) -> Iterator[None]:
        with self._lock:
            if self._file.closed:
                raise ClosedError(f"{self.location} was closed; open it again")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                start = self._file.seek(self._end)
                batches = msgpack.Unpacker(max_buffer_size=0)
                batches.feed(self._file.read())
                for puts, deletes in batches:
                    for key in deletes:
                        self._pairs.pop(key, None)
                    self._pairs.update(puts)
                    self._fed += sorted(key for key, _ in puts if key[:1] == FED)
                    self._end = start + batches.tell()
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def get(self, keys):
        check_keys(keys)
        with self._current():
            return [self._pairs.get(key) for key in keys]

    def scan(self, ranges, *, reverse=False, limit=None):
        check_starts(ranges)
        with self._current():
            keys = sorted(self._pairs, reverse=reverse)
        wanted = (key for low, high in ranges for key in keys if low <= key < high)
        return islice(((key, value) for key in wanted for value in self.get([key]) if value is not None), limit)

    def commit(self, puts, deletes=(), expect=None, *, is_settled=True):
        expect = expect or {}
        check_keys([*(key for key, _ in puts), *deletes, *expect])
        with self._current():
            differing = [key for key, value in expect.items() if self._pairs.get(key) != value]
            if differing:
                raise ExpectationError(differing)
            self._file.truncate(self._end)  # what somebody began to write who died
            batch = msgpack.packb([[list(pair) for pair in puts], list(deletes)])
            if self._file.write(batch) < len(batch):
                raise CapacityError(f"no room for {self.location}; nothing was written; make some")
            os.fsync(self._file.fileno())
        self.settle()  # which reads it as others do

    def feed(self, after=b"", *, limit=None):
        with self._current():
            seen = int.from_bytes(after[8:], "big")
            if after and (len(after) != 16 or after[:8] != self._id or seen > len(self._fed)):
                raise InvalidInputError(f"{after.hex()} is no position of {self.location}; begin without one")
            keys = self._fed[seen:][:limit]
        return ((self._id + number.to_bytes(8, "big"), key) for number, key in enumerate(keys, seen + 1))

    def position(self):
        with self._current():
            return self._end

    def at_once(self):
        return nullcontext(False)

    def settle(self):
        self.position()

    flush, size_bytes = settle, position

    def is_flushed(self):
        return self.position() >= 0

    def close(self):
        with self._lock:
            self._file.close()
