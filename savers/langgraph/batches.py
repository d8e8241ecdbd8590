"""A checkpoint's pending writes, as calls of `put_writes` that make any saver give them out in the same order.

Owns what `CheckpointTuple.pending_writes` does not show: a write's slot and its task's path, by which savers sort.

- Slots: a special channel has its own; any other write has its place in the call. What came out in the order of slots
  goes in as one call, so the slots are those of the call that LangGraph made.
- Paths: upstream's savers and ours are asked for them. Of any other saver they are made up, ``moved 00000003`` for the
  fourth call, which keeps the order and sorts before the paths of tasks that are yet to write.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from langgraph.checkpoint.base import WRITES_IDX_MAP

from savers.langgraph.saver import EventLogSaver

if TYPE_CHECKING:
    from collections.abc import Callable

    from langgraph.checkpoint.base import CheckpointTuple

_SQLITE: Final = """SELECT task_path, task_id, idx, channel FROM writes
 WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"""
_POSTGRES: Final = """SELECT task_path, task_id, idx, channel FROM checkpoint_writes
 WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s"""


class Batch(NamedTuple):
    """One call of `put_writes`."""

    task: str
    path: str
    writes: list[tuple[str, Any]]


def batches(saver: Any, item: CheckpointTuple) -> list[Batch]:
    """The calls that put a checkpoint's pending writes.

    A task that comes up again says again what it said before: a slot that is taken stays as it is, and counting on
    from there gives the others theirs.
    """
    writes = item.pending_writes or []
    paths = _paths(saver, item) if writes else []
    found: list[Batch] = []
    said: dict[str, list[tuple[str, Any]]] = {}
    last: tuple[str, str, int] | None = None
    for n, (task, channel, value) in enumerate(writes):
        before = said.setdefault(task, [])
        key = ("" if paths is None else paths[n], task, WRITES_IDX_MAP.get(channel, len(before)))
        before.append((channel, value))
        if last is not None and last[:2] == key[:2] and last[2] < key[2]:
            found[-1].writes.append((channel, value))
        else:
            path = f"moved {len(found):08d}" if paths is None else key[0]
            found.append(Batch(task, path, list(before)))
        last = key
    return found


def _paths(saver: Any, item: CheckpointTuple) -> list[str] | None:
    """The path of each pending write, None if the saver does not say."""
    for kind in type(saver).__mro__:
        reader = _READERS.get(f"{kind.__module__}.{kind.__name__}")
        if reader is not None:
            rows = reader(saver, item.config["configurable"])
            if [(row[1], row[3]) for row in rows] == [write[:2] for write in item.pending_writes or []]:
                return [row[0] for row in rows]
    return None


_Rows = list[tuple[str, str, int, str]]


def _of_ours(saver: EventLogSaver, named: dict[str, Any]) -> _Rows:
    thread = saver._thread(str(named["thread_id"]), named.get("checkpoint_ns", ""))  # noqa: SLF001 (it has the key)
    return [(each.path, each.task, each.slot, each.channel) for each in thread.task_writes(named["checkpoint_id"])]


def _of_memory(saver: Any, named: dict[str, Any]) -> _Rows:
    stored = saver.writes.get((named["thread_id"], named.get("checkpoint_ns", ""), named["checkpoint_id"]), {})
    return _sorted((path, task, slot, channel) for (task, slot), (_, channel, _, path) in stored.items())


def _of_sqlite(saver: Any, named: dict[str, Any]) -> _Rows:
    with suppress(sqlite3.OperationalError), saver.cursor(transaction=False) as cursor:  # older ones have no paths
        return _sorted(cursor.execute(_SQLITE, _key(named)))
    return []


def _of_postgres(saver: Any, named: dict[str, Any]) -> _Rows:
    with saver._cursor() as cursor:  # noqa: SLF001 (the one way to its connection that knows pools and pipelines)
        cursor.execute(_POSTGRES, _key(named))
        return _sorted(tuple(row.values()) for row in cursor)


def _key(named: dict[str, Any]) -> tuple[str, str, str]:
    return str(named["thread_id"]), named.get("checkpoint_ns", ""), named["checkpoint_id"]


def _sorted(rows: Any) -> _Rows:
    return sorted(rows, key=lambda row: row[:3])


_READERS: Final[dict[str, Callable[[Any, dict[str, Any]], _Rows]]] = {
    f"{EventLogSaver.__module__}.{EventLogSaver.__name__}": _of_ours,
    "langgraph.checkpoint.memory.InMemorySaver": _of_memory,
    "langgraph.checkpoint.postgres.PostgresSaver": _of_postgres,
    "langgraph.checkpoint.sqlite.SqliteSaver": _of_sqlite,
}
