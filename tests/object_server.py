"""A real S3 server for the tests: a process that is started when it is first asked for, and gone when they end."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import urllib.request
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SERVE = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
put, one_at_a_time = S3Response.put_object, threading.Lock()
def put_object(response):
    with one_at_a_time:  # else two who put what must not be there are both told that they did: it looks, then puts
        return put(response)
S3Response.put_object = put_object
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # ends with the tests even if they are killed
"""
BUCKET = "eventlog-tests"


class Server:
    """A server with one bucket, on a port of this machine; `strict` ones refuse credentials that nobody has."""

    def __init__(self, *, strict: bool = False) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **({"INITIAL_NO_AUTH_ACTION_COUNT": "1"} if strict else {})},
        )
        assert self._process.stdout is not None
        lines = iter(self._process.stdout.readline, "")
        self.port = next(int(line) for line in lines if line.strip().isdigit())
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/{BUCKET}", method="PUT")).close()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to speak to it."""
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
        }

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@cache
def shared() -> Server:
    server = Server()
    atexit.register(server.stop)
    os.environ.update(server.environment)
    return server


def location(directory: Path) -> str:
    """The log of a directory in that server's bucket."""
    shared()
    return f"s3://{BUCKET}/{blake2b(str(directory).encode(), digest_size=8).hexdigest()}"
