"""Our driver half as a process, beside upstream's cluster half and beside ours: a snapshot's whole life."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.test_standalone import backend
from tests.support import claims, localdisk, role
from tests.support.bed import access, controlplane, incumbent, process

Cluster = controlplane.ControlPlane


@pytest.fixture
def driver(control_plane: Cluster, namespace: str) -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk(driver_name=f"{namespace}.test") as started:
        claims.install(control_plane.admin, f"{namespace}.test", name=namespace)
        volume = started.volume("role-data", 1 << 20)
        claims.bound(control_plane.admin, namespace, "data", f"{namespace}.test", volume.volume_id)
        yield started


def upstreams(plane: Cluster) -> process.Process:
    return incumbent.controller(plane.admin, incumbent.LIFTED_LIMITS)


def ours(plane: Cluster) -> process.Process:
    return role.role("controller", "--leader-election=false", kubeconfig=plane.kubeconfig)


@pytest.mark.parametrize("controller", [upstreams, ours])
@pytest.mark.usefixtures("upstream_pair")
def test_a_snapshots_life(
    control_plane: Cluster,
    namespace: str,
    driver: localdisk.LocalDisk,
    controller: Callable[[Cluster], process.Process],
) -> None:
    admin = control_plane.admin
    address = f"--csi-address={driver.socket}"
    sidecar = role.role("sidecar", address, kubeconfig=control_plane.kubeconfig)
    with contextlib.ExitStack() as stack:
        stack.enter_context(controller(control_plane))
        stack.enter_context(sidecar)
        admin.apply(claims.snapshot(namespace, "one", "data", namespace))
        claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
        assert len(backend(driver)) == 1
        content = _content(admin, namespace)
        assert set(content["status"]) == {"creationTime", "readyToUse", "restoreSize", "snapshotHandle"}
        assert sidecar.page("/healthz/leader-election") == (200, "ok\n")
        admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=30s")
        claims.until("deleted on the backend", lambda: backend(driver) == [])


def _content(admin: access.Access, namespace: str) -> dict[str, dict[str, object]]:
    """The namespace's only content."""
    items = json.loads(admin.request("GET", f"{claims.GROUP}/volumesnapshotcontents")[1])["items"]
    (found,) = [item for item in items if item["spec"]["volumeSnapshotRef"]["namespace"] == namespace]
    return dict(found)
