"""Group snapshots for people: `kubectl apply`, a real driver, equal bytes from one member, and kill -9 on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.e2e.test_standalone import checksum
from tests.support import claims, localdisk, serve
from tests.support.bed import controlplane
from tests.support.calls import Calls, RefusedError

ROOT = "/apis/groupsnapshot.storage.k8s.io/v1"
SIZE = 32 << 20
Object = dict[str, Any]


@pytest.fixture(scope="module")
def driver() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk() as running:
        yield running


@pytest.fixture(scope="module")
def service(driver: localdisk.LocalDisk, control_plane: controlplane.ControlPlane) -> Iterator[serve.Serve]:
    claims.install(control_plane.admin, localdisk.NAME)
    made = serve.service(
        clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(control_plane.kubeconfig)}],
        plugins=[{"name": "localdisk", "socket": str(driver.socket)}],
    )
    with made as running:
        yield running


@pytest.fixture
def calls(control_plane: controlplane.ControlPlane) -> Iterator[Calls]:
    made = Calls(control_plane.admin)
    yield made
    made.close()


def klass(calls: Calls, name: str) -> None:
    body = {"metadata": {"name": name}, "driver": localdisk.NAME, "deletionPolicy": "Delete"}
    calls.create(f"{ROOT}/volumegroupsnapshotclasses", typed("VolumeGroupSnapshotClass", body))


def group(calls: Calls, namespace: str, name: str, class_name: str, tiers: list[str]) -> None:
    chosen = {"matchExpressions": [{"key": "tier", "operator": "In", "values": tiers}]}
    spec = {"volumeGroupSnapshotClassName": class_name, "source": {"selector": chosen}}
    body = typed("VolumeGroupSnapshot", {"metadata": {"name": name}, "spec": spec})
    calls.create(f"{ROOT}/namespaces/{namespace}/volumegroupsnapshots", body)


def typed(kind: str, body: Object) -> Object:
    return {"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": kind, **body}


def live(calls: Calls, namespace: str, name: str) -> Object | None:
    try:
        return calls.get(f"{ROOT}/namespaces/{namespace}/volumegroupsnapshots/{name}")
    except RefusedError as error:
        if error.status != 404:
            raise
        return None


def is_ready(calls: Calls, namespace: str, name: str) -> bool:
    found = live(calls, namespace, name) or {}
    return (found.get("status") or {}).get("readyToUse") is True


def members(calls: Calls, namespace: str) -> list[Object]:
    found = calls.get(f"/apis/snapshot.storage.k8s.io/v1/namespaces/{namespace}/volumesnapshots")["items"]
    return sorted(found, key=lambda one: str(one["spec"]["source"]["persistentVolumeClaimName"]))


def member_is_ready(found: Object) -> bool:
    return (found.get("status") or {}).get("readyToUse") is True


def on_backend(driver: localdisk.LocalDisk, handles: list[str]) -> int:
    asked = (pb.ListSnapshotsRequest(source_volume_id=handle) for handle in handles)
    return sum(len(driver.controller.ListSnapshots(one, timeout=30, wait_for_ready=True).entries) for one in asked)


def volumes(
    driver: localdisk.LocalDisk, plane: controlplane.ControlPlane, namespace: str, tiers: list[str]
) -> list[str]:
    """Claims labelled with their tier, bound to new volumes; their handles."""
    handles = []
    for tier in tiers:
        handle = driver.volume(f"{namespace}-{tier}", SIZE).volume_id
        volume, claim = claims.claim(namespace, tier, localdisk.NAME, handle)
        claim["metadata"]["labels"] = {"tier": tier}
        plane.admin.apply([volume, claim])
        handles.append(handle)
    for tier in tiers:
        waiting = ["wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", f"pvc/{tier}", "-n", namespace]
        plane.admin.kubectl(*waiting)
    return handles


def test_three_claims_by_expression_one_member_restored_all_deleted_together(
    driver: localdisk.LocalDisk,
    service: serve.Serve,
    control_plane: controlplane.ControlPlane,
    calls: Calls,
    namespace: str,
) -> None:
    handles = volumes(driver, control_plane, namespace, ["data", "log", "queue", "web"])
    mounted = driver.publish(handles[0])
    (mounted / "a.bin").write_bytes(os.urandom(1 << 20))
    before = checksum(mounted)
    klass(calls, f"{namespace}-e2e")
    group(calls, namespace, "all", f"{namespace}-e2e", ["data", "log", "queue"])
    claims.until("ready", lambda: is_ready(calls, namespace, "all"), 60.0)
    found = members(calls, namespace)
    assert [one["spec"]["source"]["persistentVolumeClaimName"] for one in found] == ["data", "log", "queue"]
    claims.until("its members too", lambda: all(member_is_ready(one) for one in members(calls, namespace)), 60.0)
    assert on_backend(driver, handles) == 3
    (mounted / "a.bin").write_bytes(b"damaged")
    service.cli("snapshot", "restore", found[0]["metadata"]["uid"], "--as", "restored", "--wait")
    claim = control_plane.admin.get("pvc", "restored", "-n", namespace)
    restored = control_plane.admin.get("pv", claim["spec"]["volumeName"])["spec"]["csi"]["volumeHandle"]
    assert checksum(driver.publish(restored)) == before
    control_plane.admin.kubectl("delete", "volumegroupsnapshot", "all", "-n", namespace, "--timeout=30s")
    claims.until("members are gone", lambda: members(calls, namespace) == [])
    assert on_backend(driver, handles) == 0


def test_killed_at_any_moment_it_makes_one_group_and_deletes_it_whole(
    driver: localdisk.LocalDisk,
    service: serve.Serve,
    control_plane: controlplane.ControlPlane,
    calls: Calls,
    namespace: str,
) -> None:
    handles = volumes(driver, control_plane, namespace, ["data", "log", "queue"])
    klass(calls, f"{namespace}-killed")
    group(calls, namespace, "all", f"{namespace}-killed", ["data", "log", "queue"])
    strike(service, 0.08)
    claims.until("ready", lambda: is_ready(calls, namespace, "all"), 60.0)
    assert on_backend(driver, handles) == 3
    assert len(members(calls, namespace)) == 3
    calls.delete(f"{ROOT}/namespaces/{namespace}/volumegroupsnapshots/all")
    strike(service, 0.04)
    claims.until("gone", lambda: live(calls, namespace, "all") is None, 60.0)
    claims.until("members are gone", lambda: members(calls, namespace) == [], 60.0)
    assert on_backend(driver, handles) == 0
    claims.until("the claims are free", lambda: holds(calls, namespace) == [], 60.0)


def holds(calls: Calls, namespace: str) -> list[str]:
    """Ours on the claims."""
    found = calls.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims")["items"]
    marks = [mark for one in found for mark in one["metadata"].get("finalizers") or ()]
    return [mark for mark in marks if "as-source" in mark]


def strike(service: serve.Serve, after_seconds: float) -> None:
    """Kill the service so long from now, and start it again."""
    time.sleep(after_seconds)
    os.kill(service.process.pid, signal.SIGKILL)
    service.kill()
    service.start()
