"""What is made of a plugin's answers: snapshots and volumes, good and wrong ones."""

from __future__ import annotations

import dataclasses

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.csi import snapshots, volumes
from bridge.model.failure import Failure, FailureKind
from bridge.model.snapshot import CutSnapshot, HandleSource, VolumeSource
from bridge.model.volume import MadeVolume, NewVolume, VolumeMode
from bridge.pb.csi.v1 import csi_pb2 as pb

GOOD = {"snapshot_id": "s1", "source_volume_id": "v1", "ready_to_use": True, "size_bytes": 10}


def cut(**fields: object) -> CutSnapshot | Failure:
    answer = pb.Snapshot(**{**GOOD, **fields})  # type: ignore[arg-type]
    return snapshots.cut_of("CreateSnapshot", answer, most_handle_bytes=256, source="v1")


def test_a_good_answer() -> None:
    found = cut(creation_time=Timestamp(seconds=1_700_000_000, nanos=5), group_snapshot_id="g")
    assert found == CutSnapshot("s1", "v1", True, 10, 1_700_000_000_000_000_005, "g")


@pytest.mark.parametrize(
    "stamp",
    [
        None,
        Timestamp(),
        Timestamp(seconds=-62_135_596_800),
        Timestamp(seconds=1, nanos=-1),
        Timestamp(seconds=1, nanos=1_000_000_000),
        Timestamp(seconds=10**10),
    ],
    ids=["absent", "1970", "the year 1", "negative nanos", "too many nanos", "more nanoseconds than 64 bits hold"],
)
def test_an_instant_that_is_none(stamp: Timestamp | None) -> None:
    found = cut(creation_time=stamp)
    assert isinstance(found, CutSnapshot)
    assert found.cut_at_ns is None


def test_a_size_of_zero_is_not_known() -> None:
    found = cut(size_bytes=0)
    assert isinstance(found, CutSnapshot)
    assert found.size_bytes is None


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"snapshot_id": ""}, "BAD_RESPONSE"),
        ({"snapshot_id": "s" * 300}, "BAD_RESPONSE"),
        ({"size_bytes": -1}, "BAD_RESPONSE"),
        ({"source_volume_id": "v2"}, "WRONG_SOURCE"),
        ({"source_volume_id": ""}, "WRONG_SOURCE"),
    ],
)
def test_a_wrong_answer_is_unsure(fields: dict[str, object], code: str) -> None:
    found = cut(**fields)
    assert isinstance(found, Failure)
    assert (found.kind, found.code) == (FailureKind.UNSURE, code)


NEW = NewVolume("n", "d", content=HandleSource("s1"), required_bytes=100, limit_bytes=200)
SOURCE = pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id="s1"))


def made(new: NewVolume, **fields: object) -> MadeVolume | Failure:
    answer = {"volume_id": "v", "capacity_bytes": 150, "content_source": SOURCE, **fields}
    return volumes.made_of(pb.Volume(**answer), new, most_handle_bytes=256)  # type: ignore[arg-type]


def test_a_restored_volume() -> None:
    assert made(NEW) == MadeVolume("v", 150, {}, HandleSource("s1"))
    assert isinstance(made(NEW, capacity_bytes=0), MadeVolume)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"content_source": None}, "WRONG_SOURCE"),
        ({"content_source": pb.VolumeContentSource()}, "WRONG_SOURCE"),
        (
            {"content_source": pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id="s1"))},
            "WRONG_SOURCE",
        ),
        ({"volume_id": ""}, "BAD_RESPONSE"),
        ({"capacity_bytes": -1}, "WRONG_SIZE"),
        ({"capacity_bytes": 99}, "WRONG_SIZE"),
        ({"capacity_bytes": 201}, "WRONG_SIZE"),
    ],
)
def test_a_wrong_volume_is_unsure(fields: dict[str, object], code: str) -> None:
    found = made(NEW, **fields)
    assert isinstance(found, Failure)
    assert (found.kind, found.code) == (FailureKind.UNSURE, code)


def test_an_empty_volume_may_not_come_with_content() -> None:
    found = made(dataclasses.replace(NEW, content=None))
    assert isinstance(found, Failure)
    assert found.code == "WRONG_SOURCE"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"required_bytes": -1}, "required_bytes"),
        ({"limit_bytes": -1}, "limit_bytes"),
        ({"limit_bytes": 50}, "limit_bytes"),
        ({"access_modes": ()}, "access_modes"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(change: dict[str, object], field: str) -> None:
    found = volumes.create_request(dataclasses.replace(NEW, **change), {})  # type: ignore[arg-type]
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.REFUSED
    assert found.message.startswith(field)


def test_requests_in_csi_words() -> None:
    block = dataclasses.replace(NEW, mode=VolumeMode.BLOCK, content=VolumeSource("v0"))
    request = volumes.create_request(block, {"k": "x"})
    assert isinstance(request, pb.CreateVolumeRequest)
    assert request.volume_capabilities[0].HasField("block")
    assert request.volume_content_source.volume.volume_id == "v0"
    assert (request.capacity_range.required_bytes, request.capacity_range.limit_bytes) == (100, 200)
    plain = volumes.create_request(NewVolume("n", "d", fs_type="xfs"), {})
    assert isinstance(plain, pb.CreateVolumeRequest)
    assert not plain.HasField("capacity_range")
    assert not plain.HasField("volume_content_source")
    assert plain.volume_capabilities[0].mount.fs_type == "xfs"
