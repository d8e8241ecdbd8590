"""What a checkpoint's metadata says, with what LangGraph adds from the config.

Owns that rule. It runs at every `put`, and LangGraph gives the config's metadata as a chain of maps, which is slow to
read as one.
"""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.base import EXCLUDED_METADATA_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointMetadata

_EXCLUDED: Final = frozenset(EXCLUDED_METADATA_KEYS)


def described(config: RunnableConfig, metadata: CheckpointMetadata) -> CheckpointMetadata:
    """The metadata, then the plain values of the config's metadata and of its configurable that it does not say yet.

    Source: `langgraph.checkpoint.base.get_checkpoint_metadata`, which says the same.
    """
    found: dict[str, Any] = dict(metadata)
    for key, value in found.items():
        if isinstance(value, str):
            found[key] = value.replace("\0", "")
    for said in (config.get("metadata"), config.get("configurable")):
        if said is None:
            continue
        for each in _maps(said):
            for key, value in each.items():
                if key in _EXCLUDED or key in found or key.startswith("__"):
                    continue
                if isinstance(value, str):
                    found[key] = value.replace("\0", "")
                elif isinstance(value, int | float):
                    found[key] = value
    return found  # type: ignore[return-value]  # what it was, and more


def _maps(said: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The one map that a chain nearly always has; else whatever it is, as one."""
    return said.maps if type(said) is ChainMap and len(said.maps) == 1 else (said,)
