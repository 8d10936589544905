"""Pre-provisioned snapshots on every stack: binding, refusing to bind, and who may delete what."""

from __future__ import annotations

import pytest

from tests.support import stage as stages
from tests.support.stage import Stage, error_text, finalizers, status


def status_bytes(quantity: str) -> int:
    """1Mi in bytes; there is no other size here."""
    return {"1Mi": 1 << 20}[quantity]


@pytest.mark.slow
class Binding:
    """Each method is a scenario on one stack."""

    def test_a_pre_provisioned_snapshot_is_bound_and_ready(self, stage: Stage) -> None:
        """Cases 14, 21 and 39: uid and finalizer are filled in, and the facts come from the driver's own list."""
        cut = stage.cut_by_hand()
        name = stage.fresh("static")
        content = stage.content(cut.snapshot_id, name)
        stage.snapshot(content, name=name)
        found = stage.until_ready(name)
        made = stage.of("contents", content)
        assert made is not None
        assert made["spec"]["volumeSnapshotRef"]["uid"] == found["metadata"]["uid"]
        stage.until("it is held", lambda: stages.CONTENT_BOUND in finalizers(stage.of("contents", content)))
        assert status(made)["snapshotHandle"] == cut.snapshot_id
        assert status(made)["restoreSize"] == status_bytes(status(found)["restoreSize"]) == 1 << 20
        assert status(found)["boundVolumeSnapshotContentName"] == content
        assert stages.AS_SOURCE in finalizers(found)
        stage.until("both are held", lambda: stages.BOUND in finalizers(stage.of("snapshots", name)))
        assert stage.creates(cut.source_volume_id) == []
        stage.remove(name)
        stage.until_gone("contents", content)
        assert stage.backend(cut.source_volume_id) == []

    def test_a_pre_provisioned_content_takes_the_class_that_its_snapshot_names(self, stage: Stage) -> None:
        """Case 15."""
        cut = stage.cut_by_hand()
        name = stage.fresh("static")
        content = stage.content(cut.snapshot_id, name)
        stage.snapshot(content, stage.class_name, name=name)
        stage.until_ready(name)
        stage.until("class", lambda: (stage.of("contents", content) or {})["spec"].get("volumeSnapshotClassName"))
        assert (stage.of("contents", content) or {})["spec"]["volumeSnapshotClassName"] == stage.class_name
        stage.remove(name)
        stage.until_gone("contents", content)

    def test_a_retained_pre_provisioned_snapshot_outlives_both_objects(self, stage: Stage) -> None:
        """Case 42. The owner deletes the snapshot, then the content; the driver is never asked to delete."""
        cut = stage.cut_by_hand()
        name = stage.fresh("static")
        content = stage.content(cut.snapshot_id, name, policy="Retain")
        stage.snapshot(content, name=name)
        found = stage.until_ready(name)
        assert stages.AS_SOURCE in finalizers(found)
        stage.remove(name)
        assert stage.of("contents", content) is not None
        stage.delete("contents", content)
        stage.until_gone("contents", content)
        assert stage.backend(cut.source_volume_id) == [cut.snapshot_id]
        assert stage.calls_for("DeleteSnapshot", cut.snapshot_id) == []
        stage.forget(cut.snapshot_id)

    def test_a_content_that_was_never_bound_can_be_deleted(self, stage: Stage) -> None:
        """Case 26: without a uid in its reference no VolumeSnapshot is behind it."""
        cut = stage.cut_by_hand()
        content = stage.content(cut.snapshot_id, stage.fresh("nobody"), policy="Retain")
        stage.delete("contents", content)
        stage.until_gone("contents", content)
        assert stage.backend(cut.source_volume_id) == [cut.snapshot_id]
        stage.forget(cut.snapshot_id)

    def test_a_content_that_points_to_another_snapshot_is_not_bound(self, stage: Stage) -> None:
        """Case 11. Nor is it touched when the refused VolumeSnapshot is deleted."""
        cut = stage.cut_by_hand()
        content = stage.content(cut.snapshot_id, stage.fresh("somebody-else"), policy="Retain")
        name = stage.snapshot(content)
        stage.until_event("SnapshotContentMisbound", name)
        stage.until_error(name, "bound to a different snapshot")
        assert not status(stage.of("snapshots", name)).get("readyToUse")
        stage.remove(name)
        left = stage.of("contents", content)
        assert left is not None
        assert "deletionTimestamp" not in left["metadata"]
        stage.delete("contents", content)
        stage.until_gone("contents", content)
        stage.forget(cut.snapshot_id)

    def test_a_dynamic_content_cannot_be_named_as_a_pre_provisioned_one(self, stage: Stage) -> None:
        """The other way round of case 18."""
        claim = stage.claim()
        owner = stage.snapshot(claim)
        stage.until_ready(owner)
        content = stage.content_of(owner)["metadata"]["name"]
        name = stage.snapshot(content)
        stage.until_event("SnapshotContentMismatch", name)
        stage.until_error(name, "dynamically provisioned while expecting a pre-provisioned one")
        stage.remove(name)
        assert stage.of("contents", content) is not None
        assert len(stage.backend(claim.handle)) == 1
        stage.remove(owner)
        stage.until_gone("contents", content)

    def test_a_pre_provisioned_content_in_the_place_of_a_dynamic_one_is_refused(self, stage: Stage) -> None:
        """Case 18: SnapshotContentMismatch; neither snapshot is touched."""
        cut = stage.cut_by_hand()
        claim = stage.claim()
        klass = f"{stage.namespace}-{stage.fresh('later')}"
        name = stage.snapshot(claim, klass)
        uid = stage.until("it is there", lambda: stage.of("snapshots", name))["metadata"]["uid"]
        content = stage.content(cut.snapshot_id, name, called=f"snapcontent-{uid}", policy="Retain")
        stage.klass(klass)
        stage.until_event("SnapshotContentMismatch", name)
        stage.until_error(name, "pre-provisioned while expecting a dynamically provisioned one")
        assert stage.creates(claim.handle) == []
        stage.remove(name)
        stage.delete("contents", content)
        stage.until_gone("contents", content)
        assert stage.backend(cut.source_volume_id) == [cut.snapshot_id]
        stage.forget(cut.snapshot_id)

    def test_a_snapshot_waits_for_the_content_that_it_names(self, stage: Stage) -> None:
        """SnapshotContentMissing is told, and it ends when the content is made."""
        cut = stage.cut_by_hand()
        name = stage.fresh("early")
        content = f"{stage.namespace}-{stage.fresh('late')}"
        stage.snapshot(content, name=name)
        stage.until_event("SnapshotContentMissing", name)
        stage.until_error(name, "VolumeSnapshotContent is missing")
        stage.content(cut.snapshot_id, name, called=content)
        found = stage.until_ready(name)
        assert error_text(found) == ""
        stage.remove(name)
        stage.until_gone("contents", content)
        assert stage.backend(cut.source_volume_id) == []

    def test_a_handle_that_the_driver_does_not_know_is_told(self, stage: Stage) -> None:
        """A content that was copied from another cluster, or mistyped."""
        name = stage.fresh("lost")
        content = stage.content("snap-nobody-knows", name, policy="Retain")
        stage.snapshot(content, name=name)
        stage.until_error(content, "snap-nobody-knows", "contents")
        stage.until_error(name, "snap-nobody-knows")
        assert not status(stage.of("snapshots", name)).get("readyToUse")
        stage.remove(name)
        stage.delete("contents", content)
        stage.until_gone("contents", content)

    def test_a_copied_content_whose_snapshot_is_not_there_is_left_alone(self, stage: Stage) -> None:
        """Restoring YAML into another cluster must not delete data: no VolumeSnapshot, no deletion."""
        cut = stage.cut_by_hand()
        reference = {
            "namespace": stage.namespace,
            "name": stage.fresh("elsewhere"),
            "uid": "11111111-aaaa-4bbb-8ccc-0123456789ab",
        }
        content = stage.content(cut.snapshot_id, reference["name"], volumeSnapshotRef=reference)
        other = stage.snapshot(stage.claim())
        stage.until_ready(other)  # whatever the copy has caused comes before this
        found = stage.of("contents", content)
        assert found is not None
        assert "deletionTimestamp" not in found["metadata"]
        assert stage.backend(cut.source_volume_id) == [cut.snapshot_id]
        stage.remove(other)
        stage.strip_content(content)
        stage.forget(cut.snapshot_id)
