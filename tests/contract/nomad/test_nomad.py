"""What only Nomad has: hooks in jobs, two routes to a plugin, workload identities. On the fake and a real agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.nomad.adapter import NomadOrchestrator, build
from adapters.nomad.errors import AnswerError
from adapters.nomad.handles import Handles
from adapters.nomad.plugins import ApiCalls
from bridge.model.failure import ConflictError, DeniedError
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability
from bridge.model.snapshot import HandleSource
from bridge.model.volume import NewVolume, Volume
from tests.contract.nomad.world import DRIVER, PLUGIN, World, consumer_job, eventually
from tests.integration.nomad.doubles import MemoryIntake, MemorySecrets, MemorySink, running, until

ON = {"snapbridge_volumes": "data", "snapbridge_on_deploy": "true"}


@asynccontextmanager
async def bridge(
    world: World, intake: MemoryIntake, sink: MemorySink, **more: object
) -> AsyncIterator[NomadOrchestrator]:
    adapter = build("east", world.settings(**more), secrets=MemorySecrets())
    async with running(adapter.run(lambda key: None, intake, sink)):
        await until(lambda: adapter.ready() == "", "the adapter is ready", 30)
        yield adapter


def api_calls(world: World) -> ApiCalls:
    return ApiCalls("east", world.client, Handles(world.client), plugin_id=PLUGIN, driver=DRIVER)


async def test_a_deploy_asks_for_a_snapshot_at_once(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("web")
    await place_of.volume(volume)
    intake = MemoryIntake()
    async with bridge(place_of, intake, MemorySink()) as adapter:
        assert adapter.version is not None
        assert adapter.version >= (2, 0, 0)
        row = consumer_job(job, volume, driver="raw_exec", Meta=ON)
        row["TaskGroups"][0]["Count"] = 0
        await place_of.run_job(row)
        await until(lambda: volume in intake.volumes(), "the snapshot is asked for")
        (first,) = intake.booked.values()
        await place_of.run_job({**row, "Meta": {**ON, "snapbridge_deletion_policy": "Retain", "x": "y"}})
        await until(lambda: len(intake.booked) == 2, "the second version too")
        assert first.uid in intake.booked
        assert first.labels == {"job": job, "group": "g"}
        path = f"/v1/var/snapbridge/status/{job}"

        async def told() -> bool:
            try:
                return bool((await place_of.client.get(path)).data["Items"]["job_version"] == "1")
            except AnswerError as error:
                if error.status != 404:
                    raise
                return False

        await eventually(told, "the summary tells of the second version", 30)
    await place_of.purge(job)


async def test_a_missed_deploy_is_caught_up_and_never_doubled(place_of: World) -> None:
    volume, job = place_of.fresh("v"), place_of.fresh("web")
    await place_of.volume(volume)
    row = consumer_job(job, volume, driver="raw_exec", Meta=ON)
    row["TaskGroups"][0]["Count"] = 0
    await place_of.run_job(row)
    intake = MemoryIntake()
    for _ in range(2):
        async with bridge(place_of, intake, MemorySink()):
            await until(lambda: volume in intake.volumes(), "found by the list")
            await asyncio.sleep(0.2)
    assert len([draft for draft in intake.booked.values() if draft.volume == volume]) == 1
    await place_of.purge(job)


async def test_a_snapshots_whole_life_over_the_api(place_of: World) -> None:
    name = place_of.fresh("v")
    handle = await place_of.volume(name)
    calls = api_calls(place_of)
    cut = await calls.create_snapshot(name=place_of.fresh("s"), volume_handle=handle, parameters={}, secrets={})
    assert isinstance(cut, Done), cut
    assert cut.value.ready
    assert cut.value.source_handle == handle
    seen = await calls.inspect_snapshot(handle=cut.value.handle, secrets={})
    assert isinstance(seen, Done)
    assert seen.value.handle == cut.value.handle
    listed = [o async for o in calls.list_snapshots(volume_handle=handle, secrets={})]
    assert [o.value.handle for o in listed if isinstance(o, Done)] == [cut.value.handle]

    new = NewVolume(place_of.fresh("restore"), DRIVER, HandleSource(cut.value.handle), 16 << 20)
    made = await calls.create_volume(new=new, secrets={})
    assert isinstance(made, Done), made
    assert await calls.create_volume(new=new, secrets={}) == made
    adapter = build("east", place_of.settings(), secrets=MemorySecrets())
    like = await adapter.volumes.find("default", name)
    target = place_of.fresh("restored")
    wanted = Volume("east", "default", target, DRIVER, made.value.handle, made.value.capacity_bytes)
    await adapter.volumes.register(wanted, like)
    handles = [v.name for v in await adapter.volumes.list() if v.handle == made.value.handle]
    assert handles == [target]

    assert isinstance(await calls.delete_volume(handle=made.value.handle, secrets={}), Done)
    assert isinstance(await calls.delete_snapshot(handle=cut.value.handle, secrets={}), Done)
    assert isinstance(await calls.delete_snapshot(handle=cut.value.handle, secrets={}), Done)
    gone = await calls.inspect_snapshot(handle=cut.value.handle, secrets={})
    assert isinstance(gone, Failed)
    assert gone.failure.code == "NOT_FOUND"
    await adapter.close()


async def test_a_volume_in_use_keeps_its_data(place_of: World) -> None:
    name, job = place_of.fresh("v"), place_of.fresh("user")
    handle = await place_of.volume(name)
    await place_of.run_job(consumer_job(job, name))
    await place_of.allocation(job)
    adapter = build("east", place_of.settings(), secrets=MemorySecrets())
    try:
        with pytest.raises(ConflictError, match=f"{job}/g"):
            await adapter.volumes.forget("default", name)
        outcome = await api_calls(place_of).delete_volume(handle=handle, secrets={})
        assert isinstance(outcome, Failed)
        assert outcome.failure.code == "FAILED_PRECONDITION"
        assert (await adapter.volumes.find("default", name)).handle == handle
        cut = await api_calls(place_of).create_snapshot(
            name=place_of.fresh("s"), volume_handle=handle, parameters={}, secrets={}
        )
        assert isinstance(cut, Done), cut
    finally:
        await place_of.purge(job)
        await adapter.close()


async def test_the_socket_is_found_and_followed_to_the_next_allocation(place_of: World) -> None:
    sink = MemorySink()
    async with bridge(place_of, MemoryIntake(), sink, state_dir=place_of.state_dir):
        assert sink.api() == []
        (before,) = sink.sockets()
        assert before.startswith(f"{place_of.state_dir}/csi/plugins/")
        old = Path(before).parent.name
        await place_of.client.call("PUT", f"/v1/allocation/{old}/stop")
        began = time.monotonic()
        await until(lambda: len(sink.sockets()) == 1 and sink.sockets() != [before], "the new socket", 60)
        print(f"{place_of.kind}: announced {time.monotonic() - began:.1f} s after the stop of the allocation")
        (after,) = sink.sockets()
        assert Path(after).is_socket()  # noqa: ASYNC240

    async with bridge(place_of, MemoryIntake(), MemorySink()) as adapter:
        await until(lambda: adapter.ready() == "", "and the API serves again", 30)


async def test_without_a_state_dir_the_api_is_announced(place_of: World) -> None:
    sink = MemorySink()
    async with bridge(place_of, MemoryIntake(), sink):
        await until(lambda: len(sink.api()) == 1, "the API route")
        await until(lambda: [one.sentence for one in sink.there.values()] == [""], "it is healthy", 40)
        (one,) = sink.there.values()
        assert {Capability.CREATE_DELETE_SNAPSHOT, Capability.LIST_SNAPSHOTS} <= one.capabilities


async def test_a_tasks_own_token_lets_it_in_as_its_group(place_of: World) -> None:
    name, job = place_of.fresh("v"), place_of.fresh("ident")
    await place_of.volume(name)
    await place_of.run_job(consumer_job(job, name))
    allocation = (await place_of.allocation(job))["ID"]
    token = (place_of.alloc_dir / allocation / "main" / "secrets" / "nomad_snapbridge.jwt").read_text().strip()
    adapter = build("east", place_of.settings(), secrets=MemorySecrets())
    other = build("east", place_of.settings(identity={"audience": "else"}), secrets=MemorySecrets())
    (door,) = adapter.authenticators()
    caller = await door.check(token)
    assert caller is not None
    assert caller.volumes == {name}
    assert caller.name == f"nomad:east/default/{job}/g/main"
    assert dict(caller.labels)["allocation"] == allocation
    with pytest.raises(DeniedError, match="not made for 'else'"):
        await other.authenticators()[0].check(token)
    middle = token.rfind(".") + 100
    forged = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    with pytest.raises(DeniedError, match="not good"):
        await door.check(forged)
    await place_of.purge(job)
    await place_of.allocation_gone(allocation)
    with pytest.raises(DeniedError):
        await door.check(token)
    await adapter.close()
    await other.close()
