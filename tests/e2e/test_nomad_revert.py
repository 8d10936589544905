"""Reverting a Nomad job's volume in place, with the CLI: data, registrations, counts; and kill -9 on the way.

On the fake agent, and on a real one where there is a binary; the CSI driver and its bytes are real on both.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.contract.nomad.conftest import place_of, real_agent
from tests.contract.nomad.world import World, consumer_job, eventually
from tests.e2e.test_nomad import ROUTES, cli, rows, serving, until_rows
from tests.e2e.test_standalone import checksum
from tests.support import serve

__all__ = ["place_of", "real_agent"]

pytestmark = pytest.mark.timeout(900)
"""A real agent copies a chroot for each task, on a busy machine for half a minute."""


async def job_of(world: World, job: str) -> dict[str, Any]:
    return dict((await world.client.get(f"/v1/job/{job}")).data)


async def runs(world: World, job: str) -> None:
    """Wait until the job runs, and its deployment is through."""
    await world.allocation(job)

    async def quiet() -> bool:
        row = (await world.client.get(f"/v1/job/{job}/deployment")).data
        return row is None or row["Status"] != "running"

    await eventually(quiet, f"the deployment of {job} is through", 60)


async def settled(service: serve.Serve, world: World, route: str) -> None:
    wanted = {"socket": "socket", "api": "orchestrator"}[route]
    await until_rows(service, "plugin", 1, role="controller", healthy=True, route=wanted)


async def handle_of(service: serve.Serve, name: str) -> str:
    (row,) = await rows(service, "volume", name=name)
    return str(row["handle"])


@pytest.mark.parametrize("route", ROUTES)
async def test_revert_in_place_and_acknowledge(place_of: World, route: str) -> None:
    name, job = place_of.fresh("data"), place_of.fresh("web")
    old = await place_of.volume(name)
    data = place_of.store / "volumes" / old
    (data / "a.bin").write_bytes(os.urandom(1 << 20))
    before = checksum(data)
    await place_of.run_job(consumer_job(job, name))
    await runs(place_of, job)
    async with serving(place_of, route) as service:
        await settled(service, place_of, route)
        await cli(service, "snapshot", "create", name, f"{name}-one", "--wait")
        (data / "a.bin").write_bytes(b"damaged")
        damaged = checksum(data)

        plan = (await cli(service, "snapshot", "revert", f"{name}-one", "--dry-run")).stdout
        assert f"job {job}: group g (1)" in plan
        assert f"scale group g of the job {job} to 0" in plan
        assert await handle_of(service, name) == old, "a dry run changes nothing"

        refused = await cli(service, "snapshot", "revert", f"{name}-one", check=False)
        assert refused.returncode == 2, "nobody was asked"
        said = (await cli(service, "snapshot", "revert", f"{name}-one", "--yes", "--wait=3m")).stdout
        assert f"volume {name} reverted to" in said
        new = await handle_of(service, name)
        assert new != old
        assert checksum(place_of.store / "volumes" / new) == before
        assert checksum(data) == damaged, "the old volume keeps what it had"
        row = await job_of(place_of, job)
        assert (row["Stop"], row["TaskGroups"][0]["Count"]) == (False, 1)
        claims = (await place_of.client.get(f"/v1/volume/csi/{name}")).data["WriteAllocs"]
        assert len(claims) == 1

        (operation,) = await rows(service, "op", verb="revert")
        kept = operation["result"]["kept"]
        assert await handle_of(service, kept) == old
        again = await cli(service, "op", "acknowledge", operation["id"], "--delete", check=False)
        assert again.returncode == 2
        await cli(service, "op", "acknowledge", operation["id"], "--delete", "--yes")
        assert not data.exists()
        assert await rows(service, "volume", name=kept) == []
        assert checksum(place_of.store / "volumes" / new) == before
        twice = await cli(service, "op", "acknowledge", operation["id"], "--delete", "--yes", check=False)
        assert twice.returncode == 5
    await place_of.purge(job)


def asked(world: World, *words: str, stdin: str = "", check: bool = True) -> Any:
    """A command of an operator: the service's address and Nomad's, as in a shell."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        input=stdin, capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "NOMAD_ADDR": world.url, "NO_COLOR": "1"},
    )  # fmt: skip
    if check and done.returncode != 0:
        raise AssertionError(f"snapbridge {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


async def test_run_and_undo_a_version_with_its_data(place_of: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name, job = place_of.fresh("data"), place_of.fresh("shop")
    old = await place_of.volume(name)
    data = place_of.store / "volumes" / old
    (data / "a.bin").write_bytes(os.urandom(1 << 16))
    before = checksum(data)
    first = consumer_job(job, name, Meta={"release": "1"})
    async with serving(place_of, "socket") as service:
        await settled(service, place_of, "socket")
        monkeypatch.setenv("SNAPBRIDGE_ADDR", service.url)
        said = await asyncio.to_thread(asked, place_of, "nomad", "run", "-", stdin=json.dumps({"Job": first}))
        assert "registered as version 0" in said.stdout
        assert "is new: there is nothing to snapshot" in said.stderr
        second = json.dumps({**first, "Meta": {"release": "2"}})
        said = await asyncio.to_thread(asked, place_of, "nomad", "run", "-", stdin=second)
        assert "registered as version 1" in said.stdout
        (row,) = await rows(service, "snapshot", volume=name)
        assert (row["ready"], row["labels"]["job"], row["labels"]["job_version"]) == (True, job, "0")
        (data / "a.bin").write_bytes(b"written by release 2")
        newer = checksum(data)

        plan = (await asyncio.to_thread(asked, place_of, "nomad", "undo", job, "--dry-run")).stdout
        assert "start its version 0 instead of 1" in plan
        done = await asyncio.to_thread(asked, place_of, "nomad", "undo", job, "--yes")
        assert f"job {job} is what its version 0 was" in done.stdout
        new = await handle_of(service, name)
        assert new != old
        assert checksum(place_of.store / "volumes" / new) == before
        assert checksum(data) == newer, "what release 2 wrote is kept"
        now = await job_of(place_of, job)
        assert (now["Meta"], now["Stop"]) == ({"release": "1"}, False)
        await place_of.allocation(job)

        again = await asyncio.to_thread(asked, place_of, "nomad", "undo", job, "--yes", check=False)
        assert again.returncode == 5
        assert "nothing to undo" in again.stderr
        none = await asyncio.to_thread(
            asked, place_of, "nomad", "undo", job, "--to-version", "7", "--yes", check=False
        )
        assert none.returncode == 4
    await place_of.purge(job)


async def test_kill_9_in_the_middle_and_the_job_runs_on_the_restored_volume(place_of: World) -> None:
    """Killed at several moments of one revert; each next start goes on from the journal."""
    name, job = place_of.fresh("data"), place_of.fresh("web")
    old = await place_of.volume(name)
    data = place_of.store / "volumes" / old
    (data / "a.bin").write_bytes(os.urandom(1 << 16))
    before = checksum(data)
    await place_of.run_job(consumer_job(job, name))
    await runs(place_of, job)
    async with serving(place_of, "socket") as service:
        await settled(service, place_of, "socket")
        await cli(service, "snapshot", "create", name, f"{name}-one", "--wait")
        (data / "a.bin").write_bytes(b"damaged")
        await cli(service, "snapshot", "revert", f"{name}-one", "--yes")
        for _ in range(6):
            await asyncio.to_thread(service.process.kill)
            await asyncio.to_thread(service.start)
            await settled(service, place_of, "socket")
            (operation,) = await rows(service, "op", verb="revert")
            if operation["state"] != "running":
                break
        await cli(service, "op", "watch", operation["id"], "--timeout", "3m")
        new = await handle_of(service, name)
        assert new != old
        assert checksum(place_of.store / "volumes" / new) == before
        assert (await job_of(place_of, job))["TaskGroups"][0]["Count"] == 1
        await place_of.allocation(job)
        made = [row["name"] for row in await rows(service, "volume") if row["handle"] == new]
        assert made == [name], "one registration of the new volume"
    await place_of.purge(job)
