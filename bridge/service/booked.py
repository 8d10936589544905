"""Requests that the service's own book keeps, for orchestrators without durable objects of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from bridge.model.group import GroupRecord, Means
from bridge.model.keys import Key
from bridge.model.snapshot import (
    DeletionPolicy,
    HandleSource,
    SnapshotRequest,
    SnapshotState,
    SnapshotStatus,
    Wish,
)
from bridge.ports.group import GroupLedger
from bridge.ports.ledger import Book, Entry, EntryFilter
from bridge.ports.orchestrator import Orchestrator


class BookedRequests:
    """The `Requests` port over the book. A hold needs no write: the book lets nothing go by itself."""

    def __init__(self, orchestrator: Orchestrator, book: Book, groups: GroupLedger | None = None) -> None:
        self._orchestrator = orchestrator
        self._book = book
        self._groups = groups

    async def observe(self, key: Key) -> SnapshotRequest | None:
        """Everything was copied in when the request was booked, so this is one read."""
        entry = await self._book.entry(key)
        if entry is None:
            return None
        in_use = ""
        if entry.wish is Wish.ABSENT:
            in_use = await self._orchestrator.in_use(key, entry.status.handle if entry.status else "")
            in_use = in_use or await self._shared(entry)
        return SnapshotRequest(
            key=key,
            wish=entry.wish,
            namespace=entry.namespace,
            name=entry.name,
            driver=entry.driver,
            source=entry.source,
            snapshot_name=entry.snapshot_name,
            policy=entry.policy,
            parameters=entry.parameters,
            secrets=entry.secrets,
            held=entry.held,
            volume=entry.volume,
            created_at=entry.created_at,
            in_use=in_use,
            abandon=entry.abandon,
            group=entry.group,
            waits_for=await self._waits_for(entry),
        )

    async def _waits_for(self, entry: Entry) -> str:
        """A member begins nothing by itself: its group's pass makes the first call; after it the member goes on."""
        if entry.group is None or self._groups is None:
            return ""
        return group_sentence(await self._groups.load(entry.group))

    async def _shared(self, entry: Entry) -> str:
        """Who else relies on the snapshot that this entry's deletion would take."""
        if entry.policy is not DeletionPolicy.DELETE:
            return ""
        adopted = isinstance(entry.source, HandleSource)
        handle = entry.source.handle if adopted else entry.status.handle if entry.status else ""
        if not handle:
            return ""
        found = await self._book.holders(entry.driver, handle, adopted_only=not adopted)
        staying = [one for one in found if one.key != entry.key and not _goes(one)]
        named = ", ".join(f"{one.key.cluster}/{one.namespace}/{one.name}" for one in staying)
        return f"the same snapshot on the backend is held by {named}" if named else ""

    async def hold(self, request: SnapshotRequest) -> None:
        """Mark the entry held."""
        entry = await self._book.entry(request.key)
        if entry is not None and not entry.held:
            await self._book.change(dataclasses.replace(entry, held=True))

    async def release(self, request: SnapshotRequest) -> None:
        """The request is done with; what stays is a retained snapshot's entry, or nothing that needs work."""
        entry = await self._book.entry(request.key)
        if entry is not None and entry.held:
            await self._book.change(dataclasses.replace(entry, held=False))

    async def publish(self, request: SnapshotRequest, status: SnapshotStatus) -> None:
        """Keep the last status beside the entry."""
        entry = await self._book.entry(request.key)
        if entry is not None and entry.status != status:
            await self._book.change(dataclasses.replace(entry, status=status))

    async def keys(self) -> AsyncIterator[Key]:
        """Every entry of the cluster that is not gone."""
        token = ""
        while True:
            page = await self._book.list(EntryFilter(cluster=self._orchestrator.cluster), limit=500, token=token)
            for entry in page.items:
                settled = entry.status is not None and entry.status.state in (
                    SnapshotState.READY,
                    SnapshotState.RETAINED,
                )
                if not settled or entry.wish is not Wish.PRESENT:
                    yield entry.key
            if not page.next_token:
                return
            token = page.next_token


def _goes(entry: Entry) -> bool:
    """Whether its data is to be deleted anyway."""
    return entry.wish is Wish.ABSENT and entry.policy is DeletionPolicy.DELETE


def group_sentence(record: GroupRecord | None) -> str:
    """What a member of this group waits for; empty once it goes on by itself."""
    if record is not None and record.failed:
        return "its group has failed"
    if record is not None and record.means is Means.BARRIER and record.released_at:
        return ""
    return "its group cuts it together with the others"
