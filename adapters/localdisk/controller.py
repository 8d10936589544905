"""The Controller service: checks a request, runs the plain logic in a thread, and shapes the answer."""

from __future__ import annotations

from typing import Any

from google.protobuf.wrappers_pb2 import Int64Value

from adapters.localdisk import failures, records, services, snapshots, volumes, wire
from adapters.localdisk.records import Snapshot, Volume
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc

_Rpc = pb.ControllerServiceCapability.RPC
_CAPABILITIES = (
    _Rpc.CREATE_DELETE_VOLUME,
    _Rpc.LIST_VOLUMES,
    _Rpc.GET_CAPACITY,
    _Rpc.CREATE_DELETE_SNAPSHOT,
    _Rpc.LIST_SNAPSHOTS,
    _Rpc.CLONE_VOLUME,
    _Rpc.EXPAND_VOLUME,
    _Rpc.GET_VOLUME,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
    _Rpc.GET_SNAPSHOT,
)


class Controller(csi_pb2_grpc.ControllerServicer):
    """Controller over one driver."""

    def __init__(self, shared: services.Shared) -> None:
        self._shared = shared
        self._driver = shared.driver
        self._work = shared.work

    async def ControllerGetCapabilities(
        self, request: pb.ControllerGetCapabilitiesRequest, context: Any
    ) -> pb.ControllerGetCapabilitiesResponse:
        capabilities = [pb.ControllerServiceCapability(rpc=_Rpc(type=t)) for t in _CAPABILITIES]
        return pb.ControllerGetCapabilitiesResponse(capabilities=capabilities)

    async def CreateVolume(self, request: pb.CreateVolumeRequest, context: Any) -> pb.CreateVolumeResponse:
        new = self._new_volume(request)
        volume = await self._work.run(
            lambda: self._driver.volumes.create(new),
            alone=[records.volume_id(new.name)],
            shared=list(filter(None, [new.source_volume_id, new.source_snapshot_id])),
        )
        return pb.CreateVolumeResponse(volume=self._volume(volume))

    def _new_volume(self, request: pb.CreateVolumeRequest) -> volumes.NewVolume:
        name = wire.text(request.name, "name")
        capabilities = services.capabilities(request.volume_capabilities)
        refusal = wire.unsupported(capabilities, None)
        if refusal:
            failures.invalid(f"volume_capabilities: {refusal}")
        self._shared.check_topology(request.accessibility_requirements)
        given = volumes.check_parameters(wire.parameters(request.parameters), volumes.PARAMETERS)
        if request.mutable_parameters:
            failures.invalid("mutable_parameters: this driver has none")
        source = request.volume_content_source
        kind = source.WhichOneof("type")
        if request.HasField("volume_content_source") and kind is None:
            failures.invalid("volume_content_source: snapshot or volume is required")
        if kind == "snapshot":
            wire.text(source.snapshot.snapshot_id, "volume_content_source.snapshot.snapshot_id")
        elif kind == "volume":
            wire.text(source.volume.volume_id, "volume_content_source.volume.volume_id")
        return volumes.NewVolume(
            name=name,
            wanted=wire.wanted(request.capacity_range),
            block=wire.is_block(capabilities[0]),
            fs_type=next((c.mount.fs_type for c in capabilities if c.mount.fs_type), ""),
            parameters=given,
            source_snapshot_id=source.snapshot.snapshot_id,
            source_volume_id=source.volume.volume_id,
        )

    def _volume(self, record: Volume) -> pb.Volume:
        return wire.volume(record, self._shared.places)

    def _snapshot(self, record: Snapshot) -> pb.Snapshot:
        return wire.snapshot(record, self._shared.now_ns(), self._shared.snapshot_places)

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, context: Any) -> pb.DeleteVolumeResponse:
        key = wire.text(request.volume_id, "volume_id")
        await self._work.run(lambda: self._driver.volumes.delete(key), alone=[key])
        return pb.DeleteVolumeResponse()

    async def ValidateVolumeCapabilities(
        self, request: pb.ValidateVolumeCapabilitiesRequest, context: Any
    ) -> pb.ValidateVolumeCapabilitiesResponse:
        volume = self._found(wire.text(request.volume_id, "volume_id"))
        capabilities = services.capabilities(request.volume_capabilities)
        refusal = wire.unsupported(capabilities, volume.form.is_block)
        if refusal:
            return pb.ValidateVolumeCapabilitiesResponse(message=refusal)
        confirmed = pb.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=capabilities,
            parameters=request.parameters,
        )
        return pb.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    def _found(self, key: str) -> Volume:
        return self._driver.store.volume(key) or failures.not_found(f"volume {key!r} does not exist")

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: Any) -> pb.ListVolumesResponse:
        found, token = wire.page(self._driver.store.live_volumes(), request.max_entries, request.starting_token)
        entries = [pb.ListVolumesResponse.Entry(volume=self._volume(v)) for v in found]
        return pb.ListVolumesResponse(entries=entries, next_token=token)

    async def ControllerGetVolume(
        self, request: pb.ControllerGetVolumeRequest, context: Any
    ) -> pb.ControllerGetVolumeResponse:
        volume = self._found(wire.text(request.volume_id, "volume_id"))
        status = pb.ControllerGetVolumeResponse.VolumeStatus()
        return pb.ControllerGetVolumeResponse(volume=self._volume(volume), status=status)

    async def GetCapacity(self, request: pb.GetCapacityRequest, context: Any) -> pb.GetCapacityResponse:
        key, here = self._driver.topology_key, self._driver.settings.node_id
        elsewhere = request.accessible_topology.segments.get(key, here) != here
        if elsewhere or wire.unsupported(request.volume_capabilities, None):
            return pb.GetCapacityResponse(available_capacity=0)
        free, total = await self._work.run(self._driver.volumes.disk_bytes)
        return pb.GetCapacityResponse(available_capacity=free, maximum_volume_size=Int64Value(value=total))

    async def ControllerExpandVolume(
        self, request: pb.ControllerExpandVolumeRequest, context: Any
    ) -> pb.ControllerExpandVolumeResponse:
        key = wire.text(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            failures.invalid("capacity_range is required")
        wanted = wire.wanted(request.capacity_range)
        volume = await self._work.run(lambda: self._driver.volumes.expand(key, wanted), alone=[key])
        return pb.ControllerExpandVolumeResponse(
            capacity_bytes=volume.capacity_bytes, node_expansion_required=volume.form.is_file
        )

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, context: Any) -> pb.CreateSnapshotResponse:
        name = wire.text(request.name, "name")
        source = wire.text(request.source_volume_id, "source_volume_id")
        self._shared.check_topology(request.accessibility_requirements)
        given = volumes.check_parameters(wire.parameters(request.parameters), snapshots.PARAMETERS)
        snapshot = await self._work.run(
            lambda: self._driver.snapshots.create(name, source, given),
            alone=[records.snapshot_id(name)],
            shared=[source],
        )
        return pb.CreateSnapshotResponse(snapshot=self._snapshot(snapshot))

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Any) -> pb.DeleteSnapshotResponse:
        key = wire.text(request.snapshot_id, "snapshot_id")
        await self._work.run(lambda: self._driver.snapshots.delete(key), alone=[key])
        return pb.DeleteSnapshotResponse()

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Any) -> pb.GetSnapshotResponse:
        key = wire.text(request.snapshot_id, "snapshot_id")
        found = self._driver.store.snapshot(key) or failures.not_found(f"snapshot {key!r} does not exist")
        return pb.GetSnapshotResponse(snapshot=self._snapshot(found))

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Any) -> pb.ListSnapshotsResponse:
        if request.snapshot_id:
            single = self._driver.store.snapshot(request.snapshot_id)
            found = [] if single is None else [single]
        else:
            found = self._driver.store.live_snapshots()
        if request.source_volume_id:
            found = [s for s in found if s.source_volume_id == request.source_volume_id]
        found, token = wire.page(found, request.max_entries, request.starting_token)
        entries = [pb.ListSnapshotsResponse.Entry(snapshot=self._snapshot(s)) for s in found]
        return pb.ListSnapshotsResponse(entries=entries, next_token=token)

    # Not announced as capabilities, so no caller should come here.
    async def ControllerPublishVolume(
        self, request: pb.ControllerPublishVolumeRequest, context: Any
    ) -> pb.ControllerPublishVolumeResponse:
        failures.unimplemented("ControllerPublishVolume")

    async def ControllerUnpublishVolume(
        self, request: pb.ControllerUnpublishVolumeRequest, context: Any
    ) -> pb.ControllerUnpublishVolumeResponse:
        failures.unimplemented("ControllerUnpublishVolume")

    async def ControllerModifyVolume(
        self, request: pb.ControllerModifyVolumeRequest, context: Any
    ) -> pb.ControllerModifyVolumeResponse:
        failures.unimplemented("ControllerModifyVolume")

    async def ControllerGetVolumeHealth(
        self, request: pb.ControllerGetVolumeHealthRequest, context: Any
    ) -> pb.ControllerGetVolumeHealthResponse:
        failures.unimplemented("ControllerGetVolumeHealth")

    async def ControllerListVolumeHealth(
        self, request: pb.ControllerListVolumeHealthRequest, context: Any
    ) -> pb.ControllerListVolumeHealthResponse:
        failures.unimplemented("ControllerListVolumeHealth")
