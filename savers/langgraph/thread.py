"""One thread and namespace: how LangGraph's checkpoints are states of a run.

A checkpoint is an event with the checkpoint's id; a channel that has a value is a channel of the run. What else a
checkpoint holds stands in channels whose names begin with ``~``, so that it too costs only what changed:

```
 ~v:CHANNEL   the channel's version
 ~s:NODE      the versions that the node has seen
 ~metadata    the metadata, but for the step
 ~rest        every other key of the checkpoint
 ~c           what is another one each time: see packed; and the parent that was pruned
```

An event's *base* is what its delta is against; a checkpoint's *parent* is what LangGraph named. They are the same where
the parent is there. Where it is not, the base is any event of the run.

What was put last is remembered, so that the next checkpoint is compared with it and not with what is stored.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from eventlog import (
    BusyError,
    ConflictError,
    Delete,
    EventLogError,
    Extend,
    KnownObjects,
    NotFoundError,
    TooLargeError,
    UnserializableError,
    Update,
    packed_id,
)
from savers.langgraph.history import Walked
from savers.langgraph.packed import (
    AMONG_REST,
    BY_VERSIONS,
    NONE,
    SOURCES,
    long_parent,
    long_seen,
    long_time,
    long_version,
    packed,
    seen_of,
    short_parent,
    short_time,
    short_version,
    unpacked,
    version_of,
)
from savers.langgraph.sealed import SealedCodec, Unveiled, Veil, hidden, unhidden
from savers.langgraph.writers import Exclusive, beside
from savers.saver import MARK, escaped, plain
from savers.tagged import VERSIONED, parted, start_of_value, versioned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata

    from eventlog import Event, Prepared, Run, State, TaskWrite
    from savers.langgraph.serde import SerdeCodec

_VERSION, _SEEN = MARK + "v:", MARK + "s:"
_METADATA, _REST, _CHECKPOINT = MARK + "metadata", MARK + "rest", MARK + "c"
_PREFIX: Final = len(_VERSION)
_OWN_KEYS: Final = frozenset({"id", "ts", "channel_values", "channel_versions", "versions_seen"})
_SOURCES: Final = {source: place for place, source in enumerate(SOURCES) if source}
_SCALARS: Final = frozenset({int, float, bool, type(None)})
_TEXTS: Final = frozenset({str, bytes})
_SMALL: Final = 256
"""Strings and bytes up to this length are compared as encoded; longer ones by the engine, which finds what grew."""
_WHOLE_BYTES: Final = 384
"""Encoded values up to so many bytes stand behind their version, as one; the engine keeps them in one piece."""
_MISSING: Final = object()
_new: Final = tuple.__new__  # makes a named tuple at half the cost
_MAX_STEP: Final = 1 << 62
_MAX_VERSION_BYTES: Final = 64


class _Known:
    """What a checkpoint says, as this process put it last.

    Attributes:
        event: the checkpoint's, None before the first one.
        versions: of its channels.
        seen: what each node has seen, if those are strings; else None.
        stored: the run's channels that are there, with their bytes, None where those are not known.
        newest: the greatest of the versions, None where that is not known.
        veil: hides the names of the run's channels, where they are to be hidden.
        lists: the items of lists that were put, where lists are told apart by those.
        size: bytes of the state as encoded, or more.
    """

    __slots__ = ("event", "lists", "newest", "seen", "size", "stored", "veil", "versions")

    def __init__(self, state: State | Unveiled | None = None, veil: Veil | None = None) -> None:
        self.veil = veil
        self.event = None if state is None else state.event
        self.versions: dict[str, Any] = {}
        self.seen: dict[str, dict[str, Any] | None] = {}
        self.stored: dict[str, bytes | None] = {}
        self.lists: dict[str, KnownObjects] = {}
        self.size = 0
        if state is not None:
            self.size = state.size_bytes
            self.stored = {name: state.encoded(name) for name in state}
            self.versions, seen, _, _ = _parts_of(state)
            self.seen = {node: _comparable(each) for node, each in seen.items()}
        self.newest = _newest(self.versions)


class _Changes:
    """What a checkpoint changes: for the engine, and for what is known once it is written.

    Attributes:
        known: what it is compared with.
        newest: the version of what moved, if it is greater than all before; else None.
        updated: the channels that have that version, and a value.
        encoded: channels of the run that are set, with their bytes.
        writes: those of which the engine finds what changed, and those that go away.
        lists: of lists that are told apart by their items' identity, those of before and those that came.
    """

    __slots__ = ("encoded", "known", "lists", "newest", "updated", "writes")

    def __init__(self, known: _Known, newest: str | None) -> None:
        self.known = known
        self.newest = newest
        self.updated: list[str] = []
        self.encoded: dict[str, bytes] = {}
        self.writes: dict[str, Any] = {}
        self.lists: dict[str, tuple[KnownObjects, list[Any]]] = {}

    def put(self, name: str, payload: bytes) -> None:
        """Set a channel of the run, if its bytes are others than known."""
        if self.known.stored.get(name) != payload:
            self.encoded[name] = payload

    def delete(self, name: str) -> None:
        """Remove a channel of the run, if it is there."""
        if name in self.known.stored:
            self.writes[name] = Delete()

    def put_list(self, name: str, items: list[Any]) -> None:
        """Set a channel to a list that has the items of the one before, if they are the same objects, and more."""
        before = self.known.lists.get(name)
        if before is None or not before.begin(items):
            self.writes[name] = Update(items)
            self.lists[name] = (KnownObjects([]), list(items))
            return
        added = items[len(before.objects) :]
        if added:
            self.writes[name] = Extend(added)
        self.lists[name] = (before, added)

    def accept(self) -> None:
        """Bring what is known up to date: they are written."""
        stored, lists = self.known.stored, self.known.lists
        for name, write in self.writes.items():
            lists.pop(name, None)
            if type(write) is not Delete:
                stored[name] = None
                continue
            stored.pop(name, None)
            if name.startswith(_SEEN):
                self.known.seen.pop(name[_PREFIX:], None)
        stored.update(self.encoded)
        if lists:
            for name in self.encoded:
                lists.pop(name, None)
        for name, (before, added) in self.lists.items():
            before.add(KnownObjects(added))
            lists[name] = before


class Made(NamedTuple):
    """A checkpoint, encoded and not yet written."""

    event: Prepared
    base: Event | None
    changes: _Changes
    versions: dict[str, Any]
    seen: dict[str, dict[str, Any] | None]
    size: int


class Read(NamedTuple):
    """A checkpoint as it is stored."""

    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    parent: str | None
    writes: list[tuple[str, str, Any]]


class Thread:
    """The checkpoints of one thread and namespace, over a handle on their run. Safe for many threads.

    Attributes:
        deleted: the greatest id of a checkpoint that was deleted with the thread; None if it never was deleted.
        exclusive: what is known of other writers, where the thread is one writer's at a time.
        sealed: the codec, where everything is encrypted.
        walked: what is known of the histories of delta channels.
    """

    def __init__(
        self,
        run: Run,
        codec: SerdeCodec | SealedCodec,
        max_bytes: int,
        *,
        by_identity: bool,
        deleted: str | None,
        exclusive: Exclusive | None,
    ) -> None:
        self.run = run
        self.deleted = deleted
        self.exclusive = exclusive
        self._by_identity = by_identity
        self.sealed = codec if isinstance(codec, SealedCodec) else None
        self._codec = codec.unsealed if isinstance(codec, SealedCodec) else codec
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._known = _Known()
        self.walked = Walked()

    def thawed(self, made: Made, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint that was made, with the values that were encoded as they were then.

        Of a value that only grew what came before may have been pruned; then it is as it is now.
        """
        said = self.run.values_of(made.event)
        values = checkpoint.get("channel_values") or {}
        veil = made.changes.known.veil
        name_of = escaped if veil is None else lambda channel: veil.name(escaped(channel))
        then = {channel: said.get(name_of(channel), value) for channel, value in values.items()}
        return cast("Checkpoint", {**checkpoint, "channel_values": then})

    @property
    def thread_id(self) -> str:
        """The thread's id."""
        name = self.run.name
        return name if isinstance(name, str) else name[0]

    def has(self, checkpoint_id: str) -> bool:
        """Whether there is a checkpoint of that id."""
        try:
            return checkpoint_id == self.run.head_id or self.run.event(checkpoint_id).given_id == checkpoint_id
        except NotFoundError:
            return False

    def was_removed(self, checkpoint_id: str) -> bool:
        """Whether a checkpoint that is not there was deleted by its run, or pruned: it is older than what is left."""
        run = self.run
        return run.forgotten(checkpoint_id) is not None or (
            run.was_pruned() and checkpoint_id < (self.newest_id() or "")
        )

    def may_be_late(self, checkpoint_id: str | None) -> bool:
        """Whether what comes under that checkpoint has to be asked about: the thread was deleted, or is not there."""
        if self.deleted is not None:
            return True
        return checkpoint_id is not None and self._known.event is None and self.run.head_id is None

    def is_stale(self) -> bool:
        """See `Run.is_stale`."""
        return self.run.is_stale()

    # --- writing --------------------------------------------------------------------------------------------------

    def make(
        self, parent: str | None, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> Made:
        """Encode a checkpoint as a child of `parent`; what its values become later cannot change it.

        Raises:
            TooLargeError: it has more bytes than the saver takes.
            NotFoundError: the run was deleted meanwhile.
            ConflictError: the thread is one writer's at a time, and another one moved it.
        """
        with self._lock:
            may_fork = self.exclusive is None or self.exclusive.may_fork(
                self.thread_id, parent, checkpoint["id"], self.newest_id()
            )
            known, is_parent = self._base(parent)
            base, size = known.event, known.size
            moved, newest, versions = _moved(known, checkpoint["channel_versions"], new_versions if is_parent else None)
            changes = _Changes(known, newest)
            try:
                self._put_values(changes, checkpoint.get("channel_values") or {}, moved, versions)
                seen = self._put_seen(changes, checkpoint["versions_seen"])
                step = self._put_rest(changes, parent, checkpoint, metadata)
            except (TypeError, ValueError, OverflowError) as error:  # what is ours to pack, and cannot be
                if isinstance(error, EventLogError):
                    raise
                raise UnserializableError("checkpoint", f"{type(error).__name__}: {error}") from error
            writes, encoded = changes.writes, changes.encoded
            if known.veil is not None:
                writes = known.veil.names(writes)
                encoded = known.veil.sealed(encoded, is_first=base is None)
            try:
                event = self.run.prepare(
                    writes,
                    encoded=encoded,
                    at=base,
                    id=checkpoint["id"],
                    step=step,
                    is_under_id=is_parent,
                    may_fork=may_fork,
                )
            except (UnserializableError, TooLargeError) as error:
                if known.veil is None:
                    raise
                raise known.veil.told(error, changes.writes) from error
        if writes:
            size += event.payload_bytes
        else:
            for payload in encoded.values():
                size += len(payload)
        if size > self._max_bytes:
            size = event.state_bytes
            if size > self._max_bytes:
                raise TooLargeError("checkpoint bytes", size, self._max_bytes)
        return _new(Made, (event, base, changes, versions, seen, size))

    def make_at_once(
        self, parent: str | None, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> Made | None:
        """As `make`; None if another thread is writing, which may take as long as its disk does."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            with self.run.unless_busy() as is_free:
                return self.make(parent, checkpoint, metadata, new_versions) if is_free else None
        finally:
            self._lock.release()

    def at_once(self, write: Callable[[], None]) -> bool:
        """Write something now, if that waits for nobody: neither for a flush nor for another writer.

        Returns:
            Whether it is written; if not, nothing is.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            with self.run.at_once() as is_free:
                if is_free:
                    write()
                return is_free
        except BusyError:
            return False
        finally:
            self._lock.release()

    def write(self, made: Made) -> None:
        """Write what `make` encoded; raises as `Run.write`."""
        with self._lock:
            event = self.run.write(made.event) if self.exclusive is None else self._write_alone(made, self.exclusive)
            known = made.changes.known
            if known.event is not made.base:  # another one was written meanwhile: look again
                self._known = _Known()
                return
            made.changes.accept()
            known.newest = made.changes.newest or _newest(made.versions)
            known.seen.update(made.seen)
            # The event last: who is interrupted before knows nothing of it, and looks again.
            self._known, known.versions, known.size, known.event = known, made.versions, made.size, event

    def put_task_writes(self, checkpoint_id: str, writes: list[TaskWrite]) -> None:
        """Keep what tasks wrote after a checkpoint; as `Run.put_task_writes`."""
        self.run.put_task_writes(checkpoint_id, writes if self.sealed is None else [*map(hidden, writes)])

    def _write_alone(self, made: Made, exclusive: Exclusive) -> Event:
        """Write where no other writer has written."""
        try:
            event = self.run.write(made.event)
        except ConflictError as error:
            parent = None if made.base is None else made.base.given_id
            raise beside(self.thread_id, parent, self.newest_id()) from error
        exclusive.met(event.id, event.id)
        return event

    def _base(self, parent: str | None) -> tuple[_Known, bool]:
        """What a new checkpoint is compared with, and whether that is its parent.

        Where the parent is not there, it is any other; nothing in an empty run.
        """
        run, known = self.run, self._known
        if parent is not None:
            event = known.event
            if event is not None and event.given_id == parent and run.stands_at(event):
                return known, True
            with suppress(NotFoundError):
                return self._known_of(run.at(parent)), True
        return self._known_of(None if run.head_id is None else run.state), False

    def _known_of(self, state: State | None) -> _Known:
        """What is known of a state; of a run that is to begin, None."""
        if self.sealed is None:
            return _Known(state)
        if state is None:
            return _Known(None, Veil(self.sealed))
        unveiled = Unveiled(state, self.sealed)
        return _Known(unveiled, unveiled.veil)

    def _unveiled(self, state: State) -> State | Unveiled:
        """A state by the names that its writer knows."""
        return state if self.sealed is None else Unveiled(state, self.sealed)

    def _put_values(  # noqa: C901, PLR0912 (the hot path calls little)
        self, changes: _Changes, values: Mapping[str, Any], moved: Iterable[str], versions: Mapping[str, Any]
    ) -> None:
        """Channels that may differ from the base's; one that has a version and no value is empty."""
        stored, is_open, newest = changes.known.stored, changes.known.veil is None, changes.newest
        encode = self._codec.encode
        last, packed_version, start_of_whole = _MISSING, b"", b""  # nearly always one version for all
        for channel in moved:
            name = escaped(channel) if channel.startswith(MARK) else channel
            if channel not in versions:
                changes.delete(name)
                changes.delete(_VERSION + channel)
                continue
            version = versions[channel]
            if version is not last:
                last, packed_version = version, packed(short_version(version))
                fits = is_open and len(packed_version) <= _MAX_VERSION_BYTES
                start_of_whole = versioned(packed_version, b"") if fits else b""
            value = values.get(channel, _MISSING)
            data: bytes | None = None
            if value is _MISSING:
                data = b""
            else:
                if version == newest:
                    changes.updated.append(channel)
                if type(value) in _SCALARS or (type(value) in _TEXTS and len(value) <= _SMALL):
                    data = encode(value, channel)
                    if len(data) > _WHOLE_BYTES:
                        data = None
            was = stored.get(name)
            start = start_of_value(was) if was else 0
            is_new = data != was[start:] if was and start else value is not _MISSING
            if data is not None and is_new and start_of_whole:
                changes.encoded[name] = start_of_whole + data
                if _VERSION + channel in stored:
                    changes.delete(_VERSION + channel)
                continue
            changes.put(_VERSION + channel, packed_version)
            if start and not is_new:
                continue
            if value is _MISSING:
                changes.delete(name)
            elif data is not None:
                changes.put(name, data)
            elif start:
                changes.encoded[name] = encode(value, channel)
            elif self._by_identity and type(value) is list and value:
                changes.put_list(name, value)
            else:
                changes.writes[name] = Update(value)

    def _put_seen(self, changes: _Changes, seen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
        """What nodes have seen; returns what is new of it."""
        known, stored, encoded = changes.known.seen, changes.known.stored, changes.encoded
        new: dict[str, dict[str, Any] | None] = {}
        for node, each in seen.items():
            if known.get(node) != each:
                new[node] = _comparable(each)
                name, payload = _SEEN + node, packed({channel: short_version(each[channel]) for channel in each})
                if stored.get(name) != payload:
                    encoded[name] = payload
        for node in known:
            if node not in seen:
                changes.delete(_SEEN + node)
        return new

    def _put_rest(
        self, changes: _Changes, parent: str | None, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> int | None:
        """Everything else; returns the step that the metadata says, None if it says none that an event can have."""
        own = checkpoint["id"]
        rest: dict[str, Any] = {key: value for key, value in checkpoint.items() if key not in _OWN_KEYS}
        updated = AMONG_REST
        if "updated_channels" in rest:
            updated = _updated_as(rest["updated_channels"], changes)
            if updated != AMONG_REST:
                del rest["updated_channels"]
        time: Any = checkpoint.get("ts")
        if type(time) is str:
            time = short_time(time, own)
        elif "ts" in checkpoint:
            rest["ts"], time = time, None
        described: dict[str, Any] = dict(metadata)
        source: Any = described.get("source")
        place = _SOURCES.get(source, 0) if type(source) is str else 0
        if place:
            del described["source"]
        step: Any = described.get("step")
        if type(step) is int and -_MAX_STEP < step < _MAX_STEP:
            del described["step"]
        else:
            step = None
        base, stored, encoded = changes.known.event, changes.known.stored, changes.encoded
        is_events = step is not None and base is not None and step > base.step  # the engine's grow along a branch
        said = [
            None if parent is None else short_parent(parent, own),
            time,
            True if is_events else step,
            3 * place + updated,
        ]
        for name, payload in (
            (_METADATA, self._bytes(described, "metadata")),
            (_REST, self._bytes(rest, "checkpoint")),
            (_CHECKPOINT, packed(said)),
        ):
            if stored.get(name) != payload:
                encoded[name] = payload
        return step  # type: ignore[no-any-return]  # an integer by now

    def _bytes(self, value: dict[str, Any], path: str) -> bytes:
        """What is plain is packed; anything else is the serializer's business."""
        try:
            return packed(value)
        except (TypeError, ValueError, OverflowError):
            return self._codec.encode(value, path)

    # --- reading --------------------------------------------------------------------------------------------------

    def newest_id(self) -> str | None:
        """The greatest id of a checkpoint, None if there is none."""
        return self.run.greatest_id()

    def read(self, checkpoint_id: str) -> Read | None:
        """The checkpoint of that id; None if it is not there."""
        try:
            found = self.run.at(checkpoint_id)
            if found.event is None or found.event.given_id != checkpoint_id:
                return None
            state, decode = self._unveiled(found), self._codec.decode
            versions, seen, users, own = _parts_of(state)
            values = {
                channel: state[escaped(channel)] if data is None else decode(data) for channel, data in users.items()
            }
            said = {name: unpacked(data[1:]) if data and not data[0] else state[name] for name, data in own.items()}
            metadata, parent, time, updated = _described(found.event, said)
            checkpoint = said[_REST]
            if updated != AMONG_REST:
                checkpoint["updated_channels"] = _updated(updated, versions, values)
            if time is not None:
                checkpoint["ts"] = time
            checkpoint["id"] = checkpoint_id
            checkpoint["channel_values"] = values
            checkpoint["channel_versions"] = versions
            checkpoint["versions_seen"] = seen
            writes = [(task, channel, value) for task, _, channel, value, _ in self.task_writes(checkpoint_id)]
        except NotFoundError:  # never put, or deleted at this moment
            return None
        return _new(Read, (checkpoint, metadata, parent, writes))

    def task_writes(self, checkpoint_id: str) -> list[TaskWrite]:
        """What tasks wrote after a checkpoint, sorted by path, task and slot."""
        writes = self.run.task_writes(checkpoint_id)
        return writes if self.sealed is None else unhidden(writes)

    def task_writes_along(self, events: Sequence[Event], channels: Collection[str]) -> list[list[TaskWrite]]:
        """What tasks wrote to `channels` after each of several checkpoints, by one look; values as in `decoded`."""
        if self.sealed is None:
            return self.run.task_writes_along(events, channels)
        decode = self.sealed.decode
        hidden = self.run.task_writes_along(events, {MARK})
        found = [unhidden([write._replace(value=decode(write.value)) for write in writes]) for writes in hidden]
        return [[write for write in writes if write.channel in channels] for writes in found]

    def decoded(self, write: TaskWrite) -> Any:
        """The value of what `task_writes_along` found."""
        return self._codec.decode(write.value) if self.sealed is None else write.value

    def detach(self, checkpoint_id: str) -> None:
        """Put a checkpoint again without its parent, which is to be pruned; what came before stays known to histories.

        Raises:
            NotFoundError: it is not there.
        """
        with self._lock:
            state = self.run.at(checkpoint_id)
            known = self._known_of(state)
            parent, time, step, said, *_ = self._unveiled(state)[_CHECKPOINT]
            if parent is not None:
                assert state.event is not None
                step = state.event.step if step is True else step
                whole = packed_id(long_parent(parent, checkpoint_id))
                encoded = {_CHECKPOINT: packed([None, time, step, said, whole])}
                if known.veil is not None:
                    encoded = known.veil.sealed(encoded, is_first=False)
                self.run.write(self.run.prepare({}, encoded=encoded, at=state.event, id=checkpoint_id))
            self._known = _Known()

    def parent(self, checkpoint_id: str) -> str | None:
        """The id of the parent that a checkpoint names, None if it names none."""
        state = self._unveiled(self.run.at(checkpoint_id))
        return _described(state.event, state)[1]

    def true_parent(self, event: Event) -> str | None:
        """The id of the checkpoint that came before; where it was pruned, too."""
        said = self.run.written_by(event, _CHECKPOINT)
        if said is None:  # the same bytes as the one before
            said = self.run.at(event)[_CHECKPOINT]
        parent = said[4] if len(said) > 4 else said[0]  # noqa: PLR2004 (see packed)
        return None if parent is None else long_parent(parent, event.given_id or "")

    def value_at(self, event: Event, channel: str) -> Any:
        """A channel's value at a checkpoint."""
        return self._unveiled(self.run.at(event))[escaped(channel)]

    def channels_at(self, where: str | Event) -> tuple[set[str], set[str]]:
        """The channels that have a value at a checkpoint, and those that have a version and no value."""
        versions, _, users, _ = _parts_of(self._unveiled(self.run.at(where)))
        return set(users), versions.keys() - users.keys()

    def emptied_by(self, event: Event, channels: Iterable[str]) -> set[str]:
        """Those of some channels that may have had a value before an event, and have none after it."""
        payloads = self.run.payloads_by(event)
        veil = self._known_of(self.run.at(event)).veil if self.sealed is not None else None
        names = {channel: escaped(channel) if veil is None else veil.name(escaped(channel)) for channel in channels}
        return {channel for channel, name in names.items() if _is_empty(payloads.get(name, _MISSING))}

    def metadata(self, checkpoint_id: str) -> CheckpointMetadata | None:
        """The metadata of a checkpoint, read alone; None if it is not there."""
        try:
            state = self._unveiled(self.run.at(checkpoint_id))
            return _described(state.event, state)[0]
        except (NotFoundError, KeyError):  # deleted at this moment, or no checkpoint
            return None


def _moved(
    known: _Known, given: ChannelVersions, new: ChannelVersions | None
) -> tuple[Iterable[str], str | None, dict[str, Any]]:
    """Channels whose version is another one than known, is said to be `new`, or is gone; all, if that is not said.

    And the greatest of the new versions, if all are known to be strings, and it is greater than those known; and the
    versions, a dict of our own.
    """
    before = known.versions
    if new and known.newest is not None:
        versions = {**before, **new}
        newest = _newest(new)
        if newest is not None and versions == given:
            return new, newest if newest > known.newest else None, versions
    versions = dict(given)
    new = versions if new is None else new
    moved = [
        channel
        for channel, version in versions.items()
        if channel in new or channel not in before or before[channel] != version or type(version) is not str
    ]
    return moved + [channel for channel in before if channel not in versions], None, versions


def _comparable(versions: Mapping[str, Any]) -> dict[str, Any] | None:
    """A copy of versions to compare others with; None if that would not tell whether they are the same.

    Numbers are never called the same, for Python calls 1 and True equal.
    """
    for version in versions.values():
        if type(version) is not str:
            return None
    return dict(versions)


class _Parts(NamedTuple):
    """What stands in the channels of a run.

    Attributes:
        versions: of the user's channels.
        seen: what nodes have seen.
        users: the user's channels that have a value, with its bytes, None where those are not in memory as one piece.
        own: the saver's own channels that are of none of those, in the same way.
    """

    versions: dict[str, Any]
    seen: dict[str, dict[str, Any]]
    users: dict[str, bytes | None]
    own: dict[str, bytes | None]


def _parts_of(state: State | Unveiled) -> _Parts:
    """The channels of a checkpoint's state, told apart."""
    versions: dict[str, Any] = {}
    moved: dict[str, Any] = {}  # since the value was set
    seen: dict[str, dict[str, Any]] = {}
    users: dict[str, bytes | None] = {}
    own: dict[str, bytes | None] = {}
    for name, data in state.pieces():  # what the saver packed itself begins with 0; else it is the codec's to judge
        kind, of = _said_by(name)
        if not kind:
            if not data or data[0] < VERSIONED:
                users[of] = data or None
                continue
            start = data[0] - VERSIONED + 1
            versions[of] = version_of(data[:start])
            if start < len(data):
                users[of] = data[start:]
        elif kind == MARK:
            own[of] = data
        elif kind == _VERSION:
            moved[of] = version_of(data) if data and not data[0] else long_version(state[name])
        else:
            seen[of] = seen_of(data) if data and not data[0] else long_seen(state[name])
    versions.update(moved)
    return _new(_Parts, (versions, seen, users, own))


@lru_cache(4096)  # a thread's checkpoints have the same channels
def _said_by(name: str) -> tuple[str, str]:
    """What a channel of the run says: of which channel it is the value, the version, or what a node has seen.

    Returns:
        Nothing, `_VERSION` or `_SEEN`, and the channel or the node; or the mark and the name as it is.
    """
    if name[0] != MARK or name[1:2] == MARK:
        return "", plain(name)
    kind = name[:_PREFIX]
    return (kind, name[_PREFIX:]) if kind in (_VERSION, _SEEN) else (MARK, name)


def _is_empty(payload: Any) -> bool:
    """Whether a channel that an event wrote has no value then: it was deleted, or nothing stands behind its version."""
    return payload is None or (payload is not _MISSING and parted(payload)[0] is not None and not parted(payload)[1])


def _newest(versions: Mapping[str, Any]) -> str | None:
    """The greatest version; None if they are not all strings."""
    newest = ""
    for version in versions.values():
        if type(version) is not str:
            return None
        if version > newest:  # noqa: PLR1730 (a call costs more)
            newest = version
    return newest


def _updated(updated: int, versions: Mapping[str, Any], values: Mapping[str, Any]) -> list[str] | None:
    """What the checkpoint says was updated, where that is not among the rest.

    Nearly always those are the channels that have the newest version and a value.
    """
    if updated != BY_VERSIONS:
        return None
    newest = max(versions.values(), default="")
    return sorted([name for name, each in versions.items() if each == newest and name in values])


def _updated_as(said: Any, changes: _Changes) -> int:
    """How `_updated` will say what the checkpoint does; only what moved can have the newest version."""
    if said is None or changes.newest is None:
        return NONE if said is None else AMONG_REST
    if type(said) is not list or not (said == changes.updated or said == sorted(changes.updated)):
        return AMONG_REST
    for channel in said:
        if type(channel) is not str:
            return AMONG_REST
    return BY_VERSIONS


def _described(event: Event | None, said: Mapping[str, Any]) -> tuple[CheckpointMetadata, str | None, str | None, int]:
    """Metadata, the parent's id, the checkpoint's time, and how `_updated` says what was updated.

    Of a checkpoint's event, and what the saver's own channels say there.
    """
    assert event is not None
    own = event.given_id or ""
    parent, time, step, more, *_ = said[_CHECKPOINT]
    place, updated = divmod(more, 3)
    metadata = said[_METADATA]
    if place:
        metadata["source"] = SOURCES[place]
    if step is not None:
        metadata["step"] = event.step if step is True else step
    named = None if parent is None else long_parent(parent, own)
    return metadata, named, None if time is None else long_time(time, own), updated
