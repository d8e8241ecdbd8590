"""LangGraph's own conformance suite over our saver, through its async methods and through its sync ones.

The suite looks at the async methods alone; `SyncOnly` lets it see the others. Upstream's own saver runs beside: what it
fails is the suite's fault.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import BASE_CAPABILITIES, EXTENDED_CAPABILITIES
from langgraph.checkpoint.memory import InMemorySaver

from savers.langgraph import EventLogSaver
from tests.engines import LOCATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

BASE = sorted(capability.value for capability in BASE_CAPABILITIES)
EXTENDED = sorted(capability.value for capability in EXTENDED_CAPABILITIES)


class SyncOnly(BaseCheckpointSaver[Any]):
    """Async methods that call the sync ones of another saver, on the running loop."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=saver.serde)
        self.saver = saver

    def get_next_version(self, current, channel):
        return self.saver.get_next_version(current, channel)

    async def aput(self, config, checkpoint, metadata, new_versions):
        return self.saver.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(self, config, writes, task_id, task_path=""):
        return self.saver.put_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config):
        return self.saver.get_tuple(config)

    async def alist(self, config, *, filter=None, before=None, limit=None):  # noqa: A002
        for item in self.saver.list(config, filter=filter, before=before, limit=limit):
            yield item

    async def adelete_thread(self, thread_id):
        return self.saver.delete_thread(thread_id)


class SyncUpkeep(SyncOnly):
    """The same, of a saver that can do all there is."""

    async def acopy_thread(self, source_thread_id, target_thread_id):
        return self.saver.copy_thread(source_thread_id, target_thread_id)

    async def aprune(self, thread_ids, *, strategy="keep_latest"):
        return self.saver.prune(thread_ids, strategy=strategy)

    async def adelete_for_runs(self, run_ids):
        return self.saver.delete_for_runs(run_ids)


class Logs:
    """Fresh logs, one after the other; each is verified when it is given back."""

    def __init__(self, location: Callable[[int], str]) -> None:
        self._location = location
        self._opened = 0
        self.problems: list[Any] = []

    async def savers(self) -> AsyncGenerator[EventLogSaver, None]:
        self._opened += 1
        with EventLogSaver.from_conn_string(self._location(self._opened)) as saver:
            yield saver
            self.problems += saver.log.verify()


@pytest.fixture(params=LOCATIONS)
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Logs:
    return Logs(lambda number: LOCATIONS[request.param](tmp_path / str(number)))


def passed_all(name: str, factory: Callable[[], AsyncGenerator[Any, None]], more: Sequence[str] = ()) -> dict[str, int]:
    """Run the suite; how many tests of each base capability passed. Those beyond the base are to be there and pass."""
    report = asyncio.run(validate(checkpointer_test(name=name)(factory)))
    for capability in [*BASE, *more]:
        result = report.results[capability]
        assert (result.detected, result.passed, result.failures) == (True, True, []), capability
        assert result.tests_passed > 0, capability
        assert result.tests_failed == result.tests_skipped == 0, capability
    assert report.passed_all_base()
    assert report.passed_all()  # what is detected beyond the base has to work as well
    return {capability: report.results[capability].tests_passed for capability in BASE}


async def upstreams() -> AsyncGenerator[InMemorySaver, None]:
    yield InMemorySaver()


def test_there_are_no_capabilities_but_these():
    assert EXTENDED == ["copy_thread", "delete_for_runs", "prune"]


def test_through_the_async_methods(logs):
    assert passed_all("async", logs.savers, EXTENDED) == passed_all("control", upstreams)
    assert not logs.problems


def test_through_the_sync_methods(logs):
    async def adapted() -> AsyncGenerator[SyncOnly, None]:
        async for saver in logs.savers():
            yield SyncUpkeep(saver)

    async def control() -> AsyncGenerator[SyncOnly, None]:
        yield SyncOnly(InMemorySaver())

    assert passed_all("sync", adapted, EXTENDED) == passed_all("control", control)
    assert not logs.problems


def test_the_suite_would_notice_a_saver_that_ignores_filters():
    class Deaf(InMemorySaver):
        async def alist(self, config, *, filter=None, before=None, limit=None):  # noqa: A002
            async for item in super().alist(config, before=before, limit=limit):
                yield item

    async def deaf() -> AsyncGenerator[Deaf, None]:
        yield Deaf()

    with pytest.raises(AssertionError, match="list"):
        passed_all("deaf", deaf)
