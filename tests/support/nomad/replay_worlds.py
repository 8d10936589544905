"""The state that each recorded file assumes: volumes, jobs and what happened between two recorded requests.

It must use the agent's own API or its test verbs; it must not put an answer into the agent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.nomad.drivers import HostPathDriver, ScriptedDriver
from tests.support.nomad.replay_player import Player
from tests.support.nomad.state import Allocation

_CAPABILITIES = [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}]
_LARGE = {"RequestedCapacityMin": 1048576, "RequestedCapacityMax": 4194304}
MOUNT = {"MountOptions": {"FSType": "ext4", "MountFlags": ["noatime"]}}
_TRAP = ["-c", "trap 'exit 0' INT TERM; while true; do sleep 0.05; done"]
SECOND = 1_000_000_000


async def volume(player: Player, volume_id: str, plugin: str = "hostpath", **fields: Any) -> dict[str, Any]:
    """Create a volume; returns the answer's row."""
    body = {"ID": volume_id, "Name": volume_id, "PluginID": plugin, "RequestedCapabilities": _CAPABILITIES}
    if "RequestedCapacityMin" not in fields:
        fields["RequestedCapacityMin"] = 1048576
    answer = await player.call("PUT", "/v1/volume/csi/x/create", {"Volumes": [{**body, **fields}]})
    row: dict[str, Any] = answer["Volumes"][0]
    return row


def task(name: str, *, hook: str = "", script: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    row = {"Name": name, "Driver": "exec", "Config": {"command": "/bin/sh", "args": script or _TRAP}, **fields}
    if hook:
        row["Lifecycle"] = {"Hook": hook}
        row["Config"] = {"command": "/bin/sh", "args": script or ["-c", "true"]}
    return row


def job(job_id: str, source: str, *tasks: dict[str, Any], **volume_fields: Any) -> dict[str, Any]:
    """A service job with one group `g` that claims a volume, as in the recordings."""
    block = {"Type": "csi", "Source": source, "AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    group = {"Name": "g", "Tasks": list(tasks) or [task("t")], "Volumes": {"v": {**block, **volume_fields}}}
    return {"ID": job_id, "Type": "service", "Datacenters": ["*"], "TaskGroups": [group]}


async def run(player: Player, spec: dict[str, Any]) -> str:
    """Register a job and wait until it runs; returns its newest allocation's id."""
    await player.call("PUT", "/v1/jobs", {"Job": spec})
    await running(player, spec["ID"])
    return player.agent.state.job_allocations("default", spec["ID"])[0].id


async def running(player: Player, job_id: str) -> None:
    """Wait until the newest allocation's main tasks run."""
    async with asyncio.timeout(30):
        while True:
            rows = player.agent.state.job_allocations("default", job_id)
            version = (player.agent.state.job("default", job_id) or {}).get("Version")
            if rows and rows[0].desired == "run" and rows[0].tasks and rows[0].job["Version"] == version:
                mains = [t["Name"] for t in rows[0].group_spec["Tasks"] if not t.get("Lifecycle")]
                running_now = all(rows[0].tasks[name]["State"] == "running" for name in mains)
                if running_now and all(_is_up(player, rows[0], name) for name in mains):
                    break
            await player.agent.state.change(0.05)
    await deployed(player, job_id)


def _is_up(player: Player, allocation: Allocation, name: str) -> bool:
    """Whether the task's shell has come to its `trap`: interrupted before, it would end with another exit code."""
    live = player.agent.runner.live.get(allocation.id)
    process = live.processes.get(name) if live is not None else None
    has_trap = "trap" in str((process.spec.get("Config") or {}).get("args")) if process is not None else False
    return process is None or not has_trap or process.takes_interrupts()


async def deployed(player: Player, job_id: str) -> None:
    """Wait until the job's deployment is over, unless health is held."""
    async with asyncio.timeout(30):
        while "healthy" not in player.agent.runner.gates:
            row = player.agent.state.latest_deployment("default", job_id)
            planned = all(e["Status"] != "pending" for e in player.agent.state.evaluations.values())
            if planned and (row is None or row["Status"] != "running"):
                return
            await player.agent.state.change(0.05)


async def stop(player: Player, job_id: str, **query: str) -> None:
    """Stop a job and wait until its allocations are gone and their claims free."""
    await player.call("DELETE", f"/v1/job/{job_id}", **query)
    await ended(player, job_id)


async def ended(player: Player, job_id: str) -> None:
    async with asyncio.timeout(30):
        while any(not a.terminal for a in player.agent.state.job_allocations("default", job_id)):
            await player.agent.state.change(0.05)


async def plugins(player: Player) -> None:
    """Both recorded plugins: the host-path driver and the scripted one."""
    hostpath, slow = HostPathDriver(), ScriptedDriver(sleep_scale=0.01)
    player.kept.update(hostpath=hostpath, slow=slow)
    await player.agent.add_plugin("hostpath", hostpath)
    await player.agent.add_plugin("slow", slow, job_type="service")
    await deployed(player, "csi-hostpath")
    await deployed(player, "csi-slow")


async def data_in_use(player: Player) -> None:
    """Volume `data` (10 MiB), claimed by the job `app`, which was there before the recording began."""
    driver = player.kept["hostpath"]
    driver.next_number = 0xB4C30000
    await volume(player, "data", RequestedCapacityMin=10485760)
    await run(player, job("app", "data"))
    driver.next_number = 0x54000000


async def volumes_of_the_day(player: Player) -> None:
    """The volumes that volumes.json made, for the files that were recorded after it."""
    await volume(player, "vol-a", **_LARGE, **MOUNT)
    await volume(player, "vol-a-twin", Name="vol-a", **_LARGE, **MOUNT)
    for name in ("vol-b", "vol-c"):
        await volume(player, name, **_LARGE, **MOUNT)
    await volume(player, "two-1", **_LARGE)
    await volume(player, "pa[0]", **_LARGE)


async def slow_volumes(player: Player) -> None:
    """The scripted driver's volumes; sv1 has secrets and a parameter, sv4 is sv2 under another id."""
    secrets = {"Secrets": {"both": "volume", "volsec": "v"}, "Parameters": {"volparam": "1"}}
    await volume(player, "sv1", "slow", **secrets)
    await volume(player, "sv2", "slow")
    twin = {"ID": "sv4", "Name": "sv4", "PluginID": "slow", "ExternalID": "v-sv2", "RequestedCapacityMin": 1048576}
    body = {"Volumes": [{**twin, "RequestedCapabilities": _CAPABILITIES}]}
    await player.call("PUT", "/v1/volume/csi/sv4", body)
    await volume(player, "sv3", "slow")


def e2e_job() -> dict[str, Any]:
    """The recorded end-to-end job: prestart, main, poststop."""
    tasks = (task("pre", hook="prestart"), task("t", KillTimeout=2 * SECOND), task("post", hook="poststop"))
    return job("e2e", "e1", *tasks)


async def e1_in_use(player: Player) -> None:
    """Volume e1 and the job that mounts it."""
    row = await volume(player, "e1")
    player.bindings.bind("76b1d12d-e595-11f1-bf52-aa7181da830f", row["ExternalID"])
    await run(player, e2e_job())
