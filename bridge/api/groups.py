"""/v1/groups: several volumes cut together. Long work answers 202 and names its operation."""

from __future__ import annotations

from bridge.api import asks, documents, fields, inventory, render, times
from bridge.api.endpoint import Answer, Call, Endpoints
from bridge.model.snapshot import DeletionPolicy
from bridge.model.view import GroupDraft

routes = Endpoints("groups")


@routes.add(
    "POST",
    "/v1/groups",
    answer=documents.GroupAcceptedDocument,
    body=asks.GroupBody,
    status=202,
    problems=(404,),
    keyed=True,
)
async def create_group(call: Call[asks.NoQuery, asks.GroupBody]) -> Answer:
    """Book a group of volumes; the operation ends when all its snapshots are ready, or when it has failed."""
    body = call.body
    draft = GroupDraft(
        cluster=body.cluster or inventory.only_cluster(call.desk, call.caller),
        namespace=body.namespace,
        name=body.name,
        volumes=tuple(body.volumes),
        users=fields.parse_selector(body.used_by),
        policy=DeletionPolicy(body.deletion_policy),
        parameters=body.parameters,
        max_skew_seconds=times.parse_duration(body.max_skew) if body.max_skew else None,
        asked_by=call.caller.name,
        why=body.why,
        labels={**body.labels, **dict(call.caller.labels)},
    )
    view, operation = await call.desk.groups.create(call.caller, draft, idempotency_key=call.idempotency_key)
    document = documents.GroupAcceptedDocument(group=render.group(view), operation=render.operation(operation))
    return Answer(document, render.location(operation))


@routes.add("GET", "/v1/groups", answer=documents.GroupListDocument, query=asks.GroupQuery, problems=(404,))
async def list_groups(call: Call[asks.GroupQuery, None]) -> Answer:
    """List groups, newest first."""
    found = await call.desk.groups.all(call.caller, cluster=call.query.cluster, namespace=call.query.namespace)
    return Answer(documents.GroupListDocument(items=[render.group(view) for view in found]))


@routes.add("GET", "/v1/groups/{ref}", answer=documents.GroupDocument, problems=(404, 409))
async def read_group(call: Call[asks.NoQuery, None]) -> Answer:
    """Read one group with its members."""
    return Answer(render.group(await call.desk.groups.one(call.caller, call.ref)))


@routes.add(
    "DELETE",
    "/v1/groups/{ref}",
    answer=documents.OperationDocument,
    query=asks.DeleteQuery,
    status=202,
    problems=(404, 409),
)
async def delete_group(call: Call[asks.DeleteQuery, None]) -> Answer:
    """Delete a group with all its members; the operation ends when they are gone, or retained by the policy."""
    operation = await call.desk.groups.delete(call.caller, call.ref, abandon=call.query.abandon)
    return Answer(render.operation(operation), render.location(operation))
