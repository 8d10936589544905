"""In-place revert: what is swapped, and who is stopped for it. Values only; what to do with them is decided."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """What uses a volume, as it was found before anything was touched."""

    name: str
    """As its orchestrator calls it."""
    words: str
    """It, for people: which instances use the volume."""
    pause: str
    """How it will be stopped, for people."""
    resume: str
    """How it will be started, for people."""
    memo: str = ""
    """The orchestrator's own note: all it needs to stop it and to start it again. Opaque here, no secrets."""
    downtime_seconds: float = 0.0
    """About how long it will be stopped."""


class WorkloadState(enum.Enum):
    """Whether a workload that was noted runs."""

    RUNNING = "running"
    """Every wanted instance runs."""
    STARTING = "starting"
    """Instances are wanted; not all of them run."""
    PAUSED = "paused"
    """Stopped the way that `pause` stops it."""
    HALTED = "halted"
    """Stopped or removed by somebody else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Swap:
    """One volume whose data is replaced, and how far that is. Empty until it is known."""

    volume: str
    driver: str
    old_handle: str
    keep_as: str
    """The name under which the old volume stays registered."""
    snapshot: str
    """Uid of the snapshot that the new volume is made from."""
    secret: str = ""
    """Reference of the secret of the volume's calls."""
    new_handle: str = ""
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the driver gave for the new volume."""
    unsure: bool = False
    """A CreateVolume may have taken effect without telling us its handle."""
    kept: bool = False
    """We registered the old volume under `keep_as`."""
    placed: bool = False
    """The new volume's registration is done, with all that belongs to it."""
    unkept: bool = False
    undone: bool = False
    """The new volume is deleted again."""


@dataclasses.dataclass(frozen=True, slots=True)
class RevertDraft:
    """What a revert is asked for. The first snapshot's reference is given apart."""

    volume: str = ""
    """Empty: the snapshot's own."""
    also: tuple[str, ...] = ()
    """References of further snapshots, of other volumes that must go back together with the first."""
    workload: str = ""
    """Who uses the volumes; needed only where it holds no claim at the moment."""
    version: str = ""
    """The version of the workload to start afterwards; empty: as it was."""


@dataclasses.dataclass(frozen=True, slots=True)
class RevertPlan:
    """What a revert would do, in words."""

    steps: tuple[str, ...]
    stops: str = ""
    """Who would be stopped; empty: nobody uses the volumes."""
    downtime_seconds: float = 0.0
    keeps: tuple[str, ...] = ()
    """The names under which the old volumes would stay."""
