"""What a state's values are made of, read from storage: full values where they lie, deltas along their trails.

Owns how few reads that takes, and that nothing is read which the handle has read before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventlog import delta
from eventlog.entries import (
    FIRST_SLOT,
    KEY_KINDS,
    SNAPSHOT,
    Entry,
    Ops,
    Place,
    Unread,
    flat_ops,
    is_read,
    located,
    newer_ops,
    part,
)
from eventlog.errors import CorruptionError
from eventlog.layout import EVENT, numbered_key, place_of, places
from eventlog.records import bodies, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from eventlog.entries import Entries, Older, Op
    from eventlog.storage import Storage

    Read = tuple[bytes, bytes, list[Any]]
    """Key, record and fields of an event, as `bodies` gives them."""

_new: Final = tuple.__new__


class DroppedError(Exception):
    """A manifest names a snapshot that is gone or damaged: read again without manifests."""


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
    newer, base = newer_ops(entry)
    if type(base) is not Unread or entry.trail is None or other.trail is None or not is_read(other):
        return entry
    wanted, shared = entry.trail.ranges(), 0
    for (segment, first, last), there in zip(wanted, other.trail.ranges(), strict=False):
        if (segment, first) != there[:2]:
            break
        shared += min(last, there[2]) - first + 1
    unread = sum([last - first + 1 for _, first, last in wanted]) - len(newer)
    known = tuple(flat_ops(other, ())[: min(shared, unread)])
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
    ops = {channel: flat_ops(entry, older.get(channel, ())) for channel, entry in wanted.items()}
    places = [place for channel, entry in wanted.items() for place in _unread_of(entry, ops[channel])]
    payloads = iter(read_places(storage, run, places))
    return {channel: _filled(entry, ops[channel], payloads) for channel, entry in wanted.items()}


def _unread_of(entry: Entry, ops: Sequence[Op]) -> list[Place]:
    """The places of what has to be read of an entry with those deltas: of its full value, then of its deltas."""
    full = [entry.place] if entry.full is None and entry.place is not None else []
    return full + [payload for _, payload in ops if type(payload) is Place]


def _older_ops(storage: Storage, run: int, wanted: Mapping[str, Entry]) -> dict[str, list[Op]]:
    """The deltas that manifests only name, read from their events: each event once, whoever needs it.

    Raises:
        CorruptionError: an event is damaged or missing.
    """
    named: dict[str, list[tuple[int, int, int]]] = {}
    for channel, entry in wanted.items():
        newer, base = newer_ops(entry)
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
            at = fields.index(channel, FIRST_SLOT - 1)
        except ValueError:
            return
        slot, payload = fields[at + 1 : at + 3]
        if slot & delta.IN_PART:
            n = len([before for before in fields[FIRST_SLOT:at:3] if before & delta.IN_PART])
            payload = part(payload, place_of(key), n)
        yield slot & delta.CODE, payload


def _share_out(
    events: Iterable[Read],
    bounds: Mapping[str, tuple[int, int]],
    older: Mapping[str, list[Op]],
) -> None:
    """Add to each channel's deltas those in events between its first and its last one."""
    for key, _, fields in events:
        at = place_of(key)
        for channel, slot, payload in located(fields[FIRST_SLOT - 1 :], at):
            if channel in bounds and bounds[channel][0] <= at[1] <= bounds[channel][1]:
                older[channel].append((slot & delta.CODE, payload))


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


def read_places(storage: Storage, run: int, places: Sequence[Place]) -> list[bytes]:
    """The bytes at `places`."""
    if not places:
        return []
    keys = [numbered_key(KEY_KINDS[kind], run, segment, seq, n) for kind, segment, seq, n, _, _ in places]
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
