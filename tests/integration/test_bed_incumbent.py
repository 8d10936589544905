"""The test bed's incumbent: the upstream pair cuts and deletes a snapshot on our driver, and is measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import pytest

from bridge.pb.csi.v1 import csi_pb2, csi_pb2_grpc
from tests.support.bed import build, controlplane, incumbent, localdisk, requests

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("upstream_pair")]
DRIVER = "localdisk.bed.test"
GROUP = "snapshot.storage.k8s.io"
VOLUME_SIZE_BYTES = 1 << 20


def test_the_upstream_pair_cuts_and_deletes_a_snapshot(own_control_plane: controlplane.ControlPlane) -> None:
    plane = own_control_plane
    for crd in sorted((build.snapshotter_client_module() / "config" / "crd").glob("*.io_*.yaml")):
        plane.kubectl("apply", "-f", str(crd))
    with (
        localdisk.LocalDisk(DRIVER, flags=["--rootless", "--mode=directory"]) as driver,
        incumbent.running(plane.admin, driver.socket, incumbent.LIFTED_LIMITS) as pair,
    ):
        plane.admin.apply([*claim(create_volume(driver)), *snapshot()])
        plane.kubectl("wait", "volumesnapshot/s1", "--for=jsonpath={.status.readyToUse}=true", "--timeout=40s")
        assert len(snapshots_of(driver)) == 1
        before = plane.metrics()
        plane.kubectl("delete", "volumesnapshot/s1", "--timeout=40s")
        eventually(lambda: snapshots_of(driver) == [])
        kinds = {"volumesnapshots", "volumesnapshotcontents"}
        eventually(lambda: (plane.metrics() - before).total(requests.WRITES, kinds) >= 4)
        assert pair.cpu_seconds() > 0
        assert pair.rss_bytes() > 20_000_000


def eventually(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def create_volume(driver: localdisk.LocalDisk) -> str:
    access = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    capability = csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=access),
    )
    with grpc.insecure_channel(f"unix:{driver.socket}") as channel:
        made = csi_pb2_grpc.ControllerStub(channel).CreateVolume(
            csi_pb2.CreateVolumeRequest(
                name="data",
                capacity_range=csi_pb2.CapacityRange(required_bytes=VOLUME_SIZE_BYTES),
                volume_capabilities=[capability],
            ),
            timeout=20,
        )
    return str(made.volume.volume_id)


def snapshots_of(driver: localdisk.LocalDisk) -> list[str]:
    with grpc.insecure_channel(f"unix:{driver.socket}") as channel:
        listed = csi_pb2_grpc.ControllerStub(channel).ListSnapshots(csi_pb2.ListSnapshotsRequest(), timeout=20)
    return [entry.snapshot.snapshot_id for entry in listed.entries]


def claim(volume_id: str) -> list[dict[str, object]]:
    size = {"storage": "1Mi"}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {
        **common,
        "capacity": size,
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": "default", "name": "data"},
        "csi": {"driver": DRIVER, "volumeHandle": volume_id},
    }
    wish = {**common, "volumeName": "data", "resources": {"requests": size}}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "data"}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": wish},
    ]


def snapshot() -> list[dict[str, object]]:
    return [
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": "c"},
            "driver": DRIVER,
            "deletionPolicy": "Delete",
        },
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": "s1"},
            "spec": {"volumeSnapshotClassName": "c", "source": {"persistentVolumeClaimName": "data"}},
        },
    ]
