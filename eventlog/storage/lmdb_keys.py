"""Where a key stands among LMDB's databases: most kinds of key have one of their own.

Owns the names of the kinds that have one, and what a key is there; it knows nothing else of LMDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventlog.errors import InvalidInputError
from eventlog.storage.base import MAX_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = 256
OWN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""Kinds of key with a database of their own; each one that is opened costs whoever opens the log."""


def inner_key(key: bytes) -> bytes:
    """`key` as it stands in its database, in the same order and never empty: without the kind byte if it has its own.

    LMDB has no empty key, so the keys that are all NUL make room by growing by one NUL::

        after the kind byte   ""     00      00 00      00 01   01
        in the database       00     00 00   00 00 00   00 01   01
    """
    if not 0 < len(key) <= MAX_KEY_BYTES:
        check_keys((key,))
    return raised(key[1:]) if key[0] in OWN else key


def check_keys(keys: Sequence[bytes]) -> None:
    """Raise `InvalidInputError` unless each has 1 to 511 bytes."""
    sizes = {*map(len, keys)}
    if sizes and not 0 < min(sizes) <= max(sizes) <= MAX_KEY_BYTES:
        raise InvalidInputError(f"a key has 1 to {MAX_KEY_BYTES} bytes, not {min(sizes)} or {max(sizes)}")


def outer_key(kind: int, inner: bytes) -> bytes:
    """The key that stands in the database as `inner`."""
    return bytes([kind]) + lowered(inner) if kind in OWN else inner


def raised(rest: bytes) -> bytes:
    """What stands in a database for what follows the kind byte: see `inner_key`."""
    return rest if rest.strip(b"\0") else rest + b"\0"


def lowered(inner: bytes) -> bytes:
    """What was raised so."""
    return inner if inner.strip(b"\0") else inner[:-1]


class Span(NamedTuple):
    """What is still to be read of a range, in the terms of its kind's database: ``start <= key < end``."""

    kind: int
    start: bytes
    end: bytes | None

    @classmethod
    def of(cls, start: bytes, end: bytes) -> Span:
        """A range of keys ``start <= key < end``, as far as it lies within the kind that it begins in."""
        if not start:
            msg = "the start of a range is empty; begin it with the byte of its kind"
            raise InvalidInputError(msg)
        if end[:1] < start[:1]:
            return cls(start[0], b"\0", b"")
        if start[0] not in OWN:
            behind = bytes([start[0] + 1]) if start[0] < KINDS - 1 else None
            return cls(start[0], start, behind if end[:1] > start[:1] else end)
        return cls(start[0], raised(start[1:]), None if end[:1] > start[:1] else raised(end[1:]))

    def after(self, key: bytes, *, reverse: bool) -> Span:
        """What is left of it once it was read up to a key, which stands in the database so."""
        return Span(self.kind, self.start, key) if reverse else Span(self.kind, key + b"\0", self.end)
