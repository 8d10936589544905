"""The driver's durable objects, as frozen data, and their form as JSON.

A record is the truth about its object: data without a record does not exist. It must not touch files.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final, TypeVar

ID_PATTERN: Final = re.compile(r"(vol|snap|group|use)-[0-9a-f]{32}")


class Form(enum.Enum):
    """How the bytes are kept: a directory, a btrfs subvolume, an image with a file system, or a raw image."""

    DIRECTORY = "directory"
    SUBVOLUME = "subvolume"
    IMAGE = "image"
    RAW = "raw"

    @property
    def is_file(self) -> bool:
        return self is Form.IMAGE or self is Form.RAW

    @property
    def is_block(self) -> bool:
        return self is Form.RAW


def volume_id(name: str) -> str:
    """The same name always gives the same id, so that a repeated create finds what an earlier one made."""
    return _identifier("vol", name)


def snapshot_id(name: str) -> str:
    return _identifier("snap", name)


def member_id(group_name: str, volume: str) -> str:
    """The id of a group's member; a NUL cannot be part of a snapshot's own name."""
    return _identifier("snap", f"{group_name}\0{volume}")


def group_id(name: str) -> str:
    return _identifier("group", name)


def use_id(path: str) -> str:
    return _identifier("use", path)


def _identifier(prefix: str, text: str) -> str:
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume.

    `fs_bytes` is the size that an image's file system was last brought to, 0 if that is not known; `root_pending`
    says that its root directory has not got its permissions yet, which needs a mount.
    """

    id: str
    name: str
    form: Form
    capacity_bytes: int
    created_ns: int
    fs_type: str = ""
    fs_bytes: int = 0
    root_mode: int = 0o777
    root_pending: bool = False
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    source_snapshot_id: str = ""
    source_volume_id: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A cut. Times are nanoseconds since 1970; it is ready from `ready_ns` on."""

    id: str
    name: str
    source_volume_id: str
    form: Form
    size_bytes: int
    created_ns: int
    ready_ns: int
    fs_type: str = ""
    root_mode: int = 0o777
    root_pending: bool = False
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    group_id: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group snapshot. Its members live inside it, so that one write makes all of them visible, or none."""

    id: str
    name: str
    created_ns: int
    members: tuple[Snapshot, ...]
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A path at which a volume is staged or published on this node. Written before the path is made."""

    id: str
    volume_id: str
    path: str
    staging: bool
    readonly: bool
    exclusive: bool
    mount_flags: tuple[str, ...] = ()


Record = Volume | Snapshot | Group | Use
R = TypeVar("R", Volume, Snapshot, Group, Use)


def to_json(record: Record) -> dict[str, Any]:
    """Plain data for `json.dumps`."""
    return dataclasses.asdict(record, dict_factory=_plain)


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {k: v.value if isinstance(v, enum.Enum) else v for k, v in pairs}


def from_json(kind: type[R], data: object) -> R:
    """The record that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    if not isinstance(data, dict):
        raise TypeError(f"{type(data).__name__} instead of an object")
    known = {field.name for field in dataclasses.fields(kind)}
    values = {k: v for k, v in data.items() if k in known}
    if "form" in values:
        values["form"] = Form(values["form"])
    if "members" in values:
        values["members"] = tuple(from_json(Snapshot, m) for m in values["members"])
    if "mount_flags" in values:
        values["mount_flags"] = tuple(values["mount_flags"])
    return kind(**values)
