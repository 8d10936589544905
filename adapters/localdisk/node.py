"""The Node service: thin handlers over `uses`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.localdisk import failures, services, usage, wire
from adapters.localdisk.uses import NewUse
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc

_Rpc = pb.NodeServiceCapability.RPC
_CAPABILITIES = (
    _Rpc.STAGE_UNSTAGE_VOLUME,
    _Rpc.GET_VOLUME_STATS,
    _Rpc.EXPAND_VOLUME,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
)
_Unit = pb.VolumeUsage


class Node(csi_pb2_grpc.NodeServicer):
    """Node over one driver."""

    def __init__(self, shared: services.Shared) -> None:
        self._shared = shared
        self._driver = shared.driver
        self._uses = shared.driver.uses
        self._work = shared.work

    async def NodeGetCapabilities(
        self, request: pb.NodeGetCapabilitiesRequest, context: Any
    ) -> pb.NodeGetCapabilitiesResponse:
        capabilities = [pb.NodeServiceCapability(rpc=_Rpc(type=t)) for t in _CAPABILITIES]
        return pb.NodeGetCapabilitiesResponse(capabilities=capabilities)

    async def NodeGetInfo(self, request: pb.NodeGetInfoRequest, context: Any) -> pb.NodeGetInfoResponse:
        places = self._shared.places
        return pb.NodeGetInfoResponse(
            node_id=self._driver.settings.node_id, accessible_topology=places[0] if places else None
        )

    async def NodeStageVolume(self, request: pb.NodeStageVolumeRequest, context: Any) -> pb.NodeStageVolumeResponse:
        key = wire.text(request.volume_id, "volume_id")
        path = wire.path(request.staging_target_path, "staging_target_path")
        capability = _capability(request)
        new = NewUse(
            volume_id=key,
            path=path,
            block=wire.is_block(capability),
            readonly=wire.is_read_only(capability),
            mount_flags=tuple(capability.mount.mount_flags),
        )
        await self._work.run(lambda: self._uses.stage(new), alone=[key])
        return pb.NodeStageVolumeResponse()

    async def NodeUnstageVolume(
        self, request: pb.NodeUnstageVolumeRequest, context: Any
    ) -> pb.NodeUnstageVolumeResponse:
        key = wire.text(request.volume_id, "volume_id")
        path = wire.path(request.staging_target_path, "staging_target_path")
        await self._work.run(lambda: self._uses.withdraw(key, path), alone=[key])
        return pb.NodeUnstageVolumeResponse()

    async def NodePublishVolume(
        self, request: pb.NodePublishVolumeRequest, context: Any
    ) -> pb.NodePublishVolumeResponse:
        key = wire.text(request.volume_id, "volume_id")
        path = wire.path(request.target_path, "target_path")
        capability = _capability(request)
        if not request.staging_target_path:
            failures.precondition("staging_target_path is required: stage the volume first")
        new = NewUse(
            volume_id=key,
            path=path,
            block=wire.is_block(capability),
            readonly=request.readonly or wire.is_read_only(capability),
            exclusive=wire.is_exclusive(capability),
            mount_flags=tuple(capability.mount.mount_flags),
        )
        await self._work.run(lambda: self._uses.publish(new), alone=[key])
        return pb.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(
        self, request: pb.NodeUnpublishVolumeRequest, context: Any
    ) -> pb.NodeUnpublishVolumeResponse:
        key = wire.text(request.volume_id, "volume_id")
        path = wire.path(request.target_path, "target_path")
        await self._work.run(lambda: self._uses.withdraw(key, path), alone=[key])
        return pb.NodeUnpublishVolumeResponse()

    async def NodeGetVolumeStats(
        self, request: pb.NodeGetVolumeStatsRequest, context: Any
    ) -> pb.NodeGetVolumeStatsResponse:
        key = wire.text(request.volume_id, "volume_id")
        path = wire.text(request.volume_path, "volume_path", longest_bytes=wire.LONGEST_PATH_BYTES)

        def measure() -> usage.Usage:
            volume = self._uses.shown_at(key, path)
            return usage.measure(volume, Path(path), self._driver.layout.data(volume))

        found = await self._work.run(measure, shared=[key])
        return pb.NodeGetVolumeStatsResponse(usage=_figures(found))

    async def NodeExpandVolume(
        self, request: pb.NodeExpandVolumeRequest, context: Any
    ) -> pb.NodeExpandVolumeResponse:
        key = wire.text(request.volume_id, "volume_id")
        path = wire.text(request.volume_path, "volume_path", longest_bytes=wire.LONGEST_PATH_BYTES)
        wanted = wire.wanted(request.capacity_range)

        def grow() -> int:
            volume = self._uses.shown_at(key, path)
            if wanted.required_bytes > volume.capacity_bytes:
                failures.out_of_range(f"volume {key} has {volume.capacity_bytes} bytes: expand it at the controller")
            self._uses.grow(volume)
            return volume.capacity_bytes

        return pb.NodeExpandVolumeResponse(capacity_bytes=await self._work.run(grow, alone=[key]))

    # Not announced as capabilities, so no caller should come here.
    async def NodeGetVolumeHealth(
        self, request: pb.NodeGetVolumeHealthRequest, context: Any
    ) -> pb.NodeGetVolumeHealthResponse:
        failures.unimplemented("NodeGetVolumeHealth")

    async def NodeGetStorageHealth(
        self, request: pb.NodeGetStorageHealthRequest, context: Any
    ) -> pb.NodeGetStorageHealthResponse:
        failures.unimplemented("NodeGetStorageHealth")


def _capability(request: pb.NodeStageVolumeRequest | pb.NodePublishVolumeRequest) -> pb.VolumeCapability:
    if not request.HasField("volume_capability"):
        failures.invalid("volume_capability is required")
    refusal = wire.unsupported([request.volume_capability], None)
    if refusal:
        failures.precondition(f"volume_capability: {refusal}")
    return request.volume_capability


def _figures(found: usage.Usage) -> list[pb.VolumeUsage]:
    free = max(found.total_bytes - found.used_bytes, 0)
    figures = [_Unit(unit=_Unit.BYTES, total=found.total_bytes, used=found.used_bytes, available=free)]
    if found.total_inodes:
        free = max(found.total_inodes - found.used_inodes, 0)
        figures.append(_Unit(unit=_Unit.INODES, total=found.total_inodes, used=found.used_inodes, available=free))
    return figures
