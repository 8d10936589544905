"""What one pass may know of one group, and small questions about the objects. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.groups import names
from adapters.kubernetes.names import Naming

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One volume of the group: its claim and its PersistentVolume, as far as they are known."""

    claim: Object | None
    volume: Object | None


@dataclasses.dataclass(frozen=True, slots=True)
class GroupFacts:
    """One group's surroundings, as the caches had them at one instant."""

    uid: str
    group: Object | None = None
    content: Object | None = None
    sources: tuple[Source, ...] = ()
    """The selected claims by name; once a content exists, those of its volumes."""
    class_name: str = ""
    klass: Object | None = None
    """The class named; None also when it is malformed, and then `class_trouble` says how."""
    class_trouble: str = ""
    defaults: tuple[Object, ...] = ()
    """The default classes of the first volume's driver; only looked up where no class is named."""
    naming: Naming = names.NAMING
    in_use: str = ""
    """Who uses a member now; only looked up while the group is being deleted."""


def static_content(group: Object) -> str:
    """The name of the content that a pre-provisioned group asks for; empty for a dynamic one."""
    return str(path(group, "spec", "source", "volumeGroupSnapshotContentName") or "")


def group_of_reference(content: Object) -> str:
    """The uid of the VolumeGroupSnapshot that a content is bound to; empty before that."""
    return str(path(content, "spec", "volumeGroupSnapshotRef", "uid") or "")


def points_back(content: Object, group: Object) -> bool:
    """Whether the content is this group's; a pre-provisioned one may still lack the uid."""
    reference, metadata = ("spec", "volumeGroupSnapshotRef"), group["metadata"]
    if any(path(content, *reference, field) != metadata[field] for field in ("name", "namespace")):
        return False
    uid = path(content, *reference, "uid") or ""
    return bool(uid == metadata["uid"] or (not uid and static_content(group)))


def is_bound(content: Object | None, group: Object) -> bool:
    """Whether the content is this group's, by uid, and of the right sort of source."""
    if content is None or not points_back(content, group):
        return False
    if group_of_reference(content) != group["metadata"]["uid"]:
        return False
    field = "groupSnapshotHandles" if static_content(group) else "volumeHandles"
    return bool(path(content, "spec", "source", field))


def is_ready(group: Object) -> bool:
    """Whether its status says that all members can be used."""
    return path(group, "status", "readyToUse") is True


def is_held(group: Object) -> bool:
    """Whether the group carries our finalizer."""
    return names.BOUND_FINALIZER in (group["metadata"].get("finalizers") or ())


def is_settled(group: Object, content: Object | None) -> bool:
    """Whether nothing is left to do."""
    if not is_ready(group) or is_deleting(group) or content is None or is_deleting(content):
        return False
    return is_bound(content, group) and path(content, "status", "readyToUse") is True
