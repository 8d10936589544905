"""Plugins: a driver's instances, what they can do and how they are. Keyed (driver, role, instance)."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal

Verb = Literal[
    "ControllerExpandVolume",
    "ControllerGetCapabilities",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "CreateSnapshot",
    "CreateVolume",
    "CreateVolumeGroupSnapshot",
    "DeleteSnapshot",
    "DeleteVolume",
    "DeleteVolumeGroupSnapshot",
    "GetMetadataAllocated",
    "GetMetadataDelta",
    "GetPluginCapabilities",
    "GetPluginInfo",
    "GetSnapshot",
    "GetVolumeGroupSnapshot",
    "GroupControllerGetCapabilities",
    "ListSnapshots",
    "NodeExpandVolume",
    "NodeGetCapabilities",
    "NodeGetInfo",
    "NodeGetVolumeStats",
    "NodePublishVolume",
    "NodeStageVolume",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "Probe",
]
"""The CSI calls that a deadline can be set for."""


class Role(enum.Enum):
    """Which CSI services an instance serves."""

    CONTROLLER = "controller"
    NODE = "node"


class Route(enum.Enum):
    """How an instance is reached."""

    SOCKET = "socket"
    NODE_AGENT = "node-agent"
    ORCHESTRATOR = "orchestrator"
    """Through the orchestrator's own API, which calls the plugin."""
    DELEGATION = "delegation"
    """Not by us: requests are made as the orchestrator's objects, and another controller carries them out."""


THROUGH_ORCHESTRATOR_SECONDS = 130.0
"""An orchestrator gives a plugin call at most 2 minutes (nomad.md 1.4): what nobody answered by then has ended."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class InstanceId:
    """One running copy of a driver. `instance` is unique per driver and role: a socket path, a node, an API."""

    driver: str
    role: str
    instance: str

    def __str__(self) -> str:
        return f"{self.driver}/{self.role}/{self.instance}"


class Capability(enum.Enum):
    """What an instance announced, over all services (CSI capability names)."""

    CONTROLLER_SERVICE = "CONTROLLER_SERVICE"
    GROUP_CONTROLLER_SERVICE = "GROUP_CONTROLLER_SERVICE"
    SNAPSHOT_METADATA_SERVICE = "SNAPSHOT_METADATA_SERVICE"
    VOLUME_ACCESSIBILITY_CONSTRAINTS = "VOLUME_ACCESSIBILITY_CONSTRAINTS"
    SNAPSHOT_ACCESSIBILITY_CONSTRAINTS = "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS"
    CREATE_DELETE_VOLUME = "CREATE_DELETE_VOLUME"
    PUBLISH_UNPUBLISH_VOLUME = "PUBLISH_UNPUBLISH_VOLUME"
    LIST_VOLUMES = "LIST_VOLUMES"
    GET_CAPACITY = "GET_CAPACITY"
    GET_VOLUME = "GET_VOLUME"
    CREATE_DELETE_SNAPSHOT = "CREATE_DELETE_SNAPSHOT"
    LIST_SNAPSHOTS = "LIST_SNAPSHOTS"
    GET_SNAPSHOT = "GET_SNAPSHOT"
    CLONE_VOLUME = "CLONE_VOLUME"
    EXPAND_VOLUME = "EXPAND_VOLUME"
    MODIFY_VOLUME = "MODIFY_VOLUME"
    SINGLE_NODE_MULTI_WRITER = "SINGLE_NODE_MULTI_WRITER"
    CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT = "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"
    STAGE_UNSTAGE_VOLUME = "STAGE_UNSTAGE_VOLUME"


@dataclasses.dataclass(frozen=True, slots=True)
class CallRules:
    """How one plugin is called where it differs from the service's defaults. None: as everywhere."""

    concurrency: int | None = None
    """Calls at once on its controller."""
    timeout_seconds: float | None = None
    """Of the verbs that have none of their own."""
    timeouts_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By CSI verb."""
    poll_first_seconds: float | None = None
    poll_most_seconds: float | None = None
    retry_first_seconds: float | None = None
    retry_most_seconds: float | None = None


NO_RULES = CallRules()


@dataclasses.dataclass(frozen=True, slots=True)
class PluginView:
    """What a pass may know of a driver's best controller instance."""

    driver: str
    known: bool = False
    healthy: bool = False
    capabilities: frozenset[Capability] = frozenset()
    sentence: str = ""
    """Why it is not healthy, or where it is; for people."""
    poll_first_seconds: float = 0.25
    poll_most_seconds: float = 10.0
    retry_first_seconds: float = 1.0
    """The pause after one failed call; it doubles with each further one, up to `retry_most_seconds`."""
    retry_most_seconds: float = 300.0
    route: Route | None = None
    """How its best instance is reached now; None where there is none."""
    concurrency: int = 32
    """Calls that it takes at once on this route."""
    settle_seconds: float = 130.0
    """After so long, a snapshot call that nobody answered has ended: its deadline has passed."""
    group_settle_seconds: float = 300.0
    """The same for a group's calls."""
    volume_settle_seconds: float = 300.0
    """The same for CreateVolume and DeleteVolume."""
    expected: bool = False
    """It is not known, and yet somewhere: requests for it are taken, and wait for what `sentence` says."""

    def can(self, capability: Capability) -> bool:
        """Whether the instance announced this capability."""
        return capability in self.capabilities


@dataclasses.dataclass(frozen=True, slots=True)
class PluginDescription:
    """One row of the plugin list, for people and for the API."""

    id: InstanceId
    route: Route
    endpoint: str
    healthy: bool
    sentence: str
    vendor_version: str = ""
    node: str = ""
    capabilities: frozenset[Capability] = frozenset()
    in_flight: int = 0
    backend: str = ""
