"""What differs between two states, as a value and as text.

Owns the comparison, which is strict (the same types at every depth, the same float bits but for NaN, which equals NaN),
and how a change is printed: cut explicitly, and without the control characters that a stored string may hold. Pure:
it never changes what it is given and never follows a recursion as deep as the values are.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from eventlog.align import Sides, edits
from eventlog.codec import encode
from eventlog.errors import InvalidInputError
from eventlog.types import dataclass_fields, held_by_model, is_model_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Path = tuple[Any, ...]
    Step = tuple[Any, Any, Any]

SHOWN_CHARACTERS: Final = 64
_SHOWN_ITEMS: Final = 6
_SHOWN_DEPTH: Final = 3
_SHOWN_DIGITS: Final = 1 << 10
_CONTEXT: Final = 16
_ABSENT: Final = object()
_MARKS: Final = {"added": "+", "removed": "-", "changed": "~"}
_PLAIN: Final = frozenset({str, int, bool, bytes, bytearray, type(None)})


class KeyOrder(tuple[Any, ...]):
    """The keys of a dict: `old` and `new` of a change where nothing but their order differs."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        path: the channel, then keys, indexes and field names down to the value. An index counts in the new list, for
            something removed in the old one.
        kind: what happened to the value there.
        old: its value before, None if it was added.
        new: its value after, None if it was removed.
    """

    path: tuple[Any, ...]
    kind: Literal["added", "removed", "changed"]
    old: Any
    new: Any

    @property
    def mark(self) -> str:
        """``+``, ``-`` or ``~``."""
        return _MARKS[self.kind]

    @property
    def where(self) -> str:
        """The path as text, for example ``messages[3].meta.k``."""
        return path_text(self.path)

    @property
    def what(self) -> str:
        """The values as text, cut where they are long: the old and the new one, or the only one."""
        if self.kind != "changed":
            return shown(self.old if self.kind == "removed" else self.new)
        if isinstance(self.old, KeyOrder):
            return f"order of keys {_keys_shown(self.old)} → {_keys_shown(self.new)}"
        if type(self.old) is str and type(self.new) is str:
            return " → ".join(_texts_shown(self.old, self.new))
        return f"{shown(self.old)} → {shown(self.new)}"

    def __str__(self) -> str:
        return f"{self.mark} {self.where}   {self.what}"


@dataclass(frozen=True, slots=True, repr=False)
class Diff:
    """What differs between two states: its changes in order, falsy if there is none.

    Attributes:
        changes: channel by channel, and within a channel from the front.
    """

    changes: tuple[Change, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Where something differs, as text: ``("spent", "messages[3].meta.k")``."""
        return tuple(change.where for change in self.changes)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes))

    def __repr__(self) -> str:
        some = ", ".join(change.where for change in self.changes[:_SHOWN_ITEMS])
        more = len(self.changes) - _SHOWN_ITEMS
        return f"<Diff of {len(self.changes)}: {some}{f', … +{more:,}' if more > 0 else ''}>"


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Diff:
    """What differs from `old` to `new`.

    In a list what was inserted, removed or replaced is found, and what stays is no change. The order of a dict's keys
    is a difference only if there is no other one; that of the channels is none.

    Args:
        old: values by channel, for example a `State`.
        new: the same, after.

    Returns:
        The changes; a dataclass or a model of pydantic's is compared field by field. What is neither plain data nor
        known to the log's codec is the same if type and ``repr`` are.
    """
    channels = [*old, *(channel for channel in new if channel not in old)]
    found: list[Change] = []
    for channel in channels:
        found += _changes(channel, old.get(channel, _ABSENT), new.get(channel, _ABSENT))
    told = [change for change in found if not isinstance(change.old, KeyOrder)]
    return Diff(tuple(told or found))


def _changes(channel: str, old: Any, new: Any) -> Iterator[Change]:
    """The changes below one channel, in order; keeps its own stack because values may be deep."""
    stack: list[tuple[Path, Any, Any]] = [((channel,), old, new)]
    while stack:
        path, a, b = stack.pop()
        if a is b:
            continue
        if a is _ABSENT:
            yield Change(path, "added", None, b)
        elif b is _ABSENT:
            yield Change(path, "removed", a, None)
        elif (steps := _steps(a, b)) is None:
            if not _is_same_leaf(a, b):
                yield Change(path, "changed", a, b)
        else:
            if order := _reordered(a, b):
                yield Change(path, "changed", *order)
            stack += [((*path, step), x, y) for step, x, y in reversed(steps)]


def _steps(a: Any, b: Any) -> list[Step] | None:
    """What to compare one level below: key or index, old, new. None where there is no level below to compare."""
    if type(a) is not type(b):
        return None
    if isinstance(a, list | tuple):
        return _item_steps(a, b)
    keyed = _keyed(a), _keyed(b)
    return None if keyed[0] is None or keyed[1] is None else _key_steps(keyed[0], keyed[1])


def _item_steps(a: list[Any] | tuple[Any, ...], b: list[Any] | tuple[Any, ...]) -> list[Step]:
    steps: list[Step] = []
    sizes = len(a), len(b)
    sides = Sides(sizes, lambda i, j: is_same(a[i], b[j]), lambda i: _token(a[i]), lambda j: _token(b[j]))
    for start, removed, begin, added in edits(sides):
        for k in range(max(removed, added)):
            old = a[start + k] if k < removed else _ABSENT
            new = b[begin + k] if k < added else _ABSENT
            steps.append((start + k if new is _ABSENT else begin + k, old, new))
    return steps


def _token(value: Any) -> Any:
    try:
        return _strict(value)
    except RecursionError:  # tuples within tuples: all that are as deep look alike
        return type(value)


def _keyed(value: Any) -> dict[Any, tuple[Any, Any]] | None:
    """The items of a dict, the fields of a dataclass or model, by a strict form of the key; None for anything else."""
    if isinstance(value, dict):
        return {_strict(key): (key, item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        try:
            return {name: (name, item) for name, item in dataclass_fields(value).items()}
        except (InvalidInputError, TypeError):
            return None
    if is_model_type(type(value)):
        return {name: (name, item) for name, item in held_by_model(value).items()}
    return None


def _key_steps(a: dict[Any, tuple[Any, Any]], b: dict[Any, tuple[Any, Any]]) -> list[Step]:
    gone = (_ABSENT, _ABSENT)
    kept = [(key, item, b.get(strict, gone)[1]) for strict, (key, item) in a.items()]
    return kept + [(key, _ABSENT, item) for strict, (key, item) in b.items() if strict not in a]


def _reordered(a: Any, b: Any) -> tuple[KeyOrder, KeyOrder] | None:
    """The keys of both, if they are two dicts whose keys differ in their order alone."""
    if not isinstance(a, dict):
        return None
    before, after = [_strict(key) for key in a], [_strict(key) for key in b]
    is_only_order = before != after and set(before) == set(after)
    return (KeyOrder(a), KeyOrder(b)) if is_only_order else None


# --- the same? ----------------------------------------------------------------------------------------------------


def is_same(a: Any, b: Any) -> bool:
    """Whether two values are equal strictly: types at every depth, order of keys, float bits (but NaN equals NaN)."""
    stack = [(a, b)]
    while stack:
        a, b = stack.pop()
        if a is b:
            continue
        if type(a) is type(b) and isinstance(a, list | tuple):
            if len(a) != len(b):
                return False
            stack.extend(zip(a, b, strict=True))
            continue
        steps = _steps(a, b)
        if steps is None and not _is_same_leaf(a, b):
            return False
        if steps is not None and _reordered(a, b):
            return False
        for _, x, y in steps or ():
            if x is _ABSENT or y is _ABSENT:
                return False
            stack.append((x, y))
    return True


def _is_same_leaf(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(_strict(a) == _strict(b))


def _strict(value: Any) -> Any:
    """Something hashable that is equal for values that are the same, and for no others."""
    cls = type(value)
    if cls in _PLAIN:
        return cls, bytes(value) if cls is bytearray else value
    if cls is float:
        return cls, "nan" if math.isnan(value) else struct.pack(">d", value)
    if cls is tuple:
        return cls, tuple(map(_strict, value))
    if cls in (set, frozenset):
        return cls, frozenset(map(_strict, value))
    try:
        return cls, encode(value)
    except InvalidInputError:
        return cls, _repr(value)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 (somebody's own __repr__; a diff must not fail for it)
        return f"<{type(value).__qualname__} at {id(value):#x}, whose repr raises {type(error).__name__}>"


# --- text ---------------------------------------------------------------------------------------------------------


def path_text(path: Iterable[Any]) -> str:
    """A path as people write it: ``messages[3].meta.k``, other keys than identifiers as ``["a b"]``."""
    text = ""
    for step in path:
        if type(step) is str and step.isidentifier() and step.isprintable():
            text += f".{step}" if text else step
        elif type(step) is str:
            text += f"[{_quoted(step)}]"
        else:
            text += f"[{shown(step)}]"
    return text


def printable(text: str) -> str:
    """`text` with everything that a terminal might obey (ESC, C0, C1, bidi and line controls) as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(value: Any, limit: int = SHOWN_CHARACTERS) -> str:
    """One line of text for any value, printable, and cut where it is long: ``…`` and how much was left out.

    Args:
        value: anything.
        limit: characters of a string or of bytes to show; containers show a few items of each level.
    """
    return _shown(value, limit, 0)


def _shown(value: Any, limit: int, depth: int) -> str:
    if type(value) is str:
        return _quoted(value[:limit], len(value) - limit)
    if type(value) in (bytes, bytearray):
        return _bytes_shown(value, limit)
    if isinstance(value, dict):
        return _dict_shown(value, limit, depth)
    if type(value) in _BRACKETS:
        return _items_shown(value, limit, depth)
    if type(value) is int and value.bit_length() > _SHOWN_DIGITS:
        return f"int of {value.bit_length():,} bits"
    text = printable(_repr(value))
    cut = len(text) - 2 * limit
    return text if cut <= 0 else f"{text[: 2 * limit]}… (+{cut:,} characters)"


_BRACKETS: Final[dict[Any, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def _quoted(text: str, cut: int = 0) -> str:
    escaped = printable(text.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{escaped}…" (+{cut:,} characters)' if cut > 0 else f'"{escaped}"'


def _bytes_shown(value: bytes | bytearray, limit: int) -> str:
    cut = len(value) - limit // 2
    head = repr(bytes(value[: limit // 2]))
    text = f"{head[:-1]}…{head[-1]} (+{cut:,} bytes)" if cut > 0 else head
    return text if type(value) is bytes else f"bytearray({text})"


def _dict_shown(value: dict[Any, Any], limit: int, depth: int) -> str:
    def item(pair: tuple[Any, Any]) -> str:
        return f"{_shown(pair[0], limit, depth + 1)}: {_shown(pair[1], limit, depth + 1)}"

    return "{" + _some(value.items(), len(value), depth, "keys", item) + "}"


def _items_shown(value: Any, limit: int, depth: int) -> str:
    opening, closing = _BRACKETS[type(value)]
    if not value and isinstance(value, set | frozenset):
        return f"{type(value).__name__}()"
    comma = "," if type(value) is tuple and len(value) == 1 else ""
    text = _some(value, len(value), depth, "items", lambda item: _shown(item, limit, depth + 1))
    return f"{opening}{text}{comma}{closing}"


def _some(items: Iterable[Any], count: int, depth: int, noun: str, item: Callable[[Any], str]) -> str:
    """The first few items, and how many more there are; none of them too deep within others."""
    room = 0 if depth >= _SHOWN_DEPTH else _SHOWN_ITEMS
    texts = [item(one) for one in islice(items, room)]
    if count > room:
        texts.append(
            f"… +{count - room:,} {noun if count - room > 1 else noun[:-1]}" if room else f"… {count:,} {noun}"
        )
    return ", ".join(texts)


def _keys_shown(keys: KeyOrder) -> str:
    return _some(keys, len(keys), 0, "keys", lambda key: _shown(key, SHOWN_CHARACTERS, _SHOWN_DEPTH))


def _texts_shown(old: str, new: str) -> tuple[str, str]:
    """Two strings; of long ones, the places where they begin to differ."""
    if max(len(old), len(new)) <= SHOWN_CHARACTERS:
        return shown(old), shown(new)
    same = next((i for i, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), min(len(old), len(new)))
    start = max(0, same - _CONTEXT)
    if not start:
        return shown(old), shown(new)
    before = f"(characters {start:,}…) "
    return before + shown(old[start:]), shown(new[start:])
