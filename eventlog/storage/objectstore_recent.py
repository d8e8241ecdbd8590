"""What a writer wrote or read last, so that it need not be asked for: nobody else can have changed it.

Owns which values are kept, and that none is older than what the database shows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Values = list[bytes | None]

_BYTES: Final = 32 << 20
_ENTRY_BYTES: Final = 200


class Recent:
    """Values by key, None for those that are absent; 32 MiB at most. Safe from any thread.

    While a batch is being written, its keys are not here: who reads them sees what the database shows, and never an old
    value beside a new one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[bytes, bytes | None] = OrderedDict()
        self._bytes = 0
        self._changes = 0  # odd while a batch is being written

    def get(self, keys: Sequence[bytes]) -> tuple[Values | None, int]:
        """The values of `keys`, None unless all are known; and what `learn` is to be told of what is read instead."""
        with self._lock:
            if not all(key in self._values for key in keys):
                return None, self._changes
            for key in keys:
                self._values.move_to_end(key)
            return [self._values[key] for key in keys], self._changes

    def learn(self, keys: Iterable[bytes], values: Iterable[bytes | None], changes: int) -> None:
        """Keep what was read, unless anything was written since `changes`, or is being written."""
        with self._lock:
            if changes == self._changes and not changes % 2:
                self._keep(zip(keys, values, strict=True))

    def forget(self, keys: Iterable[bytes]) -> None:
        """These keys are about to be written."""
        with self._lock:
            self._changes += 1
            for key in keys:
                self._drop(key)

    def written(self, values: Mapping[bytes, bytes | None]) -> None:
        """These keys were written, or deleted."""
        with self._lock:
            self._changes += 1
            self._keep(values.items())

    def _keep(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in pairs:
            self._drop(key)
            self._values[key] = value
            self._bytes += _size(key, value)
        while self._bytes > _BYTES:
            self._drop(next(iter(self._values)))

    def _drop(self, key: bytes) -> None:
        if key in self._values:
            self._bytes -= _size(key, self._values.pop(key))


def _size(key: bytes, value: bytes | None) -> int:
    return len(key) + len(value or b"") + _ENTRY_BYTES
