"""Copying, pruning and deleting threads: what stays, what goes, and that nobody else is harmed."""

import asyncio
import datetime as dt
import random

import pytest

pytest.importorskip("langgraph.channels.delta", reason="DeltaChannel, and savers that know it, came later")
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from eventlog import ConflictError, EventLog, InvalidInputError, NotFoundError
from eventlog.storage.memory import MemoryStorage
from savers.langgraph import EventLogSaver
from tests.behaviour.test_pruning import Interrupted
from tests.counting import CountingStorage
from tests.engines import DEEP
from tests.langgraph.byhand import config, made, told
from tests.strict import strictly_equal


@pytest.fixture(params=["memory", "lmdb"])
def saver(request, tmp_path):
    location = "memory:" if request.param == "memory" else str(tmp_path / "log")
    with EventLogSaver.from_conn_string(location) as opened:
        yield opened
        assert list(opened.log.verify()) == []


def put(saver, id, under=None, thread="t", ns="", values=None, **metadata):  # noqa: A002
    named = config(under, thread)
    named["configurable"]["checkpoint_ns"] = ns
    values = {"big": "v" * 2000 + id, "n": id} if values is None else values
    versions = dict.fromkeys(values, f"{len(id):032}.{abs(hash(id)) % 10**16:016}")
    said = {"source": "loop", "step": 1, "parents": {}, **metadata}
    saver.put(named, made(id, values, versions), said, versions)
    return id


def chain(saver, count, thread="t", ns="", **metadata):
    under = None
    for n in range(count):
        under = put(saver, f"c{n:04}", under, thread, ns, **metadata)
        named = config(under, thread)
        named["configurable"]["checkpoint_ns"] = ns
        saver.put_writes(named, [("n", under), ("big", "w" * 100)], "task")
    return under


def ids(saver, thread="t", ns=""):
    named = config(None, thread)
    named["configurable"]["checkpoint_ns"] = ns
    return [found.config["configurable"]["checkpoint_id"] for found in saver.list(named)]


def size(saver):
    return sum(len(key) + len(value) for key, value in records(saver))


def records(saver):
    storage = saver.log._storage
    return [pair for kind in range(1, 255) for pair in storage.scan([(bytes([kind]), bytes([kind + 1]))])]


def test_s48_the_latest_stays_whole_and_without_a_parent(saver):
    chain(saver, 60)
    before = told(saver.get_tuple(config()))
    one = size(saver) / 60
    (removed,) = saver.prune(["t"])
    assert ids(saver) == ["c0059"]
    assert told(saver.get_tuple(config())) == {**before, "parent": None}
    assert saver.get_tuple(config("c0030")) is None
    assert removed.removed.ids == tuple(f"c{n:04}" for n in range(58, -1, -1))
    assert removed.removed.events == 60  # the kept one is put again, without its parent
    assert size(saver) < 6 * one
    assert list(saver.log.verify()) == []
    put(saver, "c0060", "c0059")
    saver.put_writes(
        {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "c0060"}}, [("n", 1)], "u"
    )
    assert ids(saver) == ["c0060", "c0059"]
    assert saver.get_tuple(config()).parent_config["configurable"]["checkpoint_id"] == "c0059"
    saver.prune(["t"])
    saver.prune(["t"])
    assert ids(saver) == ["c0060"]
    assert [value for _, _, value in saver.get_tuple(config()).pending_writes] == [1]


def test_the_run_of_a_pruned_thread_begins_where_it_was_pruned(saver):
    chain(saver, 30)
    first = saver.run("t").event("c0003")
    saver.prune(["t"])
    run = saver.run("t")
    events = list(run.events())
    assert [event.given_id for event in events] == ["c0029"]
    assert [event.given_id for event, _ in run.replay()] == ["c0029"]
    assert next(run.replay())[1]["n"] == "c0029"
    assert run.at(events[0])["n"] == "c0029"
    with pytest.raises(NotFoundError):
        run.at(first)
    with pytest.raises(NotFoundError):
        run.event("c0003")
    run.drop_snapshots()
    assert saver.get_tuple(config()).checkpoint["channel_values"]["n"] == "c0029"
    chain_end = "c0029"
    for n in range(30, 120):
        chain_end = put(saver, f"c{n:04}", chain_end)
    run = saver.run("t")
    run.drop_snapshots()
    assert run.at("c0100")["n"] == "c0100"
    assert list(run.events(stop="c0100"))[-1].given_id == "c0100"


def test_a_writer_that_saw_the_thread_before_goes_on(saver):
    last = chain(saver, 40)
    other = EventLogSaver(saver.log)
    put(other, "x", last)
    other.get_tuple(config("x"))
    saver.prune(["t"])
    put(other, "y", "x")
    for n in range(60):
        put(other, f"y{n:03}", f"y{n - 1:03}" if n else "y")
    assert other.get_tuple(config()).checkpoint["channel_values"]["n"] == "y059"
    assert len(ids(saver)) == 62
    for found in saver.list(config()):
        assert found.checkpoint["channel_values"]["n"] == found.checkpoint["id"]


def test_keeping_by_count_and_by_age(saver):
    chain(saver, 10)
    saver.prune(["t"], keep_last=3)
    assert ids(saver) == ["c0009", "c0008", "c0007"]
    parents = [found.parent_config for found in saver.list(config())]
    assert [each and each["configurable"]["checkpoint_id"] for each in parents] == ["c0008", "c0007", None]
    assert [found.checkpoint["channel_values"]["n"] for found in saver.list(config())] == ["c0009", "c0008", "c0007"]
    saver.prune(["t"], max_age=dt.timedelta(hours=1))
    assert len(ids(saver)) == 3
    saver.prune(["t"], max_age=dt.timedelta(hours=1), keep_last=2)
    assert len(ids(saver)) == 2
    saver.prune(["t"], max_age=dt.timedelta(0))
    assert ids(saver) == ["c0009"]
    put(saver, "c0010", "c0009")
    assert ids(saver) == ["c0010", "c0009"]


def test_a_dry_run_says_what_would_go_and_changes_nothing(saver):
    chain(saver, 12)
    before = records(saver)
    (would,) = saver.prune(["t"], dry_run=True)
    (gone,) = saver.prune(["t"], strategy="delete", dry_run=True)
    assert records(saver) == before
    assert len(gone.removed.ids) == 12
    assert gone.is_deleted
    (did,) = saver.prune(["t"])
    assert would.removed.ids == did.removed.ids
    assert did.removed.bytes >= would.removed.bytes > 11 * 2000
    assert (would.removed.events, would.is_deleted) == (11, False)


def test_s48_what_prune_does_not_take(saver):
    with pytest.raises(TypeError):
        saver.prune("t")
    with pytest.raises(TypeError):
        saver.delete_for_runs("r")
    with pytest.raises(ValueError, match="strategy"):
        saver.prune(["t"], strategy="all")
    for wrong in ({"keep_last": 0}, {"max_age": 5}, {"strategy": "delete", "keep_last": 1}):
        with pytest.raises(InvalidInputError):
            saver.prune(["t"], **wrong)
    assert saver.prune([]) == saver.prune(["t"]) == []
    saver.delete_for_runs([])
    saver.delete_for_runs(["none"])


def test_s48_one_checkpoint_stays_per_namespace_but_of_finished_calls_none(saver):
    chain(saver, 4)
    chain(saver, 3, ns="sub")
    chain(saver, 3, ns="call:1", parents={"": "c0001"})
    chain(saver, 3, ns="call:2", parents={"": "c0003"})
    chain(saver, 3, ns="call:3", parents={"": "not saved yet"})
    chain(saver, 2, thread="other")
    saver.prune(["t", "missing"])
    left = {ns: ids(saver, ns=ns) for ns in ("", "sub", "call:1", "call:2", "call:3")}
    assert left == {"": ["c0003"], "sub": ["c0002"], "call:1": [], "call:2": ["c0002"], "call:3": ["c0002"]}
    assert len(ids(saver, "other")) == 2
    saver.prune(["t"], strategy="delete")
    assert list(saver.list(config())) == []
    assert len(ids(saver, "other")) == 2


def test_forks_that_are_not_kept_go(saver):
    chain(saver, 10)
    under = "c0004"
    for n in range(10):
        under = put(saver, f"d{n:04}", under)
    one = size(saver) / 20
    saver.prune(["t"])
    assert ids(saver) == ["d0009"]
    assert size(saver) < 6 * one
    assert saver.get_tuple(config()).checkpoint["channel_values"]["n"] == "d0009"
    put(saver, "e0", None)
    put(saver, "e1", "d0009")
    assert ids(saver) == ["e1", "e0", "d0009"]
    assert saver.get_tuple(config("e0")).checkpoint["channel_values"]["n"] == "e0"


def test_d8_pruning_keeps_what_delta_channels_are_made_of(saver):
    def step(n, under, stored=None):
        values = {"big": "v" * 2000 + str(n), **(stored or {})}
        versions = dict.fromkeys([*values, "d"], f"{n:032}.{n:016}")
        said = {"source": "loop", "step": n, "parents": {}, "counters_since_delta_snapshot": {"d": (1, 1)}}
        named = config(under)
        named["configurable"]["checkpoint_ns"] = ""
        saver.put(named, made(f"c{n:04}", values, versions), said, versions)
        saver.put_writes(saver.get_tuple(config(f"c{n:04}")).config, [("d", f"w{n}" * 50)], "t")

    for n in range(50):
        step(n, f"c{n - 1:04}" if n else None, {"d": _DeltaSnapshot([n])} if n == 40 else None)
    truth = saver.get_delta_channel_history(config=config(), channels=["d"])
    assert [value[:3] for _, _, value in truth["d"]["writes"]] == [f"w{n}" for n in range(40, 49)]
    saver.prune(["t"])
    assert ids(saver) == ["c0049"]
    assert saver.get_delta_channel_history(config=config(), channels=["d"]) == truth
    assert len(list(saver.run("t").events())) == 11
    step(50, "c0049")
    assert len(saver.get_delta_channel_history(config=config(), channels=["d"])["d"]["writes"]) == 10
    saver.copy_thread("t", "copy")
    saver.delete_thread("t")
    found = saver.get_delta_channel_history(config=config(None, "copy"), channels=["d"])
    assert len(found["d"]["writes"]) == 10
    assert found["d"]["seed"] == _DeltaSnapshot([40])


def test_d8_what_is_kept_shares_one_walk_back_to_what_delta_channels_are_made_of():
    read = []
    for count in (40, 160):
        storage = CountingStorage(MemoryStorage())
        with EventLogSaver(EventLog(storage)) as saver:
            for n in range(count):
                versions = dict.fromkeys(["n", "d"], f"{n:032}.{n:016}")
                said = {"source": "loop", "step": n, "parents": {}, "counters_since_delta_snapshot": {"d": (1, 1)}}
                named = config(f"c{n - 1:04}" if n else None)
                named["configurable"]["checkpoint_ns"] = ""
                saver.put(named, made(f"c{n:04}", {"n": n}, versions), said, versions)
                saver.put_writes(saver.get_tuple(config(f"c{n:04}")).config, [("d", n)], "t")
            truth = saver.get_delta_channel_history(config=config(), channels=["d"])
            with storage.counted() as tally:
                saver.prune(["t"], keep_last=count // 2)
            assert len(ids(saver)) == count // 2
            assert saver.get_delta_channel_history(config=config(), channels=["d"]) == truth
        read.append(tally.keys_read.total() / count)
    assert read[1] < 1.5 * read[0], read


def test_s49_a_copy_is_not_harmed_by_pruning_or_deleting_its_source(saver):
    last = chain(saver, 20)
    chain(saver, 2, ns="sub")
    saver.copy_thread("t", "copy")
    saver.copy_thread("copy", "copy of copy")
    truth = [told(found) for found in saver.list(config())]
    saver.prune(["t"])
    assert ids(saver) == ["c0019"]
    put(saver, "x", last, "copy")
    for thread in ("copy of copy", "copy"):
        found = [told(each) for each in saver.list(config(None, thread))]
        assert [each for each in found if each["id"] != "x"] == truth
    saver.prune(["copy"])
    assert (ids(saver, "copy"), ids(saver, "copy", "sub")) == (["x"], ["c0001"])
    saver.delete_thread("t")
    saver.delete_thread("copy")
    assert [told(each) for each in saver.list(config(None, "copy of copy"))] == truth
    saver.delete_thread("copy of copy")
    assert {key[:1] for key, _ in records(saver)} <= {b"N", b"S"}


def test_s49_copying_a_thread_writes_the_same_bytes_for_every_history():
    def cost(count):
        storage = CountingStorage(EventLog.open("memory:")._storage)
        saver = EventLogSaver(EventLog(storage))
        chain(saver, count)
        with storage.counted() as tally:
            saver.copy_thread("t", "copy")
        return tally.written

    assert cost(10) < 500
    assert abs(cost(300) - cost(10)) <= 8


def test_s49_what_cannot_be_copied_and_what_is_nothing_to_copy(saver):
    saver.copy_thread("none", "copy")
    assert list(saver.list(config(None, "copy"))) == []
    chain(saver, 2)
    for target in ("t", "other"):
        chain(saver, 1, thread="other")
        with pytest.raises(ConflictError):
            saver.copy_thread("t", target)
    saver.copy_thread(*("t", 7))
    assert ids(saver, "7") == ["c0001", "c0000"]


def test_s22_runs_are_deleted_from_all_threads_and_others_read_the_same(saver):
    under = None
    for n in range(12):
        under = put(saver, f"c{n:04}", under, run_id=f"r{n // 4}")
        put(saver, f"c{n:04}", None, ns="sub", run_id=f"r{n // 4}")
    put(saver, "x", None, "other", run_id="r1")
    saver.put_writes(
        {"configurable": {"thread_id": "other", "checkpoint_ns": "", "checkpoint_id": "x"}}, [("n", 1)], "t"
    )
    saver.delete_for_runs(["r1", "none"])
    left = [f"c{n:04}" for n in (11, 10, 9, 8, 3, 2, 1, 0)]
    assert (ids(saver), ids(saver, ns="sub"), ids(saver, "other")) == (left, left, [])
    assert all(found.checkpoint["channel_values"]["n"] == found.checkpoint["id"] for found in saver.list(config()))
    put(saver, "x", None, "other")
    assert saver.get_tuple(config("x", "other")).pending_writes == []
    put(saver, "c0012", "c0005")  # a parent that is gone
    assert saver.get_tuple(config()).checkpoint["channel_values"]["n"] == "c0012"


def test_async_twins_do_the_same(saver):
    async def all_of_it():
        await saver.acopy_thread("t", "copy")
        await saver.adelete_for_runs(["r"])
        await saver.aprune(["copy"], keep_last=2)
        return await saver.aget_delta_channel_history(config=config(), channels=["n"])

    chain(saver, 5)
    assert asyncio.run(all_of_it())["n"]["writes"]
    assert ids(saver, "copy") == ["c0004", "c0003"]


@pytest.mark.parametrize("seed", range(6 * DEEP))
def test_whatever_is_done_to_threads_they_say_what_upstreams_says(seed, saver):
    """Upstream's saver neither copies nor prunes: each of our threads has one of upstream's for itself."""
    rng = random.Random(seed)
    theirs = {"a": InMemorySaver()}
    kept = {"a": {}}  # per thread its checkpoints, by id the parent that is expected

    def check(thread):
        for found in [*saver.list(config(None, thread))]:
            checkpoint_id = found.checkpoint["id"]
            there = told(theirs[thread].get_tuple(config(checkpoint_id, "t")))
            there["parent"] = kept[thread][checkpoint_id]
            assert strictly_equal(told(found), there), (thread, checkpoint_id)
        assert ids(saver, thread) == sorted(kept[thread], reverse=True), thread

    for calls in range(1, 91):
        thread = rng.choice(sorted(theirs))
        mine = sorted(kept[thread])
        chance = rng.random()
        if chance < 0.06 and mine and len(theirs) < 5:
            copy = f"copy{calls}"
            saver.copy_thread(thread, copy)
            theirs[copy] = InMemorySaver()
            theirs[copy].storage = _deep(theirs[thread].storage)
            theirs[copy].writes = _deep(theirs[thread].writes)
            theirs[copy].blobs = dict(theirs[thread].blobs)
            kept[copy] = dict(kept[thread])
        elif chance < 0.10 and len(theirs) > 1:
            saver.delete_thread(thread)
            del theirs[thread], kept[thread]
        elif chance < 0.16 and mine:
            count = rng.randrange(1, 4)
            saver.prune([thread], keep_last=count)
            stay = mine[-count:]
            kept[thread] = {each: parent if (parent := kept[thread][each]) in stay else None for each in stay}
        elif chance < 0.6 or not mine:
            under = rng.choice(mine[-3:]) if mine and rng.random() < 0.95 else None
            checkpoint_id = f"c{calls:04}"
            values = {"n": calls, "l": list(range(rng.randrange(300))), "s": "x" * rng.randrange(1500)}
            versions = dict.fromkeys(values, f"{calls:032}.{calls:016}")
            for each, name in ((saver, thread), (theirs[thread], "t")):
                named = config(under, name)
                named["configurable"]["checkpoint_ns"] = ""
                said = {"source": "loop", "step": calls, "parents": {}}
                each.put(named, made(checkpoint_id, values, versions), said, versions)
            kept[thread][checkpoint_id] = under
        else:
            where = rng.choice(mine)
            writes = [(rng.choice(["n", "l", "__interrupt__"]), "v" * rng.randrange(200) + str(calls))]
            task = f"t{rng.randrange(3)}"
            for each, name in ((saver, thread), (theirs[thread], "t")):
                named = config(where, name)
                named["configurable"]["checkpoint_ns"] = ""
                each.put_writes(named, writes, task)
        for each in theirs:
            check(each)
    assert list(saver.log.verify()) == []


def _deep(nested):
    copied = type(nested)(nested.default_factory)
    for key, value in nested.items():
        copied[key] = _deep(value) if hasattr(value, "default_factory") else dict(value)
    return copied


def test_who_read_a_thread_before_it_was_pruned_reads_what_was_put_since(saver):
    chain(saver, 3)
    other = EventLogSaver(saver.log)
    assert other.get_tuple(config("c0001")) is not None
    saver.prune(["t"])
    put(saver, "x", "c0002")
    put(saver, "y", "x")
    assert [other.get_tuple(config(each)).checkpoint["id"] for each in ("x", "c0002", "y")] == ["x", "c0002", "y"]


@pytest.mark.parametrize("stored", [{"d": _DeltaSnapshot(["again"])}, {}])
@pytest.mark.parametrize("again", [1, 3])
def test_d8_pruning_keeps_what_stands_at_a_checkpoint_that_was_put_again(again, stored, saver):
    def step(id, under, stored=None):  # noqa: A002
        values = {"n": id, **(stored or {})}
        versions = dict.fromkeys([*values, "d"], f"{len(steps):032}.{len(steps):016}")
        steps.append(id)
        said = {"source": "loop", "step": len(steps), "parents": {}, "counters_since_delta_snapshot": {"d": (1, 1)}}
        named = config(under)
        named["configurable"]["checkpoint_ns"] = ""
        saver.put(named, made(id, values, versions), said, versions)

    steps = []
    for n in range(6):
        step(f"c{n}", f"c{n - 1}" if n else None)
        saver.put_writes(saver.get_tuple(config(f"c{n}")).config, [("d", f"w{n}")], "t")
    step(f"c{again}", f"c{again - 1}", stored)
    truth = saver.get_delta_channel_history(config=config("c5"), channels=["d"])
    since = again if stored else 0
    assert [value for _, _, value in truth["d"]["writes"]] == [f"w{n}" for n in range(since, 5)]
    assert truth["d"].get("seed") == stored.get("d")
    for _ in range(2):
        saver.prune(["t"])
        assert saver.get_delta_channel_history(config=config("c5"), channels=["d"]) == truth


def delta_step(saver, id, under, written=True, counted=True, stored=None, **metadata):  # noqa: A002
    """A checkpoint with a delta channel, and what a task wrote to it then."""
    values = {"n": id, **({} if stored is None else {"d": stored})}
    versions = dict.fromkeys([*values, "d"], f"{len(ids(saver)):032}.{abs(hash(id)) % 10**16:016}")
    said = {"source": "loop", "step": 1, "parents": {}, **metadata}
    if counted:
        said["counters_since_delta_snapshot"] = {"d": (1, 1)}
    named = config(under)
    named["configurable"]["checkpoint_ns"] = ""
    saver.put(named, made(id, values, versions), said, versions)
    if written:
        write(saver, id)


def write(saver, id, value=None):  # noqa: A002
    named = config(id)
    named["configurable"]["checkpoint_ns"] = ""
    saver.put_writes(named, [("d", value or f"w{id}")], "t")


def history(saver, id=None):  # noqa: A002
    return saver.get_delta_channel_history(config=config(id), channels=["d"])["d"]


def test_d9_what_tasks_wrote_at_a_parent_that_came_after_its_child_outlives_it(saver):
    delta_step(saver, "c2", "c1")
    delta_step(saver, "c1", "c0", run_id="r")
    delta_step(saver, "c0", None, run_id="s")
    truth = history(saver, "c2")
    assert [value for _, _, value in truth["writes"]] == ["wc0", "wc1"]
    saver.delete_for_runs(["r"])
    saver.delete_for_runs(["s"])
    assert ids(saver) == ["c2"]
    assert history(saver, "c2") == truth


def test_d9_a_checkpoint_below_one_that_was_put_again_and_deleted_keeps_what_tasks_wrote(saver):
    delta_step(saver, "b", None, run_id="r")
    delta_step(saver, "c", "b")
    delta_step(saver, "a", None, run_id="s")
    delta_step(saver, "b", "a", written=False, run_id="r")  # c stands on what b was before
    truth = history(saver, "c")
    assert [value for _, _, value in truth["writes"]] == ["wa", "wb"]
    saver.delete_for_runs(["r"])
    saver.delete_for_runs(["s"])
    assert history(saver, "c") == truth
    for _ in range(2):
        saver.prune(["t"])
        assert history(saver, "c") == truth


def test_d8_pruning_keeps_what_stands_between_what_is_needed_and_was_deleted(saver):
    delta_step(saver, "x", "c3")
    for n in range(4):
        delta_step(saver, f"c{n}", f"c{n - 1}" if n else None, run_id=f"r{n}")
    truth = history(saver, "x")
    assert len(truth["writes"]) == 4
    saver.delete_for_runs(["r3"])
    saver.prune(["t"])
    assert history(saver, "x") == truth


def test_d8_pruning_keeps_the_snapshot_of_a_delta_channel_that_nobody_counted_or_wrote(saver):
    delta_step(saver, "c0", None, written=False, counted=False, stored=_DeltaSnapshot(["seed"]))
    for n in range(1, 4):
        delta_step(saver, f"c{n}", f"c{n - 1}", written=False, counted=False)
    truth = history(saver, "c3")
    assert truth == {"writes": [], "seed": _DeltaSnapshot(["seed"])}
    saver.prune(["t"])
    assert history(saver, "c3") == truth


def test_writes_under_a_pruned_checkpoint_are_seen_by_nobody_and_go_with_the_next_pruning(saver):
    chain(saver, 6)
    saver.prune(["t"])
    before = records(saver)
    write(saver, "c0002")
    write(saver, "c0002x")
    assert saver.get_tuple(config("c0002")) is None
    assert ids(saver) == ["c0005"]
    write(saver, "c0009")  # comes before its checkpoint
    assert len(records(saver)) == len(before) + 3
    (would,) = saver.prune(["t"], dry_run=True)
    (did,) = saver.prune(["t"])
    assert (would.removed.keys, did.removed.keys) == (2, 2)
    put(saver, "c0009", "c0005")
    assert saver.get_tuple(config("c0009")).pending_writes == [("t", "d", "wc0009")]
    put(saver, "c0002", None)
    assert saver.get_tuple(config("c0002")).pending_writes == []


@pytest.mark.parametrize("prunes", [False, True])
def test_what_is_put_while_a_thread_is_pruned_stays(prunes):
    for stop in range(60):
        storage = EventLog.open("memory:")._storage
        between = Interrupted(storage)
        other, done = EventLogSaver(EventLog(storage)), []
        chain(other, 5)

        def act(other=other, done=done):
            put(other, "new", "c0004")
            put(other, "newer", "new")
            done.extend(other.prune(["t"]) if prunes else [None])

        between.left, between.act = stop, act
        EventLogSaver(EventLog(between)).prune(["t"], keep_last=2)
        if not done:
            assert stop > 5
            return
        assert ids(other)[0] == "newer"
        assert prunes or "new" in ids(other)
        assert other.get_tuple(config()).checkpoint["channel_values"]["n"] == "newer"
        assert list(other.log.verify()) == []
