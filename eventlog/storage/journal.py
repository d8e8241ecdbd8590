"""The journal's bytes: numbered files of checksummed commit batches, and the header that says where they end.

Owns file names, record framing, the header, and recovery. It knows nothing of who reads or folds what.

```
 journal/
   head              mapped by every process of the machine: six native 8-byte words
                       magic · end · flushed · boot id (2) · whether a flush failed
   000000000001      batches, one after another
   000000000002

 a batch in a file                      a change in a batch
 0  length of the body    4 bytes       0  length of the key                     2 bytes
 4  checksum              8 bytes       2  length of the value, all ones: remove 4 bytes
 12 body: changes                       6  key, value
```

A *position* is one number: the file's number and the offset in it, ``file << 40 | offset``. The checksum is seeded with
the batch's position, so an old or misplaced batch can never pass for a new one. A batch with an empty body *seals* its
file: there is a next one. A batch counts once the header's end lies behind it; what lies beyond is not of the log and
is overwritten. After a reboot the header may be older or newer than the files, so the files are read instead, up to the
first batch that is not whole.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import threading
from array import array
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from xxhash import xxh3_64_intdigest

from eventlog.errors import CapacityError, CorruptionError, FormatError, StorageError
from eventlog.storage.calls import pwrite_undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    Change = tuple[bytes, bytes | None]

OFFSET_BITS: Final = 40
OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1
_MAGIC: Final = int.from_bytes(b"evtlogJ1", "big")
_WORDS: Final = 6
_FRAME: Final = struct.Struct("<IQ")
_CHANGE: Final = struct.Struct("<HI")
REMOVED: Final = 0xFFFFFFFF
_END, _FLUSHED, _BOOT, _FAILED = 1, 2, 3, 5
_LITTLE_BYTES: Final = 1 << 14
"""So much is written in less time than it takes to hand the interpreter over."""
_NO_SPACE: Final = frozenset({28, 122})  # ENOSPC, EDQUOT


class Window(Protocol):
    """Bytes that can be stored by slices."""

    def __setitem__(self, where: slice, data: bytes, /) -> None: ...


class Files(Protocol):
    """What the journal asks of a file system; tests replace it by one that loses what was never flushed."""

    def open(self, path: Path, *, writable: bool, create: bool = False) -> int:
        """A descriptor; the file is made where it is missing if `create`, else that is a `FileNotFoundError`."""

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of `data` at `offset`, or an `OSError`."""

    def window(self, fd: int, offset: int, size: int) -> Window | None:
        """Memory that is the file's bytes from `offset` on: what is stored there is written, as `write` would.

        None where that is not to be had. The bytes must be there; `offset` is a multiple of `WINDOW_STEP`.
        """

    def read(self, fd: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the file's end."""

    def cut(self, fd: int, size: int) -> None:
        """Make the file `size` bytes long."""

    def sync(self, fd: int) -> None:
        """Return when the file's bytes are on stable storage."""

    def sync_directory(self, path: Path) -> None:
        """Return when the directory's names are on stable storage."""


class LocalFiles:
    """The file system of this machine."""

    def open(self, path: Path, *, writable: bool, create: bool = False) -> int:
        """See `Files`; never through a symbolic link."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0)
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """See `Files`."""
        done = pwrite_undisturbed(fd, data, len(data), offset) if len(data) <= _LITTLE_BYTES else 0
        if done <= 0:  # much, or it failed: this one says why
            done = os.pwrite(fd, data, offset)
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)

    def window(self, fd: int, offset: int, size: int) -> Window | None:
        """See `Files`."""
        return mmap.mmap(fd, size, offset=offset) if _takes_stores(fd) else None

    def read(self, fd: int, offset: int, size: int) -> bytes:
        """See `Files`."""
        parts = []
        while size > 0 and (part := os.pread(fd, min(size, 1 << 24), offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def cut(self, fd: int, size: int) -> None:
        """See `Files`."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """See `Files`."""
        os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """See `Files`."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


WINDOW_STEP: Final = mmap.ALLOCATIONGRANULARITY


def _takes_stores(fd: int) -> bool:
    """Whether a store into mapped bytes of a file is as good as a write.

    It is where what was written once has its room on the disk for good (a file system that copies on write may run out
    of it at a store, which kills the process), and where stores are seen in the order in which they were made (a reader
    of another process sees the end move after the bytes before it). Elsewhere, and where nobody knows, it is not.
    """
    if os.uname()[::4] != ("Linux", "x86_64"):
        return False
    said = array("Q", bytes(_STATFS_BYTES))
    where = ctypes.c_void_p(said.buffer_info()[0])
    return not ctypes.pythonapi.fstatfs(fd, where) and said[0] in _IN_PLACE


_STATFS_BYTES: Final = 256
"""More than the call says; the first 8 are the kind of file system."""
_IN_PLACE: Final = frozenset({0xEF53, 0x5846_5342, 0x0102_1994})
"""ext2 to ext4, XFS and tmpfs. Source: statfs(2)."""


def position(number: int, offset: int) -> int:
    """The position of an offset in a file."""
    return number << OFFSET_BITS | offset


change_head: Final = _CHANGE.pack
"""What stands before a key and a value in a body: their lengths; `REMOVED` as the value's to remove the key."""


batch_head: Final = _FRAME.pack
"""What stands before a body: its length, and its checksum at its position."""
batch_checksum: Final = xxh3_64_intdigest


def batch(body: bytes, at: int) -> bytes:
    """The bytes of a batch at a position."""
    return batch_head(len(body), batch_checksum(body, at)) + body


SEAL_BYTES: Final = _FRAME.size
ROOM_BYTES: Final = 1 << 18
WINDOW_BYTES: Final = 1 << 16
"""With a window at first only so much, then as much as the file has: nobody waits for a flush there, and who opens a
log to write a little writes few zeros."""


def changes(body: bytes) -> Iterator[Change]:
    """The changes in a body, in order; a value of None removes the key."""
    at, size, head = 0, len(body), _CHANGE.unpack_from
    while at < size:
        key_size, value_size = head(body, at)
        at += 6
        key = body[at : at + key_size]
        at += key_size
        if value_size == REMOVED:
            yield key, None
        else:
            yield key, body[at : at + value_size]
            at += value_size


def put_keys(body: bytes, kind: int) -> list[bytes]:
    """The keys of a kind that a body puts, in order."""
    keys: list[bytes] = []
    at, size, head = 0, len(body), _CHANGE.unpack_from
    while at < size:
        key_size, value_size = head(body, at)
        at += 6
        if value_size == REMOVED:
            at += key_size
            continue
        if body[at] == kind:
            keys.append(body[at : at + key_size])
        at += key_size + value_size
    return keys


def whole_batches(data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """The bodies of the batches in `data`, which begins at the position `start`, each with the position behind it.

    Ends before the first batch that is not whole. An empty body is a seal.
    """
    at, size = 0, len(data)
    while at + _FRAME.size <= size:
        length, checksum = _FRAME.unpack_from(data, at)
        end = at + _FRAME.size + length
        body = data[at + _FRAME.size : end]
        if end > size or xxh3_64_intdigest(body, start + at) != checksum:
            return
        yield body, start + end
        at = end


class Head:
    """The mapped header. A word is read and written by one native 8-byte access, so no process sees half of one."""

    def __init__(self, path: str, *, writable: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(fd)
            self.file_number = found.st_ino
            if found.st_size < _WORDS * 8:
                if not writable:
                    raise FormatError(f"{path} is not a journal's header; open the log for writing once")
                os.posix_fallocate(fd, 0, _WORDS * 8)  # a store into a hole of a full disk would kill the process
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(fd, _WORDS * 8, access=access)
        finally:
            os.close(fd)
        self.words = memoryview(self._map).cast("Q")
        if self.words[0] not in (0, _MAGIC):
            self.close()
            raise FormatError(f"{path} is not a journal's header, or one of a newer release; upgrade eventlog-savers")

    @property
    def is_trusted(self) -> bool:
        """Whether it was written since the machine started."""
        return self.words[0] == _MAGIC and (self.words[_BOOT], self.words[_BOOT + 1]) == boot_id()

    def trust(self, end: int) -> None:
        """Begin anew at `end`, all of it flushed."""
        self.words[_END] = self.words[_FLUSHED] = end
        self.words[_BOOT], self.words[_BOOT + 1] = boot_id()
        self.words[0] = _MAGIC

    @property
    def flushed(self) -> int:
        """The position up to which everything is on stable storage."""
        return self.words[_FLUSHED]

    def note_flushed(self, end: int) -> None:
        """Say that everything up to `end` is on stable storage."""
        # Two processes may both move it: the lesser one only loses a saving.
        self.words[_FLUSHED] = max(self.words[_FLUSHED], end)

    @property
    def has_failed(self) -> bool:
        """Whether a flush failed, and what the system keeps in memory may differ from the disk."""
        return bool(self.words[_FAILED])

    def note_failed(self, *, failed: bool) -> None:
        """Say so to all processes; or that everything was written anew elsewhere."""
        self.words[_FAILED] = failed

    def sync(self) -> None:
        """Bring the header itself to stable storage: what is damaged before `flushed` can be told from a torn end."""
        self._map.flush()

    def close(self) -> None:
        """Unmap."""
        self.words.release()
        self._map.close()


END: Final = _END
"""The word of the header that holds the end."""


@cache
def boot_id() -> tuple[int, int]:
    """What this start of the machine is called."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
    return int(text[:16], 16), int(text[16:], 16)


class JournalFiles:
    """The numbered files of one journal."""

    _window: Window

    def __init__(self, directory: Path, files: Files, *, writable: bool) -> None:
        self.directory = directory
        self._files = files
        self._writable = writable
        self._open: dict[int, int] = {}
        self._opening = threading.Lock()
        self._syncing = 0
        self._is_closed = False
        self._close_window()

    def path(self, number: int) -> Path:
        """Where file `number` lies."""
        return self.directory / f"{number:012d}"

    def numbers(self) -> list[int]:
        """The numbers of the files there are, in order."""
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def fd(self, number: int) -> int:
        """A descriptor of file `number`, kept open.

        Raises:
            FileNotFoundError: it was folded and removed.
        """
        with self._opening:
            return self._opened(number)

    def _opened(self, number: int) -> int:
        fd = self._open.get(number)
        if fd is None:
            fd = self._open[number] = self._files.open(self.path(number), writable=self._writable)
        return fd

    def create(self, number: int) -> None:
        """Make file `number`, empty; what an interrupted creation left there is cut."""
        try:
            with self._opening:
                fd = self._open[number] = self._files.open(self.path(number), writable=True, create=True)
            self._files.cut(fd, 0)
        except OSError as error:
            raise _refused(self.directory, error) from error

    def write(self, data: bytes, at: int) -> int:
        """Write at a position; the caller holds the writers' lock.

        Returns:
            How many bytes there are.

        Raises:
            CapacityError: no room; nothing counts as written.
            StorageError: the file system refused; nothing counts as written.
        """
        size = len(data)
        begin = at - self._window_at
        if begin >= 0 and begin + size <= self._window_bytes:
            self._window[begin : begin + size] = data
            return size
        try:
            number = at >> OFFSET_BITS
            self._files.write(self._open.get(number) or self.fd(number), data, at & OFFSET_MASK)
        except OSError as error:
            raise _refused(self.directory, error) from error
        return size

    def make_room(self, at: int, *, with_window: bool) -> int:
        """Write zeros behind the end, and open a window on them; the caller holds the writers' lock.

        A flush of bytes that the file has already spares the disk its new length, and a store is quicker than a call;
        but not where each store is flushed, for the system has to notice each anew. Nothing is lost where there is no
        room, or no window.

        Returns:
            The position behind them.
        """
        self._close_window()
        offset = at & OFFSET_MASK
        room = min(max(offset, WINDOW_BYTES), ROOM_BYTES) if with_window else ROOM_BYTES
        with suppress(OSError):
            fd = self.fd(at >> OFFSET_BITS)
            self._files.write(fd, bytes(room), offset)
            begin = offset - offset % WINDOW_STEP
            window = self._files.window(fd, begin, offset + room - begin) if with_window else None
            if window is not None:
                self._window, self._window_at = window, at - offset + begin
                self._window_bytes = offset + room - begin
        return at + room

    def _close_window(self) -> None:
        self._window = bytearray()
        self._window_at = self._window_bytes = 0

    def read(self, start: int, end: int) -> bytes:
        """The bytes from one position to another of the same file; errors as for `fd`."""
        with self._ours():
            return self._files.read(self.fd(start >> OFFSET_BITS), start & OFFSET_MASK, end - start)

    def read_apart(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of a file, by a descriptor of its own, so that others may be closed meanwhile; errors as for `fd`."""
        with self._ours():
            fd = self._files.open(self.path(number), writable=False)
            try:
                return self._files.read(fd, offset, size)
            finally:
                os.close(fd)

    def read_all(self, number: int) -> bytes:
        """All bytes of a file; errors as for `fd`."""
        with self._ours():
            return self._files.read(self.fd(number), 0, 1 << OFFSET_BITS)

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Errors of the file system as ours, but for a file that is missing."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _refused(self.directory, error) from error

    def sync(self, number: int) -> None:
        """Return when file `number` is on stable storage; raises `OSError`."""
        with self._opening:  # who folds the file may be about to close it; one thread flushes at a time
            fd = self._opened(number)
            self._syncing = number
        try:
            self._files.sync(fd)
        finally:
            self._synced(number)

    def _synced(self, number: int) -> None:
        with self._opening:
            self._syncing = 0
            fd = self._open.pop(number, None) if self._is_closed else None
        if fd is not None:  # closed meanwhile, or opened since
            os.close(fd)

    def sync_names(self) -> None:
        """Return when the names of the files are on stable storage; raises `OSError`."""
        self._files.sync_directory(self.directory)

    def begin_anew(self, end: int) -> None:
        """Begin anew at `end`: cut what lies beyond, and bring everything to stable storage, names and all."""
        with self._ours():
            if not self.path(end >> OFFSET_BITS).exists():
                self.create(end >> OFFSET_BITS)
            self.cut(end)
            for directory in (self.directory, self.directory.parent, self.directory.parent.parent):
                self._files.sync_directory(directory)

    def remove(self, number: int) -> None:
        """Remove a file; its descriptor stays open for who reads it."""
        self.path(number).unlink(missing_ok=True)

    def forget(self, last: int) -> None:
        """Close the descriptors of all files up to `last`; nobody may be reading them."""
        for number in [number for number in list(self._open) if number <= last]:
            self.close(number)

    def cut(self, at: int) -> None:
        """Cut a file at a position, and remove those after it."""
        number = at >> OFFSET_BITS
        for later in self.numbers():
            if later > number:
                self.remove(later)
        self._files.cut(self.fd(number), at & OFFSET_MASK)
        self._files.sync(self.fd(number))

    def abandon(self) -> None:
        """In the child of a fork: close the descriptors, whatever the parent's threads were at."""
        self._opening = threading.Lock()
        self._syncing = 0
        self._close_window()
        self.close()
        self._is_closed = False

    def close(self, number: int | None = None) -> None:
        """Close the descriptor of a file, or of all for good; one that is being flushed when that is done."""
        self._is_closed = self._is_closed or number is None
        for each in [number] if number is not None else list(self._open):
            with self._opening:
                fd = None if each == self._syncing else self._open.pop(each, None)
            if fd is not None:
                os.close(fd)

    def end_of_whole(self, first: int, flushed: int) -> int:
        """The position behind the last whole batch, reading from the start of file `first`.

        Raises:
            CorruptionError: a batch before `flushed`, so one that was on stable storage, is damaged.
        """
        end = position(first, 0)
        for number in range(first, first + (1 << 30)):
            end, sealed = position(number, 0), False
            if not self.path(number).exists():
                break  # a seal is written before the file after it
            for body, behind in whole_batches(self.read_all(number), end):
                end, sealed = behind, not body
            if not sealed:
                break
        if end < flushed and end >> OFFSET_BITS >= first:
            raise CorruptionError(
                f"journal file {self.path(end >> OFFSET_BITS)}, from byte {end & OFFSET_MASK}",
                "a batch that was on stable storage is damaged",
            )
        return end


def _refused(directory: Path, error: OSError) -> StorageError:
    if error.errno in _NO_SPACE:
        return CapacityError(f"{directory}: {error}; nothing was written; free some space and call again")
    return StorageError(f"{directory}: {error}; nothing was acknowledged")
