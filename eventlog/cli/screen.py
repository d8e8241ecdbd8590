"""Where output goes: lines to one stream, colored if a person is likely to see them.

Owns colors and flushing. Marks carry the meaning (``+ - ~``), color only repeats it.
"""

from __future__ import annotations

import json
import os
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_CODES: Final = {"+": "36", "-": "35", "~": "33", "head": "1;32", "dim": "2", "bold": "1"}


def wants_color(choice: str, stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to color: what `--color` says, then NO_COLOR and FORCE_COLOR, then whether it is a terminal."""
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR") or environ.get("CLICOLOR_FORCE"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"


class Screen:
    """One output stream. Every line is flushed, so that a pipe sees it at once."""

    def __init__(self, stream: TextIO, *, color: bool) -> None:
        self._stream = stream
        self._color = color

    def line(self, text: str = "") -> None:
        """Print one line."""
        print(text, file=self._stream, flush=True)

    def paint(self, text: str, style: str) -> str:
        """`text` in the color of a mark or a role, if colors are on."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._color and text else text

    def document(self, fields: Mapping[str, Any], many: str | None = None, items: Iterable[Any] = ()) -> None:
        """Print one JSON document; the list `many`, if any, item by item as they come, once there is a first one."""
        if many is None:
            self.line(json.dumps(fields, ensure_ascii=False))
            return
        texts = _with_commas(items)
        first = list(islice(texts, 1))
        self.line(f"{json.dumps(fields, ensure_ascii=False)[:-1]}, {json.dumps(many)}: [")
        for text in chain(first, texts):
            self.line(text)
        self.line("]}")


def _with_commas(items: Iterable[Any]) -> Iterator[str]:
    """Each item's JSON, and a comma where another one follows; an item is given out before the next is asked for."""
    comma = ""
    for item in items:
        yield comma + json.dumps(item, ensure_ascii=False)
        comma = ", "
