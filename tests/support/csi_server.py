"""A small CSI plugin with state, for tests of the client side: a controller over one unix socket.

It keeps volumes and snapshots in memory and obeys the specification; `script` makes one verb misbehave.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc

CONTROLLER = pb.ControllerServiceCapability.RPC
ALL_CONTROLLER = (
    CONTROLLER.CREATE_DELETE_VOLUME,
    CONTROLLER.CREATE_DELETE_SNAPSHOT,
    CONTROLLER.LIST_SNAPSHOTS,
    CONTROLLER.GET_SNAPSHOT,
    CONTROLLER.CLONE_VOLUME,
)
Step = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class RealClock:
    """The machine's own clock, for tests that talk to real sockets."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclasses.dataclass
class Store:
    """What the backend holds. It outlives a plugin that is restarted."""

    volumes: dict[str, pb.Volume] = dataclasses.field(default_factory=dict)
    snapshots: dict[str, pb.Snapshot] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    groups: dict[str, pb.VolumeGroupSnapshot] = dataclasses.field(default_factory=dict)
    created: int = 0


class Plugin:
    """One plugin process's worth of behaviour. `calls` counts by verb; `script[verb]` replaces one verb."""

    def __init__(
        self,
        driver: str = "test.csi.example",
        *,
        store: Store | None = None,
        version: str = "1.0",
        controller: tuple[int, ...] = ALL_CONTROLLER,
        node_id: str = "",
    ) -> None:
        self.driver = driver
        self.store = store or Store()
        self.version = version
        self.controller = controller
        self.node_id = node_id
        self.ready: bool | None = None
        self.calls: dict[str, int] = {}
        self.requests: list[Any] = []
        self.script: dict[str, Step] = {}
        self.page_tokens_valid = True

    def refuse(self, verb: str, code: grpc.StatusCode, message: str = "") -> None:
        """Answer this verb with an error from now on."""

        async def step(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(code, message)

        self.script[verb] = step

    def answer(self, verb: str, reply: Any) -> None:
        """Answer this verb with this reply from now on."""

        async def step(_request: Any, _context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            return reply

        self.script[verb] = step

    def hang(self, verb: str) -> asyncio.Event:
        """Do not answer this verb until the event is set."""
        event = asyncio.Event()

        async def step(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            await event.wait()
            return await getattr(self, verb)(request, context)

        self.script[verb] = step
        return event

    # The verbs.

    async def GetPluginInfo(self, _request: Any, _context: Any) -> pb.GetPluginInfoResponse:
        return pb.GetPluginInfoResponse(name=self.driver, vendor_version=self.version)

    async def GetPluginCapabilities(self, _request: Any, _context: Any) -> pb.GetPluginCapabilitiesResponse:
        kinds = pb.PluginCapability.Service
        types = [kinds.CONTROLLER_SERVICE, kinds.GROUP_CONTROLLER_SERVICE] if self.controller else []
        return pb.GetPluginCapabilitiesResponse(
            capabilities=[pb.PluginCapability(service=kinds(type=number)) for number in types]
        )

    async def Probe(self, _request: Any, _context: Any) -> pb.ProbeResponse:
        reply = pb.ProbeResponse()
        if self.ready is not None:
            reply.ready.value = self.ready
        return reply

    async def ControllerGetCapabilities(self, _request: Any, _context: Any) -> pb.ControllerGetCapabilitiesResponse:
        return pb.ControllerGetCapabilitiesResponse(
            capabilities=[
                pb.ControllerServiceCapability(rpc=CONTROLLER(type=number))  # type: ignore[arg-type]
                for number in self.controller
            ]
        )

    async def GroupControllerGetCapabilities(
        self, _request: Any, _context: Any
    ) -> pb.GroupControllerGetCapabilitiesResponse:
        kind = pb.GroupControllerServiceCapability.RPC
        rpc = kind(type=kind.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
        return pb.GroupControllerGetCapabilitiesResponse(capabilities=[pb.GroupControllerServiceCapability(rpc=rpc)])

    async def NodeGetCapabilities(self, _request: Any, context: Any) -> pb.NodeGetCapabilitiesResponse:
        if not self.node_id:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no node service")
        return pb.NodeGetCapabilitiesResponse()

    async def NodeGetInfo(self, _request: Any, _context: Any) -> pb.NodeGetInfoResponse:
        return pb.NodeGetInfoResponse(node_id=self.node_id)

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, context: Any) -> pb.CreateSnapshotResponse:
        return pb.CreateSnapshotResponse(snapshot=await self._cut(request.name, request.source_volume_id, context))

    async def _cut(self, name: str, volume: str, context: Any, group: str = "") -> pb.Snapshot:
        handle = self.store.names.get(name)
        if handle is None:
            self.store.created += 1
            handle = f"snap-{self.store.created:05d}"
            snapshot = pb.Snapshot(
                snapshot_id=handle, source_volume_id=volume, ready_to_use=True, group_snapshot_id=group
            )
            snapshot.creation_time.GetCurrentTime()
            self.store.names[name] = handle
            self.store.snapshots[handle] = snapshot
        found = self.store.snapshots[handle]
        if found.source_volume_id != volume:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} is of another volume")
        return found

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, _context: Any) -> pb.DeleteSnapshotResponse:
        self.store.snapshots.pop(request.snapshot_id, None)
        self.store.names = {n: h for n, h in self.store.names.items() if h != request.snapshot_id}
        return pb.DeleteSnapshotResponse()

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Any) -> pb.GetSnapshotResponse:
        found = self.store.snapshots.get(request.snapshot_id)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such snapshot")
        return pb.GetSnapshotResponse(snapshot=found)

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Any) -> pb.ListSnapshotsResponse:
        found = [
            snapshot
            for handle, snapshot in sorted(self.store.snapshots.items())
            if request.snapshot_id in ("", handle) and request.source_volume_id in ("", snapshot.source_volume_id)
        ]
        if request.starting_token and not self.page_tokens_valid:
            self.page_tokens_valid = True
            await context.abort(grpc.StatusCode.ABORTED, "stale token")
        start = int(request.starting_token or "0")
        end = start + (request.max_entries or len(found))
        return pb.ListSnapshotsResponse(
            entries=[pb.ListSnapshotsResponse.Entry(snapshot=snapshot) for snapshot in found[start:end]],
            next_token=str(end) if end < len(found) else "",
        )

    async def CreateVolume(self, request: pb.CreateVolumeRequest, _context: Any) -> pb.CreateVolumeResponse:
        volume = self.store.volumes.setdefault(
            request.name,
            pb.Volume(volume_id=f"vol-{request.name}", capacity_bytes=request.capacity_range.required_bytes),
        )
        if request.HasField("volume_content_source"):
            volume.content_source.CopyFrom(request.volume_content_source)
        return pb.CreateVolumeResponse(volume=volume)

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, _context: Any) -> pb.DeleteVolumeResponse:
        self.store.volumes = {n: v for n, v in self.store.volumes.items() if v.volume_id != request.volume_id}
        return pb.DeleteVolumeResponse()

    async def CreateVolumeGroupSnapshot(
        self, request: pb.CreateVolumeGroupSnapshotRequest, context: Any
    ) -> pb.CreateVolumeGroupSnapshotResponse:
        handle = f"group-{request.name}"
        group = pb.VolumeGroupSnapshot(group_snapshot_id=handle, ready_to_use=True)
        group.creation_time.GetCurrentTime()
        for volume in request.source_volume_ids:
            group.snapshots.append(await self._cut(f"{request.name}-{volume}", volume, context, handle))
        self.store.groups[handle] = group
        return pb.CreateVolumeGroupSnapshotResponse(group_snapshot=group)

    async def GetVolumeGroupSnapshot(
        self, request: pb.GetVolumeGroupSnapshotRequest, context: Any
    ) -> pb.GetVolumeGroupSnapshotResponse:
        if request.group_snapshot_id not in self.store.groups:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such group")
        return pb.GetVolumeGroupSnapshotResponse(group_snapshot=self.store.groups[request.group_snapshot_id])

    async def DeleteVolumeGroupSnapshot(
        self, request: pb.DeleteVolumeGroupSnapshotRequest, _context: Any
    ) -> pb.DeleteVolumeGroupSnapshotResponse:
        self.store.groups.pop(request.group_snapshot_id, None)
        for handle in request.snapshot_ids:
            self.store.snapshots.pop(handle, None)
        return pb.DeleteVolumeGroupSnapshotResponse()

    async def GetMetadataAllocated(
        self, request: pb.GetMetadataAllocatedRequest, context: Any
    ) -> AsyncIterator[pb.GetMetadataAllocatedResponse]:
        """Three parts of two blocks; the script may hand out others."""
        self.calls["GetMetadataAllocated"] = self.calls.get("GetMetadataAllocated", 0) + 1
        scripted = self.script.get("GetMetadataAllocated")
        if scripted is not None:
            for part in await scripted(request, context) or ():
                yield part
            return
        for part in range(3):
            blocks = [pb.BlockMetadata(byte_offset=(part * 2 + i) * 8192, size_bytes=4096) for i in range(2)]
            yield pb.GetMetadataAllocatedResponse(
                block_metadata_type=pb.FIXED_LENGTH, volume_capacity_bytes=1 << 20, block_metadata=blocks
            )


def _counted(plugin: Plugin, verb: str) -> Step:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        plugin.calls[verb] = plugin.calls.get(verb, 0) + 1
        plugin.requests.append(request)
        return await (plugin.script.get(verb) or getattr(plugin, verb))(request, context)

    return handle


def _method(step: Step) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    async def method(_self: Any, request: Any, context: Any) -> Any:
        return await step(request, context)

    return method


def _streaming(plugin: Plugin) -> Callable[[Any, Any, Any], AsyncIterator[Any]]:
    async def method(_self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        async for part in plugin.GetMetadataAllocated(request, context):
            yield part

    return method


def _servicer(base: type[Any], plugin: Plugin) -> Any:
    verbs = [name for name in vars(base) if name[:1].isupper()]
    members: dict[str, Any] = {}
    for verb in verbs:
        if verb == "GetMetadataAllocated":
            members[verb] = _streaming(plugin)
        elif hasattr(plugin, verb):
            members[verb] = _method(_counted(plugin, verb))
    return type(base.__name__, (base,), members)()


async def start(plugin: Plugin, path: Path) -> grpc.aio.Server:
    """Serve the plugin on this socket; an old socket file is replaced."""
    server = grpc.aio.server()
    for service in ("Identity", "Controller", "GroupController", "SnapshotMetadata", "Node"):
        servicer = _servicer(getattr(csi_pb2_grpc, f"{service}Servicer"), plugin)
        getattr(csi_pb2_grpc, f"add_{service}Servicer_to_server")(servicer, server)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


async def until(condition: Callable[[], object], seconds: float = 30.0) -> float:
    """Wait until it holds; the seconds that it took. Fails when it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not come true in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def soon(attempt: Callable[[int], Awaitable[float]], seconds: float, tries: int = 5) -> None:
    """One of some attempts took less than so long. A machine that stands still for a moment spoils one, not all."""
    took = []
    for number in range(tries):
        took.append(await attempt(number))
        if took[-1] < seconds:
            return
    raise AssertionError(f"each time it took {seconds} s or more: {took}")


@contextlib.asynccontextmanager
async def serving(plugin: Plugin, path: Path) -> AsyncIterator[grpc.aio.Server]:
    """The plugin, served for as long as the block lasts."""
    server = await start(plugin, path)
    try:
        yield server
    finally:
        await server.stop(grace=None)
