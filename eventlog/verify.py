"""Is everything as it was written? Reads the whole of a run and says what is not.

Owns the invariants of what is stored, checked from the events up: it trusts no index, manifest or snapshot. Others may
write meanwhile, see `_settled`: so a problem's words say which record it is about, and where that stands.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from eventlog.catalog import plain_name, read_listing
from eventlog.codec import known_codec
from eventlog.entries import Place, advanced, apply_changes, decoded_value, placed, same_bytes
from eventlog.errors import (
    ClosedError,
    CorruptionError,
    EventLogError,
    FormatError,
    NotFoundError,
    StorageError,
    UnknownTypeError,
)
from eventlog.events import Problem
from eventlog.layout import (
    BRANCH,
    EVENT,
    ID,
    MANIFEST,
    NAME,
    PART,
    RUN_KINDS,
    SEGMENT,
    SNAPSHOT,
    TASK_WRITE,
    WAITING,
    all_of,
    branch_key,
    child_key,
    event_key,
    head_key,
    id_of,
    manifest_key,
    name_key,
    owner_key,
    owner_of,
    place_of,
    places,
    run_number,
    segment_key,
)
from eventlog.lineage import Lineage
from eventlog.naming import places_in
from eventlog.owners import all_owners, read_owner
from eventlog.records import (
    head_record,
    is_sound,
    payload_digest,
    read_event,
    seal_fields,
    triples,
    unseal,
    unseal_fields,
    where,
)
from eventlog.snapshots import manifest_entries
from eventlog.tasks import references
from eventlog.trails import DroppedError, read_entries
from eventlog.trunk import read_trunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventlog.catalog import Catalog, Listing
    from eventlog.codec import Codec
    from eventlog.entries import Entries, Entry
    from eventlog.events import RunName
    from eventlog.lineage import Segment
    from eventlog.owners import Owner
    from eventlog.storage import Storage
    from eventlog.trunk import Trunk


_READINGS: Final = 5
_ENGINE: Final = (ClosedError, StorageError)
"""What ends all reading, for it is no damage."""


def verified(storage: Storage, catalog: Catalog, only: tuple[str, ...] | None) -> Iterator[Problem]:
    """What is wrong with the run `only`, or with everything; lazily, run by run.

    Others may write meanwhile: what is yielded is true, and what was damaged when this began is yielded, but for what
    was deleted or pruned since, and what a record does not say alone of itself behind other damage.

    Raises:
        NotFoundError: there is no run `only` when this begins.
    """
    if only is not None:
        listing = catalog.find(only)
        if listing is None or not listing.is_alive:
            raise NotFoundError(f"there is no run {plain_name(only)!r}; log.runs() lists them")
        yield from _settled(partial(_run, storage, catalog, listing.number, [only]))
        return
    runs: dict[int, list[tuple[str, ...]]] = defaultdict(list)  # owners of one run are read together
    graves: dict[int, list[tuple[str, ...]]] = {}
    damaged: list[Problem] = []
    try:
        for listing in _listings(storage, damaged):
            if listing.is_alive:
                runs[listing.number].append(listing.parts)
            elif not listing.owner:
                graves[listing.number] = [listing.parts]
    except CorruptionError as error:  # of the storage, which finds no further names
        damaged.append(Problem(None, "catalogue", str(error)))
    yield from damaged
    for number, names in chain(runs.items(), ((n, names) for n, names in graves.items() if n not in runs)):
        yield from _settled(partial(_run, storage, catalog, number, names))
    yield from _settled(lambda: _contained(None, "records", _strays(storage)))


def _settled(read: Callable[[], Iterator[Problem]]) -> list[Problem]:
    """What is wrong with one thing, though it is not read at one moment.

    What a writer does between two reads may look like damage, or hide some behind it. It looks so once: the next time,
    the writer is at another place. Damage is found again, in the same words. So it is read until nothing new is found;
    where writers are quicker, every time, what was found again is what is wrong.
    """
    found: Counter[Problem] = Counter()
    for _ in range(_READINGS):
        problems = list(dict.fromkeys(read()))
        if all(problem in found for problem in problems):
            return problems
        found.update(problems)
    return [problem for problem, times in found.items() if times > 1]


def _contained(run: RunName | None, at: str, check: Iterator[Problem]) -> Iterator[Problem]:
    """What a check finds; where it cannot go on, what stops it is wrong as well."""
    try:
        yield from check
    except _ENGINE:
        raise
    except EventLogError as error:
        yield Problem(run, at, str(error))


def _listings(storage: Storage, damaged: list[Problem]) -> Iterator[Listing]:
    """Every name's record; of those that cannot be read, what is wrong with them goes to `damaged`."""
    for key, record in storage.scan([(NAME, bytes([NAME[0] + 1]))]):
        try:
            listing = read_listing(key, record)
        except (CorruptionError, FormatError) as error:
            damaged.append(Problem(None, "catalogue", str(error)))
        else:
            yield listing


def _run(storage: Storage, catalog: Catalog, number: int, names: list[tuple[str, ...]]) -> Iterator[Problem]:
    """What is wrong with a run and its copies, of those names; with its grave, if they are deleted by now."""
    return _contained(plain_name(names[0]), "run", _checks(storage, catalog, number, names))


def _checks(storage: Storage, catalog: Catalog, number: int, names: list[tuple[str, ...]]) -> Iterator[Problem]:
    name, begins = plain_name(names[0]), segment_key(number, 0)
    if storage.get([begins])[0] == seal_fields(begins, []):
        return  # deleted, or about to be: the tombstone is there, so that late writers fail
    listings = [listing for listing in map(catalog.find, names) if listing is not None and listing.number == number]
    alive = [listing for listing in listings if listing.is_alive]
    if not alive and not any(owner.number and owner.is_alive for owner in all_owners(storage, number)):
        yield Problem(name, where(begins), "the tombstone of the deleted run is damaged or missing")
        return
    for listing in alive:
        if listing.owner:
            yield from _copy(storage, listing)
        elif run_number(listing.parts, listing.incarnation) != number:
            yield Problem(plain_name(listing.parts), where(name_key(listing.parts)), "it leads to another name's run")
    yield from _Run(storage, number, name).problems()


def _copy(storage: Storage, listing: Listing) -> Iterator[Problem]:
    """A copy's record says what it sees of the run that it shares."""
    key = owner_key(listing.number, listing.owner)
    owner = read_owner(key, storage.get([key])[0])
    if owner is None:  # or the copy is about to be deleted: then its branches went first
        branches = (unseal_fields(*pair) for pair in storage.scan([all_of(BRANCH, listing.number)]))
        is_wrong = any(fields[2:3] == [listing.owner] for fields in branches)
    else:
        is_wrong = owner.parts != listing.parts
    if is_wrong:
        yield Problem(plain_name(listing.parts), where(key), "the record of the copy is missing, or another one's")


def _strays(storage: Storage) -> Iterator[Problem]:
    """Records of runs that no name leads to; a deleted run leaves nothing but the tombstone where it began."""
    known: set[int] = set()
    for listing in _listings(storage, []):
        known.update((listing.number, *(p[0] if isinstance(p, list) else p for p in listing.unswept)))
    for kind in RUN_KINDS:
        begin, end = kind + bytes(8), bytes([kind[0] + 1])
        while found := next(iter(storage.scan([(begin, end)], limit=1)), None):
            key, record = found
            number = int.from_bytes(key[1:9], "big")
            if number not in known and not (kind == SEGMENT and record == seal_fields(key, [])):
                yield Problem(None, where(key), "belongs to no run in the catalogue")
            if number == (1 << 64) - 1:
                break
            begin = kind + (number + 1).to_bytes(8, "big")


class _Run:
    """The checks of one run."""

    def __init__(self, storage: Storage, number: int, name: RunName) -> None:
        self.storage = storage
        self.number = number
        self.name = name
        self.owners: dict[int, Owner] = {}
        self.segments: dict[int, Segment] = {}
        self.unread: dict[int, str] = {}  # segments that were not read to their end, and what stands in the way
        self.reached = -1  # seq of the last event that was read, in the segment that is read now
        self.trunk: Trunk | None = None
        self.codec: Codec | None = None
        self.ids: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.forks: dict[int, set[int]] = defaultdict(set)
        self.bases: dict[tuple[int, int], tuple[Entries, bytes, int]] = {}

    def problem(self, at: str, what: str) -> Problem:
        return Problem(self.name, at, what)

    def problems(self) -> Iterator[Problem]:
        """All checks, those of what others lean on first."""
        segments = list(Lineage(self.storage, self.number).all())
        if not segments or segments[0].number:
            kinds = [
                kind for kind in RUN_KINDS if kind not in (TASK_WRITE, WAITING)
            ]  # those may come before the first event
            if next(iter(self.storage.scan([all_of(kind, self.number) for kind in kinds], limit=1)), None):
                yield self.problem("segment 0", "the record of where the run begins is missing")
            yield from self._sealed(WAITING)
            return
        self.owners = {owner.number: owner for owner in all_owners(self.storage, self.number)}
        if 0 not in self.owners:
            key = owner_key(self.number, 0)
            yield self.problem(where(key), "the record of who began the run is missing, and there are copies")
        if run_number(*segments[0].origin[:2]) != self.number:
            yield self.problem("segment 0", f"belongs to run {segments[0].origin[:1]}")
        self.codec = known_codec(str(segments[0].origin[2]))
        self.trunk = read_trunk(self.storage, self.number)
        parents = {segment.parent for segment in segments if segment.number} | {0}
        segments = [each for each in segments if each.number in parents or self._is_alive(each)]  # else only a number
        if self.trunk is not None:
            segments = list(self._above(segments))
        self.segments = {segment.number: segment for segment in segments}
        for segment in segments:
            self.forks[segment.parent].add(segment.base_seq)
        for segment in segments:
            yield from self._walked(segment)
        yield from _contained(self.name, "branches", self._branches())
        yield from _contained(self.name, "ids", self._ids())
        yield from self._task_writes()
        yield from self._sealed(WAITING)
        yield from self._sealed(SNAPSHOT)

    def _above(self, segments: list[Segment]) -> Iterator[Segment]:
        """Of a pruned run, the segments that branches write and that what is left lies in."""
        for segment in segments:
            key = branch_key(self.number, segment.branch, segment.owner)
            record, head = self.storage.get([key, head_key(self.number, segment.number)])
            leads = record is not None and unseal_fields(key, record)[1] == segment.number
            is_written = leads or head is not None  # the head of a branch that was pruned went with it
            if is_written or (not self._is_alive(segment) and self._is_above(segment)):
                yield segment

    def _is_above(self, segment: Segment) -> bool:
        """Whether a segment has events that were not pruned; others keep their record as a way to the root."""
        trunk = self.trunk
        return trunk is None or segment.number == trunk.segment or segment.base_seq >= trunk.seq

    def _walked(self, segment: Segment) -> Iterator[Problem]:
        try:
            yield from self._segment(segment)
        except _ENGINE:
            raise
        except EventLogError as error:
            self.unread[segment.number] = str(error)
            yield self.problem(f"segment {segment.number}", str(error))
            yield from _contained(self.name, f"segment {segment.number}", self._behind(segment))

    def _behind(self, segment: Segment) -> Iterator[Problem]:
        """What else is damaged in a segment that was not read to its end, as far as each record says it alone."""
        for kind in (EVENT, PART, MANIFEST):
            rest = places(kind, self.number, segment.number, self.reached + 2, (1 << 63) - 2)
            for key, record in self.storage.scan([rest]):
                if not is_sound(key, record):
                    yield self.problem(where(key), "its checksum differs; restore it from a copy")

    def _segment(self, segment: Segment) -> Iterator[Problem]:
        at = f"segment {segment.number}"
        self.reached = segment.base_seq
        entries, digest, step = {}, segment.base_digest, segment.base_step
        if segment.number and not (self.trunk is not None and self.trunk.segment == segment.number):
            base = self.bases.get((segment.parent, segment.base_seq))
            if base is None:
                why = self.unread[segment.number] = self.unread.get(segment.parent, "it is missing")
                yield self.problem(at, f"the event it begins at, seq {segment.base_seq}, cannot be read: {why}")
                return
            entries, digest, step = dict(base[0]), base[1], base[2]
            if (digest, step) != (segment.base_digest, segment.base_step):
                yield self.problem(at, "the event it begins at is another one than when it was forked")
            if (
                self.storage.get([child_key(self.number, (segment.parent, segment.base_seq), segment.number)])[0]
                is None
            ):
                yield self.problem(at, "its parent's index of children does not name it")
        yield from self._events(segment, entries, digest, step)

    def _events(  # noqa: C901 (one walk; what it looks at hangs together)
        self, segment: Segment, entries: Entries, digest: bytes, step: int
    ) -> Iterator[Problem]:
        seq = segment.base_seq
        manifests = self._manifests(segment)
        trunk = self.trunk if self.trunk is not None and self.trunk.segment == segment.number else None
        if trunk is not None:
            seq, digest, step = trunk.seq - 1, trunk.before, trunk.step
            manifests = {at_seq: key for at_seq, key in manifests.items() if at_seq >= trunk.seq}
        for key, record in self.storage.scan([places(EVENT, self.number, segment.number, seq + 1, (1 << 63) - 2)]):
            at = place_of(key)
            if at[1] != seq + 1:
                raise CorruptionError(where(key), f"the event before it, seq {seq + 1}, is missing")
            found, parent, body = read_event(key, record)
            if parent != digest:
                yield self.problem(where(key), "it does not follow the event before it: the chain of digests is broken")
            if seq >= 0 and body.step <= step:
                yield self.problem(where(key), f"step {body.step} does not follow step {step}")
            if body.id is not None:
                self.ids[body.id].append(at)
            changes, problems = self._read_parts(key, body.writes, at)
            yield from problems
            if trunk is not None and at == trunk.at:
                manifests.pop(at[1], None)
                entries = self._begun(manifest_key(self.number, *at))
            else:
                apply_changes(entries, advanced(entries, changes, at, len(record))[0])
            seq = self.reached = at[1]
            digest, step = found, body.step
            if seq in manifests:
                yield from self._manifest(manifests.pop(seq), entries)
            if seq in self.forks[segment.number]:
                self.bases[at] = (dict(entries), digest, step)
        key = head_key(self.number, segment.number)
        head = head_record(seq, digest) if seq > segment.base_seq else None
        if self._is_alive(segment) and self.storage.get([key])[0] != head:
            yield self.problem(where(key), f"the segment's head is not its newest event, seq {seq}")
        for key in manifests.values():
            yield self.problem(where(key), "there is no event at its place")

    def _begun(self, key: bytes) -> Entries:
        """The state that a pruned run begins with, which stands in no events."""
        record = self.storage.get([key])[0]
        if record is None:
            raise CorruptionError(where(key), "the manifest that the pruned run begins with is missing")
        entries = manifest_entries(unseal(key, record))
        try:
            entries.update(read_entries(self.storage, self.number, entries, list(entries)))
        except DroppedError:
            raise CorruptionError(where(key), "a value that the pruned run begins with is missing") from None
        return entries

    def _read_parts(
        self, key: bytes, writes: list[Any], at: tuple[int, int]
    ) -> tuple[list[tuple[str, int, bytes | Place, int]], list[Problem]]:
        """The changes of an event with the payloads of its parts, and what is wrong with those."""
        changes: list[tuple[str, int, bytes | Place, int]] = []
        problems = []
        for (channel, code, payload, growth), (_, _, stored) in zip(placed(writes, at), triples(writes), strict=True):
            if not isinstance(payload, Place):
                changes.append((channel, code, payload, growth))
                continue
            record = self.storage.get([payload.key(self.number)])[0]
            data = b"" if record is None else unseal(payload.key(self.number), record)
            if payload_digest(data) != stored:
                problems.append(
                    self.problem(where(key), f"the large payload of channel {channel!r} is not the one written")
                )
            changes.append((channel, code, payload._replace(data=data), growth))
        return changes, problems

    def _manifests(self, segment: Segment) -> dict[int, bytes]:
        bounds = places(MANIFEST, self.number, segment.number, 0, (1 << 63) - 2)
        return {place_of(key)[1]: key for key, _ in self.storage.scan([bounds])}

    def _manifest(self, key: bytes, entries: Entries) -> Iterator[Problem]:
        """Whether a manifest says what the events up to it say."""
        record = self.storage.get([key])[0]
        if record is None:
            return
        listed = manifest_entries(unseal(key, record))
        if list(listed) != list(entries):
            yield self.problem(where(key), "it lists other channels than the events")
            return
        unlike = [channel for channel, entry in listed.items() if not _lie_alike(entry, entries[channel])]
        try:
            read = read_entries(self.storage, self.number, listed, unlike)
        except DroppedError:
            return
        except CorruptionError:
            if self.trunk is None:
                raise
            return  # it names what was pruned: whoever reads it begins at the trunk
        for channel in unlike:
            entry = read.get(channel, listed[channel])
            if self.codec is None or _equal(entry, entries[channel], self.codec):
                entries[channel] = entry  # from here on that is what the next manifest goes on from
            else:
                yield self.problem(where(key), f"channel {channel!r} has another value than the events say")

    def _branches(self) -> Iterator[Problem]:
        written = set()
        for key, record in self.storage.scan([all_of(BRANCH, self.number)]):
            name, number = unseal_fields(key, record)[:2]
            written.add(number)
            if number not in self.segments:
                yield self.problem(f"branch {name!r}", f"its segment {number} is missing")
            elif self.segments[number].branch != name:
                yield self.problem(f"branch {name!r}", f"segment {number} belongs to another branch")
        for number, segment in self.segments.items():
            if number not in written and self._is_alive(segment):
                yield self.problem(f"segment {number}", "no branch leads to it")

    def _is_alive(self, segment: Segment) -> bool:
        """Whether the segment's owner was not deleted; others may lean on the segment then."""
        owner = self.owners.get(segment.owner)
        return owner is not None and owner.is_alive

    def _ids(self) -> Iterator[Problem]:
        known: set[str] = set()
        for key, record in self.storage.scan([all_of(ID, self.number)]):
            event_id = id_of(key)
            known.add(event_id)
            fields = unseal_fields(key, record)
            missing = [at for at in places_in(fields) if at not in self.ids[event_id]]
            if self._needs(owner_of(key), missing, fields):  # it may have been written since, or behind what is damaged
                missing = [at for at in missing if not self._has_id(at, event_id)]
            if self._needs(owner_of(key), missing, fields):
                what = "the event it names, seq {1} of segment {0}, is missing, or has another id"
                yield self.problem(f"id {event_id!r}", what.format(*missing[0]))
        for event_id in self.ids.keys() - known:
            yield self.problem(f"id {event_id!r}", "the index of ids lacks it")

    def _needs(self, owner: int, missing: list[tuple[int, int]], fields: list[int]) -> bool:
        """Whether what an owner's id names now is missing; what it named before may have gone with another owner."""
        found = self.owners.get(owner)
        sees = found is not None and found.is_alive and (fields[0], fields[1]) in missing
        return sees or any(map(self._has_segment, missing))

    def _has_id(self, at: tuple[int, int], event_id: str) -> bool:
        key = event_key(self.number, *at)
        record = self.storage.get([key])[0]
        return record is not None and is_sound(key, record) and read_event(key, record)[2].id == event_id

    def _has_segment(self, at: tuple[int, int]) -> bool:
        segment = self.segments.get(at[0])
        is_pruned = self.trunk is not None and at[1] < self.trunk.seq
        return segment is not None and self._is_alive(segment) and not is_pruned

    def _task_writes(self) -> Iterator[Problem]:
        for key, record in self.storage.scan([all_of(TASK_WRITE, self.number)]):
            yield from _contained(self.name, where(key), self._references(key, record))

    def _references(self, key: bytes, record: bytes) -> Iterator[Problem]:
        for at, n in references(key, record):
            event = event_key(self.number, *at)
            body = read_event(event, self.storage.get([event])[0] or b"")[2]
            if n >= len(list(triples(body.writes))):
                yield self.problem(where(key), f"it refers to a write that the event at seq {at[1]} has not")

    def _sealed(self, kind: bytes) -> Iterator[Problem]:
        """Damage of records that nothing else was read through."""
        for key, record in self.storage.scan([all_of(kind, self.number)]):
            try:
                unseal(key, record)
            except (CorruptionError, FormatError) as error:
                yield self.problem(where(key), str(error))


def _lie_alike(listed: Entry, entry: Entry) -> bool:
    """Whether a manifest's entry says the same as one that is known to be right: its value is that one's, unread."""
    if listed.place is None or entry.place is None:
        is_same = listed.place is entry.place and listed.full == entry.full
    else:
        is_same = listed.place[:5] == entry.place[:5]
    there, here = (each.trail.ranges() if each.trail is not None else [] for each in (listed, entry))
    return is_same and there == here


def _equal(one: Entry, other: Entry, codec: Codec) -> bool:
    """Whether two entries say the same; values that nothing here can decode are compared by their bytes alone."""
    if same_bytes(one, other):
        return True
    try:
        here, there = decoded_value(one, codec), decoded_value(other, codec)
    except UnknownTypeError:  # an encrypted value, or one of another serializer: a snapshot of it cannot be checked
        return True
    try:
        return repr(here) == repr(there)  # types and order count
    except ValueError:  # an integer of more digits than Python writes
        return bool(here == there)
