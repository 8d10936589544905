"""Upstream's rule cases, played against a real API server: whoever enforces the rules, the messages are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.bed import build
from tests.support.bed.controlplane import ControlPlane

KINDS = {
    "VolumeSnapshot": ("snapshot.storage.k8s.io/v1", "volumesnapshots", True),
    "VolumeSnapshotContent": ("snapshot.storage.k8s.io/v1", "volumesnapshotcontents", False),
    "VolumeSnapshotClass": ("snapshot.storage.k8s.io/v1", "volumesnapshotclasses", False),
    "VolumeGroupSnapshot": ("groupsnapshot.storage.k8s.io/v1", "volumegroupsnapshots", True),
    "VolumeGroupSnapshotContent": ("groupsnapshot.storage.k8s.io/v1", "volumegroupsnapshotcontents", False),
    "VolumeGroupSnapshotClass": ("groupsnapshot.storage.k8s.io/v1", "volumegroupsnapshotclasses", False),
}


def failures(plane: ControlPlane) -> tuple[list[str], int]:
    """What went otherwise than the cases say, and how many cases there were."""
    folder = build.snapshotter_client_module() / "hack" / "cel-tests"
    files = sorted(folder.rglob("*.yaml"))
    pairs = [path for path in files if path.name.endswith(".pre.yaml")]
    found = [text for path in files if (text := _single(plane, path))]
    found += [text for path in pairs if (text := _transition(plane, path))]
    return found, len(files) + len(pairs)


def _path(document: dict[str, Any]) -> str:
    version, plural, namespaced = KINDS[document["kind"]]
    group = version.partition("/")[0]
    served = document["apiVersion"].partition("/")[2]
    inside = "/namespaces/default" if namespaced else ""
    return f"/apis/{group}/{served}{inside}/{plural}"


def _load(path: Path) -> dict[str, Any]:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert len(documents) == 1, path
    found: dict[str, Any] = documents[0]
    return found


def _single(plane: ControlPlane, path: Path) -> str:
    document = _load(path)
    status, body = plane.admin.request("POST", f"{_path(document)}?dryRun=All", document)
    return _verdict(path, status, body, path.with_name(path.name + ".err"))


def _transition(plane: ControlPlane, path: Path) -> str:
    before = _load(path)
    after = _load(path.with_name(path.name.replace(".pre.", ".post.")))
    status, body = plane.admin.request("POST", _path(before), before)
    if status != 201:
        return f"{path.name}: not created: {body!r}"
    made = json.loads(body)
    item = f"{_path(before)}/{made['metadata']['name']}"
    try:
        after["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        status, body = plane.admin.request("PUT", item, after)
    finally:
        plane.admin.request("DELETE", item)
    return _verdict(path, status, body, path.with_name(path.name.replace(".pre.", ".post.") + ".tx_err"))


def _verdict(path: Path, status: int, body: bytes, expected: Path) -> str:
    if not expected.exists():
        return "" if status < 300 else f"{path.name}: refused: {body!r}"
    wanted = expected.read_text().strip().splitlines()
    if status < 300:
        return f"{path.name}: taken, though it should be refused"
    message = _without_value(json.loads(body)["message"])
    agreed = any(_without_value(line) in message for line in wanted)
    return "" if agreed else f"{path.name}: another message: {message}"


def _without_value(text: str) -> str:
    """Newer API servers show the value where older ones, and the cases, show its type."""
    return re.sub(r'Invalid value: (?:"[^"]*": )?', "", text)
