"""Bytes of a record: what stands behind a key.

Owns the format version, the checksums and the digest chain. It knows nothing of what channels hold.

```
 sealed record (all but events and heads)  event record
 0  format version                1 byte   0   format version                       1 byte
 1  xxh3-64 of key and payload    8 bytes  1   digest: xxh3-128 of key, parent
 9  payload                                    digest and body                     16 bytes
                                           17  parent digest (zeros at a root)     16 bytes
                                           33  body: one msgpack array
```

The body of an event: ``[time, step, task, id, meta, channel, slot, payload, channel, slot, payload ...]``: time in
nanoseconds since the epoch (bytes, if it has more than 64 bits), task and id a string or nil, an id that is a UUID its
16 bytes, meta nil or the engine codec's bytes, slot as in `delta.slot`. A digest covers the parent's digest, so an
event that was changed, lost or moved breaks the chain. It finds accidents, not an attacker.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack
from xxhash import xxh3_64, xxh3_64_digest, xxh3_128, xxh3_128_digest

from eventlog.errors import CorruptionError, FormatError
from eventlog.ids import unpacked_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

FORMAT: Final = 1
_VERSION: Final = bytes([FORMAT])
ROOT_DIGEST: Final = bytes(16)
_HEADER: Final = 33
_BARE: Final = (b"H", b"C")
_WRITES: Final = 5
INT64: Final = 1 << 63
_LARGE: Final = 1 << 14
"""From so many bytes on, to put two of them together costs more than to hash them one after the other."""
_new: Final = tuple.__new__  # makes a named tuple at half the cost

scalar = msgpack.Packer(strict_types=True).pack
"""Bytes of one string, integer, bytes or None. Shared and so for scalars only: packing those runs no Python code."""

scalars = msgpack.Packer(strict_types=True).pack
"""Bytes of a list of such, or of lists of such; by the same reason shared."""

scalars_of_tuple = msgpack.Packer().pack
"""The same of a tuple of such, which the strict one refuses."""

_array16 = struct.Struct(">BH").pack
_array32 = struct.Struct(">BI").pack


class Body(NamedTuple):
    """An event's body, read."""

    time_ns: int
    step: int
    task: str | None
    id: str | None
    meta: bytes | None
    writes: list[Any]
    """Per changed channel its name, the slot, the payload, one after another; see `triples`."""


def triples(writes: list[Any]) -> Iterator[tuple[str, int, bytes]]:
    """Channel, slot and payload of each of a body's writes."""
    return zip(*[iter(writes)] * 3, strict=True)


def time_field(time_ns: int) -> int | bytes:
    """What stands for a time in a body, whatever the writer's clock says."""
    return time_ns if time_ns < INT64 else time_ns.to_bytes(16, "big")


def array(items: Sequence[bytes]) -> bytes:
    """One msgpack array of items that are bytes of msgpack already."""
    n = len(items)
    if n < 16:  # noqa: PLR2004 (msgpack's own limits)
        return bytes((0x90 | n,)) + b"".join(items)
    head = _array16(0xDC, n) if n < 1 << 16 else _array32(0xDD, n)
    return head + b"".join(items)


def event_record(key: bytes, parent: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The record of an event and its digest."""
    digest = xxh3_128_digest(key + parent + body) if len(body) < _LARGE else _digest_of(key + parent, body)
    return _VERSION + digest + parent + body, digest


def event_records(keys: Iterable[bytes], parent: bytes, bodies: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The records of events that follow each other, and their digests."""
    records, digests = [], []
    for key, body in zip(keys, bodies, strict=True):
        chained = parent + body
        parent = xxh3_128_digest(key + chained)
        records.append(_VERSION + parent + chained)
        digests.append(parent)
    return records, digests


def read_event(key: bytes, record: bytes) -> tuple[bytes, bytes, Body]:
    """Digest, parent digest and body of an event.

    Raises:
        CorruptionError: the record is not what was written under that key.
        FormatError: written in a format of a newer release.
    """
    return event_of(record[1:_HEADER], event_fields(key, record))


def event_fields(key: bytes, record: bytes) -> list[Any]:
    """The fields of an event's body as they stand there; raises as `read_event`."""
    fields: list[Any] = msgpack.unpackb(_body(key, record))
    return fields


def _body(key: bytes, record: bytes) -> bytes:
    """The bytes of an event's body, checked."""
    if record[:1] != _VERSION:
        raise _unknown_version(key, record)
    body = record[_HEADER:]
    head = key + record[17:_HEADER]
    if (xxh3_128_digest(head + body) if len(body) < _LARGE else _digest_of(head, body)) != record[1:17]:
        raise CorruptionError(where(key), "checksum of the event differs")
    return body


def bodies(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes, list[Any]]]:
    """Keys and records of events, each with what `event_fields` says of it; raises as `read_event`."""
    pairs = iter(pairs)
    while some := [*islice(pairs, _AT_ONCE)]:  # many at once take it half the time
        keys, records = zip(*some, strict=True)
        sums = [_VERSION + xxh3_128_digest(key + record[17:]) for key, record in some]
        if [record[:17] for record in records] != sums:
            for key, record in some:
                _body(key, record)  # says what is wrong
        fields = msgpack.unpackb(_array16(0xDC, 2 * len(some)) + _AS_ITEM + _AS_ITEM.join(records))
        del fields[::2]
        yield from zip(keys, records, fields, strict=True)


_AT_ONCE: Final = 32
_AS_ITEM: Final = bytes((0xC4, _HEADER))
"""In front of a record it makes of what stands before the body one more item, which need not be cut off."""


def fields_in(pairs: Sequence[tuple[bytes, bytes]]) -> list[list[Any]]:
    """What `event_fields` says of records that were checked before."""
    found: list[list[Any]] = msgpack.unpackb(array([record[_HEADER:] for _, record in pairs]))
    return found


def _digest_of(head: bytes, body: bytes) -> bytes:
    """The digest of both, one after the other."""
    digest = xxh3_128(head)
    digest.update(body)
    return digest.digest()


def stored_writes(record: bytes) -> list[Any]:
    """The writes in a record that this process made, as in `Body`."""
    writes: list[Any] = msgpack.unpackb(record[_HEADER:])[_WRITES:]
    return writes


def event_of(digests: bytes, fields: list[Any]) -> tuple[bytes, bytes, Body]:
    """What `read_event` returns, of the digests that stand in the record and of `event_fields`."""
    time, step, task, event_id, meta, *writes = fields
    time_ns = int.from_bytes(time, "big") if isinstance(time, bytes) else time
    if event_id.__class__ is bytes:
        event_id = unpacked_id(event_id)
    return digests[:16], digests[16:], _new(Body, (time_ns, step, task, event_id, meta, writes))


def head_record(seq: int, digest: bytes) -> bytes:
    """The record that says where a segment ends; bare, because writers compare it and `verify` checks it."""
    return seq.to_bytes(8, "big") + digest


def read_head(record: bytes) -> int:
    """The seq in a record of `head_record`."""
    return int.from_bytes(record[:8], "big")


def seal(key: bytes, payload: bytes) -> bytes:
    """The record of `payload` under `key`."""
    return _VERSION + (xxh3_64_digest(key + payload) if len(payload) < _LARGE else _sum_of(key, payload)) + payload


def unseal(key: bytes, record: bytes) -> bytes:
    """The payload of a sealed record; raises as `read_event`."""
    if record[:1] != _VERSION:
        raise _unknown_version(key, record)
    payload = record[9:]
    if (xxh3_64_digest(key + payload) if len(payload) < _LARGE else _sum_of(key, payload)) != record[1:9]:
        raise CorruptionError(where(key), "checksum differs")
    return payload


def _sum_of(key: bytes, payload: bytes) -> bytes:
    """The checksum of both, one after the other."""
    checksum = xxh3_64(key)
    checksum.update(payload)
    return checksum.digest()


def seal_fields(key: bytes, fields: Sequence[Any]) -> bytes:
    """The record of a few plain fields under `key`."""
    payload = scalars(fields if type(fields) is list else list(fields))
    return _VERSION + xxh3_64_digest(key + payload) + payload  # as `seal`


def unseal_fields(key: bytes, record: bytes) -> list[Any]:
    """The fields of `seal_fields`; raises as `read_event`."""
    fields: list[Any] = msgpack.unpackb(unseal(key, record))
    return fields


def is_sound(key: bytes, record: bytes) -> bool:
    """Whether a record is what was written under that key, as far as it says; heads and bare keys say nothing."""
    if key[:1] in _BARE:
        return True
    is_event = key[:1] == b"E"
    found = xxh3_128_digest(key + record[17:]) if is_event else xxh3_64_digest(key + record[9:])
    return record[: 1 + len(found)] == _VERSION + found


def payload_digest(payload: bytes) -> bytes:
    """What an event keeps of a payload that stands in a part of its own: its digest and its size."""
    return xxh3_128_digest(payload) + len(payload).to_bytes(8, "big")


def where(key: bytes) -> str:
    """A key as a person may look for it."""
    names = {
        b"E": "event",
        b"S": "segment",
        b"B": "branch",
        b"H": "head",
        b"P": "part",
        b"M": "manifest",
        b"V": "snapshot",
    }
    kind, run = key[:1], key[1:9].hex()
    if kind not in names:
        return f"record {key.hex()}"
    place = ""
    if len(key) >= 13:  # noqa: PLR2004 (see layout)
        place = f", segment {int.from_bytes(key[9:13], 'big')}"
    if len(key) >= 21:  # noqa: PLR2004 (see layout)
        place += f", seq {int.from_bytes(key[13:21], 'big')}"
    return f"{names[kind]} (run {run}{place})"


def _unknown_version(key: bytes, record: bytes) -> CorruptionError | FormatError:
    if not record:
        return CorruptionError(where(key), "the record is empty")
    msg = f"{where(key)}: format version {record[0]}; this release reads version {FORMAT}: upgrade eventlog-savers"
    return FormatError(msg)
