"""A run: the handle that a user holds on one branch of one recorded history.

Owns what the arguments mean: names, steps, expected heads, limits. What is written and how is the rules' business.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from eventlog import delta
from eventlog.branches import MAIN, Branches, Draft, EventFacts
from eventlog.catalog import plain_name
from eventlog.diff import Diff, compare
from eventlog.drafting import Drafts, accept, value_at
from eventlog.entries import advanced, apply_changes, is_newest_read, placed
from eventlog.errors import (
    ConflictError,
    CorruptionError,
    EventLogError,
    IdConflictError,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
)
from eventlog.events import Branch, Event, Pruned, TaskWrite, auto_id
from eventlog.ids import check_id
from eventlog.layout import EVENT, MANIFEST, SNAPSHOT, all_of, head_key, id_key, place_of, segment_key
from eventlog.pruning import forget, prune
from eventlog.records import read_event
from eventlog.snapshots import add_up, play, progress_at, room_after
from eventlog.state import State
from eventlog.stretches import Stretches
from eventlog.tasks import Anchor, TaskWrites
from eventlog.trails import take_over
from eventlog.trunk import pruned, read_trunk, was_pruned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from eventlog.branches import Tip
    from eventlog.codec import Codec
    from eventlog.entries import Entries
    from eventlog.events import Limits, RunName
    from eventlog.lineage import Segment
    from eventlog.records import Body
    from eventlog.snapshots import Progress
    from eventlog.storage import Storage
    from eventlog.tasks import Kept

    Where = int | str | Event | State

T = TypeVar("T")
U = TypeVar("U")

_UNSEEN: Any = object()
_NOTHING: dict[str, Any] = {}
_STR = frozenset({str})
_new = tuple.__new__  # as in branches
_AUTO_ID = re.compile(r"e(\d{1,10})\.(\d{1,19})\.([0-9a-f]{8})")
_MAX_STEP = 1 << 62
_MAX_CHANNELS = 1 << 16
_LOOKS = 10
_FEW_EVENTS = 100
"""How many events of others a handle reads one by one when it is refreshed, before it looks for a manifest."""
_NEIGHBORS = 4
"""How far the state looked at last may lie before the one that is wanted, to be the shorter way than a manifest."""


class Prepared(NamedTuple):
    """One event, encoded and not yet written: what its values become later cannot change it.

    Made by `Run.prepare`, for `Run.write`.
    """

    tip: Tip
    at: tuple[int, int]
    draft: Draft
    may_fork: bool

    @property
    def payload_bytes(self) -> int:
        """Bytes of what the event says, as encoded: the state grows by no more."""
        plain, writes = self.draft[:2]
        size = sum(map(len, plain[2::3]))
        for _, write in writes:
            size += len(write[1])
        return size

    @property
    def state_bytes(self) -> int:
        """Bytes of the whole state after the event, as encoded, as far as known without decoding."""
        sizes = self.tip.sizes()
        for channel, code, _, growth in self.draft.changes:
            before = 0 if code in delta.SETS else sizes.pop(channel, 0)
            sizes[channel] = 0 if code == delta.DELETE else before + growth
        return sum(sizes.values())


class Door(Protocol):
    """How a handle comes to its run's number in the catalogue."""

    def listed(self) -> tuple[int, int, int] | None:
        """The run's number, incarnation and owner, as its name says; it may be one that is being deleted."""

    def find(self) -> tuple[int, int, int] | None:
        """The same; None if there is no such run."""

    def evidence(self, number: int, owner: int) -> list[bytes | None]:
        """What `find` looks at for the run of that number: it finds the same as long as this is the same."""

    def create(self) -> tuple[int, int, int]:
        """The same, of a run that is made where there is none."""


class Run:
    """One branch of one run: append to it, look at any of its past states, fork it.

    A handle sees the branch as it was when it last read or wrote it; `refresh` brings it up to date. It may be used
    from any thread, one call at a time; other handles and other processes may write the same run.

    Made by `EventLog.run`, `fork` and `branch`.
    """

    def __init__(
        self,
        storage: Storage,
        parts: tuple[str, ...],
        codec: Codec,
        limits: Limits,
        clock: Callable[[], int],
        door: Door,
        branch: str = MAIN,
    ) -> None:
        self._storage = storage
        self._parts = parts
        self._codec = codec
        self._drafts = Drafts(codec, limits, clock)
        self._limits = limits
        self._clock = clock
        self._door = door
        self._evidence: list[bytes | None] | None = None
        found = door.listed()
        branches = Branches(storage, *(found or (0, 0, 0)), parts, codec)
        self._begin(branches, branches.empty_tip())
        self._is_new = True
        self._branch = branch
        self._take_number(found)
        if self._is_new and branch != MAIN:
            raise NotFoundError(f"run {self.name!r} has no branch {branch!r}: it is empty")

    def _begin(self, branches: Branches, tip: Tip) -> None:
        """What a handle has of its own, wherever it begins."""
        self._lock = threading.RLock()
        self._branches = branches
        self._tip = tip
        self._branch = tip.segment.branch
        self._state: State | None = None
        self._task_writes: TaskWrites | None = None
        self._waiting: tuple[str, list[Kept]] = ("", [])  # by the id of the event to come, what it will be followed by
        self._beginning: tuple[bytes, bytes | None] | None = None
        self._newest: Event | None = None  # the head, if this handle wrote it or began with it
        self._looked_at: tuple[Branches, tuple[int, int], Entries] = (branches, (-1, -1), {})
        self._stretches = Stretches(branches)
        self._asked: dict[str, tuple[object, Any]] = {}  # see _once

    def _open(self) -> None:
        if not self._unless_pruned(self._stands):
            if self._branch != MAIN:
                raise NotFoundError(f"run {self.name!r} has no branch {self._branch!r}; run.branches() lists them")
            self._tip = self._branches.empty_tip()
        self._state = None

    def _stands(self) -> bool:
        """Take over where the branch stands; False if there is none."""
        standing = self._branches.standing(self._branch)
        if standing is not None:
            self._check_codec()
            self._stand_at(*standing)
        return standing is not None

    def _stand_at(self, segment: Segment, at: tuple[int, int]) -> None:
        """Take over the branch's head, and keep its event: who opens a run nearly always looks at that."""
        branches = self._branches
        if at[1] < 0:
            self._tip = branches.empty_tip()
            return
        read = branches.event(at)
        self._tip, self._newest = branches.tip_of(branches.facts(at, read), segment), branches.event_of(at, read)

    def _check_codec(self) -> None:
        written = self._branches.lineage.segment(0).origin[2]
        if written != self._codec.name:
            raise InvalidInputError(
                f"run {self.name!r} was written with the codec {written!r}, not {self._codec.name!r}; "
                "open it through what wrote it (a saver's run: through that saver)"
            )

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> RunName:
        """The run's name."""
        return plain_name(self._parts)

    @property
    def is_original(self) -> bool:
        """Whether it is in the log, and no run of its name was deleted before."""
        return not self._is_new and not self._branches.incarnation

    @property
    def branch_name(self) -> str:
        """The branch that this handle reads and writes."""
        return self._tip.segment.branch

    @property
    def head(self) -> Event | None:
        """The newest event that this handle knows of, None if the run is empty."""
        newest = self._newest
        if newest is not None and newest.digest == self._tip.digest:
            return newest
        return None if self._tip.is_empty else self._event_at(self._tip.at)

    @property
    def head_id(self) -> str | None:
        """The head's id; as ``head.id``, without reading the event."""
        return self._tip.head_id

    def stands_at(self, event: Event) -> bool:
        """Whether an event that this handle wrote is the head, as far as it knows."""
        return event is self._newest and event.digest == self._tip.digest

    @property
    def step(self) -> int:
        """The head's step, -1 if the run is empty."""
        return self._tip.step

    @property
    def state(self) -> State:
        """The state at the head. Needs no storage for what this handle wrote itself."""
        with self._lock:
            return self._head_state()

    def _head_state(self) -> State:
        """The same, for who holds the lock."""
        if self._state is None:
            self._state = State(self.head, dict(self._tip.entries), self._branches)
        return self._state

    def value(self, channel: str, default: Any = None) -> Any:
        """One channel's value at the head, decoded anew; `default` if there is no such channel.

        As ``state.get(channel, default)``, at a cost that does not grow with the number of channels.
        """
        with self._lock:
            tip = self._tip
            return value_at(self._branches, tip, channel) if channel in tip.entries else default

    def __len__(self) -> int:
        """How many events lead to the head, those before a fork included."""
        return self._tip.at[1] + 1

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Run {self.name!r}, branch {self.branch_name!r}: {len(self)} events, step {self.step}>"

    # --- writing --------------------------------------------------------------------------------------------------

    def append(
        self,
        writes: Mapping[str, Any],
        *,
        task: str | None = None,
        step: int | None = None,
        id: str | None = None,  # noqa: A002 (the word users know)
        meta: Mapping[str, Any] | None = None,
        expected: Event | str | None = _UNSEEN,
    ) -> Event:
        """Record one superstep of which the caller knows what changed.

        All or nothing; when it returns, every other handle and process sees it, and it survives what the log's
        durability says.

        Args:
            writes: per changed channel its new value, or `Extend`, `Splice`, `AppendText`, `Merge`, `Delete`,
                `Update`.
            task: who did it.
            step: the superstep's number, greater than the head's; by default one more.
            id: names the event within the run. Appending the same again under one id is done once: the event that is
                there is returned.
            meta: what else to keep about it, up to `Limits.meta_bytes`.
            expected: the head the caller saw, as event or id, None for an empty run; by default the one this handle
                saw last.

        Returns:
            The event.

        Raises:
            ConflictError: the head is another one; `refresh` takes it over.
            IdConflictError: the id names an event with other content.
            InvalidInputError: an argument that cannot be right; its subclasses `UnserializableError` and
                `TooLargeError` say where and how much.
            NotFoundError: the branch or the run was deleted.
        """
        if id is not None:
            return self._append_once(writes, None, task, step, id, meta, expected)
        with self._lock:
            if expected is not _UNSEEN:
                self._check_expected(expected)
            return self._write_draft(
                self._tip, self._drafts.one(self._branches, self._tip, writes, None, task, step, None, meta)
            )

    def commit(
        self,
        state: Mapping[str, Any],
        *,
        task: str | None = None,
        step: int | None = None,
        id: str | None = None,  # noqa: A002 (the word users know)
        meta: Mapping[str, Any] | None = None,
        expected: Event | str | None = _UNSEEN,
    ) -> Event:
        """Record one superstep that ended with `state`: find what changed since the head, and record that.

        What was changed in place is found too. A channel that is not in `state` is deleted; a state that equals the
        head's is an event without writes. Otherwise as `append`.
        """
        if id is not None:
            return self._append_once(None, state, task, step, id, meta, expected)
        with self._lock:
            if expected is not _UNSEEN:
                self._check_expected(expected)
            return self._write_draft(
                self._tip, self._drafts.one(self._branches, self._tip, None, state, task, step, None, meta)
            )

    def _append_once(
        self,
        writes: Mapping[str, Any] | None,
        state: Mapping[str, Any] | None,
        task: str | None,
        step: int | None,
        event_id: str,
        meta: Mapping[str, Any] | None,
        expected: Event | str | None,
    ) -> Event:
        """Append, unless it was done already: then the event that is there."""

        def draft(tip: Tip) -> Draft:
            return self._drafts.one(self._branches, tip, writes, state, task, step, event_id, meta)

        if self._is_new:
            fresh = self.branch(self._branch)  # somebody may have begun the run, with this very event
            if fresh._knows_id(event_id):  # noqa: SLF001 (its own)
                return fresh._append_once(writes, state, task, step, event_id, meta, expected)  # noqa: SLF001 (its own)
        with self._lock:
            try:
                done = self._done_before(event_id, draft)
                if done is not None:
                    return done
                self._check_expected(expected)
                return self._write_draft(self._tip, draft(self._tip))
            except ConflictError:  # somebody was first: perhaps with this very event
                done = self._done_before(event_id, draft)
                if done is None:
                    raise
                return done

    def _knows_id(self, event_id: str) -> bool:
        return not self._is_new and self._branches.id_entry(check_id("event id", event_id)) is not None

    def append_many(
        self,
        events: Iterable[Mapping[str, Any]],
        *,
        task: str | None = None,
        expected: Event | str | None = _UNSEEN,
    ) -> list[Event]:
        """Record several supersteps in one commit, all or none; each as `append` would.

        Args:
            events: the writes of each, oldest first; at most `Limits.batch_events`.
            task: who did them.
            expected: as in `append`.

        Returns:
            The events, in the order given; an empty list, and nothing written, for none.
        """
        limit = self._limits.batch_events
        batch = list(islice(events, limit + 1))
        if len(batch) > limit:
            raise TooLargeError("events in one batch", len(batch), limit)
        with self._lock:
            self._check_expected(expected)
            drafts, alike = self._drafts.several(self._branches, self._tip, batch, task)
            if not drafts:
                return []
            self._ensure_created()
            tip = self._tip
            segment, stood = tip.segment, EventFacts(tip.at, tip.step, tip.digest, tip.given_id)
            try:
                written = self._branches.write(tip, drafts, alike)
                self._forget(drafts, () if alike is None else alike.channels)
            except EventLogError:  # before it moved
                raise
            except BaseException:
                self._stand_back(segment, stood)
                raise
            return written

    def _forget(self, drafts: Iterable[Draft], others: Iterable[str]) -> None:
        """Drop what was remembered of channels that were written without looking at it."""
        self._state = None
        for draft in drafts if self._tip.shadows else ():
            for change in draft.changes:
                self._tip.shadows.pop(change[0], None)
        for channel in others:
            self._tip.shadows.pop(channel, None)

    def prepare(  # noqa: PLR0913 (it says all that one superstep can)
        self,
        writes: Mapping[str, Any] | None = None,
        *,
        encoded: Mapping[str, bytes] | None = None,
        state: Mapping[str, Any] | None = None,
        at: Where | None = None,
        task: str | None = None,
        step: int | None = None,
        id: str | None = None,  # noqa: A002 (the word users know)
        meta: Mapping[str, Any] | None = None,
        is_under_id: bool = False,
        may_fork: bool = True,
    ) -> Prepared:
        """Encode one superstep now, to be written later by `write`: from another thread, say.

        Args:
            writes: as in `append`; or else `state`, as in `commit`.
            encoded: beside `writes`, channels to be set to values that are bytes of the run's codec already.
            state: see `writes`.
            at: the event to write after. Where that is no branch's head any more, a new branch begins there, and this
                handle moves to it; so two writers of the same event both succeed. A branch that was forked there and
                not written to yet is taken instead. By default the head, as in `append`.
            task: as in `append`.
            id: as in `append`, but an id that names another event is taken over: it names the new one from then on.
            meta: as in `append`.
            step: as in `append`, but where it does not follow the step before, one more than that is taken.
            is_under_id: whether `write` is to fail by a `ConflictError` if the event `at` is no longer the one that its
                id names.
            may_fork: whether a new branch may begin at the event `at`; else `write` fails by a `ConflictError` where
                that is no head any more.

        Raises:
            NotFoundError: there is no event `at`; otherwise as `append`.
        """
        with self._lock:
            tip = self._tip
            if at is not None and (at is not self._newest or self._newest.digest != tip.digest):
                tip = self._tip_at(self._place(at))
            if step is not None and tip.at[1] >= 0 and step <= tip.step:
                step = None
            if encoded and writes == _NOTHING and task is None and not meta:
                draft = self._drafts.of_bytes(tip, encoded, step, id, is_under_id)
                return _new(Prepared, (tip, tip.at, draft, may_fork and at is not None))
            draft = self._drafts.one(self._branches, tip, writes, state, task, step, id, meta)
            plain, found = draft[:2]
            if encoded:
                more, larger = self._drafts.taken_over(encoded)
                plain, found = plain + more, found + larger
            draft = _new(Draft, (plain, found, *draft[2:7], True, is_under_id))
            return _new(Prepared, (tip, tip.at, draft, may_fork and at is not None))

    @contextmanager
    def unless_busy(self) -> Iterator[bool]:
        """Whether no other thread writes through this handle now; while that holds, none begins to. Never waits."""
        is_free = self._lock.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._lock.release()

    @contextmanager
    def at_once(self) -> Iterator[bool]:
        """Whether this thread may write through this handle now, and wait for nobody: for who runs an event loop.

        While that holds, what would have to wait all the same raises `BusyError`, and nothing was written.
        """
        with self.unless_busy() as is_free:
            if is_free:
                with self._storage.at_once() as is_free:  # noqa: PLW2901 (then so is the storage)
                    yield is_free
            else:
                yield False

    def values_of(self, prepared: Prepared) -> dict[str, Any]:
        """The values of the channels that an event changes, as they were when this handle prepared it.

        A value of which only the change was encoded is left out where what it was before is not there any more.
        """
        found: dict[str, Any] = {}
        with self._lock:
            for channel, code, data, _ in prepared.draft.changes:
                with suppress(NotFoundError, CorruptionError):  # pruned, or deleted, since then
                    if code in delta.SETS:
                        found[channel] = self._codec.decode(data)
                    elif code != delta.DELETE:
                        found[channel] = self._drafts.changed(self._value_before(prepared, channel), code, data)
        return found

    def _value_before(self, prepared: Prepared, channel: str) -> Any:
        tip = prepared.tip
        if tip.at == prepared.at:
            return value_at(self._branches, tip, channel)
        return State(*self._looked(prepared.at), self._branches)[channel]

    def write(self, prepared: Prepared) -> Event:
        """Write what `prepare` made; raises as `append`."""
        tip, at, draft, may_fork = prepared
        with self._lock:
            if tip.at == at and (at == self._tip.at or not (may_fork and self._is_followed(at))):
                try:
                    return self._write_draft(tip, draft)
                except ConflictError:
                    if not may_fork:
                        raise
            elif not may_fork:
                raise self._conflict(at)
            return self._fork_draft(at, draft)

    def _write_draft(self, tip: Tip, draft: Draft) -> Event:
        """Write at `tip`, which is where this handle stands from then on."""
        if self._is_new:
            self._ensure_created()
        segment, stood = tip.segment, (tip.at, tip.step, tip.digest, tip.given_id)
        try:
            written = self._branches.write_one(tip, draft)
            if tip.shadows or draft.writes:
                accept(tip, draft)
            self._tip, self._state, self._newest = tip, None, written
            if self._waiting[1]:
                self._take_waiting(tip)
        except EventLogError:  # before it moved
            raise
        except BaseException:
            if tip is self._tip:
                self._stand_back(segment, EventFacts(*stood))
            raise
        return written

    def _stand_back(self, segment: Segment, stood: EventFacts) -> None:
        """Stand where this handle stood, and remember nothing: after an interrupt half of what it moves may be moved.

        If the event was written all the same, a conflict says so to the next one.
        """
        branches = self._branches
        self._tip = branches.empty_tip() if stood.at[1] < 0 else branches.tip_of(stood, segment)
        self._state = None

    def _take_waiting(self, tip: Tip) -> None:
        """Let the next event be named by what waited for the one just written."""
        where, waiting = self._waiting
        if tip.anchored is not None and tip.anchored[0] == where:
            standing = (kept.standing(self._branches.run, tip.anchored[1]) for kept in waiting)
            tip.kept.update((kept.stands or kept.key, kept) for kept in standing)
            self._waiting = ("", [])

    def _fork_draft(self, at: tuple[int, int], draft: Draft) -> Event:
        """Write after an event that is no head: on the branch that was forked there last, or on a new one."""
        if draft.is_under_id:
            base = self._event_at(at)
            if base.given_id is not None and not self.is_current(base):
                raise ConflictError(f"the id {base.given_id!r} names another event by now; read it again")
        fork = self._branches.untouched_fork(at)
        tip = self._branches.tip_at(at, fork)
        try:
            written = self._branches.write(tip, [draft], fork=fork is None)[0]
        except ConflictError:  # another writer was first on the untouched branch
            tip = self._branches.tip_at(at)
            written = self._branches.write(tip, [draft], fork=True)[0]
        self._tip, self._state, self._newest = tip, None, written
        return written

    def _is_followed(self, at: tuple[int, int]) -> bool:
        """Whether the event at that place is no head, as far as this handle can know without storage."""
        if at == self._tip.at:
            return False
        segment = self._branches.lineage.segment(at[0])
        return segment.owner != self._branches.owner or self._branches.head_of(segment) != at

    def _done_before(self, event_id: str | None, draft: Callable[[Tip], Draft]) -> Event | None:
        """The event that an id names already, None if there is none.

        Raises:
            IdConflictError: drafting the same after its parent makes another event.
        """
        entry = None if event_id is None or self._is_new else self._branches.id_entry(check_id("event id", event_id))
        if entry is None:
            return None
        at = (entry[0], entry[1])
        read = self._branches.event(at)
        with suppress(InvalidInputError):  # what could not be written there was not
            if self._is_same(draft(self._tip_before(at)), at, read[2]):
                return self._branches.event_of(at, read)
        raise IdConflictError(f"the id {event_id!r} names another event of this run; choose another id")

    def _is_same(self, again: Draft, at: tuple[int, int], body: Body) -> bool:
        known = [(channel, code, self._drafts.opened(code, payload)) for channel, code, payload, _ in again.changes]
        writes = [
            (channel, code, self._drafts.opened(code, data if isinstance(data, bytes) else self._branches.part(data)))
            for channel, code, data, _ in placed(body.writes, at)
        ]
        return (again.step, again.task, again.meta, known) == (body.step, body.task, body.meta, writes)

    def _tip_before(self, at: tuple[int, int]) -> Tip:
        if not at[1]:
            return self._branches.empty_tip()
        return self._branches.tip_at((self._branches.lineage.holding(at[0], at[1] - 1).number, at[1] - 1))

    def _ensure_created(self) -> None:
        """Give a new run its number; until its first write it is in no catalogue."""
        if not self._is_new:
            return
        self._branches = Branches(self._storage, *self._door.create(), self._parts, self._codec)
        self._tip.segment = self._branches.empty_tip().segment
        self._is_new = False

    # --- heads ----------------------------------------------------------------------------------------------------

    def refresh(self) -> Run:
        """Take over the branch's head as it is now; returns this handle.

        Raises:
            NotFoundError: the branch or the run was deleted.
        """
        with self._lock:
            if not self._is_new:
                branch = self._tip.segment.branch
                segment = self._branches.segment_of(branch)
                if segment is None and not self._tip.is_empty:
                    raise NotFoundError(f"branch {branch!r} of run {self.name!r} is gone: it or its run was deleted")
                if segment is not None and self._stands_at_head(segment):
                    return self
                before, self._branch = self._tip, branch
                self._open()
                self._read_on(before)
            else:
                self._take_number(self._door.listed())
            return self

    def _read_on(self, before: Tip) -> None:
        """Go on from what this handle has read already, where others only appended a few events to that."""
        tip, known = self._tip, before.loaded
        if known is None or tip.segment != before.segment or tip.at[0] != before.at[0]:
            return
        if not 0 < tip.at[1] - before.at[1] <= _FEW_EVENTS:
            return

        anew = tip.load

        def load() -> Progress:
            branches, entries = self._branches, dict(before.entries)
            since = known.since + play(self._storage, branches.lineage, branches.run, tip.at, before.at[1], entries)
            if since >= room_after(known.manifest):
                return anew()  # whoever writes has written a manifest since, so there is less to apply
            return known._replace(entries=entries, since=since)

        tip.load = load

    def _stands_at_head(self, segment: Segment) -> bool:
        """Whether nobody wrote to the branch since this handle did: then it keeps what it has read."""
        tip = self._tip
        if segment != tip.segment or tip.head is None:
            return False
        return self._storage.get([head_key(self._branches.run, segment.number)])[0] == tip.head

    def is_stale(self) -> bool:
        """Whether the run was deleted, or made, since this handle was: open it again then.

        Costs one small read; asked again while nothing is written, none.
        """
        return self._once("stale", self._is_new, self._is_stale)

    def position(self) -> int | None:
        """A number that changes whenever anybody writes anything to the log; None where that would cost a read."""
        return self._storage.position()

    def _once(self, what: str, of: U, look: Callable[[U], T]) -> T:
        """What `look` finds of that; looked for once, as long as nobody commits anything to the storage."""
        position = self._storage.position()
        now = (position, self._branches, of)
        known = self._asked.get(what)
        if known is None or known[0] != now or position is None:
            known = self._asked[what] = (now, look(of))  # the position first: what is committed meanwhile changes it
        found: T = known[1]
        return found

    def _is_stale(self, is_new: bool) -> bool:
        known = None if is_new else (self._branches.run, self._branches.owner)
        evidence = None if known is None else self._door.evidence(*known)
        if evidence is not None and evidence == self._evidence:
            return False
        found = self._door.find()
        if found is not None and found[::2] == known:
            self._evidence = evidence
            return False
        return found is not None or known is not None

    def _take_number(self, found: tuple[int, int, int] | None) -> None:
        """Begin to use a run that was not there before, if it is not one that is being deleted."""
        while found is not None:
            if (self._branches.run, self._branches.incarnation, self._branches.owner) != found:
                self._branches = Branches(self._storage, *found, self._parts, self._codec)
            self._is_new = False
            try:
                self._open()
            except NotFoundError:
                again = self._door.find()
                if again == found:
                    raise
                found, self._is_new = again, True  # it was deleted while it was opened
            else:
                return

    def _check_expected(self, expected: Event | str | None) -> None:
        if expected is _UNSEEN:
            return
        if expected is not None and not isinstance(expected, Event | str):
            raise InvalidInputError(f"expected is an event, an event's id or None, not {expected!r}")
        if isinstance(expected, Event) and expected.run != self.name:
            raise InvalidInputError(f"expected is an event of run {expected.run!r}, this is run {self.name!r}")
        wanted = expected.id if isinstance(expected, Event) else expected
        if self._is_head(wanted):
            return
        self.refresh()  # the caller may have seen more than this handle
        if not self._is_head(wanted):
            head = self._tip.head_id
            raise ConflictError(f"branch {self.branch_name!r}: the head is {head}, not {wanted}", wanted, head)

    def _is_head(self, event_id: str | None) -> bool:
        tip = self._tip
        return event_id == tip.head_id or (not tip.is_empty and event_id == auto_id(*tip.at, tip.digest))

    def _conflict(self, at: tuple[int, int]) -> ConflictError:
        then = self._event_at(at).id if at[1] >= 0 else None
        now = self._tip.head_id
        return ConflictError(f"branch {self.branch_name!r}: the head is {now}, not {then}", then, now)

    # --- looking --------------------------------------------------------------------------------------------------

    def at(self, where: Where) -> State:
        """The state after any event of the run: by its step on this branch, its id, or the event itself.

        Raises:
            NotFoundError: there is no such event.
            InvalidInputError: not a step, an id, an event or a state; or one of another run.
        """
        at = self._place_of_id(where) if type(where) is str else self._place(where)
        if at == self._tip.at:
            with self._lock:  # another thread may append meanwhile: then the head's state is not what was asked for
                if at == self._tip.at:
                    return self._head_state()
        event, entries = self._looked(at)
        return State(event, entries, self._branches)

    def _looked(self, at: tuple[int, int]) -> tuple[Event, Entries]:
        """An event and the entries there: from what was looked at last, as far as that goes."""
        branches = self._branches
        of, seen, entries = self._looked_at
        if of is branches and seen[0] == at[0] and 0 <= at[1] - seen[1] <= _NEIGHBORS:
            entries, trailing = dict(entries), set[str]()  # their values are read already
            try:
                play(self._storage, branches.lineage, branches.run, at, seen[1], entries, trailing)
                add_up(entries, trailing, self._codec)
                found = branches.event(at)
            except (CorruptionError, NotFoundError):  # what lies between may be pruned since
                found, entries = self._read_at(at)
        else:
            known = entries
            found, entries = self._read_at(at)
            if of is branches:
                take_over(entries, known)
        self._looked_at = (branches, at, entries)
        return branches.event_of(at, found), entries

    def _read_at(self, at: tuple[int, int]) -> tuple[tuple[bytes, bytes, Body], Entries]:
        branches = self._branches
        if self._stretches.branches is not branches:
            self._stretches = Stretches(branches)
        with suppress(CorruptionError):  # who reads without them knows whether it was pruned meanwhile
            found = self._stretches.look(at)
            if found is not None:
                return found
        return branches.event(at), progress_at(self._storage, branches.lineage, branches.run, at).entries

    def event(self, where: Where) -> Event:
        """The event itself; arguments and errors as for `at`."""
        return self._event_at(self._place(where))

    def events(
        self, start: Where | None = None, stop: Where | None = None, *, reverse: bool = False
    ) -> Iterator[Event]:
        """The events of this branch, those before its fork included, oldest first, or newest first if `reverse`.

        Args:
            start: the oldest to give; by default the first one.
            stop: the newest to give, inclusive; by default the head.
            reverse: begin with the newest.

        Returns:
            A lazy iterator; nothing is held open between two items.
        """
        first, last = self._bounds(start, stop)
        if last[1] < 0:
            return
        ranges = self._branches.lineage.ranges(EVENT, last[0], last[1], first)
        pairs = self._storage.scan(ranges[::-1] if reverse else ranges, reverse=reverse)
        wanted = range(last[1], first - 1, -1) if reverse else range(first, last[1] + 1)
        for at, key, record in self._dense(pairs, wanted, last):
            yield self._branches.event_of(at, read_event(key, record))

    def given_ids(self, before: str | None = None, *, limit: int | None = None) -> Iterator[str]:
        """The ids that writers gave to events of this run, on any branch, greatest first, compared as UTF-8 bytes.

        Args:
            before: only ids less than this one.
            limit: at most so many.
        """
        if not self._is_new:
            yield from self._branches.naming.ids(before, limit)

    def greatest_id(self) -> str | None:
        """The first of `given_ids`, None if there is none. Asked again while nothing is written it costs no read."""
        return self._once("greatest id", self._is_new, self._greatest_id)

    def _greatest_id(self, is_new: bool) -> str | None:
        branches, position = self._branches, self._storage.position()
        found = None if is_new else branches.naming.newest()
        if found is None:
            return None
        self._asked["id"] = ((position, branches, found[0]), found[1])  # as in `_once`: it is asked next, nearly always
        return found[0]

    def _id_entry(self, event_id: str) -> list[int] | None:
        if self._is_new:
            return None
        return self._once("id", event_id, self._branches.id_entry)

    def is_current(self, event: Event) -> bool:
        """Whether the id that an event was given still names it, and not one that was written under it since."""
        entry = None if event.given_id is None or self._is_new else self._branches.id_entry(event.given_id)
        return entry is not None and (entry[0], entry[1]) == (event.segment, event.seq)

    def are_current(self, events: Sequence[Event]) -> list[bool]:
        """As `is_current`, of several events by one read; an id that was forgotten still names what it named then."""
        ids = [event.given_id for event in events if event.given_id is not None]
        entries = {} if self._is_new else dict(zip(ids, self._named(ids), strict=True))
        found = [entries.get(event.given_id) if event.given_id is not None else None for event in events]
        return [
            entry is not None and (entry[0], entry[1]) == (event.segment, event.seq)
            for event, entry in zip(events, found, strict=True)
        ]

    def _named(self, ids: Sequence[str]) -> list[list[int] | None]:
        return self._branches.naming.entries(ids, forgotten=True)

    def forgotten(self, id: str) -> Event | None:  # noqa: A002 (the word users know)
        """The event that an id names, or named when it was forgotten; None if there is none."""
        entry = None if self._is_new else self._named([check_id("event id", id)])[0]
        return None if entry is None else self._event_at((entry[0], entry[1]))

    def was_pruned(self) -> bool:
        """Whether events of it were removed by `prune`."""
        return not self._is_new and read_trunk(self._storage, self._branches.run) is not None

    def payloads_by(self, event: Event) -> Mapping[str, bytes | None]:
        """What an event of this run sets to small values, as encoded, by channel; None for one that it deletes."""
        return self._branches.payloads_by(event)

    def written_by(self, event: Event, channel: str) -> Any:
        """As ``event.writes.get(channel)``, decoding nothing else."""
        return self._branches.written_by(event, channel)

    def replay(self, start: Where | None = None, stop: Where | None = None) -> Iterator[tuple[Event, State]]:
        """Each event with the state after it, oldest first. Runs no user code; arguments as for `events`."""
        first, last = self._bounds(start, stop)
        if last[1] < 0:
            return
        branches = self._branches
        entries = {}
        begins_at = branches.first_seq() if first else 0
        if first > 0 and first == begins_at:  # nothing is left before it, and its own state is known
            at = (branches.lineage.holding(last[0], first).number, first)
            yield (event := self._event_at(at)), self.at(event)
            entries = progress_at(self._storage, branches.lineage, branches.run, at).entries
            entries.update(branches.read(at, entries, list(entries)))
            first += 1
            if first > last[1]:
                return
        elif first > 0:
            before = (branches.lineage.holding(last[0], first - 1).number, first - 1)
            entries = progress_at(self._storage, branches.lineage, branches.run, before).entries
            entries.update(branches.read(before, entries, list(entries)))
        pairs = self._storage.scan(branches.lineage.ranges(EVENT, last[0], last[1], first))
        for at, key, record in self._dense(pairs, range(first, last[1] + 1), last):
            read = read_event(key, record)
            changed, _ = advanced(entries, placed(read[2].writes, at), at, len(record))
            apply_changes(entries, changed)
            unread = [channel for channel in changed if channel in entries and not is_newest_read(entries[channel])]
            if unread:
                entries.update(branches.read_newest(at, entries, unread))
            add_up(entries, changed, self._codec)
            yield (event := self._branches.event_of(at, read)), State(event, dict(entries), branches)

    def _dense(
        self, pairs: Iterator[tuple[bytes, bytes]], wanted: Iterable[int], last: tuple[int, int]
    ) -> Iterator[tuple[tuple[int, int], bytes, bytes]]:
        """Place, key and record of the events at the `wanted` seqs before `last`; an error where one is missing."""
        for seq in wanted:
            key, record = next(pairs, (b"", b""))
            if not key or place_of(key)[1] != seq:
                is_pruned = was_pruned(self._storage, self._branches.run, (last[0], seq))
                self._branches.lineage.check_alive()  # afterwards, for the trunk goes with the run
                if is_pruned:
                    raise pruned((last[0], seq))
                raise CorruptionError(f"run {self.name!r}", f"the event at seq {seq} is missing")
            yield place_of(key), key, record

    def _bounds(self, start: Where | None, stop: Where | None) -> tuple[int, tuple[int, int]]:
        last = self._tip.at if stop is None else self._place(stop)
        if start is None:
            return (0 if self._is_new else self._branches.first_seq()), last
        first = self._place(start)
        if first[1] > last[1] or self._branches.lineage.holding(last[0], first[1]).number != first[0]:
            raise InvalidInputError("start does not lie before stop on one history")
        return first[1], last

    def diff(self, a: Where, b: Where | None = None) -> Diff:
        """What differs from the state at `a` to the state at `b` (the head, if None)."""
        return compare(self.at(a), self.state if b is None else self.at(b))

    def task_writes(self, where: Where) -> list[TaskWrite]:
        """What tasks wrote in the superstep after an event; see `put_task_writes`. Sorted by path, task and slot.

        An id that no event has yet is no error: writes may come before their event.
        """
        anchored = self._tip.anchored
        if anchored is not None and where == anchored[0]:
            return self._tasks().of(_new(Anchor, (anchored[1], anchored[0])))
        return [] if self._is_new else self._tasks().of(self._anchor(where))

    def task_writes_along(self, events: Sequence[Event], channels: Collection[str]) -> list[list[TaskWrite]]:
        """As `task_writes` of each of `events`, in `channels` alone; a fixed number of reads, however many they are.

        The values are bytes of the run's codec: many are asked for of whom few are looked at.
        """
        ids = [event.given_id for event in events if event.given_id is not None]
        entries = dict(zip(ids, self._named(ids), strict=True))
        anchors = []
        for event in events:
            entry = None if event.given_id is None else entries[event.given_id]
            at = (event.segment, event.seq) if entry is None else (entry[2], entry[3])
            anchors.append(Anchor(at, event.given_id))
        return self._tasks().along(anchors, channels)

    def put_task_writes(self, where: Where, writes: Sequence[TaskWrite]) -> None:
        """Keep what tasks wrote in the superstep after an event, before the event of that superstep is written.

        All or nothing. A write with a slot of 0 or more that is there already stays as it is; one with a negative slot
        is replaced. They stay when the next event is written, and are no part of any state.

        Args:
            where: the event, as for `at`; an id may be one that no event has yet.
            writes: what was written; values as in `append`.
        """
        with self._lock:
            if self._is_new:
                self._ensure_created()
            if not self._put_at_once(where, writes):
                self._put_looking(where, writes)
        self._storage.settle()  # not within the lock: an event of this run may be what it waits for

    def _put_at_once(self, where: Where, writes: Sequence[TaskWrite]) -> bool:
        """Whether it was written without looking: at the head, if its id names it still; or for what is to come."""
        tip, tasks = self._tip, self._task_writes
        if tasks is None or tasks.run != self._branches.run:
            tasks = self._tasks()
        anchored = tip.anchored
        if anchored is not None and where == anchored[0]:
            alive = tip.named or (head_key(self._branches.run, tip.segment.number), tip.head)
            kept = tasks.put_once(anchored[1], anchored[0], writes, alive)
            for record in kept or ():
                tip.kept[record.key] = record
            return kept is not None
        if self._branches.owner or not isinstance(where, str) or _AUTO_ID.fullmatch(where):
            return False
        unnamed = id_key(self._branches.run, check_id("event id", where))
        kept = tasks.put_once(None, where, writes, self._begins(0), unnamed)
        if kept:
            self._waiting = (where, [*(self._waiting[1] if self._waiting[0] == where else ()), *kept])
        return kept is not None

    def _put_looking(self, where: Where, writes: Sequence[TaskWrite]) -> None:
        """The same where these tasks wrote before, or the event is not the head; or not any more, by its id."""
        tip, anchor = self._tip, self._anchor(where)
        kept = self._tasks().put(anchor, writes, self._begins)
        if tip.anchored is not None and where == tip.anchored[0]:
            if anchor.at == tip.anchored[1]:
                tip.kept.update((record.key, record) for record in kept)
            else:  # another process gave the id to another event
                tip.anchored = None

    def _begins(self, attempt: int) -> tuple[bytes, bytes | None]:
        """What says that the run was not deleted: its beginning, as it was last seen and is expected; then as it is."""
        known, branches = self._beginning, self._branches
        if attempt or branches.owner or known is None or known[0] != segment_key(branches.run, 0):
            self._beginning = known = branches.beginning()
        return known

    def _tasks(self) -> TaskWrites:
        branches, known = self._branches, self._task_writes
        if known is None or known.run != branches.run:
            limit, owners = self._limits.value_bytes, branches.owners
            stored = branches.payloads, branches.part
            known = TaskWrites(self._storage, branches.run, self._codec, limit, stored, owners)
            self._task_writes = known
        return known

    def _anchor(self, where: Where) -> Anchor:
        if isinstance(where, str):
            entry = self._id_entry(check_id("event id", where))
            if entry is not None:
                return _new(Anchor, ((entry[2], entry[3]), where))
            if not _AUTO_ID.fullmatch(where):
                return Anchor(None, where)
        try:
            at = self._place(where)
        except NotFoundError:
            if isinstance(where, str):  # it only looks like one of ours
                return Anchor(None, where)
            raise
        given = self._branches.event(at)[2].id
        return Anchor(at, None) if given is None else self._anchor(given)

    def forget(self, ids: Sequence[str], *, needed: Sequence[Where] = ()) -> list[str]:
        """Let ids that writers gave name nothing any more; what is built on their events stays what it is.

        What tasks wrote after such an event goes with its id, unless an event that is still named is built on it. Other
        ids are left alone, and so are copies of the run.

        Args:
            ids: those to forget.
            needed: events that the caller builds something on, as the run cannot know: what tasks wrote after them and
                before them on their branch stays.

        Returns:
            Those that named something.

        Raises:
            ConflictError: others give the same ids to events, every time; call again.
            InvalidIdError: one is no id.
        """
        for event_id in ids:
            check_id("event id", event_id)
        if self._is_new:
            return []
        forgotten = self._forget_ids(ids, [self._place(where) for where in needed])
        self._storage.settle()
        return forgotten

    def _forget_ids(self, ids: Sequence[str], needed: Sequence[tuple[int, int]] = ()) -> list[str]:
        with self._lock:
            self._tip.anchored = None  # it may be the head that is forgotten
            self._tip.kept = {}
            return forget(self._branches, self._tasks(), ids, needed)

    def prune(
        self, keep: Sequence[str], *, back_to: Sequence[Where] = (), before: str | None = None, dry_run: bool = False
    ) -> Pruned:
        """Forget every id that is not in `keep`, and remove the events that are on the way to none of those.

        What is left begins at the last event that all of them, and those of `back_to`, go back to; its state is kept
        whole. Events that were written after one of them on its own branch stay, too. What tasks wrote after an id that
        names nothing goes where that is less than the greatest of `keep`: it came too late. A run that was copied, or
        is a copy, only forgets the ids: nothing that others lean on goes. The states of what is kept stay what they
        are.

        Each commit leaves the run whole; if this is stopped, the next call does the rest.

        Args:
            keep: ids that writers gave; at least one.
            back_to: older events that have to stay, with all between them and what is kept.
            before: only ids less than this one go, so that nothing does that somebody gave meanwhile.
            dry_run: only say what would go.

        Returns:
            What went, or would go.

        Raises:
            ConflictError: the run is being written too quickly; call again.
            InvalidInputError: `keep` is empty; delete the run instead.
            NotFoundError: an id of `keep`, or an event of `back_to`, is not there.
        """
        if not keep:
            raise InvalidInputError("prune keeps at least one event: name it, or delete the run")
        kept = [self._place_of_id(event_id) for event_id in keep]
        older = [self._place(where) for where in back_to]
        staying = set(keep)
        going = tuple(event_id for event_id in self.given_ids(before) if event_id not in staying)
        with self._lock:
            if not dry_run:
                self._forget_ids(going, older)
            gone = prune(self._branches, self._tasks(), kept, older, dry_run=dry_run)
            if not dry_run:
                self._looked_at = (self._branches, (-1, -1), {})
                self._state = self._newest = None
                self._branches = Branches(
                    self._storage,
                    self._branches.run,
                    self._branches.incarnation,
                    self._branches.owner,
                    self._parts,
                    self._codec,
                )
                self._reopen()
        if not dry_run:
            self._storage.settle()  # what was forgotten
        return Pruned(going, *gone)

    def _reopen(self) -> None:
        """Stand at the branch's head again; at the main branch's, if this one was pruned."""
        if self._branches.segment_of(self._branch) is None:
            self._branch = MAIN
        self._open()

    # --- branches -------------------------------------------------------------------------------------------------

    def fork(self, at: Where | None = None, name: str | None = None) -> Run:
        """A handle on a new branch that begins at an event. Copies nothing; the same cost for every history.

        Args:
            at: the event, as for `Run.at`; by default the head.
            name: of the new branch; by default ``fork-1``, ``fork-2`` …

        Raises:
            ConflictError: there is a branch of that name.
            InvalidInputError: the run is empty, so there is nothing to begin at.
        """
        if name is not None:
            check_id("branch name", name)
        with self._lock:
            if self._tip.is_empty:
                raise InvalidInputError(f"run {self.name!r} is empty: append an event before forking it")
            base = self._facts(at)
            alive = self._branches.lineage.segment(base.at[0])
            segment = self._branches.fork(name, base, alive)
            forked = object.__new__(type(self))
            vars(forked).update(vars(self))
            forked._begin(self._branches, self._branches.tip_of(base, segment))
            return forked

    def _facts(self, where: Where | None) -> EventFacts:
        """What a fork needs to know of an event, by default of the head; nothing is read twice."""
        if type(where) is int:
            return self._facts_of_step(where)
        tip = self._tip
        at = tip.at if where is None else self._place(where)
        return self._branches.facts(at) if at != tip.at else EventFacts(at, tip.step, tip.digest, tip.given_id)

    def branch(self, name: str) -> Run:
        """A handle on the branch `name`.

        Raises:
            NotFoundError: there is none.
        """
        check_id("branch name", name)
        return Run(
            self._storage,
            self._parts,
            self._codec,
            self._limits,
            self._clock,
            self._door,
            name,
        )

    def branches(self) -> list[Branch]:
        """All branches of the run, oldest first; none while it is empty."""
        if self._is_new:
            return []
        return self._unless_pruned(self._all_branches)

    def _unless_pruned(self, look: Callable[[], T]) -> T:
        """What `look` finds, which reads a few records; again, where branches that it was at were pruned meanwhile."""
        for _ in range(_LOOKS):
            try:
                return look()
            except NotFoundError:
                self._branches.lineage.check_alive()
        return look()

    def _all_branches(self) -> list[Branch]:
        """All branches, by a few reads, however many they are."""
        segments, first = self._branches.all(), self._branches.first_seq()
        heads = self._branches.heads_of(segments)
        bases = [(segment.parent, segment.base_seq) for segment in segments]
        events = self._branches.events_at({at for at in heads if at[1] >= 0} | {at for at in bases if at[1] >= first})
        return [
            Branch(segment.branch, events.get(head), events[base].id if base[1] >= first else None)
            for segment, head, base in zip(segments, heads, bases, strict=True)
        ]

    def count_events(self) -> int:
        """How many events there are on its branches, each counted once; it reads a few records for each branch."""
        return 0 if self._is_new else self._unless_pruned(self._branches.count_events)

    def drop_snapshots(self) -> None:
        """Remove every manifest and snapshot of the run. They can be derived from the events: nothing is lost but time.

        The states stay what they are; materialising one replays from the first event until new manifests are written.
        """
        with self._lock:
            trunk = read_trunk(self._storage, self._branches.run)
            begin_at = None if trunk is None else trunk.at  # what it begins with stands in no event
            for kind in (MANIFEST, SNAPSHOT):
                found = self._storage.scan([all_of(kind, self._branches.run)])
                keys = [key for key, _ in found if place_of(key) != begin_at]
                for begin in range(0, len(keys), 1000):
                    self._storage.commit([], keys[begin : begin + 1000])
            self.refresh()

    # --- places ---------------------------------------------------------------------------------------------------

    def _tip_at(self, at: tuple[int, int]) -> Tip:
        return self._tip if at == self._tip.at else self._branches.tip_at(at)

    def _place(self, where: Where) -> tuple[int, int]:
        """Segment and seq of an event."""
        if isinstance(where, str):
            return self._place_of_id(where)
        if isinstance(where, State):
            where = self._of_state(where)
        if isinstance(where, Event):
            if where.run != self.name:
                raise InvalidInputError(f"that event belongs to run {where.run!r}, this is run {self.name!r}")
            at = (where.segment, where.seq)
            if (at, where.digest) != (self._tip.at, self._tip.digest) and not self._branches.has_event(
                at, where.digest
            ):
                raise NotFoundError(f"run {self.name!r} has that event no more: it was deleted")
            return at
        if type(where) is not int:
            raise InvalidInputError(f"an event is named by a step, an id, an event or a state, not {where!r}")
        return self._facts_of_step(where).at

    def _of_state(self, state: State) -> Event:
        if state.event is None:
            raise NotFoundError("the state before the first event belongs to no event")
        return state.event

    def _place_of_id(self, event_id: str) -> tuple[int, int]:
        entry = self._id_entry(check_id("event id", event_id))
        if entry is not None:
            return entry[0], entry[1]
        if not self._is_new and (parsed := _AUTO_ID.fullmatch(event_id)):
            at = (int(parsed[1]), int(parsed[2]))
            if at[0] < 1 << 32 and at[1] < 1 << 62 and self._branches.has_event(at, bytes.fromhex(parsed[3])):
                return at
        raise NotFoundError(f"run {self.name!r} has no event {event_id!r}")

    def _facts_of_step(self, step: int) -> EventFacts:
        found = None if self._tip.is_empty else self._search_step(step)
        if found is None:
            trunk = read_trunk(self._storage, self._branches.run)
            pruned = f", and what came before step {trunk.step + 1} was pruned" if trunk else ""
            raise NotFoundError(
                f"branch {self.branch_name!r} of run {self.name!r} has no step {step}; its head is {self.step}{pruned}"
            )
        return found

    def _search_step(self, step: int) -> EventFacts | None:
        """Steps grow along a branch: guess that they are dense, then halve."""
        tip = self._tip
        if step == tip.step:
            return EventFacts(tip.at, tip.step, tip.digest, tip.given_id)
        segment, last = self._branches.lineage.holding_step(tip.segment.number, step)
        low, high = segment.base_seq + 1, tip.at[1] if last is None else last
        guess = segment.base_seq + step - segment.base_step
        while low <= high:
            seq = min(max(guess, low), high)
            found, first = self._branches.facts_left((segment.number, seq))
            if found is None:
                low = first
            elif found.step == step:
                return found
            else:
                low, high = (seq + 1, high) if found.step < step else (low, seq - 1)
            guess = (low + high) // 2
        return None

    # --- events ---------------------------------------------------------------------------------------------------

    def _event_at(self, at: tuple[int, int]) -> Event:
        return self._branches.event_of(at, self._branches.event(at))
