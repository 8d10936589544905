"""What stands between two processes, between two controllers, and between us and the API server."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

import pytest

from adapters.kubernetes import names
from bridge.model.failure import ConflictError
from bridge.model.keys import snapshot_key
from tests.integration.kubernetes import definitions
from tests.integration.kubernetes import stand as stands
from tests.integration.kubernetes.test_snapshots import CLAIM, of
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import Crash


@pytest.mark.parametrize("fault", ["crash before", "crash after"])
async def test_a_process_that_dies_in_the_create_leaves_a_note_and_the_next_one_finishes(
    control_plane: ControlPlane, namespace: str, fault: str
) -> None:
    plugin = stands.memory(at_0=fault)

    async def life() -> None:
        async with stands.running(control_plane, plugin=plugin, workers=1) as stand:
            await stand.klass(f"{namespace}-c", parameters={"tier": "gold"})
            await stand.volume(namespace, "data")
            await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
            await asyncio.sleep(60)

    with pytest.raises(BaseExceptionGroup) as died:
        await life()
    assert died.group_contains(Crash)
    found = control_plane.admin.get("volumesnapshotcontents")["items"]
    content = next(item for item in found if item["spec"]["volumeSnapshotRef"]["namespace"] == namespace)
    notes = content["metadata"]["annotations"]
    assert json.loads(notes[names.INTENT])["parameters"] == {"tier": "gold"}
    assert names.CONTENT_FINALIZER in content["metadata"]["finalizers"]
    assert "status" not in content
    control_plane.kubectl("delete", "volumesnapshotclass", f"{namespace}-c")
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.until_ready(namespace, "one")
        await stand.settle()
        assert len(plugin.handles()) == 1
        after = await stand.get("volumesnapshotcontent", content["metadata"]["name"])
        assert not {names.BEING_CREATED, names.INTENT} & set(of(after, "metadata", "annotations") or ())
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.settle()
        assert plugin.handles() == set()


@pytest.mark.parametrize("fault", ["crash before", "crash after"])
async def test_a_process_that_dies_in_the_delete_is_followed_by_one_that_finishes(
    control_plane: ControlPlane, namespace: str, fault: str
) -> None:
    plugin = stands.memory(at_1=fault)
    contents: list[str] = []

    async def life() -> None:
        async with stands.running(control_plane, plugin=plugin, workers=1) as stand:
            await stand.klass(f"{namespace}-c")
            await stand.volume(namespace, "data")
            await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
            made = await stand.until_ready(namespace, "one")
            contents.append(of(made, "status", "boundVolumeSnapshotContentName"))
            await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
            await asyncio.sleep(60)

    with pytest.raises(BaseExceptionGroup):
        await life()
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.settle()
        assert plugin.handles() == set()
        assert await stand.get("volumesnapshotcontent", contents[0]) is None


async def test_a_lost_reply_makes_one_snapshot_and_the_error_goes_with_the_success(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = stands.memory(at_0="lost after")
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "one"), "status", "error"))
        told = of(stand.snapshot(namespace, "one"), "status")
        assert told["readyToUse"] is False
        assert told["error"]["message"].startswith("Failed to create snapshot: ")
        made = await stand.until_ready(namespace, "one")
        assert "error" not in made["status"]
        assert len(plugin.handles()) == 1
        content = await stand.get("volumesnapshotcontent", made["status"]["boundVolumeSnapshotContentName"])
        assert "error" not in of(content, "status")


async def test_upstreams_mark_alone_is_a_note_of_somebody_else(control_plane: ControlPlane, namespace: str) -> None:
    """The incumbent died in its create; we take over and learn the handle before anything else."""
    plugin = stands.memory()
    await asyncio.to_thread(definitions.install, control_plane)
    await asyncio.to_thread(
        control_plane.admin.apply, [stands.class_object(f"{namespace}-c", plugin.driver, parameters={"a": "b"})]
    )
    snapshot = stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data")
    snapshot["metadata"]["finalizers"] = list(names.SNAPSHOT_FINALIZERS)
    objects = stands.volume_objects(namespace, "data", plugin.driver)
    await asyncio.to_thread(control_plane.admin.apply, [*objects, snapshot])
    uid = control_plane.admin.get("volumesnapshot", "one", "-n", namespace)["metadata"]["uid"]
    content = {
        "apiVersion": names.API_VERSION,
        "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": names.content_name(uid),
            "annotations": {names.BEING_CREATED: "yes"},
            "finalizers": [names.CONTENT_FINALIZER],
        },
        "spec": {
            "driver": plugin.driver,
            "deletionPolicy": "Delete",
            "source": {"volumeHandle": f"vol-{namespace}-data"},
            "volumeSnapshotClassName": f"{namespace}-c",
            "volumeSnapshotRef": {"namespace": namespace, "name": "one", "uid": uid},
        },
    }
    await asyncio.to_thread(control_plane.admin.apply, content)
    await asyncio.to_thread(control_plane.kubectl, "delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.settle()
        assert plugin.script.done == ["create", "delete snap-1"]
        assert plugin.handles() == set()


async def test_its_owner_can_abandon_what_cannot_be_settled(control_plane: ControlPlane, namespace: str) -> None:
    plugin = stands.memory(**{f"at_{number}": "lost before" for number in range(200)})
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "one"), "status", "error"))
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await asyncio.sleep(1)
        assert stand.snapshot(namespace, "one") is not None
        await stand.kubectl("annotate", "volumesnapshot", "one", "-n", namespace, f"{names.ABANDON}=true")
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.settle()
        events = await stand.kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}")
        assert "SnapshotOrphanPossible" in events.split()
        assert CLAIM not in of(await stand.get("pvc", "data", namespace), "metadata", "finalizers")


async def test_a_live_lease_of_another_controller_keeps_us_away(control_plane: ControlPlane, namespace: str) -> None:
    plugin = stands.memory()
    driver = plugin.driver
    now = datetime.datetime.now(datetime.UTC)
    lease: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"external-snapshotter-leader-{driver.replace('.', '-')}", "namespace": namespace},
        "spec": {
            "holderIdentity": "the-incumbent",
            "leaseDurationSeconds": 3600,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.apply(lease)
        await stand.klass(f"{namespace}-c", driver)
        await stand.volume(namespace, "data", driver)
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_known(lambda: "the-incumbent" in "".join(stand.cluster.problems()))
        await asyncio.sleep(1)
        untouched = await stand.get("volumesnapshot", "one", namespace)
        assert "finalizers" not in of(untouched, "metadata")
        assert plugin.script.done == []
        await stand.kubectl("delete", "lease", lease["metadata"]["name"], "-n", namespace)
        await stand.until_ready(namespace, "one")
        assert not stand.cluster.problems()


async def test_a_controller_that_creates_before_our_eyes_keeps_us_away(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = stands.memory()
    driver = plugin.driver
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.klass(f"{namespace}-c", driver)
        await stand.volume(namespace, "data", driver)
        foreign = {
            "apiVersion": names.API_VERSION,
            "kind": "VolumeSnapshotContent",
            "metadata": {"name": f"{namespace}-foreign", "annotations": {names.BEING_CREATED: "yes"}},
            "spec": {
                "driver": driver,
                "deletionPolicy": "Delete",
                "source": {"volumeHandle": "v"},
                "volumeSnapshotRef": {"namespace": namespace, "name": "theirs", "uid": "theirs"},
            },
        }
        await stand.apply(foreign)
        await stand.until_known(lambda: "another controller creates" in "".join(stand.cluster.problems()))
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await asyncio.sleep(1)
        assert plugin.script.done == []
        assert "finalizers" not in of(await stand.get("volumesnapshot", "one", namespace), "metadata")
    await asyncio.to_thread(control_plane.kubectl, "delete", "volumesnapshotcontent", f"{namespace}-foreign")


async def test_other_drivers_are_none_of_our_business(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-c", "other.snapbridge.test")
        await stand.volume(namespace, "data", "other.snapbridge.test")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_known(lambda: stand.snapshot(namespace, "one"))
        await stand.settle()
        untouched = await stand.get("volumesnapshot", "one", namespace)
        assert "finalizers" not in of(untouched, "metadata")
        assert "status" not in (untouched or {})


async def test_many_snapshots_of_one_claim_share_its_hold(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        many = [f"s{number}" for number in range(30)]
        await stand.apply(*(stands.snapshot_object(namespace, name, f"{namespace}-c", claim="data") for name in many))
        for name in many:
            await stand.until_ready(namespace, name, 60)
        await stand.settle()
        assert len(stand.plugin.handles()) == 30
        claims = stand.cluster.world.claims
        await stand.until_known(lambda: CLAIM not in of(claims.get(namespace, "data"), "metadata", "finalizers"))
        await stand.kubectl("delete", "volumesnapshot", "--all", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: not any(stand.snapshot(namespace, name) for name in many), 60)
        await stand.settle()
        assert stand.plugin.handles() == set()


@pytest.mark.timeout(400)
async def test_the_api_server_goes_away_and_comes_back(own_control_plane: ControlPlane) -> None:
    async with stands.running(own_control_plane) as stand:
        await stand.klass("plain")
        await stand.volume("default", "data")
        many = [f"s{number}" for number in range(40)]
        await stand.apply(*(stands.snapshot_object("default", name, "plain", claim="data") for name in many))
        await asyncio.to_thread(own_control_plane.apiserver.kill)
        await asyncio.sleep(1)
        await asyncio.to_thread(own_control_plane.apiserver.start)
        for name in many:
            await stand.until_ready("default", name, 60)
        assert len(stand.plugin.handles()) == 40
        await stand.kubectl("delete", "volumesnapshot", "--all", "--wait=false")
        await asyncio.to_thread(own_control_plane.apiserver.kill)
        await asyncio.to_thread(own_control_plane.apiserver.start)
        await stand.until_known(lambda: not any(stand.snapshot("default", name) for name in many), 60)
        await stand.settle()
        assert stand.plugin.handles() == set()
        assert (await asyncio.to_thread(own_control_plane.admin.get, "volumesnapshotcontents"))["items"] == []


async def test_a_stale_record_changes_nothing(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        made = await stand.until_ready(namespace, "one")
        await stand.settle()
        key = snapshot_key("east", made["metadata"]["uid"])
        record = await stand.cluster.ledger.load(key)
        assert record is not None
        name = made["status"]["boundVolumeSnapshotContentName"]
        await stand.kubectl("label", "volumesnapshotcontent", name, "touched=yes")
        version = record.version
        await stand.until_known(lambda: stand.cluster.world.contents.version("", name) != version)
        for verb in (stand.cluster.ledger.save, stand.cluster.ledger.condemn, stand.cluster.ledger.erase):
            with pytest.raises(ConflictError):
                await verb(key, record)
        assert "deletionTimestamp" not in of(await stand.get("volumesnapshotcontent", name), "metadata")


async def test_a_snapshot_goes_with_the_last_content_that_names_it(
    control_plane: ControlPlane, namespace: str
) -> None:
    """A pre-provisioned content of a dynamic snapshot's handle: deleting one takes the other's data only at last."""
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_ready(namespace, "one")
        (handle,) = stand.plugin.handles()
        static = {
            "apiVersion": names.API_VERSION,
            "kind": "VolumeSnapshotContent",
            "metadata": {"name": f"{namespace}-static"},
            "spec": {
                "driver": stand.plugin.driver,
                "deletionPolicy": "Delete",
                "source": {"snapshotHandle": handle},
                "volumeSnapshotRef": {"namespace": namespace, "name": "two"},
            },
        }
        await stand.apply(static, stands.snapshot_object(namespace, "two", content=f"{namespace}-static"))
        await stand.until_ready(namespace, "two")
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await asyncio.sleep(1)
        assert stand.plugin.handles() == {handle}
        assert of(stand.snapshot(namespace, "one"), "metadata", "finalizers")
        await stand.kubectl("delete", "volumesnapshot", "two", "-n", namespace, "--wait=false")
        gone = lambda: not stand.snapshot(namespace, "one") and not stand.snapshot(namespace, "two")  # noqa: E731
        await stand.until_known(gone, 60)
        await stand.settle()
        assert stand.plugin.handles() == set()
        assert await stand.get("volumesnapshotcontent", f"{namespace}-static") is None
