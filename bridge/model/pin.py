"""Pins: who wants a snapshot kept, and why. A pinned one is deleted by nobody, whatever its policy says."""

from __future__ import annotations

import dataclasses

from bridge.model.keys import Key


@dataclasses.dataclass(frozen=True, slots=True)
class Pin:
    """One reason to keep it. Several may hold one key: people's own pin, and those of operations."""

    key: Key
    owner: str = ""
    """The operation that holds it until it is done or acknowledged; empty for the pin that people set."""
    who: str = ""
    why: str = ""
    pinned_at: float = 0.0
    """Seconds since the epoch."""

    def __str__(self) -> str:
        by = f"pinned by {self.who or 'somebody'}"
        by += f" (operation {self.owner})" if self.owner else ""
        return f"{by}: {self.why}" if self.why else by
