"""Values to bytes and back: msgpack, with a type tag wherever msgpack itself would lose the type.

Owns the bytes of a value. It never imports what data names, never runs a stored type's own code, and keeps no state but
the table of registered types. Equal bytes mean equal values (same types at every depth, same dict order, same float
bits); sets are written in the order of their members' bytes, so that this holds for them too.

A value that is not msgpack's own is an extension, or, where it holds other values, an array that begins with an empty
extension, its mark. So all nesting is msgpack's, which reads it without recursion.

```
 code  payload                                          code  array after the mark
    4  int beyond 64 bits: signed, big-endian, shortest    1  tuple: the items
    5  bytearray: the bytes                                2  set: the items, sorted by their bytes
    6  datetime: msgpack [ISO 8601, fold, zone]            3  frozenset: as set
    7  date: ISO 8601                                     12  enum: type tag, member name or flag bits
    8  time: as datetime                                  13  dataclass: type tag, {field: value}
    9  timedelta: msgpack [days, seconds, microseconds]   14  registered: tag, what its `encode` returned
   10  UUID: 16 bytes                                     16  model of pydantic's: type tag, then its `ModelParts`
   11  Decimal: its string
   15  numpy: msgpack [dtype, shape, by columns, bytes]
```

A zone is nil, [offset in microseconds, name], or an IANA key.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
import zoneinfo
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar, cast

import msgpack

from eventlog.arrays import ARRAY, array_parts, is_array_type, rebuilt_array
from eventlog.errors import (
    CorruptionError,
    EventLogError,
    InvalidInputError,
    TooDeepError,
    UnknownTypeError,
    UnserializableError,
)
from eventlog.types import (
    ModelParts,
    dataclass_fields,
    enum_key,
    held_by_model,
    is_model_type,
    is_secret_type,
    model_parts,
    rebuild_dataclass,
    rebuild_enum,
    rebuild_model,
    resolve_type,
    type_tag,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    T = TypeVar("T")

MAX_DEPTH: Final = 200
"""Containers within containers. Source: reliability bounds; far above real states, far below any C stack."""

SET_DEPTH: Final = 9
"""A set counts as ten containers: putting its members in order takes real recursion."""

_TUPLE, _SET, _FROZENSET, _INT, _BYTEARRAY, _DATETIME, _DATE, _TIME, _TIMEDELTA = range(1, 10)
_UUID, _DECIMAL, _ENUM, _DATACLASS, _REGISTERED, _ARRAY, _MODEL = range(10, 17)

_INT64: Final = 1 << 63
_SCALARS: Final[frozenset[type]] = frozenset({int, float, str, bytes, bool, type(None)})
_HASHABLE_LEAVES: Final = frozenset({dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, Decimal})
IMMUTABLE: Final = _SCALARS | _HASHABLE_LEAVES
"""Types whose values can never change in place, so that the same object is the same value."""


class Codec(Protocol):
    """Turns values into bytes and back. A run is written and read with one codec, which its first event names.

    One that does not write which fields of a pydantic model were set says so by an attribute ``keeps_given = False``:
    then nobody looks whether that changed. One that reads many values sooner together than one after the other may have
    a method ``decode_all``, as `decoded_all` calls it.
    """

    @property
    def name(self) -> str:
        """Identifies the byte format for ever, for example ``"msgpack/1"``."""

    def encode(self, value: Any, path: str = "value") -> bytes:
        """The bytes of `value`; never keeps a reference to it.

        Raises:
            UnserializableError: it could not be read back equal; names the place, which begins with `path`.
        """

    def decode(self, data: bytes) -> Any:
        """A new value, equal to the one encoded.

        Raises:
            UnknownTypeError: a type tag that nothing here can decode.
            CorruptionError: not bytes of this codec.
        """


class PlainCodec(Codec, Protocol):
    """A codec that writes values of some types in one call that cannot run anybody's code."""

    @property
    def plain(self) -> frozenset[type]:
        """Those types, exactly."""

    @property
    def encode_plain(self) -> Callable[[Any], bytes]:
        """Does for them as `encode`, but raises what it likes where that would look closer."""


class SealedCodec(Codec, Protocol):
    """A codec whose bytes nobody reads without a key, and are others each time that the same value is encoded.

    Nothing is found out by such bytes, so what changed is found by those of `unsealed`, which stay in memory; what is
    stored is sealed: a value, or a change as one piece, so that not even the keys of a dict show.
    """

    @property
    def unsealed(self) -> Codec:
        """Turns the same values into the bytes that are to be sealed: the same for equal values."""

    def seal(self, data: bytes) -> bytes:
        """What is stored of such bytes; `encode` is this of what `unsealed` encodes."""

    def opened(self, data: bytes) -> bytes:
        """What was sealed.

        Raises:
            CorruptionError: it was not sealed with this key, or not at all.
        """


class _Registration:
    __slots__ = ("decode", "encode", "tag")

    def __init__(self, tag: str, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
        self.tag = tag
        self.encode = encode
        self.decode = decode


_COLLECTION_TYPES: Final = (list, dict, tuple, set, frozenset, bytearray)
_by_type: dict[type, _Registration] = {}
_by_tag: dict[str, _Registration] = {}


def register(cls: type[T], tag: str, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
    """Let values of exactly `cls` be written, under `tag`, in this process.

    `encode` turns one into values the log knows already; `decode` turns those back. A process that reads them must
    register the same tag first. Registering the same class and tag again replaces the functions.

    Raises:
        InvalidInputError: the tag is empty or belongs to another class, or the class is one the log knows already.
    """
    if not isinstance(cls, type) or cls in IMMUTABLE or cls in _WRITERS or cls in _COLLECTION_TYPES:
        msg = f"{cls!r} cannot be registered: give a class of your own"
        raise InvalidInputError(msg)
    if not isinstance(tag, str) or not tag:
        msg = f"a type tag is a non-empty string, not {tag!r}"
        raise InvalidInputError(msg)
    if any(other.tag == tag and known is not cls for known, other in _by_type.items()):
        msg = f"the tag {tag!r} belongs to another class: choose another one"
        raise InvalidInputError(msg)
    unregister(cls)
    _by_type[cls] = _by_tag[tag] = _Registration(tag, encode, decode)


def unregister(cls: type) -> None:
    """Forget `cls`; values of it that are stored stay, and read as an unknown tag. Unknown classes are ignored."""
    registration = _by_type.pop(cls, None)
    if registration is not None:
        del _by_tag[registration.tag]


# --- writing -------------------------------------------------------------------------------------------------------

_pack_scalar = msgpack.Packer(strict_types=True).pack
# One shared packer is safe for scalars only: packing a container may run other Python code midway (the collector's,
# a hook's), and a packer that is entered twice mixes up its buffer. Containers get a packer each.


def _pack(value: Any) -> bytes:
    return msgpack.packb(value, strict_types=True, default=_to_extension)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether msgpack alone writes `value` without loss, or hands what it cannot to the hook.

    msgpack writes bytearray, memoryview and its own extension objects without asking the hook; they make it False.
    Raises `_DeepError` past the limit.
    """
    cls = type(value)
    if cls in IMMUTABLE:
        return True
    if depth >= MAX_DEPTH:
        raise _DeepError
    if cls is dict:
        if not _SCALARS.issuperset(map(type, value)) and not all(_is_plain(key, depth + 1) for key in value):
            return False
        items = value.values()
    elif cls in (list, tuple):
        items = value
    elif cls in (set, frozenset):
        items, depth = value, depth + SET_DEPTH
    elif dataclasses.is_dataclass(cls) and cls not in _by_type:
        items = dataclass_fields(value).values()
    elif _is_model(cls) and cls not in _by_type:
        fields, _, *beside = model_parts(value)
        items = [*fields.values(), *beside]
    else:
        return cls not in (bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp)
    return _SCALARS.issuperset(map(type, items)) or all(_is_plain(item, depth + 1) for item in items)


class _DeepError(Exception):
    pass


def _shielded(value: Any) -> Any:
    """`value` with what msgpack would write too readily put into extensions by hand."""
    cls = type(value)
    if cls in _SCALARS or (cls is tuple and _SCALARS.issuperset(map(type, value))):
        return value
    if cls is bytearray:
        return msgpack.ExtType(_BYTEARRAY, bytes(value))
    if cls in (memoryview, msgpack.ExtType, msgpack.Timestamp):
        _refuse(value)
    if cls is list:
        return [_shielded(item) for item in value]
    if cls is dict:
        return {_shielded(key): _shielded(item) for key, item in value.items()}
    if cls is tuple:
        return _Shielded([_MARKS[_TUPLE], *map(_shielded, value)])
    if cls in (set, frozenset):
        return _Shielded([_MARKS[_SET if cls is set else _FROZENSET], *_sorted(map(_shielded, value))])
    if dataclasses.is_dataclass(cls) and cls not in _by_type:
        fields = {name: _shielded(item) for name, item in dataclass_fields(value).items()}
        return _Shielded([_MARKS[_DATACLASS], _tag_of(value), fields])
    if _is_model(cls) and cls not in _by_type:
        return _Shielded([_MARKS[_MODEL], _tag_of(value), *map(_shielded, model_parts(value))])
    return value


_is_model = cast("Callable[[type], bool]", lru_cache(1024)(is_model_type))


class _Shielded:
    """A marked array that may stand for a dict's key: hashable, by identity."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items


_MARKS: Final = {code: msgpack.ExtType(code, b"") for code in range(1, 17)}


def _refuse(value: Any) -> NoReturn:
    if is_secret_type(type(value)):
        msg = "secrets are not stored; keep them elsewhere, and here no more than their names"
        raise TypeError(msg)
    msg = f"values of {_name(type(value))} are not supported; register the type, or store what it is made of"
    raise TypeError(msg)


def _name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _zone(tz: dt.tzinfo | None) -> Any:
    if tz is None:
        return None
    if type(tz) is dt.timezone:
        return [tz.utcoffset(None) // dt.timedelta(microseconds=1), tz.tzname(None)]
    if type(tz) is zoneinfo.ZoneInfo and tz.key:
        return tz.key
    msg = f"time zones of {_name(type(tz))} are not supported; use datetime.timezone or zoneinfo.ZoneInfo"
    raise TypeError(msg)


def _sorted(members: Iterable[Any]) -> list[Any]:
    return sorted(members, key=_pack)


def _iso(value: dt.datetime | dt.time) -> bytes:
    return msgpack.packb([value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value.tzinfo)])


_WRITERS: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    int: (_INT, lambda value: value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)),
    dt.datetime: (_DATETIME, _iso),
    dt.date: (_DATE, lambda value: value.isoformat().encode()),
    dt.time: (_TIME, _iso),
    dt.timedelta: (_TIMEDELTA, lambda value: msgpack.packb([value.days, value.seconds, value.microseconds])),
    uuid.UUID: (_UUID, lambda value: value.bytes),
    Decimal: (_DECIMAL, lambda value: str(value).encode()),
}


def _to_extension(value: Any) -> Any:
    """What msgpack is to write for a value that it does not know."""
    cls = type(value)
    if writer := _WRITERS.get(cls):
        return msgpack.ExtType(writer[0], writer[1](value))
    if cls is tuple:
        return [_MARKS[_TUPLE], *value]
    if cls is set or cls is frozenset:
        members = value if _SCALARS.issuperset(map(type, value)) else map(_shielded, value)  # none is sorted again
        return [_MARKS[_SET if cls is set else _FROZENSET], *_sorted(members)]
    if cls is _Shielded:
        return value.items
    if registration := _by_type.get(cls):
        return [_MARKS[_REGISTERED], registration.tag, _nested(_encoded(registration, value))]
    if isinstance(value, enum.Enum):
        return [_MARKS[_ENUM], _tag_of(value), enum_key(value)]
    if dataclasses.is_dataclass(cls):
        return [_MARKS[_DATACLASS], _tag_of(value), dataclass_fields(value)]
    if _is_model(cls):
        return [_MARKS[_MODEL], _tag_of(value), *model_parts(value)]
    if is_array_type(cls):
        return msgpack.ExtType(_ARRAY, msgpack.packb(array_parts(value)))
    _refuse(value)


def _encoded(registration: _Registration, value: Any) -> Any:
    try:
        return registration.encode(value)
    except Exception as error:  # whatever a user's function raises
        raise TypeError(f"the encoder of {registration.tag!r} failed: {type(error).__name__}: {error}") from error


def _nested(value: Any) -> Any:
    return value if _is_plain(value, 0) else _shielded(value)


def _tag_of(value: Any) -> str:
    tag = type_tag(type(value))
    if tag is None:
        msg = (
            f"{_name(type(value))} cannot be found again by its name; define it at a module's top level, "
            f"or call eventlog.register({type(value).__name__}, tag, encode, decode)"
        )
        raise TypeError(msg)
    return tag


def encode(value: Any, path: str = "value") -> bytes:
    """The bytes of `value`.

    Raises:
        UnserializableError: it could not be read back equal; names the place, which begins with `path`.
        TooDeepError: nested deeper than 200, or a container within itself.
    """
    try:
        if type(value) in _SCALARS and (type(value) is not int or -_INT64 <= value < _INT64):
            return _pack_scalar(value)
        return _pack(value if _is_plain(value, 0) else _shielded(value))
    except (TypeError, ValueError, OverflowError, _DeepError, RecursionError) as error:
        raise _explained(value, path, error) from None


def _explained(value: Any, path: str, error: Exception) -> UnserializableError:
    """The error at the innermost place that cannot be written alone."""
    if isinstance(error, _DeepError | RecursionError) or "recursion limit" in str(error):
        return TooDeepError(path, f"nested deeper than {MAX_DEPTH}, or contains itself")
    if isinstance(error, UnicodeEncodeError):
        error = ValueError("a string with a lone surrogate has no UTF-8 form; clean it first")
    for step, item in held_in(value):
        try:
            _pack(item if _is_plain(item, 0) else _shielded(item))
        except (TypeError, ValueError, OverflowError, _DeepError, RecursionError) as inner:
            return _explained(item, path + step, inner)
    why = str(error).removeprefix(f"{error.path}: ") if isinstance(error, UnserializableError) else str(error)
    return UnserializableError(path, why)


def held_in(value: Any) -> list[tuple[str, Any]]:
    """What a value holds, each with its step of a path; nothing of one that holds nothing, or is of no known type."""
    if type(value) is dict:
        keys = [(f" (key of type {_name(type(key))})", key) for key in value]
        return keys + [(step_to(key), item) for key, item in value.items()]
    if type(value) in (list, tuple):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if type(value) in (set, frozenset):
        return [(f"{{{_name(type(item))}}}", item) for item in value]
    if dataclasses.is_dataclass(type(value)) and type(value) not in _by_type:
        try:
            return [(f".{name}", item) for name, item in dataclass_fields(value).items()]
        except UnserializableError:
            return []
    if _is_model(type(value)) and type(value) not in _by_type:
        return [(f".{name}", item) for name, item in held_by_model(value).items()]
    return []


def step_to(key: Any) -> str:
    """A key as part of a path: short, and without running code of the key's class."""
    if type(key) is str:
        return f".{key[:_SHOWN]}"
    is_shown = type(key) in _SCALARS and (type(key) is not int or -_INT64 <= key < _INT64)  # Python writes no huge ones
    return f"[{key!r:.{_SHOWN}}]" if is_shown else f"[{_name(type(key))}]"


_SHOWN: Final = 40


# --- reading -------------------------------------------------------------------------------------------------------


class _Mark:
    """Stands, while an array is read, for the empty extension at its beginning."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


_READ_MARKS: Final = {code: _Mark(code) for code in (_TUPLE, _SET, _FROZENSET, _ENUM, _DATACLASS, _REGISTERED, _MODEL)}


def _from_extension(code: int, data: bytes) -> Any:
    if not data and code in _READ_MARKS:
        return _READ_MARKS[code]
    if code in _BYTES_READERS:
        return _BYTES_READERS[code](data)
    if code in _ITEM_READERS:
        return _ITEM_READERS[code](*msgpack.unpackb(data))
    raise UnknownTypeError(f"msgpack extension {code}", "written by something else, or by a newer release")


def _tz(zone: Any) -> dt.tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return zoneinfo.ZoneInfo(zone)
    offset = dt.timedelta(microseconds=zone[0])
    plain = dt.timezone(offset)
    return plain if plain.tzname(None) == zone[1] else dt.timezone(offset, zone[1])


def _read_datetime(iso: str, fold: int, zone: Any) -> dt.datetime:
    return dt.datetime.fromisoformat(iso).replace(fold=fold, tzinfo=_tz(zone))


def _read_time(iso: str, fold: int, zone: Any) -> dt.time:
    return dt.time.fromisoformat(iso).replace(fold=fold, tzinfo=_tz(zone))


def _read_enum(tag: str, name: str | int) -> Any:
    cls = resolve_type(tag)
    if cls is None or not issubclass(cls, enum.Enum):
        raise UnknownTypeError(tag, "import the module that defines this enum before reading")
    return rebuild_enum(cls, name)


def _read_dataclass(tag: str, fields: dict[str, Any]) -> Any:
    cls = resolve_type(tag)
    if cls is None or not dataclasses.is_dataclass(cls):
        raise UnknownTypeError(tag, "import the module that defines this dataclass before reading")
    return rebuild_dataclass(cls, fields)


def _read_model(tag: str, *parts: Any) -> Any:
    cls = resolve_type(tag)
    if cls is None or not is_model_type(cls):
        raise UnknownTypeError(tag, "import the module that defines this model before reading")
    return rebuild_model(cls, ModelParts(*parts))


def _read_registered(tag: str, value: Any) -> Any:
    if tag not in _by_tag:
        raise UnknownTypeError(tag, "call eventlog.register(cls, tag, encode, decode) before reading")
    try:
        return _by_tag[tag].decode(value)
    except EventLogError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise CorruptionError(f"a value of type {tag!r}", f"its decoder failed: {error}") from error


_BYTES_READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _BYTEARRAY: bytearray,
    _DATE: lambda data: dt.date.fromisoformat(data.decode()),
    _UUID: lambda data: uuid.UUID(bytes=data),
    _DECIMAL: lambda data: Decimal(data.decode()),
}
_ITEM_READERS: Final[dict[int, Callable[..., Any]]] = {
    _DATETIME: _read_datetime,
    _TIME: _read_time,
    _TIMEDELTA: dt.timedelta,
    _ARRAY: rebuilt_array,
}
_TYPED_READERS: Final[dict[int, Callable[..., Any]]] = {
    _ENUM: _read_enum,
    _DATACLASS: _read_dataclass,
    _REGISTERED: _read_registered,
    _MODEL: _read_model,
}
_COLLECTIONS: Final[dict[int, Callable[[list[Any]], Any]]] = {_TUPLE: tuple, _SET: set, _FROZENSET: frozenset}


def _from_array(items: list[Any]) -> Any:
    """What a marked array stands for; any other array is a list."""
    if not items or type(items[0]) is not _Mark:
        return items
    code = items[0].code
    if code in _COLLECTIONS:
        return _COLLECTIONS[code](items[1:])
    return _TYPED_READERS[code](*items[1:])


class Tagged(dict[str, Any]):
    """A value of somebody's own class, shown without the class: ``{"$type": tag, "value": ...}``.

    Hashable, by identity, because it may stand for a dict's key.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]


def _from_array_inertly(items: list[Any]) -> Any:
    """As `_from_array`, but a value of somebody's own class stays a plain dict that names it."""
    if not items or type(items[0]) is not _Mark:
        return items
    code = items[0].code
    if code not in _COLLECTIONS:
        tag, value, *beside = items[1:]
        parts = zip(ModelParts._fields[1:], beside, strict=False)
        return Tagged({"$type": tag, "value": value, **{name: part for name, part in parts if part is not None}})
    return tuple(items[1:])  # members may be dicts now, which no set can hold


def _from_extension_inertly(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        return _from_extension(code, data)
    dtype, shape, by_columns, value = msgpack.unpackb(data)
    return Tagged({"$type": ARRAY, "value": value, "dtype": dtype, "shape": shape, "by_columns": by_columns})


_ACTIVE: Final = (_from_array, _from_extension)
_INERT: Final = (_from_array_inertly, _from_extension_inertly)


_unpack: Final = msgpack.unpackb
_MARK_BYTES: Final = b"\xc7\x00"
"""How an empty extension begins."""
_SCALAR_HEADS: Final = frozenset(range(256)) - {
    *range(0x80, 0xA0),
    0xC1,
    *range(0xC7, 0xCA),
    *range(0xD4, 0xD9),
    *range(0xDC, 0xE0),
}
"""First bytes of msgpack's strings, bytes and numbers, of None and of booleans: those hold nothing else."""


def decode(data: bytes) -> Any:
    """A new value from the bytes of `encode`.

    Raises:
        UnknownTypeError: a type tag that nothing in this process decodes.
        CorruptionError: not bytes of `encode`.
    """
    return MSGPACK.decode(data)


_SMALL: Final = frozenset({float, bool, type(None)})
"""Types whose every value is written at once, without a look at its size or its text."""


class MsgpackCodec:
    """The engine's own codec; `inert` never touches anybody's classes, for tools that only show what is there."""

    name = "msgpack/1"
    plain: frozenset[type] = _SCALARS

    @property
    def encode_plain(self) -> Callable[[Any], bytes]:
        """See `PlainCodec`."""
        return _pack_scalar

    def __init__(self, *, inert: bool = False) -> None:
        self._readers = _INERT if inert else _ACTIVE

    def encode(self, value: Any, path: str = "value") -> bytes:
        """See `encode`."""
        if type(value) in _SMALL or (type(value) is int and -_INT64 <= value < _INT64):
            return _pack_scalar(value)
        return encode(value, path)

    def decode(self, data: bytes) -> Any:
        """See `decode`."""
        from_array, from_extension = self._readers
        try:
            if data[0] in _SCALAR_HEADS:
                return _unpack(data)
            has_mark = _MARK_BYTES[0] in data and _MARK_BYTES in data  # one byte is found ten times as fast as two
            hook = from_array if has_mark else None  # most values hold no marked array, and a hook costs
            return _unpack(data, strict_map_key=False, ext_hook=from_extension, list_hook=hook)
        except EventLogError:
            raise
        except Exception as error:  # damaged bytes make readers of all kinds fail in all ways
            raise CorruptionError("a stored value", f"not the bytes of a value ({error})") from error

    def decode_all(self, payloads: Sequence[bytes]) -> list[Any]:
        """See `decoded_all`."""
        if sum(map(len, payloads)) > _SMALL_BYTES * len(payloads):  # then their bytes are what costs, not the calls
            return [*map(self.decode, payloads)]
        found: list[Any] = []
        for first in range(0, len(payloads), _AT_ONCE):
            some = payloads[first : first + _AT_ONCE]
            found += self.decode(b"".join([b"\xdd", len(some).to_bytes(4, "big"), *some]))  # one array of them
        return found


_AT_ONCE: Final = 32
_SMALL_BYTES: Final = 1024
"""So many values of so many bytes in the mean are decoded by one call: they lie in the processor's cache."""

MSGPACK: Final = MsgpackCodec()


def decoded_all(payloads: Sequence[bytes], codec: Codec) -> list[Any]:
    """The values of which `codec` made those bytes, new ones, in order; raises as its ``decode``."""
    decode_all = getattr(codec, "decode_all", None)
    return [*map(codec.decode, payloads)] if decode_all is None else cast("list[Any]", decode_all(payloads))


_inert: dict[str, Codec] = {MSGPACK.name: MsgpackCodec(inert=True)}


def register_codec(inert: Codec) -> None:
    """Let tools show and verify runs of another codec: `inert` decodes its bytes without touching anybody's classes."""
    _inert[inert.name] = inert


def known_codec(name: str) -> Codec | None:
    """The inert codec of that name, None if nothing registered it."""
    return _inert.get(name)
