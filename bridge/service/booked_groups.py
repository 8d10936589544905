"""Groups that the service's own book keeps: the sibling of `booked.py`. Their members are entries of the book too."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from bridge.model.group import GroupRequest, GroupStatus, Means, VolumesSource
from bridge.model.keys import Key
from bridge.model.secret import SnapshotSecrets
from bridge.model.snapshot import CutSnapshot, DeletionPolicy, Record, SnapshotState, VolumeSource, Wish
from bridge.ports.group import GroupBook, GroupEntry, GroupSide
from bridge.ports.ledger import Book, Ledger
from bridge.ports.orchestrator import Orchestrator

_SETTLED = (SnapshotState.READY, SnapshotState.RETAINED)


def side(orchestrator: Orchestrator, book: Book, ledger: Ledger, groups: GroupBook) -> GroupSide:
    """The groups of one cluster whose requests the book keeps."""
    return GroupSide(BookedGroups(orchestrator, book, ledger, groups), groups, barrier=groups)


class BookedGroups:
    """The `GroupRequests` port over the book."""

    def __init__(self, orchestrator: Orchestrator, book: Book, ledger: Ledger, groups: GroupBook) -> None:
        self._orchestrator = orchestrator
        self._book = book
        self._ledger = ledger
        self._groups = groups

    async def observe(self, key: Key) -> GroupRequest | None:
        """Everything was copied in when the group was booked."""
        entry = await self._groups.entry(key)
        if entry is None:
            return None
        record = await self._groups.load(key)
        cleaning = entry.wish is Wish.ABSENT or (record is not None and record.failed)
        return GroupRequest(
            key=key,
            wish=entry.wish,
            namespace=entry.namespace,
            name=entry.name,
            driver=entry.members[0].driver,
            source=VolumesSource(tuple(one.handle for one in entry.members)),
            group_name=entry.group_name,
            policy=entry.policy,
            parameters=entry.parameters,
            secrets=SnapshotSecrets(*(entry.members[0].secret,) * 3),
            held=entry.held,
            in_use=await self._in_use(entry) if cleaning else "",
            members=tuple(one.key for one in entry.members),
            created_at=entry.created_at,
            abandon=entry.abandon,
            together=entry.members,
            max_skew_seconds=entry.max_skew_seconds,
        )

    async def _in_use(self, entry: GroupEntry) -> str:
        """A pin on one member keeps them all: half a group is none."""
        for pin in await self._book.pins([one.key for one in entry.members]):
            return f"the snapshot {pin.key.uid} of it is {pin}"
        for one in entry.members if entry.policy is DeletionPolicy.DELETE else ():
            member = await self._book.entry(one.key)
            handle = member.status.handle if member is not None and member.status is not None else ""
            for other in await self._book.holders(one.driver, handle, adopted_only=True) if handle else ():
                if other.wish is not Wish.ABSENT or other.policy is not DeletionPolicy.DELETE:
                    name = f"{other.key.cluster}/{other.namespace}/{other.name}"
                    return f"the snapshot {one.key.uid} of it is held by {name} too"
        return ""

    async def hold(self, request: GroupRequest) -> None:
        """Mark the entry held."""
        await self._set_held(request.key, True)

    async def release(self, request: GroupRequest) -> None:
        """The group is done with: so are its members, whose data went with it, or is kept by its policy."""
        await self._groups.withdraw([one.key for one in request.together])
        await self._set_held(request.key, False)

    async def _set_held(self, key: Key, held: bool) -> None:
        entry = await self._groups.entry(key)
        if entry is not None and entry.held is not held:
            await self._groups.change(dataclasses.replace(entry, held=held))

    async def publish(self, request: GroupRequest, status: GroupStatus) -> None:
        """The members' records first, where one call cut them all; then the last status beside the entry."""
        if status.means is Means.CSI and status.handle:
            await self._publish_members(request, status)
        entry = await self._groups.entry(request.key)
        if entry is not None and entry.status != status:
            await self._groups.change(dataclasses.replace(entry, status=status))

    async def _publish_members(self, request: GroupRequest, status: GroupStatus) -> None:
        by_source = {cut.source_handle: cut for cut in status.members}
        for member in request.together:
            cut = by_source.get(member.handle)
            if cut is None:
                continue
            before = await self._ledger.load(member.key)
            after = _member_record(request, status, before, cut, member.snapshot_name)
            if before is None or (after != before and not before.condemned):
                await self._ledger.save(member.key, after)

    async def keys(self) -> AsyncIterator[Key]:
        """Every group of the cluster that may need work."""
        for entry in await self._groups.list(cluster=self._orchestrator.cluster):
            settled = entry.status is not None and entry.status.state in _SETTLED
            if not settled or entry.wish is not Wish.PRESENT:
                yield entry.key


def _member_record(
    request: GroupRequest, status: GroupStatus, before: Record | None, cut: CutSnapshot, name: str
) -> Record:
    """What the ledger knows of a snapshot that its group's call cut. `group` keeps it from being deleted alone."""
    fresh = before or Record(request.driver, VolumeSource(cut.source_handle), name, request.policy, request.secrets)
    return dataclasses.replace(
        fresh,
        handle=cut.handle,
        ready=cut.ready,
        size_bytes=cut.size_bytes,
        cut_at_ns=cut.cut_at_ns if cut.cut_at_ns is not None else status.cut_at_ns,
        group=status.handle,
        route=status.route,
    )
