"""Patches: what is made of source and pieces is the target, and the pieces are clearly smaller, or there are none."""

from __future__ import annotations

import copy
import uuid
from hashlib import blake2b
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventlog.codec import MSGPACK
from eventlog.patch import behind, patch, patched
from tests.counting import patience

LONG = bytes(range(256)) * 4
LINES = b"".join(b"line %d of many that are much alike\n" % n for n in range(200))


def prose(n: int, words: int = 110) -> str:
    """Text that hardly repeats itself, 9 bytes a word."""
    return " ".join(blake2b(b"%d.%d" % (n, word), digest_size=4).hexdigest() for word in range(words))


def size(source: bytes, target: bytes) -> int | None:
    """Bytes of the pieces as they are stored, None if there are none; checks what they make."""
    pieces = patch(source, target)
    if pieces is None:
        return None
    assert patched(source, pieces) == target
    stored = msgpack.packb(pieces)
    assert patched(source, msgpack.unpackb(stored)) == target
    assert len(stored) < 0.8 * len(target)
    return len(stored)


def sized(source: Any, target: Any) -> int | None:
    return size(MSGPACK.encode(source), MSGPACK.encode(target))


@st.composite
def relatives(draw: Any) -> tuple[bytes, bytes]:
    """Two byte strings of the same few pieces, cut anywhere: overlapping, shifted, repeated, changed here and there."""
    pool = [*draw(st.lists(st.binary(min_size=20, max_size=90), min_size=1, max_size=3)), b"\0" * 60, b"ab" * 40]

    def made() -> bytearray:
        blocks = draw(st.lists(st.tuples(st.sampled_from(pool), st.integers(0, 30), st.integers(1, 4)), max_size=4))
        return bytearray(b"".join(block[cut:] * times for block, cut, times in blocks))

    source, target = made(), made() + draw(st.sampled_from([b"", b"x", b"end" * 20]))
    for _ in range(draw(st.integers(0, 3))):
        changed = draw(st.sampled_from([source, target]))
        at = draw(st.integers(0, len(changed)))
        changed[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=40))
    if draw(st.booleans()):
        target = bytearray(source[draw(st.integers(0, len(source))) :]) + target
    return bytes(source), bytes(target)


class TestAnyBytes:
    @given(relatives())
    @settings(max_examples=300, deadline=None)
    @example((LONG, LONG))
    @example((LONG, LONG[1:]))
    @example((LONG[1:], LONG))
    @example((LONG, LONG + LONG))
    @example((LONG + LONG, LONG))
    @example((b"\0" * 500, b"\0" * 499))
    @example((b"\0" * 499, b"\0" * 500))
    @example((b"ab" * 250, b"ba" * 250))
    @example((b"\0" * 100 + b"x" + b"\0" * 100, b"\0" * 50 + b"x" + b"\0" * 150))
    @example((LINES, LINES[3000:] + LINES[:3000]))
    def test_the_target_is_made_again(self, pair: tuple[bytes, bytes]) -> None:
        source, target = pair
        size(source, target)
        size(target, source)

    @given(relatives(), st.integers(0, 500))
    @settings(max_examples=150, deadline=None)
    def test_wherever_one_looks_first(self, pair: tuple[bytes, bytes], near: int) -> None:
        source, target = pair
        pieces = patch(source, target, near)
        assert pieces is None or patched(source, pieces) == target

    def test_one_after_the_other_each_is_found_behind_the_one_before(self) -> None:
        parts = [MSGPACK.encode([prose(n % 3)]) for n in range(12)]  # each is there again, and the nearest one is meant
        source, near = b"".join(part[1:] for part in parts) + b"end", 0
        for part in parts:
            pieces = patch(source, part, near)
            assert pieces is not None
            assert pieces[-2:] == [near, len(part) - 1]
            near = behind(pieces)

    @given(st.integers(0, 99), st.integers(64, 3000), st.integers(0, 60), st.integers(0, 60))
    @settings(max_examples=150, deadline=None)
    def test_what_is_held_is_found_wherever_it_lies(self, seed: int, length: int, before: int, after: int) -> None:
        around = prose(seed, length // 4).encode()
        before, after = before * length // 200, after * length // 200
        kept = around[before : len(around) - after]
        assert size(kept, around) is not None
        assert size(around, kept) is not None

    @given(relatives())
    @settings(max_examples=200, deadline=None)
    @example((b"\0" * 66 + b"\1" + b"\0" * 34 + b"\1" + b"\0" * 110, b""))
    def test_the_same_bytes_are_always_found(self, pair: tuple[bytes, bytes]) -> None:
        for data in pair:
            if len(data) >= 64:
                assert size(data, data) in range(16)

    @given(st.binary(max_size=200), st.binary(max_size=63))
    @settings(max_examples=100, deadline=None)
    def test_what_has_nothing_in_common_has_no_pieces(self, source: bytes, target: bytes) -> None:
        odd, even = bytes(byte | 1 for byte in source), bytes(byte & 0xFE for byte in target)
        assert patch(odd * 3, even * 3) is None

    @pytest.mark.parametrize(
        ("source", "target"),
        [
            (b"", b""),
            (b"", LONG),
            (LONG, b""),
            (LONG, LONG[:10]),
            (LONG[:10], LONG),
            (b"a", b"a"),
            (LONG[:40], LONG[:40] + bytes(500)),  # what is the same is too little of it
            (LONG[:100], bytes(300) + LONG[:100] + bytes(300)),
        ],
    )
    def test_none_where_nothing_is_gained(self, source: bytes, target: bytes) -> None:
        assert patch(source, target) is None

    def test_large_and_repetitive_ones_take_no_long_time(self) -> None:
        with patience():
            assert size(b"\0" * 4_000_000, b"\0" * 3_999_999 + b"x") is not None
            assert size(b"ab" * 2_000_000, b"b" + b"ab" * 1_999_999) is not None
            assert patch((b"\0" * 23 + b"x") * 100_000, b"\0" * 24 + b"y" * 1_000_000) is None


def message(n: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "ai",
        "content": f"{n}: {prose(n)}",
        "name": None,
        "id": None,
        "meta": {"n": n, "x": [1.5]},
        **fields,
    }


class TestTypical:
    """What a task wrote and what the event then says of it."""

    def test_the_same(self) -> None:
        assert sized(message(1), message(1)) in range(12)

    @pytest.mark.parametrize("field", ["name", "id"])
    def test_a_field_that_was_nil_is_a_string_by_then(self, field: str) -> None:
        known = message(1, **{field: str(uuid.UUID(int=5))})
        assert sized(known, message(1)) in range(60)
        assert sized(message(1), known) in range(100)

    def test_a_field_in_the_middle(self) -> None:
        old, new = ({"content": prose(1), "id": each, "call": prose(2)} for each in (None, str(uuid.UUID(int=5))))
        assert sized(new, old) in range(60)
        assert sized(old, new) in range(100)

    def test_fields_before_and_behind(self) -> None:
        known = message(1, name="n" * 40, id=str(uuid.UUID(int=5)))
        assert sized(known, message(1)) in range(80)
        assert sized(message(1), known) in range(150)

    def test_in_a_long_list_one_has_changed(self) -> None:
        old = [message(n) for n in range(20)]
        half = len(MSGPACK.encode(old)) // 2
        for index in range(20):
            new = copy.deepcopy(old)
            new[index]["id"] = str(uuid.UUID(int=5))
            assert sized(old, new) in range(half), index
            assert sized(new, old) in range(half), index

    def test_an_event_that_holds_what_two_tasks_wrote(self) -> None:
        for n in range(2):
            assert sized([message(0), message(1)], [message(n)]) in range(20)
            assert sized([message(0), message(1)], message(n)) in range(20)

    def test_an_event_that_holds_half_of_it(self) -> None:
        assert sized(message(0), [message(0), "b"]) in range(20)
        assert sized([message(0)], {"messages": [message(0)], "next": None}) in range(50)

    def test_a_merge_of_what_was_set(self) -> None:
        assert sized(["k", 5, MSGPACK.encode(message(0))], {"k": message(0)}) in range(20)

    def test_text_put_at_the_end(self) -> None:
        assert sized(prose(0), prose(0) + "more") in range(30)
        assert sized(prose(0) + "more", prose(0)) in range(30)

    def test_rows_that_are_much_alike(self) -> None:
        rows = [{"identifier": n, "address": f"https://example.org/some/path/{n}", "rank": n / 7} for n in range(30)]
        assert sized(rows, rows) in range(12)
        assert sized({"results": rows, "next": None}, rows) in range(12)
        assert sized(rows, {"results": rows, "next": None}) in range(50)
        assert sized(rows + rows[::-1], rows[::-1]) in range(500)

    def test_a_phrase_over_and_over(self) -> None:
        for one in ("over and over ", "The same sentence, with little news in it, again. "):
            assert sized(one * 40, one * 40) is not None
            assert sized(["a", one * 40], [one * 40, "a"]) is not None

    def test_something_else(self) -> None:
        assert sized(message(0), {"content": "other " * 100}) is None
        assert sized(message(0), list(range(300))) is None
