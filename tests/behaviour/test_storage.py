"""What every storage engine promises: each sentence of ``Storage``'s docstrings, over every engine."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventlog.errors import ClosedError, ExpectationError, InvalidInputError
from tests.engines import DEEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventlog.storage import Storage

    Range = tuple[bytes, bytes]

A, B = b"\x0a", b"\x0b"
ALL_A, ALL_B = (A, B), (B, b"\x0c")
LONGEST = A + b"k" * 510
MANY = 1000  # more than any engine reads at once


def numbered(count: int, kind: bytes = A) -> list[tuple[bytes, bytes]]:
    return [(kind + n.to_bytes(4, "big"), b"value %d" % n) for n in range(count)]


def stored(storage: Storage, *ranges: Range, reverse: bool = False, limit: int | None = None) -> list:
    return list(storage.scan(ranges or [ALL_A], reverse=reverse, limit=limit))


class TestGet:
    def test_values_come_in_the_order_asked_and_none_where_absent(self, storage):
        storage.commit([(A + b"1", b"one"), (A + b"2", b"two"), (B + b"1", b"b")])
        keys = [A + b"2", A + b"absent", B + b"1", A + b"1", A + b"2", b"\xffnever"]
        assert storage.get(keys) == [b"two", None, b"b", b"one", b"two", None]

    def test_no_keys_no_values(self, storage):
        assert storage.get([]) == []

    def test_all_values_are_from_one_moment(self, storage):
        keys = [A + b"1", B + b"1", b"\x7f1"]
        storage.commit([(key, b"0") for key in keys])
        stop = threading.Event()

        def write():
            n = 0
            while not stop.is_set():
                n += 1
                storage.commit([(key, b"%d" % n) for key in keys])

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            seen = [storage.get(keys) for _ in range(2000)]
            stop.set()
            writing.result()
        assert all(len(set(values)) == 1 for values in seen)


class TestKeysAndValues:
    def test_any_key_of_1_to_511_bytes(self, storage):
        for key in (
            A,
            A + b"\0",
            A + b"\0\0",
            LONGEST,
            A + b"\0" * 510,
            A + b"\xff" * 510,
            b"\0",
            b"\0\0",
            b"\xff" * 511,
            b"\xff",
        ):
            storage.commit([(key, b"here")], expect={key: None})
            assert storage.get([key]) == [b"here"]
            end = key + b"\0"
            assert stored(storage, (key, end)) == stored(storage, (key, end), reverse=True) == [(key, b"here")]
            storage.commit([], [key], expect={key: b"here"})
            assert storage.get([key]) == [None]

    def test_keys_of_nul_stand_in_byte_order_among_others(self, storage):
        rests = [b"", b"\0", b"\0\0", b"\0\0\0", b"\0\0\1", b"\0\1", b"\0\1\0", b"\1", b"\1\0"]
        storage.commit([(A + rest, rest) for rest in reversed(rests)])
        assert [value for _, value in stored(storage)] == rests
        assert [value for _, value in stored(storage, reverse=True)] == rests[::-1]
        for low, start in enumerate(rests):
            for high, end in enumerate(rests):
                assert [value for _, value in stored(storage, (A + start, A + end))] == rests[low:high]

    @pytest.mark.parametrize("key", [b"", b"k" * 512], ids=["empty", "too long"])
    def test_other_keys_are_refused_and_nothing_is_written(self, storage, key):
        for call in (
            lambda: storage.get([key]),
            lambda: storage.commit([(A, b"x"), (key, b"")]),
            lambda: storage.commit([(A, b"x")], [key]),
            lambda: storage.commit([(A, b"x")], expect={key: None}),
        ):
            with pytest.raises(InvalidInputError, match="1 to 511 bytes"):
                call()
        assert stored(storage) == []

    def test_an_empty_value_is_not_an_absent_one(self, storage):
        storage.commit([(A + b"empty", b"")])
        assert storage.get([A + b"empty", A + b"absent"]) == [b"", None]
        assert stored(storage) == [(A + b"empty", b"")]
        with pytest.raises(ExpectationError):
            storage.commit([], expect={A + b"empty": None})
        with pytest.raises(ExpectationError):
            storage.commit([], expect={A + b"absent": b""})

    def test_large_values(self, storage):
        values = [random.Random(n).randbytes(5_000_000) for n in range(3)]
        storage.commit([(A + bytes([n]), value) for n, value in enumerate(values)])
        assert storage.get([A + b"\1"]) == [values[1]]
        assert [value for _, value in storage.scan([ALL_A])] == values
        assert storage.size_bytes() >= 15_000_000

    def test_kinds_do_not_touch(self, storage):
        storage.commit([(kind + b"same", kind) for kind in (A, B, b"\0", b"\xff")])
        storage.commit([], [A + b"same"])
        assert storage.get([A + b"same", B + b"same", b"\0same", b"\xffsame"]) == [None, B, b"\0", b"\xff"]
        assert stored(storage, ALL_A) == []
        assert stored(storage, ALL_B) == [(B + b"same", B)]


class TestScan:
    def test_start_is_in_and_end_is_out_in_key_order(self, storage):
        pairs = numbered(10)
        storage.commit(list(reversed(pairs)))
        assert stored(storage, (pairs[2][0], pairs[7][0])) == pairs[2:7]
        assert stored(storage, (pairs[2][0], pairs[7][0]), reverse=True) == pairs[2:7][::-1]

    def test_bounds_need_not_be_keys(self, storage):
        pairs = numbered(10)
        storage.commit(pairs)
        bounds = (pairs[2][0] + b"x", pairs[7][0] + b"x")
        assert stored(storage, bounds) == pairs[3:8]
        assert stored(storage, bounds, reverse=True) == pairs[3:8][::-1]
        assert stored(storage, (A, A + b"\xff" * 600)) == pairs

    def test_an_empty_or_reversed_range_is_empty(self, storage):
        storage.commit([(A + b"5", b""), (B + b"2", b"")])
        for bounds in ((A + b"5", A + b"5"), (A + b"6", A + b"5"), (B, A), (B + b"1", A + b"9")):
            assert stored(storage, bounds) == stored(storage, bounds, reverse=True) == []

    def test_no_ranges_no_pairs(self, storage):
        storage.commit(numbered(3))
        assert list(storage.scan([])) == []

    def test_many_pairs(self, storage):
        pairs = numbered(MANY)
        storage.commit(pairs)
        assert stored(storage) == pairs
        assert stored(storage, reverse=True) == pairs[::-1]

    @pytest.mark.parametrize("reverse", [False, True])
    def test_range_after_range_in_the_order_given(self, storage, reverse):
        a, b = numbered(MANY, A), numbered(MANY, B)
        storage.commit(a + b)
        ranges = [ALL_B, (a[5][0], a[9][0]), (a[3][0], a[3][0]), (a[7][0], a[600][0])]
        wanted = [b, a[5:9], [], a[7:600]]
        expected = [pair for part in wanted for pair in (reversed(part) if reverse else part)]
        assert stored(storage, *ranges, reverse=reverse) == expected

    def test_thousands_of_ranges(self, storage):
        pairs = numbered(MANY)
        storage.commit(pairs)
        ranges = [(key, key + b"\0") for key, _ in pairs] * 3
        assert stored(storage, *ranges) == pairs * 3

    @pytest.mark.parametrize("reverse", [False, True])
    def test_at_most_limit_pairs_in_all(self, storage, reverse):
        a, b = numbered(MANY, A), numbered(MANY, B)
        storage.commit(a + b)
        expected = a[::-1] + b[::-1] if reverse else a + b
        for limit in (0, 1, 255, 256, 257, 512, MANY - 1, MANY, MANY + 1, 2 * MANY, 5 * MANY):
            assert stored(storage, ALL_A, ALL_B, limit=limit, reverse=reverse) == expected[:limit]

    def test_it_is_lazy(self, storage):
        storage.commit(numbered(MANY))
        pairs = storage.scan([ALL_A])
        assert next(pairs) == numbered(1)[0]
        storage.commit([], [key for key, _ in numbered(MANY)][1:])
        assert len(list(pairs)) < MANY - 1

    @pytest.mark.parametrize("reverse", [False, True])
    def test_commits_between_two_items_neither_break_nor_repeat_it(self, storage, reverse):
        before = numbered(MANY)
        storage.commit(before)
        seen = []
        for pair in storage.scan([ALL_A], reverse=reverse):
            seen.append(pair)
            if pair[1] != b"between" and len(seen) % 5 == 0:
                storage.commit([(pair[0] + b"+", b"between"), (pair[0] + b"-", b"between")], [pair[0]])
        keys = [key for key, _ in seen]
        assert keys == sorted(set(keys), reverse=reverse)
        assert set(before) <= set(seen)

    def test_no_lock_is_held_between_two_items(self, storage):
        storage.commit(numbered(MANY))
        pairs = storage.scan([ALL_A])
        next(pairs)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(storage.commit, [(B, b"written")]).result(timeout=60)
        assert storage.get([B]) == [b"written"]
        assert next(pairs) == numbered(2)[1]

    def test_reading_goes_on_while_another_thread_writes(self, storage):
        storage.commit(numbered(MANY))
        stop = threading.Event()

        def write():
            n = MANY
            while not stop.is_set():
                storage.commit([(A + n.to_bytes(4, "big"), b"value %d" % n)])
                n += 1
            return n

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            scans = [stored(storage) for _ in range(30)]
            stop.set()
            written = writing.result()
        for pairs in scans:
            assert pairs == numbered(len(pairs))
        assert stored(storage) == numbered(written)

    def test_a_range_names_its_kind(self, storage):
        with pytest.raises(InvalidInputError, match="kind"):
            list(storage.scan([(b"", A)]))


class TestCommit:
    def test_puts_and_deletes_together(self, storage):
        storage.commit([(A + b"1", b"old"), (A + b"2", b"gone")])
        storage.commit([(A + b"1", b"new"), (A + b"3", b"born")], [A + b"2"])
        assert stored(storage) == [(A + b"1", b"new"), (A + b"3", b"born")]

    def test_absent_deletes_are_ignored(self, storage):
        storage.commit([(A, b"1")], [A + b"absent", b"\xfeno such kind"])
        assert stored(storage) == [(A, b"1")]

    def test_a_key_in_both_is_written_and_the_last_put_wins(self, storage):
        storage.commit([(A, b"old")])
        storage.commit([(A, b"first"), (A, b"last")], [A])
        assert storage.get([A]) == [b"last"]

    def test_an_empty_batch(self, storage):
        storage.commit([])
        assert stored(storage) == []

    def test_expectations_that_hold(self, storage):
        storage.commit([(A + b"head", b"1")])
        expect = {A + b"head": b"1", B + b"new": None, A + b"absent": None}
        storage.commit([(A + b"head", b"2"), (B + b"new", b"n")], expect=expect)
        assert storage.get([A + b"head", B + b"new", A + b"absent"]) == [b"2", b"n", None]

    @pytest.mark.parametrize("expect", [{A + b"1": b"other"}, {A + b"1": None}, {B + b"absent": b"1"}, {A + b"1": b""}])
    def test_one_that_differs_writes_nothing_and_is_named(self, storage, expect):
        storage.commit([(A + b"1", b"1"), (A + b"2", b"2")])
        with pytest.raises(ExpectationError) as raised:
            storage.commit([(A + b"3", b"3"), (B, b"")], [A + b"2"], {A + b"2": b"2", **expect})
        assert raised.value.keys == list(expect)
        assert stored(storage) == [(A + b"1", b"1"), (A + b"2", b"2")]
        assert storage.get([B]) == [None]
        storage.commit([(A + b"3", b"3")])  # the failure leaves the storage usable

    def test_all_that_differ_are_named(self, storage):
        storage.commit([(A + b"1", b"1"), (A + b"2", b"2")])
        with pytest.raises(ExpectationError) as raised:
            storage.commit([], expect={A + b"1": b"x", A + b"2": b"2", B: b"y"})
        assert sorted(raised.value.keys) == [A + b"1", B]

    def test_at_once_it_is_as_ever(self, storage):
        with storage.at_once():
            storage.commit([(A + b"1", b"one")], expect={A + b"1": None})
            with pytest.raises(ExpectationError):
                storage.commit([(A + b"1", b"two")], expect={A + b"1": None})
            assert stored(storage) == [(A + b"1", b"one")]
        storage.commit([(A + b"2", b"two")])
        assert stored(storage) == [(A + b"1", b"one"), (A + b"2", b"two")]

    def test_expectations_are_about_the_moment_before(self, storage):
        storage.commit([(A, b"1")], expect={A: None})
        with pytest.raises(ExpectationError):
            storage.commit([(A, b"2")], expect={A: b"2"})

    def test_of_many_threads_that_expect_the_same_exactly_one_wins(self, storage):
        threads, rounds = 8, 15
        barrier = threading.Barrier(threads)
        storage.commit([(A, b"0")])

        def compete(me: int) -> int:
            wins = 0
            for n in range(rounds):
                barrier.wait()
                head = b"%d" % n
                try:
                    storage.commit([(A, b"%d" % (n + 1)), (B + bytes([n, me]), b"won")], expect={A: head})
                    wins += 1
                except ExpectationError:
                    pass
                barrier.wait()
            return wins

        with ThreadPoolExecutor(threads) as pool:
            wins = list(pool.map(compete, range(threads)))
        assert sum(wins) == rounds
        assert storage.get([A]) == [b"%d" % rounds]
        assert [key[1] for key, _ in stored(storage, ALL_B)] == list(range(rounds))

    def test_threads_that_retry_lose_nothing(self, storage):
        def count(times: int) -> None:
            while times:
                (value,) = storage.get([A])
                try:
                    storage.commit([(A, b"%d" % (int(value or 0) + 1))], expect={A: value})
                    times -= 1
                except ExpectationError:
                    continue

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(count, [25] * 6))
        assert storage.get([A]) == [b"150"]


class TestPosition:
    def test_every_commit_changes_it_and_reading_does_not(self, storage):
        seen = [storage.position()]
        for n in range(5):
            storage.commit([(A + b"%d" % n, b"1")], [A + b"%d" % (n - 1)])
            seen.append(storage.position())
            assert stored(storage) == [(A + b"%d" % n, b"1")]
            storage.flush()
            assert storage.position() == seen[-1]
        assert seen == [None] * 6 or len(set(seen)) == 6

    def test_a_commit_by_another_handle_changes_it(self, reopen):
        one, other = reopen(), reopen()
        seen = [one.position()]
        for n in range(3):
            other.commit([(A + b"%d" % n, b"1")])
            seen.append(one.position())
            assert len(stored(one)) == n + 1
        assert seen == [None] * 4 or len(set(seen)) == 4


class TestLife:
    def test_location_is_for_people(self, storage):
        assert isinstance(storage.location, str)
        assert storage.location

    def test_size_grows_with_what_is_written(self, storage):
        before = storage.size_bytes()
        storage.commit([(A + bytes([n]), random.Random(n).randbytes(10_000)) for n in range(100)])
        assert storage.size_bytes() >= before + 1_000_000

    def test_flush_returns(self, storage):
        storage.commit([(A, b"1")])
        storage.flush()
        assert storage.get([A]) == [b"1"]

    def test_close_is_idempotent(self, storage):
        storage.close()
        storage.close()

    def test_use_after_close(self, storage):
        storage.close()
        for call in (
            lambda: storage.get([A]),
            lambda: list(storage.scan([ALL_A])),
            lambda: storage.commit([(A, b"")]),
            lambda: storage.commit([]),
            storage.flush,
            storage.size_bytes,
        ):
            with pytest.raises(ClosedError, match="open"):
                call()

    def test_closed_during_a_scan(self, storage):
        storage.commit(numbered(MANY))
        pairs = storage.scan([ALL_A])
        next(pairs)
        storage.close()
        with pytest.raises(ClosedError):
            list(pairs)


class TestReopen:
    def test_what_was_committed_is_there(self, reopen):
        storage = reopen()
        storage.commit([*numbered(MANY), (B, b"")], [A + b"absent"])
        storage.close()
        again = reopen()
        assert stored(again) == numbered(MANY)
        assert again.get([B]) == [b""]

    def test_two_handles_see_each_other(self, reopen):
        one, two = reopen(), reopen()
        one.commit([(A, b"1")])
        two.commit([(A, b"2")], expect={A: b"1"})
        assert one.get([A]) == [b"2"]
        one.close()
        two.commit([(A, b"3")])
        assert two.get([A]) == [b"3"]


# Every engine against a dict ------------------------------------------------------------------------------------

RESTS = st.one_of(
    st.lists(st.sampled_from([b"\0", b"\1", b"a", b"\xff"]), max_size=4).map(b"".join), st.just(b"\0" * 510)
)
KEYS = st.builds(bytes.__add__, st.sampled_from([b"\0", A, b"\xff"]), RESTS)
VALUES = st.sampled_from([b"", b"0", b"1", b"v" * 5000])
RANGES = st.tuples(KEYS, KEYS).map(lambda bounds: (bounds[0], bounds[0][:1] + bounds[1][1:]))
COMMITS = st.tuples(
    st.just("commit"),
    st.lists(st.tuples(KEYS, VALUES), max_size=8),
    st.lists(KEYS, max_size=3),
    st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=1),
)
SCANS = st.tuples(
    st.just("scan"),
    st.lists(RANGES, max_size=3),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 6)),
)
GETS = st.tuples(st.just("get"), st.lists(KEYS, max_size=5))


class Model:
    """The whole contract in a dict."""

    def __init__(self):
        self.pairs: dict[bytes, bytes] = {}

    def get(self, keys):
        return [self.pairs.get(key) for key in keys]

    def scan(self, ranges, reverse, limit):
        inside = lambda start, end: [pair for pair in self.pairs.items() if start <= pair[0] < end]
        found = [pair for start, end in ranges for pair in sorted(inside(start, end), reverse=reverse)]
        return found[:limit]

    def commit(self, puts, deletes, expect):
        differing = [key for key in expect if self.pairs.get(key) != expect[key]]
        if differing:
            return differing
        self.pairs = {key: value for key, value in self.pairs.items() if key not in deletes} | dict(puts)
        return None


def run(storage: Storage, name: str, *arguments):
    if name == "scan":
        ranges, reverse, limit = arguments
        return list(storage.scan(ranges, reverse=reverse, limit=limit))
    try:
        return getattr(storage, name)(*arguments)
    except ExpectationError as error:
        return error.keys


WIDE = [A + bytes([5]) * 7 + bytes([run]) + n.to_bytes(2, "big") for run in (1, 2) for n in range(60)]
"""Keys that share the beginning of an engine's own: a kind and a run."""


@pytest.mark.parametrize("is_log", [True, False], ids=["behind", "anywhere"])
@pytest.mark.parametrize("seed", range(4))
def test_what_lies_below_and_above_is_scanned_as_one(reopen, seed, is_log):
    """Closing brings what was committed down to where it stays; what is committed then lies above it."""
    rng, model = random.Random(seed), {}
    for session in range(3):
        storage = reopen()
        fresh = [key for key in WIDE if key[-1] // 20 == session] if is_log else WIDE
        for _ in range(30 * DEEP):
            put = [(key, b"%d" % rng.randrange(1000)) for key in rng.sample(fresh, rng.choice([1, 2, 20]))]
            gone = rng.sample(fresh if rng.random() < 0.8 else WIDE, rng.choice([0, 0, 1, 5]))
            storage.commit(put, gone)
            model = {key: value for key, value in model.items() if key not in gone} | dict(put)
            ranges = [
                tuple(sorted(rng.choices([*WIDE, *fresh, WIDE[0][:9], WIDE[-1] + b"\xff"], k=2))) for _ in range(2)
            ]
            for reverse, limit in (
                (False, None),
                (True, None),
                (True, 1),
                (rng.random() < 0.5, rng.choice([0, 3, 9, 32])),
            ):
                wanted = [
                    (key, model[key])
                    for start, end in ranges
                    for key in sorted(model, reverse=reverse)
                    if start <= key < end
                ]
                assert stored(storage, *ranges, reverse=reverse, limit=limit) == wanted[:limit]
            asked = rng.sample(WIDE, 7)
            assert storage.get(asked) == [model.get(key) for key in asked]
        storage.close()


def test_random_operations_do_what_a_dict_does(every_engine: Callable[[], dict[str, Storage]]):
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.one_of(COMMITS, COMMITS, SCANS, GETS), max_size=20))
    def check(operations):
        model, storages = Model(), every_engine()
        for name, *arguments in operations:
            expected = getattr(model, name)(*arguments)
            assert {engine: run(one, name, *arguments) for engine, one in storages.items()} == dict.fromkeys(
                storages, expected
            )
        for one in storages.values():
            one.close()

    check()
