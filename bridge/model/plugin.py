"""Plugins: a driver's instances, what they can do and how they are. Keyed (driver, role, instance)."""

from __future__ import annotations

import dataclasses
import enum


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
