"""A list in pieces is the list that one gets by changing it in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from eventlog import delta
from eventlog.codec import MSGPACK
from eventlog.pieces import Pieces
from eventlog.shadow import shadow_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@given(st.lists(st.integers(), max_size=20), st.data())
def test_any_splices(values: list[int], data: Any) -> None:
    plain, pieces = list(values), Pieces(values)
    for _ in range(data.draw(st.integers(0, 100))):
        start = data.draw(st.integers(0, len(plain)))
        end = data.draw(st.integers(start, min(len(plain), start + 4)))
        items = data.draw(st.lists(st.integers(), max_size=3))
        plain[start:end] = items
        pieces.put(start, end - start, items)
        assert pieces.size == len(plain)
    assert pieces.values() == plain


def window(steps: int) -> Iterator[list[Any]]:
    """A window that slides over a long row, and now and then jumps or grows."""
    values: list[Any] = list(range(300))
    yield list(values)
    for n in range(steps):
        values.append([n])
        if n % 3:
            del values[0]
        if n % 50 == 0:
            values[n % len(values)] = "other"
        if n % 99 == 0:
            values = [1, 2]
        yield list(values)


def test_replaying_many_is_applying_one_after_another() -> None:
    operations: list[tuple[int, bytes]] = []
    shadow: Any = None
    for values in window(400):
        if shadow is None:
            first, shadow = values, shadow_of(values, MSGPACK)
            continue
        write = delta.difference(shadow, values, MSGPACK, "channel")
        assert write is not None
        operations.append((write.code, write.payload))
        shadow = delta.accepted(shadow, write)
    assert {code for code, _ in operations} >= {delta.SPLICE, delta.EXTEND}
    assert delta.replayed(list(first), operations, MSGPACK) == values
