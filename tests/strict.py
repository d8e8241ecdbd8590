"""What "equal" means here, and values to try it on.

`strictly_equal` is the promise of design.md, section 5: the same types at every depth, the same dict order, the same
float bits. `values` draws from everything that every codec of the project must carry.
"""

import enum
import re
import struct
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st


def named(value: Any) -> str:
    """A test's name for a value, the same in each process: without the address that some have."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:30]


class Color(enum.Enum):
    RED = 1
    GREEN = "green"
    CRIMSON = 1  # noqa: PIE796 - an alias


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Point:
    """Hashable, with slots."""

    x: Any
    y: Any = 0


@dataclass
class Note:
    text: str
    tags: list[Any] = field(default_factory=list)
    about: Any = None


def strictly_equal(a: Any, b: Any) -> bool:
    """Whether nobody could tell `a` from `b` except by identity."""
    if type(a) is not type(b):
        return False
    for types, equal in _RULES:
        if isinstance(a, types):
            return equal(a, b)
    return _same_fields(a, b) if is_dataclass(a) else bool(a == b)


def _all_equal(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(map(strictly_equal, a, b))


def _same_members(a: Any, b: Any) -> bool:
    left = list(b)
    for member in a:  # one by one: two NaN are two members
        index = next((i for i, other in enumerate(left) if strictly_equal(member, other)), None)
        if index is None:
            return False
        del left[index]
    return not left


def _same_fields(a: Any, b: Any) -> bool:
    return all(strictly_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def _same_moment(a: Any, b: Any) -> bool:
    naive = a.replace(tzinfo=None, fold=0) == b.replace(tzinfo=None, fold=0)
    return naive and a.fold == b.fold and strictly_equal(a.tzinfo, b.tzinfo)


_RULES = [
    (enum.Enum, lambda a, b: a is b),
    (float, lambda a, b: struct.pack(">d", a) == struct.pack(">d", b)),
    (Decimal, lambda a, b: a.as_tuple() == b.as_tuple()),
    ((list, tuple), _all_equal),
    ((set, frozenset), _same_members),
    (dict, lambda a, b: _all_equal(list(a.items()), list(b.items()))),
    ((datetime, time), _same_moment),
    (timezone, lambda a, b: (a.utcoffset(None), a.tzname(None)) == (b.utcoffset(None), b.tzname(None))),
    (ZoneInfo, lambda a, b: a.key == b.key),
]

_SHOWY_KEYS = ["$type", "lc", "type", "id", "$redacted", "value", "", "a.b", "$type$type", "__class__"]


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(_SHOWY_KEYS)


def integers() -> st.SearchStrategy[int]:
    edges = st.builds(
        lambda sign, bits, more: sign * (1 << bits) + more,
        st.sampled_from([1, -1]),
        st.sampled_from([31, 53, 63, 64, 2000, 9000]),
        st.sampled_from([-1, 0, 1]),
    )
    return st.integers() | edges


def zones() -> st.SearchStrategy[Any]:
    offsets = st.timedeltas(min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23, minutes=59))
    named = st.builds(timezone, offsets, st.sampled_from(["CET", "", "Ünamed", "UTC"]))
    keys = ["Europe/Berlin", "UTC", "America/New_York", "Asia/Kathmandu"]
    return st.just(UTC) | st.builds(timezone, offsets) | named | st.sampled_from(keys).map(ZoneInfo)


def moments() -> st.SearchStrategy[Any]:
    zone, fold = st.none() | zones(), st.sampled_from([0, 1])
    return st.builds(lambda m, z, f: m.replace(tzinfo=z, fold=f), st.datetimes() | st.times(), zone, fold)


def hashable_atoms() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        integers(),
        st.floats(),
        st.sampled_from(
            [-0.0, float("inf"), float("-inf"), float("nan"), struct.unpack(">d", b"\xff\xf8" + b"\1" * 6)[0]]
        ),
        texts(),
        st.binary(max_size=8),
        st.dates(),
        st.timedeltas(),
        st.uuids(),
        st.decimals(allow_nan=False) | st.sampled_from([Decimal("1e999999"), Decimal("-0.00"), Decimal("NaN")]),
        st.sampled_from([*Color, *Level, *Word]),
        # Two moments may be equal with different zones, so one of a kind stands in keys.
        st.datetimes(),
    )


def hashables() -> st.SearchStrategy[Any]:
    """What may stand in a set or be a dict's key."""
    return st.recursive(
        hashable_atoms(),
        lambda inner: (
            st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | st.builds(Point, inner, inner)
        ),
        max_leaves=4,
    )


def values(max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """Everything supported, nested."""
    atoms = hashable_atoms() | moments() | st.binary(max_size=8).map(bytearray) | st.just(Decimal("sNaN123"))
    return st.recursive(
        atoms | st.sets(hashables(), max_size=3) | st.frozensets(hashables(), max_size=3),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(texts(), inner, max_size=4),
            st.dictionaries(hashables(), inner, max_size=3),
            st.builds(Point, inner, inner),
            st.builds(Note, texts(), st.lists(inner, max_size=2), inner),
        ),
        max_leaves=max_leaves,
    )


def json_values() -> st.SearchStrategy[Any]:
    """What JSON has itself."""
    atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(), inner, max_size=4), max_leaves=20
    )
