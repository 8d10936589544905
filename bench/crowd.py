"""Thousands of finished snapshots, put straight into the store: what the API server would have written itself."""

from __future__ import annotations

import base64
import copy
import json
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

from tests.support.bed import controlplane

Object = dict[str, Any]
ROOT = "/registry/snapshot.storage.k8s.io"
OPERATIONS = 100
"""Per transaction; etcd takes 128."""


def fill(plane: controlplane.ControlPlane, like: tuple[Object, Object], claims: list[str], span: range) -> None:
    """Add copies of a finished VolumeSnapshot and its content, one pair per number, spread over the claims."""
    batch: list[Object] = []
    for number in span:
        for key, item in _pair(like, claims[number % len(claims)], number):
            put = {"key": _encoded(f"{ROOT}/{key}"), "value": _encoded(json.dumps(item))}
            batch.append({"requestPut": put})
        if len(batch) >= OPERATIONS or number == span[-1]:
            _send(plane.etcd.url, batch)
            batch = []


def _pair(like: tuple[Object, Object], claim: str, number: int) -> Iterator[tuple[str, Object]]:
    snapshot, content = copy.deepcopy(like)
    namespace, name, uid = snapshot["metadata"]["namespace"], f"old-{number}", str(uuid.uuid4())
    for item in (snapshot, content):
        del item["metadata"]["resourceVersion"]
    snapshot["metadata"] |= {"name": name, "uid": uid}
    snapshot["spec"]["source"]["persistentVolumeClaimName"] = claim
    snapshot["status"]["boundVolumeSnapshotContentName"] = f"snapcontent-{uid}"
    content["metadata"] |= {"name": f"snapcontent-{uid}", "uid": str(uuid.uuid4())}
    content["spec"]["volumeSnapshotRef"] |= {"name": name, "uid": uid}
    content["status"]["snapshotHandle"] = f"snap-{uid}"
    yield f"volumesnapshots/{namespace}/{name}", snapshot
    yield f"volumesnapshotcontents/{content['metadata']['name']}", content


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _send(url: str, batch: list[Object]) -> None:
    body = json.dumps({"success": batch}).encode()
    request = urllib.request.Request(f"{url}/v3/kv/txn", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        if not json.load(answer).get("succeeded"):
            raise RuntimeError("etcd refused a transaction")
