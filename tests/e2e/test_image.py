"""The container image in a pod of a real kubelet, by the manifests: in the cluster, under its service account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc
from tests.e2e.test_standalone import backend
from tests.support import beside_kubelet, claims, image, localdisk, manifests
from tests.support.bed import ports
from tests.support.bed.node import Node

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

NAMESPACE = "snapbridge"
DRIVER = "pod.driver.example"
AUTHORITY = [("grpc.default_authority", "localhost")]


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
        admin.kubectl("delete", "-f", "-", "--timeout=120s", stdin=manifests.as_list([*others, made]), seconds=130)


def available(node: Node) -> None:
    node.plane.kubectl(
        "rollout", "status", "deployment/snapbridge-all", "-n", NAMESPACE, "--timeout=120s", seconds=130
    )


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
    claims.until("begun", lambda: len(claims.contents(admin, namespace)) == 2)
    first = container(node)["containerID"].removeprefix("containerd://")
    node.containerd.ctr("tasks", "kill", "--signal=SIGKILL", first)
    driver.process.resume()
    # The kubelet restarts it, and the lease of the one that crashed has to end first.
    claims.until("ready after the crash", lambda: claims.is_ready(admin, namespace, "two"), 120.0)
    assert len(backend(driver)) == 2
    claims.until("the kubelet has told of one restart", lambda: container(node)["restartCount"] == 1, 60.0)

    admin.kubectl("delete", "volumesnapshot", "one", "two", "-n", namespace, "--timeout=30s")
    assert backend(driver) == []


@pytest.fixture
def halves(node: Node) -> Iterator[None]:
    """The overlays `distributed` and `node` with localdisk as the driver, all of it from the image."""
    name = image.on(node)
    admin = node.plane.admin
    claims.install(admin, DRIVER)
    (deployment,) = manifests.rendered("distributed", "Deployment")
    deployment["spec"]["replicas"] = 1  # They would share one network here.
    manifests.on_port(deployment["spec"]["template"]["spec"]["containers"][0], ports.free())
    made = manifests.fitted(deployment, node, name)
    pod = node_pod(node, name)
    others = [
        one
        for one in (*manifests.rendered("distributed"), *manifests.rendered("node"))
        if one["kind"] not in ("Deployment", "DaemonSet", "PodDisruptionBudget")
    ]
    for one in others:
        if one["kind"] == "Namespace":  # The bed's pods are in the host's network, which `restricted` refuses.
            one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"
    text = manifests.as_list([*others, made, pod])
    admin.kubectl("apply", "-f", "-", stdin=text)
    try:
        yield
    finally:
        admin.kubectl("delete", "--ignore-not-found", "-f", "-", "--timeout=120s", stdin=text, seconds=130)


def node_pod(node: Node, name: str) -> dict[str, Any]:
    """The pod of the overlay's DaemonSet on this node, whose kubelet has its directories elsewhere."""
    (daemons,) = manifests.rendered("node", "DaemonSet")
    text = json.dumps(daemons).replace("your.driver.example", DRIVER)
    made = json.loads(text.replace('"path": "/var/lib/kubelet', f'"path": "{node.root_dir}'))
    spec = made["spec"]["template"]["spec"]
    driver, registrar, sidecar = spec["containers"]
    words = ["/opt/snapbridge/bin/python3", "-I", "-m", "adapters.localdisk", "--endpoint=unix:///csi/csi.sock"]
    driver["command"] = [*words, "--state-dir=/csi/state", f"--driver-name={DRIVER}", f"--node-id={node.name}"]
    driver["args"] = ["--rootless", "--mode=directory"]
    driver["securityContext"] = {"runAsUser": 0, "allowPrivilegeEscalation": False}
    driver["volumeMounts"] = [{"name": "plugin-dir", "mountPath": "/csi"}]
    registrar["args"][1] = f"--kubelet-registration-path={node.plugins}/{DRIVER}/csi.sock"
    for container in (registrar, sidecar):
        manifests.on_port(container, ports.free())
    fitted = manifests.fitted(made, node, name)["spec"]["template"]["spec"]
    metadata = {"name": "csi-node", "namespace": "csi-node"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": fitted}


@pytest.mark.usefixtures("halves")
def test_pods_of_all_roles_register_a_driver_and_cut_on_its_node(node: Node, namespace: str) -> None:
    admin = node.plane.admin
    node.wait_pod("csi-node", "csi-node")
    claims.until("the kubelet knows the driver", lambda: beside_kubelet.drivers(node).get(DRIVER) == node.name, 90.0)
    with grpc.insecure_channel(f"unix:{node.plugins}/{DRIVER}/csi.sock", options=AUTHORITY) as channel:
        controller = csi_pb2_grpc.ControllerStub(channel)
        wanted = pb.CreateVolumeRequest(name="here", volume_capabilities=[localdisk.capability()])
        volume = controller.CreateVolume(wanted, timeout=30, wait_for_ready=True).volume
        volume_object, claim = claims.claim(namespace, "data", DRIVER, volume.volume_id)
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
        required = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
        volume_object["spec"]["nodeAffinity"] = {"required": required}
        admin.apply([volume_object, claim])
        admin.apply(claims.snapshot(namespace, "one", "data"))
        claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"), seconds=90)
        (content,) = claims.contents(admin, namespace)
        assert content["metadata"]["labels"]["snapshot.storage.kubernetes.io/managed-by"] == node.name
        assert len(controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=30).entries) == 1
        admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=60s", seconds=70)
        assert len(controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=30).entries) == 0
    node.delete_pod("csi-node", "csi-node")
    claims.until("the kubelet forgot the driver", lambda: DRIVER not in beside_kubelet.drivers(node), 60.0)


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
