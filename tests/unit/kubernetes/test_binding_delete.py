"""The cluster half's table: from a deletion to its end. Numbers are upstream's acceptance cases."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.decide import binding
from adapters.kubernetes.decide.binding import Amend, Delete, DropClaim, Look, Pending, Release, Rest
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import views as v

MARKED = {"metadata__annotations": {names.BEING_DELETED: "yes"}}


def leaving(**given: Any) -> binding.Step:
    """A ready snapshot that is being deleted, with its content."""
    usual: dict[str, Any] = {
        "snapshot": v.ready_snapshot(**v.GONE),
        "content": v.ready_content(),
        "claim": o.claim(**v.FREE),
    }
    return binding.decide(v.dynamic(**{**usual, **given}))


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_22_the_content_is_marked_first(policy: str) -> None:
    step = leaving(content=v.ready_content(spec__deletionPolicy=policy))
    assert isinstance(step, Amend)
    assert step.body["metadata"]["annotations"] == {names.BEING_DELETED: "yes"}


def test_22_so_is_a_pre_provisioned_one() -> None:
    snapshot = o.snapshot(spec__source={"volumeSnapshotContentName": "old"}, **v.GONE)
    bound = v.old_content(spec__volumeSnapshotRef={"namespace": "apps", "name": "one", "uid": o.UID})
    step = binding.decide(v.static(snapshot=snapshot, content=bound))
    assert isinstance(step, Amend)


def test_defect_3_the_mark_leaves_other_annotations_as_they_are() -> None:
    """Upstream replaces the whole map from its cache, so that marks of others are lost."""
    step = leaving(content=v.ready_content(metadata__annotations={"theirs": "1", names.BEING_CREATED: "yes"}))
    assert isinstance(step, Amend)
    assert step.body["metadata"]["annotations"] == {
        "theirs": "1",
        names.BEING_CREATED: "yes",
        names.BEING_DELETED: "yes",
    }


def test_an_unprotected_content_is_protected_before_it_is_deleted() -> None:
    step = leaving(content=v.ready_content(**v.FREE, **MARKED))
    assert isinstance(step, Amend)
    assert step.body["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]


def test_the_mark_that_releases_an_unsettled_create_is_passed_on() -> None:
    snapshot = v.ready_snapshot(metadata__annotations={names.ABANDON: "true"}, **v.GONE)
    step = leaving(snapshot=snapshot, content=v.ready_content(**MARKED))
    assert isinstance(step, Amend)
    assert step.body["metadata"]["annotations"][names.ABANDON] == "true"


def test_28_then_the_content_is_deleted_in_exactly_this_version() -> None:
    content = v.ready_content(**MARKED)
    assert leaving(content=content) == Delete(content)


def test_28_the_snapshot_keeps_its_finalizers_until_the_content_has_gone() -> None:
    assert leaving(content=v.ready_content(**MARKED, **v.GONE)) == Rest()


def test_28_and_lets_go_after_that() -> None:
    step = leaving(content=None)
    assert isinstance(step, Release)
    assert step.body["metadata"]["finalizers"] == []


def test_30_a_content_that_is_retained_stays_and_the_snapshot_goes() -> None:
    step = leaving(content=v.ready_content(spec__deletionPolicy="Retain", **MARKED))
    assert isinstance(step, Release)


def test_a_policy_that_was_set_to_retain_after_the_delete_lets_the_snapshot_go() -> None:
    step = leaving(content=v.ready_content(spec__deletionPolicy="Retain", **MARKED, **v.GONE))
    assert isinstance(step, Release)


def test_31_without_a_content_the_server_is_asked_once() -> None:
    assert leaving(content=None, content_known=False, content_name="its-name") == Look("its-name")
    assert isinstance(leaving(content=None, content_known=True), Release)


OTHERS: dict[str, Any] = {
    "32 another uid": v.ready_content(spec__volumeSnapshotRef__uid="other"),
    "32 another name": v.ready_content(spec__volumeSnapshotRef__name="two"),
    "26 no uid": v.ready_content(spec__volumeSnapshotRef={"namespace": "apps", "name": "one"}),
    "26 the wrong sort of source": v.ready_content(spec__source={"snapshotHandle": "snap-9"}),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_content_that_is_not_this_snapshot_s_is_treated_as_none(content: Any) -> None:
    assert isinstance(leaving(content=content), Release)


def test_26_a_pre_provisioned_content_that_was_never_bound_is_not_deleted() -> None:
    snapshot = o.snapshot(spec__source={"volumeSnapshotContentName": "old"}, **v.GONE)
    assert isinstance(binding.decide(v.static(snapshot=snapshot)), Release)


def test_27_a_restore_that_is_under_way_keeps_the_snapshot() -> None:
    step = leaving(restoring=("apps/restored",))
    assert step == Pending("Snapshot is being used to restore a PVC: apps/restored")


def test_27_also_one_that_is_retained() -> None:
    step = leaving(restoring=("apps/restored",), content=v.ready_content(spec__deletionPolicy="Retain"))
    assert isinstance(step, Pending)


def test_another_content_of_the_same_cut_keeps_it() -> None:
    step = leaving(shared_with=("copy",))
    assert step == Pending("Snapshot is also held by VolumeSnapshotContent copy")
    kept = leaving(shared_with=("copy",), content=v.ready_content(spec__deletionPolicy="Retain", **MARKED))
    assert isinstance(kept, Release)


def test_a_group_keeps_its_members() -> None:
    assert leaving(kept_by_group="it is a member of apps/all") == Pending("it is a member of apps/all")


def test_when_the_group_is_gone_its_finalizer_goes_with_ours() -> None:
    finalizers = [*names.SNAPSHOT_FINALIZERS, names.IN_GROUP_FINALIZER, "theirs"]
    step = leaving(snapshot=v.ready_snapshot(metadata__finalizers=finalizers, **v.GONE), content=None)
    assert isinstance(step, Release)
    assert step.body["metadata"]["finalizers"] == ["theirs"]


def test_33_the_claim_is_let_go_before_the_snapshot() -> None:
    assert leaving(content=None, claim=o.claim()) == DropClaim()
    assert isinstance(leaving(content=None, claim=o.claim(), claim_shared=True), Release)


def test_6_a_claim_that_refuses_does_not_keep_the_snapshot() -> None:
    assert isinstance(leaving(content=None, claim=o.claim(), claim_left=True), Release)


def test_what_we_do_not_hold_is_left_to_others() -> None:
    assert leaving(snapshot=v.ready_snapshot(metadata__finalizers=["theirs"], **v.GONE)) == Rest()


def test_a_missing_class_stops_no_deletion() -> None:
    assert isinstance(leaving(klass=None), Amend)
    assert isinstance(leaving(klass=None, content=None), Release)
