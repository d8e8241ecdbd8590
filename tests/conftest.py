"""Lets tests say ``from tests.strict import ...`` wherever pytest is started."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

# How long one example takes says how busy the machine is.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# So what they share says what it found.
pytest.register_assert_rewrite("tests.crash", "tests.langgraph", "tests.redis_server")

from tests.engines import DEEP, FEW_SEEDS, SLOW, Engine  # noqa: E402 (found only now)

EVERYWHERE = {
    *("test_storage", "test_feed", "test_savers", "test_conformance", "test_machines", "test_model", "test_shipping"),
}
"""Modules that every engine passes in each run; slow ones pass the others where ``EVENTLOG_DEEP`` asks for more."""

ON_S3 = {"test_storage", "test_savers", "test_conformance", "test_model"}
"""Those of them that are asked in a bucket as well: the engine is that of a folder, and a put takes longer there."""

EXAMPLES = {Engine("one of your own")}
"""Engines that nobody opens a log on: they are there for the tests of the protocol."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ask slow engines what is about engines, and tell them few of the numbered stories; the rest is reported."""
    left_out = {item for item in items if DEEP == 1 and _is_left_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait for a disk or a server."""
    return (os.cpu_count() or 1) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, which processes that run tests do not report."""
    if DEEP == 1:
        slow = ", ".join(sorted(SLOW))
        terminalreporter.write_line(f"{slow}: asked what is about engines; EVENTLOG_DEEP=2 asks them all the rest")


def _is_left_out(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    engines = {value for each in params.values() for value in _several(each) if isinstance(value, Engine)}
    if not (SLOW | EXAMPLES) & engines:
        return False
    asked = ON_S3 if "s3" in engines else EVERYWHERE
    return item.path.stem not in asked or (isinstance(params.get("seed"), int) and params["seed"] >= FEW_SEEDS)


def _several(param: object) -> tuple[object, ...]:
    """What a parameter names: a pair of engines, or one thing."""
    return param if isinstance(param, tuple) else (param,)
