"""Copies of runs: pointers, in both directions unseen, and safe to delete in every order."""

import itertools
import random
import threading
from contextlib import suppress

import pytest

from eventlog import (
    ConflictError,
    EventLog,
    Extend,
    InvalidIdError,
    InvalidInputError,
    NotFoundError,
    TaskWrite,
)
from eventlog.errors import StorageError
from eventlog.layout import BRANCH, CHILD
from tests.counting import CountingStorage, everything
from tests.engines import DEEP


@pytest.fixture
def log(storage):
    made = EventLog(CountingStorage(storage))
    yield made
    assert list(made.verify()) == []


def grown(run, count, begin=0):
    for i in range(begin, begin + count):
        run.append({"n": i, "trail": Extend([i])}, id=f"e{i:05}")
    return run


def put(run, id, at, **state):  # noqa: A002
    return run.write(run.prepare(state=state, at=at, id=id))


def said(run):
    """Everything that a run says, by id."""
    return {
        event_id: (dict(run.at(event_id)), [tuple(write) for write in run.task_writes(event_id)])
        for event_id in run.given_ids()
    }


def counted(run):
    """How many events the branches of a run have, by reading them all."""
    branches = [run.branch(branch.name) for branch in run.branches()]
    return len({(event.segment, event.seq) for branch in branches for event in branch.events()})


def test_a_copy_says_the_same_and_then_each_goes_its_own_way(log):
    source = grown(log.run("a"), 20)
    source.fork("e00007", "side").append({"n": -1}, id="side")
    source.put_task_writes("e00019", [TaskWrite("t", 0, "x", "before")])
    log.copy("a", ("b", "ns"))
    copy = log.run(("b", "ns"))
    assert said(copy) == said(source)
    assert [branch.name for branch in copy.branches()] == ["main", "side"]
    assert (len(copy), copy.step, copy.head.run) == (20, 19, ("b", "ns"))
    grown(source, 5, begin=20)
    copy.append({"n": "copy"}, id="e00020")
    assert source.state["n"] == 24
    assert copy.state["n"] == "copy"
    assert source.at("e00020")["n"] == 20
    assert copy.state["trail"] == list(range(20))
    with pytest.raises(NotFoundError):
        copy.at("e00021")
    copy.branch("side").append({"n": -2})
    assert source.branch("side").state["n"] == -1


@pytest.mark.parametrize("branches", [1, 3])
def test_copying_costs_the_same_bytes_for_every_history(branches):
    def cost(count):
        log = EventLog.open("memory:")
        log._storage = storage = CountingStorage(log._storage)
        log = EventLog(storage)
        run = log.run("a")
        run.append_many({"n": i, "trail": Extend([i])} for i in range(count))
        for n in range(1, branches):
            run.fork(5, f"side-{n}").append({"n": n})
        with storage.counted() as tally:
            log.copy("a", "b")
        assert (tally.commits, tally.keys_deleted.total()) == (2, 0)
        return tally.written

    short, long = cost(10), cost(10_000)
    assert abs(long - short) <= 8 * branches + 8  # numbers are packed as short as they go
    assert long < 350 * branches + 250


def test_an_id_that_is_given_again_is_not_seen_by_the_other(log):
    source = grown(log.run("a"), 5)
    log.copy("a", "b")
    log.copy("b", "c")
    copy = log.run("b")
    put(source, "e00002", "e00001", n="theirs")
    assert log.run("b").at("e00002")["n"] == 2
    put(copy, "e00003", "e00001", n="ours")
    assert (source.at("e00003")["n"], copy.at("e00003")["n"], log.run("c").at("e00003")["n"]) == (3, "ours", 3)
    put(source, "e00002", "e00001", n="theirs again")
    assert (source.at("e00002")["n"], copy.at("e00002")["n"], log.run("c").at("e00002")["n"]) == ("theirs again", 2, 2)
    assert list(copy.given_ids()) == list(source.given_ids()) == [f"e{i:05}" for i in range(4, -1, -1)]
    assert list(copy.given_ids("e00003", limit=2)) == ["e00002", "e00001"]


def test_task_writes_after_the_copy_are_not_seen_by_the_other(log):
    source = grown(log.run("a"), 3)
    source.put_task_writes("e00001", [TaskWrite("t", 0, "x", 1), TaskWrite("t", -1, "i", "old")])
    source.put_task_writes("later", [TaskWrite("t", 0, "x", "waits")])
    log.copy("a", "b")
    copy = log.run("b")
    source.put_task_writes("e00001", [TaskWrite("t", 1, "x", 2), TaskWrite("t", -1, "i", "source")])
    copy.put_task_writes("e00001", [TaskWrite("t", 2, "x", 3), TaskWrite("t", -1, "i", "copy")])
    copy.put_task_writes("e00001", [TaskWrite("u", 0, "x", 4)])

    def values(run, where):
        return [(write.task, write.slot, write.value) for write in run.task_writes(where)]

    assert values(source, "e00001") == [("t", -1, "source"), ("t", 0, 1), ("t", 1, 2)]
    assert values(copy, "e00001") == [("t", -1, "copy"), ("t", 0, 1), ("t", 2, 3), ("u", 0, 4)]
    log.copy("b", "c")
    copy.put_task_writes("e00001", [TaskWrite("t", -1, "i", "copy, later")])
    assert values(log.run("c"), "e00001") == [("t", -1, "copy"), ("t", 0, 1), ("t", 2, 3), ("u", 0, 4)]
    source.put_task_writes("later", [TaskWrite("t", 1, "x", "more")])
    assert values(copy, "later") == [("t", 0, "waits")]
    put(copy, "later", "e00002", n=1)
    assert values(copy, "later") == [("t", 0, "waits")]
    assert values(source, "later") == [("t", 0, "waits"), ("t", 1, "more")]


def test_a_writer_that_does_not_know_of_the_copy_yet_is_not_seen_by_it(log):
    source = grown(log.run("a"), 3)
    blind = log.run("a")
    blind.put_task_writes("e00002", [TaskWrite("t", 0, "x", 1)])
    log.copy("a", "b")
    blind.put_task_writes("e00002", [TaskWrite("t", 1, "x", 2), TaskWrite("u", 0, "x", 3)])
    put(source, "e00002", "e00001", n="again")
    assert [write.value for write in log.run("b").task_writes("e00002")] == [1]
    assert [write.value for write in source.task_writes("e00002")] == [1, 2, 3]
    assert log.run("b").at("e00002")["n"] == 2


def test_a_task_that_writes_again_what_it_wrote_early_replaces_what_it_wrote_since(log):
    run = grown(log.run("a"), 1)
    log.copy("a", "b")
    run.put_task_writes("later", [TaskWrite("t", -1, "i", "early")])
    run.append({"n": 1}, id="later")
    log.copy("a", "c")
    run.put_task_writes("later", [TaskWrite("t", -1, "i", "since")])
    run.append({"n": 2}, id="more")
    run.put_task_writes("later", [TaskWrite("t", -1, "i", "early")])
    assert [write.value for write in run.task_writes("later")] == ["early"]
    assert [write.value for write in log.run("c").task_writes("later")] == ["early"]


@pytest.mark.parametrize("where", ["e00001", "later"])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_task_that_writes_reads_no_other_tasks_writes(name, where, log):
    grown(log.run("a"), 3).put_task_writes(where, [TaskWrite("early", -1, "i", 0), TaskWrite("early", 0, "x", 0)])
    log.copy("a", "b")
    log.run("b").put_task_writes(where, [TaskWrite("early", -1, "i", 1), TaskWrite("early", 1, "x", 1)])
    log.copy("b", "c")
    run, read = log.run(name), []
    for count in (20, 40):
        for n in range(count):  # all of them wrote already the second time, half of them the first
            run.put_task_writes(where, [TaskWrite(f"t{n}", 0, "x", n)])
        with log._storage.counted() as tally:
            for n in range(20):
                run.put_task_writes(where, [TaskWrite(f"t{n}", 1, "x", n), TaskWrite(f"t{n}", 0, "x", "late")])
                run.put_task_writes(where, [TaskWrite(f"t{n}", -1, "i", n)])
        read.append(tally.keys_read["W"] + tally.keys_read["U"])
    assert read[1] <= 1.1 * read[0]
    run.put_task_writes(where, [TaskWrite("early", -1, "i", name), TaskWrite("early", 0, "x", "late")])
    found = {(write.task, write.slot): write.value for write in run.task_writes(where)}
    wanted = {("early", -1): name, ("early", 0): 0, ("early", 1): 1}
    if name == "a":
        del wanted["early", 1]  # the copy's
    for n in range(40):
        wanted[f"t{n}", 0] = n
    for n in range(20):
        wanted.update({(f"t{n}", 1): n, (f"t{n}", -1): n})
    assert found == wanted


def test_a_task_that_writes_again_in_a_run_without_copies_reads_no_other_tasks_writes(log):
    run = grown(log.run("a"), 1)
    read = []
    for count in (10, 50):
        run.put_task_writes("e00000", [TaskWrite(f"t{n}", 0, "x", n) for n in range(count)])
        with log._storage.counted() as tally:
            run.put_task_writes("e00000", [TaskWrite("t0", count, "x", count)])
        read.append(tally.keys_read["W"] + tally.keys_read["U"])
    assert read[0] == read[1]
    assert [write.value for write in run.task_writes("e00000") if write.task == "t0"] == [0, 10, 50]


@pytest.mark.parametrize("order", list(itertools.permutations("abcd")))
def test_deleting_one_never_harms_another(order, log):
    source = grown(log.run("a"), 6)
    source.put_task_writes("e00005", [TaskWrite("t", 0, "x", "v" * 100)])
    source.append({"n": "v" * 100}, id="e00006")
    log.copy("a", "b")
    copy = log.run("b")
    copy.append({"n": "b"}, id="b")
    put(copy, "e00003", "e00001", n="b")
    log.copy("b", "c")
    log.copy("a", "d")
    log.run("c").append({"n": "c"}, id="c")
    log.run("d").append({"n": "d"}, id="d")
    grown(source, 3, begin=7)
    truth = {name: said(log.run(name)) for name in "abcd"}
    handles = {name: log.run(name) for name in "abcd"}
    left = set("abcd")
    for name in order:
        log.delete(name)
        left.remove(name)
        assert log.runs() == sorted(left)
        assert list(log.verify()) == []
        with pytest.raises(NotFoundError):
            handles[name].append({"n": 1})
        with pytest.raises(NotFoundError):
            handles[name].put_task_writes("e00001", [TaskWrite("t", 0, "x", 1)])
        for other in left:
            assert said(log.run(other)) == truth[other]
            log.run(other).append({"n": name}, id=f"after {name}")
            truth[other] = said(log.run(other))
    kinds = {key[:1] for key in everything(log._storage)}
    assert kinds <= {b"N", b"S"}  # the names' tombstones, and that of the run


def test_what_a_copy_wrote_goes_with_it(log):
    grown(log.run("a"), 5)
    before = {key: value for key, value in everything(log._storage).items() if key[:1] not in b"NO"}
    log.copy("a", "b")
    grown(log.run("b"), 50, begin=5)
    log.run("b").put_task_writes("e00003", [TaskWrite("t", 0, "x", 1)])
    log.delete("b")
    left = {key: value for key, value in everything(log._storage).items() if key[:1] not in b"NO"}
    assert len(left.items() - before.items()) == 2  # the last segment stays: its number is not used again
    assert {key[:1] for key in left.keys() - before} == {b"S", b"C"}
    assert before.items() <= left.items()


def test_a_name_that_was_deleted_may_be_copied_to_again(log):
    grown(log.run("a"), 3)
    log.copy("a", "b")
    stale = log.run("b")
    log.delete("b")
    log.copy("a", "b")
    assert stale.is_stale()
    assert len(log.run("b")) == 3
    log.delete("a")
    grown(log.run("a"), 1)
    assert (len(log.run("a")), len(log.run("b"))) == (1, 3)


def test_what_cannot_be_copied(log):
    with pytest.raises(NotFoundError):
        log.copy("a", "b")
    grown(log.run("a"), 1)
    grown(log.run("c"), 1)
    for target in ("a", "c"):
        with pytest.raises(ConflictError, match="already"):
            log.copy("a", target)
    with pytest.raises(InvalidIdError):
        log.copy("a", "")
    log.run("w").put_task_writes("later", [TaskWrite("t", 0, "x", 1)])
    log.copy("w", "empty")
    assert "empty" not in log
    with pytest.raises(InvalidInputError):
        log.run("c").at(log.run("a").head)


def test_branches_are_listed_counted_and_copied_by_as_many_reads_however_many_there_are(log):
    """Where a server keeps the log, each read is a way there and back."""
    source, reads = grown(log.run("a"), 50), []
    for begin in (0, 20):
        for n in range(begin, begin + 20):
            source.fork(f"e{n:05}", f"side {n}").append({"n": -n})
        with log._storage.counted() as tally:
            listed = log.run("a").branches()
            assert log.run("a").count_events() == 50 + begin + 20
            log.copy("a", f"copy {begin}")
            assert [each.name for each in log.run(f"copy {begin}").branches()] == [each.name for each in listed]
        reads.append(tally.reads)
    assert reads[1] == reads[0]
    assert [branch.name for branch in listed] == ["main", *(f"side {n}" for n in range(40))]
    assert [branch.forked_from for branch in listed] == [None, *(f"e{n:05}" for n in range(40))]


def test_deleting_a_copy_asks_as_often_however_many_there_are(log):
    """Their names are read at once: where a server keeps the log, each call is a way there and back."""
    grown(log.run("a"), 3)
    gets = []
    for begin in (0, 40):
        for n in range(begin, begin + 40):
            log.copy("a", f"copy {n}")
        with log._storage.counted() as tally:
            log.delete(f"copy {begin + 20}")
        gets.append(tally.gets)
    assert gets[1] == gets[0]


def test_copies_that_are_made_while_the_source_is_written_are_each_of_one_moment(log):
    source = log.run("a")
    source.append({"n": -1}, id="0")

    def write():
        for i in range(150):
            put(source, f"e{i:03}", f"e{i - 1:03}" if i else "0", n=i)
            source.put_task_writes(f"e{i:03}", [TaskWrite("t", 0, "x", i)])

    writer = threading.Thread(target=write)
    writer.start()
    copies = []
    while writer.is_alive() and len(copies) < 8:
        with suppress(ConflictError):  # it is written too quickly; nothing was made
            log.copy("a", f"copy {len(copies)}")
            copies.append(f"copy {len(copies)}")
    writer.join()
    truth = said(source)
    for name in copies:
        found = said(log.run(name))
        ids = list(found)
        assert ids == list(truth)[-len(ids) :]
        for event_id, (state, writes) in found.items():
            assert state == truth[event_id][0]
            assert writes == truth[event_id][1] or (event_id == ids[0] and not writes)


class Failing(CountingStorage):
    """Fails before a commit, as a process that dies there would."""

    left = None

    def commit(self, *args, **more):
        if self.left is not None:
            if not self.left:
                raise StorageError("stopped here")
            self.left -= 1
        super().commit(*args, **more)


def test_a_crash_leaves_a_whole_copy_or_none(storage):
    failing = Failing(storage)
    log = EventLog(failing)
    grown(log.run("a"), 4)
    for stop in range(2):
        failing.left = stop
        with pytest.raises(StorageError):
            log.copy("a", "b")
        failing.left = None
        assert "b" not in log
        assert list(log.verify()) == []
    log.copy("a", "b")
    assert said(log.run("b")) == said(log.run("a"))
    log.delete("b")
    log.delete("a")
    assert {key[:1] for key in everything(storage)} <= {b"N", b"S"}


def test_a_crash_while_deleting_harms_nobody_and_is_finished_by_the_next(storage):
    failing = Failing(storage)
    log = EventLog(failing)
    for stop in range(6):
        names = [f"{name}{stop}" for name in "abc"]
        grown(log.run(names[0]), 4)
        log.copy(names[0], names[1])
        log.copy(names[1], names[2])
        truth = said(log.run(names[0]))
        for name in names[:2]:
            failing.left = stop
            try:
                log.delete(name)
            except StorageError:
                failing.left = None
                assert list(log.verify()) == []
                with suppress(NotFoundError):
                    log.delete(name)
            failing.left = None
            assert said(log.run(names[2])) == truth
            assert list(log.verify()) == []
        log.delete(names[2])
        assert list(log.verify()) == []
    assert {key[:1] for key in everything(storage)} <= {b"N", b"S"}


@pytest.mark.parametrize("seed", range(4 * DEEP))
def test_copies_are_like_logs_of_their_own(seed, log):
    """The same story told to copies of one run, and to runs that were told everything anew."""
    rng = random.Random(seed)
    plain = EventLog.open("memory:")
    names = ["r0"]
    stories = {"r0": []}

    def tell(run, step):
        kind, target, at, value = step
        if kind == "put":
            run.write(run.prepare(state=value, at=at, id=target))
        elif kind == "forget":
            run.forget([target])
        else:
            run.put_task_writes(target, value)

    def check(name):
        ours, theirs = log.run(name), plain.run(name)
        assert said(ours) == said(theirs), name
        assert ours.count_events() == counted(ours)

    for number in range(70):
        name = rng.choice(names)
        ids = list(log.run(name).given_ids())
        chance = rng.random()
        if chance < 0.08 and ids and len(names) < 6:
            copy = f"r{number + 1}"
            log.copy(name, copy)
            stories[copy] = list(stories[name])
            for step in stories[copy]:
                tell(plain.run(copy), step)
            names.append(copy)
        elif chance < 0.12 and len(names) > 1:
            log.delete(name)
            plain.delete(name)
            names.remove(name)
        else:
            if chance < 0.55 or not ids:
                at = rng.choice(ids) if ids else None
                step = ("put", f"i{rng.randrange(12):02}", at, {"n": number, "l": list(range(rng.randrange(40)))})
            elif chance < 0.65:
                step = ("forget", rng.choice(ids), None, None)
            else:
                write = TaskWrite(f"t{rng.randrange(3)}", rng.randrange(-1, 3), "x", f"{number}" * 40)
                step = ("writes", f"i{rng.randrange(12):02}", None, [write])
            stories[name].append(step)
            tell(log.run(name), step)
            tell(plain.run(name), step)
        for each in names:
            check(each)
    assert list(log.verify()) == []


def test_a_copy_of_a_copy_sees_what_lies_behind_a_branch_that_was_not_gone_on_with(log):
    run = grown(log.run("a"), 3)
    run.fork("e00001", "side")
    log.copy("a", "b")
    grown(log.run("b"), 2, begin=3)
    log.copy("b", "c")
    assert said(log.run("c")) == said(log.run("b"))
    assert len(said(log.run("c"))) == 5


def test_a_deleted_copys_last_segment_that_only_keeps_its_number_is_no_problem(log):
    run = grown(log.run("a"), 3)
    log.copy("a", "b")
    grown(log.run("b"), 2, begin=3)
    log.run("b").fork("e00003", "side").append({"n": "side"})
    log.delete("b")
    log.copy("a", "c")
    log.delete("c")
    log.copy("a", "d")
    grown(run, 2, begin=3)
    assert list(log.verify()) == []


class AfterScan(CountingStorage):
    """Calls somebody once between a scan of a kind of keys and what is done with what it found."""

    kind, meanwhile = b"", None

    def scan(self, ranges, **more):
        pairs = list(super().scan(ranges, **more))
        if self.meanwhile is not None and any(start[:1] == self.kind for start, _ in ranges):
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return iter(pairs)


@pytest.mark.parametrize(
    ("kind", "look"),
    [(BRANCH, lambda run: run.branches()), (CHILD, lambda run: put(run, "late", "e00003", n=9))],
    ids=["branches", "put"],
)
def test_a_copy_that_is_deleted_at_this_moment_is_in_nobodys_way(storage, kind, look):
    between = AfterScan(storage)
    log = EventLog(between)
    run = grown(log.run("a"), 5)
    log.copy("a", "b")
    log.run("b").fork("e00003", "side").append({"n": -1})
    log.run("a").fork("e00001", "own")
    between.kind, between.meanwhile = kind, lambda: EventLog(storage).delete("b")
    look(run)
    assert between.meanwhile is None
    assert {branch.name for branch in run.branches()} >= {"main", "own"}
    assert list(log.verify()) == []
