"""An engine of one's own: what the README shows as an example, and no more than the protocol asks for.

One file of batches, each the MessagePack of what a commit put, removed and fed; whoever opens it has all of it in
memory. Any number of processes may share it: they read what others appended before each call, and append under a lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
from bisect import bisect_left, insort
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import msgpack

from eventlog.errors import ClosedError, ExpectationError, InvalidInputError
from eventlog.storage.base import FED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OneFile:
    """Keeps every promise of ``Storage``; each commit is flushed before it returns."""

    def __init__(self, path: Path) -> None:
        self.location = str(path)
        self._lock = threading.Lock()
        self._file = path.open("a+b", buffering=0)
        self._end = 0  # of the last whole batch that was read
        self._pairs: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._fed: list[bytes] = []

    @contextmanager
    def _current(self, *, to_write: bool = False) -> Iterator[None]:
        with self._lock:
            if self._file.closed:
                raise ClosedError(f"{self.location} was closed; open it again")
            if to_write:
                fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._file.seek(self._end)
                batches = msgpack.Unpacker(max_buffer_size=0)
                batches.feed(self._file.read())
                start = self._end
                for puts, deletes in batches:
                    self._apply(puts, deletes)
                    self._end = start + batches.tell()
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _apply(self, puts, deletes) -> None:
        for key in deletes:
            if self._pairs.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        for key, value in puts:
            if key not in self._pairs:
                insort(self._keys, key)
            self._pairs[key] = value
        self._fed += sorted(key for key, _ in puts if key[:1] == FED)

    def get(self, keys):
        _check(keys)
        with self._current():
            return [self._pairs.get(key) for key in keys]

    def scan(self, ranges, *, reverse=False, limit=None):
        self.settle()
        if not all(start for start, _ in ranges):
            raise InvalidInputError("the start of a range is empty, so it names no kind")
        return islice(self._scanned(list(ranges), reverse), limit)

    def _scanned(self, ranges, reverse):
        for low, high in ranges:
            left = low, high
            while page := self._page(*left, reverse):
                yield from page
                left = (low, page[-1][0]) if reverse else (page[-1][0] + b"\0", high)

    def _page(self, start, end, reverse):
        with self._current():
            low, high = bisect_left(self._keys, start), bisect_left(self._keys, end)
            keys = self._keys[max(low, high - 256) : high][::-1] if reverse else self._keys[low : min(high, low + 256)]
            return [(key, self._pairs[key]) for key in keys]

    def commit(self, puts, deletes=(), expect=None, *, is_settled=True):
        _check([key for key, _ in puts])
        _check(deletes)
        _check(expect or {})
        with self._current(to_write=True):
            differing = [key for key, value in (expect or {}).items() if self._pairs.get(key) != value]
            if differing:
                raise ExpectationError(differing)
            batch = msgpack.packb([[list(pair) for pair in puts], list(deletes)])
            self._file.truncate(self._end)  # what somebody began to write who died
            self._file.write(batch)
            os.fsync(self._file.fileno())
            self._apply(puts, deletes)
            self._end += len(batch)

    def feed(self, after=b"", *, limit=None):
        with self._current():
            mine = os.fstat(self._file.fileno()).st_ino.to_bytes(8, "big")  # so no other log's position is taken
            seen = int.from_bytes(after[8:], "big")
            if after and (len(after) != 16 or after[:8] != mine or seen > len(self._fed)):
                raise InvalidInputError(f"{after!r} is no position of {self.location}")
            keys = self._fed[seen:] if limit is None else self._fed[seen : seen + limit]
        return ((mine + number.to_bytes(8, "big"), key) for number, key in enumerate(keys, seen + 1))

    def position(self):
        with self._current():
            return self._end

    def settle(self):
        with self._current():
            pass

    flush = settle

    def is_flushed(self):
        with self._current():
            return True

    def size_bytes(self):
        with self._current():
            return self._end

    def close(self):
        with self._lock:
            self._file.close()


def _check(keys) -> None:
    if not all(0 < len(key) <= 511 for key in keys):
        raise InvalidInputError("a key has 1 to 511 bytes")
