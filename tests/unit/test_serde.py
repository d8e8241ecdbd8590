import enum
import json
import random
import subprocess
import sys
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, namedtuple
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from eventlog.errors import (
    CorruptionError,
    EventLogError,
    InvalidInputError,
    TooDeepError,
    UnknownTypeError,
    UnserializableError,
)
from savers.serde import MAX_DEPTH, JsonPlusSerde, _is_plain
from tests.strict import Color, Level, Note, Point, Right, Word, json_values, strictly_equal, values

SERDE = JsonPlusSerde()
Pair = namedtuple("Pair", "a b")  # noqa: PYI024


class Text(str):
    __slots__ = ()


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    __hash__ = None


class Local(tzinfo):
    pass


class Model(BaseModel):
    a: int = 1


@dataclass
class Trap:
    a: int

    def __post_init__(self) -> None:
        assert self.a != 13, "__post_init__ ran"


def round_trip(value: Any, serde: JsonPlusSerde = SERDE) -> Any:
    return serde.decode(serde.encode(value))


def nested(depth: int, wrap: Any = lambda inner: [inner]) -> Any:
    value: Any = None
    for _ in range(depth):
        value = wrap(value)
    return value


# --- what is written reads back -------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(values())
@example({"$type": "tuple", "value": [1]})
@example({"$type": {"$type": "$type"}})
@example([{"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}}])
@example({1: "int", "1": "str", 1.5: "float", None: "none", (1,): "tuple"})
@example([1, 1.0, True, -0.0, 0])
@example(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")))
@example(timezone(timedelta(microseconds=-1)))
@example(time(0, 0, tzinfo=timezone(timedelta(microseconds=1))))
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23, microseconds=1), "odd")))
def test_every_supported_value_reads_back_strictly_equal(value):
    data = SERDE.encode(value)
    again = SERDE.decode(data)
    assert strictly_equal(again, value)
    assert SERDE.encode(again) == data


@settings(deadline=None)
@given(json_values())
def test_what_json_has_itself_stands_as_plain_json(value):
    data = SERDE.encode(value)
    assert strictly_equal(SERDE.decode(data), value)
    if b'"$type"' not in data:
        assert strictly_equal(json.loads(data), value)


@settings(max_examples=50, deadline=None)
@given(values())
def test_the_short_way_and_the_long_way_write_the_same(value):
    alone = SERDE.encode(value)
    beside = SERDE.encode([value, ()])
    assert beside == b"[" + alone + b',{"$type":"tuple","value":[]}]'


@settings(max_examples=100, deadline=None)
@given(values())
def test_inert_reading_never_fails_on_what_was_written(value):
    round_trip(value, JsonPlusSerde(inert=True))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.0, None, True, "é"]}, '{"a":[1,2.0,null,true,"é"]}'),
        ((1,), '{"$type":"tuple","value":[1]}'),
        ({3, 1, 2}, '{"$type":"set","value":[1,2,3]}'),
        (b"\x00\xff", '{"$type":"bytes","value":"AP8="}'),
        (float("-inf"), '{"$type":"float","value":"-inf"}'),
        (float("nan"), '{"$type":"float","value":"nan"}'),
        ({1: 2}, '{"$type":"dict","value":[1,2]}'),
        ({"$type": 1}, '{"$type":"dict","value":["$type",1]}'),
        (date(2026, 1, 2), '{"$type":"date","value":"2026-01-02"}'),
        (datetime(2026, 1, 2, tzinfo=UTC), '{"$type":"datetime","value":"2026-01-02T00:00:00+00:00"}'),
        (
            datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
            (
                '{"$type":"datetime","value":"2026-01-02T00:00:00",'
                '"tz":{"$type":"zoneinfo","value":"Europe/Berlin"},"fold":1}'
            ),
        ),
        (time(1, 2), '{"$type":"time","value":"01:02:00"}'),
        (timedelta(-1, 2, 3), '{"$type":"timedelta","value":[-1,2,3]}'),
        (timezone(timedelta(hours=1), "CET"), '{"$type":"timezone","value":[0,3600,0,"CET"]}'),
        (uuid.UUID(int=1), '{"$type":"uuid","value":"00000000-0000-0000-0000-000000000001"}'),
        (Decimal("1.50"), '{"$type":"decimal","value":"1.50"}'),
        (Color.CRIMSON, '{"$type":"tests.strict:Color","value":"RED"}'),
        (Right.READ | Right.WRITE, '{"$type":"tests.strict:Right","value":3}'),
        (Point(1, (2,)), '{"$type":"tests.strict:Point","value":{"x":1,"y":{"$type":"tuple","value":[2]}}}'),
        (2**2001, f'{{"$type":"int","value":"{hex(2**2001)}"}}'),
    ],
)
def test_the_stored_form_never_changes(value, text):
    assert SERDE.encode(value).decode() == text
    assert strictly_equal(SERDE.decode(text.encode()), value)


def test_flags_read_back():
    for right in [Right(0), Right.READ, Right(3)]:
        assert round_trip(right) is right


def test_sets_are_written_in_one_order():
    members = [str(n) for n in range(50)]
    forms = set()
    for _ in range(5):
        random.shuffle(members)
        forms.add(SERDE.encode(set(members)))
    assert len(forms) == 1


def test_decimals_do_not_depend_on_the_threads_context():
    with localcontext() as context:
        context.prec = 1
        context.capitals = 0
        context.clear_traps()
        value = Decimal("1.23456E+70")
        assert SERDE.encode(value) == b'{"$type":"decimal","value":"1.23456E+70"}'
        assert strictly_equal(round_trip(value), value)
        with pytest.raises(CorruptionError):
            SERDE.decode(b'{"$type":"decimal","value":"much"}')


def test_ints_do_not_depend_on_the_digit_limit():
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        for value in [2**1999, 2**2000, -(2**2000), 10**5000]:
            assert round_trip([value]) == [value]
    finally:
        sys.set_int_max_str_digits(before)


def test_the_value_is_neither_changed_nor_shared():
    value = {"a": [1, {"b": (2, [3])}]}
    again = round_trip(value)
    again["a"][1]["b"][1].append(4)
    assert value == {"a": [1, {"b": (2, [3])}]}


def test_a_value_that_occurs_twice_is_no_cycle():
    shared = [1]
    assert round_trip([shared, (shared,), {"a": shared}]) == [[1], ([1],), {"a": [1]}]


# --- what cannot be written is refused, with its place --------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        object(),
        object,
        len,
        lambda: None,
        (n for n in ()),
        1j,
        range(3),
        memoryview(b"a"),
        Text("a"),
        Pair(1, 2),
        OrderedDict(a=1),
        defaultdict(int),
        Counter("a"),
        ValueError("a"),
        Path("a"),
        Money(1),
        SecretStr("sk-123"),
        sys,
        ...,
        NotImplemented,
        datetime(2026, 1, 1, tzinfo=Local()),
        "\ud800",
        {"\udfff": 1},
        timezone(timedelta(0), "\ud800"),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_anything_else_is_refused(bad):
    for value in [bad, [bad], {"a": bad}, (bad,), {"k": (1, bad)}, Note("a", about=bad)]:
        with pytest.raises(UnserializableError) as caught:
            SERDE.encode(value)
        assert caught.value.path.startswith("value")
        assert "sk-123" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([0, 1, 2, {"meta": {"callback": len}}], "messages[3].meta.callback"),
        (len, "messages"),
        ({"a b": len}, "messages['a b']"),
        ({1: {(2,): len}}, "messages[1][<tuple>]"),
        ({(1, "\ud800"): 1}, "messages.keys()[0][1]"),
        (Point(1, [len]), "messages.y[0]"),
        ([(len,)], "messages[0][0]"),
        ([{"a": "é\ud800"}], "messages[0].a"),
        ([{"é\ud800": 1}], "messages[0]"),
        ({"x" * 1000 + " ": len}, "messages['" + "x" * 40 + "']"),
    ],
)
def test_the_error_names_the_place(value, path):
    with pytest.raises(UnserializableError) as caught:
        SERDE.encode(value, path="messages")
    assert caught.value.path == path


def test_a_class_that_no_tag_leads_back_to_is_refused_with_what_to_do():
    @dataclass
    class Here:
        a: int

    class Kind(enum.Enum):
        ONE = 1

    for value in [Here(1), Kind.ONE]:
        with pytest.raises(UnserializableError, match="register"):
            SERDE.encode(value)


# --- depth ----------------------------------------------------------------------------------------------------------

WRAPS = {
    "list": lambda inner: [inner],
    "dict": lambda inner: {"a": inner},
    "tuple": lambda inner: (inner,),
    "pairs": lambda inner: {1: inner},
    "frozenset": lambda inner: frozenset([inner]),
    "dataclass": Point,
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_nesting_up_to_the_limit(wrap):
    deepest = nested(MAX_DEPTH, wrap)
    assert SERDE.encode(round_trip(deepest)) == SERDE.encode(deepest)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 300, 100_000])
@pytest.mark.parametrize("wrap", [WRAPS["list"], WRAPS["dict"], WRAPS["tuple"]])
def test_deeper_is_refused(depth, wrap):
    with pytest.raises(TooDeepError):
        SERDE.encode(nested(depth, wrap))


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_one_deeper_is_refused(wrap):
    with pytest.raises(TooDeepError, match="deeper than 200 levels"):
        SERDE.encode(nested(MAX_DEPTH + 1, wrap))


def test_exactly_the_limit_is_allowed_and_an_atom_is_no_level():
    assert _is_plain(nested(MAX_DEPTH), MAX_DEPTH)
    assert not _is_plain(nested(MAX_DEPTH + 1), MAX_DEPTH)
    for atom in [None, b"a", Color.RED, datetime(2026, 1, 1, tzinfo=timezone(timedelta(1) / 3, "x"))]:
        value: Any = atom
        for _ in range(MAX_DEPTH):
            value = (value,)
        assert strictly_equal(round_trip(value), value)


def test_a_value_that_contains_itself_is_refused():
    a_list: list[Any] = []
    a_list += [1, a_list]
    a_dict: dict[str, Any] = {}
    a_dict["self"] = (a_dict,)
    note = Note("a")
    note.about = [note]
    wide: list[Any] = []
    wide += [wide, wide, wide]
    for value in [a_list, a_dict, note, wide]:
        with pytest.raises(TooDeepError, match="contains itself"):
            SERDE.encode(value)


def test_an_exhausted_call_stack_is_said_so():
    def at_the_bottom(call: Any) -> Any:
        try:
            return at_the_bottom(call)
        except RecursionError:
            return call()

    def outcome(call: Any) -> Any:
        try:
            return call()
        except EventLogError as error:
            return type(error)

    data = SERDE.encode(nested(150, lambda inner: (inner,)))
    deep = nested(150, lambda inner: (inner,))
    assert at_the_bottom(lambda: outcome(lambda: SERDE.encode(deep))) in (TooDeepError, data)
    assert at_the_bottom(lambda: outcome(lambda: SERDE.decode(data))) in (TooDeepError, deep)


# --- bad bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"1 2",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"\xff",
        b'"\xed\xa0\x80"',
        '"é"'.encode("latin-1"),
        "[1]".encode("utf-16"),
        b"\xef\xbb\xbf[1]",
        b'"a',
        b'"\n"',
        b'"\\ud800"',
        b'["\\uDFFF x"]',
        b"1" * 5000,
        b"\x80\x04K\x01.",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"$type":' * 2_000 + b"1" + b"}" * 2_000,
        b'{"$type":"tuple"}',
        b'{"$type":"tuple","value":"ab"}',
        b'{"$type":"tuple","value":{"a":1}}',
        b'{"$type":"set","value":[[]]}',
        b'{"$type":"frozenset","value":[{}]}',
        b'{"$type":"dict","value":[1]}',
        b'{"$type":"dict","value":[[],1]}',
        b'{"$type":"bytes","value":"*"}',
        b'{"$type":"bytes","value":5}',
        b'{"$type":"bytearray","value":null}',
        b'{"$type":"int","value":7}',
        b'{"$type":"int","value":"zz"}',
        b'{"$type":"float","value":"1.5"}',
        b'{"$type":"float","value":"3ff0000000000000"}',
        b'{"$type":"float","value":[]}',
        b'{"$type":"datetime","value":"yesterday"}',
        b'{"$type":"datetime","value":"2026-01-01","fold":2}',
        b'{"$type":"datetime","value":"2026-01-01","tz":5}',
        b'{"$type":"time","value":25}',
        b'{"$type":"date","value":"2026-13-01"}',
        b'{"$type":"timedelta","value":[1e30,0,0]}',
        b'{"$type":"timedelta","value":[1,2,3,4,5,6,7,8,9]}',
        b'{"$type":"timezone","value":[2,0,0]}',
        b'{"$type":"timezone","value":[]}',
        b'{"$type":"uuid","value":5}',
        b'{"$type":"uuid","value":"1-2"}',
        b'{"$type":"decimal","value":"many"}',
        b'{"$type":"decimal","value":["a"]}',
        b'{"$type":5}',
        b'{"$type":null,"value":1}',
        b'{"$type":["a"]}',
        b'{"$type":{"a":1}}',
        b'{"$type":"tests.strict:Point"}',
        b'{"$type":"tests.strict:Point","value":[1]}',
    ],
    ids=lambda data: repr(data[:50]),
)
def test_bytes_that_were_never_written_are_corruption(data):
    with pytest.raises(CorruptionError):
        SERDE.decode(data)


@pytest.mark.parametrize("data", [None, "[]", 5, []])
def test_what_is_no_bytes_is_corruption(data):
    with pytest.raises(CorruptionError):
        SERDE.decode(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | values(max_leaves=5).map(SERDE.encode), st.randoms(use_true_random=False))
def test_damaged_bytes_give_a_value_or_an_error_of_ours(data, chance):
    damaged = bytearray(data)
    for _ in range(3):
        if damaged:
            damaged[chance.randrange(len(damaged))] = chance.choice(b'"[]{}:,\\019ae$t-\x00\xff')
    for serde in [SERDE, JsonPlusSerde(inert=True)]:
        with suppress(CorruptionError, UnknownTypeError):
            serde.decode(bytes(damaged))


def test_a_surrogate_pair_is_a_character_and_text_about_escapes_is_text():
    assert SERDE.decode(b'"\\ud83e\\udd9c"') == "🦜"
    assert round_trip("\\ud800 \\\\ud800") == "\\ud800 \\\\ud800"


def test_brackets_in_text_are_no_depth():
    texts = ["[" * 1000, "\\" + "[" * 1000, '"' + "{" * 1000, '\\"' + "[" * 1000 + "\\"]
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    try:
        assert round_trip(texts) == texts
        assert round_trip(nested(MAX_DEPTH, lambda inner: (inner,))) == nested(MAX_DEPTH, lambda inner: (inner,))
    finally:
        sys.setrecursionlimit(before)


def test_deep_bytes_do_not_crash_a_process_that_raised_its_recursion_limit():
    code = (
        "import sys; sys.setrecursionlimit(10**9)\n"
        "from savers.serde import JsonPlusSerde\n"
        "for data in [b'[' * 10**6, b'[' * 10**6 + b']' * 10**6]:\n"
        "    try: JsonPlusSerde().decode(data)\n"
        "    except Exception as error: print(type(error).__name__)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["CorruptionError", "CorruptionError"], done.stderr


# --- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag",
    [
        "os:system",
        "subprocess:Popen",
        "antigravity:fly",
        "builtins:eval",
        "pickle",
        "json",
        "tests.strict:Gone",
        "",
        "lc",
    ],
)
def test_unknown_tags_name_themselves_and_import_nothing(tag):
    before = set(sys.modules)
    with pytest.raises(UnknownTypeError, match="import") as caught:
        SERDE.decode(json.dumps({"$type": tag, "value": ["echo", "hi"]}).encode())
    assert caught.value.tag == tag
    assert set(sys.modules) == before


def test_rebuilding_runs_neither_init_nor_post_init():
    data = SERDE.encode(Trap(12)).replace(b"12", b"13")
    assert SERDE.decode(data).a == 13


def test_a_dataclass_or_enum_that_changed_says_how():
    tag = "tests.strict:Point"
    with pytest.raises(UnknownTypeError, match="no field 'z'"):
        SERDE.decode(json.dumps({"$type": tag, "value": {"x": 1, "z": 1}}).encode())
    with pytest.raises(UnknownTypeError, match="was not stored"):
        SERDE.decode(json.dumps({"$type": tag, "value": {"y": 1}}).encode())
    assert SERDE.decode(json.dumps({"$type": tag, "value": {"x": 1}}).encode()) == Point(1, 0)
    with pytest.raises(UnknownTypeError, match="no member 'BLUE'"):
        SERDE.decode(b'{"$type":"tests.strict:Color","value":"BLUE"}')


@pytest.mark.parametrize("key", ["Nowhere/Land", "../../etc/passwd", "/etc/passwd", "Europe", "", "a\x00b", "\u00e9"])
def test_an_unknown_zone_says_what_to_install(key):
    with pytest.raises(UnknownTypeError, match="tzdata"):
        SERDE.decode(json.dumps({"$type": "zoneinfo", "value": key}).encode())


def test_a_registered_class_reads_back():
    serde = JsonPlusSerde()
    serde.register(Money, "money", lambda money: (money.cents,), lambda value: Money(value[0]))
    assert serde.encode(Money(5)) == b'{"$type":"money","value":{"$type":"tuple","value":[5]}}'
    assert round_trip({"a": [Money(2)]}, serde) == {"a": [Money(2)]}
    with pytest.raises(UnknownTypeError, match="register"):
        SERDE.decode(serde.encode(Money(5)))


def test_a_class_of_a_function_can_be_registered_without_functions():
    @dataclass
    class Here:
        a: Any

    class Kind(enum.Enum):
        ONE = 1

    serde = JsonPlusSerde()
    serde.register(Here, "here")
    serde.register(Kind, "kind")
    assert strictly_equal(round_trip(Here((Kind.ONE,)), serde), Here((Kind.ONE,)))


def test_a_class_that_moved_is_read_by_its_old_tag_and_written_by_its_new_one():
    serde = JsonPlusSerde()
    serde.register(Point, "old.module:Point")
    serde.register(Point)
    assert serde.decode(b'{"$type":"old.module:Point","value":{"x":1}}') == Point(1)
    assert b'"tests.strict:Point"' in serde.encode(Point(1))


@pytest.mark.parametrize(
    "arguments",
    [
        (int, "mine", str, int),
        (dict, "mine", str, int),
        (Money, "tuple", str, int),
        (Money, "", str, int),
        (Money, "a\ud800", str, int),
        (Money, 5, str, int),
        (Money, "money"),
        (Money, "money", str),
        (Money, "taken", str, int),
    ],
)
def test_registrations_that_could_not_work_are_refused(arguments):
    serde = JsonPlusSerde()
    serde.register(Point, "taken")
    with pytest.raises(InvalidInputError):
        serde.register(*arguments)


def test_a_registered_function_that_fails_is_named():
    def fail(_: object) -> Any:
        raise ZeroDivisionError

    serde = JsonPlusSerde()
    serde.register(Money, "money", fail, fail)
    with pytest.raises(UnserializableError, match="money") as caught:
        serde.encode([Money(1)])
    assert caught.value.path == "value[0]"
    with pytest.raises(UnknownTypeError, match="money"):
        serde.decode(b'{"$type":"money","value":1}')
    endless = JsonPlusSerde()
    endless.register(Money, "money", lambda money: [Money(1)], Money)
    with pytest.raises(TooDeepError):
        endless.encode(Money(1))


def test_inert_reading_shows_tags_and_touches_no_class():
    serde = JsonPlusSerde(inert=True)
    serde.register(Money, "money", lambda money: money.cents, Money)
    value = [Color.RED, Point(1, (2,)), Money(3), (4,), {Word.YES: 5}, {Level.LOW}, b"6"]
    assert round_trip(value, serde) == [
        {"$type": "tests.strict:Color", "value": "RED"},
        {"$type": "tests.strict:Point", "value": {"x": 1, "y": (2,)}},
        {"$type": "money", "value": 3},
        (4,),
        {"$type": "dict", "value": [{"$type": "tests.strict:Word", "value": "YES"}, 5]},
        {"$type": "set", "value": [{"$type": "tests.strict:Level", "value": "LOW"}]},
        b"6",
    ]
    assert serde.decode(b'{"$type":"os:system","value":["echo"]}') == {"$type": "os:system", "value": ["echo"]}
    nowhere = b'{"$type":"datetime","value":"2026-01-01","tz":{"$type":"zoneinfo","value":"Nowhere"}}'
    assert serde.decode(nowhere)["tz"]["value"] == "Nowhere"
    with pytest.raises(CorruptionError):
        serde.decode(b'{"$type":"bytes","value":5}')


def test_a_value_that_other_threads_change_is_written_or_refused_by_an_error_of_ours():
    value: dict[Any, Any] = {str(n): [n] for n in range(200)}
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            value[str(200 + n % 50)] = {n, (n,)}
            value.pop(str(200 + (n + 25) % 50), None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            assert len(round_trip(value)) >= 200
    finally:
        stop.set()
        thread.join()
