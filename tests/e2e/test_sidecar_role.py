"""Our driver half as a process: beside upstream's cluster half, alone with its driver, and twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.test_standalone import backend
from tests.support import claims, csi_server, localdisk, role
from tests.support.bed import access, controlplane, incumbent, paths

Cluster = controlplane.ControlPlane
MARKS = "snapshot.storage.kubernetes.io"


@pytest.fixture
def driver(control_plane: Cluster, namespace: str) -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk(driver_name=f"{namespace}.test") as started:
        claims.install(control_plane.admin, f"{namespace}.test", name=namespace)
        volume = started.volume("role-data", 1 << 20)
        claims.bound(control_plane.admin, namespace, "data", f"{namespace}.test", volume.volume_id)
        yield started


@pytest.mark.usefixtures("upstream_pair")
def test_a_snapshots_life_beside_upstreams_controller(
    control_plane: Cluster, namespace: str, driver: localdisk.LocalDisk
) -> None:
    admin = control_plane.admin
    controller = incumbent.controller(admin, incumbent.LIFTED_LIMITS)
    sidecar = role.role("sidecar", f"--csi-address={driver.socket}", kubeconfig=control_plane.kubeconfig)
    with controller, sidecar:
        admin.apply(claims.snapshot(namespace, "one", "data", namespace))
        claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
        assert len(backend(driver)) == 1
        bound = json.loads(admin.request("GET", f"{claims.GROUP}/namespaces/{namespace}/volumesnapshots/one")[1])
        status = _status(admin, bound["status"]["boundVolumeSnapshotContentName"])
        assert set(status) == {"creationTime", "readyToUse", "restoreSize", "snapshotHandle"}
        assert sidecar.page("/healthz/leader-election") == (200, "ok\n")
        admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=30s")
        claims.until("deleted on the backend", lambda: backend(driver) == [])


async def test_it_waits_for_its_driver_and_refuses_one_that_cannot_cut(control_plane: Cluster) -> None:
    socket = paths.fresh("csi") / "csi.sock"
    words = [sys.executable, "-m", "bridge", "kubernetes", "sidecar", f"--csi-address={socket}"]
    words += [f"--kubeconfig={control_plane.kubeconfig}", "--v=5"]
    started = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        await asyncio.sleep(1.5)
        assert started.returncode is None
        able = tuple(one for one in csi_server.ALL_CONTROLLER if one != csi_server.CONTROLLER.CREATE_DELETE_SNAPSHOT)
        async with csi_server.serving(csi_server.Plugin("lame.test", controller=able), socket):
            _, said = await asyncio.wait_for(started.communicate(), 60)
    finally:
        if started.returncode is None:
            started.kill()
    assert started.returncode == 1
    last = said.decode().strip().splitlines()[-1]
    assert "driver 'lame.test' cannot make snapshots" in last
    assert "CREATE_DELETE_SNAPSHOT" in last


LEASE = (
    "--leader-election",
    "--leader-election-lease-duration=6s",
    "--leader-election-renew-deadline=5s",
    "--leader-election-retry-period=500ms",
)


def test_of_two_replicas_one_acts_and_the_other_finishes_what_a_crash_left(
    control_plane: Cluster, namespace: str, driver: localdisk.LocalDisk
) -> None:
    admin = control_plane.admin
    flags = [f"--csi-address={driver.socket}", *LEASE, f"--leader-election-namespace={namespace}"]
    first, second = (role.role("sidecar", *flags, kubeconfig=control_plane.kubeconfig) for _ in range(2))
    volume = driver.volume("role-data", 1 << 20).volume_id
    with first:
        claims.until("the first leads", lambda: _lead(first))
        with second:
            names = [f"{namespace}-{number}" for number in range(16)]
            for name in names:
                _make_content(admin, name, namespace, volume)
            claims.until("it has begun", lambda: len(backend(driver)) >= 2)
            first.kill()
            ready = lambda: all(_status(admin, name).get("readyToUse") for name in names)  # noqa: E731
            claims.until("all are ready", ready, 60.0)
            handles = {_status(admin, name)["snapshotHandle"] for name in names}
            assert len(handles) == len(names) == len(backend(driver))
            claims.until("the second leads", lambda: _lead(second))
            for name in names:
                _let_go(admin, name)
            claims.until("nothing is left", lambda: backend(driver) == [], 60.0)
            # The first may have cut all of them; it is the second that has deleted them.
            assert "csi_sidecar_operations_seconds_count" in second.page("/metrics")[1]
            assert f'driver_name="{namespace}.test"' in second.page("/metrics")[1]


def _lead(replica: role.Role) -> bool:
    """Whether it has its driver's lease, by its own metrics."""
    found = [line for line in replica.page("/metrics")[1].splitlines() if "master_status{" in line]
    return any("external-snapshotter-leader-" in line and line.endswith(" 1.0") for line in found)


def _make_content(admin: access.Access, name: str, namespace: str, volume: str) -> None:
    """As a cluster half does."""
    body = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "finalizers": [f"{MARKS}/volumesnapshotcontent-bound-protection"]},
        "spec": {
            "driver": f"{namespace}.test",
            "deletionPolicy": "Delete",
            "source": {"volumeHandle": volume},
            "volumeSnapshotRef": {"namespace": namespace, "name": name, "uid": f"uid-{name}"},
            "volumeSnapshotClassName": namespace,
        },
    }
    assert admin.request("POST", f"{claims.GROUP}/volumesnapshotcontents", body)[0] == 201


def _let_go(admin: access.Access, name: str) -> None:
    place = f"{claims.GROUP}/volumesnapshotcontents/{name}"
    marked = {"metadata": {"annotations": {f"{MARKS}/volumesnapshot-being-deleted": "yes"}}}
    assert admin.request("PATCH", place, marked, "application/merge-patch+json")[0] == 200
    assert admin.request("DELETE", place)[0] == 200


def _status(admin: access.Access, name: str) -> dict[str, object]:
    found = json.loads(admin.request("GET", f"{claims.GROUP}/volumesnapshotcontents/{name}")[1])
    return dict(found.get("status") or {})
