"""Where bytes live: one protocol, several engines. Nothing above this package knows which engine it stands on."""

from __future__ import annotations

import os
from typing import Literal

from eventlog.errors import InvalidInputError
from eventlog.storage.base import Storage

__all__ = ["Storage", "Synchronous", "open_storage"]

Synchronous = Literal["full", "normal", "off"]
"""What a commit that returned survives: power loss, the process's death, nothing."""


def open_storage(
    location: str | os.PathLike[str], *, readonly: bool = False, synchronous: Synchronous = "normal"
) -> Storage:
    """The storage at `location`: ``"memory:"`` for the process's own life, anything else a directory of LMDB.

    Raises:
        InvalidInputError: the location is empty, or a URL of a kind that no engine serves.
        FormatError: the directory holds something that is not a log.
    """
    if not isinstance(location, str | os.PathLike):
        raise InvalidInputError(f"a location is a path or 'memory:', not {location!r}")
    if location == "memory:":
        from eventlog.storage.memory import MemoryStorage  # noqa: PLC0415 (only the engine in use is imported)

        return MemoryStorage()
    if not str(location) or "://" in str(location):
        msg = f"no storage engine for {str(location)!r}: give a directory's path, or 'memory:'"
        raise InvalidInputError(msg)
    from eventlog.storage.local import LocalStorage  # noqa: PLC0415 (only the engine in use is imported)

    return LocalStorage(location, readonly=readonly, synchronous=synchronous)
