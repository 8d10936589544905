"""The cluster half on a real API server, with a driver half that keeps its snapshots in memory.

The driver half follows upstream's rules by what the content says; it writes with a client of its own, so that the
cluster half's requests can be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.connection import Connection, open_connection
from adapters.kubernetes.controller.half import ClusterHalf, Ways
from adapters.kubernetes.controller.turns import Rules
from adapters.kubernetes.facts import path
from adapters.kubernetes.problem import ApiError
from adapters.kubernetes.settings import Settings
from bridge.ports.loop import Loop, Turn
from bridge.service.loop import WorkLoop
from bridge.service.queue import KeyQueue
from tests.integration.kubernetes import definitions
from tests.integration.kubernetes.stand import (
    WallClock,
    class_object,
    is_at_rest,
    is_bound,
    put_there,
    volume_objects,
)
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import Crash

Object = dict[str, Any]
_numbers = itertools.count(1)


class WatchedClient(Client):
    """Notes every request; refuses those that `refuses` says; dies at a write if told to."""

    def __init__(self, way: Connection) -> None:
        super().__init__(way)
        self.asked: list[tuple[str, str]] = []
        self.refuses: Callable[[str, str], bool] = lambda _method, _path: False
        self.before: Callable[[str, str], Awaitable[None]] = _nothing
        """Awaited before a request is sent."""
        self._dies_at: int | None = None

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [(method, where) for method, where in self.asked if method != "GET"]

    def die_at(self, number: int) -> None:
        """Die when the server has got that write of those that follow, counted from 0."""
        self.asked.clear()
        self._dies_at = number

    async def _call(self, method: str, path: str, *more: Any, **named: Any) -> Object:
        number = len(self.writes)
        if self._dies_at is not None and method != "GET" and number >= self._dies_at:
            self.asked.append((method, path))
            if number == self._dies_at:
                await super()._call(method, path, *more, **named)
            raise Crash
        self.asked.append((method, path))
        await self.before(method, path)
        if self.refuses(method, path):
            raise ApiError(500, "InternalError", "told to fail")
        return await super()._call(method, path, *more, **named)


async def _nothing(_method: str, _path: str) -> None:
    return None


class DriverHalf:
    """Looks at a content when it changes, and does the next thing."""

    def __init__(self, client: Client, driver: str) -> None:
        self._client = client
        self._driver = driver
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        self.cuts: dict[str, str] = {}
        self.calls: list[str] = []
        self.writes = 0
        self.becomes_ready = True
        self.error = ""

    def on_content(self, _before: Object | None, after: Object | None) -> None:
        if after is not None and after["spec"]["driver"] == self._driver:
            self._changed.put_nowait(after["metadata"]["name"])

    async def run(self) -> None:
        while True:
            name = await self._changed.get()
            with contextlib.suppress(ApiError):
                while await self._step(await self._client.get(names.CONTENTS, "", name)):
                    pass

    def look(self, name: str) -> None:
        """Something has changed on the backend."""
        self._changed.put_nowait(name)

    async def _step(self, content: Object) -> bool:
        notes, status = content["metadata"].get("annotations") or {}, content.get("status") or {}
        to_go = content["metadata"].get("deletionTimestamp") and names.BEING_DELETED in notes
        handle = status.get("snapshotHandle") or path(content, "spec", "source", "snapshotHandle")
        if to_go and names.BEING_CREATED not in notes:
            return await self._let_go(content, handle)
        if self.error:
            told = {"readyToUse": False, "error": {"message": self.error, "time": "2026-11-21T12:00:00Z"}}
            return status.get("error") != told["error"] and await self._tell(content, told)
        if not status.get("snapshotHandle"):
            return await self._cut(content, handle)
        if names.BEING_CREATED in notes:
            return await self._note(content, {key: note for key, note in notes.items() if key != names.BEING_CREATED})
        if not status.get("readyToUse") and self.becomes_ready:
            return await self._tell(content, {**status, "readyToUse": True})
        return False

    async def _cut(self, content: Object, handle: str | None) -> bool:
        notes = content["metadata"].get("annotations") or {}
        if not handle and names.BEING_CREATED not in notes:
            return await self._note(content, {**notes, names.BEING_CREATED: "yes"})
        name = f"snapshot-{content['spec']['volumeSnapshotRef'].get('uid')}"
        if not handle:
            self.calls.append(f"create {name}")
            handle = self.cuts.setdefault(name, f"cut-{len(self.calls)}")
        told = {"snapshotHandle": handle, "creationTime": time.time_ns(), "restoreSize": 1 << 26}
        return await self._tell(content, {**told, "readyToUse": self.becomes_ready})

    async def _let_go(self, content: Object, handle: str | None) -> bool:
        if handle and content["spec"]["deletionPolicy"] == "Delete":
            self.calls.append(f"delete {handle}")
            self.cuts = {name: kept for name, kept in self.cuts.items() if kept != handle}
        finalizers = [name for name in content["metadata"]["finalizers"] if name != names.CONTENT_FINALIZER]
        return await self._put({**content, "metadata": {**content["metadata"], "finalizers": finalizers}}) and False

    async def _note(self, content: Object, notes: Object) -> bool:
        return await self._put({**content, "metadata": {**content["metadata"], "annotations": notes}})

    async def _tell(self, content: Object, status: Object) -> bool:
        return await self._put({**content, "status": status}, status=True)

    async def _put(self, body: Object, *, status: bool = False) -> bool:
        body["metadata"].pop("managedFields", None)
        try:
            await self._client.put(names.CONTENTS, body, status=status)
        except ApiError as error:
            if not error.conflict:
                raise
        self.writes += 1
        return True


class Stand:
    """Everything a test needs at hand."""

    def __init__(self, plane: ControlPlane, half: ClusterHalf, client: WatchedClient, driver: str) -> None:
        self.plane = plane
        self.half = half
        self.client = client
        self.driver = driver
        self.other: Client
        self.driver_half: DriverHalf
        self.queues: list[KeyQueue[str]] = []

    async def apply(self, *objects: Object) -> None:
        await asyncio.to_thread(put_there, self.plane.admin, *objects)

    async def prepare(self, namespace: str, *, policy: str = "Delete", name: str = "data") -> None:
        """A class of the namespace's name, and a claim that is bound to a volume; all of it is known then."""
        await self.apply(class_object(namespace, self.driver, policy), *volume_objects(namespace, name, self.driver))
        world = self.half.world
        await self.until(lambda: world.classes.get("", namespace) and is_bound(world, namespace, name))

    async def delete(self, resource: names.Resource, namespace: str, name: str) -> None:
        await self.other.delete(resource, namespace, name)

    async def patch(self, resource: names.Resource, namespace: str, name: str, body: Object) -> None:
        await self.other.merge_patch(resource, namespace, name, body)

    async def until(self, what: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until the caches show it; costs the API server nothing."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"it did not come about in {seconds:.0f} s"
            await asyncio.sleep(0.02)

    def snapshot(self, namespace: str, name: str = "one") -> Object:
        return self.half.world.snapshots.get(namespace, name) or {}

    def content(self, namespace: str, name: str = "one") -> Object | None:
        """The content that the snapshot names or would name."""
        found = self.snapshot(namespace, name)
        return self.half.world.content_of(found) if found else None

    def error(self, namespace: str) -> str:
        return str(path(self.snapshot(namespace), "status", "error", "message") or "")

    async def ready(self, namespace: str, name: str = "one") -> None:
        await self.until(lambda: path(self.snapshot(namespace, name), "status", "readyToUse"))

    async def gone(self, namespace: str, name: str = "one") -> None:
        await self.until(lambda: not self.snapshot(namespace, name))

    async def quiet(self) -> None:
        """Wait until nothing is left to do now."""
        await asyncio.sleep(0.1)
        await self.until(lambda: all(is_at_rest(queue) for queue in self.queues))

    async def until_event(self, namespace: str, reason: str) -> None:
        """Wait until it was told: that comes after the write that it tells of."""
        async with asyncio.timeout(30):
            while reason not in await self.events(namespace):  # noqa: ASYNC110 - an event is not announced
                await asyncio.sleep(0.05)

    async def events(self, namespace: str) -> list[str]:
        """The reasons, in the order of their making."""
        found = [event async for event in self.other.list(names.EVENTS, namespace)]
        found = [event for event in found if event["involvedObject"]["kind"] == "VolumeSnapshot"]
        return [event["reason"] for event in sorted(found, key=lambda it: int(it["metadata"]["resourceVersion"]))]

    def claim_is_held(self, namespace: str, name: str = "data") -> bool:
        claim = self.half.world.claims.get(namespace, name)
        return names.CLAIM_FINALIZER in (path(claim, "metadata", "finalizers") or ())


@contextlib.asynccontextmanager
async def running(
    plane: ControlPlane,
    *,
    driver: str = "",
    kubeconfig: Path | None = None,
    rules: Rules | None = None,
    driver_half: Callable[[Client, str], DriverHalf] = DriverHalf,
    **settings: Any,
) -> AsyncIterator[Stand]:
    """Both halves, until the block is left. The cluster serves others too: everything is of a driver of its own."""
    await asyncio.to_thread(definitions.install, plane)
    driver = driver or f"c{os.getpid()}-{next(_numbers)}.snapbridge.test"
    given = Settings(kubeconfig=str(kubeconfig or plane.kubeconfig), lease_check_seconds=0.5, **settings)
    clock = WallClock()

    queues: list[KeyQueue[str]] = []

    def make_queue(name: str, turn: Turn) -> Loop:
        made = WorkLoop(name, turn, clock, workers=4, retry=lambda failures: min(0.1 * failures, 1.0))
        queues.append(made.queue)
        return made

    client = WatchedClient(await open_connection(given))
    half = ClusterHalf(given, client, make_queue, clock, Ways(rules or Rules()))
    stand = Stand(plane, half, client, driver)
    stand.queues = queues
    stand.other = Client(await open_connection(Settings(kubeconfig=str(plane.kubeconfig))))
    stand.driver_half = driver_half(stand.other, driver)
    half.world.contents.listen(stand.driver_half.on_content)
    works: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"half": half.run, "driver": stand.driver_half.run}
    works |= {f"loop-{number}": loop.run for number, loop in enumerate(half.loops)}
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(), name=name) for name, work in works.items()]
            try:
                await stand.until(lambda: not half.ready())
                yield stand
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        await stand.other.close()
