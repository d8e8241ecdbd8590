"""Whether two savers say the same of a checkpoint, and where the first difference is.

Owns what "equal" means there. A channel's value is equal if nobody could tell the two apart: the same types at every
depth, the same order in dicts, the same float bits. What savers keep as JSON (metadata, versions, the checkpoint's
other keys) is equal if JSON could not tell it apart: the order of keys does not count there, and a tuple is a list.
A DeltaChannel's snapshot belongs to the version it was taken at: savers that keep values by version give it out at
every checkpoint of that version, others only where it was put; so a copy may have it where the source does not.
"""

from __future__ import annotations

import struct
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel

from savers.langgraph.serde import strict_serializer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from langgraph.checkpoint.base import CheckpointTuple

    Writes = Sequence[tuple[str, str, Any]]

_ATOMS: Final = frozenset({int, str, bytes, bool, type(None)})
_SHOWN: Final = 60
_SERDE: Final = strict_serializer()


class Difference(NamedTuple):
    """Where two things differ first, and how."""

    path: str
    why: str


def difference(one: CheckpointTuple, other: CheckpointTuple) -> Difference | None:
    """The first difference of a checkpoint and its copy, with all that belongs to them; None if there is none."""
    return body_difference(one, other) or writes_difference(one.pending_writes or (), other.pending_writes or ())


def body_difference(one: CheckpointTuple, other: CheckpointTuple) -> Difference | None:
    """The first difference but for the pending writes."""
    parents = parent_of(one), parent_of(other)
    if parents[0] != parents[1]:
        return Difference("parent", _unlike(*parents))
    (rest, values), (other_rest, other_values) = _split(one), _split(other)
    return (
        _in_json(rest, other_rest, "checkpoint")
        or _in_json(one.metadata, other.metadata, "metadata")
        or _in_values(values, other_values)
    )


def writes_difference(one: Writes, other: Writes) -> Difference | None:
    """The first difference of two checkpoints' pending writes, whose order counts."""
    for n, (ours, theirs) in enumerate(zip(one, other, strict=False)):
        found = in_value(tuple(ours), tuple(theirs), f"pending_writes[{n}]")
        if found is not None:
            return found
    return None if len(one) == len(other) else Difference("pending_writes", f"{len(one)} and {len(other)} of them")


def are_part(some: Writes, of: Writes) -> bool:
    """Whether `some` pending writes are among those, in their order."""
    left = iter(of)
    return all(any(in_value(tuple(write), tuple(each), "") is None for each in left) for write in some)


def is_snapshot(value: object) -> bool:
    """Whether a value is a snapshot of a DeltaChannel; LangGraph has no public name for its type."""
    return type(value).__name__ == "_DeltaSnapshot"


def parent_of(item: CheckpointTuple) -> str | None:
    """The id of a checkpoint's parent, None if it has none."""
    if item.parent_config is None:
        return None
    found: str | None = item.parent_config["configurable"].get("checkpoint_id")
    return found


def in_value(one: Any, other: Any, path: str) -> Difference | None:
    """The first difference of two values, None if they are equal at every depth."""
    kind = type(one)
    if kind is not type(other):
        return Difference(path, f"{kind.__name__} and {type(other).__name__}")
    if kind in _ATOMS:
        return None if one == other else Difference(path, _unlike(one, other))
    if isinstance(one, dict):
        return _in_order(one, other, path)
    if isinstance(one, list | tuple):
        return _in_items(one, other, path)
    members = _members(one)
    if members is not None:
        return _in_order(members, _members(other) or {}, path)
    return None if _are_same(one, other) else Difference(path, _unlike(one, other))


def _in_order(one: Mapping[Any, Any], other: Mapping[Any, Any], path: str) -> Difference | None:
    return in_value(list(one), list(other), f"{path}: keys") or _first(
        in_value(value, other[key], f"{path}.{key}") for key, value in one.items()
    )


def _in_items(one: Sequence[Any], other: Sequence[Any], path: str) -> Difference | None:
    pairs = enumerate(zip(one, other, strict=False))
    found = _first(in_value(ours, theirs, f"{path}[{n}]") for n, (ours, theirs) in pairs)
    if found is not None or len(one) == len(other):
        return found
    return Difference(path, f"{len(one)} and {len(other)} items")


def _members(value: Any) -> dict[str, Any] | None:
    """The fields of a model or a dataclass, None for anything else."""
    if isinstance(value, BaseModel):
        return {**vars(value), **(value.__pydantic_extra__ or {})}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    return None


def _are_same(one: Any, other: Any) -> bool:
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, set | frozenset):
        return sorted(map(_encoded, one)) == sorted(map(_encoded, other))
    return _encoded(one) == _encoded(other)


def _encoded(value: Any) -> tuple[str, bytes]:
    """What LangGraph's own serializer makes of it, which says its type and all that is ever kept of it."""
    return _SERDE.dumps_typed(value)


def _in_values(one: Mapping[str, Any], other: Mapping[str, Any]) -> Difference | None:
    """Channels: their order is the saver's own."""
    other = {channel: value for channel, value in other.items() if channel in one or not is_snapshot(value)}
    return _keys(one, other, "channel_values") or _first(
        in_value(value, other[channel], f"channel_values.{channel}") for channel, value in one.items()
    )


def _in_json(one: Any, other: Any, path: str) -> Difference | None:
    if isinstance(one, dict) and isinstance(other, dict):
        return _keys(one, other, path) or _first(
            _in_json(value, other[key], f"{path}.{key}") for key, value in one.items()
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return _first(_in_json(ours, theirs, f"{path}[{n}]") for n, (ours, theirs) in pairs)
    return in_value(one, other, path)


def _keys(one: Mapping[Any, Any], other: Mapping[Any, Any], path: str) -> Difference | None:
    if one.keys() == other.keys():
        return None
    return Difference(path, f"{', '.join(sorted(map(str, one.keys() ^ other.keys())))} is in one of them only")


def _split(item: CheckpointTuple) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint without its values, and these; no values are the same as empty ones."""
    rest: dict[str, Any] = dict(item.checkpoint)
    return rest, rest.pop("channel_values", None) or {}


def _first(found: Iterable[Difference | None]) -> Difference | None:
    return next((each for each in found if each is not None), None)


def _unlike(one: object, other: object, show: Callable[[object], str] = repr) -> str:
    return f"{show(one):.{_SHOWN}} and {show(other):.{_SHOWN}}"
