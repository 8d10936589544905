"""What a VolumeSnapshot's status is to say, from its content or from what stands in its way. Pure.

Nothing is told twice: the same status is no news, and neither is the same error at another instant.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import shape
from adapters.kubernetes.facts import is_ready, path
from adapters.kubernetes.status import quantity
from bridge.model.failure import Failure, FailureKind

Object = dict[str, Any]

_CLASS_TROUBLES = frozenset({"GetSnapshotClassFailed", "SetDefaultSnapshotClassFailed"})
"""They say nothing about readiness: the snapshot may be there already."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """An event about the VolumeSnapshot."""

    reason: str
    message: str
    warning: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class News:
    """The new status, and the events that go with it."""

    status: Object
    events: tuple[Event, ...] = ()


def copied(snapshot: Object, content: Object, trouble: Failure | None, now: float) -> News | None:
    """The status as the bound content has it; None when it says so already.

    A content that has lost its status takes nothing back from a ready snapshot: the driver half fills it anew.
    """
    before: Object = snapshot.get("status") or {}
    said: Object = content.get("status") or {}
    after = {**before, "boundVolumeSnapshotContentName": content["metadata"]["name"]}
    was_ready = is_ready(snapshot)
    ready = said.get("readyToUse") is True or (was_ready and said.get("readyToUse") is None)
    after["readyToUse"] = ready
    cut_at_ns, size_bytes = said.get("creationTime"), said.get("restoreSize")
    if isinstance(cut_at_ns, int) and cut_at_ns > 0:
        after["creationTime"] = shape.rfc3339(cut_at_ns / 1e9)
    if isinstance(size_bytes, int) and size_bytes > 0:
        after["restoreSize"] = quantity(size_bytes)
    events = _good_news(snapshot, before, after)
    error = _error(snapshot, content, trouble, lost=was_ready and not ready)
    if error is None:
        after.pop("error", None)
    elif path(before, "error", "message") != error.message:
        after["error"] = {"message": error.message, "time": path(said, "error", "time") or shape.rfc3339(now)}
        if error.warning:
            events = (*events, error)
    return None if after == before else News(after, events)


def is_silent(snapshot: Object, content: Object, trouble: Failure | None) -> bool:
    """Whether there is nothing to tell yet but which content it is."""
    return not (content.get("status") or trouble is not None or snapshot.get("status"))


def was_told(snapshot: Object) -> bool:
    """Whether its status has ever named a content."""
    return bool(path(snapshot, "status", "boundVolumeSnapshotContentName"))


def in_trouble(snapshot: Object, trouble: Failure, now: float) -> News | None:
    """The status of a request that cannot be carried out as it stands; None when it says so already."""
    text = _text(trouble)
    before: Object = snapshot.get("status") or {}
    after = dict(before)
    if trouble.code not in _CLASS_TROUBLES:
        after["readyToUse"] = False
    new = path(before, "error", "message") != text
    if new:
        after["error"] = {"message": text, "time": shape.rfc3339(now)}
    if after == before:
        return None
    return News(after, (Event(trouble.code, text, warning=True),) if new else ())


def refused(snapshot: Object, event: Event, now: float) -> News | None:
    """The status after the API server has refused a write; None when it says so already."""
    return in_trouble(snapshot, Failure(FailureKind.UNSURE, event.reason, event.message), now)


def refusal(snapshot: Object, reason: str, what: str) -> Event:
    """What its owner is told of a write that the API server refused."""
    making = f"Error creating volume snapshot content object for snapshot {_called(snapshot)}"
    texts = {
        "CreateSnapshotContentFailed": making,
        "SnapshotBindFailed": f"Snapshot {_called(snapshot)} failed to bind",
        "SnapshotContentCreationFailed": "Failed to create snapshot content with error",
        "SnapshotContentObjectDeleteError": "Failed to delete snapshot content API object",
        "SnapshotFinalizerError": "Failed to check and update snapshot",
        "SnapshotStatusUpdateFailed": "Snapshot status update failed",
    }
    return Event(reason, f"{texts.get(reason, 'A write was refused')}: {what}", warning=True)


def creating(snapshot: Object) -> Event:
    """The content was made."""
    return Event("CreatingSnapshot", f"Waiting for a snapshot {_called(snapshot)} to be created by the CSI driver.")


def _good_news(snapshot: Object, before: Object, after: Object) -> tuple[Event, ...]:
    found = []
    became_ready = after["readyToUse"] and before.get("readyToUse") is not True
    if "creationTime" not in before and ("creationTime" in after or became_ready):
        message = f"Snapshot {_called(snapshot)} was successfully created by the CSI driver."
        found.append(Event("SnapshotCreated", message))
    if became_ready:
        found.append(Event("SnapshotReady", f"Snapshot {_called(snapshot)} is ready to use."))
    return tuple(found)


def _error(snapshot: Object, content: Object, trouble: Failure | None, *, lost: bool) -> Event | None:
    """What is wrong. The driver half tells of its own errors itself, at the content."""
    message = str(path(content, "status", "error", "message") or "")
    if message:
        return Event("", message)
    if trouble is not None:
        return Event(trouble.code, _text(trouble), warning=True)
    if lost:
        text = f"Snapshot {_called(snapshot)} is no longer ready to use, says its VolumeSnapshotContent"
        return Event("SnapshotNotReady", text, warning=True)
    kept = str(path(snapshot, "status", "error", "message") or "")
    stays_lost = kept.endswith("is no longer ready to use, says its VolumeSnapshotContent")
    return Event("", kept) if stays_lost and path(content, "status", "readyToUse") is False else None


def _called(snapshot: Object) -> str:
    return f"{snapshot['metadata']['namespace']}/{snapshot['metadata']['name']}"


def _text(trouble: Failure) -> str:
    return f"{trouble.message}. {trouble.hint}" if trouble.hint else trouble.message
