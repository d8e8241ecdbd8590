"""Forgetting: what an explicit call takes away from a run's history.

Owns which ids name nothing any more, and what may go with them. An id that was forgotten keeps its record as a
tombstone, and its event stays as long as something is built on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventlog.errors import ConflictError, ExpectationError
from eventlog.layout import CHILD, EVENT, place_of, places
from eventlog.records import read_event
from eventlog.tasks import Anchor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventlog.branches import Branches
    from eventlog.tasks import TaskWrites

    Place = tuple[int, int]

_TRIES: Final = 100
_LAST_SEQ: Final = (1 << 63) - 2


def forget(branches: Branches, tasks: TaskWrites, event_ids: Sequence[str]) -> list[str]:
    """Let ids name nothing; what tasks wrote after their events goes where nothing is built on those.

    Each id by a commit of its own: if this is stopped, what is left is forgotten by the next call.

    Returns:
        Those that named something.

    Raises:
        ConflictError: others rename the same ids, every time.
    """
    entries = dict(zip(event_ids, branches.naming.entries(event_ids), strict=True))
    named = {event_id: entry for event_id, entry in entries.items() if entry is not None}
    ends = _ends(branches, {(entry[0], entry[1]) for entry in named.values()})
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
            branches.storage.commit([renamed.put, *puts], deletes, {**expect, **renamed.expect})
        except ExpectationError:
            continue
        return
    raise ConflictError(f"too many writers use the id {event_id!r} at once; try again")


def _ends(branches: Branches, going: set[Place]) -> set[Place]:
    """Those of some places behind which nothing stays: no event whose id names it, no branch that begins there."""
    ends: set[Place] = set()
    for number in {segment for segment, _ in going}:
        first = min(seq for segment, seq in going if segment == number)
        ends |= _ends_of(branches, number, first, going)
    return ends


def _ends_of(branches: Branches, number: int, first: int, going: set[Place]) -> set[Place]:
    run, storage = branches.run, branches.storage
    forks = {place_of(key)[1] for key, _ in storage.scan([places(CHILD, run, number, first, _LAST_SEQ)])}
    ends: set[Place] = set()
    for key, record in storage.scan([places(EVENT, run, number, first, _LAST_SEQ)], reverse=True):
        at = place_of(key)
        if at[1] in forks:
            break
        if at in going:
            ends.add(at)
            continue
        event_id = read_event(key, record)[2].id
        entry = None if event_id is None else branches.id_entry(event_id)
        if event_id is None or (entry is not None and (entry[0], entry[1]) == at):
            break
    return ends
