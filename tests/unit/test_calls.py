"""Calls of the system that are made without letting other threads run: they end at once, and say when they failed."""

from __future__ import annotations

import fcntl
import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from eventlog.errors import BusyError
from eventlog.storage.calls import flock_undisturbed, pwrite_undisturbed
from eventlog.storage.journal import LocalFiles
from eventlog.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = b"Zkey"


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    found = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield found
    os.close(found)


def test_a_lock_is_taken_by_one_and_refused_to_the_next_at_once(fd: int, tmp_path: Path) -> None:
    with (tmp_path / "file").open() as other:
        assert flock_undisturbed(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0
        assert flock_undisturbed(other.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB) == -1
        assert flock_undisturbed(fd, fcntl.LOCK_UN) == 0
        assert flock_undisturbed(other.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB) == 0


@pytest.mark.parametrize("offset", [0, 3, 5_000_000_000])
def test_bytes_stand_where_they_were_written_nuls_among_them(fd: int, offset: int) -> None:
    assert pwrite_undisturbed(fd, b"a\0b", 3, offset) == len(b"a\0b")
    assert os.pread(fd, 9, offset) == b"a\0b"


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_a_write_that_is_refused_says_why(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as readonly, pytest.raises(OSError, match="Bad file descriptor"):
        LocalFiles().write(readonly.fileno(), bytes(size), 0)


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_a_commit_waits_for_writers_of_another_process(tmp_path: Path, synchronous: str) -> None:
    with closing(LocalStorage(tmp_path / "log", synchronous=synchronous, lock_timeout_s=0)) as storage:  # type: ignore[arg-type]
        with (tmp_path / "log" / "journal" / "lock").open() as other:  # as another process has it: an own open file
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(BusyError, match="nothing was written"):
                storage.commit([(KEY, b"1")])
        storage.commit([(KEY, b"2")])
        assert storage.get([KEY]) == [b"2"]
