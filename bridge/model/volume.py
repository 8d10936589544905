"""Volumes as the orchestrators know them, and what a new one is to be made of."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.snapshot import HandleSource, VolumeSource


class VolumeMode(enum.Enum):
    """How a volume is presented: a mounted filesystem, or a raw block device."""

    FILESYSTEM = "Filesystem"
    BLOCK = "Block"


class AccessMode(enum.Enum):
    """CSI access modes, by their names in the specification."""

    SINGLE_NODE_WRITER = "SINGLE_NODE_WRITER"
    SINGLE_NODE_READER_ONLY = "SINGLE_NODE_READER_ONLY"
    MULTI_NODE_READER_ONLY = "MULTI_NODE_READER_ONLY"
    MULTI_NODE_SINGLE_WRITER = "MULTI_NODE_SINGLE_WRITER"
    MULTI_NODE_MULTI_WRITER = "MULTI_NODE_MULTI_WRITER"
    SINGLE_NODE_SINGLE_WRITER = "SINGLE_NODE_SINGLE_WRITER"
    SINGLE_NODE_MULTI_WRITER = "SINGLE_NODE_MULTI_WRITER"


Segments = Mapping[str, str]
"""One place of a storage system, as labels: {"zone": "a", "rack": "7"}."""


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """One volume of one cluster. `handle` is the CSI volume_id; `name` is what people call it there."""

    cluster: str
    namespace: str
    name: str
    driver: str
    handle: str
    capacity_bytes: int | None = None
    mode: VolumeMode = VolumeMode.FILESYSTEM
    access_modes: tuple[AccessMode, ...] = (AccessMode.SINGLE_NODE_WRITER,)
    fs_type: str = ""
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: SecretRef = NO_SECRET
    users: tuple[str, ...] = ()
    """Who has it attached or claimed now, in the orchestrator's own words."""
    user_labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """The same for filters: names and values of the orchestrator's own. A name may have several values."""
    accessible: tuple[Segments, ...] = ()
    """The places that it can be used from; empty: everywhere, or not known."""
    origin: VolumeSource | HandleSource | None = None
    """The volume or snapshot that it was made from, where that was done here."""

    def shape(self) -> VolumeShape:
        """What another volume needs to be like this one."""
        return VolumeShape(
            capacity_bytes=self.capacity_bytes or 0,
            mode=self.mode,
            access_modes=self.access_modes,
            fs_type=self.fs_type,
            parameters=dict(self.parameters),
            secret=self.secret,
            accessible=self.accessible,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeShape:
    """What is kept of a volume beside its snapshot, so that one like it can be made when it is long gone."""

    capacity_bytes: int = 0
    """0: not known."""
    mode: VolumeMode = VolumeMode.FILESYSTEM
    access_modes: tuple[AccessMode, ...] = (AccessMode.SINGLE_NODE_WRITER,)
    fs_type: str = ""
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: SecretRef = NO_SECRET
    accessible: tuple[Segments, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """From what a volume was made. Known by handles: a volume may be registered under another name since."""

    cluster: str
    driver: str
    handle: str
    """The volume that was made."""
    content: VolumeSource | HandleSource
    operation: str = ""
    made_at: float = 0.0
    """Seconds since the epoch."""


@dataclasses.dataclass(frozen=True, slots=True)
class NewVolume:
    """What CreateVolume is asked for. `name` is deterministic, so that a repeat finds the same volume."""

    name: str
    driver: str
    content: VolumeSource | HandleSource | None = None
    required_bytes: int = 0
    limit_bytes: int = 0
    mode: VolumeMode = VolumeMode.FILESYSTEM
    access_modes: tuple[AccessMode, ...] = (AccessMode.SINGLE_NODE_WRITER,)
    fs_type: str = ""
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret: SecretRef = NO_SECRET
    mount_flags: tuple[str, ...] = ()
    mutable_parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    requisite: tuple[Segments, ...] = ()
    """It must be reachable from one of these places; empty leaves it to the plugin."""
    preferred: tuple[Segments, ...] = ()
    """The same places in the order of preference."""


@dataclasses.dataclass(frozen=True, slots=True)
class MadeVolume:
    """The facts of a volume as a plugin reports them (CSI `Volume`)."""

    handle: str
    capacity_bytes: int
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content: VolumeSource | HandleSource | None = None
    accessible: tuple[Segments, ...] = ()
    """The places that it can be used from; empty: everywhere."""
