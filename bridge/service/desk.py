"""The front desk: checks a caller's wish, writes it down, wakes the worker, answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from bridge.model.failure import ConflictError, InvalidError, NotFoundError, PinnedError, UnsupportedError
from bridge.model.keys import Key
from bridge.model.node import Node
from bridge.model.operation import Operation, OperationState, Step
from bridge.model.plugin import PluginDescription
from bridge.model.revert import RevertDraft, RevertPlan
from bridge.model.snapshot import DeletionPolicy, Wish
from bridge.model.view import CloneDraft, ClusterView, ForeignPage, RestoreDraft, SnapshotPage, SnapshotView
from bridge.model.volume import Volume
from bridge.ports.desk import GroupDesk
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book, EntryFilter
from bridge.ports.orchestrator import SnapshotDraft, Wake
from bridge.service import catalogue, permission
from bridge.service import operations as ops
from bridge.service.booking import Booking
from bridge.service.foreign import Foreign
from bridge.service.keeper import Keeper
from bridge.service.lane import Lane
from bridge.service.making import Making, Means, digest
from bridge.service.restores import Restores
from bridge.service.revert_desk import RevertDesk
from bridge.service.work import Tools


class FrontDesk:
    """The `Desk` port. Also the `Intake` for adapters' own hooks (see `intake.py`)."""

    def __init__(  # noqa: PLR0913 -- keywords only; the composition root calls it once
        self,
        *,
        lanes: Mapping[str, Lane],
        book: Book,
        tools: Tools,
        operations: ops.Operations,
        restores: Restores,
        wake: Wake,
        mint: Callable[[], str],
        nodes: Callable[[], Sequence[Node]] = tuple,
        delegations: Callable[[], Sequence[PluginDescription]] = tuple,
        keeper: Keeper | None = None,
        reverts: RevertDesk | None = None,
        groups: GroupDesk | None = None,
    ) -> None:
        self._lanes = lanes
        self._book = book
        self._tools = tools
        self._operations = operations
        self._wake = wake
        self._mint = mint
        self._nodes = nodes
        self._delegations = delegations
        self._reverts = reverts
        self._keeper = keeper or Keeper(lanes, book, tools.clock)
        self._foreign = Foreign(lanes, book, tools.plugins)
        self._booking = Booking(book, tools, self._keeper)
        self._catalogue = catalogue.Catalogue(lanes, book)
        self._making = Making(Means(lanes, book, tools, operations, restores, mint), self._catalogue)
        self._groups = groups

    @property
    def groups(self) -> GroupDesk:
        """Several volumes together."""
        if self._groups is None:
            raise AssertionError("the desk was made without groups")
        return self._groups

    def clusters(self) -> Sequence[ClusterView]:
        """Every configured cluster."""
        found = [lane.orchestrator for lane in self._lanes.values()]
        return [ClusterView(one.cluster, one.kind, one.ready()) for one in found]

    async def create_snapshot(
        self, caller: Caller, draft: SnapshotDraft, *, idempotency_key: str = ""
    ) -> tuple[SnapshotView, Operation]:
        """Book it (or make the durable request), start following it, and answer."""
        permission.demand(caller, draft.cluster, draft.namespace, draft.volume)
        if draft.adopt_handle:
            permission.demand_adoption(caller)
        lane = self._lane(draft.cluster)
        draft = dataclasses.replace(draft, asked_by=draft.asked_by or caller.name)
        operation_id, uid = self._mint(), draft.uid or self._mint()
        mine = f"{operation_id} {uid}"
        claimed = await self._claim(caller, "create", idempotency_key, draft, mine) if idempotency_key else mine
        operation_id, _, uid = claimed.partition(" ")
        known = await self._answered(caller, operation_id, draft.cluster, uid) if idempotency_key else None
        if known is not None:
            return known
        try:
            unchecked = await self._look(lane, draft)
            key = await self.book_snapshot(lane, dataclasses.replace(draft, uid=uid))
        except (InvalidError, NotFoundError, ConflictError):
            if idempotency_key and claimed == mine:  # refused: the corrected request may use the same key
                await self._book.unclaim(f"create:{caller.name}", idempotency_key, mine)
            raise
        operation = await self._start(operation_id, ops.CREATE, key, draft.namespace, caller, unchecked)
        await self._book.audit(str(key), "create", draft.asked_by, {"volume": draft.volume, "name": draft.name})
        self._wake(key)
        return await self._view(caller, key), operation

    async def _look(self, lane: Lane, draft: SnapshotDraft) -> str:
        """Whether a handle that is adopted exists, where the book keeps it. Elsewhere the cluster's object tells."""
        booked = not lane.orchestrator.traits.durable_requests
        return await self._foreign.look(lane, draft) if draft.adopt_handle and draft.driver and booked else ""

    async def _answered(
        self, caller: Caller, operation_id: str, cluster: str, uid: str
    ) -> tuple[SnapshotView, Operation] | None:
        """The first answer to this idempotency key, if it got that far. NotFoundError: its snapshot is gone since."""
        try:
            operation = await self._operations.get(operation_id)
        except NotFoundError:
            return None
        return await self._view(caller, Key.parse(operation.target)), operation

    async def book_snapshot(self, lane: Lane, draft: SnapshotDraft, *, patient: bool = False) -> Key:
        """Look everything up now and copy it in, so that nothing can vanish under the request.

        `patient`: a plugin that is not known yet is waited for instead of refused.
        """
        return await self._booking.book(lane, draft, patient=patient)

    async def snapshots(self, caller: Caller, which: EntryFilter, *, limit: int, token: str) -> SnapshotPage:
        """A page of what the caller may see."""
        page = await self._catalogue.page(caller, which, limit=limit, token=token)
        return SnapshotPage(tuple(await self._keeper.with_pins(page.items)), page.next_token)

    async def foreign_snapshots(self, caller: Caller, driver: str, *, limit: int, token: str) -> ForeignPage:
        """A page of what a plugin holds and nobody has on record."""
        return await self._foreign.page(caller, driver, limit=limit, token=token)

    async def snapshot(self, caller: Caller, ref: str) -> SnapshotView:
        """One snapshot."""
        found = await self._keeper.with_pins([await self._catalogue.find(caller, ref)])
        return found[0]

    async def delete_snapshot(self, caller: Caller, ref: str, *, abandon: bool = False) -> Operation:
        """Withdraw the request. What happens to the backend is the policy's matter."""
        found = await self._catalogue.find(caller, ref, whole=True)
        lane = self._lane(found.key.cluster)
        await self._keeper.demand_free(found)
        await self._demand_alone(found)
        # The wish first: an operation that nothing carries out would run for ever.
        if lane.orchestrator.traits.durable_requests:
            if abandon:
                await lane.orchestrator.abandon(found.key)
            await lane.orchestrator.withdraw(found.key)
        else:
            await self._withdraw(found.key, abandon)
        operation = await self._start(self._mint(), ops.DELETE, found.key, found.namespace, caller)
        verb = "abandon" if abandon else "delete"
        await self._book.audit(str(found.key), verb, caller.name, {"name": found.name})
        self._wake(found.key)
        return operation

    async def _demand_alone(self, found: SnapshotView) -> None:
        """ConflictError for a member of a group: half a group is none, and CSI forbids it for some."""
        entry = await self._book.entry(found.key)
        if entry is None or entry.group is None or entry.wish is Wish.ABSENT:
            return
        if await self.groups.is_there(entry.group):
            name = entry.labels.get("group", entry.group.uid)
            message = f"it is a member of the group {name}, and goes with it only"
            raise ConflictError(message, field="snapshot", hint=f"`snapbridge group delete {name}`")

    async def _withdraw(self, key: Key, abandon: bool) -> None:
        """Set the wish; a concurrent status write only makes it try again."""
        for _ in range(20):
            entry = await self._book.entry(key)
            if entry is None:
                return
            try:
                await self._book.change(
                    dataclasses.replace(entry, wish=Wish.ABSENT, abandon=entry.abandon or abandon)
                )
            except PinnedError:
                raise
            except ConflictError:
                continue
            return
        raise ConflictError(f"the request {key} changes too fast", hint="try again")

    async def pin_snapshot(self, caller: Caller, ref: str, *, why: str = "") -> SnapshotView:
        """Keep it from being deleted by anybody."""
        found = await self._catalogue.find(caller, ref, whole=True)
        await self._keeper.pin(found.key, who=caller.name, why=why)
        return await self._view(caller, found.key)

    async def unpin_snapshot(self, caller: Caller, ref: str) -> SnapshotView:
        """Let people's pin go; those of operations stay."""
        found = await self._catalogue.find(caller, ref, whole=True)
        await self._keeper.demand_unpin(caller, found.key)
        if await self._keeper.unpin(found.key, who=caller.name):
            self._wake(found.key)
        return await self._view(caller, found.key)

    async def set_deletion_policy(self, caller: Caller, ref: str, policy: DeletionPolicy) -> SnapshotView:
        """Change what a delete will mean. It deletes nothing by itself."""
        found = await self._catalogue.find(caller, ref, whole=True)
        if self._lane(found.key.cluster).orchestrator.traits.durable_requests:
            raise InvalidError(
                f"the cluster {found.key.cluster!r} keeps its own snapshots and their policies",
                field="snapshot",
                hint="change deletionPolicy there, on the content of the snapshot",
            )
        await self._demand_alone(found)
        await self._keeper.set_policy(found.key, policy)
        detail = {"policy": policy.value, "before": found.policy}
        await self._book.audit(str(found.key), "set-policy", caller.name, detail)
        self._wake(found.key)
        return await self._view(caller, found.key)

    async def restore_snapshot(
        self, caller: Caller, ref: str, draft: RestoreDraft, *, idempotency_key: str = ""
    ) -> Operation:
        """A new volume from a ready snapshot."""
        return await self._making.restore(caller, ref, draft, idempotency_key)

    async def clone_volume(self, caller: Caller, draft: CloneDraft, *, idempotency_key: str = "") -> Operation:
        """A new volume from one that exists."""
        return await self._making.clone(caller, draft, idempotency_key)

    async def abandon_operation(self, caller: Caller, operation_id: str) -> Operation:
        """Have a restore or clone end, whatever is left of it."""
        found = await self.operation(caller, operation_id)
        stored = await self._making.abandon(found)
        await self._book.audit(found.target, "abandon", caller.name, {"operation": found.id})
        return stored

    async def plan_revert(self, caller: Caller, ref: str, draft: RevertDraft) -> RevertPlan:
        """What it would do."""
        return await self._revert_desk().plan(caller, ref, draft)

    async def revert_snapshot(
        self, caller: Caller, ref: str, draft: RevertDraft, *, idempotency_key: str = ""
    ) -> Operation:
        """Put a snapshot's data in place."""
        return await self._revert_desk().start(caller, ref, draft, idempotency_key=idempotency_key, claim=self._claim)

    async def acknowledge(self, caller: Caller, operation_id: str, *, delete: bool) -> Operation:
        """Let a revert's old volume go."""
        return await self._revert_desk().acknowledge(caller, operation_id, delete=delete)

    def _revert_desk(self) -> RevertDesk:
        if self._reverts is None:
            raise UnsupportedError("this service reverts nothing in place")
        return self._reverts

    async def volumes(self, caller: Caller, *, cluster: str = "", namespace: str = "") -> Sequence[Volume]:
        """The volumes of one cluster or of all."""
        lanes = [self._lane(cluster)] if cluster else list(self._lanes.values())
        found = [volume for lane in lanes for volume in await lane.orchestrator.volumes.list(namespace)]
        seen = [one for one in found if permission.may(caller, one.cluster, one.namespace, one.name)]
        return await self._keeper.with_origins(seen)

    def plugins(self, caller: Caller) -> Sequence[PluginDescription]:
        """Every plugin instance, then the drivers whose snapshots another controller makes for us."""
        return [*self._tools.plugins.describe(), *self._delegations()]

    def nodes(self, caller: Caller) -> Sequence[Node]:
        """Every node agent."""
        return self._nodes()

    async def operations(self, caller: Caller, *, running: bool = False, limit: int = 100) -> Sequence[Operation]:
        """Newest first; a limited caller sees its own."""
        found = await self._book.operations(running=running, limit=limit)
        return [one for one in found if permission.may_follow(caller, one)]

    async def operation(self, caller: Caller, operation_id: str) -> Operation:
        """One operation; another caller's is as good as none for a limited one."""
        found = await self._operations.get(operation_id)
        permission.demand_operation(caller, found)
        return found

    async def wait_operation(
        self, caller: Caller, operation_id: str, *, version: str, timeout_seconds: float
    ) -> Operation:
        """Follow one operation."""
        await self.operation(caller, operation_id)
        return await self._operations.wait(operation_id, version, timeout_seconds)

    def _lane(self, cluster: str) -> Lane:
        lane = self._lanes.get(cluster)
        if lane is None:
            raise catalogue.unknown_cluster(cluster, self._lanes)
        return lane

    async def _view(self, caller: Caller, key: Key) -> SnapshotView:
        found = await self._keeper.with_pins([await self._catalogue.find(caller, key.uid, whole=True)])
        return found[0]

    async def _start(
        self, operation_id: str, verb: str, key: Key, namespace: str, caller: Caller, unchecked: str = ""
    ) -> Operation:
        now = self._tools.clock.now()
        return await self._operations.start(
            Operation(
                id=operation_id,
                verb=verb,
                cluster=key.cluster,
                namespace=namespace,
                target=str(key),
                state=OperationState.RUNNING,
                created_at=now,
                updated_at=now,
                asked_by=caller.name,
                steps=(Step("unchecked", now, unchecked),) if unchecked else (),
            )
        )

    async def _claim(self, caller: Caller, verb: str, idempotency_key: str, asked: object, result: str) -> str:
        return await self._book.claim(f"{verb}:{caller.name}", idempotency_key, digest(asked), result)
