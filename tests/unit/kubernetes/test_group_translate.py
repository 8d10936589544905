"""VolumeGroupSnapshots -> requests: upstream's rows by their names (create 1-x, default class 5-x, missing 6-x)."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names as single
from adapters.kubernetes.groups import names, shape, status, translate
from adapters.kubernetes.groups.facts import GroupFacts, Source
from bridge.decide import group as core
from bridge.decide.group_action import NoteGroup
from bridge.model.group import GroupHandleSource, GroupNote, GroupStatus, VolumesSource
from bridge.model.secret import SecretRef
from bridge.model.snapshot import DeletionPolicy, SnapshotState, Wish
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes.objects import Object, changed

UID = "9a7b"


def group(**changes: Any) -> Object:
    """A dynamic group of the claims with app=db, of class `together`."""
    item: Object = {
        "apiVersion": names.API_VERSION,
        "kind": "VolumeGroupSnapshot",
        "metadata": {
            "name": "all", "namespace": "apps", "uid": UID, "resourceVersion": "10",
            "creationTimestamp": "2026-11-21T12:00:00Z", "finalizers": [names.BOUND_FINALIZER],
        },
        "spec": {
            "source": {"selector": {"matchLabels": {"app": "db"}}}, "volumeGroupSnapshotClassName": "together"
        },
    }  # fmt: skip
    return changed(item, changes)


def klass(**changes: Any) -> Object:
    return o.klass(**{"metadata__name": "together", **changes})


def content(**changes: Any) -> Object:
    """The dynamic group's content, created and not cut."""
    item: Object = {
        "metadata": {
            "name": names.content_name(UID), "uid": "gc-uid", "resourceVersion": "20",
            "finalizers": [names.CONTENT_FINALIZER], "annotations": {},
        },
        "spec": {
            "driver": o.DRIVER, "deletionPolicy": "Delete", "source": {"volumeHandles": ["vol-1", "vol-2"]},
            "volumeGroupSnapshotClassName": "together",
            "volumeGroupSnapshotRef": {"namespace": "apps", "name": "all", "uid": UID},
        },
    }  # fmt: skip
    return changed(item, changes)


def static(**changes: Any) -> Object:
    """A pre-provisioned content that is meant for the group and not bound."""
    handles = {"volumeGroupSnapshotHandle": "g-7", "volumeSnapshotHandles": ["s-1", "s-2"]}
    return content(**{
        "metadata__name": "by-hand", "spec__source": {"groupSnapshotHandles": handles},
        "spec__volumeGroupSnapshotRef": {"namespace": "apps", "name": "all"}, **changes,
    })  # fmt: skip


def source(number: int, **changes: Any) -> Source:
    """A bound claim and its volume; `claim__x` and `volume__x` change them."""
    of = {half: {key.removeprefix(f"{half}__"): value for key, value in changes.items() if key.startswith(half)}
          for half in ("claim", "volume")}  # fmt: skip
    name = f"data-{number}"
    claim = o.claim(metadata__name=name, metadata__uid=f"uid-{number}", spec__volumeName=f"pv-{number}")
    reference = {"namespace": "apps", "name": name, "uid": f"uid-{number}"}
    csi = {"driver": o.DRIVER, "volumeHandle": f"vol-{number}"}
    volume = o.volume(metadata__name=f"pv-{number}", spec__csi=csi, spec__claimRef=reference)
    return Source(changed(claim, of["claim"]), changed(volume, of["volume"]))


def facts(**changes: Any) -> GroupFacts:
    given: dict[str, Any] = {
        "group": group(), "sources": (source(1), source(2)), "class_name": "together", "klass": klass()
    }  # fmt: skip
    return GroupFacts(uid=UID, **{**given, **changes})


def trouble(given: GroupFacts) -> tuple[str, str]:
    """The event's reason and its text."""
    found = translate.request("east", given).trouble
    assert found is not None
    assert found.code in status.OWN_REASONS
    return found.code, found.message


def test_1_1_the_whole_request() -> None:
    request = translate.request("east", facts())
    assert (request.trouble, request.wish, request.held) == (None, Wish.PRESENT, True)
    assert request.source == VolumesSource(("vol-1", "vol-2"))
    assert (request.driver, request.policy) == (o.DRIVER, DeletionPolicy.DELETE)
    assert request.group_name == f"groupsnapshot-{UID}"


NO_CLASS = {"class_name": "", "klass": None, "group": group(spec__volumeGroupSnapshotClassName=None)}
GONE = source(1)
ROWS: list[tuple[str, dict[str, Any], str, str]] = [
    ("1-2 class missing", {"klass": None}, "GetGroupSnapshotClassFailed", '"together" not found'),
    ("1-3 no class and no default", NO_CLASS, "SetDefaultGroupSnapshotClassFailed", "cannot find default"),
    ("1-4 no PV", {"sources": (source(1), Source(source(2).claim, None))}, translate.FAILED, "retrieve PV pv-2"),
    ("1-5 unbound", {"sources": (source(1, claim__status__phase="Pending"),)}, translate.FAILED, "not yet bound"),
    ("1-6 non-CSI volume", {"sources": (source(1, volume__spec__csi=None),)}, translate.FAILED, "non-CSI volume"),
    ("1-7 other driver", {"klass": klass(driver="other")}, translate.FAILED, "mismatch with Volume"),
    ("1-7b two drivers", {"sources": (source(1), source(2, volume__spec__csi__driver="other"))}, translate.FAILED,
     "(other) mismatch"),
    ("1-8 nothing selected", {"sources": ()}, translate.FAILED, "app=db for group snapshot not applied to any PVC"),
    ("1-8b broken binding", {"sources": (source(1, volume__spec__claimRef={"name": "x"}),)}, translate.FAILED,
     "not bound or invalid"),
    ("1-9 content of another group", {"content": content(spec__volumeGroupSnapshotRef__uid="other")},
     "GroupSnapshotContentMisbound", "bound to a different group snapshot"),
    ("5-1 several defaults", {**NO_CLASS, "defaults": (klass(), klass())}, "SetDefaultGroupSnapshotClassFailed",
     "2 default snapshot classes were found"),
    ("6-1 content gone after it was cut",
     {"group": group(status={"readyToUse": True, "boundVolumeGroupSnapshotContentName": "c"})},
     "GroupSnapshotContentMissing", "VolumeGroupSnapshotContent is missing"),
    ("6-2 ready and misbound",
     {"group": group(status={"readyToUse": True}), "content": content(spec__volumeGroupSnapshotRef__name="x")},
     "GroupSnapshotMisbound", "not bound to the VolumeGroupSnapshot correctly"),
    ("bad operator", {"group": group(spec__source={"selector": {"matchExpressions": [
        {"key": "app", "operator": "Like", "values": ["db"]}]}})}, "GroupSnapshotValidationError",
     "'Like' is none of"),
    ("bad template", {"klass": klass(parameters={
        f"{single.PARAMETER_PREFIX}group-snapshotter-secret-name": "${pvc.name}",
        f"{single.PARAMETER_PREFIX}group-snapshotter-secret-namespace": "x"})}, translate.FAILED, "invalid tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "changes", "code", "words"), ROWS, ids=[row[0] for row in ROWS])
def test_row(row: str, changes: dict[str, Any], code: str, words: str) -> None:
    found = trouble(facts(**changes))
    assert found[0] == code
    assert words in found[1]


def test_5_2_one_default_is_taken_and_5_3_a_named_class_is_kept() -> None:
    default = klass(metadata__name="default")
    chosen = translate.choose_class(facts(**{**NO_CLASS, "defaults": (default,)}))
    assert chosen is not None
    assert chosen["metadata"]["name"] == "default"
    kept = translate.choose_class(facts(defaults=(default,)))
    assert kept is not None
    assert kept["metadata"]["name"] == "together"


STATIC_GROUP = group(
    spec__source={"volumeGroupSnapshotContentName": "by-hand"}, spec__volumeGroupSnapshotClassName=None
)
STATIC_ROWS = [
    ("1-10 no content", None, "GroupSnapshotContentMissing"),
    ("1-11 content is dynamic", content(metadata__name="by-hand"), "GroupSnapshotContentMismatch"),
    ("1-12 bad back-reference", static(spec__volumeGroupSnapshotRef__name="other"), "GroupSnapshotContentMisbound"),
]


@pytest.mark.parametrize(("row", "found", "code"), STATIC_ROWS, ids=[row[0] for row in STATIC_ROWS])
def test_static_row(row: str, found: Object | None, code: str) -> None:
    given = facts(group=STATIC_GROUP, content=found, class_name="", klass=None, sources=())
    assert trouble(given)[0] == code


def test_static_ok_names_the_group_and_its_members() -> None:
    request = translate.request("east", facts(group=STATIC_GROUP, content=static(), class_name="", klass=None))
    assert request.trouble is None
    assert request.source == GroupHandleSource("g-7", ("s-1", "s-2"))


def test_a_hold_counts_only_when_every_claim_has_it() -> None:
    assert translate.request("east", facts()).held
    assert not translate.request("east", facts(sources=(source(1), source(2, claim__metadata__finalizers=[])))).held
    assert not translate.request("east", facts(group=group(metadata__finalizers=[]))).held
    ready = group(status={"readyToUse": True})
    given = facts(group=ready, content=content(), sources=(source(1, claim__metadata__finalizers=[]),))
    assert translate.request("east", given).held


def test_the_content_says_what_and_for_how_long_once_it_is_made() -> None:
    made = content(spec__deletionPolicy="Retain", metadata__annotations={
        names.DELETION_SECRET_NAME: "key", names.DELETION_SECRET_NAMESPACE: "apps"})  # fmt: skip
    request = translate.request("east", facts(content=made, klass=None, sources=()))
    assert request.policy is DeletionPolicy.RETAIN
    assert request.source == VolumesSource(("vol-1", "vol-2"))
    assert request.secrets.delete == SecretRef("k8s", "apps/key")


def test_the_record_survives_its_way_through_the_content() -> None:
    """Note, members and handles: nothing that a delete needs may be lost."""
    request = translate.request("east", facts())
    note = GroupNote(request.group_name, ("vol-1", "vol-2"), {"a": "b"}, SecretRef("k8s", "apps/key"), "me")
    body = shape.new_content(core.begin(request, NoteGroup(note), None), facts())
    body["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    back = shape.record_of(facts(content=body), body, None)
    assert (back.note, back.note_open) == (note, True)
    assert body["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]
    assert body["spec"]["volumeGroupSnapshotRef"]["uid"] == UID


def test_the_bound_name_is_set_once_and_never_taken_out() -> None:
    before = {"boundVolumeGroupSnapshotContentName": "first", "readyToUse": True}
    failing = GroupStatus(SnapshotState.FAILING, failure=translate._creation_failed("x").failure)
    told = status.tell(group(status=before), None, failing, 0.0)
    assert told.status is not None
    assert told.status["boundVolumeGroupSnapshotContentName"] == "first"
    assert told.status["readyToUse"] is False
    again = status.tell(group(status=told.status), None, failing, 9.0)
    assert (again.status, again.reason) == (None, "")
