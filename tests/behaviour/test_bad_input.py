"""Bad inputs, numbered as in the table of reliability.md, section 5.2.

Each has its stated outcome before anything is written, and the handle still works. The filters of number 6 and the
secrets of number 14 are the savers' own: see s21 in tests/langgraph/test_contract.py, and test_secrets.py.
"""

from __future__ import annotations

import enum
import gc
import math
import os
import resource
import sys
import unicodedata
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from eventlog import (
    ConflictError,
    CorruptionError,
    EventLog,
    EventLogError,
    Extend,
    IdConflictError,
    InvalidIdError,
    InvalidInputError,
    Limits,
    Merge,
    NotFoundError,
    TaskWrite,
    TooDeepError,
    TooLargeError,
    UnknownTypeError,
    UnserializableError,
    Update,
    register,
    unregister,
)
from eventlog.codec import MSGPACK
from tests.counting import CountingStorage, everything, patience, with_frames_left
from tests.strict import named, strictly_equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventlog import Run
    from eventlog.storage import Storage


@pytest.fixture
def counted(storage: Storage) -> CountingStorage:
    return CountingStorage(storage)


@pytest.fixture
def log(counted: CountingStorage) -> EventLog:
    return EventLog(counted, limits=Limits(value_bytes=1 << 20, batch_events=1000))


@pytest.fixture
def run(log: EventLog) -> Iterator[Run]:
    run = log.run("r")
    run.append({"n": 0, "messages": [{"id": 0}] * 3, "d": {"k": 1, "pad": "p" * 50}})
    yield run
    steps = len(run)
    run.append({"n": steps})
    assert run.commit({**run.state, "n": -1}).writes == {"n": -1}
    assert log.run("r").step == run.step
    assert list(log.verify()) == []


class Refuses:
    """``with refuses(SomeError):`` within, that error, and nothing written by anybody."""

    def __init__(self, storage: CountingStorage, run: Run) -> None:
        self.storage, self.run = storage, run

    @contextmanager
    def __call__(self, *errors: type[Exception], match: str | None = None) -> Iterator[Any]:
        run = self.run
        before, handle = everything(self.storage.inner), (len(run), run.head, dict(run.state))
        with self.storage.counted() as tally, patience(), pytest.raises(errors, match=match) as caught:
            yield caught
        assert isinstance(caught.value, EventLogError)
        assert str(caught.value)
        assert tally.touched == 0
        assert tally.commits == 0
        assert everything(self.storage.inner) == before
        assert (len(run), run.head, dict(run.state)) == handle


@pytest.fixture
def refuses(counted: CountingStorage, run: Run) -> Refuses:
    return Refuses(counted, run)


def every_name(log: EventLog, run: Run, bad: Any) -> list[Callable[[], Any]]:
    """Everything that takes a name or an id from outside."""
    return [
        lambda: log.run(bad),
        lambda: log.run(("fine", bad)),
        lambda: log.delete(bad),
        lambda: run.append({"n": 1}, task=bad),
        lambda: run.append({"n": 1}, id=bad),
        lambda: run.append({bad: 1}),
        lambda: run.commit({**run.state, bad: 1}),
        lambda: run.append_many([{"n": 1}, {bad: 1}]),
        lambda: run.append_many([{"n": 1}], task=bad),
        lambda: run.fork(name=bad),
        lambda: run.branch(bad),
        lambda: run.put_task_writes(0, [TaskWrite(bad, 0, "c", 1)]),
        lambda: run.put_task_writes(0, [TaskWrite("t", 0, bad, 1)]),
    ]


@pytest.mark.parametrize(
    "bad", ["", None, True, {"$gt": ""}, b"bytes", 5, 1.5, ["a"], type("S", (str,), {})("sub")], ids=repr
)
def test_01_no_string(log: EventLog, run: Run, refuses: Refuses, counted: CountingStorage, bad: Any) -> None:
    with counted.counted() as tally, pytest.raises(InvalidIdError):
        log.run(bad)
    assert tally.reads == 0, "before any I/O"
    for use in every_name(log, run, bad):
        try:
            hash(bad)
        except TypeError:
            continue
        if bad is None:
            continue
        with refuses(InvalidIdError):
            use()
    with refuses(InvalidIdError):
        log.run(("fine", bad))
    for name in ((), ("",), ((),), ("a", ("b",))):
        with refuses(InvalidIdError):
            log.run(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["a\x00b", "\ud800", "\x1b[31mred", "a\nb", "\x7f", "\x9b1m", "a\r"], ids=ascii)
def test_02_control_characters_and_surrogates(log: EventLog, run: Run, refuses: Refuses, bad: str) -> None:
    for use in every_name(log, run, bad):
        with refuses(InvalidIdError) as caught:
            use()
        assert str(caught.value).isprintable(), "the message itself must be fit for a terminal"


def test_03_paths_are_names_and_long_ones_are_refused(log: EventLog, run: Run, refuses: Refuses, tmp_path: Any) -> None:
    for name in (
        "../../etc/passwd",
        "C:\\x",
        "/",
        "..",
        "~",
        "$HOME",
        "x" * 255,
        "é" * 127,
        "a/b",
        "%00",
        "'; DROP TABLE",
    ):
        log.run(name).append({"name": name}, id=name, task=name)
        assert log.run(name).state["name"] == name
        assert log.run(name).at(name)["name"] == name
        run.fork(name=name).append({name: 1})
        assert run.branch(name).state[name] == 1
    assert not [path for path in tmp_path.rglob("*") if "passwd" in path.name or path.name in {"x", "b"}]
    for bad in ("a" * 100_000, "é" * 128, "a" * 256):
        for index, use in enumerate(every_name(log, run, bad)):
            if index == 1 and len(bad) < 4096:
                continue  # the further parts of a name may be longer
            with refuses(InvalidIdError):
                use()


def test_04_names_that_look_alike_are_distinct(log: EventLog, run: Run) -> None:
    names = [
        "a",
        "A",
        "a ",
        " a",
        "1",
        "12",
        "01",
        "é",
        unicodedata.normalize("NFD", "é"),
        "ﬁ",
        "fi",
        "a\u200b",
        "\u0430",
    ]
    for name in names:
        other = log.run(name)
        other.append({"name": name}, id=name)
        other.append({name: name})
        run.fork(name=name).append({"branch": name})
    run.append({name: name for name in names})
    for name in names:
        assert log.run(name).at(name)["name"] == name
        assert set(log.run(name).state) == {"name", name}
        assert run.branch(name).state["branch"] == name
        assert run.state[name] == name
    assert set(log.runs()) == {"r", *names}


def test_05_parts_of_a_name_are_never_joined(log: EventLog, run: Run) -> None:
    names: list[Any] = [
        ("a.b",), ("a", "b"), ("a", "b", "c"), ("a.b", "c"), ("a", "b.c"), "a/b", ("a/b", "c"),
        "%", "_", "*", ("%", "x"),
        ("a", "%"), ("a", "*"), "a|b", ("a|b", "c"), "a:b", ("ab",), ("ab", "c"), ("a", "bc"),
    ]  # fmt: skip
    for name in names:
        log.run(name).append({"name": list(name)})
    for name in names:
        assert log.run(name).state["name"] == list(name)
    assert set(log.runs(within="a")) == {("a", "b"), ("a", "b", "c"), ("a", "b.c"), ("a", "%"), ("a", "*"), ("a", "bc")}
    assert log.runs(within="%") == ["%", ("%", "x")]
    assert log.runs(within="*") == ["*"]


class Raw:
    """Writes under the engine's codec's name whatever bytes it is given."""

    name = MSGPACK.name

    def encode(self, value: Any, path: str = "value") -> bytes:
        return value if type(value) is bytes else MSGPACK.encode(value, path)

    def decode(self, data: bytes) -> Any:
        return MSGPACK.decode(data)


def planted(log: EventLog, payload: bytes) -> Run:
    """A run with an event that holds `payload` as an encoded value, with all checksums right."""
    log.run("planted", codec=Raw()).append({"a": payload})
    return log.run("planted")


def registered(*items: Any) -> bytes:
    return msgpack.packb([msgpack.ExtType(14, b""), *items])


def ext(code: int, *items: Any) -> bytes:
    return msgpack.packb(msgpack.ExtType(code, msgpack.packb(list(items))))


@pytest.mark.parametrize(
    "payload",
    [
        ext(5, "os", "system", "true"), ext(12, "os:system", "true"), ext(13, "os:system", {"command": "true"}),
        ext(13, "antigravity:X", {}), ext(77, "os", "system"), ext(14, "os.system", ["true"]), ext(0, "os", "system"),
    ],
    ids=repr,
)  # fmt: skip
def test_07_stored_types_run_nothing(log: EventLog, payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "system", lambda *args: pytest.fail("it ran"))
    run, modules = planted(log, payload), set(sys.modules)
    try:
        assert type(run.state["a"]) is bytearray  # code 5 is one
    except (UnknownTypeError, CorruptionError):
        assert payload[2] != 5
    assert "antigravity" not in sys.modules
    assert not {name for name in set(sys.modules) - modules if not name.startswith("eventlog")}
    assert not [problem for problem in log.verify() if "Error" in str(problem)]


@pytest.mark.parametrize(
    "payload",
    [registered("pickle", b"cos\nsystem\n(S'true'\ntR."),
    registered("json", {"lc": 2, "type": "constructor", "id": ["os", "system"]})],
    ids=["pickle", "json"],
)  # fmt: skip
def test_08_foreign_tags_are_refused_by_name(log: EventLog, payload: bytes) -> None:
    run = planted(log, payload)
    with pytest.raises(UnknownTypeError) as caught:
        run.state["a"]
    assert caught.value.tag in {"pickle", "json"}
    assert caught.value.tag in str(caught.value)
    run.append({"b": 1})
    assert run.state["b"] == 1


@pytest.mark.parametrize(
    "value",
    [
        {"lc": 2, "type": "constructor", "id": ["os", "system"], "kwargs": {}}, {"$redacted": True},
        {"$type": "x", "value": 1},
        {"__class__": "x", "__reduce__": ["os.system"]}, ["$type", "value"], {"$ref": "#/"},
        {"code": 7, "payload": b"x"},
        [0, 1, b""], {1: 2, "op": "delete"}, {"items": [1]}, {"changes": {"a": 1}},
    ],
    ids=repr,
)  # fmt: skip
def test_09_showy_keys_are_plain_data(log: EventLog, run: Run, value: Any) -> None:
    run.append({"a": value, "l": [value], "d": {"k": value, "pad": "p" * 50}}, meta={"m": value})
    run.append({"l": Extend([value]), "d": Merge({"k2": value})})
    run.commit({**run.state, "d": {**run.state["d"], "k3": value}})
    for state in (run.state, log.run("r").state, run.at(3)):
        assert strictly_equal(state["a"], value)
        assert strictly_equal(state["l"], [value, value])
        assert strictly_equal(state["d"]["k3"], value)
    assert strictly_equal(log.run("r").event(1).meta["m"], value)


def nested(depth: int, wrap: Callable[[Any], Any] = lambda value: [value]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("depth", [300, 100_000])
@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,)], ids=["list", "dict", "tuple"])
def test_10_nested_too_deep(run: Run, refuses: Refuses, depth: int, wrap: Callable[[Any], Any]) -> None:
    value = nested(depth, wrap)
    for use in (
        lambda: run.append({"a": value}),
        lambda: run.append({"messages": Extend([value])}),
        lambda: run.append({"d": Merge({"k": value})}),
        lambda: run.append({"d": Update({"k": value})}),
        lambda: run.append_many([{"n": 1}, {"a": value}]),
        lambda: run.commit({**run.state, "a": value}),
        lambda: run.commit({**run.state, "d": {**run.state["d"], "new": value}}),
        lambda: run.append({"n": 1}, meta={"m": value}),
        lambda: run.put_task_writes(0, [TaskWrite("t", 0, "c", value)]),
    ):
        with refuses(TooDeepError):
            use()


def test_10_a_container_within_itself(run: Run, refuses: Refuses) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    ring: dict[str, Any] = {}
    ring["k"] = [ring]
    state = dict(run.state)
    for value in (loop, ring, (loop,), {"k": ring}):
        for use in (
            lambda value=value: run.append({"a": value}),
            lambda value=value: run.append({"messages": Extend([value])}),
            lambda value=value: run.commit({**state, "messages": value}),
            lambda value=value: run.commit({**state, "d": value}),
        ):
            with refuses(TooDeepError):
                use()


def test_10_one_that_closes_in_place(run: Run, refuses: Refuses) -> None:
    state = dict(run.state)
    run.commit(state)
    state["messages"].append(state["messages"])
    state["d"]["k"] = state["d"]
    with refuses(TooDeepError):
        run.commit(state)


def test_10_merges_nested_too_deep(run: Run, refuses: Refuses) -> None:
    for depth in (300, 5000):
        operation: Any = 1
        for _ in range(depth):
            operation = Merge({"k": operation})
        with refuses(TooDeepError):
            run.append({"d": Merge({"fresh": operation})})
        with refuses(TooDeepError):
            run.append({"new": operation})


def test_10_a_change_that_the_call_stack_has_no_room_for(run: Run, refuses: Refuses) -> None:
    leaf = {"k": 1}
    deep = nested(150, lambda value: {"k": leaf if value == 1 else value, "pad": "p" * 50})
    merge: Any = {"k": 2}
    for _ in range(150):
        merge = Merge({"k": merge})
    run.commit({**run.state, "a": deep, "l": [deep]})
    state = dict(run.state)
    leaf["k"] = 2
    for use in (
        lambda: run.commit({**state, "a": deep}),
        lambda: run.commit({**state, "l": [1, deep]}),
        lambda: run.append({"a": Update(deep)}),
        lambda: run.append({"new": Update(deep)}),
        lambda: run.append({"a": merge}),
    ):
        with refuses(TooDeepError, match=r"^(a|l|new)\b"):
            with_frames_left(100, use)
    assert run.commit({**state, "a": deep}).writes.keys() == {"a"}
    assert run.state["a"] == deep


def test_10_what_is_written_where_the_call_stack_has_no_room_to_remember_it(log: EventLog, run: Run) -> None:
    leaf = {"k": 1}
    deep = nested(150, lambda value: {"k": leaf if value == 1 else value, "pad": "p" * 50})
    run.append({"a": Update(deep)})
    for _ in range(3):
        leaf["k"] += 1
        prepared = run.prepare({"a": Update(deep)})
        with_frames_left(100, lambda prepared=prepared: run.write(prepared))
        assert run.state["a"] == log.run("r").state["a"] == deep


def test_10_what_is_hidden_from_the_depth_is_refused_or_stays_readable(log: EventLog, run: Run) -> None:
    """A value that fits alone but not where it goes must not make somebody's later append fail."""
    for hidden in ((nested(197),), [(nested(196),)], {"k": frozenset([nested(50, lambda v: (v,))])}):
        try:
            run.append({"d": Merge({"a": Merge({"b": Merge({"c": hidden})})})})
        except TooDeepError:
            continue
        for n in range(60):
            run.append({"n": n, "d": Merge({"k": n})})
        assert log.run("r").state["d"]["k"] == 59


@pytest.mark.parametrize(
    "payload",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x05",
    b"\x91" * 100_000,
     b"(\xb5/\xfd" + bytes(1000)],
    ids=["array32", "map32", "bin32", "ext32", "deep", "zstd"],
)  # fmt: skip
def test_11_bombs(log: EventLog, payload: bytes) -> None:
    run = planted(log, payload)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((CorruptionError, TooLargeError, UnknownTypeError)):
        run.state["a"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert isinstance(list(log.verify()), list)


def test_12_too_large(log: EventLog, run: Run, refuses: Refuses, counted: CountingStorage) -> None:
    large = "x" * ((1 << 20) + 1)
    for use in (
        lambda: run.append({"a": large}),
        lambda: run.append({"a": large.encode()}),
        lambda: run.append({"messages": Extend([large])}),
        lambda: run.append({"d": Merge({"k": large})}),
        lambda: run.commit({"a": large}),
        lambda: run.append_many([{"n": 1}, {"a": large}]),
        lambda: run.append_many({"n": n} for n in count()),
        lambda: run.append({"n": 1}, meta={"m": "x" * ((64 << 10) + 1)}),
        lambda: run.append({f"c{n}": n for n in range(60_001)}),
        lambda: run.commit({f"c{n}": n for n in range(60_001)}),
        lambda: run.put_task_writes(0, [TaskWrite("t", 0, "c", large)]),
    ):
        with refuses(TooLargeError) as caught:
            use()
        assert caught.value.size > caught.value.limit
    run.append({"a": "x" * ((1 << 20) - 5)}, meta={"m": "x" * ((64 << 10) - 10)})
    assert len(log.run("r").state["a"]) == (1 << 20) - 5


class Suit(enum.Enum):
    HEARTS = 1


@dataclass
class Card:
    suit: Suit
    callback: Any = None


LOSSLESS = [
    math.nan, math.inf, -math.inf, -0.0, 2**64, -(2**200), Decimal("1e999999999"), Decimal("-0.0"),
    datetime(2026, 11, 26, 12, 34, 56, 789012, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    bytearray(b"x"), b"", Suit.HEARTS, Card(Suit.HEARTS), {1}, frozenset(), (1, [2]),
    {(): 1}, "\x00",
]  # fmt: skip


@pytest.mark.parametrize("value", LOSSLESS, ids=named)
def test_13_lossless(log: EventLog, run: Run, value: Any) -> None:
    run.append({"a": value})
    run.append({"messages": Extend([value]), "d": Merge({"k": value})})
    run.commit({**run.state, "b": {"k": [value]}})
    for state in (run.state, log.run("r").state):
        assert strictly_equal(state["a"], value)
        assert strictly_equal(state["messages"][3], value)
        assert strictly_equal(state["d"]["k"], value)
        assert strictly_equal(state["b"]["k"][0], value)


BAD = [
    lambda: 1, (n for n in ()), print, object(), Suit, open, 1j, memoryview(b"x"), "\ud800", range(3), sys,
    type("Dict", (dict,), {})(), type("Int", (int,), {})(5), Card(Suit.HEARTS, print), enum.Enum("Made", "X").X,
]  # fmt: skip


@pytest.mark.parametrize("value", BAD, ids=named)
def test_13_unserializable_names_the_path(run: Run, refuses: Refuses, value: Any) -> None:
    more = ".callback" if isinstance(value, Card) else ""
    state = dict(run.state)
    messages = [*state["messages"], {"meta": {"callback": value}}]
    cases = [
        (lambda: run.append({"messages": messages}), "messages[3].meta.callback"),
        (lambda: run.commit({**state, "messages": messages}), "messages[3].meta.callback"),
        (lambda: run.append({"messages": Update(messages)}), "messages[3].meta.callback"),
        (lambda: run.commit({**state, "new": {"a": (1, {"b": value})}}), "new.a[1].b"),
        (lambda: run.commit({**state, "d": {**state["d"], "k": [value]}}), "d.k[0]"),
        (lambda: run.append({"d": Merge({"x": [value]})}), "d.x[0]"),
        (lambda: run.append_many([{"n": 1}, {"messages": messages}]), "[1].messages[3].meta.callback"),
        (lambda: run.append({"n": 1}, meta={"why": [value]}), "meta.why[0]"),
        (lambda: run.put_task_writes(0, [TaskWrite("t", 0, "c", 1), TaskWrite("t", 1, "c", [value])]), "c[0]"),
    ]  # fmt: skip
    for use, path in cases:
        with refuses(UnserializableError) as caught:
            use()
        assert caught.value.path == path + more
        assert path in str(caught.value)


def test_13_a_registered_encoder_that_fails(run: Run, refuses: Refuses) -> None:
    class Own:
        pass

    def fail(value: Any) -> Any:
        raise KeyError("inside")

    register(Own, "own", fail, fail)
    try:
        with refuses(UnserializableError) as caught:
            run.commit({**run.state, "messages": [{"own": Own()}]})
        assert caught.value.path == "messages[0].own"
    finally:
        unregister(Own)


@pytest.mark.parametrize("wrong", [-1, 2**64 - 1, 1.5, True, 0, b"x", ["e"], object()], ids=named)
def test_15_expected_is_no_event(run: Run, refuses: Refuses, wrong: Any) -> None:
    for use in (
        lambda: run.append({"n": 1}, expected=wrong),
        lambda: run.commit({"n": 1}, expected=wrong),
        lambda: run.append_many([{"n": 1}], expected=wrong),
    ):
        with refuses(InvalidInputError):
            use()


def test_15_expected_is_another_event(log: EventLog, run: Run, refuses: Refuses) -> None:
    first = run.head
    run.append({"n": 1})
    other = log.run("other").append({"n": 0})
    for wrong in (None, first, first.id, "", "e0.99.00000000", "x" * 1000, "a\nb", other.id):  # type: ignore[union-attr]
        with refuses(ConflictError, InvalidInputError):
            run.append({"n": 2}, expected=wrong)
    with refuses(InvalidInputError):
        run.append({"n": 2}, expected=other)


@pytest.mark.parametrize("wrong", [1.0, "1", True, 2**62, -(2**62), 2**64, math.nan, b"1"], ids=repr)
def test_15_a_step_that_is_none(run: Run, refuses: Refuses, wrong: Any) -> None:
    with refuses(InvalidInputError):
        run.append({"n": 1}, step=wrong)


def test_16_the_same_id_twice(log: EventLog, run: Run, refuses: Refuses, counted: CountingStorage) -> None:
    event = run.append({"n": 1}, id="once")
    with counted.counted() as tally:
        again = run.append({"n": 1}, id="once")
    assert (again, again.seq, tally.touched) == (event, event.seq, 0)
    for other in ({"n": 2}, {}, {"n": 1.0}, {"n": True}, {"m": 1}, {"n": 1, "m": 1}):
        with refuses(IdConflictError):
            run.append(other, id="once")
    assert log.run("r").append({"n": 1}, id="once") == event


def test_17_events_of_others(log: EventLog, run: Run, refuses: Refuses) -> None:
    other = log.run("other")
    other.append({"secret": 1}, id="theirs")
    event = other.append({"secret": 2})
    with refuses(NotFoundError):
        run.at("theirs")
    with refuses(NotFoundError):
        run.fork("theirs")
    with refuses(NotFoundError):
        run.at(event.id)
    for use in (
        lambda: run.at(event), lambda: run.at(other.state), lambda: run.fork(event), lambda: list(run.events(event)),
        lambda: run.append({}, expected=event), lambda: run.prepare({}, at=event), lambda: run.task_writes(event),
        lambda: run.put_task_writes(event, [TaskWrite("t", 0, "c", 1)]), lambda: run.diff(event),
    ):  # fmt: skip
        with refuses(InvalidInputError, NotFoundError):
            use()
    with refuses(NotFoundError):
        run.prepare({}, at="missing")
    with refuses(NotFoundError):
        run.prepare({}, at=99)


def test_17_an_event_of_a_run_of_the_same_name_in_another_log(run: Run, refuses: Refuses) -> None:
    with EventLog.open("memory:") as elsewhere:
        event = elsewhere.run("r").append({"other": 1})
        with refuses(NotFoundError, InvalidInputError):
            run.at(event)
        with refuses(NotFoundError, InvalidInputError):
            run.fork(event)
        with refuses(NotFoundError, InvalidInputError):
            run.prepare({}, at=event)


@pytest.mark.parametrize(
    "times",
    [[10**18, 10**18 - 3_600 * 10**9, 5], [7, 7, 7], [0, 0, 0], [-5, 3, -(10**18)]],
    ids=["back an hour", "identical", "zero", "before the epoch"],
)  # fmt: skip
def test_18_clocks_that_go_wrong(storage: Storage, times: list[int]) -> None:
    ticks = iter(times)
    log = EventLog(storage, clock=lambda: next(ticks, 1))
    run = log.run("r")
    events = (
        run.append_many([{"n": n} for n in range(3)]) if times[0] == 7 else [run.append({"n": n}) for n in range(3)]
    )
    assert [event.seq for event in log.run("r").events()] == [0, 1, 2]
    assert len({event.id for event in events}) == 3
    assert run.state["n"] == 2
    assert [event.time.year for event in run.events()]
    assert list(log.verify()) == []


def test_18_the_year_9999(storage: Storage) -> None:
    last = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9
    ticks = iter([last, last, last + 10**9, 1 << 70])
    log = EventLog(storage, clock=lambda: next(ticks, 1))
    run = log.run("r")
    for n in range(4):
        with suppress(EventLogError):  # to say so is right as well
            run.append({"n": n})
    for event in run.events():
        assert event.time_ns >= 0
    run.append({"n": "after"})
    assert log.run("r").state["n"] == "after"
    assert list(log.verify()) == []
