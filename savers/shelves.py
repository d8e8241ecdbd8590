"""Runs that many write at once and the last writer wins, as the runs of a store are.

Owns the handles on them, and what is done again when somebody else was first.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog import ConflictError, NotFoundError
from savers.saver import Handles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eventlog import Codec, EventLog, Run

    Name = tuple[str, ...]
    Writes = dict[str, Any]

_TRIES: Final = 100


class Origin(NamedTuple):
    """Who writes: what the events of a call say beside their writes."""

    task: str | None = None
    meta: Mapping[str, Any] | None = None


NOBODY: Final = Origin()


class Shelf:
    """One run, and what is remembered of it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lock = threading.Lock()
        """Held by a writer of this process, so that they queue here instead of running into each other's events."""
        self.known: tuple[str | None, Any] = (None, None)
        """The id of a head, and what its user found out there."""

    def is_stale(self) -> bool:
        """See `Run.is_stale`."""
        return self.run.is_stale()


class Shelves:
    """The runs of one log that are written so. May be used from any thread."""

    def __init__(self, log: EventLog, codec: Codec) -> None:
        self._codec = codec
        self._kept: Handles[Shelf] = Handles(log, lambda name, codec: Shelf(log.run(name, codec=codec)))

    def current(self, name: Name) -> Shelf | None:
        """A run as it is now, whoever wrote it; None if it was deleted at this moment."""
        shelf = self._kept.to_read(name, self._codec)
        try:
            shelf.run.refresh()
        except NotFoundError:
            return None
        return shelf

    def append(self, name: Name, make: Callable[[Run], Writes], origin: Origin = NOBODY) -> Writes:
        """Append, in one event, what `make` makes of the run as it is now; nothing, if it makes nothing.

        Returns:
            What was written.

        Raises:
            ConflictError: somebody else was first a hundred times. Nothing was written.
        """
        for _ in range(_TRIES):
            shelf = self._kept.to_write(name, self._codec)
            with shelf.lock:
                try:
                    return _appended(shelf.run, make, origin)
                except NotFoundError:  # somebody deleted the run
                    self._kept.forget(name)
                except ConflictError:
                    self._catch_up(shelf)
        raise ConflictError(f"too many writers of {name!r} at once; try again")

    def _catch_up(self, shelf: Shelf) -> None:
        try:
            shelf.run.refresh()
        except NotFoundError:
            self._kept.forget(shelf.run.name)


def _appended(run: Run, make: Callable[[Run], Writes], origin: Origin) -> Writes:
    head = run.head_id
    writes = make(run)
    if writes:
        run.append(writes, task=origin.task, meta=origin.meta, expected=head)
    elif run.refresh().head_id != head:
        raise ConflictError("there was nothing to do in a state that is not the newest")
    return writes
