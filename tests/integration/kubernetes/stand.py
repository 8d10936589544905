"""The adapter and the service's worker on a real API server, with a plugin that keeps state in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from adapters.kubernetes import adapter, names
from adapters.kubernetes.client import Client
from adapters.kubernetes.connection import Connection, open_connection
from adapters.kubernetes.settings import Settings
from adapters.kubernetes.world import World
from bridge.ports.orchestrator import Intake
from bridge.ports.plugin import PluginSink
from bridge.service import work
from bridge.service.lane import Lane
from bridge.service.queue import KeyQueue
from bridge.service.runner import Runner
from tests.integration.kubernetes import definitions
from tests.support import provisioning
from tests.support.bed import access
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import MemoryPlugin, Script, VirtualClock

_numbers = itertools.count(1)
Object = dict[str, Any]
SOON_SECONDS = 0.3
RESOURCES = {
    one.kind: one
    for one in (
        names.SNAPSHOTS, names.CONTENTS, names.CLASSES, names.CLAIMS, names.VOLUMES, names.SECRETS, names.NODES,
        names.PODS, names.LEASES,
    )
}  # fmt: skip
SHORT = {
    "volumesnapshot": names.SNAPSHOTS,
    "volumesnapshotcontent": names.CONTENTS,
    "pvc": names.CLAIMS,
    "pv": names.VOLUMES,
}


def memory(*, not_ready: int = 0, **faults: str) -> MemoryPlugin:
    """A plugin of a driver of its own, as the cluster is shared. `at_0="lost after"` strikes its first call."""
    script = Script({int(place.removeprefix("at_")): fault for place, fault in faults.items()})
    driver = f"m{os.getpid()}-{next(_numbers)}.snapbridge.test"
    return MemoryPlugin(script, VirtualClock(), driver=driver, not_ready=not_ready)


class WallClock:
    """The `Clock` port on this host's clock."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Stand:
    """Everything a test needs at hand."""

    def __init__(self, plane: ControlPlane, cluster: adapter.Cluster, plugin: MemoryPlugin, runner: Runner) -> None:
        self.plane = plane
        self.cluster = cluster
        self.plugin = plugin
        self.runner = runner

    async def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self.plane.kubectl, *words, stdin=stdin)

    async def apply(self, *objects: Object) -> None:
        await asyncio.to_thread(put_there, self.plane.admin, *objects)

    async def get(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """The object as the API server has it, or None; `kind` is one of `SHORT`."""
        return await asyncio.to_thread(provisioning.look, self.plane.admin, SHORT[kind].item(namespace, name))

    async def until(self, what: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + seconds
        while not await what():
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not come about in {seconds} s")
            await asyncio.sleep(0.05)

    async def until_known(self, what: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until the adapter's caches show it; costs the API server nothing."""

        async def look() -> bool:
            return bool(what())

        await self.until(look, seconds)

    async def klass(self, name: str, driver: str = "", policy: str = "Delete", **more: Any) -> None:
        """A class, of the plugin's driver unless told otherwise, which the adapter has heard of."""
        await self.apply(class_object(name, driver or self.plugin.driver, policy, **more))
        await self.until_known(lambda: self.cluster.world.classes.get("", name))

    async def volume(self, namespace: str, name: str, driver: str = "") -> None:
        """A PersistentVolume and a claim that are bound to each other."""
        await self.apply(*volume_objects(namespace, name, driver or self.plugin.driver))
        await self.until_known(lambda: is_bound(self.cluster.world, namespace, name))

    def snapshot(self, namespace: str, name: str) -> Object | None:
        """The VolumeSnapshot as the caches have it."""
        return self.cluster.world.snapshots.get(namespace, name)

    async def until_ready(self, namespace: str, name: str, seconds: float = 30.0) -> Object:
        await self.until_known(
            lambda: ((self.snapshot(namespace, name) or {}).get("status") or {}).get("readyToUse"), seconds
        )
        found = self.snapshot(namespace, name)
        assert found is not None
        return found

    async def settle(self) -> None:
        """Wait until the worker has nothing to do now."""
        await asyncio.sleep(0.1)
        await self.until_known(lambda: is_at_rest(self.runner.queue))


def put_there(admin: access.Access, *objects: Object) -> None:
    """Create objects, or merge them into those of their names. Plain HTTP: kubectl takes longer than the rest."""
    for item in objects:
        resource, metadata = RESOURCES[item["kind"]], item["metadata"]
        namespace = metadata.get("namespace", "default")
        status, answer = admin.request("POST", resource.collection(namespace), item)
        if status == 409:
            path = resource.item(namespace, metadata["name"])
            status, answer = admin.request("PATCH", path, item, "application/merge-patch+json")
        assert status in (200, 201), answer


def is_at_rest(queue: KeyQueue[Any]) -> bool:
    """Nothing runs or could run, nor will in a moment: what met a conflict is not done."""
    soon = queue._clock.now() + SOON_SECONDS
    return queue.idle and all(due > soon for due in queue._due.values())


def is_bound(world: World, namespace: str, name: str) -> bool:
    """Whether both a claim and its volume are heard to be bound to each other: two watches tell of the two."""
    claim = world.claims.get(namespace, name) or {}
    if claim.get("status", {}).get("phase") != "Bound":
        return False
    volume = world.volumes.get("", claim["spec"].get("volumeName", "")) or {}
    reference = volume.get("spec", {}).get("claimRef", {})
    phase = volume.get("status", {}).get("phase")
    return bool(reference.get("uid") == claim["metadata"]["uid"] and phase == "Bound")


def volume_objects(namespace: str, name: str, driver: str) -> list[Object]:
    """A static volume and its claim."""
    size = {"storage": "64Mi"}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-{name}"},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {"namespace": namespace, "name": name},
                "csi": {"driver": driver, "volumeHandle": f"vol-{namespace}-{name}"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "volumeName": f"{namespace}-{name}",
                "resources": {"requests": size},
            },
        },
    ]


def class_object(name: str, driver: str, policy: str = "Delete", **more: Any) -> Object:
    """A VolumeSnapshotClass; `default=True` marks it."""
    default = more.pop("default", False)
    mark = {"snapshot.storage.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": name, "annotations": mark},
        "driver": driver,
        "deletionPolicy": policy,
        **more,
    }


def snapshot_object(namespace: str, name: str, klass: str = "", **source: str) -> Object:
    """A VolumeSnapshot; `claim` or `content` names its source."""
    fields = {"claim": "persistentVolumeClaimName", "content": "volumeSnapshotContentName"}
    spec: Object = {"source": {fields[word]: value for word, value in source.items()}}
    if klass:
        spec["volumeSnapshotClassName"] = klass
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@contextlib.asynccontextmanager
async def running(
    plane: ControlPlane,
    *,
    plugin: MemoryPlugin | None = None,
    workers: int = 16,
    client_type: Callable[[Connection], Client] = Client,
    **settings: Any,
) -> AsyncIterator[Stand]:
    """The adapter and the worker, until the block is left."""
    await asyncio.to_thread(definitions.install, plane)
    plugin = plugin or memory()
    clock = WallClock()
    given = Settings(kubeconfig=str(plane.kubeconfig), lease_check_seconds=1.0, **settings)
    way = await open_connection(given)
    cluster = adapter.Cluster(
        given,
        client_type(way),
        cluster="east",
        clock=clock,
        serves=lambda driver: driver == plugin.driver,
    )
    writer = f"writer-{time.monotonic_ns()}"
    lane = Lane(
        cluster,
        cluster.requests,
        cluster.ledger,
        cluster.secrets,
        fence=cluster.fence,
        groups=cluster.groups.side,
    )
    runner = Runner({"east": lane}, work.Tools(plugin, clock, writer), told=_told, workers=workers)
    async with asyncio.TaskGroup() as group:
        run = cluster.run(runner.wake, cast("Intake", None), cast("PluginSink", None))
        tasks = [group.create_task(run, name="cluster"), group.create_task(runner.run(), name="runner")]
        stand = Stand(plane, cluster, plugin, runner)
        try:
            await stand.until_known(lambda: not cluster.ready())
            yield stand
        finally:
            for task in tasks:
                task.cancel()


async def _told(*_: object) -> None:
    return None
