"""Our cluster half beside upstream's own driver half, as processes: a snapshot's whole life, and its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_standalone import backend
from tests.support import claims, localdisk, role
from tests.support.bed import access, controlplane, incumbent


@pytest.fixture
def driver(control_plane: controlplane.ControlPlane) -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk() as started:
        claims.install(control_plane.admin, localdisk.NAME)
        yield started


def test_our_controller_and_upstreams_sidecar(
    control_plane: controlplane.ControlPlane, namespace: str, driver: localdisk.LocalDisk, upstream_pair: None
) -> None:
    admin = control_plane.admin
    volume = driver.volume("role-data", 1 << 20)
    claims.bound(admin, namespace, "data", localdisk.NAME, volume.volume_id)
    ours = role.role("controller", "--leader-election=false", kubeconfig=control_plane.kubeconfig)
    with ours, incumbent.sidecar(admin, Path(driver.socket), incumbent.LIFTED_LIMITS):
        admin.apply(claims.snapshot(namespace, "one", "data"))
        claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
        assert len(backend(driver)) == 1
        admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=30s")
        claims.until("deleted on the backend", lambda: backend(driver) == [])
        claim = admin.get("pvc", "data", "-n", namespace)
        assert not any("snapshot" in name for name in claim["metadata"].get("finalizers", ()))
        reasons = [event["reason"] for event in _events(admin, namespace)]
        assert reasons == ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"]


def _events(admin: access.Access, namespace: str) -> list[dict[str, str]]:
    """Of VolumeSnapshots, in the order of their making."""
    _, body = admin.request("GET", f"/api/v1/namespaces/{namespace}/events")
    items = [item for item in json.loads(body)["items"] if item["involvedObject"]["kind"] == "VolumeSnapshot"]
    return sorted(items, key=lambda item: int(item["metadata"]["resourceVersion"]))
