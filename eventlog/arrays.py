"""Arrays and scalars of numpy as plain values, and back.

Owns what an array is made of. It never imports numpy: a program that has an array has done so, and one that is to read
one must. Whatever numpy keeps beside type, shape, order and bytes is refused, never dropped.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from eventlog.errors import UnknownTypeError

ARRAY: Final = "numpy:ndarray"
_DTYPE: Final = re.compile(r"[<>|](?:[biufcSUV]\d+|[mM]8(?:\[[\w/]+\])?)")
_HEAP_TYPE: Final = 1 << 9


def _numpy() -> Any:
    return sys.modules.get("numpy")


def is_scalar_type(cls: type) -> bool:
    """Whether `cls` is one of numpy's scalars, which cannot change in place."""
    numpy = _numpy()
    return numpy is not None and issubclass(cls, numpy.generic) and cls is not numpy.void and not _is_own(cls)


def is_array_type(cls: type) -> bool:
    """Whether values of exactly `cls` are arrays or scalars of numpy's."""
    numpy = _numpy()
    return numpy is not None and (cls is numpy.ndarray or is_scalar_type(cls))


def _is_own(cls: type) -> bool:
    return bool(cls.__flags__ & _HEAP_TYPE)  # somebody's subclass: numpy's own are no heap types


def array_parts(value: Any) -> tuple[str, list[int] | None, bool, bytes]:
    """What `value` is made of: type with byte order, shape (None for a scalar), whether columns come first, bytes.

    Raises:
        TypeError: numpy could not make the same one of them.
    """
    dtype = value.dtype
    if dtype.hasobject or dtype.metadata is not None or not _is_said(dtype):
        kind = "objects" if dtype.hasobject else f"dtype {dtype!r:.60}"
        msg = f"numpy arrays of {kind} are not supported; store a list, or one array for each field"
        raise TypeError(msg)
    numpy = _numpy()
    if not isinstance(value, numpy.ndarray):
        return dtype.str, None, False, _scalar_bytes(value)
    by_columns = value.flags.f_contiguous and not value.flags.c_contiguous
    return dtype.str, list(value.shape), by_columns, value.tobytes("F" if by_columns else "C")


def _is_said(dtype: Any) -> bool:
    """Whether the short name of a type says all of it; it does not of structured ones."""
    return bool(_DTYPE.fullmatch(dtype.str)) and bool(_numpy().dtype(dtype.str) == dtype)


def _scalar_bytes(value: Any) -> bytes:
    if isinstance(value, str):  # numpy itself cuts zeros at the end
        return value.encode("utf-32-le", "surrogatepass")
    return bytes(value) if isinstance(value, bytes) else value.tobytes()


def rebuilt_array(dtype: str, shape: list[int] | None, by_columns: bool, data: bytes) -> Any:
    """The array or scalar, with memory of its own.

    Raises:
        UnknownTypeError: this process has not imported numpy.
        ValueError: not what `array_parts` returned.
    """
    numpy = _numpy()
    if numpy is None:
        raise UnknownTypeError(ARRAY, "import numpy before reading")
    if not _DTYPE.fullmatch(dtype):
        msg = f"no dtype of an array: {dtype!r:.40}"
        raise ValueError(msg)
    if shape is not None:
        array = numpy.ndarray(tuple(shape), dtype, data, order="F" if by_columns else "C")
        if array.shape != tuple(shape) or array.nbytes != len(data):
            msg = f"{len(data)} bytes are not {shape} of {dtype}"
            raise ValueError(msg)
        return array.copy("K")
    if dtype[1] == "U":
        return numpy.str_(data.decode("utf-32-le", "surrogatepass"))
    return numpy.bytes_(data) if dtype[1] == "S" else numpy.ndarray((), dtype, data)[()]
