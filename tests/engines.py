"""The engines that the suites run over: for each, the location of a log that is a directory's own.

Another engine is one entry here: storage, savers, stores, LangGraph's contract, model and fuzzer then run over it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests import redis_server, servers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEEP = int(os.environ.get("EVENTLOG_DEEP", "1"))
"""How many times as long as usually the random tests look."""

LOCATIONS: dict[str, Callable[[Path], str]] = {
    "memory": lambda directory: "memory:",
    "lmdb": lambda directory: f"{directory}/log",
    "sqlite": lambda directory: f"sqlite:///{directory}/log.db",
    "postgres": servers.postgres_location,
    "redis": redis_server.location,
    "objectstore": lambda directory: (
        f"file://{directory}/objects"
    ),  # the same engine as s3://, whose server takes longer
}
"""Location of the log of a directory, which is new where the directory is, and the same one later."""

FORGETFUL = frozenset({"memory"})
"""Engines whose logs end with their handle."""

SHARED = frozenset({"postgres", "redis"})
"""Engines of servers, whose logs any number of machines write."""

ALONE = frozenset({"objectstore"})
"""Engines whose logs one process writes: the next one takes them over."""

SLOW = SHARED | ALONE
"""Engines that answer through a socket or another thread, so that a long random story takes them long."""

FEW_SEEDS = 2
"""How many random stories they are told where others are told more, but for ``EVENTLOG_DEEP``."""

PERSISTENT = [name for name in LOCATIONS if name not in FORGETFUL]
