"""`eventlog copy`: a log elsewhere, whole or as it is written.

Owns what is told of it, when a follower rests, and that it waits for what is away.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from eventlog.cli.exits import DIFFERS, OK, USAGE, CommandError
from eventlog.cli.moving import Progress
from eventlog.diff import printable
from eventlog.errors import BusyError, ConflictError, CorruptionError, StorageError, TakenOverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from eventlog.log import EventLog
    from eventlog.mirroring import Comparison, Follower

_SHARE: Final = 0.2
"""Of the time between two looks, that may go into reading on through the source."""
_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0


def copy(source: EventLog, target: EventLog, out: TextIO, *, is_verified: bool) -> int:
    """Copy, and verify; the exit code."""
    progress = Progress(sys.stderr, "so far")
    try:
        found = source.copy_to(target, verify=is_verified, progress=progress)
    except ConflictError as error:
        raise CommandError(printable(str(error)), USAGE) from error
    finally:
        progress.end()
    if found is None:
        print("copied, and not verified", file=out)
        return OK
    return _report(found, out)


def verify(source: EventLog, target: EventLog, out: TextIO) -> int:
    """Compare; the exit code."""
    return _report(source.compare_to(target), out)


def _report(found: Comparison, out: TextIO) -> int:
    for problem in found.problems:
        print(f"eventlog: {printable(str(problem))}", file=sys.stderr)
    if found.problems:
        print(f"they differ: {found.digests[0].hex()} and {found.digests[1].hex()}", file=out)
        print("eventlog: if the source is being written, `--follow` ships that, too", file=sys.stderr)
        return DIFFERS
    print(f"{found.keys:,} keys on both sides, digest {found.digests[0].hex()}", file=out)
    return OK


def follow(
    open_source: Callable[[], EventLog], open_target: Callable[[], EventLog], interval_s: float, out: TextIO
) -> int:
    """Ship what is written, for ever; says so each time that the target has become level with the source.

    Where one of the two is away once both were there, it is said, and they are opened again until they are back.
    """
    watch = _Watch(interval_s, out)
    while True:
        try:
            with _lasting(open_source()) as source, _lasting(open_target()) as target:
                watch.follow(source.follow_to(target))
        except ConflictError as error:
            raise CommandError(printable(str(error)), USAGE) from error
        except TakenOverError:  # by whoever is meant to write it
            raise
        except StorageError as error:
            watch.wait(error)


@contextmanager
def _lasting(log: EventLog) -> Iterator[EventLog]:
    """Close a log at the end; what it is left for, be it an interrupt, is not forgotten where that fails."""
    try:
        yield log
    finally:
        with suppress(StorageError):
            log.close()


class _Watch:
    """What was told of a follower, and how long it rests."""

    def __init__(self, interval_s: float, out: TextIO) -> None:
        self._interval_s = interval_s
        self._out = out
        self._were_there = False
        self._pause_s = 0.0
        self._told = -1
        self._said = ""

    def follow(self, follower: Follower) -> NoReturn:
        """Ship what is written until something fails."""
        self._were_there, progress = True, Progress(sys.stderr, "so far")
        try:
            follower.begin(progress)
        except CorruptionError as error:
            self._say(f"{error}; going on with the others")
        finally:
            progress.end()
        while True:
            self._turn(follower)
            if follower.is_level and self._told != follower.keys:
                self._told = follower.keys
                print(f"level after {follower.keys:,} keys", file=self._out, flush=True)

    def _turn(self, follower: Follower) -> None:
        began = time.monotonic()
        try:
            follower.turn(_SHARE * self._interval_s)
            self._pause_s = 0.0
        except (BusyError, CorruptionError) as error:
            self._say(f"{error}; going on with the others")
        time.sleep(max(self._interval_s - (time.monotonic() - began), 0.0))

    def _say(self, what: str) -> None:
        """Tell what goes wrong, unless that was the last thing told."""
        if what != self._said:
            print(f"eventlog: {printable(what)}", file=sys.stderr, flush=True)
        self._said = what

    def wait(self, error: StorageError) -> None:
        """Say why, once for each outage, and rest for a while: longer and longer, up to a bound.

        Raises:
            StorageError: `error`, if the two were never there.
        """
        if not self._were_there:
            raise error
        if not self._pause_s:
            self._said = ""  # another outage may have the same words
            self._say(f"{error}; going on when it is back")
            self._pause_s, self._told = _PAUSE_S, -1
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
