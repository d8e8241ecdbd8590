"""Any sequence of calls, against a model that is obviously right: lists of dicts, copied at every step.

``EVENTLOG_DEEP=20 pytest tests/property`` looks twenty times as long.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from eventlog import (
    AppendText,
    ConflictError,
    Delete,
    EventLog,
    Extend,
    InvalidInputError,
    Merge,
    NotFoundError,
    Splice,
    Update,
)
from eventlog.codec import MSGPACK
from eventlog.storage import Storage, open_storage
from eventlog.storage.memory import MemoryStorage
from tests.engines import DEEP, LOCATIONS, PERSISTENT, SLOW
from tests.strict import Note, hashables, strictly_equal, values

channels = st.sampled_from(["a", "b", "list", "text", "dict"])
long_text = st.builds(lambda text, times: text * times, st.text("xyé", min_size=1, max_size=4), st.integers(1, 400))
leaves = st.integers(0, 9) | values(4) | long_text
keys = st.sampled_from(["k", "l", "m"]) | hashables()
some_lists = st.lists(leaves, max_size=4)
some_dicts = st.dictionaries(keys, leaves | some_lists | st.dictionaries(keys, leaves, max_size=3), max_size=4)
whole = {"list": some_lists, "text": long_text | st.just(""), "dict": some_dicts}
states = st.fixed_dictionaries({}, optional={"a": leaves, "b": leaves | some_lists, **whole})


@dataclass
class Step:
    event: Any
    number: int
    state: dict[str, Any]


class Model(dict[str, dict[str, list[Step]]]):
    """Run name → branch name → the steps of its whole history."""


def applied(value: Any, operation: Any) -> Any:
    """What an operation makes of a value; None stands for an absent one nowhere: `...` does."""
    if isinstance(operation, Extend):
        return ([] if value is ... else value) + list(operation.items)
    if isinstance(operation, Splice):
        result = [] if value is ... else list(value)
        for start, removed, items in reversed(operation.edits):
            result[start : start + removed] = items
        return result
    if isinstance(operation, AppendText):
        return ("" if value is ... else value) + operation.text
    if isinstance(operation, Merge):
        result = {} if value is ... else dict(value)
        for key, item in operation.changes.items():
            if isinstance(item, Delete):
                result.pop(key, None)
            else:
                result[key] = applied(result.get(key, ...), item)
        return result
    return operation.value if isinstance(operation, Update) else operation


def after(state: dict[str, Any], writes: dict[str, Any]) -> dict[str, Any]:
    state = dict(state)
    for channel, operation in writes.items():
        if isinstance(operation, Delete):
            del state[channel]
        else:
            state[channel] = applied(state.get(channel, ...), operation)
    return copy.deepcopy(state)


@st.composite
def operations(draw: Any, value: Any, depth: int = 0) -> Any:
    """A write that fits `value` (`...` if the channel or key is absent)."""
    kinds: list[Any] = [leaves]
    if value is ... or type(value) is list:
        kinds += [st.builds(Extend, some_lists)] * 3 + [splices(0 if value is ... else len(value))] * 3
    if value is ... or type(value) is str:
        kinds += [st.builds(AppendText, st.text("xyé", max_size=9))] * 2
    if (value is ... or type(value) is dict) and depth < 3:
        kinds += [merges(value, depth)] * 3
    if value is not ... or depth:
        kinds.append(st.just(Delete()))
    if not depth:
        kinds.append(st.builds(Update, leaves if value is ... else mutated(value)))
    return draw(draw(st.sampled_from(kinds)))


@st.composite
def splices(draw: Any, length: int) -> Splice:
    bounds = sorted(draw(st.lists(st.integers(0, length), max_size=6)))
    return Splice(
        [(start, end - start, draw(some_lists)) for start, end in zip(bounds[::2], bounds[1::2], strict=False)]
    )


def can_be_named(key: Any) -> bool:
    """Whether a copy of the key finds it in a dict; NaN, and what holds one, finds nothing but itself."""
    return MSGPACK.decode(MSGPACK.encode(key)) == key


@st.composite
def merges(draw: Any, value: Any, depth: int) -> Merge:
    known = [key for key in value if can_be_named(key)] if type(value) is dict else []
    changes: dict[Any, Any] = {}
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(known)) if known and draw(st.booleans()) else draw(keys.filter(can_be_named))
        before = value.get(key, ...) if type(value) is dict else ...
        changes[key] = draw(operations(before, depth + 1))
    return Merge(changes)


@st.composite
def mutated(draw: Any, value: Any) -> Any:
    """A value near `value`; containers are new ones."""
    value = copy.deepcopy(value)
    draw(mutations(value))
    return value if draw(st.booleans()) or type(value) not in (list, str) else value + value[:1]


@st.composite
def mutations(draw: Any, value: Any) -> None:
    """Changes `value` in place, at any depth, as far as it can be changed."""
    inner = []
    if type(value) is list:
        inner = value
        how = draw(st.sampled_from(["append", "replace", "pop", "insert", "splice", "reverse", "go in"]))
        if how == "append":
            value.append(draw(leaves))
        elif how == "replace" and value:
            value[draw(st.integers(0, len(value) - 1))] = draw(leaves)
        elif how == "pop" and value:
            value.pop(draw(st.integers(0, len(value) - 1)))
        elif how == "insert":
            value.insert(draw(st.integers(0, len(value))), draw(leaves))
        elif how == "splice":
            start = draw(st.integers(0, len(value)))
            value[start : draw(st.integers(start, len(value)))] = draw(some_lists)
        elif how == "reverse":
            value.reverse()
    elif type(value) is dict:
        inner = list(value.values())
        how = draw(st.sampled_from(["set", "set known", "pop", "move", "go in"]))
        if how == "set":
            value[draw(keys)] = draw(leaves)
        elif value and how != "go in":
            key = draw(st.sampled_from(list(value)))
            item = value.pop(key) if how != "set known" else None
            if how == "set known":
                value[key] = draw(leaves)
            elif how == "move":
                value[key] = item
    elif type(value) is set:
        value.add(draw(st.integers(0, 9)))
    elif type(value) is bytearray:
        value.append(draw(st.integers(0, 255)))
    elif type(value) is tuple:
        inner = list(value)
    elif type(value) is Note:
        inner = [value.tags, value.about]
        value.text += "."
    if inner and draw(st.booleans()):
        draw(mutations(draw(st.sampled_from(list(inner)))))


class Machine(RuleBasedStateMachine):
    """One log, two run names, handles that may be stale."""

    def open_storage(self) -> Any:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.now = 0
        self.log = self.opened()
        self.model = Model()
        self.gone: list[Any] = []
        self.name, self.branch = "r", "main"
        self.run = self.log.run("r")
        self.live: dict[str, Any] = {}

    def opened(self) -> EventLog:
        return EventLog(self.open_storage(), clock=self.clock)

    def clock(self) -> int:
        self.now += 1
        return self.now

    # --- what the model says --------------------------------------------------------------------------------------

    @property
    def steps(self) -> list[Step]:
        return self.model.get(self.name, {}).get(self.branch, [])

    @property
    def state(self) -> dict[str, Any]:
        return self.steps[-1].state if self.steps else {}

    def wrote(self, event: Any, state: dict[str, Any]) -> None:
        steps = self.model.setdefault(self.name, {}).setdefault(self.branch, [])
        number = steps[-1].number + 1 if steps else 0
        assert event.step >= number
        assert event.seq == len(steps)
        steps.append(Step(event, event.step, copy.deepcopy(state)))
        self.check_head()

    def check_head(self) -> None:
        assert len(self.run) == len(self.steps)
        assert self.run.step == (self.steps[-1].number if self.steps else -1)
        assert self.run.head == (self.steps[-1].event if self.steps else None)
        self.check_state(self.run.state, self.state)

    def check_state(self, state: Any, wanted: dict[str, Any]) -> None:
        assert set(state) == set(wanted)
        for channel, value in wanted.items():
            assert strictly_equal(state[channel], value), (channel, state[channel], value)

    # --- writing --------------------------------------------------------------------------------------------------

    @rule(data=st.data(), gap=st.sampled_from([None, None, None, 1, 5]))
    def append(self, data: Any, gap: int | None) -> None:
        writes = {}
        for channel in data.draw(st.lists(channels, max_size=3, unique=True)):
            writes[channel] = data.draw(operations(self.state.get(channel, ...)))
        step = None if gap is None else self.run.step + gap
        self.wrote(self.run.append(writes, step=step, meta={"n": self.now}), after(self.state, writes))

    @rule(data=st.data())
    def append_many(self, data: Any) -> None:
        batch, states = [], [self.state]
        for _ in range(data.draw(st.integers(0, 4))):
            writes = {}
            for channel in data.draw(st.lists(channels, max_size=2, unique=True)):
                writes[channel] = data.draw(operations(states[-1].get(channel, ...)))
            batch.append(writes)
            states.append(after(states[-1], writes))
        events = self.run.append_many(batch)
        assert len(events) == len(batch)
        steps = self.model.setdefault(self.name, {}).setdefault(self.branch, []) if batch else []
        for event, state in zip(events, states[1:], strict=True):
            steps.append(Step(event, event.step, state))
        self.check_head()

    @rule(data=st.data(), times=st.integers(20, 60))
    def append_often(self, data: Any, times: int) -> None:
        """Enough for manifests and snapshots to be due."""
        item = data.draw(long_text | st.integers(0, 9))
        for n in range(times):
            writes = {"often": Extend([item, n]), "n": n}
            self.wrote_unchecked(self.run.append(writes), after(self.state, writes))
        self.check_head()

    def wrote_unchecked(self, event: Any, state: dict[str, Any]) -> None:
        steps = self.model.setdefault(self.name, {}).setdefault(self.branch, [])
        steps.append(Step(event, event.step, state))

    @rule(state=states)
    def commit_another(self, state: dict[str, Any]) -> None:
        self.live = state
        self.wrote(self.run.commit(state), state)

    @rule(data=st.data(), times=st.integers(1, 3))
    def commit_what_was_changed_in_place(self, data: Any, times: int) -> None:
        if set(self.live) != set(self.state) or not all(strictly_equal(self.live[c], self.state[c]) for c in self.live):
            self.live = copy.deepcopy(self.state)
        for _ in range(times):
            if self.live:
                channel = data.draw(st.sampled_from(sorted(self.live)))
                data.draw(mutations(self.live[channel]))
        self.wrote(self.run.commit(self.live), self.live)

    @rule()
    def commit_the_same(self) -> None:
        event = self.run.commit(self.run.state)
        assert event.writes == {}
        self.wrote(event, self.state)

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def append_what_an_event_says_once_more(self, data: Any) -> None:
        """An event's writes make the same change to the same state."""
        step = data.draw(st.sampled_from(self.steps[-20:]))
        index = self.steps.index(step)
        before = self.steps[index - 1].state if index else {}
        if index:
            fork = self.run.fork(self.steps[index - 1].event, name=None)
            fork.append(self.run.event(step.event).writes)
            self.check_state(fork.state, step.state)
            self.model[self.name][fork.branch_name] = [*self.steps[:index], Step(fork.head, fork.step, step.state)]
        else:
            self.check_state(after(before, dict(step.event.writes)), step.state)

    @rule(data=st.data())
    def refused(self, data: Any) -> None:
        bad = data.draw(
            st.sampled_from(
                [{"a": 1, "x": print}, {"a": 1, "": 2}, {"a": 1, "none": Delete()}, {"a": 1, "b": object()}]
            )
        )
        with pytest.raises(InvalidInputError):
            self.run.append(bad)
        with pytest.raises(InvalidInputError):
            self.run.append_many([{"a": 2}, bad])
        self.check_head()

    @precondition(lambda self: self.steps)
    @rule()
    def stale(self) -> None:
        other = self.log.run(self.name).branch(self.branch)
        event = other.append({"a": "other"})
        with pytest.raises(ConflictError) as caught:
            self.run.append({"a": "late"})
        assert (caught.value.expected, caught.value.actual) == (self.steps[-1].event.id, event.id)
        self.check_head()
        self.run.refresh()
        self.wrote(event, {**self.state, "a": "other"})

    # --- branches -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.steps)
    @rule(data=st.data(), named=st.booleans(), switch=st.booleans())
    def fork(self, data: Any, named: bool, switch: bool) -> None:
        index = data.draw(st.integers(0, len(self.steps) - 1))
        branches = self.model[self.name]
        name = f"own {len(branches)}" if named else None
        fork = self.run.fork(self.steps[index].number, name)
        assert fork.branch_name not in branches
        branches[fork.branch_name] = self.steps[: index + 1]
        if switch:
            self.run, self.branch, self.live = fork, fork.branch_name, {}
        self.check_head()

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def switch_branch(self, data: Any) -> None:
        self.branch = data.draw(st.sampled_from(sorted(self.model[self.name])))
        self.run = self.run.branch(self.branch)
        self.check_head()

    @rule(name=st.sampled_from(["r", ("r", "inner")]))
    def switch_run(self, name: Any) -> None:
        self.name, self.branch = name, "main"
        self.run = self.log.run(name)
        self.check_head()

    @precondition(lambda self: self.steps)
    @rule()
    def delete(self) -> None:
        self.gone.append(self.steps[-1].event)
        self.log.delete(self.name)
        with pytest.raises(NotFoundError):
            self.run.append({"a": 1})
        del self.model[self.name]
        self.branch, self.run = "main", self.log.run(self.name)
        self.check_head()

    # --- what can be derived, and what is opened again --------------------------------------------------------------

    @precondition(lambda self: self.steps)
    @rule(through=st.booleans())
    def drop_snapshots(self, through: bool) -> None:
        run = self.run if through else self.log.run(self.name)
        run.drop_snapshots()
        self.check_head()

    @rule()
    def reopen(self) -> None:
        self.log = self.reopened()
        self.run = self.log.run(self.name)
        if self.steps:
            self.run = self.run.branch(self.branch)
        self.check_head()

    def reopened(self) -> EventLog:
        self.log.close()
        return self.opened()

    # --- looking --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def look_back(self, data: Any) -> None:
        step = data.draw(st.sampled_from(self.steps))
        where = data.draw(st.sampled_from([step.number, step.event, step.event.id]))
        state = self.run.at(where)
        assert state.event == step.event
        self.check_state(state, step.state)
        assert [event.id for event in self.run.events()] == [step.event.id for step in self.steps]
        known = {step.number for step in self.steps}
        for number in range(self.run.step + 3):
            if number not in known:
                with pytest.raises(NotFoundError):
                    self.run.at(number)
                break

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def replay(self, data: Any) -> None:
        first = data.draw(st.integers(0, len(self.steps) - 1))
        last = data.draw(st.integers(first, min(len(self.steps) - 1, first + 30)))
        replayed = list(self.run.replay(self.steps[first].number, self.steps[last].number))
        assert len(replayed) == last - first + 1
        for (event, state), step in zip(replayed, self.steps[first : last + 1], strict=True):
            assert event == step.event
            self.check_state(state, step.state)

    @precondition(lambda self: self.gone)
    @rule()
    def what_is_gone_stays_gone(self) -> None:
        for event in self.gone:
            if event.run == self.name:
                with pytest.raises(NotFoundError):
                    self.run.at(event)
                with pytest.raises(NotFoundError):
                    self.run.at(event.id)

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        for name, branches in self.model.items():
            run = self.log.run(name)
            assert {branch.name for branch in run.branches()} == set(branches)
            for branch, steps in branches.items():
                handle = run.branch(branch)
                assert len(handle) == len(steps)
                self.check_state(handle.state, steps[-1].state)
                for step in steps[:: max(1, len(steps) // 5)]:
                    self.check_state(handle.at(step.event), step.state)
        assert set(self.log.runs()) >= set(self.model)
        assert list(self.log.verify()) == []
        self.close()

    def close(self) -> None:
        self.log.close()


class OnMemory(Machine):
    """Opening it again is a new log on the same storage: nothing that a handle knew is left."""

    def open_storage(self) -> MemoryStorage:
        if not hasattr(self, "storage"):
            self.storage = MemoryStorage()
        return self.storage

    def reopened(self) -> EventLog:
        return self.opened()


class Persistent(Machine):
    """Closed and opened again for real, on one of the engines."""

    engine: str

    def open_storage(self) -> Storage:
        if not hasattr(self, "directory"):
            self.directory = Path(tempfile.mkdtemp(prefix="eventlog-model-"))
        return open_storage(LOCATIONS[self.engine](self.directory))

    def close(self) -> None:
        super().close()
        shutil.rmtree(self.directory, ignore_errors=True)


COMMON = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}


def test_on_memory() -> None:
    run_state_machine_as_test(OnMemory, settings=settings(max_examples=200 * DEEP, stateful_step_count=30, **COMMON))


@pytest.mark.parametrize("engine", PERSISTENT)
def test_on_an_engine_that_outlives_its_handles(engine: str) -> None:
    machine = type("On", (Persistent,), {"engine": engine})
    examples = (5 if engine in SLOW else 20) * DEEP
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=20, **COMMON))
