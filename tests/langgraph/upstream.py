"""Upstream's own saver in memory, as its newest release answers, whichever release is installed.

Older ones give pending writes in the order of their arrival. The newer give them sorted by path, task and slot, which
is what we promise with every release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langgraph.checkpoint import memory

if TYPE_CHECKING:
    from collections.abc import Iterator

SORTS_WRITES = hasattr(memory.InMemorySaver, "_ordered_writes")


class _Sorted(memory.InMemorySaver):
    """An older one that sorts a checkpoint's writes."""

    def get_tuple(self, config: Any) -> Any:
        found = super().get_tuple(config)
        return None if found is None else self._in_order(found)

    def list(self, *args: Any, **options: Any) -> Iterator[Any]:
        return map(self._in_order, super().list(*args, **options))

    def _in_order(self, found: Any) -> Any:
        where = {"checkpoint_ns": "", **found.config["configurable"]}
        kept = self.writes[where["thread_id"], where["checkpoint_ns"], found.checkpoint["id"]]
        slots = sorted(kept, key=lambda slot: (kept[slot][3], *slot))
        writes = [(kept[slot][0], kept[slot][1], self.serde.loads_typed(kept[slot][2])) for slot in slots]
        return found._replace(pending_writes=writes)


InMemorySaver = memory.InMemorySaver if SORTS_WRITES else _Sorted
