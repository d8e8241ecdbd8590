"""Checkpoints of which everything follows from the id, so whoever finds one knows what was put."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from langgraph.checkpoint.base import CheckpointTuple

    from savers.langgraph import EventLogSaver


def config(checkpoint_id: str | None = None) -> Any:
    named = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
    return {"configurable": {key: value for key, value in named.items() if value is not None}}


def values(checkpoint_id: str) -> dict[str, Any]:
    number = crc32(checkpoint_id.encode())
    return {
        "id": checkpoint_id,
        "items": [{"n": n, "text": "x" * 40} for n in range(number % 60)],
        "text": checkpoint_id * (number % 20),
        f"some-{number % 5}": number,
        "same": "s" * 700,
    }


def put(saver: EventLogSaver, checkpoint_id: str, under: str | None) -> None:
    said = values(checkpoint_id)
    versions: dict[str, Any] = dict.fromkeys([*said, "d"], checkpoint_id)
    checkpoint: Any = {
        "v": 4,
        "ts": "2026-01-01T00:00:00.000001+00:00",
        "id": checkpoint_id,
        "channel_values": said,
        "channel_versions": versions,
        "versions_seen": {},
    }
    metadata: Any = {"source": "loop", "step": 1, "parents": {}, "counters_since_delta_snapshot": {"d": [1, 1]}}
    if crc32(checkpoint_id.encode()) % 3 == 0:
        said["d"] = ["stored", checkpoint_id]
    named = {"thread_id": "t", "checkpoint_ns": "", **({} if under is None else {"checkpoint_id": under})}
    saver.put({"configurable": named}, checkpoint, metadata, versions)


def write(saver: EventLogSaver, checkpoint_id: str) -> None:
    named = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
    saver.put_writes({"configurable": named}, [("d", checkpoint_id), ("text", "y" * 200)], "task")


def checked(found: CheckpointTuple) -> str:
    """The id of a checkpoint that is what was put under it."""
    checkpoint_id = found.checkpoint["id"]
    wanted = values(checkpoint_id)
    if crc32(checkpoint_id.encode()) % 3 == 0:
        wanted["d"] = ["stored", checkpoint_id]
    assert found.checkpoint["channel_values"] == wanted, checkpoint_id
    assert found.pending_writes in ([], [("task", "d", checkpoint_id), ("task", "text", "y" * 200)]), checkpoint_id
    return checkpoint_id
