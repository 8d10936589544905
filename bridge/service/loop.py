"""The keyed work loop: workers take keys off a queue and run turns. It never decides what a turn does, only when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic

from bridge.decide import backoff
from bridge.model.failure import BridgeError, ConflictError, ElsewhereError, NotSyncedError
from bridge.ports.clock import Clock
from bridge.service.queue import K, KeyQueue

log = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.05
NOT_SYNCED_SECONDS = 0.5


class WorkLoop(Generic[K]):
    """Implements bridge.ports.loop.Loop. `retry` is the error back-off of a key."""

    def __init__(
        self,
        name: str,
        turn: Callable[[K], Awaitable[float | None]],
        clock: Clock,
        *,
        workers: int = 16,
        retry: Callable[[int], float] = backoff.retry_delay,
    ) -> None:
        self.queue: KeyQueue[K] = KeyQueue(clock)
        self._name = name
        self._turn = turn
        self._clock = clock
        self._workers = workers
        self._retry = retry
        self._errors: dict[K, int] = {}
        self._draining = False

    def wake(self, key: K) -> None:
        """See the port."""
        self.queue.add(key)

    def wake_after(self, key: K, seconds: float) -> None:
        """See the port."""
        self.queue.add_after(key, seconds)

    @property
    def idle(self) -> bool:
        """See the port."""
        return self.queue.idle

    @property
    def depth(self) -> int:
        """See the port."""
        return len(self.queue)

    async def run(self) -> None:
        """Work until cancelled. A turn under way when `drain` is called is finished first."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self._name}-{number}")

    async def drain(self, seconds: float) -> None:
        """Start no new turn and give the running ones so long to end; what is cut off resumes at the next start."""
        self._draining = True
        deadline = self._clock.now() + seconds
        while not self.queue.nobody_works and self._clock.now() < deadline:
            await self._clock.sleep(0.02)

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            if self._draining:
                self.queue.done(key)
                await asyncio.Event().wait()
            try:
                await self._one(key)
            finally:
                self.queue.done(key)

    async def _one(self, key: K) -> None:
        """One turn, with every failure turned into a later look. Only cancellation gets through."""
        try:
            again = await self._turn(key)
        except ConflictError as conflict:
            log.debug("somebody else wrote it; looking again", extra={"key": str(key), "detail": str(conflict)})
            self.queue.add_after(key, max(CONFLICT_SECONDS, self._error_delay(key) / 20))
            return
        except ElsewhereError as elsewhere:
            log.debug("not ours", extra={"key": str(key), "detail": str(elsewhere)})
            return
        except NotSyncedError:
            self.queue.add_after(key, NOT_SYNCED_SECONDS)
            return
        except BridgeError as error:
            delay = self._error_delay(key)
            log.warning("the turn failed", extra={"key": str(key), "error": str(error), "again_in": delay})
            self.queue.add_after(key, delay)
            return
        except Exception:
            delay = self._error_delay(key)
            log.exception("the turn crashed", extra={"key": str(key), "again_in": delay})
            self.queue.add_after(key, delay)
            return
        self._errors.pop(key, None)
        if again is not None:
            self.queue.add_after(key, again)

    def _error_delay(self, key: K) -> float:
        self._errors[key] = self._errors.get(key, 0) + 1
        return self._retry(self._errors[key])
