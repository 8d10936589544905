"""Stopping and starting who uses a volume: Nomad's own preconditions and words, on the fake and on a real agent."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.nomad.decide.workloads import MARK, Memo
from adapters.nomad.errors import AnswerError, classify
from adapters.nomad.workloads import NomadWorkloads
from bridge.model.failure import BridgeError, ConflictError, UnavailableError
from bridge.model.revert import Workload, WorkloadState
from tests.contract.nomad.world import World, consumer_job, eventually

pytestmark = pytest.mark.timeout(400)


async def ready(world: World, **more: Any) -> tuple[str, str]:
    """A volume and a job that runs on it, its deployment over; returns both names."""
    volume, job = world.fresh("v"), world.fresh("web")
    await world.volume(volume)
    row = consumer_job(job, volume)
    row["TaskGroups"][0].update(more)
    await world.run_job(row)
    await through(world, job)
    return volume, job


async def through(world: World, job: str) -> None:
    await world.allocation(job, seconds=150)

    async def quiet() -> bool:
        row = (await world.client.get(f"/v1/job/{job}/deployment")).data
        version = (await world.client.get(f"/v1/job/{job}")).data["Version"]
        return row is not None and (row["JobVersion"], row["Status"]) == (version, "successful")

    await eventually(quiet, f"the deployment of {job} is through", 60)


async def noted(world: World, volume: str, **more: str) -> Workload:
    found = await NomadWorkloads(world.client).note("default", [volume], mark="op-1", **more)
    assert found is not None
    return found


async def until(world: World, workload: Workload, wanted: WorkloadState) -> None:
    async def so() -> bool:
        return await NomadWorkloads(world.client).look("default", workload) is wanted

    await eventually(so, f"{workload.name} is {wanted.value}", 60)


async def free(world: World, volume: str) -> None:
    async def so() -> bool:
        row = (await world.client.get(f"/v1/volume/csi/{volume}")).data
        return not row["WriteAllocs"] and not row["AccessMode"]

    await eventually(so, f"nobody claims {volume}", 60)


@pytest.mark.parametrize("mode", ["scale", "stop"])
async def test_stopped_and_started_as_it_was(place_of: World, mode: str) -> None:
    more = {"Scaling": {"Enabled": True, "Min": 1, "Max": 3, "Policy": {}}} if mode == "stop" else {}
    volume, job = await ready(place_of, **more)
    workloads = NomadWorkloads(place_of.client)
    workload = await noted(place_of, volume)
    assert (workload.name, Memo.of(workload).mode) == (f"job {job}", mode)
    assert await workloads.look("default", workload) is WorkloadState.RUNNING
    await workloads.pause("default", workload, again=False)
    assert await workloads.look("default", workload) is WorkloadState.PAUSED
    await free(place_of, volume)
    row = (await place_of.client.get(f"/v1/job/{job}")).data
    assert row["Stop"] is (mode == "stop")
    with pytest.raises(ConflictError):
        await workloads.pause("default", workload, again=False)
    await workloads.resume("default", workload, back=False)
    await workloads.resume("default", workload, back=False)
    await until(place_of, workload, WorkloadState.RUNNING)
    row = (await place_of.client.get(f"/v1/job/{job}")).data
    assert (row["Stop"], row["TaskGroups"][0]["Count"]) == (False, 1)
    assert MARK not in (row["Meta"] or {})
    await place_of.purge(job)


async def test_a_job_that_changed_is_not_stopped_and_one_that_was_stopped_is_not_started(place_of: World) -> None:
    volume, job = await ready(place_of)
    workloads = NomadWorkloads(place_of.client)
    workload = await noted(place_of, volume)
    row = (await place_of.client.get(f"/v1/job/{job}")).data
    await place_of.run_job({**row, "Meta": {"by": "somebody"}})
    with pytest.raises(ConflictError, match="has changed since"):
        await workloads.pause("default", workload, again=False)
    stale = {"Count": 0, "Target": {"Group": "g"}, "JobModifyIndex": row["JobModifyIndex"]}
    await through(place_of, job)  # a deployment under way is what Nomad says first
    with pytest.raises(AnswerError) as caught:
        await place_of.client.call("POST", f"/v1/job/{job}/scale", body=stale)
    assert classify(caught.value.status, caught.value.text).code == "CONFLICT", caught.value.text
    fresh = await noted(place_of, volume)
    await workloads.pause("default", fresh, again=False)
    await place_of.client.call("DELETE", f"/v1/job/{job}")
    assert await workloads.look("default", fresh) is WorkloadState.HALTED
    with pytest.raises(ConflictError, match="stopped by somebody else"):
        await workloads.resume("default", fresh, back=True)
    await place_of.purge(job)
    assert await workloads.look("default", fresh) is WorkloadState.HALTED


async def test_a_deployment_under_way_is_waited_for(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("web")
    await place_of.volume(volume)
    row = consumer_job(job, volume)
    row["TaskGroups"][0]["Tasks"].append(_never_ready())
    await place_of.run_job(row)
    await place_of.allocation(job, seconds=150)
    workload = await noted(place_of, volume)
    with pytest.raises(UnavailableError, match="active deployment"):
        await NomadWorkloads(place_of.client).pause("default", workload, again=False)
    await place_of.purge(job)


def _never_ready() -> dict[str, Any]:
    """A prestart task that goes on: the allocation runs, and does not become healthy."""
    return {
        "Name": "wait", "Driver": "exec", "KillTimeout": 1_000_000_000,
        "Lifecycle": {"Hook": "prestart", "Sidecar": False},
        "Config": {"command": "/bin/sleep", "args": ["600"]}, "Resources": {"CPU": 20, "MemoryMB": 32},
    }  # fmt: skip


async def test_a_version_that_is_not_the_one_expected_is_refused_in_nomads_words(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("web")
    await place_of.volume(volume)
    row = consumer_job(job, volume, driver="raw_exec")
    row["TaskGroups"][0]["Count"] = 0
    await place_of.run_job(row)
    await place_of.run_job({**row, "Meta": {"release": "2"}})
    cases = [
        ({"JobVersion": 0, "EnforcePriorVersion": 7}, "CONFLICT"),
        ({"JobVersion": 1}, "NOT_FOUND"),
        ({"JobVersion": 9}, "NOT_FOUND"),
    ]
    for body, code in cases:
        with pytest.raises(AnswerError) as caught:
            await place_of.client.call("POST", f"/v1/job/{job}/revert", body={"JobID": job, **body})
        assert classify(caught.value.status, caught.value.text).code == code, caught.value.text
    await place_of.purge(job)


async def test_a_batch_job_is_not_stopped_for_a_revert(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("import")
    await place_of.volume(volume)
    row = consumer_job(job, volume)
    await place_of.run_job({**row, "Type": "batch"})
    await place_of.allocation(job, seconds=150)
    with pytest.raises(BridgeError, match="is a batch job"):
        await noted(place_of, volume)
    await place_of.purge(job)
