"""What can be told of a log's LMDB file before LMDB maps it, and dies on what is not there.

Owns the place of a log on disk, and what LMDB's first two pages say of the file's length.
"""

from __future__ import annotations

import os
import struct
import time
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from eventlog.errors import CorruptionError, FormatError

if TYPE_CHECKING:
    from pathlib import Path

FileId = tuple[int, int]
"""Device and inode."""

_META_PAGE = struct.Struct("=16x I I 16x I 92x Q Q")  # magic, format, page size, last page number, transaction number
_MAGIC = 0xBEEFC0DE
_DATA_FORMAT = 1


class _MetaPage(NamedTuple):
    magic: int
    data_format: int
    page_bytes: int
    last_page: int
    txn_id: int


def _check_data_file(path: str) -> None:
    """Refuse a file that LMDB did not write, or that it would map and then die on (SIGBUS)."""
    for _ in range(3):
        has_bytes, need_bytes = length_bytes(path)
        if has_bytes >= need_bytes:
            return
        time.sleep(0.01)  # a writer may be about to lengthen it: see lmdb_env
    if _lacks_used_pages(path):
        raise CorruptionError(path, f"it has {has_bytes:,} of {need_bytes:,} bytes; it was cut short")


def length_bytes(path: str) -> tuple[int, int]:
    """How long the file is, and how long it should be; a creation that was killed at its first step needs nothing.

    Source: LMDB 0.9 ``mdb.c``, MDB_meta: each of the first two pages holds one, and the greater transaction counts.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, _META_PAGE.size, 0)
        if not head:
            return 0, 0
        first = _meta_page(path, head)
        second = os.pread(fd, _META_PAGE.size, first.page_bytes)
        has_bytes = os.fstat(fd).st_size  # last: it only grows
    finally:
        os.close(fd)
    if not _is_lmdb(second):
        raise CorruptionError(path, "its second page is damaged or missing")
    newest = max(first, _meta_page(path, second), key=lambda meta: meta.txn_id)
    return has_bytes, (newest.last_page + 1) * first.page_bytes


def _lacks_used_pages(path: str) -> bool:
    """Whether pages that hold something lie beyond the end of the file; slow, for it reads all of it.

    A short file may be sound: LMDB does not write a page that was taken at the end and freed by the same transaction.
    Such a file is left only by a writer that was killed before it lengthened the file: see lmdb_env.
    """
    try:
        module = import_module("lmdb.verify")
    except ImportError:
        return True  # an older release: better refuse a sound file than die on a damaged one
    return any("beyond EOF" in finding for finding in module.verify(path))


def _is_lmdb(raw: bytes) -> bool:
    return raw[16:20] == struct.pack("=I", _MAGIC)


def _meta_page(path: str, raw: bytes) -> _MetaPage:
    if not _is_lmdb(raw):
        raise foreign(path, "it is not an LMDB file")
    if len(raw) < _META_PAGE.size:
        raise CorruptionError(path, "it was cut short within its header")
    meta = _MetaPage(*_META_PAGE.unpack(raw))
    if meta.data_format != _DATA_FORMAT:
        raise foreign(path, f"it has LMDB's data format {meta.data_format}, and a log has {_DATA_FORMAT}")
    return meta


def check_place(path: Path, *, is_readonly: bool) -> FileId | None:
    """Make the directory, and refuse a place that cannot be a log before anything is written there.

    Returns:
        Which file the log is in, None if there is none yet.
    """
    data_path = f"{path}/data.mdb"
    file_id = file_id_of(data_path)
    if file_id is None:
        _make_place(path, is_readonly=is_readonly)
    else:
        _check_data_file(data_path)
    return file_id


def _make_place(path: Path, *, is_readonly: bool) -> None:
    if path.exists() and not path.is_dir():
        raise foreign(path, "it is a file, and a log is a directory")
    if is_readonly:
        msg = f"no log at {path}; check the path, or open it without readonly to create one"
        raise FormatError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def file_id_of(path: str | Path) -> FileId | None:
    """Which file a path leads to now; None if to none."""
    try:
        found = os.stat(path)  # noqa: PTH116 (once per commit: a Path would cost more than the call)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def foreign(path: str | Path, why: str) -> FormatError:
    """The error of opening what is no log."""
    return FormatError(f"{path} cannot be opened as a log: {why}; give the path of a log, or of a new directory")
