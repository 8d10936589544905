"""The SnapshotMetadata service: streams what `metadata` finds, in batches, without blocking the loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from adapters.localdisk import failures, metadata, services, wire
from adapters.localdisk.records import Snapshot
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc

_BATCH = 512


class SnapshotMetadata(csi_pb2_grpc.SnapshotMetadataServicer):
    """SnapshotMetadata over one driver, for snapshots of block volumes."""

    def __init__(self, shared: services.Shared) -> None:
        self._shared = shared
        self._driver = shared.driver

    async def GetMetadataAllocated(
        self, request: pb.GetMetadataAllocatedRequest, context: Any
    ) -> AsyncIterator[pb.GetMetadataAllocatedResponse]:
        snapshot = self._snapshot(request.snapshot_id, "snapshot_id")
        start = _offset(request.starting_offset, snapshot)
        count = _count(request.max_results)
        with self._shared.work.claims.held([], [snapshot.id]):
            ranges = metadata.allocated(self._path(snapshot), start)
            async for batch in _batches(ranges, count):
                yield pb.GetMetadataAllocatedResponse(
                    block_metadata_type=pb.VARIABLE_LENGTH,
                    volume_capacity_bytes=snapshot.size_bytes,
                    block_metadata=batch,
                )

    async def GetMetadataDelta(
        self, request: pb.GetMetadataDeltaRequest, context: Any
    ) -> AsyncIterator[pb.GetMetadataDeltaResponse]:
        base = self._snapshot(request.base_snapshot_id, "base_snapshot_id")
        target = self._snapshot(request.target_snapshot_id, "target_snapshot_id")
        if base.source_volume_id != target.source_volume_id:
            failures.invalid(f"snapshots {base.id} and {target.id} are not of one volume")
        start = _offset(request.starting_offset, target)
        count = _count(request.max_results)
        with self._shared.work.claims.held([], [base.id, target.id]):
            ranges = metadata.delta(self._path(base), self._path(target), start)
            async for batch in _batches(ranges, count):
                yield pb.GetMetadataDeltaResponse(
                    block_metadata_type=pb.VARIABLE_LENGTH,
                    volume_capacity_bytes=target.size_bytes,
                    block_metadata=batch,
                )

    def _snapshot(self, key: str, field: str) -> Snapshot:
        found = self._driver.store.snapshot(wire.text(key, field))
        if found is None:
            failures.not_found(f"{field}: snapshot {key!r} does not exist")
        if not found.form.is_block:
            failures.invalid(f"{field}: snapshot {key} is of a mount volume; block metadata needs a block volume")
        return found

    def _path(self, snapshot: Snapshot) -> Path:
        return self._driver.layout.data(snapshot)


def _offset(offset: int, snapshot: Snapshot) -> int:
    if not 0 <= offset <= snapshot.size_bytes:
        failures.out_of_range(f"starting_offset {offset} is not within the {snapshot.size_bytes} bytes of the volume")
    return offset


def _count(max_results: int) -> int:
    if max_results < 0:
        failures.invalid(f"max_results {max_results}: give zero (no limit) or more")
    return min(max_results or _BATCH, _BATCH)


async def _batches(ranges: Iterator[tuple[int, int]], count: int) -> AsyncIterator[list[pb.BlockMetadata]]:
    def take() -> list[pb.BlockMetadata]:
        return [pb.BlockMetadata(byte_offset=b, size_bytes=e - b) for b, e in itertools.islice(ranges, count)]

    # The empty first batch of a snapshot without data still tells its size.
    batch = await asyncio.to_thread(take)
    yield batch
    while len(batch) == count:
        batch = await asyncio.to_thread(take)
        if batch:
            yield batch
