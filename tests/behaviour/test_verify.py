"""Verifying a log while others write to it: nothing false is said, and nothing true is left out.

A writer's commits are recorded, and then done again between the reads of `verify`, at every read where they may begin.
"""

from __future__ import annotations

import random
import re
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from eventlog import MSGPACK, EventLog, Extend, Merge, NotFoundError, TaskWrite
from eventlog.errors import CorruptionError, StorageError
from eventlog.layout import (
    BRANCH,
    EVENT,
    MANIFEST,
    NAME,
    PART,
    RUN_KINDS,
    SEGMENT,
    SNAPSHOT,
    all_of,
    branch_key,
    event_key,
    name_key,
    owner_key,
    place_of,
)
from eventlog.records import scalars, seal, seal_fields, unseal, unseal_fields, where
from eventlog.storage.memory import MemoryStorage
from tests.behaviour.test_copies import Failing
from tests.counting import CountingStorage, everything
from tests.engines import DEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from eventlog.events import Problem
    from eventlog.storage import Storage

    Batch = tuple[list[tuple[bytes, bytes]], list[bytes]]


class Recording(Failing):
    """Keeps what is committed, and can be stopped before a commit."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.batches: list[Batch] = []

    def commit(self, puts: Any, deletes: Any = (), *args: Any, **more: Any) -> None:
        super().commit(puts, deletes, *args, **more)
        self.batches.append((list(puts), list(deletes)))


class Between(CountingStorage):
    """Calls somebody before every read; of a scan, before every pair."""

    def __init__(self, inner: Storage, meanwhile: Callable[[], object]) -> None:
        super().__init__(inner)
        self.meanwhile = meanwhile

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.meanwhile()
        return super().get(keys)

    def scan(self, *args: Any, **more: Any) -> Iterator[tuple[bytes, bytes]]:
        pairs = super().scan(*args, **more)
        while True:
            self.meanwhile()
            pair = next(pairs, None)
            if pair is None:
                return
            yield pair


def grow(log: EventLog, name: str, ids: Iterable[str]) -> None:
    run = log.run(name)
    for each in ids:
        run.append({"last": each, "all": Extend([each[-1] * 200]), "big": each[-1] * 3000}, id=each)


def begin(log: EventLog) -> None:
    """A log with something of everything."""
    grow(log, "deleted", "a")
    grow(log, "a", "abcd")
    log.copy("a", "b")
    log.copy("b", "c")
    grow(log, "b", "xy")
    grow(log, "p", "abcdef")
    log.run("p").put_task_writes("e", [TaskWrite("t", 0, "last", "v" * 300)])
    log.run("p").fork("e", "side").append({"last": "v" * 300}, id="side")
    log.run("p").prune(["e", "f", "side"])
    log.run("changes").append_many({"map": Merge({"key": f"{n}" * 450})} for n in range(30))
    grow(log, "changes", "z")
    log.run("waits").put_task_writes("to come", [TaskWrite("t", 0, "last", 0)])
    log.delete("deleted")


def half(log: EventLog, commits: int, act: Callable[[], object]) -> None:
    """Do something by a process that is killed after some commits."""
    log._storage.left = commits  # type: ignore[attr-defined]
    with pytest.raises(StorageError):
        act()
    log._storage.left = None  # type: ignore[attr-defined]


def half_deleted(log: EventLog) -> None:
    half(log, 1, lambda: log.delete("b"))
    log.delete("c")


def begun_again(log: EventLog) -> None:
    for _ in range(2):
        log.delete("p")
        grow(log, "p", "abc")
        log.run("p").prune(["c"])


def copied_and_deleted(log: EventLog) -> None:
    for _ in range(2):
        log.copy("a", "d")
        grow(log, "d", "z")
        log.delete("d")


def handed_on(log: EventLog) -> None:
    """The run of `p` goes on under a name that comes before all others, or behind them."""
    for name in ("A", "z", "A"):
        for target in (name, "p"):
            log.copy(*reversed([name, "p"]) if target == name else (name, "p"))
            log.delete("p" if target == name else name)


def renamed(log: EventLog) -> None:
    run = log.run("a")
    for value in range(3):
        run.write(run.prepare({"last": value}, at="d", id="e"))


ACTS: dict[str, Callable[[EventLog], object]] = {
    "append": lambda log: grow(log, "a", "efg"),
    "append to a copy": lambda log: grow(log, "b", "z"),
    "append after pruning": lambda log: grow(log, "p", "gh"),
    "rename": renamed,
    "fork": lambda log: [log.run("a").fork("b").append({"last": n}) for n in range(3)],
    "fork and write nothing": lambda log: log.run("p").fork("f"),
    "forget": lambda log: log.run("a").forget(["b", "d"]),
    "make": lambda log: [grow(log, name, "a") for name in ("A", "new", "z")],
    "what waited": lambda log: grow(log, "waits", "xy"),
    "task writes": lambda log: log.run("a").put_task_writes("d", [TaskWrite("t", 0, "last", "w" * 300)]),
    "prune": lambda log: log.run("changes").prune(["z"]),
    "prune again": lambda log: log.run("p").prune(["f"]),
    "prune all the time": lambda log: [(grow(log, "p", each), log.run("p").prune([each])) for each in "ghij"],
    "drop": lambda log: log.run("changes").drop_snapshots(),
    "copy": lambda log: (log.copy("a", "A"), log.copy("p", "z")),
    "copy and delete": copied_and_deleted,
    "delete the first": lambda log: log.delete("a"),
    "delete a copy": lambda log: log.delete("b"),
    "delete all": lambda log: [log.delete(name) for name in ("a", "p", "b", "c", "waits")],
    "delete half": half_deleted,
    "delete half of a run": lambda log: half(log, 1, lambda: log.delete("p")),
    "begin again": begun_again,
    "begin again what was deleted": lambda log: grow(log, "deleted", "a"),
    "hand on": handed_on,
}


def base(act: Callable[[EventLog], object]) -> tuple[dict[bytes, bytes], list[Batch]]:
    """What a log holds, and what a writer commits then."""
    log = EventLog(Recording(MemoryStorage()))
    begin(log)
    pairs = everything(log._storage)
    log._storage.batches.clear()  # type: ignore[attr-defined]
    act(log)
    return pairs, log._storage.batches  # type: ignore[attr-defined]


def fill(storage: Storage, pairs: dict[bytes, bytes]) -> None:
    now = everything(storage)
    puts = [pair for pair in pairs.items() if now.get(pair[0]) != pair[1]]
    storage.commit(puts, [key for key in now if key not in pairs])


def found_while(storage: Storage, batches: list[Batch], first: int, pace: int) -> tuple[list[Problem], bool]:
    """What is found while `pace` commits are done before each read from the one numbered `first` on, or all of them.

    The second is whether there were as many reads.
    """
    left, reads = list(batches), count()

    def meanwhile() -> None:
        if next(reads) >= first:
            for puts, deletes in left[:pace]:
                storage.commit(puts, deletes)
            del left[:pace]

    problems = list(EventLog(Between(storage, meanwhile)).verify())
    was_met = len(left) < len(batches)
    for puts, deletes in left:
        storage.commit(puts, deletes)
    return problems, was_met


def steps(storage: Storage) -> int:
    """How many reads lie between two places where a writer begins."""
    return max(1, (7 if isinstance(storage, MemoryStorage) else 211) // DEEP)


@pytest.mark.parametrize("pace", [1, 1000])
@pytest.mark.parametrize("act", ACTS)
def test_nothing_is_wrong_with_a_log_that_is_written(storage: Storage, act: str, pace: int) -> None:
    pairs, batches = base(ACTS[act])
    first, is_met = 0, True
    while is_met:
        fill(storage, pairs)
        problems, is_met = found_while(storage, batches, first, pace)
        assert problems == [], first
        first += steps(storage)
    assert list(EventLog(storage).verify()) == []


def damaged(pairs: dict[bytes, bytes], key: bytes) -> dict[bytes, bytes]:
    """A log in which a bit of a record is another one; one that has no bits is gone."""
    record = pairs[key]
    rest = {other: value for other, value in pairs.items() if other != key}
    return {**rest, key: record[:-1] + bytes([record[-1] ^ 1])} if record else rest


def said(problems: Iterable[Problem]) -> set[tuple[str, str]]:
    """What is wrong; a run that others share has one name of several."""
    return {(problem.where, problem.what) for problem in problems}


@pytest.mark.parametrize("act", ACTS)
def test_what_is_damaged_is_found_in_a_log_that_is_written(storage: Storage, act: str) -> None:
    pairs, batches = base(ACTS[act])
    chance = random.Random(act)
    for kind in (NAME, *RUN_KINDS):
        broken = damaged(pairs, chance.choice([key for key in pairs if key[:1] == kind]))
        for _ in range(DEEP):
            fill(storage, broken)
            before = said(EventLog(storage).verify())
            assert before
            first, pace = chance.randrange(300), chance.choice([1, 3, 1000])
            found = said(found_while(storage, batches, first, pace)[0])
            after = said(EventLog(storage).verify())
            assert before & after <= found <= before | after, (kind, first, pace)


class Busy:
    """A writer who does one thing after another, and never ends."""

    def __init__(self, seed: int) -> None:
        self.log = EventLog(Recording(MemoryStorage()))
        begin(self.log)
        self.pairs = everything(self.log._storage)
        self.chance = random.Random(seed)
        self.numbers = count()

    def commits(self) -> Iterator[Batch]:
        batches = self.log._storage.batches  # type: ignore[attr-defined]
        while True:
            batches.clear()
            self.act()
            yield from batches

    def act(self) -> None:
        chance, log = self.chance, self.log
        name = chance.choice(["a", "b", "c", "p", "A", "z", "waits"])
        kind = chance.choice([*["append"] * 4, "fork", "rename", "forget", "prune", "prune", "delete", "copy", "half"])
        if kind == "append" or name not in log or not len(log.run(name)):
            grow(log, name, [f"{n:05}" for n in islice(self.numbers, 2)])
            return
        run = log.run(name)
        ids = list(run.given_ids())
        if kind == "fork":
            run.fork().append({"last": kind})
        elif kind == "rename" and ids:
            run.write(run.prepare({"last": kind}, at=ids[0], id=ids[-1]))
        elif kind == "forget":
            run.forget(ids[:1])
        elif kind == "prune" and ids:
            run.prune(ids[:2])
        elif kind == "delete":
            log.delete(name)
        elif kind == "half":
            half(log, 1, lambda: log.delete(name))
        elif kind == "copy":
            target = chance.choice([each for each in ("a", "b", "c", "A", "z") if each != name])
            if target not in log:
                log.copy(name, target)


@pytest.mark.parametrize("seed", range(2 * DEEP))
def test_writers_who_never_end(storage: Storage, seed: int) -> None:
    busy, reads = Busy(seed), count()
    commits, pace = busy.commits(), [1, 2, 3, 5][seed % 4]

    def meanwhile() -> None:
        if next(reads) % pace == 0:
            storage.commit(*next(commits))

    fill(storage, busy.pairs)
    log = EventLog(Between(storage, meanwhile))
    for _ in range(3):
        assert list(log.verify()) == []
    storage.commit([(key := event_key(1, 0, 0), b"stray")])
    assert [problem.where for problem in log.verify()] == [where(key)]


def test_a_run_that_is_deleted_meanwhile_has_no_problems(storage: Storage) -> None:
    log = EventLog(storage)
    grow(log, "a", "ab")
    looks = count()
    meanwhile = lambda: next(looks) == 1 and log.delete("a")
    assert list(EventLog(Between(storage, meanwhile)).verify("a")) == []
    assert next(looks) > 1
    with pytest.raises(NotFoundError):
        list(log.verify("a"))


def test_what_is_whole_is_read_once_and_what_is_damaged_twice(storage: Storage) -> None:
    counted = CountingStorage(storage)
    log = EventLog(counted)
    grow(log, "a", "abcd")
    with counted.counted() as whole:
        assert list(log.verify()) == []
    assert whole.keys_read["E"] == 4 + 1  # one more of all that may be strays
    key, record = list(storage.scan([(b"E", b"F")]))[-1]
    storage.commit([(key, record[:-1])])
    with counted.counted() as broken:
        assert list(log.verify())
    assert broken.keys_read["E"] <= 2 * 5 + 1  # the id that names it is looked for


def told(row: list[Any]) -> Iterator[list[Any]]:
    """What else a manifest could say of a channel."""
    if len(row) == 3:  # small, where it was set
        yield [*row[:2], MSGPACK.encode("else")]
    else:
        place, bounds = row[2], row[5] if len(row) > 5 else None
        if isinstance(place, list):
            yield [*row[:2], [0, 0, 0, 0, 9], *row[3:]]  # the part of another event
        else:
            yield [*row[:2], MSGPACK.encode(["else"]), *row[3:]]
        if bounds is not None and bounds[1] < bounds[2]:
            yield [*row[:5], [*bounds[:-1], bounds[-1] - 1]]
            yield [*row[:5], [bounds[0], bounds[1] + 1, *bounds[2:]]]
            if isinstance(place, list):
                yield row[:5]


def test_a_manifest_that_says_what_the_events_do_not_is_found() -> None:
    storage = MemoryStorage()
    with EventLog(storage) as log:
        run = log.run("r")
        run.append({"n": 0, "list": [], "part": ["x" * 2000], "often": [], "rest": "y" * 2000})
        for n in range(600):
            run.append({"n": n, "list": Extend(["z" * 300]), "often": Extend([n]), "part": Extend([n] * (n % 50 == 0))})
        assert list(log.verify()) == []
        manifests = list(storage.scan([all_of(MANIFEST, run._branches.run)]))
        assert list(storage.scan([all_of(SNAPSHOT, run._branches.run)]))
        tried = 0
        for key, record in [manifests[2], manifests[-1]]:
            rows = msgpack.unpackb(unseal(key, record))
            for index, row in enumerate(rows):
                for other in told(row):
                    storage.commit([(key, seal(key, scalars([*rows[:index], other, *rows[index + 1 :]])))])
                    [problem] = log.verify()
                    assert problem.what == f"channel {row[0]!r} has another value than the events say", (row, other)
                    tried += 1
            storage.commit([(key, seal(key, scalars(rows[::-1])))])
            [problem] = log.verify()
            assert problem.what == "it lists other channels than the events"
            storage.commit([(key, record)])
        assert tried > 10
        for key, record in storage.scan([all_of(SNAPSHOT, run._branches.run)]):
            storage.commit([(key, seal(key, MSGPACK.encode([1, 2, 3])))])
            found = [problem.what for problem in log.verify()]
            assert found
            assert all(
                re.fullmatch("channel '(often|part)' has another value than the events say", each) for each in found
            )
            storage.commit([(key, record)])
        assert list(log.verify()) == []


@pytest.mark.parametrize("each", [1, 300])
@pytest.mark.parametrize("others", [0, 1])
def test_what_one_event_costs_to_verify_does_not_grow_with_the_run(each: int, others: int) -> None:
    """Lists that are written whole now and then, and that never are; that each event changes, and every other one."""
    read = []
    for length in (1000, 4000):
        counting = CountingStorage(MemoryStorage())
        with EventLog(counting) as log:
            writes = [{"items": Extend(["x" * each])}, *[{"n": 1}] * others]
            log.run("r").append({"items": [], "n": 0})
            log.run("r").append_many(writes[n % len(writes)] for n in range(length))
            with counting.counted() as tally:
                assert list(log.verify()) == []
        assert tally.keys_read["M"] > length / 100
        read.append(tally.keys_read.total() / length)
    assert read[1] < 1.5 * read[0], read


@pytest.mark.parametrize("kind", [NAME, BRANCH, SEGMENT])
def test_what_is_damaged_in_one_run_hides_nothing_of_the_others(storage: Storage, kind: bytes) -> None:
    log = EventLog(storage)
    for name in "abcd":
        grow(log, name, "x")
    pairs = everything(storage)
    first = min(key for key in pairs if key[:1] == kind)
    broken = damaged(pairs, first)
    for key in [key for key in pairs if key[:1] == PART]:
        broken = damaged(broken, key)
    fill(storage, broken)
    problems = list(log.verify())
    hidden = {problem.where for problem in problems if problem.what == "belongs to no run in the catalogue"}
    runs = {bytes.fromhex(text[text.index("(run ") + 5 :][:16]) for text in hidden if "(run " in text}
    assert len(runs) == (kind == NAME)  # only the one that no name leads to
    assert len({problem.run for problem in problems if "checksum differs" in problem.what} - {None}) >= 3
    assert any(where(first) in str(problem) for problem in problems)


def test_every_record_that_is_damaged_is_named_once(storage: Storage) -> None:
    """One that is damaged hides none behind it, in the same run or elsewhere."""
    log = EventLog(storage)
    for name in ("a", "b"):
        run = log.run(name)
        for n in range(40):
            run.append({"small": n, "large": str(n) * 2000})
    broken = pairs = everything(storage)
    wanted = {EVENT: (3, 4, 39), PART: (5, 20)}
    keys = [key for key in pairs if key[:1] in wanted and place_of(key)[1] in wanted[key[:1]]]
    for key in keys:
        broken = damaged(broken, key)
    fill(storage, broken)
    told = [str(problem) for problem in EventLog(storage).verify()]
    assert len(keys) == 2 * 5
    for key in keys:
        assert len([text for text in told if where(key) in text and "checksum" in text]) == 1, (where(key), told)


def test_a_branch_that_is_lost_is_missed_in_a_run_that_was_pruned(storage: Storage) -> None:
    log = EventLog(storage)
    begin(log)
    number = log._catalog.find(("p",)).number  # type: ignore[union-attr]
    storage.commit([], [branch_key(number, "side")])
    assert [(problem.where, problem.what) for problem in log.verify()] == [("segment 1", "no branch leads to it")]


@pytest.mark.parametrize("name", ["p", None])
def test_a_name_that_leads_to_the_run_of_another_one(storage: Storage, name: str | None) -> None:
    log = EventLog(storage)
    begin(log)
    key, other = name_key(("p",)), log._catalog.find(("a",))
    fields = unseal_fields(key, storage.get([key])[0] or b"")
    fields[2] = other.number  # type: ignore[union-attr]
    storage.commit([(key, seal_fields(key, fields))])
    found = [problem for problem in log.verify(name) if problem.run == "p"]
    assert [problem.where for problem in found] == [where(key)]


def test_a_run_with_copies_lacks_the_record_of_who_began_it(storage: Storage) -> None:
    log = EventLog(storage)
    begin(log)
    key = owner_key(log._catalog.find(("a",)).number, 0)  # type: ignore[union-attr]
    storage.commit([], [key])
    assert where(key) in [problem.where for problem in log.verify()]


class Torn(CountingStorage):
    """What cannot be read behind some key, as where a page of the file is damaged."""

    def __init__(self, inner: Storage, key: bytes) -> None:
        super().__init__(inner)
        self.key = key

    def scan(self, *args: Any, **more: Any) -> Iterator[tuple[bytes, bytes]]:
        for pair in super().scan(*args, **more):
            if pair[0] >= self.key and pair[0][:1] == self.key[:1]:
                raise CorruptionError("data.mdb", "a page is damaged")
            yield pair


@pytest.mark.parametrize("kind", [NAME, EVENT])
def test_what_cannot_be_read_hides_nothing_else(storage: Storage, kind: bytes) -> None:
    begin(EventLog(storage))
    pairs = everything(storage)
    last = max(key for key in pairs if key[:1] == kind)[:9]
    storage.commit([(key, pairs[key][:-1]) for key in pairs if key[:1] == PART])
    problems = list(EventLog(Torn(storage, last)).verify())
    assert [problem.what for problem in problems if problem.run is None]
    assert all("a page is damaged" in problem.what for problem in problems if problem.run is None)
    assert len({problem.run for problem in problems}) >= 3
