"""One identity's way into a Kubernetes API server: its token, its kubeconfig, kubectl and plain HTTP."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.bed import build

KUBECTL = "kubectl"
KUBECTL_SECONDS = 60.0


class KubectlError(RuntimeError):
    """kubectl ended with an exit code other than 0; the text holds the command and its words."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.returncode = done.returncode
        self.stderr = done.stderr
        words = " ".join(str(word) for word in done.args[1:])
        super().__init__(f"kubectl {words}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """What a user or a service account needs to reach the API server."""

    url: str
    token: str
    certificate_authority: Path
    kubeconfig: Path
    namespace: str = "default"

    def kubectl(
        self, *words: str, stdin: str | None = None, check: bool = True, seconds: float = KUBECTL_SECONDS
    ) -> str:
        """Run kubectl as this identity and give its stdout. Raises KubectlError unless `check` is False."""
        return self.run_kubectl(*words, stdin=stdin, check=check, seconds=seconds).stdout

    def run_kubectl(
        self, *words: str, stdin: str | None = None, check: bool = False, seconds: float = KUBECTL_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl and give the finished process, with returncode, stdout and stderr.

        What it remembers of a server's kinds lies beside the kubeconfig: at home, a server of an earlier run at the
        same port would be remembered for this one.
        """
        done = subprocess.run(
            [kubectl_program(), f"--kubeconfig={self.kubeconfig}", *words],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "KUBECACHEDIR": str(self.kubeconfig.parent / "kubectl-cache")},
        )
        if check and done.returncode != 0:
            raise KubectlError(done)
        return done

    def apply(self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """`kubectl apply -f -` of YAML text, one object, or several."""
        self.kubectl("apply", "-f", "-", stdin=_text(manifest))

    def get(self, *words: str) -> dict[str, Any]:
        """`kubectl get WORDS -o json`, parsed."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        seconds: float = 30.0,
    ) -> tuple[int, bytes]:
        """One HTTP request past kubectl: its status and body. Raises OSError when there is no answer."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds, context=self._tls()) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate_authority))


def write_kubeconfig(path: Path, url: str, token: str, authority: Path, namespace: str = "default") -> Access:
    """Write a kubeconfig for one identity (readable by its owner alone) and give the access it grants."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bed",
        "clusters": [{"name": "bed", "cluster": {"server": url, "certificate-authority": str(authority)}}],
        "users": [{"name": "bed", "user": {"token": token}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed", "namespace": namespace}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return Access(url, token, authority, path, namespace)


def kubectl_program() -> str:
    """kubectl from PATH, else the one that the bed builds."""
    return shutil.which(KUBECTL) or str(build.binary(KUBECTL))


def _text(manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(manifest, str):
        return manifest
    if isinstance(manifest, Mapping):
        return json.dumps(manifest)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifest)})
