"""PostgreSQL as a storage engine: a log in a database that many machines share.

Owns how a call of the seam becomes one statement, and the outcome of a commit whose answer was lost. What the
statements do is `postgres_schema`'s, which connection asks them `postgres_server`'s.
"""

from __future__ import annotations

import os
import struct
from contextlib import nullcontext
from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from eventlog.errors import (
    ClosedError,
    ExpectationError,
    InvalidInputError,
    StorageError,
    TooLargeError,
)
from eventlog.storage import postgres_schema as schema
from eventlog.storage.base import FED, check_keys, check_starts
from eventlog.storage.postgres_groups import Answer, Batch, Groups, answers_of, arguments_of
from eventlog.storage.postgres_server import LostError, Row, Server, bigint, byteas, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from eventlog.storage import Synchronous
    from eventlog.storage.base import Range

    Pair = tuple[bytes, bytes]

_SYNCHRONOUS: Final = ("full", "normal", "off")
_MAX_BATCH_BYTES: Final = 512 << 20
"""PostgreSQL takes no parameter and no value of 1 GiB or more."""
_FIRST_PAGE_PAIRS: Final = 32
_PAGE_PAIRS: Final = 256
_PAGE_RANGES: Final = 256
_GROUP: Final = slice(1, 9)
_of_range, _of_key = itemgetter(0), itemgetter(1)
"""Where a page has them; the order of a union is nobody's promise."""
_LOG_ID_BYTES: Final = 8
_moment = struct.Struct(f">{_LOG_ID_BYTES}sQ")
"""How a position begins: whose it is, and the number of a transaction; the key follows."""
_AT: Final = _moment.size


class PostgresStorage:
    """A log in one schema of a PostgreSQL database, version 13 or later.

    Safe from any thread, from any number of processes on any number of machines, and in the child of a ``fork``.
    Reading never waits for writing. A commit is one round trip, two where somebody else is at the same run; a ``get``
    of however many keys is one, and so is a page of a ``scan``. What threads commit while one is away goes together
    with the next, as one transaction with one flush. It keeps no state in a session, so a pooler that hands each
    transaction to another connection will do.

    What a commit that returned survives is the server's business:

    - ``synchronous="full"``: the server's power loss. Refused where the server runs with ``fsync=off`` or
      ``full_page_writes=off``, for it cannot give that.
    - ``"normal"``: the same, as far as the server's own ``fsync`` and disks go; nothing is refused.
    - ``"off"``: the client's death. The server's end may take the last moments, about three times its
      ``wal_writer_delay``, and never anything older than what it takes (``synchronous_commit=off``).

    In the first two, ``synchronous_commit`` is what the server says, and ``on`` where it says ``off``. Where standbys
    are named in ``synchronous_standby_names``, a commit waits for them; where none are, a failover may take what was
    acknowledged.

    Commits of one run are in line, by an advisory lock of the transaction; nobody waits for a run that is not his own.
    A batch has at most 512 MiB.
    """

    def __init__(
        self,
        url: str,
        *,
        readonly: bool = False,
        synchronous: Synchronous = "normal",
        timeout_s: float = 30.0,
    ) -> None:
        """Open the log at `url`; unless `readonly`, make it where there is none.

        Args:
            url: as libpq takes it, ``postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE``; its ``?schema=NAME`` is the
                log's name in the database, ``eventlog`` if there is none.
            readonly: refuse every commit and write nothing. A standby will do.
            synchronous: see the class.
            timeout_s: how long a call waits for others, and for a server that is away.

        Raises:
            InvalidInputError: the URL cannot be read, or `synchronous` is none of the three.
            FormatError: no log there, something that is not a log, or one of a newer format.
            BusyError: the server takes no more connections.
            StorageError: the server cannot be reached, refuses, or does not give what `synchronous` asks for.
        """
        if synchronous not in _SYNCHRONOUS:
            raise InvalidInputError(f'synchronous is "full", "normal" or "off", not {synchronous!r}')
        place = place_of(url)
        self._location = place.shown
        self._readonly = readonly
        self._is_durable = synchronous != "off"
        self._timeout_ms = max(1, int(timeout_s * 1000))
        self._statements = schema.Statements(place.schema)
        self._salt = place.schema.encode()[:64]
        self._server = Server(place, timeout_s)
        self._groups = Groups(self._asked)
        schema.open_schema(self._server, place, readonly=readonly, is_full=synchronous == "full")

    @property
    def location(self) -> str:
        """The URL without password and options, but with the schema."""
        return self._location

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See ``Storage.get``; one statement.

        Raises:
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
            StorageError: the server is away, or refuses.
        """
        check_keys(keys)
        self._check_open()
        rows = self._pairs(self._statements.get, [byteas(keys)]) if keys else []
        return [*map({key: value for _, key, value in rows}.get, keys)]

    def scan(self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None) -> Iterator[Pair]:
        """See ``Storage.scan``. A page (256 pairs or 1 MiB, over up to 256 ranges) is one statement and no more.

        Raises:
            InvalidInputError: the start of a range is empty, so it names no kind; otherwise as `get`.
        """
        self._check_open()
        check_starts(ranges)
        return self._scanned(list(ranges), reverse=reverse, left=limit)

    def _scanned(self, ranges: list[Range], *, reverse: bool, left: int | None) -> Iterator[Pair]:
        asked = self._statements
        one, several = (asked.last, asked.backward) if reverse else (asked.first, asked.forward)
        size, at = _FIRST_PAGE_PAIRS, 0  # most readers want a few
        while at < len(ranges) and (left is None or left > 0):
            some = ranges[at : at + _PAGE_RANGES]
            count = size if left is None else min(left, size)
            low, high = (byteas(each[end] for each in some) for end in (0, 1))
            page = self._pairs(several if count > 1 else one, [low, high, bigint(count)])
            page.sort(key=_of_key, reverse=reverse)
            page.sort(key=_of_range)
            yield from ((key, value) for _, key, value in page)
            left = None if left is None else left - len(page)
            if len(page) < count and sum(len(value) for _, _, value in page) < schema.PAGE_BYTES:
                at += len(some)
                continue
            number, last, _ = page[-1]
            at += number - 1
            start, end = ranges[at]
            ranges[at] = (start, last) if reverse else (last + b"\0", end)
            size = _PAGE_PAIRS

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[Pair]:
        """See ``Storage.feed``.

        In the order of transactions' numbers, up to the oldest that is not over yet, in whatever database of the
        server: a transaction that stays open for hours holds the feed up for hours, and loses nothing.

        A position is one of this table of this cluster, and of its standbys: after a dump and restore, or
        ``pg_upgrade``, begin without one. What was dumped and restored is fed in its order as far as that can be, and
        the rest in key order. A server that was set back, or a standby that took over and had not got everything, is
        noticed as long as it has not got beyond the position again.

        Raises:
            InvalidInputError: no position of this log, one that an earlier release gave, or of what the server lost;
                otherwise as `get`.
        """
        self._check_open()
        if after and after[_AT : _AT + 1] != FED:
            raise self._unknown(after)
        return self._fed(after, limit)

    def _unknown(self, after: bytes) -> InvalidInputError:
        return InvalidInputError(
            f"{after.hex()} is no position in the feed of {self._location}: another log gave it, or an earlier "
            "release, or the server lost what was committed up to there; begin without one"
        )

    def _fed(self, after: bytes, left: int | None) -> Iterator[Pair]:
        while left is None or left > 0:
            count = _PAGE_PAIRS if left is None else min(left, _PAGE_PAIRS)
            page = self._fed_page(after, count)
            for number, key in page:
                after = number + key
                yield after, key
            left = None if left is None else left - len(page)
            if len(page) < count:
                return

    def _fed_page(self, after: bytes, count: int) -> list[Pair]:
        """The keys that are fed after a position, each with what its own begins with."""
        log_id, since = _moment.unpack_from(after) if after else (b"", 0)
        rows = self._read(self._statements.feed, [b"%d" % since, after[_AT:], bigint(count)])
        begun, _, name = next(text for _, key, text in rows if key is None).partition(b" ")
        mine = blake2b(name, digest_size=_LOG_ID_BYTES).digest()
        if after and (log_id != mine or (begun.isdigit() and since >= int(begun))):
            raise self._unknown(after)
        found = sorted((number, key) for number, key, _ in rows if key is not None)
        return [(_moment.pack(mine, number), key) for number, key in found]

    def _pairs(self, statement: bytes, arguments: Sequence[bytes]) -> list[Row]:
        """Rows that have a key."""
        return [row for row in self._read(statement, arguments) if row[1] is not None]

    def _read(self, statement: bytes, arguments: Sequence[bytes]) -> list[Row]:
        """What a statement that changes nothing answers; it is asked again where the connection broke."""
        return self._server.patiently(lambda: self._server.ask(statement, arguments))

    # --- writing --------------------------------------------------------------------------------------------------

    def commit(
        self,
        puts: Sequence[Pair],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,  # noqa: ARG002 (it always is)
    ) -> None:
        """See ``Storage.commit``; one round trip, two if it has to wait for a run. A key in both is written.

        Where the connection breaks before the answer, the batch is sent again. It is done once, whatever comes late: by
        then it does not find what it expects; or, where it expects nothing that it changes, the token that it left.

        Raises:
            ExpectationError: an expected key differs; nothing was written.
            CapacityError: no room on the server's disk; nothing was written.
            BusyError: others were first all the time; nothing was written.
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
            TooLargeError: the batch has more than 512 MiB.
            StorageError: opened readonly, the server is away or refuses; the message says whether the batch was
                written.
        """
        batch, wanted = dict(puts), dict(expect or {})
        check_keys(batch)
        check_keys(deletes)
        check_keys(wanted)
        self._check_open()
        if self._readonly:
            raise StorageError(f"{self._location} was opened readonly; nothing was written; open it for writing")
        size = sum(len(key) + len(value) for key, value in batch.items())
        if size > _MAX_BATCH_BYTES:
            raise TooLargeError("bytes of a batch in PostgreSQL", size, _MAX_BATCH_BYTES)
        is_once = any(wanted.get(key, value) != value for key, value in batch.items())
        gone = [key for key in deletes if key not in batch]
        locks = self._locks([*batch, *gone, *wanted])
        differing = self._committed(Batch(locks, batch, gone, wanted, None if is_once else os.urandom(16), size))
        if differing:
            raise ExpectationError(differing)

    def _committed(self, batch: Batch) -> list[bytes]:
        """The keys that differ, none if the batch was written."""
        try:
            answer = self._server.patiently(lambda: self._groups.answer(batch), is_lost_fatal=True)
            if answer.is_busy:
                answer = self._server.patiently(lambda: self._waited_for(batch), is_lost_fatal=True)
        except LostError as lost:
            return self._resolved(batch, lost)
        return answer.differing

    def _resolved(self, batch: Batch, lost: LostError) -> list[bytes]:
        """The same, after an answer was lost."""
        try:
            differing = self._server.patiently(lambda: self._waited_for(batch)).differing
            if not differing or batch.token is not None:
                return differing
            made = [key for key in batch.puts if batch.wanted.get(key, b"") is None] or list(batch.puts)
            return [] if self.get(made) == [batch.puts[key] for key in made] else differing
        except StorageError as error:
            raise StorageError(
                f"{self._location}: the connection was lost during a commit, and the batch may be there or not "
                f"({error}); look before writing again"
            ) from lost

    def _waited_for(self, batch: Batch) -> Answer:
        """What becomes of a batch that waits for its locks."""
        return self._asked([batch], self._timeout_ms)[0]

    def _asked(self, batches: list[Batch], timeout_ms: int = 0) -> list[Answer]:
        """What becomes of batches that have no lock in common; unless they may wait, some are busy."""
        options = [b"\1" if self._is_durable else b"\0", bigint(timeout_ms)]
        ((_, answer, _),) = self._server.ask(self._statements.commit, [*arguments_of(batches), *options])
        return answers_of(answer, len(batches))

    def _locks(self, keys: Iterable[bytes]) -> list[int]:
        """Numbers of advisory locks, in order: one for each run that the keys are of."""
        groups = {key[_GROUP] for key in keys}
        hashes = (blake2b(group, digest_size=8, key=self._salt).digest() for group in groups)
        return sorted(int.from_bytes(each, "big", signed=True) for each in hashes)

    def position(self) -> None:
        """None: to ask the server costs as much as to read a value."""
        self._check_open()

    # --- flushing -------------------------------------------------------------------------------------------------

    def at_once(self) -> AbstractContextManager[bool]:
        """Never: every commit goes to the server."""
        return nullcontext(False)

    def settle(self) -> None:
        """Nothing to do: every commit is settled when it returns."""
        self._check_open()

    def flush(self) -> None:
        """Return when everything committed before is on the server's stable storage.

        Raises as `get`.
        """
        self._check_open()
        if not self._is_durable and not self._readonly:
            self._read(self._statements.flush, [])

    def is_flushed(self) -> bool:
        """Whether everything committed so far is on the server's stable storage; it may say no too often."""
        self._check_open()
        return self._is_durable or any(self._read(self._statements.is_flushed, [])[0][1])

    # --- handles --------------------------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """Bytes of the table, its indexes and what is kept for them, as the server counts them."""
        self._check_open()
        return int.from_bytes(self._read(self._statements.size, [])[0][1], "big")

    def close(self) -> None:
        """Flush what is left, and give the connections back. Idempotent."""
        if self._server.is_closed:
            return
        try:
            self.flush()
        finally:
            self._server.close()

    def _check_open(self) -> None:
        if self._server.is_closed:
            raise ClosedError(f"{self._location} was closed; open it again")
