"""What differs between two lists: the edits make one of the other, and there are few of them."""

from __future__ import annotations

from itertools import islice, pairwise, takewhile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eventlog.align import Edit, Sides, edits, spliced


def found(old: list[Any], new: list[Any], token: Any = lambda item: item) -> list[Edit]:
    sides = Sides((len(old), len(new)), lambda i, j: old[i] == new[j], lambda i: token(old[i]), lambda j: token(new[j]))
    plain = edits(sides)
    assert edits(sides._replace(run=runs(old, new), run_back=runs(old, new, -1))) == plain
    return plain


def runs(old: list[Any], new: list[Any], way: int = 1) -> Any:
    """Up to three items are known at once to be the same."""

    def run(i: int, j: int) -> int:
        pairs = zip(old[i::way], new[j::way], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], islice(pairs, 3)))

    return run


def check(old: list[Any], new: list[Any], token: Any = lambda item: item) -> list[Edit]:
    changes = found(old, new, token)
    assert spliced(old, [(e.start, e.removed, new[e.begin : e.begin + e.added]) for e in changes]) == new
    assert spliced(new, [(e.begin, e.added, old[e.start : e.start + e.removed]) for e in changes]) == old
    assert all(edit.removed or edit.added for edit in changes)
    for one, other in pairwise(changes):
        assert one.start + one.removed < other.start
        assert other.start - one.start - one.removed == other.begin - one.begin - one.added
    return changes


lists = st.lists(st.integers(0, 5), max_size=12) | st.lists(st.integers(0, 99), max_size=40)


@given(lists, lists)
def test_edits_make_one_list_of_the_other(old: list[int], new: list[int]) -> None:
    check(old, new)


@given(lists, lists)
def test_tokens_only_propose(old: list[int], new: list[int]) -> None:
    check(old, new, lambda _: 1)
    check(old, new, lambda item: item // 3)


@given(st.lists(st.integers(), max_size=60), st.data())
def test_a_list_with_edits_far_apart(old: list[int], data: Any) -> None:
    new = list(old)
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(new)))
        new[start : start + data.draw(st.integers(0, 3))] = data.draw(st.lists(st.integers(), max_size=3))
    check(old, new)


def test_each_edit_is_one_and_what_lies_between_stays() -> None:
    old = list(range(10_000))
    new = [-1, *old[:50], *old[60:4000], -2, *old[4001:9000], -3, -4, *old[9000:]]
    assert check(old, new) == [(0, 0, 0, 1), (50, 10, 51, 0), (4000, 1, 3991, 1), (9000, 0, 8991, 2)]


def test_the_same_list_has_none() -> None:
    assert check([1, 2], [1, 2]) == check([], []) == []


def test_it_looks_at_few_items_where_nothing_is_the_same() -> None:
    looks = 0

    def token(item: int) -> int:
        nonlocal looks
        looks += 1
        return item

    assert check(list(range(100_000)), list(range(100_000, 200_000)), token) == [(0, 100_000, 0, 100_000)]
    check(
        [n if n % 3 else -n for n in range(1, 100_000)], [n if n % 3 else n * 200_000 for n in range(1, 100_000)], token
    )
    assert looks < 20_000
