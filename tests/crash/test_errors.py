"""The file system refuses: the error is ours, nothing half-done becomes visible, and the log goes on."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from eventlog.errors import CapacityError, EventLogError, StorageError
from eventlog.storage import local
from eventlog.storage.journal import LocalFiles
from eventlog.storage.lmdb import LmdbStorage
from tests.crash.workload import DEEP, batch_of, checked, count, go_on, reopened, shrink

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    shrink(monkeypatch.setattr)
    monkeypatch.setattr(local, "_SPILL_BYTES", 700)
    monkeypatch.setattr(local.LocalStorage, "_wake", lambda storage: None)


class Failing(LocalFiles):
    """Fails once, or for ever, at the n-th call of one kind, counted from when it is armed."""

    def __init__(self, call: str, code: int, *, is_short: bool = False, for_ever: bool = False) -> None:
        self.call, self.code, self.is_short, self.for_ever = call, code, is_short, for_ever
        self.left = -1
        self.failed = 0

    def _reached(self, call: str) -> bool:
        if call != self.call or self.left < 0:
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        self.failed += 1
        self.left = 0 if self.for_ever else -1
        return True

    def _fail(self) -> None:
        raise OSError(self.code, os.strerror(self.code))

    def open(self, path: Path, *, writable: bool, create: bool = False) -> int:
        if self._reached("open"):
            self._fail()
        return super().open(path, writable=writable, create=create)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self._reached("write"):
            if self.is_short:
                os.pwrite(fd, data[: len(data) * 2 // 3], offset)
            self._fail()
        super().write(fd, data, offset)

    def read(self, fd: int, offset: int, size: int) -> bytes:
        if self._reached("read"):
            self._fail()
        return super().read(fd, offset, size)

    def cut(self, fd: int, size: int) -> None:
        if self._reached("cut"):
            self._fail()
        super().cut(fd, size)

    def sync(self, fd: int) -> None:
        if self._reached("sync"):
            self._fail()
        super().sync(fd)

    def sync_directory(self, path: Path) -> None:
        if self._reached("names"):
            self._fail()
        super().sync_directory(path)


@pytest.mark.parametrize("mode", ["full", "normal", "off"])
@pytest.mark.parametrize(
    ("call", "code", "is_short"),
    [
        ("write", errno.ENOSPC, False),
        ("write", errno.ENOSPC, True),
        ("write", errno.EIO, True),
        ("write", errno.EDQUOT, False),
        ("open", errno.ENOSPC, False),
        ("open", errno.EMFILE, False),
        ("cut", errno.EIO, False),
    ],
)
def test_a_refused_write_is_an_error_of_ours_and_was_not_done(tmp_path, mode, call, code, is_short):
    """At every n-th call; the same handle goes on when there is room again."""
    expected = CapacityError if code in {errno.ENOSPC, errno.EDQUOT} else StorageError
    for nth in range(20 * DEEP if call == "write" else 3):
        files = Failing(call, code, is_short=is_short)
        location = tmp_path / f"{nth}"
        storage = reopened(location, mode, files=files)
        n = go_on(storage, 5)
        files.left = nth
        while not files.failed:
            n += 1
            try:
                storage.commit(*batch_of(n))
            except expected:
                n -= 1
                break
        assert files.failed
        assert count(storage) == n, "a commit that raised is not visible, one that returned is"
        other = reopened(location, readonly=True)
        assert checked(other) <= n
        other.close()
        assert go_on(storage, 30) == n + 30 == checked(storage)
        storage.close()
        again = reopened(location)
        assert checked(again) == n + 30
        again.close()


def until_full(storage, n: int) -> int:
    """Commit while there is room, some of which was made before; what is refused then is refused again and again."""
    with suppress(CapacityError):
        while n < 1000:
            storage.commit(*batch_of(n + 1))
            n += 1
    for _ in range(20):
        with pytest.raises(CapacityError):
            storage.commit(*batch_of(n + 1))
    return n


@pytest.mark.parametrize("mode", ["full", "normal", "off"])
def test_a_disk_that_stays_full(tmp_path, mode):
    files = Failing("write", errno.ENOSPC, is_short=True, for_ever=True)
    storage = reopened(tmp_path / "log", mode, files=files)
    n = go_on(storage, 12)
    files.left = 0
    if mode != "off":
        n = until_full(storage, n)
        assert checked(storage) == n
    with suppress(EventLogError):
        storage.close()
    again = reopened(tmp_path / "log")
    assert checked(again) >= (0 if mode == "off" else n)
    again.close()


def refused(*_: object) -> None:
    raise CapacityError("the disk is full")


@pytest.mark.parametrize("mode", ["full", "normal", "off"])
def test_while_nothing_can_be_folded_the_journal_stops_growing(tmp_path, monkeypatch, mode):
    storage = reopened(tmp_path / "log", mode)
    n = go_on(storage, 3)
    with monkeypatch.context() as patch:
        patch.setattr(LmdbStorage, "fold", refused)
        n = until_full(storage, n)
        assert len(storage._files.numbers()) == len(storage._layers) == local.MAX_SEALED + 1
        assert checked(storage) == n
    assert go_on(storage, 30) == n + 30 == checked(storage)
    storage.close()


@pytest.mark.parametrize("mode", ["full", "normal", "off"])
@pytest.mark.parametrize("call", ["sync", "names"])
def test_a_failed_flush_is_said_and_after_reopening_all_goes_on(tmp_path, mode, call):
    for nth in range(3):
        files = Failing(call, errno.EIO)
        location = tmp_path / f"{nth}"
        storage = reopened(location, mode, files=files)
        if call == "names":
            storage._named = 0
        acked = 0
        files.left = nth if call == "sync" else 0
        with pytest.raises(StorageError, match="flush failed"):  # noqa: PT012 (which of them, is open)
            for acked in range(400):
                storage.commit(*batch_of(acked + 1))
                if acked % 3 == 2:
                    storage.flush()
        for use in (partial(count, storage), partial(go_on, storage), storage.flush):
            with pytest.raises(StorageError, match="open the log again"):
                use()
        storage.close()
        again = reopened(location, mode)
        n = checked(again)
        assert n >= (0 if mode == "off" else acked)
        assert go_on(again, 5) == n + 5 == checked(again)
        again.close()


def test_a_failed_read_is_an_error_of_ours(tmp_path):
    go_on(writer := reopened(tmp_path / "log"), 3)
    files = Failing("read", errno.EIO)
    reader = reopened(tmp_path / "log", files=files)
    files.left = 0
    with pytest.raises(StorageError):
        count(reader)
    assert checked(reader) == 3
    reader.close()
    writer.close()


@pytest.mark.parametrize("call", ["open", "cut", "sync", "names"])
def test_a_refusal_while_opening_is_an_error_of_ours_and_leaves_nothing_open(tmp_path, call):
    files = Failing(call, errno.EIO)
    files.left = 0
    with pytest.raises(StorageError):
        reopened(tmp_path / "log", files=files)
    assert files.failed
    storage = reopened(tmp_path / "log", "off", lock_timeout_s=0.1)
    assert go_on(storage, 3) == checked(storage)
    storage.close()


class Blind(LocalFiles):
    """A file system whose files take no stores."""

    def window(self, fd: int, offset: int, size: int) -> None:
        return None


@pytest.mark.parametrize("mode", ["full", "normal"])
def test_where_files_take_no_stores_they_are_written(tmp_path, mode):
    one = reopened(tmp_path / "log", mode, files=Blind())
    other = reopened(tmp_path / "log", mode)
    for _ in range(40):
        go_on(one, 3)
        go_on(other, 3)
    assert checked(one) == checked(other) == 240
    one.close()
    other.close()
