"""What people and the API see of snapshots and clusters: plain values, apart from the deciding ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bridge.model.keys import Key
from bridge.model.pin import Pin
from bridge.model.snapshot import SnapshotStatus


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotView:
    """One row of a snapshot list, whichever orchestrator it came from."""

    key: Key
    namespace: str
    name: str
    volume: str
    driver: str
    policy: str
    snapshot_name: str
    status: SnapshotStatus
    created_at: float = 0.0
    asked_by: str = ""
    why: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    users: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Who had the volume when the snapshot was asked for."""
    pins: tuple[Pin, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotPage:
    """One page, newest first. An empty token ends the list."""

    items: tuple[SnapshotView, ...]
    next_token: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterView:
    """One cluster of the config. An empty `sentence` means that its view is complete."""

    name: str
    kind: str
    sentence: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RestoreDraft:
    """What a restore is asked for: a new volume `name`, from one ready snapshot.

    Zero or empty fields are taken over from the source volume or the snapshot.
    """

    name: str
    namespace: str = ""
    capacity_bytes: int = 0
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
