"""A state: the value of every channel at one event.

Owns the view that users get. It decodes and never hands out an object that the log keeps, so nothing that is done to a
value can change what the log says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eventlog.entries import decoded_value, is_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventlog.branches import Branches
    from eventlog.entries import Entries
    from eventlog.events import Event


class State(Mapping[str, Any]):
    """The value of every channel at one event: a read-only mapping, in the order in which the channels came.

    Each access decodes a fresh value: keep it in a variable if you need it twice, and do with it what you like. Values
    that are not in memory are read when they are first asked for, one channel alone, or all at the second asking.

    Attributes:
        event: the event after which the channels had these values; None for the state before the first event.
    """

    __slots__ = ("_asked", "_branches", "_entries", "event")

    def __init__(self, event: Event | None, entries: Entries, branches: Branches) -> None:
        self.event = event
        self._entries = entries
        self._branches = branches
        self._asked = False

    def __getitem__(self, channel: str) -> Any:
        entry = self._entries[channel]
        if entry.ops is None and entry.full is not None:
            return self._branches.codec.decode(entry.full)
        if not is_read(entry):
            self._read([channel] if not self._asked else list(self._entries))
            self._asked = True
            entry = self._entries[channel]
        return decoded_value(entry, self._branches.codec)

    def _read(self, channels: list[str]) -> None:
        assert self.event is not None
        at = (self.event.segment, self.event.seq)
        self._entries.update(self._branches.read(at, self._entries, channels))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, channel: object) -> bool:
        return channel in self._entries

    def encoded(self, channel: str) -> bytes | None:
        """The bytes of a channel's value in the run's codec; None where they are not in memory as one piece."""
        entry = self._entries[channel]
        return entry.full if entry.ops is None else None

    def pieces(self) -> list[tuple[str, bytes | None]]:
        """Every channel, with what `encoded` says of it."""
        return [(channel, entry.full if entry.ops is None else None) for channel, entry in self._entries.items()]

    @property
    def size_bytes(self) -> int:
        """Bytes of all values as encoded, as far as known without decoding them."""
        return sum(entry.size for entry in self._entries.values())

    def __repr__(self) -> str:
        where = "before the first event" if self.event is None else f"at step {self.event.step}"
        return f"<State {where}: {', '.join(self._entries)}>"
