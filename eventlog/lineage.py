"""Segments: how the branches of one run hang together.

Owns the segment records and the walk along them. A segment is the stretch of events that one branch wrote itself. An
event's *seq* counts the events before it along its own history, so a segment forked at seq 7 begins at seq 8:

```
 segment 0   0 1 2 3 4 5 6 7 8 9          main
                         '-- 8 9 10       segment 1, base 7
                             '-- 9 10     segment 2, parent 1, base 8
```

Each segment has one jump pointer to an ancestor (skew-binary: depths 1, 3, 7 ... below), so the segment in which an
ancestor lies is found in O(log depth) reads. Segment records never change, so they are kept once read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from eventlog.errors import NotFoundError
from eventlog.layout import next_segment, owner_key, places, segment_key, segment_of, segments_of
from eventlog.owners import read_owner
from eventlog.records import ROOT_DIGEST, seal_fields, unseal_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventlog.storage import Storage

    Range = tuple[bytes, bytes]

_numbers = struct.Struct(">Iqq16sIIqq")  # of one width, so that a fork costs the same bytes at every history


class Segment(NamedTuple):
    """A stretch of events, and where it left its parent.

    Attributes:
        number: names it within the run; 0 begins the run.
        branch: name of the branch that writes it.
        parent: the segment of its base, itself for the root.
        base_seq: seq of the event it was forked at, -1 for the root.
        base_step: step of that event, -1 for the root.
        base_digest: digest of that event, zeros for the root.
        depth: segments between it and the root.
        jump: an ancestor segment; `jump_seq` and `jump_step` are the last on the way to here.
        origin: the root's: the parts of the run's name, its incarnation and its codec's name; of other segments the
            owner, if it is not the first one.
    """

    number: int
    branch: str
    parent: int
    base_seq: int
    base_step: int
    base_digest: bytes
    depth: int
    jump: int
    jump_seq: int
    jump_step: int
    origin: list[Any]

    @property
    def owner(self) -> int:
        """Who writes it."""
        return int(self.origin[0]) if self.number and self.origin else 0


def root(branch: str, name: tuple[str, ...], incarnation: int, codec: str) -> Segment:
    """The segment that begins a run."""
    return Segment(0, branch, 0, -1, -1, ROOT_DIGEST, 0, 0, -1, -1, [list(name), incarnation, codec])


class Lineage:
    """The segments of one run. Safe for many threads: what it keeps never changes."""

    def __init__(self, storage: Storage, run: int, owner: int = 0) -> None:
        self._storage = storage
        self._run = run
        self._owner = owner
        self._known: dict[int, Segment] = {}

    def segment(self, number: int) -> Segment:
        """The segment of that number.

        Raises:
            NotFoundError: the run, or this branch of it, was deleted.
        """
        if number not in self._known:
            key = segment_key(self._run, number)
            record = self._storage.get([key])[0]
            if record is None:
                raise _gone(number)
            return self.known(number, record)
        return self._known[number]

    def segments(self, numbers: Sequence[int]) -> list[Segment]:
        """The segments of those numbers, by one read; raises as `segment`."""
        unknown = [number for number in dict.fromkeys(numbers) if number not in self._known]
        records = self._storage.get([segment_key(self._run, number) for number in unknown]) if unknown else []
        for number, record in zip(unknown, records, strict=True):
            if record is None:
                raise _gone(number)
            self.known(number, record)
        return [self.segment(number) for number in numbers]

    def known(self, number: int, record: bytes) -> Segment:
        """The segment of that number, of which somebody read the record; raises as `segment`."""
        segment = self._known[number] = _read(segment_key(self._run, number), number, record)
        return segment

    def check_alive(self) -> None:
        """Raise `NotFoundError` if the run was deleted, whatever this object knows."""
        self._known.pop(0, None)
        self.segment(0)
        key = owner_key(self._run, self._owner)
        owner = read_owner(key, self._storage.get([key])[0])
        if owner is None or not owner.is_alive:
            msg = "the run was deleted"
            raise NotFoundError(msg)

    def all(self) -> Iterator[Segment]:
        """Every segment, in the order of their making."""
        for key, record in self._storage.scan([segments_of(self._run)]):
            yield _read(key, segment_of(key), record)

    def next_number(self) -> int:
        """A number that no segment has; whoever writes it must expect its key absent."""
        return next_segment(key for key, _ in self._storage.scan([segments_of(self._run)], reverse=True, limit=1))

    def forked(self, number: int, branch: str, base: tuple[int, int, int, bytes]) -> Segment:
        """A new segment that leaves at the event `base`: its segment, seq, step and digest."""
        parent_number, seq, step, digest = base
        parent = self.segment(parent_number)
        jump = self.segment(parent.jump)
        if parent.depth - jump.depth == jump.depth - self.segment(jump.jump).depth and parent.depth:
            jump_to = (jump.jump, jump.jump_seq, jump.jump_step)
        else:
            jump_to = (parent_number, seq, step)
        return Segment(number, branch, parent_number, seq, step, digest, parent.depth + 1, *jump_to, [])

    def holding(self, number: int, seq: int) -> Segment:
        """The segment in which the event at `seq` lies, on the history of segment `number`."""
        segment = self.segment(number)
        while seq <= segment.base_seq:
            segment = self.segment(segment.jump if seq <= segment.jump_seq else segment.parent)
        return segment

    def holding_step(self, number: int, step: int) -> tuple[Segment, int | None]:
        """The segment that holds `step` on the history of segment `number`, and the last seq of it on that history.

        The seq is None where the history ends in that segment itself.
        """
        segment, last = self.segment(number), None
        while segment.base_seq >= 0 and step <= segment.base_step:
            if step <= segment.jump_step:
                last, segment = segment.jump_seq, self.segment(segment.jump)
            else:
                last, segment = segment.base_seq, self.segment(segment.parent)
        return segment, last

    def stretches(self, number: int, last_seq: int, first_seq: int = 0) -> list[tuple[Segment, int, int]]:
        """The history from `first_seq` to `last_seq` in segment `number`: segments, first, last seq; oldest first."""
        found = []
        segment = self.segment(number)
        while last_seq >= first_seq:
            first = max(first_seq, segment.base_seq + 1)
            if first <= last_seq:
                found.append((segment, first, last_seq))
                last_seq = first - 1
            if segment.base_seq < 0:
                break
            segment = self.segment(segment.parent)
        return found[::-1]

    def ranges(self, kind: bytes, number: int, last_seq: int, first_seq: int = 0) -> list[Range]:
        """Key ranges of `kind` along that history, oldest first."""
        stretches = self.stretches(number, last_seq, first_seq)
        return [places(kind, self._run, segment.number, first, last) for segment, first, last in stretches]


def segment_record(run: int, segment: Segment) -> tuple[bytes, bytes]:
    """Key and record of a segment."""
    key = segment_key(run, segment.number)
    return key, seal_fields(key, [segment.branch, _numbers.pack(*segment[2:10]), segment.origin])


def _read(key: bytes, number: int, record: bytes) -> Segment:
    fields = unseal_fields(key, record)
    if not fields:
        raise _gone(number)
    branch, numbers, origin = fields[:3]
    parent, base_seq, base_step, base_digest, depth, jump, jump_seq, jump_step = _numbers.unpack(numbers)
    base = (base_seq, base_step, base_digest)
    return Segment(number, branch, parent, *base, depth, jump, jump_seq, jump_step, origin)


def _gone(number: int) -> NotFoundError:
    """The error of a segment that has no record: the first one goes with the run, another one with its branch, too."""
    or_branch = f", or this branch of it (segment {number}) was deleted or pruned" if number else ""
    return NotFoundError(f"the run was deleted{or_branch}; open it again and look")
