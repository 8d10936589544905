"""`snapbridge kubernetes ROLE` as a process of its own: what a cluster's manifest starts."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.bed import paths, ports, process


class Role(process.Process):
    """The process, and its pages."""

    def __init__(self, launch: process.Launch, port: int) -> None:
        super().__init__(launch)
        self.port = port

    def page(self, path: str) -> tuple[int, str]:
        """GET a path of its health and metrics pages."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def role(name: str, *flags: str, kubeconfig: Path | None = None, seconds: float = 60.0) -> Role:
    """A role that is not started yet; as a context manager it is started, waited for and stopped."""
    folder = paths.fresh(f"role-{name}")
    port = ports.free()
    where = [f"--kubeconfig={kubeconfig}"] if kubeconfig is not None else []

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    argv = [sys.executable, "-m", "bridge", "kubernetes", name, *where, f"--http-endpoint=127.0.0.1:{port}", *flags]
    launch = process.Launch(name=f"role-{name}", argv=argv, log=folder / "log", ready=ready, ready_seconds=seconds)
    return Role(launch, port)
