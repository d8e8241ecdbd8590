"""Which task wrote what a checkpoint says: a read-only question, asked of what the saver keeps anyway.

Owns the rule. LangGraph keeps a task's writes under the checkpoint that the task started from, so a checkpoint's tasks
are among those that wrote under its parent:

- a superstep's ("loop"): all but those that an update or an input left there;
- an update's ("update", "fork"): those whose path or id says so;
- an input's ("input"): what DeltaChannel keeps of it, else none, for LangGraph keeps no writes of an input.

A task's node stands in its path; a `Send`'s is that of the packet its path counts.

Where a list got longer, an element's task is the one whose write holds it:

- what the writes hold, put together in the order of their tasks, is what was added: each element is the one in its
  place;
- else, an element is of the tasks that wrote the same, as encoded, if any did: several make it ambiguous;
- else, if as much was written as was added, of the one in its place, as a reducer leaves it that only gives elements
  an id (`add_messages`).

A reducer that makes elements of its own leaves them without a task. A list that changed before its old end is no longer
one: it is set, and names its tasks as a whole. Where two supersteps ran from one checkpoint, both have the same tasks.
With durability "exit" LangGraph keeps one checkpoint of all supersteps and no writes: what changed names no task.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID, uuid5

from savers.langgraph.serde import strict_serializer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple

    from savers.langgraph.saver import EventLogSaver

_INPUT, _UPDATE, _SENDS = "__input__", "__interrupt__", "__pregel_tasks"
_PULL: Final = re.compile(r"~__pregel_pull, (.*)", re.DOTALL)
_PUSH: Final = re.compile(r"~__pregel_push, (\d{10})(?:, \d{10})?")
_UPDATES: Final = 64
"""So many updates of one call are known by their ids, where an older LangGraph gives them no path."""
_SERIALIZER: Final = strict_serializer()
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Task:
    """A task that wrote.

    Attributes:
        id: LangGraph's.
        path: LangGraph's, which sorts the tasks of a superstep; "" if the release that wrote it gave none.
        node: the node it ran, None if nothing tells.
    """

    id: str
    path: str
    node: str | None


@dataclass(frozen=True, slots=True)
class Element:
    """An element that was added to a list.

    Attributes:
        index: its place in the list.
        tasks: those that may have written it: one, several that wrote the same, or none.
        by: what tells: its ``"value"``, or only its ``"place"`` among what was added; None if nothing does.
    """

    index: int
    tasks: tuple[Task, ...]
    by: Literal["value", "place"] | None

    @property
    def is_ambiguous(self) -> bool:
        """Whether several tasks may have written it."""
        return len(self.tasks) > 1


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel whose version moved, or that is gone.

    Attributes:
        name: the channel's.
        change: it was ``"set"``, ``"extended"`` as a list, ``"removed"``, or written again with the value it had.
        tasks: those that wrote to it, in the order in which LangGraph applies them; none if LangGraph itself did.
        elements: what was added, where a list was extended.
    """

    name: str
    change: Literal["set", "extended", "removed", "again"]
    tasks: tuple[Task, ...]
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """Who made a checkpoint what it is.

    Attributes:
        checkpoint_id: its id.
        parent_id: of the one it was made from, None if there is none.
        source: what made it, as LangGraph says: input, loop, update or fork.
        step: LangGraph's number for it.
        tasks: all that wrote, whether or not a channel shows it.
        channels: what changed from the parent, sorted by name.
    """

    checkpoint_id: str
    parent_id: str | None
    source: str | None
    step: int | None
    tasks: tuple[Task, ...]
    channels: tuple[Channel, ...]

    def channel(self, name: str) -> Channel | None:
        """What happened to a channel; None if nothing did."""
        return next((channel for channel in self.channels if channel.name == name), None)


def audit(saver: EventLogSaver, config: RunnableConfig) -> Audit | None:
    """Which task wrote what the checkpoint says that `config` names, without an id the newest.

    Returns:
        The module says by which rule. None if the checkpoint is not there.
    """
    found = saver.get_tuple(config)
    if found is None:
        return None
    parent = None if found.parent_config is None else saver.get_tuple(found.parent_config)
    writes = [] if parent is None else list(_writes(saver, parent, found.metadata.get("source")))
    return Audit(
        found.checkpoint["id"],
        None if found.parent_config is None else found.parent_config["configurable"]["checkpoint_id"],
        found.metadata.get("source"),
        found.metadata.get("step"),
        _unique(task for task, _, _ in writes),
        tuple(_channels(parent, found, writes)),
    )


async def aaudit(saver: EventLogSaver, config: RunnableConfig) -> Audit | None:
    """As `audit`."""
    return await asyncio.to_thread(audit, saver, config)


def _writes(saver: EventLogSaver, parent: CheckpointTuple, source: str | None) -> Iterator[tuple[Task, str, Any]]:
    """What the tasks of a parent's child of that source wrote, in order."""
    where = parent.config["configurable"]
    thread = saver._thread(where["thread_id"], where["checkpoint_ns"])  # noqa: SLF001 (this package's)
    paths = {write.task: write.path for write in thread.task_writes(parent.checkpoint["id"])}
    sends = parent.checkpoint["channel_values"].get(_SENDS) or []
    for task_id, channel, value in parent.pending_writes or ():
        path = paths.get(task_id, "")
        if _kind(parent.checkpoint["id"], task_id, path) == _kind_of(source):
            yield Task(task_id, path, _node(path, sends)), channel, value


def _kind_of(source: str | None) -> str:
    """What kind of task makes checkpoints of a source."""
    return _INPUT if source == "input" else _UPDATE if source in {"update", "fork"} else "loop"


def _kind(checkpoint_id: str, task_id: str, path: str) -> str:
    """What kind of task it is: LangGraph makes the ids of those that are no node's from the checkpoint's."""
    if path.startswith(f"~{_UPDATE}"):
        return _UPDATE
    try:
        root = UUID(checkpoint_id)
    except ValueError:
        return "loop"
    if task_id == str(uuid5(root, _INPUT)):
        return _INPUT
    updates = [_UPDATE, *(f"{_UPDATE}:{number}" for number in range(1, _UPDATES))] if not path else []
    return _UPDATE if any(task_id == str(uuid5(root, name)) for name in updates) else "loop"


def _node(path: str, sends: list[Any]) -> str | None:
    """The node of the task at a path."""
    pulled, pushed = _PULL.fullmatch(path), _PUSH.fullmatch(path)
    if pulled is not None:
        return pulled[1]
    if pushed is not None and int(pushed[1]) < len(sends):
        node: str | None = getattr(sends[int(pushed[1])], "node", None)
        return node
    return None


def _channels(
    parent: CheckpointTuple | None, found: CheckpointTuple, writes: list[tuple[Task, str, Any]]
) -> Iterator[Channel]:
    """What changed from a parent to its child."""
    none: dict[str, Any] = {"channel_values": {}, "channel_versions": {}}
    old: Mapping[str, Any] = none if parent is None else parent.checkpoint
    new = found.checkpoint
    for name in sorted(old["channel_versions"].keys() | new["channel_versions"].keys()):
        if old["channel_versions"].get(name) != new["channel_versions"].get(name):
            written = [(task, value) for task, channel, value in writes if channel == name]
            before = old["channel_values"].get(name, _MISSING)
            after = new["channel_values"].get(name, _MISSING)
            if before is not _MISSING or after is not _MISSING:
                yield _channel(name, before, after, written)


def _channel(name: str, before: Any, after: Any, written: list[tuple[Task, Any]]) -> Channel:
    tasks = _unique(task for task, _ in written)
    if after is _MISSING:
        return Channel(name, "removed", tasks)
    if isinstance(after, list) and isinstance(before, list):
        old, new = [_encoded(item) for item in before], [_encoded(item) for item in after]
        if len(new) > len(old) and new[: len(old)] == old:
            return Channel(name, "extended", tasks, tuple(_elements(len(old), new[len(old) :], written)))
    is_same = before is not _MISSING and _encoded(before) == _encoded(after)
    return Channel(name, "again" if is_same else "set", tasks)


def _elements(start: int, added: list[bytes], written: list[tuple[Task, Any]]) -> Iterator[Element]:
    """Whose each element is that was added from `start` on."""
    held = [
        (task, _encoded(item)) for task, value in written for item in (value if isinstance(value, list) else [value])
    ]
    in_order = [item for _, item in held] == added
    for place, item in enumerate(added):
        same = _unique(task for task, payload in held if payload == item)
        if in_order:
            yield Element(start + place, (held[place][0],), "value")
        elif same:
            yield Element(start + place, same, "value")
        elif len(held) == len(added):
            yield Element(start + place, (held[place][0],), "place")
        else:
            yield Element(start + place, (), None)


def _unique(tasks: Iterator[Task]) -> tuple[Task, ...]:
    return tuple(dict.fromkeys(tasks))


def _encoded(value: Any) -> bytes:
    """Bytes by which values are compared, whatever the saver's own serializer makes of them: a cipher's differ."""
    tag, data = _SERIALIZER.dumps_typed(value)
    return tag.encode() + b"\0" + data
