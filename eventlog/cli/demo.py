"""`eventlog demo`: which story is told, and where its log is left."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eventlog.cli import physics
from eventlog.cli.exits import MISSING_EXTRA, OK, CommandError

if TYPE_CHECKING:
    from typing import TextIO

_INSTALL: Final = 'pip install "eventlog-savers[demo]"'


def run(kind: str | None, directory: str | None, out: TextIO) -> int:
    """Tell a story.

    Args:
        kind: ``"agent"``, ``"physics"``, or None for the agent's where LangGraph is installed.
        directory: where to leave the log; by default a new temporary directory.
        out: where to tell it.

    Raises:
        CommandError: the agent was asked for and LangGraph is missing, or the directory holds something.
    """
    agent = None if kind == "physics" else _agent()
    if kind == "agent" and agent is None:
        raise CommandError(f"the agent's demo needs LangGraph: {_INSTALL}", MISSING_EXTRA)
    if kind is None and agent is None:
        print(f"LangGraph is not installed, so this is the physics demo; for the agent's: {_INSTALL}\n", file=out)
    story = physics.main if agent is None else agent.main
    return story(_place(directory), out) or OK


def _agent() -> Any:
    """The module of the agent's demo, None if what it needs is missing."""
    try:
        importlib.import_module("langgraph.graph")
        return importlib.import_module("savers.langgraph.demo")
    except ImportError:
        return None


def _place(directory: str | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="eventlog-demo-"))
    place = Path(directory)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CommandError(f"{directory} holds something already; name an empty or a new directory")
    return place
