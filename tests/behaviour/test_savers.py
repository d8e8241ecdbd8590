"""What `savers.base` promises of a saver, over every saver of the seed contract. Another one is a line in a table."""

from __future__ import annotations

import asyncio
import copy
import fcntl
import os
import shutil
import sys
import tempfile
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventlog import (
    ClosedError,
    EventLog,
    InvalidIdError,
    InvalidInputError,
    Run,
    TooLargeError,
    UnknownTypeError,
    UnserializableError,
)
from eventlog.storage.memory import MemoryStorage
from savers import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointConfig,
    CheckpointMetadata,
    EventLogSaver,
    InMemoryCheckpointSaver,
    JsonPlusSerde,
    SqliteSaver,
    new_checkpoint_id,
)
from tests.counting import CountingStorage
from tests.engines import LOCATIONS
from tests.strict import strictly_equal, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Make = Callable[..., EventLogSaver]

SAVERS: dict[str, Callable[[Path], Make]] = {
    **{
        name: lambda directory, located=located: partial(EventLogSaver, located(directory))
        for name, located in LOCATIONS.items()
    },
    "InMemoryCheckpointSaver": lambda directory: InMemoryCheckpointSaver,
}
BAD_IDS = ["", True, 1, b"a", {"$gt": ""}, ["a"], "a\x00b", "\x1b[2J", "\ud800", "x" * 256]
HOSTILE_IDS = [
    "a",
    "a/b",
    "a|b",
    "A",
    "á",
    "a\u0301",
    "../../etc/passwd",
    "~store",
    "%",
    "a%",
    "main",
    "e0.0.00000000",
    " ",
]


@dataclass
class Note:
    text: str
    tags: list[Any]


@pytest.fixture
def savers() -> Iterator[list[EventLogSaver]]:
    """Savers whose logs are verified and closed at the end."""
    made: list[EventLogSaver] = []
    yield made
    for saver in made:
        problems = list(saver.log.verify())
        saver.log.close()
        assert problems == []


@pytest.fixture(params=SAVERS)
def make(request: pytest.FixtureRequest, tmp_path: Path, savers: list[EventLogSaver]) -> Make:
    """Makes a saver of one kind on an empty log."""

    def made(**options: Any) -> EventLogSaver:
        savers.append(SAVERS[request.param](tmp_path)(**options))
        return savers[-1]

    return made


@pytest.fixture
def saver(make: Make) -> EventLogSaver:
    return make()


def config(checkpoint_id: str | None = None, thread: str = "t") -> CheckpointConfig:
    return CheckpointConfig(thread, checkpoint_id)


def put(
    saver: BaseCheckpointSaver,
    checkpoint_id: str,
    state: dict[str, Any] | None = None,
    parent: str | None = None,
    thread: str = "t",
    **metadata: Any,
) -> CheckpointConfig:
    made = Checkpoint(checkpoint_id, {} if state is None else state)
    return saver.put(config(parent, thread), made, CheckpointMetadata(**metadata))


def state(saver: BaseCheckpointSaver, checkpoint_id: str | None = None, thread: str = "t") -> dict[str, Any] | None:
    found = saver.get(config(checkpoint_id, thread))
    return None if found is None else dict(found.channel_values)


def metadata(saver: BaseCheckpointSaver, checkpoint_id: str | None = None) -> CheckpointMetadata:
    found = saver.get_tuple(config(checkpoint_id))
    assert found is not None
    return found.metadata


def ids(saver: BaseCheckpointSaver, *arguments: Any, **options: Any) -> list[str]:
    return [found.checkpoint.id for found in saver.list(*(arguments or (config(),)), **options)]


def ancestors(saver: BaseCheckpointSaver, checkpoint_id: str | None = None) -> list[str]:
    return [found.checkpoint.id for found in saver.parents(config(checkpoint_id))]


# --- put and get ----------------------------------------------------------------------------------------------------


def test_it_is_a_saver(saver):
    assert isinstance(saver, BaseCheckpointSaver)


def test_a_run_is_saved_after_each_step_and_resumed_from_its_latest(saver):
    at = config(thread="user-session-42")
    total = 0
    for step in range(-1, 20):
        total += step
        made = Checkpoint.new({"total": total, "seen": list(range(step))}, after=at.checkpoint_id)
        at = saver.put(at, made, CheckpointMetadata("loop" if step >= 0 else "input", step))
        assert at == CheckpointConfig("user-session-42", made.id)
        found = saver.get_tuple(CheckpointConfig("user-session-42"))
        assert (found.checkpoint, found.config, found.metadata.step) == (made, at, step)
    assert len(ids(saver, CheckpointConfig("user-session-42"))) == 21
    assert len(list(saver.parents(at))) == 20


def test_every_part_of_a_checkpoint_round_trips(saver):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))
    made = Checkpoint("a", {"x": [1, (2, 3)], "y": None, "é~$.": {1: {2}}}, format_version=7, created_at=moment)
    said = CheckpointMetadata("fork", 41, {"x": "said"}, {"": "p", "child|ns": "q"})
    saver.put(config("p"), made, said)
    found = saver.get_tuple(config("a"))
    assert strictly_equal(dict(found.checkpoint.channel_values), dict(made.channel_values))
    assert found.checkpoint == made
    assert found.checkpoint.created_at.utcoffset() == moment.utcoffset()
    assert found.metadata == said
    assert (found.config, found.parent_config) == (config("a"), config("p"))
    put(saver, "b")
    assert saver.get(config("b")) == Checkpoint("b", {}, 1, None)


@pytest.mark.parametrize("source", ["input", "loop", "update", "fork"])
def test_source_and_step_are_what_the_caller_said(saver, source):
    for checkpoint_id, parent, step in [
        ("a", None, 5),
        ("b", "a", 5),
        ("c", "b", -1),
        ("d", "gone", 0),
        ("b", "a", 2**40),
    ]:
        put(saver, checkpoint_id, {"x": checkpoint_id}, parent, source=source, step=step)
        assert (metadata(saver, checkpoint_id).source, metadata(saver, checkpoint_id).step) == (source, step)


def test_one_checkpoint_is_addressed_by_its_id(saver):
    for checkpoint_id in ("b", "c", "a"):
        put(saver, checkpoint_id, {"x": checkpoint_id})
    assert [state(saver, checkpoint_id) for checkpoint_id in "abc"] == [{"x": "a"}, {"x": "b"}, {"x": "c"}]
    assert saver.get_tuple(config("nope")) is None
    assert saver.get_tuple(config(thread="nope")) is None
    assert saver.get_tuple(config("a", "nope")) is None
    assert saver.get(config("nope")) is None


def test_the_latest_is_the_one_with_the_greatest_id(saver):
    for checkpoint_id in ("2", "10", "9", "1"):
        put(saver, checkpoint_id, {"x": checkpoint_id})
    assert state(saver) == {"x": "9"}
    put(saver, "é", {"x": "é"}, "1")
    put(saver, "z", {"x": "z"}, "é")
    assert state(saver) == {"x": "é"}


def test_putting_under_an_older_id_forks_and_the_children_stay(saver):
    put(saver, "a", {"x": [1]})
    put(saver, "b", {"x": [1, 2]}, "a")
    put(saver, "c", {"x": [1, 2, 3]}, "b")
    put(saver, "d", {"x": [1, "fork"]}, "a")
    put(saver, "e", {"x": [1, "fork", "on"]}, "d")
    put(saver, "f", {"x": [1, 2, 3, 4]}, "c")
    put(saver, "g", {"x": ["another"]}, "a")
    assert [state(saver, name)["x"] for name in "abcdefg"] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, "fork"],
        [1, "fork", "on"],
        [1, 2, 3, 4],
        ["another"],
    ]
    assert [ancestors(saver, name) for name in "aefg"] == [[], ["d", "a"], ["c", "b", "a"], ["a"]]
    assert ids(saver) == list("gfedcba")


def test_many_forks_of_one_checkpoint(saver):
    put(saver, "root", {"x": list(range(100))})
    for number in range(40):
        put(saver, f"{number:02}", {"x": [*range(100), number]}, "root")
    for number in range(40):
        assert state(saver, f"{number:02}")["x"] == [*range(100), number]
        assert metadata(saver, f"{number:02}").writes == {"x": [*range(100), number]}


@pytest.mark.parametrize("filled", [False, True])
def test_a_parent_that_is_not_there_is_recorded_by_its_name(saver, filled):
    if filled:
        put(saver, "0", {"x": "unrelated", "y": 1})
    put(saver, "a", {"x": 1}, "gone")
    put(saver, "b", {"x": 2}, "a")
    found = saver.get_tuple(config("a"))
    assert found.parent_config == config("gone")
    assert found.metadata.parents == {"": "gone"}
    assert found.metadata.writes == {"x": 1}
    assert dict(found.checkpoint.channel_values) == {"x": 1}
    assert ancestors(saver, "b") == ["a"]


def test_a_parent_that_comes_later_than_its_child(saver):
    put(saver, "1", {"x": 1, "y": 1})
    put(saver, "3", {"x": 1, "y": 3}, "2")
    put(saver, "2", {"x": 2, "y": 3}, "1")
    assert state(saver, "3") == {"x": 1, "y": 3}
    assert ancestors(saver, "3") == ["2", "1"]
    # Either what was true when it was put, or what is true now; never the difference from a stranger.
    assert metadata(saver, "3").writes in ({"x": 1, "y": 3}, {"x": 1})


def test_without_an_id_there_is_no_parent(saver):
    put(saver, "a", {"x": 1})
    put(saver, "b", {"x": 1, "y": 2})
    found = saver.get_tuple(config("b"))
    assert (found.parent_config, found.metadata.parents, ancestors(saver, "b")) == (None, {}, [])
    assert found.metadata.writes == {"x": 1, "y": 2}


def test_putting_an_id_again_replaces_it(saver):
    put(saver, "a", {"x": 1, "y": 1})
    put(saver, "b", {"x": 2}, "a")
    put(saver, "a", {"x": "again"}, source="update", step=7)
    assert state(saver, "a") == {"x": "again"}
    assert (metadata(saver, "a").source, metadata(saver, "a").step) == ("update", 7)
    assert state(saver, "b") == {"x": 2}
    assert ids(saver) == ["b", "a"]
    put(saver, "b", {"x": 3}, "a")
    put(saver, "c", {"x": 4}, "b")
    assert [state(saver, name)["x"] for name in "abc"] == ["again", 3, 4]
    for number in range(10):
        put(saver, "b", {"x": number}, "a" if number % 2 else None)
        assert state(saver, "b") == {"x": number}
        assert state(saver, "c") == {"x": 4}
    assert ids(saver) == ["c", "b", "a"]


@pytest.mark.parametrize("parent", [None, "a", "b", "gone"])
def test_what_was_put_again_beside_the_head_is_seen_by_everyone(saver, parent):
    put(saver, "a", {"x": 1})
    put(saver, "b", {"x": 2, "y": 1}, "a")
    put(saver, "b", {"x": "again"}, parent)
    for each in (saver, EventLogSaver(saver.log), EventLogSaver(saver.log)):
        assert state(each, "b") == state(each) == {"x": "again"}
        assert [dict(found.checkpoint.channel_values) for found in each.list(config())] == [{"x": "again"}, {"x": 1}]
    put(EventLogSaver(saver.log), "c", {"x": "again", "z": 1}, "b")
    assert (state(saver), metadata(saver, "c").writes) == ({"x": "again", "z": 1}, {"z": 1})


def test_an_empty_state_is_a_state(saver):
    put(saver, "a", {})
    assert state(saver) == {}
    put(saver, "b", {"x": None}, "a")
    assert state(saver) == {"x": None}
    put(saver, "c", {}, "b")
    assert state(saver) == {}
    assert metadata(saver, "c").writes == {"x": None}


def test_a_state_may_be_any_mapping(saver):
    put(saver, "a", types.MappingProxyType({"x": 1}))
    assert state(saver) == {"x": 1}
    put(saver, "b", types.MappingProxyType({"x": 2}), "a", writes=types.MappingProxyType({"x": 2}))
    assert (state(saver), metadata(saver, "b").writes) == ({"x": 2}, {"x": 2})


# --- metadata -------------------------------------------------------------------------------------------------------


def test_the_saver_fills_in_what_changed(saver):
    put(saver, "a", {"x": [1], "y": 1, "gone": 1, "same": {"deep": [1]}})
    put(saver, "b", {"x": [1, 2], "y": 1, "new": None, "same": {"deep": [1]}}, "a")
    put(saver, "c", {"x": [1, 2], "y": 1.0, "new": None, "same": {"deep": [1]}}, "b")
    put(saver, "d", {"x": [1, 2], "y": 1.0, "new": None, "same": {"deep": [1]}}, "c")
    assert metadata(saver, "a").writes == {"x": [1], "y": 1, "gone": 1, "same": {"deep": [1]}}
    assert metadata(saver, "b").writes == {"x": [1, 2], "new": None, "gone": None}
    assert strictly_equal(dict(metadata(saver, "c").writes), {"y": 1.0})
    assert metadata(saver, "d").writes == {}


def test_the_saver_fills_in_the_roots_parent_where_it_is_missing(saver):
    put(saver, "a")
    put(saver, "b", {}, "a", parents={"child": "x"})
    put(saver, "c", {}, "b", parents={"": "said", "child": "y"})
    put(saver, "d", {}, parents={"child": "z"})
    found = {name: metadata(saver, name).parents for name in "abcd"}
    assert found == {"a": {}, "b": {"": "a", "child": "x"}, "c": {"": "said", "child": "y"}, "d": {"child": "z"}}
    assert saver.get_tuple(config("c")).parent_config == config("b")


def test_what_the_caller_said_that_changed_is_kept(saver):
    put(saver, "a", {"x": 1}, writes={})
    put(saver, "b", {"x": 2}, "a", writes={"node": {"x": (2, {3})}})
    put(saver, "c", {"x": 2}, "b", writes={"x": "lie"})
    assert [metadata(saver, name).writes for name in "abc"] == [{}, {"node": {"x": (2, {3})}}, {"x": "lie"}]


def test_what_the_caller_said_may_be_as_large_as_a_state(saver):
    text = "x" * 100_000
    put(saver, "a", {"x": text}, writes={"x": text})
    assert metadata(saver, "a").writes == {"x": text}


def _change(before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, Any]:
    """What differs, looked at from outside."""
    if before is None:
        return after
    changed = {name: None for name in before if name not in after}
    return changed | {n: v for n, v in after.items() if n not in before or not strictly_equal(before[n], v)}


_STATES = st.dictionaries(st.sampled_from(["x", "y", "z", "~", "é"]), values(6), max_size=4)


@st.composite
def _histories(draw: st.DrawFn) -> list[tuple[int | None, dict[str, Any]]]:
    """States with the number of the one each is made from; often one that differs little."""
    history: list[tuple[int | None, dict[str, Any]]] = []
    for number in range(draw(st.integers(1, 5))):
        parent = draw(st.none() | st.integers(0, number - 1)) if number else None
        kept = {} if parent is None else {n: v for n, v in history[parent][1].items() if draw(st.integers(0, 3))}
        history.append((parent, kept | draw(_STATES)))
    return history


@given(history=_histories(), in_place=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_writes_are_the_real_change_of_random_states(history, in_place):
    with InMemoryCheckpointSaver() as saver:
        live: dict[str, Any] = {}
        for number, (parent, after) in enumerate(history):
            given_state = copy.deepcopy(after)
            if in_place:
                live.clear()
                live.update(given_state)
                given_state = live
            put(saver, f"{number}", given_state, None if parent is None else f"{parent}")
        for number, (parent, after) in enumerate(history):
            found = saver.get_tuple(config(f"{number}"))
            assert _same_members(dict(found.checkpoint.channel_values), after)
            before = None if parent is None else history[parent][1]
            assert _same_members(dict(found.metadata.writes), _change(before, after))
        assert list(saver.log.verify()) == []


def _same_members(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Equal channel by channel; channels of a state have no order."""
    return set(a) == set(b) and all(strictly_equal(a[name], b[name]) for name in a)


# --- isolation ------------------------------------------------------------------------------------------------------


def test_what_is_given_in_is_copied(saver):
    given_state: dict[str, Any] = {"x": [[1]], "note": Note("a", [1]), "raw": bytearray(b"a"), "set": {1}}
    kept = []
    for step in range(5):
        put(saver, f"{step}", given_state, f"{step - 1}" if step else None, writes=None)
        kept.append(copy.deepcopy(given_state))
        given_state["x"][0].append(step)
        given_state["note"].tags.append(step)
        given_state["note"].text += "!"
        given_state["raw"].extend(b"b")
        given_state["set"].add(f"{step}")
        given_state[f"new {step}"] = step
    for step, expected in enumerate(kept):
        assert _same_members(state(saver, f"{step}"), expected)
    assert set(metadata(saver, "4").writes) == {"x", "note", "raw", "set", "new 3"}


def test_what_is_given_out_is_the_callers_own(saver):
    put(saver, "a", {"x": [[1]], "d": {"k": []}}, writes={"x": [1]}, parents={"n": "p"})
    put(saver, "b", {"x": [[1], 2], "d": {"k": []}}, "a")
    for found in [
        saver.get_tuple(config()),
        saver.get_tuple(config("a")),
        *saver.list(config()),
        *saver.parents(config()),
    ]:
        found.checkpoint.channel_values["x"][0].append("spoiled")
        found.checkpoint.channel_values["d"].clear()
        found.checkpoint.channel_values.clear()
        found.metadata.parents.clear()
        for value in found.metadata.writes.values():
            value.append("spoiled")
        found.metadata.writes.clear()
    assert (state(saver, "a"), state(saver, "b")) == ({"x": [[1]], "d": {"k": []}}, {"x": [[1], 2], "d": {"k": []}})
    assert (metadata(saver, "a").writes, metadata(saver, "b").writes) == ({"x": [1]}, {"x": [[1], 2]})
    assert metadata(saver, "a").parents == {"n": "p"}


def test_what_was_given_out_may_be_changed_and_put_again(saver):
    put(saver, "0", {"x": [{"k": [0]}]})
    for step in range(1, 6):
        current = state(saver)
        current["x"][0]["k"].append(step)
        put(saver, f"{step}", current, f"{step - 1}")
        assert metadata(saver, f"{step}").writes == {"x": [{"k": list(range(step + 1))}]}
    assert [state(saver, f"{step}") for step in range(6)] == [{"x": [{"k": list(range(s + 1))}]} for s in range(6)]


def test_threads_never_touch(saver):
    for thread in HOSTILE_IDS:
        put(saver, "id", {"x": thread}, thread=thread)
        put(saver, thread, {"x": [thread]}, "id", thread=thread)
    for thread in HOSTILE_IDS:
        assert state(saver, "id", thread) == {"x": thread}
        assert state(saver, thread, thread) == {"x": [thread]}
        assert ids(saver, config(thread=thread)) == sorted({"id", thread}, reverse=True)
    for gone in HOSTILE_IDS[::2]:
        saver.delete_thread(gone)
    for thread in HOSTILE_IDS:
        assert (state(saver, "id", thread) is None) == (thread in HOSTILE_IDS[::2])


# --- what is refused ------------------------------------------------------------------------------------------------


def test_ids_are_strictly_typed(saver):
    put(saver, "a")
    calls = [
        CheckpointConfig,
        lambda bad: CheckpointConfig("t", bad),
        lambda bad: Checkpoint(bad, {}),
        lambda bad: CheckpointMetadata(parents={"": bad}),
        lambda bad: saver.list(config(), before=bad),
        saver.delete_thread,
    ]
    for call in calls:
        for bad in BAD_IDS:
            with pytest.raises(InvalidIdError):
                call(bad)
    assert ids(saver) == ["a"]


def test_none_is_no_thread(saver):
    for call in (lambda: CheckpointConfig(None), lambda: saver.delete_thread(None), lambda: Checkpoint(None, {})):
        with pytest.raises(InvalidIdError):
            call()


def test_a_value_that_cannot_be_read_back_is_refused_by_its_place(saver):
    put(saver, "a", {"x": 1})
    for bad in ({"x": [1, {"k": lambda: None}]}, {"x": 1, "y": object()}, {"x": type("Text", (str,), {})("a")}):
        with pytest.raises(UnserializableError, match=r"^[xy]") as caught:
            put(saver, "b", bad, "a")
        assert caught.value.path[0] in "xy"
        with pytest.raises(UnserializableError):
            put(saver, "a", bad)
        with pytest.raises(UnserializableError, match="writes"):
            put(saver, "b", {"x": 1}, "a", writes=bad)
    assert ids(saver) == ["a"]
    assert state(saver) == {"x": 1}
    put(saver, "b", {"x": 2}, "a")
    assert (state(saver), metadata(saver, "b").writes) == ({"x": 2}, {"x": 2})


def test_a_refused_value_leaves_an_unknown_thread_unknown(saver):
    with pytest.raises(UnserializableError):
        put(saver, "a", {"x": object()})
    assert saver.get_tuple(config()) is None
    assert ids(saver, None) == []
    assert saver.log.runs() == []


def test_a_checkpoint_over_the_limit_is_refused(make):
    saver = make(max_checkpoint_bytes=10_000)
    put(saver, "a", {"x": "x" * 8_000})
    with pytest.raises(TooLargeError, match="checkpoint bytes") as caught:
        put(saver, "b", {"x": "x" * 12_000}, "a")
    assert caught.value.limit == 10_000
    assert caught.value.size >= 12_000
    with pytest.raises(TooLargeError):  # small changes of a large state count with it
        put(saver, "b", {"x": "x" * 8_000, "y": "y" * 4_000}, "a")
    with pytest.raises(TooLargeError):
        put(saver, "b", {"x": "x" * 8_000 + "y" * 4_000}, "a")
    assert ids(saver) == ["a"]
    put(saver, "b", {"x": "x" * 9_000}, "a")
    put(saver, "c", {"x": "x" * 9_000, "y": 1}, "b")
    assert ids(saver) == ["c", "b", "a"]


def test_what_is_gone_does_not_count_towards_the_limit(make):
    saver = make(max_checkpoint_bytes=10_000)
    put(saver, "a", {"x": "x" * 8_000})
    put(saver, "b", {"y": "y" * 8_000}, "a")
    put(saver, "c", {"y": "z" * 8_000}, "b")
    put(saver, "d", {"z": ["z" * 100] * 80}, "a")
    put(saver, "e", {"z": ["z" * 100]}, "d")
    put(saver, "f", {"z": ["z" * 100], "y": "y" * 8_000}, "e")
    assert state(saver, "f") == {"z": ["z" * 100], "y": "y" * 8_000}


def test_a_list_that_grows_by_small_steps_meets_the_limit(make):
    saver = make(max_checkpoint_bytes=10_000)

    def grow() -> None:
        for step in range(200):
            put(saver, f"{step:03}", {"x": ["x" * 100] * step}, f"{step - 1:03}" if step else None)

    with pytest.raises(TooLargeError):
        grow()
    assert 80 < len(state(saver)["x"]) < 100


def test_a_type_that_is_not_there_any_more(saver):
    module = types.ModuleType("a_module_that_goes")
    sys.modules[module.__name__] = module
    exec("from dataclasses import dataclass\n@dataclass\nclass Gone:\n    x: int\n", module.__dict__)
    put(saver, "a", {"x": module.Gone(1)})
    put(saver, "b", {"x": 1}, "a")
    assert state(saver, "a") == {"x": module.Gone(1)}
    del sys.modules[module.__name__]
    for call in (
        lambda: saver.get_tuple(config("a")),
        lambda: saver.get(config("a")),
        lambda: list(saver.list(config())),
    ):
        with pytest.raises(UnknownTypeError, match="Gone"):
            call()
    assert state(saver, "b") == {"x": 1}
    put(saver, "c", {"x": 2}, "b")


def test_a_closed_saver_says_so(tmp_path):
    with EventLogSaver(tmp_path / "log") as saver:
        put(saver, "a")
    saver.close()
    for call in (
        lambda: put(saver, "b", {"x": 1}, "a"),
        lambda: saver.get_tuple(config()),
        lambda: list(saver.list(config())),
        lambda: list(saver.list(None)),
        lambda: saver.delete_thread("t"),
    ):
        with pytest.raises(ClosedError):
            call()


def test_a_log_that_was_given_stays_open(tmp_path):
    with EventLog.open(tmp_path / "log") as log:
        with EventLogSaver(log) as saver:
            put(saver, "a", {"x": 1})
        assert log.runs() == ["t"]
        assert state(EventLogSaver(log)) == {"x": 1}


# --- list and parents -----------------------------------------------------------------------------------------------


def test_list_is_newest_first(saver):
    for checkpoint_id in ("2", "1", "10", "9"):
        put(saver, checkpoint_id, {"x": checkpoint_id}, thread="t")
        put(saver, checkpoint_id, {"x": "other"}, thread="u")
    assert ids(saver) == ["9", "2", "10", "1"]
    assert ids(saver, config("10")) == ["10"]
    assert ids(saver, config("nope")) == []
    assert ids(saver, config(thread="nope")) == []
    assert [found.config.thread_id for found in saver.list(config())] == ["t"] * 4
    for found in saver.list(config()):
        assert found == saver.get_tuple(found.config)


def test_list_of_no_config_is_of_all_threads(saver):
    assert ids(saver, None) == []
    for thread in "tu":
        for checkpoint_id in "123":
            put(saver, checkpoint_id, thread=thread)
    found = [(item.config.thread_id, item.checkpoint.id) for item in saver.list(None)]
    assert sorted(found) == sorted((thread, checkpoint_id) for thread in "tu" for checkpoint_id in "123")
    for thread in "tu":
        assert [checkpoint_id for name, checkpoint_id in found if name == thread] == ["3", "2", "1"]
    assert len(ids(saver, None, limit=4)) == 4
    assert sorted(ids(saver, None, before="3")) == ["1", "1", "2", "2"]


def test_list_ends_before_and_is_limited(saver):
    for checkpoint_id in ("1", "10", "2", "9"):
        put(saver, checkpoint_id)
    assert ids(saver, config(), before="9") == ["2", "10", "1"]
    assert ids(saver, config(), before=config("2")) == ["10", "1"]
    assert ids(saver, config(), before=config("2", "another thread")) == ["10", "1"]
    assert ids(saver, config(), before="55") == ["2", "10", "1"]
    assert ids(saver, config(), before="1") == []
    assert ids(saver, config("1"), before="1") == []
    assert ids(saver, config("1"), before="2") == ["1"]
    assert ids(saver, config(), limit=0) == []
    assert ids(saver, config(), limit=2) == ["9", "2"]
    assert ids(saver, config("10"), limit=1) == ["10"]
    assert ids(saver, config(), before="9", limit=1) == ["2"]
    assert ids(saver, config(), limit=99) == ["9", "2", "10", "1"]


def test_a_list_of_one_id_looks_for_no_other():
    storage = CountingStorage(MemoryStorage())
    with EventLog(storage) as log:
        saver, read = EventLogSaver(log), []
        for count in (5, 50):
            for number in range(count):
                put(saver, f"{count:02}.{number:02}", {"x": number})
            with storage.counted() as tally:
                assert ids(saver, config("05.02")) == ["05.02"]
                assert ids(saver, config("05.02"), before="05.02") == ids(saver, config("nope")) == []
            read.append(tally.keys_read["I"])
        assert read[0] == read[1]


def test_what_can_never_be_right_is_refused_at_the_call(saver):
    for bad in ({"limit": -1}, {"limit": True}, {"limit": 1.0}, {"limit": "1"}, {"before": config()}, {"before": 1}):
        for named in (config(), None):
            with pytest.raises(InvalidInputError):
                saver.list(named, **bad)


def test_a_list_is_lazy_and_may_be_read_while_others_write(saver):
    for number in range(10):
        put(saver, f"{number}", {"x": number}, f"{number - 1}" if number else None)
    slow = saver.list(config())
    seen = [next(slow).checkpoint.id]
    writer = threading.Thread(target=lambda: [put(saver, f"1{n}", {"x": n}, "9") for n in range(10)])
    writer.start()
    writer.join(60)
    assert not writer.is_alive()
    put(saver, "5", {"x": "again"}, "4")
    found = list(slow)
    seen += [item.checkpoint.id for item in found]
    assert [name for name in seen if len(name) == 1] == [str(number) for number in range(9, -1, -1)]
    assert len(seen) == len(set(seen))
    assert next(saver.list(config(), limit=1)).checkpoint.id == "9"


def test_a_thread_may_go_while_it_is_listed(saver):
    for number in range(600):
        put(saver, f"{number:03}", {"x": number})
    slow = saver.list(config())
    assert next(slow).checkpoint.id == "599"
    saver.delete_thread("t")
    assert list(slow) == []


def test_parents_are_walked_nearest_first(saver):
    put(saver, "a")
    for parent, name in zip("abc", "bcd", strict=True):
        put(saver, name, {"x": name}, parent)
    walked = list(saver.parents(config()))
    assert [item.checkpoint.id for item in walked] == ["c", "b", "a"]
    assert walked == [saver.get_tuple(config(name)) for name in "cba"]
    assert ancestors(saver, "a") == []
    assert ancestors(saver, "nope") == []
    assert list(saver.parents(config(thread="nope"))) == []


def test_parents_end_where_the_walk_would_come_round(saver):
    put(saver, "a", {"x": 1})
    put(saver, "b", {"x": 2}, "a")
    put(saver, "c", {"x": 3}, "b")
    put(saver, "a", {"x": 4}, "c")
    assert [ancestors(saver, name) for name in "abc"] == [["c", "b"], ["a", "c"], ["b", "a"]]
    put(saver, "self", {"x": 5}, "self")
    put(saver, "self", {"x": 6}, "self")
    assert ancestors(saver, "self") == []
    assert saver.get_tuple(config("self")).parent_config == config("self")
    assert state(saver, "self") == {"x": 6}


# --- deleting -------------------------------------------------------------------------------------------------------


def test_a_deleted_thread_begins_empty(saver):
    for round_number in range(3):
        put(saver, "a", {"x": round_number, "big": "b" * 10_000})
        put(saver, "b", {"x": [round_number]}, "a")
        put(saver, "c", {"x": [round_number, 1]}, "a")
        saver.delete_thread("t")
        assert saver.get_tuple(config()) is saver.get_tuple(config("a")) is None
        assert ids(saver) == ids(saver, None) == []
    put(saver, "b", {"y": 1}, "a")
    assert state(saver) == {"y": 1}
    assert metadata(saver, "b").writes == {"y": 1}
    assert ids(saver) == ["b"]


def test_deleting_what_is_not_there_does_nothing(saver):
    put(saver, "a", thread="u")
    saver.delete_thread("t")
    saver.delete_thread("t")
    assert saver.get_tuple(config()) is None
    saver.delete_thread("t")
    assert ids(saver, None) == ["a"]
    assert saver.log.runs() == ["u"]


def test_reading_writes_nothing(saver):
    put(saver, "a", {"x": 1})
    before = saver.log.stats().bytes, saver.log.runs()
    for thread in ("t", "nope"):
        saver.get_tuple(config(thread=thread))
        saver.get_tuple(config("nope", thread))
        list(saver.list(config(thread=thread)))
        list(saver.parents(config(thread=thread)))
    list(saver.list(None))
    saver.delete_thread("nope")
    assert (saver.log.stats().bytes, saver.log.runs()) == before


# --- one log, several users -----------------------------------------------------------------------------------------


def test_other_runs_of_the_log_are_left_alone(saver):
    run = saver.log.run("simulation")
    run.append({"v": 1}, id="a")
    child = saver.log.run(("t", "within"))
    child.append({"v": 2}, id="a")
    put(saver, "a", {"x": 1})
    assert ids(saver, None) == ["a"]
    for call in (saver.delete_thread, lambda thread: put(saver, "b", thread=thread)):
        with suppress(InvalidInputError):  # saying so is fine
            call("simulation")
        assert "simulation" in saver.log
        assert saver.log.run("simulation").state["v"] == 1
    saver.delete_thread("t")
    assert ids(saver, None) == []
    assert saver.log.run(("t", "within")).state["v"] == 2
    assert len(saver.log.run("simulation")) == 1


def test_two_savers_of_one_log_see_each_others_checkpoints(saver):
    other = EventLogSaver(saver.log)
    assert other.get_tuple(config()) is None
    assert ids(other) == []
    put(saver, "a", {"x": [1]})
    assert state(other) == {"x": [1]}
    for number, each in enumerate([other, saver, saver, other, other, saver]):
        put(each, f"b{number}", {"x": [1, *range(number)]}, f"b{number - 1}" if number else "a")
        assert state(saver) == state(other) == {"x": [1, *range(number)]}
        assert ids(saver) == ids(other)
    put(other, "c", {"x": ["fork"]}, "a")
    assert ancestors(saver, "c") == ["a"]
    put(other, "a", {"x": "again"})
    put(saver, "d", {"x": "again", "y": 1}, "a")
    assert metadata(other, "d").writes == {"y": 1}
    assert len(ids(saver, None)) == len(ids(other, None)) == 9


@pytest.mark.parametrize("reader_first", [False, True])
def test_two_savers_of_one_log_see_each_others_deletions(saver, reader_first):
    other = EventLogSaver(saver.log)
    for round_number in range(3):
        put(saver, "a", {"x": round_number}, None)
        assert state(other, "a") == {"x": round_number}
        put(other, "b", {"x": [round_number]}, "a")
        assert state(saver) == {"x": [round_number]}
        saver.delete_thread("t")
        if reader_first:
            assert other.get_tuple(config()) is None
            assert ids(other) == []
        put(other, "c", {"x": "anew"}, "b")
        assert state(other) == state(saver) == {"x": "anew"}
        assert ids(other) == ids(saver) == ["c"]
        saver.delete_thread("t")
        put(saver, "d", {"x": "anew again"})
        assert state(other) == {"x": "anew again"}
        assert ids(other) == ["d"]
        other.delete_thread("t")


def test_two_writers_of_one_parent_both_succeed(saver):
    put(saver, "root", {"x": []})
    several = [saver, EventLogSaver(saver.log)]

    def chain(name: str) -> None:
        parent = "root"
        for step in range(8):
            put(several["abcdef".index(name) % 2], f"{name}{step}", {"x": [name] * step}, parent)
            parent = f"{name}{step}"

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(chain, "abcdef"))
    for name in "abcdef":
        assert [state(saver, f"{name}{step}") for step in range(8)] == [{"x": [name] * step} for step in range(8)]
        assert ancestors(saver, f"{name}7") == [*(f"{name}{step}" for step in range(6, -1, -1)), "root"]
        assert [metadata(saver, f"{name}{step}").writes for step in (0, 1, 7)] == [{}, {"x": [name]}, {"x": [name] * 7}]
    assert len(ids(saver)) == 49


def test_many_threads_each_with_a_thread_of_its_own(saver):
    def one(name: str) -> None:
        at = config(thread=name)
        for step in range(10):
            at = saver.put(
                at, Checkpoint(new_checkpoint_id(at.checkpoint_id), {"x": [name] * step}), CheckpointMetadata()
            )
            assert state(saver, thread=name) == {"x": [name] * step}
        assert len(list(saver.parents(at))) == 9

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, [f"thread {number}" for number in range(16)]))
    assert len(ids(saver, None)) == 160


def test_what_was_put_is_there_after_reopening(tmp_path):
    expected = {}
    for opening in range(4):
        with EventLogSaver(tmp_path / "log") as saver:
            assert {name: state(saver, name) for name in expected} == expected
            parent = max(expected, default=None)
            for step in range(5):
                name = f"{opening}{step}"
                expected[name] = {"x": list(range(opening * 5 + step)), "note": Note(name, [opening])}
                put(saver, name, expected[name], parent)
                parent = name
            put(saver, f"{opening}-fork", {"x": "fork"}, min(expected))
            expected[f"{opening}-fork"] = {"x": "fork"}
            assert list(saver.log.verify()) == []
    with EventLogSaver(tmp_path / "log") as saver:
        assert state(saver) == expected[max(expected)]
        assert ids(saver) == sorted(expected, reverse=True)
        assert {name: state(saver, name) for name in expected} == expected
        assert set(metadata(saver, "31").writes) == {"x", "note"}
        saver.delete_thread("t")
    with EventLogSaver(tmp_path / "log") as saver:
        assert saver.get_tuple(config()) is None
        assert list(saver.log.verify()) == []


def test_a_copied_log_is_the_same_log():
    with tempfile.TemporaryDirectory() as directory:
        with EventLogSaver(Path(directory) / "a") as saver:
            put(saver, "a", {"x": [1]})
            put(saver, "b", {"x": [1, 2]}, "a")
        shutil.copytree(Path(directory) / "a", Path(directory) / "b")
        with EventLogSaver(Path(directory) / "b") as saver:
            assert (state(saver), state(saver, "a")) == ({"x": [1, 2]}, {"x": [1]})
            assert list(saver.log.verify()) == []


def test_a_serde_of_ones_own_types(make):
    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    serde = JsonPlusSerde()
    serde.register(Money, "money", lambda money: money.cents, Money)
    saver = make(serde=serde)
    put(saver, "a", {"x": Money(5)})
    put(saver, "b", {"x": Money(5)}, "a")
    put(saver, "c", {"x": Money(6)}, "b")
    assert state(saver)["x"].cents == 6
    assert metadata(saver, "b").writes == {}
    assert metadata(saver, "c").writes["x"].cents == 6


# --- coroutines -----------------------------------------------------------------------------------------------------


class _OnlyPut(InMemoryCheckpointSaver):
    """A saver that knows no way to encode before it commits: the contract's own twins."""

    aput = BaseCheckpointSaver.aput


@pytest.fixture(params=[*SAVERS, "only put"])
def any_saver(request: pytest.FixtureRequest, tmp_path: Path, savers: list[EventLogSaver]) -> EventLogSaver:
    savers.append(_OnlyPut() if request.param == "only put" else SAVERS[request.param](tmp_path)())
    return savers[-1]


def aput(
    saver: BaseCheckpointSaver, checkpoint_id: str, values: dict[str, Any], parent: str | None = None, **more: Any
):
    return saver.aput(config(parent), Checkpoint(checkpoint_id, values), CheckpointMetadata(**more))


def test_each_method_has_a_twin_for_coroutines(any_saver):
    async def run() -> None:
        saver = any_saver
        assert await aput(saver, "a", {"x": [1]}) == config("a")
        assert await aput(saver, "b", {"x": [1, 2]}, "a", step=1) == config("b")
        assert await saver.aget_tuple(config()) == saver.get_tuple(config()) == saver.get_tuple(config("b"))
        assert await saver.aget(config("a")) == saver.get(config("a"))
        assert await saver.aget(config("missing")) is None
        assert [item async for item in saver.alist(config())] == list(saver.list(config()))
        assert [item.config async for item in saver.alist(None, before="b", limit=1)] == [config("a")]
        await saver.adelete_thread("t")
        assert await saver.aget_tuple(config()) is None
        assert [item async for item in saver.alist(None)] == []

    asyncio.run(run())


def test_async_with_closes_what_the_saver_opened(tmp_path):
    async def run() -> None:
        async with EventLogSaver(tmp_path / "log") as saver:
            await aput(saver, "a", {"x": 1})
        with pytest.raises(ClosedError):
            await saver.aget(config())
        with EventLog.open(tmp_path / "log") as log:
            async with EventLogSaver(log) as saver:
                pass
            assert await saver.aget(config()) is not None

    asyncio.run(run())


def test_the_twins_refuse_what_the_methods_refuse(any_saver):
    async def run() -> None:
        with pytest.raises(InvalidInputError):
            any_saver.alist(config(), limit=-1)
        with pytest.raises(InvalidIdError):
            await any_saver.adelete_thread("")
        with pytest.raises(UnserializableError, match="x"):
            await aput(any_saver, "a", {"x": threading.current_thread})
        with pytest.raises(UnserializableError):
            await aput(any_saver, "a", {"x": threading.Lock()})
        assert any_saver.get(config()) is None

    asyncio.run(run())


def test_values_are_taken_before_aput_first_waits(any_saver):
    async def run() -> None:
        growing: list[Any] = [[1]]
        putting = asyncio.create_task(aput(any_saver, "a", {"x": growing}, writes={"x": growing}))
        await asyncio.sleep(0)
        growing[0].append("too late")
        growing.append("too late")
        await putting
        found = await any_saver.aget_tuple(config())
        assert found.checkpoint.channel_values == found.metadata.writes == {"x": [[1]]}
        putting = asyncio.create_task(aput(any_saver, "b", {"x": growing}, "a"))
        await asyncio.sleep(0)
        growing.clear()
        await putting
        assert state(any_saver) == {"x": [[1, "too late"], "too late"]}
        await aput(any_saver, "c", types.MappingProxyType({"x": 1}), writes=types.MappingProxyType({}))
        assert (state(any_saver), metadata(any_saver).writes) == ({"x": 1}, {})

    asyncio.run(run())


def test_a_cancelled_aput_is_whole_or_absent(any_saver):
    async def run() -> None:
        for number in range(40):
            putting = asyncio.create_task(aput(any_saver, f"{number:03}", {"x": [number] * 20, "y": number}))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            putting.cancel()
            with suppress(asyncio.CancelledError):
                await putting
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(run())
    found = [item.checkpoint.channel_values for item in any_saver.list(config())]
    assert all(values == {"x": [values["y"]] * 20, "y": values["y"]} for values in found)
    put(any_saver, "zzz", {"x": "last"})
    assert state(any_saver) == {"x": "last"}


def test_many_coroutines_at_once_lose_nothing(any_saver):
    async def run() -> None:
        one_parent = [aput(any_saver, f"a{n:02}", {"n": n, "same": "s" * 100}, step=n) for n in range(20)]
        other_threads = [
            any_saver.aput(config(None, f"t{n}"), Checkpoint("a", {"n": n}), CheckpointMetadata()) for n in range(20)
        ]
        await asyncio.gather(*one_parent, *other_threads)
        listed = [item async for item in any_saver.alist(config())]
        assert [item.checkpoint.channel_values["n"] for item in listed] == list(reversed(range(20)))
        assert [(await any_saver.aget(config(None, f"t{n}"))).channel_values for n in range(20)] == [
            {"n": n} for n in range(20)
        ]

    asyncio.run(run())


def test_a_thread_that_others_begin_or_delete_while_aput_waits(any_saver, monkeypatch):
    other = EventLogSaver(any_saver.log)

    async def taken(*said: Any) -> Callable[[], Any]:
        """The half of an `aput` that is left to another thread."""
        left: list[Callable[[], Any]] = []

        async def leave(*call: Any) -> None:
            left.append(partial(*call))

        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "to_thread", leave)
            patch.setattr(Run, "at_once", lambda run: nullcontext(False))
            await any_saver.aput(*said)
        return left[0]

    async def run() -> None:
        values = {"x": [1], "~y": "mine"}
        putting = aput(any_saver, "b", values, writes={"x": "said"})
        late = await taken(config(), Checkpoint("b", values), CheckpointMetadata(writes={"x": "said"}))
        put(other, "a", {"x": "theirs"})
        values["x"].append("too late")
        await asyncio.to_thread(late)
        assert state(any_saver, "b") == {"x": [1], "~y": "mine"}
        assert metadata(any_saver, "b").writes == {"x": "said"}
        assert state(any_saver, "a") == {"x": "theirs"}
        putting.close()
        late = await taken(config("b"), Checkpoint("c", {"x": [1], "~y": "new"}), CheckpointMetadata())
        other.delete_thread("t")
        await asyncio.to_thread(late)
        assert state(any_saver, "b") is None
        await aput(any_saver, "d", {"x": 4}, "c")
        assert state(any_saver) == {"x": 4}

    asyncio.run(run())


@pytest.mark.parametrize("location", ["memory:", "log"])
def test_what_waits_for_nobody_is_done_by_the_loop(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def run() -> None:
        await aput(saver, "a", {"x": 1})
        await aput(saver, "b", {"x": 2}, "a")

    with EventLogSaver(location) as saver:
        monkeypatch.setattr(asyncio, "to_thread", None)
        asyncio.run(run())
        assert state(saver) == {"x": 2}


def test_what_waits_for_another_writer_is_done_beside_the_loop(tmp_path):
    async def run() -> None:
        await aput(saver, "a", {"x": 1})
        other = os.open(tmp_path / "log" / "journal" / "lock", os.O_RDWR)
        fcntl.flock(other, fcntl.LOCK_EX)  # of another open file: as another process has it
        putting = asyncio.create_task(aput(saver, "b", {"x": 2}, "a"))
        await asyncio.sleep(0.05)
        assert not putting.done()
        os.close(other)
        await putting

    with EventLogSaver(tmp_path / "log") as saver:
        asyncio.run(run())
        assert state(saver) == {"x": 2}


def test_a_saver_goes_on_with_a_thread_that_somebody_deleted_before(any_saver):
    other = EventLogSaver(any_saver.log)

    async def run() -> None:
        await aput(any_saver, "a", {"x": 1})
        other.delete_thread("t")
        await aput(any_saver, "b", {"x": 2}, "a")
        assert state(any_saver) == {"x": 2}
        assert state(any_saver, "a") is None

    asyncio.run(run())


# --- SQLite ---------------------------------------------------------------------------------------------------------


def test_sqlite_saver_keeps_one_file_that_others_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SqliteSaver("agent.db") as saver, EventLogSaver(f"sqlite:///{tmp_path}/agent.db") as other:
        put(saver, "a", {"x": 1})
        assert state(other) == {"x": 1}
        put(other, "b", {"x": 2}, "a")
        assert state(saver) == {"x": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["agent.db"]
    with SqliteSaver(tmp_path / "agent.db") as again:
        assert state(again, "a") == {"x": 1}
        assert list(again.log.verify()) == []


@pytest.mark.parametrize("path", [":memory:", "", "sqlite:///agent.db"])
def test_sqlite_saver_wants_a_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="names no file"):
        SqliteSaver(path)
    assert not list(tmp_path.iterdir())


# --- cost -----------------------------------------------------------------------------------------------------------


def test_a_step_costs_what_it_changed():
    with EventLogSaver("memory:") as saver:
        big: dict[str, Any] = {"text": "x" * 1_000_000, "rows": [{"n": n, "t": "r" * 90} for n in range(3_000)]}
        put(saver, "000", {**big, "note": 0})

        def cost(each: EventLogSaver, name: str, after: dict[str, Any], parent: str | None) -> int:
            before = saver.log.stats().bytes
            put(each, name, after, parent)
            return saver.log.stats().bytes - before

        costs = [cost(saver, f"{n:03}", {**big, "note": n}, f"{n - 1:03}") for n in range(1, 60)]
        assert max(costs) < 2_000
        assert sum(costs) < 60 * 1_000
        equal = copy.deepcopy(big)
        assert cost(saver, "100", {**equal, "note": -1}, "059") < 2_000
        assert cost(saver, "101", {**big, "note": "fork"}, "030") < 4_000
        assert cost(saver, "102", {**big, "note": "no parent"}, None) < 4_000
        assert cost(saver, "103", {**big, "note": "gone"}, "gone") < 4_000
        assert cost(EventLogSaver(saver.log), "104", {**big, "note": "another saver"}, "103") < 4_000
        assert cost(saver, "104", {**big, "note": "again"}, "103") < 4_000
        equal["rows"].append({"n": -1, "t": "grown"})
        equal["rows"][5]["t"] = "changed in place"
        assert cost(saver, "105", {**big, "rows": [*big["rows"], {"n": -1}], "note": 0}, "104") < 4_000
        assert state(saver, "030") == {**big, "note": 30}
        assert state(saver, "101") == {**big, "note": "fork"}
        assert metadata(saver, "101").writes == {"note": "fork"}
        assert metadata(saver, "104").writes == {"note": "again"}
        assert list(saver.log.verify()) == []


def test_a_list_that_grows_costs_what_was_added():
    with EventLogSaver("memory:") as saver:
        rows: list[str] = []
        for step in range(400):
            rows.append(f"{step:0100}")
            put(saver, f"{step:04}", {"rows": rows}, f"{step - 1:04}" if step else None)
        assert saver.log.stats().bytes < 12 * 400 * 100
        assert state(saver, "0123") == {"rows": rows[:124]}
