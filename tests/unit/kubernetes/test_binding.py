"""The cluster half's table: from a new VolumeSnapshot to a bound one. Numbers are upstream's acceptance cases."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.decide import binding
from adapters.kubernetes.decide.binding import Amend, Create, DropClaim, Hold, HoldClaim, Publish, Rest, Wait
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import views as v

decide = binding.decide


def test_first_the_snapshot_is_held_with_both_finalizers_in_one_write() -> None:
    step = decide(v.dynamic(snapshot=o.snapshot(**v.FREE)))
    assert isinstance(step, Hold)
    assert step.body["metadata"]["finalizers"] == [names.SOURCE_FINALIZER, names.BOUND_FINALIZER]


def test_a_class_that_retains_needs_no_bound_finalizer() -> None:
    step = decide(v.dynamic(snapshot=o.snapshot(**v.FREE), klass=o.klass(deletionPolicy="Retain")))
    assert isinstance(step, Hold)
    assert step.body["metadata"]["finalizers"] == [names.SOURCE_FINALIZER]


def test_other_finalizers_stay() -> None:
    step = decide(v.dynamic(snapshot=o.snapshot(metadata__finalizers=["theirs"])))
    assert isinstance(step, Hold)
    assert step.body["metadata"]["finalizers"][0] == "theirs"


def test_35_the_default_class_is_filled_in_with_the_hold() -> None:
    bare = o.snapshot(spec__volumeSnapshotClassName=None, **v.FREE)
    step = decide(v.dynamic(snapshot=bare, class_name="", klass=None, defaults=(o.klass(),)))
    assert isinstance(step, Hold)
    assert step.body["spec"]["volumeSnapshotClassName"] == "plain"


def test_35_a_default_class_is_filled_in_even_if_another_controller_held_the_snapshot() -> None:
    bare = o.snapshot(spec__volumeSnapshotClassName=None)
    step = decide(v.dynamic(snapshot=bare, class_name="", klass=None, defaults=(o.klass(),)))
    assert isinstance(step, Hold)
    assert step.body["spec"]["volumeSnapshotClassName"] == "plain"


def test_then_the_claim_is_held() -> None:
    assert decide(v.dynamic(claim=o.claim(**v.FREE))) == HoldClaim()


def test_1_the_content_is_complete_in_one_write() -> None:
    step = decide(v.dynamic())
    assert isinstance(step, Create)
    assert step.body["metadata"] == {
        "name": f"snapcontent-{o.UID}",
        "finalizers": [names.CONTENT_FINALIZER],
        "annotations": {},
    }
    assert step.body["spec"] == {
        "volumeSnapshotRef": {
            "apiVersion": names.API_VERSION,
            "kind": "VolumeSnapshot",
            "namespace": "apps",
            "name": "one",
            "uid": o.UID,
            "resourceVersion": "10",
        },
        "source": {"volumeHandle": "vol-1"},
        "volumeSnapshotClassName": "plain",
        "deletionPolicy": "Delete",
        "driver": o.DRIVER,
        "sourceVolumeMode": "Filesystem",
    }


def test_2_the_class_s_secret_is_named_on_the_content() -> None:
    prefix = f"{names.PARAMETER_PREFIX}snapshotter-secret"
    given = {f"{prefix}-name": "${volumesnapshot.name}-key", f"{prefix}-namespace": "vault"}
    step = decide(v.dynamic(klass=o.klass(parameters=given)))
    assert isinstance(step, Create)
    assert step.body["metadata"]["annotations"] == {
        names.DELETION_SECRET_NAME: "one-key",
        names.DELETION_SECRET_NAMESPACE: "vault",
    }


def test_the_volume_mode_is_left_out_where_conversion_is_allowed() -> None:
    step = decide(v.dynamic(source_mode=False))
    assert isinstance(step, Create)
    assert "sourceVolumeMode" not in step.body["spec"]


def test_a_distributed_driver_s_content_names_its_node() -> None:
    step = decide(v.dynamic(node="node-7"))
    assert isinstance(step, Create)
    assert step.body["metadata"]["labels"] == {"snapshot.storage.kubernetes.io/managed-by": "node-7"}


PREFIX = "Failed to create snapshot content with error"
TROUBLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "3 the class is missing": ({"klass": None}, "GetSnapshotClassFailed", '"plain" not found'),
    "4 no class and no default": (
        {
            "snapshot": o.snapshot(spec__volumeSnapshotClassName=None, **v.FREE),
            "class_name": "",
            "klass": None,
        },
        "SetDefaultSnapshotClassFailed",
        "cannot find default snapshot class",
    ),
    "4 two defaults": (
        {
            "snapshot": o.snapshot(spec__volumeSnapshotClassName=None, **v.FREE),
            "class_name": "",
            "klass": None,
            "defaults": (o.klass(), o.klass(metadata__name="other")),
        },
        "SetDefaultSnapshotClassFailed",
        "2 default snapshot classes were found",
    ),
    "5 the claim is missing": (
        {"claim": None, "volume": None},
        "SnapshotContentCreationFailed",
        "failed to retrieve PVC data",
    ),
    "5 the volume is missing": ({"volume": None}, "SnapshotContentCreationFailed", "failed to retrieve PV pv-1"),
    "5 the claim is not bound": (
        {"claim": o.claim(status__phase="Pending", **v.FREE)},
        "SnapshotContentCreationFailed",
        "the PVC data is not yet bound to a PV",
    ),
    "5 the claim is being deleted": (
        {"claim": o.claim(**v.GONE, **v.FREE)},
        "SnapshotContentCreationFailed",
        "claim is being deleted",
    ),
    "8 the secret's template is invalid": (
        {
            "klass": o.klass(
                parameters={
                    "csi.storage.k8s.io/snapshotter-secret-name": "${nothing}",
                    "csi.storage.k8s.io/snapshotter-secret-namespace": "vault",
                }
            )
        },
        "SnapshotContentCreationFailed",
        "invalid tokens",
    ),
    "17 no source": ({"snapshot": o.snapshot(spec__source={})}, "SnapshotValidationError", "Exactly one of"),
    "the volume is no CSI volume": (
        {"volume": o.volume(spec__csi=None)},
        "SnapshotContentCreationFailed",
        "cannot find CSI PersistentVolumeSource",
    ),
    "defect 15: the class is of another driver": (
        {"klass": o.klass(driver="csi.other")},
        "SnapshotContentCreationFailed",
        "is of driver csi.other, the volume of driver csi.example",
    ),
    "48 a reserved parameter is unknown": (
        {"klass": o.klass(parameters={"csi.storage.k8s.io/new": "x"})},
        "SnapshotContentCreationFailed",
        'found unknown parameter key "csi.storage.k8s.io/new"',
    ),
    "18 a dynamic snapshot finds a pre-provisioned content": (
        {"content": o.content(spec__source={"snapshotHandle": "snap-9"})},
        "SnapshotContentMismatch",
        "is pre-provisioned while expecting a dynamically provisioned one",
    ),
    "the content is another snapshot's": (
        {"content": o.content(spec__volumeSnapshotRef__uid="other")},
        "SnapshotContentMisbound",
        "is bound to a different snapshot",
    ),
}


@pytest.mark.parametrize(("given", "reason", "text"), TROUBLES.values(), ids=TROUBLES)
def test_a_trouble_is_told_and_nothing_is_made(given: dict[str, Any], reason: str, text: str) -> None:
    free = {"claim": o.claim(**v.FREE)}
    step = decide(v.dynamic(**{**free, **given}))
    assert text in v.error_of(step)
    assert v.reasons(step) == [reason]
    assert isinstance(step, Publish)
    about_the_class = reason in ("GetSnapshotClassFailed", "SetDefaultSnapshotClassFailed")
    assert step.news.status.get("readyToUse") is (None if about_the_class else False)
    told = {**(given.get("snapshot") or o.snapshot()), "status": step.news.status}
    assert decide(v.dynamic(**{**free, **given, "snapshot": told})) == Rest(), "it is told once"


def test_defect_1305_a_request_in_trouble_holds_no_claim() -> None:
    """Upstream keeps the claim of a snapshot that can never be; nobody relies on that hold: nothing was cut."""
    assert decide(v.dynamic(klass=None)) == DropClaim()


def test_defect_1305_a_cut_that_failed_for_certain_lets_a_claim_go_that_is_being_deleted() -> None:
    failed = o.content(status={"error": {"message": "no", "time": "2026-11-21T12:00:00Z"}})
    leaving = o.claim(**v.GONE)
    told = {**o.snapshot(), "status": {"boundVolumeSnapshotContentName": failed["metadata"]["name"]}}
    told["status"] |= {"readyToUse": False, "error": failed["status"]["error"]}
    assert decide(v.dynamic(snapshot=told, content=failed, claim=leaving)) == DropClaim()
    under_way = o.changed(failed, {"metadata__annotations": {names.BEING_CREATED: "yes"}})
    assert decide(v.dynamic(snapshot=told, content=under_way, claim=leaving)) == Rest()


def test_a_claim_that_another_snapshot_needs_stays_held() -> None:
    told = {**o.snapshot(), "status": v.in_trouble_status(decide(v.dynamic(klass=None, claim=o.claim(**v.FREE))))}
    assert decide(v.dynamic(snapshot=told, klass=None, claim_shared=True)) == Rest()


def test_24_a_snapshot_with_an_old_error_and_no_content_gets_one() -> None:
    told = o.snapshot(status={"error": {"message": "old", "time": "2026-11-21T12:00:00Z"}, "readyToUse": False})
    assert isinstance(decide(v.dynamic(snapshot=told)), Create)


def test_24_the_old_error_is_cleared_once_the_content_is_there() -> None:
    told = o.snapshot(status={"error": {"message": "old", "time": "2026-11-21T12:00:00Z"}, "readyToUse": False})
    step = decide(v.dynamic(snapshot=told, content=o.content()))
    assert isinstance(step, Publish)
    assert "error" not in step.news.status


def test_a_member_that_its_group_makes_is_never_cut_alone() -> None:
    owners = [{"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot", "name": "all"}]
    assert decide(v.dynamic(snapshot=o.snapshot(metadata__ownerReferences=owners))) == Rest()


# -- pre-provisioned ---------------------------------------------------------------------------------------------


def test_14_a_pre_provisioned_content_is_bound_by_uid_and_held() -> None:
    step = decide(v.static(content=v.old_content(**v.FREE)))
    assert isinstance(step, Amend)
    assert step.body["spec"]["volumeSnapshotRef"]["uid"] == o.UID
    assert step.body["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]
    assert step.reason == "SnapshotBindFailed"


def test_15_a_pre_provisioned_content_gets_the_class_s_name() -> None:
    named = o.snapshot(spec__source={"volumeSnapshotContentName": "old"})
    step = decide(v.static(snapshot=named, class_name="plain", klass=o.klass()))
    assert isinstance(step, Amend)
    assert step.body["spec"]["volumeSnapshotClassName"] == "plain"


def test_15_also_when_it_was_bound_before() -> None:
    named = o.snapshot(spec__source={"volumeSnapshotContentName": "old"})
    bound = v.old_content(spec__volumeSnapshotRef={"namespace": "apps", "name": "one", "uid": o.UID})
    step = decide(v.static(snapshot=named, content=bound, class_name="plain", klass=o.klass()))
    assert isinstance(step, Amend)
    assert step.body["spec"]["volumeSnapshotClassName"] == "plain"


STATIC_TROUBLES: dict[str, tuple[Any, str]] = {
    "10 the content is missing": (None, "SnapshotContentMissing"),
    "11 the content is reserved for another name": (
        v.old_content(spec__volumeSnapshotRef={"namespace": "apps", "name": "two"}),
        "SnapshotContentMisbound",
    ),
    "11 the content is of another uid": (
        v.old_content(spec__volumeSnapshotRef={"namespace": "apps", "name": "one", "uid": "other"}),
        "SnapshotContentMisbound",
    ),
    "11 the content is dynamic": (v.old_content(spec__source={"volumeHandle": "v"}), "SnapshotContentMismatch"),
}


@pytest.mark.parametrize(("content", "reason"), STATIC_TROUBLES.values(), ids=STATIC_TROUBLES)
def test_a_pre_provisioned_content_that_does_not_fit(content: Any, reason: str) -> None:
    assert v.reasons(decide(v.static(content=content))) == [reason]


# -- what is bound -----------------------------------------------------------------------------------------------


def test_21_a_bound_content_without_its_finalizer_gets_it() -> None:
    step = decide(v.dynamic(content=o.content(**v.FREE)))
    assert isinstance(step, Amend)
    assert step.body["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]


def test_34_a_bound_snapshot_without_finalizers_gets_them() -> None:
    step = decide(v.dynamic(snapshot=v.ready_snapshot(**v.FREE), content=v.ready_content()))
    assert isinstance(step, Hold)


def test_a_hold_on_the_claim_that_was_lost_before_the_cut_is_taken_again() -> None:
    assert decide(v.dynamic(content=o.content(), claim=o.claim(**v.FREE))) == HoldClaim()


def test_a_silent_content_is_waited_for_before_anything_is_told() -> None:
    assert decide(v.dynamic(content=o.content(), waited_seconds=0.25)) == Wait(0.75)
    step = decide(v.dynamic(content=o.content(), waited_seconds=1.0))
    assert isinstance(step, Publish)
    assert step.news.status == {
        "boundVolumeSnapshotContentName": f"snapcontent-{o.UID}",
        "readyToUse": False,
    }
    told = o.snapshot(status=step.news.status)
    assert decide(v.dynamic(snapshot=told, content=o.content())) == Rest()


CHANGES_OF_OTHERS: dict[str, dict[str, Any]] = {
    "12 nothing": {},
    "47 an annotation of the driver half": {"metadata__annotations": {names.BEING_CREATED: "yes"}},
    "47 another finalizer": {"metadata__finalizers": [names.CONTENT_FINALIZER, "theirs"]},
    "47 a label": {"metadata__labels": {"a": "b"}},
    "47 another version": {"metadata__resourceVersion": "99"},
}


@pytest.mark.parametrize("change", CHANGES_OF_OTHERS.values(), ids=CHANGES_OF_OTHERS)
def test_defect_1_what_is_bound_and_unchanged_costs_no_write(change: dict[str, Any]) -> None:
    """Upstream compares pointers, so each event of a content sends its VolumeSnapshot through the queue again."""
    ready = v.dynamic(snapshot=v.ready_snapshot(), content=v.ready_content(**change), claim=o.claim(**v.FREE))
    assert decide(ready) == Rest()


def test_25_a_class_that_is_deleted_later_changes_nothing() -> None:
    ready = v.dynamic(snapshot=v.ready_snapshot(), content=v.ready_content(), klass=None, claim=o.claim(**v.FREE))
    assert decide(ready) == Rest()


def test_33_the_claim_is_let_go_when_the_snapshot_is_ready() -> None:
    assert decide(v.dynamic(snapshot=v.ready_snapshot(), content=v.ready_content())) == DropClaim()


def test_33_and_not_while_another_snapshot_of_it_is_under_way() -> None:
    ready = v.dynamic(snapshot=v.ready_snapshot(), content=v.ready_content(), claim_shared=True)
    assert decide(ready) == Rest()


def test_6_a_claim_that_refuses_to_be_let_go_stops_nothing_else() -> None:
    ready = v.dynamic(snapshot=v.ready_snapshot(), content=v.ready_content(), claim_left=True)
    assert decide(ready) == Rest()


# -- a content without its snapshot ------------------------------------------------------------------------------

LEFT_ALONE: dict[str, Any] = {
    "held": o.content(),
    "being deleted by hand": o.content(**v.GONE),
    "never bound": v.old_content(**v.FREE),
    "being deleted, without finalizer": o.content(**v.GONE, metadata__finalizers=["theirs"]),
}


@pytest.mark.parametrize("content", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_a_content_whose_snapshot_has_vanished_is_left_alone(content: Any) -> None:
    assert decide(v.dynamic(snapshot=None, content=content)) == Rest()


def test_21_a_content_without_snapshot_is_held_all_the_same() -> None:
    step = decide(v.dynamic(snapshot=None, content=o.content(**v.FREE)))
    assert isinstance(step, Amend)
    assert step.body["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]
