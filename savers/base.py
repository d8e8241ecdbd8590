"""What a saver and a store promise, whatever they are built on and whichever framework calls them.

Owns the five values of a checkpoint, the item of a store and the two contracts. Must never know a database, an engine
or a framework.

A thread is a tree of checkpoints: each one is made from an earlier one, its parent. Going on from the latest one makes
a line; putting under an older one forks.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from eventlog import InvalidIdError, InvalidInputError, UnserializableError, check_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

FORMAT_VERSION: Final = 1
"""The form of a `Checkpoint` that this release writes."""

ROOT_NAMESPACE: Final = ""
"""The namespace of a thread's own checkpoints, as opposed to those of the graphs within its graph."""

Source = Literal["input", "loop", "update", "fork"]


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """Which checkpoint: a thread's latest one, or one by its id.

    Attributes:
        thread_id: names the thread; any plain string of at most 255 bytes of UTF-8, for example ``"user-session-42"``.
        checkpoint_id: one checkpoint of the thread; None for its latest.

    Raises:
        InvalidIdError: an id is no such string.
    """

    thread_id: str
    checkpoint_id: str | None = None

    def __post_init__(self) -> None:
        check_id("thread_id", self.thread_id)
        if self.checkpoint_id is not None:
            check_id("checkpoint_id", self.checkpoint_id)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The full state after one superstep.

    Attributes:
        id: names it within its thread. The latest checkpoint is the one with the greatest id, compared as strings:
            `new_checkpoint_id` makes ids that grow.
        channel_values: the value of every channel.
        format_version: the form of this object; 1.
        created_at: when it was made, with a time zone; None if nobody noted it.

    Raises:
        InvalidIdError: the id is not a plain string of at most 255 bytes.
        InvalidInputError: another attribute is of the wrong kind.
    """

    id: str
    channel_values: Mapping[str, Any]
    format_version: int = FORMAT_VERSION
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        check_id("checkpoint_id", self.id)
        _check_mapping("channel_values", self.channel_values)
        _check_int("format_version", self.format_version, least=1)
        if self.created_at is not None and (
            not isinstance(self.created_at, datetime) or self.created_at.utcoffset() is None
        ):
            _refuse("created_at must be a datetime with a time zone, or None")

    @classmethod
    def new(cls, channel_values: Mapping[str, Any], *, after: str | None = None) -> Checkpoint:
        """A checkpoint of this moment, with a fresh id; see `new_checkpoint_id` for `after`."""
        return cls(new_checkpoint_id(after), channel_values, created_at=datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class CheckpointMetadata:
    """How a checkpoint came to be.

    Attributes:
        source: ``"input"`` (from the input of a run), ``"loop"`` (a superstep), ``"update"`` (by hand) or ``"fork"``
            (a copy of another checkpoint).
        step: the number of the superstep; -1 for the first input, then 0, 1, 2 …
        writes: what this superstep changed, the new value by channel. None at `put`: the saver fills in what differs
            from the parent. A saver may write None for a channel that went away.
        parents: by namespace (``""`` is the root), the id of the checkpoint this one was made from. A saver fills in
            the root's from the config of `put` where it is missing.

    Raises:
        InvalidIdError: a parent's id is not a plain string of at most 255 bytes.
        InvalidInputError: another attribute is of the wrong kind.
    """

    source: Source = "loop"
    step: int = -1
    writes: Mapping[str, Any] | None = None
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            _refuse(f"source must be one of {', '.join(get_args(Source))}")
        _check_int("step", self.step, least=-1)
        if self.writes is not None:
            _check_mapping("writes", self.writes)
        _check_mapping("parents", self.parents)
        for parent in self.parents.values():
            check_id("parent id", parent)


@dataclass(frozen=True, slots=True)
class CheckpointTuple:
    """A checkpoint with everything known about it.

    Attributes:
        checkpoint: the state.
        config: names this checkpoint, with its id.
        metadata: how it came to be.
        parent_config: names the checkpoint it was made from, which may be gone; None for a first one.
    """

    checkpoint: Checkpoint
    config: CheckpointConfig
    metadata: CheckpointMetadata
    parent_config: CheckpointConfig | None = None


class BaseCheckpointSaver(ABC):
    """Keeps the checkpoints of threads, so that a run can be resumed, rewound and forked.

    Atomicity: each method happens as a whole or not at all, and what `put` returned for, every later read sees.
    Durability: that of the storage below; a saver adds and takes away nothing.
    Threads: all methods may be called from any thread.
    Isolation: no call returns anything of another thread_id. Values given in are copied before a method returns, or
    first waits; values given out are the caller's own.
    Coroutines: each method has a twin with an ``a`` before its name, for which the same holds. It works in another
    thread, so the loop goes on meanwhile. Who is cancelled while it waits does not know whether it happened; it did as
    a whole or not at all.

    Any method may raise ``ClosedError``, ``StorageError`` or, on damaged data, ``CorruptionError``.
    """

    @abstractmethod
    def put(self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> CheckpointConfig:
        """Keep `checkpoint` as a child of the one `config` names.

        Putting under an older id forks; the children that were there stay. A parent that is not there (any more) is
        recorded by its name. Putting an id a second time replaces the checkpoint of that id.

        Args:
            config: the thread, and the id of the parent; None for a checkpoint without a parent.
            checkpoint: the full state; every channel's value must be one that the saver's serde supports.
            metadata: how it came to be; see there what the saver fills in.

        Returns:
            The config that names the new checkpoint.

        Raises:
            UnserializableError: a value cannot be read back equal; names its place. Nothing was kept.
            TooLargeError: a limit of the storage. Nothing was kept.
        """

    @abstractmethod
    def get_tuple(self, config: CheckpointConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names: the one of its id, or, without an id, the thread's latest.

        Returns:
            None if the thread or the id is not there. The latest is the one with the greatest id.

        Raises:
            UnknownTypeError: it holds a value of a class that this process does not have.
        """

    def get(self, config: CheckpointConfig) -> Checkpoint | None:
        """`get_tuple`, the checkpoint alone."""
        found = self.get_tuple(config)
        return found.checkpoint if found else None

    @abstractmethod
    def list(
        self,
        config: CheckpointConfig | None,
        *,
        before: str | CheckpointConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, newest first. Lazy: holds no lock and no transaction between two items.

        Args:
            config: the thread; with an id, that checkpoint alone. None: all threads.
            before: only ids less than this one (or than the one this config names); `check_before` reads it.
            limit: at most so many, 0 or more; `check_limit` reads it.

        Returns:
            By id, greatest first; within one thread no id twice. Empty for a thread that is not there.

        Raises:
            InvalidInputError: `before` or `limit` can never be right; at the call, not at the first item.
            UnknownTypeError: one holds a value of a class that this process does not have.
        """

    @abstractmethod
    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread with all of its checkpoints; the same name begins empty. Nothing happens if it is not there.

        Raises:
            InvalidIdError: `thread_id` is no id.
        """

    def parents(self, config: CheckpointConfig) -> Iterator[CheckpointTuple]:
        """The ancestors of the checkpoint that `config` names, nearest first, without itself.

        Ends at a checkpoint without a parent, before a parent that is not there, and before an ancestor (or the
        checkpoint itself) would come a second time. Empty if the checkpoint is not there.
        """
        current = self.get_tuple(config)
        seen: set[str | None] = {None}
        while current:
            seen.add(current.checkpoint.id)
            above = current.parent_config
            current = self.get_tuple(above) if above and above.checkpoint_id not in seen else None
            if current:
                yield current

    # --- twins for coroutines -------------------------------------------------------------------------------------

    async def aput(
        self, config: CheckpointConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> CheckpointConfig:
        """As `put`. The values are taken before this first waits, so the caller may go on to change them.

        A saver that can encode before it commits does better than this copy.
        """
        values, writes = _copied(checkpoint.channel_values), metadata.writes and _copied(metadata.writes)
        copied = replace(metadata, writes=writes, parents=dict(metadata.parents))
        return await asyncio.to_thread(self.put, config, replace(checkpoint, channel_values=values), copied)

    async def aget_tuple(self, config: CheckpointConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def aget(self, config: CheckpointConfig) -> Checkpoint | None:
        """As `get`."""
        return await asyncio.to_thread(self.get, config)

    def alist(
        self,
        config: CheckpointConfig | None,
        *,
        before: str | CheckpointConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`, for ``async for``."""
        return _off_the_loop(self.list(config, before=before, limit=limit))

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy to the last depth.

    Raises:
        UnserializableError: Python cannot copy it, so no saver can read it back equal.
    """
    try:
        return deepcopy(dict(values))
    except (TypeError, RecursionError) as error:
        raise UnserializableError("checkpoint", f"it cannot be copied: {error}") from error


async def _off_the_loop(found: Iterator[CheckpointTuple]) -> AsyncIterator[CheckpointTuple]:
    while (item := await asyncio.to_thread(next, found, None)) is not None:
        yield item


@dataclass(frozen=True, slots=True)
class Item:
    """What a store keeps under a key of a namespace.

    Attributes:
        namespace: where it lies.
        key: names it there.
        value: the mapping, as a dict of the caller's own.
        created_at: when the key was first put, since it was last removed; with a time zone.
        updated_at: when it was last put.
    """

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class BaseStore(ABC):
    """Keeps small mappings under keys, for what must outlive a run: an agent's memory, cached tool results.

    Keys are ids: ``"agent:memory:user-42"``. They lie in namespaces, which are tuples of labels, ``("users", "42")``; a
    key of one namespace is never one of another. Without a namespace, keys lie in the empty one.

    Atomicity, durability and threads as for `BaseCheckpointSaver`. The async methods do as the others, without holding
    up the event loop.
    """

    @abstractmethod
    def put(self, key: str, value: Mapping[str, Any], *, namespace: tuple[str, ...] = ()) -> None:
        """Keep `value` under `key`, in place of what was there.

        Raises:
            InvalidIdError: the key is not a plain string of at most 255 bytes, a label not one of at most 4096.
            InvalidInputError: the value is no mapping with strings as keys, or the namespace no tuple.
            UnserializableError: something in it cannot be read back equal; names its place. Nothing was kept.
        """

    @abstractmethod
    def get(self, key: str, *, namespace: tuple[str, ...] = ()) -> dict[str, Any] | None:
        """What was last kept under `key`, as a dict of the caller's own; None if there is nothing.

        Raises:
            InvalidIdError: as for `put`.
            UnknownTypeError: it holds a value of a class that this process does not have.
        """

    @abstractmethod
    def delete(self, key: str, *, namespace: tuple[str, ...] = ()) -> None:
        """Remove what is under `key`, if anything.

        Raises:
            InvalidIdError: as for `put`.
        """

    @abstractmethod
    def search(
        self,
        namespace_prefix: tuple[str, ...] = (),
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 (the word of every store)
        limit: int = 10,
        offset: int = 0,
    ) -> Sequence[Item]:
        """The items of every namespace that begins with the labels of `namespace_prefix`.

        Args:
            namespace_prefix: whole labels; the empty one begins every namespace.
            filter: what the values must be, see `savers.filters`.
            limit: at most so many.
            offset: leave out so many before them.

        Returns:
            Namespace after namespace, sorted; within one in the order in which the keys were first put.

        Raises:
            InvalidInputError: an argument that can never be right, such as an operator that there is not.
            UnknownTypeError: as for `get`.
        """

    @abstractmethod
    def list_namespaces(
        self,
        prefix: tuple[str, ...] | None = None,
        suffix: tuple[str, ...] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Sequence[tuple[str, ...]]:
        """The namespaces that hold something.

        Args:
            prefix: the labels they begin with; ``"*"`` is any one label.
            suffix: the labels they end with, likewise.
            max_depth: cut longer ones to so many labels, and give each once.
            limit: at most so many.
            offset: leave out so many before them.

        Returns:
            Sorted, label by label.

        Raises:
            InvalidInputError: an argument that can never be right.
        """

    @abstractmethod
    async def aput(self, key: str, value: Mapping[str, Any], *, namespace: tuple[str, ...] = ()) -> None:
        """As `put`. The value is copied before this first waits, so the caller may go on to change it."""

    async def aget(self, key: str, *, namespace: tuple[str, ...] = ()) -> dict[str, Any] | None:
        """As `get`."""
        return await asyncio.to_thread(self.get, key, namespace=namespace)

    async def adelete(self, key: str, *, namespace: tuple[str, ...] = ()) -> None:
        """As `delete`."""
        await asyncio.to_thread(self.delete, key, namespace=namespace)

    async def asearch(
        self,
        namespace_prefix: tuple[str, ...] = (),
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 (the word of every store)
        limit: int = 10,
        offset: int = 0,
    ) -> Sequence[Item]:
        """As `search`."""
        return await asyncio.to_thread(self.search, namespace_prefix, filter=filter, limit=limit, offset=offset)

    async def alist_namespaces(
        self,
        prefix: tuple[str, ...] | None = None,
        suffix: tuple[str, ...] | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Sequence[tuple[str, ...]]:
        """As `list_namespaces`."""
        return await asyncio.to_thread(self.list_namespaces, prefix, suffix, max_depth, limit, offset)


def check_before(before: str | CheckpointConfig | None) -> str | None:
    """The id that `BaseCheckpointSaver.list` ends before; None for no bound.

    Raises:
        InvalidInputError: neither an id nor a config that has one.
    """
    if isinstance(before, CheckpointConfig):
        if before.checkpoint_id is None:
            _refuse("before: the config names no checkpoint_id")
        return before.checkpoint_id
    return None if before is None else check_id("before", before)


def check_count(what: str, value: object, *, least: int = 0) -> int:
    """`value`, if it is an int of `least` or more.

    Raises:
        InvalidInputError: it is not.
    """
    return _check_int(what, value, least=least)


def check_limit(limit: int | None) -> int | None:
    """`limit`, if it is None or an int of 0 or more.

    Raises:
        InvalidInputError: it is not.
    """
    return None if limit is None else _check_int("limit", limit, least=0)


# --- ids ------------------------------------------------------------------------------------------------------------

_TICKS_PER_MS: Final = 1 << 12
_TICK_BITS: Final = 60
_ID_LENGTH: Final = 36


class _Ticks:
    """A clock that never shows the same twice and never goes back, in this process. One tick is 1/4096 ms."""

    def __init__(self) -> None:
        self._last = 0
        self.unlock()

    def unlock(self) -> None:
        self._lock = threading.Lock()

    def next(self) -> int:
        now = time.time_ns() * _TICKS_PER_MS // 1_000_000
        with self._lock:
            self._last = max(now, self._last + 1)
            return self._last


_ticks: Final = _Ticks()
os.register_at_fork(after_in_child=_ticks.unlock)  # another thread of the parent may have held it


def new_checkpoint_id(after: str | None = None) -> str:
    """A fresh id; ids sort, as strings, in the order in which they were made.

    A UUID of version 7: any two are different, on whatever machine they were made. In one process each is greater than
    those made before; between processes the clocks decide.

    Args:
        after: an id made by this function, by whatever process: the new one is greater, even if the clock went back.
            Ids of any other form are ignored.

    Returns:
        36 characters.

    Raises:
        InvalidIdError: `after` is no id, or no id of this form is greater.

    Source: RFC 9562, sections 5.7 and 6.2 (method 3, replacing the leftmost random bits by clock precision).
    """
    tick = _ticks.next() if after is None else max(_ticks.next(), _tick_of(check_id("after", after)) + 1)
    if tick >> _TICK_BITS:
        what = "checkpoint_id"
        raise InvalidIdError(what, "it is the last one of its kind, nothing can come after it")
    #   48 bits: ms since 1970 | 4: version 7 | 12: 1/4096 ms | 2: variant | 62: random
    tail = (0b10 << 62) | int.from_bytes(os.urandom(8)) >> 2
    text = f"{tick >> 12:012x}7{tick & 0xFFF:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _tick_of(made_here: str) -> int:
    """The tick in an id of ours, or -1."""
    try:
        return int(made_here[:8] + made_here[9:13] + made_here[15:18], 16) if _is_ours(made_here) else -1
    except ValueError:
        return -1


def _is_ours(text: str) -> bool:
    return len(text) == _ID_LENGTH and text[14] == "7" and text[8] == text[13] == text[18] == text[23] == "-"


# --- checks ---------------------------------------------------------------------------------------------------------


def _refuse(why: str) -> None:
    raise InvalidInputError(why)


def _check_mapping(what: str, value: object) -> None:
    if not isinstance(value, Mapping):
        _refuse(f"{what} must be a mapping, not {type(value).__name__}")
    elif not all(type(key) is str for key in value):
        _refuse(f"the keys of {what} must be strings")


def _check_int(what: str, value: object, *, least: int) -> int:
    if type(value) is not int or value < least:
        msg = f"{what} must be an int of {least} or more"
        raise InvalidInputError(msg)
    return value
