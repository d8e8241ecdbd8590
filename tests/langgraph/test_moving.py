"""Threads that move: from any saver to any other, and on from there as if they had never moved."""

from __future__ import annotations

import operator
import sqlite3
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest

pytest.importorskip("langgraph.channels.delta", reason="DeltaChannel, and savers that know it, came later")
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from eventlog import InvalidInputError, NotFoundError, StorageError, UnknownTypeError
from savers.langgraph import EventLogSaver, copy
from savers.langgraph.alike import difference
from savers.langgraph.places import opened, serializer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Make = Callable[[str], Any]

KINDS = ["memory", "sqlite", "postgres", "ours"]


@pytest.fixture
def make(tmp_path, database) -> Iterator[Make]:
    """A function that makes an empty saver of a kind."""
    with ExitStack() as stack:
        count = 0

        def made(kind: str) -> Any:
            nonlocal count
            count += 1
            if kind == "memory":
                return InMemorySaver()
            if kind == "sqlite":
                saver = stack.enter_context(SqliteSaver.from_conn_string(str(tmp_path / f"{count}.sqlite")))
                saver.conn.execute("PRAGMA synchronous=OFF")  # nobody pulls the plug here
                return saver
            if kind == "ours":
                return stack.enter_context(EventLogSaver.from_conn_string(tmp_path / f"{count}.log"))
            from langgraph.checkpoint.postgres import PostgresSaver

            saver = stack.enter_context(PostgresSaver.from_conn_string(database()))
            saver.setup()
            return saver

        yield made


# --- a real graph -----------------------------------------------------------------------------------------------------


def joined(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(item for write in writes for item in write)]


class Inner(TypedDict, total=False):
    trail: Annotated[list[str], operator.add]
    inner: int


class State(TypedDict, total=False):
    trail: Annotated[list[str], operator.add]
    told: Annotated[list[str], DeltaChannel(joined, snapshot_frequency=3)]
    messages: Annotated[list[Any], operator.add]
    rounds: int


def inner_graph() -> Any:
    builder = StateGraph(Inner)
    builder.add_node("deep", lambda state: {"trail": ["deep"], "inner": state.get("inner", 0) + 1})
    builder.add_edge(START, "deep")
    builder.add_edge("deep", END)
    return builder.compile()


def left(state: State) -> Any:
    return {"trail": ["left"], "told": [f"left {state['rounds']}"], "messages": [AIMessage("l", id="l")]}


def right(state: State) -> Any:
    return {"trail": ["right"], "told": [f"right {state['rounds']}"]}


def asking(state: State) -> Any:
    answer = interrupt({"round": state["rounds"]}) if state["rounds"] % 2 == 1 else "-"
    return {"trail": [f"asked {answer}"], "told": [f"asked {answer}"]}


def joining(state: State) -> Any:
    return {"rounds": state["rounds"] + 1, "told": ["joined"]}


def graph(saver: Any) -> Any:
    """Three parallel tasks, of which one asks in every other round, a subgraph, a DeltaChannel; four rounds."""
    builder = StateGraph(State)
    for name, node in (("left", left), ("right", right), ("asking", asking), ("joining", joining)):
        builder.add_node(name, node)
    builder.add_node("inner", inner_graph())
    for name in ("left", "right", "asking"):
        builder.add_edge(START, name)
        builder.add_edge("inner", name)
        builder.add_edge(name, "joining")
    builder.add_conditional_edges("joining", lambda state: END if state["rounds"] >= 4 else "inner")
    return builder.compile(checkpointer=saver)


CONFIG: Any = {"configurable": {"thread_id": "t"}, "metadata": {"why": "test"}}
FIRST: Any = {"rounds": 0, "trail": ["begin"], "told": ["begin"], "messages": [HumanMessage("h", id="h")]}


def begin(saver: Any) -> None:
    """Up to the question of the second round."""
    found = graph(saver).invoke(FIRST, CONFIG, durability="sync")
    assert "__interrupt__" in found


def resume(saver: Any, answer: str = "yes") -> Any:
    """One answer; the run goes on to the next question or its end."""
    return graph(saver).invoke(Command(resume=answer), CONFIG, durability="sync")


def seen(saver: Any) -> list[Any]:
    """What a user sees of the whole history."""
    return [
        (item.values, item.next, item.metadata["step"], [each.value for each in item.interrupts])
        for item in graph(saver).get_state_history(CONFIG)
    ]


def all_of(saver: BaseCheckpointSaver[Any]) -> dict[tuple[str, str, str], CheckpointTuple]:
    found = {}
    for item in list(saver.list(None)):
        named = item.config["configurable"]
        found[str(named["thread_id"]), named["checkpoint_ns"], named["checkpoint_id"]] = item
    return found


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = all_of(one), all_of(other)
    assert ours.keys() == theirs.keys()
    for key, item in ours.items():
        assert difference(item, theirs[key]) is None, key


@pytest.fixture(scope="module")
def never_moved() -> list[Any]:
    saver = SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))
    begin(saver)
    resume(saver)
    resume(saver)
    history = seen(saver)
    saver.conn.close()
    return history


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_a_run_goes_on_where_it_was_moved_to(make, source, target, never_moved):
    first, second = make(source), make(target)
    begin(first)
    before = all_of(first)
    done = copy(first, second)
    assert done.problems == ()
    assert (done.threads, done.checkpoints, done.skipped) == (1, len(before), 0)
    assert done.writes == sum(len(item.pending_writes or []) for item in before.values()) > 10
    assert_same(first, second)
    assert all(difference(item, before[key]) is None for key, item in all_of(first).items())
    resume(second)
    resume(second)
    assert seen(second) == never_moved


@pytest.mark.parametrize("way_out", ["memory", "sqlite", "postgres"])
def test_there_and_back_again(make, way_out, never_moved):
    first, ours, last = make("sqlite"), make("ours"), make(way_out)
    begin(first)
    copy(first, ours)
    resume(ours)
    assert copy(ours, last).problems == ()
    resume(last)
    assert seen(last) == never_moved
    assert list(ours.log.verify()) == []


# --- by hand ----------------------------------------------------------------------------------------------------------


def checkpoint(name: str, values: dict[str, Any], versions: dict[str, Any] | None = None, **more: Any) -> Any:
    return {
        "v": 4,
        "id": name,
        "ts": "2026-11-26T12:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1) if versions is None else versions,
        "versions_seen": {},
        **more,
    }


def named(name: str | None = None, ns: str = "", thread: Any = "t") -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, **({"checkpoint_id": name} if name else {})}}


def put(saver: Any, made: Any, parent: str | None = None, ns: str = "", thread: Any = "t", **metadata: Any) -> None:
    saver.put(named(parent, ns, thread), made, metadata, made["channel_versions"])


def hazards(saver: Any) -> None:
    """Ids that do not grow, parents that are missing or each other's, namespaces, odd metadata, numbers as versions."""
    put(saver, checkpoint("5", {"a": [1, "x", {"k": 1.5}], "b": 1}), source="input", step=-1)
    put(saver, checkpoint("3", {"a": [1], "b": 1}, {"a": 2, "b": 1, "gone": 2}), "5", step=0)  # sorts below its parent
    put(saver, checkpoint("4", {"b": True}, {"b": 3}), "3")
    put(
        saver,
        checkpoint("9", {"a": None}, {"a": 4}, pending=[1], updated_channels=["a"]),
        "nobody",
        odd={"z": [1, None]},
    )
    put(saver, checkpoint("7", {"c": [float("inf")]}), "8", round=1)
    put(saver, checkpoint("8", {"c": b"\0"}, {"c": 2}), "7", round=2)  # a cycle
    put(saver, checkpoint("6", {"a": "fork"}, {"a": 9}), "5", source="fork")
    put(saver, checkpoint("1", {"x": 1}), None, "sub:1|deep")
    put(saver, checkpoint("2", {"x": 2}, {"x": 2}), "1", "sub:1|deep", step="odd")
    put(saver, checkpoint("5", {"a": "another thread"}), thread="t2")
    saver.put_writes(named("5"), [("b", 1), ("b", 2), (INTERRUPT, "?")], "task-z", "~a")
    saver.put_writes(named("5"), [(RESUME, "n"), ("c", None)], "task-a", "~b")
    saver.put_writes(named("5"), [(ERROR, "bad"), ("source", "node")], "task-b", "~a")
    saver.put_writes(named("5"), [("late", 1)], "00000000-0000-0000-0000-000000000000")
    saver.put_writes(named("2", "sub:1|deep"), [("x", {"deep": [None]})], "task-1", "~x")


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_what_is_odd_moves_as_it_is(make, source, target):
    first, second = make(source), make(target)
    hazards(first)
    before = all_of(first)
    done = copy(first, second)
    assert done.problems == ()
    assert (done.threads, done.checkpoints, done.writes) == (2, 10, 9)
    assert_same(first, second)
    after = all_of(second)
    for key, item in before.items():
        assert (after[key].parent_config or {}).get("configurable") == (item.parent_config or {}).get("configurable")
        assert after[key].pending_writes == item.pending_writes
        assert after[key].metadata == item.metadata
    assert type(after["t", "", "4"].checkpoint["channel_values"]["b"]) is bool
    again = copy(first, second)
    assert (again.checkpoints, again.writes, again.skipped, again.problems) == (0, 0, 10, ())


def test_only_the_threads_that_are_named_move(make):
    first, second = make("sqlite"), make("ours")
    hazards(first)
    with pytest.raises(NotFoundError, match="no thread 'nobody'"):
        copy(first, second, threads=["t2", "nobody"])
    with pytest.raises(InvalidInputError, match=r"\['t2'\]"):
        copy(first, second, threads="t2")
    assert list(second.list(None)) == []
    assert copy(first, second, threads=["t2"]).checkpoints == 1
    assert {key[0] for key in all_of(second)} == {"t2"}


def test_progress_is_told(make):
    first, second = make("sqlite"), make("ours")
    hazards(first)
    told: list[tuple[str, int, int]] = []
    copy(first, second, progress=lambda *each: told.append(each))
    assert told == [
        *[("found", n + 1, 0) for n in range(10)],
        *[("copied", n + 1, 10) for n in range(10)],
        *[("verified", n + 1, 10) for n in range(10)],
    ]


def test_a_snapshot_stays_where_a_fork_rests_on_its_version(make):
    """Savers that keep values by version would lose it by an empty value of the same version."""
    from langgraph.checkpoint.serde.types import _DeltaSnapshot

    first = make("sqlite")
    put(first, checkpoint("1", {"told": _DeltaSnapshot(["a"])}, {"told": "1.x"}))
    put(first, checkpoint("2", {}, {"told": "1.x"}), "1")
    put(first, checkpoint("3", {"n": 1}, {"told": "1.x", "n": "1.y"}), "2")
    put(first, checkpoint("4", {}, {"told": "1.x"}), "2")
    put(first, checkpoint("5", {}, {"told": "1.x"}), "1")
    for kind in KINDS:
        second = make(kind)
        assert copy(first, second).problems == ()
        assert second.get_tuple(named("1")).checkpoint["channel_values"]["told"] == _DeltaSnapshot(["a"])


class Foreign(BaseCheckpointSaver[str]):
    """Somebody else's saver: tells neither paths nor slots, and gives its writes out in the order they came."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InMemorySaver()
        self.came: dict[str, list[Any]] = {}
        self.puts = 0
        self.fails_at = 0

    def _count(self) -> None:
        self.puts += 1
        if self.puts == self.fails_at:
            raise OSError("cut off")

    def put(self, *args: Any) -> Any:
        self._count()
        return self.inner.put(*args)

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self._count()
        self.inner.put_writes(config, writes, task_id, task_path)
        self.came.setdefault(config["configurable"]["checkpoint_id"], []).extend((task_id, *each) for each in writes)

    def get_tuple(self, config: Any) -> Any:
        item = self.inner.get_tuple(config)
        return item and self._arrived(item)

    def list(self, config: Any, **options: Any) -> Any:
        return map(self._arrived, self.inner.list(config, **options))

    def _arrived(self, item: CheckpointTuple) -> CheckpointTuple:
        return item._replace(pending_writes=list(self.came.get(item.config["configurable"]["checkpoint_id"], [])))


@pytest.mark.parametrize("target", KINDS)
def test_writes_of_a_saver_that_tells_no_paths_keep_their_order(make, target):
    first, second = Foreign(), make(target)
    put(first, checkpoint("1", {}))
    first.put_writes(named("1"), [("n", 1), ("n", 2)], "task-z", "~b")
    first.put_writes(named("1"), [("n", 3), ("n", 3.0)], "task-a", "~a")
    first.put_writes(named("1"), [("n", 4), (INTERRUPT, "?"), (ERROR, "e")], "task-m")
    first.put_writes(named("1"), [(RESUME, "r")], "task-z", "~b")
    copied = copy(first, second)
    assert copied.problems == ()
    came = [(task, value) for task, _, value in second.get_tuple(named("1")).pending_writes]
    assert came[:4] == [("task-z", 1), ("task-z", 2), ("task-a", 3), ("task-a", 3.0)]
    assert came[4:] == [("task-m", 4), ("task-m", "?"), ("task-m", "e"), ("task-z", "r")]
    second.put_writes(named("1"), [("n", 5)], "task-b", "~__pregel_pull, b")
    assert second.get_tuple(named("1")).pending_writes[-1] == ("task-b", "n", 5)


# --- cut off, in the way, not the same --------------------------------------------------------------------------------


def test_a_copy_that_was_cut_off_anywhere_is_run_again(make):
    first, whole = make("sqlite"), Foreign()
    hazards(first)
    copy(first, whole)
    assert whole.puts > 14
    for n in range(1, whole.puts + 1):
        second = InMemorySaver()
        cut = Foreign()
        cut.inner, cut.fails_at = second, n
        with pytest.raises(StorageError, match="cut off"):
            copy(first, cut)
        there = len(all_of(second))
        done = copy(first, second)
        assert (done.problems, done.checkpoints + done.skipped) == ((), 10)
        assert there - 1 <= done.skipped <= there
        assert_same(first, second)


def test_ours_is_whole_after_a_copy_that_was_cut_off(make, monkeypatch):
    first, second = make("sqlite"), make("ours")
    begin(first)
    count = len(all_of(first))
    kept, calls = EventLogSaver.put_writes, 0

    def failing(self: Any, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in {2, 5, 11, 20}:
            raise OSError("cut off")
        kept(self, *args)

    monkeypatch.setattr(EventLogSaver, "put_writes", failing)
    tries = 0
    while True:
        tries += 1
        try:
            done = copy(first, second)
        except StorageError:
            continue
        break
    assert tries >= 4
    assert done.problems == ()
    assert done.skipped + done.checkpoints == count
    assert_same(first, second)
    assert list(second.log.verify()) == []


def test_another_checkpoint_of_the_same_id_is_not_overwritten(make):
    first, second = make("sqlite"), make("ours")
    hazards(first)
    put(second, checkpoint("5", {"a": [1, "y", {"k": 1.5}], "b": 1}), source="input", step=-1)
    done = copy(first, second)
    problem = next(each for each in done.problems if each.thread == "t")
    assert (problem.namespace, problem.id, problem.path) == ("", "5", "channel_values.a[1]")
    assert "the target has another checkpoint of this id" in problem.why
    assert second.get_tuple(named("5")).checkpoint["channel_values"]["a"][1] == "y"


def test_what_comes_to_the_source_later_comes_with_the_next_copy(make):
    first, second = make("sqlite"), make("ours")
    begin(first)
    copy(first, second)
    resume(first)
    assert copy(first, second).problems == ()
    assert_same(first, second)


def test_a_target_that_went_on_keeps_what_is_its_own(make):
    first, second = make("sqlite"), make("ours")
    begin(first)
    copy(first, second)
    resume(second)
    before = all_of(second)
    done = copy(first, second)
    assert {each.path.partition("[")[0] for each in done.problems} == {"pending_writes"}
    assert all(difference(item, before[key]) is None for key, item in all_of(second).items())


def test_a_thread_that_was_deleted_moves_in_again_however_its_source_was_cut(make):
    first, second = make("memory"), make("ours")
    put(first, checkpoint("1", {"a": 1}))
    put(first, checkpoint("2", {"a": 2}, {"a": 2}), "1")
    put(first, checkpoint("3", {"a": 3}, {"a": 3}), "2")
    copy(first, second)
    second.delete_thread("t")
    del first.storage["t"][""]["1"]  # as a job does that deletes what is old
    assert copy(first, second).problems == ()
    assert_same(first, second)
    with pytest.raises(NotFoundError, match="was deleted"):  # who writes late is refused as before
        put(second, checkpoint("4", {"a": 4}, {"a": 4}), "1")


def test_paths_of_tasks_move_out_of_an_encrypted_thread(make):
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    first, second = EventLogSaver(make("ours").log, serde=serde), make("ours")
    put(first, checkpoint("1", {"a": 1}))
    first.put_writes(named("1"), [("a", 2)], "task", "~__pregel_pull, node")
    copy(first, second)
    assert [write.path for write in second.run("t").task_writes("1")] == ["~__pregel_pull, node"]


def test_forks_move_into_an_exclusive_saver(make):
    first, second = make("sqlite"), EventLogSaver(make("ours").log, exclusive=True)
    put(first, checkpoint("1", {"a": 1}))
    put(first, checkpoint("2", {"a": 2}, {"a": 2}), "1")
    put(first, checkpoint("3", {"a": 3}, {"a": 3}), "1")
    assert copy(first, second).problems == ()
    assert_same(first, second)


class Lossy(InMemorySaver):
    """Turns True into 1, as a careless saver may."""

    def get_tuple(self, config: Any) -> Any:
        item = super().get_tuple(config)
        if item is not None:
            values = item.checkpoint["channel_values"]
            item.checkpoint["channel_values"] = {name: 1 if value is True else value for name, value in values.items()}
        return item


def test_verify_tells_where_the_first_difference_is(make):
    first = make("sqlite")
    hazards(first)
    (problem,) = copy(first, Lossy()).problems
    assert (problem.id, problem.path, problem.why) == ("4", "channel_values.b", "bool and int")
    assert str(problem) == "thread 't', checkpoint 4: channel_values.b: bool and int"
    assert copy(first, Lossy(), verify=False).problems == ()


def test_a_value_that_a_saver_by_version_cannot_hold_is_a_problem(make):
    first = make("sqlite")
    put(first, checkpoint("1", {"a": ["x"]}))
    put(first, checkpoint("2", {"a": ["y"]}), "1")
    assert copy(first, make("ours")).problems == ()
    for kind in ("memory", "postgres"):
        assert [each.path for each in copy(first, make(kind)).problems] == ["channel_values.a[0]"]


# --- types ------------------------------------------------------------------------------------------------------------


@dataclass
class Own:
    n: int


@pytest.mark.filterwarnings("ignore")
def test_a_type_the_target_refuses_is_told_before_anything_is_written(make, tmp_path):
    first, second = make("sqlite"), make("ours")
    put(first, checkpoint("1", {"a": [1]}))
    put(first, checkpoint("2", {"a": [Own(1)]}, {"a": 2}), "1")
    put(first, checkpoint("3", {"a": [2]}, {"a": 3}), "2")
    put(first, checkpoint("1", {}), ns="other")
    first.put_writes(named("1", "other"), [("a", Own(2))], "task")
    done = copy(first, second)
    assert [(each.namespace, each.id) for each in done.problems] == [("", "2"), ("other", "1")]
    line = f"saver.with_allowlist([({Own.__module__!r}, 'Own')])"
    assert all(line in each.why for each in done.problems)
    assert set(all_of(second)) == {("t", "", "1")}
    allowed = EventLogSaver(second.log, serde=JsonPlusSerializer(allowed_msgpack_modules=[(Own.__module__, "Own")]))
    done = copy(first, allowed)
    assert (done.problems, done.checkpoints, done.skipped) == ((), 3, 1)
    assert_same(first, allowed)
    with pytest.raises(UnknownTypeError, match="Own"):
        copy(second, InMemorySaver())


@pytest.mark.filterwarnings("ignore")
def test_a_type_the_source_refuses_does_not_arrive_in_pieces(make):
    first, second = make("sqlite"), make("ours")
    put(first, checkpoint("1", {"a": [Own(1)]}))
    first.serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    with pytest.raises(UnknownTypeError, match="Own"):
        copy(first, second)
    assert all_of(second) == {}


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_sqlite_file_is_not_changed_by_being_read(make, tmp_path):
    location = tmp_path / "source.sqlite"
    with SqliteSaver.from_conn_string(str(location)) as saver:
        hazards(saver)
    before = location.read_bytes()
    with opened("langgraph-sqlite", str(location), serializer(), to_read=True) as source:
        assert copy(source, make("ours")).problems == ()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            put(source, checkpoint("1", {}))
    assert location.read_bytes() == before


def test_a_sqlite_file_from_before_paths_is_read(make, tmp_path):
    location = tmp_path / "source.sqlite"
    with SqliteSaver.from_conn_string(str(location)) as saver:
        hazards(saver)
        saver.conn.execute("ALTER TABLE writes DROP COLUMN task_path")
    before = location.read_bytes()
    second = make("ours")
    with opened("langgraph-sqlite", str(location), serializer(), to_read=True) as source:
        assert copy(source, second).problems == ()
        assert_same(source, second)
    assert location.read_bytes() == before


def test_postgres_is_listed_by_pages_and_only_read(make, database, monkeypatch):
    import psycopg

    from savers.langgraph import paged

    uri = database()
    with opened("langgraph-postgres", uri, serializer(), to_read=False) as saver:
        hazards(saver)
        for thread in range(7):
            put(saver, checkpoint("5", {"a": thread}), thread=f"same-{thread}")  # one id fills pages
        wanted = [item.config for item in saver.list(None)]
    monkeypatch.setattr(paged, "_PAGE", 2)
    with opened("langgraph-postgres", uri, serializer(), to_read=True) as source:
        found = [item.config for item in source.list(None)]
        order = lambda config: sorted(config["configurable"].items())
        assert sorted(found, key=order) == sorted(wanted, key=order)
        assert [each["configurable"]["checkpoint_id"] for each in found] == sorted(
            (each["configurable"]["checkpoint_id"] for each in wanted), reverse=True
        )
        assert len(list(source.list(named(), limit=3))) == 3
        assert copy(source, make("ours")).checkpoints == 17
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            put(source, checkpoint("1", {}))


def test_tasks_of_an_old_postgres_thread_move_as_it_gives_them_out(make):
    """Contract, statement 51."""
    from langgraph.types import Send

    first, second = make("postgres"), make("ours")
    put(first, checkpoint("1", {"a": 1}, v=3))
    first.put_writes(named("1"), [("__pregel_tasks", Send("node", {"x": 1}))], "task", "~a")
    put(first, checkpoint("2", {"a": 2}, {"a": 2}, v=3), "1")
    assert first.get_tuple(named("2")).checkpoint["channel_values"]["__pregel_tasks"] == [Send("node", {"x": 1})]
    assert copy(first, second).problems == ()
    assert_same(first, second)


def test_what_was_removed_in_the_target_stays_away(make):
    first, second = make("memory"), make("ours")
    for n in range(1, 6):
        put(first, checkpoint(f"{n}", {"a": n}, {"a": n}), f"{n - 1}" if n > 1 else None)
        first.put_writes(named(f"{n}"), [("a", n)], "task")
    for n in range(1, 4):
        put(first, checkpoint(f"{n}", {"a": n}, {"a": n}), None, ns="call:1", parents={"": "2"})
    copy(first, second)
    second.prune(["t"], keep_last=2)
    kept = all_of(second)
    done = copy(first, second)
    assert (done.checkpoints, done.skipped, done.removed, done.problems) == (0, 2, 6, ())
    assert all_of(second).keys() == kept.keys() == {("t", "", "4"), ("t", "", "5")}
    put(first, checkpoint("6", {"a": 6}, {"a": 6}), "5")
    put(first, checkpoint("7", {"a": 7}, {"a": 7}), "2")  # a fork of what was pruned
    done = copy(first, second)
    assert (done.checkpoints, done.removed, done.problems) == (2, 6, ())
    assert [item.checkpoint["id"] for item in second.list(named(None))] == ["7", "6", "5", "4"]
    second.delete_thread("t")  # who wants all of it again says so
    assert copy(first, second).removed == 0
    assert_same(first, second)


def test_what_was_deleted_with_its_run_in_the_target_stays_away(make):
    first, second = make("memory"), make("ours")
    for n in range(1, 5):
        put(first, checkpoint(f"{n}", {"a": n}, {"a": n}), f"{n - 1}" if n > 1 else None, run_id=f"r{n}")
    copy(first, second)
    second.delete_for_runs(["r2"])
    done = copy(first, second)
    assert (done.skipped, done.removed, done.problems) == (3, 1, ())
    assert [item.checkpoint["id"] for item in second.list(named(None))] == ["4", "3", "1"]
