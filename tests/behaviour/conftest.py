"""The storage engines that the behaviour suite runs over: those of `tests.engines`, and LMDB without a journal.

An engine is a function of a fresh directory that opens the storage there; called again, it opens it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eventlog.storage import open_storage
from eventlog.storage.lmdb import LmdbStorage
from tests.engines import FORGETFUL, LOCATIONS, Engine
from tests.own_engine import OneFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from eventlog.storage import Storage

    Open = Callable[[], Storage]

ENGINES: dict[Engine, Callable[[Path], Storage]] = {
    **{
        name: lambda directory, located=located: open_storage(located(directory)) for name, located in LOCATIONS.items()
    },
    Engine("bare lmdb"): lambda directory: LmdbStorage(directory / "bare"),
    Engine("one of your own"): lambda directory: OneFile(directory / "own"),
}
PERSISTENT = [name for name in ENGINES if name not in FORGETFUL]


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
        opened.append(ENGINES[request.param](tmp_path))
        return opened[-1]

    yield open_again
    for storage in opened:
        storage.close()


@pytest.fixture
def every_engine(tmp_path: Path) -> Iterator[Callable[[], dict[str, Storage]]]:
    """A function that opens an empty storage of every engine, side by side; of object storage that in a folder."""
    opened: list[Storage] = []

    def open_all() -> dict[str, Storage]:
        directory = tmp_path / f"{len(opened)}"
        storages = {name: open_engine(directory) for name, open_engine in ENGINES.items() if name != "s3"}
        opened.extend(storages.values())
        return storages

    yield open_all
    for storage in opened:
        storage.close()
