"""A real CSI driver behind a unix socket, called as Nomad's client calls it: a new connection per call, no retry.

It must send no field that Nomad does not send (nomad.md 1.4): no filter on lists, no mutable parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from bridge.pb.csi.v1 import csi_pb2, csi_pb2_grpc
from tests.support.nomad.drivers import DriverError, DriverFacts, SnapshotMade, VolumeAsk, VolumeMade

_NO_LIMIT = (1 << 63) - 1  # what Nomad shows for a driver that sets no limit
_MODES = {
    "single-node-reader-only": "SINGLE_NODE_READER_ONLY",
    "single-node-writer": "SINGLE_NODE_WRITER",
    "multi-node-reader-only": "MULTI_NODE_READER_ONLY",
    "multi-node-single-writer": "MULTI_NODE_SINGLE_WRITER",
    "multi-node-multi-writer": "MULTI_NODE_MULTI_WRITER",
}
_CONTROLLER_FACTS = {
    "CREATE_DELETE_VOLUME": "CreateDelete", "PUBLISH_UNPUBLISH_VOLUME": "AttachDetach", "LIST_VOLUMES": "ListVolumes",
    "GET_CAPACITY": "GetCapacity", "CREATE_DELETE_SNAPSHOT": "CreateDeleteSnapshot",
    "LIST_SNAPSHOTS": "ListSnapshots", "CLONE_VOLUME": "Clone", "PUBLISH_READONLY": "ReadOnlyAttach",
    "EXPAND_VOLUME": "Expand", "LIST_VOLUMES_PUBLISHED_NODES": "ListVolumesAttachedNodes",
    "VOLUME_CONDITION": "Condition", "GET_VOLUME": "Get",
}  # fmt: skip
_NODE_FACTS = {
    "STAGE_UNSTAGE_VOLUME": "Stage",
    "GET_VOLUME_STATS": "Stats",
    "EXPAND_VOLUME": "Expand",
    "VOLUME_CONDITION": "Condition",
}


class SocketDriver:
    """The driver at a socket path."""

    FACTS_SECONDS = 30.0
    # Long: a machine that stands still must not make a plugin unhealthy until the next fingerprint.
    CALL_SECONDS = 120.0

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    @asynccontextmanager
    async def _dial(self) -> AsyncIterator[grpc.aio.Channel]:
        options = [("grpc.default_authority", "localhost")]
        async with grpc.aio.insecure_channel(f"unix:{self.socket_path}", options=options) as channel:
            yield channel

    async def _call(self, stub: type[Any], rpc: str, ask: Any, timeout_seconds: float | None = None) -> Any:
        async with self._dial() as channel:
            try:
                return await getattr(stub(channel), rpc)(ask, timeout=timeout_seconds or self.CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise DriverError(error.code().name, error.details() or "") from error

    async def facts(self) -> DriverFacts:
        identity, controller, node = csi_pb2_grpc.IdentityStub, csi_pb2_grpc.ControllerStub, csi_pb2_grpc.NodeStub
        probe = await self._call(identity, "Probe", csi_pb2.ProbeRequest(), self.FACTS_SECONDS)
        if probe.HasField("ready") and not probe.ready.value:
            raise DriverError("UNAVAILABLE", "the plugin says that it is not ready")
        info = await self._call(identity, "GetPluginInfo", csi_pb2.GetPluginInfoRequest(), self.FACTS_SECONDS)
        services = await self._call(
            identity, "GetPluginCapabilities", csi_pb2.GetPluginCapabilitiesRequest(), self.FACTS_SECONDS
        )
        kinds = csi_pb2.PluginCapability.Service.Type
        announced = {kinds.Name(c.service.type) for c in services.capabilities if c.HasField("service")}
        has_controller = "CONTROLLER_SERVICE" in announced
        names: set[str] = set()
        if has_controller:
            answer = await self._call(
                controller,
                "ControllerGetCapabilities",
                csi_pb2.ControllerGetCapabilitiesRequest(),
                self.FACTS_SECONDS,
            )
            rpcs = csi_pb2.ControllerServiceCapability.RPC.Type
            names = {rpcs.Name(c.rpc.type) for c in answer.capabilities}
        node_caps = await self._call(
            node, "NodeGetCapabilities", csi_pb2.NodeGetCapabilitiesRequest(), self.FACTS_SECONDS
        )
        node_info = await self._call(node, "NodeGetInfo", csi_pb2.NodeGetInfoRequest(), self.FACTS_SECONDS)
        node_rpcs = csi_pb2.NodeServiceCapability.RPC.Type
        node_names = {node_rpcs.Name(c.rpc.type) for c in node_caps.capabilities}
        topology = "VOLUME_ACCESSIBILITY_CONSTRAINTS" in announced
        return DriverFacts(
            info.name, info.vendor_version,
            frozenset(_CONTROLLER_FACTS[n] for n in names if n in _CONTROLLER_FACTS),
            frozenset(_NODE_FACTS[n] for n in node_names if n in _NODE_FACTS),
            node_info.node_id, node_info.max_volumes_per_node or _NO_LIMIT,
            dict(node_info.accessible_topology.segments) if topology else None, has_controller,
        )  # fmt: skip

    async def create_volume(self, ask: VolumeAsk) -> VolumeMade:
        request = csi_pb2.CreateVolumeRequest(
            name=ask.name,
            capacity_range=csi_pb2.CapacityRange(required_bytes=ask.minimum_bytes, limit_bytes=ask.maximum_bytes),
            volume_capabilities=_capabilities(ask), parameters=ask.parameters, secrets=ask.secrets,
        )  # fmt: skip
        if ask.snapshot_id:
            request.volume_content_source.snapshot.snapshot_id = ask.snapshot_id
        if ask.clone_id:
            request.volume_content_source.volume.volume_id = ask.clone_id
        for kind, field in (("Required", "requisite"), ("Preferred", "preferred")):
            for topology in (ask.topologies or {}).get(kind) or []:
                getattr(request.accessibility_requirements, field).add(segments=topology["Segments"])
        answer = await self._call(csi_pb2_grpc.ControllerStub, "CreateVolume", request)
        return _volume(answer.volume)

    async def delete_volume(self, volume_id: str, secrets: Mapping[str, str]) -> None:
        ask = csi_pb2.DeleteVolumeRequest(volume_id=volume_id, secrets=secrets)
        await self._call(csi_pb2_grpc.ControllerStub, "DeleteVolume", ask)

    async def validate_volume(self, volume_id: str, ask: VolumeAsk) -> None:
        request = csi_pb2.ValidateVolumeCapabilitiesRequest(
            volume_id=volume_id, volume_context=ask.context, volume_capabilities=_capabilities(ask),
            parameters=ask.parameters, secrets=ask.secrets,
        )  # fmt: skip
        await self._call(csi_pb2_grpc.ControllerStub, "ValidateVolumeCapabilities", request)

    async def list_volumes(self, size: int, token: str) -> tuple[list[VolumeMade], str]:
        ask = csi_pb2.ListVolumesRequest(max_entries=size, starting_token=token)
        answer = await self._call(csi_pb2_grpc.ControllerStub, "ListVolumes", ask)
        return [_volume(entry.volume) for entry in answer.entries], answer.next_token

    async def create_snapshot(
        self, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
    ) -> SnapshotMade:
        ask = csi_pb2.CreateSnapshotRequest(
            source_volume_id=source_id, name=name, secrets=secrets, parameters=parameters
        )
        answer = await self._call(csi_pb2_grpc.ControllerStub, "CreateSnapshot", ask)
        return _snapshot(answer.snapshot)

    async def delete_snapshot(self, snapshot_id: str, secrets: Mapping[str, str]) -> None:
        ask = csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id, secrets=secrets)
        await self._call(csi_pb2_grpc.ControllerStub, "DeleteSnapshot", ask)

    async def list_snapshots(
        self, size: int, token: str, secrets: Mapping[str, str]
    ) -> tuple[list[SnapshotMade], str]:
        ask = csi_pb2.ListSnapshotsRequest(max_entries=size, starting_token=token, secrets=secrets)
        answer = await self._call(csi_pb2_grpc.ControllerStub, "ListSnapshots", ask)
        return [_snapshot(entry.snapshot) for entry in answer.entries], answer.next_token


def _capabilities(ask: VolumeAsk) -> list[csi_pb2.VolumeCapability]:
    made = []
    for capability in ask.capabilities:
        row = csi_pb2.VolumeCapability()
        row.access_mode.mode = csi_pb2.VolumeCapability.AccessMode.Mode.Value(_MODES[capability["AccessMode"]])
        if capability["AttachmentMode"] == "block-device":
            row.block.SetInParent()
        else:
            row.mount.SetInParent()
        made.append(row)
    return made


def _volume(volume: csi_pb2.Volume) -> VolumeMade:
    source = volume.content_source
    return VolumeMade(
        volume.volume_id, volume.capacity_bytes, dict(volume.volume_context),
        [dict(topology.segments) for topology in volume.accessible_topology],
        source.snapshot.snapshot_id if source.HasField("snapshot") else "",
        source.volume.volume_id if source.HasField("volume") else "",
    )  # fmt: skip


def _snapshot(snapshot: csi_pb2.Snapshot) -> SnapshotMade:
    return SnapshotMade(
        snapshot.snapshot_id, snapshot.source_volume_id, snapshot.size_bytes,
        snapshot.creation_time.seconds, snapshot.ready_to_use,
    )  # fmt: skip
