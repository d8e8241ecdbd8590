"""What keeps a log of threads in shape: copies, and what is taken away.

Owns which runs and checkpoints are meant; what becomes of their events is the engine's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventlog import ConflictError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from eventlog import EventLog
    from savers.langgraph.thread import Thread
    from savers.saver import RunName


def copy_runs(log: EventLog, names: Sequence[RunName], target: str) -> None:
    """Copy the runs of a thread to another one, all or none.

    The root namespace comes last: a thread whose copying was stopped by a crash has none.

    Raises:
        ConflictError: the target is there already.
    """
    if log.runs(within=target):
        raise ConflictError(f"there is a thread {target!r} already; delete it, or choose another id")
    done: list[RunName] = []
    try:
        for name in sorted(names, key=lambda each: isinstance(each, str)):
            copy = target if isinstance(name, str) else (target, *name[1:])
            log.copy(name, copy)
            done.append(copy)
    except BaseException:
        for copy in done:
            if copy in log:
                log.delete(copy)
        raise


def ids_of_runs(thread: Thread, run_ids: Collection[str]) -> Iterator[str]:
    """Ids of a thread's checkpoints that were put by one of LangGraph's runs."""
    for checkpoint_id in thread.run.given_ids():
        metadata: Any = thread.metadata(checkpoint_id)
        if metadata is not None and metadata.get("run_id") in run_ids:
            yield checkpoint_id
