"""What LangGraph asks of a checkpointer, statement by statement of its contract; upstream's saver is asked the same.

A test's number is the statement's. Where the contract says that savers differ, ours alone is asked.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import re
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import ERROR, INTERRUPT, RESUME, SCHEDULED
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send

from eventlog import (
    CorruptionError,
    EventLog,
    EventLogError,
    InvalidIdError,
    NotFoundError,
    TooDeepError,
    TooLargeError,
    UnknownTypeError,
    UnserializableError,
)
from eventlog.storage.memory import MemoryStorage
from savers.langgraph import EventLogSaver
from tests.counting import CountingStorage, with_frames_left
from tests.engines import LOCATIONS
from tests.langgraph.upstream import InMemorySaver
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NULL_TASK = "00000000-0000-0000-0000-000000000000"
DEEP_NAMESPACE = "|".join(f"node{n}:{n:08x}-1111-2222-3333-444444444444" for n in range(14))


@dataclass
class Foreign:
    """A user's class, which nobody allowed."""

    text: str


@pytest.fixture(params=LOCATIONS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return LOCATIONS[request.param](tmp_path)


@pytest.fixture
def saver(location: str) -> Iterator[EventLogSaver]:
    """A saver on an empty log, which is verified afterwards."""
    with EventLogSaver.from_conn_string(location) as opened:
        yield opened
        assert list(opened.log.verify()) == []


@pytest.fixture
def theirs() -> InMemorySaver:
    return InMemorySaver()


@pytest.fixture
def both(saver: EventLogSaver, theirs: InMemorySaver) -> Callable[[Callable[[Any], Any]], Any]:
    """Do the same to both savers; the answers have to be equal."""

    def run(call: Callable[[Any], Any]) -> Any:
        ours, upstreams = call(saver), call(theirs)
        assert ours == upstreams
        return ours

    return run


def config(checkpoint_id: str | None = None, thread: Any = "t", ns: str | None = "", **more: Any) -> dict[str, Any]:
    named = {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id, **more}
    return {"configurable": {key: value for key, value in named.items() if value is not None}}


def checkpoint(
    checkpoint_id: str,
    values: dict[str, Any] | None = None,
    versions: dict[str, Any] | None = None,
    seen: dict[str, Any] | None = None,
    **rest: Any,
) -> dict[str, Any]:
    values = {} if values is None else values
    return {
        "v": 4,
        "ts": "2026-01-01T00:00:00+00:00",
        "id": checkpoint_id,
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1) if versions is None else versions,
        "versions_seen": seen or {},
        **rest,
    }


def put(
    saver: Any,
    checkpoint_id: str,
    values: dict[str, Any] | None = None,
    versions: dict[str, Any] | None = None,
    *,
    parent: str | None = None,
    new: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    thread: Any = "t",
    ns: str = "",
) -> dict[str, Any]:
    """Put a checkpoint; all of its versions are new unless `new` says which."""
    made = checkpoint(checkpoint_id, values, versions)
    new = made["channel_versions"] if new is None else new
    return saver.put(config(parent, thread, ns), made, metadata or {"source": "loop", "step": 1, "parents": {}}, new)


def shown(found: Any) -> Any:
    """A tuple as what it says. Upstream's config is the one it was asked with, so only its three keys count."""
    if found is None:
        return None
    where = {"checkpoint_ns": "", **found.config["configurable"]}
    return {
        "config": {key: where[key] for key in ("thread_id", "checkpoint_ns", "checkpoint_id")},
        "checkpoint": dict(found.checkpoint),
        "metadata": dict(found.metadata),
        "parent": found.parent_config,
        "writes": [tuple(write) for write in found.pending_writes or []],
    }


def got(saver: Any, checkpoint_id: str | None = None, thread: Any = "t", ns: str | None = "") -> Any:
    return shown(saver.get_tuple(config(checkpoint_id, thread, ns)))


def values(saver: Any, checkpoint_id: str | None = None, thread: str = "t", ns: str = "") -> dict[str, Any]:
    return saver.get_tuple(config(checkpoint_id, thread, ns)).checkpoint["channel_values"]


def writes(saver: Any, checkpoint_id: str | None = None, thread: str = "t") -> list[tuple[str, str, Any]]:
    return [tuple(write) for write in saver.get_tuple(config(checkpoint_id, thread)).pending_writes]


def listed(saver: Any, *arguments: Any, **options: Any) -> list[tuple[str, str, str]]:
    found = [item.config["configurable"] for item in saver.list(*arguments, **options)]
    return [(item["thread_id"], item["checkpoint_ns"], item["checkpoint_id"]) for item in found]


def ids(saver: Any, *arguments: Any, **options: Any) -> list[str]:
    return [checkpoint_id for _, _, checkpoint_id in listed(saver, *arguments, **options)]


# --- identity, namespaces -------------------------------------------------------------------------------------------


def test_s01_an_int_thread_id_is_its_string_on_every_path(saver):
    made = put(saver, "a", {"x": 1}, thread=1)
    assert made["configurable"]["thread_id"] == "1"
    saver.put_writes(config("a", 1), [("x", 2)], "task")
    assert got(saver, thread=1) == got(saver, thread="1") == got(saver, "a", 1)
    assert got(saver, thread=1)["config"]["thread_id"] == "1"
    assert writes(saver, "a", "1") == [("task", "x", 2)]
    assert listed(saver, config(thread=1)) == listed(saver, config(thread="1")) == [("1", "", "a")]
    put(saver, "b", {"x": 3}, parent="a", thread="1")
    saver.delete_thread(1)
    assert got(saver, thread="1") is None


@pytest.mark.parametrize("bad", [True, None, "", {}, b"t", 1.5, [], ("t",), "a\x00b", "\ud800", "x" * 256])
def test_s01_wrong_thread_ids_are_refused_on_every_path(saver, bad):
    wrong = {"configurable": {"thread_id": bad, "checkpoint_ns": "", "checkpoint_id": "a"}}
    calls = [
        lambda: saver.put(wrong, checkpoint("b"), {}, {}),
        lambda: saver.put_writes(wrong, [("x", 1)], "task"),
        lambda: saver.get_tuple(wrong),
        lambda: list(saver.list(wrong)),
        lambda: saver.delete_thread(bad),
    ]
    for call in calls:
        with pytest.raises(InvalidIdError, match="thread_id"):
            call()
    assert list(saver.log.runs()) == []


@pytest.mark.parametrize("empty", [{}, {"configurable": {}}, {"configurable": {"checkpoint_ns": ""}}])
def test_s01_a_config_without_a_thread_is_refused(saver, empty):
    for call in (saver.get_tuple, lambda given: list(saver.list(given)), lambda given: saver.put(given, {}, {}, {})):
        with pytest.raises(InvalidIdError):
            call(empty)


@pytest.mark.parametrize("bad", [True, False, {}, {"$gt": ""}, b"a", 1, 0, [], "a\x00", "\ud800", "x" * 256])
def test_s01_wrong_checkpoint_ids_are_refused_on_every_path(saver, bad):
    put(saver, "a", {"x": 1})
    wrong = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": bad}}
    calls = [
        lambda: saver.put(wrong, checkpoint("b"), {}, {}),
        lambda: saver.put(config(), checkpoint(bad), {}, {}),
        lambda: saver.put_writes(wrong, [("x", 1)], "task"),
        lambda: saver.get_tuple(wrong),
        lambda: list(saver.list(wrong)),
        lambda: list(saver.list(config(), before=wrong)),
    ]
    for call in calls:
        with pytest.raises(InvalidIdError):
            call()
    assert ids(saver, config()) == ["a"]


def test_s01_none_and_empty_checkpoint_ids_name_the_latest(both):
    both(lambda saver: put(saver, "a"))
    for absent in (None, ""):
        where = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": absent}}
        assert both(lambda saver, where=where: saver.get_tuple(where).checkpoint["id"]) == "a"
        assert both(lambda saver, where=where: ids(saver, where)) == ["a"]


@pytest.mark.parametrize("absent", [None, ""])
def test_s01_no_id_names_no_checkpoint_to_write(saver, absent):
    where = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": absent}}
    with pytest.raises(InvalidIdError):
        saver.put_writes(where, [("x", 1)], "task")
    with pytest.raises(InvalidIdError):
        saver.put(config(), checkpoint(absent), {}, {})


@pytest.mark.parametrize("bad", [True, False, {}, [], b"n", b"", 1, 0, ("n",), "a\x00", "\ud800"])
def test_s01_wrong_namespaces_are_refused_on_every_path(saver, bad):
    put(saver, "a", {"x": 1})
    wrong = {"configurable": {"thread_id": "t", "checkpoint_ns": bad, "checkpoint_id": "a"}}
    calls = [
        lambda: saver.put(wrong, checkpoint("b"), {}, {}),
        lambda: saver.put_writes(wrong, [("x", 1)], "task"),
        lambda: saver.get_tuple(wrong),
        lambda: list(saver.list(wrong)),
    ]
    for call in calls:
        with pytest.raises(InvalidIdError, match="checkpoint_ns"):
            call()


@pytest.mark.parametrize("bad", [True, None, "", {}, b"task", 1])
def test_s01_wrong_task_ids_are_refused(saver, bad):
    put(saver, "a")
    with pytest.raises(InvalidIdError):
        saver.put_writes(config("a"), [("x", 1)], bad)
    assert writes(saver, "a") == []


def test_s02_a_missing_namespace_is_the_root_but_all_of_them_in_list(both):
    for ns in ("", "child:1", "child:1|leaf:2"):
        both(lambda saver, ns=ns: put(saver, f"in {ns}", {"x": ns}, ns=ns))
    assert both(lambda saver: got(saver, ns=None))["checkpoint"]["id"] == "in "
    assert both(lambda saver: got(saver, "in child:1", ns=None)) is None
    both(lambda saver: saver.put_writes(config("in ", ns=None), [("x", 1)], "task"))
    assert both(lambda saver: writes(saver, "in ")) == [("task", "x", 1)]
    assert both(lambda saver: sorted(ids(saver, config(ns=None)))) == ["in ", "in child:1", "in child:1|leaf:2"]
    assert both(lambda saver: ids(saver, config(ns=""))) == ["in "]
    assert both(lambda saver: ids(saver, config(ns="child:1"))) == ["in child:1"]
    assert both(lambda saver: ids(saver, config(ns="child"))) == []
    assert both(lambda saver: ids(saver, config("in child:1", ns=None))) == ["in child:1"]


def test_s03_namespaces_may_be_longer_than_a_key_and_never_touch(both):
    assert len(DEEP_NAMESPACE) > 511
    names = [DEEP_NAMESPACE, DEEP_NAMESPACE[:-1], "a", "a|", "a|1", "a:b", "|", "../..", "ä\N{GRINNING FACE}", "A", "~"]
    for number, ns in enumerate(names):
        both(lambda saver, n=number, ns=ns: put(saver, f"{n}", {"x": n}, ns=ns))
        both(lambda saver, n=number, ns=ns: saver.put_writes(config(f"{n}", ns=ns), [("y", n)], "task"))
    for number, ns in enumerate(names):
        found = both(lambda saver, ns=ns: got(saver, ns=ns))
        assert found["checkpoint"]["channel_values"] == {"x": number}
        assert found["writes"] == [("task", "y", number)]
        assert both(lambda saver, ns=ns: ids(saver, config(ns=ns))) == [f"{number}"]
    assert both(got) is None


def test_s03_a_thread_and_a_namespace_are_never_one_string(both):
    for thread, ns in [("a", "b|c"), ("a|b", "c"), ("ab", "c"), ("a", "bc"), ("a", ""), ("a|b|c", "")]:
        both(lambda saver, t=thread, n=ns: put(saver, f"{t}/{n}", {"x": [t, n]}, thread=t, ns=n))
    for thread, ns in [("a", "b|c"), ("a|b", "c"), ("ab", "c"), ("a", "bc"), ("a", ""), ("a|b|c", "")]:
        assert both(lambda saver, t=thread, n=ns: ids(saver, config(thread=t, ns=n))) == [f"{thread}/{ns}"]


def test_s04_put_returns_where_it_put(saver):
    made = put(saver, "a", ns="n")
    assert made == {"configurable": {"thread_id": "t", "checkpoint_ns": "n", "checkpoint_id": "a"}}
    where = {"configurable": {"thread_id": "t"}}
    assert saver.put(where, checkpoint("b"), {}, {})["configurable"]["checkpoint_ns"] == ""


def test_s05_the_parent_is_the_one_named_and_never_a_guess(both):
    both(lambda saver: put(saver, "a", {"x": 1}))
    both(lambda saver: put(saver, "b", {"x": 2}, {"x": 2}))
    both(lambda saver: put(saver, "c", {"x": 3}, {"x": 3}, parent="a"))
    both(lambda saver: put(saver, "d", {"x": 4}, {"x": 4}, parent="gone"))
    found = {n: both(lambda saver, n=n: got(saver, n))["parent"] for n in "abcd"}
    assert found == {"a": None, "b": None, "c": config("a"), "d": config("gone")}


def test_s06_the_latest_is_the_greatest_id_not_the_last_put(both):
    for name in ("b", "c", "a"):
        both(lambda saver, name=name: put(saver, name, {"x": name}, {"x": name}))
    assert both(got)["checkpoint"]["id"] == "c"
    assert both(lambda saver: got(saver, "nope")) is None
    assert both(lambda saver: got(saver, "c", thread="nope")) is None
    assert both(lambda saver: got(saver, thread="nope")) is None
    assert both(lambda saver: got(saver, ns="nope")) is None


def test_s07_before_is_lexicographic_and_may_come_from_elsewhere(both):
    for name in ("1", "10", "2", "9", "a"):
        both(lambda saver, name=name: put(saver, name))
    both(lambda saver: put(saver, "5", ns="child"))
    list_before = lambda before, **more: both(lambda saver: ids(saver, config(), before=before, **more))
    assert list_before(config("2")) == ["10", "1"]
    assert list_before({"configurable": {"checkpoint_id": "5"}}) == ["2", "10", "1"]
    assert list_before({"configurable": {"checkpoint_id": "5"}}, limit=1) == ["2"]
    assert list_before(config("5", thread="other", ns="child")) == ["2", "10", "1"]
    assert list_before({"configurable": {"checkpoint_id": "0"}}) == []
    assert list_before({"configurable": {}}) == ["a", "9", "2", "10", "1"]
    assert both(lambda saver: ids(saver, config("10"), before=config("2"))) == ["10"]
    assert both(lambda saver: ids(saver, config("9"), before=config("2"))) == []


@pytest.mark.parametrize(
    "name", ["1", "2-inner", "z" * 255, "é", "\N{GRINNING FACE}", "e0.0.00000000", "main", "~", " ", "../x"]
)
def test_s08_any_string_may_be_an_id(both, name):
    both(lambda saver: saver.put_writes(config(name), [("x", "early")], "task"))
    assert both(lambda saver: got(saver, name)) is None
    both(lambda saver: put(saver, name, {"x": 1}))
    both(lambda saver: put(saver, "0", {"x": 2}, {"x": 2}, parent=name))
    both(lambda saver: saver.put_writes(config(name), [("y", "late")], "task2"))
    assert both(lambda saver: got(saver, name))["writes"] == [("task", "x", "early"), ("task2", "y", "late")]
    assert both(lambda saver: got(saver, "0"))["parent"] == config(name)
    assert both(lambda saver: got(saver, "e0.1.00000000")) is None


def test_s08_an_events_own_id_is_no_checkpoint(saver):
    put(saver, "a", {"x": 1})
    event = saver.log.run("t", codec=_codec(saver)).event("a")
    assert got(saver, f"e{event.segment}.{event.seq}.{event.digest[:4].hex()}") is None


def test_s08_a_childs_id_may_sort_below_its_parents(both):
    both(lambda saver: put(saver, "m", {"x": [1]}))
    both(lambda saver: put(saver, "b", {"x": [1, 2]}, {"x": 2}, parent="m"))
    both(lambda saver: put(saver, "a", {"x": [1, 2, 3]}, {"x": 3}, parent="b"))
    assert both(lambda saver: ids(saver, config())) == ["m", "b", "a"]
    assert both(values) == {"x": [1]}
    assert both(lambda saver: values(saver, "a")) == {"x": [1, 2, 3]}


# --- put ------------------------------------------------------------------------------------------------------------


def test_s09_full_values_without_new_versions_read_back(saver):
    put(saver, "a", {"x": 1, "y": [2]}, {"x": 5, "y": "6.1"}, new={})
    assert values(saver, "a") == {"x": 1, "y": [2]}
    put(saver, "b", {"x": "other", "y": [2]}, {"x": 7, "y": "6.1"}, new={}, parent="a")
    assert values(saver, "b") == {"x": "other", "y": [2]}
    put(saver, "c", {"x": "moved back", "y": [2]}, {"x": 5, "y": "6.1"}, new={}, parent="b")
    assert values(saver, "c") == {"x": "moved back", "y": [2]}


@pytest.mark.parametrize("parent", [None, "gone"])
def test_s09_without_a_parent_no_other_checkpoint_of_that_version_is_taken_for_it(saver, parent):
    put(saver, "a", {"x": "a's", "kept": 0}, {"x": 1, "kept": 1})
    put(saver, "b", {"x": "b's", "kept": 0}, {"x": 1, "kept": 1}, new={}, parent=parent)
    assert values(saver, "b") == {"x": "b's", "kept": 0}
    assert values(saver, "a") == {"x": "a's", "kept": 0}


def test_s10_a_new_version_without_a_value_is_empty(both):
    both(lambda saver: put(saver, "a", {"x": 1, "y": 1}))
    both(lambda saver: put(saver, "b", {"y": 1}, {"x": 2, "y": 1}, parent="a", new={"x": 2}))
    both(lambda saver: put(saver, "c", {"y": 2}, {"x": 2, "y": 2}, parent="b", new={"y": 2}))
    both(lambda saver: put(saver, "d", {"x": 3, "y": 2}, {"x": 3, "y": 2}, parent="c", new={"x": 3}))
    both(lambda saver: put(saver, "first", {}, {"never": 1}, new={"never": 1}))
    found = {name: both(lambda saver, name=name: values(saver, name)) for name in ["a", "b", "c", "d", "first"]}
    assert found == {"a": {"x": 1, "y": 1}, "b": {"y": 1}, "c": {"y": 2}, "d": {"x": 3, "y": 2}, "first": {}}
    assert both(lambda saver: got(saver, "c"))["checkpoint"]["channel_versions"] == {"x": 2, "y": 2}


def test_s10_none_is_a_value(both):
    both(lambda saver: put(saver, "a", {"x": None, "y": 0, "z": "", "list": []}))
    assert both(lambda saver: values(saver, "a")) == {"x": None, "y": 0, "z": "", "list": []}
    both(lambda saver: put(saver, "b", {"x": 1, "y": None}, {"x": 2, "y": 2}, parent="a"))
    assert both(lambda saver: values(saver, "b")) == {"x": 1, "y": None}


def test_s11_a_channel_without_a_version_is_gone(both):
    both(lambda saver: put(saver, "a", {"x": 1, "y": [2]}))
    both(lambda saver: put(saver, "b", {"x": 1}, {"x": 1}, parent="a", new={}))
    assert both(lambda saver: values(saver, "b")) == {"x": 1}
    both(lambda saver: put(saver, "c", {}, {}, parent="b", new={}))
    assert both(lambda saver: values(saver, "c")) == {}
    both(lambda saver: put(saver, "d", {"y": [3]}, {"y": 2}, parent="c"))
    assert both(lambda saver: values(saver, "d")) == {"y": [3]}
    assert both(lambda saver: values(saver, "a")) == {"x": 1, "y": [2]}


def test_s12_unchanged_channels_read_back_at_mixed_versions(both):
    for step in range(1, 30):
        versions = {"every": step, "third": step // 3 + 1, "once": 1}
        new = {
            name: v
            for name, v in versions.items()
            if step == 1 or (name == "third" and step % 3 == 0) or name == "every"
        }
        state = {"every": step, "third": [step // 3], "once": "x" * 1000}
        parent = f"{step - 1:03}" if step > 1 else None
        both(lambda s, a=(f"{step:03}", state, versions, parent, new): put(s, a[0], a[1], a[2], parent=a[3], new=a[4]))
    for step in range(1, 30):
        found = both(lambda saver, step=step: values(saver, f"{step:03}"))
        assert found == {"every": step, "third": [step // 3], "once": "x" * 1000}


def test_s13_the_same_version_may_hold_another_value(saver):
    put(saver, "a", {"x": "a"})
    put(saver, "b", {"x": "b"}, parent="a")
    put(saver, "c", {"x": "c"}, parent="a")
    put(saver, "d", {"x": "d"})
    assert [values(saver, name)["x"] for name in "abcd"] == ["a", "b", "c", "d"]


def test_s14_putting_an_id_again_replaces_it_and_keeps_its_writes(both):
    both(lambda saver: put(saver, "a", {"x": 1, "old": 1}))
    both(lambda saver: put(saver, "b", {"x": 2}, {"x": 2}, parent="a"))
    both(lambda saver: saver.put_writes(config("a"), [("x", "w")], "task"))
    both(lambda saver: put(saver, "a", {"x": 3}, {"x": 3}, metadata={"source": "update", "step": 9, "why": "again"}))
    found = both(lambda saver: got(saver, "a"))
    assert found["checkpoint"]["channel_values"] == {"x": 3}
    assert found["metadata"] == {"source": "update", "step": 9, "why": "again"}
    assert found["writes"] == [("task", "x", "w")]
    assert both(lambda saver: ids(saver, config())) == ["b", "a"]
    assert both(lambda saver: values(saver, "b")) == {"x": 2}
    both(lambda saver: saver.put_writes(config("a"), [("x", "ignored"), ("y", "more")], "task"))
    assert both(lambda saver: writes(saver, "a")) == [("task", "x", "w"), ("task", "y", "more")]
    both(lambda saver: put(saver, "c", {"x": 3, "z": 0}, {"x": 3, "z": 1}, parent="a", new={"z": 1}))
    assert both(lambda saver: values(saver, "c")) == {"x": 3, "z": 0}


def test_s14_putting_an_id_again_many_times(both):
    both(lambda saver: saver.put_writes(config("a"), [("x", "before")], "task"))
    for number in range(12):
        both(lambda saver, n=number: put(saver, "a", {"x": [n] * n}, {"x": n}, parent="p" if n % 2 else None))
        both(lambda s, n=number: put(s, f"child {n:02}", {"x": [n] * n, "n": n}, {"x": n, "n": n}, parent="a"))
        assert both(lambda saver: got(saver, "a"))["parent"] == (config("p") if number % 2 else None)
    assert both(lambda saver: writes(saver, "a")) == [("task", "x", "before")]
    assert both(lambda saver: values(saver, "a")) == {"x": [11] * 11}
    for number in range(12):
        found = both(lambda saver, n=number: values(saver, f"child {n:02}"))
        assert found == {"x": [number] * number, "n": number}


@pytest.mark.parametrize("parent", [None, "a", "b", "gone"])
def test_s14_what_was_put_again_beside_the_head_is_seen_by_everyone(saver, parent):
    put(saver, "a", {"x": 1})
    put(saver, "b", {"x": 2}, {"x": 2}, parent="a")
    put(saver, "b", {"x": "again"}, {"x": 3}, parent=parent)
    for each in (saver, EventLogSaver(saver.log), EventLogSaver(saver.log)):
        assert values(each, "b") == values(each) == {"x": "again"}
        assert got(each, "b")["parent"] == (config(parent) if parent else None)
        assert [item.checkpoint["channel_values"] for item in each.list(config())] == [{"x": "again"}, {"x": 1}]
    put(EventLogSaver(saver.log), "c", {"x": "again", "y": 1}, {"x": 3, "y": 1}, parent="b", new={"y": 1})
    assert values(saver) == {"x": "again", "y": 1}


def test_s14_parents_may_form_a_cycle(both):
    both(lambda saver: put(saver, "a", {"x": 1}))
    both(lambda saver: put(saver, "b", {"x": 2}, {"x": 2}, parent="a"))
    both(lambda saver: put(saver, "a", {"x": 3}, {"x": 3}, parent="b"))
    both(lambda saver: put(saver, "self", {"x": 4}, {"x": 4}, parent="self"))
    both(lambda saver: put(saver, "self", {"x": 5}, {"x": 5}, parent="self"))
    found = {name: both(lambda saver, name=name: got(saver, name)) for name in ("a", "b", "self")}
    assert {name: item["parent"] for name, item in found.items()} == {
        "a": config("b"),
        "b": config("a"),
        "self": config("self"),
    }
    assert both(lambda saver: ids(saver, config())) == ["self", "b", "a"]
    both(lambda saver: put(saver, "c", {"x": 3, "y": 1}, {"x": 3, "y": 1}, parent="a", new={"y": 1}))
    assert both(lambda saver: values(saver, "c")) == {"x": 3, "y": 1}


def test_s15_put_changes_nothing_it_was_given(saver):
    given = (
        config("p", run_id="r"),
        checkpoint("a", {"x": [{"k": {1}}]}, seen={"n": {"x": 1}}, pending_sends=[]),
        {"source": "loop", "step": 1, "parents": {}, "nul": "a\x00b"},
        {"x": 1},
    )
    before = copy.deepcopy(given)
    saver.put(*given)
    assert strictly_equal(list(given), list(before))
    task = [("x", [1]), (INTERRUPT, [{"a": 1}])]
    saver.put_writes(given[0], task, "task")
    assert task == [("x", [1]), (INTERRUPT, [{"a": 1}])]


def test_s15_what_is_given_in_and_out_is_not_what_is_kept(both):
    made = [checkpoint("a", {"x": [[1]], "d": {"k": []}}, seen={"n": {"x": 1}}) for _ in range(2)]
    metadata = [{"source": "loop", "step": 1, "tags": [1]} for _ in range(2)]
    spare, mine, mine_too = iter(made), iter(metadata), []

    def put_one(saver: Any) -> None:
        given = next(spare)
        saver.put(config(), given, next(mine), given["channel_versions"])
        mine_too.append(written := [[1]])
        saver.put_writes(config("a"), [("x", written)], "task")

    both(put_one)
    first = both(lambda saver: copy.deepcopy(got(saver, "a")))
    for given, described, written in zip(made, metadata, mine_too, strict=True):
        given["channel_values"]["x"][0].append(2)
        given["channel_values"]["d"]["k"].append(2)
        given["channel_versions"]["x"] = 9
        given["versions_seen"]["n"]["x"] = 9
        described["tags"].append(2)
        written[0].append(2)
    assert both(lambda saver: got(saver, "a")) == first

    def spoil(saver: Any) -> None:
        for found in [saver.get_tuple(config("a")), saver.get_tuple(config()), *saver.list(config())]:
            found.checkpoint["channel_values"]["x"][0].append(3)
            found.checkpoint["channel_values"]["d"].clear()
            found.checkpoint["channel_versions"].clear()
            found.checkpoint["versions_seen"]["n"]["x"] = 9
            found.metadata["tags"].append(3)
            found.pending_writes[0][2].append(3)
            found.pending_writes.clear()
            found.config["configurable"]["checkpoint_id"] = "spoiled"

    both(spoil)
    assert both(lambda saver: got(saver, "a")) == first


def _mutables() -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Values, and how each is changed in place, from the top to deep within."""
    return {
        "list": ([1], lambda v: v.append(2)),
        "list item": ([1, 2], lambda v: v.__setitem__(0, True)),
        "deep": ([{"k": [{"deep": [1]}]}], lambda v: v[0]["k"][0]["deep"].append(2)),
        "dict": ({"a": 1, "b": 2}, lambda v: v.__setitem__("a", v.pop("a"))),
        "set": ({1}, lambda v: v.add(2)),
        "set within": ({"k": {1}}, lambda v: v["k"].add(2)),
        "bytearray": (bytearray(b"a"), lambda v: v.extend(b"b")),
        "deque": (deque([1]), lambda v: v.append(2)),
        "message": ([HumanMessage("a", id="1"), AIMessage("b", id="2")], lambda v: setattr(v[1], "content", "c")),
        "message kwargs": ([AIMessage("b", id="2")], lambda v: v[0].additional_kwargs.update(k=[1])),
        "type": ([1, 1.0, True], lambda v: v.reverse()),
        "bytes within": ([bytearray(b"a"), {"k": 1}], lambda v: v.__setitem__(0, bytearray(b"b"))),
        "tuple within": ([([1],)], lambda v: v[0][0].append(2)),
    }


def _as_kept(saver: Any, value: Any) -> Any:
    """A copy, as the serializer makes it: of a tuple within something it makes a list."""
    return saver.serde.loads_typed(saver.serde.dumps_typed(value))


@pytest.mark.parametrize("kind", _mutables())
@pytest.mark.parametrize("loaded", [False, True])
def test_s15_what_was_changed_in_place_is_recorded(saver, kind, loaded):
    value, change = _mutables()[kind]
    put(saver, "1", {"x": value, "rest": ["r"]})
    for number in range(2, 5):
        before = _as_kept(saver, value)
        if loaded:
            value = values(saver, f"{number - 1}")["x"]
        change(value)
        after = _as_kept(saver, value)
        new = {"x": number}
        put(saver, f"{number}", {"x": value, "rest": ["r"]}, {"x": number, "rest": 1}, parent=f"{number - 1}", new=new)
        assert strictly_equal(values(saver, f"{number}")["x"], after)
        assert strictly_equal(values(saver, f"{number - 1}")["x"], before)


def test_s16_every_other_key_of_a_checkpoint_survives(saver):
    for v in (1, 2, 3, 4):
        made = checkpoint(
            f"{v}", {"x": v}, v=v, pending_sends=[Send("n", [1])], updated_channels=["x"], future={"k": [1]}
        )
        saver.put(config(), made, {}, made["channel_versions"])
        found = saver.get_tuple(config(f"{v}")).checkpoint
        assert dict(found) == made


@pytest.mark.parametrize("key", ["parent", "parents", "id2", "meta", "~rest", "~versions", "rest", "metadata", ""])
@pytest.mark.parametrize("parent", [None, "p"])
def test_s16_no_other_key_is_taken_for_one_of_ours(both, key, parent):
    made = checkpoint("a", {"x": 1}, **{key: "theirs"})
    both(lambda saver: saver.put(config(parent), made, {"source": "loop", "step": 1}, {"x": 1}))
    found = both(lambda saver: got(saver, "a"))
    assert found["checkpoint"] == made
    assert found["parent"] == (config("p") if parent else None)


def test_s16_missing_keys_are_tolerated(saver):
    made = checkpoint("a", {"x": 1})
    for key in ("channel_values", "ts", "v"):
        less = {**made, "id": key, "channel_versions": {}}
        del less[key]
        saver.put(config(), less, {}, {})
        assert "updated_channels" not in saver.get_tuple(config(key)).checkpoint
        assert saver.get_tuple(config(key)).checkpoint["channel_values"] in ({}, {"x": 1})


@pytest.mark.parametrize("name", ["~versions", "~seen", "~metadata", "~rest", "~", "~~", "~~rest", "a.b", "$type", "é"])
def test_s16_channels_may_have_our_own_names(both, name):
    both(lambda saver: put(saver, "a", {name: [1], "x": 1}))
    both(lambda saver: put(saver, "b", {name: [1, 2], "x": 1}, {name: 2, "x": 1}, parent="a", new={name: 2}))
    both(lambda saver: put(saver, "c", {"x": 1}, {"x": 1}, parent="b", new={}))
    assert both(lambda saver: values(saver, "b")) == {name: [1, 2], "x": 1}
    assert both(lambda saver: values(saver, "c")) == {"x": 1}
    assert both(lambda saver: got(saver, "b"))["metadata"] == {"source": "loop", "step": 1, "parents": {}}


def test_s17_versions_seen_round_trips(both):
    seen = {
        "__input__": {},
        "__interrupt__": {"x": "00000000000000000000000000000001.0.5", "branch:to:n": 2},
        "__snapshot_bumps__": {"x": 3},
        "node": {"__start__": 1.5},
    }
    both(lambda saver: saver.put(config(), checkpoint("a", seen=seen), {}, {}))
    assert list(both(got)["checkpoint"]["versions_seen"].items()) == list(seen.items())
    less = {"node": {"__start__": 2.5, "x": 1}}
    both(lambda saver: saver.put(config("a"), checkpoint("b", seen=less), {}, {}))
    assert both(got)["checkpoint"]["versions_seen"] == less


def test_s18_values_are_encoded_before_aput_first_waits(saver):
    async def run() -> None:
        growing: list[Any] = [[1]]
        made = checkpoint("a", {"x": growing})
        putting = saver.aput(config(), made, {"source": "loop", "step": 1}, {"x": 1})
        with suppress(StopIteration):  # where nobody has to be waited for
            putting.send(None)  # until it first waits
        growing[0].append("too late")
        growing.append("too late")
        putting.close()
        putting = asyncio.create_task(saver.aput(config(), checkpoint("b", {"x": growing}), {}, {"x": 1}))
        await asyncio.sleep(0)
        growing.append("too late as well")
        await putting

    asyncio.run(run())  # ends once all threads have: the first put goes on in one, though nobody waits for it
    assert got(saver, "a") is None or values(saver, "a") == {"x": [[1]]}
    assert values(saver, "b") == {"x": [[1, "too late"], "too late"]}


def test_s19_the_stub_of_exit_mode(both):
    both(lambda saver: saver.put(config(), checkpoint("a"), {"step": -2}, {}))
    found = both(got)
    assert (found["metadata"], found["checkpoint"]["channel_values"], found["parent"]) == ({"step": -2}, {}, None)
    for step, (name, parent) in enumerate([("b", "a"), ("c", "b"), ("d", "c")], -1):
        metadata = {"source": "loop", "step": step}
        both(lambda s, n=name, p=parent, m=metadata: put(s, n, {"x": n}, {"x": n}, parent=p, metadata=m))
        assert both(got)["metadata"] == metadata


@pytest.mark.parametrize("step", [-5, 0, 7, 2**40, None, "3", 1.5, True])
def test_s19_a_step_is_what_the_writer_says(both, step):
    for name, parent in [("a", None), ("b", "a"), ("c", "a"), ("d", "gone")]:
        both(lambda s, n=name, p=parent: put(s, n, {"x": n}, {"x": n}, parent=p, metadata={"step": step}))
        assert both(lambda saver, n=name: got(saver, n))["metadata"] == {"step": step}


# --- metadata -------------------------------------------------------------------------------------------------------


def test_s20_metadata_is_merged_from_the_config(both):
    where = {
        **config(
            "p", run_id="r", user="u", score=1.5, ok=True, nothing=None, deep={"a": 1}, __secret="s", checkpoint_map={}
        ),
        "metadata": {
            "tenant": "a\x00b",
            "source": "config's",
            "langgraph_step": 3,
            "thread_id": "x",
            "user": "metadata's",
        },
    }
    metadata = {"source": "loop", "step": 1, "text": "a\x00b", "nested": {"n": [1, None]}, "counters": {"x": (1, 2)}}
    both(lambda saver: saver.put(where, checkpoint("a"), metadata, {}))
    found = both(lambda saver: got(saver, "a"))["metadata"]
    assert (found["text"], found["tenant"], found["user"], found["source"]) == ("ab", "ab", "metadata's", "loop")
    assert found["run_id"] == "r"
    assert not {"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "__secret", "deep", "nothing"} & set(
        found
    )
    assert both(lambda saver: ids(saver, config(), filter={"run_id": "r", "score": 1.5})) == ["a"]


def test_s21_filters_are_equality_of_every_key(both):
    several = {
        "a": {"source": "input", "step": 1, "flag": True, "nested": {"x": 1, "y": [2]}, "a.b": "dot", "none": None},
        "b": {"source": "loop", "step": 1, "flag": 1, "nested": {"x": 1}, "a": {"b": "dot"}, "nan": "x"},
        "c": {"source": "loop", "step": 2, "flag": False, "nested": [], "weird-key 1": 1},
        "d": {"source": "loop", "step": 1.0, "flag": 0},
    }
    for name, metadata in several.items():
        both(lambda saver, n=name, m=metadata: put(saver, n, {"x": n}, metadata=m))
    expected = {
        "{}": ["d", "c", "b", "a"],
        "{'source': 'loop'}": ["d", "c", "b"],
        "{'source': 'loop', 'step': 1}": ["d", "b"],
        "{'flag': True}": ["b", "a"],
        "{'flag': 0}": ["d", "c"],
        "{'unknown': 1}": [],
        "{'unknown': None}": ["d", "c", "b", "a"],
        "{'none': None}": ["d", "c", "b", "a"],
        "{'nested': {'x': 1}}": ["b"],
        "{'nested': {'x': 1, 'y': [2]}}": ["a"],
        "{'nested': {}}": [],
        "{'nested': []}": ["c"],
        "{'a.b': 'dot'}": ["a"],
        "{'weird-key 1': 1}": ["c"],
        "{'step': '1'}": [],
        """{"x') OR '1'='1": 1}""": [],
        """{'source': "loop' OR '1'='1"}""": [],
        r"{'source\n': 'loop'}": [],
        "{'$where': 'true'}": [],
        "{'step': {'$gte': 0}}": [],
        "{1: 1}": [],
    }
    for wanted, names in expected.items():
        assert both(lambda saver, w=wanted: ids(saver, config(), filter=eval(w))) == names, wanted
    assert both(lambda saver: ids(saver, config(), filter={"source": "loop"}, limit=2)) == ["d", "c"]
    assert both(lambda saver: ids(saver, config(), filter={"step": 1}, before=config("d"), limit=1)) == ["b"]
    assert both(lambda saver: ids(saver, None, filter={"source": "input"})) == ["a"]


# --- list -----------------------------------------------------------------------------------------------------------


def test_s23_list_is_newest_first_and_limited_after_filtering(both):
    for thread in ("t", "u"):
        for name in ("2", "1", "3"):
            both(lambda saver, n=name, t=thread: put(saver, n, {"x": n}, thread=t, metadata={"step": int(n)}))
    assert both(lambda saver: ids(saver, config())) == ["3", "2", "1"]
    assert both(lambda saver: ids(saver, config(), limit=2)) == ["3", "2"]
    assert both(lambda saver: ids(saver, config(), limit=0)) == []
    assert both(lambda saver: ids(saver, config(), filter={"step": 1}, limit=1)) == ["1"]
    assert both(lambda saver: ids(saver, config(thread="nope"))) == []
    everything = both(lambda saver: listed(saver, None))
    assert everything == [(thread, "", name) for thread in "tu" for name in "321"]
    assert both(lambda saver: listed(saver, None, limit=4)) == everything[:4]


def test_s23_list_of_everything_shows_checkpoints_alone(saver):
    put(saver, "a", {"x": 1})
    saver.log.run("a simulation").append({"v": 1})
    saver.log.run(("t", "not a namespace of ours")).append({"v": 1}, id="z")
    saver.put_writes(config("never put", "w"), [("x", 1)], "task")
    assert listed(saver, None) == listed(saver, config(ns=None)) == [("t", "", "a")]


def test_s24_an_id_restricts_the_list(both):
    for ns in ("", "n"):
        for name in "abc":
            both(lambda saver, n=name, ns=ns: put(saver, n, ns=ns))
    assert both(lambda saver: listed(saver, config("b"))) == [("t", "", "b")]
    assert both(lambda saver: listed(saver, config("b", ns=None))) == [("t", "", "b"), ("t", "n", "b")]
    assert both(lambda saver: listed(saver, config("nope"))) == []
    assert both(lambda saver: listed(saver, config("b"), limit=0)) == []


def test_s24_the_id_is_looked_for_and_no_other():
    storage = CountingStorage(MemoryStorage())
    with EventLog(storage) as log:
        saver, read = EventLogSaver(log), []
        for count in (5, 50):
            for number in range(count):
                put(saver, f"{count:02}.{number:02}", {"x": number})
            with storage.counted() as tally:
                assert ids(saver, config("05.02")) == ids(saver, config("05.02"), before=config("05.03")) == ["05.02"]
                assert ids(saver, config("05.02"), filter={"source": "loop"}) == ["05.02"]
                assert ids(saver, config("05.02"), before=config("05.02")) == ids(saver, config("nope")) == []
                assert ids(saver, config("nope"), filter={"source": "loop"}) == []
            read.append(tally.keys_read["I"])
        assert read[0] == read[1]


def test_s25_each_listed_tuple_is_what_get_tuple_gives(both):
    for step, name in enumerate("abcde"):
        parent = "abcde"[step - 1] if step else None
        both(lambda s, n=name, p=parent, v=step: put(s, n, {"x": [n] * v, "y": n}, {"x": v, "y": v}, parent=p))
        both(lambda s, n=name: s.put_writes(config(n), [("x", [n]), (INTERRUPT, n)], f"task {n}", "~path"))
    everything = both(lambda saver: [shown(item) for item in saver.list(config())])
    assert everything == both(lambda saver: [got(saver, name) for name in "edcba"])


def test_s26_a_list_may_be_abandoned_or_read_slowly_while_others_write(saver):
    for number in range(20):
        put(saver, f"{number:03}", {"x": number}, {"x": number}, parent=f"{number - 1:03}" if number else None)
    for _ in range(50):
        assert next(iter(saver.list(config(), limit=1))).checkpoint["id"] == "019"
    slow = saver.list(config())
    seen = [next(slow).checkpoint["id"]]

    def write() -> None:
        for number in range(20, 30):
            put(saver, f"{number:03}", {"x": number}, {"x": number}, parent=f"{number - 1:03}")

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(60)
    assert not writer.is_alive()
    seen += [item.checkpoint["id"] for item in slow]
    assert [name for name in seen if name < "020"] == [f"{number:03}" for number in range(19, -1, -1)]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("wanted", [None, {"source": "loop"}])
def test_s26_a_thread_may_be_deleted_while_it_is_listed(saver, wanted):
    for number in range(600):
        put(saver, f"{number:03}", {"x": number}, {"x": number}, thread="u" if number % 2 else "t")
    slow = saver.list(None, filter=wanted)
    assert next(slow).checkpoint["id"] == "598"
    saver.delete_thread("t")
    saver.delete_thread("u")
    assert list(slow) == []


# --- put_writes -----------------------------------------------------------------------------------------------------


def test_s27_writes_may_come_before_after_and_without_their_checkpoint(both):
    both(lambda saver: saver.put_writes(config("b"), [("x", "early")], "1"))
    both(lambda saver: saver.put_writes(config("never"), [("x", "lost")], "1"))
    assert both(got) is None
    assert both(lambda saver: got(saver, "b")) is None
    assert both(lambda saver: ids(saver, config())) == []
    assert both(lambda saver: ids(saver, None)) == []
    both(lambda saver: put(saver, "a"))
    assert both(got)["checkpoint"]["id"] == "a"
    both(lambda saver: put(saver, "b", parent="a"))
    both(lambda saver: put(saver, "c", parent="b"))
    both(lambda saver: saver.put_writes(config("b"), [("y", "late")], "2"))
    assert both(lambda saver: writes(saver, "b")) == [("1", "x", "early"), ("2", "y", "late")]
    assert both(lambda saver: got(saver, "never")) is None
    assert both(lambda saver: writes(saver, "a")) == []
    both(lambda saver: put(saver, "never"))
    assert both(lambda saver: writes(saver, "never")) == [("1", "x", "lost")]


def test_s27_slots_are_the_same_before_and_after_the_checkpoint(both):
    both(lambda saver: saver.put_writes(config("a"), [("x", "first"), (INTERRUPT, "i1"), (ERROR, "e1")], "task", "p"))
    both(lambda saver: put(saver, "a"))
    both(lambda saver: saver.put_writes(config("a"), [("x", "second"), (INTERRUPT, "i2")], "task", "p"))
    assert both(lambda saver: writes(saver, "a")) == [
        ("task", INTERRUPT, "i2"),
        ("task", ERROR, "e1"),
        ("task", "x", "first"),
    ]
    both(lambda saver: put(saver, "a", {"x": 2}, {"x": 2}))
    both(lambda saver: saver.put_writes(config("a"), [(INTERRUPT, "i3"), (ERROR, "e3")], "task", "p"))
    assert both(lambda saver: [value for _, _, value in writes(saver, "a")]) == ["i3", "e3", "first"]


def test_s28_special_slots(both):
    both(lambda saver: put(saver, "a"))
    batch = [("x", 0), (RESUME, 1), (SCHEDULED, 2), (ERROR, 3), (INTERRUPT, 4), ("__error_source_node__", 5), ("y", 6)]
    both(lambda saver: saver.put_writes(config("a"), batch, "task"))
    assert both(lambda saver: [value for _, _, value in writes(saver, "a")]) == [1, 4, 2, 3, 0, 5, 6]
    both(lambda saver: saver.put_writes(config("a"), [("__error_source_node__", "at 0: taken")], "task"))
    both(lambda saver: saver.put_writes(config("a"), [(ERROR, "at -1: replaced")], "task"))
    assert both(lambda saver: [value for _, _, value in writes(saver, "a")]) == [1, 4, 2, "at -1: replaced", 0, 5, 6]


def test_s29_the_first_regular_write_and_the_last_special_one_win_each_for_itself(both):
    both(lambda saver: put(saver, "a"))
    batches = [
        [("x", "x1"), (INTERRUPT, "i1")],
        [("x", "x2"), (INTERRUPT, "i2")],
        [(INTERRUPT, "i3"), ("x", "taken? no, slot 1 is free")],
        [(RESUME, "r1"), ("n", "n1")],
        [(RESUME, "r2")],
        [(INTERRUPT, "i4"), (INTERRUPT, "i5")],
        [],
    ]
    for batch in batches:
        both(lambda saver, batch=batch: saver.put_writes(config("a"), batch, "task"))
        both(lambda saver: writes(saver, "a"))
    assert both(lambda saver: [value for _, _, value in writes(saver, "a")]) == [
        "r2",
        "i5",
        "x1",
        "taken? no, slot 1 is free",
    ]
    both(lambda saver: saver.put_writes(config("a"), batches[0], "another task"))
    assert both(lambda saver: [value for task, _, value in writes(saver, "a") if task == "another task"]) == [
        "i1",
        "x1",
    ]


def test_s30_one_channel_may_be_written_twice_and_any_value(both):
    both(lambda saver: put(saver, "a"))
    batch = [
        ("x", 1),
        ("x", 1),
        ("none", None),
        ("bytes", b"\x00\xff"),
        ("__pregel_tasks", Send("node", {"deep": [1]})),
        (INTERRUPT, (Interrupt(value={"q": 1}, id="i"),)),
        ("messages", [AIMessage("hi", id="1")]),
        ("tuple", (1, {"a": {2}})),
        ("~rest", "ours?"),
    ]
    both(lambda saver: saver.put_writes(config("a"), batch, "task"))
    assert sorted(both(lambda saver: [channel for _, channel, _ in writes(saver, "a")])) == sorted(c for c, _ in batch)


def test_s30_an_exception_is_a_value(saver, theirs):
    for each in (saver, theirs):
        put(each, "a")
        each.put_writes(config("a"), [(ERROR, ValueError("no"))], "task")
    assert [repr(value) for _, _, value in writes(saver, "a")] == [repr(value) for _, _, value in writes(theirs, "a")]


@pytest.mark.parametrize("method", ["put_writes", "aput_writes"])
def test_s31_task_path_is_a_named_parameter(method):
    assert "task_path" in inspect.signature(getattr(EventLogSaver, method)).parameters


@pytest.mark.parametrize("task", ["task-1", NULL_TASK, "1", "~", "a/b", "x" * 255])
def test_s32_any_string_may_be_a_task(both, task):
    both(lambda saver: put(saver, "a"))
    both(lambda saver: saver.put_writes(config("a"), [("x", 1)], task))
    both(lambda saver: saver.put_writes(config("a"), [("x", 2)], "other"))
    assert (task, "x", 1) in both(lambda saver: writes(saver, "a"))


def test_s33_many_threads_may_put_writes_at_once(saver):
    put(saver, "a")
    with ThreadPoolExecutor(12) as threads:
        calls = [
            threads.submit(saver.put_writes, config("a"), [("x", task), ("y", task), (INTERRUPT, task)], f"{task:03}")
            for task in range(60)
            for _ in range(2)
        ]
        for call in calls:
            call.result()
    expected = [(f"{n:03}", channel, n) for n in range(60) for channel in (INTERRUPT, "x", "y")]
    assert writes(saver, "a") == expected


def test_s33_puts_writes_and_reads_may_overlap(saver):
    def one_thread(name: str) -> None:
        parent = None
        for step in range(12):
            made = f"{step:03}"
            put(saver, made, {"x": list(range(step))}, {"x": step}, parent=parent, thread=name)
            saver.put_writes(config(made, name), [("x", step)], "task")
            assert values(saver, made, name) == {"x": list(range(step))}
            assert got(saver, thread=name)["checkpoint"]["id"] == made
            parent = made
        assert ids(saver, config(thread=name)) == [f"{step:03}" for step in range(11, -1, -1)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one_thread, [f"thread {number}" for number in range(8)]))


def test_s33_two_writers_of_one_parent_both_succeed(saver):
    put(saver, "root", {"x": [0]})

    def chain(name: str) -> None:
        parent = "root"
        for step in range(10):
            made = f"{name}-{step}"
            put(saver, made, {"x": [0, name, step]}, {"x": f"{name}{step}"}, parent=parent)
            parent = made

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(chain, "abcdef"))
    for name in "abcdef":
        assert [values(saver, f"{name}-{step}")["x"] for step in range(10)] == [[0, name, step] for step in range(10)]
    assert len(ids(saver, config())) == 61


def test_s33_a_thread_may_be_deleted_while_others_use_it(saver):
    stop = threading.Event()
    found: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            item = saver.get_tuple(config())
            found.append(item and item.checkpoint["channel_values"]["x"])
            list(saver.list(config(), filter={"source": "loop"}))

    def write() -> None:
        for number in range(40):
            state, versions = {"x": [number] * 50}, {"x": number}
            try:
                put(saver, f"{number:03}", state, versions, parent=f"{number - 1:03}" if number else None)
            except NotFoundError:  # the parent was deleted
                put(saver, f"{number:03}", state, versions)
            with suppress(NotFoundError):
                saver.put_writes(config(f"{number:03}"), [("x", number)], "task")

    with ThreadPoolExecutor(3) as threads:
        reading, writing = [threads.submit(read) for _ in range(2)], threads.submit(write)
        try:
            while not writing.done():
                saver.delete_thread("t")
            writing.result()
        finally:
            stop.set()
        for call in reading:
            call.result()
    assert all(item is None or item == [item[0]] * 50 for item in found)
    saver.delete_thread("t")
    assert got(saver) is None


def test_s34_what_cannot_be_kept_is_refused_whole(saver):
    put(saver, "a", {"x": 1})
    bad = {"k": [lambda: None]}
    for refused in (
        lambda: put(saver, "b", {"x": 2, "y": bad}, parent="a"),
        lambda: put(saver, "a", {"x": 2, "y": bad}),
        lambda: saver.put(config("a"), checkpoint("b"), {"source": "loop", "why": bad}, {}),
        lambda: saver.put_writes(config("a"), [("x", 1), ("y", bad)], "task"),
    ):
        with pytest.raises(UnserializableError):
            refused()
    assert ids(saver, config()) == ["a"]
    assert got(saver, "a")["checkpoint"]["channel_values"] == {"x": 1}
    assert writes(saver, "a") == []
    put(saver, "b", {"x": 2, "y": 3}, parent="a")
    assert values(saver) == {"x": 2, "y": 3}


def test_s34_a_value_that_contains_itself_is_refused(saver):
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnserializableError):
        put(saver, "a", {"x": loop})
    put(saver, "a", {"x": []})
    with pytest.raises(UnserializableError):
        put(saver, "b", {"x": loop}, {"x": 2}, parent="a")
    assert ids(saver, config()) == ["a"]


def deep(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = {"k": leaf}
    return leaf


@pytest.mark.parametrize("depth", [200, 201, 250])
@pytest.mark.parametrize("loaded", [False, True])
def test_s34_a_value_as_deep_as_the_serializer_takes_may_change(both, depth, loaded):
    for number, name in enumerate("abc"):
        made = {"x": deep(depth, number), "y": [deep(depth - 1, 0)] * (number + 1), "z": deep(depth, 0)}
        versions = {"x": number + 1, "y": number + 1, "z": 1}
        parent = "abc"[number - 1] if number else None
        both(lambda s, v=made, n=name, p=parent, w=versions: put(again(s) if loaded else s, n, v, w, parent=p))
        both(values)


def again(saver: Any) -> Any:
    """A saver that remembers nothing; of upstream's, the same."""
    return EventLogSaver(saver.log) if isinstance(saver, EventLogSaver) else saver


def test_s34_a_value_that_the_call_stack_has_no_room_for_is_refused(saver):
    values_of = {"a": deep(150, 1), "b": deep(150, 2)}
    for parent, name in ((None, "a"), ("a", "b")):
        with pytest.raises(TooDeepError, match=r"^x"):
            with_frames_left(100, lambda p=parent, n=name: put(saver, n, {"x": values_of[n]}, {"x": n}, parent=p))
        assert ids(saver, config()) == [parent][: parent is not None]
        put(saver, name, {"x": values_of[name]}, {"x": name}, parent=parent)
        assert values(saver) == {"x": values_of[name]}


def test_s34_a_checkpoint_over_the_limit_is_refused(location):
    with EventLogSaver.from_conn_string(location, max_checkpoint_bytes=5_000) as saver:
        put(saver, "a", {"x": "x" * 3_000})
        with pytest.raises(TooLargeError, match="checkpoint bytes"):
            put(saver, "b", {"x": "x" * 3_000, "y": "y" * 3_000}, {"x": 1, "y": 1}, parent="a", new={"y": 1})
        put(saver, "b", {"y": "y" * 3_000}, {"y": 1}, parent="a")
        put(saver, "c", {"y": "y" * 3_000, "z": "z"}, {"y": 1, "z": 1}, parent="b")
        assert ids(saver, config()) == ["c", "b", "a"]
        assert list(saver.log.verify()) == []


def test_s39_a_cancelled_put_is_whole_or_absent(saver):
    async def cancel() -> None:
        for number in range(40):
            made = checkpoint(f"{number:03}", {"x": [number] * 20, "y": number}, {"x": number, "y": number})
            putting = asyncio.create_task(saver.aput(config(), made, {"step": number}, made["channel_versions"]))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            putting.cancel()
            with suppress(asyncio.CancelledError):
                await putting

    async def look() -> list[Any]:
        found = [item.checkpoint["channel_values"] async for item in saver.alist(config())]
        await saver.aput(config(), checkpoint("zzz", {"x": "last"}), {}, {"x": 1})
        assert (await saver.aget_tuple(config())).checkpoint["channel_values"] == {"x": "last"}
        return found

    asyncio.run(cancel())  # ends once all threads have: what was cancelled goes on in them
    assert all(item == {"x": [item["y"]] * 20, "y": item["y"]} for item in asyncio.run(look()))


# --- versions, serde ------------------------------------------------------------------------------------------------


def test_s40_versions_grow(saver, theirs):
    version = None
    for number in range(1, 120):
        following = saver.get_next_version(version, None)
        assert type(following) is str
        assert type(following)() < following
        assert version is None or following > version
        assert following.split(".")[0] == f"{number:032}"
        version = following
    assert saver.get_next_version(version, None) != saver.get_next_version(version, None)
    for other in (7, theirs.get_next_version(None, None), f"{9:032}.{0.5:016}"):
        after = saver.get_next_version(other, None)
        assert after.split(".")[0] == theirs.get_next_version(other, None).split(".")[0]
        assert not isinstance(other, str) or after > other


@pytest.mark.parametrize("version", [1, 1.5, "1", f"{1:032}.{0.25:016}"])
def test_s40_versions_of_any_kind_round_trip(both, version):
    both(lambda saver: put(saver, "a", {"x": 1}, {"x": version}))
    found = both(got)["checkpoint"]["channel_versions"]
    assert type(found["x"]) is type(version)


def _codec(saver: EventLogSaver) -> Any:
    from savers.langgraph.serde import SerdeCodec

    return SerdeCodec(saver.serde)


@pytest.mark.parametrize("clone_of", [copy.copy, lambda saver: saver.with_allowlist([(__name__, "Foreign")])])
def test_s41_a_clone_shares_the_storage(saver, clone_of):
    assert got(saver) is None
    clone = clone_of(saver)
    assert got(clone) is None
    for step in range(12):
        writer, reader = (saver, clone) if step % 2 else (clone, saver)
        parent = f"{step - 1:02}" if step else None
        put(writer, f"{step:02}", {"x": list(range(step))}, {"x": step}, parent=parent)
        writer.put_writes(config(f"{step:02}"), [("x", step)], "task")
        assert got(reader) == got(writer)
        assert values(reader, f"{step:02}") == {"x": list(range(step))}
        assert writes(reader, f"{step:02}") == [("task", "x", step)]
    assert listed(saver, None) == listed(clone, None)
    clone.delete_thread("t")
    assert got(saver) is None
    put(clone, "again", {"x": 1})
    assert values(saver) == {"x": 1}
    saver.put_writes(config("again"), [("x", 2)], "task")
    assert writes(clone) == [("task", "x", 2)]
    del clone
    gc.collect()
    assert values(saver) == {"x": 1}


def test_s41_what_one_clone_may_read_the_other_may_not(saver):
    allowed = saver.with_allowlist([(__name__, "Foreign")])
    assert allowed is not saver
    assert (allowed.log, type(allowed)) == (saver.log, EventLogSaver)
    for step in range(3):
        put(
            allowed,
            f"{step}",
            {"x": Foreign("a"), "n": step},
            {"x": 1, "n": step},
            parent=f"{step - 1}" if step else None,
        )
        assert values(allowed) == {"x": Foreign("a"), "n": step}
        with pytest.raises(UnknownTypeError):
            values(saver)
        assert values(allowed)["x"] == Foreign("a")


class Rot(EncryptedSerializer):
    """Bytes that differ at each call, so that nobody may compare them."""

    class Cipher:
        count = 0

        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            Rot.Cipher.count += 1
            key = Rot.Cipher.count % 251
            return "rot", bytes([key]) + bytes((byte + key) % 256 for byte in plaintext)

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            assert ciphername == "rot"
            return bytes((byte - ciphertext[0]) % 256 for byte in ciphertext[1:])

    def __init__(self) -> None:
        super().__init__(Rot.Cipher(), JsonPlusSerializer(allowed_msgpack_modules=None))


def test_s42_the_serializer_may_be_replaced(saver):
    put(saver, "plain", {"x": 1}, thread="u")
    saver.serde = Rot()
    growing: list[Any] = [{"k": "secret"}]
    put(saver, "0", {"x": growing})
    for step in range(1, 30):
        growing = [*values(saver)["x"], {"k": f"secret {step}"}]
        put(saver, f"{step:02}", {"x": growing}, {"x": step + 1}, parent=f"{step - 1:02}" if step > 1 else "0")
        saver.put_writes(config(f"{step:02}"), [("x", "secret")], "task")
    assert values(saver) == {"x": [{"k": "secret"}, *({"k": f"secret {step}"} for step in range(1, 30))]}
    assert len(listed(saver, config())) == 30
    saver.serde = Rot()
    assert values(saver, "15")["x"] == growing[:16]
    assert writes(saver, "15") == [("task", "x", "secret")]
    with pytest.raises(CorruptionError, match="not encrypted"):
        values(saver, thread="u")
    saver.serde = saver.serde.serde
    assert values(saver, thread="u") == {"x": 1}
    with pytest.raises(UnknownTypeError, match="encrypted"):
        values(saver)


def test_s42_an_encrypting_serializer_leaves_no_value_in_the_clear(tmp_path):
    with EventLogSaver.from_conn_string(tmp_path / "log", serde=Rot()) as saver:
        for step in range(5):
            put(
                saver,
                f"{step}",
                {"x": ["plain words " * 3] * (step + 1)},
                {"x": step},
                parent=f"{step - 1}" if step else None,
            )
            saver.put_writes(config(f"{step}"), [("x", "plain words " * 3)], "task")
        saver.log.flush()
        assert len(values(saver)["x"]) == 5
        assert list(saver.log.verify()) == []
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert stored
    assert not [blob for blob in stored if b"plain words" in blob]


class Tagged(JsonPlusSerializer):
    """Writes a tag that nobody else knows."""

    def __init__(self, tag: str) -> None:
        super().__init__(allowed_msgpack_modules=None)
        self.tag = tag

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return self.tag, super().dumps_typed(obj)[1]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return super().loads_typed(("msgpack", data[1]))


@pytest.mark.parametrize("tag", ["weird", "pickle", "msgpack+aes", "MSGPACK"])
def test_s45_an_unknown_tag_raises(location, tag):
    with EventLogSaver.from_conn_string(location, serde=Tagged(tag)) as saver:
        put(saver, "a", {"x": [1]})
        saver.put_writes(config("a"), [("x", [1])], "task")
        assert values(saver) == {"x": [1]}
        plain = EventLogSaver(saver.log)
        for call in (lambda: plain.get_tuple(config()), lambda: list(plain.list(config()))):
            with pytest.raises(UnknownTypeError) as caught:
                call()
            assert caught.value.tag == tag
        assert list(saver.log.verify()) == []


class Bomb:
    armed = False

    def __reduce__(self):
        return (Bomb.go_off, ())

    @staticmethod
    def go_off() -> None:
        Bomb.armed = True


def test_s45_nothing_is_ever_unpickled(saver):
    pickling = copy.copy(saver)
    pickling.serde = JsonPlusSerializer(pickle_fallback=True)
    with pytest.raises(UnserializableError):
        put(pickling, "a", {"x": Bomb()})
    assert got(pickling) is None
    careless = EventLogSaver(saver.log, serde=Pickling())
    put(careless, "a", {"x": Bomb()})
    for reader in (saver, pickling):
        with pytest.raises(UnknownTypeError, match="pickle"):
            values(reader)
    assert not Bomb.armed


class Pickling(JsonPlusSerializer):
    """A serializer that pickles, as LangGraph's may."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return ("pickle", pickle.dumps(obj)) if isinstance(obj, Bomb) else super().dumps_typed(obj)


def test_s45_a_foreign_type_is_refused_with_the_line_that_allows_it(saver):
    def put_and_get() -> None:  # refused at one of them, and never a silent dict
        put(saver, "a", {"x": [Foreign("a")]})
        values(saver)

    with pytest.raises(EventLogError) as caught:
        put_and_get()
    line = re.search(r"saver = .*?\]\)", str(caught.value))
    assert line, caught.value
    assert __name__ in line.group()
    names = {"saver": saver}
    exec(line.group(), names)
    assert values(names["saver"]) == {"x": [Foreign("a")]}
    put(names["saver"], "b", {"x": [Foreign("b")]})
    assert values(names["saver"]) == {"x": [Foreign("b")]}


def test_s45_a_foreign_type_in_a_write_is_refused_too(saver):
    put(saver, "a", {"x": 1})

    def write() -> None:
        saver.put_writes(config("a"), [("x", Foreign("a"))], "task")
        writes(saver)

    def describe() -> None:
        put(saver, "b", {"x": 1}, metadata={"why": Foreign("a")}, thread="u")
        got(saver, thread="u")

    for put_and_get in (write, describe):
        with pytest.raises(EventLogError, match="with_allowlist"):
            put_and_get()


# --- other methods --------------------------------------------------------------------------------------------------


def test_s46_each_method_is_there_in_both_kinds():
    from langgraph.checkpoint.base import BaseCheckpointSaver

    for name in ("put", "put_writes", "get_tuple", "list", "delete_thread"):
        for method in (name, f"a{name}"):
            assert getattr(EventLogSaver, method) is not getattr(BaseCheckpointSaver, method)


def test_s46_the_async_methods_do_the_same(saver, theirs):
    async def talk(saver: Any) -> list[Any]:
        for step, name in enumerate("abc"):
            made = checkpoint(name, {"x": [name] * step}, {"x": step})
            where = config("abc"[step - 1] if step else None)
            await saver.aput(where, made, {"source": "loop", "step": step}, made["channel_versions"])
            await saver.aput_writes(config(name), [("x", name), (INTERRUPT, name)], "task", "~p")
        answers = [shown(await saver.aget_tuple(config(name))) for name in ("a", None, "nope")]
        answers += [
            shown(item) async for item in saver.alist(config(), filter={"source": "loop"}, before=config("c"), limit=5)
        ]
        await saver.adelete_thread("t")
        return [*answers, await saver.aget_tuple(config()), [item async for item in saver.alist(None)]]

    assert asyncio.run(talk(saver)) == asyncio.run(talk(theirs))


def test_s46_aput_survives_a_thread_that_another_saver_deleted(saver):
    other = EventLogSaver(saver.log)

    async def run() -> None:
        await saver.aput(config(), checkpoint("a", {"x": 1}), {}, {"x": 1})
        await other.adelete_thread("t")
        await saver.aput(config(), checkpoint("b", {"x": 2}), {}, {"x": 1})
        assert (await other.aget_tuple(config())).checkpoint["channel_values"] == {"x": 2}

    asyncio.run(run())
    assert ids(saver, config()) == ["b"]


def test_s47_deleting_a_thread_deletes_all_of_it_and_nothing_else(both):
    for thread in ("t", "t2", "T", "u"):
        for ns in ("", "n", DEEP_NAMESPACE):
            both(lambda s, t=thread, ns=ns: put(s, "a", {"x": t, "big": "b" * 5000}, thread=t, ns=ns))
            both(lambda s, t=thread, ns=ns: s.put_writes(config("a", t, ns), [("x", t)], "task"))
            both(lambda s, t=thread, ns=ns: s.put_writes(config("z", t, ns), [("x", t)], "task"))
    both(lambda saver: saver.delete_thread("t"))
    both(lambda saver: saver.delete_thread("t"))
    both(lambda saver: saver.delete_thread("never there"))
    assert both(lambda saver: [got(saver, "a", "t", ns) for ns in ("", "n", DEEP_NAMESPACE)]) == [None] * 3
    assert both(lambda saver: {thread for thread, _, _ in listed(saver, None)}) == {"t2", "T", "u"}
    both(lambda saver: put(saver, "a", {"y": 1}))
    both(lambda saver: put(saver, "z", {"y": 1}))
    assert both(lambda saver: values(saver, "a")) == {"y": 1}
    assert both(lambda saver: [writes(saver, name) for name in "az"]) == [[], []]
    assert both(lambda saver: ids(saver, config(ns=None))) == ["z", "a"]


def test_s47_deleting_a_thread_leaves_other_runs_of_the_log(saver):
    saver.log.run("t").append({"v": 1})
    saver.log.run(("u", "n")).append({"v": 2})
    put(saver, "a", thread="u")
    for thread in ("t", "u"):
        saver.delete_thread(thread)
    assert saver.log.run("t").state["v"] == 1
    assert saver.log.run(("u", "n")).state["v"] == 2


def test_s47_two_savers_of_one_log_agree(saver):
    other = EventLogSaver(saver.log)
    assert got(other) is None
    assert ids(other, config()) == []
    for round_number in range(3):
        put(saver, "a", {"x": round_number})
        assert values(other) == {"x": round_number}
        assert ids(other, config()) == ["a"]
        put(other, "b", {"x": [round_number]}, {"x": 2}, parent="a")
        assert values(saver) == {"x": [round_number]}
        saver.put_writes(config("b"), [("x", 1)], "1")
        other.put_writes(config("b"), [("x", 2)], "2")
        assert writes(saver) == writes(other) == [("1", "x", 1), ("2", "x", 2)]
        (saver if round_number % 2 else other).delete_thread("t")
        assert got(saver) is got(other) is None
        assert ids(saver, None) == ids(other, None) == []


def test_s47_writes_after_another_saver_deleted_the_thread_are_refused_until_it_begins_anew(saver):
    other = EventLogSaver(saver.log)
    put(saver, "a", {"x": 1})
    assert values(other) == {"x": 1}
    saver.delete_thread("t")
    for checkpoint_id in ("a", "b"):
        with pytest.raises(NotFoundError, match="'t' was deleted"):
            other.put_writes(config(checkpoint_id), [("x", 2)], "task")
    assert got(other) is got(saver) is None
    put(saver, "b", {"x": 1})
    other.put_writes(config("b"), [("x", 2)], "task")
    assert writes(saver) == writes(other) == [("task", "x", 2)]


def test_s47_what_was_put_is_there_after_reopening(tmp_path, theirs):
    def talk(saver: Any) -> None:
        saver.put_writes(config("b"), [("x", "early"), (INTERRUPT, [1])], "task", "~p")
        put(saver, "a", {"x": [1], "big": "b" * 10_000})
        put(saver, "b", {"x": [1, 2], "big": "b" * 10_000}, {"x": 2, "big": 1}, parent="a", new={"x": 2})
        put(saver, "c", {"x": [9]}, {"x": 3}, parent="a", ns="n")

    with EventLogSaver.from_conn_string(tmp_path / "runs.log") as saver:
        talk(saver)
    talk(theirs)
    for _ in range(2):
        with EventLogSaver.from_conn_string(tmp_path / "runs.log") as saver:
            for name, ns in [("a", ""), ("b", ""), (None, ""), ("c", "n"), (None, "n")]:
                assert got(saver, name, ns=ns) == got(theirs, name, ns=ns)
            assert listed(saver, None) == listed(theirs, None)
            put(saver, "d", {"x": [1, 2, 3], "big": "b" * 10_000}, {"x": 4, "big": 1}, parent="b", new={"x": 4})
            put(theirs, "d", {"x": [1, 2, 3], "big": "b" * 10_000}, {"x": 4, "big": 1}, parent="b", new={"x": 4})
            assert got(saver) == got(theirs)
            assert list(saver.log.verify()) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda saver: put(saver, "b", parent="a"),
        lambda saver: saver.put_writes(config("a"), [("x", 1)], "task"),
        lambda saver: saver.get_tuple(config()),
        lambda saver: list(saver.list(config())),
        lambda saver: saver.delete_thread("nobody"),
    ],
)
def test_s50_a_sync_call_on_the_running_loop_does_not_deadlock(saver, call):
    async def run() -> None:
        await saver.aput(config(), checkpoint("a"), {}, {})
        waiting = [asyncio.create_task(saver.aput_writes(config("a"), [("x", n)], f"{n}")) for n in range(20)]
        await asyncio.sleep(0)
        call(saver)
        await asyncio.gather(*waiting)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_s50_one_saver_may_serve_several_loops(saver):
    def one(name: str) -> Any:
        async def run() -> Any:
            await saver.aput(config(thread=name), checkpoint("a", {"x": name}), {}, {"x": 1})
            return await saver.aget_tuple(config(thread=name))

        return asyncio.run(run()).checkpoint["channel_values"]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, "abcdefgh")) == [{"x": name} for name in "abcdefgh"]


def test_d5_pending_writes_are_sorted_by_path_task_and_slot(both):
    both(lambda saver: put(saver, "a"))
    order = [
        ("2", "~b"),
        ("1", "~b"),
        ("9", "~a"),
        ("3", ""),
        ("0", "~a, 10"),
        ("8", "~a, 2"),
        (NULL_TASK, ""),
        ("Z", "é"),
    ]
    for task, path in order:
        batch = [("z", f"{task}{path}0"), ("a", f"{task}{path}1"), (INTERRUPT, "i"), (RESUME, "r")]
        both(lambda saver, t=task, p=path, b=batch: saver.put_writes(config("a"), b, t, p))
    found = both(lambda saver: writes(saver, "a"))
    tasks = [task for task, _, _ in found]
    assert tasks[::4] == [task for task, path in sorted(order, key=lambda item: (item[1], item[0]))]
    assert [channel for _, channel, _ in found[:4]] == [RESUME, INTERRUPT, "z", "a"]
    assert both(lambda saver: [item.pending_writes for item in saver.list(config())]) == [found]


def test_d5_more_than_ten_writes_of_a_task_stay_in_order(both):
    both(lambda saver: put(saver, "a"))
    for first in (0, 300):
        both(lambda s, n=first: s.put_writes(config("a"), [("x", k) for k in range(n, n + 300)], f"{n}", "~p"))
    assert both(lambda saver: [value for _, _, value in writes(saver)]) == list(range(600))


# --- the log --------------------------------------------------------------------------------------------------------


def test_the_log_is_the_callers(tmp_path):
    with EventLog.open(tmp_path / "runs.log") as log:
        with EventLogSaver(log) as saver:
            put(saver, "a", {"x": 1})
            assert saver.log is log
        assert "t" in log
        put(saver, "b", {"x": 2}, parent="a")
        assert list(log.verify()) == []


def test_a_closed_saver_says_so(tmp_path):
    with EventLogSaver.from_conn_string(str(tmp_path / "runs.log")) as saver:
        put(saver, "a")
    saver.close()
    for call in (lambda: put(saver, "b"), lambda: got(saver), lambda: listed(saver, config())):
        with pytest.raises(EventLogError, match="closed"):
            call()


def test_a_step_costs_what_it_changed():
    with EventLogSaver.from_conn_string("memory:") as saver:
        big = {"history": ["x" * 1000] * 1000, "note": 0}
        put(saver, "000", big)
        sizes = []
        for step in range(1, 40):
            before = saver.log.stats().bytes
            state = {**big, "note": step}
            versions = {"history": 1, "note": step + 1}
            put(saver, f"{step:03}", state, versions, parent=f"{step - 1:03}", new={"note": step + 1})
            sizes.append(saver.log.stats().bytes - before)
        assert max(sizes) < 3_000
        again = copy.deepcopy(big)
        before = saver.log.stats().bytes
        put(saver, "040", {**again, "note": 0}, {"history": 2, "note": 99}, parent="039")
        assert saver.log.stats().bytes - before < 3_000
        again["history"].append("x" * 1000)
        before = saver.log.stats().bytes
        put(EventLogSaver(saver.log), "041", {**again, "note": 0}, {"history": 3, "note": 99}, parent="010")
        assert saver.log.stats().bytes - before < 6_000
        assert values(saver) == {**again, "note": 0}
        assert list(saver.log.verify()) == []


def test_another_saver_writes_nothing_anew_that_stays(saver):
    """One that goes on where another stopped knows from the log what is there: the audit names what changed."""
    first = {"n": 1, "text": "x" * 100, "list": [1]}
    put(saver, "a", first, dict.fromkeys(first, 1))
    for parent, checkpoint_id in (("a", "b"), ("a", "c")):  # goes on, and forks
        put(EventLogSaver(saver.log), checkpoint_id, first, dict.fromkeys(first, 2), parent=parent)
        writes = saver.run("t").event(checkpoint_id).writes
        assert not set(writes) & {*first, "~metadata", "~rest"}
    assert values(saver, "b") == values(saver, "c") == first


def test_pending_writes_are_those_of_their_checkpoint_while_others_are_put(saver):
    """Who reads a checkpoint's writes beside the writer never gets those of the next one."""
    put(saver, "0000")
    saver.put_writes(config("0000"), [("x", "0000")], "task")
    wrong, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = saver.get_tuple(config())
            where = found.config["configurable"]["checkpoint_id"]
            again = saver.get_tuple(config(f"{int(where) - 1:04}")) if int(where) else None
            if again is not None and again.pending_writes != [("task", "x", f"{int(where) - 1:04}")]:
                wrong.append(again)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 300):
        put(saver, f"{n:04}", {"n": n}, {"n": n}, parent=f"{n - 1:04}")
        saver.put_writes(config(f"{n:04}"), [("x", f"{n:04}")], "task")
    stop.set()
    reader.join()
    assert wrong == []


def test_a_child_of_a_checkpoint_that_was_replaced_elsewhere_has_the_new_ones_values(saver):
    """The same version with another value: who goes on from it must not go on from what it was."""
    put(saver, "a", {"n": 1, "m": 1}, {"n": 1, "m": 1})
    put(EventLogSaver(saver.log), "a", {"n": 5, "m": 1}, {"n": 1, "m": 1})
    put(saver, "b", {"n": 5, "m": 2}, {"n": 1, "m": 2}, parent="a", new={"m": 2})
    assert values(saver, "b") == values(EventLogSaver(saver.log), "b") == {"n": 5, "m": 2}
