"""Volume requests and answers in CSI's words. Pure translation and checks; makes no call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from bridge.csi import failures, limits
from bridge.model.failure import Failure
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.volume import AccessMode, MadeVolume, NewVolume, VolumeMode
from bridge.pb.csi.v1 import csi_pb2 as pb

_MODES: Mapping[AccessMode, pb.VolumeCapability.AccessMode.Mode.ValueType] = {
    AccessMode.SINGLE_NODE_WRITER: pb.VolumeCapability.AccessMode.SINGLE_NODE_WRITER,
    AccessMode.SINGLE_NODE_READER_ONLY: pb.VolumeCapability.AccessMode.SINGLE_NODE_READER_ONLY,
    AccessMode.MULTI_NODE_READER_ONLY: pb.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY,
    AccessMode.MULTI_NODE_SINGLE_WRITER: pb.VolumeCapability.AccessMode.MULTI_NODE_SINGLE_WRITER,
    AccessMode.MULTI_NODE_MULTI_WRITER: pb.VolumeCapability.AccessMode.MULTI_NODE_MULTI_WRITER,
    AccessMode.SINGLE_NODE_SINGLE_WRITER: pb.VolumeCapability.AccessMode.SINGLE_NODE_SINGLE_WRITER,
    AccessMode.SINGLE_NODE_MULTI_WRITER: pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER,
}


def capability(
    mode: VolumeMode, access: AccessMode, fs_type: str = "", mount_flags: Sequence[str] = ()
) -> pb.VolumeCapability:
    """How one volume is to be used, in CSI's words."""
    access_mode = pb.VolumeCapability.AccessMode(mode=_MODES[access])
    if mode is VolumeMode.BLOCK:
        return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=access_mode)
    mount = pb.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=mount_flags)
    return pb.VolumeCapability(mount=mount, access_mode=access_mode)


def create_request(new: NewVolume, secrets: Mapping[str, str]) -> pb.CreateVolumeRequest | Failure:
    """The request, the same for the first call and for every repeat; a Failure when it contradicts itself."""
    complaint = _complaint(new)
    if complaint:
        return failures.invalid(complaint)
    request = pb.CreateVolumeRequest(
        name=new.name,
        volume_capabilities=[
            capability(new.mode, access, new.fs_type, new.mount_flags) for access in new.access_modes
        ],
        parameters=dict(new.parameters),
        mutable_parameters=dict(new.mutable_parameters),
        secrets=dict(secrets),
    )
    if new.required_bytes or new.limit_bytes:
        request.capacity_range.required_bytes = new.required_bytes
        request.capacity_range.limit_bytes = new.limit_bytes
    for places, field in (
        (new.requisite, request.accessibility_requirements.requisite),
        (new.preferred, request.accessibility_requirements.preferred),
    ):
        for segments in places:
            field.add(segments=dict(segments))
    match new.content:
        case None:
            pass
        case HandleSource(handle):
            request.volume_content_source.snapshot.snapshot_id = handle
        case VolumeSource(handle):
            request.volume_content_source.volume.volume_id = handle
        case _:
            assert_never(new.content)
    return request


def made_of(volume: pb.Volume, new: NewVolume, *, most_handle_bytes: int) -> MadeVolume | Failure:
    """The volume that a plugin made, or what is wrong with its answer."""
    verb = "CreateVolume"
    complaint = limits.handle_complaint(volume.volume_id, field="volume_id", most_handle_bytes=most_handle_bytes)
    if complaint:
        return failures.bad_response(verb, complaint)
    size = volume.capacity_bytes
    if size < 0 or (size and size < new.required_bytes) or (new.limit_bytes and size > new.limit_bytes):
        text = f"capacity_bytes is {size}, asked were {new.required_bytes} to {new.limit_bytes or 'any'}"
        return failures.bad_response(verb, text, code=failures.WRONG_SIZE, leftover=volume.volume_id)
    content = _content_of(volume)
    if content != new.content:
        text = f"its content source is {content}, asked was {new.content}: the volume may be empty"
        return failures.bad_response(verb, text, code=failures.WRONG_SOURCE, leftover=volume.volume_id)
    accessible = tuple(dict(place.segments) for place in volume.accessible_topology if place.segments)
    return MadeVolume(volume.volume_id, size, dict(volume.volume_context), content, accessible)


def _complaint(new: NewVolume) -> str:
    if new.required_bytes < 0:
        return f"required_bytes is {new.required_bytes}, it may not be negative"
    if new.limit_bytes < 0:
        return f"limit_bytes is {new.limit_bytes}, it may not be negative"
    if 0 < new.limit_bytes < new.required_bytes:
        return f"limit_bytes {new.limit_bytes} is less than required_bytes {new.required_bytes}"
    if not new.access_modes:
        return "access_modes is empty, at least one is required"
    return ""


def _content_of(volume: pb.Volume) -> VolumeSource | HandleSource | None:
    if not volume.HasField("content_source"):
        return None
    match volume.content_source.WhichOneof("type"):
        case "snapshot":
            return HandleSource(volume.content_source.snapshot.snapshot_id)
        case "volume":
            return VolumeSource(volume.content_source.volume.volume_id)
        case _:
            return None
