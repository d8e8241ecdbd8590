"""One of several processes on one log: role, location, mode and the role's own arguments."""

from __future__ import annotations

import os
import sys
import time

from eventlog import EventLog
from eventlog.errors import ConflictError, ExpectationError
from eventlog.storage import local
from tests.crash import workload

role, location, mode, rest = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
workload.shrink(setattr)
local.FLUSH_INTERVAL_S = 0.002


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def contend() -> None:
    """Append to one run, always expecting the head that was seen; say each seq that was won."""
    run = EventLog(storage).run("shared")
    for _ in range(int(rest[0])):
        while True:
            try:
                event = run.append({"by": rest[1], "n": len(run) + 1}, expected=run.head_id)
            except ConflictError:
                run.refresh()
            else:
                say(f"{event.step} {event.id}")
                break


def alone() -> None:
    run = EventLog(storage).run(f"run {rest[1]}")
    for n in range(int(rest[0])):
        say(str(run.append({"n": n}).step))


def write() -> None:
    """Commit ten times whenever it is its turn; say each number that was won."""
    n = workload.count(storage)
    for turn in range(10 * int(rest[0])):
        if turn % 10 == 0:
            sys.stdin.readline()
        while True:
            try:
                storage.commit(*workload.batch_of(n + 1))
            except ExpectationError:
                n = workload.count(storage)
            else:
                n += 1
                say(str(n))
                break


def hold() -> None:
    storage._lock.acquire(5.0)
    say("held")
    time.sleep(60)


def idle() -> None:
    sys.stdin.readline()


def answer() -> None:
    """Ping-pong: for each number that is asked for, say what is there, and commit the next."""
    for _ in sys.stdin:
        say(str(workload.go_on(storage)))


storage = local.LocalStorage(location, synchronous=mode)
say("ready")
if role not in {"hold", "idle", "answer"}:
    sys.stdin.readline()
{"contend": contend, "alone": alone, "write": write, "hold": hold, "idle": idle, "answer": answer}[role]()
storage.close()
