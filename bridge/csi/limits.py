"""What the specification asks of a request, checked before it is sent. Sends nothing, repairs nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from bridge.csi import redact

MOST_STRING_BYTES = 128
MOST_MAP_BYTES = 4 << 10
MOST_SECRET_BYTES = 1 << 20
"""CSI says 4 KiB for secrets too, but certificates and service keys in the field are larger; plugins take them."""
MOST_NODE_ID_BYTES = 256
MOST_PATH_BYTES = 4096

_HANDLES = frozenset(
    {
        "volume_id",
        "snapshot_id",
        "source_volume_id",
        "group_snapshot_id",
        "source_volume_ids",
        "snapshot_ids",
        "base_snapshot_id",
        "target_snapshot_id",
    }
)
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "CreateSnapshotRequest": ("name", "source_volume_id"),
    "DeleteSnapshotRequest": ("snapshot_id",),
    "GetSnapshotRequest": ("snapshot_id",),
    "CreateVolumeRequest": ("name", "volume_capabilities"),
    "DeleteVolumeRequest": ("volume_id",),
    "SnapshotSource": ("snapshot_id",),
    "VolumeSource": ("volume_id",),
    "CreateVolumeGroupSnapshotRequest": ("name", "source_volume_ids"),
    "DeleteVolumeGroupSnapshotRequest": ("group_snapshot_id", "snapshot_ids"),
    "GetVolumeGroupSnapshotRequest": ("group_snapshot_id", "snapshot_ids"),
    "GetMetadataAllocatedRequest": ("snapshot_id",),
    "GetMetadataDeltaRequest": ("base_snapshot_id", "target_snapshot_id"),
    "ControllerPublishVolumeRequest": ("volume_id", "node_id", "volume_capability"),
    "ControllerUnpublishVolumeRequest": ("volume_id",),
    "ControllerExpandVolumeRequest": ("volume_id", "capacity_range"),
    "NodeStageVolumeRequest": ("volume_id", "staging_target_path", "volume_capability"),
    "NodeUnstageVolumeRequest": ("volume_id", "staging_target_path"),
    "NodePublishVolumeRequest": ("volume_id", "target_path", "volume_capability"),
    "NodeUnpublishVolumeRequest": ("volume_id", "target_path"),
    "NodeGetVolumeStatsRequest": ("volume_id", "volume_path"),
    "NodeExpandVolumeRequest": ("volume_id", "volume_path"),
}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SECRET_KEY = re.compile(r"[A-Za-z0-9_.-]+")


def complaint(message: Message, *, most_handle_bytes: int) -> str:
    """What is wrong with a request, naming the field and never showing a secret; empty when it is fine."""
    for name in _REQUIRED.get(message.DESCRIPTOR.name, ()):
        if not _given(message, name):
            return f"{name} is required"
    for field, value in message.ListFields():
        found = _field_complaint(message, field, value, most_handle_bytes)
        if found:
            return found
    return ""


def handle_complaint(handle: str, *, field: str, most_handle_bytes: int) -> str:
    """What is wrong with a handle that a plugin gave us; empty when it is fine."""
    if not handle:
        return f"{field} is empty"
    size = len(handle.encode())
    return f"{field} has {size} bytes, at most {most_handle_bytes} are taken" if size > most_handle_bytes else ""


def map_bytes(entries: Mapping[str, str]) -> int:
    """The size of a map as the specification counts it: all keys and values."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in entries.items())


def _given(message: Message, name: str) -> bool:
    value = getattr(message, name)
    return message.HasField(name) if isinstance(value, Message) else bool(value)


def _field_complaint(message: Message, field: FieldDescriptor, value: object, most_handle_bytes: int) -> str:
    name = field.name
    if isinstance(value, str):
        return _string_complaint(name, value, most_handle_bytes)
    if isinstance(value, int) and value < 0:
        return f"{name} is {value}, it may not be negative"
    if isinstance(value, Message):
        return _nested(name, complaint(value, most_handle_bytes=most_handle_bytes))
    if isinstance(value, Mapping):
        if name in redact.secret_fields(message.DESCRIPTOR):
            return _secrets_complaint(name, value)
        size = map_bytes(value)
        return (
            f"{name} has {size} bytes of keys and values, at most {MOST_MAP_BYTES}" if size > MOST_MAP_BYTES else ""
        )
    if isinstance(value, int | bytes | float):
        return ""
    return _list_complaint(name, list(value), most_handle_bytes)  # type: ignore[call-overload]


def _list_complaint(name: str, values: list[object], most_handle_bytes: int) -> str:
    for index, part in enumerate(values):
        if isinstance(part, str):
            found = _string_complaint(name, part, most_handle_bytes)
            if not part:
                found = f"{name}[{index}] is empty"
        elif isinstance(part, Message):
            found = _nested(f"{name}[{index}]", complaint(part, most_handle_bytes=most_handle_bytes))
        else:
            found = ""
        if found:
            return found
    return ""


def _nested(name: str, found: str) -> str:
    return f"{name}.{found}" if found else ""


def _string_complaint(name: str, value: str, most_handle_bytes: int) -> str:
    if name in _HANDLES:
        most = most_handle_bytes
    elif name.endswith(("_path", "_token")):
        most = MOST_PATH_BYTES
    elif name == "node_id":
        most = MOST_NODE_ID_BYTES
    else:
        most = MOST_STRING_BYTES
    size = len(value.encode())
    if size > most:
        return f"{name} has {size} bytes, at most {most} are allowed"
    if name == "name" and _CONTROL.search(value):
        return f"{name} contains a control character"
    return ""


def _secrets_complaint(name: str, secrets: Mapping[str, str]) -> str:
    for key in secrets:
        if not _SECRET_KEY.fullmatch(key):
            return f"{name} has a key with characters other than letters, digits, '-', '_' and '.'"
    size = map_bytes(secrets)
    return f"{name} has {size} bytes, at most {MOST_SECRET_BYTES} are taken" if size > MOST_SECRET_BYTES else ""
