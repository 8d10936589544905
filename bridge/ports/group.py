"""Group snapshots of one cluster: where requests come from and where records are kept. Beside the single ones' ports.

The promises are those of `Requests` and `Ledger`; only what differs is said here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Protocol

from bridge.model.group import GroupRecord, GroupRequest, GroupStatus
from bridge.model.keys import Key


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


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSide:
    """What an orchestrator that has groups gives."""

    requests: GroupRequests
    ledger: GroupLedger
