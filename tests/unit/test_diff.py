import dataclasses
import enum
import time

import pytest

from eventlog import Diff, EventLog, Extend
from eventlog.diff import Change, compare, is_same, path_text, printable, shown

NAN = float("nan")
OTHER_NAN = float("inf") - float("inf")


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


class Unequal:
    """What no `==` can be asked."""

    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        raise TypeError("do not compare me")

    __hash__ = None

    def __repr__(self):
        return f"Unequal({self.name})"


class Mute:
    def __repr__(self):
        raise RuntimeError("no")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def changes(old, new):
    return [(change.where, change.kind, change.old, change.new) for change in compare({"c": old}, {"c": new})]


def nested(depth, leaf):
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


# --- what a diff is


def test_it_reads_as_on_the_page():
    old = {"spent": 180, "messages": ["m"] * 8, "meta": {"k": 1, "l": 2}}
    new = {"spent": 360, "messages": ["m"] * 8 + ["hello"], "meta": {"l": 2}}
    diff = compare(old, new)
    assert str(diff) == '~ spent   180 → 360\n+ messages[8]   "hello"\n- meta.k   1'
    assert diff.paths == ("spent", "messages[8]", "meta.k")
    assert len(diff) == 3
    assert diff
    assert [change.kind for change in diff] == ["changed", "added", "removed"]
    assert diff.changes[0] == Change(("spent",), "changed", 180, 360)
    assert repr(diff) == "<Diff of 3: spent, messages[8], meta.k>"


def test_no_difference_is_falsy_and_empty():
    diff = compare({"a": [1, {"b": (2.0, None)}]}, {"a": [1, {"b": (2.0, None)}]})
    assert not diff
    assert str(diff) == ""
    assert list(diff) == []
    assert diff == Diff()


def test_it_is_a_frozen_value():
    diff = compare({}, {"a": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        diff.changes = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        diff.changes[0].kind = "removed"


def test_channels_come_in_order_and_their_order_is_no_difference():
    assert compare({"a": 1, "b": 2}, {"c": 3, "b": 4}).paths == ("a", "b", "c")
    assert not compare({"a": 1, "b": 2}, {"b": 2, "a": 1})


# --- strict equality


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("a", b"a"),
        (b"a", bytearray(b"a")),
        ([1], (1,)),
        ([1], [True]),
        ({1: "x"}, {True: "x"}),
        ({1.0: "x"}, {1: "x"}),
        ({(1,): 0}, {(True,): 0}),
        ({1}, {True}),
        ({1}, frozenset({1})),
        (None, False),
        (Point(1), Point(1.0)),
        (Point(1), {"x": 1, "y": 0}),
        (Color.RED, Color.BLUE),
        (Unequal("a"), Unequal("b")),
        ([0.0], [-0.0]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]),
    ],
)
def test_these_differ(a, b):
    assert not is_same(a, b)
    assert not is_same([a], [b])
    assert compare({"c": a}, {"c": b})
    assert compare({"c": {"k": [a]}}, {"c": {"k": [b]}})


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (NAN, OTHER_NAN),
        ([NAN, {"k": NAN}], [OTHER_NAN, {"k": OTHER_NAN}]),
        ({NAN: 1}, {OTHER_NAN: 1}),
        ({3, 1, 2}, {1, 2, 3}),
        (Point([1]), Point([1])),
        (Unequal("a"), Unequal("a")),
        (10**30, 10**30),
        ("x" * 1000, "x" * 999 + "x"),
    ],
)
def test_these_are_the_same(a, b):
    assert is_same(a, b)
    assert not compare({"c": a}, {"c": b})


def test_the_order_of_keys_is_told_only_when_nothing_else_differs():
    old, new = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert str(compare({"d": {"in": old}}, {"d": {"in": new}})) == '~ d.in   order of keys "a", "b" → "b", "a"'
    assert compare({"d": old, "n": 1}, {"d": new, "n": 2}).paths == ("n",)


def test_a_key_that_only_looks_equal_is_another_key():
    assert changes({1: "x"}, {True: "x"}) == [("c[1]", "removed", "x", None), ("c[True]", "added", None, "x")]


# --- lists


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([1, 2], [1, 2, 3], [("c[2]", "added", None, 3)]),
        ([1, 2, 3], [1, 2], [("c[2]", "removed", 3, None)]),
        ([1, 2, 3], [1, 9, 2, 3], [("c[1]", "added", None, 9)]),
        ([1, 9, 2, 3], [1, 2, 3], [("c[1]", "removed", 9, None)]),
        ([1, 2, 3], [1, 5, 3], [("c[1]", "changed", 2, 5)]),
        ([1, 2, 3], [1, 7, 8, 3], [("c[1]", "changed", 2, 7), ("c[2]", "added", None, 8)]),
        ([1, 1], [1, 1, 1], [("c[2]", "added", None, 1)]),
        ([], [1], [("c[0]", "added", None, 1)]),
        ((1, 2), (1, 3), [("c[1]", "changed", 2, 3)]),
        ([{"k": [1, 2]}], [{"k": [1, 3]}], [("c[0].k[1]", "changed", 2, 3)]),
        ([Point(1, [2])], [Point(1, [3])], [("c[0].y[0]", "changed", 2, 3)]),
        ([None], [], [("c[0]", "removed", None, None)]),
        ([1, 2, 3, 4, 5], [9, 1, 2, 3, 5], [("c[0]", "added", None, 9), ("c[3]", "removed", 4, None)]),
        ([{"k": 1}, 2, 3], [{"k": 5}, 2, 2.5, 3], [("c[0].k", "changed", 1, 5), ("c[2]", "added", None, 2.5)]),
    ],
)
def test_lists_lose_their_common_ends_and_are_compared_in_pairs(old, new, expected):
    assert changes(old, new) == expected


def test_an_insertion_in_front_of_many_is_one_change_and_quick():
    many = [{"i": i} for i in range(20_000)]
    started = time.perf_counter()
    assert len(compare({"m": many}, {"m": [{"i": -1}, *[dict(item) for item in many]]})) == 1
    assert time.perf_counter() - started < 5


# --- paths


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("messages", 3, "meta", "k"), "messages[3].meta.k"),
        (("a b", "c d"), '["a b"]["c d"]'),
        (("x", 'say "hi"\\'), r'x["say \"hi\"\\"]'),
        (("x", (1, 2)), "x[(1, 2)]"),
        (("x", ""), 'x[""]'),
        (("x", "\x1b[31m"), r'x["\x1b[31m"]'),
        (("größe",), "größe"),
        ((), ""),
    ],
)
def test_paths_are_written_as_people_write_them(path, text):
    assert path_text(path) == text


# --- text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", '"plain"'),
        ("é 漢 🦜", '"é 漢 🦜"'),
        ("a\nb", r'"a\nb"'),
        ("\x1b[2J\x07", r'"\x1b[2J\x07"'),
        ("a\u202eb\u2066\u200e", r'"a\u202eb\u2066\u200e"'),
        ("\x9b31m\x85\u2028", r'"\x9b31m\x85\u2028"'),
        ("\ud800", r'"\ud800"'),
        ("x" * 100, '"' + "x" * 64 + '…" (+36 characters)'),
        (b"x" * 100, "b'" + "x" * 32 + "…' (+68 bytes)"),
        (bytearray(b"ab"), "bytearray(b'ab')"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, … +94 items]"),
        (list(range(7)), "[0, 1, 2, 3, 4, 5, … +1 item]"),
        ({str(i): i for i in range(8)}, '{"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "5": 5, … +2 keys}'),
        ([[[[1, 2, 3]]]], "[[[[… 3 items]]]]"),
        ((1,), "(1,)"),
        ([], "[]"),
        (set(), "set()"),
        (1 << 5000, "int of 5,001 bits"),
        (NAN, "nan"),
        (None, "None"),
    ],
)
def test_values_are_one_printable_line_and_say_what_was_cut(value, text):
    assert shown(value) == text
    assert text.isprintable()


def test_a_repr_that_fails_or_never_ends_does_no_harm():
    assert "repr raises RuntimeError" in shown(Mute())
    assert len(shown(Unequal("x" * 10_000))) < 250
    assert compare({"c": Mute()}, {"c": Mute()})


def test_long_texts_are_shown_where_they_begin_to_differ():
    text = str(compare({"t": "a" * 500 + "b" * 50}, {"t": "a" * 500 + "c" * 50}))
    assert text.startswith("~ t   (characters 484…) ")
    assert "b" * 48 in text
    assert "c" * 48 in text


def test_printable_leaves_ordinary_text_alone():
    assert printable("größer 漢字 🦜") == "größer 漢字 🦜"
    assert printable("\r\n") == r"\r\n"


# --- depth


@pytest.mark.parametrize("depth", [200, 1_500])
def test_deep_values_are_compared_without_deep_recursion(depth):
    diff = compare({"d": nested(depth, 1)}, {"d": nested(depth, 2)})
    assert [change.kind for change in diff] == ["changed"]
    assert len(diff.changes[0].path) == depth + 1
    assert not compare({"d": nested(depth, 1)}, {"d": nested(depth, 1)})
    assert "…" in str(compare({}, {"d": nested(depth, 1)}))


# --- where it is used


def test_runs_and_logs_answer_with_it():
    with EventLog.open("memory:") as log:
        run = log.run("r")
        run.append({"x": 1, "l": [1]})
        run.append({"x": 2, "l": Extend([2])})
        other = run.fork(at=0, name="other")
        other.append({"x": 3})
        assert str(run.diff(0)) == "~ x   1 → 2\n+ l[1]   2"
        assert str(run.diff(1, 0)) == "~ x   2 → 1\n- l[1]   2"
        assert log.diff(run.head, other.head).paths == ("x", "l[1]")
        assert not log.diff(run.head, run.state)
