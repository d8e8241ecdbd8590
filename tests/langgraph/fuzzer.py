"""Makes random calls to savers of ours and to upstream's, compares the answers, and counts what came up.

Every checkpoint that is put is remembered as it was put: what is read has to say the same, whatever came since. Where
upstream's saver does not, `hazards.DIFFERENCES` has to say why.
"""

from __future__ import annotations

import asyncio
import copy
import random
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import ERROR, INTERRUPT, RESUME, SCHEDULED

try:
    from langgraph.checkpoint.serde.types import _DeltaSnapshot as Snapshot
except ImportError:  # a release before DeltaChannel
    Snapshot = None

from eventlog import NotFoundError
from tests.langgraph.hazards import DIFFERENCES, HAZARDS, HISTORY, SEVERAL
from tests.langgraph.upstream import InMemorySaver
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from savers.langgraph import EventLogSaver

    Place = tuple[str, str]

HAS_HISTORY = hasattr(InMemorySaver, "get_delta_channel_history")
THREADS = [["t", "t1"], ["7", "71"]]
LONG = "n:" + "x" * 600
NAMESPACES = [["", "n"], ["n|m:1", "n|m:12"], ["", LONG], [LONG, LONG + "|m:1"]]
IDS = ["00", "01", "02", "1", "2-inner", "1efcf9ba-54d8-6e02-8001-1a2b3c4d5e6f", "é", "z"]
CHANNELS = ["a", "b", "list", "~rest", "branch:to:n"]
WRITTEN = [*CHANNELS, "only written"]
TASKS = [("1", "~b"), ("2", ""), ("task-1", "~a"), ("00000000-0000-0000-0000-000000000000", "")]
SPECIAL = [ERROR, SCHEDULED, INTERRUPT, RESUME]
ABSENT: Any = object()
REFUSED: Any = object()


def shown(found: Any) -> Any:
    """A tuple as what it says."""
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


async def collected(items: Any) -> list[Any]:
    return [item async for item in items]


def asked(saver: Any, method: str, how: str, *args: Any, **options: Any) -> Any:
    """What a saver answers, by the way that is named."""
    if how == "async":
        called = getattr(saver, "a" + method)(*args, **options)
        return asyncio.run(collected(called) if method == "list" else called)
    if how == "loop":

        async def on_the_loop() -> Any:
            return asked(saver, method, "sync", *args, **options)

        return asyncio.run(on_the_loop())
    answer = getattr(saver, method)(*args, **options)
    if how == "first":
        return next(answer, None)
    return list(answer) if method == "list" else answer


class Fuzzer:
    """One episode, on fresh savers, so that a failure needs few calls."""

    def __init__(
        self, seed: str, number: int, ours: Callable[[random.Random], EventLogSaver], hazards: Counter[str]
    ) -> None:
        self.seed = seed = f"{seed}-{number}"
        self.random = random.Random(seed)
        self.pick_saver = ours
        self.theirs = InMemorySaver()
        self.hazards = hazards
        self.calls: list[tuple[Any, ...]] = []
        self.compared = 0
        self.versions = 0
        self.threads = self.random.choice(THREADS)
        self.namespaces = NAMESPACES[number % len(NAMESPACES)]
        self.puts: dict[Place, list[str]] = {}
        self.parents: dict[Place, dict[str, str | None]] = {}
        self.said: dict[Place, dict[str, Any]] = {}
        self.blobs: dict[Place, dict[tuple[str, Any], Any]] = {}
        self.unclear: dict[Place, dict[tuple[str, Any], str]] = {}
        self.slots: dict[Place, dict[str, dict[tuple[str, int], bool]]] = {}
        self.deleted: dict[Place, str] = {}
        self.refused: dict[Place, set[str]] = {}

    def run(self, operations: int) -> int:
        """Make at least so many calls; how many were compared."""
        self.came_up("s03 namespaces that share a prefix", when=self.namespaces[1].startswith(self.namespaces[0]))
        self.came_up("s03 a namespace longer than a key", when=len(self.namespaces[1]) > 511)
        kinds = [self.put] * 8 + [self.put_writes] * 6 + [self.get] * 3 + [self.list] * 5 + [self.delete]
        kinds += [self.next_version, *([self.history] * 3 if HAS_HISTORY else [])]
        while self.compared < operations:
            self.random.choice(kinds)()
        for place, slots in self.slots.items():
            self.came_up("s27 writes of what is never put", when=bool(slots.keys() - self.parents[place].keys()))
        for place in self.puts:
            self.same(place, "list", self.config(place, None))
        return self.compared

    # --- asking both -------------------------------------------------------------------------------------------------

    def same(self, place: Place | None, method: str, *args: Any, how: str | None = None, **options: Any) -> Any:
        """Ask one of our savers and upstream's; what both answer, `REFUSED` if ours may refuse and does."""
        how = how or self.random.choice(["sync"] * 8 + ["async", "loop"])
        self.came_up("s46 the async twin", when=how == "async")
        self.came_up("s50 on the running loop", when=how == "loop")
        self.calls.append((place, method, how, copy.deepcopy(args), options))
        self.compared += 1
        saver = self.pick_saver(self.random)
        self.came_up("s41 a clone", when=getattr(saver, "is_clone", False))
        self.came_up("s42 another serializer", when=getattr(saver, "has_another", False))
        try:
            ours = asked(saver, method, how, *self._numbered(args), **options)
        except Exception as error:
            if isinstance(error, NotFoundError) and self._may_refuse(place, method, args):
                self.passed("s47 late")
                if method == "put":
                    self.refused.setdefault(place, set()).add(args[1]["id"])
                self.calls.append((place, "refused"))
                return REFUSED
            raise AssertionError(f"{self._told(place)}\nraised {error!r}") from error
        theirs = asked(self.theirs, method, how if how == "first" else "sync", *args, **options)
        ours, theirs = self._plain(ours), self._plain(theirs)
        theirs = self._settled(ours, theirs)
        assert ours == theirs, f"{self._told(place)}\nours:   {ours}\ntheirs: {theirs}"
        return ours

    def _numbered(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """For ours, a thread whose id is of digits comes as a number now and then."""
        for config in args[:1]:
            given = config.get("configurable", {}) if isinstance(config, dict) else {}
            if given.get("thread_id", "").isdigit() and self.random.random() < 0.5:
                self.came_up("s01 a thread that is a number")
                self.passed("s01 numbers")
                changed = {**config, "configurable": {**given, "thread_id": int(given["thread_id"])}}
                return changed, *args[1:]
        return args

    def _plain(self, answer: Any) -> Any:
        if isinstance(answer, list):
            return [self._plain(item) for item in answer]
        return shown(answer) if hasattr(answer, "pending_writes") else answer

    def _settled(self, ours: Any, theirs: Any) -> Any:
        """Upstream's answer, with our values where it may differ from what was put."""
        if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
            return [self._settled(*pair) for pair in zip(ours, theirs, strict=True)]
        if not isinstance(ours, dict) or "config" not in ours or not isinstance(theirs, dict):
            return theirs
        place, checkpoint_id = ours["config"][:2], ours["config"][2]
        said, unclear = self.said[place].get(checkpoint_id), self.unclear.get(place, {})
        if said is None or theirs["config"] != ours["config"]:
            return theirs
        values = dict(theirs["checkpoint"]["channel_values"])
        for channel, version in said["versions"].items():
            value = ours["checkpoint"]["channel_values"].get(channel, ABSENT)
            assert strictly_equal(value, said["values"].get(channel, ABSENT)), f"{self._told(place)}\n{channel}"
            if (channel, version) in unclear and values.get(channel, ABSENT) != value:
                self.passed(unclear[channel, version])
                values.pop(channel, None)
                values.update({} if value is ABSENT else {channel: value})
        return {**theirs, "checkpoint": {**theirs["checkpoint"], "channel_values": values}}

    def _may_refuse(self, place: Place | None, method: str, args: tuple[Any, ...]) -> bool:
        """Whether what a call goes under was deleted, as far as its id tells."""
        if place is None or not method.startswith("put"):
            return False
        checkpoint_id, there = args[0]["configurable"].get("checkpoint_id"), self.parents.get(place, {})
        is_dead = place in self.deleted and not there and not any(self.slots.get(place, {}).values())
        is_late = checkpoint_id not in there and (checkpoint_id or "") <= self.deleted.get(place, "")
        is_under_late = method == "put" and checkpoint_id not in there and checkpoint_id in self.refused.get(place, ())
        return checkpoint_id is not None and (is_dead or is_late or is_under_late)

    def _told(self, place: Place | None) -> str:
        """The calls that concern one thread and namespace."""
        calls = [call for call in self.calls if place is None or call[0] in {place, None}]
        return "\n".join([f"episode {self.seed}, after:", *(" ".join(map(repr, call))[:400] for call in calls)])

    def came_up(self, hazard: str, *, when: bool = True) -> None:
        assert hazard in HAZARDS | SEVERAL | HISTORY, hazard
        self.hazards[hazard] += when

    def passed(self, difference: str) -> None:
        assert difference in DIFFERENCES, difference
        self.hazards[f"passed: {difference}"] += 1

    def place(self) -> Place:
        return self.random.choice(self.threads), self.random.choice(self.namespaces)

    def config(self, place: Place, checkpoint_id: str | None, *, ns: bool = True) -> Any:
        named = {"thread_id": place[0], **({"checkpoint_ns": place[1]} if ns else {})}
        return {"configurable": named if checkpoint_id is None else {**named, "checkpoint_id": checkpoint_id}}

    # --- put ---------------------------------------------------------------------------------------------------------

    def put(self) -> None:
        place = self.place()
        parents, puts = self.parents.setdefault(place, {}), self.puts.setdefault(place, [])
        early = [name for name in self.slots.get(place, {}) if name not in parents]
        checkpoint_id = self.random.choice([*IDS, *early])
        going_on = puts and self.random.random() < 0.4
        parent = puts[-1] if going_on else self.random.choice([None, *IDS, *puts, *puts])
        is_stub = self.random.random() < 0.04
        if is_stub:
            self.came_up("s19 a stub")
            parent = None
        values, versions = ({}, {}) if is_stub else self._state_of(place, parent)
        before = dict(versions)
        new = {} if is_stub else self._changed(place, values, versions)
        if new and self.random.random() < 0.15 and all(before.get(name) != moved for name, moved in new.items()):
            self.came_up("s09 full values and no new versions")
            new = {}
        made = self._made(checkpoint_id, values, versions, new)
        config, metadata = self._described(self.config(place, parent)), {"step": -2} if is_stub else self._metadata()
        given = copy.deepcopy((config, made, metadata, new))
        self.said.setdefault(place, {})
        if self.same(place, "put", config, made, metadata, new) is REFUSED:
            return
        assert (config, made, metadata, new) == given, "put changed what it was given"
        self._count_put(place, checkpoint_id, parent)
        self._remember(place, checkpoint_id, given[1], new)
        parents[checkpoint_id] = parent
        puts[:] = [name for name in puts if name != checkpoint_id] + [checkpoint_id]
        self.same(place, "get_tuple", self.config(place, checkpoint_id))
        if self.random.random() < 0.5:
            self._latest(place)

    def _made(
        self, checkpoint_id: str, values: dict[str, Any], versions: dict[str, Any], new: dict[str, Any]
    ) -> dict[str, Any]:
        made = {
            "v": self.random.choice([4, 4, 4, 1, 2, 3]),
            "ts": f"{self.versions}",
            "id": checkpoint_id,
            "channel_values": values,
            "channel_versions": versions,
            "versions_seen": {"n": dict(list(versions.items())[:2])},
            "updated_channels": list(new),
        }
        self.came_up("s16 an older format", when=made["v"] < 4)
        if self.random.random() < 0.2:
            self.came_up("s16 other keys")
            del made["updated_channels"]
            made |= {"pending_sends": [self._value()], "of a later release": {"k": [1, True]}}
        if self.random.random() < 0.3:
            self.came_up("s17 pseudo nodes")
            for node in self.random.sample(["__interrupt__", "__input__", "__snapshot_bumps__"], 2):
                made["versions_seen"][node] = dict(self.random.sample(list(versions.items()), len(versions) // 2))
        return made

    def _described(self, config: Any) -> Any:
        if self.random.random() < 0.7:
            return config
        self.came_up("s20 metadata of the config")
        more = {"user": "a\0b", "n": 1.5, "list": [1], "__own": 1, "source": "config"}
        return {"configurable": {**config["configurable"], **more}, "metadata": {"user": "first", "langgraph_step": 3}}

    def _remember(self, place: Place, checkpoint_id: str, made: dict[str, Any], new: dict[str, Any]) -> None:
        """What was put; and where upstream's saver cannot say the same."""
        values, versions = made["channel_values"], made["channel_versions"]
        self.said[place][checkpoint_id] = {"values": values, "versions": versions}
        blobs, unclear = self.blobs.setdefault(place, {}), self.unclear.setdefault(place, {})
        for key in versions.items():
            value = values.get(key[0], ABSENT)
            if key in blobs and not strictly_equal(blobs[key], value):
                self.came_up("s13 one version, two values")
                unclear[key] = "s13 two values of one version"
            elif key not in blobs and key[0] not in new:
                unclear.setdefault(key, "s09 values beside new_versions")
            if key[0] in new:
                blobs[key] = value

    def _count_put(self, place: Place, checkpoint_id: str, parent: str | None) -> None:
        parents, puts = self.parents[place], self.puts[place]
        again = checkpoint_id in parents
        self.came_up("s05 no parent", when=parent is None)
        self.came_up("s05 a parent that is not there", when=parent is not None and parent not in parents)
        self.came_up("s08 an id that is no uuid", when=len(checkpoint_id) < 36)
        self.came_up("s08 a child below its parent", when=parent in parents and parent > checkpoint_id)
        self.came_up("s14 put again", when=again)
        self.came_up("s14 put again under itself", when=again and parent == checkpoint_id)
        self.came_up("s14 put again under its child", when=again and parents.get(parent or "") == checkpoint_id)
        self.came_up("s14 put again of a parent", when=again and checkpoint_id in parents.values())
        self.came_up("s47 begun again", when=place in self.deleted and not puts)

    def _state_of(self, place: Place, parent: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parent's state as our saver gives it out, or an empty one; it is changed then."""
        found = None
        if parent is not None:
            self.calls.append((place, "get_tuple", parent))
            found = self.pick_saver(self.random).get_tuple(self.config(place, parent))
        if found is None:
            return {}, {}
        self.came_up("s15 what was given out is changed")
        found.metadata.clear()
        return found.checkpoint["channel_values"], found.checkpoint["channel_versions"]

    def _changed(self, place: Place, values: dict[str, Any], versions: dict[str, Any]) -> dict[str, Any]:
        """Change a state; what has a new version."""
        new: dict[str, Any] = {}
        for name in self.random.sample(CHANNELS, self.random.randrange(4)):
            kind = self.random.random()
            if kind < 0.15 and name in versions:
                self.came_up("s11 a removed channel")
                versions.pop(name)
                values.pop(name, None)
                continue
            if kind < 0.3 and name in values:
                self.came_up("s10 an empty channel")
                values.pop(name)
            elif kind < 0.4 and self._take_from_another(place, name, values, versions):
                continue
            elif 0.4 <= kind < 0.45 and Snapshot is not None:
                self.came_up("d07 a snapshot")
                values[name] = Snapshot(self._value())
            elif kind < 0.8 and isinstance(values.get(name), list | dict):
                self._spoil(values[name])
            else:
                values[name] = self._value()
            self.versions += 1
            if kind > 0.93:
                self.came_up("s13 a number as version")
                versions[name] = 1
            elif kind < 0.9 or name not in versions:  # else it keeps the version that it had
                versions[name] = f"{self.versions:08}.{self.random.random()}"
            new[name] = versions[name]
        self.came_up("s12 a resting channel", when=bool(set(values) - set(new)))
        return new

    def _take_from_another(self, place: Place, name: str, values: dict[str, Any], versions: dict[str, Any]) -> bool:
        """A version that another checkpoint has, with its value; it is no new one."""
        if not self.puts[place]:
            return False
        said = self.said[place][self.random.choice(self.puts[place])]
        if name not in said["values"] or said["versions"].get(name, ABSENT) in {ABSENT, versions.get(name)}:
            return False
        self.came_up("s12 another's version")
        values[name] = copy.deepcopy(said["values"][name])
        versions[name] = said["versions"][name]
        return True

    def _metadata(self) -> dict[str, Any]:
        step = self.random.randrange(-2, 40)
        self.came_up("s08 steps out of order", when=step < 20)
        made = {"source": self.random.choice(["input", "loop", "update", "fork"]), "step": step, "parents": {}}
        if HAS_HISTORY and self.random.random() < 0.2:
            self.came_up("d06 counters")
            made["counters_since_delta_snapshot"] = {"a": (step, 1)}
        tag = self.random.choice([None, 1, True, "x", [1], {"k": 1}])
        return made if self.random.random() < 0.5 else {**made, "tag": tag}

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
        items = value.values() if isinstance(value, dict) else value
        inner = [item for item in items if isinstance(item, list | dict)]
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

    # --- put_writes --------------------------------------------------------------------------------------------------

    def put_writes(self) -> None:
        place = self.place()
        parents = self.parents.setdefault(place, {})
        self.said.setdefault(place, {})
        known = [*self.slots.get(place, {})]
        checkpoint_id = self.random.choice([*IDS, *parents, *known * 4])
        task, path = self.random.choice(TASKS)
        channels = self.random.choices([*WRITTEN, *SPECIAL], k=self.random.randrange(4))
        early = [
            (name, *slot)
            for name, slots in self.slots.get(place, {}).items()
            for slot, came_after in slots.items()
            if slot[1] < 0 and not came_after and name in parents
        ]
        if early and self.random.random() < 0.2:
            checkpoint_id, task, slot = self.random.choice(early)
            channels.append(SPECIAL[-1 - slot])
        batch = [(channel, self._value()) for channel in channels]
        config = self.config(place, checkpoint_id)
        by_name = self.random.random() < 0.3
        how = ((batch,), {"task_id": task, "task_path": path}) if by_name else ((batch, task, path), {})
        if self.same(place, "put_writes", config, *how[0], **how[1]) is REFUSED:
            return
        self.came_up("s31 a path by name", when=by_name)
        self._count_writes(place, checkpoint_id, task, channels)
        self.same(place, "get_tuple", self.config(place, checkpoint_id))

    def _count_writes(self, place: Place, checkpoint_id: str, task: str, channels: list[str]) -> None:
        exists = checkpoint_id in self.parents[place]
        slots = self.slots.setdefault(place, {}).setdefault(checkpoint_id, {})
        special = [channel for channel in channels if channel in SPECIAL]
        self.came_up("s27 writes before their checkpoint", when=not exists and bool(channels))
        self.came_up("s27 writes after a child", when=exists and checkpoint_id in self.parents[place].values())
        self.came_up("s29 a mixed batch", when=0 < len(special) < len(channels))
        self.came_up("s30 one channel twice", when=len(set(channels)) < len(channels) and not special)
        self.came_up("s32 the null task", when=task.startswith("0") and bool(channels))
        for index, channel in enumerate(channels):
            slot = (task, -1 - SPECIAL.index(channel) if channel in SPECIAL else index)
            self.came_up("s28 a special slot", when=slot[1] < 0)
            self.came_up("s29 a taken slot", when=slot in slots and slot[1] >= 0)
            self.came_up("s29 a special slot again", when=slot in slots and slot[1] < 0)
            came = slot[1] < 0 and slots.get(slot) is False and exists
            self.came_up("s29 a special slot again after its checkpoint came", when=came)
            slots.setdefault(slot, exists)

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self) -> None:
        place = self.place()
        ns = place[1] != "" or self.random.random() < 0.5
        self.came_up("s02 no namespace in get", when=not ns)
        self.same(place, "get_tuple", self.config(place, self.random.choice([None, *IDS]), ns=ns))
        self._latest(place)

    def _latest(self, place: Place) -> None:
        found = self.same(place, "get_tuple", self.config(place, None))
        puts = self.puts.get(place) or [None]
        self.came_up("s06 the latest is not the last put", when=found is not None and found["config"][2] != puts[-1])

    def list(self) -> None:
        place = self.place()
        kind = self.random.random()
        options = self._options(place)
        if kind < 0.4:
            self._list_several(place, options, every=kind < 0.2)
            return
        by_id = kind < 0.5
        self.came_up("s24 list by id", when=by_id)
        where = self.config(place, self.random.choice(IDS) if by_id else None)
        gives_up = self.random.random() < 0.1
        self.came_up("s26 an iterator is given up", when=gives_up)
        self.same(place, "list", where, how="first" if gives_up else None, **options)

    def _list_several(self, place: Place, options: dict[str, Any], *, every: bool) -> None:
        """Over namespaces, or threads: the order of these is each saver's own; with a limit, what comes is, too."""
        self.came_up("s23 list of all threads", when=every)
        self.came_up("s02 no namespace in list", when=not every)
        where = None if every else self.config(place, None, ns=False)
        self.calls.append((None, "list", where, options))
        self.compared += 1
        found = []
        for saver in (self.pick_saver(self.random), self.theirs):
            items = [shown(item) for item in saver.list(where, **options)]
            found.append(sorted(items, key=lambda item: item["config"][:2]))
        ours, theirs = found
        self.passed("s23 limit" if "limit" in options else "s23 order")
        if "limit" in options:
            assert len(ours) == len(theirs), self._told(None)
        else:
            theirs = self._settled(ours, theirs)
            assert ours == theirs, f"{self._told(None)}\nours:   {ours}\ntheirs: {theirs}"

    def _options(self, place: Place) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.random.random() < 0.3:
            bound = self.random.choice([*IDS, "0", "never put"])
            others = {name for other, puts in self.puts.items() if other != place for name in puts}
            self.came_up(
                "s07 before of an id that was never put", when=bound not in others | {*self.puts.get(place, ())}
            )
            self.came_up("s07 before of another namespace", when=bound in others - {*self.puts.get(place, ())})
            options["before"] = {"configurable": {"checkpoint_id": bound}}
        if self.random.random() < 0.3:
            options["limit"] = self.random.randrange(5)
            self.came_up("s23 limit")
            self.came_up("s23 limit of none", when=options["limit"] == 0)
        if self.random.random() < 0.4:
            tag = self.random.choice([None, None, 1, True, "x", [1], {"k": 1}, {}])
            wanted = [{"source": "loop"}, {"tag": tag}, {"tag": tag, "source": "fork"}, {}, {"unknown": tag}]
            options["filter"] = self.random.choice(wanted)
            self.came_up("s21 filter")
            self.came_up("s21 filter by None", when=options["filter"].get("tag", 0) is None)
            self.came_up("s21 filter by an unknown key", when="unknown" in options["filter"])
        return options

    def history(self) -> None:
        """Of channels whose values upstream tells as they were put, along a chain that ends."""
        place = self.place()
        parents = self.parents.get(place, {})
        children = [name for name, parent in parents.items() if parent in parents]
        checkpoint_id = self.random.choice([None, *IDS, *children * 4])
        if self._is_cyclic(place, checkpoint_id):
            return
        unclear = {channel for channel, _ in self.unclear.get(place, ())}
        channels = [name for name in [*self.random.sample(CHANNELS, 2), WRITTEN[-1]] if name not in unclear]
        self.came_up("d01 history")
        self.came_up("d10 history of nothing", when=checkpoint_id is not None and checkpoint_id not in parents)
        where = self.config(place, checkpoint_id)
        found = self.same(place, "get_delta_channel_history", config=where, channels=channels)
        self.came_up("d03 a seed", when=any("seed" in each for each in found.values()))
        self.came_up("d03 no seed", when=any("seed" not in each and each["writes"] for each in found.values()))

    def _is_cyclic(self, place: Place, checkpoint_id: str | None) -> bool:
        parents = self.parents.get(place, {})
        met: set[str] = set()
        at = checkpoint_id or max(parents, default=None)
        while at is not None and at not in met:
            met.add(at)
            at = parents.get(at)
        return at is not None

    def next_version(self) -> None:
        """Not the same, but each greater than what was before."""
        self.came_up("s40 the next version")
        saver = self.pick_saver(self.random)
        version: Any = self.random.choice([None, 3, "00000000000000000000000000000003.0.5"])
        for _ in range(3):
            after = saver.get_next_version(version, None)
            assert int(after.split(".")[0]) == 1 + (0 if version is None else int(str(version).split(".")[0]))
            assert type(after)() == ""
            version = after

    def delete(self) -> None:
        thread = self.random.choice([*self.threads, "nobody"])
        there = any(puts for place, puts in self.puts.items() if place[0] == thread)
        if self.random.random() < 0.6 and there:
            return  # a thread should grow, too
        self.came_up("s47 delete", when=there)
        self.came_up("s47 delete of nothing", when=not there)
        self.same(None, "delete_thread", thread)
        for place in [(thread, ns) for ns in self.namespaces]:
            if self.puts.get(place) or self.slots.get(place):
                self.deleted[place] = max(*self.puts.get(place, ()), self.deleted.get(place, ""), "")
            for about in (self.puts, self.parents, self.said, self.blobs, self.unclear, self.slots):
                about.pop(place, None)  # type: ignore[attr-defined]
