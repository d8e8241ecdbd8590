"""Shipping: making one log what another one is, key by key, on whatever engine.

Owns the order in which a run is written elsewhere, so that who reads there meanwhile sees a state that the run had:
first what is immutable and not reached yet (parts, snapshots, manifests, events, in the order of their events), then in
one commit what points at it (heads, branches, ids, task writes), then what is gone, and the name last. What was written
to the run after its heads were read waits for the next time: they are read at one moment with all else that says how
far the run goes, and what is added afterwards leaves that a state which the run had. From the first to the last of
these commits a mark stands at the run, so that who finds it looks at all of the run: what was brought there before it
was stopped may be gone here.

Events never change, and each digest covers what is before it: where a segment ends alike on both sides, its events are
not looked at. Nobody else may write the target.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog.branches import MAIN
from eventlog.catalog import read_listing
from eventlog.errors import BusyError, ConflictError, CorruptionError
from eventlog.layout import (
    BRANCH,
    CHILD,
    EVENT,
    HEAD,
    ID,
    MANIFEST,
    OWNER,
    PART,
    RUN_KINDS,
    SEGMENT,
    SNAPSHOT,
    TASK_WRITE,
    TRUNK,
    WAITING,
    all_of,
    branch_key,
    child_of,
    event_key,
    head_key,
    place_of,
    places,
    run_of,
    segment_key,
    segment_of,
    transit_key,
    trunk_key,
)
from eventlog.naming import earlier, places_in
from eventlog.owners import read_owner
from eventlog.pairs import NAMES, gaps, gaps_between
from eventlog.records import is_sound, read_head, seal_fields, unseal_fields, where
from eventlog.tasks import references

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventlog.catalog import Listing
    from eventlog.pairs import Gap
    from eventlog.storage import Storage

_BODIES: Final = (PART, SNAPSHOT, MANIFEST, EVENT)
_FIXED: Final = (BRANCH, SEGMENT, OWNER, TRUNK)
_LOOSE: Final = (CHILD, WAITING, TASK_WRITE, ID)  # what waited comes to stand elsewhere: that is looked at afterwards
_LAST_SEQ: Final = (1 << 63) - 2
_BATCH_BYTES: Final = 1 << 20
_BATCH_KEYS: Final = 1000
_CHUNK_EVENTS: Final = 200
_GONE_KEYS: Final = 100_000
_TRIES: Final = 8


class _Batches:
    """Writes to a run in commits of a bounded size, in the order in which they come; each puts the mark."""

    def __init__(self, target: Storage, run: int) -> None:
        self._target = target
        self._mark = transit_key(run), b""
        self._puts: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self.keys = 0

    def put(self, key: bytes, record: bytes) -> None:
        """Write a pair; see `_check`."""
        _check(key, record)
        self._puts.append((key, record))
        self.keys += 1
        self._bytes += len(key) + len(record)
        if self._bytes >= _BATCH_BYTES or len(self._puts) >= _BATCH_KEYS:
            self.end()

    def end(self) -> None:
        """Write what is left."""
        if self._puts:
            self._target.commit([self._mark, *self._puts])
        self._puts, self._bytes = [], 0


class _Ends(NamedTuple):
    """What says how far a run goes: its branches, segments, owners and trunk, then its heads."""

    fixed: dict[bytes, bytes]
    heads: dict[bytes, bytes]

    def lasts(self) -> dict[int, int]:
        """The last seq of each segment that is to be shipped; of one that nobody writes any more there is no end."""
        written = {unseal_fields(key, record)[1] for key, record in self.fixed.items() if key[:1] == BRANCH}
        numbers = [segment_of(key) for key in self.fixed if key[:1] == SEGMENT]
        lasts = {number: -1 if number in written else _LAST_SEQ for number in numbers}
        lasts.update((segment_of(key), read_head(record)) for key, record in self.heads.items())
        return lasts


class Shipper:
    """Ships runs and names of one storage to another one."""

    def __init__(self, source: Storage, target: Storage) -> None:
        self.source = source
        self.target = target
        self.keys = 0
        """How many keys were written or removed."""

    def check(self) -> None:
        """Refuse a target that is no copy of this source.

        Raises:
            ConflictError: it holds a run that the source never had, or one of that name which began otherwise.
        """
        for key, ours, theirs in gaps_between(self.source, self.target, NAMES):
            if theirs is None or not all(is_sound(key, record) for record in (ours, theirs) if record is not None):
                continue
            there = read_listing(key, theirs)
            here = None if ours is None else read_listing(key, ours)
            if here is None or not _is_earlier(there, here):
                name = "/".join(there.parts)
                raise ConflictError(
                    f"{self.target.location} has a run {name!r} that is not from {self.source.location}; "
                    "give the place of an earlier copy, or a new one"
                )

    def runs(self) -> Iterator[int]:
        """The numbers of all runs of the source that anything was written to, deleted ones too."""
        run = -1
        while True:
            found = [self._run_after(kind, run) for kind in (SEGMENT, WAITING)]
            later = [number for number in found if number is not None]
            if not later:
                return
            run = min(later)
            yield run

    def _run_after(self, kind: bytes, run: int) -> int | None:
        if run + 1 >= 1 << 64:
            return None
        bounds = kind + (run + 1).to_bytes(8, "big"), bytes([kind[0] + 1])
        return next((run_of(key) for key, _ in self.source.scan([bounds], limit=1)), None)

    def names(self) -> Iterator[Gap]:
        """All names that differ."""
        return gaps_between(self.source, self.target, NAMES)

    def name(self, gap: Gap) -> None:
        """Ship a name, behind the run that it names and what it names no more."""
        key, ours, theirs = gap
        known = [theirs] if theirs is not None and is_sound(key, theirs) else []
        for _ in range(_TRIES):
            if ours is None:
                return
            listings = [read_listing(key, record) for record in (ours, *known)]
            for number in {listing.number for listing in listings}:
                self.run(number, whole=theirs is not None)
            _check(key, ours)
            before, ours = ours, self.source.get([key])[0]
            if ours == before:  # else the run may be gone that it named
                self._commit([(key, ours)], [])
                return

    def run(self, number: int, *, whole: bool = False) -> bool:
        """Ship a run; if `whole`, look at all of it, and not only at what was written since.

        Returns:
            Whether anything differed.

        Raises:
            ConflictError: the target holds another event in the place of one.
            CorruptionError: the source holds what is damaged; of this run the target is what it was.
            BusyError: the run is pruned all the time; what was shipped of it is not reached yet.
        """
        before, mark = self.keys, transit_key(number)
        is_marked = self.target.get([mark])[0] is not None
        there, batches = _pairs(self.target, number, (*_FIXED, HEAD)), _Batches(self.target, number)
        ends, puts, deletes, whole = self._ship(number, there, batches, whole=whole or is_marked)
        if whole and (puts or deletes):
            self._commit([(mark, b""), *puts], deletes)
            puts, deletes = [], []
        is_all = not whole or self._remove_rest(number, ends, batches)
        self.keys += batches.keys
        if is_all and (is_marked or self.keys > before):
            deletes.append(mark)
        self._commit(puts, deletes)
        return self.keys > before

    def _ship(
        self, run: int, there: dict[bytes, bytes], batches: _Batches, *, whole: bool
    ) -> tuple[_Ends, list[tuple[bytes, bytes]], list[bytes], bool]:
        """Ship what nothing points at yet: how far that is, what points at it, and whether all of it was looked at."""
        ends = self._ends(run)
        for _ in range(_TRIES):
            self._check_ahead(run, ends, there)
            whole = whole or _has_lost(ends.fixed, there)
            self._ship_bodies(run, ends, there, batches, whole=whole)
            puts, deletes = self._loose(run, ends.lasts(), batches)
            batches.end()
            again = self._ends(run)
            if not _has_lost(again.fixed, ends.fixed):
                break  # what was added meanwhile waits for the next time
            ends, whole = again, True  # pruned or deleted meanwhile
        else:
            raise _too_busy(run)
        for key, ours, theirs in gaps(*(sorted(pairs.items()) for pairs in ({**ends.fixed, **ends.heads}, there))):
            if ours is None:
                deletes.append(key)
            elif ours != theirs:
                puts.append((key, ours))
        for pair in puts:
            _check(*pair)
        return ends, puts, deletes, whole

    def _commit(self, puts: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
        if puts or deletes:
            self.target.commit(puts, deletes)
            self.keys += len(puts) + len(deletes)

    def _ends(self, run: int) -> _Ends:
        for _ in range(_TRIES):
            ends = self._ends_at_once(run)
            if ends is not None:
                return ends
        raise _too_busy(run)

    def _ends_at_once(self, run: int) -> _Ends | None:
        """What they are at one moment, but for what was forked or copied since this began; None if it was pruned."""
        segments = [key for key, _ in self.source.scan([all_of(SEGMENT, run)])]
        if not segments:
            return _Ends({}, {})
        others = [key for key, _ in self.source.scan([all_of(BRANCH, run), all_of(OWNER, run)])]
        keys = [*segments, *others, trunk_key(run), *(HEAD + key[1:] for key in segments)]
        found = {key: record for key, record in zip(keys, self.source.get(keys), strict=True) if record is not None}
        fixed = {key: record for key, record in found.items() if key[:1] != HEAD}
        if _is_grave(fixed):
            return _Ends(fixed, {})
        new = _newer(fixed, segment_of(segments[-1]))
        if branch_key(run, MAIN) in new:  # it goes on in another segment since then
            return None
        fixed = {key: record for key, record in fixed.items() if key not in new}
        return _Ends(fixed, {key: record for key, record in found.items() if key[:1] == HEAD})

    # --- what is immutable ----------------------------------------------------------------------------------------

    def _ship_bodies(self, run: int, ends: _Ends, there: dict[bytes, bytes], batches: _Batches, *, whole: bool) -> None:
        lasts = ends.lasts()
        if whole:
            self._ship_all(run, lasts, batches)
        elif not _is_grave(ends.fixed):
            for segment, last in lasts.items():
                keys = segment_key(run, segment), head_key(run, segment)
                if keys[0] not in there or there.get(keys[1]) != ends.heads.get(keys[1]):
                    self._ship_segment((run, segment), last, there.get(keys[1]), batches)

    def _ship_segment(self, of: tuple[int, int], last: int, head: bytes | None, batches: _Batches) -> None:
        """What a segment has beyond what the target has of it, events in their order."""
        first = 0 if head is None else read_head(head) + 1
        if head is not None and not self._has_event(of, head):
            raise self._foreign(event_key(*of, first - 1))
        while first <= last:
            events = _some(self.source.scan([places(EVENT, *of, first, last)]))
            if not events:
                return
            end = place_of(events[-1][0])[1]
            for kind in (PART, SNAPSHOT, MANIFEST):
                for pair in self.source.scan([places(kind, *of, first, end)]):
                    batches.put(*pair)
            for pair in events:
                batches.put(*pair)
            first = end + 1

    def _has_event(self, of: tuple[int, int], head: bytes) -> bool:
        """Whether the source has the event that a head of the target names; it may have been pruned."""
        seq = read_head(head)
        found = self.source.scan([places(EVENT, *of, seq, _LAST_SEQ)], limit=1)
        return all(place_of(key)[1] > seq or record[1:17] == head[8:] for key, record in found)

    def _check_ahead(self, run: int, ends: _Ends, there: dict[bytes, bytes]) -> None:
        """Refuse a target that has what the source has not yet: its segments only grow, and the last one stays."""
        for key, head in there.items():
            if key in ends.heads and read_head(head) > read_head(ends.heads[key]):
                raise self._foreign(event_key(run, segment_of(key), read_head(head)))
        here = max((key for key in ends.fixed if key[:1] == SEGMENT), default=b"")
        newest = max((key for key in there if key[:1] == SEGMENT), default=b"")
        if newest > here and not _is_grave(ends.fixed):
            raise self._foreign(newest)

    def _foreign(self, key: bytes) -> ConflictError:
        return ConflictError(
            f"{self.target.location}: its {where(key)} is not from {self.source.location}: somebody wrote to the copy, "
            "the source lost what was shipped, or the two were taken for each other; give a new place"
        )

    def _ship_all(self, run: int, lasts: dict[int, int], batches: _Batches) -> None:
        for kind in _BODIES:
            for key, ours, theirs in gaps_between(self.source, self.target, all_of(kind, run)):
                if ours is None or not _is_within(place_of(key), lasts):
                    continue
                if theirs is not None and kind == EVENT and is_sound(key, ours) and is_sound(key, theirs):
                    raise self._foreign(key)
                batches.put(key, ours)

    def _remove_rest(self, run: int, ends: _Ends, batches: _Batches) -> bool:
        """Remove what the source has no more, as long as the run begins as it was shipped.

        What goes from it since then, by a later prune or delete, is what the target still leans on. Where an earlier
        one goes on, what pointed at some of that was written anew before, and is here before that goes.

        Returns:
            Whether that is all.
        """
        ranges = [all_of(kind, run) for kind in RUN_KINDS if kind in _BODIES]
        differing = gaps_between(self.source, self.target, *ranges)
        gone = (key for key, ours, _ in differing if ours is None)
        while some := list(islice(gone, _GONE_KEYS)):
            puts, deletes = self._loose(run, ends.lasts(), batches)
            batches.end()
            if self._lost_since(run, ends):
                return False
            self._commit(puts, deletes)
            for begin in range(0, len(some), _BATCH_KEYS):
                if self._lost_since(run, ends):
                    return False
                self._commit([], some[begin : begin + _BATCH_KEYS])
        return True

    def _lost_since(self, run: int, ends: _Ends) -> bool:
        return _has_lost(_pairs(self.source, run, _FIXED), ends.fixed)

    # --- what changes ---------------------------------------------------------------------------------------------

    def _loose(
        self, run: int, lasts: dict[int, int], batches: _Batches
    ) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """What changed of ids, task writes and children; what is too much for one commit goes to `batches`."""
        puts: list[tuple[bytes, bytes]] = []
        deletes: list[bytes] = []
        held: set[bytes] = set()
        for kind in _LOOSE:
            for key, ours, theirs in gaps_between(self.source, self.target, all_of(kind, run)):
                if ours is None:
                    deletes.append(key)
                elif all(_is_within(at, lasts) for at in _named(key, ours)):
                    puts.append((key, ours))
                elif kind == TASK_WRITE:
                    held.add(_task_of(key))
                elif kind == ID and theirs is None:
                    puts += self._earlier(run, key, ours, lasts)
                if len(puts) >= _BATCH_KEYS:
                    for pair in puts:
                        batches.put(*pair)
                    puts = []
        return puts, [key for key in deletes if key[:1] != WAITING or _task_of(key) not in held]

    def _earlier(self, run: int, key: bytes, record: bytes, lasts: dict[int, int]) -> list[tuple[bytes, bytes]]:
        """The record of an id as it was before events took the id over that are not shipped yet, if it was there."""
        fields = earlier(unseal_fields(key, record), lambda at: _is_within(at, lasts))
        events = [event_key(run, *at) for at in places_in(fields)]
        return [(key, seal_fields(key, fields))] if events and None not in self.source.get(events) else []


def _check(key: bytes, record: bytes) -> None:
    """Refuse to ship what is damaged in the source, over what may be the only sound copy."""
    if not is_sound(key, record):
        raise CorruptionError(where(key), "its checksum differs, and it was not shipped")


def _pairs(storage: Storage, run: int, kinds: Iterable[bytes]) -> dict[bytes, bytes]:
    return dict(storage.scan([all_of(kind, run) for kind in kinds]))


def _some(events: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The first events, few enough for one commit."""
    some: list[tuple[bytes, bytes]] = []
    size = 0
    for pair in events:
        some.append(pair)
        size += len(pair[1])
        if len(some) == _CHUNK_EVENTS or size >= _BATCH_BYTES:
            break
    return some


def _is_within(at: tuple[int, int], lasts: dict[int, int]) -> bool:
    """Whether a place is not beyond what is to be shipped; segments are numbered in the order of their making."""
    last = lasts.get(at[0])
    return at[0] < max(lasts, default=-1) if last is None else at[1] <= last


def _is_grave(fixed: dict[bytes, bytes]) -> bool:
    """Whether a run was deleted: nothing is left of its beginning but a tombstone."""
    key = next((key for key in fixed if key[:1] == SEGMENT), None)
    return key is not None and not segment_of(key) and not unseal_fields(key, fixed[key])


def _newer(fixed: dict[bytes, bytes], last: int) -> set[bytes]:
    """What came with segments made after the segment `last`: their branches, and copies that have no others."""
    written = {key: unseal_fields(key, record)[1:] for key, record in fixed.items() if key[:1] == BRANCH}
    new = {key for key, (number, *_) in written.items() if number > last}
    old = {owner for key, (_, *owners) in written.items() for owner in owners if key not in new}
    for key, record in fixed.items():
        owner = read_owner(key, record) if key[:1] == OWNER else None
        if owner is not None and owner.number and owner.is_alive and owner.number not in old:
            new.add(key)
    return new


def _has_lost(fixed: dict[bytes, bytes], before: dict[bytes, bytes]) -> bool:
    """Whether something went from a run, by a prune or delete, and perhaps not all of what it leaves in the target.

    Where a prune leaves nothing of the main branch, that goes on in another segment; an owner that goes, or that copies
    are made of, is another record.
    """
    kept = {key: record for key, record in before.items() if key[:1] in _FIXED}
    is_gone = any(key not in fixed or (key[:1] != OWNER and fixed[key] != record) for key, record in kept.items())
    return is_gone or any(key not in kept for key in fixed if key[:1] == TRUNK)


def _task_of(key: bytes) -> bytes:
    """What stands for a task and its owner in a key of what it wrote."""
    return key[-8:]


def _too_busy(run: int) -> BusyError:
    return BusyError(f"run {run:016x} is pruned too quickly to be shipped; try again")


def _named(key: bytes, record: bytes) -> list[tuple[int, int]]:
    """The events that a pair points at."""
    if key[:1] == ID:
        return places_in(unseal_fields(key, record))
    if key[:1] == WAITING:
        return []
    if key[:1] == CHILD:
        return [place_of(key), (child_of(key), -1)]
    return [place_of(key), *(at for at, _ in references(key, record))]


def _is_earlier(there: Listing, here: Listing) -> bool:
    """Whether a name's record may be what another one was before."""
    is_same = there.incarnation == here.incarnation and there.created_ns == here.created_ns
    is_same = is_same and (there.is_alive or not here.is_alive)
    return there.parts == here.parts and (is_same or there.incarnation < here.incarnation)
