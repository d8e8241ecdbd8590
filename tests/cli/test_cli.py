import difflib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from eventlog import AppendText, Delete, EventLog, Extend, Merge, Splice, TaskWrite, diff, register_codec
from eventlog.cli import main
from eventlog.cli.jsonable import change_fields
from eventlog.codec import MsgpackCodec
from eventlog.diff import compare, is_same
from eventlog.storage import open_storage
from savers.langgraph import EventLogSaver

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b]0;pwned\x07\x1b[2J\u202eevil\x9b31m"


class OwnCodec(MsgpackCodec):
    name = "nobody-knows/1"


class SaverCodec(MsgpackCodec):
    name = "saver/test"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("EVENTLOG_STORE", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def store(tmp_path):
    """Three runs: `trip-1` with a fork, one whose name is a tuple, one whose name looks like an address."""
    location = tmp_path / "log"
    ticks = iter(range(10_000))
    clock = lambda: 1_795_444_000_000_000_000 + next(ticks) * 3_000_000
    with EventLog(open_storage(location), clock=clock) as log:
        run = log.run("trip-1")
        run.append(
            {"spent": 0, "messages": ["hi"], "doc": {"a": 1, "b": [1, 2]}}, task="start", meta={"source": "input"}
        )
        run.append({"messages": Extend(["book", "pay"])}, task="agent")
        run.append({"spent": 180}, task="ledger")
        run.append({"doc": Merge({"a": 2, "c": 3}), "note": "to"}, task="tools", id="call-7")
        run.append({"spent": 360, "note": AppendText(" do"), "~seen": [1]}, task="ledger")
        fix = run.fork(at=1, name="fix")
        fix.append({"spent": 1, "doc": Delete()}, task="ledger")
        log.run(("thread", "ns")).append({"x": 1.5})
        log.run("trip-1@fix").append({"name": "like an address"})
    return location


@pytest.fixture
def cli(store, capsys):
    """Run a command on the store: its exit code, stdout, stderr."""

    def call(command, *args):
        code = main([command, "-s", str(store), *args])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def spawn(*args, cwd=None, **environ):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TZ": "UTC", **environ}
    command = [sys.executable, "-m", "eventlog", *args]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=60, check=False)


def untimed(text):
    """Output without the times of day, which say how often the engine asked its clock."""
    return re.sub(r" 14:26:40\.\d{3,6}(\+00:00)?(?!\d)", "", text)


def lines_of(cli, *args):
    code, out, _ = cli(*args)
    assert code == 0
    return out.splitlines()


# --- ls


def test_ls_shows_every_run(cli):
    code, out, err = cli("ls")
    assert (code, err) == (0, "")
    assert out == (
        "   events  branches     step  last write           run\n"
        "        1         1        0  2026-11-23 14:26:40  thread / ns\n"
        "        6         2        4  2026-11-23 14:26:40  trip-1\n"
        "        1         1        0  2026-11-23 14:26:40  trip-1@fix\n"
    )


@pytest.mark.parametrize("given", ["after", "option", "environment", "default"])
def test_the_store_can_be_named_in_four_ways(store, given, capsys, monkeypatch):
    argv = {"after": ["ls", str(store)], "option": ["-s", str(store), "ls"]}.get(given, ["ls"])
    if given == "environment":
        monkeypatch.setenv("EVENTLOG_STORE", str(store))
    if given == "default":
        store.rename(store.parent / ".eventlog")
        monkeypatch.chdir(store.parent)
    assert main(argv) == 0
    assert "trip-1" in capsys.readouterr().out


def test_an_empty_log_is_no_error(tmp_path, capsys):
    EventLog.open(tmp_path / "log").close()
    assert main(["ls", str(tmp_path / "log")]) == 0
    assert "no runs yet" in capsys.readouterr().err


# --- log


def test_log_tells_each_step_newest_first(cli):
    code, out, err = cli("log", "trip-1")
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in untimed(out).splitlines()] == [
        "4 2026-11-23 ledger spent 180 → 360, note +3 characters head main",
        '3 2026-11-23 tools doc ~2 keys, note = "to"',
        "2 2026-11-23 ledger spent 0 → 180",
        "1 2026-11-23 agent messages +2",
        "0 2026-11-23 start spent = 0, messages = [1 item], doc = {2 keys}",
    ]


def test_log_tells_of_a_splice_what_came_and_what_went(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("r")
        run.append({"l": [1, 2, 3, 4]})
        run.append({"l": Splice([(0, 0, ["a"]), (1, 2, [])])})
        run.append({"l": Splice([(0, 1, [])])})
    assert main(["-s", str(tmp_path / "log"), "log", "r"]) == 0
    last, before, _ = capsys.readouterr().out.splitlines()
    assert "l -1" in last
    assert "l +1 -2" in before


def test_log_of_a_branch_goes_back_past_its_fork(cli):
    lines = lines_of(cli, "log", "--run", "trip-1", "--branch", "fix")
    assert [line.split()[0] for line in lines] == ["2", "1", "0"]
    assert "spent 0 → 1, doc deleted" in lines[0]
    assert lines[0].endswith("head fix")


def test_log_of_all_branches_names_them(cli):
    lines = lines_of(cli, "log", "trip-1", "--all-branches")
    assert [line.split()[0] for line in lines] == ["@fix:2", "@main:4", "@main:3", "@main:2", "@main:1", "@main:0"]
    assert len(lines_of(cli, "log", "trip-1", "--all-branches", "-n", "2")) == 2


def test_a_copy_is_told_whole_and_a_pruned_run_from_where_it_begins(cli, store):
    with EventLog.open(store) as log:
        log.copy("trip-1", "copy")
        log.run("copy").append({"x": 1})
        log.copy("copy", "pruned")
        log.copy("trip-1", "short")
    whole = [line.split() for line in lines_of(cli, "log", "trip-1", "--all-branches")]
    told = [line.split() for line in lines_of(cli, "log", "copy", "--all-branches")]
    assert [line[0] for line in told[:3]] == ["@main:5", "@fix:2", "@main:4"]
    assert [line[0] for line in told[1:]] == [line[0] for line in whole]
    counts = {line.split()[-1]: line.split()[0] for line in lines_of(cli, "ls")[1:]}
    assert (counts["trip-1"], counts["copy"], counts["short"]) == ("6", "7", "6")
    with EventLog.open(store) as log:
        run = log.run("old")
        for n in range(9):
            run.append({"n": n}, id=f"i{n}")
        run.fork(at=3, name="side").append({"n": -1}, id="side")
        run.branch("side").append({"n": -2}, id="side-2")
        run.prune(["side-2"])
    assert cli("ls")[0] == 0
    assert [line.split()[0] for line in lines_of(cli, "log", "old", "--all-branches")] == ["@side:5"]
    assert "parent  none: what came before was pruned" in cli("show", "old@side")[1]
    code, out, err = cli("diff", "old@side:first")
    assert (code, out, err.split(" → ")[0]) == (0, "+ n   -2\n", "nothing (what came before was pruned)")
    assert cli("log", "old@side:3")[2].endswith("and what came before step 5 was pruned\n")


def test_log_leaves_out_what_was_written_again_and_names_classes(tmp_path, capsys):
    numpy = pytest.importorskip("numpy")
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("a")
        run.append({"same": [1], "one": 1, "grid": numpy.zeros((2, 3))})
        run.append({"same": [1], "one": 1.0, "grid": numpy.ones((2, 3))})
        run.append({"same": [1]})
    assert main(["log", "a", "-s", str(tmp_path / "log")]) == 0
    told = [line.split("  ")[-1] for line in untimed(capsys.readouterr().out).splitlines()]
    assert told[0].endswith("head main")
    assert told[1:] == [
        "one 1 → 1.0, grid ndarray(2x3) → ndarray(2x3)",
        "same = [1 item], one = 1, grid = ndarray(2x3)",
    ]


def test_log_begins_where_it_is_told_and_ends_after_n(cli):
    lines = lines_of(cli, "log", "trip-1:3", "-n", "2")
    assert [line.split()[0] for line in lines] == ["3", "2"]
    assert len(lines_of(cli, "log", "trip-1", "-n", "9" * 30)) == 5


def test_log_with_patches_shows_what_changed(cli):
    assert lines_of(cli, "log", "trip-1:3", "-n", "1", "-p")[1:] == [
        "        ~ doc.a   1 → 2",
        "        + doc.c   3",
        '        + note   "to"',
    ]


def test_a_savers_own_channels_are_shown_when_asked(cli):
    assert "~seen" not in cli("log", "trip-1")[1]
    assert "~seen = [1 item]" in cli("log", "trip-1", "--all")[1]
    assert "1 of a saver's own channels" in cli("show", "trip-1")[1]
    assert "~seen" in cli("show", "trip-1", "--all")[1]
    assert "~seen" not in cli("diff", "trip-1")[1]
    assert '["~seen"]' in cli("diff", "trip-1", "--all")[1]


def test_a_long_log_agrees_with_its_states(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("n")
        run.append_many([{"n": i} for i in range(700)])
        run.fork(at=300, name="f").append_many([{"n": -i} for i in range(500)])
    assert main(["log", "-s", str(tmp_path / "log"), "n@f"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 801
    numbers = [-i for i in range(499, -1, -1)] + list(range(300, -1, -1))
    for line, new, old in zip(lines, numbers, numbers[1:], strict=False):
        assert f"n {old} → {new}" in line
    assert "n = 0" in lines[-1]


@pytest.mark.parametrize("branch", ["n", "n@f"])
def test_the_patches_of_a_long_log_are_the_diffs_of_its_states(tmp_path, capsys, branch):
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("n")
        for i in range(300):
            others = {10: [i, i], 25: Splice([(0, 0, [i])]), 29: Delete()}
            run.append({"l": others.get(i % 30) or Extend([float("nan"), {"k": i}][: i % 3])})
            run.append({"m": Extend([i]), "d": Merge({str(i % 9): Extend([i])})})
        run.fork(at=200, name="f").append_many([{"lm"[i % 2]: Extend([i])} for i in range(9)])
    assert main(["log", "-s", str(tmp_path / "log"), branch, "-p", "--json"]) == 0
    events = json.loads(capsys.readouterr().out)["events"]
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("n") if branch == "n" else log.run("n").branch("f")
        states = [{}, *(dict(state) for _, state in run.replay())][::-1]
    assert len(events) == len(states) - 1
    for event, after, before in zip(events, states, states[1:], strict=False):
        assert event["changes"] == [change_fields(change) for change in compare(before, after)]


def test_a_patch_of_a_list_that_grew_does_not_compare_it_whole(tmp_path, capsys, monkeypatch):
    with EventLog.open(tmp_path / "log") as log:
        log.run("n").append_many([{"l": Extend([{"number": i}])} for i in range(500)])
    compared = []
    monkeypatch.setattr(diff, "is_same", lambda *pair: compared.append(pair) or is_same(*pair))
    assert main(["log", "-s", str(tmp_path / "log"), "n", "-p"]) == 0
    assert '        + l[499]   {"number": 499}\n' in capsys.readouterr().out
    assert not compared


def test_a_reader_gets_the_first_lines_of_a_long_log_at_once_and_may_go_away(tmp_path):
    with EventLog.open(tmp_path / "log") as log:
        log.run("n").append_many([{"n": i, "text": "x" * 50} for i in range(50_000)])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "eventlog", "log", "-s", str(tmp_path / "log"), "n"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    try:
        assert process.stdout.readline().split()[0] == b"49999"
        assert process.poll() is None
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_ctrl_c_ends_quietly(tmp_path):
    with EventLog.open(tmp_path / "log") as log:
        log.run("n").append_many([{"n": i} for i in range(50_000)])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "eventlog", "log", "-s", str(tmp_path / "log"), "n"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where it is ignored, children ignore it, too
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        signal.signal(signal.SIGINT, before)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == b"interrupted\n"


# --- show


def test_show_tells_everything_about_a_step(cli):
    code, out, _ = cli("show", "trip-1:3")
    assert code == 0
    assert untimed(out) == (
        "trip-1:3\n"
        "id      call-7\n"
        "task    tools\n"
        "time    2026-11-23\n"
        "parent  trip-1:2\n"
        'writes  doc ~2 keys, note = "to"\n'
        "  ~ doc.a   1 → 2\n"
        "  + doc.c   3\n"
        '  + note   "to"\n'
    )
    first = cli("show", "trip-1:first")[1]
    assert "parent  none: this is the first event\n" in first
    assert 'meta    source = "input"\n' in first


def test_show_names_the_tasks_that_wrote(cli, store):
    with EventLog.open(store) as log:
        log.run("trip-1").put_task_writes(
            2,
            [
                TaskWrite("t-2", 0, "doc", {}, "~b"),
                TaskWrite("t-2", 1, "note", "to", "~b"),
                TaskWrite("t-1", 0, "x", 1),
            ],
        )
    assert "by      -  t-1: x\nby      ~b  t-2: doc, note\nwrites " in cli("show", "trip-1:3")[1]
    assert json.loads(cli("show", "trip-1:3", "--json")[1])["by"] == [
        {"task": "t-1", "path": "", "channels": ["x"]},
        {"task": "t-2", "path": "~b", "channels": ["doc", "note"]},
    ]


def test_show_prints_the_state_as_a_tree(cli):
    lines = lines_of(cli, "show", "trip-1:3", "--state")
    assert lines[lines.index("state") + 1 :] == [
        "  spent  180",
        '  messages  ["hi", "book", "pay"]',
        "  doc  {3 keys}",
        "    a  2",
        "    b  [1, 2]",
        "    c  3",
        '  note  "to"',
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("spent", "spent  360"),
        ("messages[-1]", 'messages[-1]  "pay"'),
        ("doc.b[0]", "doc.b[0]  1"),
        ('["doc"]["b"]', '["doc"]["b"]  [1, 2]'),
        ("/messages/1", '/messages/1  "book"'),
    ],
)
def test_show_prints_one_value(cli, path, text):
    assert lines_of(cli, "show", "trip-1", "--path", path) == [text]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nope", "the channels are spent, messages"),
        ("messages[9]", "messages is [3 items]"),
        ("doc.b.c", "doc.b is [2 items]"),
        ("spent.x", "spent is 360"),
        ("a b", "not a path at ' b'"),
        (r'["\xzz"]', r"""not a path at '["\\xzz"]': write"""),
        (r'doc["\U99999999"]', r"""not a path at '["\\U99999999"]': write"""),
        (r'["\UFFFFFFFF"]', r"""not a path at '["\\UFFFFFFFF"]': write"""),
        (f"messages[{'9' * 5000}]", "not a path at '[999"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far(cli, path, why):
    code, out, err = cli("show", "trip-1", "--path", path)
    assert (code, out) == (2, "")
    assert why in err


def test_a_large_state_is_cut_and_says_so(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        log.run("big").append({"l": [{"i": i, "s": "x" * 50} for i in range(1000)], "deep": [[[[[[[[[[1]]]]]]]]]]})
    show = ["show", "-s", str(tmp_path / "log"), "big", "--state"]
    assert main(show) == 0
    out = capsys.readouterr().out
    assert "… +980 more (--full shows them)" in out
    assert "[1 item] deeper (--full shows them)" in out
    assert main([*show, "--full"]) == 0
    out = capsys.readouterr().out
    assert "more (" not in out
    assert "deeper" not in out
    assert len(out.splitlines()) > 3000
    with EventLog.open(tmp_path / "log") as log:
        log.run("big").append({f"c{i}": i for i in range(1000)})
    assert main(show) == 0
    assert "… cut after 400 lines" in capsys.readouterr().out.splitlines()[-1]


# --- diff


def test_diff_compares_any_two_states(cli):
    assert cli("diff", "trip-1:1", "trip-1:2") == (0, "~ spent   0 → 180\n", "trip-1:1 → trip-1:2\n")
    assert cli("diff", "trip-1:2") == (0, "~ spent   0 → 180\n", "trip-1:1 → trip-1:2\n")
    assert cli("diff", "--run", "trip-1", "--step", "1", "trip-1:2")[1] == "~ spent   0 → 180\n"
    code, out, _ = cli("diff", "--run", "trip-1", "--branch", "fix", "trip-1:4")
    assert code == 0
    assert out.startswith("~ spent   1 → 360\n")
    assert cli("diff", "trip-1:first")[1].splitlines()[0] == "+ spent   0"
    assert cli("diff", "thread / ns", "trip-1:0")[1].splitlines()[0] == "- x   1.5"


def test_diff_says_with_its_exit_code_whether_there_is_one(cli):
    assert cli("diff", "trip-1:1", "trip-1:2", "--exit-code")[0] == 1
    assert cli("diff", "trip-1:1", "trip-1:1", "--exit-code") == (0, "", "trip-1:1 → trip-1:1: no difference\n")


# --- addresses


@pytest.mark.parametrize(
    ("address", "branch", "step"),
    [
        (["trip-1"], "main", 4),
        (["trip-1:2"], "main", 2),
        (["trip-1@main"], "main", 4),
        (["trip-1@main:0"], "main", 0),
        (["trip-1~3"], "main", 1),
        (["trip-1~0"], "main", 4),
        (["trip-1:3~2"], "main", 1),
        (["trip-1:first"], "main", 0),
        (["trip-1:last"], "main", 4),
        (["trip-1:call-7"], "main", 3),
        (["trip-1:call-7~1"], "main", 2),
        (["trip-1@fix"], "main", 0),  # the run of that very name
        (["--run", "trip-1", "--branch", "fix"], "fix", 2),
        (["--run", "trip-1", "--branch", "fix", "--step", "1"], "main", 1),
        (["trip-1", "--branch", "fix"], "fix", 2),
        (["trip-1", "--step", "3"], "main", 3),
        (["thread / ns"], "main", 0),
        (["thread / ns:0"], "main", 0),
        (["--run", "thread", "--run", "ns"], "main", 0),
    ],
)
def test_addresses(cli, address, branch, step):
    code, out, _ = cli("show", "--json", *address)
    found = json.loads(out)
    assert code == 0
    assert (found["branch"], found["step"]) == (branch, step)


def test_an_engines_own_id_is_an_address(cli):
    found = json.loads(cli("show", "--json", "trip-1:2")[1])
    assert json.loads(cli("show", "--json", f"trip-1:{found['id']}")[1]) == found


def test_steps_below_zero_are_addresses(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("t")
        run.append({"x": 0}, step=-1, id="a0")
        run.append({"x": 1}, step=5, id="12")
    for address in (["t:-1"], ["t", "--step", "-1"], ["t:a0"], ["t~1"], ["t:12~1"]):
        assert main(["show", "--json", "-s", str(tmp_path / "log"), *address]) == 0
        assert json.loads(capsys.readouterr().out)["id"] == "a0"


def test_a_savers_run_stands_at_its_greatest_id(tmp_path, capsys):
    register_codec(SaverCodec())
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("t", codec=SaverCodec())
        run.append({"x": 0}, id="id-1")
        run.append({"x": 1}, id="id-2")
        run.fork(at=0, name="again").append({"x": 2}, id="id-3")
    assert main(["show", "-s", str(tmp_path / "log"), "t"]) == 0
    assert capsys.readouterr().out.startswith("t:1\nid      id-3\n")
    assert main(["show", "-s", str(tmp_path / "log"), "t@main"]) == 0
    assert capsys.readouterr().out.startswith("t@main:1\nid      id-2\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trip-2"], "did you mean trip-1"),
        (["thread/ns"], "did you mean thread / ns"),
        (["zzz"], "there is no run 'zzz'"),
        (["trip-1@fux"], "no branch 'fux'; did you mean fix?"),
        (["trip-1", "--branch", "mian"], "did you mean main?"),
        (["trip-1@main:77"], "has no step 77"),
        (["trip-1:nope"], "no event 'nope'"),
        (["trip-1~9"], "fewer than 9 events before step 4"),
        (["trip-1~x"], "is no place in a run"),
        (["trip-1:"], "is no place in a run"),
        (["trip-1", "--run", "trip-1"], "not both"),
        ([], "name a run"),
        (["--run", "a\nb"], "control character"),
    ],
)
@pytest.mark.parametrize("command", ["show", "log"])
def test_what_is_not_there_is_named_and_exits_2(cli, command, args, message):
    code, out, err = cli(command, *args)
    assert (code, out) == (2, "")
    assert err.startswith("eventlog: ")
    assert message in err


def test_among_thousands_of_long_names_few_are_compared_closely(tmp_path, capsys, monkeypatch):
    with EventLog.open(tmp_path / "log") as log:
        for i in range(300):
            log.run(f"run-{i}-{'abcdefgh' * 20}").append({"n": i})
    seen = []
    close = difflib.get_close_matches
    monkeypatch.setattr(
        difflib, "get_close_matches", lambda text, names, n: seen.extend(names) or close(text, names, n)
    )
    mistyped = f"run-177-{'abcdefgh' * 19}abcdefhg"
    assert main(["show", "-s", str(tmp_path / "log"), mistyped]) == 2
    assert f"did you mean run-177-{'abcdefgh' * 20} or " in capsys.readouterr().err
    assert main(["show", "-s", str(tmp_path / "log"), ":" * 250]) == 2
    assert len(seen) < 1000


@pytest.mark.parametrize("argv", [[], ["frobnicate"], ["log", "-n", "0", "x"], ["log", "--nope"], ["demo", "chess"]])
def test_wrong_usage_exits_2(argv, capsys):
    assert main(argv) == 2
    assert "usage: eventlog" in capsys.readouterr().err


def test_help_and_version_exit_0(capsys):
    assert main(["--help"]) == 0
    assert main(["log", "--help"]) == 0
    assert main(["--version"]) == 0
    assert "eventlog 0." in capsys.readouterr().out


def test_no_store_exits_3_and_says_where_to_go(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["ls"]) == 3
    err = capsys.readouterr().err
    assert "there is no log at .eventlog" in err
    assert "-s PATH" in err
    assert not list(tmp_path.iterdir())


def test_a_directory_of_something_else_exits_3(tmp_path, capsys):
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    assert main(["ls", str(tmp_path)]) == 3
    assert "Traceback" not in capsys.readouterr().err


# --- inert, and safe for a terminal


def test_hostile_strings_reach_no_terminal(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("a\u202eb")
        run.append({"d": {HOSTILE: [HOSTILE]}, "t": HOSTILE}, meta={HOSTILE: HOSTILE}, task="t\u202e")
        run.append({"t": HOSTILE + "!", "d": [HOSTILE]}, task="x")
        run.fork(name="b\u2066")
    for command in (
        ["ls"],
        ["log", "a\u202eb", "-p"],
        ["log", "a\u202eb", "--all-branches"],
        ["show", "a\u202eb~1"],
        ["show", "a\u202eb~1", "--state"],
        ["show", "a\u202eb", "--path", "t"],
        ["diff", "a\u202eb"],
        ["log", "a\u202eb@\u2066"],
        ["show", "a\u202eb", "--path", HOSTILE],
    ):
        main([command[0], "-s", str(tmp_path / "log"), *command[1:]])
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert text
        assert all(char == "\n" or char.isprintable() for char in text), command


def test_other_peoples_classes_are_shown_and_not_needed(tmp_path):
    module = tmp_path / "booking.py"
    module.write_text("import dataclasses\n@dataclasses.dataclass\nclass Seat:\n    row: int\n")
    program = (
        "import sys, booking; from eventlog import EventLog\n"
        "run = EventLog.open(sys.argv[1]).run('r')\n"
        "run.append({'seat': booking.Seat(1), 'all': [booking.Seat(7)]}); run.append({'seat': booking.Seat(2)})\n"
    )
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    env = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "log")], env=env, check=True, timeout=60)
    module.write_text("raise SystemExit('imported!')\n")
    done = spawn("diff", "-s", str(tmp_path / "log"), "r", PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (0, "~ seat.value.row   1 → 2\n")
    done = spawn("show", "-s", str(tmp_path / "log"), "r", "--path", "all", PYTHONPATH=path)
    assert "booking:Seat" in done.stdout


def test_a_run_whose_codec_nobody_knows_is_listed_and_its_values_are_refused(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        log.run("foreign", codec=OwnCodec()).append({"x": 1})
    assert main(["ls", str(tmp_path / "log")]) == 0
    assert "foreign" in capsys.readouterr().out
    assert main(["show", "-s", str(tmp_path / "log"), "foreign"]) == 6
    assert "nobody-knows/1" in capsys.readouterr().err


def test_looking_changes_nothing_and_works_without_the_right_to_write(store, cli):
    before = (store / "data.mdb").read_bytes()
    for command in (["ls"], ["log", "trip-1", "-p"], ["show", "trip-1", "--state"], ["diff", "trip-1"]):
        assert cli(*command)[0] == 0
    assert (store / "data.mdb").read_bytes() == before


# --- json and color


def test_json_documents_parse_and_name_their_schema(cli):
    for command in ("ls", "log trip-1 -p", "log trip-1:first", "show trip-1", "show trip-1 --path doc", "diff trip-1"):
        code, out, _ = cli(*command.split(), "--json")
        assert code == 0
        schema, version = json.loads(out)["schema"].split("/")
        assert schema.startswith("eventlog.")
        assert version == "1"


def test_json_says_what_the_text_says(cli):
    runs = json.loads(cli("ls", "--json")[1])["runs"]
    assert [run["run"] for run in runs] == [["thread", "ns"], "trip-1", "trip-1@fix"]
    log = json.loads(cli("log", "trip-1", "-n", "1", "-p", "--json")[1])["events"]
    assert log[0]["changes"] == [
        {"path": "spent", "kind": "changed", "old": 180, "new": 360},
        {"path": "note", "kind": "changed", "old": "to", "new": "to do"},
    ]
    assert log[0]["heads"] == ["main"]
    assert json.loads(cli("show", "trip-1", "--json", "--state")[1])["state"]["doc"] == {"a": 2, "b": [1, 2], "c": 3}


def test_json_of_hard_values(tmp_path, capsys):
    with EventLog.open(tmp_path / "log") as log:
        log.run("h").append({"v": [float("nan"), b"\x00", (1,), {1: 2}, 1 << 70, float("-inf"), {3}]})
    assert main(["show", "-s", str(tmp_path / "log"), "h", "--path", "v", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == [
        {"$float": "nan"},
        {"$b64": "AA=="},
        {"$type": "tuple", "$items": [1]},
        {"$dict": [[1, 2]]},
        1 << 70,
        {"$float": "-inf"},
        {"$type": "tuple", "$items": [3]},  # read without classes, a set is a tuple
    ]


def test_an_integer_too_long_for_decimal_digits_is_shown(tmp_path, capsys):
    most, long = 10**4299, -(10**5000)
    with EventLog.open(tmp_path / "log") as log:
        log.run("h").append({"v": most, "d": {}}, meta={"m": long})
        log.run("h").append({"v": long, "d": {10**6000: long}})

    def told(*args):
        assert main([args[0], "-s", str(tmp_path / "log"), *args[1:]]) == 0
        return capsys.readouterr().out

    shown = json.loads(told("show", "h", "--json", "--state"))
    assert shown["changes"][0]["old"] == most
    assert int(shown["state"]["v"]["$int"], 16) == int(shown["changes"][0]["new"]["$int"], 16) == long
    assert shown["state"]["d"] == {"$dict": [[{"$int": hex(10**6000)}, {"$int": hex(long)}]]}
    assert json.loads(told("show", "h:0", "--json"))["meta"]["m"] == {"$int": hex(long)}
    for args in (["log", "h", "-p"], ["diff", "h"], ["show", "h", "--path", "v"]):
        assert json.loads(told(*args, "--json"))
        assert "int of 16,610 bits" in told(*args)
    assert "m = int of 16,610 bits" in told("show", "h:0", "--full")


def test_color_is_for_those_who_want_it(store, capsys, monkeypatch):
    diff = ["diff", "-s", str(store), "trip-1"]
    main(diff)
    assert "\x1b" not in capsys.readouterr().out
    main([*diff, "--color", "always"])
    assert "\x1b[33m~ spent" in capsys.readouterr().out
    main(["--color", "always", *diff])
    assert "\x1b[33m~ spent" in capsys.readouterr().out
    main([*diff, "--color", "always", "--json"])
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.delenv("NO_COLOR")
    main(diff)
    assert "\x1b" not in capsys.readouterr().out  # not a terminal
    monkeypatch.setenv("FORCE_COLOR", "1")
    main(diff)
    assert "\x1b[33m~ spent" in capsys.readouterr().out


# --- as a program


def test_it_runs_as_a_module(store):
    done = spawn("log", "-s", str(store), "trip-1", "-n", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("head main\n")
    assert spawn("show", "-s", str(store), "trip-9").returncode == 2
    assert spawn("ls", cwd=store.parent).returncode == 3


def test_a_terminal_that_knows_only_ascii_gets_escapes(store):
    done = spawn("diff", "-s", str(store), "trip-1:2", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "~ spent   0 \\u2192 180\n")


def redirected(how, *args):
    """A command in a shell that redirects its streams; `how` may say where the others go."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TZ": "UTC"}
    command = ["sh", "-c", f'exec "$@" {how}', "sh", sys.executable, "-m", "eventlog", *args]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


@pytest.mark.parametrize("command", [["ls"], ["log", "trip-1", "--json"], ["show", "trip-1"], ["copy", "{}/elsewhere"]])
@pytest.mark.parametrize(
    ("how", "why"),
    [
        (">&-", "eventlog: stdout is closed, so nothing can be told; send it to /dev/null instead\n"),
        (">/dev/full", "eventlog: cannot write to stdout: No space left on device\n"),
        ("1</dev/null", "eventlog: cannot write to stdout: Bad file descriptor\n"),
    ],
)
def test_where_nothing_can_be_printed_it_says_so(store, tmp_path, monkeypatch, command, how, why):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    name, *args = [word.format(tmp_path) for word in command]
    args = [str(store), *args] if name == "copy" else ["-s", str(store), *args]
    done = redirected(how, name, *args)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", why)


def test_help_of_which_nothing_can_be_printed_is_an_error_too(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    assert "cannot write to stdout" in redirected(">/dev/full", "--help").stderr
    assert redirected(">&- 2>&- <&-", "--help").returncode == 3


@pytest.mark.parametrize("how", ["2>&-", "2>&- <&-"])
def test_without_stderr_it_works_and_no_error_is_taken_for_output(store, tmp_path, how):
    sqlite = str(tmp_path / "t.sqlite")
    with EventLog.open(tmp_path / "s") as log:
        EventLogSaver(log).put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {})
    out = redirected(how, "copy-out", "-s", str(tmp_path / "s"), "--to", "langgraph-sqlite", sqlite)
    assert (out.returncode, out.stdout[:27]) == (0, "1 threads: 1 checkpoints an")
    back = redirected(how, "import", "-s", str(tmp_path / "i"), "--from", "langgraph-sqlite", sqlite)
    assert (back.returncode, back.stdout[:27]) == (0, "1 threads: 1 checkpoints an")
    copied = redirected(how, "copy", str(store), str(tmp_path / "copy"))
    assert (copied.returncode, "keys on both sides" in copied.stdout) == (0, True)
    for args, code in {
        ("ls", str(tmp_path / "nope")): 3,
        ("ls", "--nope"): 2,
        ("show", "-s", str(store), "trip-2"): 2,
    }.items():
        done = redirected(how, *args)
        assert (done.returncode, done.stdout) == (code, "")


def test_a_file_of_a_log_never_takes_the_place_of_a_closed_stream():
    program = "from eventlog.cli import main; main(['--version']); import os; print(os.open('/', 0) > 2)"
    command = ["sh", "-c", 'exec "$@" 2>&- <&-', "sh", sys.executable, "-c", program]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize("kind", ["agent", "physics"])
def test_a_demo_whose_interpreter_may_not_be_run_says_so(tmp_path, capsys, monkeypatch, kind):
    (tmp_path / "python").touch(mode=0o644)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert main(["demo", kind, "--dir", str(tmp_path / "demo")]) == 3
    assert capsys.readouterr().err == f"eventlog: cannot use {tmp_path}/python: Permission denied\n"


def test_the_demo_refuses_a_directory_that_holds_something(store, capsys):
    assert main(["demo", "physics", "--dir", str(store)]) == 2
    assert "holds something already" in capsys.readouterr().err


def test_without_langgraph_the_agents_demo_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "langgraph.graph", None)
    assert main(["demo", "agent"]) == 6
    assert 'pip install "eventlog-savers[demo]"' in capsys.readouterr().err


# --- a log in SQLite


@pytest.fixture
def in_sqlite(tmp_path):
    location = f"sqlite:///{tmp_path}/my runs%.db"
    with EventLog.open(location) as log:
        run = log.run("trip-1")
        run.append({"spent": 0})
        run.append({"spent": 180}, task="ledger")
    return location


@pytest.mark.parametrize("given", ["after", "option", "environment", "relative"])
def test_a_file_of_sqlite_is_named_by_its_url(in_sqlite, given, capsys, monkeypatch, tmp_path):
    argv = {"after": ["ls", in_sqlite], "option": ["-s", in_sqlite, "ls"]}.get(given, ["ls"])
    if given == "environment":
        monkeypatch.setenv("EVENTLOG_STORE", in_sqlite)
    if given == "relative":
        monkeypatch.chdir(tmp_path)
        argv = ["ls", "-s", "sqlite:///my runs%.db"]
    assert main(argv) == 0
    assert "trip-1" in capsys.readouterr().out


def test_every_command_looks_into_sqlite_beside_a_writer(in_sqlite, capsys):
    with EventLog.open(in_sqlite) as log:
        log.run("trip-1").append({"spent": 360})
        for argv in (["log", "trip-1"], ["show", "trip-1:1"], ["diff", "trip-1:0", "trip-1:2"]):
            assert main([argv[0], "-s", in_sqlite, *argv[1:]]) == 0
        assert "360" in capsys.readouterr().out


def test_what_is_no_log_of_sqlite_is_said(tmp_path, capsys):
    (tmp_path / "note.db").write_text("no database " * 100)
    for name, said in (("note.db", "it is no SQLite file"), ("missing.db", "there is no log at sqlite:///")):
        assert main(["ls", f"sqlite:///{tmp_path}/{name}"]) == 3
        assert said in capsys.readouterr().err
    assert not (tmp_path / "missing.db").exists()
    assert main(["ls", "mysql://a/b"]) == 2
    assert "sqlite:///PATH" in capsys.readouterr().err


def test_arrays_are_told_by_their_numbers_and_never_at_length(tmp_path, capsys):
    numpy = pytest.importorskip("numpy")
    store = ["-s", str(tmp_path / "log")]
    grid = numpy.arange(6.0).reshape(2, 3)
    with EventLog.open(tmp_path / "log") as log:
        run = log.run("a")
        first = {
            "grid": grid,
            "columns": numpy.asfortranarray(grid),
            "long": numpy.zeros(10_000),
            "one": numpy.int16(1),
        }
        run.append({**first, "text": numpy.array(["ab"]), "none": numpy.zeros((0, 2))})
        after = {name: array.copy("K") for name, array in first.items()}
        after["grid"][1, 1] = after["columns"][1, 1] = 9
        run.append({**after, "long": numpy.ones(10_000), "one": numpy.int16(2), "none": numpy.zeros(1, "c8")})
    assert main(["diff", "a:0", "a:1", *store]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [
        "~ grid   float64 2x3  1 of 6 differ: [1, 1] 4.0 → 9.0",
        "~ columns   float64 2x3  1 of 6 differ: [1, 1] 4.0 → 9.0",
    ]
    assert told[2].startswith("~ long   float64 10000  10,000 of 10,000 differ: [0] 0.0 → 1.0, [1] 0.0 → 1.0, ")
    assert told[2].endswith(", … +9,992 more")
    assert told[3:5] == ["~ one   int16  1 → int16  2", "~ none   float64 0x2  (empty) → complex64 1  0j"]
    assert main(["show", "a:0", "--state", *store]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-6:-4] == [
        "  grid  float64 2x3  0.0 1.0 2.0 3.0 4.0 5.0",
        "  columns  float64 2x3  0.0 1.0 2.0 3.0 4.0 5.0",
    ]
    assert told[-4].endswith("0.0 … +9,980 more")
    assert told[-3] == "  one  int16  1"
    assert told[-2].startswith("  text  <U2 1  b'")
    assert max(map(len, told)) < 400


def test_arrays_of_langgraphs_serializer_are_told_by_their_numbers(tmp_path, capsys):
    numpy = pytest.importorskip("numpy")
    store = ["-s", str(tmp_path / "log")]
    grid = numpy.arange(6.0).reshape(2, 3)
    with EventLog.open(tmp_path / "log") as log:
        saver, under = EventLogSaver(log), None
        for n, name in enumerate("ab"):
            values = {"columns": numpy.asfortranarray(grid), "grid": grid}
            versions = dict.fromkeys(values, saver.get_next_version(None, None))
            config = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": under}}
            checkpoint = {**empty_checkpoint(), "id": name, "channel_values": values, "channel_versions": versions}
            saver.put(config, checkpoint, {"step": n}, versions)
            grid, under = grid.copy(), name
            grid[1, 1] = 9
    assert main(["diff", "t:0", "t:1", *store]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "~ columns   float64 2x3  1 of 6 differ: [1, 1] 4.0 → 9.0",
        "~ grid   float64 2x3  1 of 6 differ: [1, 1] 4.0 → 9.0",
    ]


@pytest.mark.parametrize(
    ("url", "package", "called", "extra"),
    [
        ("postgresql://ann:s3/cret@host/app", "psycopg", "PostgreSQL", "postgres"),
        ("redis://:s3/cret@host", "redis", "Redis", "redis"),
        ("s3://bucket/runs", "slatedb", "object storage", "objectstore"),
    ],
)
def test_without_its_package_an_engine_says_how_to_get_it(url, package, called, extra):
    code = (
        f"import sys; sys.modules[{package!r}] = None\nfrom eventlog.cli import main\nsys.exit(main(['ls', {url!r}]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 6
    assert f'a log in {called} needs more: pip install "eventlog-savers[{extra}]"' in done.stderr
    assert "cret" not in done.stderr


def test_a_url_that_no_engine_serves_is_refused_without_its_password(capsys):
    assert main(["ls", "mysql://ann:s3/cr@et@host/app"]) == 2
    said = capsys.readouterr().err
    assert "'postgresql://…', 'redis://…', 's3://…'" in said
    assert "et@" not in said
