"""Every error the engine raises.

Owns the error tree and nothing else. One root, and a class only where the caller would act differently. Facts about
an error are attributes, so that nobody has to read them out of the message; the message says what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class EventLogError(Exception):
    """Root of all errors of this package. After any of them log and handles are as they were before the call."""


class InvalidInputError(EventLogError, ValueError):
    """An argument that can never be right: the call changed nothing, mend the argument and call again."""


class InvalidIdError(InvalidInputError):
    """A name or an id that is not a plain, printable, short string.

    Attributes:
        what: which argument, for example ``"run name"``.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what


class UnserializableError(InvalidInputError):
    """A value that cannot be written so that it reads back equal, with its type.

    Attributes:
        path: where in the writes the value stands, for example ``messages[3].meta.callback``.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


class TooDeepError(UnserializableError):
    """A value nested deeper than the limit, or one that contains itself."""


class TooLargeError(InvalidInputError):
    """Something larger than a limit; refused before anything was written.

    Attributes:
        what: which limit, for example ``"value bytes"``.
        size: the size found (where counting stopped early, the least it is).
        limit: the greatest size allowed.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what}: {size:,} is over the limit of {limit:,}; write less, or raise the limit")
        self.what = what
        self.size = size
        self.limit = limit


class NotFoundError(EventLogError, LookupError):
    """No run, branch, event or step of that name."""


class ConflictError(EventLogError):
    """Somebody else wrote first: the head is not the one the caller expected. Nothing was written.

    ``run.refresh()`` takes over the actual head; then the caller decides whether its writes still hold.

    Attributes:
        expected: id of the head the caller expected, None for an empty branch.
        actual: id of the head there is, None for an empty branch.
    """

    def __init__(self, message: str, expected: str | None = None, actual: str | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class IdConflictError(ConflictError):
    """The same event id was used before, for other content. Nothing was written."""


class ClosedError(EventLogError):
    """The log was closed; open it again."""


class UnknownTypeError(EventLogError):
    """A stored value carries a type tag that nothing here can decode.

    Attributes:
        tag: the tag, as stored.
    """

    def __init__(self, tag: str, hint: str) -> None:
        super().__init__(f"unknown type tag {tag!r}: {hint}")
        self.tag = tag


class CorruptionError(EventLogError):
    """Stored bytes are not what was written. Other runs can still be read.

    Attributes:
        where: what is damaged: run, event or key.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}; restore it from a copy, or run verify() to see what else is damaged")
        self.where = where


class FormatError(EventLogError):
    """The place holds no log, or one of a format version that this release does not read."""


class MissingExtraError(EventLogError, ImportError):
    """The location is one that another package is needed for, and that is not installed.

    Attributes:
        extra: which extra of this package brings it.
    """

    def __init__(self, location: str, extra: str) -> None:
        super().__init__(f'{location} needs more: pip install "eventlog-savers[{extra}]"')
        self.extra = extra


class StorageError(EventLogError):
    """The storage failed. The message says whether the write was done.

    ``CapacityError`` and ``BusyError`` name the two cases that a caller can mend, ``TakenOverError`` the one that it
    must not mend by opening the log again and again.
    """


class CapacityError(StorageError):
    """No room: disk full, or the map cannot grow. Nothing was written; free some space and call again."""


class BusyError(StorageError):
    """Another process held the writers' lock for longer than the time limit. Nothing was written."""


class TakenOverError(StorageError):
    """Another process opened a log that one process writes, and writes it now: this handle never will again."""


class ExpectationError(EventLogError):
    """Storage only: an expected key holds other bytes. The log turns it into a ``ConflictError`` with both heads.

    Attributes:
        keys: the keys that differ, at least one.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__(f"expected bytes differ at {[key.hex() for key in keys]}")
        self.keys = list(keys)
