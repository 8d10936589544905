"""Where a claim's data may come from: upstream's checks, in its order, with its words."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.decide import source
from adapters.kubernetes.decide.source import FromClaim, FromSnapshot
from adapters.kubernetes.decide.verdict import Ignored, Refusal, State
from bridge.model.snapshot import HandleSource, VolumeSource
from tests.unit.kubernetes import provisioned as given

GONE = "2026-11-21T12:00:00Z"
REF = {"apiGroup": names.GROUP, "kind": "VolumeSnapshot", "name": "monday", "namespace": "vault"}


def origin(claim: given.Object, *grants: given.Object, across: bool = True) -> Any:
    return source.origin(claim, across_namespaces=across, grants=grants)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (given.claim(), None),
        (given.from_snapshot(), FromSnapshot("apps", "monday")),
        (
            given.claim(spec__dataSource={"kind": "PersistentVolumeClaim", "name": "old"}),
            FromClaim("apps", "old"),
        ),
        (
            given.claim(spec__dataSourceRef={"apiGroup": names.GROUP, "kind": "VolumeSnapshot", "name": "monday"}),
            FromSnapshot("apps", "monday"),
        ),
        (
            given.claim(spec__dataSource={"apiGroup": names.GROUP, "kind": "VolumeSnapshot", "name": ""}),
            Refusal("the PVC source not found for PVC data"),
        ),
        (
            given.claim(spec__dataSource={"apiGroup": "other.example", "kind": "VolumeSnapshot", "name": "monday"}),
            Refusal(
                "the PVC source does not belong to the right APIGroup. Expected snapshot.storage.k8s.io, "
                "Got other.example"
            ),
        ),
        (
            given.claim(spec__dataSource={"kind": "VolumeSnapshot", "name": "monday"}),
            Refusal("the PVC source does not belong to the right APIGroup. Expected snapshot.storage.k8s.io, Got "),
        ),
        (
            given.claim(spec__dataSourceRef={"apiGroup": "x.example", "kind": "Book", "name": "b"}),
            Ignored("Assuming an external populator will provision the volume"),
        ),
    ],
)
def test_the_source_is_read_from_the_claim(claim: given.Object, expected: object) -> None:
    assert origin(claim) == expected


def test_another_namespace_needs_the_feature() -> None:
    claim = given.claim(spec__dataSourceRef=REF)
    assert origin(claim, given.grant(), across=False) == Refusal(
        "dataSourceRef namespace specified but the CrossNamespaceVolumeDataSource feature is disabled"
    )
    assert source.named(claim) == FromSnapshot("vault", "monday")


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [
        ([given.grant()], True),
        ([given.grant(given={"name": "monday"})], True),
        ([given.grant(given={"name": ""})], True),
        ([given.grant(given={"name": "tuesday"}), given.grant()], True),
        ([], False),
        ([given.grant(giver={"namespace": "elsewhere"})], False),
        ([given.grant(giver={"group": "apps"})], False),
        ([given.grant(giver={"kind": "Pod"})], False),
        ([given.grant(given={"name": "tuesday"})], False),
        ([given.grant(given={"group": ""})], False),
        ([given.grant(given={"kind": "Secret"})], False),
        ([given.grant(giver={"namespace": "x"}), given.grant(given={"kind": "Secret"})], False),
    ],
)
def test_a_source_in_another_namespace_needs_a_grant(grants: list[given.Object], allowed: bool) -> None:
    found = origin(given.claim(spec__dataSourceRef=REF), *grants)
    if allowed:
        assert found == FromSnapshot("vault", "monday")
    else:
        text = "accessing vault/monday of VolumeSnapshot dataSource from apps/data isn't allowed"
        assert found == Refusal(text)


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (given.snapshot(), "content-1"),
        (given.snapshot(metadata__deletionTimestamp=GONE), "snapshot monday is being deleted"),
        (
            given.snapshot(metadata__deletionTimestamp=GONE, metadata__finalizers=["other.example/x"]),
            "snapshot monday is being deleted",
        ),
        (
            given.snapshot(metadata__deletionTimestamp=GONE, metadata__finalizers=[names.RESTORE_FINALIZER]),
            "content-1",
        ),
        (given.snapshot(status=None), "snapshot monday not bound"),
        (given.snapshot(status__boundVolumeSnapshotContentName=None), "snapshot monday not bound"),
        (
            None,
            "error getting snapshot monday from api server: volumesnapshots.snapshot.storage.k8s.io "
            '"monday" not found',
        ),
    ],
)
def test_a_snapshot_leads_to_its_content(snapshot: given.Object | None, expected: str) -> None:
    found = source.bound_content(snapshot, "monday")
    assert (found.message if isinstance(found, Refusal) else found) == expected


ELSEWHERE = "snapshotcontent content-1 for snapshot monday is bound to a different snapshot"


@pytest.mark.parametrize(
    ("snapshot", "content", "expected"),
    [
        (given.snapshot(), given.content(), HandleSource("handle-1")),
        (given.snapshot(), None, "error getting snapshotcontent content-1 for snapshot monday"),
        (given.snapshot(), given.content(spec__volumeSnapshotRef__uid="other"), ELSEWHERE),
        (given.snapshot(), given.content(spec__volumeSnapshotRef__uid=""), ELSEWHERE),
        (given.snapshot(), given.content(spec__volumeSnapshotRef__namespace="other"), ELSEWHERE),
        (given.snapshot(), given.content(spec__volumeSnapshotRef__name="other"), ELSEWHERE),
        (
            given.snapshot(),
            given.content(spec__driver="other.example"),
            "snapshotcontent content-1 for snapshot monday is not handled by CSI driver of StorageClass fast",
        ),
        (given.snapshot(status__readyToUse=False), given.content(), "snapshot monday is not Ready"),
        (given.snapshot(status__readyToUse=None), given.content(), "snapshot monday is not Ready"),
        (given.snapshot(), given.content(status=None), "snapshot handle monday is not available"),
        (given.snapshot(), given.content(status__snapshotHandle=7), "snapshot handle monday is not available"),
        (given.snapshot(), given.content(spec__volumeSnapshotRef="me"), ELSEWHERE),
        (
            given.snapshot(status__restoreSize="lots"),
            given.content(),
            "snapshot monday is malformed: status.restoreSize: 'lots' is no amount of storage",
        ),
        (
            given.snapshot(status__restoreSize="2Gi"),
            given.content(),
            "requested volume size 1073741824 is less than the size 2147483648 for the source snapshot monday",
        ),
        (given.snapshot(status__restoreSize="512Mi"), given.content(), HandleSource("handle-1")),
        (given.snapshot(status__restoreSize=None), given.content(), HandleSource("handle-1")),
    ],
)
def test_a_snapshot_is_checked(
    snapshot: given.Object, content: given.Object | None, expected: HandleSource | str
) -> None:
    found = source.check_snapshot(given.from_snapshot(), given.klass(), snapshot, content, guard_mode=True)
    if isinstance(expected, str):
        assert found == Refusal(expected, State.NO_CHANGE)
    else:
        assert found == expected


def test_a_claim_without_a_size_is_refused() -> None:
    claim = given.from_snapshot(spec__resources={})
    found = source.check_snapshot(claim, given.klass(), given.snapshot(), given.content(), guard_mode=True)
    assert found == Refusal("error getting capacity for PVC data when creating snapshot monday", State.NO_CHANGE)


def test_the_first_fault_is_told_as_upstream_tells_it() -> None:
    snapshot = given.snapshot(status__readyToUse=False, status__restoreSize="9Gi")
    content = given.content(spec__driver="other.example", status=None)
    found = source.check_snapshot(given.from_snapshot(), given.klass(), snapshot, content, guard_mode=True)
    assert isinstance(found, Refusal)
    assert "is not handled by CSI driver" in found.message
    words = source.in_words(FromSnapshot("apps", "monday"), found).message
    assert words.startswith("error getting handle for DataSource Type VolumeSnapshot by Name monday: snapshotcontent")


@pytest.mark.parametrize(
    ("note", "guard", "words"),
    [
        (None, True, "annotation is not present on snapshotcontent content-1"),
        ("false", True, "is set to false on snapshotcontent content-1"),
        ("yes", True, "failed to convert"),
        ("true", True, ""),
        ("1", True, ""),
        (None, False, ""),
    ],
)
def test_another_volume_mode_needs_the_contents_word(note: str | None, guard: bool, words: str) -> None:
    marks = {} if note is None else {names.ALLOW_MODE_CHANGE: note}
    claim = given.from_snapshot(spec__volumeMode="Block")
    content = given.content(metadata__annotations=marks)
    found = source.check_snapshot(claim, given.klass(), given.snapshot(), content, guard_mode=guard)
    if words:
        assert isinstance(found, Refusal)
        assert found.message.startswith("requested volume apps/data modifies the mode of the source volume")
        assert words in found.message
    else:
        assert found == HandleSource("handle-1")


@pytest.mark.parametrize("changes", [{"spec__volumeMode": None}, {"spec__volumeMode": "Filesystem"}])
def test_the_same_or_no_volume_mode_needs_no_word(changes: dict[str, Any]) -> None:
    found = source.check_snapshot(
        given.from_snapshot(**changes), given.klass(), given.snapshot(), given.content(), guard_mode=True
    )
    assert found == HandleSource("handle-1")


UNUSABLE = "claim in dataSource not bound or invalid"
MODES = "the source PVC and destination PVCs must have the same volume mode for cloning.  "


@pytest.mark.parametrize(
    ("changes", "source_changes", "volume_changes", "expected"),
    [
        ({}, {}, {}, VolumeSource("vol-old")),
        ({"spec__resources__requests__storage": "2Gi"}, {}, {}, VolumeSource("vol-old")),
        ({}, {"status__phase": "Pending"}, {}, "the PVC DataSource old must have a status of Bound.  Got Pending"),
        ({}, {"metadata__deletionTimestamp": GONE}, {}, "the PVC DataSource old is currently being deleted"),
        ({}, {"spec__storageClassName": None}, {}, "the source PVC (old) storageclass cannot be empty"),
        ({"spec__storageClassName": None}, {}, {}, "the requested PVC (data) storageclass cannot be empty"),
        (
            {"spec__resources__requests__storage": "512Mi"},
            {},
            {},
            "error, new PVC request must be greater than or equal in size to the specified PVC data source, "
            "requested 536870912 but source is 1073741824",
        ),
        ({}, {"spec__volumeName": ""}, {}, "volume name is empty in source PVC old"),
        ({}, {}, {"spec__csi": None}, UNUSABLE),
        ({}, {}, {"spec__csi__driver": "other.example"}, UNUSABLE),
        ({}, {}, {"spec__claimRef": None}, UNUSABLE),
        ({}, {}, {"spec__claimRef__uid": "x"}, UNUSABLE),
        ({}, {}, {"spec__claimRef__namespace": "x"}, UNUSABLE),
        ({}, {}, {"spec__claimRef__name": "x"}, UNUSABLE),
        ({}, {}, {"status__phase": "Released"}, UNUSABLE),
        ({"spec__volumeMode": "Block"}, {}, {}, f"{MODES}Source is Filesystem, but new PVC requested Block"),
        ({}, {}, {"spec__volumeMode": "Block"}, f"{MODES}Source is Block, but new PVC requested Filesystem"),
        ({"spec__volumeMode": "Block"}, {}, {"spec__volumeMode": "Block"}, VolumeSource("vol-old")),
        ({"spec__volumeMode": None}, {}, {"spec__volumeMode": None}, VolumeSource("vol-old")),
    ],
)
def test_a_clone_is_checked(
    changes: dict[str, Any],
    source_changes: dict[str, Any],
    volume_changes: dict[str, Any],
    expected: VolumeSource | str,
) -> None:
    found = source.check_claim(
        given.claim(**changes),
        given.klass(),
        FromClaim("apps", "old"),
        given.source_claim(**source_changes),
        given.source_volume(**volume_changes),
    )
    assert found == (Refusal(expected, State.NO_CHANGE) if isinstance(expected, str) else expected)


def test_a_clone_of_nothing_is_refused() -> None:
    found = source.check_claim(given.claim(), given.klass(), FromClaim("apps", "old"), None, None)
    assert isinstance(found, Refusal)
    assert 'persistentvolumeclaims "old" not found' in found.message
    assert source.check_claim(
        given.claim(), given.klass(), FromClaim("apps", "old"), given.source_claim(), None
    ) == Refusal(UNUSABLE, State.NO_CHANGE)


def test_what_is_to_be_deleted_is_found_by_a_source_that_could_not_be_used_any_more() -> None:
    where = FromSnapshot("apps", "monday")
    old = given.snapshot(metadata__deletionTimestamp=GONE, status__readyToUse=False)
    assert source.lenient_handle(where, old, given.content(), None) == HandleSource("handle-1")
    assert source.lenient_handle(where, None, given.content(), None) is None
    other = given.content(spec__volumeSnapshotRef__uid="other")
    assert source.lenient_handle(where, given.snapshot(), other, None) is None
    claimed = FromClaim("apps", "old")
    assert source.lenient_handle(claimed, None, None, given.source_volume()) == VolumeSource("vol-old")
    assert source.lenient_handle(claimed, None, None, None) is None
