"""What localdisk's Node does on a host: mounts, links, devices, growth, and their return after a restart."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from adapters.localdisk import loop, mounts
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import localdisk
from tests.support.bed import paths

Code = grpc.StatusCode
MiB = 1 << 20
KINDS = [
    "rootless",
    pytest.param("directory", marks=pytest.mark.root),
    pytest.param("image", marks=pytest.mark.root),
]


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Iterator[localdisk.LocalDisk]:
    with started(getattr(request, "param", "rootless")) as found:
        yield found


def started(kind: str, folder: Path | None = None) -> localdisk.LocalDisk:
    mode = "directory" if kind == "rootless" else kind
    return localdisk.start_localdisk(folder, mode=mode, rootless=kind == "rootless")


@pytest.mark.parametrize("driver", KINDS, indirect=True)
def test_published_withdrawn_and_gone(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", 32 * MiB).volume_id
    path = driver.publish(volume)
    assert driver.publish(volume) == path, "a kubelet that restarts asks again"
    (path / "file").write_text("data")
    other = driver.publish(volume, "second")
    assert (other / "file").read_text() == "data"
    driver.withdraw(volume, other, unstage=False)
    assert (path / "file").read_text() == "data"
    driver.withdraw(volume, path)
    driver.withdraw(volume, path)
    assert not os.path.lexists(path)
    assert not os.path.lexists(other)
    assert mounts.below(driver.folder) == []
    again = driver.publish(volume)
    assert (again / "file").read_text() == "data"
    driver.withdraw(volume, again)
    driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume))
    assert driver.left_over() == []


@pytest.mark.root
@pytest.mark.parametrize("driver", ["directory", "image"], indirect=True)
def test_read_only_means_it(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", 32 * MiB).volume_id
    path = driver.publish(volume)
    (path / "file").write_text("data")
    view = driver.publish(volume, "view", readonly=True)
    with pytest.raises(OSError, match="Read-only"):
        (view / "file").write_text("changed")
    assert (view / "file").read_text() == "data"
    with localdisk.refused(Code.ALREADY_EXISTS, "in another way"):
        driver.publish(volume, "view")


def test_bad_requests_say_what_is_wrong(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB).volume_id
    driver.publish(volume)
    with localdisk.refused(Code.NOT_FOUND, "'vol-0' does not exist"):
        driver.publish("vol-0")
    with localdisk.refused(Code.INVALID_ARGUMENT, "not a block volume"):
        driver.publish(volume, "b", block=True)
    with localdisk.refused(Code.FAILED_PRECONDITION, "without root"):
        driver.publish(volume, "ro", readonly=True)
    with localdisk.refused(Code.INVALID_ARGUMENT, "not an absolute path"):
        driver.node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=volume, target_path="a/b"))
    with localdisk.refused(Code.NOT_FOUND, "'vol-0' does not exist"):
        driver.node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id="vol-0", target_path="/nowhere"))
    flags = pb.VolumeCapability(
        mount=pb.VolumeCapability.MountVolume(mount_flags=["nosuid", "turbo"]),
        access_mode=pb.VolumeCapability.AccessMode(mode=localdisk.Mode.SINGLE_NODE_WRITER),
    )
    with localdisk.refused(Code.INVALID_ARGUMENT, "'turbo' is not known"):
        driver.node.NodeStageVolume(
            pb.NodeStageVolumeRequest(volume_id=volume, staging_target_path="/a", volume_capability=flags)
        )


def test_what_stands_in_the_way_is_left_alone(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB).volume_id
    blocked = driver.folder / "pods" / "mine"
    blocked.mkdir(parents=True)
    (blocked / "thesis.txt").write_text("precious")
    with localdisk.refused(Code.FAILED_PRECONDITION, "not empty"):
        driver.publish(volume, "mine")
    ask = pb.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(blocked))
    with localdisk.refused(Code.FAILED_PRECONDITION, "not empty"):
        driver.node.NodeUnpublishVolume(ask)
    assert (blocked / "thesis.txt").read_text() == "precious"


@pytest.mark.root
@pytest.mark.parametrize("driver", ["directory"], indirect=True)
def test_what_is_mounted_inside_a_volume_is_never_deleted_with_it(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB).volume_id
    foreign, inside = driver.folder / "foreign", driver.state_dir / "volumes" / volume / "inside"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    inside.mkdir()
    mounts.bind(foreign, inside)
    try:
        with localdisk.refused(Code.FAILED_PRECONDITION, "is mounted inside"):
            driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume))
        assert (foreign / "thesis.txt").read_text() == "precious"
        driver.stop()
        record = driver.state_dir / "records" / "volumes" / f"{volume}.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "deleting": True}))
        driver.start()  # an interrupted deletion does not end there, and keeps nobody from being served
        assert (foreign / "thesis.txt").read_text() == "precious"
        driver.stop()
        record.unlink()
        driver.start()  # the sweep of what has no record leaves it alone too
        assert (foreign / "thesis.txt").read_text() == "precious"
    finally:
        mounts.unmount(inside)
    driver.stop()
    driver.start()
    assert driver.left_over() == []
    assert (foreign / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("driver", KINDS, indirect=True)
def test_a_killed_driver_comes_back_to_its_workloads(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", 32 * MiB).volume_id
    path = driver.publish(volume)
    with (path / "file").open("w") as file:
        file.write("before")
        file.flush()
        driver.kill()
        file.write(" and after")
    driver.start()
    assert (path / "file").read_text() == "before and after"
    snapshot = driver.snapshot("s", volume)
    copy = driver.restored("r", snapshot).volume_id
    assert (driver.publish(copy) / "file").read_text() == "before and after"


@pytest.mark.root
@pytest.mark.parametrize("kind", ["directory", "image"])
def test_after_a_reboot_everything_is_shown_again(kind: str) -> None:
    """A reboot leaves records and files, and no mount and no device: so does this test."""
    folder = paths.fresh("reboot")
    with started(kind, folder) as driver:
        volume = driver.volume("v", 32 * MiB).volume_id
        raw = driver.volume("b", MiB, block=True).volume_id
        path, device = driver.publish(volume), driver.publish(raw, block=True)
        (path / "file").write_text("data")
        driver.kill()
        localdisk.clear(folder)
        assert mounts.below(folder) == []
        assert not (path / "file").exists()
        driver.start()
        assert (path / "file").read_text() == "data"
        assert stat.S_ISBLK(device.stat().st_mode)
        driver.kill()
        localdisk.clear(folder)
        path.rmdir()  # the workload was removed meanwhile, and its directory
        driver.start()
        assert not path.exists()
        driver.withdraw(volume, path)
        driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume))
        driver.withdraw(raw, device)
        driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=raw))
        assert driver.left_over() == []


@pytest.mark.root
@pytest.mark.parametrize("driver", ["image"], indirect=True)
def test_stray_mounts_and_devices_are_let_go_at_the_start(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", 32 * MiB).volume_id
    raw = driver.volume("b", MiB, block=True).volume_id
    driver.publish(volume)
    driver.publish(raw, block=True)
    driver.stop()
    for record in (driver.state_dir / "records").rglob("*.json"):
        record.unlink()  # as if an older state had come back from a backup
    for mount in mounts.below(driver.folder / "pods"):
        mounts.unmount(Path(mount.path))
    driver.start()
    assert driver.left_over() == []


@pytest.mark.root
@pytest.mark.parametrize("driver", ["image"], indirect=True)
def test_images_grow_and_their_size_holds(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", 32 * MiB).volume_id
    path = driver.publish(volume)
    with pytest.raises(OSError, match="No space"), (path / "big").open("wb") as file:
        file.write(b"x" * (40 * MiB))
    (path / "big").unlink()
    grown = driver.controller.ControllerExpandVolume(
        pb.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=pb.CapacityRange(required_bytes=64 * MiB))
    )
    assert (grown.capacity_bytes, grown.node_expansion_required) == (64 * MiB, True)
    driver.withdraw(volume, path)
    path = driver.publish(volume)
    (path / "big").write_bytes(b"x" * (40 * MiB))
    snapshot = driver.snapshot("s", volume)
    larger = driver.volume(
        "r",
        96 * MiB,
        volume_content_source=pb.VolumeContentSource(
            snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot.snapshot_id)
        ),
    ).volume_id
    place = driver.publish(larger)
    (place / "more").write_bytes(b"y" * (40 * MiB))
    assert (place / "big").stat().st_size == 40 * MiB


@pytest.mark.root
@pytest.mark.parametrize("driver", ["image"], indirect=True)
def test_block_volumes_are_devices_that_grow(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("b", MiB, block=True).volume_id
    device = driver.publish(volume, block=True)
    assert stat.S_ISBLK(device.stat().st_mode)
    with device.open("r+b", buffering=0) as file:
        file.write(b"x" * 4096)
        os.fsync(file.fileno())
    driver.controller.ControllerExpandVolume(
        pb.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=pb.CapacityRange(required_bytes=3 * MiB))
    )
    driver.node.NodeExpandVolume(
        pb.NodeExpandVolumeRequest(
            volume_id=volume, volume_path=str(device), capacity_range=pb.CapacityRange(required_bytes=3 * MiB)
        )
    )
    with device.open("rb") as file:
        assert file.seek(0, os.SEEK_END) == 3 * MiB
    assert len(loop.find(driver.state_dir / "volumes" / f"{volume}.img")) == 1
    with contextlib.suppress(FileNotFoundError):
        driver.withdraw(volume, device)
    assert loop.find(driver.state_dir / "volumes" / f"{volume}.img") == []


@pytest.mark.parametrize("driver", KINDS, indirect=True)
def test_usage_is_measured(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", 32 * MiB).volume_id
    path = driver.publish(volume)
    ask = pb.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(path))
    before = driver.node.NodeGetVolumeStats(ask).usage[0]
    with (path / "file").open("wb") as file:
        file.write(os.urandom(4 * MiB))
        file.flush()
        os.fsync(file.fileno())
    after = driver.node.NodeGetVolumeStats(ask).usage[0]
    assert before.unit == after.unit == pb.VolumeUsage.BYTES
    assert 3 * MiB < after.used - before.used < 6 * MiB
    assert after.total <= 32 * MiB
    assert after.available <= after.total - after.used
    with localdisk.refused(Code.NOT_FOUND, "is not in use at"):
        driver.node.NodeGetVolumeStats(pb.NodeGetVolumeStatsRequest(volume_id=volume, volume_path="/nowhere"))
