"""The seed contract's store, on an event log.

Owns what its arguments may be; how items lie in the log is the business of `savers.items`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from eventlog import MSGPACK, EventLog, InvalidInputError, blame, check_id
from savers.base import BaseStore, Item, check_count
from savers.filters import check_filter
from savers.items import Items, Put, channel_of, check_namespace, moment
from savers.searches import Listing, found, listed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from types import TracebackType

    from eventlog import Codec, Event, Run
    from savers.items import Kept, Namespace


class EventLogStore(BaseStore):
    """Keeps small mappings under keys, with their whole history.

    Args:
        log: the log, which stays its owner's to close; or the location of one, which `close` then closes.
        serde: turns values into bytes; by default the engine's own codec, which `savers.langgraph.EventLogStore` uses
            as well: on one log, both have the same items.
    """

    def __init__(self, log: EventLog | str | os.PathLike[str], *, serde: Codec | None = None) -> None:
        self._owns_log = not isinstance(log, EventLog)
        self.log = log if isinstance(log, EventLog) else EventLog.open(log)
        self.serde: Codec = serde or MSGPACK
        self._items = Items(self.log, self.serde)

    def put(self, key: str, value: Mapping[str, Any], *, namespace: Namespace = ()) -> None:
        """See `BaseStore.put`; only what differs from the value before is written."""
        check_id("key", key)
        self._items.put(check_namespace(namespace), {key: Put(_checked(value))})

    async def aput(self, key: str, value: Mapping[str, Any], *, namespace: Namespace = ()) -> None:
        """See `BaseStore.aput`."""
        frozen = self._items.frozen(check_id("key", key), _checked(value))
        await asyncio.to_thread(self.put, key, frozen, namespace=namespace)

    def get(self, key: str, *, namespace: Namespace = ()) -> dict[str, Any] | None:
        """See `BaseStore.get`."""
        kept = self._items.get(check_namespace(namespace), check_id("key", key))
        return None if kept is None else kept.value

    def delete(self, key: str, *, namespace: Namespace = ()) -> None:
        """See `BaseStore.delete`; the values it had stay in its history."""
        self._items.put(check_namespace(namespace), {check_id("key", key): Put(None)})

    def search(
        self,
        namespace_prefix: Namespace = (),
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 (the word of every store)
        limit: int = 10,
        offset: int = 0,
    ) -> list[Item]:
        """See `BaseStore.search`."""
        check_filter(filter)
        check_namespace(namespace_prefix)
        first = check_count("offset", offset)
        last = first + check_count("limit", limit)
        return [_item(*each) for each in islice(found(self._items, namespace_prefix, filter), first, last)]

    def list_namespaces(
        self,
        prefix: Namespace | None = None,
        suffix: Namespace | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """See `BaseStore.list_namespaces`."""
        patterns = [check_namespace(pattern or ()) for pattern in (prefix, suffix)]
        return listed(self._items, Listing([patterns[0]], [patterns[1]], max_depth, limit, offset))

    # --- history --------------------------------------------------------------------------------------------------

    def history(self, key: str, *, namespace: Namespace = ()) -> Iterator[tuple[Event, dict[str, Any] | None]]:
        """Every value that a key had, oldest first, with the event that wrote it; None where it was removed."""
        for event, kept in self._items.history(check_namespace(namespace), check_id("key", key)):
            yield event, None if kept is None else kept.value

    def blame(self, key: str, *, namespace: Namespace = ()) -> Event | None:
        """The event that last put or removed a key; None for one that never was."""
        return blame(self.run(namespace), channel_of(check_id("key", key)))

    def run(self, namespace: Namespace = ()) -> Run:
        """The run behind a namespace, its keys are channels: to diff, replay or fork it. The caller's own handle."""
        return self._items.run(check_namespace(namespace))

    def close(self) -> None:
        """Close the log, if this store opened it. Idempotent."""
        if self._owns_log:
            self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(type(name) is str for name in value):
        raise InvalidInputError("value must be a mapping with strings as keys")
    return value


def _item(namespace: Namespace, kept: Kept) -> Item:
    return Item(namespace, kept.key, kept.value, moment(kept.created_ns), moment(kept.updated_ns))
