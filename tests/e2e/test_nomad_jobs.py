"""A job's last snapshot, end to end: the service is killed while it waits for quiet data; nothing is lost or doubled.

On the fake agent, and on a real one where there is a binary; the CSI driver and its bytes are real on both.
"""

from __future__ import annotations

import asyncio
from typing import Any

from adapters.nomad.errors import AnswerError
from tests.contract.nomad.conftest import place_of, real_agent
from tests.contract.nomad.world import World, consumer_job, eventually
from tests.e2e.test_nomad import rows, runs, serving, snapshots_left, until_rows

__all__ = ["place_of", "real_agent"]

META = {"snapbridge_volumes": "*", "snapbridge_on_stop": "true", "snapbridge_together": "true"}


def stubborn_job(job: str, volumes: list[str]) -> dict[str, Any]:
    """A job that claims the volumes and stops when it may: when its shared folder has a file `go`."""
    row = consumer_job(job, volumes[0], Meta=META)
    group = row["TaskGroups"][0]
    block = group["Volumes"].pop("data")
    group["Volumes"] = {f"d{n}": {**block, "Source": volume} for n, volume in enumerate(volumes)}
    task = group["Tasks"][0]
    task["VolumeMounts"] = [{"Volume": f"d{n}", "Destination": f"/data{n}"} for n in range(len(volumes))]
    task["KillTimeout"] = 30_000_000_000  # a real agent allows no longer one
    waits = 'while [ ! -e "$NOMAD_ALLOC_DIR/go" ]; do sleep 0.2; done; exit 0'
    script = f"trap '{waits}' INT TERM; while true; do sleep 0.2; done"
    task["Config"] = {"command": "/bin/sh", "args": ["-c", script]}
    return row


async def summary(place: World, job: str) -> str:
    try:
        return str((await place.client.get(f"/v1/var/snapbridge/status/{job}")).data["Items"])
    except AnswerError:
        return ""


async def test_a_kill_while_the_final_snapshots_wait_loses_and_doubles_nothing(place_of: World) -> None:
    job, volumes = place_of.fresh("last"), [place_of.fresh("v"), place_of.fresh("v")]
    for volume in volumes:
        await place_of.volume(volume)
    await place_of.run_job(stubborn_job(job, volumes))
    allocation = await place_of.allocation(job, seconds=120)
    await eventually(lambda: runs(place_of, allocation["ID"], "main"), "its task runs", 60)
    left = await snapshots_left(place_of)
    async with serving(place_of) as service:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        await place_of.client.call("DELETE", f"/v1/job/{job}")

        async def waits() -> bool:
            return "still write" in await summary(place_of, job)

        await eventually(waits, "it waits for its writers", 30)
        assert await snapshots_left(place_of) == left
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)
        go = place_of.alloc_dir / allocation["ID"] / "alloc" / "go"
        await asyncio.to_thread(go.touch)

        async def all_ready() -> bool:
            found = [row for row in await rows(service, "snapshot") if row["volume"] in volumes]
            return len(found) == 2 and all(row["ready"] for row in found)

        await eventually(all_ready, "both final snapshots are ready", 60)
        assert len(await snapshots_left(place_of)) == len(left) + 2
        listed = await asyncio.to_thread(service.cli_json, "snapshot", "list", "--job", job)
        assert {row["volume"] for row in listed["items"]} == set(volumes)

        async def told() -> bool:
            text = await summary(place_of, job)
            return text.count("ready: ") == 2 and "together: " in text

        await eventually(told, "the summary tells of both", 30)
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)
        await eventually(told, "and still does after another kill", 30)
        assert len(await snapshots_left(place_of)) == len(left) + 2
        await place_of.purge(job)
