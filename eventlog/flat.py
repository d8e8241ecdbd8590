"""All that some values hold, laid out flat, so that one look tells whether it is still there.

Owns the layout and the look, which is sound, quick where nothing changed, and runs nobody's code.
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
_PYDANTIC: Final = frozenset({"__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"})
_fields: Final = attrgetter("__dict__")
_extra: Final = attrgetter("__pydantic_extra__")
_private: Final = attrgetter("__pydantic_private__")


class Flat:
    """All that some values hold, each kind in a list of its own; the objects themselves, not copies.

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
        for value in values:
            if type(value) not in IMMUTABLE:
                self._add(value, codec)

    def _add(self, value: Any, codec: Codec) -> None:
        try:
            self._walk(value, codec)
        except UnserializableError:  # something in it is not stored as it is: all of its bytes then
            self.opaque.append((value, xxh3_128_digest(codec.encode(value))))

    def join(self, end: Flat) -> None:
        """Lay out beside these what others hold."""
        for name in Flat.__slots__:
            getattr(self, name).extend(getattr(end, name))

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
        elif not is_leaf(value):
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

    def is_held(self, codec: Codec) -> bool:
        """Whether all of it is still there."""
        return (
            not any(self.empty)
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


def is_leaf(value: Any) -> bool:
    """Whether a value that is no container cannot change in place."""
    cls = type(value)
    return cls in IMMUTABLE or isinstance(value, enum.Enum) or (cls is tuple and IMMUTABLE.issuperset(map(type, value)))
