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
        self._since: dict[tuple[str, str], float] = {}
        """(uid, operation) -> when it was first seen under way."""
        world.snapshots.listen(self._on_snapshot)

    def in_flight(self) -> int:
        """Operations under way."""
        return len(self._since)

    def _on_snapshot(self, before: Object | None, after: Object | None) -> None:
        if after is None:
            if before is not None:
                self._ended(before)
            return
        uid = after["metadata"]["uid"]
        if is_deleting(after):
            self._since.setdefault((uid, DELETE), self._instant())
            return
        if is_ready(after):
            self._end(after, CREATE)
            self._end(after, READY)
        elif before is None:
            self._since.setdefault((uid, READY), self._instant())
            if not path(after, "status", "creationTime"):
                self._since.setdefault((uid, CREATE), self._instant())
        elif path(after, "status", "creationTime"):
            self._end(after, CREATE)

    def _ended(self, snapshot: Object) -> None:
        self._end(snapshot, DELETE)
        for operation in (CREATE, READY):
            self._end(snapshot, operation, "cancel")

    def _end(self, snapshot: Object, operation: str, status: str = "success") -> None:
        since = self._since.pop((snapshot["metadata"]["uid"], operation), None)
        if since is None or not self._acting():
            return
        kind = "pre-provisioned" if static_content(snapshot) else "dynamic"
        self._observe(self._driver(snapshot), operation, kind, status, self._instant() - since)

    def _driver(self, snapshot: Object) -> str:
        if wellformed.snapshot(snapshot):
            return ""  # Malformed: nobody acts on it, and nothing may be read out of it here.
        content = self._world.content_of(snapshot)
        if content is not None:
            return str(path(content, "spec", "driver") or "")
        klass = self._world.classes.get("", path(snapshot, "spec", "volumeSnapshotClassName") or "")
        return str((klass or {}).get("driver") or "")
