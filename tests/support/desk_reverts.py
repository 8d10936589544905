"""What the memory desk says of reverts: refusals, a plan, results. The desk keeps the state."""

from __future__ import annotations

import dataclasses
from typing import Any

from bridge.model.failure import ConflictError, InvalidError
from bridge.model.operation import Operation, OperationState
from bridge.model.revert import RevertDraft, RevertPlan
from bridge.model.view import SnapshotView
from bridge.ports.identity import Caller

STEPS = ("restored volume created", "stopped", "restored volume registered", "started", "done")


def plan(view: SnapshotView) -> RevertPlan:
    """Its steps, or why not."""
    demand_revertible(view)
    steps = (f"make a new volume from the snapshot {view.name!r} of {view.volume!r}", "stop it", "start it again")
    return RevertPlan(steps, "job web: group g (1)", 15.0, (f"{view.volume}-before-UID",))


def demand_revertible(view: SnapshotView) -> None:
    """As the service refuses."""
    if not view.volume:
        raise InvalidError("its volume is not known", field="volume", hint="name the volume to revert")
    if not view.status.ready:
        raise ConflictError(f"the snapshot is {view.status.state.value}, not ready", field="snapshot")


def demand_acknowledgeable(revert: Operation) -> None:
    """As the service refuses."""
    if revert.verb != "revert":
        raise InvalidError(f"the operation {revert.id!r} is a {revert.verb}, not a revert", field="operation")
    if revert.state is not OperationState.DONE or "acknowledged" in revert.result:
        raise ConflictError("there is nothing to acknowledge")


def result(operation: Operation) -> dict[str, str]:
    """What an operation of this verb has at its end."""
    volume = operation.arguments.get("volume", "")
    if operation.verb == "revert":
        return {
            "volume": volume,
            "handle": "vol-new",
            "kept": f"{volume}-before-5eed",
            "kept_handle": f"vol-{volume}",
        }
    return {"volume": volume, "handle": "vol-new"} if operation.verb in ("restore", "clone") else {}


class Reverting:
    """The desk's verbs; the state is the desk's."""

    async def plan_revert(self: Any, caller: Caller, ref: str, draft: RevertDraft) -> RevertPlan:
        self._enter("plan_revert")
        return plan(self._find(caller, ref, whole=False))

    async def revert_snapshot(
        self: Any, caller: Caller, ref: str, draft: RevertDraft, *, idempotency_key: str = ""
    ) -> Operation:
        self._enter("revert_snapshot")
        view = self._find(caller, ref, whole=False)
        known = self._claimed(caller, "revert", idempotency_key, (ref, draft))
        if known is not None:
            assert isinstance(known, Operation)
            return known
        demand_revertible(view)
        operation = self._start("revert", view, list(STEPS), caller, new_volume=view.volume)
        self._claim(caller, "revert", idempotency_key, (ref, draft), operation)
        return operation

    async def acknowledge(self: Any, caller: Caller, operation_id: str, *, delete: bool) -> Operation:
        self._enter("acknowledge")
        revert = await self.operation(caller, operation_id)
        demand_acknowledgeable(revert)
        done = {**revert.result, "acknowledged": "deleted" if delete else "kept"}
        self._operations[revert.id] = dataclasses.replace(revert, result=done)
        self.now += 1
        ended = dataclasses.replace(
            revert, id=f"op-{next(self._numbers):06d}", verb="acknowledge", created_at=self.now, steps=()
        )
        self._operations[ended.id] = ended
        return ended
