"""How an enum or a dataclass is named in stored bytes, and found, taken apart and rebuilt by that name.

Owns the tag ``module:qualname``, which every codec shares. It never imports a module, never calls a class and reads
namespaces without `getattr`: a stored tag can choose among classes that this process already has, and do nothing else.
The one code of a class that reading may run is the default factory of a field that was not stored.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, Field, fields
from enum import Enum, Flag
from functools import cached_property
from types import ModuleType
from typing import Any

from eventlog.errors import UnknownTypeError, UnserializableError

_NO_STATE = frozenset({"__orig_class__"})  # typing leaves it on an instance of ``Generic[int]``
_PYTHON_MADE = staticmethod(object)  # a ``__new__`` written in Python is a staticmethod; one written in C is not


def is_storable_type(cls: type) -> bool:
    """Whether instances of `cls` are nothing but an enum member or the fields of a dataclass.

    A class that merely inherits from a dataclass is none, and neither is a dataclass on top of a built-in type such as
    `dict` or `Exception`, whose own content is in no field.
    """
    if issubclass(cls, Enum):
        return True
    *mro, _object = cls.__mro__
    return "__dataclass_fields__" in _names_of(cls) and all(
        isinstance(_names_of(base).get("__new__", _PYTHON_MADE), staticmethod) for base in mro
    )


def tag_of(cls: type) -> str:
    """``module:qualname``, whether or not it leads back to `cls`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def type_tag(cls: type) -> str | None:
    """The tag that leads back to this very class in this process, or None if there is none.

    None for classes made in functions, classes that another one of the same name has replaced, and everything that is
    not storable.
    """
    tag = tag_of(cls)
    return tag if resolve_type(tag) is cls else None


def resolve_type(tag: str) -> type | None:
    """The storable class that `tag` names, or None if the process has none such. Imports nothing, runs nothing."""
    module_name, _, qualname = tag.partition(":")
    found: Any = sys.modules.get(module_name)
    # Types are looked at by type(), not isinstance(): the latter asks the object, and a stored tag chose the object.
    if not issubclass(type(found), ModuleType):
        return None
    names = object.__getattribute__(found, "__dict__")  # does not wake a lazy module
    for name in qualname.split("."):
        found = names.get(name)
        if not issubclass(type(found), type):
            return None
        names = _names_of(found)
    return found if is_storable_type(found) else None


def _names_of(cls: type) -> Any:
    return type.__getattribute__(cls, "__dict__")


def enum_key(member: Enum) -> str | int:
    """What names `member` within its class: its name, or the bits of a flag, because combined flags have no name."""
    return member.value if isinstance(member, Flag) else member.name


def rebuild_enum(cls: type[Enum], key: object) -> Enum:
    """The member that `enum_key` named; no user code runs.

    Raises:
        UnknownTypeError: the class has no such member any more.
    """
    try:
        # Flag.__call__ is the standard library's; Enum.__call__ would reach a user's _missing_.
        return cls(key) if issubclass(cls, Flag) and type(key) is int else cls._member_map_[key]  # type: ignore[index]
    except (KeyError, TypeError, ValueError) as error:
        raise UnknownTypeError(tag_of(cls), f"it has no member {key!r} any more") from error


def dataclass_fields(obj: Any, path: str = "value") -> dict[str, Any]:
    """The fields of a dataclass instance by name, in the order of the class; values are not copied.

    Reads the instance's own state, so no property and no ``__getattr__`` runs.

    Args:
        obj: an instance of a storable dataclass.
        path: where it stands, for the message.

    Raises:
        UnserializableError: a field is not set, or the instance holds something that is no field (what
            `functools.cached_property` left there is dropped: it will be computed again).
    """
    state = object.__getstate__(obj)  # the standard library's own list of attributes and slots
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    held: dict[str, Any] = {**(attributes or {}), **(slots or {})}
    found = {field.name: held.pop(field.name, field.default) for field in fields(obj)}
    for name, value in found.items():
        if value is MISSING:
            raise UnserializableError(path, f"field {name!r} of {tag_of(type(obj))} is not set")
    for name in held:
        if name not in _NO_STATE and not _is_cached_property(type(obj), name):
            raise UnserializableError(
                path, f"attribute {name!r} of {tag_of(type(obj))} is no field and would be lost; make it a field"
            )
    return found


def _is_cached_property(cls: type, name: str) -> bool:
    return any(isinstance(_names_of(base).get(name), cached_property) for base in cls.__mro__)


def rebuild_dataclass(cls: type, stored: dict[str, Any]) -> Any:
    """An instance of `cls` with these fields, made without ``__init__`` and ``__post_init__``.

    A field that was not stored takes its default.

    Raises:
        UnknownTypeError: the class lacks a stored field, or has one that was not stored and has no default.
    """
    known = {field.name: field for field in fields(cls)}
    for name in stored:
        if name not in known:
            raise UnknownTypeError(tag_of(cls), f"the class has no field {name!r} any more; register a decoder for it")
    rebuilt: Any = object.__new__(cls)
    for name, field in known.items():
        value = stored[name] if name in stored else _default(cls, field)
        try:
            object.__setattr__(rebuilt, name, value)
        except (AttributeError, TypeError) as error:
            raise UnknownTypeError(tag_of(cls), f"field {name!r} cannot be set: {error}") from error
    return rebuilt


def _default(cls: type, field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise UnknownTypeError(
        tag_of(cls), f"field {field.name!r} was not stored and has no default; give it one, or register a decoder"
    )
