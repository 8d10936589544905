"""Between the driver's records and the messages of CSI, with the checks that CSI asks of every request.

It must not read or change state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from adapters.localdisk import capacity, failures, store
from adapters.localdisk.records import Group, Snapshot, Volume
from bridge.pb.csi.v1 import csi_pb2

_LONGEST_BYTES = 128
LONGEST_PATH_BYTES = 4095
_MAP_BYTES = 4096
_CONTROL = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]")
_TOKEN = re.compile(r"at-([0-9]{1,20})-((?:vol|snap)-[0-9a-f]{32})")
Mode = csi_pb2.VolumeCapability.AccessMode
_EXCLUSIVE = frozenset({Mode.SINGLE_NODE_SINGLE_WRITER})
_READERS = frozenset({Mode.SINGLE_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY})
_SUPPORTED = frozenset({Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_MULTI_WRITER}) | _EXCLUSIVE | _READERS
T = TypeVar("T", Volume, Snapshot)


def text(value: str, field: str, *, longest_bytes: int = _LONGEST_BYTES) -> str:
    """A required string field. Raises INVALID_ARGUMENT naming it."""
    if not value:
        failures.invalid(f"{field} is required")
    if len(value.encode()) > longest_bytes:
        failures.invalid(f"{field} has {len(value.encode())} bytes; {longest_bytes} are allowed")
    if _CONTROL.search(value):
        failures.invalid(f"{field} contains control characters")
    return value


def path(value: str, field: str) -> str:
    """A required, absolute path."""
    text(value, field, longest_bytes=LONGEST_PATH_BYTES)
    if not value.startswith("/"):
        failures.invalid(f"{field} {value!r} is not an absolute path")
    return value.rstrip("/") or "/"


def parameters(values: Mapping[str, str]) -> dict[str, str]:
    """A map field within CSI's limit."""
    if sum(len(k.encode()) + len(v.encode()) for k, v in values.items()) > _MAP_BYTES:
        failures.invalid(f"parameters have more than {_MAP_BYTES} bytes")
    return dict(values)


def wanted(message: csi_pb2.CapacityRange) -> capacity.Wanted:
    return capacity.Wanted(message.required_bytes, message.limit_bytes)


def is_block(capability: csi_pb2.VolumeCapability) -> bool:
    """Whether a capability asks for a block device. Raises INVALID_ARGUMENT if it asks for nothing."""
    kind = capability.WhichOneof("access_type")
    if kind is None:
        failures.invalid("volume_capability: access_type (block or mount) is required")
    return kind == "block"


def is_exclusive(capability: csi_pb2.VolumeCapability) -> bool:
    return capability.access_mode.mode in _EXCLUSIVE


def is_read_only(capability: csi_pb2.VolumeCapability) -> bool:
    return capability.access_mode.mode in _READERS


def unsupported(capabilities: Iterable[csi_pb2.VolumeCapability], block: bool | None) -> str:
    """Why these cannot be had, or an empty string. `block` is the kind the volume has, None if it is still open."""
    for capability in capabilities:
        mode = capability.access_mode.mode
        if mode not in _SUPPORTED:
            return f"access_mode {Mode.Mode.Name(mode)} is not supported: a local volume lives on one node"
        if block is not None and is_block(capability) is not block:
            return f"the volume is {'a block' if block else 'a mount'} volume"
    return ""


def timestamp(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def topology(key: str, node_id: str) -> list[csi_pb2.Topology]:
    """Where things are usable; nothing when the key is empty."""
    return [csi_pb2.Topology(segments={key: node_id})] if key else []


def volume(record: Volume, places: Sequence[csi_pb2.Topology]) -> csi_pb2.Volume:
    message = csi_pb2.Volume(volume_id=record.id, capacity_bytes=record.capacity_bytes, accessible_topology=places)
    if record.source_snapshot_id:
        message.content_source.snapshot.snapshot_id = record.source_snapshot_id
    if record.source_volume_id:
        message.content_source.volume.volume_id = record.source_volume_id
    return message


def snapshot(record: Snapshot, now_ns: int, places: Sequence[csi_pb2.Topology]) -> csi_pb2.Snapshot:
    return csi_pb2.Snapshot(
        snapshot_id=record.id,
        source_volume_id=record.source_volume_id,
        size_bytes=record.size_bytes,
        creation_time=timestamp(record.created_ns),
        ready_to_use=now_ns >= record.ready_ns,
        group_snapshot_id=record.group_id,
        accessible_topology=places,
    )


def group(record: Group, now_ns: int, places: Sequence[csi_pb2.Topology]) -> csi_pb2.VolumeGroupSnapshot:
    members = [snapshot(m, now_ns, places) for m in record.members]
    return csi_pb2.VolumeGroupSnapshot(
        group_snapshot_id=record.id,
        snapshots=members,
        creation_time=timestamp(record.created_ns),
        ready_to_use=all(m.ready_to_use for m in members),
    )


def page(found: list[T], max_entries: int, starting_token: str) -> tuple[list[T], str]:
    """One page of an ordered list and the token of the next. A token stays good when entries come and go.

    Raises INVALID_ARGUMENT for a negative count, ABORTED for a token that is not ours.
    """
    if max_entries < 0:
        failures.invalid(f"max_entries {max_entries}: give zero (no limit) or more")
    if starting_token:
        match = _TOKEN.fullmatch(starting_token)
        if match is None:
            failures.aborted("starting_token is not one of ours: start again without it")
        after = (int(match[1]), match[2])
        found = [record for record in found if store.order(record) > after]
    if not max_entries or len(found) <= max_entries:
        return found, ""
    created_ns, key = store.order(found[max_entries - 1])
    return found[:max_entries], f"at-{created_ns}-{key}"
