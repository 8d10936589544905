"""Snapshots: what is wanted, what is known, what is told. The middle ring decides over these values."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from bridge.model.failure import Failure
from bridge.model.keys import Key
from bridge.model.plugin import Route
from bridge.model.secret import NO_SECRET, SecretRef, SnapshotSecrets


class Wish(enum.Enum):
    """What the owner of a snapshot wants now."""

    PRESENT = "present"
    ABSENT = "absent"
    GONE = "gone"
    """The request has vanished without a word. Gone is not absent: nothing is deleted for it."""


class DeletionPolicy(enum.Enum):
    """What happens to the snapshot on the backend when its request goes."""

    DELETE = "Delete"
    RETAIN = "Retain"


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeSource:
    """Cut a new snapshot of this volume (`handle` is the CSI volume_id)."""

    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class HandleSource:
    """Take over a snapshot that exists on the backend (pre-provisioned; `handle` is the CSI snapshot_id)."""

    handle: str


Source = VolumeSource | HandleSource


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """What one orchestrator asks for, in neutral words. An adapter's pure translation makes it anew each pass."""

    key: Key
    wish: Wish
    namespace: str
    name: str
    driver: str
    source: Source
    snapshot_name: str
    """The CSI name: deterministic, so that a repeat finds the same snapshot."""
    policy: DeletionPolicy = DeletionPolicy.DELETE
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: SnapshotSecrets = SnapshotSecrets()
    held: bool = True
    """The orchestrator keeps the request (and its source) until we let go. True where a hold needs no write."""
    in_use: str = ""
    """A sentence naming who uses the snapshot now (a restore under way); empty when nobody does."""
    trouble: Failure | None = None
    """Why the request cannot be carried out as it stands (unknown class, volume not bound …)."""
    volume: str = ""
    """What people call the source volume; empty for an adopted handle."""
    created_at: float = 0.0
    """Seconds since the epoch; 0 when unknown."""
    abandon: bool = False
    """The owner released it in spite of an open note: an orphan on the backend is possible."""
    group: Key | None = None
    """The group that it is a member of."""
    waits_for: str = ""
    """Why its own pass begins nothing yet, or ever: its group cuts it. Empty: it is on its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """The durable intent that precedes a create. It carries all that an identical repeat needs."""

    snapshot_name: str
    volume_handle: str
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: SecretRef = NO_SECRET
    writer: str = ""
    """The incarnation of the process that wrote it."""
    unsure: bool = False
    """A call made under this note may have taken effect."""
    route: Route | None = None
    """Which way the calls under it go; None where nobody keeps that."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What the ledger knows of one snapshot. `version` is the ledger's own precondition, opaque here."""

    driver: str
    source: Source
    snapshot_name: str
    policy: DeletionPolicy
    secrets: SnapshotSecrets = SnapshotSecrets()
    note: Note | None = None
    note_open: bool = False
    handle: str = ""
    ready: bool = False
    size_bytes: int | None = None
    cut_at_ns: int | None = None
    """Nanoseconds since the epoch; None when the plugin did not say."""
    group: str = ""
    failure: Failure | None = None
    failures: int = 0
    """Failures in a row since the last success."""
    retry_at: float = 0.0
    """Seconds since the epoch before which no call may be made."""
    polls: int = 0
    condemned: bool = False
    """Its deletion is decided, durably; it cannot be taken back."""
    deleted: bool = False
    """The backend has confirmed that the snapshot is gone."""
    route: Route | None = None
    """Which way the cut went; None where nobody keeps that."""
    cut_by: float = 0.0
    """Seconds since the epoch on our clock: by then it was cut. 0 where nobody keeps that."""
    version: str = ""

    def __post_init__(self) -> None:
        if self.note_open and self.note is None:
            raise ValueError("an open note needs a note")
        if self.ready and not self.handle:
            raise ValueError("a ready snapshot has a handle")


@dataclasses.dataclass(frozen=True, slots=True)
class CutSnapshot:
    """The facts of a snapshot as a plugin reports them (CSI `Snapshot`)."""

    handle: str
    source_handle: str
    ready: bool
    size_bytes: int | None = None
    cut_at_ns: int | None = None
    group: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class CutPage:
    """One page of what a plugin holds, with the plugin's own token. An empty one ends the list."""

    items: tuple[CutSnapshot, ...]
    next_token: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class OnRecord:
    """What an orchestrator's own objects say of one driver's snapshots, whoever acts on them."""

    handles: frozenset[str] = frozenset()
    open_sources: frozenset[str] = frozenset()
    """Handles of volumes with a create whose outcome is not known: a snapshot of one may be that create's."""


class SnapshotState(enum.Enum):
    """One word for people and for filters."""

    PENDING = "pending"
    CUTTING = "cutting"
    PROCESSING = "processing"
    """Cut, not ready: the backend still works on it."""
    READY = "ready"
    FAILING = "failing"
    DELETING = "deleting"
    RETAINED = "retained"
    GONE = "gone"


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """What is told to the orchestrator and to people. `reason` is a stable code, `message` a sentence."""

    state: SnapshotState
    ready: bool = False
    handle: str = ""
    size_bytes: int | None = None
    cut_at_ns: int | None = None
    failure: Failure | None = None
    reason: str = ""
    message: str = ""
    route: Route | None = None
    """Which way the cut went; None while it is not cut, or where nobody keeps that."""


DELEGATED = "delegated"
"""The reason in the status of what another controller carries out."""


@dataclasses.dataclass(frozen=True, slots=True)
class Followed:
    """A request that another controller carries out, and what that one has told its owner."""

    request: SnapshotRequest
    status: SnapshotStatus
