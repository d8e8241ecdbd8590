import pytest

from eventlog.errors import EventLogError, InvalidIdError
from eventlog.ids import check_id, packed_id, unpacked_id


class LikeText(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "good",
    ["a", "../../etc/passwd", "C:\\x", "a b", "é", "e\u0301", "%", "*", "🦜", "x" * 255, "é" * 127, "\u00a0", "'; --"],
)
def test_ordinary_strings_are_ids_and_come_back_as_they_are(good):
    assert check_id("thread_id", good) is good


@pytest.mark.parametrize(
    "bad", [None, True, 0, 1.0, b"a", bytearray(b"a"), {"$gt": ""}, ["a"], ("a",), object(), LikeText("a")]
)
def test_other_types_are_refused(bad):
    with pytest.raises(InvalidIdError, match=r"^thread_id: must be a str, not"):
        check_id("thread_id", bad)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "empty"),
        ("a\x00b", r"U\+0000"),
        ("\x1b[2J", r"U\+001B"),
        ("a\n", r"U\+000A"),
        ("a\x7f", r"U\+007F"),
        ("a\x9b", r"U\+009B"),
        ("a\ud800", "surrogate"),
        ("\udfff", "surrogate"),
        ("x" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("x" * 10_000_000, "255 bytes"),
    ],
)
def test_strings_that_no_key_or_terminal_should_meet_are_refused(bad, why):
    with pytest.raises(InvalidIdError, match=why) as caught:
        check_id("run name", bad)
    assert caught.value.what == "run name"
    assert isinstance(caught.value, EventLogError | ValueError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        ("channel" + "x" * 300, "'channel" + "x" * 33 + "'... is longer than 255 bytes"),
        ("é" * 200, "'" + "é" * 40 + "'... is longer than 255 bytes"),
        ("\x1b[2J", "'\\x1b[2J' holds the control character U+001B"),
        ("a\ud800", "'a\\ud800' holds a lone surrogate, which UTF-8 cannot carry"),
        ("", "must not be empty"),
    ],
)
def test_the_message_says_which_it_is_by_how_it_begins(bad, shown):
    with pytest.raises(InvalidIdError) as caught:
        check_id("channel", bad)
    assert str(caught.value) == f"channel: {shown}"
    assert str(caught.value).isprintable()


def test_the_limit_is_the_callers():
    assert check_id("namespace", "x" * 4096, max_bytes=4096)
    with pytest.raises(InvalidIdError, match="3 bytes"):
        check_id("namespace", "éé", max_bytes=3)


UUID = "0f5668e0-6d87-4122-e094-2ffd0b098f95"


def test_an_id_that_is_a_uuid_takes_16_bytes():
    assert packed_id(UUID) == bytes.fromhex(UUID.replace("-", ""))
    assert unpacked_id(packed_id(UUID)) == UUID


@pytest.mark.parametrize(
    "other",
    [
        UUID.upper(),
        UUID.replace("-", ""),
        UUID.replace("6d87", "6-87"),
        UUID.replace("6d87", "6 87"),
        UUID.replace("0f5668e0", "0f-66-e0"),
        UUID.replace("0f5668e0", "0f 66 e0"),
        UUID.replace("-6d87-", "6d87--"),
        UUID.replace("0", "g"),
        UUID.replace("0", "\u0660"),
        "-" * 36,
        UUID + "0",
        "",
    ],
)
def test_an_id_that_is_nearly_one_stays_as_it_is(other):
    assert packed_id(other) == other
    assert unpacked_id(other) == other
