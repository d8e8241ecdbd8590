"""Records: what was changed by accident is found, named and contained."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import CorruptionError, EventLog, EventLogError, Extend, FormatError, Merge, TaskWrite, layout
from eventlog.records import (
    ROOT_DIGEST,
    array,
    bodies,
    event_fields,
    event_record,
    payload_digest,
    read_event,
    scalar,
    seal,
    seal_fields,
    unseal,
    unseal_fields,
)
from eventlog.storage.memory import MemoryStorage
from tests.counting import everything

KEY = layout.event_key(1, 2, 3)
BODY = array([scalar(item) for item in (123, 4, "task", None, None, "a", 1, b"\x01")])


def flipped(record: bytes, bit: int) -> bytes:
    damaged = bytearray(record)
    bit %= len(record) * 8
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


class TestEvent:
    def test_reads_as_written(self) -> None:
        record, digest = event_record(KEY, ROOT_DIGEST, BODY)
        read, parent, body = read_event(KEY, record)
        assert (read, parent) == (digest, ROOT_DIGEST)
        assert tuple(body) == (123, 4, "task", None, None, ["a", 1, b"\x01"])

    def test_every_flipped_bit_is_found(self) -> None:
        record, _ = event_record(KEY, bytes(range(16)), BODY)
        for bit in range(len(record) * 8):
            with pytest.raises((CorruptionError, FormatError)):
                read_event(KEY, flipped(record, bit))

    def test_every_cut_is_found(self) -> None:
        record, _ = event_record(KEY, ROOT_DIGEST, BODY)
        for length in range(len(record)):
            with pytest.raises(CorruptionError):
                read_event(KEY, record[:length])

    def test_a_record_under_another_key_is_found(self) -> None:
        record, _ = event_record(KEY, ROOT_DIGEST, BODY)
        with pytest.raises(CorruptionError, match="segment 2, seq 4"):
            read_event(layout.event_key(1, 2, 4), record)

    def test_many_at_once_read_as_one_by_one(self) -> None:
        keys = [layout.event_key(1, 2, seq) for seq in range(100)]
        large = array([scalar(item) for item in (1, 2, None, None, None, "a", 1, bytes(1 << 15))])
        records = [event_record(key, ROOT_DIGEST, BODY if key[-1] % 7 else large)[0] for key in keys]
        one_by_one = [(key, record, event_fields(key, record)) for key, record in zip(keys, records, strict=True)]
        assert list(bodies(zip(keys, records, strict=True))) == one_by_one

    @pytest.mark.parametrize("body", [BODY, array([scalar(bytes(1 << 15))])])
    def test_a_damaged_one_among_many_is_found(self, body: bytes) -> None:
        keys = [layout.event_key(1, 2, seq) for seq in range(40)]
        records = [event_record(key, ROOT_DIGEST, body)[0] for key in keys]
        for damaged in (flipped(records[33], 200), flipped(records[33], len(records[33]) * 8 - 1), records[32], b""):
            with pytest.raises(CorruptionError, match="seq 33"):
                list(bodies(zip(keys, [*records[:33], damaged, *records[34:]], strict=True)))

    def test_the_parent_counts(self) -> None:
        assert event_record(KEY, ROOT_DIGEST, BODY)[1] != event_record(KEY, bytes(15) + b"\1", BODY)[1]

    def test_a_newer_format_says_so(self) -> None:
        with pytest.raises(FormatError, match=r"version 2.*upgrade"):
            read_event(KEY, b"\x02" + event_record(KEY, ROOT_DIGEST, BODY)[0][1:])


class TestSealed:
    @given(st.binary(max_size=40), st.binary(min_size=1, max_size=20))
    def test_reads_as_written_and_finds_flips(self, payload: bytes, key: bytes) -> None:
        record = seal(key, payload)
        assert unseal(key, record) == payload
        long = seal(key, payload * 10_000)
        assert unseal(key, long) == payload * 10_000
        for bit in range(len(record) * 8):
            with pytest.raises((CorruptionError, FormatError)):
                unseal(key, flipped(record, bit))
        with pytest.raises(CorruptionError):
            unseal(key + b"x", record)

    def test_cuts_are_found(self) -> None:
        record = seal(KEY, b"payload")
        for length in range(len(record)):
            with pytest.raises(CorruptionError):
                unseal(KEY, record[:length])

    def test_fields(self) -> None:
        fields = ["é", 1, None, b"x", [1, [2]], -1, 1 << 63]
        assert unseal_fields(KEY, seal_fields(KEY, fields)) == fields

    @pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 65_535, 65_536])
    def test_arrays_of_every_length(self, count: int) -> None:
        import msgpack

        assert msgpack.unpackb(array([scalar(7)] * count)) == [7] * count

    def test_a_payload_digest_covers_every_bit(self) -> None:
        payload = bytes(range(64))
        assert len({payload_digest(flipped(payload, bit)) for bit in range(512)} | {payload_digest(payload)}) == 513


# --- a whole log ------------------------------------------------------------------------------------------------------


def a_log() -> MemoryStorage:
    """One of every kind of record."""
    storage = MemoryStorage()
    log = EventLog(storage, clock=iter(range(1000)).__next__)
    run = log.run("r")
    run.append({"list": list(range(300)), "dict": {f"k{i}": "v" * 20 for i in range(50)}, "n": 0})
    for i in range(60):
        run.append({"list": Extend([i] * 9), "dict": Merge({f"k{i % 50}": i})}, id=f"id {i}" if i % 20 == 0 else None)
    fork = run.fork(at=30, name="fork")
    fork.append({"big": "x" * 2000})
    run.put_task_writes(fork.head, [TaskWrite("task", 0, "n", {"v": 1})])
    log.run(("r", "inner")).append({"other": 1})
    log.run("safe").append({"kept": "y" * 1000})
    log.run("dead").append({"a": 1})
    log.delete("dead")
    assert not list(log.verify())
    return storage


KINDS = "NSBEPIMVW"


class TestVerify:
    def test_the_log_has_every_kind(self) -> None:
        assert {chr(key[0]) for key in everything(a_log())} >= {*KINDS, "C"}

    @pytest.mark.parametrize("kind", KINDS)
    def test_flipped_bits_are_problems_never_errors(self, kind: str) -> None:
        storage = a_log()
        rng = random.Random(kind)
        records = sorted(pair for pair in everything(storage).items() if pair[0][:1] == kind.encode())
        for key, record in rng.sample(records, min(len(records), 12)):
            for bit in {0, 7, 8, 75, *(rng.randrange(len(record) * 8) for _ in range(6))}:
                storage.commit([(key, flipped(record, bit))])
                problems = list(EventLog(storage).verify())
                assert problems, f"bit {bit} of {key!r}"
                assert all(str(problem) for problem in problems)
            storage.commit([(key, record)])
        assert not list(EventLog(storage).verify())

    @pytest.mark.parametrize("kind", "SBCEPI")
    def test_missing_records_are_problems(self, kind: str) -> None:
        storage = a_log()
        held = everything(storage)
        log = EventLog(storage)
        grave = [key for key, record in held.items() if kind == "S" and len(record) < 12]
        last = {key[:13]: key for key in sorted(held) if key[:1] == b"E"}  # the end of a branch can be missed by nobody
        missed = 0
        for key, record in held.items():
            if key[:1] != kind.encode() or key in grave or key in last.values():
                continue
            storage.commit([], [key])
            problems = list(log.verify())
            assert problems, key
            missed += 1
            storage.commit([(key, record)])
        assert missed

    def test_swapped_events_are_problems(self) -> None:
        storage = a_log()
        events = sorted(pair for pair in everything(storage).items() if pair[0][:1] == b"E")
        (a, one), (b, two) = events[10], events[11]
        storage.commit([(a, two), (b, one)])
        assert list(EventLog(storage).verify())

    def test_an_event_of_another_history_is_a_problem(self) -> None:
        """Right under its key, but it follows another parent."""
        ours, theirs = a_log(), MemoryStorage()
        run = EventLog(theirs, clock=lambda: 5).run("r")
        for _ in range(20):
            run.append({"x": 1})
        key = layout.event_key(run._branches.run, 0, 10)
        record = theirs.get([key])[0]
        assert record is not None
        ours.commit([(key, record)])
        assert any("chain" in str(problem) for problem in EventLog(ours).verify())

    def test_only_one_run_is_looked_at_if_named(self) -> None:
        storage = a_log()
        key = next(key for key in everything(storage) if key[:1] == b"E")
        number = int.from_bytes(key[1:9], "big")
        storage.commit([(key, flipped(storage.get([key])[0] or b"", 300))])
        log = EventLog(storage)
        bad = [name for name in log.runs() if list(log.verify(name))]
        assert len(bad) == 1
        assert {problem.run for problem in log.verify()} == set(bad)
        assert number


class TestContained:
    def damaged(self, kind: bytes, at: int = 300) -> tuple[EventLog, bytes]:
        storage = a_log()
        run = EventLog(storage).run("r")._branches.run
        key = sorted(key for key in everything(storage) if key[:9] == kind + run.to_bytes(8, "big"))[
            5 if kind == b"E" else 0
        ]
        storage.commit([(key, flipped(storage.get([key])[0] or b"", at))])
        return EventLog(storage), key

    @pytest.mark.parametrize("kind", [b"E", b"P", b"S", b"B", b"M"])
    def test_other_runs_can_be_read(self, kind: bytes) -> None:
        log, _ = self.damaged(kind)
        assert log.run("safe").state["kept"] == "y" * 1000
        log.run("safe").append({"more": 1})
        assert ("r", "inner") in log.runs()

    def test_reading_what_is_damaged_names_the_place(self) -> None:
        log, _ = self.damaged(b"E")
        with pytest.raises(CorruptionError, match="seq 5"):
            log.run("r").event(5)
        with pytest.raises(CorruptionError):
            list(log.run("r").events())

    def test_a_missing_event_is_no_silent_gap(self) -> None:
        storage = a_log()
        run = EventLog(storage).run("r")
        storage.commit([], [layout.event_key(run._branches.run, 0, 20)])
        for look in (
            lambda: list(run.events()),
            lambda: list(run.events(reverse=True)),
            lambda: list(run.replay()),
            lambda: list(run.replay(15, 25)),
        ):
            with pytest.raises(EventLogError):
                look()

    def test_snapshots_that_are_damaged_can_be_dropped(self) -> None:
        storage = a_log()
        before = dict(EventLog(storage).run("r").state)
        for key, record in everything(storage).items():
            if key[:1] == b"V":
                storage.commit([(key, flipped(record, 80))])
        EventLog(storage).run("r").drop_snapshots()
        assert dict(EventLog(storage).run("r").state) == before

    def test_a_damaged_manifest_keeps_nobody_from_the_events(self) -> None:
        """It can be derived: the same event materialises to an equal state, whatever manifests exist."""
        storage = a_log()
        before = dict(EventLog(storage).run("r").state)
        for key, record in everything(storage).items():
            if key[:1] == b"M":
                storage.commit([(key, flipped(record, 80))])
        try:
            state = dict(EventLog(storage).run("r").state)
        except CorruptionError:
            pytest.fail("a run cannot be opened for the sake of a record that could be derived, nor can it be dropped")
        assert state == before


class TestLongTrails:
    """verify() reads histories of any length."""

    @pytest.mark.parametrize("item", ["x" * 400, 1], ids=["its events are its value", "tiny"])
    def test_many_deltas_since_the_full_value(self, item: Any) -> None:
        log = EventLog(MemoryStorage())
        run = log.run("r")
        run.append({"list": ["x" * 1000] * 1000})
        run.append_many([{"list": Extend([item]), "n": n} for n in range(2500)])
        for n in range(20):
            run.append({"other": "y" * 400, "n": n})
        assert list(log.verify()) == []
        assert len(EventLog(log._storage).run("r").state["list"]) == 3500
