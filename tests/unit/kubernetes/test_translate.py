"""The table of translation: objects as the cluster has them -> the neutral request."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names, translate
from adapters.kubernetes.facts import Facts
from bridge.model.keys import snapshot_key
from bridge.model.secret import SecretRef
from bridge.model.snapshot import DeletionPolicy, HandleSource, SnapshotRequest, VolumeSource, Wish
from tests.unit.kubernetes import objects as o

GONE = {"metadata__deletionTimestamp": "2026-11-21T12:30:00Z"}


def facts(**given: Any) -> Facts:
    """A dynamic snapshot with all around it in order; what is given replaces that part."""
    usual: dict[str, Any] = {
        "uid": o.UID,
        "snapshot": o.snapshot(),
        "claim": o.claim(),
        "volume": o.volume(),
        "class_name": "plain",
        "klass": o.klass(),
    }
    return Facts(**{**usual, **given})


def static(**given: Any) -> Facts:
    """A pre-provisioned snapshot and its content, not bound yet."""
    usual: dict[str, Any] = {
        "uid": o.UID,
        "snapshot": o.snapshot(spec__source={"volumeSnapshotContentName": "old"}, spec__volumeSnapshotClassName=None),
        "content": o.content(
            metadata__name="old",
            spec__source={"snapshotHandle": "snap-9"},
            spec__volumeSnapshotRef={"namespace": "apps", "name": "one"},
        ),
    }
    return Facts(**{**usual, **given})


def request(given: Facts) -> SnapshotRequest:
    return translate.request("east", given)


def test_a_dynamic_snapshot() -> None:
    found = request(facts())
    assert found.key == snapshot_key("east", o.UID)
    assert found.wish is Wish.PRESENT
    assert (found.namespace, found.name, found.volume) == ("apps", "one", "data")
    assert found.driver == o.DRIVER
    assert found.source == VolumeSource("vol-1")
    assert found.snapshot_name == "snapshot-6f1c"
    assert found.policy is DeletionPolicy.DELETE
    assert found.held
    assert found.trouble is None
    assert not found.in_use
    assert not found.abandon
    assert found.created_at == 1795262400.0


TROUBLES: list[tuple[str, Facts, str, str]] = [
    (
        "class missing",
        facts(klass=None),
        "GetSnapshotClassFailed",
        'Failed to get snapshot class with error volumesnapshotclass.snapshot.storage.k8s.io "plain" not found',
    ),
    (
        "no default class",
        facts(class_name="", klass=None),
        "SetDefaultSnapshotClassFailed",
        "Failed to set default snapshot class with error cannot find default snapshot class",
    ),
    (
        "two default classes",
        facts(class_name="", klass=None, defaults=(o.klass(), o.klass())),
        "SetDefaultSnapshotClassFailed",
        "Failed to set default snapshot class with error 2 default snapshot classes were found",
    ),
    ("claim missing", facts(claim=None, volume=None), "SnapshotContentCreationFailed", "failed to retrieve PVC data"),
    (
        "claim missing, no class",
        facts(claim=None, volume=None, class_name="", klass=None),
        "SetDefaultSnapshotClassFailed",
        "failed to retrieve PVC data",
    ),
    (
        "claim not bound",
        facts(claim=o.claim(status__phase="Pending")),
        "SnapshotContentCreationFailed",
        "the PVC data is not yet bound to a PV, will not attempt to take a snapshot",
    ),
    (
        "claim being deleted and not ours",
        facts(claim=o.claim(metadata__finalizers=[], **GONE)),
        "SnapshotContentCreationFailed",
        "claim is being deleted",
    ),
    ("volume missing", facts(volume=None), "SnapshotContentCreationFailed", "failed to retrieve PV pv-1"),
    (
        "volume of another claim",
        facts(volume=o.volume(spec__claimRef={"namespace": "apps", "name": "data", "uid": "other"})),
        "SnapshotContentCreationFailed",
        "claim in dataSource not bound or invalid",
    ),
    (
        "no CSI volume",
        facts(volume=o.volume(spec__csi=None)),
        "SnapshotContentCreationFailed",
        "cannot find CSI PersistentVolumeSource for volume pv-1",
    ),
    (
        "class of another driver",
        facts(klass=o.klass(driver="other")),
        "SnapshotContentCreationFailed",
        "the class plain is of driver other, the volume of driver csi.example",
    ),
    (
        "unknown reserved parameter",
        facts(klass=o.klass(parameters={"csi.storage.k8s.io/fstype": "ext4"})),
        "SnapshotContentCreationFailed",
        'found unknown parameter key "csi.storage.k8s.io/fstype" with reserved namespace csi.storage.k8s.io/',
    ),
    (
        "half a secret",
        facts(klass=o.klass(parameters={"csi.storage.k8s.io/snapshotter-secret-name": "s"})),
        "SnapshotContentCreationFailed",
        "Both must be specified",
    ),
    (
        "dynamic, but the content is pre-provisioned",
        facts(content=o.content(spec__source={"snapshotHandle": "s"})),
        "SnapshotContentMismatch",
        "VolumeSnapshotContent snapcontent-6f1c is pre-provisioned while expecting a dynamically provisioned one",
    ),
    (
        "the content is another snapshot's",
        facts(content=o.content(spec__volumeSnapshotRef={"namespace": "apps", "name": "two", "uid": "x"})),
        "SnapshotContentMisbound",
        "VolumeSnapshotContent [snapcontent-6f1c] is bound to a different snapshot",
    ),
    (
        "ready, and the content is another snapshot's",
        facts(
            snapshot=o.snapshot(status={"readyToUse": True}),
            content=o.content(spec__volumeSnapshotRef={"namespace": "apps", "name": "two", "uid": "x"}),
        ),
        "SnapshotMisbound",
        "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly",
    ),
    (
        "it was cut, and the content has vanished",
        facts(
            snapshot=o.snapshot(
                status={"boundVolumeSnapshotContentName": "c", "creationTime": "2026-11-21T12:00:00Z"}
            )
        ),
        "SnapshotContentMissing",
        "VolumeSnapshotContent is missing",
    ),
    (
        "it was ready, its driver tells no time, and the content has vanished",
        facts(snapshot=o.snapshot(status={"boundVolumeSnapshotContentName": "c", "readyToUse": True})),
        "SnapshotContentMissing",
        "VolumeSnapshotContent is missing",
    ),
    ("static content missing", static(content=None), "SnapshotContentMissing", "VolumeSnapshotContent is missing"),
    (
        "static, but the content is dynamic",
        static(content=o.content(metadata__name="old")),
        "SnapshotContentMismatch",
        "VolumeSnapshotContent is dynamically provisioned while expecting a pre-provisioned one",
    ),
    (
        "static content of another snapshot",
        static(
            content=o.content(
                metadata__name="old",
                spec__source={"snapshotHandle": "s"},
                spec__volumeSnapshotRef={"namespace": "apps", "name": "two"},
            )
        ),
        "SnapshotContentMisbound",
        "VolumeSnapshotContent [old] is bound to a different snapshot",
    ),
    (
        "static content bound to a namesake that is gone",
        static(
            content=o.content(
                metadata__name="old",
                spec__source={"snapshotHandle": "s"},
                spec__volumeSnapshotRef={"namespace": "apps", "name": "one", "uid": "earlier"},
            )
        ),
        "SnapshotContentMisbound",
        "VolumeSnapshotContent [old] is bound to a different snapshot",
    ),
]


@pytest.mark.parametrize(("given", "code", "text"), [row[1:] for row in TROUBLES], ids=[row[0] for row in TROUBLES])
def test_what_cannot_be_carried_out_says_so_in_upstreams_words(given: Facts, code: str, text: str) -> None:
    found = request(given)
    assert found.trouble is not None
    assert found.trouble.code == code
    assert text in found.trouble.message


@pytest.mark.parametrize("row", TROUBLES, ids=[row[0] for row in TROUBLES])
def test_a_withdrawn_request_has_no_trouble(row: tuple[str, Facts, str, str]) -> None:
    assert row[1].snapshot is not None
    given = Facts(**{field: getattr(row[1], field) for field in Facts.__slots__})
    withdrawn = o.changed({**row[1].snapshot, "metadata": {**row[1].snapshot["metadata"]}}, dict(GONE))
    found = request(Facts(uid=given.uid, snapshot=withdrawn, content=given.content, klass=given.klass))
    assert found.wish is Wish.ABSENT
    assert found.trouble is None


def test_the_only_default_class_counts() -> None:
    default = o.klass(deletionPolicy="Retain", parameters={"speed": "high"})
    found = request(facts(class_name="", klass=None, defaults=(default,)))
    assert found.trouble is None
    assert found.policy is DeletionPolicy.RETAIN
    assert found.parameters == {"speed": "high"}


def test_parameters_for_us_do_not_reach_the_driver_and_name_the_secrets() -> None:
    prefix = "csi.storage.k8s.io/snapshotter"
    given = {
        "tier": "gold",
        f"{prefix}-secret-name": "${volumesnapshot.name}-$volumesnapshot",
        f"{prefix}-secret-namespace": "x",
    }
    broken = request(facts(klass=o.klass(parameters=given)))
    assert broken.trouble is not None
    assert 'invalid tokens: ["volumesnapshot"]' in broken.trouble.message
    given |= {
        f"{prefix}-secret-name": "${volumesnapshot.name}-key",
        f"{prefix}-secret-namespace": "${volumesnapshot.namespace}",
        f"{prefix}-list-secret-name": "list-${volumesnapshotcontent.name}",
        f"{prefix}-list-secret-namespace": "sys",
    }
    found = request(facts(klass=o.klass(parameters=given)))
    assert found.trouble is None
    assert found.parameters == {"tier": "gold"}
    assert found.secrets.create == found.secrets.delete == SecretRef("k8s", "apps/one-key")
    assert found.secrets.inspect == SecretRef("k8s", "sys/list-snapcontent-6f1c")


def test_a_bound_contents_word_counts_more_than_its_class() -> None:
    """The policy may have been changed on the content, and the class may be gone."""
    content = o.content(
        spec__deletionPolicy="Retain",
        metadata__annotations={names.DELETION_SECRET_NAME: "s", names.DELETION_SECRET_NAMESPACE: "n"},
    )
    found = request(facts(content=content))
    assert found.policy is DeletionPolicy.RETAIN
    assert found.secrets.delete == SecretRef("k8s", "n/s")
    assert found.trouble is None


def test_a_policy_that_nobody_knows_keeps_the_data() -> None:
    assert request(facts(content=o.content(spec__deletionPolicy="Other"))).policy is DeletionPolicy.RETAIN


def test_a_ready_snapshot_does_not_need_its_class() -> None:
    ready = o.snapshot(status={"readyToUse": True})
    found = request(facts(snapshot=ready, content=o.content(), klass=None))
    assert found.trouble is not None  # told only while nothing is begun; the record is ready
    assert found.source == VolumeSource("vol-1")


def test_a_pre_provisioned_snapshot() -> None:
    found = request(static())
    assert found.trouble is None
    assert found.source == HandleSource("snap-9")
    assert found.driver == o.DRIVER
    assert found.volume == ""


HELD: list[tuple[str, Facts, bool]] = [
    ("both", facts(), True),
    ("upstream's first one alone", facts(snapshot=o.snapshot(metadata__finalizers=[names.SOURCE_FINALIZER])), True),
    ("none on the snapshot", facts(snapshot=o.snapshot(metadata__finalizers=["other/one"])), False),
    ("none on the claim", facts(claim=o.claim(metadata__finalizers=[])), False),
    (
        "ready, none on the claim",
        facts(snapshot=o.snapshot(status={"readyToUse": True}), claim=o.claim(metadata__finalizers=[])),
        True,
    ),
    ("claim gone", facts(claim=None), True),
    ("static", static(), True),
    ("deleting, held", facts(snapshot=o.snapshot(**GONE), claim=o.claim(metadata__finalizers=[])), True),
    (
        "deleting, upstream's last one left",
        facts(snapshot=o.snapshot(metadata__finalizers=[names.BOUND_FINALIZER], **GONE)),
        True,
    ),
    ("deleting, only others' left", facts(snapshot=o.snapshot(metadata__finalizers=["other/one"], **GONE)), False),
]


@pytest.mark.parametrize(("given", "held"), [row[1:] for row in HELD], ids=[row[0] for row in HELD])
def test_held(given: Facts, held: bool) -> None:
    assert request(given).held is held


def test_gone_is_not_absent() -> None:
    found = request(Facts(uid=o.UID, content=o.content()))
    assert found.wish is Wish.GONE
    assert (found.namespace, found.name) == ("apps", "one")


def test_a_restore_under_way_is_use() -> None:
    found = request(facts(restoring=("apps/restored", "web/copy")))
    assert found.in_use == "Snapshot is being used to restore a PVC: apps/restored, web/copy"


def test_the_owner_may_abandon() -> None:
    assert request(facts(snapshot=o.snapshot(metadata__annotations={names.ABANDON: "true"}))).abandon
    assert not request(facts(snapshot=o.snapshot(metadata__annotations={names.ABANDON: "yes"}))).abandon
