"""A keyed work loop: what an adapter that decides for itself gets from the service's shell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

Turn = Callable[[str], Awaitable[float | None]]
"""One look at a key: observe, decide, act until it rests. Returns the seconds until the next look, None for none.

It may raise what ports raise: ConflictError (looked at again at once), NotSyncedError (soon), ElsewhereError (not
again until woken), any other BridgeError (after an error back-off). It may be cancelled at any await.
"""


class Loop(Protocol):
    """Runs turns: keys once each, one turn per key at a time, delayed returns, back-off after errors."""

    def wake(self, key: str) -> None:
        """Have the key looked at soon. Never blocks; a key that is queued already stays once."""
        ...

    def wake_after(self, key: str, seconds: float) -> None:
        """Have the key looked at after so long, unless it is to be looked at sooner."""
        ...

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing could run now (delayed keys apart)."""
        ...

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...

    async def drain(self, seconds: float) -> None:
        """Start no new turn and give the running ones so long to end."""
        ...


class MakeLoop(Protocol):
    """Makes a loop. The role runs it, and gives it a name for the log."""

    def __call__(self, name: str, turn: Turn, *, workers: int = 10, retry: RetrySchedule | None = None) -> Loop: ...


class RetrySchedule(Protocol):
    """The error back-off of a key."""

    def __call__(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        ...
