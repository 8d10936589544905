"""A limit on our own requests, for clusters whose owners want one. Without it the API server's fairness decides."""

from __future__ import annotations

import asyncio


class Pacer:
    """A bucket of tokens: `rate` per second, at most `burst` saved up. Waiters go in order."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._tokens = self._burst
        self._at: float | None = None

    async def wait(self) -> None:
        """Return when a request may be sent. A token is taken at once, so that those who wait form a queue."""
        now = asyncio.get_running_loop().time()
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1.0
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


def pacer(qps: float, burst: int) -> Pacer | None:
    """None where no limit is wanted."""
    return Pacer(qps, burst or 2 * qps) if qps > 0 else None
