"""The CSI methods that we call, each with its path and message types. One name per verb, nothing else."""

from __future__ import annotations

import dataclasses
from typing import Generic, TypeVar

from google.protobuf.message import Message

from bridge.pb.csi.v1 import csi_pb2 as pb

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@dataclasses.dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One remote method. `streams` means that it answers with a stream of `response`."""

    service: str
    verb: str
    request: type[Q]
    response: type[R]
    streams: bool = False

    @property
    def path(self) -> str:
        """What gRPC calls it."""
        return f"/csi.v1.{self.service}/{self.verb}"


_IDENTITY = "Identity"
_CONTROLLER = "Controller"
_GROUP = "GroupController"
_METADATA = "SnapshotMetadata"
_NODE = "Node"

GET_PLUGIN_INFO = Method(_IDENTITY, "GetPluginInfo", pb.GetPluginInfoRequest, pb.GetPluginInfoResponse)
GET_PLUGIN_CAPABILITIES = Method(
    _IDENTITY, "GetPluginCapabilities", pb.GetPluginCapabilitiesRequest, pb.GetPluginCapabilitiesResponse
)
PROBE = Method(_IDENTITY, "Probe", pb.ProbeRequest, pb.ProbeResponse)

CONTROLLER_GET_CAPABILITIES = Method(
    _CONTROLLER,
    "ControllerGetCapabilities",
    pb.ControllerGetCapabilitiesRequest,
    pb.ControllerGetCapabilitiesResponse,
)
CREATE_VOLUME = Method(_CONTROLLER, "CreateVolume", pb.CreateVolumeRequest, pb.CreateVolumeResponse)
DELETE_VOLUME = Method(_CONTROLLER, "DeleteVolume", pb.DeleteVolumeRequest, pb.DeleteVolumeResponse)
CONTROLLER_PUBLISH_VOLUME = Method(
    _CONTROLLER, "ControllerPublishVolume", pb.ControllerPublishVolumeRequest, pb.ControllerPublishVolumeResponse
)
CONTROLLER_UNPUBLISH_VOLUME = Method(
    _CONTROLLER,
    "ControllerUnpublishVolume",
    pb.ControllerUnpublishVolumeRequest,
    pb.ControllerUnpublishVolumeResponse,
)
CONTROLLER_EXPAND_VOLUME = Method(
    _CONTROLLER, "ControllerExpandVolume", pb.ControllerExpandVolumeRequest, pb.ControllerExpandVolumeResponse
)
CREATE_SNAPSHOT = Method(_CONTROLLER, "CreateSnapshot", pb.CreateSnapshotRequest, pb.CreateSnapshotResponse)
DELETE_SNAPSHOT = Method(_CONTROLLER, "DeleteSnapshot", pb.DeleteSnapshotRequest, pb.DeleteSnapshotResponse)
LIST_SNAPSHOTS = Method(_CONTROLLER, "ListSnapshots", pb.ListSnapshotsRequest, pb.ListSnapshotsResponse)
GET_SNAPSHOT = Method(_CONTROLLER, "GetSnapshot", pb.GetSnapshotRequest, pb.GetSnapshotResponse)

GROUP_GET_CAPABILITIES = Method(
    _GROUP,
    "GroupControllerGetCapabilities",
    pb.GroupControllerGetCapabilitiesRequest,
    pb.GroupControllerGetCapabilitiesResponse,
)
CREATE_GROUP = Method(
    _GROUP, "CreateVolumeGroupSnapshot", pb.CreateVolumeGroupSnapshotRequest, pb.CreateVolumeGroupSnapshotResponse
)
DELETE_GROUP = Method(
    _GROUP, "DeleteVolumeGroupSnapshot", pb.DeleteVolumeGroupSnapshotRequest, pb.DeleteVolumeGroupSnapshotResponse
)
GET_GROUP = Method(
    _GROUP, "GetVolumeGroupSnapshot", pb.GetVolumeGroupSnapshotRequest, pb.GetVolumeGroupSnapshotResponse
)

GET_METADATA_ALLOCATED = Method(
    _METADATA, "GetMetadataAllocated", pb.GetMetadataAllocatedRequest, pb.GetMetadataAllocatedResponse, streams=True
)
GET_METADATA_DELTA = Method(
    _METADATA, "GetMetadataDelta", pb.GetMetadataDeltaRequest, pb.GetMetadataDeltaResponse, streams=True
)

NODE_GET_CAPABILITIES = Method(
    _NODE, "NodeGetCapabilities", pb.NodeGetCapabilitiesRequest, pb.NodeGetCapabilitiesResponse
)
NODE_GET_INFO = Method(_NODE, "NodeGetInfo", pb.NodeGetInfoRequest, pb.NodeGetInfoResponse)
NODE_STAGE_VOLUME = Method(_NODE, "NodeStageVolume", pb.NodeStageVolumeRequest, pb.NodeStageVolumeResponse)
NODE_UNSTAGE_VOLUME = Method(_NODE, "NodeUnstageVolume", pb.NodeUnstageVolumeRequest, pb.NodeUnstageVolumeResponse)
NODE_PUBLISH_VOLUME = Method(_NODE, "NodePublishVolume", pb.NodePublishVolumeRequest, pb.NodePublishVolumeResponse)
NODE_UNPUBLISH_VOLUME = Method(
    _NODE, "NodeUnpublishVolume", pb.NodeUnpublishVolumeRequest, pb.NodeUnpublishVolumeResponse
)
NODE_GET_VOLUME_STATS = Method(
    _NODE, "NodeGetVolumeStats", pb.NodeGetVolumeStatsRequest, pb.NodeGetVolumeStatsResponse
)
NODE_EXPAND_VOLUME = Method(_NODE, "NodeExpandVolume", pb.NodeExpandVolumeRequest, pb.NodeExpandVolumeResponse)

ALL: tuple[Method[Message, Message], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Method)
)
