"""Lets tests say ``from tests.strict import ...`` wherever pytest is started."""

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.engines import DEEP, FEW_SEEDS, SLOW  # noqa: E402 (found only now)

ABOVE = {
    *("test_bad_input", "test_bounds", "test_copies", "test_log", "test_pruning", "test_references", "test_remembered"),
    *("test_sealed_codec", "test_store"),
}
"""Modules about the log's rules, which know no engine: slow ones run them where ``EVENTLOG_DEEP`` asks for more."""

PARTS = {"bare lmdb", "one of your own"}
"""Engines that nobody opens a log on: they are there for the tests of the protocol."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ask slow engines what is about engines, and tell them few of the numbered stories; the rest is reported."""
    left_out = {item for item in items if DEEP == 1 and _is_left_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _is_left_out(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    engines = {value for value in params.values() if isinstance(value, str)}
    if not SLOW & engines:
        return item.path.stem in ABOVE and bool(PARTS & engines)
    return item.path.stem in ABOVE or (isinstance(params.get("seed"), int) and params["seed"] >= FEW_SEEDS)
