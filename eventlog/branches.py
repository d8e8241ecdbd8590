"""The rules of writing: append along a branch, fork one off, never two winners.

Owns what one commit of events holds and expects. Each commit replaces its segment's head record and expects the one it
knows, so of two writers who saw the same head one fails; deleting a run removes the heads first, so late writers fail.

A `Tip` is where a writer stands: the head and the entries there. It changes only after its commit succeeded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from eventlog import delta
from eventlog.catalog import plain_name
from eventlog.codec import MSGPACK, known_codec
from eventlog.entries import (
    INLINE,
    INLINE_CHANGE,
    PART,
    READ_COST,
    Ops,
    Place,
    advanced,
    apply_changes,
    placed,
    put_fresh,
    put_newest,
)
from eventlog.errors import ConflictError, CorruptionError, ExpectationError, IdConflictError, NotFoundError
from eventlog.events import Event, auto_id
from eventlog.ids import packed_id
from eventlog.layout import (
    BRANCH,
    SEQ_BYTES,
    TRUNK,
    all_of,
    branch_key,
    child_key,
    child_of,
    children_at,
    event_key,
    event_keys,
    head_key,
    id_key,
    manifest_beside,
    next_segment,
    owner_key,
    part_key,
    place_of,
    segment_key,
    segments_of,
    trunk_key,
)
from eventlog.lineage import Lineage, Segment, root, segment_record
from eventlog.naming import Naming
from eventlog.owners import Owners, read_owner
from eventlog.records import (
    INT64,
    ROOT_DIGEST,
    event_record,
    event_records,
    head_record,
    payload_digest,
    read_event,
    read_head,
    scalars,
    scalars_of_tuple,
    seal,
    seal_fields,
    stored_writes,
    time_field,
    triples,
    unseal_fields,
    where,
)
from eventlog.snapshots import (
    MANIFEST_FLOOR,
    MAX_SEGMENTS,
    Progress,
    due,
    manifest_of,
    manifest_rows,
    materialised,
    progress_at,
    room_after,
)
from eventlog.tasks import REFERRED, refer
from eventlog.trails import DroppedError, read_entries, read_places
from eventlog.trunk import Trunk, pruned, read_trunk, trunk_of, was_pruned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from eventlog.codec import Codec
    from eventlog.entries import Change, Entries
    from eventlog.records import Body
    from eventlog.storage import Storage
    from eventlog.tasks import Kept

MAIN = "main"
_FORK_TRIES = 100
_new = tuple.__new__  # makes a named tuple at half the cost, where one is made per event


@dataclass(slots=True)
class Tip:
    """Where a writer stands.

    Attributes:
        segment: the stretch that the next event goes to.
        at: segment and seq of the head; of the base, where nothing was written to the segment yet.
        step: of the head, -1 before the first event.
        digest: of the head.
        given_id: the id that the head's writer gave it, if any.
        head: the record that says where the segment ends, as this writer knows it; None if there is none yet.
        load: reads the progress, where it was not needed yet.
        fresh: small values that were set since: a loop need not look at what its sets make of the entries.
        shadows: what values to come are compared with, per channel that was compared before.
        anchored: the head's id and where task writes that follow it stand, None if not known; one, so that who reads
            beside the writer never sees the id of one event with the place of another.
        named: key and record by which the head's id names it, None if not known.
        kept: the records of task writes that this writer put, by where they are to stand.
        loaded: what `load` returned, as it is now.
    """

    segment: Segment
    at: tuple[int, int]
    step: int
    digest: bytes
    given_id: str | None
    head: bytes | None
    load: Callable[[], Progress]
    fresh: list[list[Any]] = field(default_factory=list)
    shadows: dict[str, Any] = field(default_factory=dict)
    anchored: tuple[str, tuple[int, int]] | None = None
    named: tuple[bytes, bytes] | None = None
    kept: dict[bytes, Kept] = field(default_factory=dict)
    loaded: Progress | None = None

    @property
    def progress(self) -> Progress:
        """The entries but for `fresh`, and how far the last manifest lies behind."""
        if self.loaded is None:
            self.loaded = self.load()
        return self.loaded

    @property
    def entries(self) -> Entries:
        """The entries at the head."""
        entries = self.progress.entries
        if self.fresh:
            put_fresh(entries, self.fresh)
            self.fresh = []
        return entries

    def sizes(self) -> dict[str, int]:
        """About the bytes of each channel's value; another thread may be writing, so nothing is brought up to date."""
        fresh = list(self.fresh)
        sizes = {channel: entry.size for channel, entry in dict(self.progress.entries).items()}
        sizes.update((channel, len(payload)) for writes in fresh for channel, _, payload in triples(writes))
        return sizes

    @property
    def is_empty(self) -> bool:
        """Whether there is no event yet."""
        return self.at[1] < 0

    @property
    def head_id(self) -> str | None:
        """The head's id, None before the first event."""
        return self.given_id or (None if self.is_empty else auto_id(*self.at, self.digest))


class EventFacts(NamedTuple):
    """What a tip, or a fork, needs to know of the event it stands at."""

    at: tuple[int, int]
    step: int
    digest: bytes
    given_id: str | None


class Draft(NamedTuple):
    """One event to be written: what is known before its place is.

    Its writes that only set small values stand in `plain` as they will in the body, the others in `writes`.
    """

    plain: list[Any]
    writes: list[tuple[str, delta.Write]]
    step: int
    time_ns: int
    task: str | None
    id: str | None
    meta: bytes | None
    replaces: bool
    """Whether its id may name another event so far, which it then supersedes in the id index."""
    is_under_id: bool = False
    """Whether the id of the event before must still name that one, if the writer gave it one."""

    @property
    def changes(self) -> list[tuple[str, int, bytes, int]]:
        """Its writes: channel, operation, payload, and by how much the value grows."""
        plain = [(channel, code, payload, len(payload)) for channel, code, payload in triples(self.plain)]
        return plain + [(channel, write.code, write.payload, write.growth) for channel, write in self.writes]


class Alike(NamedTuple):
    """Events that follow a draft, by the same task, and all set small values of the same channels: those of a loop.

    Attributes:
        plain: the writes of all of them, one event after another, each as in `Draft.plain`.
        width: how many items of `plain` are one event's.
        times_ns: when each was.
    """

    plain: list[Any]
    width: int
    times_ns: list[int]

    @property
    def channels(self) -> list[str]:
        """Those they set."""
        return self.plain[: self.width : 3]

    def columns(self, step: int, task: str | None) -> list[Iterable[Any]]:
        """The fields of their bodies, one after another, each of all events; `step` is the one before."""
        times = [time if time < INT64 else time_field(time) for time in self.times_ns]
        fields: list[Iterable[Any]] = [times, count(step + 1), repeat(task), repeat(None), repeat(None)]
        for at in range(0, self.width, 3):
            channel, code = self.plain[at : at + 2]
            fields += repeat(channel), repeat(code), self.plain[at + 2 :: self.width]
        return fields


class _Batch(NamedTuple):
    puts: list[tuple[bytes, bytes]]
    expect: dict[bytes, bytes | None]
    deletes: list[bytes]


class _After(NamedTuple):
    """Where a tip stands once a batch is written.

    Attributes:
        events: what was written.
        head: the record that says where the segment ends then.
        progress: of the last event.
        fresh: what `Tip.fresh` is, if the entries are new ones; else None.
        changed: what the tip's entries do not show yet.
    """

    events: list[Event]
    head: bytes
    progress: Progress
    fresh: list[list[Any]] | None
    changed: Entries


def _move(tip: Tip, segment: Segment, drafts: Sequence[Draft], after: _After) -> None:
    """Move the tip behind what was written."""
    events, tip.head, tip.loaded, fresh, changed = after
    last = events[-1]
    if fresh is not None:
        tip.fresh = fresh
    else:
        if drafts[0].plain:  # first, as in the body: the order of channels is that of their first writes
            tip.fresh.append(drafts[0].plain)
        if changed:
            apply_changes(tip.entries, changed)
    tip.segment, tip.at, tip.digest = segment, (segment.number, last.seq), last.digest
    tip.step, tip.given_id = last.step, last.given_id
    if tip.kept:
        tip.kept = {}


class Branches:
    """The branches of one run, over storage. Safe for many threads; a `Tip` belongs to one caller at a time."""

    def __init__(
        self, storage: Storage, run: int, incarnation: int, owner: int, parts: tuple[str, ...], codec: Codec
    ) -> None:
        self.storage = storage
        self.owner = owner
        self.incarnation = incarnation
        self.owners = Owners(storage, run, owner)
        self.naming = Naming(storage, run, self.owners)
        self.run = run
        self.codec = codec
        self.name = plain_name(parts)
        self.lineage = Lineage(storage, run, owner)
        self._root = root(MAIN, parts, incarnation, codec.name)
        self._id_start, self._epoch_key = id_key(run, ""), owner_key(run, 0)
        self._written = (-1, b"", b"")  # the segment written last, its head's key, and what its events' keys begin with

    # --- finding ------------------------------------------------------------------------------------------------

    def segment_of(self, name: str) -> Segment | None:
        """The segment that the branch `name` writes; None if there is no such branch."""
        key = branch_key(self.run, name, self.owner)
        record = self.storage.get([key])[0]
        return None if record is None else self.lineage.segment(_number_in(key, record, name))

    def standing(self, name: str) -> tuple[Segment, tuple[int, int]] | None:
        """As `segment_of`, with what `head_of` says of it: by one read, where it is the segment that begins the run.

        Raises:
            NotFoundError: the run was deleted, or is being deleted.
        """
        owner_at = owner_key(self.run, self.owner)
        keys = (branch_key(self.run, name, self.owner), segment_key(self.run, 0), head_key(self.run, 0), owner_at)
        record, first, head, owned = self.storage.get(keys)
        owner = read_owner(owner_at, owned)
        if owner is None or not owner.is_alive:
            raise NotFoundError(f"run {self.name!r} was deleted")
        beginning = None if first is None else self.lineage.known(0, first)
        if record is None:
            return None
        number = _number_in(keys[0], record, name)
        if number or beginning is None or head is None:
            segment = self.lineage.segment(number)
            return segment, self.head_of(segment)
        return beginning, (0, read_head(head))

    def all(self) -> list[Segment]:
        """The segments that branches write, oldest first."""
        found = [unseal_fields(*pair) for pair in self.storage.scan([all_of(BRANCH, self.run)])]
        own = [self.owner] if self.owner else []
        return sorted(self.lineage.segments([fields[1] for fields in found if fields[2:] == own]))

    def head_of(self, segment: Segment) -> tuple[int, int]:
        """Segment and seq of the newest event of a branch; seq -1 if it has none."""
        return self.heads_of([segment])[0]

    def heads_of(self, segments: Sequence[Segment]) -> list[tuple[int, int]]:
        """`head_of` of each, by one read."""
        records = self.storage.get([head_key(self.run, segment.number) for segment in segments])
        return [
            (segment.parent, segment.base_seq) if record is None else (segment.number, read_head(record))
            for segment, record in zip(segments, records, strict=True)
        ]

    def untouched_fork(self, at: tuple[int, int]) -> Segment | None:
        """The branch that was forked last at an event, if nothing was written to it yet: its head is that event."""
        for key, _ in self.storage.scan([children_at(self.run, at)], reverse=True):
            try:
                segment = self.lineage.segment(child_of(key))
            except NotFoundError:  # of a copy that was deleted at this moment
                continue
            if segment.owner == self.owner and self.segment_of(segment.branch) == segment:  # else it was pruned
                return segment if self.head_of(segment) == at else None
        return None

    def empty_tip(self) -> Tip:
        """The tip of a run without events."""
        return Tip(self._root, (0, -1), -1, ROOT_DIGEST, None, None, lambda: Progress({}, 0, 0, 0))

    def facts(self, at: tuple[int, int], read: tuple[bytes, bytes, Body] | None = None) -> EventFacts:
        """What a tip says of an event, by what `event` returned if it was read already."""
        digest, _, body = self.event(at) if read is None else read
        return EventFacts(at, body.step, digest, body.id)

    def facts_left(self, at: tuple[int, int]) -> tuple[EventFacts | None, int]:
        """As `facts`, None of one that was pruned; and the seq that the run begins at. By one read."""
        key, begins = event_key(self.run, *at), trunk_key(self.run)
        record, begun = self.storage.get([key, begins])
        trunk = trunk_of(begins, begun)
        first = 0 if trunk is None else trunk.seq
        return (None if at[1] < first else self.facts(at, self._event(at, key, record))), first

    def tip_at(self, at: tuple[int, int], segment: Segment | None = None) -> Tip:
        """A tip at an event; for writing on, a `segment` that begins or goes on there."""
        return self.tip_of(self.facts(at), segment)

    def tip_of(self, event: EventFacts, segment: Segment | None = None) -> Tip:
        """As `tip_at`, of an event that is known."""
        at, step, digest, given_id = event
        begins = segment is not None and segment.number != at[0]

        def load() -> Progress:
            progress = progress_at(self.storage, self.lineage, self.run, at)
            return progress._replace(segments=progress.segments + 1) if begins else progress

        segment = segment or self.lineage.segment(at[0])
        head = head_record(at[1], digest) if segment.number == at[0] else None
        return Tip(segment, at, step, digest, given_id, head, load)

    def event(self, at: tuple[int, int]) -> tuple[bytes, bytes, Body]:
        """Digest, parent digest and body of an event.

        Raises:
            NotFoundError: it was pruned, or the run was deleted.
            CorruptionError: it is damaged or missing.
        """
        key = event_key(self.run, *at)
        return self._event(at, key, self.storage.get([key])[0])

    def events_at(self, places: Collection[tuple[int, int]]) -> dict[tuple[int, int], Event]:
        """The events at some places, by one read; raises as `event`."""
        keys = [event_key(self.run, *at) for at in places]
        self.lineage.segments([number for number, _ in places])  # which are known then, as each event needs its own
        return {
            at: self.event_of(at, self._event(at, key, record))
            for at, key, record in zip(places, keys, self.storage.get(keys), strict=True)
        }

    def _event(self, at: tuple[int, int], key: bytes, record: bytes | None) -> tuple[bytes, bytes, Body]:
        """As `event`, of which the record was read."""
        if record is None:
            trunk = read_trunk(self.storage, self.run)
            if trunk is None:
                self.lineage.check_alive()
                raise CorruptionError(where(key), "it is missing")
            was_pruned = at[1] < trunk.seq
            msg = f"there is no event at seq {at[1]} of segment {at[0]}{': it was pruned' if was_pruned else ''}"
            raise NotFoundError(msg)
        return read_event(key, record)

    def event_of(self, at: tuple[int, int], read: tuple[bytes, bytes, Body]) -> Event:
        """An event of this run, of what `event` returned."""
        digest, parent, body = read
        time_ns, step, task, event_id, meta, writes = body
        return Event(
            self, self.lineage.segment(at[0]).branch, *at, digest, parent, step, time_ns, task, event_id, meta, writes
        )

    def written_by(self, event: Event, channel: str) -> Any:
        """What an event writes to one channel, as `Event.writes` says it; None if nothing."""
        return self.decoded_writes((event.segment, event.seq), self._stored_writes(event), channel).get(channel)

    def decoded_writes(
        self, at: tuple[int, int], writes: list[Any] | Draft | bytes, only: str | None = None
    ) -> Mapping[str, Any]:
        """The operations of an event that was read, or drafted and written, or of its record; of one channel `only`."""
        if isinstance(writes, bytes):
            writes = stored_writes(writes)
        if isinstance(writes, Draft):
            found = self.decoded_writes(at, writes.plain)
            return {
                **found,
                **{channel: self._operation(w.code, w.payload) for channel, w in writes.writes},
            }
        found = {}
        for channel, code, payload, _ in placed(writes, at):
            if only is not None and channel != only:
                continue
            data = payload if isinstance(payload, bytes) else self.part(payload)
            found[channel] = self._operation(code, data)
        return found

    def _operation(self, code: int, data: bytes) -> Any:
        """A write as its writer said it; one that is sealed is refused by a codec that knows seals, and opens none."""
        if code != delta.DELETE and hasattr(self.codec, "opened"):
            data = self.codec.opened(data)
        return delta.to_operation(code, data, getattr(self.codec, "unsealed", self.codec))

    def payloads_by(self, event: Event) -> dict[str, bytes | None]:
        """What an event sets to small values, as encoded, by channel; None for a channel that it deletes."""
        found: dict[str, bytes | None] = {}
        for channel, slot, payload in triples(self._stored_writes(event)):
            if slot & delta.CODE == delta.DELETE:
                found[channel] = None
            elif slot & delta.CODE in delta.SETS and not slot & delta.IN_PART:
                found[channel] = payload
        return found

    def _stored_writes(self, event: Event) -> list[Any]:
        """An event's writes as its record has them; those of one that this process wrote may not have come from it."""
        writes = event.raw_writes
        if isinstance(writes, bytes):
            return stored_writes(writes)
        return writes if isinstance(writes, list) else self.event((event.segment, event.seq))[2].writes

    def decoded_meta(self, meta: bytes | None) -> Mapping[str, Any]:
        """Meta is always in the engine's own codec; a tool that opened the run inertly must get it inertly too."""
        own = known_codec(MSGPACK.name) if self.codec is known_codec(self.codec.name) else MSGPACK
        return {} if meta is None or own is None else own.decode(meta)

    def has_event(self, at: tuple[int, int], digest: bytes) -> bool:
        """Whether there is an event at that place whose digest begins so."""
        key = event_key(self.run, *at)
        record = self.storage.get([key])[0]
        return record is not None and read_event(key, record)[0].startswith(digest)

    def part(self, place: Place) -> bytes:
        """A payload that has a key of its own."""
        return read_places(self.storage, self.run, [place])[0]

    def payloads(self, at: tuple[int, int]) -> list[bytes | Place]:
        """The payloads of an event's writes, in order; of the large ones, where they lie."""
        return [payload for _, _, payload, _ in placed(self.event(at)[2].writes, at)]

    def id_entry(self, event_id: str) -> list[int] | None:
        """Segment and seq of the event that a caller-given id names, then of the first one it ever named."""
        return self.naming.entry(event_id)

    def read(self, at: tuple[int, int], entries: Entries, channels: Sequence[str]) -> Entries:
        """The entries of `channels` with their values read; of an event whose snapshots were dropped as well."""
        try:
            return read_entries(self.storage, self.run, entries, channels)
        except CorruptionError:
            trunk = read_trunk(self.storage, self.run)
            self.lineage.check_alive()  # afterwards, for the trunk goes with the run
            if trunk is None:
                raise
            return self._replayed(at, channels)  # it may be pruned, where the entries say that it lies
        except DroppedError:
            return self._replayed(at, channels)

    def read_newest(self, at: tuple[int, int], entries: Entries, channels: Sequence[str]) -> Entries:
        """As `read`, where nothing is unread but what the newest event says: at its cost, however much is read."""
        changes = {channel: ops for channel in channels if isinstance(ops := entries[channel].ops, Ops)}
        places = [ops.payload for ops in changes.values() if isinstance(ops.payload, Place)]
        whole = [channel for channel in channels if channel not in changes]
        try:
            payloads = read_places(self.storage, self.run, places)
        except CorruptionError:
            return self.read(at, entries, channels)  # which knows why, and may know it otherwise
        found = self.read(at, entries, whole) if whole else {}
        for (channel, ops), payload in zip(changes.items(), payloads, strict=True):
            found[channel] = entries[channel]._replace(ops=Ops(ops.before, ops.code, payload))
        return found

    def _replayed(self, at: tuple[int, int], channels: Sequence[str]) -> Entries:
        while True:
            trunk = read_trunk(self.storage, self.run)
            progress = progress_at(self.storage, self.lineage, self.run, at, use_manifests=False)
            found = {channel: progress.entries[channel] for channel in channels}
            try:
                return {**found, **read_entries(self.storage, self.run, found, channels)}
            except (CorruptionError, DroppedError):
                if was_pruned(self.storage, self.run, at):
                    raise pruned(at) from None
                if read_trunk(self.storage, self.run) == trunk:
                    raise CorruptionError(
                        f"run {self.name!r}", "a value that it begins with since it was pruned is gone"
                    ) from None

    def is_left(self, at: tuple[int, int]) -> bool:
        """Whether an event of the first owner's, in a run without others, was not pruned and is not being pruned."""
        segment = self.lineage.segment(at[0])
        return at[1] >= self.first_seq() and self.segment_of(segment.branch) == segment

    def first_seq(self) -> int:
        """The seq that the run begins at: 0, unless it was pruned."""
        trunk = read_trunk(self.storage, self.run)
        return 0 if trunk is None else trunk.seq

    def count_events(self) -> int:
        """How many events lie on the histories of all branches; one that lies on several counts once."""
        first, ends = self.first_seq(), dict[int, int]()
        for head in self.heads_of(self.all()):
            number, seq = head
            while seq >= first:
                is_known = number in ends  # then so is what lies before it
                ends[number] = max(seq, ends.get(number, seq))
                if is_known:
                    break
                segment = self.lineage.segment(number)
                number, seq = segment.parent, segment.base_seq
        return sum(end + 1 - max(first, self.lineage.segment(number).base_seq + 1) for number, end in ends.items())

    def read_tip(self, tip: Tip, channels: Sequence[str]) -> None:
        """Read values at a tip, to be kept there."""
        tip.entries.update(self.read(tip.at, tip.entries, channels))

    # --- writing ------------------------------------------------------------------------------------------------

    def beginning(self) -> tuple[bytes, bytes | None]:
        """Key and record of where the run begins: the same until it is deleted; None before its first event.

        Raises:
            NotFoundError: the run was deleted.
        """
        key, own = segment_key(self.run, 0), owner_key(self.run, self.owner)
        record, owned = self.storage.get([key, own])
        owner = read_owner(own, owned)
        is_deleted = record is not None and not unseal_fields(key, record)
        if is_deleted or owner is None or not owner.is_alive:
            raise self._deleted(MAIN)
        return (own, owned) if self.owner else (key, record)

    def fork(self, name: str | None, base: EventFacts, alive: Segment) -> Segment:
        """Write a new branch that begins at the event `base`; three records, whatever the history.

        Args:
            name: of the branch; None for ``fork-N``.
            base: the event.
            alive: a branch that must still be there.

        Raises:
            ConflictError: there is a branch of that name already.
            NotFoundError: the run was deleted meanwhile.
        """
        if name == alive.branch:
            raise self._taken(name)
        for attempt in range(_FORK_TRIES):
            segment, batch = self._new_branch(name, base, alive, attempt)
            try:
                self.storage.commit(batch.puts, (), batch.expect)
            except ExpectationError as error:
                self._check_fork(error, name, alive)
            else:
                return segment
        raise _crowded()

    def _new_branch(self, name: str | None, base: EventFacts, alive: Segment, attempt: int) -> tuple[Segment, _Batch]:
        begins, record, number = self._trunk_and_next()
        given = f"fork-{number}" if not attempt else f"fork-{number}.{attempt}"  # the first may be a user's name
        segment = self.lineage.forked(number, name or given, (*base.at, base.step, base.digest))
        if self.owner:
            segment = segment._replace(origin=[self.owner])
        batch = self._records_of(segment)
        batch.expect[begins] = record
        key, record_of_alive = self.beginning() if alive.owner != self.owner else self._branch_record(alive)
        batch.expect[key] = record_of_alive
        trunk = trunk_of(begins, record)
        if trunk is not None and base.at[1] < trunk.seq:
            raise NotFoundError(f"the event at seq {base.at[1]} of segment {base.at[0]} was pruned")
        return segment, batch

    def _trunk_and_next(self) -> tuple[bytes, bytes | None, int]:
        """Key and record of the tombstone of what was pruned, and a number that no segment has; by one read."""
        ranges = [all_of(TRUNK, self.run), segments_of(self.run)]
        found = dict(self.storage.scan(ranges, reverse=True, limit=2))
        begins = trunk_key(self.run)
        return begins, found.pop(begins, None), next_segment(found)

    def _records_of(self, segment: Segment) -> _Batch:
        """What makes a segment and its branch, both new."""
        key, record = segment_record(self.run, segment)
        branch = self._branch_record(segment)
        puts = [(key, record), branch]
        if segment.number:
            puts.append((child_key(self.run, (segment.parent, segment.base_seq), segment.number), b""))
        return _Batch(puts, {key: None, branch[0]: None}, [])

    def _branch_record(self, segment: Segment) -> tuple[bytes, bytes]:
        return _branch_pair(self.run, segment.branch, segment.number, self.owner)

    def _check_fork(self, error: ExpectationError, name: str | None, alive: Segment) -> None:
        """Raise what a failed fork means; return if another number is to be tried."""
        if branch_key(self.run, alive.branch, self.owner) in error.keys:
            raise self._deleted(alive.branch) from error
        if name is not None and branch_key(self.run, name, self.owner) in error.keys:
            raise self._taken(name) from error

    def _taken(self, name: str) -> ConflictError:
        return ConflictError(f"there is a branch {name!r} already; choose another name")

    def _deleted(self, branch: str) -> NotFoundError:
        return NotFoundError(f"the branch {branch!r} is gone: it or its run was deleted; open the run again")

    def write_one(self, tip: Tip, draft: Draft) -> Event:  # noqa: C901, PLR0912, PLR0915 (the hot path calls little)
        """As `write`, of one event: the hot path, which calls little. What is rare takes the long way."""
        plain, writes, step, time_ns, task, event_id, meta, _, is_under_id = draft
        head, progress = tip.head, tip.loaded
        if head is None or progress is None:
            return self.write(tip, (draft,))[0]
        segment, parent = tip.segment, tip.digest
        number, seq = tip.at
        at = (number, seq := seq + 1)
        entries, since, manifest, segments = progress
        keys = self._written
        if keys[0] != number:
            self._written = keys = (number, head_key(self.run, number), event_key(self.run, number, 0)[:-SEQ_BYTES])
        _, end_key, start = keys
        batch = puts, expect, deletes = _new(_Batch, ([], {end_key: head}, []))
        packed = None if event_id is None else packed_id(event_id)
        body = [time_ns if time_ns < INT64 else time_field(time_ns), step, task, packed, meta, *plain]
        changes = self._put_changes(batch, at, body, writes) if writes else None
        key = start + seq.to_bytes(SEQ_BYTES, "big")
        record, digest = event_record(key, parent, scalars(body))
        cost, changed = len(record) + READ_COST, None
        if changes is not None:
            changed, cost = advanced(tip.entries, changes, at, len(record))
        since += cost
        puts.append((key, record))
        is_due = (since >= MANIFEST_FLOOR and since >= room_after(manifest)) or segments >= MAX_SEGMENTS
        if is_due:
            try:
                entries, since, manifest, segments = self._put_due(batch, tip, at, plain, changed or {})
            except (CorruptionError, DroppedError):
                return self.write(tip, (draft,))[0]
        end = head_record(seq, digest)
        puts.append((end_key, end))
        if is_under_id and tip.named is not None:
            expect[tip.named[0]] = tip.named[1]
        anchored = named = None
        if event_id is not None:
            anchored = (event_id, self._put_id(batch, at, event_id, 0))
            named = puts[-1]
        if tip.kept:
            self._put_references(batch, tip, at, draft)
        try:
            self.storage.commit(puts, deletes, expect)
        except ExpectationError as error:
            self._check_write(error, tip, segment, (draft,), fork=False)
            return self.write(tip, (draft,), tries=1)[0]
        tip.loaded = _new(Progress, (entries, since, manifest, segments))
        if is_due:
            tip.fresh = []
        else:
            if plain:  # first, as in the body: the order of channels is that of their first writes
                tip.fresh.append(plain)
            if changed:
                apply_changes(tip.entries, changed)
        tip.at, tip.digest, tip.head, tip.step, tip.given_id = at, digest, end, step, event_id
        tip.anchored, tip.named = anchored, named
        if tip.kept:
            tip.kept = {}
        said = draft if writes else plain
        return Event(self, segment.branch, number, seq, digest, parent, step, time_ns, task, event_id, meta, said)

    def write(
        self, tip: Tip, drafts: Sequence[Draft], alike: Alike | None = None, *, fork: bool = False, tries: int = 0
    ) -> list[Event]:
        """Append `drafts` at `tip`, all or none, and move the tip; on a new branch that begins there, if `fork`.

        Events that are `alike` the last draft follow it. `tries` is how often it was in vain before.

        Raises:
            ConflictError: the head is another one by now.
            IdConflictError: an id names another event.
            NotFoundError: the branch or its run was deleted.
        """
        trunk: Trunk | None = None
        for attempt in range(tries, _FORK_TRIES):
            if tip.head is not None and not fork:
                segment, batch = tip.segment, _new(_Batch, ([], {}, []))
            else:
                segment, batch = self._opening(tip, attempt, fork=fork)
            try:
                after = self._fill(batch, tip, segment, drafts, alike)
                if drafts[0].is_under_id and tip.named is not None:
                    batch.expect[tip.named[0]] = tip.named[1]
                anchored: tuple[str, tuple[int, int]] | None = None
                named: tuple[bytes, bytes] | None = None
                first = (segment.number, tip.at[1] + 1)
                if (given := drafts[0].id) is not None:
                    anchored = (given, self._put_id(batch, first, given, attempt))
                    named = batch.puts[-1]
                if tip.kept and not attempt:
                    self._put_references(batch, tip, first, drafts[0])
                self.storage.commit(batch.puts, batch.deletes, batch.expect)
            except (CorruptionError, DroppedError) as error:
                trunk = self._reload(tip, error, trunk)
            except ExpectationError as error:
                self._check_write(error, tip, segment, drafts, fork=fork)
            else:
                _move(tip, segment, drafts, after)
                tip.anchored, tip.named = anchored, named
                return after.events
        raise _crowded()

    def _reload(self, tip: Tip, error: Exception, before: Trunk | None) -> Trunk | None:
        """Read a tip's entries anew after one names what is gone; returns where the run begins, `before` the last time.

        Raises:
            CorruptionError: `error`, if the run was not pruned meanwhile.
        """
        trunk = read_trunk(self.storage, self.run)
        if trunk == before and isinstance(error, CorruptionError):
            raise error
        tip.loaded = progress_at(self.storage, self.lineage, self.run, tip.at, use_manifests=False)
        return trunk

    def _opening(self, tip: Tip, attempt: int, *, fork: bool) -> tuple[Segment, _Batch]:
        """The segment to write to where there is no head yet, and a batch that makes it, or expects it there."""
        if tip.is_empty:
            return self._root, self._records_of(self._root)
        if fork:
            return self._new_branch(None, EventFacts(tip.at, tip.step, tip.digest, tip.given_id), tip.segment, attempt)
        key, record = self._branch_record(tip.segment)  # a fork without events has no head yet
        return tip.segment, _Batch([], {key: record}, [])

    def _fill(  # noqa: C901, PLR0915 (the hot path calls little)
        self, batch: _Batch, tip: Tip, segment: Segment, drafts: Sequence[Draft], alike: Alike | None
    ) -> _After:
        """Add the events of `drafts`, and those after. The tip stays as it is, for the commit may fail."""
        run, number, branch, seq, digest = self.run, segment.number, segment.branch, tip.at[1], tip.digest
        entries, since, manifest, segments = tip.loaded or tip.progress
        fresh: list[list[Any]] | None = None  # None while the entries are the tip's own
        is_tips = segment is tip.segment
        if len(drafts) > 1 or alike is not None or not is_tips:
            entries, fresh, segments = dict(tip.entries), [], segments + (not is_tips)
        room = room_after(manifest)
        events: list[Event] = []
        changed: Entries = {}
        for draft in drafts:
            plain, writes, step, time_ns, task, event_id, meta = draft[:7]
            seq += 1
            parent, changes = digest, None
            body = [time_field(time_ns), step, task, event_id and packed_id(event_id), meta, *plain]
            if writes:
                changes = self._put_changes(batch, (number, seq), body, writes)
            key = event_key(run, number, seq)
            record, digest = event_record(key, parent, scalars(body))
            batch.puts.append((key, record))
            said = draft if writes else plain
            events.append(Event(self, branch, number, seq, digest, parent, step, time_ns, task, event_id, meta, said))
            cost = len(record) + READ_COST
            if changes is not None:
                if fresh is None:
                    entries = tip.entries
                elif fresh:
                    put_fresh(entries, fresh)
                    fresh = []
                changed, cost = advanced(entries, changes, (number, seq), len(record))
            since += cost
            is_due = since >= room or segments >= MAX_SEGMENTS
            if is_due and fresh is None:
                entries, fresh = dict(tip.entries), []
            if fresh is not None:
                if plain:
                    fresh.append(plain)
                if changes is not None:
                    put_fresh(entries, fresh)
                    fresh = []
                    apply_changes(entries, changed)
            if is_due:
                put_fresh(entries, fresh or ())
                manifest = self._put_manifest(batch, (number, seq), entries)
                fresh, since, segments = [], 0, 0
                room = room_after(manifest)
        progress = _new(Progress, (entries, since, manifest, segments))
        if alike is not None:
            events += self._put_alike(batch, events[-1], alike)
            put_fresh(entries, fresh or ())
            progress, fresh = self._put_manifests(batch, alike, progress)
        key = head_key(run, number)
        head = head_record(events[-1].seq, events[-1].digest)
        batch.expect[key] = tip.head if is_tips else None
        batch.puts.append((key, head))
        return _new(_After, (events, head, progress, fresh, changed))

    def _put_alike(self, batch: _Batch, before: Event, alike: Alike) -> Iterator[Event]:
        """Add events that follow a draft's; column by column, since a long batch is many of them."""
        times, first, n = alike.times_ns, before.seq + 1, len(alike.times_ns)
        bodies = map(scalars_of_tuple, zip(*alike.columns(before.step, before.task), strict=False))
        keys = event_keys(self.run, before.segment, first, n)
        records, digests = event_records(keys, before.digest, bodies)
        batch.puts.extend(zip(keys, records, strict=True))
        places = repeat(self), repeat(before.branch), repeat(before.segment), range(first, first + n)
        chain = digests, [before.digest, *digests]
        said = count(before.step + 1), times, repeat(before.task), repeat(None), repeat(None), records
        return map(Event, *places, *chain, *said)

    def _put_manifests(self, batch: _Batch, alike: Alike, progress: Progress) -> tuple[Progress, list[list[Any]]]:
        """Add the manifests due along the events just put, which are alike; the progress then, and what it lacks."""
        entries, since, manifest, segments = progress
        plain, width, n = alike.plain, alike.width, len(alike.times_ns)
        room, rows = room_after(manifest), dict[str, list[Any]]()
        for index, (key, record) in enumerate(batch.puts[-n:], 1):
            since += len(record) + READ_COST
            if since >= room or segments >= MAX_SEGMENTS:
                writes = plain[width * (index - 1) : width * index]
                if rows:  # since then nothing changed but for what the loop sets
                    for at in range(0, width, 3):
                        rows[writes[at]] = writes[at : at + 3]
                    pair = manifest_of(manifest_beside(key), rows)
                    batch.puts.append(pair)
                    manifest = len(pair[1])
                else:
                    put_newest(entries, writes)
                    manifest = self._put_manifest(batch, place_of(key), entries)
                    rows = manifest_rows(entries)
                since, segments, room = 0, 0, room_after(manifest)
        return _new(Progress, (entries, since, manifest, segments)), [plain[-width:]]

    def _put_changes(
        self, batch: _Batch, at: tuple[int, int], body: list[Any], writes: list[tuple[str, delta.Write]]
    ) -> list[Change]:
        """Add the parts of an event, and its writes to the body."""
        changes: list[Change] = []
        parts = 0
        for channel, write in writes:
            code, payload, growth, _, _ = write
            if len(payload) <= (INLINE if code in delta.SETS else INLINE_CHANGE):
                body += (channel, code if code not in delta.NETS else delta.slot(write, in_part=False), payload)
                changes.append((channel, code, payload, growth))
                continue
            body += (channel, delta.slot(write, in_part=True), payload_digest(payload))
            changes.append((channel, code, Place(PART, *at, parts, len(payload), payload), growth))
            key = part_key(self.run, *at, parts)
            batch.puts.append((key, seal(key, payload)))
            parts += 1
        return changes

    def _put_manifest(self, batch: _Batch, at: tuple[int, int], entries: Entries) -> int:
        """Add the manifest of an event, and the snapshots due, which the entries then name; returns its size."""
        if wanted := due(entries):
            entries.update(read_entries(self.storage, self.run, entries, wanted))
        puts, moved = materialised(self.run, at, entries, self.codec)
        batch.puts.extend(puts)
        entries.update(moved)
        return len(puts[-1][1])

    def _put_due(self, batch: _Batch, tip: Tip, at: tuple[int, int], plain: list[Any], changed: Entries) -> Progress:
        """Add the manifest that is due with the event after a tip; the progress then. The tip stays as it is."""
        entries = dict(tip.progress.entries)
        put_fresh(entries, [*tip.fresh, plain] if plain else tip.fresh)
        apply_changes(entries, changed)
        return Progress(entries, 0, self._put_manifest(batch, at, entries), 0)

    def _put_id(self, batch: _Batch, at: tuple[int, int], event_id: str, attempt: int) -> tuple[int, int]:
        """Let the draft's id name the event; returns the place of the first event that it named.

        An id is nearly always new: only once that proved wrong is it looked up.
        """
        if attempt or self.owner:
            renamed = self.naming.renamed(event_id, at)
            batch.expect.update(renamed.expect)
            batch.puts.append(renamed.put)
            return renamed.anchor
        key = self._id_start + event_id.encode()
        batch.expect[key] = None
        batch.puts.append((key, seal_fields(key, [*at, *at])))
        return at

    def _put_references(self, batch: _Batch, tip: Tip, at: tuple[int, int], draft: Draft) -> None:
        """What tasks wrote is kept once: by the event, where it says the same."""
        plain, writes = draft[:2]
        payloads: dict[str, tuple[int, bytes]] = {}
        for n, payload in enumerate(plain[2::3]):
            if len(payload) >= REFERRED:
                payloads[plain[3 * n]] = (n, payload)
        for n, (channel, write) in enumerate(writes, len(plain) // 3):
            if len(write[1]) >= REFERRED:
                payloads[channel] = (n, write[1])
        near: dict[str, int] = {}
        for kept in tip.kept.values() if payloads else ():
            pair = refer(kept, at, payloads, near)
            if pair is not None:
                batch.puts.append(pair)
                batch.expect[kept.key] = kept.record
                if pair[0] != kept.key:  # it waited for the event that it follows
                    batch.expect[pair[0]] = None
                    batch.deletes.append(kept.key)
                batch.expect[self._epoch_key] = None  # a copy must not lean on what is not before it

    def _check_write(
        self, error: ExpectationError, tip: Tip, segment: Segment, drafts: Sequence[Draft], *, fork: bool
    ) -> None:
        """Raise what a failed write means; return if it is to be tried with another number or id entry."""
        if tip.is_empty:
            self._raise_conflict(self._root, tip, error)
        if branch_key(self.run, tip.segment.branch, self.owner) in error.keys:
            raise self._deleted(tip.segment.branch) from error
        if not fork and head_key(self.run, segment.number) in error.keys:
            self._raise_conflict(segment, tip, error)
        if drafts[0].is_under_id and tip.named is not None and tip.named[0] in error.keys:
            msg = f"the id {tip.given_id!r} names another event by now; read it again"
            raise ConflictError(msg, tip.given_id) from error
        for draft in drafts:
            if (
                draft.id is not None
                and not draft.replaces
                and id_key(self.run, draft.id, self.owner) in error.keys
                and self.id_entry(draft.id) is not None
            ):
                msg = f"the id {draft.id!r} names another event of this run; choose another id"
                raise IdConflictError(msg) from error

    def _raise_conflict(self, segment: Segment, tip: Tip, error: ExpectationError) -> NoReturn:
        if self.segment_of(segment.branch) is None:
            raise self._deleted(segment.branch) from error
        at = self.head_of(segment)
        if at[1] < 0:  # deleted, and perhaps begun anew, at this moment
            raise self._deleted(segment.branch) from error
        digest, _, body = self.event(at)
        actual = body.id or auto_id(*at, digest)
        msg = f"branch {segment.branch!r}: the head is {actual}, not {tip.head_id}; run.refresh() takes it over"
        raise ConflictError(msg, tip.head_id, actual) from error


@lru_cache(256)  # who forks expects that of the branch he leaves, and that of the new one again with its first event
def _branch_pair(run: int, name: str, number: int, owner: int) -> tuple[bytes, bytes]:
    key = branch_key(run, name, owner)
    return key, seal_fields(key, [name, number, owner] if owner else [name, number])


def _number_in(key: bytes, record: bytes, name: str) -> int:
    """The segment that the record of the branch `name` names."""
    found, number = unseal_fields(key, record)[:2]
    if found != name:
        raise CorruptionError(f"branch {name!r}", f"its record belongs to {found!r}")
    return int(number)


def _crowded() -> ConflictError:
    return ConflictError("too many writers fork this run at once; try again")
