"""Which stretches of one list stand for which of another: what was inserted, removed and replaced.

Owns the search. It is bounded: first the common start and end; between them both lists are walked in step, and where
they part it looks a little ahead for the nearest items that are the same. What it does not find is one stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable  # noqa: TC003 (a named tuple looks them up)
from typing import Any, Final, NamedTuple

_WIDTHS: Final = (8, 64, 512)
"""How far it looks ahead, in items of each list: near first."""
_LOOKS: Final = 4096
"""Items of either list that it may look ahead at, altogether."""


class Edit(NamedTuple):
    """A stretch of the old list, and the stretch of the new one that stands in its place.

    Attributes:
        start: where it begins in the old list.
        removed: how many items it has there.
        begin: where the other begins in the new list.
        added: how many items that has.
    """

    start: int
    removed: int
    begin: int
    added: int


def _nothing(_old: int, _new: int) -> int:
    return 0


class Sides(NamedTuple):
    """Two lists, as far as it takes to compare them.

    Attributes:
        sizes: items of the old list and of the new one.
        same: whether the old item at an index is the new one at another.
        old_token: of the old item at an index: equal to that of a new one which may be the same.
        new_token: the same, of a new item.
        run: how many items from two indexes on are the same in step, as far as that is known at once.
        run_back: the same, from two indexes back.
    """

    sizes: tuple[int, int]
    same: Callable[[int, int], bool]
    old_token: Callable[[int], Hashable]
    new_token: Callable[[int], Hashable]
    run: Callable[[int, int], int] = _nothing
    run_back: Callable[[int, int], int] = _nothing


def edits(sides: Sides) -> list[Edit]:
    """The stretches that differ, in order, with at least one item that is the same between any two.

    Costs one `same` for each item that stays and is in no run, and at most some thousands of `same` and of tokens
    beside.
    """
    old, new = sides.sizes
    start = _ahead(sides, (0, 0), (old, new))
    end = _behind(sides, start)
    return _Walk(sides, (start, start), (old - end, new - end)).edits()


def _ahead(sides: Sides, at: tuple[int, int], end: tuple[int, int]) -> int:
    """How many items are the same in step."""
    count, most = 0, min(end[0] - at[0], end[1] - at[1])
    while count < most:
        old, new = at[0] + count, at[1] + count
        step = sides.run(old, new) or int(sides.same(old, new))
        if not step:
            break
        count += step
    return min(count, most)


def _behind(sides: Sides, start: int) -> int:
    """How many items at the end are the same, behind the first ones."""
    old, new = sides.sizes
    count, most = 0, min(old, new) - start
    while count < most:
        step = sides.run_back(old - 1 - count, new - 1 - count)
        step = step or int(sides.same(old - 1 - count, new - 1 - count))
        if not step:
            break
        count += step
    return min(count, most)


def spliced(values: list[Any], changes: Iterable[tuple[int, int, Iterable[Any]]]) -> list[Any]:
    """A new list with other items in the place of stretches: where each begins, how many go, and what comes."""
    made: list[Any] = []
    at = 0
    for start, removed, items in changes:
        made += values[at:start]
        made += items
        at = start + removed
    made += values[at:]
    return made


class _Walk:
    """Along both lists, between what they have in common."""

    def __init__(self, sides: Sides, begin: tuple[int, int], end: tuple[int, int]) -> None:
        self.sides, self.at, self.end = sides, begin, end
        self.old, self.new = _Ahead(sides.old_token), _Ahead(sides.new_token)

    def edits(self) -> list[Edit]:
        found = []
        old, new = self.at
        while old < self.end[0] and new < self.end[1]:
            if step := _ahead(self.sides, (old, new), self.end):
                old, new = old + step, new + step
                continue
            removed, added = self._parted(old, new)
            found.append(Edit(old, removed, new, added))
            old, new = old + removed, new + added
        if old < self.end[0] or new < self.end[1]:
            found.append(Edit(old, self.end[0] - old, new, self.end[1] - new))
        return found

    def _parted(self, old: int, new: int) -> tuple[int, int]:
        """How many items to leave on either side until they are the same again; all if that is not found."""
        most = self.end[0] - old, self.end[1] - new
        for width in _WIDTHS:
            if self.old.looks > _LOOKS or self.new.looks > _LOOKS:
                break
            found = self._nearest(old, new, min(width, most[0]), min(width, most[1]))
            if found is not None:
                return found
        return most

    def _nearest(self, old: int, new: int, old_width: int, new_width: int) -> tuple[int, int] | None:
        places: dict[Hashable, int] = {}
        for ahead in range(old_width):
            places.setdefault(self.old.token(old + ahead), ahead)
        near = [
            (places[token] + ahead, places[token], ahead)
            for ahead in range(new_width)
            if (token := self.new.token(new + ahead)) in places
        ]
        for _, removed, added in sorted(near):
            if self.sides.same(old + removed, new + added):
                return removed, added
        return None


class _Ahead:
    """Tokens of one list, each made once."""

    def __init__(self, token: Callable[[int], Hashable]) -> None:
        self._token = token
        self._known: dict[int, Hashable] = {}
        self.looks = 0

    def token(self, index: int) -> Hashable:
        self.looks += 1
        if index not in self._known:
            self._known[index] = self._token(index)
        return self._known[index]
