"""Group snapshots on every stack: members with upstream's names and marks, and one end for all of them."""

from __future__ import annotations

import hashlib

import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import stage as stages
from tests.support.calls import RefusedError
from tests.support.stage import Claim, Object, Stage, finalizers, status

API = "groupsnapshot.storage.k8s.io/v1"
ROOT = f"/apis/{API}"
DOMAIN = "groupsnapshot.storage.kubernetes.io"
IN_GROUP = "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"


class _Group:
    """One group of two claims on a stage, with its class."""

    def __init__(self, stage: Stage, *, policy: str = "Delete", **class_metadata: Object) -> None:
        self.stage = stage
        self.name = stage.fresh("group")
        self.claims = [stage.claim(), stage.claim()]
        for claim in self.claims:
            stage.patch("claims", claim.name, {"metadata": {"labels": {"in": self.name}}})
        klass = f"{stage.namespace}-{self.name}"
        body = {"driver": stage.driver_name, "deletionPolicy": policy}
        made = {"metadata": {"name": klass, **class_metadata}, **body}
        stage.calls.create(f"{ROOT}/volumegroupsnapshotclasses", _typed("VolumeGroupSnapshotClass", made))
        spec: Object = {
            "volumeGroupSnapshotClassName": klass,
            "source": {"selector": {"matchLabels": {"in": self.name}}},
        }
        body = _typed("VolumeGroupSnapshot", {"metadata": {"name": self.name}, "spec": spec})
        stage.calls.create(f"{ROOT}/namespaces/{stage.namespace}/volumegroupsnapshots", body)

    @property
    def path(self) -> str:
        return f"{ROOT}/namespaces/{self.stage.namespace}/volumegroupsnapshots/{self.name}"

    def live(self) -> Object | None:
        return _live(self.stage, self.path)

    def until_ready(self) -> Object:
        found = self.stage.until(f"{self.name} ready", lambda: status(self.live()).get("readyToUse") and self.live())
        assert isinstance(found, dict)
        return found

    def content(self, uid: str) -> Object | None:
        return _live(self.stage, f"{ROOT}/volumegroupsnapshotcontents/groupsnapcontent-{uid}")

    def member_names(self, uid: str, claim: Claim) -> tuple[str, str]:
        digest = hashlib.sha256(f"{uid}{claim.handle}".encode()).hexdigest()
        return f"snapshot-{digest}", f"snapcontent-{digest}"

    def is_unmarked(self, uid: str) -> bool:
        """Whether its content shows no create under way."""
        found = self.content(uid)
        return found is not None and f"{DOMAIN}/volumegroupsnapshot-being-created" not in stages.notes(found)

    def backend(self) -> list[str]:
        """The snapshots of its volumes on the backend."""
        return [handle for claim in self.claims for handle in self.stage.backend(claim.handle)]


@pytest.mark.slow
class Grouping:
    """Each method is a scenario on one stack."""

    def test_a_group_is_made_with_its_members_and_deleted_as_a_whole(self, stage: Stage) -> None:
        """Row 9-1 of the groups' create tests, and rows 2-x of their deletion."""
        group = _Group(stage)
        found = group.until_ready()
        uid = found["metadata"]["uid"]
        content = group.content(uid)
        assert content is not None
        assert status(found)["boundVolumeGroupSnapshotContentName"] == content["metadata"]["name"]
        assert status(found)["creationTime"]
        assert content["spec"]["volumeGroupSnapshotRef"]["uid"] == uid
        assert sorted(content["spec"]["source"]["volumeHandles"]) == sorted(one.handle for one in group.claims)
        assert f"{DOMAIN}/volumegroupsnapshotcontent-bound-protection" in finalizers(content)
        stage.until("no mark is left", lambda: group.is_unmarked(uid))
        handle = status(content)["volumeGroupSnapshotHandle"]
        for claim in group.claims:
            name, bound = group.member_names(uid, claim)
            member = stage.until_ready(name)
            own = stage.live("contents", bound)
            assert member["metadata"]["ownerReferences"][0]["uid"] == uid
            assert IN_GROUP in finalizers(member)
            assert member["spec"]["source"]["persistentVolumeClaimName"] == claim.name
            assert status(member)["boundVolumeSnapshotContentName"] == bound
            assert own["spec"]["volumeSnapshotRef"]["uid"] == member["metadata"]["uid"]
            assert status(own)["volumeGroupSnapshotHandle"] == handle
            assert status(own)["readyToUse"] is True
        cut = group.backend()
        assert len(cut) == 2
        stage.calls.delete(group.path)
        stage.until("the group is gone", lambda: group.live() is None)
        stage.until("its content is gone", lambda: group.content(uid) is None)
        for claim in group.claims:
            name, bound = group.member_names(uid, claim)
            stage.until_gone("snapshots", name)
            stage.until_gone("contents", bound)
        assert group.backend() == []
        assert [one for handle in cut for one in stage.calls_for("DeleteSnapshot", handle)] == []

    def test_a_retained_group_outlives_its_objects(self, stage: Stage) -> None:
        """Row 2-2: contents and data stay; each content can be deleted as an object later."""
        group = _Group(stage, policy="Retain")
        uid = group.until_ready()["metadata"]["uid"]
        members = [group.member_names(uid, claim) for claim in group.claims]
        for name, _bound in members:
            stage.until_ready(name)
        left = group.backend()
        content = group.content(uid)
        assert content is not None
        stage.calls.delete(group.path)
        stage.until("the group is gone", lambda: group.live() is None)
        for name, bound in members:
            stage.until_gone("snapshots", name)
            stage.delete("contents", bound)
            stage.until_gone("contents", bound)
        assert group.content(uid) is not None
        assert group.backend() == left
        stage.calls.delete(f"{ROOT}/volumegroupsnapshotcontents/{content['metadata']['name']}")
        stage.until("its content is gone", lambda: group.content(uid) is None)
        assert group.backend() == left
        asked = pb.DeleteVolumeGroupSnapshotRequest(
            group_snapshot_id=status(content)["volumeGroupSnapshotHandle"],
            snapshot_ids=[one["snapshotHandle"] for one in status(content)["volumeSnapshotInfoList"]],
        )
        stage.driver.groups.DeleteVolumeGroupSnapshot(asked, timeout=30)
        assert group.backend() == []

    def test_a_member_is_kept_while_its_group_is_there(self, stage: Stage) -> None:
        """Its owner is told why."""
        group = _Group(stage)
        uid = group.until_ready()["metadata"]["uid"]
        (name, bound), (other, also) = (group.member_names(uid, claim) for claim in group.claims)
        stage.until_ready(name)
        stage.until_ready(other)
        stage.delete("snapshots", name)
        stage.until_event("SnapshotDeletePending", name)
        assert stage.of("snapshots", name) is not None
        assert len(group.backend()) == 2
        stage.calls.delete(group.path)
        stage.until("the group is gone", lambda: group.live() is None)
        stage.until_gone("snapshots", name)
        stage.until_gone("snapshots", other)
        stage.until_gone("contents", bound)
        stage.until_gone("contents", also)
        assert group.backend() == []


def _live(stage: Stage, path: str) -> Object | None:
    try:
        return stage.calls.get(path)
    except RefusedError as error:
        if error.status != 404:
            raise
        return None


def _typed(kind: str, body: Object) -> Object:
    return {"apiVersion": API, "kind": kind, **body}
