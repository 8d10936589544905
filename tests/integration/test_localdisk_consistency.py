"""Cuts under write load are atomic: a database's writer runs, and every cut of it opens, whole up to its moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from adapters.localdisk import mounts
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import database, disks, localdisk
from tests.support.bed import packages

pytestmark = pytest.mark.root
CUTS = 8
SIZE = 96 << 20
BALLAST = 40 << 20  # so that a copy takes long enough for writes to fall into it


@contextlib.contextmanager
def driver(disk: str, mode: str) -> Iterator[localdisk.LocalDisk]:
    """A driver whose state is on a disk of that file system; "host" is the one the tests run on."""
    with contextlib.ExitStack() as stack:
        place = None if disk == "host" else stack.enter_context(disks.mounted(disk))
        yield stack.enter_context(localdisk.start_localdisk(place, mode=mode))


@pytest.mark.parametrize(
    ("disk", "mode"),
    [
        ("host", "image"),
        ("xfs", "image"),
        ("btrfs", "btrfs"),
    ],
)
def test_every_cut_of_a_busy_volume_opens(disk: str, mode: str) -> None:
    with driver(disk, mode) as running:
        volume = running.volume("db", SIZE).volume_id
        path = running.publish(volume)
        (path / "ballast").write_bytes(os.urandom(BALLAST))
        cuts: list[tuple[int, pb.Snapshot]] = []
        with database.Writer(path / "log", path / "db") as writer:
            for number in range(CUTS):
                writer.more(20)
                before = writer.acknowledged
                cuts.append((before, running.snapshot(f"cut-{number}", volume)))
            writer.more(20)
        kept = []
        for number, (before, snapshot) in enumerate(cuts):
            copy = running.restored(f"copy-{number}", snapshot).volume_id
            place = running.publish(copy)
            kept.append(database.check(place / "log", place / "db", before).rows)
            running.withdraw(copy, place)
        assert kept == sorted(kept)
        assert kept[-1] > kept[0] > 0
        assert database.read(path / "log", path / "db").rows > kept[-1], "the writer went on after the last cut"


def test_a_group_is_cut_at_one_moment() -> None:
    """The log on one volume, the database on another: the order of writes holds across them."""
    with driver("host", "image") as running:
        volumes = [running.volume(name, SIZE).volume_id for name in ("log", "db")]
        paths = [running.publish(v) for v in volumes]
        groups: list[tuple[int, pb.VolumeGroupSnapshot]] = []
        with database.Writer(paths[0] / "log", paths[1] / "db") as writer:
            for number in range(CUTS):
                writer.more(20)
                before = writer.acknowledged
                request = pb.CreateVolumeGroupSnapshotRequest(name=f"g{number}", source_volume_ids=volumes)
                reply = running.groups.CreateVolumeGroupSnapshot(request, timeout=60)
                groups.append((before, reply.group_snapshot))
        for number, (before, group) in enumerate(groups):
            members = {s.source_volume_id: s for s in group.snapshots}
            assert {s.group_snapshot_id for s in group.snapshots} == {group.group_snapshot_id}
            places = []
            for volume in volumes:
                copy = running.restored(f"copy-{number}-{volume}", members[volume]).volume_id
                places.append((copy, running.publish(copy)))
            database.check(places[0][1] / "log", places[1][1] / "db", before)
            for copy, place in places:
                running.withdraw(copy, place)


def test_a_group_that_cannot_be_frozen_is_refused_while_written_to() -> None:
    with driver("btrfs", "btrfs") as running:
        volumes = [running.volume(name, SIZE).volume_id for name in ("a", "b")]
        path = running.publish(volumes[0])
        request = pb.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=volumes)
        with localdisk.refused(grpc.StatusCode.FAILED_PRECONDITION, "unpublish"):
            running.groups.CreateVolumeGroupSnapshot(request, timeout=60)
        running.withdraw(volumes[0], path)
        assert running.groups.CreateVolumeGroupSnapshot(request, timeout=60).group_snapshot.ready_to_use


@pytest.mark.parametrize("disk", ["xfs", "btrfs"])
def test_a_busy_block_volume_is_cut_atomically_where_blocks_are_shared(disk: str, tmp_path: Path) -> None:
    """The workload brings its own file system, which the driver cannot freeze; sharing blocks is one step."""
    mode = "btrfs" if disk == "btrfs" else "image"
    with driver(disk, mode) as running:
        assert running.identity.GetPluginInfo(pb.GetPluginInfoRequest()).manifest["block-volume-cut"] == "atomic"
        volume = running.volume("raw", SIZE, block=True).volume_id
        device = running.publish(volume, block=True)
        subprocess.run([packages.program("mkfs.ext4"), "-q", device], check=True)
        with mounted(device, tmp_path / "live") as path:
            cuts = []
            with database.Writer(path / "log", path / "db") as writer:
                for number in range(CUTS):
                    writer.more(20)
                    before = writer.acknowledged
                    cuts.append((before, running.snapshot(f"cut-{number}", volume)))
        for number, (before, snapshot) in enumerate(cuts):
            copy = running.restored(f"copy-{number}", snapshot, block=True).volume_id
            target = running.publish(copy, block=True)
            with mounted(target, tmp_path / f"copy-{number}") as path:
                database.check(path / "log", path / "db", before)
            running.withdraw(copy, target)


@contextlib.contextmanager
def mounted(device: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    # The kernel wants the device itself, not the node bound at the target path.
    major_minor = os.stat(device).st_rdev
    real = f"/dev/{Path(f'/sys/dev/block/{os.major(major_minor)}:{os.minor(major_minor)}').resolve().name}"
    mounts.mount(real, place, "ext4")
    try:
        yield place
    finally:
        mounts.unmount(place)


def test_the_check_sees_files_of_different_moments(tmp_path: Path) -> None:
    """Without this, the other tests would prove nothing."""
    live, copy = tmp_path / "live", tmp_path / "copy"
    live.mkdir()
    copy.mkdir()
    with database.Writer(live / "log", live / "db") as writer:
        writer.more(20)
        shutil.copy(live / "log", copy / "log")  # first the log ...
        writer.more(20)
    for name in ("db", "db-wal"):
        shutil.copy(live / name, copy / name)  # ... then, later, the rest
    with pytest.raises(database.BrokenError, match="were acknowledged"):
        database.check(copy / "log", copy / "db", 20)
    database.check(live / "log", live / "db", 40)
    with pytest.raises(database.BrokenError):
        database.check(live / "log", live / "db", 10**6)
