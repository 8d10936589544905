"""The service's front desk: all that the API may ask of it. Each verb checks what the caller may touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.model.keys import Key
from bridge.model.node import Node
from bridge.model.operation import Operation
from bridge.model.plugin import PluginDescription
from bridge.model.revert import RevertDraft, RevertPlan
from bridge.model.snapshot import DeletionPolicy
from bridge.model.view import (
    CloneDraft,
    ClusterView,
    ForeignPage,
    GroupDraft,
    GroupView,
    RestoreDraft,
    SnapshotPage,
    SnapshotView,
)
from bridge.model.volume import Volume
from bridge.ports.identity import Caller
from bridge.ports.ledger import EntryFilter
from bridge.ports.orchestrator import SnapshotDraft


class GroupDesk(Protocol):
    """Several volumes together. Errors as in `Desk`."""

    async def create(
        self, caller: Caller, draft: GroupDraft, *, idempotency_key: str = ""
    ) -> tuple[GroupView, Operation]:
        """Book the group and its members, and return at once; the operation ends when it is ready, or has failed."""
        ...

    async def all(self, caller: Caller, *, cluster: str = "", namespace: str = "") -> Sequence[GroupView]:
        """The groups all of whose volumes the caller may see, newest first."""
        ...

    async def one(self, caller: Caller, ref: str) -> GroupView:
        """By uid, by unambiguous uid prefix (four characters or more), or by CLUSTER/NAMESPACE/NAME."""
        ...

    async def delete(self, caller: Caller, ref: str, *, abandon: bool = False) -> Operation:
        """Withdraw the group with all its members; the policy says what happens to them. No prefix here.

        PinnedError, InUseError: something keeps a member, and with it all of them.
        """
        ...

    async def is_there(self, key: Key) -> bool:
        """Whether this group is wanted still."""
        ...


class Desk(Protocol):
    """Raises the errors of bridge.model.failure: NotFoundError, InvalidError, ConflictError, DeniedError,
    UnavailableError; their code, field and hint go to the caller as they are."""

    @property
    def groups(self) -> GroupDesk:
        """Several volumes together."""
        ...

    def clusters(self) -> Sequence[ClusterView]:
        """Every configured cluster."""
        ...

    async def create_snapshot(
        self, caller: Caller, draft: SnapshotDraft, *, idempotency_key: str = ""
    ) -> tuple[SnapshotView, Operation]:
        """Book it and return at once; the operation ends when the snapshot is ready, or fails.

        The same idempotency key with the same draft returns the first answer again; with another, ConflictError.
        """
        ...

    async def snapshots(self, caller: Caller, which: EntryFilter, *, limit: int, token: str) -> SnapshotPage:
        """A page of what the caller may see. A token that is not ours: InvalidError."""
        ...

    async def foreign_snapshots(self, caller: Caller, driver: str, *, limit: int, token: str) -> ForeignPage:
        """A page of what the plugin of this driver holds and nobody has on record, by the plugin's own token.

        A plugin that cannot list is no error: the page says so. One that is down is: UnavailableError.
        """
        ...

    async def snapshot(self, caller: Caller, ref: str) -> SnapshotView:
        """By uid, by unambiguous uid prefix (four characters or more), or by CLUSTER/NAMESPACE/NAME."""
        ...

    async def delete_snapshot(self, caller: Caller, ref: str, *, abandon: bool = False) -> Operation:
        """Withdraw the request; the operation ends when it is gone (or retained, by policy).

        A prefix is not accepted here: the full uid or name. `abandon` releases one whose open create cannot be
        settled, and puts "orphan possible" on record. PinnedError, InUseError: something keeps it.
        """
        ...

    async def pin_snapshot(self, caller: Caller, ref: str, *, why: str = "") -> SnapshotView:
        """Keep it from being deleted by anybody. A repeat replaces the reason. No prefix, as for a delete."""
        ...

    async def unpin_snapshot(self, caller: Caller, ref: str) -> SnapshotView:
        """Let people's pin go; those of operations stay and are shown. One without a pin is fine."""
        ...

    async def set_deletion_policy(self, caller: Caller, ref: str, policy: DeletionPolicy) -> SnapshotView:
        """Change what a delete will mean. It deletes nothing: a retained snapshot is under management again."""
        ...

    async def restore_snapshot(
        self, caller: Caller, ref: str, draft: RestoreDraft, *, idempotency_key: str = ""
    ) -> Operation:
        """Make a new volume from a ready snapshot and register it; `result` names volume and handle."""
        ...

    async def clone_volume(self, caller: Caller, draft: CloneDraft, *, idempotency_key: str = "") -> Operation:
        """Make a new volume from one that exists and register it. InvalidError: its driver cannot clone."""
        ...

    async def plan_revert(self, caller: Caller, ref: str, draft: RevertDraft) -> RevertPlan:
        """What a revert would do, in words. Changes nothing; refuses as the revert would."""
        ...

    async def revert_snapshot(
        self, caller: Caller, ref: str, draft: RevertDraft, *, idempotency_key: str = ""
    ) -> Operation:
        """Put the snapshot's data in place of its volume's, under the same name. The old volume is kept.

        UnsupportedError where the cluster cannot stop who uses the volume.
        """
        ...

    async def acknowledge(self, caller: Caller, operation_id: str, *, delete: bool) -> Operation:
        """A revert is good: its old volume needs no keeping any more, or (`delete`) is deleted."""
        ...

    async def volumes(self, caller: Caller, *, cluster: str = "", namespace: str = "") -> Sequence[Volume]:
        """The volumes that the caller may see."""
        ...

    def plugins(self, caller: Caller) -> Sequence[PluginDescription]:
        """Every plugin instance."""
        ...

    def nodes(self, caller: Caller) -> Sequence[Node]:
        """Every node agent that is or was attached."""
        ...

    async def operations(self, caller: Caller, *, running: bool = False, limit: int = 100) -> Sequence[Operation]:
        """Newest first."""
        ...

    async def operation(self, caller: Caller, operation_id: str) -> Operation:
        """One operation; NotFoundError."""
        ...

    async def abandon_operation(self, caller: Caller, operation_id: str) -> Operation:
        """Have a restore or clone end: what it made is deleted; what it may have made is named, and put on record.

        ConflictError: it has ended. InvalidError: this verb cannot be abandoned.
        """
        ...

    async def wait_operation(
        self, caller: Caller, operation_id: str, *, version: str, timeout_seconds: float
    ) -> Operation:
        """Return when its version is another than `version`, or when time is up (then unchanged)."""
        ...
