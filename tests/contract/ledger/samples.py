"""Values to fill a ledger with, and a clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import Key, snapshot_key
from bridge.model.operation import Operation, OperationState, Step
from bridge.model.secret import SecretRef, SnapshotSecrets
from bridge.model.snapshot import (
    DeletionPolicy,
    HandleSource,
    Note,
    Record,
    SnapshotState,
    SnapshotStatus,
    VolumeSource,
)
from bridge.model.volume import AccessMode, Volume, VolumeMode
from bridge.ports.ledger import Book, Entry, EntryFilter, Ledger


class StoppedClock:
    """A clock whose hands a test moves."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.instant = now

    def now(self) -> float:
        return self.instant

    async def sleep(self, seconds: float) -> None:
        self.instant += seconds
        await asyncio.sleep(0)


SECRETS = SnapshotSecrets(create=SecretRef("env", "CSI_CREATE"), delete=SecretRef("file", "/run/secret"))


def key(uid: str = "u-1", cluster: str = "east") -> Key:
    return snapshot_key(cluster, uid)


def record(**changes: Any) -> Record:
    """A record with every field away from its default."""
    full = Record(
        driver="localdisk.csi.example",
        source=VolumeSource("vol-1"),
        snapshot_name="snapshot-u-1",
        policy=DeletionPolicy.DELETE,
        secrets=SECRETS,
        note=Note("snapshot-u-1", "vol-1", {"tier": "gold"}, SecretRef("env", "CSI_CREATE"), "writer-1", unsure=True),
        note_open=True,
        handle="snap-1",
        ready=True,
        size_bytes=2**40,
        cut_at_ns=1_800_000_000_123_456_789,
        group="group-1",
        failure=Failure(FailureKind.UNSURE, "INTERNAL", "it broke", "look at it"),
        failures=3,
        retry_at=1_800_000_012.5,
        polls=7,
    )
    return dataclasses.replace(full, **changes)


def status(state: SnapshotState = SnapshotState.READY) -> SnapshotStatus:
    return SnapshotStatus(state, ready=state is SnapshotState.READY, handle="snap-1", reason="Ready", message="ready")


def entry(uid: str = "u-1", name: str = "", cluster: str = "east", **changes: Any) -> Entry:
    full = Entry(
        key=key(uid, cluster),
        namespace="default",
        name=name or f"name-{uid}",
        volume="data",
        driver="localdisk.csi.example",
        source=VolumeSource("vol-1"),
        snapshot_name=f"snapshot-{uid}",
        policy=DeletionPolicy.DELETE,
        parameters={"tier": "gold"},
        secrets=SECRETS,
        asked_by="anna",
        why="before the upgrade",
        labels={"app": "db"},
        created_at=1_800_000_000.25,
    )
    return dataclasses.replace(full, **changes)


def operation(operation_id: str = "op-1", **changes: Any) -> Operation:
    full = Operation(
        id=operation_id,
        verb="restore",
        cluster="east",
        namespace="default",
        target="east/snapshot/u-1",
        state=OperationState.RUNNING,
        created_at=1_800_000_000.0,
        updated_at=1_800_000_001.0,
        asked_by="anna",
        arguments={"name": "copy"},
        steps=(Step("booked", 1_800_000_000.0), Step("made", 1_800_000_001.0, "vol-2")),
        failure=Failure(FailureKind.REFUSED, "NOT_FOUND", "no such volume"),
    )
    return dataclasses.replace(full, **changes)


def volume(name: str = "data", **changes: Any) -> Volume:
    full = Volume(
        cluster="east",
        namespace="default",
        name=name,
        driver="localdisk.csi.example",
        handle="vol-1",
        capacity_bytes=2**30,
        mode=VolumeMode.BLOCK,
        access_modes=(AccessMode.SINGLE_NODE_WRITER, AccessMode.MULTI_NODE_READER_ONLY),
        fs_type="ext4",
        parameters={"tier": "gold"},
        context={"path": "/a"},
        secret=SecretRef("env", "CSI_CREATE"),
        users=("web",),
    )
    return dataclasses.replace(full, **changes)


HANDLE_SOURCE = HandleSource("snap-9")


async def all_keys(ledger: Ledger) -> list[Key]:
    """The whole walk of `keys`."""
    return [found async for found in ledger.keys()]  # noqa: SIM118 - a ledger is no mapping


async def all_names(book: Book, which: EntryFilter | None = None, *, limit: int = 100) -> list[str]:
    """The names of every page, in order."""
    names: list[str] = []
    token = ""
    while True:
        page = await book.list(which or EntryFilter(), limit=limit, token=token)
        names += [item.name for item in page.items]
        token = page.next_token
        if not token:
            return names
