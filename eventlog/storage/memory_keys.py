"""Keys in order, in memory: some thousand in each list.

Owns nothing but the order. In one list for all, whatever comes or goes in the middle would move all that stand behind.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

_MOST: Final = 2048


class Keys:
    """Keys, each once, in order. Not for several threads at once."""

    __slots__ = ("_lasts", "_lists")

    def __init__(self) -> None:
        self._lists: list[list[bytes]] = []
        self._lasts: list[bytes] = []  # of each list: none is empty

    def add(self, key: bytes) -> None:
        """Put a key that is not there where it belongs."""
        lists, lasts = self._lists, self._lasts
        if not lasts or key > lasts[-1]:  # the common case: logs grow at the end
            if lasts and len(lists[-1]) < _MOST:
                lists[-1].append(key)
                lasts[-1] = key
            else:
                lists.append([key])
                lasts.append(key)
            return
        at = bisect_left(lasts, key)
        keys = lists[at]
        insort(keys, key)
        if len(keys) > _MOST:
            lists.insert(at, keys[: _MOST // 2])
            lasts.insert(at, lists[at][-1])
            del keys[: _MOST // 2]

    def remove(self, key: bytes) -> None:
        """Take a key away that is there."""
        at = bisect_left(self._lasts, key)
        keys = self._lists[at]
        del keys[bisect_left(keys, key)]
        if keys:
            self._lasts[at] = keys[-1]
        else:
            del self._lists[at], self._lasts[at]

    def between(self, start: bytes, end: bytes, count: int, *, reverse: bool) -> list[bytes]:
        """The first `count` keys with ``start <= key < end``, or the last ones, from the end backwards."""
        found: list[bytes] = []
        if start < end:
            lists = range(bisect_left(self._lasts, start), min(bisect_left(self._lasts, end) + 1, len(self._lists)))
            for at in reversed(lists) if reverse else lists:
                keys, room = self._lists[at], count - len(found)
                low, high = bisect_left(keys, start), bisect_left(keys, end)
                found += keys[max(low, high - room) : high][::-1] if reverse else keys[low : min(high, low + room)]
                if len(found) >= count:
                    break
        return found
