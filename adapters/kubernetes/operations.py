"""How long snapshots take, seen from their objects: for the metrics of whichever process acts. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.facts import is_deleting, is_ready, path, static_content
from adapters.kubernetes.world import World

Object = dict[str, Any]
Observe = Callable[[str, str, str, str, float], None]
"""`observe(driver, operation, kind, status, seconds)` in upstream's words."""

CREATE, READY, DELETE = "CreateSnapshot", "CreateSnapshotAndReady", "DeleteSnapshot"
UNKNOWN = "unknown"
"""Upstream's word for a driver that nobody could tell."""


class Operations:
    """Follows every VolumeSnapshot from its first sight to ready, and from its deletion to its end."""

    def __init__(
        self, world: World, instant: Callable[[], float], observe: Observe, acting: Callable[[], bool] = lambda: True
    ) -> None:
        """`instant` gives seconds; while `acting` is false others do the work, and theirs are the figures."""
        self._world = world
        self._instant = instant
        self._observe = observe
        self._acting = acting
        self._since: dict[tuple[str, str], tuple[float, str]] = {}
        """(uid, operation) -> when it was first seen under way, and its driver as far as it was known then."""
        world.snapshots.listen(self._on_snapshot)

    def in_flight(self) -> int:
        """Operations under way."""
        return len(self._since)

    def _on_snapshot(self, before: Object | None, after: Object | None) -> None:
        if after is None:
            if before is not None:
                self._ended(before)
            return
        if is_deleting(after):
            self._begin(after, DELETE)
            return
        if is_ready(after):
            self._end(after, CREATE)
            self._end(after, READY)
        elif before is None:
            self._begin(after, READY)
            if not path(after, "status", "creationTime"):
                self._begin(after, CREATE)
        elif path(after, "status", "creationTime"):
            self._end(after, CREATE)

    def _begin(self, snapshot: Object, operation: str) -> None:
        key = snapshot["metadata"]["uid"], operation
        if key not in self._since:
            self._since[key] = self._instant(), self._driver(snapshot)

    def _ended(self, snapshot: Object) -> None:
        self._end(snapshot, DELETE)
        for operation in (CREATE, READY):
            self._end(snapshot, operation, "cancel")

    def _end(self, snapshot: Object, operation: str, status: str = "success") -> None:
        begun = self._since.pop((snapshot["metadata"]["uid"], operation), None)
        if begun is None or not self._acting():
            return
        since, known = begun
        kind = "pre-provisioned" if static_content(snapshot) else "dynamic"
        driver = self._driver(snapshot) or known or UNKNOWN
        self._observe(driver, operation, kind, status, self._instant() - since)

    def _driver(self, snapshot: Object) -> str:
        if wellformed.snapshot(snapshot):
            return ""  # Malformed: nobody acts on it, and nothing may be read out of it here.
        content = self._world.content_of(snapshot)
        if content is not None:
            return str(path(content, "spec", "driver") or "")
        klass = self._world.classes.get("", path(snapshot, "spec", "volumeSnapshotClassName") or "")
        return str((klass or {}).get("driver") or "")
