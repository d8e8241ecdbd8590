"""When to write down where all values lie, and the values themselves; and how to go on from there.

Owns manifests and snapshots: the way from events to a state that does not begin at the first event. All of it is
derivable from the events, so it may be dropped at any time.

A **manifest** holds the entries of all channels at one event; small values stand in it, large ones in an event's part
or in a **snapshot**. To materialise: the newest manifest, the events after it, and what they name.

The policy is geometric. Bytes are the measure of both sides:

- A manifest is written when the events since the last one outweigh it `MANIFEST_FACTOR` times (at least
  `MANIFEST_FLOOR`), or when `MAX_SEGMENTS` forks lie between. So manifests cost a constant fraction of the events, and
  the events to be read after one are a constant times the manifest, which is never larger than the state and its names.
- A channel is written whole, with a manifest, when the `debt` of its entry reaches the value's size. A list that only
  grows is never written twice: its events are its value. So snapshots cost at most about twice the bytes of the events
  that made them due.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from eventlog.entries import (
    INLINE,
    INLINE_CHANGE,
    PART,
    READ_COST,
    SEEK_COST,
    SNAPSHOT,
    UNREAD,
    Entry,
    Place,
    Played,
    Trail,
    bring_up,
    encoded_value,
    is_read,
)
from eventlog.errors import CorruptionError, TooDeepError
from eventlog.layout import EVENT, MANIFEST, manifest_key, place_of, places
from eventlog.records import bodies, scalars, seal, unseal
from eventlog.trunk import pruned, read_trunk, was_pruned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from eventlog.codec import Codec
    from eventlog.entries import Entries
    from eventlog.lineage import Lineage
    from eventlog.storage import Storage
    from eventlog.trunk import Trunk

_new: Final = tuple.__new__

MANIFEST_FACTOR: Final = 2
MANIFEST_FLOOR: Final = 8192
MAX_SEGMENTS: Final = 8
CONSTANTS: Final = {
    "inline_bytes": INLINE,
    "inline_change_bytes": INLINE_CHANGE,
    "read_cost_bytes": READ_COST,
    "seek_cost_bytes": SEEK_COST,
    "manifest_factor": MANIFEST_FACTOR,
    "manifest_floor_bytes": MANIFEST_FLOOR,
    "manifest_segments": MAX_SEGMENTS,
}


class Progress(NamedTuple):
    """Entries at an event, and what was written since their manifest.

    Attributes:
        entries: per channel.
        since: bytes that reading costs in vain or extra, by the events after the manifest.
        manifest: bytes of that manifest, 0 if there is none.
        segments: segments between it and the event.
    """

    entries: Entries
    since: int
    manifest: int
    segments: int


def materialised(
    run: int, at: tuple[int, int], entries: Mapping[str, Entry], codec: Codec
) -> tuple[list[tuple[bytes, bytes]], Entries]:
    """The manifest of read `entries` at an event, with the snapshots that are due.

    Returns:
        Keys and records to write, the manifest last; the entries that now lie elsewhere.
    """
    puts: list[tuple[bytes, bytes]] = []
    moved: Entries = {}
    rows: dict[str, list[Any]] = {}
    for channel, entry in entries.items():
        if entry.trail is not None and entry.debt >= entry.size:
            try:
                full = encoded_value(entry, codec)
            except TooDeepError:  # as a whole: what changed it was not, each by itself, and says the same
                rows[channel] = _listed(channel, entry)
                continue
            place = None if len(full) <= INLINE else Place(SNAPSHOT, *at, len(puts), len(full))
            entry = moved[channel] = Entry(entry.kind, len(full), 0, full, place)  # noqa: PLW2901 (so it is listed)
            if place is not None:
                key = place.key(run)
                puts.append((key, seal(key, full)))
        rows[channel] = _listed(channel, entry)
    puts.append(manifest_of(manifest_key(run, *at), rows))
    return puts, moved


def whole_entries(
    run: int, at: tuple[int, int], entries: Mapping[str, Entry], first_n: int, codec: Codec
) -> tuple[list[tuple[bytes, bytes]], Entries]:
    """Snapshots of all read `entries` that do not say their value themselves or by a part of that event."""
    puts: list[tuple[bytes, bytes]] = []
    whole: Entries = {}
    for channel, entry in entries.items():
        place, full = entry.place, encoded_value(entry, codec)
        if entry.trail is not None or (place is not None and place[:3] != (PART, *at)):
            place = None if len(full) <= INLINE else Place(SNAPSHOT, *at, first_n + len(puts), len(full))
            if place is not None:
                key = place.key(run)
                puts.append((key, seal(key, full)))
        whole[channel] = Entry(entry.kind, len(full), 0, full, place)
    return puts, whole


def manifest_rows(entries: Mapping[str, Entry]) -> dict[str, list[Any]]:
    """What a manifest says of each channel: of one that was set to a small value its name, the code and the value."""
    return {channel: _listed(channel, entry) for channel, entry in entries.items()}


def manifest_of(key: bytes, rows: Mapping[str, list[Any]]) -> tuple[bytes, bytes]:
    """Key and record of the manifest that says so."""
    return key, seal(key, scalars([*rows.values()]))


def add_up(entries: Entries, channels: Iterable[str], codec: Codec) -> None:
    """Where the deltas of a read channel outweigh its value, put that in their stead, as a manifest would.

    Who goes on from event to event would apply all of them again at each, in vain.
    """
    for channel in channels:
        entry = entries.get(channel)
        if entry is None or entry.trail is None or entry.debt < max(entry.size, MANIFEST_FLOOR):
            continue
        if is_read(entry):
            with suppress(Exception):  # a type that this process does not know: who asks for the value is told
                full = encoded_value(entry, codec)
                entries[channel] = Entry(entry.kind, len(full), 0, full, None)


def room_after(manifest: int) -> int:
    """Bytes that events may cost to read, in vain or extra, before a manifest follows one of `manifest` bytes."""
    return max(MANIFEST_FLOOR, MANIFEST_FACTOR * manifest)


def due(entries: Mapping[str, Entry]) -> list[str]:
    """The channels that the next manifest will write whole."""
    return [channel for channel, entry in entries.items() if entry.trail is not None and entry.debt >= entry.size]


_UNREAD_DATA: Final = (None,)
_SMALL_ROW, _LARGE_ROW = 3, 5
"""Items of a channel that was set whole: its value stands in the manifest, or has a place of its own."""


def _listed(channel: str, entry: Entry) -> list[Any]:
    full: Any = entry.full if entry.place is None else list(entry.place[:5])
    listed = [channel, entry.kind, full]
    if entry.place is not None or entry.trail is not None:
        listed += [entry.size, entry.debt]
    if entry.trail is not None:
        listed.append([number for bounds in entry.trail.ranges() for number in bounds])
    return listed


def manifest_entries(payload: bytes) -> Entries:
    """The entries that a manifest lists, large values and deltas unread."""
    entries: Entries = {}
    for listed in msgpack.unpackb(payload, use_list=False):
        if len(listed) == _SMALL_ROW:
            channel, kind, full = listed
            entries[channel] = _new(Entry, (kind, len(full), 0, full, None, None, None))
        elif len(listed) == _LARGE_ROW:
            channel, kind, place, size, debt = listed
            entries[channel] = _new(Entry, (kind, size, debt, None, _new(Place, place + _UNREAD_DATA), None, None))
        else:
            channel, kind, full, size, debt, bounds = listed
            entries[channel] = _trailing(kind, full, size, debt, bounds)
    return entries


def _trailing(kind: int, full: bytes | tuple[int, ...], size: int, debt: int, bounds: tuple[int, ...]) -> Entry:
    """The entry of a channel whose trail has those bounds."""
    trail: Trail | None = None
    for segment, first, last in zip(*[iter(bounds)] * 3, strict=True):
        trail = Trail(trail, segment, first, last)
    if isinstance(full, bytes):
        return Entry(kind, size, debt, full, None, trail, UNREAD)
    return Entry(kind, size, debt, None, _new(Place, (*full, None)), trail, UNREAD)


def progress_at(
    storage: Storage, lineage: Lineage, run: int, at: tuple[int, int], *, use_manifests: bool = True
) -> Progress:
    """The entries at an event, their values unread: one manifest and the events after it.

    Raises:
        CorruptionError: a record on the way is damaged or missing.
        NotFoundError: the event was pruned.
    """
    manifest, manifest_seq, segments = manifest_at(storage, lineage, run, at) if use_manifests else (None, -1, 0)
    while True:
        entries = {} if manifest is None else manifest_entries(manifest)
        try:
            since = play(storage, lineage, run, at, manifest_seq, entries)
            break
        except CorruptionError:  # older events may have been pruned
            if was_pruned(storage, run, at):
                raise pruned(at) from None
            trunk = read_trunk(storage, run)
            if trunk is None or not manifest_seq < trunk.seq:
                lineage.check_alive()
                raise
            found = _trunk_manifest(storage, run, trunk)
            manifest, manifest_seq = (manifest, manifest_seq) if found is None else (found, trunk.seq)
    return Progress(entries, since, 0 if manifest is None else len(manifest), segments)


def _trunk_manifest(storage: Storage, run: int, trunk: Trunk) -> bytes | None:
    """The manifest that a pruned run begins with; None if the run was pruned again since."""
    key = manifest_key(run, *trunk.at)
    record = storage.get([key])[0]
    return None if record is None and read_trunk(storage, run) != trunk else unseal(key, record or b"")


def play(
    storage: Storage,
    lineage: Lineage,
    run: int,
    at: tuple[int, int],
    before: int,
    entries: Entries,
    trailing: set[str] | None = None,
) -> int:
    """Bring `entries` from the event at seq `before` to the one `at`; see `bring_up`.

    Raises:
        CorruptionError: a record on the way is damaged or missing.
    """
    return bring_up(entries, played(storage, lineage, run, at, before), trailing)


def played(storage: Storage, lineage: Lineage, run: int, at: tuple[int, int], before: int) -> Iterator[Played]:
    """The events after the one at seq `before`, up to the one `at`; raises as `play`."""
    segment, seq = at
    expected = before + 1
    for key, record, fields in bodies(storage.scan(lineage.ranges(EVENT, segment, seq, expected))):
        place = place_of(key)
        if place[1] != expected:
            break
        yield _new(Played, (place, len(record), fields))
        expected += 1
    if expected <= seq:
        raise _missing(lineage, run, segment, expected)


def records_between(
    storage: Storage, lineage: Lineage, run: int, at: tuple[int, int], before: int
) -> list[tuple[bytes, bytes]]:
    """Keys and records of a few events, after the one at seq `before` and up to the one `at`; raises as `play`."""
    pairs = [*storage.scan(lineage.ranges(EVENT, *at, before + 1))]
    if len(pairs) != at[1] - before:
        found = {place_of(key)[1] for key, _ in pairs}
        raise _missing(lineage, run, at[0], next(seq for seq in range(before + 1, at[1] + 1) if seq not in found))
    return pairs


def _missing(lineage: Lineage, run: int, segment: int, seq: int) -> CorruptionError:
    """The error of an event that is not there; raises `NotFoundError` if its run is not, either."""
    lineage.check_alive()
    return CorruptionError(f"run {run:016x}, segment {segment}", f"the event at seq {seq} is missing")


def manifest_at(storage: Storage, lineage: Lineage, run: int, at: tuple[int, int]) -> tuple[bytes | None, int, int]:
    """The newest manifest at or before an event, its seq, and how many segments lie between; None, -1, 0 for none."""
    with suppress(CorruptionError):  # the events say the same, and verify() says what is damaged
        return _newest_manifest(storage, lineage, run, at)
    return None, -1, 0


def _newest_manifest(
    storage: Storage, lineage: Lineage, run: int, at: tuple[int, int]
) -> tuple[bytes | None, int, int]:
    """The newest manifest at or before an event, its seq, and how many segments lie between."""
    number, last = at
    crossed = 0
    while True:
        segment = lineage.segment(number)
        found = storage.scan([places(MANIFEST, run, number, segment.base_seq + 1, last)], reverse=True, limit=1)
        for key, record in found:
            return unseal(key, record), place_of(key)[1], crossed
        if segment.base_seq < 0:
            return None, -1, crossed
        number, last = segment.parent, segment.base_seq
        crossed += 1
