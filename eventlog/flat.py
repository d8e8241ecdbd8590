"""All that some values hold, laid out flat, so that one look tells whether it is still there.

Owns the layout and the look, which is sound, quick where nothing changed, and runs nobody's code.

A container holds the same as before if it has as many entries and these are the same objects. So it is enough to look
at all containers, wherever they lie, and what they hold can be compared as one long row of objects. The collector knows
what that is, at once for all: of a list its items, of a dict whose keys are strings its values, of an object of a class
written in Python what its slots hold, its ``__dict__``, and last its class.
"""

from __future__ import annotations

import dataclasses
import enum
from functools import lru_cache
from gc import get_referents
from itertools import chain
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from xxhash import xxh3_128_digest

from eventlog.arrays import is_scalar_type
from eventlog.codec import IMMUTABLE
from eventlog.errors import UnserializableError
from eventlog.identity import KnownObjects
from eventlog.types import slots_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventlog.codec import Codec

PLAIN_KEYS: Final = frozenset({str, int, bytes, bool, type(None), UUID})
"""Keys that equal what they read back as; a float may be NaN, and so may what a tuple holds."""
_PYDANTIC: Final = frozenset({"__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"})
_extra: Final = attrgetter("__pydantic_extra__")
_private: Final = attrgetter("__pydantic_private__")
_given: Final = attrgetter("__pydantic_fields_set__")
_items: Final = dict.items


class Flat:
    """The containers in some values, each kind in a list of its own, and what they held; never copies.

    Attributes:
        empty: lists and dicts without entries.
        sized: lists, and dicts whose keys are strings and nothing else ever was.
        sizes: how many entries those have.
        entries: what they hold: items and values.
        dicts: the dicts among them.
        names: the keys of those.
        mixed: other dicts.
        mixed_sizes: how many entries those have.
        mixed_entries: their keys and values.
        records: objects that are what their fields are; their ``__dict__`` stands among the dicts.
        held: what those refer to. The row of each ends with its class, and there is no class in it beside: so the row
            of all is the same only if that of each is.
        given: where the codec writes them, the sets of names that pydantic keeps beside the fields of a model.
        given_sizes: how many names are in each.
        given_names: those names.
        opaque: what only its bytes tell about, with their digest.
    """

    __slots__ = (
        "dicts",
        "empty",
        "entries",
        "given",
        "given_names",
        "given_sizes",
        "held",
        "mixed",
        "mixed_entries",
        "mixed_sizes",
        "names",
        "opaque",
        "records",
        "sized",
        "sizes",
    )

    def __init__(self, values: list[Any], codec: Codec) -> None:
        self.empty: list[Any] = []
        self.sized: list[Any] = []
        self.dicts: list[dict[str, Any]] = []
        self.mixed: list[dict[Any, Any]] = []
        self.records: list[Any] = []
        self.given: list[set[str]] = []
        self.opaque: list[tuple[Any, bytes]] = []
        for value in values:
            if type(value) not in IMMUTABLE:
                self._add(value, codec)
        self.sizes = [*map(len, self.sized)]
        self.entries = KnownObjects(get_referents(*self.sized))
        self.names = [*chain.from_iterable(self.dicts)]
        self.mixed_sizes = [*map(len, self.mixed)]
        self.mixed_entries = KnownObjects(self._mixed_now() if self.mixed else [])
        self.held = KnownObjects(get_referents(*self.records))
        self.given_sizes = [*map(len, self.given)]
        self.given_names = KnownObjects(get_referents(*self.given))

    def _add(self, value: Any, codec: Codec) -> None:
        try:
            self._walk(value, codec)
        except UnserializableError:  # something in it is not stored as it is: all of its bytes then
            self.opaque.append((value, xxh3_128_digest(codec.encode(value))))

    def _walk(self, value: Any, codec: Codec) -> None:
        cls = type(value)
        if cls is list:
            self._walk_list(value, codec)
        elif cls is dict and PLAIN_KEYS.issuperset(map(type, value)):
            self._walk_dict(value, codec)
        elif _is_record(cls) and _ends_with_its_class(value):
            self._walk_record(value, codec)
        elif not is_leaf(value):
            self.opaque.append((value, xxh3_128_digest(codec.encode(value))))

    def _walk_list(self, value: list[Any], codec: Codec) -> None:
        if not value:
            self.empty.append(value)
            return
        self.sized.append(value)
        for item in value:
            if type(item) not in IMMUTABLE:
                self._walk(item, codec)

    def _walk_dict(self, value: dict[Any, Any], codec: Codec) -> None:
        if not value:
            self.empty.append(value)
            return
        row = get_referents(value)
        if len(row) == len(value) and all(map(is_, row, value.values())):
            self.sized.append(value)
            self.dicts.append(value)
        else:  # keys that are not strings are in the row, values that lie in an object are not, or its order is another
            self.mixed.append(value)
        for item in value.values():
            if type(item) not in IMMUTABLE:
                self._walk(item, codec)

    def _walk_record(self, value: Any, codec: Codec) -> None:
        self.records.append(value)
        self._walk_dict(vars(value), codec)
        if hasattr(type(value), "__pydantic_extra__"):
            if getattr(codec, "keeps_given", True):
                self.given.append(_given(value))
            for held in (_extra(value), _private(value)):
                if held is not None:
                    self._walk(held, codec)

    def join(self, end: Flat) -> None:
        """Lay out beside these what others hold."""
        for name in _LISTS:
            added = getattr(end, name)
            if added:
                getattr(self, name).extend(added)
        self.entries.add(end.entries)
        self.mixed_entries.add(end.mixed_entries)
        self.held.add(end.held)
        self.given_names.add(end.given_names)

    def is_held(self, codec: Codec) -> bool:
        """Whether all of it is still there."""
        return (
            [*map(len, self.sized)] == self.sizes
            and self.entries.are(get_referents(*self.sized, *self.empty))  # also: no key of the dicts is no string
            and [*chain.from_iterable(self.dicts)] == self.names
            and (not self.records or self.held.are(get_referents(*self.records)))
            and (not self.given or self._are_given_held())
            and (not self.mixed or self._are_mixed_held())
            and (not self.opaque or self._are_opaque_held(codec))
        )

    def _are_mixed_held(self) -> bool:
        return [*map(len, self.mixed)] == self.mixed_sizes and self.mixed_entries.are(self._mixed_now())

    def _are_given_held(self) -> bool:
        return [*map(len, self.given)] == self.given_sizes and self.given_names.are(get_referents(*self.given))

    def _are_opaque_held(self, codec: Codec) -> bool:
        return all(xxh3_128_digest(codec.encode(value)) == digest for value, digest in self.opaque)

    def _mixed_now(self) -> list[Any]:
        return [*chain.from_iterable(chain.from_iterable(map(_items, self.mixed)))]


_LISTS: Final = (
    "dicts",
    "empty",
    "given",
    "given_sizes",
    "mixed",
    "mixed_sizes",
    "names",
    "opaque",
    "records",
    "sized",
    "sizes",
)


def _ends_with_its_class(value: Any) -> bool:
    row = get_referents(value)
    others = {*map(type, row[:-1])}
    return row[-1] is type(value) and (others <= _NO_CLASSES or not any(issubclass(other, type) for other in others))


_NO_CLASSES: Final = IMMUTABLE | {dict, list, set}


def is_leaf(value: Any) -> bool:
    """Whether a value that is no container cannot change in place."""
    cls = type(value)
    if cls is tuple:
        return IMMUTABLE.issuperset(map(type, value))
    return cls in IMMUTABLE or isinstance(value, enum.Enum) or is_scalar_type(cls)


def _is_made_of_fields(cls: type) -> bool:
    """Whether objects of a class are what their fields are: dataclasses and pydantic's models, with no slots beside."""
    if not (dataclasses.is_dataclass(cls) or hasattr(cls, "__pydantic_extra__")):
        return False
    slots = {slot for base in cls.__mro__ for slot in slots_of(base)}
    builtins = [base for base in cls.__mro__ if base is not object and not base.__flags__ & _HEAP_TYPE]
    return slots <= _PYDANTIC and not builtins and cls.__dictoffset__ != 0


_is_record = cast("Callable[[type], bool]", lru_cache(1024)(_is_made_of_fields))
_HEAP_TYPE: Final = 1 << 9
