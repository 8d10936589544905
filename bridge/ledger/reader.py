"""Reads on connections of their own, so that a long list delays no write. Each read sees every commit before it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from bridge.model.failure import BridgeError, UnavailableError

T = TypeVar("T")
THREADS = 2
ANSWER_SECONDS = 60.0


class Reader:
    """A few threads with one read-only connection each."""

    def __init__(self, engine: sa.Engine, explain: Callable[[Exception], BridgeError]) -> None:
        self._engine = engine
        self._explain = explain
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="ledger-reader")
        self._mine = threading.local()
        self._opened: list[sa.Connection] = []
        self._closed = False

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work(connection)` in one read transaction: all that it sees is of one moment."""
        if self._closed:
            raise UnavailableError("the ledger is closed")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)
        except TimeoutError:
            raise UnavailableError("the ledger does not answer", hint="Look at the disk that it is on.") from None

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            connection: sa.Connection | None = getattr(self._mine, "connection", None)
            if connection is None:
                connection = self._mine.connection = self._engine.connect()
                self._opened.append(connection)
            with connection.begin():
                return work(connection)
        except (sa.exc.DBAPIError, UnicodeEncodeError) as error:
            raise self._explain(error) from error

    async def close(self) -> None:
        """Finish what runs, then close the connections."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        for connection in self._opened:
            connection.close()
        self._engine.dispose()
