"""SIGKILL: at any time and at every step of a commit, what was acknowledged is there, whole, and the log goes on."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from eventlog import EventLog
from eventlog.storage import journal, local
from tests.crash.workload import DEEP, checked, child, go_on, reopened, shrink, value

if TYPE_CHECKING:
    from pathlib import Path

POINTS = [
    *("write-before", "write-half", "write-after", "store-before", "store-half", "store-after"),
    *("end-before", "end-after"),
    *("seal-before", "seal-write-before", "seal-write-after", "create-before", "cut-before", "create-after"),
    *("seal-after", "fold-before", "fold-after", "remove-before", "remove-after"),
    *("sync-before", "sync-after", "names-before", "names-after"),
]


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    shrink(monkeypatch.setattr)


def acknowledged(location: Path, mode: str, what: str, point: str, countdown: int, after_s: float | None) -> int:
    """The last number that a child heard back of, before it was killed."""
    process = child("writer_child.py", location, mode, what, point, countdown)
    assert process.stdout is not None
    timer = threading.Timer(60.0, process.kill)
    timer.start()
    try:
        assert process.stdout.readline() == "ready\n"
        if after_s is not None:
            time.sleep(after_s)
            process.kill()
        lines = process.stdout.read().split("\n")
        assert process.wait() == -signal.SIGKILL
        assert timer.is_alive(), f"{point} was never reached"
    finally:
        timer.cancel()
        process.kill()
        process.communicate()
    return max([int(line) for line in lines[:-1]], default=0)


def check(location: Path, mode: str, what: str, acked: int) -> None:
    storage = reopened(location, "normal")
    try:
        if what == "log":
            check_log(storage, mode, acked)
        else:
            assert checked(storage) >= (0 if mode == "off" else acked)
            last = go_on(storage, 3)
            assert checked(storage) == last
    finally:
        storage.close()


def check_log(storage: local.LocalStorage, mode: str, acked: int) -> None:
    log = EventLog(storage)
    assert list(log.verify()) == []
    run = log.run("run")
    assert len(run) >= (0 if mode == "off" else acked)
    state = run.state
    for n in range(max(1, len(run) - 8), len(run) + 1):
        assert state[f"c{n % 9}"] == value(n).decode()
    assert [event.step for event in run.events()] == list(range(len(run)))
    run.append({"n": len(run) + 1, f"c{(len(run) + 1) % 9}": value(len(run) + 1).decode()})
    assert list(log.verify()) == []


def check_after_reboot(location: Path, mode: str, what: str, acked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is shut down in order after the kill: nothing that was written is lost, but the boot id is new."""
    copy = location.with_name(location.name + "-rebooted")
    shutil.copytree(location, copy, ignore=shutil.ignore_patterns("lock.mdb"))
    with monkeypatch.context() as patch:
        patch.setattr(journal, "boot_id", lambda: (7, 7))
        check(copy, mode, what, acked)
        check(copy, mode, what, acked)
    shutil.rmtree(copy)


@pytest.mark.parametrize("what", ["keys", "log"])
@pytest.mark.parametrize("mode", ["full", "normal", "off"])
def test_at_a_random_time(tmp_path, monkeypatch, mode, what):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    location, acked = tmp_path / "log", 0
    for _ in range(10 * DEEP):
        acked = max(acked, acknowledged(location, mode, what, "-", 1, chance.random() ** 2 * 0.12))
        check(location, mode, what, acked)
    check_after_reboot(location, mode, what, acked, monkeypatch)


@pytest.mark.parametrize("point", POINTS)
def test_at_a_named_point(tmp_path, monkeypatch, point):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    combinations = [("full", "keys"), ("normal", "log"), ("off", "keys")]
    if point.startswith(("sync", "names")):
        combinations = [("full", "keys"), ("full", "log"), ("normal", "keys")]
    elif point.startswith("store"):  # with "full" all is written
        combinations = [("normal", "log"), ("normal", "keys")]
    elif point.startswith(("fold", "remove")):
        combinations = [("full", "keys"), ("normal", "log"), ("normal", "keys")]
    for mode, what in combinations * DEEP:
        location = tmp_path / f"{mode}-{what}"
        most = (
            1
            if point.startswith("names")
            else 4
            if point.startswith(("fold", "remove", "seal", "create", "cut"))
            else 60
        )
        acked = acknowledged(location, mode, what, point, chance.randint(1, most), None)
        check_after_reboot(location, mode, what, acked, monkeypatch)
        check(location, mode, what, acked)
