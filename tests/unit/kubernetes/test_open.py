"""What a start looks at: all that needs work, and none of the thousands that are settled."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.world import World
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import views as v

READY = {"snapshotHandle": "snap-1", "readyToUse": True}
STATIC = {"spec__source": {"volumeSnapshotContentName": "old"}}


def reference(**changes: Any) -> dict[str, Any]:
    return {"spec__volumeSnapshotRef": {"namespace": "apps", "name": "one", "uid": o.UID, **changes}}


def open_uids(snapshot: o.Object | None, content: o.Object | None, claim: o.Object | None = None) -> set[str]:
    world = World()
    for cache, item in ((world.snapshots, snapshot), (world.contents, content), (world.claims, claim)):
        if item is not None:
            cache.fold(item)
    return set(world.open_uids())


def test_a_ready_pair_is_left_alone() -> None:
    assert open_uids(v.ready_snapshot(), v.ready_content(), o.claim(**v.FREE)) == set()


def test_a_ready_pre_provisioned_pair_is_left_alone() -> None:
    bound = v.old_content(status=READY, **reference())
    assert open_uids(v.ready_snapshot(**STATIC), bound) == set()


@pytest.mark.parametrize(
    "changes",
    [{"status__readyToUse": False}, {"status": None}, {"status": "broken"}, v.GONE, STATIC],
    ids=["not-ready", "no-status", "malformed-status", "deleting", "of-another-source"],
)
def test_a_snapshot_that_needs_work_is_looked_at(changes: dict[str, Any]) -> None:
    assert o.UID in open_uids(v.ready_snapshot(**changes), v.ready_content())


@pytest.mark.parametrize(
    "changes",
    [
        v.GONE,
        {"status__readyToUse": False},
        {"status": None},
        {"metadata__name": "another"},
        {"spec__source": {"snapshotHandle": "snap-1"}},
        {"spec__source": {}},
        {"spec__source": "broken"},
        reference(uid="another"),
        reference(uid=""),
        reference(uid=["broken"]),
        reference(name="another"),
        reference(namespace=["broken"]),
        {"spec__volumeSnapshotRef": None},
        {"metadata__annotations": {names.BEING_CREATED: "yes"}},
    ],
    ids=str,
)
def test_a_ready_snapshot_whose_content_does_not_settle_it_is_looked_at(changes: dict[str, Any]) -> None:
    assert o.UID in open_uids(v.ready_snapshot(), v.ready_content(**changes))


def test_a_ready_snapshot_without_content_is_looked_at() -> None:
    assert open_uids(v.ready_snapshot(), None) == {o.UID}


def test_a_ready_snapshot_whose_claim_is_still_held_is_looked_at() -> None:
    assert open_uids(v.ready_snapshot(), v.ready_content(), o.claim()) == {o.UID}


def test_a_deleting_content_without_a_snapshot_is_looked_at() -> None:
    assert open_uids(None, v.ready_content(**v.GONE)) == {o.UID}


def test_an_unread_content_of_nobody_is_looked_at() -> None:
    assert open_uids(None, v.old_content()) == {"content:old"}


def test_a_retained_content_without_a_snapshot_is_left_alone() -> None:
    assert open_uids(None, v.ready_content()) == set()
