"""The ledger of records, and the book of requests. The former may live in an orchestrator's own objects."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from bridge.model.keys import Key
from bridge.model.operation import Operation
from bridge.model.pin import Pin
from bridge.model.secret import SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy, Record, SnapshotStatus, Source, Wish
from bridge.model.volume import Origin, Volume, VolumeShape


class Ledger(Protocol):
    """Records of snapshots. A write is durable when the call returns, and atomic."""

    async def load(self, key: Key) -> Record | None:
        """The record, at least as new as this process's own last write of it."""
        ...

    async def save(self, key: Key, record: Record) -> Record:
        """Compare-and-set on `record.version` ("" = must not exist). Returns it with its new version.

        ConflictError: somebody else wrote it; nothing was changed, observe again.
        """
        ...

    async def condemn(self, key: Key, record: Record) -> Record:
        """Decide its deletion, durably, and return it with `condemned` and with the policy that counts.

        The policy is read from the store in the same act, not from `record`: it may have changed.
        """
        ...

    async def erase(self, key: Key, record: Record, *, orphan: str = "") -> None:
        """Forget the record. `orphan` names what may be left on the backend; it is put on record for people.

        A missing record is fine. ConflictError as in `save`.
        """
        ...

    def keys(self) -> AsyncIterator[Key]:
        """The keys of all records that still need or may need work, for the resync."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One booked request: everything needed is copied in when it is made, so that nothing can vanish under it."""

    key: Key
    namespace: str
    name: str
    volume: str
    """What people call the source volume; empty for an adopted handle."""
    driver: str
    source: Source
    snapshot_name: str
    policy: DeletionPolicy
    wish: Wish = Wish.PRESENT
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: SnapshotSecrets = SnapshotSecrets()
    asked_by: str = ""
    """Who asked: a caller's name, a workload, a hook."""
    why: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    created_at: float = 0.0
    held: bool = True
    abandon: bool = False
    status: SnapshotStatus | None = None
    """The last one told; None before the first pass."""
    users: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Who had the volume when this was asked for, in the orchestrator's names and values."""
    group: Key | None = None
    """The group that it is a member of."""
    shape: VolumeShape | None = None
    """What the source volume was like then: a restore needs no source. None where it was not known."""
    version: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One page of entries, newest first. An empty token ends the list."""

    items: tuple[Entry, ...]
    next_token: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries to list; an empty field is no condition."""

    cluster: str = ""
    namespace: str = ""
    volume: str = ""
    driver: str = ""
    states: tuple[str, ...] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    users: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of who had the volume; a value that ends in `*` is the start of one."""
    uid_prefix: str = ""


class Book(Protocol):
    """Requests, operations and claims of identity that live in the service's own store."""

    async def add(self, entry: Entry) -> Entry:
        """Book a request. An entry with the same cluster, namespace and name that is not gone: ConflictError."""
        ...

    async def entry(self, key: Key) -> Entry | None:
        """The entry, or None."""
        ...

    async def find(self, cluster: str, namespace: str, name: str) -> Entry | None:
        """The live entry of that name, or None."""
        ...

    async def change(self, entry: Entry) -> Entry:
        """Compare-and-set on `entry.version`; ConflictError when it has moved on."""
        ...

    async def list(self, which: EntryFilter, *, limit: int = 100, token: str = "") -> Page:
        """Entries that are not gone, newest first."""
        ...

    async def holders(self, driver: str, handle: str, *, adopted_only: bool = False) -> Sequence[Entry]:
        """The live entries of this snapshot on the backend: who cut it, and who took it over by its handle.

        `adopted_only` leaves the first out, and is quick.
        """
        ...

    async def recorded(self, driver: str, handles: Sequence[str]) -> frozenset[str]:
        """Which of these snapshots on the backend are on record here, cut or adopted, kept or on their way out."""
        ...

    async def open_sources(self, driver: str) -> frozenset[str]:
        """Handles of volumes with a create on record whose outcome is not known."""
        ...

    async def pin(self, pin: Pin) -> Pin:
        """Keep it; the same owner's earlier pin is replaced. ConflictError when its deletion was asked for."""
        ...

    async def unpin(self, key: Key, owner: str = "") -> bool:
        """Let this owner's pin go; whether there was one."""
        ...

    async def pins(self, keys: Sequence[Key]) -> Sequence[Pin]:
        """The pins of these keys, oldest first."""
        ...

    async def put_origin(self, origin: Origin) -> None:
        """Remember from what a volume was made; a repeat replaces it."""
        ...

    async def made_from(self, driver: str, handle: str) -> Sequence[Origin]:
        """The volumes that were made from this snapshot or volume, oldest first; gone ones too."""
        ...

    async def origins(self, cluster: str) -> Sequence[Origin]:
        """From what the volumes of this cluster were made, as far as it was here; gone ones too."""
        ...

    async def put_operation(self, operation: Operation) -> Operation:
        """Insert ("" version) or compare-and-set; ConflictError when it has moved on."""
        ...

    async def operation(self, operation_id: str) -> Operation | None:
        """The operation, or None."""
        ...

    async def operations(self, *, running: bool = False, limit: int = 100) -> Sequence[Operation]:
        """Newest first; only running ones on request."""
        ...

    async def claim(self, scope: str, idempotency_key: str, digest: str, result: str) -> str:
        """Bind a result to an idempotency key in one act; returns the result that counts (the first one's).

        The same key with another digest: ConflictError.
        """
        ...

    async def unclaim(self, scope: str, idempotency_key: str, result: str) -> None:
        """Let go of a key that is bound to this result: what was asked for was refused, and nothing was booked."""
        ...

    async def put_volume(self, volume: Volume) -> None:
        """Remember a volume that the service itself made (standalone); replaces one of that name and handle.

        ConflictError when the name is another handle's.
        """
        ...

    async def drop_volume(self, cluster: str, namespace: str, name: str) -> None:
        """Forget it; unknown is fine. Nothing happens to the data."""
        ...

    async def volumes(self, cluster: str) -> Sequence[Volume]:
        """The volumes remembered by `put_volume`."""
        ...

    async def audit(self, key: str, verb: str, who: str, detail: Mapping[str, str]) -> None:
        """Append one row to the audit; never changed, never removed."""
        ...
