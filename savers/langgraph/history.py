"""What a delta channel is made of: the value it was stored with last, and what tasks wrote to it since.

Owns the walk from a checkpoint back to that value. Where each checkpoint's parent is its base, as nearly always, that
is one look along the run's events, decoding nothing but the parents' ids, and one at the task writes that follow them.
Only where a parent is another one (it was put again, or later than its child) the walk goes on from there, by its id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eventlog import NotFoundError, unpacked_id
from savers.langgraph.thread import _CHECKPOINT
from savers.saver import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventlog import Event, Run, TaskWrite


@dataclass(slots=True)
class Trace:
    """One channel's history.

    Attributes:
        writes: per checkpoint on the way that has some, newest first.
        seed: the event at which the value was stored last; None if it never was.
        oldest: the oldest event that it takes to say this; None if there is none.
    """

    writes: list[list[TaskWrite]] = field(default_factory=list)
    seed: Event | None = None
    oldest: Event | None = None

    def in_order(self) -> list[tuple[str, str, Any]]:
        """The writes, oldest first."""
        return [(write.task, write.channel, write.value) for each in reversed(self.writes) for write in each]


def true_parent(run: Run, event: Event) -> str | None:
    """The id of the checkpoint that came before; where it was pruned, too."""
    said = run.written_by(event, _CHECKPOINT)
    if said is None:  # the same bytes as the one before
        said = run.at(event)[_CHECKPOINT]
    packed = said[3] if len(said) > 3 else said[0]  # noqa: PLR2004 (see thread)
    return None if packed is None else unpacked_id(packed)


def traces(run: Run, checkpoint_id: str, channels: Sequence[str]) -> dict[str, Trace]:
    """The history of each channel before a checkpoint; empty ones if it is not there."""
    found = {channel: Trace() for channel in channels}
    try:
        target = run.event(checkpoint_id)
        if target.given_id == checkpoint_id:
            _walk(run, true_parent(run, target), found)
    except NotFoundError:  # never put, or deleted at this moment
        return {channel: Trace() for channel in channels}
    return found


def history_of(run: Run, checkpoint_id: str, channels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `get_delta_channel_history` answers."""
    answer: dict[str, dict[str, Any]] = {}
    for channel, trace in traces(run, checkpoint_id, channels).items():
        answer[channel] = {"writes": trace.in_order()}
        if trace.seed is not None:
            answer[channel]["seed"] = run.at(trace.seed)[escaped(channel)]
    return answer


def _walk(run: Run, parent: str | None, found: dict[str, Trace]) -> None:
    """Go from parent to parent, until every channel's stored value is found, or there is none."""
    still = set(found)
    seen: set[Event] = set()
    while parent is not None and still:
        start = run.forgotten(parent)
        if start is None or start.given_id != parent:
            return
        stretch, parent = _stretch(run, start, still)
        for index, (event, _) in enumerate(stretch):
            if event in seen:  # a checkpoint was put again below one of its own descendants
                stretch, parent = stretch[:index], None
                break
            seen.add(event)
        _collect(run, stretch, found, still)


def _stretch(run: Run, start: Event, still: set[str]) -> tuple[list[tuple[Event, set[str]]], str | None]:
    """The events from `start` back as long as each one's parent is its base, and what else there is to look for.

    Returns:
        Each event with the channels whose value was stored there, newest first; and the id at which to go on.
    """
    state = run.at(start)
    present = {channel for channel in still if escaped(channel) in state}
    wanted, expected = set(still), start.given_id
    stretch: list[tuple[Event, set[str]]] = []
    for event in run.events(stop=start, reverse=True):
        if event.given_id != expected:
            break
        stretch.append((event, present))
        wanted -= present
        if not wanted:
            expected = None
            break
        expected = true_parent(run, event)
        if expected is None:
            break
        removed = run.removed_by(event)
        present = {channel for channel in wanted if escaped(channel) in removed}
    for index, is_current in enumerate(run.are_current([event for event, _ in stretch])):
        if not is_current:  # its id names another event since: that one counts
            return stretch[:index], stretch[index][0].given_id
    return stretch, expected


def _collect(run: Run, stretch: list[tuple[Event, set[str]]], found: dict[str, Trace], still: set[str]) -> None:
    """Take over what tasks wrote along a stretch; a channel ends where its value is stored, with the writes there."""
    along = run.task_writes_along([event for event, _ in stretch], still) if stretch else []
    for (event, stored), written in zip(stretch, along, strict=True):
        for channel in list(still):
            trace = found[channel]
            writes = [write for write in written if write.channel == channel]
            if writes:
                trace.writes.append(writes)
                trace.oldest = event
            if channel in stored:
                trace.seed = trace.oldest = event
                still.discard(channel)
