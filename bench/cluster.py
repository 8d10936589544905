"""The load: VolumeSnapshots made, watched until ready, deleted, watched until gone. One process, two connections."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence

import aiohttp

from tests.support.bed import controlplane

GROUP = "/apis/snapshot.storage.k8s.io/v1"
TIMEOUT_SECONDS = 240.0


class Cluster:
    """A client of the API server for the benchmark's own requests."""

    def __init__(self, plane: controlplane.ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._namespace = namespace
        self._path = f"{GROUP}/namespaces/{namespace}/volumesnapshots"

    def _session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self._plane.certificate_authority))
        connector = aiohttp.TCPConnector(limit=20, ssl=context)
        headers = {"Authorization": f"Bearer {self._plane.token}"}
        return aiohttp.ClientSession(self._plane.url, connector=connector, headers=headers)

    async def create(self, names: Sequence[str], claims: Sequence[str], snapshot_class: str) -> float:
        """Make all at once; the seconds until the last one is ready."""
        async with self._session() as session:
            version = await self._version(session)
            began = time.monotonic()
            async with asyncio.timeout(TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
                group.create_task(self._until_ready(session, set(names), version))
                for number, name in enumerate(names):
                    body = _snapshot(name, claims[number % len(claims)], snapshot_class)
                    group.create_task(_send(session, "POST", self._path, body))
            return time.monotonic() - began

    async def ask(self, names: Sequence[str], claims: Sequence[str], snapshot_class: str) -> None:
        """Make all at once while nobody works on them, and see each in the watch: this client's own share."""
        async with self._session() as session:
            version = await self._version(session)
            async with asyncio.timeout(TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
                group.create_task(self._until_seen(session, set(names), version))
                for number, name in enumerate(names):
                    body = _snapshot(name, claims[number % len(claims)], snapshot_class)
                    group.create_task(_send(session, "POST", self._path, body))

    async def delete(self, names: Sequence[str]) -> float:
        """Delete all at once; the seconds until the last one is gone."""
        async with self._session() as session:
            version = await self._version(session)
            began = time.monotonic()
            async with asyncio.timeout(TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
                group.create_task(self._until_gone(session, set(names), version))
                for name in names:
                    group.create_task(_send(session, "DELETE", f"{self._path}/{name}", None))
            return time.monotonic() - began

    async def _version(self, session: aiohttp.ClientSession) -> str:
        async with session.get(self._path, params={"limit": "1"}) as answer:
            answer.raise_for_status()
            return str((await answer.json())["metadata"]["resourceVersion"])

    async def _until_ready(self, session: aiohttp.ClientSession, wanted: set[str], version: str) -> None:
        async for event in self._watch(session, version):
            name = event["object"]["metadata"]["name"]
            if event["object"].get("status", {}).get("readyToUse"):
                wanted.discard(name)
            if not wanted:
                return

    async def _until_seen(self, session: aiohttp.ClientSession, wanted: set[str], version: str) -> None:
        async for event in self._watch(session, version):
            wanted.discard(event["object"]["metadata"]["name"])
            if not wanted:
                return

    async def _until_gone(self, session: aiohttp.ClientSession, wanted: set[str], version: str) -> None:
        async for event in self._watch(session, version):
            if event["type"] == "DELETED":
                wanted.discard(event["object"]["metadata"]["name"])
            if not wanted:
                return

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> AsyncIterator[dict]:  # type: ignore[type-arg]
        """Events for as long as they are wanted: a busy server ends a watch early, and the next one goes on there."""
        timeout = aiohttp.ClientTimeout(total=None)
        while True:
            params = {"watch": "1", "resourceVersion": version}
            async with session.get(self._path, params=params, timeout=timeout) as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch ended: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield event


async def _send(session: aiohttp.ClientSession, verb: str, path: str, body: object) -> None:
    async with session.request(verb, path, json=body) as answer:
        text = await answer.text()
        if answer.status >= 300:
            raise RuntimeError(f"{verb} {path}: {answer.status} {text[:300]}")


def _snapshot(name: str, claim: str, snapshot_class: str) -> dict[str, object]:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": claim}},
    }
