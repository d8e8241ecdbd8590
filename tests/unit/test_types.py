import abc
import enum
import sys
import types
from collections import OrderedDict
from dataclasses import dataclass, field, make_dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pytest

from eventlog.errors import UnknownTypeError, UnserializableError
from eventlog.types import (
    dataclass_fields,
    enum_key,
    is_storable_type,
    rebuild_dataclass,
    rebuild_enum,
    resolve_type,
    tag_of,
    type_tag,
)
from tests.strict import Color, Level, Note, Point, Right

T = TypeVar("T")
HERE = __name__


class Outer:
    @dataclass
    class Inner:
        a: int = 0


@dataclass
class Base:
    a: int
    kind: ClassVar[str] = "base"


@dataclass
class Child(Base):
    b: int = 2


class Undecorated(Base):
    pass


@dataclass
class Box(Generic[T]):
    item: T


@dataclass(slots=True, weakref_slot=True)
class Slotted:
    a: int
    __hash__ = None


@dataclass
class DictLike(dict):
    a: int = 0


@dataclass
class Failure(Exception):  # noqa: N818
    a: int = 0


@dataclass
class Abstract(abc.ABC):  # noqa: B024
    a: int = 0


@dataclass
class Choosy:
    a: int

    def __new__(cls, *args: Any) -> Any:
        assert args, "never called without arguments"
        return super().__new__(cls)


@dataclass
class Area:
    side: int
    _hidden: int = field(init=False, repr=False)
    later: int = field(init=False, default=7)

    def __post_init__(self) -> None:
        assert not getattr(self, "made", False), "__post_init__ ran"
        self._hidden = self.side

    @cached_property
    def area(self) -> int:
        return self.side**2


@dataclass
class Impure:
    a: int

    def __post_init__(self) -> None:
        self.extra = self.a + 1


class Pair(NamedTuple):
    a: int


class Plain:
    pass


@pytest.mark.parametrize("cls", [Color, Level, Right, Point, Note, Outer.Inner, Child, Box, Slotted, Choosy, Abstract])
def test_a_class_at_a_modules_top_level_has_a_tag_that_leads_back(cls):
    tag = type_tag(cls)
    assert tag == f"{cls.__module__}:{cls.__qualname__}"
    assert resolve_type(tag) is cls


def test_tags_are_module_and_qualname():
    assert type_tag(Outer.Inner) == f"{HERE}:Outer.Inner"


@pytest.mark.parametrize(
    "cls", [int, dict, Plain, Pair, OrderedDict, Undecorated, DictLike, Failure, type, enum.EnumMeta, BaseException]
)
def test_other_classes_have_none(cls):
    assert not is_storable_type(cls)
    assert type_tag(cls) is None


def test_a_class_made_in_a_function_or_replaced_has_none():
    @dataclass
    class Local:
        a: int

    assert is_storable_type(Local)
    assert type_tag(Local) is None
    assert "<locals>" in tag_of(Local)
    assert type_tag(make_dataclass("Point", ["x"], namespace={"__module__": "tests.strict"})) is None


@pytest.mark.parametrize(
    "tag",
    [
        "",
        ":",
        "os",
        "os:",
        ":system",
        "os:system",
        "os:path",
        "os:path.join",
        "builtins:dict",
        "builtins:eval",
        "subprocess:Popen",
        "tests.strict:Nothing",
        "tests.strict:Point.x",
        "tests.strict:Color.RED",
        "tests.strict:Point.__class__",
        "tests.strict:strictly_equal.__globals__",
        "not_imported:Thing",
        "tests.strict:",
        "tests.strict:.",
        "tests.strict:Point:",
    ],
)
def test_nothing_else_resolves(tag):
    assert resolve_type(tag) is None


def test_nothing_is_imported():
    assert "this" not in sys.modules
    assert resolve_type("this:d") is None
    assert "this" not in sys.modules


def test_no_code_of_a_module_or_an_object_in_it_runs(monkeypatch):
    def boom(*_: object) -> Any:
        raise AssertionError("ran")

    class Trap:
        __class__ = property(boom)
        __getattr__ = boom

    class Lazy(types.ModuleType):
        __getattribute__ = boom

    module = types.ModuleType("trapped")
    module.__dict__.update(__getattr__=boom, trap=Trap())
    monkeypatch.setitem(sys.modules, "trapped", module)
    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    monkeypatch.setitem(sys.modules, "odd", Trap())
    monkeypatch.setitem(sys.modules, "gone", None)
    for tag in ["trapped:Thing", "trapped:trap", "trapped:trap.x", "lazy:Thing", "odd:Thing", "gone:Thing"]:
        assert resolve_type(tag) is None


def test_enum_members_go_by_name_and_flags_by_bits():
    assert enum_key(Color.CRIMSON) == "RED"
    assert enum_key(Level.HIGH) == "HIGH"
    assert enum_key(Right.READ | Right.WRITE) == 3
    for member in [*Color, *Level, *Right, Right(0), Right(3)]:
        assert rebuild_enum(type(member), enum_key(member)) is member


@pytest.mark.parametrize(
    ("cls", "key"), [(Color, "BLUE"), (Color, 1), (Color, None), (Color, []), (Right, 8), (Right, "BLUE"), (Right, 1.0)]
)
def test_a_member_that_is_gone_is_an_unknown_type(cls, key):
    with pytest.raises(UnknownTypeError, match="no member"):
        rebuild_enum(cls, key)


def test_rebuilding_an_enum_runs_no_user_code():
    class Guess(enum.Enum):
        ONE = 1

        @classmethod
        def _missing_(cls, value: object) -> Any:
            raise AssertionError("ran")

    with pytest.raises(UnknownTypeError):
        rebuild_enum(Guess, "TWO")


@pytest.mark.parametrize(
    "value",
    [
        Point(1, 2),
        Note("a", [1]),
        Child(1),
        Box(3),
        Box[int](3),
        Slotted(4),
        Choosy(5),
        Area(6),
        Outer.Inner(),
        Abstract(1),
    ],
)
def test_fields_rebuild_the_instance(value):
    stored = dataclass_fields(value)
    again = rebuild_dataclass(type(value), stored)
    assert type(again) is type(value)
    assert again == value
    assert dataclass_fields(again) == stored


def test_neither_init_nor_post_init_runs():
    again = rebuild_dataclass(Impure, {"a": 1})
    assert again.a == 1
    assert not hasattr(again, "extra")


def test_a_cached_property_is_not_stored_and_comes_anew():
    value = Area(3)
    assert value.area == 9
    assert dataclass_fields(value) == {"side": 3, "_hidden": 3, "later": 7}
    assert rebuild_dataclass(Area, dataclass_fields(value)).area == 9


def test_what_would_be_lost_is_refused():
    with pytest.raises(UnserializableError, match=r"^state\.x: attribute 'extra' .* would be lost") as caught:
        dataclass_fields(Impure(1), "state.x")
    assert caught.value.path == "state.x"
    unset = Slotted(1)
    del unset.a
    with pytest.raises(UnserializableError, match=r"field 'a' .* is not set"):
        dataclass_fields(unset)


def test_a_field_that_was_not_stored_takes_its_default():
    first = rebuild_dataclass(Note, {"text": "a"})
    assert first == Note("a")
    assert rebuild_dataclass(Note, {"text": "a"}).tags is not first.tags


def test_fields_that_do_not_fit_the_class_are_an_unknown_type():
    with pytest.raises(UnknownTypeError, match="no field 'z' any more"):
        rebuild_dataclass(Point, {"x": 1, "z": 2})
    with pytest.raises(UnknownTypeError, match="'x' was not stored and has no default") as caught:
        rebuild_dataclass(Point, {"y": 1})
    assert caught.value.tag == "tests.strict:Point"
