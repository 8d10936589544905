"""The `Requests` port on contents: what each asks of the driver, what it is told, how it is let go."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

from adapters.kubernetes import names, shape
from adapters.kubernetes.complaints import Complaints
from adapters.kubernetes.decide import driver_half
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.sidecar.world import DriverWorld
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ElsewhereError, NotSyncedError
from bridge.model.keys import Key, snapshot_key
from bridge.model.snapshot import DeletionPolicy, SnapshotRequest, SnapshotState, SnapshotStatus, Wish
from bridge.ports.clock import Clock

Object = dict[str, Any]


class ContentRequests:
    """It never touches a VolumeSnapshot: that is the other half's."""

    def __init__(self, cluster: str, world: DriverWorld, writer: Writer, events: Events, clock: Clock) -> None:
        self._cluster = cluster
        self._world = world
        self._writer = writer
        self._events = events
        self._clock = clock
        self._complaints = Complaints(writer, events, clock)
        self.why_not: Callable[[str], str] = lambda _uid: ""
        """Why this process may not act on a content (by uid) at this moment; empty when it may. It is woken then."""

    async def observe(self, key: Key) -> SnapshotRequest | None:
        """See the port."""
        if not self._world.synced:
            raise NotSyncedError(f"cluster {self._cluster} is not read yet")
        if reason := self.why_not(key.uid):
            raise ElsewhereError(reason)
        try:
            facts = self._world.facts(key.uid)
        except MalformedError as error:
            await self._complaints.tell(error)
            raise ElsewhereError(str(error)) from error
        if facts is None or facts.content is None:
            return None
        request = driver_half.request(self._cluster, facts)
        if request.wish is not Wish.ABSENT or request.policy is DeletionPolicy.RETAIN:
            return request
        others = self._world.sharing(facts.content) if path(facts.content, "status", "snapshotHandle") else []
        if not others:
            return request
        held = f"Snapshot is also held by VolumeSnapshotContent {', '.join(others)}"
        return dataclasses.replace(request, in_use=held)

    async def hold(self, request: SnapshotRequest) -> None:
        """The other half holds what there is to hold; the note brings the content's finalizer along."""

    async def release(self, request: SnapshotRequest) -> None:
        """Take the finalizer off a content that goes while its snapshot stays."""
        content = self._world.contents.by_uid(request.key.uid)
        if content is not None and is_deleting(content) and driver_half.is_held(content):
            await self._writer.put(names.CONTENTS, without_finalizer(content))

    async def publish(self, request: SnapshotRequest, status: SnapshotStatus) -> None:
        """Say what stands in the way, in the status and once as an event. What a record keeps is written already."""
        content = self._world.contents.by_uid(request.key.uid)
        if content is None or request.wish is Wish.GONE:
            return
        if status.failure is None:
            if status.reason == "in use":
                await self._events.warn(content, "SnapshotDeleteError", status.message)
            elif status.state is SnapshotState.READY:
                tidied = shape.tidied(content)
                if tidied is not None:
                    await self._writer.put(names.CONTENTS, tidied)
            return
        if status.failure.code in driver_half.GATE_CODES:
            return
        reason, text = driver_half.text_of(content, status)
        if path(content, "status", "error", "message") != text:
            error = {"message": text, "time": shape.rfc3339(self._clock.now())}
            told = {**(content.get("status") or {}), "readyToUse": status.ready, "error": error}
            content = await self._writer.put(names.CONTENTS, {**content, "status": told}, status=True)
        await self._events.warn(content, reason, text)

    async def keys(self) -> AsyncIterator[Key]:
        """The contents that need work or may need it: a ready one wants nothing until it changes."""
        for uid in self._world.open_uids():
            yield snapshot_key(self._cluster, uid)


def without_finalizer(content: Object) -> Object:
    """The content, let go by the driver half."""
    left = [name for name in content["metadata"].get("finalizers") or () if name != names.CONTENT_FINALIZER]
    metadata = {field: value for field, value in content["metadata"].items() if field != "managedFields"}
    return {**content, "metadata": {**metadata, "finalizers": left}}
