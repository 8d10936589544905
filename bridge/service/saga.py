"""The loop of long operations: each step of an operation is one turn, resumed after a stop, a few at a time."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable

from bridge.decide import backoff
from bridge.model.failure import BridgeError, ElsewhereError, Failure, FailureKind
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.ports.clock import Clock
from bridge.service.operations import Operations
from bridge.service.queue import KeyQueue

log = logging.getLogger(__name__)

Turn = Callable[[str], Awaitable[float | None]]
"""One step of the operation with this id; the seconds until the next, or None when it has ended."""


def key_of(operation: Operation) -> Key:
    """The operation's key in its saga's queue, and of the plugin calls that it makes."""
    return Key(operation.cluster, operation.verb, operation.id)


class Saga:
    """Runs the operations of one verb."""

    def __init__(self, verb: str, turn: Turn, operations: Operations, clock: Clock, *, workers: int) -> None:
        self._verb = verb
        self._turn = turn
        self._operations = operations
        self._workers = workers
        self._clock = clock
        self._queue: KeyQueue[Key] = KeyQueue(clock)

    def wake(self, operation: Operation) -> None:
        """Have the operation looked at soon."""
        self.wake_key(key_of(operation))

    def wake_key(self, key: Key) -> None:
        """The same, by what `key_of` gave: for who has told it to wait."""
        self._queue.add(key)

    async def run(self) -> None:
        """Work until cancelled; what was running at the last stop is resumed."""
        for operation in self._operations.running(self._verb):
            self.wake(operation)
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self._verb}-{number}")

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                seconds = await self._turn(key.uid)
            except BridgeError as error:
                log.warning("the %s's step failed", self._verb, extra={"operation": key.uid, "error": str(error)})
                await self._tell(key.uid, error)
                seconds = backoff.retry_delay(2)
            except Exception:
                log.exception("the %s's step crashed", self._verb, extra={"operation": key.uid})
                seconds = backoff.retry_delay(6)
            finally:
                self._queue.done(key)
            if seconds is not None:
                self._queue.add_after(key, seconds)

    async def _tell(self, operation_id: str, error: BridgeError) -> None:
        """Put on record why it does not go on, for whoever follows it. The step that follows writes over it."""
        if isinstance(error, ElsewhereError):
            return  # another process acts, and its words count
        failure = Failure(FailureKind.UNSURE, error.code, error.message, error.hint)
        try:
            fresh = await self._operations.get(operation_id)
            if fresh.state is OperationState.RUNNING and fresh.failure != failure:
                now = self._clock.now()
                await self._operations.put(dataclasses.replace(fresh, failure=failure, updated_at=now))
        except BridgeError as other:
            log.warning(
                "the %s's failure was not kept", self._verb, extra={"operation": operation_id, "error": str(other)}
            )
