"""A Desk that keeps its state in memory: rules of the port, no plugin behind it. For the API's and the CLI's tests.

Operations move by themselves, one state each `step_seconds`, or by `advance()` when `by_hand`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from bridge.model.failure import (
    BridgeError,
    ConflictError,
    DeniedError,
    Failure,
    FailureKind,
    InvalidError,
    NotFoundError,
    PinnedError,
)
from bridge.model.keys import Key, snapshot_key
from bridge.model.node import Node
from bridge.model.operation import Operation, OperationState, Step
from bridge.model.pin import Pin
from bridge.model.plugin import Capability, InstanceId, PluginDescription, Route
from bridge.model.snapshot import DeletionPolicy, SnapshotState, SnapshotStatus
from bridge.model.view import (
    CloneDraft,
    ClusterView,
    ForeignPage,
    ForeignSnapshot,
    RestoreDraft,
    SnapshotPage,
    SnapshotView,
)
from bridge.model.volume import Volume
from bridge.ports.identity import Caller
from bridge.ports.ledger import EntryFilter
from bridge.ports.orchestrator import SnapshotDraft
from tests.support import desk_reverts
from tests.support import desk_rules as rules
from tests.support.group_desk import MemoryGroupDesk

DRIVER = "localdisk.snapbridge.io"
STARTED_AT = 1_763_000_000.0
GIB = 1 << 30

CREATE_STATES = (SnapshotState.CUTTING, SnapshotState.PROCESSING, SnapshotState.READY)
DELETE_STATES = (SnapshotState.DELETING, SnapshotState.GONE)
RESTORE_STEPS = ("create", "verify", "register")


@dataclasses.dataclass(slots=True)
class _Plan:
    """What an operation still has to go through."""

    operation: str
    left: list[str]


class MemoryDesk(desk_reverts.Reverting):
    """Clusters `east` (all that the tests touch) and, on request, `west`."""

    def __init__(
        self, *, step_seconds: float = 0.0, by_hand: bool = False, clusters: Sequence[str] = ("east",)
    ) -> None:
        self.step_seconds = step_seconds
        self.by_hand = by_hand
        self.cluster_names = tuple(clusters)
        self.now = STARTED_AT
        self.broken: BaseException | None = None
        """Raised by every verb, to see what the API makes of it."""
        self.failure: Failure | None = None
        """Operations end with it instead of being done."""
        self.busy: dict[str, str] = {}
        """Names of snapshots whose deletion is refused, and why."""
        self.calls: list[str] = []
        self.drafts: list[SnapshotDraft] = []
        self.foreign: list[ForeignSnapshot] = []
        """What the plugin of DRIVER holds and nobody has on record."""
        self.foreign_token = "t"
        self.wishes: list[RestoreDraft | CloneDraft] = []
        """What restores and clones were asked for."""
        self._views: dict[str, SnapshotView] = {}
        self._operations: dict[str, Operation] = {}
        self._claims: dict[tuple[str, str, str], tuple[object, object]] = {}
        self._plans: list[_Plan] = []
        self._changed: dict[tuple[int, str], asyncio.Event] = {}
        self._numbers = itertools.count(1)
        self.groups = MemoryGroupDesk(self)
        self._volumes = [
            Volume("east", "default", name, DRIVER, f"vol-{name}", 10 * GIB) for name in ("db", "logs", "photos")
        ]

    def clusters(self) -> Sequence[ClusterView]:
        self._enter("clusters")
        return [ClusterView(name, "standalone") for name in self.cluster_names]

    async def create_snapshot(
        self, caller: Caller, draft: SnapshotDraft, *, idempotency_key: str = ""
    ) -> tuple[SnapshotView, Operation]:
        self._enter("create_snapshot")
        known = self._claimed(caller, "create", idempotency_key, draft)
        if known is not None:
            assert isinstance(known, tuple)
            view, operation = known
            return view, self._operations[operation.id]  # as it stands now, as the service answers
        if draft.cluster not in self.cluster_names:
            raise NotFoundError(f"no cluster {draft.cluster!r} is configured", field="cluster")
        if draft.volume and not any(volume.name == draft.volume for volume in self._volumes):
            raise NotFoundError(
                f"there is no volume {draft.volume!r}", field="volume", hint="`snapbridge volume list` shows them"
            )
        if caller.volumes and draft.volume not in caller.volumes:
            raise DeniedError(f"{caller.name} may not touch volume {draft.volume!r}")
        if self._named(draft.cluster, draft.namespace, draft.name) is not None:
            raise ConflictError(f"the name {draft.name!r} is taken", field="name", hint="use another name")
        self.drafts.append(draft)
        view = self._book(draft)
        operation = self._start("create", view, [state.value for state in CREATE_STATES], caller)
        self._claim(caller, "create", idempotency_key, draft, (view, operation))
        return view, operation

    async def snapshots(self, caller: Caller, which: EntryFilter, *, limit: int, token: str) -> SnapshotPage:
        self._enter("snapshots")
        start = 0
        if token:
            head, _, number = token.partition("-")
            if head != "after" or not (number.isascii() and number.isdecimal()) or len(number) > 9:
                raise InvalidError("the page token is not one of ours", field="next_token", hint="start without one")
            start = int(number)
        found = [
            view for view in reversed(self._views.values()) if rules.matches(which, view) and rules.may(caller, view)
        ]
        end = start + limit
        return SnapshotPage(tuple(found[start:end]), f"after-{end}" if end < len(found) else "")

    async def foreign_snapshots(self, caller: Caller, driver: str, *, limit: int, token: str) -> ForeignPage:
        self._enter("foreign_snapshots")
        if driver != DRIVER:
            return ForeignPage(listable=False, message=f"the plugin of driver {driver!r} cannot list: records only")
        known = {draft.adopt_handle for draft in self.drafts}
        found = [one for one in self.foreign if one.cut.handle not in known]
        start = int(token.removeprefix(self.foreign_token) or 0)
        end = start + limit
        return ForeignPage(tuple(found[start:end]), f"{self.foreign_token}{end}" if end < len(found) else "")

    async def snapshot(self, caller: Caller, ref: str) -> SnapshotView:
        self._enter("snapshot")
        return self._find(caller, ref, whole=False)

    async def delete_snapshot(self, caller: Caller, ref: str, *, abandon: bool = False) -> Operation:
        self._enter("delete_snapshot")
        view = self._find(caller, ref, whole=True)
        if view.pins:
            raise PinnedError(f"the snapshot is {view.pins[0]}", hint="unpin it", field="snapshot")
        if view.name in self.busy:
            raise ConflictError(self.busy[view.name], hint="wait until it has ended")
        return self._start("delete", view, [state.value for state in DELETE_STATES], caller)

    async def pin_snapshot(self, caller: Caller, ref: str, *, why: str = "") -> SnapshotView:
        self._enter("pin_snapshot")
        view = self._find(caller, ref, whole=True)
        return self._pinned(view, (Pin(view.key, "", caller.name, why, self.now),))

    async def unpin_snapshot(self, caller: Caller, ref: str) -> SnapshotView:
        self._enter("unpin_snapshot")
        return self._pinned(self._find(caller, ref, whole=True), ())

    async def set_deletion_policy(self, caller: Caller, ref: str, policy: DeletionPolicy) -> SnapshotView:
        self._enter("set_deletion_policy")
        view = dataclasses.replace(self._find(caller, ref, whole=True), policy=policy.value)
        self._views[view.key.uid] = view
        return view

    def _pinned(self, view: SnapshotView, pins: tuple[Pin, ...]) -> SnapshotView:
        self._views[view.key.uid] = dataclasses.replace(view, pins=pins)
        return self._views[view.key.uid]

    async def restore_snapshot(
        self, caller: Caller, ref: str, draft: RestoreDraft, *, idempotency_key: str = ""
    ) -> Operation:
        self._enter("restore_snapshot")
        view = self._find(caller, ref, whole=False)
        known = self._claimed(caller, "restore", idempotency_key, (ref, draft))
        if known is not None:
            assert isinstance(known, Operation)
            return known
        if not view.status.ready:
            raise ConflictError(f"the snapshot is {view.status.state.value}, not ready", field="snapshot")
        if any(volume.name == draft.name for volume in self._volumes):
            raise ConflictError(f"there is a volume {draft.name!r} already", field="name", hint="use another name")
        if draft.capacity_bytes and draft.capacity_bytes < (view.status.size_bytes or 0):
            raise InvalidError("this is less than the snapshot needs", field="capacity_bytes")
        self.wishes.append(draft)
        operation = self._start("restore", view, list(RESTORE_STEPS), caller, new_volume=draft.name)
        self._claim(caller, "restore", idempotency_key, (ref, draft), operation)
        return operation

    async def clone_volume(self, caller: Caller, draft: CloneDraft, *, idempotency_key: str = "") -> Operation:
        self._enter("clone_volume")
        known = self._claimed(caller, "clone", idempotency_key, draft)
        if known is not None:
            assert isinstance(known, Operation)
            return known
        if not any(volume.name == draft.volume for volume in self._volumes):
            raise NotFoundError(f"there is no volume {draft.volume!r}", field="volume")
        self.wishes.append(draft)
        view = SnapshotView(
            snapshot_key(draft.cluster, "clone"), draft.namespace, "", draft.volume, DRIVER, "", "",
            SnapshotStatus(SnapshotState.READY),
        )  # fmt: skip
        operation = self._start("clone", view, list(RESTORE_STEPS), caller, new_volume=draft.like.name)
        self._claim(caller, "clone", idempotency_key, draft, operation)
        return operation

    async def abandon_operation(self, caller: Caller, operation_id: str) -> Operation:
        self._enter("abandon_operation")
        found = await self.operation(caller, operation_id)
        if found.state is not OperationState.RUNNING:
            raise ConflictError(f"the operation has ended: it is {found.state.value}", field="operation")
        if found.verb not in ("restore", "clone"):
            raise InvalidError(f"a {found.verb} cannot be abandoned", field="operation")
        self.failure = Failure(FailureKind.REFUSED, "ABANDONED", "it was abandoned")
        return found

    async def volumes(self, caller: Caller, *, cluster: str = "", namespace: str = "") -> Sequence[Volume]:
        self._enter("volumes")
        return [
            volume
            for volume in self._volumes
            if cluster in ("", volume.cluster)
            and namespace in ("", volume.namespace)
            and (not caller.volumes or volume.name in caller.volumes)
        ]

    def plugins(self, caller: Caller) -> Sequence[PluginDescription]:
        self._enter("plugins")
        able = frozenset({Capability.CREATE_DELETE_SNAPSHOT, Capability.LIST_SNAPSHOTS})
        return [
            PluginDescription(
                InstanceId(DRIVER, "controller", "/run/csi/localdisk.sock"),
                Route.SOCKET,
                "unix:/run/csi/localdisk.sock",
                healthy=True,
                sentence="",
                vendor_version="0.1.0",
                capabilities=able,
            ),
            PluginDescription(
                InstanceId("rbd.csi.ceph.com", "controller", "node-2"),
                Route.NODE_AGENT,
                "node-2",
                healthy=False,
                sentence="the node agent node-2 is not connected",
                node="node-2",
            ),
        ]

    def nodes(self, caller: Caller) -> Sequence[Node]:
        self._enter("nodes")
        return [
            Node("node-1", True, "0.1.0", STARTED_AT, (DRIVER,)),
            Node("node-2", False, "0.1.0", 0.0, sentence="lost contact"),
        ]

    async def operations(self, caller: Caller, *, running: bool = False, limit: int = 100) -> Sequence[Operation]:
        self._enter("operations")
        wanted = [op for op in self._operations.values() if not running or op.state is OperationState.RUNNING]
        return wanted[::-1][:limit]

    async def operation(self, caller: Caller, operation_id: str) -> Operation:
        self._enter("operation")
        found = self._operations.get(operation_id)
        if found is None:
            raise NotFoundError(f"there is no operation {operation_id!r}", hint="`snapbridge op list` shows them")
        return found

    async def wait_operation(
        self, caller: Caller, operation_id: str, *, version: str, timeout_seconds: float
    ) -> Operation:
        self._enter("wait_operation")
        found = await self.operation(caller, operation_id)
        if found.version != version:
            return found
        try:
            async with asyncio.timeout(timeout_seconds):
                # A server that is started again has another loop; an event belongs to one.
                place = (id(asyncio.get_running_loop()), operation_id)
                await self._changed.setdefault(place, asyncio.Event()).wait()
        except TimeoutError:
            pass
        return self._operations[operation_id]

    # What tests use beside the port.

    def add(
        self, name: str, *, namespace: str = "default", ready: bool = True, volume: str = "db", why: str = ""
    ) -> SnapshotView:
        """A snapshot that is there already."""
        draft = SnapshotDraft("east", namespace, name, volume=volume, asked_by="setup", why=why)
        view = self._book(draft)
        if ready:
            view = self._told(view.key.uid, SnapshotState.READY)
        return view

    def show_users(self, name: str, users: Mapping[str, tuple[str, ...]]) -> None:
        """Who had the volume of this snapshot when it was cut."""
        view = self.view(name)
        assert view is not None
        self._views[view.key.uid] = dataclasses.replace(view, users=users)

    def view(self, name: str) -> SnapshotView | None:
        """By name, in cluster east and namespace default."""
        return self._named("east", "default", name)

    def make_ready(self, name: str) -> None:
        """As the service does that tried again, after the operation had failed."""
        view = self.view(name)
        assert view is not None
        self._told(view.key.uid, SnapshotState.READY)

    def advance(self) -> None:
        """Move every operation by one state."""
        for plan in list(self._plans):
            self._move(plan)

    def _enter(self, verb: str) -> None:
        self.calls.append(verb)
        if self.broken is not None:
            raise self.broken

    def _book(self, draft: SnapshotDraft) -> SnapshotView:
        self.now += 1
        uid = draft.uid or f"{next(self._numbers):08x}-5eed-4000-8000-{len(self._views):012x}"
        view = SnapshotView(
            key=snapshot_key(draft.cluster, uid),
            namespace=draft.namespace,
            name=draft.name,
            volume=draft.volume,
            driver=draft.driver or DRIVER,
            policy=draft.policy.value,
            snapshot_name=f"snapshot-{uid}",
            status=SnapshotStatus(SnapshotState.PENDING, reason="Booked", message="the request is on record"),
            created_at=self.now,
            asked_by=draft.asked_by,
            why=draft.why,
            labels=dict(draft.labels),
            parameters=dict(draft.parameters),
            users=dict(draft.users),
        )
        if draft.pin:
            view = dataclasses.replace(view, pins=(Pin(view.key, "", draft.asked_by, draft.why, self.now),))
        self._views[uid] = view
        return view

    def _start(
        self, verb: str, view: SnapshotView, states: list[str], caller: Caller, *, new_volume: str = ""
    ) -> Operation:
        self.now += 1
        arguments = {"volume": new_volume} if new_volume else {}
        operation = Operation(
            id=f"op-{next(self._numbers):06d}",
            verb=verb,
            cluster=view.key.cluster,
            namespace=view.namespace,
            target=str(view.key),
            state=OperationState.RUNNING,
            created_at=self.now,
            updated_at=self.now,
            asked_by=caller.name,
            arguments=arguments,
            version="1",
        )
        self._operations[operation.id] = operation
        plan = _Plan(operation.id, list(states))
        self._plans.append(plan)
        if not self.by_hand:
            asyncio.get_running_loop().call_later(self.step_seconds, self._tick, plan)
        return operation

    def _tick(self, plan: _Plan) -> None:
        self._move(plan)
        if plan.left:
            asyncio.get_running_loop().call_later(self.step_seconds, self._tick, plan)

    def _move(self, plan: _Plan) -> None:
        operation = self._operations[plan.operation]
        name = plan.left.pop(0)
        self.now += 1
        state = OperationState.RUNNING if plan.left else OperationState.DONE
        failure = None
        if self.failure is not None:
            plan.left.clear()
            state, failure = OperationState.FAILED, self.failure
        uid = Key.parse(operation.target).uid
        if failure is None:
            self._effect(operation, uid, name)
        if state is not OperationState.RUNNING:
            self._plans.remove(plan)
        step = Step(name, self.now)
        self._operations[operation.id] = dataclasses.replace(
            operation,
            state=state,
            failure=failure,
            steps=(*operation.steps, step),
            updated_at=self.now,
            result=desk_reverts.result(operation) if state is OperationState.DONE else {},
            version=str(int(operation.version) + 1),
        )
        for place in [place for place in self._changed if place[1] == operation.id]:
            self._changed.pop(place).set()

    def _effect(self, operation: Operation, uid: str, name: str) -> None:
        if operation.verb == "revert":
            return
        if operation.verb in ("restore", "clone"):
            if name == RESTORE_STEPS[-1]:
                new = operation.arguments["volume"]
                self._volumes.append(Volume("east", operation.namespace, new, DRIVER, f"vol-{new}", GIB))
            return
        if name == SnapshotState.GONE.value:
            self._views.pop(uid, None)
        elif uid in self._views:
            self._told(uid, SnapshotState(name))

    def _told(self, uid: str, state: SnapshotState) -> SnapshotView:
        cut = state in (SnapshotState.PROCESSING, SnapshotState.READY)
        status = SnapshotStatus(
            state,
            ready=state is SnapshotState.READY,
            handle=f"snap-{uid[:8]}" if cut else "",
            size_bytes=2 * GIB if cut else None,
            cut_at_ns=int(self.now * 1e9) if cut else None,
        )
        self._views[uid] = dataclasses.replace(self._views[uid], status=status)
        return self._views[uid]

    def _named(self, cluster: str, namespace: str, name: str) -> SnapshotView | None:
        wanted = (cluster, namespace, name)
        return next((v for v in self._views.values() if (v.key.cluster, v.namespace, v.name) == wanted), None)

    def _find(self, caller: Caller, ref: str, *, whole: bool) -> SnapshotView:
        if ref.count("/") >= 2:
            cluster, namespace, name = ref.split("/", 2)
            found = self._named(cluster, namespace, name)
        else:
            found = self._views.get(ref)
            if found is None and not whole:
                found = self._by_prefix(ref)
        if found is None or not rules.may(caller, found):
            raise NotFoundError(f"there is no snapshot {ref!r}", hint="`snapbridge snapshot list` shows them")
        return found

    def _by_prefix(self, ref: str) -> SnapshotView | None:
        if len(ref) < 4:
            raise InvalidError(f"{ref!r} is too short for a uid: give 4 characters", field="snapshot")
        found = [view for uid, view in self._views.items() if uid.startswith(ref)]
        if len(found) > 1:
            raise InvalidError(f"{ref!r} fits several snapshots", field="snapshot", hint="give more of it")
        return found[0] if found else None

    def _claimed(self, caller: Caller, verb: str, key: str, digest: object) -> object:
        if not key or (caller.name, verb, key) not in self._claims:
            return None
        known, result = self._claims[(caller.name, verb, key)]
        if known != digest:
            raise ConflictError("this idempotency key was used for something else", field="Idempotency-Key")
        return result

    def _claim(self, caller: Caller, verb: str, key: str, digest: object, result: object) -> None:
        if key:
            self._claims[(caller.name, verb, key)] = (digest, result)


def refused(code: str, message: str) -> Failure:
    """A failure of the plugin, for `MemoryDesk.failure`."""
    return Failure(FailureKind.REFUSED, code, message, "free some space")


def error_of(kind: type[BridgeError], code: str = "") -> BridgeError:
    """An error of this kind, with another code on request."""
    error = kind("a sentence", hint="a remedy", field="name")
    if code:
        error.code = code
    return error
