"""Our client against our own driver in a process of its own: directly, through a node agent, and across kill -9."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from bridge.csi.instance import Instance
from bridge.csi.registry import Registry
from bridge.csi.settings import RegistrySettings
from bridge.model.failure import FailureKind
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability
from bridge.model.snapshot import HandleSource
from bridge.model.volume import NewVolume
from bridge.node.agent import NodeAgent
from bridge.node.hub import Hub
from bridge.node.settings import AgentSettings, HubSettings
from tests.support import csi_server, localdisk
from tests.support.csi_server import RealClock, until
from tests.support.localdisk import LocalDisk

NONE: dict[str, str] = {}


@pytest.fixture
def driver() -> Iterator[LocalDisk]:
    with localdisk.start_localdisk(mode="directory") as driver:
        yield driver


@pytest_asyncio.fixture(params=["socket", "node-agent"])
async def registry(driver: LocalDisk, request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    clock = RealClock()
    registry = Registry(RegistrySettings(probe_interval_seconds=0.5), clock)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(registry.run())]
        if request.param == "socket":
            await registry.ensure_socket("local", str(driver.socket))
        else:
            local = Registry(RegistrySettings(probe_interval_seconds=0.5), clock)
            hub = Hub(HubSettings("127.0.0.1:0", plaintext_on_loopback=True), clock, registry)
            tasks.append(group.create_task(hub.run()))
            address = f"127.0.0.1:{await asyncio.wait_for(hub.started(), 30)}"
            settings = AgentSettings("here", address, plaintext_on_loopback=True, paths=(str(driver.socket),))
            tasks.append(group.create_task(local.run()))
            tasks.append(group.create_task(NodeAgent(settings, clock, local).run()))
        await until(lambda: registry.controller(localdisk.NAME))
        yield registry
        for task in tasks:
            task.cancel()


async def test_a_snapshot_lives_and_dies(registry: Registry) -> None:
    calls = registry.controller(localdisk.NAME)
    assert isinstance(calls, Instance)
    assert registry.view(localdisk.NAME).can(Capability.GET_SNAPSHOT)
    volume = await calls.create_volume(new=NewVolume("v", localdisk.NAME, required_bytes=1 << 20), secrets=NONE)
    assert isinstance(volume, Done)
    cut = await calls.create_snapshot(name="s", volume_handle=volume.value.handle, parameters=NONE, secrets=NONE)
    assert isinstance(cut, Done)
    assert cut.value.ready
    again = await calls.create_snapshot(name="s", volume_handle=volume.value.handle, parameters=NONE, secrets=NONE)
    assert again == cut
    assert await calls.inspect_snapshot(handle=cut.value.handle, secrets=NONE) == cut
    assert [found async for found in calls.list_snapshots(secrets=NONE)] == [cut]
    restored = await calls.create_volume(
        new=NewVolume("r", localdisk.NAME, content=HandleSource(cut.value.handle), required_bytes=1 << 20),
        secrets=NONE,
    )
    assert isinstance(restored, Done)
    for handle in (volume.value.handle, restored.value.handle):
        gone = await calls.delete_volume(handle=handle, secrets=NONE)
        assert isinstance(gone, Done) or gone.failure.code == "FAILED_PRECONDITION"
    for _ in range(2):
        assert await calls.delete_snapshot(handle=cut.value.handle, secrets=NONE) == Done(None)
    missing = await calls.inspect_snapshot(handle=cut.value.handle, secrets=NONE)
    assert isinstance(missing, Failed)
    assert (missing.failure.kind, missing.failure.code) == (FailureKind.REFUSED, "NOT_FOUND")
    assert await calls.delete_volume(handle=volume.value.handle, secrets=NONE) == Done(None)
    assert [found async for found in calls.list_snapshots(secrets=NONE)] == []


async def test_a_killed_driver_is_back_within_two_seconds(registry: Registry, driver: LocalDisk) -> None:
    calls = registry.controller(localdisk.NAME)
    assert calls is not None
    volume = await calls.create_volume(new=NewVolume("v", localdisk.NAME, required_bytes=1 << 20), secrets=NONE)
    assert isinstance(volume, Done)

    async def restart(_number: int) -> float:
        await asyncio.to_thread(driver.kill)
        await until(lambda: registry.controller(localdisk.NAME) is None)
        assert registry.view(localdisk.NAME).sentence
        await asyncio.to_thread(driver.start)
        return await until(lambda: registry.controller(localdisk.NAME))

    await csi_server.soon(restart, 2.0)
    calls = registry.controller(localdisk.NAME)
    assert calls is not None
    again = await calls.create_volume(new=NewVolume("v", localdisk.NAME, required_bytes=1 << 20), secrets=NONE)
    assert again == volume
