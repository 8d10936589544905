"""Snapshots from the first write to the last, on a real API server: what users see, and what each step costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from adapters.kubernetes import names
from bridge.model.plugin import Capability
from tests.integration.kubernetes import stand as stands
from tests.support.bed.controlplane import ControlPlane
from tests.support.bed.requests import WRITES, Requests

OURS = {"volumesnapshots", "volumesnapshotcontents", "persistentvolumeclaims", "events"}
BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
SOURCE = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
CLAIM = "snapshot.storage.kubernetes.io/pvc-as-source-protection"


def of(item: dict[str, Any] | None, *fields: str) -> Any:
    value: Any = item
    for field in fields:
        value = (value or {}).get(field)
    return value


async def counted(plane: ControlPlane) -> Requests:
    """What the server has counted, once it counts no more writes: it counts a request after it was answered."""
    found = await asyncio.to_thread(plane.metrics)
    while True:
        await asyncio.sleep(0.25)
        before, found = found, await asyncio.to_thread(plane.metrics)
        if not (found - before).total(WRITES, OURS):
            return found


async def test_a_snapshot_is_made_with_seven_writes_and_one_event_and_deleted_with_three(
    own_control_plane: ControlPlane,
) -> None:
    async with stands.running(own_control_plane) as stand:
        await stand.klass("plain")
        await stand.volume("default", "data")
        await stand.settle()
        before = await counted(own_control_plane)
        await stand.apply(stands.snapshot_object("default", "one", "plain", claim="data"))
        made = await stand.until_ready("default", "one")
        await stand.settle()
        claims = stand.cluster.world.claims
        await stand.until_known(lambda: CLAIM not in of(claims.get("default", "data"), "metadata", "finalizers"))
        spent = await counted(own_control_plane) - before
        uid = made["metadata"]["uid"]
        assert made["status"]["boundVolumeSnapshotContentName"] == f"snapcontent-{uid}"
        assert made["status"]["restoreSize"] == "10"
        assert made["status"]["creationTime"] == "2023-11-14T22:13:20Z"
        assert set(made["metadata"]["finalizers"]) == {SOURCE, BOUND}
        content = await stand.get("volumesnapshotcontent", f"snapcontent-{uid}")
        assert of(content, "spec", "volumeSnapshotRef", "uid") == uid
        assert of(content, "spec", "sourceVolumeMode") == "Filesystem"
        assert of(content, "status", "snapshotHandle") == "snap-1"
        assert not of(content, "metadata", "annotations")
        assert not of(await stand.get("pvc", "data"), "metadata", "finalizers") or CLAIM not in of(
            await stand.get("pvc", "data"), "metadata", "finalizers"
        )
        print("create", dict(spent))
        writes = spent.total(WRITES, OURS) - 1  # one is the test's own
        assert writes == 8, dict(spent)
        assert spent.total(WRITES, {"events"}) == 1
        assert spent.total({"GET"}, OURS | {"persistentvolumes", "volumesnapshotclasses"}) <= 1, dict(
            spent
        )  # kubectl

        before = await counted(own_control_plane)
        await stand.kubectl("delete", "volumesnapshot", "one", "--wait=false")
        await stand.until_known(lambda: stand.snapshot("default", "one") is None)
        await stand.settle()
        spent = await counted(own_control_plane) - before
        print("delete", dict(spent))
        assert await stand.get("volumesnapshotcontent", f"snapcontent-{uid}") is None
        assert stand.plugin.handles() == set()
        assert spent.total(WRITES, OURS) - 1 <= 4, dict(spent)
        assert spent.total({"GET"}, OURS) == 0, dict(spent)


async def reasons(stand: stands.Stand, namespace: str) -> list[str]:
    """The reasons of the namespace's events."""
    return [item["reason"] async for item in stand.cluster.client.list(names.EVENTS, namespace)]


async def until_told(stand: stands.Stand, namespace: str, enough: Callable[[list[str]], bool]) -> None:
    """Wait for events: each comes after the status that it tells of."""

    async def told() -> bool:
        return enough(await reasons(stand, namespace))

    await stand.until(told)


async def test_retain_keeps_the_content_and_the_data(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-keep", policy="Retain")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-keep", claim="data"))
        made = await stand.until_ready(namespace, "one")
        assert made["metadata"]["finalizers"] == [SOURCE]
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.settle()
        content = await stand.get("volumesnapshotcontent", made["status"]["boundVolumeSnapshotContentName"])
        assert content is not None
        assert "deletionTimestamp" not in content["metadata"]
        assert stand.plugin.handles() == {"snap-1"}
        await stand.kubectl("delete", "volumesnapshotcontent", content["metadata"]["name"], "--timeout=50s")
        assert stand.plugin.handles() == {"snap-1"}


async def test_a_kept_content_can_be_deleted_with_its_data_later(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-keep", policy="Retain")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-keep", claim="data"))
        made = await stand.until_ready(namespace, "one")
        name = made["status"]["boundVolumeSnapshotContentName"]
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=50s")
        change = '{"spec":{"deletionPolicy":"Delete"}}'
        await stand.kubectl("patch", "volumesnapshotcontent", name, "--type=merge", "-p", change)
        await stand.kubectl("delete", "volumesnapshotcontent", name, "--timeout=50s")
        assert stand.plugin.handles() == set()


async def test_a_policy_that_was_changed_to_retain_counts_at_the_delete(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-drop")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-drop", claim="data"))
        made = await stand.until_ready(namespace, "one")
        name = made["status"]["boundVolumeSnapshotContentName"]
        change = '{"spec":{"deletionPolicy":"Retain"}}'
        await stand.kubectl("patch", "volumesnapshotcontent", name, "--type=merge", "-p", change)
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.settle()
        assert stand.plugin.handles() == {"snap-1"}
        assert "deletionTimestamp" not in (await stand.get("volumesnapshotcontent", name) or {})["metadata"]


async def test_the_default_class_of_the_driver_is_filled_in(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", claim="data"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "one"), "status", "error"))
        told = of(stand.snapshot(namespace, "one"), "status", "error", "message")
        assert "cannot find default snapshot class" in told
        await stand.klass(f"{namespace}-default", default=True)
        made = await stand.until_ready(namespace, "one")
        assert made["spec"]["volumeSnapshotClassName"] == f"{namespace}-default"
        assert "error" not in made["status"]
        await stand.klass(f"{namespace}-second", default=True)
        await stand.apply(stands.snapshot_object(namespace, "two", claim="data"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "two"), "status", "error"))
        told = of(stand.snapshot(namespace, "two"), "status", "error", "message")
        assert "2 default snapshot classes were found" in told
        failed = "SetDefaultSnapshotClassFailed"
        await until_told(stand, namespace, lambda found: len(found) >= 3)
        assert sorted(await reasons(stand, namespace)) == [failed, failed, "SnapshotReady"]


async def test_a_snapshot_that_is_processed_says_so_and_then_is_ready(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = stands.memory(not_ready=3)
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.klass(f"{namespace}-slow")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-slow", claim="data"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "one"), "status", "readyToUse") is False)
        made = stand.snapshot(namespace, "one")
        assert of(made, "status", "boundVolumeSnapshotContentName").startswith("snapcontent-")
        await stand.until_ready(namespace, "one")
        assert plugin.script.done.count("create") == 4
        assert len(plugin.handles()) == 1


async def test_an_existing_snapshot_is_adopted_and_kept_or_deleted_by_its_policy(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = stands.memory()
    plugin.capabilities.add(Capability.LIST_SNAPSHOTS)
    cut = await plugin.create_snapshot(name="older", volume_handle="v", parameters={}, secrets={})
    assert cut is not None
    async with stands.running(control_plane, plugin=plugin) as stand:
        content = {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotContent",
            "metadata": {"name": f"{namespace}-old"},
            "spec": {
                "driver": plugin.driver,
                "deletionPolicy": "Delete",
                "source": {"snapshotHandle": "snap-1"},
                "volumeSnapshotRef": {"namespace": namespace, "name": "old"},
            },
        }
        await stand.apply(stands.snapshot_object(namespace, "old", content=f"{namespace}-old"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "old"), "status", "error"))
        told = of(stand.snapshot(namespace, "old"), "status", "error", "message")
        assert told.startswith("VolumeSnapshotContent is missing")
        await stand.apply(content)
        made = await stand.until_ready(namespace, "old")
        bound = await stand.get("volumesnapshotcontent", f"{namespace}-old")
        assert of(bound, "spec", "volumeSnapshotRef", "uid") == made["metadata"]["uid"]
        assert of(bound, "status", "readyToUse") is True
        await stand.kubectl("delete", "volumesnapshot", "old", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: stand.snapshot(namespace, "old") is None)
        await stand.settle()
        assert await stand.get("volumesnapshotcontent", f"{namespace}-old") is None
        assert plugin.handles() == set()


async def test_a_content_whose_snapshot_is_missing_is_left_alone(control_plane: ControlPlane, namespace: str) -> None:
    plugin = stands.memory()
    await plugin.create_snapshot(name="imported", volume_handle="v", parameters={}, secrets={})
    content = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": f"{namespace}-imported"},
        "spec": {
            "driver": plugin.driver,
            "deletionPolicy": "Delete",
            "source": {"volumeHandle": "v"},
            "volumeSnapshotRef": {"namespace": namespace, "name": "imported", "uid": f"{namespace}-u"},
        },
        "status": {"snapshotHandle": "snap-1", "readyToUse": True},
    }
    await asyncio.to_thread(control_plane.kubectl, "get", "ns")
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.apply(content)
        await stand.until_known(lambda: stand.cluster.world.contents.get("", f"{namespace}-imported"))
        await stand.settle()
        assert plugin.handles() == {"snap-1"}
        assert (
            "deletionTimestamp"
            not in (await stand.get("volumesnapshotcontent", f"{namespace}-imported") or {})["metadata"]
        )
    await asyncio.to_thread(control_plane.kubectl, "delete", "volumesnapshotcontent", f"{namespace}-imported")


async def test_a_class_of_another_driver_is_refused(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-other", "other.snapbridge.test")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-other", claim="data"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "one"), "status", "error"))
        told = of(stand.snapshot(namespace, "one"), "status", "error", "message")
        assert "other.snapbridge.test" in told
        assert "Name a class of the volume's driver" in told
        assert stand.plugin.script.done == []


async def test_while_a_claim_waits_for_its_data_the_snapshot_stays(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_ready(namespace, "one")
        waiting = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "restored", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "nobody-serves-this",
                "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "one"},
                "resources": {"requests": {"storage": "64Mi"}},
            },
        }
        await stand.apply(waiting)
        await stand.until_known(lambda: stand.cluster.world.restoring(namespace, "one"))
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await asyncio.sleep(1)
        assert stand.plugin.handles() == {"snap-1"}
        assert stand.snapshot(namespace, "one") is not None
        await until_told(stand, namespace, lambda found: "SnapshotDeletePending" in found)
        await stand.kubectl("delete", "pvc", "restored", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        assert stand.plugin.handles() == set()
