"""Searches of a store and lists of its namespaces, as both stores do them.

Owns the order of what is found, and when nothing more has to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from savers.base import check_count
from savers.filters import begins_with, ends_with, matches
from savers.items import is_expired, is_item, items_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from savers.items import Items, Kept, Namespace


class Listing(NamedTuple):
    """Which namespaces are asked for; see `BaseStore.list_namespaces`."""

    prefixes: Sequence[Namespace]
    suffixes: Sequence[Namespace]
    max_depth: int | None
    limit: int
    offset: int

    def check(self) -> None:
        """Raise `InvalidInputError` for what can never be right."""
        check_count("limit", self.limit)
        check_count("offset", self.offset)
        if self.max_depth is not None:
            check_count("max_depth", self.max_depth, least=1)

    def is_wanted(self, namespace: Namespace) -> bool:
        """Whether a namespace has what it should begin and end with."""
        return all(begins_with(namespace, prefix) for prefix in self.prefixes) and all(
            ends_with(namespace, suffix) for suffix in self.suffixes
        )


def found(
    items: Items, prefix: Namespace, wanted: Mapping[str, Any] | None, *, but_expired_ns: int | None = None
) -> Iterator[tuple[Namespace, Kept]]:
    """The items that a checked filter asks for, of every namespace that begins with `prefix`.

    Args:
        items: where they lie.
        prefix: whole labels.
        wanted: the filter.
        but_expired_ns: leave out what has expired at that time.

    Returns:
        Namespace after namespace, sorted, and in the order in which they were put; lazy, so that who stops early reads
        no more.
    """
    for namespace in items.names.within(prefix):
        state = items.state(namespace)
        for kept in () if state is None else items_in(state):
            if but_expired_ns is not None and is_expired(kept, but_expired_ns):
                continue
            if matches(kept.value, wanted):
                yield namespace, kept


def listed(items: Items, listing: Listing, *, but_expired_ns: int | None = None) -> list[Namespace]:
    """The namespaces that a listing asks for; a namespace is opened only where it may be among them."""
    listing.check()
    result: list[Namespace] = []
    last: Namespace | None = None
    for namespace in items.names.within():
        cut = namespace[: listing.max_depth]
        if len(result) == listing.offset + listing.limit:
            break
        if cut != last and listing.is_wanted(namespace) and _holds_something(items, namespace, but_expired_ns):
            result.append(cut)
            last = cut
    return result[listing.offset :]


def _holds_something(items: Items, namespace: Namespace, but_expired_ns: int | None) -> bool:
    state = items.state(namespace)
    if state is None:
        return False
    if but_expired_ns is None:
        return any(map(is_item, state))
    return any(not is_expired(kept, but_expired_ns) for kept in items_in(state))
