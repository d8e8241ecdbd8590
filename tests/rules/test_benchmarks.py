"""The benchmarks are run by hand; that they can be is held here."""

import importlib
from pathlib import Path

import pytest

MODULES = sorted(path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_each_benchmark_finds_what_it_needs(name):
    importlib.import_module(f"benchmarks.{name}")
