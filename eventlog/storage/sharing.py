"""One flush for all threads of a process that wait for one.

Owns who flushes and who waits, and nothing of what is flushed. One thread leads: it flushes what is committed by then.
Who comes meanwhile waits. When the flush is done, the first of those leads the next one; before it begins, it wakes
those whom the flush before served, so that they go on to their next commits while the disk works for the others.

```
 thread 1   flush ──────┐               commit  waits ·····┐ flush ─────
 thread 2   waits ······│··┐ commit  waits ················│··┐ commit
 thread 3     commit  waits│· flush ───────────────────────┘  commit  waits
                           └ woken by thread 3
```
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventlog.storage.journal import Head


class _Waiter:
    """Who waits for a flush up to a position: woken once, served or to lead."""

    __slots__ = ("end", "is_patient", "leads", "served", "woken")

    def __init__(self, end: int, *, is_patient: bool) -> None:
        self.end = end
        self.is_patient = is_patient
        self.leads = False
        self.served: list[_Waiter] = []  # by the flush before, to be woken by this leader
        self.woken = threading.Lock()
        self.woken.acquire()


class SharedFlush:
    """Lets one flush serve all threads that wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_led = False
        self._waiters: list[_Waiter] = []

    def reach(
        self, end: int, head: Head, begin: Callable[[], int], flush: Callable[[Head, int], None], patience_s: float = 0
    ) -> None:
        """Return when everything up to `end` is on stable storage.

        Args:
            end: a position up to which everything is committed.
            head: says how far everything is on stable storage.
            begin: says up to where everything is committed, and then looks whether a flush can be. It asks the system,
                and so has to wait its turn among the threads that run; therefore those to be woken are woken after it.
            flush: brings all there that was committed when `begin` looked; by one thread at a time. Who needs it sees
                what it raises, each of his own call.
            patience_s: for how long to leave it to others to begin a flush.
        """
        waiter = _Waiter(end, is_patient=patience_s > 0)
        try:
            waits = self._join(waiter, head)
            if waits and patience_s:
                waits = not waiter.woken.acquire(timeout=patience_s) and not self._leads_now(waiter)
            if waits:
                waiter.woken.acquire()
            if waiter.leads and head.flushed < end:
                target = begin()
                _wake(waiter.served)
                flush(head, target)
        finally:
            _wake(waiter.served)
            self._leave(waiter, head)

    def _join(self, waiter: _Waiter, head: Head) -> bool:
        """Whether he has to wait: he is not served yet, and does not lead."""
        with self._lock:
            if head.flushed >= waiter.end:
                return False
            if self._is_led or waiter.is_patient:
                self._waiters.append(waiter)
                return True
            waiter.leads = self._is_led = True
            return False

    def _leads_now(self, waiter: _Waiter) -> bool:
        """Whether one whose patience is over leads; else he waits like the others, or was woken at this moment."""
        with self._lock:
            waiter.is_patient = False
            if waiter not in self._waiters or self._is_led:
                return False
            self._waiters.remove(waiter)
            waiter.leads = self._is_led = True
            return True

    def _leave(self, waiter: _Waiter, head: Head) -> None:
        """Wake who is served, and who leads next; one who is interrupted while he waits only goes."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if not waiter.leads:
                return
            flushed = head.flushed
            served = [each for each in self._waiters if each.end <= flushed]
            left = [each for each in self._waiters if each.end > flushed]
            leader = next((each for each in left if not each.is_patient), None)
            if leader is not None:
                left.remove(leader)
                leader.leads, leader.served, served = True, served, [leader]
            self._waiters, self._is_led = left, leader is not None
        _wake(served)


def _wake(waiters: list[_Waiter]) -> None:
    """Each of them once, whoever is interrupted."""
    while waiters:
        waiters.pop().woken.release()
