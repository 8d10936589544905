"""`snapbridge kubernetes registrar` at a real kubelet: registered, again after each restart, taken back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support import csi_server, role
from tests.support.bed.node import Node
from tests.support.csi_server import Plugin

pytestmark = pytest.mark.root

FIRST, SECOND = "first.registrar.example", "second.registrar.example"


async def drivers(node: Node) -> dict[str, str]:
    """Our drivers -> node id, as the kubelet wrote it."""
    path = f"/apis/storage.k8s.io/v1/csinodes/{node.name}"
    found: dict[str, Any] = json.loads((await asyncio.to_thread(node.plane.admin.request, "GET", path))[1])
    rows = {row["name"]: row["nodeID"] for row in found.get("spec", {}).get("drivers") or []}
    return {name: rows[name] for name in (FIRST, SECOND) if name in rows}


async def eventually(node: Node, expected: dict[str, str]) -> None:
    for _ in range(300):
        found = await drivers(node)
        if found == expected:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the node's entries are {found}, not {expected}")


async def told(running: role.Role, times: int) -> None:
    """Wait until the kubelet has said so often that it took a driver."""
    for _ in range(300):
        if running.log.read_text().count('"sentence":"registered"') >= times:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the kubelet has not taken a driver {times} times\n{running.tail()}")


async def well(running: role.Role) -> None:
    """Wait until its page says that every registration socket answers."""
    for _ in range(300):
        page = await asyncio.to_thread(running.page, "/healthz")
        if page == (200, "ok"):
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the page says {page}")


async def test_two_drivers_of_one_process_are_registered_through_every_restart(node: Node) -> None:
    first, second = (node.plugins / name / "csi.sock" for name in ("rg1", "rg2"))
    first.parent.mkdir(parents=True)
    second.parent.mkdir(parents=True)
    both = {FIRST: "n-1", SECOND: "n-2"}
    sockets = sorted(f"{name}-reg.sock" for name in both)
    flags = [
        word for path in (first, second) for word in (f"--csi-address={path}", f"--kubelet-registration-path={path}")
    ]
    ours = role.role("registrar", *flags, f"--plugin-registration-path={node.plugins_registry}")
    async with (
        csi_server.serving(Plugin(FIRST, node_id="n-1"), first),
        csi_server.serving(Plugin(SECOND, node_id="n-2"), second),
    ):
        try:
            await asyncio.to_thread(ours.start)
            await eventually(node, both)
            await told(ours, 2)
            await well(ours)

            await asyncio.to_thread(node.kubelet.restart)
            await told(ours, 4)
            await eventually(node, both)

            await asyncio.to_thread(ours.kill)
            assert sorted(path.name for path in node.plugins_registry.glob("*registrar.example-reg.sock")) == sockets
            await asyncio.to_thread(ours.start)
            await told(ours, 6)
            await eventually(node, both)
        finally:
            await asyncio.to_thread(ours.stop)
        await eventually(node, {})
        assert not list(node.plugins_registry.glob("*registrar.example*"))
    first.parent.rmdir()
    second.parent.rmdir()
