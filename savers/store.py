"""The seed contract's store, on an event log.

Owns how a key is a run: each key has a run of its own, so keys never wait for each other, and every value a key ever
had is an event of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from eventlog import ConflictError, Delete, EventLog, InvalidInputError, NotFoundError, Update, check_id
from savers.base import BaseStore
from savers.saver import Handles, runs_of
from savers.serde import JsonPlusSerde

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from eventlog import Codec, Run

STORE = "~store"
"""First part of the names of the store's runs; the key is the second."""

_CHANNEL = "value"
_TRIES = 100


class EventLogStore(BaseStore):
    """Keeps small mappings under keys, with their whole history.

    Args:
        log: the log, which stays its owner's to close; or the location of one, which `close` then closes.
        serde: turns values into bytes; by default JSON with tagged types.
    """

    def __init__(self, log: EventLog | str | os.PathLike[str], *, serde: Codec | None = None) -> None:
        self._owns_log = not isinstance(log, EventLog)
        self.log = log if isinstance(log, EventLog) else EventLog.open(log)
        self.serde: Codec = serde or JsonPlusSerde()
        self._runs = Handles(self.log, runs_of(self.log))

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """See `BaseStore.put`; only what differs from the value before is written."""
        check_id("key", key)
        if not isinstance(value, Mapping) or not all(type(name) is str for name in value):
            raise InvalidInputError("value must be a mapping with strings as keys")
        self._append(key, Update(dict(value)))

    def get(self, key: str) -> dict[str, Any] | None:
        """See `BaseStore.get`."""
        found: dict[str, Any] | None = self._now(key).get(_CHANNEL)
        return found

    def delete(self, key: str) -> None:
        """See `BaseStore.delete`; the values it had stay in its history."""
        if _CHANNEL in self._now(key):
            self._append(key, Delete())

    def history(self, key: str) -> Run:
        """The run behind a key: each value it had is the channel ``"value"`` at one of its events."""
        return self.log.run((STORE, check_id("key", key)), codec=self.serde)

    def _now(self, key: str) -> Mapping[str, Any]:
        """The state behind a key; empty if there is none."""
        run = self._runs.to_read((STORE, check_id("key", key)), self.serde)
        try:
            return run.refresh().state
        except NotFoundError:  # its run was deleted at this moment
            return {}

    def _append(self, key: str, write: Update | Delete) -> None:
        """The last writer wins: a store has no heads for its users to expect."""
        for _ in range(_TRIES):
            run = self._runs.to_write((STORE, key), self.serde)
            try:
                run.append({_CHANNEL: write})
            except ConflictError:
                run.refresh()
            except NotFoundError:
                self._runs.forget((STORE, key))
            except InvalidInputError:  # somebody else deleted it first
                if not isinstance(write, Delete):
                    raise
                if _CHANNEL not in self._now(key):
                    return
            else:
                return
        raise ConflictError(f"too many writers of the key {key!r} at once; try again")

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
