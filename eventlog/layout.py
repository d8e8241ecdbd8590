"""Bytes of a key.

Owns which keys there are and how they sort. A key is one byte of kind and then fixed-width big-endian integers, so that
what belongs to one run lies together and in order; strings from outside never stand in a key raw, but for one: a
caller-given event id ends its index key, because it is read in id order.

```
 N  first part[8] name[16]          run, by name           (hashes: one scan finds the runs within a run)
 S  run[8] segment[4]               segment: a stretch of events that one branch wrote itself
 B  run[8] name[16]                 branch, by name
 H  run[8] segment[4]               head: seq and digest of the newest event of a segment
 C  run[8] segment[4] seq[8] child[4]   child: this segment was forked at that event
 E  run[8] segment[4] seq[8]        event
 P  run[8] segment[4] seq[8] n[4]   part: a large payload of the event
 I  run[8] id[1..255]               event, by caller-given id
 M  run[8] segment[4] seq[8]        manifest        (derivable)
 V  run[8] segment[4] seq[8] n[4]   snapshot        (derivable)
 W  run[8] segment[4] seq[8] task[8]   what a task wrote in the superstep after that event
 U  run[8] id[8] task[8]            the same, of an event that is to come: by the id that it will be given
 O  run[8] owner[4]                 owner: a name that shares the run; 0 stands for the one that began it
 T  run[8]                          tombstone of what was pruned: where the run begins since
 X  run[8]                          in a copy of another log: what nothing points at may be there of the run
```

What an owner other than the first one names has the owner in it, as a zero and ``owner[4]``: before the id in its key,
behind a branch's name and a task in their hashes.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Range = tuple[bytes, bytes]

NAME: Final = b"N"
SEGMENT: Final = b"S"
BRANCH: Final = b"B"
HEAD: Final = b"H"
CHILD: Final = b"C"
EVENT: Final = b"E"
PART: Final = b"P"
ID: Final = b"I"
MANIFEST: Final = b"M"
SNAPSHOT: Final = b"V"
TASK_WRITE: Final = b"W"
WAITING: Final = b"U"
OWNER: Final = b"O"
TRUNK: Final = b"T"
TRANSIT: Final = b"X"

RUN_KINDS: Final = (
    *(BRANCH, HEAD, ID, TASK_WRITE, WAITING, MANIFEST, SNAPSHOT, PART, EVENT, CHILD),
    *(TRUNK, OWNER, SEGMENT),
)
"""Kinds that belong to one run, in the order in which deleting it removes them: pointers before what they point at."""

MAX_SEQ: Final = (1 << 63) - 1
SEQ_BYTES: Final = 8
"""How a seq stands at the end of an event's key: big-endian."""

_place = struct.Struct(">cQIQ").pack
numbered_key: Final = struct.Struct(">cQIQI").pack
"""Key of the `n`-th of several at one event: kind, run, segment, seq, n."""
_segment = struct.Struct(">cQI").pack
_child = struct.Struct(">cQIQI").pack
_run = struct.Struct(">cQ").pack
_task = struct.Struct(">cQIQ8s").pack
_waiting = struct.Struct(">cQ8s8s").pack
_read_place = struct.Struct(">cQIQ").unpack_from


def digest(data: bytes, size: int) -> bytes:
    """A hash that nobody can make collide: strings from outside choose keys only through it."""
    return blake2b(data, digest_size=size).digest()


@lru_cache(4096)
def _id_digest(text: str, mark: bytes = b"") -> bytes:
    """What stands for an id where it must not end the key."""
    return digest(text.encode() + mark, 8)


def name_bytes(parts: Sequence[str]) -> bytes:
    """One run name as bytes, injective: every part with its length before it."""
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


@lru_cache(256)
def name_key(parts: tuple[str, ...]) -> bytes:
    """The catalogue's key of a run name."""
    return NAME + digest(parts[0].encode(), 8) + digest(name_bytes(parts), 16)


def names_within(first: str) -> Range:
    """The catalogue's keys of all runs whose name begins with the part `first`."""
    return _prefix(NAME + digest(first.encode(), 8))


def run_number(parts: Sequence[str], incarnation: int) -> int:
    """The number of a run: a name that is deleted and used again gets another one."""
    return int.from_bytes(digest(incarnation.to_bytes(8, "big") + name_bytes(parts), 8), "big")


def segment_key(run: int, segment: int) -> bytes:
    """Key of a segment's record."""
    return _segment(SEGMENT, run, segment)


def head_key(run: int, segment: int) -> bytes:
    """Key of what says where a segment ends."""
    return _segment(HEAD, run, segment)


def branch_key(run: int, name: str, owner: int = 0) -> bytes:
    """Key of an owner's branch, by its name."""
    return _run(BRANCH, run) + digest(name.encode() + _of(owner), 16)


def owner_key(run: int, owner: int) -> bytes:
    """Key of an owner; of the first one there is a record only once the run was copied."""
    return _run(OWNER, run) + owner.to_bytes(4, "big")


def trunk_key(run: int) -> bytes:
    """Key of what says where a pruned run begins."""
    return _run(TRUNK, run)


def transit_key(run: int) -> bytes:
    """Key of what says that a run is on its way here, or was when that was stopped."""
    return _run(TRANSIT, run)


def _of(owner: int) -> bytes:
    """What tells an owner's keys from the first one's: no string that an outsider chose holds a zero."""
    return b"\0" + owner.to_bytes(4, "big") if owner else b""


def child_key(run: int, at: tuple[int, int], child: int) -> bytes:
    """Key that says the segment `child` was forked at an event."""
    return _child(CHILD, run, *at, child)


def children_at(run: int, at: tuple[int, int]) -> Range:
    """Keys of all segments that were forked at an event."""
    return _prefix(_place(CHILD, run, *at))


def child_of(key: bytes) -> int:
    """The child in a key of `child_key`."""
    return int.from_bytes(key[21:], "big")


def event_key(run: int, segment: int, seq: int) -> bytes:
    """Key of an event."""
    return _place(EVENT, run, segment, seq)


def event_keys(run: int, segment: int, first: int, count: int) -> list[bytes]:
    """Keys of `count` events that follow each other."""
    return [*map(_place, repeat(EVENT, count), repeat(run), repeat(segment), range(first, first + count))]


def part_key(run: int, segment: int, seq: int, n: int) -> bytes:
    """Key of the `n`-th large payload of an event."""
    return numbered_key(PART, run, segment, seq, n)


def manifest_key(run: int, segment: int, seq: int) -> bytes:
    """Key of the manifest at an event."""
    return _place(MANIFEST, run, segment, seq)


def manifest_beside(event: bytes) -> bytes:
    """Key of the manifest at the event of that key."""
    return MANIFEST + event[1:]


def id_key(run: int, event_id: str, owner: int = 0) -> bytes:
    """Key of an id that an owner's caller gave."""
    return _run(ID, run) + _of(owner) + event_id.encode()


def id_of(key: bytes) -> str:
    """The id in a key of `id_key`."""
    return key[14 if key[9:10] == b"\0" else 9 :].decode()


def owner_of(key: bytes) -> int:
    """The owner in a key of `id_key`."""
    return int.from_bytes(key[10:14], "big") if key[9:10] == b"\0" else 0


def task_write_key(run: int, anchor: tuple[int, int], task: str, mark: bytes = b"") -> bytes:
    """Key of what a task wrote in the superstep after the event at `anchor`; `mark` as in `tasks`."""
    return _task(TASK_WRITE, run, *anchor, _id_digest(task, mark))


def task_writes_start(run: int, anchor: tuple[int, int]) -> bytes:
    """What the keys of `task_write_key` begin with; `task_digest` follows, where there is no mark."""
    return _place(TASK_WRITE, run, *anchor)


def task_digest(task: str) -> bytes:
    """What stands for a task at the end of its keys, or for another id; computed anew, for each is needed once."""
    hashed = _unfed.copy()  # quicker than to make one
    hashed.update(task.encode())
    return hashed.digest()


_unfed: Final = blake2b(digest_size=8)


def waiting_start(run: int, event_id: str) -> bytes:
    """What the keys of `waiting_key` begin with; `task_digest` follows, where there is no mark."""
    return _run(WAITING, run) + task_digest(event_id)


def waiting_key(run: int, event_id: str, task: str, mark: bytes = b"") -> bytes:
    """Key of what a task wrote in the superstep after an event that is to come."""
    return _waiting(WAITING, run, _id_digest(event_id), _id_digest(task, mark))


def waiting_on(run: int, event_id: str) -> Range:
    """All that tasks wrote in the superstep after an event that is to come; another id may have the same hash."""
    return _prefix(waiting_start(run, event_id))


def task_writes_at(run: int, anchor: tuple[int, int]) -> Range:
    """All that tasks wrote in the superstep after the event at `anchor`."""
    segment, seq = anchor
    return places(TASK_WRITE, run, segment, seq, seq)


def places(kind: bytes, run: int, segment: int, first: int, last: int) -> Range:
    """Keys of `kind` in one segment with ``first <= seq <= last``."""
    return _place(kind, run, segment, first), _place(kind, run, segment, last + 1)


def run_of(key: bytes) -> int:
    """Run of a key that has one."""
    return int.from_bytes(key[1:9], "big")


def place_of(key: bytes) -> tuple[int, int]:
    """Segment and seq of a key that has them."""
    _, _, segment, seq = _read_place(key)
    return segment, seq


def segments_of(run: int) -> Range:
    """All segment records of a run."""
    return all_of(SEGMENT, run)


def segment_of(key: bytes) -> int:
    """The segment in a key of `segment_key`."""
    return int.from_bytes(key[9:13], "big")


def next_segment(keys: Iterable[bytes]) -> int:
    """A number behind those in some keys of `segment_key`."""
    return max(map(segment_of, keys), default=-1) + 1


def all_of(kind: bytes, run: int) -> Range:
    """All keys of one kind of one run."""
    return _prefix(_run(kind, run))


def ids_below(run: int, before: str | None, owner: int = 0) -> Range:
    """All ids of an owner that sort below `before` (all, if None)."""
    start, end = _prefix(_run(ID, run) + _of(owner))
    first = start if owner else start + b" "  # other owners' stand before it: no id begins with a control character
    return first, end if before is None else max(first, min(end, start + before.encode()))


_LAST_BYTE: Final = 255


def _prefix(prefix: bytes) -> Range:
    if prefix[-1] < _LAST_BYTE:
        return prefix, prefix[:-1] + bytes((prefix[-1] + 1,))
    number = int.from_bytes(prefix, "big") + 1
    return prefix, number.to_bytes(len(prefix), "big")
