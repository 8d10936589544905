"""Group snapshots of one cluster: where requests come from and where records are kept. Beside the single ones' ports.

The promises are those of `Requests` and `Ledger`; only what differs is said here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from bridge.model.group import GroupMember, GroupRecord, GroupRequest, GroupStatus
from bridge.model.keys import Key
from bridge.model.snapshot import DeletionPolicy, Record, SnapshotState, Wish
from bridge.ports.ledger import Entry


class GroupRequests(Protocol):
    """Requests for groups that live in the orchestrator's own objects."""

    async def observe(self, key: Key) -> GroupRequest | None:
        """The request as it stands now; None when nothing at all is known of it."""
        ...

    async def hold(self, request: GroupRequest) -> None:
        """Make the orchestrator keep the request and every source volume until `release`. May be repeated."""
        ...

    async def release(self, request: GroupRequest) -> None:
        """Let go of everything that `hold` took, members included. May be repeated."""
        ...

    async def publish(self, request: GroupRequest, status: GroupStatus) -> None:
        """Tell the owner: the members first, one by one, and the group last. Writes only what changed."""
        ...

    def keys(self) -> AsyncIterator[Key]:
        """The keys of all requests, for the resync."""
        ...


class GroupLedger(Protocol):
    """Records of groups. A write is durable when the call returns, and atomic."""

    async def load(self, key: Key) -> GroupRecord | None:
        """The record, at least as new as this process's own last write of it."""
        ...

    async def save(self, key: Key, record: GroupRecord) -> GroupRecord:
        """Compare-and-set on `record.version`; ConflictError when somebody else wrote it."""
        ...

    async def condemn(self, key: Key, record: GroupRecord) -> GroupRecord:
        """Decide its deletion, durably, under the policy that the store has in the same act.

        Nobody may begin to use a member after this returns.
        """
        ...

    async def erase(self, key: Key, record: GroupRecord, *, orphan: str = "") -> None:
        """Forget the record. `orphan` names what may be left on the backend."""
        ...

    def keys(self) -> AsyncIterator[Key]:
        """The keys of all records that still need or may need work, for the resync."""
        ...


class Barrier(Protocol):
    """The members of a group that is cut by one call each, all at once. They are requests and records of the book."""

    async def open(self, key: Key, record: GroupRecord, members: Sequence[tuple[Key, Record]]) -> Sequence[Record]:
        """Write the group's record and every member's note in one act; returns the members' records as saved.

        ConflictError: one of them has moved on, and nothing was written.
        """
        ...

    async def member_state(self, key: Key) -> SnapshotState | None:
        """What was last told of this member; None when its entry is gone."""
        ...

    async def withdraw(self, keys: Sequence[Key]) -> None:
        """Wish these members' end, all or none. PinnedError, ConflictError: none."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class GroupEntry:
    """One booked group. Its members are entries of their own, booked in the same act."""

    key: Key
    namespace: str
    name: str
    group_name: str
    members: tuple[GroupMember, ...]
    policy: DeletionPolicy
    wish: Wish = Wish.PRESENT
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_skew_seconds: float | None = None
    asked_by: str = ""
    why: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    created_at: float = 0.0
    held: bool = True
    abandon: bool = False
    status: GroupStatus | None = None
    """The last one told; None before the first pass."""
    version: str = ""


class GroupBook(GroupLedger, Barrier, Protocol):
    """Groups that live in the service's own store: their requests, their records and their barrier."""

    async def add(self, entry: GroupEntry, members: Sequence[Entry]) -> GroupEntry:
        """Book the group and all its members, or nothing. ConflictError names the key or name that is taken."""
        ...

    async def entry(self, key: Key) -> GroupEntry | None:
        """The entry, or None."""
        ...

    async def find(self, cluster: str, namespace: str, name: str) -> GroupEntry | None:
        """The group of that name which is not gone, or None."""
        ...

    async def change(self, entry: GroupEntry) -> GroupEntry:
        """Compare-and-set on `entry.version`; ConflictError when it has moved on."""
        ...

    async def list(self, *, cluster: str = "", namespace: str = "", uid_prefix: str = "") -> Sequence[GroupEntry]:
        """Groups that are not gone, newest first."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSide:
    """What an orchestrator that has groups gives."""

    requests: GroupRequests
    ledger: GroupLedger
    barrier: Barrier | None = None
    """Where members are snapshots of the book."""
