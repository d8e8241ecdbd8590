"""From what a person types to a run, a branch and an event.

Owns the grammar of addresses, which is read with the log at hand, because names may hold every sign that it uses::

    RUN[@BRANCH][:STEP | :first | :last | :ID][~N]

The longest name of a run that the address begins with is the run's; likewise the branch. The long options say the same
without a grammar.
"""

from __future__ import annotations

import difflib
import heapq
import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from eventlog.catalog import name_parts
from eventlog.cli.exits import CommandError
from eventlog.cli.opening import open_run
from eventlog.diff import printable
from eventlog.errors import InvalidIdError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventlog.events import Event, RunName
    from eventlog.log import EventLog
    from eventlog.run import Run

BETWEEN_PARTS: Final = " / "
_NEAREST: Final = 64
"""Names that are compared closely with what was typed, which takes the square of their length."""
_BEGINNINGS: Final = 8
"""Of what was typed, that may have been meant as a name."""
_PLACE = re.compile(r"(?::(?P<at>.+?))?(?:~(?P<back>\d{1,18}))?", re.DOTALL)
_STEP = re.compile(r"-?\d{1,18}")


@dataclass(frozen=True, slots=True)
class Address:
    """What was typed.

    Attributes:
        text: an address, None if only options were given.
        run: the parts of a run's name, given as options.
        branch: given as an option.
        step: given as an option.
    """

    text: str | None
    run: tuple[str, ...] = ()
    branch: str | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What an address names.

    Attributes:
        run: a handle on the branch.
        event: the event, None if the run is empty.
        default: the branch that the run's name alone stands for.
    """

    run: Run
    event: Event | None
    default: str

    @property
    def address(self) -> str:
        """The address, in its short form."""
        return run_title(self.run.name) if self.event is None else self.address_of(self.event)

    def address_of(self, event: Event) -> str:
        """The address of an event that lies on this branch."""
        branch = self.run.branch_name
        at_branch = "" if branch == self.default else f"@{printable(branch)}"
        return f"{run_title(self.run.name)}{at_branch}:{event.step}"

    def required(self) -> Event:
        """The event; a run without events is an error here."""
        if self.event is None:
            raise CommandError(f"run {run_title(self.run.name)!r} has no events yet")
        return self.event


def run_title(name: RunName) -> str:
    """A run's name for people: its parts with ``/`` between them, safe for a terminal."""
    return printable(name if isinstance(name, str) else BETWEEN_PARTS.join(name))


# --- finding ----------------------------------------------------------------------------------------------------------


def resolve(log: EventLog, address: Address) -> Found:
    """What `address` names.

    Raises:
        CommandError: no such run or branch, or not an address; says which names are near.
        NotFoundError: the run has no such step or id.
    """
    name, rest = (address.run, "") if address.run else _split_run(log, address.text or "")
    if address.run and address.run not in log:
        raise _no_run(log, run_title(address.run))
    run = open_run(log, name)
    default = run.branch_name
    run, place = _split_branch(run, rest)
    if address.branch is not None:
        run = _on_branch(run, address.branch)
    if address.step is not None:
        return Found(run, run.event(address.step), default)
    return Found(run, _event(run, place), default)


def _split_run(log: EventLog, text: str) -> tuple[RunName, str]:
    for head, rest in _splits(text, "@:~"):
        names = [name for name in _names(head) if name in log]
        if len(names) > 1:
            raise CommandError(f"{printable(head)!r} is two runs: give --run once for each part of the name you mean")
        if names:
            return names[0], rest
    raise _no_run(log, text)


def _splits(text: str, signs: str) -> Iterator[tuple[str, str]]:
    """`text` cut before each of `signs`, the longest beginning first."""
    for index in range(len(text), 0, -1):
        if index == len(text) or text[index] in signs:
            yield text[:index], text[index:]


def _names(text: str) -> list[RunName]:
    parts = tuple(text.split(BETWEEN_PARTS))
    names: list[RunName] = [text, parts] if len(parts) > 1 else [text]
    return [name for name in names if _is_name(name)]


def _is_name(name: RunName) -> bool:
    with suppress(InvalidIdError):
        return bool(name_parts(name))
    return False


def _split_branch(run: Run, rest: str) -> tuple[Run, str]:
    if not rest.startswith("@"):
        return run, rest
    names = {branch.name for branch in run.branches()}
    for name, place in _splits(rest[1:], ":~"):
        if name in names:
            return run.branch(name), place
    raise _no_branch(run, re.split("[:~]", rest[1:])[0])


def _on_branch(run: Run, name: str) -> Run:
    try:
        return run.branch(name)
    except NotFoundError:
        raise _no_branch(run, name) from None


def _event(run: Run, place: str) -> Event | None:
    parsed = _PLACE.fullmatch(place)
    if parsed is None:
        raise CommandError(f"{printable(place)!r} is no place in a run: use :STEP, :first, :last, :ID or ~N")
    event = _named(run, parsed["at"]) if parsed["at"] else run.head
    return _back(run, event, int(parsed["back"])) if event and parsed["back"] else event


def _named(run: Run, at: str) -> Event | None:
    if at == "last":
        return run.head
    if at == "first":
        return next(run.events(), None)
    if _STEP.fullmatch(at):
        try:
            return run.event(int(at))
        except NotFoundError:
            with suppress(NotFoundError):
                return run.event(at)
            raise
    return run.event(at)


def _back(run: Run, event: Event, count: int) -> Event:
    found = next(islice(run.events(stop=event, reverse=True), count, None), None)
    if found is None:
        raise CommandError(
            f"{run_title(run.name)!r} has fewer than {count:,} events before step {event.step}; the first is :first"
        )
    return found


# --- not found --------------------------------------------------------------------------------------------------------


def _no_run(log: EventLog, text: str) -> CommandError:
    titles = [run_title(name) for name in log.runs()]
    wanted = (printable(head) for head, _ in islice(_splits(text, "@:~"), _BEGINNINGS))
    near = next((found for one in wanted if (found := _near(one, titles))), "")
    return CommandError(f"there is no run {printable(text)!r} in {log.location}{near}; `eventlog ls` lists the runs")


def _no_branch(run: Run, name: str) -> CommandError:
    names = [printable(branch.name) for branch in run.branches()]
    hint = _near(printable(name), names) or f"; there is {', '.join(names[:8])}"
    return CommandError(f"run {run_title(run.name)!r} has no branch {printable(name)!r}{hint}")


def _near(text: str, names: Iterable[str]) -> str:
    nearest = heapq.nlargest(_NEAREST, names, lambda name: _likeness(text, name))
    near = difflib.get_close_matches(text, nearest, 3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _likeness(a: str, b: str) -> float:
    """How much of two texts their common beginning and end are: cheap, and high for one that was mistyped once."""
    most = min(len(a), len(b))
    same = _same(a, b) + _same(reversed(a), reversed(b))
    return min(same, most) / (len(a) + len(b) or 1)


def _same(a: Iterable[str], b: Iterable[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
