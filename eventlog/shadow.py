"""What a value was when it was last recorded, to compare the next one with.

Owns shadows and the comparison. It is *sound*: a shadow keeps the structure of what may change in place and, at the
leaves, references to what cannot; whatever else there is, is kept as a digest of its bytes. So a value that was changed
in place, at any depth, differs from its shadow: types, order and the bits of a float count.

It is made to be quick where nothing changed, and runs nobody's code then. The items of a list are laid out flat, in
blocks: all containers in them, and all that they hold, which is compared by identity. Where that fails, for equal
objects may have taken the place of those known, the bytes of each item in the block decide.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final

from xxhash import xxh3_128_digest

from eventlog.align import Edit, Sides, edits, spliced
from eventlog.codec import IMMUTABLE
from eventlog.errors import UnserializableError
from eventlog.flat import PLAIN_KEYS, Flat, is_leaf
from eventlog.identity import KnownObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from eventlog.codec import Codec

_EXACT: Final = frozenset({str, bytes, int, bool, type(None)})
"""Types for which ``==`` between two of the same type is equality; not float (zeros, NaN), not datetime (zones)."""
_BLOCK: Final = 256
"""Items that may change in place, which are laid out together: all are looked at again if one has changed."""


class ListShadow:
    """Of a list: what its items are compared with, the objects that they were, and those laid out flat in blocks."""

    __slots__ = ("blocks", "items", "kept", "was_spliced")

    def __init__(self, items: list[Any], values: list[Any], codec: Codec) -> None:
        self.items = items
        self.kept = KnownObjects(list(values))
        self.blocks = _blocks(values, codec)
        self.was_spliced = False

    def extend(self, end: ListShadow) -> None:
        """Take over the shadow of items that were put at the end."""
        self.items += end.items
        self.kept.add(end.kept)
        if self.blocks and len(end.blocks) == 1 and self.blocks[-1].has_room(end.blocks[0]):
            self.blocks[-1].join(end.blocks[0])
        else:
            self.blocks += end.blocks

    def splice(self, changes: Sequence[tuple[int, int, ListShadow]]) -> None:
        """Take over what was put in the place of stretches: where each begins, its length, and the shadow."""
        self.items = spliced(self.items, [(start, removed, end.items) for start, removed, end in changes])
        self.was_spliced = True
        comes = [(start, removed, end.kept.objects) for start, removed, end in changes]
        self.kept = KnownObjects(spliced(self.kept.objects, comes))
        for start, removed, end in reversed(changes):
            self._splice_blocks(start, removed, end)

    def _splice_blocks(self, start: int, removed: int, end: ListShadow) -> None:
        at, host = 0, None
        for block in self.blocks:
            if at <= start <= at + block.count:
                host = block
            here = max(0, min(at + block.count, start + removed) - max(at, start))
            at += block.count
            block.leave(here)
        if host is None:
            self.blocks += end.blocks
        else:
            for block in end.blocks:
                host.join(block)
        self.blocks = [block for block in self.blocks if block.count]

    def is_held_by(self, values: list[Any], codec: Codec) -> bool:
        """Whether a list begins with the objects that these items were, and they hold what they held."""
        return self.kept.begin(values) and all(block.is_held(codec) for block in self.blocks if block.weight)

    def known_by(self, held: list[bool]) -> list[Any]:
        """Per item the object that is equal to it, where its block holds what it held; else `UNKNOWN`."""
        objects, at = list(self.kept.objects), 0
        for block, is_held in zip(self.blocks, held, strict=True):
            if not is_held:
                objects[at : at + block.count] = repeat(UNKNOWN, block.count)
            at += block.count
        return objects

    def know(self, values: list[Any], found: list[Edit], held: list[bool], codec: Codec) -> None:
        """Let equal objects stand for those known, so that the next look is quick again.

        Args:
            values: a list that has these items but for `found`.
            found: the edits by which it differs.
            held: per block whether its items hold what they held.
            codec: the run's.
        """
        then = self.kept.objects
        with_gone = spliced(values, [(e.begin, e.added, then[e.start : e.start + e.removed]) for e in found])
        if all(held) and self.kept.are(with_gone):
            return
        without = spliced(values, [(e.begin, e.added, repeat(UNKNOWN, e.removed)) for e in found])
        at, blocks = 0, []
        for block, is_held in zip(self.blocks, held, strict=True):
            span = slice(at, at + block.count)
            if is_held and KnownObjects(then[span]).are(with_gone[span]):
                without[span] = then[span]
                blocks.append(block)
            else:
                blocks += _blocks(without[span], codec)
            at += block.count
        self.blocks, self.kept = blocks, KnownObjects(without)


UNKNOWN: Final = object()
"""Stands for the object of an item of which no object is known to be equal."""


class _Block:
    """What some neighbors in a list hold. Those that left are still looked at, so that leaving costs nothing.

    Attributes:
        count: how many neighbors there are.
        weight: how many are looked at, for they can change in place.
        flat: what those hold, None if that is not known.
    """

    __slots__ = ("count", "flat", "weight")

    def __init__(self, values: list[Any], codec: Codec) -> None:
        self.count = len(values)
        changeable = [value for value in values if type(value) not in IMMUTABLE and value is not UNKNOWN]
        self.weight = len(changeable)
        self.flat = Flat(changeable, codec) if changeable else None

    def has_room(self, end: _Block) -> bool:
        """Whether the items of another block may join these."""
        return self.weight + end.weight <= _BLOCK

    def join(self, end: _Block) -> None:
        """Take over the items of another block."""
        self.count += end.count
        self.weight += end.weight
        if self.weight == end.weight:
            self.flat = end.flat
        elif self.flat is not None and end.flat is not None and self.weight <= 4 * _BLOCK:
            self.flat.join(end.flat)
        elif end.weight:
            self.flat = None

    def leave(self, count: int) -> None:
        """Forget so many of the items."""
        self.count -= count

    def is_held(self, codec: Codec) -> bool:
        """Whether the items are known to hold what they held."""
        with suppress(Exception):  # whatever objects do that somebody else changes at this moment
            return not self.weight or (self.flat is not None and self.flat.is_held(codec))
        return False


def _blocks(values: list[Any], codec: Codec) -> list[_Block]:
    if len(values) <= _BLOCK or IMMUTABLE.issuperset(map(type, values)):
        return [_Block(values, codec)] if values else []
    return [_Block(values[at : at + _BLOCK], codec) for at in range(0, len(values), _BLOCK)]


class DictShadow:
    """Of a dict whose keys can be compared."""

    __slots__ = ("items",)

    def __init__(self, items: dict[Any, Any]) -> None:
        self.items = items


class _Leaf:
    """Of a value that only its bytes tell about."""

    __slots__ = ("digest", "size")

    def __init__(self, encoded: bytes) -> None:
        self.digest: bytes = xxh3_128_digest(encoded)
        self.size = len(encoded)


class _Item(_Leaf):
    """The same of an item, encoded as the only one of a list: as it is recorded, where it is put at the end alone."""

    __slots__ = ()

    def __init__(self, encoded: bytes) -> None:
        super().__init__(encoded)
        self.size -= 1


# --- shadows ------------------------------------------------------------------------------------------------------


def shadow_of(value: Any, codec: Codec, path: str = "value") -> Any:
    """What `value` is to be compared with later. It refers to objects of the caller's, and never changes them."""
    cls = type(value)
    if cls in IMMUTABLE:
        return value
    if cls is list:
        return ListShadow(items_of(value, codec, path), value, codec)
    if cls is dict and PLAIN_KEYS.issuperset(map(type, value)):
        return DictShadow(
            {key: item if type(item) in IMMUTABLE else shadow_of(item, codec, path) for key, item in value.items()}
        )
    return value if is_leaf(value) else _Leaf(codec.encode(value, path))


def items_of(values: list[Any], codec: Codec, path: str) -> list[Any]:
    """The shadows of a list's items."""
    return [_item(item, codec, path) for item in values]


def _item(value: Any, codec: Codec, path: str) -> Any:
    return value if is_leaf(value) else _Item(_alone(value, codec, path))


def _alone(value: Any, codec: Codec, path: str) -> bytes:
    try:
        return codec.encode([value], path)
    except UnserializableError:
        codec.encode(value, path)  # again, to name the place without the list around it
        raise


def shadow_of_end(values: list[Any], encoded: bytes, codec: Codec, path: str) -> ListShadow:
    """As `shadow_of`, of a list of which the bytes are known."""
    if len(values) == 1 and not is_leaf(values[0]):
        return ListShadow([_Item(encoded)], values, codec)
    return ListShadow(items_of(values, codec, path), values, codec)


def is_opaque(shadow: Any) -> bool:
    """Whether a shadow says of its value only whether it is the same."""
    return isinstance(shadow, _Leaf)


def size_of(shadow: Any, codec: Codec) -> int:
    """About how many bytes the value has as encoded, of which `shadow` was made."""
    if type(shadow) is ListShadow:
        return 1 + sum(size_of(item, codec) for item in shadow.items)
    if type(shadow) is DictShadow:
        return 1 + sum(_key_size(key) + size_of(item, codec) for key, item in shadow.items.items())
    return shadow.size if isinstance(shadow, _Leaf) else len(codec.encode(shadow))


def _key_size(key: Any) -> int:
    return 1 + len(key) if type(key) in (str, bytes) else 2


# --- comparing ----------------------------------------------------------------------------------------------------


def is_same(shadow: Any, value: Any, codec: Codec, path: str) -> bool:
    """Whether `value` equals what `shadow` was made of."""
    if shadow is value:
        return True
    cls = type(value)
    if isinstance(shadow, _Leaf):
        if cls in IMMUTABLE:
            return False
        encoded = _alone(value, codec, path) if type(shadow) is _Item else codec.encode(value, path)
        return bool(xxh3_128_digest(encoded) == shadow.digest)
    if cls is list:
        return (
            type(shadow) is ListShadow and len(shadow.items) == len(value) and begins_with(value, shadow, codec, path)
        )
    if cls is dict and type(shadow) is DictShadow:
        return _same_entries(shadow, value, codec, path)
    if cls is not type(shadow):
        return False
    if cls in _EXACT:
        return bool(shadow == value)
    return codec.encode(shadow, path) == codec.encode(value, path)


def begins_with(values: list[Any], shadow: ListShadow, codec: Codec, path: str) -> bool:
    """Whether the first items of a list, which has as many, are those that `shadow` was made of."""
    if shadow.is_held_by(values, codec):
        return True
    held = [block.is_held(codec) for block in shadow.blocks]
    same = _matching(shadow, held, values, codec, path)
    known = len(shadow.items)
    if not all(same(index, index) for index in range(known)):
        return False
    shadow.know(values[:known], [], held, codec)
    return True


def edits_of(shadow: ListShadow, values: list[Any], codec: Codec, path: str) -> list[Edit]:
    """The stretches in which a list differs from what `shadow` was made of."""
    known, now = len(shadow.items), len(values)
    if now >= known and shadow.is_held_by(values, codec):
        return [Edit(known, 0, known, now - known)] if now > known else []
    held = [block.is_held(codec) for block in shadow.blocks]
    sides = Sides(
        (known, now),
        _matching(shadow, held, values, codec, path),
        lambda index: _token(shadow.items[index], codec),
        lambda index: _token(_item(values[index], codec, path), codec),
        *_runs(shadow.known_by(held), values),
    )
    found = edits(sides)
    shadow.know(values, found, held, codec)
    return found


def _runs(then: list[Any], now: list[Any]) -> tuple[Callable[[int, int], int], Callable[[int, int], int]]:
    """What tells of how many objects, from two indexes on and back, that they are the same ones."""
    last, new_last = len(then) - 1, len(now) - 1

    @cache
    def rows(way: int) -> tuple[KnownObjects, KnownObjects]:
        return KnownObjects(then[::way]), KnownObjects(now[::way])

    def run(one: int, other: int) -> int:
        old, new = rows(1)
        return old.run(one, new, other) if then[one] is now[other] else 0

    def run_back(one: int, other: int) -> int:
        if then[one] is not now[other]:
            return 0
        old, new = rows(-1)
        return old.run(last - one, new, new_last - other)

    return run, run_back


def _matching(
    shadow: ListShadow, held: list[bool], values: list[Any], codec: Codec, path: str
) -> Callable[[int, int], bool]:
    """What tells whether the item at an index was the one that is now at another."""
    items, objects = shadow.items, shadow.kept.objects
    is_held = [*chain.from_iterable(map(repeat, held, [block.count for block in shadow.blocks]))]

    def same(old: int, new: int) -> bool:
        item = values[new]
        return (is_held[old] and objects[old] is item) or is_same(items[old], item, codec, f"{path}[{new}]")

    return same


def _token(shadow: Any, codec: Codec) -> Hashable:
    if isinstance(shadow, _Leaf):
        return shadow.digest
    cls = type(shadow)
    return (cls, shadow) if cls in _EXACT else xxh3_128_digest(codec.encode(shadow))


def same_keys(old: Iterable[Any], new: Iterable[Any]) -> bool:
    """Whether keys that can be compared are the same ones in the same order, as far as both go."""
    return all(
        one is other or (type(one) is type(other) and one == other) for one, other in zip(old, new, strict=False)
    )


def _same_entries(shadow: DictShadow, value: dict[Any, Any], codec: Codec, path: str) -> bool:
    items = shadow.items
    if len(items) != len(value):
        return False
    return same_keys(items, value) and all(
        old is new or is_same(old, new, codec, path) for old, new in zip(items.values(), value.values(), strict=True)
    )
