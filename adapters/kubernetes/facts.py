"""What one pass may know of one snapshot, and small questions about the objects. Pure."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from adapters.kubernetes import names

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """One snapshot's surroundings, as the caches had them at one instant."""

    uid: str
    snapshot: Object | None = None
    content: Object | None = None
    claim: Object | None = None
    volume: Object | None = None
    class_name: str = ""
    klass: Object | None = None
    """The class named; None also when it is malformed, and then `class_trouble` says how."""
    class_trouble: str = ""
    defaults: tuple[Object, ...] = ()
    """The default classes of the volume's driver; only looked up where no class is named."""
    restoring: tuple[str, ...] = ()
    naming: names.Naming = names.Naming()


def path(item: Object | None, *fields: str) -> Any:
    """The value at a path of fields, or None where something is missing on the way.

    >>> path({"spec": {"source": {}}}, "spec", "source", "volumeHandle") is None
    True
    """
    value: Any = item
    for field in fields:
        if type(value) is not dict:  # Objects are plain JSON; this is asked for hundreds of times per snapshot.
            return None
        value = value.get(field)
    return value


def seconds_of(text: object) -> float:
    """Seconds since the epoch of an instant as the API server writes it; 0 when there is none.

    >>> seconds_of("1970-01-01T00:01:00Z"), seconds_of(None)
    (60.0, 0.0)
    """
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp() if text else 0.0
    except ValueError:
        return 0.0


def is_ready(snapshot: Object) -> bool:
    """Whether its status says that it can be used."""
    status = snapshot.get("status")
    return type(status) is dict and status.get("readyToUse") is True


def is_deleting(item: Object) -> bool:
    """Whether its deletion has been asked for."""
    return bool(item["metadata"].get("deletionTimestamp"))


def static_content(snapshot: Object) -> str:
    """The name of the content that a pre-provisioned VolumeSnapshot asks for; empty for a dynamic one."""
    return str(path(snapshot, "spec", "source", "volumeSnapshotContentName") or "")


def snapshot_of_reference(content: Object) -> str:
    """The uid of the VolumeSnapshot that a content is bound to; empty before that."""
    return str(path(content, "spec", "volumeSnapshotRef", "uid") or "")


def points_back(content: Object, snapshot: Object) -> bool:
    """Whether the content is this VolumeSnapshot's; a pre-provisioned one may still lack the uid."""
    reference, metadata = ("spec", "volumeSnapshotRef"), snapshot["metadata"]
    if any(path(content, *reference, field) != metadata[field] for field in ("name", "namespace")):
        return False
    uid = path(content, *reference, "uid") or ""
    return bool(uid == metadata["uid"] or (not uid and static_content(snapshot)))


def is_bound(content: Object | None, snapshot: Object) -> bool:
    """Whether the content is this VolumeSnapshot's, by uid, and of the right sort of source."""
    if content is None or not points_back(content, snapshot):
        return False
    if snapshot_of_reference(content) != snapshot["metadata"]["uid"]:
        return False
    field = "snapshotHandle" if static_content(snapshot) else "volumeHandle"
    return bool(path(content, "spec", "source", field))


def snapshot_seal(snapshot: Object, content_name: str) -> int | None:
    """A number that says which content settles it: nothing is left to do when a content has the same one.

    None when something is left in any case: it is not ready, or it is being deleted.
    """
    if not is_ready(snapshot) or is_deleting(snapshot):
        return None
    metadata = snapshot["metadata"]
    field = "snapshotHandle" if static_content(snapshot) else "volumeHandle"
    return hash((content_name, metadata["uid"], metadata["namespace"], metadata["name"], field))


def content_seal(content: Object) -> int | None:
    """The same number of a content that is bound (`is_bound`), ready, unmarked and to stay; else None."""
    uid = snapshot_of_reference(content)
    if names.BEING_CREATED in (content["metadata"].get("annotations") or {}):
        return None
    if not uid or is_deleting(content) or path(content, "status", "readyToUse") is not True:
        return None
    reference, source = path(content, "spec", "volumeSnapshotRef"), path(content, "spec", "source")
    field = next((field for field in ("volumeHandle", "snapshotHandle") if path(source, field)), "")
    bound = (content["metadata"]["name"], uid, reference.get("namespace"), reference.get("name"), field)
    return hash(tuple(map(str, bound)))
