"""The GroupController service: thin handlers over `groups`."""

from __future__ import annotations

from typing import Any

from adapters.localdisk import failures, groups, records, services, volumes, wire
from adapters.localdisk.records import Group
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc

_Rpc = pb.GroupControllerServiceCapability.RPC


class GroupController(csi_pb2_grpc.GroupControllerServicer):
    """GroupController over one driver."""

    def __init__(self, shared: services.Shared) -> None:
        self._shared = shared
        self._groups = shared.driver.groups
        self._work = shared.work

    async def GroupControllerGetCapabilities(
        self, request: pb.GroupControllerGetCapabilitiesRequest, context: Any
    ) -> pb.GroupControllerGetCapabilitiesResponse:
        rpc = _Rpc(type=_Rpc.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
        capability = pb.GroupControllerServiceCapability(rpc=rpc)
        return pb.GroupControllerGetCapabilitiesResponse(capabilities=[capability])

    def _group(self, record: Group) -> pb.VolumeGroupSnapshot:
        return wire.group(record, self._shared.now_ns(), self._shared.snapshot_places)

    async def CreateVolumeGroupSnapshot(
        self, request: pb.CreateVolumeGroupSnapshotRequest, context: Any
    ) -> pb.CreateVolumeGroupSnapshotResponse:
        name = wire.text(request.name, "name")
        sources = tuple(dict.fromkeys(wire.text(v, "source_volume_ids") for v in request.source_volume_ids))
        if not sources:
            failures.invalid("source_volume_ids is required")
        given = volumes.check_parameters(wire.parameters(request.parameters), groups.PARAMETERS)
        members = [records.member_id(name, v) for v in sources]
        group = await self._work.run(
            lambda: self._groups.create(name, sources, given),
            alone=[records.group_id(name), *members],
            shared=sources,
        )
        return pb.CreateVolumeGroupSnapshotResponse(group_snapshot=self._group(group))

    async def DeleteVolumeGroupSnapshot(
        self, request: pb.DeleteVolumeGroupSnapshotRequest, context: Any
    ) -> pb.DeleteVolumeGroupSnapshotResponse:
        key = wire.text(request.group_snapshot_id, "group_snapshot_id")
        members = tuple(request.snapshot_ids)
        await self._work.run(lambda: self._groups.delete(key, members), alone=[key, *members])
        return pb.DeleteVolumeGroupSnapshotResponse()

    async def GetVolumeGroupSnapshot(
        self, request: pb.GetVolumeGroupSnapshotRequest, context: Any
    ) -> pb.GetVolumeGroupSnapshotResponse:
        key = wire.text(request.group_snapshot_id, "group_snapshot_id")
        found = self._groups.get(key, tuple(request.snapshot_ids))
        return pb.GetVolumeGroupSnapshotResponse(group_snapshot=self._group(found))
