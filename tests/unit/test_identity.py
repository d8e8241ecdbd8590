"""Objects are told from others by identity alone, whatever they say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from eventlog import identity
from eventlog.identity import KnownObjects


class Agreeable:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


@pytest.fixture(params=["_addresses", "_addresses_asked"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_addresses", getattr(identity, request.param))


def test_both_ways_say_the_same_of_every_length() -> None:
    for n in (*range(40), 1000):
        some: list[Any] = [object() for _ in range(n)]
        assert identity._addresses(some) == identity._addresses_asked(some)
        assert len({identity._addresses([one]) for one in some}) == n


@pytest.mark.parametrize("some", [[], [1], ["a", None, 2.5], [[], {}, ()], [Agreeable(), Agreeable()]])
def test_the_same_objects_in_the_same_order(some: list[Any]) -> None:
    kept = KnownObjects(list(some))
    assert kept.are(some)
    assert kept.are(list(some))
    assert not kept.are([*some, None])
    assert not kept.are([object(), *some[1:]])
    assert not some or not kept.are(some[:-1])
    assert len(some) < 2 or not kept.are(some[::-1])


@pytest.mark.parametrize("some", [[], [1], ["a", None, 2.5], [[], {}, ()], [Agreeable(), Agreeable()]])
def test_others_begin_with_these(some: list[Any]) -> None:
    kept = KnownObjects(list(some))
    assert kept.begin(some)
    assert kept.begin([*some, None, *some])
    assert not some or not kept.begin(some[:-1])
    assert not some or not kept.begin([object(), *some])
    assert not some or not kept.begin([*some[:-1], object()])


def test_equal_ones_are_others() -> None:
    assert not KnownObjects([[1]]).are([[1]])
    assert not KnownObjects([Agreeable()]).are([Agreeable()])
    assert not KnownObjects([1]).are([True])


def test_what_is_added_is_kept_too() -> None:
    a, b, c = object(), object(), object()
    kept = KnownObjects([a])
    assert kept.are([a])
    kept.add(KnownObjects([b]))
    kept.add(KnownObjects([c, a]))
    assert kept.are([a, b, c, a])
    assert not kept.are([a, b, a, c])
    kept.add(KnownObjects([]))
    assert kept.are([a, b, c, a])


def test_how_long_a_run_is() -> None:
    for n in (0, 1, 5, 15, 16, 17, 40, 500):
        some: list[Any] = [object() for _ in range(n)]
        for same in {0, 1, n // 2, n - 1, n} & {*range(n + 1)}:
            others = [*some[:same], *(object() for _ in range(n - same))]
            assert KnownObjects(some).run(0, KnownObjects(others), 0) == same
            assert KnownObjects(["a", *some]).run(1, KnownObjects(["b", "c", *others]), 2) == same
            assert KnownObjects(some).run(0, KnownObjects(others[:same]), 0) == same
