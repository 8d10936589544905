"""Group snapshots: several volumes cut at one moment. What is wanted, what is known, what is told."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from bridge.model.failure import Failure
from bridge.model.keys import Key
from bridge.model.plugin import Route
from bridge.model.secret import NO_SECRET, SecretRef, SnapshotSecrets
from bridge.model.snapshot import CutSnapshot, DeletionPolicy, SnapshotState, Wish


class Means(enum.Enum):
    """How several volumes are cut together."""

    CSI = "csi"
    """One call: the driver itself cuts them at one point in time."""
    BARRIER = "barrier"
    """One call per volume, all started together; how far apart they were cut is measured."""


@dataclasses.dataclass(frozen=True, slots=True)
class GroupMember:
    """One volume of a group, and the snapshot that it becomes. All that its create needs is copied in."""

    key: Key
    volume: str
    driver: str
    handle: str
    """CSI volume_id."""
    snapshot_name: str
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: SecretRef = NO_SECRET


@dataclasses.dataclass(frozen=True, slots=True)
class VolumesSource:
    """Cut these volumes together (`handles` are CSI volume_ids)."""

    handles: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class GroupHandleSource:
    """Take over a group that exists on the backend: its CSI group_snapshot_id and its members' snapshot_ids."""

    handle: str
    members: tuple[str, ...]


GroupSource = VolumesSource | GroupHandleSource


@dataclasses.dataclass(frozen=True, slots=True)
class GroupRequest:
    """What one orchestrator asks for, in neutral words; the fields are those of a SnapshotRequest."""

    key: Key
    wish: Wish
    namespace: str
    name: str
    driver: str
    source: GroupSource
    group_name: str
    """The CSI name: deterministic, so that a repeat finds the same group."""
    policy: DeletionPolicy = DeletionPolicy.DELETE
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: SnapshotSecrets = SnapshotSecrets()
    held: bool = True
    """The orchestrator keeps the request and all its source volumes until we let go."""
    in_use: str = ""
    """A sentence naming who uses a member now; empty when nobody does."""
    members: tuple[Key, ...] = ()
    """The members as snapshots of their own, where the orchestrator has them; known while the group is to go."""
    trouble: Failure | None = None
    created_at: float = 0.0
    """Seconds since the epoch; 0 when unknown."""
    abandon: bool = False
    """The owner released it in spite of an open note: an orphan on the backend is possible."""
    together: tuple[GroupMember, ...] = ()
    """The members one by one, where they are snapshots in their own right: then a barrier may cut them."""
    max_skew_seconds: float | None = None
    """The group fails when its members were, or may have been, cut further apart. None: any distance will do."""


@dataclasses.dataclass(frozen=True, slots=True)
class GroupNote:
    """The durable intent that precedes a create. It carries all that an identical repeat needs."""

    group_name: str
    volume_handles: tuple[str, ...]
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: SecretRef = NO_SECRET
    writer: str = ""
    """The incarnation of the process that wrote it."""
    unsure: bool = False
    """A call made under this note may have taken effect."""


@dataclasses.dataclass(frozen=True, slots=True)
class GroupRecord:
    """What the ledger knows of one group. `version` is the ledger's own precondition, opaque here."""

    driver: str
    source: GroupSource
    group_name: str
    policy: DeletionPolicy
    secrets: SnapshotSecrets = SnapshotSecrets()
    note: GroupNote | None = None
    note_open: bool = False
    handle: str = ""
    members: tuple[CutSnapshot, ...] = ()
    """All members, always: CSI deletes a group only by the full list of their handles."""
    ready: bool = False
    cut_at_ns: int | None = None
    """Nanoseconds since the epoch; None when the plugin did not say."""
    failure: Failure | None = None
    failures: int = 0
    """Failures in a row since the last success."""
    retry_at: float = 0.0
    """Seconds since the epoch before which no call may be made."""
    polls: int = 0
    condemned: bool = False
    """Its deletion is decided, durably; it cannot be taken back."""
    deleted: bool = False
    """The backend has confirmed that the group is gone."""
    route: Route | None = None
    """Which way the cut went; None where nobody keeps that."""
    means: Means = Means.CSI
    released_at: float = 0.0
    """Barrier: seconds since the epoch, right before the members' calls went out; 0 before that."""
    skew_seconds: float | None = None
    """How far apart the members were cut. None until all are cut."""
    skew_exact: bool = False
    """Told by the driver's own clock; else an upper bound on ours."""
    failed: bool = False
    """For good: what was cut goes or stays by the deletion policy, and nothing more is cut."""
    version: str = ""

    def __post_init__(self) -> None:
        if self.note_open and self.note is None:
            raise ValueError("an open note needs a note")
        if self.ready and not self.handle and self.means is Means.CSI:
            raise ValueError("a ready group has a handle")

    @property
    def member_handles(self) -> tuple[str, ...]:
        """The CSI snapshot_ids of all members; from the source where the backend has not been asked yet."""
        if self.members:
            return tuple(member.handle for member in self.members)
        return self.source.members if isinstance(self.source, GroupHandleSource) else ()


@dataclasses.dataclass(frozen=True, slots=True)
class CutGroup:
    """The facts of a group as a plugin reports them (CSI `VolumeGroupSnapshot`)."""

    handle: str
    members: tuple[CutSnapshot, ...]
    ready: bool
    cut_at_ns: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class GroupStatus:
    """What is told to the orchestrator and to people. `reason` is a stable code, `message` a sentence."""

    state: SnapshotState
    ready: bool = False
    handle: str = ""
    members: tuple[CutSnapshot, ...] = ()
    cut_at_ns: int | None = None
    failure: Failure | None = None
    reason: str = ""
    message: str = ""
    means: Means | None = None
    """None before the first call."""
    skew_seconds: float | None = None
    skew_exact: bool = False
    failed: bool = False
    route: Route | None = None
