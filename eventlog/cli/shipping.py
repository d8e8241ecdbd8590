"""`eventlog copy`: a log elsewhere, whole or as it is written.

Owns what is told of it, and when a follower rests.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from eventlog.cli.exits import DIFFERS, OK, USAGE, CommandError
from eventlog.cli.moving import Progress
from eventlog.diff import printable
from eventlog.errors import BusyError, ConflictError

if TYPE_CHECKING:
    from typing import TextIO

    from eventlog.log import EventLog
    from eventlog.mirroring import Comparison, Follower

_SHARE: Final = 0.2
"""Of the time between two looks, that may go into reading on through the source."""


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


def follow(source: EventLog, target: EventLog, interval_s: float, out: TextIO) -> int:
    """Ship what is written, for ever; says so each time that the target is level with the source."""
    progress = Progress(sys.stderr, "so far")
    follower = source.follow_to(target)
    was_level = False
    try:
        follower.begin(progress)
        progress.end()
        while True:
            _turn(follower, interval_s)
            if follower.is_level and not was_level:
                print(f"level after {follower.keys:,} keys", file=out, flush=True)
            was_level = follower.is_level
    except ConflictError as error:
        raise CommandError(printable(str(error)), USAGE) from error
    finally:
        progress.end()


def _turn(follower: Follower, interval_s: float) -> None:
    began = time.monotonic()
    try:
        follower.turn(_SHARE * interval_s)
    except BusyError as error:
        print(f"eventlog: {printable(str(error))}; trying again", file=sys.stderr)
    time.sleep(max(interval_s - (time.monotonic() - began), 0.0))
