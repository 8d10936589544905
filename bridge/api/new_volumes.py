"""/v1/volumes/clone, and what a restore and a clone have in common: the wish for a new volume."""

from __future__ import annotations

from bridge.api import asks, documents, inventory, render
from bridge.api.endpoint import Answer, Call, Endpoints
from bridge.model.secret import SecretRef
from bridge.model.view import CloneDraft, RestoreDraft
from bridge.model.volume import AccessMode, VolumeMode

routes = Endpoints("inventory")


@routes.add(
    "POST",
    "/v1/volumes/clone",
    answer=documents.OperationDocument,
    body=asks.CloneBody,
    status=202,
    problems=(404,),
    keyed=True,
)
async def clone_volume(call: Call[asks.NoQuery, asks.CloneBody]) -> Answer:
    """Make a new volume from one that exists, as it is at some moment of the call; the source is not touched."""
    body = call.body
    cluster = body.cluster or inventory.only_cluster(call.desk, call.caller)
    wanted = CloneDraft(cluster, body.source_namespace, body.volume, draft(body))
    operation = await call.desk.clone_volume(call.caller, wanted, idempotency_key=call.idempotency_key)
    return Answer(render.operation(operation), render.location(operation))


def draft(body: asks.NewVolumeBody) -> RestoreDraft:
    """The wish in the service's words."""
    return RestoreDraft(
        body.name,
        body.namespace,
        body.capacity_bytes,
        body.parameters,
        tuple(AccessMode(name) for name in body.access_modes),
        VolumeMode(body.mode) if body.mode else None,
        tuple(body.topology),
        SecretRef.parse(body.secret),
    )
