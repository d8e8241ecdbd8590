"""What a value was when it was last recorded, to compare the next one with.

Owns shadows and the comparison. It is *sound*: a shadow keeps the structure of what may change in place and, at the
leaves, references to what cannot; whatever else there is, is kept as a digest of its bytes. So a value that was changed
in place, at any depth, differs from its shadow: types, order and the bits of a float count.

It is made to be quick where nothing changed. A list of strings or numbers costs one identity comparison each. Dicts and
records in a list (messages, mostly) are compared with *mirrors*: containers like theirs that hold the same leaves, so
that one comparison of two lists of dicts walks them all. A mirror holds a stand-in where Python calls equal what is not
the same: for numbers, and for dicts whose order counts.
"""

from __future__ import annotations

import dataclasses
import enum
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
_STR: Final = frozenset({str})
_FREE: Final = frozenset({str, type(None)})
"""Leaves for which ``==`` is sameness in a mirror."""
_EXACT: Final = frozenset({str, bytes, int, bool, type(None)})
"""Types for which ``==`` between two of the same type is equality; not float (zeros, NaN), not datetime (zones)."""
_PYDANTIC: Final = frozenset({"__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"})
_fields: Final = attrgetter("__dict__")
_extra: Final = attrgetter("__pydantic_extra__")
_private: Final = attrgetter("__pydantic_private__")


class ListShadow:
    """Of a list: what its items are compared with; `columns`, if they are all dicts or all records."""

    __slots__ = ("columns", "items")

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.columns = _Columns.of(items)

    def extend(self, items: list[Any]) -> None:
        """Take over shadows of items that were put at the end."""
        self.items += items
        if self.columns is not None and not self.columns.take(items):
            self.columns = None


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


class _Record:
    """Of a dict, or an object that is what its fields are, within a list; `more` is what a model has beside them."""

    __slots__ = ("cls", "fields", "kind", "more")

    def __init__(self, value: Any, codec: Codec) -> None:
        self.cls: type = type(value)
        self.kind = _DICT if self.cls is dict else _MODEL if hasattr(value, "__pydantic_extra__") else _OBJECT
        fields = value if self.kind == _DICT else vars(value)
        self.fields = {key: _mirror(item, codec) for key, item in fields.items()}
        self.more = tuple(_mirror(each(value), codec) for each in (_extra, _private)) if self.kind == _MODEL else ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not self.cls:
            return False
        if self.kind == _DICT:
            return list(other) == list(self.fields) and other == self.fields  # type: ignore[call-overload]
        if self.kind == _MODEL and (_extra(other), _private(other)) != self.more:
            return False
        return vars(other) == self.fields

    __hash__ = None  # type: ignore[assignment]


class _Columns:
    """The records of one list, in lists of their own: compared by a handful of calls."""

    __slots__ = ("kind", "parts", "types")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.types: list[type] = []
        self.parts: list[list[Any]] = [[] for _ in _PARTS[kind]]

    @classmethod
    def of(cls, items: list[Any]) -> _Columns | None:
        """None if they are not all of one kind."""
        if not items or type(items[0]) is not _Record:
            return None
        columns = cls(items[0].kind)
        return columns if columns.take(items) else None

    def take(self, items: list[Any]) -> bool:
        """Add more; whether they are of the same kind."""
        if not all(type(item) is _Record and item.kind == self.kind for item in items):
            return False
        self.types += [item.cls for item in items]
        self.parts[0] += [item.fields for item in items]
        if self.kind == _DICT:
            self.parts[1] += chain.from_iterable(item.fields for item in items)
        for index, part in enumerate(self.parts[1:] if self.kind == _MODEL else ()):
            part += [item.more[index] for item in items]
        return True

    def are_those_of(self, values: list[Any]) -> bool:
        """Whether as many values are the same."""
        if [*map(type, values)] != self.types:
            return False
        return all(read(values) == part for read, part in zip(_PARTS[self.kind], self.parts, strict=True))


_DICT, _OBJECT, _MODEL = range(3)
_PARTS: Final[dict[int, tuple[Callable[[list[Any]], list[Any]], ...]]] = {
    _DICT: (list, lambda values: [*chain.from_iterable(values)]),
    _OBJECT: (lambda values: [*map(_fields, values)],),
    _MODEL: (
        lambda values: [*map(_fields, values)],
        lambda values: [*map(_extra, values)],
        lambda values: [*map(_private, values)],
    ),
}
"""What is read of all records of a kind, to be compared with mirrors of it."""


# --- mirrors ------------------------------------------------------------------------------------------------------


class _Exact:
    """Stands for a leaf that Python may call equal to something else: 1 for True, one time zone for another."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        value = self.value
        return other is value or (type(other) is type(value) and repr(other) == repr(value))

    __hash__ = None  # type: ignore[assignment]


class _Leaves:
    """Stands for a list of leaves."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __eq__(self, other: object) -> bool:
        if type(other) is not list or len(other) != len(self.items):
            return False
        return all(map(is_, other, self.items)) or repr(other) == repr(self.items)

    __hash__ = None  # type: ignore[assignment]


class _Ordered:
    """Stands for a dict of several keys, whose order counts."""

    __slots__ = ("fields", "keys")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.keys = _shared(tuple(fields))

    def __eq__(self, other: object) -> bool:
        return type(other) is dict and list(other) == self.keys and other == self.fields

    __hash__ = None  # type: ignore[assignment]


class _Bytes:
    """Stands for a value that only its bytes tell about."""

    __slots__ = ("codec", "leaf")

    def __init__(self, leaf: _Leaf, codec: Codec) -> None:
        self.leaf = leaf
        self.codec = codec

    def __eq__(self, other: object) -> bool:
        return type(other) not in IMMUTABLE and _Leaf(self.codec.encode(other)).digest == self.leaf.digest

    __hash__ = None  # type: ignore[assignment]


_EMPTY: Final[dict[type, Any]] = {list: [], dict: {}}
"""Shared, for there are many: the fewer bytes a comparison touches, the quicker it is."""


@lru_cache(1024)
def _shared(keys: tuple[str, ...]) -> list[str]:
    """The one list of these keys."""
    return list(keys)


def _mirror(value: Any, codec: Codec) -> Any:
    cls = type(value)
    if cls in _FREE:
        return value
    if cls in IMMUTABLE or isinstance(value, enum.Enum):
        return _Exact(value)
    if not value and cls in _EMPTY:
        return _EMPTY[cls]
    if cls is list:
        types = set(map(type, value))
        if types <= _FREE:
            return list(value)
        return _Leaves(list(value)) if types <= IMMUTABLE else [_mirror(item, codec) for item in value]
    if cls is dict and _STR.issuperset(map(type, value)):
        fields = {key: _mirror(item, codec) for key, item in value.items()}
        return fields if len(fields) < 2 else _Ordered(fields)  # noqa: PLR2004 (one key has one order)
    if _is_record(cls):
        return _Record(value, codec)
    return _Bytes(_Leaf(codec.encode(value)), codec)


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
    """What `value` is to be compared with later; holds no container or other mutable object of the caller's."""
    cls = type(value)
    if cls in IMMUTABLE:
        return value
    if cls is list:
        return ListShadow(items_of(value, codec, path))
    if cls is dict and PLAIN_KEYS.issuperset(map(type, value)):
        return DictShadow(
            {key: item if type(item) in IMMUTABLE else shadow_of(item, codec, path) for key, item in value.items()}
        )
    if isinstance(value, enum.Enum) or (cls is tuple and IMMUTABLE.issuperset(map(type, value))):
        return value
    return _Leaf(codec.encode(value, path))


def items_of(values: list[Any], codec: Codec, path: str) -> list[Any]:
    """The shadows of a list's items."""
    return [item if type(item) in IMMUTABLE else _item_of(item, codec, path) for item in values]


def _item_of(value: Any, codec: Codec, path: str) -> Any:
    if (type(value) is dict and _STR.issuperset(map(type, value))) or _is_record(type(value)):
        try:
            return _Record(value, codec)
        except (UnserializableError, AttributeError):  # a field that is not stored as it is, or a model half made
            return _Leaf(codec.encode(value, path))
    return shadow_of(value, codec, path)


def is_opaque(shadow: Any) -> bool:
    """Whether a shadow says of its value only whether it is the same."""
    return type(shadow) in (_Leaf, _Record)


def size_of(shadow: Any, codec: Codec) -> int:
    """About how many bytes the value has as encoded, of which `shadow` was made."""
    if type(shadow) is ListShadow:
        return 1 + sum(size_of(item, codec) for item in shadow.items)
    if type(shadow) is DictShadow:
        return 1 + sum(_key_size(key) + size_of(item, codec) for key, item in shadow.items.items())
    if type(shadow) is _Record:
        return _mirror_size(shadow)
    return shadow.size if type(shadow) is _Leaf else len(codec.encode(shadow))


def _mirror_size(mirror: Any) -> int:
    """About the bytes of what a mirror stands for, without its help."""
    if isinstance(mirror, _Record | _Ordered):
        return 1 + sum(_key_size(key) + _mirror_size(item) for key, item in mirror.fields.items())
    if isinstance(mirror, dict):
        return 1 + sum(_key_size(key) + _mirror_size(item) for key, item in mirror.items())
    if isinstance(mirror, list | _Leaves):
        return 1 + sum(map(_mirror_size, mirror if isinstance(mirror, list) else mirror.items))
    if isinstance(mirror, _Bytes):
        return mirror.leaf.size
    value = mirror.value if isinstance(mirror, _Exact) else mirror
    return _key_size(value) if isinstance(value, str | bytes) else 5


def _key_size(key: Any) -> int:
    return 1 + len(key) if type(key) in (str, bytes) else 2


# --- comparing ----------------------------------------------------------------------------------------------------


def is_same(shadow: Any, value: Any, codec: Codec, path: str) -> bool:
    """Whether `value` equals what `shadow` was made of."""
    if shadow is value:
        return True
    cls = type(value)
    if cls is list:
        return (
            type(shadow) is ListShadow and len(shadow.items) == len(value) and begins_with(value, shadow, codec, path)
        )
    if type(shadow) is _Record:
        return _is_like(shadow, value)
    if cls is dict and type(shadow) is DictShadow:
        return _same_entries(shadow, value, codec, path)
    if type(shadow) is _Leaf:
        return cls not in IMMUTABLE and bool(xxh3_128_digest(codec.encode(value, path)) == shadow.digest)
    if cls is not type(shadow):
        return False
    if cls in _EXACT:
        return bool(shadow == value)
    return codec.encode(shadow, path) == codec.encode(value, path)


def begins_with(values: list[Any], shadow: ListShadow, codec: Codec, path: str) -> bool:
    """Whether the first items of a list, which has as many, are those that `shadow` was made of."""
    known = shadow.items
    if shadow.columns is not None:
        return _is_like(shadow.columns, values if len(values) == len(known) else values[: len(known)])
    if all(map(is_, known, values)):
        return True
    if not all(old is new or is_same(old, new, codec, path) for old, new in zip(known, values, strict=False)):
        return False
    # Equal objects took the place of those known (it was read anew): know them, so that the next look is quick again.
    known[:] = [new if type(new) in IMMUTABLE else old for old, new in zip(known, values, strict=False)]
    return True


def _is_like(mirror: _Record | _Columns, value: Any) -> bool:
    """Whether a mirror equals a value, whose own comparison may be anybody's code: what fails is not the same."""
    try:
        return mirror.are_those_of(value) if isinstance(mirror, _Columns) else mirror == value
    except Exception:  # noqa: BLE001 (whatever it raises)
        return False


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
