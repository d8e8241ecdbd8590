# ruff: noqa: RUF001 (the multiplication sign is how tables are read)
"""Pictures, where matplotlib is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.runner import Results


def write(found: dict[str, Results], directory: Path) -> None:
    """Bytes per step, latency per step, append rate by durability: SVG, into `directory`, if matplotlib is there."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "eventlog"
    if "graphs" in found:
        _latency(found.get("wide", found["graphs"]), directory / "latency.svg")
    if "volume" in found:
        _bytes(found["volume"], directory / "bytes.svg")
    if "direct" in found:
        _rates(found["direct"], directory / "append.svg")


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _latency(found: Results, path: Path) -> None:
    figure, axes = _axes("Chat growing by one message a step", "step", "µs a step")
    for label, runs in found.runs.items():
        workload, _, saver = label.partition(" / ")
        if workload == "chat" and not found.trouble(label):
            curve = runs[len(runs) // 2]["curve_us"]
            steps = [(index + 1) * runs[0]["steps"] / len(curve) for index in range(len(curve))]
            axes.plot(steps, curve, label=saver)
    axes.set_yscale("log")
    axes.legend()
    _save(figure, path)


def _bytes(found: Results, path: Path) -> None:
    figure, axes = _axes("Chat growing by one message a step", "steps", "bytes on disk a step")
    curves: dict[str, list[tuple[int, float]]] = {}
    for label in found.runs:
        workload, _, rest = label.partition(" / ")
        saver, _, n = rest.partition(" × ")
        if workload == "chat" and n and not found.trouble(label):
            curves.setdefault(saver, []).append((int(n), found.median(label, "bytes")))
    for saver, points in curves.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=saver)
    axes.set_yscale("log")
    axes.legend()
    _save(figure, path)


def _rates(found: Results, path: Path) -> None:
    figure, axes = _axes("Append of a 100 B event, one per commit", "events a second", "")
    labels = [label for label in found.runs if not found.trouble(label)]
    axes.barh(labels, [1e6 / found.median(label, "event_us") for label in labels])
    axes.set_xscale("log")
    _save(figure, path)
