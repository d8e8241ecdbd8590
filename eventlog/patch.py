"""One run of bytes in terms of another: where a long stretch of both is the same, it is named and not repeated.

Owns the pieces and how they are found. It looks for what a value's bytes have in common with those of a value that
holds it, or that it holds: a common start and end, and a few long stretches wherever they lie. It is no general search.

Pieces stand one after another: bytes as they are, and pairs of integers, start and length of a copy.
"""

from __future__ import annotations

from typing import Final

_PROBE: Final = 24
_PROBES: Final = 4
_LEAST: Final = 32
_DEPTH: Final = 2


def patch(source: bytes, target: bytes, near: int = 0) -> list[bytes | int] | None:
    """Pieces that make `target` of `source`; None if they would not be clearly smaller than `target`.

    What lies behind `near` is looked at first: what thousands of tasks wrote is in one value, one after another.
    """
    if len(target) <= _LEAST:
        return None
    if source == target:
        return [0, len(target)]
    pieces = _pieces(source, target, near, _DEPTH)
    kept = sum(len(piece) if isinstance(piece, bytes) else 4 for piece in pieces)
    return pieces if kept * 2 <= len(target) else None


def _pieces(source: bytes, target: bytes, near: int, depth: int) -> list[bytes | int]:
    """A common start, a common end, and of what lies between the stretches that are found elsewhere."""
    start = _long(_common_start(source, target))
    rest = max(0, min(len(source), len(target)) - start)
    end = _long(_common_end(source[len(source) - rest :], target[len(target) - rest :]))
    middle = target[start : len(target) - end]
    pieces: list[bytes | int] = [0, start] if start else []
    found = _stretch(source, middle, near) if depth else None
    if found is not None:
        begin, at, size = found
        pieces += _pieces(source, middle[:at], near, depth - 1)
        pieces += [begin, size]
        pieces += _pieces(source, middle[at + size :], near, depth - 1)
    elif middle:
        pieces.append(middle)
    return [*pieces, len(source) - end, end] if end else pieces


def _long(size: int) -> int:
    return size if size >= _LEAST else 0


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


def behind(pieces: list[bytes | int]) -> int:
    """Where in the source the stretch ends that is copied last; 0 if none is."""
    numbers = [piece for piece in pieces if isinstance(piece, int)]
    return sum(numbers[-2:])


def _stretch(source: bytes, target: bytes, near: int) -> tuple[int, int, int] | None:
    """A long stretch of both: where it begins in `source`, where in `target`, and its length."""
    best: tuple[int, int, int] | None = None
    for probe in range(1, _PROBES + 1) if len(target) >= _PROBE else ():
        at = (len(target) - _PROBE) * probe // (_PROBES + 1)
        if best is not None and best[1] <= at < best[1] + best[2]:
            continue
        sought = target[at : at + _PROBE]
        begin = source.find(sought, near)
        begin = source.find(sought, 0, near + _PROBE) if begin < 0 else begin
        if begin < 0:
            continue
        back = _common_end(source[max(0, begin - at) : begin], target[:at])
        rest = target[at + _PROBE :]
        size = back + _PROBE + _common_start(source[begin + _PROBE : begin + _PROBE + len(rest)], rest)
        if size >= max(_LEAST, 0 if best is None else best[2]):
            best = (begin - back, at - back, size)
    return best


def _common_start(one: bytes, other: bytes) -> int:
    """How many bytes both begin with: as numbers, they differ from there on."""
    size = min(len(one), len(other))
    differing = int.from_bytes(one[:size], "big") ^ int.from_bytes(other[:size], "big")
    return size - (differing.bit_length() + 7) // 8


def _common_end(one: bytes, other: bytes) -> int:
    """How many bytes both end with."""
    size = min(len(one), len(other))
    differing = int.from_bytes(one[len(one) - size :], "little") ^ int.from_bytes(other[len(other) - size :], "little")
    return size - (differing.bit_length() + 7) // 8
