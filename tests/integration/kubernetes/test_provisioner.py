"""A provisioner beside a plugin that misbehaves: what is killed, refused or answered wrongly leaks nothing.

The plugin lives in the test and keeps state; the API server and the controller manager are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from adapters.kubernetes import flags
from adapters.kubernetes.roles import provisioner
from bridge.app import roles
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, csi_server, provisioning, role
from tests.support.bed import access, controlplane
from tests.support.csi_server import Plugin
from tests.support.provisioning import claim, from_snapshot

DRIVER = "test.csi.example"
CLASS = "scripted"
PVC = "csi.storage.k8s.io/pvc/name"
Step = Callable[[pb.CreateVolumeRequest, Any], Awaitable[Any]]


class Backend:
    """The plugin, with a behaviour of its own for each claim's name; others are served well."""

    def __init__(self) -> None:
        self.plugin = Plugin(DRIVER)
        self.steps: dict[str, Step] = {}
        self.asked: dict[str, list[pb.CreateVolumeRequest]] = {}
        self.deleted: Counter[str] = Counter()
        self.plugin.script |= {"CreateVolume": self._create, "DeleteVolume": self._delete}

    def volumes(self) -> set[str]:
        return {volume.volume_id for volume in self.plugin.store.volumes.values()}

    async def make(self, request: pb.CreateVolumeRequest) -> pb.CreateVolumeResponse:
        return await self.plugin.CreateVolume(request, None)

    async def _create(self, request: pb.CreateVolumeRequest, context: Any) -> Any:
        name = request.parameters[PVC]
        self.asked.setdefault(name, []).append(request)
        step = self.steps.get(name)
        return await (step(request, context) if step is not None else self.make(request))

    async def _delete(self, request: pb.DeleteVolumeRequest, context: Any) -> Any:
        self.deleted[request.volume_id] += 1
        return await self.plugin.DeleteVolume(request, context)


def refuse(code: grpc.StatusCode) -> Step:
    async def step(_request: pb.CreateVolumeRequest, context: Any) -> None:
        await context.abort(code, "by the script")

    return step


@pytest.fixture
async def backend(control_plane: controlplane.ControlPlane, tmp_path: Path) -> AsyncIterator[Backend]:
    made = Backend()
    await asyncio.to_thread(control_plane.admin.apply, provisioning.storage_class(CLASS, DRIVER))
    async with csi_server.serving(made.plugin, tmp_path / "csi.sock"):
        yield made
    await asyncio.to_thread(control_plane.admin.kubectl, "delete", "storageclass", CLASS)


@contextlib.asynccontextmanager
async def running(plane: controlplane.ControlPlane, tmp_path: Path, *more: str) -> AsyncIterator[asyncio.Event]:
    """The role in this process; setting the event stops it in order."""
    words = [f"--kubeconfig={plane.kubeconfig}", f"--csi-address={tmp_path / 'csi.sock'}", "--extra-create-metadata"]
    given = flags.parse(provisioner.FLAGS, [*words, *provisioning.FAST, *more])
    stop = asyncio.Event()
    task = asyncio.create_task(roles.run(provisioner.plan(given), stop))
    try:
        yield stop
    finally:
        stop.set()
        await task


class Cluster:
    """Looks at the API server without holding up the plugin, which shares this test's loop."""

    def __init__(self, admin: access.Access, namespace: str) -> None:
        self._admin = admin
        self._namespace = namespace

    async def apply(self, *items: provisioning.Object) -> None:
        await asyncio.to_thread(self._admin.apply, list(items))

    async def delete(self, name: str) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/persistentvolumeclaims/{name}"
        status, _ = await asyncio.to_thread(self._admin.request, "DELETE", path)
        assert status == 200

    async def claim(self, name: str) -> provisioning.Object | None:
        return await asyncio.to_thread(provisioning.claim_now, self._admin, self._namespace, name)

    async def bound(self, name: str) -> provisioning.Object:
        return await asyncio.to_thread(provisioning.until_bound, self._admin, self._namespace, name, 20.0)

    async def gone(self, name: str) -> None:
        await self.until(
            f"{name} is gone", lambda: provisioning.claim_now(self._admin, self._namespace, name) is None
        )

    async def told(self, name: str, words: str) -> None:
        def holds() -> bool:
            return any(words in text for _, text in provisioning.events(self._admin, self._namespace, name))

        await self.until(f"{name} is told {words!r}", holds)

    async def until(self, what: str, holds: Callable[[], bool]) -> None:
        await asyncio.to_thread(claims.until, what, holds, 20.0)


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
        await csi_server.until(lambda: len(backend.asked["busy"]) > tried + 1, 15)
        assert await cluster.claim("busy") is not None
        del backend.steps["busy"]
        await cluster.gone("busy")
    assert backend.volumes() == set()
    assert backend.deleted[f"vol-{backend.asked['busy'][0].name}"] == 1
    assert all(request == backend.asked["busy"][0] for request in backend.asked["busy"])


def hand_made(namespace: str) -> list[provisioning.Object]:
    """A VolumeSnapshot and its content, as if somebody had bound them."""
    group = "snapshot.storage.k8s.io/v1"
    reference = {"namespace": namespace, "name": "monday"}
    content = {
        "driver": DRIVER,
        "deletionPolicy": "Retain",
        "source": {"snapshotHandle": "snap-1"},
        "volumeSnapshotRef": reference,
    }
    name = f"content-{namespace}"
    source = {"volumeSnapshotContentName": name}
    return [
        {"apiVersion": group, "kind": "VolumeSnapshotContent", "metadata": {"name": name}, "spec": content},
        {"apiVersion": group, "kind": "VolumeSnapshot", "metadata": reference, "spec": {"source": source}},
    ]


def make_ready(admin: access.Access, namespace: str) -> None:
    name, merge = f"content-{namespace}", "application/merge-patch+json"
    snapshot = f"{claims.GROUP}/namespaces/{namespace}/volumesnapshots/monday"
    content = f"{claims.GROUP}/volumesnapshotcontents/{name}"
    uid = json.loads(admin.request("GET", snapshot)[1])["metadata"]["uid"]
    patches = [
        (content, {"spec": {"volumeSnapshotRef": {"uid": uid}}}),
        (f"{content}/status", {"status": {"snapshotHandle": "snap-1", "readyToUse": True}}),
        (f"{snapshot}/status", {"status": {"boundVolumeSnapshotContentName": name, "readyToUse": True}}),
    ]
    for path, body in patches:
        status, answer = admin.request("PATCH", path, body, merge)
        assert status == 200, answer


async def test_answers_that_are_not_what_was_asked(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    admin = control_plane.admin
    await asyncio.to_thread(claims.install, admin, DRIVER, name="scripted-snapshots")
    await cluster.apply(*hand_made(namespace))
    await asyncio.to_thread(make_ready, admin, namespace)

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
    backend.steps = {"small": small, "unknown": unknown, "empty": empty, "wrong": wrong}
    async with running(control_plane, tmp_path, "--retry-interval-max=60s"):
        await cluster.apply(
            claim(namespace, "small", CLASS),
            claim(namespace, "unknown", CLASS),
            claim(namespace, "wrong", CLASS),
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
        await cluster.delete("wrong")
        await cluster.gone("wrong")
    assert backend.volumes() == {*handles, volume["spec"]["csi"]["volumeHandle"]}


async def test_one_replica_acts_and_the_next_takes_over(
    control_plane: controlplane.ControlPlane, backend: Backend, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    lease = (
        "--leader-election=true",
        f"--leader-election-namespace={namespace}",
        "--leader-election-lease-duration=3s",
        "--leader-election-renew-deadline=2s",
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
