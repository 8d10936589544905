"""Writes that the API server refuses, on every stack: told where upstream tells it, retried, nothing lost.

Merged mode tells by events alone, and of claims that cannot be let go in its log only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import refusals
from tests.support import stage as stages
from tests.support.faultproxy import faults
from tests.support.stage import Stage, error_text, finalizers, status


@contextmanager
def refusing(stage: Stage, *rules: str) -> Iterator[None]:
    """Refuse these in the block."""
    refusals.refuse(stage.calls, *rules)
    try:
        yield
    finally:
        refusals.allow(stage.calls, *rules)


@pytest.mark.slow
class Refused:
    """Each method is a scenario on one stack."""

    def test_a_content_that_cannot_be_created_is_told_and_made_later(self, stage: Stage) -> None:
        """Case 9: CreateSnapshotContentFailed, no call to the driver, and no second content afterwards."""
        claim = stage.claim()
        name = stage.fresh("uncreated")
        with refusing(stage, f"{refusals.CREATE_CONTENT}.{name}"):
            stage.snapshot(claim, name=name)
            stage.until_event("CreateSnapshotContentFailed", name)
            if not stage.kind.merged:
                stage.until_error(name, refusals.WORDS)
            assert stage.creates(claim.handle) == []
        assert error_text(stage.until_ready(name)) == ""
        assert len(stage.backend(claim.handle)) == 1
        stage.remove(name)
        assert stage.backend(claim.handle) == []

    def test_a_status_that_cannot_be_written_is_written_later(self, stage: Stage) -> None:
        """Cases 7 and 16: the snapshot is cut once, and is told of when that is possible."""
        claim = stage.claim()
        name = stage.fresh("untold")
        with refusing(stage, f"{refusals.UPDATE_STATUS}.{name}"):
            stage.snapshot(claim, name=name)
            uid = stage.until("it is there", lambda: stage.of("snapshots", name))["metadata"]["uid"]
            content = f"snapcontent-{uid}"
            stage.until("it was cut", lambda: status(stage.of("contents", content)).get("readyToUse"))
            assert status(stage.of("snapshots", name)) == {}
        stage.until_ready(name)
        assert len(stage.backend(claim.handle)) == 1
        stage.remove(name)

    def test_a_hold_that_cannot_be_taken_off_a_claim_is_told_and_taken_off_later(self, stage: Stage) -> None:
        """Case 6: ErrorPVCFinalizer, and the snapshot is ready all the same."""
        claim, refused = stage.claim(), threading.Event()
        stage.strike("CreateSnapshot", faults.hold(refused), claim.handle)
        name = stage.snapshot(claim)
        stage.until("the claim is held", lambda: stages.CLAIM in finalizers(stage.of("claims", claim.name)))
        with refusing(stage, f"{refusals.UPDATE_CLAIM}.{claim.name}"):
            refused.set()
            stage.until_ready(name)
            if not stage.kind.merged:
                stage.until_event("ErrorPVCFinalizer", name)
            assert stages.CLAIM in finalizers(stage.live("claims", claim.name))
        stage.until("the claim is free", lambda: stages.CLAIM not in finalizers(stage.of("claims", claim.name)))
        stage.remove(name)

    def test_a_content_that_cannot_be_bound_is_told_and_bound_later(self, stage: Stage) -> None:
        """Cases 15 and 21: SnapshotBindFailed."""
        cut = stage.cut_by_hand()
        name = stage.fresh("unbound")
        content = stage.content(cut.snapshot_id, name)
        with refusing(stage, f"{refusals.UPDATE_CONTENT}.{name}"):
            stage.snapshot(content, name=name)
            stage.until_event("SnapshotBindFailed", name)
            assert "uid" not in stage.live("contents", content)["spec"]["volumeSnapshotRef"]
        stage.until_ready(name)
        stage.remove(name)
        stage.until_gone("contents", content)
        assert stage.backend(cut.source_volume_id) == []

    def test_a_content_that_cannot_be_deleted_is_told_and_deleted_later(self, stage: Stage) -> None:
        """Case 29: SnapshotContentObjectDeleteError, and nothing is let go meanwhile."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        with refusing(stage, f"{refusals.DELETE_CONTENT}.{name}"):
            stage.delete("snapshots", name)
            stage.until_event("SnapshotContentObjectDeleteError", name)
            assert finalizers(stage.live("snapshots", name))
            assert "deletionTimestamp" not in stage.live("contents", content)["metadata"]
            assert len(stage.backend(claim.handle)) == 1
        stage.until_gone("snapshots", name)
        stage.until_gone("contents", content)
        assert stage.backend(claim.handle) == []

    def test_a_content_that_cannot_be_marked_for_its_deletion_is_marked_later(self, stage: Stage) -> None:
        """Case 22: without the mark a content of a Retain class could never be deleted by its owner.

        Defect 3 of upstream, mended by our controller: upstream's marks its own copy before the write, takes the mark
        for written after the refusal, and lets the VolumeSnapshot go. Safe: the mark is only what it was meant to be.
        """
        claim = stage.claim()
        name = stage.snapshot(claim, stage.klass(policy="Retain"))
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        (handle,) = stage.backend(claim.handle)
        stage.until("the mark is gone", lambda: stages.BEING_CREATED not in stages.notes(stage.content_of(name)))
        with refusing(stage, f"{refusals.UPDATE_CONTENT}.{name}"):
            stage.delete("snapshots", name)
            stage.until("asked", lambda: stage.is_going("snapshots", name))
        stage.until_gone("snapshots", name)
        if stage.kind.ours_decides:
            assert stages.notes(stage.live("contents", content))[stages.BEING_DELETED] == "yes"
            stage.delete("contents", content)
            stage.until_gone("contents", content)
        else:
            stage.strip_content(content)
        stage.forget(handle)
