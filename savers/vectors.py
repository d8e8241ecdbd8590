"""Vectors of a store's items, and how near they are to a query's.

Owns their bytes, the similarity (cosine), and what is kept of them in memory. Only it knows numpy, which is imported
when the first index is made.

An item's vectors lie in one channel as ``[dims, bytes]``: float32, little-endian, one vector after the other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog import InvalidInputError
from savers.items import is_item, vectors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventlog import State
    from savers.items import Namespace

MAX_CACHED_BYTES: Final = 256 << 20
"""How much of the vectors a store keeps in memory, of the namespaces searched last."""

_FLOAT32: Final = "<f4"


class _Matrix(NamedTuple):
    """The vectors of one namespace at one event, each of length 1; those of one item lie together."""

    digest: bytes
    channels: list[str]
    starts: Any
    rows: Any

    @property
    def size_bytes(self) -> int:
        return int(self.rows.nbytes) if self.channels else 0


class Vectors:
    """The vectors of one index. May be used from any thread.

    Args:
        dims: numbers in each vector.
        max_cached_bytes: see `MAX_CACHED_BYTES`.

    Raises:
        InvalidInputError: `dims` is no positive int, or numpy is not installed.
    """

    def __init__(self, dims: int, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        if type(dims) is not int or dims < 1:
            raise InvalidInputError(f"dims of an index is the length of its vectors, an int of 1 or more, not {dims!r}")
        self.dims = dims
        self._numpy = _numpy()
        self._max_cached_bytes = max_cached_bytes
        self._cached: dict[Namespace, _Matrix] = {}
        self._lock = threading.Lock()

    def packed(self, vectors: Sequence[Sequence[float]]) -> list[Any]:
        """What an item's channel holds of its vectors.

        Raises:
            InvalidInputError: one is not of `dims` finite numbers.
        """
        return [self.dims, b"".join(self.row(vector).tobytes() for vector in vectors)]

    def row(self, vector: Sequence[float]) -> Any:
        """One vector as an array, checked as by `packed`."""
        try:
            row = self._numpy.asarray(vector, dtype=_FLOAT32)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(f"embed must return vectors of numbers: {error}") from error
        if row.shape != (self.dims,):
            raise InvalidInputError(
                f"embed returned a vector of shape {list(row.shape)}, the index has dims={self.dims}; make them agree"
            )
        if not self._numpy.isfinite(row).all():
            raise InvalidInputError("embed returned a vector with a number that is not finite in 32 bits")
        return row

    def scores(self, namespace: Namespace, state: State, query: Any) -> dict[str, float]:
        """The similarity of each embedded item to a row, by the item's channel; of several vectors, the nearest's.

        Raises:
            InvalidInputError: the namespace holds vectors of other dims.
        """
        matrix = self._matrix(namespace, state)
        if not matrix.channels:
            return {}
        nearest = self._numpy.maximum.reduceat(matrix.rows @ self._unit(query), matrix.starts)
        return dict(zip(matrix.channels, nearest.tolist(), strict=True))

    def _unit(self, rows: Any) -> Any:
        """Rows scaled to length 1; one of zeros stays, which makes it similar to nothing."""
        norms = self._numpy.linalg.norm(rows, axis=-1, keepdims=True)
        return rows / self._numpy.where(norms == 0, 1, norms)

    def _matrix(self, namespace: Namespace, state: State) -> _Matrix:
        assert state.event is not None, "a namespace with a state was written to"
        digest = state.event.digest
        with self._lock:
            known = self._cached.pop(namespace, None)
            if known is not None and known.digest == digest:
                self._cached[namespace] = known  # the last one to go
                return known
        made = self._made(digest, state)
        with self._lock:
            self._cached[namespace] = made
            while sum(matrix.size_bytes for matrix in self._cached.values()) > self._max_cached_bytes:
                self._cached.pop(next(iter(self._cached)))
        return made

    def _made(self, digest: bytes, state: State) -> _Matrix:
        numpy = self._numpy
        channels = [channel for channel in state if is_item(channel) and vectors_of(channel) in state]
        if not channels:
            return _Matrix(digest, [], None, None)
        arrays = [self._unpacked(*state[vectors_of(channel)]) for channel in channels]
        starts = numpy.cumsum([0, *map(len, arrays[:-1])])
        return _Matrix(digest, channels, starts, self._unit(numpy.concatenate(arrays)))

    def _unpacked(self, dims: int, data: bytes) -> Any:
        if dims != self.dims:
            raise InvalidInputError(
                f"the items were embedded with dims={dims}, the index has dims={self.dims}; put them again, or search "
                "through an index of those dims"
            )
        return self._numpy.frombuffer(data, dtype=_FLOAT32).reshape(-1, dims)


def _numpy() -> Any:
    try:
        import numpy  # noqa: PLC0415, ICN001 (an extra: only an index needs it)
    except ImportError as error:
        raise InvalidInputError("an index needs numpy: pip install 'eventlog-savers[vector]'") from error
    return numpy
