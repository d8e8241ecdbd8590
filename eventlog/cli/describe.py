"""What a step did, in a few words.

Owns the words of a log line: per channel what changed, never the whole value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from eventlog.diff import printable, shown
from eventlog.events import AppendText, Delete, Extend, Merge, Splice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from eventlog.cli.steps import Step

BOOKKEEPING: Final = "~"
"""How the names of channels begin that a saver keeps for itself."""

_CHANNELS: Final = 8
_CHARACTERS: Final = 24


def visible(channels: Iterable[str], *, everything: bool) -> list[str]:
    """The channels to show: without a saver's bookkeeping, unless `everything`."""
    return [channel for channel in channels if everything or not channel.startswith(BOOKKEEPING)]


def summary(step: Step, *, everything: bool) -> str:
    """One line: ``spent 180 → 360, messages +1``; a dot if nothing visible changed; that it is ``encrypted``.

    What was written again as it was is left out: LangGraph gives its channels new versions of the same values.
    """
    if step.is_encrypted:
        return "encrypted"
    channels = [name for name in visible(step.writes, everything=everything) if not _is_again(step, name)]
    texts = [described(channel, step.writes[channel], step.before) for channel in channels[:_CHANNELS]]
    more = len(channels) - _CHANNELS
    return ", ".join([*texts, f"… +{more:,} channels"] if more > 0 else texts) or "·"


def _is_again(step: Step, channel: str) -> bool:
    write = step.writes[channel]
    if channel not in step.before or isinstance(write, Delete | Extend | Splice | AppendText | Merge):
        return False
    return brief(step.before[channel]) == brief(write) and not step.diff([channel])


def described(channel: str, write: Any, before: Mapping[str, Any]) -> str:
    """What one write did to its channel."""
    name = printable(channel)
    if isinstance(write, Delete):
        return f"{name} deleted"
    if isinstance(write, Extend):
        return f"{name} +{len(write.items):,}"
    if isinstance(write, Splice):
        return f"{name} {_spliced(write)}"
    if isinstance(write, AppendText):
        return f"{name} +{len(write.text):,} {_plural('character', len(write.text))}"
    if isinstance(write, Merge):
        return f"{name} ~{len(write.changes):,} {_plural('key', len(write.changes))}"
    if channel not in before:
        return f"{name} = {brief(write)}"
    return f"{name} {brief(before[channel])} → {brief(write)}"


def _spliced(write: Splice) -> str:
    """``+2 -1``: items that came, and items that went."""
    came, went = sum(len(items) for _, _, items in write.edits), sum(removed for _, removed, _ in write.edits)
    return " ".join([*([f"+{came:,}"] if came else []), *([f"-{went:,}"] if went else [])]) or "+0"


def brief(value: Any) -> str:
    """A scalar as it is, a container as its size, an object as its class and, of an array, its shape."""
    if isinstance(value, dict):
        if isinstance(value.get("$type"), str):
            shape = value.get("shape")
            size = "x".join(map(str, shape)) if shape and isinstance(shape, list) else "…"
            return printable(f"{re.split('[.:]', value['$type'])[-1]}({size})")
        return f"{{{len(value):,} {_plural('key', len(value))}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{len(value):,} {_plural('item', len(value))}]"
    return shown(value, _CHARACTERS)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"
