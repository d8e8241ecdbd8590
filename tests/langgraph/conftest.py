"""A PostgreSQL server for those tests that need one: started once, a database for each."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import psycopg

    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    directory.chmod(0o755)  # where root runs the tests, the server is another user
    found = started(directory / "data")
    with psycopg.connect(found.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # nobody pulls the plug here
        connection.execute("SELECT pg_reload_conf()")
    yield found
    found.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Callable[[], str]:
    """A function that makes an empty database and gives its URI; the server is started when it is first called."""

    def make() -> str:
        import psycopg

        server = request.getfixturevalue("server")
        name = f"moving_{uuid.uuid4().hex}"
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return server.get_uri(name)

    return make
