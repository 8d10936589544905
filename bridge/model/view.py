"""What people and the API see of snapshots and clusters: plain values, apart from the deciding ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bridge.model.group import GroupStatus
from bridge.model.keys import Key
from bridge.model.pin import Pin
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.snapshot import CutSnapshot, DeletionPolicy, SnapshotStatus
from bridge.model.volume import AccessMode, Segments, Volume, VolumeMode


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
class ForeignSnapshot:
    """A snapshot that a plugin holds and nobody has on record."""

    driver: str
    cut: CutSnapshot
    volumes: tuple[Volume, ...] = ()
    """The registered volumes that it was cut from."""


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignPage:
    """One page of them, by the plugin's own token. An empty page need not be the last."""

    items: tuple[ForeignSnapshot, ...] = ()
    next_token: str = ""
    listable: bool = True
    """False where the plugin cannot list: then only what is on record is known."""
    message: str = ""


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
    """Laid over those of the source."""
    access_modes: tuple[AccessMode, ...] = ()
    mode: VolumeMode | None = None
    topology: tuple[Segments, ...] = ()
    """It must be reachable from one of these places."""
    secret: SecretRef = NO_SECRET
    """For CreateVolume and for the new volume's own calls."""


@dataclasses.dataclass(frozen=True, slots=True)
class CloneDraft:
    """What a clone is asked for: a new volume from one that exists. `like` says what is to be other than there."""

    cluster: str
    namespace: str
    volume: str
    like: RestoreDraft


@dataclasses.dataclass(frozen=True, slots=True)
class GroupDraft:
    """Several volumes to be cut together: named, or all that somebody uses now (`users`)."""

    cluster: str
    namespace: str
    name: str
    volumes: tuple[str, ...] = ()
    users: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Who uses the volumes, in the orchestrator's own names and values, instead of their names."""
    policy: DeletionPolicy = DeletionPolicy.DELETE
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_skew_seconds: float | None = None
    """Cut further apart than this, the group fails. None: any distance will do, and is told."""
    asked_by: str = ""
    why: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class GroupView:
    """One group, with its members as snapshots."""

    key: Key
    namespace: str
    name: str
    policy: str
    group_name: str
    status: GroupStatus
    members: tuple[SnapshotView, ...] = ()
    max_skew_seconds: float | None = None
    created_at: float = 0.0
    asked_by: str = ""
    why: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
