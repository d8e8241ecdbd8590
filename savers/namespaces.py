"""Which namespaces a store has.

Owns the run that lists them. A namespace is added before anything lies in it, and stays: whether it holds something is
asked of its own run. So a search looks at the namespaces that it is for, however many others there are.

```
 run      ("~store", "~", "names")     no namespace's, and no saver's, which have at most two parts
 channel  hash of the labels           the labels, as a list
```
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import blake2b
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from savers.saver import MARK
from savers.shelves import Shelves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventlog import Codec, EventLog, Run, State
    from savers.shelves import Shelf

    Namespace = tuple[str, ...]

STORE: Final = "~store"
"""First part of the names of a store's runs."""

_NAMES: Final = (STORE, MARK, "names")


class _Known(NamedTuple):
    channels: frozenset[str]
    ordered: list[Namespace]


_NONE: Final = _Known(frozenset(), [])


class Namespaces:
    """The namespaces of the store on one log. May be used from any thread."""

    def __init__(self, log: EventLog, codec: Codec) -> None:
        self._shelves = Shelves(log, codec)

    def add(self, namespace: Namespace) -> None:
        """List a namespace that is to hold something, if it is not listed yet."""
        channel = _channel(namespace)

        def make(run: Run) -> dict[str, Any]:
            return {channel: list(namespace)} if run.value(channel) is None else {}

        self._shelves.append(_NAMES, make)

    def within(self, prefix: Namespace = ()) -> Iterator[Namespace]:
        """The namespaces that begin with the labels of `prefix`, sorted; also those that hold nothing any more."""
        shelf = self._shelves.current(_NAMES)
        ordered = [] if shelf is None else _known(shelf).ordered
        following = (ordered[index] for index in range(bisect_left(ordered, prefix), len(ordered)))
        return takewhile(lambda name: name[: len(prefix)] == prefix, following)


def _known(shelf: Shelf) -> _Known:
    """What the listing run says now; only what was added since it was last looked at is decoded."""
    head, known = shelf.known
    if head != shelf.run.head_id or known is None:
        state = shelf.run.state
        known = _with_news(_NONE if known is None else known, state)
        shelf.known = (None if state.event is None else state.event.id, known)
    found: _Known = known
    return found


def _with_news(known: _Known, state: State) -> _Known:
    news = [tuple(state[channel]) for channel in state if channel not in known.channels]
    return _Known(frozenset(state), sorted([*known.ordered, *news]))


def _channel(namespace: Namespace) -> str:
    parts = [label.encode() for label in namespace]
    return blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in parts), digest_size=20).hexdigest()
