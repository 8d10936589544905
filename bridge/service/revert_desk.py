"""The desk's part of in-place reverts: what is asked is checked and planned, written down, and later acknowledged."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping

from bridge.model.failure import ConflictError, DeniedError, InvalidError, NotFoundError, UnsupportedError
from bridge.model.operation import Operation, OperationState
from bridge.model.plugin import Capability
from bridge.model.revert import RevertDraft, RevertPlan, Swap, Workload
from bridge.model.snapshot import DELEGATED
from bridge.model.view import SnapshotView
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book
from bridge.ports.workloads import Workloads
from bridge.service import operations as ops
from bridge.service import permission, revert_journal
from bridge.service.acknowledgements import Acknowledgements
from bridge.service.catalogue import Catalogue
from bridge.service.lane import Lane
from bridge.service.reverts import Reverts
from bridge.service.work import Tools

Claim = Callable[[Caller, str, str, object, str], Awaitable[str]]
"""Bind an operation's id to (caller, verb, idempotency key, what is asked); returns the id that counts."""
USES = "uses"


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for, looked up."""

    lane: Lane
    workloads: Workloads
    views: tuple[SnapshotView, ...]
    swaps: tuple[Swap, ...]
    sizes: tuple[int, ...]

    @property
    def namespace(self) -> str:
        return self.views[0].namespace


class RevertDesk:
    """Everything is checked before anything is written; the operation checks it all again before it acts."""

    def __init__(  # noqa: PLR0913 -- keywords only; the composition root calls it once
        self,
        *,
        lanes: Mapping[str, Lane],
        book: Book,
        tools: Tools,
        catalogue: Catalogue,
        operations: ops.Operations,
        reverts: Reverts,
        acknowledgements: Acknowledgements,
        mint: Callable[[], str],
    ) -> None:
        self._lanes = lanes
        self._book = book
        self._tools = tools
        self._catalogue = catalogue
        self._operations = operations
        self._reverts = reverts
        self._acknowledgements = acknowledgements
        self._mint = mint
        self._asking = asyncio.Lock()

    async def plan(self, caller: Caller, ref: str, draft: RevertDraft) -> RevertPlan:
        """What would be done, in words; changes nothing."""
        asked = await self._look_up(caller, ref, draft, "UID")
        workload = await self._note(asked, draft, "plan")
        return _plan(asked, workload)

    async def start(
        self, caller: Caller, ref: str, draft: RevertDraft, *, idempotency_key: str, claim: Claim
    ) -> Operation:
        """Check what can be checked now, write it down, and have it carried out."""
        operation_id = self._mint()
        if idempotency_key:
            operation_id = await claim(caller, "revert", idempotency_key, (ref, draft), operation_id)
            try:
                return await self._operations.get(operation_id)
            except NotFoundError:
                pass
        async with self._asking:
            asked = await self._look_up(caller, ref, draft, operation_id)
            workload = await self._note(asked, draft, operation_id)
            self._demand_alone(asked, workload)
            operation = await self._operations.start(self._row(caller, operation_id, asked, draft, workload))
        for view in asked.views:
            await self._book.audit(str(view.key), "revert", caller.name, {"operation": operation_id})
        self._reverts.wake(operation)
        return operation

    async def acknowledge(self, caller: Caller, operation_id: str, *, delete: bool) -> Operation:
        """The owner has seen that a revert is good: let the old volume go, or (`delete`) delete it."""
        found = await self._operations.get(operation_id)
        permission.demand_operation(caller, found)
        return await self._acknowledgements.ask(caller, found, self._mint(), delete=delete)

    # Looking up

    async def _look_up(self, caller: Caller, ref: str, draft: RevertDraft, operation_id: str) -> _Asked:
        if caller.volumes:
            raise DeniedError(f"{caller.name} may not revert a volume: it would stop itself while it does so")
        first = await self._catalogue.find(caller, ref)
        views = [first, *[await self._catalogue.find(caller, other) for other in draft.also]]
        lane = self._lanes[first.key.cluster]
        if lane.workloads is None:
            raise UnsupportedError(
                f"the cluster {first.key.cluster!r} cannot stop who uses a volume, so nothing is reverted in place",
                hint="restore into a new volume: `snapbridge snapshot restore REF --as NAME`",
            )
        swaps, sizes = [], []
        for at, view in enumerate(views):
            if (view.key.cluster, view.namespace) != (first.key.cluster, first.namespace):
                raise InvalidError(f"{view.name!r} is not of the same cluster and namespace", field="also")
            swap, size = await self._swap(caller, lane, view, draft.volume if at == 0 else "", operation_id)
            swaps.append(swap)
            sizes.append(size)
        names = [swap.volume for swap in swaps]
        if len(set(names)) != len(names):
            raise InvalidError("two of the snapshots are of one volume", field="also", hint="name one per volume")
        return _Asked(lane, lane.workloads, tuple(views), tuple(swaps), tuple(sizes))

    async def _swap(
        self, caller: Caller, lane: Lane, view: SnapshotView, volume: str, operation_id: str
    ) -> tuple[Swap, int]:
        name = volume or view.volume
        if not name:
            raise InvalidError(
                "the snapshot was taken over by its handle, so its volume is not known", field="volume",
                hint="name the volume to revert",
            )  # fmt: skip
        permission.demand(caller, view.key.cluster, view.namespace, name)
        _demand_ready(view)
        found = await lane.orchestrator.volumes.find(view.namespace, name)
        if found.driver != view.driver:
            message = f"the volume {name!r} is of the driver {found.driver!r}, the snapshot of {view.driver!r}"
            raise InvalidError(message, field="volume")
        if view.volume and name != view.volume:
            raise InvalidError(
                f"the snapshot is of the volume {view.volume!r}, not of {name!r}", field="volume",
                hint=f"`snapbridge snapshot restore REF --as NAME` puts it into a new volume beside {name!r}",
            )  # fmt: skip
        plugin = lane.of(self._tools.plugins).view(found.driver)
        if plugin.known and plugin.healthy and not plugin.can(Capability.CREATE_DELETE_VOLUME):
            raise UnsupportedError(f"the driver {found.driver!r} cannot make volumes (no CREATE_DELETE_VOLUME)")
        keep_as = f"{name}-before-{operation_id.replace('-', '')[:8]}"
        swap = Swap(name, found.driver, found.handle, keep_as, view.key.uid, str(found.secret))
        return swap, max(view.status.size_bytes or 0, found.capacity_bytes or 0)

    async def _note(self, asked: _Asked, draft: RevertDraft, mark: str) -> Workload | None:
        return await asked.workloads.note(
            asked.namespace,
            [swap.volume for swap in asked.swaps],
            mark=mark,
            name=draft.workload,
            version=draft.version,
        )

    def _demand_alone(self, asked: _Asked, workload: Workload | None) -> None:
        """One revert at a time for a volume and for a workload."""
        wanted = {swap.volume for swap in asked.swaps}
        for other in self._operations.running(ops.REVERT):
            if (other.cluster, other.namespace) != (asked.views[0].key.cluster, asked.namespace):
                continue
            same = wanted & {swap.volume for swap in revert_journal.load(other).swaps}
            if same or (workload is not None and other.arguments.get(USES) == workload.name):
                what = next(iter(same), "") or (workload.name if workload else "")
                raise ConflictError(
                    f"the revert {other.id} works on {what} already", hint=f"`snapbridge op watch {other.id}`"
                )

    def _row(
        self, caller: Caller, operation_id: str, asked: _Asked, draft: RevertDraft, workload: Workload | None
    ) -> Operation:
        now = self._tools.clock.now()
        first = asked.views[0]
        return Operation(
            id=operation_id,
            verb=ops.REVERT,
            cluster=first.key.cluster,
            namespace=asked.namespace,
            target=f"{first.key.cluster}/{asked.namespace}/{', '.join(swap.volume for swap in asked.swaps)}",
            state=OperationState.RUNNING,
            created_at=now,
            updated_at=now,
            asked_by=caller.name,
            arguments={
                revert_journal.SWAPS: revert_journal.dump_swaps(asked.swaps),
                "workload": draft.workload,
                "version": draft.version,
                USES: workload.name if workload else "",
            },
        )


def _demand_ready(view: SnapshotView) -> None:
    if view.status.reason == DELEGATED:
        raise UnsupportedError(f"another controller carries it out: {view.status.message}", field="snapshot")
    if not view.status.ready:
        message = f"the snapshot {view.name!r} is {view.status.state.value}, not ready"
        raise ConflictError(message, field="snapshot", hint="follow it: `snapbridge snapshot describe`")


def _plan(asked: _Asked, workload: Workload | None) -> RevertPlan:
    steps: list[str] = []
    for view, swap, size in zip(asked.views, asked.swaps, asked.sizes, strict=True):
        steps.append(f"make a new volume of {size} bytes from the snapshot {view.name!r} of {swap.volume!r}")
        steps.append(f"register the old volume {swap.old_handle!r} as {swap.keep_as!r} too, so that it is kept")
    steps += [workload.pause, "wait until nobody claims the volume"] if workload else []
    steps += [f"register the new volume as {swap.volume!r}, in place of the old one" for swap in asked.swaps]
    steps += [workload.resume, "look whether every instance runs on the new volume"] if workload else []
    return RevertPlan(
        steps=tuple(steps),
        stops=workload.words if workload else "",
        downtime_seconds=workload.downtime_seconds if workload else 0.0,
        keeps=tuple(swap.keep_as for swap in asked.swaps),
    )
