"""Drafts: from what a caller says a superstep changed, or ended with, to what is to be written.

Owns what the arguments of a write mean, their limits, and what is remembered to draft the next one quickly. Where a
draft is written is the branches' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from eventlog import delta
from eventlog.branches import Alike, Draft
from eventlog.codec import MSGPACK
from eventlog.entries import INLINE, advanced, apply_changes, decoded_value, is_read
from eventlog.errors import InvalidInputError, TooDeepError, TooLargeError, UnknownTypeError, UnserializableError
from eventlog.events import OPERATIONS, Update
from eventlog.ids import check_id
from eventlog.shadow import shadow_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eventlog.branches import Branches, Tip
    from eventlog.codec import Codec, PlainCodec, SealedCodec
    from eventlog.events import Limits

_STR = frozenset({str})
_new = tuple.__new__  # as in branches
_MAX_STEP = 1 << 62
_MAX_CHANNELS = 1 << 16


class _Known(NamedTuple):
    """See `delta.Known`."""

    drafts: Drafts
    branches: Branches
    tip: Tip
    channel: str
    kind: int

    def shadow(self) -> Any:
        return self.drafts.shadow(self.branches, self.tip, self.channel)

    def made_shadow(self) -> Any:
        return self.tip.shadows.get(self.channel)

    def value(self) -> Any:
        return value_at(self.branches, self.tip, self.channel)


class Drafts:
    """Makes the drafts of one handle.

    Args:
        codec: the run's.
        limits: the most that one event may hold.
        clock: nanoseconds since the epoch.
    """

    def __init__(self, codec: Codec, limits: Limits, clock: Callable[[], int]) -> None:
        self._plain_codec = cast("PlainCodec", codec) if hasattr(codec, "encode_plain") else None
        self._sealed = cast("SealedCodec", codec) if hasattr(codec, "seal") else None
        self._bare = codec if self._sealed is None else self._sealed.unsealed
        self._encode_plain = codec.encode if self._plain_codec is None else self._plain_codec.encode_plain
        self._limits = limits
        self._clock = clock
        self._channels: set[str] = set()  # names that were checked
        self._form = delta.Form([], [], [])
        self._task: str | None = None  # the last one that was checked: most writers give the same object each time

    def one(  # noqa: PLR0913, PLR0917 (the hot path calls by position)
        self,
        branches: Branches,
        tip: Tip,
        writes: Mapping[str, Any] | None,
        state: Mapping[str, Any] | None,
        task: str | None,
        step: int | None,
        event_id: str | None,
        meta: Mapping[str, Any] | None,
        path: str = "",
    ) -> Draft:
        """One event to stand after `tip`, of `writes` or of a whole `state`; `path` names it in errors.

        Raises:
            InvalidInputError: an argument that cannot be right; see `Run.append`.
        """
        plain: list[Any] = []
        found: list[tuple[str, delta.Write]] = []
        if writes is None:
            found = self._found(branches, tip, state)
        elif not writes:
            _check_mapping(writes, "writes")
        else:
            if type(writes) is not dict:
                _check_mapping(writes, "writes")
            known = self._form.filled(writes, self._encode_plain, INLINE)
            plain, rest = self._plain(writes) if known is None else (known, None)
            if rest:
                found = self._encoded(branches, tip, rest, path)
        if found:
            if self._sealed is not None:
                found = [(channel, _sealed(write, self._sealed)) for channel, write in found]
            self._check_limits(found)
        if task is not None and task is not self._task:
            self._task = check_id("task", task)
        if event_id is not None:
            check_id("event id", event_id)
        encoded_meta = None if not meta else self._meta(meta)
        next_step = tip.step + 1 if step is None else _given_step(tip, step)
        return _new(Draft, (plain, found, next_step, self._clock(), task, event_id, encoded_meta, False, False))

    def taken_over(self, encoded: Mapping[str, bytes]) -> tuple[list[Any], list[tuple[str, delta.Write]]]:
        """The writes that set channels to bytes of the run's codec: small ones as in an event's body, and others."""
        plain: list[Any] = []
        channels, are_small = self._channels, self._limits.value_bytes >= INLINE
        for channel, payload in encoded.items():
            if type(channel) is not str or channel not in channels:
                self._check_channel(channel)
            if len(payload) > INLINE:
                are_small = False
            plain += channel, delta.SET, payload
        if are_small:
            return plain, []
        found = [(channel, delta.Write(delta.SET, payload, len(payload))) for channel, payload in encoded.items()]
        self._check_limits(found)
        return [], found

    def of_bytes(
        self, tip: Tip, encoded: Mapping[str, bytes], step: int | None, event_id: str | None, is_under_id: bool
    ) -> Draft:
        """As `one`, of an event that only takes over values that are encoded, and replaces what has its id."""
        plain, found = self.taken_over(encoded)
        if event_id is not None:
            check_id("event id", event_id)
        next_step = tip.step + 1 if step is None else _given_step(tip, step)
        return _new(Draft, (plain, found, next_step, self._clock(), None, event_id, None, True, is_under_id))

    def _check_channel(self, channel: str) -> None:
        if channel not in self._channels or type(channel) is not str:
            if len(self._channels) >= _MAX_CHANNELS:
                self._channels.clear()
            self._channels.add(check_id("channel", channel))

    def _check_limits(self, found: list[tuple[str, delta.Write]]) -> None:
        if len(found) > self._limits.channels:
            raise TooLargeError("channels in one event", len(found), self._limits.channels)
        for channel, write in found:
            if len(write[1]) > self._limits.value_bytes:
                raise TooLargeError(f"{channel}: value bytes", len(write.payload), self._limits.value_bytes)

    def _plain(self, writes: Mapping[str, Any]) -> tuple[list[Any], Mapping[str, Any]]:
        """The writes that only set small plain values of channels known to be named right, and all others."""
        codec, limits = self._plain_codec, self._limits
        if codec is None or limits.value_bytes < INLINE or limits.channels < len(writes):
            return [], writes
        if not (_STR.issuperset(map(type, writes)) and self._channels.issuperset(writes)):
            return [], writes
        plain, rest = delta.plain_sets(writes, codec, INLINE)
        if not rest:
            self._form = delta.Form([*writes], [*map(type, writes.values())], plain)
        return plain, rest

    def _meta(self, meta: Mapping[str, Any]) -> bytes:
        if not isinstance(meta, dict):
            raise InvalidInputError(f"meta is a dict, not {type(meta).__name__}")
        encoded = MSGPACK.encode(meta, "meta")
        if len(encoded) > self._limits.meta_bytes:
            raise TooLargeError("meta bytes", len(encoded), self._limits.meta_bytes)
        return encoded

    def _encoded(
        self, branches: Branches, tip: Tip, writes: Mapping[str, Any], path: str
    ) -> list[tuple[str, delta.Write]]:
        found = []
        for channel, value in writes.items():
            self._check_channel(channel)
            place = path + channel if path else channel
            if type(value) not in OPERATIONS:
                found.append((channel, delta.set_to(value, self._bare, place)))
            elif type(value) is not Update:
                entry = tip.entries.get(channel)
                known = None if entry is None else _new(_Known, (self, branches, tip, channel, entry.kind))
                try:
                    found.append((channel, delta.from_operation(value, known, self._bare, place)))
                except RecursionError as error:
                    raise _too_deep(place) from error
            elif (write := self._difference(branches, tip, channel, value.value, place)) is not None:
                found.append((channel, write))
        return found

    def _found(self, branches: Branches, tip: Tip, state: Mapping[str, Any] | None) -> list[tuple[str, delta.Write]]:
        _check_mapping(state, "state")
        assert state is not None
        entries, shadows = tip.entries, tip.shadows
        # Only an object that cannot change is its own shadow: most of a state is still the same objects.
        others = [(name, value) for name, value in state.items() if shadows.get(name, delta.NO_SHADOW) is not value]
        found = []
        new = 0
        for channel, value in others:
            new += channel not in entries
            write = self._difference(branches, tip, channel, value, channel)
            if write is not None:
                found.append((channel, write))
        if len(state) - new < len(entries):
            found += [(channel, delta.Write(delta.DELETE, b"")) for channel in entries if channel not in state]
        return found

    def _difference(self, branches: Branches, tip: Tip, channel: str, value: Any, path: str) -> delta.Write | None:
        try:
            if channel not in tip.entries:
                check_id("channel", channel)
                return delta.first_set(value, self._bare, path)
            try:
                return delta.difference(self.shadow(branches, tip, channel), value, self._bare, path)
            except UnknownTypeError:  # what is there cannot be read any more, so it can only be replaced
                return delta.first_set(value, self._bare, path)
            except TooDeepError as error:
                return self._whole(value, path, error)
        except RecursionError as error:
            raise _too_deep(path) from error

    def _whole(self, value: Any, path: str, error: TooDeepError) -> delta.Write:
        """The write that sets a value that is too deep for a change: a codec may take deeper ones, as it did before.

        Raises:
            TooDeepError: `error`, if this one does not.
        """
        try:
            return delta.first_set(value, self._bare, path)
        except UnserializableError:
            raise error from None

    def shadow(self, branches: Branches, tip: Tip, channel: str) -> Any:
        """What a channel's next value is compared with; made of its value now, where it was not compared before."""
        if channel not in tip.shadows:
            tip.shadows[channel] = shadow_of(value_at(branches, tip, channel), self._bare, channel)
        return tip.shadows[channel]

    def several(
        self, branches: Branches, tip: Tip, batch: Sequence[Mapping[str, Any]], task: str | None
    ) -> tuple[list[Draft], Alike | None]:
        """The drafts of a batch, each on top of those before it; and what follows them, if it is a loop's.

        A plain value can be drafted without knowing what is there, so what stands before it is looked at only when an
        operation needs it.
        """
        tip = _scratch(tip)
        task = None if task is None else check_id("task", task)
        drafts: list[Draft] = []
        seen = 0
        for index, writes in enumerate(batch):
            if index == 1 and (alike := self._alike(batch[1:])) is not None:
                return drafts, alike
            plain = self._form.filled(writes, self._encode_plain, INLINE) if type(writes) is dict else None
            if plain is None:
                _look_ahead(tip, drafts[seen:])
                seen = len(drafts)
                drafts.append(self.one(branches, tip, writes, None, task, None, None, None, f"[{index}]."))
            else:
                drafts.append(_new(Draft, (plain, [], tip.step + 1, self._clock(), task, None, None, False, False)))
            tip.step += 1
        return drafts, None

    def _alike(self, batch: Sequence[Mapping[str, Any]]) -> Alike | None:
        """Events that set small plain values of the channels that the one before set; None if they do anything else."""
        if {*map(type, batch)} != {dict}:
            return None
        plain = self._form.filled_each(cast("Sequence[dict[str, Any]]", batch), self._encode_plain, INLINE)
        if plain is None:
            return None
        clock = self._clock
        return Alike(plain, len(self._form.plain), [clock() for _ in batch])

    def changed(self, value: Any, code: int, payload: bytes) -> Any:
        """A value after a write, which may change it in place."""
        return delta.applied(value, code, self.opened(code, payload), self._bare)

    def opened(self, code: int, payload: bytes) -> bytes:
        """A payload by which two writes can be compared."""
        return payload if self._sealed is None or code == delta.DELETE else self._sealed.opened(payload)


def accept(tip: Tip, draft: Draft) -> None:
    """Bring what is remembered of the written channels up to date."""
    for channel in draft.plain[::3]:
        tip.shadows.pop(channel, None)
    for channel, write in draft.writes:
        try:
            shadow = delta.accepted(tip.shadows.get(channel), write)
        except RecursionError:  # it is recorded, so nothing may fail: the next comparison makes a shadow anew
            shadow = delta.NO_SHADOW
        if shadow is delta.NO_SHADOW:
            tip.shadows.pop(channel, None)
        else:
            tip.shadows[channel] = shadow


def _too_deep(path: str) -> TooDeepError:
    return TooDeepError(path, "nested too deep, or contains itself")


def value_at(branches: Branches, tip: Tip, channel: str) -> Any:
    """A channel's value at a tip, a new object."""
    if not is_read(tip.entries[channel]):
        branches.read_tip(tip, [channel])
    return decoded_value(tip.entries[channel], branches.codec)


def _given_step(tip: Tip, step: int) -> int:
    if type(step) is not int or not -_MAX_STEP < step < _MAX_STEP:
        raise InvalidInputError(f"step is an integer of at most 62 bits, not {step!r}")
    if step <= tip.step and not tip.is_empty:
        raise InvalidInputError(f"step {step} does not follow step {tip.step} of the head; steps grow along a branch")
    return step


def _scratch(tip: Tip) -> Tip:
    """A tip to look ahead with: what later events of a batch stand on, while none is written."""
    progress = tip.progress._replace(entries=dict(tip.entries))
    return type(tip)(tip.segment, tip.at, tip.step, tip.digest, tip.given_id, tip.head, lambda: progress)


def _look_ahead(tip: Tip, drafts: Iterable[Draft]) -> None:
    for draft in drafts:
        apply_changes(tip.entries, advanced(tip.entries, draft.changes, tip.at, 0)[0])
        accept(tip, draft)


def _sealed(write: delta.Write, codec: SealedCodec) -> delta.Write:
    """A write that was found, with what is stored of its payload."""
    if write.code == delta.DELETE:
        return write
    payload = codec.seal(write.payload)
    return write._replace(payload=payload, growth=len(payload) if write.growth == len(write.payload) else write.growth)


def _check_mapping(given: Any, what: str) -> None:
    if type(given) is not dict and not isinstance(given, Mapping):
        raise InvalidInputError(f"{what} map channel names to values; this is a {type(given).__name__}")
