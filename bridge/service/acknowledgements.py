"""Acknowledging a revert: the old volume is let go, or deleted by its recorded handle once nobody can use it.

Nothing is deleted that the revert's row does not name, and nothing that is registered under any other name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from bridge.decide import backoff
from bridge.model.failure import ConflictError, Failure, FailureKind, InvalidError, NotFoundError
from bridge.model.operation import Operation, OperationState
from bridge.model.outcome import Failed
from bridge.model.revert import Swap
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.volume import Volume
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book
from bridge.service import operations as ops
from bridge.service import revert_journal, work
from bridge.service.admission import Hold
from bridge.service.lane import Lane
from bridge.service.new_volumes import CALLED, Asking, NewVolumes, ask_fence
from bridge.service.saga import Saga, key_of

ACKNOWLEDGED, REVERT, DELETED, FAILURES = "acknowledged", "revert", "deleted", "failures"
CONTEXT = "context"
"""What the driver once gave for the old volume: its registration is nothing without it."""


class Acknowledgements:
    """Runs the deletions, one at a time."""

    def __init__(self, lanes: Mapping[str, Lane], book: Book, operations: ops.Operations, tools: work.Tools) -> None:
        self._lanes = lanes
        self._book = book
        self._operations = operations
        self._tools = tools
        self._new = NewVolumes(tools)
        self._saga = Saga(ops.ACKNOWLEDGE, self.turn, operations, tools.clock, workers=1)
        tools.admission.listen(self._saga.wake_key, ops.ACKNOWLEDGE)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._saga.run()

    async def ask(self, caller: Caller, revert: Operation, operation_id: str, *, delete: bool) -> Operation:
        """Write it down; with `delete` the operation ends when the old volumes are gone."""
        if revert.verb != ops.REVERT:
            raise InvalidError(f"the operation {revert.id!r} is a {revert.verb}, not a revert", field="operation")
        if revert.state is not OperationState.DONE:
            raise ConflictError(f"the revert is {revert.state.value}, so there is nothing to acknowledge")
        if known := revert.result.get(ACKNOWLEDGED):
            raise ConflictError(f"it was acknowledged already: the old volume was {known}")
        for other in self._operations.running(ops.ACKNOWLEDGE):
            if other.arguments[REVERT] == revert.id:
                return other
        now = self._tools.clock.now()
        state = OperationState.RUNNING if delete else OperationState.DONE
        asked = Operation(
            id=operation_id,
            verb=ops.ACKNOWLEDGE,
            cluster=revert.cluster,
            namespace=revert.namespace,
            target=revert.target,
            state=state,
            created_at=now,
            updated_at=now,
            asked_by=caller.name,
            arguments={REVERT: revert.id, revert_journal.SWAPS: revert.result[revert_journal.SWAPS]},
            result={} if delete else {"kept": revert.result["kept"]},
        )
        await self._book.audit(
            revert.target, "acknowledge", caller.name, {"revert": revert.id, "delete": str(delete)}
        )
        stored = await self._operations.start(asked)
        if delete:
            self._saga.wake(stored)
        else:
            await self._mark(revert.id, "kept")
        return stored

    async def turn(self, operation_id: str) -> float | None:
        """Delete one old volume; the seconds until the next, or None at the end."""
        operation = await self._operations.get(operation_id)
        lane = self._lanes.get(operation.cluster)
        if operation.state is not OperationState.RUNNING:
            return None
        if lane is None:
            return backoff.RETRY_MOST_SECONDS
        deleted = json.loads(operation.result.get(DELETED, "[]"))
        for swap in revert_journal.swaps(operation.arguments[revert_journal.SWAPS]):
            if swap.old_handle not in deleted:
                return await self._one(operation, lane, swap, deleted)
        await self._mark(operation.arguments[REVERT], "deleted")
        await self._put(operation, OperationState.DONE, "done", result={DELETED: json.dumps(deleted)})
        return None

    async def _one(self, operation: Operation, lane: Lane, swap: Swap, deleted: list[str]) -> float | None:
        ask_fence(lane, swap.driver)
        kept = await self._demand_unused(operation, lane, swap)
        if isinstance(kept, Failure):
            await self._put(operation, OperationState.FAILED, "refused", failure=kept)
            return None
        if kept is not None:  # from here on nobody can claim it; refused by the cluster while somebody does
            result = {**operation.result, CONTEXT: json.dumps(dict(kept.context))}
            await self._put(operation, OperationState.RUNNING, "old volume goes out of use", result=result)
            await lane.orchestrator.volumes.forget(operation.namespace, swap.keep_as)
            operation = await self._operations.get(operation.id)
            await self._put(operation, OperationState.RUNNING, "old volume deregistered")
            operation = await self._operations.get(operation.id)
        secret = SecretRef.parse(swap.secret) if swap.secret else NO_SECRET
        asking = self._asking(operation, swap)
        outcome = await self._new.delete(lane, swap.driver, swap.old_handle, secret, asking=asking)
        operation = await self._operations.get(operation.id)
        if isinstance(outcome, Hold):
            if outcome.why:
                await self._put(operation, OperationState.RUNNING, f"waiting: {outcome.why}")
            return outcome.seconds
        if not isinstance(outcome, Failed):
            result = {DELETED: json.dumps([*deleted, swap.old_handle])}
            await self._put(operation, OperationState.RUNNING, f"{swap.old_handle} deleted", result=result)
            return 0.0
        if outcome.failure.kind is FailureKind.REFUSED:
            await self._register_again(operation, lane, swap)
            await self._put(operation, OperationState.FAILED, "refused", failure=outcome.failure)
            return None
        failures = int(operation.result.get(FAILURES, "0")) + 1
        result = {**operation.result, FAILURES: str(failures)}
        await self._put(operation, OperationState.RUNNING, "waiting", failure=outcome.failure, result=result)
        return backoff.retry_delay(failures)

    def _asking(self, operation: Operation, swap: Swap) -> Asking:
        async def note(called: str) -> None:
            result = {**operation.result, CALLED: called}
            await self._put(operation, OperationState.RUNNING, f"deleting {swap.old_handle}", result=result)

        return Asking(key_of(operation), operation.result.get(CALLED, ""), note)

    async def _demand_unused(self, operation: Operation, lane: Lane, swap: Swap) -> Volume | Failure | None:
        """The kept registration, None when it is gone; a failure when the handle is anybody's."""
        kept: Volume | None = None
        registered = [one for other in self._lanes.values() for one in await other.orchestrator.volumes.list()]
        for volume in registered:
            # An orchestrator may not know the driver at the moment: then it may be this one.
            if volume.handle != swap.old_handle or volume.driver not in (swap.driver, ""):
                continue
            if (volume.cluster, volume.namespace, volume.name) != (
                operation.cluster, operation.namespace, swap.keep_as,
            ):  # fmt: skip
                where = f"{volume.cluster}/{volume.namespace}/{volume.name}"
                message = f"{swap.old_handle!r} is registered as {where} too"
                return Failure(FailureKind.REFUSED, "CONFLICT", message, "deregister it there if it may go")
            kept = volume
        if kept is not None:
            try:  # a list may be older than a claim
                kept = await lane.orchestrator.volumes.find(operation.namespace, swap.keep_as)
            except NotFoundError:
                return None
            if kept.handle != swap.old_handle:
                message = f"{swap.keep_as!r} stands for {kept.handle!r}, not for {swap.old_handle!r}"
                return Failure(FailureKind.REFUSED, "CONFLICT", message)
            if kept.users:
                message = f"the old volume is in use: {'; '.join(kept.users)}"
                return Failure(FailureKind.REFUSED, "IN_USE", message, "stop what uses it, then ask again")
        return kept

    async def _register_again(self, operation: Operation, lane: Lane, swap: Swap) -> None:
        """The backend keeps it (a snapshot may depend on it), so it gets its name back."""
        like = await lane.orchestrator.volumes.find(operation.namespace, swap.volume)
        context = json.loads(operation.result.get(CONTEXT, "{}"))
        volume = dataclasses.replace(like, name=swap.keep_as, handle=swap.old_handle, context=context, users=())
        await lane.orchestrator.volumes.register(volume, like)

    async def _mark(self, revert_id: str, what: str) -> None:
        revert = await self._operations.get(revert_id)
        if revert.result.get(ACKNOWLEDGED) != what:
            await self._operations.put(dataclasses.replace(revert, result={**revert.result, ACKNOWLEDGED: what}))

    async def _put(
        self,
        operation: Operation,
        state: OperationState,
        words: str,
        *,
        failure: Failure | None = None,
        result: Mapping[str, str] | None = None,
    ) -> None:
        now = self._tools.clock.now()
        await self._operations.put(
            dataclasses.replace(
                operation,
                state=state,
                failure=failure,
                updated_at=now,
                steps=ops.step_added(operation.steps, words, now, str(failure) if failure else ""),
                result=operation.result if result is None else result,
            )
        )
