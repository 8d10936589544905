"""The webhook role, asked by a real API server whose definitions have no rules: all that is refused is its work."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from tests.integration.kubernetes import rule_cases
from tests.integration.kubernetes.test_admission_policy import Kind
from tests.support import certificates, claims, role
from tests.support.bed import controlplane, paths, ports

CONFIGS = paths.REPOSITORY / "configs/kubernetes"
WEBHOOK = CONFIGS / "webhook"
NAMESPACE = "snapbridge"
CLASSES = ("VolumeSnapshotClass", "snapshot.storage.k8s.io")
GROUP_CLASSES = ("VolumeGroupSnapshotClass", "groupsnapshot.storage.k8s.io")


@dataclasses.dataclass
class Stand:
    """An API server that asks a webhook, with the certificate's files in `folder`."""

    plane: controlplane.ControlPlane
    webhook: role.Role
    port: int
    folder: Path
    authority: certificates.Authority

    def renew(self) -> int:
        """Write another certificate into the files. Returns its serial number."""
        made = self.authority.issue("127.0.0.1", server=True)
        shutil.copy(made.key, self.folder / "tls.key")
        shutil.copy(made.cert, self.folder / "tls.crt")
        return x509.load_pem_x509_certificate(Path(made.cert).read_bytes()).serial_number

    def served(self) -> int:
        """The serial number of the certificate that a new connection gets."""
        text = ssl.get_server_certificate(("127.0.0.1", self.port), ca_certs=self.authority.ca, timeout=30)
        return x509.load_pem_x509_certificate(text.encode()).serial_number

    def post(self, path: str, body: bytes, content_type: str = "application/json") -> tuple[int, str]:
        """Ask it something past the API server."""
        asked = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}", method="POST", data=body, headers={"Content-Type": content_type}
        )
        context = ssl.create_default_context(cafile=self.authority.ca)
        try:
            with urllib.request.urlopen(asked, timeout=60, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def without_rules(node: Any) -> Any:
    """A definition without its validation rules, as they were before the API server could check them."""
    if isinstance(node, dict):
        return {key: without_rules(value) for key, value in node.items() if key != "x-kubernetes-validations"}
    return [without_rules(value) for value in node] if isinstance(node, list) else node


def configuration(url: str, authority: str, policy: str) -> dict[str, Any]:
    """The manifest's own configuration, with a webhook that is no Service."""
    made: dict[str, Any] = copy.deepcopy(yaml.safe_load((WEBHOOK / "configuration.yaml").read_text()))
    bundle = base64.b64encode(Path(authority).read_bytes()).decode()
    for webhook in made["webhooks"]:
        path = webhook["clientConfig"]["service"]["path"]
        assert webhook["failurePolicy"] == "Ignore"
        webhook["clientConfig"] = {"url": url + path, "caBundle": bundle}
        webhook["failurePolicy"] = policy
        webhook["timeoutSeconds"] = 30  # A machine that stands still for a while is no answer.
    return made


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    folder = paths.fresh("webhook")
    authority = certificates.Authority(folder)
    with controlplane.running(with_controllers=False) as plane:
        files = [path for path in sorted((CONFIGS / "crds").glob("*.yaml")) if path.name != "kustomization.yaml"]
        plane.admin.apply([without_rules(yaml.safe_load(path.read_text())) for path in files])
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=50s")
        claims.until_served(plane.admin)
        account = plane.service_account(
            "snapbridge-webhook", namespace=NAMESPACE, manifests=(WEBHOOK / "rbac.yaml").read_text()
        )
        port = ports.free()
        flags = (
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={folder / 'tls.crt'}",
            f"--tls-private-key-file={folder / 'tls.key'}",
            "--enable-volume-group-snapshot-webhook=true",
        )
        made = Stand(plane, role.role("webhook", *flags, kubeconfig=account.kubeconfig), port, folder, authority)
        made.renew()
        with made.webhook:
            plane.admin.apply(configuration(f"https://127.0.0.1:{port}", authority.ca, "Fail"))
            kind = Kind(plane, *CLASSES)
            assert kind.create("witness", "witness.example")[0] == 201
            claims.until("asked", lambda: kind.create("probe", "witness.example", dry_run=True)[0] == 422)
            yield made


def test_upstreams_rule_cases_hold_with_the_same_messages(stand: Stand) -> None:
    failures, tried = rule_cases.failures(stand.plane)
    assert not failures, "\n".join(failures)
    assert tried >= 82


@pytest.mark.parametrize("names", [CLASSES, GROUP_CLASSES], ids=["classes", "group classes"])
def test_a_second_default_is_refused_and_the_first_is_named(stand: Stand, names: tuple[str, str]) -> None:
    kind = Kind(stand.plane, *names)
    assert kind.create("a", "a.example")[0] == 201
    claims.until("known", lambda: kind.create("b", "a.example", dry_run=True)[0] == 422)
    status, message = kind.create("b", "a.example")
    assert (status, "class: a already exists for driver: a.example" in message) == (422, True)
    assert kind.create("c", "c.example")[0] == 201, "another driver"
    assert kind.create("plain", "a.example", default=False)[0] == 201
    assert kind.patch("plain", mark="true")[0] == 422
    assert kind.patch("a", note="x")[0] == 200
    kind.delete("a")
    claims.until("free", lambda: kind.create("b", "a.example", dry_run=True)[0] == 201)
    assert kind.patch("plain", mark="true")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "told"),
    [
        ("/volumesnapshot", b"{", "application/json", 400, "not JSON"),
        ("/volumesnapshot", b"", "application/json", 400, "not JSON"),
        ("/volumesnapshot", b"[" * 100_000, "application/json", 400, "not JSON"),
        ("/volumesnapshot", b"null", "application/json", 400, "no AdmissionReview"),
        ("/volumegroupsnapshot", b'{"kind": "AdmissionReview"}', "application/json", 400, "admissionReviewVersions"),
        ("/volumesnapshot", b"{}", "text/plain", 415, "application/json"),
        ("/volumesnapshot", b" " * (17 * 1024 * 1024), "application/json", 413, ""),
        ("/elsewhere", b"{}", "application/json", 404, ""),
    ],
)
def test_what_is_no_question_is_told_so_and_ends_nothing(
    stand: Stand, path: str, body: bytes, kind: str, status: int, told: str
) -> None:
    found, text = stand.post(path, body, kind)
    assert found == status
    assert told in text
    assert stand.webhook.page("/readyz")[0] == 200


def test_a_new_certificate_is_served_without_a_restart(stand: Stand) -> None:
    first = stand.served()
    second = stand.renew()
    assert first != second
    claims.until("the new one is served", lambda: stand.served() == second, 30.0)
    (stand.folder / "tls.crt").write_text("half a certif")
    claims.until("told", lambda: "cannot be used" in health(stand), 30.0)
    assert stand.served() == second, "a file that is none leaves the old one in place"
    third = stand.renew()
    claims.until("the third one is served", lambda: stand.served() == third, 30.0)
    claims.until("that it was useless is forgotten", lambda: "cannot be used" not in health(stand), 30.0)
    assert Kind(stand.plane, *CLASSES).create("after", "after.example", dry_run=True)[0] == 201


def health(stand: Stand) -> str:
    """The page of health that the listener of questions has itself."""
    context = ssl.create_default_context(cafile=stand.authority.ca)
    with urllib.request.urlopen(f"https://127.0.0.1:{stand.port}/readyz", timeout=30, context=context) as answer:
        text: str = answer.read().decode()
    return text


def test_its_pages_tell_what_it_answered(stand: Stand) -> None:
    status, text = stand.webhook.page("/metrics")
    assert status == 200
    for answer in ("allowed", "refused", "unreadable"):
        assert f'snapbridge_webhook_reviews_total{{answer="{answer}"}}' in text


def test_the_manifests_are_taken_as_they_stand(stand: Stand) -> None:
    done = stand.plane.kubectl("apply", "--dry-run=server", "-k", str(WEBHOOK))
    assert "deployment.apps/snapbridge-webhook" in done
    assert "validatingwebhookconfiguration.admissionregistration.k8s.io/snapbridge-webhook.snapbridge.dev" in done


def test_while_it_is_down_the_manifests_policy_lets_everything_through(stand: Stand) -> None:
    """The last test of this file: it stops the webhook."""
    kind = Kind(stand.plane, *CLASSES)
    stand.webhook.stop()
    assert kind.create("down", "witness.example", dry_run=True)[0] == 500, (
        "with Fail, the question is answered with no"
    )
    stand.plane.admin.apply(configuration(f"https://127.0.0.1:{stand.port}", stand.authority.ca, "Ignore"))
    claims.until("let through", lambda: kind.create("down", "witness.example", dry_run=True)[0] == 201)
    body = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "wrong"}}
    body["spec"] = {"source": {}}
    path = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots?dryRun=All"
    status, answer = stand.plane.admin.request("POST", path, body)
    assert status == 201, json.loads(answer)
