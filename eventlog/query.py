"""Questions to a run: what a channel was over time, and who made it what it is.

Owns the answers only: each is a function of a run, over its public methods, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventlog.events import Delete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventlog.events import Event
    from eventlog.run import Run


def history(run: Run, channel: str) -> Iterator[tuple[Event, Any]]:
    """Every value that a channel had on this branch, those before its fork included, oldest first.

    Returns:
        The event that wrote it, and the value after that event: `Delete` where it removed the channel. Lazy; reads the
        branch's events once. Empty for a channel that never was.
    """
    for event, state in run.replay():
        if channel in event.writes:
            yield event, state[channel] if channel in state else Delete()


def blame(run: Run, channel: str) -> Event | None:
    """The newest event that wrote to a channel of this branch: whose writing its value is, who removed it last.

    Returns:
        None for a channel that never was. Reads events from the head back to that one.
    """
    return next((event for event in run.events(reverse=True) if channel in event.writes), None)
