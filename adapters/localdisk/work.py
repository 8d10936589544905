"""Runs blocking operations in threads, each holding the objects it works on.

A second operation on a held object is answered with ABORTED at once, as CSI asks. An operation whose caller has gone
away still runs to its end and keeps its claims until then. It must not know what the operations do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from adapters.localdisk import failures

T = TypeVar("T")
_EXCLUSIVE = -1


class Claims:
    """Who holds what: an object is held by one operation alone, or shared by several. For one event loop."""

    def __init__(self) -> None:
        self._holders: dict[str, int] = {}

    @contextmanager
    def held(self, alone: Iterable[str], shared: Iterable[str] = ()) -> Iterator[None]:
        """Holds the objects inside the block. Raises ABORTED, holding nothing, if one is not to be had."""
        alone, shared = set(alone), set(shared)
        for key in sorted(alone | shared):
            if self._holders.get(key, 0) == _EXCLUSIVE or (key in alone and key in self._holders):
                failures.aborted(f"another operation on {key} is under way: repeat the call when it has ended")
        for key in alone:
            self._holders[key] = _EXCLUSIVE
        for key in shared - alone:
            self._holders[key] = self._holders.get(key, 0) + 1
        try:
            yield
        finally:
            for key in alone:
                del self._holders[key]
            for key in shared - alone:
                self._holders[key] -= 1
                if self._holders[key] == 0:
                    del self._holders[key]


class Work:
    """The threads and the claims of one driver."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="localdisk")
        self.claims = Claims()
        self._running: set[asyncio.Task[object]] = set()

    async def run(self, operation: Callable[[], T], alone: Iterable[str] = (), shared: Iterable[str] = ()) -> T:
        """The operation's result. Cancelling the caller does not stop the operation."""
        claim = self.claims.held(alone, shared)
        claim.__enter__()  # here, so that ABORTED comes at once; left when the operation ends

        async def perform() -> T:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, operation)
            finally:
                claim.__exit__(None, None, None)

        task = asyncio.create_task(perform(), name="localdisk operation")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen here in case the caller has gone away

    async def close(self) -> None:
        """Waits for what is running, then ends the threads."""
        if self._running:
            await asyncio.wait(self._running)
        self._pool.shutdown(wait=True)
