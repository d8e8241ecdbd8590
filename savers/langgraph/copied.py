"""What a copy of threads did, and what did not arrive as it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CopyProblem:
    """Why a checkpoint did not arrive as it is.

    Attributes:
        thread: its thread's id.
        namespace: its namespace.
        id: its id.
        path: where in it.
        why: what is wrong there.
    """

    thread: str
    namespace: str
    id: str
    path: str
    why: str

    def __str__(self) -> str:
        place = f"thread {self.thread!r}, " + (f"namespace {self.namespace!r}, " if self.namespace else "")
        return f"{place}checkpoint {self.id}: {self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Copied:
    """What `copy` did.

    Attributes:
        threads: how many threads were found.
        checkpoints: how many checkpoints were written, or given the writes that a copy before had not got to.
        writes: how many pending writes were written.
        skipped: how many checkpoints the target had already, equal.
        problems: what did not arrive as it is; empty if all did.
        removed: how many checkpoints stayed away, for they were pruned, or deleted by their run, in the target.
    """

    threads: int
    checkpoints: int
    writes: int
    skipped: int
    problems: tuple[CopyProblem, ...]
    removed: int = 0
