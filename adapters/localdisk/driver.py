"""One driver put together: finds out what the host can do, opens the state directory, recovers, and holds the parts.

It must not know of gRPC services; `server` lays those over it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from adapters.localdisk import btrfs, content, copy, freeze, groups, homes, images, layout, loop, snapshots
from adapters.localdisk import store as stores
from adapters.localdisk import uses as uses_
from adapters.localdisk import volumes as volumes_
from adapters.localdisk.records import Form, Snapshot, Volume
from adapters.localdisk.settings import Mode, Settings, SettingsError

_log = logging.getLogger(__name__)
_FORMS = {Mode.DIRECTORY: Form.DIRECTORY, Mode.BTRFS: Form.SUBVOLUME, Mode.IMAGE: Form.IMAGE}


@dataclass(frozen=True, slots=True)
class Driver:
    """The parts of an open driver."""

    settings: Settings
    mode: Mode
    shares_blocks: bool
    layout: layout.Layout
    store: stores.Store
    content: content.Content
    volumes: volumes_.Volumes
    snapshots: snapshots.Snapshots
    groups: groups.Groups
    uses: uses_.Uses
    guard: freeze.Guard
    lock: int

    @property
    def topology_key(self) -> str:
        return f"{self.settings.driver_name}/node"

    @property
    def manifest(self) -> dict[str, str]:
        """What GetPluginInfo tells about this instance; a cut that is not atomic is said here."""
        mount_cut = "not atomic under writes" if self.mode is Mode.DIRECTORY else "atomic"
        block_cut = "atomic" if self.shares_blocks else "not atomic under writes"
        return {
            "mode": self.mode.value,
            "privileged": str(self.settings.privileged).lower(),
            "mount-volume-cut": mount_cut,
            "block-volume-cut": block_cut,
            "shares-blocks": str(self.shares_blocks).lower(),
        }

    def close(self) -> None:
        """Lets go of the guard and the state directory. Mounts of volumes in use stay: workloads go on."""
        self.guard.close()
        os.close(self.lock)


def open_driver(
    settings: Settings, *, steps: stores.Steps = stores.no_step, clock: Callable[[], int] = time.time_ns
) -> Driver:
    """Opens the state directory and brings it in order after whatever happened.

    Raises SettingsError, StateDirError or StoreError with a text that says what to do.
    """
    place, lock = layout.claim(settings.state_dir, settings.driver_name)
    guard = freeze.Guard()
    try:
        driver = _put_together(settings, place, lock, guard, steps, clock)
        _recover(driver)
    except BaseException:
        guard.close()
        os.close(lock)
        raise
    _announce(driver)
    return driver


def _put_together(
    settings: Settings,
    place: layout.Layout,
    lock: int,
    guard: freeze.Guard,
    steps: stores.Steps,
    clock: Callable[[], int],
) -> Driver:
    mode = _mode(settings, place)
    store = stores.Store(place, durable=settings.durable, steps=steps)
    freezer = freeze.Freezer(place, guard, settings.freeze_deadline_seconds, steps)
    freezer.thaw_leftovers()
    data = content.Content(place, freezer, durable=settings.durable, steps=steps, clock=clock)
    home = homes.Homes(place, store, settings.privileged, steps)
    uses = uses_.Uses(place, store, home, settings.privileged, steps)
    return Driver(
        settings=settings,
        mode=mode,
        shares_blocks=_shares_blocks(place),
        layout=place,
        store=store,
        content=data,
        volumes=volumes_.Volumes(place, store, data, uses, _FORMS[mode], settings.fs_type, clock),
        snapshots=snapshots.Snapshots(store, data, clock),
        groups=groups.Groups(store, data, uses),
        uses=uses,
        guard=guard,
        lock=lock,
    )


def _mode(settings: Settings, place: layout.Layout) -> Mode:
    """The mode asked for, if this host can; for AUTO the best that it can."""
    subvolumes = settings.mode in (Mode.AUTO, Mode.BTRFS) and btrfs.works(place.volumes)
    mountable = settings.privileged and loop.available() and images.available(settings.fs_type)
    match settings.mode:
        case Mode.AUTO:
            return Mode.BTRFS if subvolumes else Mode.IMAGE if mountable else Mode.DIRECTORY
        case Mode.BTRFS if not subvolumes:
            raise SettingsError(f"--mode btrfs: {place.root} is not on btrfs, or subvolumes are not allowed there")
        case Mode.IMAGE if not mountable:
            raise SettingsError(
                f"--mode image: needs root, {'/dev/loop-control'} and mkfs.{settings.fs_type}: "
                f"provide them, or use --mode directory"
            )
    return settings.mode


def _shares_blocks(place: layout.Layout) -> bool:
    first, second = place.snapshots / "tmp-probe-1", place.snapshots / "tmp-probe-2"
    try:
        with first.open("wb") as source, second.open("wb+") as target:
            source.write(b"x" * 4096)
            source.flush()
            with first.open("rb") as reader:
                return copy.share_blocks(reader.fileno(), target.fileno())
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def _recover(driver: Driver) -> None:
    driver.groups.finish_deletes()
    driver.snapshots.finish_deletes()
    driver.volumes.finish_deletes()
    driver.uses.homes.sweep()
    kept: list[Volume | Snapshot] = [*driver.store.live_volumes(), *driver.store.live_snapshots()]
    places = {driver.layout.data(record) for record in kept}
    for path in sorted(places):
        if not path.exists():
            _log.error("%s is missing although its record is there: restore it from a backup", path)
    driver.content.sweep(places)
    driver.uses.restore()


def _announce(driver: Driver) -> None:
    _log.info(
        "driver %s on node %s, mode %s, %d volumes, %d snapshots",
        driver.settings.driver_name,
        driver.settings.node_id,
        driver.mode.value,
        len(driver.store.live_volumes()),
        len(driver.store.live_snapshots()),
    )
    if driver.mode is Mode.DIRECTORY:
        _log.warning("a snapshot in directory mode is not atomic while the volume is written to: stop writers first")
    if not driver.settings.durable:
        _log.warning("--unsafe-no-fsync: what is reported as made may be lost on power failure")
