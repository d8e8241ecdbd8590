"""Arrays of numpy's as people read them: type, shape and numbers; numpy itself is not needed.

Owns their text, which is bounded. What is decoded inertly is a dict that names `ARRAY`.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.arrays import ARRAY
from eventlog.diff import path_text, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventlog.diff import Change

_TYPES: Final = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
_CODES: Final = dict(zip(_TYPES, ("?", *"bhiqBHIQefd", "2f", "2d"), strict=True))
_KINDS: Final = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_ITEMS: Final = 8


class Array(NamedTuple):
    """What an array is made of; the shape of a scalar is None."""

    dtype: str
    shape: list[int] | None
    by_columns: bool
    data: bytes

    @property
    def about(self) -> str:
        """Type and shape: ``float64 2x3``."""
        kind, size = self.dtype[1], self.dtype[2:]
        bits = str(8 * int(size)) if self.form is not None and kind != "b" else ""
        name = self.dtype if self.form is None else _KINDS[kind] + bits
        return name if self.shape is None else f"{name} {'x'.join(map(str, self.shape)) or '()'}"

    @property
    def total(self) -> int:
        """How many items there are; a scalar is one."""
        return math.prod(self.shape or [])

    @property
    def form(self) -> struct.Struct | None:
        """How an item is stored; None if it is no number."""
        code = _CODES.get(self.dtype[1:])
        return None if code is None else struct.Struct((">" if self.dtype[0] == ">" else "<") + code)

    def place(self, n: int, *, by_columns: bool) -> list[int]:
        """Where the n-th item stands, counted row by row, or column by column."""
        found: list[int] = []
        for size in (self.shape or []) if by_columns else reversed(self.shape or []):
            n, index = divmod(n, size)
            found.append(index)
        return found if by_columns else found[::-1]

    def item(self, place: list[int]) -> str:
        """One number as text."""
        assert self.form is not None
        pairs = list(zip(place, self.shape or [], strict=True))
        n = 0
        for index, size in reversed(pairs) if self.by_columns else pairs:
            n = n * size + index
        found = self.form.unpack_from(self.data, n * self.form.size)
        return shown(complex(*found) if len(found) > 1 else found[0])

    def text(self, most: int = _ITEMS) -> str:
        """Type, shape and the first numbers, row by row."""
        if self.form is None:
            return f"{self.about}  {shown(self.data)}"
        items = " ".join(self.item(self.place(n, by_columns=False)) for n in range(min(most, self.total)))
        more = f" … +{self.total - most:,} more" if self.total > most else ""
        return f"{self.about}  {items or '(empty)'}{more}"

    def changed_to(self, new: Array) -> str:
        """What is another one in `new`: which numbers, where type and shape are the same."""
        if self[:3] != new[:3] or self.shape is None or self.form is None:
            return f"{self.text()} → {new.text()}"
        size = self.form.size
        differing = [
            n for n in range(self.total) if self.data[n * size : (n + 1) * size] != new.data[n * size : (n + 1) * size]
        ]
        places = [self.place(n, by_columns=self.by_columns) for n in differing[:_ITEMS]]
        items = ", ".join(f"{place} {self.item(place)} → {new.item(place)}" for place in places)
        more = f", … +{len(differing) - _ITEMS:,} more" if len(differing) > _ITEMS else ""
        return f"{self.about}  {len(differing):,} of {self.total:,} differ: {items}{more}"


def array_of(value: Any) -> Array | None:
    """The array that an inertly decoded value is; None if it is none, or not one that numpy could make."""
    if not isinstance(value, dict) or value.get("$type") != ARRAY:
        return None
    array = Array(*(value.get(name) for name in ("dtype", "shape", "by_columns", "value")))  # type: ignore[arg-type]
    if not isinstance(array.dtype, str) or not isinstance(array.data, bytes) or not _is_shape(array.shape):
        return None
    is_whole = array.form is None or array.form.size * array.total == len(array.data)
    return array if len(array.dtype) > 1 and is_whole else None


def _is_shape(shape: Any) -> bool:
    return shape is None or (isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape))


def change_text(change: Change, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A change as one line; of an array's items by their numbers.

    Args:
        change: from the state `old` to the state `new`.
        old: the state before.
        new: the state after.
    """
    whole = [array_of(side) for side in (change.old, change.new)]
    if any(whole):
        pairs = zip((change.old, change.new), whole, strict=True)
        sides = [shown(side) if array is None else array.text() for side, array in pairs]
        kept = {"added": sides[1:], "removed": sides[:1]}.get(change.kind, sides)
        return f"{change.mark} {change.where}   {' → '.join(kept)}"
    if change.path[-1] == "value" and isinstance(change.old, bytes) and isinstance(change.new, bytes):
        before, after = _at(old, change.path[:-1]), _at(new, change.path[:-1])
        if before is not None and after is not None and (before.data, after.data) == (change.old, change.new):
            return f"{change.mark} {path_text(change.path[:-1])}   {before.changed_to(after)}"
    return str(change)


def _at(state: Mapping[str, Any], path: tuple[Any, ...]) -> Array | None:
    value: Any = state
    try:
        for step in path:
            value = value[step]
    except (LookupError, TypeError):  # an index counts in the new list
        return None
    return array_of(value)
