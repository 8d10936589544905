"""Snapshots: cut, listed and deleted, as plain blocking logic over the store and the content.

It must not know of gRPC messages or of locks: the caller holds the snapshot, and shares its volume.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from adapters.localdisk import failures, records
from adapters.localdisk.content import Content
from adapters.localdisk.records import Snapshot, Volume
from adapters.localdisk.store import Store

PARAMETERS = {"uploadSeconds": "the snapshot becomes ready this long after its cut, as if it were uploaded"}
_LONGEST_UPLOAD_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The snapshots of one driver."""

    store: Store
    content: Content
    clock: Callable[[], int] = time.time_ns

    def create(self, name: str, source_volume_id: str, parameters: dict[str, str]) -> Snapshot:
        """Cuts a snapshot, or finds the one that an equal request cut."""
        key = records.snapshot_id(name)
        upload_ns = upload_seconds(parameters)
        found = self.store.singles.get(key)
        if found is not None and found.deleting:
            self._finish_delete(found)
            found = None
        if found is not None:
            if found.source_volume_id != source_volume_id:
                failures.already_exists(f"snapshot {name!r} exists, of volume {found.source_volume_id}")
            return found
        volume = self.store.volume(source_volume_id)
        if volume is None:
            failures.not_found(f"source volume {source_volume_id!r} does not exist")
        plan = planned(key, name, volume, parameters)
        snapshot = stamped(plan, self.content.cut([(volume, plan)]), upload_ns)
        try:
            self.store.singles.put(snapshot)
        except OSError:
            self.content.discard(snapshot)
            raise
        return snapshot

    def delete(self, key: str) -> None:
        """Deletes a snapshot. An unknown one is fine; a member of a group is refused."""
        found = self.store.singles.get(key)
        if found is None:
            member = self.store.snapshot(key)
            if member is not None:
                failures.invalid(f"snapshot {key} is a member of {member.group_id}: delete the group snapshot")
            return
        if not found.deleting:
            found = dataclasses.replace(found, deleting=True)
            self.store.singles.put(found)
        self._finish_delete(found)

    def _finish_delete(self, snapshot: Snapshot) -> None:
        self.content.discard(snapshot)
        self.store.singles.remove(snapshot.id)

    def finish_deletes(self) -> None:
        """At the start: completes what was being deleted when the driver was killed."""
        for snapshot in self.store.singles.all():
            if snapshot.deleting:
                self._finish_delete(snapshot)

    def is_ready(self, snapshot: Snapshot) -> bool:
        """Whether it can be restored now. The moment is in the record, so a restart changes nothing."""
        return self.clock() >= snapshot.ready_ns


def planned(key: str, name: str, volume: Volume, parameters: dict[str, str], group: str = "") -> Snapshot:
    """The record of a snapshot that is still to be cut."""
    return Snapshot(
        id=key,
        name=name,
        source_volume_id=volume.id,
        form=volume.form,
        size_bytes=volume.capacity_bytes,
        created_ns=0,
        ready_ns=0,
        fs_type=volume.fs_type,
        root_mode=volume.root_mode,
        root_pending=volume.root_pending,
        parameters=parameters,
        group_id=group,
    )


def stamped(plan: Snapshot, moment_ns: int, upload_ns: int) -> Snapshot:
    """The record after the cut."""
    return dataclasses.replace(plan, created_ns=moment_ns, ready_ns=moment_ns + upload_ns)


def upload_seconds(parameters: dict[str, str]) -> int:
    """The time a snapshot is to stay unready, in nanoseconds. Raises INVALID_ARGUMENT."""
    text = parameters.get("uploadSeconds", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_UPLOAD_SECONDS:
        failures.invalid(f"parameters[uploadSeconds] {text!r}: give seconds, 0 to {_LONGEST_UPLOAD_SECONDS:g}")
    return round(seconds * 1e9)
