"""What every storage engine promises of its feed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventlog import EventLog
from eventlog.errors import ClosedError, InvalidInputError
from eventlog.storage.base import FED

MANY = 1000  # more than any engine reads at once


def numbered(run, n):
    return FED + run.to_bytes(8, "big") + bytes(4) + n.to_bytes(8, "big")


def put(storage, *keys, deletes=()):
    storage.commit([(key, b"value") for key in keys], deletes)


def fed(storage, after=b"", limit=None):
    return [key for _, key in storage.feed(after, limit=limit)]


class TestFeed:
    def test_gives_the_keys_of_its_kind_in_the_order_of_commits(self, storage):
        assert fed(storage) == []
        put(storage, numbered(9, 0), b"H1")
        put(storage, numbered(1, 1), numbered(1, 0))
        put(storage, b"A", b"F")
        put(storage, numbered(9, 1), numbered(2, 5))
        put(storage, FED, FED + b"short", FED + b"\xff" * 20)
        assert fed(storage) == [
            *(numbered(9, 0), numbered(1, 0), numbered(1, 1), numbered(2, 5), numbered(9, 1)),
            *(FED, FED + b"short", FED + b"\xff" * 20),
        ]

    def test_goes_on_after_any_position(self, storage):
        keys = [numbered(n % 3, n // 3) for n in range(MANY)]
        for begin in range(0, MANY, 10):
            put(storage, *keys[begin : begin + 10])
        whole = list(storage.feed())
        assert sorted(key for _, key in whole) == sorted(keys)
        assert all(0 < len(position) <= 64 for position, _ in whole)
        for index in (0, 1, 255, 256, 257, 500, MANY - 2, MANY - 1):
            assert list(storage.feed(whole[index][0])) == whole[index + 1 :]
        assert list(storage.feed(limit=7)) == whole[:7]
        assert list(storage.feed(whole[3][0], limit=7)) == whole[4:11]
        assert list(storage.feed(limit=0)) == []
        put(storage, numbered(7, 7))
        assert fed(storage, whole[-1][0]) == [numbered(7, 7)]

    def test_what_was_put_is_fed_though_other_keys_of_its_commit_were_deleted(self, storage):
        put(storage, numbered(1, 0), b"H")
        put(storage, numbered(1, 1), deletes=[b"H", numbered(1, 0)])
        assert [key for key in fed(storage) if key != numbered(1, 0)] == [numbered(1, 1)]

    def test_a_position_before_what_was_deleted_stays_one(self, storage):
        for n in range(10):
            put(storage, numbered(1, n))
        position = list(storage.feed(limit=4))[-1][0]
        put(storage, deletes=[numbered(1, n) for n in range(10)])
        put(storage, numbered(2, 0))
        assert fed(storage, position)[-1] == numbered(2, 0)
        assert set(fed(storage, position)) <= {numbered(2, 0), *(numbered(1, n) for n in range(4, 10))}

    @pytest.mark.parametrize("position", [b"x", b"\0" * 65, b"\0" * 15 + b"\x09", b"\xff" * 16], ids=len)
    def test_a_position_of_nobody_is_refused(self, storage, position):
        put(storage, numbered(1, 0))
        with pytest.raises(InvalidInputError):
            list(storage.feed(position))

    def test_a_position_of_another_log_is_refused(self, every_engine):
        logs = [*every_engine().values(), *every_engine().values()]
        for storage in logs:
            put(storage, numbered(1, 0))
            put(storage, numbered(1, 1))
        positions = [next(storage.feed())[0] for storage in logs]
        for mine, storage in enumerate(logs):
            for whose, position in enumerate(positions):
                if whose == mine:
                    assert fed(storage, position) == [numbered(1, 1)]
                else:
                    with pytest.raises(InvalidInputError, match="no position"):
                        list(storage.feed(position))

    def test_is_lazy(self, storage):
        for n in range(MANY):
            put(storage, numbered(1, n))
        feed = storage.feed()
        next(feed)
        put(storage, b"A")  # nothing is held
        assert sum(1 for _ in feed) >= MANY - 1

    def test_a_closed_storage_feeds_nothing(self, storage):
        storage.close()
        with pytest.raises(ClosedError):
            list(storage.feed())

    def test_a_reader_beside_many_writers_misses_and_repeats_nothing(self, storage):
        done = threading.Event()

        def write(run):
            shuffle = random.Random(run)
            n = 0
            while n < 200:
                size = shuffle.choice([1, 1, 1, 5])
                put(storage, *(numbered(run, n + index) for index in range(size)), b"H%d" % run)
                n += size
            return n

        def follow(seed):
            shuffle, position, seen = random.Random(seed), b"", []
            while True:
                was_done = done.is_set()
                found = list(storage.feed(position, limit=shuffle.choice([None, 1, 7, 300])))
                seen += [key for _, key in found]
                position = found[-1][0] if found else position
                if was_done and not found:
                    return seen

        with ThreadPoolExecutor(6) as pool:
            following = [pool.submit(follow, seed) for seed in range(2)]
            counts = list(pool.map(write, range(4)))
            done.set()
            first, second = (each.result() for each in following)
        assert first == second == fed(storage)
        for run, count in enumerate(counts):
            assert [key for key in first if key[:9] == numbered(run, 0)[:9]] == [numbered(run, n) for n in range(count)]


def test_positions_outlive_handles(reopen):
    storage = reopen()
    expected = []
    position, seen = b"", []
    for turn in range(4):
        for n in range(50):
            put(storage, numbered(n % 2, 100 * turn + n))
            expected.append(numbered(n % 2, 100 * turn + n))
        found = list(storage.feed(position, limit=30))
        seen += [key for _, key in found]
        position = found[-1][0]
        storage.close()
        storage = reopen()
    assert seen + fed(storage, position) == expected == fed(storage)


# --- the feed of a log ------------------------------------------------------------------------------------------------


@pytest.fixture
def log(storage):
    return EventLog(storage)


def told(feed):
    return [(fed.run, fed.event.branch, fed.event.step) for fed in feed]


def test_a_log_feeds_the_events_of_all_runs_and_branches(log):
    a, b = log.run("a"), log.run(("b", "inner"))
    a.append({"x": 1})
    b.append({"y": 1})
    a.append({"x": 2})
    a.fork(name="other").append({"x": 3})
    b.append_many([{"y": 2}, {"y": 3}])
    found = list(log.feed())
    assert told(found) == [
        ("a", "main", 0),
        (("b", "inner"), "main", 0),
        ("a", "main", 1),
        ("a", "other", 2),
        (("b", "inner"), "main", 1),
        (("b", "inner"), "main", 2),
    ]
    assert [dict(fed.event.writes) for fed in found[:4]] == [{"x": 1}, {"y": 1}, {"x": 2}, {"x": 3}]
    assert all(fed.position.isalnum() for fed in found)
    for index, fed in enumerate(found):
        assert list(log.feed(fed.position)) == found[index + 1 :]
    assert list(log.feed(limit=2)) == found[:2]


def test_the_feed_leaves_out_what_is_deleted(log):
    a, b = log.run("a"), log.run("b")
    a.append({"x": 1})
    b.append({"x": 1})
    log.copy("b", "c")
    log.run("c").append({"x": 2})
    assert told(log.feed()) == [("a", "main", 0), ("b", "main", 0), ("c", "main", 1)]
    position = next(log.feed()).position
    log.delete("a")
    log.delete("b")
    log.run("a").append({"x": 9})
    assert told(log.feed(position)) == [("c", "main", 1), ("a", "main", 0)]


def test_a_feed_refuses_what_is_no_position(log):
    log.run("a").append({"x": 1})
    for position in ("what", "12", "ff" * 16, 7):
        with pytest.raises(InvalidInputError):
            list(log.feed(position))
    with pytest.raises(InvalidInputError):
        log.feed(limit=-1)


def test_a_follower_of_a_log_misses_and_repeats_nothing(storage):
    log = EventLog(storage)
    done = threading.Event()

    def write(name):
        run = EventLog(storage).run(name)
        for step in range(60):
            run.append({"n": step})

    def follow():
        position, seen = None, []
        while True:
            was_done = done.is_set()
            found = list(log.feed(position, limit=random.choice([None, 1, 20])))
            seen += [(fed.run, fed.event.step) for fed in found]
            position = found[-1].position if found else position
            if was_done and not found:
                return seen

    with ThreadPoolExecutor(5) as pool:
        following = pool.submit(follow)
        list(pool.map(write, ["a", "b", "c"]))
        done.set()
        seen = following.result()
    assert len(seen) == 180
    for name in "abc":
        assert [step for run, step in seen if run == name] == list(range(60))
