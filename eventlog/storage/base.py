"""The seam between the log's rules and the place where bytes live.

Owns the contract of a storage engine, so that engines, counters, faults and crash tests share one truth. It must know
nothing of events, runs or channels: only of ordered keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from eventlog.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    Range = tuple[bytes, bytes]

FED: Final = b"E"
"""The kind of key that is fed: what is put once and never changed."""
MAX_KEY_BYTES: Final = 511


class Storage(Protocol):
    """Ordered keys with atomic conditional batches.

    Keys are 1 to 511 bytes; the first byte is the *kind* of the key. Values are bytes, up to 1 GiB. All methods may be
    called from any thread, and by any number of processes where the engine is not in memory. Every method raises
    ``ClosedError`` after ``close`` and ``StorageError`` where the engine fails.
    """

    @property
    def location(self) -> str:
        """Where the bytes live, as a person would name it: for messages, never parsed."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in the order asked, None where absent; all from one moment of the storage."""

    def scan(
        self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with ``start <= key < end``, range after range in the order given.

        Within a range in key order, or from its end backwards when `reverse`; at most `limit` pairs in all. Lazy: no
        transaction and no lock is held while the caller works between two items, so a pair committed meanwhile may or
        may not be seen, but every pair is seen whole and none twice. A range lies within one kind of key.
        """

    def commit(
        self,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,
    ) -> None:
        """Write all of `puts` and remove all of `deletes` (absent ones are ignored), or nothing.

        `expect` maps keys to the bytes they must hold at that moment, None for absent; they need not be keys that are
        written. When this returns, the batch is visible to every reader and survives whatever the engine's durability
        class says; the latter, unless `is_settled`, only once ``settle`` returns.

        Raises:
            ExpectationError: an expected key differs; nothing was written.
            CapacityError: no room; nothing was written.
            BusyError: the writers' lock was not to be had in time; nothing was written.
        """

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The (position, key) of every key of the kind `FED` that was put, in the order of commits becoming visible.

        `after` is a position that this storage gave, or empty for the beginning. What is yielded after a position is
        exactly what was committed after it: nothing is missed and nothing comes twice, whatever writers do meanwhile.
        Within a commit in key order. Lazy; ends where nothing more is committed that is certain to be in order; call
        again later with the last position. A key that was deleted since may be left out. Positions have at most 64
        bytes and stay valid after the storage is opened again, in every process; one that is none of this storage's
        raises ``InvalidInputError``.
        """

    def position(self) -> int | None:
        """A number that every commit changes, whoever made it: as long as it is the same, so is everything stored.

        It never comes back to what it was. None where the engine cannot say it at far less than the cost of a ``get``.
        """

    def at_once(self) -> AbstractContextManager[bool]:
        """Within it, a commit of this thread waits for no flush, no network and no other writer.

        False where that cannot be had; then commits are as ever. Where it can, and one would have to wait all the same,
        it raises ``BusyError`` instead, and nothing was written. Of a closed storage the commit says so.
        """

    def settle(self) -> None:
        """Return when everything this process committed before survives what the durability class says.

        Unlike a commit, it is in no hurry: it may wait for a flush that others need.
        """

    def flush(self) -> None:
        """Return when everything committed before is on stable storage."""

    def is_flushed(self) -> bool:
        """Whether everything committed so far is on stable storage (in memory: whether it is where it will ever be)."""

    def size_bytes(self) -> int:
        """Bytes that the storage occupies now (in memory: the bytes of keys and values)."""

    def close(self) -> None:
        """Give everything back. Idempotent."""


def check_keys(keys: Iterable[bytes]) -> None:
    """Refuse keys that no engine takes."""
    for key in keys:
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise InvalidInputError(f"a key has 1 to {MAX_KEY_BYTES} bytes, this one {len(key)}")


def check_starts(ranges: Iterable[Range]) -> None:
    """Refuse ranges that name no kind."""
    for start, _ in ranges:
        if not start:
            raise InvalidInputError("the start of a range is empty; begin it with the byte of its kind")
