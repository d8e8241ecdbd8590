"""What keeps a log of threads in shape: copies, and what is taken away.

Owns which runs and checkpoints are meant; what becomes of their events is the engine's business.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from eventlog import ConflictError, InvalidInputError, Pruned
from savers.langgraph.alike import is_snapshot
from savers.langgraph.history import walked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from eventlog import Event, EventLog
    from savers.langgraph.history import Trace
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


def needed_by_others(thread: Thread, going: Collection[str]) -> list[Event]:
    """Those of some checkpoints that others go back to by the parents they name, which the log does not know."""
    needed: list[Event] = []
    seen: set[str] = set()
    for checkpoint_id in thread.run.given_ids():
        event = None if checkpoint_id in going else thread.run.forgotten(checkpoint_id)
        while event is not None:
            parent = thread.true_parent(event)
            event = None if parent is None or parent in seen else thread.run.forgotten(parent)
            if event is not None and parent is not None:
                seen.add(parent)
                needed += [event] if parent in going else []
    return needed


STRATEGIES: Final = ("keep_latest", "delete")


@dataclass(frozen=True, slots=True)
class PrunedNamespace:
    """What pruning took, or would take, from one namespace of a thread.

    Attributes:
        thread_id: the thread.
        checkpoint_ns: the namespace.
        is_deleted: whether nothing is left of it.
        removed: the ids of its checkpoints that went, and how many events and bytes; of a namespace that is deleted,
            the bytes are not counted.
    """

    thread_id: str
    checkpoint_ns: str
    is_deleted: bool
    removed: Pruned


@dataclass(frozen=True, slots=True)
class Policy:
    """Which checkpoints of a namespace stay: the newest, and those that are among so many and so young.

    Attributes:
        keep_last: how many.
        max_age: how old they may be.
    """

    keep_last: int | None
    max_age: dt.timedelta | None

    def __post_init__(self) -> None:
        if self.keep_last is not None and (type(self.keep_last) is not int or self.keep_last < 1):
            raise InvalidInputError(f"keep_last is a number of checkpoints, at least 1, not {self.keep_last!r}")
        if self.max_age is not None and not isinstance(self.max_age, dt.timedelta):
            raise InvalidInputError(f"max_age is a timedelta, not {self.max_age!r}")

    def kept(self, thread: Thread) -> list[str]:
        """Ids of the checkpoints that stay, newest first; none if there are none."""
        ids = list(thread.run.given_ids())
        most = self.keep_last or (1 if self.max_age is None else len(ids))
        if self.max_age is None:
            return ids[:most]
        since = dt.datetime.now(dt.UTC) - self.max_age
        return ids[:1] + [each for each in ids[1:most] if thread.run.event(each).time >= since]


def prune_namespace(thread: Thread, kept: Sequence[str], *, dry_run: bool) -> Pruned:
    """Remove the checkpoints of a namespace but for `kept`, newest first, and those that are newer still.

    What its delta channels are made of stays, back to the value that was stored last: the log cannot fold what tasks
    wrote, for only the graph knows how.

    Raises:
        NotFoundError: somebody else removed one of them meanwhile.
        ConflictError: the same, or the namespace is being written too quickly.
    """
    run = thread.run
    traces = chain.from_iterable(_delta_traces(thread, each) for each in kept)
    back_to = [*dict.fromkeys(event for trace in traces for event in trace.needed)]  # each goes on where the next ends
    if not dry_run:
        for each in kept:
            parent = thread.parent(each)
            if parent is not None and parent not in kept:
                thread.detach(each)
    return run.prune(kept, back_to=back_to, before=kept[0], dry_run=dry_run)


def _delta_traces(thread: Thread, checkpoint_id: str) -> Iterator[Trace]:
    """The histories of what may be delta channels: they have a version and no value, and tasks wrote to them."""
    metadata: Any = thread.metadata(checkpoint_id) or {}
    counted = metadata.get("counters_since_delta_snapshot") or {}
    empty = [
        channel
        for channel in sorted(thread.channels_at(checkpoint_id)[1])
        if channel in counted or not channel.startswith(_CONTROL)
    ]
    for channel, trace in walked(thread, checkpoint_id, empty)[1].items() if empty else ():
        if trace.writes or channel in counted or _is_snapshot(thread, trace, channel):
            yield trace


def _is_snapshot(thread: Thread, trace: Trace, channel: str) -> bool:
    """Whether a history begins with what only a delta channel is stored as."""
    return trace.seed is not None and is_snapshot(thread.value_at(trace.seed, channel))


_CONTROL: Final = ("branch:", "__")
"""How channels begin that LangGraph fills and empties for itself."""


def is_finished_call(
    thread: Thread, namespace: str, kept: Sequence[str], roots: Sequence[str], saved: set[str]
) -> bool:
    """Whether a namespace is that of a subgraph's call from a root checkpoint that was there and goes now.

    Args:
        thread: the namespace's.
        namespace: its name; a call's has its task's id in it, unlike that of a subgraph whose state outlives calls.
        kept: what would stay of it.
        roots: what stays of the root namespace.
        saved: what was there in the root namespace.
    """
    metadata: Any = thread.metadata(kept[0]) if ":" in namespace and kept else None
    root = (metadata or {}).get("parents", {}).get("")
    return root in saved and root not in roots
