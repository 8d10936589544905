"""The work queue: keys only, once each, serial per key, with delayed return."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

from bridge.ports.clock import Clock

K = TypeVar("K", bound=Hashable)


class KeyQueue(Generic[K]):
    """A key that is added again while a worker has it runs once more afterwards; an earlier return time wins."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: dict[K, None] = {}
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Keys that could run now."""
        return len(self._ready)

    def __repr__(self) -> str:
        return f"<KeyQueue ready={len(self._ready)} busy={len(self._busy)} delayed={len(self._due)}>"

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing could run now (delayed keys apart)."""
        return not self._ready and not self._busy

    @property
    def nobody_works(self) -> bool:
        """No key is with a worker."""
        return not self._busy

    def add(self, key: K) -> None:
        """Run the key as soon as a worker is free."""
        self._due.pop(key, None)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Run the key after so many seconds, unless it is to run sooner."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.now() + seconds
        if key in self._ready or (key in self._due and self._due[key] <= due):
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    async def take(self) -> K:
        """The next key; the caller must call `done` with it."""
        while True:
            self._wake_due()
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._busy.add(key)
                return key
            self._changed.clear()
            await self._sleep()

    def done(self, key: K) -> None:
        """The worker is finished with the key."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._due.pop(key, None)
            self._ready[key] = None
        self._changed.set()

    def _wake_due(self) -> None:
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self.add(key)

    async def _sleep(self) -> None:
        """Until something was added, or the first delayed key is due."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap:
            await self._changed.wait()
            return
        seconds = max(self._heap[0][0] - self._clock.now(), 0.0)
        changed = asyncio.ensure_future(self._changed.wait())
        slept = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({changed, slept}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            slept.cancel()
