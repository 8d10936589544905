"""A group content that is let go with an unsettled create: what may be left is told before the object can be gone."""

from __future__ import annotations

from typing import Any, cast

import pytest

from adapters.kubernetes.client import Client
from adapters.kubernetes.events import Events
from adapters.kubernetes.groups import names
from adapters.kubernetes.groups.driver import DriverGroupRecords, DriverGroupWorld
from adapters.kubernetes.groups.means import Means
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError
from bridge.model.keys import group_key
from tests.support.memory import VirtualClock

CONTENT: dict[str, Any] = {
    "apiVersion": "groupsnapshot.storage.k8s.io/v1",
    "kind": "VolumeGroupSnapshotContent",
    "metadata": {
        "name": "content",
        "uid": "c",
        "resourceVersion": "5",
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": [names.CONTENT_FINALIZER],
        "annotations": {},
    },
    "spec": {
        "driver": "d",
        "deletionPolicy": "Delete",
        "source": {"volumeHandles": ["v"]},
        "volumeGroupSnapshotRef": {"name": "g", "namespace": "ns", "uid": "u"},
    },
}


class Server:
    """Stands where the client is. It keeps what was sent, and refuses writes of contents on demand."""

    def __init__(self, *, refuses: bool) -> None:
        self.sent: list[str] = []
        self._refuses = refuses

    async def create(self, _resource: object, _namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self.sent.append(str(body["reason"]))
        return body

    async def put(self, _resource: object, body: dict[str, Any], *, status: bool = False) -> dict[str, Any]:
        if self._refuses:
            raise ConflictError("refused")
        self.sent.append("status" if status else "finalizers")
        return {**body, "metadata": {**body["metadata"], "resourceVersion": "6"}}


@pytest.mark.parametrize(("refuses", "sent"), [(False, ["finalizers"]), (True, [])])
async def test_what_may_be_left_is_told_before_the_last_write(refuses: bool, sent: list[str]) -> None:
    server, clock = Server(refuses=refuses), VirtualClock()
    client = cast("Client", server)
    world = DriverGroupWorld("d", names.NAMING)
    world.contents.fold(CONTENT)
    for cache in world.caches.values():
        cache.synced = True
    means = Means("kube", Writer(client, world), Events(client, clock), clock)
    records = DriverGroupRecords(world, means)
    key = group_key("kube", "c")
    record = await records.load(key)
    assert record is not None
    if refuses:
        with pytest.raises(ConflictError):
            await records.erase(key, record, orphan="name")
    else:
        await records.erase(key, record, orphan="name")
    assert server.sent == ["SnapshotOrphanPossible", *sent]
