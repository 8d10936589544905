"""Members of group snapshots, as the single snapshots' half must know them. Pure.

A member is a VolumeSnapshot like any other but for three things: its group makes and refreshes it, nobody deletes it
while its group is there, and its data on the backend goes with the group and never by itself.
"""

from __future__ import annotations

from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.facts import path

Object = dict[str, Any]

GROUP_HANDLE = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"
"""On a member's content: the group's handle, from the content's first moment."""
_GROUP_API = "groupsnapshot.storage.k8s.io/"
_GROUP_KIND = "VolumeGroupSnapshot"


def owner(snapshot: Object) -> Object | None:
    """The reference to the group that made it, or None."""
    for reference in snapshot["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == _GROUP_KIND and str(reference.get("apiVersion", "")).startswith(_GROUP_API):
            found: Object = reference
            return found
    return None


def group_uids(snapshot: Object) -> tuple[str, ...]:
    """The uid of the group that made it, as an index wants it."""
    reference = owner(snapshot)
    return (str(reference.get("uid")),) if reference is not None and reference.get("uid") else ()


def group_name(snapshot: Object) -> str:
    """The name of its group; empty for what is no member."""
    reference = owner(snapshot)
    named = path(snapshot, "status", "volumeGroupSnapshotName")
    return str(named or (reference or {}).get("name") or "")


def is_made_by_group(snapshot: Object) -> bool:
    """Whether a group made it: no snapshot may ever be cut for it alone."""
    if path(snapshot, "spec", "source", "volumeSnapshotContentName"):
        return False
    return owner(snapshot) is not None or names.IN_GROUP_FINALIZER in (snapshot["metadata"].get("finalizers") or ())


def is_member(snapshot: Object) -> bool:
    """Whether it belongs to a group, made by it or by hand."""
    return is_made_by_group(snapshot) or bool(group_name(snapshot))


def content_name(snapshot: Object) -> str:
    """What the content of a snapshot that a group made is called."""
    bound = path(snapshot, "status", "boundVolumeSnapshotContentName")
    if bound:
        return str(bound)
    return "snapcontent-" + str(snapshot["metadata"]["name"]).removeprefix("snapshot-")


def group_handle(content: Object) -> str:
    """The handle of the group that this content's snapshot belongs to on the backend; empty for none."""
    in_status = path(content, "status", "volumeGroupSnapshotHandle")
    return str(in_status or (content["metadata"].get("annotations") or {}).get(GROUP_HANDLE) or "")
