"""LangGraph's store, on an event log.

Owns what LangGraph's operations mean: what a batch reads and writes, when an item has expired, who wrote it. How items
lie in the log is the business of `savers.items`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    PutOp,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from eventlog import MSGPACK, EventLog, blame
from savers.filters import matches
from savers.items import (
    Items,
    Put,
    channel_of,
    is_due,
    is_expired,
    is_item,
    kept_in,
    moment,
)
from savers.langgraph.index import NOTHING_EMBEDDED, Index
from savers.langgraph.operations import checked, checked_namespace, listing_of, origin, ttl_ns
from savers.langgraph.sweeper import Sweeper
from savers.searches import found, listed

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType

    from langgraph.store.base import Op, Result

    from eventlog import Event, Run
    from savers.items import Kept, Namespace
    from savers.langgraph.index import Embedded
    from savers.shelves import Origin

    Hit = tuple[Namespace, Kept, float | None]

_SWEEP_MINUTES = 5


class _Plan(NamedTuple):
    """A batch that was looked through: nothing in it can be wrong any more."""

    ops: list[Op]
    puts: dict[Namespace, dict[str, PutOp]]
    texts: dict[Namespace, dict[str, list[str]]]
    origin: Origin

    def all_texts(self) -> list[str]:
        """The texts to embed, each once."""
        return [*dict.fromkeys(chain.from_iterable(chain.from_iterable(map(dict.values, self.texts.values()))))]

    def all_queries(self) -> list[str]:
        """The queries to embed, each once."""
        return [*dict.fromkeys(op.query for op in self.ops if isinstance(op, SearchOp) and op.query)]


class EventLogStore(BaseStore):
    """Keeps the memories of LangGraph graphs in an event log, for sync and async graphs alike.

    A namespace is a run and a key is a channel of it, so a memory has a history: `history`, `blame`, and through `run`
    all that the engine does with a run. What one batch puts into one namespace is one event: whole or not at all. The
    last writer wins. May be used from any thread and from any event loop.

    Beside LangGraph's own promises: ``created_at`` stays when an item is updated; items are found namespace after
    namespace, sorted, and within one in the order in which they were put; and a namespace that holds nothing is not
    listed.

    Args:
        log: the log, which stays its owner's to close.
        index: LangGraph's; items can then be searched by a query. Needs numpy (the extra ``vector``).
        ttl: LangGraph's. Reading an item moves its expiry where it moves by at least 1/20 of its time to live.
        clock: nanoseconds since the epoch.

    Raises:
        InvalidInputError: a config that can never be right, or numpy is missing.
    """

    supports_ttl = True

    def __init__(
        self,
        log: EventLog,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__()
        self.log = log
        self.index_config = None if index is None else index.copy()
        self.ttl_config = None if ttl is None else ttl.copy()
        ttl_ns((ttl or {}).get("default_ttl"))
        self._index = None if index is None else Index(index)
        self._items = Items(log, MSGPACK, clock)
        self._sweeper: Sweeper | None = None
        self._lock = threading.Lock()
        self._owns_log = False

    @classmethod
    def from_conn_string(
        cls,
        location: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal", "off"] = "normal",
        **options: Any,
    ) -> Self:
        """A store on the log at `location`, opened for it; use it in ``with`` or ``async with``, which closes the log.

        Args:
            location: as for `EventLog.open`.
            synchronous: as for `EventLog.open`.
            options: as for the class.
        """
        log = EventLog.open(location, synchronous=synchronous)
        try:
            store = cls(log, **options)
        except BaseException:
            log.close()
            raise
        store._owns_log = True
        return store

    # --- batches --------------------------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do operations, and give their results in the order of the operations.

        Reads see what was there before the batch. Puts come last; of several to one key, the last one counts. An
        operation that can never be right is refused before anything is read or written.

        Raises:
            InvalidInputError: such an operation; its subclass `UnserializableError` names what cannot be stored.
            InvalidNamespaceError: a namespace that LangGraph does not allow.
        """
        plan = self._planned(ops, copies=False)
        index, texts, queries = self._index, plan.all_texts(), plan.all_queries()
        embedded = NOTHING_EMBEDDED if index is None or not (texts or queries) else index.embed(texts, queries)
        return self._done(plan, embedded)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`. The values are copied before this first waits, so the graph may go on to change them.

        If it is cancelled, what the batch puts into one namespace is there whole or not at all.
        """
        plan = self._planned(ops, copies=True)
        index, texts, queries = self._index, plan.all_texts(), plan.all_queries()
        embedded = NOTHING_EMBEDDED if index is None or not (texts or queries) else await index.aembed(texts, queries)
        return await asyncio.to_thread(self._done, plan, embedded)

    def _planned(self, ops: Iterable[Op], *, copies: bool) -> _Plan:
        """Look a batch through, reading nothing; values are copied if the caller may go on to change them."""
        listed_ops = [checked(op) for op in ops]
        puts: dict[Namespace, dict[str, PutOp]] = {}
        for op in listed_ops:
            if isinstance(op, PutOp):
                puts.setdefault(op.namespace, {})[op.key] = op
        if copies or len(puts) > 1:  # else the one event is what finds a value that cannot be stored
            puts = {namespace: self._copied(by_key) for namespace, by_key in puts.items()}
        texts = {} if self._index is None else {name: _texts(self._index, by_key) for name, by_key in puts.items()}
        return _Plan(listed_ops, puts, texts, origin())

    def _copied(self, puts: dict[str, PutOp]) -> dict[str, PutOp]:
        return {
            key: put if put.value is None else put._replace(value=self._items.frozen(key, put.value))
            for key, put in puts.items()
        }

    def _done(self, plan: _Plan, embedded: Embedded) -> list[Result]:
        read: dict[Namespace, set[str]] = {}
        results = [self._read(op, embedded, read) for op in plan.ops]
        for namespace, keys in read.items():
            self._items.refresh(namespace, keys - plan.puts.get(namespace, {}).keys())
        for namespace, puts in plan.puts.items():
            texts = plan.texts.get(namespace, {})
            made = {key: self._put(put, texts.get(key), embedded) for key, put in puts.items()}
            self._items.put(namespace, made, plan.origin)
        return results

    def _put(self, put: PutOp, texts: list[str] | None, embedded: Embedded) -> Put:
        if not texts or self._index is None:
            return Put(put.value, None, ttl_ns(put.ttl))
        return Put(put.value, self._index.vectors.packed([embedded.texts[text] for text in texts]), ttl_ns(put.ttl))

    # --- reading --------------------------------------------------------------------------------------------------

    def _read(self, op: Op, embedded: Embedded, read: dict[Namespace, set[str]]) -> Result:
        """The result of an operation; what it read and has to live longer for it is added to `read`."""
        if isinstance(op, GetOp):
            return self._got(op, read)
        if isinstance(op, SearchOp):
            return self._searched(op, embedded, read)
        if isinstance(op, ListNamespacesOp):
            return listed(self._items, listing_of(op), but_expired_ns=self._omitted_ns())
        return None

    def _got(self, op: GetOp, read: dict[Namespace, set[str]]) -> Item | None:
        kept = self._items.get(op.namespace, op.key)
        omitted_ns = self._omitted_ns()
        if kept is None or (omitted_ns is not None and is_expired(kept, omitted_ns)):
            return None
        self._note(op, op.namespace, kept, read)
        return Item(**_facts(op.namespace, kept))

    def _searched(self, op: SearchOp, embedded: Embedded, read: dict[Namespace, set[str]]) -> list[SearchItem]:
        hits: Iterator[Hit]
        if op.query and self._index is not None:
            hits = self._ranked(op, self._index, embedded.queries[op.query])
        else:
            plain = found(self._items, op.namespace_prefix, op.filter, but_expired_ns=self._omitted_ns())
            hits = ((namespace, kept, None) for namespace, kept in plain)
        result = []
        for namespace, kept, score in islice(hits, op.offset, op.offset + op.limit):
            self._note(op, namespace, kept, read)
            result.append(SearchItem(**_facts(namespace, kept), score=score))
        return result

    def _ranked(self, op: SearchOp, index: Index, query: Any) -> Iterator[Hit]:
        """What a search finds, the nearest first, then what was not embedded; lazy."""
        omitted_ns = self._omitted_ns()
        near: list[tuple[Any, ...]] = []
        rest: list[tuple[Any, ...]] = []
        for namespace in self._items.names.within(op.namespace_prefix):
            state = self._items.state(namespace)
            if state is None:
                continue
            scores = index.vectors.scores(namespace, state, query)
            for channel in filter(is_item, state):
                score = scores.get(channel)
                (rest if score is None else near).append((score, namespace, state, channel))
        near.sort(key=_score, reverse=True)
        for score, namespace, state, channel in chain(near, rest):
            kept = kept_in(channel, state[channel])
            if (omitted_ns is None or not is_expired(kept, omitted_ns)) and matches(kept.value, op.filter):
                yield namespace, kept, score

    def _omitted_ns(self) -> int | None:
        """The time at which what is read must not have expired; None if it may have."""
        return self._items.clock() if (self.ttl_config or {}).get("omit_expired") else None

    def _note(self, op: GetOp | SearchOp, namespace: Namespace, kept: Kept, read: dict[Namespace, set[str]]) -> None:
        if op.refresh_ttl and is_due(kept, self._items.clock()):
            read.setdefault(namespace, set()).add(kept.key)

    # --- history --------------------------------------------------------------------------------------------------

    def history(self, namespace: Namespace, key: str) -> Iterator[tuple[Event, Item | None]]:
        """Every item that was under a key, oldest first, with the event that wrote it; None where it was removed.

        The event says when, and, for a put from a node of a graph, which one (``event.task``) in which thread and step
        (``event.meta``).
        """
        for event, kept in self._items.history(checked_namespace(namespace), str(key)):
            yield event, None if kept is None else Item(**_facts(namespace, kept))

    def blame(self, namespace: Namespace, key: str) -> Event | None:
        """The event that last wrote or removed an item; None for a key that never was."""
        return blame(self.run(namespace), channel_of(str(key)))

    def run(self, namespace: Namespace) -> Run:
        """The run behind a namespace, its keys are channels: to diff, replay or fork it. The caller's own handle."""
        return self._items.run(checked_namespace(namespace))

    # --- expiry ---------------------------------------------------------------------------------------------------

    def sweep_ttl(self) -> int:
        """Remove the items that have expired; how many they were. Their history stays."""
        return self._items.sweep()

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Begin to sweep now and then, in a thread of its own, until `stop_ttl_sweeper`, `close` or the store's end.

        Args:
            sweep_interval_minutes: by default that of the config, else 5.

        Returns:
            Done when the sweeper has ended; cancel it to end the sweeper. That of the running one, if there is one.
        """
        minutes = sweep_interval_minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or _SWEEP_MINUTES
        with self._lock:
            if self._sweeper is None or not self._sweeper.is_running:
                self._sweeper = Sweeper(self, minutes * 60)
            return self._sweeper.done

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """End the sweeper, if there is one; False if it is still busy after `timeout` seconds."""
        sweeper = self._sweeper
        return sweeper is None or sweeper.stop(timeout)

    # --- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the sweeper, and close the log, if this store opened it. Idempotent."""
        self.stop_ttl_sweeper()
        if self._owns_log:
            self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)


def _score(hit: tuple[Any, ...]) -> Any:
    return hit[0]


def _texts(index: Index, puts: dict[str, PutOp]) -> dict[str, list[str]]:
    return {key: index.texts(put) for key, put in puts.items()}


def _facts(namespace: Namespace, kept: Kept) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "key": kept.key,
        "value": kept.value,
        "created_at": moment(kept.created_ns),
        "updated_at": moment(kept.updated_ns),
    }
