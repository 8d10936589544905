"""The story on Nomad: a job's meta asks for the snapshot. On a real agent where there is one, else on the fake.

The CSI driver is a real process, run by the agent as a plugin job, on both.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from adapters.nomad.errors import AnswerError
from demo.story import Story, checksum, fill
from tests.contract.nomad.world import PLUGIN, World, consumer_job, world
from tests.support import localdisk, serve
from tests.support.bed import paths, process
from tests.support.nomad import real
from tests.support.nomad.agent import FakeNomad

VOLUME, COPY, JOB = "web-data", "web-data-restored", "web"
META = {"snapbridge_on_deploy": "true", "snapbridge_volumes": "data"}
WAIT_SECONDS = 60.0


def main() -> None:
    story = Story()
    binary = real.binary()
    if binary:
        print(f"Nomad: a real agent, {binary}, on this host.", flush=True)
    else:
        print(
            "Nomad: a FAKE agent, as NOMAD_BIN names no binary; the service, the CSI driver and the bytes are real."
        )
    try:
        with story.interruptible():
            asyncio.run(_tell(story, real_agent=bool(binary)))
    except (process.ServerError, process.MissingServerError, AssertionError) as error:
        print(f"   {error}", flush=True)
        raise SystemExit(1) from None
    story.end(
        "Done. The data came back, and nothing is left behind.",
        "docs/nomad.md explains the hooks, and configs/nomad has jobs to start from",
    )


async def _tell(story: Story, *, real_agent: bool) -> None:
    story.step(f"Start the agent, and run the CSI driver as its plugin `{PLUGIN}`")
    async with _agent(real_agent) as place:
        story.say(f"PUT /v1/jobs: csi-{PLUGIN}, a raw_exec task with a csi_plugin block")
        files = await _volume(story, place)
        before = checksum(files)
        story.say(f"its files have the checksum {before}")
        async with _serving(story, place):
            uid = await _deploy(story, place)
            story.step("Have an accident: the new version deletes a folder and overwrites a file")
            shutil.rmtree(files / "notes")
            (files / "photo.raw").write_bytes(b"oops")
            story.expect(checksum(files) != before, f"the volume is damaged: checksum {checksum(files)}")
            await _restore(story, place, uid, before)
            await _delete(story, place, uid)


@contextlib.asynccontextmanager
async def _agent(real_agent: bool) -> AsyncIterator[World]:
    store = paths.fresh("store")
    if not real_agent:
        async with FakeNomad() as fake:
            state, alloc = str(fake.data_dir / "client"), fake.data_dir / "alloc"
            async with world("fake", fake.url, state_dir=state, alloc_dir=alloc, store=store) as place:
                yield place
        return
    agent = await asyncio.to_thread(real.start)
    try:
        found = world("real", agent.url, state_dir=agent.state_dir, alloc_dir=agent.alloc_dir, store=store)
        async with found as place:
            yield place
    finally:
        real.stop(agent)  # it ends the plugin's task too; a purge just before would leave a process of it behind
        localdisk.clear(store)
        await asyncio.to_thread(paths.remove_tree, agent.alloc_dir.parent)  # a chroot per task: some seconds


async def _volume(story: Story, place: World) -> Path:
    story.step("Make a volume with real files")
    handle = await place.volume(VOLUME)
    story.say(f"PUT /v1/volume/csi/{VOLUME}/create: {handle}")
    files = place.store / "volumes" / handle
    fill(files)
    return files


@contextlib.asynccontextmanager
async def _serving(story: Story, place: World) -> AsyncIterator[None]:
    story.step("Start the service; Nomad's API is all that it is told of")
    cluster = {"name": "east", "kind": "nomad", "address": place.url, "state_dir": place.state_dir}
    made = serve.service(clusters=[cluster], plugins=[])
    story.env["SNAPBRIDGE_ADDR"] = made.url
    story.say("$ snapbridge serve -c snapbridge.yaml &")
    try:
        await asyncio.to_thread(made.start)
        await _until(story, "plugin", role="controller", healthy=True)
        await asyncio.to_thread(story.snapbridge, "plugin", "list")
        await asyncio.to_thread(story.snapbridge, "volume", "list")
        yield
    finally:
        await asyncio.to_thread(made.process.stop)


async def _deploy(story: Story, place: World) -> str:
    story.step("Deploy a job whose meta asks for a snapshot")
    meta = "  ".join(f'{key} = "{value}"' for key, value in META.items())
    story.say(f'PUT /v1/jobs: job "{JOB}" {{ meta {{ {meta} }} … }}')
    await place.run_job(consumer_job(JOB, VOLUME, Meta=META))
    row = await _until(story, "snapshot", ready=True)
    await asyncio.to_thread(story.snapbridge, "snapshot", "list")
    story.expect(bool(row["askedBy"] and row["why"]), f"asked for by {row['askedBy']}, because: {row['why']}")
    return str(row["uid"])


async def _restore(story: Story, place: World, uid: str, before: str) -> None:
    story.step("Restore the snapshot into a new volume; it is registered with Nomad at once")
    await asyncio.to_thread(story.snapbridge, "snapshot", "restore", uid, "--as", COPY, "--wait")
    await asyncio.to_thread(story.snapbridge, "volume", "list")
    row = (await place.client.get(f"/v1/volume/csi/{COPY}")).data
    restored = checksum(place.store / "volumes" / row["ExternalID"])
    story.expect(restored == before, f"the bytes are back: checksum {restored}")


async def _delete(story: Story, place: World, uid: str) -> None:
    story.step("Delete the snapshot, stop the job, delete the volumes")
    await asyncio.to_thread(story.snapbridge, "snapshot", "delete", uid, "--yes")
    await asyncio.to_thread(story.snapbridge, "snapshot", "list")
    allocation = await place.allocation(JOB)
    await place.purge(JOB)
    story.say(f"DELETE /v1/job/{JOB}")
    await place.allocation_gone(allocation["ID"])
    for name in (VOLUME, COPY):
        await _delete_volume(place, name)
        story.say(f"DELETE /v1/volume/csi/{name}/delete")

    story.step("Show that nothing is left, in the driver's own folder")
    for kind in ("snapshots", "volumes"):
        left = sorted(path.name for path in (place.store / kind).iterdir())
        story.expect(left == [], f"it holds no {kind}")


async def _delete_volume(place: World, name: str) -> None:
    """Nomad refuses while a claim is open, and frees the claim of a stopped job a little later."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await place.client.call("DELETE", f"/v1/volume/csi/{name}/delete", timeout_seconds=30)
                return
            except AnswerError as error:
                if "in use" not in str(error):
                    raise
            await asyncio.sleep(0.5)


async def _until(story: Story, noun: str, **wanted: Any) -> dict[str, Any]:
    """The one row of `snapbridge NOUN list` that has these fields, once it is there."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            rows = await asyncio.to_thread(story.rows, noun)
            found = [row for row in rows if all(row[field] == value for field, value in wanted.items())]
            if found:
                return found[0]
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    main()
