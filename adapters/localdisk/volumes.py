"""Volumes: made, listed, grown and deleted, as plain blocking logic over the store and the content.

It must not know of gRPC messages or of locks: the caller holds the volume.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from adapters.localdisk import capacity, content, failures, images, records
from adapters.localdisk.content import Content
from adapters.localdisk.layout import Layout
from adapters.localdisk.records import Form, Snapshot, Volume
from adapters.localdisk.store import Store
from adapters.localdisk.uses import Uses

_log = logging.getLogger(__name__)
_OCTAL = re.compile(r"0?[0-7]{3,4}")
PARAMETERS = {"mode": "permissions of the volume's root directory, octal, 0777 if not given"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVolume:
    """What a caller asks for."""

    name: str
    wanted: capacity.Wanted
    block: bool
    fs_type: str = ""
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    source_snapshot_id: str = ""
    source_volume_id: str = ""


@dataclass(frozen=True, slots=True)
class Volumes:
    """The volumes of one driver. `mount_form` is how new mount volumes are kept."""

    layout: Layout
    store: Store
    content: Content
    uses: Uses
    mount_form: Form
    default_fs_type: str
    clock: Callable[[], int] = time.time_ns

    def create(self, new: NewVolume) -> Volume:
        """Makes a volume, or finds the one that an equal request made."""
        key = records.volume_id(new.name)
        found = self.store.volumes.get(key)
        if found is not None and found.deleting:
            self._finish_delete(found)
            found = None
        if found is not None:
            return self._same(found, new)
        volume, source = self._plan(key, new)
        if source is None:
            self.content.make_empty(volume)
        else:
            self.content.cut([(source, volume)])
        try:
            self.store.volumes.put(volume)
        except OSError:
            self.content.discard(volume)
            raise
        return volume

    def _plan(self, key: str, new: NewVolume) -> tuple[Volume, Volume | Snapshot | None]:
        source = self._source(new)
        form = self._form(new, source)
        fs_type = ""
        if form is Form.IMAGE:
            fs_type = (source.fs_type if source else "") or new.fs_type or self.default_fs_type
            self._check_fs_type(fs_type, new)
        size = capacity.choose(
            new.wanted,
            smallest_bytes=images.SMALLEST_BYTES.get(fs_type, 1),
            source_bytes=_size(source),
            largest_bytes=self.disk_bytes()[1],
        )
        volume = Volume(
            id=key,
            name=new.name,
            form=form,
            capacity_bytes=size,
            created_ns=self.clock(),
            fs_type=fs_type,
            fs_bytes=0 if source else size,
            root_mode=source.root_mode if source else root_mode(new.parameters),
            root_pending=source.root_pending if source else form is Form.IMAGE,
            parameters=new.parameters,
            source_snapshot_id=new.source_snapshot_id,
            source_volume_id=new.source_volume_id,
        )
        return volume, source

    def _source(self, new: NewVolume) -> Volume | Snapshot | None:
        if new.source_volume_id:
            volume = self.store.volume(new.source_volume_id)
            return volume or failures.not_found(f"source volume {new.source_volume_id!r} does not exist")
        if not new.source_snapshot_id:
            return None
        snapshot = self.store.snapshot(new.source_snapshot_id)
        if snapshot is None:
            failures.not_found(f"source snapshot {new.source_snapshot_id!r} does not exist")
        if snapshot.ready_ns > self.clock():
            failures.precondition(f"source snapshot {snapshot.id} is not ready to use yet: wait until it is")
        return snapshot

    def _form(self, new: NewVolume, source: Volume | Snapshot | None) -> Form:
        if source is None:
            return Form.RAW if new.block else self.mount_form
        if source.form.is_block is not new.block:
            kinds = ("block", "mount") if new.block else ("mount", "block")
            failures.invalid(f"a {kinds[0]} volume cannot be made from the {kinds[1]} source {source.id}")
        return source.form

    def _check_fs_type(self, fs_type: str, new: NewVolume) -> None:
        if fs_type not in images.SMALLEST_BYTES:
            failures.invalid(f"fs_type {fs_type!r} is not known here: use {' or '.join(images.SMALLEST_BYTES)}")
        if new.fs_type and new.fs_type != fs_type:
            failures.invalid(f"fs_type {new.fs_type!r} is not that of the source, {fs_type}")

    def _same(self, found: Volume, new: NewVolume) -> Volume:
        differs = [
            name
            for name, equal in (
                ("access type", found.form.is_block is new.block),
                ("capacity_range", new.wanted.fits(found.capacity_bytes)),
                ("parameters", found.parameters == new.parameters),
                ("fs_type", not new.fs_type or not found.fs_type or new.fs_type == found.fs_type),
                ("source snapshot", found.source_snapshot_id == new.source_snapshot_id),
                ("source volume", found.source_volume_id == new.source_volume_id),
            )
            if not equal
        ]
        if differs:
            failures.already_exists(f"volume {new.name!r} exists with another {', another '.join(differs)}")
        return found

    def delete(self, key: str) -> None:
        """Deletes a volume; snapshots of it stay. An unknown one is fine."""
        found = self.store.volumes.get(key)
        if found is None:
            return
        if not found.deleting:
            paths = self.uses.in_use(key)
            if paths:
                failures.precondition(f"volume {key} is in use at {paths[0]}: unpublish and unstage it first")
            content.check_no_mounts(self.layout.data(found))
            found = dataclasses.replace(found, deleting=True)
            self.store.volumes.put(found)
        self._finish_delete(found)

    def _finish_delete(self, volume: Volume) -> None:
        self.uses.release(volume)
        self.content.discard(volume)
        self.store.volumes.remove(volume.id)

    def finish_deletes(self) -> None:
        """At the start: completes what was being deleted when the driver was killed."""
        for volume in self.store.volumes.all():
            if volume.deleting:
                try:
                    self._finish_delete(volume)
                except failures.DriverError as error:  # busy: the next DeleteVolume goes on; others must be served
                    _log.error("volume %s is still being deleted: %s", volume.id, error)

    def expand(self, key: str, wanted: capacity.Wanted) -> Volume:
        """Grows a volume's capacity; never shrinks it."""
        found = self.store.volume(key) or failures.not_found(f"volume {key!r} does not exist")
        if wanted.limit_bytes and wanted.limit_bytes < found.capacity_bytes:
            failures.out_of_range(f"volume {key} already has {found.capacity_bytes} bytes, above limit_bytes")
        if wanted.required_bytes > found.capacity_bytes:
            largest = self.disk_bytes()[1]
            size = capacity.choose(wanted, smallest_bytes=1, source_bytes=0, largest_bytes=largest)
            found = dataclasses.replace(found, capacity_bytes=size)
            # The file first: a crash between the two leaves a file that is too long, which is harmless.
            self.content.grow(found)
            self.store.volumes.put(found)
        return found

    def disk_bytes(self) -> tuple[int, int]:
        """Bytes free and bytes in all on the state directory's file system."""
        status = os.statvfs(self.layout.root)
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def _size(source: Volume | Snapshot | None) -> int:
    if source is None:
        return 0
    return source.capacity_bytes if isinstance(source, Volume) else source.size_bytes


def root_mode(parameters: dict[str, str]) -> int:
    """The root directory's permissions from the parameters."""
    text = parameters.get("mode", "0777")
    if not _OCTAL.fullmatch(text):
        failures.invalid(f"parameters[mode] {text!r}: give permissions in octal, such as 0770")
    return int(text, 8)


def check_parameters(parameters: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """The parameters that are ours. Keys with a '/' belong to the caller's orchestrator and are ignored."""
    ours = {k: v for k, v in parameters.items() if "/" not in k}
    for name in ours:
        if name not in known:
            failures.invalid(f"parameters[{name}] is not known; known are: {', '.join(sorted(known))}")
    return ours
