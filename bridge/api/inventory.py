"""/v1/volumes, /v1/plugins, /v1/nodes, /v1/clusters: what the service knows of the world. Reading only."""

from __future__ import annotations

import base64

from bridge.api import asks, documents, render
from bridge.api.endpoint import Answer, Call, Endpoints
from bridge.model.failure import InvalidError
from bridge.model.view import ClusterView
from bridge.ports.desk import Desk
from bridge.ports.identity import Caller

routes = Endpoints("inventory")


@routes.add("GET", "/v1/volumes", answer=documents.VolumeListDocument, query=asks.VolumeQuery, problems=(404,))
async def list_volumes(call: Call[asks.VolumeQuery, None]) -> Answer:
    """List the volumes that the caller may see."""
    query = call.query
    found = await call.desk.volumes(call.caller, cluster=query.cluster, namespace=query.namespace)
    return Answer(documents.VolumeListDocument(items=[render.volume(item) for item in found]))


@routes.add("GET", "/v1/plugins", answer=documents.PluginListDocument)
async def list_plugins(call: Call[asks.NoQuery, None]) -> Answer:
    """List every plugin instance and how it is."""
    return Answer(
        documents.PluginListDocument(items=[render.plugin(item) for item in call.desk.plugins(call.caller)])
    )


@routes.add(
    "GET",
    "/v1/plugins/{ref}/snapshots",
    answer=documents.ForeignListDocument,
    query=asks.ForeignQuery,
    problems=(404,),
)
async def list_foreign_snapshots(call: Call[asks.ForeignQuery, None]) -> Answer:
    """List what a driver's plugin holds and nobody has on record. One that cannot list is no error."""
    query = call.query
    token = _plain_token(query.next_token)
    page = await call.desk.foreign_snapshots(call.caller, call.ref, limit=query.per_page, token=token)
    return Answer(
        documents.ForeignListDocument(
            driver=call.ref,
            listable=page.listable,
            message=page.message,
            items=[render.foreign(one) for one in page.items],
            next_token=_wire_token(page.next_token),
        )
    )


def _wire_token(token: str) -> str:
    """A plugin's token as a URL can carry it: that one may be any text."""
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def _plain_token(token: str) -> str:
    """The plugin's own again. InvalidError when it is none of ours."""
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True).decode()
    except ValueError:
        hint = "start without one"
        raise InvalidError("the page token is not one of ours", field="next_token", hint=hint) from None


@routes.add("GET", "/v1/nodes", answer=documents.NodeListDocument)
async def list_nodes(call: Call[asks.NoQuery, None]) -> Answer:
    """List the node agents that are or were attached."""
    return Answer(documents.NodeListDocument(items=[render.node(item) for item in call.desk.nodes(call.caller)]))


@routes.add("GET", "/v1/clusters", answer=documents.ClusterListDocument)
async def list_clusters(call: Call[asks.NoQuery, None]) -> Answer:
    """List the configured clusters that the caller may see."""
    found = visible_clusters(call.desk, call.caller)
    return Answer(documents.ClusterListDocument(items=[render.cluster(item) for item in found]))


def visible_clusters(desk: Desk, caller: Caller) -> list[ClusterView]:
    """The clusters that this caller is not kept from."""
    return [item for item in desk.clusters() if not caller.clusters or item.name in caller.clusters]


def only_cluster(desk: Desk, caller: Caller) -> str:
    """The one cluster that this caller can mean. InvalidError when there are several."""
    names = [view.name for view in visible_clusters(desk, caller)]
    if len(names) == 1:
        return names[0]
    raise InvalidError(
        "which cluster is meant is not clear",
        field="cluster",
        hint=f"one of: {', '.join(names) or '(none configured)'}",
    )
