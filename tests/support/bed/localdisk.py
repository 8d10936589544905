"""Our own localdisk driver as a server process: a CSI socket with a state folder that outlives kill -9."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.bed import paths, process, sweep


class LocalDisk(process.Process):
    """A running driver. `kill` and `restart` keep socket path, name and state."""

    def __init__(
        self,
        driver_name: str = "localdisk.bed.test",
        *,
        flags: Sequence[str] = (),
        node_id: str = "bed-node",
        socket_path: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        folder = paths.fresh("disk")
        self.driver_name = driver_name
        self.state_dir = folder / "state"
        self.state_dir.mkdir()
        self.socket = socket_path or folder / "csi.sock"
        super().__init__(
            process.Launch(
                name=f"localdisk {driver_name}",
                argv=[
                    sys.executable,
                    "-m",
                    "adapters.localdisk",
                    f"--endpoint=unix://{self.socket}",
                    f"--state-dir={self.state_dir}",
                    f"--driver-name={driver_name}",
                    f"--node-id={node_id}",
                    *flags,
                ],
                log=folder / "log",
                ready=self._accepts,
                ready_seconds=60,
                env={"PYTHONPATH": str(paths.REPOSITORY), **(env or {})},
                folder=paths.REPOSITORY,
            )
        )

    def __enter__(self) -> LocalDisk:
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        sweep.unmount(self.state_dir)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            probe.connect(str(self.socket))
        return True


def start(driver_name: str = "localdisk.bed.test", *, flags: Sequence[str] = ()) -> LocalDisk:
    """Start a driver with flags of its own (`--rootless`, `--mode=image`, …) and wait for its socket."""
    server = LocalDisk(driver_name, flags=flags)
    server.start()
    return server
