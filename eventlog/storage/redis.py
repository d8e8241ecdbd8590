"""Redis as a storage engine: a log in the memory of a server that many machines share.

Owns how a call of the seam becomes one script, trying again, and the outcome of a commit whose answer was lost.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

from eventlog.errors import EventLogError, ExpectationError, InvalidInputError, StorageError, TooLargeError
from eventlog.storage.base import FED, check_keys, check_starts
from eventlog.storage.redis_errors import Away, Lost, Unreached, refusal
from eventlog.storage.redis_scripts import (
    COMMIT,
    FEED,
    GET,
    RESOLVE,
    SCAN,
    Names,
    Script,
    Sets,
    bounds_of,
    closed,
    pair_of,
    prefix_of,
    value_of,
)
from eventlog.storage.redis_server import LANE_S, Links, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from eventlog.storage import Synchronous
    from eventlog.storage.base import Range

    Pair = tuple[bytes, bytes]

T = TypeVar("T")

_SYNCHRONOUS: Final = ("full", "normal", "off")
_MAX_BATCH_BYTES: Final = (512 << 20) - (64 << 10)
"""Redis takes no argument over 512 MiB (``proto-max-bulk-len``), and a member holds key and value."""
_MAX_BATCH_KEYS: Final = 300_000
"""Redis takes no command of more than 1,048,576 arguments; a put is three."""
_FIRST_PAGE_PAIRS: Final = 32
_PAGE_PAIRS: Final = 256
_PAGE_BYTES: Final = 1 << 20
_PAGE_RANGES: Final = 256
_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.25
_PLACE_MS: Final = 6
_PLACE_N: Final = 4


class RedisStorage:
    """A log in Redis 6.2 or later, or Valkey.

    Safe from any thread, any number of processes on any number of machines, and in the child of a ``fork``. A commit
    is one script in one round trip; a ``get`` of any number of keys is one, and so is a page of a ``scan``. Scripts
    run one at a time, so whatever is read at once is from one moment.

    Redis keeps everything in memory, and a commit survives what the *server's* settings give. They are looked at
    whenever a connection is made, and a server that does not give what was asked for is refused:

    - ``synchronous="full"``: power loss. Needs ``appendonly yes``, ``appendfsync always`` and
      ``no-appendfsync-on-rewrite no``: the server flushes its append-only file before it answers.
    - ``"normal"``: the death of every client, and of the server except for what its file lags behind, which is
      nothing unless its disk is slow, and then 2 seconds. Power loss takes the last second or two. Needs
      ``appendonly yes`` and ``appendfsync everysec`` (Redis's default) or ``always``.
    - ``"off"``: the death of every client; what the server loses when it ends is its own settings' business.

    None of them survives a failover: a replica gets what was committed a moment later, and if it takes over before,
    what was acknowledged is gone. (``WAIT`` narrows that, and does not close it.) Nor do they survive a server that
    evicts: any ``maxmemory-policy`` but ``noeviction`` is refused. Where its memory is full, a log is opened, read and
    deleted from, and nothing is added.

    A log lies in one slot of a cluster: many logs spread over its servers, one log does not. A batch has at most
    300,000 keys and 512 MiB; while the server writes it, everybody waits: 15 to 30 µs for each key, and
    ten times as long for ten thousands of keys with equal values (Lua looks at a few of their bytes only).
    """

    def __init__(
        self, url: str, *, readonly: bool = False, synchronous: Synchronous = "normal", timeout_s: float = 15.0
    ) -> None:
        """Open the log at `url`; unless `readonly`, make it where there is none.

        Args:
            url: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``, ``rediss://`` for TLS, or ``unix:///PATH``. Its
                ``?prefix=NAME`` is the log's name on the server, ``eventlog`` if there is none; other options are
                redis-py's.
            readonly: refuse every commit and write nothing. A replica will do, and no settings matter.
            synchronous: see the class.
            timeout_s: how long a call tries again where the server is away, loading or busy.

        Raises:
            InvalidInputError: the URL cannot be read, or `synchronous` is none of the three.
            FormatError: no log there, something that is not a log, or one of a newer format.
            CapacityError: the server's memory is full.
            BusyError: the server is loading its data, or busy, for longer than `timeout_s`.
            StorageError: the server cannot be reached, refuses, or does not give what `synchronous` asks for.
        """
        if synchronous not in _SYNCHRONOUS:
            raise InvalidInputError(f'synchronous is "full", "normal" or "off", not {synchronous!r}')
        place = place_of(url)
        self._location = place.shown
        self._names = Names(place.prefix)
        self._links = Links(place, self._names, synchronous, readonly=readonly)
        self._readonly = readonly
        self._timeout_s = timeout_s
        self._patiently(self._look, is_away_fatal=True)

    def _look(self) -> None:
        with self._links.link():
            pass

    @property
    def location(self) -> str:
        """The URL, without user, password and options, but with the prefix."""
        return self._location

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See ``Storage.get``.

        Raises:
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes.
            BusyError: the server is loading or busy for too long.
            StorageError: the server is away for too long, or the log is gone.
        """
        check_keys(keys)
        if not keys:
            self._links.check_open()
            return []
        sets = Sets(self._names)
        asked: list[bytes] = []
        prefixes: list[bytes] = []
        for key in keys:
            prefix = prefix_of(key)
            prefixes.append(prefix)
            asked += (sets.number(key), prefix)
        members = self._read(GET, sets.keys, asked)
        return [
            None if member is None else value_of(prefix, key[:1], member)
            for key, prefix, member in zip(keys, prefixes, members, strict=True)
        ]

    def scan(
        self, ranges: Sequence[Range], *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """See ``Storage.scan``. A page (256 pairs or about 1 MiB, over up to 256 ranges) is from one moment.

        Raises:
            ClosedError: the storage was closed, before the call or between two pages.
            InvalidInputError: the start of a range is empty, so it names no kind.
            BusyError: the server is loading or busy for too long.
            StorageError: the server is away for too long, or the log is gone.
        """
        self._links.check_open()
        check_starts(ranges)
        return self._scanned([bounds for bounds in ranges if bounds[0] < bounds[1]], reverse=reverse, left=limit)

    def _scanned(self, ranges: list[Range], *, reverse: bool, left: int | None) -> Iterator[Pair]:
        size, at = _FIRST_PAGE_PAIRS, 0  # most readers want a few
        while at < len(ranges) and (left is None or left > 0):
            asked = ranges[at : at + _PAGE_RANGES]
            walked, *pages = self._pages(asked, size if left is None else min(left, size), reverse=reverse)
            for (start, _), members in zip(asked, pages, strict=False):
                for member in members:
                    yield pair_of(start[:1], member)
            left = None if left is None else left - sum(map(len, pages))
            at += walked
            if walked < len(pages) and pages[-1]:
                start, end = ranges[at]
                last, _ = pair_of(start[:1], pages[-1][-1])
                ranges[at] = (start, last) if reverse else (last + b"\0", end)
            size = _PAGE_PAIRS

    def _pages(self, ranges: Sequence[Range], count: int, *, reverse: bool) -> list[Any]:
        """How many ranges are done, and the members of each, and of one more that is not done."""
        sets = Sets(self._names)
        asked = [b"ZREVRANGEBYLEX" if reverse else b"ZRANGEBYLEX", b"%d" % count, b"%d" % _PAGE_BYTES]
        for bounds in ranges:
            low, high = bounds_of(bounds)
            asked += (sets.number(bounds[0]), *((high, low) if reverse else (low, high)))
        return self._read(SCAN, sets.keys, asked)

    def feed(self, after: bytes = b"", *, limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """See ``Storage.feed``. Positions are the server's own, which grow with its clock and never go back.

        Raises:
            ClosedError: the storage was closed, before the call or between two pages.
            InvalidInputError: `after` is no position of this log, or lies beyond its end: the server lost what was
                there (or a replica that had not got it took over).
            BusyError: the server is loading or busy for too long.
            StorageError: the server is away for too long, or the log is gone.
        """
        self._links.check_open()
        return self._fed(self._place(after), left=limit)

    def _place(self, position: bytes) -> tuple[int, int]:
        if not position:
            return 0, 0
        log_id = self._links.log_id
        rest = position.removeprefix(log_id)
        if len(position) != len(log_id) + _PLACE_MS + _PLACE_N or len(rest) == len(position):
            raise InvalidInputError(
                f"{position.hex()} is no position in the feed of {self._location}; begin without one"
            )
        return int.from_bytes(rest[:_PLACE_MS], "big"), int.from_bytes(rest[_PLACE_MS:], "big")

    def _position(self, place: tuple[int, int]) -> bytes:
        ms, n = place
        return self._links.log_id + ms.to_bytes(_PLACE_MS, "big") + n.to_bytes(_PLACE_N, "big")

    def _fed(self, place: tuple[int, int], *, left: int | None) -> Iterator[Pair]:
        while left is None or left > 0:
            count = _PAGE_PAIRS if left is None else min(left, _PAGE_PAIRS)
            entries, last = self._read(FEED, [self._names.feed], [b"(%d-%d" % place, b"%d" % count])
            if place > _numbers(last):
                why = "the server lost what was committed up to there; begin without one"
                raise InvalidInputError(f"a position lies beyond the end of the feed of {self._location}: {why}")
            for at, (_, rest) in entries:
                place = _numbers(at)
                yield self._position(place), FED + rest
            if len(entries) < count:
                return
            left = None if left is None else left - len(entries)

    def _read(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> list[Any]:
        """What a script answers that only reads, so that it may run again."""

        def attempt() -> list[Any]:
            with self._links.link() as link:
                return link.run(script, keys, arguments)

        return self._patiently(attempt)

    def _patiently(self, work: Callable[[], T], *, is_away_fatal: bool = False) -> T:
        """Do `work`, again and again while the server is away or busy."""
        deadline, pause = 0.0, _PAUSE_S
        while True:
            try:
                return work()
            except Unreached as failed:
                deadline = deadline or time.monotonic() + self._timeout_s
                if time.monotonic() >= deadline or (is_away_fatal and isinstance(failed, Away)):
                    raise failed.error from failed.__cause__
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    # --- writing --------------------------------------------------------------------------------------------------

    def commit(
        self,
        puts: Sequence[tuple[bytes, bytes]],
        deletes: Sequence[bytes] = (),
        expect: Mapping[bytes, bytes | None] | None = None,
        *,
        is_settled: bool = True,  # noqa: ARG002 (it always is)
    ) -> None:
        """See ``Storage.commit``; what it survives, see the class. A key in both is written.

        Where the connection is lost before the answer comes, it is found out whether the batch was written; if it was
        not, it is made certain that it never will be, and it is sent again.

        Raises:
            ExpectationError: an expected key differs; nothing was written.
            CapacityError: the server's memory is full; nothing was written.
            BusyError: the server is loading or busy for too long; nothing was written.
            ClosedError: the storage was closed.
            InvalidInputError: a key has not 1 to 511 bytes, or the batch is larger than the class says.
            StorageError: opened readonly, the server refused, the log is gone, or the server is away for too long; the
                message says whether the batch was written.
        """
        check_keys([key for key, _ in puts])
        check_keys(deletes)
        check_keys(expect or ())
        _check_size(puts, deletes, expect or {})
        self._links.check_open()
        if self._readonly:
            raise StorageError(f"{self._location} was opened readonly; nothing was written; open it for writing")
        keys, arguments = self._batch(puts, deletes, expect or {})
        differing = self._patiently(lambda: self._attempt(keys, arguments))
        if differing:
            expected = list(expect or ())
            raise ExpectationError([expected[n - 1] for n in differing])

    def _batch(
        self, puts: Sequence[Pair], deletes: Sequence[bytes], expect: Mapping[bytes, bytes | None]
    ) -> tuple[list[bytes], list[bytes]]:
        """Keys of the script after the lane, and its arguments."""
        sets = Sets(self._names, [b"", self._names.feed, self._names.fed])
        arguments = [b"%d" % LANE_S, b"%d" % len(expect), b"%d" % len(deletes)]
        for key, value in expect.items():
            arguments += (sets.number(key), prefix_of(key), b"" if value is None else b"=" + value)
        for key in deletes:
            arguments += (sets.number(key), prefix_of(key))
        for key, value in _in_order(puts):
            arguments += (sets.number(key), prefix_of(key), value)
        return sets.keys[1:], arguments

    def _attempt(self, keys: Sequence[bytes], arguments: Sequence[bytes]) -> list[int]:
        """Commit: the one place where anything becomes part of the log. The expectations that differ, if any.

        Raises:
            Unreached: nothing was written, nor ever will be by this attempt.
        """
        lane, number = b"", 0
        try:
            with self._links.link() as link:
                lane, number = self._links.lane_of(link), link.asked + 1
                outcome, *differing = link.run(COMMIT, [lane, *keys], arguments)
                if outcome == b"astray":  # it lay idle until its lane expired, or somebody emptied the server
                    why = "the server forgot the connection; nothing was written; retry"
                    raise Unreached(StorageError(f"{self._location}: {why}"))
                return differing
        except Lost as lost:
            if not number or not self._is_done(lane, number, lost):
                raise  # it was not sent, or never will be done
            return []

    def _is_done(self, lane: bytes, number: int, lost: Lost) -> bool:
        """Whether the commit of that number was done; if not, it never will be."""

        def attempt() -> bytes | None:
            with self._links.link() as link:
                newest: bytes | None = link.run(RESOLVE, [lane, closed(lane)], [])[0]
                return newest

        why = "the server forgot the connection"
        try:
            newest = self._patiently(attempt)
        except EventLogError as error:
            newest, why = None, str(error)
        if newest is None:
            unknown = "the connection was lost during a commit, and the batch may be there or not"
            raise StorageError(f"{self._location}: {unknown} ({why}); look before writing again") from lost.__cause__
        return int(newest) == number

    def position(self) -> None:
        """None: to ask the server whether anybody committed costs as much as to read a value."""
        self._links.check_open()

    # --- flushing -------------------------------------------------------------------------------------------------

    def at_once(self) -> AbstractContextManager[bool]:
        """Never: every commit goes to the server."""
        return nullcontext(False)

    def settle(self) -> None:
        """Nothing to do: every commit is settled when it returns."""
        self._links.check_open()

    def flush(self) -> None:
        """Return when everything committed before is on the server's disk (not on its replicas').

        With ``appendfsync always`` it already is. Otherwise the server is asked to say when it is, which it can from
        7.2 on; it takes up to a second or two.

        Raises:
            StorageError: this server cannot say it.
        """
        self._links.check_open()
        if self._links.facts.is_flushing:
            return
        self._patiently(self._await_flush)

    def _await_flush(self) -> None:
        facts = self._links.facts
        if not facts.is_appending or facts.version < (7, 2):
            why = "it keeps no append-only file" if not facts.is_appending else "it can be asked from Redis 7.2 on"
            what = (
                "CONFIG SET appendonly yes and appendfsync always, and open the log again: then every commit is flushed"
            )
            raise StorageError(f"{self._location}: the server cannot say when it has flushed: {why}; {what}")
        with self._links.link() as link:
            lane = self._links.lane_of(link)
            # It waits for what came over this connection: so something has to.
            _, flushed = link.call((b"EXPIRE", lane, LANE_S), (b"WAITAOF", 1, 0, int(self._timeout_s * 1000)))
        if isinstance(flushed, Exception):
            raise refusal(flushed, self._location) from flushed
        if not flushed[0]:
            raise StorageError(
                f"{self._location}: the server has not flushed within {self._timeout_s:g} s; see its disk"
            )

    def is_flushed(self) -> bool:
        """Whether everything committed so far is known to be on the server's disk: with ``appendfsync always``."""
        self._links.check_open()
        return self._links.facts.is_flushing

    # --- handles --------------------------------------------------------------------------------------------------

    def size_bytes(self) -> int:
        """About how many bytes of the server's memory the log takes, by its own estimate (``MEMORY USAGE``)."""

        def attempt() -> list[Any]:
            with self._links.link() as link:
                keys = [self._names.log, self._names.feed, *self._names.sets]
                return link.call(*((b"MEMORY", b"USAGE", key, b"SAMPLES", 100) for key in keys))

        sizes = self._patiently(attempt)
        for size in sizes:
            if isinstance(size, Exception):
                raise refusal(size, self._location) from size
        return sum(size or 0 for size in sizes)

    def close(self) -> None:
        """Give the connections back. Idempotent."""
        self._links.close()


def _in_order(puts: Sequence[Pair]) -> Iterable[Pair]:
    """`puts`, those that are fed in key order."""
    fed = [pair for pair in puts if pair[0][:1] == FED]
    if len(fed) < 2:  # noqa: PLR2004 (nothing to sort)
        return puts
    newest = dict(fed)
    return [*((key, newest[key]) for key in sorted(newest)), *(pair for pair in puts if pair[0][:1] != FED)]


def _check_size(puts: Sequence[Pair], deletes: Sequence[bytes], expect: Mapping[bytes, bytes | None]) -> None:
    count = len(puts) + len(deletes) + len(expect)
    if count > _MAX_BATCH_KEYS:
        raise TooLargeError("keys of a batch in Redis", count, _MAX_BATCH_KEYS)
    size = sum(len(value) for _, value in puts) + sum(len(value or b"") for value in expect.values())
    if size > _MAX_BATCH_BYTES:
        raise TooLargeError("bytes of a batch in Redis", size, _MAX_BATCH_BYTES)


def _numbers(place: bytes) -> tuple[int, int]:
    ms, n = place.split(b"-")
    return int(ms), int(n)
