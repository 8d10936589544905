"""etcd: the store below the API server. One member, loopback, no fsync: fast, and not for keeping."""

from __future__ import annotations

import urllib.request

from tests.support.bed import build, paths, ports, process


class Etcd(process.Process):
    """A running etcd. `url` is its client address; its data survive `kill` and `restart`."""

    def __init__(self) -> None:
        folder = paths.fresh("etcd")
        self.url = f"http://127.0.0.1:{ports.free()}"
        peer = f"http://127.0.0.1:{ports.free()}"
        super().__init__(
            process.Launch(
                name="etcd",
                argv=[
                    build.binary("etcd"),
                    f"--data-dir={folder / 'data'}",
                    f"--listen-client-urls={self.url}",
                    f"--advertise-client-urls={self.url}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--unsafe-no-fsync",
                    "--log-level=warn",
                ],
                log=folder / "log",
                ready=self._healthy,
                ready_seconds=60,
            )
        )

    def _healthy(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
            return b'"health":"true"' in answer.read()


def start() -> Etcd:
    """Start etcd and wait until it is healthy."""
    server = Etcd()
    server.start()
    return server
