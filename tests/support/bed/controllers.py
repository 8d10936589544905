"""kube-controller-manager: binds claims to volumes, keeps quota and namespaces, deletes dependents."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Sequence

from tests.support.bed import apiserver, build, paths, ports, process


class ControllerManager(process.Process):
    """A running controller manager, as admin, without leader election."""

    def __init__(self, server: apiserver.ApiServer, extra: Sequence[str] = ()) -> None:
        folder = paths.fresh("controllers")
        port = ports.free()
        serving = server.authority.serving("kube-controller-manager", ["127.0.0.1"])
        self._health = f"https://127.0.0.1:{port}/healthz"
        self._tls = ssl.create_default_context(cafile=str(server.certificate_authority))
        super().__init__(
            process.Launch(
                name="kube-controller-manager",
                argv=[
                    build.binary("kube-controller-manager"),
                    f"--kubeconfig={server.admin.kubeconfig}",
                    "--authentication-skip-lookup=true",
                    "--bind-address=127.0.0.1",
                    f"--secure-port={port}",
                    f"--tls-cert-file={serving.certificate}",
                    f"--tls-private-key-file={serving.key}",
                    "--controllers=*,-nodelifecycle,-nodeipam",
                    "--leader-elect=false",
                    f"--service-account-private-key-file={server.service_account_key}",
                    f"--root-ca-file={server.certificate_authority}",
                    "--pvclaimbinder-sync-period=5s",
                    *extra,
                ],
                log=folder / "log",
                ready=self._healthy,
                ready_seconds=60,
            )
        )

    def _healthy(self) -> bool:
        with urllib.request.urlopen(self._health, timeout=3, context=self._tls) as answer:
            return bool(answer.status == 200)


def start(server: apiserver.ApiServer, extra: Sequence[str] = ()) -> ControllerManager:
    """Start a controller manager against an API server and wait until it is healthy."""
    manager = ControllerManager(server, extra)
    manager.start()
    return manager
