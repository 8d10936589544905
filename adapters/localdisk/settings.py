"""What one localdisk driver is told at its start: the options, their defaults and their checks.

It must not look at the state directory or the kernel: what the host can do is found out in `driver`.
"""

from __future__ import annotations

import argparse
import enum
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

DEFAULT_NAME = "localdisk.snapbridge.dev"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_LONGEST_SOCKET_PATH = 105  # gRPC binds no longer one
_FILE_SYSTEMS = ("ext4", "xfs")


class Mode(enum.Enum):
    """How mount volumes are kept. AUTO takes the best of the others that works on this host."""

    AUTO = "auto"
    DIRECTORY = "directory"
    BTRFS = "btrfs"
    IMAGE = "image"


class Topology(enum.Enum):
    """What is tied to this node in the driver's answers: nothing, volumes, or volumes and snapshots."""

    NONE = "none"
    VOLUMES = "volumes"
    ALL = "all"


class SettingsError(ValueError):
    """An option is wrong. The text names the option and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of one driver. Paths are absolute, times are in seconds."""

    endpoint: str
    state_dir: Path
    driver_name: str = DEFAULT_NAME
    node_id: str = ""
    mode: Mode = Mode.AUTO
    fs_type: str = "ext4"
    rootless: bool = False
    topology: Topology = Topology.VOLUMES
    durable: bool = True
    freeze_deadline_seconds: float = 60.0
    threads: int = 16
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.driver_name):
            raise SettingsError(
                f"--driver-name {self.driver_name!r}: use up to 63 letters, digits, '-' and '.', like a domain name"
            )
        if self.fs_type not in _FILE_SYSTEMS:
            raise SettingsError(f"--fs-type {self.fs_type!r}: one of {', '.join(_FILE_SYSTEMS)}")
        if not self.node_id or len(self.node_id.encode()) > 63:
            raise SettingsError(f"--node-id {self.node_id!r}: 1 to 63 bytes, because it is a topology value too")
        if not self.state_dir.is_absolute():
            raise SettingsError(f"--state-dir {self.state_dir}: give an absolute path")
        if self.freeze_deadline_seconds <= 0 or self.threads < 1:
            raise SettingsError("--freeze-deadline and --threads must be greater than zero")
        socket_path(self.endpoint)

    @property
    def privileged(self) -> bool:
        """Whether mounts and loop devices are to be used."""
        return os.geteuid() == 0 and not self.rootless


def socket_path(endpoint: str) -> Path:
    """The path in `unix:///a/b.sock` or `unix:/a/b.sock`. Raises SettingsError for anything else."""
    text = endpoint.removeprefix("unix://") if endpoint.startswith("unix://") else endpoint.removeprefix("unix:")
    if not endpoint.startswith("unix:") or not text.startswith("/"):
        raise SettingsError(f"--endpoint {endpoint!r}: give a unix socket, such as unix:///run/localdisk/csi.sock")
    if len(text.encode()) > _LONGEST_SOCKET_PATH:
        raise SettingsError(f"--endpoint {endpoint!r}: a socket path may have {_LONGEST_SOCKET_PATH} bytes at most")
    return Path(text)


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m adapters.localdisk`."""
    parser = argparse.ArgumentParser(
        prog="localdisk", description="A CSI driver that keeps volumes and snapshots in a local directory."
    )
    add = parser.add_argument
    add("--endpoint", default=os.environ.get("CSI_ENDPOINT", ""), help="unix:///path.sock (or set CSI_ENDPOINT)")
    add("--state-dir", required=True, type=Path, help="directory for volumes, snapshots and records; ours alone")
    add("--driver-name", default=DEFAULT_NAME)
    add("--node-id", default="", help="default: the host's name")
    add("--mode", default=Mode.AUTO.value, choices=[m.value for m in Mode], help="how mount volumes are kept")
    add("--fs-type", default="ext4", choices=_FILE_SYSTEMS, help="file system of images, when none is asked for")
    add("--rootless", action="store_true", help="use no mounts and no loop devices, even as root")
    # Not "all" by default: csi-sanity 5.6.0 fails every driver that names a snapshot's topology, because it compares
    # two messages with their caches.
    add(
        "--topology",
        default=Topology.VOLUMES.value,
        choices=[t.value for t in Topology],
        help="what the answers tie to this node",
    )
    add("--unsafe-no-fsync", dest="durable", action="store_false", help="for tests: faster, lost on power failure")
    add(
        "--freeze-deadline",
        dest="freeze_deadline_seconds",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="a cut of a mounted image that takes longer is given up, and its writers go on",
    )
    add("--threads", type=int, default=16, help="operations that may run at once")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def parse(argv: list[str]) -> Settings:
    """Settings from a command line. Raises SettingsError; argparse itself may end the process."""
    options = vars(parser().parse_args(argv))
    options["mode"] = Mode(options["mode"])
    options["topology"] = Topology(options["topology"])
    options["state_dir"] = options["state_dir"].absolute()
    options["node_id"] = options["node_id"] or socket.gethostname()
    return Settings(**options)
