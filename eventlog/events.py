"""The nouns: what a caller writes, and what an event, a branch and a problem are.

Owns values only; nothing here reads or writes storage.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RunName = str | tuple[str, ...]
"""A string, or a tuple of strings for runs within runs."""


@dataclass(frozen=True, slots=True)
class Extend:
    """Write: put `items` at the end of the channel's list (an absent channel begins as an empty one)."""

    items: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Splice:
    """Write: replace stretches of the channel's list by other items (an absent channel begins as an empty one).

    ``Splice([(0, 0, ["new"]), (5, 2, [])])`` inserts an item at the front and removes the two at 5 and 6.

    Attributes:
        edits: per stretch where it begins, how many items are removed there, and the items that come in their place.
            Indexes count in the list as it was; each stretch begins where the one before ends, or later.
    """

    edits: Sequence[tuple[int, int, Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class AppendText:
    """Write: put `text` at the end of the channel's string (an absent channel begins as an empty one)."""

    text: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Write: remove the channel; within a `Merge`, remove the key (an absent key is no error there)."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Write: change keys of the channel's dict and leave the others (an absent channel begins as an empty one).

    A value sets its key, and may itself be `Delete`, `Merge`, `Extend`, `Splice` or `AppendText`, at any depth.
    """

    changes: Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Write: make the channel equal `value`, recording only what differs from its value now."""

    value: Any


OPERATIONS: Final = frozenset({Extend, Splice, AppendText, Delete, Merge, Update})


class Source(Protocol):
    """What an event was read from, or written to."""

    @property
    def name(self) -> RunName:
        """The run's."""

    def decoded_writes(self, at: tuple[int, int], writes: Any) -> Mapping[str, Any]:
        """The writes of the event at a place, of what it keeps of them."""

    def decoded_meta(self, meta: bytes | None) -> Mapping[str, Any]:
        """What an event says beside its writes, of what it keeps of that."""


class Event:
    """The immutable record of one superstep: who, when, what changed.

    Attributes:
        branch: name of the branch that wrote it.
        segment: number of the stretch it lies in; with `seq`, its place.
        seq: how many events lie before it, from the run's beginning along its own history.
        digest: 16 bytes that cover this event and, through its parent's digest, all before it.
        parent_digest: digest of the event before; zeros for the first one.
        step: the superstep's number; grows along a branch.
        time_ns: when it was written, nanoseconds since the epoch, by the writer's clock.
        task: who wrote it, or None.
    """

    __slots__ = (
        "_meta",
        "_source",
        "_writes",
        "branch",
        "digest",
        "given_id",
        "parent_digest",
        "segment",
        "seq",
        "step",
        "task",
        "time_ns",
    )

    def __init__(  # noqa: PLR0913, PLR0917 (a noun has as many facts as it has)
        self,
        source: Source,
        branch: str,
        segment: int,
        seq: int,
        digest: bytes,
        parent_digest: bytes,
        step: int,
        time_ns: int,
        task: str | None,
        given_id: str | None,
        meta: bytes | None,
        writes: Any,
    ) -> None:
        self._source = source
        self.branch = branch
        self.segment = segment
        self.seq = seq
        self.digest = digest
        self.parent_digest = parent_digest
        self.step = step
        self.time_ns = time_ns
        self.task = task
        self.given_id = given_id
        self._meta = meta
        self._writes = writes

    @property
    def run(self) -> RunName:
        """Name of the run."""
        return self._source.name

    @property
    def id(self) -> str:
        """The id its writer gave it, else one made of its place and digest; either names it within its run."""
        return self.given_id or auto_id(self.segment, self.seq, self.digest)

    @property
    def time(self) -> dt.datetime:
        """When it was written, in UTC, to the microsecond."""
        seconds, nanoseconds = divmod(self.time_ns, 1_000_000_000)
        return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=nanoseconds // 1000)

    @property
    def writes(self) -> Mapping[str, Any]:
        """What it changed, per channel: the new value, or `Extend`, `Splice`, `AppendText`, `Merge`, `Delete`.

        Decoded anew at each access. Appending it to a branch at the same state makes the same change.
        """
        return self._source.decoded_writes((self.segment, self.seq), self._writes)

    @property
    def raw_writes(self) -> Any:
        """What it changed, as the engine keeps it; not for users."""
        return self._writes

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the writer said beside the writes; empty if nothing."""
        return self._source.decoded_meta(self._meta)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and (self.run, self.digest) == (other.run, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        task = "" if self.task is None else f" by {self.task}"
        return f"<Event {self.id} of {self.run!r}: step {self.step} on {self.branch}{task}>"


def auto_id(segment: int, seq: int, digest: bytes) -> str:
    """The id of an event that was given none: found again by its place, and proved by the digest's first bytes."""
    return f"e{segment}.{seq}.{digest[:4].hex()}"


class Fed(NamedTuple):
    """An event in the feed of a log.

    Attributes:
        position: where the feed goes on after it; an opaque string of letters and digits.
        run: name of the run.
        event: the event.
    """

    position: str
    run: RunName
    event: Event


@dataclass(frozen=True, slots=True)
class Branch:
    """A named pointer to an event.

    Attributes:
        name: unique within the run.
        head: the newest event, None if the run is empty.
        forked_from: id of the event it began at, None for a branch that begins the run, or if that event was pruned.
    """

    name: str
    head: Event | None
    forked_from: str | None


class TaskWrite(NamedTuple):
    """What one task wrote in the superstep after an event.

    Attributes:
        task: the task's id.
        slot: the writer's number for it, unique within the task.
        channel: the channel it is meant for.
        value: what it wrote.
        path: sorts the tasks of one superstep, before their ids.
    """

    task: str
    slot: int
    channel: str
    value: Any
    path: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `verify` found wrong.

    Attributes:
        run: name of the run, None if it is not one run's.
        where: the record, event or pointer.
        what: what is wrong with it.
    """

    run: RunName | None
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.run is None else f"{self.run!r}, {self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning a run removed, or would remove.

    Attributes:
        ids: that name nothing since, greatest first.
        events: how many events are gone.
        keys: how many records of all kinds.
        bytes: how many bytes those had; what is kept whole instead is not taken off.
    """

    ids: tuple[str, ...]
    events: int
    keys: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one call may write; what is larger is refused before anything is written.

    Attributes:
        value_bytes: one channel's value or change, as encoded.
        meta_bytes: what stands beside an event's writes, as encoded.
        batch_events: events in one `append_many`.
        channels: channels that one event may change.
    """

    value_bytes: int = 64 << 20
    meta_bytes: int = 64 << 10
    batch_events: int = 100_000
    channels: int = 60_000


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of a log, and the constants that bound its cost.

    Attributes:
        location: where the log lives.
        runs: how many runs there are.
        bytes: what the storage occupies now.
        constants: the snapshot policy's constants, by name.
    """

    location: str
    runs: int
    bytes: int
    constants: Mapping[str, int] = field(default_factory=dict)
