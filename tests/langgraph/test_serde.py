"""Scalars are written without LangGraph's serializer, and to the very bytes that it makes of them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from eventlog import UnserializableError
from savers.langgraph.serde import SerdeCodec, strict_serializer
from savers.tagged import split, tagged

UUID = "52b959dd-3f35-4b25-ac85-1365270453aa"
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


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage("hello", id=UUID),
        AIMessage("hello", id=UUID),
        AIMessage("", id=UUID, tool_calls=[{"name": "search", "args": {"q": 1}, "id": "c"}]),
        ToolMessage("hello", tool_call_id="c", id=UUID),
        SystemMessage("hello"),
    ],
    ids=["human", "ai", "tool calls", "tool", "system"],
)
def test_a_message_is_two_thirds_of_its_frame_shorter_and_reads_back_equal(message: BaseMessage) -> None:
    encoded = OURS.encode([message])
    theirs = THEIRS.dumps_typed([message])
    said = len(UUID) + len("hello")
    assert len(encoded) - said < (len(theirs[1]) - said) * 2 / 3
    assert OURS.decode(encoded) == [message]
    assert split(encoded) == theirs
