"""The snapshot stacks that one scenario set runs against: upstream's halves, ours, and each beside the other's.

A stack serves one driver through one socket. The controller half serves the whole cluster, so at most one stack may
run at a time per control plane.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import enum
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.support.bed import access, build, paths, ports, process

_READY_SECONDS = 60.0
_QUICK = ("--worker-threads=32", "--retry-interval-start=200ms", "--retry-interval-max=2s", "--leader-election=false")
_LIFTED = ("--kube-api-qps=1000", "--kube-api-burst=2000")
DEFAULTS = (
    "--kube-api-qps=5",
    "--kube-api-burst=10",
    "--worker-threads=10",
    "--retry-interval-start=1s",
    "--retry-interval-max=5m",
    "--resync-period=15m",
)
"""Upstream's own defaults, for who wants them back."""
FLAGS = (*_QUICK, *_LIFTED)
"""Flags of every half: upstream's own limits lifted, and retries that come quickly."""
RESYNC = "--resync-period=3s"
"""For upstream's halves: a change that they miss (a deletion beside a failing create) would wait for 15 minutes."""
METADATA = "--extra-create-metadata"


class Maker(enum.Enum):
    """Whose half it is."""

    UPSTREAM = "upstream"
    OURS = "ours"


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """Which program does what. Without halves, one process of ours does both."""

    name: str
    controller: Maker | None
    sidecar: Maker | None

    @property
    def merged(self) -> bool:
        return self.controller is None

    @property
    def ours_decides(self) -> bool:
        """Whether our code checks a VolumeSnapshot and writes its content object."""
        return self.controller is not Maker.UPSTREAM

    @property
    def ours_calls(self) -> bool:
        """Whether our code calls the driver."""
        return self.sidecar is not Maker.UPSTREAM


UPSTREAM = Kind("upstream", Maker.UPSTREAM, Maker.UPSTREAM)
MERGED = Kind("merged", None, None)
"""`snapbridge kubernetes all`."""
OUR_CONTROLLER = Kind("our-controller", Maker.OURS, Maker.UPSTREAM)
OUR_SIDECAR = Kind("our-sidecar", Maker.UPSTREAM, Maker.OURS)
SPLIT = Kind("split", Maker.OURS, Maker.OURS)
WHOLE = (UPSTREAM, SPLIT, MERGED)
"""All upstream's, or all ours: what one upgrades from and to."""


class Stack:
    """One stack's processes. It may be started again after `stop` or `kill`."""

    def __init__(self, kind: Kind, admin: access.Access, socket: Path, more: Sequence[str] = ()) -> None:
        """`more` are flags of every part that win over the usual ones."""
        self.kind = kind
        self._more = more
        self._admin = admin
        self._socket = socket
        self.controller: process.Process | None = None
        self.sidecar: process.Process | None = None
        if kind.controller is None or kind.sidecar is None:
            self.whole = self._part("all", Maker.OURS, (METADATA,))
            return
        self.controller = self._part("controller", kind.controller, ())
        self.sidecar = self._part("sidecar", kind.sidecar, (METADATA,))

    @property
    def driver_half(self) -> process.Process:
        """The process that calls the driver."""
        return self.sidecar or self.whole

    @property
    def processes(self) -> list[process.Process]:
        return [self.controller, self.sidecar] if self.controller and self.sidecar else [self.whole]

    def start(self) -> None:
        """Start what does not run, at the same time, and wait until it is ready."""
        waiting = [one for one in self.processes if not one.running]
        with concurrent.futures.ThreadPoolExecutor(len(waiting) or 1) as pool:
            list(pool.map(process.Process.start, waiting))

    def stop(self) -> None:
        """As an upgrade does."""
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(process.Process.stop, self.processes))

    def kill(self) -> None:
        """As a crash does."""
        for one in self.processes:
            one.kill()

    def kill_driver_half(self) -> None:
        """At once, from within a call of it: the process is collected by the next `stop` or `kill`."""
        os.kill(self.driver_half.pid, signal.SIGKILL)

    def restart_driver_half(self, *flags: str) -> None:
        """Stop it and start it with these flags besides; without any, as it was."""
        self.driver_half.stop()
        process.forget(self.driver_half)
        if self.kind.sidecar is None:
            self.whole = self._part("all", Maker.OURS, flags or (METADATA,))
        else:
            self.sidecar = self._part("sidecar", self.kind.sidecar, flags or (METADATA,))
        self.driver_half.start()

    def close(self) -> None:
        """Stop everything for good."""
        self.stop()
        for one in self.processes:
            process.forget(one)

    def _part(self, half: str, maker: Maker, flags: Sequence[str]) -> process.Process:
        port = ports.free()
        more = [f"--csi-address={self._socket}"] if half != "controller" else []
        argv: list[str | Path] = [
            *_program(half, maker),
            f"--kubeconfig={self._admin.kubeconfig}",
            f"--http-endpoint=127.0.0.1:{port}",
            *FLAGS,
            *more,
            *flags,
        ]
        argv += [RESYNC] if maker is Maker.UPSTREAM else []
        argv += self._more
        where = "readyz" if maker is Maker.OURS else "metrics"
        return process.Process(
            process.Launch(
                name=f"{maker.value} {half}",
                argv=argv,
                log=paths.fresh(f"{maker.value}-{half}") / "log",
                ready=lambda: _answers(f"http://127.0.0.1:{port}/{where}"),
                ready_seconds=_READY_SECONDS,
                folder=paths.REPOSITORY,
            )
        )


def _program(half: str, maker: Maker) -> list[str | Path]:
    if maker is Maker.OURS:
        return [sys.executable, "-m", "bridge", "kubernetes", half]
    return [build.binary("snapshot-controller" if half == "controller" else "csi-snapshotter")]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False
