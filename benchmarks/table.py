# ruff: noqa: RUF001 (the multiplication sign is how tables are read)
"""Rows and how they are printed. A row says what was measured, the target, and whether it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.runner import Results


class Row(NamedTuple):
    """One line against a target.

    Attributes:
        number: the line of the issue's table.
        verdict: "yes", "missed by …", or why there is none.
    """

    number: str
    measure: str
    target: str
    value: str
    verdict: str


class Fact(NamedTuple):
    """One line without a target: what something costs."""

    name: str
    values: tuple[str, ...]


class Sheet(NamedTuple):
    """A table of facts."""

    title: str
    columns: tuple[str, ...]
    facts: list[Fact]


def figure(value: float, unit: str = "") -> str:
    """A number as people read it: three digits, thousands set off."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def at_most(number: str, measure: str, value: float, limit: float, unit: str = "×", note: str = "") -> Row:
    """A row whose value must not exceed the limit."""
    return _row(number, measure, f"≤ {figure(limit, unit)}", (value, unit, note), value <= limit, value / limit)


def at_least(number: str, measure: str, value: float, limit: float, unit: str = "×", note: str = "") -> Row:
    """A row whose value must reach the limit."""
    return _row(
        number, measure, f"≥ {figure(limit, unit)}", (value, unit, note), value >= limit, limit / (value or 1e-9)
    )


def _row(number: str, measure: str, target: str, read: tuple[float, str, str], holds: bool, off: float) -> Row:
    value, unit, note = read
    shown = figure(value, unit) + (f" ({note})" if note else "")
    return Row(number, measure, target, shown, "yes" if holds else f"**missed by {off:.2f} ×**")


def without(number: str, measure: str, why: str) -> Row:
    """A row that could not be measured."""
    return Row(number, measure, "", "—", why)


def judged(results: Results, number: str, measure: str, labels: Iterable[str], make: Callable[[], Row]) -> Row:
    """The row, or why there is none."""
    why = results.trouble(*labels)
    return without(number, measure, why) if why else make()


def markdown_rows(rows: Iterable[Row]) -> str:
    """The table of targets."""
    lines = ["| # | measure | target | measured | holds |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def markdown_sheet(sheet: Sheet) -> str:
    """A table of facts."""
    columns = ("", *sheet.columns)
    lines = [f"### {sheet.title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join((fact.name, *fact.values))} |" for fact in sheet.facts]
    return "\n".join(lines)


def sheet_of(results: Results, title: str, labels: Iterable[str], columns: dict[str, tuple[str, str]]) -> Sheet:
    """A sheet of medians: per column its head, and the key and unit behind it."""
    facts = []
    for label in labels:
        why = results.trouble(label)
        values = [why] if why else []
        for key, unit in columns.values() if not why else ():
            has = all(key in run for run in results.runs[label])
            values.append(figure(results.median(label, key), unit) if has else "")
        facts.append(Fact(label, (*values, *[""] * (len(columns) - len(values)))))
    return Sheet(title, tuple(columns), facts)
