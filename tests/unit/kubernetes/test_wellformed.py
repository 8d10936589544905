"""Objects that are not what their definition promises: which field is wrong is told, and nobody acts on them."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names, translate, trim
from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.world import STATIC, World
from tests.unit.kubernetes import objects as o

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"spec": None}, "spec is missing, it must be an object"),
        ({"spec__source": []}, "spec.source is [], it must be an object"),
        ({"spec__source": {"persistentVolumeClaimName": 7}}, "persistentVolumeClaimName is 7, it must be a text"),
        ({"spec__volumeSnapshotClassName": {}}, "spec.volumeSnapshotClassName is {}, it must be a text"),
        ({"spec__source": "x" * 10_000}, "x…, it must be an object"),
    ],
)
def test_a_snapshot(changes: dict[str, Any], wrong: str) -> None:
    told = wellformed.snapshot(o.snapshot(**changes))
    assert (wrong in told) if wrong else told == ""
    assert len(told) < 200


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"spec__driver": ""}, "spec.driver is '', it must be a name"),
        ({"spec__deletionPolicy": "Explode"}, "spec.deletionPolicy is 'Explode', it must be Delete or Retain"),
        ({"spec__volumeSnapshotRef": 7}, "spec.volumeSnapshotRef is 7, it must be an object"),
        ({"status": {"snapshotHandle": []}}, "status.snapshotHandle is [], it must be a text"),
        ({"status": {"restoreSize": True}}, "status.restoreSize is True, it must be a whole number"),
        ({"status": {"readyToUse": 1}}, "status.readyToUse is 1, it must be true or false"),
    ],
)
def test_a_content(changes: dict[str, Any], wrong: str) -> None:
    told = wellformed.content(o.content(**changes))
    assert told == wrong


def test_a_class() -> None:
    assert wellformed.klass(o.klass(parameters={"a": "b"})) == ""
    assert wellformed.klass(o.klass(driver=7)) == "driver is 7, it must be a name"
    assert wellformed.klass(o.klass(parameters=["a"])) == "parameters is ['a'], it must be an object"
    assert wellformed.klass(o.klass(parameters={"a": 7})) == "parameters.a is 7, it must be a text"


def test_a_snapshots_status_is_told_anew_where_it_is_wrong() -> None:
    kept = trim.snapshot(o.snapshot(status={"readyToUse": "yes", "restoreSize": "1Gi", "error": []}))
    assert kept["status"] == {"restoreSize": "1Gi"}
    assert "status" not in trim.snapshot(o.snapshot(status="text"))


def test_the_world_refuses_what_is_malformed_and_takes_it_once_it_is_mended() -> None:
    world = World()
    for resource, item in ((names.CLASSES, o.klass(parameters=["a"])), (names.SNAPSHOTS, o.snapshot(spec="text"))):
        world.caches[resource].fold(item)
    with pytest.raises(MalformedError, match="VolumeSnapshot one is malformed: spec is 'text'"):
        world.facts(o.UID)
    world.snapshots.fold(o.snapshot(metadata__resourceVersion="11"))
    facts = world.facts(o.UID)
    assert facts is not None
    with pytest.raises(translate.Trouble, match="volumesnapshotclass plain is malformed: parameters is"):
        translate.choose_class(facts)
    world.contents.fold(o.content(spec__driver=7))
    with pytest.raises(MalformedError) as found:
        world.facts(o.UID)
    assert found.value.snapshot is not None
    assert found.value.driver == ""
    lone = o.content(metadata__name="lone", metadata__uid="u-2", spec__volumeSnapshotRef={}, spec__driver=None)
    world.contents.fold(lone)
    with pytest.raises(MalformedError, match=r"VolumeSnapshotContent lone is malformed: spec\.driver is missing"):
        world.facts(f"{STATIC}lone")
