"""A thread that removes what has expired from a store, again and again.

Owns when it runs and when it ends. It holds no reference to the store between two sweeps, so a store that nobody has
any more goes, and its thread with it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from eventlog import ClosedError, EventLogError

if TYPE_CHECKING:
    from weakref import ReferenceType

_log = logging.getLogger(__name__)


class _Sweepable(Protocol):
    def sweep_ttl(self) -> int:
        """Remove what has expired; how many items that was."""


class Sweeper:
    """Sweeps a store every `interval_s` seconds, from the first interval's end on, until it is stopped."""

    def __init__(self, store: _Sweepable, interval_s: float) -> None:
        self.done: Future[None] = Future()
        """Done when the thread has ended; cancelling it ends the thread."""
        self._stop = threading.Event()
        self.done.add_done_callback(lambda _: self._stop.set())
        weakref.finalize(store, self._stop.set).atexit = False
        arguments = (weakref.ref(store), interval_s, self._stop, self.done)
        self._thread = threading.Thread(target=_sweep_on, args=arguments, name="ttl-sweeper", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it goes on sweeping."""
        return self._thread.is_alive() and not self._stop.is_set()

    def stop(self, timeout_s: float | None = None) -> bool:
        """End the thread; False if it is still busy after `timeout_s` seconds."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()


def _sweep_on(store: ReferenceType[_Sweepable], interval_s: float, stop: threading.Event, done: Future[None]) -> None:
    while not stop.wait(interval_s):
        if not _swept(store):
            break
    with suppress(InvalidStateError):  # it was cancelled
        done.set_result(None)


def _swept(store: ReferenceType[_Sweepable]) -> bool:
    """Whether there is still something to sweep; a sweep that fails is told to the log, and tried again."""
    found = store()
    if found is None:
        return False
    try:
        found.sweep_ttl()
    except ClosedError:
        return False
    except EventLogError:
        _log.exception("what has expired could not be removed; the next sweep tries again")
    return True
