"""Where the value of every channel lies, and when to write it whole.

Owns entries, manifests and snapshots: the way from events to a state that does not begin at the first event. All of it
is derivable from the events, so it may be dropped at any time.

An **entry** says of one channel where its newest full value lies and which events changed it since (its *trail*):

```
 events      .  S  .  d  d  .  d  .        S: set whole    d: delta    trail: [3..4], [6..6]
```

A **manifest** holds the entries of all channels at one event; small values stand in it, large ones in an event's part
or in a **snapshot**. To materialise: the newest manifest, the events after it, and what they name.

The policy is geometric. Bytes are the measure of both sides:

- A manifest is written when the events since the last one outweigh it `MANIFEST_FACTOR` times (at least
  `MANIFEST_FLOOR`), or when `MAX_SEGMENTS` forks lie between. So manifests cost a constant fraction of the events, and
  the events to be read after one are a constant times the manifest, which is never larger than the state and its names.
- A channel is written whole, with a manifest, when what its trail costs to read beyond what it adds to the value
  (`debt`) reaches the value's size. A list that only grows is never written twice: its events are its value. An event's
  bytes are charged to the channels that have it on their trail by equal shares or by size, whichever is more, so
  snapshots cost at most about twice the bytes of the events that made them due.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

import msgpack

from eventlog import delta, layout
from eventlog.errors import CorruptionError
from eventlog.layout import EVENT, MANIFEST, manifest_key, numbered_key, place_of, places
from eventlog.records import bodies, scalars, seal, triples, unseal
from eventlog.trunk import pruned, read_trunk, was_pruned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from eventlog.codec import Codec, SealedCodec
    from eventlog.lineage import Lineage
    from eventlog.storage import Storage
    from eventlog.trunk import Trunk

    Read = tuple[bytes, bytes, list[Any]]
    """Key, record and fields of an event, as `bodies` gives them."""
    Op = tuple[int, bytes | "Place"]
    Older: TypeAlias = "Ops | tuple[Op, ...] | Unread | None"
    Change = tuple[str, int, bytes | "Place", int]
    """Channel, operation, payload, and by how much the value grows."""

INLINE: Final = 512
"""Values up to this many bytes stand in the event and in the manifest; larger ones have a key each."""
INLINE_CHANGE: Final = 1024
"""The same for a payload that changes a value: it is read with the events of its channel anyway."""
READ_COST: Final = 256
"""What reading one more event costs beside its bytes, in bytes: about the time in which as many are decoded."""
SEEK_COST: Final = 4096
"""What a trail that goes on in another segment costs: one more range to read."""
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

PART, SNAPSHOT = 0, 1
_KEY_KINDS: Final = (layout.PART, layout.SNAPSHOT)


class Place(NamedTuple):
    """Bytes with a key of their own.

    Attributes:
        kind: part of an event, or snapshot.
        segment: with `seq` and `n`, where they lie.
        size: how many there are.
        data: the bytes, None if not read.
    """

    kind: int
    segment: int
    seq: int
    n: int
    size: int
    data: bytes | None = None

    def key(self, run: int) -> bytes:
        """The key of these bytes."""
        kind, segment, seq, n, _, _ = self
        return numbered_key(_KEY_KINDS[kind], run, segment, seq, n)


class Trail(NamedTuple):
    """Events that changed a channel since its full value: a range within one segment, and the ranges before it."""

    before: Trail | None
    segment: int
    first: int
    last: int

    def ranges(self) -> list[tuple[int, int, int]]:
        """Segment, first and last seq of each range, oldest first."""
        found: list[tuple[int, int, int]] = []
        trail: Trail | None = self
        while trail is not None:
            found.append(trail[1:])
            trail = trail.before
        return found[::-1]


class Ops(NamedTuple):
    """Deltas of a channel, newest first.

    `before` is None at the full value, `Unread` where a manifest ends, and a plain tuple where the older ones were read
    together: code and payload of each, oldest first.
    """

    before: Older
    code: int
    payload: bytes | Place


class Unread(NamedTuple):
    """Deltas that a manifest only names: those behind the `known` oldest ones and before the newer ones."""

    known: tuple[Op, ...] = ()


UNREAD: Final = Unread()


class Entry(NamedTuple):
    """One channel at one event. Immutable, so that states share entries.

    Attributes:
        kind: the code that last set it.
        size: bytes of its value as encoded, as far as known without decoding.
        debt: what reading its trail costs beyond what it adds.
        full: the bytes of its newest full value, None if not read.
        place: where those bytes lie, None if they stand in the manifest.
        trail: the events that changed it since.
        ops: their deltas, as far as read.
    """

    kind: int
    size: int
    debt: int
    full: bytes | None
    place: Place | None
    trail: Trail | None = None
    ops: Older = None


Entries = dict[str, Entry]
_new: Final = tuple.__new__
"""Makes a named tuple at half the cost: for the one kind of entry that is made by the million."""


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


def advanced(
    entries: Mapping[str, Entry], changes: Iterable[Change], at: tuple[int, int], size: int
) -> tuple[Entries, int]:
    """What an event of `size` bytes does to the entries.

    Returns:
        Per changed channel its new entry, or `GONE`; and the bytes that reading from here on costs in vain or extra.
    """
    changed: Entries = {}
    trailing: list[Change] = []
    cost = size + READ_COST
    for change in changes:
        channel, code, payload, _ = change
        if code == delta.DELETE:
            changed[channel] = GONE
        elif code in delta.SETS:
            if isinstance(payload, bytes):
                changed[channel] = _new(Entry, (code, len(payload), 0, payload, None, None, None))
            else:
                changed[channel] = Entry(code, payload.size, 0, payload.data, payload)
        else:
            trailing.append(change)
    if trailing:
        total = sum(entries[change[0]].size for change in trailing) or 1
        for channel, code, payload, growth in trailing:
            entry = entries[channel]
            share = int(size * max(entry.size / total, 1 / len(trailing)))
            inside, extra = (len(payload), 0) if isinstance(payload, bytes) else (0, payload.size)
            changed[channel] = _trailed(entry, code, payload, growth, at, share + extra)
            cost += extra + max(0, -growth) - min(inside, max(0, growth))  # what it adds is not read in vain
    return changed, cost


GONE: Final = Entry(delta.DELETE, 0, 0, None, None)


def _size(payload: bytes | Place) -> int:
    return len(payload) if isinstance(payload, bytes) else payload.size


def _trailed(entry: Entry, code: int, payload: bytes | Place, growth: int, at: tuple[int, int], share: int) -> Entry:
    segment, seq = at
    trail = entry.trail
    debt = entry.debt + max(0, share + READ_COST - 2 * growth)
    if trail is not None and trail.segment == segment and trail.last == seq - 1:
        trail = _new(Trail, (trail.before, segment, trail.first, seq))
    else:
        if trail is not None and trail.segment != segment:
            debt = entry.debt + share + SEEK_COST
        trail = Trail(trail, segment, seq, seq)
    ops = _new(Ops, (entry.ops, code, payload))
    return _new(Entry, (entry.kind, max(1, entry.size + growth), debt, entry.full, entry.place, trail, ops))


def apply_changes(entries: Entries, changed: Entries) -> None:
    """Bring `entries` up to date with what `advanced` returned."""
    for channel, entry in changed.items():
        if entry is GONE:
            entries.pop(channel, None)
        else:
            entries[channel] = entry


def put_fresh(entries: Entries, fresh: Iterable[list[Any]]) -> None:
    """Bring `entries` up to date with values that were set, as `advanced` would say of them."""
    put_newest(entries, _newest([*fresh]))


def put_newest(entries: Entries, writes: list[Any]) -> None:
    """The same of what one event set."""
    for channel, code, payload in zip(*[iter(writes)] * 3, strict=True):
        if type(payload) is bytes:
            entries[channel] = _new(Entry, (code, len(payload), 0, payload, None, None, None))
        else:
            entries[channel] = _new(Entry, (code, payload.size, 0, payload.data, payload, None, None))


def _newest(sets: list[list[Any]]) -> list[Any]:
    """Of sets that follow each other the last one of each channel; the channels in the order of their first ones."""
    if not sets:
        return []
    names = sets[-1][::3]
    for writes in sets:
        if writes[::3] != names:
            break
    else:  # a loop sets the same channels each time
        return sets[-1]
    writes = [*chain.from_iterable(sets)]
    newest = dict(zip(writes[::3], range(0, len(writes), 3), strict=True))
    return [*chain.from_iterable((channel, *writes[at + 1 : at + 3]) for channel, at in newest.items())]


# --- manifests and snapshots ------------------------------------------------------------------------------------


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
            full = encoded_value(entry, codec)
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


# --- reading ----------------------------------------------------------------------------------------------------


class DroppedError(Exception):
    """A manifest names a snapshot that is gone or damaged: read again without manifests."""


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


class Played(NamedTuple):
    """An event as it is read to know what it does to entries.

    Attributes:
        at: segment and seq.
        size: bytes of its record.
        fields: of its body.
    """

    at: tuple[int, int]
    size: int
    fields: list[Any]


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


def bring_up(entries: Entries, events: Iterable[Played], trailing: set[str] | None = None) -> int:
    """Bring `entries` up to date with events; returns what reading them cost in vain or extra.

    Args:
        entries: are changed in place.
        events: as they follow each other.
        trailing: takes the channels that were not, or not only, set whole.
    """
    since = 0
    fresh: list[list[Any]] = []
    for at, size, fields in events:
        slots = fields[_FIRST_SLOT::3]
        if delta.SETS.issuperset(slots):  # of values that were set the newest counts
            fresh.append(fields[_FIRST_SLOT - 1 :])
            since += size + READ_COST
        elif _WHOLE.issuperset(slots):
            changes = placed(fields[_FIRST_SLOT - 1 :], at)
            fresh.append([item for channel, code, payload, _ in changes for item in (channel, code, payload)])
            since += size + READ_COST
        else:
            put_fresh(entries, fresh)
            fresh.clear()
            changed, cost = advanced(entries, placed(fields[_FIRST_SLOT - 1 :], at), at, size)
            apply_changes(entries, changed)
            since += cost
            if trailing is not None:
                trailing.update(changed)
    put_fresh(entries, fresh)
    return since


def writes_in(fields: list[Any]) -> list[Any]:
    """What an event wrote, of the fields of its body: channel, slot and payload of each, one after another."""
    return fields[_FIRST_SLOT - 1 :]


def how_alike(events: Sequence[list[Any]]) -> tuple[bool, bool]:
    """Of the fields of several events, whether all only set small values; and whether all set the same channels, too.

    Then the last one says all that they do to entries.
    """
    is_plain = delta.SETS.issuperset(chain.from_iterable([fields[_FIRST_SLOT::3] for fields in events]))
    channels = [fields[_FIRST_SLOT - 1 :: 3] for fields in events] if is_plain else []
    return is_plain, is_plain and channels.count(channels[0]) == len(channels)


_FIRST_SLOT: Final = 6
"""Where the operation of the first write stands in a body."""
_WHOLE: Final = delta.SETS | {code | delta.IN_PART for code in delta.SETS}


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


def placed(writes: list[Any], at: tuple[int, int]) -> Iterator[Change]:
    """The changes of an event's body, with the places of payloads that have a key of their own."""
    for channel, slot, payload in _located(writes, at):
        code = slot & delta.CODE
        growth = delta.unfolded(slot >> delta.CODE_BITS) if code in delta.NETS else _size(payload)
        yield channel, code, payload, growth


def _located(writes: list[Any], at: tuple[int, int]) -> Iterator[tuple[str, int, bytes | Place]]:
    """Channel, slot and payload of each of an event's writes; the place of one that has a key of its own."""
    n = 0
    for channel, slot, payload in triples(writes):
        if slot & delta.IN_PART:
            yield channel, slot, _part(payload, at, n)
            n += 1
        else:
            yield channel, slot, payload


def _part(payload: bytes, at: tuple[int, int], n: int) -> Place:
    """Where the bytes lie of which an event says so; they are its part `n`."""
    return _new(Place, (PART, *at, n, int.from_bytes(payload[16:], "big"), None))


def take_over(entries: Entries, known: Entries) -> None:
    """Bring into `entries` what is read already, in `known`: large values that lie where they lay, deltas after one."""
    for channel, entry in entries.items():
        if entry.ops is None and (entry.place is None or entry.full is not None):
            continue
        other = known.get(channel)
        if other is None or other.full is None or other.place != entry.place:
            continue
        if entry.full is None:
            entry = entry._replace(full=other.full)  # noqa: PLW2901 (the same with what is known)
        entries[channel] = _with_ops(entry, other)


def _with_ops(entry: Entry, other: Entry) -> Entry:
    """An entry of a channel with those of its deltas that are known of another entry of it.

    Where both trails begin at one event, so do their full values stand there, and they go together up to a fork.
    """
    newer, base = _newer_ops(entry)
    if type(base) is not Unread or entry.trail is None or other.trail is None or not is_read(other):
        return entry
    wanted, shared = entry.trail.ranges(), 0
    for (segment, first, last), there in zip(wanted, other.trail.ranges(), strict=False):
        if (segment, first) != there[:2]:
            break
        shared += min(last, there[2]) - first + 1
    unread = sum([last - first + 1 for _, first, last in wanted]) - len(newer)
    known = tuple(_flat_ops(other, ())[: min(shared, unread)])
    ops: Older = known if len(known) == unread else Unread(known)
    for code, payload in newer:
        ops = Ops(ops, code, payload)
    return entry._replace(ops=ops)


def read_entries(storage: Storage, run: int, entries: Mapping[str, Entry], channels: Iterable[str]) -> Entries:
    """The entries of `channels` with their full values and deltas read: one scan and one get, whatever the history.

    Raises:
        DroppedError: a snapshot is gone.
        CorruptionError: a record is damaged.
    """
    wanted: Entries = {}
    whole: Entries = {}  # set whole: nothing but their bytes is missing
    for channel in channels:
        entry = entries[channel]
        if entry.ops is not None:
            if not is_read(entry):
                wanted[channel] = entry
        elif entry.full is None:
            whole[channel] = entry
    fulls = read_places(storage, run, [entry.place for entry in whole.values() if entry.place is not None])
    found: Entries = {
        channel: _new(Entry, (kind, size, debt, full, place, None, None))
        for (channel, (kind, size, debt, _, place, _, _)), full in zip(whole.items(), fulls, strict=True)
    }
    return {**found, **_read_trails(storage, run, wanted)} if wanted else found


def _read_trails(storage: Storage, run: int, wanted: Entries) -> Entries:
    """The entries of channels that have deltas, with those and their full values read."""
    older = _older_ops(storage, run, wanted)
    ops = {channel: _flat_ops(entry, older.get(channel, ())) for channel, entry in wanted.items()}
    places = [place for channel, entry in wanted.items() for place in _unread_of(entry, ops[channel])]
    payloads = iter(read_places(storage, run, places))
    return {channel: _filled(entry, ops[channel], payloads) for channel, entry in wanted.items()}


def _unread_of(entry: Entry, ops: Sequence[Op]) -> list[Place]:
    """The places of what has to be read of an entry with those deltas: of its full value, then of its deltas."""
    full = [entry.place] if entry.full is None and entry.place is not None else []
    return full + [payload for _, payload in ops if type(payload) is Place]


def _is_unread(payload: bytes | Place) -> bool:
    return isinstance(payload, Place) and payload.data is None


def is_newest_read(entry: Entry) -> bool:
    """As `is_read`, where all but the newest event's change is known to be read."""
    if isinstance(entry.ops, Ops):
        return not _is_unread(entry.ops.payload)
    return entry.full is not None


def same_bytes(one: Entry, other: Entry) -> bool:
    """Whether two read entries have the same full value and the same deltas after it."""
    return one.full == other.full and _flat_ops(one, ()) == _flat_ops(other, ())


def is_read(entry: Entry) -> bool:
    """Whether the value can be decoded without storage."""
    if entry.full is None:
        return False
    ops = entry.ops
    while isinstance(ops, Ops):
        if _is_unread(ops.payload):
            return False
        ops = ops.before
    return type(ops) is not Unread


def _older_ops(storage: Storage, run: int, wanted: Mapping[str, Entry]) -> dict[str, list[Op]]:
    """The deltas that manifests only name, read from their events: each event once, whoever needs it.

    Raises:
        CorruptionError: an event is damaged or missing.
    """
    named: dict[str, list[tuple[int, int, int]]] = {}
    for channel, entry in wanted.items():
        newer, base = _newer_ops(entry)
        if type(base) is Unread and entry.trail is not None:
            named[channel] = _without_ends(entry.trail.ranges(), len(base.known), len(newer))
    ranges = _united({bounds for bounds_of in named.values() for bounds in bounds_of})
    events = bodies(storage.scan([places(EVENT, run, *bounds) for bounds in ranges]))
    older: dict[str, list[Op]] = {channel: [] for channel in named}
    if len(named) == 1:  # as nearly always: then each of the events has it
        [(channel, found)] = older.items()
        found.extend(_ops_on(channel, events))
    else:
        _share_out(events, {channel: (bounds[0][1], bounds[-1][2]) for channel, bounds in named.items()}, older)
    for channel, bounds_of in named.items():
        if len(older[channel]) != sum(last - first + 1 for _, first, last in bounds_of):
            raise CorruptionError(f"run {run:016x}", f"an event that changed {channel!r} is missing")
    return older


def _ops_on(channel: str, events: Iterable[Read]) -> Iterator[Op]:
    """The deltas of one channel in events, by their keys and fields; ends before one that has none."""
    for key, _, fields in events:
        try:
            at = fields.index(channel, _FIRST_SLOT - 1)
        except ValueError:
            return
        slot, payload = fields[at + 1 : at + 3]
        if slot & delta.IN_PART:
            n = len([before for before in fields[_FIRST_SLOT:at:3] if before & delta.IN_PART])
            payload = _part(payload, place_of(key), n)
        yield slot & delta.CODE, payload


def _share_out(
    events: Iterable[Read],
    bounds: Mapping[str, tuple[int, int]],
    older: Mapping[str, list[Op]],
) -> None:
    """Add to each channel's deltas those in events between its first and its last one."""
    for key, _, fields in events:
        at = place_of(key)
        for channel, slot, payload in _located(fields[_FIRST_SLOT - 1 :], at):
            if channel in bounds and bounds[channel][0] <= at[1] <= bounds[channel][1]:
                older[channel].append((slot & delta.CODE, payload))


def _newer_ops(entry: Entry) -> tuple[list[Op], Older]:
    """The newest deltas of an entry, oldest first, and what lies before them: no `Ops`."""
    newer: list[Op] = []
    ops = entry.ops
    while isinstance(ops, Ops):
        newer.append((ops.code, ops.payload))
        ops = ops.before
    return newer[::-1], ops


def _without_ends(ranges: list[tuple[int, int, int]], oldest: int, newest: int) -> list[tuple[int, int, int]]:
    """The ranges of a trail without so many of its events at either end."""
    left: list[tuple[int, int, int]] = []
    begin, end = oldest, sum([last - first + 1 for _, first, last in ranges]) - newest
    for segment, first, last in ranges:
        length = last - first + 1
        if max(0, begin) < min(end, length):
            left.append((segment, first + max(0, begin), first + min(end, length) - 1))
        begin, end = begin - length, end - length
    return left


def _united(ranges: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same places in ranges that do not overlap, in the order of history."""
    united: list[tuple[int, int, int]] = []
    for segment, first, last in sorted(ranges, key=lambda bounds: (bounds[1], bounds[2])):
        if united and united[-1][0] == segment and first <= united[-1][2] + 1:
            united[-1] = (segment, united[-1][1], max(last, united[-1][2]))
        else:
            united.append((segment, first, last))
    return united


def _flat_ops(entry: Entry, older: Sequence[Op]) -> list[Op]:
    """The deltas of an entry, oldest first; `older` are those that its manifest only names."""
    newer, ops = _newer_ops(entry)
    before = (*ops.known, *older) if isinstance(ops, Unread) else ops or older
    return [*before, *[_in_memory(op) for op in newer]]


def _in_memory(op: Op) -> Op:
    """The same with the bytes of its payload in the place of where they lie, if they are read."""
    code, payload = op
    return op if isinstance(payload, bytes) or payload.data is None else (code, payload.data)


def read_places(storage: Storage, run: int, places: Sequence[Place]) -> list[bytes]:
    """The bytes at `places`."""
    if not places:
        return []
    keys = [numbered_key(_KEY_KINDS[kind], run, segment, seq, n) for kind, segment, seq, n, _, _ in places]
    found: list[Any] = storage.get(keys)
    index = 0
    try:
        for index, key in enumerate(keys):  # in place: a large state's records are given back one by one
            found[index] = unseal(key, found[index] or b"")
    except CorruptionError as error:
        raise _unreadable(places[index], found[index], error) from None
    return found


def _unreadable(place: Place, record: bytes | None, error: CorruptionError) -> Exception:
    """What it means that there is no sound record at a place."""
    if place.kind == SNAPSHOT:
        return DroppedError()
    if record is None:
        return CorruptionError(f"part {place.n} of the event at seq {place.seq}", "it is missing")
    return error


def _filled(entry: Entry, ops: list[Op], payloads: Iterator[bytes]) -> Entry:
    """An entry with its deltas; what is not read of it comes from `payloads`, in the order of `_unread_of`."""
    full = next(payloads) if entry.full is None and entry.place is not None else entry.full
    if Place in {type(payload) for _, payload in ops}:
        ops = [(code, next(payloads) if type(payload) is Place else payload) for code, payload in ops]
    return entry._replace(full=full, ops=tuple(ops))


def decoded_value(entry: Entry, codec: Codec) -> Any:
    """The value of a read entry: a new object each time."""
    assert entry.full is not None
    if entry.ops is None:
        return codec.decode(entry.full)
    sealed = cast("SealedCodec", codec) if hasattr(codec, "seal") else None
    ops = cast("list[tuple[int, bytes]]", _flat_ops(entry, ()))  # all of it is read
    if sealed is None:
        return delta.replayed(codec.decode(entry.full), ops, codec)
    opened = [(code, sealed.opened(data)) for code, data in ops]
    return delta.replayed(sealed.decode(entry.full), opened, sealed.unsealed)


def encoded_value(entry: Entry, codec: Codec) -> bytes:
    """The bytes of a read entry's value."""
    if entry.ops is None and entry.full is not None:
        return entry.full
    return codec.encode(decoded_value(entry, codec))
