"""Values with the tag of their serializer before them, as LangGraph's serializers name what they made.

Owns the head: one byte for the usual tags. Imports no framework, so tools read it without one. What is encrypted as a
whole, tag and all, has the tag ``+`` and the cipher's name.

```
 0  tag    1 byte: 0 for MessagePack of the saver's own, one of the usual ones, or 16 and the length of another one,
           which follows in ASCII; or 15, for a value that has a version before it
    data

 0  15     1 byte
 1  length of the version     1 byte
 2  version, then the tagged value; nothing, where there is a version and no value
```
"""

from __future__ import annotations

from typing import Final

from eventlog import UnknownTypeError

OWN: Final = ""
_USUAL: Final = (OWN, "msgpack", "null", "bytes", "bytearray", "json", "msgpack+aes", "bytes+aes", "null+aes")
_HEADS: Final = {tag: bytes([number]) for number, tag in enumerate(_USUAL)}
_NULL: Final = bytes((_USUAL.index("null"),))
_VERSIONED: Final = 15
_OTHER: Final = 16
MAX_TAG_BYTES: Final = 255 - _OTHER


def tagged(tag: str, data: bytes) -> bytes:
    """The data with its tag, which has at most `MAX_TAG_BYTES`; raises `ValueError` for a longer one."""
    head = _HEADS.get(tag)
    if head is None:
        encoded = tag.encode()
        head = bytes((_OTHER + len(encoded),)) + encoded
    return head + data


def versioned(version: bytes, value: bytes) -> bytes:
    """A version of less than 256 bytes, and the tagged value that it is of; no bytes where it is of none."""
    return bytes((_VERSIONED, len(version))) + version + value


def parted(data: bytes) -> tuple[bytes | None, bytes]:
    """The version that stands before a tagged value, None if none does; and the value."""
    if data[:1] != _VERSIONED_HEAD:
        return None, data
    end = 2 + data[1]
    return data[2:end], data[end:]


_VERSIONED_HEAD: Final = bytes((_VERSIONED,))


def split(data: bytes) -> tuple[str, bytes]:
    """Tag and data of `tagged`, whether a version stands before it or not; a tag that no release has is ``"?"``.

    Of a version without a value it is that of None.
    """
    if data[:1] == _VERSIONED_HEAD:
        data = data[2 + data[1] :] or _NULL
    first = data[0] if data else 0
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
