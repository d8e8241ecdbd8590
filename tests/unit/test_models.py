"""Models of pydantic's come back as they were, without their code; secrets never reach the disk."""

from __future__ import annotations

import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    computed_field,
    field_validator,
)

from eventlog import CorruptionError, EventLog, UnknownTypeError, UnserializableError, register, unregister
from eventlog.codec import MSGPACK, MsgpackCodec
from eventlog.types import is_model_type
from savers.serde import JsonPlusSerde

ROOT = Path(__file__).parents[2]
CODECS = [MSGPACK, JsonPlusSerde()]
ran: list[str] = []
T = TypeVar("T")


class Inner(BaseModel):
    n: int = 0
    items: list[Any] = []


class Outer(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    inner: Inner = Field(default_factory=Inner, alias="within")
    name: str | None = None
    what: Any = None
    _count: int = PrivateAttr(default=3)
    _own: Any = PrivateAttr(default_factory=list)

    @computed_field
    @property
    def double(self) -> int:
        ran.append("property")
        return self.inner.n * 2

    @cached_property
    def cached(self) -> int:
        return 7


class Watched(BaseModel):
    model_config = ConfigDict(validate_assignment=True, validate_default=True)
    n: int

    @field_validator("n")
    @classmethod
    def check(cls, value: int) -> int:
        ran.append("validator")
        return value

    def __init__(self, **data: Any) -> None:
        ran.append("init")
        super().__init__(**data)

    def model_post_init(self, context: Any) -> None:
        ran.append("post init")

    def __setattr__(self, name: str, value: Any) -> None:
        ran.append("setattr")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        ran.append("getattr")
        return super().__getattr__(name)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    n: int


class Root(RootModel[list[Any]]):
    pass


class Child(Inner):
    more: bytes = b""


class Box(BaseModel, Generic[T]):
    item: T


IntBox = Box[int]


class Login(BaseModel):
    user: str = ""
    token: SecretStr | None = None
    keys: list[SecretBytes] = []


class Loose(BaseModel):
    held: Any = None


class Slotted(BaseModel):
    """Holds something beside its fields."""

    __slots__ = ("own",)


def parts(model: Any) -> tuple[Any, ...]:
    return (
        type(model),
        [*vars(model).items()],
        model.__pydantic_fields_set__,
        model.__pydantic_extra__,
        model.__pydantic_private__,
    )


def same(a: Any, b: Any) -> None:
    assert parts(a) == parts(b)
    assert MSGPACK.encode(a) == MSGPACK.encode(b)


def outer() -> Outer:
    model = Outer(within=Inner(n=1, items=[1, (2,), {"k": 1.5}]), what=[Inner()], beside={"x": [1]}, name="n")
    model._count = 5
    model._own.append((1, 2))
    return model


@pytest.mark.parametrize(
    "make",
    [
        Inner,
        lambda: Inner(n=0),
        lambda: Inner.model_construct(n="no number"),
        lambda: Child(n=2, more=b"x"),
        outer,
        Outer,
        lambda: Frozen(n=1),
        lambda: Root([1, [2]]),
        lambda: Box(item=[1]),
        lambda: IntBox(item=1),
        lambda: Loose(held=bytearray(b"b")),
        lambda: Loose(held={(1, 2): Frozen(n=1)}),
        lambda: Loose(held={Frozen(n=1): {Frozen(n=2)}}),
        lambda: Outer(beside=bytearray(b"b"), other=None),
    ],
)
def test_round_trip(make: Any) -> None:
    for codec in CODECS:
        for value in ([make()], {"k": (make(), bytearray(b"b"))}):
            back = codec.decode(codec.encode(value))
            one, other = (back[0], value[0]) if type(back) is list else (back["k"][0], value["k"][0])
            same(one, other)


def test_a_model_that_was_read_works() -> None:
    for codec in CODECS:
        model = codec.decode(codec.encode(outer()))
        assert model.beside == {"x": [1]}
        assert model.double == 2
        assert model.model_dump() == outer().model_dump()
        assert model == outer()
        model.name = "other"
        model.new = 1
        model._count += 1
        assert (model.model_extra, model._count) == ({"beside": {"x": [1]}, "new": 1}, 6)
        assert Outer.model_validate(model.model_dump(by_alias=True)).name == "other"


def test_none_of_its_code_runs() -> None:
    model = Watched(n=1)
    for codec in CODECS:
        ran.clear()
        data = codec.encode([model])
        back = codec.decode(data)
        assert ran == []
        assert parts(back[0]) == parts(model)


def test_what_a_cached_property_left_is_computed_again() -> None:
    model = outer()
    assert model.cached == 7
    back = MSGPACK.decode(MSGPACK.encode(model))
    assert "cached" not in vars(back)
    assert back.cached == 7


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (SecretStr("sk-123"), "c"),
        ([SecretBytes(b"sk-123")], "c[0]"),
        ({"k": Login(user="u", token=SecretStr("sk-123"))}, "c.k"),
        (Login.model_construct(token="sk-123"), "c"),
        (Login(keys=[SecretBytes(b"sk-123")]), "c"),
        (Loose(held=SecretStr("sk-123")), "c.held"),
        (Loose(held=[{"k": SecretStr("sk-123")}]), "c.held"),
        (Outer(beside=SecretStr("sk-123")), "c.beside"),
    ],
)
def test_secrets_are_refused_with_their_place(value: Any, path: str) -> None:
    for codec in CODECS:
        with pytest.raises(UnserializableError, match="secrets are not stored") as caught:
            codec.encode(value, "c")
        assert caught.value.path.startswith(path)
        assert "sk-123" not in str(caught.value)


def test_a_field_for_a_secret_without_one_is_stored() -> None:
    same(MSGPACK.decode(MSGPACK.encode(Login(user="u"))), Login(user="u"))


def hidden() -> Any:
    model = Outer()
    vars(model)["hidden"] = 1
    return model


def partial() -> Any:
    return Frozen.model_construct()


def private() -> Any:
    model = Outer()
    model._own = print
    return model


def local() -> Any:
    class Local(BaseModel):
        pass

    return Local()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (hidden, "'hidden' .* is no field"),
        (partial, "'n' .* is not set"),
        (private, "_own: .*not supported"),
        (local, "cannot be found again|not found by that name"),
        (lambda: Loose(held=print), "held: .*not supported"),
    ],
)
def test_what_would_not_come_back_is_refused(make: Any, why: str) -> None:
    for codec in CODECS:
        with pytest.raises(UnserializableError, match=why):
            codec.encode(make(), "c")


def test_more_than_a_model_is_none() -> None:
    assert is_model_type(Inner)
    assert not is_model_type(Slotted)
    assert not is_model_type(BaseModel)
    assert not is_model_type(int)
    with pytest.raises(UnserializableError):
        MSGPACK.encode(Slotted())


def changed(model: Any, stored: bytes, fields: dict[str, Any]) -> Any:
    """Read `stored` by a class that has other fields now."""
    namespace = {"__module__": __name__, "__annotations__": dict.fromkeys(fields, Any), **fields}
    now = type(BaseModel)("Inner", (BaseModel,), {k: v for k, v in namespace.items() if v is not ...})
    globals()["Inner"] = now
    try:
        return MSGPACK.decode(stored)
    finally:
        globals()["Inner"] = model


def test_a_class_that_changed() -> None:
    stored = MSGPACK.encode(Inner(n=1))
    back = changed(Inner, stored, {"n": 0, "items": [], "late": [5]})
    assert (back.n, back.late, back.model_fields_set) == (1, [5], {"n"})
    with pytest.raises(UnknownTypeError, match="no field 'items' any more"):
        changed(Inner, stored, {"n": 0})
    with pytest.raises(UnknownTypeError, match="'late' was not stored"):
        changed(Inner, stored, {"n": 0, "items": [], "late": ...})


def test_a_registered_model_is_written_as_registered() -> None:
    register(Login, "login", lambda model: model.user, lambda user: Login(user=user))
    try:
        assert MSGPACK.decode(MSGPACK.encode([Login(user="u", token=SecretStr("sk-123"))])) == [Login(user="u")]
    finally:
        unregister(Login)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "name", "other"),
        lambda model: model.inner.items.append(1),
        lambda model: setattr(model.inner, "n", True),
        lambda model: model.beside["x"].append(2),
        lambda model: setattr(model, "new", 1),
        lambda model: setattr(model, "_count", 6),
        lambda model: model._own.append(1),
        lambda model: model.what[0].items.append(1),
        lambda model: setattr(model.what[0], "n", model.what[0].n),
        lambda model: model.__pydantic_fields_set__.discard("name"),
    ],
)
@pytest.mark.parametrize("place", ["channel", "list", "dict"])
def test_a_change_in_place_is_found(place: str, change: Any) -> None:
    with EventLog.open("memory:") as log:
        run = log.run("r")
        model = outer()
        state = {"x": {"channel": model, "list": [model, "y" * 99], "dict": {"k": [1, model]}}[place], "n": 1}
        run.commit(state)
        assert run.commit(state).writes == {}
        change(model)
        assert [*run.commit(state).writes] == ["x"]
        assert run.commit(state).writes == {}
        back = run.state["x"]
        same({"channel": lambda: back, "list": lambda: back[0], "dict": lambda: back["k"][1]}[place](), model)


def test_a_diff_names_the_field() -> None:
    with EventLog.open("memory:") as log:
        run = log.run("r")
        model = outer()
        run.commit({"x": model})
        model.inner.n = 5
        model.beside["x"].append(2)
        run.commit({"x": model})
        assert set(run.diff(0, 1).paths) == {"x.inner.n", "x.beside.x[1]"}


def test_bad_parts_are_an_error_of_ours() -> None:
    for bad in ([], [1, None, None, None], [{}, 5, None, None], [{"n": 1}, None, 5, None]):
        stored = f'{{"$type":"{__name__}:Inner","value":{bad}}}'.replace("None", "null").replace("'", '"')
        with pytest.raises(CorruptionError):
            JsonPlusSerde().decode(stored.encode())


def test_inert_reading_touches_no_class() -> None:
    shown = MsgpackCodec(inert=True).decode(MSGPACK.encode([outer()]))[0]
    assert shown["$type"] == f"{__name__}:Outer"
    assert shown["value"]["name"] == "n"
    assert shown["extra"] == {"beside": {"x": [1]}}
    assert shown["private"] == {"_count": 5, "_own": [(1, 2)]}


def test_a_process_without_the_class_says_what_to_import() -> None:
    data = MSGPACK.encode(outer())
    program = f"""
import sys
from eventlog import UnknownTypeError
from eventlog.codec import MSGPACK
try:
    MSGPACK.decode({data!r})
except UnknownTypeError as error:
    print(error)
print("pydantic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "import the module that defines this model before reading" in done.stdout
    assert done.stdout.endswith("False\n")
