"""The bytes of volumes and snapshots: made empty, cut from others, removed.

Bytes are made under a temporary name and renamed when whole. They count only once a record says so: what lies here
without a record is swept at the next start. It must not write records or make mounts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from adapters.localdisk import btrfs, copy, failures, images, loop, mounts, records, store
from adapters.localdisk.freeze import Freezer
from adapters.localdisk.layout import TEMPORARY, Layout
from adapters.localdisk.records import Form, Snapshot, Volume

_log = logging.getLogger(__name__)


class Content:
    """The bytes in one state directory."""

    def __init__(
        self,
        layout: Layout,
        freezer: Freezer,
        *,
        durable: bool,
        steps: store.Steps = store.no_step,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._layout = layout
        self._freezer = freezer
        self._durable = durable
        self._steps = steps
        self._clock = clock

    def make_empty(self, volume: Volume) -> None:
        """Makes the bytes of a new, empty volume. Raises OSError; then nothing is left."""
        scratch = self._layout.temporary(volume)
        with self._cleaned_up([volume]):
            if volume.form.is_file:
                images.create(scratch, volume.capacity_bytes)
                self._steps("image created")
                if volume.form is Form.IMAGE:
                    images.format_image(scratch, volume.fs_type)
                if self._durable:
                    images.sync(scratch)
            else:
                if volume.form is Form.SUBVOLUME:
                    btrfs.create(scratch)
                else:
                    scratch.mkdir()
                self._steps("directory created")
                scratch.chmod(volume.root_mode)
            self._place(volume)

    def cut(self, pairs: Iterable[tuple[Volume | Snapshot, Volume | Snapshot]]) -> int:
        """Copies each first into its second, all at one moment. Returns that moment, in ns since 1970.

        Mounted images stand still meanwhile. A subvolume's snapshot and a shared copy of a raw image are atomic by
        themselves; a directory, or a raw image where blocks cannot be shared, is so only if nobody writes.
        Raises OSError or DriverError; then nothing is left.
        """
        work = list(pairs)
        mounted = [s.id for s, _ in work if isinstance(s, Volume) and self._is_mounted(s)]
        with self._cleaned_up([target for _, target in work]):
            for source, _ in work:
                self._flush(source)
            with self._freezer.frozen(mounted) if mounted else contextlib.nullcontext():
                moment = self._clock()
                for source, target in work:
                    self._copy(source, target)
            for _, target in work:
                self._finish(target)
            return moment

    def _is_mounted(self, volume: Volume) -> bool:
        return volume.form is Form.IMAGE and mounts.at(self._layout.home(volume.id)) is not None

    def _flush(self, source: Volume | Snapshot) -> None:
        """Brings a device's unwritten blocks into its file, and shortens the freeze to come."""
        if source.form is Form.RAW and isinstance(source, Volume):
            for device in loop.find(self._layout.data(source)):
                loop.flush(device)
        elif source.form is Form.IMAGE and isinstance(source, Volume) and self._is_mounted(source):
            handle = os.open(self._layout.home(source.id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                mounts.sync_file_system(handle)
            finally:
                os.close(handle)
            if self._durable:
                images.sync(self._layout.data(source))

    def _copy(self, source: Volume | Snapshot, target: Volume | Snapshot) -> None:
        origin, scratch = self._layout.data(source), self._layout.temporary(target)
        match source.form:
            case Form.IMAGE | Form.RAW:
                copy.copy_file(origin, scratch, durable=False)
            case Form.SUBVOLUME:
                btrfs.snapshot(origin, scratch)
            case Form.DIRECTORY:
                copy.copy_tree(origin, scratch, durable=self._durable)
        self._steps("copied")

    def _finish(self, target: Volume | Snapshot) -> None:
        scratch = self._layout.temporary(target)
        if target.form.is_file:
            size = target.capacity_bytes if isinstance(target, Volume) else 0
            images.resize(scratch, size, durable=False)
            if self._durable:
                images.sync(scratch)
        self._place(target)

    def _place(self, record: Volume | Snapshot) -> None:
        final = self._layout.data(record)
        self._layout.temporary(record).rename(final)
        self._steps("bytes renamed")
        if self._durable:
            store.sync_folder(final.parent)

    @contextlib.contextmanager
    def _cleaned_up(self, targets: Sequence[Volume | Snapshot]) -> Iterator[None]:
        """Removes what an earlier, killed attempt left, and what this one leaves if it fails."""
        for target in targets:
            self.discard(target)
        try:
            yield
        except BaseException:
            for target in targets:
                self.discard(target)
            raise

    def discard(self, record: Volume | Snapshot) -> None:
        """Removes the bytes of an object, whole or half made. Nothing there is fine."""
        for path in (self._layout.temporary(record), self._layout.data(record)):
            remove(path)
            self._steps("bytes removed")

    def grow(self, volume: Volume) -> None:
        """Makes an image as large as its record says. Directories have no size of their own."""
        if volume.form.is_file:
            images.resize(self._layout.data(volume), volume.capacity_bytes, durable=self._durable)

    def sweep(self, keep: set[Path]) -> None:
        """Removes what no record speaks for, at the start. Only names of our own making are touched."""
        for folder in (self._layout.volumes, self._layout.snapshots):
            for path in folder.iterdir():
                name = path.name.removeprefix(TEMPORARY).removesuffix(".img")
                if path in keep:
                    continue
                if records.ID_PATTERN.fullmatch(name):
                    _log.info("removing %s, which an interrupted operation left", path.name)
                    try:
                        remove(path)
                    except failures.DriverError as error:
                        _log.error("%s is kept for now: %s", path.name, error)
                    self._steps("swept")
                else:
                    _log.warning("%s is not ours and is left alone", path)


def check_no_mounts(path: Path) -> None:
    """Raises FAILED_PRECONDITION when something is mounted inside a tree: its files would be removed with ours.

    A workload's mount below its published path appears here too, where mounts are shared (systemd's default).
    """
    foreign = [m.path for m in mounts.table() if m.path == str(path) or m.path.startswith(f"{path}/")]
    if foreign:
        failures.precondition(f"{foreign[0]} is mounted inside {path.name}: unmount it first, then repeat")


def remove(path: Path) -> None:
    """Removes a file or a tree; nothing there is fine. Raises FAILED_PRECONDITION, and removes nothing, if
    something is mounted inside.
    """
    check_no_mounts(path)
    if path.is_dir() and not path.is_symlink():
        btrfs.remove_tree(path)
    else:
        path.unlink(missing_ok=True)
