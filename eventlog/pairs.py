"""Two storages side by side: where they differ, and digests of what they hold.

Owns the comparison of keys and records, and which keys make up a log. It writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from xxhash import xxh3_128

from eventlog.layout import NAME, RUN_KINDS, all_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventlog.storage import Storage

    Pair = tuple[bytes, bytes]
    Range = tuple[bytes, bytes]

NAMES: Final = (NAME, bytes([NAME[0] + 1]))
_KINDS: Final = sorted([NAME, *RUN_KINDS])


class Gap(NamedTuple):
    """A key whose records differ; None where there is none."""

    key: bytes
    ours: bytes | None
    theirs: bytes | None


class Sum:
    """A digest of pairs, in their order."""

    def __init__(self) -> None:
        self._sum = xxh3_128()
        self.count = 0

    def of(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The same pairs, digested as they pass."""
        for key, record in pairs:
            self._sum.update(b"%d %d " % (len(key), len(record)) + key + record)
            self.count += 1
            yield key, record

    def digest(self) -> bytes:
        """Of what has passed so far."""
        return self._sum.digest()


def gaps(ours: Iterable[Pair], theirs: Iterable[Pair]) -> Iterator[Gap]:
    """Where two sequences of pairs, each in key order, differ."""
    left, right = iter(ours), iter(theirs)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] < other[0]):
            assert one is not None
            yield Gap(one[0], one[1], None)
            one = next(left, None)
        elif one is None or other[0] < one[0]:
            yield Gap(other[0], None, other[1])
            other = next(right, None)
        else:
            if one[1] != other[1]:
                yield Gap(one[0], one[1], other[1])
            one, other = next(left, None), next(right, None)


def gaps_between(source: Storage, target: Storage, *ranges: Range) -> Iterator[Gap]:
    """Where what two storages hold in some ranges differs."""
    for bounds in ranges:
        yield from gaps(source.scan([bounds]), target.scan([bounds]))


def whole_log() -> list[Range]:
    """All keys of a log."""
    return [(kind, bytes([kind[0] + 1])) for kind in _KINDS]


def run_digest(storage: Storage, run: int) -> bytes:
    """Of all that belongs to a run."""
    total = Sum()
    for _ in total.of(storage.scan([all_of(kind, run) for kind in RUN_KINDS])):
        pass
    return total.digest()
