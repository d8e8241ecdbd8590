"""The order in which keys were put, packed: what engines keep so that they can feed it.

Owns the bytes of a record of keys, and of a position. Keys that follow each other, with last 8 bytes that count up by
one, are a *stretch*; a record is one msgpack array of stretches:

```
 key, count        count keys from that one on
 number, count     the same, from the key on that follows the stretch of that number
                   (stretches that begin with a key are numbered; the others go on with theirs)
```

So a loop that writes one run takes a few bytes per record, and runs that take turns two to four bytes per key.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgpack

from eventlog.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOG_ID_BYTES: Final = 8
"""A position begins with what tells one log from another: bytes that chance gave it when it was made."""
_COUNTED: Final = 8
_END: Final = 1 << 64
_place: Final = struct.Struct(">QQ")
_last: Final = struct.Struct(">Q").pack


def in_commit(puts: Iterable[tuple[bytes, bytes]], kind: bytes) -> list[bytes]:
    """The keys of a kind that a commit puts, in the order in which they are fed."""
    return in_order([key for key, _ in puts if key[:1] == kind])


def in_order(keys: list[bytes]) -> list[bytes]:
    """Keys that one commit puts, in the order in which they are fed."""
    return [*dict.fromkeys(sorted(keys))] if len(keys) > 1 else keys


def behind(first: bytes, count: int) -> bytes:
    """The key that follows a stretch; empty if none can."""
    number = int.from_bytes(first[-_COUNTED:], "big") + count
    is_counted = len(first) > _COUNTED and number < _END
    return first[:-_COUNTED] + number.to_bytes(_COUNTED, "big") if is_counted else b""


def spread(first: bytes, count: int, skip: int = 0) -> Iterator[bytes]:
    """The keys of a stretch, without the first ones."""
    if count == 1:
        yield from [first][skip:]
        return
    head, number = first[:-_COUNTED], int.from_bytes(first[-_COUNTED:], "big")
    for index in range(skip, count):
        yield head + (number + index).to_bytes(_COUNTED, "big")


def stretches(keys: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Keys as stretches: the first key of each, and how many they are."""
    first, count, head, following = b"", 0, b"", -1
    keys = iter(keys)
    while some := [*islice(keys, _AT_ONCE)]:
        at, step = 0, min(_LONG, len(some)) if count >= _LONG else 0
        while at < len(some):
            if step:  # of a long one many are looked at at once: that takes a third of the time
                if some[at : at + step] == _counted(head, following, step):
                    at, count, following = at + step, count + step, following + step
                    step = min(2 * step, len(some) - at)
                else:
                    step = step // 2 if step > _LONG else 0
                continue
            key = some[at]
            at += 1
            number = int.from_bytes(key[-_COUNTED:], "big")
            if number == following and key[:-_COUNTED] == head:  # as `behind` says, which a fold asks of every key
                count, following = count + 1, following + 1
                step = min(_LONG, len(some) - at) if count == _LONG else 0
            else:
                if count:
                    yield first, count
                first, count, head = key, 1, key[:-_COUNTED]
                following = number + 1 if head else -1
    if count:
        yield first, count


_AT_ONCE: Final = 4096
_LONG: Final = 16


def _counted(head: bytes, number: int, count: int) -> list[bytes]:
    """So many keys with last bytes that count up from a number; fewer, if those have no room for it."""
    return [head + _last(each) for each in range(number, min(number + count, _END))]


def packed(keys: Iterable[bytes]) -> bytes:
    """The record of keys, in their order."""
    items: list[bytes | int] = []
    numbers: dict[bytes, int] = {}
    count_of_keys = 0
    for first, count in stretches(keys):
        number = numbers.pop(first, None)
        if number is None:
            items += first, count
            number, count_of_keys = count_of_keys, count_of_keys + 1
        else:
            items += number, count
        following = behind(first, count)
        if following:
            numbers[following] = number
    return bytes(msgpack.packb(items))


def unpacked(record: bytes) -> Iterator[bytes]:
    """The keys of a record."""
    items = iter(msgpack.unpackb(record))
    following: list[bytes] = []
    for what, count in zip(items, items, strict=True):
        if isinstance(what, bytes):
            first = what
            following.append(behind(first, count))
        else:
            first = following[what]
            following[what] = behind(first, count)
        yield from spread(first, count)


def place_bytes(log_id: bytes, number: int, index: int) -> bytes:
    """A position in the feed of a log: behind so many keys of the record of that number."""
    return log_id + _place.pack(number, index)


def place_in(log_id: bytes, after: bytes) -> bytes:
    """A position of a log; the beginning's, if it is empty.

    Raises:
        InvalidInputError: it is none of that log's.
    """
    place = after or place_bytes(log_id, 0, 0)
    if len(place) != LOG_ID_BYTES + _place.size or not place.startswith(log_id):
        raise unknown_place(place)
    return place


def read_place(place: bytes) -> tuple[int, int]:
    """Number and index of a position."""
    number, index = _place.unpack_from(place, LOG_ID_BYTES)
    return number, index


def unknown_place(after: bytes) -> InvalidInputError:
    """A position that a storage never gave, or of what it lost."""
    return InvalidInputError(
        f"{after.hex()} is no position of this log's feed: another log gave it, or an earlier release, or what was "
        "there is lost; begin without one"
    )


def fed_of(
    after: bytes, number: int, keys: Iterable[bytes], skip: int, begin: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """The (position, key) of the keys of a numbered record, without the first ones, which a position stands behind.

    The keys are those from the index `begin` on.

    Raises:
        InvalidInputError: there are not so many.
    """
    index = begin
    for index, key in enumerate(keys, begin + 1):
        if index > skip:
            yield place_bytes(after[:LOG_ID_BYTES], number, index), key
    if index < skip:
        raise unknown_place(after)
