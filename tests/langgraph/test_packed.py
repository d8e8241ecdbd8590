"""What the saver packs comes back exactly: the same value of the same type, whatever it looks like."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.base.id import uuid6

from eventlog import packed_id
from savers.langgraph import packed as module
from savers.langgraph.packed import (
    long_parent,
    long_time,
    long_version,
    new_version,
    next_version,
    packed,
    short_parent,
    short_time,
    short_version,
    unpacked,
)
from savers.tagged import OWN, split
from tests.strict import json_values, named, strictly_equal, values

NOT_PLAIN = (TypeError, ValueError, OverflowError)


def opened(data: bytes) -> Any:
    tag, payload = split(data)
    assert tag == OWN
    return unpacked(payload)


def version_back(version: Any) -> Any:
    return long_version(opened(packed(short_version(version))))


def time_back(time: str, own: str = "a") -> str:
    return long_time(opened(packed(short_time(time, own))), own)


def parent_back(parent: str, own: str) -> str:
    return long_parent(opened(packed(short_parent(parent, own))), own)


# Versions ---------------------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(0, 99), st.integers(0, 10**32 - 1), st.sampled_from([2**63 - 1, 2**63, 2**64, 2**65]))
fractions = st.floats(0, 1, exclude_max=True) | st.integers(0, 2**53 - 1).map(lambda bits: bits / 2**53)
upstreams = st.builds(lambda number, rest: f"{number:032}.{rest:016}", numbers, fractions)
ours = st.builds(lambda number, rest: f"{number:032}.{rest:010}", numbers, st.integers(0, 2**34))
nearly = st.from_regex(r"\A\d{31,33}\.(\d{9,17}|0\.\d{0,20}|\d\.\d+|0\.\d+e-\d+)\Z")
packable = st.integers(-(2**63), 2**64 - 1)
versions = st.one_of(
    upstreams, ours, nearly, st.text(st.characters(exclude_categories=["Cs"])), packable, st.floats(), st.booleans()
)


@given(versions)
@example(f"{7:032}.{5e-05:016}")
@example(f"{7:032}.{0.1:016}")
@example(f"{7:032}.{0.0:016}")
@example(f"{2**63:032}.{1:010}")
@example("\u0660" * 32 + ".0.5")
@example("0" * 32 + ".0000000001\n")
@example("-" + "0" * 31 + ".0000000001")
@example("")
def test_a_version_comes_back(version):
    assert strictly_equal(version_back(version), version)
    assert strictly_equal(version_back(version), version), "remembered"


@given(st.integers())
@example(2**64)
@example(-(2**63) - 1)
@example(10**300)
def test_a_huge_number_comes_back_or_is_refused(version):
    with suppress(*NOT_PLAIN):
        assert strictly_equal(version_back(version), version)


@given(st.permutations([1, True, 1.0, "1", 0, False, 0.0, -0.0, "0", None]))
def test_versions_that_python_calls_equal_are_not_mixed_up(mixed):
    assert all(strictly_equal(version_back(version), version) for version in mixed)
    assert len({packed(short_version(version)) for version in mixed}) == len(mixed)


@given(st.integers(0, 10**32))
@example(2**64)
def test_a_new_version_comes_back(number):
    """As many steps as a version has digits for."""
    version = new_version(number)
    assert re.fullmatch(r"\d{32,}\.\d{10}", version)
    assert int(version.split(".")[0]) == number
    assert version_back(version) == version


@given(st.integers(0, 2**63 - 1))
def test_a_new_version_is_packed_as_one_that_was_read(number):
    version = new_version(number)
    made = packed(short_version(version))
    module._shorts.clear()
    assert packed(short_version(version)) == made
    assert len(made) <= 1 + 1 + 9 + 5


def test_new_versions_sort_as_their_numbers_and_differ():
    made = [new_version(number) for number in (0, 1, 9, 10, 2**40, 2**40)]
    assert len(set(made)) == len(made)
    assert made[:-1] == sorted(made[:-1])


@given(versions)
def test_the_next_version_is_one_more_whether_its_number_is_remembered_or_not(version):
    try:
        number = int(str(version).split(".")[0])
    except ValueError:
        return
    for _ in range(2):
        following = next_version(version)
        assert int(following.split(".")[0]) == number + 1
        assert int(next_version(following).split(".")[0]) == number + 2
        short_version(version)


def test_more_versions_than_are_remembered():
    made = [f"{number:032}.{number:010}" for number in range(3 * module._KEPT)]
    assert [version_back(version) for version in made] == made
    assert len(module._shorts) <= module._KEPT


def test_the_usual_versions_take_few_bytes():
    assert len(packed(short_version(f"{1000:032}.{0.7364712141640124:016}"))) <= 16
    assert len(packed(short_version(f"{1000:032}.{123456789:010}"))) <= 12


# Times ------------------------------------------------------------------------------------------------------------

YEARS = (datetime(1970, 1, 1), datetime(2199, 12, 31, 23, 59, 59, 999_999))  # noqa: DTZ001 (the strategy adds the zone)
zones = st.timezones() | st.just(UTC) | st.none()
moments = st.datetimes(timezones=zones).map(datetime.isoformat)
in_utc = st.datetimes(*YEARS, timezones=st.just(UTC))
written = st.sampled_from(["seconds", "milliseconds", "microseconds", "auto"])
nearly_times = st.builds(
    lambda time, change: change(time.isoformat()),
    in_utc,
    st.sampled_from(
        [
            lambda time: time.replace("+00:00", "Z"),
            lambda time: time.replace("T", " "),
            lambda time: time.replace("+00:00", "-00:00"),
            lambda time: time[:10],
            lambda time: time + " ",
            lambda time: time.replace("-", ""),
        ]
    ),
)
other_texts = st.text(st.characters(exclude_categories=["Cs"])) | st.integers().map(str)


uuids6 = st.builds(lambda tick, rest: str(uuid6_at(tick, rest)), st.integers(0, 2**60 - 1), st.integers(0, 2**62 - 1))
IDS_NEAR = [str(uuid6(clock_seq=step)) for step in range(-2, 30)]
uuids = st.uuids().map(str)
ids = uuids6 | st.sampled_from(IDS_NEAR) | uuids | uuids.map(str.upper) | st.text()
SINCE_1582 = 0x01B21DD213814000


def uuid6_at(tick: int, rest: int = 0) -> UUID:
    """The id of version 6 that is made at a tick of 100 ns since 1582."""
    return UUID(int=(tick >> 12) << 80 | 6 << 76 | (tick & 0xFFF) << 64 | 2 << 62 | rest)


@given(moments | nearly_times | st.builds(datetime.isoformat, in_utc, timespec=written) | other_texts, ids)
@example("0001-01-01T00:00:00+00:00", "a")
@example("9999-12-31T23:59:59.999999+00:00", str(uuid6_at(0)))
@example("1969-12-31T23:59:59.999999+00:00", str(uuid6_at(SINCE_1582)))
@example("1970-01-01T00:00:00+00:00", IDS_NEAR[0])
@example("1970-01-01T00:35:47.483647+00:00", IDS_NEAR[0])
@example("2200-01-01T00:00:00+00:00", str(uuid6_at(2**60 - 1)))
@example("2016-12-31T23:59:60+00:00", "a")
@example("2026-W01-1", "a")
@example("", "")
def test_a_time_comes_back(time, own):
    assert strictly_equal(time_back(time, own), time)


def test_the_time_at_which_the_id_was_made_takes_few_bytes():
    own, time = str(uuid6(clock_seq=3)), datetime.now(UTC).isoformat()
    assert len(packed(short_time(time, own))) <= 6
    assert time_back(time, own) == time


MINUTE = "2026-11-26T12:34:"
tails = st.one_of(
    st.builds("{:02}.{:06}+00:00".format, st.integers(0, 99), st.integers(0, 999_999)),
    st.text("0123456789+-:. _\u0660", min_size=14, max_size=16),
    st.builds("{}+00:00".format, st.text("0123456789+-_. \u0661", min_size=9, max_size=9)),
)


@given(st.lists(tails, min_size=1, max_size=4), st.sampled_from(IDS_NEAR))
@example(["05.000001+00:00", "05.000000+00:00", "60.000001+00:00", "+5.000001+00:00"], IDS_NEAR[0])
@example(["59.999999+00:00", "\u0660\u0660.000001+00:00", "1_.000001+00:00", "05.00_001+00:00"], IDS_NEAR[0])
def test_times_within_a_minute_that_is_known_come_back(ends, own):
    short_time(MINUTE + "00.000001+00:00", own)
    assert [time_back(MINUTE + end, own) for end in ends] == [MINUTE + end for end in ends]
    module._minutes.clear()
    assert [time_back(MINUTE + end, own) for end in ends] == [MINUTE + end for end in ends]


@pytest.mark.parametrize("since", [-(2**31), 1 - 2**31, -1, 0, 1, 2**31 - 1, 2**31])
def test_a_time_near_the_ids_comes_back(since):
    moment = datetime(2026, 11, 26, 12, 0, 0, 5, UTC)
    own = str(uuid6_at(SINCE_1582 + (int(moment.timestamp()) * 1_000_000 + 5 - since) * 10))
    assert (abs(short_time(moment.isoformat(), own)) < 2**31) == (abs(since) < 2**31)
    assert time_back(moment.isoformat(), own) == moment.isoformat()


# Parents ----------------------------------------------------------------------------------------------------------


@given(ids, ids)
def test_the_id_of_a_parent_comes_back(parent, own):
    assert parent_back(parent, own) == parent
    assert parent_back(own, own) == own


def test_a_parent_made_just_before_takes_fewer_bytes_than_its_id():
    assert len(packed(short_parent(IDS_NEAR[0], IDS_NEAR[1]))) < len(packed(packed_id(IDS_NEAR[0])))
    assert parent_back(IDS_NEAR[0], IDS_NEAR[1]) == IDS_NEAR[0]


@given(in_utc)
@example(datetime(2109, 11, 4, 21, 40, 29, 877_669, UTC))
@example(datetime(2026, 1, 1, tzinfo=UTC))
def test_a_usual_time_is_a_number_and_comes_back_to_the_microsecond(moment):
    assert type(short_time(moment.isoformat(), "a")) is int
    assert time_back(moment.isoformat()) == moment.isoformat()


def test_neighbors_stay_apart_in_every_year():
    """A float of seconds has no room for microseconds at some time; whatever is counted in has to."""
    tick = timedelta(microseconds=1)
    for year in range(1970, 2200):
        times = [(datetime(year, 7, 1, tzinfo=UTC) + n * tick).isoformat() for n in range(1, 40)]
        assert [time_back(time) for time in times] == times


# Values -----------------------------------------------------------------------------------------------------------


def comes_back_or_is_refused(value: Any) -> None:
    try:
        data = packed(value)
    except NOT_PLAIN:
        return
    assert strictly_equal(opened(data), value)


def without_bytearrays(value: Any) -> bool:
    """They come back as bytes, as from upstream's serializer."""
    return "bytearray(" not in repr(value)


@given(values().filter(without_bytearrays))
def test_a_value_comes_back_or_is_refused(value):
    comes_back_or_is_refused(value)


@given(json_values())
def test_plain_values_come_back(value):
    comes_back_or_is_refused(value)


@given(st.dictionaries(st.text("ab"), versions, max_size=4))
def test_what_a_node_has_seen_comes_back(seen):
    shorts = opened(packed({channel: short_version(version) for channel, version in seen.items()}))
    assert strictly_equal({channel: long_version(short) for channel, short in shorts.items()}, seen)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [(1,), [1, (2,)], {"a": (1,)}, {1, 2}, Text("x"), {Text("x"): 1}, datetime(2026, 1, 1, tzinfo=UTC), object()],
    ids=named,
)
def test_what_would_come_back_as_something_else_is_refused(value):
    with pytest.raises(NOT_PLAIN):
        packed(value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800"], ids=ascii)
def test_after_a_refusal_the_next_one_is_packed_as_ever(value):
    before = packed([1, "a"])
    for pack in (packed, packed):
        with pytest.raises(NOT_PLAIN):
            pack(["x" * 100, value])
    assert packed([1, "a"]) == before


def test_many_threads_pack_at_once():
    def work(me: int) -> bool:
        mine = [f"{number:032}.{me * 100_000 + number:010}" for number in range(3000)]
        return all(version_back(version) == version for version in mine)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
