"""Requests that break the specification are named by field, and never sent."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from bridge.csi import limits
from bridge.pb.csi.v1 import csi_pb2 as pb


def complaint(message: Message) -> str:
    return limits.complaint(message, most_handle_bytes=256)


def snapshot(**fields: object) -> pb.CreateSnapshotRequest:
    return pb.CreateSnapshotRequest(**{"name": "s", "source_volume_id": "v", **fields})  # type: ignore[arg-type]


CASES = [
    ("a good request", snapshot(), ""),
    ("no name", snapshot(name=""), "name is required"),
    ("no source", snapshot(source_volume_id=""), "source_volume_id is required"),
    ("a name of 128 bytes", snapshot(name="n" * 128), ""),
    ("a name of 1,000 characters", snapshot(name="n" * 1000), "name has 1000 bytes"),
    ("a name too long in bytes, not in characters", snapshot(name="é" * 65), "name has 130 bytes"),
    ("a control character", snapshot(name="a\x07"), "name contains a control character"),
    ("a tab is allowed", snapshot(name="a\tb"), ""),
    ("a long handle of a cloud", snapshot(source_volume_id="v" * 200), ""),
    ("a handle beyond all sense", snapshot(source_volume_id="v" * 300), "source_volume_id has 300 bytes"),
    ("parameters of 4 KiB", snapshot(parameters={"k": "v" * 4095}), ""),
    ("parameters above 4 KiB", snapshot(parameters={"k": "v" * 4096}), "parameters has 4097 bytes"),
    ("a large secret", snapshot(secrets={"cert": "c" * 5000}), ""),
    ("a secret's key with a slash", snapshot(secrets={"a/b": "hidden"}), "secrets has a key with characters"),
    ("a negative page", pb.ListSnapshotsRequest(max_entries=-1), "max_entries is -1"),
    ("no handle to delete", pb.DeleteSnapshotRequest(), "snapshot_id is required"),
    ("an empty list of sources", pb.CreateVolumeGroupSnapshotRequest(name="g"), "source_volume_ids is required"),
    (
        "an empty source in a list",
        pb.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=["a", ""]),
        "source_volume_ids[1] is empty",
    ),
    (
        "a negative size, nested",
        pb.CreateVolumeRequest(
            name="v", volume_capabilities=[pb.VolumeCapability()], capacity_range=pb.CapacityRange(required_bytes=-5)
        ),
        "capacity_range.required_bytes is -5",
    ),
    (
        "an empty source handle, nested",
        pb.CreateVolumeRequest(
            name="v",
            volume_capabilities=[pb.VolumeCapability()],
            volume_content_source=pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource()),
        ),
        "volume_content_source.snapshot.snapshot_id is required",
    ),
    ("a long path is fine", pb.NodeUnpublishVolumeRequest(volume_id="v", target_path="/" + "p" * 500), ""),
    ("a node id may have 256 bytes", pb.ControllerUnpublishVolumeRequest(volume_id="v", node_id="n" * 256), ""),
]


@pytest.mark.parametrize(("message", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_complaints(message: Message, expected: str) -> None:
    found = complaint(message)
    assert found.startswith(expected)
    assert bool(found) is bool(expected)


def test_no_complaint_shows_a_secret() -> None:
    assert "hidden" not in complaint(snapshot(secrets={"a/b": "hidden"}))
