"""Batches that threads commit at once, in one statement and one transaction.

Owns who asks for whom, who waits meanwhile, and how batches become arguments. What the statement does is
`postgres_schema`'s.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog.errors import EventLogError
from eventlog.storage.postgres_server import LostError, bigints, byteas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST: Final = 64
_MOST_BYTES: Final = 1 << 20
_head = struct.Struct(">ii")


class Batch(NamedTuple):
    """What one commit asks for.

    Attributes:
        locks: numbers of the advisory locks that it takes, in order.
        puts: pairs that it writes.
        gone: keys that it deletes.
        wanted: keys that must have these values.
        token: what it leaves, by which it is known to be done; None where its effect tells.
        size: bytes of the pairs.
    """

    locks: list[int]
    puts: dict[bytes, bytes]
    gone: list[bytes]
    wanted: dict[bytes, bytes | None]
    token: bytes | None
    size: int


class Answer(NamedTuple):
    """What became of a batch.

    Attributes:
        is_busy: somebody has one of its locks; nothing was written.
        differing: expected keys that differ, so nothing was written; empty otherwise.
    """

    is_busy: bool
    differing: list[bytes]


def arguments_of(batches: list[Batch]) -> list[bytes | None]:
    """All that the statement is told of batches which have no lock in common."""
    puts = [each.puts for each in batches]
    gone = [key for each in batches for key in each.gone]
    wanted = [each.wanted for each in batches]
    return [
        bigints(
            count for each in batches for count in (len(each.locks), len(each.puts), len(each.gone), len(each.wanted))
        ),
        bigints(lock for each in batches for lock in each.locks),
        byteas(key for each in puts for key in each),
        byteas(value for each in puts for value in each.values()),
        byteas(gone),
        byteas(key for each in wanted for key in each),
        byteas(value for each in wanted for value in each.values()),
        byteas(each.token for each in batches),
    ]


def answers_of(told: bytes, count: int) -> list[Answer]:
    """What the statement said of so many batches."""
    answers, at = [Answer(is_busy=False, differing=[]) for _ in range(count)], 0
    while at < len(told):
        number, length = _head.unpack_from(told, at)
        at += _head.size + length
        if length:
            answers[number - 1].differing.append(told[at - length : at])
        else:
            answers[number - 1] = Answer(is_busy=True, differing=[])
    return answers


class _Waiting:
    """A batch, and the thread that waits for its answer."""

    __slots__ = ("batch", "is_leading", "outcome", "turn")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.is_leading = False
        self.outcome: Answer | EventLogError | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class Groups:
    """Asks for batches in groups: one that comes alone goes at once; who comes while one is away goes with the next.

    Batches of a group have no lock in common, and one whose lock another transaction has is not waited for. A large one
    goes by itself. So nobody is held up by another's run.

    Args:
        ask: asks for a group; its answers in the same order.
    """

    def __init__(self, ask: Callable[[list[Batch]], list[Answer]]) -> None:
        self._ask = ask
        self.begin()
        _all.add(self)

    def begin(self) -> None:
        """Nobody waits; at first, and in the child of a fork."""
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._is_away = self._is_company = False

    def answer(self, batch: Batch) -> Answer:
        """What became of `batch`.

        Raises:
            LostError: the answer was lost, or whoever asked for it was interrupted.
            EventLogError: what `ask` raises.
        """
        if batch.size > _MOST_BYTES:
            return self._ask([batch])[0]
        mine = _Waiting(batch)
        try:
            self._join(mine)
            mine.turn.acquire()
            if mine.is_leading:
                self._lead(mine)
        finally:
            self._leave(mine)
        if isinstance(mine.outcome, Answer):
            return mine.outcome
        raise mine.outcome or LostError("the thread that asked for it was interrupted")

    def _join(self, mine: _Waiting) -> None:
        with self._lock:
            if self._is_away:
                self._waiting.append(mine)
            else:
                self._is_away = True
                self._let_lead(mine)

    def _let_lead(self, one: _Waiting) -> None:
        one.is_leading = True
        one.turn.release()

    def _lead(self, mine: _Waiting) -> None:
        if self._is_company:
            time.sleep(0)  # threads that just had their answers come along
        with self._lock:
            group = list(self._chosen(mine))
            self._waiting = [each for each in self._waiting if each not in group]
            self._is_company = len(group) > 1
        try:
            for each, answer in zip(group, self._ask([each.batch for each in group]), strict=True):
                each.outcome = answer
        except EventLogError as error:
            for each in group:
                each.outcome = error
        finally:
            for each in group:
                if each is not mine:
                    each.turn.release()

    def _chosen(self, mine: _Waiting) -> Iterator[_Waiting]:
        """The first one, and those who wait and can go with it."""
        locks, size, count = set(mine.batch.locks), mine.batch.size, 1
        yield mine
        for each in self._waiting:
            if count < _MOST and locks.isdisjoint(each.batch.locks):
                if size + each.batch.size > _MOST_BYTES:
                    return
                locks.update(each.batch.locks)
                size, count = size + each.batch.size, count + 1
                yield each

    def _leave(self, mine: _Waiting) -> None:
        """Let the next one lead; and be out of the way, where the thread was interrupted."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if mine.is_leading and self._waiting:
                self._let_lead(self._waiting.pop(0))
            elif mine.is_leading:
                self._is_away = False


_all: weakref.WeakSet[Groups] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for groups in list(_all):
        groups.begin()


os.register_at_fork(after_in_child=_after_fork_in_child)
