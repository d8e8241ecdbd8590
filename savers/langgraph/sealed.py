"""Everything that a user says, unreadable without a key: where the saver's serializer is LangGraph's encrypting one.

Owns what is encrypted, and how the names of channels are hidden and found again. An `EncryptedSerializer` is taken
apart: its inner serializer makes bytes of a value, what changed is found by those, and its cipher encrypts what is
stored, its tag included. So every stored value, change and task write is one piece of ciphertext, and anything else is
refused: a record that somebody put there without the key is never taken for one that was written with it.

```
 stored     tag "+" and the cipher's name, then what the cipher made of the bytes that a saver without one would store
 ~key       32 random bytes, drawn for each run
 HASH       stands for a channel's name: blake2b of it, keyed with ~key
 ~v:HASH    [the name in full, the bytes that a saver without a cipher would store under it]; so does ~s:HASH
 a write    its channel is "~", its path empty; with its value are encrypted [channel, path, the value's bytes]
```
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from eventlog import CorruptionError, TaskWrite, TooLargeError, UnserializableError
from savers.langgraph.packed import packed
from savers.langgraph.serde import CODEC, SerdeCodec
from savers.saver import MARK, escaped, plain
from savers.tagged import SEAL, split, tagged

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from eventlog import Event, State

_KEY: Final = MARK + "key"
_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 15
_VERSION: Final = MARK + "v:"
_WRITE: Final = MARK + "write"
_KEPT_BYTES: Final = 4096
"""Stored bytes up to so many are opened to be compared with; longer values are compared by the engine."""


class _Said(NamedTuple):
    """What a task wrote, and where."""

    channel: str
    path: str
    value: Any


class SealedCodec:
    """The engine's codec on LangGraph's encrypting serializer."""

    name = CODEC

    def __init__(self, serde: EncryptedSerializer) -> None:
        self.serde = serde
        self.unsealed = SerdeCodec(serde.serde)
        self._cipher = serde.cipher

    def seal(self, data: bytes) -> bytes:
        """See `eventlog.codec.SealedCodec`."""
        try:
            name, ciphertext = self._cipher.encrypt(data)
        except Exception as error:  # whatever a cipher of the user's raises
            raise UnserializableError("value", f"the cipher failed ({type(error).__name__}: {error})") from error
        return tagged(SEAL + name, ciphertext)

    def opened(self, data: bytes) -> bytes:
        """See `eventlog.codec.SealedCodec`."""
        tag, ciphertext = split(data)
        if not tag.startswith(SEAL):
            raise not_sealed()
        try:
            return self._cipher.decrypt(tag[len(SEAL) :], ciphertext)
        except Exception as error:  # whatever a cipher of the user's raises
            raise CorruptionError(
                "a stored value", f"the cipher does not open it ({error}): it has another key, or is damaged"
            ) from error

    def encode(self, value: Any, path: str = "value") -> bytes:
        """See `eventlog.Codec.encode`."""
        if type(value) is not _Said:
            return self.seal(self.unsealed.encode(value, path))
        data = self.unsealed.encode(value.value, value.channel)
        return self.seal(tagged(_WRITE, packed([value.channel, value.path, data])))

    def decode(self, data: bytes) -> Any:
        """See `eventlog.Codec.decode`."""
        payload = self.opened(data)
        tag, said = split(payload)
        if tag != _WRITE:
            return self.unsealed.decode(payload)
        channel, path, value = self.unsealed.decode(said)
        return _Said(channel, path, self.unsealed.decode(value))


def codec_of(serde: SerializerProtocol) -> SerdeCodec | SealedCodec:
    """The codec for a saver's serializer: `EncryptedSerializer`, and what derives from it, encrypts everything."""
    return SealedCodec(serde) if isinstance(serde, EncryptedSerializer) else SerdeCodec(serde)


def not_sealed() -> CorruptionError:
    """The error of what should be encrypted and is not."""
    return CorruptionError(
        "a stored value",
        "it is not encrypted, and the saver's serializer encrypts everything, so somebody else wrote it; to read what "
        "was written before there was a key, use EventLogSaver(saver.log, serde=saver.serde.serde) for it",
    )


# --- task writes -----------------------------------------------------------------------------------------------------


def hidden(write: TaskWrite) -> TaskWrite:
    """A task's write of which only the task and the slot show."""
    return TaskWrite(write.task, write.slot, MARK, _Said(write.channel, write.path, write.value))


def unhidden(writes: list[TaskWrite]) -> list[TaskWrite]:
    """The writes that were hidden, in their order."""
    said = [
        TaskWrite(write.task, write.slot, write.value.channel, write.value.value, write.value.path) for write in writes
    ]
    return sorted(said, key=lambda write: (write.path, write.task, write.slot))


# --- channels --------------------------------------------------------------------------------------------------------


class Veil:
    """Hides the names of a run's channels."""

    __slots__ = ("_codec", "_key")

    def __init__(self, codec: SealedCodec, key: bytes | None = None) -> None:
        self._codec = codec
        self._key = secrets.token_bytes(_KEY_BYTES) if key is None else key

    def name(self, name: str) -> str:
        """What stands in the log for a channel of the run; the saver's own are no secret, but for what they are of."""
        if name[:1] != MARK or name[1:2] == MARK:
            return self._hash(name)
        head, colon, rest = name.partition(":")
        return head + colon + self._hash(rest) if colon else name

    def _hash(self, name: str) -> str:
        digest = blake2b(name.encode("utf-8", "surrogatepass"), key=self._key, digest_size=_HASH_BYTES).digest()
        return urlsafe_b64encode(digest).decode()

    def names(self, by_name: Mapping[str, Any]) -> dict[str, Any]:
        """The same by the names that stand in the log."""
        return {self.name(name): item for name, item in by_name.items()}

    def told(
        self, error: UnserializableError | TooLargeError, names: Iterable[str]
    ) -> UnserializableError | TooLargeError:
        """The same error, by the channel's name that its user knows."""
        where = error.path if isinstance(error, UnserializableError) else error.what
        for name in names:
            if where.startswith(self.name(name)):
                known = plain(name) + where[len(self.name(name)) :]
                if isinstance(error, TooLargeError):
                    return TooLargeError(known, error.size, error.limit)
                return type(error)(known, str(error)[len(where) + 2 :])
        return error

    def sealed(self, encoded: Mapping[str, bytes], *, is_first: bool) -> dict[str, bytes]:
        """What is stored of channels with their bytes, by the names that stand in the log.

        Args:
            encoded: the channels.
            is_first: whether the run is to learn the key by it.
        """
        seal = self._codec.seal
        stored = {self.name(name): seal(_named(name, data)) for name, data in encoded.items()}
        return {_KEY: seal(packed(self._key)), **stored} if is_first else stored


def _named(name: str, data: bytes) -> bytes:
    """The bytes to be sealed; what is of a channel or a node says of which."""
    _, colon, rest = name.partition(":")
    is_own = name[:1] == MARK and name[1:2] != MARK
    return packed([rest, data]) if is_own and colon else data


class Unveiled(Mapping[str, Any]):
    """A state by the names that its writer knows; of what a `State` offers, what a thread needs."""

    def __init__(self, state: State, codec: SealedCodec) -> None:
        key = state.get(_KEY)
        if key is None:
            raise not_sealed()
        self.event: Event | None = state.event
        self.size_bytes = state.size_bytes
        self.veil = Veil(codec, key)
        self._state = state
        self._codec = codec
        self._known: dict[str, bytes] | None = None

    @property
    def _own(self) -> dict[str, bytes]:
        """What is of channels and nodes, with the bytes that a saver without a cipher would store."""
        if self._known is None:
            self._known = {}
            for name in self._state:
                head, colon, _ = name.partition(":")
                if colon and name[:1] == MARK:
                    of, data = self._state[name]
                    self._known[head + colon + of] = data
        return self._known

    def __getitem__(self, name: str) -> Any:
        if name[:1] == MARK and ":" in name and name in self._own:
            return self._codec.unsealed.decode(self._own[name])
        return self._state[self.veil.name(name)]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in self._state if name[:1] == MARK and ":" not in name and name != _KEY)
        values = (escaped(name[len(_VERSION) :]) for name in self._own if name.startswith(_VERSION))
        yield from (name for name in values if self.veil.name(name) in self._state)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def encoded(self, name: str) -> bytes | None:
        """See `State.encoded`: the bytes before they were sealed; None for what is long."""
        if name in self._own:
            return self._own[name]
        data = self._state.encoded(self.veil.name(name))
        return None if data is None or len(data) > _KEPT_BYTES else self._codec.opened(data)

    def pieces(self) -> list[tuple[str, bytes | None]]:
        """See `State.pieces`."""
        return [(name, self.encoded(name)) for name in self]
