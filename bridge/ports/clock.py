"""Time, as an argument. Everything that sleeps or stamps takes a clock."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The shell's clock. Tests give a virtual one."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; cancellable."""
        ...
