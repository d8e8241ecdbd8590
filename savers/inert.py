"""Runs that savers wrote, for tools that only show them: values decoded without touching anybody's classes.

Owns nothing but the registration of the savers' codecs; importing it is enough. Imports no framework.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from eventlog import CorruptionError, UnknownTypeError, register_codec
from eventlog.arrays import ARRAY
from savers.serde import JsonPlusSerde
from savers.tagged import OWN, check_open, split

_KEYWORDS: Final = (2, 4, 5)
_ARRAY: Final = 6
_DELTA_SNAPSHOT: Final = 7
_UNSAID: Final[tuple[Any, ...]] = (None, [], {}, "")


class InertLangGraph:
    """Reads what `savers.langgraph` wrote: an object becomes a dict that names its class under ``"$type"``."""

    name = "langgraph/1"

    def encode(self, value: Any, path: str = "value") -> bytes:
        """Never to be called: tools do not write."""
        raise NotImplementedError(path)

    def decode(self, data: bytes) -> Any:
        """See `eventlog.Codec.decode`."""
        tag, payload = split(data)
        check_open(tag)
        if tag == "null":
            return None
        if tag in ("bytes", "bytearray"):
            return payload
        if tag not in (OWN, "msgpack"):
            raise UnknownTypeError(tag, "only the saver with the serializer that wrote it can read it")
        try:
            return _unpacked(payload)
        except (ValueError, msgpack.UnpackException) as error:
            raise CorruptionError("a stored value", f"not the bytes of a value ({error})") from error

    def opened(self, data: bytes) -> bytes:
        """See `eventlog.codec.SealedCodec.opened`; this one has no key."""
        check_open(split(data)[0])
        return data


def _unpacked(payload: bytes) -> Any:
    return msgpack.unpackb(payload, strict_map_key=False, ext_hook=_shown)


def _shown(code: int, payload: bytes) -> Any:
    """An object as ``{"$type": class, field: value}``; fields that say nothing are left out."""
    inner = _unpacked(payload)
    if code == _DELTA_SNAPSHOT or not isinstance(inner, list) or len(inner) < 3:  # noqa: PLR2004 (module, name, value)
        return _Shown({"$type": f"extension {code}", "value": inner})
    if code == _ARRAY and len(inner) == 4:  # noqa: PLR2004 (type, shape, order, bytes)
        dtype, shape, order, data = inner
        return _Shown({"$type": ARRAY, "value": data, "dtype": dtype, "shape": shape, "by_columns": order == "F"})
    module, name, value = inner[:3]
    if code in _KEYWORDS and isinstance(value, dict):
        return _Shown({"$type": name, **{key: item for key, item in value.items() if item not in _UNSAID}})
    return _Shown({"$type": f"{module}.{name}", "value": value})


class _Shown(dict[str, Any]):
    """Hashable, by identity, because it may stand for a dict's key."""

    __hash__ = object.__hash__  # type: ignore[assignment]


register_codec(InertLangGraph())
register_codec(JsonPlusSerde(inert=True))
