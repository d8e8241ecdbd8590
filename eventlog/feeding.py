"""The feed: the events of all runs, in the order in which they became visible.

Owns how a key that the storage feeds becomes an event of a run. The order, and what a position means, are the
storage's.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from eventlog.branches import Branches
from eventlog.burial import is_buried
from eventlog.codec import known_codec
from eventlog.errors import InvalidInputError, NotFoundError, UnknownTypeError
from eventlog.events import Fed
from eventlog.layout import owner_key, place_of, run_of, transit_key
from eventlog.lineage import Lineage
from eventlog.owners import read_owner
from eventlog.records import read_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventlog.events import Event
    from eventlog.storage import Storage

_PAGE_KEYS: Final = 256
_MAX_RUNS: Final = 1024


def feed(storage: Storage, after: str | None, limit: int | None) -> Iterator[Fed]:
    """See `EventLog.feed`."""
    if limit is not None and limit < 0:
        raise InvalidInputError(f"limit is 0 or more, not {limit}")
    return islice(_events(storage, storage.feed(_position(after))), limit)


def _position(after: str | None) -> bytes:
    if after is None:
        return b""
    try:
        return bytes.fromhex(after)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{after!r} is no position of a feed; begin without one") from error


def _events(storage: Storage, pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[Fed]:
    runs = _Runs(storage)
    while page := list(islice(pairs, _PAGE_KEYS)):
        runs.forget()
        records = storage.get([key for _, key in page])
        for (position, key), record in zip(page, records, strict=True):
            try:
                event = None if record is None else runs.event(key, record)
            except _OnItsWayError:  # whatever comes after it would be fed before it
                return
            if event is not None:
                yield Fed(position.hex(), event.run, event)


class _OnItsWayError(Exception):
    """In a copy of another log: an event that nothing points at yet."""


class _Runs:
    """The runs that were met, by number and owner."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lineages: dict[int, Lineage] = {}
        self._branches: dict[tuple[int, int], Branches | None] = {}

    def forget(self) -> None:
        """Look again who is alive; what never changes is kept."""
        self._branches.clear()
        if len(self._lineages) > _MAX_RUNS:
            self._lineages.clear()

    def event(self, key: bytes, record: bytes) -> Event | None:
        """The event of a record; None if its run was deleted.

        Raises:
            _OnItsWayError: see there.
        """
        for _ in range(2):
            with suppress(NotFoundError):
                return self._found(key, record)
            if self._storage.get([transit_key(run_of(key))])[0] is not None:
                raise _OnItsWayError
        return None  # deleted at this moment; it has not arrived at this moment, either

    def _found(self, key: bytes, record: bytes) -> Event | None:
        run, at = run_of(key), place_of(key)
        lineage = self._lineages.get(run) or self._lineages.setdefault(run, Lineage(self._storage, run))
        place = run, lineage.segment(at[0]).owner
        if place not in self._branches:
            self._branches[place] = None if is_buried(self._storage, *place) else self._opened(lineage, *place)
        branches = self._branches[place]
        return None if branches is None else branches.event_of(at, read_event(key, record))

    def _opened(self, lineage: Lineage, run: int, owner: int) -> Branches:
        parts, incarnation, codec = lineage.segment(0).origin[:3]
        if owner:
            key = owner_key(run, owner)
            known = read_owner(key, self._storage.get([key])[0])
            parts = known.parts if known else parts
        return Branches(self._storage, run, incarnation, owner, tuple(parts), known_codec(codec) or _Unknown(codec))


class _Unknown:
    """Stands in for a codec that is not registered here: events can be looked at, values cannot."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, value: Any, path: str = "value") -> bytes:
        """Never to be called: a feed writes nothing."""
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        """Refuse, with what to do."""
        raise UnknownTypeError(
            self.name, f"{len(data):,} bytes were written with the codec {self.name!r}; import what registers it first"
        )
