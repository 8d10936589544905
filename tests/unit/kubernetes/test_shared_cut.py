"""Two contents of one snapshot on the backend: whose deletion waited for the other's is looked at when that goes."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes.world import World
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import views as v


def static(name: str, **changes: Any) -> o.Object:
    reference = {"namespace": "apps", "name": name, "uid": f"uid-{name}"}
    metadata = {"metadata__name": name, "metadata__uid": f"content-{name}"}
    return v.old_content(**metadata, spec__volumeSnapshotRef=reference, status=None, **changes)


def woken(waiting: dict[str, Any], snapshot: dict[str, Any]) -> set[str]:
    """Who is looked at when the content "goes" is being deleted, while "stays" is in this state."""
    world = World()
    for cache in world.caches.values():
        cache.synced = True
    world.snapshots.fold(o.snapshot(metadata__name="stays", metadata__uid="uid-stays", **snapshot))
    world.contents.fold(static("stays", **waiting))
    world.contents.fold(static("goes"))
    found: set[str] = set()
    world.listen(found.add)
    world.contents.fold(static("goes", metadata__resourceVersion="99", **v.GONE))
    return found


@pytest.mark.parametrize(
    ("waiting", "snapshot", "is_woken"),
    [
        ({}, {}, False),
        ({}, v.GONE, True),
        (v.GONE, v.GONE, True),
        ({"spec__deletionPolicy": "Retain"}, v.GONE, False),
    ],
    ids=["it stays", "its snapshot is to go", "it goes itself", "it is kept"],
)
def test_who_waited_is_looked_at_at_once(waiting: dict[str, Any], snapshot: dict[str, Any], is_woken: bool) -> None:
    assert woken(waiting, snapshot) == ({"uid-goes", "uid-stays"} if is_woken else {"uid-goes"})
