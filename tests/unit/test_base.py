import dataclasses
import os
import time
import uuid
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import pytest

from eventlog.errors import InvalidIdError, InvalidInputError
from savers import base
from savers.base import (
    BaseCheckpointSaver,
    BaseStore,
    Checkpoint,
    CheckpointConfig,
    CheckpointMetadata,
    CheckpointTuple,
    check_before,
    check_limit,
    new_checkpoint_id,
)

BAD_IDS = ["", None, True, 1, b"a", {"$gt": ""}, ["a"], "a\x00b", "\x1b[2J", "a\x7f", "\ud800", "x" * 256, "é" * 128]


class DictSaver(BaseCheckpointSaver):
    """The least that keeps the contract."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], CheckpointTuple] = {}

    def put(self, config, checkpoint, metadata):
        new = CheckpointConfig(config.thread_id, checkpoint.id)
        parent = config if config.checkpoint_id else None
        self.rows[new.thread_id, checkpoint.id] = CheckpointTuple(checkpoint, new, metadata, parent)
        return new

    def get_tuple(self, config):
        if config.checkpoint_id:
            return self.rows.get((config.thread_id, config.checkpoint_id))
        return next(self.list(config), None)

    def list(self, config, *, before=None, limit=None):
        before, limit = check_before(before), check_limit(limit)
        rows = [
            row for key, row in sorted(self.rows.items(), reverse=True) if config is None or key[0] == config.thread_id
        ]
        return iter([row for row in rows if before is None or row.checkpoint.id < before][:limit])

    def delete_thread(self, thread_id):
        self.rows = {key: row for key, row in self.rows.items() if key[0] != thread_id}


def put(saver: DictSaver, checkpoint_id: str, parent: str | None, thread: str = "t") -> CheckpointConfig:
    return saver.put(CheckpointConfig(thread, parent), Checkpoint(checkpoint_id, {}), CheckpointMetadata())


def ancestors(saver: DictSaver, checkpoint_id: str | None) -> list[str]:
    return [row.checkpoint.id for row in saver.parents(CheckpointConfig("t", checkpoint_id))]


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_IDS)
def test_bad_ids_are_refused_before_anything_happens(bad):
    with pytest.raises(InvalidIdError, match=r"^thread_id: "):
        CheckpointConfig(bad)
    with pytest.raises(InvalidIdError, match=r"^checkpoint_id: "):
        Checkpoint(bad, {})
    with pytest.raises(InvalidIdError):
        CheckpointMetadata(parents={"": bad})
    if bad is not None:
        with pytest.raises(InvalidIdError, match=r"^checkpoint_id: "):
            CheckpointConfig("t", bad)


@pytest.mark.parametrize("good", ["user-session-42", "../../etc/passwd", "C:\\x", "1", "é", "e\u0301", "x" * 255])
def test_any_other_short_string_is_an_id(good):
    assert CheckpointConfig(good, good).thread_id == good


def test_values_are_frozen_have_slots_and_compare():
    config = CheckpointConfig("t", "a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.thread_id = "u"
    assert config == CheckpointConfig("t", "a") != CheckpointConfig("t")
    assert len({config, CheckpointConfig("t", "a")}) == 1
    assert not hasattr(config, "__dict__")
    for cls in (Checkpoint, CheckpointMetadata, CheckpointTuple):
        assert cls.__dataclass_params__.frozen
        assert "__slots__" in vars(cls)


def test_defaults():
    metadata = CheckpointMetadata()
    assert (metadata.source, metadata.step, metadata.writes, metadata.parents) == ("loop", -1, None, {})
    assert CheckpointMetadata().parents is not metadata.parents
    checkpoint = Checkpoint("a", {"v": 1})
    assert (checkpoint.format_version, checkpoint.created_at) == (1, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Checkpoint("a", [1]),
        lambda: Checkpoint("a", None),
        lambda: Checkpoint("a", {1: 2}),
        lambda: Checkpoint("a", {}, format_version=0),
        lambda: Checkpoint("a", {}, format_version=True),
        lambda: Checkpoint("a", {}, format_version="1"),
        lambda: Checkpoint("a", {}, created_at=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda: Checkpoint("a", {}, created_at="2026-01-01"),
        lambda: CheckpointMetadata(source="replay"),
        lambda: CheckpointMetadata(source=["loop"]),
        lambda: CheckpointMetadata(step=-2),
        lambda: CheckpointMetadata(step=1.0),
        lambda: CheckpointMetadata(step=True),
        lambda: CheckpointMetadata(writes=[1]),
        lambda: CheckpointMetadata(writes={1: 2}),
        lambda: CheckpointMetadata(parents=None),
        lambda: CheckpointMetadata(parents={1: "a"}),
    ],
)
def test_values_of_the_wrong_kind_are_refused(make):
    with pytest.raises(InvalidInputError):
        make()


def test_bounds_of_a_listing():
    assert check_before(None) is None
    assert check_before("b") == "b"
    assert check_before(CheckpointConfig("t", "b")) == "b"
    for bad in [CheckpointConfig("t"), 5, "", True]:
        with pytest.raises(InvalidInputError):
            check_before(bad)
    assert [check_limit(limit) for limit in (None, 0, 5)] == [None, 0, 5]
    for bad in [-1, True, 1.0, "1"]:
        with pytest.raises(InvalidInputError):
            check_limit(bad)


# --- contracts ------------------------------------------------------------------------------------------------------


def test_the_contracts_cannot_be_half_kept():
    for contract in (BaseCheckpointSaver, BaseStore):
        with pytest.raises(TypeError, match="abstract"):
            contract()


def test_get_is_the_checkpoint_of_get_tuple():
    saver = DictSaver()
    config = put(saver, "a", None)
    assert saver.get(config) == Checkpoint("a", {})
    assert saver.get(CheckpointConfig("t")) == Checkpoint("a", {})
    assert saver.get(CheckpointConfig("nobody")) is None


def test_parents_walks_to_the_root_along_the_fork():
    saver = DictSaver()
    for checkpoint_id, parent in [("a", None), ("b", "a"), ("c", "b"), ("d", "b"), ("e", "d")]:
        put(saver, checkpoint_id, parent)
    assert ancestors(saver, None) == ["d", "b", "a"]
    assert ancestors(saver, "c") == ["b", "a"]
    assert ancestors(saver, "a") == []
    assert ancestors(saver, "nobody") == []


def test_parents_ends_at_a_parent_that_is_gone_and_at_a_cycle():
    saver = DictSaver()
    for checkpoint_id, parent in [("b", "gone"), ("c", "b"), ("x", "z"), ("y", "x"), ("z", "y"), ("self", "self")]:
        put(saver, checkpoint_id, parent)
    assert ancestors(saver, "c") == ["b"]
    assert ancestors(saver, "z") == ["y", "x"]
    assert ancestors(saver, "self") == []


def test_parents_is_lazy():
    saver = DictSaver()
    for n in range(1, 5):
        put(saver, str(n), str(n - 1))
    walk = saver.parents(CheckpointConfig("t"))
    assert next(walk).checkpoint.id == "3"
    saver.delete_thread("t")
    assert list(walk) == []


# --- ids ------------------------------------------------------------------------------------------------------------


def test_fresh_ids_are_uuids_of_version_7_that_show_the_time():
    before_ms = time.time_ns() // 1_000_000
    made = uuid.UUID(new_checkpoint_id())
    assert (made.version, made.variant, str(made)) == (7, uuid.RFC_4122, str(made))
    assert before_ms <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_fresh_ids_grow():
    made = [new_checkpoint_id() for _ in range(20_000)]
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {36}


def test_fresh_ids_grow_in_every_thread_and_no_two_are_the_same():
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [Thread(target=lambda mine=mine: mine.extend(new_checkpoint_id() for _ in range(2000))) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 8000


def test_fresh_ids_grow_when_the_clock_goes_back(monkeypatch):
    first = new_checkpoint_id()
    now = time.time_ns()
    monkeypatch.setattr(base.time, "time_ns", lambda: now - 3_600_000_000_000)
    second = new_checkpoint_id()
    assert second > first
    monkeypatch.setattr(base, "_ticks", base._Ticks())  # another process, whose clock is behind
    assert new_checkpoint_id() < first
    assert new_checkpoint_id(after=second) > second


def test_an_id_of_another_form_is_no_bound():
    for other in ["a", "z" * 36, "zzzzzzzz-zzzz-7zzz-zzzz-zzzzzzzzzzzz", "1f0" + "0" * 33]:
        assert uuid.UUID(new_checkpoint_id(after=other)).version == 7


def test_a_far_id_does_not_spoil_later_ones():
    far = "ffffffff-0000-7000-8000-000000000000"
    assert new_checkpoint_id(after=far) > far
    assert new_checkpoint_id() < far
    with pytest.raises(InvalidIdError):
        new_checkpoint_id(after="ffffffff-ffff-7fff-bfff-ffffffffffff")
    with pytest.raises(InvalidIdError):
        new_checkpoint_id(after=5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_other_ids_even_if_the_lock_was_held():
    reader, writer = os.pipe()
    with base._ticks._lock:
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, new_checkpoint_id().encode())
            finally:
                os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 36).decode()
    os.close(reader)
    os.close(writer)
    assert len(theirs) == 36
    assert theirs != new_checkpoint_id()


def test_a_new_checkpoint_is_of_now():
    values: dict[str, Any] = {"v": 1}
    first = Checkpoint.new(values)
    second = Checkpoint.new(values, after=first.id)
    assert second.id > first.id
    assert first.channel_values is values
    assert abs((datetime.now(UTC) - first.created_at).total_seconds()) < 5
