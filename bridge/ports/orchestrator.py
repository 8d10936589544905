"""Orchestrators: where requests come from, and where answers go. An adapter is one class behind this port."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from bridge.model.keys import Key
from bridge.model.secret import SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy, Followed, SnapshotRequest, SnapshotStatus
from bridge.model.volume import Volume
from bridge.ports.ledger import Ledger
from bridge.ports.plugin import PluginSink

Wake = Callable[[Key], None]
"""Put a key on the queue. Never blocks; a key that is queued already stays once."""


Follow = Callable[[Key], Awaitable[Followed | None]]
"""What another controller has told of a request that `observe` calls its own; None when nothing is known of it."""


class Requests(Protocol):
    """Requests that live in the orchestrator's own objects (or in the book)."""

    async def observe(self, key: Key) -> SnapshotRequest | None:
        """The request as it stands now; None when nothing at all is known of it.

        Wish.GONE when only the record is left. NotSyncedError before the first full list. ElsewhereError when
        another controller acts on it: the adapter wakes the key when that changes.
        """
        ...

    async def hold(self, request: SnapshotRequest) -> None:
        """Make the orchestrator keep the request and its source until `release`. May be repeated."""
        ...

    async def release(self, request: SnapshotRequest) -> None:
        """Let go of everything that `hold` took. May be repeated; a missing object is fine."""
        ...

    async def publish(self, request: SnapshotRequest, status: SnapshotStatus) -> None:
        """Tell the owner. Writes only if something changed. May drop holds that this status makes needless."""
        ...

    def keys(self) -> AsyncIterator[Key]:
        """The keys of all requests, for the resync."""
        ...


class Volumes(Protocol):
    """The cluster's volumes."""

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        """The CSI volumes of a namespace, or of all."""
        ...

    async def find(self, namespace: str, name: str) -> Volume:
        """NotFoundError when there is none; InvalidError when it is no CSI volume or not bound."""
        ...

    async def register(self, volume: Volume, like: Volume | None) -> None:
        """Make a volume that exists on the backend known under its name (the end of a restore). Repeatable.

        `like` is the source's description, for what is to be carried over. ConflictError: the name is taken
        by another handle.
        """
        ...

    async def forget(self, namespace: str, name: str) -> Volume | None:
        """Remove the registration, keep the data; returns what was registered. ConflictError while in use."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotDraft:
    """A wish for a snapshot as a caller or a hook puts it, before anything is looked up."""

    cluster: str
    namespace: str
    name: str
    volume: str = ""
    adopt_handle: str = ""
    """Take over this existing CSI snapshot instead of cutting; then `driver` must be given."""
    driver: str = ""
    policy: DeletionPolicy = DeletionPolicy.DELETE
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: SnapshotSecrets = SnapshotSecrets()
    asked_by: str = ""
    why: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    users: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Who uses the volume, where the asker knows more than the cluster will tell; added to what that says."""
    pin: bool = False
    """Pin it from the first moment; `why` is the pin's reason."""
    uid: str = ""
    """Given by a hook that must not double on a repeat (deterministic); else minted by the service."""


class Intake(Protocol):
    """The service's door for adapters' own hooks (events, lifecycle tasks)."""

    async def ask(self, draft: SnapshotDraft) -> Key:
        """Book the request and wake it. The same uid and name again returns the same key.

        NotFoundError, InvalidError, ConflictError as the API would answer them.
        """
        ...

    async def ask_group(
        self, drafts: Sequence[SnapshotDraft], *, name: str, uid: str, max_skew_seconds: float | None = None
    ) -> Key:
        """Book these volumes to be cut together, all or nothing, and wake the group. Every draft has its own uid.

        The drafts agree on cluster, namespace and policy. The same uid and name again returns the same key. Errors
        as in `ask`. Its members are snapshots with the label `group`; `status` of its key tells of all together.
        """
        ...

    async def status(self, key: Key) -> SnapshotStatus | None:
        """The last status told, or None."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """How this orchestrator differs, as data. The core branches on these and on nothing else."""

    durable_requests: bool = False
    """Requests are the orchestrator's own durable objects; the book is not used for them."""
    creates_volumes: bool = True
    """Volumes that we made may be registered there by `Volumes.register`."""


class Orchestrator(Protocol):
    """One cluster of one orchestrator."""

    @property
    def cluster(self) -> str:
        """Its name in the config; the first part of every key."""
        ...

    @property
    def kind(self) -> str:
        """Which orchestrator: a label for people and metrics, never for decisions."""
        ...

    @property
    def traits(self) -> Traits: ...

    @property
    def requests(self) -> Requests | None:
        """Its own durable requests; None when the book keeps them."""
        ...

    @property
    def ledger(self) -> Ledger | None:
        """Its own record keeper; None when the service's ledger does."""
        ...

    @property
    def volumes(self) -> Volumes: ...

    async def submit(self, draft: SnapshotDraft) -> Key:
        """Make a durable request there (only with `traits.durable_requests`)."""
        ...

    async def withdraw(self, key: Key) -> None:
        """Ask for the request's end there (only with `traits.durable_requests`)."""
        ...

    async def abandon(self, key: Key) -> None:
        """Mark the request as released in spite of an open note (only with `traits.durable_requests`)."""
        ...

    async def in_use(self, key: Key, handle: str) -> str:
        """A sentence naming who uses this snapshot now; empty when nobody does."""
        ...

    async def run(self, wake: Wake, intake: Intake, plugins: PluginSink) -> None:
        """Watch until cancelled: wake keys, ask for what hooks want, announce plugins. Reconnects by itself."""
        ...

    def ready(self) -> str:
        """Empty when its view is complete; else a sentence for /readyz."""
        ...
