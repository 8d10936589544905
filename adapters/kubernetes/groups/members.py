"""Members as objects: the VolumeSnapshot and the content that stand for one snapshot of a group. Pure.

Both are complete from their first write but for their status, which the API server takes in a second one only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import member, names, shape, status
from adapters.kubernetes.facts import path
from adapters.kubernetes.groups import names as own
from adapters.kubernetes.groups.facts import GroupFacts
from bridge.model.snapshot import CutSnapshot

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One member of one group, and what its objects are called."""

    facts: GroupFacts
    cut: CutSnapshot

    @property
    def group(self) -> Object:
        """The group's object."""
        assert self.facts.group is not None
        return self.facts.group

    @property
    def content(self) -> Object:
        """The group's content."""
        assert self.facts.content is not None
        return self.facts.content

    @property
    def namespace(self) -> str:
        """Where the member's VolumeSnapshot is."""
        return str(self.group["metadata"]["namespace"])

    @property
    def snapshot_name(self) -> str:
        """Upstream's name of the VolumeSnapshot."""
        return own.member_names(self.facts.uid, self.cut.source_handle)[0]

    @property
    def content_name(self) -> str:
        """Upstream's name of its content."""
        return own.member_names(self.facts.uid, self.cut.source_handle)[1]

    @property
    def volume(self) -> Object | None:
        """The PersistentVolume that was copied, if it is still known."""
        found = (source.volume for source in self.facts.sources if source.volume is not None)
        return next(
            (one for one in found if path(one, "spec", "csi", "volumeHandle") == self.cut.source_handle), None
        )


def owner(group: Object) -> Object:
    """What says that the group made it."""
    metadata = group["metadata"]
    return {
        "apiVersion": own.API_VERSION,
        "kind": own.GROUPS.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def new_snapshot(plan: Plan) -> Object:
    """The VolumeSnapshot with all its holds: nobody deletes a member but with its group."""
    claim = path(plan.volume, "spec", "claimRef", "name") or ""
    finalizers = [names.IN_GROUP_FINALIZER, names.SOURCE_FINALIZER]
    if plan.content["spec"]["deletionPolicy"] == "Delete":
        finalizers.append(names.BOUND_FINALIZER)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.SNAPSHOTS.kind,
        "metadata": {
            "name": plan.snapshot_name,
            "namespace": plan.namespace,
            "ownerReferences": [owner(plan.group)],
            "finalizers": finalizers,
        },
        "spec": {"source": {"persistentVolumeClaimName": claim}},
    }


def new_content(plan: Plan, snapshot: Object) -> Object:
    """The content, bound to its VolumeSnapshot and marked as a member, so that nobody cuts it again."""
    notes = {member.GROUP_HANDLE: plan.cut.group}
    given = plan.content["metadata"].get("annotations") or {}
    if given.get(own.DELETION_SECRET_NAME) and given.get(own.DELETION_SECRET_NAMESPACE):
        notes[names.DELETION_SECRET_NAME] = given[own.DELETION_SECRET_NAME]
        notes[names.DELETION_SECRET_NAMESPACE] = given[own.DELETION_SECRET_NAMESPACE]
    spec: Object = {
        "volumeSnapshotRef": shape.reference(snapshot["metadata"]),
        "source": {"volumeHandle": plan.cut.source_handle},
        "deletionPolicy": plan.content["spec"]["deletionPolicy"],
        "driver": plan.content["spec"]["driver"],
    }
    mode = path(plan.volume, "spec", "volumeMode")
    if mode:
        spec["sourceVolumeMode"] = mode
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.CONTENTS.kind,
        "metadata": {"name": plan.content_name, "finalizers": [names.CONTENT_FINALIZER], "annotations": notes},
        "spec": spec,
    }


def is_ours(snapshot: Object, content: Object | None, plan: Plan) -> bool:
    """Whether the objects of the member's names are this group's; upstream's count as well as ours."""
    if plan.facts.uid not in member.group_uids(snapshot):
        return False
    return content is None or member.group_handle(content) == plan.cut.group


def rebound_content(content: Object, snapshot: Object) -> Object | None:
    """The content with its VolumeSnapshot's uid; None when it has it."""
    if path(content, "spec", "volumeSnapshotRef", "uid") == snapshot["metadata"]["uid"]:
        return None
    spec = {**content["spec"], "volumeSnapshotRef": shape.reference(snapshot["metadata"])}
    return {**content, "spec": spec}


def content_status(content: Object, cut: CutSnapshot) -> Object | None:
    """The content with what the backend says of the member; None when it says so already."""
    before = content.get("status") or {}
    after = {
        **before,
        "snapshotHandle": cut.handle,
        "volumeGroupSnapshotHandle": cut.group,
        "readyToUse": cut.ready,
    }
    if cut.cut_at_ns is not None:
        after["creationTime"] = cut.cut_at_ns
    if cut.size_bytes is not None and cut.size_bytes > 0:
        after["restoreSize"] = cut.size_bytes
    if cut.ready:
        after.pop("error", None)
    return None if after == before else {**content, "status": after}


def snapshot_status(snapshot: Object, plan: Plan) -> Object | None:
    """The VolumeSnapshot with the same; None when it says so already."""
    before = snapshot.get("status") or {}
    after = {
        **before,
        "boundVolumeSnapshotContentName": plan.content_name,
        "readyToUse": plan.cut.ready,
        "volumeGroupSnapshotName": plan.group["metadata"]["name"],
    }
    if plan.cut.cut_at_ns is not None:
        after["creationTime"] = shape.rfc3339(plan.cut.cut_at_ns / 1e9)
    if plan.cut.size_bytes is not None and plan.cut.size_bytes > 0:
        after["restoreSize"] = status.quantity(plan.cut.size_bytes)
    if plan.cut.ready:
        after.pop("error", None)
    return None if after == before else {**snapshot, "status": after}
