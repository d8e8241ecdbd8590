"""Values of LangGraph's channels to bytes and back, by the serializer that a saver was given.

Owns how the serializer is asked. A type that the serializer may not build is an error here, where the serializer itself
would hand back what it was made of; and so is a secret, which it would write.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.serde.event_hooks import register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from msgpack import unpackb

from eventlog import CorruptionError, TooDeepError, UnknownTypeError, UnserializableError
from savers.langgraph.guard import dumps_of, is_usual, runs_code, where_secret
from savers.langgraph.packed import pack_scalar, unpacked
from savers.tagged import MAX_TAG_BYTES, OWN, check_open, split, tagged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langgraph.checkpoint.serde.base import SerializerProtocol
    from langgraph.checkpoint.serde.event_hooks import SerdeEvent

CODEC: Final = "langgraph/1"
_OWN_HEAD: Final = tagged(OWN, b"")
_MSGPACK_HEAD: Final = tagged("msgpack", b"")
_NULL: Final = tagged("null", b"")
_SCALARS: Final = frozenset({str, int, float, bool})
"""Of these LangGraph's serializer makes the bytes that MessagePack has for them; None it tags."""
_BLOCKED: Final = frozenset({"msgpack_blocked", "msgpack_method_blocked"})


def strict_serializer() -> JsonPlusSerializer:
    """LangGraph's own serializer, limited to the types it knows to be safe: nothing stored can choose what runs."""
    return JsonPlusSerializer(allowed_msgpack_modules=None)


class _Blocked(threading.local):
    """The types that the serializer refused in this thread since last asked. It only logs them and goes on."""

    def __init__(self) -> None:
        self.types: list[UnknownTypeError] = []


_blocked = _Blocked()


def _note(event: SerdeEvent) -> None:
    if event["kind"] in _BLOCKED:
        _blocked.types.append(_not_allowed(event["module"], event["name"], event.get("method")))


def _not_allowed(module: str, name: str, method: Any) -> UnknownTypeError:
    """The error of a stored type, with the line of code that allows it; there is none for what calls a method."""
    if method is not None:
        why = f"read by calling {method}(), which LangGraph's serializer allows for types of its own only; keep another"
        return UnknownTypeError(f"{module}.{name}", why)
    return UnknownTypeError(
        f"{module}.{name}", f"not allowed; allow it by saver = saver.with_allowlist([({module!r}, {name!r})])"
    )


register_serde_event_listener(_note)


@contextmanager
def nothing_blocked() -> Iterator[None]:
    """Raise `UnknownTypeError` if any serializer refuses a type in this thread meanwhile, which it only logs."""
    _blocked.types.clear()
    yield
    if _blocked.types:
        raise _blocked.types[0]


class SerdeCodec:
    """The engine's codec on a LangGraph serializer."""

    name = CODEC
    keeps_given = False

    def __init__(self, serde: SerializerProtocol) -> None:
        self.serde = serde
        self._dumps = dumps_of(serde)
        self._reads_msgpack = type(serde).loads_typed is JsonPlusSerializer.loads_typed
        self._scalars = _SCALARS if is_usual(serde) else frozenset[type]()

    def encode(self, value: Any, path: str = "value") -> bytes:
        """See `eventlog.Codec.encode`."""
        if value is None and self._scalars:
            return _NULL
        if type(value) in self._scalars:
            try:
                return _MSGPACK_HEAD + pack_scalar(value)
            except (ValueError, OverflowError):  # a large integer, a string without UTF-8 form
                return self._encoded(value, path)
        return self._encoded(value, path)

    def _encoded(self, value: Any, path: str) -> bytes:
        try:
            tag, data = self._dumps(value)
        except RecursionError as error:
            raise TooDeepError(path, "nested too deep, or contains itself") from error
        except Exception as error:  # whatever a serializer of the user's raises
            raise _refused(value, path, error) from error
        if len(tag) > MAX_TAG_BYTES or not isinstance(data, bytes | bytearray):
            raise UnserializableError(path, f"the serializer made {type(data).__name__} tagged {tag!r:.40}, not bytes")
        return tagged(tag, data)

    def decode(self, data: bytes) -> Any:
        """See `eventlog.Codec.decode`."""
        if data[:2] in _SCALAR_HEADS and self._reads_msgpack:
            try:
                return unpackb(data[1:])  # what LangGraph's own serializer would make of it, so it is not asked
            except Exception as error:  # damaged bytes fail in all ways
                raise CorruptionError("a stored value", f"it is no MessagePack ({error})") from error
        if data[:1] == _OWN_HEAD:
            return unpacked(data[1:])
        tag, payload = split(data)
        if tag != "msgpack":
            if runs_code(self.serde, tag):
                raise UnknownTypeError(tag, "it could run code when it is read, so LangGraph's serializer is not asked")
            check_open(tag)
        _blocked.types.clear()
        try:
            value = self.serde.loads_typed((tag, payload))
        except UnknownTypeError:
            raise
        except NotImplementedError as error:
            raise UnknownTypeError(
                tag, "the saver's serializer does not read it; give it the one it was written with"
            ) from error
        except Exception as error:  # whatever a serializer of the user's raises
            raise CorruptionError("a stored value", f"the serializer does not read it ({error})") from error
        if _blocked.types:
            raise _blocked.types[0]
        return value

    def opened(self, data: bytes) -> bytes:
        """See `eventlog.codec.SealedCodec.opened`; this one has no key."""
        check_open(split(data)[0])
        return data


_SCALAR_HEADS: Final = frozenset(
    _MSGPACK_HEAD + bytes((first,))
    for heads in (range(0x81), (0x90,), range(0xA0, 0xC1), range(0xC2, 0xC7), range(0xCA, 0xD4), range(0xD9, 0xDC))
    for first in (*heads, *range(0xE0, 0x100))
)
"""How MessagePack's numbers, strings, bytes, booleans, nil, and what is empty begin: those name no type."""


def _refused(value: Any, path: str, error: Exception) -> UnserializableError:
    """The error of a value that the serializer did not take."""
    secret = where_secret(value)
    if secret is None:
        return UnserializableError(path, f"{type(error).__name__}: {error}")
    return UnserializableError(
        path + secret, "a secret is never written; keep what it is called in the state, and ask for it where it is used"
    )
