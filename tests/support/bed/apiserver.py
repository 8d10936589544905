"""kube-apiserver: RBAC on, a static admin token, its own certificate authority, loopback only."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.bed import access, build, certificates, etcd, paths, ports, process, requests

ISSUER = "https://kubernetes.default.svc"


class ApiServer(process.Process):
    """A running API server and the admin's way into it.

    `kill`, `restart` and `pause` are outages: address, certificates, tokens and data stay the same.
    """

    def __init__(self, store: etcd.Etcd, extra: Sequence[str] = ()) -> None:
        self.folder = paths.fresh("apiserver")
        self.authority = certificates.Authority(self.folder)
        self.service_account_key = self._write_service_account_key()
        port = ports.free()
        self.admin = access.write_kubeconfig(
            self.folder / "admin.kubeconfig",
            f"https://127.0.0.1:{port}",
            secrets.token_urlsafe(24),
            self.authority.certificate,
        )
        super().__init__(
            process.Launch(
                name="kube-apiserver",
                argv=[build.binary("kube-apiserver"), *self._flags(store, port), *extra],
                log=self.folder / "log",
                ready=self._ready,
                ready_seconds=90,
            )
        )

    @property
    def certificate_authority(self) -> Path:
        """The authority that signed the server's certificate, as a PEM file."""
        return self.authority.certificate

    def metrics(self) -> requests.Requests:
        """Requests answered since the server's last start. Raises OSError when it does not answer."""
        return requests.parse(self.metrics_text())

    def metrics_text(self) -> str:
        status, body = self.admin.request("GET", "/metrics")
        if status != 200:
            raise process.ServerError(f"/metrics answered {status}: {body[:200]!r}")
        return body.decode()

    def service_account(
        self,
        name: str,
        rules: Sequence[dict[str, Any]] = (),
        *,
        namespace: str = "default",
        manifests: str = "",
        seconds: int = 24 * 3600,
    ) -> access.Access:
        """A service account that may do what the rules say, cluster-wide, and nothing else.

        `rules` are RBAC rules ({"apiGroups": …, "resources": …, "verbs": …}). For roles of your own,
        pass their YAML as `manifests` and bind them to this account. The token is a real one from
        the TokenRequest API, good for `seconds`.
        """
        status, body = self.admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        if status not in (201, 409):
            raise process.ServerError(f"creating namespace {namespace} answered {status}: {body!r}")
        account = {"name": name, "namespace": namespace}
        self.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        if rules:
            self.admin.apply(_cluster_role(name, namespace, rules))
            self._wait_allowed(f"system:serviceaccount:{namespace}:{name}", rules)
        if manifests:
            self.admin.apply(manifests)
        token = self.admin.kubectl(
            "create", "token", name, f"--namespace={namespace}", f"--duration={seconds}s"
        ).strip()
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        return access.write_kubeconfig(path, self.admin.url, token, self.certificate_authority, namespace)

    def _wait_allowed(self, user: str, rules: Sequence[dict[str, Any]]) -> None:
        """The server judges by a cache of the rules, which follows them a moment later. Raises ServerError."""
        deadline = time.monotonic() + 30
        for rule in rules:
            if not rule.get("resources"):
                continue
            resource, _, subresource = rule["resources"][0].partition("/")
            wish = {"verb": rule["verbs"][0], "group": rule["apiGroups"][0], "resource": resource}
            wish |= {"subresource": subresource, "name": next(iter(rule.get("resourceNames", ())), "")}
            review = {"spec": {"user": user, "resourceAttributes": wish}}
            while not self._allowed(review):
                if time.monotonic() > deadline:
                    raise process.ServerError(f"{user} may still not {wish}")
                time.sleep(0.02)

    def _allowed(self, review: dict[str, Any]) -> bool:
        status, body = self.admin.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return status == 201 and bool(json.loads(body)["status"]["allowed"])

    def _ready(self) -> bool:
        if self.admin.request("GET", "/readyz", seconds=3)[0] != 200:
            return False
        return self.admin.request("GET", "/api/v1/namespaces/default", seconds=3)[0] == 200

    def _flags(self, store: etcd.Etcd, port: int) -> list[str]:
        serving = self.authority.serving("kube-apiserver", ["127.0.0.1", "localhost"])
        to_kubelet = self.authority.client("kube-apiserver-kubelet-client", ["system:masters"])
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f'{self.admin.token},admin,admin,"system:masters"\n', encoding="utf-8")
        return [
            f"--etcd-servers={store.url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self.authority.certificate}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={self.service_account_key}",
            f"--service-account-signing-key-file={self.service_account_key}",
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=203.0.113.0/24",
            f"--kubelet-client-certificate={to_kubelet.certificate}",
            f"--kubelet-client-key={to_kubelet.key}",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            f"--cert-dir={self.folder}",
        ]

    def _write_service_account_key(self) -> Path:
        path = self.folder / "service-account.key"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return path


def start(store: etcd.Etcd, extra: Sequence[str] = ()) -> ApiServer:
    """Start an API server on the store and wait until it is ready. `extra` are further flags."""
    server = ApiServer(store, extra)
    server.start()
    return server


def _cluster_role(name: str, namespace: str, rules: Sequence[dict[str, Any]]) -> list[Any]:
    group = "rbac.authorization.k8s.io"
    metadata = {"name": f"{namespace}:{name}"}
    return [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    ]
