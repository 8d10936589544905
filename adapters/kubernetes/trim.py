"""What is kept of each kind of object. Pure.

Snapshots, contents and classes are kept whole but for managedFields: we write them back with PUT, and what
we leave out would be lost. Claims and volumes are only patched, so only what is read of them is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.decide import wellformed

Object = dict[str, Any]

_VOLUME_NOTES = (
    "volume.kubernetes.io/provisioner-deletion-secret-name",
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
    names.REGISTERED,
)


def whole(item: Object) -> Object:
    """Everything but managedFields, in a new object."""
    metadata = {field: value for field, value in item["metadata"].items() if field != "managedFields"}
    return {**item, "metadata": metadata}


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def forgetting(keep: Callable[[Object], Object]) -> Callable[[Object], Object]:
    """`keep`, and the next PUT has the server forget which client wrote which field (`managedFields: [{}]`).

    Not of an object that somebody applies: there the list says which fields the applier may take away again.
    """

    def kept(item: Object) -> Object:
        trimmed = keep(item)
        if _only_updated(item["metadata"]):
            trimmed["metadata"]["managedFields"] = [{}]
        return trimmed

    return kept


def _only_updated(metadata: Object) -> bool:
    owners = metadata.get("managedFields") or ()
    applied = LAST_APPLIED in (metadata.get("annotations") or {})
    return bool(owners) and not applied and all(owner.get("operation", "Update") == "Update" for owner in owners)


def snapshot(item: Object) -> Object:
    """A VolumeSnapshot: everything but managedFields, and what no status may have."""
    return wellformed.told_status(whole(item))


def group(item: Object) -> Object:
    """A VolumeGroupSnapshot: the same."""
    return wellformed.told_group_status(whole(item))


def claim(item: Object) -> Object:
    """A PersistentVolumeClaim: who it is, what it is bound to, what it is made from."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return {
        "metadata": _metadata(item["metadata"], ("finalizers", "deletionTimestamp", "labels")),
        "spec": _only(
            spec,
            (
                "volumeName",
                "dataSource",
                "dataSourceRef",
                "accessModes",
                "volumeMode",
                "storageClassName",
                "resources",
            ),
        ),
        "status": _only(status, ("phase", "capacity")),
    }


def volume(item: Object) -> Object:
    """A PersistentVolume: its CSI half and its binding."""
    spec = item.get("spec") or {}
    kept = _only(
        spec,
        (
            "csi",
            "capacity",
            "accessModes",
            "volumeMode",
            "storageClassName",
            "nodeAffinity",
            "mountOptions",
            "persistentVolumeReclaimPolicy",
        ),
    )
    reference = spec.get("claimRef")
    if reference:
        kept["claimRef"] = _only(reference, ("namespace", "name", "uid"))
    return {
        "metadata": _metadata(item["metadata"], ("deletionTimestamp",)),
        "spec": kept,
        "status": _only(item.get("status") or {}, ("phase",)),
    }


def node(item: Object) -> Object:
    """A Node: its name and labels."""
    metadata = _metadata(item["metadata"], ())
    return {"metadata": {**metadata, "labels": dict(item["metadata"].get("labels") or {})}}


def _metadata(metadata: Mapping[str, Any], more: tuple[str, ...]) -> Object:
    kept = _only(metadata, ("name", "namespace", "uid", "resourceVersion", *more))
    notes = _only(metadata.get("annotations") or {}, _VOLUME_NOTES)
    if notes:
        kept["annotations"] = notes
    return kept


def _only(source: Mapping[str, Any], fields: tuple[str, ...]) -> Object:
    return {field: source[field] for field in fields if source.get(field) is not None}
