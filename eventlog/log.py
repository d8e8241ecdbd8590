"""A log: everything in one place. The door to its runs.

Owns opening, the catalogue of runs, and deleting them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Self

from eventlog.catalog import Catalog, name_parts, plain_name
from eventlog.codec import MSGPACK
from eventlog.diff import Diff, compare
from eventlog.errors import ExpectationError, InvalidInputError, NotFoundError
from eventlog.events import Event, Limits, Stats
from eventlog.layout import BRANCH, HEAD, RUN_KINDS, all_of, id_of, ids_below, name_key, segment_key
from eventlog.records import seal_fields, unseal_fields
from eventlog.run import Run
from eventlog.snapshots import CONSTANTS
from eventlog.state import State
from eventlog.storage import Storage, Synchronous, open_storage
from eventlog.verify import verified

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from eventlog.catalog import Listing
    from eventlog.codec import Codec
    from eventlog.events import Problem, RunName

_SWEEP_KEYS = 1000


class _Door(NamedTuple):
    """See `eventlog.run.Door`."""

    log: EventLog
    parts: tuple[str, ...]

    def find(self) -> tuple[int, int] | None:
        listing = self.log._catalog.find(self.parts)  # noqa: SLF001 (its own)
        if listing is None or not listing.is_alive or self.log._is_buried(listing.number):  # noqa: SLF001 (its own)
            return None
        return listing.number, listing.incarnation

    def evidence(self, number: int) -> list[bytes | None]:
        return self.log._storage.get([name_key(self.parts), segment_key(number, 0)])  # noqa: SLF001 (its own)

    def create(self) -> tuple[int, int]:
        return self.log._created(self.parts)  # noqa: SLF001 (its own)


class EventLog:
    """An append-only log of runs, in one place.

    May be used from any thread. Use it as a context manager, or `close` it.

    Args:
        storage: where the bytes live.
        limits: the most that one call may write.
        clock: nanoseconds since the epoch.
    """

    def __init__(
        self, storage: Storage, *, limits: Limits | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._storage = storage
        self._limits = limits or Limits()
        self._clock = clock
        self._catalog = Catalog(storage)

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        *,
        readonly: bool = False,
        synchronous: Synchronous = "normal",
        limits: Limits | None = None,
    ) -> EventLog:
        """Open the log at `location`, or begin one there.

        Args:
            location: a directory (LMDB); ``"sqlite:///relative.db"`` or ``"sqlite:////absolute.db"`` for one file of
                SQLite; or ``"memory:"`` for a log that lives as long as this object.
            readonly: write nothing, and fail if there is no log.
            synchronous: what an append that returned survives. ``"full"``: power loss. ``"normal"``: the process's
                death; power loss takes at most the last half second, and never anything older than what it takes.
                ``"off"``: nothing; it is written in batches, and nobody else can write meanwhile (in SQLite nobody else
                can read, either).
            limits: the most that one call may write.

        Raises:
            FormatError: something else lies there, or a log of a newer format; with `readonly`, nothing.
            InvalidInputError: the location is no path, or a URL that no engine serves.
            StorageError: the storage cannot be opened.
        """
        return cls(open_storage(location, readonly=readonly, synchronous=synchronous), limits=limits)

    @property
    def location(self) -> str:
        """Where the log lives."""
        return self._storage.location

    def run(self, name: RunName, *, codec: Codec | None = None) -> Run:
        """A handle on a run's main branch: a new run, or one that goes on where it ended.

        A new run is in the catalogue from its first write on.

        Args:
            name: a string of at most 255 bytes, or a tuple of strings for runs within runs.
            codec: turns values into bytes; by default the log's own. A run keeps the codec it began with.

        Raises:
            InvalidIdError: the name is empty, too long, or holds control characters.
            InvalidInputError: the run was written with another codec.
        """
        parts = name_parts(name)
        return Run(self._storage, parts, codec or MSGPACK, self._limits, self._clock, _Door(self, parts))

    def runs(self, within: str | None = None) -> list[RunName]:
        """The names of all runs, sorted; only those whose first part is `within`, if given."""
        return sorted(
            (plain_name(listing.parts) for listing in self._catalog.listings(within) if listing.is_alive),
            key=lambda name: (name,) if isinstance(name, str) else name,
        )

    def codec_name(self, name: RunName) -> str | None:
        """The name of the codec that a run was written with; None if there is no such run, or nothing in it."""
        listing = self._catalog.find(name_parts(name))
        if listing is None or not listing.is_alive:
            return None
        key = segment_key(listing.number, 0)
        record = self._storage.get([key])[0]
        fields = [] if record is None else unseal_fields(key, record)
        return str(fields[-1][2]) if fields else None

    def __contains__(self, name: object) -> bool:
        listing = self._catalog.find(name_parts(name))
        return listing is not None and listing.is_alive

    def deleted_up_to(self, name: RunName) -> str | None:
        """The greatest id that was given in a run of that name that was deleted; None if none was deleted.

        Where ids grow, it tells a late writer from an early one: who names an event by an id up to this one, that is
        not there, names one that was deleted. Empty if no id was given, or a release deleted it that did not keep it.
        """
        listing = self._catalog.find(name_parts(name))
        if listing is None or (listing.is_alive and not listing.incarnation):
            return None
        return listing.last_id or ""

    def delete(self, name: RunName) -> None:
        """Delete a run: events, branches, ids and task writes. Its name stays as a tombstone, and may be used again.

        From the moment this begins, late writers of the run get an error; what they were told is written is deleted
        with the rest.

        Raises:
            NotFoundError: there is no such run.
            InvalidIdError: the name is no name.
        """
        listing = self._catalog.find(name_parts(name))
        if listing is None or (not listing.is_alive and not listing.unswept):
            raise NotFoundError(f"there is no run {name!r}; log.runs() lists them")
        was_alive = listing.is_alive
        if was_alive:
            self._bury(listing.number)
            listing = self._entombed(listing)
        for number in listing.unswept:
            self._sweep(number)
        self._catalog.swept(listing)
        if not was_alive:
            raise NotFoundError(f"there is no run {name!r}; log.runs() lists them")

    def _bury(self, number: int) -> None:
        """Remove the branches and put a tombstone where the run begins: from here on nothing can be appended."""
        key = segment_key(number, 0)
        while True:
            record = self._storage.get([key])[0]
            pointers = [pointer for pointer, _ in self._storage.scan([all_of(BRANCH, number), all_of(HEAD, number)])]
            try:
                self._storage.commit([(key, seal_fields(key, []))], pointers, {key: record})
            except ExpectationError:
                continue
            if not list(self._storage.scan([all_of(BRANCH, number), all_of(HEAD, number)], limit=1)):
                return

    def _entombed(self, listing: Listing) -> Listing:
        """The tombstone of a run that was buried; its ids are there until it is swept."""
        newest = self._storage.scan([ids_below(listing.number, None)], reverse=True, limit=1)
        return self._catalog.bury(listing, next((id_of(key) for key, _ in newest), ""))

    def _created(self, parts: tuple[str, ...]) -> tuple[int, int]:
        """The number and incarnation of a run that is to be written to now."""
        while True:
            listing = self._catalog.find(parts)
            if listing is not None and listing.is_alive and self._is_buried(listing.number):
                listing = self._entombed(listing)  # a deletion stopped half-way: finish it
            if listing is None or not listing.is_alive:
                listing = self._catalog.create(parts, self._clock(), past=listing)
            if listing.is_alive:
                return listing.number, listing.incarnation

    def _is_buried(self, number: int) -> bool:
        key = segment_key(number, 0)
        record = self._storage.get([key])[0]
        return record is not None and not unseal_fields(key, record)

    def _sweep(self, number: int) -> None:
        """Remove what a deleted run left, pointers before what they point at; the tombstone stays."""
        grave = segment_key(number, 0)
        for kind in RUN_KINDS:
            while True:
                pairs = self._storage.scan([all_of(kind, number)], limit=_SWEEP_KEYS)
                keys = [key for key, _ in pairs if key != grave]
                if not keys:
                    break
                self._storage.commit([], keys)

    def diff(self, a: State | Event, b: State | Event) -> Diff:
        """What differs from `a` to `b`: states or events, of any branches and runs of this log."""
        return compare(self._state(a), self._state(b))

    def _state(self, of: State | Event) -> State:
        if isinstance(of, State):
            return of
        if isinstance(of, Event):
            return self.run(of.run).at(of)
        raise InvalidInputError(f"diff compares states and events, not {of!r}; run.at(step) makes a state")

    def verify(self, name: RunName | None = None) -> Iterator[Problem]:
        """Read everything, of one run or of all, and yield what is wrong; nothing when all is well.

        Checks checksums, digest chains, pointers and indexes, and that every manifest and snapshot says what the
        events say.
        """
        return verified(self._storage, self._catalog, None if name is None else name_parts(name))

    def stats(self) -> Stats:
        """Counters of the log, and the constants that bound its cost."""
        return Stats(self.location, len(self.runs()), self._storage.size_bytes(), dict(CONSTANTS))

    def flush(self) -> None:
        """Return when everything written before is on stable storage."""
        self._storage.flush()

    def is_flushed(self) -> bool:
        """Whether everything written so far, by whatever process, is on stable storage; `flush` makes it so."""
        return self._storage.is_flushed()

    def close(self) -> None:
        """Give back files and memory. Idempotent; what is used afterwards raises `ClosedError`."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventLog at {self.location}>"
