"""The desk for new volumes: restores and clones are checked, started and abandoned here. The saga does the rest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping

from bridge.model.failure import (
    BridgeError,
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from bridge.model.operation import Operation, OperationState
from bridge.model.plugin import Capability
from bridge.model.secret import NO_SECRET
from bridge.model.snapshot import DELEGATED
from bridge.model.view import CloneDraft, RestoreDraft, SnapshotView
from bridge.model.volume import Volume, VolumeShape
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book
from bridge.service import catalogue, permission, shapes
from bridge.service import operations as ops
from bridge.service.catalogue import Catalogue
from bridge.service.lane import Lane
from bridge.service.restores import Restores
from bridge.service.work import Tools


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What the desk works with."""

    lanes: Mapping[str, Lane]
    book: Book
    tools: Tools
    operations: ops.Operations
    restores: Restores
    mint: Callable[[], str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """One checked wish for a volume."""

    verb: str
    cluster: str
    namespace: str
    name: str
    about: str
    """The audit's key."""
    arguments: Mapping[str, str]


class Making:
    """Starts what makes volumes."""

    def __init__(self, means: Means, found: Catalogue) -> None:
        self._lanes = means.lanes
        self._book = means.book
        self._tools = means.tools
        self._operations = means.operations
        self._restores = means.restores
        self._mint = means.mint
        self._catalogue = found

    async def restore(self, caller: Caller, ref: str, draft: RestoreDraft, idempotency_key: str) -> Operation:
        """Check what can be checked now; the operation does the rest and can be resumed."""
        found = await self._catalogue.find(caller, ref)
        lane = self._lanes[found.key.cluster]
        namespace = draft.namespace or found.namespace
        permission.demand(caller, found.key.cluster, namespace, found.volume)
        _demand_plain(caller, draft)
        _check_restore(found, lane, draft)
        await _check_secret(lane, draft)
        shape = await self._shape(found, lane, draft)
        arguments = {
            "key": str(found.key),
            "key_ref": found.key.uid,
            "name": draft.name,
            "driver": found.driver,
            "volume": found.volume,
            "source_namespace": found.namespace,
            "shape": shapes.to_text(shape),
        }
        wanted = _Wanted(ops.RESTORE, found.key.cluster, namespace, draft.name, str(found.key), arguments)
        return await self._start(caller, wanted, idempotency_key, (ref, draft))

    async def clone(self, caller: Caller, draft: CloneDraft, idempotency_key: str) -> Operation:
        """A new volume from one that exists, as it is at some moment of the call."""
        lane = self._lanes.get(draft.cluster)
        if lane is None:
            raise catalogue.unknown_cluster(draft.cluster, self._lanes)
        namespace = draft.like.namespace or draft.namespace
        permission.demand(caller, draft.cluster, draft.namespace, draft.volume)
        permission.demand(caller, draft.cluster, namespace, draft.volume)
        _demand_plain(caller, draft.like)
        if not lane.orchestrator.traits.creates_volumes:
            raise InvalidError(f"cluster {draft.cluster!r} cannot register volumes", field="cluster")
        source = await lane.orchestrator.volumes.find(draft.namespace, draft.volume)
        self._check_clone(lane, source, draft.like)
        await _check_secret(lane, draft.like)
        shape = shapes.choose(draft.like, None, source, least_bytes=0, secret=NO_SECRET)
        arguments = {
            "content": source.handle,
            "name": draft.like.name,
            "driver": source.driver,
            "volume": draft.volume,
            "source_namespace": draft.namespace,
            "shape": shapes.to_text(shape),
        }
        about = f"{draft.cluster}/volume/{draft.namespace}/{draft.volume}"
        wanted = _Wanted(ops.CLONE, draft.cluster, namespace, draft.like.name, about, arguments)
        return await self._start(caller, wanted, idempotency_key, draft)

    async def abandon(self, operation: Operation) -> Operation:
        """Have a restore or clone end, whatever is left of it; what may be left is put on record."""
        if operation.verb not in (ops.RESTORE, ops.CLONE):
            create = operation.verb == ops.CREATE
            hint = "let it go with its snapshot: `snapbridge snapshot delete REF --abandon`" if create else ""
            raise InvalidError(f"a {operation.verb} cannot be abandoned", field="operation", hint=hint)
        for _ in range(20):
            fresh = await self._operations.get(operation.id)
            if fresh.state is not OperationState.RUNNING:
                raise ConflictError(f"the operation has ended: it is {fresh.state.value}", field="operation")
            arguments = {**fresh.arguments, "abandon": "true"}
            try:
                stored = await self._operations.put(dataclasses.replace(fresh, arguments=arguments))
            except ConflictError:
                continue
            self._restores.wake(stored)
            return stored
        raise ConflictError("the operation changes too fast", hint="try again")

    async def _shape(self, found: SnapshotView, lane: Lane, draft: RestoreDraft) -> VolumeShape:
        """What was kept at the cut, so that a source that is gone since stops nobody."""
        entry = await self._book.entry(found.key)
        like: Volume | None = None
        if found.volume:
            try:
                like = await lane.orchestrator.volumes.find(found.namespace, found.volume)
            except (NotFoundError, InvalidError):
                like = None
        return shapes.choose(
            draft,
            entry.shape if entry is not None else None,
            like,
            least_bytes=found.status.size_bytes or 0,
            secret=entry.secrets.create if entry is not None else NO_SECRET,
        )

    def _check_clone(self, lane: Lane, source: Volume, draft: RestoreDraft) -> None:
        view = lane.of(self._tools.plugins).view(source.driver)
        if view.known and view.healthy and not view.can(Capability.CLONE_VOLUME):
            raise InvalidError(
                f"the driver {source.driver!r} cannot clone volumes (no CLONE_VOLUME)",
                field="volume",
                hint="cut a snapshot and restore it: `snapbridge snapshot create`, then `snapshot restore`",
            )
        size = source.capacity_bytes or 0
        if draft.capacity_bytes and draft.capacity_bytes < size:
            message = f"{draft.capacity_bytes} bytes are less than the volume's {size}"
            raise InvalidError(message, field="capacity_bytes", hint="leave it out to take the volume's size")

    async def _start(self, caller: Caller, wanted: _Wanted, idempotency_key: str, asked: object) -> Operation:
        operation_id = self._mint()
        if idempotency_key:
            scope = f"{wanted.verb}:{caller.name}"
            operation_id = await self._book.claim(scope, idempotency_key, digest(asked), operation_id)
            try:
                return await self._operations.get(operation_id)
            except NotFoundError:
                pass
        now = self._tools.clock.now()
        operation = await self._operations.start(
            Operation(
                id=operation_id,
                verb=wanted.verb,
                cluster=wanted.cluster,
                namespace=wanted.namespace,
                target=f"{wanted.cluster}/{wanted.namespace}/{wanted.name}",
                state=OperationState.RUNNING,
                created_at=now,
                updated_at=now,
                asked_by=caller.name,
                arguments=wanted.arguments,
            )
        )
        await self._book.audit(wanted.about, wanted.verb, caller.name, {"as": wanted.name})
        self._restores.wake(operation)
        return operation


def _check_restore(found: SnapshotView, lane: Lane, draft: RestoreDraft) -> None:
    if not lane.orchestrator.traits.creates_volumes:
        raise InvalidError(f"cluster {found.key.cluster!r} cannot register volumes", field="snapshot")
    if found.status.reason == DELEGATED:
        hint = "restore it there: make a volume request that names the snapshot as its source"
        message = f"it cannot be restored from here: {found.status.message}"
        raise InvalidError(message, field="snapshot", hint=hint)
    if not found.status.ready:
        message = f"the snapshot is {found.status.state.value}, not ready"
        raise ConflictError(message, field="snapshot", hint="follow it: `snapbridge snapshot describe`")
    size = found.status.size_bytes or 0
    if draft.capacity_bytes and draft.capacity_bytes < size:
        message = f"{draft.capacity_bytes} bytes are less than the snapshot's {size}"
        raise InvalidError(message, field="capacity_bytes", hint="leave it out to take the snapshot's size")


def _demand_plain(caller: Caller, draft: RestoreDraft) -> None:
    """A caller with limits names no secret: a reference may point to anybody's."""
    if draft.secret and permission.limited(caller):
        raise DeniedError(
            "a caller with limits may not name secret references",
            field="secret",
            hint="leave it out; it belongs in the service's config",
        )


async def _check_secret(lane: Lane, draft: RestoreDraft) -> None:
    """A reference that leads nowhere is told now; its value is looked up again at the call, and kept nowhere."""
    try:
        await lane.secrets.resolve(draft.secret)
    except UnavailableError:
        raise
    except BridgeError as error:
        message = f"the secret {draft.secret} cannot be used: {error.message}"
        raise InvalidError(message, field="secret", hint=error.hint) from error


def digest(asked: object) -> str:
    """What tells one request from another under an idempotency key."""
    return hashlib.sha256(json.dumps(asked, default=_plain, sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)
