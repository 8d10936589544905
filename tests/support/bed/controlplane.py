"""A whole control plane in one handle: etcd, API server and controller manager."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.bed import access, apiserver, controllers, etcd, requests


@dataclasses.dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running Kubernetes control plane. Each server is at hand for outages and measurements."""

    etcd: etcd.Etcd
    apiserver: apiserver.ApiServer
    controller_manager: controllers.ControllerManager | None

    @property
    def admin(self) -> access.Access:
        return self.apiserver.admin

    @property
    def url(self) -> str:
        return self.admin.url

    @property
    def token(self) -> str:
        return self.admin.token

    @property
    def kubeconfig(self) -> Path:
        return self.admin.kubeconfig

    @property
    def certificate_authority(self) -> Path:
        return self.apiserver.certificate_authority

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True, seconds: float = 60.0) -> str:
        """Run kubectl as admin and give its stdout. Raises access.KubectlError unless `check` is False."""
        return self.admin.kubectl(*words, stdin=stdin, check=check, seconds=seconds)

    def metrics(self) -> requests.Requests:
        """Requests that the API server has answered since its last start."""
        return self.apiserver.metrics()

    def service_account(
        self, name: str, rules: Sequence[dict[str, Any]] = (), *, namespace: str = "default", manifests: str = ""
    ) -> access.Access:
        """A service account bound to the given RBAC rules, and its access: see ApiServer.service_account."""
        return self.apiserver.service_account(name, rules, namespace=namespace, manifests=manifests)


@contextlib.contextmanager
def running(*, with_controllers: bool = True, apiserver_flags: Sequence[str] = ()) -> Iterator[ControlPlane]:
    """Start a control plane of your own; leaving the block stops it. About 4 s with controllers."""
    with contextlib.ExitStack() as stack:
        store = etcd.Etcd()
        stack.enter_context(store)
        server = apiserver.ApiServer(store, apiserver_flags)
        stack.enter_context(server)
        manager = None
        if with_controllers:
            manager = controllers.ControllerManager(server)
            stack.enter_context(manager)
        yield ControlPlane(store, server, manager)
