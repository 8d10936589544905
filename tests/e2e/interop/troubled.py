"""What cannot be carried out, on every stack: the owner is told in status and event, and mending it is enough."""

from __future__ import annotations

import pytest

from tests.support import stage as stages
from tests.support.stage import Claim, Stage, error_text, finalizers, status


def content_of_uid(stage: Stage, name: str) -> object:
    """The content that a dynamic snapshot of this name would have."""
    found = stage.of("snapshots", name)
    assert found is not None
    return stage.of("contents", f"snapcontent-{found['metadata']['uid']}")


@pytest.mark.slow
class Troubled:
    """Each method is a scenario on one stack."""

    def test_a_missing_class_is_told_and_its_creation_is_enough(self, stage: Stage) -> None:
        """Cases 3 and 24: the error goes with the success."""
        claim = stage.claim()
        klass = f"{stage.namespace}-{stage.fresh('later')}"
        name = stage.snapshot(claim, klass)
        stage.until_event("GetSnapshotClassFailed", name)
        stage.until_error(name, f'"{klass}" not found')
        assert content_of_uid(stage, name) is None
        assert stage.creates(claim.handle) == []
        stage.klass(klass)
        found = stage.until_ready(name)
        assert error_text(found) == ""
        stage.remove(name)
        assert stage.backend(claim.handle) == []

    def test_a_snapshot_of_a_missing_class_can_be_deleted(self, stage: Stage) -> None:
        claim = stage.claim()
        name = stage.snapshot(claim, f"{stage.namespace}-{stage.fresh('never')}")
        stage.until_event("GetSnapshotClassFailed", name)
        stage.remove(name)
        stage.until("the claim is free", lambda: stages.CLAIM not in finalizers(stage.of("claims", claim.name)))

    def test_a_missing_claim_is_told(self, stage: Stage) -> None:
        """Case 5, row 7-4."""
        name = stage.snapshot(Claim("nowhere", ""))
        stage.until_event("SnapshotContentCreationFailed", name)
        stage.until_error(name, "nowhere" if stage.kind.ours_decides else "cannot get claim from snapshot")
        assert content_of_uid(stage, name) is None
        stage.remove(name)

    def test_a_claim_that_is_not_bound_is_told_and_left_deletable(self, stage: Stage) -> None:
        """Case 5, row 7-6, and upstream's #1305: what can never be cut must not hold its claim for ever."""
        claim = stage.claim(bound=False)
        name = stage.snapshot(claim)
        stage.until_event("SnapshotContentCreationFailed", name)
        stage.until_error(name, "not yet bound to a PV")
        assert content_of_uid(stage, name) is None
        stage.remove(name)
        stage.delete("claims", claim.name)
        stage.until_gone("claims", claim.name)

    def test_a_missing_volume_is_told(self, stage: Stage) -> None:
        """Case 5, row 7-5."""
        claim = stage.claim()
        stage.lose_volume(claim)
        stage.let_it_be_heard()
        name = stage.snapshot(claim)
        stage.until_event("SnapshotContentCreationFailed", name)
        stage.until_error(name, claim.name)  # the volume's name, or that the claim is bound to nothing any more
        assert content_of_uid(stage, name) is None
        stage.remove(name)

    def test_a_volume_that_no_csi_driver_made_is_told(self, stage: Stage) -> None:
        claim = stage.claim(hostPath={"path": "/nowhere"})
        name = stage.snapshot(claim)
        stage.until_event("SnapshotContentCreationFailed", name)
        stage.until_error(name, "CSI")
        assert content_of_uid(stage, name) is None
        stage.remove(name)

    @pytest.mark.parametrize(
        ("parameters", "words"),
        [
            pytest.param(
                {"__snapshotter_secret_name": "x-${pvc.name}", "__snapshotter_secret_namespace": "default"},
                "${pvc.name}",
                id="unknown-token",
            ),
            pytest.param({"__snapshotter_secret_name": "x"}, "secret", id="half-a-secret"),
            pytest.param({"__nonsense": "x"}, "nonsense", id="unknown-reserved-key"),
        ],
    )
    def test_a_class_with_broken_parameters_is_told_and_nothing_is_cut(
        self, stage: Stage, parameters: dict[str, str], words: str
    ) -> None:
        """Cases 8 and 48. The reserved key is the sidecar's to refuse upstream; ours refuses before it makes a
        content.

        Upstream's sidecar marks the content as being created first and takes the mark off after a driver's answer
        only, so that the snapshot cannot be deleted until the class is mended. Mended by ours: no call, no mark.
        """
        claim = stage.claim()
        klass = stage.klass(**parameters)
        name = stage.snapshot(claim, klass)
        stage.until_error(name, words.removeprefix("${").removesuffix("}"))
        assert stage.creates(claim.handle) == []
        assert not status(stage.of("snapshots", name)).get("readyToUse")
        stage.delete("snapshots", name)
        mended = stage.kind.ours_decides or stage.kind.ours_calls
        if "nonsense" in words and not mended:
            stage.delete("classes", klass)
            stage.klass(klass)
        stage.until_away(name)
        left = stage.backend(claim.handle)
        assert not (left and mended)
        for handle in left:
            stage.forget(handle)

    def test_a_class_of_another_driver_hands_no_volume_to_it(self, stage: Stage) -> None:
        """Defect 15 of upstream, mended by our controller: the class's driver is compared with the volume's.

        Safe for upstream's clients: a class that was right stays right. Upstream's own controller makes a content
        that would hand this volume's handle to the other driver; that is shown here, so that a change of it is
        noticed.
        """
        claim = stage.claim()
        klass = stage.klass(driver="another.interop.test")
        name = stage.snapshot(claim, klass)
        if stage.kind.ours_decides:
            stage.until_event("SnapshotContentCreationFailed", name)
            stage.until_error(name, "another.interop.test")
            assert content_of_uid(stage, name) is None
            stage.remove(name)
            return
        uid = stage.until("it is there", lambda: stage.of("snapshots", name))["metadata"]["uid"]
        content = stage.until("the wrong content", lambda: stage.of("contents", f"snapcontent-{uid}"))
        assert content["spec"]["driver"] == "another.interop.test"
        assert content["spec"]["source"]["volumeHandle"] == claim.handle
        stage.delete("snapshots", name)
        stage.strip_content(content["metadata"]["name"])
        stage.until_gone("snapshots", name)
