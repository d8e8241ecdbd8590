"""Savers and stores on an event log, framework-free. Those for LangGraph are in `savers.langgraph`."""

from savers.base import (
    BaseCheckpointSaver,
    BaseStore,
    Checkpoint,
    CheckpointConfig,
    CheckpointMetadata,
    CheckpointTuple,
    Item,
    new_checkpoint_id,
)
from savers.saver import (
    EventLogSaver,
    InMemoryCheckpointSaver,
    ObjectStoreSaver,
    PostgresSaver,
    RedisSaver,
    SqliteSaver,
)
from savers.serde import JsonPlusSerde
from savers.store import EventLogStore

__all__ = [
    "BaseCheckpointSaver",
    "BaseStore",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointMetadata",
    "CheckpointTuple",
    "EventLogSaver",
    "EventLogStore",
    "InMemoryCheckpointSaver",
    "Item",
    "JsonPlusSerde",
    "ObjectStoreSaver",
    "PostgresSaver",
    "RedisSaver",
    "SqliteSaver",
    "new_checkpoint_id",
]
