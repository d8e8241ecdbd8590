"""A log elsewhere: copied whole or followed, from any engine to any other, whatever stops it."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from itertools import count

import pytest

from eventlog import EventLog, Extend, TaskWrite, pruning
from eventlog.errors import ConflictError, CorruptionError, InvalidInputError, StorageError
from eventlog.layout import run_of
from eventlog.shipping import Shipper
from tests.counting import CountingStorage, everything
from tests.engines import LOCATIONS, SLOW

NEAR = [name for name in LOCATIONS if name not in SLOW]
PAIRS = [
    *((one, other) for one in NEAR for other in NEAR),
    *(pair for far in LOCATIONS if far in SLOW for pair in (("lmdb", far), (far, "sqlite"))),
]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def logs(request, tmp_path):
    one, other = request.param
    with (
        EventLog.open(LOCATIONS[one](tmp_path / "source")) as source,
        EventLog.open(LOCATIONS[other](tmp_path / "target")) as target,
    ):
        yield source, target


def same(source, target):
    assert everything(source._storage) == everything(target._storage)
    assert list(target.verify()) == []
    return True


class Author:
    """Does to a log, by chance, whatever can be done to one."""

    def __init__(self, log, seed):
        self.log, self.random, self.ids = log, random.Random(seed), count(1)

    def act(self):
        act = self.random.choices(
            [self.append, self.many, self.fork, self.tasks, self.late, self.copy, self.delete, self.prune, self.forget],
            [10, 3, 3, 4, 3, 1, 1, 1, 1],
        )[0]
        act(self.random.choice([*self.log.runs(), "a", "b", ("c", "d")]))

    def append(self, name):
        run = self.log.run(name)
        writes = {f"c{self.random.randrange(4)}": self.random.choice([1, "x" * 50, "y" * 5000]), "l": Extend([1])}
        run.append(writes, id=f"{next(self.ids):06}")

    def many(self, name):
        self.log.run(name).append_many({"n": n, "t": "t" * 100} for n in range(self.random.randrange(1, 300)))

    def fork(self, name):
        run = self.log.run(name)
        steps = [event.step for event in run.events()]
        if steps:
            run.fork(self.random.choice(steps)).append({"forked": next(self.ids)}, id=f"{next(self.ids):06}")

    def tasks(self, name):
        for run in self.some_ids(name):
            run.put_task_writes(self.random.choice(list(run.given_ids())), [TaskWrite("task", 0, "c", "w" * 100)])

    def late(self, name):
        for run in self.some_ids(name):
            task = f"t{self.random.randrange(9)}"
            run.put_task_writes(list(run.given_ids())[-1], [TaskWrite(task, 0, "c", "late")])

    def some_ids(self, name):
        run = self.log.run(name)
        return [run] if list(run.given_ids()) else []

    def copy(self, name):
        if name in self.log and len(self.log.runs()) < 6:
            self.log.copy(name, f"copy {next(self.ids)}")

    def delete(self, name):
        if name in self.log:
            self.log.delete(name)

    def prune(self, name):
        for run in self.some_ids(name):
            run.prune(list(run.given_ids(limit=3)))

    def forget(self, name):
        for run in self.some_ids(name):
            run.forget([self.random.choice(list(run.given_ids()))])


def until_level(follower):
    for _ in range(1000):
        follower.turn(1.0)
        if follower.is_level:
            return
    raise AssertionError("it never gets level")


class TestCopy:
    def test_every_key_arrives_and_a_second_copy_writes_nothing(self, logs):
        source, target = logs
        author = Author(source, 1)
        for _ in range(60):
            author.act()
        found = source.copy_to(target)
        assert found.problems == []
        assert found.digests[0] == found.digests[1]
        assert same(source, target)
        counting = CountingStorage(target._storage)
        source.copy_to(EventLog(counting))
        assert counting.tally.commits == 0

    @pytest.mark.parametrize("seed", range(3))
    def test_a_copy_of_a_log_that_went_on_in_whatever_way(self, logs, seed):
        source, target = logs
        author = Author(source, seed)
        for _ in range(5):
            for _ in range(12):
                author.act()
            assert source.copy_to(target).problems == []
            assert same(source, target)

    def test_an_empty_log(self, logs):
        source, target = logs
        assert source.copy_to(target).keys == 0
        assert same(source, target)

    def test_a_target_of_others_is_refused_and_left_alone(self, logs):
        source, target = logs
        source.run("mine").append({"x": 1})
        target.run("theirs").append({"x": 1})
        before = everything(target._storage)
        with pytest.raises(ConflictError, match="'theirs'"):
            source.copy_to(target)
        assert everything(target._storage) == before

    def test_a_target_with_a_run_of_the_same_name_is_refused(self, logs):
        source, target = logs
        source.run("run").append({"x": 1})
        target.run("run").append({"x": 2})
        with pytest.raises(ConflictError, match="'run'"):
            source.copy_to(target)

    def test_a_copy_that_somebody_wrote_to_is_refused(self, logs):
        source, target = logs
        source.run("run").append({"x": 1})
        source.copy_to(target)
        target.run("run").append({"x": "theirs"})
        source.run("run").append({"x": "ours"})
        with pytest.raises(ConflictError, match="somebody wrote to the copy"):
            source.copy_to(target)

    @pytest.mark.parametrize(
        "act",
        [
            lambda log: log.run("run").append({"x": 2}),
            lambda log: log.run("run").fork(0, "branch"),
            lambda log: log.delete("run"),
            lambda log: log.run("another").append({"x": 2}),
        ],
        ids=["an event more", "a branch more", "a run less", "a run more"],
    )
    def test_a_log_is_not_put_back_to_what_its_copy_is(self, act):
        with EventLog.open("memory:") as live, EventLog.open("memory:") as copy:
            live.run("run").append({"x": 1})
            live.copy_to(copy)
            act(live)
            before = everything(live._storage)
            for ship in (copy.copy_to, lambda log: copy.follow_to(log).begin(lambda *_: None)):
                with pytest.raises(ConflictError, match="not from"):
                    ship(live)
            assert everything(live._storage) == before

    def test_a_difference_is_named(self, logs):
        source, target = logs
        source.run("run").append_many({"x": n} for n in range(3))
        source.copy_to(target)
        key = next(key for key in everything(target._storage) if key[:1] == b"E")
        target._storage.commit([], [key])
        found = source.compare_to(target)
        assert found.digests[0] != found.digests[1]
        assert [problem.run for problem in found.problems] == ["run"]
        assert "event" in found.problems[0].where
        assert "lacks" in found.problems[0].what
        assert source.copy_to(target).problems == []  # and mended


class Stopping(CountingStorage):
    """Refuses everything from the n-th commit on, as if the process were killed there."""

    def __init__(self, inner, left):
        super().__init__(inner)
        self.left = left

    def commit(self, *args, **options):
        if self.left <= 0:
            raise StorageError("stopped")
        self.left -= 1
        super().commit(*args, **options)


def flip(log, key):
    record = log._storage.get([key])[0]
    middle = len(record) // 2
    log._storage.commit([(key, record[:middle] + bytes([record[middle] ^ 1]) + record[middle + 1 :])])


class TestDamage:
    def test_a_flipped_bit_of_the_copy_is_found_and_mended(self, logs):
        source, target = logs
        source.run("run").append_many({"x": n} for n in range(3))
        source.copy_to(target)
        flip(target, next(key for key in everything(target._storage) if key[:1] == b"E"))
        (problem,) = source.compare_to(target).problems
        assert problem.run == "run"
        assert "another record" in problem.what
        assert source.copy_to(target).problems == []
        assert same(source, target)

    @pytest.mark.parametrize("kind", "NSBEPIMVWOT")
    def test_whatever_record_of_the_copy_it_is(self, kind):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            author = Author(source, 3)
            for _ in range(120):
                author.act()
            source.run("large").append({"x": "v" * 200_000})
            source.copy_to(target)
            follower = source.follow_to(target)
            for _ in range(2):
                flip(target, next(key for key in everything(target._storage) if key[:1] == kind.encode()))
                assert len(source.compare_to(target).problems) == 1
                follower.begin(lambda *_: None)
                until_level(follower)
                assert same(source, target)
                follower = source.follow_to(target)

    @pytest.mark.parametrize("kind", "SEPV")
    def test_what_is_damaged_in_the_source_is_not_put_over_the_copy(self, kind):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            runs = [source.run(name) for name in ("a", "b", "c")]
            for run in runs:
                run.append_many({"x": f"{n}" * 50, "l": Extend([n] * 9)} for n in range(200))
                run.append({"x": "v" * 200_000})
            source.copy_to(target)
            follower = source.follow_to(target)
            follower.begin(lambda *_: None)
            key = next(key for key in everything(source._storage) if key[:1] == kind.encode())
            before = target._storage.get([key])
            flip(source, key)
            for run in runs:
                if run._branches.run != run_of(key):
                    run.append({"y": "more"})
            for ship in (lambda: source.copy_to(target), lambda: follower.turn(1.0), lambda: follower.turn(1.0)):
                with pytest.raises(CorruptionError, match="differs"):
                    ship()
                assert not follower.is_level
            assert target._storage.get([key]) == before
            assert list(target.verify()) == []
            assert sorted(target.run(name).step for name in ("a", "b", "c")) == [200, 201, 201]


class Forgetful(CountingStorage):
    """Knows no position of its feed any more, as after a restore."""

    def feed(self, after=b"", *, limit=None):
        if after:
            raise InvalidInputError("restored")
        return super().feed(after, limit=limit)


class Interrupted(CountingStorage):
    """Does something else in the middle of a feed."""

    def __init__(self, inner, act):
        super().__init__(inner)
        self.act = act

    def feed(self, after=b"", *, limit=None):
        for n, pair in enumerate(super().feed(after, limit=limit)):
            if n == 400:
                self.act()
            yield pair


class Between(CountingStorage):
    """Does something else once, behind the keys of one kind that are read."""

    def __init__(self, inner, kind, act):
        super().__init__(inner)
        self.kind, self.act = kind, act

    def scan(self, ranges, **options):
        for bounds in ranges:
            yield from super().scan([bounds], **options)
            if bounds[0][:1] == self.kind and self.act:
                act, self.act = self.act, None
                act()


def trunk_of_three(log):
    """A run that begins where two branches, and the main one, part: what is pruned of one leaves it beginning there."""
    run = log.run("a")
    run.append({"n": 0})
    run.fork(0, "z").append({"n": 1}, id="0")
    for name in ("x", "y"):
        run.fork("0", name).append({"n": name}, id=name)
    run.prune(["x", "y"])
    run.append({"n": 2}, id="1")
    return run


def all_states(log):
    """What can be read of every branch of every run."""
    found = {}
    for name in log.runs():
        run = log.run(name)
        for branch in run.branches():
            head = run.branch(branch.name)
            found[name, branch.name] = dict(head.state), [event.step for event in head.events()]
        for event_id in run.given_ids():
            assert run.event(event_id).given_id == event_id
            run.task_writes(event_id)
    return found


class TestStopped:
    @pytest.mark.parametrize("seed", range(3))
    def test_it_goes_on_where_it_was_and_the_target_is_sound_at_every_step(self, logs, seed):
        source, target = logs
        author = Author(source, seed)
        for _ in range(25):
            author.act()
        shuffle = random.Random(seed)
        for _ in range(300):
            stopping = Stopping(target._storage, shuffle.randrange(1, 6))
            try:
                source.copy_to(EventLog(stopping))
            except StorageError:
                for name in target.runs():
                    assert dict(target.run(name).state) is not None
                continue
            break
        assert same(source, target)

    @pytest.mark.parametrize("begins_anew", [False, True])
    @pytest.mark.parametrize("left", range(8))
    def test_what_was_deleted_since_is_gone_there_too(self, left, begins_anew):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            source.run("run").append_many({"n": n, "text": "t" * 300} for n in range(3000))
            try:
                source.copy_to(EventLog(Stopping(target._storage, left)), verify=False)
            except StorageError:
                assert left < 6
            source.delete("run")
            if begins_anew:
                source.run("run").append({"x": 1})
            source.copy_to(target, verify=False)
            assert source.compare_to(target).problems == []
            assert same(source, target)

    @pytest.mark.parametrize("seed", range(12))
    def test_what_went_in_whatever_way_is_gone_there_too(self, seed):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            author, shuffle = Author(source, seed), random.Random(seed)
            for _ in range(8):
                for _ in range(12):
                    author.act()
                with suppress(StorageError):
                    source.copy_to(EventLog(Stopping(target._storage, shuffle.randrange(30))), verify=False)
                for name in target.runs():
                    assert dict(target.run(name).state) is not None
            source.copy_to(target, verify=False)
            derived = ("manifest", "snapshot")  # of these, what was dropped is found by who looks
            assert [each for each in source.compare_to(target).problems if not each.where.startswith(derived)] == []

    def test_a_long_run_is_not_begun_again(self, logs):
        source, target = logs
        source.run("long").append_many({"n": n} for n in range(3000))
        with pytest.raises(StorageError):
            source.copy_to(EventLog(Stopping(target._storage, 2)))
        there = sum(key[:1] == b"E" for key in everything(target._storage))
        assert there > 500
        assert target.runs() == []  # a run is seen once it is whole
        counting = CountingStorage(target._storage)
        source.copy_to(EventLog(counting))
        assert counting.tally.keys_written["E"] == 3000 - there
        assert same(source, target)


class TestFollow:
    def test_whatever_a_writer_does_arrives(self, logs):
        source, target = logs
        follower = source.follow_to(target)
        follower.begin(lambda *_: None)
        author = Author(source, 5)
        for _ in range(15):
            for _ in range(8):
                author.act()
            follower.turn(0.01)
        until_level(follower)
        assert same(source, target)

    def test_beside_a_live_writer_the_target_can_always_be_read(self, logs):
        source, target = logs
        done = threading.Event()
        failures = []

        def write():
            try:
                author = Author(source, 7)
                for _ in range(150):
                    author.act()
            except BaseException as error:
                failures.append(error)
                raise
            finally:
                done.set()

        writer = threading.Thread(target=write)
        follower = source.follow_to(target)
        follower.begin(lambda *_: None)
        writer.start()
        while not done.is_set():
            follower.turn(0.02)
            for name in target.runs():
                run = target.run(name)
                assert len(list(run.events())) >= 0
                assert dict(run.state) is not None
        writer.join()
        assert not failures
        until_level(follower)
        assert same(source, target)

    def test_a_run_that_is_forked_all_the_time_is_shipped_as_far_as_it_was(self, monkeypatch):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run = source.run("a")
            run.append({"n": 0}, id="0")
            find = Shipper._loose

            def meanwhile(*arguments):
                run.fork(0).append({"n": 1})
                return find(*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(Shipper, "_loose", meanwhile)
                follower = source.follow_to(target)
                follower.begin(lambda *_: None)
                for _ in range(5):
                    follower.turn(1.0)
                    there = [target.run("a").branch(each.name) for each in target.run("a").branches()]
                    assert [dict(each.state) for each in there] == [{"n": 0}, *[{"n": 1}] * (len(there) - 1)]
                assert len(there) > 5
            until_level(follower)
            assert same(source, target)

    @pytest.mark.parametrize("kind", "BSOCIWU")
    @pytest.mark.parametrize("act", ["fork", "copy", "append", "move main"])
    def test_what_is_done_while_it_is_found_how_far_a_run_goes(self, act, kind):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run = trunk_of_three(source)
            if act != "move main":
                source.copy("a", "b")
            source.copy_to(target)
            run.append({"n": 3}, id="2")
            acts = {
                "fork": lambda: [source.run("a").fork("1").append({"forked": n}, id=f"f{n}") for n in range(3)],
                "copy": lambda: (source.copy("a", "c"), source.run("c").append({"c": 1}, id="c")),
                "append": lambda: run.append({"n": 4}, id="3"),
                "move main": lambda: source.run("a").prune(["x", "y"]),
            }
            between = Between(source._storage, kind.encode(), acts[act])
            follower = EventLog(between).follow_to(target)
            follower._shipper.run(run._branches.run)
            assert between.act is None
            assert list(target.verify()) == []
            assert {"main", "x", "y"} <= {name for run, name in all_states(target) if run == "a"}
            until_level(follower)
            assert all_states(target) == all_states(source)
            assert same(source, target)

    def test_a_main_branch_that_goes_on_elsewhere_since_a_prune_is_not_shipped_as_it_was(self, monkeypatch):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run = trunk_of_three(source)
            follower = source.follow_to(target)
            follower.begin(lambda *_: None)
            run.append({"n": 2})
            ship = Shipper._ship_bodies

            def meanwhile(*arguments, **options):
                monkeypatch.undo()
                source.run("a").prune(["x", "y"])
                return ship(*arguments, **options)

            monkeypatch.setattr(Shipper, "_ship_bodies", meanwhile)
            follower._shipper.run(run._branches.run)
            assert list(target.verify()) == []
            assert all_states(target) == all_states(source)
            until_level(follower)
            assert same(source, target)

    def test_what_a_main_branch_leaves_behind_that_goes_on_elsewhere_goes_from_the_copy_too(self):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run = trunk_of_three(source)
            source.copy_to(target, verify=False)
            run.prune(["x", "y"])
            source.copy_to(target, verify=False)
            assert source.compare_to(target).problems == []

    @pytest.mark.parametrize("ever", ["new", "forgotten", "copied"])
    def test_an_id_that_is_given_again_names_what_it_did(self, ever, monkeypatch):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run = source.run("a")
            run.append({"n": 0}, id="0")
            if ever == "copied":
                source.copy("a", "b")
            source.copy_to(target)
            run.append({"n": 1}, id="1")
            if ever == "forgotten":
                run.forget(["1"])
                run.append({"n": 2}, id="1")
            expected = dict(run.at("1"))
            find = Shipper._loose

            def meanwhile(*arguments):
                monkeypatch.undo()
                again = source.run("a")
                again.write(again.prepare({"n": 3}, id="1", at="0"))
                return find(*arguments)

            monkeypatch.setattr(Shipper, "_loose", meanwhile)
            Shipper(source._storage, target._storage).run(run._branches.run)
            assert list(target.verify()) == []
            assert dict(target.run("a").at("1")) == expected
            source.copy_to(target)
            assert dict(target.run("a").at("1")) == {"n": 3}
            assert same(source, target)

    def test_what_waited_is_there_until_it_stands_at_its_event(self, monkeypatch):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run, large = source.run("a"), "w" * 300
            run.append({"n": 0}, id="0")
            run.put_task_writes("1", [TaskWrite("task", 0, "c", large)])
            source.copy_to(target)
            run.append({"n": 1}, id="1")
            find = Shipper._loose

            def meanwhile(*arguments):
                monkeypatch.undo()
                run.append({"c": large}, id="2")
                return find(*arguments)

            monkeypatch.setattr(Shipper, "_loose", meanwhile)
            Shipper(source._storage, target._storage).run(run._branches.run)
            assert target.run("a").head_id == "1"
            assert target.run("a").task_writes("1") == run.task_writes("1") != []
            source.copy_to(target)
            assert same(source, target)

    def test_what_a_prune_goes_on_to_remove_is_not_named_by_what_tasks_wrote(self, monkeypatch):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run, large = source.run("a"), "w" * 300
            for event_id in ("0", "1", "2"):
                run.append({"n": event_id}, id=event_id)
            other = source.run("a")
            other.write(other.prepare({"n": "again"}, id="1", at="0"))
            other.put_task_writes("1", [TaskWrite("task", 0, "c", large)])
            other.append({"c": large}, id="3")
            source.copy_to(target)
            has_turned, may_go_on = threading.Event(), threading.Event()
            make_whole, remove = pruning._make_whole, Shipper._remove_rest

            def waits(*arguments):
                has_turned.set()
                assert may_go_on.wait(60)
                make_whole(*arguments)

            def meanwhile(*arguments):
                may_go_on.set()
                pruner.join()
                return remove(*arguments)

            monkeypatch.setattr(pruning, "_make_whole", waits)
            monkeypatch.setattr(Shipper, "_remove_rest", meanwhile)
            pruner = threading.Thread(target=source.run("a").prune, args=(["0", "2"],))
            pruner.start()
            assert has_turned.wait(60)
            Shipper(source._storage, target._storage).run(run._branches.run)
            assert list(target.verify()) == []
            source.copy_to(target)
            assert same(source, target)

    @pytest.mark.parametrize("begins_anew", [False, True])
    def test_a_name_does_not_come_back_behind_what_it_named(self, begins_anew, monkeypatch):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            source.run("a").append({"n": 0})
            source.copy_to(target)
            source.copy("a", "b")
            ship = Shipper.run

            def meanwhile(*arguments, **options):
                monkeypatch.undo()
                source.delete("b")
                if begins_anew:
                    source.run("b").append({"anew": 1})
                return ship(*arguments, **options)

            monkeypatch.setattr(Shipper, "run", meanwhile)
            shipper = Shipper(source._storage, target._storage)
            for gap in shipper.names():
                shipper.name(gap)
            assert list(target.verify()) == []
            assert ("b" in target) is begins_anew
            assert all_states(target) == all_states(source)
            assert same(source, target)

    @pytest.mark.parametrize("act", ["prune", "delete"])
    def test_what_goes_between_a_runs_pointers_and_its_rest_is_leant_on_still(self, act, monkeypatch):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            run = source.run("a")
            for n in range(60):
                run.append({"n": n, "list": Extend([n])}, id=f"{n:02}")
            follower = source.follow_to(target)
            follower.begin(lambda *_: None)
            run.prune([f"{n:02}" for n in range(20, 60)])
            remove = Shipper._remove_rest

            def meanwhile(*arguments):
                monkeypatch.undo()
                source.run("a").prune(["55"]) if act == "prune" else source.delete("a")
                remove(*arguments)

            monkeypatch.setattr(Shipper, "_remove_rest", meanwhile)
            follower._shipper.run(run._branches.run, whole=True)
            assert [event.step for event in target.run("a").events()] == list(range(20, 60))
            assert target.run("a").at("30")["list"] == list(range(31))
            until_level(follower)
            assert same(source, target)

    @pytest.mark.parametrize("left", range(4))
    def test_a_turn_that_failed_is_made_up_for(self, left):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            away = Stopping(target._storage, 1000)
            follower = source.follow_to(EventLog(away))
            follower.begin(lambda *_: None)
            until_level(follower)
            author = Author(source, left)
            for _ in range(20):
                author.act()
            away.left = left
            for _ in range(3):
                with pytest.raises(StorageError):
                    follower.turn(1.0)
                assert not follower.is_level
            away.left = 1000
            until_level(follower)
            assert same(source, target)

    def test_a_source_that_lost_its_feed_is_followed_on(self):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            follower = EventLog(Forgetful(source._storage)).follow_to(target)
            source.run("a").append({"x": 1})
            follower.begin(lambda *_: None)
            source.run("a").append({"x": 2})
            until_level(follower)
            assert same(source, target)

    def test_a_reader_of_the_feed_of_the_copy_misses_nothing(self):
        with EventLog.open("memory:") as source, EventLog.open("memory:") as target:
            source.run("long").append_many({"n": n} for n in range(3000))
            with pytest.raises(StorageError):
                source.copy_to(EventLog(Stopping(target._storage, 3)))

            source.run("after").append({"x": 1})
            interrupted = EventLog(Interrupted(target._storage, lambda: source.copy_to(target)))
            found = list(interrupted.feed())
            source.copy_to(target)
            found += target.feed(found[-1].position if found else None)
            told = sorted((each.run, each.event.step) for each in found)
            assert told == [("after", 0), *(("long", n) for n in range(3000))]

    def test_it_begins_again_after_either_side_was_closed(self, tmp_path):
        where = LOCATIONS["lmdb"](tmp_path / "source"), LOCATIONS["sqlite"](tmp_path / "target")
        for turn in range(4):
            with EventLog.open(where[0]) as source, EventLog.open(where[1]) as target:
                follower = source.follow_to(target)
                follower.begin(lambda *_: None)
                author = Author(source, turn)
                author.ids = count(1000 * turn + 1)
                for _ in range(10):
                    author.act()
                until_level(follower)
                assert same(source, target)

    def test_one_busy_run_among_many_idle_ones_costs_little(self, tmp_path):
        source = EventLog(CountingStorage(EventLog.open("memory:")._storage))
        target = EventLog(CountingStorage(EventLog.open("memory:")._storage))
        for n in range(500):
            source.run(f"idle {n}").append({"x": n})
        follower = source.follow_to(target)
        follower.begin(lambda *_: None)
        until_level(follower)
        with source._storage.counted() as idle:
            follower.turn(0.0)
        assert idle.reads == 0
        source.run("busy").append({"x": 1})
        with source._storage.counted() as ours, target._storage.counted() as theirs:
            follower.turn(0.0)
        assert target.run("busy").state["x"] == 1
        assert ours.reads + theirs.reads < 150
        assert ours.keys_read.total() + theirs.keys_read.total() < 300
