"""What a delta channel is made of: the value it was stored with last, and what tasks wrote to it since.

Owns the walk from a checkpoint back to that value. Where each checkpoint's parent is its base, as nearly always, that
is one look along the run's events, decoding nothing but the parents' ids, and one at the task writes that follow them.
Only where a parent is another one (it was put again, or later than its child) the walk goes on from there, by its id.

Whoever looks at one checkpoint after another goes the same way each time. So while nothing is written, the way that was
gone last is remembered, with the bytes of what tasks wrote on it.
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
        begins: how many of `writes` lie before each event of the walk.
        is_cut: whether it came back to where it had been, so that it would end elsewhere if it had begun elsewhere.
    """

    writes: list[list[TaskWrite]] = field(default_factory=list)
    seed: Event | None = None
    needed: list[Event] = field(default_factory=list)
    passed: list[Event] = field(default_factory=list)
    begins: dict[tuple[int, int], int] = field(default_factory=dict)
    is_cut: bool = False

    def in_order(self, thread: Thread, start: Event | None) -> list[tuple[str, str, Any]]:
        """The writes from `start` back, oldest first, each decoded anew."""
        first = 0 if start is None else self.begins.get((start.segment, start.seq), 0)
        return [
            (write.task, write.channel, thread.decoded(write))
            for each in reversed(self.writes[first:])
            for write in each
        ]


class Walked:
    """The last walk of a thread, for those that begin somewhere on its way while nothing is written.

    The first walk at a moment is not kept: nearly always it is the only one. Safe for many threads.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: tuple[int | None, dict[str, Trace]] = (None, {})

    def traces(
        self, thread: Thread, checkpoint_id: str, start: Event | None, channels: Sequence[str]
    ) -> dict[str, Trace]:
        """The histories before a checkpoint; one that began before `start`, its parent, goes on beyond that."""
        position = None if start is None or thread.sealed is not None else thread.run.position()
        then, known = self._known
        if start is None or position is None or position != then:
            self._known = (position, {})
            return traces(thread, checkpoint_id, channels)
        at = (start.segment, start.seq)
        found = {channel: known[channel] for channel in channels if channel in known and at in known[channel].begins}
        missing = [channel for channel in channels if channel not in found]
        if missing:
            found |= traces(thread, checkpoint_id, missing)
            self._known = (position, {**known, **{name: each for name, each in found.items() if not each.is_cut}})
        return found


def traces(thread: Thread, checkpoint_id: str, channels: Sequence[str]) -> dict[str, Trace]:
    """The history of each channel before a checkpoint; empty ones if it is not there."""
    found = {channel: Trace() for channel in channels}
    try:
        start = _parent(thread, checkpoint_id)
        if start is not None:
            _walk(thread, start, found)
    except NotFoundError:  # never put, or deleted at this moment
        return {channel: Trace() for channel in channels}
    return found


def _parent(thread: Thread, checkpoint_id: str) -> Event | None:
    """The event that a checkpoint's parent is, None if there is none."""
    target = thread.run.event(checkpoint_id)
    parent = thread.true_parent(target) if target.given_id == checkpoint_id else None
    return None if parent is None else _named(thread, parent)


def _named(thread: Thread, checkpoint_id: str) -> Event | None:
    event = thread.run.forgotten(checkpoint_id)
    return event if event is not None and event.given_id == checkpoint_id else None


def walked(thread: Thread, checkpoint_id: str, channels: Sequence[str]) -> tuple[Event | None, dict[str, Trace]]:
    """A checkpoint's parent, and the history of each channel before it: of the last walk, if that came by."""
    try:
        start = _parent(thread, checkpoint_id)
    except NotFoundError:
        start = None
    return start, thread.walked.traces(thread, checkpoint_id, start, channels)


def history_of(thread: Thread, checkpoint_id: str, channels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `get_delta_channel_history` answers."""
    start, found = walked(thread, checkpoint_id, channels)
    answer: dict[str, dict[str, Any]] = {}
    for channel in channels:
        trace = found[channel]
        answer[channel] = {"writes": trace.in_order(thread, start)}
        if trace.seed is not None:
            answer[channel]["seed"] = thread.value_at(trace.seed, channel)
    return answer


def _walk(thread: Thread, start: Event | None, found: dict[str, Trace]) -> None:
    """Go from parent to parent, until every channel's stored value is found, or there is none."""
    still = set(found)
    seen: set[Event] = set()
    while start is not None and still:
        stretch, parent = _stretch(thread, start, still)
        for index, (event, _) in enumerate(stretch):
            if event in seen:  # a checkpoint was put again below one of its own descendants
                stretch, parent = stretch[:index], None
                for channel in still:
                    found[channel].is_cut = True
                break
            seen.add(event)
        _collect(thread, stretch, found, still)
        start = None if parent is None else _named(thread, parent)


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
            trace.begins[event.segment, event.seq] = len(trace.writes)
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
