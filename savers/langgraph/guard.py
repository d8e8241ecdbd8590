"""What a serializer must not write: secrets. And what it must not read back: types that run code.

Owns the check on both sides. LangGraph's serializer writes what a pydantic ``SecretStr`` hides in the clear, so a value
that holds one, however deep, is refused before anything of it is written, at no cost for those that do not.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from functools import lru_cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from langgraph.checkpoint.serde.base import SerializerProtocol

    Dumps = Callable[[Any], tuple[str, bytes]]

REFUSED_TAGS: Final = frozenset({"json", "pickle"})
"""What LangGraph's serializer reads by calling what the data names, or by unpickling it."""


_ASKED: Final = "get_secret_value"


class SecretFoundError(Exception):
    """Within this module and the serializer: there is a secret in a value."""


def _hides(cls: type) -> bool:
    return hasattr(cls, _ASKED)


_is_secret = cast("Callable[[type], bool]", lru_cache(1024)(_hides))


def dumps_of(serde: SerializerProtocol) -> Dumps:
    """What `serde.dumps_typed` does, but it raises where there is a secret in the value."""
    if is_usual(serde):
        return _guarded_dumps or _looked_through(JsonPlusSerializer(allowed_msgpack_modules=None).dumps_typed)
    return _looked_through(serde.dumps_typed)


def is_usual(serde: SerializerProtocol) -> bool:
    """Whether LangGraph's own serializer writes the values."""
    return type(serde).dumps_typed is JsonPlusSerializer.dumps_typed


def runs_code(serde: SerializerProtocol, tag: str) -> bool:
    """Whether reading data of that tag would call what the data names."""
    return tag in REFUSED_TAGS and type(serde).loads_typed is JsonPlusSerializer.loads_typed


def _looked_through(dumps: Dumps) -> Dumps:
    """As `dumps`, once the value was looked through: for serializers that are not asked on the way."""

    def looked_through(value: Any) -> tuple[str, bytes]:
        if where_secret(value) is not None:
            raise SecretFoundError
        return dumps(value)

    return looked_through


def _guarded() -> Dumps | None:
    """LangGraph's own functions, but for the place that asks an object for its secret; None where there is none.

    They call each other by names of their module: the copies find copies there, and nobody else's serializer changes.
    At that place the copy asks for an attribute that no object has, and so fails; it costs what it cost.
    """
    names = dict(vars(jsonplus))
    found = [names.get(name) for name in ("_msgpack_default", "_msgpack_enc")]
    if not all(isinstance(function, FunctionType) for function in found) or _ASKED not in found[0].__code__.co_names:  # type: ignore[union-attr]
        return None

    def copied(function: Any) -> Any:
        asked = tuple("no secret is written" if name == _ASKED else name for name in function.__code__.co_names)
        code = function.__code__.replace(co_names=asked)
        return FunctionType(code, names, function.__name__, function.__defaults__)

    names.update((function.__name__, copied(function)) for function in found)  # type: ignore[union-attr]
    dumps, never_pickles = copied(JsonPlusSerializer.dumps_typed), JsonPlusSerializer(allowed_msgpack_modules=None)
    return cast("Dumps", dumps.__get__(never_pickles))


_guarded_dumps: Final = _guarded()


def where_secret(value: Any) -> str | None:
    """Where in a value there is a secret, as the end of a path, like ``[3].key``; None if there is none."""
    seen: set[int] = set()
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        where, each = left.pop()
        if _is_secret(type(each)):
            return where
        if type(each) in _PLAIN or id(each) in seen:
            continue
        seen.add(id(each))
        left += ((where + step, item) for step, item in _held(each))
    return None


_PLAIN: Final = frozenset({str, int, float, bool, bytes, bytearray, type(None)})


def _held(value: Any) -> Iterable[tuple[str, Any]]:
    """What a value holds, as far as serializers look into it: containers, fields of records, and what is sent."""
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if dataclasses.is_dataclass(value) or hasattr(type(value), "model_dump") or hasattr(type(value), "__fields__"):
        fields = {**getattr(value, "__dict__", {}), **(getattr(value, "__pydantic_extra__", None) or {})}
        slots = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else ()
        fields.update((name, getattr(value, name, None)) for name in slots)
        return [(f".{name}", item) for name, item in fields.items()]
    return [(f".{name}", getattr(value, name)) for name in ("node", "arg", "value") if hasattr(value, name)]
