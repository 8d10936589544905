"""The tables of the driver half: what a content asks of its driver, and what it keeps for a record."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from adapters.kubernetes import member, names, shape
from adapters.kubernetes.decide import driver_half
from adapters.kubernetes.facts import Facts, snapshot_of_reference
from bridge.model.failure import Failure, FailureKind
from bridge.model.secret import SecretRef
from bridge.model.snapshot import DeletionPolicy, HandleSource, SnapshotState, SnapshotStatus, VolumeSource, Wish
from tests.unit.kubernetes import objects as o

Object = dict[str, Any]

GOES = {"metadata__deletionTimestamp": "2026-11-21T12:30:00Z"}
FREE = {"metadata__finalizers": []}
TOLD = {"metadata__annotations": {names.BEING_DELETED: "yes"}}
MARKED = {"metadata__annotations": {names.BEING_CREATED: "yes"}}
STATIC = {"spec__source": {"snapshotHandle": "snap-9"}}
UNBOUND = {"spec__volumeSnapshotRef": {"namespace": "apps", "name": "one"}}
CUT = {"status": {"snapshotHandle": "snap-1", "readyToUse": False}}
READY = {"status": {"snapshotHandle": "snap-1", "readyToUse": True}}
MEMBER = {"status": {"snapshotHandle": "snap-1", "readyToUse": False, "volumeGroupSnapshotHandle": "group-1"}}


def content(*changes: dict[str, Any]) -> Object:
    merged: dict[str, Any] = {}
    for change in changes:
        merged |= change
    return o.content(**merged)


def facts(item: Object, klass: Object | None = None, **more: Any) -> Facts:
    given = o.klass() if klass is None else klass
    return Facts(uid=snapshot_of_reference(item), content=item, klass=given or None, class_name="plain", **more)


@pytest.mark.parametrize(
    ("case", "item", "wish"),
    [
        ("new", content(), Wish.PRESENT),
        ("ready", content(READY), Wish.PRESENT),
        ("told to go", content(READY, GOES, TOLD), Wish.ABSENT),
        ("told to go, not deleted yet", content(READY, TOLD), Wish.PRESENT),
        ("deleted by hand while its VolumeSnapshot lives", content(READY, GOES), Wish.PRESENT),
        ("deleted by hand before it was cut", content(GOES), Wish.PRESENT),
        ("told to go in the middle of a create", content(GOES, {"metadata__annotations": {
            names.BEING_CREATED: "yes", names.BEING_DELETED: "yes"}}), Wish.ABSENT),
        ("deleted in the middle of a create", content(GOES, MARKED), Wish.PRESENT),
        ("let go already, others hold it", content(READY, GOES, TOLD, {"metadata__finalizers": ["x/y"]}), Wish.GONE),
        ("static, bound, deleted by hand", content(STATIC, GOES), Wish.PRESENT),
        ("static, never bound, deleted", content(STATIC, UNBOUND, GOES), Wish.ABSENT),
        ("static, never bound", content(STATIC, UNBOUND), Wish.PRESENT),
        ("a member", content(MEMBER), Wish.PRESENT),
        ("a member whose handle is not known yet",
         content({"metadata__annotations": {member.GROUP_HANDLE: "group-1"}}), Wish.GONE),
        ("a member that is told to go", content(MEMBER, GOES, TOLD), Wish.ABSENT),
    ],
)  # fmt: skip
def test_what_a_content_wants(case: str, item: Object, wish: Wish) -> None:
    assert driver_half.wish_of(item) is wish, case


def test_a_dynamic_contents_request() -> None:
    secret = {names.DELETION_SECRET_NAME: "s", names.DELETION_SECRET_NAMESPACE: "vault"}
    klass = o.klass(parameters={"type": "fast", "csi.storage.k8s.io/snapshotter-list-secret-name": "list",
                                "csi.storage.k8s.io/snapshotter-secret-name": "${volumesnapshot.name}",
                                "csi.storage.k8s.io/snapshotter-secret-namespace": "vault",
                                "csi.storage.k8s.io/snapshotter-list-secret-namespace": "vault"})  # fmt: skip
    item = content({"metadata__annotations": secret})
    found = driver_half.request("c", facts(item, klass))
    assert found.key.uid == "content-uid"
    assert found.source == VolumeSource("vol-1")
    assert found.snapshot_name == f"snapshot-{o.UID}"
    assert found.parameters == {"type": "fast"}
    assert found.secrets.create == found.secrets.delete == SecretRef("k8s", "vault/s")
    assert found.secrets.inspect == SecretRef("k8s", "vault/list")
    assert driver_half.record(facts(item, klass), item, None).secrets == found.secrets
    assert (found.policy, found.held, found.trouble) == (DeletionPolicy.DELETE, True, None)


def test_a_driver_is_told_where_a_snapshot_comes_from_where_that_is_wanted() -> None:
    named = facts(content(), naming=names.Naming(extra_metadata=True))
    assert driver_half.request("c", named).parameters == {
        "csi.storage.k8s.io/volumesnapshot/name": "one",
        "csi.storage.k8s.io/volumesnapshot/namespace": "apps",
        "csi.storage.k8s.io/volumesnapshotcontent/name": f"snapcontent-{o.UID}",
    }


@pytest.mark.parametrize(
    ("case", "item", "klass", "code"),
    [
        ("its class is gone", content(), {}, "CLASS_NOT_FOUND"),
        ("static, its class is gone", content(STATIC), {}, "CLASS_NOT_FOUND"),
        ("no class", content({"spec__volumeSnapshotClassName": None}), {}, ""),
        ("a reserved parameter", content(), o.klass(parameters={"csi.storage.k8s.io/x": "1"}), "BAD_PARAMETERS"),
        ("static, a reserved parameter", content(STATIC), o.klass(parameters={"csi.storage.k8s.io/x": "1"}), ""),
        ("no source", content({"spec__source": {}}), None, "BAD_CONTENT"),
        ("never bound, and dynamic", content(UNBOUND), None, "BAD_CONTENT"),
        ("told to go", content(GOES, TOLD), {}, ""),
    ],
)
def test_why_no_call_can_be_made(case: str, item: Object, klass: Object | None, code: str) -> None:
    trouble = driver_half.request("c", facts(item, klass)).trouble
    assert (trouble.code if trouble else "") == code, case


@pytest.mark.parametrize(
    ("case", "item", "klass", "handle"),
    [
        ("dynamic, cut", content(CUT), None, "snap-1"),
        ("static: taken over", content(STATIC), None, "snap-9"),
        ("static, never bound: looked at too", content(STATIC, UNBOUND), None, "snap-9"),
        ("static, its class is gone: not looked at", content(STATIC), {}, ""),
        ("static, told to go and never seen on the backend", content(STATIC, GOES, TOLD), None, ""),
        ("static, told to go, and seen", content(STATIC, CUT, GOES, TOLD), None, "snap-1"),
    ],
)
def test_which_snapshot_a_content_has(case: str, item: Object, klass: Object | None, handle: str) -> None:
    given = facts(item, klass)
    assert driver_half.record(given, item, None).handle == handle, case


def test_upstreams_mark_is_repeated_as_upstream_would_and_no_refusal_closes_it() -> None:
    item = content(MARKED)
    record = driver_half.record(facts(item, o.klass(parameters={"type": "fast"})), item, None)
    assert record.note_open
    assert record.note is not None
    assert (record.note.snapshot_name, record.note.parameters) == (f"snapshot-{o.UID}", {"type": "fast"})
    assert record.note.unsure


def test_upstreams_mark_waits_for_the_class_unless_the_content_goes() -> None:
    stays, leaves = content(MARKED), content(GOES, {"metadata__annotations": {
        names.BEING_CREATED: "yes", names.BEING_DELETED: "yes"}})  # fmt: skip
    assert not driver_half.record(facts(stays, {}), stays, None).note_open
    assert driver_half.record(facts(leaves, {}), leaves, None).note_open


def test_a_snapshot_that_upstream_cut_is_polled_as_upstream_does() -> None:
    """By repeating the create: a driver that cannot list would else be taken at its word that it is ready."""
    item = content(CUT)
    record = driver_half.record(facts(item), item, None)
    assert record.note is not None
    assert not record.note_open
    assert record.note.unsure
    ready = content(READY)
    assert driver_half.record(facts(ready), ready, None).note is None


def test_a_member_is_never_deleted_alone_and_never_cut_again() -> None:
    item = content(MEMBER, GOES, TOLD)
    request, record = driver_half.request("c", facts(item)), driver_half.record(facts(item), item, None)
    assert request.policy is record.policy is DeletionPolicy.RETAIN
    assert request.source == HandleSource("snap-1")
    assert record.note is None
    assert not record.note_open


@pytest.mark.parametrize(
    ("case", "item", "state", "handle", "reason", "prefix"),
    [
        ("create", content(), SnapshotState.FAILING, "", "SnapshotCreationFailed", "Failed to create snapshot: "),
        ("poll", content(CUT), SnapshotState.FAILING, "snap-1", "SnapshotContentCheckandUpdateFailed",
         "Failed to check and update snapshot content: "),
        ("static", content(STATIC), SnapshotState.FAILING, "", "SnapshotContentCheckandUpdateFailed",
         "Failed to check and update snapshot content: "),
        ("delete", content(CUT), SnapshotState.DELETING, "snap-1", "SnapshotDeleteError",
         "Failed to delete snapshot: "),
    ],
)  # fmt: skip
def test_events_and_texts_are_upstreams(
    case: str, item: Object, state: SnapshotState, handle: str, reason: str, prefix: str
) -> None:
    failure = Failure(FailureKind.UNSURE, "INTERNAL", "disk on fire")
    told = SnapshotStatus(state, handle=handle, failure=failure)
    assert driver_half.text_of(item, told) == (reason, f"{prefix}disk on fire (INTERNAL)"), case


@pytest.mark.parametrize(
    ("case", "item", "open_"),
    [
        ("new", content(), True),
        ("cut", content(CUT), True),
        ("ready", content(READY), False),
        ("ready with upstream's mark", content(READY, MARKED), True),
        ("ready, deleted", content(READY, GOES), True),
    ],
)
def test_what_a_start_looks_at(case: str, item: Object, open_: bool) -> None:
    assert driver_half.is_open(item) is open_, case


def test_the_creation_time_is_now_where_the_driver_does_not_say() -> None:
    """Upstream's defect 14: an absent time became 1970."""
    item = content()
    record = driver_half.record(facts(item), item, None)
    told = shape.with_status(item, dataclasses.replace(record, handle="snap-1", ready=True), 5.5)
    assert told is not None
    assert told["status"] == {"snapshotHandle": "snap-1", "readyToUse": True, "creationTime": 5_500_000_000}
