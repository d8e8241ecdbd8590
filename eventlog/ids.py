"""What may be a name or an id.

Owns the one rule for strings that outsiders choose (names of runs, branches and channels, ids of events, threads,
checkpoints, keys of a store). It never looks at what an id means: ``../../etc/passwd`` is an id like any other.
"""

from __future__ import annotations

import re
from functools import lru_cache

from eventlog.errors import InvalidIdError

MAX_ID_BYTES = 255
_UUID_CHARS = 36
_UUID_BYTES = 16
_SHOWN = 40
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_id(what: str, value: object, max_bytes: int = MAX_ID_BYTES) -> str:
    """`value`, if it is a plain string that can be stored as a key and shown in a terminal.

    Ids are compared code point by code point: case, accents in another normal form and separators all count.

    Args:
        what: which argument it is, for the message, for example ``"thread_id"``.
        value: what the caller gave.
        max_bytes: the greatest length in UTF-8.

    Returns:
        The same object, unchanged.

    Raises:
        InvalidIdError: not exactly a `str`, empty, too long, not encodable as UTF-8, or with control characters; says
            how it begins.
    """
    if type(value) is not str:
        raise InvalidIdError(what, f"must be a str, not {type(value).__name__}")
    if 0 < len(value) <= max_bytes and value.isascii() and value.isprintable():  # nearly all, and quicker than a cache
        return value
    why = _known_why_not(value, max_bytes) if len(value) <= MAX_ID_BYTES else _why_not(value, max_bytes)
    if why:
        shown = repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}..."
        raise InvalidIdError(what, f"{shown} {why}" if value else why)
    return value


def _why_not(text: str, max_bytes: int) -> str | None:
    if not text:
        return "must not be empty"
    if len(text) > max_bytes:  # before encoding it: the caller may have sent megabytes
        return f"is longer than {max_bytes} bytes"
    if text.isascii() and text.isprintable():
        return None
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate, which UTF-8 cannot carry"
    if len(encoded) > max_bytes:
        return f"is longer than {max_bytes} bytes"
    found = _CONTROL.search(text)
    return f"holds the control character U+{ord(found.group()):04X}" if found else None


_known_why_not = lru_cache(4096)(_why_not)


def packed_anew(text: str) -> str | bytes:
    """An id as it stands in a record: a UUID, written as UUIDs are, as its 16 bytes; anything else as it is."""
    if len(text) == _UUID_CHARS and text[8] == text[13] == text[18] == text[23] == "-":
        digits = text.replace("-", "")
        try:
            packed = bytes.fromhex(digits)
        except ValueError:
            return text
        if packed.hex() == digits and len(packed) == _UUID_BYTES:
            return packed
    return text


packed_id = lru_cache(1024)(packed_anew)
"""The same, remembered: an id that is given out is packed a few times."""


@lru_cache(1024)
def unpacked_id(packed: str | bytes) -> str:
    """The id that `packed_id` was given."""
    if isinstance(packed, str):
        return packed
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
