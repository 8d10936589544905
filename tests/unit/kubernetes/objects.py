"""Small builders of the objects that the tables need."""

from __future__ import annotations

from typing import Any

from adapters.kubernetes import names

Object = dict[str, Any]
DRIVER = "csi.example"
UID = "6f1c"


def snapshot(**changes: Any) -> Object:
    """A dynamic VolumeSnapshot of claim `data` with class `plain`. Keys are dotted paths with `__`."""
    item: Object = {
        "apiVersion": names.API_VERSION,
        "kind": "VolumeSnapshot",
        "metadata": {
            "name": "one",
            "namespace": "apps",
            "uid": UID,
            "resourceVersion": "10",
            "creationTimestamp": "2026-11-21T12:00:00Z",
            "finalizers": list(names.SNAPSHOT_FINALIZERS),
        },
        "spec": {"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": "plain"},
    }
    return changed(item, changes)


def claim(**changes: Any) -> Object:
    item: Object = {
        "metadata": {
            "name": "data",
            "namespace": "apps",
            "uid": "claim-uid",
            "resourceVersion": "5",
            "finalizers": [names.CLAIM_FINALIZER],
        },
        "spec": {"volumeName": "pv-1"},
        "status": {"phase": "Bound"},
    }
    return changed(item, changes)


def volume(**changes: Any) -> Object:
    item: Object = {
        "metadata": {"name": "pv-1", "uid": "pv-uid", "resourceVersion": "4"},
        "spec": {
            "csi": {"driver": DRIVER, "volumeHandle": "vol-1"},
            "claimRef": {"namespace": "apps", "name": "data", "uid": "claim-uid"},
            "volumeMode": "Filesystem",
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
        },
        "status": {"phase": "Bound"},
    }
    return changed(item, changes)


def klass(**changes: Any) -> Object:
    item: Object = {
        "metadata": {"name": "plain", "uid": "class-uid", "resourceVersion": "3"},
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    }
    return changed(item, changes)


def content(**changes: Any) -> Object:
    """The dynamic snapshot's content, created and not cut."""
    item: Object = {
        "apiVersion": names.API_VERSION,
        "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": names.content_name(UID),
            "uid": "content-uid",
            "resourceVersion": "20",
            "finalizers": [names.CONTENT_FINALIZER],
            "annotations": {},
        },
        "spec": {
            "driver": DRIVER,
            "deletionPolicy": "Delete",
            "source": {"volumeHandle": "vol-1"},
            "volumeSnapshotClassName": "plain",
            "volumeSnapshotRef": {"namespace": "apps", "name": "one", "uid": UID},
        },
    }
    return changed(item, changes)


def changed(item: Object, changes: dict[str, Any]) -> Object:
    """Set each dotted path (`spec__source`); None removes the field."""
    for place, value in changes.items():
        target = item
        *way, last = place.split("__")
        for field in way:
            target = target.setdefault(field, {})
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    return item
