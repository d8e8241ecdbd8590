"""Scalars are written without LangGraph's serializer, and to the very bytes that it makes of them."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from eventlog import UnserializableError
from savers.langgraph.serde import SerdeCodec, strict_serializer
from savers.tagged import tagged

THEIRS = strict_serializer()
OURS = SerdeCodec(THEIRS)
bits = st.binary(min_size=8, max_size=8).map(lambda data: struct.unpack("d", data)[0])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**66), 2**66), bits, st.text(st.characters()))


@given(scalars)
@example("a\ud800")
@example("a" * 65_536)
@example(2**64 - 1)
@example(2**64)
@example(-(2**63) - 1)
def test_a_scalar_has_the_bytes_that_langgraphs_serializer_makes(value: Any) -> None:
    try:
        expected = tagged(*THEIRS.dumps_typed(value))
    except TypeError:
        expected = b""
    try:
        assert OURS.encode(value) == expected
    except UnserializableError:
        assert not expected


class Shouting(JsonPlusSerializer):
    """A serializer of a user's, which has its own way with strings."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "shout", str(obj).upper().encode()


def test_a_serializer_of_the_users_is_asked_about_scalars_too() -> None:
    codec = SerdeCodec(Shouting())
    assert [codec.encode(value) for value in ("a", 1, None)] == [
        tagged("shout", data) for data in (b"A", b"1", b"NONE")
    ]
