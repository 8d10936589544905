"""What a caller may touch. Pure; an empty set in a caller means no limit."""

from __future__ import annotations

from bridge.model.failure import DeniedError
from bridge.ports.identity import Caller


def may(caller: Caller, cluster: str, namespace: str, volume: str) -> bool:
    """Whether the caller may see and act on snapshots of this volume."""
    return (
        (not caller.clusters or cluster in caller.clusters)
        and (not caller.namespaces or namespace in caller.namespaces)
        and (not caller.volumes or volume in caller.volumes)
    )


def demand(caller: Caller, cluster: str, namespace: str, volume: str) -> None:
    """DeniedError naming what is missing."""
    if may(caller, cluster, namespace, volume):
        return
    what = f"volume {volume!r} in {cluster}/{namespace}"
    hint = "a workload may only touch volumes that its own group claims" if caller.volumes else ""
    raise DeniedError(f"{caller.name} may not touch {what}", hint=hint)
