"""`snapbridge kubernetes provisioner` with a real API server, controller manager and driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import claims, localdisk, provisioning, role
from tests.support.bed import controlplane
from tests.support.provisioning import claim, from_snapshot, storage_class, until_bound

CLASS = "fast"
NODE = "place-1"
KEY = f"{localdisk.NAME}/node"


@pytest.fixture(scope="module")
def driver(control_plane: controlplane.ControlPlane) -> Iterator[localdisk.LocalDisk]:
    admin = control_plane.admin
    with localdisk.start_localdisk(node_id=NODE) as running:
        claims.install(admin, localdisk.NAME)
        provisioning.place(admin, NODE, localdisk.NAME, KEY)
        admin.apply(storage_class(CLASS))
        yield running
        admin.kubectl("delete", "storageclass", CLASS)
        admin.kubectl("delete", "node,csinode", NODE)


@pytest.fixture(scope="module")
def snapshotter(control_plane: controlplane.ControlPlane, driver: localdisk.LocalDisk) -> Iterator[role.Role]:
    address = f"--csi-address={driver.socket}"
    with role.role("all", address, "--leader-election=false", kubeconfig=control_plane.kubeconfig) as running:
        yield running


@pytest.fixture(scope="module")
def provisioner(control_plane: controlplane.ControlPlane, driver: localdisk.LocalDisk) -> Iterator[role.Role]:
    flags = (f"--csi-address={driver.socket}", *provisioning.FAST)
    with role.role("provisioner", *flags, kubeconfig=control_plane.kubeconfig) as running:
        yield running


def test_restore_from_a_snapshot_end_to_end(
    control_plane: controlplane.ControlPlane,
    driver: localdisk.LocalDisk,
    snapshotter: role.Role,
    provisioner: role.Role,
    namespace: str,
) -> None:
    admin = control_plane.admin
    admin.apply(claim(namespace, "data", CLASS))
    source = until_bound(admin, namespace, "data")
    mounted = driver.publish(source["spec"]["csi"]["volumeHandle"])
    (mounted / "note.txt").write_text("kept")
    admin.apply(claims.snapshot(namespace, "monday", "data"))
    claims.until("ready", lambda: claims.is_ready(admin, namespace, "monday"))
    (mounted / "note.txt").write_text("spoilt")

    admin.apply(claim(namespace, "restored", CLASS, dataSource=from_snapshot("monday")))
    volume = until_bound(admin, namespace, "restored")
    again = driver.publish(volume["spec"]["csi"]["volumeHandle"])
    assert (again / "note.txt").read_text() == "kept"
