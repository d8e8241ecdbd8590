"""What changed: from values to operations, and back.

Owns the operations' bytes, how they are applied, and how they are found. Pure: values in, values out; the codec is
passed in.

An operation on a channel is a code and a payload, bytes of the run's codec:

```
 code  name     payload
    0  delete   empty
    1  set      the value               (4, 5, 6: the same, of a list, a dict, a string)
    2  extend   a list of the new items
    3  merge    a list of changes: key, code, payload, key, code, payload ...
    7  text     the string to append
```

In a merge a key that is a string stands as itself, any other one as the codec's bytes; the payload of a nested merge is
nested in place.

Detection is *sound*: a **shadow** keeps the structure of lists and dicts and, at the leaves, references to immutable
values; a leaf that could change in place is kept as a digest of its bytes. So a value that was changed in place, at any
depth, differs from its shadow, and an unchanged one costs one identity comparison per leaf.
"""

from __future__ import annotations

import enum
from itertools import islice
from operator import is_
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack
from xxhash import xxh3_128_digest

from eventlog.codec import IMMUTABLE, MAX_DEPTH, step_to
from eventlog.errors import InvalidInputError, TooDeepError, UnserializableError
from eventlog.events import AppendText, Delete, Extend, Merge
from eventlog.records import array, scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventlog.codec import Codec

DELETE, SET, EXTEND, MERGE, SET_LIST, SET_DICT, SET_TEXT, TEXT = range(8)
IN_PART: Final = 16
"""Flag on a code in an event: the payload stands in a part of its own, here stands its digest and size."""

SETS: Final = frozenset({SET, SET_LIST, SET_DICT, SET_TEXT})
_SET_OF: Final = {list: SET_LIST, dict: SET_DICT, str: SET_TEXT}
_BASE_OF: Final = {EXTEND: SET_LIST, MERGE: SET_DICT, TEXT: SET_TEXT}
_NOUN: Final = {SET: "no list, dict or string", SET_LIST: "a list", SET_DICT: "a dict", SET_TEXT: "a string"}
_MISSING: Final = object()


NO_SHADOW: Final = object()


class Write(NamedTuple):
    """One operation, ready to be recorded.

    Attributes:
        code: the operation.
        payload: its bytes.
        growth: bytes by which the channel's value grows, as far as that is known.
        accept: brings the shadow it was found against up to date; to be called once it is recorded.
        shadow: the shadow of the new value, where there was none to bring up to date; `NO_SHADOW` if none was made.
    """

    code: int
    payload: bytes
    growth: int = 0
    accept: Callable[[], object] | None = None
    shadow: Any = NO_SHADOW


# --- from what a caller says ------------------------------------------------------------------------------------


def set_to(value: Any, codec: Codec, path: str) -> Write:
    """Set the channel to `value`, whatever it was."""
    payload = codec.encode(value, path)
    return Write(_SET_OF.get(type(value), SET), payload, len(payload))


def from_operation(operation: Any, kind: int | None, codec: Codec, path: str) -> Write:
    """The write of an `Extend`, `AppendText`, `Merge` or `Delete`, on a channel last set by the code `kind` (or absent).

    Raises:
        InvalidInputError: the channel does not hold what the operation works on.
        UnserializableError: a value in it cannot be encoded.
    """
    if isinstance(operation, Delete):
        if kind is None:
            msg = f"{path}: there is no such channel to delete"
            raise InvalidInputError(msg)
        return Write(DELETE, b"")
    write = _encoded(operation, codec, path)
    if kind is None:
        return set_to(applied(_MISSING, write.code, write.payload, codec), codec, path)
    if _BASE_OF[write.code] != kind:
        msg = f"{path}: {type(operation).__name__} needs {_NOUN[_BASE_OF[write.code]]}, the channel holds {_NOUN[kind]}"
        raise InvalidInputError(msg)
    return write


def _encoded(operation: Any, codec: Codec, path: str, depth: int = 0) -> Write:
    if isinstance(operation, Extend):
        _check_argument(operation.items, (list, tuple), "Extend takes a list of items", path)
        payload = codec.encode(list(operation.items), path)
        _check_depth(operation.items, depth, path)
        return Write(EXTEND, payload, len(payload))
    if isinstance(operation, AppendText):
        _check_argument(operation.text, (str,), "AppendText takes a string", path)
        payload = codec.encode(operation.text, path)
        return Write(TEXT, payload, len(payload))
    if isinstance(operation, Merge):
        _check_argument(operation.changes, (dict,), "Merge takes a dict of changes", path)
        items = operation.changes.items()
        changes = [(key, _encoded(item, codec, _at(path, key), depth + 1)) for key, item in items]
        return Write(MERGE, _merge_payload(changes, codec, path))
    if isinstance(operation, Delete):
        return Write(DELETE, b"")
    write = set_to(operation, codec, path)
    _check_depth(operation, depth, path)
    return write


def _check_argument(argument: Any, types: tuple[type, ...], rule: str, path: str) -> None:
    if type(argument) not in types:
        msg = f"{path}: {rule}, not {type(argument).__name__}"
        raise InvalidInputError(msg)


def _check_depth(value: Any, depth: int, path: str) -> None:
    """Refuse a value that fits alone, but not where it goes: `depth` containers below the channel's top."""
    if depth and _height(value) + depth > MAX_DEPTH:
        raise TooDeepError(path, f"nested deeper than {MAX_DEPTH}")


def _height(value: Any) -> int:
    """Containers within containers; the codec has bounded it already."""
    items = value.values() if type(value) is dict else value if type(value) in (list, tuple) else None
    if items is None:
        return 0
    return 1 + max((_height(item) for item in items if type(item) not in IMMUTABLE), default=0)


def needs_value(operation: Any) -> bool:
    """Whether the operation is only right for some values of the channel: it works on something below the top."""
    return isinstance(operation, Merge) and any(
        isinstance(item, Extend | AppendText | Merge) for item in operation.changes.values()
    )


def check_fits(operation: Any, value: Any, path: str) -> None:
    """Refuse an operation that does not fit the value it is for, at any depth.

    Raises:
        InvalidInputError: names the place.
    """
    wanted = {Extend: list, AppendText: str, Merge: dict}.get(type(operation))
    if wanted is None or value is _MISSING:
        return
    if type(value) is not wanted:
        msg = f"{path}: {type(operation).__name__} needs a {wanted.__name__}, there is a {type(value).__name__}"
        raise InvalidInputError(msg)
    if isinstance(operation, Merge):
        for key, item in operation.changes.items():
            check_fits(item, value.get(key, _MISSING), _at(path, key))


def _at(path: str, key: Any) -> str:
    return f"{path}{step_to(key)}"


def _key_bytes(key: Any, codec: Codec, path: str) -> bytes:
    if type(key) is not str:
        return scalar(codec.encode(key, f"{path} (key)"))
    try:
        return scalar(key)
    except UnicodeEncodeError:
        raise UnserializableError(f"{path} (key)", "a lone surrogate has no UTF-8 form; clean it first") from None


def _merge_payload(changes: Iterable[tuple[Any, Write]], codec: Codec, path: str) -> bytes:
    items: list[bytes] = []
    for key, write in changes:
        nested = write.payload if write.code == MERGE else scalar(write.payload)
        items += (_key_bytes(key, codec, path), scalar(write.code), nested)
    return array(items)


# --- applying ---------------------------------------------------------------------------------------------------


def applied(value: Any, code: int, payload: bytes, codec: Codec) -> Any:
    """`value` after the operation; `value` belongs to the caller and may be changed in place."""
    if code in SETS:
        return codec.decode(payload)
    if code == EXTEND:
        value = [] if value is _MISSING else value
        value.extend(codec.decode(payload))
        return value
    if code == TEXT:
        return ("" if value is _MISSING else value) + codec.decode(payload)
    if code == MERGE:
        return _merged({} if value is _MISSING else value, msgpack.unpackb(payload), codec)
    msg = f"operation code {code}: written by a newer release; upgrade eventlog-savers"
    raise InvalidInputError(msg)


def _merged(value: dict[Any, Any], flat: list[Any], codec: Codec) -> dict[Any, Any]:
    for key, code, payload in _changes(flat, codec):
        if code == DELETE:
            value.pop(key, None)
        elif code == MERGE:
            value[key] = _merged(value.get(key, {}), payload, codec)
        else:
            value[key] = applied(value.get(key, _MISSING), code, payload, codec)
    return value


def _changes(flat: list[Any], codec: Codec) -> Iterable[tuple[Any, int, Any]]:
    for key, code, payload in zip(*[iter(flat)] * 3, strict=True):
        yield (key if type(key) is str else codec.decode(key)), code, payload


def to_operation(code: int, payload: Any, codec: Codec) -> Any:
    """What a caller would write to make this change: a value, or an operation."""
    if code in SETS:
        return codec.decode(payload)
    if code == DELETE:
        return Delete()
    if code == EXTEND:
        return Extend(codec.decode(payload))
    if code == TEXT:
        return AppendText(codec.decode(payload))
    flat = msgpack.unpackb(payload) if isinstance(payload, bytes) else payload
    return Merge({key: to_operation(inner, item, codec) for key, inner, item in _changes(flat, codec)})


# --- finding ----------------------------------------------------------------------------------------------------


class _List:
    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class _Dict:
    __slots__ = ("items",)

    def __init__(self, items: dict[Any, Any]) -> None:
        self.items = items


class _Leaf:
    __slots__ = ("digest",)

    def __init__(self, digest: bytes) -> None:
        self.digest = digest


def shadow_of(value: Any, codec: Codec, path: str = "value") -> Any:
    """What `value` is to be compared with later; holds no container or other mutable object of the caller's."""
    cls = type(value)
    if cls in IMMUTABLE:
        return value
    if cls is list:
        return _List([item if type(item) in IMMUTABLE else shadow_of(item, codec, path) for item in value])
    if cls is dict:
        return _Dict(
            {key: item if type(item) in IMMUTABLE else shadow_of(item, codec, path) for key, item in value.items()}
        )
    if isinstance(value, enum.Enum) or (cls is tuple and IMMUTABLE.issuperset(map(type, value))):
        return value
    return _Leaf(xxh3_128_digest(codec.encode(value, path)))


def difference(shadow: Any, value: Any, codec: Codec, path: str, depth: int = 0) -> Write | None:
    """The smallest write that this finds from what `shadow` was made of to `value`; None if they are equal.

    Never larger than setting the value. Costs one comparison per leaf, and encodes only what changed.

    Raises:
        UnserializableError: a changed value cannot be encoded.
    """
    cls = type(value)
    if cls is list and type(shadow) is _List:
        return _list_difference(shadow, value, codec, path, depth)
    if cls is dict and type(shadow) is _Dict:
        return _dict_difference(shadow, value, codec, path, depth)
    if _same(shadow, value, codec, path):
        return None
    if cls is str and type(shadow) is str and 0 < len(shadow) < len(value) and value.startswith(shadow):
        payload = codec.encode(value[len(shadow) :], path)
        return Write(TEXT, payload, len(payload), shadow=value)
    return first_set(value, codec, path, depth)


def first_set(value: Any, codec: Codec, path: str, depth: int = 0) -> Write:
    """The write that sets a channel, or an entry `depth` containers below its top, with the shadow to keep."""
    write = set_to(value, codec, path)  # first: it refuses what is too deep for a shadow
    _check_depth(value, depth, path)
    return write._replace(shadow=shadow_of(value, codec, path))


def _same(shadow: Any, value: Any, codec: Codec, path: str) -> bool:
    """Whether `value` equals what `shadow` was made of: same types at every depth, same order, same float bits."""
    if shadow is value:
        return True
    cls = type(value)
    if cls is list:
        return type(shadow) is _List and len(shadow.items) == len(value) and _same_items(shadow, value, codec, path)
    if cls is dict:
        return type(shadow) is _Dict and _same_entries(shadow, value, codec, path)
    if type(shadow) is _Leaf:
        return cls not in IMMUTABLE and bool(xxh3_128_digest(codec.encode(value, path)) == shadow.digest)
    if cls is not type(shadow):
        return False
    if cls in _EXACT:
        return bool(shadow == value)
    return codec.encode(shadow, path) == codec.encode(value, path)


_EXACT: Final = frozenset({str, bytes, int, bool, type(None)})
"""Types for which ``==`` between two of the same type is equality; not float (zeros, NaN), not datetime (zones)."""


def _same_items(shadow: _List, value: list[Any], codec: Codec, path: str) -> bool:
    """Whether the first items of `value` are those of `shadow`."""
    return all(map(is_, shadow.items, value)) or all(
        old is new or _same(old, new, codec, path) for old, new in zip(shadow.items, value, strict=False)
    )


def _same_key(old: Any, new: Any, codec: Codec, path: str) -> bool:
    return old is new or (type(old) is type(new) and old == new and (type(old) is str or _same(old, new, codec, path)))


def _same_keys(old: Iterable[Any], new: Iterable[Any], codec: Codec, path: str) -> bool:
    return all(_same_key(one, other, codec, path) for one, other in zip(old, new, strict=False))


def _same_entries(shadow: _Dict, value: dict[Any, Any], codec: Codec, path: str) -> bool:
    items = shadow.items
    if len(items) != len(value):
        return False
    return _same_keys(items, value, codec, path) and all(
        old is new or _same(old, new, codec, path) for old, new in zip(items.values(), value.values(), strict=True)
    )


def _list_difference(shadow: _List, value: list[Any], codec: Codec, path: str, depth: int) -> Write | None:
    known = len(shadow.items)
    if len(value) < known or not _same_items(shadow, value, codec, path):
        return first_set(value, codec, path, depth)
    if len(value) == known:
        return None
    if not known:
        return first_set(value, codec, path, depth)
    new = value[known:]
    payload = _encode_items(new, known, codec, path)
    _check_depth(new, depth, path)
    shadows = shadow_of(new, codec, path).items
    return Write(EXTEND, payload, len(payload), accept=lambda: shadow.items.extend(shadows))


def _encode_items(items: list[Any], first: int, codec: Codec, path: str) -> bytes:
    try:
        return codec.encode(items, path)
    except UnserializableError:
        for index, item in enumerate(items, first):  # again, to name it by its index in the whole list
            codec.encode(item, f"{path}[{index}]")
        raise


def _dict_difference(shadow: _Dict, value: dict[Any, Any], codec: Codec, path: str, depth: int) -> Write | None:
    old = shadow.items
    gone = [key for key in old if key not in value]
    kept = len(old) - len(gone)
    stays = old if not gone else [key for key in old if key in value]
    if not kept or not _same_keys(stays, islice(value, kept), codec, path):
        return first_set(value, codec, path, depth) if old or value else None
    changes: list[tuple[Any, Write]] = [(key, Write(DELETE, b"")) for key in gone]
    for key, item in islice(value.items(), kept):
        before = old[key]
        if before is not item and (write := difference(before, item, codec, _at(path, key), depth + 1)) is not None:
            changes.append((key, write))
    changes += [
        (key, first_set(item, codec, _at(path, key), depth + 1)) for key, item in islice(value.items(), kept, None)
    ]
    return _smaller_of_merge_and_set(old, value, changes, len(gone), codec, path) if changes else None


def _smaller_of_merge_and_set(
    old: dict[Any, Any], value: dict[Any, Any], changes: list[tuple[Any, Write]], gone: int, codec: Codec, path: str
) -> Write:
    payload = _merge_payload(changes, codec, path)
    changed = [write for _, write in changes[gone:]]
    at_least = sum(1 + len(write.payload) for write in changed) + 2 * (len(value) - len(changed))
    if len(payload) > at_least:  # the whole dict may be smaller; it has at least two bytes for each entry that rests
        whole = codec.encode(value, path)
        if len(whole) <= len(payload):
            return Write(SET_DICT, whole, len(whole), shadow=shadow_of(value, codec, path))
    growth = sum(write.growth for write in changed if write.code not in SETS)
    return Write(MERGE, payload, growth, accept=lambda: _accept(old, changes))


def _accept(items: dict[Any, Any], changes: list[tuple[Any, Write]]) -> None:
    for key, write in changes:
        if write.code == DELETE:
            del items[key]
        elif write.accept is not None:
            write.accept()
        else:
            items[key] = write.shadow


def accepted(shadow: Any, write: Write) -> Any:
    """The shadow after `write` was recorded; `NO_SHADOW` if the next comparison has to make one."""
    if write.accept is None:
        return write.shadow
    write.accept()
    return shadow
