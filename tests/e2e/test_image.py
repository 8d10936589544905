"""The container image in a pod of a real kubelet, by the manifests: in the cluster, under its service account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_standalone import backend
from tests.support import claims, image, localdisk, manifests
from tests.support.bed import ports
from tests.support.bed.node import Node

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

NAMESPACE = "snapbridge"


@pytest.fixture
def driver() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk() as running:
        yield running


@pytest.fixture
def installed(node: Node, driver: localdisk.LocalDisk) -> Iterator[dict[str, Any]]:
    """The overlay `merged`, applied; the driver's socket in the place of the sample's."""
    (deployment,) = manifests.rendered("merged", "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
    volume["hostPath"]["path"] = str(driver.socket.parent)
    container["args"][0] = f"--csi-address=/var/lib/kubelet/plugins/{driver.socket.name}"
    manifests.on_port(container, ports.free())
    others = [one for one in manifests.rendered("merged") if one["kind"] != "Deployment"]
    made = manifests.fitted(deployment, node, image.on(node))
    admin = node.plane.admin
    claims.install(admin, localdisk.NAME)
    admin.kubectl("apply", "-f", "-", stdin=manifests.as_list([*others, made]))
    try:
        yield made
    finally:
        admin.kubectl("delete", "-f", "-", "--timeout=60s", stdin=manifests.as_list([*others, made]), seconds=90)


def available(node: Node) -> None:
    node.plane.kubectl("rollout", "status", "deployment/snapbridge-all", "-n", NAMESPACE, "--timeout=60s", seconds=70)


def container(node: Node) -> dict[str, Any]:
    """The status of the only container of the only pod."""
    found = json.loads(node.plane.admin.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")[1])["items"]
    (pod,) = found
    (status,) = pod["status"]["containerStatuses"]
    return dict(status)


def test_a_pod_of_the_manifests_serves_snapshots_and_resumes_after_a_crash(
    node: Node, driver: localdisk.LocalDisk, installed: dict[str, Any], namespace: str
) -> None:
    admin = node.plane.admin
    available(node)
    volume = driver.volume("image-data", 1 << 20)
    claims.bound(admin, namespace, "data", localdisk.NAME, volume.volume_id)
    admin.apply(claims.snapshot(namespace, "one", "data"))
    claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
    assert len(backend(driver)) == 1

    driver.process.pause()
    admin.apply(claims.snapshot(namespace, "two", "data"))
    claims.until("begun", lambda: len(claims.contents(admin)) == 2)
    first = container(node)["containerID"].removeprefix("containerd://")
    node.containerd.ctr("tasks", "kill", "--signal=SIGKILL", first)
    driver.process.resume()
    claims.until("ready after the crash", lambda: claims.is_ready(admin, namespace, "two"))
    assert len(backend(driver)) == 2
    assert container(node)["restartCount"] == 1

    admin.kubectl("delete", "volumesnapshot", "one", "two", "-n", namespace, "--timeout=30s")
    assert backend(driver) == []


def test_it_holds_no_more_than_it_needs_and_runs_as_nobody(node: Node) -> None:
    name = image.on(node)
    ctr = node.containerd.ctr
    version = ctr("run", "--rm", "--read-only", name, "image-version", "/opt/snapbridge/bin/snapbridge", "--version")
    assert version.startswith("snapbridge ")
    script = (
        "import os, ssl, aiohttp, grpc.aio, orjson, pysqlite3, kubernetes.aio.config, kubernetes.aio.client.rest;"
        "print(os.getuid(), os.getgid(), ssl.create_default_context().cert_store_stats()['x509_ca'] > 50,"
        " sorted(os.listdir('/')))"
    )
    words = ctr("run", "--rm", name, "image-content", "/opt/snapbridge/bin/python3", "-I", "-c", script)
    assert words.startswith("65532 65532 True ")
    assert "'bin'" not in words, "no shell"


def test_the_same_sources_give_the_same_image(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = tmp_path_factory.mktemp("same") / "image.tar"
    again = image.build(archive)
    archive.unlink()
    assert again.startswith("sha256:")
    assert again == image.digest(node)
