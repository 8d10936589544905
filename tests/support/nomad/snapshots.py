"""`/v1/volumes/snapshot`: create, list, delete; Nomad keeps nothing of them (nomad.md 2.3).

It must not store a snapshot, complete an empty field, or keep a part of a request that failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from tests.support.nomad import acl, controller_calls, plugins
from tests.support.nomad.answers import (
    Refusal,
    answer,
    check_strings,
    empty,
    invalid_method,
    multierror,
    per_page,
    read_headers,
    read_json,
    secrets_header,
)
from tests.support.nomad.drivers import SnapshotMade
from tests.support.nomad.state import Row

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad


async def serve(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    if request.method in ("PUT", "POST"):
        return await _create(agent, request)
    if request.method == "DELETE":
        return await _delete(agent, request)
    if request.method == "GET":
        return await _list(agent, request)
    raise invalid_method()


def _row(made: SnapshotMade, plugin_id: str = "") -> Row:
    return {
        "CreateTime": made.created_seconds, "ExternalSourceVolumeID": made.source_id, "ID": made.id,
        "IsReady": made.ready, "Name": "", "Parameters": None, "PluginID": plugin_id, "Secrets": None,
        "SizeBytes": made.size_bytes, "SourceVolumeID": "",
    }  # fmt: skip


def _body(rows: list[Row] | None, token: str = "") -> web.Response:
    body = {"Index": 0, "KnownLeader": False, "LastContact": 0, "NextToken": token, "Snapshots": rows}
    return answer(body, read_headers(0, leader=False))


async def _create(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    body = await read_json(request)
    items = body.get("Snapshots") or []
    check_strings(items, "CSISnapshot", "Snapshots", ("ID", "Name", "SourceVolumeID", "PluginID"))
    agent.acl.require(request, acl.volume_write_with_plugin)
    rows: list[Row] = []
    problems = []
    for item in items:
        # One by one; the ones that went well are lost with the answer if one fails (nomad-verified.md B).
        try:
            rows.append(_row(await _create_one(agent, request, item)))
        except controller_calls.CallError as error:
            problems.append(str(error))
    if problems:
        raise Refusal(500, multierror(*problems))
    return _body(rows or None)


async def _create_one(agent: FakeNomad, request: web.Request, item: Row) -> SnapshotMade:
    source = item.get("SourceVolumeID", "")
    volume = agent.state.volumes.get((request.query.get("namespace", "default"), source))
    if volume is None:
        raise controller_calls.CallError(f'no such volume "{source}"')
    plugin_id = item.get("PluginID") or volume.spec["PluginID"]
    plugin = plugins.find(agent, plugin_id)
    if plugin is None:
        raise controller_calls.CallError(f'no such plugin "{plugin_id}"')
    if not plugin.can("CreateDeleteSnapshot"):
        raise controller_calls.CallError(f'plugin "{plugin_id}" does not support snapshot')
    secrets = {**volume.secrets, **(item.get("Secrets") or {})}
    name, parameters = item.get("Name", ""), item.get("Parameters") or {}
    try:
        async with plugin.serialised():
            call = controller_calls.create_snapshot(
                plugin.driver, volume.spec["ExternalID"], name, secrets, parameters
            )
            return await agent.capped(call, "ControllerCreateSnapshot")
    except controller_calls.CallError as error:
        raise controller_calls.CallError(f"could not create snapshot: controller create snapshot: {error}") from error


async def _delete(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    agent.acl.require(request, acl.volume_write_with_plugin)
    snapshot_id = request.query.get("snapshot_id", "")
    plugin = plugins.find(agent, request.query.get("plugin_id", ""))
    if plugin is None:
        raise Refusal(500, multierror("no such plugin"))
    if not plugin.can("CreateDeleteSnapshot"):
        # not recorded for delete; the text of list and create (nomad-verified.md A.5)
        raise Refusal(500, multierror("plugin does not support snapshot"))
    try:
        async with plugin.serialised():
            call = controller_calls.delete_snapshot(plugin.driver, snapshot_id, secrets_header(request))
            await agent.capped(call, "ControllerDeleteSnapshot")
    except controller_calls.CallError as error:
        raise Refusal(
            500, multierror(f'could not delete "{snapshot_id}": controller delete snapshot: {error}')
        ) from error
    return empty(read_headers(0, leader=False))


async def _list(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    agent.acl.require(request, acl.volume_list)
    size = per_page(request)
    plugin_id = request.query.get("plugin_id", "")
    plugin = plugins.find(agent, plugin_id)
    if plugin is None:
        raise Refusal(500, "no such plugin")
    if not plugin.can("ListSnapshots"):
        raise Refusal(500, "plugin does not support listing snapshots")
    call = controller_calls.list_snapshots(
        plugin.driver, size, request.query.get("next_token", ""), secrets_header(request)
    )
    try:
        rows, token = await agent.capped(call, "ControllerListSnapshots")
    except controller_calls.CallError as error:
        raise Refusal(500, f"controller list snapshots: {error}") from error
    return _body([_row(row, plugin_id) for row in rows], token)
