"""The Nomad doors: the CLI, a job's meta, and a lifecycle task that calls the API with its workload identity.

On the fake agent, and on a real one where there is a binary; the CSI driver and its bytes are real on both.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.contract.nomad.conftest import place_of, real_agent
from tests.contract.nomad.world import World, consumer_job, eventually
from tests.e2e.test_standalone import checksum
from tests.support import serve

__all__ = ["place_of", "real_agent"]

ROUTES = ["socket", "api"]


@asynccontextmanager
async def serving(world: World, route: str = "auto") -> AsyncIterator[serve.Serve]:
    """The service beside this agent; `route` says how it reaches the plugin."""
    cluster = {"name": "east", "kind": "nomad", "address": world.url, "plugin_seconds": 0.2, "route": route}
    if route != "api":
        cluster["state_dir"] = world.state_dir
    made = serve.service(clusters=[cluster], plugins=[])
    await asyncio.to_thread(made.start)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.process.stop)


async def cli(service: serve.Serve, *words: str, check: bool = True) -> Any:
    return await asyncio.to_thread(service.cli, *words, check=check)


async def rows(service: serve.Serve, noun: str, **more: str) -> list[dict[str, Any]]:
    found = await asyncio.to_thread(service.cli_json, noun, "list")
    return [row for row in found["items"] if all(row.get(field) == value for field, value in more.items())]


async def until_rows(
    service: serve.Serve, noun: str, count: int, seconds: float = 60.0, **more: Any
) -> list[dict[str, Any]]:
    for _ in range(int(seconds / 0.3)):
        found = await rows(service, noun, **more)
        if len(found) == count:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"not {count} {noun} with {more}: {await rows(service, noun)}")


async def runs(world: World, allocation: str, task: str) -> bool:
    """Whether the task has started and not ended. A task that is stopped while it is set up takes its time."""
    states = (await world.client.get(f"/v1/allocation/{allocation}")).data["TaskStates"] or {}
    return bool(states.get(task, {}).get("State") == "running")


async def snapshots_left(world: World) -> list[str]:
    return sorted(path.name for path in (world.store / "snapshots").iterdir())


@pytest.mark.parametrize("route", ROUTES)
async def test_cut_damage_restore_delete(place_of: World, route: str) -> None:
    name = place_of.fresh("data")
    handle = await place_of.volume(name)
    data = place_of.store / "volumes" / handle
    (data / "a.bin").write_bytes(os.urandom(1 << 20))
    before = checksum(data)
    left = await snapshots_left(place_of)
    async with serving(place_of, route) as service:
        wanted = {"socket": "socket", "api": "orchestrator"}[route]
        await until_rows(service, "plugin", 1, role="controller", healthy=True, route=wanted)
        await cli(service, "snapshot", "create", name, "one", "--wait")
        (row,) = await rows(service, "snapshot", ready=True)
        (data / "a.bin").write_bytes(b"damaged")
        await cli(service, "snapshot", "restore", row["uid"], "--as", f"{name}-restored", "--wait")
        (restored,) = await rows(service, "volume", name=f"{name}-restored")
        assert checksum(place_of.store / "volumes" / restored["handle"]) == before
        await cli(service, "snapshot", "delete", row["uid"], "--yes", "--wait")
        assert await rows(service, "snapshot") == []
    assert await snapshots_left(place_of) == left


async def test_a_deploy_with_meta_is_snapshotted_once_per_version(place_of: World) -> None:
    name, job = place_of.fresh("hooked"), place_of.fresh("web")
    data = place_of.store / "volumes" / await place_of.volume(name)
    (data / "a.bin").write_bytes(os.urandom(1 << 20))
    before, left = checksum(data), await snapshots_left(place_of)
    meta = {"snapbridge_volumes": name, "snapbridge_on_deploy": "true"}
    async with serving(place_of) as service:
        row = consumer_job(job, name, driver="raw_exec", Meta=meta)
        row["TaskGroups"][0]["Count"] = 0
        await place_of.run_job(row)
        (first,) = await until_rows(service, "snapshot", 1, volume=name, ready=True)
        assert first["why"], first
        (data / "a.bin").write_bytes(b"the new version broke it")
        await cli(service, "snapshot", "restore", first["uid"], "--as", f"{name}-restored", "--wait")
        (restored,) = await rows(service, "volume", name=f"{name}-restored")
        assert checksum(place_of.store / "volumes" / restored["handle"]) == before
        await place_of.run_job({**row, "Meta": {**meta, "release": "2"}})
        await until_rows(service, "snapshot", 2, volume=name, ready=True)
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)
        await asyncio.sleep(2)
        found = await until_rows(service, "snapshot", 2, volume=name, ready=True)
        for one in found:
            await cli(service, "snapshot", "delete", one["uid"], "--yes", "--wait")
    assert await snapshots_left(place_of) == left
    await place_of.purge(job)


async def test_a_prestart_task_asks_with_its_own_identity(place_of: World) -> None:
    own, other, job = place_of.fresh("own"), place_of.fresh("other"), place_of.fresh("task")
    await place_of.volume(own)
    await place_of.volume(other)
    async with serving(place_of) as service:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        row = consumer_job(job, own)  # a real agent claims a volume only for a task whose driver can mount it
        row["TaskGroups"][0]["Tasks"].insert(0, _hook(service.url, own, other))
        await place_of.run_job(row)
        allocation = await place_of.allocation(job, "running")
        # Running it is with its first task; the main one starts when both of the hook's questions were answered.
        await eventually(lambda: runs(place_of, allocation["ID"], "main"), "the main task runs", 60)
        (made,) = await until_rows(service, "snapshot", 1, volume=own, ready=True)
        assert made["labels"]["job"] == job
        assert await rows(service, "snapshot", volume=other) == []
        await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")
    await place_of.purge(job)


def _hook(url: str, own: str, other: str) -> dict[str, Any]:
    """A prestart task: its own volume must be taken (202), another's refused (403)."""
    body = '{"cluster":"east","namespace":"default","volume":"%s","name":"pre-deploy"}'
    # No braces after a % or a $: a real agent reads the strings of a task's config as templates.
    ask = (
        'curl -si -H "Authorization: Bearer $TOKEN" '
        f"-H 'Content-Type: application/json' -d '{body}' {url}/v1/snapshots | head -n 1 | grep -q"
    )
    script = (
        "set -e; TOKEN=$(cat $NOMAD_SECRETS_DIR/nomad_snapbridge.jwt); "
        f"{ask.replace('%s', own)} ' 202 '; {ask.replace('%s', other)} ' 403 '"
    )
    return {
        "Name": "before",
        "Driver": "raw_exec",
        "Config": {"command": "/bin/sh", "args": ["-c", script]},
        "Lifecycle": {"Hook": "prestart", "Sidecar": False},
        "Resources": {"CPU": 20, "MemoryMB": 32},
        "Identities": [{"Name": "snapbridge", "Audience": ["snapbridge"], "File": True, "TTL": 900_000_000_000}],
    }
