"""How a command ends: the exit codes, and the one error that carries its own.

Owns what a script that calls `eventlog` may rely on.
"""

from __future__ import annotations

from typing import Final

from eventlog.errors import (
    BusyError,
    CapacityError,
    CorruptionError,
    EventLogError,
    FormatError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    StorageError,
    UnknownTypeError,
)

OK: Final = 0
DIFFERS: Final = 1
USAGE: Final = 2
NO_STORE: Final = 3
IO_FAILED: Final = NO_STORE
"""As where a store cannot be read or written: stdout cannot be, or another file."""
DAMAGE: Final = 4
BUSY: Final = 5
MISSING_EXTRA: Final = 6
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141

_CODES: Final[tuple[tuple[tuple[type[EventLogError], ...], int], ...]] = (
    ((NotFoundError, InvalidInputError), USAGE),
    ((FormatError,), NO_STORE),
    ((CorruptionError,), DAMAGE),
    ((BusyError, CapacityError), BUSY),
    ((UnknownTypeError, MissingExtraError), MISSING_EXTRA),
    ((StorageError,), NO_STORE),
)


class CommandError(Exception):
    """The command cannot go on; the message says why and what to do next.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def exit_code(error: EventLogError) -> int:
    """The exit code for an error of the engine."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), 1)
