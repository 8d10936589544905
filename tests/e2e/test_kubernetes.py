"""The kubectl door: `kubectl apply` on a real API server, a real driver, equal bytes after a restore."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.e2e.test_standalone import backend, checksum
from tests.support import claims, localdisk, serve
from tests.support.bed import controlplane

SIZE = 32 << 20


@pytest.fixture
def driver() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk() as running:
        yield running


@pytest.fixture
def service(driver: localdisk.LocalDisk, control_plane: controlplane.ControlPlane) -> Iterator[serve.Serve]:
    claims.install(control_plane.admin, localdisk.NAME)
    made = serve.service(
        clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(control_plane.kubeconfig)}],
        plugins=[{"name": "localdisk", "socket": str(driver.socket)}],
    )
    with made as running:
        yield running


def test_apply_damage_restore_delete(
    driver: localdisk.LocalDisk, service: serve.Serve, control_plane: controlplane.ControlPlane, namespace: str
) -> None:
    admin = control_plane.admin
    volume = driver.volume("kube-data", SIZE)
    claims.bound(admin, namespace, "data", localdisk.NAME, volume.volume_id)
    mounted = driver.publish(volume.volume_id)
    (mounted / "a.bin").write_bytes(os.urandom(3 << 20))
    before = checksum(mounted)
    admin.apply(claims.snapshot(namespace, "one", "data"))
    claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
    (handle,) = backend(driver)
    found = admin.get("volumesnapshot", "one", "-n", namespace)
    content = admin.get("volumesnapshotcontent", found["status"]["boundVolumeSnapshotContentName"])
    assert content["metadata"]["name"] == f"snapcontent-{found['metadata']['uid']}"
    assert content["status"]["snapshotHandle"] == handle
    assert found["status"]["restoreSize"] == "32Mi"
    (mounted / "a.bin").write_bytes(b"damaged")
    uid = found["metadata"]["uid"]
    service.cli("snapshot", "restore", uid, "--as", "data-restored", "--wait")
    claim = admin.get("pvc", "data-restored", "-n", namespace)
    volume_name = claim["spec"]["volumeName"]
    restored = admin.get("pv", volume_name)["spec"]["csi"]["volumeHandle"]
    assert checksum(driver.publish(restored)) == before
    admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=30s")
    claims.until("content gone", lambda: claims.is_gone(admin, "volumesnapshotcontent", content["metadata"]["name"]))
    assert backend(driver) == []

    def held() -> list[str]:
        found = admin.get("pvc", "data", "-n", namespace)["metadata"].get("finalizers", [])
        return [name for name in found if "as-source" in name]

    claims.until("the claim is free", lambda: held() == [])


def test_a_pre_provisioned_snapshot_is_bound_and_deleted_by_policy(
    driver: localdisk.LocalDisk, service: serve.Serve, control_plane: controlplane.ControlPlane, namespace: str
) -> None:
    admin = control_plane.admin
    volume = driver.volume("kube-static", SIZE)
    cut = driver.snapshot("by-hand", volume.volume_id)
    for policy, left in (("Retain", 1), ("Delete", 0)):
        name = f"static-{policy.lower()}-{namespace}"
        admin.apply(
            [
                {
                    "apiVersion": "snapshot.storage.k8s.io/v1",
                    "kind": "VolumeSnapshotContent",
                    "metadata": {"name": name},
                    "spec": {
                        "driver": localdisk.NAME,
                        "deletionPolicy": policy,
                        "source": {"snapshotHandle": cut.snapshot_id},
                        "volumeSnapshotRef": {"name": name, "namespace": namespace},
                    },
                },
                {
                    "apiVersion": "snapshot.storage.k8s.io/v1",
                    "kind": "VolumeSnapshot",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"source": {"volumeSnapshotContentName": name}},
                },
            ]
        )
        claims.until("ready", lambda name=name: claims.is_ready(admin, namespace, name))  # type: ignore[misc]
        admin.kubectl("delete", "volumesnapshot", name, "-n", namespace, "--timeout=30s")
        if policy == "Retain":
            admin.kubectl("delete", "volumesnapshotcontent", name, "--timeout=30s")
        claims.until(
            "content gone",
            lambda name=name: claims.is_gone(admin, "volumesnapshotcontent", name),  # type: ignore[misc]
        )
        assert len(backend(driver)) == left
    driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume.volume_id), timeout=30)


def test_what_is_wrong_is_told_in_status_and_leaves_nothing(
    driver: localdisk.LocalDisk, service: serve.Serve, control_plane: controlplane.ControlPlane, namespace: str
) -> None:
    admin = control_plane.admin
    admin.apply(claims.snapshot(namespace, "no-claim", "missing"))
    admin.apply(claims.snapshot(namespace, "no-class", "missing", class_name="nowhere"))

    def told(name: str) -> bool:
        status = admin.get("volumesnapshot", name, "-n", namespace).get("status", {})
        return bool(status.get("error", {}).get("message"))

    for name in ("no-claim", "no-class"):
        claims.until(f"an error for {name}", lambda name=name: told(name))  # type: ignore[misc]
        admin.kubectl("delete", "volumesnapshot", name, "-n", namespace, "--timeout=30s")
    assert backend(driver) == []
