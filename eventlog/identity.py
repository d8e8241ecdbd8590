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
_read: Final = ctypes.string_at


def _addresses(objects: list[Any]) -> bytes:
    """Where objects lie. In CPython a tuple is its header and then the addresses of its items."""
    items = tuple(objects)  # nobody else has it, so nobody moves it meanwhile
    return _read(id(items) + _HEADER, len(items) * _WIDTH)


def _addresses_asked(objects: list[Any]) -> bytes:
    """The same where that is not known of tuples: one call for each object."""
    return array("Q", map(id, objects)).tobytes()


if sys.implementation.name != "cpython" or array("Q").itemsize != _WIDTH:
    _addresses = _addresses_asked


class Kept:
    """Objects, kept to be told from others."""

    __slots__ = ("_addresses", "objects")

    def __init__(self, objects: list[Any]) -> None:
        self.objects = objects
        self._addresses = bytearray()

    def add(self, end: Kept) -> None:
        """Keep more of them."""
        self.objects += end.objects

    def are(self, objects: list[Any]) -> bool:
        """Whether these are the same objects, in the same order. Runs no code of theirs."""
        known = len(self._addresses) // _WIDTH
        if known < len(self.objects):
            self._addresses += _addresses(self.objects[known:])
        return self._addresses == _addresses(objects)
