"""What a provisioner's tests need beside a driver: a class, nodes with places, claims, and a look at volumes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, localdisk
from tests.support.bed import access

Object = dict[str, Any]
FAST = ("--retry-interval-start=200ms", "--retry-interval-max=2s", "--leader-election=false", "--timeout=30s")
FINALIZER = "snapbridge.dev/provisioning"
RESTORE = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"

UPSTREAM_RULES = [
    {"apiGroups": [group], "resources": resources.split(","), "verbs": verbs.split(",")}
    for group, resources, verbs in (
        ("", "persistentvolumes", "get,list,watch,create,patch,delete"),
        ("", "persistentvolumeclaims", "get,list,watch,update"),
        ("storage.k8s.io", "storageclasses,csinodes", "get,list,watch"),
        ("", "nodes", "get,list,watch"),
        ("", "events", "list,watch,create,update,patch"),
        ("snapshot.storage.k8s.io", "volumesnapshots", "get,list,watch,update"),
        ("snapshot.storage.k8s.io", "volumesnapshotcontents", "get,list"),
    )
]
"""What external-provisioner's own manifest allows it, for a driver without attachments and secrets."""


def storage_class(name: str, driver: str = localdisk.NAME, **fields: Any) -> Object:
    """A StorageClass that deletes its volumes."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": driver,
        "reclaimPolicy": "Delete",
        **fields,
    }


def claim(namespace: str, name: str, klass: str, *, size: str = "32Mi", **spec: Any) -> Object:
    """A claim that a provisioner is to fill."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": klass,
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


def from_snapshot(name: str) -> Object:
    """A claim's dataSource."""
    return {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name}


def from_claim(name: str) -> Object:
    """A claim's dataSource."""
    return {"kind": "PersistentVolumeClaim", "name": name}


def place(admin: access.Access, node: str, driver: str, key: str) -> None:
    """A Node and its CSINode, as a kubelet with this driver would have written them."""
    admin.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {key: node}}})
    spec = {"drivers": [{"name": driver, "nodeID": node, "topologyKeys": [key]}]}
    admin.apply({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": node}, "spec": spec})


def look(admin: access.Access, path: str) -> Object | None:
    """One object by its path, or None. Plain HTTP: a kubectl for each look would cost too much."""
    status, body = admin.request("GET", path)
    found: Object | None = json.loads(body) if status == 200 else None
    return found


def claim_now(admin: access.Access, namespace: str, name: str) -> Object | None:
    """A claim as it stands."""
    return look(admin, f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")


def snapshot_now(admin: access.Access, namespace: str, name: str) -> Object | None:
    """A VolumeSnapshot as it stands."""
    return look(admin, f"{claims.GROUP}/namespaces/{namespace}/volumesnapshots/{name}")


def volume_now(admin: access.Access, name: str) -> Object | None:
    """A PersistentVolume as it stands."""
    return look(admin, f"/api/v1/persistentvolumes/{name}")


def finalizers(item: Object | None) -> list[str]:
    """Of an object that may be gone."""
    return list((item or {"metadata": {}})["metadata"].get("finalizers") or ())


def until_bound(admin: access.Access, namespace: str, name: str, seconds: float = 60.0) -> Object:
    """Wait until the claim is bound and its note is off; its PersistentVolume."""

    def holds() -> bool:
        item = claim_now(admin, namespace, name)
        phase = (item or {}).get("status", {}).get("phase")
        return phase == "Bound" and FINALIZER not in finalizers(item)

    claims.until(f"{name} is bound", holds, seconds)
    item = claim_now(admin, namespace, name)
    assert item is not None
    volume = volume_now(admin, item["spec"]["volumeName"])
    assert volume is not None
    return volume


def events(admin: access.Access, namespace: str, name: str) -> list[tuple[str, str]]:
    """(reason, message) of the events about a claim."""
    path = f"/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3D{name}"
    found = json.loads(admin.request("GET", path)[1])["items"]
    return [(item["reason"], item["message"]) for item in found]


def handles(driver: localdisk.LocalDisk) -> set[str]:
    """The volumes that the backend holds."""
    answer = driver.controller.ListVolumes(pb.ListVolumesRequest(), timeout=30, wait_for_ready=True)
    return {entry.volume.volume_id for entry in answer.entries}


def polled(seconds: float) -> Iterator[None]:
    """Tick until so long has passed: for what must stay as it is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
