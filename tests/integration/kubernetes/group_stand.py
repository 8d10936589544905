"""Groups on the stand: objects to apply, a client that counts its writes, and things to wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import aiohttp

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.connection import Connection
from adapters.kubernetes.groups import names as own
from adapters.kubernetes.names import Resource
from adapters.kubernetes.problem import ApiError
from bridge.decide.group import NEEDED
from tests.integration.kubernetes import stand as stands
from tests.integration.kubernetes.stand import Object, Stand
from tests.support.memory import MemoryPlugin

API = "groupsnapshot.storage.k8s.io/v1"
HELD = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection"
IN_GROUP = "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"
CLAIM = "snapshot.storage.kubernetes.io/pvc-as-source-protection"


class CountingClient(Client):
    """Counts writes by verb, kind and sub-resource; not those that met a newer object, which are made again."""

    def __init__(self, connection: Connection, *, timeout_seconds: float = 30.0) -> None:
        super().__init__(connection, timeout_seconds=timeout_seconds)
        self.writes: Counter[tuple[str, str]] = Counter()

    async def create(self, resource: Resource, namespace: str, body: Any, *, dry_run: bool = False) -> Object:
        made = await super().create(resource, namespace, body, dry_run=dry_run)
        self.writes["create", resource.plural] += 1
        return made

    async def put(self, resource: Resource, body: Any, *, status: bool = False) -> Object:
        made = await super().put(resource, body, status=status)
        self.writes["status" if status else "put", resource.plural] += 1
        return made

    async def merge_patch(self, resource: Resource, namespace: str, name: str, body: Any, **more: Any) -> Object:
        made = await super().merge_patch(resource, namespace, name, body, **more)
        self.writes["patch", resource.plural] += 1
        return made

    async def delete(self, resource: Resource, namespace: str, name: str, **more: Any) -> Object:
        made = await super().delete(resource, namespace, name, **more)
        self.writes["delete", resource.plural] += 1
        return made


class DeafClient(Client):
    """Hears nothing more of one kind once it is told so: as with a watch that lags behind the others."""

    _deaf_to: Resource | None = None

    def stop_hearing(self, resource: Resource) -> None:
        """From now on its events are held back."""
        self._deaf_to = resource

    @contextlib.asynccontextmanager
    async def stream(
        self, resource: Resource, query: Mapping[str, str], *, idle_seconds: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        async with super().stream(resource, query, idle_seconds=idle_seconds) as reader:
            yield cast("aiohttp.StreamReader", _Held(reader, lambda: self._deaf_to is resource))


class _Held:
    """A stream that gives nothing while `held`."""

    def __init__(self, reader: aiohttp.StreamReader, held: Callable[[], bool]) -> None:
        self._reader = reader
        self._held = held

    async def iter_any(self) -> AsyncIterator[bytes]:
        async for chunk in self._reader.iter_any():
            if self._held():
                await asyncio.Event().wait()
            yield chunk


def able(*, not_ready: int = 0, **faults: str) -> MemoryPlugin:
    """A plugin that can make groups."""
    plugin = stands.memory(not_ready=not_ready, **faults)
    plugin.capabilities.add(NEEDED)
    return plugin


def klass(name: str, driver: str, policy: str = "Delete", **more: Any) -> Object:
    """A VolumeGroupSnapshotClass; `default=True` marks it."""
    default = more.pop("default", False)
    mark = {"groupsnapshot.storage.kubernetes.io/is-default-class": "true"} if default else {}
    metadata = {"name": name, "annotations": mark}
    return {
        "apiVersion": API, "kind": "VolumeGroupSnapshotClass", "metadata": metadata,
        "driver": driver, "deletionPolicy": policy, **more,
    }  # fmt: skip


def group(namespace: str, name: str, class_name: str = "", *, content: str = "", **selector: Any) -> Object:
    """A VolumeGroupSnapshot; `matchLabels`, `matchExpressions` or `content` choose its source."""
    source: Object = {"volumeGroupSnapshotContentName": content} if content else {"selector": selector}
    spec: Object = {"source": source}
    if class_name:
        spec["volumeGroupSnapshotClassName"] = class_name
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API, "kind": "VolumeGroupSnapshot", "metadata": metadata, "spec": spec}


def static_content(name: str, driver: str, to: tuple[str, str], policy: str = "Delete", **handles: Any) -> Object:
    """A VolumeGroupSnapshotContent for a group that exists; `to` is the namespace and name it is meant for."""
    return {
        "apiVersion": API,
        "kind": "VolumeGroupSnapshotContent",
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "deletionPolicy": policy,
            "source": {
                "groupSnapshotHandles": {
                    "volumeGroupSnapshotHandle": handles["handle"],
                    "volumeSnapshotHandles": list(handles["members"]),
                }
            },
            "volumeGroupSnapshotRef": {"namespace": to[0], "name": to[1]},
        },
    }


KINDS = {
    one.kind: one
    for one in (
        names.SNAPSHOTS, names.CONTENTS, names.CLASSES, names.CLAIMS, names.VOLUMES, names.SECRETS,
        own.GROUPS, own.CONTENTS, own.CLASSES,
    )
}  # fmt: skip


async def create(stand: Stand, *objects: Object) -> None:
    """Create objects by plain HTTP (kubectl takes longer to start than all of this), each known when the next comes:
    a watch for each kind tells of them."""
    caches = {**stand.cluster.world.caches, **stand.cluster.groups.world.caches}
    for item in objects:
        kind, place, name = KINDS[item["kind"]], item["metadata"].get("namespace", ""), item["metadata"]["name"]
        await Client.create(stand.cluster.client, kind, place, item)
        if kind in caches:
            await stand.until_known(lambda: caches[kind].version(place, name))  # noqa: B023 - awaited at once


async def delete(stand: Stand, resource: Resource, namespace: str, name: str, *, wait: bool = True) -> None:
    """Delete an object, and wait until the API server has let it go."""
    await Client.delete(stand.cluster.client, resource, namespace, name)

    async def gone() -> bool:
        return await get(stand, resource, namespace, name) is None

    if wait:
        await stand.until(gone, 30.0)


async def get(stand: Stand, resource: Resource, namespace: str, name: str) -> Object | None:
    """The object as the API server has it, or None."""
    try:
        return await stand.cluster.client.get(resource, namespace, name)
    except ApiError as error:
        if error.missing:
            return None
        raise


async def keep(stand: Stand, resource: Resource, name: str, policy: str) -> None:
    """Change a content's policy, as its owner would."""
    await Client.merge_patch(stand.cluster.client, resource, "", name, {"spec": {"deletionPolicy": policy}})


async def volumes(stand: Stand, namespace: str, *claims: str, driver: str = "", **labels: str) -> None:
    """Bound claims with these labels."""
    found = []
    for name in claims:
        volume, claim = stands.volume_objects(namespace, name, driver or stand.plugin.driver)
        claim["metadata"]["labels"] = labels
        found += [volume, claim]
    await create(stand, *found)
    await stand.until_known(lambda: all(stands.is_bound(stand.cluster.world, namespace, name) for name in claims))


def known(stand: Stand, namespace: str, name: str) -> Object | None:
    """The group as the caches have it."""
    return stand.cluster.groups.world.groups.get(namespace, name)


async def until_ready(stand: Stand, namespace: str, name: str) -> Object:
    await stand.until_known(lambda: of(known(stand, namespace, name), "status", "readyToUse") is True)
    await stand.settle()
    found = known(stand, namespace, name)
    assert found is not None
    return found


async def until_error(stand: Stand, namespace: str, name: str) -> str:
    """What the status complains of."""
    await stand.until_known(lambda: of(known(stand, namespace, name), "status", "error"))
    return str(of(known(stand, namespace, name), "status", "error", "message"))


def members(stand: Stand, group_object: Mapping[str, Any]) -> list[Object]:
    """The member VolumeSnapshots, by source claim."""
    found = stand.cluster.groups.world.members(group_object["metadata"]["uid"])
    return sorted(found, key=lambda one: str(of(one, "spec", "source", "persistentVolumeClaimName")))


def content_of(stand: Stand, group_object: Mapping[str, Any]) -> Object:
    found = stand.cluster.groups.world.content_of(dict(group_object))
    assert found is not None
    return found


def of(item: Mapping[str, Any] | None, *fields: str) -> Any:
    value: Any = item
    for field in fields:
        value = (value or {}).get(field)
    return value


async def until_told(stand: Stand, namespace: str, name: str, wanted: list[str]) -> None:
    """Wait until exactly these are the reasons: an event comes after the status that it tells of."""

    async def told() -> bool:
        return await reasons(stand, namespace, name) == wanted

    await stand.until(told)


async def reasons(stand: Stand, namespace: str, name: str) -> list[str]:
    """The reasons of the events about an object, oldest first."""
    found = stand.cluster.client.list(names.EVENTS, namespace, field_selector=f"involvedObject.name={name}")
    return [item["reason"] async for item in found]
