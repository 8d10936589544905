"""A provisioner beside a plugin that misbehaves: what is killed, refused or answered wrongly leaks nothing.

The plugin lives in the test and keeps state; the API server and the controller manager are real.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.integration.kubernetes import provisioner_stand as stand
from tests.integration.kubernetes.provisioner_stand import CLASS, DRIVER, Backend, Cluster, refuse, running
from tests.support import claims, csi_server, provisioning, role
from tests.support.bed import controlplane
from tests.support.provisioning import claim, from_snapshot


@pytest.fixture
async def backend(control_plane: controlplane.ControlPlane, tmp_path: Path) -> AsyncIterator[Backend]:
    async with stand.backend_at(control_plane, tmp_path) as made:
        yield made


@pytest.fixture
def cluster(control_plane: controlplane.ControlPlane, namespace: str) -> Cluster:
    return Cluster(control_plane.admin, namespace)


async def test_a_kill_before_the_volume_is_written_leaks_and_doubles_nothing(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    admin = control_plane.admin
    kinds = pb.PluginCapability.Service
    services = [kinds.CONTROLLER_SERVICE, kinds.VOLUME_ACCESSIBILITY_CONSTRAINTS]
    backend.plugin.answer(
        "GetPluginCapabilities",
        pb.GetPluginCapabilitiesResponse(
            capabilities=[pb.PluginCapability(service=kinds(type=number)) for number in services]
        ),
    )
    await asyncio.to_thread(provisioning.place, admin, "kill-1", DRIVER, "zone.example")
    never = asyncio.Event()

    async def made_and_not_told(request: pb.CreateVolumeRequest, _context: Any) -> Any:
        answer = await backend.make(request)
        await never.wait()
        return answer

    backend.steps = {"stays": made_and_not_told, "goes": made_and_not_told}
    words = [f"--csi-address={tmp_path / 'csi.sock'}", "--extra-create-metadata", *provisioning.FAST]
    process = role.role("provisioner", *words, kubeconfig=control_plane.kubeconfig)
    await asyncio.to_thread(process.start)
    try:
        await cluster.apply(claim(namespace, "stays", CLASS), claim(namespace, "goes", CLASS))
        await cluster.until("both are made", lambda: len(backend.volumes()) == 2)
        await asyncio.to_thread(process.kill)
        await cluster.delete("goes")
        assert await cluster.claim("goes") is not None
        await asyncio.to_thread(provisioning.place, admin, "kill-2", DRIVER, "zone.example")
        backend.steps.clear()
        await asyncio.to_thread(process.start)
        volume = await cluster.bound("stays")
        await cluster.gone("goes")
    finally:
        never.set()
        await asyncio.to_thread(process.stop)
        await asyncio.to_thread(admin.kubectl, "delete", "node,csinode", "kill-1", "kill-2")
    assert backend.volumes() == {volume["spec"]["csi"]["volumeHandle"]}
    for requests in backend.asked.values():
        assert len(requests) >= 2
        assert all(request == requests[0] for request in requests)
        assert len(requests[0].accessibility_requirements.requisite) == 1


async def test_claims_that_are_deleted_while_a_create_is_open(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    backend.steps = {
        "busy": refuse(grpc.StatusCode.ABORTED),
        "full": refuse(grpc.StatusCode.RESOURCE_EXHAUSTED),
        "broken": refuse(grpc.StatusCode.INTERNAL),
    }
    async with running(control_plane, tmp_path):
        await cluster.apply(*(claim(namespace, name, CLASS) for name in backend.steps))
        for name in backend.steps:
            await cluster.told(name, "by the script")
        for name in backend.steps:
            await cluster.delete(name)
        await cluster.gone("full")
        await cluster.gone("broken")
        tried = len(backend.asked["busy"])
        await csi_server.until(lambda: len(backend.asked["busy"]) > tried + 1)
        assert await cluster.claim("busy") is not None
        del backend.steps["busy"]
        await cluster.gone("busy")
    assert backend.volumes() == set()
    assert backend.deleted[f"vol-{backend.asked['busy'][0].name}"] == 1
    assert all(request == backend.asked["busy"][0] for request in backend.asked["busy"])


def misbehaving(backend: Backend) -> dict[str, stand.Step]:
    """Too small at first, of no known size, and without the asked source at first; one is refused for good."""

    async def small(request: pb.CreateVolumeRequest, _context: Any) -> Any:
        answer = await backend.make(request)
        if len(backend.asked["small"]) == 1:
            answer = pb.CreateVolumeResponse(volume=answer.volume)
            answer.volume.capacity_bytes -= 1
        return answer

    async def unknown(request: pb.CreateVolumeRequest, _context: Any) -> Any:
        answer = pb.CreateVolumeResponse(volume=(await backend.make(request)).volume)
        answer.volume.capacity_bytes = 0
        return answer

    async def empty(request: pb.CreateVolumeRequest, _context: Any) -> Any:
        answer = pb.CreateVolumeResponse(volume=(await backend.make(request)).volume)
        if len(backend.asked["empty"]) == 1:
            answer.volume.ClearField("content_source")
        return answer

    wrong = refuse(grpc.StatusCode.INVALID_ARGUMENT)
    return {"small": small, "unknown": unknown, "empty": empty, "wrong": wrong}


async def test_answers_that_are_not_what_was_asked(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    admin = control_plane.admin
    await asyncio.to_thread(claims.install, admin, DRIVER, name="scripted-snapshots")
    await cluster.apply(*stand.hand_made(namespace))
    await asyncio.to_thread(stand.make_ready, admin, namespace)

    backend.steps = misbehaving(backend)
    async with running(control_plane, tmp_path, "--retry-interval-max=60s"):
        await cluster.apply(
            claim(namespace, "small", CLASS),
            claim(namespace, "unknown", CLASS),
            claim(namespace, "wrong", CLASS, dataSource=from_snapshot("monday")),
            claim(namespace, "empty", CLASS, dataSource=from_snapshot("monday")),
        )
        handles = {(await cluster.bound(name))["spec"]["csi"]["volumeHandle"] for name in ("small", "empty")}
        volume = await cluster.bound("unknown")
        assert volume["spec"]["capacity"] == {"storage": "32Mi"}
        await cluster.told("small", "WRONG_SIZE")
        await cluster.told("empty", "WRONG_SOURCE")
        await cluster.told("wrong", "Volume provisioning failed with infeasible error. Retries will be delayed.")
        await asyncio.sleep(1.0)
        assert len(backend.asked["wrong"]) == 1
        assert all(backend.deleted[handle] == 1 for handle in handles)
        assert len(backend.asked["small"]) == len(backend.asked["empty"]) == 2
        # A claim that only waits for another try does not keep its snapshot from going.
        path = f"{claims.GROUP}/namespaces/{namespace}/volumesnapshots/monday"
        await asyncio.to_thread(admin.request, "DELETE", path)
        await cluster.until("the snapshot is gone", lambda: provisioning.look(admin, path) is None)
        await cluster.delete("wrong")
        await cluster.gone("wrong")
    assert backend.volumes() == {*handles, volume["spec"]["csi"]["volumeHandle"]}


async def test_one_replica_acts_and_the_next_takes_over(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    lease = (
        "--leader-election=true",
        f"--leader-election-namespace={namespace}",
        "--leader-election-lease-duration=30s",
        "--leader-election-renew-deadline=20s",
        "--leader-election-retry-period=300ms",
    )
    async with running(control_plane, tmp_path, *lease) as first:
        await cluster.apply(claim(namespace, "one", CLASS))
        await cluster.bound("one")
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/test-csi-example"
        holder = await asyncio.to_thread(provisioning.look, control_plane.admin, path)
        assert holder is not None
        assert holder["spec"]["holderIdentity"]
        async with running(control_plane, tmp_path, *lease):
            await asyncio.sleep(1.0)
            first.set()
            await cluster.apply(claim(namespace, "two", CLASS))
            await cluster.bound("two")
    assert [len(backend.asked[name]) for name in ("one", "two")] == [1, 1]
    assert len(backend.volumes()) == 2


async def test_a_volume_gets_its_secret_and_is_not_deleted_while_it_is_attached(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    admin, klass = control_plane.admin, f"{namespace}-secret"
    prefix = "csi.storage.k8s.io/provisioner-secret"
    parameters = {f"{prefix}-name": "${pvc.name}-key", f"{prefix}-namespace": "${pvc.namespace}"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "locked-key", "namespace": namespace},
        "stringData": {"token": "t0k3n"},
    }
    await cluster.apply(
        provisioning.storage_class(klass, DRIVER, parameters=parameters), claim(namespace, "locked", klass)
    )
    async with running(control_plane, tmp_path):
        await cluster.told("locked", f"error getting secret locked-key in namespace {namespace}")
        await cluster.apply(secret)
        volume = await cluster.bound("locked")
        name, handle = volume["metadata"]["name"], volume["spec"]["csi"]["volumeHandle"]
        assert dict(backend.asked["locked"][0].secrets) == {"token": "t0k3n"}
        spec = {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": name}}
        attached = {"metadata": {"name": f"{namespace}-va"}, "spec": spec}
        await cluster.apply({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", **attached})
        await cluster.delete("locked")
        await cluster.gone("locked")

        def refused() -> bool:
            path = f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3D{name}"
            return f"persistentvolume {name} is still attached to node n1" in str(admin.request("GET", path)[1])

        await cluster.until("its owner is told", refused)
        assert handle in backend.volumes()
        await asyncio.to_thread(admin.kubectl, "delete", "volumeattachment", f"{namespace}-va")
        await cluster.until("the volume is gone", lambda: provisioning.volume_now(admin, name) is None)
    assert backend.deletion_secrets[handle] == {"token": "t0k3n"}
    assert handle not in backend.volumes()
    await asyncio.to_thread(admin.kubectl, "delete", "storageclass", klass)


async def test_another_provisioners_live_lease_is_respected_without_leader_election_too(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    admin, name = control_plane.admin, "test-csi-example"
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "theirs", "leaseDurationSeconds": 3600, "renewTime": now, "acquireTime": now}
    metadata = {"name": name, "namespace": namespace}
    await cluster.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    async with running(control_plane, tmp_path):
        await cluster.apply(claim(namespace, "late", CLASS))
        await asyncio.sleep(2.0)
        assert not backend.asked
        item = await cluster.claim("late")
        assert item is not None
        assert "snapbridge.dev/provisioning" not in (item["metadata"].get("finalizers") or ())
        await asyncio.to_thread(admin.request, "DELETE", path)
        await cluster.bound("late")
    assert len(backend.asked["late"]) == 1


GRANTS = "gateway.networking.k8s.io"


def grant_definition() -> provisioning.Object:
    """The least that a ReferenceGrant needs to be kept."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"referencegrants.{GRANTS}",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": GRANTS,
            "scope": "Namespaced",
            "names": {"plural": "referencegrants", "singular": "referencegrant", "kind": "ReferenceGrant"},
            "versions": [{"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def test_a_snapshot_of_another_namespace_needs_a_grant_there(tmp_path: Path) -> None:
    flags = ("--feature-gates=CrossNamespaceVolumeDataSource=true",)
    gate = "--feature-gates=CrossNamespaceVolumeDataSource=true"
    with controlplane.running(apiserver_flags=flags) as plane:
        admin = plane.admin
        for name in ("apps", "vault"):
            await asyncio.to_thread(admin.kubectl, "create", "namespace", name)
        await asyncio.to_thread(claims.install, admin, DRIVER)
        cluster = Cluster(admin, "apps")
        await cluster.apply(*stand.hand_made("vault"))
        await asyncio.to_thread(stand.make_ready, admin, "vault")
        reference = {**from_snapshot("monday"), "namespace": "vault"}
        async with stand.backend_at(plane, tmp_path) as backend, running(plane, tmp_path, gate):
            # The kind of the grants is missing so far: what needs none is served.
            await cluster.apply(claim("apps", "plain", CLASS), claim("apps", "lent", CLASS, dataSourceRef=reference))
            await cluster.bound("plain")
            await cluster.told(
                "lent", "accessing vault/monday of VolumeSnapshot dataSource from apps/lent isn't allowed"
            )
            await cluster.apply(grant_definition())
            await asyncio.to_thread(
                admin.kubectl, "wait", "--for=condition=Established", "--timeout=50s", f"crd/referencegrants.{GRANTS}"
            )
            rows = {
                "from": [{"group": "", "kind": "PersistentVolumeClaim", "namespace": "apps"}],
                "to": [{"group": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot"}],
            }
            metadata = {"name": "lend", "namespace": "vault"}
            grant = {"apiVersion": f"{GRANTS}/v1beta1", "kind": "ReferenceGrant", "metadata": metadata, "spec": rows}
            path = f"/apis/{GRANTS}/v1beta1/namespaces/vault/referencegrants"
            # The new kind is served, and kubectl told of it, a moment after it is Established.
            await cluster.until("the grant is taken", lambda: admin.request("POST", path, grant)[0] in (201, 409))
            await cluster.bound("lent")
        (asked,) = backend.asked["lent"]
        assert asked.volume_content_source.snapshot.snapshot_id == "snap-1"
