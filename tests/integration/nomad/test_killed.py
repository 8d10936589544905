"""kill -9 at every request that leaves the service and at every commit of its ledger, before the effect and after it:
creates, restores and deletes, over the plugin's socket and through Nomad's API.

Whatever was struck, the next process ends with one snapshot or volume on the backend for each that was asked for, and
with none for each that was deleted; nothing is doubled, leaked, lost or left half registered.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bridge.model.failure import NotFoundError
from bridge.model.operation import Operation, OperationState
from bridge.model.view import RestoreDraft, SnapshotView
from bridge.ports.identity import Caller
from bridge.ports.orchestrator import SnapshotDraft
from tests.integration.nomad.mortal import Points, Process, Stand, demand, standing
from tests.support import serve

ADMIN = Caller("admin")
CALLS = {
    "socket": ("CreateSnapshot", "DeleteSnapshot", "CreateVolume", "DeleteVolume"),
    "api": (
        "PUT /v1/volumes/snapshot",
        "DELETE /v1/volumes/snapshot",
        "PUT /v1/volume/csi/snapbridge-new-restore",
        "DELETE /v1/volume/csi/snapbridge-new-restore",
    ),
}
"""The requests that make and delete snapshots and volumes, by route."""


@pytest.fixture(params=["socket", "api"])
async def stand(request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    async with standing(request.param) as made:
        yield made


async def created(process: Process, name: str) -> SnapshotView:
    """Asked for with a key, as a careful caller does, and so asked for again where the first ask was not answered."""
    draft = SnapshotDraft(cluster="east", namespace="default", name=name, volume="data")
    view, operation = await process.desk.create_snapshot(ADMIN, draft, idempotency_key=name)
    ended = await process.done(operation)
    assert ended.state is OperationState.DONE, ended
    return await process.desk.snapshot(ADMIN, view.key.uid)


async def deleted(process: Process, ref: str) -> None:
    """Asked for until it is gone."""
    with contextlib.suppress(NotFoundError):
        ended = await process.done(await process.desk.delete_snapshot(ADMIN, ref))
        assert ended.state is OperationState.DONE, ended


async def unwanted(process: Process, name: str) -> None:
    """Asked for, and deleted before it can be ready."""
    draft = SnapshotDraft(cluster="east", namespace="default", name=name, volume="data")
    ref = f"east/default/{name}"
    with contextlib.suppress(NotFoundError):
        await process.desk.create_snapshot(ADMIN, draft, idempotency_key=name)
        await process.desk.delete_snapshot(ADMIN, ref)
    await deleted(process, ref)


async def restored(process: Process, uid: str, draft: RestoreDraft) -> Operation:
    """To its end, whatever that is."""
    return await process.done(await process.desk.restore_snapshot(ADMIN, uid, draft, idempotency_key=draft.name))


async def at_rest(stand: Stand, *uids: str) -> None:
    """Nothing goes on, and these snapshots only are on record."""
    assert stand.process is not None
    ledger = stand.process.service.ledger
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while await ledger.operations(running=True):  # noqa: ASYNC110 - read from the book
                await asyncio.sleep(0.02)
    assert await ledger.operations(running=True) == []
    assert [key.uid async for key in ledger.keys()] == list(uids)  # noqa: SIM118


async def test_a_create_and_a_delete_killed_at_every_point(stand: Stand) -> None:
    cut, remove, *_ = CALLS[stand.route]
    creates, deletes = Points(), Points()
    while not (creates.over and deletes.over):
        view, struck = await stand.life(creates, created)
        assert view.status.ready, struck
        assert await stand.snapshots() == {view.status.handle}, struck
        # It has to go before the next one, so each of these deletes is killed at a point of its own.
        _, ended = await stand.life(deletes, lambda process, _, uid=view.key.uid: deleted(process, uid))  # type: ignore[misc]
        assert await stand.snapshots() == set(), (struck, ended)
    demand(creates, cut)
    demand(deletes, remove)
    await at_rest(stand)


async def test_a_create_that_is_withdrawn_at_once_killed_at_every_point_leaves_nothing() -> None:
    async with standing("socket") as stand:
        async for _, struck in stand.every_point(unwanted):
            assert await stand.snapshots() == set(), struck
        await at_rest(stand)


async def test_a_restore_killed_at_every_point_makes_one_volume_with_one_name(stand: Stand) -> None:
    view = await created(await stand.start(), "source")
    names, before = {"data"}, await stand.volumes()

    async def story(process: Process, name: str) -> Operation:
        names.add(name)
        return await restored(process, view.key.uid, RestoreDraft(name))

    async for ended, struck in stand.every_point(story, CALLS[stand.route][2], "PUT /v1/volume/csi/*"):
        assert ended.state is OperationState.DONE, (struck, ended)
        registered = stand.registered()
        assert set(registered) == names, struck
        assert set(registered.values()) == await stand.volumes(), struck
        assert len(await stand.volumes() - before) == len(names) - 1, struck
    assert await stand.snapshots() == {view.status.handle}
    await at_rest(stand, view.key.uid)


async def test_a_restore_that_cannot_be_registered_killed_at_every_point_leaves_no_volume(stand: Stand) -> None:
    """Its volume is made, and deleted again: the id that it was to have cannot be reached."""
    view = await created(await stand.start(), "source")
    before = await stand.volumes()

    async def story(process: Process, name: str) -> Operation:
        return await restored(process, view.key.uid, RestoreDraft(f"{name}/sub"))

    async for ended, struck in stand.every_point(story, *CALLS[stand.route][2:]):
        assert ended.state is OperationState.FAILED, (struck, ended)
        assert await stand.volumes() == before, struck
        assert set(stand.registered()) == {"data"}, struck
    await at_rest(stand, view.key.uid)


class Killer:
    """Sends SIGKILL to a process at one of its requests."""

    def __init__(self, pid: int, number: int, moment: str) -> None:
        self.killed = False
        self._pid, self._at, self._count = pid, (number, moment), 0

    def leaves(self, what: str) -> int | None:
        number, self._count = self._count, self._count + 1
        return None if self._strikes(number, "before") else number

    def arrives(self, point: object) -> bool:
        return not self._strikes(point, "after")

    def _strikes(self, number: object, moment: str) -> bool:
        if not self.killed and self._at == (number, moment):
            self.killed = True
            os.kill(self._pid, signal.SIGKILL)
        return self.killed


async def test_a_process_killed_at_one_of_its_requests_makes_one_snapshot() -> None:
    """Which one is drawn: reading the volume twice, looking for its registration, cutting."""
    at = random.randrange(4), random.choice(("before", "after"))
    async with standing("api") as stand:
        cluster = {"name": "east", "kind": "nomad", "address": stand.agent.url, "route": "api", "plugin_seconds": 60}
        service = serve.service(clusters=[{**cluster, "hooks": {"enabled": False}}], plugins=[])

        async def asked() -> dict[str, Any]:
            body, key = {"name": "one", "volume": "data"}, {"Idempotency-Key": "one"}
            await until(lambda: service.get("/v1/plugins")["items"])
            status, answer = await asyncio.to_thread(service.request, "POST", "/v1/snapshots", body, key)
            assert status in (200, 202), answer
            row: dict[str, Any] = answer["snapshot"]
            await until(lambda: service.get(f"/v1/snapshots/{row['uid']}")["ready"])
            return row

        try:
            await asyncio.to_thread(service.start)
            await until(lambda: service.get("/v1/plugins")["items"])
            stand.agent.faults.wire = killer = Killer(service.process.pid, *at)
            with contextlib.suppress(OSError, http.client.HTTPException):
                await asked()
            assert killer.killed, at
            stand.agent.faults.wire = None
            await asyncio.to_thread(service.kill)
            await asyncio.to_thread(service.start)
            row = await asked()
            assert len(await stand.snapshots()) == 1, at
            assert len((await asyncio.to_thread(service.get, "/v1/snapshots"))["items"]) == 1, at
            await asyncio.to_thread(service.request, "DELETE", f"/v1/snapshots/{row['uid']}")
            await until(lambda: not service.get("/v1/snapshots")["items"])
            assert await stand.snapshots() == set(), at
        finally:
            stand.agent.faults.wire = None
            await asyncio.to_thread(service.process.stop)


async def until(holds: Callable[[], object]) -> None:
    """Ask in a thread, until it is so."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
