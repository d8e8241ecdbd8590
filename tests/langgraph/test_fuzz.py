"""Random calls to our saver and to upstream's InMemorySaver, which have to answer the same.

A run is many short episodes, each on fresh savers, so that a failure needs few calls; it names the episode and shows
the calls. ``EVENTLOG_DEEP=20`` runs twenty times as many. Every hazard has to come up, or the fuzzer says nothing.

Where the contract says that savers differ, the calls keep away from the difference:

- Statement 13: upstream keys values by channel and version, so it mixes up two values of one version. Here every new
  value gets a version of its own; a version that was there comes with the value that it had.
- Statement 9: upstream drops values that are not in `new_versions`. Here what is new is in it.
- Statement 1: upstream keeps thread 1 and thread "1" apart. Here ids are strings.
- A late write: what comes under a checkpoint that was deleted with its thread is refused here, and upstream begins the
  thread with it. So such calls are made to ours alone, and have to be refused.
- Statement 23: upstream lists threads and namespaces in the order in which they came, we sorted. So what is listed over
  several of them is compared sorted; with a limit as well, which ones come is free, and the number is compared.
- `get_tuple` by id: upstream gives back the very config it was given, so the three keys that name it are compared.
"""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.base import ERROR, INTERRUPT, RESUME, SCHEDULED
from langgraph.checkpoint.memory import InMemorySaver

from eventlog import NotFoundError
from savers.langgraph import EventLogSaver
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPERATIONS = 2_000 * int(os.environ.get("EVENTLOG_DEEP", "1"))
EPISODE = 100
THREADS = ["t", "u"]
NAMESPACES = ["", "n|m:1"]
IDS = [f"{number:02}" for number in range(8)]
CHANNELS = ["a", "b", "list", "~rest", "branch:to:n"]
TASKS = [("1", "~b"), ("2", "")]
SPECIAL = [ERROR, SCHEDULED, INTERRUPT, RESUME]
HAZARDS = {
    "put without parent", "put under a missing parent", "put under itself", "put that forks", "put under a later id",
    "put again", "put again under its child", "put again of a parent", "put that changed in place",
    "put of an empty channel",
    "put that removed a channel", "put with a resting channel", "put with another's version", "put that goes on",
    "put after a deletion", "put under a deleted parent", "writes under a deleted checkpoint", "steps out of order",
    "writes before their checkpoint", "writes after a child", "writes of a taken slot", "special write replaced",
    "special write replaced after its checkpoint came", "mixed batch", "writes then put",
    "get of the latest", "get of nothing", "get of an old one", "latest is not the last put",
    "list of a thread", "list of all", "list of all namespaces", "list by id", "list before", "list limited",
    "list filtered", "list filtered by None", "list of nothing", "delete", "delete of nothing",
}  # fmt: skip


def config(thread: str, ns: str | None, checkpoint_id: str | None = None) -> Any:
    named = {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}
    return {"configurable": {key: value for key, value in named.items() if value is not None}}


def shown(found: Any) -> Any:
    if found is None:
        return None
    where = {"checkpoint_ns": "", **found.config["configurable"]}
    return {
        "config": tuple(where[key] for key in ("thread_id", "checkpoint_ns", "checkpoint_id")),
        "checkpoint": dict(found.checkpoint),
        "metadata": dict(found.metadata),
        "parent": found.parent_config,
        "writes": [tuple(write) for write in found.pending_writes],
    }


class Fuzzer:
    """One episode: makes calls, compares answers, counts hazards."""

    def __init__(self, seed: int, ours: Callable[[random.Random], EventLogSaver], hazards: Counter[str]) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.pick_saver = ours
        self.theirs = InMemorySaver()
        self.hazards = hazards
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.versions = 0
        self.puts: dict[tuple[str, str], list[str]] = {}
        self.parents: dict[tuple[str, str], dict[str, str | None]] = {}
        self.slots: dict[tuple[str, str, str], dict[tuple[str, int], bool]] = {}
        self.deleted: dict[tuple[str, str], str] = {}

    def run(self, operations: int) -> None:
        kinds = [self.put] * 8 + [self.put_writes] * 6 + [self.get] * 2 + [self.list] * 4 + [self.delete]
        for _ in range(operations):
            self.random.choice(kinds)()
        for place in self.puts:
            self.same("list", lambda saver, place=place: [shown(item) for item in saver.list(config(*place))], place)

    def same(self, name: str, call: Callable[[Any], Any], *told: Any) -> Any:
        self._note(name, *told)
        try:
            ours = call(self.pick_saver(self.random))
        except Exception as error:
            raise AssertionError(f"{self._told(told[:1])}\nraised {error!r}") from error
        theirs = call(self.theirs)
        assert ours == theirs, f"{self._told(told[:1])}\nours:   {ours}\ntheirs: {theirs}"
        return ours

    def _note(self, name: str, *told: Any) -> None:
        self.calls.append((name, told))

    def _told(self, place: Any) -> str:
        """The calls that concern one thread and namespace."""
        calls = [(name, told) for name, told in self.calls if told[:1] == place or name == "delete"]
        return "\n".join([f"episode {self.seed}, after:", *(f"{n} {' '.join(map(repr, t))}"[:300] for n, t in calls)])

    def came_up(self, hazard: str, *, when: bool = True) -> None:
        assert hazard in HAZARDS
        self.hazards[hazard] += when

    # --- put --------------------------------------------------------------------------------------------------------

    def place(self) -> tuple[str, str]:
        return self.random.choice(THREADS), self.random.choice(NAMESPACES)

    def put(self) -> None:
        place = self.place()
        parents, puts = self.parents.setdefault(place, {}), self.puts.setdefault(place, [])
        early = [key[2] for key in self.slots if key[:2] == place and key[2] not in parents]
        checkpoint_id = self.random.choice([*IDS, *early])
        going_on = puts and self.random.random() < 0.4
        parent = puts[-1] if going_on else self.random.choice([None, *IDS, *puts, *puts])
        if self._is_late(place, parent) or (parent is not None and self._is_dead(place)):
            self.came_up("put under a deleted parent")
            made = {"v": 4, "ts": "", "id": checkpoint_id, "channel_values": {}, "channel_versions": {}}
            made["versions_seen"] = {}
            self.refused("put", lambda saver: saver.put(config(*place, parent), made, {}, {}), place, parent)
            return
        self._count_put(place, checkpoint_id, parent)
        values, versions = self._state_of(place, parent)
        new = self._changed(place, values, versions)
        made = {
            "v": 4,
            "ts": f"{self.versions}",
            "id": checkpoint_id,
            "channel_values": values,
            "channel_versions": versions,
            "versions_seen": {"n": dict(list(versions.items())[:2])},
            "updated_channels": list(new),
        }
        metadata = self._metadata()
        given = copy.deepcopy((made, metadata))
        put = lambda saver: saver.put(config(*place, parent), made, metadata, new)["configurable"]
        self.same("put", put, place, parent, given, new)
        assert (made, metadata) == given, "put changed what it was given"
        parents[checkpoint_id] = parent
        puts[:] = [name for name in puts if name != checkpoint_id] + [checkpoint_id]
        found = self.same(
            "get", lambda saver: shown(saver.get_tuple(config(*place, checkpoint_id))), place, checkpoint_id
        )
        expected = {name: given[0]["channel_values"][name] for name in versions if name in values}
        assert strictly_equal(
            dict(sorted(found["checkpoint"]["channel_values"].items())), dict(sorted(expected.items()))
        )
        self._latest(place)

    def _count_put(self, place: tuple[str, str], checkpoint_id: str, parent: str | None) -> None:
        parents, puts = self.parents[place], self.puts[place]
        children = [child for child, of in parents.items() if of == parent]
        self.came_up("put without parent", when=parent is None)
        self.came_up("put under a missing parent", when=parent is not None and parent not in parents)
        self.came_up("put under itself", when=parent == checkpoint_id and parent in parents)
        self.came_up("put that forks", when=parent in parents and bool(children) and checkpoint_id not in children)
        self.came_up("put under a later id", when=parent in parents and parent > checkpoint_id)
        self.came_up("put again", when=checkpoint_id in parents)
        self.came_up(
            "put again under its child", when=checkpoint_id in parents and parents.get(parent or "") == checkpoint_id
        )
        self.came_up("put again of a parent", when=checkpoint_id in parents and checkpoint_id in parents.values())
        self.came_up("put that goes on", when=bool(puts) and parent == puts[-1])
        self.came_up("put after a deletion", when=place in self.deleted and not puts)
        self.came_up("writes then put", when=checkpoint_id not in parents and (*place, checkpoint_id) in self.slots)

    def _is_late(self, place: tuple[str, str], checkpoint_id: str | None) -> bool:
        """Whether a checkpoint was deleted with its thread, as far as its id tells; ids grow but for those in use."""
        there = self.parents.setdefault(place, {})
        return checkpoint_id is not None and checkpoint_id not in there and checkpoint_id <= self.deleted.get(place, "")

    def _is_dead(self, place: tuple[str, str]) -> bool:
        """Whether nothing came since the thread was deleted."""
        return place in self.deleted and not self.puts.get(place) and not any(key[:2] == place for key in self.slots)

    def refused(self, name: str, call: Callable[[Any], Any], *told: Any) -> None:
        self._note(f"refused {name}", *told)
        with pytest.raises(NotFoundError, match="was deleted"):
            call(self.pick_saver(self.random))

    def _state_of(self, place: tuple[str, str], parent: str | None) -> tuple[dict[str, Any], dict[str, str]]:
        """The parent's state as our saver gives it out, or an empty one."""
        if parent is None:
            return {}, {}
        self._note("get", place, parent)
        found = self.pick_saver(self.random).get_tuple(config(*place, parent))
        if found is None:
            return {}, {}
        return found.checkpoint["channel_values"], found.checkpoint["channel_versions"]

    def _changed(self, place: tuple[str, str], values: dict[str, Any], versions: dict[str, str]) -> dict[str, str]:
        """Change a state; what has a new version."""
        new: dict[str, str] = {}
        for name in self.random.sample(CHANNELS, self.random.randrange(4)):
            kind = self.random.random()
            if kind < 0.15 and name in versions:
                self.came_up("put that removed a channel")
                versions.pop(name)
                values.pop(name, None)
                continue
            if kind < 0.3:
                self.came_up("put of an empty channel", when=name in values)
                values.pop(name, None)
            elif kind < 0.4 and self._take_from_another(place, name, values, versions):
                continue
            elif kind < 0.8 and isinstance(values.get(name), list | dict):
                self.came_up("put that changed in place")
                self._spoil(values[name])
            else:
                values[name] = self._value()
            self.versions += 1
            new[name] = versions[name] = f"{self.versions:08}.{self.random.random()}"
        self.came_up("put with a resting channel", when=bool(set(values) - set(new)))
        return new

    def _take_from_another(
        self, place: tuple[str, str], name: str, values: dict[str, Any], versions: dict[str, str]
    ) -> bool:
        """A version that another checkpoint has, with its value; it is no new one."""
        if not self.puts[place]:
            return False
        found = self.theirs.get_tuple(config(*place, self.random.choice(self.puts[place])))
        if name not in found.checkpoint["channel_values"]:
            return False
        self.came_up(
            "put with another's version", when=versions.get(name) != found.checkpoint["channel_versions"][name]
        )
        values[name] = found.checkpoint["channel_values"][name]
        versions[name] = found.checkpoint["channel_versions"][name]
        return True

    def _metadata(self) -> dict[str, Any]:
        step = self.random.randrange(-2, 40)
        self.came_up("steps out of order", when=step < 20)
        made = {"source": self.random.choice(["input", "loop", "update", "fork"]), "step": step, "parents": {}}
        return (
            made
            if self.random.random() < 0.5
            else {**made, "tag": self.random.choice([None, 1, True, "x", [1], {"k": 1}])}
        )

    def _value(self) -> Any:
        choose = self.random.choice
        return choose([
            lambda: [choose([1, 1.0, True, None, "x" * 300]) for _ in range(self.random.randrange(6))],
            lambda: {f"{n}": [n, {"deep": [n]}] for n in range(self.random.randrange(5))},
            lambda: [{"role": "user", "text": "y" * 100, "more": {"n": [n]}} for n in range(self.random.randrange(5))],
            lambda: choose([None, 0, False, "", "text " * self.random.randrange(200), b"\x00\xff", 2**60, -0.0, []]),
        ])()  # fmt: skip

    def _spoil(self, value: Any) -> None:
        """Change a list or a dict in place, at any depth."""
        inner = [
            item for item in (value.values() if isinstance(value, dict) else value) if isinstance(item, list | dict)
        ]
        if inner and self.random.random() < 0.6:
            self._spoil(self.random.choice(inner))
        elif isinstance(value, dict):
            if value and self.random.random() < 0.4:
                moved = value.pop(next(iter(value)))
                value[f"k{len(value)}"] = moved
            else:
                value[f"{self.random.randrange(6)}"] = self._value()
        elif value and self.random.random() < 0.4:
            value[self.random.randrange(len(value))] = self._value()
        elif value and self.random.random() < 0.2:
            value.pop(self.random.randrange(len(value)))
        else:
            value.extend([self._value()] * self.random.randrange(3))

    # --- put_writes -------------------------------------------------------------------------------------------------

    def put_writes(self) -> None:
        place = self.place()
        parents = self.parents.setdefault(place, {})
        known = [key[2] for key in self.slots if key[:2] == place]
        checkpoint_id = self.random.choice([*IDS, *parents, *known, *known])
        task, path = self.random.choice(TASKS)
        channels = self.random.choices([*CHANNELS, *SPECIAL], k=self.random.randrange(4))
        batch = [(channel, self._value()) for channel in channels]
        put = lambda saver: saver.put_writes(config(*place, checkpoint_id), batch, task, path)
        if self._is_late(place, checkpoint_id) and not batch:
            return  # nothing to refuse
        if self._is_late(place, checkpoint_id):
            self.came_up("writes under a deleted checkpoint")
            self.refused("put_writes", put, place, checkpoint_id)
            return
        if self._is_dead(place):
            return  # a saver that knew the thread before refuses it, another one does not
        self._count_writes(place, checkpoint_id, task, channels)
        self.same("put_writes", put, place, checkpoint_id, batch, task, path)
        self.same("get", lambda saver: shown(saver.get_tuple(config(*place, checkpoint_id))), place, checkpoint_id)

    def _count_writes(self, place: tuple[str, str], checkpoint_id: str, task: str, channels: list[str]) -> None:
        exists = checkpoint_id in self.parents[place]
        slots = self.slots.setdefault((*place, checkpoint_id), {})
        self.came_up("writes before their checkpoint", when=not exists and bool(channels))
        self.came_up("writes after a child", when=exists and checkpoint_id in self.parents[place].values())
        self.came_up("mixed batch", when=0 < sum(channel in SPECIAL for channel in channels) < len(channels))
        for index, channel in enumerate(channels):
            slot = (task, -1 - SPECIAL.index(channel) if channel in SPECIAL else index)
            self.came_up("writes of a taken slot", when=slot in slots and slot[1] >= 0)
            self.came_up("special write replaced", when=slot in slots and slot[1] < 0)
            came = slot[1] < 0 and slots.get(slot) is False and exists
            self.came_up("special write replaced after its checkpoint came", when=came)
            slots.setdefault(slot, exists)

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self) -> None:
        place = self.place()
        checkpoint_id = self.random.choice([None, *IDS])
        found = self.same(
            "get", lambda saver: shown(saver.get_tuple(config(*place, checkpoint_id))), place, checkpoint_id
        )
        self.came_up("get of nothing", when=found is None)
        self.came_up("get of an old one", when=found is not None and checkpoint_id is not None)
        self._latest(place)

    def _latest(self, place: tuple[str, str]) -> None:
        found = self.same("get", lambda saver: shown(saver.get_tuple(config(*place))), place)
        puts = self.puts.get(place) or [None]
        self.came_up("get of the latest", when=found is not None)
        self.came_up("latest is not the last put", when=found is not None and found["config"][2] != puts[-1])

    def list(self) -> None:
        thread, ns = self.place()
        several = False
        where = config(thread, ns)
        kind = self.random.random()
        if kind < 0.2:
            where, several = None, True
            self.came_up("list of all")
        elif kind < 0.4:
            where, several = config(thread, None), True
            self.came_up("list of all namespaces")
        elif kind < 0.5:
            where = config(thread, ns, self.random.choice(IDS))
            self.came_up("list by id")
        else:
            self.came_up("list of a thread")
        options = self._options()

        def listed(saver: Any) -> Any:
            found = [shown(item) for item in saver.list(where, **options)]
            if several and "limit" in options:
                return len(found)
            return sorted(found, key=lambda item: item["config"][:2]) if several else found

        self.came_up("list of nothing", when=not self.same("list", listed, (thread, ns), where, options))

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.random.random() < 0.3:
            options["before"] = {"configurable": {"checkpoint_id": self.random.choice(IDS)}}
            self.came_up("list before")
        if self.random.random() < 0.3:
            options["limit"] = self.random.randrange(5)
            self.came_up("list limited")
        if self.random.random() < 0.4:
            tag = self.random.choice([None, None, 1, True, "x", [1], {"k": 1}, {}])
            options["filter"] = self.random.choice(
                [{"source": "loop"}, {"tag": tag}, {"tag": tag, "source": "fork"}, {}]
            )
            self.came_up("list filtered")
            self.came_up("list filtered by None", when=options["filter"].get("tag", 0) is None)
        return options

    def delete(self) -> None:
        thread = self.random.choice([*THREADS, "nobody"])
        there = any(puts for place, puts in self.puts.items() if place[0] == thread)
        self.came_up("delete", when=there)
        self.came_up("delete of nothing", when=not there)
        if self.random.random() < 0.6 and there:
            return  # a thread should grow, too
        self.same("delete", lambda saver: saver.delete_thread(thread), thread)
        for place in {key[:2] for about in (self.puts, self.slots) for key, said in about.items() if said}:
            if place[0] == thread:
                self.deleted[place] = max(*self.puts.get(place, ()), self.deleted.get(place, ""), "")
        for about in (self.puts, self.parents, self.slots):
            for key in [key for key in about if key[0] == thread]:
                del about[key]


def _one(location: str) -> Iterator[Callable[[random.Random], EventLogSaver]]:
    """The same saver always."""
    with EventLogSaver.from_conn_string(location) as saver:
        yield lambda chance: saver
        assert list(saver.log.verify()) == []


def _several(location: str) -> Iterator[Callable[[random.Random], EventLogSaver]]:
    """Any of three that share a log: two savers and a clone with another serializer."""
    with EventLogSaver.from_conn_string(location) as saver:
        savers = [saver, EventLogSaver(saver.log), saver.with_allowlist([("tests", "Something")])]
        yield lambda chance: chance.choice(savers)
        assert list(saver.log.verify()) == []


def _reopened(location: str) -> Iterator[Callable[[random.Random], EventLogSaver]]:
    """One that is closed and opened again now and then."""
    opened = [EventLogSaver.from_conn_string(location)]

    def pick(chance: random.Random) -> EventLogSaver:
        if chance.random() < 0.05:
            opened[-1].close()
            opened.append(EventLogSaver.from_conn_string(location))
        return opened[-1]

    yield pick
    assert list(opened[-1].log.verify()) == []
    opened[-1].close()


WAYS = {
    "one in memory": (_one, lambda directory: "memory:"),
    "one on LMDB": (_one, str),
    "one on SQLite": (_one, lambda directory: f"sqlite:///{directory}"),
    "several": (_several, lambda directory: "memory:"),
    "reopened": (_reopened, str),
    "reopened on SQLite": (_reopened, lambda directory: f"sqlite:///{directory}"),
}


@pytest.mark.parametrize("way", WAYS)
def test_random_calls_are_answered_as_upstream_answers_them(way, tmp_path, capsys):
    open_savers, location = WAYS[way]
    hazards: Counter[str] = Counter()
    # Closing and verifying are the generator's end.
    for seed in range(OPERATIONS // EPISODE):
        opened = open_savers(location(tmp_path / f"{seed}.log"))
        Fuzzer(seed, next(opened), hazards).run(EPISODE)
        assert next(opened, None) is None
    with capsys.disabled():
        print(f"\n{way}:", ", ".join(f"{hazard} {count}" for hazard, count in sorted(hazards.items())))
    assert sorted(HAZARDS - {hazard for hazard, count in hazards.items() if count}) == []
