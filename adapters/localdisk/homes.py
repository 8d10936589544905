"""Where images live while in use: each mounted once below the state directory, each raw image on one loop device.

Paths of workloads are only further views of these. It must not make or remove such paths; see `uses`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.localdisk import failures, freeze, images, loop, mounts
from adapters.localdisk.layout import Layout
from adapters.localdisk.records import Form, Volume
from adapters.localdisk.store import Steps, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Homes:
    """The mounts and devices of one driver."""

    layout: Layout
    store: Store
    privileged: bool
    steps: Steps

    def mount(self, volume: Volume) -> Path:
        """Mounts an image, if it is not, and grows its file system to the capacity. Returns the directory."""
        home = self.layout.home(volume.id)
        if mounts.at(home) is None:
            home.mkdir(exist_ok=True)
            if volume.fs_bytes != volume.capacity_bytes and volume.fs_type == "ext4":
                images.grow_offline(self.layout.data(volume))
                volume = self._recorded(volume, fs_bytes=volume.capacity_bytes)
            # The kernel detaches the device when the mount ends, whatever becomes of us.
            device, handle = loop.attach(self.layout.data(volume), until_closed=True)
            self.steps("loop attached")
            try:
                mounts.mount(str(device), home, volume.fs_type, 0, images.mount_options(volume.fs_type))
            finally:
                os.close(handle)
            self.steps("home mounted")
        self._fit(volume, home)
        return home

    def _fit(self, volume: Volume, home: Path) -> None:
        if volume.fs_bytes == volume.capacity_bytes and not volume.root_pending:
            return
        if volume.root_pending:
            home.chmod(volume.root_mode)
            volume = self._recorded(volume, root_pending=False)
        if volume.fs_bytes != volume.capacity_bytes:
            for device in loop.find(self.layout.data(volume)):
                loop.refresh_size(device)
                images.grow(volume.fs_type, device, home)
            self._recorded(volume, fs_bytes=volume.capacity_bytes)

    def _recorded(self, volume: Volume, **changes: Any) -> Volume:
        changed = dataclasses.replace(volume, **changes)
        self.store.volumes.put(changed)
        return changed

    def device(self, volume: Volume, *, readonly: bool) -> Path:
        """The loop device of a raw image, attached if it is not. Raises FAILED_PRECONDITION if it is not writable."""
        image = self.layout.data(volume)
        for device in loop.find(image):
            if _is_readonly(device) and not readonly:
                failures.precondition(f"volume {volume.id} is in use read-only: take that down before writing to it")
            return device
        device, handle = loop.attach(image, readonly=readonly)
        os.close(handle)
        self.steps("loop attached")
        return device

    def close(self, volume: Volume, *, must: bool = False) -> None:
        """Lets go of mount and device. While busy: raises FAILED_PRECONDITION if it `must`, else leaves them."""
        if not self.privileged or not volume.form.is_file:
            return
        home = self.layout.home(volume.id)
        try:
            while volume.form is Form.IMAGE and mounts.at(home) is not None:
                # Someone's freeze would outlive the mount, out of reach, and hold the device for ever.
                freeze.thaw(home)
                mounts.unmount(home)
        except OSError as error:
            if error.errno == errno.EBUSY and must:
                failures.precondition(f"volume {volume.id} is busy at {home}: end what uses it")
            if error.errno != errno.EBUSY:
                raise
            _log.warning("%s is busy and stays mounted for now", home)
            return
        with contextlib.suppress(FileNotFoundError):
            home.rmdir()
        for device in loop.find(self.layout.data(volume)):
            loop.detach(device)
        self.steps("home closed")

    def grow(self, volume: Volume) -> None:
        """Brings a mounted file system, or an attached device, to the volume's capacity."""
        if volume.form is Form.IMAGE:
            self._fit(volume, self.mount(volume))
        elif volume.form is Form.RAW and self.privileged:
            for device in loop.find(self.layout.data(volume)):
                loop.refresh_size(device)

    def sweep(self) -> None:
        """At the start: unmounts homes and detaches devices whose volume is gone."""
        if not self.privileged:
            return
        for mount in mounts.below(self.layout.mounts):
            if self.store.volumes.get(Path(mount.path).name) is None:
                _log.info("unmounting %s, whose volume is gone", mount.path)
                freeze.thaw(Path(mount.path))
                mounts.unmount(Path(mount.path))
        for entry in loop.attached():
            if entry.backing.parent == self.layout.volumes and self.store.volumes.get(entry.backing.stem) is None:
                _log.info("detaching %s, whose volume is gone", entry.device)
                loop.detach(entry.device)
        for folder in self.layout.mounts.iterdir():
            if mounts.at(folder) is None:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _is_readonly(device: Path) -> bool:
    return (Path("/sys/block") / device.name / "ro").read_text().strip() == "1"
