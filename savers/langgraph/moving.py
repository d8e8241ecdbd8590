"""Threads from one LangGraph saver to another: into an event log, out of it, or between any two.

Owns the order in which checkpoints go, what is done again after a copy was cut off, and the report. It reads and writes
by the methods that every saver has, and never changes the source.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from eventlog import EventLogError, InvalidInputError, NotFoundError, StorageError, UnknownTypeError
from savers.langgraph.alike import (
    Difference,
    are_part,
    body_difference,
    difference,
    is_snapshot,
    parent_of,
    writes_difference,
)
from savers.langgraph.batches import batches
from savers.langgraph.copied import Copied, CopyProblem
from savers.langgraph.saver import EventLogSaver
from savers.langgraph.serde import SerdeCodec, nothing_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple

    Saver = BaseCheckpointSaver[Any]
    Progress = Callable[[str, int, int], None]
    Parents = dict[str, str | None]


class _Place(NamedTuple):
    """A thread and namespace; the id of the thread is of the type that the source gave out."""

    thread: Any
    namespace: str

    def config(self, checkpoint_id: str | None) -> RunnableConfig:
        named = {"thread_id": self.thread, "checkpoint_ns": self.namespace}
        return {"configurable": named if checkpoint_id is None else {**named, "checkpoint_id": checkpoint_id}}


class _Said(NamedTuple):
    """What a checkpoint says of a channel: its version, and its value as encoded, None if it has none."""

    version: Any
    payload: bytes | None
    is_snapshot: bool


@dataclass(slots=True)
class _Tally:
    checkpoints: int = 0
    writes: int = 0
    skipped: int = 0
    removed: int = 0
    problems: list[CopyProblem] = field(default_factory=list)

    def note(self, place: _Place, checkpoint_id: str, found: Difference) -> None:
        self.problems.append(CopyProblem(str(place.thread), place.namespace, checkpoint_id, *found))


def copy(
    from_saver: Saver,
    to_saver: Saver,
    *,
    threads: Iterable[str] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Copied:
    """Copy threads: every namespace, checkpoint, metadata and pending write, ids and versions as they are.

    The source is only read. Parents go before their children. A checkpoint that the target has already is left as it
    is there, so a copy that was cut off is simply run again; if it is another one there, that is a problem and nothing
    is overwritten. A checkpoint with a value that the target would not read back is a problem before anything of it is
    written, and what follows it in its thread and namespace waits for the next copy. Writes for a checkpoint that was
    never put are not to be seen in any saver, and stay behind.

    What was pruned in an `EventLogSaver`, or deleted by its run, stays away when its source is copied to it again, and
    is counted: that is of a pruned namespace all that is not there and is less than its newest id. To have all of it
    again, delete the thread there first.

    It takes the memory of a few checkpoints and, for each checkpoint to be copied, of its id and its parent's; and what
    the source's own `list` takes (PostgresSaver's fetches all that it lists; give it `threads` in portions, or open it
    by `savers.langgraph.places`, which asks for pages). Nobody should write to these threads in the source meanwhile;
    what comes after they were listed is left for the next copy.

    Args:
        from_saver: any saver of LangGraph with sync methods.
        to_saver: any saver of LangGraph with sync methods.
        threads: the ids of those to copy; by default all.
        verify: read every checkpoint of both again at the end, and compare: types, order of writes, everything.
        progress: called with ``"found"``, ``"copied"`` or ``"verified"``, how many checkpoints, and of how many (0 as
            long as that is not known).

    Returns:
        What was copied, and the problems.

    Raises:
        NotFoundError: the source has no thread of that id. Nothing was written.
        InvalidInputError: `threads` is one string.
        UnknownTypeError: the source's serializer does not read one of its values, or hands it back in pieces.
        StorageError: a saver failed; the message says which. What was copied so far stays; run it again.
    """
    if isinstance(threads, str):
        raise InvalidInputError(f"threads are the ids of several, not a str: [{threads!r}]")
    threads = None if threads is None else list(dict.fromkeys(threads))
    if threads is not None:
        has_threads(from_saver, threads)
    tell = progress or (lambda _verb, _done, _of: None)
    found = _found(from_saver, threads, tell)
    moving = _Moving(from_saver, to_saver)
    total, done = sum(map(len, found.values())), 0
    arrived: dict[_Place, list[str]] = {}
    for place, parents in found.items():
        arrived[place] = []
        for checkpoint_id in moving.move(place, parents):
            arrived[place].append(checkpoint_id)
            done += 1
            tell("copied", done, total)
    if verify:
        for n, (place, checkpoint_id) in enumerate((place, each) for place, ids in arrived.items() for each in ids):
            moving.verify(place, checkpoint_id)
            tell("verified", n + 1, done)
    tally = moving.tally
    count = len({place.thread for place in found})
    return Copied(count, tally.checkpoints, tally.writes, tally.skipped, tuple(tally.problems), tally.removed)


def has_threads(source: Saver, threads: Iterable[str] | None = None) -> bool:
    """Whether there is anything to copy; looks at one checkpoint of each thread that is named.

    Raises:
        NotFoundError: the source has no thread of that id.
    """
    is_found = False
    for thread in [None] if threads is None else dict.fromkeys(threads):
        with _failing("the source cannot list its checkpoints"):
            is_found = next(iter(source.list(_named(thread), limit=1)), None) is not None
        if thread is not None and not is_found:
            raise NotFoundError(f"the source has no thread {thread!r}")
    return is_found


def _named(thread: str | None) -> RunnableConfig | None:
    return None if thread is None else {"configurable": {"thread_id": thread}}


def _found(source: Saver, threads: Sequence[str] | None, tell: Progress) -> dict[_Place, Parents]:
    """The parents of the source's checkpoints, per thread and namespace."""
    found: dict[_Place, Parents] = {}
    count = 0
    for thread in [None] if threads is None else threads:
        with _failing("the source cannot list its checkpoints"):
            for item in source.list(_named(thread)):
                named = item.config["configurable"]
                place = _Place(named["thread_id"], named.get("checkpoint_ns", ""))
                found.setdefault(place, {})[named["checkpoint_id"]] = parent_of(item)
                count += 1
                tell("found", count, 0)
    return found


def _parents_first(parents: Mapping[str, str | None]) -> Iterator[str]:
    """All ids, each after its parent if that is there; in the order of ids otherwise. A cycle is cut somewhere."""
    done: set[str] = set()
    for start in sorted(parents):
        chain: list[str] = []
        at: str | None = start
        while at is not None and at in parents and at not in done:
            done.add(at)
            chain.append(at)
            at = parents[at]
        yield from reversed(chain)


class _Moving:
    """One copy under way."""

    def __init__(self, source: Saver, target: Saver) -> None:
        self.tally = _Tally()
        self._source = source
        self._target = target.moving_in() if isinstance(target, EventLogSaver) else target
        self._codec = SerdeCodec(target.serde)
        self._last: tuple[_Place, str, dict[str, _Said]] | None = None

    def move(self, place: _Place, parents: Mapping[str, str | None]) -> Iterator[str]:
        """Copy a thread and namespace up to a checkpoint that the target does not take; yields what arrived."""
        for checkpoint_id in _parents_first(parents):
            item = self._read(place, checkpoint_id)
            if item is None:  # deleted since it was listed
                continue
            try:
                if self._move_one(place, checkpoint_id, item):
                    yield checkpoint_id
            except (InvalidInputError, UnknownTypeError, TypeError, ValueError) as error:
                self.tally.note(place, checkpoint_id, Difference("not copied", f"{error}; what follows it waits"))
                return

    def _move_one(self, place: _Place, checkpoint_id: str, item: CheckpointTuple) -> bool:
        """Copy one checkpoint; returns whether the target has it then."""
        with _failing("the target cannot be read"):
            there = self._target.get_tuple(place.config(checkpoint_id))
        if there is None and self._was_removed(place, checkpoint_id):
            self.tally.removed += 1
            return False
        if there is None:
            self._put(place, item)
            self._put_writes(place, checkpoint_id, item)
            self.tally.checkpoints += 1
            return True
        found = self._conflict(self._without_removed(place, item, there), there)
        if found is not None:
            self.tally.note(place, checkpoint_id, found)
            return False
        if writes_difference(item.pending_writes or (), there.pending_writes or ()) is None:
            self.tally.skipped += 1
        else:
            self._put_writes(place, checkpoint_id, item)
            self.tally.checkpoints += 1
        return True

    def _was_removed(self, place: _Place, checkpoint_id: str) -> bool:
        """Whether somebody removed a checkpoint in the target that is not there; only ours can tell."""
        if not isinstance(self._target, EventLogSaver):
            return False
        thread = self._target._thread(str(place.thread), place.namespace)  # noqa: SLF001 (one package)
        if not place.namespace or thread.deleted is None or checkpoint_id > thread.deleted:
            return thread.was_removed(checkpoint_id)
        root = self._target._thread(str(place.thread), "")  # noqa: SLF001 (as above)
        return root.run.was_pruned()  # it went with the checkpoint that called it

    def _without_removed(self, place: _Place, item: CheckpointTuple, there: CheckpointTuple) -> CheckpointTuple:
        """A checkpoint as it would be without a parent, where pruning took that off the one that the target has."""
        parent = parent_of(item)
        is_left = parent is None or parent_of(there) is not None or not self._was_removed(place, parent)
        return item if is_left else item._replace(parent_config=None)

    def _conflict(self, item: CheckpointTuple, there: CheckpointTuple) -> Difference | None:
        """How what the target has is not what a copy that was cut off would have left."""
        writes, written = item.pending_writes or (), there.pending_writes or ()
        found = body_difference(item, there)
        if found is None and not are_part(written, writes):
            found = writes_difference(writes, written)
        return found and Difference(found.path, f"the target has another checkpoint of this id: {found.why}")

    def _put(self, place: _Place, item: CheckpointTuple) -> None:
        checkpoint, parent = item.checkpoint, parent_of(item)
        known = {} if parent is None else self._known(place, parent)
        said = self._said(checkpoint, known)
        moved = {channel: each.version for channel, each in said.items() if not _are_same(known.get(channel), each)}
        self._check([said[channel].payload for channel in moved], item)
        with _failing("the target does not take a checkpoint", TypeError, ValueError):
            self._target.put(place.config(parent), checkpoint, item.metadata, moved)
        self._last = (place, checkpoint["id"], said)

    def _check(self, payloads: Iterable[bytes | None], item: CheckpointTuple) -> None:
        """Raise what the target would raise when it reads back what is about to be written."""
        rest = {key: value for key, value in item.checkpoint.items() if not key.startswith("channel_")}
        kept = [("metadata", item.metadata), ("checkpoint", rest)]
        kept += [(channel, value) for _, channel, value in item.pending_writes or ()]
        for payload in (*payloads, *(self._codec.encode(value, path) for path, value in kept)):
            if payload is not None:
                self._codec.decode(payload)

    def _known(self, place: _Place, checkpoint_id: str) -> Mapping[str, _Said]:
        """What a parent says: nearly always the checkpoint that was put last."""
        if self._last is not None and self._last[:2] == (place, checkpoint_id):
            return self._last[2]
        item = self._read(place, checkpoint_id)
        return {} if item is None else self._said(item.checkpoint, {})

    def _said(self, checkpoint: Checkpoint, known: Mapping[str, _Said]) -> dict[str, _Said]:
        """What a checkpoint says of each channel; a snapshot goes on as long as the version does."""
        values = checkpoint.get("channel_values") or {}
        said: dict[str, _Said] = {}
        for channel, version in (checkpoint.get("channel_versions") or {}).items():
            if channel in values:
                value = values[channel]
                said[channel] = _Said(version, self._codec.encode(value, channel), is_snapshot(value))
            else:
                before = known.get(channel)
                goes_on = before is not None and before.is_snapshot and before.version == version
                said[channel] = before if before is not None and goes_on else _Said(version, None, is_snapshot=False)
        return said

    def _put_writes(self, place: _Place, checkpoint_id: str, item: CheckpointTuple) -> None:
        with _failing("the source does not give out its tasks' paths"):
            calls = batches(self._source, item)
        for task, path, writes in calls:
            with _failing("the target does not take pending writes", TypeError, ValueError):
                self._target.put_writes(place.config(checkpoint_id), writes, task, path)
        self.tally.writes += len(item.pending_writes or ())

    def verify(self, place: _Place, checkpoint_id: str) -> None:
        """Compare a checkpoint in both; a difference is a problem."""
        item = self._read(place, checkpoint_id)
        if item is None:
            return
        with _failing("the target cannot be read"):
            there = self._target.get_tuple(place.config(checkpoint_id))
        if there is None:
            self.tally.note(place, checkpoint_id, Difference("checkpoint", "is not in the target"))
            return
        found = difference(self._without_removed(place, item, there), there)
        if found is not None:
            self.tally.note(place, checkpoint_id, found)

    def _read(self, place: _Place, checkpoint_id: str) -> CheckpointTuple | None:
        with _failing("the source cannot be read"), nothing_blocked():
            return self._source.get_tuple(place.config(checkpoint_id))


def _are_same(known: _Said | None, said: _Said) -> bool:
    """Whether version and value are the parent's; 1 and True are not the same version."""
    return known is not None and known == said and type(known.version) is type(said.version)


@contextmanager
def _failing(what: str, *of_the_value: type[Exception]) -> Iterator[None]:
    """Whatever a saver of somebody else's raises becomes one of our errors, but for what tells of a value."""
    try:
        yield
    except EventLogError:
        raise
    except Exception as error:
        if isinstance(error, of_the_value):
            raise
        raise StorageError(f"{what} ({type(error).__name__}: {error}); run it again when that is mended") from error
