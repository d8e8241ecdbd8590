"""Owners: the names that share one run.

Owns who they are and what each sees of the others. A copy of a run is another owner of the same number: for each branch
a segment that is forked at that branch's head, and this record. Of what was there the copy sees what lies on the way to
those heads; what is written afterwards, by whomever, is seen by its writer and by copies that are made of it later.

```
 O run 0        [epoch, is_alive]                                there is none until the run is copied
 O run owner    [epoch, is_alive, parts, source, limits]
                limits: segment, last seq, segment, last seq ..., of 4 and 8 bytes, so that a copy costs the same bytes
                at every history
```

The *epoch* counts the copies. A copy bears the number that its own making counted: of what is not reached through
events (task writes, forgotten ids) it sees what its source wrote in lower ones.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from eventlog.errors import NotFoundError
from eventlog.layout import OWNER, all_of, owner_key
from eventlog.records import seal_fields, unseal_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eventlog.storage import Storage


_limit = struct.Struct(">IQ")


class Owner(NamedTuple):
    """One owner's record.

    Attributes:
        number: of the owner.
        epoch: in which it was made; the first owner's is the run's.
        is_alive: False once its name was deleted, as long as others may lean on it.
        parts: its name; empty for the first one, whose name the run's beginning says.
        source: the owner that it was copied from.
        limits: the last seq that it sees, of each segment in which a head of its source lay.
    """

    number: int
    epoch: int
    is_alive: bool
    parts: tuple[str, ...] = ()
    source: int = 0
    limits: dict[int, int] = {}  # noqa: RUF012 (never changed)

    def pair(self, run: int) -> tuple[bytes, bytes]:
        """Key and record."""
        key = owner_key(run, self.number)
        if not self.number:
            return key, seal_fields(key, [self.epoch, self.is_alive])
        limits = b"".join(_limit.pack(*limit) for limit in self.limits.items())
        return key, seal_fields(key, [self.epoch, self.is_alive, list(self.parts), self.source, limits])


def read_owner(key: bytes, record: bytes | None) -> Owner | None:
    """The owner of that record; None if there is none, but for the first one, who needs none."""
    number = int.from_bytes(key[9:13], "big")
    if record is None:
        return None if number else Owner(0, 0, True)
    epoch, is_alive, *rest = unseal_fields(key, record)
    if not number:
        return Owner(0, epoch, is_alive)
    parts, source, limits = rest[:3]
    return Owner(number, epoch, is_alive, tuple(parts), source, dict(_limit.iter_unpack(limits)))


def all_owners(storage: Storage, run: int) -> Iterator[Owner]:
    """All that a run ever had, as far as something is left of them; only the first, if it was never copied."""
    found = [read_owner(key, record) for key, record in storage.scan([all_of(OWNER, run)])]
    yield from (owner for owner in found or [Owner(0, 0, True)] if owner is not None)


class Owners:
    """What one owner sees of a run. Safe for many threads: what it keeps never changes."""

    def __init__(self, storage: Storage, run: int, owner: int) -> None:
        self._storage = storage
        self._run = run
        self.owner = owner
        self._line: list[Owner] | None = None if owner else [Owner(0, 0, True)]
        self._bounds: Mapping[int, int | None] | None = None

    def line(self) -> list[Owner]:
        """This owner, the one that it was copied from, and so on to the first.

        Raises:
            NotFoundError: the copy was deleted.
        """
        if self._line is None:
            line: list[Owner] = []
            number = self.owner
            while number:
                key = owner_key(self._run, number)
                found = read_owner(key, self._storage.get([key])[0])
                if found is None:
                    msg = "the run is gone: the copy was deleted; open it again"
                    raise NotFoundError(msg)
                line.append(found)
                number = found.source
            self._line = [*line, Owner(0, 0, True)]
        return self._line

    def bounds(self) -> Mapping[int, int | None]:
        """Whose writes this owner sees, nearest first, and from which epoch on it does not; None: it sees all."""
        if self._bounds is None:
            line = self.line()
            self._bounds = {owner.number: line[index - 1].epoch if index else None for index, owner in enumerate(line)}
        return self._bounds

    def epochs(self, newest: int) -> Iterator[tuple[int, int]]:
        """Whose writes this owner sees of each epoch up to the `newest`, one owner's of each; and the epoch."""
        for owner in self.line():
            yield from ((owner.number, epoch) for epoch in range(owner.epoch, newest + 1))
            newest = owner.epoch - 1

    def inherits(self, at: tuple[int, int]) -> bool:
        """Whether an event that another owner wrote was there when this one was made, on the way to a head."""
        return any(at[1] <= owner.limits.get(at[0], -1) for owner in self.line())
