"""The upstream pair, snapshot-controller and csi-snapshotter: what the benchmarks run beside ours."""

from __future__ import annotations

import contextlib
import dataclasses
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.bed import access, build, paths, ports, process

LIFTED_LIMITS = ("--kube-api-qps=1000", "--kube-api-burst=2000", "--worker-threads=32")
"""Flags that lift the pair's own limits, as its measured figures were taken."""


@dataclasses.dataclass(frozen=True, slots=True)
class Incumbent:
    """The running pair, each with its CPU time and memory."""

    controller: process.Process
    sidecar: process.Process

    def cpu_seconds(self) -> float:
        return self.controller.cpu_seconds() + self.sidecar.cpu_seconds()

    def rss_bytes(self) -> int:
        return self.controller.rss_bytes() + self.sidecar.rss_bytes()


def controller(identity: access.Access, flags: Sequence[str] = ()) -> process.Process:
    """Upstream's cluster half alone, not started yet: for a driver half of ours beside it."""
    return _process(identity, "snapshot-controller", flags)


def sidecar(identity: access.Access, csi_socket: Path, flags: Sequence[str] = ()) -> process.Process:
    """Upstream's driver half alone, not started yet: beside a cluster half of ours."""
    return _process(identity, "csi-snapshotter", [f"--csi-address={csi_socket}", *flags])


@contextlib.contextmanager
def running(identity: access.Access, csi_socket: Path, flags: Sequence[str] = ()) -> Iterator[Incumbent]:
    """Start the pair for one driver; leaving the block stops it.

    All six snapshot CRDs (groups too) must be in the cluster first: without them the controller does
    not start. `flags` go to both: none for its defaults, LIFTED_LIMITS for its best.
    """
    controller = _process(identity, "snapshot-controller", flags)
    driver_half = sidecar(identity, csi_socket, flags)
    with controller, driver_half:
        yield Incumbent(controller, driver_half)


def _process(identity: access.Access, name: str, flags: Sequence[str]) -> process.Process:
    folder = paths.fresh("incumbent")
    port = ports.free()

    def ready() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return bool(answer.status == 200)

    return process.Process(
        process.Launch(
            name=name,
            argv=[
                build.binary(name),
                f"--kubeconfig={identity.kubeconfig}",
                "--leader-election=false",
                f"--http-endpoint=127.0.0.1:{port}",
                *flags,
            ],
            log=folder / "log",
            ready=ready,
            ready_seconds=60,
        )
    )
