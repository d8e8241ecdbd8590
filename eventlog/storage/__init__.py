"""Where bytes live: one protocol, several engines. Nothing above this package knows which engine it stands on."""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Final, Literal

from eventlog.errors import InvalidInputError, MissingExtraError
from eventlog.storage.base import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Storage", "Synchronous", "open_storage"]

Synchronous = Literal["full", "normal", "off"]
"""What a commit that returned survives: power loss, the process's death, nothing."""


_SQLITE = "sqlite:///"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|sqlite:")
_SHARED: Final = (
    (("postgresql://", "postgres://"), "postgres", "PostgresStorage", "PostgreSQL"),
    (("redis://", "rediss://", "unix://"), "redis", "RedisStorage", "Redis"),
    (("s3://", "gs://", "az://", "file:///"), "objectstore", "ObjectStoreStorage", "object storage"),
)
"""How URLs of engines begin that many machines share; their module, which is also their extra; class, and name."""


def open_storage(
    location: str | os.PathLike[str], *, readonly: bool = False, synchronous: Synchronous = "normal"
) -> Storage:
    """The storage at `location`.

    Args:
        location: ``"memory:"`` for the process's own life; ``"sqlite:///relative.db"`` or ``"sqlite:////absolute.db"``
            for a file of SQLite, where all that follows the third slash is the path as it stands;
            ``"postgresql://HOST/DATABASE?schema=NAME"`` for a database of PostgreSQL (see `PostgresStorage`);
            ``"redis://HOST:PORT/DB?prefix=NAME"``, ``rediss://`` or ``unix://`` for a server of Redis (see
            `RedisStorage`); ``"s3://BUCKET/PREFIX"``, ``gs://``, ``az://`` or ``file:///PATH`` for an object store (see
            `ObjectStoreStorage`); anything else is the path of a directory, in which LMDB and a journal are.
        readonly: refuse every commit, and create nothing.
        synchronous: what a commit that returned survives.

    Raises:
        InvalidInputError: the location is empty, or a URL of a kind that no engine serves.
        FormatError: what is there is not a log.
        MissingExtraError: a package for it is missing.
    """
    if not isinstance(location, str | os.PathLike):
        raise InvalidInputError(f"a location is a path, 'memory:' or 'sqlite:///PATH', not {location!r}")
    if location == "memory:":
        from eventlog.storage.memory import MemoryStorage  # noqa: PLC0415 (only the engine in use is imported)

        return MemoryStorage()
    if str(location).startswith(_SQLITE):
        from eventlog.storage.sqlite import SqliteStorage  # noqa: PLC0415 (only the engine in use is imported)

        return SqliteStorage(_sqlite_path(str(location)), readonly=readonly, synchronous=synchronous)
    for beginnings, module, name, called in _SHARED:
        if str(location).startswith(beginnings):
            return _engine(module, name, called)(str(location), readonly=readonly, synchronous=synchronous)
    if not str(location) or _URL.match(str(location)):
        raise InvalidInputError(
            f"no storage engine for {_shown(str(location))}: give a directory's path, 'memory:', 'sqlite:///PATH', "
            + ", ".join(f"'{beginnings[0]}…'" for beginnings, *_ in _SHARED)
        )
    from eventlog.storage.local import LocalStorage  # noqa: PLC0415 (only the engine in use is imported)

    return LocalStorage(location, readonly=readonly, synchronous=synchronous)


def _engine(module: str, name: str, called: str) -> Callable[..., Storage]:
    try:
        found: Callable[..., Storage] = getattr(importlib.import_module(f"eventlog.storage.{module}"), name)
    except ImportError as error:
        raise MissingExtraError(f"a log in {called}", module) from error
    return found


def _shown(location: str) -> str:
    """A location as messages may show it: without a password."""
    return repr(re.sub("://.*@", "://…@", location))


def _sqlite_path(location: str) -> str:
    path = location.removeprefix(_SQLITE)
    if not path or path == ":memory:" or _URL.match(path):  # the second is what others write for one in memory
        raise InvalidInputError(f"{location!r} names no file: give 'sqlite:///PATH', or 'memory:' for one in memory")
    return path
