"""What a server says of itself, and whether a log may trust it.

Owns which settings matter, and the refusals that say what to set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventlog.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventlog.storage import Synchronous

ASKED: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite")
"""The settings that `facts_of` reads."""
_OLDEST: Final = (6, 2)


class Facts(NamedTuple):
    """What a server says of itself.

    Attributes:
        version: of Redis.
        is_replica: it follows a primary and takes no writes.
        eviction: its ``maxmemory-policy``.
        is_appending: it keeps an append-only file.
        fsync: how often that is flushed: always, everysec or no; empty if the server does not tell.
        is_lax: while it rewrites that file, it does not flush it.
    """

    version: tuple[int, int] = (0, 0)
    is_replica: bool = False
    eviction: str = ""
    is_appending: bool = False
    fsync: str = ""
    is_lax: bool = True

    def check_version(self, where: str) -> None:
        """Refuse a server that is too old."""
        if self.version < _OLDEST:
            raise StorageError(
                f"{where} is Redis {self.version[0]}.{self.version[1]}; a log needs 6.2 or later; upgrade it"
            )

    @property
    def is_flushing(self) -> bool:
        """Whether whatever the server answered is on its disk by then."""
        return self.is_appending and self.fsync == "always" and not self.is_lax

    def check(self, mode: Synchronous, where: str) -> None:
        """Refuse a server that cannot keep a log, or does not give what `mode` promises; say what to set."""
        if self.is_replica:
            raise StorageError(f"{where} is a replica, which takes no writes; give its primary's URL, or open readonly")
        if self.eviction not in {"noeviction", ""}:
            why = f"its maxmemory-policy is {self.eviction}, which silently deletes history when memory is full"
            raise StorageError(f"{where} cannot keep a log: {why}; CONFIG SET maxmemory-policy noeviction")
        if mode != "off":
            self._check_appending(mode, where)

    def _check_appending(self, mode: Synchronous, where: str) -> None:
        less = 'open with synchronous="off", which promises nothing of what the server loses when it ends'
        if not self.is_appending:
            why = "the server keeps no append-only file, so what it holds ends with it"
            raise StorageError(f'{where} cannot give synchronous="{mode}": {why}; CONFIG SET appendonly yes, or {less}')
        if not self.fsync:
            why = "the server does not tell how often it flushes (CONFIG GET is refused)"
            raise StorageError(
                f'{where}: whether it gives synchronous="{mode}" cannot be known: {why}; allow that, or {less}'
            )
        if mode == "full" and not self.is_flushing:
            why = (
                f"its appendfsync is {self.fsync}" if self.fsync != "always" else "it does not flush while it rewrites"
            )
            what = "CONFIG SET appendfsync always, CONFIG SET no-appendfsync-on-rewrite no"
            raise StorageError(
                f'{where} cannot give synchronous="full": {why}; {what}, or open with synchronous="normal"'
            )
        if self.fsync == "no":
            why = "its appendfsync is no, so power loss takes as much as its system likes"
            raise StorageError(
                f'{where} cannot give synchronous="{mode}": {why}; CONFIG SET appendfsync everysec, or {less}'
            )


def facts_of(info: bytes, settings: Sequence[Any]) -> Facts:
    """Read a server's ``INFO`` and its answers to ``CONFIG GET`` of the three settings that matter."""
    lines = (line.split(":", 1) for line in info.decode("utf-8", "replace").splitlines() if ":" in line)
    found = dict(lines)
    _, fsync, lax = (_setting(answer) for answer in settings)
    major, minor = (*found.get("redis_version", "0.0").split("."), "0")[:2]
    return Facts(
        (int(major), int(minor)),
        found.get("role") == "slave",
        found.get("maxmemory_policy", ""),
        found.get("aof_enabled") == "1",
        fsync,
        lax != "no",
    )


def _setting(answer: Any) -> str:
    """The value of one setting; empty where the server does not tell."""
    return answer[1].decode() if isinstance(answer, list) and len(answer) == 2 else ""  # noqa: PLR2004 (name and value)
