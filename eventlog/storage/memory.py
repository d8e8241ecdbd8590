"""The storage engine that lives and dies with the process.

Owns a dict and, per kind of key, its keys in order. It must never hold its lock while a caller works.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import defaultdict
from contextlib import nullcontext
from itertools import chain, islice
from typing import TYPE_CHECKING

from eventlog.errors import ClosedError, ExpectationError
from eventlog.storage.base import FED, check_keys, check_starts
from eventlog.storage.fed import LOG_ID_BYTES, in_commit, place_bytes, place_in, read_place, unknown_place
from eventlog.storage.forks import Shuttable, shut_at_forks
from eventlog.storage.memory_keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from eventlog.storage.base import Range

    Pair = tuple[bytes, bytes]
    _Begun = tuple[dict[bytes, bytes | None], list[bytes], int]
    """What a commit changes, what is fed of it, and how much was fed before."""

_PAGE_PAIRS = 256


class MemoryStorage:
    """Ordered keys in memory, for tests and throw-away runs.

    Keeps every promise of ``Storage`` but that bytes outlive the process. Safe from any thread; a child of ``fork``
    has its own copy.
    """

    def __init__(self) -> None:
        self._log_id = os.urandom(LOG_ID_BYTES)
        self._lock = threading.Lock()
        self._values: dict[bytes, bytes] = {}
        self._keys: dict[int, Keys] = defaultdict(Keys)
        self._fed: list[bytes] = []
        self._begun: _Begun | None = None
        self._commits = 0
        self._is_closed = False
        _storages.add(self)

    @property
    def location(self) -> str:
        """Always ``"memory:"``."""
        return "memory:"

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys` in the order asked, None where absent; all from one moment.

        Raises:
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
        """
        check_keys(keys)
        with self._lock:
            self._make_ready()
            return [self._values.get(key) for key in keys]

    def scan(
        self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with ``start <= key < end``, range after range; see ``Storage.scan``.

        Each page of 256 pairs is read at one moment; no lock is held while the caller works.

        Raises:
            ClosedError: the storage was closed, before the call or between two pages.
            InvalidInputError: the start of a range is empty, so it names no kind.
        """
        self._check_open()
        check_starts(ranges)
        count = _PAGE_PAIRS if limit is None else min(max(limit, 0), _PAGE_PAIRS)
        walks = (self._walk(start, end, count, reverse=reverse) for start, end in list(ranges))
        return islice(chain.from_iterable(walks), limit and max(limit, 0))

    def commit(
        self,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,  # noqa: ARG002 (it always is)
    ) -> None:
        """Remove `deletes`, then write `puts`, or nothing; see ``Storage.commit``. A key in both is written.

        Raises:
            ExpectationError: an expected key differs; nothing was written.
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
        """
        check_keys([key for key, _ in puts])
        check_keys(deletes)
        check_keys(expect or ())
        changes: dict[bytes, bytes | None] = dict.fromkeys(deletes)
        changes.update(puts)
        fed = in_commit(puts, FED)
        with self._lock:
            self._make_ready()
            self._check_expected(expect or {})
            self._commits += 1
            self._begun = changes, fed, len(self._fed)  # now it is committed, whoever has to finish it
            self._finish(changes, fed)

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """See ``Storage.feed``. A key that was put is remembered until the storage is closed.

        Raises:
            ClosedError: the storage was closed, before the call or between two pages.
            InvalidInputError: `after` is no position of its feed.
        """
        number, index = read_place(place_in(self._log_id, after))
        with self._lock:
            self._make_ready()
            if number or index > len(self._fed):
                raise unknown_place(after)
        return islice(self._fed_after(index), limit and max(limit, 0))

    def _fed_after(self, index: int) -> Iterator[Pair]:
        while True:
            with self._lock:
                self._make_ready()
                page = self._fed[index : index + _PAGE_PAIRS]
            if not page:
                return
            yield from ((place_bytes(self._log_id, 0, at), key) for at, key in enumerate(page, index + 1))
            index += len(page)

    def position(self) -> int:
        """How many commits there were."""
        self._check_open()
        return self._commits

    def at_once(self) -> AbstractContextManager[bool]:
        """Always: there is nothing to wait for."""
        return nullcontext(True)

    def settle(self) -> None:
        """Nothing to do: every commit is settled when it returns."""
        self._check_open()

    def flush(self) -> None:
        """Nothing to do: memory has no stable storage. Raises ``ClosedError`` after ``close``."""
        self._check_open()

    def is_flushed(self) -> bool:
        """Always."""
        self._check_open()
        return True

    def size_bytes(self) -> int:
        """The bytes of all keys and values. Takes time in proportion to the number of keys."""
        with self._lock:
            self._make_ready()
            return sum(len(key) + len(value) for key, value in self._values.items())

    def close(self) -> None:
        """Drop everything. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._values = {}
            self._keys.clear()
            self._fed = []
            self._begun = None

    def shut(self) -> None:
        """Before a fork: let a commit of another thread end, so that the child finds nothing half done."""
        self._lock.acquire()

    def reopen(self) -> None:
        """After a fork, in the parent."""
        self._lock.release()

    def inherit(self) -> None:
        """After a fork, in the child, whose copy it is."""
        self._lock.release()

    def _check_open(self) -> None:
        if self._is_closed:
            msg = "this memory storage was closed and its content is gone; open a new one"
            raise ClosedError(msg)

    def _check_expected(self, expect: Mapping[bytes, bytes | None]) -> None:
        differing = [key for key, value in expect.items() if self._values.get(key) != value]
        if differing:
            raise ExpectationError(differing)

    def _make_ready(self) -> None:
        """Before anything is read or written; the caller holds the lock."""
        self._check_open()
        if self._begun is not None:
            self._finish_anew(*self._begun)

    def _finish(self, changes: dict[bytes, bytes | None], fed: list[bytes]) -> None:
        """Do what was begun. The caller holds the lock."""
        for key, value in changes.items():
            if value is None:
                self._delete(key)
            else:
                self._put(key, value)
        self._fed += fed
        self._begun = None

    def _finish_anew(self, changes: dict[bytes, bytes | None], fed: list[bytes], count: int) -> None:
        """The same after an interrupt, wherever that was: the keys may stand in no order."""
        for key, value in changes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        keys: dict[int, Keys] = defaultdict(Keys)
        for key in sorted(self._values):
            keys[key[0]].add(key)
        self._keys = keys
        self._fed[count:] = fed
        self._begun = None

    def _put(self, key: bytes, value: bytes) -> None:
        if key not in self._values:
            self._keys[key[0]].add(key)
        self._values[key] = value

    def _delete(self, key: bytes) -> None:
        if self._values.pop(key, None) is not None:
            self._keys[key[0]].remove(key)

    def _walk(self, start: bytes, end: bytes, count: int, *, reverse: bool) -> Iterator[Pair]:
        while page := self._page(start, end, count, reverse=reverse):
            yield from page
            # Go on by key, never by position: keys may have come and gone while the caller worked.
            start, end = (start, page[-1][0]) if reverse else (page[-1][0] + b"\0", end)

    def _page(self, start: bytes, end: bytes, count: int, *, reverse: bool) -> list[Pair]:
        with self._lock:
            self._make_ready()
            keys = self._keys[start[0]].between(start, end, count, reverse=reverse)
            return [(key, self._values[key]) for key in keys]


_storages: weakref.WeakSet[Shuttable] = weakref.WeakSet()
shut_at_forks(_storages)
