"""The fault proxy does to calls what its scripts say, and nothing else.

The driver behind it is localdisk in a directory: a real one, so that "after the effect" can be looked up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from adapters.localdisk import server
from adapters.localdisk.settings import Mode, Settings
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc
from tests.support import faultproxy, localdisk
from tests.support.bed import paths
from tests.support.faultproxy import FaultProxy

Code = grpc.StatusCode


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Path]:
    """localdisk in this process. Yields its socket."""
    socket = folder / "csi.sock"
    options = Settings(
        endpoint=f"unix://{socket}", state_dir=folder / "state", node_id="n", mode=Mode.DIRECTORY, durable=False,
        rootless=True,
    )  # fmt: skip
    stop, started = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(options, stop=stop, started=started.set), name="driver")
        try:
            await asyncio.wait_for(started.wait(), 30)
            yield socket
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def stub(proxy: FaultProxy) -> AsyncIterator[Any]:
    options = [("grpc.default_authority", "localhost"), ("grpc.initial_reconnect_backoff_ms", 20)]
    async with aio.insecure_channel(f"unix:{proxy.listen}", options=options) as channel:
        yield csi_pb2_grpc.ControllerStub(channel)


@contextlib.asynccontextmanager
async def bed() -> AsyncIterator[tuple[FaultProxy, Any]]:
    folder = paths.fresh("proxy")
    async with running(folder) as socket, FaultProxy(socket, folder / "proxy.sock") as proxy, stub(proxy) as caller:
        yield proxy, caller


async def volume(caller: Any, name: str = "v") -> str:
    request = pb.CreateVolumeRequest(name=name, volume_capabilities=[localdisk.capability()])
    return str((await caller.CreateVolume(request)).volume.volume_id)


async def cut(caller: Any, source: str, name: str = "s", **options: Any) -> pb.Snapshot:
    request = pb.CreateSnapshotRequest(name=name, source_volume_id=source)
    snapshot: pb.Snapshot = (await caller.CreateSnapshot(request, **options)).snapshot
    return snapshot


async def listed(caller: Any) -> list[str]:
    reply = await caller.ListSnapshots(pb.ListSnapshotsRequest())
    return [entry.snapshot.snapshot_id for entry in reply.entries]


async def listed_again(caller: Any) -> list[str]:
    """As `listed`, once the connection is back."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aio.AioRpcError):
                return await listed(caller)
            await asyncio.sleep(0.02)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_without_a_script_it_passes_everything() -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        snapshot = await cut(caller, source)
        assert snapshot.source_volume_id == source
        assert await listed(caller) == [snapshot.snapshot_id]
        assert await code_of(cut(caller, "vol-unknown", "other")) is Code.NOT_FOUND
        assert [c.method for c in proxy.calls] == [
            "CreateVolume",
            "CreateSnapshot",
            "ListSnapshots",
            "CreateSnapshot",
        ]
        assert proxy.calls[1].request == pb.CreateSnapshotRequest(name="s", source_volume_id=source)
        assert proxy.calls[3].code is proxy.calls[3].upstream_code is Code.NOT_FOUND


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_lost_reply_leaves_the_effect_or_not(after_effect: bool) -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        proxy.script("CreateSnapshot", faultproxy.lose_reply(Code.INTERNAL), after_effect=after_effect)
        assert await code_of(cut(caller, source)) is Code.INTERNAL
        assert len(await listed(caller)) == (1 if after_effect else 0)
        (call,) = proxy.called("CreateSnapshot")
        assert call.upstream_code is (Code.OK if after_effect else None)
        assert call.faults == ("lose_reply(INTERNAL)",)
        await cut(caller, source)  # only once
        assert len(await listed(caller)) == 1
        assert proxy.pending == []


async def test_scripts_count_skip_and_choose() -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        proxy.script("CreateSnapshot", faultproxy.aborted(), times=2, skip=1, when=lambda r: r.name.startswith("x"))
        codes = []
        for name in ("a", "x1", "x2", "a2", "x3", "x4"):
            try:
                await cut(caller, source, name)
            except aio.AioRpcError as error:
                codes.append((name, error.code()))
        assert codes == [("x2", Code.ABORTED), ("x3", Code.ABORTED)]
        with pytest.raises(ValueError, match="not a CSI method"):
            proxy.script("CreateSnapsot", faultproxy.aborted())


async def test_not_ready_a_few_times() -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        proxy.script("CreateSnapshot", faultproxy.not_ready(), times=2)
        proxy.script("ListSnapshots", faultproxy.not_ready())
        assert [(await cut(caller, source)).ready_to_use for _ in range(4)] == [False, False, True, True]
        page = await caller.ListSnapshots(pb.ListSnapshotsRequest())
        assert [e.snapshot.ready_to_use for e in page.entries] == [False]
        reply = proxy.called("CreateSnapshot")[0].reply
        assert isinstance(reply, pb.CreateSnapshotResponse)
        assert reply.snapshot.ready_to_use is False


async def test_replies_can_lie() -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        proxy.script("CreateSnapshot", faultproxy.wrong_source("vol-other"))
        assert (await cut(caller, source)).source_volume_id == "vol-other"
        proxy.script("CreateSnapshot", faultproxy.creation_time_missing())
        assert not (await cut(caller, source)).HasField("creation_time")
        proxy.script("CreateSnapshot", faultproxy.creation_time_1970())
        snapshot = await cut(caller, source)
        assert snapshot.HasField("creation_time")
        assert snapshot.creation_time.seconds == 0


async def test_faults_nest() -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        proxy.script("CreateSnapshot", faultproxy.wrong_source("vol-other"))
        proxy.script("CreateSnapshot", faultproxy.not_ready())
        snapshot = await cut(caller, source)
        assert (snapshot.source_volume_id, snapshot.ready_to_use) == ("vol-other", False)
        proxy.script("CreateSnapshot", faultproxy.lose_reply(Code.UNKNOWN), after_effect=True)
        proxy.script("CreateSnapshot", faultproxy.delay(0.2))
        began = time.monotonic()
        assert await code_of(cut(caller, source, "s2")) is Code.UNKNOWN
        assert time.monotonic() - began >= 0.2
        assert len(await listed(caller)) == 2


async def test_pages_come_in_another_order_yet_whole() -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        for number in range(7):
            await cut(caller, source, f"s{number}")
        honest = await listed(caller)
        proxy.script("ListSnapshots", faultproxy.reordered(seed=3), times=None)
        found, token = [], ""
        while True:
            page = await caller.ListSnapshots(pb.ListSnapshotsRequest(max_entries=3, starting_token=token))
            assert len(page.entries) <= 3
            found += [e.snapshot.snapshot_id for e in page.entries]
            token = page.next_token
            if not token:
                break
        assert found != honest
        assert sorted(found) == sorted(honest)


async def test_a_hanging_call_ends_by_its_deadline() -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        proxy.script("CreateSnapshot", faultproxy.hang())
        assert await code_of(cut(caller, source, timeout=1.5)) is Code.DEADLINE_EXCEEDED
        assert await listed(caller) == []
        (call,) = await proxy.until_called("CreateSnapshot")
        assert call.code is Code.CANCELLED


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_cut_connection_is_seen_as_unavailable(after_effect: bool) -> None:
    async with bed() as (proxy, caller):
        source = await volume(caller)
        proxy.script("CreateSnapshot", faultproxy.cut_connection(), after_effect=after_effect)
        assert await code_of(cut(caller, source)) in (Code.UNAVAILABLE, Code.CANCELLED)
        found = await listed_again(caller)
        assert len(found) == (1 if after_effect else 0)


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_crash_kills_the_driver_and_it_may_come_back(after_effect: bool) -> None:
    with localdisk.start_localdisk(mode="directory", rootless=True) as driver:
        source = await asyncio.to_thread(lambda: driver.volume("v").volume_id)
        listen = driver.folder / "proxy.sock"
        async with FaultProxy(driver.socket, listen) as proxy, stub(proxy) as caller:
            kill = faultproxy.crash(lambda: asyncio.to_thread(driver.kill))
            proxy.script("CreateSnapshot", kill, after_effect=after_effect)
            assert await code_of(cut(caller, source)) is Code.UNAVAILABLE
            assert not driver.process.running
            await asyncio.to_thread(driver.start)
            found = await listed_again(caller)
            assert len(found) == (1 if after_effect else 0)
            await cut(caller, source)
            assert len(await listed(caller)) == 1


async def test_streams_pass_too() -> None:
    async with bed() as (proxy, caller):
        request = pb.CreateVolumeRequest(name="b", volume_capabilities=[localdisk.capability(block=True)])
        source = (await caller.CreateVolume(request)).volume.volume_id
        snapshot = await cut(caller, source)
        async with aio.insecure_channel(f"unix:{proxy.listen}") as channel:
            streams = csi_pb2_grpc.SnapshotMetadataStub(channel)
            ask = pb.GetMetadataAllocatedRequest(snapshot_id=snapshot.snapshot_id)
            found: Any = streams.GetMetadataAllocated(ask)
            sizes = [message.volume_capacity_bytes async for message in found]
            assert sizes == [1 << 30]
            proxy.script("GetMetadataAllocated", faultproxy.lose_reply(Code.UNAVAILABLE))
            lost: Any = streams.GetMetadataAllocated(ask)
            with pytest.raises(aio.AioRpcError):
                assert [message async for message in lost] == []
