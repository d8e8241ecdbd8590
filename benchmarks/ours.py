"""How our log is opened for a measurement, how flushes are counted, how bytes on disk are."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from eventlog import EventLog
from eventlog.layout import MANIFEST, SNAPSHOT
from eventlog.storage.journal import LocalFiles
from eventlog.storage.local import LocalStorage

if TYPE_CHECKING:
    from pathlib import Path


class CountingFiles(LocalFiles):
    """The real file system, counting flushes of the journal by the thread that waits for them."""

    def __init__(self) -> None:
        self.all_syncs = 0
        self.background_syncs = 0

    def sync(self, fd: int) -> None:
        self.all_syncs += 1
        self.background_syncs += threading.current_thread().name.startswith("eventlog")
        super().sync(fd)

    @property
    def syncs(self) -> int:
        """Flushes that a caller waited for."""
        return self.all_syncs - self.background_syncs


def open_log(directory: Path, synchronous: str = "normal", files: LocalFiles | None = None) -> EventLog:
    """A log in a directory; through the storage, because the seam that counts flushes is there."""
    return EventLog(LocalStorage(directory / "log", synchronous=synchronous, files=files))  # type: ignore[arg-type]


def written_whole(directory: Path) -> tuple[int, int]:
    """How many manifests, with the small values in them, and how many snapshots of larger ones a closed log has."""
    storage = LocalStorage(directory / "log", readonly=True)
    try:
        manifests, snapshots = (sum(1 for _ in storage.scan([(kind, b"\xff")])) for kind in (MANIFEST, SNAPSHOT))
    finally:
        storage.close()
    return manifests, snapshots


def disk_bytes(directory: Path) -> int:
    """Bytes that all files below a directory take on disk: allocated blocks, so nothing hides in holes or tails."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
