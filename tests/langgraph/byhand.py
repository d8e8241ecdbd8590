"""One thread whose checkpoints are made by hand and put into our savers and upstream's; all have to answer alike.

Answers are compared so that 1, True and 1.0 are three different ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.langgraph.upstream import InMemorySaver
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from collections.abc import Collection

LATEST: Any = object()
NOTHING: dict[str, Any] = {}


def config(checkpoint_id: str | None = None, thread: str = "t") -> Any:
    named = {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
    return {"configurable": {key: value for key, value in named.items() if value is not None}}


def in_order(value: Any) -> Any:
    """Dicts within dicts in one order: a saver may name channels and nodes in any."""
    return {key: in_order(value[key]) for key in sorted(value, key=repr)} if isinstance(value, dict) else value


def told(found: Any) -> Any:
    """A tuple as what it says; what channels hold keeps its own order."""
    if found is None:
        return None
    said = dict(found.checkpoint)
    values = said.pop("channel_values")
    return {
        "id": found.config["configurable"]["checkpoint_id"],
        "values": sorted(values.items()),
        "checkpoint": in_order(said),
        "metadata": in_order(dict(found.metadata)),
        "parent": found.parent_config and found.parent_config["configurable"]["checkpoint_id"],
        "writes": [tuple(write) for write in found.pending_writes],
    }


def made(checkpoint_id: str, values: dict[str, Any], versions: dict[str, Any], **rest: Any) -> Any:
    """A checkpoint; a key of `rest` that is `...` is left out."""
    usual = {"v": 4, "ts": "2026-01-01T00:00:00.000001+00:00", "versions_seen": {}}
    said = {**usual, "id": checkpoint_id, "channel_values": dict(values), "channel_versions": versions, **rest}
    return {key: value for key, value in said.items() if value is not ...}


class Story:
    """One thread, told to some of our savers, each put to one of them, and to upstream's."""

    def __init__(self, *ours: Any) -> None:
        self.ours = ours
        self.theirs = InMemorySaver()
        self.latest: str | None = None
        self.versions: dict[str, dict[str, Any]] = {}
        self._puts = 0

    def ready(
        self,
        values: dict[str, Any],
        *,
        under: str | None = LATEST,
        changed: Collection[str] | None = None,
        versions: dict[str, Any] | None = None,
        new: dict[str, Any] | None = None,
        metadata: dict[str, Any] = NOTHING,
        again: str | None = None,
        **rest: Any,
    ) -> tuple[Any, ...]:
        """The arguments of a put.

        Args:
            values: per channel its value; `...` for one that is empty. Those of the parent that are missing are gone.
            under: the parent.
            changed: which of them have a new version; by default all.
            versions: all versions, where they are to be other than usual; `new` says which of them are new.
            new: see `versions`; by default those that the parent does not have.
            metadata: other than usual.
            again: the id of a checkpoint that is to be put once more.
            rest: other keys of the checkpoint.
        """
        self._puts += 1
        checkpoint_id = again or f"c{self._puts:05}"
        parent = self.latest if under is LATEST else under
        before = self.versions.get(parent or "", {})
        if versions is None:
            changed = values if changed is None else changed
            fresh = f"{self._puts:032}.{self._puts:010}"
            versions = {channel: fresh if channel in changed else before.get(channel, fresh) for channel in values}
        if new is None:
            new = {name: each for name, each in versions.items() if not strictly_equal(before.get(name, ...), each)}
        self.versions[checkpoint_id] = versions
        self.latest = checkpoint_id
        there = {channel: value for channel, value in values.items() if value is not ...}
        said = made(checkpoint_id, there, dict(versions), **rest)
        return config(parent), said, metadata or {"source": "loop", "step": self._puts, "parents": {}}, new

    def put(self, values: dict[str, Any], *, by: int = 0, **more: Any) -> str:
        """Put a checkpoint, by one of our savers; see `ready`. Returns its id."""
        arguments = self.ready(values, **more)
        self.theirs.put(*arguments)
        self.ours[by].put(*arguments)
        checkpoint_id = arguments[1]["id"]
        self.check(checkpoint_id)
        return checkpoint_id

    def check(self, *checkpoint_ids: str | None) -> None:
        """Ask all savers for some checkpoints, for the latest if none is named."""
        for checkpoint_id in checkpoint_ids or (None,):
            theirs = told(self.theirs.get_tuple(config(checkpoint_id)))
            for saver in self.ours:
                ours = told(saver.get_tuple(config(checkpoint_id)))
                assert strictly_equal(ours, theirs), f"ours:   {ours}\ntheirs: {theirs}"

    def check_all(self) -> None:
        """Ask all savers for everything: from the newest to the oldest, and the other way, one by one."""
        theirs = [told(found) for found in self.theirs.list(config())]
        self.check(*(each["id"] for each in reversed(theirs)))
        for saver in self.ours:
            ours = [told(found) for found in saver.list(config())]
            assert strictly_equal(ours, theirs), f"ours:   {ours}\ntheirs: {theirs}"

    def delete(self, by: int = 0) -> None:
        self.ours[by].delete_thread("t")
        self.theirs.delete_thread("t")
        self.latest = None  # what comes under a deleted parent is refused
        self.check()
