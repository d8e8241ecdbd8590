"""Values with the tag of their serializer before them, as LangGraph's serializers name what they made.

Owns the head: one byte for the usual tags. Imports no framework, so tools read it without one. What is encrypted as a
whole, tag and all, has the tag ``+`` and the cipher's name.

```
 0  tag    1 byte: 0 for MessagePack of the saver's own, one of the usual ones, or 16 and the length of another one,
           which follows in ASCII; or 128 and the length of a version that stands before a tagged value; or 15 for
           LangGraph's MessagePack with what is in every message said short, see phrases
    data

 0  128 + length of the version     1 byte
 1  version, MessagePack of the saver's own without its tag; then the tagged value; nothing, where there is a version
    and no value
```
"""

from __future__ import annotations

from typing import Final

from eventlog import UnknownTypeError
from savers.phrases import lengthened, shortened

OWN: Final = ""
_USUAL: Final = (OWN, "msgpack", "null", "bytes", "bytearray", "json", "msgpack+aes", "bytes+aes", "null+aes")
_HEADS: Final = {tag: bytes([number]) for number, tag in enumerate(_USUAL)}
_NULL: Final = bytes((_USUAL.index("null"),))
_MSGPACK: Final = "msgpack"
_SHORT: Final = 15
_SHORT_HEAD: Final = bytes((_SHORT,))
_OTHER: Final = 16
VERSIONED: Final = 128
"""First bytes from this one on: a version stands before the value, whose length is what they are more."""
MAX_TAG_BYTES: Final = VERSIONED - 1 - _OTHER


def tagged(tag: str, data: bytes) -> bytes:
    """The data with its tag, which has at most `MAX_TAG_BYTES`; raises `ValueError` for a longer one."""
    if tag == _MSGPACK and (short := shortened(data)) is not None:
        return _SHORT_HEAD + short
    head = _HEADS.get(tag)
    if head is None:
        encoded = tag.encode()
        head = bytes((_OTHER + len(encoded),)) + encoded
    return head + data


def versioned(version: bytes, value: bytes) -> bytes:
    """A version of at most 128 bytes, tagged as the saver's own, and the tagged value; no bytes where it has none."""
    return _VERSIONED_HEADS[len(version) - 1] + version[1:] + value


def parted(data: bytes) -> tuple[bytes | None, bytes]:
    """The version that stands before a tagged value, None if none does; and the value."""
    if data[:1] < _VERSIONED_HEAD:
        return None, data
    end = data[0] - VERSIONED + 1
    return _OWN_HEAD + data[1:end], data[end:]


def start_of_value(data: bytes) -> int:
    """Where the tagged value begins behind the version that stands before it; 0 where none does."""
    return data[0] - VERSIONED + 1 if data and data[0] >= VERSIONED else 0


_VERSIONED_HEADS: Final = [bytes((first,)) for first in range(VERSIONED, 256)]
_VERSIONED_HEAD: Final = _VERSIONED_HEADS[0]
_OWN_HEAD: Final = _HEADS[OWN]


def split(data: bytes) -> tuple[str, bytes]:
    """Tag and data of `tagged`, whether a version stands before it or not; a tag that no release has is ``"?"``.

    Of a version without a value it is that of None.
    """
    if data[:1] >= _VERSIONED_HEAD:
        data = data[data[0] - VERSIONED + 1 :] or _NULL
    first = data[0] if data else 0
    if first == _SHORT:
        return _MSGPACK, lengthened(data[1:])
    if first < _OTHER:
        return _USUAL[first] if first < len(_USUAL) else "?", data[1:]
    end = 1 + first - _OTHER
    return data[1:end].decode("ascii", "replace"), data[end:]


SEAL: Final = "+"


def check_open(tag: str) -> None:
    """Raise `UnknownTypeError` for the tag of what is encrypted."""
    if tag.startswith(SEAL):
        raise UnknownTypeError(
            tag, "it is encrypted; read it by the saver with the serializer that wrote it, and its key"
        )
