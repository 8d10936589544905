"""What the API answers with. Fields may be added, never renamed or dropped; unknown is null."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

API_VERSION: Final = "snapbridge/v1"

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
ApiVersion = Literal["snapbridge/v1"]


class Document(BaseModel):
    """One part of an answer."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)


class FailureDocument(Document):
    """A failure: `refused` did nothing, `unsure` may have taken effect."""

    kind: Literal["refused", "unsure"]
    code: str
    message: str
    hint: str


class PinDocument(Document):
    """Why a snapshot is kept. `operation` holds it until it is done; empty for the pin that people set."""

    pinned_by: str
    why: str
    operation: str
    pinned_at: Instant | None


class SnapshotDocument(Document):
    """One snapshot, whichever orchestrator it came from."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["Snapshot"] = "Snapshot"
    uid: str
    cluster: str
    namespace: str
    name: str
    volume: str
    driver: str
    deletion_policy: str
    snapshot_name: str
    state: str
    ready: bool
    handle: str | None
    size_bytes: int | None
    cut_at: Instant | None
    route: Literal["socket", "node-agent", "orchestrator", "delegation"] | None = Field(
        None, description="Which way the cut went."
    )
    created_at: Instant | None
    reason: str
    message: str
    failure: FailureDocument | None
    asked_by: str
    why: str
    labels: dict[str, str]
    parameters: dict[str, str]
    users: dict[str, list[str]] = Field(description="Who had the volume when this was asked for.")
    pins: list[PinDocument] = Field(description="With any, it cannot be deleted.")


class StepDocument(Document):
    """One step of an operation."""

    name: str
    at: Instant | None
    note: str


class OperationDocument(Document):
    """Work that takes longer than one answer."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["Operation"] = "Operation"
    id: str
    verb: str
    cluster: str
    namespace: str
    target: str
    state: Literal["running", "done", "failed"]
    created_at: Instant | None
    updated_at: Instant | None
    asked_by: str
    arguments: dict[str, str]
    result: dict[str, str]
    steps: list[StepDocument]
    failure: FailureDocument | None
    version: str


class AcceptedDocument(Document):
    """A booked snapshot and the operation that ends when it is ready."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["SnapshotAccepted"] = "SnapshotAccepted"
    snapshot: SnapshotDocument
    operation: OperationDocument


class RevertPlanDocument(Document):
    """What a revert does, step by step."""

    steps: list[str]
    stops: str = Field(description="Who is stopped meanwhile; empty: nobody.")
    downtime_seconds: float = Field(description="Roughly how long.")
    keeps: list[str] = Field(description="Names under which the old volumes stay.")


class RevertDocument(Document):
    """A revert: its operation, or with `dryRun` its plan."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["Revert"] = "Revert"
    plan: RevertPlanDocument | None
    operation: OperationDocument | None


class GroupDocument(Document):
    """Several volumes cut together."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["Group"] = "Group"
    uid: str
    cluster: str
    namespace: str
    name: str
    deletion_policy: str
    group_name: str
    state: str
    ready: bool
    failed: bool = Field(description="For good: what was cut goes or stays by the deletion policy.")
    handle: str | None
    means: Literal["csi", "barrier"] | None = Field(description="One call of the driver, or one call per volume.")
    route: Literal["socket", "node-agent", "orchestrator", "delegation"] | None
    skew_seconds: float | None = Field(description="How far apart the volumes were cut.")
    skew_exact: bool = Field(description="Told by the driver's clock; else an upper bound.")
    max_skew_seconds: float | None
    cut_at: Instant | None
    created_at: Instant | None
    reason: str
    message: str
    failure: FailureDocument | None
    asked_by: str
    why: str
    labels: dict[str, str]
    parameters: dict[str, str]
    members: list[SnapshotDocument]


class GroupAcceptedDocument(Document):
    """A booked group and the operation that ends when it is ready."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["GroupAccepted"] = "GroupAccepted"
    group: GroupDocument
    operation: OperationDocument


class VolumeDocument(Document):
    """One volume of one cluster."""

    kind: Literal["Volume"] = "Volume"
    cluster: str
    namespace: str
    name: str
    driver: str
    handle: str
    capacity_bytes: int | None
    mode: str
    access_modes: list[str]
    fs_type: str
    parameters: dict[str, str]
    secret: str = Field(description="A reference, never a value.")
    users: list[str]
    source_snapshot: str | None = Field(description="The handle of the snapshot that it was restored from here.")
    source_volume: str | None = Field(description="The handle of the volume that it was cloned from here.")


class PluginDocument(Document):
    """One instance of a driver."""

    kind: Literal["Plugin"] = "Plugin"
    driver: str
    role: str
    instance: str
    route: str
    endpoint: str
    healthy: bool
    message: str
    vendor_version: str
    node: str
    backend: str
    in_flight: int
    capabilities: list[str]


class NodeDocument(Document):
    """One node agent."""

    kind: Literal["Node"] = "Node"
    name: str
    connected: bool
    version: str
    since: Instant | None
    message: str
    plugins: list[str]
    labels: dict[str, str]


class ClusterDocument(Document):
    """One configured cluster; an empty message means that its view is complete."""

    kind: Literal["Cluster"] = "Cluster"
    name: str
    orchestrator: str
    ready: bool
    message: str


class Listing(Document):
    """What every list has. An empty token ends it."""

    api_version: ApiVersion = API_VERSION
    next_token: str = ""


class SnapshotListDocument(Listing):
    kind: Literal["SnapshotList"] = "SnapshotList"
    items: list[SnapshotDocument]


class GroupListDocument(Listing):
    kind: Literal["GroupList"] = "GroupList"
    items: list[GroupDocument]


class OperationListDocument(Listing):
    kind: Literal["OperationList"] = "OperationList"
    items: list[OperationDocument]


class VolumeListDocument(Listing):
    kind: Literal["VolumeList"] = "VolumeList"
    items: list[VolumeDocument]


class PluginListDocument(Listing):
    kind: Literal["PluginList"] = "PluginList"
    items: list[PluginDocument]


class VolumeNameDocument(Document):
    """Where a volume is registered."""

    cluster: str
    namespace: str
    name: str


class ForeignSnapshotDocument(Document):
    """A snapshot that a plugin holds and nobody has on record. It can be adopted; it cannot be deleted."""

    kind: Literal["ForeignSnapshot"] = "ForeignSnapshot"
    driver: str
    handle: str
    source_handle: str
    volumes: list[VolumeNameDocument] = Field(description="Registered volumes of that source handle.")
    ready: bool
    size_bytes: int | None
    cut_at: Instant | None
    group: str


class ForeignListDocument(Listing):
    """A page by the plugin's own token. Not `listable`: the plugin cannot list, and only records are known."""

    kind: Literal["ForeignSnapshotList"] = "ForeignSnapshotList"
    driver: str
    listable: bool
    message: str
    items: list[ForeignSnapshotDocument]


class NodeListDocument(Listing):
    kind: Literal["NodeList"] = "NodeList"
    items: list[NodeDocument]


class ClusterListDocument(Listing):
    kind: Literal["ClusterList"] = "ClusterList"
    items: list[ClusterDocument]


class CallerDocument(Document):
    """Who is calling and what it may touch; an empty list is no limit."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["Caller"] = "Caller"
    name: str
    clusters: list[str]
    namespaces: list[str]
    volumes: list[str]
    labels: dict[str, str]


class VersionDocument(Document):
    """What runs here."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["Version"] = "Version"
    version: str
    python: str


class FieldProblemDocument(Document):
    """What is wrong with one field."""

    field: str
    message: str
    hint: str


class ProblemDocument(Document):
    """An error, as RFC 9457 has it, with what a client needs to act on it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    field: str
    retryable: bool
    errors: list[FieldProblemDocument]
    request_id: str
