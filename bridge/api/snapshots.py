"""/v1/snapshots: create, list, read, delete, restore. Long work answers 202 and names its operation."""

from __future__ import annotations

import asyncio

from bridge.api import asks, documents, fields, inventory, new_volumes, operations, render, times
from bridge.api.endpoint import Answer, Call, Endpoints
from bridge.model.failure import DeniedError, InvalidError
from bridge.model.revert import RevertDraft
from bridge.model.secret import SecretRef, SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy
from bridge.ports.desk import Desk
from bridge.ports.identity import Caller
from bridge.ports.ledger import EntryFilter
from bridge.ports.orchestrator import SnapshotDraft

routes = Endpoints("snapshots")


@routes.add(
    "POST",
    "/v1/snapshots",
    answer=documents.AcceptedDocument,
    query=asks.CreateQuery,
    body=asks.SnapshotBody,
    status=202,
    problems=(404, 424, 504),
    keyed=True,
    slow=True,
)
async def create_snapshot(call: Call[asks.CreateQuery, asks.SnapshotBody]) -> Answer:
    """Book a snapshot; the operation ends when it is ready, or fails. With `wait`, answer then."""
    seconds = min(times.parse_duration(call.query.wait), call.settings.wait_limit_seconds)
    async with asyncio.timeout(call.settings.request_seconds):
        draft = _draft(call.desk, call.caller, call.body)
        view, operation = await call.desk.create_snapshot(call.caller, draft, idempotency_key=call.idempotency_key)
    if seconds > 0:
        operation = await operations.ended(call, operation, seconds)
        async with asyncio.timeout(call.settings.request_seconds):
            view = await call.desk.snapshot(call.caller, view.key.uid)
    document = documents.AcceptedDocument(snapshot=render.snapshot(view), operation=render.operation(operation))
    return Answer(document, render.location(operation))


@routes.add("GET", "/v1/snapshots", answer=documents.SnapshotListDocument, query=asks.SnapshotQuery, problems=(404,))
async def list_snapshots(call: Call[asks.SnapshotQuery, None]) -> Answer:
    """List snapshots, newest first."""
    query = call.query
    which = EntryFilter(
        cluster=query.cluster,
        namespace=query.namespace,
        volume=query.volume,
        driver=query.driver,
        states=tuple(query.state),
        labels=fields.parse_selector(query.selector),
        users=fields.parse_selector(query.used_by),
        uid_prefix=query.prefix,
    )
    page = await call.desk.snapshots(call.caller, which, limit=query.per_page, token=query.next_token)
    items = [render.snapshot(view) for view in page.items]
    return Answer(documents.SnapshotListDocument(items=items, next_token=page.next_token))


@routes.add("GET", "/v1/snapshots/{ref}", answer=documents.SnapshotDocument, problems=(404, 409))
async def read_snapshot(call: Call[asks.NoQuery, None]) -> Answer:
    """Read one snapshot."""
    return Answer(render.snapshot(await call.desk.snapshot(call.caller, call.ref)))


@routes.add(
    "DELETE",
    "/v1/snapshots/{ref}",
    answer=documents.OperationDocument,
    query=asks.DeleteQuery,
    status=202,
    problems=(404, 409),
)
async def delete_snapshot(call: Call[asks.DeleteQuery, None]) -> Answer:
    """Delete a snapshot; the operation ends when it is gone, or retained by its policy."""
    operation = await call.desk.delete_snapshot(call.caller, call.ref, abandon=call.query.abandon)
    return Answer(render.operation(operation), render.location(operation))


@routes.add("POST", "/v1/snapshots/{ref}/pin", answer=documents.SnapshotDocument, body=asks.PinBody, problems=(404,))
async def pin_snapshot(call: Call[asks.NoQuery, asks.PinBody]) -> Answer:
    """Pin a snapshot: nobody can delete it, whatever its policy says. A repeat replaces the reason."""
    return Answer(render.snapshot(await call.desk.pin_snapshot(call.caller, call.ref, why=call.body.why)))


@routes.add("DELETE", "/v1/snapshots/{ref}/pin", answer=documents.SnapshotDocument, problems=(404, 409))
async def unpin_snapshot(call: Call[asks.NoQuery, None]) -> Answer:
    """Let people's pin go. Pins of operations stay, and go with their operation."""
    return Answer(render.snapshot(await call.desk.unpin_snapshot(call.caller, call.ref)))


@routes.add(
    "POST", "/v1/snapshots/{ref}/policy", answer=documents.SnapshotDocument, body=asks.PolicyBody, problems=(404,)
)
async def set_deletion_policy(call: Call[asks.NoQuery, asks.PolicyBody]) -> Answer:
    """Change the deletion policy. Nothing is deleted by it: a retained snapshot is under management again."""
    policy = DeletionPolicy(call.body.deletion_policy)
    return Answer(render.snapshot(await call.desk.set_deletion_policy(call.caller, call.ref, policy)))


@routes.add(
    "POST",
    "/v1/snapshots/{ref}/restore",
    answer=documents.OperationDocument,
    body=asks.RestoreBody,
    status=202,
    problems=(404,),
    keyed=True,
)
async def restore_snapshot(call: Call[asks.NoQuery, asks.RestoreBody]) -> Answer:
    """Make a new volume from a ready snapshot; the source volume is not touched."""
    draft = new_volumes.draft(call.body)
    operation = await call.desk.restore_snapshot(call.caller, call.ref, draft, idempotency_key=call.idempotency_key)
    return Answer(render.operation(operation), render.location(operation))


@routes.add(
    "POST",
    "/v1/snapshots/{ref}/revert",
    answer=documents.RevertDocument,
    body=asks.RevertBody,
    status=202,
    problems=(404,),
    keyed=True,
)
async def revert_snapshot(call: Call[asks.NoQuery, asks.RevertBody]) -> Answer:
    """Put a ready snapshot's data in place of its volume's, under the same name; the old volume is kept."""
    body = call.body
    draft = RevertDraft(body.volume, tuple(body.also), body.workload, body.version)
    if body.dry_run:
        plan = await call.desk.plan_revert(call.caller, call.ref, draft)
        return Answer(documents.RevertDocument(plan=render.revert_plan(plan), operation=None))
    operation = await call.desk.revert_snapshot(call.caller, call.ref, draft, idempotency_key=call.idempotency_key)
    return Answer(
        documents.RevertDocument(plan=None, operation=render.operation(operation)), render.location(operation)
    )


def _draft(desk: Desk, caller: Caller, body: asks.SnapshotBody) -> SnapshotDraft:
    if not (body.volume or body.adopt_handle):
        raise InvalidError(
            "give either a volume to cut, or the handle of a snapshot to take over",
            field="volume",
            hint='send "volume", or "adoptHandle" with "driver"',
        )
    if body.adopt_handle and not body.driver:
        raise InvalidError("a handle needs its driver", field="driver", hint='send "driver" with "adoptHandle"')
    secrets = SnapshotSecrets(*(SecretRef.parse(text) for text in _secret_texts(body.secrets)))
    if secrets != SnapshotSecrets() and (caller.clusters or caller.namespaces or caller.volumes):
        raise DeniedError(
            "a caller with limits may not name secret references",
            field="secrets",
            hint="leave them out; they belong in the service's config",
        )
    return SnapshotDraft(
        cluster=body.cluster or inventory.only_cluster(desk, caller),
        namespace=body.namespace,
        name=body.name,
        volume=body.volume,
        adopt_handle=body.adopt_handle,
        driver=body.driver,
        policy=DeletionPolicy(body.deletion_policy),
        parameters=body.parameters,
        secrets=secrets,
        asked_by=caller.name,
        why=body.why,
        labels={**body.labels, **dict(caller.labels)},
        users={name: (value,) for name, value in caller.labels},
        pin=body.pin,
    )


def _secret_texts(body: asks.SecretsBody) -> tuple[str, str, str]:
    return body.create, body.delete, body.inspect
