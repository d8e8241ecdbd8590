"""Shadows are sound: one says the same iff the value equals what it was made of: types, order and bits, at any depth.

Two values are equal if their bytes are: the codec writes types, the order of dicts and the bits of floats.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import struct
from collections import OrderedDict, UserList, defaultdict
from dataclasses import dataclass, field, is_dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel
from pydantic import dataclasses as pydantic_dataclasses

from eventlog import EventLog, TooDeepError, UnserializableError, delta
from eventlog.codec import MSGPACK
from eventlog.shadow import shadow_of
from savers.langgraph.serde import SerdeCodec, strict_serializer
from tests.strict import Color, Level, Note, Point, Right, Word, strictly_equal, texts, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventlog.codec import Codec


# --- classes ------------------------------------------------------------------------------------------------------


@dataclass
class Twin:
    """Fields as those of `Note`."""

    text: str
    tags: list[Any] = field(default_factory=list)
    about: Any = None


@dataclass
class Child(Note):
    """Nothing of its own."""


@dataclass(frozen=True)
class Frozen:
    x: Any
    y: Any = None


@dataclass(slots=True)
class Slotted:
    x: Any


@dataclass
class Open(Slotted):
    """One field in a slot, one in ``__dict__``."""

    y: Any = None


@dataclass(slots=True, weakref_slot=True)
class Referable:
    x: Any


@dataclass
class Silent:
    """Equal to every other one, as far as Python asks."""

    x: Any = field(compare=False)


@dataclass(eq=False)
class Agreeable:
    """Equal to everything."""

    x: Any = 1

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


class Everything:
    """The same, and not stored by anything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


@dataclass(eq=False)
class Aloof:
    """Equal to its own kind alone, and to nothing that stands for it."""

    x: Any = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aloof) and self.x == other.x

    __hash__ = None


@dataclass(eq=False)
class Touchy:
    """Not to be compared."""

    x: Any = 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None


@dataclass(eq=False)
class Falsy:
    """Neither true nor false, and of no length."""

    x: Any = 1

    def __bool__(self) -> bool:
        raise RuntimeError("asked")

    __len__ = __bool__


@dataclass
class Echo:
    """Looks like whatever it is told to."""

    x: str

    def __repr__(self) -> str:
        return self.x


@dataclass
class Measured:
    items: list[Any]

    @cached_property
    def size(self) -> int:
        return len(self.items)


class Pair(NamedTuple):
    a: Any
    b: Any


class Masked(enum.Enum):
    """Members that look the same."""

    ONE = 1
    TWO = 2

    def __repr__(self) -> str:
        return "<masked>"


@pydantic_dataclasses.dataclass
class Checked:
    x: Any
    y: list[Any] = field(default_factory=list)


class Model(BaseModel):
    a: Any = None
    b: list[Any] = []


class Other(BaseModel):
    a: Any = None
    b: list[Any] = []


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: Any = None
    _hidden: Any = PrivateAttr(default_factory=list)


class Root(RootModel[list[Any]]):
    pass


SERDE = SerdeCodec(strict_serializer().with_msgpack_allowlist([Model, Other, Loose, Root, Checked, Note, Frozen]))


# --- what is asked ------------------------------------------------------------------------------------------------


def found(shadow: Any, value: Any, codec: Codec = MSGPACK) -> delta.Write | None:
    return delta.difference(shadow, value, codec, "channel")


def check(value: Any, change: Callable[[Any], object], codec: Codec = MSGPACK) -> None:
    """What is done to a value in place is found, once, and recording it gives the value as it is then."""
    stored = codec.decode(codec.encode(value))
    shadow = shadow_of(value, codec)
    assert found(shadow, value, codec) is None
    change(value)
    write = found(shadow, value, codec)
    assert write is not None
    stored = delta.applied(stored, write.code, write.payload, codec)
    assert codec.encode(stored) == codec.encode(codec.decode(codec.encode(value)))
    shadow = delta.accepted(shadow, write)
    assert shadow is not delta.NO_SHADOW
    assert found(shadow, value, codec) is None


def put(value: Any, way: tuple[Any, ...], new: Any) -> None:
    """Put `new` into `value`: a step is an index or a key, or ``.name`` of an attribute."""
    *steps, last = way
    for step in steps:
        value = getattr(value, step[1:]) if str(step).startswith(".") else value[step]
    if str(last).startswith("."):
        object.__setattr__(value, last[1:], new)  # frozen ones too
    else:
        value[last] = new


def rename(value: Any, fields: dict[str, Any]) -> None:
    """Give an object other fields in place."""
    vars(value).clear()
    vars(value).update(fields)


def rename_keys(value: dict[Any, Any], names: dict[Any, Any]) -> None:
    """The same values in the same order under other keys."""
    items = [(names.get(key, key), item) for key, item in value.items()]
    value.clear()
    value.update(items)


PLACES: list[tuple[Callable[[Any], Any], tuple[Any, ...]]] = [
    (lambda x: [x], (0,)),
    (lambda x: ["a", x, None], (1,)),
    (lambda x: {"k": x}, ("k",)),
    (lambda x: {"k": [{"l": x}], "n": 1}, ("k", 0, "l")),
    (lambda x: [{"k": x}], (0, "k")),
    (lambda x: [{"a": "b"}, {"k": x, "n": 1}, {}], (1, "k")),
    (lambda x: [{"k": {"l": x}}], (0, "k", "l")),
    (lambda x: [{"k": {"l": x, "m": None}}], (0, "k", "l")),
    (lambda x: [{"k": {1: x}}], (0, "k", 1)),
    (lambda x: [{"k": [x]}], (0, "k", 0)),
    (lambda x: [{"k": ["a", x, None]}], (0, "k", 1)),
    (lambda x: [{"k": [1, x, 2.5]}], (0, "k", 1)),
    (lambda x: [{"k": [[], x, {"l": [x]}]}], (0, "k", 1)),
    (lambda x: [{"k": ([x],)}], (0, "k", 0, 0)),
    (lambda x: [{1: {"k": x}}], (0, 1, "k")),
    (lambda x: [[{"k": x}], [{"k": x}]], (1, 0, "k")),
    (lambda x: [Note("n", [x])], (0, ".tags", 0)),
    (lambda x: [Note("m"), Note("n", [], x)], (1, ".about")),
    (lambda x: [Note("n", [], {"k": x})], (0, ".about", "k")),
    (lambda x: [Note("n", [], Note("m", [], x))], (0, ".about", ".about")),
    (lambda x: [Frozen(Frozen(x))], (0, ".x", ".x")),
    (lambda x: [Slotted(x)], (0, ".x")),
    (lambda x: [{"k": Slotted([x])}], (0, "k", ".x", 0)),
    (lambda x: [Open(x)], (0, ".x")),
    (lambda x: [Open(1, x)], (0, ".y")),
    (lambda x: [Referable(x)], (0, ".x")),
    (lambda x: [Silent(x)], (0, ".x")),
    (lambda x: [{"k": Silent(x)}], (0, "k", ".x")),
    (lambda x: [{"k": "l"}, Note("n", [], x), 1], (1, ".about")),
    (lambda x: {"k": Note("n", [], x)}, ("k", ".about")),
]
"""Ways to hold something, and where it is then."""

NAN, OTHER_NAN = math.nan, struct.unpack(">d", b"\x7f\xf8" + b"\1" * 6)[0]
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
LATE = datetime(2020, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))

PAIRS: list[tuple[Any, Any]] = [
    (1, True),
    (1, 1.0),
    (True, 1.0),
    (0, False),
    (0.0, -0.0),
    (0, -0.0),
    (math.inf, -math.inf),
    (NAN, -NAN),
    (NAN, OTHER_NAN),
    (NAN, "nan"),
    (1, "1"),
    (1 << 53, float(1 << 53)),
    (1 << 70, float(1 << 70)),
    (None, "None"),
    (None, False),
    (None, []),
    ("", None),
    ("a", b"a"),
    ("yes", Word.YES),
    ("a", Point("a")),
    (b"a", bytearray(b"a")),
    (Decimal("1.0"), Decimal("1.00")),
    (Decimal(1), 1),
    (Decimal(0), Decimal("-0")),
    (Decimal("NaN"), Decimal("sNaN")),
    (Level.LOW, 1),
    (Level.LOW, Color.RED),
    (Right.READ, Right.READ | Right.WRITE),
    (Masked.ONE, Masked.TWO),
    (NOON, NOON.replace(tzinfo=timezone(timedelta(0), "Z"))),
    (NOON, NOON.astimezone(timezone(timedelta(hours=1)))),
    (NOON, NOON.astimezone(ZoneInfo("UTC"))),
    (NOON, NOON.replace(tzinfo=None)),
    (NOON, NOON.date()),
    (LATE, LATE.replace(fold=1)),
    (time(2, 30), time(2, 30, fold=1)),
    (timedelta(days=1), timedelta(days=-1)),
    ([], ()),
    ([], {}),
    ([1], (1,)),
    ([1], [True]),
    (["a"], ("a",)),
    (["yes"], [Word.YES]),
    ([1, "a"], [1, "a", "a"]),
    ([1, 2], [2, 1]),
    ([1, NAN], [1, OTHER_NAN]),
    ([0.0, 1], [-0.0, 1]),
    (((1, 2),), ([1, 2],)),
    (((1,),), ((True,),)),
    ({1, 2}, frozenset({1, 2})),
    ({1}, {True}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({"a": "b", "c": "d"}, {"c": "d", "a": "b"}),
    ({"a": 1}, {"a": 1, "b": None}),
    ({"a": None}, {}),
    ({"yes": 1}, {Word.YES: 1}),
    ({"yes": 1, "b": 2}, {Word.YES: 1, "b": 2}),
    ({1: "a"}, {True: "a"}),
    ({1: "a"}, {"1": "a"}),
    ({0.0: "a"}, {-0.0: "a"}),
    ({"x": 1, "y": 0}, Point(1)),
    ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]),
    ([[{"a": 1}]], [[{"a": True}]]),
    (Note("a"), Twin("a")),
    (Note("a"), Child("a")),
    (Note("a"), {"text": "a", "tags": [], "about": None}),
    (Note("a", [1]), Note("a", [True])),
    (Point(1), Point(1.0)),
    (Frozen(1), Frozen(True)),
    (Frozen([1]), Frozen([1.0])),
    (Silent(1), Silent(2)),
    ("a", Agreeable()),
    (None, Agreeable()),
    (1, Agreeable()),
    ([1], Agreeable()),
    (["a"], [Agreeable()]),
    ({"a": 1}, Agreeable()),
    (Note("a"), Agreeable()),
    (Agreeable(1), Agreeable(2)),
    ("a", Touchy()),
    (1, Touchy()),
    (Touchy(1), Touchy(2)),
    (Aloof(1), Aloof(2)),
    (Falsy(1), Falsy(2)),
    (1, Echo("1")),
    ([1], [Echo("1")]),
    ([1, "a"], [Echo("1"), "a"]),
]
"""Things that differ, though Python may call them equal, or they look alike."""

EACH = [
    *{MSGPACK.encode(value): value for pair in PAIRS for value in pair}.values(),
    NOON.replace(tzinfo=timezone(timedelta(0), "UTC")),
    pytest.param(1 << 20_000, id="6021 digits"),
]


def shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.24}"


class TestOneOfAnother:
    """A leaf, or anything small, becomes another one wherever it is."""

    @pytest.mark.parametrize(("one", "other"), PAIRS + [(other, one) for one, other in PAIRS], ids=shown)
    def test_is_noticed(self, one: Any, other: Any) -> None:
        for make, way in PLACES:
            value = make(one)
            stored, shadow = MSGPACK.decode(MSGPACK.encode(value)), shadow_of(value, MSGPACK)
            put(value, way, other)
            write = found(shadow, value)
            assert write is not None, (way, value)
            after = delta.applied(stored, write.code, write.payload, MSGPACK)
            assert MSGPACK.encode(after) == MSGPACK.encode(value)

    @pytest.mark.parametrize("one", EACH, ids=shown)
    def test_what_stays_says_so(self, one: Any) -> None:
        """The same objects, and others that are equal to them."""
        for make, way in PLACES:
            value = make(one)
            shadow = shadow_of(value, MSGPACK)
            assert found(shadow, value) is None, (way, value)
            assert found(shadow, MSGPACK.decode(MSGPACK.encode(value))) is None, (way, value)

    def test_a_string_of_a_subclass_is_never_taken_for_another(self) -> None:
        class Text(str):
            __slots__ = ()

        for make, way in PLACES:
            value = make("a")
            shadow = shadow_of(value, MSGPACK)
            put(value, way, Text("b"))
            with pytest.raises(UnserializableError):
                found(shadow, value)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("a", Everything()),
            (None, Everything()),
            ({}, OrderedDict()),
            ({"a": "b"}, OrderedDict(a="b")),
            ({"a": 1, "b": 2}, OrderedDict(a=1, b=2)),
            ([], UserList()),
            (["a"], UserList(["a"])),
            ((1, 2), Pair(1, 2)),
        ],
    )
    def test_what_cannot_be_stored_is_an_error_not_a_silence(self, one: Any, other: Any) -> None:
        for make, way in PLACES:
            value = make(one)
            shadow = shadow_of(value, MSGPACK)
            put(value, way, other)
            with pytest.raises(UnserializableError):
                found(shadow, value)


class TestInPlace:
    @pytest.mark.parametrize(
        ("value", "change"),
        [
            ([{"k": {1, 2}}], lambda v: v[0]["k"].add(3)),
            ([{"k": {1, 2}}], lambda v: v[0]["k"].discard(2)),
            ([{"k": bytearray(b"ab")}], lambda v: v[0]["k"].reverse()),
            ([{"k": ([1], 2)}], lambda v: v[0]["k"][0].append(1)),
            ([{"k": {(1, 2): [3]}}], lambda v: v[0]["k"][1, 2].append(1)),
            ([{"k": {"a": {"b": {"c": [{}]}}}}], lambda v: v[0]["k"]["a"]["b"]["c"][0].update(d=None)),
            ([{"k": {"a": 1, "b": 2}}], lambda v: v[0]["k"].update(a=v[0]["k"].pop("a"))),
            ([{"k": [{"a": 1, "b": 2}, 1]}], lambda v: v[0]["k"][0].update(a=v[0]["k"][0].pop("a"))),
            ([{"a": 1, "b": 2}], lambda v: v[0].update(a=v[0].pop("a"))),
            ([{"a": 1, "b": 2}, {"c": 3}], lambda v: v[1].update(b=v[0].pop("b"))),
            ([{"a": 1}, {"a": 2}], lambda v: v.reverse()),
            ([{"a": 1}, {"a": 1}], lambda v: v[1].update(a=True)),
            ([{"a": 1}, {"b": 1}], lambda v: v.__setitem__(0, v[1])),
            ([{"a": 1}, {"b": 1}], lambda v: v.pop()),
            ([{"a": 1}, {"b": 1}], lambda v: v.pop(0)),
            ([{"a": 1}, {"b": 1}], lambda v: v.clear()),
            ([{"a": 1}], lambda v: v.insert(0, {"a": 1})),
            ([{"a": 1}], lambda v: v.append(v[0])),
            ([{}], lambda v: v[0].update(a=1)),
            ([{}], lambda v: v.__setitem__(0, [])),
            ([{"a": []}], lambda v: v[0]["a"].append("a")),
            ([{"a": {}}], lambda v: v[0]["a"].update(a="a")),
            ([{"a": "b"}], lambda v: v.__setitem__(0, Frozen("b"))),
            ([Note("a"), Note("b")], lambda v: v.reverse()),
            ([Note("a")], lambda v: v[0].tags.append(None)),
            ([Note("a", [], {"k": [1]})], lambda v: v[0].about["k"].append(1)),
            ([Note("a"), Note("b")], lambda v: v[1].__dict__.update(text="c")),
            ([Note("a")], lambda v: setattr(v[0], "__class__", Twin)),
            ([Note("a", [], Note("b"))], lambda v: setattr(v[0].about, "__class__", Child)),
            ([Frozen(1, 2)], lambda v: rename(v[0], {"y": 1, "x": 2})),
            ([{"k": Frozen("a", "b")}], lambda v: rename(v[0]["k"], {"y": "a", "x": "b"})),
            ([Frozen({"k": 1})], lambda v: v[0].x.update(k=1.0)),
            ([Frozen((1, [2]))], lambda v: v[0].x[1].append(1)),
            ([{"k": Frozen({1})}], lambda v: v[0]["k"].x.add(2)),
            ([Checked(1, [2])], lambda v: v[0].y.append(3)),
            ([Checked(1)], lambda v: setattr(v[0], "x", True)),
            ([Point({"k": [1]}, [2])], lambda v: v[0].x["k"].append(1)),
            ([[[{"k": 1}]], 5], lambda v: v[0][0][0].update(k=2)),
            ([[1], [2, 3]], lambda v: v[0].append(v[1].pop(0))),
            ([[1], [2]], lambda v: (v[0].append(2), v[1].clear())),
            ([{"a": 1}, {"b": 2, "c": 3}], lambda v: v[0].update(b=v[1].pop("b"))),
            ([{"a": 1}, {"b": 2}], lambda v: (v[0].update(b=2), v[1].clear())),
            ([{"a": 1, "b": 1}], lambda v: rename_keys(v[0], {"a": "c"})),
            ([{"a": 1, "b": 1}], lambda v: rename_keys(v[0], {"a": 5})),
            ([{1: 1, "b": 1}], lambda v: rename_keys(v[0], {1: "a"})),
            ([{1: 1, 2: 1}], lambda v: rename_keys(v[0], {1: 3})),
            ([{"a": [], "b": [1]}], lambda v: v[0].update(a=v[0]["b"], b=v[0]["a"])),
            ([Note("a", [], "b"), Note("c")], lambda v: setattr(v[0], "about", v[1].text)),
            ([Frozen(1), Frozen(2)], lambda v: v[0].__dict__.update(x=2, y=1)),
            ([Frozen(1), Frozen(2)], lambda v: object.__setattr__(v[0], "__dict__", {"x": 2, "y": None})),
        ],
    )
    def test_at_any_depth(self, value: Any, change: Any) -> None:
        check(value, change)

    @pytest.mark.parametrize(
        "items", [[{"n": 1}], [Note("a")], [1, {"n": 1}], [{"n": 1}, Note("a"), {1: 2}], [Point(1)]]
    )
    @pytest.mark.parametrize("new", [{"n": 1}, Note("b"), {1: 2}, 7, [1], Point(2)])
    def test_an_old_item_of_a_list_that_grew(self, items: Any, new: Any) -> None:
        value = MSGPACK.decode(MSGPACK.encode(items))
        for _ in range(3):
            check(value, lambda v: v.append(new))
        shadow = shadow_of(value[:2], MSGPACK)
        write = found(shadow, value)
        assert write is not None
        assert write.code == delta.EXTEND
        shadow = delta.accepted(shadow, write)
        assert found(shadow, value) is None
        for spot in spots(value):
            before = spot[2]
            assign(*spot[:2], "changed")
            assert found(shadow, value) is not None, spot
            assign(*spot[:2], before)
            assert found(shadow, value) is None, spot

    @pytest.mark.parametrize("names", [("about", "tags", "text"), ("tags", "text", "about"), ("text", "tags", "about")])
    def test_fields_that_change_places_whatever_order_they_were_set_in(self, names: tuple[str, ...]) -> None:
        """Python keeps the fields of objects of one class in one order at first, and in their own one later."""
        before = [Note("a"), object.__new__(Note)]
        for n, name in enumerate(names):
            setattr(before[1], name, f"value {n}")
        first, last = getattr(before[1], names[0]), getattr(before[1], names[2])

        def change(value: Any) -> None:
            fields = vars(value[1])
            fields[names[0]], fields[names[2]] = last, first
            name, field_value = fields.popitem()
            fields[name] = field_value

        check(before, change)

    def test_growing_and_changing_what_is_old_at_once(self) -> None:
        check([{"n": 1}, {"n": 2}], lambda v: (v[0].update(n=1.0), v.append({"n": 3})))
        check([Note("a")], lambda v: (v[0].tags.append(1), v.append(Note("b"))))
        check({"log": [{"n": 1}], "m": 1}, lambda v: (v["log"][0].update(n=True), v["log"].append({"n": 3})))

    def test_what_was_recorded_is_not_what_becomes_of_it(self) -> None:
        """The shadow of what was put at the end holds nothing of the caller's either."""
        value = [{"k": [1]}]
        shadow = shadow_of(value, MSGPACK)
        value.append({"k": [2], "l": {"m": ["a"], "n": {}}})
        write = found(shadow, value)
        assert write is not None
        shadow = delta.accepted(shadow, write)
        for change in (
            lambda: value[1]["k"].append(3),
            lambda: value[1]["l"]["m"].append("b"),
            lambda: value[1]["l"]["n"].update(a=1),
            lambda: value[1].update(o=1),
        ):
            change()
            assert found(shadow, value) is not None
            shadow = shadow_of(value, MSGPACK)

    @pytest.mark.parametrize(
        ("value", "first", "then"),
        [
            ([], lambda v: v.append({"k": 1}), lambda v: v[0].update(k=2)),
            ([{"k": 0}], lambda v: v.append({"k": 1}), lambda v: v[1].update(k=2)),
            ([{"k": 0}], lambda v: v.append({"k": []}), lambda v: v[1]["k"].append(1)),
            ([{"k": 0}], lambda v: v.append({"k": 1}), lambda v: v[0].update(k=1)),
            ([{"k": 0}], lambda v: v.append({"k": 1}), lambda v: v.append({"k": 2})),
            ([{"k": 0}], lambda v: v[0].update(k=1), lambda v: v[0].update(k=True)),
            ([Note("a")], lambda v: v.append(Note("b")), lambda v: v[1].tags.append(1)),
            ([1], lambda v: v.append([2]), lambda v: v[1].append(3)),
            ({"l": [{"k": 0}]}, lambda v: v["l"].append({"k": 1}), lambda v: v["l"][1].update(k=2)),
            ({"d": {"l": [1]}, "m": 1}, lambda v: v.update(e=[{"k": 1}]), lambda v: v["e"][0].update(k=2)),
            ({"d": {"l": [1]}, "m": 1}, lambda v: v["d"]["l"].append([]), lambda v: v["d"]["l"][1].append(1)),
        ],
    )
    def test_between_looking_and_recording(self, value: Any, first: Any, then: Any) -> None:
        """What is recorded is what it was when it was looked at; the rest is found the next time."""
        stored, shadow = MSGPACK.decode(MSGPACK.encode(value)), shadow_of(value, MSGPACK)
        for change in (first, lambda _: None):
            change(value)
            write = found(shadow, value)
            assert write is not None
            then(value)
            shadow = delta.accepted(shadow, write)
            stored = delta.applied(stored, write.code, write.payload, MSGPACK)
        write = found(shadow, value)
        if write is not None:
            stored = delta.applied(stored, write.code, write.payload, MSGPACK)
        assert MSGPACK.encode(stored) == MSGPACK.encode(value)

    def test_between_preparing_and_writing(self) -> None:
        with EventLog.open("memory:") as log:
            run = log.run("r")
            value: dict[str, Any] = {"l": [{"k": 0}], "d": {"l": [Note("a")]}, "new": [Note("b")]}
            run.commit(value)
            for n in range(5):
                value["l"].append({"k": n})
                value["d"]["l"].append(Note("c"))
                value[f"new {n}"] = [{"k": n}]
                prepared = run.prepare(state=value)
                value["l"][-1]["k"] = value["l"][0]["k"] = "later"
                value["d"]["l"][-1].tags.append("later")
                value["new"][0].text += "later"
                value[f"new {n}"][0]["k"] = "later"
                run.write(prepared)
                assert run.state["l"][-1] == {"k": n}
                run.commit(value)
                assert MSGPACK.encode(dict(run.state)) == MSGPACK.encode(value)

    def test_a_value_that_comes_to_contain_itself(self) -> None:
        for value in ([{"k": [1]}], [Note("a", [1])], [{"k": {"l": 1, "m": 2}}]):
            shadow = shadow_of(value, MSGPACK)
            inner = value[0].tags if isinstance(value[0], Note) else value[0]["k"]
            inner.append(value) if isinstance(inner, list) else inner.update(l=value)
            with pytest.raises(TooDeepError):
                found(shadow, value)

    def test_what_a_cached_property_left_is_no_change(self) -> None:
        """It is not stored: it will be computed again."""
        value = [Measured([1]), Measured([])]
        shadow = shadow_of(value, MSGPACK)
        assert value[0].size == 1
        assert found(shadow, value) is None
        value[0].items.append(2)
        assert found(shadow, value) is not None


class Asked:
    """LangGraph's codec; how often it was asked to encode."""

    name, keeps_given = SERDE.name, False

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, value: Any, path: str = "value") -> bytes:
        self.calls += 1
        return SERDE.encode(value, path)

    def decode(self, data: bytes) -> Any:
        return SERDE.decode(data)


class TestQuick:
    """Nothing is encoded that did not change."""

    def asked(self, shadow: Any, value: Any, codec: Asked) -> tuple[int, Any]:
        codec.calls = 0
        write = delta.difference(shadow, value, codec, "channel")
        return codec.calls, shadow if write is None else delta.accepted(shadow, write)

    @pytest.mark.parametrize(
        "make",
        [
            lambda n: HumanMessage(f"text {n}", id=str(n)),
            lambda n: AIMessage(f"text {n}", id=str(n), tool_calls=[{"name": "f", "args": {"n": [n]}, "id": str(n)}]),
            lambda n: {"role": "user", "content": [{"text": str(n)}]},
            lambda n: Note(str(n), [n]),
            lambda n: {n: [n]},
            str,
        ],
    )
    def test_each_item_is_encoded_once(self, make: Callable[[int], Any]) -> None:
        codec, value = Asked(), [make(n) for n in range(700)]
        shadow = shadow_of(value, codec)
        for n in range(30):
            assert self.asked(shadow, list(value), codec) == (0, shadow)
            value.append(make(1000 + n))
            calls, shadow = self.asked(shadow, value, codec)
            assert calls == 1
        assert self.asked(shadow, value, codec) == (0, shadow)

    def test_after_a_splice_those_that_stayed_are_known(self) -> None:
        codec, value = Asked(), [HumanMessage(f"text {n}", id=str(n)) for n in range(700)]
        shadow = shadow_of(value, codec)
        for n in range(100):
            del value[n % 3 :: 100]
            value.insert(0, HumanMessage("first", id=f"first {n}"))
            value[300:300] = [HumanMessage("inside", id=f"inside {n} {m}") for m in range(6)]
            calls, shadow = self.asked(shadow, value, codec)
            assert calls < 200
            calls, shadow = self.asked(shadow, value, codec)
            assert calls == 0

    def test_what_was_read_anew_is_known_after_one_look(self) -> None:
        codec, value = Asked(), messages() * 100
        shadow = shadow_of(value, codec)
        value = SERDE.decode(SERDE.encode(value))
        assert self.asked(shadow, value, codec)[0] == len(value)
        assert self.asked(shadow, value, codec)[0] == 0

    def test_a_change_in_place_costs_the_items_around_it(self) -> None:
        codec, value = Asked(), [HumanMessage(f"text {n}", id=str(n)) for n in range(2000)]
        shadow = shadow_of(value, codec)
        for n in range(50):
            value[n * 30].content += "."
            calls, shadow = self.asked(shadow, value, codec)
            assert 0 < calls < 600
            assert self.asked(shadow, value, codec) == (0, shadow)

    def test_a_dict_that_had_other_keys_meanwhile(self) -> None:
        codec = Asked()
        value = [{"a": "b", "c": [n]} for n in range(10)]
        shadow = shadow_of(value, codec)
        value[3][1] = 2
        del value[3][1]
        assert self.asked(shadow, value, codec)[1] is shadow
        assert self.asked(shadow, value, codec) == (0, shadow)
        value[3]["c"].append(1)
        assert found(shadow, value, codec) is not None


class TestModels:
    @pytest.mark.parametrize(
        ("value", "change"),
        [
            ([Model(a=1)], lambda v: setattr(v[0], "a", True)),
            ([Model(a=1)], lambda v: setattr(v[0], "a", 1.0)),
            ([Model(a=[], b=[1])], lambda v: rename(v[0], {"b": v[0].a, "a": v[0].b})),
            ([Model(a={"k": [1]})], lambda v: v[0].a["k"].append(2)),
            ([Model(a={"k": 1, "l": 2})], lambda v: v[0].a.update(k=v[0].a.pop("k"))),
            ([Model(b=[{"k": 1}])], lambda v: v[0].b[0].update(k=True)),
            ([Model(a=Model(b=[1]))], lambda v: v[0].a.b.append(2)),
            ([Model(a=[Model(b=[1])])], lambda v: v[0].a[0].b.append(2)),
            ([Model(), Model(a=1)], lambda v: v.reverse()),
            ([Model(a=1)], lambda v: v.__setitem__(0, Other(a=1))),
            ([Model(a=1)], lambda v: setattr(v[0], "__class__", Other)),
            ([Model(a=1)], lambda v: v.__setitem__(0, v[0].model_dump())),
            ([{"k": Model(a=1)}], lambda v: setattr(v[0]["k"], "a", True)),
            ([{"k": Model(a=1)}], lambda v: v[0].update(k=Other(a=1))),
            ([{"k": Model(a=1)}, Model(), Note("n")], lambda v: setattr(v[1], "a", 2)),
            ([Note("n", [Model(a=1)])], lambda v: setattr(v[0].tags[0], "a", 2)),
            ([Model(a=Note("n"))], lambda v: v[0].a.tags.append(1)),
            ([Loose(a=1, more=1)], lambda v: setattr(v[0], "more", True)),
            ([Loose(a=1, more=[1])], lambda v: v[0].more.append(2)),
            ([Loose(a=1, more=1)], lambda v: setattr(v[0], "other", 1)),
            ([Loose(a=1, more=1)], lambda v: delattr(v[0], "more")),
            ([Loose(m=1, n=2)], lambda v: v[0].__pydantic_extra__.update(m=v[0].__pydantic_extra__.pop("m"))),
            ([{"k": Loose(more={"a": 1})}], lambda v: v[0]["k"].more.update(a=True)),
            ([Root([1, [2]])], lambda v: v[0].root[1].append(3)),
            ([Root([1, "a"])], lambda v: v[0].root.__setitem__(0, True)),
            ([Checked(1, [{"k": 1}])], lambda v: v[0].y[0].update(k=True)),
            ([{"k": OrderedDict(a=1)}], lambda v: v[0]["k"].update(a=True)),
            ([Note("n", [], defaultdict(list, a=[1]))], lambda v: v[0].about["a"].append(2)),
            ([Note("n", [], defaultdict(list))], lambda v: v[0].about["a"]),
            ([Model(a=OrderedDict(a=[1]))], lambda v: v[0].a["a"].append(2)),
        ],
    )
    def test_at_any_depth(self, value: Any, change: Any) -> None:
        check(value, change, SERDE)

    def test_equal_ones_say_the_same(self) -> None:
        def made() -> list[Any]:
            return [Model(a=1, b=[{"k": 1}]), Model(a=Model(), b=[Loose(m=1, n=2.0)])]

        assert found(shadow_of(made(), SERDE), made(), SERDE) is None
        mixed = [Root([1]), Loose(m=1), {"k": Model()}, Note("n", [Model()])]
        assert found(shadow_of(mixed, SERDE), [item.model_copy() for item in mixed[:2]] + mixed[2:], SERDE) is None

    @pytest.mark.parametrize("hidden", [print, object(), iter([]), {"k": [1]}])
    def test_what_they_hide_is_not_stored(self, hidden: Any) -> None:
        """So it need not be storable, and nobody has to find what happens to it."""
        value = [Loose(a=1, more=[1]), Loose(a=2)]
        value[0]._hidden = hidden
        check(value, lambda v: setattr(v[0], "a", 2), SERDE)
        check(value, lambda v: (setattr(v[0], "_hidden", [hidden]), v[0].more.append(2)), SERDE)
        check(value, lambda v: (v[0]._hidden.append(hidden), setattr(v[1], "a", 3)), SERDE)


CALL = {"name": "search", "args": {"q": "rain", "days": [1, 2], "deep": {"x": 1, "y": 2}}, "id": "c1"}


def messages() -> list[Any]:
    call = SERDE.decode(SERDE.encode(CALL))
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    return [
        SystemMessage("be brief", id="m0"),
        HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "data": [1, 2]}], id="m1"),
        AIMessage("", id="m2", tool_calls=[call], usage_metadata=usage, response_metadata={"model": "m", "p": 0.0}),
        ToolMessage("wet", tool_call_id="c1", id="m3", artifact={"rows": [[1, 2]]}),
        AIMessage("wet", id="m4", additional_kwargs={"k": {"l": [1]}}),
    ]


class TestMessages:
    @pytest.mark.parametrize(
        "change",
        [
            lambda v: setattr(v[0], "content", "be long"),
            lambda v: setattr(v[0], "id", None),
            lambda v: setattr(v[0], "name", "n"),
            lambda v: v[1].content[0].update(text="ho"),
            lambda v: v[1].content[1]["data"].append(3),
            lambda v: v[1].content.reverse(),
            lambda v: v[2].tool_calls.append(dict(CALL)),
            lambda v: v[2].tool_calls[0]["args"].update(q="sun"),
            lambda v: v[2].tool_calls[0]["args"].update(q=v[2].tool_calls[0]["args"].pop("q")),
            lambda v: v[2].tool_calls[0]["args"]["days"].__setitem__(0, True),
            lambda v: v[2].tool_calls[0]["args"]["days"].__setitem__(0, 1.0),
            lambda v: v[2].tool_calls[0]["args"]["deep"].update(x=v[2].tool_calls[0]["args"]["deep"].pop("x")),
            lambda v: v[2].usage_metadata.update(input_tokens=True),
            lambda v: v[2].response_metadata.update(p=-0.0),
            lambda v: setattr(v[2], "tool_calls", []),
            lambda v: setattr(v[3], "status", "error"),
            lambda v: v[3].artifact["rows"].append(1),
            lambda v: v[4].additional_kwargs["k"]["l"].append(2),
            lambda v: v[4].additional_kwargs.update(m=None),
            lambda v: v.__setitem__(0, HumanMessage("be brief", id="m0")),
            lambda v: v.__setitem__(0, {"role": "system", "content": "be brief"}),
            lambda v: v.__setitem__(0, "be brief"),
            lambda v: v.reverse(),
            lambda v: v.pop(0),
            lambda v: (v.append(HumanMessage("more")), setattr(v[0], "content", "be long")),
        ],
    )
    def test_at_any_depth(self, change: Any) -> None:
        check(messages(), change, SERDE)
        check({"messages": messages(), "n": 1}, lambda v: change(v["messages"]), SERDE)

    def test_those_of_another_process_say_the_same(self) -> None:
        value = SERDE.decode(SERDE.encode(messages()))
        assert found(shadow_of(messages(), SERDE), value, SERDE) is None
        assert found(shadow_of(value, SERDE), messages(), SERDE) is None

    def test_a_list_that_grew_is_an_extend(self) -> None:
        value = messages()[:1]
        shadow = shadow_of(value, SERDE)
        for message in messages()[1:]:
            value.append(message)
            write = found(shadow, value, SERDE)
            assert write is not None
            assert write.code == delta.EXTEND
            shadow = delta.accepted(shadow, write)
        value[2].tool_calls[0]["args"]["days"].append(3)
        write = found(shadow, value, SERDE)
        assert write is not None
        assert write.code == delta.SPLICE


class TestArrays:
    """What compares and counts as no value of Python's own does, and LangGraph stores nevertheless."""

    def test_stay_and_change(self) -> None:
        import numpy as np

        for data in ([], [1], [1, 2], [1.0, math.nan]):
            for make, way in PLACES[4:6]:
                value = make(np.array(data))
                shadow = shadow_of(value, SERDE)
                assert found(shadow, value, SERDE) is None, (data, way)
                put(value, way, np.array([*data, 5]))
                assert found(shadow, value, SERDE) is not None, (data, way)

    def test_in_a_message(self) -> None:
        import numpy as np

        value = [HumanMessage("a", additional_kwargs={"embedding": np.array([0.5, 1.5])})]
        check(value, lambda v: v[0].additional_kwargs["embedding"].fill(0.0), SERDE)

    @pytest.mark.parametrize("one", ["a", None, 1.0, [1.0], []])
    def test_instead_of_what_they_hold(self, one: Any) -> None:
        import numpy as np

        for make, way in PLACES[4:6]:
            for array in (np.array([one]), np.array(one)):
                if array.dtype.hasobject:
                    continue  # not stored
                value = make(one)
                shadow = shadow_of(value, SERDE)
                put(value, way, array)
                assert found(shadow, value, SERDE) is not None, (way, value)


# --- any values ---------------------------------------------------------------------------------------------------


def spots(value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Where something can be put in place: the container, the key or name there, and what is there."""
    cls = type(value)
    items: list[tuple[Any, Any]] = []
    if cls in (list, tuple):
        items = list(enumerate(value))
    elif cls is dict:
        items = list(value.items())
    elif is_dataclass(cls):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    for key, item in items:
        if cls is not tuple:
            yield value, key, item
        yield from spots(item)


def assign(container: Any, key: Any, new: Any) -> None:
    if type(container) in (list, dict):
        container[key] = new
    else:
        object.__setattr__(container, key, new)


def like(value: Any) -> list[Any]:
    """What may be taken for `value`, itself included."""
    cls = type(value)
    found: list[Any] = [value]
    if cls in (bool, int, float) and abs(value) < 1 << 53:
        found += [float(value), -value, -float(value), *([bool(value), int(value)] if value in (0, 1) else [])]
    elif cls is float:
        found += [NAN, OTHER_NAN, -value]
    elif cls in (list, tuple):
        found += [list(value), tuple(value), [*value][::-1], [item for other in value for item in like(other)[-1:]]]
    elif cls is dict:
        found += [dict(value), dict(reversed(value.items()))]
        found += [{bool(k): v for k, v in value.items()}] if {type(k) for k in value} == {int} else []
    elif cls in (set, frozenset):
        found += [set(value), frozenset(value), set(list(value)[1:])]
    elif cls in (bytes, bytearray):
        found += [bytes(value), bytearray(value)]
    elif cls is datetime and value.tzinfo is not None:
        found += [value.replace(tzinfo=UTC), value.replace(fold=1 - value.fold), value.replace(tzinfo=None)]
    elif cls is Decimal and value.is_finite() and value.as_tuple().exponent > -100:
        found += [
            Decimal(str(value)),
            Decimal((value.is_signed(), (*value.as_tuple().digits, 0), value.as_tuple().exponent - 1)),
        ]
    elif cls is Note:
        found += [Note(value.text, value.tags, value.about), Twin(value.text, value.tags, value.about)]
    elif isinstance(value, enum.Enum):
        found += [value.value]
    return found


def records() -> st.SearchStrategy[list[Any]]:
    """Lists as of messages: mostly of one kind of record, sometimes of several."""
    inner = values(3)
    dicts = st.dictionaries(texts(), inner, max_size=3)
    objects = st.builds(Note, texts(), st.lists(inner, max_size=2), inner) | st.builds(Frozen, inner)
    return st.one_of(*[st.lists(kind, min_size=1, max_size=3) for kind in (dicts, objects, dicts | objects | inner)])


RECORDS, ANYTHING = records(), values(2)  # made once: making them takes longer than drawing from them


class TestAnyRecords:
    @given(st.data())
    @settings(max_examples=300, deadline=None)
    def test_the_same_iff_equal(self, data: Any) -> None:
        value = data.draw(RECORDS)
        before, shadow = MSGPACK.decode(MSGPACK.encode(value)), shadow_of(value, MSGPACK)
        container, key, item = data.draw(st.sampled_from(list(spots(value))))
        assign(container, key, data.draw(st.sampled_from(like(item)) | ANYTHING))
        now = MSGPACK.decode(MSGPACK.encode(value))
        write = found(shadow, value)
        assert (write is None) == strictly_equal(before, now), (before, now)
        after = before if write is None else delta.applied(before, write.code, write.payload, MSGPACK)
        assert strictly_equal(after, now)

    @given(st.data())
    @settings(max_examples=100, deadline=None)
    def test_many_changes_in_place_each_recorded(self, data: Any) -> None:
        value = data.draw(RECORDS)
        stored, shadow = MSGPACK.decode(MSGPACK.encode(value)), shadow_of(value, MSGPACK)
        for _ in range(data.draw(st.integers(1, 4))):
            if data.draw(st.booleans()):
                value += data.draw(RECORDS)
            if data.draw(st.booleans()):
                container, key, item = data.draw(st.sampled_from(list(spots(value))))
                assign(container, key, data.draw(st.sampled_from(like(item)) | ANYTHING))
            write = found(shadow, value)
            now = MSGPACK.decode(MSGPACK.encode(value))
            if data.draw(st.booleans()):  # before it is recorded, it changes again
                container, key, item = data.draw(st.sampled_from(list(spots(value))))
                assign(container, key, data.draw(st.sampled_from(like(item)) | ANYTHING))
            if write is not None:
                shadow = delta.accepted(shadow, write)
                stored = delta.applied(stored, write.code, write.payload, MSGPACK)
            assert strictly_equal(stored, now)
            now = MSGPACK.decode(MSGPACK.encode(value))
            assert (found(shadow, value) is None) == strictly_equal(stored, now)
