"""The writers' lock: one writer at a time, among the threads of a process and among the processes of a machine.

Owns the lock file's descriptor, and nothing of what is written under it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from eventlog.errors import BusyError, ClosedError, StorageError
from eventlog.storage.calls import flock_undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCK_POLL_S: Final = 0.001
_FIRST_POLL_S: Final = 0.00001
"""Most commits take about so long; after each that was in vain twice as long."""
_UNLOCK: Final = fcntl.LOCK_UN
_EXCLUSIVE_NOW: Final = fcntl.LOCK_EX | fcntl.LOCK_NB


def _flock_undisturbed(fd: int, how: int) -> None:
    """As ``fcntl.flock``, but other threads run meanwhile only if it fails."""
    if fd is None or flock_undisturbed(fd, how):  # None: it is closed
        fcntl.flock(fd, how)  # says why


class WriteLock:
    """One writer at a time: a mutex among the threads of this process, a BSD ``flock`` among processes.

    LMDB has a lock of its own, but it has no time limit, and the kernel may release it wrongly when containers share
    a volume. ``flock`` belongs to the open file, so a child of ``fork`` closes its copy and never unlocks it.
    """

    def __init__(self, path: str, *, has_company: bool = False) -> None:
        """Of the file at `path`; `has_company` makes it quicker where threads take turns, slower for one alone."""
        self._path = path
        self._flock: Callable[[int, int], None] = _flock_undisturbed if has_company else fcntl.flock
        self._opening = threading.Lock()
        self._mutex = threading.Lock()
        self._fd: int | None = None
        self._is_closed = False
        self._threads = threading.local()

    def open(self) -> None:
        """Make the file where it is missing, and open it.

        Raises:
            ClosedError: it was closed.
            StorageError: it is a symbolic link, or cannot be opened.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with self._opening:  # of two descriptors one would stay locked for ever
                if self._is_closed:
                    raise self._closed()
                self._fd = os.open(self._path, flags, 0o600) if self._fd is None else self._fd
        except OSError as error:
            what = "is a symbolic link; remove it" if error.errno == errno.ELOOP else f"cannot be opened: {error}"
            msg = f"{self._path} {what}"
            raise StorageError(msg) from error

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, this thread waits for nobody: if the lock is not free, it is busy."""
        before, self._threads.waits_for_nobody = self.waits_for_nobody, True
        try:
            yield
        finally:
            self._threads.waits_for_nobody = before

    @property
    def waits_for_nobody(self) -> bool:
        """Whether this thread is within `at_once`."""
        return getattr(self._threads, "waits_for_nobody", False)

    def acquire(self, timeout_s: float) -> bool:
        """Take the lock, for this thread of this process.

        Returns:
            True.

        Raises:
            BusyError: others held it all the time.
            ClosedError: it was closed.
        """
        is_taken = False
        try:
            is_taken = self._mutex.acquire(False) or self._mutex.acquire(timeout=self._patience_s(timeout_s))
            if not is_taken:
                raise self._busy(timeout_s)
            try:
                self._flock(self._fd, _EXCLUSIVE_NOW)  # type: ignore[arg-type]  # nearly always open, and free at once
            except (OSError, TypeError):
                self._wait(self._patience_s(timeout_s))
            return True  # noqa: TRY300 (an interrupt at this line must give the lock back, too)
        except BaseException:
            if is_taken:
                with suppress(TypeError, OSError):  # closed meanwhile, or not locked
                    self._flock(self._fd, _UNLOCK)  # type: ignore[arg-type]
                self._mutex.release()
            raise

    def _patience_s(self, timeout_s: float) -> float:
        return 0 if self.waits_for_nobody else max(timeout_s, 0)

    def _wait(self, timeout_s: float) -> None:
        deadline, pause_s = time.monotonic() + timeout_s, _FIRST_POLL_S
        while not self._try_flock():
            if time.monotonic() >= deadline:
                raise self._busy(timeout_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LOCK_POLL_S)

    def release(self) -> None:
        """Give it back."""
        try:
            self._flock(self._fd, _UNLOCK)  # type: ignore[arg-type]  # open, for it is held
        finally:
            self._mutex.release()

    def close(self) -> None:
        """Close for good, once the threads that want the lock are done with it."""
        with self._mutex, self._opening:
            self._is_closed = True
            self._close_fd()

    def abandon(self) -> None:
        """In the child of a fork: close without unlocking, for the lock and those who hold it are the parent's."""
        self._opening, self._mutex = threading.Lock(), threading.Lock()
        self._close_fd()

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _try_flock(self) -> bool:
        if self._fd is None:
            raise self._closed()
        try:
            self._flock(self._fd, _EXCLUSIVE_NOW)
        except BlockingIOError:
            return False
        except OSError as error:
            msg = f"{self._path} cannot be locked: {error}; nothing was written; a log needs a local disk"
            raise StorageError(msg) from error
        return True

    def _closed(self) -> ClosedError:
        return ClosedError(f"{os.path.dirname(self._path)} was closed; open it again")  # noqa: PTH120 (a string)

    def _busy(self, timeout_s: float) -> BusyError:
        return BusyError(f"{self._path}: other writers held the lock for {timeout_s:g} s; nothing was written; retry")
