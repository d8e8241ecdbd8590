"""The storage engines that the behaviour suite runs over. Another engine is one line in a table.

An engine is a function of a fresh directory that opens the storage there; called again, it opens it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eventlog.storage.lmdb import LmdbStorage
from eventlog.storage.local import LocalStorage
from eventlog.storage.memory import MemoryStorage
from eventlog.storage.sqlite import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from eventlog.storage import Storage

    Open = Callable[[], Storage]

PERSISTENT: dict[str, Callable[[Path], Storage]] = {
    "lmdb": lambda directory: LmdbStorage(directory / "log"),
    "local": lambda directory: LocalStorage(directory / "local"),
    "sqlite": lambda directory: SqliteStorage(directory / "log.db"),
}
ENGINES: dict[str, Callable[[Path], Storage]] = {
    "memory": lambda directory: MemoryStorage(),
    **PERSISTENT,
}


@pytest.fixture(params=ENGINES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An empty storage of every engine."""
    opened = ENGINES[request.param](tmp_path)
    yield opened
    opened.close()


@pytest.fixture(params=PERSISTENT)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """A function that opens the same storage again and again, for every engine that outlives its handles."""
    opened: list[Storage] = []

    def open_again() -> Storage:
        opened.append(PERSISTENT[request.param](tmp_path))
        return opened[-1]

    yield open_again
    for storage in opened:
        storage.close()


@pytest.fixture
def every_engine(tmp_path: Path) -> Iterator[Callable[[], dict[str, Storage]]]:
    """A function that opens an empty storage of every engine, side by side."""
    opened: list[Storage] = []

    def open_all() -> dict[str, Storage]:
        directory = tmp_path / f"{len(opened)}"
        storages = {name: open_engine(directory) for name, open_engine in ENGINES.items()}
        opened.extend(storages.values())
        return storages

    yield open_all
    for storage in opened:
        storage.close()
