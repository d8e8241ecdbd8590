"""Who may write to a thread: nobody under what was deleted with it; and, if asked for, one writer at a time.

Owns those two rules, and what they need to know of a thread; how it is written is the thread's business.
"""

from __future__ import annotations

from typing import Final

from eventlog import ConflictError, NotFoundError

_KEPT: Final = 1024


def late(thread_id: str, checkpoint_id: str) -> NotFoundError:
    """The error of a write under a checkpoint that was deleted with its thread."""
    return NotFoundError(
        f"thread {thread_id!r} was deleted, and checkpoint {checkpoint_id!r} with it: nothing was written under it; "
        "a checkpoint without a parent begins the thread anew"
    )


def beside(thread_id: str, parent: str | None, newest: str | None) -> ConflictError:
    """The error of a put to a thread that another writer moved on."""
    msg = (
        f"thread {thread_id!r}: the newest checkpoint is {newest}, not {parent}: another writer put it since this one "
        "read the thread; read it again and go on from there"
    )
    return ConflictError(msg, parent, newest)


class Exclusive:
    """What one saver knows of a thread that no other writer may move on behind its back.

    A put goes on from the newest checkpoint, or forks from an older one. A writer who was overtaken and one who chose
    an older checkpoint ask for the same; they are told apart by what they were given to read. Whoever was given a
    checkpoint that was not the newest any more, and puts under it, chose it; whoever was given it as the newest, did
    not.

    Safe for many threads.
    """

    __slots__ = ("_has_met", "_old")

    def __init__(self) -> None:
        self._old: dict[str, None] = {}
        self._has_met = False

    def met(self, checkpoint_id: str, newest: str | None) -> None:
        """Note that a checkpoint was given out, or put, while `newest` was the newest one."""
        self._has_met = True
        if checkpoint_id != newest:
            self._old.pop(checkpoint_id, None)
            self._old[checkpoint_id] = None
            while len(self._old) > _KEPT:
                self._old.pop(next(iter(self._old)), None)

    def may_fork(self, thread_id: str, parent: str | None, checkpoint_id: str, newest: str | None) -> bool:
        """Whether a put may begin a new branch; else it goes on from the newest checkpoint, or fails.

        Raises:
            ConflictError: another writer put the newest checkpoint, and this one does not know.
        """
        if newest is None or parent == newest:
            return False
        if parent in self._old or checkpoint_id == newest or (parent is None and self._has_met):
            return True
        raise beside(thread_id, parent, newest)
