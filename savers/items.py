"""Items of a store, on an event log: what both stores stand on.

Owns how a namespace is a run and a key is a channel of it. All that one call puts into a namespace is one event, so it
is there whole or not at all, and a memory has a history that can be diffed, replayed and forked like any other.

```
 run      ("~store", "~", "~", label, ...)     a namespace; a saver's runs have at most two parts, so no thread's name
                                               is ever a namespace's; labels that cannot stand in a name are hashed
 channel  key                                  an item; ``~k`` and a hash, where the key cannot name a channel
          ~v key  |  ~h hash                   the item's vectors, written and removed by the same events
```

An item's channel holds a dict: ``value``, ``created`` and ``updated``, nanoseconds since the epoch, and where they say
something ``ttl`` and ``expires`` (nanoseconds, and since the epoch), ``vectors`` (True) and ``key``.
"""

from __future__ import annotations

import datetime as dt
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog import (
    Delete,
    InvalidIdError,
    InvalidInputError,
    Merge,
    UnknownTypeError,
    Update,
    check_id,
)
from eventlog import history as history_of
from savers.namespaces import STORE, Namespaces
from savers.saver import MARK
from savers.shelves import NOBODY, Shelves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from eventlog import Codec, Event, EventLog, Run, State
    from savers.shelves import Origin, Shelf, Writes

    Namespace = tuple[str, ...]

LABEL_BYTES: Final = 4096
REFRESH_FRACTION: Final = 20
"""Reading an item moves its expiry only where it moves by at least this part (1/20) of its time to live: a hot key is
not written at each read, and may go that much earlier than its last reading says."""

_ROOM: Final = (STORE, MARK, MARK)
_HASHED: Final = "~k"
_HASHED_VECTORS: Final = "~h"
_VECTORS: Final = "~v"
_PLAIN_BYTES: Final = 255 - len(_VECTORS)
_WHOLE_BYTES: Final = 4096
"""An item of at most so many bytes is written whole when it is put: in a large namespace, deltas of a hot key would
outnumber what they save before its run has reason to put them together."""
_EXPIRES: Final = "expires"


class Kept(NamedTuple):
    """An item as it lies in its channel; times in nanoseconds since the epoch."""

    key: str
    value: dict[str, Any]
    created_ns: int
    updated_ns: int
    ttl_ns: int | None
    expires_ns: int | None
    has_vectors: bool


class Put(NamedTuple):
    """What a key is to hold.

    Attributes:
        value: the item's value; None removes the item.
        vectors: what its vectors' channel is to hold; None for an item without.
        ttl_ns: how long it lives after it was last written or read; None for ever.
    """

    value: Mapping[str, Any] | None
    vectors: Any = None
    ttl_ns: int | None = None


def moment(time_ns: int) -> dt.datetime:
    """A time in UTC, to the microsecond."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=nanoseconds // 1000)


def run_name(namespace: Namespace) -> tuple[str, ...]:
    """The name of a namespace's run."""
    return (*_ROOM, *(_plain_or_hashed("namespace label", label, LABEL_BYTES) for label in namespace))


def channel_of(key: str) -> str:
    """The channel of an item."""
    return _plain_or_hashed("key", key, _PLAIN_BYTES)


def _plain_or_hashed(what: str, text: str, max_bytes: int) -> str:
    """A string as it may stand in a name: itself, unless it is empty, too long, not printable or like one of ours."""
    if not text.startswith(MARK):
        with suppress(InvalidIdError):
            return check_id(what, text, max_bytes)
    try:
        return _HASHED + blake2b(text.encode(), digest_size=20).hexdigest()
    except UnicodeEncodeError as error:
        raise InvalidIdError(what, "holds a lone surrogate, which UTF-8 cannot carry") from error


def vectors_of(channel: str) -> str:
    """The channel of the vectors of the item in `channel`."""
    hashed = channel.removeprefix(_HASHED)
    return _VECTORS + channel if hashed == channel else _HASHED_VECTORS + hashed


def is_item(channel: str) -> bool:
    """Whether a channel holds an item, and not what lies beside one."""
    return not channel.startswith(MARK) or channel.startswith(_HASHED)


def kept_in(channel: str, found: dict[str, Any]) -> Kept:
    """The item that a channel's value says."""
    get = found.get
    return Kept(
        get("key", channel),
        found["value"],
        found["created"],
        found["updated"],
        get("ttl"),
        get(_EXPIRES),
        "vectors" in found,
    )


def check_namespace(namespace: object) -> Namespace:
    """`namespace`, if it is a tuple of labels.

    Raises:
        InvalidInputError: no tuple; its subclass `InvalidIdError`: a label is empty, too long, or not printable.
    """
    if not isinstance(namespace, tuple):
        raise InvalidInputError(f"a namespace is a tuple of strings, not {namespace!r:.80}")
    for label in namespace:
        check_id("namespace label", label, LABEL_BYTES)
    return namespace


class Items:
    """The items of one log, by namespace and key. May be used from any thread.

    Args:
        log: the log.
        codec: turns values into bytes.
        clock: nanoseconds since the epoch.
    """

    def __init__(self, log: EventLog, codec: Codec, clock: Callable[[], int] = time.time_ns) -> None:
        self.log = log
        self.codec = codec
        self.clock = clock
        self.names = Namespaces(log, codec)
        self._shelves = Shelves(log, codec)

    def frozen(self, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a value that nobody else can reach, by way of its bytes.

        Raises:
            UnserializableError: something in it cannot be read back equal.
        """
        copied: dict[str, Any] = self.codec.decode(self.codec.encode(dict(value), key))
        return copied

    # --- reading --------------------------------------------------------------------------------------------------

    def run(self, namespace: Namespace) -> Run:
        """The run of a namespace: a handle of the caller's own."""
        return self.log.run(run_name(namespace), codec=self.codec)

    def get(self, namespace: Namespace, key: str) -> Kept | None:
        """The item under a key now, expired or not."""
        channel = channel_of(key)
        shelf = self._shelves.current(run_name(namespace))
        found = None if shelf is None else shelf.run.value(channel)
        return None if found is None else kept_in(channel, found)

    def state(self, namespace: Namespace) -> State | None:
        """All channels of a namespace now, in the order in which they came; None if there is no such namespace."""
        shelf = self._shelves.current(run_name(namespace))
        return None if shelf is None else shelf.run.state

    def history(self, namespace: Namespace, key: str) -> Iterator[tuple[Event, Kept | None]]:
        """What was under a key, oldest first, with the event that wrote it; None where that removed it.

        Events that only moved the expiry are left out.
        """
        channel = channel_of(key)
        for event, found in history_of(self.run(namespace), channel):
            if not _only_refreshed(event.writes[channel]):
                yield event, None if isinstance(found, Delete) else kept_in(channel, found)

    # --- writing --------------------------------------------------------------------------------------------------

    def put(self, namespace: Namespace, puts: Mapping[str, Put], origin: Origin = NOBODY) -> None:
        """Put and remove items of one namespace, in one event: the last writer wins.

        `created` of an item that is there already stays. Removing what is not there leaves no trace.

        Raises:
            UnserializableError: a value cannot be read back equal. Nothing was written.
            ConflictError: too many others write there at once. Nothing was written.
        """
        self._shelves.append(run_name(namespace), lambda run: self._puts(run, namespace, puts), origin)

    def _puts(self, run: Run, namespace: Namespace, puts: Mapping[str, Put]) -> Writes:
        now = self.clock()
        writes: Writes = {}
        for key, put in puts.items():
            channel = channel_of(key)
            old = _old(run, channel)
            vectors = put.vectors if put.value is not None else None
            if put.value is not None:
                item = _listed(key, channel, put, now if old is None else old.created_ns or now, now)
                writes[channel] = item if len(self.codec.encode(item, key)) <= _WHOLE_BYTES else Update(item)
            elif old is not None:
                writes[channel] = Delete()
            if vectors is not None:
                writes[vectors_of(channel)] = vectors
            elif old is not None and old.has_vectors:
                writes[vectors_of(channel)] = Delete()
        if writes and run.head_id is None:
            self.names.add(namespace)
        return writes

    def refresh(self, namespace: Namespace, keys: Iterable[str]) -> None:
        """Let items that were read live as long again as they were given; see `REFRESH_FRACTION`."""
        self._shelves.append(run_name(namespace), lambda run: self._refreshed(run, keys))

    def _refreshed(self, run: Run, keys: Iterable[str]) -> Writes:
        now = self.clock()
        writes: Writes = {}
        for channel in map(channel_of, keys):
            found = run.value(channel)
            if found is not None and is_due(kept_in(channel, found), now):
                writes[channel] = Merge({_EXPIRES: now + found["ttl"]})
        return writes

    def sweep(self) -> int:
        """Remove what has expired; how many items that was."""
        return sum(map(self._sweep, self.names.within()))

    def _sweep(self, namespace: Namespace) -> int:
        shelf = self._shelves.current(run_name(namespace))
        if shelf is None or self._nothing_expired(shelf):
            return 0
        return sum(map(is_item, self._shelves.append(run_name(namespace), self._expired)))

    def _nothing_expired(self, shelf: Shelf) -> bool:
        head, first = shelf.known
        if head != shelf.run.head_id:
            state = shelf.run.state
            first = min((kept.expires_ns for _, kept in _mortal(state) if kept.expires_ns is not None), default=None)
            shelf.known = (None if state.event is None else state.event.id, first)
        return bool(first is None or first > self.clock())

    def _expired(self, run: Run) -> Writes:
        now = self.clock()
        writes: Writes = {}
        for channel, kept in _mortal(run.state):
            if is_expired(kept, now):
                writes[channel] = Delete()
                if kept.has_vectors:
                    writes[vectors_of(channel)] = Delete()
        return writes


def items_in(state: State) -> Iterator[Kept]:
    """The items of a namespace, in the order in which they came."""
    return (kept_in(channel, state[channel]) for channel in state if is_item(channel))


def _mortal(state: State) -> Iterator[tuple[str, Kept]]:
    """The items that expire some time, by channel; what holds a value of a type that is gone is left as it is."""
    for channel in filter(is_item, state):
        with suppress(UnknownTypeError):
            kept = kept_in(channel, state[channel])
            if kept.expires_ns is not None:
                yield channel, kept


def is_expired(kept: Kept, now_ns: int) -> bool:
    """Whether an item's time is over."""
    return kept.expires_ns is not None and kept.expires_ns <= now_ns


def is_due(kept: Kept, now_ns: int) -> bool:
    """Whether reading an item now moves its expiry by enough to write that down."""
    if not kept.ttl_ns or kept.expires_ns is None:
        return False
    return (now_ns + kept.ttl_ns - kept.expires_ns) * REFRESH_FRACTION >= kept.ttl_ns


def _only_refreshed(write: Any) -> bool:
    return isinstance(write, Merge) and list(write.changes) == [_EXPIRES]


class _Old(NamedTuple):
    created_ns: int | None
    has_vectors: bool


def _old(run: Run, channel: str) -> _Old | None:
    """What a put has to know of the item before it; a value of a type that is gone can be replaced and removed, too."""
    try:
        found = run.value(channel)
    except UnknownTypeError:
        return _Old(None, vectors_of(channel) in run.state)
    return None if found is None else _Old(found["created"], "vectors" in found)


def _listed(key: str, channel: str, put: Put, created_ns: int, now_ns: int) -> dict[str, Any]:
    assert put.value is not None
    listed = {"value": dict(put.value), "created": created_ns, "updated": now_ns}
    if put.ttl_ns is not None:
        listed |= {"ttl": put.ttl_ns, _EXPIRES: now_ns + put.ttl_ns}
    if put.vectors is not None:
        listed["vectors"] = True
    if key != channel:
        listed["key"] = key
    return listed
