"""Values as JSON that loses nothing silently.

Owns the tagged forms of what JSON has no word for: ``{"$b64": …}``, ``{"$float": "nan"}``, ``{"$int": "0x…"}``,
``{"$dict": [[key, value]]}``, ``{"$type": …, …}``.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from typing import TYPE_CHECKING, Any, Final

from eventlog.diff import KeyOrder, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventlog.diff import Change
    from eventlog.events import Event

_INT_BITS: Final = 14_284
"""An int of more may have more than 4,300 decimal digits, which Python neither writes nor reads unless told to."""


def jsonable(value: Any) -> Any:
    """`value` made of what `json` can write."""
    if value is None or type(value) is bool:
        return value
    if type(value) is int:
        return value if value.bit_length() <= _INT_BITS else {"$int": hex(value)}
    if type(value) is str:
        return value.encode("utf-8", "backslashreplace").decode()
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, dict):
        return _of_dict(value)
    if type(value) in (list, KeyOrder):
        return [jsonable(item) for item in value]
    return _tagged(value)


def _of_dict(value: dict[Any, Any]) -> dict[str, Any]:
    if all(type(key) is str for key in value):
        return {jsonable(key): jsonable(item) for key, item in value.items()}
    return {"$dict": [[jsonable(key), jsonable(item)] for key, item in value.items()]}


def _tagged(value: Any) -> dict[str, Any] | str:
    if type(value) in (bytes, bytearray):
        return {"$b64": base64.b64encode(value).decode()}
    if type(value) in (tuple, set, frozenset):
        return {"$type": type(value).__name__, "$items": [jsonable(item) for item in value]}
    if type(value) in (dt.datetime, dt.date, dt.time):
        return {"$type": type(value).__name__, "$iso": value.isoformat()}
    return {"$type": f"{type(value).__module__}.{type(value).__qualname__}", "$repr": shown(value)}


def event_fields(event: Event) -> dict[str, Any]:
    """Who, when, where; not what."""
    return {
        "id": event.id,
        "run": list(event.run) if isinstance(event.run, tuple) else event.run,
        "branch": event.branch,
        "step": event.step,
        "time": event.time.isoformat(timespec="microseconds"),
        "task": event.task,
    }


def change_fields(change: Change) -> dict[str, Any]:
    """One change; a side that is not there is left out."""
    fields: dict[str, Any] = {"path": change.where, "kind": change.kind}
    if change.kind != "added":
        fields["old"] = jsonable(change.old)
    if change.kind != "removed":
        fields["new"] = jsonable(change.new)
    return fields


def values_fields(values: Mapping[str, Any], channels: list[str]) -> dict[str, Any]:
    """Some channels of a state, each decoded once."""
    return {jsonable(channel): jsonable(values[channel]) for channel in channels}
