"""A provisioner beside a plugin that obeys a script; the API server and the controller manager are real."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from adapters.kubernetes import flags
from adapters.kubernetes.roles import provisioner
from bridge.app import roles
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, csi_server, provisioning
from tests.support.bed import access, controlplane
from tests.support.csi_server import Plugin

DRIVER = "test.csi.example"
CLASS = "scripted"
LIMIT_SECONDS = 60.0
ATTACHES = pb.ControllerServiceCapability.RPC.PUBLISH_UNPUBLISH_VOLUME
PVC = "csi.storage.k8s.io/pvc/name"
Step = Callable[[pb.CreateVolumeRequest, Any], Awaitable[Any]]


class Backend:
    """The plugin, with a behaviour of its own for each claim's name; others are served well."""

    def __init__(self) -> None:
        self.plugin = Plugin(DRIVER, controller=(*csi_server.ALL_CONTROLLER, ATTACHES))
        self.steps: dict[str, Step] = {}
        self.asked: dict[str, list[pb.CreateVolumeRequest]] = {}
        self.deleted: Counter[str] = Counter()
        self.deletion_secrets: dict[str, dict[str, str]] = {}
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
        self.deletion_secrets[request.volume_id] = dict(request.secrets)
        return await self.plugin.DeleteVolume(request, context)


def refuse(code: grpc.StatusCode) -> Step:
    async def step(_request: pb.CreateVolumeRequest, context: Any) -> None:
        await context.abort(code, "by the script")

    return step


@contextlib.asynccontextmanager
async def backend_at(plane: controlplane.ControlPlane, folder: Path) -> AsyncIterator[Backend]:
    """A backend on `folder`/csi.sock, and its class."""
    made = Backend()
    await asyncio.to_thread(plane.admin.apply, provisioning.storage_class(CLASS, DRIVER))
    async with csi_server.serving(made.plugin, folder / "csi.sock"):
        yield made
    await asyncio.to_thread(plane.admin.kubectl, "delete", "storageclass", CLASS)


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
        return await asyncio.to_thread(provisioning.until_bound, self._admin, self._namespace, name, LIMIT_SECONDS)

    async def gone(self, name: str) -> None:
        await self.until(
            f"{name} is gone", lambda: provisioning.claim_now(self._admin, self._namespace, name) is None
        )

    async def told(self, name: str, words: str) -> None:
        def holds() -> bool:
            return any(words in text for _, text in provisioning.events(self._admin, self._namespace, name))

        await self.until(f"{name} is told {words!r}", holds)

    async def until(self, what: str, holds: Callable[[], bool]) -> None:
        await asyncio.to_thread(claims.until, what, holds, LIMIT_SECONDS)


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
