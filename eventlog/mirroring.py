"""A whole log elsewhere: copied once and verified, or followed as it grows.

Owns when which run is shipped. What has new events, the feed says. Nothing says what tasks wrote late, or what was
deleted or pruned; so runs that were shipped lately are looked at again, and beside that the source is read through bit
by bit, round after round, as long as its position moves: a run that is what it was when it was last shipped costs
nothing but this reading.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from eventlog.catalog import plain_name
from eventlog.errors import CorruptionError, InvalidInputError, NotFoundError
from eventlog.events import Problem
from eventlog.layout import NAME, name_key, run_of
from eventlog.lineage import Lineage
from eventlog.pairs import NAMES, Gap, Sum, gaps, run_digest, whole_log
from eventlog.records import where
from eventlog.shipping import Shipper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventlog.events import RunName
    from eventlog.storage import Storage

_TRIES: Final = 3
_RECENT_RUNS: Final = 64
_KNOWN_RUNS: Final = 1_000_000
_FED_KEYS: Final = 100_000
_MAX_PROBLEMS: Final = 100


class Comparison(NamedTuple):
    """What two logs hold.

    Attributes:
        digests: of all keys and records: the source's, the target's; equal if the logs are.
        keys: how many the source has.
        problems: where they differ; the first 100.
        runs: numbers of the runs that differ.
    """

    digests: tuple[bytes, bytes]
    keys: int
    problems: list[Problem]
    runs: set[int]


def compared(source: Storage, target: Storage, progress: Callable[[int], None] = lambda _: None) -> Comparison:
    """Read both logs whole and say where they differ."""
    ours, theirs = Sum(), Sum()
    problems: list[Problem] = []
    runs: set[int] = set()
    for bounds in whole_log():
        for gap in gaps(ours.of(source.scan([bounds])), theirs.of(target.scan([bounds]))):
            if len(problems) < _MAX_PROBLEMS:
                problems.append(_problem(source, gap))
            if gap.key[:1] != NAME:
                runs.add(run_of(gap.key))
        progress(ours.count)
    return Comparison((ours.digest(), theirs.digest()), ours.count, problems, runs)


def _problem(source: Storage, gap: Gap) -> Problem:
    what = "the copy lacks it" if gap.theirs is None else "the copy has another record than the source"
    if gap.ours is None:
        what = "the copy has it, and the source has not"
    name = None if gap.key[:1] == NAME else _name_of(source, run_of(gap.key))
    return Problem(name, where(gap.key), what)


def _name_of(storage: Storage, run: int) -> RunName | None:
    try:
        return plain_name(tuple(Lineage(storage, run).segment(0).origin[0]))
    except (NotFoundError, CorruptionError):  # it was deleted, has no events yet, or nobody can say
        return None


def copy(source: Storage, target: Storage, *, verify: bool, progress: Callable[[str, int], None]) -> Comparison | None:
    """Make `target` what `source` is; see `EventLog.copy_to`."""
    shipper = Shipper(source, target)
    _copy(shipper, progress)
    found = None
    for turn in range(_TRIES if verify else 0):
        found = compared(source, target, lambda keys: progress("verified", keys))
        if not found.problems or turn == _TRIES - 1:
            break
        damage = _Damage()
        for run in found.runs:
            with damage.apart():
                shipper.run(run, whole=True)
        _ship_names(shipper, damage)
        damage.tell()
    target.flush()
    return found


def _copy(shipper: Shipper, progress: Callable[[str, int], None]) -> None:
    shipper.check()
    damage = _Damage()
    for count, run in enumerate(shipper.runs(), 1):
        with damage.apart():
            shipper.run(run)
        progress("copied", count)
    _ship_names(shipper, damage)
    damage.tell()


def _ship_names(shipper: Shipper, damage: _Damage) -> None:
    for gap in shipper.names():
        with damage.apart():
            shipper.name(gap)


class _Damage:
    """Keeps the damage of one run from the others: it is told when they are done."""

    def __init__(self) -> None:
        self._untold: list[CorruptionError] = []
        self.count = 0

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Note damage that is found within."""
        try:
            yield
        except CorruptionError as error:
            self._untold.append(error)
            self.count += 1

    def tell(self) -> None:
        """Raise the first that was found since it was last told."""
        untold, self._untold = self._untold, []
        if untold:
            raise untold[0]


class Follower:
    """Keeps one log what another one is.

    After any error `turn` may be called again: it ships what it had not got to. Where a handle is none any more, open
    the log again and begin with another follower.

    Args:
        source: the log that is written.
        target: where it is shipped to; nobody else writes there.
    """

    def __init__(self, source: Storage, target: Storage) -> None:
        self._shipper = Shipper(source, target)
        self._source, self._target = source, target
        self._fed = b""
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._known: dict[int, bytes] = {}
        self._round: Iterator[None] | None = None
        self._began: int | None = None
        self._found = 0
        self._level: int | None = None
        self._damage, self._damaged = _Damage(), 0
        self.is_level = False
        """Whether the last round through the source found nothing to ship, and nothing was written since it began."""

    @property
    def keys(self) -> int:
        """How many keys were written or removed so far."""
        return self._shipper.keys

    def begin(self, progress: Callable[[str, int], None]) -> None:
        """Copy what there is.

        Raises:
            ConflictError: the target holds what is not from the source.
            StorageError: one of the two is away, or full; what was copied is not copied again.
        """
        for position, _ in self._source.feed():
            self._fed = position
        _copy(self._shipper, progress)

    def turn(self, budget_s: float) -> None:
        """Ship what was written since, and read on through the source for a while.

        Raises:
            ConflictError: the target holds what is not from the source.
            CorruptionError: something is damaged; all other runs were shipped.
            BusyError: a run is pruned all the time.
            StorageError: one of the two is away, or full.
        """
        position = self._source.position()
        if position is not None and position == self._level:
            return
        self.is_level, fed = False, self._fed
        try:
            self._ship_new()
            self._read_on(time.monotonic() + budget_s)
            self._target.settle()
        except BaseException:
            self.is_level, self._fed, self._round, self._level = False, fed, None, None
            raise
        self._damage.tell()

    def _ship_new(self) -> None:
        fed = self._new_events()
        for run in [*fed, *(run for run in self._recent if run not in fed)]:
            with self._damage.apart():
                self._ship(run)
        for run in fed:
            with self._damage.apart():
                self._name(run)
            self._recent[run] = None
            self._recent.move_to_end(run)
        while len(self._recent) > _RECENT_RUNS:
            self._recent.popitem(last=False)

    def _new_events(self) -> dict[int, None]:
        """The runs that have events which were not shipped, in the order of their first ones."""
        try:
            return self._fed_runs()
        except InvalidInputError:  # the source was restored, or lost what it had fed
            self._fed = b""
            return self._fed_runs()

    def _fed_runs(self) -> dict[int, None]:
        runs: dict[int, None] = {}
        for position, key in self._source.feed(self._fed, limit=_FED_KEYS):
            runs[run_of(key)] = None
            self._fed = position
        return runs

    def _ship(self, run: int) -> None:
        if self._shipper.run(run):
            self._known.pop(run, None)

    def _name(self, run: int) -> None:
        """Ship the name of a new run."""
        name = _name_of(self._source, run)
        if name is not None:
            key = name_key((name,) if isinstance(name, str) else name)
            ours, theirs = self._source.get([key])[0], self._target.get([key])[0]
            if ours != theirs:
                self._shipper.name(Gap(key, ours, theirs))

    def _read_on(self, until: float) -> None:
        if self._round is None:
            self._began, self._found, self._damaged = self._source.position(), self.keys, self._damage.count
            self._round = self._reading()
        for _ in self._round:
            if time.monotonic() > until:
                return
        self._round = None
        is_same = self.keys == self._found and self._damage.count == self._damaged
        self.is_level = is_same and self._began == self._source.position()
        self._level = self._began if self.is_level else None

    def _reading(self) -> Iterator[None]:
        """One round: each step looks at some names, or at one run."""
        names = self._source.scan([NAMES])
        while some := list(islice(names, _RECENT_RUNS)):
            there = self._target.get([key for key, _ in some])
            for (key, ours), theirs in zip(some, there, strict=True):
                if ours != theirs:
                    with self._damage.apart():
                        self._shipper.name(Gap(key, ours, theirs))
            yield
        for run in self._shipper.runs():
            with self._damage.apart():
                self._look_at(run)
            yield

    def _look_at(self, run: int) -> None:
        digest = run_digest(self._source, run)
        if self._known.get(run) == digest:
            return
        is_shipped = self._shipper.run(run, whole=True)
        if len(self._known) >= _KNOWN_RUNS:
            self._known.clear()
        if not is_shipped:  # else it is looked at once more
            self._known[run] = digest
