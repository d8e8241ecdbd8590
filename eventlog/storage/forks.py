"""Handles that come to rest before the process forks, and go on after it.

Owns which of them were shut for the fork that is under way: one that is opened meanwhile was not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from weakref import WeakSet


class Shuttable(Protocol):
    """What a handle does at a fork."""

    def shut(self) -> None:
        """Before it: let everything come to its end."""

    def reopen(self) -> None:
        """After it, in the parent."""

    def inherit(self) -> None:
        """After it, in the child."""


def shut_at_forks(handles: WeakSet[Shuttable]) -> None:
    """From now on, shut all that are in `handles` before each fork, and let them go on after it, on both sides."""
    shut: list[Shuttable] = []

    def before() -> None:
        for handle in list(handles):
            handle.shut()
            shut.append(handle)

    def after_in_parent() -> None:
        while shut:
            shut.pop().reopen()

    def after_in_child() -> None:
        while shut:
            shut.pop().inherit()

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
