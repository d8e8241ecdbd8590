"""Delta channels: what they are made of, as upstream's own saver says it; statements D1 to D10 of the contract."""

import random
from operator import add
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.channels.delta", reason="DeltaChannel, and savers that know it, came later")
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import END, START, StateGraph

from eventlog import EventLog
from savers.langgraph import EventLogSaver
from tests.counting import CountingStorage
from tests.langgraph.byhand import config, made


@pytest.fixture(params=["memory", "lmdb"])
def saver(request, tmp_path):
    location = "memory:" if request.param == "memory" else str(tmp_path / "log")
    with EventLogSaver.from_conn_string(location) as opened:
        yield opened
        assert list(opened.log.verify()) == []


class Told:
    """One thread with delta channels, told to our saver and to upstream's."""

    def __init__(self, saver, thread="t"):
        self.ours, self.theirs, self.thread = saver, InMemorySaver(), thread
        self.versions: dict[str, dict[str, Any]] = {}
        self.count = 0

    def put(self, id, under, stored=None, moved=(), **metadata):  # noqa: A002
        """A checkpoint at which `stored` channels have a value and others of `moved` a new version and none."""
        self.count += 1
        stored = stored or {}
        fresh = dict.fromkeys((*stored, *moved), f"{self.count:032}.{self.count:016}")
        versions = {**self.versions.get(under, {}), **fresh}
        self.versions[id] = versions
        checkpoint = made(id, stored, dict(versions))
        said = {"source": "loop", "step": self.count, "parents": {}, **metadata}
        for each in (self.ours, self.theirs):
            each.put(config(under, self.thread), checkpoint, said, fresh)

    def write(self, id, *writes, task="t1", path=""):  # noqa: A002
        for each in (self.ours, self.theirs):
            named = config(id, self.thread)
            named["configurable"]["checkpoint_ns"] = ""
            each.put_writes(named, list(writes), task, path)

    def history(self, id, *channels):  # noqa: A002
        named = config(id, self.thread)
        ours = self.ours.get_delta_channel_history(config=named, channels=channels)
        theirs = self.theirs.get_delta_channel_history(config=named, channels=channels)
        assert ours == theirs
        return ours


def values(history, channel="d"):
    return [value for _, _, value in history[channel]["writes"]]


@pytest.fixture
def told(saver):
    return Told(saver)


def test_d1_every_channel_is_answered_and_no_seed_means_no_key(told):
    told.put("c1", None, moved=["d"])
    told.write("c1", ("d", 1))
    told.put("c2", "c1", moved=["d"])
    assert told.history("c2") == {}
    assert told.history("c2", "d", "other") == {"d": {"writes": [("t1", "d", 1)]}, "other": {"writes": []}}


def test_d2_parents_are_followed_and_the_seeds_own_writes_count(told):
    told.put("c1", None, moved=["d"])
    told.write("c1", ("d", "too old"))
    told.put("c2", "c1", {"d": _DeltaSnapshot(["seed"])})
    told.write("c2", ("d", "at the seed"))
    told.put("c3", "c2", moved=["d"])
    told.write("c3", ("d", "on the way"))
    told.put("c4", "c2", moved=["d"])  # a fork: its id sorts behind c3
    told.write("c4", ("d", "elsewhere"))
    told.put("c5", "c3", moved=["d"])
    told.write("c5", ("d", "the target's own"))
    found = told.history("c5", "d")
    assert values(found) == ["at the seed", "on the way"]
    assert found["d"]["seed"] == _DeltaSnapshot(["seed"])
    told.put("a0", "c5", moved=["d"])  # an id below its parent's
    assert values(told.history("a0", "d"))[-1] == "the target's own"


@pytest.mark.parametrize("seed", [_DeltaSnapshot([]), [], None, 0, "", {"x": 1}])
def test_d3_channels_end_each_on_its_own_and_falsy_values_are_seeds(seed, told):
    told.put("c1", None, {"e": seed}, moved=["d"])
    told.write("c1", ("d", 1), ("e", 2))
    told.put("c2", "c1", {"d": seed}, moved=["e"])
    told.write("c2", ("d", 3), ("e", 4))
    told.put("c3", "c2", moved=["d", "e"])
    found = told.history("c3", "d", "e")
    assert (values(found), values(found, "e")) == ([3], [2, 4])
    assert (found["d"]["seed"], found["e"]["seed"]) == (seed, seed)


def test_d4_and_d5_writes_are_in_the_order_of_their_paths(told):
    told.put("c1", None, moved=["d"])
    told.write("c1", ("d", 3), ("d", 4), task="a", path="~2")
    told.write("c1", ("d", 1), task="z", path="~1")
    told.write("c1", ("d", 0), task="y")
    told.put("c2", "c1", moved=["d"])
    told.write("c2", ("d", 6), task="b", path="2")
    told.write("c2", ("d", 5), task="c", path="1")
    told.put("c3", "c2", moved=["d"])
    assert values(told.history("c3", "d")) == [0, 1, 3, 4, 5, 6]
    pending = told.ours.get_tuple(config("c1")).pending_writes
    assert [value for _, _, value in pending] == [0, 1, 3, 4]


def test_d6_and_d7_counters_and_snapshots_come_back_as_they_are(told):
    told.put(
        "c1",
        None,
        {"d": _DeltaSnapshot([1]), "in": [_DeltaSnapshot({"x": 1})]},
        counters_since_delta_snapshot={"d": (1, 2)},
    )
    found = told.ours.get_tuple(config("c1"))
    assert found.metadata["counters_since_delta_snapshot"] in ({"d": (1, 2)}, {"d": [1, 2]})
    assert found.checkpoint["channel_values"]["d"] == _DeltaSnapshot([1])
    assert type(found.checkpoint["channel_values"]["d"]) is _DeltaSnapshot
    assert type(found.checkpoint["channel_values"]["in"][0]) is _DeltaSnapshot


def test_d9_a_copy_has_the_whole_chain_and_a_deleted_run_breaks_no_others(told):
    told.put("c1", None, {"d": _DeltaSnapshot(["s"])}, run_id="r1")
    told.write("c1", ("d", 1))
    told.put("c2", "c1", moved=["d"], run_id="r1")
    told.write("c2", ("d", 2))
    told.put("c3", "c2", moved=["d"], run_id="r2")
    truth = told.history("c3", "d")
    told.ours.copy_thread("t", "copy")
    told.ours.delete_for_runs(["r1"])
    for thread in ("t", "copy"):
        found = told.ours.get_delta_channel_history(config=config("c3", thread), channels=["d"])
        assert found == truth, thread
    assert [each.config["configurable"]["checkpoint_id"] for each in told.ours.list(config())] == ["c3"]
    told.ours.delete_thread("t")
    assert told.ours.get_delta_channel_history(config=config("c3", "copy"), channels=["d"]) == truth


@pytest.mark.parametrize("times", [1, 2])
def test_d9_what_was_put_again_and_deleted_with_its_run_breaks_no_chain(times, told):
    told.put("c1", None, moved=["d"], run_id="r1")
    told.write("c1", ("d", 1))
    told.put("c2", "c1", moved=["d"], run_id="r1")
    told.write("c2", ("d", 2))
    told.put("c3", "c2", moved=["d"], run_id="r2")
    for _ in range(times):
        told.put("c2", "c1", moved=["d"], run_id="r1")
    truth = told.history("c3", "d")
    assert values(truth) == [1, 2]
    told.ours.delete_for_runs(["r1"])
    assert told.ours.get_delta_channel_history(config=config("c3"), channels=["d"]) == truth
    told.ours.prune(["t"])
    assert told.ours.get_delta_channel_history(config=config("c3"), channels=["d"]) == truth


def test_d10_a_target_that_is_not_there_has_an_empty_history(told):
    assert told.history("c9", "d") == {"d": {"writes": []}}
    told.put("c1", None, moved=["d"])
    assert told.history("c9", "d") == {"d": {"writes": []}}
    assert told.history(None, "d") == {"d": {"writes": []}}


def test_writes_that_came_before_their_checkpoint_count(told):
    told.put("c1", None, moved=["d"])
    told.write("c2", ("d", "early"))
    told.put("c2", "c1", moved=["d"])
    told.put("c3", "c2", moved=["d"])
    assert values(told.history("c3", "d")) == ["early"]


def test_a_parent_that_was_put_again_counts_as_it_is_now(told):
    told.put("c1", None, {"d": 1})
    told.write("c1", ("d", 10))
    told.put("c2", "c1", moved=["d"])
    told.write("c2", ("d", 20))
    told.put("c3", "c2", moved=["d"])
    told.put("c2", "c1", {"d": "again"})
    assert told.history("c3", "d")["d"]["seed"] == "again"
    told.put("x", "c3", moved=["d"])
    told.put("late", "not yet", moved=["d"])
    assert values(told.history("late", "d")) == []
    told.put("not yet", "x", moved=["d"])
    told.write("not yet", ("d", 30))
    assert values(told.history("late", "d")) == [20, 30]


def test_a_cycle_of_parents_ends(saver):
    told = Told(saver)
    told.put("c1", None, moved=["d"])
    told.put("c2", "c1", moved=["d"])
    told.write("c1", ("d", 1))
    saver.put(config("c2"), made("c1", {}, {"d": "2"}), {"source": "loop", "step": 9}, {"d": "2"})
    found = saver.get_delta_channel_history(config=config("c2"), channels=["d"])
    assert values(found) == [1]


def test_a_history_costs_a_fixed_number_of_reads(tmp_path):
    def calls(ancestors):
        log = EventLog.open("memory:")
        storage = CountingStorage(log._storage)
        saver = EventLogSaver(EventLog(storage))
        told = Told(saver)
        told.put("c00000", None, {"d": _DeltaSnapshot(["s"])})
        for n in range(ancestors):
            told.write(f"c{n:05}", ("d", n))
            told.put(f"c{n + 1:05}", f"c{n:05}", moved=["d"])
        fresh = EventLogSaver(EventLog(storage))
        with storage.counted() as tally:
            found = fresh.get_delta_channel_history(config=config(), channels=["d"])
        assert values(found) == list(range(ancestors))
        assert (tally.keys_read["P"], tally.keys_read["W"]) == (0, ancestors)
        return tally.gets, tally.scans, tally.ranges

    few, many, most = calls(10), calls(70), calls(400)
    assert few[0] == many[0]
    assert sum(many) <= sum(few) + 4  # the states at both ends have a manifest each, where there is one
    assert sum(most) <= sum(few) + 8


@pytest.mark.parametrize("seed", range(15))
def test_any_history_is_upstreams(seed, told):
    rng = random.Random(seed)
    ids = []
    for number in range(60):
        if ids and rng.random() < 0.5:
            channel = rng.choice("de")
            told.write(rng.choice(ids), (channel, number), task=f"t{rng.randrange(3)}", path=rng.choice(["", "~1"]))
            continue
        under = rng.choice(ids[-4:]) if ids and rng.random() < 0.9 else None
        stored = {channel: [number] for channel in "de" if rng.random() < 0.2}
        moved = [channel for channel in "de" if channel not in stored and rng.random() < 0.7]
        told.put(f"c{number:03}", under, stored, moved)
        ids.append(f"c{number:03}")
        told.history(rng.choice(ids), "d", "e")
    for each in ids:
        told.history(each, "d", "e")


def test_a_graph_with_a_delta_channel_goes_on_in_its_copy(saver):
    def extend(state, writes):
        return [*(state or []), *(item for write in writes for item in write)]

    class State(TypedDict):
        trail: Annotated[list, DeltaChannel(extend, snapshot_frequency=4)]
        n: Annotated[int, add]

    graph = StateGraph(State)
    graph.add_node("walk", lambda state: {"trail": [state["n"]], "n": 1})
    graph.add_edge(START, "walk")
    graph.add_conditional_edges("walk", lambda state: END if state["n"] % 5 == 0 else "walk")
    app = graph.compile(checkpointer=saver)
    first = {"configurable": {"thread_id": "a"}}
    second = {"configurable": {"thread_id": "b"}}
    app.invoke({"n": 1, "trail": []}, first)
    saver.copy_thread("a", "b")
    assert app.get_state(second).values == app.get_state(first).values
    app.invoke({"n": 1, "trail": ["b"]}, second)
    app.invoke({"n": 1, "trail": ["a"]}, first)
    assert "b" not in app.get_state(first).values["trail"]
    assert app.get_state(second).values["trail"][:4] == [1, 2, 3, 4]
    assert app.get_state(second).values["trail"][4] == "b"


def test_one_history_after_another_is_what_it_would_be_alone_until_something_is_written(told):
    for n in range(30):
        told.put(f"c{n:02}", f"c{n - 1:02}" if n else None, {"d": [n]} if n in (7, 20) else {}, ["d", "e"])
        told.write(f"c{n:02}", ("d", [n]), ("e", {"n": n}))
    told.put("c03", "c02", {}, ["d", "e"])  # again: what is above goes over this one
    backwards = [f"c{n:02}" for n in range(29, -1, -1)]
    for each in (*backwards, *backwards):
        found = told.history(each, "d", "e")
        for _, _, value in found["e"]["writes"]:
            value["n"] = "changed by who read it"
        found["d"].get("seed", []).append("changed as well")
        told.history(each, "e")
    for late in ("c25", "c10", "c03"):
        told.write(late, ("d", "late"), task="t2")
        for each in backwards[:3]:
            told.history(each, "d", "e")
        above = f"c{int(late[1:]) + 1:02}"
        assert "late" in values(told.history(above, "d"))
    told.put("c24", "c10", {}, ["d"])
    for each in backwards:
        told.history(each, "d", "e")


def test_all_histories_of_a_thread_cost_each_what_it_says():
    def cost(count):
        storage = CountingStorage(EventLog.open("memory:")._storage)
        told = Told(EventLogSaver(EventLog(storage)))
        for n in range(count):
            told.put(f"c{n:03}", f"c{n - 1:03}" if n else None, {}, ["d"])
            told.write(f"c{n:03}", ("d", [n]))
        with storage.counted() as tally:
            for n in range(count - 1, 0, -1):
                told.history(f"c{n:03}", "d")
        return tally.keys_read.total()

    assert cost(120) < 3 * cost(60)  # they say four times as much
