"""The seed contract's savers, on an event log.

Owns how a checkpoint is a state of a run: a thread is a run, a checkpoint is an event with the checkpoint's id, its
channels are the run's channels. Only what differs from the parent is written.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from eventlog import (
    BusyError,
    ConflictError,
    Delete,
    EventLog,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
    check_id,
)
from savers.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointConfig,
    CheckpointMetadata,
    CheckpointTuple,
    check_before,
    check_limit,
)
from savers.serde import JsonPlusSerde

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from eventlog import Codec, Event, Prepared, Run, State

    RunName = str | tuple[str, ...]

MAX_CHECKPOINT_BYTES = 1 << 30
"""The default limit of one checkpoint, as encoded."""

MARK = "~"
_WRITES = "~writes"
_KEPT_RUNS = 128


class Handle(Protocol):
    """What is kept per run: the engine's handle on it, or something that stands on that."""

    def is_stale(self) -> bool:
        """See `Run.is_stale`."""


H = TypeVar("H", bound=Handle)


class Handles(Generic[H]):
    """Handles on the runs of a log, the last opened ones kept; shared by all that write the log through one saver.

    The child of a ``fork`` opens its own: a thread that is not there may hold the lock of one of its parent's.
    """

    def __init__(self, log: EventLog, opened: Callable[[RunName, Codec], H]) -> None:
        self.log = log
        self._opened = opened
        self.begin()
        _all_handles.add(self)

    def begin(self) -> None:
        """Have no handle, and a free lock; in the child of a fork again."""
        self._kept: dict[tuple[object, ...], H] = {}
        self._lock = threading.Lock()

    def to_write(self, name: RunName, codec: Codec) -> H:
        """A handle on run `name`, which may be new; what was deleted meanwhile shows when it is written to."""
        handle = self._kept.get((name, codec))
        if handle is not None:
            return handle
        with self._lock:
            handle = self._kept.get((name, codec)) or self._opened(name, codec)
            self._kept[name, codec] = handle
            while len(self._kept) > _KEPT_RUNS:
                self._kept.pop(next(iter(self._kept)))
        return handle

    def known(self, name: RunName, codec: Codec) -> H | None:
        """The handle on run `name`, if there is one."""
        return self._kept.get((name, codec))

    def to_read(self, name: RunName, codec: Codec) -> H:
        """A handle on run `name` as it is now, whoever deleted or made it."""
        handle = self._kept.get((name, codec))
        return self.reopened(name, codec) if handle is None or handle.is_stale() else handle

    def reopened(self, name: RunName, codec: Codec) -> H:
        """A new handle on run `name`, instead of the one there is."""
        self.forget(name)
        return self.to_write(name, codec)

    def forget(self, name: RunName) -> None:
        """Give up the handles on a run: it was deleted."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == name]:
                del self._kept[key]

    def delete(self, name: RunName) -> None:
        """Delete a run, if it is there."""
        with suppress(NotFoundError):  # somebody else was first
            self.log.delete(name)
        self.forget(name)


_all_handles: weakref.WeakSet[Handles[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for handles in _all_handles:
        handles.begin()


os.register_at_fork(after_in_child=_after_fork_in_child)


def runs_of(log: EventLog) -> Callable[[RunName, Codec], Run]:
    """How handles on the runs of a log are opened."""
    return lambda name, codec: log.run(name, codec=codec)


def escaped(channel: str) -> str:
    """The run's channel for a channel of the user's: a saver's own begin with a mark, so theirs that do get another."""
    return MARK + channel if channel.startswith(MARK) else channel


def plain(channel: str) -> str:
    """The user's channel for a channel of the run."""
    return channel[1:] if channel.startswith(MARK) else channel


def is_users(channel: str) -> bool:
    """Whether a channel of the run is the user's."""
    return not channel.startswith(MARK) or channel.startswith(MARK * 2)


class EventLogSaver(BaseCheckpointSaver):
    """Keeps checkpoints in an event log: a superstep costs what it changed, a fork copies nothing.

    Args:
        log: the log, which stays its owner's to close; or the location of one, which `close` then closes.
        serde: turns values into bytes; by default JSON with tagged types. Threads keep the one they began with.
        max_checkpoint_bytes: the largest checkpoint, as encoded, that `put` takes.
    """

    def __init__(
        self,
        log: EventLog | str | os.PathLike[str],
        *,
        serde: Codec | None = None,
        max_checkpoint_bytes: int = MAX_CHECKPOINT_BYTES,
    ) -> None:
        self._owns_log = not isinstance(log, EventLog)
        self.log = log if isinstance(log, EventLog) else EventLog.open(log)
        self.serde: Codec = serde or JsonPlusSerde()
        self.max_checkpoint_bytes = max_checkpoint_bytes
        self._runs = Handles(self.log, runs_of(self.log))

    def put(self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> CheckpointConfig:
        """See `BaseCheckpointSaver.put`; refuses a checkpoint larger than `max_checkpoint_bytes` by `TooLargeError`."""
        while True:
            run = self._runs.to_write(config.thread_id, self.serde)
            try:
                run.write(self._prepared(run, config, checkpoint, metadata))
            except (
                NotFoundError,
                ConflictError,
            ):  # somebody deleted or began the thread since this process last looked
                self._runs.forget(config.thread_id)
            else:
                return CheckpointConfig(config.thread_id, checkpoint.id)

    async def aput(
        self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> CheckpointConfig:
        """See `BaseCheckpointSaver.aput`; on a local log it is written at once, where that waits for nobody."""
        run, prepared = self._taken(config, checkpoint, metadata)
        with suppress(BusyError, NotFoundError, ConflictError), run.at_once() as is_free:
            if is_free:
                run.write(prepared)
                return CheckpointConfig(config.thread_id, checkpoint.id)
        return await asyncio.to_thread(self._write, run, prepared, config, checkpoint, metadata)

    def _taken(
        self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> tuple[Run, Prepared]:
        """A checkpoint as it is now, encoded, and the run to write it to."""
        while True:
            run = self._runs.to_read(config.thread_id, self.serde)  # as it is now: who deletes it does so after this
            try:
                return run, self._prepared(run, config, checkpoint, metadata)
            except NotFoundError:  # at this moment
                self._runs.forget(config.thread_id)

    def _write(
        self,
        run: Run,
        prepared: Prepared,
        config: CheckpointConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
    ) -> CheckpointConfig:
        """Write what was encoded a while ago; the values themselves may be others by now."""
        try:
            run.write(prepared)
        except NotFoundError:  # deleted since then, and this with it: as if it had come first
            self._runs.forget(config.thread_id)
        except ConflictError:  # begun by somebody else since then; so it was encoded as a first one, all of it whole
            self._runs.forget(config.thread_id)
            said = run.values_of(prepared)
            values = {plain(channel): value for channel, value in said.items() if is_users(channel)}
            self.put(config, replace(checkpoint, channel_values=values), replace(metadata, writes=said.get(_WRITES)))
        return CheckpointConfig(config.thread_id, checkpoint.id)

    def _prepared(
        self, run: Run, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> Prepared:
        has_parent = config.checkpoint_id is not None and _has(run, config.checkpoint_id)
        state = {escaped(channel): value for channel, value in checkpoint.channel_values.items()}
        if metadata.writes is not None:
            state[_WRITES] = dict(metadata.writes)
        prepared = run.prepare(
            state=state,
            at=config.checkpoint_id if has_parent else run.head_id,
            id=checkpoint.id,
            step=metadata.step,
            meta=_meta(config, checkpoint, metadata, has_parent=has_parent),
        )
        if prepared.state_bytes > self.max_checkpoint_bytes:
            raise TooLargeError("checkpoint bytes", prepared.state_bytes, self.max_checkpoint_bytes)
        return prepared

    def get_tuple(self, config: CheckpointConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.get_tuple`."""
        run = self._runs.to_read(config.thread_id, self.serde)
        checkpoint_id = config.checkpoint_id or run.greatest_id()
        return None if checkpoint_id is None else self._tuple(run, checkpoint_id)

    def _tuple(self, run: Run, checkpoint_id: str) -> CheckpointTuple | None:
        try:
            return self._read_tuple(run, checkpoint_id)
        except NotFoundError:  # never put, or deleted at this moment
            return None

    def _read_tuple(self, run: Run, checkpoint_id: str) -> CheckpointTuple | None:
        state = run.at(checkpoint_id)
        event = cast("Event", state.event)
        if event.given_id != checkpoint_id:
            return None  # an event's own id is no checkpoint's
        meta = event.meta
        values = {plain(channel): state[channel] for channel in state if is_users(channel)}
        said = state.get(_WRITES)
        writes = said if said is not None else _writes(event, state, values)
        thread_id = cast("str", run.name)
        parent = meta.get("parent")
        checkpoint = Checkpoint(checkpoint_id, values, meta.get("format_version", 1), meta.get("created_at"))
        metadata = CheckpointMetadata(meta["source"], meta["step"], writes, meta.get("parents", {}))
        return CheckpointTuple(
            checkpoint,
            CheckpointConfig(thread_id, checkpoint_id),
            metadata,
            None if parent is None else CheckpointConfig(thread_id, parent),
        )

    def list(
        self,
        config: CheckpointConfig | None,
        *,
        before: str | CheckpointConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """See `BaseCheckpointSaver.list`; over all threads, thread after thread."""
        return self._listed(config, check_before(before), check_limit(limit))

    def _listed(
        self, config: CheckpointConfig | None, before: str | None, limit: int | None
    ) -> Iterator[CheckpointTuple]:
        left = limit
        for thread_id in self._threads() if config is None else [config.thread_id]:
            run = self._runs.to_read(thread_id, self.serde)
            wanted = None if config is None else config.checkpoint_id
            ids = run.given_ids(before) if wanted is None else [wanted] if before is None or wanted < before else []
            for checkpoint_id in ids:
                if left == 0:
                    return
                found = self._tuple(run, checkpoint_id)
                if found is not None:
                    left = None if left is None else left - 1
                    yield found

    def _threads(self) -> Sequence[str]:
        """The runs of this log that are threads of such a saver."""
        names = [name for name in self.log.runs() if isinstance(name, str)]
        return [name for name in names if self.log.codec_name(name) == self.serde.name]

    def delete_thread(self, thread_id: str) -> None:
        """See `BaseCheckpointSaver.delete_thread`."""
        if self.log.codec_name(check_id("thread_id", thread_id)) == self.serde.name:  # else it is somebody else's run
            self._runs.delete(thread_id)

    def run(self, thread_id: str) -> Run:
        """The run behind a thread: to diff, replay or fork it. A handle of the caller's own."""
        return self.log.run(check_id("thread_id", thread_id), codec=self.serde)

    def close(self) -> None:
        """Close the log, if this saver opened it. Idempotent."""
        if self._owns_log:
            self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)


class InMemoryCheckpointSaver(EventLogSaver):
    """Keeps checkpoints as long as it lives itself: for tests and short programs."""

    def __init__(self, *, serde: Codec | None = None, max_checkpoint_bytes: int = MAX_CHECKPOINT_BYTES) -> None:
        super().__init__("memory:", serde=serde, max_checkpoint_bytes=max_checkpoint_bytes)


class SqliteSaver(EventLogSaver):
    """Keeps checkpoints in one SQLite file, which every tool opens and any number of processes share.

    Args:
        path: the file; made where it is missing.
        serde: as for `EventLogSaver`.
        max_checkpoint_bytes: as for `EventLogSaver`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        serde: Codec | None = None,
        max_checkpoint_bytes: int = MAX_CHECKPOINT_BYTES,
    ) -> None:
        super().__init__(f"sqlite:///{os.fspath(path)}", serde=serde, max_checkpoint_bytes=max_checkpoint_bytes)


class _UrlSaver(EventLogSaver):
    """Keeps checkpoints where a URL of its kind says."""

    _beginnings: ClassVar[tuple[str, ...]]

    def __init__(
        self, url: str, *, serde: Codec | None = None, max_checkpoint_bytes: int = MAX_CHECKPOINT_BYTES
    ) -> None:
        if not url.startswith(self._beginnings):
            raise InvalidInputError(f"the URL of a {type(self).__name__} begins with {', '.join(self._beginnings)}")
        super().__init__(url, serde=serde, max_checkpoint_bytes=max_checkpoint_bytes)


class PostgresSaver(_UrlSaver):
    """Keeps checkpoints in a PostgreSQL database, which any number of machines share.

    Args:
        url: ``postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE``, with ``?schema=NAME`` where several logs share it.
        serde: as for `EventLogSaver`.
        max_checkpoint_bytes: as for `EventLogSaver`.
    """

    _beginnings = ("postgresql://", "postgres://")


class RedisSaver(_UrlSaver):
    """Keeps checkpoints on a server of Redis, which any number of machines share.

    The server must flush what it is given (``appendonly yes``); `EventLog.open` says what else it may be used for.

    Args:
        url: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``, ``rediss://…`` or ``unix:///PATH``, with ``?prefix=NAME``
            where several logs share the server.
        serde: as for `EventLogSaver`.
        max_checkpoint_bytes: as for `EventLogSaver`.
    """

    _beginnings = ("redis://", "rediss://", "unix://")


class ObjectStoreSaver(_UrlSaver):
    """Keeps checkpoints under a prefix of a bucket, or in a folder, which one process writes and any number read.

    Args:
        url: ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``, ``az://CONTAINER/PREFIX`` or ``file:///PATH``; credentials
            and the endpoint come from the environment.
        serde: as for `EventLogSaver`.
        max_checkpoint_bytes: as for `EventLogSaver`.
    """

    _beginnings = ("s3://", "gs://", "az://", "file:///")


def _has(run: Run, checkpoint_id: str) -> bool:
    """Whether the run has a checkpoint of that id."""
    try:
        return run.event(checkpoint_id).given_id == checkpoint_id
    except NotFoundError:
        return False


def _meta(
    config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, *, has_parent: bool
) -> dict[str, Any]:
    """What an event keeps of a checkpoint beside its values; what says nothing is left out."""
    parents = dict(metadata.parents)
    if config.checkpoint_id is not None:
        parents.setdefault("", config.checkpoint_id)
    meta: dict[str, Any] = {"source": metadata.source, "step": metadata.step}
    optional = {
        "parent": config.checkpoint_id,
        "stray": not has_parent,
        "parents": parents,
        "created_at": checkpoint.created_at,
        "format_version": checkpoint.format_version if checkpoint.format_version != 1 else None,
    }
    meta.update({key: value for key, value in optional.items() if value})
    return meta


def _writes(event: Event, state: State, values: dict[str, Any]) -> dict[str, Any]:
    """What changed since the parent: the new values by channel, None for one that is gone. All, if it was not there."""
    if event.meta.get("stray"):
        return {channel: state[escaped(channel)] for channel in values}
    changed = {plain(channel): write for channel, write in event.writes.items() if is_users(channel)}
    return {
        channel: None if isinstance(write, Delete) else state[escaped(channel)] for channel, write in changed.items()
    }
