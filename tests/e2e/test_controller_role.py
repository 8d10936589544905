"""Our cluster half beside upstream's own driver half, as processes: a snapshot's whole life, and its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator

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
    with ours, incumbent.sidecar(admin, driver.socket, incumbent.LIFTED_LIMITS):
        admin.apply(claims.snapshot(namespace, "one", "data"))
        claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
        assert len(backend(driver)) == 1
        admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=30s")
        claims.until("deleted on the backend", lambda: backend(driver) == [])

        def free() -> bool:
            claim = admin.get("pvc", "data", "-n", namespace)
            return not any("snapshot" in name for name in claim["metadata"].get("finalizers", ()))

        claims.until("the claim is free", free)
        text = ours.page("/metrics")[1]
        assert 'operation_name="CreateSnapshotAndReady",operation_status="success"' in text
        assert 'workqueue_adds_total{name="snapshot-controller-snapshot"}' in text
        reasons = [event["reason"] for event in _events(admin, namespace)]
        assert reasons == ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"]


def _events(admin: access.Access, namespace: str) -> list[dict[str, str]]:
    """Of VolumeSnapshots, in the order of their making."""
    _, body = admin.request("GET", f"/api/v1/namespaces/{namespace}/events")
    items = [item for item in json.loads(body)["items"] if item["involvedObject"]["kind"] == "VolumeSnapshot"]
    return sorted(items, key=lambda item: int(item["metadata"]["resourceVersion"]))


def test_a_leader_that_was_stopped_and_wakes_breaks_nothing(
    control_plane: controlplane.ControlPlane, namespace: str, driver: localdisk.LocalDisk, upstream_pair: None
) -> None:
    admin = control_plane.admin
    volume = driver.volume("led-data", 1 << 20)
    claims.bound(admin, namespace, "data", localdisk.NAME, volume.volume_id)
    # Longer than a busy machine stands still, or the first would rightly lead again.
    quick = ("lease-duration=6s", "renew-deadline=5s", "retry-period=500ms", f"namespace={namespace}")
    flags = ("--leader-election", *(f"--leader-election-{flag}" for flag in quick))
    first = role.role("controller", *flags, kubeconfig=control_plane.kubeconfig)
    second = role.role("controller", *flags, kubeconfig=control_plane.kubeconfig)
    wanted = [f"snap-{number}" for number in range(6)]
    with first, incumbent.sidecar(admin, driver.socket, incumbent.LIFTED_LIMITS):
        claims.until("the first leads", lambda: _leads(first))
        with second:
            admin.apply([claims.snapshot(namespace, name, "data") for name in wanted])
            first.pause()
            try:
                claims.until("the second leads", lambda: _leads(second), 60.0)
                ready = lambda: all(claims.is_ready(admin, namespace, name) for name in wanted)  # noqa: E731
                claims.until("all ready", ready, 60.0)
            finally:
                first.resume()
            claims.until("the first stands by", lambda: not _leads(first))
            assert len(backend(driver)) == len(wanted)
            admin.kubectl("delete", "volumesnapshot", "--all", "-n", namespace, "--timeout=30s")
            claims.until("deleted on the backend", lambda: backend(driver) == [])
            assert first.page("/healthz/leader-election")[0] == 200


def _leads(process: role.Role) -> bool:
    """As its metrics say."""
    status, text = process.page("/metrics")
    return status == 200 and 'leader_election_master_status{name="snapshot-controller-leader"} 1.0' in text
