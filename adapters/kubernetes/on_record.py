"""Which snapshots on the backend a cluster's objects name: what is here is nobody's to adopt. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adapters.kubernetes import shape
from adapters.kubernetes.facts import path
from bridge.model.snapshot import OnRecord

Object = dict[str, Any]


def of(driver: str, contents: Iterable[Object], group_contents: Iterable[Object]) -> OnRecord:
    """The handles that are named, in a wish or in a status, and the volumes with a create under way."""
    handles: set[str] = set()
    sources: set[str] = set()
    for content in contents:
        if path(content, "spec", "driver") != driver:
            continue
        named = (path(content, "spec", "source", "snapshotHandle"), path(content, "status", "snapshotHandle"))
        handles.update(str(handle) for handle in named if handle)
        if shape.may_be_under_way(content):
            sources.add(str(path(content, "spec", "source", "volumeHandle")))
    for group in group_contents:
        if path(group, "spec", "driver") != driver:
            continue
        wished = _rows(group, "spec", "source", "groupSnapshotHandles", "volumeSnapshotHandles")
        told = _rows(group, "status", "volumeSnapshotInfoList")
        members = (*wished, *(path(row, "snapshotHandle") for row in told))
        handles.update(str(handle) for handle in members if handle)
        if not path(group, "status", "volumeGroupSnapshotHandle"):
            sources.update(str(handle) for handle in _rows(group, "spec", "source", "volumeHandles"))
    return OnRecord(frozenset(handles), frozenset(sources))


def _rows(item: Object, *fields: str) -> list[Any]:
    """A list; of a malformed object none."""
    found = path(item, *fields)
    return found if isinstance(found, list) else []
