"""One of several processes on one LangGraph thread: role, location, how often, a number that tells it from others."""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress

from eventlog import ConflictError
from savers.langgraph import EventLogSaver
from tests.crash import workload
from tests.crash.pruned import checked, config, put, write

role, location, times, number = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
workload.shrink(setattr)
chance = random.Random(number)


given = [""]


def new_id() -> str:
    given.append(f"{time.time_ns():020}-{number}")
    return given[-1]


def go_on(saver: EventLogSaver) -> None:
    """Put under the newest checkpoint, as a graph does."""
    newest = saver.get_tuple(config())
    under = None if newest is None else newest.checkpoint["id"]
    for _ in range(5):
        here = new_id()
        put(saver, here, under)
        write(saver, here)
        under = here


def fork(saver: EventLogSaver) -> None:
    """Put under an older one, or put it again; it may be pruned by then."""
    known = [found.checkpoint["id"] for found in saver.list(config(), limit=8)]
    for under in chance.sample(known, min(2, len(known))):
        here = new_id()
        put(saver, here, under)
        write(saver, under)
        if chance.random() < 0.3:
            put(saver, here, under)


def prune(saver: EventLogSaver) -> None:
    with suppress(ConflictError):  # it is written too quickly: that is said, and nothing is broken
        saver.prune(["t"], keep_last=chance.randrange(1, 6))
    time.sleep(chance.random() / 200)


def read(saver: EventLogSaver) -> None:
    for found in saver.list(config()):
        checked(found)
    newest = saver.get_tuple(config())
    if newest is not None:
        checked(newest)
        saver.get_delta_channel_history(config=config(), channels=["d"])


with EventLogSaver.from_conn_string(location) as opened:
    os.write(1, b"ready\n")
    sys.stdin.readline()
    for _ in range(times):
        {"go_on": go_on, "fork": fork, "prune": prune, "read": read}[role](opened)
os.write(1, f"{max(given)}\n".encode())
