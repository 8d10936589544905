"""GroupStatus -> VolumeGroupSnapshot status, and the event that goes with it. Pure.

`boundVolumeGroupSnapshotContentName` is immutable once set: it is put in once and never taken out.
"""

from __future__ import annotations

from typing import Any

from adapters.kubernetes import shape
from adapters.kubernetes.facts import path
from adapters.kubernetes.groups import shape as own
from adapters.kubernetes.groups.facts import is_ready
from adapters.kubernetes.status import Told
from bridge.model.failure import Failure
from bridge.model.group import GroupStatus
from bridge.model.snapshot import SnapshotState

Object = dict[str, Any]

OWN_REASONS = frozenset(
    {
        "GetGroupSnapshotClassFailed",
        "SetDefaultGroupSnapshotClassFailed",
        "GroupSnapshotContentCreationFailed",
        "GroupSnapshotContentMismatch",
        "GroupSnapshotContentMisbound",
        "GroupSnapshotContentMissing",
        "GroupSnapshotMisbound",
        "GroupSnapshotValidationError",
    }
)
"""Codes of troubles that are event reasons as they stand, with whole messages."""

_SILENT = frozenset({SnapshotState.PENDING, SnapshotState.GONE, SnapshotState.RETAINED})


def tell(group: Object, content: Object | None, status: GroupStatus, now: float) -> Told:
    """What this status changes about the VolumeGroupSnapshot. The same error is not told twice."""
    if status.state is SnapshotState.DELETING:
        return _deleting(group, status, now)
    if status.state in _SILENT and status.failure is None:
        return Told()
    before: Object = group.get("status") or {}
    after = dict(before)
    if content is not None:
        after.setdefault("boundVolumeGroupSnapshotContentName", content["metadata"]["name"])
    after["readyToUse"] = status.ready
    if status.cut_at_ns is not None:
        after["creationTime"] = shape.rfc3339(status.cut_at_ns / 1e9)
    if status.failure is None:
        after.pop("error", None)
        became_ready = status.ready and not is_ready(group)
        reason, message = ("GroupSnapshotReady", _ready_text(group)) if became_ready else ("", "")
        return Told(None if after == before else after, reason, message)
    message = failure_text(status.failure, status)
    new = _set_error(before, after, message, now)
    reason = _reason(status.failure, status) if new else ""
    return Told(None if after == before else after, reason, message if new else "", warning=True)


def failure_text(failure: Failure, status: GroupStatus) -> str:
    """What the status says of a failure; a trouble speaks for itself."""
    if failure.code in OWN_REASONS:
        return f"{failure.message}. {failure.hint}" if failure.hint else failure.message
    return own.failure_text(failure, handle=status.handle, deleting=status.state is SnapshotState.DELETING)


def _deleting(group: Object, status: GroupStatus, now: float) -> Told:
    """While a deletion is under way, only what stands in its way is told."""
    if status.failure is None:
        if status.reason == "in use":
            return Told(reason="SnapshotDeletePending", message=status.message, warning=True)
        return Told()
    before: Object = group.get("status") or {}
    after = dict(before)
    message = failure_text(status.failure, status)
    new = _set_error(before, after, message, now)
    return Told(after if new else None, _reason(status.failure, status) if new else "", message, warning=True)


def _set_error(before: Object, after: Object, message: str, now: float) -> bool:
    if path(before, "error", "message") == message:
        return False
    after["error"] = {"message": message, "time": shape.rfc3339(now)}
    return True


def _reason(failure: Failure, status: GroupStatus) -> str:
    if failure.code in OWN_REASONS:
        return failure.code
    if status.state is SnapshotState.DELETING:
        return "GroupSnapshotDeleteError"
    return "GroupSnapshotContentCheckandUpdateFailed" if status.handle else "GroupSnapshotCreationFailed"


def _ready_text(group: Object) -> str:
    metadata = group["metadata"]
    return f"GroupSnapshot {metadata['namespace']}/{metadata['name']} is ready to use."
