"""What a delta channel is made of: the value it was stored with last, and what tasks wrote to it since.

Owns the walk from a checkpoint back to that value. Where each checkpoint's parent is its base, as nearly always, that
is one look along the run's events, decoding nothing but the parents' ids, and one at the task writes that follow them.
Only where a parent is another one (it was put again, or later than its child) the walk goes on from there, by its id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eventlog import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventlog import Event, TaskWrite
    from savers.langgraph.thread import Thread


@dataclass(slots=True)
class Trace:
    """One channel's history.

    Attributes:
        writes: per checkpoint on the way that has some, newest first.
        seed: the event at which the value was stored last; None if it never was.
        needed: the newest and oldest event, of each stretch of the walk, that it takes to say this; none if there is
            nothing.
        passed: the newest and oldest event of each stretch that lies behind.
    """

    writes: list[list[TaskWrite]] = field(default_factory=list)
    seed: Event | None = None
    needed: list[Event] = field(default_factory=list)
    passed: list[Event] = field(default_factory=list)

    def in_order(self) -> list[tuple[str, str, Any]]:
        """The writes, oldest first."""
        return [(write.task, write.channel, write.value) for each in reversed(self.writes) for write in each]


def traces(thread: Thread, checkpoint_id: str, channels: Sequence[str]) -> dict[str, Trace]:
    """The history of each channel before a checkpoint; empty ones if it is not there."""
    found = {channel: Trace() for channel in channels}
    try:
        target = thread.run.event(checkpoint_id)
        if target.given_id == checkpoint_id:
            _walk(thread, thread.true_parent(target), found)
    except NotFoundError:  # never put, or deleted at this moment
        return {channel: Trace() for channel in channels}
    return found


def history_of(thread: Thread, checkpoint_id: str, channels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `get_delta_channel_history` answers."""
    answer: dict[str, dict[str, Any]] = {}
    for channel, trace in traces(thread, checkpoint_id, channels).items():
        answer[channel] = {"writes": trace.in_order()}
        if trace.seed is not None:
            answer[channel]["seed"] = thread.value_at(trace.seed, channel)
    return answer


def _walk(thread: Thread, parent: str | None, found: dict[str, Trace]) -> None:
    """Go from parent to parent, until every channel's stored value is found, or there is none."""
    still = set(found)
    seen: set[Event] = set()
    while parent is not None and still:
        start = thread.run.forgotten(parent)
        if start is None or start.given_id != parent:
            return
        stretch, parent = _stretch(thread, start, still)
        for index, (event, _) in enumerate(stretch):
            if event in seen:  # a checkpoint was put again below one of its own descendants
                stretch, parent = stretch[:index], None
                break
            seen.add(event)
        _collect(thread, stretch, found, still)


def _stretch(thread: Thread, start: Event, still: set[str]) -> tuple[list[tuple[Event, set[str]]], str | None]:
    """The events from `start` back as long as each one's parent is its base, and what else there is to look for.

    Returns:
        Each event with the channels whose value was stored there, newest first; and the id at which to go on.
    """
    run = thread.run
    wanted, expected = set(still), start.given_id
    asked = wanted  # channels that may have a value at the event that comes next
    stretch: list[tuple[Event, set[str]]] = []
    for event in run.events(stop=start, reverse=True):
        if event.given_id != expected:
            break
        present = asked & thread.channels_at(event)[0] if asked else set()
        stretch.append((event, present))
        wanted -= present
        if not wanted:
            expected = None
            break
        expected = thread.true_parent(event)
        if expected is None:
            break
        asked = thread.emptied_by(event, wanted)
    for index, is_current in enumerate(run.are_current([event for event, _ in stretch])):
        if not is_current:  # its id names another event since: that one counts
            return stretch[:index], stretch[index][0].given_id
    return stretch, expected


def _collect(thread: Thread, stretch: list[tuple[Event, set[str]]], found: dict[str, Trace], still: set[str]) -> None:
    """Take over what tasks wrote along a stretch; a channel ends where its value is stored, with the writes there."""
    along = thread.task_writes_along([event for event, _ in stretch], still) if stretch else []
    for (event, stored), written in zip(stretch, along, strict=True):
        for channel in list(still):
            trace = found[channel]
            writes = [write for write in written if write.channel == channel]
            if writes:
                trace.writes.append(writes)
            if channel in stored:
                trace.seed = event
                still.discard(channel)
            if writes or channel in stored:
                trace.needed = [*trace.passed, stretch[0][0], event]
    for channel in still if stretch else ():
        found[channel].passed += [stretch[0][0], stretch[-1][0]]
