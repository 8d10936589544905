"""The process dies before or after each of its writes; the next one finishes. One snapshot or none, never two."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.connection import Connection
from tests.integration.kubernetes import stand as stands
from tests.integration.kubernetes.mortal import Mortal
from tests.integration.kubernetes.test_snapshots import CLAIM, of
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import Crash, MemoryPlugin

CREATE_WRITES = 7
DELETE_WRITES = 3
DYING_SECONDS = 60
"""Nobody waits for all of it: the death ends the wait."""


async def life(
    plane: ControlPlane, plugin: MemoryPlugin, at: int, after: bool, *steps: Any, begun: asyncio.Event | None = None
) -> bool:
    """Run until the steps are through or the process dies; whether it died. Writes count from `begun` on."""

    def mortal(way: Connection) -> Client:
        return Mortal(way, at=at, after=after, begun=begun)

    try:
        async with stands.running(plane, plugin=plugin, workers=1, client_type=mortal) as stand:
            for step in steps:
                await step(stand)
    except BaseExceptionGroup as group:
        if group.subgroup(Crash) is None:
            raise
        return True
    return False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(CREATE_WRITES))
async def test_death_at_a_write_of_the_create(
    control_plane: ControlPlane, namespace: str, at: int, after: bool
) -> None:
    plugin = stands.memory()

    async def ask(stand: stands.Stand) -> None:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await asyncio.sleep(DYING_SECONDS)

    async def check(stand: stands.Stand) -> None:
        made = await stand.until_ready(namespace, "one")
        await stand.settle()
        assert plugin.handles() == {"snap-1"}
        contents = [item for item in stand.cluster.world.contents.all() if _of(item, namespace)]
        assert [item["metadata"]["name"] for item in contents] == [names.content_name(made["metadata"]["uid"])]
        claims = stand.cluster.world.claims
        await stand.until_known(lambda: CLAIM not in of(claims.get(namespace, "data"), "metadata", "finalizers"))
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await _nothing_is_left(stand, namespace)

    assert await life(control_plane, plugin, at, after, ask)
    assert not await life(control_plane, plugin, 10**6, False, check)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(DELETE_WRITES))
async def test_death_at_a_write_of_the_delete(
    control_plane: ControlPlane, namespace: str, at: int, after: bool
) -> None:
    plugin, begun = stands.memory(), asyncio.Event()

    async def ask(stand: stands.Stand) -> None:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_ready(namespace, "one")
        await stand.settle()
        claims = stand.cluster.world.claims
        await stand.until_known(lambda: CLAIM not in of(claims.get(namespace, "data"), "metadata", "finalizers"))
        begun.set()
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await asyncio.sleep(DYING_SECONDS)

    async def check(stand: stands.Stand) -> None:
        await _nothing_is_left(stand, namespace)

    assert await life(control_plane, plugin, at, after, ask, begun=begun)
    assert not await life(control_plane, plugin, 10**6, False, check)


async def _nothing_is_left(stand: stands.Stand, namespace: str) -> None:
    await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
    await stand.settle()
    assert stand.plugin.handles() == set()
    found = await asyncio.to_thread(stand.plane.admin.get, "volumesnapshotcontents")
    assert [item for item in found["items"] if _of(item, namespace)] == []
    assert CLAIM not in of(await stand.get("pvc", "data", namespace), "metadata", "finalizers")


def _of(content: dict[str, Any], namespace: str) -> bool:
    return bool(content["spec"]["volumeSnapshotRef"]["namespace"] == namespace)
