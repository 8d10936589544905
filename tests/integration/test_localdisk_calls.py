"""What localdisk's Controller answers: idempotence, sizes, sources, lists, groups, two-phase readiness."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import disks, localdisk
from tests.support.bed import paths

Code = grpc.StatusCode
MiB = 1 << 20


@pytest.fixture(scope="module")
def shared() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk(mode="directory", rootless=True) as found:
        yield found


@pytest.fixture
def driver(shared: localdisk.LocalDisk) -> Iterator[localdisk.LocalDisk]:
    """One driver for the module; each test leaves it empty."""
    yield shared
    controller = shared.controller
    members: dict[str, list[str]] = {}
    for entry in controller.ListSnapshots(pb.ListSnapshotsRequest()).entries:
        if entry.snapshot.group_snapshot_id:
            members.setdefault(entry.snapshot.group_snapshot_id, []).append(entry.snapshot.snapshot_id)
        else:
            controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=entry.snapshot.snapshot_id))
    for group, ids in members.items():
        shared.groups.DeleteVolumeGroupSnapshot(
            pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group, snapshot_ids=ids)
        )
    for found in controller.ListVolumes(pb.ListVolumesRequest()).entries:
        controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=found.volume.volume_id))
    assert shared.left_over() == []


def source(*, snapshot: str = "", volume: str = "") -> pb.VolumeContentSource:
    if snapshot:
        return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot))
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume))


def test_the_same_request_finds_the_same_volume(driver: localdisk.LocalDisk) -> None:
    first = driver.volume("v", 10 * MiB)
    assert driver.volume("v", 10 * MiB) == first
    assert driver.volume("v", 5 * MiB) == first, "it is large enough for this too"
    with localdisk.refused(Code.ALREADY_EXISTS, "capacity_range"):
        driver.volume("v", 20 * MiB)
    with localdisk.refused(Code.ALREADY_EXISTS, "access type"):
        driver.volume("v", 10 * MiB, block=True)
    with localdisk.refused(Code.ALREADY_EXISTS, "parameters"):
        driver.volume("v", 10 * MiB, parameters={"mode": "0700"})
    assert len(driver.controller.ListVolumes(pb.ListVolumesRequest()).entries) == 1


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"name": ""}, Code.INVALID_ARGUMENT, "name is required"),
        ({"name": "x" * 1000}, Code.INVALID_ARGUMENT, "1000 bytes; 128 are allowed"),
        ({"name": "a\x07b"}, Code.INVALID_ARGUMENT, "control characters"),
        ({"capacity_range": pb.CapacityRange(required_bytes=-1)}, Code.INVALID_ARGUMENT, "negative"),
        ({"capacity_range": pb.CapacityRange(required_bytes=9, limit_bytes=8)}, Code.INVALID_ARGUMENT, "below"),
        ({"capacity_range": pb.CapacityRange(required_bytes=1 << 60)}, Code.OUT_OF_RANGE, "the whole disk"),
        ({"parameters": {"modus": "0700"}}, Code.INVALID_ARGUMENT, "parameters[modus] is not known; known are: mode"),
        ({"parameters": {"mode": "rwx"}}, Code.INVALID_ARGUMENT, "octal"),
        ({"parameters": {"a/b": "x" * 5000}}, Code.INVALID_ARGUMENT, "4096 bytes"),
        ({"volume_content_source": pb.VolumeContentSource()}, Code.INVALID_ARGUMENT, "snapshot or volume"),
        ({"volume_content_source": source(snapshot="snap-0")}, Code.NOT_FOUND, "'snap-0' does not exist"),
        ({"volume_content_source": source(volume="vol-0")}, Code.NOT_FOUND, "'vol-0' does not exist"),
        ({"volume_capabilities": []}, Code.INVALID_ARGUMENT, "volume_capabilities is required"),
        (
            {"volume_capabilities": [localdisk.capability(mode=localdisk.Mode.MULTI_NODE_MULTI_WRITER)]},
            Code.INVALID_ARGUMENT,
            "lives on one node",
        ),
        (
            {"volume_capabilities": [localdisk.capability(), localdisk.capability(block=True)]},
            Code.INVALID_ARGUMENT,
            "either a block or a mount",
        ),
        (
            {
                "accessibility_requirements": pb.TopologyRequirement(
                    requisite=[pb.Topology(segments={f"{localdisk.NAME}/node": "elsewhere"})]
                )
            },
            Code.RESOURCE_EXHAUSTED,
            "the only place here",
        ),
    ],
)
def test_bad_requests_say_what_is_wrong(
    driver: localdisk.LocalDisk, fields: dict[str, object], code: grpc.StatusCode, words: str
) -> None:
    whole: dict[str, object] = {"name": "v", "volume_capabilities": [localdisk.capability()]}
    with localdisk.refused(code, words):
        driver.controller.CreateVolume(pb.CreateVolumeRequest(**(whole | fields)))  # type: ignore[arg-type]
    assert driver.left_over() == []


def test_parameters_of_an_orchestrator_are_let_pass(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB, parameters={"csi.storage.k8s.io/pvc/name": "data", "mode": "0700"})
    path = driver.publish(volume.volume_id)
    assert path.stat().st_mode & 0o777 == 0o700
    driver.withdraw(volume.volume_id, path)


def test_restore_and_clone_sizes(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", 10 * MiB).volume_id
    snapshot = driver.snapshot("s", volume)
    assert snapshot.size_bytes == 10 * MiB
    for origin in (source(snapshot=snapshot.snapshot_id), source(volume=volume)):
        with localdisk.refused(Code.OUT_OF_RANGE, "less than the source"):
            driver.volume("small", 9 * MiB, volume_content_source=origin)
    with localdisk.refused(Code.OUT_OF_RANGE, "limit_bytes is"):
        driver.controller.CreateVolume(
            pb.CreateVolumeRequest(
                name="small",
                capacity_range=pb.CapacityRange(limit_bytes=9 * MiB),
                volume_capabilities=[localdisk.capability()],
                volume_content_source=source(volume=volume),
            )
        )
    restored = driver.volume("r", 12 * MiB, volume_content_source=source(snapshot=snapshot.snapshot_id))
    assert restored.capacity_bytes == 12 * MiB
    assert restored.content_source.snapshot.snapshot_id == snapshot.snapshot_id
    clone = driver.volume("c", 0, volume_content_source=source(volume=volume))
    assert clone.capacity_bytes == 10 * MiB
    assert clone.content_source.volume.volume_id == volume
    with localdisk.refused(Code.INVALID_ARGUMENT, "cannot be made from"):
        driver.volume("b", 10 * MiB, block=True, volume_content_source=source(volume=volume))


def test_data_is_independent_of_its_source(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB).volume_id
    path = driver.publish(volume)
    (path / "file").write_text("first")
    snapshot = driver.snapshot("s", volume)
    (path / "file").write_text("second")
    with localdisk.refused(Code.FAILED_PRECONDITION, str(path)):
        driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume))
    driver.withdraw(volume, path)
    driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume))
    driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume))
    restored = driver.restored("r", snapshot).volume_id
    driver.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=snapshot.snapshot_id))
    place = driver.publish(restored)
    assert (place / "file").read_text() == "first"
    driver.withdraw(restored, place)


def test_snapshots_are_idempotent_by_name_and_source(driver: localdisk.LocalDisk) -> None:
    volume, other = (driver.volume(name, MiB).volume_id for name in ("v", "w"))
    first = driver.snapshot("s", volume)
    assert driver.snapshot("s", volume) == first
    with localdisk.refused(Code.ALREADY_EXISTS, volume):
        driver.snapshot("s", other)
    with localdisk.refused(Code.NOT_FOUND, "vol-0"):
        driver.snapshot("t", "vol-0")
    with localdisk.refused(Code.INVALID_ARGUMENT, "uploadSeconds"):
        driver.snapshot("t", volume, uploadSeconds="soon")
    with localdisk.refused(Code.INVALID_ARGUMENT, "known are: uploadSeconds"):
        driver.snapshot("t", volume, upload="1")
    assert len(driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries) == 1


def test_the_time_of_the_cut_is_told(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB).volume_id
    before = time.time()
    snapshot = driver.snapshot("s", volume)
    told = snapshot.creation_time.seconds + snapshot.creation_time.nanos / 1e9
    assert before - 0.01 <= told <= time.time() + 0.01


def test_lists_come_in_pages_that_stay_good_while_entries_go(driver: localdisk.LocalDisk) -> None:
    volume, other = (driver.volume(name, MiB).volume_id for name in ("v", "w"))
    made = [driver.snapshot(f"s{n}", volume).snapshot_id for n in range(5)]
    apart = driver.snapshot("apart", other).snapshot_id
    listed = driver.controller.ListSnapshots

    first = listed(pb.ListSnapshotsRequest(max_entries=2, source_volume_id=volume))
    assert [e.snapshot.snapshot_id for e in first.entries] == made[:2]
    driver.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=made[1]))
    second = listed(pb.ListSnapshotsRequest(max_entries=2, source_volume_id=volume, starting_token=first.next_token))
    assert [e.snapshot.snapshot_id for e in second.entries] == made[2:4]
    rest = listed(pb.ListSnapshotsRequest(starting_token=second.next_token))
    assert [e.snapshot.snapshot_id for e in rest.entries] == [made[4], apart]
    assert rest.next_token == ""

    assert [e.snapshot.snapshot_id for e in listed(pb.ListSnapshotsRequest(snapshot_id=apart)).entries] == [apart]
    assert not listed(pb.ListSnapshotsRequest(snapshot_id=apart, source_volume_id=volume)).entries
    assert not listed(pb.ListSnapshotsRequest(snapshot_id="snap-0")).entries
    with localdisk.refused(Code.ABORTED, "start again"):
        listed(pb.ListSnapshotsRequest(starting_token="nonsense"))
    with localdisk.refused(Code.INVALID_ARGUMENT, "max_entries"):
        listed(pb.ListSnapshotsRequest(max_entries=-1))
    with localdisk.refused(Code.NOT_FOUND, "snap-0"):
        driver.controller.GetSnapshot(pb.GetSnapshotRequest(snapshot_id="snap-0"))


def test_a_snapshot_uploads_and_a_restart_does_not_end_that() -> None:
    with localdisk.start_localdisk(mode="directory", rootless=True) as driver:
        volume = driver.volume("v", MiB).volume_id
        long = driver.snapshot("long", volume, uploadSeconds="3600")
        assert not long.ready_to_use
        with localdisk.refused(Code.FAILED_PRECONDITION, "not ready"):
            driver.restored("r", long)
        snapshot = driver.snapshot("s", volume, uploadSeconds="1.5")
        driver.kill()
        driver.start()
        assert driver.snapshot("long", volume, uploadSeconds="3600") == long
        with localdisk.refused(Code.FAILED_PRECONDITION, "not ready"):
            driver.restored("r", long)
        asked = pb.GetSnapshotRequest(snapshot_id=snapshot.snapshot_id)
        deadline = time.monotonic() + 30
        while not driver.controller.GetSnapshot(asked).snapshot.ready_to_use:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert time.time_ns() >= snapshot.creation_time.ToNanoseconds() + 1_500_000_000
        assert driver.restored("r", snapshot).content_source.snapshot.snapshot_id == snapshot.snapshot_id


def test_groups_stand_and_fall_together(driver: localdisk.LocalDisk) -> None:
    volumes = [driver.volume(name, MiB).volume_id for name in ("v", "w")]
    create = driver.groups.CreateVolumeGroupSnapshot
    request = pb.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=volumes)
    group = create(request).group_snapshot
    assert create(request).group_snapshot == group
    assert {s.source_volume_id for s in group.snapshots} == set(volumes)
    assert len({s.creation_time.ToNanoseconds() for s in group.snapshots}) == 1
    members = [s.snapshot_id for s in group.snapshots]
    with localdisk.refused(Code.ALREADY_EXISTS):
        create(pb.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=volumes[:1]))
    with localdisk.refused(Code.NOT_FOUND, "vol-0"):
        create(pb.CreateVolumeGroupSnapshotRequest(name="h", source_volume_ids=[volumes[0], "vol-0"]))
    with localdisk.refused(Code.INVALID_ARGUMENT, "delete the group"):
        driver.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=members[0]))
    with localdisk.refused(Code.INVALID_ARGUMENT, "not the 2 members"):
        driver.groups.GetVolumeGroupSnapshot(
            pb.GetVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=members[:1])
        )
    with localdisk.refused(Code.INVALID_ARGUMENT, "not the 2 members"):
        driver.groups.DeleteVolumeGroupSnapshot(
            pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=["a"])
        )
    assert len(driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries) == 2
    delete = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=members)
    driver.groups.DeleteVolumeGroupSnapshot(delete)
    driver.groups.DeleteVolumeGroupSnapshot(delete)
    assert not driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries
    with localdisk.refused(Code.NOT_FOUND):
        driver.groups.GetVolumeGroupSnapshot(
            pb.GetVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=members)
        )


def test_a_second_call_for_the_same_object_is_aborted_and_a_third_finds_it(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB).volume_id
    path = driver.publish(volume)
    for number in range(1500):
        (path / f"file-{number}").write_text("x" * 100)
    for number in range(5):  # on a busy machine the first call may be over before the second is sent
        codes = cut_at_once(driver, f"s{number}", volume)
        assert Code.OK in codes
        assert set(codes) <= {Code.OK, Code.ABORTED}
        assert driver.snapshot(f"s{number}", volume).ready_to_use
        assert len(driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries) == number + 1
        if Code.ABORTED in codes:
            break
    assert Code.ABORTED in codes
    driver.withdraw(volume, path)


def cut_at_once(driver: localdisk.LocalDisk, name: str, volume: str) -> list[grpc.StatusCode]:
    """Eight equal calls for one snapshot; their codes."""
    codes: list[grpc.StatusCode] = []
    barrier = threading.Barrier(8)

    def cut() -> None:
        barrier.wait()
        try:
            driver.snapshot(name, volume)
            codes.append(Code.OK)
        except grpc.RpcError as error:
            codes.append(error.code())

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(cut)
    return codes


def test_an_operation_whose_caller_gave_up_comes_to_its_end(driver: localdisk.LocalDisk) -> None:
    volume = driver.volume("v", MiB).volume_id
    path = driver.publish(volume)
    for number in range(1500):
        (path / f"file-{number}").write_text("x" * 100)
    for number in range(10):  # until our giving up, and our next call, fall into the cut: a busy machine may miss it
        request = pb.CreateSnapshotRequest(name=f"s{number}", source_volume_id=volume)
        first = code_of(driver, request, timeout=0.02)
        second = code_of(driver, request, timeout=60)
        assert first in (Code.OK, Code.DEADLINE_EXCEEDED)
        assert second in (Code.OK, Code.ABORTED)
        deadline = time.monotonic() + 30
        while len(driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries) <= number:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if (first, second) == (Code.DEADLINE_EXCEEDED, Code.ABORTED):
            break
    assert (first, second) == (Code.DEADLINE_EXCEEDED, Code.ABORTED)
    driver.withdraw(volume, path)


def code_of(driver: localdisk.LocalDisk, request: pb.CreateSnapshotRequest, *, timeout: float) -> grpc.StatusCode:
    """How one call ends."""
    try:
        driver.controller.CreateSnapshot(request, timeout=timeout)
    except grpc.RpcError as error:
        code, words = error.code(), error.details() or ""
    else:
        return Code.OK
    assert code is not Code.ABORTED or "under way" in words
    return code


def test_a_second_driver_on_the_same_state_is_refused() -> None:
    with localdisk.start_localdisk(mode="directory", rootless=True) as first:
        for words, socket in (("is in use by another driver", "other.sock"), ("is in use by", "csi.sock")):
            second = subprocess.run(
                [sys.executable, "-m", "adapters.localdisk", "--endpoint", f"unix://{first.folder / socket}",
                 "--state-dir", str(first.state_dir), "--rootless"],
                capture_output=True, text=True, timeout=60, cwd=paths.REPOSITORY, check=False,
            )  # fmt: skip
            assert second.returncode == 1
            assert words in second.stderr
        assert localdisk.answers(first.socket)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", "tcp://127.0.0.1:1"], "give a unix socket"),
        (["--endpoint", "unix:///" + "x" * 120], "105 bytes at most"),
        (["--driver-name", "under_score"], "--driver-name 'under_score'"),
        (["--node-id", "n" * 64], "--node-id"),
        (["--freeze-deadline", "0"], "--freeze-deadline"),
        (["--mode", "btrfs"], "is not on btrfs"),
        (["--mode", "image", "--rootless"], "needs root"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], words: str) -> None:
    folder = paths.fresh("options")
    result = subprocess.run(
        [sys.executable, "-m", "adapters.localdisk", "--endpoint", f"unix://{folder / 'a.sock'}",
         "--state-dir", str(folder / "state"), *arguments],
        capture_output=True, text=True, timeout=60, cwd=paths.REPOSITORY, check=False,
    )  # fmt: skip
    assert (result.returncode, words in result.stderr) == (2, True), result.stderr


def test_a_directory_of_someone_else_is_not_taken() -> None:
    folder = paths.fresh("strangers")
    (folder / "thesis.txt").write_text("precious")
    result = subprocess.run(
        [sys.executable, "-m", "adapters.localdisk", "--endpoint", f"unix://{folder / 'a.sock'}",
         "--state-dir", str(folder), "--mode", "directory"],
        capture_output=True, text=True, timeout=60, cwd=paths.REPOSITORY, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "is not empty (thesis.txt" in result.stderr
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.root
def test_a_full_disk_is_told_and_nothing_stays_behind() -> None:
    with (
        disks.mounted("ext4", 96 * MiB) as place,
        localdisk.start_localdisk(place, mode="directory", rootless=True) as driver,
    ):
        volume = driver.volume("v", 60 * MiB).volume_id
        path = driver.publish(volume)
        (path / "big").write_bytes(os.urandom(50 * MiB))
        with localdisk.refused(Code.RESOURCE_EXHAUSTED, "No space"):
            driver.snapshot("s", volume)
        assert not driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries
        assert list((driver.state_dir / "snapshots").iterdir()) == []
        (path / "big").write_bytes(b"small now")
        assert driver.snapshot("s", volume).ready_to_use


def test_probe_sees_that_the_disk_is_gone() -> None:
    with localdisk.start_localdisk(mode="directory", rootless=True) as driver:
        assert driver.identity.Probe(pb.ProbeRequest()).ready.value
        (driver.state_dir / "localdisk.json").rename(driver.state_dir / "away")
        with localdisk.refused(Code.FAILED_PRECONDITION, "still mounted"):
            driver.identity.Probe(pb.ProbeRequest())


def test_the_manifest_says_what_a_cut_is_worth(driver: localdisk.LocalDisk) -> None:
    info = driver.identity.GetPluginInfo(pb.GetPluginInfoRequest())
    assert info.name == localdisk.NAME
    assert info.manifest["mode"] == "directory"
    assert info.manifest["mount-volume-cut"] == "not atomic under writes"
    assert "not atomic" in driver.process.log.read_text()
