"""One value: finding it by its path, and printing it as a tree.

Owns the grammar of paths (``messages[-1].content``, ``["a b"].k``, or a JSON pointer ``/messages/3/content``) and the
limits of what is printed; whatever is cut says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from eventlog.cli.arrays import array_of
from eventlog.cli.describe import brief
from eventlog.cli.exits import CommandError
from eventlog.diff import SHOWN_CHARACTERS, path_text, printable, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOKEN = re.compile(r'\.?(?P<name>[^\W\d]\w*)|\[(?P<index>-?\d+)\]|\["(?P<key>(?:[^"\\]|\\.)*)"\]')
_ESCAPE = re.compile(r"\\(?:x(..)|u(....)|U(.{8})|(.))")
_NAMED_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a tree is printed.

    Attributes:
        items: of one container.
        depth: containers within containers.
        characters: of one string.
    """

    items: int = 20
    depth: int = 8
    characters: int = 400


FULL: Final = Bounds(1 << 60, 1 << 60, 1 << 60)


def tree(name: str, value: Any, bounds: Bounds, indent: int = 0) -> Iterator[str]:
    """The lines of a value: ``name  value``, and its items below it where they do not fit one line."""
    start = f"{'  ' * indent}{name}  "
    if (array := array_of(value)) is not None:
        yield start + array.text(bounds.items)
        return
    if _fits_line(value):
        yield start + shown(value, bounds.characters)
        return
    yield start + brief(value)
    if indent >= bounds.depth:
        yield f"{'  ' * (indent + 1)}… {brief(value)} deeper (--full shows them)"
        return
    items = _items(value)
    for key, item in islice(items, bounds.items):
        yield from tree(key, item, bounds, indent + 1)
    if len(value) > bounds.items:
        yield f"{'  ' * (indent + 1)}… +{len(value) - bounds.items:,} more (--full shows them)"


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((printable(key) if type(key) is str else shown(key), item) for key, item in value.items())
    return ((str(index), item) for index, item in enumerate(value))


def _fits_line(value: Any) -> bool:
    """Whether the value needs no lines below its own."""
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return True
    leaves = list(value.values() if isinstance(value, dict) else value) if len(value) <= 4 else [value]  # noqa: PLR2004
    return all(_is_short(leaf) for leaf in leaves)


def _is_short(leaf: Any) -> bool:
    if isinstance(leaf, dict | list | tuple | set | frozenset):
        return False
    return not isinstance(leaf, str | bytes) or len(leaf) <= SHOWN_CHARACTERS // 2


def find(state: Mapping[str, Any], path: str) -> Any:
    """The value at `path` in a state.

    Raises:
        CommandError: not a path, or there is nothing there; says how far it leads.
    """
    value: Any = state
    done: list[Any] = []
    for token in [path] if path in state else _tokens(path):
        key = _key(value, token)
        if key is None:
            raise CommandError(f"there is no {printable(path)!r}: {_what_is(state, value, done)}")
        done.append(key)
        value = value[key]
    return value


def _what_is(state: Mapping[str, Any], value: Any, done: list[Any]) -> str:
    if not done:
        return f"the channels are {', '.join(map(printable, islice(state, 8)))}"
    return f"{path_text(done)} is {brief(value)}"


def _tokens(path: str) -> list[str | int]:
    if path.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    tokens: list[str | int] = []
    end = 0
    while end < len(path):
        found = _TOKEN.match(path, end)
        token = None if found is None else _token(found)
        if found is None or token is None:
            raise CommandError(f'not a path at {printable(path[end:])!r}: write messages[-1].content or ["a b"]')
        tokens.append(token)
        end = found.end()
    return tokens


def _token(found: re.Match[str]) -> str | int | None:
    """The key or index that was typed; None for an escape of no character, or an index that no int is made of."""
    try:
        if found["index"] is not None:
            return int(found["index"])
        return found["name"] if found["name"] is not None else _ESCAPE.sub(_unescaped, found["key"])
    except (ValueError, OverflowError):
        return None


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    return chr(int(code, 16)) if code else _NAMED_ESCAPES.get(found[4], found[4])


def _key(value: Any, token: str | int) -> Any:
    """The key or index in `value` that a token means, None if there is none."""
    if isinstance(value, list | tuple):
        index = _index(token)
        return None if index is None or not -len(value) <= index < len(value) else index
    if not hasattr(value, "keys"):
        return None
    if token in value:
        return token
    number = _index(token)
    return number if number is not None and number in value else None


def _index(token: str | int) -> int | None:
    return int(token) if isinstance(token, int) or re.fullmatch(r"-?\d{1,18}", token) else None
