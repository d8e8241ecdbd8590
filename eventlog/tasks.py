"""Task writes: what each task wrote in a superstep, kept before the superstep's event is written.

Owns their records, one per task and superstep. They come in any order, from several threads, before or after the event
they follow; they stay when that superstep's own event is written, and are no part of any state. What they wrote is kept
once: when the event says the same, the task's record names the event's payload and keeps what differs (`refer`), so the
event, which every state is made of, needs nobody else.

```
 record   [id, task, path, slot, channel, payload, slot, channel, payload ...]
          id        of the event they follow, where there is none of that id yet; else nil
          slot      a number; [number, path] if that write has another path than the record says
          payload   bytes of the run's codec; or [segment, seq, n, patch], the n-th payload of that event, patched
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.errors import ConflictError, ExpectationError, InvalidInputError, TooLargeError
from eventlog.events import TaskWrite
from eventlog.ids import check_id, packed_id, unpacked_id
from eventlog.layout import task_write_key, task_writes_at, waiting_key, waiting_on
from eventlog.patch import patch, patched
from eventlog.records import seal_fields, unseal_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from eventlog.codec import Codec
    from eventlog.storage import Storage

    Payload = bytes | list[Any]
    Slots = dict[int, tuple[str, Payload, str]]
    Given = tuple[int, tuple[str, Payload, str]]
    Pair = tuple[bytes, bytes]

_TRIES = 100
_MAX_SLOT = 1 << 31
_PATH_BYTES = 4096
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
    """The record of a task that this process wrote, as long as the event of its superstep is to come."""

    key: bytes
    record: bytes
    task: str
    slots: Slots


class TaskWrites:
    """The task writes of one run."""

    def __init__(
        self,
        storage: Storage,
        run: int,
        codec: Codec,
        max_bytes: int,
        payload_of: Callable[[tuple[int, int], int], bytes],
    ) -> None:
        self._storage = storage
        self.run = run
        self._codec = codec
        self._max_bytes = max_bytes
        self._payload_of = payload_of

    def of(self, anchor: Anchor) -> list[TaskWrite]:
        """All that follow an event, sorted by path, task and slot."""
        ranges = [] if anchor.at is None else [task_writes_at(self.run, anchor.at)]
        if anchor.id is not None:
            ranges.append(waiting_on(self.run, anchor.id))
        found: dict[tuple[str, int], TaskWrite] = {}
        for key, record in self._storage.scan(ranges):
            event_id, task, slots = _read(key, record)
            if event_id is not None and event_id != anchor.id:
                continue
            for slot, (channel, payload, path) in slots.items():
                value = self._codec.decode(self._resolved(payload))
                found.setdefault((task, slot), TaskWrite(task, slot, channel, value, path))
        return sorted(found.values(), key=lambda write: (write.path, write.task, write.slot))

    def _resolved(self, payload: Payload) -> bytes:
        if isinstance(payload, bytes):
            return payload
        segment, seq, n, pieces = payload
        return patched(self._payload_of((segment, seq), n), pieces)

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

    def _encoded(self, writes: Sequence[TaskWrite]) -> dict[str, list[Given]]:
        """What each task wrote."""
        encoded: dict[str, list[Given]] = {}
        encode, max_bytes = self._codec.encode, self._max_bytes
        last = given = None
        for task, slot, channel, value, path in writes:
            if task is not last or given is None:
                given = encoded.setdefault(check_id("task", task), [])
                last = task
            check_id("channel", channel)
            if path:
                check_id("task path", path, _PATH_BYTES)
            if type(slot) is not int or not -_MAX_SLOT <= slot < _MAX_SLOT:
                raise InvalidInputError(f"slot is an integer of 32 bits, not {slot!r}")
            payload = encode(value, channel)
            if len(payload) > max_bytes:
                raise TooLargeError(f"{channel}: value bytes", len(payload), max_bytes)
            given.append((slot, (channel, payload, path)))
        return encoded

    def _commit(
        self,
        anchor: Anchor,
        encoded: dict[str, list[Given]],
        alive: tuple[bytes, bytes | None],
        *,
        is_known: bool,
    ) -> list[Kept]:
        """Write each task's record. A task nearly always writes once: what is there is read once that proved wrong."""
        puts: list[Pair] = []
        expect: dict[bytes, bytes | None] = dict([alive])
        replaced: list[bytes] = []
        kept: list[Kept] = []
        for task, given in encoded.items():
            keys = self._keys(anchor, task)
            slots: Slots = {}
            if is_known:
                slots = self._there(keys, expect, replaced)
            else:
                expect.update(dict.fromkeys(keys))
            merged = _merged(slots, given)
            if merged == slots:
                continue
            record = _record(keys[0], anchor, task, merged)
            if len(record) > REFERRED and any(len(payload) >= REFERRED for _, payload, _ in merged.values()):
                kept.append(Kept(keys[0], record, task, merged))
            puts.append((keys[0], record))
        if puts:
            self._storage.commit(puts, replaced, expect, is_settled=False)
        return kept

    def _there(self, keys: list[bytes], expect: dict[bytes, bytes | None], replaced: list[bytes]) -> Slots:
        """What a task wrote before; expects it to stay so, and notes what moves to the first of the keys."""
        slots: Slots = {}
        for key, record in zip(reversed(keys), reversed(self._storage.get(keys)), strict=True):
            expect[key] = record
            if record is not None:
                slots = {**_read(key, record)[2], **slots}  # what waited was there first
                if key is not keys[0]:
                    replaced.append(key)
        return slots

    def _keys(self, anchor: Anchor, task: str) -> list[bytes]:
        """Where the record of a task is to stand, and where it may have waited for the event."""
        waiting = [] if anchor.id is None else [waiting_key(self.run, anchor.id, task)]
        return waiting if anchor.at is None else [task_write_key(self.run, anchor.at, task), *waiting]


def _merged(slots: Slots, given: Iterable[Given]) -> Slots:
    merged = dict(slots)
    for slot, write in given:
        if slot < 0 or slot not in merged:
            merged[slot] = write
    return merged


def _record(key: bytes, anchor: Anchor, task: str, slots: Slots) -> bytes:
    path = next(iter(slots.values()))[2]
    fields: list[Any] = [anchor.id if anchor.at is None else None, packed_id(task), path]
    for slot, (channel, payload, own_path) in slots.items():
        fields += slot if own_path == path else [slot, own_path], channel, payload
    return seal_fields(key, fields)


def _read(key: bytes, record: bytes) -> tuple[str | None, str, Slots]:
    """The id of the event that is to come, the task, and what it wrote."""
    event_id, task, path, *fields = unseal_fields(key, record)
    slots: Slots = {}
    for slot, channel, payload in zip(*[iter(fields)] * 3, strict=True):
        number, own_path = slot if isinstance(slot, list) else (slot, path)
        slots[number] = (channel, payload, own_path)
    return event_id, unpacked_id(task), slots


def references(key: bytes, record: bytes) -> Iterator[tuple[tuple[int, int], int]]:
    """The payloads of events that a record refers to: place of the event, number of the payload."""
    for _, payload, _ in _read(key, record)[2].values():
        if isinstance(payload, list):
            yield (payload[0], payload[1]), payload[2]


def refer(kept: Kept, at: tuple[int, int], payloads: dict[str, tuple[int, bytes]]) -> Pair | None:
    """The record of a task that names an event's payloads where they say what it wrote; None if none does.

    Args:
        kept: the record as it is.
        at: the event's segment and seq.
        payloads: per channel, the number of the event's write and its payload.
    """
    slots: Slots = {}
    for slot, (channel, payload, path) in kept.slots.items():
        n, written = payloads.get(channel, (0, b""))
        slots[slot] = (channel, payload, path)
        if isinstance(payload, bytes) and len(payload) >= REFERRED and written:
            pieces = patch(written, payload)
            if pieces is not None:
                slots[slot] = (channel, [*at, n, pieces], path)
    return None if slots == kept.slots else (kept.key, _record(kept.key, Anchor(at, None), kept.task, slots))
