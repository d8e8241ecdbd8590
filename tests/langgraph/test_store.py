"""What LangGraph asks of a store, sentence by sentence of its contract; upstream's is asked the same where it can be.

Where the contract says that stores differ, ours alone is asked.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from pydantic import SecretStr
from typing_extensions import TypedDict

import savers
from eventlog import ClosedError, EventLog, EventLogError, InvalidInputError, UnserializableError
from eventlog.storage.memory import MemoryStorage
from savers.langgraph import EventLogSaver, EventLogStore
from tests.counting import CountingStorage
from tests.engines import LOCATIONS
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MINUTE = 60_000_000_000
NS = ("users", "42")


@pytest.fixture(params=LOCATIONS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return LOCATIONS[request.param](tmp_path)


@pytest.fixture
def store(location: str) -> Iterator[EventLogStore]:
    """A store on an empty log, which is verified afterwards."""
    with EventLogStore.from_conn_string(location) as opened:
        yield opened
        assert list(opened.log.verify()) == []


@pytest.fixture(params=["ours", "upstream"])
def either(request: pytest.FixtureRequest, location: str) -> Iterator[BaseStore]:
    """Ours, and upstream's as control."""
    if request.param == "upstream":
        yield InMemoryStore()
        return
    with EventLogStore.from_conn_string(location) as opened:
        yield opened
        assert list(opened.log.verify()) == []


@dataclass
class Clock:
    """A time that stands still until it is told to go."""

    now: int = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def go(self, minutes: float) -> None:
        self.now += int(minutes * MINUTE)


def keys(found: list[Any]) -> list[str]:
    return [item.key for item in found]


# --- batch and its operations -----------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_operations(either):
    either.put(NS, "a", {"n": 1})
    ops = [
        PutOp(NS, "b", {"n": 2}),
        GetOp(NS, "a"),
        ListNamespacesOp(None, None),
        PutOp(NS, "a", None),
        SearchOp(("users",)),
        GetOp(NS, "nobody"),
    ]
    put, got, listed, deleted, found, missing = either.batch(ops)
    assert (put, deleted, missing) == (None, None, None)
    assert (got.key, got.value, got.namespace) == ("a", {"n": 1}, NS)
    assert listed == [NS]
    assert keys(found) == ["a"]
    assert either.batch([]) == []


def test_reads_of_a_batch_see_what_was_before_it_and_the_last_put_of_a_key_counts(either):
    either.put(NS, "a", {"n": 1})
    ops = [PutOp(NS, "a", {"n": 2}), GetOp(NS, "a"), PutOp(NS, "a", {"n": 3}), SearchOp(NS), PutOp(NS, "b", {"n": 4})]
    _, got, _, found, _, _ = either.batch([*ops, PutOp(NS, "b", None)])
    assert got.value == {"n": 1}
    assert [item.value for item in found] == [{"n": 1}]
    assert either.get(NS, "a").value == {"n": 3}
    assert either.get(NS, "b") is None


def test_what_one_batch_puts_into_a_namespace_is_one_event(store):
    store.batch([PutOp(NS, f"{n}", {"n": n}) for n in range(5)] + [PutOp(("else",), "x", {"n": 1})])
    store.batch([PutOp(NS, "0", None), PutOp(NS, "1", {"n": 9}), PutOp(NS, "nobody", None)])
    assert [sorted(event.writes) for event in store.run(NS).events()] == [["0", "1", "2", "3", "4"], ["0", "1"]]
    assert len(store.run(("else",))) == 1


def test_an_unknown_operation_is_refused_before_anything_is_done(either):
    with pytest.raises(ValueError, match="nknown operation"):
        either.batch([PutOp(NS, "a", {"n": 1}), "read everything"])
    assert either.get(NS, "a") is None


BAD_OPS = [
    PutOp((), "a", {"n": 1}),
    PutOp(("a.b",), "a", {"n": 1}),
    PutOp(("a\0b",), "a", {"n": 1}),
    PutOp(("a", ""), "a", {"n": 1}),
    PutOp(("a", 1), "a", {"n": 1}),  # type: ignore[arg-type]
    PutOp("label", "a", {"n": 1}),  # type: ignore[arg-type]
    GetOp(("a.b",), "a"),
    SearchOp(("a.b",)),
    ListNamespacesOp((MatchCondition("prefix", ("a.b",)),)),
]


@pytest.mark.parametrize("bad", BAD_OPS, ids=repr)
def test_namespaces_of_operations_given_directly_are_validated(store, bad):
    with pytest.raises(InvalidNamespaceError):
        store.batch([PutOp(NS, "a", {"n": 1}), bad])
    with pytest.raises(InvalidNamespaceError):
        asyncio.run(store.abatch([PutOp(NS, "a", {"n": 1}), bad]))
    assert store.log.runs() == []


NEVER_RIGHT = [
    PutOp(NS, "a", [1]),  # type: ignore[arg-type]
    PutOp(NS, "a", {1: 2}),
    PutOp(NS, "a", {"n": 1}, ttl=-1),
    PutOp(NS, "a", {"n": 1}, ttl=float("nan")),
    PutOp(NS, "a", {"n": 1}, ttl="1"),  # type: ignore[arg-type]
    PutOp(NS, "\ud800", {"n": 1}),
    PutOp(("a\ud800",), "a", {"n": 1}),
    GetOp(("a\ud800",), "a"),
    SearchOp(NS, limit=-1),
    SearchOp(NS, offset=-1),
    SearchOp(NS, {"n": {"$or": [1, 2]}}),
    SearchOp(NS, {"n": {"$gt": 1, "more": 2}}),
    SearchOp(NS, {"a": {"b": [{"$regex": "x"}]}}),
    SearchOp(NS, {"$and": [{"n": 1}]}),
    SearchOp(NS, [("n", 1)]),  # type: ignore[arg-type]
    ListNamespacesOp(None, 0),
    ListNamespacesOp(None, None, -1),
    ListNamespacesOp((MatchCondition("infix", ("a",)),)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("bad", NEVER_RIGHT, ids=lambda op: repr(op)[:60])
def test_what_can_never_be_right_is_refused_before_anything_is_done(store, bad):
    with pytest.raises(InvalidInputError) as caught:
        store.batch([PutOp(("else",), "a", {"n": 1}), bad])
    assert isinstance(caught.value, ValueError)
    assert store.log.runs() == []


def test_a_filter_deeper_than_any_value_is_refused(store):
    wanted: dict[str, Any] = {"k": 1}
    for _ in range(1500):
        wanted = {"k": wanted}
    with pytest.raises(InvalidInputError, match="deep"):
        store.search(NS, filter=wanted)


@pytest.mark.parametrize("value", [{"s": SecretStr("sk-123")}, {"deep": [{"o": object()}]}, {"f": print}])
def test_what_cannot_be_stored_is_refused_by_its_place_and_nothing_is_written(store, value):
    batches = [
        [PutOp(NS, "good", {"n": 1}), PutOp(NS, "bad", value)],
        [PutOp(("else",), "good", {"n": 1}), PutOp(NS, "bad", value)],
    ]
    for ops in batches:
        with pytest.raises(UnserializableError) as caught:
            store.batch(ops)
        assert "bad" in str(caught.value)
        assert "sk-123" not in str(caught.value)
        with pytest.raises(UnserializableError):
            asyncio.run(store.abatch(ops))
    assert store.get(NS, "good") is None
    assert store.get(("else",), "good") is None


# --- items ------------------------------------------------------------------------------------------------------------


def test_an_item_says_where_it_lies_and_when_it_was_written(either):
    either.put(NS, "a", {"n": [1, {"m": None}], "t": "é"})
    item = either.get(NS, "a")
    assert type(item) is Item
    assert (item.namespace, item.key, item.value) == (NS, "a", {"n": [1, {"m": None}], "t": "é"})
    assert item.created_at.utcoffset().total_seconds() == 0
    assert item.created_at <= item.updated_at
    found = either.search(NS)
    assert [type(hit) for hit in found] == [SearchItem]
    assert found[0].score is None
    assert found[0].dict()["created_at"] == item.created_at.isoformat()


def test_created_at_survives_updates_and_not_a_removal():
    clock = Clock()
    with EventLogStore.from_conn_string("memory:", clock=clock) as store:
        store.put(NS, "a", {"n": 1})
        clock.go(1)
        store.put(NS, "a", {"n": 2})
        store.batch([PutOp(NS, "a", {"n": 3}), PutOp(NS, "a", {"n": 4})])
        item = store.get(NS, "a")
        assert (item.updated_at - item.created_at).total_seconds() == 60
        store.delete(NS, "a")
        store.put(NS, "a", {"n": 5})
        item = store.get(NS, "a")
        assert item.created_at == item.updated_at


def test_keys_are_strings_whatever_they_were(either):
    either.put(NS, 7, {"n": 1})  # type: ignore[arg-type]
    assert either.get(NS, "7").key == "7"
    assert either.get(NS, 7).value == {"n": 1}  # type: ignore[arg-type]
    either.delete(NS, 7)  # type: ignore[arg-type]
    assert either.get(NS, "7") is None


ODD_KEYS = ["", "~", "~v", "~va", "a", "~k", "~h", "x\0y", "line\nbreak", "k" * 253, "k" * 254, "k" * 3000, " ", "é"]


def test_any_string_may_be_a_key(either):
    hashed = [store_key for store_key in ODD_KEYS if store_key]
    for key in ODD_KEYS:
        either.put(NS, key, {"key": key})
    for key in ODD_KEYS:
        assert (either.get(NS, key).key, either.get(NS, key).value) == (key, {"key": key})
    assert keys(either.search(NS, limit=99)) == ODD_KEYS
    either.delete(NS, "")
    assert keys(either.search(NS, limit=99)) == hashed


def test_a_mapping_comes_back_as_a_dict_and_nothing_is_aliased(store):
    value = {"list": [1]}
    store.put(NS, "a", value)
    value["list"].append(2)
    store.get(NS, "a").value["list"].append(3)
    store.search(NS)[0].value["list"].append(4)
    assert store.get(NS, "a").value == {"list": [1]}


def test_values_keep_their_exact_types(store):
    value = {"b": b"\0", "f": -0.0, "i": 1 << 80, "t": (1, [2]), "order": {"z": 1, "a": 2}, "none": None}
    store.put(NS, "a", value)
    assert strictly_equal(store.get(NS, "a").value, value)
    assert strictly_equal(store.search(NS)[0].value, value)


def test_a_namespace_and_a_key_never_touch_another(either):
    places = [(("a",), "b"), (("a", "b"), "b"), (("a", "b", "c"), ""), (("A",), "b"), (("a", "~v"), "b"), (("~",), "~")]
    for number, (namespace, key) in enumerate(places):
        either.put(namespace, key, {"n": number})
    for number, (namespace, key) in enumerate(places):
        assert either.get(namespace, key).value == {"n": number}


# --- search -----------------------------------------------------------------------------------------------------------


def test_a_prefix_is_of_whole_labels_case_and_all(either):
    for namespace in [("foo",), ("foo", "x"), ("foobar",), ("Foo",), ("f%o",), ("x", "foo")]:
        either.put(namespace, "k", {"ns": list(namespace)})
    assert sorted(item.namespace for item in either.search(("foo",))) == [("foo",), ("foo", "x")]
    assert [item.namespace for item in either.search(("f%o",))] == [("f%o",)]
    assert either.search(("*",)) == either.search(("f_o",)) == []
    assert len(either.search(())) == 6


def test_items_are_found_in_the_order_in_which_they_were_put(either):
    for key in "dacb":
        either.put(NS, key, {"key": key})
    either.put(NS, "a", {"key": "again"})
    either.delete(NS, "c")
    either.put(NS, "c", {"key": "anew"})
    assert keys(either.search(NS)) == ["d", "a", "b", "c"]
    assert keys(either.search(NS, limit=2)) == ["d", "a"]
    assert keys(either.search(NS, limit=2, offset=1)) == ["a", "b"]
    assert keys(either.search(NS, offset=3)) == ["c"]
    assert either.search(NS, limit=0) == either.search(NS, offset=9) == []


def test_namespaces_are_searched_sorted(store):
    for label in "cab":
        store.put((label,), "k", {"n": 1})
        store.put((label, "sub"), "k", {"n": 1})
    expected = [("a",), ("a", "sub"), ("b",), ("b", "sub"), ("c",), ("c", "sub")]
    assert [item.namespace for item in store.search(())] == expected


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["a", "b", "c", "d"]),
    ({"n": 1}, ["a"]),
    ({"n": 1, "s": "x"}, ["a"]),
    ({"n": 1, "s": "y"}, []),
    ({"n": True}, ["a"]),  # as Python compares
    ({"gone": None}, ["a", "b", "c", "d"]),
    ({"n": {"$eq": 2.0}}, ["b"]),
    ({"n": {"$ne": 1}}, ["b", "c", "d"]),
    ({"n": {"$gt": 1}}, ["b"]),
    ({"n": {"$gte": 1, "$lt": 2.5}}, ["a", "b"]),
    ({"n": {"$lte": 1}}, ["a"]),
    ({"d": {"x": 1}}, ["a"]),
    ({"d": {"x": {"$gt": 1}}}, ["b"]),
    ({"d": {"y": {"z": [1, 2]}}}, ["c"]),
    ({"l": [1, {"k": 2}]}, ["d"]),
    ({"l": [1]}, []),
    ({"l": [{"$gt": 0}, {"k": {"$lt": 3}}]}, ["d"]),
    ({"d": {}}, ["a", "b", "c"]),
]


@pytest.mark.parametrize(("wanted", "expected"), FILTERS, ids=lambda each: str(each)[:50])
def test_filters(store, wanted, expected):
    store.put(NS, "a", {"n": 1, "s": "x", "d": {"x": 1, "y": 2}})
    store.put(NS, "b", {"n": 2, "s": "y", "d": {"x": 5}})
    store.put(NS, "c", {"n": "3", "d": {"y": {"z": [1, 2], "more": 1}}})
    store.put(NS, "d", {"l": [1, {"k": 2, "more": 3}]})
    assert keys(store.search(NS, filter=wanted)) == expected
    assert keys(store.search((), filter=wanted, limit=1)) == expected[:1]


def test_order_operators_compare_like_with_like_and_are_never_an_error(store):
    values = [1, 2.5, "1", "b", None, True, [1], {"x": 1}, b"1"]
    for number, value in enumerate(values):
        store.put(NS, str(number), {"v": value})

    def found(**wanted: Any) -> list[Any]:
        return [item.value["v"] for item in store.search(NS, filter={"v": {f"${k}": v for k, v in wanted.items()}})]

    assert found(gt=0) == [1, 2.5]
    assert found(lte=2.5) == [1, 2.5]
    assert found(gte="1") == ["1", "b"]
    assert found(lt="b") == ["1"]
    assert found(gte=[1]) == [[1]]
    assert found(gt=None) == found(gt={"x": 0}) == found(gt="z") == found(gt=float("nan")) == []


def test_a_search_does_not_read_each_item_by_a_call_of_its_own():
    storage = CountingStorage(MemoryStorage())
    with EventLog(storage) as log:
        writer = EventLogStore(log)
        for start in range(0, 2000, 500):
            writer.batch([PutOp(NS, f"{n}", {"n": n, "text": "x" * 600}) for n in range(start, start + 500)])
        reader = EventLogStore(log)
        with storage.counted() as tally:
            assert keys(reader.search(NS, filter={"n": {"$gte": 1990}}, limit=3)) == ["1990", "1991", "1992"]
        assert tally.reads < 60
        with storage.counted() as tally:
            reader.search(NS)
            reader.get(NS, "7")
        assert tally.reads < 20


def test_a_search_costs_what_it_is_for_however_many_other_namespaces_there_are():
    costs = []
    for others in (10, 300):
        storage = CountingStorage(MemoryStorage())
        with EventLog(storage) as log:
            store = EventLogStore(log)
            store.batch([PutOp(("users", f"{n}"), "k", {"n": n}) for n in range(others)])
            for _ in range(2):
                store.search(("users", "7"))
            with storage.counted() as tally:
                assert [item.value for item in store.search(("users", "7"))] == [{"n": 7}]
                assert store.list_namespaces(prefix=("users", "7")) == [("users", "7")]
                store.put(("users", "7"), "k", {"n": 7})
            costs.append((tally.reads, tally.touched))
    assert costs[0] == costs[1]


# --- namespaces -------------------------------------------------------------------------------------------------------

NAMESPACES = [("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "d", "i"), ("a", "b", "f"), ("a", "c", "f"), ("b", "f")]
LISTINGS: list[tuple[dict[str, Any], list[tuple[str, ...]]]] = [
    ({}, NAMESPACES),
    ({"prefix": ("a", "b"), "max_depth": 3}, [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]),
    ({"prefix": ("a", "*", "f")}, [("a", "b", "f"), ("a", "c", "f")]),
    ({"suffix": ("f",)}, [("a", "b", "f"), ("a", "c", "f"), ("b", "f")]),
    ({"suffix": ("*", "f")}, [("a", "b", "f"), ("a", "c", "f"), ("b", "f")]),
    ({"suffix": ("b", "*")}, [("a", "b", "c"), ("a", "b", "f"), ("b", "f")]),
    ({"prefix": ("a",), "suffix": ("f",)}, [("a", "b", "f"), ("a", "c", "f")]),
    ({"max_depth": 1}, [("a",), ("b",)]),
    ({"max_depth": 2, "offset": 1, "limit": 1}, [("a", "c")]),
    ({"offset": 2, "limit": 2}, NAMESPACES[2:4]),
    ({"limit": 0}, []),
    ({"offset": 99}, []),
    ({"prefix": ("a", "b", "c", "d", "e")}, []),
    ({"prefix": ("A",)}, []),
    ({"prefix": ("%",)}, []),
]


@pytest.mark.parametrize(("asked", "expected"), LISTINGS, ids=lambda each: str(each)[:50])
def test_namespaces_are_matched_by_label_cut_once_and_sorted(either, asked, expected):
    for namespace in reversed(NAMESPACES):
        either.put(namespace, "k", {"n": 1})
    assert either.list_namespaces(**asked) == expected
    assert asyncio.run(either.alist_namespaces(**asked)) == expected


def test_several_conditions_of_a_kind_must_all_hold(either):
    for namespace in NAMESPACES:
        either.put(namespace, "k", {"n": 1})
    conditions = (
        MatchCondition("prefix", ("a",)),
        MatchCondition("prefix", ("*", "b")),
        MatchCondition("suffix", ("f",)),
    )
    assert either.batch([ListNamespacesOp(conditions)]) == [[("a", "b", "f")]]


def test_a_namespace_that_holds_nothing_is_not_listed(store):
    store.put(NS, "a", {"n": 1})
    store.put(("else",), "a", {"n": 1})
    store.delete(NS, "a")
    assert store.get(("never",), "a") is None
    assert store.list_namespaces() == [("else",)]


# --- vectors ----------------------------------------------------------------------------------------------------------

LETTERS = "abcdefgh"


def embed(texts: list[str]) -> list[list[float]]:
    """How often each letter occurs."""
    return [[float(text.count(letter)) for letter in LETTERS] for text in texts]


async def aembed(texts: list[str]) -> list[list[float]]:
    await asyncio.sleep(0)
    return embed(texts)


def indexed(**more: Any) -> Any:
    return {"dims": len(LETTERS), "embed": embed, "fields": ["text"], **more}


@pytest.fixture(params=["ours", "upstream"])
def either_indexed(request: pytest.FixtureRequest, location: str) -> Iterator[Callable[..., BaseStore]]:
    """Makes ours, or upstream's as control, with an index."""
    if request.param == "upstream":
        yield lambda **more: InMemoryStore(index=indexed(**more))
        return
    with EventLog.open(location) as log:
        yield lambda **more: EventLogStore(log, index=indexed(**more))
        assert list(log.verify()) == []


def test_a_query_finds_the_nearest_first(either_indexed):
    store = either_indexed()
    store.put(NS, "far", {"text": "hhh"})
    store.put(NS, "near", {"text": "aab"})
    store.put(("users", "43"), "nearer", {"text": "aa"})
    store.put(NS, "none", {"text": "xyz"})
    found = store.search(("users",), query="a")
    assert keys(found)[:2] == ["nearer", "near"]
    assert [hit.score for hit in found] == pytest.approx([1, 2 / 5**0.5, 0, 0], abs=1e-6)
    assert [hit.key for hit in asyncio.run(store.asearch(("users",), query="a", limit=1))] == ["nearer"]
    assert keys(store.search(NS, query="a", filter={"text": {"$ne": "aab"}}, limit=1)) != ["near"]
    assert keys(store.search(("users",), query="a", limit=1, offset=1)) == ["near"]


def test_of_an_items_vectors_the_nearest_counts(either_indexed):
    store = either_indexed(fields=["title", "notes[*].text"])
    store.put(NS, "many", {"title": "hhh", "notes": [{"text": "gg"}, {"text": "aa"}]})
    store.put(NS, "one", {"title": "ab"})
    found = store.search(NS, query="a")
    assert keys(found) == ["many", "one"]
    assert found[0].score == pytest.approx(1, abs=1e-6)


def test_what_was_not_embedded_fills_up_what_is_short_of_the_limit(either_indexed):
    store = either_indexed()
    store.put(NS, "no text", {"n": 1})
    store.put(NS, "far", {"text": "h"})
    store.put(NS, "not indexed", {"text": "a"}, index=False)
    store.put(NS, "near", {"text": "a"})
    store.put(NS, "other field", {"other": "aab"}, index=["other"])
    found = store.search(NS, query="a")
    assert keys(found) == ["near", "other field", "far", "no text", "not indexed"]
    assert [hit.score is None for hit in found] == [False, False, False, True, True]
    assert keys(store.search(NS, query="a", limit=4)) == ["near", "other field", "far", "no text"]


def test_what_was_not_embedded_is_paged_like_the_rest(location):
    with EventLogStore.from_conn_string(location, index=indexed()) as store:
        for key in "pqr":
            store.put(NS, key, {"text": "a"}, index=False)
        store.put(NS, "s", {"text": "a"})
        assert [keys(store.search(NS, query="a", limit=2, offset=n)) for n in (0, 2, 4)] == [["s", "p"], ["q", "r"], []]


def test_the_vectors_of_an_updated_or_deleted_item_are_gone(location):
    with EventLogStore.from_conn_string(location, index=indexed(fields=["text", "more"])) as store:
        for key in ("k", "~odd", "", "k" * 255):
            store.put(NS, key, {"text": "aa", "more": "bb"})
            store.put(NS, key, {"text": "hh"})
            (hit,) = store.search(NS, query="a")
            assert hit.score == pytest.approx(0)
            store.put(NS, key, {"text": "aa"}, index=False)
            (hit,) = store.search(NS, query="a")
            assert hit.score is None
            store.put(NS, key, {"text": "aa"})
            store.delete(NS, key)
            assert store.search(NS, query="a") == []
            assert len(store.run(NS).state) == 0
        assert len(store.run(NS).at(0)) == 2  # their history has them


def test_the_whole_value_is_embedded_where_no_field_is_named(location):
    config = {"dims": len(LETTERS), "embed": embed}
    with EventLogStore.from_conn_string(location, index=config) as store:
        store.put(NS, "x", {"x": "hhh", "y": [1]})
        store.put(NS, "y", {"y": {"z": "aaa"}})
        assert keys(store.search(NS, query="a")) == ["y", "x"]
        with pytest.raises(UnserializableError, match="index=False"):
            store.put(NS, "z", {"x": b"bytes"})
        store.put(NS, "z", {"x": b"bytes"}, index=False)


def test_a_query_without_an_index_is_a_search_without_one(store):
    store.put(NS, "b", {"text": "h"}, index=["text"])
    store.put(NS, "a", {"text": "a"})
    found = store.search(NS, query="a")
    assert [(hit.key, hit.score) for hit in found] == [("b", None), ("a", None)]


@pytest.mark.parametrize("function", [embed, aembed], ids=["sync", "async"])
def test_embedding_functions_may_be_sync_or_async(location, function):
    async def use(store: EventLogStore) -> None:
        await store.abatch([PutOp(NS, "a", {"text": "a"}), PutOp(NS, "b", {"text": "b"})])
        assert keys(await store.asearch(NS, query="b")) == ["b", "a"]

    with EventLogStore.from_conn_string(location, index=indexed(embed=function)) as store:
        asyncio.run(use(store))


BAD_EMBEDDINGS = {
    "too short": lambda texts: [[1.0]] * len(texts),
    "too long": lambda texts: [[1.0] * 9] * len(texts),
    "too few": lambda texts: [],
    "text": lambda texts: ["abcdefgh"] * len(texts),
    "nested": lambda texts: [[[1.0] * 8]] * len(texts),
    "not finite": lambda texts: [[float("nan")] * 8] * len(texts),
    "beyond 32 bits": lambda texts: [[1e300] * 8] * len(texts),
}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("function", BAD_EMBEDDINGS.values(), ids=BAD_EMBEDDINGS)
def test_wrong_vectors_are_an_error_and_nothing_is_written(store, function):
    store = EventLogStore(store.log, index=indexed(embed=function))
    with pytest.raises(InvalidInputError, match="embed"):
        store.batch([PutOp(NS, "a", {"text": "a"}), PutOp(NS, "b", {"n": 1})])
    with pytest.raises(InvalidInputError, match="embed"):
        asyncio.run(store.aput(NS, "a", {"text": "a"}))
    assert store.log.runs() == []


def test_what_an_embedding_function_raises_is_raised_and_nothing_is_written(store):
    def failing(texts: list[str]) -> list[list[float]]:
        raise ConnectionError("no embeddings today")

    store = EventLogStore(store.log, index=indexed(embed=failing))
    with pytest.raises(ConnectionError):
        store.put(NS, "a", {"text": "a"})
    assert store.log.runs() == []
    store.put(NS, "a", {"n": 1})  # nothing to embed


def test_an_index_that_cannot_be_one(store):
    for dims in (0, -1, None, "3", True):
        with pytest.raises(InvalidInputError, match="dims"):
            EventLogStore(store.log, index=indexed(dims=dims))
    with pytest.raises(ValueError, match="embed"):
        EventLogStore(store.log, index=indexed(embed=None))


def test_numpy_is_named_where_it_is_missing(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(InvalidInputError, match=r"eventlog-savers\[vector\]"):
        EventLogStore(store.log, index=indexed())


def test_items_embedded_with_other_dims_are_told_apart(store):
    EventLogStore(store.log, index=indexed()).put(NS, "a", {"text": "a"})
    other = EventLogStore(store.log, index=indexed(dims=2, embed=lambda texts: [[1.0, 0.0]] * len(texts)))
    with pytest.raises(InvalidInputError, match="dims=8"):
        other.search(NS, query="a")
    other.put(NS, "a", {"text": "a"})
    assert keys(other.search(NS, query="a")) == ["a"]


def test_vectors_are_decoded_once_for_a_namespace_that_rests(monkeypatch):
    from savers.vectors import Vectors

    made = []
    made_by = Vectors._made
    monkeypatch.setattr(Vectors, "_made", lambda self, *of: made.append(of) or made_by(self, *of))
    with EventLogStore.from_conn_string("memory:", index=indexed()) as store:
        store.put(NS, "a", {"text": "a"})
        for _ in range(3):
            store.search(NS, query="a")
        assert len(made) == 1
        store.put(NS, "b", {"text": "b"})
        assert keys(store.search(NS, query="b")) == ["b", "a"]
        assert len(made) == 2


def test_what_is_kept_of_vectors_is_bounded():
    from savers.vectors import Vectors

    with EventLog.open("memory:") as log:
        store = EventLogStore(log, index=indexed())
        store._index.vectors = Vectors(len(LETTERS), max_cached_bytes=3 * 8 * 4)
        for number in range(9):
            store.put(("n", f"{number}"), "k", {"text": "a" * number + "b"})
        for _ in range(2):
            assert keys(store.search((), query="a", limit=20)) == ["k"] * 9
            assert len(store._index.vectors._cached) == 3


# --- time to live -----------------------------------------------------------------------------------------------------


@dataclass
class Timed:
    """A store with a clock, made anew for each config, on one log."""

    log: EventLog
    clock: Clock = field(default_factory=Clock)

    def __call__(self, **ttl: Any) -> EventLogStore:
        return EventLogStore(self.log, ttl=ttl or None, clock=self.clock)  # type: ignore[arg-type]


@pytest.fixture
def timed(location: str) -> Iterator[Timed]:
    with EventLog.open(location) as log:
        yield Timed(log)
        assert list(log.verify()) == []


def test_time_to_live_is_supported(store):
    assert store.supports_ttl
    assert store.ttl_config is None
    store.put(NS, "a", {"n": 1}, ttl=1)
    assert EventLogStore(store.log, ttl={"default_ttl": 5}).ttl_config == {"default_ttl": 5}


def test_an_expired_item_is_omitted_if_asked_for_and_goes_with_the_next_sweep(timed):
    plain, omitting = timed(), timed(omit_expired=True)
    plain.put(NS, "brief", {"n": 1}, ttl=1)
    plain.put(NS, "lasting", {"n": 2})
    plain.put(("else",), "brief", {"n": 3}, ttl=1)
    timed.clock.go(1)
    assert omitting.get(NS, "brief") is None
    assert keys(omitting.search(())) == ["lasting"]
    assert omitting.list_namespaces() == [NS]
    assert plain.get(NS, "brief", refresh_ttl=False).value == {"n": 1}
    assert keys(plain.search(NS, refresh_ttl=False)) == ["brief", "lasting"]
    assert plain.sweep_ttl() == 2
    assert plain.sweep_ttl() == 0
    assert plain.get(NS, "brief") is None
    assert plain.list_namespaces() == [NS]
    assert [item if item is None else item.value for _, item in plain.history(NS, "brief")] == [{"n": 1}, None]


def test_the_default_time_to_live_and_none(timed):
    store = timed(default_ttl=2, omit_expired=True)
    store.put(NS, "default", {"n": 1})
    store.put(NS, "never", {"n": 1}, ttl=None)
    store.put(NS, "own", {"n": 1}, ttl=10)
    store.put(NS, "cleared", {"n": 1})
    store.put(NS, "cleared", {"n": 2}, ttl=None)
    timed.clock.go(2)
    assert keys(store.search(NS)) == ["never", "own", "cleared"]
    timed.clock.go(1000)
    assert keys(store.search(NS)) == ["never", "cleared"]


def test_reading_lets_an_item_live_longer(timed):
    store = timed(omit_expired=True)
    for key in ("got", "found", "neither"):
        store.put(NS, key, {"key": key}, ttl=1)
    for _ in range(3):
        timed.clock.go(0.6)
        assert store.get(NS, "got") is not None
        assert keys(store.search(NS, filter={"key": "found"})) == ["found"]
    assert store.get(NS, "neither") is None
    assert len(list(store.history(NS, "got"))) == 1  # what only moved the expiry is no part of its history
    timed.clock.go(1)
    assert store.search(NS) == []


def test_reading_without_refreshing(timed):
    store = timed(refresh_on_read=False, omit_expired=True)
    store.put(NS, "a", {"n": 1}, ttl=1)
    store.put(NS, "b", {"n": 1}, ttl=1)
    timed.clock.go(0.6)
    assert store.get(NS, "a") is not None
    assert store.get(NS, "b", refresh_ttl=True) is not None
    assert keys(store.search(NS)) == ["a", "b"]
    timed.clock.go(0.6)
    assert keys(store.search(NS)) == ["b"]


def test_a_hot_key_is_not_written_at_each_read(timed):
    store = timed()
    store.put(NS, "a", {"n": 1}, ttl=100)
    for _ in range(1000):
        timed.clock.go(0.1)
        store.get(NS, "a")
    assert len(store.run(NS)) == 1 + 100 // 5  # one in a twentieth of the time to live
    timed.clock.go(94.9)
    assert timed(omit_expired=True).get(NS, "a") is not None


def test_a_put_restarts_the_time_to_live(timed):
    store = timed(omit_expired=True)
    store.put(NS, "a", {"n": 1}, ttl=1)
    timed.clock.go(0.9)
    store.batch([GetOp(NS, "a"), PutOp(NS, "a", {"n": 2}, ttl=1)])
    assert len(store.run(NS)) == 2
    timed.clock.go(0.9)
    assert store.get(NS, "a").value == {"n": 2}


def test_a_sweep_leaves_what_was_put_anew_and_takes_vectors_along(timed):
    store = EventLogStore(timed.log, index=indexed(), clock=timed.clock)
    for key in ("a", "b", "k" * 300):
        store.put(NS, key, {"text": key}, ttl=1)
    timed.clock.go(2)
    store.put(NS, "a", {"text": "a"}, ttl=1)
    assert timed().sweep_ttl() == 2
    assert keys(store.search(NS, query="b")) == ["a"]
    assert len(store.run(NS).state) == 2


def test_a_sweep_goes_past_what_it_cannot_read(timed):
    module = types.ModuleType("a_module_that_goes")
    sys.modules[module.__name__] = module
    exec("from dataclasses import dataclass\n@dataclass\nclass Gone:\n    x: int\n", module.__dict__)
    store = timed()
    store.put(("a",), "gone", {"x": module.Gone(1)}, ttl=1)
    store.put(("a",), "brief", {"n": 1}, ttl=1)
    store.put(("b",), "brief", {"n": 1}, ttl=1)
    del sys.modules[module.__name__]
    timed.clock.go(2)
    assert timed().sweep_ttl() == 2
    store.delete(("a",), "gone")
    assert store.list_namespaces() == []


def test_an_item_without_any_time_to_live_is_expired_at_once(timed):
    store = timed(omit_expired=True)
    store.put(NS, "a", {"n": 1}, ttl=0)
    assert store.get(NS, "a") is None
    assert timed().get(NS, "a") is not None
    assert len(store.run(NS)) == 1


def test_the_sweeper_sweeps_until_it_is_stopped(timed):
    store = timed(sweep_interval_minutes=1e-6)
    store.put(NS, "a", {"n": 1}, ttl=1)
    timed.clock.go(2)
    swept = threading.Event()
    sweep = store.sweep_ttl
    store.sweep_ttl = lambda: (sweep(), swept.set())[0]  # type: ignore[method-assign]
    running = store.start_ttl_sweeper()
    assert store.start_ttl_sweeper(7) is running
    assert swept.wait(60)
    assert store.get(NS, "a") is None
    assert store.stop_ttl_sweeper(timeout=60)
    assert store.stop_ttl_sweeper()
    assert running.done()
    again = store.start_ttl_sweeper()
    assert again is not running
    assert again.cancel()
    assert store.stop_ttl_sweeper(timeout=60)


def test_a_sweeper_ends_with_its_store(timed):
    store = timed()
    running = store.start_ttl_sweeper(1000)
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    running.result(60)
    with timed() as store:
        running = store.start_ttl_sweeper(1000)
    running.result(60)


# --- async ------------------------------------------------------------------------------------------------------------


def test_the_async_methods_do_the_same(either):
    async def use() -> None:
        await either.aput(NS, "a", {"n": 1})
        await either.abatch([PutOp(NS, "b", {"n": 2}), PutOp(("else",), "c", {"n": 3})])
        assert (await either.aget(NS, "a")).value == {"n": 1}
        assert keys(await either.asearch(NS)) == ["a", "b"]
        assert await either.alist_namespaces() == [("else",), NS]
        await either.adelete(NS, "a")
        assert await either.aget(NS, "a") is None

    asyncio.run(use())


def test_values_are_copied_before_an_async_put_first_waits(store):
    async def use() -> None:
        value = {"list": [1]}
        putting = asyncio.ensure_future(store.aput(NS, "a", value))
        await asyncio.sleep(0)
        value["list"].append(2)
        await putting
        assert (await store.aget(NS, "a")).value == {"list": [1]}

    asyncio.run(use())


def test_sync_calls_on_the_running_loop_do_not_deadlock(store):
    async def use() -> None:
        store.put(NS, "a", {"n": 1})
        await asyncio.gather(*(store.aput(NS, f"{n}", {"n": n}) for n in range(20)))
        store.put(NS, "a", {"n": 2})
        assert store.get(NS, "a").value == {"n": 2}
        assert len(store.search(NS, limit=99)) == 21

    asyncio.run(asyncio.wait_for(use(), 60))


def test_one_store_serves_one_loop_after_the_other(store):
    for number in range(3):
        asyncio.run(store.aput(NS, "a", {"n": number}))
    assert store.get(NS, "a").value == {"n": 2}


def test_a_cancelled_batch_is_there_whole_or_not_at_all_in_each_namespace(store):
    async def use() -> None:
        for attempt in range(30):
            ops = [PutOp((ns,), f"{key}", {"n": attempt}) for ns in ("x", "y") for key in range(5)]
            putting = asyncio.ensure_future(store.abatch(ops))
            for _ in range(attempt % 4):
                await asyncio.sleep(0)
            putting.cancel()
            await asyncio.wait([putting])

    asyncio.run(use())
    for namespace in (("x",), ("y",)):
        for _, state in store.run(namespace).replay():
            assert len({state[key]["value"]["n"] for key in state}) == 1
            assert len(state) == 5


# --- in a graph -------------------------------------------------------------------------------------------------------


class State(TypedDict):
    seen: list[Any]


def remembering_graph(saver: Any, store: Any, *, is_async: bool) -> Any:
    def sync_node(state: State, *, store: BaseStore) -> State:
        store.put(("memories", "user"), "name", {"name": "Alice"})
        return {"seen": [*state["seen"], store.get(("memories", "user"), "name").value]}

    async def async_node(state: State, *, store: BaseStore) -> State:
        store.put(("memories", "user"), "sync", {"on": "the loop"})  # a sync call on the running loop
        await store.aput(("memories", "user"), "name", {"name": "Bob"})
        found = await store.asearch(("memories",), filter={"name": {"$eq": "Bob"}})
        return {"seen": [*state["seen"], found[0].value]}

    builder = StateGraph(State)
    builder.add_node("first", sync_node)
    builder.add_node("second", async_node if is_async else sync_node)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    return builder.compile(checkpointer=saver, store=store)


def test_a_graph_with_sync_and_async_nodes_and_its_checkpoints_on_the_same_log(location):
    with EventLog.open(location) as log:
        saver, store = EventLogSaver(log), EventLogStore(log)
        graph = remembering_graph(saver, store, is_async=True)
        config: Any = {"configurable": {"thread_id": "~store"}}
        result = asyncio.run(graph.ainvoke({"seen": []}, config))
        assert result["seen"] == [{"name": "Alice"}, {"name": "Bob"}]
        assert store.get(("memories", "user"), "sync").value == {"on": "the loop"}
        assert graph.get_state(config).values == result
        assert {each.config["configurable"]["thread_id"] for each in saver.list(None)} == {"~store"}
        assert list(log.verify()) == []


def test_who_wrote_a_memory(location):
    with EventLog.open(location) as log:
        saver, store = EventLogSaver(log), EventLogStore(log)
        graph = remembering_graph(saver, store, is_async=True)
        asyncio.run(graph.ainvoke({"seen": []}, {"configurable": {"thread_id": "t-1"}}))
        store.put(("memories", "user"), "name", {"name": "Carol"})
        history = [
            (event.task, event.meta.get("thread_id"), event.meta.get("step"), item.value["name"])
            for event, item in store.history(("memories", "user"), "name")
        ]
        assert history == [("first", "t-1", 1, "Alice"), ("second", "t-1", 2, "Bob"), (None, None, None, "Carol")]
        written = store.blame(("memories", "user"), "sync")
        assert (written.task, written.meta["thread_id"]) == ("second", "t-1")
        assert store.blame(("memories", "user"), "nothing") is None
        store.delete(("memories", "user"), "sync")
        assert store.blame(("memories", "user"), "sync").step > written.step


def test_a_memory_can_be_diffed_replayed_and_forked(store):
    store.put(NS, "name", {"name": "Alice", "likes": ["tea"]})
    store.put(NS, "city", {"city": "Bern"})
    store.put(NS, "name", {"name": "Alice", "likes": ["tea", "cake"]})
    run = store.run(NS)
    assert [sorted(state) for _, state in run.replay()] == [["name"], ["city", "name"], ["city", "name"]]
    assert {change.path[:2] for change in run.diff(0)} == {("name", "value"), ("name", "updated"), ("city",)}
    fork = run.fork(0, "what if")
    fork.append({"name": {**fork.state["name"], "value": {"name": "Eve"}}})
    assert fork.state["name"]["value"] == {"name": "Eve"}
    assert "city" not in fork.state
    assert store.get(NS, "name").value == {"name": "Alice", "likes": ["tea", "cake"]}


# --- several users of one log -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [("~store", ""), ("~store", "~"), ("~store", "users"), ("users", "42"), ("~", "~")])
def test_a_checkpointer_and_a_store_on_one_log_do_not_see_each_other(location, ids):
    thread, namespace = ids
    with EventLog.open(location) as log:
        saver, store, seeds = EventLogSaver(log), EventLogStore(log), savers.EventLogSaver(log)
        config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
        checkpoint: Any = {
            "v": 4,
            "id": "1",
            "ts": "",
            "channel_values": {},
            "channel_versions": {},
            "versions_seen": {},
        }
        for labels in [NS, ("users",), ("~store",), ("~",)]:
            store.put(labels, "k", {"n": 1})
        saver.put(config, checkpoint, {}, {})
        assert len(list(saver.list(None))) == 1
        assert list(seeds.list(None)) == []
        assert len(store.search(())) == len(store.list_namespaces()) == 4
        saver.delete_thread(thread)
        assert list(saver.list(None)) == []
        assert len(store.search(())) == 4
        store.delete(NS, "k")
        saver.put(config, checkpoint, {}, {})
        assert saver.get_tuple(config) is not None
        assert len(store.search(())) == 3


def test_the_seed_store_has_the_same_items(store):
    seed = savers.EventLogStore(store.log)
    store.put(NS, "a", {"n": 1})
    seed.put("b", {"n": 2}, namespace=NS)
    assert seed.get("a", namespace=NS) == {"n": 1}
    assert store.get(NS, "b").value == {"n": 2}
    assert keys(store.search(NS)) == [item.key for item in seed.search(NS)] == ["a", "b"]


def test_everything_is_there_after_reopening(tmp_path):
    for opening in range(4):
        with EventLogStore.from_conn_string(tmp_path / "log", index=indexed()) as store:
            assert keys(store.search(NS, query="a", limit=99)) == [f"{'a' * n}b" for n in range(opening, 0, -1)]
            assert keys(store.search(NS, limit=99)) == [f"{'a' * n}b" for n in range(1, opening + 1)]
            text = "a" * (opening + 1) + "b"
            store.put(NS, text, {"text": text}, ttl=100)
            store.put(("gone",), "k", {"n": 1})
            store.delete(("gone",), "k")
            assert list(store.log.verify()) == []
    with EventLog.open(tmp_path / "log", readonly=True) as log:
        store = EventLogStore(log)
        assert len(store.search(())) == 4
        assert store.list_namespaces() == [NS]
        with pytest.raises(EventLogError, match="readonly"):
            store.put(NS, "a", {"n": 1})


def test_the_order_of_items_outlives_manifests_and_openings(tmp_path):
    expected: dict[str, int] = {}
    for opening in range(6):
        with EventLogStore.from_conn_string(tmp_path / "log") as store:
            for number in range(120):
                key = f"{(number * 37 + opening * 11) % 50}"
                if number % 5 == 4:
                    expected.pop(key, None)
                    store.delete(NS, key)
                else:
                    expected[key] = number
                    store.put(NS, key, {"n": number, "text": "x" * (number % 3) * 400})
            assert keys(store.search(NS, limit=99)) == list(expected)
        with EventLogStore.from_conn_string(tmp_path / "log") as store:
            assert {item.key: item.value["n"] for item in store.search(NS, limit=99)} == expected
            assert keys(store.search(NS, limit=99)) == list(expected)


def test_several_stores_may_write_one_namespace_at_once(tmp_path):
    with EventLog.open(tmp_path / "log") as log, EventLog.open(tmp_path / "log") as other:
        stores = [EventLogStore(log), EventLogStore(log), EventLogStore(other)]

        def write(writer: int) -> None:
            for number in range(15):
                stores[writer % 3].batch([PutOp(NS, "shared", {"by": writer}), PutOp(NS, f"{writer}", {"n": number})])

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(write, range(6)))
        for store in stores:
            assert [store.get(NS, f"{writer}").value for writer in range(6)] == [{"n": 14}] * 6
        history = [item for _, item in stores[0].history(NS, "shared")]
        assert len(history) == 90
        assert len({item.created_at for item in history}) == 1
        assert list(log.verify()) == []


WRITER = """
import sys
from eventlog import EventLog
from savers.langgraph import EventLogStore
with EventLog.open(sys.argv[1]) as log:
    store = EventLogStore(log)
    for number in range(20):
        store.put(("users", "42"), "shared", {"by": sys.argv[2], "n": number})
        store.put(("users", "42"), sys.argv[2], {"n": number})
        assert store.get(("users", "42"), sys.argv[2]).value == {"n": number}
"""


def test_several_processes_may_write_one_namespace_at_once(tmp_path):
    with EventLogStore.from_conn_string(tmp_path / "log") as store:
        store.put(NS, "shared", {"by": "nobody"})
        created = store.get(NS, "shared").created_at
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "log"), name]) for name in "abc"]
        assert [writer.wait(180) for writer in writers] == [0, 0, 0]
        assert [store.get(NS, name).value for name in "abc"] == [{"n": 19}] * 3
        assert len(store.run(NS)) == 1 + 3 * 2 * 20
        shared = [item for _, item in store.history(NS, "shared")]
        assert {item.created_at for item in shared} == {created}
        for name in "abc":
            assert [item.value["n"] for item in shared if item.value["by"] == name] == list(range(20))
        assert list(store.log.verify()) == []


def test_a_namespace_whose_run_was_deleted_begins_anew(store):
    other = EventLogStore(store.log)
    store.put(NS, "a", {"n": 1})
    assert other.get(NS, "a") is not None
    store.log.delete(store.run(NS).name)
    assert store.get(NS, "a") is None
    assert other.search(NS) == other.list_namespaces() == []
    other.put(NS, "b", {"n": 2})
    assert keys(store.search(NS)) == ["b"]


def test_a_closed_store_says_so(tmp_path):
    async def use() -> EventLogStore:
        async with EventLogStore.from_conn_string(tmp_path / "log") as store:
            await store.aput(NS, "a", {"n": 1})
            return store

    store = asyncio.run(use())
    store.close()
    for call in (lambda: store.get(NS, "a"), lambda: store.put(NS, "a", {"n": 2}), lambda: store.search(())):
        with pytest.raises(ClosedError):
            call()
    with EventLog.open("memory:") as log:
        with EventLogStore(log) as borrowing:
            borrowing.put(NS, "a", {"n": 1})
        assert len(log.run(borrowing.run(NS).name)) == 1


def test_any_string_that_langgraph_allows_may_be_a_label(either):
    labels = ["a\n", "a", "~", "~k", "~store", "*", " ", "l" * 5000, "\x1b[2J", "é", "e\u0301", "%"]
    for label in labels:
        either.put(("x", label), "k", {"label": label})
    for label in labels:
        assert either.get(("x", label), "k").value == {"label": label}
        assert [item.namespace for item in either.search(("x", label))] == [("x", label)]
    assert either.list_namespaces(suffix=("a\n",)) == [("x", "a\n")]
    assert either.list_namespaces() == sorted(("x", label) for label in labels)


def test_the_root_label_of_langgraph_is_left_to_those_who_use_batches(either):
    with pytest.raises(InvalidNamespaceError):
        either.put(("langgraph", "a"), "k", {"n": 1})
    either.batch([PutOp(("langgraph", "a"), "k", {"n": 1})])
    assert either.get(("langgraph", "a"), "k").value == {"n": 1}
