"""Task writes: what each task wrote in a superstep, kept before the superstep's event is written.

Owns their records, one per task and superstep. They come in any order, from several threads, before or after the event
they follow; they stay when that superstep's own event is written, and are no part of any state. What they wrote is kept
once: when the event says the same, the task's record names the event's payload and keeps what differs (`refer`), so the
event, which every state is made of, needs nobody else.

```
 record   [id, task, path, slot, channel, payload, slot, channel, payload ...]
          id        of the event they follow, where there is none of that id yet; else nil; in a run that was copied,
                    [owner, epoch, id]: see owners
          slot      a number; [number, path] if that write has another path than the record says
          payload   bytes of the run's codec; or [segment, seq, n, patch], the n-th payload of that event, patched
```

A record is of one owner and one epoch, and so is its key; what a task writes in a later one goes to another record,
which has everything of that task, and hides the older from those who see both. So nothing that a copy sees changes:

- Whoever writes expects the epoch that it knows to be the run's. A copy counts the epoch on, in the commit that makes
  it, so each write was committed either before the copy, in a lower epoch, or in one that the copy does not see.
- In a run that was never copied the epoch's record is absent. That is expected, and all else is as if there were none.
- Owners do not see each other's later epochs, so of records that one owner sees the nearest owner's newest one counts.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.errors import ConflictError, ExpectationError, InvalidInputError, TooLargeError
from eventlog.events import TaskWrite
from eventlog.ids import check_id, packed_anew, unpacked_id
from eventlog.layout import (
    TASK_WRITE,
    WAITING,
    all_of,
    owner_key,
    places,
    task_digest,
    task_write_key,
    task_writes_at,
    task_writes_start,
    waiting_key,
    waiting_on,
    waiting_start,
)
from eventlog.owners import read_owner
from eventlog.patch import behind, patch, patched
from eventlog.records import seal_fields, unseal_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from eventlog.codec import Codec
    from eventlog.entries import Place
    from eventlog.owners import Owners
    from eventlog.storage import Storage

    Range = tuple[bytes, bytes]
    Payload = bytes | list[Any]
    Slots = dict[int, tuple[str, Payload, str]]
    Pair = tuple[bytes, bytes]
    PayloadsOf = Callable[[tuple[int, int]], Sequence[bytes | Place]]

_TRIES = 100
_MAX_SLOT = 1 << 31
_PATH_BYTES = 4096
_MAX_CHANNELS = 1 << 16
_EVENTS = 8
"""So many events that are referred to are kept while writes are read."""
_NO_TASK: Final = object()
REFERRED: Final = 64
"""Payloads of so many bytes are worth a reference; it has about half as many."""


class Anchor(NamedTuple):
    """The event that task writes follow.

    Attributes:
        at: its segment and seq; for an id that was given again, of the first event it named; None if there is none yet.
        id: the id its writer gave or will give it, None if none.
    """

    at: tuple[int, int] | None
    id: str | None


class Kept(NamedTuple):
    """The record of a task that this process wrote, as long as the event of its superstep is to come.

    Attributes:
        key: where it is.
        record: what it is.
        task: whose it is.
        slots: what it says.
        stands: where it is to stand, if it waited for the event that it follows; else None.
    """

    key: bytes
    record: bytes
    task: str
    slots: Slots
    stands: bytes | None = None

    def standing(self, run: int, at: tuple[int, int]) -> Kept:
        """The same, if the event that it follows stands at that place."""
        return self._replace(stands=task_write_key(run, at, self.task))


class _Stored(NamedTuple):
    """A record, read; `id` of the event that is to come."""

    owner: int
    epoch: int
    id: str | None
    task: str
    slots: Slots


_new: Final = tuple.__new__  # makes a named tuple at half the cost


class TaskWrites:
    """The task writes of one owner of a run."""

    def __init__(
        self,
        storage: Storage,
        run: int,
        codec: Codec,
        max_bytes: int,
        stored: tuple[PayloadsOf, Callable[[Place], bytes]],
        owners: Owners,
    ) -> None:
        self._storage = storage
        self.run = run
        self._owners = owners
        self._epoch: bytes | None = None  # the record of it, as known
        self._epoch_key = owner_key(run, 0)
        self._channels: set[str] = set()  # names that were checked
        self._absent: tuple[int | None, Anchor | None, bool | None] = (None, None, None)  # see `of`
        self._waits = ("", b"")  # an event's id, and what the keys of writes that wait for it begin with
        self._codec = codec
        self._max_bytes = max_bytes
        self._payloads_of, self._part = stored

    def of(self, anchor: Anchor) -> list[TaskWrite]:
        """All that follow an event, sorted by path, task and slot.

        Asked again while nobody writes anything, it looks for nothing that is known to be absent.
        """
        # Kept of the last look: when it was, after what there was nothing then, and whether anything waits, if known.
        position = self._storage.position()  # first: what is committed meanwhile changes it
        then, nothing, waits = self._absent
        if position is None or position != then:
            nothing, waits = None, True
        elif anchor == nothing:
            return []
        elif waits is None:
            waits = self._does_any_wait()
        pairs = list(self._storage.scan(self._ranges(anchor, waits=waits)))
        self._absent = (position, nothing if pairs else anchor, waits if position == then else None)
        return self._said(self._seen(anchor, pairs), None, self._codec.decode) if pairs else []

    def _ranges(self, anchor: Anchor, *, waits: bool = True) -> list[Range]:
        ranges = [] if anchor.at is None else [task_writes_at(self.run, anchor.at)]
        return [*ranges, waiting_on(self.run, anchor.id)] if waits and anchor.id is not None else ranges

    def _does_any_wait(self) -> bool:
        """Whether anything waits for an event of the run."""
        return next(iter(self._storage.scan([all_of(WAITING, self.run)], limit=1)), None) is not None

    def _seen(self, anchor: Anchor, pairs: Iterable[Pair]) -> dict[str, Slots]:
        """What each task wrote, as this owner sees it; what stands at the event counts before what waited for it."""
        bounds = self._owners.bounds()
        found: dict[str, Slots] = {}
        of: dict[str, tuple[int, int]] = {}
        for key, record in pairs:
            owner, epoch, event_id, task, slots = _read(key, record)
            bound = bounds.get(owner, 0)
            if (event_id is not None and event_id != anchor.id) or (bound is not None and epoch >= bound):
                continue
            if task in found:
                nearest, known = list(bounds), of[task]
                rank, best = (nearest.index(owner), -epoch), (nearest.index(known[0]), -known[1])
                if rank > best:
                    continue
                slots = {**slots, **found[task]} if rank == best else slots
            found[task], of[task] = slots, (owner, epoch)
        return found

    def _said(
        self, seen: dict[str, Slots], channels: Collection[str] | None, read: Callable[[bytes], Any] = bytes
    ) -> list[TaskWrite]:
        """The writes in their order, with what `read` makes of the bytes of their values."""
        bytes_of = self._resolver()
        found = [
            _new(
                TaskWrite,
                (task, slot, channel, read(payload if type(payload) is bytes else bytes_of(payload)), path),
            )
            for task, slots in seen.items()
            for slot, (channel, payload, path) in slots.items()
            if channels is None or channel in channels
        ]
        if len(found) > 1:
            found.sort(key=lambda write: (write.path, write.task, write.slot))
        return found

    def along(self, anchors: Sequence[Anchor], channels: Collection[str]) -> list[list[TaskWrite]]:
        """What follows each of several events, in `channels` alone, with the bytes of values; by one scan for all."""
        waits = self._does_any_wait()
        pairs: dict[bytes, list[Pair]] = {}
        for key, record in self._storage.scan(self._united(anchors, waits=waits)):
            pairs.setdefault(key[:21] if key[:1] == TASK_WRITE else key[:17], []).append((key, record))
        found = []
        for anchor in anchors:
            own = [pair for begin, _ in self._ranges(anchor) for pair in pairs.get(begin, ())]
            found.append(self._said(self._seen(anchor, own), channels) if own else [])
        return found

    def _united(self, anchors: Sequence[Anchor], *, waits: bool) -> list[Range]:
        """The ranges of all of them; events that stand side by side have one."""
        places_of = sorted({anchor.at for anchor in anchors if anchor.at is not None})
        stretches: list[list[int]] = []
        for segment, seq in places_of:
            if stretches and stretches[-1][0] == segment and stretches[-1][2] == seq - 1:
                stretches[-1][2] = seq
            else:
                stretches.append([segment, seq, seq])
        ranges = [places(TASK_WRITE, self.run, *stretch) for stretch in stretches]
        ids = [anchor.id for anchor in anchors if anchor.id is not None]
        return [*ranges, *(waiting_on(self.run, event_id) for event_id in ids)] if waits else ranges

    def _resolver(self) -> Callable[[Payload], bytes]:
        """What makes bytes of the payloads of one superstep; most refer to one event, which is read once."""
        payloads_of, part = self._payloads_of, self._part
        known: dict[tuple[int, int], Sequence[bytes | Place]] = {}  # few events, and nothing of them that is large
        last: tuple[Place | None, bytes] = (None, b"")  # but for one part: what all tasks wrote is in it, nearly always

        def bytes_of(payload: Payload) -> bytes:
            nonlocal last
            if isinstance(payload, bytes):
                return payload
            segment, seq, n, pieces = payload
            at = segment, seq
            if at not in known:
                if len(known) >= _EVENTS:
                    known.clear()
                known[at] = payloads_of(at)
            written = known[at][n]
            if isinstance(written, bytes):
                return patched(written, pieces)
            if last[0] != written:
                last = written, part(written)
            return patched(last[1], pieces)

        return bytes_of

    def put(
        self, anchor: Anchor, writes: Sequence[TaskWrite], alive: Callable[[int], tuple[bytes, bytes | None]]
    ) -> list[Kept]:
        """Add `writes`; a slot of 0 or more that is taken stays as it is, a negative one is replaced.

        The storage has to be settled then.

        Args:
            anchor: what they follow.
            writes: what was written.
            alive: key and record that must be there still, by how often it was in vain; raises what is to be raised if
                the run is gone.

        Returns:
            The records that may come to refer to the event which is to come.
        """
        encoded = self._encoded(writes)
        for attempt in range(_TRIES):
            try:
                return self._commit(anchor, encoded, alive(attempt), is_known=bool(attempt))
            except ExpectationError:
                continue  # another thread put some of these slots, or began the run: look again
        raise ConflictError("too many writers put the same task writes at once; try again")

    def put_once(
        self,
        at: tuple[int, int] | None,
        event_id: str,
        writes: Sequence[TaskWrite],
        alive: tuple[bytes, bytes | None],
        unnamed: bytes | None = None,
    ) -> list[Kept] | None:
        """As `put`, if these tasks wrote nothing there, `alive` holds, and the key `unnamed` is absent; else None.

        The event that they follow stands `at` a place, or is to come, and has the id that is given. The hot path of a
        run that is not known to have copies, which looks things up once.
        """
        encoded = self._encoded(writes)
        try:
            if self._epoch is not None or self._owners.owner:
                return self._commit(Anchor(at, event_id), encoded, alive, is_known=False, unnamed=unnamed)
            if self._waits[0] != event_id:
                self._waits = (event_id, waiting_start(self.run, event_id))
            waiting, to_come = self._waits[1], event_id if at is None else None
            start = waiting if at is None else task_writes_start(self.run, at)
            expect: dict[bytes, bytes | None] = {alive[0]: alive[1], self._epoch_key: None}
            if unnamed is not None:
                expect[unnamed] = None
            puts: list[Pair] = []
            kept: list[Kept] = []
            for task, slots in encoded.items():
                hashed = task_digest(task)
                key = start + hashed
                record = _record_of(key, to_come, task, slots)
                if len(record) > REFERRED:
                    for _, payload, _ in slots.values():
                        if len(payload) >= REFERRED:
                            kept.append(_new(Kept, (key, record, task, slots, None)))
                            break
                puts.append((key, record))
                expect[key] = expect[waiting + hashed] = None
            if puts or unnamed is not None:  # what waits already may be hidden by what stands at an event of that id
                self._storage.commit(puts, (), expect, is_settled=False)
        except ExpectationError:
            return None
        return kept

    def _encoded(self, writes: Sequence[TaskWrite]) -> dict[str, Slots]:
        """What each task wrote."""
        encoded: dict[str, Slots] = {}
        encode, max_bytes, channels = self._codec.encode, self._max_bytes, self._channels
        last: Any = _NO_TASK
        slots: Slots = {}
        for task, slot, channel, value, path in writes:
            if task is not last:
                slots, last = encoded.setdefault(check_id("task", task), {}), task
            if type(channel) is not str or channel not in channels:
                self._check_channel(channel)
            if path:
                check_id("task path", path, _PATH_BYTES)
            if type(slot) is not int or not -_MAX_SLOT <= slot < _MAX_SLOT:
                raise InvalidInputError(f"slot is an integer of 32 bits, not {slot!r}")
            payload = encode(value, channel)
            if len(payload) > max_bytes:
                raise TooLargeError(f"{channel}: value bytes", len(payload), max_bytes)
            if slot < 0 or slot not in slots:
                slots[slot] = (channel, payload, path)
        return encoded

    def _check_channel(self, channel: str) -> None:
        if len(self._channels) >= _MAX_CHANNELS:
            self._channels.clear()
        self._channels.add(check_id("channel", channel))

    def _commit(
        self,
        anchor: Anchor,
        encoded: dict[str, Slots],
        alive: tuple[bytes, bytes | None],
        *,
        is_known: bool,
        unnamed: bytes | None = None,
    ) -> list[Kept]:
        """Write each task's record. A task nearly always writes once: what is there is read once that proved wrong.

        The key `unnamed`, if any, must not be there.
        """
        puts: list[Pair] = []
        epoch_key = self._epoch_key
        if is_known or self._owners.owner:
            self._epoch = self._storage.get([epoch_key])[0]
        mark = self._mark(epoch_key)
        keys_of = {task: self._keys(anchor, task, mark) for task in encoded}
        found_of: dict[str, list[bytes | None]] = {task: [None] * len(keys) for task, keys in keys_of.items()}
        seen: dict[str, Slots] = {}
        if is_known or mark:  # the records first: what is put on them later is not expected
            found_of = {task: self._storage.get(keys) for task, keys in keys_of.items()}
            seen = self._seen(anchor, self._pairs_of(anchor, keys_of, found_of, mark))
        expect: dict[bytes, bytes | None] = dict([alive, (epoch_key, self._epoch)])
        if unnamed is not None:
            expect[unnamed] = None
        replaced: list[bytes] = []
        kept: list[Kept] = []
        for task, given in encoded.items():
            keys, found, slots = keys_of[task], found_of[task], seen.get(task, {})
            merged = _merged(slots, given)
            if merged == slots:
                continue
            record = _record(keys[0], anchor, task, merged, mark)
            is_long = len(record) > REFERRED and not mark
            if is_long and any(len(payload) >= REFERRED for _, payload, _ in merged.values()):
                kept.append(Kept(keys[0], record, task, merged))
            puts.append((keys[0], record))
            for key, there in zip(keys, found, strict=True):
                expect[key] = there
                if there is not None and key is not keys[0]:
                    replaced.append(key)
        if puts or unnamed is not None:  # what waits already may be hidden by what stands at an event of that id
            self._storage.commit(puts, replaced, expect, is_settled=False)
        return kept

    def _pairs_of(
        self, anchor: Anchor, keys_of: dict[str, list[bytes]], found_of: dict[str, list[bytes | None]], mark: bytes
    ) -> list[Pair]:
        """What some tasks may have written at an anchor, of all epochs; others' writes may be among it.

        However many tasks wrote there, no more is read than there are keys that the records of these may have.

        Args:
            anchor: what the writes follow.
            keys_of: per task the keys of this owner and epoch.
            found_of: what stands under those.
            mark: of this owner and epoch.
        """
        if not mark:
            found = ((key, found_of[task][n]) for task, keys in keys_of.items() for n, key in enumerate(keys))
            return [(key, record) for key, record in found if record is not None]
        newest = _mark.unpack(mark)[1]
        most = (newest + 1) * sum(map(len, keys_of.values()))
        pairs = list(self._storage.scan(self._ranges(anchor), limit=most + 1))
        if len(pairs) <= most:
            return pairs
        marks = [_mark.pack(owner, epoch) if epoch else b"" for owner, epoch in self._owners.epochs(newest)]
        keys = [key for task in keys_of for each in marks for key in self._keys(anchor, task, each)]
        return [(key, record) for key, record in zip(keys, self._storage.get(keys), strict=True) if record is not None]

    def closed(self, anchor: Anchor, *, keep: bool) -> tuple[list[Pair], list[bytes], dict[bytes, bytes | None]]:
        """What to put, delete and expect so that the event's id may be given to another one.

        What waited for the event comes to stand at it; or all goes, unless it is to be kept or the run was copied.
        """
        epoch_key = self._epoch_key
        self._epoch = self._storage.get([epoch_key])[0]
        mark = self._mark(epoch_key)
        pairs = list(self._storage.scan(self._ranges(anchor)))
        own = [(key, record) for key, record in pairs if self._is_own(_read(key, record), anchor)]
        expect: dict[bytes, bytes | None] = {epoch_key: self._epoch, **dict(own)}
        if not mark and not keep:
            return [], [key for key, _ in own], expect
        puts: list[Pair] = []
        replaced: list[bytes] = []
        there = dict(pairs)
        for task, slots in self._waiting(anchor, pairs).items():
            stands, waited = self._keys(anchor, task, mark)
            expect.update((key, there.get(key)) for key in (stands, waited))
            puts.append((stands, _record(stands, anchor, task, slots, mark)))
            if mark:  # copies may need what waited: it is hidden
                puts.append((waited, _record(waited, Anchor(None, anchor.id), task, {}, mark)))
            else:
                replaced.append(waited)
        return puts, replaced, expect

    def _waiting(self, anchor: Anchor, pairs: Sequence[Pair]) -> dict[str, Slots]:
        """What tasks wrote, of which some waited for the event, as this owner sees it."""
        waiting = self._seen(anchor, [pair for pair in pairs if pair[0][:1] == WAITING])
        seen = self._seen(anchor, pairs)
        return {task: seen[task] for task, slots in waiting.items() if slots}

    def resolved(self, key: bytes, record: bytes) -> bytes:
        """A record that says in itself what its task wrote."""
        owner, epoch, event_id, task, slots = _read(key, record)
        bytes_of = self._resolver()
        whole: Slots = {slot: (channel, bytes_of(payload), path) for slot, (channel, payload, path) in slots.items()}
        mark = _mark.pack(owner, epoch) if epoch else b""
        return _record(key, Anchor(None, event_id), task, whole, mark)

    def _is_own(self, stored: _Stored, anchor: Anchor) -> bool:
        return stored.owner == self._owners.owner and stored.id in (None, anchor.id)

    def _mark(self, epoch_key: bytes) -> bytes:
        """What tells records of this owner and epoch from others; empty for the first owner of a run without copies."""
        if self._epoch is None:
            return b""
        first = read_owner(epoch_key, self._epoch)
        assert first is not None
        return _mark.pack(self._owners.owner, first.epoch) if first.epoch else b""

    def _keys(self, anchor: Anchor, task: str, mark: bytes) -> list[bytes]:
        """Where the record of a task is to stand, and where it may have waited for the event."""
        waiting = [] if anchor.id is None else [waiting_key(self.run, anchor.id, task, mark)]
        return waiting if anchor.at is None else [task_write_key(self.run, anchor.at, task, mark), *waiting]


def _merged(slots: Slots, given: Slots) -> Slots:
    merged = dict(slots)
    for slot, write in given.items():
        if slot < 0 or slot not in merged:
            merged[slot] = write
    return merged


_mark = struct.Struct(">xIQ")


def _record_of(key: bytes, event_id: Any, task: str, slots: Slots) -> bytes:
    fields: list[Any] = [event_id, packed_anew(task), ""]
    path: str | None = None
    for slot, (channel, payload, own_path) in slots.items():
        if path is None:
            path = fields[2] = own_path
        fields += slot if own_path == path else [slot, own_path], channel, payload
    return seal_fields(key, fields)


def _record(key: bytes, anchor: Anchor, task: str, slots: Slots, mark: bytes = b"") -> bytes:
    event_id = anchor.id if anchor.at is None else None
    return _record_of(key, [*_mark.unpack(mark), event_id] if mark else event_id, task, slots)


def _read(key: bytes, record: bytes) -> _Stored:
    fields = unseal_fields(key, record)
    event_id, task, path = fields[:3]
    owner, epoch = 0, 0
    if type(event_id) is list:
        owner, epoch, event_id = event_id
    slots: Slots = {}
    for at in range(3, len(fields), 3):
        slot, channel, payload = fields[at : at + 3]
        if type(slot) is list:
            slots[slot[0]] = (channel, payload, slot[1])
        else:
            slots[slot] = (channel, payload, path)
    return _new(_Stored, (owner, epoch, event_id, task if type(task) is str else unpacked_id(task), slots))


def owner_of_record(key: bytes, record: bytes) -> int:
    """Whose record it is."""
    return _read(key, record).owner


def awaited(key: bytes, record: bytes) -> str:
    """The id of the event that a record waits for."""
    event_id = _read(key, record).id
    assert event_id is not None
    return event_id


def references(key: bytes, record: bytes) -> Iterator[tuple[tuple[int, int], int]]:
    """The payloads of events that a record refers to: place of the event, number of the payload."""
    for _, payload, _ in _read(key, record).slots.values():
        if isinstance(payload, list):
            yield (payload[0], payload[1]), payload[2]


def refer(kept: Kept, at: tuple[int, int], payloads: dict[str, tuple[int, bytes]], near: dict[str, int]) -> Pair | None:
    """The record of a task that names an event's payloads where they say what it wrote; None if none does.

    Args:
        kept: the record as it is.
        at: the event's segment and seq.
        payloads: per channel, the number of the event's write and its payload.
        near: per channel, behind what of the payload it is looked for first; is moved on.
    """
    slots: Slots | None = None
    for slot, (channel, payload, path) in kept.slots.items():
        if channel in payloads and isinstance(payload, bytes) and len(payload) >= REFERRED:
            n, written = payloads[channel]
            pieces = patch(written, payload, near.get(channel, 0))
            if pieces is not None:
                near[channel] = behind(pieces)
                slots = dict(kept.slots) if slots is None else slots
                slots[slot] = (channel, [*at, n, pieces], path)
    key = kept.stands or kept.key
    return None if slots is None else (key, _record_of(key, None, kept.task, slots))
