"""Upstream's PostgresSaver, listing its checkpoints page by page where it would fetch all of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.postgres import PostgresSaver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple

_PAGE: Final = 256
_NEXT: Final = "\x01"


class PagedPostgresSaver(PostgresSaver):
    """It holds at most one page of what it lists, or all checkpoints that share an id, if those are more."""

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 (LangGraph's word)
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As `PostgresSaver.list`: newest first by id, over all threads and namespaces.

        The same id may stand in several of them, so a page begins at the last id of the one before.
        """
        if limit is not None:
            yield from super().list(config, filter=filter, before=before, limit=limit)
            return
        size = _PAGE
        given: set[tuple[str, str]] = set()
        last: str | None = None
        while True:
            page = list(super().list(config, filter=filter, before=before, limit=size))
            for item in page:
                named = item.config["configurable"]
                if named["checkpoint_id"] != last:
                    last = named["checkpoint_id"]
                    given.clear()
                place = (named["thread_id"], named["checkpoint_ns"])
                if place not in given:
                    given.add(place)
                    yield item
            if len(page) < size:
                return
            if page[0].config["configurable"]["checkpoint_id"] == last:
                size *= 2  # one id fills the page
            before = {"configurable": {"checkpoint_id": f"{last}{_NEXT}"}}
