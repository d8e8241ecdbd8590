"""Whether many objects are the very ones that they were: one comparison of memory, where ``is`` would ask for each.

Owns how the addresses of objects are read. They mean something only while the objects are kept, so they are never kept
without them.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from typing import Any, Final

_HEADER: Final = tuple.__basicsize__
_WIDTH: Final = ctypes.sizeof(ctypes.c_void_p)
_NEAR: Final = 16
_read: Final = ctypes.string_at


def _addresses(objects: list[Any], most: int = sys.maxsize) -> bytes:
    """Where the first objects lie. In CPython a tuple is its header and then the addresses of its items."""
    items = tuple(objects)  # nobody else has it, so nobody moves it meanwhile
    return _read(id(items) + _HEADER, min(len(items), most) * _WIDTH)


def _addresses_asked(objects: list[Any], most: int = sys.maxsize) -> bytes:
    """The same where that is not known of tuples: one call for each object."""
    return array("Q", map(id, objects[:most])).tobytes()


if sys.implementation.name != "cpython" or array("Q").itemsize != _WIDTH:
    _addresses = _addresses_asked


class KnownObjects:
    """Objects, kept to be told from others."""

    __slots__ = ("_addresses", "objects")

    def __init__(self, objects: list[Any]) -> None:
        self.objects = objects
        self._addresses = bytearray()

    def add(self, end: KnownObjects) -> None:
        """Keep more of them."""
        self.objects += end.objects

    def begin(self, objects: list[Any]) -> bool:
        """Whether others begin with these, in the same order. Runs no code of theirs."""
        return self._known() == _addresses(objects, len(self.objects))

    def are(self, objects: list[Any]) -> bool:
        """Whether these are the same objects, in the same order. Runs no code of theirs."""
        return self._known() == _addresses(objects)

    def run(self, at: int, other: KnownObjects, other_at: int) -> int:
        """How many objects, from an index on, are the ones that others are from another index on."""
        here, there = self._known(), other._known()
        count, width = 0, _NEAR
        while True:
            one = here[(at + count) * _WIDTH : (at + count + width) * _WIDTH]
            two = there[(other_at + count) * _WIDTH : (other_at + count + width) * _WIDTH]
            if one != two or len(one) < width * _WIDTH:
                return count + _common_start(one, two) // _WIDTH
            count, width = count + width, width * 2

    def _known(self) -> bytearray:
        known = len(self._addresses) // _WIDTH
        more = len(self.objects) - known
        if more == 1:  # nearly always
            self._addresses += id(self.objects[-1]).to_bytes(_WIDTH, sys.byteorder)
        elif more:
            self._addresses += _addresses(self.objects[known:])
        return self._addresses


def _common_start(one: bytearray, two: bytearray) -> int:
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
