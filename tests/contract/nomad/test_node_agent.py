"""A node agent as a Nomad system job: it finds its plugin's socket, follows a new allocation, and carries the calls.

The service has no state_dir: it reaches the plugin through the hub or not at all.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.nomad.world import PLUGIN, World, eventually
from tests.support import node_pki, serve
from tests.support.bed import paths, ports

LONG = 60.0


def agent_job(job_id: str, config: Path) -> dict[str, Any]:
    """`snapbridge node` under raw_exec, as configs/nomad/node.nomad.hcl runs it."""
    task = {
        "Name": "node",
        "Driver": "raw_exec",
        "Config": {"command": sys.executable, "args": ["-m", "bridge", "node", "-c", str(config)]},
        "Env": {"PYTHONPATH": str(paths.REPOSITORY)},
        "KillTimeout": 5_000_000_000,
        "Resources": {"CPU": 20, "MemoryMB": 64},
    }
    group = {"Name": "node", "Count": 1, "Tasks": [task]}
    return {"ID": job_id, "Type": "system", "Datacenters": ["*"], "TaskGroups": [group]}


@asynccontextmanager
async def carried(world: World, tmp_path: Path) -> AsyncIterator[serve.Serve]:
    """A service with a hub, and the node agent as a job of the cluster."""
    authority = node_pki.Authority(tmp_path)
    hub_paths, port = authority.issue("hub", loopback=True), ports.free()
    certificate, key = authority.issue("storage-1")
    config = tmp_path / "node.yaml"
    section = {
        "name": "storage-1", "hub": f"127.0.0.1:{port}", "tls_cert_file": str(certificate), "tls_key_file": str(key),
        "hub_ca_file": str(authority.path),
    }  # fmt: skip
    find = {"address": world.url, "state_dir": world.state_dir, "plugin_seconds": 0.5}
    config.write_text(yaml.safe_dump({"node": section, "nomad": find}))
    hub = {
        "tls_cert_file": str(hub_paths[0]),
        "tls_key_file": str(hub_paths[1]),
        "client_ca_file": str(authority.path),
    }
    cluster = {"name": "east", "kind": "nomad", "address": world.url, "plugin_seconds": 0.2, "route": "node"}
    made = serve.service(clusters=[cluster], plugins=[], hub={"port": port, **hub})
    await asyncio.to_thread(made.start)
    job = world.fresh("node")
    try:
        await world.run_job(agent_job(job, config))
        yield made
    finally:
        await world.purge(job)
        await asyncio.to_thread(made.process.stop)


async def controllers(service: serve.Serve) -> list[dict[str, Any]]:
    found = await asyncio.to_thread(service.cli_json, "plugin", "list")
    return [row for row in found["items"] if row["role"] == "controller" and row["healthy"]]


@pytest.mark.timeout(240)
async def test_a_node_agent_follows_its_plugin_to_the_next_allocation(place_of: World, tmp_path: Path) -> None:
    name = place_of.fresh("far")
    await place_of.volume(name)
    async with carried(place_of, tmp_path) as service:
        carrying: list[dict[str, Any]] = []

        async def served() -> bool:
            carrying[:] = await controllers(service)
            return bool(carrying)

        await eventually(served, "the plugin is carried", LONG)
        (row,) = carrying
        assert row["route"] == "node-agent"
        assert row["node"] == "storage-1"
        await asyncio.to_thread(service.cli, "snapshot", "create", name, "one", "--wait=60s")

        plugin = (await place_of.client.get(f"/v1/plugin/csi/{PLUGIN}")).data
        (old,) = [info["AllocID"] for info in plugin["Controllers"].values()]
        await place_of.client.call("PUT", f"/v1/allocation/{old}/stop")
        socket = Path(place_of.state_dir) / "csi" / "plugins"
        new: list[str] = []

        async def appeared() -> bool:
            new[:] = [str(path.parent.name) for path in socket.glob("*/csi.sock") if path.parent.name != old]
            return bool(new)

        await eventually(appeared, "the next allocation's socket", LONG)
        began = time.monotonic()

        async def moved() -> bool:
            return any(new[0] in row["instance"] for row in await controllers(service))

        await eventually(moved, "the next socket is served", LONG)
        print(f"{place_of.kind}: served {time.monotonic() - began:.1f} s after the new socket appeared")
        await asyncio.to_thread(service.cli, "snapshot", "create", name, "two", "--wait=60s")
        rows = (await asyncio.to_thread(service.cli_json, "snapshot", "list"))["items"]
        assert {row["name"]: row["ready"] for row in rows if row["volume"] == name} == {"one": True, "two": True}
        for row in rows:
            await asyncio.to_thread(service.cli, "snapshot", "delete", row["uid"], "--yes", "--wait")
