"""One thread and namespace: how LangGraph's checkpoints are states of a run.

A checkpoint is an event with the checkpoint's id; a channel that has a value is a channel of the run. What else a
checkpoint holds stands in channels whose names begin with ``~``, so that it too costs only what changed:

```
 ~v:CHANNEL   the channel's version
 ~s:NODE      the versions that the node has seen
 ~metadata    the metadata, but for the step
 ~rest        every other key of the checkpoint
 ~checkpoint  what is another one each time: see packed; and the parent that was pruned
```

An event's *base* is what its delta is against; a checkpoint's *parent* is what LangGraph named. They are the same where
the parent is there. Where it is not, the base is any event of the run.

What was put last is remembered, so that the next checkpoint is compared with it and not with what is stored.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from operator import is_
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from eventlog import (
    Delete,
    EventLogError,
    Extend,
    NotFoundError,
    TooLargeError,
    UnserializableError,
    Update,
    packed_id,
    unpacked_id,
)
from savers.langgraph.packed import (
    Packed,
    long_time,
    long_version,
    packed,
    packed_plain,
    short_time,
    short_version,
)
from savers.saver import MARK, escaped, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata

    from eventlog import Event, Prepared, Run, State
    from savers.langgraph.serde import SerdeCodec

_VERSION, _SEEN = MARK + "v:", MARK + "s:"
_METADATA, _REST, _CHECKPOINT = MARK + "metadata", MARK + "rest", MARK + "checkpoint"
_PREFIX: Final = len(_VERSION)
_OWN_KEYS: Final = frozenset({"id", "ts", "channel_values", "channel_versions", "versions_seen"})
_SCALARS: Final = frozenset({int, float, bool, type(None)})
_TEXTS: Final = frozenset({str, bytes})
_SMALL: Final = 256
"""Strings and bytes up to this length are compared as encoded; longer ones by the engine, which finds what grew."""
_STR: Final = frozenset({str})
_MISSING: Final = object()
_MAX_STEP: Final = 1 << 62


class _Known:
    """What a checkpoint says, as this process put it last.

    Attributes:
        event: the checkpoint's, None before the first one.
        versions: of its channels.
        seen: what each node has seen.
        stored: the run's channels that are there, with their bytes, None where those are not known.
        lists: the items of lists that were put, where lists are told apart by their items' identity.
        size: bytes of the state as encoded, or more.
    """

    __slots__ = ("event", "lists", "seen", "size", "stored", "versions")

    def __init__(self, state: State | None = None) -> None:
        self.event = None if state is None else state.event
        self.versions: dict[str, Any] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        self.stored: dict[str, bytes | None] = {}
        self.lists: dict[str, list[Any]] = {}
        self.size = 0
        if state is not None:
            self.size = state.size_bytes
            self.stored = {name: state.encoded(name) for name in state}
            self.versions, self.seen = _versions_of(state)


class _Writes(NamedTuple):
    """What a checkpoint changes: for the engine, and for what is known once it is written."""

    known: _Known
    writes: dict[str, Any]
    stored: dict[str, bytes | None]
    lists: dict[str, list[Any]]

    def put(self, name: str, payload: bytes) -> None:
        """Set a channel of the run, if its bytes are others than known."""
        if self.known.stored.get(name) != payload:
            self.writes[name] = Packed(payload)
            self.stored[name] = payload

    def delete(self, name: str) -> None:
        """Remove a channel of the run, if it is there."""
        if name in self.known.stored:
            self.writes[name] = Delete()

    def put_list(self, name: str, items: list[Any]) -> None:
        """Set a channel to a list that has the items of the one before, if they are the same objects, and more."""
        before = self.known.lists.get(name)
        if before is None or len(items) < len(before) or not all(map(is_, before, items)):
            self.writes[name] = Update(items)
        elif len(items) > len(before):
            self.writes[name] = Extend(items[len(before) :])
        self.lists[name] = list(items)


class Made(NamedTuple):
    """A checkpoint, encoded and not yet written."""

    event: Prepared
    base: Event | None
    changes: _Writes
    versions: dict[str, Any]
    seen: dict[str, dict[str, Any]]
    size: int


class Read(NamedTuple):
    """A checkpoint as it is stored."""

    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    parent: str | None
    writes: list[tuple[str, str, Any]]


class Thread:
    """The checkpoints of one thread and namespace, over a handle on their run. Safe for many threads."""

    def __init__(self, run: Run, codec: SerdeCodec, max_bytes: int, *, by_identity: bool) -> None:
        self.run = run
        self._by_identity = by_identity
        self._codec = codec
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._known = _Known()

    def thawed(self, made: Made, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint that was made, with the values that were encoded whole as they were then."""
        said = made.event.values()
        values = checkpoint.get("channel_values") or {}
        then = {channel: said.get(escaped(channel), value) for channel, value in values.items()}
        return cast("Checkpoint", {**checkpoint, "channel_values": then})

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
        """
        with self._lock:
            known, is_parent = self._base(parent)
            base, size = known.event, known.size
            changes = _Writes(known, {}, {}, {})
            versions = dict(checkpoint["channel_versions"])
            moved = _moved(known.versions, versions, new_versions if is_parent else None)
            try:
                self._put_values(changes, checkpoint.get("channel_values") or {}, moved, versions)
                seen = self._put_seen(changes, checkpoint["versions_seen"])
                step = self._put_rest(changes, parent, checkpoint, metadata)
            except (TypeError, ValueError, OverflowError) as error:  # what is ours to pack, and cannot be
                if isinstance(error, EventLogError):
                    raise
                raise UnserializableError("checkpoint", f"{type(error).__name__}: {error}") from error
            event = self.run.prepare(changes.writes, at=base, id=checkpoint["id"], step=step)
        size += event.payload_bytes
        if size > self._max_bytes:
            size = event.state_bytes
            if size > self._max_bytes:
                raise TooLargeError("checkpoint bytes", size, self._max_bytes)
        return Made(event, base, changes, versions, seen, size)

    def write(self, made: Made) -> None:
        """Write what `make` encoded; raises as `Run.write`."""
        with self._lock:
            event = self.run.write(made.event)
            known, _, stored, lists = made.changes
            if known.event is not made.base:  # another one was written meanwhile: look again
                self._known = _Known()
                return
            for name, value in made.changes.writes.items():
                if isinstance(value, Delete):
                    known.stored.pop(name, None)
                    known.lists.pop(name, None)
                    if name.startswith(_SEEN):
                        known.seen.pop(name[_PREFIX:], None)
                else:
                    known.stored[name] = stored.get(name)
                    known.lists.pop(name, None)
            known.lists.update(lists)
            known.event, known.versions, known.size = event, made.versions, made.size
            known.seen.update(made.seen)
            self._known = known

    def _base(self, parent: str | None) -> tuple[_Known, bool]:
        """What a new checkpoint is compared with, and whether that is its parent.

        Where the parent is not there, it is any other; nothing in an empty run.
        """
        run, known = self.run, self._known
        if parent is not None:
            event = known.event
            if event is not None and event.given_id == parent == run.head_id and run.is_current(event):
                return known, True
            with suppress(NotFoundError):
                return _Known(run.at(parent)), True
        return _Known(None if run.head_id is None else run.state), False

    def _put_values(
        self, changes: _Writes, values: Mapping[str, Any], moved: Iterable[str], versions: Mapping[str, Any]
    ) -> None:
        """Channels that may differ from the base's; one that has a version and no value is empty."""
        encode = self._codec.encode
        last, payload = None, packed_plain(None)  # nearly always one version for all
        for channel in moved:
            name = escaped(channel)
            value: Any = values.get(channel, _MISSING) if channel in versions else _MISSING
            if value is _MISSING:
                changes.delete(name)
            elif type(value) in _SCALARS or (type(value) in _TEXTS and len(value) <= _SMALL):
                changes.put(name, encode(value, channel))
            elif self._by_identity and type(value) is list and value:
                changes.put_list(name, value)
            else:
                changes.writes[name] = Update(value)
            if channel not in versions:
                changes.delete(_VERSION + channel)
                continue
            version = versions[channel]
            if version is not last:
                last, payload = version, packed_plain(short_version(version))
            changes.put(_VERSION + channel, payload)

    def _put_seen(self, changes: _Writes, seen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What nodes have seen; returns what is new of it."""
        known = changes.known.seen
        new = {node: dict(each) for node, each in seen.items() if not _are_same(known.get(node), each)}
        for node, each in new.items():
            payload = packed_plain({channel: short_version(version) for channel, version in each.items()})
            changes.put(_SEEN + node, payload)
        if len(known.keys() | new.keys()) != len(seen):
            for node in known.keys() - seen.keys():
                changes.delete(_SEEN + node)
        return new

    def _put_rest(
        self, changes: _Writes, parent: str | None, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> int | None:
        """Everything else; returns the step that the metadata says, None if it says none that an event can have."""
        described: dict[str, Any] = dict(metadata)
        rest = {key: value for key, value in checkpoint.items() if key not in _OWN_KEYS}
        step: int | None = None
        if type(described.get("step")) is int and -_MAX_STEP < described["step"] < _MAX_STEP:
            step = described.pop("step")
        time: str | int | None = None
        if type(checkpoint.get("ts")) is str:
            time = short_time(checkpoint["ts"])
        elif "ts" in checkpoint:
            rest["ts"] = checkpoint["ts"]
        changes.put(_METADATA, self._bytes(described, "metadata"))
        changes.put(_REST, self._bytes(rest, "checkpoint"))
        changes.put(_CHECKPOINT, packed_plain([None if parent is None else packed_id(parent), time, step]))
        return step

    def _bytes(self, value: dict[str, Any], path: str) -> bytes:
        """What is plain is packed; anything else is the serializer's business."""
        try:
            return packed(value)
        except (TypeError, ValueError, OverflowError):
            return self._codec.encode(value, path)

    # --- reading --------------------------------------------------------------------------------------------------

    def newest_id(self) -> str | None:
        """The greatest id of a checkpoint, None if there is none."""
        return next(self.run.given_ids(limit=1), None)

    def read(self, checkpoint_id: str) -> Read | None:
        """The checkpoint of that id; None if it is not there."""
        try:
            state = self.run.at(checkpoint_id)
            if state.event is None or state.event.given_id != checkpoint_id:
                return None
            values: dict[str, Any] = {}
            for name in state:
                if name[:1] != MARK or name[1:2] == MARK:
                    values[plain(name)] = state[name]
            versions, seen = _versions_of(state)
            metadata, parent, time = _described(state)
            checkpoint = {
                **state[_REST],
                **({} if time is None else {"ts": time}),
                "id": checkpoint_id,
                "channel_values": values,
                "channel_versions": versions,
                "versions_seen": seen,
            }
            writes = [(write.task, write.channel, write.value) for write in self.run.task_writes(checkpoint_id)]
        except NotFoundError:  # never put, or deleted at this moment
            return None
        return Read(cast("Checkpoint", checkpoint), metadata, parent, writes)

    def detach(self, checkpoint_id: str) -> None:
        """Put a checkpoint again without its parent, which is to be pruned; what came before stays known to histories.

        Raises:
            NotFoundError: it is not there.
        """
        with self._lock:
            state = self.run.at(checkpoint_id)
            parent, *rest = state[_CHECKPOINT]
            if parent is not None:
                payload = packed_plain([None, *rest[:2], parent])
                again = self.run.prepare({_CHECKPOINT: Packed(payload)}, at=state.event, id=checkpoint_id)
                self.run.write(again)
            self._known = _Known()

    def parent(self, checkpoint_id: str) -> str | None:
        """The id of the parent that a checkpoint names, None if it names none."""
        return _described(self.run.at(checkpoint_id))[1]

    def empty_channels(self, checkpoint_id: str) -> list[str]:
        """The channels that have a version at a checkpoint and no value."""
        state = self.run.at(checkpoint_id)
        return [channel for channel in _versions_of(state)[0] if escaped(channel) not in state]

    def metadata(self, checkpoint_id: str) -> CheckpointMetadata | None:
        """The metadata of a checkpoint, read alone; None if it is not there."""
        try:
            return _described(self.run.at(checkpoint_id))[0]
        except (NotFoundError, KeyError):  # deleted at this moment, or no checkpoint
            return None


def _moved(known: dict[str, Any], versions: dict[str, Any], new: ChannelVersions | None) -> Iterable[str]:
    """Channels whose version is another one than known, is said to be `new`, or is gone; all, if that is not said."""
    if new is not None and _are_same({**known, **new}, versions):
        return new
    new = versions if new is None else new
    moved = [
        channel
        for channel, version in versions.items()
        if channel in new or channel not in known or known[channel] != version or type(version) is not str
    ]
    return moved + [channel for channel in known if channel not in versions]


def _are_same(known: Mapping[str, Any] | None, versions: Mapping[str, Any]) -> bool:
    """Whether versions are those known; never said of numbers, for Python calls 1 and True equal."""
    return known == versions and _STR.issuperset(map(type, versions.values()))


def _versions_of(state: State) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Versions of channels, and what nodes have seen."""
    versions: dict[str, Any] = {}
    seen: dict[str, dict[str, Any]] = {}
    for name in state:
        if name.startswith(_VERSION):
            versions[name[_PREFIX:]] = long_version(state[name])
        elif name.startswith(_SEEN):
            seen[name[_PREFIX:]] = {channel: long_version(short) for channel, short in state[name].items()}
    return versions, seen


def _described(state: State) -> tuple[CheckpointMetadata, str | None, str | None]:
    """Metadata, the parent's id and the checkpoint's time."""
    parent, time, step = state[_CHECKPOINT][:3]
    metadata = state[_METADATA]
    if step is not None:
        metadata["step"] = step
    return metadata, None if parent is None else unpacked_id(parent), None if time is None else long_time(time)
