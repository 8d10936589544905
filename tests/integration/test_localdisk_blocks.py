"""SnapshotMetadata of localdisk: what it tells is enough to rebuild a snapshot, and no more than that."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import localdisk

Code = grpc.StatusCode
MiB = 1 << 20
BLOCK = 4096
SIZE = 8 * MiB


@pytest.fixture(scope="module")
def driver() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk(mode="directory", rootless=True) as found:
        yield found


def written(path: Path, blocks: dict[int, bytes]) -> None:
    with path.open("r+b") as file:
        for number, content in blocks.items():
            file.seek(number * BLOCK)
            file.write(content.ljust(BLOCK, b"\0"))


def ranges(stream: Any) -> list[tuple[int, int]]:
    """All ranges of a stream, after the checks that CSI asks of every stream."""
    found: list[tuple[int, int]] = []
    for message in stream:
        assert message.block_metadata_type == pb.VARIABLE_LENGTH
        assert message.volume_capacity_bytes == SIZE
        found += [(b.byte_offset, b.size_bytes) for b in message.block_metadata]
    for (offset, size), (following, _) in itertools.pairwise(found):
        assert size > 0
        assert offset + size <= following
    return found


def rebuilt(base: bytes, image: bytes, found: list[tuple[int, int]]) -> bytes:
    """`base` with the ranges of `image` written over it: what a backup does."""
    copy = bytearray(base)
    for offset, size in found:
        copy[offset : offset + size] = image[offset : offset + size]
    return bytes(copy)


def snapshot_bytes(driver: localdisk.LocalDisk, snapshot: pb.Snapshot) -> bytes:
    return (driver.state_dir / "snapshots" / f"{snapshot.snapshot_id}.img").read_bytes()


def test_allocated_and_delta_rebuild_the_snapshots(driver: localdisk.LocalDisk) -> None:
    choice = random.Random(7)
    volume = driver.volume("v", SIZE, block=True).volume_id
    device = driver.publish(volume, block=True)
    blocks = SIZE // BLOCK
    written(device, {n: choice.randbytes(BLOCK) for n in choice.sample(range(blocks), 100)})
    first = driver.snapshot("first", volume)
    written(device, {n: choice.randbytes(BLOCK) for n in choice.sample(range(blocks), 60)})
    written(device, {3: b"", 700: b"\0" * BLOCK})
    second = driver.snapshot("second", volume)
    old, new = snapshot_bytes(driver, first), snapshot_bytes(driver, second)
    assert old != new

    allocated = ranges(
        driver.metadata.GetMetadataAllocated(pb.GetMetadataAllocatedRequest(snapshot_id=first.snapshot_id))
    )
    assert rebuilt(bytes(SIZE), old, allocated) == old
    assert sum(size for _, size in allocated) < SIZE // 2

    ask = pb.GetMetadataDeltaRequest(base_snapshot_id=first.snapshot_id, target_snapshot_id=second.snapshot_id)
    delta = ranges(driver.metadata.GetMetadataDelta(ask))
    assert rebuilt(old, new, delta) == new
    changed = sum(old[n : n + BLOCK] != new[n : n + BLOCK] for n in range(0, SIZE, BLOCK))
    assert sum(size for _, size in delta) == changed * BLOCK, "exactly the blocks that differ"

    ask.max_results = 7
    assert ranges(driver.metadata.GetMetadataDelta(ask)) == delta
    middle = delta[len(delta) // 2]
    ask.starting_offset = sum(middle)
    assert ranges(driver.metadata.GetMetadataDelta(ask)) == delta[len(delta) // 2 + 1 :]
    driver.withdraw(volume, device)


def test_a_snapshot_without_data_tells_its_size(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("empty", SIZE, block=True).volume_id
    snapshot = driver.snapshot("nothing", volume)
    ask = pb.GetMetadataAllocatedRequest(snapshot_id=snapshot.snapshot_id)
    assert ranges(driver.metadata.GetMetadataAllocated(ask)) == []
    assert len(list(driver.metadata.GetMetadataAllocated(ask))) == 1


def test_holes_stay_holes(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("sparse", 512 * MiB, block=True).volume_id
    device = driver.publish(volume, block=True)
    written(device, {0: b"head", 512 * MiB // BLOCK - 1: b"tail"})
    snapshot = driver.snapshot("sparse", volume)
    image = driver.state_dir / "snapshots" / f"{snapshot.snapshot_id}.img"
    assert image.stat().st_size == 512 * MiB
    assert image.stat().st_blocks * 512 <= 1 * MiB
    copy = driver.publish(driver.restored("copy", snapshot, block=True).volume_id, block=True)
    with copy.open("rb") as file:
        assert file.read(4) == b"head"
        file.seek(-BLOCK, 2)
        assert file.read(4) == b"tail"


def test_bad_requests_say_what_is_wrong(driver: localdisk.LocalDisk) -> None:
    block, other = (driver.volume(name, SIZE, block=True).volume_id for name in ("x", "y"))
    mount = driver.volume("m", SIZE).volume_id
    first, second, plain = driver.snapshot("x", block), driver.snapshot("y", other), driver.snapshot("m", mount)

    def allocated(snapshot_id: str, starting_offset: int = 0, max_results: int = 0) -> None:
        request = pb.GetMetadataAllocatedRequest(
            snapshot_id=snapshot_id, starting_offset=starting_offset, max_results=max_results
        )
        list(driver.metadata.GetMetadataAllocated(request))

    with localdisk.refused(Code.NOT_FOUND, "snap-0"):
        allocated("snap-0")
    with localdisk.refused(Code.INVALID_ARGUMENT, "snapshot_id is required"):
        allocated("")
    with localdisk.refused(Code.INVALID_ARGUMENT, "needs a block volume"):
        allocated(plain.snapshot_id)
    for offset in (-1, SIZE + 1):
        with localdisk.refused(Code.OUT_OF_RANGE, "starting_offset"):
            allocated(first.snapshot_id, starting_offset=offset)
    with localdisk.refused(Code.INVALID_ARGUMENT, "max_results"):
        allocated(first.snapshot_id, max_results=-1)
    with localdisk.refused(Code.INVALID_ARGUMENT, "not of one volume"):
        list(
            driver.metadata.GetMetadataDelta(
                pb.GetMetadataDeltaRequest(base_snapshot_id=first.snapshot_id, target_snapshot_id=second.snapshot_id)
            )
        )
