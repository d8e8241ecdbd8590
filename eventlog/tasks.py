"""Task writes: what each task wrote in a superstep, kept before the superstep's event is written.

Owns their records. They come in any order, from several threads, before or after the event they follow; they stay when
that superstep's own event is written, and are no part of any state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventlog.errors import ConflictError, ExpectationError, InvalidInputError, TooLargeError
from eventlog.events import TaskWrite
from eventlog.ids import check_id
from eventlog.layout import digest, task_write_key, task_writes_at
from eventlog.lineage import NO_SEGMENT
from eventlog.records import seal_fields, unseal_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eventlog.codec import Codec
    from eventlog.storage import Storage

_TRIES = 100
_MAX_SLOT = 1 << 31
_PATH_BYTES = 4096


class Anchor(NamedTuple):
    """The event that task writes follow.

    Attributes:
        at: its segment and seq; for an id that was given again, of the first event it named; None if there is none yet.
        id: the id its writer gave or will give it, None if none.
    """

    at: tuple[int, int] | None
    id: str | None

    def places(self) -> list[tuple[int, int]]:
        """Where its task writes may lie: at the event, and at the id alone, for those that came before the event."""
        at_id = [] if self.id is None else [(NO_SEGMENT, int.from_bytes(digest(self.id.encode(), 8), "big"))]
        return at_id if self.at is None else [self.at, *at_id]


class TaskWrites:
    """The task writes of one run."""

    def __init__(self, storage: Storage, run: int, codec: Codec, max_bytes: int) -> None:
        self._storage = storage
        self._run = run
        self._codec = codec
        self._max_bytes = max_bytes

    def of(self, anchor: Anchor) -> list[TaskWrite]:
        """All that follow an event, sorted by path, task and slot."""
        ranges = [task_writes_at(self._run, place) for place in anchor.places()]
        found = []
        for key, record in self._storage.scan(ranges):
            event_id, task, slot, channel, path, payload = unseal_fields(key, record)[:6]
            if event_id is None or event_id == anchor.id:
                found.append(TaskWrite(task, slot, channel, self._codec.decode(payload), path))
        return sorted(found, key=lambda write: (write.path, write.task, write.slot))

    def put(self, anchor: Anchor, writes: Sequence[TaskWrite], alive: Callable[[], tuple[bytes, bytes | None]]) -> None:
        """Add `writes`; a slot of 0 or more that is taken stays as it is, a negative one is replaced.

        Args:
            anchor: what they follow.
            writes: what was written.
            alive: key and record that must be there still; raises what is to be raised if the run is gone.
        """
        encoded = [(write, self._fields(anchor, write)) for write in writes]
        for _ in range(_TRIES):
            try:
                return self._commit(anchor, encoded, alive())
            except ExpectationError:
                continue  # another thread put some of these slots, or began the run: look again
        raise ConflictError("too many writers put the same task writes at once; try again")

    def _fields(self, anchor: Anchor, write: TaskWrite) -> list[object]:
        check_id("task", write.task)
        check_id("channel", write.channel)
        if write.path:
            check_id("task path", write.path, _PATH_BYTES)
        if type(write.slot) is not int or not -_MAX_SLOT <= write.slot < _MAX_SLOT:
            raise InvalidInputError(f"slot is an integer of 32 bits, not {write.slot!r}")
        payload = self._codec.encode(write.value, write.channel)
        if len(payload) > self._max_bytes:
            raise TooLargeError(f"{write.channel}: value bytes", len(payload), self._max_bytes)
        event_id = anchor.id if anchor.at is None else None
        return [event_id, write.task, write.slot, write.channel, write.path, payload]

    def _commit(
        self, anchor: Anchor, encoded: Iterable[tuple[TaskWrite, list[object]]], alive: tuple[bytes, bytes | None]
    ) -> None:
        places = anchor.places()
        puts: dict[bytes, bytes] = {}
        expect = dict([alive])
        replaced: list[bytes] = []
        for write, fields in encoded:
            keys = [task_write_key(self._run, place, write.task, write.slot) for place in places]
            if write.slot >= 0:
                if keys[0] in puts or any(record is not None for record in self._storage.get(keys)):
                    continue
                expect[keys[0]] = None
            replaced += keys[1:]
            puts[keys[0]] = seal_fields(keys[0], fields)
        if puts:
            self._storage.commit(list(puts.items()), replaced, expect)
