"""The localdisk driver for a demonstration: started, given a volume, asked what it holds. Plain CSI calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc

from bridge.pb.csi.v1 import csi_pb2, csi_pb2_grpc

DRIVER = "localdisk.snapbridge.dev"
DEADLINE_SECONDS = 30.0
MOUNT = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


class Driver:
    """One driver process in a folder of its own. A context manager: leaving it ends the process."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self.socket = folder / "csi.sock"
        self._log = log
        self._mounted: set[str] = set()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Driver:
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "adapters.localdisk", f"--endpoint=unix://{self.socket}"]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [*words, f"--state-dir={self.folder / 'state'}", "--node-id=here"], stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        channel = grpc.insecure_channel(f"unix:{self.socket}", [("grpc.default_authority", "localhost")])
        self._channel = channel
        try:
            grpc.channel_ready_future(channel).result(timeout=DEADLINE_SECONDS)
        except BaseException:
            self._end()
            raise
        self._controller = csi_pb2_grpc.ControllerStub(channel)
        self._node = csi_pb2_grpc.NodeStub(channel)
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            for handle in sorted(self._mounted):
                self.unmount(handle)  # a demonstration that failed leaves no mount behind
        finally:
            self._end()

    def _end(self) -> None:
        self._channel.close()
        if self._child is not None:
            self._child.terminate()
            self._child.wait(timeout=DEADLINE_SECONDS)

    def make_volume(self, name: str, size_bytes: int) -> str:
        """A new, empty volume; its handle."""
        request = csi_pb2.CreateVolumeRequest(
            name=name, capacity_range=csi_pb2.CapacityRange(required_bytes=size_bytes), volume_capabilities=[MOUNT]
        )
        return str(self._controller.CreateVolume(request, timeout=DEADLINE_SECONDS).volume.volume_id)

    def delete_volume(self, handle: str) -> None:
        """Remove the volume and its data."""
        self._controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=handle), timeout=DEADLINE_SECONDS)

    def mount(self, handle: str) -> Path:
        """Make the volume's files reachable, as a node would for a task."""
        staging, target = self.folder / "staging" / handle, self.folder / "mounts" / handle
        staging.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._mounted.add(handle)
        self._node.NodeStageVolume(
            csi_pb2.NodeStageVolumeRequest(
                volume_id=handle, staging_target_path=str(staging), volume_capability=MOUNT
            ),
            timeout=DEADLINE_SECONDS,
        )
        self._node.NodePublishVolume(
            csi_pb2.NodePublishVolumeRequest(
                volume_id=handle,
                staging_target_path=str(staging),
                target_path=str(target),
                volume_capability=MOUNT,
            ),
            timeout=DEADLINE_SECONDS,
        )
        return target

    def unmount(self, handle: str) -> None:
        """Take the files away again; the data stays in the volume."""
        staging, target = self.folder / "staging" / handle, self.folder / "mounts" / handle
        self._node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(volume_id=handle, target_path=str(target)), timeout=DEADLINE_SECONDS
        )
        self._node.NodeUnstageVolume(
            csi_pb2.NodeUnstageVolumeRequest(volume_id=handle, staging_target_path=str(staging)),
            timeout=DEADLINE_SECONDS,
        )
        self._mounted.discard(handle)

    def snapshots(self) -> list[str]:
        """The handles of all snapshots that the driver holds."""
        answer = self._controller.ListSnapshots(csi_pb2.ListSnapshotsRequest(), timeout=DEADLINE_SECONDS)
        return [str(entry.snapshot.snapshot_id) for entry in answer.entries]

    def volumes(self) -> list[str]:
        """The handles of all volumes."""
        answer = self._controller.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=DEADLINE_SECONDS)
        return [str(entry.volume.volume_id) for entry in answer.entries]
