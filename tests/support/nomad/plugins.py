"""CSI plugins: what Nomad's fingerprint knows of them, the per-plugin lock, and the two plugin endpoints.

It must not call a driver but for its facts; snapshots.py and volumes.py do, through `serialised`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.nomad import acl, allocations, blocking
from tests.support.nomad.answers import Refusal, answer, invalid_method, no_such_path, read_headers
from tests.support.nomad.drivers import Driver, DriverFacts
from tests.support.nomad.events import Event, event
from tests.support.nomad.state import Row, now_ns, stamp

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

CONTROLLER_FLAGS = (
    "AttachDetach", "Clone", "Condition", "CreateDelete", "CreateDeleteSnapshot", "Expand", "Get", "GetCapacity",
    "ListSnapshots", "ListVolumes", "ListVolumesAttachedNodes", "ReadOnlyAttach",
)  # fmt: skip


@dataclass(slots=True)
class Plugin:
    """One plugin id: where its driver is and how the agent sees its health."""

    id: str
    driver: Driver
    facts: DriverFacts
    job_id: str
    namespace: str
    allocation_id: str
    create_index: int
    modify_index: int
    healthy: bool = True
    create_time: int = field(default_factory=now_ns)
    healthy_since: str = field(default_factory=stamp)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def can(self, capability: str) -> bool:
        """Whether a healthy controller says so; one that is down says nothing (nomad-verified.md A.5)."""
        return self.healthy and capability in self.facts.controller

    @asynccontextmanager
    async def serialised(self) -> AsyncIterator[None]:
        """One controller call in flight per plugin (nomad.md 1.6)."""
        async with self.lock:
            yield

    def stub(self) -> Row:
        healthy = int(self.healthy)
        return {
            "ControllerRequired": self.facts.has_controller, "ControllersExpected": int(self.facts.has_controller),
            "ControllersHealthy": healthy * int(self.facts.has_controller), "CreateIndex": self.create_index,
            "ID": self.id, "ModifyIndex": self.modify_index, "NodesExpected": 1, "NodesHealthy": healthy,
            "Provider": self.facts.name,
        }  # fmt: skip

    def full(self, node_id: str, stubs: list[Row] | None) -> Row:
        jobs = {self.namespace: {self.job_id: {"Expected": 1, "ID": self.job_id, "Namespace": self.namespace}}}
        return {
            **self.stub(),
            "Allocations": stubs,
            "ControllerJobs": jobs if self.facts.has_controller else {},
            "Controllers": {node_id: self._info("ControllerInfo", self._controller_info())}
            if self.healthy and self.facts.has_controller
            else {},
            "CreateTime": self.create_time,
            "ModifyTime": self.create_time,
            "NodeJobs": jobs,
            "Nodes": {node_id: self._info("NodeInfo", self._node_info())} if self.healthy else {},
            "Version": self.facts.version,
        }

    def _info(self, key: str, value: Row) -> Row:
        return {
            "AllocID": self.allocation_id, key: value, "HealthDescription": "healthy", "Healthy": True,
            "PluginID": self.id, "Provider": self.facts.name, "ProviderVersion": self.facts.version,
            "RequiresControllerPlugin": self.facts.has_controller,
            "RequiresTopologies": self.facts.segments is not None, "UpdateTime": self.healthy_since,
        }  # fmt: skip

    def _controller_info(self) -> Row:
        return {f"Supports{name}": name in self.facts.controller for name in CONTROLLER_FLAGS}

    def _node_info(self) -> Row:
        segments = self.facts.segments
        return {
            "AccessibleTopology": {"Segments": dict(segments)} if segments is not None else None,
            "ID": self.facts.node_id, "MaxVolumes": self.facts.maximum_volumes,
            "RequiresNodeStageVolume": "Stage" in self.facts.node,
            "SupportsCondition": "Condition" in self.facts.node,
            "SupportsExpand": "Expand" in self.facts.node, "SupportsStats": "Stats" in self.facts.node,
        }  # fmt: skip


def changed(plugin: Plugin, agent: FakeNomad) -> Event:
    """The event of a plugin; its Type is that of the write that caused it."""
    return event("CSIPlugin", plugin.id, "", {"Plugin": plugin.full(agent.state.node_id, None)}, [plugin.id])


def set_health(agent: FakeNomad, plugin: Plugin, healthy: bool) -> None:
    """Fold a fingerprint's result in. Every plugin of the node is named by the event (nomad-verified.md E)."""
    index = agent.state.commit("csi_plugins", "nodes")
    if healthy and not plugin.healthy:
        plugin.healthy_since = stamp()
    plugin.healthy = healthy
    plugin.modify_index = index
    events = [changed(each, agent) for each in agent.state.plugins.values()]
    agent.events.publish(index, "NodeRegistration", events)


async def list_plugins(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    """GET /v1/plugins"""
    if request.method != "GET":
        raise invalid_method()
    kind = request.query.get("type", "")
    if not kind:
        return answer([])
    if kind != "csi":
        return answer(None)
    agent.acl.require(request, acl.plugin_list)
    await blocking.block(request, agent.state, blocking.Watch(("csi_plugins",)))
    prefix = request.query.get("prefix", "")
    rows = [p.stub() for key, p in sorted(agent.state.plugins.items()) if key.startswith(prefix)]
    return blocking.listing(request, agent.state, ("csi_plugins",), rows, lambda row: str(row["ID"]))


async def one_plugin(agent: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """GET /v1/plugin/csi/:id"""
    kind, _, plugin_id = rest.partition("/")
    if kind != "csi":
        return no_such_path()
    if request.method != "GET":
        raise invalid_method()
    agent.acl.require(request, acl.plugin_read)
    await blocking.block(request, agent.state, blocking.Watch(("csi_plugins",)))
    headers = read_headers(agent.state.table_index(("csi_plugins",)))
    plugin: Plugin | None = agent.state.plugins.get(plugin_id)
    if plugin is None:
        raise Refusal(404, "plugin not found", read_headers(0))
    stubs = None
    holder = agent.state.allocations.get(plugin.allocation_id)
    if plugin.healthy and holder is not None and agent.acl.allows(request, acl.namespace("read-job")):
        stubs = [allocations.stub(holder, agent.state)]
    return answer(plugin.full(agent.state.node_id, stubs), headers)


def find(agent: FakeNomad, plugin_id: str) -> Plugin | None:
    plugin: Any = agent.state.plugins.get(plugin_id)
    return plugin if isinstance(plugin, Plugin) else None
