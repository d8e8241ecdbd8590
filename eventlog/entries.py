"""Where the value of every channel lies, and what events do to that.

Owns entries, and what is read of them: what a value is made of. It reads nothing from storage.

An **entry** says of one channel where its newest full value lies and which events changed it since (its *trail*):

```
 events      .  S  .  d  d  .  d  .        S: set whole    d: delta    trail: [3..4], [6..6]
```

What reading a trail costs beyond what it adds to the value is the entry's `debt`, in bytes. An event's bytes are
charged to the channels that have it on their trail by equal shares or by size, whichever is more.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from eventlog import delta, layout
from eventlog.layout import numbered_key
from eventlog.records import triples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from eventlog.codec import Codec, SealedCodec

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
PART, SNAPSHOT = 0, 1
KEY_KINDS: Final = (layout.PART, layout.SNAPSHOT)


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
        return numbered_key(KEY_KINDS[kind], run, segment, seq, n)


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


# --- what events do ---------------------------------------------------------------------------------------------------


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
        slots = fields[FIRST_SLOT::3]
        if delta.SETS.issuperset(slots):  # of values that were set the newest counts
            fresh.append(fields[FIRST_SLOT - 1 :])
            since += size + READ_COST
        elif _WHOLE.issuperset(slots):
            changes = placed(fields[FIRST_SLOT - 1 :], at)
            fresh.append([item for channel, code, payload, _ in changes for item in (channel, code, payload)])
            since += size + READ_COST
        else:
            put_fresh(entries, fresh)
            fresh.clear()
            changed, cost = advanced(entries, placed(fields[FIRST_SLOT - 1 :], at), at, size)
            apply_changes(entries, changed)
            since += cost
            if trailing is not None:
                trailing.update(changed)
    put_fresh(entries, fresh)
    return since


def writes_in(fields: list[Any]) -> list[Any]:
    """What an event wrote, of the fields of its body: channel, slot and payload of each, one after another."""
    return fields[FIRST_SLOT - 1 :]


def how_alike(events: Sequence[list[Any]]) -> tuple[bool, bool]:
    """Of the fields of several events, whether all only set small values; and whether all set the same channels, too.

    Then the last one says all that they do to entries.
    """
    is_plain = delta.SETS.issuperset(chain.from_iterable([fields[FIRST_SLOT::3] for fields in events]))
    channels = [fields[FIRST_SLOT - 1 :: 3] for fields in events] if is_plain else []
    return is_plain, is_plain and channels.count(channels[0]) == len(channels)


FIRST_SLOT: Final = 6
"""Where the operation of the first write stands in a body."""
_WHOLE: Final = delta.SETS | {code | delta.IN_PART for code in delta.SETS}


def placed(writes: list[Any], at: tuple[int, int]) -> Iterator[Change]:
    """The changes of an event's body, with the places of payloads that have a key of their own."""
    for channel, slot, payload in located(writes, at):
        code = slot & delta.CODE
        growth = delta.unfolded(slot >> delta.CODE_BITS) if code in delta.NETS else _size(payload)
        yield channel, code, payload, growth


def located(writes: list[Any], at: tuple[int, int]) -> Iterator[tuple[str, int, bytes | Place]]:
    """Channel, slot and payload of each of an event's writes; the place of one that has a key of its own."""
    n = 0
    for channel, slot, payload in triples(writes):
        if slot & delta.IN_PART:
            yield channel, slot, part(payload, at, n)
            n += 1
        else:
            yield channel, slot, payload


def part(payload: bytes, at: tuple[int, int], n: int) -> Place:
    """Where the bytes lie of which an event says so; they are its part `n`."""
    return _new(Place, (PART, *at, n, int.from_bytes(payload[16:], "big"), None))


# --- what is read -----------------------------------------------------------------------------------------------------


def _is_unread(payload: bytes | Place) -> bool:
    return isinstance(payload, Place) and payload.data is None


def is_newest_read(entry: Entry) -> bool:
    """As `is_read`, where all but the newest event's change is known to be read."""
    if isinstance(entry.ops, Ops):
        return not _is_unread(entry.ops.payload)
    return entry.full is not None


def same_bytes(one: Entry, other: Entry) -> bool:
    """Whether two read entries have the same full value and the same deltas after it."""
    return one.full == other.full and flat_ops(one, ()) == flat_ops(other, ())


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


def newer_ops(entry: Entry) -> tuple[list[Op], Older]:
    """The newest deltas of an entry, oldest first, and what lies before them: no `Ops`."""
    newer: list[Op] = []
    ops = entry.ops
    while isinstance(ops, Ops):
        newer.append((ops.code, ops.payload))
        ops = ops.before
    return newer[::-1], ops


def flat_ops(entry: Entry, older: Sequence[Op]) -> list[Op]:
    """The deltas of an entry, oldest first; `older` are those that its manifest only names."""
    newer, ops = newer_ops(entry)
    before = (*ops.known, *older) if isinstance(ops, Unread) else ops or older
    return [*before, *[_in_memory(op) for op in newer]]


def _in_memory(op: Op) -> Op:
    """The same with the bytes of its payload in the place of where they lie, if they are read."""
    code, payload = op
    return op if isinstance(payload, bytes) or payload.data is None else (code, payload.data)


def decoded_value(entry: Entry, codec: Codec) -> Any:
    """The value of a read entry: a new object each time."""
    assert entry.full is not None
    if entry.ops is None:
        return codec.decode(entry.full)
    sealed = cast("SealedCodec", codec) if hasattr(codec, "seal") else None
    ops = cast("list[tuple[int, bytes]]", flat_ops(entry, ()))  # all of it is read
    if sealed is None:
        return delta.replayed(codec.decode(entry.full), ops, codec)
    opened = [(code, sealed.opened(data)) for code, data in ops]
    return delta.replayed(sealed.decode(entry.full), opened, sealed.unsealed)


def encoded_value(entry: Entry, codec: Codec) -> bytes:
    """The bytes of a read entry's value."""
    if entry.ops is None and entry.full is not None:
        return entry.full
    return codec.encode(decoded_value(entry, codec))
