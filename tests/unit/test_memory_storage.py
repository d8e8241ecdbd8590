"""What is peculiar to the storage that lives in memory: nothing but its own care makes a commit one."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from eventlog.storage.memory import MemoryStorage
from tests.counting import everything, interrupted_at
from tests.crash.test_processes import in_child

STEPS = {"_put", "_delete", "_finish"}


def filled() -> MemoryStorage:
    storage = MemoryStorage()
    storage.commit([(b"E%d" % n, b"old") for n in range(1, 9, 2)])
    return storage


def test_a_commit_that_is_interrupted_anywhere_is_there_whole_or_not_at_all():
    puts, deletes = [(b"E2", b"new"), (b"E5", b"new"), (b"E9", b"new"), (b"Z", b"new")], [b"E1", b"E7"]
    for line in count(1):
        storage = filled()
        before = everything(storage)
        after = {key: value for key, value in before.items() if key not in deletes} | dict(puts)
        if not interrupted_at(line, STEPS, lambda: storage.commit(puts, deletes)):  # noqa: B023 (at once)
            break
        found = everything(storage)
        assert found in (before, after), line
        assert storage.get([b"E1", b"E2"]) == [found.get(b"E1"), found.get(b"E2")]
        assert [key for _, key in storage.feed()][4:] == ([b"E2", b"E5", b"E9"] if found == after else [])
        storage.commit([(b"E3", b"more"), (b"E4", b"more")], [b"E2"])
        assert everything(storage) == {key: value for key, value in found.items() if key != b"E2"} | {
            b"E3": b"more",
            b"E4": b"more",
        }
    assert line > len(puts) + len(deletes)


def test_what_is_fed_is_fed_when_it_is_read_next():
    storage, line = filled(), 1
    while interrupted_at(line, STEPS, lambda: storage.commit([(b"E9%d" % line, b"")])):  # noqa: B023 (at once)
        line += 1
    keys = [key for _, key in storage.feed()]
    assert len(keys) == len(set(keys))
    assert sorted(keys) == [key for key, _ in storage.scan([(b"E", b"F")])]


class _Asked:
    """A lock that tells when somebody asks for it in words, as only who forks does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_asked = threading.Event()
        self.release = self._lock.release

    def acquire(self) -> bool:
        self.is_asked.set()
        return self._lock.acquire()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_finds_whole_what_another_thread_commits(monkeypatch: pytest.MonkeyPatch):
    storage, lock, is_within = filled(), _Asked(), threading.Event()
    storage._lock = lock
    put = storage._put

    def slow_put(key: bytes, value: bytes) -> None:
        put(key, value)
        is_within.set()
        lock.is_asked.wait(60.0)

    monkeypatch.setattr(storage, "_put", slow_put)
    thread = threading.Thread(target=storage.commit, args=([(b"E2", b"new"), (b"Z", b"new")],))
    thread.start()
    assert is_within.wait(60.0)
    try:
        assert in_child(lambda: storage.get([b"E2", b"Z"]), 20.0) == str([b"new", b"new"])
    finally:
        lock.is_asked.set()
        thread.join(60.0)
    assert storage.get([b"E2", b"Z"]) == [b"new", b"new"]
