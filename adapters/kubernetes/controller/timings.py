"""How long operations take from the first sight of a request to its end, for the metrics. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters.kubernetes.facts import Facts, is_ready, path, static_content

Object = dict[str, Any]
Observe = Callable[[str, str, str, str, float], None]
"""`observe(driver, operation, kind, status, seconds)` in upstream's words."""


class Timings:
    """The running operations by (uid, name)."""

    def __init__(self, instant: Callable[[], float], observe: Observe = lambda *_: None) -> None:
        self._instant = instant
        self._observe = observe
        self._running: dict[tuple[str, str], tuple[float, str, str]] = {}

    @property
    def in_flight(self) -> int:
        """Operations that have begun and not ended."""
        return len(self._running)

    def began(self, facts: Facts, driver: str) -> None:
        """A content is about to be made, or bound."""
        for operation in ("CreateSnapshot", "CreateSnapshotAndReady"):
            self._begin(facts, operation, driver)

    def deleting(self, facts: Facts) -> None:
        """A content is about to be deleted."""
        self._begin(facts, "DeleteSnapshot", str(path(facts.content, "spec", "driver") or ""))

    def told(self, facts: Facts, snapshot: Object) -> None:
        """A status was written."""
        if path(snapshot, "status", "creationTime"):
            self._end(facts.uid, "CreateSnapshot")
        if is_ready(snapshot):
            self._end(facts.uid, "CreateSnapshot")
            self._end(facts.uid, "CreateSnapshotAndReady")

    def seen(self, facts: Facts) -> None:
        """Nothing is left to do for now."""
        if facts.snapshot is not None:
            self.told(facts, facts.snapshot)

    def gone(self, uid: str) -> None:
        """The VolumeSnapshot is not there any more."""
        self._end(uid, "DeleteSnapshot")
        for operation in ("CreateSnapshot", "CreateSnapshotAndReady"):
            self._end(uid, operation, "cancel")

    def _begin(self, facts: Facts, operation: str, driver: str) -> None:
        kind = "pre-provisioned" if facts.snapshot is not None and static_content(facts.snapshot) else "dynamic"
        self._running.setdefault((facts.uid, operation), (self._instant(), driver, kind))

    def _end(self, uid: str, operation: str, status: str = "success") -> None:
        found = self._running.pop((uid, operation), None)
        if found is not None:
            since, driver, kind = found
            self._observe(driver, operation, kind, status, self._instant() - since)
