"""Values to JSON and back, with the type of every value.

Owns the JSON form. It never imports what data names, never writes what it could not read back equal, and never runs
anything that is stored. Pure: a serde holds nothing but the types that its owner registered.

A value that JSON has itself stands as it is: None, bool, int, finite float, str, list, and a dict whose keys are all
strings and none of them ``$type``. Everything else is an object with a tag:

```
 {"$type": tag,          "value": ...}
  "float"                "nan" | "inf" | "-inf" | 16 hex digits (a NaN with other bits)
  "int"                  hexadecimal, beyond 2000 bits
  "bytes" "bytearray"    base64
  "tuple"                [item, ...]
  "set" "frozenset"      [item, ...], sorted by their JSON
  "dict"                 [key, value, key, value, ...]: other keys than strings, or the key "$type"
  "datetime" "time"      ISO 8601; "fold": 1 where it is set; "tz": the zone where ISO 8601 cannot say it
  "date"                 ISO 8601
  "timedelta"            [days, seconds, microseconds]
  "timezone"             [days, seconds, microseconds] | [days, seconds, microseconds, name]
  "zoneinfo"             IANA key
  "uuid" "decimal"       as printed
  "module:qualname"      member's name, or bits of a flag        (enum)
  "module:qualname"      {field: value, ...}                     (dataclass)
  "module:qualname"      [fields, given, extra, private]         (model of pydantic's: its `ModelParts`)
  "numpy:ndarray"        [dtype, shape, by columns, base64]      (numpy's arrays and scalars)
  as registered          what the registered function made of it
```
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
import uuid
from base64 import b64decode, b64encode
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, InvalidOperation
from enum import Enum
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar
from zoneinfo import ZoneInfo

from eventlog import CorruptionError, InvalidInputError, TooDeepError, UnknownTypeError, UnserializableError, check_id
from eventlog.arrays import ARRAY, array_parts, is_array_type, rebuilt_array
from eventlog.types import (
    ModelParts,
    dataclass_fields,
    enum_key,
    is_model_type,
    is_secret_type,
    is_storable_type,
    model_parts,
    rebuild_dataclass,
    rebuild_enum,
    rebuild_model,
    resolve_type,
    tag_of,
    type_tag,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

T = TypeVar("T")

MAX_DEPTH: Final = 200
"""Containers within containers; a value of a class of yours counts as one."""

_MAX_JSON_DEPTH: Final = 2 * MAX_DEPTH + 4  # a tag adds an object around what it names; a zone in a datetime, three
_MAX_DECIMAL_INT: Final = 1 << 2000  # Python refuses to print or parse more than 640 digits where it is set up so
_SAFE_RECURSION: Final = 20_000  # the json module's C code was seen to survive 50,000 levels on 8 MiB of stack
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_TAG: Final = "$type"
_WHERE: Final = "value"  # a codec sees one value alone; who reads it knows the run and the event
_STRINGS: Final = frozenset({str})
_PLAIN_ATOMS: Final = frozenset({str, bool, type(None)})
_INT64: Final = 1 << 63
_MINUTE: Final = timedelta(minutes=1)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_DECIMALS: Final = Context(capitals=1, traps=[InvalidOperation])  # the thread's own may print and trap otherwise


class JsonPlusSerde:
    """JSON (UTF-8) that reads back equal: same types at every depth, same dict order, same float bits.

    Supported: None, bool, int of any size, float, str, bytes, bytearray, list, tuple, dict with any supported hashable
    keys, set, frozenset, datetime, date, time, timedelta, timezone, ZoneInfo, UUID, Decimal, enums, dataclasses,
    pydantic's models, numpy's arrays and scalars, and what is registered. Exactly these: an instance of a subclass is
    refused, since it would come back as its base.

    A dataclass comes back without ``__init__`` and ``__post_init__``, a model without any validator; its module must be
    imported before it is read, and numpy before an array.
    Objects that occur twice in a value come back as two equal objects.

    Threads: register first; after that, any number of threads may use one serde.

    Args:
        inert: read enums, dataclasses and registered types as ``{"$type": tag, "value": ...}``, without looking for
            their classes: for tools that show data of programs they do not know. Sets and dicts that such dicts cannot
            be in, and zones this machine does not know, are left in the same form.
    """

    name: Final = "json+/1"

    def __init__(self, *, inert: bool = False) -> None:
        self._inert = inert
        self._writers: dict[type, tuple[str, Callable[[Any], Any]]] = {}
        self._readers: dict[str, tuple[type, Callable[[Any], Any]]] = {}
        self._decoder = json.JSONDecoder(object_hook=self._untagged, parse_constant=_no_constant)

    def register(
        self,
        cls: type[T],
        tag: str | None = None,
        encode: Callable[[T], Any] | None = None,
        decode: Callable[[Any], T] | None = None,
    ) -> None:
        """Support the instances of exactly `cls` in this serde.

        Registering a class a second time under another tag changes what is written; both tags are read. So a class
        that moved stays readable: register it under its old tag, then under its new one.

        Args:
            cls: a class of yours.
            tag: what names it in stored bytes, for ever. None: ``module:qualname``.
            encode: makes a supported value of an instance. None is for enums and dataclasses.
            decode: makes an instance of that value; give both or neither.

        Raises:
            InvalidInputError: the tag names another type already, or the functions are missing.
        """
        tag = tag_of(cls) if tag is None else tag
        if cls in _SUPPORTED:
            _refuse_to_register(f"{cls.__qualname__} is supported already")
        check_id("type tag", tag)
        if tag in _READERS or self._readers.get(tag, (cls,))[0] is not cls:
            _refuse_to_register(f"tag {tag!r} names another type already; choose another one")
        if (encode is None) != (decode is None):
            _refuse_to_register("give encode and decode, or neither")
        if encode is None or decode is None:
            encode, decode = _own_form(cls)
        self._writers[cls] = (tag, encode)
        self._readers[tag] = (cls, decode)

    def encode(self, value: Any, path: str = "value") -> bytes:
        """`value` as JSON in UTF-8. Equal values give equal bytes; the value is not changed and not kept.

        Args:
            value: what to write.
            path: what to call it in an error, for example the name of its channel.

        Raises:
            UnserializableError: something in it cannot be read back equal; names where, as ``messages[3].meta``.
            TooDeepError: nested deeper than 200, or it contains itself.
        """
        try:
            if _is_plain(value, MAX_DEPTH):
                return _dump(value).encode()
        except (ValueError, RecursionError, RuntimeError, TypeError):
            pass  # a lone surrogate, no stack left, or changed meanwhile by another thread: the writer says what, where
        writer = _Writer(self._writers, path)
        try:
            return _dump(writer.tree(value)).encode()
        except RecursionError:
            raise TooDeepError(path, "the call stack has no room left for a value nested this deep") from None

    def decode(self, data: bytes) -> Any:
        """The value that `encode` was given, new at every level.

        Raises:
            UnknownTypeError: it holds an enum, a dataclass or a registered type that this process does not have.
            CorruptionError: `encode` did not write these bytes.
            TooDeepError: the call stack has no room left to read a value nested this deep.
        """
        try:
            text = str(data, "utf-8")
            _spare_the_stack(data)
            if _SURROGATE.search(text):
                _dump(_PLAIN_DECODER.decode(text)).encode()  # a pair is a character; a lone one fails here
            return (self._decoder if _TAG in text else _PLAIN_DECODER).decode(text)
        except RecursionError:
            if _is_too_deep(bytes(data)):
                raise CorruptionError(_WHERE, "nested deeper than anything written here") from None
            raise TooDeepError(_WHERE, "the call stack has no room left to read a value nested this deep") from None
        except (TypeError, ValueError) as error:
            raise CorruptionError(_WHERE, f"not JSON of {self.name}: {error}") from error

    def _untagged(self, node: dict[str, Any]) -> Any:
        if _TAG not in node:
            return node
        try:
            return self._read(node[_TAG], node)
        except UnknownTypeError:
            if self._inert:
                return node
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if self._inert and isinstance(error, TypeError) and node[_TAG] in _HOLDERS:
                return node
            raise CorruptionError(_WHERE, f"bad {node[_TAG]!r:.80}: {error}") from error

    def _read(self, tag: Any, node: dict[str, Any]) -> Any:
        if type(tag) is not str:
            raise CorruptionError(_WHERE, "a type tag must be a string")
        if tag in _READERS and not (self._inert and tag == ARRAY):
            return _READERS[tag](node)
        if self._inert:
            return node
        if tag in self._readers:
            return self._read_registered(tag, node["value"])
        cls = resolve_type(tag)
        if cls is None:
            raise UnknownTypeError(tag, "import the module that defines it, or register it, and read again")
        return _rebuild(cls, node["value"])

    def _read_registered(self, tag: str, value: Any) -> Any:
        _, decode = self._readers[tag]
        try:
            return decode(value)
        except UnknownTypeError:
            raise
        except Exception as error:
            raise UnknownTypeError(tag, f"its registered decode function failed: {error!r}") from error


# --- writing --------------------------------------------------------------------------------------------------------

_dump: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode


def _is_plain(value: Any, room: int) -> bool:
    """Whether JSON alone carries `value`, in at most `room` levels. A lone surrogate is left for UTF-8 to find."""
    kind = type(value)
    if kind in _PLAIN_ATOMS:
        return True
    if kind is int:
        return bool(-_MAX_DECIMAL_INT < value < _MAX_DECIMAL_INT)
    if kind is float:
        return math.isfinite(value)
    if not room or not (kind is list or (kind is dict and _are_json_keys(value))):
        return False
    for child in value.values() if kind is dict else value:  # a loop, not all(): one frame for each level
        if type(child) not in _PLAIN_ATOMS and not _is_plain(child, room - 1):
            return False
    return True


def _are_json_keys(keys: Collection[Any]) -> bool:
    return _STRINGS.issuperset(map(type, keys)) and _TAG not in keys


class _RefusedError(Exception):
    """Why an atom cannot be written; the writer knows where."""


class _Parts(NamedTuple):
    """A container taken apart: its children, the steps that lead to them, and what makes one tree of their trees."""

    steps: Iterable[Any]
    children: list[Any]
    close: Callable[[list[Any]], Any]


class _Inside:
    """A step without a name of its own: the `index`-th key of a dict, or what a registered function made."""

    def __init__(self, index: int | None = None) -> None:
        self.index = index


class _Writer:
    """Makes the plain tree of one value, and knows where it stands."""

    __slots__ = ("_open", "_path", "_registered", "_root", "_tags")

    def __init__(self, registered: dict[type, tuple[str, Callable[[Any], Any]]], path: str) -> None:
        self._registered = registered
        self._root = path
        self._path: list[Any] = []
        self._open: set[int] = set()
        self._tags: dict[type, str] = {}

    def tree(self, value: Any) -> Any:
        """`value` in what JSON has; shares nothing with it that can change."""
        kind = type(value)
        if kind in _ATOMS:
            return self._atom(kind, value)
        if is_array_type(kind) and kind not in self._registered:
            return self._array(value)
        if issubclass(kind, Enum) and kind not in self._registered:
            key = enum_key(value)
            return _tagged(self._tag(kind), self._atom(type(key), key))
        if id(value) in self._open:
            raise TooDeepError(self._where(), "it contains itself")
        if len(self._open) == MAX_DEPTH:
            raise TooDeepError(self._where(), f"nested deeper than {MAX_DEPTH} levels")
        parts = self._parts(kind, value)
        self._open.add(id(value))
        trees = []
        for step, child in zip(parts.steps, parts.children, strict=True):
            if type(child) is str and child.isascii():
                trees.append(child)
                continue
            self._path.append(step)
            trees.append(self.tree(child))
            self._path.pop()
        self._open.discard(id(value))
        return parts.close(trees)

    def _atom(self, kind: type, value: Any) -> Any:
        try:
            return _ATOMS[kind](value)
        except _RefusedError as refused:
            raise UnserializableError(self._where(), str(refused)) from None

    def _array(self, value: Any) -> Any:
        try:
            *about, data = array_parts(value)
        except TypeError as error:
            raise UnserializableError(self._where(), str(error)) from None
        return _tagged(ARRAY, [*about, b64encode(data).decode()])

    def _parts(self, kind: type, value: Any) -> _Parts:
        if kind is dict:
            return self._dict_parts(value)
        if kind in _CLOSERS:
            items = list(value)
            return _Parts(range(len(items)), items, _CLOSERS[kind])
        if kind in self._registered:
            return self._registered_parts(*self._registered[kind], value)
        tag = self._tag(kind)
        if is_model_type(kind):
            parts = [*model_parts(value, self._where())]
            return _Parts([_Inside()] * len(parts), parts, lambda trees: _tagged(tag, trees))
        return self._dataclass_parts(tag, value)

    def _dict_parts(self, value: dict[Any, Any]) -> _Parts:
        pairs = list(value.items())  # at once: another thread may be changing it
        keys = [key for key, _ in pairs]
        if _are_json_keys(keys):
            for key in keys:
                self._atom(str, key)
            return _Parts(keys, [child for _, child in pairs], lambda trees: dict(zip(keys, trees, strict=True)))
        steps = [step for index, key in enumerate(keys) for step in (_Inside(index), key)]
        return _Parts(steps, list(chain.from_iterable(pairs)), lambda trees: _tagged("dict", trees))

    def _registered_parts(self, tag: str, encode: Callable[[Any], Any], value: Any) -> _Parts:
        try:
            inner = encode(value)
        except Exception as error:
            raise UnserializableError(
                self._where(), f"the function registered for {tag!r} failed: {error!r}"
            ) from error
        return _Parts([_Inside()], [inner], lambda trees: _tagged(tag, trees[0]))

    def _dataclass_parts(self, tag: str, value: Any) -> _Parts:
        fields = dataclass_fields(value, self._where())
        return _Parts(
            fields,
            list(fields.values()),
            lambda trees: _tagged(tag, dict(zip(fields, trees, strict=True))),
        )

    def _tag(self, kind: type) -> str:
        if kind not in self._tags:
            tag = type_tag(kind)
            if tag is None:
                raise UnserializableError(self._where(), _how_to_support(kind))
            self._tags[kind] = tag
        return self._tags[kind]

    def _where(self) -> str:
        return self._root + "".join(map(_step, self._path))


def _step(step: Any) -> str:
    """An index or a key in a path: never the whole of something long, and no code of a key's class runs."""
    if type(step) is str:
        return f".{step}" if step.isidentifier() else f"[{step[:40]!r}]"
    if type(step) is int and -_INT64 <= step < _INT64:
        return f"[{step}]"
    if type(step) is _Inside:
        return "" if step.index is None else f".keys()[{step.index}]"
    return f"[<{type(step).__name__}>]"


def _how_to_support(kind: type) -> str:
    name = kind.__qualname__
    if is_storable_type(kind):
        return f"{tag_of(kind)} is not found by that name; define it at a module's top level, or register({name}, tag)"
    if is_secret_type(kind):
        return "secrets are not stored; keep them elsewhere, and here no more than their names"
    shown = name if kind.__module__ == "builtins" else tag_of(kind)
    return f"{shown} is not supported; store plain data instead, or register({name}, tag, encode, decode)"


def _own_form(cls: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if not is_storable_type(cls):
        _refuse_to_register(f"{cls.__qualname__} is no enum, model or plain dataclass: give encode and decode")
    if issubclass(cls, Enum):
        return enum_key, lambda key: rebuild_enum(cls, key)
    if is_model_type(cls):
        return lambda model: [*model_parts(model)], lambda parts: rebuild_model(cls, ModelParts(*parts))
    return dataclass_fields, lambda fields: rebuild_dataclass(cls, fields)


def _refuse_to_register(why: str) -> NoReturn:
    raise InvalidInputError(why)


def _tagged(tag: str, value: Any) -> dict[str, Any]:
    return {_TAG: tag, "value": value}


def _text_tree(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            why = "a string with a lone surrogate has no UTF-8 form; clean it first"
            raise _RefusedError(why) from None
    return value


def _int_tree(value: int) -> Any:
    return value if -_MAX_DECIMAL_INT < value < _MAX_DECIMAL_INT else _tagged("int", hex(value))


def _float_tree(value: float) -> Any:
    if math.isfinite(value):
        return value
    bits = struct.pack(">d", value)
    return _tagged("float", bits.hex() if math.isnan(value) and bits != _NAN_BITS else str(value))


def _moment_tree(value: datetime | time) -> dict[str, Any]:
    zone = value.tzinfo
    in_iso = zone is None or _is_in_iso(zone)  # else it may be somebody's class: print the rest without asking it
    tree = _tagged(type(value).__name__, (value if in_iso else value.replace(tzinfo=None)).isoformat())
    if zone is not None and not in_iso:
        tree["tz"] = _zone_tree(zone)
    if value.fold:
        tree["fold"] = 1
    return tree


def _is_in_iso(zone: tzinfo) -> bool:
    """Whether an offset of hours and minutes says all of `zone`; Python misreads finer ones in some times."""
    return type(zone) is timezone and not zone.utcoffset(None) % _MINUTE and not _has_own_name(zone)


def _has_own_name(zone: timezone) -> bool:
    return zone.tzname(None) != timezone(zone.utcoffset(None)).tzname(None)


def _zone_tree(zone: tzinfo) -> dict[str, Any]:
    if type(zone) is ZoneInfo and zone.key:
        return _tagged("zoneinfo", _text_tree(zone.key))
    if type(zone) is timezone:
        name = [_text_tree(zone.tzname(None))] if _has_own_name(zone) else []
        return _tagged("timezone", _days_seconds_microseconds(zone.utcoffset(None)) + name)
    why = f"time zone {tag_of(type(zone))} is not supported; use datetime.timezone, or zoneinfo.ZoneInfo with a key"
    raise _RefusedError(why)


def _days_seconds_microseconds(value: timedelta) -> list[Any]:
    return [value.days, value.seconds, value.microseconds]


def _set_closer(tag: str) -> Callable[[list[Any]], Any]:
    return lambda trees: _tagged(tag, sorted(trees, key=_dump))


_NAN_BITS: Final = struct.pack(">d", math.nan)
_ATOMS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _int_tree,
    float: _float_tree,
    str: _text_tree,
    bytes: lambda value: _tagged("bytes", b64encode(value).decode()),
    bytearray: lambda value: _tagged("bytearray", b64encode(value).decode()),
    datetime: _moment_tree,
    time: _moment_tree,
    date: lambda value: _tagged("date", value.isoformat()),
    timedelta: lambda value: _tagged("timedelta", _days_seconds_microseconds(value)),
    timezone: _zone_tree,
    ZoneInfo: _zone_tree,
    uuid.UUID: lambda value: _tagged("uuid", str(value)),
    Decimal: lambda value: _tagged("decimal", _DECIMALS.to_sci_string(value)),
}
_CLOSERS: Final[dict[type, Callable[[list[Any]], Any]]] = {
    list: lambda trees: trees,
    tuple: lambda trees: _tagged("tuple", trees),
    set: _set_closer("set"),
    frozenset: _set_closer("frozenset"),
}
_SUPPORTED: Final = frozenset({dict, *_ATOMS, *_CLOSERS})


# --- reading --------------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


_PLAIN_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def _spare_the_stack(data: bytes) -> None:
    """Fail as Python would, where its recursion limit was set so high that it no longer guards the C stack."""
    if sys.getrecursionlimit() > _SAFE_RECURSION and _is_too_deep(bytes(data)):
        raise RecursionError


def _is_too_deep(data: bytes) -> bool:
    """Whether the JSON nests deeper than `encode` ever does. Costs about as much as parsing, but no stack."""
    without_escapes = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(without_escapes.split(b'"')[::2])
    brackets = outside_strings.translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0) > _MAX_JSON_DEPTH


def _items(node: dict[str, Any]) -> list[Any]:
    items = node["value"]
    if type(items) is not list:
        msg = "its value must be a list"
        raise TypeError(msg)
    return items


def _rebuild(cls: type, value: Any) -> Any:
    if issubclass(cls, Enum):
        return rebuild_enum(cls, value)
    if is_model_type(cls):
        return rebuild_model(cls, ModelParts(*value))
    if type(value) is not dict:
        raise CorruptionError(_WHERE, f"the fields of {tag_of(cls)} must be an object")
    return rebuild_dataclass(cls, value)


def _read_float(node: dict[str, Any]) -> float:
    text = node["value"]
    if text in ("nan", "inf", "-inf"):
        return float(text)
    (value,) = struct.unpack(">d", bytes.fromhex(text))
    if not math.isnan(value):
        msg = "a finite float needs no tag"
        raise ValueError(msg)
    return float(value)


def _read_dict(node: dict[str, Any]) -> dict[Any, Any]:
    items = _items(node)
    return dict(zip(items[::2], items[1::2], strict=True))


def _read_moment(moment: Any, node: dict[str, Any]) -> Any:
    return moment.replace(tzinfo=node.get("tz", moment.tzinfo), fold=node.get("fold", 0))


def _read_zone(node: dict[str, Any]) -> ZoneInfo:
    key = node["value"]
    try:
        return ZoneInfo(key)
    except (LookupError, OSError, ValueError) as error:
        hint = f"this machine does not know {key!r:.80}; install tzdata"
        raise UnknownTypeError(node[_TAG], hint) from error


def _read_timezone(node: dict[str, Any]) -> timezone:
    days, seconds, microseconds, *name = _items(node)
    return timezone(timedelta(days, seconds, microseconds), *name)


def _read_array(dtype: str, shape: list[int] | None, by_columns: bool, data: str) -> Any:
    return rebuilt_array(dtype, shape, by_columns, b64decode(data, validate=True))


_READERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "float": _read_float,
    "int": lambda node: int(node["value"], 16),
    "bytes": lambda node: b64decode(node["value"], validate=True),
    "bytearray": lambda node: bytearray(b64decode(node["value"], validate=True)),
    "tuple": lambda node: tuple(_items(node)),
    "set": lambda node: set(_items(node)),
    "frozenset": lambda node: frozenset(_items(node)),
    "dict": _read_dict,
    "datetime": lambda node: _read_moment(datetime.fromisoformat(node["value"]), node),
    "time": lambda node: _read_moment(time.fromisoformat(node["value"]), node),
    "date": lambda node: date.fromisoformat(node["value"]),
    "timedelta": lambda node: timedelta(*_items(node)),
    "timezone": _read_timezone,
    "zoneinfo": _read_zone,
    "uuid": lambda node: uuid.UUID(node["value"]),
    "decimal": lambda node: Decimal(node["value"], _DECIMALS),
    ARRAY: lambda node: _read_array(*_items(node)),
}
_HOLDERS: Final = frozenset({"set", "frozenset", "dict", "datetime", "time"})  # readers that put one value into another
