"""The id index: which event an id names that its writer gave.

Owns the records of ids, and who finds which event by one. An id may come to name another event, or none; what it named
before stays in its record as long as somebody may need it.

```
 record   [segment, seq, anchor's segment, seq, ...]    newest first, four numbers each
          the anchor is the first event that the id named: task writes stand there
          seq -1: from here on, the id names nothing; the epoch stands in the segment's place
```
"""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog.layout import id_key, id_of, ids_below, owner_key
from eventlog.owners import read_owner
from eventlog.records import seal_fields, unseal_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eventlog.owners import Owners
    from eventlog.storage import Storage

_FOUR: Final = 4
_NOWHERE: Final = -1


class Renamed(NamedTuple):
    """What makes an id name something else: the record, what must be there still, and the anchor."""

    put: tuple[bytes, bytes]
    expect: dict[bytes, bytes | None]
    anchor: tuple[int, int]


class Naming:
    """The ids of one owner of a run."""

    def __init__(self, storage: Storage, run: int, owners: Owners) -> None:
        self._storage = storage
        self._run = run
        self._owners = owners

    def entry(self, event_id: str) -> list[int] | None:
        """Segment and seq of the event that an id names, then of the first one it ever named."""
        if self._owners.owner:
            return self.entries([event_id])[0]
        key = id_key(self._run, event_id)
        record = self._storage.get([key])[0]
        newest = None if record is None else unseal_fields(key, record)[:_FOUR]
        return None if newest is None or newest[1] == _NOWHERE else newest

    def entries(self, event_ids: Sequence[str], *, forgotten: bool = False) -> list[list[int] | None]:
        """The same of several ids, by one read; of those that were forgotten what they named then, if `forgotten`."""
        bounds = list(self._owners.bounds().items())
        keys = [id_key(self._run, event_id, owner) for event_id in event_ids for owner, _ in bounds]
        records = self._storage.get(keys) if keys else []
        found: list[list[int] | None] = []
        pairs = zip(keys, records, strict=True)
        for _ in event_ids:
            entry: list[int] | None = None
            for (_, bound), (key, record) in zip(bounds, [*islice(pairs, len(bounds))], strict=True):
                entry = self._seen(unseal_fields(key, record), bound, forgotten=forgotten) if record else None
                if entry is not None:
                    break
            found.append(entry or None)
        return found

    def _seen(self, fields: list[int], bound: int | None, *, forgotten: bool) -> list[int] | None:
        """The newest of a record that this owner sees; an empty list if that is nothing."""
        for begin in range(0, len(fields), _FOUR):
            entry = fields[begin : begin + _FOUR]
            if entry[1] != _NOWHERE:
                if bound is None or self._owners.inherits((entry[0], entry[1])):
                    return entry
            elif not forgotten and (bound is None or entry[0] < bound):
                return []
        return None

    def newest(self) -> tuple[str, list[int] | None] | None:
        """The greatest id that names something, with what `entry` says of it; None if there is none."""
        if not self._owners.owner:
            first = next(self._walk(None, 0, None, 0, 1), None)
            if first is None or first[2]:  # nearly always it was not forgotten
                return None if first is None else (first[0].decode(), first[2])
        greatest = next(self._ids(None), None)
        return None if greatest is None else (greatest, self.entry(greatest))

    def ids(self, before: str | None, limit: int | None) -> Iterator[str]:
        """The ids that name something, greatest first, lazily."""
        if limit is not None and not self._owners.owner:  # nearly always none of them was forgotten
            few = [(name, entry) for name, _, entry in self._walk(before, 0, None, 0, limit)]
            if all(entry for _, entry in few):
                return (name.decode() for name, _ in few)
        return islice(self._ids(before), limit)

    def _ids(self, before: str | None) -> Iterator[str]:
        bounds = list(self._owners.bounds().items())
        walks = [self._walk(before, owner, bound, -index) for index, (owner, bound) in enumerate(bounds)]
        last = None
        for event_id, _, entry in walks[0] if len(walks) == 1 else heapq.merge(*walks, reverse=True):
            if event_id != last and entry is not None:
                last = event_id
                if entry:
                    yield event_id.decode()

    def _walk(
        self, before: str | None, owner: int, bound: int | None, order: int, limit: int | None = None
    ) -> Iterator[tuple[bytes, int, list[int] | None]]:
        pairs = self._storage.scan([ids_below(self._run, before, owner)], reverse=True, limit=limit)
        for key, record in pairs:
            yield id_of(key).encode(), order, self._seen(unseal_fields(key, record), bound, forgotten=False)

    def renamed(self, event_id: str, at: tuple[int, int] | None) -> Renamed:
        """Let an id name the event `at`, or nothing."""
        key, epoch_key = id_key(self._run, event_id, self._owners.owner), owner_key(self._run, 0)
        record, epoch_record = self._storage.get([key, epoch_key])
        fields: list[int] = [] if record is None else unseal_fields(key, record)
        if epoch_record is None and _NOWHERE not in fields[1::_FOUR] and at is not None:
            older: list[int] = []  # nobody needs them
        else:
            older = fields
        known = self.entry(event_id)
        if at is None:
            epoch = read_owner(epoch_key, epoch_record)
            assert epoch is not None
            now = [epoch.epoch, _NOWHERE, 0, 0]
        else:
            now = [*at, *(at if known is None else known[2:])]
        put = (key, seal_fields(key, [*now, *older]))
        return Renamed(put, {key: record, epoch_key: epoch_record}, (now[2], now[3]))


def places_in(fields: Sequence[int]) -> list[tuple[int, int]]:
    """The events that a record of an id says it ever named, newest first."""
    return [(fields[n], fields[n + 1]) for n in range(0, len(fields), _FOUR) if fields[n + 1] != _NOWHERE]


def earlier(fields: Sequence[int], is_there: Callable[[tuple[int, int]], bool]) -> list[int]:
    """What a record of an id said before the events took the id over that are not there; empty if nothing, or unknown.

    Of an id that was never forgotten, in a run that was never copied, only the first event is known.
    """
    rest = list(fields)
    first: list[int] = []
    while not all(map(is_there, places_in(rest))):
        first, rest = (first if rest[1] == _NOWHERE else rest[2:_FOUR]), rest[_FOUR:]
    return rest or [*first, *first] * (bool(first) and is_there((first[0], first[1])))


def bare(fields: Sequence[int]) -> list[int]:
    """The fields of a record of an id that was forgotten, without what it named before."""
    return list(fields[:_FOUR])
