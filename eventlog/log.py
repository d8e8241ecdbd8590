"""A log: everything in one place. The door to its runs.

Owns opening, the catalogue of runs, and deleting them.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from eventlog.burial import bury, is_buried, sweep
from eventlog.catalog import Catalog, name_parts, plain_name
from eventlog.codec import MSGPACK
from eventlog.copying import copied
from eventlog.diff import Diff, compare
from eventlog.errors import ConflictError, InvalidInputError, NotFoundError
from eventlog.events import Event, Limits, Stats
from eventlog.feeding import feed
from eventlog.layout import name_key, owner_key, segment_key
from eventlog.mirroring import Follower, compared, copy
from eventlog.naming import Naming
from eventlog.owners import Owners, all_owners
from eventlog.records import unseal_fields
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
    from eventlog.events import Fed, Problem, RunName
    from eventlog.mirroring import Comparison


class _Door(NamedTuple):
    """See `eventlog.run.Door`."""

    log: EventLog
    parts: tuple[str, ...]

    def listed(self) -> tuple[int, int, int] | None:
        listing = self.log._catalog.find(self.parts)  # noqa: SLF001 (its own)
        if listing is None or not listing.is_alive:
            return None
        return listing.number, listing.incarnation, listing.owner

    def find(self) -> tuple[int, int, int] | None:
        found = self.listed()
        return None if found is None or is_buried(self.log._storage, found[0], found[2]) else found  # noqa: SLF001 (its own)

    def evidence(self, number: int, owner: int) -> list[bytes | None]:
        keys = [name_key(self.parts), segment_key(number, 0)]
        return self.log._storage.get([*keys, owner_key(number, owner)] if owner else keys)  # noqa: SLF001 (its own)

    def create(self) -> tuple[int, int, int]:
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
                SQLite; ``"redis://HOST:PORT/DB?prefix=NAME"`` for a server of Redis; ``"s3://BUCKET/PREFIX"``,
                ``gs://``, ``az://`` or ``file:///PATH`` for an object store, where opening takes the log over from who
                writes it, unless `readonly`; or ``"memory:"`` for a log that lives as long as this object.
            readonly: write nothing, and fail if there is no log.
            synchronous: what an append that returned survives. ``"full"``: power loss. ``"normal"``: the process's
                death; power loss takes at most the last half second, and never anything older than what it takes.
                ``"off"``: nothing; it is written in batches, and nobody else can write meanwhile (in SQLite nobody else
                can read, either). On a server it is the server's setting, and one that gives less is refused.
            limits: the most that one call may write.

        Raises:
            FormatError: something else lies there, or a log of a newer format; with `readonly`, nothing.
            InvalidInputError: the location is no path, or a URL that no engine serves.
            MissingExtraError: a package for it is missing.
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
        return listing is not None and listing.is_alive and not self._is_buried(listing)

    def deleted_up_to(self, name: RunName) -> str | None:
        """The greatest id that was given in a run of that name that was deleted; None if none was deleted.

        Where ids grow, it tells a late writer from an early one: who names an event by an id up to this one, that is
        not there, names one that was deleted. Empty if no id was given, or a release deleted it that did not keep it.
        """
        parts = name_parts(name)
        while True:
            listing = self._catalog.find(parts)
            if listing is None or not listing.is_alive or not self._is_buried(listing):
                return (
                    None if listing is None or (listing.is_alive and not listing.incarnation) else listing.last_id or ""
                )
            last_id = max(self._last_id(listing), listing.last_id or "")
            if self._catalog.find(parts) == listing:  # its deletion, which has begun, has swept none of its ids yet
                return last_id

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
            self._bury_unnamed(listing.number)
            bury(self._storage, listing.number, listing.owner)
            listing = self._entombed(listing)
        for place in listing.unswept:
            sweep(self._storage, place[0] if isinstance(place, list) else place)
        self._catalog.swept(listing)
        if not was_alive:
            raise NotFoundError(f"there is no run {name!r}; log.runs() lists them")

    def _bury_unnamed(self, number: int) -> None:
        """Give up copies that were begun and never got their name."""
        copies = [owner for owner in all_owners(self._storage, number) if owner.number and owner.is_alive]
        listings = self._catalog.find_all([owner.parts for owner in copies])
        for owner, named in zip(copies, listings, strict=True):
            if named is None or (named.number, named.owner) != (number, owner.number):
                bury(self._storage, number, owner.number)

    def copy(self, source: RunName, target: RunName) -> None:
        """Make run `target` of what run `source` is now: branches, events, ids and task writes, without copying them.

        Costs a few hundred bytes per branch, whatever the history. From then on each goes its own way: what is written
        to one, deleted or pruned there never shows in the other. Either the whole copy is there or nothing.

        A source without events makes no copy: task writes that wait for the first one stay behind.

        Raises:
            NotFoundError: there is no run `source`.
            ConflictError: there is a run `target` already; or the source is being written too quickly, try again.
            InvalidIdError: a name is no name.
        """
        parts = name_parts(target)
        while True:
            listing, past = self._catalog.find(name_parts(source)), self._catalog.find(parts)
            if listing is None or not listing.is_alive or self._is_buried(listing):
                raise NotFoundError(f"there is no run {source!r}; log.runs() lists them")
            if past is not None and past.is_alive and self._is_buried(past):
                past = self._entombed(past)  # a deletion stopped half-way: finish it
            if past is not None and past.is_alive:
                raise ConflictError(f"there is a run {target!r} already; delete it, or choose another name")
            owner = copied(self._storage, listing, parts)
            if owner is None or self._named(parts, (listing.number, owner), past):
                return

    def _named(self, parts: tuple[str, ...], run: tuple[int, int], past: Listing | None) -> bool:
        """Put a copy into the catalogue; False if a name was not to be had, or somebody took it for a leftover."""
        if not self._catalog.share(parts, run, self._clock(), past=past):
            bury(self._storage, *run)
            sweep(self._storage, run[0])
            return False
        if is_buried(self._storage, *run):
            named = self._catalog.find(parts)
            if named is not None and named.is_alive and (named.number, named.owner) == run:
                self._entombed(named)
            return False
        return True

    def _entombed(self, listing: Listing) -> Listing:
        """The tombstone of a run that was buried."""
        return self._catalog.bury(listing, self._last_id(listing))

    def _last_id(self, listing: Listing) -> str:
        """The greatest id of a run that was buried; its ids are there until it is swept."""
        naming = Naming(self._storage, listing.number, Owners(self._storage, listing.number, listing.owner))
        with suppress(NotFoundError):  # a copy that another deletion has swept
            return next(naming.ids(None, 1), "")
        return ""

    def _created(self, parts: tuple[str, ...]) -> tuple[int, int, int]:
        """The number, incarnation and owner of a run that is to be written to now."""
        while True:
            listing = self._catalog.find(parts)
            if listing is not None and listing.is_alive and self._is_buried(listing):
                listing = self._entombed(listing)  # a deletion stopped half-way: finish it
            if listing is None or not listing.is_alive:
                listing = self._catalog.create(parts, self._clock(), past=listing)
            if listing.is_alive:
                return listing.number, listing.incarnation, listing.owner

    def _is_buried(self, listing: Listing) -> bool:
        return is_buried(self._storage, listing.number, listing.owner)

    def feed(self, after: str | None = None, *, limit: int | None = None) -> Iterator[Fed]:
        """The events of all runs and branches, in the order in which they became visible to readers.

        It ends with what is there now; called again with the last position it goes on: it misses no event and repeats
        none, whatever writers, threads and processes do meanwhile. Positions may be kept for as long as the log is;
        another handle, or another process, goes on from one as well. An event of a deleted run is left out, and one
        that was pruned. What was written before releases that feed comes first, in another order. Task writes are no
        events, and a copy of a run brings none. In a copy of a whole log it waits for a run that is on its way there.

        Args:
            after: a position that this log gave; by default the beginning.
            limit: at most so many events.

        Returns:
            A lazy iterator; nothing is held open between two items.

        Raises:
            InvalidInputError: `after` is no position of this log.
            FormatError: opened readonly, and the log was written before there was a feed.
        """
        return feed(self._storage, after, limit)

    def copy_to(
        self, target: EventLog, *, verify: bool = True, progress: Callable[[str, int], None] = lambda *_: None
    ) -> Comparison | None:
        """Make another log, on whatever engine, what this one is: key by key, runs that are gone included.

        Goes on where an earlier call was stopped, however it was; a run whose ends are the same on both sides is not
        read again. Who reads the target meanwhile sees a state that each run had. Nobody else may write the target.
        This log may be written meanwhile; what is written then may be missing in the end, see `follow_to`.

        Args:
            target: a new log, or an earlier copy of this one.
            verify: read both at the end, mend what differs, and say what still does.
            progress: is told what is being done, and how many runs or keys that are.

        Returns:
            What both hold at the end; None if it was not to be verified.

        Raises:
            ConflictError: the target holds a run or an event that is not from this log.
        """
        return copy(self._storage, target._storage, verify=verify, progress=progress)

    def follow_to(self, target: EventLog) -> Follower:
        """What keeps another log what this one is, as it is written; see `copy_to`."""
        return Follower(self._storage, target._storage)

    def compare_to(self, target: EventLog) -> Comparison:
        """Read this log and another one whole, and say where they differ, key by key."""
        return compared(self._storage, target._storage)

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
        events say. Lazy: it goes from run to run, and holds nothing open meanwhile.

        Others may write, prune and delete meanwhile: what it yields is true, and it yields what was damaged when it
        began, but for what was deleted or pruned before it was read. It does not read runs that were made since. In a
        log that another one is being copied to, it yields what no name leads to yet.

        It checks what a branch says up to the first event that cannot be read; behind that, each record alone.

        Raises:
            NotFoundError: there is no run of that name when this begins.
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
