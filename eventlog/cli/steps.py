"""The steps of a branch, newest first, each with the state before and after it.

Owns the order of reading: a few events are replayed forwards and then given backwards, so that the first line of a long
history costs one materialised state and a handful of events.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from eventlog.diff import Diff, compare
from eventlog.errors import UnknownTypeError
from eventlog.events import Extend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from eventlog.diff import Change
    from eventlog.events import Branch, Event
    from eventlog.run import Run

    End = tuple[Callable[[], int], int]

_FIRST_PAGE: Final = 8
_PAGE: Final = 128
_SEAL: Final = "+"
"""How the tag of what a saver encrypted begins."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event with what it did.

    Attributes:
        event: the event.
        writes: what it wrote, by channel.
        before: the state before it; empty before the first event.
        after: the state after it.
        is_encrypted: nobody reads what it wrote without the key; then `writes` says nothing.
        ends: of each list that it extended what counts the items in some later state, and how many fewer there were
            before this step; so that one count serves all the steps that made the list longer.
    """

    event: Event
    writes: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    is_encrypted: bool = False
    ends: Mapping[str, End] = field(default_factory=dict)

    def diff(self, channels: list[str]) -> Diff:
        """What it changed, in these of the channels that it wrote."""
        came = {channel: list(self.writes[channel].items) for channel in channels if self._is_longer(channel)}
        old = _only(self.before, channels, {channel: [] for channel in came})
        return Diff(tuple(self._placed(change, came) for change in compare(old, _only(self.after, channels, came))))

    def _is_longer(self, channel: str) -> bool:
        """Whether a list got longer: then what was in it before need not be decoded and compared."""
        return channel in self.ends and channel in self.before

    def _placed(self, change: Change, came: Mapping[str, Any]) -> Change:
        """A change with its index in the whole list, where only the items that came were compared."""
        channel, *rest = change.path
        if channel not in came:
            return change
        count, less = self.ends[channel]
        return replace(change, path=(channel, count() - less + rest[0]))


def _only(state: Mapping[str, Any], channels: list[str], known: Mapping[str, Any]) -> dict[str, Any]:
    return {channel: known[channel] if channel in known else state[channel] for channel in channels if channel in state}


def _ends(known: dict[str, End], writes: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, End]:
    """The `Step.ends` of a step; `known` are those of the step after it, and become those of this one."""
    for channel, write in writes.items():
        if isinstance(write, Extend):
            count, less = known.get(channel) or (_counter(after, channel), 0)
            known[channel] = count, less + len(write.items)
        else:
            known.pop(channel, None)
    return {channel: known[channel] for channel in writes if channel in known}


def _counter(state: Mapping[str, Any], channel: str) -> Callable[[], int]:
    return cache(lambda: len(state[channel]))


def steps(run: Run, stop: Event, limit: int | None = None) -> Iterator[Step]:
    """The steps up to `stop`, newest first, at most `limit`."""
    return islice(_steps(run, stop, limit), limit)


def _steps(run: Run, stop: Event, limit: int | None) -> Iterator[Step]:
    events = run.events(stop=stop, reverse=True)
    ends: dict[str, End] = {}
    size = min(limit or _FIRST_PAGE, _FIRST_PAGE)
    page = list(islice(events, size + 1))
    while page:
        states = [state for _, state in run.replay(page[-1], page[0])][::-1]
        has_more = len(page) > size
        befores: list[Mapping[str, Any]] = [*states[1:], *([] if has_more else [{}])]
        for event, before, after in zip(page, befores, states, strict=False):
            yield _step(event, before, after, ends)
        size = min(2 * size, _PAGE)
        page = [page[-1], *islice(events, size)] if has_more else []


def _step(event: Event, before: Mapping[str, Any], after: Mapping[str, Any], ends: dict[str, End]) -> Step:
    try:
        writes = event.writes
        return Step(event, writes, before, after, ends=_ends(ends, writes, after))
    except UnknownTypeError as error:
        if not error.tag.startswith(_SEAL):
            raise
        ends.clear()
        return Step(event, {}, before, after, is_encrypted=True)


def steps_of_all(run: Run, limit: int | None = None) -> Iterator[Step]:
    """The steps of every branch of a run, each step once, the latest write first."""
    owners: dict[tuple[int, int], str] = {}
    lanes = [_lane(run, branch, limit, owners) for branch in run.branches()]
    merged = heapq.merge(*lanes, key=lambda lane: lane[1].event.time_ns, reverse=True)
    return islice((step for name, step in merged if owners.setdefault(_place(step), name) == name), limit)


def _lane(run: Run, branch: Branch, limit: int | None, owners: Mapping[Any, str]) -> Iterator[tuple[str, Step]]:
    """The steps of a branch, until one that another branch told first: that one tells what lies before, too."""
    if branch.head is None:
        return
    for step in steps(run.branch(branch.name), branch.head, limit):
        yield branch.name, step
        if owners[_place(step)] != branch.name:
            return


def _place(step: Step) -> tuple[int, int]:
    return step.event.segment, step.event.seq
