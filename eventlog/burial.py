"""Deleting runs, and owners of runs that others share.

Owns what goes and what stays: the last owner takes everything along, but for a tombstone where the run began; another
takes its branches, and of the rest what nobody leans on. Pointers go first, in one commit: from then on late writers
fail. What they pointed at is swept afterwards; a sweep that was stopped is done again by the next one.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from eventlog.errors import ExpectationError, NotFoundError
from eventlog.layout import (
    BRANCH,
    EVENT,
    HEAD,
    ID,
    MANIFEST,
    PART,
    RUN_KINDS,
    SNAPSHOT,
    TASK_WRITE,
    WAITING,
    all_of,
    branch_key,
    child_key,
    head_key,
    owner_key,
    owner_of,
    places,
    segment_key,
)
from eventlog.lineage import Lineage
from eventlog.owners import all_owners, read_owner
from eventlog.records import seal_fields, unseal_fields
from eventlog.tasks import owner_of_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventlog.lineage import Segment
    from eventlog.owners import Owner
    from eventlog.storage import Storage

SWEEP_KEYS: Final = 1000
_LAST_SEQ: Final = (1 << 63) - 2


def is_buried(storage: Storage, number: int, owner: int) -> bool:
    """Whether a run, or that owner of it, was deleted, or is being deleted."""
    begins, key = segment_key(number, 0), owner_key(number, owner)
    beginning, record = storage.get([begins, key])
    if beginning is not None and not unseal_fields(begins, beginning):
        return True
    found = read_owner(key, record)
    return found is None or not found.is_alive


def bury(storage: Storage, number: int, owner: int) -> None:
    """Remove the branches of an owner, so that it can append nothing; of the last one, put a tombstone for the run."""
    while True:
        begins, first = segment_key(number, 0), owner_key(number, 0)
        beginning, epoch = storage.get([begins, first])
        if beginning is not None and not unseal_fields(begins, beginning) and not _pointers(storage, number, None):
            return
        owners = list(all_owners(storage, number))
        others = [other for other in owners if other.is_alive and other.number != owner]
        expect = {begins: beginning, first: epoch, **dict(other.pair(number) for other in others if other.number)}
        try:
            pointers = _pointers(storage, number, owner if others else None)
        except NotFoundError:  # the last one of the others took everything along meanwhile
            continue
        puts = [(begins, seal_fields(begins, []))]
        if others:
            mine = next((each for each in owners if each.number == owner), None)
            if mine is None or (not mine.is_alive and not pointers):
                return
            expect.update([mine.pair(number)])
            puts = [mine._replace(is_alive=False).pair(number)]
        try:
            storage.commit(puts, pointers, expect)
            if not _pointers(storage, number, owner if others else None):
                return
        except (ExpectationError, NotFoundError):
            continue


def _pointers(storage: Storage, number: int, owner: int | None) -> list[bytes]:
    """Keys of an owner's branches and heads; of all owners', if None."""
    if owner is None:
        return [key for key, _ in storage.scan([all_of(BRANCH, number), all_of(HEAD, number)])]
    segments = [segment for segment in _segments(storage, number) if segment.owner == owner]
    keys = [branch_key(number, segment.branch, owner) for segment in segments]
    keys += [head_key(number, segment.number) for segment in segments]
    return [key for key, record in zip(keys, storage.get(keys) if keys else [], strict=True) if record is not None]


def _segments(storage: Storage, number: int) -> Iterable[Segment]:
    return Lineage(storage, number).all()


def sweep(storage: Storage, number: int) -> None:
    """Remove what deleted owners of a run left and nobody leans on; everything but the tombstone, if all are gone."""
    grave = segment_key(number, 0)
    record = storage.get([grave])[0]
    if record is not None and not unseal_fields(grave, record):
        for kind in RUN_KINDS:
            remove(storage, (key for key, _ in storage.scan([all_of(kind, number)]) if key != grave))
        return
    try:
        _sweep_owners(storage, number)
    except NotFoundError:  # the last owner was deleted meanwhile: everything goes
        sweep(storage, number)


def _sweep_owners(storage: Storage, number: int) -> None:
    """Remove what those owners left who were deleted before this begins."""
    owners = {owner.number: owner for owner in all_owners(storage, number)}
    segments = list(_segments(storage, number))  # all that lean on theirs: nobody copies who was deleted
    gone = _unneeded(owners)
    for owner in all_owners(storage, number):  # a copy that was made meanwhile is there with its segments
        owners.setdefault(owner.number, owner)
    remove(storage, _names_of(storage, number, gone))
    for segment in _unshared(segments, owners):
        remove(storage, keys_of(storage, number, segment))
        if segment.number != segments[-1].number:  # the last one stays, so that no number is ever used again
            remove(storage, names_of_segment(number, segment))
    remove(storage, (owner_key(number, owner) for owner in gone))


def _unneeded(owners: dict[int, Owner]) -> set[int]:
    """Deleted owners whose records nobody needs: no copy was made of them, or all such are unneeded, too."""
    gone: set[int] = set()
    while True:
        sources = {owner.source for owner in owners.values() if owner.number and owner.number not in gone}
        more = {number for number, owner in owners.items() if number and not owner.is_alive and number not in sources}
        if more <= gone:
            return gone
        gone |= more


def _unshared(segments: list[Segment], owners: dict[int, Owner]) -> Iterator[Segment]:
    """Segments of deleted owners that none is forked from, newest first; the first one stays."""
    parents = Counter(segment.parent for segment in segments if segment.number)
    for segment in sorted(segments, reverse=True):
        owner = owners.get(segment.owner)
        if segment.number and not parents[segment.number] and (owner is None or not owner.is_alive):
            parents[segment.parent] -= 1
            yield segment


def _names_of(storage: Storage, number: int, gone: set[int]) -> Iterator[bytes]:
    """Keys of ids and task writes that are those owners'."""
    if gone:
        yield from (key for key, _ in storage.scan([all_of(ID, number)]) if owner_of(key) in gone)
        for key, record in storage.scan([all_of(TASK_WRITE, number), all_of(WAITING, number)]):
            if owner_of_record(key, record) in gone:
                yield key


def keys_of(storage: Storage, number: int, segment: Segment, first: int = 0, last: int = _LAST_SEQ) -> Iterator[bytes]:
    """What lies at the events of a segment."""
    for kind in (TASK_WRITE, MANIFEST, SNAPSHOT, PART, EVENT):
        yield from (key for key, _ in storage.scan([places(kind, number, segment.number, first, last)]))


def names_of_segment(number: int, segment: Segment) -> list[bytes]:
    """What says that there is a segment."""
    return [child_key(number, (segment.parent, segment.base_seq), segment.number), segment_key(number, segment.number)]


def remove(storage: Storage, keys: Iterable[bytes]) -> None:
    """Remove keys, in their order, by commits of a bounded size."""
    found = list(keys)
    for begin in range(0, len(found), SWEEP_KEYS):
        storage.commit([], found[begin : begin + SWEEP_KEYS])
