"""The driver half and the service's worker on a real API server; the test plays the other half with plain writes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.connection import Connection, open_connection
from adapters.kubernetes.decide import driver_half
from adapters.kubernetes.problem import ApiError
from adapters.kubernetes.settings import Settings
from adapters.kubernetes.sidecar.half import DriverHalf, Ways
from bridge.model.outcome import Outcome
from bridge.model.secret import SecretRef
from bridge.model.snapshot import CutSnapshot
from bridge.ports.orchestrator import Intake
from bridge.ports.plugin import PluginSink
from bridge.service import work
from bridge.service.lane import Lane
from bridge.service.runner import Runner
from tests.integration.kubernetes import definitions
from tests.integration.kubernetes.stand import WallClock, is_at_rest
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import Crash, MemoryPlugin, Script, VirtualClock

Object = dict[str, Any]
_numbers = itertools.count(1)
_GONE = object()


class Plugin(MemoryPlugin):
    """Remembers what it was given."""

    def __init__(self, driver: str, *, not_ready: int = 0, faults: Mapping[int, str] | None = None) -> None:
        super().__init__(Script(dict(faults or {})), VirtualClock(), driver=driver, not_ready=not_ready)
        self.given: list[tuple[str, dict[str, str], dict[str, str]]] = []

    async def create_snapshot(
        self, *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Outcome[CutSnapshot]:
        self.given.append((name, dict(parameters), dict(secrets)))
        return await super().create_snapshot(
            name=name, volume_handle=volume_handle, parameters=parameters, secrets=secrets
        )

    def calls(self, what: str) -> int:
        """How often it was called so."""
        return sum(done.startswith(what) for done in self.script.done)


class Watched(Client):
    """Keeps every request; may be told to do something before one, or to die at one and stay dead."""

    def __init__(self, way: Connection) -> None:
        super().__init__(way)
        self.log: list[str] = []
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        self.dies_at: int | None = None
        """The number of the write at which it dies; `dies_after` it, or before."""
        self.dies_after = False
        self.dead = False

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        *,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        if self.dead:
            raise Crash
        if query is None:
            self.log.append(f"{method} {path.rpartition('/apis/snapshot.storage.k8s.io/v1/')[2]}")
        if self.before is not None:
            await self.before(method, path)
        if method == "GET" or self.dies_at is None:
            return await super()._call(method, path, body, content_type, query=query)
        self.dies_at -= 1
        if self.dies_at >= 0:
            return await super()._call(method, path, body, content_type, query=query)
        self.dead = True
        if self.dies_after:
            await super()._call(method, path, body, content_type, query=query)
        raise Crash

    def writes(self, *, events: bool = False) -> list[str]:
        """The writes so far, without those of events."""
        found = [line for line in self.log if not line.startswith("GET")]
        return [line for line in found if events or "/events" not in line]

    def reads(self) -> list[str]:
        """The live reads so far; lists and watches are none."""
        return [line for line in self.log if line.startswith("GET")]


class Secrets:
    """The `Secrets` port in front of the half's own: every reference is the cluster's."""

    def __init__(self, half: DriverHalf) -> None:
        self._half = half

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        return await self._half.secrets.resolve(ref)


class Stand:
    """Everything a test needs at hand. `other` is the other half: the test's own way to the API server."""

    def __init__(self, half: DriverHalf, client: Watched, other: Client, plugin: Plugin, runner: Runner) -> None:
        self.half = half
        self.client = client
        self.other = other
        self.plugin = plugin
        self.runner = runner

    async def klass(self, name: str, policy: str = "Delete", **parameters: str) -> None:
        """A class of the driver, which the half has heard of: a content that names it may come right after."""
        kind = {"apiVersion": names.API_VERSION, "kind": "VolumeSnapshotClass"}
        body = {**kind, "metadata": {"name": name}, "driver": self.plugin.driver, "deletionPolicy": policy}
        await self.other.create(names.CLASSES, "", body | ({"parameters": parameters} if parameters else {}))
        await self.until(lambda: self.half.world.classes.get("", name))

    async def content(self, name: str, *, klass: str = "", **changes: Any) -> Object:
        """A content as a cluster half makes it. `static` is a handle, `bound=False` leaves the uid out."""
        reference = {"namespace": "apps", "name": name, "uid": f"uid-of-{name}"}
        if not changes.pop("bound", True):
            del reference["uid"]
        static = changes.pop("static", "")
        spec: Object = {
            "driver": changes.pop("driver", self.plugin.driver),
            "deletionPolicy": changes.pop("policy", "Delete"),
            "source": {"snapshotHandle": static} if static else {"volumeHandle": f"vol-{name}"},
            "volumeSnapshotRef": reference,
        }
        if klass:
            spec["volumeSnapshotClassName"] = klass
        metadata = {"name": name, "finalizers": [names.CONTENT_FINALIZER], **changes}
        kind = {"apiVersion": names.API_VERSION, "kind": "VolumeSnapshotContent"}
        return await self.other.create(names.CONTENTS, "", {**kind, "metadata": metadata, "spec": spec})

    async def change(self, name: str, body: Object, *, status: bool = False) -> Object:
        """A write of the other half's, or of an owner."""
        return await self.other.merge_patch(names.CONTENTS, "", name, body, status=status)

    async def note(self, name: str, **notes: str | None) -> None:
        """Set annotations of a content."""
        await self.change(name, {"metadata": {"annotations": notes}})

    async def let_go(self, name: str) -> None:
        """As a cluster half does when the VolumeSnapshot goes."""
        await self.note(name, **{names.BEING_DELETED: "yes"})
        await self.delete(name)

    async def delete(self, name: str) -> None:
        """Delete a content, as anybody may."""
        await self.other.delete(names.CONTENTS, "", name)

    async def live(self, name: str) -> Object | None:
        """The content as the API server has it."""
        try:
            return await self.other.get(names.CONTENTS, "", name)
        except ApiError as error:
            if not error.missing:
                raise
            return None

    async def until(self, what: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until the half's caches (or anything in memory) show it."""
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                raise AssertionError(f"not in {seconds} s; log: {self.client.log}, calls: {self.plugin.script.done}")
            await asyncio.sleep(0.01)

    def known(self, name: str) -> Object:
        """The content in the half's cache; empty when it is not there."""
        return self.half.world.contents.get("", name) or {}

    def status(self, name: str) -> Object:
        """Its status, as cached."""
        return self.known(name).get("status") or {}

    def error(self, name: str) -> str:
        """Its error text."""
        return str((self.status(name).get("error") or {}).get("message") or "")

    async def until_ready(self, name: str) -> Object:
        await self.until(lambda: self.status(name).get("readyToUse"))
        await self.settle()
        return self.known(name)

    async def until_gone(self, name: str) -> None:
        await self.until(lambda: not self.known(name))
        assert await self.live(name) is None

    async def settle(self) -> None:
        """Wait until the worker has nothing to do now."""
        await asyncio.sleep(0.15)
        await self.until(lambda: is_at_rest(self.runner.queue))

    async def until_going(self, name: str) -> None:
        """Wait until the half knows that a content is to go."""
        await self.until(lambda: "deletionTimestamp" in self.known(name)["metadata"])

    async def until_event(self, name: str, reason: str = "") -> list[Object]:
        """The events about a content once there are some (the last of them for this reason): told after a status."""
        async with asyncio.timeout(30):
            while True:
                found = await self.events(name)
                if found and reason in ("", found[-1]["reason"]):
                    return found
                await asyncio.sleep(0.05)

    async def events(self, name: str) -> list[Object]:
        """The events about a content, oldest first."""
        found = [
            item
            async for item in self.other.list(names.EVENTS, "default")
            if (item["involvedObject"]["kind"], item["involvedObject"]["name"]) == ("VolumeSnapshotContent", name)
        ]
        return sorted(found, key=lambda item: int(item["metadata"]["resourceVersion"]))


@contextlib.asynccontextmanager
async def running(
    plane: ControlPlane,
    plugin: Plugin | None = None,
    *,
    client: Watched | None = None,
    ready: bool = True,
    **ways: Any,
) -> AsyncIterator[Stand]:
    """The half and its worker, until the block is left. It may be started again over the same `plugin`."""
    await asyncio.to_thread(definitions.install, plane)
    plugin = plugin or Plugin(new_driver())
    given = Settings(kubeconfig=str(plane.kubeconfig))
    client = client or Watched(await open_connection(given))
    other = Client(await open_connection(given))
    clock = WallClock()
    half = DriverHalf(plugin.driver, client, cluster="east", clock=clock, ways=Ways(**ways))
    lane = Lane(half, half.requests, half.ledger, Secrets(half), half.fence)
    runner = Runner({"east": lane}, work.Tools(plugin, clock, f"writer-{time.monotonic_ns()}"), told=_told, workers=4)
    try:
        async with asyncio.TaskGroup() as group:
            run = half.run(runner.wake, cast("Intake", None), cast("PluginSink", None))
            tasks = [group.create_task(run, name="half"), group.create_task(runner.run(), name="runner")]
            stand = Stand(half, client, other, plugin, runner)
            try:
                await stand.until(lambda: half.world.synced and not (ready and half.ready()))
                yield stand
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        await other.close()


async def mortal(plane: ControlPlane, at: int, *, after: bool) -> Watched:
    """A client that dies at its write number `at` (0: the first)."""
    made = Watched(await open_connection(Settings(kubeconfig=str(plane.kubeconfig))))
    made.dies_at, made.dies_after = at, after
    return made


def new_driver() -> str:
    """A driver of its own, as the cluster is shared."""
    return f"half-{time.monotonic_ns():x}-{next(_numbers)}.test"


def annotations(content: Object) -> set[str]:
    """The names of a content's annotations."""
    return set(content["metadata"].get("annotations") or {})


def held(content: Object) -> bool:
    """Whether the driver half holds it still."""
    return driver_half.is_held(content)


async def _told(*_: object) -> None:
    return None
