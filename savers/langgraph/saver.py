"""LangGraph's checkpointer, on an event log.

Owns how LangGraph's checkpoint is a state of a run. A thread and namespace is a run; a checkpoint is an event with the
checkpoint's id; a channel that has a value is a channel of the run. What else a checkpoint holds stands in channels
whose names begin with ``~``, so that it too costs only what changed:

```
 ~versions   channel_versions
 ~seen       versions_seen
 ~metadata   the metadata
 ~rest       every other key of the checkpoint
 ~parent     the parent's id, if there is one
```

An event's *base* is what its delta is against; a checkpoint's *parent* is what LangGraph named. They are the same where
the parent is there. Where it is not, the base is any event of the run.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)

from eventlog import (
    ConflictError,
    Delete,
    EventLog,
    InvalidIdError,
    NotFoundError,
    TaskWrite,
    TooLargeError,
    Update,
    check_id,
)
from savers.langgraph.serde import CODEC, SerdeCodec, strict_serializer
from savers.saver import MAX_CHECKPOINT_BYTES, Runs, escaped, is_users, plain

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from eventlog import Prepared, Run, State

_VERSIONS, _SEEN, _METADATA, _REST, _PARENT = "~versions", "~seen", "~metadata", "~rest", "~parent"
_OWN_KEYS = frozenset({"id", "channel_values", "channel_versions", "versions_seen"})
_NAMESPACE_BYTES = 4096


class EventLogSaver(BaseCheckpointSaver[str]):
    """Keeps the checkpoints of LangGraph graphs in an event log, for sync and async graphs alike.

    Args:
        log: the log, which stays its owner's to close.
        serde: LangGraph's serializer of values. By default its own, limited to the types it knows to be safe; another
            stored type is refused by an error that says how to allow it.
        max_checkpoint_bytes: the largest checkpoint, as encoded, that `put` takes.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        serde: SerializerProtocol | None = None,
        max_checkpoint_bytes: int = MAX_CHECKPOINT_BYTES,
    ) -> None:
        super().__init__(serde=serde or strict_serializer())
        self.log = log
        self.max_checkpoint_bytes = max_checkpoint_bytes
        self._runs = Runs(log)
        self._owns_log = False

    @classmethod
    def from_conn_string(
        cls,
        location: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal", "off"] = "normal",
        **options: Any,
    ) -> Self:
        """A saver on the log at `location`, opened for it; use it in ``with`` or ``async with``, which closes the log.

        Args:
            location: as for `EventLog.open`.
            synchronous: as for `EventLog.open`.
            options: as for the class.
        """
        saver = cls(EventLog.open(location, synchronous=synchronous), **options)
        saver._owns_log = True
        return saver

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

    # --- writing --------------------------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint as a child of the one that `config` names; see `BaseCheckpointSaver.put`."""
        while not self._is_put(lambda: self._prepared(config, checkpoint, metadata, new_versions), config):
            pass
        return _config(*_thread_of(config), checkpoint["id"])

    def _is_put(self, prepare: Callable[[], tuple[Run, Prepared]], config: RunnableConfig) -> bool:
        """Whether it was written; if not, somebody deleted or began the thread since this process last looked."""
        try:
            run, prepared = prepare()
            run.write(prepared)
        except (NotFoundError, ConflictError):
            self._runs.forget(_run_name(*_thread_of(config)))
            return False
        return True

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`. The values are encoded before this first waits, so the graph may go on to change them."""
        try:
            encoded = self._prepared(config, checkpoint, metadata, new_versions)
        except NotFoundError:
            self._runs.forget(_run_name(*_thread_of(config)))
            encoded = self._prepared(config, checkpoint, metadata, new_versions)
        if not await asyncio.to_thread(self._is_put, lambda: encoded, config):
            return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)
        return _config(*_thread_of(config), checkpoint["id"])

    def _prepared(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> tuple[Run, Prepared]:
        parent = _checkpoint_id(config)
        run = self._runs.to_write(_run_name(*_thread_of(config)), self._codec)
        base, is_parent = _base(run, parent)
        described = get_checkpoint_metadata(config, metadata)
        step = described.get("step")
        prepared = run.prepare(
            self._writes((base, is_parent), checkpoint, described, parent, new_versions),
            at=base,
            id=check_id("checkpoint_id", checkpoint["id"]),
            step=step if type(step) is int else None,
        )
        if prepared.state_bytes > self.max_checkpoint_bytes:
            raise TooLargeError("checkpoint bytes", prepared.state_bytes, self.max_checkpoint_bytes)
        return run, prepared

    def _writes(
        self,
        base: tuple[State | None, bool],
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        parent: str | None,
        new_versions: ChannelVersions,
    ) -> dict[str, Any]:
        """What a checkpoint says that its base may not: the engine finds the difference."""
        versions = checkpoint["channel_versions"]
        writes = dict(_moved_values(*base, checkpoint, new_versions))
        rest = {key: value for key, value in checkpoint.items() if key not in _OWN_KEYS}
        if parent is not None:
            writes[_PARENT] = Update(parent)
        elif base[0] is not None and _PARENT in base[0]:
            writes[_PARENT] = Delete()
        writes[_VERSIONS] = Update(dict(versions))
        writes[_SEEN] = Update({node: dict(seen) for node, seen in checkpoint["versions_seen"].items()})
        writes[_METADATA] = Update(dict(metadata))
        writes[_REST] = Update(rest)
        return writes

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote after the checkpoint that `config` names; see `BaseCheckpointSaver.put_writes`."""
        checkpoint_id = _checkpoint_id(config)
        if checkpoint_id is None:
            raise InvalidIdError("checkpoint_id", "put_writes needs one")
        kept = [
            TaskWrite(task_id, WRITES_IDX_MAP.get(channel, index), channel, value, task_path)
            for index, (channel, value) in enumerate(writes)
        ]
        name = _run_name(*_thread_of(config))
        while True:
            try:
                self._runs.to_write(name, self._codec).put_task_writes(checkpoint_id, kept)
            except NotFoundError:  # the thread was deleted by somebody else since this process last looked
                self._runs.forget(name)
            else:
                return

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    # --- reading --------------------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, without an id the one with the greatest; None if it is not there."""
        thread_id, namespace = _thread_of(config)
        run = self._runs.to_read(_run_name(thread_id, namespace), self._codec)
        checkpoint_id = _checkpoint_id(config) or next(run.given_ids(), None)
        return None if checkpoint_id is None else self._tuple(run, thread_id, namespace, checkpoint_id)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    def _tuple(self, run: Run, thread_id: str, namespace: str, checkpoint_id: str) -> CheckpointTuple | None:
        try:
            return self._read_tuple(run, thread_id, namespace, checkpoint_id)
        except NotFoundError:  # never put, or deleted at this moment
            return None

    def _read_tuple(self, run: Run, thread_id: str, namespace: str, checkpoint_id: str) -> CheckpointTuple | None:
        state = run.at(checkpoint_id)
        if state.event is None or state.event.given_id != checkpoint_id:
            return None
        values = {plain(channel): state[channel] for channel in state if is_users(channel)}
        parent = state.get(_PARENT)
        checkpoint = {
            **state[_REST],
            "id": checkpoint_id,
            "channel_values": values,
            "channel_versions": state[_VERSIONS],
            "versions_seen": state[_SEEN],
        }
        return CheckpointTuple(
            config=_config(thread_id, namespace, checkpoint_id),
            checkpoint=cast("Checkpoint", checkpoint),
            metadata=state[_METADATA],
            parent_config=None if parent is None else _config(thread_id, namespace, parent),
            pending_writes=[(write.task, write.channel, write.value) for write in run.task_writes(checkpoint_id)],
        )

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 (LangGraph's word)
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, thread after thread and namespace after namespace.

        Args:
            config: the thread, and the namespace and checkpoint if it names them; None for all threads.
            filter: metadata that must be there and equal; None as a value also matches what is missing.
            before: only ids less than the one it names.
            limit: at most so many.

        Returns:
            A lazy iterator; nothing is held open between two items.
        """
        bound = None if before is None else _checkpoint_id(before)
        wanted = None if config is None else _checkpoint_id(config)
        left = limit
        for thread_id, namespace in self._threads(config):
            run = self._runs.to_read(_run_name(thread_id, namespace), self._codec)
            for checkpoint_id in run.given_ids(bound):
                if left is not None and left <= 0:
                    return
                if wanted not in (None, checkpoint_id) or not _matches(run, checkpoint_id, filter):
                    continue
                found = self._tuple(run, thread_id, namespace, checkpoint_id)
                if found is not None:
                    left = None if left is None else left - 1
                    yield found

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 (LangGraph's word)
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (item := await asyncio.to_thread(next, found, None)) is not None:
            yield item

    def _threads(self, config: RunnableConfig | None) -> Iterator[tuple[str, str]]:
        """The threads and namespaces that `list` looks at."""
        thread_id = None if config is None else _thread_of(config)[0]
        namespace = None if config is None else config["configurable"].get("checkpoint_ns")
        if namespace is not None:
            _check_namespace(namespace)
        for name in self.log.runs(within=thread_id):
            parts = (name,) if isinstance(name, str) else name
            ours = len(parts) <= 2 and self.log.codec_name(name) == CODEC  # noqa: PLR2004 (thread and namespace)
            found = (parts[0], parts[1] if len(parts) > 1 else "")
            if ours and namespace in (None, found[1]):
                yield found

    # --- the rest -------------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread: all namespaces, checkpoints and writes. Nothing happens if it is not there."""
        for name in self.log.runs(within=_ident("thread_id", thread_id)):
            if self.log.codec_name(name) in (CODEC, None):
                self._runs.delete(name)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def get_next_version(self, current: str | int | None, channel: None = None) -> str:  # noqa: ARG002 (LangGraph's)
        """A version greater than `current`, and different from one that another writer makes of it."""
        number = int(str(current).split(".")[0]) if current is not None else 0
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311 (no secret)

    def run(self, thread_id: str, checkpoint_ns: str = "") -> Run:
        """The run behind a thread and namespace: to diff, replay or fork it. A handle of the caller's own."""
        return self.log.run(_run_name(_ident("thread_id", thread_id), checkpoint_ns), codec=SerdeCodec(self.serde))

    @property
    def _codec(self) -> SerdeCodec:
        """By the serializer of this moment: LangGraph replaces it, and clones the saver with another one."""
        return SerdeCodec(self.serde)


def _run_name(thread_id: str, namespace: str) -> str | tuple[str, str]:
    return (thread_id, namespace) if namespace else thread_id


def _base(run: Run, parent: str | None) -> tuple[State | None, bool]:
    """The state that a new checkpoint is compared with, and whether it is its parent's.

    Where the parent is not there, it is any other; None in an empty run.
    """
    if parent is not None:
        with suppress(NotFoundError):
            return run.at(parent), True
    return (None if run.head_id is None else run.state), False


def _moved_values(
    base: State | None, is_parent: bool, checkpoint: Checkpoint, new_versions: ChannelVersions
) -> Iterator[tuple[str, Update | Delete]]:
    """Channels whose value may differ from the base's.

    A channel has a value where it has a version. One whose version did not move since the parent has the parent's; one
    whose version is new and that has no value is empty at that version.
    """
    values: Mapping[str, Any] = checkpoint.get("channel_values") or {}
    versions = checkpoint["channel_versions"]
    known: dict[str, Any] = {} if base is None else base[_VERSIONS]
    for channel, version in versions.items():
        name = escaped(channel)
        if is_parent and channel not in new_versions and channel in known and known[channel] == version:
            continue
        if channel in values:
            yield name, Update(values[channel])
        elif base is not None and name in base:
            yield name, Delete()
    for channel in known:
        name = escaped(channel)
        if channel not in versions and base is not None and name in base:
            yield name, Delete()


def _matches(run: Run, checkpoint_id: str, wanted: dict[str, Any] | None) -> bool:
    """Whether a checkpoint's metadata says what is `wanted`; reads that one channel alone."""
    if not wanted:
        return True
    try:
        metadata = run.at(checkpoint_id)[_METADATA]
    except (NotFoundError, KeyError):  # deleted at this moment, or no checkpoint
        return False
    return all(metadata.get(key) == value for key, value in wanted.items())


def _thread_of(config: RunnableConfig) -> tuple[str, str]:
    """Thread and namespace that a config names."""
    configurable = config.get("configurable") or {}
    namespace = configurable.get("checkpoint_ns")
    thread_id = _ident("thread_id", configurable.get("thread_id"))
    return thread_id, "" if namespace is None else _check_namespace(namespace)


def _check_namespace(namespace: object) -> str:
    return (
        "" if namespace == "" and isinstance(namespace, str) else check_id("checkpoint_ns", namespace, _NAMESPACE_BYTES)
    )


def _checkpoint_id(config: RunnableConfig) -> str | None:
    checkpoint_id = (config.get("configurable") or {}).get("checkpoint_id")
    return None if checkpoint_id is None or checkpoint_id == "" else check_id("checkpoint_id", checkpoint_id)


def _ident(what: str, value: object) -> str:
    """A thread's id; LangGraph lets callers give an integer."""
    return check_id(what, str(value) if type(value) is int else value)


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id},
    }
