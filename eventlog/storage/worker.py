"""A thread that does what need not be waited for: flushing, folding.

Owns when it wakes and rests, and nothing of what it does.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_REST_S: Final = 60.0


class Worker:
    """A thread that works for one handle, and does not keep it alive.

    Once woken it rests before it works, so that one flush serves all commits of an interval, and none that begins a
    burst is flushed in its midst; `hurry` ends the rest.

    Args:
        work: a method of the handle: one round. What it raises is its own to remember.
        interval_s: how long it rests.
    """

    def __init__(self, work: Callable[[], None], interval_s: float) -> None:
        self.wake = threading.Event()
        self.hurry = threading.Event()
        self._interval_s = interval_s
        self._is_stopped = False
        run = threading.Thread(target=self._run, args=(weakref.WeakMethod(work),), name="eventlog-worker", daemon=True)
        run.start()

    def _run(self, of: Callable[[], Callable[[], None] | None]) -> None:
        while not self._is_stopped:
            if self.wake.wait(_REST_S):
                self.hurry.wait(self._interval_s)
            work = of()
            if work is None or self._is_stopped:
                return
            if self.wake.is_set():
                self.wake.clear()
                self.hurry.clear()
                with suppress(Exception):  # a failed flush has poisoned the handle; other work is tried again
                    work()
            del work  # an idle worker keeps no handle alive

    def stop(self) -> None:
        """End the thread, after what it does now."""
        self._is_stopped = True
        self.hurry.set()
        self.wake.set()
