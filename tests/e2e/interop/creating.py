"""Creating a snapshot of a claim, on every stack: objects, names, marks and events as owners and tools know them."""

from __future__ import annotations

import itertools
import threading

import pytest

from tests.support import stage as stages
from tests.support.faultproxy import faults
from tests.support.stage import Stage, finalizers, notes, status


@pytest.mark.slow
class Creating:
    """Each method is a scenario on one stack."""

    def test_a_dynamic_snapshot_has_upstreams_names_fields_and_marks(self, stage: Stage) -> None:
        """Cases 1 and 36 of the list: what kubectl, Velero and upstream's tests read."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        found = stage.until_ready(name)
        uid = found["metadata"]["uid"]
        stage.until("seen, by a watch of its own", lambda: status(stage.content_of(name)).get("readyToUse"))
        content = stage.content_of(name)
        (handle,) = stage.backend(claim.handle)
        assert content["metadata"]["name"] == f"snapcontent-{uid}"
        spec = content["spec"]
        assert spec["source"] == {"volumeHandle": claim.handle}
        assert spec["driver"] == stage.driver_name
        assert spec["deletionPolicy"] == "Delete"
        assert spec["volumeSnapshotClassName"] == stage.class_name
        assert spec["sourceVolumeMode"] == "Filesystem"
        reference = {
            key: spec["volumeSnapshotRef"][key] for key in ("apiVersion", "kind", "namespace", "name", "uid")
        }
        assert reference == {
            "apiVersion": stages.API_VERSION,
            "kind": "VolumeSnapshot",
            "namespace": stage.namespace,
            "name": name,
            "uid": uid,
        }
        told = status(content)
        assert told["snapshotHandle"] == handle
        assert told["readyToUse"] is True
        assert told["creationTime"] > 1_700_000_000 * 10**9
        assert told["restoreSize"] == 1 << 20
        assert status(found)["restoreSize"] == "1Mi"
        assert status(found)["creationTime"].endswith("Z")
        assert status(found).get("error") is None
        (call,) = stage.creates(claim.handle)
        assert call.request is not None
        assert call.request.name == f"snapshot-{uid}"  # type: ignore[attr-defined]
        stage.remove(name)

    def test_each_mark_is_there_in_its_stage_and_goes_in_its_turn(self, stage: Stage) -> None:
        """The claim and both objects are protected before the driver is called, and the claim is free afterwards.

        Upstream's controller puts the content's finalizer on with a second write, which the cut may overtake. Ours
        makes the content with it.
        """
        claim, looked = stage.claim(), threading.Event()
        stage.strike("CreateSnapshot", faults.hold(looked), claim.handle)
        name = stage.snapshot(claim)
        stage.until("the cut has begun", lambda: stage.creates(claim.handle) or None)
        snapshot = stage.live("snapshots", name)
        content = stage.live("contents", f"snapcontent-{snapshot['metadata']['uid']}")
        held = finalizers(stage.live("claims", claim.name))
        looked.set()
        assert stages.CLAIM in held
        if stage.kind.ours_decides:
            assert stages.CONTENT_BOUND in finalizers(content)
        assert stages.BEING_CREATED in notes(content)
        assert stages.AS_SOURCE in finalizers(snapshot)
        found = stage.until_ready(name)
        assert stages.AS_SOURCE in finalizers(found)
        stage.until("both are held", lambda: stages.BOUND in finalizers(stage.of("snapshots", name)))
        stage.until("the content too", lambda: stages.CONTENT_BOUND in finalizers(stage.content_of(name)))
        stage.until("the claim is free", lambda: stages.CLAIM not in finalizers(stage.of("claims", claim.name)))
        stage.until("the mark is gone", lambda: stages.BEING_CREATED not in notes(stage.content_of(name)))
        assert [call.code.name for call in stage.creates(claim.handle) if call.code] == ["OK"]
        stage.remove(name)

    def test_its_events_are_told_once_each(self, stage: Stage) -> None:
        """Split stacks tell three good events as upstream does; merged there is no step between, so one tells all."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        wanted = ["SnapshotReady"] if stage.kind.merged else ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"]
        for reason in wanted:
            stage.until_event(reason, name)
        found = stage.events(name)
        assert sorted(one["reason"] for one in found) == wanted
        assert {(one["type"], one.get("count", 1)) for one in found} == {("Normal", 1)}
        stage.remove(name)

    def test_a_block_volume_is_marked_as_one(self, stage: Stage) -> None:
        """`sourceVolumeMode` is what a restore is checked against."""
        claim = stage.claim(mode="Block")
        name = stage.snapshot(claim)
        stage.until_ready(name)
        assert stage.content_of(name)["spec"]["sourceVolumeMode"] == "Block"
        stage.remove(name)

    def test_reserved_parameters_stay_here_and_the_rest_goes_to_the_driver(self, stage: Stage) -> None:
        """Case 48. Every stack runs with --extra-create-metadata, which adds three names (case 36)."""
        claim = stage.claim()
        stage.secret("parameter-secret", token="t")
        klass = stage.klass(
            uploadSeconds="0",
            __snapshotter_secret_name="parameter-secret",
            __snapshotter_secret_namespace=stage.namespace,
        )
        name = stage.snapshot(claim, klass)
        stage.until_ready(name)
        (call,) = stage.creates(claim.handle)
        prefix = "csi.storage.k8s.io/volumesnapshot"
        wanted = {
            "uploadSeconds": "0",
            f"{prefix}/name": name,
            f"{prefix}/namespace": stage.namespace,
            f"{prefix}content/name": stage.content_of(name)["metadata"]["name"],
        }
        assert dict(call.request.parameters) == wanted  # type: ignore[union-attr]
        stage.remove(name)

    def test_two_snapshots_of_one_claim_share_its_hold(self, stage: Stage) -> None:
        """Case 33: the first that is ready does not free a claim that the second still needs."""
        claim, seen = stage.claim(), threading.Event()
        stage.strike("CreateSnapshot", faults.hold(seen), claim.handle)
        slow, quick = stage.snapshot(claim), stage.snapshot(claim)
        stage.until(
            "one is ready", lambda: any(status(stage.of("snapshots", one)).get("readyToUse") for one in (slow, quick))
        )
        stage.until("its claim is held", lambda: stages.CLAIM in finalizers(stage.of("claims", claim.name)))
        seen.set()
        stage.until_ready(slow)
        stage.until_ready(quick)
        stage.until("the claim is free", lambda: stages.CLAIM not in finalizers(stage.of("claims", claim.name)))
        holds = [stages.CLAIM in finalizers(one) for one in stage.past("claims", claim.name)]
        assert holds.count(True) >= 1
        assert sum(before and not after for before, after in itertools.pairwise(holds)) == 1, holds
        assert len(stage.backend(claim.handle)) == 2
        stage.remove(slow)
        stage.remove(quick)

    def test_a_claim_that_is_deleted_while_it_is_cut_stays_until_the_cut_is_done(self, stage: Stage) -> None:
        claim, asked = stage.claim(), threading.Event()
        stage.strike("CreateSnapshot", faults.hold(asked), claim.handle)
        name = stage.snapshot(claim)
        stage.until("the cut has begun", lambda: stage.creates(claim.handle) or None)
        stage.delete("claims", claim.name)
        asked.set()
        stage.until_ready(name)
        stage.until_gone("claims", claim.name)
        ready = next(one for one in stage.past("snapshots", name) if status(one).get("readyToUse"))
        last = stage.past("claims", claim.name)[-1]
        assert int(last["metadata"]["resourceVersion"]) > int(ready["metadata"]["resourceVersion"]) - 1
        stage.remove(name)

    @pytest.mark.parametrize(
        "lost",
        [{"readyToUse": None}, {"creationTime": None, "restoreSize": None}, None],
        ids=["ready", "facts", "all"],
    )
    def test_a_status_that_was_lost_is_filled_in_from_the_content(self, stage: Stage, lost: dict[str, None]) -> None:
        """Case 20. Nothing is cut anew."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        before = status(stage.until_ready(name))
        stage.patch("snapshots", name, {"status": lost}, sub="status")
        stage.until("it is whole", lambda: status(stage.of("snapshots", name)) == before or None)
        assert len(stage.creates(claim.handle)) == 1
        stage.remove(name)

    def test_what_is_ready_and_unchanged_is_not_written_again(self, stage: Stage) -> None:
        """Case 12. A label by its owner wakes every controller; none of them has anything to write."""
        claim = stage.claim()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        content = stage.content_of(name)["metadata"]["name"]
        stage.until("the claim is free", lambda: stages.CLAIM not in finalizers(stage.of("claims", claim.name)))
        stage.until("the mark is gone", lambda: stages.BEING_CREATED not in notes(stage.content_of(name)))
        stage.until("both are held", lambda: stages.BOUND in finalizers(stage.of("snapshots", name)))
        stage.patch("contents", content, {"metadata": {"labels": {"seen": "once"}}})
        stage.patch("snapshots", name, {"metadata": {"labels": {"seen": "once"}}})
        before = (len(stage.past("snapshots", name)), len(stage.past("contents", content)))
        other = stage.snapshot(claim)  # whatever the labels have caused comes before this one is ready
        stage.until_ready(other)
        stage.until("seen", lambda: (stage.of("snapshots", name) or {})["metadata"].get("labels"))
        after = (len(stage.past("snapshots", name)), len(stage.past("contents", content)))
        assert after[0] - before[0] <= 1
        assert after[1] - before[1] <= 1
        assert len(stage.creates(claim.handle)) == 2
        stage.remove(name)
        stage.remove(other)
