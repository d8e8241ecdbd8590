"""Text that does not compress: repeated letters would flatter whoever compresses (PostgreSQL does)."""

from __future__ import annotations

import random

_TEXT = random.Random(1).randbytes(600_000).hex()


def text(size: int, seed: int = 0) -> str:
    """So many ASCII characters, other ones for another seed."""
    at = seed * 7919 % (len(_TEXT) - size)
    return _TEXT[at : at + size]
