"""Drivers that are slow, busy, wrong or need secrets, on every stack."""

from __future__ import annotations

import threading

import grpc
import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import stage as stages
from tests.support.faultproxy import faults
from tests.support.stage import Stage, error_text, notes, status

Code = grpc.StatusCode


def secrets_of(stage: Stage, method: str, handle: str) -> list[dict[str, str]]:
    """The secrets that came with the calls for one snapshot."""
    return [dict(call.request.secrets) for call in stage.calls_for(method, handle)]  # type: ignore[union-attr]


@pytest.mark.slow
class Driven:
    """Each method is a scenario on one stack."""

    def test_a_snapshot_that_is_not_ready_at_once_is_asked_about_until_it_is(self, stage: Stage) -> None:
        """Cases 13 and 40: cut, told as not ready with its time and handle, then ready; one snapshot all along."""
        claim, uploaded = stage.claim(), threading.Event()
        for method in ("CreateSnapshot", "ListSnapshots", "GetSnapshot"):
            stage.strike(method, faults.not_ready(), claim.handle, until=uploaded, times=None)
        name = stage.snapshot(claim)
        stage.until("its time is told", lambda: status(stage.of("snapshots", name)).get("creationTime"))
        uploaded.set()
        found = stage.until_ready(name)
        (handle,) = stage.backend(claim.handle)
        content = stage.content_of(name)["metadata"]["name"]
        waiting = [one for one in stage.past("contents", content) if status(one).get("snapshotHandle")]
        assert status(waiting[0])["snapshotHandle"] == handle
        assert status(waiting[0])["readyToUse"] is False
        assert error_text(found) == ""
        before = [one for one in stage.past("snapshots", name) if status(one).get("readyToUse") is False]
        assert before
        assert not any(error_text(one) for one in before)
        stage.remove(name)

    @pytest.mark.parametrize(
        "code", [Code.INTERNAL, Code.UNAVAILABLE, Code.ABORTED], ids=lambda code: code.name.lower()
    )
    def test_an_error_of_the_driver_is_told_and_goes_with_the_success(
        self, stage: Stage, code: grpc.StatusCode
    ) -> None:
        """Cases 23 and 37: status.error on both objects, a warning, the call repeated as it was.

        Then all is clear.
        """
        claim, mended = stage.claim(), threading.Event()
        fire = faults.lose_reply(code, "the backend is on fire")
        stage.strike("CreateSnapshot", fire, claim.handle, until=mended, times=None)
        name = stage.snapshot(claim)
        uid = stage.until("it is there", lambda: stage.of("snapshots", name))["metadata"]["uid"]
        content = f"snapcontent-{uid}"
        told = stage.until_event("SnapshotCreationFailed", name, content)
        assert told["type"] == "Warning"
        assert "the backend is on fire" in told["message"]
        for kind, called in (("contents", content), ("snapshots", name)):
            assert not status(stage.until_error(called, "the backend is on fire", kind)).get("readyToUse")
        mended.set()
        found = stage.until_ready(name)
        assert error_text(found) == ""
        stage.until("the content's error is gone", lambda: not error_text(stage.of("contents", content)))
        calls = stage.creates(claim.handle)
        assert {call.code for call in calls[:-1]} == {code}
        assert calls[-1].code is Code.OK
        assert len({call.request.SerializeToString(deterministic=True) for call in calls if call.request}) == 1
        assert len(stage.backend(claim.handle)) == 1
        stage.remove(name)

    def test_a_cut_whose_answer_was_lost_is_not_cut_twice(self, stage: Stage) -> None:
        """The repeat has the same name, so the driver gives the same snapshot."""
        claim = stage.claim()
        stage.strike("CreateSnapshot", faults.lose_reply(), claim.handle, after_effect=True)
        name = stage.snapshot(claim)
        stage.until_ready(name)
        assert len(stage.creates(claim.handle)) == 2
        assert len(stage.backend(claim.handle)) == 1
        stage.remove(name)
        assert stage.backend(claim.handle) == []

    def test_a_snapshot_that_is_deleted_after_a_lost_answer_leaves_nothing(self, stage: Stage) -> None:
        """UNAVAILABLE is not final: the mark stays, and the delete waits until the create has been seen through."""
        claim = stage.claim()
        stage.strike("CreateSnapshot", faults.lose_reply(), claim.handle, after_effect=True, times=2)
        name = stage.snapshot(claim)
        uid = stage.until("it is there", lambda: stage.of("snapshots", name))["metadata"]["uid"]
        stage.until_event("SnapshotCreationFailed", name, f"snapcontent-{uid}")
        stage.delete("snapshots", name)
        stage.until_gone("snapshots", name)
        stage.until_gone("contents", f"snapcontent-{uid}")
        assert stage.backend(claim.handle) == []

    def test_an_internal_error_after_the_cut_leaks_nothing_when_the_snapshot_is_deleted(self, stage: Stage) -> None:
        """Upstream takes INTERNAL for final and forgets the create; a delete at that moment leaks the snapshot
        (#134).

        Mended where our code calls the driver: only codes that promise that nothing was made are final. Safe for
        upstream's clients: the mark stays on the content a little longer, as it does for UNAVAILABLE.
        """
        claim = stage.claim()
        stage.strike("CreateSnapshot", faults.lose_reply(Code.INTERNAL, "no idea"), claim.handle, after_effect=True)
        stage.strike("CreateSnapshot", faults.delay(0.3), claim.handle, skip=1)
        name = stage.snapshot(claim)
        uid = stage.until("it is there", lambda: stage.of("snapshots", name))["metadata"]["uid"]
        content = f"snapcontent-{uid}"
        stage.until_error(content, "no idea", "contents")
        stage.delete("snapshots", name)
        stage.until_gone("snapshots", name)
        stage.until_gone("contents", content)
        left = stage.backend(claim.handle)
        if stage.kind.ours_calls:
            assert left == []
        for handle in left:
            stage.forget(handle)

    def test_secrets_named_by_templates_reach_create_list_and_delete(self, stage: Stage) -> None:
        """Cases 2, 38 and 41: the content names the secret for its deletion; the class may be gone by then."""
        claim = stage.claim()
        name = stage.fresh("secret-snapshot")
        stage.secret(f"create-{name}", token="for-create")
        stage.secret("list-secret", token="for-list")
        klass = stage.klass(
            uploadSeconds="0.7",
            __snapshotter_secret_name="create-${volumesnapshot.name}",
            __snapshotter_secret_namespace="${volumesnapshot.namespace}",
            __snapshotter_list_secret_name="list-secret",
            __snapshotter_list_secret_namespace=stage.namespace,
        )
        stage.snapshot(claim, klass, name=name)
        stage.until_ready(name)
        content = stage.content_of(name)
        assert notes(content)[stages.SECRET_NAME] == f"create-{name}"
        assert notes(content)[stages.SECRET_NAMESPACE] == stage.namespace
        (handle,) = stage.backend(claim.handle)
        creates = [dict(call.request.secrets) for call in stage.creates(claim.handle)]  # type: ignore[union-attr]
        assert {"token": "for-create"} in creates
        assert all(given == {"token": "for-create"} for given in creates)
        for method in ("ListSnapshots", "GetSnapshot"):
            assert all(given == {"token": "for-list"} for given in secrets_of(stage, method, handle))
        stage.delete("classes", klass)
        stage.remove(name)
        stage.until_gone("contents", content["metadata"]["name"])
        assert secrets_of(stage, "DeleteSnapshot", handle) == [{"token": "for-create"}]
        assert stage.backend(claim.handle) == []

    def test_a_pre_provisioned_snapshot_is_listed_with_the_classs_list_secret(self, stage: Stage) -> None:
        """Case 39."""
        cut = stage.cut_by_hand()
        stage.secret("static-list-secret", token="for-static")
        klass = stage.klass(
            __snapshotter_list_secret_name="static-list-secret", __snapshotter_list_secret_namespace=stage.namespace
        )
        name = stage.fresh("static")
        content = stage.content(cut.snapshot_id, name, volumeSnapshotClassName=klass)
        stage.snapshot(content, klass, name=name)
        stage.until_ready(name)
        given = secrets_of(stage, "ListSnapshots", cut.snapshot_id) + secrets_of(
            stage, "GetSnapshot", cut.snapshot_id
        )
        assert {"token": "for-static"} in given
        stage.remove(name)
        stage.until_gone("contents", content)

    def test_a_missing_secret_stops_the_create_and_its_creation_is_enough(self, stage: Stage) -> None:
        """Case 37: the driver is not called without the secret that the class names."""
        claim = stage.claim()
        klass = stage.klass(__snapshotter_secret_name="late-secret", __snapshotter_secret_namespace=stage.namespace)
        name = stage.snapshot(claim, klass)
        uid = stage.until("it is there", lambda: stage.of("snapshots", name))["metadata"]["uid"]
        stage.until_event("SnapshotCreationFailed", name, f"snapcontent-{uid}")
        words = (
            "late-secret" if stage.kind.ours_calls else "cannot get credentials"
        )  # upstream names it in its log only
        stage.until_error(name, words)
        assert stage.creates(claim.handle) == []
        stage.secret("late-secret", token="now")
        assert error_text(stage.until_ready(name)) == ""
        stage.remove(name)
        assert stage.backend(claim.handle) == []

    def test_a_missing_secret_stops_the_delete_and_its_creation_is_enough(self, stage: Stage) -> None:
        """Case 44: the driver may need it, so nothing is deleted without it; what is missing is told."""
        claim = stage.claim()
        secret = stage.fresh("rotated")
        stage.secret(secret, token="old")
        klass = stage.klass(__snapshotter_secret_name=secret, __snapshotter_secret_namespace=stage.namespace)
        name = stage.snapshot(claim, klass)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        stage.delete("secrets", secret)
        stage.delete("snapshots", name)
        stage.until_event("SnapshotDeleteError", name, content)
        assert stages.CONTENT_BOUND in stages.finalizers(stage.live("contents", content))
        assert stage.calls_for("DeleteSnapshot", handle) == []
        stage.secret(secret, token="new")
        stage.until_gone("snapshots", name)
        stage.until_gone("contents", content)
        assert secrets_of(stage, "DeleteSnapshot", handle) == [{"token": "new"}]
        assert stage.backend(claim.handle) == []

    def test_a_content_without_a_secret_of_its_own_is_deleted_without_one(self, stage: Stage) -> None:
        """Case 45: the class names one, the content does not (it was imported); the Secret need not exist."""
        cut = stage.cut_by_hand()
        klass = stage.klass(__snapshotter_secret_name="nowhere", __snapshotter_secret_namespace=stage.namespace)
        name = stage.fresh("imported")
        content = stage.content(cut.snapshot_id, name, volumeSnapshotClassName=klass)
        stage.snapshot(content, name=name)
        stage.until_ready(name)
        stage.remove(name)
        stage.until_gone("contents", content)
        assert secrets_of(stage, "DeleteSnapshot", cut.snapshot_id) == [{}]

    def test_a_snapshot_of_another_volume_is_not_taken_for_ours(self, stage: Stage) -> None:
        """A driver that answers with a foreign snapshot. Upstream believes it; ours refuses.

        And deletes nothing of it.
        """
        claim, other = stage.claim(), stage.volume()
        foreign = stage.driver.snapshot(stage.fresh("foreign"), other)

        def become(reply: pb.CreateSnapshotResponse) -> None:
            reply.snapshot.CopyFrom(foreign)

        stage.strike("CreateSnapshot", faults.edit(become, "a foreign snapshot"), claim.handle)
        name = stage.snapshot(claim)
        stage.until_ready(name)
        if stage.kind.ours_calls:
            assert status(stage.content_of(name))["snapshotHandle"] in stage.backend(claim.handle)
        stage.remove(name)
        for handle in stage.backend(claim.handle):
            assert not stage.kind.ours_calls, "leaked"
            stage.forget(handle)
        if stage.kind.ours_calls:
            assert stage.backend(other) == [foreign.snapshot_id]
            stage.forget(foreign.snapshot_id)
