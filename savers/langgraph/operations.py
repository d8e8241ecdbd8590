"""LangGraph's store operations, checked: what they may say, and who says it.

Owns what is refused before anything is read or written. A namespace that LangGraph does not allow is refused by
LangGraph's own error, as its methods do; everything else by ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, PutOp, SearchOp

from eventlog import InvalidIdError, InvalidInputError, check_id
from savers.base import check_count
from savers.filters import check_filter
from savers.items import channel_of, run_name
from savers.searches import Listing
from savers.shelves import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langgraph.store.base import Op

    from savers.items import Namespace

_MINUTE_NS = 60_000_000_000
_PLACES = {"thread_id": "thread_id", "checkpoint_ns": "checkpoint_ns", "langgraph_step": "step"}


def checked(op: Op) -> Op:
    """An operation as it is done: its namespace a tuple, its key a string."""
    if isinstance(op, GetOp):
        return op._replace(namespace=checked_namespace(op.namespace), key=_key(op.key))
    if isinstance(op, PutOp):
        return _checked_put(op)
    if isinstance(op, SearchOp):
        check_filter(op.filter)
        check_count("limit", op.limit)
        check_count("offset", op.offset)
        return op._replace(namespace_prefix=checked_namespace(op.namespace_prefix))
    if isinstance(op, ListNamespacesOp):
        listing_of(op).check()
        return op
    raise InvalidInputError(f"unknown operation: {type(op).__name__}")


def _checked_put(op: PutOp) -> PutOp:
    namespace = checked_namespace(op.namespace)
    if not namespace:
        raise InvalidNamespaceError("a namespace has at least one label")
    if op.value is not None:
        _check_value(op.value)
    ttl_ns(op.ttl)
    return op._replace(namespace=namespace, key=_key(op.key))


def _check_value(value: Any) -> None:
    try:
        names = list(value.keys())
    except AttributeError:
        raise InvalidInputError(f"value must be a mapping, not {type(value).__name__}") from None
    if not all(type(name) is str for name in names):
        raise InvalidInputError("value must be a mapping with strings as keys")


def _key(key: object) -> str:
    text = str(key)
    channel_of(text)
    return text


def checked_namespace(labels: Sequence[str]) -> Namespace:
    """Labels as LangGraph allows them, and as they can be stored."""
    if isinstance(labels, str):
        raise InvalidNamespaceError(f"a namespace is a tuple of labels, not the string {labels!r:.80}")
    namespace = tuple(labels)
    for label in namespace:
        if not isinstance(label, str) or not label or "." in label or "\x00" in label:
            raise InvalidNamespaceError(
                f"the labels of a namespace are strings that are not empty and hold no period, unlike {label!r:.80}"
            )
    run_name(namespace)
    return namespace


def listing_of(op: ListNamespacesOp) -> Listing:
    """Which namespaces an operation asks for."""
    paths: dict[str, list[Namespace]] = {"prefix": [], "suffix": []}
    for condition in op.match_conditions or ():
        if condition.match_type not in paths:
            raise InvalidInputError(f"namespaces are matched by prefix or suffix, not {condition.match_type!r}")
        paths[condition.match_type].append(checked_namespace(condition.path))
    return Listing(paths["prefix"], paths["suffix"], op.max_depth, op.limit, op.offset)


def ttl_ns(minutes: float | None) -> int | None:
    """A time to live in nanoseconds."""
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 <= minutes < math.inf:
        raise InvalidInputError(f"ttl is a number of minutes, 0 or more, not {minutes!r}")
    return int(minutes * _MINUTE_NS)


def origin() -> Origin:
    """Which task of a graph this is called from, if any."""
    config = var_child_runnable_config.get() or {}
    known = {**(config.get("metadata") or {}), **(config.get("configurable") or {})}
    try:
        task = check_id("task", known.get("langgraph_node"))
    except InvalidIdError:
        return Origin()
    return Origin(task, {name: known[key] for key, name in _PLACES.items() if type(known.get(key)) in (str, int)})
