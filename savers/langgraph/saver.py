"""LangGraph's checkpointer, on an event log.

Owns what LangGraph's arguments mean: configs, filters, limits; and what is done again when somebody else was first. How
a checkpoint is stored is the threads' business.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from copy import copy, deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, get_args

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from eventlog import (
    ConflictError,
    CorruptionError,
    EventLog,
    InvalidIdError,
    InvalidInputError,
    NotFoundError,
    Pruned,
    TaskWrite,
    check_id,
)
from savers.langgraph.history import history_of
from savers.langgraph.metadata import described
from savers.langgraph.packed import next_version
from savers.langgraph.sealed import SealedCodec, codec_of
from savers.langgraph.serde import CODEC, SerdeCodec, strict_serializer
from savers.langgraph.thread import Thread
from savers.langgraph.upkeep import (
    STRATEGIES,
    Policy,
    PrunedNamespace,
    copy_runs,
    ids_of_runs,
    is_finished_call,
    needed_by_others,
    prune_namespace,
)
from savers.langgraph.writers import Exclusive, late
from savers.saver import MAX_CHECKPOINT_BYTES, Handles

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import DeltaChannelHistory
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from eventlog import Branch, Codec, Run
    from savers.saver import RunName

T = TypeVar("T")

_NAMESPACE_BYTES = 4096
_PRUNE_TRIES = 10
_MAX_REFUSED = 1024
_SMALL_BYTES = 1 << 22
"""Of a larger checkpoint what is due to be written whole takes longer than to hand it to another thread."""
_Detection = Literal["sound", "identity"]
_new = tuple.__new__  # makes a named tuple at half the cost
_NOBODY: tuple[Any, Any, Any] = (object(),) * 3


class EventLogSaver(BaseCheckpointSaver[str]):
    """Keeps the checkpoints of LangGraph graphs in an event log, for sync and async graphs alike.

    Args:
        log: the log, which stays its owner's to close.
        serde: LangGraph's serializer of values. By default its own, limited to the types it knows to be safe; another
            stored type is refused by an error that says how to allow it. With an `EncryptedSerializer`, or what derives
            from it, everything that a user says is encrypted by its cipher: values, what tasks wrote and their paths,
            metadata, names of channels and nodes. Public are ids of threads, checkpoints and tasks, namespaces (which
            name the nodes of subgraphs), numbers and times of steps, and sizes. A thread is encrypted whole or not at
            all: what is not encrypted is refused then, and so is what is, without the key. It does not prove that a
            record stands where it was put.
        max_checkpoint_bytes: the largest checkpoint, as encoded, that `put` takes.
        detection: how a list that changed is told from one that did not. ``"sound"`` finds what was changed in place,
            too, at any depth. ``"identity"`` looks only whether the items are the same objects: quicker for long lists,
            but an item that was changed in place stays in the log as it was. For graphs whose nodes never change a
            message that is in the state already.
        exclusive: whether a thread is one writer's at a time. By default two processes that go on from one checkpoint
            both succeed, as LangGraph's contract needs, and `branches` shows both. Exclusively, the second one's `put`
            raises `ConflictError`. Going back to an older checkpoint is no conflict: who was given a checkpoint by this
            saver when it was not the newest any more, and puts under it, chose it.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        serde: SerializerProtocol | None = None,
        max_checkpoint_bytes: int = MAX_CHECKPOINT_BYTES,
        detection: _Detection = "sound",
        exclusive: bool = False,
    ) -> None:
        if detection not in get_args(_Detection):
            raise InvalidInputError(f'detection is "sound" or "identity", not {detection!r}')
        super().__init__(serde=serde or strict_serializer())
        self.log = log
        self.max_checkpoint_bytes = max_checkpoint_bytes
        self._by_identity = detection == "identity"
        self._is_exclusive = exclusive
        self._last_codec = codec_of(self.serde)
        self._threads = Handles(log, self._opened)
        self._owns_log = False
        self._is_moving_in = False
        self._refused: dict[tuple[RunName, str], None] = {}  # late checkpoints, by thread and id
        self._last_named: tuple[str, str, str | None] = _NOBODY  # what a config named last: see _named

    def _opened(self, name: RunName, codec: Codec) -> Thread:
        assert isinstance(codec, SerdeCodec | SealedCodec)
        run = self.log.run(name, codec=codec)
        return Thread(
            run,
            codec,
            self.max_checkpoint_bytes,
            by_identity=self._by_identity,
            deleted=None if run.is_original else self.log.deleted_up_to(name),
            exclusive=Exclusive() if self._is_exclusive else None,
        )

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
        log = EventLog.open(location, synchronous=synchronous)
        try:
            saver = cls(log, **options)
        except BaseException:
            log.close()
            raise
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
        """Keep a checkpoint as a child of the one that `config` names; see `BaseCheckpointSaver.put`.

        A parent that was never put is no error; one that was deleted with its thread is.

        Raises:
            NotFoundError: the parent was deleted with its thread. Without a parent the thread would begin anew.
            ConflictError: the saver is exclusive, and another writer moved the thread on.
            UnserializableError: a value cannot be kept, or must not be, like pydantic's ``SecretStr``.
            TooLargeError: it has more bytes than the saver takes.
        """
        thread_id, namespace, parent = self._named(config)
        while True:
            thread = self._thread(thread_id, namespace)
            own = check_id("checkpoint_id", checkpoint["id"])
            if thread.may_be_late(parent):
                thread = self._not_late(thread, parent, own=own)
            try:
                thread.write(thread.make(parent, checkpoint, described(config, metadata), new_versions))
            except (NotFoundError, ConflictError) as error:
                self._look_again(thread, parent, error, own=own)
            else:
                self._last_named = (thread_id, namespace, own)
                return _config(thread_id, namespace, own)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`. The values are encoded before this first waits, so the graph may go on to change them.

        While somebody else writes to the same thread of the graph they are copied instead, to be encoded later; only
        for a value that Python cannot copy, the loop waits then. It is written at once, too, where that waits for
        nobody, as nearly always on a local log in ``"normal"``: to hand it to another thread takes several times that.
        """
        thread_id, namespace, parent = self._named(config)
        while True:
            thread = self._thread(thread_id, namespace)
            own = check_id("checkpoint_id", checkpoint["id"])
            if thread.may_be_late(parent):
                thread = self._not_late(thread, parent, own=own)
            try:
                made = thread.make_at_once(parent, checkpoint, described(config, metadata), new_versions)
            except NotFoundError as error:
                self._look_again(thread, parent, error, own=own)
            else:
                break
        if made is None:
            try:
                then = deepcopy((checkpoint, metadata, new_versions))
            except Exception:  # noqa: BLE001 (whatever a class of the user's raises)
                return self.put(config, checkpoint, metadata, new_versions)
            return await asyncio.to_thread(self.put, config, *then)
        try:
            is_small = made.size < _SMALL_BYTES
            if not (is_small and thread.at_once(partial(thread.write, made))):
                await asyncio.to_thread(thread.write, made)
        except (NotFoundError, ConflictError) as error:
            await asyncio.to_thread(self._look_again, thread, parent, error, own=own)
            again = thread.thawed(made, checkpoint)
            return await asyncio.to_thread(self.put, config, again, metadata, new_versions)
        self._last_named = (thread_id, namespace, own)
        return _config(thread_id, namespace, own)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote after the checkpoint that `config` names; see `BaseCheckpointSaver.put_writes`.

        A checkpoint that was not put yet is no error; one that was deleted with its thread is.

        Raises:
            NotFoundError: the checkpoint was deleted with its thread.
            UnserializableError: a value cannot be kept, or must not be, like pydantic's ``SecretStr``.
        """
        thread_id, namespace, checkpoint_id = self._named(config, needs_checkpoint=True)
        assert checkpoint_id is not None
        kept = _kept(writes, task_id, task_path)
        while True:
            thread = self._thread(thread_id, namespace)
            if thread.may_be_late(checkpoint_id):
                thread = self._not_late(thread, checkpoint_id, may_begin=True)
            try:
                thread.put_task_writes(checkpoint_id, kept)
            except NotFoundError as error:
                self._look_again(thread, checkpoint_id, error)
            else:
                return

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`; at once, where nobody has to be waited for."""
        thread_id, namespace, checkpoint_id = self._named(config, needs_checkpoint=True)
        assert checkpoint_id is not None
        writes = [*writes]
        thread = self._threads.known(_run_name(thread_id, namespace), self._codec)
        if thread is not None and not thread.may_be_late(checkpoint_id):
            put = partial(thread.put_task_writes, checkpoint_id, _kept(writes, task_id, task_path))
            with suppress(NotFoundError):  # deleted meanwhile: to be looked at again
                if thread.at_once(put):
                    return
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    # --- reading --------------------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, without an id the one with the greatest; None if it is not there."""
        thread_id, namespace, checkpoint_id = self._named(config)
        thread = self._threads.to_read(_run_name(thread_id, namespace), self._codec)
        checkpoint_id = checkpoint_id or thread.newest_id()
        return None if checkpoint_id is None else _tuple(thread, thread_id, namespace, checkpoint_id)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

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
        for thread_id, namespace in self._names(config):
            thread = self._threads.to_read(_run_name(thread_id, namespace), self._codec)
            for checkpoint_id in _ids_of(thread, wanted, bound):
                if left is not None and left <= 0:
                    return
                if not _matches(thread, checkpoint_id, filter):
                    continue
                found = _tuple(thread, thread_id, namespace, checkpoint_id)
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

    def _names(self, config: RunnableConfig | None) -> Iterator[tuple[str, str]]:
        """The threads and namespaces that `list` looks at."""
        thread_id = None if config is None else _thread_of(config)[0]
        namespace = None if config is None else config["configurable"].get("checkpoint_ns")
        if namespace is not None:
            _check_namespace(namespace)
        for name in self.log.runs(within=thread_id):
            parts = (name,) if isinstance(name, str) else name
            ours = _is_ours(name) and self.log.codec_name(name) == CODEC
            found = (parts[0], parts[1] if len(parts) > 1 else "")
            if ours and namespace in (None, found[1]):
                yield found

    # --- the rest -------------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread: all namespaces, checkpoints and writes. Nothing happens if it is not there."""
        for name in self.log.runs(within=_ident("thread_id", thread_id)):
            if _is_ours(name) and self.log.codec_name(name) in (CODEC, None):
                self._threads.delete(name)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints that LangGraph runs put, with their writes, from whatever thread and namespace.

        A checkpoint of another run that was built on one of them stays as it is, and so do the writes that its delta
        channels are made of.

        Raises:
            TypeError: `run_ids` is one string.
        """
        wanted = _ids("run_ids", run_ids)
        for thread_id, namespace in self._names(None) if wanted else ():
            name = _run_name(thread_id, namespace)
            if self._unless_pruned(name, partial(self._forget_runs, name, wanted)):
                self._threads.forget(name)

    def _forget_runs(self, name: RunName, run_ids: Sequence[str]) -> bool:
        """Whether there were checkpoints of those runs, which are gone now."""
        thread = self._threads.to_read(name, self._codec)
        found = list(ids_of_runs(thread, run_ids))
        return bool(found and thread.run.forget(found, needed=needed_by_others(thread, set(found))))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Make another thread of what a thread is now: all namespaces, checkpoints and writes, under the same ids.

        Copies nothing but pointers, whatever the history; from then on each thread goes its own way. A source that is
        not there leaves the target empty.

        Raises:
            ConflictError: there is a target already, or the source is being written too quickly.
        """
        source, target = _ident("thread_id", source_thread_id), _ident("thread_id", target_thread_id)
        names = [_run_name(*found) for found in self._names({"configurable": {"thread_id": source}})]
        copy_runs(self.log, names, target)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    def prune(  # type: ignore[override]  # it says what went
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        keep_last: int | None = None,
        max_age: dt.timedelta | None = None,
        dry_run: bool = False,
    ) -> Sequence[PrunedNamespace]:
        """Remove old checkpoints of threads, for good: their bytes are free again.

        ``"keep_latest"`` keeps one checkpoint per namespace, with its writes; it has no parent then. Of a subgraph's
        call nothing stays once the root checkpoint that it was called from goes. What delta channels are made of stays
        until their next stored value, but is not listed. What tasks wrote under a checkpoint that is not there, and is
        older than what stays, goes, too: it came after that was pruned. Of a thread that has copies, or is one,
        checkpoints are only taken off the list. ``"delete"`` removes the threads.

        Args:
            thread_ids: the threads; those that are not there are left out.
            strategy: ``"keep_latest"`` or ``"delete"``.
            keep_last: keep so many checkpoints per namespace, not one.
            max_age: keep those that were put within this time, and the newest one; with `keep_last`, only so many.
            dry_run: only say what would go.

        Returns:
            Per namespace what went, or would go.

        Raises:
            ConflictError: a thread is being written too quickly; those before it are pruned.
            InvalidInputError: there is no such strategy, or an argument that it does not take.
            TypeError: `thread_ids` is one string.
        """
        threads = _ids("thread_ids", thread_ids)
        if strategy not in STRATEGIES:
            raise InvalidInputError(f"strategy is one of {STRATEGIES}, not {strategy!r}")
        if strategy == "delete" and (keep_last is not None or max_age is not None):
            raise InvalidInputError('strategy "delete" keeps nothing: leave out keep_last and max_age')
        policy = None if strategy == "delete" else Policy(keep_last, max_age)
        return [pruned for thread_id in threads for pruned in self._pruned(thread_id, policy, dry_run=dry_run)]

    def _pruned(self, thread_id: str, policy: Policy | None, *, dry_run: bool) -> Iterator[PrunedNamespace]:
        named = sorted(self._names({"configurable": {"thread_id": thread_id}}), key=lambda name: name[1])
        names = {ns: _run_name(thread_id, ns) for _, ns in named}
        root = self._threads.to_read(names[""], self._codec) if "" in names else None
        saved = set() if root is None else set(root.run.given_ids())
        roots = [] if root is None or policy is None else policy.kept(root)
        for namespace, name in names.items():
            prune = partial(self._prune, name, namespace, policy, (roots, saved), dry_run=dry_run)
            yield self._unless_pruned(name, prune)

    def _unless_pruned(self, name: RunName, act: Callable[[], T]) -> T:
        """Do something to a thread; again, where others prune or delete meanwhile what it looks at."""
        left = _PRUNE_TRIES
        while True:
            try:
                return act()
            except (NotFoundError, ConflictError, CorruptionError) as error:  # others may remove what was to be kept
                self._threads.forget(name)
                left -= 1
                if not left and isinstance(error, NotFoundError):
                    thread_id = name if isinstance(name, str) else name[0]
                    raise ConflictError(f"thread {thread_id!r} is pruned by others, too; try again") from error
                if not left:
                    raise

    def _prune(
        self,
        name: RunName,
        namespace: str,
        policy: Policy | None,
        roots: tuple[Sequence[str], set[str]],
        *,
        dry_run: bool,
    ) -> PrunedNamespace:
        thread = self._threads.to_read(name, self._codec)
        kept = [] if policy is None else policy.kept(thread)
        if kept and not is_finished_call(thread, namespace, kept, *roots):
            removed = prune_namespace(thread, kept, dry_run=dry_run)
            if not dry_run:
                self._threads.forget(name)
            return PrunedNamespace(thread.thread_id, namespace, False, removed)
        ids = tuple(thread.run.given_ids())
        if not dry_run and (ids or policy is None):
            self._threads.delete(name)
        return PrunedNamespace(thread.thread_id, namespace, True, Pruned(ids, len(ids), 0, 0))

    async def aprune(  # type: ignore[override]  # as above
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        keep_last: int | None = None,
        max_age: dt.timedelta | None = None,
        dry_run: bool = False,
    ) -> Sequence[PrunedNamespace]:
        """As `prune`."""
        return await asyncio.to_thread(
            self.prune, thread_ids, strategy=strategy, keep_last=keep_last, max_age=max_age, dry_run=dry_run
        )

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What delta channels are made of before a checkpoint; see `BaseCheckpointSaver.get_delta_channel_history`."""
        thread_id, namespace = _thread_of(config)
        if not channels:
            return {}
        thread = self._threads.to_read(_run_name(thread_id, namespace), self._codec)
        checkpoint_id = _checkpoint_id(config) or thread.newest_id()
        if checkpoint_id is None:
            return {channel: {"writes": []} for channel in channels}
        return cast("dict[str, DeltaChannelHistory]", history_of(thread, checkpoint_id, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await asyncio.to_thread(self.get_delta_channel_history, config=config, channels=channels)

    def get_next_version(self, current: str | int | None, channel: None = None) -> str:  # noqa: ARG002 (LangGraph's)
        """A version greater than `current`, and different from one that another writer makes of it."""
        return next_version(current)

    def run(self, thread_id: str, checkpoint_ns: str = "") -> Run:
        """The run behind a thread and namespace: to diff, replay or fork it. A handle of the caller's own.

        Where everything is encrypted, its channels have the names that stand in the log.
        """
        return self.log.run(_run_name(_ident("thread_id", thread_id), checkpoint_ns), codec=codec_of(self.serde))

    def branches(self, thread_id: str, checkpoint_ns: str = "") -> Sequence[Branch]:
        """The branches of a thread and namespace, oldest first, each with its newest checkpoint as the head.

        There is more than one where a checkpoint has several children: because somebody went back to it, or because two
        writers went on from it.
        """
        return self.run(thread_id, checkpoint_ns).branches()

    async def abranches(self, thread_id: str, checkpoint_ns: str = "") -> Sequence[Branch]:
        """As `branches`."""
        return await asyncio.to_thread(self.branches, thread_id, checkpoint_ns)

    def moving_in(self) -> Self:
        """This saver for `savers.langgraph.copy`, which says itself what a checkpoint goes under.

        So it may bring back what was deleted here, under a parent that stays away, and fork as its source did.
        """
        clone = copy(self)
        clone._is_moving_in, clone._is_exclusive = True, False  # noqa: SLF001 (its own)
        clone._threads = Handles(self.log, clone._opened)  # noqa: SLF001 (its own)
        return clone

    @property
    def _codec(self) -> SerdeCodec | SealedCodec:
        """By the serializer of this moment: LangGraph replaces it, and clones the saver with another one."""
        if self._last_codec.serde is not self.serde:
            self._last_codec = codec_of(self.serde)
        return self._last_codec

    def _named(self, config: RunnableConfig, *, needs_checkpoint: bool = False) -> tuple[str, str, str | None]:
        """Thread, namespace and checkpoint that a config names.

        LangGraph names the same again and again, with the same objects: those were checked, or are this saver's own.
        """
        configurable, named = config.get("configurable") or {}, self._last_named
        if configurable.get("thread_id") is not named[0] or configurable.get("checkpoint_ns") is not named[1]:
            self._last_named = named = (*_thread_of(config), _checkpoint_id(config))
        elif configurable.get("checkpoint_id") is not named[2]:
            self._last_named = named = (named[0], named[1], _checkpoint_id(config))
        if needs_checkpoint and named[2] is None:
            raise InvalidIdError("checkpoint_id", "put_writes needs one")
        return named

    def _thread(self, thread_id: str, namespace: str) -> Thread:
        """A thread to write to; what was deleted meanwhile shows when it is written to."""
        codec = self._last_codec
        if codec.serde is not self.serde:
            codec = self._codec
        return self._threads.to_write((thread_id, namespace) if namespace else thread_id, codec)

    def _not_late(
        self, thread: Thread, checkpoint_id: str | None, *, own: str | None = None, may_begin: bool = False
    ) -> Thread:
        """A thread that was deleted once, to write to; refuses what comes under a checkpoint that was deleted with it.

        Where ids grow, as LangGraph's do, one that is not there and is not greater than all that were deleted is one of
        those, or older. Writes under a greater one may come before the first checkpoint of a thread that begins anew.
        A put that this saver refused counts as deleted for those under it; the one of the `own` id does if it is now.
        """
        if checkpoint_id is None or self._is_moving_in or thread.has(checkpoint_id):
            return thread
        if thread.run.name in self.log:  # begun anew, perhaps by somebody else
            thread, may_begin = self._threads.to_read(thread.run.name, self._codec), True
        elif thread.deleted is None and self.log.deleted_up_to(thread.run.name) is not None:  # it came and went since
            thread = self._threads.reopened(thread.run.name, self._codec)
        if thread.deleted is None:
            return thread
        was_refused = own is not None and (thread.run.name, checkpoint_id) in self._refused
        if thread.has(checkpoint_id) or (may_begin and not was_refused and checkpoint_id > (thread.deleted or "")):
            return thread
        raise self._note_late(thread, checkpoint_id, own)

    def _note_late(self, thread: Thread, checkpoint_id: str, own: str | None) -> NotFoundError:
        """The error to raise; a put of that `own` id is noted, for LangGraph may have more under way, under it."""
        if own is not None:
            self._refused[thread.run.name, own] = None
            while len(self._refused) > _MAX_REFUSED:
                self._refused.pop(next(iter(self._refused)), None)
        return late(thread.thread_id, checkpoint_id)

    def _look_again(
        self,
        thread: Thread,
        checkpoint_id: str | None,
        error: NotFoundError | ConflictError,
        *,
        own: str | None = None,
    ) -> None:
        """Make ready to write again: somebody deleted, began or moved the thread since this process looked.

        Raises:
            NotFoundError: it was deleted, with that checkpoint. The handle stays, so that what else was on its way is
                refused as well, until somebody reads the thread or begins it anew.
            ConflictError: it was moved by another writer than this exclusive one.
        """
        if isinstance(error, NotFoundError) and checkpoint_id is not None and thread.run.name not in self.log:
            raise self._note_late(thread, checkpoint_id, own) from error
        self._forget(thread)
        if isinstance(error, ConflictError) and self._is_exclusive:
            newest = self._threads.to_read(thread.run.name, self._codec).newest_id()
            if newest is None or newest != checkpoint_id:  # else it was pruned, which moves nothing
                raise error

    def _forget(self, thread: Thread) -> None:
        self._threads.forget(thread.run.name)


def _kept(writes: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> list[TaskWrite]:
    """What a task wrote, as a thread keeps it."""
    kept: list[TaskWrite] = []
    for channel, value in writes:
        kept.append(_new(TaskWrite, (task_id, WRITES_IDX_MAP.get(channel, len(kept)), channel, value, task_path)))
    return kept


def _run_name(thread_id: str, namespace: str) -> str | tuple[str, str]:
    return (thread_id, namespace) if namespace else thread_id


def _is_ours(name: RunName) -> bool:
    """Whether a run may be a thread's; those of a store have more parts."""
    return isinstance(name, str) or len(name) <= 2  # noqa: PLR2004 (thread and namespace)


def _ids_of(thread: Thread, wanted: str | None, before: str | None) -> Iterator[str]:
    """Ids of checkpoints, greatest first; no more once the thread is deleted. One that is `wanted` may not be there."""
    if wanted is not None:
        if before is None or wanted < before:
            yield wanted
        return
    with suppress(NotFoundError):
        yield from thread.run.given_ids(before)


def _tuple(thread: Thread, thread_id: str, namespace: str, checkpoint_id: str) -> CheckpointTuple | None:
    read = thread.read(checkpoint_id)
    if read is None:
        return None
    if thread.exclusive is not None:
        thread.exclusive.met(checkpoint_id, thread.newest_id())
    checkpoint, metadata, parent, writes = read
    return CheckpointTuple(
        _config(thread_id, namespace, checkpoint_id),
        checkpoint,
        metadata,
        None if parent is None else _config(thread_id, namespace, parent),
        writes,
    )


def _matches(thread: Thread, checkpoint_id: str, wanted: dict[str, Any] | None) -> bool:
    """Whether a checkpoint's metadata says what is `wanted`; reads the metadata alone."""
    if not wanted:
        return True
    metadata = thread.metadata(checkpoint_id)
    return metadata is not None and all(metadata.get(key) == value for key, value in wanted.items())


def _thread_of(config: RunnableConfig) -> tuple[str, str]:
    """Thread and namespace that a config names."""
    configurable = config.get("configurable") or {}
    namespace, thread_id = configurable.get("checkpoint_ns"), configurable.get("thread_id")
    thread_id = check_id("thread_id", str(thread_id) if type(thread_id) is int else thread_id)
    if namespace is None or (type(namespace) is str and not namespace):
        return thread_id, ""
    return thread_id, _check_namespace(namespace)


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


def _ids(what: str, values: Sequence[str]) -> list[str]:
    """Several ids; one string is a sequence, too, but never meant to be one."""
    if isinstance(values, str):
        msg = f"{what} is a sequence of ids, not a str: [{values!r}]"
        raise TypeError(msg)
    return [_ident(what, value) for value in values]


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id},
    }
