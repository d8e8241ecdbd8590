"""A storage between whose calls somebody else does something, as another process would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventlog.storage.memory import MemoryStorage
from tests.counting import CountingStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from eventlog.storage import Storage


class Between(CountingStorage):
    """Calls somebody before some of the calls, or behind a scan."""

    def __init__(self, inner: Storage, plan: Mapping[int, Callable[[], object]]) -> None:
        super().__init__(inner)
        self.plan = dict(plan)
        self.calls = 0

    def pause(self) -> None:
        meanwhile = self.plan.pop(self.calls, None)
        self.calls += 1
        if meanwhile is not None:
            meanwhile()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.pause()
        return super().get(keys)

    def scan(self, *args: Any, **more: Any) -> Iterator[tuple[bytes, bytes]]:
        self.pause()
        pairs = list(super().scan(*args, **more))
        self.pause()
        return iter(pairs)

    def commit(self, *args: Any, **more: Any) -> None:
        self.pause()
        super().commit(*args, **more)


def filled(records: dict[bytes, bytes]) -> MemoryStorage:
    """A storage in memory that holds those."""
    storage = MemoryStorage()
    storage.commit(list(records.items()))
    return storage
