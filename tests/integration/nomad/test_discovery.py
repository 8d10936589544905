"""Plugins announced by socket or by API, never by both."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.nomad.client import Client
from adapters.nomad.discovery import PluginFollower
from adapters.nomad.handles import Handles
from bridge.model.failure import UnavailableError
from bridge.model.operation import OperationState
from bridge.model.plugin import Capability
from bridge.ports.identity import Caller
from bridge.ports.orchestrator import SnapshotDraft
from tests.contract.nomad.world import eventually
from tests.integration.nomad.conftest import make_volume
from tests.integration.nomad.doubles import MemorySink, quick, running, until
from tests.integration.nomad.mortal import DRIVER, standing
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver, ScriptedDriver

ADMIN = Caller("admin")


@asynccontextmanager
async def following(agent: FakeNomad, **more: object) -> AsyncIterator[tuple[PluginFollower, MemorySink]]:
    client = Client(quick(agent.url, **more))
    follower = PluginFollower("east", client, Handles(client))
    sink = MemorySink()
    try:
        async with running(follower.run(sink)):
            await until(lambda: follower.sentence == "", "the plugins are read")
            yield follower, sink
    finally:
        await client.close()


def state_dir(agent: FakeNomad) -> str:
    return str(agent.data_dir / "client")


def there(agent: FakeNomad) -> str:
    """The socket path of the plugin's present allocation."""
    return f"{state_dir(agent)}/csi/plugins/{agent.state.plugins['hostpath'].allocation_id}/csi.sock"


def never_both(sink: MemorySink) -> None:
    """At no point of the log were a socket and the API announced together."""
    live: set[str] = set()
    for what, instance in sink.log:
        live = live - {f"socket:{instance}", f"calls:{instance}"} if what == "gone" else live | {f"{what}:{instance}"}
        assert len({entry.partition(":")[0] for entry in live}) < 2, sink.log


async def test_without_a_state_dir_the_api_is_the_way(agent: FakeNomad) -> None:
    async with following(agent) as (_, sink):
        (one,) = sink.there.values()
        assert one.calls is not None
        assert one.calls.id.driver == "hostpath.csi.k8s.io"
        assert one.sentence == ""
        assert {Capability.CREATE_DELETE_SNAPSHOT, Capability.LIST_SNAPSHOTS} <= one.capabilities


async def test_a_plugin_that_goes_down_and_comes_back(agent: FakeNomad) -> None:
    async with following(agent) as (_, sink):
        name = "nomad-api:east:hostpath"
        before = sink.there[name].capabilities
        agent.set_plugin_health("hostpath", False)
        await until(lambda: "no healthy controller" in sink.there[name].sentence, "it is said to be down")
        assert sink.there[name].capabilities == before
        agent.set_plugin_health("hostpath", True)
        await until(lambda: sink.there[name].sentence == "", "it is back")


async def test_a_plugin_that_is_gone_is_withdrawn(agent: FakeNomad) -> None:
    async with following(agent) as (_, sink):
        client = Client(quick(agent.url))
        await client.call("DELETE", "/v1/job/csi-hostpath", {"purge": "true"})
        await until(lambda: sink.there == {} or any(o.sentence for o in sink.there.values()), "it is gone")
        await client.close()


async def test_the_socket_is_preferred_and_the_api_left_alone(agent: FakeNomad, scripted_socket: str) -> None:
    async with following(agent, state_dir=state_dir(agent)) as (_, sink):
        assert sink.sockets() == [there(agent)]
        assert sink.api() == []
        (one,) = sink.there.values()
        assert one.node == "vm"
        never_both(sink)


def clear(path: str) -> None:
    """Nothing at the path, and the folder there."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).unlink(missing_ok=True)


async def listen(path: str) -> asyncio.AbstractServer:
    """Something that listens at a plugin's socket path. The fake puts none there for a driver in memory."""
    clear(path)
    return await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)


@pytest.fixture
async def scripted_socket(agent: FakeNomad) -> AsyncIterator[str]:
    """The socket path of the plugin's allocation, with something that listens."""
    server = await listen(there(agent))
    yield there(agent)
    server.close()


async def test_a_socket_that_goes_gives_way_to_the_api_and_takes_over_again(
    agent: FakeNomad, scripted_socket: str
) -> None:
    async with following(agent, state_dir=state_dir(agent)) as (_, sink):
        await until(lambda: sink.sockets() == [scripted_socket], "the socket is there")
        clear(scripted_socket)
        await until(lambda: bool(sink.api()), "the API took over")
        assert sink.sockets() == []
        server = await listen(scripted_socket)
        await until(lambda: sink.sockets() == [scripted_socket], "the socket took over again")
        assert sink.api() == []
        never_both(sink)
        server.close()


async def test_a_new_allocation_is_followed(agent: FakeNomad, scripted_socket: str) -> None:
    async with following(agent, state_dir=state_dir(agent)) as (_, sink):
        await until(lambda: sink.sockets() == [scripted_socket], "the socket is there")
        old = scripted_socket
        clear(old)
        await agent.replace_plugin_allocation("hostpath")
        new = there(agent)
        assert new != old
        server = await listen(new)
        await until(lambda: sink.sockets() == [new], "the new socket is announced")
        never_both(sink)
        server.close()


async def test_route_api_ignores_the_socket(agent: FakeNomad, scripted_socket: str) -> None:
    async with following(agent, state_dir=state_dir(agent), route="api") as (_, sink):
        assert sink.sockets() == []
        assert len(sink.api()) == 1


async def test_route_socket_waits_for_the_socket(agent: FakeNomad) -> None:
    plugins = {"hostpath": {"route": "socket", "backend": "pool"}}
    async with following(agent, state_dir="/nowhere", plugins=plugins) as (_, sink):
        assert sink.there == {}


async def test_two_plugins_of_one_driver_are_not_confused(agent: FakeNomad, driver: HostPathDriver) -> None:
    await agent.add_plugin("second", HostPathDriver())
    async with following(agent) as (follower, sink):
        assert sink.there == {}
        assert "the plugins hostpath, second are all of the driver" in follower.problems()[0]
    async with following(agent, plugins={"second": {}}) as (follower, sink):
        assert list(sink.there) == ["nomad-api:east:second"]
        assert follower.problems() == []
    async with following(agent, plugins={"hostpath": {"enabled": False}}) as (follower, sink):
        assert list(sink.there) == ["nomad-api:east:second"]


async def test_a_look_that_fails_is_said_and_changes_nothing(agent: FakeNomad) -> None:
    await agent.add_plugin("slow", ScriptedDriver())
    async with following(agent) as (follower, sink):
        announced = set(sink.there)
        assert len(announced) == 2
        agent.fail_next("GET", "/v1/plugins", times=1000)
        await until(lambda: "could not list the plugins" in follower.sentence, "it is said")
        assert set(sink.there) == announced
        agent.clear_faults()
        await until(lambda: follower.sentence == "", "it is well again")


async def test_quiet_plugins_cost_one_request_per_look(agent: FakeNomad) -> None:
    async with following(agent) as (_, _sink):
        await until(lambda: len([c for c in agent.calls if c.path == "/v1/plugins"]) > 3, "some looks")
        assert len([c for c in agent.calls if c.path.startswith("/v1/plugin/")]) == 1


async def test_the_socket_waits_for_the_last_call_of_the_api(agent: FakeNomad, client: Client) -> None:
    handle = await make_volume(client, "data")
    async with following(agent, state_dir=state_dir(agent)) as (_, sink):
        await until(lambda: bool(sink.api()), "the API is announced")
        agent.delay("PUT", "/v1/volumes/snapshot", 0.5)
        call = asyncio.create_task(
            sink.api()[0].create_snapshot(name="s", volume_handle=handle, parameters={}, secrets={})
        )
        await asyncio.sleep(0.05)
        path = there(agent)
        server = await listen(path)
        await until(lambda: sink.sockets() == [path], "the socket took over")
        assert call.done()
        never_both(sink)
        server.close()


async def test_a_plugin_that_is_only_reached_by_a_node_agent_is_expected_while_nomad_has_it(agent: FakeNomad) -> None:
    async with following(agent, route="node") as (_, sink):
        driver = "hostpath.csi.k8s.io"
        await until(lambda: driver in sink.expected, "it is expected")
        assert sink.expected[driver] == (
            "Nomad's plugin 'hostpath' is reached by node agents only (route: node), and none has it now"
        )
        assert sink.there == {}
        del agent.state.plugins["hostpath"]  # as Nomad's clean-up does, within a minute of a purge
        await until(lambda: not sink.expected[driver], "it is expected no more")


async def test_what_is_asked_for_while_a_plugin_is_on_the_move_is_booked_and_says_what_it_waits_for() -> None:
    """No node agent has the plugin now. What a caller knows nothing of is refused as before."""
    draft = SnapshotDraft(cluster="east", namespace="default", name="one", volume="data")
    async with standing("node") as stand:
        process = await stand.start(found=False)
        registry = process.service.registry
        await until(lambda: registry.view(DRIVER).expected, "the plugin is expected")
        view, operation = await process.desk.create_snapshot(ADMIN, draft)
        words: list[str] = []

        async def told() -> bool:
            status = (await process.desk.snapshot(ADMIN, view.key.uid)).status
            words[:] = [status.reason, status.message]
            return bool(status.reason) and status.reason != "Booked"

        await eventually(told, "it says what it waits for")
        assert words[0] == "PLUGIN_UNHEALTHY", words
        assert "'disk' is reached by node agents only (route: node), and none has it now" in words[1]
        adopted = dataclasses.replace(draft, name="two", adopt_handle="x", driver=DRIVER, volume="")
        with pytest.raises(UnavailableError, match="none has it now"):
            await process.desk.create_snapshot(ADMIN, adopted)
        with pytest.raises(UnavailableError, match="no plugin of driver 'nowhere' is known"):
            await process.desk.create_snapshot(ADMIN, dataclasses.replace(adopted, driver="nowhere"))
        await registry.ensure_socket("node:second", str(stand.proxy.listen), node="second")
        assert (await process.done(operation)).state is OperationState.DONE
        assert len(await stand.snapshots()) == 1
