"""Which blocks of a snapshot hold data, or differ between two: CSI's SnapshotMetadata, streamed and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import AsyncGenerator, Mapping

from bridge.csi import failures, methods
from bridge.csi.client import Client
from bridge.model.outcome import Done, Failed, Outcome
from bridge.pb.csi.v1 import csi_pb2 as pb

_Reply = pb.GetMetadataAllocatedResponse | pb.GetMetadataDeltaResponse


class BlockKind(enum.Enum):
    """How a plugin cuts the ranges; the same throughout a stream."""

    FIXED_LENGTH = 1
    VARIABLE_LENGTH = 2


@dataclasses.dataclass(frozen=True, slots=True)
class BlockRange:
    """Bytes from `offset` on, `size` of them."""

    offset: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class BlockPart:
    """One message of the stream; its ranges ascend and do not overlap, also from part to part."""

    kind: BlockKind
    capacity_bytes: int
    ranges: tuple[BlockRange, ...]


class BlockCalls:
    """The SnapshotMetadata calls of one instance.

    A stream that ends in a Failed is continued by a new call, from the end of the last range that came.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def allocated(
        self, *, handle: str, starting_offset: int = 0, max_results: int = 0, secrets: Mapping[str, str]
    ) -> AsyncGenerator[Outcome[BlockPart], None]:
        """The ranges of a snapshot that hold data."""
        request = pb.GetMetadataAllocatedRequest(
            snapshot_id=handle, starting_offset=starting_offset, max_results=max_results, secrets=dict(secrets)
        )
        replies = self._client.stream(methods.GET_METADATA_ALLOCATED, request)
        async with contextlib.aclosing(_checked("GetMetadataAllocated", replies)) as parts:
            async for part in parts:
                yield part

    async def delta(
        self, *, from_handle: str, to_handle: str, starting_offset: int = 0, secrets: Mapping[str, str]
    ) -> AsyncGenerator[Outcome[BlockPart], None]:
        """The ranges that differ between two snapshots of one volume, the older first."""
        request = pb.GetMetadataDeltaRequest(
            base_snapshot_id=from_handle,
            target_snapshot_id=to_handle,
            starting_offset=starting_offset,
            secrets=dict(secrets),
        )
        replies = self._client.stream(methods.GET_METADATA_DELTA, request)
        async with contextlib.aclosing(_checked("GetMetadataDelta", replies)) as parts:
            async for part in parts:
                yield part


async def _checked(
    verb: str, replies: AsyncGenerator[Outcome[_Reply], None]
) -> AsyncGenerator[Outcome[BlockPart], None]:
    first: BlockPart | None = None
    end = 0
    async with contextlib.aclosing(replies):
        async for outcome in replies:
            if isinstance(outcome, Failed):
                yield outcome
                return
            part = _part_of(outcome.value, first, end)
            if isinstance(part, str):
                yield Failed(failures.bad_response(verb, part))
                return
            first = first or part
            if part.ranges:
                end = part.ranges[-1].offset + part.ranges[-1].size
            yield Done(part)


def _part_of(reply: _Reply, first: BlockPart | None, end: int) -> BlockPart | str:
    try:
        kind = BlockKind(int(reply.block_metadata_type))
    except ValueError:
        return f"block_metadata_type is {reply.block_metadata_type}"
    if first is not None and (kind is not first.kind or reply.volume_capacity_bytes != first.capacity_bytes):
        return "block_metadata_type or volume_capacity_bytes changed within the stream"
    ranges: list[BlockRange] = []
    for block in reply.block_metadata:
        if block.size_bytes <= 0 or block.byte_offset < end:
            return f"range {block.byte_offset}+{block.size_bytes} is empty, or not after the one before it"
        end = block.byte_offset + block.size_bytes
        ranges.append(BlockRange(block.byte_offset, block.size_bytes))
    return BlockPart(kind, reply.volume_capacity_bytes, tuple(ranges))
