"""What a job file and a settings variable ask for, and what is told of it. On the fake and a real agent."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

from adapters.nomad.adapter import NomadOrchestrator
from adapters.nomad.client import part
from adapters.nomad.decide import hooks, paths
from adapters.nomad.errors import AnswerError
from bridge.model.snapshot import DeletionPolicy
from tests.contract.nomad.test_nomad import bridge
from tests.contract.nomad.test_samples import SAMPLES, parsed
from tests.contract.nomad.world import World, consumer_job, eventually
from tests.integration.nomad.doubles import MemoryIntake, MemorySink, until
from tests.support.nomad import hcl, real

STOP = {"snapbridge_volumes": "data", "snapbridge_on_stop": "true"}
ON = {"snapbridge_volumes": "data", "snapbridge_on_deploy": "true"}


async def items(place: World, path: str) -> dict[str, str]:
    try:
        return dict((await place.client.get(f"/v1/var/{path}")).data["Items"])
    except AnswerError as error:
        if error.status != 404:
            raise
        return {}


async def put(place: World, path: str, given: dict[str, str]) -> None:
    await place.client.call("PUT", f"/v1/var/{path}", {"namespace": "default"}, body={"Items": given})


async def told(place: World, job: str, key: str, text: str) -> None:
    """Wait until this stands in the job's summary."""

    async def there() -> bool:
        return text in (await items(place, paths.status_path(job))).get(key, "")

    await eventually(there, f"{key} of {job}'s summary tells {text!r}", 30)


def idle(job: str, volume: str, meta: dict[str, str] | None = None) -> dict[str, Any]:
    """A job whose group claims the volume and runs nothing."""
    row = consumer_job(job, volume, driver="raw_exec", Meta=meta)
    row["TaskGroups"][0]["Count"] = 0
    return row


async def writers(place: World, volume: str) -> int:
    return len((await place.client.get(f"/v1/volume/csi/{volume}")).data["WriteAllocs"] or {})


async def test_a_stopped_job_is_snapshotted_when_its_last_allocation_has_let_go(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("ends")
    await place_of.volume(volume)
    intake = MemoryIntake()
    async with bridge(place_of, intake, MemorySink()) as adapter:
        await place_of.run_job(consumer_job(job, volume, Meta=STOP))
        allocation = (await place_of.allocation(job, seconds=120))["ID"]
        assert await writers(place_of, volume) == 1
        await place_of.client.call("DELETE", f"/v1/job/{job}")
        await until(lambda: volume in intake.volumes(), "the final snapshot", 60)
        assert await writers(place_of, volume) == 0
        await place_of.allocation_gone(allocation)
        (draft,) = [draft for draft in intake.asks if draft.volume == volume]
        assert draft.why == "stop of the job (version 1)"
        await told(place_of, job, f"volume.{volume}", "ready: ")
        assert mine(adapter, job) == []
    again = MemoryIntake()
    async with bridge(place_of, again, MemorySink()):
        await until(lambda: volume in again.volumes(), "found by the list after a restart", 30)
    assert draft.uid in again.booked
    await place_of.purge(job)


def mine(adapter: NomadOrchestrator, job: str) -> list[str]:
    return [text for text in adapter.problems() if job in text]


async def test_a_purge_is_a_stop_and_takes_the_summary_with_it(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("purged")
    await place_of.volume(volume)
    intake = MemoryIntake()
    async with bridge(place_of, intake, MemorySink()):
        await place_of.run_job(idle(job, volume, STOP))
        await told(place_of, job, "job_version", "0")
        await place_of.purge(job)
        await until(lambda: volume in intake.volumes(), "the final snapshot", 30)

        async def gone() -> bool:
            return not await items(place_of, paths.status_path(job))

        await eventually(gone, "the summary is removed", 30)


async def test_settings_in_a_variable_win_and_need_no_new_version(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("a/set")
    await place_of.volume(volume)
    path = paths.settings_path(job)
    await put(place_of, path, {"on_deploy": "false", "group.g.deletion_policy": "Retain"})
    intake = MemoryIntake()
    async with bridge(place_of, intake, MemorySink()) as adapter:
        await place_of.run_job(idle(job, volume, ON))
        await told(place_of, job, "job_version", "0")
        await put(place_of, path, {"snapbridge_on_deplyo": "true", "group.g.deletion_policy": "Retain"})
        wrong = f"snapbridge_on_deplyo (variable {path}) is unknown; did you mean snapbridge_on_deploy?"
        await told(place_of, job, "problems", wrong)
        await until(lambda: volume in intake.volumes(), "meta alone says when", 30)
        (draft,) = [draft for draft in intake.asks if draft.volume == volume]
        assert (draft.policy, draft.why) == (DeletionPolicy.RETAIN, "deploy of version 0")
        assert any(wrong in text for text in adapter.problems())
        await place_of.client.call("DELETE", f"/v1/var/{path}")
        await told(place_of, job, "problems", "none")
        assert mine(adapter, job) == []
        assert (await place_of.client.get(f"/v1/job/{part(job)}")).data["Version"] == 0
    await place_of.client.call("DELETE", f"/v1/job/{part(job)}", {"purge": "true"})


async def test_a_summary_never_takes_the_place_of_what_somebody_else_wrote(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("theirs")
    await place_of.volume(volume)
    path = paths.status_path(job)
    await put(place_of, path, {"mine": "yes"})
    intake = MemoryIntake()
    async with bridge(place_of, intake, MemorySink()) as adapter:
        await place_of.run_job(idle(job, volume, ON))
        said = f"the variable '{path}' in 'default' is not ours"
        await until(lambda: any(said in text for text in adapter.problems()), "said", 30)
        await place_of.purge(job)
        await until(lambda: not any(said in text for text in adapter.problems()), "the job is gone", 30)
    assert await items(place_of, path) == {"mine": "yes"}
    await place_of.client.call("DELETE", f"/v1/var/{path}")


async def test_the_sample_of_a_job_with_settings_means_what_it_says(place_of: World) -> None:
    job = await parsed(place_of, "meta.nomad.hcl")
    (deploy,) = hooks.plan("east", job).wanted
    assert (deploy.volume, deploy.policy, deploy.moment) == (
        "ledger-data", DeletionPolicy.RETAIN, hooks.Moment.DEPLOY,
    )  # fmt: skip
    (stop,) = hooks.plan("east", {**job, "Stop": True}).wanted
    assert (stop.moment, stop.wait_seconds) == (hooks.Moment.STOP, 300.0)


async def test_the_sample_of_a_settings_variable_is_one(place_of: World) -> None:
    """On a real agent it is put by Nomad's own command, as an operator does."""
    file = SAMPLES / "settings.nv.hcl"
    read = hcl.parse(file.read_text())
    (block,) = read.of_type("items")
    if place_of.kind == "real":
        words = [real.binary(), "var", "put", f"-address={place_of.url}", f"@{file}"]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        assert await items(place_of, str(read.attributes["path"])) == block.attributes
        await place_of.client.call("DELETE", f"/v1/var/{read.attributes['path']}")
    job = await parsed(place_of, "meta.nomad.hcl")
    assert read.attributes["path"] == paths.settings_path(job["ID"])
    plan = hooks.plan("east", {**job, "Stop": True}, block.attributes)
    assert plan.problems == ()
    (stop,) = plan.wanted
    assert (stop.wait_seconds, stop.policy) == (30.0, DeletionPolicy.RETAIN)
    assert hooks.plan("east", job, block.attributes).wanted == ()
