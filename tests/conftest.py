"""Lets tests say ``from tests.strict import ...`` wherever pytest is started."""

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.engines import DEEP, FEW_SEEDS, SLOW  # noqa: E402 (found only now)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell engines behind a socket few of the stories that are told by number; how many are left out is reported."""
    left_out = [item for item in items if DEEP == 1 and _is_one_too_many(getattr(item, "callspec", None))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _is_one_too_many(spec: object) -> bool:
    params = getattr(spec, "params", {})
    engines = {value for value in params.values() if isinstance(value, str)}
    return bool(engines & SLOW) and isinstance(params.get("seed"), int) and params["seed"] >= FEW_SEEDS
