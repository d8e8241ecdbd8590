"""Forgetting and pruning: what an explicit call takes away from a run's history.

Owns which ids name nothing any more, and what may go with them. An id that was forgotten keeps its record as a
tombstone, and its event stays as long as something is built on it. Pruning removes events: those before the last one
that all that is kept goes back to, and whole branches; see trunk.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog.branches import MAIN
from eventlog.burial import SWEEP_KEYS, names_of_segment
from eventlog.entries import Played, bring_up
from eventlog.errors import ConflictError, CorruptionError, ExpectationError, NotFoundError
from eventlog.layout import (
    CHILD,
    EVENT,
    ID,
    MANIFEST,
    PART,
    SNAPSHOT,
    TASK_WRITE,
    WAITING,
    all_of,
    branch_key,
    child_key,
    head_key,
    id_key,
    id_of,
    manifest_key,
    owner_key,
    owner_of,
    place_of,
    places,
    segment_key,
    trunk_key,
)
from eventlog.lineage import segment_record
from eventlog.naming import bare, places_in
from eventlog.owners import all_owners
from eventlog.records import bodies, read_event, read_head, seal_fields, unseal_fields
from eventlog.snapshots import MAX_SEGMENTS, manifest_of, manifest_rows, progress_at, room_after, whole_entries
from eventlog.tasks import Anchor, awaited, references
from eventlog.trunk import Trunk, read_trunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventlog.branches import Branches
    from eventlog.lineage import Segment
    from eventlog.tasks import TaskWrites

    Place = tuple[int, int]
    Pair = tuple[bytes, bytes]

_TRIES: Final = 100
_LOOKS: Final = 10
_LAST_SEQ: Final = (1 << 63) - 2
_MANIFESTS: Final = 50
"""So many are written at once: each may be as large as the state's names and small values."""


def forget(branches: Branches, tasks: TaskWrites, event_ids: Sequence[str], needed: Sequence[Place] = ()) -> list[str]:
    """Let ids name nothing; what tasks wrote after their events goes where nothing is built on those, nor needs them.

    Where an id named another event before, something may be built on that one: what tasks wrote stays.

    Each id by a commit of its own: if this is stopped, what is left is forgotten by the next call. The caller settles
    them, all at once: there may be thousands.

    Returns:
        Those that named something.

    Raises:
        ConflictError: others rename the same ids, every time.
    """
    entries = dict(zip(event_ids, branches.naming.entries(event_ids), strict=True))
    named = {event_id: entry for event_id, entry in entries.items() if entry is not None}
    only = {(entry[0], entry[1]) for entry in named.values() if entry[:2] == entry[2:]}
    ends = _ends(branches, only - set(needed), set(needed))
    for event_id, entry in named.items():
        _forget(branches, tasks, event_id, is_end=(entry[0], entry[1]) in ends)
    return list(named)


def _forget(branches: Branches, tasks: TaskWrites, event_id: str, *, is_end: bool) -> None:
    for _ in range(_TRIES):
        entry = branches.id_entry(event_id)
        if entry is None:
            return
        renamed = branches.naming.renamed(event_id, None)
        puts, deletes, expect = tasks.closed(Anchor((entry[2], entry[3]), event_id), keep=not is_end)
        try:
            branches.storage.commit([renamed.put, *puts], deletes, {**expect, **renamed.expect}, is_settled=False)
        except ExpectationError:
            continue
        return
    raise ConflictError(f"too many writers use the id {event_id!r} at once; try again")


def _ends(branches: Branches, going: set[Place], needed: set[Place]) -> set[Place]:
    """Those of some places behind which nothing stays: no event that its id names or that is needed, no branch."""
    ends: set[Place] = set()
    firsts = dict(sorted(going, reverse=True))  # of each segment the least seq comes last
    for begin in firsts.items():
        ends |= _ends_of(branches, begin, going, needed)
    return ends


def _ends_of(branches: Branches, begin: Place, going: set[Place], needed: set[Place]) -> set[Place]:
    number, first = begin
    run, storage = branches.run, branches.storage
    forks = {place_of(key)[1] for key, _ in storage.scan([places(CHILD, run, number, first, _LAST_SEQ)])}
    ends: set[Place] = set()
    for key, record in storage.scan([places(EVENT, run, number, first, _LAST_SEQ)], reverse=True):
        at = place_of(key)
        if at[1] in forks or at in needed:
            break
        if at in going:
            ends.add(at)
            continue
        event_id = read_event(key, record)[2].id
        entry = None if event_id is None else branches.id_entry(event_id)
        if event_id is None or (entry is not None and (entry[0], entry[1]) == at):
            break
    return ends


def prune(
    branches: Branches, tasks: TaskWrites, keep: Sequence[Place], back_to: Sequence[Place], *, dry_run: bool
) -> Gone:
    """Remove every event that is on the way to none of `keep` and `back_to`; see `Run.prune`.

    What is left begins at the last event that they all have in common. What others write under an id meanwhile stays,
    with what it is built on. A run that has other owners stays as it is.
    """
    storage, run, looks = branches.storage, branches.run, _LOOKS
    for _ in range(_TRIES):
        epoch = storage.get([owner_key(run, 0)])[0]  # before the owners: who copies the run from here on changes it
        if branches.owner or not keep or any(owner.number for owner in all_owners(storage, run)):
            return Gone(0, 0, 0)
        try:
            return _pruned(branches, tasks, keep, back_to, epoch, dry_run=dry_run)
        except ExpectationError:
            continue
        except (CorruptionError, NotFoundError):  # another one may prune the run, too: then it is whole when it is done
            looks -= 1
            if not looks:
                raise
    raise ConflictError(f"run {branches.name!r} is written too quickly to be pruned; try again")


def _pruned(
    branches: Branches,
    tasks: TaskWrites,
    keep: Sequence[Place],
    back_to: Sequence[Place],
    epoch: bytes | None,
    *,
    dry_run: bool,
) -> Gone:
    plan = _planned(branches, [*keep, *back_to], is_dry=dry_run)
    newest = max(branches.event(at)[2].id or "" for at in keep)
    late = list(_late(branches, newest))
    if dry_run:
        return _measured(branches, plan, late)
    trunk = _turn(branches, plan, epoch)
    _make_whole(branches, tasks, plan)
    _unname(branches, plan)
    gone = _measured(branches, plan, late)
    _remove(branches, list(_garbage(branches, plan)), trunk)
    _remove_late(branches, late)
    with suppress(ExpectationError, CorruptionError, NotFoundError):  # the events say the same
        _put_manifests(branches, plan, epoch)
    return gone


class Gone(NamedTuple):
    """What was removed: events, keys, and bytes of keys and records."""

    events: int
    keys: int
    bytes: int


class _Plan(NamedTuple):
    """What stays.

    Attributes:
        trunk: the first event.
        firsts: the first seq that stays, of each segment of which something does.
        path: segments whose record stays: of those, and of what lies below them.
        segments: all segments.
        ids: those of the events that stay.
        anchors: where task writes stay, outside of what stays itself.
        seen: the records of the tombstone and of heads, as they were before all else was looked at.
    """

    trunk: Place
    firsts: dict[int, int]
    path: set[int]
    segments: list[Segment]
    ids: set[str]
    anchors: set[Place]
    seen: dict[bytes, bytes | None]

    @property
    def last(self) -> int:
        """The segment that was made last; what is forked later begins at what stays, and stays as well."""
        return self.segments[-1].number

    def stays(self, at: Place) -> bool:
        """Whether the event at a place does."""
        return at[0] > self.last or (at[0] in self.firsts and at[1] >= self.firsts[at[0]])


def _planned(branches: Branches, needed: Sequence[Place], *, is_dry: bool) -> _Plan:
    lineage, run = branches.lineage, branches.run
    segments = list(lineage.all())
    keys = [trunk_key(run), *(head_key(run, segment.number) for segment in segments)]
    seen = dict(zip(keys, branches.storage.get(keys), strict=True))
    if not all(map(branches.is_left, needed)):
        raise ConflictError(f"run {branches.name!r} was pruned meanwhile of what is to be kept; call again")
    if not is_dry:
        needed = [*needed, *_named(branches)]
    trunk = needed[0]
    for at in needed[1:]:
        trunk = _common(branches, trunk, at)
    firsts: dict[int, int] = {}
    for at in needed:
        for segment, first, _ in lineage.stretches(*at, trunk[1]):
            firsts[segment.number] = first
    path = {segment.number for at in needed for segment, _, _ in lineage.stretches(*at)} | set(firsts) | {0}
    ids: list[str] = []
    for number, first in firsts.items():
        for key, record in branches.storage.scan([places(EVENT, branches.run, number, first, _LAST_SEQ)]):
            event_id = read_event(key, record)[2].id
            ids += [] if event_id is None else [event_id]
    entries = branches.naming.entries(ids, forgotten=True)
    anchors = {(entry[2], entry[3]) for entry in entries if entry is not None}
    return _Plan(trunk, firsts, path, segments, set(ids), anchors, seen)


def _named(branches: Branches) -> list[Place]:
    """The events that ids name."""
    entries = branches.naming.entries(list(branches.naming.ids(None, None)))
    return [(entry[0], entry[1]) for entry in entries if entry is not None]


def _common(branches: Branches, one: Place, other: Place) -> Place:
    """The last event on the way to both."""
    way = {segment.number: last for segment, _, last in branches.lineage.stretches(*one)}
    for segment, _, last in reversed(branches.lineage.stretches(*other)):
        if segment.number in way:
            return segment.number, min(last, way[segment.number])
    raise AssertionError("all events of a run go back to its first")


def _turn(branches: Branches, plan: _Plan, epoch: bytes | None) -> bytes | None:
    """Let the run begin at the trunk, in one commit: from here on nothing needs what lies elsewhere.

    The epoch's record is still the one of before, so nobody has copied the run since.

    Returns:
        The tombstone's record.
    """
    run, storage = branches.run, branches.storage
    known = read_trunk(storage, run)
    key = trunk_key(run)
    expect = {key: plan.seen[key], owner_key(run, 0): epoch}
    expect[segment_key(run, plan.last + 1)] = None  # nothing was forked meanwhile
    puts: list[Pair] = []
    deletes: list[bytes] = []
    if known is None or known.at != plan.trunk:
        puts += _whole(branches, plan.trunk)
    for segment in branches.all():
        pointers = [head_key(run, segment.number), branch_key(run, segment.branch)]
        head = plan.seen.get(pointers[0])
        if head is None and plan.stays((segment.parent, segment.base_seq)):
            plan.path.add(segment.number)  # nothing was written to it yet
            plan.firsts.setdefault(segment.number, segment.base_seq + 1)
        elif segment.number not in plan.firsts:
            expect.update(zip(pointers, [head, *storage.get(pointers[1:])], strict=True))
            deletes += pointers
            if segment.branch == MAIN:
                puts += _new_main(branches, plan, expect)
    if puts or deletes:
        storage.commit(puts, [key for key in deletes if key not in dict(puts)], expect)
    return dict(puts).get(key, plan.seen[key])


def _new_main(branches: Branches, plan: _Plan, expect: dict[bytes, bytes | None]) -> list[Pair]:
    """The main branch, where nothing of it stays: it goes on at the trunk."""
    run, lineage = branches.run, branches.lineage
    digest, _, body = branches.event(plan.trunk)
    segment = lineage.forked(lineage.next_number(), MAIN, (*plan.trunk, body.step, digest))
    key = branch_key(run, MAIN)
    pair = segment_record(run, segment)
    expect[pair[0]] = None
    plan.path.add(segment.number)
    child = child_key(run, plan.trunk, segment.number)
    return [pair, (key, seal_fields(key, [MAIN, segment.number])), (child, b"")]


def _whole(branches: Branches, at: Place) -> list[Pair]:
    """The tombstone, and a manifest of the event with every value in itself."""
    run, storage = branches.run, branches.storage
    progress = progress_at(storage, branches.lineage, run, at)
    entries = {**progress.entries, **branches.read(at, progress.entries, list(progress.entries))}
    snapshots = [key for key, _ in storage.scan([places(SNAPSHOT, run, *at, at[1])])]
    first_n = 1 + max((int.from_bytes(key[21:], "big") for key in snapshots), default=-1)
    puts, whole = whole_entries(run, at, entries, first_n, branches.codec)
    _, parent, _ = branches.event(at)
    known = read_trunk(storage, run)
    if known is not None and known.at == at:
        return []
    step = -1
    if at[1]:
        before = branches.lineage.holding(at[0], at[1] - 1).number
        step = branches.event((before, at[1] - 1))[2].step
    return [
        *puts,
        manifest_of(manifest_key(run, *at), manifest_rows(whole)),
        Trunk(*at, parent, step, first_n).pair(run),
    ]


def _make_whole(branches: Branches, tasks: TaskWrites, plan: _Plan) -> None:
    """Let no task write that stays name an event that goes."""
    for key, record in branches.storage.scan([all_of(TASK_WRITE, branches.run)]):
        if _stays(plan, key) and any(not plan.stays(at) for at, _ in references(key, record)):
            with suppress(ExpectationError):  # somebody wrote it anew, without a name
                branches.storage.commit([(key, tasks.resolved(key, record))], (), {key: record})


def _unname(branches: Branches, plan: _Plan) -> None:
    """Let forgotten ids name nothing at all where what they named last goes, and an older event of theirs stays."""
    for key, record in branches.storage.scan([all_of(ID, branches.run)]):
        fields = unseal_fields(key, record)
        named = places_in(fields)
        if id_of(key) in plan.ids and named and not plan.stays(named[0]):
            with suppress(ExpectationError):  # somebody wrote an event with that id meanwhile
                branches.storage.commit([(key, seal_fields(key, bare(fields)))], (), {key: record})


def _stays(plan: _Plan, key: bytes) -> bool:
    at = place_of(key)
    return plan.stays(at) or (key[:1] == TASK_WRITE and at in plan.anchors)


def _garbage(branches: Branches, plan: _Plan) -> Iterator[Pair]:
    """What goes, pointers before what they point at."""
    run, storage = branches.run, branches.storage
    trunk = read_trunk(storage, run)
    for key, record in storage.scan([all_of(ID, run)]):
        named = places_in(unseal_fields(key, record))
        if not any(map(plan.stays, named)) and not owner_of(key) and id_of(key) not in plan.ids:
            yield key, record
    for key, record in storage.scan([all_of(MANIFEST, run), all_of(SNAPSHOT, run)]):
        n = int.from_bytes(key[21:], "big") if key[:1] == SNAPSHOT else None
        if trunk is None or place_of(key) != trunk.at or (n is not None and n < trunk.first_n):
            yield key, record
    for kind in (TASK_WRITE, PART, EVENT):
        for key, record in storage.scan([all_of(kind, run)]):
            if not _stays(plan, key):
                yield key, record
    for segment in plan.segments[:-1]:  # the last one stays, so that no number is ever used again
        if segment.number not in plan.path:
            keys = names_of_segment(run, segment)
            yield from ((key, record or b"") for key, record in zip(keys, storage.get(keys), strict=True))


def _remove(branches: Branches, pairs: list[Pair], trunk: bytes | None) -> None:
    """Remove keys, in their order, by commits of a bounded size, as long as nobody else prunes the run.

    What was garbage before another pruning may be what the run begins at since.
    """
    key = trunk_key(branches.run)
    for begin in range(0, len(pairs), SWEEP_KEYS):
        some = pairs[begin : begin + SWEEP_KEYS]
        renamed = {name: record for name, record in some if name[:1] == ID}  # one may name something anew
        branches.storage.commit([], [name for name, _ in some], {key: trunk, **renamed})


def _put_manifests(branches: Branches, plan: _Plan, epoch: bytes | None) -> None:
    """Write manifests along what stays, in the stead of those that named what is gone: else all is read from the trunk.

    No snapshots: under their keys others lay, which handles that know of those would take them for. And only where
    events were before, for whoever writes others puts manifests and snapshots himself. Nobody has deleted, copied or
    pruned the run meanwhile.

    Raises:
        ExpectationError: somebody has.
        CorruptionError: what stays is damaged.
        NotFoundError: the run was deleted.
    """
    run, storage = branches.run, branches.storage
    expect = {key: storage.get([key])[0] for key in (trunk_key(run), segment_key(run, 0))} | {owner_key(run, 0): epoch}
    puts: list[Pair] = []
    for number, first in sorted(plan.firsts.items()):  # what a segment begins at lies in one that was made before
        head = plan.seen.get(head_key(run, number))
        if head is None:
            continue
        segment = branches.lineage.segment(number)
        is_trunks = number == plan.trunk[0]
        before = plan.trunk if is_trunks else (segment.parent, segment.base_seq)
        entries, since, manifest, crossed = progress_at(storage, branches.lineage, run, before)
        crossed += not is_trunks
        events = storage.scan([places(EVENT, run, number, first + is_trunks, read_head(head))])
        for key, record, fields in bodies(events):
            since += bring_up(entries, [Played(place_of(key), len(record), fields)])
            if since >= room_after(manifest) or crossed >= MAX_SEGMENTS:
                puts.append(manifest_of(manifest_key(run, *place_of(key)), manifest_rows(entries)))
                since, manifest, crossed = 0, len(puts[-1][1]), 0
            if len(puts) == _MANIFESTS:
                storage.commit(puts, (), expect)
                puts = []
        if puts:
            storage.commit(puts, (), expect)
            puts = []


def _late(branches: Branches, newest: str) -> Iterator[Pair]:
    """What tasks wrote after ids that name nothing and are less than the newest that stays: what may be pruned is."""
    waiting = list(branches.storage.scan([all_of(WAITING, branches.run)]))
    ids = [awaited(key, record) for key, record in waiting]
    for pair, event_id, entry in zip(waiting, ids, branches.naming.entries(ids), strict=True):
        if entry is None and event_id < newest:
            yield pair


def _remove_late(branches: Branches, pairs: list[Pair]) -> None:
    """Remove what nobody awaits, unless an event of that id came meanwhile, or more was written."""
    for key, record in pairs:
        name = id_key(branches.run, awaited(key, record))
        named = branches.storage.get([name])[0]
        if branches.id_entry(awaited(key, record)) is None:
            with suppress(ExpectationError):
                branches.storage.commit([], [key], {key: record, name: named})


def _measured(branches: Branches, plan: _Plan, late: list[Pair]) -> Gone:
    events = keys = size = 0
    for key, record in chain(_garbage(branches, plan), late):
        events += key[:1] == EVENT
        keys += 1
        size += len(key) + len(record)
    return Gone(events, keys, size)
