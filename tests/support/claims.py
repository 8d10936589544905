"""Kubernetes objects around one driver: our CRDs, its class, and claims bound to its volumes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.bed import access, paths

CRDS = paths.REPOSITORY / "configs" / "kubernetes" / "crds"
CLASS = "local"
GROUP = "/apis/snapshot.storage.k8s.io/v1"


def install(admin: access.Access, driver: str, *, policy: str = "Delete", name: str = CLASS) -> None:
    """Our CRDs, and a class of this driver."""
    files = [path for path in sorted(CRDS.glob("*.yaml")) if path.name != "kustomization.yaml"]
    admin.kubectl("apply", "--server-side", *(f"--filename={path}" for path in files))
    admin.kubectl("wait", "--for=condition=Established", "--timeout=50s", *[f"crd/{_name(path)}" for path in files])
    until_served(admin)
    admin.apply(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": name},
            "driver": driver,
            "deletionPolicy": policy,
        }
    )


def until_served(admin: access.Access) -> None:
    """Wait until our kinds are served, and kubectl is told of them: both come a moment after Established."""
    names = ",".join(_name(path) for path in sorted(CRDS.glob("*.yaml")) if path.name != "kustomization.yaml")
    words = ("get", names, "--all-namespaces", "-o", "name")
    until("our kinds are served", lambda: admin.run_kubectl(*words).returncode == 0)


def _name(path: Path) -> str:
    return str(yaml.safe_load(path.read_text())["metadata"]["name"])


def claim(namespace: str, name: str, driver: str, handle: str, *, size: str = "32Mi") -> list[dict[str, Any]]:
    """A PersistentVolume of this handle and the claim that is bound to it."""
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-{name}"},
            "spec": {
                **spec,
                "capacity": {"storage": size},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": name},
                "csi": {"driver": driver, "volumeHandle": handle},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {**spec, "volumeName": f"{namespace}-{name}", "resources": {"requests": {"storage": size}}},
        },
    ]


def bound(admin: access.Access, namespace: str, name: str, driver: str, handle: str) -> None:
    """Apply the two and wait until they are bound."""
    admin.apply(claim(namespace, name, driver, handle))
    waiting = ["wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", f"pvc/{name}", "-n", namespace]
    admin.kubectl(*waiting, seconds=90)


def snapshot(namespace: str, name: str, claim_name: str, class_name: str = CLASS) -> dict[str, Any]:
    """A VolumeSnapshot of a claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"volumeSnapshotClassName": class_name, "source": {"persistentVolumeClaimName": claim_name}},
    }


def static(namespace: str, name: str, driver: str, handle: str) -> list[dict[str, Any]]:
    """A content of a snapshot that the backend has already, and the VolumeSnapshot that names it."""
    version = "snapshot.storage.k8s.io/v1"
    content = {
        "apiVersion": version,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "driver": driver,
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"name": name, "namespace": namespace},
        },
    }
    snapshot = {
        "apiVersion": version,
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"volumeSnapshotContentName": f"{namespace}-{name}"}},
    }
    return [content, snapshot]


def until(what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll until it holds; an AssertionError says what did not."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def is_ready(admin: access.Access, namespace: str, name: str) -> bool:
    """Whether the VolumeSnapshot says readyToUse. Plain HTTP: a kubectl for each look would cost too much."""
    status, body = admin.request("GET", f"{GROUP}/namespaces/{namespace}/volumesnapshots/{name}")
    return status == 200 and bool(json.loads(body).get("status", {}).get("readyToUse"))


def is_gone(admin: access.Access, kind: str, name: str, namespace: str = "") -> bool:
    """Whether the VolumeSnapshot (or content) does not exist."""
    place = f"namespaces/{namespace}/" if namespace else ""
    return admin.request("GET", f"{GROUP}/{place}{kind}s/{name}")[0] == 404


def contents(admin: access.Access, namespace: str = "") -> list[dict[str, Any]]:
    """Every VolumeSnapshotContent, or those of a namespace's VolumeSnapshots."""
    found: list[dict[str, Any]] = json.loads(admin.request("GET", f"{GROUP}/volumesnapshotcontents")[1])["items"]
    return [one for one in found if namespace in ("", one["spec"]["volumeSnapshotRef"].get("namespace"))]
