"""One instance of a plugin behind the port `PluginCalls`, whatever carries its calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from bridge.csi import failures, listing, methods, snapshots, volumes
from bridge.csi.attach import AttachCalls, NodeCalls
from bridge.csi.blocks import BlockCalls
from bridge.csi.client import Client
from bridge.csi.groups import GroupCalls
from bridge.model.failure import Failure
from bridge.model.group import CutGroup
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Capability, InstanceId, Route
from bridge.model.snapshot import CutPage, CutSnapshot
from bridge.model.volume import MadeVolume, NewVolume
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.ports.plugin import SecretMap


class Instance:
    """Implements bridge.ports.plugin.PluginCalls; further services are its attributes.

    A call whose capability the plugin does not announce is refused without being sent.
    """

    def __init__(self, client: Client, *, route: Route, capabilities: frozenset[Capability]) -> None:
        self._client = client
        self._route = route
        self.capabilities = capabilities
        self.groups = GroupCalls(client)
        self.blocks = BlockCalls(client)
        self.attach = AttachCalls(client)
        self.node = NodeCalls(client)

    @property
    def id(self) -> InstanceId:
        """Which instance of which driver."""
        return self._client.id

    @property
    def route(self) -> Route:
        """How it is reached."""
        return self._route

    @property
    def in_flight(self) -> int:
        """Calls made and not answered yet."""
        return self._client.in_flight

    def under(self, fence: Callable[[], str]) -> Instance:
        """See the port."""
        return Instance(self._client.under(fence), route=self._route, capabilities=self.capabilities)

    async def create_snapshot(
        self, *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: SecretMap
    ) -> Outcome[CutSnapshot]:
        """See the port."""
        lacking = self._lacking(Capability.CREATE_DELETE_SNAPSHOT)
        if lacking is not None:
            return Failed(lacking)
        request = snapshots.create_request(
            name=name, volume_handle=volume_handle, parameters=parameters, secrets=secrets
        )
        outcome = await self._client.unary(methods.CREATE_SNAPSHOT, request)
        if isinstance(outcome, Failed):
            return outcome
        return self._cut("CreateSnapshot", outcome.value.snapshot, source=volume_handle)

    async def delete_snapshot(self, *, handle: str, secrets: SecretMap) -> Outcome[None]:
        """See the port."""
        lacking = self._lacking(Capability.CREATE_DELETE_SNAPSHOT)
        if lacking is not None:
            return Failed(lacking)
        request = pb.DeleteSnapshotRequest(snapshot_id=handle, secrets=dict(secrets))
        outcome = await self._client.unary(methods.DELETE_SNAPSHOT, request)
        return outcome if isinstance(outcome, Failed) else Done(None)

    async def inspect_snapshot(self, *, handle: str, secrets: SecretMap) -> Outcome[CutSnapshot]:
        """See the port. A plugin that announces GetSnapshot and then lacks it is asked by listing."""
        if Capability.GET_SNAPSHOT in self.capabilities:
            request = pb.GetSnapshotRequest(snapshot_id=handle, secrets=dict(secrets))
            outcome = await self._client.unary(methods.GET_SNAPSHOT, request)
            if isinstance(outcome, Done):
                return self._cut("GetSnapshot", outcome.value.snapshot, handle=handle)
            if outcome.failure.code != "UNIMPLEMENTED":
                return outcome
        lacking = self._lacking(Capability.LIST_SNAPSHOTS)
        if lacking is not None:
            return Failed(lacking)
        return await listing.find(self._client, handle, secrets)

    async def list_snapshots(
        self, *, volume_handle: str = "", secrets: SecretMap
    ) -> AsyncGenerator[Outcome[CutSnapshot], None]:
        """See the port."""
        lacking = self._lacking(Capability.LIST_SNAPSHOTS)
        if lacking is not None:
            yield Failed(lacking)
            return
        async with contextlib.aclosing(listing.every(self._client, volume_handle, secrets)) as found:
            async for outcome in found:
                yield outcome

    async def page_snapshots(self, *, token: str, limit: int, secrets: SecretMap) -> Outcome[CutPage]:
        """See the port."""
        lacking = self._lacking(Capability.LIST_SNAPSHOTS)
        if lacking is not None:
            return Failed(lacking)
        return await listing.page(self._client, token, limit, secrets)

    async def create_group(
        self, *, name: str, volume_handles: Sequence[str], parameters: Mapping[str, str], secrets: SecretMap
    ) -> Outcome[CutGroup]:
        """See the port."""
        lacking = self._lacking(Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
        if lacking is not None:
            return Failed(lacking)
        return await self.groups.create(
            name=name, volume_handles=volume_handles, parameters=parameters, secrets=secrets
        )

    async def delete_group(self, *, handle: str, member_handles: Sequence[str], secrets: SecretMap) -> Outcome[None]:
        """See the port."""
        lacking = self._lacking(Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
        if lacking is not None:
            return Failed(lacking)
        return await self.groups.delete(handle=handle, member_handles=member_handles, secrets=secrets)

    async def inspect_group(
        self, *, handle: str, member_handles: Sequence[str], secrets: SecretMap
    ) -> Outcome[CutGroup]:
        """See the port."""
        lacking = self._lacking(Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
        if lacking is not None:
            return Failed(lacking)
        return await self.groups.inspect(handle=handle, member_handles=member_handles, secrets=secrets)

    async def create_volume(self, *, new: NewVolume, secrets: SecretMap) -> Outcome[MadeVolume]:
        """See the port."""
        lacking = self._lacking(Capability.CREATE_DELETE_VOLUME)
        if lacking is not None:
            return Failed(lacking)
        request = volumes.create_request(new, secrets)
        if isinstance(request, Failure):
            return Failed(request)
        outcome = await self._client.unary(methods.CREATE_VOLUME, request)
        if isinstance(outcome, Failed):
            return outcome
        most = self._client.settings.most_handle_bytes
        made = volumes.made_of(outcome.value.volume, new, most_handle_bytes=most)
        return Failed(made) if isinstance(made, Failure) else Done(made)

    async def delete_volume(self, *, handle: str, secrets: SecretMap) -> Outcome[None]:
        """See the port."""
        lacking = self._lacking(Capability.CREATE_DELETE_VOLUME)
        if lacking is not None:
            return Failed(lacking)
        request = pb.DeleteVolumeRequest(volume_id=handle, secrets=dict(secrets))
        outcome = await self._client.unary(methods.DELETE_VOLUME, request)
        return outcome if isinstance(outcome, Failed) else Done(None)

    def _lacking(self, capability: Capability) -> Failure | None:
        if capability in self.capabilities:
            return None
        return failures.unsupported(self.id.driver, capability.value)

    def _cut(self, verb: str, reply: pb.Snapshot, *, source: str = "", handle: str = "") -> Outcome[CutSnapshot]:
        most = self._client.settings.most_handle_bytes
        cut = snapshots.cut_of(verb, reply, most_handle_bytes=most, source=source, handle=handle)
        return Failed(cut) if isinstance(cut, Failure) else Done(cut)
