"""Connections to a PostgreSQL server, and what its errors mean.

Owns the place that a URL names, the pool, forks, and which failures say that nothing was done. It must know nothing of
what is asked.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
import weakref
from select import POLLIN, POLLOUT, poll
from struct import pack
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg_pool import ConnectionPool, PoolTimeout

from eventlog.errors import (
    BusyError,
    CapacityError,
    ClosedError,
    EventLogError,
    InvalidInputError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    Connection = psycopg.Connection[tuple[Any, ...]]

T = TypeVar("T")

SCHEMES: Final = ("postgresql://", "postgres://")
_SCHEMA: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_URL: Final = re.compile(r"(postgres(?:ql)?://(?:[^@/?\0]*@)?[^@/?\0]*(?:/[^@?\0]*)?)(?:\?([^\0]*))?", re.DOTALL)
_CONNECT_TIMEOUT_S: Final = 10
_MOST_CONNECTIONS: Final = 10
_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_BYTEA, _BIGINT = 17, 20
"""What the server calls these types; fixed for ever."""
_NULL: Final = pack(">i", -1)

logging.getLogger("psycopg").addHandler(logging.NullHandler())
"""What breaks is said by errors; who sets logging up reads the library's warnings as well, nobody else on stderr."""


class LostError(StorageError):
    """The connection broke between question and answer: what was asked may have been done or not."""


class AwayError(StorageError):
    """There was no connection to be had: nothing was asked."""


class Place(NamedTuple):
    """Where a log is.

    Attributes:
        conninfo: what the library connects to.
        schema: the log's name there.
        shown: the URL without password and options, but with the schema.
    """

    conninfo: str
    schema: str
    shown: str


def place_of(url: str) -> Place:
    """The place that a URL names.

    Raises:
        InvalidInputError: it cannot be read.
    """
    found, asked = _URL.fullmatch(url), ""
    options = parse_qsl(found[2] or "", keep_blank_values=True) if found else []
    named = [value for key, value in options if key == "schema"] or ["eventlog"]
    if not _SCHEMA.fullmatch(named[-1]):
        raise InvalidInputError("?schema= names a log by letters, digits, _ and -, at most 63, and no digit first")
    rest = urlencode([pair for pair in options if pair[0] != "schema"], quote_via=quote)
    try:
        conninfo = f"{found[1]}?{rest}" if found else ""
        known = conninfo_to_dict(conninfo)
    except psycopg.Error:  # which quotes from it, and that may be a password
        found = None
        asked = "" if any("@" in key for key, _ in options) else ", ".join(key for key, _ in options)
    if not found:
        raise InvalidInputError(
            f"this URL of PostgreSQL cannot be read: give {SCHEMES[0]}[USER[:PASSWORD]@]HOST[:PORT]/DATABASE, options "
            f"that libpq has (these: {asked or 'none'}), and %XX for what is no letter or digit in a password"
        )
    user = f"{known['user']}@" if "user" in known else ""
    port = f":{known['port']}" if "port" in known else ""
    host, database = known.get("host", ""), known.get("dbname", "")
    shown = f"{SCHEMES[0]}{user}{unquote(str(host))}{port}/{database}?schema={named[-1]}"
    return Place(conninfo, named[-1], shown)


Row = tuple[int, Any, Any]
"""A number, and two of ``bytes`` or None."""


def bigint(number: int) -> bytes:
    """A number as the server reads it."""
    return pack(">q", number)


def bigints(numbers: Iterable[int]) -> bytes:
    """An array of them."""
    parts = [part for number in numbers for part in (8, number)]
    return pack(f">5i{len(parts) // 2 * 'iq'}", 1, 0, _BIGINT, len(parts) // 2, 1, *parts)


def byteas(strings: Iterable[bytes | None]) -> bytes:
    """An array of ``bytea``."""
    parts = [_NULL if each is None else pack(">i", len(each)) + each for each in strings]
    return b"".join((pack(">5i", 1, int(_NULL in parts), _BYTEA, len(parts), 1), *parts))


class Server:
    """Connections to one place, kept while they are good; a child of ``fork`` makes its own.

    Args:
        place: what is connected to.
        timeout_s: how long a call waits for a connection, and for a server that is away.
    """

    def __init__(self, place: Place, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self.is_closed = False
        self.begin()
        _handles.add(self)

    def begin(self) -> None:
        """What a handle has before its first connection; in the child of a fork again."""
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Connection] | None = None

    def connect(self) -> Connection:
        """A connection of its own, made at once.

        Raises:
            AwayError: nobody answers.
            StorageError: the server refuses.
        """
        try:
            return psycopg.connect(self._place.conninfo, **_OPTIONS)
        except psycopg.Error as error:
            raise self.translated(error, is_connecting=True) from None

    def ask(self, statement: bytes, arguments: Sequence[bytes | None]) -> list[Row]:
        """What the server answers to one statement, in a transaction of its own.

        A number goes with each, and comes back in one of the rows: an answer to another question is never taken for it.

        Raises:
            LostError: the connection broke meanwhile, or brought another answer.
            AwayError: there was none to be had in time.
            ClosedError: the handle was closed.
            EventLogError: the server refused; nothing was done.
        """
        pool = self._pooled()
        try:
            connection = pool.getconn(self._timeout_s)
            try:
                return self._answered(connection, statement, arguments)
            finally:
                pool.putconn(connection)
        except PoolTimeout as error:
            with self.connect():  # to say why
                raise BusyError(
                    f"{self._place.shown}: no connection was free for {self._timeout_s:g} s; nothing was written"
                ) from error
        except psycopg.Error as error:
            if self.is_closed:
                raise ClosedError(f"{self._place.shown} was closed; open it again") from error
            raise self.translated(error) from error

    def _answered(self, connection: Connection, statement: bytes, arguments: Sequence[bytes | None]) -> list[Row]:
        self._check_idle(connection)
        number = bigint(-1 - random.getrandbits(62))
        try:
            rows = _exchanged(connection.pgconn, statement, [number, *arguments])
        except BaseException as error:
            if not isinstance(error, psycopg.Error) or not error.sqlstate:
                connection.close()  # what comes may be the rest of this answer
            raise
        if all(row[0] != number for row in rows):
            connection.close()
            raise LostError(f"{self._place.shown}: what came was no answer; the connection was closed")
        return [(int.from_bytes(row[0], "big", signed=True), row[1], row[2]) for row in rows]

    def _check_idle(self, connection: Connection) -> None:
        """Let go of a connection that was cut while nobody used it; pass over what came and nobody asked for."""
        try:
            connection.pgconn.consume_input()
            connection.pgconn.is_busy()
        except psycopg.OperationalError as error:
            connection.close()
            raise AwayError(f"{self._place.shown}: {_said(error)}; nothing was asked") from error

    def patiently(self, work: Callable[[], T], *, is_lost_fatal: bool = False) -> T:
        """Do `work`, again and again while the server is away, and where an answer was lost unless that is fatal."""
        deadline, pause_s = time.monotonic() + self._timeout_s, _PAUSE_S
        while True:
            try:
                return work()
            except (LostError, AwayError) as error:
                if isinstance(error, LostError) and is_lost_fatal:
                    raise
                if time.monotonic() + pause_s >= deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _pooled(self) -> ConnectionPool[Connection]:
        pool = self._pool
        if pool is not None:
            return pool
        with self._lock:
            if self.is_closed:
                raise ClosedError(f"{self._place.shown} was closed; open it again")
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._place.conninfo,
                    kwargs=_OPTIONS,
                    min_size=0,
                    max_size=_MOST_CONNECTIONS,
                    open=True,
                    num_workers=1,
                    reconnect_timeout=self._timeout_s,
                )
            return self._pool

    def close(self) -> None:
        """Give all connections back. Idempotent."""
        with self._lock:
            self.is_closed = True
            if self._pool is not None:
                self._pool.close()

    def inherit(self) -> None:
        """After a fork, in the child: connections that are its own. The parent's are never touched, nor let go."""
        _inherited.append(self._pool)
        self.begin()

    def translated(self, error: psycopg.Error, *, is_connecting: bool = False) -> EventLogError:
        """Our error for one of the library's."""
        why = f"{self._place.shown}: {_said(error)}"
        code = error.sqlstate or ""
        if is_connecting and (not code or code.startswith(("08", "57P"))):
            return AwayError(f"{why}; is the server there, and the URL right? Nothing was asked")
        if code.startswith(("08", "57P")) or (not code and isinstance(error, _BROKEN)):
            return LostError(f"{why}; the connection broke")
        kind, hint = _MEANINGS.get(code, (StorageError, "the server refused, and nothing was done"))
        return kind(f"{why}; {hint}")


_OPTIONS: Final[dict[str, Any]] = {
    "autocommit": True,
    "prepare_threshold": None,  # a pooler may hand the next transaction to another connection
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "application_name": "eventlog",
}
_BROKEN: Final = (psycopg.OperationalError, psycopg.InterfaceError)
_GONE: Final = (StorageError, "the log was dropped while it was open; nothing was written")
_MEANINGS: Final[dict[str, tuple[type[StorageError], str]]] = {
    "55P03": (BusyError, "other writers were first all the time; nothing was written"),
    "57014": (BusyError, "the server gave up, by its statement_timeout; nothing was written"),
    "53300": (BusyError, "nothing was written; close some connections, or raise max_connections"),
    "53100": (CapacityError, "nothing was written; make room on the server's disk"),
    "53200": (CapacityError, "nothing was written; the server has not enough memory for that"),
    "25006": (StorageError, "nothing was written; it is a standby, or set to read only"),
    "42501": (StorageError, "nothing was written; GRANT the user what it needs on the log's schema"),
    "42P01": _GONE,
    "3F000": _GONE,
    "42883": _GONE,
}


def _said(error: psycopg.Error) -> str:
    """What the server or the library says, in one line, without what may be a password."""
    return " ".join((error.diag.message_primary or str(error)).split())


def _exchanged(
    connection: PGconn, statement: bytes, arguments: Sequence[bytes | None]
) -> list[tuple[bytes, bytes | None, bytes | None]]:
    """Send a statement, and wait for its rows. Half the time of the library's cursor, which decodes by type.

    Raises:
        psycopg.Error: the server refused, or the connection broke, where it has no code.
    """
    connection.send_query_params(statement, arguments, param_formats=[Format.BINARY] * len(arguments), result_format=1)
    waiting = poll()
    waiting.register(connection.socket, POLLIN | POLLOUT)
    while connection.flush():
        waiting.poll()
        connection.consume_input()
    waiting.modify(connection.socket, POLLIN)
    last: PGresult | None = None
    while True:
        while connection.is_busy():
            waiting.poll()
            connection.consume_input()
        result = connection.get_result()
        if result is None:
            break
        last = result
    if last is None or last.status != ExecStatus.TUPLES_OK:
        raise _error_of(last)
    get: Any = last.get_value
    return [(get(row, 0), get(row, 1), get(row, 2)) for row in range(last.ntuples)]


def _error_of(result: PGresult | None) -> psycopg.Error:
    """What the server says in a result; without a code where it was the connection that broke."""
    if result is None or not result.error_field(DiagnosticField.SQLSTATE):
        said = b"" if result is None else result.error_message
        return psycopg.OperationalError(said.decode(errors="replace") or "no answer came")
    return psycopg.errors.error_from_result(result)


# --- forks ----------------------------------------------------------------------------------------------------------

_handles: weakref.WeakSet[Server] = weakref.WeakSet()
_inherited: list[object] = []


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle.inherit()


os.register_at_fork(after_in_child=_after_fork_in_child)
