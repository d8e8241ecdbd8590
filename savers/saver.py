"""The seed contract's savers, on an event log.

Owns how a checkpoint is a state of a run: a thread is a run, a checkpoint is an event with the checkpoint's id, its
channels are the run's channels. Only what differs from the parent is written.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self, cast

from eventlog import Delete, EventLog, NotFoundError, TooLargeError, check_id
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
    import os
    from collections.abc import Iterator
    from types import TracebackType

    from eventlog import Codec, Event, Run

MAX_CHECKPOINT_BYTES = 1 << 30
"""The default limit of one checkpoint, as encoded."""

_KEPT_RUNS = 128


class Runs:
    """Handles on the runs of a log, the last used ones kept; shared by all that write the log in this process."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._kept: dict[tuple[object, ...], Run] = {}
        self._lock = threading.Lock()

    def get(self, name: str | tuple[str, ...], codec: Codec) -> Run:
        """The handle on run `name`, which may be new."""
        with self._lock:
            kept = self._kept.pop((name, codec), None)
        run = kept or self.log.run(name, codec=codec)
        with self._lock:
            self._kept[name, codec] = run
            while len(self._kept) > _KEPT_RUNS:
                self._kept.pop(next(iter(self._kept)))
        return run

    def forget(self, name: str | tuple[str, ...]) -> None:
        """Give up the handles on a run: it was deleted."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == name]:
                del self._kept[key]


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
        self._runs = Runs(self.log)

    def put(self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> CheckpointConfig:
        """See `BaseCheckpointSaver.put`; refuses a checkpoint larger than `max_checkpoint_bytes` by `TooLargeError`."""
        try:
            self._put(config, checkpoint, metadata)
        except NotFoundError:  # the thread was deleted by somebody else since this process last looked
            self._runs.forget(config.thread_id)
            self._put(config, checkpoint, metadata)
        return CheckpointConfig(config.thread_id, checkpoint.id)

    def _put(self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> None:
        run = self._runs.get(config.thread_id, self.serde)
        at = run.head_id
        if config.checkpoint_id is not None:
            at = config.checkpoint_id if _has(run, config.checkpoint_id) else at
        prepared = run.prepare(
            state=checkpoint.channel_values,
            at=at,
            id=checkpoint.id,
            step=metadata.step,
            meta=self._meta(config, checkpoint, metadata),
        )
        if prepared.state_bytes > self.max_checkpoint_bytes:
            raise TooLargeError("checkpoint bytes", prepared.state_bytes, self.max_checkpoint_bytes)
        run.write(prepared)

    def _meta(
        self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> dict[str, Any]:
        parents = dict(metadata.parents)
        if config.checkpoint_id is not None:
            parents.setdefault("", config.checkpoint_id)
        meta: dict[str, Any] = {"source": metadata.source, "step": metadata.step}
        optional = {
            "parent": config.checkpoint_id,
            "parents": parents,
            "created_at": checkpoint.created_at,
            "writes": None if metadata.writes is None else self.serde.encode(dict(metadata.writes), "metadata.writes"),
        }
        meta.update({key: value for key, value in optional.items() if value})
        if checkpoint.format_version != 1:
            meta["format_version"] = checkpoint.format_version
        return meta

    def get_tuple(self, config: CheckpointConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.get_tuple`."""
        run = self._runs.get(config.thread_id, self.serde)
        checkpoint_id = config.checkpoint_id or next(run.given_ids(), None)
        return None if checkpoint_id is None else self._tuple(run, checkpoint_id)

    def _tuple(self, run: Run, checkpoint_id: str) -> CheckpointTuple | None:
        try:
            state = run.at(checkpoint_id)
        except NotFoundError:
            return None
        event = cast("Event", state.event)
        if event.given_id != checkpoint_id:
            return None  # an event's own id is no checkpoint's
        meta = event.meta
        values = dict(state)
        thread_id = cast("str", run.name)
        parent = meta.get("parent")
        checkpoint = Checkpoint(checkpoint_id, values, meta.get("format_version", 1), meta.get("created_at"))
        metadata = CheckpointMetadata(
            meta["source"], meta["step"], self._writes(run, event, values, parent), meta.get("parents", {})
        )
        return CheckpointTuple(
            checkpoint,
            CheckpointConfig(thread_id, checkpoint_id),
            metadata,
            None if parent is None else CheckpointConfig(thread_id, parent),
        )

    def _writes(self, run: Run, event: Event, values: dict[str, Any], parent: str | None) -> dict[str, Any]:
        """What the caller said that changed, or else what did: the new values by channel, None for one that is gone."""
        said = event.meta.get("writes")
        if said is not None:
            return cast("dict[str, Any]", self.serde.decode(said))
        if parent is None or not _has(run, parent):
            return dict(run.at(event))
        changed = event.writes
        now = run.at(event)
        return {channel: None if isinstance(write, Delete) else now[channel] for channel, write in changed.items()}

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
            run = self._runs.get(thread_id, self.serde)
            for checkpoint_id in run.given_ids(before):
                if left == 0:
                    return
                wanted = config is None or config.checkpoint_id in (None, checkpoint_id)
                found = self._tuple(run, checkpoint_id) if wanted else None
                if found is not None:
                    left = None if left is None else left - 1
                    yield found

    def _threads(self) -> list[str]:
        """The runs of this log that are threads of such a saver."""
        names = [name for name in self.log.runs() if isinstance(name, str)]
        return [name for name in names if self.log.codec_name(name) == self.serde.name]

    def delete_thread(self, thread_id: str) -> None:
        """See `BaseCheckpointSaver.delete_thread`."""
        check_id("thread_id", thread_id)
        self._runs.forget(thread_id)
        if thread_id in self.log:
            self.log.delete(thread_id)

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


class InMemoryCheckpointSaver(EventLogSaver):
    """Keeps checkpoints as long as it lives itself: for tests and short programs."""

    def __init__(self, *, serde: Codec | None = None, max_checkpoint_bytes: int = MAX_CHECKPOINT_BYTES) -> None:
        super().__init__("memory:", serde=serde, max_checkpoint_bytes=max_checkpoint_bytes)


def _has(run: Run, checkpoint_id: str) -> bool:
    """Whether the run has a checkpoint of that id."""
    try:
        return run.event(checkpoint_id).given_id == checkpoint_id
    except NotFoundError:
        return False
