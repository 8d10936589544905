"""Versions: whole numbers inside, opaque text outside. None is ever given twice, so a stale writer never matches."""

from __future__ import annotations

from bridge.model.failure import ConflictError

_EPOCH_BITS = 36
"""Versions in one epoch: 68 thousand million, more than a process lives to write."""


class Revisions:
    """Counts upwards from the opening's epoch. Used in the writer's thread only."""

    def __init__(self, epoch: int) -> None:
        self._last = epoch << _EPOCH_BITS

    def next(self) -> int:
        """A number greater than all before it, in this process and in those before."""
        self._last += 1
        return self._last


def parse(version: str, what: str) -> int:
    """The number inside. A text that this ledger never gave is somebody else's: ConflictError."""
    if version.isascii() and version.isdecimal() and len(version) < 19:
        return int(version)
    raise ConflictError(f"{what} has no version {version!r}", hint="Read it again.", field="version")


def moved_on(what: str) -> ConflictError:
    """The error for a compare-and-set that lost."""
    return ConflictError(f"{what} has changed meanwhile", hint="Read it again.", field="version")
