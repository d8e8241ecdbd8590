"""Power loss: whatever a disk may have kept of what was never flushed, the log opens and holds what it promised."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from eventlog.errors import CorruptionError, EventLogError
from eventlog.storage import journal
from eventlog.storage.journal import JournalFiles, LocalFiles, batch, position, whole_batches
from eventlog.storage.lmdb import LmdbStorage
from eventlog.storage.local import LocalStorage
from tests.crash.workload import DEEP, batch_of, checked, count, go_on, shrink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eventlog.storage.journal import Window


@pytest.fixture(autouse=True)
def nothing_is_folded_on_closing(monkeypatch):
    """A machine that loses power closes nothing: what the journal holds stays there, flushed."""
    monkeypatch.setattr(LocalStorage, "_leave_folded", lambda self: self.flush())


IMAGES = 10  # of each epoch
EPOCHS = 3
HEAD = "head"


class Held:
    """What the disk holds of one file for certain, and what it may or may not hold besides."""

    def __init__(self, content: bytes) -> None:
        self.safe = bytearray(content)
        self.unsafe: list[tuple[int, bytes | None]] = []  # a write at an offset; None: a cut there

    def sync(self) -> None:
        for at, data in self.unsafe:
            self._apply(self.safe, at, data)
        self.unsafe.clear()

    @staticmethod
    def _apply(content: bytearray, at: int, data: bytes | None) -> None:
        if data is None:
            del content[at:]
            content.extend(bytes(at - len(content)))
        else:
            content.extend(bytes(max(0, at - len(content))))
            content[at : at + len(data)] = data

    def image(self, chance: random.Random) -> bytes:
        """One of the contents that a disk may hold: any subset of the blocks that were not flushed."""
        content = bytearray(self.safe)
        block, keep = chance.choice([512, 4096, 64]), chance.choice([0.0, 0.5, 0.9, 1.0])
        for at, data in self.unsafe:
            if data is None:
                if chance.random() < keep:
                    self._apply(content, at, None)
                continue
            begin = at
            while begin < at + len(data):
                end = min(at + len(data), (begin // block + 1) * block)
                if chance.random() < keep:
                    self._apply(content, begin, data[begin - at : end - at])
                elif chance.random() < 0.5:  # the length reached the disk, the bytes did not
                    content.extend(bytes(max(0, end - len(content))))
                begin = end
        return bytes(content)


class Stores:
    """A window of which the disk learns what is stored."""

    def __init__(self, disk: Disk, fd: int, offset: int) -> None:
        self.disk, self.fd, self.offset = disk, fd, offset

    def __setitem__(self, where: slice, data: bytes) -> None:
        self.disk.write(self.fd, data, self.offset + where.start)


class Disk(LocalFiles):
    """The machine's files, and what of them power loss would leave; `at_any_time` runs around every call."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self.directory = location / "journal"
        self.held: dict[str, Held] = {}
        self.names: set[str] = set()
        self.by_fd: dict[int, str] = {}
        self.at_any_time: Callable[[], None] = lambda: None
        if self.directory.exists():
            self.names = {path.name for path in self.directory.iterdir()}
            self.held = {name: Held((self.directory / name).read_bytes()) for name in self.names if name.isdigit()}

    def open(self, path: Path, *, writable: bool, create: bool = False) -> int:
        if create and not path.exists():
            self.held[path.name] = Held(b"")
        self.at_any_time()
        fd = super().open(path, writable=writable, create=create)
        self.by_fd[fd] = path.name
        self.at_any_time()
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self.at_any_time()
        self.held[self.by_fd[fd]].unsafe.append((offset, data))
        super().write(fd, data, offset)
        self.at_any_time()

    def window(self, fd: int, offset: int, size: int) -> Window:
        return Stores(self, fd, offset)

    def cut(self, fd: int, size: int) -> None:
        self.held[self.by_fd[fd]].unsafe.append((size, None))
        super().cut(fd, size)
        self.at_any_time()

    def sync(self, fd: int) -> None:
        self.at_any_time()
        super().sync(fd)
        self.held[self.by_fd[fd]].sync()
        self.at_any_time()

    def sync_directory(self, path: Path) -> None:
        if path == self.directory:
            self.names = {each.name for each in path.iterdir()}
        self.at_any_time()

    def image(self, to: Path, chance: random.Random, heads: list[bytes]) -> None:
        """Build a directory as a disk might hold it now."""
        (to / "journal").mkdir(parents=True, mode=0o700)
        to.chmod(0o700)
        shutil.copyfile(self.location / "data.mdb", to / "data.mdb")
        there = {path.name for path in self.directory.iterdir()}
        for name in there | self.names:
            if not name.isdigit() or ((name in there) != (name in self.names) and chance.random() < 0.5):
                continue  # a name that was made, or removed, and not flushed
            (to / "journal" / name).write_bytes(self.held[name].image(chance))
        heads = [*heads, (self.directory / HEAD).read_bytes()]
        kind = chance.choice(["new", "new", "old", "zero", "missing"])
        if kind != "missing":
            content = {"new": heads[-1], "old": chance.choice(heads), "zero": bytes(len(heads[-1]))}[kind]
            (to / "journal" / HEAD).write_bytes(content)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """No worker: the test does its work, so that one seed is one history. Returns a function that reboots."""
    boots = iter(range(1, 1 << 30))
    boot = [(9, 0)]
    shrink(monkeypatch.setattr)
    monkeypatch.setattr(LocalStorage, "_wake", lambda storage: None)
    monkeypatch.setattr(journal, "boot_id", lambda: boot[0])

    def reboot() -> None:
        boot[0] = (9, next(boots))

    return reboot


class History:
    """One machine between two power losses: commits, flushes and folds, and images at random moments."""

    def __init__(self, location: Path, mode: str, chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self.location, self.mode, self.chance = location, mode, chance
        self.images: list[tuple[Path, int, int]] = []  # where, at least so many commits, at most so many
        self.safe = self.tried = 0
        self.heads: list[bytes] = []
        self.disk = Disk(location)
        self.monkeypatch = monkeypatch

    def run(self, images: int) -> None:
        chance = self.chance
        storage = LocalStorage(self.location, synchronous=self.mode, files=self.disk)  # type: ignore[arg-type]
        self.safe = self.tried = n = checked(storage)
        odds = chance.choice([0.01, 0.05, 0.2])

        def maybe() -> None:
            if len(self.images) < images and chance.random() < odds:
                to = self.location.parent / f"{self.location.name}.{len(self.images)}"
                self.disk.image(to, chance, self.heads)
                self.images.append((to, self.safe, self.tried))

        fold, remove = LmdbStorage.fold, JournalFiles.remove

        def folding(*args) -> None:
            maybe()
            fold(*args)
            maybe()

        def removing(*args) -> None:
            maybe()
            remove(*args)
            maybe()

        with self.monkeypatch.context() as patch:
            patch.setattr(LmdbStorage, "fold", folding)
            patch.setattr(JournalFiles, "remove", removing)
            self.disk.at_any_time = maybe
            while len(self.images) < images:
                n += 1
                self.tried = n
                storage.commit(*batch_of(n))
                if self.mode == "full":
                    self.safe = n
                if chance.random() < 0.05:
                    storage.flush()
                    self.safe = n
                if chance.random() < 0.1:
                    storage._fold()
                if chance.random() < 0.2:
                    self.heads.append((self.disk.directory / HEAD).read_bytes())
                maybe()
        self.disk.at_any_time = lambda: None
        storage.close()


@pytest.mark.parametrize("part", range(5 * DEEP))
@pytest.mark.parametrize("mode", ["full", "normal"])
def test_what_was_flushed_is_there_and_the_rest_is_a_prefix(tmp_path, monkeypatch, machine, mode, part):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    location = tmp_path / "log"
    problems = []
    for _ in range(EPOCHS):
        history = History(location, mode, chance, monkeypatch)
        history.run(IMAGES)
        survivor = None
        for where, safe, tried in history.images:
            machine()
            try:
                storage = LocalStorage(where, synchronous=mode)
                try:
                    assert safe <= checked(storage) <= tried
                    assert go_on(storage, chance.randrange(4)) == checked(storage)
                finally:
                    storage.close()
                last = count(storage := LocalStorage(where, synchronous=mode))
                assert go_on(storage) == last + 1 == checked(storage)
                storage.close()
                machine()  # an orderly reboot of what was recovered
                storage = LocalStorage(where, synchronous=mode)
                assert checked(storage) == last + 1
                storage.close()
            except (AssertionError, EventLogError) as error:
                problems.append(f"{where.name}: {type(error).__name__} {str(error)[:300]}")
            else:
                survivor = where
        machine()
        if survivor is None:
            break
        location = survivor
    assert not problems, f"{len(problems)} of {EPOCHS * IMAGES}:\n" + "\n".join(problems)


def filled(location: Path, commits: int = 60, mode: str = "full") -> None:
    storage = LocalStorage(location, synchronous=mode)  # type: ignore[arg-type]
    go_on(storage, commits)
    storage.close()


@pytest.mark.parametrize("offset", range(16))
def test_a_damaged_byte_before_the_flushed_position_is_said(tmp_path, machine, offset):
    filled(tmp_path / "log")
    path = max((tmp_path / "log" / "journal").glob("0*"))
    paths = sorted((tmp_path / "log" / "journal").glob("0*"))
    path = paths[offset % len(paths)]
    content = bytearray(path.read_bytes())
    at = offset * 97 % len(content.rstrip(b"\0"))  # what lies behind is room for more
    content[at] ^= 1 << offset % 8
    path.write_bytes(content)
    machine()
    for _ in range(2):
        with pytest.raises(CorruptionError, match=path.name):
            LocalStorage(tmp_path / "log")
    with pytest.raises(CorruptionError, match=path.name):
        LocalStorage(tmp_path / "log", readonly=True)
    assert path.read_bytes() == content, "nothing may be cut"


def test_a_file_cut_short_or_missing_before_the_flushed_position_is_said(tmp_path, machine):
    filled(tmp_path / "log")
    for number, path in enumerate(sorted((tmp_path / "log" / "journal").glob("0*"))):
        for kind in ("cut", "missing"):
            copy = tmp_path / f"{number}-{kind}"
            shutil.copytree(tmp_path / "log", copy, ignore=shutil.ignore_patterns("lock.mdb"))
            if kind == "missing":
                (copy / "journal" / path.name).unlink()
            else:
                (copy / "journal" / path.name).write_bytes(path.read_bytes().rstrip(b"\0")[:-1])
            machine()
            with pytest.raises(CorruptionError, match=path.name):
                LocalStorage(copy)


def test_damage_in_the_journal_is_found_without_a_reboot_too(tmp_path):
    filled(tmp_path / "log")
    path = min((tmp_path / "log" / "journal").glob("0*"))
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match=path.name):
        checked(LocalStorage(tmp_path / "log"))


def test_the_directories_are_flushed_before_the_first_acknowledgement(tmp_path):
    """Else power loss may take the directory `journal` and all that was acknowledged in it, and nobody would know."""
    flushed = []

    class Files(LocalFiles):
        def sync_directory(self, path: Path) -> None:
            flushed.append(path)
            super().sync_directory(path)

    storage = LocalStorage(tmp_path / "log", synchronous="full", files=Files())
    go_on(storage)
    storage.close()
    assert {tmp_path / "log" / "journal", tmp_path / "log", tmp_path} <= set(flushed)


def test_sealed_and_then_shut_down_before_the_next_file_was_made(tmp_path, machine, monkeypatch):
    """What a kill between the two steps of sealing leaves, or a disk that lost the new file's name."""
    storage = LocalStorage(tmp_path / "log", synchronous="full")
    with monkeypatch.context() as patch:
        patch.setattr(JournalFiles, "create", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with suppress(KeyboardInterrupt):
            go_on(storage, 100)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "log", copy, ignore=shutil.ignore_patterns("lock.mdb"))
    n = count(storage)
    machine()
    again = LocalStorage(copy, synchronous="full")
    assert checked(again) == n
    assert go_on(again, 3) == checked(again)
    again.close()
    machine()
    assert checked(LocalStorage(copy)) == n + 3


def test_what_one_unfinished_write_left_never_comes_back(tmp_path, machine, monkeypatch):
    """ "off" writes many batches at once. Killed before the end moves, the next writer overwrites the first of them
    with one of its own of the same length; the ones behind it must not become part of the log after a reboot."""
    off = LocalStorage(tmp_path / "log", synchronous="off")
    off.commit([(b"\x0aa", b"of the dead 1")])
    off.commit([(b"\x0ab", b"of the dead 2")])

    class Frozen:  # the process dies after the write and before the header's end moves
        def __init__(self, words: memoryview) -> None:
            self.words = words

        def __getitem__(self, at: int) -> int:
            return self.words[at]

        def __setitem__(self, at: int, word: int) -> None:
            raise KeyboardInterrupt

    words = off._words
    off._words = Frozen(words)  # type: ignore[assignment]
    with suppress(KeyboardInterrupt):
        off.flush()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "log", copy, ignore=shutil.ignore_patterns("lock.mdb"))
    writer = LocalStorage(copy, synchronous="full")
    assert writer.get([b"\x0aa", b"\x0ab"]) == [None, None]
    writer.commit([(b"\x0aa", b"of the live 1")], expect={b"\x0ab": None})
    writer.close()
    machine()
    assert LocalStorage(copy).get([b"\x0aa", b"\x0ab"]) == [b"of the live 1", None]


def test_the_bytes_of_a_batch_count_only_where_they_were_written():
    """So neither what a value holds, nor what an older file left where a new one lies now, is taken for a commit."""
    written = batch(b"body", position(3, 64))
    assert [body for body, _ in whole_batches(written, position(3, 64))] == [b"body"]
    for elsewhere in (position(3, 80), position(4, 64), position(3, 0)):
        assert not list(whole_batches(written, elsewhere))


def test_a_reader_that_opened_after_a_reboot_follows_the_first_writer(tmp_path, machine):
    filled(tmp_path / "log", 10)
    machine()
    reader = LocalStorage(tmp_path / "log", readonly=True)
    assert checked(reader) == 10
    writer = LocalStorage(tmp_path / "log")
    assert go_on(writer) == checked(writer)
    assert checked(reader) == 11
    writer.close()
    reader.close()


def test_after_a_failed_flush_what_is_acknowledged_later_survives(tmp_path, machine):
    """Linux reports a failed flush once, and drops the bytes: the next flush of the file succeeds without them."""
    location = tmp_path / "log"
    disk = Disk(location)
    storage = LocalStorage(location, synchronous="full", files=disk)
    go_on(storage, 5)

    def failing(fd: int) -> None:
        held = disk.held[disk.by_fd[fd]]
        at, data = held.unsafe.pop()
        held.unsafe.append((at, bytes(len(data or b""))))
        held.sync()
        raise OSError(5, "Input/output error")

    disk.sync = failing  # type: ignore[method-assign]
    with pytest.raises(EventLogError):
        go_on(storage)
    del disk.sync
    with suppress(EventLogError):
        storage.close()
    storage = LocalStorage(location, synchronous="full", files=disk)
    acknowledged = go_on(storage, 3)
    disk.image(tmp_path / "image", random.Random(1), [])
    storage.close()
    machine()
    assert checked(LocalStorage(tmp_path / "image")) >= acknowledged
