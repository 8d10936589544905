"""Model values as documents. No secret value can pass here: the model holds references only."""

from __future__ import annotations

from urllib.parse import quote

from bridge.api import documents, times
from bridge.model.failure import Failure
from bridge.model.node import Node
from bridge.model.operation import Operation
from bridge.model.pin import Pin
from bridge.model.plugin import PluginDescription
from bridge.model.revert import RevertPlan
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.view import ClusterView, ForeignSnapshot, GroupView, SnapshotView
from bridge.model.volume import Volume
from bridge.ports.identity import Caller


def failure(value: Failure | None) -> documents.FailureDocument | None:
    """A failure, or null."""
    if value is None:
        return None
    return documents.FailureDocument(kind=value.kind.value, code=value.code, message=value.message, hint=value.hint)


def snapshot(view: SnapshotView) -> documents.SnapshotDocument:
    """One snapshot."""
    status = view.status
    return documents.SnapshotDocument(
        uid=view.key.uid,
        cluster=view.key.cluster,
        namespace=view.namespace,
        name=view.name,
        volume=view.volume,
        driver=view.driver,
        deletion_policy=view.policy,
        snapshot_name=view.snapshot_name,
        state=status.state.value,
        ready=status.ready,
        handle=status.handle or None,
        size_bytes=status.size_bytes,
        cut_at=times.from_ns(status.cut_at_ns),
        route=status.route.value if status.route is not None else None,
        created_at=times.from_seconds(view.created_at),
        reason=status.reason,
        message=status.message,
        failure=failure(status.failure),
        asked_by=view.asked_by,
        why=view.why,
        labels=dict(view.labels),
        parameters=dict(view.parameters),
        users={name: list(values) for name, values in view.users.items()},
        pins=[pin(one) for one in view.pins],
    )


def foreign(value: ForeignSnapshot) -> documents.ForeignSnapshotDocument:
    """A snapshot that nobody has on record."""
    return documents.ForeignSnapshotDocument(
        driver=value.driver,
        handle=value.cut.handle,
        source_handle=value.cut.source_handle,
        volumes=[
            documents.VolumeNameDocument(cluster=one.cluster, namespace=one.namespace, name=one.name)
            for one in value.volumes
        ],
        ready=value.cut.ready,
        size_bytes=value.cut.size_bytes,
        cut_at=times.from_ns(value.cut.cut_at_ns),
        group=value.cut.group,
    )


def pin(value: Pin) -> documents.PinDocument:
    """One reason to keep a snapshot."""
    return documents.PinDocument(
        pinned_by=value.who,
        why=value.why,
        operation=value.owner,
        pinned_at=times.from_seconds(value.pinned_at),
    )


def location(value: Operation) -> dict[str, str]:
    """The header that names an operation."""
    return {"Location": f"/v1/operations/{quote(value.id, safe='')}"}


def group(view: GroupView) -> documents.GroupDocument:
    """One group with its members."""
    status = view.status
    return documents.GroupDocument(
        uid=view.key.uid,
        cluster=view.key.cluster,
        namespace=view.namespace,
        name=view.name,
        deletion_policy=view.policy,
        group_name=view.group_name,
        state=status.state.value,
        ready=status.ready,
        failed=status.failed,
        handle=status.handle or None,
        means=status.means.value if status.means is not None else None,
        route=status.route.value if status.route is not None else None,
        skew_seconds=status.skew_seconds,
        skew_exact=status.skew_exact,
        max_skew_seconds=view.max_skew_seconds,
        cut_at=times.from_ns(status.cut_at_ns),
        created_at=times.from_seconds(view.created_at),
        reason=status.reason,
        message=status.message,
        failure=failure(status.failure),
        asked_by=view.asked_by,
        why=view.why,
        labels=dict(view.labels),
        parameters=dict(view.parameters),
        members=[snapshot(one) for one in view.members],
    )


def operation(value: Operation) -> documents.OperationDocument:
    """One operation with its steps."""
    return documents.OperationDocument(
        id=value.id,
        verb=value.verb,
        cluster=value.cluster,
        namespace=value.namespace,
        target=value.target,
        state=value.state.value,
        created_at=times.from_seconds(value.created_at),
        updated_at=times.from_seconds(value.updated_at),
        asked_by=value.asked_by,
        arguments=dict(value.arguments),
        result=dict(value.result),
        steps=[
            documents.StepDocument(name=step.name, at=times.from_seconds(step.at), note=step.note)
            for step in value.steps
        ],
        failure=failure(value.failure),
        version=value.version,
    )


def revert_plan(value: RevertPlan) -> documents.RevertPlanDocument:
    """What a revert would do."""
    return documents.RevertPlanDocument(
        steps=list(value.steps),
        stops=value.stops,
        downtime_seconds=value.downtime_seconds,
        keeps=list(value.keeps),
    )


def volume(value: Volume) -> documents.VolumeDocument:
    """One volume; its context stays inside."""
    return documents.VolumeDocument(
        cluster=value.cluster,
        namespace=value.namespace,
        name=value.name,
        driver=value.driver,
        handle=value.handle,
        capacity_bytes=value.capacity_bytes,
        mode=value.mode.value,
        access_modes=[mode.value for mode in value.access_modes],
        fs_type=value.fs_type,
        parameters=dict(value.parameters),
        secret=str(value.secret),
        users=list(value.users),
        source_snapshot=value.origin.handle if isinstance(value.origin, HandleSource) else None,
        source_volume=value.origin.handle if isinstance(value.origin, VolumeSource) else None,
    )


def plugin(value: PluginDescription) -> documents.PluginDocument:
    """One instance of a driver."""
    return documents.PluginDocument(
        driver=value.id.driver,
        role=value.id.role,
        instance=value.id.instance,
        route=value.route.value,
        endpoint=value.endpoint,
        healthy=value.healthy,
        message=value.sentence,
        vendor_version=value.vendor_version,
        node=value.node,
        backend=value.backend,
        in_flight=value.in_flight,
        capabilities=sorted(item.value for item in value.capabilities),
    )


def node(value: Node) -> documents.NodeDocument:
    """One node agent."""
    return documents.NodeDocument(
        name=value.name,
        connected=value.connected,
        version=value.version,
        since=times.from_seconds(value.since),
        message=value.sentence,
        plugins=list(value.plugins),
        labels=dict(value.labels),
    )


def cluster(value: ClusterView) -> documents.ClusterDocument:
    """One configured cluster."""
    return documents.ClusterDocument(
        name=value.name, orchestrator=value.kind, ready=not value.sentence, message=value.sentence
    )


def caller(value: Caller) -> documents.CallerDocument:
    """Who is calling."""
    return documents.CallerDocument(
        name=value.name,
        clusters=sorted(value.clusters),
        namespaces=sorted(value.namespaces),
        volumes=sorted(value.volumes),
        labels=dict(value.labels),
    )
