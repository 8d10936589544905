"""Objects that are not what their definition promises: nobody acts on them, and their owners are told."""

from __future__ import annotations

import logging
from typing import Any

from adapters.kubernetes import names, shape
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import path
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.writer import Writer
from bridge.model.failure import BridgeError
from bridge.ports.clock import Clock

Object = dict[str, Any]
log = logging.getLogger(__name__)


class Complaints:
    """Tells a malformed object's owner, once."""

    def __init__(
        self, writer: Writer, events: Events, clock: Clock, *, told_in: names.Resource = names.SNAPSHOTS
    ) -> None:
        """`told_in`: the kind whose status says what is wrong, VolumeSnapshots or VolumeGroupSnapshots."""
        self._writer = writer
        self._events = events
        self._clock = clock
        self._told_in = told_in
        self._group = "" if told_in is names.SNAPSHOTS else "Group"

    async def tell(self, error: MalformedError) -> None:
        """An event on the object, and the error in the status of what it stops. What cannot be written is logged."""
        log.warning("an object is malformed", extra={"error": str(error)})
        reason = "SnapshotValidationError" if error.about is error.snapshot else "ContentValidationError"
        await self._events.warn(error.about, f"{self._group}{reason}", str(error))
        snapshot = error.snapshot
        if snapshot is None or path(snapshot, "status", "error", "message") == str(error):
            return
        after = dict(snapshot.get("status") or {})
        after["error"] = {"message": str(error), "time": shape.rfc3339(self._clock.now())}
        try:
            await self._writer.put(self._told_in, {**snapshot, "status": after}, status=True)
        except BridgeError as refused:
            log.warning("its status cannot be written", extra={"error": str(refused)})
