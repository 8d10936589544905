"""SnapshotStatus -> VolumeSnapshot status, and the event that goes with it. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import shape
from adapters.kubernetes.facts import is_ready, path
from bridge.model.failure import Failure
from bridge.model.snapshot import SnapshotState, SnapshotStatus

Object = dict[str, Any]

_UNITS = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_SUFFIXES = {unit: 1024 ** (power + 1) for power, unit in enumerate(_UNITS)}
_SUFFIXES |= {unit: 1000 ** (power + 1) for power, unit in enumerate(("k", "M", "G", "T", "P", "E"))}

OWN_REASONS = frozenset(
    {
        "GetSnapshotClassFailed",
        "SetDefaultSnapshotClassFailed",
        "SnapshotContentCreationFailed",
        "SnapshotContentMismatch",
        "SnapshotContentMisbound",
        "SnapshotContentMissing",
        "SnapshotMisbound",
        "SnapshotValidationError",
    }
)
"""Codes of troubles that are event reasons as they stand, with whole messages."""

_CLASS_TROUBLES = frozenset({"GetSnapshotClassFailed", "SetDefaultSnapshotClassFailed"})
"""Upstream tells these before it says anything of readiness."""

_SILENT = frozenset({SnapshotState.PENDING, SnapshotState.GONE, SnapshotState.RETAINED})


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What is to be written: the new status (None: as it is) and an event (None: none)."""

    status: Object | None = None
    reason: str = ""
    message: str = ""
    warning: bool = False


def tell(snapshot: Object, content: Object | None, status: SnapshotStatus, now: float) -> Told:
    """What this status changes about the VolumeSnapshot. The same error is not told twice."""
    if status.state is SnapshotState.DELETING:
        return _deleting(snapshot, status, now)
    if status.state in _SILENT and status.failure is None:
        return Told()
    before: Object = snapshot.get("status") or {}
    after = dict(before)
    if content is not None and status.state is not SnapshotState.PENDING:
        after["boundVolumeSnapshotContentName"] = content["metadata"]["name"]
    if status.ready or "readyToUse" in before or status.failure is None or status.failure.code not in _CLASS_TROUBLES:
        after["readyToUse"] = status.ready
    if status.cut_at_ns is not None:
        after["creationTime"] = shape.rfc3339(status.cut_at_ns / 1e9)
    if status.size_bytes and status.size_bytes > 0:
        after["restoreSize"] = quantity(status.size_bytes)
    if status.failure is None:
        after.pop("error", None)
        became_ready = status.ready and not is_ready(snapshot)
        reason, message = ("SnapshotReady", _ready_text(snapshot)) if became_ready else ("", "")
        return Told(None if after == before else after, reason, message)
    message = failure_text(status.failure, status)
    new = _set_error(before, after, message, now)
    reason = _reason(status.failure, status)
    return Told(None if after == before else after, reason if new else "", message if new else "", warning=True)


def failure_text(failure: Failure, status: SnapshotStatus) -> str:
    """What the status says of a failure; a trouble speaks for itself."""
    if failure.code in OWN_REASONS:
        return f"{failure.message}. {failure.hint}" if failure.hint else failure.message
    return shape.failure_text(failure, handle=status.handle, deleting=status.state is SnapshotState.DELETING)


def quantity(size_bytes: int) -> str:
    """A size as the API server writes it: the largest binary unit that divides it.

    >>> quantity(1073741824), quantity(1536), quantity(1000)
    ('1Gi', '1536', '1000')
    """
    value, unit = size_bytes, ""
    for name in _UNITS:
        if value == 0 or value % 1024:
            break
        value, unit = value // 1024, name
    return f"{value}{unit}"


def size_of(text: str) -> int | None:
    """Bytes of a quantity; None when it cannot be read. Fractions are rounded up.

    >>> size_of("64Mi"), size_of("1G"), size_of("0.5Gi"), size_of("x")
    (67108864, 1000000000, 536870912, None)
    """
    number, factor = text, 1
    for suffix, value in _SUFFIXES.items():
        if text.endswith(suffix):
            number, factor = text[: -len(suffix)], value
            break
    try:
        return int(number) * factor if number.isdecimal() else -int(-float(number) * factor // 1)
    except (ValueError, OverflowError):
        return None


def _deleting(snapshot: Object, status: SnapshotStatus, now: float) -> Told:
    """While a deletion is under way, only what stands in its way is told."""
    if status.failure is None:
        if status.reason == "in use":
            return Told(reason="SnapshotDeletePending", message=status.message, warning=True)
        return Told()
    before: Object = snapshot.get("status") or {}
    after = dict(before)
    message = failure_text(status.failure, status)
    new = _set_error(before, after, message, now)
    return Told(after if new else None, _reason(status.failure, status) if new else "", message, warning=True)


def _set_error(before: Object, after: Object, message: str, now: float) -> bool:
    if path(before, "error", "message") == message:
        return False
    after["error"] = {"message": message, "time": shape.rfc3339(now)}
    return True


def _reason(failure: Failure, status: SnapshotStatus) -> str:
    if failure.code in OWN_REASONS:
        return failure.code
    if status.state is SnapshotState.DELETING:
        return "SnapshotDeleteError"
    return "SnapshotContentCheckandUpdateFailed" if status.handle else "SnapshotCreationFailed"


def _ready_text(snapshot: Object) -> str:
    metadata = snapshot["metadata"]
    return f"Snapshot {metadata['namespace']}/{metadata['name']} is ready to use."
