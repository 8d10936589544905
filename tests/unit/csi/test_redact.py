"""Secrets are found by the protocol's own mark, wherever they stand."""

from __future__ import annotations

from bridge.csi import redact
from bridge.pb.csi.v1 import csi_pb2 as pb


def test_every_field_named_secrets_is_marked() -> None:
    for name, descriptor in pb.DESCRIPTOR.message_types_by_name.items():
        marked = redact.secret_fields(descriptor)
        assert marked == {field.name for field in descriptor.fields if field.name == "secrets"}, name


def test_shown_strips_secrets_and_keeps_the_rest() -> None:
    request = pb.CreateVolumeRequest(
        name="v",
        secrets={"key": "hunter22"},
        parameters={"pool": "ssd"},
        volume_capabilities=[pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume(fs_type="ext4"))],
        capacity_range=pb.CapacityRange(required_bytes=5),
    )
    shown = redact.shown(request)
    assert "hunter22" not in repr(shown)
    assert shown == {
        "name": "v",
        "capacity_range": {"required_bytes": 5},
        "volume_capabilities": [{"mount": {"fs_type": "ext4"}}],
        "parameters": {"pool": "ssd"},
        "secrets": redact.STRIPPED,
    }


def test_secret_values_are_collected() -> None:
    request = pb.DeleteSnapshotRequest(snapshot_id="s", secrets={"a": "one-value", "b": "two-value"})
    assert sorted(redact.secret_values(request)) == ["one-value", "two-value"]


def test_scrub_replaces_the_longest_first_and_cuts_long_texts() -> None:
    assert redact.scrub("abcd abcdef", ["abcd", "abcdef"]) == f"{redact.STRIPPED} {redact.STRIPPED}"
    assert len(redact.scrub("x" * 10_000, [])) < 2100
