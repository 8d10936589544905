"""containerd of our own: its state, root, sockets and configuration in one folder, never the system's.

Containers are run by shims that outlive containerd on purpose; `sweep` says how they end with us.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.bed import images, packages, paths, process

CTR_SECONDS = 120.0


class Containerd(process.Process):
    """A running containerd with its CRI service on `socket`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "containerd.sock"
        self._ctr = packages.program("ctr")
        packages.program("containerd-shim-runc-v2")
        packages.program("runc")
        config = folder / "config.toml"
        config.write_text(self._config(), encoding="utf-8")
        super().__init__(
            process.Launch(
                name="containerd",
                argv=[packages.program("containerd"), "--config", config],
                log=folder / "log",
                ready=self._answers,
                ready_seconds=60,
            )
        )

    def ctr(self, *words: str | Path) -> str:
        """Run ctr in the CRI's namespace and give its stdout. Raises ServerError when it fails."""
        command = [self._ctr, "--address", self.socket, "--namespace", "k8s.io", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CTR_SECONDS, check=False)
        if done.returncode != 0:
            raise process.ServerError(f"ctr {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def import_image(self, archive: Path) -> None:
        """Import a docker-format image archive; a pod names it with imagePullPolicy Never."""
        self.ctr("images", "import", archive)

    def tasks(self) -> list[str]:
        """The ids of the containers that exist, sandboxes included."""
        return self.ctr("tasks", "list", "--quiet").split()

    def _answers(self) -> bool:
        if not self.socket.is_socket():
            return False
        try:
            self.ctr("version")
        except process.ServerError:
            return False
        return True

    def _config(self) -> str:
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        unused = ("aufs", "btrfs", "devmapper", "zfs")
        disabled = ", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in unused)
        return f"""\
version = 2
root = "{self.folder / "root"}"
state = "{self.folder / "state"}"
disabled_plugins = [{disabled}]

[grpc]
  address = "{self.socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{self.folder / "opt"}"

[{cri}]
  restrict_oom_score_adj = true
  sandbox_image = "{images.BUSYBOX}"
  [{cri}.containerd]
    snapshotter = "{_snapshotter(self.folder)}"
  [{cri}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [{cri}.cni]
    bin_dir = "{self.folder / "cni-bin"}"
    conf_dir = "{self.folder / "cni-conf"}"
"""


def start() -> Containerd:
    """Start a containerd, and import the local busybox image."""
    server = Containerd(paths.fresh("ctd"))
    server.start()
    try:
        server.import_image(images.busybox(server.folder))
    except BaseException:
        server.kill()
        raise
    return server


def _snapshotter(folder: Path) -> str:
    """Overlayfs, except where the folder itself is on one (a CI container): there, plain copies."""
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split(" ")[4])
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split(" ")[0]
    return "native" if kind == "overlay" else "overlayfs"
