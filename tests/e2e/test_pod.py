"""The pod's story on a real kubelet: `snapbridge node` registers the driver, `snapbridge serve` cuts and restores.

Pods write and read through mounts that kubelet made; no test here touches a volume past the pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.e2e.test_standalone import backend
from tests.support import beside_kubelet, claims, localdisk, provisioning, role, serve
from tests.support.bed import paths, process
from tests.support.bed.node import Node

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

SAMPLES = paths.REPOSITORY / "configs" / "kubernetes" / "samples"
SIZE = 32 << 20
WRITE = (
    "mkdir -p /data/notes && for n in 1 2 3; do echo note $n > /data/notes/$n.txt; done"
    " && head -c 3000000 /dev/urandom > /data/photo.raw"
)
SUM = "cd /data && find . -type f | sort | xargs md5sum | md5sum"


@pytest.fixture
def driver(node: Node) -> Iterator[localdisk.LocalDisk]:
    """The driver of this node; its pods are gone before it is."""
    with beside_kubelet.driver(node) as running:
        yield running
        node.delete_all_pods()


@pytest.fixture
def agent(node: Node, driver: localdisk.LocalDisk) -> Iterator[process.Process]:
    node.plane.kubectl("apply", "-f", str(SAMPLES / "csidriver.yaml"))
    with beside_kubelet.agent(node) as running:
        beside_kubelet.until_registered(node)
        yield running
        node.delete_all_pods()
    beside_kubelet.until_forgotten(node)


@pytest.fixture
def service(node: Node, agent: process.Process, driver: localdisk.LocalDisk) -> Iterator[serve.Serve]:
    claims.install(node.plane.admin, localdisk.NAME)
    made = serve.service(
        clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(node.plane.kubeconfig)}],
        plugins=[{"name": "localdisk", "socket": str(driver.socket)}],
    )
    with made as running:
        yield running


def pod(name: str, namespace: str, claim: str) -> dict[str, Any]:
    """The sample pod, on another claim."""
    found: dict[str, Any] = yaml.safe_load((SAMPLES / "pod.yaml").read_text())
    found["metadata"] = {"name": name, "namespace": namespace}
    found["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = claim
    return found


def run(node: Node, namespace: str, name: str, script: str) -> str:
    """What a script in the pod prints."""
    return node.exec(name, "sh", "-ec", script, namespace=namespace).stdout.strip()


def test_a_pod_reads_back_what_another_wrote(
    node: Node, driver: localdisk.LocalDisk, service: serve.Serve, namespace: str
) -> None:
    admin = node.plane.admin
    volume = driver.volume("pod-data", SIZE)
    claims.bound(admin, namespace, "notes", localdisk.NAME, volume.volume_id)
    node.run_pod(pod("writer", namespace, "notes"))
    run(node, namespace, "writer", WRITE)
    before = run(node, namespace, "writer", SUM)
    admin.apply(claims.snapshot(namespace, "monday", "notes"))
    claims.until("ready", lambda: claims.is_ready(admin, namespace, "monday"))
    assert len(backend(driver)) == 1
    run(node, namespace, "writer", "rm -r /data/notes; echo oops > /data/photo.raw")
    assert run(node, namespace, "writer", SUM) != before

    found = admin.get("volumesnapshot", "monday", "-n", namespace)
    content = found["status"]["boundVolumeSnapshotContentName"]
    service.cli("snapshot", "restore", found["metadata"]["uid"], "--as", "restored", "--wait")
    admin.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/restored", "-n", namespace, "--timeout=60s")
    node.run_pod(pod("reader", namespace, "restored"))
    assert run(node, namespace, "reader", SUM) == before
    assert run(node, namespace, "writer", SUM) != before

    admin.kubectl("delete", "volumesnapshot", "monday", "-n", namespace, "--timeout=30s")
    claims.until("content gone", lambda: claims.is_gone(admin, "volumesnapshotcontent", content))
    assert backend(driver) == []
    assert run(node, namespace, "reader", SUM) == before


@pytest.fixture
def provisioned(node: Node, agent: process.Process, driver: localdisk.LocalDisk) -> Iterator[None]:
    """The snapshots' role and the provisioner, on the driver's socket, and a class."""
    admin, address, config = node.plane.admin, f"--csi-address={driver.socket}", node.plane.kubeconfig
    claims.install(admin, localdisk.NAME)
    admin.apply(provisioning.storage_class("pods", volumeBindingMode="WaitForFirstConsumer"))
    with (
        role.role("all", address, "--leader-election=false", kubeconfig=config),
        role.role("provisioner", address, *provisioning.FAST, kubeconfig=config),
    ):
        yield
        node.delete_all_pods()
    admin.kubectl("delete", "storageclass", "pods")


def test_a_claim_from_a_snapshot_gives_a_second_pod_the_first_ones_files(
    node: Node, driver: localdisk.LocalDisk, provisioned: None, namespace: str
) -> None:
    admin = node.plane.admin
    chosen = {"volume.kubernetes.io/selected-node": node.name}

    def wanted(name: str, **spec: Any) -> dict[str, Any]:
        made = provisioning.claim(namespace, name, "pods", **spec)
        made["metadata"]["annotations"] = chosen  # as the scheduler would
        return made

    admin.apply(wanted("notes"))
    provisioning.until_bound(admin, namespace, "notes")
    node.run_pod(pod("writer", namespace, "notes"))
    run(node, namespace, "writer", WRITE)
    before = run(node, namespace, "writer", SUM)
    admin.apply(claims.snapshot(namespace, "monday", "notes"))
    claims.until("ready", lambda: claims.is_ready(admin, namespace, "monday"))
    run(node, namespace, "writer", "rm -r /data/notes; echo oops > /data/photo.raw")

    admin.apply(wanted("restored", dataSource=provisioning.from_snapshot("monday")))
    volume = provisioning.until_bound(admin, namespace, "restored")
    assert node.name in str(volume["spec"]["nodeAffinity"])
    node.run_pod(pod("reader", namespace, "restored"))
    assert run(node, namespace, "reader", SUM) == before


def test_a_restart_of_the_agent_keeps_pods_and_the_registration(
    node: Node, driver: localdisk.LocalDisk, agent: process.Process, namespace: str
) -> None:
    volume = driver.volume("steady", SIZE)
    claims.bound(node.plane.admin, namespace, "steady", localdisk.NAME, volume.volume_id)
    node.run_pod(pod("first", namespace, "steady"))
    run(node, namespace, "first", WRITE)
    before = run(node, namespace, "first", SUM)

    agent.stop()
    beside_kubelet.until_forgotten(node)
    assert run(node, namespace, "first", SUM) == before
    agent.start()
    beside_kubelet.until_registered(node)

    before_kill = _announced(agent)
    agent.kill()  # its socket file stays, and the next start must take its place
    agent.start()
    claims.until("announced again", lambda: _announced(agent) > before_kill, 60.0)
    assert run(node, namespace, "first", SUM) == before
    node.delete_pod("first", namespace)
    node.run_pod(pod("second", namespace, "steady"))
    assert run(node, namespace, "second", SUM) == before


def _announced(agent: process.Process) -> int:
    """How often the agent was asked by the kubelet, in all of its starts."""
    return agent.log.read_text().count("a driver is announced")
