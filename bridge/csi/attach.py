"""Bringing a volume to a node: controller publish and the Node service's stage and publish. One call each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bridge.csi import methods, volumes
from bridge.csi.client import Client
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.volume import AccessMode, VolumeMode
from bridge.pb.csi.v1 import csi_pb2 as pb


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeUse:
    """A volume and how it is to be used on a node."""

    handle: str
    mode: VolumeMode = VolumeMode.FILESYSTEM
    access: AccessMode = AccessMode.SINGLE_NODE_WRITER
    fs_type: str = ""
    read_only: bool = False
    volume_context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    publish_context: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def capability(self) -> pb.VolumeCapability:
        """The same in CSI's words."""
        return volumes.capability(self.mode, self.access, self.fs_type)


@dataclasses.dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a plugin says of the node that it runs on."""

    node_id: str
    max_volumes: int = 0
    topology: Mapping[str, str] = dataclasses.field(default_factory=dict)


class AttachCalls:
    """ControllerPublishVolume and its opposite."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(
        self, use: VolumeUse, *, node_id: str, secrets: Mapping[str, str]
    ) -> Outcome[Mapping[str, str]]:
        """Attach the volume to the node; the value is the publish context for the node calls."""
        request = pb.ControllerPublishVolumeRequest(
            volume_id=use.handle,
            node_id=node_id,
            volume_capability=use.capability(),
            readonly=use.read_only,
            volume_context=dict(use.volume_context),
            secrets=dict(secrets),
        )
        outcome = await self._client.unary(methods.CONTROLLER_PUBLISH_VOLUME, request)
        return outcome if isinstance(outcome, Failed) else Done(dict(outcome.value.publish_context))

    async def unpublish(self, handle: str, *, node_id: str, secrets: Mapping[str, str]) -> Outcome[None]:
        """Detach it; one that is not attached is Done."""
        request = pb.ControllerUnpublishVolumeRequest(volume_id=handle, node_id=node_id, secrets=dict(secrets))
        outcome = await self._client.unary(methods.CONTROLLER_UNPUBLISH_VOLUME, request)
        return outcome if isinstance(outcome, Failed) else Done(None)


class NodeCalls:
    """The Node calls of one instance. Paths are absolute paths on that node's host."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def info(self) -> Outcome[NodeInfo]:
        """The node's identity for this driver."""
        outcome = await self._client.unary(methods.NODE_GET_INFO, pb.NodeGetInfoRequest())
        if isinstance(outcome, Failed):
            return outcome
        reply = outcome.value
        return Done(NodeInfo(reply.node_id, reply.max_volumes_per_node, dict(reply.accessible_topology.segments)))

    async def stage(self, use: VolumeUse, *, staging_path: str, secrets: Mapping[str, str]) -> Outcome[None]:
        """Prepare the volume on the node, once for all its uses; the directory exists already."""
        request = pb.NodeStageVolumeRequest(
            volume_id=use.handle,
            publish_context=dict(use.publish_context),
            staging_target_path=staging_path,
            volume_capability=use.capability(),
            secrets=dict(secrets),
            volume_context=dict(use.volume_context),
        )
        outcome = await self._client.unary(methods.NODE_STAGE_VOLUME, request)
        return outcome if isinstance(outcome, Failed) else Done(None)

    async def unstage(self, handle: str, *, staging_path: str) -> Outcome[None]:
        """Undo `stage`; one that is not staged is Done."""
        request = pb.NodeUnstageVolumeRequest(volume_id=handle, staging_target_path=staging_path)
        outcome = await self._client.unary(methods.NODE_UNSTAGE_VOLUME, request)
        return outcome if isinstance(outcome, Failed) else Done(None)

    async def publish(
        self, use: VolumeUse, *, target_path: str, staging_path: str = "", secrets: Mapping[str, str]
    ) -> Outcome[None]:
        """Make the volume usable at `target_path`, which the plugin makes itself (its parent exists)."""
        request = pb.NodePublishVolumeRequest(
            volume_id=use.handle,
            publish_context=dict(use.publish_context),
            staging_target_path=staging_path,
            target_path=target_path,
            volume_capability=use.capability(),
            readonly=use.read_only,
            secrets=dict(secrets),
            volume_context=dict(use.volume_context),
        )
        outcome = await self._client.unary(methods.NODE_PUBLISH_VOLUME, request)
        return outcome if isinstance(outcome, Failed) else Done(None)

    async def unpublish(self, handle: str, *, target_path: str) -> Outcome[None]:
        """Undo `publish`; one that is not published is Done."""
        request = pb.NodeUnpublishVolumeRequest(volume_id=handle, target_path=target_path)
        outcome = await self._client.unary(methods.NODE_UNPUBLISH_VOLUME, request)
        return outcome if isinstance(outcome, Failed) else Done(None)
