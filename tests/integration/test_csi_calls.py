"""Calls over a real unix socket: outcomes, deadlines, cancellation, concurrency, paging, traces."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from bridge.csi.client import Client
from bridge.csi.instance import Instance
from bridge.csi.settings import CallSettings, Deadlines, RegistrySettings
from bridge.csi.socket import SocketLink
from bridge.csi.trace import CallEnded, Tracer
from bridge.model.failure import ElsewhereError, FailureKind
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Capability, InstanceId, Route
from bridge.model.snapshot import CutSnapshot, HandleSource
from bridge.model.volume import NewVolume
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import csi_server
from tests.support.csi_server import Plugin, RealClock, until

ALL = frozenset(Capability)
NONE: dict[str, str] = {}
SETTINGS = CallSettings(
    deadlines=Deadlines(default_seconds=30, by_verb={}), controller_concurrency=4, list_page_entries=2
)
HASTY = dataclasses.replace(SETTINGS, deadlines=Deadlines(default_seconds=0.3, by_verb={}))
"""For what is to be too late: nothing else may be asked with it, since a machine may stand still for longer."""


class Bench:
    """A served plugin, an instance that calls it, and the traces of the calls."""

    def __init__(self, plugin: Plugin, link: SocketLink) -> None:
        self.plugin = plugin
        self.link = link
        self.traces: list[CallEnded] = []
        self.instance = self.with_capabilities(ALL)

    def with_capabilities(self, capabilities: frozenset[Capability], settings: CallSettings = SETTINGS) -> Instance:
        id = InstanceId(self.plugin.driver, "controller", "here")
        client = Client(id, self.link.transport, Tracer(self.traces.append), settings, concurrency=4)
        return Instance(client, route=Route.SOCKET, capabilities=capabilities)

    async def cut(self, name: str = "s", volume: str = "v", **secrets: str) -> Outcome[CutSnapshot]:
        return await self.instance.create_snapshot(name=name, volume_handle=volume, parameters={}, secrets=secrets)


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    plugin = Plugin()
    link = SocketLink(str(tmp_path / "csi.sock"), RegistrySettings(connect_timeout_seconds=30), RealClock())
    async with csi_server.serving(plugin, tmp_path / "csi.sock"):
        assert await link.connect() == ""
        yield Bench(plugin, link)
        await link.close()


def failure(outcome: Outcome[object]) -> tuple[FailureKind, str]:
    assert isinstance(outcome, Failed), outcome
    return outcome.failure.kind, outcome.failure.code


async def every(instance: Instance, volume: str = "") -> list[Outcome[CutSnapshot]]:
    return [outcome async for outcome in instance.list_snapshots(volume_handle=volume, secrets=NONE)]


async def handles(instance: Instance, volume: str = "") -> list[str]:
    return [outcome.value.handle for outcome in await every(instance, volume) if isinstance(outcome, Done)]


async def test_a_snapshot_is_cut_once_inspected_and_deleted(bench: Bench) -> None:
    first, again = await bench.cut(), await bench.cut()
    assert isinstance(first, Done)
    assert first == again
    assert first.value.source_handle == "v"
    assert first.value.cut_at_ns
    handle = first.value.handle
    assert await bench.instance.inspect_snapshot(handle=handle, secrets=NONE) == first
    for _ in range(2):
        assert await bench.instance.delete_snapshot(handle=handle, secrets=NONE) == Done(None)
    gone = await bench.instance.inspect_snapshot(handle=handle, secrets=NONE)
    assert failure(gone) == (FailureKind.REFUSED, "NOT_FOUND")
    assert bench.plugin.store.snapshots == {}


async def test_inspect_without_get_snapshot_lists(bench: Bench) -> None:
    lister = bench.with_capabilities(frozenset({Capability.LIST_SNAPSHOTS}))
    made = await bench.cut()
    assert isinstance(made, Done)
    assert await lister.inspect_snapshot(handle=made.value.handle, secrets=NONE) == made
    assert failure(await lister.inspect_snapshot(handle="x", secrets=NONE)) == (FailureKind.REFUSED, "NOT_FOUND")
    assert "GetSnapshot" not in bench.plugin.calls


async def test_inspect_of_a_plugin_that_ignores_the_filter_is_unsure(bench: Bench) -> None:
    lister = bench.with_capabilities(frozenset({Capability.LIST_SNAPSHOTS}))
    other = pb.ListSnapshotsResponse.Entry(snapshot=pb.Snapshot(snapshot_id="other", source_volume_id="v"))
    for entries in ([other], [other, other]):
        bench.plugin.answer("ListSnapshots", pb.ListSnapshotsResponse(entries=entries))
        found = await lister.inspect_snapshot(handle="mine", secrets=NONE)
        assert failure(found) == (FailureKind.UNSURE, "WRONG_SNAPSHOT")


async def test_get_snapshot_announced_but_lacking_falls_back_to_the_list(bench: Bench) -> None:
    bench.plugin.refuse("GetSnapshot", grpc.StatusCode.UNIMPLEMENTED)
    made = await bench.cut()
    assert isinstance(made, Done)
    assert await bench.instance.inspect_snapshot(handle=made.value.handle, secrets=NONE) == made


async def test_nothing_is_sent_for_what_is_not_announced_or_not_valid(bench: Bench) -> None:
    bare = bench.with_capabilities(frozenset())
    assert failure(await bare.delete_snapshot(handle="s", secrets=NONE)) == (FailureKind.REFUSED, "UNIMPLEMENTED")
    assert failure(await bare.inspect_snapshot(handle="s", secrets=NONE)) == (FailureKind.REFUSED, "UNIMPLEMENTED")
    assert [failure(o) for o in await every(bare)] == [(FailureKind.REFUSED, "UNIMPLEMENTED")]
    assert failure(await bench.cut(name="n" * 1000)) == (FailureKind.REFUSED, "INVALID_ARGUMENT")
    assert failure(await bench.instance.delete_snapshot(handle="", secrets=NONE))[1] == "INVALID_ARGUMENT"
    assert bench.plugin.calls == {}


async def test_a_name_taken_by_another_volume_is_refused(bench: Bench) -> None:
    await bench.cut(volume="v1")
    assert failure(await bench.cut(volume="v2")) == (FailureKind.REFUSED, "ALREADY_EXISTS")


async def test_an_answer_about_another_volume_is_unsure(bench: Bench) -> None:
    wrong = pb.Snapshot(snapshot_id="s", source_volume_id="other", ready_to_use=True)
    bench.plugin.answer("CreateSnapshot", pb.CreateSnapshotResponse(snapshot=wrong))
    assert failure(await bench.cut()) == (FailureKind.UNSURE, "WRONG_SOURCE")


async def test_deadline_and_internal_are_unsure(bench: Bench) -> None:
    event = bench.plugin.hang("DeleteSnapshot")
    late = await bench.with_capabilities(ALL, HASTY).delete_snapshot(handle="s", secrets=NONE)
    assert failure(late) == (FailureKind.UNSURE, "DEADLINE_EXCEEDED")
    event.set()
    bench.plugin.refuse("CreateSnapshot", grpc.StatusCode.INTERNAL, "disk on fire")
    assert failure(await bench.cut()) == (FailureKind.UNSURE, "INTERNAL")


async def test_secrets_reach_the_plugin_and_nothing_else(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.plugin.refuse("CreateSnapshot", grpc.StatusCode.UNAUTHENTICATED, "bad password hunter22")
    with caplog.at_level(logging.DEBUG):
        outcome = await bench.cut(password="hunter22")
    assert bench.plugin.requests[0].secrets["password"] == "hunter22"
    assert isinstance(outcome, Failed)
    records = [record for record in caplog.records if record.message == "CSI call"]
    assert [record.__dict__["code"] for record in records] == ["UNAUTHENTICATED"]
    everything = repr([record.__dict__ for record in caplog.records]) + repr(outcome) + repr(bench.traces)
    assert "hunter22" not in everything
    assert "***stripped***" in everything


async def test_traces_tell_each_call(bench: Bench) -> None:
    await bench.cut()
    bench.plugin.refuse("DeleteSnapshot", grpc.StatusCode.FAILED_PRECONDITION)
    await bench.instance.delete_snapshot(handle="s", secrets=NONE)
    seen = [(t.method, t.driver, t.role, t.instance, t.code) for t in bench.traces]
    assert seen == [
        ("CreateSnapshot", "test.csi.example", "controller", "here", "OK"),
        ("DeleteSnapshot", "test.csi.example", "controller", "here", "FAILED_PRECONDITION"),
    ]
    assert all(0 < trace.seconds < 60 for trace in bench.traces)


async def test_a_cancelled_caller_sees_it_and_the_plugin_too(bench: Bench) -> None:
    ended = asyncio.Event()

    async def step(_request: object, _context: object) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    bench.plugin.script["CreateSnapshot"] = step
    task = asyncio.create_task(bench.cut())
    await until(lambda: bench.plugin.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 30)
    assert bench.traces[-1].code == "CANCELLED"
    assert bench.instance.in_flight == 0


async def test_a_closed_connection_fails_its_call_without_cancelling_the_caller(bench: Bench) -> None:
    bench.plugin.hang("CreateSnapshot")
    task = asyncio.create_task(bench.cut())
    await until(lambda: bench.plugin.calls)
    await bench.link.close()
    assert failure(await asyncio.wait_for(task, 30)) == (FailureKind.UNSURE, "CANCELLED")
    assert failure(await bench.cut()) == (FailureKind.REFUSED, "UNAVAILABLE")


async def test_concurrency_is_bounded(bench: Bench) -> None:
    running, most = 0, 0
    full = asyncio.Event()

    async def step(request: pb.CreateSnapshotRequest, context: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            full.set()
        await asyncio.wait_for(full.wait(), 20)  # however slowly the first four come in, they meet
        await asyncio.sleep(0.02)
        running -= 1
        return await bench.plugin.CreateSnapshot(request, context)

    bench.plugin.script["CreateSnapshot"] = step
    outcomes = await asyncio.gather(*(bench.cut(name=f"s{i}") for i in range(20)))
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    assert most == 4


async def test_a_fence_that_falls_while_calls_wait_for_a_slot_keeps_them_from_leaving(bench: Bench) -> None:
    """A leader that was stopped and wakes up: what is on its way is answered, what still waits is not sent."""
    lost, go = "", asyncio.Event()

    async def step(request: pb.CreateSnapshotRequest, context: object) -> object:
        await go.wait()
        return await bench.plugin.CreateSnapshot(request, context)

    bench.plugin.script["CreateSnapshot"] = step
    fenced = bench.instance.under(lambda: lost)

    async def cut(name: str) -> Outcome[CutSnapshot]:
        return await fenced.create_snapshot(name=name, volume_handle="v", parameters={}, secrets={})

    calls = [asyncio.create_task(cut(f"s{i}")) for i in range(6)]
    await until(lambda: len(bench.plugin.requests) == 4)
    lost = "the lease is lost"
    go.set()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, Done) for one in ended] == [True] * 4 + [False] * 2
    assert [str(one) for one in ended[4:]] == ["the lease is lost"] * 2
    assert all(isinstance(one, ElsewhereError) for one in ended[4:])
    assert len(bench.plugin.requests) == 4
    assert [trace.code for trace in bench.traces].count("ELSEWHERE") == 2
    assert isinstance(await bench.cut(name="later"), Done), "who is under no fence goes on, and finds its slot"


async def test_list_reads_all_pages_and_begins_anew_when_a_token_is_stale(bench: Bench) -> None:
    for i in range(5):
        await bench.cut(name=f"s{i}", volume="v1" if i % 2 else "v2")
    wanted = sorted(bench.plugin.store.snapshots)
    assert await handles(bench.instance) == wanted
    bench.plugin.page_tokens_valid = False
    assert await handles(bench.instance) == wanted
    assert await handles(bench.instance, "v1") == [
        h for h in wanted if bench.plugin.store.snapshots[h].source_volume_id == "v1"
    ]


async def test_list_gives_up_on_tokens_that_never_hold_and_on_loops(bench: Bench) -> None:
    entry = pb.ListSnapshotsResponse.Entry(snapshot=pb.Snapshot(snapshot_id="a", source_volume_id="v"))

    async def stale(request: pb.ListSnapshotsRequest, context: grpc.aio.ServicerContext) -> object:  # type: ignore[type-arg]
        if request.starting_token:
            await context.abort(grpc.StatusCode.ABORTED, "stale")
        return pb.ListSnapshotsResponse(entries=[entry], next_token="t")

    bench.plugin.script["ListSnapshots"] = stale
    outcomes = await every(bench.instance)
    assert isinstance(outcomes[0], Done)
    assert failure(outcomes[-1]) == (FailureKind.UNSURE, "ABORTED")
    assert len(outcomes) == 2
    bench.plugin.answer("ListSnapshots", pb.ListSnapshotsResponse(entries=[entry], next_token="t"))
    outcomes = await every(bench.instance)
    assert failure(outcomes[-1]) == (FailureKind.UNSURE, "BAD_RESPONSE")


async def test_a_volume_is_restored_and_deleted(bench: Bench) -> None:
    cut = await bench.cut()
    assert isinstance(cut, Done)
    new = NewVolume("r", "test.csi.example", content=HandleSource(cut.value.handle), required_bytes=1 << 20)
    made = await bench.instance.create_volume(new=new, secrets=NONE)
    assert isinstance(made, Done)
    assert made.value.content == new.content
    bench.plugin.answer("CreateVolume", pb.CreateVolumeResponse(volume=pb.Volume(volume_id="x")))
    empty = await bench.instance.create_volume(new=new, secrets=NONE)
    assert failure(empty) == (FailureKind.UNSURE, "WRONG_SOURCE")
    assert await bench.instance.delete_volume(handle=made.value.handle, secrets=NONE) == Done(None)
    assert bench.plugin.store.volumes == {}


async def test_groups(bench: Bench) -> None:
    groups = bench.instance.groups
    made = await groups.create(name="g", volume_handles=["v1", "v2"], parameters=NONE, secrets=NONE)
    assert isinstance(made, Done)
    members = [member.handle for member in made.value.members]
    seen = await groups.inspect(handle=made.value.handle, member_handles=members, secrets=NONE)
    assert seen == made
    other = await groups.create(name="g", volume_handles=["v1"], parameters=NONE, secrets=NONE)
    assert isinstance(other, Done)
    bench.plugin.answer("CreateVolumeGroupSnapshot", pb.CreateVolumeGroupSnapshotResponse())
    bad = await groups.create(name="g", volume_handles=["v1"], parameters=NONE, secrets=NONE)
    assert failure(bad) == (FailureKind.UNSURE, "BAD_RESPONSE")
    assert await groups.delete(handle="g", member_handles=members, secrets=NONE) == Done(None)
    assert bench.plugin.store.snapshots == {}


async def test_block_metadata_streams(bench: Bench) -> None:
    parts = [part async for part in bench.instance.blocks.allocated(handle="s", secrets=NONE)]
    offsets = [r.offset for part in parts if isinstance(part, Done) for r in part.value.ranges]
    assert offsets == [0, 8192, 16384, 24576, 32768, 40960]
    assert bench.traces[-1].code == "OK"
    block = pb.BlockMetadata(byte_offset=0, size_bytes=4096)
    part = pb.GetMetadataAllocatedResponse(
        block_metadata_type=pb.FIXED_LENGTH, volume_capacity_bytes=1 << 20, block_metadata=[block]
    )
    bench.plugin.answer("GetMetadataAllocated", [part, part])
    outcomes = [o async for o in bench.instance.blocks.allocated(handle="s", secrets=NONE)]
    assert isinstance(outcomes[0], Done)
    assert failure(outcomes[-1]) == (FailureKind.UNSURE, "BAD_RESPONSE")
    delta = [o async for o in bench.instance.blocks.delta(from_handle="a", to_handle="b", secrets=NONE)]
    assert [failure(o) for o in delta] == [(FailureKind.REFUSED, "UNIMPLEMENTED")]
