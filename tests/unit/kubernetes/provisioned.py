"""Small builders of the objects that provisioning's tables need."""

from __future__ import annotations

from typing import Any

from adapters.kubernetes import names
from tests.unit.kubernetes.objects import changed

Object = dict[str, Any]
DRIVER = "csi.example"
UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
NAME = f"pvc-{UID}"


def claim(**changes: Any) -> Object:
    """A claim of class `fast` that waits for this driver. Keys are dotted paths with `__`."""
    item: Object = {
        "metadata": {
            "name": "data",
            "namespace": "apps",
            "uid": UID,
            "resourceVersion": "7",
            "annotations": {names.STORAGE_PROVISIONER: DRIVER},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast",
            "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": "Pending"},
    }
    return changed(item, changes)


def from_snapshot(**changes: Any) -> Object:
    return claim(spec__dataSource={"apiGroup": names.GROUP, "kind": "VolumeSnapshot", "name": "monday"}, **changes)


def klass(**changes: Any) -> Object:
    item: Object = {
        "metadata": {"name": "fast", "uid": "class-uid"},
        "provisioner": DRIVER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }
    return changed(item, changes)


def snapshot(**changes: Any) -> Object:
    item: Object = {
        "metadata": {"name": "monday", "namespace": "apps", "uid": "snap-uid", "resourceVersion": "3"},
        "spec": {"source": {"persistentVolumeClaimName": "old"}},
        "status": {"boundVolumeSnapshotContentName": "content-1", "readyToUse": True, "restoreSize": "1Gi"},
    }
    return changed(item, changes)


def content(**changes: Any) -> Object:
    item: Object = {
        "metadata": {"name": "content-1"},
        "spec": {
            "driver": DRIVER,
            "volumeSnapshotRef": {"uid": "snap-uid", "namespace": "apps", "name": "monday"},
            "sourceVolumeMode": "Filesystem",
        },
        "status": {"snapshotHandle": "handle-1"},
    }
    return changed(item, changes)


def source_claim(**changes: Any) -> Object:
    item: Object = {
        "metadata": {"name": "old", "namespace": "apps", "uid": "old-uid"},
        "spec": {
            "storageClassName": "slow",
            "volumeName": "pv-old",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": "Bound"},
    }
    return changed(item, changes)


def source_volume(**changes: Any) -> Object:
    item: Object = {
        "metadata": {"name": "pv-old", "uid": "pv-old-uid"},
        "spec": {
            "csi": {"driver": DRIVER, "volumeHandle": "vol-old"},
            "claimRef": {"uid": "old-uid", "namespace": "apps", "name": "old"},
            "volumeMode": "Filesystem",
        },
        "status": {"phase": "Bound"},
    }
    return changed(item, changes)


def volume(**changes: Any) -> Object:
    """The PersistentVolume of `claim`, bound."""
    item: Object = {
        "metadata": {
            "name": NAME,
            "uid": "pv-uid",
            "resourceVersion": "9",
            "annotations": {names.PROVISIONED_BY: DRIVER},
            "finalizers": [names.VOLUME_FINALIZER],
        },
        "spec": {
            "csi": {"driver": DRIVER, "volumeHandle": "vol-1"},
            "claimRef": {"uid": UID, "namespace": "apps", "name": "data"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "fast",
        },
        "status": {"phase": "Bound"},
    }
    return changed(item, changes)


def grant(*, giver: Object | None = None, given: Object | None = None) -> Object:
    """A ReferenceGrant in `vault` that lets `apps` use its snapshots. The arguments change one row each."""
    return {
        "metadata": {"name": "lend", "namespace": "vault"},
        "spec": {
            "from": [{"group": "", "kind": "PersistentVolumeClaim", "namespace": "apps", **(giver or {})}],
            "to": [{"group": names.GROUP, "kind": "VolumeSnapshot", **(given or {})}],
        },
    }
