"""Copying a run: another owner of the same number.

Owns the one commit that makes it. It costs three records per branch and one, whatever the history: see owners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventlog.branches import Branches
from eventlog.codec import MSGPACK
from eventlog.errors import ConflictError, ExpectationError, NotFoundError
from eventlog.layout import branch_key, child_key, head_key, owner_key, segment_key
from eventlog.lineage import segment_record
from eventlog.owners import Owner, read_owner
from eventlog.records import head_record, seal_fields

if TYPE_CHECKING:
    from eventlog.catalog import Listing
    from eventlog.storage import Storage

    Expected = dict[bytes, bytes | None]
    Pairs = list[tuple[bytes, bytes]]

_TRIES: Final = 100


def copied(storage: Storage, source: Listing, parts: tuple[str, ...]) -> int | None:
    """Make another owner of the run of `source`, named `parts`; its number, None if the run has no events.

    All or nothing: the heads are those of one moment.

    Raises:
        ConflictError: the source's writers were quicker, every time.
        NotFoundError: the source was deleted meanwhile.
    """
    for _ in range(_TRIES):
        branches = Branches(storage, source.number, source.incarnation, source.owner, source.parts, MSGPACK)
        begins, beginning = branches.beginning()
        if beginning is None:
            return None
        first = owner_key(source.number, 0)
        epoch_record = storage.get([first])[0]
        known = read_owner(first, epoch_record)
        assert known is not None
        number = known.epoch + 1  # never used again, so that handles on a deleted copy know it
        try:
            puts, expect, limits = _branches(branches, number)
        except NotFoundError:  # it was pruned meanwhile, or deleted
            continue
        owner = Owner(number, number, True, parts, source.owner, limits).pair(source.number)
        puts += [owner, known._replace(epoch=number).pair(source.number)]
        expect.update({begins: beginning, first: epoch_record, owner[0]: None})
        if source.owner:  # the run must not be buried, either
            key = segment_key(source.number, 0)
            expect[key] = storage.get([key])[0]
        try:
            storage.commit(puts, (), expect)
        except ExpectationError:
            continue
        return number
    raise ConflictError(f"run {branches.name!r} is written too quickly to be copied; try again")


def _branches(branches: Branches, owner: int) -> tuple[Pairs, Expected, dict[int, int]]:
    """A segment and a branch for each of the source's, forked at its head; and how far that lets the copy see."""
    puts: Pairs = []
    expect: Expected = {}
    limits: dict[int, int] = {}
    run, next_number = branches.run, branches.lineage.next_number()
    segments = branches.all()
    heads = branches.heads_of(segments)
    if any(seq < 0 for _, seq in heads):
        raise NotFoundError(f"run {branches.name!r} is being deleted")
    events = branches.events_at(set(heads))
    for number, (segment, at) in enumerate(zip(segments, heads, strict=True), next_number):
        digest, step = events[at].digest, events[at].step
        copy = branches.lineage.forked(number, segment.branch, (*at, step, digest))._replace(origin=[owner])
        key = branch_key(run, copy.branch, owner)
        puts += [segment_record(run, copy), (key, seal_fields(key, [copy.branch, number, owner]))]
        puts.append((child_key(run, at, number), b""))
        expect[segment_key(run, number)] = None
        expect[head_key(run, segment.number)] = head_record(at[1], digest) if at[0] == segment.number else None
        limits[at[0]] = max(at[1], limits.get(at[0], -1))
    return puts, expect, limits
