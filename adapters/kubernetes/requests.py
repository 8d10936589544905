"""The `Requests` port on VolumeSnapshot objects: read them, hold them, tell their owners, let them go."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

from adapters.kubernetes import claims, names, shape, status, translate
from adapters.kubernetes.claims import ClaimHolds
from adapters.kubernetes.complaints import Complaints
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import Facts, is_bound, is_deleting, path, snapshot_of_reference
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError, ElsewhereError, NotSyncedError
from bridge.model.keys import Key, snapshot_key
from bridge.model.snapshot import SnapshotRequest, SnapshotState, SnapshotStatus, Wish
from bridge.ports.clock import Clock

Object = dict[str, Any]


class SnapshotRequests:
    """The `Requests` port. It acts for the drivers that are ours and for no other."""

    def __init__(
        self, cluster: str, world: World, writer: Writer, *, events: Events, ownership: Ownership, clock: Clock
    ) -> None:
        self._cluster = cluster
        self._world = world
        self._writer = writer
        self._events = events
        self._ownership = ownership
        self._clock = clock
        self.claims = ClaimHolds(world, writer)
        self.judge_member: Callable[[Facts], str] = lambda _facts: ""
        """What being a member of a group means for a snapshot; set where groups are served (groups/side.py)."""
        self._complaints = Complaints(writer, events, clock)

    async def observe(self, key: Key) -> SnapshotRequest | None:
        """The request as the caches have it. ElsewhereError when it is another controller's business."""
        if not self._world.synced:
            raise NotSyncedError(f"cluster {self._cluster} is not read yet")
        facts = await self._facts(key.uid)
        if facts is None:
            return None
        grouped = self.judge_member(facts)
        request = translate.request(self._cluster, facts)
        if not self._ownership.ours(request.driver, key.uid) and not self._only_goes(request, facts):
            raise ElsewhereError(self._ownership.why_not(request.driver))
        if request.wish is not Wish.PRESENT and not request.in_use:
            return dataclasses.replace(request, in_use=grouped or self._shared(facts))
        return request

    def _only_goes(self, request: SnapshotRequest, facts: Facts) -> bool:
        """Whether all that is left is to let go what names a class of a driver of ours, and a volume of another one.

        Nobody makes a content for it, and where the other driver has no controller nobody else would let it go: it
        may have its finalizers from its first instant (docs/decisions/0013-hold-at-create.md).
        """
        named = str((facts.klass or {}).get("driver") or "")
        if request.wish is not Wish.ABSENT or facts.content is not None or named in ("", request.driver):
            return False
        return self._ownership.ours(named, facts.uid)

    async def _facts(self, uid: str) -> Facts | None:
        """What is known. A malformed object is told to its owner, and left alone until it changes."""
        try:
            return self._world.facts(uid)
        except MalformedError as error:
            if self._ownership.ours(error.driver, uid):
                await self._complaints.tell(error)
            raise ElsewhereError(str(error)) from error

    def _shared(self, facts: Facts) -> str:
        """Who else holds the snapshot that a deletion would take: it goes with the last content that names it."""
        content = facts.content
        if content is None or path(content, "spec", "deletionPolicy") != "Delete":
            return ""
        if not snapshot_of_reference(content) and not path(content, "status", "snapshotHandle"):
            return ""  # Never bound and never looked up: only the object goes.
        if facts.snapshot is not None and not is_bound(content, facts.snapshot):
            return ""
        others = self._world.sharing(content)
        return f"Snapshot is also held by VolumeSnapshotContent {', '.join(others)}" if others else ""

    async def hold(self, request: SnapshotRequest) -> None:
        """Put our finalizers on the snapshot (and its default class, in the same write), then on its claim."""
        facts = self._world.facts(request.key.uid)
        if facts is None or facts.snapshot is None or is_deleting(facts.snapshot):
            return
        held = shape.held_snapshot(facts)
        if held is not None:
            await self._writer.put(names.SNAPSHOTS, held, own=True)
        claim = path(facts.snapshot, "spec", "source", "persistentVolumeClaimName")
        if claim:
            await self.claims.take(request.namespace, claim)

    async def release(self, request: SnapshotRequest) -> None:
        """Take our finalizers off: first the claim's, last the snapshot's.

        A content that stays (Retain) is marked first, as upstream does: its owner may delete it later on its own.
        """
        snapshot = self._world.snapshots.by_uid(request.key.uid)
        if snapshot is None:
            return
        await self._look_for_content(snapshot)
        await self._mark_retained(snapshot)
        claim = path(snapshot, "spec", "source", "persistentVolumeClaimName")
        if claim:
            await self.claims.drop(request.namespace, claim, request.key.uid)
        finalizers = list(snapshot["metadata"].get("finalizers") or ())
        wanted = [finalizer for finalizer in finalizers if finalizer not in names.RELEASED_FINALIZERS]
        if wanted != finalizers:
            metadata = {**snapshot["metadata"], "finalizers": wanted}
            await self._writer.put(names.SNAPSHOTS, {**snapshot, "metadata": metadata})

    async def publish(self, request: SnapshotRequest, told: SnapshotStatus) -> None:
        """Write the status if it says something new, tell it once as an event, and let a needless hold go."""
        snapshot = self._world.snapshots.by_uid(request.key.uid)
        if snapshot is None or request.wish is Wish.GONE:
            await self._tell_of_content(request, told)
            return
        content = self._world.content_of(snapshot)
        own = content if content is not None and is_bound(content, snapshot) else None
        news = status.tell(snapshot, own, told, self._clock.now())
        if news.status is not None:
            body = {**snapshot, "status": news.status}
            snapshot = await self._writer.put(names.SNAPSHOTS, body, status=True, own=True)
        if news.reason and news.warning:
            await self._events.warn(snapshot, news.reason, news.message)
        elif news.reason:
            await self._events.tell(snapshot, news.reason, news.message)
        if told.state is SnapshotState.READY:
            tidied = shape.tidied(own) if own is not None else None
            if tidied is not None:
                await self._writer.put(names.CONTENTS, tidied, own=True)
            await self._drop_claim(request, snapshot)
        elif told.failure is not None:
            await self._free_claim(request)

    async def _free_claim(self, request: SnapshotRequest) -> None:
        """One in trouble, or that has failed for certain while its claim is deleted, keeps that claim no longer."""
        place = request.namespace, request.volume
        if request.volume and self.claims.is_held(*place) and not claims.needed_by(self._world, request.key.uid):
            await self.claims.drop(*place, request.key.uid)

    async def _tell_of_content(self, request: SnapshotRequest, told: SnapshotStatus) -> None:
        """There is no VolumeSnapshot: what keeps a content's data from going is told of the content itself."""
        facts = self._world.facts(request.key.uid) if told.reason == "in use" else None
        if facts is not None and facts.snapshot is None and facts.content is not None:
            await self._events.warn(facts.content, "SnapshotDeletePending", told.message)

    async def keys(self) -> AsyncIterator[Key]:
        """Every VolumeSnapshot's key."""
        for snapshot in self._world.snapshots.all():
            yield snapshot_key(self._cluster, snapshot["metadata"]["uid"])

    async def _look_for_content(self, snapshot: Object) -> None:
        """A content that was never seen here may lag behind: another controller made it just before we took over."""
        name = self._world.content_name(snapshot)
        contents = self._world.contents
        if contents.get("", name) is not None or contents.saw_go("", name):
            return
        if await self._writer.refresh(names.CONTENTS, "", name) is not None:
            raise ConflictError(f"the content {name} was not known yet")

    async def _mark_retained(self, snapshot: Object) -> None:
        content = self._world.content_of(snapshot)
        if content is None or not is_deleting(snapshot) or not is_bound(content, snapshot):
            return
        notes = content["metadata"].get("annotations") or {}
        if names.BEING_DELETED in notes or is_deleting(content):
            return
        metadata = {**content["metadata"], "annotations": {**notes, names.BEING_DELETED: "yes"}}
        await self._writer.put(names.CONTENTS, {**content, "metadata": metadata})

    async def _drop_claim(self, request: SnapshotRequest, snapshot: Object) -> None:
        claim = path(snapshot, "spec", "source", "persistentVolumeClaimName")
        if claim:
            await self.claims.drop_later(request.namespace, claim, request.key.uid)
