"""Random calls to our savers and to upstream's InMemorySaver, which have to answer the same.

An operation is a call that both are asked for and whose answers are compared; the default run makes 20,000.
``EVENTLOG_DEEP=100`` makes 2,000,000, ``EVENTLOG_SEED`` others. What came up is printed, statement by statement of the
contract; what never did is a failure, for then the fuzzer says nothing about it.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from savers.langgraph import EventLogSaver
from tests.engines import DEEP, FORGETFUL, LOCATIONS
from tests.langgraph.fuzzer import CHANNELS, HAS_HISTORY, SPECIAL, Fuzzer, shown
from tests.langgraph.hazards import ELSEWHERE, HAZARDS, HISTORY, SEVERAL
from tests.langgraph.upstream import InMemorySaver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pick = Callable[[random.Random], EventLogSaver]

OPERATIONS = 20_000 * DEEP
SEED = os.environ.get("EVENTLOG_SEED", "0")
EPISODE = 300
THREADS = 4


def _one(location: str) -> Iterator[Pick]:
    """The same saver always."""
    with EventLogSaver.from_conn_string(location) as saver:
        yield lambda chance: saver
        assert list(saver.log.verify()) == []


def _several(location: str) -> Iterator[Pick]:
    """Any of several that share a log: two savers, a clone, and one whose serializer was replaced."""
    with EventLogSaver.from_conn_string(location) as saver:
        clone = saver.with_allowlist([("tests", "Something")])
        clone.is_clone = True  # type: ignore[attr-defined]
        other = EventLogSaver(saver.log)
        other.serde = JsonPlusSerializer(allowed_msgpack_modules=[("tests", "Other")])
        other.has_another = True  # type: ignore[attr-defined]
        savers = [saver, EventLogSaver(saver.log), clone, other]
        yield lambda chance: chance.choice(savers)
        assert list(saver.log.verify()) == []


def _reopened(location: str) -> Iterator[Pick]:
    """One that is closed and opened again now and then."""
    opened = [EventLogSaver.from_conn_string(location)]

    def pick(chance: random.Random) -> EventLogSaver:
        if chance.random() < 0.03:
            opened[-1].close()
            opened.append(EventLogSaver.from_conn_string(location))
        return opened[-1]

    yield pick
    assert list(opened[-1].log.verify()) == []
    opened[-1].close()


WAYS = [
    (engine, way) for engine in LOCATIONS for way in (_one, _several, _reopened)
    if not (engine in FORGETFUL and way is _reopened)
]  # fmt: skip


@pytest.mark.parametrize(("engine", "way"), WAYS, ids=lambda part: part if isinstance(part, str) else part.__name__[1:])
def test_random_calls_are_answered_as_upstream_answers_them(engine, way, tmp_path, capsys):
    hazards: Counter[str] = Counter()
    wanted = HAZARDS | (SEVERAL if way is _several else set()) | (HISTORY if HAS_HISTORY else set())
    done = episode = 0
    while done < OPERATIONS // (len(WAYS) + 1) or (wanted - set(+hazards) and done < OPERATIONS):
        opened = way(LOCATIONS[engine](tmp_path / f"{episode}"))
        done += Fuzzer(f"{SEED}-{engine}-{way.__name__}", episode, next(opened), hazards).run(EPISODE)
        assert next(opened, None) is None  # closing and verifying are its end
        episode += 1
    _print(capsys, f"{engine}, {way.__name__[1:]}: seed {SEED}, {done:,} operations", hazards)
    assert sorted(wanted - set(+hazards)) == []


def _print(capsys: Any, title: str, counts: Counter[str]) -> None:
    with capsys.disabled():
        print(f"\n{title}")
        for name, count in sorted(counts.items()):
            print(f"  {count:>7,}  {name}")


def test_every_statement_of_the_contract_has_its_place():
    rows = {row.split()[0] for row in HAZARDS | SEVERAL | HISTORY} | {each for row in ELSEWHERE for each in row.split()}
    assert rows == {f"s{number:02}" for number in range(1, 53)} | {f"d{number:02}" for number in range(1, 11)}


# --- from several threads -------------------------------------------------------------------------------------------


class Commuting:
    """Calls whose order makes no difference: other checkpoints, other versions, other tasks."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.places = [(thread, ns) for thread in ("t", "t1") for ns in ("", "n|m:1")]
        self.ids = [f"{number:02}" for number in range(6)]
        self.calls = [call for place in self.places for name in self.ids for call in self._calls(place, name)]
        chance.shuffle(self.calls)

    def _calls(self, place: tuple[str, str], name: str) -> Iterator[tuple[Any, ...]]:
        config = {"configurable": {"thread_id": place[0], "checkpoint_ns": place[1]}}
        values = {channel: [name, channel] * self.chance.randrange(20) for channel in CHANNELS}
        versions = {channel: f"{int(name):032}.{index:016}" for index, channel in enumerate(CHANNELS)}
        made = {"v": 4, "ts": name, "id": name, "channel_values": values, "channel_versions": versions}
        parent = self.chance.choice([None, *self.ids])
        under = {"configurable": {**config["configurable"], **({"checkpoint_id": parent} if parent else {})}}
        yield "put", under, {**made, "versions_seen": {}}, {"source": "loop", "step": int(name)}, versions
        here = {"configurable": {**config["configurable"], "checkpoint_id": name}}
        for task in ("1", "2", "3"):
            channels = self.chance.choices([*CHANNELS, *SPECIAL], k=3)
            yield "put_writes", here, [(channel, [task, name]) for channel in channels], task, f"~{task}"

    def make(self, saver: Any, calls: list[tuple[Any, ...]]) -> None:
        for method, *args in calls:
            getattr(saver, method)(*args)

    def told(self, saver: Any) -> list[Any]:
        configs = [{"configurable": {"thread_id": thread, "checkpoint_ns": ns}} for thread, ns in self.places]
        return [[shown(item) for item in saver.list(config)] for config in configs]


@pytest.mark.parametrize("engine", LOCATIONS)
def test_calls_that_commute_may_come_from_several_threads(engine, tmp_path, capsys):
    done = episode = 0
    while done < OPERATIONS // (len(WAYS) + 1) // len(LOCATIONS):
        story = Commuting(random.Random(f"{SEED}-{episode}"))
        with EventLogSaver.from_conn_string(LOCATIONS[engine](tmp_path / f"{episode}")) as saver:
            failed: list[BaseException] = []
            savers = [saver, EventLogSaver(saver.log), saver, saver.with_allowlist([("tests", "Something")])]
            threads = [
                threading.Thread(target=_noting, args=(failed, story, each, story.calls[number::THREADS]))
                for number, each in enumerate(savers)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failed, failed
            theirs = InMemorySaver()
            story.make(theirs, story.calls)
            for each in savers:
                assert story.told(each) == story.told(theirs), f"seed {SEED}-{episode}"
            assert list(saver.log.verify()) == []
        done += len(story.calls)
        episode += 1
    _print(capsys, f"{engine}, threads: seed {SEED}, {done:,} operations", Counter())


def _noting(failed: list[BaseException], story: Commuting, saver: Any, calls: list[tuple[Any, ...]]) -> None:
    try:
        story.make(saver, calls)
    except BaseException as error:  # noqa: BLE001 (told by the test)
        failed.append(error)
