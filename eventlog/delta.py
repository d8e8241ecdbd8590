"""What changed: from values to operations, and back.

Owns the operations' bytes, how they are applied, and how they are found, by what the value was (see shadow). Pure:
values in, values out; the codec is passed in.

An operation on a channel is a code and a payload, bytes of the run's codec:

```
 code  name     payload
    0  delete   empty
    1  set      the value               (4, 5, 6: the same, of a list, a dict, a string)
    2  extend   a list of the new items
    3  merge    a list of changes: key, code, payload, key, code, payload ...
    7  text     the string to append
    8  splice   a list: the new items, then kept, removed, added, kept, removed, added ...
```

A splice walks along the list as it was: so many items are kept, so many removed, and so many of the new items, which
are one list of the codec's (empty bytes if there are none), come in their place.

In a merge a key that is a string stands as itself, any other one as the codec's bytes; the payload of a nested merge is
nested in place.
"""

from __future__ import annotations

from itertools import chain, cycle, groupby, islice
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgpack

from eventlog.align import Edit, spliced
from eventlog.codec import IMMUTABLE, MAX_DEPTH, SET_DEPTH, decoded_all, held_in, step_to
from eventlog.errors import InvalidInputError, TooDeepError, UnserializableError
from eventlog.events import AppendText, Delete, Extend, Merge, Splice, Update
from eventlog.flat import PLAIN_KEYS
from eventlog.pieces import MANY, Pieces
from eventlog.records import array, scalar
from eventlog.shadow import (
    DictShadow,
    ListShadow,
    edits_of,
    is_opaque,
    is_same,
    same_keys,
    shadow_of,
    shadow_of_end,
    size_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from eventlog.codec import Codec, PlainCodec

DELETE, SET, EXTEND, MERGE, SET_LIST, SET_DICT, SET_TEXT, TEXT, SPLICE = range(9)
CODE_BITS: Final = 5
CODE: Final = 15
IN_PART: Final = 16
"""In an event a code has this flag where the payload stands in a part of its own: its digest and size stand here."""

SETS: Final = frozenset({SET, SET_LIST, SET_DICT, SET_TEXT})
NETS: Final = frozenset({MERGE, SPLICE})
"""Operations that may remove something: their slot says by how much the value grows."""
_SET_OF: Final[dict[type, int]] = {list: SET_LIST, dict: SET_DICT, str: SET_TEXT}
_NOUN: Final = {SET: "no list, dict or string", SET_LIST: "a list", SET_DICT: "a dict", SET_TEXT: "a string"}
_MISSING: Final = object()
_STR: Final = frozenset({str})


NO_SHADOW: Final = object()


class Write(NamedTuple):
    """One operation, ready to be recorded.

    Attributes:
        code: the operation.
        payload: its bytes.
        growth: bytes by which the value grows; less than 0 if it shrinks. Of a set, its size.
        accept: brings the shadow it was found against up to date; to be called once it is recorded.
        shadow: the shadow of the new value, where there was none to bring up to date; `NO_SHADOW` if none was made.
    """

    code: int
    payload: bytes
    growth: int = 0
    accept: Callable[[], object] | None = None
    shadow: Any = NO_SHADOW


_new: Final = tuple.__new__
"""Makes a named tuple at half the cost: for the one kind of write that is made by the million."""


# --- from what a caller says ------------------------------------------------------------------------------------


def set_to(value: Any, codec: Codec, path: str, depth: int = 0) -> Write:
    """Set the channel to `value`, or an entry `depth` containers below its top, whatever it was."""
    payload = codec.encode(value, path)
    if depth and _height(value) + depth > MAX_DEPTH:
        raise TooDeepError(path, f"nested deeper than {MAX_DEPTH}")
    return _new(Write, (_SET_OF.get(type(value), SET), payload, len(payload), None, NO_SHADOW))


def plain_sets(writes: Mapping[str, Any], codec: PlainCodec, most: int) -> tuple[list[Any], Mapping[str, Any]]:
    """Those of `writes` that set small plain values, and the others.

    Args:
        writes: per channel its value.
        codec: the run's.
        most: bytes that they may have together.

    Returns:
        The first as they stand in an event's body: channel, code, payload, channel, code, payload ...
    """
    encode, plain = codec.encode_plain, codec.plain
    found: list[Any] = []
    others: dict[str, Any] = {}
    try:
        for channel, value in writes.items():
            if type(value) in plain:
                found += channel, SET_TEXT if type(value) is str else SET, encode(value)
            else:
                others[channel] = value
    except (ValueError, OverflowError):  # a large integer, a string without UTF-8 form
        return [], writes
    return (found, others) if len(b"".join(found[2::3])) <= most else ([], writes)


class Form(NamedTuple):
    """What the events of a loop have in common: the very names, the types of the values, and so the operations.

    Attributes:
        names: the channels.
        types: of their values; all plain.
        plain: as `plain_sets` returns it, with whatever payloads.
    """

    names: list[str]
    types: list[type]
    plain: list[Any]

    def filled(self, writes: Mapping[str, Any], encode: Callable[[Any], bytes], most: int) -> list[Any] | None:
        """As `plain_sets`, of writes in this form; None if they are not, or not that small."""
        values = writes.values()
        if [*map(type, values)] != self.types or not all(map(is_, writes, self.names)):
            return None
        try:
            payloads = [*map(encode, values)]
        except (TypeError, ValueError, OverflowError):  # as in plain_sets; or a type that says it equals another
            return None
        if len(b"".join(payloads)) > most:
            return None
        plain = self.plain.copy()
        plain[2::3] = payloads
        return plain

    def filled_each(
        self, batch: Sequence[dict[str, Any]], encode: Callable[[Any], bytes], most: int
    ) -> list[Any] | None:
        """`filled` of several events, one after another; None if one is not in this form, or not that small.

        A dict has no name twice, so where the names follow each other as in so many events, each event has them.
        """
        width, values = len(self.names), [*chain.from_iterable(map(dict.values, batch))]
        if [*map(type, values)] != self.types * len(batch):
            return None
        if not width or not all(map(is_, chain.from_iterable(batch), cycle(self.names))):
            return None
        try:
            payloads = [*map(encode, values)]
        except (TypeError, ValueError, OverflowError):  # as in filled
            return None
        if max(map(len, payloads)) * width > most:
            events = zip(*[iter(payloads)] * width, strict=True)
            if any(len(b"".join(event)) > most for event in events):
                return None
        plain = self.plain * len(batch)
        plain[2::3] = payloads
        return plain


class Known(Protocol):
    """What the writer knows of a channel that is there."""

    @property
    def kind(self) -> int:
        """The code that last set it."""

    def shadow(self) -> Any:
        """What its next value is compared with."""

    def made_shadow(self) -> Any:
        """The same, where it was made before; else None."""

    def value(self) -> Any:
        """Its value, a new object."""


def from_operation(operation: Any, known: Known | None, codec: Codec, path: str) -> Write:
    """The write of an `Extend`, `Splice`, `AppendText`, `Merge` or `Delete`.

    Args:
        operation: what the caller said.
        known: the channel, None if it is absent; asked for more than its kind by a `Merge` or `Splice` only.
        codec: the run's.
        path: names the channel in errors.

    Raises:
        InvalidInputError: the channel does not hold what the operation works on.
        UnserializableError: a value in it cannot be encoded.
    """
    if type(operation) is Extend and known is not None and known.kind == SET_LIST and type(operation.items) is list:
        return _at_end(operation, shadow=_spliced_before(known), codec=codec, path=path, depth=0)
    _check_argument(operation, path)
    if isinstance(operation, Delete):
        if known is None:
            raise InvalidInputError(f"{path}: there is no such channel to delete")
        return Write(DELETE, b"")
    if known is None:
        return set_to(_from_nothing(operation), codec, path)
    wanted = _WANTED[type(operation)]
    if wanted != known.kind and _SET_OF.get(type(known.value())) != wanted:  # a tuple may read back as a list
        raise _unfit(operation, _NOUN[wanted], _NOUN[known.kind], path)
    if isinstance(operation, Merge):
        try:
            return _merge_into(known.shadow(), operation, codec, path, 0)
        except _OpaqueError:
            return set_to(_carried_out(operation, known.value(), path), codec, path)
    if isinstance(operation, Splice):
        return _splice_of(known.shadow(), operation, codec, path, 0)
    shadow = _spliced_before(known) if isinstance(operation, Extend) else None
    return _at_end(operation, shadow=shadow, codec=codec, path=path, depth=0)


def _spliced_before(known: Known) -> ListShadow | None:
    """The shadow of a list that was spliced; of any other nobody may ask for it again."""
    made = known.made_shadow()
    return made if isinstance(made, ListShadow) and made.was_spliced else None


def _check_argument(operation: Any, path: str) -> None:
    name, types, rule = _ARGUMENTS.get(type(operation), ("", (), ""))
    if name and type(getattr(operation, name)) not in types:
        raise InvalidInputError(f"{path}: {rule}, not {type(getattr(operation, name)).__name__}")
    for edit in operation.edits if type(operation) is Splice else ():
        parts = [*map(type, edit)] if type(edit) in _LISTS else [type(edit)]
        if parts[:2] != [int, int] or len(parts) != 3 or parts[2] not in _LISTS:  # noqa: PLR2004 (see `Splice`)
            there = ", ".join(part.__name__ for part in parts)
            raise InvalidInputError(f"{path}: an edit of a Splice is (start, removed, [items]), not ({there})")


def _edits_in(operation: Splice, length: int, path: str) -> list[tuple[int, int, list[Any]]]:
    """The edits of a splice, which is to fit a list of that length."""
    at = 0
    for start, removed, _ in operation.edits:
        if removed < 0 or start < at:
            raise InvalidInputError(
                f"{path}: Splice removes {removed} at {start}; edits are in order and none removes less than 0"
            )
        at = start + removed
        if at > length:
            raise InvalidInputError(f"{path}: Splice removes {removed} at {start}, there is a list of {length}")
    return [(start, removed, list(items)) for start, removed, items in operation.edits if removed or items]


_LISTS: Final = (list, tuple)
_ARGUMENTS: Final[dict[type, tuple[str, tuple[type, ...], str]]] = {
    Extend: ("items", _LISTS, "Extend takes a list of items"),
    Splice: ("edits", _LISTS, "Splice takes a list of edits"),
    AppendText: ("text", (str,), "AppendText takes a string"),
    Merge: ("changes", (dict,), "Merge takes a dict of changes"),
}
_WANTED: Final = {Extend: SET_LIST, Splice: SET_LIST, AppendText: SET_TEXT, Merge: SET_DICT}


def _unfit(operation: Any, needs: str, there_is: str, path: str) -> InvalidInputError:
    return InvalidInputError(f"{path}: {type(operation).__name__} needs {needs}, there is {there_is}")


def _from_nothing(operation: Any, depth: int = 0) -> Any:
    """The value that an operation makes of an absent channel or key."""
    if isinstance(operation, Extend):
        return list(operation.items)
    if isinstance(operation, Splice):
        return spliced([], _edits_in(operation, 0, "Splice"))
    if isinstance(operation, AppendText):
        return operation.text
    if isinstance(operation, Merge):
        _check_argument(operation, "Merge")
        if depth >= MAX_DEPTH:
            raise TooDeepError("Merge", f"nested deeper than {MAX_DEPTH}")
        changes = operation.changes.items()
        return {key: _from_nothing(item, depth + 1) for key, item in changes if not isinstance(item, Delete)}
    if isinstance(operation, Update):
        raise InvalidInputError("Update stands for a whole channel; within a Merge give the value itself")
    return operation


def _at_end(operation: Extend | AppendText, *, shadow: Any, codec: Codec, path: str, depth: int) -> Write:
    """Something put at the end of a list or a string; brings `shadow` up to date, if there is one."""
    if isinstance(operation, AppendText):
        payload = codec.encode(operation.text, path)
        return Write(TEXT, payload, len(payload), shadow=NO_SHADOW if shadow is None else shadow + operation.text)
    items = list(operation.items)
    payload = _encode_items(items, 0 if shadow is None else len(shadow.items), codec, path)
    if depth and _height(items) + depth > MAX_DEPTH:
        raise TooDeepError(path, f"nested deeper than {MAX_DEPTH}")
    if shadow is None:
        return _new(Write, (EXTEND, payload, len(payload), None, NO_SHADOW))
    added = shadow_of_end(items, payload, codec, path)
    return Write(EXTEND, payload, len(payload), accept=lambda: shadow.extend(added))


def _splice_of(shadow: ListShadow, operation: Splice, codec: Codec, path: str, depth: int) -> Write:
    """The write of a splice into a list of which `shadow` was made."""
    return _splice(shadow, _edits_in(operation, len(shadow.items), path), codec, path, depth)


def _splice(shadow: ListShadow, edits: list[tuple[int, int, list[Any]]], codec: Codec, path: str, depth: int) -> Write:
    items = [*chain.from_iterable(added for _, _, added in edits)]
    encoded = _encode_items(items, 0, codec, path) if items else b""
    if depth and _height(items) + depth > MAX_DEPTH:
        raise TooDeepError(path, f"nested deeper than {MAX_DEPTH}")
    gone = sum(size_of(item, codec) for start, removed, _ in edits for item in shadow.items[start : start + removed])
    if len(edits) == 1:
        changes = [(*edits[0][:2], shadow_of_end(items, encoded, codec, path))]
    else:
        changes = [(start, removed, shadow_of(added, codec, path)) for start, removed, added in edits]
    numbers, at = [], 0
    for start, removed, added in edits:
        numbers += [start - at, removed, len(added)]
        at = start + removed
    payload = array([scalar(encoded), *map(scalar, numbers)])
    return Write(SPLICE, payload, len(encoded) - gone, accept=lambda: shadow.splice(changes))


def _merge_into(shadow: Any, operation: Merge, codec: Codec, path: str, depth: int) -> Write:
    """The write of a merge into a dict of which `shadow` was made.

    Raises:
        _OpaqueError: a dict on the way has keys that are compared by their bytes only.
    """
    if type(shadow) is not DictShadow or not PLAIN_KEYS.issuperset(map(type, operation.changes)):
        raise _OpaqueError
    if depth >= MAX_DEPTH:
        raise TooDeepError(path, f"nested deeper than {MAX_DEPTH}")
    changes: list[tuple[Any, Write]] = []
    for key, item in operation.changes.items():
        old = shadow.items.get(key, _MISSING)
        if isinstance(item, Delete):
            changes += [] if old is _MISSING else [(key, Write(DELETE, b"", -size_of(old, codec)))]
        else:
            changes.append((key, _change_of(item, old, codec, _at(path, key), depth + 1)))
    payload = _merge_payload(changes, codec, path)
    return Write(MERGE, payload, sum(w.growth for _, w in changes), accept=lambda: _accept(shadow.items, changes))


def _change_of(item: Any, old: Any, codec: Codec, path: str, depth: int) -> Write:
    """The write of one key of a merge; its growth is net of what was there."""
    _check_argument(item, path)
    if type(item) in _WANTED and old is not _MISSING:
        wanted: Any = {Extend: ListShadow, Splice: ListShadow, AppendText: str, Merge: DictShadow}[type(item)]
        if is_opaque(old):
            raise _OpaqueError
        if type(old) is not wanted:
            raise _unfit(item, _NOUN[_WANTED[type(item)]], "something else", path)
        if isinstance(item, Merge):
            return _merge_into(old, item, codec, path, depth)
        if isinstance(item, Splice):
            return _splice_of(old, item, codec, path, depth)
        return _at_end(item, shadow=old, codec=codec, path=path, depth=depth)
    return _net(first_set(_from_nothing(item, depth), codec, path, depth), old, codec)


class _OpaqueError(Exception):
    pass


def _carried_out(operation: Any, value: Any, path: str) -> Any:
    """`value`, which may be changed in place, after an operation on it."""
    _check_argument(operation, path)
    wanted = {Extend: list, Splice: list, AppendText: str, Merge: dict}.get(type(operation))
    if wanted is None or value is _MISSING:
        return _from_nothing(operation)
    if type(value) is not wanted:
        raise _unfit(operation, _NOUN[_WANTED[type(operation)]], f"a {type(value).__name__}", path)
    if isinstance(operation, Splice):
        return spliced(value, _edits_in(operation, len(value), path))
    if not isinstance(operation, Merge):
        return value + (list(operation.items) if isinstance(operation, Extend) else operation.text)
    for key, item in operation.changes.items():
        if isinstance(item, Delete):
            value.pop(key, None)
        else:
            value[key] = _carried_out(item, value.get(key, _MISSING), _at(path, key))
    return value


def _net(write: Write, old: Any, codec: Codec) -> Write:
    """A write of an entry with its growth net of what was there."""
    if write.code not in SETS or old is _MISSING:
        return write
    return write._replace(growth=len(write.payload) - size_of(old, codec))


def _height(value: Any) -> int:
    """Containers within containers, as the codec counts them; it has bounded them already."""
    cls = type(value)
    if cls in IMMUTABLE:  # nearly all entries of a merge
        return 0
    if cls is dict or cls in (list, tuple):
        own, items = 1, value.values() if cls is dict else value
    else:
        own, items = 1 + SET_DEPTH * (cls in (set, frozenset)), [item for _, item in held_in(value)]
        if not items:
            return 0
    return own + max((_height(item) for item in items if type(item) not in IMMUTABLE), default=0)


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


def slot(write: Write, *, in_part: bool) -> int:
    """The number that stands for a write's operation in an event: code, flag and, for those of `NETS`, the growth.

    ```
     bits 0-3 code | 4 in a part | 5... growth, folded: 0, -1, 1, -2 ... as 0, 1, 2, 3 ...
    ```
    """
    growth = 0 if write.code not in NETS else write.growth << 1 if write.growth >= 0 else (-write.growth << 1) - 1
    return growth << CODE_BITS | (IN_PART if in_part else 0) | write.code


def unfolded(number: int) -> int:
    """The growth in a slot."""
    return -((number + 1) >> 1) if number & 1 else number >> 1


# --- applying ---------------------------------------------------------------------------------------------------


def replayed(value: Any, operations: Iterable[tuple[int, bytes]], codec: Codec) -> Any:
    """`value` after operations, in order; as `applied`, at the cost of what they say, however long a list is."""
    pieces: Pieces | None = None
    for code, stretch in groupby(operations, itemgetter(0)):
        payloads = [payload for _, payload in stretch]
        if code == SPLICE or (pieces is not None and code == EXTEND):
            pieces = Pieces(value) if pieces is None else pieces
            for payload in payloads:
                pieces = _after(pieces, code, payload, codec)
            continue
        if pieces is not None:
            value, pieces = pieces.values(), None
        value = _applied_all(value, code, payloads, codec)
    return value if pieces is None else pieces.values()


def _applied_all(value: Any, code: int, payloads: list[bytes], codec: Codec) -> Any:
    """`value` after several operations of one kind; as `applied` after each."""
    if code == EXTEND:
        value.extend(chain.from_iterable(decoded_all(payloads, codec)))
        return value
    if code == TEXT:
        return value + "".join(decoded_all(payloads, codec))
    if code == MERGE:
        flat = [*chain.from_iterable(msgpack.unpackb(array(payloads)))]
        if SETS.issuperset(flat[1::3]) and _STR.issuperset(map(type, flat[::3])):
            newest = dict(zip(flat[::3], flat[2::3], strict=True))  # in the order in which the keys were set first
            value.update(zip(newest, decoded_all([*newest.values()], codec), strict=True))
            return value
    for payload in payloads:
        value = applied(value, code, payload, codec)
    return value


def _after(pieces: Pieces, code: int, payload: bytes, codec: Codec) -> Pieces:
    edits = [(pieces.size, 0, codec.decode(payload))] if code == EXTEND else _edits(payload, codec)
    if len(edits) > MANY:
        return Pieces(spliced(pieces.values(), edits))
    for edit in reversed(edits):
        pieces.put(*edit)
    return pieces


def applied(value: Any, code: int, payload: bytes, codec: Codec) -> Any:
    """`value` after the operation; `value` belongs to the caller and may be changed in place."""
    if code == MERGE:
        return _merged({} if value is _MISSING else value, msgpack.unpackb(payload), codec)
    if code in SETS:
        return codec.decode(payload)
    if code == EXTEND:
        value = [] if value is _MISSING else value
        value.extend(codec.decode(payload))
        return value
    if code == SPLICE:
        return spliced([] if value is _MISSING else value, _edits(payload, codec))
    if code == TEXT:
        return ("" if value is _MISSING else value) + codec.decode(payload)
    msg = f"operation code {code}: written by a newer release; upgrade eventlog-savers"
    raise InvalidInputError(msg)


def _edits(payload: bytes, codec: Codec) -> list[tuple[int, int, list[Any]]]:
    """What a splice says: where each stretch begins in the list as it was, how many items go, and which come."""
    encoded, *numbers = msgpack.unpackb(payload)
    items = codec.decode(encoded) if encoded else []
    found, at, taken = [], 0, 0
    for kept, removed, added in zip(*[iter(numbers)] * 3, strict=True):
        found.append((at + kept, removed, items[taken : taken + added]))
        at, taken = at + kept + removed, taken + added
    return found


def _merged(value: dict[Any, Any], flat: list[Any], codec: Codec) -> dict[Any, Any]:
    decode = codec.decode
    for index in range(0, len(flat), 3):  # histories have merges by the thousand, so this calls little
        key, code, payload = flat[index : index + 3]
        if type(key) is not str:
            key = decode(key)
        if code in SETS:
            value[key] = decode(payload)
        elif code == DELETE:
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
    if code == SPLICE:
        return Splice(_edits(payload, codec))
    if code == TEXT:
        return AppendText(codec.decode(payload))
    flat = msgpack.unpackb(payload) if isinstance(payload, bytes) else payload
    return Merge({key: to_operation(inner, item, codec) for key, inner, item in _changes(flat, codec)})


# --- finding ----------------------------------------------------------------------------------------------------


def difference(shadow: Any, value: Any, codec: Codec, path: str, depth: int = 0) -> Write | None:
    """The smallest write that this finds from what `shadow` was made of to `value`; None if they are equal.

    Never larger than setting the value. Costs one comparison per leaf, and encodes only what changed.

    Raises:
        UnserializableError: a changed value cannot be encoded.
    """
    cls = type(value)
    if cls is list and type(shadow) is ListShadow:
        return _list_difference(shadow, value, codec, path, depth)
    if cls is dict and type(shadow) is DictShadow and PLAIN_KEYS.issuperset(map(type, value)):
        return _dict_difference(shadow, value, codec, path, depth)
    if is_same(shadow, value, codec, path):
        return None
    if cls is str and type(shadow) is str and 0 < len(shadow) < len(value) and value.startswith(shadow):
        payload = codec.encode(value[len(shadow) :], path)
        return Write(TEXT, payload, len(payload), shadow=value)
    return first_set(value, codec, path, depth)


def first_set(value: Any, codec: Codec, path: str, depth: int = 0) -> Write:
    """The write that sets a channel, or an entry `depth` containers below its top, with the shadow to keep."""
    write = set_to(value, codec, path, depth)  # first: it refuses what is too deep for a shadow
    return write._replace(shadow=shadow_of(value, codec, path))


_HEAD, _EDIT = 10, 15
"""Bytes that a splice has beside its items, at most: of its own, and for each edit."""


def _list_difference(shadow: ListShadow, value: list[Any], codec: Codec, path: str, depth: int) -> Write | None:
    known = len(shadow.items)
    try:
        found = edits_of(shadow, value, codec, path) if known else [Edit(0, 0, 0, len(value))] if value else []
    except UnserializableError:
        _encode_items(value, 0, codec, path)  # to name the item by its index
        raise
    if not found:
        return None
    kept = known - sum(edit.removed for edit in found)
    if not kept:
        return first_set(value, codec, path, depth)
    if found[0].start == known:
        return _at_end(Extend(value[known:]), shadow=shadow, codec=codec, path=path, depth=depth)
    edits = [(start, removed, value[begin : begin + added]) for start, removed, begin, added in found]
    write = _splice(shadow, edits, codec, path, depth)
    if kept <= _HEAD + _EDIT * len(edits):  # each item has at least one byte, so otherwise the whole is larger
        whole = first_set(value, codec, path, depth)
        return whole if len(whole.payload) <= len(write.payload) else write
    return write


def _encode_items(items: list[Any], first: int, codec: Codec, path: str) -> bytes:
    try:
        return codec.encode(items, path)
    except UnserializableError:
        for index, item in enumerate(items, first):  # again, to name it by its index in the whole list
            codec.encode(item, f"{path}[{index}]")
        raise


def _dict_difference(shadow: DictShadow, value: dict[Any, Any], codec: Codec, path: str, depth: int) -> Write | None:
    old = shadow.items
    gone = [key for key in old if key not in value]
    kept = len(old) - len(gone)
    stays = old if not gone else [key for key in old if key in value]
    if not kept or not same_keys(stays, islice(value, kept)):
        return first_set(value, codec, path, depth) if old or value else None
    changes: list[tuple[Any, Write]] = [(key, Write(DELETE, b"", -size_of(old[key], codec))) for key in gone]
    for key, item in islice(value.items(), kept):
        before = old[key]
        if before is not item and (write := difference(before, item, codec, _at(path, key), depth + 1)) is not None:
            changes.append((key, _net(write, before, codec)))
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
    growth = sum(write.growth for _, write in changes)
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
