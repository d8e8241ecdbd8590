"""A process that writes, takes over, reads or follows a log in an object store; what it was told is on its output."""

from __future__ import annotations

import os
import sys
import time

from eventlog import EventLog
from eventlog.errors import StorageError
from eventlog.layout import EVENT
from eventlog.storage import open_storage

READY = "ready"


def say(*words: object) -> None:
    print(*words, flush=True)


def write(url: str) -> None:
    """Append until told to stop or taken over; each id as soon as it is acknowledged."""
    with EventLog.open(url) as log:
        run = log.run("shared")
        say(READY)
        try:
            while True:
                say("safe", run.append({"by": os.getpid()}).id)
        except StorageError as error:
            say("told", error)


def read(url: str, until: str) -> None:
    """Read again and again, until there are so many events; what was seen once stays, in dense steps."""
    with EventLog.open(url, readonly=True) as log:
        say(READY)
        seen: list[str] = []
        while len(seen) < int(until):
            events = list(log.run("shared").events())
            assert [event.step for event in events] == list(range(len(events)))
            ids = [event.id for event in events]
            assert ids[: len(seen)] == seen
            seen = ids
            time.sleep(0.05)
    say("seen", len(seen))


def follow(url: str, until: str) -> None:
    """Follow the feed until so many were fed: each once, in their order."""
    storage, position = open_storage(url, readonly=True), b""
    say(READY)
    keys: list[bytes] = []
    while len(keys) < int(until):
        for place, key in storage.feed(position, limit=50):
            keys.append(key)
            position = place
        time.sleep(0.02)
    stored = [key for key, _ in storage.scan([(EVENT, b"F")])]
    assert len(set(keys)) == len(keys)
    assert keys == stored[: len(keys)]
    storage.close()
    say("fed", len(keys))


if __name__ == "__main__":
    {"write": write, "read": read, "follow": follow}[sys.argv[1]](*sys.argv[2:])
