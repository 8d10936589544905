"""One fake agent per test, with the host-path driver's rules behind the plugin `hostpath`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.nomad.adapter import NomadOrchestrator, build
from adapters.nomad.client import Client
from tests.integration.nomad.doubles import MemoryIntake, MemorySecrets, MemorySink, quick, running, until
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver


@pytest.fixture
def driver() -> HostPathDriver:
    return HostPathDriver()


@pytest.fixture
async def agent(driver: HostPathDriver) -> AsyncIterator[FakeNomad]:
    async with FakeNomad() as fake:
        await fake.add_plugin("hostpath", driver)
        yield fake


@pytest.fixture
async def client(agent: FakeNomad) -> AsyncIterator[Client]:
    made = Client(quick(agent.url))
    yield made
    await made.close()


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()


@asynccontextmanager
async def bridge(agent: FakeNomad, intake: MemoryIntake, **more: object) -> AsyncIterator[NomadOrchestrator]:
    """The adapter, running and ready."""
    adapter = build("east", quick(agent.url, **more), secrets=MemorySecrets())
    async with running(adapter.run(lambda key: None, intake, MemorySink())):
        await until(lambda: adapter.ready() == "", f"ready: {adapter.ready()}", 20)
        yield adapter


async def make_volume(client: Client, volume_id: str, **more: Any) -> str:
    """Create a volume over the API; returns its external id."""
    row = {
        "ID": volume_id, "Name": f"made-{volume_id}", "PluginID": "hostpath", "RequestedCapacityMin": 1 << 20,
        "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}], **more,
    }  # fmt: skip
    namespace = str(more.get("Namespace", "default"))
    answer = await client.call(
        "PUT", f"/v1/volume/csi/{volume_id}/create", {"namespace": namespace}, body={"Volumes": [row]}
    )
    return str(answer.data["Volumes"][0]["ExternalID"])


def job(job_id: str, volume: str = "data", *, meta: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A service job whose one group claims a volume and sleeps."""
    task = {
        "Name": "main", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["60"]},
        "KillTimeout": 100_000_000,
    }  # fmt: skip
    volumes = {
        "data": {
            "Type": "csi", "Source": volume, "AccessMode": "single-node-writer", "AttachmentMode": "file-system",
        }
    }  # fmt: skip
    return {
        "ID": job_id, "Type": "service", "Datacenters": ["*"], "Meta": meta,
        "TaskGroups": [{"Name": "g", "Count": 1, "Volumes": volumes, "Tasks": [task]}], **more,
    }  # fmt: skip


async def register(client: Client, row: dict[str, Any], namespace: str = "default") -> int:
    """Register a job; returns its JobModifyIndex."""
    answer = await client.call("PUT", "/v1/jobs", {"namespace": namespace}, body={"Job": row})
    return int(answer.data["JobModifyIndex"])
