"""Views of one VolumeSnapshot for the tables of the cluster half, and what a step is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.decide import binding
from adapters.kubernetes.facts import Facts
from tests.unit.kubernetes import objects as o

Object = dict[str, Any]
NOW = 1_800_000_000.0
CUT_AT_NS = 1_763_700_000_000_000_000
GONE = {"metadata__deletionTimestamp": "2026-11-21T12:30:00Z"}
FREE = {"metadata__finalizers": []}


def dynamic(**given: Any) -> binding.View:
    """A new dynamic snapshot, held, its claim too; fields of `Facts` and of `View` are replaced by name."""
    usual: Object = {
        "snapshot": o.snapshot(),
        "claim": o.claim(),
        "volume": o.volume(),
        "class_name": "plain",
        "klass": o.klass(),
    }
    return view({**usual, **given})


def static(**given: Any) -> binding.View:
    """A pre-provisioned snapshot and its content, not bound yet."""
    usual: Object = {
        "snapshot": o.snapshot(spec__source={"volumeSnapshotContentName": "old"}, spec__volumeSnapshotClassName=None),
        "content": old_content(),
    }
    return view({**usual, **given})


def old_content(**changes: Any) -> Object:
    """A content that an admin made of a handle."""
    made: Object = {
        "metadata__name": "old",
        "spec__source": {"snapshotHandle": "snap-9"},
        "spec__volumeSnapshotRef": {"namespace": "apps", "name": "one"},
        "spec__volumeSnapshotClassName": None,
    }
    return o.content(**{**made, **changes})


def ready_content(**changes: Any) -> Object:
    """A content whose snapshot is cut and ready."""
    told = {"snapshotHandle": "snap-1", "readyToUse": True, "creationTime": CUT_AT_NS, "restoreSize": 1 << 30}
    return o.content(**{"status": told, **changes})


def ready_snapshot(**changes: Any) -> Object:
    """A VolumeSnapshot that says all that `ready_content` does."""
    told = {
        "boundVolumeSnapshotContentName": names.content_name(o.UID),
        "readyToUse": True,
        "creationTime": "2025-11-21T04:40:00Z",
        "restoreSize": "1Gi",
    }
    return o.snapshot(**{"status": told, **changes})


def view(given: Object) -> binding.View:
    own = {field.name for field in dataclasses.fields(Facts)}
    facts = Facts(**{"uid": o.UID, **{key: value for key, value in given.items() if key in own}})
    return binding.View(facts, **{"now": NOW, **{key: value for key, value in given.items() if key not in own}})


def error_of(step: binding.Step) -> str:
    """The message that a published status shows."""
    assert isinstance(step, binding.Publish), step
    return str((step.news.status.get("error") or {}).get("message", ""))


def reasons(step: binding.Step) -> list[str]:
    """The events that go with a published status."""
    assert isinstance(step, binding.Publish), step
    return [event.reason for event in step.news.events]


def in_trouble_status(step: binding.Step) -> Object:
    """The status that a trouble was told with."""
    assert isinstance(step, binding.Publish), step
    return step.news.status
