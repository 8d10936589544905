"""CSI volumes: list, get, create, register, deregister, delete, detach, external list (nomad.md 2.2, 2.4).

It must not hide Nomad's traps: the storage is made before the namespace is checked, DeleteVolume is sent before
the in-use check, secrets never leave.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from aiohttp import web

from tests.support.nomad import acl, blocking, claims, controller_calls, plugins
from tests.support.nomad.answers import (
    Refusal,
    answer,
    check_strings,
    empty,
    flag,
    invalid_method,
    multierror,
    no_such_path,
    per_page,
    read_headers,
    read_json,
    secrets_header,
)
from tests.support.nomad.drivers import VolumeAsk, VolumeMade
from tests.support.nomad.state import Row, Volume

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad
    from tests.support.nomad.plugins import Plugin

TABLES = ("csi_volumes",)
_STRING_KEYS = ("ID", "Name", "PluginID", "ExternalID", "SnapshotID", "CloneID", "Namespace")


async def list_volumes(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    """GET /v1/volumes; PUT is register (nomad.md 2.2)."""
    if request.method in ("PUT", "POST"):
        return await _register(agent, request)
    if request.method != "GET":
        raise invalid_method()
    if request.query.get("type", "") != "csi":
        return answer([])
    agent.acl.require(request, acl.volume_list)
    plugin_id = request.query.get("plugin_id", "")
    # With plugin_id no watch is set, so only the time ends a blocking call (nomad-verified.md C).
    await blocking.block(request, agent.state, blocking.Watch(TABLES, wakes=not plugin_id))
    wanted = request.query.get("namespace", "default")
    prefix = request.query.get("prefix", "")
    rows = [
        claims.stub(volume, agent)
        for (namespace, volume_id), volume in sorted(agent.state.volumes.items())
        if volume_id.startswith(prefix)
        and (not plugin_id or volume.spec["PluginID"] == plugin_id)
        # With plugin_id the namespace is compared literally, so "*" finds nothing (nomad.md 2.2).
        and (namespace == wanted or (wanted == "*" and not plugin_id))
    ]
    return blocking.listing(request, agent.state, TABLES, rows, lambda r: f"{r['Namespace']}.{r['ID']}")


async def external(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    """GET /v1/volumes/external"""
    if request.method != "GET":
        raise invalid_method()
    agent.acl.require(request, acl.volume_list)
    plugin = plugins.find(agent, request.query.get("plugin_id", ""))
    if plugin is None:
        raise Refusal(500, "no such plugin")
    if not plugin.can("ListVolumes"):
        raise Refusal(500, "plugin does not support listing volumes")  # not recorded; as for snapshots
    try:
        rows, token = await controller_calls.list_volumes(
            plugin.driver, per_page(request), request.query.get("next_token", "")
        )
    except controller_calls.CallError as error:
        raise Refusal(500, f"controller list volumes: {error}") from error
    external_rows = [
        {"CapacityBytes": v.capacity_bytes, "CloneID": v.clone_id, "ExternalID": v.id, "IsAbnormal": False,
         "PublishedExternalNodeIDs": [""], "SnapshotID": v.snapshot_id, "Status": "", "VolumeContext": None}
        for v in rows
    ]  # fmt: skip
    body = {"Index": 0, "KnownLeader": False, "LastContact": 0, "NextToken": token, "Volumes": external_rows}
    return answer(body, read_headers(0, leader=False))


async def one_volume(agent: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """/v1/volume/csi/:id and the verbs below it."""
    kind, _, tail = rest.partition("/")
    if kind != "csi":
        return no_such_path()
    if not tail:
        raise Refusal(500, "missing volume ID")
    parts = tail.split("/")
    if len(parts) > 2:
        raise Refusal(404, "resource not found")
    verb = parts[1] if len(parts) == 2 else ""
    method = request.method
    if method == "GET" and not verb:
        return await _get(agent, request, parts[0])
    if method == "PUT":
        if verb == "create":
            return await _create(agent, request)
        if verb:
            raise Refusal(404, "resource not found")
        return await _register(agent, request)
    if method == "DELETE":
        handlers = {"": _deregister, "delete": _delete, "detach": _detach}
        if verb in handlers:
            return await handlers[verb](agent, request, parts[0])
    raise invalid_method()


async def _get(agent: FakeNomad, request: web.Request, volume_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.volume_read)
    await blocking.block(request, agent.state, blocking.Watch(TABLES))
    headers = read_headers(agent.state.table_index(TABLES))
    volume = agent.state.volumes.get((request.query.get("namespace", "default"), volume_id))
    if volume is None:
        raise Refusal(404, "volume not found", headers)
    return answer(claims.full(volume, agent), headers)


async def _definitions(request: web.Request) -> list[Row]:
    body = await read_json(request)
    items = body.get("Volumes") or []
    check_strings(items, "CSIVolume", "Volumes", _STRING_KEYS)
    if not items:
        raise Refusal(500, "missing volume definition")
    return [
        {**item, "Namespace": item.get("Namespace") or request.query.get("namespace", "default")} for item in items
    ]


def _validate(item: Row) -> None:
    problems = []
    if not item.get("ID"):
        problems.append("missing volume id")
    elif not item.get("PluginID"):
        problems.append("missing plugin id")
    if not item.get("RequestedCapabilities"):
        problems.append("must include at least one capability block")
    if item.get("SnapshotID") and item.get("CloneID"):
        problems.append("only one of snapshot_id and clone_id is allowed")
    if problems:
        raise Refusal(500, f"validation: {', '.join(problems)}")


def _ask(item: Row, secrets: Row) -> VolumeAsk:
    return VolumeAsk(
        name=item.get("Name", ""), minimum_bytes=item.get("RequestedCapacityMin") or 0,
        maximum_bytes=item.get("RequestedCapacityMax") or 0, capabilities=item.get("RequestedCapabilities") or [],
        snapshot_id=item.get("SnapshotID", ""), clone_id=item.get("CloneID", ""),
        parameters=item.get("Parameters") or {}, secrets=secrets, context=item.get("Context") or {},
        topologies=item.get("RequestedTopologies"),
    )  # fmt: skip


def _volume_of(item: Row, plugin: Plugin) -> Volume:
    """The stored form of a definition."""
    options = item.get("MountOptions") or {}
    spec: Row = {
        "Capacity": 0, "CloneID": item.get("CloneID", ""), "Context": dict(item.get("Context") or {}),
        "CreateIndex": 0, "CreateTime": 0, "ExternalID": item.get("ExternalID", ""), "ID": item["ID"],
        "ModifyIndex": 0, "ModifyTime": 0, "Name": item.get("Name", ""), "Namespace": item["Namespace"],
        "FSType": options.get("FSType", ""), "Parameters": dict(item.get("Parameters") or {}),
        "PluginID": item["PluginID"], "Provider": plugin.facts.name, "ProviderVersion": plugin.facts.version,
        "RequestedCapabilities": copy.deepcopy(item.get("RequestedCapabilities") or []),
        "RequestedCapacityMax": item.get("RequestedCapacityMax") or 0,
        "RequestedCapacityMin": item.get("RequestedCapacityMin") or 0,
        "RequestedTopologies": copy.deepcopy(item.get("RequestedTopologies")),
        "SnapshotID": item.get("SnapshotID", ""), "Topologies": [],
    }  # fmt: skip
    return Volume(spec, dict(item.get("Secrets") or {}), options.get("MountFlags"))


def _reconcile(volume: Volume, item: Row) -> None:
    """Nomad's merge of a new definition into a registered volume (nomad.md 1.5). Raises Refusal's text."""
    spec = volume.spec
    problems = []
    words = (("Name", "volume name"), ("ExternalID", "volume external ID"), ("PluginID", "volume plugin ID"),
             ("CloneID", "volume clone ID"), ("SnapshotID", "volume snapshot ID"))  # fmt: skip
    for key, word in words:
        given = item.get(key) or ""
        # A new definition may leave the external id out, a create never has one.
        if given != spec[key] and not (key == "ExternalID" and not given):
            if key in ("SnapshotID", "CloneID") and not given:
                continue
            problems.append(f"{word} cannot be updated")
    given = item.get("MountOptions")
    options = given or {}
    flags, kind = options.get("MountFlags"), options.get("FSType", "")
    same = given is not None and kind == spec["FSType"] and (flags or None) == (volume.mount_flags or None)
    if volume.in_use and not same:
        problems.append("can not update mount options while volume is in use")
    if problems:
        raise controller_calls.CallError(multierror(*problems))
    if not volume.in_use:
        spec["FSType"], volume.mount_flags = kind, flags
    if item.get("Secrets"):
        volume.secrets = dict(item["Secrets"])
    if item.get("Context"):
        spec["Context"] = dict(item["Context"])
    # not recorded: a larger capacity would expand the volume (nomad.md 1.5); the fake keeps the request only
    spec["RequestedCapacityMin"] = item.get("RequestedCapacityMin") or spec["RequestedCapacityMin"]
    spec["RequestedCapacityMax"] = item.get("RequestedCapacityMax") or spec["RequestedCapacityMax"]


def _store(agent: FakeNomad, volume: Volume) -> int:
    """Write a new or merged volume and tell the stream."""
    index = agent.state.commit(*TABLES)
    volume.spec["CreateIndex"] = volume.spec["CreateIndex"] or index
    volume.spec["ModifyIndex"] = index
    agent.state.volumes[volume.key] = volume
    agent.events.publish(
        index, "CSIVolumeRegistered", [claims.changed(volume, agent, unfolded=volume.spec["CreateIndex"] == index)]
    )
    return index


async def _create(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    agent.acl.require(request, acl.volume_write_with_plugin)
    items = await _definitions(request)
    for item in items:
        _validate(item)
        if plugins.find(agent, item["PluginID"]) is None:
            raise Refusal(500, f"no CSI plugin named: {item['PluginID']} could be found")
    rows = []
    index = agent.state.index
    for item in items:
        row, index = await _create_one(agent, item)
        rows.append(row)
    return _written(rows, index)


async def _create_one(agent: FakeNomad, item: Row) -> tuple[Row, int]:
    plugin = plugins.find(agent, item["PluginID"])
    assert plugin is not None
    known = agent.state.volumes.get((item["Namespace"], item["ID"]))
    try:
        if known is not None:
            before = claims.full(known, agent, stubs=False)
            _reconcile(known, item)
            return before, _store(agent, known)
        if not plugin.can("CreateDelete"):
            # not recorded; nomad.md 2.4 (create needs CREATE_DELETE_VOLUME)
            raise controller_calls.CallError("plugin does not support creating volumes")
        try:
            made = await agent.capped(
                controller_calls.create_volume(plugin.driver, _ask(item, item.get("Secrets") or {})),
                "ControllerCreateVolume",
            )
        except controller_calls.CallError as error:
            raise controller_calls.CallError(f"controller create volume: {error}") from error
        if item["Namespace"] not in agent.state.namespaces:
            # The storage exists by now and is leaked (nomad-verified.md A.7).
            raise controller_calls.CallError(f"volume {item['ID']} is in nonexistent namespace {item['Namespace']}")
    except controller_calls.CallError as error:
        raise Refusal(500, multierror(str(error))) from error
    volume = _volume_of(item, plugin)
    _fold(volume, made)
    answer_row = claims.bare(volume)
    return answer_row, _store(agent, volume)


def _fold(volume: Volume, made: VolumeMade) -> None:
    volume.spec.update(ExternalID=made.id, Capacity=made.capacity_bytes, Context=dict(made.context))
    if made.segments:
        # N null entries come before the N real ones (nomad.md 1.4, a bug of Nomad's client).
        volume.spec["Topologies"] = [None] * len(made.segments) + [{"Segments": dict(s)} for s in made.segments]


async def _register(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    agent.acl.require(request, acl.volume_write_with_plugin)
    items = await _definitions(request)
    rows = []
    index = agent.state.index
    for item in items:
        _validate(item)
        row, index = await _register_one(agent, item)
        rows.append(row)
    return _written(rows, index)


async def _register_one(agent: FakeNomad, item: Row) -> tuple[Row, int]:
    plugin = plugins.find(agent, item["PluginID"])
    if plugin is None:
        raise Refusal(500, f"no CSI plugin named: {item['PluginID']} could be found")
    known = agent.state.volumes.get((item["Namespace"], item["ID"]))
    if known is not None:
        try:
            _reconcile(known, item)
        except controller_calls.CallError as error:
            raise Refusal(500, f"unable to update volume: {error}") from error
        await _check_with_driver(agent, plugin, known.spec["ExternalID"], item, known.secrets)
        index = _store(agent, known)
        return claims.full(known, agent, stubs=False), index
    external_id = item.get("ExternalID") or item["ID"]
    await _check_with_driver(agent, plugin, external_id, item, item.get("Secrets") or {})
    if item["Namespace"] not in agent.state.namespaces:
        # not recorded for register; the text of create
        raise Refusal(500, f"volume {item['ID']} is in nonexistent namespace {item['Namespace']}")
    volume = _volume_of(item, plugin)
    required = (item.get("RequestedTopologies") or {}).get("Required")
    volume.spec["Topologies"] = copy.deepcopy(required) if required else []
    answer_row = claims.bare(volume)
    index = _store(agent, volume)
    agent.scheduler.unblock(volume.key)
    return answer_row, index


async def _check_with_driver(agent: FakeNomad, plugin: Plugin, external_id: str, item: Row, secrets: Row) -> None:
    if not (plugin.facts.has_controller and plugin.healthy):
        return  # not recorded; nomad.md 2.2 says nothing of a register without a controller
    try:
        await agent.capped(
            controller_calls.validate_volume(plugin.driver, external_id, _ask(item, secrets)),
            "ControllerValidateVolume",
        )
    except controller_calls.CallError as error:
        raise Refusal(500, f"controller validate volume: {error}") from error


def _written(rows: list[Row], index: int) -> web.Response:
    body = {"Index": index, "KnownLeader": True, "LastContact": 0, "NextToken": "", "Volumes": rows, "Warnings": ""}
    return answer(body, read_headers(index))


async def _deregister(agent: FakeNomad, request: web.Request, volume_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.volume_write)
    key = (request.query.get("namespace", "default"), volume_id)
    volume = agent.state.volumes.get(key)
    if volume is None:
        raise Refusal(500, f"volume not found: {volume_id}")
    if volume.in_use and not (flag(request, "force") and claims.only_terminal(volume, agent)):
        raise Refusal(500, f"volume in use: {volume_id}")
    return empty(read_headers(forget(agent, volume)))


def forget(agent: FakeNomad, volume: Volume) -> int:
    """Drop the registration; the data stays."""
    index = agent.state.commit(*TABLES)
    del agent.state.volumes[volume.key]
    agent.events.publish(index, "CSIVolumeDeregistered", [claims.changed(volume, agent, unfolded=True)])
    return index


async def _delete(agent: FakeNomad, request: web.Request, volume_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.volume_write_with_plugin)
    volume = agent.state.volumes.get((request.query.get("namespace", "default"), volume_id))
    if volume is None:
        raise Refusal(500, f"volume not found: {volume_id}")
    plugin = plugins.find(agent, volume.spec["PluginID"])
    if plugin is None or not plugin.healthy:
        # not recorded; nomad.md 2.4 (delete needs the plugin's controller)
        raise Refusal(500, f"plugin {volume.spec['PluginID']} not found")
    secrets = {**volume.secrets, **secrets_header(request)}
    try:
        async with plugin.serialised():
            # The driver is asked before Nomad looks at the claims (nomad-verified.md A.6).
            await agent.capped(
                controller_calls.delete_volume(plugin.driver, volume.spec["ExternalID"], secrets),
                "ControllerDeleteVolume",
            )
    except controller_calls.CallError as error:
        raise Refusal(500, f"controller delete volume: {error}") from error
    if volume.in_use:
        raise Refusal(500, f"volume in use: {volume_id}")
    return empty(read_headers(forget(agent, volume)))


async def _detach(agent: FakeNomad, request: web.Request, volume_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.both(acl.namespace("csi-mount-volume"), acl.plugin_read))
    if not request.query.get("node"):
        raise Refusal(400, "detach requires node ID")
    raise Refusal(500, "Unknown allocation")  # every detach that was tried said so (volumes.json)
