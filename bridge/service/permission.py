"""What a caller may touch. Pure; an empty set in a caller means no limit."""

from __future__ import annotations

from bridge.model.failure import DeniedError, NotFoundError
from bridge.model.operation import Operation
from bridge.ports.identity import Caller


def may(caller: Caller, cluster: str, namespace: str, volume: str) -> bool:
    """Whether the caller may see and act on snapshots of this volume."""
    return (
        (not caller.clusters or cluster in caller.clusters)
        and (not caller.namespaces or namespace in caller.namespaces)
        and (not caller.volumes or volume in caller.volumes)
    )


def limited(caller: Caller) -> bool:
    """Whether the caller is kept to some clusters, namespaces or volumes."""
    return bool(caller.clusters or caller.namespaces or caller.volumes)


def demand(caller: Caller, cluster: str, namespace: str, volume: str) -> None:
    """DeniedError naming what is missing."""
    if may(caller, cluster, namespace, volume):
        return
    what = f"volume {volume!r} in {cluster}/{namespace}"
    hint = "a workload may only touch volumes that its own group claims" if caller.volumes else ""
    raise DeniedError(f"{caller.name} may not touch {what}", hint=hint)


def demand_adoption(caller: Caller) -> None:
    """A handle may name any snapshot on the backend, so nobody who is kept to some volumes may take one over."""
    if caller.namespaces or caller.volumes:
        raise DeniedError(
            f"{caller.name} may not take over a snapshot by its handle",
            field="adoptHandle",
            hint="a caller with limits cuts its own volumes; ask who runs the service",
        )


def may_follow(caller: Caller, operation: Operation) -> bool:
    """Whether the caller may see this operation: a limited one sees what it asked for itself."""
    if not limited(caller):
        return True
    return operation.asked_by == caller.name and (not caller.clusters or operation.cluster in caller.clusters)


def demand_operation(caller: Caller, operation: Operation) -> None:
    """NotFoundError for an operation that the caller may not see, in the words of one that is not there."""
    if not may_follow(caller, operation):
        raise NotFoundError(f"there is no operation {operation.id!r}", hint="`snapbridge op list` shows them")
