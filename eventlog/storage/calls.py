"""System calls that end at once, made without letting other threads of the process run meanwhile.

Owns nothing but how they are called. Python gives its interpreter up around every call of the system. Where several
threads write, each such call wakes another one, which mostly finds the interpreter taken again and sleeps on: for a
call of a microsecond or two that costs more than the call. (One thread alone pays half a microsecond more than for
those of the standard library.) A call that waits for the disk or for anybody else must never be one of these.

Each returns as the system does, less than it should where it failed. The caller then makes the same call of the
standard library, which says why.
"""

from __future__ import annotations

import ctypes
from typing import Final

_SYSTEM: Final = ctypes.PyDLL(None)

flock_undisturbed: Final = _SYSTEM.flock
"""``flock(fd, how)``, with ``LOCK_NB`` or ``LOCK_UN``: 0, or -1."""
flock_undisturbed.argtypes = (ctypes.c_int, ctypes.c_int)

pwrite_undisturbed: Final = getattr(_SYSTEM, "pwrite64", _SYSTEM.pwrite)
"""``pwrite(fd, data, size, offset)`` of a few bytes, which the system takes into memory: how many, or -1."""
pwrite_undisturbed.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
pwrite_undisturbed.restype = ctypes.c_ssize_t
