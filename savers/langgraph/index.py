"""LangGraph's index config: which texts of a value are embedded, and by what.

Owns the calls of the user's embeddings, sync and async; what is done with vectors is the business of `savers.vectors`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph.store.base import PutOp, ensure_embeddings, get_text_at_path, tokenize_path

from eventlog import InvalidInputError, UnserializableError
from savers.vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from langgraph.store.base import IndexConfig

_WHOLE = "$"


class Embedded(NamedTuple):
    """Vectors of a batch, as checked rows: of what is put, by text, and of what is asked for, by query."""

    texts: dict[str, Any]
    queries: dict[str, Any]


NOTHING_EMBEDDED = Embedded({}, {})


class Index:
    """How the items of a store are embedded.

    Args:
        config: LangGraph's; ``fields`` is the whole value, if not given.

    Raises:
        InvalidInputError: there are no dims, or numpy is not installed.
        ValueError: ``embed`` is nothing that embeds.
    """

    def __init__(self, config: IndexConfig) -> None:
        self.vectors = Vectors(config["dims"])
        self._embeddings = ensure_embeddings(config.get("embed"))
        self._paths = _tokenized(config.get("fields") or [_WHOLE])

    def texts(self, put: PutOp) -> list[str]:
        """The texts of a value that get a vector each; none if it is not to be found by its meaning."""
        if put.value is None or put.index is False:
            return []
        paths = self._paths if put.index is None else _tokenized(put.index)
        try:
            return [text for path in paths for text in get_text_at_path(put.value, path)]
        except (TypeError, ValueError) as error:  # a whole value is embedded as its JSON
            raise UnserializableError("value", f"cannot be embedded as text ({error}); give index=False") from error

    def embed(self, texts: Collection[str], queries: Collection[str]) -> Embedded:
        """The vectors of a batch."""
        rows = self._embeddings.embed_documents([*texts]) if texts else []
        return self._embedded(texts, rows, queries, [self._embeddings.embed_query(query) for query in queries])

    async def aembed(self, texts: Collection[str], queries: Collection[str]) -> Embedded:
        """As `embed`; queries side by side."""
        rows = await self._embeddings.aembed_documents([*texts]) if texts else []
        asked = await asyncio.gather(*map(self._embeddings.aembed_query, queries))
        return self._embedded(texts, rows, queries, asked)

    def _embedded(
        self,
        texts: Collection[str],
        rows: Sequence[Sequence[float]],
        queries: Collection[str],
        asked: Sequence[Sequence[float]],
    ) -> Embedded:
        if len(rows) != len(texts):
            raise InvalidInputError(f"embed returned {len(rows)} vectors for {len(texts)} texts; it must give one each")
        row = self.vectors.row
        return Embedded(dict(zip(texts, map(row, rows), strict=True)), dict(zip(queries, map(row, asked), strict=True)))


def _tokenized(paths: Sequence[str]) -> list[str | list[str]]:
    return [path if path == _WHOLE else tokenize_path(path) for path in paths]
