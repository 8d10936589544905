"""A group of twenty claims on one side: what it writes per member, and what when nothing has changed."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.kubernetes import NAMESPACE, SETTLE_SECONDS, SNAPSHOT_RESOURCES, Bench
from bench.shapes import GroupReading
from tests.support import claims, localdisk
from tests.support.bed import requests

GROUP = "groupsnapshot.storage.k8s.io"
ROOT = f"/apis/{GROUP}/v1"
RESOURCES = SNAPSHOT_RESOURCES | {
    "volumegroupsnapshots", "volumegroupsnapshotcontents", "volumegroupsnapshotclasses",
}  # fmt: skip
CLASS = "bench-groups"
READY_SECONDS = 120
Object = dict[str, Any]


class Groups:
    """The cluster of a bench, its claims labelled as one group."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._admin = bench.plane.admin
        body = {"metadata": {"name": CLASS}, "driver": localdisk.NAME, "deletionPolicy": "Delete"}
        self._send("POST", f"{ROOT}/volumegroupsnapshotclasses", _typed("VolumeGroupSnapshotClass", body))
        self._admin.kubectl("label", "pvc", "-n", NAMESPACE, *bench.claims, "bench=together")

    def read(self) -> GroupReading:
        """Make a group, look at it again, delete it; ours only: upstream's needs a gate of its own on both halves."""
        route = f"{ROOT}/namespaces/{NAMESPACE}/volumegroupsnapshots"
        spec = {
            "volumeGroupSnapshotClassName": CLASS,
            "source": {"selector": {"matchLabels": {"bench": "together"}}},
        }
        with self._bench.ours() as contender:
            time.sleep(SETTLE_SECONDS)
            start, used = self._writes(), contender.cpu_seconds()
            self._send("POST", route, _typed("VolumeGroupSnapshot", {"metadata": {"name": "all"}, "spec": spec}))
            claims.until("the group is ready", lambda: self._is_ready(f"{route}/all"), READY_SECONDS)
            claims.until("its members are ready", self._members_ready, READY_SECONDS)
            time.sleep(SETTLE_SECONDS)
            made, cpu = self._writes() - start - 1, contender.cpu_seconds() - used
            # A label that nobody reads wakes a pass over the group and its members.
            start = self._writes()
            self._admin.kubectl("label", "volumegroupsnapshot", "-n", NAMESPACE, "all", "looked=again")
            time.sleep(2 * SETTLE_SECONDS)
            idle = self._writes() - start - 1
            start = self._writes()
            self._send("DELETE", f"{route}/all")
            claims.until("the group is gone", lambda: self._is_gone(f"{route}/all"), READY_SECONDS)
            time.sleep(SETTLE_SECONDS)
            deleted = self._writes() - start - 1
        members = len(self._bench.claims)
        return GroupReading(members, made / members, idle, deleted / members, cpu * 1000 / members)

    def _writes(self) -> int:
        return self._bench.plane.metrics().total(verbs=requests.WRITES, resources=RESOURCES)

    def _members_ready(self) -> bool:
        _, body = self._admin.request("GET", f"{claims.GROUP}/namespaces/{NAMESPACE}/volumesnapshots")
        members = [one for one in json.loads(body)["items"] if one["metadata"].get("ownerReferences")]
        ready = [one for one in members if (one.get("status") or {}).get("readyToUse")]
        return len(ready) == len(self._bench.claims)

    def _is_ready(self, route: str) -> bool:
        found: Object = json.loads(self._admin.request("GET", route)[1])
        return (found.get("status") or {}).get("readyToUse") is True

    def _is_gone(self, route: str) -> bool:
        return self._admin.request("GET", route)[0] == 404

    def _send(self, method: str, route: str, body: Object | None = None) -> None:
        status, answer = self._admin.request(method, route, body)
        if status >= 300:
            raise RuntimeError(f"{method} {route}: {status} {answer[:300]!r}")


def _typed(kind: str, body: Object) -> Object:
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, **body}
