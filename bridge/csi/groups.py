"""Group snapshots: several volumes cut at one point in time by the plugin itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.csi import failures, limits, methods, snapshots
from bridge.csi.client import Client
from bridge.model.failure import Failure
from bridge.model.group import CutGroup
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.snapshot import CutSnapshot
from bridge.pb.csi.v1 import csi_pb2 as pb


class GroupCalls:
    """The GroupController calls of one instance."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self, *, name: str, volume_handles: Sequence[str], parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Outcome[CutGroup]:
        """Cut all volumes at once, or find the group that this name and these volumes already have."""
        request = pb.CreateVolumeGroupSnapshotRequest(
            name=name, source_volume_ids=list(volume_handles), parameters=dict(parameters), secrets=dict(secrets)
        )
        outcome = await self._client.unary(methods.CREATE_GROUP, request)
        if isinstance(outcome, Failed):
            return outcome
        group = self._group_of("CreateVolumeGroupSnapshot", outcome.value.group_snapshot)
        if isinstance(group, Failure):
            return Failed(group)
        sources = sorted(member.source_handle for member in group.members)
        if sources != sorted(set(volume_handles)):
            text = f"its members are snapshots of {sources}, asked was {sorted(set(volume_handles))}"
            return Failed(failures.bad_response("CreateVolumeGroupSnapshot", text, code=failures.WRONG_SOURCE))
        return Done(group)

    async def delete(
        self, *, handle: str, member_handles: Sequence[str], secrets: Mapping[str, str]
    ) -> Outcome[None]:
        """Remove the group with all its members; a missing one is Done."""
        request = pb.DeleteVolumeGroupSnapshotRequest(
            group_snapshot_id=handle, snapshot_ids=list(member_handles), secrets=dict(secrets)
        )
        outcome = await self._client.unary(methods.DELETE_GROUP, request)
        return outcome if isinstance(outcome, Failed) else Done(None)

    async def inspect(
        self, *, handle: str, member_handles: Sequence[str], secrets: Mapping[str, str]
    ) -> Outcome[CutGroup]:
        """The group as it is now. Missing: Failed(REFUSED, "NOT_FOUND")."""
        request = pb.GetVolumeGroupSnapshotRequest(
            group_snapshot_id=handle, snapshot_ids=list(member_handles), secrets=dict(secrets)
        )
        outcome = await self._client.unary(methods.GET_GROUP, request)
        if isinstance(outcome, Failed):
            return outcome
        group = self._group_of("GetVolumeGroupSnapshot", outcome.value.group_snapshot)
        if isinstance(group, Failure):
            return Failed(group)
        if group.handle != handle:
            text = f"it is about the group {group.handle!r}, asked was {handle!r}"
            return Failed(failures.bad_response("GetVolumeGroupSnapshot", text, code="WRONG_SNAPSHOT"))
        return Done(group)

    def _group_of(self, verb: str, reply: pb.VolumeGroupSnapshot) -> CutGroup | Failure:
        most = self._client.settings.most_handle_bytes
        complaint = limits.handle_complaint(
            reply.group_snapshot_id, field="group_snapshot_id", most_handle_bytes=most
        )
        if complaint:
            return failures.bad_response(verb, complaint)
        members: list[CutSnapshot] = []
        for part in reply.snapshots:
            member = snapshots.cut_of(verb, part, most_handle_bytes=most)
            if isinstance(member, Failure):
                return member
            if member.group != reply.group_snapshot_id:
                return failures.bad_response(verb, f"member {member.handle!r} names the group {member.group!r}")
            members.append(member)
        if not members:
            return failures.bad_response(verb, "it has no members")
        return CutGroup(
            handle=reply.group_snapshot_id,
            members=tuple(members),
            ready=reply.ready_to_use,
            cut_at_ns=snapshots.cut_at_ns(reply.creation_time) if reply.HasField("creation_time") else None,
        )
