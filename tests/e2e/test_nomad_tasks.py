"""Tasks of a job that ask for snapshots: prestart, poststop, the two curl lines, and a job that goes meanwhile.

On the fake agent, and on a real one where there is a binary; the CSI driver and its bytes are real on both.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.contract.nomad.conftest import place_of, real_agent
from tests.contract.nomad.world import World, consumer_job, eventually
from tests.e2e.test_nomad import cli, rows, runs, serving, until_rows
from tests.support.bed import paths

__all__ = ["place_of", "real_agent"]

SAMPLES = paths.REPOSITORY / "configs" / "nomad"


def hook(name: str, when: str, url: str, *words: str) -> dict[str, Any]:
    """A task that runs `snapbridge hook`."""
    return {
        "Name": name, "Driver": "raw_exec",
        "Config": {"command": sys.executable, "args": ["-m", "bridge", "hook", *words]},
        "Env": {"PYTHONPATH": str(paths.REPOSITORY), "SNAPBRIDGE_ADDR": url},
        "Lifecycle": {"Hook": when, "Sidecar": False},
        "RestartPolicy": {"Attempts": 0, "Mode": "fail", "Interval": 60_000_000_000, "Delay": 1_000_000_000},
        "Resources": {"CPU": 20, "MemoryMB": 64}, "KillTimeout": 1_000_000_000,
        "Identities": [{"Name": "snapbridge", "Audience": ["snapbridge"], "File": True, "TTL": 900_000_000_000}],
    }  # fmt: skip


def with_tasks(row: dict[str, Any], *tasks: dict[str, Any]) -> dict[str, Any]:
    """The job with further tasks in its one group, and no second try of a failed one."""
    group = row["TaskGroups"][0]
    group["Tasks"] += tasks
    group["ReschedulePolicy"] = {"Attempts": 0, "Unlimited": False}
    return row


async def log_of(world: World, allocation: str, task: str) -> str:
    """What the task has written so far."""
    folder = world.alloc_dir / allocation / "alloc" / "logs"
    found = await asyncio.to_thread(lambda: [path.read_text() for path in sorted(folder.glob(f"{task}.std*.0"))])
    return "\n".join(found)


async def until_logged(world: World, allocation: str, task: str, *words: str) -> None:
    """Wait until the task's log holds all of these: an agent may write it later than it tells of the task's end."""
    last = ""

    async def there() -> bool:
        nonlocal last
        last = await log_of(world, allocation, task)
        return all(word in last for word in words)

    try:
        await eventually(there, f"{task} has written {words}", 30)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None


async def test_a_snapshot_before_the_start_and_a_final_one(place_of: World) -> None:
    name, job = place_of.fresh("own"), place_of.fresh("task")
    await place_of.volume(name)
    async with serving(place_of) as service:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        before = hook("before", "prestart", service.url, "snapshot")
        final = hook("final", "poststop", service.url, "snapshot", name, "--final", "--deletion-policy", "Retain")
        final["Identities"] = None
        badge = hook("badge", "prestart", service.url)
        badge["Identities"][0].pop("TTL")
        copied = ["${NOMAD_SECRETS_DIR}/nomad_snapbridge.jwt", "${NOMAD_ALLOC_DIR}/snapbridge.jwt"]
        badge["Config"] = {"command": "/bin/cp", "args": copied}  # as in the sample
        await place_of.run_job(with_tasks(consumer_job(job, name), before, badge, final))
        allocation = await place_of.allocation(job, "running")
        await eventually(lambda: runs(place_of, allocation["ID"], "main"), "the main task runs", 60)
        (made,) = await rows(service, "snapshot", volume=name)
        assert (made["labels"]["job"], made["deletionPolicy"], made["ready"]) == (job, "Delete", True)
        assert made["labels"]["allocation"] == allocation["ID"]
        await until_logged(place_of, allocation["ID"], "before", f"snapshot {made['name']} of {name} is ready")
        await place_of.client.call("DELETE", f"/v1/job/{job}")
        await place_of.allocation(job, "complete", 120)
        found = await until_rows(service, "snapshot", 2, volume=name, ready=True)
        (last,) = [row for row in found if row["uid"] != made["uid"]]
        assert last["name"] == f"{job}-{name}-final-{allocation['ID'][:8]}"
        assert last["deletionPolicy"] == "Retain"
        await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")
    await place_of.purge(job)


async def test_a_hook_that_cannot_stops_the_deployment(place_of: World) -> None:
    name, other, job = place_of.fresh("own"), place_of.fresh("other"), place_of.fresh("task")
    await place_of.volume(name)
    await place_of.volume(other)
    async with serving(place_of) as service:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        before = hook("before", "prestart", service.url, "snapshot", other)
        await place_of.run_job(with_tasks(consumer_job(job, name), before))
        allocation = await place_of.allocation(job, "failed")
        words = (f"does not claim the volume '{other}'", f"it claims {name}")
        await until_logged(place_of, allocation["ID"], "before", *words)
        assert await rows(service, "snapshot") == []
        states = (await place_of.client.get(f"/v1/allocation/{allocation['ID']}")).data["TaskStates"]
        assert not states["main"]["StartedAt"] or states["main"]["StartedAt"].startswith("0001-")
    await place_of.purge(job)


async def test_the_two_curl_lines_of_the_sample(place_of: World) -> None:
    name, job = place_of.fresh("own"), place_of.fresh("task")
    await place_of.volume(name)
    text = await asyncio.to_thread((SAMPLES / "database.nomad.hcl").read_text)
    (script,) = [textwrap.dedent(body) for body in re.findall(r"<<-EOT\n(.*?)\n\s*EOT\n", text, re.DOTALL)]
    async with serving(place_of) as service:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        task = hook("before", "prestart", service.url)
        task["Config"] = {"command": "/bin/sh", "args": ["-c", script]}
        task["Env"] |= {"VOLUME": name}
        await place_of.run_job(with_tasks(consumer_job(job, name), task))
        allocation = await place_of.allocation(job, "running")
        await eventually(lambda: runs(place_of, allocation["ID"], "main"), "the main task runs", 60)
        (made,) = await rows(service, "snapshot", volume=name)
        assert (made["name"], made["ready"]) == (f"before-{allocation['ID'][:8]}", True)
        await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")
    await place_of.purge(job)


def driver_of(world: World) -> int:
    """The process of the plugin's driver, which the agent started for this test's world."""
    wanted = str(world.store).encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words and b"adapters.localdisk" in words:
                return int(folder.name)
    raise AssertionError("the plugin's driver does not run")


async def test_a_job_that_goes_during_its_hook_leaves_nothing_half_done(place_of: World) -> None:
    name, job = place_of.fresh("own"), place_of.fresh("task")
    await place_of.volume(name)
    async with serving(place_of) as service:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        driver = await asyncio.to_thread(driver_of, place_of)
        before = hook("before", "prestart", service.url, "snapshot")
        stopped = False

        async def asked() -> bool:
            """The driver stands still from the moment when the volume is mounted and the hook can begin."""
            nonlocal stopped
            found = (await place_of.client.get(f"/v1/job/{job}/allocations")).data or []
            states = [row for row in found if (row["TaskStates"] or {}).get("before", {}).get("State") == "running"]
            if states and not stopped:
                os.kill(driver, signal.SIGSTOP)
                stopped = True
            return bool(await rows(service, "snapshot", volume=name))

        try:
            await place_of.run_job(with_tasks(consumer_job(job, name), before))
            await eventually(asked, "the hook has asked", 60)
            allocation = (await place_of.client.get(f"/v1/job/{job}/allocations")).data[0]["ID"]
            await place_of.client.call("DELETE", f"/v1/job/{job}", {"purge": "true"})
        finally:
            os.kill(driver, signal.SIGCONT)
        await place_of.allocation_gone(allocation)
        (made,) = await until_rows(service, "snapshot", 1, 60.0, volume=name, ready=True)
        held = await asyncio.to_thread(lambda: [path.name for path in (place_of.store / "snapshots").iterdir()])
        assert held.count(made["handle"]) == 1
        (operation,) = await until_rows(service, "op", 1, verb="create")
        await until_rows(service, "op", 1, verb="create", id=operation["id"], state="done")
        await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")
        assert await rows(service, "snapshot") == []
