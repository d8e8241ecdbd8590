"""One run of bytes in terms of another: where a long stretch of both is the same, it is named and not repeated.

Owns the pieces and how they are found. It looks for what a value's bytes have in common with those of a value that
holds it, or that it holds: one long stretch, wherever it lies, and a common end after it. It is no general search.

Pieces stand one after another: bytes as they are, and pairs of integers, start and length of a copy.
"""

from __future__ import annotations

from typing import Final

_PROBE: Final = 24
_PROBES: Final = 4
_LEAST: Final = 32


def patch(source: bytes, target: bytes) -> list[bytes | int] | None:
    """Pieces that make `target` of `source`; None if they would not be clearly smaller than `target`."""
    found = _stretch(source, target)
    if found is None:
        return None
    begin, at, size = found
    rest, rest_from = target[at + size :], begin + size
    end = _common_end(rest, source[rest_from:])
    tail = len(rest) - end
    pieces: list[bytes | int] = [*_literal(target[:at]), begin, size, *_literal(rest[:tail])]
    if end >= _LEAST:
        pieces += [len(source) - end, end]
    else:
        pieces += _literal(rest[tail:])
    kept = sum(len(piece) if isinstance(piece, bytes) else 4 for piece in pieces)
    return pieces if kept * 2 <= len(target) else None


def patched(source: bytes, pieces: list[bytes | int]) -> bytes:
    """What `patch` was given as target."""
    made: list[bytes] = []
    given = iter(pieces)
    for piece in given:
        if isinstance(piece, bytes):
            made.append(piece)
        else:
            size = next(given)
            assert isinstance(size, int)
            made.append(source[piece : piece + size])
    return b"".join(made)


def _literal(data: bytes) -> list[bytes | int]:
    return [data] if data else []


def _stretch(source: bytes, target: bytes) -> tuple[int, int, int] | None:
    """A long stretch of both: where it begins in `source`, where in `target`, and its length."""
    if len(target) < _PROBE:
        return None
    for probe in range(1, _PROBES + 1):
        at = (len(target) - _PROBE) * probe // (_PROBES + 1)
        begin = source.find(target[at : at + _PROBE])
        if begin < 0:
            continue
        back = _common_end(source[:begin], target[:at])
        size = back + _PROBE + _common_start(source[begin + _PROBE :], target[at + _PROBE :])
        if size >= _LEAST:
            return begin - back, at - back, size
    return None


def _common_start(one: bytes, other: bytes) -> int:
    """How many bytes both begin with, found by halving."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(one: bytes, other: bytes) -> int:
    """How many bytes both end with."""
    return _common_start(one[::-1], other[::-1])
