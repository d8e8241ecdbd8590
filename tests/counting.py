"""A storage that counts what passes the seam, and can be told to refuse writes.

The bounds that design.md promises are bounds on these numbers, for every engine.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from eventlog.storage import Storage

    Range = tuple[bytes, bytes]


@dataclass
class Tally:
    """What passed the seam; the counters are by kind, the first byte of a key.

    A scan of several ranges is as many reads as it has ranges: an engine has to seek to each.
    """

    gets: int = 0
    scans: int = 0
    ranges: int = 0
    commits: int = 0
    keys_read: Counter[str] = field(default_factory=Counter)
    bytes_read: Counter[str] = field(default_factory=Counter)
    keys_written: Counter[str] = field(default_factory=Counter)
    bytes_written: Counter[str] = field(default_factory=Counter)
    keys_deleted: Counter[str] = field(default_factory=Counter)

    @property
    def reads(self) -> int:
        """Calls that look for something: one per get and per range of a scan."""
        return self.gets + self.ranges

    @property
    def read(self) -> int:
        """Bytes of keys and values read."""
        return self.bytes_read.total()

    @property
    def written(self) -> int:
        """Bytes of keys and values written."""
        return self.bytes_written.total()

    @property
    def touched(self) -> int:
        """Keys written or deleted."""
        return self.keys_written.total() + self.keys_deleted.total()


class CountingStorage:
    """Any storage, counted. ``with storage.counted() as tally:`` counts a stretch of its own."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.tally = Tally()
        self._more: list[Tally] = []

    @contextmanager
    def counted(self) -> Iterator[Tally]:
        """Count what happens within."""
        tally = Tally()
        self._more.append(tally)
        try:
            yield tally
        finally:
            self._more = [other for other in self._more if other is not tally]

    @property
    def _tallies(self) -> list[Tally]:
        return [self.tally, *self._more]

    @property
    def location(self) -> str:
        return self.inner.location

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        keys = list(keys)
        found = self.inner.get(keys)
        for tally in self._tallies:
            tally.gets += 1
            for key, value in zip(keys, found, strict=True):
                tally.keys_read[chr(key[0])] += 1
                tally.bytes_read[chr(key[0])] += len(key) + len(value or b"")
        return found

    def scan(
        self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        ranges = list(ranges)
        for tally in self._tallies:
            tally.scans += 1
            tally.ranges += len(ranges)
        return self._counted_pairs(self.inner.scan(ranges, reverse=reverse, limit=limit))

    def _counted_pairs(self, pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for key, value in pairs:
            for tally in self._tallies:
                tally.keys_read[chr(key[0])] += 1
                tally.bytes_read[chr(key[0])] += len(key) + len(value)
            yield key, value

    def commit(
        self,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,
    ) -> None:
        puts, deletes = list(puts), list(deletes)
        self.inner.commit(puts, deletes, expect, is_settled=is_settled)
        for tally in self._tallies:
            tally.commits += 1
            for key, value in puts:
                tally.keys_written[chr(key[0])] += 1
                tally.bytes_written[chr(key[0])] += len(key) + len(value)
            for key in deletes:
                tally.keys_deleted[chr(key[0])] += 1

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        return self.inner.feed(after, limit=limit)

    def position(self) -> int | None:
        return self.inner.position()

    def at_once(self) -> AbstractContextManager[bool]:
        return self.inner.at_once()

    def settle(self) -> None:
        self.inner.settle()

    def is_flushed(self) -> bool:
        return self.inner.is_flushed()

    def flush(self) -> None:
        self.inner.flush()

    def size_bytes(self) -> int:
        return self.inner.size_bytes()

    def close(self) -> None:
        self.inner.close()


def everything(storage: Storage) -> dict[bytes, bytes]:
    """All that a storage holds, to see that it did not change."""
    return dict(storage.scan([(bytes([kind]), bytes([kind]) + b"\xff" * 40) for kind in range(256)]))


@contextmanager
def patience(seconds: float = 60.0) -> Iterator[None]:
    """Fail, instead of hanging, if what happens within takes longer. In the main thread only."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"still at it after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupted_at(line: int, functions: Collection[str], call: Callable[[], Any]) -> bool:
    """Call, and interrupt it at the n-th line that it runs of functions of those names; whether it came so far."""
    left = line

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        left -= event == "line"
        if event == "line" and left == 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: trace if frame.f_code.co_name in functions else None)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def with_frames_left(count: int, call: Callable[[], Any]) -> Any:
    """Call where the call stack has room for so many frames of Python's, and no more."""
    there, frame = 0, sys._getframe()
    while frame is not None:
        there, frame = there + 1, frame.f_back

    def further(frames: int) -> Any:
        return call() if frames <= 0 else further(frames - 1)

    return further(sys.getrecursionlimit() - there - count)
