"""Volumes shown to workloads on this node: staged, published, measured, grown, taken down.

A use is written down before its path is made, so that a restart or a repeated call can finish either way. Nothing
but empty directories, empty files and links that we made ourselves is ever removed. The caller holds the volume.
"""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from adapters.localdisk import failures, homes, mounts, records
from adapters.localdisk.layout import Layout
from adapters.localdisk.records import Form, Use, Volume
from adapters.localdisk.store import Steps, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUse:
    """What a caller asks for. `exclusive`: no second path of this volume may be published."""

    volume_id: str
    path: str
    block: bool
    readonly: bool = False
    exclusive: bool = False
    mount_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Uses:
    """The uses of one node."""

    layout: Layout
    store: Store
    homes: homes.Homes
    privileged: bool
    steps: Steps

    def stage(self, new: NewUse) -> None:
        """Makes the volume ready on this node: images are mounted, raw images get their device."""
        volume = self._volume(new)
        use = self._recorded(new, staging=True)
        self._open(volume, readonly=use.readonly)

    def publish(self, new: NewUse) -> None:
        """Shows the volume at a path, which is made."""
        volume = self._volume(new)
        if new.readonly and not self.privileged:
            failures.precondition("readonly cannot be had without root: run the driver as root, or publish writable")
        others = [u for u in self.store.uses_of(volume.id) if not u.staging and u.path != new.path]
        if others and (new.exclusive or any(u.exclusive for u in others)):
            failures.precondition(f"volume {volume.id} is published at {others[0].path} already, for one user only")
        use = self._recorded(new, staging=False)
        self._show(use, volume)

    def _volume(self, new: NewUse) -> Volume:
        volume = self.store.volume(new.volume_id)
        if volume is None:
            failures.not_found(f"volume {new.volume_id!r} does not exist")
        if volume.form.is_block is not new.block:
            failures.invalid(f"volume {volume.id} is {'not ' if new.block else ''}a block volume")
        if volume.form is Form.IMAGE and not self.privileged:
            failures.precondition(
                f"volume {volume.id} is an image, which only root can mount: run the driver as root"
            )
        try:
            mounts.flags_of(new.mount_flags)
        except KeyError as error:
            failures.invalid(f"mount_flags: {error.args[0]!r} is not known; known are {', '.join(mounts.FLAGS)}")
        return volume

    def _recorded(self, new: NewUse, *, staging: bool) -> Use:
        use = Use(
            id=records.use_id(new.path),
            volume_id=new.volume_id,
            path=new.path,
            staging=staging,
            readonly=new.readonly,
            exclusive=new.exclusive,
            mount_flags=new.mount_flags,
        )
        found = self.store.uses.get(use.id)
        if found is None:
            self.store.uses.put(use)
        elif found != use:
            failures.already_exists(f"{new.path} is in use already, by volume {found.volume_id} or in another way")
        return use

    def _open(self, volume: Volume, *, readonly: bool) -> Path:
        """What a path of this volume shows: the directory or the device."""
        if volume.form is Form.IMAGE:
            return self.homes.mount(volume)
        if volume.form is Form.RAW and self.privileged:
            return self.homes.device(volume, readonly=readonly)
        return self.layout.data(volume)

    def _show(self, use: Use, volume: Volume) -> None:
        source = self._open(volume, readonly=use.readonly)
        target = Path(use.path)
        if is_shown(source, target):
            return
        self.steps("about to publish")
        if not self.privileged:
            if target.is_dir() and not target.is_symlink():
                target.rmdir()  # some callers make the target themselves
            target.symlink_to(source)
            return
        if volume.form.is_block:
            target.touch(mode=0o600)
        else:
            target.mkdir(exist_ok=True)
        self.steps("target made")
        flags = mounts.flags_of(use.mount_flags) | (mounts.MS_RDONLY if use.readonly else 0)
        mounts.bind(source, target, flags)
        self.steps("published")

    def withdraw(self, volume_id: str, path: str) -> None:
        """Takes a path down, staged or published. Already down is fine; raises NOT_FOUND for an unknown volume."""
        use = self.store.uses.get(records.use_id(path))
        volume = self.store.volume(volume_id)
        if use is not None and use.volume_id != volume_id:
            failures.invalid(f"{path} belongs to volume {use.volume_id}, not to {volume_id}")
        if use is None:
            if volume is None:
                failures.not_found(f"volume {volume_id!r} does not exist")
            return
        if not use.staging:
            self._hide(Path(path))
        self.steps("target removed")
        self.store.uses.remove(use.id)
        if volume is not None and not self.store.uses_of(volume_id):
            self.homes.close(volume)

    def _hide(self, target: Path) -> None:
        while mounts.at(target) is not None:
            mounts.unmount(target)
        if target.is_symlink():
            target.unlink()
        elif target.is_dir():
            target.rmdir()
        elif target.is_file() and target.stat().st_size == 0:
            target.unlink()
        elif target.exists():
            failures.precondition(f"{target} is neither a mount nor a link of ours, and is left alone")

    def in_use(self, volume_id: str) -> list[str]:
        """The paths of a volume that are still there, published ones first. Uses whose path is gone are forgotten."""
        found = []
        for use in sorted(self.store.uses_of(volume_id), key=lambda use: use.staging):
            if os.path.lexists(use.path):
                found.append(use.path)
            else:
                _log.info("forgetting %s of %s, which is gone", use.path, volume_id)
                self.store.uses.remove(use.id)
        return found

    def written_to(self, volume_id: str) -> bool:
        """Whether somebody may be writing now."""
        return any(not u.staging and not u.readonly for u in self.store.uses_of(volume_id))

    def release(self, volume: Volume) -> None:
        """Before a delete: lets go of mount and device. Raises FAILED_PRECONDITION while they are busy."""
        self.homes.close(volume, must=True)

    def shown_at(self, volume_id: str, path: str) -> Volume:
        """The volume that is in use at a path. Raises NOT_FOUND if it is not."""
        volume = self.store.volume(volume_id)
        if volume is None:
            failures.not_found(f"volume {volume_id!r} does not exist")
        use = self.store.uses.get(records.use_id(path))
        if use is None or use.volume_id != volume_id or not os.path.exists(path):
            failures.not_found(f"volume {volume_id} is not in use at {path!r}")
        return volume

    def grow(self, volume: Volume) -> None:
        """Grows what is mounted or attached to the volume's capacity."""
        self.homes.grow(volume)

    def restore(self) -> None:
        """At the start: shows again what was shown; lets go of what nobody uses. Errors are logged, not raised."""
        for use in self.store.uses.all():
            volume = self.store.volume(use.volume_id)
            if volume is None or not os.path.lexists(use.path):
                _log.info("forgetting %s of %s, which is gone", use.path, use.volume_id)
                self.store.uses.remove(use.id)
                continue
            try:
                if use.staging:
                    self._open(volume, readonly=use.readonly)
                else:
                    self._show(use, volume)
            except (OSError, failures.DriverError) as error:
                _log.error("volume %s could not be shown again at %s: %s", volume.id, use.path, error)
        used = {u.volume_id for u in self.store.uses.all()}
        for volume in self.store.volumes.all():
            if volume.id not in used:
                self.homes.close(volume)


def is_shown(source: Path, target: Path) -> bool:
    """Whether a path already shows this directory or device."""
    try:
        ours, theirs = source.stat(), target.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    if _is_device(ours):
        return ours.st_rdev == theirs.st_rdev
    return os.path.samestat(ours, theirs)


def _is_device(status: os.stat_result) -> bool:
    """Whether a path is a block device."""
    return status.st_rdev != 0
