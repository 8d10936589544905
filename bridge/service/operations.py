"""Operations: what callers follow. They are told by the turns; they never drive one."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping

from bridge.model.failure import ConflictError, Failure, FailureKind, NotFoundError
from bridge.model.group import GroupRequest, GroupStatus
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState, Step
from bridge.model.snapshot import DeletionPolicy, SnapshotRequest, SnapshotState, SnapshotStatus, Wish
from bridge.ports.clock import Clock
from bridge.ports.guard import FREEZE, QUIESCE_UNAVAILABLE
from bridge.ports.ledger import Book

Request = SnapshotRequest | GroupRequest
Status = SnapshotStatus | GroupStatus
CREATE, DELETE, RESTORE, CLONE = "create", "delete", "restore", "clone"
REVERT, ACKNOWLEDGE = "revert", "acknowledge"

PASSING = frozenset({"UNKNOWN_DRIVER", "PLUGIN_UNHEALTHY", "SECRET_UNAVAILABLE", QUIESCE_UNAVAILABLE})
"""Refusals that end by themselves when a server comes back: the operation waits through them."""


def settle(operation: Operation, request: Request | None, status: Status) -> tuple[OperationState, Failure | None]:
    """Pure: how an operation stands, given the last status of its snapshot."""
    if operation.verb == DELETE:
        return _settle_delete(request, status)
    gone = request is None or request.wish is Wish.GONE or status.state is SnapshotState.GONE
    if status.state is SnapshotState.READY:
        return OperationState.DONE, None
    if gone or status.state in (SnapshotState.DELETING, SnapshotState.RETAINED):
        failure = Failure(FailureKind.REFUSED, "WITHDRAWN", "the snapshot was deleted before it was ready")
        return OperationState.FAILED, failure
    failure_now = status.failure
    if failure_now is None or failure_now.kind is FailureKind.UNSURE or failure_now.code in PASSING:
        return OperationState.RUNNING, None
    hint = failure_now.hint or "the request stays and is tried again; delete the snapshot to stop that"
    return OperationState.FAILED, dataclasses.replace(failure_now, hint=hint)


def _settle_delete(request: Request | None, status: Status) -> tuple[OperationState, Failure | None]:
    """Done is what left nothing, or what its policy keeps; a request that merely vanished has deleted nothing."""
    if request is None or status.state in (SnapshotState.GONE, SnapshotState.RETAINED):
        return OperationState.DONE, None
    if request.wish is not Wish.GONE or status.state is SnapshotState.DELETING:
        return OperationState.RUNNING, None
    if request.policy is DeletionPolicy.RETAIN or not status.handle:
        return OperationState.DONE, None
    message = f"the request vanished before its snapshot was deleted; {status.handle!r} is left on the backend"
    hint = "delete what still records it, or the snapshot on the backend"
    return OperationState.FAILED, Failure(FailureKind.REFUSED, "LEFT_ALONE", message, hint)


class Operations:
    """The running ones, in memory as well as in the book."""

    def __init__(
        self, book: Book, clock: Clock, on_end: Callable[[Operation], None] = lambda _operation: None
    ) -> None:
        self._on_end = on_end
        self._book = book
        self._clock = clock
        self._running: dict[str, Operation] = {}
        self._changed: dict[str, asyncio.Event] = {}

    async def load(self) -> None:
        """Pick up what was running when the service last stopped. Before the workers start."""
        for operation in await self._book.operations(running=True, limit=100_000):
            if operation.verb != FREEZE:
                self._running[operation.id] = operation

    def running(self, verb: str) -> list[Operation]:
        """The running operations of one verb."""
        return [operation for operation in self._running.values() if operation.verb == verb]

    def targets(self) -> list[Key]:
        """What the running creates and deletes are about: a crash may have cut off their last word, and then nothing
        but them names it any more."""
        return [Key.parse(one.target) for verb in (CREATE, DELETE) for one in self.running(verb)]

    async def start(self, operation: Operation) -> Operation:
        """Write it down; from then on it is followed."""
        stored = await self._book.put_operation(operation)
        if stored.state is OperationState.RUNNING:
            self._running[stored.id] = stored
        return stored

    async def get(self, operation_id: str) -> Operation:
        """NotFoundError when there is none."""
        found = self._running.get(operation_id) or await self._book.operation(operation_id)
        if found is None:
            raise NotFoundError(f"there is no operation {operation_id!r}", hint="`snapbridge op list` shows them")
        return found

    async def put(self, operation: Operation) -> Operation:
        """Write a change and wake those who wait for it. ConflictError: the newer row counts from then on."""
        try:
            stored = await self._book.put_operation(operation)
        except ConflictError:
            await self._read_again(operation.id)
            raise
        if stored.state is OperationState.RUNNING:
            self._running[stored.id] = stored
        else:
            self._running.pop(stored.id, None)
            self._on_end(stored)
        changed = self._changed.pop(stored.id, None)
        if changed is not None:
            changed.set()
        return stored

    async def audit(self, key: str, verb: str, detail: Mapping[str, str]) -> None:
        """Put on record what an operation leaves for people to look at."""
        await self._book.audit(key, verb, "snapbridge", detail)

    async def told(self, key: Key, request: Request | None, status: Status) -> None:
        """A turn has told this status: move the operations on this snapshot along."""
        for operation in list(self._running.values()):
            if operation.target == str(key) and operation.verb in (CREATE, DELETE):
                await self._move(operation, request, status)

    async def _move(self, operation: Operation, request: Request | None, status: Status) -> None:
        state, failure = settle(operation, request, status)
        now = self._clock.now()
        steps = step_added(operation.steps, status.state.value, now, status.message)
        if state is operation.state and steps == operation.steps and failure == operation.failure:
            return
        moved = dataclasses.replace(
            operation, state=state, failure=failure, steps=steps, result=_result(status), updated_at=now
        )
        await self.put(moved)

    async def _read_again(self, operation_id: str) -> None:
        """What the book has: a write that was reported lost may have been kept, even the last one."""
        fresh = await self._book.operation(operation_id)
        if fresh is not None and fresh.state is OperationState.RUNNING:
            self._running[operation_id] = fresh
        else:
            self._running.pop(operation_id, None)

    async def wait(self, operation_id: str, version: str, timeout_seconds: float) -> Operation:
        """The operation once its version is another, or unchanged when the time is up."""
        operation = await self.get(operation_id)
        if operation.version != version or operation.state is not OperationState.RUNNING:
            return operation
        changed = self._changed.setdefault(operation_id, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_seconds):
                await changed.wait()
        except TimeoutError:
            return operation
        return await self.get(operation_id)


def step_added(steps: tuple[Step, ...], name: str, now: float, note: str = "") -> tuple[Step, ...]:
    """The steps with one more, unless the last one says the same."""
    if steps and steps[-1].name == name and steps[-1].note == note:
        return steps
    return (*steps, Step(name, now, note))[-50:]


def _result(status: Status) -> Mapping[str, str]:
    known = {"state": status.state.value, "handle": status.handle}
    if isinstance(status, GroupStatus):
        return {name: value for name, value in (known | _group_result(status)).items() if value}
    if status.size_bytes is not None:
        known["size_bytes"] = str(status.size_bytes)
    if status.route is not None:
        known["route"] = status.route.value
    return {name: value for name, value in known.items() if value}


def _group_result(status: GroupStatus) -> dict[str, str]:
    known = {"means": status.means.value if status.means is not None else ""}
    if status.skew_seconds is not None:
        known["skew_seconds"] = f"{status.skew_seconds:.3f}"
    if status.route is not None:
        known["route"] = status.route.value
    return known
