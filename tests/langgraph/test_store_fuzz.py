"""Random batches to our store and to upstream's InMemoryStore, which have to answer the same.

A run is many short episodes, each on fresh stores. ``EVENTLOG_DEEP=20`` runs twenty times as many. Every hazard has to
come up, or the fuzzer says nothing. Where the two differ on purpose, calls keep away from the difference, or it is
taken out before they are compared:

- `created_at` survives updates here, as in upstream's PostgresStore; upstream's InMemoryStore resets it. Times are not
  compared; that what is updated keeps its time is checked here alone.
- Namespaces are searched sorted here, in the order of their first put (or get) there: what is found in several of them
  is compared namespace by namespace, and pages of it only by their length.
- Upstream lists a namespace once it was asked for, and for ever. Here it is listed while it holds something: listings
  are compared with upstream's after its empty namespaces are taken out of its dict.
- Order operators compare like with like here; upstream makes floats of both, and raises where it cannot. Filters
  compare numbers with numbers, or fields that are numbers in every item.
- Upstream keeps old vectors of an updated item, and pages what was not embedded from its start each time. So items with
  vectors are deleted before they are put again, and what is not embedded is compared without an offset.
- Upstream fails where two items of a batch have the same text to embed. So no two have.
- Scores are of 32-bit vectors here: they are compared to six digits, and orders among equal ones not at all.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from eventlog import EventLog
from savers.langgraph import EventLogStore
from tests.strict import strictly_equal

if TYPE_CHECKING:
    from pathlib import Path

EPISODES = 60 * int(os.environ.get("EVENTLOG_DEEP", "1"))
BATCHES = 25
LABELS = ["a", "b", "*", "~store", "A", "ab"]
KEYS = ["k", "", "~k", "~vk", "l" * 300, "m"]
LETTERS = "abcd"
HAZARDS = {
    "update", "delete", "delete of nothing", "put anew after a deletion", "get of nothing",
    "get before a put of the batch",
    "two puts of a key in a batch", "search of several namespaces", "search filtered", "search that found nothing",
    "search paged", "query", "query with items not embedded", "list cut", "list by wildcard", "list of nothing",
    "another handle", "async",
}  # fmt: skip


def embed(texts: list[str]) -> list[list[float]]:
    return [[text.count(letter) + 0.5 for letter in LETTERS] for text in texts]


INDEX: Any = {"dims": len(LETTERS), "embed": embed, "fields": ["text"]}


def plain(item: Any) -> Any:
    return None if item is None else (item.namespace, item.key, item.value)


def by_namespace(found: list[Any]) -> dict[Any, list[Any]]:
    sorted_out: dict[Any, list[Any]] = {}
    for item in found:
        sorted_out.setdefault(item.namespace, []).append(plain(item))
    return sorted_out


class Fuzzer:
    """One episode: makes batches, compares answers, counts hazards."""

    def __init__(self, seed: int, log: EventLog, hazards: Counter[str]) -> None:
        self.random = random.Random(seed)
        self.is_indexed = seed % 2 == 1
        options = {"index": INDEX} if self.is_indexed else {}
        self.ours = [EventLogStore(log, **options), EventLogStore(log, **options)]
        self.upstream = InMemoryStore(**options)
        self.hazards = hazards
        self.there: dict[Any, Any] = {}
        self.gone: set[Any] = set()

    def namespace(self, least: int = 1) -> tuple[str, ...]:
        return tuple(self.random.choices(LABELS, k=self.random.randint(least, 3)))

    def place(self) -> tuple[tuple[str, ...], str]:
        if self.there and self.random.random() < 0.6:
            return self.random.choice(list(self.there))
        return self.namespace(), self.random.choice(KEYS)

    def value(self) -> dict[str, Any]:
        draw = self.random
        value: dict[str, Any] = {"n": draw.randint(0, 4), "text": "".join(draw.choices(LETTERS, k=draw.randint(1, 3)))}
        if draw.random() < 0.5:
            value["nested"] = {"x": draw.choice([1, 2.5, "s", None]), "list": [draw.randint(0, 1), {"y": 1}]}
        if draw.random() < 0.3:
            del value["text"]
        return value

    def filter(self) -> dict[str, Any] | None:
        draw = self.random
        return draw.choice([
            None,
            {"n": draw.randint(0, 4)},
            {"n": {draw.choice(["$gt", "$gte", "$lt", "$lte"]): draw.choice([1, 2, 2.5])}},
            {"n": {"$gte": 1, "$ne": 3}},
            {"nested": {"x": draw.choice([1, 2.5, "s", None])}},
            {"nested": {"list": [0, {"y": {"$eq": 1}}]}},
            {"missing": None},
            {"n": 9},
        ])  # fmt: skip

    def batch(self) -> None:
        ops = [self.operation() for _ in range(self.random.randint(1, 6))]
        if self.is_indexed:  # see above: upstream keeps what it should not
            ops = self.without_updates(ops)
        ops.sort(key=lambda op: not isinstance(op, ListNamespacesOp))  # a get of the batch would add to upstream's list
        self.note(ops)
        ours = self.random.choice(self.ours)
        self.hazards["another handle"] += ours is self.ours[1]
        expected = self.upstream.batch(ops)
        if self.random.random() < 0.2:
            self.hazards["async"] += 1
            answers = asyncio.run(ours.abatch(ops))
        else:
            answers = ours.batch(ops)
        assert len(answers) == len(expected)
        for op, answer, control in zip(ops, answers, expected, strict=True):
            self.compare(op, answer, control)
        for namespace in [name for name, items in self.upstream._data.items() if not items]:
            del self.upstream._data[namespace]

    def without_updates(self, ops: list[Any]) -> list[Any]:
        kept: list[Any] = []
        seen: set[Any] = set()
        for op in ops:
            if isinstance(op, PutOp):
                marks = {(op.namespace, op.key), (op.value or {}).get("text", len(kept))}
                if marks & seen or (op.value is not None and (op.namespace, op.key) in self.there):
                    continue
                seen |= marks
            kept.append(op)
        return kept

    def operation(self) -> Any:
        draw = self.random.random()
        if draw < 0.4:
            return PutOp(*self.place(), self.value())
        if draw < 0.5:
            return PutOp(*self.place(), None)
        if draw < 0.65:
            return GetOp(*self.place())
        if draw < 0.85:
            return self.search()
        return self.listing()

    def search(self) -> SearchOp:
        draw = self.random
        prefix = draw.choice([(), self.namespace(), *(place[0] for place in self.there)])
        query = "".join(draw.choices(LETTERS, k=2)) if draw.random() < 0.4 else None
        limit, offset = draw.choice([(10, 0), (100, 0), (2, 0), (2, 1), (0, 0)])
        return SearchOp(prefix, self.filter(), limit, 0 if query else offset, query)

    def listing(self) -> ListNamespacesOp:
        draw = self.random
        kinds = draw.sample(["prefix", "suffix"], draw.randint(0, 2))
        conditions = tuple(MatchCondition(kind, self.namespace()) for kind in kinds)  # type: ignore[arg-type]
        return ListNamespacesOp(conditions or None, draw.choice([None, None, 1, 2]), draw.choice([100, 2]), 0)

    def note(self, ops: list[Any]) -> None:
        """Count what comes up, and know what is there afterwards."""
        seen: set[Any] = set()
        for op in ops:
            place = (getattr(op, "namespace", None), getattr(op, "key", None))
            if isinstance(op, GetOp):
                self.hazards["get of nothing"] += place not in self.there
                later = ops[ops.index(op) :]
                self.hazards["get before a put of the batch"] += any(
                    isinstance(o, PutOp) and (o.namespace, o.key) == place for o in later
                )
            if isinstance(op, PutOp):
                self.hazards["two puts of a key in a batch"] += place in seen
                seen.add(place)
        last = {(op.namespace, op.key): op.value for op in ops if isinstance(op, PutOp)}
        for place, value in last.items():
            if value is None:
                self.hazards["delete" if place in self.there else "delete of nothing"] += 1
                self.gone.add(place)
                self.there.pop(place, None)
            else:
                self.hazards["update"] += place in self.there
                self.hazards["put anew after a deletion"] += place in self.gone and place not in self.there
                self.there[place] = value

    def compare(self, op: Any, answer: Any, control: Any) -> None:
        if isinstance(op, SearchOp):
            self.compare_found(op, answer, control)
        elif isinstance(op, GetOp):
            assert strictly_equal(plain(answer), plain(control)), op
        else:
            assert answer == control, op
        if isinstance(op, ListNamespacesOp):
            self.hazards["list cut"] += op.max_depth is not None and bool(answer)
            self.hazards["list of nothing"] += not answer
            self.hazards["list by wildcard"] += bool(answer) and any("*" in c.path for c in op.match_conditions or ())

    def compare_found(self, op: SearchOp, answer: list[Any], control: list[Any]) -> None:
        several = len({item.namespace for item in [*answer, *control]}) > 1
        self.hazards["search of several namespaces"] += several
        self.hazards["search filtered"] += bool(op.filter) and bool(answer)
        self.hazards["search that found nothing"] += not answer
        self.hazards["search paged"] += op.offset > 0 and bool(answer)
        assert len(answer) == len(control), op
        if op.query and self.is_indexed:
            self.compare_scored(op, answer, control)
        elif not several:
            assert strictly_equal([plain(item) for item in answer], [plain(item) for item in control]), op
        elif len(answer) < op.limit and not op.offset:
            assert by_namespace(answer) == by_namespace(control), op

    def compare_scored(self, op: SearchOp, answer: list[Any], control: list[Any]) -> None:
        self.hazards["query"] += bool(answer)
        self.hazards["query with items not embedded"] += any(item.score is None for item in answer)
        scores = [item.score for item in answer if item.score is not None]
        assert scores == pytest.approx([item.score for item in control if item.score is not None], abs=1e-6), op
        assert [item.score is None for item in answer] == [item.score is None for item in control]
        if len(answer) < op.limit:
            near = {(plain(item)[:2], None if item.score is None else round(item.score, 5)) for item in answer}
            assert near == {(plain(i)[:2], None if i.score is None else round(i.score, 5)) for i in control}, op


def test_random_batches_are_answered_as_upstream_does(tmp_path: Path) -> None:
    hazards: Counter[str] = Counter(dict.fromkeys(HAZARDS, 0))
    for seed in range(EPISODES):
        location = tmp_path / f"{seed}" if seed % 10 < 2 else "memory:"
        with EventLog.open(location) as log:
            fuzzer = Fuzzer(seed, log, hazards)
            for number in range(BATCHES):
                try:
                    fuzzer.batch()
                except AssertionError as error:
                    raise AssertionError(f"episode {seed}, batch {number}: {error}") from error
            assert list(log.verify()) == []
    print(dict(hazards))
    assert set(hazards) == HAZARDS
    assert not [hazard for hazard, count in hazards.items() if not count]


def test_what_is_updated_keeps_the_time_at_which_it_was_made() -> None:
    now = iter(range(10**18, 10**19, 10**9))
    with EventLogStore.from_conn_string("memory:", clock=lambda: next(now)) as store:
        draw, made = random.Random(0), {}
        for _ in range(300):
            key = draw.choice(KEYS)
            if draw.random() < 0.2:
                store.delete(("a",), key)
                made.pop(key, None)
            else:
                store.put(("a",), key, {"n": draw.random()})
                item = store.get(("a",), key)
                assert item is not None
                assert made.setdefault(key, item.created_at) == item.created_at
