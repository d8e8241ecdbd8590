"""Several writers of one thread: who is refused, and what is seen of the others. Some are processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph

from eventlog import ConflictError, EventLog, NotFoundError, StorageError
from eventlog.storage.memory import MemoryStorage
from savers.langgraph import EventLogSaver
from tests.counting import CountingStorage
from tests.langgraph.byhand import config, made

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from savers.langgraph import EventLogSaver
from tests.counting import CountingStorage
from tests.langgraph.byhand import config
from tests.langgraph.test_writers import put

with EventLogSaver.from_conn_string(sys.argv[1], exclusive=sys.argv[2] == "exclusive") as saver:
    saver.get_tuple(config())
    for line in sys.stdin:
        try:
            exec(line)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        else:
            print("done", flush=True)
"""


class Other:
    """A saver in a process of its own, which has read the thread's newest checkpoint."""

    def __init__(self, directory: Path, mode: str = "") -> None:
        program = [sys.executable, "-c", CHILD, str(directory), mode]
        self.child = subprocess.Popen(
            program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def does(self, line: str) -> str:
        """What became of it: `done`, or the error."""
        assert self.child.stdin
        assert self.child.stdout
        self.child.stdin.write(line + "\n")
        return self.child.stdout.readline().strip()

    def close(self) -> None:
        self.child.communicate(timeout=60)
        assert self.child.returncode == 0


def put(saver: Any, checkpoint_id: str, parent: str | None = None, thread: str = "t", **values: Any) -> None:
    checkpoint = made(checkpoint_id, values, dict.fromkeys(values, checkpoint_id))
    saver.put(config(parent, thread), checkpoint, {"source": "loop"}, checkpoint["channel_versions"])


def ids(saver: EventLogSaver, thread: str = "t") -> list[str]:
    return [item.config["configurable"]["checkpoint_id"] for item in saver.list(config(thread=thread))]


def heads(saver: EventLogSaver) -> list[str]:
    return [branch.head.id for branch in saver.branches("t")]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path / "log") as opened:
        yield opened
        assert list(opened.verify()) == []


@pytest.fixture
def saver(log: EventLog) -> EventLogSaver:
    return EventLogSaver(log)


@pytest.fixture
def alone(log: EventLog) -> EventLogSaver:
    """One that is to be the only writer of a thread at a time."""
    return EventLogSaver(log, exclusive=True)


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def begin(mode: str = "") -> Other:
            child = Other(tmp_path / "log", mode)
            stack.callback(child.close)
            child.does("pass")
            return child

        yield begin


class TestTwoProcesses:
    def test_that_go_on_from_one_checkpoint_are_branches(self, saver, other_process):
        put(saver, "1", n=1)
        other = other_process()
        put(saver, "2", "1", n=2)
        assert other.does('put(saver, "3", "1", n=3)') == "done"
        assert other.does('put(saver, "4", "3", n=4)') == "done"
        put(saver, "5", "2", n=5)
        assert ids(saver) == ["5", "4", "3", "2", "1"]
        branches = saver.branches("t")
        assert [(branch.head.id, branch.forked_from) for branch in branches] == [("5", None), ("4", "1")]
        assert asyncio.run(saver.abranches("t")) == branches
        assert saver.branches("nobody") == saver.branches("t", "inner") == []

    def test_that_go_on_from_one_checkpoint_exclusively(self, alone, other_process):
        put(alone, "1", n=1)
        other = other_process("exclusive")
        put(alone, "2", "1", n=2)
        said = other.does('put(saver, "3", "1", n=3)')
        assert said.startswith("ConflictError thread 't': the newest checkpoint is 2, not 1")
        assert other.does('put(saver, "3", "1", n=3)') == said
        assert ids(alone) == ["2", "1"]
        assert heads(alone) == ["2"]
        assert other.does("saver.get_tuple(config())") == "done"
        assert other.does('put(saver, "3", "2", n=3)') == "done"
        with pytest.raises(ConflictError) as caught:
            put(alone, "4", "2")
        assert (caught.value.expected, caught.value.actual) == ("2", "3")

    def test_that_begin_one_thread_exclusively(self, alone, other_process):
        other = other_process("exclusive")
        put(alone, "1", n=1)
        assert other.does('put(saver, "2", n=2)').startswith("ConflictError")
        assert ids(alone) == ["1"]

    def test_one_of_which_deletes_what_the_other_is_writing(self, saver, other_process):
        put(saver, "1", n=1)
        other = other_process()
        assert other.does('put(saver, "2", "1", n=2)') == "done"
        saver.delete_thread("t")
        write = 'saver.put_writes(config("{}"), [("n", 1)], "task")'
        for late in (write.format("2"), 'put(saver, "3", "2", n=3)', write.format("3"), 'put(saver, "4", "2", n=3)'):
            said = other.does(late)
            assert said.startswith("NotFoundError thread 't' was deleted")
        assert saver.get_tuple(config()) is None
        put(saver, "5", n=5)
        for late in ('put(saver, "6", "2", n=3)', write.format("2"), write.format("1")):
            assert other.does(late).startswith("NotFoundError thread 't' was deleted")
        assert other.does('put(saver, "7", "5", n=7)') == "done"
        assert other.does(write.format("7")) == "done"
        assert ids(saver) == ["7", "5"]
        assert saver.get_tuple(config()).checkpoint["channel_values"] == {"n": 7}


class TestLateWrites:
    @pytest.fixture(
        params=["the same", "another that knew it", "another that did not", "another that looked before it began"]
    )
    def late(self, request: pytest.FixtureRequest, saver: EventLogSaver, log: EventLog) -> EventLogSaver:
        """A saver, of a thread that had checkpoints 1 and 2 and was deleted."""
        knowing, early = EventLogSaver(log), EventLogSaver(log)
        assert early.get_tuple(config()) is None
        put(saver, "1")
        put(saver, "2", "1")
        saver.put_writes(config("2"), [("n", 1)], "task")
        knowing.get_tuple(config())
        saver.delete_thread("t")
        late = {"the same": saver, "another that knew it": knowing, "another that did not": EventLogSaver(log)}
        return late.get(request.param, early)

    def test_are_refused(self, late: EventLogSaver, saver: EventLogSaver):
        for call in (
            lambda: put(late, "3", "2"),
            lambda: late.put_writes(config("2"), [("n", 1)], "task"),
            lambda: put(late, "3", "1"),
            lambda: put(late, "2", "1"),
        ):
            with pytest.raises(NotFoundError, match="'t' was deleted"):
                call()
            assert ids(late) == ids(saver) == []

    def test_and_so_is_what_comes_under_one_that_was_refused(self, late: EventLogSaver, saver: EventLogSaver):
        for checkpoint_id in ("3", "4", "5"):
            with contextlib.suppress(NotFoundError):  # they may come before their checkpoints, unless it knows better
                late.put_writes(config(checkpoint_id), [("n", 1)], "task")
        for checkpoint_id, parent in (("3", "2"), ("4", "3"), ("5", "4")):
            with pytest.raises(NotFoundError, match="'t' was deleted"):
                put(late, checkpoint_id, parent)
            assert ids(late) == ids(saver) == []
        put(late, "6")
        put(late, "7", "6")
        assert ids(late) == ids(saver) == ["7", "6"]

    def test_are_refused_by_the_async_methods(self, late: EventLogSaver):
        async def run() -> None:
            for parent in ("1", "2"):
                with pytest.raises(NotFoundError, match="'t' was deleted"):
                    await late.aput(config(parent), made("3", {"n": [1]}, {"n": 1}), {}, {"n": 1})
                with pytest.raises(NotFoundError, match="'t' was deleted"):
                    await late.aput_writes(config(parent), [("n", 1)], "task")
            await late.aput(config(), made("3", {"n": [1]}, {"n": 1}), {}, {"n": 1})

        asyncio.run(run())
        assert ids(late) == ["3"]

    def test_are_refused_when_the_thread_has_begun_anew(self, late: EventLogSaver, saver: EventLogSaver):
        put(saver, "3", n=3)
        for parent in ("1", "2"):
            with pytest.raises(NotFoundError, match="'t' was deleted"):
                put(late, "4", parent)
            with pytest.raises(NotFoundError, match="'t' was deleted"):
                late.put_writes(config(parent), [("n", 1)], "task")
        put(late, "4", "3", n=4)
        late.put_writes(config("4"), [("n", 1)], "task")
        assert ids(saver) == ids(late) == ["4", "3"]

    def test_do_not_keep_a_thread_from_beginning_anew(self, late: EventLogSaver):
        put(late, "1", n=1)  # under an id that it had before, even
        late.put_writes(config("1"), [("n", 1)], "task")
        put(late, "2", "1", n=2)
        assert ids(late) == ["2", "1"]

    def test_before_the_first_checkpoint_of_a_thread_that_begins_anew_are_kept(self, late: EventLogSaver):
        """A graph's writes and its checkpoints come from several threads: which is first is open."""
        assert late.get_tuple(config()) is None  # as each run of a graph begins
        late.put_writes(config("3"), [("n", 1)], "task")
        put(late, "3", n=3)
        assert late.get_tuple(config()).pending_writes == [("task", "n", 1)]

    def test_under_what_was_never_there_are_none(self, saver: EventLogSaver):
        saver.delete_thread("t")
        put(saver, "1", "nowhere")
        saver.put_writes(config("2"), [("n", 1)], "task")
        put(saver, "9", "8")
        assert ids(saver) == ["9", "1"]

    def test_of_one_namespace_are_not_those_of_another(self, log: EventLog, saver: EventLogSaver):
        put(saver, "1")
        saver.delete_thread("t")
        where = {"configurable": {"thread_id": "t", "checkpoint_ns": "n", "checkpoint_id": "0"}}
        saver.put(where, made("5", {}, {}), {}, {})
        assert [item.config["configurable"]["checkpoint_ns"] for item in saver.list(config())] == []
        assert saver.get_tuple({"configurable": {**where["configurable"], "checkpoint_id": "5"}}) is not None

    def test_are_refused_after_several_lives(self, saver: EventLogSaver):
        for first in ("7", "3", "5"):
            put(saver, first)
            saver.delete_thread("t")
        with pytest.raises(NotFoundError):
            saver.put_writes(config("6"), [("n", 1)], "task")
        put(saver, "9")
        with pytest.raises(NotFoundError):
            put(saver, "91", "7")


class Halting(CountingStorage):
    """Fails before a commit, as a process that dies there would."""

    left = -1

    def commit(self, *args: Any, **more: Any) -> None:
        if not self.left:
            raise StorageError("stopped here")
        self.left -= 1
        super().commit(*args, **more)


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("commits", [1, 2, 3])
def test_what_comes_late_is_refused_from_the_first_moment_of_a_deletion_on(commits, knows):
    storage = Halting(MemoryStorage())
    log = EventLog(storage)
    saver, late = EventLogSaver(log), EventLogSaver(log)
    put(saver, "1", n=1)
    put(saver, "2", "1", n=2)
    if knows:
        late.get_tuple(config())
    storage.left = commits
    with pytest.raises(StorageError):
        saver.delete_thread("t")
    storage.left = -1
    assert "t" not in log
    assert log.deleted_up_to("t") == "2"
    for call in (lambda: put(late, "3", "2", n=3), lambda: late.put_writes(config("2"), [("n", 1)], "task")):
        with pytest.raises(NotFoundError, match="'t' was deleted"):
            call()
    assert ids(late) == ids(saver) == []
    put(late, "3", n=3)
    with pytest.raises(NotFoundError, match="'t' was deleted"):
        put(late, "4", "2", n=4)
    assert ids(late) == ids(saver) == ["3"]
    assert list(log.verify()) == []


class Count(TypedDict):
    n: int


def counter(saver: EventLogSaver, during: Any = lambda n: None) -> Any:
    """A graph of three nodes; `during` is called in each with the count."""

    def count(state: Count) -> Count:
        during(state["n"])
        return {"n": state["n"] + 1}

    builder = StateGraph(Count)
    for name in "abc":
        builder.add_node(name, count)
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_run_whose_thread_is_deleted_fails_loudly(saver, log, durability):
    def delete(n: int) -> None:
        if n == 2:
            while not ids(saver):  # its checkpoints are on their way: what begins after the deletion begins anew
                time.sleep(0.001)
            EventLogSaver(log).delete_thread("t")

    with pytest.raises(NotFoundError, match="'t' was deleted"):
        counter(saver, delete).invoke({"n": 0}, config(), durability=durability)
    assert saver.get_tuple(config()) is None
    assert counter(saver).invoke({"n": 0}, config(), durability=durability) == {"n": 3}
    assert len(ids(saver)) == 5


class TestExclusively:
    @pytest.mark.parametrize("durability", ["sync", "async", "exit"])
    def test_a_graph_runs_goes_on_and_goes_back(self, alone, durability):
        graph = counter(alone)
        for _ in range(2):
            assert graph.invoke({"n": 0}, config(), durability=durability) == {"n": 3}
        history = list(graph.get_state_history(config()))
        older = next(state for state in history if state.values.get("n") == 3 and state.next == ()) or history[0]
        oldest = history[-1]
        forked = graph.update_state(oldest.config, {"n": 10})
        assert graph.invoke(None, forked, durability=durability)["n"] >= 10
        assert graph.invoke(None, older.config, durability=durability)["n"] == 3
        assert graph.invoke({"n": 5}, config(), durability=durability) == {"n": 8}

    def test_the_past_is_gone_back_to_by_a_process_that_did_not_write_it(self, alone, log):
        counter(alone).invoke({"n": 0}, config())
        fresh = EventLogSaver(log, exclusive=True)
        graph = counter(fresh)
        past = [state for state in graph.get_state_history(config()) if state.next == ("b",)]
        assert graph.invoke(None, past[0].config) == {"n": 3}
        assert len(fresh.branches("t")) == 2
        with pytest.raises(ConflictError, match="newest checkpoint"):
            put(alone, "z", heads(fresh)[0])  # the first one's last, which it does not know to be overtaken

    def test_a_run_that_another_writer_overtakes_fails(self, alone, log):
        def intrude(n: int) -> None:
            if n == 1:
                intruder = counter(EventLogSaver(log, exclusive=True))
                intruder.update_state(config(), {"n": 50})

        with pytest.raises(ConflictError, match="'t'"):
            counter(alone, intrude).invoke({"n": 0}, config(), durability="sync")
        assert len(alone.branches("t")) == 1
        assert counter(alone).get_state(config()).values == {"n": 50}
        assert counter(alone).invoke({"n": 1}, config()) == {"n": 4}

    def test_one_of_many_writers_wins(self, tmp_path, log):
        put(EventLogSaver(log), "1", n=1)
        others = [EventLog.open(tmp_path / "log") for _ in range(4)]
        savers = [EventLogSaver(other, exclusive=True) for other in others]
        for each in savers:
            each.get_tuple(config())

        def race(number: int) -> bool:
            with contextlib.suppress(ConflictError):
                put(savers[number], f"2.{number}", "1", n=number)
                return True
            return False

        with ThreadPoolExecutor(4) as threads:
            won = list(threads.map(race, range(4)))
        assert won.count(True) == 1
        assert ids(savers[0]) == [f"2.{won.index(True)}", "1"]
        for other in others:
            other.close()

    def test_a_thread_that_another_process_prunes_is_still_its_own(self, alone, other_process):
        put(alone, "1", n=1)
        put(alone, "2", "1", n=2)
        other = other_process()
        assert other.does('saver.prune(["t"])') == "done"
        put(alone, "3", "2", n=3)
        assert other.does('saver.prune(["t"], keep_last=1)') == "done"
        asyncio.run(alone.aput(config("3"), made("4", {}, {}), {}, {}))
        assert ids(alone) == ["4", "3"]
        assert other.does("saver.get_tuple(config())") == "done"
        assert other.does('put(saver, "5", "4")') == "done"
        with pytest.raises(ConflictError, match="newest checkpoint is 5, not 4"):
            put(alone, "6", "4")

    def test_async_puts_are_refused_as_well(self, alone, log):
        put(alone, "1", n=1)
        other = EventLogSaver(log, exclusive=True)
        other.get_tuple(config())
        put(alone, "2", "1", n=2)

        async def run() -> None:
            await other.aput(config("1"), made("3", {}, {}), {}, {})

        with pytest.raises(ConflictError, match="newest checkpoint is 2, not 1"):
            asyncio.run(run())
        assert ids(alone) == ["2", "1"]

    def test_a_checkpoint_may_be_put_again(self, alone):
        put(alone, "1", n=1)
        put(alone, "2", "1", n=2)
        put(alone, "2", "1", n=3)
        assert alone.get_tuple(config()).checkpoint["channel_values"] == {"n": 3}

    def test_a_thread_that_was_deleted_begins_anew(self, alone, log):
        put(alone, "1", n=1)
        EventLogSaver(log).delete_thread("t")
        with pytest.raises(NotFoundError):
            put(alone, "2", "1")
        put(alone, "2")
        put(alone, "3", "2")
        assert ids(alone) == ["3", "2"]


def test_a_write_goes_to_the_checkpoint_that_has_the_id_now(tmp_path):
    """Another process deleted what this one put last, and put it again."""

    def checkpoint(checkpoint_id: str) -> Any:
        return {**empty_checkpoint(), "id": checkpoint_id}

    with EventLog.open(tmp_path / "log") as one, EventLog.open(tmp_path / "log") as other:
        here, there = EventLogSaver(one), EventLogSaver(other)
        here.put(config(), checkpoint("1"), {"run_id": "first"}, {})
        here.put(config("1"), checkpoint("2"), {"run_id": "second"}, {})
        there.delete_for_runs(["second"])
        there.put(config("1"), checkpoint("2"), {"run_id": "third"}, {})
        here.put_writes(config("2"), [("x", "acknowledged")], "task")
        for saver in (here, there):
            assert saver.get_tuple(config("2")).pending_writes == [("task", "x", "acknowledged")]
        assert list(one.verify()) == []
