"""Deleting snapshots on every stack: by policy, in the middle of things, and when the driver will not."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from tests.support import stage as stages
from tests.support.faultproxy import faults
from tests.support.stage import Stage, finalizers, notes, status


def _took_back(found: dict[str, Any]) -> bool:
    """Whether this version of a snapshot that was ready says that it is not."""
    return bool(status(found).get("creationTime")) and status(found).get("readyToUse") is False


@pytest.mark.slow
class Deleting:
    """Each method is a scenario on one stack."""

    def test_delete_takes_the_content_and_the_snapshot_on_the_backend(self, stage: Stage) -> None:
        """Cases 28 and 41: marked, deleted, the driver called once, then both finalizers go, the content's first.

        Upstream's controller puts the bound finalizer on in a later pass; deleted before that, the VolumeSnapshot is
        gone while its content is still there. Ours writes it with the first.
        """
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        stage.delete("snapshots", name)
        stage.until_gone("snapshots", name)
        stage.until_gone("contents", content)
        assert stage.backend(claim.handle) == []
        assert [call.code for call in stage.calls_for("DeleteSnapshot", handle)] == [grpc.StatusCode.OK]
        gone = [
            int(stage.past(*one)[-1]["metadata"]["resourceVersion"])
            for one in (("contents", content), ("snapshots", name))
        ]
        assert gone[0] < gone[1] or not stage.kind.ours_decides, "the content goes first"

    def test_retain_keeps_the_content_and_the_snapshot_on_the_backend(self, stage: Stage) -> None:
        """Cases 30 and 42. The content is marked, so that its owner may delete it later.

        The driver never hears of it.
        """
        claim = stage.claim()
        name = stage.snapshot(claim, stage.klass(policy="Retain"))
        found = stage.until_ready(name)
        assert stages.BOUND not in finalizers(found)
        assert stages.AS_SOURCE in finalizers(found)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        stage.remove(name)
        marked = lambda: stages.BEING_DELETED in notes(stage.of("contents", content) or {"metadata": {}})  # noqa: E731
        stage.until("its content is marked", marked)
        left = stage.of("contents", content)
        assert left is not None
        assert status(left)["snapshotHandle"] == handle
        stage.delete("contents", content)
        stage.until_gone("contents", content)
        assert stage.backend(claim.handle) == [handle]
        assert stage.calls_for("DeleteSnapshot", handle) == []
        stage.forget(handle)

    def test_a_policy_that_is_set_to_retain_before_the_delete_counts(self, stage: Stage) -> None:
        """Velero's way: the content's policy is flipped, then the VolumeSnapshot is deleted."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        stage.patch("contents", content, {"spec": {"deletionPolicy": "Retain"}})
        stage.let_it_be_heard()
        stage.remove(name)
        assert stage.of("contents", content) is not None
        assert stage.backend(claim.handle) == [handle]
        stage.delete("contents", content)
        stage.until_gone("contents", content)
        assert stage.backend(claim.handle) == [handle]
        stage.forget(handle)

    def test_a_policy_that_is_set_to_delete_before_the_delete_counts(self, stage: Stage) -> None:
        """The other way round: data that was kept is given up on purpose."""
        claim = stage.claim()
        name = stage.snapshot(claim, stage.klass(policy="Retain"))
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        stage.patch("contents", content, {"spec": {"deletionPolicy": "Delete"}})
        stage.let_it_be_heard()
        stage.remove(name)
        stage.until_gone("contents", content)
        assert stage.backend(claim.handle) == []

    def test_a_class_that_is_deleted_after_ready_hurts_neither_readiness_nor_the_delete(self, stage: Stage) -> None:
        """Case 25 and upstream's #432: the content carries all that is needed."""
        claim = stage.claim()
        klass = stage.klass()
        name = stage.snapshot(claim, klass)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        stage.delete("classes", klass)
        stage.patch("snapshots", name, {"metadata": {"labels": {"look": "again"}}})
        other = stage.snapshot(claim)
        stage.until_ready(other)
        assert status(stage.of("snapshots", name))["readyToUse"] is True
        stage.remove(name)
        stage.until_gone("contents", content)
        assert len(stage.backend(claim.handle)) == 1
        stage.remove(other)

    def test_a_restore_that_waits_blocks_the_delete_until_it_ends(self, stage: Stage) -> None:
        """Case 27: SnapshotDeletePending is told, nothing is deleted.

        And the delete goes on when the claim is gone.
        """
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        restore = stage.fresh("restore")
        source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name}
        stage.pending_claim(
            restore,
            {"accessModes": ["ReadWriteOnce"], "storageClassName": "nobody-provisions-this", "dataSource": source},
        )
        stage.until("the restore waits", lambda: status(stage.of("claims", restore)).get("phase") == "Pending")
        stage.let_it_be_heard()
        stage.delete("snapshots", name)
        stage.until_event("SnapshotDeletePending", name)
        left = stage.of("contents", content)
        assert left is not None
        assert "deletionTimestamp" not in left["metadata"]
        assert len(stage.backend(claim.handle)) == 1
        stage.delete("claims", restore)
        stage.until_gone("snapshots", name)
        stage.until_gone("contents", content)
        assert stage.backend(claim.handle) == []

    def test_a_snapshot_that_is_deleted_while_it_is_cut_leaves_nothing(self, stage: Stage) -> None:
        """Case 22 and upstream's #1388: the create is seen through, then deleted."""
        claim, asked = stage.claim(), threading.Event()
        stage.strike("CreateSnapshot", faults.hold(asked), claim.handle)
        name = stage.snapshot(claim)
        stage.until("the cut has begun", lambda: stage.creates(claim.handle) or None)
        stage.delete("snapshots", name)
        asked.set()
        stage.until_gone("snapshots", name)
        uid = stage.past("snapshots", name)[0]["metadata"]["uid"]
        stage.until_gone("contents", f"snapcontent-{uid}")
        assert stage.backend(claim.handle) == []
        # Claims are watched by a stream of their own, which may be late.
        stage.until("the claim is let go", lambda: stages.CLAIM not in finalizers(stage.of("claims", claim.name)))

    def test_a_content_that_is_deleted_first_goes_with_its_snapshot(self, stage: Stage) -> None:
        """Case 26, row 1-2: the content's deletion waits for that of its VolumeSnapshot."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        stage.delete("contents", content)
        stage.until("asked", lambda: stage.is_going("contents", content))
        other = stage.snapshot(claim)
        stage.until_ready(other)  # whatever the deletion has caused comes before this
        assert len(stage.backend(claim.handle)) == 2
        assert stage.of("contents", content) is not None
        stage.remove(name)
        stage.until_gone("contents", content)
        assert len(stage.backend(claim.handle)) == 1
        stage.remove(other)

    def test_a_driver_that_will_not_delete_is_told_of_and_asked_again(self, stage: Stage) -> None:
        """Case 43: SnapshotDeleteError, and the finalizers stay until it has worked."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        refusal = faults.lose_reply(grpc.StatusCode.FAILED_PRECONDITION, "still mounted somewhere")
        stage.strike("DeleteSnapshot", refusal, claim.handle, times=2)
        stage.delete("snapshots", name)
        told = stage.until_event("SnapshotDeleteError", name, content)
        assert told["type"] == "Warning"
        held = stage.of("contents", content)
        if held is not None:  # else the retry was quicker than this test
            assert stages.CONTENT_BOUND in finalizers(held)
        stage.until_gone("snapshots", name)
        stage.until_gone("contents", content)
        assert len(stage.calls_for("DeleteSnapshot", handle)) == 3
        assert stage.backend(claim.handle) == []

    def test_a_content_that_vanished_makes_its_snapshot_unready(self, stage: Stage) -> None:
        """Cases 10 and 31: told as SnapshotContentMissing.

        Upstream's controller then makes the content anew and asks the driver again under the old name; a driver that
        has lost the snapshot, or its memory of the name, would cut other data under the old date. Mended by our
        controller: it stays not ready until the content is restored or the snapshot deleted. Safe: no client reads
        unready ones.
        """
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        stage.strip_content(content)
        stage.until_event("SnapshotContentMissing", name)
        stage.until("told unready", lambda: any(_took_back(one) for one in stage.past("snapshots", name)))
        if stage.kind.ours_decides:
            stage.until_error(name, "VolumeSnapshotContent is missing")
            assert status(stage.of("snapshots", name))["readyToUse"] is False
            assert len(stage.creates(claim.handle)) == 1
        else:
            stage.until_ready(name)
            assert status(stage.content_of(name))["snapshotHandle"] == handle
        stage.remove(name)
        assert stage.backend(claim.handle) == ([handle] if stage.kind.ours_decides else [])
        stage.forget(handle)

    def test_a_ready_snapshot_whose_content_belongs_to_another_is_told_and_deletes_nothing(
        self, stage: Stage
    ) -> None:
        """Cases 19 and 32: the content of another uid is not ours to delete.

        Upstream's check of the finalizers comes before that of the binding, so that its event is
        SnapshotContentMisbound; SnapshotMisbound is what its code for this very case would have told.
        """
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        other = "22222222-aaaa-4bbb-8ccc-0123456789ab"
        stage.patch("contents", content, {"spec": {"volumeSnapshotRef": {"uid": other}}})
        stage.patch("snapshots", name, {"metadata": {"labels": {"look": "again"}}})
        if stage.kind.ours_decides:
            stage.until_event("SnapshotMisbound", name)
            told = stage.until_error(name, "not bound to the VolumeSnapshot correctly")
            assert status(told)["readyToUse"] is False
        else:
            stage.until_event("SnapshotContentMisbound", name)
            stage.until("not ready", lambda: status(stage.of("snapshots", name)).get("readyToUse") is False)
        stage.remove(name)
        left = stage.of("contents", content)
        assert left is not None
        assert "deletionTimestamp" not in left["metadata"]
        assert stage.backend(claim.handle) == [handle]
        stage.strip_content(content)
        stage.forget(handle)
