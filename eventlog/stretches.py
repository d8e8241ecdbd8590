"""Stretches of history that were read last: a manifest and the events after it.

Owns what a handle keeps of them, so that who looks at an event and then at one beside it, before or behind, reads
nothing twice. What is kept never changes, is bounded, and says nothing that the records do not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.records import event_of
from eventlog.snapshots import bring_up, manifest_at, manifest_entries, plain_writes, played, put_fresh

if TYPE_CHECKING:
    from eventlog.branches import Branches
    from eventlog.records import Body
    from eventlog.snapshots import Entries, Played

KEPT_BYTES: Final = 32 << 10
"""Bytes of the records whose contents one handle keeps; as objects they take a few times as much."""


class Stretch(NamedTuple):
    """A manifest and events after it, as one segment's history has them.

    Attributes:
        segment: the segment, of the last event at least.
        before: seq of the manifest's event, -1 where there is none.
        entries: what the manifest lists.
        events: those after it.
        plain: what each of them wrote; None unless all of them set small values.
        is_alike: whether each of them set the same channels, so that the last one says it all.
        size: bytes of all their records.
    """

    segment: int
    before: int
    entries: Entries
    events: list[Played]
    plain: list[list[Any]] | None
    is_alike: bool
    size: int

    def has(self, at: tuple[int, int]) -> bool:
        """Whether that event is one of them."""
        return self.segment == at[0] and self.before < at[1] <= self.before + len(self.events)

    def look(self, at: tuple[int, int]) -> tuple[tuple[bytes, bytes, Body], Entries]:
        """One of the events, as `read_event` returns it, and the entries there, values unread."""
        count = at[1] - self.before
        entries = dict(self.entries)
        if self.plain is None:
            bring_up(entries, self.events[:count])
        else:
            put_fresh(entries, self.plain[count - 1 if self.is_alike else 0 : count])
        event = self.events[count - 1]
        return event_of(event.digests, event.fields), entries


class Stretches:
    """Those of one run. Safe for many threads."""

    def __init__(self, branches: Branches) -> None:
        self.branches = branches
        self._kept: tuple[Stretch, ...] = ()  # newest first; replaced as a whole, so no reader sees half of a change

    def look(self, at: tuple[int, int]) -> tuple[tuple[bytes, bytes, Body], Entries] | None:
        """See `Stretch.look`; None where the event itself has the manifest, or that lies too far before.

        Raises:
            CorruptionError: a record on the way is damaged or missing.
        """
        stretch = next((stretch for stretch in self._kept if stretch.has(at)), None) or self._read(at)
        return None if stretch is None else stretch.look(at)

    def _read(self, at: tuple[int, int]) -> Stretch | None:
        of = self.branches
        manifest, before, _ = manifest_at(of.storage, of.lineage, of.run, at)
        if not 0 < at[1] - before <= _MAX_EVENTS:
            return None
        entries = {} if manifest is None else manifest_entries(manifest)
        events = list(played(of.storage, of.lineage, of.run, at, before))
        size = sum(event.size for event in events) + (0 if manifest is None else len(manifest))
        plain = plain_writes(events)
        is_alike = plain is not None and all(writes[::3] == plain[0][::3] for writes in plain)
        stretch = Stretch(at[0], before, entries, events, plain, is_alike, size)
        self._keep(stretch)
        return stretch

    def _keep(self, stretch: Stretch) -> None:
        kept, room = [stretch], KEPT_BYTES - stretch.size
        for older in self._kept:
            if older[:2] != stretch[:2]:
                room -= older.size
                if room < 0:
                    break
                kept.append(older)
        self._kept = tuple(kept) if stretch.size <= KEPT_BYTES else self._kept


_MAX_EVENTS: Final = 256
