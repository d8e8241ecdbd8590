"""What a server's errors mean: ours for each of theirs, and whether to ask again.

Owns the table of the server's codes. It must only be asked about errors after which nothing was done.
"""

from __future__ import annotations

import re
from typing import Final

from redis import exceptions as theirs

from eventlog.errors import (
    BusyError,
    CapacityError,
    EventLogError,
    FormatError,
    StorageError,
)

REFUSED: Final = (theirs.ResponseError, theirs.BusyLoadingError, theirs.AuthenticationError)
"""What the library raises when the server says no."""
LOST: Final = (theirs.RedisError, OSError, ValueError)
"""What it raises when a connection breaks, or brings what is no answer."""


class Unreached(Exception):  # noqa: N818 (nobody outside sees it)
    """What was asked was not done, and may be asked again.

    Attributes:
        error: what to raise instead when there is no time left.
    """

    def __init__(self, error: EventLogError) -> None:
        super().__init__(str(error))
        self.error = error


class Away(Unreached):
    """Nobody answers there."""


class Lost(Unreached):
    """The connection was lost before the answer came: what was asked may have been done or not."""


class Moved(Unreached):
    """In a cluster, another server has the log."""

    def __init__(self, error: EventLogError, host: str, port: int) -> None:
        super().__init__(error)
        self.address = {"host": host, "port": port}


_CODES: Final = re.compile(
    r"\b(OOM|LOADING|BUSY|READONLY|MISCONF|NOREPLICAS|MASTERDOWN|WRONGTYPE|NOAUTH|CLUSTERDOWN)\b"
)
_MOVED: Final = re.compile(r"MOVED \d+ (.*):(\d+)")
_CODE_OF: Final[dict[type[Exception], str]] = {
    theirs.BusyLoadingError: "LOADING",
    theirs.NoPermissionError: "NOPERM",
    theirs.OutOfMemoryError: "OOM",
    theirs.ReadOnlyError: "READONLY",
    theirs.MasterDownError: "MASTERDOWN",
    theirs.ClusterDownError: "CLUSTERDOWN",
    theirs.TryAgainError: "CLUSTERDOWN",
    theirs.AuthenticationError: "NOAUTH",
}


def refusal(error: Exception, where: str) -> EventLogError | Unreached:
    """What to raise for the server's `error`; whenever this is called, nothing was done."""
    if moved := _moved(error):
        host, port = moved
        why = f"the cluster keeps the log at {host}:{port}; give that server's URL"
        return Moved(StorageError(f"{where}: {why}"), host, port)
    found = _CODES.search(str(error))
    code = _CODE_OF.get(type(error)) or (found[1] if found else "")
    if code == "OOM":
        why = "the server's memory is full (its maxmemory is reached); nothing was written"
        return CapacityError(f"{where}: {why}; raise maxmemory and retry")
    if code == "WRONGTYPE":
        why = f"a key of that prefix is not a log's ({error}); nothing was written; give another ?prefix="
        return FormatError(f"{where} cannot be opened as a log: {why}")
    if code in _PASSING:
        kind, why = _PASSING[code]
        return Unreached(kind(f"{where}: {why}; nothing was written"))
    return StorageError(f"{where}: {_LASTING.get(code, str(error))}; nothing was written")


def _moved(error: Exception) -> tuple[str, int] | None:
    """Where the log is, if that is what the error says; libraries before 6 leave it as the server put it."""
    if isinstance(error, theirs.MovedError):
        return error.host, error.port
    found = _MOVED.match(str(error))
    return (found[1], int(found[2])) if found else None


_PASSING: Final[dict[str, tuple[type[StorageError], str]]] = {
    "LOADING": (BusyError, "the server is still loading its data; retry in a while"),
    "BUSY": (BusyError, "the server is busy with somebody's script; retry in a while"),
    "READONLY": (StorageError, "the server is a replica, and writes go to its primary; give the primary's URL"),
    "MASTERDOWN": (StorageError, "the server is a replica that lost its primary; give the primary's URL, or wait"),
    "NOREPLICAS": (StorageError, "the server wants more replicas than it has (min-replicas-to-write); mend them"),
    "CLUSTERDOWN": (StorageError, "the cluster does not serve the log's slot just now; retry in a while"),
}
_LASTING: Final = {
    "NOAUTH": "the server refuses the user or the password of the URL; give others",
    "NOPERM": "the user of the URL may not do this; let it run EVAL, EVALSHA, ECHO, INFO and, on the log's keys, all",
    "MISCONF": "the server cannot save to its disk and so takes no writes (MISCONF); see its log and its disk",
}
