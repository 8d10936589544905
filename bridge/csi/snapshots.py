"""Snapshot requests and answers in CSI's words. Pure translation and checks; makes no call."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.csi import failures, limits
from bridge.model.failure import Failure
from bridge.model.snapshot import CutSnapshot
from bridge.pb.csi.v1 import csi_pb2 as pb

_LAST_SECOND = (2**63 - 1) // 1_000_000_000 - 1
"""In 2262: nanoseconds since the epoch are kept in 64 bits."""
_NANOSECONDS = 1_000_000_000


def create_request(
    *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: Mapping[str, str]
) -> pb.CreateSnapshotRequest:
    """The request, the same for the first call and for every repeat."""
    return pb.CreateSnapshotRequest(
        name=name, source_volume_id=volume_handle, parameters=dict(parameters), secrets=dict(secrets)
    )


def cut_of(
    verb: str, snapshot: pb.Snapshot, *, most_handle_bytes: int, source: str = "", handle: str = ""
) -> CutSnapshot | Failure:
    """The facts that a plugin reports, or what is wrong with them.

    `source` and `handle`, where given, are what the snapshot must be of, and be.
    """
    complaint = limits.handle_complaint(
        snapshot.snapshot_id, field="snapshot_id", most_handle_bytes=most_handle_bytes
    )
    if complaint:
        return failures.bad_response(verb, complaint)
    if snapshot.size_bytes < 0:
        return failures.bad_response(verb, f"size_bytes is {snapshot.size_bytes}")
    if handle and snapshot.snapshot_id != handle:
        text = f"it is about the snapshot {snapshot.snapshot_id!r}, asked was {handle!r}"
        return failures.bad_response(verb, text, code="WRONG_SNAPSHOT")
    if source and snapshot.source_volume_id != source:
        text = f"it is a snapshot of the volume {snapshot.source_volume_id!r}, asked was {source!r}"
        return failures.bad_response(verb, text, code=failures.WRONG_SOURCE)
    return CutSnapshot(
        handle=snapshot.snapshot_id,
        source_handle=snapshot.source_volume_id,
        ready=snapshot.ready_to_use,
        size_bytes=snapshot.size_bytes or None,
        cut_at_ns=cut_at_ns(snapshot.creation_time) if snapshot.HasField("creation_time") else None,
        group=snapshot.group_snapshot_id,
    )


def cut_at_ns(stamp: Timestamp) -> int | None:
    """Nanoseconds since the epoch; None for the zero values of several languages (1970, the year 1) and nonsense."""
    if not 0 < stamp.seconds <= _LAST_SECOND or not 0 <= stamp.nanos < _NANOSECONDS:
        return None
    return stamp.seconds * _NANOSECONDS + stamp.nanos
