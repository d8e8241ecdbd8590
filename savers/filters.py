"""What a search of a store asks for: filters on values, and patterns of namespaces.

Owns what they mean. Pure: functions of values, which read no store.

A filter maps fields of an item's value to what they must be; all of them must hold:

```
 value                        equal, as Python compares; None also matches a field that is not there
 {"field": wanted, ...}       a dict that has at least these fields, each as wanted, at any depth
 [wanted, ...]                a list of that length, each item as wanted
 {"$eq": x} {"$ne": x}        equal, not equal, as a whole
 {"$gt": x} {"$gte": x} {"$lt": x} {"$lte": x}   numbers with numbers, else values of one type; never an error
```
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from eventlog import InvalidInputError
from savers.serde import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ANY_LABEL: Final = "*"
"""In a pattern of a namespace, matches any one label."""

_SIGN: Final = "$"
_NUMBERS: Final = (int, float, Decimal)
_ORDERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_EQUALITIES: Final[dict[str, Callable[[Any, Any], Any]]] = {"$eq": operator.eq, "$ne": operator.ne}
_OPERATORS: Final = _EQUALITIES.keys() | _ORDERS.keys()


def check_filter(wanted: object) -> None:
    """Refuse a filter that can never be right, before anything is read.

    Raises:
        InvalidInputError: no mapping with strings as keys, an operator that there is not, or deeper than any value.
    """
    if wanted is None:
        return
    if not isinstance(wanted, Mapping) or not all(type(field) is str for field in wanted):
        raise InvalidInputError("a filter maps fields, which are strings, to what they must be")
    for field, value in wanted.items():
        if field.startswith(_SIGN):
            raise InvalidInputError(f"a filter begins with fields; {field!r} stands where a field's name should")
        _check_wanted(value, MAX_DEPTH)


def _check_wanted(wanted: Any, room: int) -> None:
    if not room:
        raise InvalidInputError(f"a filter is nested deeper than {MAX_DEPTH}, as no value is, or contains itself")
    if isinstance(wanted, Mapping):
        signed = _is_signed(wanted)
        for name, value in wanted.items():
            if signed and name not in _OPERATORS:
                raise InvalidInputError(f"filters have no operator {name!r}; there are {', '.join(sorted(_OPERATORS))}")
            if not signed:
                _check_wanted(value, room - 1)
    elif isinstance(wanted, list | tuple):
        for value in wanted:
            _check_wanted(value, room - 1)


def matches(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether an item's value is what a checked filter asks for."""
    return not wanted or all(_is_wanted(value.get(field), part) for field, part in wanted.items())


def _is_wanted(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if _is_signed(wanted):
            return all(_holds(name, value, operand) for name, operand in wanted.items())
        return isinstance(value, dict) and all(_is_wanted(value.get(field), part) for field, part in wanted.items())
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(_is_wanted(item, part) for item, part in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _is_signed(wanted: Mapping[Any, Any]) -> bool:
    return any(type(name) is str and name.startswith(_SIGN) for name in wanted)


def _holds(name: str, value: Any, operand: Any) -> bool:
    if name in _EQUALITIES:
        return bool(_EQUALITIES[name](value, operand))
    if not (_is_number(value) and _is_number(operand)) and type(value) is not type(operand):
        return False
    try:
        return bool(_ORDERS[name](value, operand))
    except (TypeError, ArithmeticError):  # values of that type have no order
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


# --- namespaces -----------------------------------------------------------------------------------------------------


def begins_with(namespace: Sequence[str], prefix: Sequence[str]) -> bool:
    """Whether a namespace begins with the labels of `prefix`, whole label by whole label."""
    return len(namespace) >= len(prefix) and _same_labels(namespace, prefix)


def ends_with(namespace: Sequence[str], suffix: Sequence[str]) -> bool:
    """Whether a namespace ends with the labels of `suffix`."""
    return len(namespace) >= len(suffix) and _same_labels(namespace[len(namespace) - len(suffix) :], suffix)


def _same_labels(labels: Iterable[str], pattern: Iterable[str]) -> bool:
    return all(part in (ANY_LABEL, label) for label, part in zip(labels, pattern, strict=False))
