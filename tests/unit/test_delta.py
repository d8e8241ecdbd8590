"""Deltas: what is found is what changed, it is sound, and it is never larger than setting the value."""

from __future__ import annotations

import copy
import enum
import math
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog import (
    AppendText,
    Delete,
    EventLog,
    Extend,
    InvalidInputError,
    Merge,
    Splice,
    TooDeepError,
    UnserializableError,
    Update,
    delta,
    register,
    unregister,
)
from eventlog.codec import MAX_DEPTH, MSGPACK
from eventlog.shadow import shadow_of
from eventlog.storage.memory import MemoryStorage
from tests.engines import DEEP
from tests.strict import Note, Point, hashables, json_values, strictly_equal, values


def found(old: Any, new: Any) -> delta.Write | None:
    return delta.difference(shadow_of(copied(old), MSGPACK), new, MSGPACK, "channel")


def copied(value: Any) -> Any:
    return MSGPACK.decode(MSGPACK.encode(value))


def after(old: Any, write: delta.Write | None) -> Any:
    return copied(old) if write is None else delta.applied(copied(old), write.code, write.payload, MSGPACK)


def plain_size(value: Any) -> int:
    return len(delta.set_to(value, MSGPACK, "channel").payload)


def check(old: Any, new: Any) -> delta.Write | None:
    write = found(old, new)
    result = after(old, write)
    assert strictly_equal(result, copied(new)), (old, new, write, result)
    if write is None:
        assert strictly_equal(copied(old), copied(new))
    else:
        assert len(write.payload) <= plain_size(new), (old, new, write)
    return write


# --- pairs of values that have much in common ---------------------------------------------------------------------


def _cut(value: Any, draw: Any) -> Any:
    return value[: draw(st.integers(0, len(value)))]


def _retyped(key: Any) -> Any:
    """Another key that Python calls equal, if there is one."""
    if type(key) is bool:
        return int(key)
    return bool(key) if type(key) is int and key in (0, 1) else key


@st.composite
def changed(draw: Any, value: Any, leaves: st.SearchStrategy[Any]) -> Any:
    """`value` with a change somewhere: what a step of a program does to its state."""
    cls = type(value)
    if cls is list and value:
        how = draw(st.sampled_from(["extend", "inner", "cut", "insert", "splice", "splice", "repeat", "move", "same"]))
        if how == "extend":
            return value + draw(st.lists(leaves, max_size=3))
        if how == "inner":
            index = draw(st.integers(0, len(value) - 1))
            return [*value[:index], draw(changed(value[index], leaves)), *value[index + 1 :]]
        if how == "cut":
            return _cut(value, draw)
        if how == "splice":
            start = draw(st.integers(0, len(value)))
            end = draw(st.integers(start, len(value)))
            return [*value[:start], *draw(st.lists(leaves, max_size=3)), *value[end:]]
        if how == "repeat":
            return value * 2
        if how == "move":
            return draw(st.permutations(value))
        return [draw(leaves), *value] if how == "insert" else list(value)
    if cls is dict and value:
        how = draw(st.sampled_from(["inner", "inner", "drop", "add", "reorder", "retype", "same"]))
        keys = list(value)
        key = draw(st.sampled_from(keys))
        if how == "inner":
            return {**value, key: draw(changed(value[key], leaves))}
        if how == "drop":
            return {other: item for other, item in value.items() if other is not key}
        if how == "add":
            return {**value, draw(hashables()): draw(leaves)}
        if how == "reorder":
            return {other: value[other] for other in draw(st.permutations(keys))}
        if how == "retype":
            return {_retyped(key): item for key, item in value.items()}
        return dict(value)
    if cls is str:
        return draw(st.sampled_from([value + draw(st.text("abé", max_size=5)), "", value]))
    return draw(leaves | st.just(value))


@st.composite
def pairs(draw: Any) -> tuple[Any, Any]:
    leaves = values(3)
    old = draw(values(8))
    new = old
    for _ in range(draw(st.integers(0, 3))):
        new = draw(changed(new, leaves))
    return old, new


class TestFound:
    @given(values(), values())
    @settings(max_examples=50 * DEEP, deadline=None)
    def test_any_two_values(self, old: Any, new: Any) -> None:
        check(old, new)

    @given(pairs())
    @settings(max_examples=50 * DEEP, deadline=None)
    def test_values_that_have_much_in_common(self, pair: tuple[Any, Any]) -> None:
        check(*pair)

    @given(values())
    @settings(max_examples=100, deadline=None)
    def test_an_equal_value_is_no_change(self, value: Any) -> None:
        assert found(value, value) is None
        assert found(value, copied(value)) is None

    @given(
        st.dictionaries(hashables(), json_values(), max_size=6), st.dictionaries(hashables(), json_values(), max_size=6)
    )
    @settings(max_examples=50 * DEEP, deadline=None)
    def test_dicts_with_any_keys(self, old: dict, new: dict) -> None:
        check(old, new)
        check({**old, "pad": "x" * 200}, {**old, "pad": "x" * 200, **new})

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (1, 1.0),
            (1, True),
            (0.0, -0.0),
            ("a", b"a"),
            ((1,), [1]),
            ({1}, frozenset({1})),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
            ({1: "x"}, {True: "x"}),
            ([1, [2, {"k": 1}]], [1, [2, {"k": 1.0}]]),
            (datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)),  # noqa: DTZ001
            (Point(1), Point(1.0)),
            ([], {}),
            (None, []),
            ("", None),
            ({}, {"a": 1}),
            ({"a": 1}, {}),
            ([1], []),
            ([], [1]),
            ("", "abc"),
            ("abc", ""),
        ],
    )
    def test_what_python_calls_equal_may_differ(self, old: Any, new: Any) -> None:
        assert check(old, new) is not None
        assert check({"k": old, "pad": "x" * 99}, {"k": new, "pad": "x" * 99}) is not None
        assert check([old], [new]) is not None

    def test_a_list_that_grew_is_an_extend(self) -> None:
        write = check(list(range(1000)), [*range(1000), 7])
        assert write is not None
        assert write.code == delta.EXTEND
        assert len(write.payload) < 8

    @pytest.mark.parametrize(
        ("change", "edits"),
        [
            (lambda v: v.insert(0, "new"), [(0, 0, ["new"])]),
            (lambda v: v.insert(700, "new"), [(700, 0, ["new"])]),
            (lambda v: v.pop(0), [(0, 1, [])]),
            (lambda v: v.pop(), [(999, 1, [])]),
            (lambda v: v.__delitem__(slice(10, 910)), [(10, 900, [])]),
            (lambda v: v.__setitem__(5, "new"), [(5, 1, ["new"])]),
            (lambda v: v.__setitem__(slice(5, 8), ["new"]), [(5, 3, ["new"])]),
            (lambda v: (v.pop(900), v.insert(50, "new")), [(50, 0, ["new"]), (900, 1, [])]),
            (lambda v: (v.pop(0), v.append("new")), [(0, 1, []), (1000, 0, ["new"])]),
            (
                lambda v: [v.__setitem__(i, "new") for i in range(0, 1000, 100)],
                [(i, 1, ["new"]) for i in range(0, 1000, 100)],
            ),
        ],
    )
    def test_what_changed_in_a_list_is_a_splice(self, change: Any, edits: list[Any]) -> None:
        for make in (str, lambda n: {"n": n, "more": [n]}, lambda n: Note("n", [n]), lambda n: n / 7):
            old = [make(n) for n in range(1000)]
            new = list(old)
            change(new)
            for value in (new, copied(new)):
                write = check(old, value)
                assert write is not None
                assert write.code == delta.SPLICE
                assert delta.to_operation(write.code, write.payload, MSGPACK) == Splice(edits)

    def test_an_item_that_changed_in_place_is_a_splice(self) -> None:
        value = [{"n": n, "text": "x" * 100} for n in range(1000)]
        shadow, stored = shadow_of(value, MSGPACK), copied(value)
        for n in range(0, 1000, 50):
            value[n]["text"] += "y"
            value[999 - n]["n"] = "m"
            write = delta.difference(shadow, value, MSGPACK, "channel")
            assert write is not None
            assert write.code == delta.SPLICE
            assert len(write.payload) < 300
            shadow = delta.accepted(shadow, write)
            stored = delta.applied(stored, write.code, write.payload, MSGPACK)
            assert strictly_equal(stored, value)
            assert delta.difference(shadow, value, MSGPACK, "channel") is None

    def test_a_splice_within_a_dict(self) -> None:
        items = [f"item {n}" for n in range(100)]
        write = check({"l": items, "n": 1}, {"l": items[1:], "n": 1})
        assert write is not None
        assert delta.to_operation(write.code, write.payload, MSGPACK) == Merge({"l": Splice([(0, 1, [])])})

    def test_lists_with_little_in_common_are_looked_at_in_bounded_time(self) -> None:
        """What is encoded to find the difference is a small multiple of what there is."""
        codec = Counting()
        old = [[n] for n in range(30_000)]
        for new in ([[-n] for n in range(30_000)], old[::-1], [[n % 7] for n in range(30_000)], old[1::2]):
            shadow = shadow_of(old, codec)
            codec.calls = 0
            write = delta.difference(shadow, new, codec, "channel")
            assert write is not None
            assert codec.calls < 3 * len(new) + 20_000
            assert after(old, write) == new

    def test_growth_is_what_the_list_grows_by(self) -> None:
        for make in (str, lambda n: {"n": n}, lambda n: Note("n", [n]), lambda n: n / 7):
            old = [make(n) for n in range(500)]
            new = [*old[:100], make(-1), *old[110:400], make(-2), *old[400:]]
            write = check(old, new)
            assert write is not None
            assert abs(plain_size(old) + write.growth - plain_size(new)) < 10

    def test_a_string_that_grew_is_the_end_of_it(self) -> None:
        write = check("x" * 1000, "x" * 1000 + "end")
        assert write is not None
        assert write.code == delta.TEXT
        assert len(write.payload) < 8

    def test_one_key_of_a_dict_is_one_key_at_any_depth(self) -> None:
        old = {f"k{i}": {f"l{j}": [i, j] * 20 for j in range(20)} for i in range(20)}
        new = copy.deepcopy(old)
        new["k7"]["l9"].append("new")
        del new["k8"]["l3"]
        write = check(old, new)
        assert write is not None
        assert len(write.payload) < 60
        assert delta.to_operation(write.code, write.payload, MSGPACK) == Merge(
            {"k7": Merge({"l9": Extend(["new"])}), "k8": Merge({"l3": Delete()})}
        )

    def test_nan_as_a_key_stays_one_key(self) -> None:
        nan = math.nan
        old = {nan: 1, (nan, 1): 2, "pad": "x" * 100}
        check(old, {nan: 5, (nan, 1): 2, "pad": "x" * 100})
        check(old, {nan: 1, (nan, 1): 7, "pad": "x" * 100})
        check(old, {(nan, 1): 2, "pad": "x" * 100})

    def test_a_change_at_the_greatest_depth_is_recorded_like_the_value_itself(self) -> None:
        for wrap in (lambda value: {"k": value}, lambda value: [value]):
            for depth in (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1):
                old: Any = 1
                new: Any = 2
                for _ in range(depth):
                    old, new = wrap(old), wrap(new)
                try:
                    plain_size(new)
                except TooDeepError:
                    continue
                assert after(old, found(old, new)) == new

    def test_nothing_is_accepted_that_could_not_be_set_whole(self) -> None:
        """A snapshot sets it whole later; it must not fail then, in somebody else's append."""
        deep: Any = 1
        for _ in range(MAX_DEPTH - 1):
            deep = [deep]
        for hidden in (Point(deep), (deep,), Note("n", deep)):
            old = {"a": {"b": {"c": 1}}}
            new = {"a": {"b": {"c": hidden}}}
            try:
                write = found(old, new)
            except TooDeepError:
                continue
            assert write is not None
            MSGPACK.encode(after(old, write))

    @pytest.mark.parametrize(
        ("wrap", "most"),
        [(lambda v: [v], 199), (lambda v: {"k": v}, 199), (Point, 199), (lambda v: frozenset([v]), 19)],
    )
    def test_a_merge_is_refused_where_the_whole_would_be(self, wrap: Any, most: int) -> None:
        with EventLog(MemoryStorage()) as log:
            run = log.run("r")
            run.append({"d": {}})
            deep: Any = 1
            for _ in range(most):
                deep = wrap(deep)
            with pytest.raises(TooDeepError):
                run.append({"d": Merge({"x": wrap(deep)})})
            run.append({"d": Merge({"x": deep})})
            MSGPACK.encode(run.state["d"])

    def test_unserializable_names_the_whole_path(self) -> None:
        old = {"meta": {"m": [1, 2, 3]}}
        with pytest.raises(UnserializableError, match=r"^channel\.meta\.m\[3\]\.callback: ") as caught:
            found(old, {"meta": {"m": [1, 2, 3, {"callback": print}]}})
        assert caught.value.path == "channel.meta.m[3].callback"


class TestInPlace:
    """Detection is sound: what was changed in place is recorded."""

    @pytest.mark.parametrize(
        ("value", "change"),
        [
            ([1, [2, [3]]], lambda v: v[1][1].append(4)),
            ([1, [2, [3]]], lambda v: v[1][1].__setitem__(0, 4)),
            ({"a": {"b": {"c": 1}}}, lambda v: v["a"]["b"].update(c=2)),
            ({"a": {"b": {"c": 1}}}, lambda v: v["a"].pop("b")),
            ({"a": {"b": {1: 1, 2: 2}}}, lambda v: v["a"]["b"].__setitem__(1, v["a"]["b"].pop(1))),
            ([{1, 2}], lambda v: v[0].add(3)),
            ([bytearray(b"abc")], lambda v: v[0].__setitem__(0, 0)),
            ([Note("a")], lambda v: v[0].tags.append(1)),
            ([Note("a", [], {"k": [1]})], lambda v: v[0].about["k"].append(2)),
            ([(1, [2])], lambda v: v[0][1].append(3)),
            ([(1, (2, {3: [4]}))], lambda v: v[0][1][1][3].append(5)),
            ({"k": (1, [2])}, lambda v: v["k"][1].clear()),
            ([Point([1])], lambda v: v[0].x.append(2)),
            ([[1, 2], [3]], lambda v: v.reverse()),
            ([[1], [1]], lambda v: v[1].append(1)),
            (Note("a"), lambda v: setattr(v, "text", "b")),
            ({1, 2}, lambda v: v.discard(2)),
            (bytearray(b"a"), lambda v: v.extend(b"b")),
        ],
    )
    def test_at_any_depth(self, value: Any, change: Any) -> None:
        shadow = shadow_of(value, MSGPACK)
        before = copied(value)
        change(value)
        write = delta.difference(shadow, value, MSGPACK, "channel")
        assert write is not None
        assert strictly_equal(after(before, write), copied(value))

    @given(pairs())
    @settings(max_examples=60, deadline=None)
    def test_a_shadow_never_sees_what_is_done_to_its_value(self, pair: tuple[Any, Any]) -> None:
        """The shadow is made of one object; that object then becomes something else in place."""
        old, new = pair
        live = copied(old)
        shadow = shadow_of(live, MSGPACK)
        if type(live) is not type(new) or type(live) not in (list, dict, set, bytearray):
            live = copied(new)
        elif type(live) in (list, bytearray):
            live[:] = copied(new)
        else:
            live.clear()
            live.update(copied(new))
        write = delta.difference(shadow, live, MSGPACK, "channel")
        assert strictly_equal(after(old, write), copied(new))


class TestChains:
    @given(st.data())
    @settings(max_examples=50, deadline=None)
    def test_an_accepted_shadow_is_that_of_the_new_value(self, data: Any) -> None:
        """Many changes, each accepted; the live value is the same object where the change could be made in place."""
        value = data.draw(
            st.dictionaries(st.sampled_from("abcd"), values(6), max_size=4) | st.lists(values(6), max_size=4)
        )
        shadow = shadow_of(value, MSGPACK)
        stored = copied(value)
        for _ in range(data.draw(st.integers(1, 5))):
            value = data.draw(changed(value, values(3)))
            write = delta.difference(shadow, value, MSGPACK, "channel")
            if write is None:
                assert strictly_equal(stored, copied(value))
                continue
            assert len(write.payload) <= plain_size(value)
            shadow = delta.accepted(shadow, write)
            if shadow is delta.NO_SHADOW:
                shadow = shadow_of(value, MSGPACK)
            stored = delta.applied(stored, write.code, write.payload, MSGPACK)
            assert strictly_equal(stored, copied(value))
            assert delta.difference(shadow, value, MSGPACK, "channel") is None

    def test_a_change_that_was_not_recorded_is_found_again(self) -> None:
        value = {"a": [1], "b": {"c": "x"}, "pad": "p" * 100}
        shadow = shadow_of(value, MSGPACK)
        value["a"].append(2)
        value["b"]["c"] += "y"
        value["d"] = 1
        first = delta.difference(shadow, value, MSGPACK, "channel")
        again = delta.difference(shadow, value, MSGPACK, "channel")
        assert first is not None
        assert again is not None
        assert (first.code, first.payload) == (again.code, again.payload)

    def test_a_long_life_in_place(self) -> None:
        value: dict[str, Any] = {"log": [], "text": "", "deep": {"a": {"n": 0}}, "set": set(), "pad": "p" * 300}
        shadow, stored = shadow_of(value, MSGPACK), copied(value)
        for n in range(300):
            value["log"].append({"n": n, "items": []})
            value["log"][len(value["log"]) // 2]["items"].append(n) if n % 7 == 0 else None
            value["log"].pop(n % 5) if n % 3 == 0 else None
            value["log"].insert(n % 11, {"n": -n, "items": [n]}) if n % 5 == 0 else None
            value["text"] += str(n)
            value["deep"]["a"]["n"] = float(n) if n % 3 else n
            value["set"].add(n % 11)
            if n % 50 == 0:
                value["deep"] = {"new": n, **value["deep"]}
            write = delta.difference(shadow, value, MSGPACK, "channel")
            assert write is not None
            shadow = delta.accepted(shadow, write)
            stored = delta.applied(stored, write.code, write.payload, MSGPACK)
        assert strictly_equal(stored, value)


class Counting:
    """The engine's codec; how often it was asked."""

    name, calls = MSGPACK.name, 0

    def encode(self, value: Any, path: str = "value") -> bytes:
        self.calls += 1
        return MSGPACK.encode(value, path)

    def decode(self, data: bytes) -> Any:
        return MSGPACK.decode(data)


class Known:
    def __init__(self, value: Any) -> None:
        self.kind = delta.set_to(value, MSGPACK, "channel").code
        self.kept = value

    def shadow(self) -> Any:
        return shadow_of(self.kept, MSGPACK)

    def made_shadow(self) -> Any:
        return None

    def value(self) -> Any:
        return copied(self.kept)


class TestOperations:
    def apply(self, value: Any, operation: Any) -> Any:
        """What becomes of a channel that holds `value` (none, if `...`), through a run."""
        with EventLog.open("memory:") as log:
            run = log.run("r")
            if value is not ...:
                run.append({"channel": value})
            run.append({"channel": operation})
            return log.run("r").state["channel"]

    def test_a_text_is_put_together_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each time anew it costs the square of its length."""
        monkeypatch.delattr(delta, "applied")
        chunks = [(delta.TEXT, MSGPACK.encode(f"{n},")) for n in range(100)]
        assert delta.replayed("begin ", chunks, MSGPACK) == "begin " + "".join(f"{n}," for n in range(100))

    def test_a_splice_of_many_edits_is_applied_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Edit by edit each looks through the pieces that the ones before it made."""
        old = [f"{n} ".ljust(100, "x") for n in range(2000)]
        new = [text[:-1] if n % 9 == 0 else text for n, text in enumerate(old)]
        write = found(old, new)
        assert write is not None
        assert write.code == delta.SPLICE
        put, puts = delta.Pieces.put, list[int]()

        def counted(pieces: Any, start: int, removed: int, items: list[Any]) -> None:
            puts.append(start)
            put(pieces, start, removed, items)

        monkeypatch.setattr(delta.Pieces, "put", counted)
        operations = [(write.code, write.payload), (delta.EXTEND, MSGPACK.encode(["end"]))]
        assert delta.replayed([*old], operations, MSGPACK) == [*new, "end"]
        assert len(puts) == 1

    def test_each(self) -> None:
        assert self.apply([1], Extend([2, 3])) == [1, 2, 3]
        assert self.apply([1], Extend((2,))) == [1, 2]
        assert self.apply([1, 2, 3, 4], Splice([(0, 0, ["a"]), (1, 2, ["b"]), (4, 0, ("c", "d"))])) == [
            *("a", 1, "b", 4, "c", "d")
        ]
        assert self.apply([1, 2, 3], Splice(((0, 3, []),))) == []
        assert self.apply([1], Splice([])) == [1]
        assert self.apply({"l": [1, 2], 2.5: 1}, Merge({"l": Splice([(0, 1, [])])})) == {"l": [2], 2.5: 1}
        assert self.apply("ab", AppendText("c")) == "abc"
        assert self.apply({"a": 1, "b": 2}, Merge({"a": Delete(), "c": 3, "none": Delete()})) == {"b": 2, "c": 3}
        nested = {"d": {"l": [1], "t": "x", "m": {"k": 1}}}
        spliced = Merge({"d": Merge({"l": Splice([(0, 1, [7, {"k": 8}])])})})
        assert self.apply(nested, spliced) == {"d": {**nested["d"], "l": [7, {"k": 8}]}}
        change = Merge({"d": Merge({"l": Extend([2]), "t": AppendText("y"), "m": Merge({"k": Delete(), 1: None})})})
        assert self.apply(nested, change) == {"d": {"l": [1, 2], "t": "xy", "m": {1: None}}}
        assert self.apply({}, Merge({"n": Merge({"l": Extend([1]), "t": AppendText("t"), "x": Delete()})})) == {
            "n": {"l": [1], "t": "t"}
        }

    @pytest.mark.parametrize(
        "operation",
        [
            Extend([1]),
            Splice([(0, 0, [1])]),
            AppendText("t"),
            Merge({"k": Merge({"l": Extend([1])})}),
            Merge({"k": Merge({"l": Splice([(0, 0, [1])])})}),
        ],
    )
    def test_an_absent_channel_begins_as_an_empty_one(self, operation: Any) -> None:
        assert self.apply(..., operation) in ([1], "t", {"k": {"l": [1]}})

    @pytest.mark.parametrize(
        ("value", "operation"),
        [
            ("text", Extend([1])),
            ([1], AppendText("t")),
            ([1], Merge({})),
            (5, Extend([1])),
            ("text", Splice([(0, 0, [1])])),
            ({"k": 1}, Splice([])),
            ((1,), Splice([])),
            ([1], Splice([(0, 2, [])])),
            ([1], Splice([(2, 0, [1])])),
            ([1], Splice([(-1, 1, [])])),
            ([1], Splice([(0, -1, [])])),
            ([1], Splice([(True, 0, [])])),
            ([1], Splice([(0, 1.0, [])])),
            ([1], Splice([(0, 0, "text")])),
            ([1], Splice([(0, 0)])),
            ([1], Splice([(0, 0, [], [])])),
            ([1], Splice([5])),
            ([1], Splice("ab")),
            ([1, 2], Splice([(1, 1, []), (0, 1, [])])),
            ([1, 2], Splice([(0, 2, []), (1, 1, [])])),
            ({"k": {"l": 1}}, Merge({"k": Merge({"l": Splice([])})})),
            ({"k": [1]}, Merge({"k": Splice([(2, 0, [])])})),
            ({"k": [1], 2.5: 1}, Merge({"k": Splice([(2, 0, [])])})),
            ((1,), Extend([1])),
            ({"k": 1}, Merge({"k": Extend([1])})),
            ({"k": [1]}, Merge({"k": AppendText("t")})),
            ({"k": {"l": "t"}}, Merge({"k": Merge({"l": Merge({})})})),
            ([1], Extend("text")),
            ("t", AppendText(5)),
            ({}, Merge([("a", 1)])),
        ],
    )
    def test_what_does_not_fit_is_refused(self, value: Any, operation: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"^channel"):
            self.apply(value, operation)

    def test_an_error_says_what_is_there(self) -> None:
        for value, edits, message in [
            ("t", [], "channel: Splice needs a list, there is a string"),
            ([1], [(1, 2, [])], "channel: Splice removes 2 at 1, there is a list of 1"),
            ([1], [(0, [1])], r"channel: an edit of a Splice is \(start, removed, \[items\]\), not \(int, list\)"),
        ]:
            with pytest.raises(InvalidInputError, match=message):
                self.apply(value, Splice(edits))
        with pytest.raises(InvalidInputError, match="Splice removes 1 at 0, there is a list of 0"):
            self.apply(..., Splice([(0, 1, [])]))

    def test_splices_and_extends_in_turn_do_not_read_the_list_again(self) -> None:
        read: list[int] = []

        class Item:
            def __init__(self, n: int) -> None:
                self.n = n

        register(Item, "item", lambda item: item.n, lambda n: read.append(n) or Item(n))
        try:
            with EventLog.open("memory:") as log:
                run = log.run("r")
                run.append({"l": [Item(n) for n in range(100)]})
                for n in range(100, 120):
                    run.append({"l": Extend([Item(n)])})
                    run.append({"l": Splice([(0, 1, [])])})
                    run.append({"l": Splice([(50, 1, [Item(-n)])])})
                assert len(read) < 400
                assert len(run.state["l"]) == 100
                assert list(log.verify()) == []
        finally:
            unregister(Item)

    def test_an_edit_of_a_long_list_has_the_bytes_of_its_items(self) -> None:
        items = [f"{n:04}" * 125 for n in range(2000)]
        with EventLog.open("memory:") as log:
            run = log.run("r")
            run.commit({"items": items})
            for change in (
                lambda v: v.insert(0, "x" * 500),
                lambda v: v.pop(1000),
                lambda v: v.__setitem__(700, "y" * 500),
                lambda v: v.__delitem__(slice(100, 1900)),
            ):
                change(items)
                prepared = run.prepare(state={"items": items})
                (operation,) = run.write(prepared).writes.values()
                assert type(operation) is Splice
                added = sum(len(item) for _, _, edit in operation.edits for item in edit)
                assert prepared.payload_bytes <= added + 100
                assert run.state["items"] == items
            assert list(log.verify()) == []

    def test_what_is_found_reads_as_what_a_caller_would_write(self) -> None:
        old = {"a": [1], "t": "x", "gone": 1, uuid.UUID(int=1): 1, "pad": "p" * 99}
        new = {"a": [1, 2], "t": "xy", uuid.UUID(int=1): 2, "pad": "p" * 99, "new": {"k": 1}}
        write = found(old, new)
        assert write is not None
        operation = delta.to_operation(write.code, write.payload, MSGPACK)
        assert operation == Merge(
            {"gone": Delete(), "a": Extend([2]), "t": AppendText("y"), uuid.UUID(int=1): 2, "new": {"k": 1}}
        )
        assert strictly_equal(self.apply(old, operation), new)

    @given(
        st.lists(st.dictionaries(st.sampled_from("abc") | st.integers(0, 2), st.just(Delete()) | values(), max_size=3))
    )
    def test_many_merges_at_once_are_the_same_as_one_after_another(self, merges: list[dict[Any, Any]]) -> None:
        value, operations = {"b": 1, "d": 2}, []
        for changes in merges:
            write = delta.from_operation(Merge(changes), Known(value), MSGPACK, "channel")
            operations.append((write.code, write.payload))
            value = delta.applied(copied(value), write.code, write.payload, MSGPACK)
        assert strictly_equal(delta.replayed({"b": 1, "d": 2}, operations, MSGPACK), value)

    def test_an_update_inside_a_merge_is_no_value(self) -> None:
        """It would be stored as an object of the engine's own class, and read back as one."""
        with pytest.raises(InvalidInputError):
            self.apply({}, Merge({"k": Update(1)}))

    def test_an_unknown_code_of_a_newer_release_says_so(self) -> None:
        with pytest.raises(InvalidInputError, match="newer release"):
            delta.applied(1, 15, b"\xc0", MSGPACK)


class Shade(enum.Enum):
    DARK = 1


def test_enum_members_are_leaves() -> None:
    assert found([Shade.DARK], [Shade.DARK]) is None
    assert check({"k": Shade.DARK}, {"k": 1}) is not None
