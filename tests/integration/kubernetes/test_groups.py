"""Group snapshots on a real API server: the whole life, the counts, and what upstream does wrong and we do not."""

from __future__ import annotations

import asyncio
import hashlib

from adapters.kubernetes import names
from adapters.kubernetes.groups import names as own
from tests.integration.kubernetes import group_stand as g
from tests.integration.kubernetes import stand as stands
from tests.integration.kubernetes.group_stand import of
from tests.support.bed.controlplane import ControlPlane


async def test_a_group_of_three_is_made_with_its_members_and_deleted_as_a_whole(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Row 9-1: members are created; their names, bindings and marks are upstream's."""
    async with stands.running(control_plane, plugin=g.able()) as stand:
        await g.volumes(stand, namespace, "a", "b", "c", app="db")
        await g.volumes(stand, namespace, "other", app="web")
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver))
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        made = await g.until_ready(stand, namespace, "one")
        uid = made["metadata"]["uid"]
        content = g.content_of(stand, made)
        assert content["metadata"]["name"] == f"groupsnapcontent-{uid}"
        assert of(made, "status", "boundVolumeGroupSnapshotContentName") == f"groupsnapcontent-{uid}"
        handles = [f"vol-{namespace}-{name}" for name in "abc"]
        assert of(content, "spec", "source", "volumeHandles") == handles
        assert of(content, "status", "volumeGroupSnapshotHandle") == "group-1"
        assert not content["metadata"].get("annotations")
        assert list(stand.plugin.groups) == [f"groupsnapshot-{uid}"]
        members = g.members(stand, made)
        assert [of(one, "spec", "source", "persistentVolumeClaimName") for one in members] == ["a", "b", "c"]
        for one, handle in zip(members, handles, strict=True):
            digest = hashlib.sha256(f"{uid}{handle}".encode()).hexdigest()
            assert one["metadata"]["name"] == f"snapshot-{digest}"
            assert g.IN_GROUP in one["metadata"]["finalizers"]
            assert one["metadata"]["ownerReferences"][0]["uid"] == uid
            assert of(one, "status", "volumeGroupSnapshotName") == "one"
            assert of(one, "status", "readyToUse") is True
            assert of(one, "status", "boundVolumeSnapshotContentName") == f"snapcontent-{digest}"
            mine = await g.get(stand, names.CONTENTS, "", f"snapcontent-{digest}")
            assert of(mine, "spec", "volumeSnapshotRef", "uid") == one["metadata"]["uid"]
            assert of(mine, "spec", "source", "volumeHandle") == handle
            assert of(mine, "status", "volumeGroupSnapshotHandle") == "group-1"
            assert of(mine, "status", "snapshotHandle") in stand.plugin.member_handles()
        for name in "abc":
            held = of(await g.get(stand, names.CLAIMS, namespace, name), "metadata", "finalizers") or []
            assert g.CLAIM not in held
        await g.until_told(stand, namespace, "one", ["GroupSnapshotReady"])
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.until_known(lambda: not g.members(stand, made))
        await stand.settle()
        assert stand.plugin.groups == {}
        assert not stand.plugin.broken
        for one in members:
            bound = of(one, "status", "boundVolumeSnapshotContentName")
            await stand.until_known(lambda bound=bound: not stand.cluster.world.contents.get("", bound))  # type: ignore[misc]
        assert await g.get(stand, own.CONTENTS, "", content["metadata"]["name"]) is None


async def test_a_group_of_twenty_costs_two_writes_per_member_and_pass_and_none_when_nothing_changed(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = g.able(not_ready=1)
    async with stands.running(control_plane, plugin=plugin, client_type=g.CountingClient) as stand:
        client = stand.cluster.client
        assert isinstance(client, g.CountingClient)
        await g.volumes(stand, namespace, *(f"v{number}" for number in range(20)), app="db")
        await g.create(stand, g.klass(f"{namespace}-g", plugin.driver))
        await stand.settle()
        client.writes.clear()
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        made = await g.until_ready(stand, namespace, "one")
        spent = dict(client.writes)
        print("group of 20, not ready at first", spent)
        # One pass makes both objects, one fills both statuses, one refreshes both when the member turns ready.
        assert spent["create", "volumesnapshots"] == spent["create", "volumesnapshotcontents"] == 20
        assert spent["status", "volumesnapshots"] == spent["status", "volumesnapshotcontents"] == 40
        assert ("put", "volumesnapshots") not in spent
        assert ("put", "volumesnapshotcontents") not in spent
        assert spent["patch", "persistentvolumeclaims"] == 40
        assert spent["create", "volumegroupsnapshotcontents"] == 1
        assert spent["put", "volumegroupsnapshotcontents"] == 2  # the mark goes, then the note
        assert spent["put", "volumegroupsnapshots"] == 1
        assert spent["status", "volumegroupsnapshots"] == 2
        assert spent["create", "events"] == 1
        client.writes.clear()
        for _ in range(3):
            stand.runner.wake(stand.cluster._key("group:" + made["metadata"]["uid"]))
            await stand.settle()
        assert not client.writes
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.until_known(lambda: not g.members(stand, made))
        await stand.settle()
        spent = dict(client.writes)
        print("its deletion", spent)
        assert sum(spent.values()) <= 4 * 20 + 4
        assert not plugin.groups


async def test_match_expressions_choose_and_a_selector_of_them_alone_does_not_take_every_claim(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Defect 6: upstream honours matchLabels only, so that such a selector takes the whole namespace."""
    async with stands.running(control_plane, plugin=g.able()) as stand:
        await g.volumes(stand, namespace, "a", tier="db", app="shop")
        await g.volumes(stand, namespace, "b", tier="queue", app="shop")
        await g.volumes(stand, namespace, "c", tier="web", app="shop")
        await g.volumes(stand, namespace, "d")
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver))
        chosen = [{"key": "tier", "operator": "In", "values": ["db", "queue"]}]
        await g.create(stand, g.group(namespace, "in", f"{namespace}-g", matchExpressions=chosen))
        made = await g.until_ready(stand, namespace, "in")
        claims = [of(one, "spec", "source", "persistentVolumeClaimName") for one in g.members(stand, made)]
        assert claims == ["a", "b"]
        others = [{"key": "tier", "operator": "NotIn", "values": ["db"]}, {"key": "tier", "operator": "Exists"}]
        both = g.group(namespace, "both", f"{namespace}-g", matchLabels={"app": "shop"}, matchExpressions=others)
        await g.create(stand, both)
        made = await g.until_ready(stand, namespace, "both")
        claims = [of(one, "spec", "source", "persistentVolumeClaimName") for one in g.members(stand, made)]
        assert claims == ["b", "c"]


async def test_a_claim_that_was_labelled_before_the_group_was_made_belongs_to_it_though_its_watch_is_behind(
    control_plane: ControlPlane, namespace: str
) -> None:
    """The watches of claims and of groups are two; and a group of fewer volumes than its owner chose loses data."""
    async with stands.running(control_plane, plugin=g.able(), client_type=g.DeafClient) as stand:
        client = stand.cluster.client
        assert isinstance(client, g.DeafClient)
        await g.volumes(stand, namespace, "a", app="db")
        await g.volumes(stand, namespace, "b")
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver))
        client.stop_hearing(names.CLAIMS)
        await client.merge_patch(names.CLAIMS, namespace, "b", {"metadata": {"labels": {"app": "db"}}})
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        made = await g.until_ready(stand, namespace, "one")
        claims = [of(one, "spec", "source", "persistentVolumeClaimName") for one in g.members(stand, made)]
        assert claims == ["a", "b"]


async def test_a_member_is_not_deleted_while_its_group_is_there(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane, plugin=g.able()) as stand:
        await g.volumes(stand, namespace, "a", "b", app="db")
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver))
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        made = await g.until_ready(stand, namespace, "one")
        first = g.members(stand, made)[0]["metadata"]["name"]
        await g.delete(stand, names.SNAPSHOTS, namespace, first, wait=False)
        await stand.until_known(
            lambda: of(stand.snapshot(namespace, first), "metadata", "deletionTimestamp") is not None
        )
        await stand.settle()
        assert stand.snapshot(namespace, first) is not None
        await g.until_told(stand, namespace, first, ["SnapshotDeletePending"])
        assert len(stand.plugin.member_handles()) == 2
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.until_known(lambda: not g.members(stand, made))
        assert not stand.plugin.groups
        assert not stand.plugin.broken


async def test_retain_keeps_group_contents_and_data_and_a_policy_that_is_flipped_later_deletes_as_a_group(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane, plugin=g.able()) as stand:
        await g.volumes(stand, namespace, "a", "b", app="db")
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver, "Retain"))
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        made = await g.until_ready(stand, namespace, "one")
        kept = g.content_of(stand, made)["metadata"]["name"]
        members = [of(one, "status", "boundVolumeSnapshotContentName") for one in g.members(stand, made)]
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.until_known(lambda: not g.members(stand, made))
        await stand.settle()
        assert len(stand.plugin.groups) == 1
        for name in members:
            assert "deletionTimestamp" not in (await g.get(stand, names.CONTENTS, "", name) or {})["metadata"]
        for name in members:
            # Only the object of a member goes, whatever its policy says: its data is the group's.
            await g.keep(stand, names.CONTENTS, name, "Delete")
            await g.delete(stand, names.CONTENTS, "", name)
        assert len(stand.plugin.groups) == 1
        await g.keep(stand, own.CONTENTS, kept, "Delete")
        await g.delete(stand, own.CONTENTS, "", kept)
        assert stand.plugin.groups == {}
        assert not stand.plugin.broken


async def test_a_policy_that_was_changed_to_retain_counts_at_the_delete(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane, plugin=g.able()) as stand:
        await g.volumes(stand, namespace, "a", app="db")
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver))
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        made = await g.until_ready(stand, namespace, "one")
        kept = g.content_of(stand, made)["metadata"]["name"]
        await g.keep(stand, own.CONTENTS, kept, "Retain")
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.settle()
        assert len(stand.plugin.groups) == 1
        assert "deletionTimestamp" not in (await g.get(stand, own.CONTENTS, "", kept) or {})["metadata"]


async def test_a_group_that_is_deleted_before_it_was_bound_leaks_nothing(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Defect 7: upstream finds the content by the status alone, which is not written yet."""
    plugin = g.able(at_0="lost after")
    async with stands.running(control_plane, plugin=plugin) as stand:
        await g.volumes(stand, namespace, "a", "b", app="db")
        await g.create(stand, g.klass(f"{namespace}-g", plugin.driver))
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        assert "Failed to create group snapshot" in await g.until_error(stand, namespace, "one")
        assert len(plugin.groups) == 1
        held = await g.get(stand, names.CLAIMS, namespace, "a")
        assert g.CLAIM in of(held, "metadata", "finalizers")
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.settle()
        assert plugin.groups == {}
        assert not plugin.broken
        held = await g.get(stand, names.CLAIMS, namespace, "a")
        assert g.CLAIM not in (of(held, "metadata", "finalizers") or [])


async def test_all_tokens_work_in_the_secrets_of_groups_and_their_members(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Defect 8: upstream resolves the members' secret without the group, and then never makes a member."""
    async with stands.running(control_plane, plugin=g.able()) as stand:
        await g.volumes(stand, namespace, "a", app="db")
        secret = {"metadata": {"name": "one-key", "namespace": namespace}, "stringData": {"token": "t"}}
        await g.create(stand, {"apiVersion": "v1", "kind": "Secret", **secret})
        prefix = "csi.storage.k8s.io/group-snapshotter-secret"
        templates = {
            f"{prefix}-name": "${volumegroupsnapshot.name}-key",
            f"{prefix}-namespace": "${volumegroupsnapshot.namespace}",
            "colour": "blue",
        }
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver, parameters=templates))
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        made = await g.until_ready(stand, namespace, "one")
        notes = g.content_of(stand, made)["metadata"]["annotations"]
        assert notes["groupsnapshot.storage.kubernetes.io/deletion-secret-name"] == "one-key"
        assert notes["groupsnapshot.storage.kubernetes.io/deletion-secret-namespace"] == namespace
        bound = of(g.members(stand, made)[0], "status", "boundVolumeSnapshotContentName")
        notes = (stand.cluster.world.contents.get("", bound) or {})["metadata"]["annotations"]
        assert notes["snapshot.storage.kubernetes.io/deletion-secret-name"] == "one-key"
        assert notes["groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"] == "group-1"
        (stored,) = stand.plugin.groups.values()
        assert stored.parameters == {"colour": "blue"}
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.settle()
        assert stand.plugin.groups == {}
        assert stand.plugin.secrets_seen == [{"token": "t"}, {"token": "t"}]


async def test_a_pre_provisioned_group_is_bound_owns_the_members_made_by_hand_and_is_deleted_as_a_whole(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Rows 1-x static: bound by reference; the group's handles are its content's."""
    async with stands.running(control_plane, plugin=g.able()) as stand:
        plugin, driver = stand.plugin, stand.plugin.driver
        await plugin.create_group(name="by hand", volume_handles=["x", "y"], parameters={}, secrets={})
        (stored,) = plugin.groups.values()
        handles = [member.handle for member in stored.members]
        for number, handle in enumerate(handles):
            name = f"{namespace}-m{number}"
            body = {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshotContent",
                "metadata": {"name": name},
                "spec": {
                    "driver": driver,
                    "deletionPolicy": "Delete",
                    "source": {"snapshotHandle": handle},
                    "volumeSnapshotRef": {"namespace": namespace, "name": f"m{number}"},
                },
            }
            await g.create(stand, body, stands.snapshot_object(namespace, f"m{number}", content=name))
        await stand.until_ready(namespace, "m0")
        await stand.until_ready(namespace, "m1")
        content = g.static_content(
            f"{namespace}-gc", driver, (namespace, "one"), handle=stored.handle, members=handles
        )
        await g.create(stand, content, g.group(namespace, "one", content=f"{namespace}-gc"))
        made = await g.until_ready(stand, namespace, "one")
        bound = g.content_of(stand, made)
        assert of(bound, "spec", "volumeGroupSnapshotRef", "uid") == made["metadata"]["uid"]
        assert of(bound, "status", "volumeGroupSnapshotHandle") == stored.handle
        assert not of(bound, "status", "volumeSnapshotInfoList")
        await stand.until_known(
            lambda: of(stand.snapshot(namespace, "m1"), "status", "volumeGroupSnapshotName") == "one"
        )
        assert len(g.members(stand, made)) == 2
        await g.delete(stand, own.GROUPS, namespace, "one")
        await stand.until_known(lambda: stand.snapshot(namespace, "m0") is None)
        await stand.settle()
        assert plugin.groups == {}
        assert not plugin.broken


async def test_a_process_that_dies_at_any_call_resumes_without_a_second_group(
    control_plane: ControlPlane, namespace: str
) -> None:
    plugin = g.able(at_0="lost after")
    async with stands.running(control_plane, plugin=plugin) as stand:
        await g.volumes(stand, namespace, "a", "b", app="db")
        await g.create(stand, g.klass(f"{namespace}-g", plugin.driver))
        await g.create(stand, g.group(namespace, "one", f"{namespace}-g", matchLabels={"app": "db"}))
        await stand.until_known(lambda: plugin.groups)
    async with stands.running(control_plane, plugin=plugin) as stand:
        made = await g.until_ready(stand, namespace, "one")
        assert len(plugin.groups) == 1
        assert len(g.members(stand, made)) == 2
        await g.delete(stand, own.GROUPS, namespace, "one", wait=False)
        await asyncio.sleep(0.05)
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.until_known(lambda: g.known(stand, namespace, "one") is None)
        await stand.until_known(lambda: not g.members(stand, made))
        assert plugin.groups == {}
        assert not plugin.broken
