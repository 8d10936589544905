"""The rules that every snapshot object must keep, and how the API server's questions about them are read."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from adapters.kubernetes.decide import admission
from adapters.kubernetes.webhook import review

Object = dict[str, Any]

KINDS = {kind.name: kind for kind in admission.KINDS}
REFERENCE = {"name": "one", "namespace": "east"}
GOOD: dict[str, Object] = {
    "VolumeSnapshot": {"spec": {"source": {"persistentVolumeClaimName": "data"}}},
    "VolumeSnapshotContent": {
        "spec": {"source": {"volumeHandle": "v"}, "volumeSnapshotRef": REFERENCE, "driver": "d"},
    },
    "VolumeSnapshotClass": {"driver": "d", "deletionPolicy": "Delete"},
    "VolumeGroupSnapshot": {"spec": {"source": {"selector": {"matchLabels": {"a": "b"}}}}},
    "VolumeGroupSnapshotContent": {
        "spec": {"source": {"volumeHandles": ["v"]}, "volumeGroupSnapshotRef": REFERENCE, "driver": "d"},
    },
    "VolumeGroupSnapshotClass": {"driver": "d", "deletionPolicy": "Delete", "parameters": {"a": "b"}},
}


def changed(item: Object, path: str, value: object) -> Object:
    """A copy with one field set; None takes it away."""
    made = copy.deepcopy(item)
    *outer, last = path.split(".")
    inner = made
    for field in outer:
        inner = inner.setdefault(field, {})
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value
    return made


def texts(name: str, before: Object | None, after: Object, **options: bool) -> list[str]:
    return [one.text for one in admission.refusals(KINDS[name], before, after, **options)]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_object_is_let_in_and_may_stay(name: str) -> None:
    good = GOOD[name]
    assert texts(name, None, good) == []
    assert texts(name, good, changed(good, "metadata.annotations", {"a": "b"})) == []


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("VolumeSnapshot", "spec.source.persistentVolumeClaimName", None, "spec.source: exactly one of"),
        ("VolumeSnapshot", "spec.source.volumeSnapshotContentName", "c", "spec.source: exactly one of"),
        ("VolumeSnapshot", "spec", None, "spec.source: exactly one of"),
        ("VolumeSnapshot", "spec.source", "text", "spec.source: exactly one of"),
        ("VolumeSnapshot", "spec.volumeSnapshotClassName", "", "spec.volumeSnapshotClassName: "),
        ("VolumeSnapshotContent", "spec.source.snapshotHandle", "s", "spec.source: exactly one of"),
        ("VolumeSnapshotContent", "spec.volumeSnapshotRef.namespace", None, "spec.volumeSnapshotRef: both"),
        ("VolumeGroupSnapshot", "spec.source.volumeGroupSnapshotContentName", "c", "spec.source: exactly one of"),
        ("VolumeGroupSnapshotContent", "spec.source.volumeHandles", None, "spec.source: exactly one of"),
        ("VolumeGroupSnapshotContent", "spec.volumeGroupSnapshotRef.name", None, "spec.volumeGroupSnapshotRef: both"),
    ],
)
def test_what_is_wrong_is_refused_but_does_not_hold_fast_what_was_wrong_before(
    name: str, path: str, value: object, told: str
) -> None:
    wrong = changed(GOOD[name], path, value)
    (found,) = texts(name, None, wrong)
    assert found.startswith(told)
    assert any(text.startswith(told) for text in texts(name, GOOD[name], wrong))
    assert texts(name, wrong, changed(wrong, "metadata.finalizers", [])) == []


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("VolumeSnapshot", "spec.source.persistentVolumeClaimName", "other", "is immutable"),
        ("VolumeSnapshotContent", "spec.source.volumeHandle", "other", "is immutable"),
        ("VolumeGroupSnapshot", "spec.source.selector", {"matchLabels": {}}, "is immutable"),
        ("VolumeGroupSnapshotContent", "spec.driver", "other", "driver is immutable once set"),
        ("VolumeGroupSnapshotContent", "spec.volumeGroupSnapshotRef.name", "other", "are immutable"),
        ("VolumeGroupSnapshotClass", "parameters", {"a": "c"}, "parameters are immutable once set"),
    ],
)
def test_what_may_not_change(name: str, path: str, value: object, told: str) -> None:
    (found,) = texts(name, GOOD[name], changed(GOOD[name], path, value))
    assert told in found


def test_a_source_is_chosen_for_good() -> None:
    after = {"spec": {"source": {"volumeSnapshotContentName": "c"}}}
    assert texts("VolumeSnapshot", GOOD["VolumeSnapshot"], after) == [
        "spec.source.persistentVolumeClaimName: persistentVolumeClaimName is required once set"
    ]


def test_a_uid_may_be_set_once() -> None:
    good = GOOD["VolumeGroupSnapshotContent"]
    bound = changed(good, "spec.volumeGroupSnapshotRef.uid", "u-1")
    assert texts("VolumeGroupSnapshotContent", good, bound) == []
    other = changed(good, "spec.volumeGroupSnapshotRef.uid", "u-2")
    assert len(texts("VolumeGroupSnapshotContent", bound, other)) == 1


def test_the_volume_mode_is_fixed_unless_told_otherwise() -> None:
    good = changed(GOOD["VolumeSnapshotContent"], "spec.sourceVolumeMode", "Filesystem")
    for value in ("Block", None):
        after = changed(good, "spec.sourceVolumeMode", value)
        assert len(texts("VolumeSnapshotContent", good, after)) == 1
        assert texts("VolumeSnapshotContent", good, after, volume_mode=False) == []


def klass(name: str, driver: str = "d", mark: object = "true", kind: str = "VolumeSnapshotClass") -> Object:
    return {"metadata": {"name": name, "annotations": {KINDS[kind].default_mark: mark}}, "driver": driver}


@pytest.mark.parametrize("name", ["VolumeSnapshotClass", "VolumeGroupSnapshotClass"])
def test_when_a_class_becomes_the_default(name: str) -> None:
    kind = KINDS[name]
    ours, other, plain = (klass("c", *more, kind=name) for more in (("d",), ("e",), ("d", "false")))
    becomes = admission.becomes_default
    assert becomes(kind, None, ours)
    assert becomes(kind, plain, ours)
    assert becomes(kind, other, ours)
    assert not becomes(kind, ours, ours)
    assert not becomes(kind, None, plain)
    assert not becomes(kind, None, {"metadata": {"annotations": []}, "driver": 3})
    assert admission.default_drivers(kind, ours) == ("d",)
    assert admission.default_drivers(kind, plain) == ()


def test_the_second_default_is_told_the_first_and_the_remedy() -> None:
    kind = KINDS["VolumeSnapshotClass"]
    assert admission.second_default(kind, klass("c"), []) is None
    assert admission.second_default(kind, klass("c"), ["c"]) is None
    refusal = admission.second_default(kind, klass("c"), ["a", "c"])
    assert refusal is not None
    assert "default snapshot class: a already exists for driver: d" in refusal.message
    assert (
        "kubectl annotate volumesnapshotclass a snapshot.storage.kubernetes.io/is-default-class-" in refusal.message
    )


def question(**changes: object) -> Object:
    request: Object = {
        "uid": "u",
        "resource": {"group": "snapshot.storage.k8s.io", "version": "v1", "resource": "volumesnapshots"},
        "operation": "CREATE",
        "object": GOOD["VolumeSnapshot"],
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def test_a_question_is_read() -> None:
    asked = review.parse(orjson.dumps(question()))
    assert (asked.uid, asked.kind, asked.operation, asked.before) == ("u", KINDS["VolumeSnapshot"], "CREATE", None)
    assert asked.looked_at
    assert review.parse(orjson.dumps(question(operation="UPDATE", oldObject={"a": 1}))).before == {"a": 1}
    assert not review.parse(orjson.dumps(question(operation="DELETE", object=None))).looked_at
    pods = {"group": "", "version": "v1", "resource": "pods"}
    assert not review.parse(orjson.dumps(question(resource=pods))).looked_at


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"\xff{", "not JSON"),
        (b"[]", "no AdmissionReview"),
        (orjson.dumps({**question(), "apiVersion": "admission.k8s.io/v1beta1"}), "admissionReviewVersions"),
        (orjson.dumps({**question(), "request": None}), "request is missing"),
        (orjson.dumps(question(uid="")), "request.uid"),
        (orjson.dumps(question(resource="volumesnapshots")), "request.resource"),
        (orjson.dumps(question(object=[])), "request.object"),
        (orjson.dumps(question(operation="UPDATE")), "request.oldObject"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_question_is_told_so(body: bytes, told: str) -> None:
    with pytest.raises(review.ReviewError, match=told):
        review.parse(body)


def test_the_answer_names_every_refusal() -> None:
    wrong = admission.refusals(KINDS["VolumeSnapshot"], None, {"spec": {"volumeSnapshotClassName": ""}})
    said = orjson.loads(review.answer("u", wrong))
    assert (said["kind"], said["response"]["uid"], said["response"]["allowed"]) == ("AdmissionReview", "u", False)
    message = said["response"]["status"]["message"]
    assert "exactly one of" in message
    assert "must not be the empty string" in message
    assert orjson.loads(review.answer("u", []))["response"] == {"uid": "u", "allowed": True}
