"""Several group contents of one group on the backend: its data goes with the last one that is to stay."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names as single
from adapters.kubernetes.groups import driver_request, names
from adapters.kubernetes.groups.driver import DriverGroupWorld
from adapters.kubernetes.groups.world import STATIC, GroupWorld
from adapters.kubernetes.world import World
from bridge.model.keys import group_key

Object = dict[str, Any]
GONE = "2026-11-21T12:00:00Z"
MARKED = {names.BEING_DELETED: "yes"}


def content(name: str, *, group: str = "", gone: bool = False, notes: Object | None = None, **status: Any) -> Object:
    """A pre-provisioned content of the backend's group g-1, bound to the group with the uid `group`."""
    metadata: Object = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "annotations": notes or {}}
    metadata["finalizers"] = [names.CONTENT_FINALIZER]
    if gone:
        metadata["deletionTimestamp"] = GONE
    reference = {"namespace": "apps", "name": f"for-{name}", **({"uid": group} if group else {})}
    handles = {"volumeGroupSnapshotHandle": "g-1", "volumeSnapshotHandles": ["s-1"]}
    spec = {"driver": "d", "deletionPolicy": "Delete", "volumeGroupSnapshotRef": reference}
    spec["source"] = {"groupSnapshotHandles": handles}
    return {"metadata": metadata, "spec": spec, "status": {"volumeGroupSnapshotHandle": "g-1", **status}}


def group(uid: str, named: str, *, gone: bool = False) -> Object:
    metadata: Object = {"name": f"for-{named}", "namespace": "apps", "uid": uid, "resourceVersion": "1"}
    metadata["finalizers"] = [names.BOUND_FINALIZER]
    if gone:
        metadata["deletionTimestamp"] = GONE
    return {"metadata": metadata, "spec": {"source": {"volumeGroupSnapshotContentName": named}}}


def in_use(key: str, *items: Object) -> str:
    """As the merged role and the cluster half see it."""
    world = GroupWorld(World())
    for item in items:
        (world.contents if "deletionPolicy" in item["spec"] else world.groups).fold(item)
    facts = world.facts(key)
    assert facts is not None
    return facts.in_use


HELD = "The group is also held by VolumeGroupSnapshotContent other"


@pytest.mark.parametrize(
    ("key", "items", "expected"),
    [
        (STATIC + "one", [content("one", gone=True), content("other", group="u2"), group("u2", "other")], HELD),
        ("u1", [content("one", group="u1"), group("u1", "one", gone=True), content("other")], HELD),
        (
            "u1",
            [
                content("one", group="u1"),
                group("u1", "one", gone=True),
                content("other", group="u2", gone=True),
                group("u2", "other"),
            ],
            HELD,
        ),
        (
            "u1",
            [
                content("one", group="u1"),
                group("u1", "one", gone=True),
                content("other", group="u2"),
                group("u2", "other", gone=True),
            ],
            "",
        ),
        ("u1", [content("one", group="u1"), group("u1", "one", gone=True)], ""),
    ],
    ids=["never bound", "other stays", "other is deleted by hand but its group lives", "both groups go", "alone"],
)
def test_data_goes_with_the_last_content_that_names_it(key: str, items: list[Object], expected: str) -> None:
    assert in_use(key, *items) == expected


def test_a_member_made_by_hand_is_no_other_holder() -> None:
    """Upstream's driver half lists the members of pre-provisioned groups too, under names that people chose."""
    info = [{"volumeHandle": "v-1", "snapshotHandle": "s-1", "readyToUse": True}]
    world = GroupWorld(World())
    world.contents.fold(content("one", group="u1", volumeSnapshotInfoList=info))
    world.groups.fold(group("u1", "one", gone=True))
    owner = {"apiVersion": names.API_VERSION, "kind": names.GROUPS.kind, "name": "for-one", "uid": "u1"}
    member = {"name": "m", "namespace": "apps", "uid": "m-1", "resourceVersion": "1", "ownerReferences": [owner]}
    world.world.snapshots.fold({"metadata": member, "spec": {"source": {"volumeSnapshotContentName": "mine"}}})
    reference = {"namespace": "apps", "name": "m", "uid": "m-1"}
    spec = {"driver": "d", "deletionPolicy": "Delete", "volumeSnapshotRef": reference}
    made = {"metadata": {"name": "mine", "uid": "c-1", "resourceVersion": "1"}, "kind": single.CONTENTS.kind}
    world.world.contents.fold({**made, "spec": {**spec, "source": {"snapshotHandle": "s-1"}}})
    facts = world.facts("u1")
    assert facts is not None
    assert facts.in_use == ""


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (content("other", group="u2"), HELD),
        (content("other"), HELD),
        (content("other", group="u2", gone=True), HELD),
        (content("other", group="u2", gone=True, notes=MARKED), ""),
    ],
    ids=["bound", "not bound", "deleted by hand", "on its way out"],
)
def test_the_driver_half_alone_deletes_no_group_that_another_content_holds(other: Object, expected: str) -> None:
    world = DriverGroupWorld("d", names.NAMING)
    for item in (content("one", gone=True), other):
        world.contents.fold(item)
    facts = world.facts("uid-one")
    assert facts is not None
    assert driver_request.request(group_key("c", "uid-one"), facts).in_use == expected
