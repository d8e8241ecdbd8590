"""A list while many splices are applied to it, one after another.

Owns how that costs what the splices say and not the list's length each time: the list is left as it is, and pieces of
it and of what was added stand for the result. Only now and then, when there are many, they are put together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    Piece = tuple[list[Any], int, int]

MANY: Final = 64
"""With more of them, to put them together costs less than to look through them each time."""


class Pieces:
    """A list in pieces: each a stretch of another list, from its first index to behind its last."""

    __slots__ = ("_added", "_pieces", "size")

    def __init__(self, values: list[Any]) -> None:
        self.size = len(values)
        self._pieces: list[Piece] = [(values, 0, len(values))]
        self._added: list[Any] = []

    def put(self, start: int, removed: int, items: list[Any]) -> None:
        """Let `items` stand in the place of so many others."""
        before, after = self._without(start, start + removed)
        if items:
            first = len(self._added)
            self._added += items
            if before and before[-1][0] is self._added and before[-1][2] == first:
                first = before.pop()[1]
            before.append((self._added, first, len(self._added)))
        self._pieces = before + after
        self.size += len(items) - removed
        if len(self._pieces) > MANY:
            self._pieces, self._added = [(self.values(), 0, self.size)], []

    def _without(self, start: int, end: int) -> tuple[list[Piece], list[Piece]]:
        """The pieces before and after a stretch."""
        before: list[Piece] = []
        after: list[Piece] = []
        at = 0
        for values, first, last in self._pieces:
            size = last - first
            if at < start:
                before.append((values, first, min(last, first + start - at)))
            if at + size > end:
                after.append((values, max(first, first + end - at), last))
            at += size
        return before, after

    def values(self) -> list[Any]:
        """The whole list, put together."""
        return _together(self._pieces)


def _together(pieces: Iterable[Piece]) -> list[Any]:
    whole: list[Any] = []
    for values, first, last in pieces:
        whole += values[first:last]
    return whole
