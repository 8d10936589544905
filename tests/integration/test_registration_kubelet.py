"""A driver announced to a real kubelet: CSINode, a restart of ours, and the withdrawal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.kubernetes.registration.announcer import KubeletAnnouncer, RegistrationSettings
from bridge.csi.registry import Registry
from bridge.csi.settings import RegistrySettings
from bridge.node.agent import NodeAgent
from bridge.node.settings import AgentSettings
from tests.support import csi_server
from tests.support.bed.node import Node
from tests.support.csi_server import Plugin, RealClock

pytestmark = pytest.mark.root

DRIVER = "registered.csi.example"


async def drivers(node: Node) -> dict[str, str]:
    """Driver -> node id, as the kubelet wrote it."""
    found: dict[str, Any] = await asyncio.to_thread(node.plane.admin.get, "csinode", node.name)
    return {row["name"]: row["nodeID"] for row in found["spec"].get("drivers") or []}


async def eventually(node: Node, expected: str | None) -> None:
    for _ in range(300):
        if (await drivers(node)).get(DRIVER) == expected:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the node's entry for {DRIVER} did not become {expected}")


async def test_a_plugin_found_on_the_host_is_registered_and_withdrawn(node: Node) -> None:
    folder = node.plugins / "reg"
    folder.mkdir(parents=True)
    clock = RealClock()

    async def attend(registry: Registry, announcer: KubeletAnnouncer) -> None:
        settings = AgentSettings(node.name, patterns=(f"{node.plugins}/*/csi.sock",), gone_after_seconds=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(registry.run())
            group.create_task(announcer.run())
            group.create_task(NodeAgent(settings, clock, registry, announcer).run())

    async def begin() -> tuple[KubeletAnnouncer, asyncio.Task[None]]:
        announcer = KubeletAnnouncer(RegistrationSettings(str(node.plugins_registry)), clock)
        return announcer, asyncio.create_task(attend(Registry(RegistrySettings(), clock), announcer))

    async def end(task: asyncio.Task[None]) -> None:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with csi_server.serving(Plugin(DRIVER, node_id="node-77"), folder / "csi.sock"):
        announcer, task = await begin()
        await eventually(node, "node-77")
        await csi_server.until(lambda: [row.registered for row in announcer.announcements()] == [True])
        await end(task)
        await eventually(node, None)
        announcer, task = await begin()
        await eventually(node, "node-77")
    await eventually(node, None)
    assert announcer.announcements() == []
    await end(task)
    folder.rmdir()
