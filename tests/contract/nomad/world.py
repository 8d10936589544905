"""What the contract's tests stand on: an agent, fake or real, with localdisk as its CSI plugin `localdisk`.

The plugin is a raw_exec job with a real driver process in both, so that sockets, allocations and bytes are real.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from adapters.nomad.client import Client, part
from adapters.nomad.errors import AnswerError
from adapters.nomad.settings import Settings
from tests.support import localdisk
from tests.support.bed import paths

PLUGIN = "localdisk"
DRIVER = localdisk.NAME
QUICK = {"plugin_seconds": 0.2, "resync_seconds": 30.0, "backoff_first_seconds": 0.1, "backoff_most_seconds": 1.0}
_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """One agent. `kind` is `fake` or `real`; `store` is the driver's own folder."""

    kind: str
    url: str
    state_dir: str
    alloc_dir: Path
    store: Path
    client: Client

    def settings(self, **more: object) -> Settings:
        return Settings.model_validate({"address": self.url, **QUICK, **more})

    def fresh(self, word: str) -> str:
        """A name that no other test uses."""
        return f"{word}-{next(_numbers)}"

    async def volume(self, volume_id: str, **more: Any) -> str:
        """Create and register a volume; returns its handle."""
        row = {
            "ID": volume_id, "Name": self.fresh(f"made-{os.getpid()}"), "PluginID": PLUGIN,
            "RequestedCapacityMin": 16 << 20,
            "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}], **more,
        }  # fmt: skip
        answer = await self.client.call(
            "PUT", f"/v1/volume/csi/{part(volume_id)}/create", {"namespace": "default"}, body={"Volumes": [row]},
            timeout_seconds=60,
        )  # fmt: skip
        return str(answer.data["Volumes"][0]["ExternalID"])

    async def loose_volume(self) -> str:
        """The handle of a volume that exists on the backend and is not registered."""
        name = self.fresh("loose")
        handle = await self.volume(name)
        await self.client.call("DELETE", f"/v1/volume/csi/{name}")
        return handle

    async def run_job(self, row: dict[str, Any]) -> int:
        """Register a job; returns its JobModifyIndex."""
        answer = await self.client.call("PUT", "/v1/jobs", body={"Job": row})
        return int(answer.data["JobModifyIndex"])

    async def purge(self, job_id: str) -> None:
        await self.client.call("DELETE", f"/v1/job/{part(job_id)}", {"purge": "true"})

    async def allocation(self, job_id: str, status: str = "running", seconds: float = 120.0) -> dict[str, Any]:
        """The job's newest allocation once it has that client status."""
        found: dict[str, Any] = {}

        async def there() -> bool:
            rows = (await self.client.get(f"/v1/job/{part(job_id)}/allocations")).data or []
            rows = [row for row in rows if row["ClientStatus"] == status]
            if rows:
                found.update(max(rows, key=lambda row: row["CreateIndex"]))
            return bool(rows)

        await eventually(there, f"an allocation of {job_id} is {status}", seconds)
        return found

    async def allocation_gone(self, allocation_id: str) -> None:
        """Wait until the allocation has ended, or is not known any more."""

        async def over() -> bool:
            try:
                row = (await self.client.get(f"/v1/allocation/{allocation_id}")).data
            except AnswerError:
                return True
            return bool(row["ClientStatus"] in ("complete", "failed", "lost"))

        await eventually(over, f"allocation {allocation_id} has ended", 120)


async def eventually(test: Callable[[], Awaitable[bool]], what: str, seconds: float = 30.0) -> None:
    """Wait until it is so."""
    try:
        async with asyncio.timeout(seconds):
            while not await test():  # noqa: ASYNC110 - what is looked at rings no bell
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not so after {seconds} s: {what}") from None


def plugin_job(state_dir: str, store: Path) -> dict[str, Any]:
    """localdisk as a monolith plugin under raw_exec: staging and publishing happen at real host paths."""
    task = {
        "Name": "plugin",
        "Driver": "raw_exec",
        "Config": {
            "command": sys.executable,
            "args": ["-m", "adapters.localdisk", "--state-dir", str(store), "--mode", "directory", "--node-id", "n1",
                     "--topology", "none", "--unsafe-no-fsync"],
        },
        "Env": {"PYTHONPATH": str(paths.REPOSITORY)},
        "CSIPluginConfig": {
            "ID": PLUGIN, "Type": "monolith", "StagePublishBaseDir": f"{state_dir}/csi/monolith/{PLUGIN}",
            "HealthTimeout": 30_000_000_000,
        },
        "KillTimeout": 5_000_000_000,
        "Resources": {"CPU": 50, "MemoryMB": 64},
    }  # fmt: skip
    group = {"Name": "g", "Count": 1, "Tasks": [task]}
    return {"ID": f"csi-{PLUGIN}", "Type": "service", "Datacenters": ["*"], "TaskGroups": [group]}


def consumer_job(job_id: str, volume: str, *, driver: str = "exec", **more: Any) -> dict[str, Any]:
    """A service whose one task mounts a volume at /data and waits."""
    task = {
        "Name": "main", "Driver": driver, "KillTimeout": 1_000_000_000,
        "Config": {"command": "/bin/sh", "args": ["-c", "trap 'exit 0' INT TERM; while true; do sleep 0.2; done"]},
        "VolumeMounts": [{"Volume": "data", "Destination": "/data"}] if driver == "exec" else None,
        "Resources": {"CPU": 20, "MemoryMB": 32},
        "Identities": [{"Name": "snapbridge", "Audience": ["snapbridge"], "File": True, "TTL": 900_000_000_000}],
    }  # fmt: skip
    volumes = {
        "data": {"Type": "csi", "Source": volume, "AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    }
    group = {"Name": "g", "Count": 1, "Volumes": volumes, "Tasks": [task]}
    return {"ID": job_id, "Type": "service", "Datacenters": ["*"], "TaskGroups": [group], **more}


@asynccontextmanager
async def world(
    kind: str, url: str, *, state_dir: str, alloc_dir: Path, store: Path, token_file: str = ""
) -> AsyncIterator[World]:
    """The agent with its plugin up; the plugin's job is registered if it is not there yet."""
    client = Client(Settings.model_validate({"address": url, "token_file": token_file, **QUICK}))
    try:
        try:
            await client.get(f"/v1/job/csi-{PLUGIN}")
        except AnswerError:
            await client.call("PUT", "/v1/jobs", body={"Job": plugin_job(state_dir, store)})

        async def healthy() -> bool:
            try:
                plugin = (await client.get(f"/v1/plugin/csi/{PLUGIN}")).data
            except AnswerError:
                return False
            return bool(plugin["ControllersHealthy"] and plugin["NodesHealthy"])

        await eventually(healthy, "the plugin is healthy", 60)
        yield World(kind, url, state_dir, alloc_dir, store, client)
    finally:
        await client.close()
