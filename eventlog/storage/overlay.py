"""What the journal holds and LMDB does not yet: one layer of keys per journal file, in memory.

Owns looking keys up and listing them in order, over what lies below. A layer of a file is complete once the file is
sealed; only the newest one changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ABSENT: Final = object()
"""Answer of a lookup: this layer says nothing about the key."""


class Layer:
    """The newest value of every key in one journal file; None where it was removed.

    `values` is brought up to date by who reads or writes the file. No key ever leaves it, so what was put since the
    keys were last sorted is what stands at its end. `fed` are the keys that are fed, in their order, as long as this
    handle writes the file alone; then None, and only the file says it.
    """

    __slots__ = ("_count", "_sorted", "fed", "number", "values")

    def __init__(self, number: int) -> None:
        self.number = number
        self.values: dict[bytes, bytes | None] = {}
        self.fed: list[bytes] | None = []
        self._sorted: dict[int, list[bytes]] = defaultdict(list)
        self._count = 0

    def keys_between(self, start: bytes, end: bytes, count: int, *, reverse: bool) -> list[bytes]:
        """The first `count` keys with ``start <= key < end``, or the last ones; a range lies within one kind of key."""
        if len(self.values) != self._count:
            self._sort()
        keys = self._sorted.get(start[0])
        if not keys:
            return []
        if reverse:
            high = bisect_left(keys, end)
            return keys[bisect_left(keys, start, max(high - count, 0), high) : high]
        low = bisect_left(keys, start)
        return keys[low : bisect_left(keys, end, low, min(low + count, len(keys)))]

    def _sort(self) -> None:
        """Put where it belongs what came since this was done last."""
        fresh = [*islice(reversed(self.values), len(self.values) - self._count)]
        for key in reversed(fresh):
            keys = self._sorted[key[0]]
            if not keys or key > keys[-1]:
                keys.append(key)
            elif keys[at := bisect_left(keys, key)] != key:  # else it was interrupted here, and begins anew
                keys.insert(at, key)
        self._count += len(fresh)

    def pairs_of(self, keys: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """Those of its keys that were not removed, with their values."""
        values = self.values
        return [(key, value) for key in keys if (value := values[key]) is not None]


def lookup(layers: Sequence[Layer], key: bytes) -> bytes | object | None:
    """What the newest layer that knows the key says, `ABSENT` if none does."""
    for layer in reversed(layers):
        found = layer.values.get(key, ABSENT)
        if found is not ABSENT:
            return found
    return ABSENT


def lookups(layers: Sequence[Layer], keys: Sequence[bytes]) -> list[bytes | object | None]:
    """`lookup` of several keys."""
    newest = layers[-1].values
    found = [newest.get(key, ABSENT) for key in keys]
    if len(layers) > 1:
        older = layers[:-1]
        found = [lookup(older, key) if value is ABSENT else value for key, value in zip(keys, found, strict=True)]
    return found


def merged(
    below: Sequence[tuple[bytes, bytes]],
    layers: Sequence[Layer],
    start: bytes,
    end: bytes,
    count: int,
    *,
    is_cut: bool,
    reverse: bool,
) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """The first pairs of a range, as the layers have changed those of `below`: its first ones, or all unless `is_cut`.

    Returns:
        At most `count` pairs, and the key at which the page ends, None if the range does.
    """
    if not any(layer.values for layer in layers):
        return list(below), below[-1][0] if is_cut else None
    values: dict[bytes, bytes | None] = dict(below)
    if is_cut:  # what lies below is known up to its last key only
        start, end = (below[-1][0], end) if reverse else (start, below[-1][0] + b"\0")
    for layer in layers:
        keys = layer.keys_between(start, end, count, reverse=reverse)
        is_cut = is_cut or len(keys) >= count
        for key in keys:
            values[key] = layer.values[key]
    order = sorted(values, reverse=reverse)
    edge = order[min(count, len(order)) - 1] if order and (is_cut or len(order) > count) else None
    pairs = [(key, value) for key in order[:count] if (value := values[key]) is not None]
    return pairs, edge
