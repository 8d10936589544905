"""The one thread that writes. It gathers what waits into one transaction (group commit), a savepoint for each.

An answer is given only after the COMMIT. It knows no table and no SQL of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from bridge.model.failure import BridgeError, UnavailableError

T = TypeVar("T")
BATCH_MOST = 256
"""Closures in one transaction: enough to share a sync to disk, few enough to keep the answer quick."""
ANSWER_SECONDS = 60.0
"""How long a caller waits for the disk before it is told that the ledger does not answer."""


@dataclasses.dataclass(slots=True)
class _Ask:
    """One closure and who waits for it. The closure may run twice, so it may do nothing but read and write."""

    work: Callable[[sa.Connection], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    value: Any = None
    error: Exception | None = None


class Writer:
    """Runs closures on one connection in one thread, in the order in which they were asked."""

    def __init__(self, engine: sa.Engine, explain: Callable[[Exception], BridgeError]) -> None:
        self._engine = engine
        self._explain = explain
        self._asks: queue.SimpleQueue[_Ask | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._closed = False
        self.commits = 0
        """Transactions committed so far, to be compared with the closures answered."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work(connection)`; return when its effect is on disk.

        What it raises is raised here and its writes are undone, its neighbours' are not. UnavailableError when the
        store failed: then nothing of it was kept, unless the deadline passed (then it may come to be kept).
        """
        if self._closed:
            raise UnavailableError("the ledger is closed")
        loop = asyncio.get_running_loop()
        ask = _Ask(work, loop, loop.create_future())
        self._asks.put(ask)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                value: T = await ask.answer
        except TimeoutError:
            raise UnavailableError("the ledger does not answer", hint="Look at the disk that it is on.") from None
        return value

    async def close(self) -> None:
        """Finish what was asked, then stop the thread."""
        if not self._closed:
            self._closed = True
            self._asks.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        connection: sa.Connection | None = None
        while True:
            batch, last = self._gather()
            if batch:
                try:
                    connection = connection or self._engine.connect()
                    self._commit_or_split(connection, batch)
                except Exception as error:  # noqa: BLE001 - any failure must reach those who wait, or they hang
                    _fail(batch, error if isinstance(error, BridgeError) else self._explain(error))
                _answer(batch)
            if last:
                break
        if connection is not None:
            connection.close()
        self._engine.dispose()

    def _gather(self) -> tuple[list[_Ask], bool]:
        """Wait for one ask and take along what else is there. True when it was the last."""
        batch: list[_Ask] = []
        ask = self._asks.get()
        while True:
            if ask is None:
                return batch, True
            batch.append(ask)
            if len(batch) >= BATCH_MOST:
                return batch, False
            try:
                ask = self._asks.get_nowait()
            except queue.Empty:
                return batch, False

    def _commit_or_split(self, connection: sa.Connection, batch: list[_Ask]) -> None:
        """One transaction for all. If the store fails within it, each gets one of its own, so none pays for another.

        SQLite may undo a whole transaction on some errors (disk full), savepoints or not.
        """
        try:
            self._commit(connection, batch)
        except Exception as error:  # noqa: BLE001 - whatever the store said, each must learn of its own
            if len(batch) == 1:
                _fail(batch, self._explain(error))
                return
            for ask in batch:
                ask.value, ask.error = None, None
                self._commit_or_split(connection, [ask])

    def _commit(self, connection: sa.Connection, batch: list[_Ask]) -> None:
        with connection.begin():
            # The driver itself is asked: SQLAlchemy's own savepoints cost as much as the writes within them.
            execute: Callable[[str], Any] = connection.connection.driver_connection.execute  # type: ignore[union-attr]
            for ask in batch:
                execute("SAVEPOINT ask")
                try:
                    ask.value = ask.work(connection)
                except sa.exc.DBAPIError:
                    raise
                except Exception as error:  # noqa: BLE001 - it belongs to the one who asked
                    execute("ROLLBACK TO ask")
                    ask.error = self._explain(error) if isinstance(error, UnicodeEncodeError) else error
                execute("RELEASE ask")
        self.commits += 1


def _fail(batch: list[_Ask], error: Exception) -> None:
    for ask in batch:
        ask.value, ask.error = None, error


def _answer(batch: list[_Ask]) -> None:
    """Answer each loop once for all of its asks."""
    for loop in {id(ask.loop): ask.loop for ask in batch}.values():
        mine = [ask for ask in batch if ask.loop is loop]
        try:
            loop.call_soon_threadsafe(_settle, mine)
        except RuntimeError:
            # The loop is closed: nobody waits any more, and what was committed stays.
            continue


def _settle(asks: list[_Ask]) -> None:
    for ask in asks:
        if ask.answer.done():
            continue
        if ask.error is not None:
            ask.answer.set_exception(ask.error)
        else:
            ask.answer.set_result(ask.value)
