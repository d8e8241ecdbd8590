"""`eventlog import` and `eventlog copy-out`: threads of LangGraph into a log, and out of it again."""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventlog.cli.exits import DIFFERS, MISSING_EXTRA, OK, CommandError
from eventlog.diff import printable
from eventlog.errors import UnknownTypeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from eventlog.log import EventLog

KINDS: Final = ("langgraph-sqlite", "langgraph-postgres", "saver")
_QUIET_S: Final = 0.5
_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be copied.

    Attributes:
        kind: of the place that is not a log, one of `KINDS`.
        where: that place.
        threads: ids, None for all.
        allowed: types that may be read, as ``package.module.Name``.
        is_verified: compare everything at the end.
    """

    kind: str
    where: str
    threads: list[str] | None
    allowed: list[str]
    is_verified: bool


def run(open_log: Callable[[], EventLog], order: Order, out: TextIO, *, is_import: bool) -> int:
    """Copy into a log, or out of it; tells what it did in one line, and each problem on stderr.

    What is copied from is opened first, and what is copied to only if there is something to copy: nothing is made in
    vain.

    Args:
        open_log: opens the log.
        order: what is to be copied.
        out: where to tell it.
        is_import: into the log.

    Returns:
        The exit code.

    Raises:
        CommandError: a package is missing, or a type is not allowed.
        NotFoundError: there is no thread of an id that was named.
        EventLogError: what else is wrong with one of the places.
    """
    copier, places, savers = (_module(name) for name in ("moving", "places", "saver"))
    if order.kind not in KINDS:
        raise CommandError(f"there is no kind {printable(order.kind)!r}; it is one of {', '.join(KINDS)}")
    serde = places.serializer(order.allowed)
    progress = Progress(sys.stderr)
    try:
        with ExitStack() as stack:

            def theirs() -> Any:
                return stack.enter_context(places.opened(order.kind, order.where, serde, to_read=is_import))

            def ours() -> Any:
                log = stack.enter_context(open_log())
                return savers.EventLogSaver(log, serde=serde if is_import else places.Strict(serde))

            source, target = (theirs, ours) if is_import else (ours, theirs)
            done = _copy(copier, source(), target, order, progress)
    except ImportError as error:
        raise CommandError(f"{order.kind} needs more: {_install(order.kind)} ({error})", MISSING_EXTRA) from error
    except UnknownTypeError as error:
        raise CommandError(f"{printable(str(error))}{_hint(error.tag, order)}") from error
    finally:
        progress.end()
    return _report(done, order, out)


def _copy(copier: Any, source: Any, target: Callable[[], Any], order: Order, progress: Progress) -> Any:
    """What was copied; None if there is nothing to copy."""
    if not copier.has_threads(source, order.threads):
        return None
    return copier.copy(source, target(), threads=order.threads, verify=order.is_verified, progress=progress)


def _hint(tag: str, order: Order) -> str:
    if tag.startswith("+"):
        return "; here: --thread ID for the others, and for this one savers.langgraph.copy, which takes such a saver"
    return "" if tag in order.allowed or "." not in tag else f"; here: --allow {printable(tag)}"


def _report(done: Any, order: Order, out: TextIO) -> int:
    if done is None:
        print("there are no threads to copy", file=out)
        return OK
    for problem in done.problems:
        print(f"eventlog: {printable(str(problem))}", file=sys.stderr)
    removed = f", {done.removed:,} stayed away that were removed there" if done.removed else ""
    verified = "; all read again and equal" if order.is_verified and not done.problems else ""
    print(
        f"{done.threads:,} threads: {done.checkpoints:,} checkpoints and {done.writes:,} pending writes copied, "
        f"{done.skipped:,} checkpoints were there, {len(done.problems):,} problems{removed}{verified}",
        file=out,
    )
    return DIFFERS if done.problems else OK


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"savers.langgraph.{name}")
    except ImportError as error:
        raise CommandError(f"this needs LangGraph: {_install('langgraph')}", MISSING_EXTRA) from error


def _install(extra: str) -> str:
    return f'pip install "eventlog-savers[{extra}]"'


class Progress:
    """A line on a terminal that says how far a copy is, once it takes longer than a moment."""

    def __init__(self, out: TextIO, what: str = "checkpoints") -> None:
        self._out = out
        self._what = what
        self._began = time.monotonic()
        self._next = self._began + _QUIET_S if out.isatty() else float("inf")
        self._is_shown = False

    def __call__(self, verb: str, done: int, of: int = 0) -> None:
        """Show it, if the time has come."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY_S
            self._is_shown = True
            print(
                f"\r{verb} {done:,}{f' of {of:,}' if of else ''} {self._what}\x1b[K", end="", file=self._out, flush=True
            )

    def end(self) -> None:
        """Clear the line."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=self._out, flush=True)
