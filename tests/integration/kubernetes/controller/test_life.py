"""A VolumeSnapshot's life under the cluster half, on a real API server: what is written, and what it costs."""

from __future__ import annotations

import asyncio
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.controller.turns import Rules
from adapters.kubernetes.facts import path
from tests.integration.kubernetes.controller import stand as stands
from tests.integration.kubernetes.stand import snapshot_object
from tests.support.bed.controlplane import ControlPlane

Object = dict[str, Any]
OUR_WRITES = 8
"""Hold, claim, content, status, claim; and upstream's three events."""
ALL_WRITES = 11


async def test_a_dynamic_snapshot_s_life_and_its_cost(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        await stand.quiet()
        stand.client.asked.clear()
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        await stand.until(lambda: not stand.claim_is_held(namespace))
        await stand.quiet()
        reads = [where for method, where in stand.client.asked if method == "GET" and "leases" not in where]
        assert reads == []
        assert len(stand.client.writes) == OUR_WRITES
        assert OUR_WRITES + stand.driver_half.writes <= ALL_WRITES
        assert await stand.events(namespace) == ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"]
        status = stand.snapshot(namespace)["status"]
        assert set(status) == {"boundVolumeSnapshotContentName", "creationTime", "readyToUse", "restoreSize"}
        assert status["restoreSize"] == "64Mi"
        await _others_changes_cost_nothing(stand, namespace)
        await _a_deletion(stand, namespace)


async def _others_changes_cost_nothing(stand: stands.Stand, namespace: str) -> None:
    """Cases 12 and 47, defect 1: no write follows from what others write, nor from a look at everything."""
    stand.client.asked.clear()
    name = stand.snapshot(namespace)["status"]["boundVolumeSnapshotContentName"]
    await stand.patch(names.CONTENTS, "", name, {"metadata": {"labels": {"a": "b"}}})
    await stand.patch(names.SNAPSHOTS, namespace, "one", {"metadata": {"labels": {"a": "b"}}})
    for find in (stand.snapshot, stand.content):
        await stand.until(lambda find=find: path(find(namespace), "metadata", "labels"))  # type: ignore[misc]
    for uid in stand.half.world.uids():
        stand.half.wake(uid)
    await stand.quiet()
    assert stand.client.writes == []


async def _a_deletion(stand: stands.Stand, namespace: str) -> None:
    stand.client.asked.clear()
    await stand.delete(names.SNAPSHOTS, namespace, "one")
    await stand.gone(namespace)
    await stand.quiet()
    assert stand.driver_half.cuts == {}
    assert [method for method, _ in stand.client.writes] == ["PUT", "DELETE", "PUT"]


async def test_a_pre_provisioned_snapshot(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        made = static_content(stand.driver, namespace)
        await stand.apply(made, snapshot_object(namespace, "one", content=f"{namespace}-old"))
        await stand.ready(namespace)
        content = stand.content(namespace)
        assert content is not None
        assert content["spec"]["volumeSnapshotRef"]["uid"] == stand.snapshot(namespace)["metadata"]["uid"]
        await stand.delete(names.SNAPSHOTS, namespace, "one")
        await stand.gone(namespace)
        assert stand.driver_half.calls == ["delete handle-9"]


async def test_velero_s_way_a_policy_that_is_set_to_retain_at_the_last_moment_counts(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        name = stand.snapshot(namespace)["status"]["boundVolumeSnapshotContentName"]
        flipped: list[int] = []

        async def flip_first(method: str, where: str) -> None:
            """Between our mark and our DELETE, unseen by us: the DELETE must meet a precondition that fails."""
            if method == "DELETE" and where.endswith(name) and not flipped:
                flipped.append(1)
                await stand.patch(names.CONTENTS, "", name, {"spec": {"deletionPolicy": "Retain"}})

        stand.client.before = flip_first
        await stand.delete(names.SNAPSHOTS, namespace, "one")
        await stand.gone(namespace)
        await stand.quiet()
        content = stand.half.world.contents.get("", name)
        assert flipped
        assert content is not None
        assert "deletionTimestamp" not in content["metadata"]
        assert len(stand.driver_half.cuts) == 1


async def test_a_pending_restore_blocks_and_says_so(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        await stand.apply(restore(namespace))
        await stand.until(lambda: stand.half.world.restoring(namespace, "one"))
        await stand.delete(names.SNAPSHOTS, namespace, "one")
        await stand.until(lambda: "deletionTimestamp" in stand.snapshot(namespace)["metadata"])
        await stand.quiet()
        await stand.until_event(namespace, "SnapshotDeletePending")
        assert (await stand.events(namespace))[-1] == "SnapshotDeletePending"
        assert len(stand.driver_half.cuts) == 1
        await stand.delete(names.CLAIMS, namespace, "restored")
        await stand.gone(namespace)
        assert stand.driver_half.cuts == {}


async def test_a_vanished_snapshot_leaves_its_content_alone(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        await stand.quiet()
        content = stand.content(namespace)
        assert content is not None
        stand.client.refuses = lambda method, _path: method != "GET"
        await stand.delete(names.SNAPSHOTS, namespace, "one")
        await stand.patch(names.SNAPSHOTS, namespace, "one", {"metadata": {"finalizers": None}})
        await stand.gone(namespace)
        stand.client.refuses = lambda _method, _path: False
        stand.client.asked.clear()
        await stand.quiet()
        left = stand.half.world.contents.get("", content["metadata"]["name"])
        assert left is not None
        assert "deletionTimestamp" not in left["metadata"]
        assert len(stand.driver_half.cuts) == 1


async def test_distributed_drivers_get_the_node_s_label(control_plane: ControlPlane, namespace: str) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n-{namespace}", "labels": {namespace: "here"}}}
    rule = {"matchExpressions": [{"key": namespace, "operator": "In", "values": ["here"]}]}
    async with stands.running(control_plane, rules=Rules(source_mode=False, distributed=True)) as stand:
        volume, claim = stands.volume_objects(namespace, "data", stand.driver)
        volume["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [rule]}}
        await stand.apply(node, volume, claim, stands.class_object(namespace, stand.driver))
        world = stand.half.world
        assert world.nodes is not None
        nodes = world.nodes
        await stand.until(lambda: nodes.get("", f"n-{namespace}") and world.classes.get("", namespace))
        await stand.until(lambda: stands.is_bound(world, namespace, "data"))
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        content = stand.content(namespace)
        assert content is not None
        assert content["metadata"]["labels"] == {names.MANAGED_BY: f"n-{namespace}"}
        assert "sourceVolumeMode" not in content["spec"]
        await asyncio.to_thread(stand.plane.kubectl, "delete", "node", f"n-{namespace}")


def static_content(driver: str, namespace: str) -> Object:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": f"{namespace}-old"},
        "spec": {
            "driver": driver,
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": "handle-9"},
            "volumeSnapshotRef": {"namespace": namespace, "name": "one"},
        },
    }


def restore(namespace: str) -> Object:
    """A claim that waits to be filled from the snapshot, for ever: nobody provisions it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "restored", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "nobody",
            "resources": {"requests": {"storage": "64Mi"}},
            "dataSource": {"apiGroup": names.GROUP, "kind": "VolumeSnapshot", "name": "one"},
        },
    }
