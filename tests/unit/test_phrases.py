"""What every message says is said short, and what anybody said comes back byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog import CorruptionError
from savers.phrases import lengthened, shortened
from savers.tagged import split, tagged

HUMAN = b"\xbdlangchain_core.messages.human\xacHumanMessage\x86\xa7content"
END = b"\xb3model_validate_json"
fragments = st.sampled_from(
    [HUMAN, END, b"langchain_core.messages.", b"a", b"\xc1", b"\x00", b"\xb1additional_kwargs\x80"]
)


@given(st.one_of(st.binary(), st.lists(st.one_of(fragments, st.binary(max_size=3))).map(b"".join)))
@example(HUMAN + HUMAN + END)
@example(HUMAN + b"a" * 5000)
def test_whatever_bytes_come_back_as_they_were(data: bytes) -> None:
    assert split(tagged("msgpack", data)) == ("msgpack", data)


def test_what_has_the_mark_in_it_is_not_shortened() -> None:
    assert shortened(HUMAN + b"\xc1") is None


def test_a_phrase_is_two_bytes() -> None:
    assert shortened(HUMAN + b"hello" + END) == b"\xc1\x00hello\xc1\x09"


@pytest.mark.parametrize("data", [b"\xc1", b"a\xc1\xff"])
def test_a_number_without_a_phrase_is_damage(data: bytes) -> None:
    with pytest.raises(CorruptionError, match="phrase"):
        lengthened(data)
