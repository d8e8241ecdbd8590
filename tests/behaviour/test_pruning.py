"""Pruning a run: what is kept stays what it was, the rest is gone, and a crash in between costs nothing."""

import random
from contextlib import suppress

import pytest

from eventlog import ConflictError, EventLog, Extend, InvalidInputError, Merge, NotFoundError, TaskWrite
from eventlog.errors import StorageError
from eventlog.layout import PART, id_key
from tests.behaviour.test_copies import Failing, counted, grown, put, said
from tests.counting import CountingStorage, everything
from tests.engines import DEEP


@pytest.fixture
def log(storage):
    made = EventLog(CountingStorage(storage))
    yield made
    assert list(made.verify()) == []


def test_what_is_kept_stays_and_the_rest_is_gone(log):
    run = grown(log.run("a"), 200)
    run.append({"big": "b" * 5000}, id="big")
    grown(run, 5, begin=200)
    before = said(run)
    would = run.prune(["e00202", "e00204"], dry_run=True)
    assert said(run) == before
    with log._storage.counted() as tally:
        gone = run.prune(["e00202", "e00204"])
    assert (gone.events, gone.ids) == (203, would.ids)
    assert gone.keys == tally.keys_deleted.total()
    assert said(run) == {event_id: before[event_id] for event_id in ("e00202", "e00204")}
    assert said(log.run("a")) == said(run)
    assert run.state["big"] == "b" * 5000
    assert run.state["trail"] == list(range(205))
    assert [event.seq for event in run.events()] == [203, 204, 205]
    assert [state["n"] for _, state in run.replay()] == [202, 203, 204]
    assert [state["n"] for _, state in run.replay(start=204)] == [203, 204]
    assert run.at(204)["n"] == 203
    with pytest.raises(NotFoundError, match="pruned"):
        run.branches()[0].head and run._branches.event((0, 3))
    with pytest.raises(NotFoundError):
        run.at(3)
    kinds = {key[:1] for key in everything(log._storage)}
    assert {b"E", b"T", b"M"} <= kinds
    assert len([key for key in everything(log._storage) if key[:1] == b"E"]) == 3


@pytest.mark.parametrize("forks", [0, 20])
def test_an_old_state_costs_no_more_because_much_was_kept(log, forks):
    run = log.run("a")
    for n in range(1200):
        run.append({"n": n, "l": Extend([n])} if n else {"n": n, "l": [], "rest": "r" * 3000}, id=f"e{n:05}")
    branches = [run.fork(at=f"e{800 + n * 18:05}", name=f"fork {n}") for n in range(forks)]
    for n, branch in enumerate(branches):
        branch.append_many({"n": -n} for _ in range(30))
    kept = [f"e{n:05}" for n in range(400, 1200)] + [branch.head.id for branch in branches]
    run.prune(kept)
    for where in ["e00400", "e00401", "e00900", "e01199", *kept[800:]]:
        fresh = log.run("a")
        with log._storage.counted() as tally:
            state = fresh.at(where)
            assert state["rest"] == "r" * 3000
        assert tally.keys_read["E"] < 150, (where, tally)
        items = state["l"]
        assert items == list(range(1, len(items) + 1))
        assert where not in kept[:800] or (state["n"], len(items)) == (int(where[1:]), int(where[1:]))


def test_a_branch_whose_fork_was_pruned_begins_the_run(log):
    run = grown(log.run("a"), 10)
    fork = grown(run.fork("e00004", "side"), 15, begin=10)
    run.prune(["e00020", "e00024"])
    assert {branch.forked_from for branch in log.run("a").branches()} <= {None, *log.run("a").given_ids()}
    assert next(event.id for event in log.run("a").branch("side").events()) == "e00020"
    assert fork.state["n"] == 24
    with pytest.raises(NotFoundError, match="no step 3; its head is 19, and what came before step 15 was pruned"):
        log.run("a").branch("side").at(3)


def test_values_that_lie_before_the_new_beginning_are_kept_whole(log):
    run = log.run("a")
    run.append({"blob": "x" * 3000, "grows": ["y" * 900]})
    for i in range(30):
        run.append({"grows": Extend(["y" * 900]), "n": i}, id=f"e{i}")
    truth = {i: dict(run.at(f"e{i}")) for i in (20, 29)}
    run.prune(["e20", "e29"])
    run.drop_snapshots()
    fresh = log.run("a")
    assert {i: dict(fresh.at(f"e{i}")) for i in (20, 29)} == truth
    for i in range(30, 90):
        fresh.append({"grows": Extend(["z" * 900]), "n": i}, id=f"e{i}")
    assert dict(log.run("a").at("e20")) == truth[20]
    fresh.prune(["e60", "e89"])
    assert len(log.run("a").at("e60")["grows"]) == 62


def test_task_writes_that_name_events_that_go_say_it_themselves(log):
    run = grown(log.run("a"), 3)
    run.put_task_writes("e00002", [TaskWrite("t", 0, "x", "v" * 300)])
    run.append({"x": "v" * 300}, id="child")
    put(run, "z", "e00002", n="kept")
    run.forget(["child"])
    run.prune(["e00002", "z"])
    assert [write.value for write in run.task_writes("e00002")] == ["v" * 300]


def test_a_run_that_was_copied_only_forgets(log):
    run = grown(log.run("a"), 10)
    log.copy("a", "b")
    truth = said(log.run("b"))
    assert run.prune(["e00009"]).events == 0
    assert list(run.given_ids()) == ["e00009"]
    assert said(log.run("b")) == truth
    log.run("b").prune(["e00004"])
    assert list(log.run("b").given_ids()) == ["e00004"]
    log.delete("b")
    assert log.run("a").prune(["e00009"]).events == 9


def test_a_pruned_run_is_copied_and_each_goes_on(log):
    run = grown(log.run("a"), 40)
    run.prune(["e00037", "e00039"])
    log.copy("a", "b")
    grown(log.run("b"), 40, begin=40)
    assert log.run("b").at("e00037")["trail"] == list(range(38))
    log.delete("a")
    assert log.run("b").state["trail"] == list(range(80))


def test_what_cannot_be_pruned(log):
    run = grown(log.run("a"), 3)
    with pytest.raises(InvalidInputError):
        run.prune([])
    with pytest.raises(NotFoundError):
        run.prune(["none"])
    with pytest.raises(NotFoundError):
        log.run("new").prune(["none"])
    assert log.run("new").forget(["none"]) == []


def test_a_crash_leaves_what_is_kept_and_the_next_prune_does_the_rest(storage):
    failing = Failing(storage)
    log = EventLog(failing)
    for stop in range(14):
        name = f"r{stop}"
        run = grown(log.run(name), 6)
        put(run, "f", "e00002", n="fork", big="b" * 3000)
        truth = said(run)
        failing.left = stop
        try:
            log.run(name).prune(["f"], back_to=["e00001"])
        except StorageError:
            failing.left = None
            assert list(log.verify()) == [], stop
            left = said(log.run(name))
            assert left.items() <= truth.items()
            assert "f" in left
            log.run(name).prune(["f"], back_to=[1] if "e00001" not in left else ["e00001"])
        failing.left = None
        assert said(log.run(name)) == {"f": truth["f"]}
        assert list(log.verify()) == [], stop


@pytest.mark.parametrize("seed", range(3 * DEEP))
def test_pruning_again_and_again_changes_no_state(seed, log):
    rng = random.Random(seed)
    run, truth = log.run("a"), {}
    for number in range(120):
        ids = sorted(truth)
        if len(ids) > 3 and rng.random() < 0.06:
            keep = rng.sample(ids, rng.randrange(1, 4))
            log.run("a").prune(keep)
            truth = {each: truth[each] for each in keep}
            run = log.run("a") if rng.random() < 0.5 else run
        else:
            at = rng.choice(ids) if ids else None
            state = {
                "n": number,
                "l": list(range(rng.randrange(200))),
                f"c{rng.randrange(4)}": "x" * rng.randrange(2000),
            }
            run = log.run("a") if rng.random() < 0.3 else run
            put(run, f"i{number:03}", at, **state)
            truth[f"i{number:03}"] = state
        found = {event_id: state for event_id, (state, _) in said(log.run("a")).items()}
        assert found == truth
        assert {each: dict(run.at(each)) for each in truth} == truth
        assert log.run("a").count_events() == counted(log.run("a"))
    assert list(log.verify()) == []


@pytest.mark.parametrize("is_copied", [False, True])
def test_an_id_that_was_put_again_names_nothing_once_its_newer_event_is_pruned(is_copied, log):
    run = grown(log.run("a"), 10)
    if is_copied:
        log.copy("a", "b")
    put(run, "e00005", "e00002", n="again")
    if is_copied:
        log.delete("b")
    truth = said(run)["e00009"]
    run.prune(["e00009"], back_to=["e00003"])
    assert [event.id for event in run.events()][:3] == ["e00003", "e00004", "e00005"]
    assert list(log.verify()) == []
    assert run.forgotten("e00005") is None
    assert run.forgotten("e00004").seq == 4
    assert said(run) == {"e00009": truth}
    put(run, "e00005", "e00009", n="anew")
    assert run.at("e00005")["n"] == "anew"
    put(run, "last", "e00005", n="last")
    run.prune(["last"])
    assert [key for key in everything(log._storage) if key[:1] == b"I"] == [id_key(run._branches.run, "last")]


class Interrupted:
    """Does something else before the commit of a given number."""

    def __init__(self, storage):
        self._storage, self.left, self.act = storage, None, None

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def commit(self, puts, deletes=(), expect=None, **options):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                self.act()
        self._storage.commit(puts, deletes, expect, **options)


@pytest.mark.parametrize("at", ["e00002", "e00010", "f", "e00019"])
def test_what_another_writer_writes_while_a_run_is_pruned_stays(storage, at):
    for stop in range(60):
        name, between = f"r{stop}", Interrupted(storage)
        run = grown(EventLog(between).run(name), 20)
        put(run, "f", "e00010", n="fork")
        other, told = EventLog(storage).run(name), []

        def write(other=other, told=told):
            try:
                told.append(put(other, "new", at, n="new"))
            except NotFoundError:  # the event is gone already
                told.append(None)

        between.left, between.act = stop, write
        EventLog(between).run(name).prune(["e00010", "e00019"])
        if not told:
            assert stop > 19
            return
        assert list(EventLog(storage).verify(name)) == [], stop
        found = said(EventLog(storage).run(name))
        assert {"e00010", "e00019"} <= found.keys()
        assert ("new" in found) == (told[0] is not None), stop
        if told[0] is not None:
            assert found["new"][0] == {"n": "new"}


class Raced:
    """Does something else before a part of an event is asked for."""

    def __init__(self, storage):
        self._storage, self.act = storage, None

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def get(self, keys):
        if self.act is not None and any(key[:1] == PART for key in keys):
            act, self.act = self.act, None
            act()
        return self._storage.get(keys)


def test_who_writes_after_an_older_event_while_its_beginning_is_pruned_reads_it_anew(storage):
    done = 0
    for base in range(1, 24):
        name, between = f"r{base}", Raced(storage)
        run = EventLog(storage).run(name)
        run.append({"d": {"large": "y" * 5000}}, id="e00000")
        for n in range(1, 25):
            run.append({"d": Merge({"small": f"{n:0500}"})}, id=f"e{n:05}")
        writer, at = EventLog(between).run(name), f"e{base:05}"
        prepared = writer.prepare({"d": Merge({"small": "new"})}, at=at, id="new")

        def prune(name=name, at=at):
            nonlocal done
            done += 1
            EventLog(storage).run(name).prune([at, "e00024"])

        between.act = prune
        writer.write(prepared)
        assert list(EventLog(storage).verify(name)) == [], base
        assert said(EventLog(storage).run(name))["new"][0] == {"d": {"large": "y" * 5000, "small": "new"}}
    assert done


@pytest.mark.parametrize("first", [["e00019"], ["e00010", "f"]])
def test_two_that_prune_a_run_at_once_leave_it_whole(storage, first):
    for stop in range(60):
        name, between = f"r{stop}", Interrupted(storage)
        run = grown(EventLog(between).run(name), 20)
        put(run, "f", "e00010", n="fork")
        truth, done = said(run), []

        def prune(name=name, done=done):
            done.append(EventLog(storage).run(name).prune(first))

        between.left, between.act = stop, prune
        with suppress(ConflictError, NotFoundError):
            EventLog(between).run(name).prune(["e00010", "e00019"])
        if not done:
            return
        assert list(EventLog(storage).verify(name)) == [], stop
        found = said(EventLog(storage).run(name))
        assert found.items() <= truth.items()
        assert set(first) & {"e00010", "e00019"} <= found.keys()


def test_a_copy_of_a_pruned_run_is_whole_once_its_source_is_deleted(log):
    run = grown(log.run("a"), 6)
    put(run, "f", "e00002", n="fork")
    put(run, "g", "f", n="fork", more=1)
    put(run, "h", "f", n="fork of a fork")
    run.prune(["h"])
    log.copy("a", "b")
    truth = said(log.run("b"))
    log.delete("a")
    assert said(log.run("b")) == truth
    assert list(log.verify()) == []
