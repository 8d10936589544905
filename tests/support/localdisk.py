"""The localdisk driver as a process of its own, for any test that wants a real CSI driver.

    with localdisk.start_localdisk(mode="directory") as driver:
        driver.endpoint          # unix:///…/csi.sock
        driver.controller.CreateVolume(...)

It cleans up what it started: the process, its mounts and loop devices, and its folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from adapters.localdisk import freeze, loop, mounts
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc
from tests.support.bed import paths, process

Mode = pb.VolumeCapability.AccessMode
NAME = "localdisk.snapbridge.dev"
_PROBE_SECONDS = 20.0
_UNMOUNT_TRIES = 200


@dataclasses.dataclass(slots=True)
class LocalDisk:
    """A running driver. `kill` and `start` may be called as often as a test likes; leaving the block cleans up."""

    folder: Path
    socket: Path
    state_dir: Path
    process: process.Process
    _channel: grpc.Channel | None = None

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def channel(self) -> grpc.Channel:
        """A blocking channel; it reconnects by itself after a restart of the driver."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                f"unix:{self.socket}",
                options=[
                    ("grpc.default_authority", "localhost"),
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.min_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 200),
                ],
            )
        return self._channel

    @property
    def identity(self) -> csi_pb2_grpc.IdentityStub:
        return csi_pb2_grpc.IdentityStub(self.channel)

    @property
    def controller(self) -> csi_pb2_grpc.ControllerStub:
        return csi_pb2_grpc.ControllerStub(self.channel)

    @property
    def groups(self) -> csi_pb2_grpc.GroupControllerStub:
        return csi_pb2_grpc.GroupControllerStub(self.channel)

    @property
    def metadata(self) -> csi_pb2_grpc.SnapshotMetadataStub:
        return csi_pb2_grpc.SnapshotMetadataStub(self.channel)

    @property
    def node(self) -> csi_pb2_grpc.NodeStub:
        return csi_pb2_grpc.NodeStub(self.channel)

    def start(self) -> None:
        """Starts it again on the same state, after `kill` or `stop`."""
        self.process.start()

    def stop(self) -> None:
        """Asks it to end, as an upgrade would."""
        self.process.stop()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self.process.kill()

    def volume(self, name: str, size_bytes: int = 64 << 20, *, block: bool = False, **fields: Any) -> pb.Volume:
        """Creates a volume. `fields` are those of CreateVolumeRequest."""
        request = pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capabilities=[capability(block=block)],
            **fields,
        )
        return self.controller.CreateVolume(request, timeout=60, wait_for_ready=True).volume

    def restored(self, name: str, snapshot: pb.Snapshot, *, block: bool = False) -> pb.Volume:
        """Creates a volume from a snapshot."""
        source = pb.VolumeContentSource(
            snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot.snapshot_id)
        )
        return self.volume(name, snapshot.size_bytes, block=block, volume_content_source=source)

    def snapshot(self, name: str, volume_id: str, **parameters: str) -> pb.Snapshot:
        """Cuts a snapshot."""
        request = pb.CreateSnapshotRequest(name=name, source_volume_id=volume_id, parameters=parameters)
        return self.controller.CreateSnapshot(request, timeout=60, wait_for_ready=True).snapshot

    def publish(self, volume_id: str, name: str = "", *, block: bool = False, **fields: Any) -> Path:
        """Stages and publishes a volume below the test's folder. Returns the path with its contents."""
        target = self.folder / "pods" / (name or volume_id)
        target.parent.mkdir(exist_ok=True)
        staging = self.staging(volume_id)
        self.node.NodeStageVolume(
            pb.NodeStageVolumeRequest(
                volume_id=volume_id, staging_target_path=str(staging), volume_capability=capability(block=block)
            ),
            timeout=60,
            wait_for_ready=True,
        )
        self.node.NodePublishVolume(
            pb.NodePublishVolumeRequest(
                volume_id=volume_id,
                staging_target_path=str(staging),
                target_path=str(target),
                volume_capability=capability(block=block),
                **fields,
            ),
            timeout=60,
            wait_for_ready=True,
        )
        return target

    def staging(self, volume_id: str) -> Path:
        """The staging path that `publish` uses."""
        staging = self.folder / "staging" / volume_id
        staging.mkdir(parents=True, exist_ok=True)
        return staging

    def withdraw(self, volume_id: str, target: Path, *, unstage: bool = True) -> None:
        """Undoes `publish`."""
        self.node.NodeUnpublishVolume(
            pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target)),
            timeout=60,
            wait_for_ready=True,
        )
        if unstage:
            self.node.NodeUnstageVolume(
                pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(self.staging(volume_id))),
                timeout=60,
                wait_for_ready=True,
            )

    def left_over(self) -> list[str]:
        """What the backend still holds: bytes, records, mounts and devices. Empty after everything was deleted."""
        found = [
            str(path.relative_to(self.state_dir))
            for folder in ("volumes", "snapshots", "mounts", "records")
            for path in sorted((self.state_dir / folder).rglob("*"))
            if not (folder == "records" and path.is_dir())
        ]
        return found + [m.path for m in mounts.below(self.state_dir)] + [str(d) for d in self._devices()]

    def _devices(self) -> list[Path]:
        return [entry.device for entry in loop.attached() if self.folder in entry.backing.parents]

    def __enter__(self) -> LocalDisk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            self._channel.close()
        self.process.stop()
        process.forget(self.process)
        clear(self.folder)


def start_localdisk(
    folder: Path | None = None,
    *,
    mode: str = "auto",
    driver_name: str = NAME,
    node_id: str = "node-1",
    rootless: bool = False,
    durable: bool = False,
    options: Sequence[str] = (),
    program: Sequence[str] = ("-m", "adapters.localdisk"),
) -> LocalDisk:
    """Starts a driver and waits until it answers.

    Its socket is `<folder>/csi.sock`, its state `<folder>/state`; without a folder it makes one of its own, which the
    bed removes. `options` are further ones of the command line. It does not fsync unless `durable`.
    """
    place = (folder or paths.fresh("localdisk")).resolve()
    socket, state = place / "csi.sock", place / "state"
    argv = [sys.executable, *program, "--endpoint", f"unix://{socket}", "--state-dir", str(state), "--mode", mode]
    argv += ["--driver-name", driver_name, "--node-id", node_id, *options]
    argv += ["--rootless"] if rootless else []
    argv += [] if durable else ["--unsafe-no-fsync"]
    launch = process.Launch(
        name=f"localdisk {driver_name}",
        argv=argv,
        log=place / "driver.log",
        ready=lambda: answers(socket),
        ready_seconds=60.0,
        folder=paths.REPOSITORY,
    )
    driver = LocalDisk(place, socket, state, process.Process(launch))
    driver.start()
    return driver


def answers(socket: Path) -> bool:
    """Whether a CSI plugin answers on a socket."""
    if not socket.is_socket():
        return False
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            csi_pb2_grpc.IdentityStub(channel).Probe(pb.ProbeRequest(), timeout=_PROBE_SECONDS)
        except grpc.RpcError:
            return False
    return True


@contextlib.contextmanager
def refused(code: grpc.StatusCode, words: str = "") -> Iterator[None]:
    """The block must end with this gRPC code, and its text contain these words."""
    try:
        yield
    except grpc.RpcError as error:
        found = (error.code(), error.details() or "")
        assert found[0] is code, found
        assert words in found[1], found
    else:
        raise AssertionError(f"was not refused with {code.name}")


def capability(
    *, block: bool = False, mode: pb.VolumeCapability.AccessMode.Mode.ValueType = Mode.SINGLE_NODE_WRITER
) -> pb.VolumeCapability:
    """A volume capability: mount or block, SINGLE_NODE_WRITER unless told otherwise."""
    if block:
        return pb.VolumeCapability(
            block=pb.VolumeCapability.BlockVolume(), access_mode=pb.VolumeCapability.AccessMode(mode=mode)
        )
    return pb.VolumeCapability(
        mount=pb.VolumeCapability.MountVolume(), access_mode=pb.VolumeCapability.AccessMode(mode=mode)
    )


def clear(folder: Path) -> None:
    """Unmounts and detaches whatever a driver that ended left below a folder of the tests, and then its files."""
    for _ in range(_UNMOUNT_TRIES):
        left = mounts.below(folder)
        for mount in left:
            try:
                if Path(mount.path).is_dir():
                    freeze.thaw(Path(mount.path))  # a frozen file system would outlive its mount, out of reach
                mounts.unmount(Path(mount.path))
            except OSError:
                time.sleep(0.1)
        if not left:
            break
    for entry in loop.attached():
        if folder in entry.backing.parents:
            loop.detach(entry.device)
