"""Velero's way, step by step as its CSI plugin (1.15 and newer) goes it, against the merged service.

A backup cuts a snapshot, notes its handle, sets its content to Retain and deletes both objects: the data stays. A
restore makes both objects anew by handle. The deletion of a backup makes a content for nobody, with policy Delete,
and deletes it: the data goes. Field for field: labels, annotations and the leftovers that a backed-up object carries.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_standalone import backend, checksum
from tests.support import claims, localdisk, serve
from tests.support.bed import controlplane

DRIVER = "velero.snapbridge.dev"
CLASS = "velero-local"
GROUP = "/apis/snapshot.storage.k8s.io/v1"
MERGE = "application/merge-patch+json"
Object = dict[str, Any]


class Velero:
    """The plugin's steps, over plain HTTP as its client does them."""

    def __init__(self, plane: controlplane.ControlPlane, namespace: str, backup: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.backup_name = backup

    def call(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        status, answer = self.plane.admin.request(method, path, body, kind)
        assert status < 300, (method, path, status, answer)
        found: Object = json.loads(answer)
        return found

    def snapshots(self, name: str = "", namespace: str = "") -> str:
        where = f"{GROUP}/namespaces/{namespace or self.namespace}/volumesnapshots"
        return f"{where}/{name}" if name else where

    def contents(self, name: str = "") -> str:
        return f"{GROUP}/volumesnapshotcontents/{name}" if name else f"{GROUP}/volumesnapshotcontents"

    def exists(self, path: str) -> bool:
        return self.plane.admin.request("GET", path)[0] == 200

    # -- backup ----------------------------------------------------------------------------------------------

    def cut(self, claim: str) -> Object:
        """Create the snapshot of a claim, and wait until its content has a handle."""
        made = self.call(
            "POST",
            self.snapshots(),
            {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshot",
                "metadata": {
                    "generateName": f"velero-{claim}-",
                    "namespace": self.namespace,
                    "labels": {"app": "shop", "velero.io/backup-name": self.backup_name},
                },
                "spec": {"source": {"persistentVolumeClaimName": claim}, "volumeSnapshotClassName": CLASS},
            },
        )
        name = made["metadata"]["name"]

        def has_handle() -> bool:
            bound = self.call("GET", self.snapshots(name)).get("status", {}).get("boundVolumeSnapshotContentName")
            return bool(bound and self.call("GET", self.contents(bound)).get("status", {}).get("snapshotHandle"))

        claims.until("the content has a handle", has_handle)
        return self.call("GET", self.snapshots(name))

    def keep_facts(self, snapshot: Object) -> tuple[Object, Object]:
        """Label the content, annotate the snapshot, wait until both say ready: what goes into the backup."""
        content = self.call("GET", self.contents(snapshot["status"]["boundVolumeSnapshotContentName"]))
        label = {"metadata": {"labels": {"velero.io/backup-name": self.backup_name}}}
        self.call("PATCH", self.contents(content["metadata"]["name"]), label, MERGE)
        notes = {
            "velero.io/csi-vsc-deletion-policy": content["spec"]["deletionPolicy"],
            "velero.io/csi-volumesnapshot-handle": content["status"]["snapshotHandle"],
            "velero.io/csi-driver-name": content["spec"]["driver"],
        }
        path = self.snapshots(snapshot["metadata"]["name"])
        self.call("PATCH", path, {"metadata": {"annotations": notes}}, MERGE)

        def ready() -> bool:
            one, other = self.call("GET", path), self.call("GET", self.contents(content["metadata"]["name"]))
            return all((item.get("status") or {}).get("readyToUse") for item in (one, other))

        claims.until("both are ready", ready)
        return self.call("GET", path), self.call("GET", self.contents(content["metadata"]["name"]))

    def forget_objects(self, snapshot: Object, content: Object) -> None:
        """The end of a backup: Retain, then the content is deleted, then the snapshot."""
        name = content["metadata"]["name"]
        self.call("PATCH", self.contents(name), {"spec": {"deletionPolicy": "Retain"}}, MERGE)
        self.call("DELETE", self.contents(name))
        self.call("DELETE", self.snapshots(snapshot["metadata"]["name"]))
        for path in (self.contents(name), self.snapshots(snapshot["metadata"]["name"])):
            claims.until(f"{path} is gone", lambda path=path: not self.exists(path))  # type: ignore[misc]

    # -- restore ---------------------------------------------------------------------------------------------

    def restore_objects(self, snapshot: Object, content: Object, namespace: str) -> str:
        """Make both anew by handle under one generated name, the content first. Labels and notes are kept."""
        text = f"{uuid.uuid4()}{snapshot['metadata']['name']}"
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        body = {"apiVersion": content["apiVersion"], "kind": content["kind"], "spec": copy.deepcopy(content["spec"])}
        body["metadata"] = self._kept(content, name)
        body["spec"]["volumeSnapshotRef"] |= {"name": name, "namespace": namespace}
        for field in ("uid", "resourceVersion"):
            body["spec"]["volumeSnapshotRef"].pop(field, None)
        body["spec"] |= {
            "deletionPolicy": "Retain",
            "source": {"snapshotHandle": content["status"]["snapshotHandle"]},
        }
        body["spec"]["volumeSnapshotClassName"] = CLASS  # any class of the driver
        self.call("POST", self.contents(), body)
        made = {
            "apiVersion": snapshot["apiVersion"],
            "kind": snapshot["kind"],
            "metadata": self._kept(snapshot, name),
        }
        made["metadata"]["annotations"] |= {"velero.io/csi-vsc-deletion-policy": "Retain"}
        made["spec"] = {"source": {"volumeSnapshotContentName": name}}
        self.call("POST", self.snapshots(namespace=namespace), made)
        path = self.snapshots(name, namespace)
        claims.until("ready", lambda: bool(self.call("GET", path).get("status", {}).get("readyToUse")))
        return name

    def _kept(self, item: Object, name: str) -> Object:
        labels = {**item["metadata"].get("labels", {}), "velero.io/restore-name": "again"}
        return {"name": name, "labels": labels, "annotations": dict(item["metadata"].get("annotations") or {})}

    # -- deletion of the backup ------------------------------------------------------------------------------

    def delete_data(self, content: Object, *, wait: bool = True) -> str:
        """A content for nobody, made of the backed-up one, and its deletion. Returns its name."""
        body = copy.deepcopy(content)
        old = body["metadata"]["uid"]
        body["metadata"] |= {"name": f"vsc-{uuid.uuid4()}", "resourceVersion": ""}
        body["spec"] |= {
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": content["status"]["snapshotHandle"]},
            "volumeSnapshotRef": {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshot",
                "namespace": f"ns-{old}",
                "name": f"name-{old}",
            },
        }
        body["spec"].pop("volumeSnapshotClassName", None)
        name = self.call("POST", self.contents(), body)["metadata"]["name"]
        claims.until("known", lambda: "status" in self.call("GET", self.contents(name)))  # it sleeps for 2 s
        self.call("DELETE", self.contents(name))
        if wait:
            claims.until("the content is gone", lambda: not self.exists(self.contents(name)))
        return str(name)


@pytest.fixture(scope="module")
def driver() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk(driver_name=DRIVER) as running:
        yield running


@pytest.fixture(scope="module")
def service(driver: localdisk.LocalDisk, control_plane: controlplane.ControlPlane) -> Iterator[serve.Serve]:
    claims.install(control_plane.admin, DRIVER, name=CLASS)
    made = serve.service(
        clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(control_plane.kubeconfig)}],
        plugins=[{"name": "localdisk", "socket": str(driver.socket)}],
    )
    with made as running:
        yield running


@pytest.fixture
def velero(service: serve.Serve, control_plane: controlplane.ControlPlane, namespace: str) -> Velero:
    del service
    return Velero(control_plane, namespace, f"backup-{namespace}")


def claimed(velero: Velero, driver: localdisk.LocalDisk) -> str:
    """A claim with data. Returns its checksum."""
    volume = driver.volume(f"velero-{velero.namespace}", 32 << 20)
    claims.bound(velero.plane.admin, velero.namespace, "data", DRIVER, volume.volume_id)
    mounted = driver.publish(volume.volume_id)
    (mounted / "a.bin").write_bytes(os.urandom(1 << 20))
    return checksum(mounted)


def test_backup_restore_and_deletion(velero: Velero, driver: localdisk.LocalDisk, service: serve.Serve) -> None:
    before = claimed(velero, driver)
    snapshot, content = velero.keep_facts(velero.cut("data"))
    assert snapshot["metadata"]["name"].startswith("velero-data-")
    (handle,) = backend(driver)
    assert content["status"]["snapshotHandle"] == handle
    velero.forget_objects(snapshot, content)
    assert backend(driver) == [handle], "a backup's data outlives its objects"

    other = f"{velero.namespace}-other"
    velero.plane.kubectl("create", "namespace", other)
    try:
        restored = velero.restore_objects(snapshot, content, other)
        uid = velero.call("GET", velero.snapshots(restored, other))["metadata"]["uid"]
        service.cli("snapshot", "restore", uid, "--as", "data", "--wait")
        found = velero.call("GET", f"/api/v1/namespaces/{other}/persistentvolumeclaims/data")["spec"]["volumeName"]
        volume = velero.call("GET", f"/api/v1/persistentvolumes/{found}")["spec"]["csi"]["volumeHandle"]
        assert checksum(driver.publish(volume)) == before
        velero.call("DELETE", velero.snapshots(restored, other))
        claims.until("the snapshot is gone", lambda: not velero.exists(velero.snapshots(restored, other)))
        velero.call("DELETE", velero.contents(restored))
        claims.until("the content is gone", lambda: not velero.exists(velero.contents(restored)))
        assert backend(driver) == [handle], "what was restored with Retain leaves the backup's data"
    finally:
        velero.plane.kubectl("delete", "namespace", other, "--wait=false")
    velero.delete_data(content)
    assert backend(driver) == []


def test_the_data_of_a_backup_stays_while_a_restored_snapshot_is_there(
    velero: Velero, driver: localdisk.LocalDisk
) -> None:
    """Upstream deletes it at once, and the restored snapshot goes on saying ready. Here the deletion waits for it."""
    claimed(velero, driver)
    snapshot, content = velero.keep_facts(velero.cut("data"))
    velero.forget_objects(snapshot, content)
    restored = velero.restore_objects(snapshot, content, velero.namespace)
    temporary = velero.delete_data(content, wait=False)

    def told() -> bool:
        return "is also held by" in velero.plane.kubectl(
            "get", "events", "-n", "default", "-o", "jsonpath={..message}"
        )

    claims.until("told", told, 30.0)
    assert backend(driver) == [content["status"]["snapshotHandle"]]
    velero.call("DELETE", velero.snapshots(restored))
    claims.until("the snapshot is gone", lambda: not velero.exists(velero.snapshots(restored)))
    velero.call("DELETE", velero.contents(restored))
    claims.until("the last one takes the data along", lambda: not velero.exists(velero.contents(temporary)))
    assert backend(driver) == []


def test_notes_of_an_unfinished_cut_in_a_backup_cut_nothing_anew(velero: Velero, driver: localdisk.LocalDisk) -> None:
    """A content that was saved in the middle of its cut carries marks that mean a repeat, and finalizers."""
    claimed(velero, driver)
    snapshot, content = velero.keep_facts(velero.cut("data"))
    velero.forget_objects(snapshot, content)
    uid = snapshot["metadata"]["uid"]
    intent = {"name": f"snapshot-{uid}", "volume": content["spec"]["source"]["volumeHandle"], "writer": "another"}
    content["metadata"]["annotations"] = {
        **content["metadata"].get("annotations", {}),
        "snapshot.storage.kubernetes.io/volumesnapshot-being-created": "yes",
        "snapbridge.dev/intent": json.dumps(intent),
    }
    restored = velero.restore_objects(snapshot, content, velero.namespace)
    assert backend(driver) == [content["status"]["snapshotHandle"]]
    velero.call("DELETE", velero.snapshots(restored))
    claims.until("the snapshot is gone", lambda: not velero.exists(velero.snapshots(restored)))
    velero.call("DELETE", velero.contents(restored))
    velero.delete_data(content)
    assert backend(driver) == []


def test_a_content_for_nobody_of_a_handle_that_is_not_there_is_told_and_goes(
    velero: Velero, driver: localdisk.LocalDisk
) -> None:
    claimed(velero, driver)
    snapshot, content = velero.keep_facts(velero.cut("data"))
    velero.forget_objects(snapshot, content)
    body = copy.deepcopy(content)
    body["status"]["snapshotHandle"] = "snap-nowhere"
    name = velero.delete_data(body, wait=False)
    claims.until("the content is gone", lambda: not velero.exists(velero.contents(name)))
    assert backend(driver) == [content["status"]["snapshotHandle"]]
    velero.delete_data(content)
    assert backend(driver) == []
