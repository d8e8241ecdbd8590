"""`eventlog copy`, run as people run it: whole, verified, followed, killed in the middle."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eventlog import EventLog
from eventlog.cli.main import main
from tests import redis_server, servers
from tests.counting import everything

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _interrupts_are_heard():
    """Where they are ignored, children ignore them, too, and who is interrupted in a test goes on for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def filled(where, runs=20, events=200):
    with EventLog.open(where) as log:
        for n in range(runs):
            log.run(f"run {n}").append_many({"x": k, "text": "t" * 200} for k in range(events))


def spawn(*args):
    command = [sys.executable, "-m", "eventlog", "copy", *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def are_equal(source, target):
    with EventLog.open(source, readonly=True) as one, EventLog.open(target, readonly=True) as other:
        return everything(one._storage) == everything(other._storage)


def same(source, target):
    with EventLog.open(source, readonly=True) as one, EventLog.open(target, readonly=True) as other:
        assert everything(one._storage) == everything(other._storage)
        assert list(other.verify()) == []
    return True


def test_a_copy_is_verified_and_says_so(tmp_path, capsys):
    source, target = str(tmp_path / "source"), f"sqlite:///{tmp_path}/target.db"
    filled(source, 3)
    assert main(["copy", source, target]) == 0
    assert "keys on both sides, digest" in capsys.readouterr().out
    assert same(source, target)
    assert main(["copy", source, target, "--verify"]) == 0
    assert main(["copy", source, target, "--no-verify"]) == 0
    assert "not verified" in capsys.readouterr().out


def test_what_differs_is_named(tmp_path, capsys):
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    filled(source, 2, 3)
    assert main(["copy", source, target]) == 0
    with EventLog.open(source) as log:
        log.run("run 1").append({"x": "more"})
    assert main(["copy", source, target, "--verify"]) == 1
    assert "'run 1'" in capsys.readouterr().err
    assert main(["copy", source, target]) == 0


def test_ends_as_the_exit_codes_say(tmp_path, capsys):
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    assert main(["copy", source, target]) == 3
    filled(source, 1, 1)
    assert main(["copy", source, target, "--verify"]) == 3
    with EventLog.open(target) as log:
        log.run("theirs").append({"x": 1})
    assert main(["copy", source, target]) == 2
    assert "'theirs'" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["{}/target", "sqlite:///{}/target.db"], ids=["lmdb", "sqlite"])
def test_killed_again_and_again_it_goes_on(tmp_path, target):
    source, target = tmp_path / "source", target.format(tmp_path)
    filled(source)
    shuffle = random.Random(3)
    for _ in range(5):
        copying = spawn(source, target)
        time.sleep(shuffle.uniform(0.2, 0.6))
        copying.kill()
        copying.communicate()
    copying = spawn(source, target)
    out, err = copying.communicate()
    assert copying.returncode == 0, err
    assert "digest" in out
    assert same(source, target)


def test_a_follower_is_killed_and_interrupted_beside_a_writer(tmp_path):
    source, target = tmp_path / "source", f"sqlite:///{tmp_path}/target.db"
    filled(source, 3, 50)
    with EventLog.open(source) as log:
        for stop in (signal.SIGKILL, signal.SIGINT):
            following = spawn("--follow", "--interval", 0.02, source, target)
            for n in range(20):
                log.run(f"run {n % 5}").append({"x": n})
                time.sleep(0.02)
            if stop == signal.SIGINT:
                log.delete("run 0")
                assert following.stdout.readline().startswith("level after")
            following.send_signal(stop)
            following.communicate()
            assert following.returncode == (130 if stop == signal.SIGINT else -stop)
        following = spawn("--follow", "--interval", 0.02, source, target)
        assert following.stdout.readline().startswith("level after")
        following.kill()
        following.communicate()
    assert same(source, target)


def test_a_follower_whose_target_another_took_over_ends_and_leaves_it_alone(tmp_path):
    source, target = tmp_path / "source", f"file://{tmp_path}/objects"
    filled(source, 1, 1)
    following = spawn("--follow", "--interval", 0.02, source, target)
    assert following.stdout.readline().startswith("level after")
    with EventLog.open(target) as other:
        with EventLog.open(source) as log:
            log.run("run 0").append({"x": "ours"})
        _, err = following.communicate(timeout=60)
        assert following.returncode == 3
        assert "took it over" in err
        other.run("run 0").append({"x": "theirs"})


def test_a_log_is_no_copy_of_itself(tmp_path, capsys):
    source = tmp_path / "source"
    filled(source, 1, 1)
    (tmp_path / "other").symlink_to(source)
    for how in ([], ["--follow"], ["--verify"]):
        assert main(["copy", str(source), str(tmp_path / "other"), *how]) == 2
        assert "the same log" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["{}/source/log", "sqlite:///{}/source/log.db"], ids=["lmdb", "sqlite"])
def test_a_follower_notices_that_its_source_is_another_log_now(tmp_path, source):
    source, target = source.format(tmp_path), f"{tmp_path}/target"
    filled(source, 1, 1)
    following = spawn("--follow", "--interval", 0.02, source, target)
    assert following.stdout.readline().startswith("level after")
    shutil.rmtree(tmp_path / "source")
    with EventLog.open(source) as log:
        log.run("another").append({"x": 1})
        _, err = following.communicate(timeout=60)
    assert following.returncode in {2, 3}  # it may look while there is none
    assert "deleted or replaced" in err


_HASTY = """
import sys
from eventlog.cli.main import main
from eventlog.storage.{engine} import {name}
{name}.__init__.__kwdefaults__["timeout_s"] = {patience_s}
sys.exit(main(["copy", "--follow", "--interval", "0.02", *sys.argv[1:]]))
"""
"""Follows, and finds soon that a server is away."""
_PATIENCE_S = {"redis": 0.3, "postgres": 1.0}
"""How long its calls wait for a server: of PostgreSQL for a new connection, too, which is a process there."""


@pytest.fixture(params=["redis", "postgres"])
def server(request):
    server = {"redis": redis_server.Server, "postgres": servers.OwnPostgres}[request.param]()
    yield request.param, server
    server.stop()


@pytest.mark.parametrize("is_source", [False, True], ids=["its target", "its source"])
def test_a_follower_waits_for_a_server_that_is_away(tmp_path, server, is_source):
    engine, server = server
    url, local = server.url(), f"sqlite:///{tmp_path}/log.db"
    source, target = (url, local) if is_source else (local, url)
    filled(source, 3, 50)
    program = _HASTY.format(engine=engine, name=f"{engine.capitalize()}Storage", patience_s=_PATIENCE_S[engine])
    following = subprocess.Popen(
        [sys.executable, "-c", program, source, target],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout.readline().startswith("level after")
    for _ in range(2):
        server.kill()
        if not is_source:
            with EventLog.open(source) as log:
                log.run("run 1").append({"x": "meanwhile"})
        assert "going on when it is back" in following.stderr.readline()
        server.start()
        if is_source:
            with EventLog.open(source) as log:
                log.run("run 1").append({"x": "meanwhile"})
        while following.stdout.readline().startswith("level after") and not are_equal(source, target):
            pass  # it was level before that was written
        assert same(source, target)
    server.kill()
    assert "going on when it is back" in following.stderr.readline()  # no more was said of the outages before
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=60)[1] == "interrupted\n"
    assert following.returncode == 130
