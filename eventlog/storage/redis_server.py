"""A server of Redis: its URL, and the connections of a handle to it.

Owns what is peculiar to the library. It must never ask again by itself: whether what was asked may be asked again is
known only where it is known what it was.
"""

from __future__ import annotations

import os
import re
import secrets
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis import exceptions as theirs

from eventlog.errors import CapacityError, ClosedError, FormatError, InvalidInputError, StorageError
from eventlog.storage.redis_errors import LOST, REFUSED, Away, Lost, Moved, Unreached, refusal
from eventlog.storage.redis_scripts import LANE, MAKE, Names, Script, closed
from eventlog.storage.redis_settings import ASKED, Facts, facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventlog.storage import Synchronous

FORMAT_VERSION: Final = 1
LANE_S: Final = 24 * 60 * 60
"""How long the server knows of a connection's last commit."""
_CONNECT_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 30.0
_MAX_IDLE: Final = 16
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class Place(NamedTuple):
    """Where a log is.

    Attributes:
        url: for the library; secret.
        prefix: name of the log on its server.
        shown: the URL for messages: without user, password and options.
    """

    url: str
    prefix: str
    shown: str


def place_of(url: str) -> Place:
    """What a URL names. Its ``?prefix=`` is ours, everything else the library's."""
    try:
        parts = urlsplit(url)
        if parts.fragment or parts.port == 0:
            raise ValueError
    except ValueError:  # which quotes from it
        why = "give redis://HOST:PORT, and %23 for a # in a password"
        raise InvalidInputError(f"this URL of a Redis server cannot be read: {why}") from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = options.pop("prefix", "eventlog")
    if not _PREFIX.fullmatch(prefix):
        why = "it is 1 to 100 ASCII letters, digits and any of _.:-"
        raise InvalidInputError(f"?prefix={prefix!r} cannot name a log in Redis: {why}")
    if "retry" in options:  # which only an object can be
        raise InvalidInputError("?retry= is nothing for a URL; what is lost is asked again anyway")
    shown = {name: options[name] for name in ("db",) if name in options} | {"prefix": prefix}
    host = parts.netloc.rpartition("@")[2]
    return Place(
        f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(options)}",
        prefix,
        f"{parts.scheme}://{host}{parts.path}?{urlencode(shown, safe=':')}",
    )


class Link:
    """One connection: one question at a time.

    Attributes:
        lane: the server's key of the last commit that came over this connection; empty before the first.
        asked: how many questions were asked, and so the number of the last one.
    """

    def __init__(self, connection: Any, where: str) -> None:
        self._connection = connection
        self._where = where
        self.lane = b""
        self.asked = 0

    def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> list[Any]:
        """What a script answers, without the number.

        Raises:
            Lost: it may have run or not.
            Unreached: the server is there, but does nothing now.
            EventLogError: the server refuses; nothing was written.
        """
        self.asked += 1
        number = b"%d" % self.asked
        rest: list[bytes | int] = [len(keys), *keys, number, *arguments]
        try:
            try:
                answer = self._exchange(b"EVALSHA", script.sha, *rest)
            except theirs.NoScriptError:  # the server was started, or told to forget, since somebody ran it
                answer = self._exchange(b"EVAL", script.source, *rest)
        except REFUSED as error:
            raise refusal(error, self._where) from error
        except LOST as error:
            raise self._lost(str(error)) from error
        if not isinstance(answer, list) or answer[:1] != [number]:
            raise self._lost("an answer came that was another question's")
        return answer[1:]

    def _exchange(self, *command: bytes | int) -> Any:
        self._connection.send_packed_command(self._connection.pack_command(*command), check_health=False)
        return self._connection.read_response(disable_decoding=True)

    def call(self, *commands: tuple[bytes | str | int, ...]) -> list[Any]:
        """What the server answers to plain commands, sent at once; its errors are returned, not raised.

        Raises:
            Lost: they may have been done or not.
            Unreached: the server is there, but does nothing now.
            EventLogError: the server refuses everything.
        """
        nonce = secrets.token_bytes(8)  # comes back last, unless an answer is another question's
        try:
            packed = self._connection.pack_commands([*commands, (b"ECHO", nonce)])
            self._connection.send_packed_command(packed, check_health=False)
            answers = [self._read() for _ in range(len(commands) + 1)]
        except REFUSED as error:
            raise refusal(error, self._where) from error
        except LOST as error:
            raise self._lost(str(error)) from error
        last = answers.pop()
        if isinstance(last, theirs.ResponseError):
            raise refusal(last, self._where) from last
        if last != nonce:
            raise self._lost("an answer came that was another question's")
        return answers

    def _read(self) -> Any:
        try:
            return self._connection.read_response(disable_decoding=True)
        except theirs.ResponseError as error:
            return error

    def _lost(self, why: str) -> Lost:
        return Lost(
            StorageError(f"{self._where}: the connection was lost ({why}); check that the server runs, and retry")
        )

    def close(self) -> None:
        """Give it back, and the lane with it, if that can be done at once."""
        if self.lane:
            with suppress(Exception):  # it would expire
                self.call((b"UNLINK", self.lane))
        self.drop()

    def drop(self) -> None:
        """Disconnect."""
        self._connection.disconnect()


class Links:
    """The connections of one handle to its server: one for each thread that asks at the same time.

    A child of ``fork`` has none of its parent's. Whenever a connection is made, it is looked whether the log is still
    there, and whether the server's settings still give what was asked for.

    Args:
        place: of the log.
        names: of the log's keys.
        mode: what a commit is to survive.
        readonly: no settings matter.
    """

    def __init__(self, place: Place, names: Names, mode: Synchronous, *, readonly: bool) -> None:
        try:
            # the library asks no questions again by itself, and no server is asked for another protocol
            options: dict[str, Any] = {
                "socket_timeout": _ANSWER_TIMEOUT_S,
                "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            }
            pool: Any = redis.ConnectionPool.from_url(place.url, protocol=2, **options)
            self._kind: Any = pool.connection_class
            self._options: dict[str, Any] = pool.connection_kwargs
            self._kind(**self._options)
        except (TypeError, ValueError, theirs.RedisError) as error:
            raise InvalidInputError(f"{place.shown} has an option that redis-py does not take: {error}") from None
        self._where = place.shown
        self._names = names
        self._mode = mode
        self._readonly = readonly
        self._address: dict[str, Any] = {}
        self._is_closed = False
        self.facts = Facts()
        self.log_id = b""
        self._begin()

    def _begin(self) -> None:
        self._idle: deque[Link] = deque()
        self._pid = os.getpid()

    @contextmanager
    def link(self) -> Iterator[Link]:
        """A connection that nobody else has meanwhile; after an error it is given up.

        Raises:
            ClosedError: the handle was closed.
            Unreached: the server is away or does nothing now.
            EventLogError: the server refuses, its settings do not give what was asked for, or the log is gone.
        """
        link = self._taken()
        try:
            yield link
        except CapacityError:
            with suppress(Unreached):  # it is good still, and a new one would take memory for another lane
                link.call()
                self._give_back(link)
            raise
        except BaseException as error:
            link.drop()
            self._note(error)
            raise
        self._give_back(link)

    def _give_back(self, link: Link) -> None:
        if self._is_closed or len(self._idle) >= _MAX_IDLE:
            link.close()
        else:
            self._idle.append(link)

    def _taken(self) -> Link:
        if self._is_closed:
            raise ClosedError(f"{self._where} was closed; open it again")
        if os.getpid() != self._pid:
            self._begin()
        with suppress(IndexError):
            return self._idle.pop()
        return self._connected()

    def _note(self, error: BaseException) -> None:
        """What a failure says about the other connections."""
        if isinstance(error, Moved):
            self._address = error.address
        if isinstance(error, Unreached):
            while self._idle:
                with suppress(IndexError):
                    self._idle.pop().drop()

    def _connected(self) -> Link:
        connection = self._kind(**self._options | self._address)
        link = Link(connection, self._where)
        try:
            try:
                connection.connect()
            except REFUSED as error:
                raise refusal(error, self._where) from error
            except LOST as error:
                self._address = {}
                why = f"{error}; check the URL, and that the server runs"
                raise Away(StorageError(f"{self._where} cannot be reached: {why}")) from error
            self._look(link)
        except BaseException as error:
            link.drop()
            self._note(error)
            raise
        return link

    def _look(self, link: Link) -> None:
        """Look at the server's settings and at the log; make the log, if it is to be opened and is not there."""
        info, *settings, found = link.call(
            (b"INFO",),
            *((b"CONFIG", b"GET", name) for name in ASKED),
            (b"HMGET", self._names.log, b"format", b"id"),
        )
        for answer in (info, found):
            if isinstance(answer, theirs.ResponseError):
                raise refusal(answer, self._where) from answer
        self.facts = facts_of(info, settings)
        self.facts.check_version(self._where)
        if not self._readonly:
            self.facts.check(self._mode, self._where)
        if found[0] is None and not self.log_id:
            found = self._made(link)
        self._check_log(*found)

    def _made(self, link: Link) -> list[bytes]:
        if self._readonly:
            why = "check URL and prefix, or open it without readonly to create one"
            raise FormatError(f"no log at {self._where}; {why}")
        made: list[bytes] = link.run(MAKE, [self._names.log], [b"%d" % FORMAT_VERSION, secrets.token_bytes(8)])[0]
        return made

    def _check_log(self, version: bytes | None, log_id: bytes | None) -> None:
        if self.log_id and log_id != self.log_id:
            why = "the log was deleted, or the server lost it, while it was open; nothing was written"
            raise StorageError(f"{self._where}: {why}; open it again")
        if version is None or not version.isdigit() or not log_id:
            raise FormatError(f"{self._where} cannot be opened as a log: its key is another program's; change ?prefix=")
        if int(version) > FORMAT_VERSION:
            why = f"its format is version {int(version)} and this release reads up to {FORMAT_VERSION}"
            raise FormatError(f"{self._where} cannot be opened as a log: {why}; upgrade the package")
        self.log_id = log_id

    def lane_of(self, link: Link) -> bytes:
        """The link's lane, on which its commits are numbered."""
        if not link.lane:
            lane = self._names.lane + secrets.token_hex(8).encode()
            link.run(LANE, [lane, closed(lane)], [b"%d" % LANE_S])
            link.lane = lane
        return link.lane

    def check_open(self) -> None:
        """Raise ``ClosedError`` after `close`."""
        if self._is_closed:
            raise ClosedError(f"{self._where} was closed; open it again")

    def close(self) -> None:
        """Close all connections; those in use as soon as they are given back. Idempotent."""
        self._is_closed = True
        if os.getpid() != self._pid:
            self._begin()
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()
