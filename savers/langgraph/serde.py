"""Values of LangGraph's channels to bytes and back, by the serializer that a saver was given.

Owns the bytes: the serializer's type tag stands before its data. A type that the serializer may not build is an error
here, where the serializer itself would hand back what it was made of.

```
 0  length of the tag   1 byte
 1  tag                 ASCII
    data                what the serializer made
```
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.serde.event_hooks import register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from eventlog import CorruptionError, TooDeepError, UnknownTypeError, UnserializableError

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from langgraph.checkpoint.serde.event_hooks import SerdeEvent

CODEC: Final = "langgraph/1"
_BLOCKED: Final = frozenset({"msgpack_blocked", "msgpack_method_blocked"})


def strict_serializer() -> JsonPlusSerializer:
    """LangGraph's own serializer, limited to the types it knows to be safe: nothing stored can choose what runs."""
    return JsonPlusSerializer(allowed_msgpack_modules=None)


class _Blocked(threading.local):
    """The types that the serializer refused in this thread since last asked. It only logs them and goes on."""

    def __init__(self) -> None:
        self.types: list[tuple[str, str]] = []


_blocked = _Blocked()


def _note(event: SerdeEvent) -> None:
    if event["kind"] in _BLOCKED:
        _blocked.types.append((event["module"], event["name"]))


register_serde_event_listener(_note)


class SerdeCodec:
    """The engine's codec on a LangGraph serializer. Two of the same serializer are equal."""

    name = CODEC

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SerdeCodec) and other._serde is self._serde

    def __hash__(self) -> int:
        return id(self._serde)

    def encode(self, value: Any, path: str = "value") -> bytes:
        """See `eventlog.Codec.encode`."""
        try:
            tag, data = self._serde.dumps_typed(value)
        except RecursionError as error:
            raise TooDeepError(path, "nested too deep, or contains itself") from error
        except Exception as error:  # whatever a serializer of the user's raises
            raise UnserializableError(path, f"{type(error).__name__}: {error}") from error
        head = tag.encode()
        if len(head) > 255 or not isinstance(data, bytes | bytearray):  # noqa: PLR2004 (one byte)
            raise UnserializableError(path, f"the serializer made {type(data).__name__}, not bytes")
        return bytes((len(head),)) + head + data

    def decode(self, data: bytes) -> Any:
        """See `eventlog.Codec.decode`."""
        tag, payload = split(data)
        _blocked.types.clear()
        try:
            value = self._serde.loads_typed((tag, payload))
        except NotImplementedError as error:
            raise UnknownTypeError(
                tag, "the saver's serializer does not read it; give it the one it was written with"
            ) from error
        except Exception as error:  # whatever a serializer of the user's raises
            raise CorruptionError("a stored value", f"the serializer does not read it ({error})") from error
        if _blocked.types:
            module, name = _blocked.types[0]
            raise UnknownTypeError(
                f"{module}.{name}",
                f"not allowed; allow it by EventLogSaver(log, serde=JsonPlusSerializer("
                f"allowed_msgpack_modules=[({module!r}, {name!r})]))",
            )
        return value


def split(data: bytes) -> tuple[str, bytes]:
    """The serializer's tag and data."""
    end = 1 + (data[0] if data else 0)
    return data[1:end].decode("ascii", "replace"), data[end:]
