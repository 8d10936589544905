"""The driver half on a real API server: what it does for a content, what that costs, what it says."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.connection import open_connection
from adapters.kubernetes.settings import Settings
from bridge.model.plugin import Capability
from tests.integration.kubernetes import half_stand
from tests.integration.kubernetes.half_stand import Plugin, annotations, new_driver
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import Stored


async def test_a_snapshot_costs_three_writes_and_no_read_and_its_end_two(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.klass(namespace, type="fast")
        await stand.content(namespace, klass=namespace)
        made = await stand.until_ready(namespace)
        assert stand.plugin.given == [(f"snapshot-uid-of-{namespace}", {"type": "fast"}, {})]
        assert made["status"] == {
            "snapshotHandle": "snap-1",
            "readyToUse": True,
            "creationTime": 1_700_000_000_000_000_000,
            "restoreSize": 10,
        }
        assert names.BEING_CREATED not in annotations(made)
        assert len(stand.client.writes(events=True)) <= 3, stand.client.log
        assert stand.client.reads() == []
        assert await stand.events(namespace) == []
        stand.client.log.clear()
        await stand.let_go(namespace)
        await stand.until_gone(namespace)
        assert stand.plugin.calls("delete snap-1") == 1
        assert len(stand.client.writes(events=True)) <= 2, stand.client.log
        assert stand.client.reads() == []


async def test_a_look_that_finds_nothing_new_writes_nothing(control_plane: ControlPlane, namespace: str) -> None:
    plugin = Plugin(new_driver(), not_ready=3)
    async with half_stand.running(control_plane, plugin) as stand:
        await stand.content(namespace)
        await stand.until(lambda: stand.status(namespace).get("snapshotHandle"))
        assert stand.status(namespace)["readyToUse"] is False
        await stand.until_ready(namespace)
        assert stand.plugin.calls("create") == 4
        assert len(stand.client.writes(events=True)) <= 5, stand.client.log
        stand.client.log.clear()
        stand.half._on_synced()
        await stand.change(namespace, {"metadata": {"labels": {"touched": "yes"}}})
        await stand.until(lambda: stand.known(namespace)["metadata"].get("labels"))
        await stand.settle()
        assert stand.client.log == []


async def test_what_is_kept_is_let_go_without_a_call(control_plane: ControlPlane, namespace: str) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace, policy="Retain")
        await stand.until_ready(namespace)
        stand.client.log.clear()
        await stand.let_go(namespace)
        await stand.until_gone(namespace)
        assert stand.plugin.calls("delete") == 0
        assert stand.plugin.handles() == {"snap-1"}
        assert len(stand.client.log) == 1


async def test_the_policy_that_counts_is_the_newest_one_at_the_delete(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Its owner changes it between our look and our act."""
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace)
        await stand.until_ready(namespace)

        async def flip(method: str, _path: str) -> None:
            if method == "GET":
                return  # A look at the leases may come between.
            stand.client.before = None
            assert method == "PUT"
            await stand.change(namespace, {"spec": {"deletionPolicy": "Retain"}})

        stand.client.before = flip
        await stand.let_go(namespace)
        await stand.until_gone(namespace)
        assert stand.plugin.calls("delete") == 0


async def test_while_the_plugin_is_down_a_deletion_waits_and_writes_nothing(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace)
        await stand.until_ready(namespace)
        stand.plugin.healthy = False
        await stand.let_go(namespace)
        await stand.until_going(namespace)
        await stand.settle()
        stand.client.log.clear()
        for _ in range(3):
            stand.half._on_synced()
            await stand.settle()
        assert stand.client.log == []
        assert stand.plugin.calls("delete") == 0
        await stand.change(namespace, {"spec": {"deletionPolicy": "Retain"}})
        stand.plugin.healthy = True
        await stand.until_gone(namespace)
        assert stand.plugin.calls("delete") == 0


async def test_a_confirmation_of_the_policy_changes_no_object(control_plane: ControlPlane, namespace: str) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace)
        before = await stand.until_ready(namespace)
        answer = await stand.client.put(names.CONTENTS, before)
        assert answer["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_failing_delete_is_told_tried_again_and_then_done(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = Plugin(new_driver(), faults={1: "lost after"})
    async with half_stand.running(control_plane, plugin) as stand:
        await stand.content(namespace)
        await stand.until_ready(namespace)
        await stand.let_go(namespace)
        await stand.until(lambda: stand.error(namespace).startswith("Failed to delete snapshot: "))
        await stand.until_gone(namespace)
        (event,) = await stand.events(namespace)
        assert (event["type"], event["reason"]) == ("Warning", "SnapshotDeleteError")
        assert event["source"]["component"] == f"csi-snapshotter {plugin.driver}"


async def test_a_deleted_content_that_others_hold_is_not_touched_again(
    control_plane: ControlPlane, namespace: str
) -> None:
    both = [names.CONTENT_FINALIZER, "example.com/other"]
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace, finalizers=both)
        await stand.until_ready(namespace)
        await stand.let_go(namespace)
        await stand.until(lambda: not half_stand.held(stand.known(namespace)))
        assert not stand.status(namespace).get("snapshotHandle")
        await stand.settle()
        stand.half._on_synced()
        await stand.note(namespace, touched="yes")
        await stand.until(lambda: "touched" in annotations(stand.known(namespace)))
        await stand.settle()
        assert stand.plugin.calls("delete") == 1
        await stand.change(namespace, {"metadata": {"finalizers": None}})
        await stand.until_gone(namespace)


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
async def test_an_unsure_create_keeps_its_note_and_is_settled_before_the_delete(
    control_plane: ControlPlane, namespace: str, fault: str
) -> None:
    """Upstream counts INTERNAL as final, drops its mark, and leaves the snapshot on the backend."""
    plugin = Plugin(new_driver(), faults={0: fault})
    async with half_stand.running(control_plane, plugin) as stand:
        await stand.content(namespace)
        await stand.until(lambda: stand.error(namespace).startswith("Failed to create snapshot: lost"))
        assert {names.BEING_CREATED, names.INTENT} & annotations(stand.known(namespace))
        await stand.let_go(namespace)
        await stand.until_gone(namespace)
        assert plugin.calls("create") == 2
        assert plugin.handles() == set()


async def test_an_owner_may_let_an_unsettled_create_go_by_name(control_plane: ControlPlane, namespace: str) -> None:
    plugin = Plugin(new_driver(), faults=dict.fromkeys(range(99), "lost after"))
    async with half_stand.running(control_plane, plugin) as stand:
        await stand.content(namespace)
        await stand.until(lambda: stand.error(namespace))
        await stand.let_go(namespace)
        await stand.until_going(namespace)
        await stand.settle()
        assert stand.known(namespace)
        await stand.note(namespace, **{names.ABANDON: "true"})
        await stand.until_gone(namespace)
        last = (await stand.until_event(namespace, "SnapshotOrphanPossible"))[-1]
        assert f"snapshot-uid-of-{namespace}" in last["message"]


async def test_a_create_that_upstream_left_is_taken_over_and_no_refusal_closes_it(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = Plugin(new_driver(), faults={0: "refused"})
    plugin.stored[f"snapshot-uid-of-{namespace}"] = Stored("snap-u", f"vol-{namespace}", 0)
    async with half_stand.running(control_plane, plugin) as stand:
        await stand.klass(namespace, type="fast")
        await stand.content(namespace, klass=namespace, annotations={names.BEING_CREATED: "yes"})
        await stand.until(lambda: stand.error(namespace))
        assert names.BEING_CREATED in annotations(stand.known(namespace))
        made = await stand.until_ready(namespace)
        assert made["status"]["snapshotHandle"] == "snap-u"
        assert "error" not in made["status"]
        assert names.BEING_CREATED not in annotations(made)
        assert [given[1] for given in plugin.given] == [{"type": "fast"}] * 2


async def test_a_mark_that_a_crash_left_on_a_ready_content_is_taken_off(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace)
        await stand.until_ready(namespace)
        stand.client.log.clear()
        await stand.note(namespace, **{names.BEING_CREATED: "yes"})
        await stand.until(stand.client.writes)
        await stand.until(lambda: names.BEING_CREATED not in annotations(stand.known(namespace)))
        assert stand.plugin.calls("create") == 1


@pytest.mark.parametrize("bound", [True, False])
async def test_a_static_snapshot_is_looked_up_bound_or_not(
    control_plane: ControlPlane, namespace: str, bound: bool
) -> None:
    plugin = Plugin(new_driver())
    plugin.capabilities.add(Capability.GET_SNAPSHOT)
    async with half_stand.running(control_plane, plugin) as stand:
        await stand.content(namespace, static="old-1", bound=bound)
        await stand.until(lambda: stand.error(namespace))
        assert stand.error(namespace).startswith("Failed to check and update snapshot content: ")
        assert bound or "snapshotHandle" not in stand.status(namespace)
        plugin.by_hand["old"] = Stored("old-1", "v", 0)
        made = await stand.until_ready(namespace)
        assert made["status"]["snapshotHandle"] == "old-1"
        (event,) = await stand.until_event(namespace)
        assert event["reason"] == "SnapshotContentCheckandUpdateFailed"
        await (stand.let_go(namespace) if bound else stand.delete(namespace))
        await stand.until_gone(namespace)
        assert plugin.handles() == set()
        assert plugin.calls("create") == 0


async def test_a_static_snapshot_of_a_driver_that_cannot_look_is_taken_as_ready_now(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace, static="old-1")
        made = await stand.until_ready(namespace)
        assert made["status"]["creationTime"] > 1_700_000_000_000_000_000
        assert stand.plugin.script.done == []


async def test_a_class_that_is_missing_is_told_and_waited_for(control_plane: ControlPlane, namespace: str) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace, klass=namespace)
        await stand.until(lambda: "not found" in stand.error(namespace))
        assert stand.plugin.script.done == []
        await stand.klass(namespace)
        made = await stand.until_ready(namespace)
        assert "error" not in made["status"]
        (event,) = await stand.events(namespace)
        assert event["reason"] == "SnapshotCreationFailed"


def secret_notes(namespace: str) -> dict[str, Any]:
    return {names.DELETION_SECRET_NAME: "key", names.DELETION_SECRET_NAMESPACE: namespace}


async def test_a_secret_is_read_at_each_call_and_a_missing_one_blocks_with_a_way_out(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Upstream's defect 12: it waits for ever, unsaid. A delete without the key may find nothing, and so leak."""
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace, annotations=secret_notes(namespace))
        await stand.until(lambda: f"{namespace}/key" in stand.error(namespace))
        assert stand.plugin.script.done == []
        data = {"token": base64.b64encode(b"hush").decode()}
        await stand.other.create(names.SECRETS, namespace, {"metadata": {"name": "key"}, "data": data})
        await stand.until_ready(namespace)
        assert stand.plugin.given[-1][2] == {"token": "hush"}
        await stand.other.delete(names.SECRETS, namespace, "key")
        await stand.let_go(namespace)
        await stand.until(lambda: stand.error(namespace).startswith("Failed to delete snapshot: "))
        assert stand.plugin.calls("delete") == 0
        assert names.DELETION_SECRET_NAME in stand.error(namespace)
        assert "hush" not in str(await stand.events(namespace))
        await stand.note(namespace, **dict.fromkeys(secret_notes(namespace)))
        await stand.until_gone(namespace)
        assert stand.plugin.calls("delete snap-1") == 1


async def test_a_member_of_a_group_is_let_go_without_a_call(control_plane: ControlPlane, namespace: str) -> None:
    plugin = Plugin(new_driver())
    plugin.capabilities.add(Capability.GET_SNAPSHOT)
    plugin.by_hand["member"] = Stored("member-1", "v", 2)
    marks = {"groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle": "group-1"}
    async with half_stand.running(control_plane, plugin) as stand:
        await stand.content(namespace, annotations=marks)
        await stand.settle()
        assert plugin.script.done == []
        told = {"snapshotHandle": "member-1", "readyToUse": False, "volumeGroupSnapshotHandle": "group-1"}
        await stand.change(namespace, {"status": told}, status=True)
        made = await stand.until_ready(namespace)
        assert made["status"]["volumeGroupSnapshotHandle"] == "group-1"
        await stand.let_go(namespace)
        await stand.until_gone(namespace)
        assert set(plugin.script.done) == {"inspect"}


async def test_a_snapshot_that_two_contents_hold_goes_with_the_last(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(namespace)
        await stand.until_ready(namespace)
        await stand.content(f"{namespace}-too", static="snap-1")
        await stand.until_ready(f"{namespace}-too")
        await stand.let_go(namespace)
        (event,) = await stand.until_event(namespace)
        await stand.settle()
        assert stand.plugin.calls("delete") == 0
        assert f"held by VolumeSnapshotContent {namespace}-too" in event["message"]
        await stand.let_go(f"{namespace}-too")
        await stand.until_gone(f"{namespace}-too")
        await stand.until_gone(namespace)
        assert stand.plugin.handles() == set()


async def test_each_nodes_half_sees_its_own_contents_only(control_plane: ControlPlane, namespace: str) -> None:
    driver = new_driver()
    label = "snapshot.storage.kubernetes.io/managed-by"
    first, second = Plugin(driver), Plugin(driver)
    async with (
        half_stand.running(control_plane, first, node="node-1") as one,
        half_stand.running(control_plane, second, node="node-2") as two,
    ):
        await one.content(f"{namespace}-1", labels={label: "node-1"})
        await one.content(f"{namespace}-2", labels={label: "node-2"})
        await one.content(f"{namespace}-3")
        await one.until_ready(f"{namespace}-1")
        await two.until_ready(f"{namespace}-2")
        await asyncio.sleep(0.2)
        assert len(one.half.world.contents) == len(two.half.world.contents) == 1
        assert (first.calls("create"), second.calls("create")) == (1, 1)


async def test_while_another_sidecars_lease_is_live_nothing_is_done_and_the_reason_is_said(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = Plugin(new_driver())
    lease = "external-snapshotter-leader-" + plugin.driver.replace(".", "-")
    kind = {"apiVersion": names.LEASES.api_version, "kind": names.LEASES.kind}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "upstream", "leaseDurationSeconds": 3600, "renewTime": now}
    setup = Client(await open_connection(Settings(kubeconfig=str(control_plane.kubeconfig))))
    await setup.create(names.LEASES, namespace, {**kind, "metadata": {"name": lease}, "spec": spec})
    cluster = {**spec, "holderIdentity": "snapshot-controller"}
    metadata = {"name": "snapshot-controller-leader"}
    await setup.create(names.LEASES, namespace, {**kind, "metadata": metadata, "spec": cluster})
    await setup.close()
    async with half_stand.running(control_plane, plugin, lease_check_seconds=0.2, ready=False) as stand:
        await stand.content(namespace)
        await stand.until(lambda: f"holds the lease {lease} (upstream)" in stand.half.ready())
        await asyncio.sleep(0.3)
        assert plugin.script.done == []
        # From now on it is over a second after it was first seen, and five more for clocks that differ.
        await stand.other.merge_patch(names.LEASES, namespace, lease, {"spec": {"leaseDurationSeconds": 1}})
        await stand.until_ready(namespace)
        await stand.until(lambda: stand.half.ready() == "")
        await stand.other.delete(names.LEASES, namespace, metadata["name"])


READ = ["get", "list", "watch"]
RIGHTS = {
    "ClusterRole": [
        ("", ["events"], ["list", "watch", "create", "update", "patch"]),
        (names.GROUP, ["volumesnapshotclasses"], READ),
        (names.GROUP, ["volumesnapshotcontents"], [*READ, "create", "update", "patch"]),
        (names.GROUP, ["volumesnapshotcontents/status"], ["update", "patch"]),
    ],
    "Role": [("coordination.k8s.io", ["leases"], [*READ, "create", "update", "delete"])],
}
"""What upstream's manifest of the sidecar grants, its groups apart; it may see the leases of its own namespace."""


def upstreams_rights(namespace: str) -> str:
    """The account "upstream" with exactly these, as a list of manifests."""
    account = {"name": "upstream", "namespace": namespace}
    version = "rbac.authorization.k8s.io/v1"
    items: list[Any] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}]
    for kind, rights in RIGHTS.items():
        metadata = {"name": f"{namespace}-driver-half"} | ({"namespace": namespace} if kind == "Role" else {})
        rules = [{"apiGroups": [group], "resources": kinds, "verbs": verbs} for group, kinds, verbs in rights]
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]}
        items.append({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules})
        subjects = [{"kind": "ServiceAccount", **account}]
        binding = {"apiVersion": version, "kind": f"{kind}Binding", "metadata": metadata}
        items.append({**binding, "subjects": subjects, "roleRef": reference})
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


async def test_upstreams_rights_suffice(control_plane: ControlPlane, namespace: str) -> None:
    text = upstreams_rights(namespace)
    way = await asyncio.to_thread(control_plane.service_account, "upstream", namespace=namespace, manifests=text)
    client = half_stand.Watched(await open_connection(Settings(kubeconfig=str(way.kubeconfig))))
    plugin = Plugin(new_driver(), faults={0: "refused"}, not_ready=1)
    async with half_stand.running(control_plane, plugin, client=client, lease_namespace=namespace) as stand:
        await stand.klass(namespace)
        await stand.content(namespace, klass=namespace)
        await stand.until_ready(namespace)
        assert [event["reason"] for event in await stand.events(namespace)] == ["SnapshotCreationFailed"]
        assert stand.half.ownership is not None
        assert stand.half.ownership._blind == ""
        await stand.let_go(namespace)
        await stand.until_gone(namespace)
        assert plugin.handles() == set()


async def test_other_drivers_contents_are_nobodys_business(control_plane: ControlPlane, namespace: str) -> None:
    async with half_stand.running(control_plane) as stand:
        await stand.content(f"{namespace}-other", driver="another.test")
        await stand.content(namespace)
        await stand.until_ready(namespace)
        assert len(stand.half.world.contents) == 1
        assert stand.plugin.calls("create") == 1
