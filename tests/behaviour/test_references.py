"""What tasks wrote is kept once: by the event that says the same, over every engine. It reads as it was put, always."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage

from eventlog import (
    AppendText,
    ConflictError,
    CorruptionError,
    Delete,
    EventLog,
    EventLogError,
    Extend,
    Merge,
    TaskWrite,
    Update,
)
from eventlog.records import seal_fields, unseal_fields
from eventlog.storage.memory import MemoryStorage
from savers.langgraph.serde import SerdeCodec, strict_serializer
from tests.counting import CountingStorage
from tests.strict import Note, strictly_equal, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventlog import Run
    from eventlog.storage import Storage

    Write = Callable[[Run, dict[str, Any]], object]

TASK_WRITES = (b"W", b"X")
EVENTS, PARTS = (b"E", b"F"), (b"P", b"Q")


@pytest.fixture
def log(storage: Storage) -> Iterator[EventLog]:
    log = EventLog(storage)
    yield log
    assert list(log.verify()) == []


@pytest.fixture
def run(log: EventLog) -> Run:
    return log.run("r")


def prose(n: int, words: int = 400) -> str:
    """Text that hardly repeats itself, 9 bytes a word."""
    return " ".join(blake2b(b"%d.%d" % (n, word), digest_size=4).hexdigest() for word in range(words))


def item(n: int, **fields: Any) -> dict[str, Any]:
    return {"n": n, "text": prose(n), "id": None, **fields}


def puts(*channels_and_values: Any, task: str = "t") -> list[TaskWrite]:
    """One task's writes: channel, value, channel, value ..."""
    pairs = zip(channels_and_values[::2], channels_and_values[1::2], strict=True)
    return [TaskWrite(task, slot, channel, value) for slot, (channel, value) in enumerate(pairs)]


def size(log: EventLog) -> int:
    """Bytes that are stored of what tasks wrote."""
    return sum(len(record) for _, record in log._storage.scan([TASK_WRITES]))


def waiting_bytes(log: EventLog) -> int:
    """The same of what waits for its event."""
    return sum(len(record) for _, record in log._storage.scan([(b"U", b"V")]))


def same(found: list[TaskWrite], wanted: list[TaskWrite]) -> bool:
    wanted = sorted(wanted, key=lambda write: (write.path, write.task, write.slot))
    return strictly_equal([tuple(write) for write in found], [tuple(write) for write in wanted])


def reads(log: EventLog, where: Any, wanted: list[TaskWrite]) -> bool:
    """Whether new handles, of this log and of another one on the same storage, read what is `wanted`."""
    runs = [log.run("r"), EventLog(log._storage).run("r")]
    return all(same(run.task_writes(where), wanted) for run in runs)


def appended(run: Run, writes: dict[str, Any]) -> None:
    run.append(writes, id="next")


def prepared(run: Run, writes: dict[str, Any]) -> None:
    run.write(run.prepare(writes, at=run.head, id="next"))


def batched(run: Run, writes: dict[str, Any]) -> None:
    run.append_many([writes, {"last": 1}])


def committed(run: Run, writes: dict[str, Any]) -> None:
    """As a caller who knows the state only."""
    copy = run.fork()
    copy.append(writes)
    run.commit(dict(copy.state))


SAYS_THE_SAME: dict[str, tuple[dict[str, Any], list[TaskWrite], dict[str, Any]]] = {
    "a value": ({}, puts("c", item(1)), {"c": item(1)}),
    "a small value": ({}, puts("c", prose(1, 12)), {"c": prose(1, 12)}),
    "text": ({}, puts("c", prose(1)), {"c": prose(1)}),
    "a dataclass": ({}, puts("c", Note(prose(1), [1, (2,)])), {"c": Note(prose(1), [1, (2,)])}),
    "a list that grows": ({"c": [0]}, puts("c", [item(1)]), {"c": Extend([item(1)])}),
    "a list made anew": ({"c": [item(0)]}, puts("c", [item(1)]), {"c": [item(0), item(1)]}),
    "a list that is compared": ({"c": [item(0)]}, puts("c", [item(1)]), {"c": Update([item(0), item(1)])}),
    "a part of a list": ({"c": []}, puts("c", [item(2)]), {"c": Extend([item(1), item(2), item(3)])}),
    "one item of a list": ({"c": []}, puts("c", item(2)), {"c": Extend([item(1), item(2)])}),
    "text that grows": ({"c": "a"}, puts("c", prose(1)), {"c": AppendText(prose(1))}),
    "one key of a dict": ({"c": {"a": 1}}, puts("c", {"k": prose(1)}), {"c": Merge({"k": prose(1)})}),
    "a dict's list": ({"c": {"l": [0]}}, puts("c", {"l": [item(1)]}), {"c": Merge({"l": Extend([item(1)])})}),
    "what got an id": ({"c": []}, puts("c", [item(1)]), {"c": Extend([item(1, id=str(uuid.UUID(int=7)))])}),
    "what lost its end": ({"c": ""}, puts("c", prose(1) + " the end"), {"c": prose(1)}),
    "several channels": (
        {"a": [], "b": {}, "s": 0},
        puts("s", 1, "a", [item(1)], "b", {"k": prose(2)}, "d", prose(3), "n", None),
        {"s": 1, "a": Extend([item(1)]), "b": Merge({"k": prose(2)}), "d": prose(3), "n": None},
    ),
    "two tasks": (
        {"c": []},
        puts("c", [item(1)], task="t") + puts("c", [item(2)], task="u"),
        {"c": Extend([item(1), item(2)])},
    ),
    "one task twice": ({"c": []}, puts("c", [item(1)], "c", [item(2)]), {"c": Extend([item(1), item(2)])}),
}


class TestKeptOnce:
    @pytest.mark.parametrize("write", [appended, prepared, batched, committed])
    @pytest.mark.parametrize(("state", "put", "writes"), SAYS_THE_SAME.values(), ids=SAYS_THE_SAME)
    def test_by_the_event_that_says_it(
        self, log: EventLog, run: Run, write: Write, state: Any, put: Any, writes: Any
    ) -> None:
        run.append(state, id="base")
        run.put_task_writes("base", put)
        assert same(run.task_writes("base"), put)
        before = size(log)
        write(run, writes)
        assert same(run.task_writes("base"), put)
        assert reads(log, "base", put)
        assert reads(log, 0, put)
        assert reads(log, "next" if write in (appended, prepared) else run.head, [])
        assert size(log) < before
        if before > 1000:
            assert size(log) < 350

    def test_the_event_that_says_it_is_read_once_however_wide_it_is(self, storage: Storage) -> None:
        counting = CountingStorage(storage)
        run = EventLog(counting).run("r")
        run.append({}, id="base")
        values = {f"c{n}": prose(n, 12) for n in range(40)} | {f"d{n}": prose(n) for n in range(10)}
        put = [write for channel in values for write in puts(channel, values[channel], task=channel)]
        run.put_task_writes("base", put)
        run.append(values, id="next")
        with counting.counted() as tally:
            assert same(run.task_writes("base"), put)
        assert tally.keys_read["E"] == 1
        assert tally.keys_read["P"] == 10

    @pytest.mark.parametrize(
        ("put", "writes"),
        [
            (puts("c", item(1)), {}),
            (puts("c", item(1)), {"d": item(1)}),
            (puts("c", item(1)), {"c": item(2)}),
            (puts("c", item(1)), {"c": Delete()}),
            (puts("c", item(1), "s", 1), {"c": None, "s": 1}),
            (puts("c", "short"), {"c": "short"}),
            (puts("c", ""), {"c": prose(1)}),
            (puts("c", prose(1)), {"c": prose(1)[:50]}),
        ],
    )
    def test_not_by_one_that_says_something_else(self, log: EventLog, run: Run, put: Any, writes: Any) -> None:
        run.append({"c": 0}, id="base")
        run.put_task_writes("base", put)
        run.append(writes, id="next")
        assert same(run.task_writes("base"), put)
        assert reads(log, "base", put)

    @pytest.mark.parametrize("write", [appended, prepared])
    def test_of_what_was_put_before_the_event_that_it_follows(self, log: EventLog, run: Run, write: Write) -> None:
        run.append({"c": []}, id="first")
        put = puts("c", [item(1)], "s", 1, task="t") + puts("c", [item(2)], task="u")
        run.put_task_writes("base", put[:2])
        run.put_task_writes("base", put[2:])
        before = waiting_bytes(log)
        run.write(run.prepare({"n": 1}, at=run.head, id="base"))
        assert same(run.task_writes("base"), put)
        write(run, {"c": Extend([item(1), item(2)])})
        assert reads(log, "base", put)
        assert reads(log, 1, put)
        assert reads(log, "next", [])
        assert size(log) + waiting_bytes(log) < 500 < before
        again = puts("c", "later", "s", 3, "x", "more", task="t")
        run.put_task_writes("base", again)
        assert reads(log, "base", [*put, again[2]])

    def test_not_if_more_was_put_meanwhile_by_somebody_else(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="first")
        run.put_task_writes("base", puts("c", [item(1)]))
        run.write(run.prepare({"n": 1}, at=run.head, id="base"))
        more = puts("c", [item(1)], "d", prose(3))
        EventLog(log._storage).run("r").put_task_writes("base", more)
        run.append({"c": Extend([item(1)])})
        assert reads(log, "base", more)

    def test_step_after_step(self, log: EventLog, run: Run) -> None:
        """As a graph does: each superstep's tasks extend a list, which its checkpoint then holds."""
        ids = [str(uuid.UUID(int=n, version=4)) for n in range(30)]
        run.write(run.prepare({"c": []}, id=ids[0]))
        for n in range(1, 30):
            run.put_task_writes(ids[n - 1], puts("c", [item(n)], "to", n, task=ids[-n]))
            run.write(run.prepare({"c": Extend([item(n)]), "to": n}, at=ids[n - 1], id=ids[n]))
        for n in range(1, 30):
            assert reads(log, ids[n - 1], puts("c", [item(n)], "to", n, task=ids[-n]))
        assert size(log) < 29 * 80

    def test_messages_that_get_their_ids_later(self, storage: Storage, log: EventLog) -> None:
        codec = SerdeCodec(strict_serializer())
        run = log.run("r", codec=codec)
        call = {"name": "search", "args": {"q": prose(1)}, "id": "c1", "type": "tool_call"}
        asks = AIMessage(prose(2), tool_calls=[call])
        tells = [ToolMessage(prose(3 + n), tool_call_id="c1") for n in range(3)]
        run.append({"messages": []}, id="base")
        run.put_task_writes("base", puts("messages", [asks]))
        run.append({"messages": Extend([asks.model_copy(update={"id": "run-1"})])}, id="asked")
        run.put_task_writes("asked", [puts("messages", [one], task=str(n))[0] for n, one in enumerate(tells)])
        run.append({"messages": Extend([one.model_copy(update={"id": str(n)}) for n, one in enumerate(tells)])})
        assert size(log) < 1200
        again = EventLog(storage).run("r", codec=codec)
        assert [write.value for write in again.task_writes("base")] == [[asks]]
        assert [write.value for write in again.task_writes("asked")] == [[one] for one in tells]

    def test_what_was_put_before_its_event(self, log: EventLog, run: Run) -> None:
        put = puts("c", [item(1)], "c", [item(2)])
        run.put_task_writes("base", put[:1])
        run.append({"c": []}, id="base")
        run.put_task_writes("base", put[1:])
        assert reads(log, "base", put)
        run.append({"c": Extend([item(1), item(2)])}, id="next")
        assert reads(log, "base", put)
        assert size(log) < 300

    def test_what_was_put_by_another_handle_or_another_name_of_the_event(self, log: EventLog, run: Run) -> None:
        event = run.append({"c": []}, id="base")
        run.put_task_writes(event, puts("c", [item(1)]))
        run.put_task_writes(0, puts("c", [item(2)], task="u"))
        log.run("r").put_task_writes("base", puts("c", [item(3)], task="v"))
        wanted = puts("c", [item(1)]) + puts("c", [item(2)], task="u") + puts("c", [item(3)], task="v")
        run.append({"c": Extend([item(1), item(2), item(3)])}, id="next")
        assert reads(log, "base", wanted)
        assert reads(log, event, wanted)

    def test_no_state_needs_them(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="base")
        run.put_task_writes("base", puts("c", [item(1)]))
        event = run.append({"c": Extend([item(1)])}, id="next")
        assert event.writes == {"c": Extend([item(1)])}
        keys = [key for key, _ in log._storage.scan([TASK_WRITES])]
        log._storage.commit([], keys)
        assert log.run("r").state["c"] == [item(1)]
        assert log.run("r").task_writes("base") == []


class TestLater:
    """What happens once the event has what the task wrote."""

    @pytest.fixture
    def known(self, run: Run) -> Run:
        run.append({"c": []}, id="base")
        run.put_task_writes("base", [TaskWrite("t", -1, "c", item(9)), *puts("c", [item(1)], "c", [item(2)])])
        run.append({"c": Extend([item(1), item(2), item(9)])}, id="next")
        return run

    WANTED = (TaskWrite("t", -1, "c", item(9)), *puts("c", [item(1)], "c", [item(2)]))

    def test_the_task_writes_more(self, log: EventLog, known: Run) -> None:
        more = [TaskWrite("t", 5, "c", [item(3)]), TaskWrite("t", 6, "d", 1, "path"), *puts("c", "ignored")]
        known.put_task_writes("base", more)
        wanted = [*self.WANTED, *more[:2]]
        assert reads(log, "base", wanted)
        known.append({"c": Extend([item(3)])})
        assert reads(log, "base", wanted)
        known.put_task_writes("base", more)
        assert reads(log, "base", wanted)

    def test_another_task_writes(self, log: EventLog, known: Run) -> None:
        log.run("r").put_task_writes("base", puts("c", [item(1)], task="u"))
        assert reads(log, "base", [*self.WANTED, *puts("c", [item(1)], task="u")])

    def test_a_special_one_is_replaced(self, log: EventLog, known: Run) -> None:
        for value in (item(9, id="x"), item(8), None, prose(1)):
            known.put_task_writes("base", [TaskWrite("t", -1, "c", value)])
            assert reads(log, "base", [TaskWrite("t", -1, "c", value), *self.WANTED[1:]])

    def test_the_same_again_changes_nothing(self, log: EventLog, known: Run) -> None:
        before = size(log)
        known.put_task_writes("base", self.WANTED[1:])
        assert size(log) == before
        known.append({"c": Extend([item(1), item(2), item(9)])}, id="next", expected="base")
        assert len(known) == 2
        assert reads(log, "base", list(self.WANTED))

    def test_snapshots_are_made_and_dropped(self, log: EventLog, known: Run) -> None:
        for n in range(20):
            known.append({"c": [item(n)]})
        assert reads(log, "base", list(self.WANTED))
        known.drop_snapshots()
        assert reads(log, "base", list(self.WANTED))

    def test_it_is_forked(self, log: EventLog, known: Run) -> None:
        for at in ("base", "next"):
            fork = known.fork(at)
            fork.append({"c": [at]}, id=f"{at} fork")
            assert same(fork.task_writes("base"), list(self.WANTED))
            fork.put_task_writes(f"{at} fork", puts("c", [item(5)]))
            fork.append({"c": Extend([item(5)])})
            assert same(fork.task_writes(f"{at} fork"), puts("c", [item(5)]))
            assert reads(log, f"{at} fork", puts("c", [item(5)]))
            assert reads(log, "base", list(self.WANTED))
        assert size(log) < 800

    def test_another_superstep_follows_the_same_event(self, log: EventLog, known: Run) -> None:
        """As a graph that goes on from an earlier checkpoint: the tasks run again, and their event is on a branch."""
        other = log.run("r")
        other.put_task_writes("base", [TaskWrite("t", -1, "c", item(7)), *puts("c", [item(4)], task="u")])
        event = other.write(other.prepare({"c": Extend([item(4), item(7)])}, at="base", id="other"))
        assert event.branch != "main"
        wanted = [TaskWrite("t", -1, "c", item(7)), *self.WANTED[1:], *puts("c", [item(4)], task="u")]
        assert reads(log, "base", wanted)
        assert [other.state["c"], known.state["c"]] == [[item(4), item(7)], [item(1), item(2), item(9)]]

    def test_the_run_is_deleted(self, log: EventLog, known: Run) -> None:
        log.delete("r")
        assert size(log) == 0
        again = log.run("r")
        assert again.task_writes("base") == []
        again.append({"c": []}, id="base")
        assert again.task_writes("base") == []

    def test_the_id_is_taken_over(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="first")
        wanted = []
        for n in range(4):
            run.write(run.prepare({"c": Extend([item(10 + n)])}, at=run.head, id="x"))
            put = puts("c", [item(n)], task=f"t{n}")
            run.put_task_writes("x", put)
            wanted += put
            run.write(run.prepare({"c": Extend([item(n)])}, at=run.head, id=f"y{n}"))
            assert reads(log, "x", wanted)
        assert size(log) < 4 * 150

    def test_the_log_is_opened_again(self, reopen: Callable[[], Storage]) -> None:
        with EventLog(reopen()) as log:
            run = log.run("r")
            run.append({"c": []}, id="base")
            run.put_task_writes("base", list(self.WANTED))
            run.write(run.prepare({"c": Extend([item(1), item(2), item(9)])}, at="base", id="next"))
        with EventLog(reopen()) as log:
            assert reads(log, "base", list(self.WANTED))
            assert size(log) < 300
            log.run("r").put_task_writes("base", puts("c", [item(2)], task="u"))
        with EventLog(reopen()) as log:
            assert reads(log, "base", [*self.WANTED, *puts("c", [item(2)], task="u")])
            assert list(log.verify()) == []


class TestOthers:
    """Other handles write meanwhile: nothing is lost, and no event fails for it."""

    def test_another_adds_to_the_record_before_the_event(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="base")
        put = [TaskWrite("t", -1, "c", item(1)), *puts("c", [item(2)], "c", [item(3)])]
        run.put_task_writes("base", put[:2])
        log.run("r").put_task_writes("base", [TaskWrite("t", -1, "c", item(4)), put[2]])
        run.append({"c": Extend([item(1), item(2), item(3)])}, id="next")
        assert reads(log, "base", [TaskWrite("t", -1, "c", item(4)), *put[1:]])
        assert run.state["c"] == [item(1), item(2), item(3)]

    def test_another_adds_and_the_id_is_taken(self, log: EventLog, run: Run) -> None:
        """The commit fails for two reasons at once, and is to succeed for all that."""
        run.append({"c": 0}, id="next")
        run.append({"c": []}, id="base")
        run.put_task_writes("base", puts("c", [item(1)]))
        log.run("r").put_task_writes("base", [TaskWrite("t", 1, "c", [item(2)])])
        run.write(run.prepare({"c": Extend([item(1)])}, at="base", id="next"))
        assert run.at("next")["c"] == [item(1)]
        assert reads(log, "base", puts("c", [item(1)], "c", [item(2)]))

    def test_another_event_was_first(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="base")
        run.put_task_writes("base", puts("c", [item(1)]))
        mine = run.prepare({"c": Extend([item(1)])}, at="base", id="mine")
        log.run("r").append({"c": Extend([item(1), "other"])}, id="theirs")
        with pytest.raises(ConflictError):
            run.append({"c": Extend([item(1)])})
        assert reads(log, "base", puts("c", [item(1)]))
        assert run.write(mine).branch != "main"
        assert reads(log, "base", puts("c", [item(1)]))
        run.put_task_writes("mine", puts("c", [item(2)]))
        run.append({"c": Extend([item(2)])}, id="more")
        assert reads(log, "mine", puts("c", [item(2)]))
        assert reads(log, "base", puts("c", [item(1)]))

    def test_a_stale_handle_puts(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="base")
        log.run("r").append({"c": Extend([item(1)])})
        run.put_task_writes("base", puts("c", [item(1)]))
        run.refresh().append({"c": Extend([item(1)])})
        assert reads(log, "base", puts("c", [item(1)]))

    def test_two_handles_put_at_once(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="base")
        start = Barrier(4)

        def put(n: int) -> None:
            handle = run if n == 0 else log.run("r")
            start.wait()
            for slot in range(5):
                handle.put_task_writes("base", [TaskWrite("t", n * 5 + slot, "c", [item(n * 5 + slot)])])
                handle.put_task_writes("base", puts("c", [item(n)], task=f"own {n} {slot}"))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(4)))
        run.append({"c": Extend([item(n) for n in range(20)])}, id="next")
        wanted = [TaskWrite("t", n, "c", [item(n)]) for n in range(20)]
        wanted += [
            write for n in range(4) for slot in range(5) for write in puts("c", [item(n)], task=f"own {n} {slot}")
        ]
        assert reads(log, "base", wanted)

    def test_one_puts_while_another_writes_the_event(self, log: EventLog, run: Run) -> None:
        run.append({"c": []}, id="0")
        other = log.run("r")
        with ThreadPoolExecutor(2) as pool:
            for n in range(20):
                where = str(n)
                run.put_task_writes(where, puts("c", [item(n)]))
                start = Barrier(2)
                event = pool.submit(
                    lambda n=n, start=start: (start.wait(), run.append({"c": Extend([item(n)])}, id=str(n + 1)))
                )
                more = pool.submit(
                    lambda where=where, start=start: (
                        start.wait(),
                        other.put_task_writes(where, [TaskWrite("t", 1, "c", [item(50)]), TaskWrite("t", -1, "c", 1)]),
                    )
                )
                event.result()
                more.result()
                wanted = [TaskWrite("t", -1, "c", 1), *puts("c", [item(n)], "c", [item(50)])]
                assert reads(log, where, wanted)
        assert run.state["c"] == [item(n) for n in range(20)]


def damaged(record: bytes) -> bytes:
    return record[:-5] + bytes([record[-5] ^ 1]) + record[-4:]


class TestVerify:
    @pytest.fixture
    def broken(self, storage: Storage) -> EventLog:
        """A log that a test is going to break, so that nobody verifies it in the end."""
        log = EventLog(storage)
        run = log.run("r")
        run.append({"c": [], "d": 0}, id="base")
        run.put_task_writes("base", puts("c", [item(1)], "d", prose(2, 20)))
        run.append({"c": Extend([item(1)]), "d": prose(2, 20)}, id="next")
        assert list(log.verify()) == []
        assert size(log) < 200
        return EventLog(storage)

    def last(self, log: EventLog, kind: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return list(log._storage.scan([kind]))[-1]

    def names(self, log: EventLog, key: bytes) -> bool:
        """Whether what is wrong with the record at `key` is said."""
        return any(key.hex() in problem.where for problem in log.verify())

    @pytest.mark.parametrize("how", ["damaged", "removed"])
    def test_the_event_that_is_referred_to(self, broken: EventLog, how: str) -> None:
        key, record = self.last(broken, EVENTS)
        broken._storage.commit(*(([(key, damaged(record))], ()) if how == "damaged" else ([], [key])))
        assert self.names(broken, self.last(broken, TASK_WRITES)[0])
        with pytest.raises(EventLogError):
            broken.run("r").task_writes("base")

    @pytest.mark.parametrize("how", ["damaged", "removed"])
    def test_its_part(self, broken: EventLog, how: str) -> None:
        key, record = self.last(broken, PARTS)
        broken._storage.commit(*(([(key, damaged(record))], ()) if how == "damaged" else ([], [key])))
        assert list(broken.verify())
        with pytest.raises(CorruptionError):
            broken.run("r").task_writes("base")

    def test_the_record_itself(self, broken: EventLog) -> None:
        key, record = self.last(broken, TASK_WRITES)
        broken._storage.commit([(key, damaged(record))])
        assert self.names(broken, key)
        with pytest.raises(CorruptionError):
            broken.run("r").task_writes("base")

    def test_a_write_that_the_event_has_not(self, broken: EventLog) -> None:
        key, record = self.last(broken, TASK_WRITES)
        fields = unseal_fields(key, record)
        reference = next(field for field in fields if isinstance(field, list))
        reference[2] += 7
        broken._storage.commit([(key, seal_fields(key, fields))])
        assert self.names(broken, key)

    def test_other_supersteps_can_be_read(self, broken: EventLog) -> None:
        run = broken.run("r")
        run.put_task_writes("next", puts("c", [item(5)]))
        key, _ = next(iter(broken._storage.scan([TASK_WRITES])))
        broken._storage.commit([(key, b"\1" + bytes(20))])
        assert same(run.task_writes("next"), puts("c", [item(5)]))


PIECES = st.lists(
    st.sampled_from([*[item(n) for n in range(3)], prose(4, 20), [prose(5, 9)], 7]) | values(3), max_size=3
)


class TestAnyValues:
    @given(st.data())
    @settings(max_examples=100, deadline=None)
    def test_whatever_the_event_says(self, data: Any) -> None:
        """Tasks write lists; the event says any of them, in any order, changed here and there, or something else."""
        with EventLog(MemoryStorage()) as log:
            run = log.run("r")
            run.append({"a": [], "b": []}, id="0")
            known: dict[str, dict[tuple[str, int], TaskWrite]] = {}
            for n in range(data.draw(st.integers(1, 3))):
                wanted = known.setdefault(str(n), {})
                for _ in range(data.draw(st.integers(1, 3))):
                    where = data.draw(st.sampled_from(list(known)))
                    task, slot = data.draw(st.sampled_from("tu")), data.draw(st.integers(-1, 2))
                    write = TaskWrite(task, slot, data.draw(st.sampled_from("ab")), data.draw(PIECES))
                    run.put_task_writes(where, [write])
                    if slot < 0 or (task, slot) not in known[where]:
                        known[where][task, slot] = write
                said = [piece for write in data.draw(st.permutations(list(wanted.values()))) for piece in write.value]
                how = data.draw(st.sampled_from([list, Extend, Update]))
                run.append({data.draw(st.sampled_from("ab")): how(said), "n": n}, id=str(n + 1))
                for where, writes in known.items():
                    assert reads(log, where, list(writes.values()))
            assert list(log.verify()) == []


def test_a_large_value_that_all_tasks_refer_to_is_read_once() -> None:
    counting = CountingStorage(MemoryStorage())
    with EventLog(counting) as log:
        run = log.run("r")
        run.append({"items": []}, id="before")
        items = [blake2b(b"%d" % n).hexdigest() for n in range(100)]
        run.put_task_writes("before", [TaskWrite(f"task {n}", 0, "items", [item]) for n, item in enumerate(items)])
        run.append({"items": Extend(items)}, id="after")
        fresh = log.run("r")
        with counting.counted() as tally:
            assert sorted(write.value[0] for write in fresh.task_writes("before")) == sorted(items)
        assert tally.keys_read["P"] == 1, tally
        assert tally.keys_read["E"] <= 2, tally
