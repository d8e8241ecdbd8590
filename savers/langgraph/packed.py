"""What a checkpoint says beside its channels' values, in as few bytes as it takes.

Owns the bytes of the saver's own channels: MessagePack of plain values. Versions as LangGraph's savers make them, 32
digits and a random part, are two numbers; whatever is not plain goes through the saver's serializer.

```
 version      number; [its digits], if it has more than 64 bits; [number, random part]; or the string itself
 time         microseconds, where it is written as usual, in UTC: less than 2^31, since the time in the
              checkpoint's own id, else since 1970; or the string itself
 parent       its id; of a UUID what does not begin as the checkpoint's own id does
 ~c           [parent or nil, time or nil, the metadata's step, nil if it has none, true if it is the event's,
              the metadata's source, as its place in `SOURCES`, times 3; and what was updated: 0 if it is
              among the rest, 1 if the versions say it, 2 if it is None], and the whole id of the parent that
              was pruned, if it was
```
"""

from __future__ import annotations

import datetime as dt
import random
import re
from functools import lru_cache, partial
from typing import Any, Final

import msgpack

from eventlog import packed_id, unpacked_id
from savers.tagged import OWN, tagged

SOURCES: Final = (None, "input", "loop", "update", "fork")
AMONG_REST, BY_VERSIONS, NONE = range(3)
_VERSION: Final = re.compile(r"(\d{32})\.(\d{10}|0\.\d+)")
_INT64: Final = 1 << 63
_MARK: Final = tagged(OWN, b"")

_pack: Final = msgpack.Packer(strict_types=True).pack
"""Shared: strict, so it runs no Python code while it packs, and what is not plain is refused."""
pack_scalar: Final = _pack
"""The bytes of one string, integer, float or boolean, without a mark."""


def packed(value: Any) -> bytes:
    """Bytes of a plain value.

    Raises:
        TypeError, ValueError, OverflowError: it is not plain.
    """
    return _MARK + _pack(value)


unpacked: Final = partial(msgpack.unpackb, strict_map_key=False)
"""What was packed, of the bytes behind its mark."""


def next_version(current: str | int | None) -> str:
    """A version greater than `current`, unlike any other writer's."""
    known = _shorts.get(current) if type(current) is str else None
    if type(known) is list:
        return new_version(known[0] + 1)
    return new_version(1 if current is None else int(str(current).split(".")[0]) + 1)


def new_version(number: int) -> str:
    """A version of that number, unlike any other writer's."""
    rest = random.getrandbits(32)
    version = f"{str(number).zfill(32)}.{str(rest).zfill(10)}"
    if number < _INT64:
        _note(version, [number, rest])
    return version


def _note(version: str, short: Any) -> Any:
    """Remember how a version is packed: each one is packed a few times, within a few steps."""
    if len(_shorts) >= _KEPT:
        _shorts.clear()
    _shorts[version] = short
    return short


_shorts: Final[dict[str, Any]] = {}
_KEPT: Final = 4096


def short_version(version: Any) -> Any:
    """A version as it is packed."""
    if type(version) is int and not -_INT64 <= version < _INT64:
        return [str(version)]
    if type(version) is not str:
        return version
    known = _shorts.get(version)
    return _note(version, _shortened(version)) if known is None else known


def _shortened(version: str) -> Any:
    found = _VERSION.fullmatch(version)
    if found is None:
        return version
    number, rest = int(found[1]), found[2]
    short = [number, float(rest) if rest[1] == "." else int(rest)]
    return short if number < _INT64 and long_version(short) == version else version


def long_version(short: Any) -> Any:
    """The version that was packed so."""
    if type(short) is not list:
        return short
    if len(short) == 1:
        return int(short[0])
    number, rest = short
    return f"{number:032}.{rest:016}" if type(rest) is float else f"{number:032}.{rest:010}"


@lru_cache(_KEPT)
def version_of(data: bytes) -> Any:
    """The version of which `packed_plain` made those bytes, shortened."""
    return long_version(unpacked(data[len(_MARK) :]))


def seen_of(data: bytes) -> dict[str, Any]:
    """The versions by channel of which it made those, as a new dict."""
    return dict(_known_seen(data) if len(data) <= _SMALL else _seen(data))


def long_seen(short: dict[str, Any]) -> dict[str, Any]:
    """The versions that were packed so, by channel."""
    return {channel: long_version(version) for channel, version in short.items()}


def _seen(data: bytes) -> dict[str, Any]:
    return long_seen(unpacked(data[len(_MARK) :]))


_known_seen: Final = lru_cache(_KEPT // 4)(_seen)
_SMALL: Final = 256


def short_parent(parent: str, own: str) -> str | bytes:
    """The id of a checkpoint's parent as it is packed."""
    short, beside = packed_id(parent), packed_id(own)
    if type(short) is not bytes or type(beside) is not bytes:
        return short
    differing = int.from_bytes(short, "big") ^ int.from_bytes(beside, "big")
    return short[_UUID_BYTES - (differing.bit_length() + 7) // 8 :]


def long_parent(short: str | bytes, own: str) -> str:
    """The parent's id that was packed so."""
    if isinstance(short, str) or len(short) == _UUID_BYTES:
        return unpacked_id(short)
    beside = packed_id(own)
    assert isinstance(beside, bytes)
    return unpacked_id(beside[: _UUID_BYTES - len(short)] + short)


_UUID_BYTES: Final = 16


def short_time(time: str, own: str) -> str | int:
    """The time of the checkpoint whose id is `own`, as it is packed."""
    minute, digits = time[:_MINUTE_CHARS], time[17:19] + time[20:26]
    began = _minutes.get(minute)
    if (
        began is not None
        and time[26:] == "+00:00"
        and time[19] == "."
        and digits.isascii()
        and digits.isdecimal()
        and digits < "60"
        and digits[2:] != "000000"
    ):
        short = began + int(digits)
    elif _is_written_so(time):
        short = _microseconds(time)
    else:
        return time
    beside = short - _time_of(own)
    if -_NEAR < beside < _NEAR:
        return beside
    return time if -_NEAR < short < _NEAR else short


def _microseconds(time: str) -> int:
    """Since 1970."""
    moment = dt.datetime.fromisoformat(time)
    since = moment - _EPOCH
    short = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    _minutes.clear()
    _minutes[time[:_MINUTE_CHARS]] = short - (moment.second * 1_000_000 + moment.microsecond)
    return short


def _is_written_so(time: str) -> bool:
    """Whether ``isoformat`` writes a time in UTC so."""
    try:
        moment = dt.datetime.fromisoformat(time)
    except ValueError:
        return False
    return moment.tzinfo is dt.UTC and moment.isoformat() == time


_minutes: Final[dict[str, int]] = {}
"""The last minute, as it is written, and when it began: times are of one, nearly always."""
_MINUTE_CHARS: Final = 17
_MINUTE: Final = 60_000_000
_EIGHT_DIGITS: Final = 100_000_000


def _time_of(own: str) -> int:
    """Microseconds since 1970 of the time in an id that is a UUID of version 6; 0 of any other."""
    packed = packed_id(own)
    if type(packed) is not bytes or packed[6] >> 4 != _VERSION_6:
        return 0
    ticks = int.from_bytes(packed[:8], "big")
    return ((ticks >> 16 << 12 | ticks & 0xFFF) - _GREGORIAN) // 10


_VERSION_6: Final = 6
_GREGORIAN: Final = 0x01B2_1DD2_1381_4000
"""1970 on the clock of UUIDs: ticks of 100 ns since 1582."""
_NEAR: Final = 1 << 31
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TICK: Final = dt.timedelta(microseconds=1)


def long_time(short: str | int, own: str) -> str:
    """The time that was packed so."""
    if isinstance(short, str):
        return short
    since = short + _time_of(own) if -_NEAR < short < _NEAR else short
    minute, beside = divmod(since, _MINUTE)
    digits = str(_EIGHT_DIGITS + beside)
    return f"{_written(minute)}{digits[1:3]}.{digits[3:]}+00:00" if beside % 1_000_000 else _written_whole(since)


@lru_cache(64)
def _written(minute: int) -> str:
    """A minute since 1970, as it is written before its seconds: times are of few, nearly always."""
    return _written_whole(minute * _MINUTE)[:_MINUTE_CHARS]


def _written_whole(since: int) -> str:
    return (_EPOCH + since * _TICK).isoformat()
