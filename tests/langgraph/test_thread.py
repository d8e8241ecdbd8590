"""What a saver remembers of the last put never shows: several savers on one log, told one story in turn.

The first two share an `EventLog`; the third stands on another handle of the same directory, as another process would.
Upstream's saver is told the same, and all have to give the same answers, type for type.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import deque
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.types import Interrupt, Send

from eventlog import EventLog, EventLogError, NotFoundError
from savers.langgraph import EventLogSaver
from tests.counting import interrupted_at
from tests.langgraph.byhand import Story, config, told

if TYPE_CHECKING:
    from collections.abc import Iterator

SAVERS = 3
EMPTY = ...


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    one, other = EventLog.open(tmp_path / "log"), EventLog.open(tmp_path / "log")
    yield Story(EventLogSaver(one), EventLogSaver(one), EventLogSaver(other))
    for log in (one, other):
        assert list(log.verify()) == []
        log.close()


class TestParents:
    def test_each_goes_on_where_another_stopped(self, story: Story):
        for n in range(12):
            story.put({"a": n, "list": list(range(n)), "text": "x" * 100 * n}, by=n % SAVERS)
        story.check_all()

    def test_the_second_time_each_finds_what_the_others_did(self, story: Story):
        """Two puts each, so that the second one is compared with what was remembered."""
        for n in range(12):
            values = {"a": n // 4, "b": n, "list": list(range(n // 2))}
            story.put(values, by=n // 2 % SAVERS, changed={"a", "b"} if n % 2 else None)
        story.check_all()

    @pytest.mark.parametrize("under", [None, "nowhere"])
    def test_where_there_is_no_parent_all_is_said(self, story: Story, under: str | None):
        story.put({"a": 1, "gone": [1, 2]})
        story.put({"a": 1, "b": 2}, under=under, by=1)
        story.put({"a": 1, "b": 3}, changed={"b"}, by=1)
        story.put({"c": 1}, under=under)
        story.put({"c": 1, "a": [1]}, changed={"a"})
        story.check_all()

    def test_two_savers_fork_the_same_checkpoint_again_and_again(self, story: Story):
        root = story.put({"n": 0, "list": ["root"], "text": "t" * 300})
        heads = [root] * 2
        for n in range(12):
            by = n % 2
            values = {"n": n, "list": ["root", by, n], "text": "t" * 300 + f"{n}"}
            heads[by] = story.put(values, under=root if n % 5 == 4 else heads[by], by=by)
        story.check_all()

    def test_an_older_parent_of_ones_own_and_back(self, story: Story):
        first = story.put({"a": 1, "b": [1]})
        second = story.put({"a": 2, "b": [1, 2]})
        third = story.put({"a": 3, "b": [1, 2, 3]}, under=first)
        story.put({"a": 3, "b": [1, 2, 4]}, under=second, changed={"b"})
        story.put({"a": 4, "b": [1, 2, 3]}, under=third, changed={"a"})
        story.check_all()

    def test_a_parent_that_somebody_put_again(self, story: Story):
        first = story.put({"a": 1, "b": [1]})
        parent = story.put({"a": 2, "b": [1, 2]})
        story.put({"a": "again", "b": ["again"], "c": 1}, by=1, under=first, again=parent)
        story.put({"a": "again", "b": ["again"], "c": 2}, under=parent, changed={"c"})
        story.put({"a": "again", "b": ["again"], "c": 3}, changed={"c"}, by=2)
        story.put({"a": "own", "b": [1]}, under=parent, again=parent)
        story.put({"a": "own", "b": [1, 2]}, under=parent, changed={"b"})
        story.check_all()

    def test_a_version_goes_back_to_that_of_an_older_checkpoint(self, story: Story):
        """As when a graph is resumed from the past by another process: the version is old, and not said to be new."""
        first = story.put({"a": [1], "b": 1})
        old = story.versions[first]
        story.put({"a": [1, 2], "b": 2})
        story.put({"a": [1], "b": 2}, versions={**story.versions["c00002"], "a": old["a"]}, new={})
        story.put({"a": [1], "b": 1}, versions=old, new={}, by=1)
        story.check_all()


class TestDeletion:
    @pytest.mark.parametrize("by", range(SAVERS))
    def test_by_any_saver(self, story: Story, by: int):
        story.put({"a": 1, "list": [1, 2]})
        story.put({"a": 1, "list": [1, 2, 3]}, changed={"list"})
        story.delete(by)
        story.put({"a": 2, "list": [1, 2, 3, 4]}, changed={"a", "list"})
        story.put({"a": 2, "list": [1, 2, 3, 4, 5]}, changed={"list"})
        story.check_all()

    @pytest.mark.parametrize("by", range(SAVERS))
    def test_and_another_one_begins_anew_under_the_same_ids(self, story: Story, by: int):
        first = story.put({"a": 1, "list": [1, 2]}, metadata={"step": 1, "why": "first life"})
        story.delete(by)
        story.put({"a": "new", "x": 1}, under=None, again=first, by=by)
        story.put({"a": "new", "x": 2}, changed={"x"})
        story.check_all()

    def test_while_a_checkpoint_is_prepared(self, story: Story):
        first = story.put({"a": 1, "list": [1, 2]})
        saver = story.ours[0]
        arguments = story.ready({"a": 2, "list": [1, 2, 3]})
        prepared = saver._thread("t", "").make(first, *arguments[1:])
        story.delete(1)
        with pytest.raises(EventLogError):
            saver._thread("t", "").write(prepared)
        for each in story.ours:
            with pytest.raises(NotFoundError):
                each.put(*arguments)
        story.check()
        story.put({"a": 3, "list": [1, 2, 3]}, by=1)
        story.put({"a": 4, "list": [1, 2, 3]}, changed={"a"})
        with pytest.raises(NotFoundError):
            saver.put(*arguments)
        story.check_all()


class TestAtOnce:
    """Puts that are encoded before any of them is written, as those of an async graph may be."""

    def gathered(self, story: Story, *puts: tuple[int, tuple[Any, ...]]) -> None:
        for _, arguments in puts:
            story.theirs.put(*arguments)

        async def run() -> None:
            await asyncio.gather(*(story.ours[by].aput(*arguments) for by, arguments in puts))

        asyncio.run(run())
        story.check(*(arguments[1]["id"] for _, arguments in puts))

    @pytest.mark.parametrize("others", [(0, 0), (0, 1), (1, 2)])
    def test_children_of_one_parent(self, story: Story, others: tuple[int, int]):
        parent = story.put({"n": 0, "list": ["root"], "rest": 1}, seen={"node": {"n": 1}})
        for n in range(8):
            puts = [
                (by, story.ready({"n": n, "list": ["root", n, by], "rest": 1}, under=parent, changed={"n", "list"}))
                for by in (0, *others)
            ]
            self.gathered(story, *puts)
            parent = story.put({"n": n, "list": ["root"], "rest": 1}, changed={"n", "list"}, by=n % SAVERS)
        story.check_all()

    def test_a_parent_and_its_child(self, story: Story):
        story.put({"n": 0, "list": [0]})
        for n in range(8):
            parent = story.ready({"n": n, "list": [*range(n)]})
            child = story.ready({"n": n, "list": [*range(n), "child"]}, changed={"list"})
            self.gathered(story, (n % SAVERS, parent), ((n + n // 4) % SAVERS, child))
        story.check_all()

    def test_the_first_ones_of_a_thread(self, story: Story):
        puts = [(by, story.ready({"n": by, "list": [by]}, under=None)) for by in (0, 0, 1, 2)]
        self.gathered(story, *puts)
        story.put({"n": 9, "list": [9]}, by=1)
        story.check_all()

    def test_a_checkpoint_and_the_same_again(self, story: Story):
        parent = story.put({"n": 0, "list": [0]})
        arguments = story.ready({"n": 1, "list": [0, 1]})
        self.gathered(story, (0, arguments), (0, arguments), (2, arguments))
        story.put({"n": 2, "list": [0, 1]}, changed={"n"})
        story.put({"n": 3, "list": [0, 1]}, changed={"n"}, under=parent)
        story.check_all()

    def test_siblings_leave_no_trace_in_each_other(self, story: Story):
        """The one that was written last is gone on from, towards what its sibling is."""
        root = {"n": 0, "list": [0], "text": "t" * 300, "gone": 1, "empty": 1}
        moved = {"n": 1, "list": [0, 1], "text": "t" * 400, "empty": EMPTY, "more": 1}
        seen = [{"one": {"n": 1}, "two": {"n": 1}}, {"two": {"n": 2}, "three": {"n": 1}}]
        for order in ([0, 1], [1, 0]):
            parent = story.put(root, versions_seen={"one": {"n": 1}}, under=None)
            thread = story.ours[0]._thread("t", "")
            puts = [
                story.ready(values, under=parent, changed={"n", *moved} & {*values}, versions_seen=seen[n])
                for n, values in enumerate([moved, {**root, "n": 2}])
            ]
            prepared = [thread.make(parent, *arguments[1:]) for arguments in puts]
            for n in order:
                thread.write(prepared[n])
                story.theirs.put(*puts[n])
            last = puts[order[-1]][1]["id"]
            other = puts[order[0]][1]["channel_values"]
            story.put({**other, "new": 1}, under=last, versions_seen=seen[order[0]])
            story.put({**other, "new": 2}, versions_seen={})
        story.check_all()

    def test_written_in_another_order_than_prepared(self, story: Story):
        parent = story.put({"n": 0, "list": ["root"]})
        thread = story.ours[0]._thread("t", "")
        puts = [story.ready({"n": n, "list": ["root", n]}, under=parent) for n in range(4)]
        prepared = [thread.make(parent, *arguments[1:]) for arguments in puts]
        for arguments in puts:
            story.theirs.put(*arguments)
        for n in (2, 0, 3, 1):
            thread.write(prepared[n])
            story.put({"n": f"after {n}", "list": ["root", n, n]}, under=puts[n][1]["id"])
        story.check_all()


class TestChannels:
    def test_that_disappear_and_come_back(self, story: Story):
        full = {"number": 1, "text": "t" * 300, "list": [1, 2], "small": "s"}
        for n, there in enumerate([full, {}, full, {"list": [1, 2]}, full, {"number": 1}, full, full]):
            story.put({"other": n, **there})
        story.check_all()

    def test_that_are_empty_and_have_a_value_again(self, story: Story):
        for by in range(SAVERS):
            for value in (1, EMPTY, 1, [1], EMPTY, [1], EMPTY, EMPTY, "t" * 300):
                story.put({"a": value, "b": EMPTY}, by=by)
        story.check_all()

    def test_that_come_and_go_beside_larger_ones_for_long(self, story: Story):
        """The log writes down now and then which channels there are; that has to be what its events say."""
        for n in range(80):
            more = {"number": n, "list": [n], "text": f"{n}" * 200} if n % 8 else {}
            story.put({"rest": n, **more})
        story.check_all()

    def test_that_are_all_gone(self, story: Story):
        story.put({"a": 1, "b": [1]})
        story.put({})
        story.put({}, by=1)
        story.put({"b": [1]}, by=1)
        story.check_all()

    @pytest.mark.parametrize(
        "name",
        ["~", "~~", "~v:x", "~s:x", "~v:", "~metadata", "~rest", "~c", "~~metadata", "v:x", "é", "a.b", " "],
    )
    def test_that_are_called_like_what_the_saver_keeps(self, story: Story, name: str):
        both = {name: 1, "x": 2}
        seen = {"x": {"x": 1}, name: {name: 1}}
        for n, values in enumerate([both, {"x": 2}, {**both, name: [1]}, {name: EMPTY, "x": 2}, both, {}, both]):
            story.put(values, by=n // 2 % SAVERS, versions_seen={**seen, "n": {name: n}} if n % 3 else {})
        story.check_all()


EQUAL = [1, True, 1.0, "1", b"1", None, 0, False, 0.0, -0.0, "", b"", [], {}, "0", float("inf"), Decimal(1)]
LENGTHS = [10, 255, 256, 257, 300, 5000, 256, 257, 1, 0, 256, 1000]


class TestValues:
    def test_a_scalar_that_changes_its_type(self, story: Story):
        for n, value in enumerate(EQUAL + EQUAL[::-1] + EQUAL[::2]):
            story.put({"a": value}, by=n // 5 % SAVERS)
        story.check_all()

    @pytest.mark.parametrize("make", [lambda size: "x" * size, lambda size: "é" * size, lambda size: b"x" * size])
    def test_a_text_that_grows_and_shrinks(self, story: Story, make: Any):
        for n, size in enumerate(LENGTHS):
            story.put({"a": make(size), "b": n}, by=n // 4 % SAVERS)
            story.put({"a": make(size), "b": n}, by=n // 4 % SAVERS)
        story.check_all()

    def test_a_text_that_changes_its_type_at_any_length(self, story: Story):
        for size in (10, 256, 257):
            for value in ("1" * size, b"1" * size, bytearray(b"1" * size), ["1" * size], "1" * size + "1", "2" * size):
                story.put({"a": value})
        story.check_all()

    def test_a_value_that_a_graph_goes_on_to_change(self, story: Story):
        state: dict[str, Any] = {"dict": {"k": [1]}, "list": [[1]]}
        for n in range(6):
            story.put(state, by=n // 2 % SAVERS)
            state["dict"]["k"].append(n)
            state["list"][0].append({"n": n})
        story.check_all()

    def test_bytes_that_a_graph_goes_on_to_change(self, story: Story):
        """Upstream's saver keeps the object itself, so ours is asked alone."""
        saver, value = story.ours[0], bytearray(b"1")
        for n in range(3):
            saver.put(*story.ready({"a": value}))
            value.append(n)
        read = [saver.get_tuple(config(f"c{n:05}")).checkpoint["channel_values"]["a"] for n in (1, 2, 3)]
        assert read == [bytearray(b"1"), bytearray(b"1\0"), bytearray(b"1\0\1")]


STRANGE = [
    "",
    "1",
    "1.5",
    "0" * 32 + ".0",
    "0" * 31 + "1.0000000001",
    "0" * 31 + "1.0.5",
    "\u0660" * 32 + ".0000000001",
    "9" * 32 + ".0000000001",
    "v" * 5000,
    "é\n\0",
]


class TestVersions:
    @pytest.mark.parametrize(
        "first", [1, 1.5, 2**53, 2**63, 2**64 - 1, -1, *STRANGE], ids=lambda first: f"{first!a:.40}"
    )
    def test_of_any_shape(self, story: Story, first: Any):
        second = f"{first}x"
        for by in range(SAVERS):
            for version in (first, second):
                versions = {"a": version, "b": first}
                story.put({"a": version, "b": 1}, versions=versions, versions_seen={"node": versions}, by=by)
                story.put({"a": version, "b": 1}, versions=versions, versions_seen={"node": versions}, by=by)
        story.check_all()

    def test_that_change_their_type_as_they_grow(self, story: Story):
        for n, version in enumerate([1, "2", 3.5, 4, f"{5:032}.{0.5:016}", f"{6:032}.{7:010}", 7, 8.0, False]):
            versions = {"a": version, "b": 1}
            story.put({"a": n, "b": 1}, versions=versions, versions_seen={"node": {"a": version}}, by=n // 5)
        story.check_all()

    def test_that_python_calls_equal_and_are_said_to_be_new(self, story: Story):
        for n, version in enumerate([1, True, 1.0, 1, 1.0, True]):
            story.put({"a": n}, versions={"a": version}, by=n // 3)

    def test_that_python_calls_equal_and_are_not_said_to_be_new(self, story: Story):
        story.put({"a": 1, "b": 1}, versions={"a": 1, "b": 1})
        for version in (True, 1.0, 1):
            story.put({"a": 1, "b": 1}, versions={"a": version, "b": 1}, new={})

    def test_in_a_dict_that_a_graph_goes_on_to_change(self, story: Story):
        """LangGraph hands the same dict from one checkpoint to the next."""
        versions: dict[str, Any] = {}
        for n, version in enumerate(["1", "2", "1", "3", "2", "1"]):
            new = {} if version in {"1", "2"} and n > 1 else {"a": version}
            where, said, metadata, _ = story.ready({"a": int(version)}, versions={"a": version})
            versions["a"] = version
            said["channel_versions"] = versions
            story.theirs.put(where, said, metadata, new)
            story.ours[0].put(where, said, metadata, new)
            story.check()
        story.check_all()

    @pytest.mark.parametrize("version", [2**64, -(2**63) - 1, 10**30])
    @pytest.mark.parametrize("where", ["channel_versions", "versions_seen"])
    def test_that_upstream_does_not_take_are_kept_or_refused_by_an_error_of_ours(
        self, story: Story, where: str, version: int
    ):
        first = story.put({"a": 1})
        said = {"versions": {"a": version}} if where == "channel_versions" else {"versions_seen": {"n": {"a": version}}}
        arguments = story.ready({"a": 2}, **said)
        for saver in story.ours:
            with suppress(EventLogError):
                saver.put(*arguments)
                kept = saver.get_tuple(config()).checkpoint[where]
                assert kept == arguments[1][where]
                saver.put(*story.ready({"a": 2}, under=first, again=arguments[1]["id"]))
        story.theirs.put(*story.ready({"a": 2}, under=first, again=arguments[1]["id"]))
        story.put({"a": 3}, under=first)

    def test_that_the_saver_makes_go_on_from_any_that_others_made(self, story: Story):
        for first in (None, 1, 10**6, 2**63, "7", f"{8:032}.{0.25:016}", f"{2**64:032}.{0.25:016}"):
            version = first
            for n in range(3):
                before, version = version, story.ours[0].get_next_version(version, None)
                assert int(version.split(".")[0]) == int(str(before or 0).split(".")[0]) + 1
                story.put({"a": n}, versions={"a": version}, versions_seen={"node": {"a": version}})
        story.check_all()


class TestSeen:
    def test_what_an_interrupted_put_said_is_not_known_by_halves(self):
        """By Ctrl-C, after it is written, while the saver notes what it wrote: later a node is not seen any more."""

        def checkpoint(n: int, seen: dict[str, dict[str, str]]) -> Any:
            versions, values = {"a": f"{n:032d}.5"}, {"a": n}
            return {**empty_checkpoint(), "id": str(n), "channel_values": values, "channel_versions": versions} | {
                "versions_seen": seen
            }

        for line in count(1):
            saver = EventLogSaver(EventLog.open("memory:"))
            first, second, third = checkpoint(1, {}), checkpoint(2, {"node": {"a": "1"}}), checkpoint(3, {})
            saver.put(config(), first, {}, first["channel_versions"])

            def put(saver: EventLogSaver = saver, second: Any = second) -> None:
                saver.put(config("1"), second, {}, second["channel_versions"])

            is_interrupted = interrupted_at(line, {"write", "accept", "_newest"}, put)
            under = "1" if saver.get_tuple(config("2")) is None else "2"
            saver.put(config(under), third, {}, third["channel_versions"])
            found = saver.get_tuple(config("3"))
            assert found is not None
            assert found.checkpoint == third, line
            if not is_interrupted:
                break
        assert line > 10

    def test_nodes_that_appear_and_disappear(self, story: Story):
        one, two = {"one": {"a": 1}}, {"two": {"a": 1, "b": 2}}
        for n, seen in enumerate([{}, one, {**one, **two}, two, {}, two, one, {**one, **two}, {}, {}]):
            story.put({"a": n}, versions_seen=seen, by=n // 5)
        story.check_all()

    def test_a_node_that_comes_back_as_it_was(self, story: Story):
        for by in range(SAVERS):
            for seen in ({"node": {"a": 1}}, {}, {"node": {"a": 1}}):
                story.put({"a": 1}, versions_seen=seen, by=by)

    def test_a_node_that_another_takes_the_place_of(self, story: Story):
        for n in range(12):
            story.put({"a": n}, versions_seen={f"node {n % 3}": {"a": n // 3}}, by=n % 5 % SAVERS)
        story.check_all()

    def test_channels_that_a_node_has_seen_come_and_go(self, story: Story):
        for seen in ({"a": 1}, {"a": 1, "b": 1}, {"b": 1}, {}, {"a": 1}, {"a": 2}, {"a": "2"}):
            story.put({"a": 1}, versions_seen={"node": seen, "__input__": {}})
        story.check_all()

    def test_versions_that_python_calls_equal(self, story: Story):
        for version in (1, True, 1.0, 1):
            story.put({"a": 1}, versions_seen={"node": {"a": version}})

    def test_what_a_graph_goes_on_to_change(self, story: Story):
        seen: dict[str, Any] = {"node": {}}
        for n in range(6):
            story.put({"a": n}, versions_seen=seen)
            seen["node"][f"{n % 3}"] = n
            if n == 3:
                seen["other"] = seen["node"]


NOW = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
NOT_PLAIN: list[Any] = [
    (1, (2, [3])),
    {1, 2},
    frozenset({"a"}),
    deque([1, 2]),
    NOW,
    NOW.replace(tzinfo=None),
    date(2026, 1, 2),
    timedelta(1),
    uuid.UUID(int=7),
    Decimal("1.10"),
    Path("/a"),
    b"\0\xff",
    HumanMessage("hi", id="m"),
    [AIMessage("ho", id="n")],
    Send("node", {"a": 1}),
    Interrupt(value="why", id="i"),
    {1: 2, None: 3, b"k": 4},
    2**64 - 1,
    float("nan"),
    None,
    [[[[[]]]]],
    "x" * 5000,
    "\ud800",
]
STEPS = [None, True, False, "1", 1.0, -1, 0, 10**6, 2**62 - 1, 2**62, -(2**62), 1 - 2**62, 2**64 - 1, (1,), ..., 3]


class TestTheRest:
    @pytest.mark.parametrize("value", NOT_PLAIN, ids=ascii)
    def test_metadata_that_is_not_plain(self, story: Story, value: Any):
        plain = {"source": "loop", "step": 1, "parents": {}}
        for metadata in (plain, {**plain, "value": value}, {**plain, "deep": [{"value": value}]}, plain, plain):
            story.put({"a": 1}, metadata=metadata)
            story.put({"a": 1}, metadata=metadata, by=1)
        story.check_all()

    @pytest.mark.parametrize("value", NOT_PLAIN, ids=ascii)
    def test_other_keys_of_a_checkpoint(self, story: Story, value: Any):
        for more in ({}, {"more": value}, {"more": [value], "pending_sends": [value]}, {"v": ..., "more": value}, {}):
            story.put({"a": 1}, **more)
            story.put({"a": 1}, by=1, **more)
        story.check_all()

    @pytest.mark.parametrize("step", STEPS, ids=ascii)
    def test_steps_of_any_kind(self, story: Story, step: Any):
        """They are what metadata says; how the log numbers its events is its own business."""
        said = {} if step is ... else {"step": step}
        for n, metadata in enumerate([{"step": 5}, said, said, {"step": 2}, {**said, "x": 1}, {"step": 6}]):
            story.put({"a": n}, metadata={"source": "loop", **metadata}, by=n // 3)
        story.check_all()

    @pytest.mark.parametrize(
        "ts", [..., None, "", "yesterday", "2109-11-04T21:40:29.877669+00:00", 0, 1.5, True, NOW, ("2026",), "\n\0"]
    )
    def test_times_of_any_kind(self, story: Story, ts: Any):
        story.put({"a": 1})
        for by in (0, 0, 1):
            story.put({"a": 1}, ts=ts, by=by)
        story.put({"a": 1})
        story.check_all()

    @pytest.mark.parametrize("where", ["metadata", "more", "ts", "versions_seen"])
    def test_a_text_that_is_no_utf8_is_kept_as_upstream_keeps_it_or_refused(self, story: Story, where: str):
        said = {"versions_seen": {"node": {"a": "\ud800"}}, "metadata": {"step": 1, "text": "\ud800"}}.get(
            where, "\ud800"
        )
        with suppress(EventLogError):
            story.put({"a": "\ud800"}, **{where: said})

    def test_metadata_that_rests_while_it_is_changed_in_place(self, story: Story):
        metadata: dict[str, Any] = {"source": "loop", "step": 1, "parents": {}, "list": [1]}
        for n in range(4):
            story.put({"a": n}, metadata=metadata)
            metadata["list"].append(n)
        story.check_all()

    @pytest.mark.parametrize("missing", ["nowhere", "11111111-2222-3333-4444-55555555555A", str(uuid.UUID(int=5))])
    def test_the_parent_is_the_one_that_was_named(self, story: Story, missing: str):
        story.put({"a": 1}, under=missing)
        story.put({"a": 2}, under=missing, by=1)
        story.put({"a": 3}, under=missing, again=str(uuid.UUID(int=6)))
        story.put({"a": 4})
        story.check_all()


# Any of it in any order -------------------------------------------------------------------------------------------


class Teller:
    """Tells a random story; of each checkpoint it knows the state, so it can go on from any."""

    CHANNELS = ("a", "b", "~", "~v:a", "~metadata", "v:a")
    NODES = ("a", "~s:a", "node", "__start__")

    def __init__(self, story: Story, seed: int) -> None:
        self.story = story
        self.chance = random.Random(seed)
        self.states: dict[str, dict[str, Any]] = {}
        self.versions = 0

    def value(self) -> Any:
        choose = self.chance.choice
        return choose([
            lambda: choose([1, True, 1.0, "1", b"1", None, 0, -0.0, "", EMPTY]),
            lambda: choose("xyé") * choose([1, 255, 256, 257, 600]),
            lambda: choose([[], {}, (1, 2), NOW, {"k": [1]}, {"k": [True], "l": "x" * 300}]),
            lambda: [choose([1, "text", {"k": 1}, {"k": True}]) for _ in range(self.chance.randrange(5))],
        ])()  # fmt: skip

    def version(self) -> Any:
        """A new one, of any shape."""
        self.versions += 1
        n = self.versions
        return self.chance.choice([n, n + 0.5, f"{n}", f"{n:032}.{self.chance.random():016}", f"{n:032}.{n:010}"])

    def next_state(self, before: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """A state and what changed; each channel is its value and its version."""
        state = dict(before)
        names = self.chance.sample(self.CHANNELS, self.chance.randrange(4))
        for name in names:
            kind = self.chance.random()
            if kind < 0.2:
                state.pop(name, None)
                continue
            value = before.get(name, (EMPTY,))[0]
            if kind < 0.4 and type(value) in (list, str, bytes):
                value = value + type(value)(value[:1])
            elif kind < 0.5 and self.states:  # as another checkpoint has it, perhaps one that was put at the same time
                value = list(self.states.values())[-1].get(name, (EMPTY,))[0]
            elif kind < 0.9:
                value = self.value()
            state[name] = (value, self.version())
        return state, [name for name in names if name in state]

    def arguments(self) -> tuple[Any, ...]:
        chance, story = self.chance, self.story
        known = list(self.states)
        last = known[-1] if known else None
        under = chance.choice([last, last, last, last, None, "nowhere" if known else None, *known[-3:]])
        state, changed = self.next_state(self.states.get(under or "", {}))
        versions = {name: version for name, (_, version) in state.items()}
        seen = {node: dict(chance.sample([*versions.items()], len(versions) // 2)) for node in self.NODES}
        more = chance.choice([{}, {}, {"more": chance.choice(NOT_PLAIN[:8])}, {"ts": chance.choice(["", 1, ...])}])
        step = chance.choice([{"step": chance.randrange(-2, 50)}, {"step": chance.choice(STEPS[:4])}, {}])
        arguments = story.ready(
            {name: value for name, (value, _) in state.items()},
            under=under,
            versions=versions,
            new={name: versions[name] for name in changed} if under in self.states else versions,
            metadata={"source": "loop", **step, "tag": chance.choice([1, True, "x", (1,), NOW])},
            again=chance.choice(known) if known and chance.random() < 0.05 else None,
            versions_seen={node: seen[node] for node in chance.sample(self.NODES, chance.randrange(5))},
            **more,
        )
        self.states.pop(arguments[1]["id"], None)
        self.states[arguments[1]["id"]] = state
        return arguments

    def step(self) -> None:
        chance, story = self.chance, self.story
        kind = chance.random()
        if kind < 0.03:
            story.delete(chance.randrange(SAVERS))
            self.states.clear()
        elif kind < 0.15 and self.states:  # a thread that was deleted begins with one that has no parent
            puts = [(chance.randrange(SAVERS), self.arguments()) for _ in range(2)]
            is_open = puts[0][1][1]["id"] == puts[1][1][1]["id"]  # which of them would be the last
            for together in [puts[:1], puts[1:]] if is_open else [puts]:
                TestAtOnce().gathered(story, *together)
        else:
            arguments = self.arguments()
            story.theirs.put(*arguments)
            story.ours[0 if chance.random() < 0.6 else chance.randrange(SAVERS)].put(*arguments)
        story.check(None, *list(self.states)[-2:])


@pytest.mark.parametrize("seed", range(10))
def test_any_story_is_answered_as_upstream_answers_it(story: Story, seed: int):
    teller = Teller(story, seed)
    for _ in range(60):
        teller.step()
    story.check_all()


def test_what_is_read_is_the_readers_own(story: Story):
    """A saver that remembers what was put must not hand it out."""
    story.put({"a": [1], "b": {"k": 1}}, versions_seen={"n": {"a": 1}}, more=[1])
    for saver in story.ours:
        before = told(saver.get_tuple(config()))
        found = saver.get_tuple(config())
        found.checkpoint["channel_values"]["a"].append(2)
        found.checkpoint["channel_versions"]["a"] = "spoiled"
        found.checkpoint["versions_seen"]["n"]["a"] = "spoiled"
        found.checkpoint["more"].append(2)
        found.metadata["step"] = "spoiled"
        assert told(saver.get_tuple(config())) == before
    story.put({"a": [1], "b": {"k": 2}}, changed={"b"}, versions_seen={"n": {"a": 1}}, more=[1])
    story.check_all()


class TestTheirs:
    def test_what_is_done_to_an_answer_shows_in_no_other(self, story: Story):
        for n in range(3):
            story.put({"a": n, "list": [n]}, versions_seen={"node": {"a": f"{n:032}.{n:010}"}, "__input__": {}})
        saver = story.ours[0]
        ids = [None, *(found.config["configurable"]["checkpoint_id"] for found in saver.list(config()))]
        for checkpoint_id in ids:
            before = told(saver.get_tuple(config(checkpoint_id)))
            given = saver.get_tuple(config(checkpoint_id))
            for part in (given.checkpoint, given.metadata, given.config["configurable"]):
                for value in list(part.values()):
                    if isinstance(value, dict):
                        for inner in list(value.values()):
                            if isinstance(inner, dict | list):
                                inner.clear()
                        value.clear()
                part.clear()
            assert told(saver.get_tuple(config(checkpoint_id))) == before
        story.check_all()
