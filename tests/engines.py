"""The engines that the suites run over: for each, the location of a log that is a directory's own.

Another engine is one entry here: storage, savers, stores, LangGraph's contract, model and fuzzer then run over it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests import object_server, redis_server, servers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEEP = int(os.environ.get("EVENTLOG_DEEP", "1"))
"""How many times as long as usually the random tests look."""


class Engine(str):
    """An engine's name, as tests have it for a parameter: so no other word is taken for one."""

    __slots__ = ()


LOCATIONS: dict[Engine, Callable[[Path], str]] = {
    Engine("memory"): lambda directory: "memory:",
    Engine("lmdb"): lambda directory: f"{directory}/log",
    Engine("sqlite"): lambda directory: f"sqlite:///{directory}/log.db",
    Engine("postgres"): servers.postgres_location,
    Engine("redis"): redis_server.location,
    Engine("objectstore"): lambda directory: f"file://{directory}/objects",
    Engine("s3"): object_server.location,
}
"""Location of the log of a directory, which is new where the directory is, and the same one later."""

FORGETFUL = frozenset({Engine("memory")})
"""Engines whose logs end with their handle."""

SHARED = frozenset({Engine("postgres"), Engine("redis")})
"""Engines of servers, whose logs any number of machines write."""

ALONE = frozenset({Engine("objectstore"), Engine("s3")})
"""Engines whose logs one process writes: the next one takes them over."""

SLOW = SHARED | ALONE
"""Engines that answer through a socket or another thread, so that a long random story takes them long."""

FEW_SEEDS = 2
"""How many random stories they are told where others are told more, but for ``EVENTLOG_DEEP``."""

PERSISTENT = [name for name in LOCATIONS if name not in FORGETFUL]
