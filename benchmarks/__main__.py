"""``python -m benchmarks [--quick] [--full] [--only FAMILY ...]``: measure, print, write RESULTS.md and the plots."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import FAMILIES, plots
from benchmarks.machine import facts
from benchmarks.runner import Nursery, Results, run_interleaved
from benchmarks.table import Row, markdown_rows, markdown_sheet

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUNDS = {"graphs": 11, "servers": 2}
"""5 where nothing is said; line 4 asks for 11; servers take turns within a measurement."""
HERE = Path(__file__).parent


def main() -> None:
    """Run the families one after the other, each interleaved within itself."""
    options = _options()
    if options.directory:
        os.environ["BENCH_DIRECTORY"] = options.directory
    began = time.monotonic()
    found: dict[str, Results] = {}
    with Nursery() as nursery:
        for name in options.only or FAMILIES:
            print(f"… {name}", file=sys.stderr, flush=True)
            jobs = _jobs(name, options)
            if jobs:
                found[name] = run_interleaved(nursery, jobs, *_rounds(name, options))
    text = _report(found, options, time.monotonic() - began)
    print(text)
    if not options.only:
        (HERE / "RESULTS.md").write_text(text + "\n")
        plots.write(found, HERE)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What things cost, ours and the peers'.")
    parser.add_argument("--quick", action="store_true", help="short runs, for large differences: under a minute")
    parser.add_argument("--full", action="store_true", help="10 million events instead of 200,000")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--repeats", type=int, help="rounds of every measurement")
    parser.add_argument("--directory", help="where the measurements write; by default the system's temporary directory")
    return parser.parse_args()


def _rounds(name: str, options: argparse.Namespace) -> tuple[int, int]:
    """How many; and how many of what is counted, where the second only shows that it is exact."""
    if options.repeats:
        return options.repeats, options.repeats
    if options.quick:
        return 1 if name == "servers" else 5, 1
    return ROUNDS.get(name, 5), 2


def _jobs(name: str, options: argparse.Namespace) -> dict[str, Any]:
    more = {"full": options.full} if name == "scale" else {}
    return dict(_family(name).jobs(quick=options.quick, **more))


def _family(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


def _report(found: dict[str, Results], options: argparse.Namespace, took_s: float) -> str:
    rows = [row for name, results in found.items() for row in _family(name).rows(results)]
    rows.sort(key=lambda row: int(row.number) if row.number.isdigit() else 99)
    sheets = [sheet for name, results in found.items() for sheet in _family(name).sheets(results)]
    how = "--quick: short runs" if options.quick else "--full" if options.full else "default sizes"
    lines = ["# What things cost", "", f"`python -m benchmarks`, {how}, {took_s:.0f} s.", ""]
    lines += [*facts(options.directory or tempfile.gettempdir()), "", _summary(rows), ""]
    lines += ["## What must hold", "", markdown_rows(rows), "", "## Beside it", ""]
    return "\n".join(lines) + "\n" + "\n\n".join(markdown_sheet(sheet) for sheet in sheets)


def _summary(rows: Iterable[Row]) -> str:
    verdicts = [row.verdict for row in rows]
    held, missed = verdicts.count("yes"), sum("missed" in verdict for verdict in verdicts)
    return f"{held} hold, {missed} are missed, {len(verdicts) - held - missed} were not measured."


if __name__ == "__main__":
    main()
