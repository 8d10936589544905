"""Two doors of one service, seen alike: ask for a snapshot, look how it stands, let it go.

Standalone goes through the HTTP API; Kubernetes through objects on the API server, as kubectl would. Neither knows
anything of CSI.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tests.support import claims, serve
from tests.support.bed import access

GROUP = "/apis/snapshot.storage.k8s.io/v1"
FOLLOW_SECONDS = 45.0
_LOOK_SECONDS = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What the owner of a snapshot can see of it."""

    ready: bool = False
    handle: str = ""
    cut_at: str = ""
    """Empty when it is told as unknown."""
    text: str = ""
    """What is wrong, in words."""
    kept: bool = False
    """Let go, and still on the backend by its policy."""


class Door(Protocol):
    """One way in. `ask` returns what the CSI name of the snapshot will end with."""

    async def ask(self, name: str, volume: str, *, retain: bool = False) -> str: ...

    async def adopt(self, name: str, driver: str, handle: str) -> None: ...

    async def told(self, name: str) -> Told | None:
        """None when nothing of it is left."""
        ...

    async def delete(self, name: str) -> None: ...

    async def abandon(self, name: str) -> None: ...

    async def forget(self, name: str) -> None:
        """Remove what a kept snapshot leaves on record, where that is an object."""
        ...


async def until(door: Door, name: str, what: str, holds: Callable[[Told | None], bool]) -> Told:
    """Look until it holds, and give what was told then (`Told()` for nothing left)."""
    told = await door.told(name)
    for _ in range(int(FOLLOW_SECONDS / _LOOK_SECONDS)):
        if holds(told):
            return told or Told()
        await asyncio.sleep(_LOOK_SECONDS)
        told = await door.told(name)
    raise AssertionError(f"{name} is not {what} after {FOLLOW_SECONDS:.0f} s: {told}")


async def until_ready(door: Door, name: str) -> Told:
    """Follow it until it is ready."""
    return await until(door, name, "ready", lambda told: told is not None and told.ready)


async def until_gone(door: Door, name: str) -> None:
    """Follow it until nothing is left."""
    await until(door, name, "gone", lambda told: told is None)


async def until_kept(door: Door, name: str) -> Told:
    """Follow it until it is let go and kept."""
    return await until(door, name, "kept", lambda told: told is not None and told.kept)


async def until_said(door: Door, name: str, words: str) -> Told:
    """Follow it until its status names these words."""
    return await until(door, name, f"said to be {words}", lambda told: told is not None and words in told.text)


class HttpDoor:
    """A standalone cluster, through `/v1/snapshots`; the abandon through the command line."""

    def __init__(self, service: serve.Serve, cluster: str) -> None:
        self._service = service
        self._cluster = cluster

    async def ask(self, name: str, volume: str, *, retain: bool = False) -> str:
        policy = "Retain" if retain else "Delete"
        status, made = await self._send(
            "POST", "/v1/snapshots", {"name": name, "volume": volume, "deletionPolicy": policy}
        )
        assert status == 202, made
        return str(made["snapshot"]["uid"])

    async def adopt(self, name: str, driver: str, handle: str) -> None:
        body = {"name": name, "adoptHandle": handle, "driver": driver, "deletionPolicy": "Delete"}
        status, made = await self._send("POST", "/v1/snapshots", body)
        assert status == 202, made

    async def told(self, name: str) -> Told | None:
        status, found = await self._send("GET", self._path(name))
        if status == 404:
            return None
        assert status == 200, found
        failure = found["failure"] or {}
        return Told(
            ready=found["ready"],
            handle=found["handle"] or "",
            cut_at=found["cutAt"] or "",
            text=f"{failure.get('code', '')} {failure.get('message', '')} {found['message']}",
            kept=found["state"] == "retained",
        )

    async def delete(self, name: str) -> None:
        status, answer = await self._send("DELETE", self._path(name))
        assert status == 202, answer

    async def abandon(self, name: str) -> None:
        await asyncio.to_thread(self._service.cli, "snapshot", "delete", name, "--abandon", "--yes")

    async def forget(self, name: str) -> None:
        """The book keeps the entry: that is how a retained snapshot stays known."""

    def _path(self, name: str) -> str:
        return f"/v1/snapshots/{self._cluster}/default/{name}"

    async def _send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await asyncio.to_thread(self._service.request, method, path, body)


class KubernetesDoor:
    """VolumeSnapshots in one namespace. A driver's classes are `<prefix>-delete` and `<prefix>-retain`; the names of
    its claims begin with the prefix."""

    def __init__(self, admin: access.Access, namespace: str, classes: Sequence[str]) -> None:
        self._admin = admin
        self._namespace = namespace
        self._classes = tuple(classes)
        self._uids: dict[str, str] = {}

    async def ask(self, name: str, volume: str, *, retain: bool = False) -> str:
        prefix = next((one for one in self._classes if volume.startswith(one)), self._classes[0])
        body = claims.snapshot(self._namespace, name, volume, f"{prefix}-{'retain' if retain else 'delete'}")
        status, made = await self._send("POST", self._path(), body)
        assert status == 201, made
        self._uids[name] = made["metadata"]["uid"]
        return self._uids[name]

    async def adopt(self, name: str, driver: str, handle: str) -> None:
        content = {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotContent",
            "metadata": {"name": f"{self._namespace}-{name}"},
            "spec": {
                "driver": driver,
                "deletionPolicy": "Delete",
                "source": {"snapshotHandle": handle},
                "volumeSnapshotRef": {"name": name, "namespace": self._namespace},
            },
        }
        snapshot = {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": {"source": {"volumeSnapshotContentName": f"{self._namespace}-{name}"}},
        }
        for path, body in ((f"{GROUP}/volumesnapshotcontents", content), (self._path(), snapshot)):
            status, made = await self._send("POST", path, body)
            assert status == 201, made
        self._uids[name] = made["metadata"]["uid"]

    async def told(self, name: str) -> Told | None:
        status, found = await self._send("GET", self._path(name))
        content = await self._content(name)  # after the snapshot: it is written before it
        handle = (content or {}).get("status", {}).get("snapshotHandle", "")
        if status == 404:
            return Told(handle=handle, kept=True) if content is not None else None
        assert status == 200, found
        seen = found.get("status", {})
        return Told(
            # A snapshot that is being deleted stays readyToUse, as upstream has it; nobody may restore from it.
            ready=bool(seen.get("readyToUse")) and "deletionTimestamp" not in found["metadata"],
            handle=handle,
            cut_at=seen.get("creationTime", ""),
            text=seen.get("error", {}).get("message", ""),
        )

    async def delete(self, name: str) -> None:
        status, answer = await self._send("DELETE", self._path(name))
        assert status in (200, 202), answer

    async def abandon(self, name: str) -> None:
        words = ["annotate", "volumesnapshot", name, "-n", self._namespace, "snapbridge.dev/abandon=true"]
        await asyncio.to_thread(self._admin.kubectl, *words)

    async def forget(self, name: str) -> None:
        """Delete the kept content (its policy keeps the backend's snapshot)."""
        content = await self._content(name)
        assert content is not None
        path = f"{GROUP}/volumesnapshotcontents/{content['metadata']['name']}"
        status, answer = await self._send("DELETE", path)
        assert status in (200, 202), answer

    async def events(self, name: str) -> list[str]:
        """Reasons of the events about a snapshot."""
        path = f"/api/v1/namespaces/{self._namespace}/events"
        _, found = await self._send("GET", path)
        return [one["reason"] for one in found["items"] if one["involvedObject"]["name"] == name]

    async def _content(self, name: str) -> dict[str, Any] | None:
        for content_name in (f"snapcontent-{self._uids[name]}", f"{self._namespace}-{name}"):
            status, found = await self._send("GET", f"{GROUP}/volumesnapshotcontents/{content_name}")
            if status == 200:
                return dict(found)
        return None

    def _path(self, name: str = "") -> str:
        return f"{GROUP}/namespaces/{self._namespace}/volumesnapshots" + (f"/{name}" if name else "")

    async def _send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, answer = await asyncio.to_thread(self._admin.request, method, path, body)
        return status, json.loads(answer)


def metric(text: str, name: str) -> float:
    """The sum of a metric's samples in Prometheus' text; 0 when there is none."""
    found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for value in found)
