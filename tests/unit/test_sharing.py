"""One flush for all threads of a process that wait for one: who leads, who waits, who is woken."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from eventlog.storage.sharing import SharedFlush

if TYPE_CHECKING:
    from collections.abc import Callable


class Disk:
    """A journal's end and how far it is flushed, with flushes that wait for a gate."""

    def __init__(self) -> None:
        self.shared = SharedFlush()
        self.end = self.flushed = self.flushes = self.begun = 0
        self.gate = threading.Event()
        self.error: Exception | None = None
        self._at_work = threading.Lock()

    def begin(self) -> int:
        self.begun += 1
        return self.end

    def flush(self, head: Any, target: int) -> None:
        assert head is self
        assert self._at_work.acquire(blocking=False), "two flushes at once"
        try:
            gate = self.gate  # before it is seen to flush: then another gate may be for the next one
            self.flushes += 1
            assert self.begun == self.flushes
            assert gate.wait(20)
            if self.error is not None:
                raise self.error
            self.flushed = max(self.flushed, target)
        finally:
            self._at_work.release()

    def commit(self, patience_s: float = 0) -> None:
        self.end += 1
        self.reach(self.end, patience_s)

    def reach(self, end: int, patience_s: float = 0) -> None:
        self.shared.reach(end, self, self.begin, self.flush, patience_s)  # type: ignore[arg-type]
        assert self.flushed >= end

    def waiting(self) -> int:
        return len(self.shared._waiters)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_flush_serves_all_who_came_while_another_ran(disk):
    with ThreadPoolExecutor(7) as pool:
        working = [pool.submit(disk.commit)]
        until(lambda: disk.flushes == 1)
        working += [pool.submit(disk.commit) for _ in range(6)]
        until(lambda: disk.waiting() == 6)
        disk.gate.set()
        for each in working:
            each.result(timeout=20)
    assert disk.flushes == 2


def test_who_is_served_goes_on_while_the_next_flush_runs(disk):
    with ThreadPoolExecutor(3) as pool:
        disk.end = 1
        first = pool.submit(disk.reach, 1)
        until(lambda: disk.flushes == 1)
        served, next_one = pool.submit(disk.reach, 1), pool.submit(disk.commit)
        until(lambda: disk.waiting() == 2)
        gate, disk.gate = disk.gate, threading.Event()
        gate.set()
        first.result(timeout=20)
        served.result(timeout=20)
        until(lambda: disk.flushes == 2)
        assert not next_one.done()
        disk.gate.set()
        next_one.result(timeout=20)


def test_nothing_is_flushed_for_who_is_served_already(disk):
    disk.gate.set()
    disk.commit()
    disk.reach(1)
    assert disk.flushes == 1


def test_everybody_returns_served_whatever_the_order(disk):
    disk.gate.set()
    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(disk.commit, 0.002 * (n % 3 == 0)) for n in range(2000)]
        for each in working:
            each.result(timeout=20)
    assert disk.waiting() == 0


def test_each_who_waited_is_told_that_it_failed(disk):
    disk.error = OSError("refused")
    with ThreadPoolExecutor(5) as pool:
        working = [pool.submit(disk.commit, 0.01 * (n == 3)) for n in range(5)]
        until(lambda: disk.flushes == 1 and disk.waiting() >= 3)
        disk.gate.set()
        assert [type(each.exception(timeout=20)) for each in working] == [OSError] * 5
    disk.error = None
    disk.commit()
    assert disk.flushed == 6


def test_the_patient_leave_it_to_others_to_begin(disk):
    with ThreadPoolExecutor(2) as pool:
        disk.end = 1
        patient = pool.submit(disk.reach, 1, 60)
        until(lambda: disk.waiting() == 1)
        assert disk.flushes == 0
        disk.gate.set()
        disk.commit()
        patient.result(timeout=20)
    assert disk.flushes == 1
    disk.end += 1
    disk.reach(disk.end, 0.001)
    assert disk.flushes == 2


class InterruptionError(Exception):
    pass


@pytest.fixture
def interrupt_once():
    """A function that waits until something is so, and then interrupts the main thread, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise InterruptionError

    def interrupt_once(is_so: Callable[[], bool]) -> None:
        until(is_so)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    yield interrupt_once
    signal.signal(signal.SIGALRM, before)


def test_who_is_interrupted_while_waiting_holds_nobody_up(disk, interrupt_once):
    with ThreadPoolExecutor(3) as pool:
        leads = pool.submit(disk.commit)
        until(lambda: disk.flushes == 1)
        interrupts = pool.submit(interrupt_once, lambda: disk.waiting() == 1)
        with pytest.raises(InterruptionError):
            disk.commit()
        interrupts.result(timeout=20)
        assert disk.waiting() == 0
        other = pool.submit(disk.commit)
        until(lambda: disk.waiting() == 1)
        disk.gate.set()
        for each in (leads, other):
            each.result(timeout=20)
    assert disk.flushed == 3


def test_who_is_interrupted_while_flushing_hands_it_on(disk, interrupt_once):
    with ThreadPoolExecutor(2) as pool:

        def join() -> None:
            until(lambda: disk.flushes == 1)
            disk.commit()

        other = pool.submit(join)
        interrupts = pool.submit(interrupt_once, lambda: disk.waiting() == 1)
        with pytest.raises(InterruptionError):
            disk.commit()
        interrupts.result(timeout=20)
        disk.gate.set()
        other.result(timeout=20)
    assert disk.flushed == 2
