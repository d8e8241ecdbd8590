"""What things cost: ours and the peers, side by side. `python -m benchmarks` prints a table, rows we lose included."""

from __future__ import annotations

FAMILIES = ("direct", "graphs", "coroutines", "wide", "alone", "volume", "scale", "reading", "threads", "servers")
"""Modules of measurements, in the order in which they run."""


class AbsentError(Exception):
    """What is to be measured is not here; the message says what is missing."""
