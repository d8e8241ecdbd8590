"""How an enum, a dataclass or a model of pydantic's is named in stored bytes, and found, taken apart and rebuilt.

Owns the tag ``module:qualname``, which every codec shares. It never imports a module, never calls a class and reads
namespaces without `getattr`: a stored tag can choose among classes that this process already has, and do nothing else.
The one code of a class that reading may run is the default factory of a field that was not stored. It never imports
pydantic either: a program that has a model has done so.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, Field, fields
from enum import Enum, Flag
from functools import cached_property, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, get_args

from eventlog.errors import UnknownTypeError, UnserializableError

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_STATE = frozenset({"__orig_class__"})  # typing leaves it on an instance of ``Generic[int]``
_PYTHON_MADE = staticmethod(object)  # a ``__new__`` written in Python is a staticmethod; one written in C is not


def is_storable_type(cls: type) -> bool:
    """Whether instances of `cls` are nothing but an enum member, the fields of a dataclass or what a model holds.

    A class that merely inherits from a dataclass is none, and neither is a dataclass on top of a built-in type such as
    `dict` or `Exception`, whose own content is in no field.
    """
    if issubclass(cls, Enum) or is_model_type(cls):
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


# --- models of pydantic's -----------------------------------------------------------------------------------------

_MODEL_SLOTS: Final = frozenset(
    {"__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__", "__weakref__"}
)
_HEAP_TYPE: Final = 1 << 9
_SECRETS: Final = frozenset({"SecretStr", "SecretBytes", "Secret"})


class ModelParts(NamedTuple):
    """All that a model holds.

    Attributes:
        fields: by name, in the order of the class.
        given: the names that count as set by whoever made it, None for all that it holds.
        extra: what it was given beside its fields, None if its class takes none.
        private: its private attributes, None if it has none.
    """

    fields: dict[str, Any]
    given: list[str] | None
    extra: dict[str, Any] | None
    private: dict[str, Any] | None


def is_model_type(cls: type) -> bool:
    """Whether instances of `cls` are nothing but what pydantic keeps of a model."""
    base = _of_pydantic("pydantic.main", "BaseModel")
    mro: tuple[type, ...] = type.__getattribute__(cls, "__mro__")
    if base is None or cls is base or not any(one is base for one in mro):
        return False
    slots = {slot for one in mro for slot in slots_of(one)}
    return slots <= _MODEL_SLOTS and all(one is object or one.__flags__ & _HEAP_TYPE for one in mro)


def is_secret_type(cls: type) -> bool:
    """Whether values of `cls` are pydantic's secrets, which are never stored."""
    secrets = [_of_pydantic("pydantic.types", name) for name in _SECRETS]
    return any(one is secret for one in type.__getattribute__(cls, "__mro__") for secret in secrets)


def _of_pydantic(module: str, name: str) -> Any:
    found = sys.modules.get(module)
    return None if found is None else vars(found).get(name)


def slots_of(cls: type) -> tuple[str, ...]:
    """The slots that a class adds to those of its bases."""
    slots = _names_of(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _model_fields(cls: type) -> dict[str, Any]:
    for base in cls.__mro__:
        for name in ("__pydantic_fields__", "model_fields"):  # the second in releases before 2.10
            if type(found := _names_of(base).get(name)) is dict:
                return found
    return {}


def model_parts(obj: Any, path: str = "value") -> ModelParts:
    """What a model holds, taken from where pydantic keeps it: no validator, serializer or property runs.

    Args:
        obj: an instance of a class of which `is_model_type` is true.
        path: where it stands, for the message.

    Raises:
        UnserializableError: a field is not set or is a secret, or it holds something that is no field.
    """
    cls = type(obj)
    held = dict(object.__getattribute__(obj, "__dict__"))
    fields: dict[str, Any] = {}
    for name in _model_fields(cls):
        if name not in held:
            raise UnserializableError(path, f"field {name!r} of {tag_of(cls)} is not set")
        fields[name] = held.pop(name)
        if name in _secret_fields(cls) and not _is_empty(fields[name]):
            raise UnserializableError(path, f"field {name!r} of {tag_of(cls)} is a secret, and secrets are not stored")
    for name in held:
        if not _is_cached_property(cls, name):
            raise UnserializableError(path, f"attribute {name!r} of {tag_of(cls)} is no field and would be lost")
    given, extra, private = (
        _held(obj, name) for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
    )
    names = None if given == {*fields, *(extra or ())} else sorted(given or ())
    return ModelParts(fields, names, extra, private)


def held_by_model(obj: Any) -> dict[str, Any]:
    """All that a model holds, storable or not, by name."""
    beside = [_held(obj, name) or {} for name in ("__pydantic_extra__", "__pydantic_private__")]
    return {**object.__getattribute__(obj, "__dict__"), **beside[0], **beside[1]}


def _held(obj: Any, slot: str) -> Any:
    try:
        return object.__getattribute__(obj, slot)
    except AttributeError:
        return None


def _fields_for_secrets(cls: type) -> frozenset[str]:
    return frozenset(name for name, info in _model_fields(cls).items() if _is_secret(info.annotation))


_secret_fields = cast("Callable[[type], frozenset[str]]", lru_cache(1024)(_fields_for_secrets))


def _is_empty(value: Any) -> bool:
    return value is None or (type(value) in (list, tuple, dict, set, frozenset) and not value)


def _is_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and is_secret_type(annotation):
        return True
    return any(map(_is_secret, get_args(annotation)))


def rebuild_model(cls: type, parts: ModelParts) -> Any:
    """An instance of `cls` that holds `parts`, made without ``__init__``, validators and ``model_post_init``.

    A field that was not stored takes its default. Private attributes are those that were stored.

    Raises:
        UnknownTypeError: the class lacks a stored field, or has one that was not stored and has no default.
    """
    fields, given, extra, private = parts
    known = _model_fields(cls)
    for name in fields:
        if name not in known:
            raise UnknownTypeError(tag_of(cls), f"the class has no field {name!r} any more; register a decoder for it")
    held = {name: fields[name] if name in fields else _model_default(cls, name, info) for name, info in known.items()}
    rebuilt: Any = object.__new__(cls)
    object.__setattr__(rebuilt, "__dict__", held)
    slots = vars(_of_pydantic("pydantic.main", "BaseModel"))  # a class may hide them: `RootModel` does
    slots["__pydantic_fields_set__"].__set__(rebuilt, {*fields, *(extra or ())} if given is None else set(given))
    slots["__pydantic_extra__"].__set__(rebuilt, extra)
    slots["__pydantic_private__"].__set__(rebuilt, private)
    return rebuilt


def _model_default(cls: type, name: str, info: Any) -> Any:
    if info.is_required():
        raise UnknownTypeError(
            tag_of(cls), f"field {name!r} was not stored and has no default; give it one, or register a decoder"
        )
    try:
        return info.get_default(call_default_factory=True)
    except (TypeError, ValueError) as error:  # a factory that asks for the other fields
        raise UnknownTypeError(tag_of(cls), f"the default of field {name!r} cannot be made: {error}") from error
