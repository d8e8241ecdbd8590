"""`eventlog import` and `eventlog copy-out`, run as people run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

pytest.importorskip("langgraph.channels.delta", reason="DeltaChannel, and savers that know it, came later")
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from eventlog import EventLog
from eventlog.cli import main
from savers.langgraph import EventLogSaver, copy
from savers.langgraph.places import opened, serializer

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
MEMORY = InMemorySaver()


def put(saver: Any, name: str, values: dict[str, Any], parent: str | None = None, thread: str = "t") -> None:
    made: Any = {
        "v": 4,
        "id": name,
        "ts": "2026-11-26T12:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, f"{int(name):032}.5"),
        "versions_seen": {},
    }
    named = {"thread_id": thread, "checkpoint_ns": ""}
    config: Any = {"configurable": named if parent is None else {**named, "checkpoint_id": parent}}
    saver.put(config, made, {"source": "loop", "step": int(name)}, made["channel_versions"])
    saver.put_writes({"configurable": {**named, "checkpoint_id": name}}, [("a", name)], f"task-{name}", "~a")


def fill(saver: Any, count: int = 3) -> None:
    for n in range(1, count + 1):
        put(saver, f"{n:06}", {"a": [n, "x" * 50]}, f"{n - 1:06}" if n > 1 else None)
    put(saver, "000001", {"a": "other"}, thread="u")


@pytest.fixture
def file(tmp_path: Path) -> str:
    location = str(tmp_path / "source.sqlite")
    with SqliteSaver.from_conn_string(location) as saver:
        fill(saver)
    return location


def test_in_again_and_out(tmp_path, file, capsys):
    log, out = str(tmp_path / "log"), str(tmp_path / "out.sqlite")
    assert main(["import", "--from", "langgraph-sqlite", file, "-s", log]) == 0
    first = "2 threads: 4 checkpoints and 4 pending writes copied, 0 checkpoints were there, 0 problems"
    assert capsys.readouterr() == (f"{first}; all read again and equal\n", "")
    assert main(["-s", log, "import", "--from", "langgraph-sqlite", file, "--no-verify"]) == 0
    assert capsys.readouterr().out.startswith(
        "2 threads: 0 checkpoints and 0 pending writes copied, 4 checkpoints were"
    )
    assert main(["copy-out", "--to", "langgraph-sqlite", out, "-s", log, "--thread", "t"]) == 0
    assert capsys.readouterr().out.startswith("1 threads: 3 checkpoints and 3 pending writes copied")
    with SqliteSaver.from_conn_string(out) as last, SqliteSaver.from_conn_string(file) as source:
        wanted: Any = {"configurable": {"thread_id": "t"}}
        assert list(last.list(None)) == list(source.list(wanted))
    with EventLog.open(log, readonly=True) as opened_log:
        assert list(opened_log.verify()) == []


def test_postgres_in_and_out(tmp_path, database: Callable[[], str], capsys):
    log, first, last = str(tmp_path / "log"), database(), database()
    with opened("langgraph-postgres", first, serializer(), to_read=False) as saver:
        fill(saver)
    assert main(["import", "--from", "langgraph-postgres", first, "-s", log]) == 0
    assert main(["copy-out", "--to", "langgraph-postgres", last, "-s", log]) == 0
    assert capsys.readouterr().out.count("4 checkpoints and 4 pending writes copied") == 2
    with opened("langgraph-postgres", last, serializer(), to_read=True) as saver:
        assert len(list(saver.list(None))) == 4
    assert main(["import", "--from", "langgraph-postgres", database(), "-s", log]) == 3
    assert "has no tables of LangGraph's PostgresSaver" in capsys.readouterr().err
    other = database()
    with psycopg.connect(other) as connection:
        connection.execute("CREATE TABLE checkpoint_migrations (other integer)")
    assert main(["copy-out", "--to", "langgraph-postgres", other, "-s", log]) == 3
    assert "LangGraph's tables cannot be made in that PostgreSQL database" in capsys.readouterr().err


def test_a_saver_that_a_function_makes(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_savers.py").write_text(
        "from contextlib import contextmanager\n"
        "from langgraph.checkpoint.memory import InMemorySaver\n"
        "kept = InMemorySaver()\n"
        "def factory(): return kept\n"
        "@contextmanager\n"
        "def managed(): yield kept\n"
        "def nothing(): return 5\n"
        "def broken(): raise OSError('no such host')\n"
        "@contextmanager\n"
        "def closed():\n"
        "    raise OSError('nobody answers')\n"
        "    yield\n"
    )
    (tmp_path / "my_broken_module.py").write_text("raise ValueError('not today')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    with EventLogSaver.from_conn_string("log") as saver:
        fill(saver)
    assert main(["copy-out", "--to", "saver", "my_savers:factory", "-s", "log"]) == 0
    for name in ("factory", "managed", "kept"):
        assert main(["import", "--from", "saver", f"my_savers:{name}", "-s", f"log-{name}"]) == 0
        assert "4 checkpoints and 4 pending writes copied" in capsys.readouterr().out
    for where, says in (
        ("my_savers:nothing", "makes int, not a saver of LangGraph"),
        ("my_savers:broken", "raised OSError: no such host"),
        ("my_savers:closed", "raised OSError: nobody answers"),
        ("my_broken_module:x", "raised ValueError: not today"),
        (".my_savers:kept", "a saver is named as module:factory"),
        ("my_savers:none", "there is no my_savers:none"),
        ("no_such_module_x:y", "No module named"),
        ("my_savers", "a saver is named as module:factory"),
    ):
        assert main(["import", "--from", "saver", where, "-s", "never"]) == 2
        assert says in capsys.readouterr().err
    assert not Path("never").exists()
    sys.modules.pop("my_savers")


def test_what_is_wrong_is_said_and_makes_no_log(tmp_path, file, capsys):
    text, empty = tmp_path / "text", tmp_path / "empty.sqlite"
    text.write_text("no database at all, but long enough to look like one" * 20)
    import sqlite3

    base = sqlite3.connect(empty)
    base.execute("CREATE TABLE checkpoints (thread_id TEXT)")
    base.close()
    log = tmp_path / "log"
    for kind, where, code, says in (
        ("langgraph-sqlite", str(tmp_path / "nothing"), 3, "there is no SQLite file at"),
        ("langgraph-sqlite", str(text), 3, "is not a SQLite file"),
        ("langgraph-sqlite", str(empty), 3, "not one that LangGraph's SqliteSaver wrote"),
        ("langgraph-postgres", "postgresql://nobody@127.0.0.1:1/none", 3, "PostgreSQL cannot be reached"),
        ("langgraph-postgres", "=", 3, "PostgreSQL cannot be reached"),
        ("redis", "x", 2, "there is no kind 'redis'; it is one of langgraph-sqlite"),
    ):
        assert main(["import", "--from", kind, where, "-s", str(log)]) == code, where
        assert says in capsys.readouterr().err
        assert not log.exists()
    assert not (tmp_path / "nothing").exists()
    assert main(["import", "--from", "langgraph-sqlite", file, "-s", str(log), "--thread", "t", "--thread", "x"]) == 2
    assert "the source has no thread 'x'" in capsys.readouterr().err
    assert main(["import", "--from", "langgraph-sqlite", file, "--allow", "Name", "-s", str(log)]) == 2
    assert "package.module.Name" in capsys.readouterr().err
    assert not log.exists()


def test_where_there_is_nothing_to_copy_nothing_is_made(tmp_path, file, capsys):
    log, out, empty = tmp_path / "log", tmp_path / "out.sqlite", str(tmp_path / "empty.sqlite")
    with SqliteSaver.from_conn_string(empty) as saver:
        saver.setup()
    assert main(["import", "--from", "langgraph-sqlite", empty, "-s", str(log)]) == 0
    assert capsys.readouterr().out == "there are no threads to copy\n"
    assert not log.exists()
    assert main(["copy-out", "--to", "langgraph-sqlite", str(out), "-s", str(log)]) == 3
    assert main(["import", "--from", "langgraph-sqlite", file, "-s", str(log)]) == 0
    assert main(["copy-out", "--to", "langgraph-sqlite", str(out), "-s", str(log), "--thread", "x"]) == 2
    assert "the source has no thread 'x'" in capsys.readouterr().err
    assert not out.exists()


def test_a_missing_package_names_what_to_install(tmp_path, file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "langgraph.checkpoint.sqlite", None)
    assert main(["import", "--from", "langgraph-sqlite", file, "-s", str(tmp_path / "log")]) == 6
    assert 'pip install "eventlog-savers[langgraph-sqlite]"' in capsys.readouterr().err


def test_a_type_that_is_not_allowed_is_named(tmp_path, capsys):
    from tests.strict import Point

    location, log = str(tmp_path / "own.sqlite"), str(tmp_path / "log")
    with SqliteSaver.from_conn_string(location) as saver:
        put(saver, "000001", {"a": [Point(1, 2)]})
    assert main(["import", "--from", "langgraph-sqlite", location, "-s", log]) == 2
    assert "--allow tests.strict.Point" in capsys.readouterr().err
    assert main(["import", "--from", "langgraph-sqlite", location, "-s", log, "--allow", "tests.strict.Point"]) == 0


def test_an_encrypted_thread_says_what_copies_it(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        put(EventLogSaver(log, serde=EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")), "1", {"a": 1})
        put(EventLogSaver(log), "1", {"a": 1}, thread="open")
    out = ["copy-out", "--to", "langgraph-sqlite", str(tmp_path / "out.sqlite"), "-s", str(tmp_path / "log")]
    assert main(out) == 2
    error = capsys.readouterr().err
    assert "savers.langgraph.copy, which takes such a saver" in error
    assert "--allow" not in error
    assert main([*out, "--thread", "open"]) == 0


def test_an_object_that_cannot_be_built_is_no_dict_of_its_fields(tmp_path, monkeypatch, capsys):
    from tests import strict

    location, log, out = (str(tmp_path / name) for name in ("own.sqlite", "log", "out.sqlite"))
    with SqliteSaver.from_conn_string(location) as saver:
        put(saver, "000001", {"a": {"deep": [strict.Point(1, 2)]}})
    allow = ["--allow", "tests.strict.Point"]
    assert main(["import", "--from", "langgraph-sqlite", location, "-s", log, *allow]) == 0
    monkeypatch.delattr(strict, "Point")
    for command in (
        ["import", "--from", "langgraph-sqlite", location, "-s", str(tmp_path / "other")],
        ["copy-out", "--to", "langgraph-sqlite", out, "-s", log],
    ):
        capsys.readouterr()
        assert main([*command, *allow]) == 2
        error = capsys.readouterr().err
        assert "'tests.strict.Point': an object of it cannot be made from what is stored" in error
        assert "--allow" not in error


def test_a_difference_is_told_and_the_exit_code_says_so(tmp_path, file, capsys):
    log = tmp_path / "log"
    with EventLogSaver.from_conn_string(log) as saver:
        put(saver, "000001", {"a": "mine"}, thread="u")
    assert main(["import", "--from", "langgraph-sqlite", file, "-s", str(log)]) == 1
    out, err = capsys.readouterr()
    assert "3 checkpoints and 3 pending writes copied" in out
    assert "1 problems" in out
    assert "thread 'u', checkpoint 000001: channel_values.a: the target has another checkpoint of this id" in err


KILLED = """
import os, signal, sys
from itertools import count
from eventlog.cli import main
from savers.langgraph import EventLogSaver

put, number = EventLogSaver.put, count(1)

def until_killed(*arguments):
    if next(number) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(*arguments)

EventLogSaver.put = until_killed
main(sys.argv[1:])
"""


def test_an_import_that_was_killed_is_run_again(tmp_path):
    location, log = str(tmp_path / "long.sqlite"), tmp_path / "log"
    with SqliteSaver.from_conn_string(location) as saver:
        saver.conn.execute("PRAGMA synchronous=OFF")
        fill(saver, 1500)
    command = ["import", "--from", "langgraph-sqlite", location, "-s", str(log)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*how: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, *how, *command]
        return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)

    assert run("-c", KILLED).returncode == -signal.SIGKILL
    with EventLog.open(log, readonly=True) as opened_log:
        assert EventLogSaver(opened_log).run("t").step == 49
    done = run("-m", "eventlog")
    assert done.returncode == 0, done.stderr
    assert "0 problems; all read again and equal" in done.stdout
    with EventLogSaver.from_conn_string(log) as ours, SqliteSaver.from_conn_string(location) as source:
        again = copy(source, ours)
        assert (again.checkpoints, again.skipped, again.problems) == (0, 1501, ())
        assert list(ours.log.verify()) == []
