"""Every value comes back with its type, or is refused with its path; stored bytes run nothing."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import math
import struct
import subprocess
import sys
import uuid
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog import (
    CorruptionError,
    EventLogError,
    InvalidInputError,
    TooDeepError,
    UnknownTypeError,
    UnserializableError,
    register,
    unregister,
)
from eventlog.codec import MAX_DEPTH, MSGPACK, decode, decoded_all, encode, known_codec
from tests.strict import Color, Level, Note, Point, Right, Word, named, strictly_equal, values

ROOT = Path(__file__).parents[2]


class Money:
    """A class of somebody's own."""

    def __init__(self, amount: Decimal, notes: list[Any] | None = None) -> None:
        self.amount = amount
        self.notes = notes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and (self.amount, self.notes) == (other.amount, other.notes)

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def money():
    register(Money, "money", lambda m: [m.amount, m.notes], lambda parts: Money(*parts))
    yield
    unregister(Money)


class TestRoundTrip:
    @given(st.lists(values(), max_size=40))
    def test_many_together_as_one_after_the_other(self, given: list[Any]) -> None:
        payloads = [encode(value) for value in given]
        assert strictly_equal(decoded_all(payloads, MSGPACK), [decode(payload) for payload in payloads])

    def test_many_as_deep_as_one_may_be(self) -> None:
        deep: Any = 1
        for _ in range(MAX_DEPTH - 1):
            deep = (deep,)
        assert decoded_all([encode(deep)] * 3, MSGPACK) == [deep] * 3

    def test_a_damaged_one_among_many_is_found(self) -> None:
        for damaged in (b"", b"\xc1", encode([1, "text"])[:-1], encode([1]) + b"\x01"):
            with pytest.raises(CorruptionError):
                decoded_all([encode("a"), damaged, encode([2])], MSGPACK)

    @given(values())
    @settings(max_examples=400, deadline=None)
    def test_any_value(self, value: Any) -> None:
        data = encode(value)
        assert strictly_equal(decode(data), value)
        assert encode(decode(data)) == data

    @pytest.mark.parametrize(
        "value",
        [
            None, True, 0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**4000,
            0.0, -0.0, math.inf, -math.inf, math.nan, struct.unpack(">d", b"\xff\xf8" + b"\1" * 6)[0], 5e-324,
            "", "a\x00b", "é", "e\u0301", "\U0010ffff", b"", b"\xff", bytearray(b"x"), bytearray(),
            (), (1,), [(1, [2])], {1}, set(), frozenset({(1, 2)}), {frozenset({1}): 1},
            Decimal("1e999999999"), Decimal("-0.00"), Decimal("NaN"), Decimal("sNaN12"), Decimal("Infinity"),
            dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
            dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 10, 25, 2, 30, fold=1),  # noqa: DTZ001
            dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30, microseconds=1))),
            dt.date(1, 1, 1), dt.time(1, 2, 3, 4, fold=1), dt.timedelta(days=-1, microseconds=1), dt.timedelta.max,
            uuid.UUID(int=2**128 - 1),
            Color.RED, Color.CRIMSON, Level.LOW, Word.YES, Right.READ, Right.READ | Right.WRITE,
            Right(0), Point(1, {2}), Note("t", [1], {"k": bytearray(b"x")}),
            {1: "int", "1": "str", (1,): "tuple", 1.5: "float", None: "none", b"1": "bytes"},
            {"$type": 1, "lc": 2, "type": "constructor", "id": ["a"], "$redacted": 1, "__class__": "x"},
            {"b": 1, "a": 2}, {(): {(): ()}},
        ],
        ids=named,
    )  # fmt: skip
    def test_each_kind(self, value: Any) -> None:
        for wrapped in (value, [value], {"k": value}, (value,), Point(value), {"k": [({"k": value},)]}):
            assert strictly_equal(decode(encode(wrapped)), wrapped)

    def test_a_set_within_sets_is_not_written_once_more_for_each(self) -> None:
        encoded: list[Local] = []
        register(Local, "local", encoded.append, lambda _: 0)
        try:
            value: Any = Local()
            for _ in range(12):
                value = frozenset([value])
            encode(value)
        finally:
            unregister(Local)
        assert len(encoded) < 30

    def test_equal_sets_have_equal_bytes(self) -> None:
        many = [f"k{i}" for i in range(100)]
        assert encode(set(many)) == encode({*many[50:], *many[:50]})

    def test_a_buffer_within_an_object_that_hashes_by_identity(self) -> None:
        key = ByIdentity(bytearray(b"x"))
        (back,) = decode(encode({key}))
        assert strictly_equal(back.held, bytearray(b"x"))
        (back,) = decode(encode({key: 1}))
        assert strictly_equal(back.held, bytearray(b"x"))


@dataclasses.dataclass(eq=False)
class ByIdentity:
    held: Any


class Local:
    pass


def generator():
    yield 1


class Broken(dict):
    pass


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024

REFUSED = [
    object(), Local(), Local, generator(), lambda: 1, print, range(3), memoryview(b"x"), 1j, Ellipsis, "\ud800",
    Broken(a=1), collections.OrderedDict(a=1), collections.Counter("a"), Pair(1, 2), type("S", (str,), {})("x"),
    type("I", (int,), {})(1), msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2), enum.Enum("Made", "A").A,
    dt.datetime(2020, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {"utcoffset": lambda s, d: dt.timedelta(0)})()),
]  # fmt: skip


class TestRefused:
    @pytest.mark.parametrize("value", REFUSED, ids=named)
    def test_with_the_path(self, value: Any) -> None:
        with pytest.raises(UnserializableError) as caught:
            encode([0, {"meta": {"callback": value}}], "messages")
        assert caught.value.path == "messages[1].meta.callback"
        for wrapped in ((value,), Point(value), {"k": [value]}, value):
            with pytest.raises(UnserializableError):
                encode(wrapped)

    @pytest.mark.parametrize("value", [memoryview(b"x"), "\ud800", object()], ids=named)
    def test_as_a_key_or_a_member(self, value: Any) -> None:
        for wrapped in ({value}, {value: 1}, {(value,): 1}, {Point(value)}, {ByIdentity(value)}, frozenset({(value,)})):
            with pytest.raises(UnserializableError):
                encode(wrapped)

    @pytest.mark.parametrize("wrap", ["list", "dict", "tuple", "frozenset", "dataclass", "set in dict"])
    @pytest.mark.parametrize("depth", [300, 100_000])
    def test_nested_too_deep(self, wrap: str, depth: int) -> None:
        value: Any = 1
        for _ in range(min(depth, 3000) if wrap in ("frozenset", "dataclass", "set in dict") else depth):
            value = WRAPS[wrap](value)
        with pytest.raises(TooDeepError):
            encode(value)

    def test_containers_within_themselves(self) -> None:
        loop: list[Any] = []
        loop.append({"k": (loop,)})
        with pytest.raises(TooDeepError):
            encode(loop)
        note = Note("a")
        note.about = note
        with pytest.raises(TooDeepError):
            encode(note)

    def test_a_registered_type_within_itself(self, money: None) -> None:
        value = Money(Decimal(1), [])
        value.notes = [value]
        with pytest.raises(TooDeepError):
            encode(value)

    def test_an_error_of_a_registered_encoder_is_one_of_ours(self) -> None:
        def fail(value: Any) -> Any:
            raise RuntimeError("not today")

        register(Local, "local", fail, fail)
        try:
            with pytest.raises(UnserializableError, match="not today"):
                encode({"k": [Local()]})
        finally:
            unregister(Local)


WRAPS = {
    "list": lambda value: [value],
    "dict": lambda value: {"k": value},
    "tuple": lambda value: (value,),
    "frozenset": lambda value: frozenset([value]),
    "dataclass": Point,
    "set in dict": lambda value: {"k": [value]},
}


class TestDepth:
    """What may be written can be read: in any thread, from any depth of calls. In a child process: it may die."""

    @pytest.mark.parametrize("wrap", ["list", "dict", "tuple", "frozenset", "dataclass"])
    @pytest.mark.parametrize("where", ["main thread", "small thread", "deep call"])
    def test_the_deepest_that_is_accepted_can_be_read(self, wrap: str, where: str) -> None:
        code = f"""
import sys, threading
from tests.unit.test_codec import WRAPS
from eventlog import EventLogError
from eventlog.codec import encode, decode, MAX_DEPTH
def go():
    value = 1
    for _ in range(MAX_DEPTH - 1):
        value = WRAPS[{wrap!r}](value)
    try:
        data = encode(value)
    except EventLogError:
        sys.exit(0)  # refused is right as well
    depth, back = 0, decode(data)
    while back != 1:
        back = next(iter(back.values())) if type(back) is dict else back.x if hasattr(back, "x") else next(iter(back))
        depth += 1
    assert depth == MAX_DEPTH - 1
    print("read")
def deep(n):
    return go() if n == 0 else deep(n - 1)
where = {where!r}
if where == "main thread":
    go()
elif where == "deep call":
    deep(500)
else:
    failed = []
    threading.excepthook = lambda args: failed.append(args.exc_value)
    threading.stack_size(512 * 1024)  # macOS gives threads no more
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert not failed or isinstance(failed[0], SystemExit), failed
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-500:]}"


class TestRegistered:
    def test_round_trip_at_any_place(self, money: None) -> None:
        value = {"k": [Money(Decimal("1.50"), [1, {2}, Money(Decimal(2))])]}
        assert decode(encode(value)) == value

    def test_an_unknown_tag_is_an_error_that_names_it(self, money: None) -> None:
        data = encode([Money(Decimal(1))])
        unregister(Money)
        with pytest.raises(UnknownTypeError, match="'money'") as caught:
            decode(data)
        assert caught.value.tag == "money"

    @pytest.mark.parametrize("cls", [int, dict, list, set, bytearray, uuid.UUID, "no class"])
    def test_what_the_log_knows_cannot_be_registered(self, cls: Any) -> None:
        with pytest.raises(InvalidInputError):
            register(cls, "mine", str, str)

    def test_a_tag_belongs_to_one_class(self, money: None) -> None:
        with pytest.raises(InvalidInputError, match="belongs to another"):
            register(Local, "money", str, str)
        register(Money, "money", lambda m: 1, lambda m: Money(Decimal(7)))
        assert decode(encode(Money(Decimal(1)))) == Money(Decimal(7))

    @pytest.mark.parametrize("tag", ["", None, 5])
    def test_a_tag_is_a_string(self, tag: Any) -> None:
        with pytest.raises(InvalidInputError):
            register(Local, tag, str, str)

    def test_an_error_of_a_decoder_is_one_of_ours(self) -> None:
        for error in (RuntimeError("x"), AttributeError("x"), ValueError("x"), OSError("x")):

            def fail(value: Any, error: Exception = error) -> Any:
                raise error

            register(Local, "local", lambda _: 1, fail)
            try:
                with pytest.raises(EventLogError):
                    decode(encode(Local()))
            finally:
                unregister(Local)


def ext(code: int, *items: Any) -> bytes:
    return msgpack.packb(msgpack.ExtType(code, msgpack.packb(list(items))))


class TestStoredBytes:
    """Nothing stored can run code when read, or take more memory than it is worth."""

    @pytest.mark.parametrize(
        "data",
        [
            ext(12, "os:system", "x"), ext(13, "os:system", {"a": 1}), ext(13, "subprocess:Popen", {"args": "true"}),
            ext(14, "pickle", b"cos\nsystem\n"), ext(14, "json", {"lc": 2, "type": "constructor"}), ext(0, 1),
            ext(17, 1),
            ext(99, "os", "system"), ext(12, "builtins:int", "x"), ext(13, "no.such.module:X", {}),
        ],
        ids=repr,
    )  # fmt: skip
    def test_unknown_types_name_themselves(self, data: bytes) -> None:
        before = set(sys.modules)
        with pytest.raises(UnknownTypeError):
            decode(data)
        assert set(sys.modules) == before

    @pytest.mark.parametrize(
        "data",
        [
            b"", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xffx", b"\xc1", b"\x91",
            b"\x01\x01",
            b"\xa1\xff", ext(2, [1]), ext(6, 1, 2, 3), ext(7), ext(9, "x"), ext(11), ext(12), ext(13, 1),
            ext(14, 1, 2, 3),
            ext(15), ext(15, 1), ext(15, "<f8", [1], False, b""), ext(15, "|O", [1], False, bytes(8)),
            ext(15, "<f8", [1 << 60], False, bytes(8)), ext(15, "<f8", [-1], False, bytes(8)), ext(16, 1, 2, 3),
            b"\x91" * 2000 + b"\x01", b"\xd4\xff\x00", b"\x81\x90\x01",
            msgpack.packb(msgpack.ExtType(10, b"short")), msgpack.packb(msgpack.ExtType(11, b"no number")),
            ext(6, "2020-01-01T00:00:00", 0, "No/Such_Zone"), ext(6, "2020-01-01T00:00:00", 0, "../../etc/passwd"),
            ext(6, "2020-01-01T00:00:00", 7, None), ext(12, 5, 5), ext(13, [], {}),
        ],
        ids=repr,
    )  # fmt: skip
    def test_damaged_bytes_are_corruption(self, data: bytes) -> None:
        with pytest.raises((CorruptionError, UnknownTypeError)):
            decode(data)

    @given(st.binary(max_size=60))
    @settings(max_examples=400, deadline=None)
    def test_any_bytes_are_a_value_or_an_error_of_ours(self, data: bytes) -> None:
        for read in (decode, known_codec(MSGPACK.name).decode):  # type: ignore[union-attr]
            with suppress(EventLogError):
                read(data)

    @given(values(), st.data())
    @settings(max_examples=150, deadline=None)
    def test_a_flipped_byte_is_a_value_or_an_error_of_ours(self, value: Any, data: Any) -> None:
        damaged = bytearray(encode(value))
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        for read in (decode, known_codec(MSGPACK.name).decode):  # type: ignore[union-attr]
            with suppress(EventLogError):
                read(bytes(damaged))

    @given(values())
    @settings(max_examples=100, deadline=None)
    def test_inert_reading_touches_no_class(self, value: Any) -> None:
        inert = known_codec(MSGPACK.name)
        assert inert is not None
        shown = repr(inert.decode(encode(value)))
        assert "Point(" not in shown or "Point(" in repr(value)
        assert "<Color" not in shown


def test_the_limit_is_the_one_that_is_documented() -> None:
    assert MAX_DEPTH == 200
