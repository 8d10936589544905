"""Two clusters in one process whose plugins have one driver name and stand before storages of their own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.nomad.client import Client
from bridge.app.clock import WallClock
from bridge.csi.registry import Registry, _serves
from bridge.csi.settings import RegistrySettings
from bridge.model.plugin import Capability, InstanceId, Role, Route
from tests.contract.nomad.world import eventually
from tests.integration.nomad.conftest import make_volume
from tests.integration.nomad.doubles import quick
from tests.support import serve
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver

NAMES = ("east", "west")


async def test_each_clusters_snapshots_are_cut_and_deleted_on_its_own_storage() -> None:
    """The other one's plugin does not know the volume, and would take the delete of its snapshot for done."""
    async with FakeNomad() as one, FakeNomad() as two:
        drivers = {"east": HostPathDriver(), "west": HostPathDriver()}
        for name, agent in zip(NAMES, (one, two), strict=True):
            await agent.add_plugin("hostpath", drivers[name])
            client = Client(quick(agent.url))
            await make_volume(client, "data")
            await client.close()
        clusters = [
            {"name": name, "kind": "nomad", "address": agent.url, "plugin_seconds": 0.1, "route": "api"}
            for name, agent in zip(NAMES, (one, two), strict=True)
        ]
        service = serve.service(clusters=clusters, plugins=[])
        await asyncio.to_thread(service.start)
        try:
            await _both(service, drivers)
        finally:
            await asyncio.to_thread(service.process.stop)


async def _both(service: serve.Serve, drivers: dict[str, HostPathDriver]) -> None:
    async def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await asyncio.to_thread(service.request, method, path, body)

    async def known() -> bool:
        _, found = await ask("GET", "/v1/plugins")
        return len([row for row in found["items"] if row["healthy"]]) == 2

    await eventually(known, "both plugins are known", 30)
    for name in NAMES:
        body = {"cluster": name, "name": f"of-{name}", "volume": "data"}
        status, made = await ask("POST", "/v1/snapshots?wait=30s", body)
        assert (status, made["operation"]["state"]) == (202, "done"), made
        assert made["snapshot"]["handle"] in drivers[name].snapshots
    for name in reversed(NAMES):
        status, operation = await ask("DELETE", f"/v1/snapshots/{name}%2Fdefault%2Fof-{name}")
        assert status == 202, operation
        query = f"wait=30s&index={operation['version']}" if operation["state"] == "running" else ""
        _, operation = await ask("GET", f"/v1/operations/{operation['id']}?{query}")
        assert operation["state"] == "done", operation
        assert drivers[name].snapshots == {}, name


@pytest.mark.parametrize(
    ("backends", "given"),
    [
        ({"east": "", "west": ""}, ["west-1"]),
        ({"east": "ceph", "west": ""}, ["west-1"]),
        ({"east": "ceph", "west": "ceph"}, ["east-1", "west-1"]),
        ({"east": "ceph", "west": "other"}, ["west-1"]),
        ({"": "", "west": "ceph"}, ["-1", "west-1"]),
        ({"": "ceph", "west": "ceph"}, ["-1", "west-1"]),
        ({"": "other", "west": "ceph"}, ["west-1"]),
        ({"": "other", "west": ""}, ["-1", "west-1"]),
    ],
)
def test_a_plugin_is_shared_where_its_backend_is_the_same(backends: dict[str, str], given: list[str]) -> None:
    own = {backends["west"]} - {""}
    members = [
        SimpleNamespace(name=f"{cluster}-1", cluster=cluster, backend=text) for cluster, text in backends.items()
    ]
    assert [one.name for one in members if _serves(cast(Any, one), "west", own)] == given
    assert all(_serves(cast(Any, one), "", set()) for one in members)


class Calls:
    """A controller that is only told apart by its name."""

    route = Route.ORCHESTRATOR

    def __init__(self, instance: str) -> None:
        self.id = InstanceId("d", Role.CONTROLLER.value, instance)


@pytest.mark.parametrize("first", NAMES)
async def test_a_cluster_is_given_its_own_plugin_or_none(first: str) -> None:
    registry = Registry(RegistrySettings(), WallClock())
    order = (first, *(name for name in NAMES if name != first))
    able = frozenset({Capability.CONTROLLER_SERVICE, Capability.CREATE_DELETE_SNAPSHOT})
    for name in order:
        calls: Any = Calls(name)
        await registry.of(name).ensure_calls(calls, able, endpoint=name)
    for name in NAMES:
        found = registry.of(name).controller("d")
        assert found is not None
        assert found.id.instance == name
    third = registry.of("north")
    assert third.controller("d") is None
    assert not third.view("d").known
    assert registry.view("d").known
    await registry.of("south").ensure_expected("south", "d", "it moves")
    assert (third.view("d").expected, registry.of("south").view("d").expected) == (False, True)
    await registry.ensure_no_instance("west")
    assert registry.of("west").controller("d") is None, "nobody else's is taken instead"
    shared: Any = Calls("shared")
    await registry.ensure_calls(shared, able, endpoint="shared")
    for name in ("west", "north"):
        found = registry.of(name).controller("d")
        assert found is not None
        assert found.id.instance == "shared"
