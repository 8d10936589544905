"""Another controller owns the driver: we make VolumeSnapshots, follow them, say so; ours when its lease ends.

Real upstream pair with leader election, real driver, our service as a process with the driver's socket at hand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.kubernetes.delegation import told
from adapters.kubernetes.facts import Facts
from bridge.model.snapshot import SnapshotState
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.integration.kubernetes import definitions
from tests.support import claims, localdisk, serve
from tests.support.bed import build, paths, ports, process
from tests.support.bed.controlplane import ControlPlane

TIMES = ("--leader-election-lease-duration=10s", "--leader-election-renew-deadline=8s",
         "--leader-election-retry-period=1s")  # fmt: skip
"""Long enough for a machine that stands still for a while: who cannot renew in time ends itself."""


@contextlib.contextmanager
def owner(plane: ControlPlane, namespace: str, name: str, *flags: str) -> Iterator[process.Process]:
    """One of upstream's that has won its lease."""
    argv: list[str | Path] = [
        build.binary(name),
        f"--kubeconfig={plane.kubeconfig}",
        "--leader-election=true",
        f"--leader-election-namespace={namespace}",
        f"--http-endpoint=127.0.0.1:{ports.free()}",
        *TIMES,
        *flags,
    ]
    log = paths.fresh("owner") / "log"

    def leads() -> bool:
        return log.exists() and "successfully acquired lease" in log.read_text().lower()

    with process.Process(process.Launch(name=name, argv=argv, log=log, ready=leads, ready_seconds=60)) as running:
        yield running


@contextlib.contextmanager
def owners(plane: ControlPlane, namespace: str, socket: Path) -> Iterator[None]:
    with (
        owner(plane, namespace, "snapshot-controller"),
        owner(plane, namespace, "csi-snapshotter", f"--csi-address={socket}"),
    ):
        yield


def route(service: serve.Serve, driver: str) -> list[dict[str, Any]]:
    """The rows of the plugin list that say who else acts for the driver."""
    return [row for row in service.get("/v1/plugins")["items"] if driver in str(row) and "deleg" in str(row)]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("upstream_pair")
def test_requests_are_delegated_while_another_lease_lives_and_ours_when_it_ends(
    control_plane: ControlPlane, namespace: str
) -> None:
    definitions.install(control_plane)
    name = f"d{os.getpid()}.{namespace}.test"
    cluster = {
        "name": "kube",
        "kind": "kubernetes",
        "kubeconfig": str(control_plane.kubeconfig),
        "drivers": [name],
        "lease_check_seconds": 0.5,
    }
    with localdisk.start_localdisk(driver_name=name) as driver:
        claims.install(control_plane.admin, name, name=namespace)
        volume = driver.volume(f"{namespace}-data", 8 << 20)
        claims.bound(control_plane.admin, namespace, "data", name, volume.volume_id)
        plugin = {"name": "disk", "socket": str(driver.socket)}
        with contextlib.ExitStack() as foreign:
            foreign.enter_context(owners(control_plane, namespace, driver.socket))
            service = serve.service(clusters=[cluster], plugins=[plugin])
            with service:
                _delegated(service, control_plane, namespace, name)
                foreign.close()
                claims.until("it is ours", lambda: not route(service, name), 60.0)
                service.cli(
                    "snapshot",
                    "create",
                    "data",
                    "ours",
                    "-n",
                    namespace,
                    "--parameter",
                    f"class={namespace}",
                    "--wait=50s",
                )
                assert managers(control_plane, namespace, "ours") == {"snapbridge"}
                with owners(control_plane, namespace, driver.socket):
                    claims.until("it is theirs again", lambda: bool(route(service, name)), 60.0)
                    service.cli("snapshot", "delete", "theirs", "ours", "-n", namespace, "--yes", "--wait=50s")
        assert not driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries


def _delegated(service: serve.Serve, plane: ControlPlane, namespace: str, name: str) -> None:
    """Create, follow, see and refuse while the pair acts."""
    claims.until("it is theirs", lambda: bool(route(service, name)))
    (row,) = route(service, name)
    assert "external-snapshotter-leader" in str(row) or "snapshot-controller-leader" in str(row)
    service.cli(
        "snapshot", "create", "data", "theirs", "-n", namespace, "--parameter", f"class={namespace}", "--wait=50s"
    )
    assert "snapbridge" not in managers(plane, namespace, "theirs")
    listed = service.cli("snapshot", "list", "-n", namespace).stdout
    assert "theirs" in listed
    refused = service.cli("snapshot", "restore", f"kube/{namespace}/theirs", "--as", "copy", check=False)
    assert refused.returncode == 2
    assert "names the snapshot as its source" in refused.stderr


def managers(plane: ControlPlane, namespace: str, name: str) -> set[str]:
    """Who wrote the content of a snapshot."""
    found = plane.admin.get("volumesnapshot", name, "-n", namespace)
    content = found["status"]["boundVolumeSnapshotContentName"]
    entries = plane.admin.get("volumesnapshotcontent", content, "--show-managed-fields")["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries}


SNAPSHOT = {"metadata": {"uid": "u", "name": "one", "namespace": "ns"}, "spec": {"source": {}}}


@pytest.mark.parametrize(
    ("status", "more", "state"),
    [
        ({}, {}, SnapshotState.PENDING),
        ({"creationTime": "2026-01-01T00:00:00Z"}, {}, SnapshotState.PROCESSING),
        ({"readyToUse": True, "restoreSize": "1Mi"}, {}, SnapshotState.READY),
        ({"error": {"message": "no space"}}, {}, SnapshotState.FAILING),
        ({"readyToUse": True}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, SnapshotState.DELETING),
    ],
)
def test_what_the_other_controller_has_told_is_passed_on(
    status: dict[str, Any], more: dict[str, str], state: SnapshotState
) -> None:
    snapshot = {**SNAPSHOT, "metadata": {**SNAPSHOT["metadata"], **more}, "status": status}
    seen = told(Facts(uid="u", snapshot=snapshot), "by the pair")
    assert (seen.state, seen.message) == (state, "no space" if "error" in status else "by the pair")
    assert seen.ready == bool(status.get("readyToUse"))
    assert (seen.failure is not None) == ("error" in status)
