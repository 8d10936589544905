"""The service under exactly the rules of configs/kubernetes/deploy: they are enough, and none is too many."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.catalog import Catalog
from adapters.kubernetes.settings import Settings
from bridge.app import config
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.integration.kubernetes import definitions
from tests.support import claims, httpproxy, localdisk, manifests, serve
from tests.support.bed import access, controlplane, paths
from tests.support.bed.controlplane import ControlPlane

DEPLOY = paths.REPOSITORY / "configs/kubernetes/deploy"
NAMESPACE = "snapbridge"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
ONLY_AFTER_A_CONFLICT = {
    ("get", "volumesnapshots"),
    ("get", "volumesnapshotcontents"),
    ("get", "volumegroupsnapshots"),
    ("get", "volumegroupsnapshotcontents"),
    ("get", "persistentvolumeclaims"),
    ("get", "persistentvolumes"),
}
"""An object is read anew when a write of ours meets a newer one: seldom, so that a quiet run may do without."""


def objects(kind: str) -> list[dict[str, Any]]:
    """The manifests' objects of one kind."""
    found = [one for path in sorted(DEPLOY.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    return [one for one in found if isinstance(one, dict) and one.get("kind") == kind]


def granted() -> set[tuple[str, str]]:
    """(verb, resource) of every rule, wherever it holds."""
    rules = [rule for kind in ("ClusterRole", "Role") for one in objects(kind) for rule in one["rules"]]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def asked(answer: httpproxy.Answer) -> tuple[str, str]:
    """A request as RBAC sees it."""
    parts = answer.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    parts = parts[2:] if parts[0] == "namespaces" else parts
    resource = "/".join((parts[0], *parts[2:]))
    read = "watch" if answer.watch else "get" if len(parts) > 1 else "list"
    return VERBS.get(answer.method, read), resource


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A cluster of this file's own: the roles' names are fixed, and rights are taken away."""
    with controlplane.running() as made:
        definitions.install(made)
        yield made


@pytest.fixture
def account(plane: ControlPlane) -> access.Access:
    """The service account of the manifests with what these bind to it, and nothing else."""
    text = (DEPLOY / "rbac.yaml").read_text()
    made = plane.service_account(NAMESPACE, namespace=NAMESPACE, manifests=text)
    manifests.until_granted(made, [one for one in yaml.safe_load_all(text) if one])
    return made


@pytest.fixture
def driver() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk() as running:
        yield running


def service(driver: localdisk.LocalDisk, probe: str = "/readyz", **cluster: Any) -> serve.Serve:
    """With the manifests' own settings of the cluster, but for the way in."""
    sample = yaml.safe_load((DEPLOY / "snapbridge.yaml").read_text())["clusters"][0]
    return serve.service(
        clusters=[{**sample, **cluster}], plugins=[{"name": "disk", "socket": str(driver.socket)}], probe=probe
    )


async def test_the_rules_are_enough_and_each_is_needed(
    plane: ControlPlane, account: access.Access, driver: localdisk.LocalDisk
) -> None:
    async with httpproxy.running(plane.url, str(plane.certificate_authority)) as proxy:
        way = access.write_kubeconfig(
            paths.fresh("rbac") / "kubeconfig", proxy.url, account.token, plane.certificate_authority
        )
        made = service(driver, in_cluster=False, kubeconfig=str(way.kubeconfig), lease_namespace=NAMESPACE)
        await asyncio.to_thread(_work, plane.admin, driver, made)
    log = made.process.log.read_text()
    assert "orbidden" not in log
    assert "403" not in [word.strip('",:') for word in log.split()]
    refused = [answer for answer in proxy.answers if answer.status in (401, 403)]
    assert refused == []
    used = {asked(answer) for answer in proxy.answers}
    assert used <= granted()
    assert granted() - used <= ONLY_AFTER_A_CONFLICT


def _work(admin: access.Access, driver: localdisk.LocalDisk, made: serve.Serve) -> None:
    """Create, ready, delete; a default class with a secret; static binding; by the command line: create, restore."""
    claims.install(admin, localdisk.NAME)
    _class_with_secret(admin)
    volume = driver.volume("rbac", 16 << 20)
    claims.bound(admin, "default", "data", localdisk.NAME, volume.volume_id)
    cut = driver.snapshot("by-hand", volume.volume_id)
    with made:
        admin.apply(claims.snapshot("default", "one", "data", "with-secret"))
        claims.until("ready", lambda: claims.is_ready(admin, "default", "one"))
        admin.apply(_static(cut.snapshot_id))
        claims.until("bound", lambda: claims.is_ready(admin, "default", "static"))
        made.cli("snapshot", "create", "data", "two", "--wait")
        uid = admin.get("volumesnapshot", "two", "-n", "default")["metadata"]["uid"]
        made.cli("snapshot", "restore", uid, "--as", "restored", "--wait")
        made.cli("snapshot", "delete", uid, "--wait")
        _group(admin)
        admin.kubectl("delete", "volumesnapshot", "one", "static", "-n", "default", "--timeout=50s")
        claims.until("all gone", lambda: not admin.get("volumesnapshotcontent")["items"])
    left = driver.controller.ListSnapshots(pb.ListSnapshotsRequest()).entries
    assert [entry.snapshot.snapshot_id for entry in left] == []


def _group(admin: access.Access) -> None:
    """A group of one claim: made, ready, deleted."""
    version = "groupsnapshot.storage.k8s.io/v1"
    klass = {
        "apiVersion": version,
        "kind": "VolumeGroupSnapshotClass",
        "metadata": {"name": "together"},
        "driver": localdisk.NAME,
        "deletionPolicy": "Delete",
    }
    group = {
        "apiVersion": version,
        "kind": "VolumeGroupSnapshot",
        "metadata": {"name": "all", "namespace": "default"},
        "spec": {
            "volumeGroupSnapshotClassName": "together",
            "source": {"selector": {"matchLabels": {"in": "all"}}},
        },
    }
    admin.kubectl("label", "pvc", "data", "in=all")
    admin.apply([klass, group])
    claims.until("the group is ready", lambda: _is_ready_group(admin, "all"))
    admin.kubectl("delete", "volumegroupsnapshot", "all", "-n", "default", "--timeout=30s")


def _is_ready_group(admin: access.Access, name: str) -> bool:
    found = admin.get("volumegroupsnapshot", name, "-n", "default")
    return found.get("status", {}).get("readyToUse") is True


def _class_with_secret(admin: access.Access) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cut", "namespace": "default"}}
    klass = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {
            "name": "with-secret",
            "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"},
        },
        "driver": localdisk.NAME,
        "deletionPolicy": "Delete",
        "parameters": {
            "csi.storage.k8s.io/snapshotter-secret-name": "cut",
            "csi.storage.k8s.io/snapshotter-secret-namespace": "default",
        },
    }
    admin.apply([{**secret, "stringData": {"key": "value"}}, klass])


def _static(handle: str) -> list[dict[str, Any]]:
    version = "snapshot.storage.k8s.io/v1"
    content = {
        "apiVersion": version,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": "static"},
        "spec": {
            "driver": localdisk.NAME,
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"name": "static", "namespace": "default"},
        },
    }
    snapshot = {
        "apiVersion": version,
        "kind": "VolumeSnapshot",
        "metadata": {"name": "static", "namespace": "default"},
        "spec": {"source": {"volumeSnapshotContentName": "static"}},
    }
    return [content, snapshot]


def test_from_inside_the_cluster_by_token_file_authority_and_environment(
    plane: ControlPlane,
    account: access.Access,
    driver: localdisk.LocalDisk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "token").write_text(account.token)
    (tmp_path / "ca.crt").write_bytes(plane.certificate_authority.read_bytes())
    (tmp_path / "namespace").write_text(NAMESPACE)
    host, _, port = plane.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    claims.install(plane.admin, localdisk.NAME)
    volume = driver.volume("inside", 16 << 20)
    claims.bound(plane.admin, "default", "inside", localdisk.NAME, volume.volume_id)
    with service(driver, service_account_dir=str(tmp_path)):
        plane.admin.apply(claims.snapshot("default", "inside", "inside"))
        claims.until("ready", lambda: claims.is_ready(plane.admin, "default", "inside"), 60.0)
        lease = plane.admin.get("lease", "snapshot-controller-leader", "-n", NAMESPACE)
        assert lease["spec"]["holderIdentity"].startswith(os.uname().nodename)
        plane.admin.kubectl("delete", "volumesnapshot", "inside", "-n", "default", "--timeout=50s")
        claims.until("all gone", lambda: not claims.contents(plane.admin))


def test_without_the_right_to_write_leases_nothing_is_done_and_the_probe_says_what_is_missing(
    plane: ControlPlane, account: access.Access, driver: localdisk.LocalDisk
) -> None:
    plane.kubectl("delete", "rolebinding", "snapbridge-leases", "-n", NAMESPACE)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/snapshot-controller-leader"
    claims.until("the right is gone", lambda: account.request("GET", lease)[0] == 403)
    claims.install(plane.admin, localdisk.NAME)
    volume = driver.volume("unlawful", 16 << 20)
    claims.bound(plane.admin, "default", "unlawful", localdisk.NAME, volume.volume_id)
    made = service(
        driver, probe="/livez", in_cluster=False, kubeconfig=str(account.kubeconfig), lease_namespace=NAMESPACE
    )
    plane.admin.apply(claims.snapshot("default", "unlawful", "unlawful"))
    with made:
        claims.until("it is said", lambda: "cannot get resource" in probed(made)[1], 60.0)
        time.sleep(3.0)
        status, said = probed(made)
        assert status == 503
        assert "cannot get resource" in said
        assert "cannot get resource" in made.process.log.read_text()
        assert claims.contents(plane.admin) == []


def probed(made: serve.Serve) -> tuple[int, str]:
    """What the readiness probe answers."""
    try:
        with urllib.request.urlopen(f"{made.url}/readyz?verbose", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_manifests_are_taken_by_a_real_api_server(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", NAMESPACE, check=False)
    text = plane.kubectl("kustomize", str(DEPLOY))
    plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    made = list(yaml.safe_load_all(text))
    assert {one["kind"] for one in made} >= {"Namespace", "ServiceAccount", "ConfigMap", "Deployment", "Role"}
    (pod,) = [one["spec"]["template"]["spec"] for one in made if one["kind"] == "Deployment"]
    (container,) = pod["containers"]
    assert container["image"] == "snapbridge:VERSION"
    assert "capabilities" in json.dumps(container["securityContext"])
    assert {claim["name"] for claim in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_configuration_of_the_manifests_is_good() -> None:
    with contextlib.chdir(DEPLOY):
        found = config.load(["snapbridge.yaml"], Catalog().sections())
    settings = found.clusters[0].settings
    assert isinstance(settings, Settings)
    assert settings.leader_election
    assert settings.in_cluster
