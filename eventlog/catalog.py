"""The catalogue: which names there are, and the number behind each.

Owns the records of names. A name that is deleted keeps its record as a tombstone that counts its incarnations, so that
a run of the same name gets another number and begins empty, and a late writer of the old one writes into nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventlog.errors import CorruptionError, ExpectationError
from eventlog.ids import check_id
from eventlog.layout import NAME, name_key, names_within, run_number
from eventlog.records import seal_fields, unseal_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventlog.events import RunName
    from eventlog.storage import Storage

FIRST_PART_BYTES = 255
FURTHER_PART_BYTES = 4096


class Listing(NamedTuple):
    """One name's record.

    Attributes:
        parts: the name.
        incarnation: how often the name was deleted.
        number: the run's number.
        created_ns: when, nanoseconds since the epoch.
        is_alive: False for a tombstone.
        unswept: numbers of deleted runs whose records may not all be removed yet; with the owner, where that is not the
            first one.
        owner: which of those that share the run this name is; 0 for the one that began it.
        last_id: the greatest id that was given in a deleted run of that name, empty if none was; None if no run was
            deleted, or by a release that did not keep it.
    """

    parts: tuple[str, ...]
    incarnation: int
    number: int
    created_ns: int
    is_alive: bool
    unswept: list[int | list[int]]
    owner: int = 0
    last_id: str | None = None

    @property
    def place(self) -> int | list[int]:
        """As an item of `unswept`."""
        return [self.number, self.owner] if self.owner else self.number


def name_parts(name: object) -> tuple[str, ...]:
    """The parts of a run name; a string is a name of one part, and so is a tuple of one.

    Raises:
        InvalidIdError: no string or tuple of strings, empty, too long, or with control characters.
    """
    parts = name if isinstance(name, tuple) else (name,)
    first = check_id("run name", parts[0] if parts else "", FIRST_PART_BYTES)
    return (first, *(check_id("run name", part, FURTHER_PART_BYTES) for part in parts[1:]))


def plain_name(parts: tuple[str, ...]) -> RunName:
    """A name as its user wrote it."""
    return parts[0] if len(parts) == 1 else parts


class Catalog:
    """The names of one log."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, parts: tuple[str, ...]) -> Listing | None:
        """The record of a name, dead or alive."""
        return self.find_all([parts])[0]

    def find_all(self, names: Sequence[tuple[str, ...]]) -> list[Listing | None]:
        """The records of names, dead or alive, by one read."""
        keys = [name_key(parts) for parts in names]
        return [
            None if record is None else _of_name(parts, read_listing(key, record))
            for parts, key, record in zip(names, keys, self._storage.get(keys), strict=True)
        ]

    def create(self, parts: tuple[str, ...], now_ns: int, *, past: Listing | None) -> Listing:
        """Give a name a new run, following the record `past`; whoever comes first wins, both get the winner's."""
        incarnation = 0 if past is None else past.incarnation + 1
        unswept = [] if past is None else past.unswept
        last_id = None if past is None else past.last_id
        listing = Listing(parts, incarnation, run_number(parts, incarnation), now_ns, True, unswept, 0, last_id)
        return listing if self._replace(past, listing) else self._winner(parts)

    def share(self, parts: tuple[str, ...], run: tuple[int, int], now_ns: int, *, past: Listing | None) -> bool:
        """Make a name an owner of a run that is there: number and owner; False if somebody else gave it one first."""
        incarnation = 0 if past is None else past.incarnation + 1
        unswept = [] if past is None else past.unswept
        last_id = None if past is None else past.last_id
        return self._replace(past, Listing(parts, incarnation, run[0], now_ns, True, unswept, run[1], last_id))

    def bury(self, listing: Listing, last_id: str) -> Listing:
        """Make a name's record a tombstone, of a run whose greatest given id is `last_id`."""
        last_id = max(last_id, listing.last_id or "")
        grave = listing._replace(is_alive=False, unswept=[*listing.unswept, listing.place], last_id=last_id)
        return grave if self._replace(listing, grave) else self._winner(listing.parts)

    def swept(self, grave: Listing) -> None:
        """Note that nothing is left of the deleted runs of a name."""
        self._replace(grave, grave._replace(unswept=[]))

    def listings(self, within: str | None = None) -> Iterator[Listing]:
        """Every name's record, dead or alive; only those whose first part is `within`, if given."""
        bounds = names_within(within) if within is not None else (NAME, bytes([NAME[0] + 1]))
        for key, record in self._storage.scan([bounds]):
            listing = read_listing(key, record)
            if within is None or listing.parts[0] == within:
                yield listing

    def _replace(self, old: Listing | None, new: Listing) -> bool:
        key = name_key(new.parts)
        expected = None if old is None else _record(key, old)
        try:
            self._storage.commit([(key, _record(key, new))], (), {key: expected})
        except ExpectationError:
            return False
        return True

    def _winner(self, parts: tuple[str, ...]) -> Listing:
        listing = self.find(parts)
        assert listing is not None, "records of names are never removed"
        return listing


def _of_name(parts: tuple[str, ...], listing: Listing) -> Listing:
    if listing.parts != parts:
        raise CorruptionError(f"name {parts!r}", f"its record belongs to {listing.parts!r}")
    return listing


def _record(key: bytes, listing: Listing) -> bytes:
    parts, incarnation, number, created_ns, is_alive, unswept, owner, last_id = listing
    fields = [list(parts), incarnation, number, created_ns.to_bytes(16, "big"), is_alive, unswept]
    if last_id is not None:
        fields += [owner, last_id]
    elif owner:
        fields.append(owner)
    return seal_fields(key, fields)


def read_listing(key: bytes, record: bytes) -> Listing:
    """The listing of a name's record."""
    parts, incarnation, number, created, is_alive, unswept, *more = unseal_fields(key, record)[:8]
    return Listing(tuple(parts), incarnation, number, int.from_bytes(created, "big"), is_alive, unswept, *more)
