"""Where a pruned run begins.

Owns the tombstone that pruning leaves. The event it names is the first that is left: its manifest says every channel's
value in itself, so nothing older is needed; no other manifest is. What stood before is gone, and the chain of digests
begins anew there, at what the tombstone says of the event before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventlog.errors import NotFoundError
from eventlog.layout import head_key, trunk_key
from eventlog.records import seal_fields, unseal_fields

if TYPE_CHECKING:
    from eventlog.storage import Storage


class Trunk(NamedTuple):
    """The tombstone.

    Attributes:
        segment: with `seq`, the event that the run begins at.
        before: digest of the event before it.
        step: of the event before it.
        first_n: the number of the first of its snapshots that its manifest names; those below are older.
    """

    segment: int
    seq: int
    before: bytes
    step: int
    first_n: int

    @property
    def at(self) -> tuple[int, int]:
        """The place of the event."""
        return self.segment, self.seq

    def pair(self, run: int) -> tuple[bytes, bytes]:
        """Key and record."""
        key = trunk_key(run)
        return key, seal_fields(key, list(self))


def read_trunk(storage: Storage, run: int) -> Trunk | None:
    """The tombstone of a run; None if it was never pruned."""
    key = trunk_key(run)
    return trunk_of(key, storage.get([key])[0])


def trunk_of(key: bytes, record: bytes | None) -> Trunk | None:
    """The tombstone in a record that was read; raises as `unseal_fields`."""
    return None if record is None else Trunk(*unseal_fields(key, record)[:5])


def was_pruned(storage: Storage, run: int, at: tuple[int, int]) -> bool:
    """Whether an event that somebody saw was pruned: it is older than what is left, or its branch is gone."""
    trunk = read_trunk(storage, run)
    return trunk is not None and (at[1] < trunk.seq or storage.get([head_key(run, at[0])])[0] is None)


def pruned(at: tuple[int, int]) -> NotFoundError:
    """The error of reading such an event."""
    return NotFoundError(f"the event at seq {at[1]} of segment {at[0]} was pruned; read the run again")
