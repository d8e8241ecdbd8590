"""Opening runs for looking, whoever wrote them, without touching anybody's classes.

Owns the choice of the codec: the inert one of the run's own, which `savers.inert` brings for runs of savers.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from eventlog.cli.exits import MISSING_EXTRA, CommandError
from eventlog.codec import MSGPACK, known_codec
from eventlog.diff import printable

if TYPE_CHECKING:
    from eventlog.codec import Codec
    from eventlog.events import RunName
    from eventlog.log import EventLog
    from eventlog.run import Run

_INERT_SAVERS: Final = "savers.inert"


class _Unread:
    """Stands in for a codec that nothing here has: events and branches can be looked at, values cannot."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, value: Any, path: str = "value") -> bytes:
        """Never to be called: these commands do not write."""
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        """Refuse, with what to do."""
        raise CommandError(
            f"nothing here reads values of the codec {printable(self.name)!r} ({len(data):,} bytes); "
            f"install what wrote the run, so that {_INERT_SAVERS} knows it",
            MISSING_EXTRA,
        )


def open_run(log: EventLog, name: RunName) -> Run:
    """A handle on the branch that a run stands at; its values decode to plain data."""
    return current_branch(log.run(name, codec=_inert_codec(codec_name(log, name))), codec_name(log, name))


def codec_name(log: EventLog, name: RunName) -> str:
    """Name of the codec that a run was written with; of the engine's own for an empty run."""
    return log.codec_name(name) or MSGPACK.name


def _inert_codec(name: str) -> Codec:
    if known_codec(name) is None:
        with suppress(ImportError):
            importlib.import_module(_INERT_SAVERS)
    return known_codec(name) or _Unread(name)


def current_branch(run: Run, codec: str) -> Run:
    """A handle on the branch that a run stands at.

    That is ``main``; in a saver's run, whose events have ids that sort by age, the branch whose head has the greatest.
    """
    if codec == MSGPACK.name:
        return run
    heads = [(branch.head.given_id, branch.name) for branch in run.branches() if branch.head and branch.head.given_id]
    newest = max(heads, default=("", run.branch_name))[1]
    return run if newest == run.branch_name else run.branch(newest)
