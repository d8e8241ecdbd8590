"""What differs between two states."""
from __future__ import annotations
from dataclasses import dataclass
from typing import Any
@dataclass(frozen=True)
class Change:
    path: tuple
    old: Any
    new: Any
@dataclass(frozen=True)
class Diff:
    changes: tuple
def compare(a, b):
    return Diff(tuple(Change((k,), a.get(k), b.get(k)) for k in {**a, **b} if a.get(k) != b.get(k)))
