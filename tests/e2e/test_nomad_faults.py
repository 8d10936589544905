"""What a cluster does to a snapshot under way: a call that times out, a lost leader, an agent that restarts, a plugin
that moves to another node. Whatever answers are lost: one snapshot, ready once, and none after its delete.

On the fake agent, as a real one does none of this when it is told to. The service and the node agents are processes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.nomad.client import Client
from tests.contract.nomad.world import PLUGIN, World, eventually, world
from tests.e2e.test_nomad import cli, snapshots_left
from tests.integration.nomad.conftest import make_volume
from tests.integration.nomad.doubles import quick
from tests.support import node_pki, serve
from tests.support.bed import paths, ports, process
from tests.support.faultproxy import FaultProxy, faults
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver, SnapshotMade
from tests.support.nomad.settings import Settings as FakeSettings

LONG = 60.0
SNAPSHOTS = "/v1/volumes/snapshot"


class Holding(HostPathDriver):
    """Holds every CreateSnapshot until `go`: `before` the cut, `after` it, before one that goes on without its caller
    (`late`), or not at all."""

    def __init__(self, step: str = "") -> None:
        super().__init__()
        self.step = step
        self.held = asyncio.Event()
        self.go = asyncio.Event()
        self.cuts: set[asyncio.Task[SnapshotMade]] = set()

    async def create_snapshot(
        self, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
    ) -> SnapshotMade:
        if self.step == "late":
            cut = asyncio.create_task(self._late(source_id, name), name=f"cut {name}")
            self.cuts.add(cut)
            return await asyncio.shield(cut)
        if self.step == "before":
            await self._hold()
        made = await super().create_snapshot(source_id, name, secrets, parameters)
        if self.step == "after":
            await self._hold()
        return made

    async def _hold(self) -> None:
        self.held.set()
        await self.go.wait()

    async def _late(self, source_id: str, name: str) -> SnapshotMade:
        await self._hold()
        return await super().create_snapshot(source_id, name, {}, {})

    def names(self) -> list[str]:
        """The names that CreateSnapshot was called with, in order."""
        return [str(call["name"]) for verb, call in self.calls if verb == "CreateSnapshot"]


@dataclass(frozen=True, slots=True)
class Place:
    """The agent, the driver behind it, and the service that reaches it through Nomad's API. One volume: `data`."""

    agent: FakeNomad
    driver: Holding
    service: serve.Serve

    def answered(self, method: str, status: int) -> int:
        """How many snapshot calls of this method ended so; 0 is a cut connection."""
        found = [call for call in self.agent.calls if call.path == SNAPSHOTS and call.method == method]
        return sum(call.status == status for call in found)

    async def ready_once(self) -> dict[str, Any]:
        """It becomes ready; every call had one name, and the driver holds that one snapshot."""
        row = await ready(self.service)
        assert len(set(self.driver.names())) == 1
        assert list(self.driver.snapshots) == [row["handle"]]
        return row

    async def delete(self, row: dict[str, Any]) -> None:
        """It ends, and nothing is left."""
        await cli(self.service, "snapshot", "delete", row["uid"], "--yes", "--wait")
        assert await listed(self.service) == []
        assert self.driver.snapshots == {}


async def listed(service: serve.Serve) -> list[dict[str, Any]]:
    found = await asyncio.to_thread(service.get, "/v1/snapshots")
    rows: list[dict[str, Any]] = found["items"]
    return rows


async def ready(service: serve.Serve) -> dict[str, Any]:
    """The only snapshot there is, once it is ready."""
    last: list[dict[str, Any]] = []

    async def told() -> bool:
        last[:] = await listed(service)
        return len(last) == 1 and bool(last[0]["ready"])

    try:
        await eventually(told, "one snapshot, and it is ready", LONG)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None
    return last[0]


async def until(test: Callable[[], object], what: str) -> None:
    async def so() -> bool:
        return bool(test())

    await eventually(so, what, LONG)


async def healthy_controllers(service: serve.Serve) -> list[str]:
    """The nodes of the controllers that answer; empty text where there is none, as through the API."""
    rows = (await asyncio.to_thread(service.get, "/v1/plugins"))["items"]
    return [row["node"] for row in rows if row["healthy"] and row["role"] == "controller"]


async def plugin_healthy(service: serve.Serve, node: str = "") -> None:
    async def healthy() -> bool:
        return node in await healthy_controllers(service)

    await eventually(healthy, f"a healthy controller {node}", LONG)


@asynccontextmanager
async def through_api(driver: Holding, settings: FakeSettings | None = None) -> AsyncIterator[Place]:
    async with FakeNomad(settings=settings) as agent:
        await agent.add_plugin("hostpath", driver)
        client = Client(quick(agent.url, request_timeout_seconds=60))
        await make_volume(client, "data")
        await client.close()
        cluster = {"name": "east", "kind": "nomad", "address": agent.url, "plugin_seconds": 0.2, "route": "api"}
        service = serve.service(clusters=[cluster], plugins=[])
        await asyncio.to_thread(service.start)
        try:
            await plugin_healthy(service)
            yield Place(agent, driver, service)
        finally:
            await asyncio.to_thread(service.process.stop)


async def timed_out(place: Place, name: str) -> None:
    """Ask for a snapshot whose call runs into the agent's limit, and wait until the record tells of it."""
    place.driver.go.clear()
    place.driver.calls.clear()
    place.agent.calls.clear()
    await cli(place.service, "snapshot", "create", "data", name)

    async def told() -> bool:
        return any("DeadlineExceeded" in str(row) for row in await listed(place.service))

    await eventually(told, "the record tells of the deadline", LONG)
    assert place.answered("PUT", 500) >= 1
    assert [row["ready"] for row in await listed(place.service)] == [False]
    assert len(place.driver.snapshots) == (place.driver.step == "after")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", ["after", "late"])
async def test_a_call_that_times_out_although_it_cuts_makes_one_snapshot(step: str) -> None:
    """Nomad's 2 minutes, here one second: 500 DeadlineExceeded, and the cut is there before or comes after it."""
    driver = Holding(step)
    async with through_api(driver, FakeSettings(controller_cap_seconds=1.0)) as place:
        await timed_out(place, "kept")
        driver.go.set()
        await asyncio.gather(*driver.cuts)
        row = await place.ready_once()
        assert len(driver.names()) >= 2
        await place.delete(row)

        await timed_out(place, "unwanted")
        (row,) = await listed(place.service)
        status, answer = await asyncio.to_thread(place.service.request, "DELETE", f"/v1/snapshots/{row['uid']}")
        assert status in (200, 202), answer
        assert len(await listed(place.service)) == 1, "not told gone while a cut may be on its way"
        driver.go.set()
        await asyncio.gather(*driver.cuts)

        async def over() -> bool:
            return await listed(place.service) == []

        await eventually(over, "the snapshot that nobody was told of is deleted too", LONG)
        assert len(set(driver.names())) == 1
        assert driver.snapshots == {}


async def test_a_leader_lost_during_the_calls_loses_and_doubles_nothing() -> None:
    """Create and delete have both been done when the error is told; then there is no leader for a while."""
    driver = Holding()
    async with through_api(driver) as place:
        for text in ("No cluster leader", "rpc error: EOF"):
            driver.calls.clear()
            place.agent.calls.clear()
            place.agent.lose_leader_after("PUT", SNAPSHOTS, text)
            place.agent.fail_next("PUT", SNAPSHOTS, text="No cluster leader")
            await cli(place.service, "snapshot", "create", "data", "one")
            row = await place.ready_once()
            assert place.answered("PUT", 500) == 2
            assert len(driver.names()) == 2
            place.agent.lose_leader_after("DELETE", SNAPSHOTS, text)
            await place.delete(row)
            assert place.answered("DELETE", 500) == 1


@pytest.mark.parametrize("step", ["before", "after"])
async def test_an_agent_that_restarts_during_the_call_gets_it_again(step: str) -> None:
    driver = Holding(step)
    async with through_api(driver) as place:
        await cli(place.service, "snapshot", "create", "data", "one")
        await asyncio.wait_for(driver.held.wait(), LONG)
        await place.agent.stop()
        driver.go.set()

        async def told() -> bool:
            (row,) = await listed(place.service)
            assert not row["ready"]
            return any(word in str(row) for word in ("UNAVAILABLE", "PLUGIN_UNHEALTHY"))

        await eventually(told, "the record tells that the agent is away", LONG)
        assert not any(row["ready"] for row in await listed(place.service))
        assert len(driver.snapshots) == (step == "after")
        await place.agent.start()
        await place.delete(await place.ready_once())


@dataclass(slots=True)
class Nodes:
    """Two nodes of one cluster: each has a node agent with a state_dir of its own."""

    world: World
    service: serve.Serve
    state: dict[str, Path]

    def socket(self, node: str, allocation: str) -> Path:
        folder = self.state[node] / "csi" / "plugins" / allocation
        folder.mkdir(parents=True)
        return folder / "csi.sock"

    def upstream(self, allocation: str) -> Path:
        return Path(self.world.state_dir) / "csi" / "plugins" / allocation / "csi.sock"

    async def allocation(self, but: str = "") -> str:
        """The allocation that holds the plugin's controller, once it is another one than `but`."""
        found: list[str] = []

        async def there() -> bool:
            plugin = (await self.world.client.get(f"/v1/plugin/csi/{PLUGIN}")).data
            found[:] = [row["AllocID"] for row in plugin["Controllers"].values() if row["AllocID"] != but]
            return bool(found)

        await eventually(there, "an allocation holds the plugin", LONG)
        return found[0]

    async def gone(self, node: str) -> None:
        """Wait until no controller of this node answers."""

        async def away() -> bool:
            return node not in await healthy_controllers(self.service)

        await eventually(away, f"the plugin has left the {node} node", LONG)

    async def move(self, old: str) -> None:
        """The plugin's next allocation is on the second node: its socket appears there."""
        await self.world.client.call("PUT", f"/v1/allocation/{old}/stop")
        new = await self.allocation(but=old)
        self.socket("second", new).symlink_to(self.upstream(new))
        await plugin_healthy(self.service, "second")


@asynccontextmanager
async def two_nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    authority, port = node_pki.Authority(tmp_path), ports.free()
    certificate, key = authority.issue("hub", loopback=True)
    hub = {"port": port, "tls_cert_file": str(certificate), "tls_key_file": str(key),
           "client_ca_file": str(authority.path)}  # fmt: skip
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(FakeNomad())
        own = world("fake", agent.url, state_dir=str(agent.state_dir), alloc_dir=agent.data_dir / "alloc",
                    store=paths.fresh("store"))  # fmt: skip
        found = await stack.enter_async_context(own)
        cluster = {"name": "east", "kind": "nomad", "address": agent.url, "plugin_seconds": 0.2, "route": "node"}
        service = serve.service(clusters=[cluster], plugins=[], hub=hub)
        await asyncio.to_thread(service.start)
        stack.push_async_callback(asyncio.to_thread, service.process.stop)
        state = {name: paths.fresh("n") for name in ("first", "second")}
        for name, folder in state.items():
            runs = _node(authority, name, port, {"address": agent.url, "state_dir": str(folder)})
            await asyncio.to_thread(runs.start)
            stack.push_async_callback(asyncio.to_thread, runs.stop)
        yield Nodes(found, service, state)


def _node(authority: node_pki.Authority, name: str, port: int, find: dict[str, Any]) -> process.Process:
    certificate, key = authority.issue(name)
    section = {"name": name, "hub": f"127.0.0.1:{port}", "tls_cert_file": str(certificate), "tls_key_file": str(key),
               "hub_ca_file": str(authority.path)}  # fmt: skip
    folder = paths.fresh("agent")
    config = folder / "node.yaml"
    config.write_text(yaml.safe_dump({"node": section, "nomad": {**find, "plugin_seconds": 0.2}}))
    argv = [sys.executable, "-m", "bridge", "node", "-c", str(config)]
    return process.Process(process.Launch(name=f"node {name}", argv=argv, log=folder / "log", ready=lambda: True))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("when", ["before the cut", "after the cut"])
async def test_a_plugin_that_moves_to_another_node_takes_the_snapshot_along(when: str, tmp_path: Path) -> None:
    """The first node's plugin goes away with a call that it has not begun, or has done and not answered."""
    async with two_nodes(tmp_path) as nodes:
        await nodes.world.volume("data")
        old = await nodes.allocation()
        async with FaultProxy(nodes.upstream(old), nodes.socket("first", old)) as proxy:
            await plugin_healthy(nodes.service, "first")
            proxy.script("CreateSnapshot", faults.hang(), after_effect=when == "after the cut", times=None)
            await cli(nodes.service, "snapshot", "create", "data", "one")
            await until(lambda: proxy.called("CreateSnapshot"), "the first node's plugin is called")
            if when == "after the cut":
                await until(lambda: list((nodes.world.store / "snapshots").iterdir()), "it has cut")
        await nodes.gone("first")
        assert len(await snapshots_left(nodes.world)) == (when == "after the cut")
        (row,) = await listed(nodes.service)
        assert not row["ready"], row
        await nodes.move(old)
        row = await ready(nodes.service)
        assert await snapshots_left(nodes.world) == [row["handle"]]
        await cli(nodes.service, "snapshot", "delete", row["uid"], "--yes", "--wait")
        assert await listed(nodes.service) == []
        assert await snapshots_left(nodes.world) == []

        async def only_second() -> bool:
            return await healthy_controllers(nodes.service) == ["second"]

        await eventually(only_second, "the second node's plugin is the only one", LONG)
