"""What `savers.base` promises of a store, over every store of the seed contract. Another one is a line in a table."""

from __future__ import annotations

import asyncio
import copy
import sys
import types
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog import (
    ClosedError,
    Delete,
    EventLog,
    InvalidIdError,
    InvalidInputError,
    UnknownTypeError,
    UnserializableError,
)
from savers import BaseStore, EventLogSaver, EventLogStore
from tests.engines import LOCATIONS
from tests.strict import strictly_equal, values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "agent:memory:user-42"
BAD_KEYS = ["", None, True, 1, b"a", {"$gt": ""}, ["a"], ("a",), "a\x00b", "\x1b[2J", "\ud800", "x" * 256]
HOSTILE_KEYS = ["a", "a:b", "a/b", "A", "á", "a\u0301", "../../etc/passwd", "~store", "%", "value", " ", "k" * 255]


@dataclass
class Note:
    text: str
    tags: list[Any]


@pytest.fixture(params=LOCATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLogStore]:
    """An empty store, whose log is verified at the end."""
    opened = EventLogStore(EventLog.open(LOCATIONS[request.param](tmp_path)))
    yield opened
    problems = list(opened.log.verify())
    opened.log.close()
    assert problems == []


def kept(store: EventLogStore, key: str = KEY) -> list[Any]:
    """Every value that a key ever had, oldest first; None where it was deleted."""
    return [value for _, value in store.history(key)]


# --- put, get, delete -----------------------------------------------------------------------------------------------


def test_it_is_a_store(store):
    assert isinstance(store, BaseStore)


def test_what_is_put_is_got(store):
    assert store.get(KEY) is None
    store.put(KEY, {"name": "Alice"})
    assert store.get(KEY) == {"name": "Alice"}
    store.put(KEY, {"name": "Alice", "likes": ["tea", {"hot": True}]})
    assert store.get(KEY) == {"name": "Alice", "likes": ["tea", {"hot": True}]}
    store.put(KEY, {"age": 7})
    assert store.get(KEY) == {"age": 7}


def test_an_empty_value_is_a_value(store):
    store.put(KEY, {})
    assert store.get(KEY) == {}
    store.put(KEY, {"x": None})
    assert store.get(KEY) == {"x": None}
    store.put(KEY, {})
    assert store.get(KEY) == {}
    store.delete(KEY)
    assert store.get(KEY) is None


def test_a_deleted_key_is_empty_and_may_be_put_again(store):
    store.delete(KEY)
    assert store.get(KEY) is None
    for number in range(3):
        store.put(KEY, {"n": number})
        assert store.get(KEY) == {"n": number}
        store.delete(KEY)
        store.delete(KEY)
        assert store.get(KEY) is None
    store.put(KEY, {"n": 9})
    assert store.get(KEY) == {"n": 9}


@pytest.mark.parametrize("of", [types.MappingProxyType, OrderedDict, type("Own", (dict,), {})])
def test_a_value_may_be_any_mapping(store, of):
    store.put(KEY, of({"name": "Alice", "n": 1}))
    found = store.get(KEY)
    assert type(found) is dict
    assert found == {"name": "Alice", "n": 1}
    store.put(KEY, of({"name": "Bob"}))
    assert store.get(KEY) == {"name": "Bob"}


def test_keys_never_touch(store):
    for key in HOSTILE_KEYS:
        store.put(key, {"key": key})
    for key in HOSTILE_KEYS[::2]:
        store.delete(key)
    for number, key in enumerate(HOSTILE_KEYS):
        assert store.get(key) == (None if number % 2 == 0 else {"key": key})


@given(
    history=st.lists(
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), values(8), max_size=4),
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_supported_value_round_trips(history):
    with EventLogStore("memory:") as store:
        for value in history:
            given_value = copy.deepcopy(value)
            store.put(KEY, given_value)
            given_value.clear()
            assert strictly_equal(store.get(KEY), value)
        assert strictly_equal(kept(store), history)
        assert list(store.log.verify()) == []


def test_values_are_copied_in_and_out(store):
    value: dict[str, Any] = {"x": [[1]], "note": Note("a", [1])}
    for step in range(4):
        store.put(KEY, value)
        expected = copy.deepcopy(value)
        value["x"][0].append(step)
        value["note"].tags.append(step)
        value[f"{step}"] = step
        assert store.get(KEY) == expected
        found = store.get(KEY)
        found["x"][0].append("spoiled")
        found.clear()
        assert store.get(KEY) == expected
    mine = store.get(KEY)
    mine["x"][0].append("mine")
    store.put(KEY, mine)
    assert store.get(KEY)["x"] == [[1, 0, 1, 2, "mine"]]
    assert len(kept(store)) == 5


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_KEYS)
def test_keys_are_strictly_typed(store, bad):
    for call in (lambda: store.put(bad, {"x": 1}), lambda: store.get(bad), lambda: store.delete(bad)):
        with pytest.raises(InvalidIdError):
            call()
    assert store.log.runs() == []


@pytest.mark.parametrize("bad", [None, 1, "text", ["x"], [("x", 1)], {1: 2}, {"x": 1, None: 2}, {b"x": 1}])
def test_a_value_is_a_mapping_with_strings_as_keys(store, bad):
    with pytest.raises(InvalidInputError):
        store.put(KEY, bad)
    assert store.get(KEY) is None
    store.put(KEY, {"x": 1})
    with pytest.raises(InvalidInputError):
        store.put(KEY, bad)
    assert store.get(KEY) == {"x": 1}


def test_a_value_that_cannot_be_read_back_is_refused_by_its_place(store):
    with pytest.raises(UnserializableError):
        store.put(KEY, {"x": object()})
    assert store.get(KEY) is None
    store.put(KEY, {"x": 1})
    with pytest.raises(UnserializableError, match="deep") as caught:
        store.put(KEY, {"x": 1, "deep": [1, {"k": object()}]})
    assert "deep" in caught.value.path
    assert store.get(KEY) == {"x": 1}
    store.put(KEY, {"x": 2})
    assert kept(store) == [{"x": 1}, {"x": 2}]


def test_a_type_that_is_not_there_any_more(store):
    module = types.ModuleType("another_module_that_goes")
    sys.modules[module.__name__] = module
    exec("from dataclasses import dataclass\n@dataclass\nclass Gone:\n    x: int\n", module.__dict__)
    store.put(KEY, {"x": module.Gone(1)})
    store.put("other", {"x": 1})
    assert store.get(KEY) == {"x": module.Gone(1)}
    del sys.modules[module.__name__]
    with pytest.raises(UnknownTypeError, match="Gone"):
        store.get(KEY)
    assert store.get("other") == {"x": 1}
    store.delete(KEY)
    assert store.get(KEY) is None


def test_a_value_of_a_type_that_is_gone_may_be_replaced(store):
    module = types.ModuleType("a_third_module_that_goes")
    sys.modules[module.__name__] = module
    exec("from dataclasses import dataclass\n@dataclass\nclass Gone:\n    x: int\n", module.__dict__)
    store.put(KEY, {"x": module.Gone(1)})
    del sys.modules[module.__name__]
    anew = EventLogStore(store.log)
    anew.put(KEY, {"x": 1})
    assert anew.get(KEY) == {"x": 1}


def test_a_closed_store_says_so(tmp_path):
    with EventLogStore(tmp_path / "log") as store:
        store.put(KEY, {"x": 1})
    store.close()
    for call in (lambda: store.get(KEY), lambda: store.put(KEY, {"x": 2}), lambda: store.delete(KEY)):
        with pytest.raises(ClosedError):
            call()


# --- history --------------------------------------------------------------------------------------------------------


def test_a_key_has_a_history(store):
    store.put(KEY, {"n": 1})
    store.put(KEY, {"n": 1, "m": [1]})
    store.put(KEY, {"n": 1, "m": [1, 2]})
    store.delete(KEY)
    store.put(KEY, {"n": 2})
    assert kept(store) == [{"n": 1}, {"n": 1, "m": [1]}, {"n": 1, "m": [1, 2]}, None, {"n": 2}]
    run = store.run()
    assert run.at(1)[KEY]["value"] == {"n": 1, "m": [1]}
    assert isinstance(run.event(3).writes[KEY], Delete)
    assert KEY not in run.at(3)
    assert [event.step for event in run.events()] == [0, 1, 2, 3, 4]


def test_deleting_nothing_leaves_no_trace(store):
    store.put(KEY, {"n": 1})
    store.delete(KEY)
    store.delete(KEY)
    assert kept(store) == [{"n": 1}, None]


def test_reading_writes_nothing(store):
    store.put(KEY, {"n": 1})
    before = store.log.stats().bytes, store.log.runs()
    assert store.get("nobody") is None
    store.delete("nobody")
    assert list(store.history("nobody")) == []
    assert store.get(KEY) == {"n": 1}
    assert (store.log.stats().bytes, store.log.runs()) == before


def test_a_put_costs_what_it_changed():
    with EventLogStore("memory:") as store:
        value: dict[str, Any] = {"notes": ["x" * 1000] * 1000, "n": 0}
        store.put(KEY, value)
        for number in range(40):
            before = store.log.stats().bytes
            store.put(KEY, {**value, "n": number})
            assert store.log.stats().bytes - before < 2_000
        before = store.log.stats().bytes
        EventLogStore(store.log).put(KEY, {**copy.deepcopy(value), "n": -1})
        assert store.log.stats().bytes - before < 2_000
        assert store.get(KEY) == {**value, "n": -1}
        assert list(store.log.verify()) == []


# --- several users --------------------------------------------------------------------------------------------------


def test_what_was_put_is_there_after_reopening(tmp_path):
    for opening in range(4):
        with EventLogStore(tmp_path / "log") as store:
            assert store.get(KEY) == ({"n": opening - 1, "note": Note("a", [opening - 1])} if opening else None)
            assert store.get("gone") is None
            store.put(KEY, {"n": opening, "note": Note("a", [opening])})
            store.put("gone", {"n": 1})
            store.delete("gone")
            assert list(store.log.verify()) == []
    with EventLogStore(tmp_path / "log") as store:
        assert [value["n"] for value in kept(store)] == [0, 1, 2, 3]
        assert len(kept(store, "gone")) == 8


def test_two_stores_of_one_log_see_each_others_values(store):
    other = EventLogStore(store.log)
    assert other.get(KEY) is None
    for number in range(10):
        writer, reader = (store, other) if number % 3 else (other, store)
        writer.put(KEY, {"n": list(range(number))})
        assert reader.get(KEY) == writer.get(KEY) == {"n": list(range(number))}
        if number == 5:
            reader.delete(KEY)
            assert writer.get(KEY) is reader.get(KEY) is None
    assert len(kept(store)) == len(kept(other)) == 11


def test_a_key_whose_run_was_deleted_is_empty(store):
    other = EventLogStore(store.log)
    store.put(KEY, {"n": 1})
    assert other.get(KEY) == {"n": 1}
    store.log.delete(store.run().name)
    for each in (store, other):
        assert each.get(KEY) is None
        each.delete(KEY)
    other.put(KEY, {"n": 2})
    assert store.get(KEY) == other.get(KEY) == {"n": 2}


def test_many_threads_may_write_one_key(store):
    stores = [store, EventLogStore(store.log), EventLogStore(store.log)]

    def write(writer: int) -> None:
        for number in range(20):
            stores[writer % 3].put(KEY, {"writer": writer, "n": number, "list": [writer] * number})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    history = kept(store)
    assert len(history) == 160
    assert sorted((value["writer"], value["n"]) for value in history) == [(w, n) for w in range(8) for n in range(20)]
    assert all(value["list"] == [value["writer"]] * value["n"] for value in history)
    for writer in range(8):  # each one's own order is kept
        assert [value["n"] for value in history if value["writer"] == writer] == list(range(20))
    assert store.get(KEY) == stores[1].get(KEY) == history[-1]


def test_many_threads_may_begin_one_key(store):
    for attempt in range(10):
        key = f"key {attempt}"
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda n, key=key: EventLogStore(store.log).put(key, {"n": n}), range(6)))
        assert sorted(value["n"] for value in kept(store, key)) == list(range(6))


def test_puts_deletes_and_reads_may_overlap(store):
    other = EventLogStore(store.log)

    def churn(writer: int) -> None:
        each = (store, other)[writer % 2]
        for number in range(25):
            each.put(KEY, {"n": [writer, number]})
            found = each.get(KEY)
            assert found is None or list(found) == ["n"]
            if number % 3 == 0:
                each.delete(KEY)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(churn, range(6)))
    history = kept(store)
    assert sum(value is not None for value in history) == 150
    assert all(not (a is None and b is None) for a, b in pairwise(history))


def test_a_store_and_a_saver_may_share_a_log(store):
    saver = EventLogSaver(store.log)
    store.put(KEY, {"n": 1})
    store.log.run(KEY).append({"value": "a run of that name"})
    assert list(saver.list(None)) == []
    for thread in ("~store", KEY):
        with suppress(InvalidInputError):
            saver.delete_thread(thread)
    assert store.get(KEY) == {"n": 1}
    assert store.log.run(KEY).state["value"] == "a run of that name"


def test_a_log_opened_to_be_read(tmp_path):
    with EventLogStore(tmp_path / "log") as store:
        store.put(KEY, {"n": 1})
    with EventLog.open(tmp_path / "log", readonly=True) as log:
        store = EventLogStore(log)
        assert store.get(KEY) == {"n": 1}
        assert store.get("nobody") is None


# --- namespaces -----------------------------------------------------------------------------------------------------

PLACES = [(), ("a",), ("a", "b"), ("ab",), ("A",), ("~store",), ("~", "~"), ("a.b",), ("l" * 4096,)]
BAD_NAMESPACES = ["a", ["a"], None, ("",), ("a", 1), ("a\0b",), ("a\nb",), ("\ud800",), ("l" * 4097,), (("a",),)]


def test_a_key_lies_in_its_namespace_alone(store):
    for number, namespace in enumerate(PLACES):
        store.put(KEY, {"n": number}, namespace=namespace)
    for number, namespace in enumerate(PLACES):
        assert store.get(KEY, namespace=namespace) == {"n": number}
    for namespace in PLACES[::2]:
        store.delete(KEY, namespace=namespace)
    assert [store.get(KEY, namespace=namespace) is None for namespace in PLACES] == [n % 2 == 0 for n in range(9)]
    assert store.get(KEY) is None


@pytest.mark.parametrize("bad", BAD_NAMESPACES)
def test_a_namespace_is_a_tuple_of_plain_strings(store, bad):
    calls = [
        lambda: store.put(KEY, {"x": 1}, namespace=bad),
        lambda: store.get(KEY, namespace=bad),
        lambda: store.delete(KEY, namespace=bad),
        lambda: store.search(bad),
        lambda: list(store.history(KEY, namespace=bad)),
        lambda: store.blame(KEY, namespace=bad),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError):
            call()
    assert store.log.runs() == []


def test_a_search_finds_whole_labels_in_order(store):
    for namespace in [("b",), (), ("a", "x"), ("ab",), ("a",)]:
        for key in ("second", "first"):
            store.put(key, {"ns": list(namespace), "key": key}, namespace=namespace)
    found = store.search(("a",))
    assert [(item.namespace, item.key) for item in found] == [
        (("a",), "second"),
        (("a",), "first"),
        (("a", "x"), "second"),
        (("a", "x"), "first"),
    ]
    assert found[0].value == {"ns": ["a"], "key": "second"}
    assert found[0].created_at == found[0].updated_at
    assert found[0].created_at.utcoffset() is not None
    assert len(store.search()) == 10
    assert [item.namespace for item in store.search(limit=3, offset=1)] == [(), ("a",), ("a",)]
    assert [item.key for item in store.search(filter={"key": "first", "ns": ["ab"]})] == ["first"]
    assert store.search(("nowhere",)) == store.search(limit=0) == store.search(offset=99) == []


def test_filters_compare_values_of_one_type(store):
    for number, value in enumerate([1, 2.5, "1", None, True, date(2026, 1, 1), Note("a", [1]), Decimal(2)]):
        store.put(f"{number}", {"v": value})
    found = {
        "numbers": store.search(filter={"v": {"$gte": 2}}),
        "days": store.search(filter={"v": {"$gt": date(2025, 1, 1)}}),
        "equal": store.search(filter={"v": Note("a", [1])}),
        "no order": store.search(filter={"v": {"$gt": Note("a", [])}}),
        "other type": store.search(filter={"v": {"$gt": datetime(2025, 1, 1, tzinfo=UTC)}}),
    }
    assert {name: [item.key for item in items] for name, items in found.items()} == {
        "numbers": ["1", "7"],
        "days": ["5"],
        "equal": ["6"],
        "no order": [],
        "other type": [],
    }


@pytest.mark.parametrize("bad", [{"v": {"$or": [1]}}, {"$gt": 1}, {"v": {"x": {"$gt": 1, "y": 2}}}, [1], {1: 2}, "v"])
def test_a_filter_that_can_never_be_right_is_refused(store, bad):
    with pytest.raises(InvalidInputError):
        store.search(filter=bad)


@pytest.mark.parametrize("wrap", [lambda wanted: {"k": wanted}, lambda wanted: [wanted]], ids=["dict", "list"])
def test_a_filter_may_be_as_deep_as_a_value_and_no_deeper(store, wrap):
    def nested(depth):
        value = 1
        for _ in range(depth):
            value = wrap(value)
        return value

    store.put("deep", {"v": nested(190)})
    assert [item.key for item in store.search(filter={"v": nested(190)})] == ["deep"]
    ring = {"v": []}
    ring["v"].append(ring)
    for bad in ({"v": nested(210)}, {"v": nested(1500)}, ring):
        with pytest.raises(InvalidInputError, match="deep"):
            store.search(filter=bad)


@pytest.mark.parametrize("bad", [{"limit": -1}, {"offset": -1}, {"limit": True}, {"limit": None}, {"offset": "1"}])
def test_counts_that_can_never_be_right_are_refused(store, bad):
    with pytest.raises(InvalidInputError):
        store.search(**bad)
    with pytest.raises(InvalidInputError):
        store.list_namespaces(**bad)


def test_namespaces_are_listed_sorted_while_they_hold_something(store):
    for namespace in PLACES:
        store.put(KEY, {"n": 1}, namespace=namespace)
    store.delete(KEY, namespace=("ab",))
    assert store.list_namespaces() == sorted(set(PLACES) - {("ab",)})
    assert store.list_namespaces(("a",)) == [("a",), ("a", "b")]
    assert store.list_namespaces(("*",), ("b",)) == [("a", "b")]
    assert store.list_namespaces(suffix=("~",)) == [("~", "~")]
    assert store.list_namespaces(prefix=("a",), max_depth=1) == [("a",)]
    assert store.list_namespaces(limit=2, offset=1) == [("A",), ("a",)]
    with pytest.raises(InvalidInputError):
        store.list_namespaces(max_depth=0)


def test_the_async_methods_do_the_same(store):
    async def use() -> None:
        value = {"n": [1]}
        putting = asyncio.ensure_future(store.aput(KEY, value, namespace=("a",)))
        await asyncio.sleep(0)
        value["n"].append(2)
        await putting
        assert await store.aget(KEY, namespace=("a",)) == {"n": [1]}
        assert await store.aget(KEY) is None
        assert [item.key for item in await store.asearch(("a",), filter={"n": [1]})] == [KEY]
        assert await store.alist_namespaces(("a",)) == [("a",)]
        await asyncio.gather(*(store.aput(f"{n}", {"n": n}) for n in range(20)))
        assert len(await store.asearch(limit=99)) == 21
        await store.adelete(KEY, namespace=("a",))
        assert await store.aget(KEY, namespace=("a",)) is None
        for bad in (1, {1: 2}, {"x": object()}):
            with pytest.raises(InvalidInputError):
                await store.aput(KEY, bad)

    asyncio.run(use())


def test_a_memory_has_a_history_and_somebody_to_blame(store):
    store.put(KEY, {"n": 1}, namespace=("a",))
    store.put("other", {"n": 1}, namespace=("a",))
    store.put(KEY, {"n": 2}, namespace=("a",))
    history = list(store.history(KEY, namespace=("a",)))
    assert [value for _, value in history] == [{"n": 1}, {"n": 2}]
    assert [event.step for event, _ in history] == [0, 2]
    assert store.blame(KEY, namespace=("a",)) == history[-1][0]
    assert history[0][0].time <= history[1][0].time
    store.delete(KEY, namespace=("a",))
    assert [value for _, value in store.history(KEY, namespace=("a",))] == [{"n": 1}, {"n": 2}, None]
    assert store.blame(KEY, namespace=("a",)).step == 3
    assert store.blame(KEY) is None


def test_a_memory_can_be_forked_and_the_store_stays_what_it_is(store):
    store.put(KEY, {"n": 1})
    store.put("later", {"n": 1})
    fork = store.run().fork(0, "what if")
    assert list(fork.state) == [KEY]
    assert {change.path[0] for change in store.log.diff(fork.state, store.run().state)} == {"later"}
    fork.append({"later": fork.state[KEY]})
    assert store.get("later") == {"n": 1}


def test_a_store_that_saw_nothing_yet_removes_what_another_one_put(store):
    other = EventLogStore(store.log)
    other.put("first", {"n": 1})
    assert store.get("first") == {"n": 1}
    other.put(KEY, {"n": 1})
    store.delete(KEY)
    assert other.get(KEY) is None
