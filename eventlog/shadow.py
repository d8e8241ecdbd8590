"""What a value was when it was last recorded, to compare the next one with.

Owns shadows and the comparison. It is *sound*: a shadow keeps the structure of what may change in place and, at the
leaves, references to what cannot; whatever else there is, is kept as a digest of its bytes. So a value that was changed
in place, at any depth, differs from its shadow: types, order and the bits of a float count.

It is made to be quick where nothing changed, and runs nobody's code then. The items of a list are laid out flat: all
containers in it, and all that they hold, in a few lists that are compared by identity. Where that fails, for equal
objects may have taken the place of those known, the bytes of each item decide.
"""

from __future__ import annotations

import dataclasses
import enum
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from xxhash import xxh3_128_digest

from eventlog.codec import IMMUTABLE
from eventlog.errors import UnserializableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventlog.codec import Codec

PLAIN_KEYS: Final = frozenset({str, int, bytes, bool, type(None), UUID})
"""Keys that equal what they read back as; a float may be NaN, and so may what a tuple holds."""
_EXACT: Final = frozenset({str, bytes, int, bool, type(None)})
"""Types for which ``==`` between two of the same type is equality; not float (zeros, NaN), not datetime (zones)."""
_PYDANTIC: Final = frozenset({"__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"})
_fields: Final = attrgetter("__dict__")
_extra: Final = attrgetter("__pydantic_extra__")
_private: Final = attrgetter("__pydantic_private__")


class ListShadow:
    """Of a list: what its items are compared with, and the objects that they were, laid out flat."""

    __slots__ = ("flat", "items")

    def __init__(self, items: list[Any], values: list[Any], codec: Codec) -> None:
        self.items = items
        self.flat = _Flat(values, codec)

    def extend(self, end: ListShadow) -> None:
        """Take over the shadow of items that were put at the end."""
        self.items += end.items
        for name in _Flat.__slots__:
            getattr(self.flat, name).extend(getattr(end.flat, name))


class DictShadow:
    """Of a dict whose keys can be compared."""

    __slots__ = ("items",)

    def __init__(self, items: dict[Any, Any]) -> None:
        self.items = items


class _Leaf:
    """Of a value that only its bytes tell about."""

    __slots__ = ("digest", "size")

    def __init__(self, encoded: bytes) -> None:
        self.digest = xxh3_128_digest(encoded)
        self.size = len(encoded)


class _Flat:
    """All that the items of a list hold, each kind in a list of its own; the objects themselves, not copies.

    An item that is the same object holds the same as before if each container in it has as many entries and these are
    the same objects; so it is enough to look at all containers, wherever they lie.
    """

    __slots__ = (
        "dict_sizes",
        "dicts",
        "empty",
        "extras",
        "field_counts",
        "fields",
        "items",
        "keys",
        "list_items",
        "list_sizes",
        "lists",
        "models",
        "names",
        "opaque",
        "privates",
        "records",
        "types",
        "values",
    )

    def __init__(self, values: list[Any], codec: Codec) -> None:
        self.items: list[Any] = []
        self.empty: list[Any] = []  # lists and dicts
        self.lists: list[list[Any]] = []
        self.list_sizes: list[int] = []
        self.list_items: list[Any] = []
        self.dicts: list[dict[Any, Any]] = []
        self.dict_sizes: list[int] = []
        self.keys: list[Any] = []
        self.values: list[Any] = []
        self.records: list[Any] = []  # objects that are what their fields are
        self.types: list[type] = []
        self.field_counts: list[int] = []
        self.names: list[str] = []
        self.fields: list[Any] = []
        self.models: list[Any] = []  # those of them that are pydantic's
        self.extras: list[Any] = []
        self.privates: list[Any] = []
        self.opaque: list[tuple[Any, bytes]] = []  # what only its bytes tell about
        self.add(values, codec)

    def add(self, values: list[Any], codec: Codec) -> None:
        """Lay out more items."""
        self.items += values
        for value in values:
            if type(value) not in IMMUTABLE:
                try:
                    self._walk(value, codec)
                except UnserializableError:  # something in it is not stored as it is: all of its bytes then
                    self.opaque.append((value, xxh3_128_digest(codec.encode(value))))

    def _walk(self, value: Any, codec: Codec) -> None:
        cls = type(value)
        if cls in (list, dict) and not value:
            self.empty.append(value)
            return
        held: Iterable[Any] = ()
        if cls is list:
            held = value
            self.lists.append(value)
            self.list_sizes.append(len(value))
            self.list_items += value
        elif cls is dict and PLAIN_KEYS.issuperset(map(type, value)):
            held = value.values()
            self.dicts.append(value)
            self.dict_sizes.append(len(value))
            self.keys += value
            self.values += held
        elif _is_record(cls):
            held = self._walk_record(value)
        elif not _is_leaf(value):
            self.opaque.append((value, xxh3_128_digest(codec.encode(value))))
        for item in held:
            if type(item) not in IMMUTABLE:
                self._walk(item, codec)

    def _walk_record(self, value: Any) -> Iterable[Any]:
        fields = vars(value)
        self.records.append(value)
        self.types.append(type(value))
        self.field_counts.append(len(fields))
        self.names += fields
        self.fields += fields.values()
        if not hasattr(type(value), "__pydantic_extra__"):
            return list(fields.values())
        extra, private = _extra(value), _private(value)
        self.models.append(value)
        self.extras.append(extra)
        self.privates.append(private)
        return [*fields.values(), extra, private]

    def is_held_by(self, values: list[Any], codec: Codec) -> bool:
        """Whether a list begins with these items, and they hold what they held."""
        return (
            all(map(is_, self.items, values))
            and not any(self.empty)
            and [*map(len, self.lists)] == self.list_sizes
            and _are([*chain.from_iterable(self.lists)], self.list_items)
            and [*map(len, self.dicts)] == self.dict_sizes
            and _are([*chain.from_iterable(self.dicts)], self.keys)
            and _are([*chain.from_iterable(map(_values, self.dicts))], self.values)
            and self._are_records()
            and all(xxh3_128_digest(codec.encode(value)) == digest for value, digest in self.opaque)
        )

    def _are_records(self) -> bool:
        if not self.records:
            return True
        fields = [*map(_fields, self.records)]
        return (
            all(map(is_, map(type, self.records), self.types))
            and [*map(len, fields)] == self.field_counts
            and _are([*chain.from_iterable(fields)], self.names)
            and _are([*chain.from_iterable(map(_values, fields))], self.fields)
            and all(map(is_, map(_extra, self.models), self.extras))
            and all(map(is_, map(_private, self.models), self.privates))
        )


_values: Final = dict.values


def _are(now: list[Any], then: list[Any]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))


def _is_leaf(value: Any) -> bool:
    """Whether a value that is no container cannot change in place."""
    cls = type(value)
    return cls in IMMUTABLE or isinstance(value, enum.Enum) or (cls is tuple and IMMUTABLE.issuperset(map(type, value)))


def _is_made_of_fields(cls: type) -> bool:
    """Whether objects of a class are what their fields are: dataclasses and pydantic's models, with no slots beside."""
    if not (dataclasses.is_dataclass(cls) or hasattr(cls, "__pydantic_extra__")):
        return False
    slots = {slot for base in cls.__mro__ for slot in _slots_of(base)}
    builtins = [base for base in cls.__mro__ if base is not object and not base.__flags__ & _HEAP_TYPE]
    return slots <= _PYDANTIC and not builtins and cls.__dictoffset__ != 0


_is_record = cast("Callable[[type], bool]", lru_cache(1024)(_is_made_of_fields))
_HEAP_TYPE: Final = 1 << 9


def _slots_of(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


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
    return value if _is_leaf(value) else _Leaf(codec.encode(value, path))


def items_of(values: list[Any], codec: Codec, path: str) -> list[Any]:
    """The shadows of a list's items."""
    return [item if _is_leaf(item) else _Leaf(codec.encode(item, path)) for item in values]


def is_opaque(shadow: Any) -> bool:
    """Whether a shadow says of its value only whether it is the same."""
    return type(shadow) is _Leaf


def size_of(shadow: Any, codec: Codec) -> int:
    """About how many bytes the value has as encoded, of which `shadow` was made."""
    if type(shadow) is ListShadow:
        return 1 + sum(size_of(item, codec) for item in shadow.items)
    if type(shadow) is DictShadow:
        return 1 + sum(_key_size(key) + size_of(item, codec) for key, item in shadow.items.items())
    return shadow.size if type(shadow) is _Leaf else len(codec.encode(shadow))


def _key_size(key: Any) -> int:
    return 1 + len(key) if type(key) in (str, bytes) else 2


# --- comparing ----------------------------------------------------------------------------------------------------


def is_same(shadow: Any, value: Any, codec: Codec, path: str) -> bool:
    """Whether `value` equals what `shadow` was made of."""
    if shadow is value:
        return True
    cls = type(value)
    if type(shadow) is _Leaf:
        return cls not in IMMUTABLE and bool(xxh3_128_digest(codec.encode(value, path)) == shadow.digest)
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
    known = shadow.items
    with suppress(Exception):  # whatever objects do that somebody else changes at this moment
        if shadow.flat.is_held_by(values, codec):
            return True
    if not all(old is new or is_same(old, new, codec, path) for old, new in zip(known, values, strict=False)):
        return False
    # Equal objects took the place of those known (it was read anew): know them, so that the next look is quick again.
    shadow.flat = _Flat(values[: len(known)], codec)
    return True


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
