"""Segments: an ancestor is found in few reads, whatever the depth."""

from __future__ import annotations

import math
import random

import pytest

from eventlog import CorruptionError, EventLogError, NotFoundError
from eventlog.layout import EVENT, place_of, segment_key
from eventlog.lineage import Lineage, Segment, root, segment_record
from eventlog.storage.memory import MemoryStorage
from tests.counting import CountingStorage, patience

RUN = 7
DEPTH = 2000


def chain(depth: int, events_each: int = 1, first_step: int = 0, gap: int = 1) -> CountingStorage:
    """Segment n is forked from the last event of segment n - 1."""
    storage = CountingStorage(MemoryStorage())
    lineage = Lineage(storage, RUN)
    segment = root("main", ("r",), 0, "msgpack/1")
    storage.commit([segment_record(RUN, segment)])
    seq, step = events_each - 1, first_step + gap * (events_each - 1)
    for number in range(1, depth + 1):
        segment = lineage.forked(number, f"b{number}", (number - 1, seq, step, bytes(16)))
        storage.commit([segment_record(RUN, segment)])
        seq, step = seq + events_each, step + gap * events_each
    return storage


@pytest.fixture(scope="module")
def deep() -> CountingStorage:
    return chain(DEPTH)


def fresh(storage: CountingStorage) -> Lineage:
    return Lineage(storage, RUN)


LOGARITHMIC = 3 * math.ceil(math.log2(DEPTH)) + 3


class TestJumps:
    def test_every_ancestor_in_logarithmically_many_reads(self, deep: CountingStorage) -> None:
        for seq in [*range(0, DEPTH, 37), DEPTH - 1, DEPTH]:
            with deep.counted() as tally:
                found = fresh(deep).holding(DEPTH, seq)
            assert found.number == seq
            assert tally.reads <= LOGARITHMIC, (seq, tally.reads)

    def test_every_step_in_logarithmically_many_reads(self, deep: CountingStorage) -> None:
        for step in [*range(0, DEPTH, 41), DEPTH - 1, DEPTH]:
            with deep.counted() as tally:
                segment, last = fresh(deep).holding_step(DEPTH, step)
            assert segment.number == step
            assert last == (None if step == DEPTH else step)
            assert tally.reads <= LOGARITHMIC, (step, tally.reads)

    def test_forking_reads_few_segments(self, deep: CountingStorage) -> None:
        with deep.counted() as tally:
            fresh(deep).forked(DEPTH + 1, "new", (DEPTH, DEPTH, DEPTH, bytes(16)))
        assert tally.reads <= 4

    def test_jumps_lead_to_ancestors_and_say_where_they_are_left(self) -> None:
        rng = random.Random(3)
        storage = CountingStorage(MemoryStorage())
        lineage = Lineage(storage, RUN)
        segments: list[Segment] = [root("main", ("r",), 0, "c")]
        last = {0: 9}
        storage.commit([segment_record(RUN, segments[0])])
        for number in range(1, 300):
            parent = segments[max(0, number - 1 - rng.randrange(4))]
            seq = rng.randint(max(parent.base_seq + 1, 0), last[parent.number])
            segment = lineage.forked(number, f"b{number}", (parent.number, seq, seq * 10, bytes(16)))
            storage.commit([segment_record(RUN, segment)])
            segments.append(segment)
            last[number] = seq + rng.randint(1, 5)
        for segment in segments:
            home = {}  # what a walk from parent to parent says
            number, end = segment.number, last[segment.number]
            while True:
                base = segments[number].base_seq
                home.update(dict.fromkeys(range(base + 1, end + 1), number))
                if base < 0:
                    break
                number, end = segments[number].parent, base
            for seq, wanted in home.items():
                assert fresh(storage).holding(segment.number, seq).number == wanted
                held, _ = fresh(storage).holding_step(segment.number, seq * 10)
                assert held.number == wanted
            stretches = fresh(storage).stretches(segment.number, last[segment.number])
            walked = {seq: held.number for held, first, end in stretches for seq in range(first, end + 1)}
            assert walked == home
            assert [first for _, first, _ in stretches] == sorted(first for _, first, _ in stretches)


class TestSteps:
    @pytest.mark.parametrize("first_step", [-5, -1, 0, 3])
    def test_a_step_before_the_first_belongs_to_the_first_segment(self, first_step: int) -> None:
        storage = chain(3, 2, first_step)
        with patience():
            for step in (first_step - 10, first_step - 1, first_step, first_step + 1):
                segment, last = fresh(storage).holding_step(3, step)
                assert segment.number == 0
                assert last == 1

    @pytest.mark.parametrize("step", [-(1 << 61), -2, -1])
    def test_negative_steps_end(self, step: int) -> None:
        storage = chain(0)
        with patience():
            segment, last = fresh(storage).holding_step(0, step)
        assert (segment.number, last) == (0, None)


class TestRecords:
    def test_a_segment_reads_as_it_was_written(self, deep: CountingStorage) -> None:
        segments = list(fresh(deep).all())
        assert [segment.number for segment in segments] == list(range(DEPTH + 1))
        assert segments[0].origin == [["r"], 0, "msgpack/1"]
        assert segments[5] == fresh(deep).segment(5)

    def test_a_missing_one_is_not_found(self, deep: CountingStorage) -> None:
        with pytest.raises(NotFoundError):
            fresh(deep).segment(DEPTH + 5)

    def test_a_damaged_one_is_named(self) -> None:
        storage = chain(1)
        key = segment_key(RUN, 1)
        record = bytearray(storage.get([key])[0] or b"")
        record[-1] ^= 1
        storage.commit([(key, bytes(record))])
        with pytest.raises(CorruptionError, match="segment"):
            fresh(storage).segment(1)
        with pytest.raises(EventLogError):
            list(fresh(storage).all())

    def test_ranges_are_in_the_order_of_history(self) -> None:
        storage = chain(4, 3)
        ranges = fresh(storage).ranges(EVENT, 4, 13, 2)
        assert [place_of(start) for start, _ in ranges] == [(0, 2), (1, 3), (2, 6), (3, 9), (4, 12)]
        assert [place_of(end) for _, end in ranges] == [(0, 3), (1, 6), (2, 9), (3, 12), (4, 14)]

    def test_the_next_number_is_free(self) -> None:
        storage = chain(4)
        assert fresh(storage).next_number() == 5
        assert Lineage(CountingStorage(MemoryStorage()), RUN).next_number() == 0
