"""Freeze and thaw around a cut, with the whole service: real tasks, a real driver, and kill -9 between the two.

On the fake agent, and on a real one where there is a binary. A freeze makes a marker file in the task's own
directory and its thaw removes it: a frozen file system cannot be had in every place where these tests run.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.contract.nomad.conftest import place_of, real_agent
from tests.contract.nomad.world import World, consumer_job, eventually
from tests.e2e.test_nomad import cli, rows, serving, until_rows
from tests.e2e.test_nomad_tasks import driver_of
from tests.support.serve import Serve

__all__ = ["place_of", "real_agent"]

FREEZE = 'touch "$NOMAD_ALLOC_DIR/frozen"; echo freeze >> "$NOMAD_ALLOC_DIR/log"'
THAW = 'rm -f "$NOMAD_ALLOC_DIR/frozen"; echo thaw >> "$NOMAD_ALLOC_DIR/log"'


class Frozen:
    """One job with a volume, and what its task is."""

    def __init__(self, world: World, job: str, volume: str, allocation: str) -> None:
        self.job = job
        self.volume = volume
        self.allocation = allocation
        self.shared = world.alloc_dir / allocation / "alloc"

    async def is_frozen(self) -> bool:
        return await asyncio.to_thread((self.shared / "frozen").exists)

    async def is_thawed(self) -> bool:
        return not await self.is_frozen()

    async def switches(self) -> list[str]:
        """The switches that are armed."""
        found = await asyncio.to_thread(lambda: [path.name for path in self.shared.glob(".snapbridge-freeze-*")])
        return sorted(found)

    async def log(self) -> list[str]:
        text: str = await asyncio.to_thread((self.shared / "log").read_text)
        return text.split()


@asynccontextmanager
async def job_of(world: World, *, second: str = "", **meta: str) -> AsyncIterator[Frozen]:
    """A job whose task can be frozen; `second` is one more volume that it claims."""
    volume, job = world.fresh("held"), world.fresh("db")
    await world.volume(volume)
    # Long: on a busy machine the calls between freeze and thaw take their time.
    given = {"snapbridge_quiesce": FREEZE, "snapbridge_thaw": THAW, "snapbridge_quiesce_seconds": "120", **meta}
    row = consumer_job(job, volume, Meta=given)
    if second:
        await world.volume(second)
        blocks = row["TaskGroups"][0]["Volumes"]
        blocks["more"] = {**blocks["data"], "Source": second}
        row["TaskGroups"][0]["Tasks"][0]["VolumeMounts"].append({"Volume": "more", "Destination": "/more"})
    row["TaskGroups"][0]["Tasks"][0]["Actions"] = [
        {"Name": "freeze", "Command": "/bin/sh", "Args": ["-c", FREEZE]},
        {"Name": "thaw", "Command": "/bin/sh", "Args": ["-c", THAW]},
    ]
    row["Meta"] = {key: text for key, text in given.items() if text}
    await world.run_job(row)
    allocation = await world.allocation(job, "running")
    try:
        yield Frozen(world, job, volume, str(allocation["ID"]))
    finally:
        await world.purge(job)


async def freezes(service: Serve, **more: Any) -> list[dict[str, Any]]:
    return await rows(service, "op", verb="freeze", **more)


async def test_a_cut_is_quiesced_by_commands_and_by_actions(place_of: World) -> None:
    actions = {"snapbridge_quiesce_action": "freeze", "snapbridge_thaw_action": "thaw"}
    plain = dict.fromkeys(("snapbridge_quiesce", "snapbridge_thaw"), "")
    async with serving(place_of) as service:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        for meta in ({}, {**plain, **actions}):
            async with job_of(place_of, **meta) as one:
                await cli(service, "snapshot", "create", one.volume, f"s-{one.volume}", "--wait")
                assert await one.is_thawed()
                assert await one.log() == ["freeze", "thaw"]
                assert await one.switches() == []
                (made,) = await rows(service, "snapshot", volume=one.volume)
                assert made["labels"]["consistency"] == "quiesced"
                await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")
        assert {row["state"] for row in await freezes(service)} == {"done"}


async def test_a_group_is_cut_under_one_freeze(place_of: World) -> None:
    second = place_of.fresh("more")
    async with serving(place_of) as service, job_of(place_of, second=second) as one:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        words = ("--volume", one.volume, "--volume", second)
        await cli(service, "group", "create", f"g-{one.volume}", *words, "--wait")
        found = await rows(service, "snapshot", ready=True)
        assert [row["labels"].get("consistency") for row in found] == ["quiesced", "quiesced"]
        # One freeze for both. Where the driver refuses the one call (it does so for mounted directories), the calls
        # that go out together come under a second one.
        assert await one.log() in (["freeze", "thaw"], ["freeze", "thaw"] * 2)
        assert await one.is_thawed()
        await cli(service, "group", "delete", f"g-{one.volume}")


async def test_a_freeze_that_fails_fails_the_snapshot_and_cuts_nothing(place_of: World) -> None:
    async with serving(place_of) as service, job_of(place_of, snapbridge_quiesce=f"{FREEZE}; exit 3") as one:
        await until_rows(service, "plugin", 1, role="controller", healthy=True)
        done = await cli(service, "snapshot", "create", one.volume, "s", "--wait", check=False)
        assert done.returncode == 1
        assert "exit code 3" in done.stderr

        async def settled() -> bool:
            """The snapshot is tried again after a pause, so a moment of it may be seen here."""
            return await one.is_thawed() and not await one.switches()

        await eventually(settled, "thawed", 30)

        async def failing() -> bool:
            """Between two tries; there is no handle at any time."""
            (made,) = await rows(service, "snapshot", volume=one.volume)
            assert made["handle"] is None
            return bool(made["state"] == "failing")

        await eventually(failing, "the snapshot is told to fail", 30)
        (made,) = await rows(service, "snapshot", volume=one.volume)
        await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")


async def _killed_while_frozen(place_of: World, service: Serve, one: Frozen) -> None:
    """The driver stands still, so the cut takes its time; then the service is killed as a crash would."""
    await until_rows(service, "plugin", 1, role="controller", healthy=True)
    driver = await asyncio.to_thread(driver_of, place_of)
    os.kill(driver, signal.SIGSTOP)
    try:
        await cli(service, "snapshot", "create", one.volume, "s")
        await eventually(one.is_frozen, "the task is frozen", 60)
        await asyncio.to_thread(service.kill)
        assert await one.is_frozen()
    finally:
        os.kill(driver, signal.SIGCONT)


async def test_killed_between_freeze_and_thaw_the_next_start_thaws(place_of: World) -> None:
    async with serving(place_of) as service, job_of(place_of, snapbridge_quiesce_seconds="300") as one:
        await _killed_while_frozen(place_of, service, one)
        await asyncio.to_thread(service.start)
        await eventually(one.is_thawed, "the next process thaws", 60)
        (made,) = await until_rows(service, "snapshot", 1, 60.0, volume=one.volume, ready=True)
        assert made["labels"]["consistency"] == "crash-consistent"
        assert "an earlier call" in made["labels"]["consistency_why"]

        async def settled() -> bool:
            return not await freezes(service, state="running") and not await one.switches()

        await eventually(settled, "nothing is owed", 30)
        assert await one.is_thawed()
        await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")


async def test_killed_for_good_the_switch_in_the_task_thaws(place_of: World) -> None:
    async with serving(place_of) as service, job_of(place_of, snapbridge_quiesce_seconds="12") as one:
        await _killed_while_frozen(place_of, service, one)
        assert len(await one.switches()) == 1
        await eventually(one.is_thawed, "the task thaws itself", 60)

        async def logged() -> bool:
            return len(await one.log()) == 2

        await eventually(logged, "the thaw has noted itself", 30)
        assert await one.log() == ["freeze", "thaw"]
        await asyncio.to_thread(service.start)
        (made,) = await until_rows(service, "snapshot", 1, 60.0, volume=one.volume, ready=True)
        await cli(service, "snapshot", "delete", made["uid"], "--yes", "--wait")
        held = await asyncio.to_thread(lambda: [path.name for path in Path(place_of.store / "snapshots").iterdir()])
        assert made["handle"] not in held
