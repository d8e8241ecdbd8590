"""Stretches of history that were read last: a manifest and the events after it.

Owns what a handle keeps of them, so that who looks at an event and then at one beside it, before or behind, reads
nothing twice. What is kept never changes, is bounded, and says nothing that the records do not say.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.entries import Played, bring_up, how_alike, put_fresh, put_newest, writes_in
from eventlog.layout import place_of
from eventlog.records import bodies, event_of, fields_in
from eventlog.snapshots import manifest_at, manifest_entries, records_between

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventlog.branches import Branches
    from eventlog.entries import Entries
    from eventlog.records import Body

KEPT_BYTES: Final = 512 << 10
"""About the memory that one handle takes for them: a thread of a thousand checkpoints whose state is small fits.

Only who goes through a history has so much, and a saver keeps a bounded number of handles.
"""
_PAIR_BYTES: Final = 160
"""About what an event takes beside its record: its key, and what Python adds to both."""
_ENTRY_BYTES: Final = 350
"""About what an entry takes beside its value."""
_MAX_EVENTS: Final = 256


class Stretch(NamedTuple):
    """A manifest and events after it, as one segment's history has them. Events stay records: objects are larger.

    Attributes:
        segment: the segment, of the last event at least.
        before: seq of the manifest's event, -1 where there is none.
        entries: what the manifest lists.
        pairs: keys and records of those after it.
        is_plain: whether all of them only set small values.
        is_alike: whether each of them set the same channels, too, so that the last one says it all.
        size: about the bytes of memory for all of it.
    """

    segment: int
    before: int
    entries: Entries
    pairs: list[tuple[bytes, bytes]]
    is_plain: bool
    is_alike: bool
    size: int

    def look(self, at: tuple[int, int]) -> tuple[tuple[bytes, bytes, Body], Entries] | None:
        """One of the events, as `read_event` returns it, and the entries there, values unread; None if it is none."""
        segment, before, _, pairs, _, is_alike, _ = self
        count = at[1] - before
        if segment != at[0] or count > len(pairs):
            return None
        pairs = pairs[count - 1 if is_alike else 0 : count]
        return self.brought_up(pairs, fields_in(pairs))

    def brought_up(
        self, pairs: list[tuple[bytes, bytes]], fields: list[list[Any]]
    ) -> tuple[tuple[bytes, bytes, Body], Entries]:
        """The last of some of its events, and the entries there; those before it are needed unless all are alike."""
        entries = dict(self.entries)
        if self.is_alike:
            put_newest(entries, writes_in(fields[-1]))
        elif self.is_plain:
            put_fresh(entries, map(writes_in, fields))
        else:
            bring_up(entries, map(_played, pairs, fields))
        return event_of(pairs[-1][1][1:33], fields[-1]), entries


def _played(pair: tuple[bytes, bytes], fields: list[Any]) -> Played:
    key, record = pair
    return Played(place_of(key), len(record), fields)


class Stretches:
    """Those of one run. Safe for many threads."""

    def __init__(self, branches: Branches) -> None:
        self.branches = branches
        self._keeping = threading.Lock()
        # By segment and `before`, the oldest first, and those in order; replaced, so no reader sees half of a change.
        self._kept: Mapping[tuple[int, int], Stretch] = {}
        self._order: list[tuple[int, int]] = []
        self._size = 0

    def look(self, at: tuple[int, int]) -> tuple[tuple[bytes, bytes, Body], Entries] | None:
        """See `Stretch.look`; None where the event itself has the manifest, or that lies too far before.

        Raises:
            CorruptionError: a record on the way is damaged or missing.
        """
        order = self._order
        index = bisect_left(order, at)
        stretch = self._kept.get(order[index - 1]) if index else None
        found = None if stretch is None else stretch.look(at)
        return self._read(at) if found is None else found

    def _read(self, at: tuple[int, int]) -> tuple[tuple[bytes, bytes, Body], Entries] | None:
        of = self.branches
        manifest, before, _ = manifest_at(of.storage, of.lineage, of.run, at)
        if not 0 < at[1] - before <= _MAX_EVENTS:
            return None
        entries = {} if manifest is None else manifest_entries(manifest)
        pairs = records_between(of.storage, of.lineage, of.run, at, before)
        fields = [each for _, _, each in bodies(pairs)]
        size = sum([len(record) for _, record in pairs]) + _PAIR_BYTES * len(pairs)
        size += (0 if manifest is None else len(manifest)) + _ENTRY_BYTES * len(entries)
        stretch = Stretch(at[0], before, entries, pairs, *how_alike(fields), size)
        self._keep(stretch)
        return stretch.brought_up(pairs, fields)

    def _keep(self, stretch: Stretch) -> None:
        if stretch.size > KEPT_BYTES:
            return
        with self._keeping:
            kept, order, place = dict(self._kept), [*self._order], (stretch.segment, stretch.before)
            shorter = kept.pop(place, None)
            if shorter is None:
                insort(order, place)
            kept[place] = stretch
            self._size += stretch.size - (0 if shorter is None else shorter.size)
            while self._size > KEPT_BYTES:
                oldest = next(iter(kept))
                self._size -= kept.pop(oldest).size
                order.remove(oldest)
            self._kept, self._order = kept, order
