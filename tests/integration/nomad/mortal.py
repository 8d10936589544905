"""The whole service, but for its API, in this process, over the fake agent and a real localdisk. It can be killed at
any point of a life: at a request that leaves it (HTTP to Nomad, gRPC to the plugin) or at a commit of its ledger.

The kill is as hard as -9: from that moment on nothing of the old process takes effect, whatever its `finally` blocks
try, and the next one has the ledger's file only. It strikes before the effect, or after it and before its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import grpc
import grpc.aio
import yaml

from adapters.catalog import Catalog
from adapters.localdisk import server
from adapters.localdisk import settings as localdisk_settings
from adapters.nomad.client import Client
from bridge.app import config, wiring
from bridge.app.clock import WallClock
from bridge.csi.registry import Registry
from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from bridge.ledger.writer import Writer
from bridge.model.operation import Operation, OperationState
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.pb.csi.v1 import csi_pb2_grpc
from bridge.service.desk import FrontDesk
from tests.integration.nomad.doubles import quick, until
from tests.support.bed import paths
from tests.support.faultproxy import FaultProxy
from tests.support.faultproxy.faults import Fault, Passage
from tests.support.faultproxy.wire import Reply
from tests.support.memory import Crash
from tests.support.nomad.agent import FakeNomad

DRIVER = localdisk_settings.DEFAULT_NAME
PLUGIN = "disk"
_PATIENCE_SECONDS = 60.0
T = TypeVar("T")


class Point(NamedTuple):
    """One moment at which something leaves the process: what, and the how manyth of its kind in the story."""

    what: str
    nth: int

    @property
    def mere(self) -> bool:
        """After it is before what comes next, as nothing of the process stays: it takes no effect elsewhere."""
        return self.what == "commit" or self.what.startswith("GET ")


Strike = tuple[Point, str]
"""A point, and "before" or "after"."""
_OWN_WORDS = re.compile(r"\bn\d+\b|\b[0-9a-f]{8}-[0-9a-f-]+")
_THOROUGH = int(os.environ.get("SNAPBRIDGE_EXAMPLES", "0")) >= 1000


class Death:
    """One process's: when it comes, and that it stays dead."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        """What left since it was armed."""
        self.came = asyncio.Event()
        self._at: Strike | None = None

    def arm(self, at: Strike | None) -> None:
        """A story begins; die at this point of it."""
        self.points.clear()
        self._at = at

    def leaves(self, what: str) -> Point | None:
        """Something is about to take effect; None for what a dead process tries. Names of one life are left out."""
        if self.came.is_set():
            return None
        what = _OWN_WORDS.sub("*", what)
        point = Point(what, sum(one.what == what for one in self.points))
        self.points.append(point)
        if self._at == (point, "before"):
            self.came.set()
            return None
        return point

    def arrives(self, point: object) -> bool:
        """It has taken effect: whether the process lives to hear of it."""
        if self._at == (point, "after"):
            self.came.set()
        return not self.came.is_set()


class Points:
    """The points of a story, learnt as it is told again and again, and which of them are still to be struck.

    Before each, and after those that others carry out for us (with SNAPBRIDGE_EXAMPLES=1000 or more: after all).
    """

    def __init__(self) -> None:
        self.struck: list[Strike] = []
        self.missed: list[Strike] = []
        """Those that a story did not come to again: what a process asks depends on what it knows already."""
        self._known: set[Point] = set()
        self._left: list[Strike] = []
        self._told = False

    @property
    def over(self) -> bool:
        """Whether every one was struck."""
        return self._told and not self._left

    def next(self) -> Strike | None:
        """Where to strike now; None: nowhere, the story is told to learn its points."""
        return self._left[0] if self._left else None

    def told(self, at: Strike | None, seen: Sequence[Point], *, struck: bool) -> None:
        """A story was told, with this strike in mind."""
        self._told = True
        if at is not None and self._left:
            self._left.pop(0)
            (self.struck if struck else self.missed).append(at)
        for point in dict.fromkeys(seen):
            if point not in self._known:
                self._known.add(point)
                self._left.append((point, "before"))
                if not point.mere or _THOROUGH:
                    self._left.append((point, "after"))


class MortalWriter:
    """The ledger's writer; each commit is a point. Nothing of a dead process is written."""

    def __init__(self, inner: Writer, death: Death) -> None:
        self._inner = inner
        self._death = death

    @property
    def commits(self) -> int:
        return self._inner.commits

    async def run(self, work: Callable[[Any], T]) -> T:
        point = self._death.leaves("commit")
        if point is None:
            raise Crash
        try:
            return await self._inner.run(work)
        finally:
            if not self._death.arrives(point):
                raise Crash


def mortal_calls(death: Death) -> Fault:
    """Each gRPC call is a point."""

    async def act(passage: Passage) -> Reply:
        point = death.leaves(passage.call.method)
        reply = await passage.forward(None) if point is not None else None
        if reply is None or not death.arrives(point):
            return Reply(grpc.StatusCode.UNAVAILABLE, "the caller is dead")
        return reply

    return Fault("mortal", act)


@dataclasses.dataclass
class Process:
    """One life of the service."""

    service: wiring.Service
    death: Death
    stack: contextlib.AsyncExitStack
    tasks: list[asyncio.Task[None]]

    @property
    def desk(self) -> FrontDesk:
        return self.service.desk

    async def end(self) -> None:
        """Nothing of it is left: no task, no connection, no memory."""
        self.death.came.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.stack.aclose()

    async def done(self, operation: Operation) -> Operation:
        """Follow it to its end, and the service until it has nothing left to do."""
        while operation.state is OperationState.RUNNING:
            operation = await self.service.operations.wait(operation.id, operation.version, 30.0)
        await until(lambda: self.service.runner.queue.idle, "the service is at rest")
        return operation


class Stand:
    """The agent, the plugin and its backend, which outlive every process; and the process that lives now."""

    def __init__(self, agent: FakeNomad, proxy: FaultProxy, controller: Any, settings: config.Config) -> None:
        self.route: str = cast(Any, settings.clusters[0].settings).route
        self.agent = agent
        self.proxy = proxy
        self.settings = settings
        self.process: Process | None = None
        self._controller = controller
        self._number = 0

    def name(self) -> str:
        """One that no other life has used."""
        self._number += 1
        return f"n{self._number}"

    async def start(self, *, found: bool = True) -> Process:
        """A new process: it reads the ledger's file, and finds the agent anew; the plugin too, if `found`."""
        death, clock = Death(), WallClock()
        self.agent.faults.wire = death
        self.proxy.clear()
        self.proxy.script("*", mortal_calls(death), times=None)
        stack = contextlib.AsyncExitStack()
        ledger = await stack.enter_async_context(open_ledger(self.settings.service.ledger_url, clock))
        mortal = SqlLedger(
            cast(Any, MortalWriter(ledger._writer, death)), ledger._reader, ledger._revisions, clock, ()
        )
        registry = Registry(self.settings.csi.settings(), clock)
        service = wiring.Service(self.settings, mortal, registry, clock, lambda: "")
        await service.join(Catalog())
        service.assemble()
        await service.operations.load()
        work = service.workers()
        process = self.process = Process(service, death, stack, [])
        # The plugin first: a saga that does not find it waits five seconds.
        for name in sorted(work, key=lambda name: name != "registry" and not name.startswith("cluster-")):
            if name == "runner" and found:
                await until(lambda: registry.view(DRIVER).healthy, "the plugin is known")
            process.tasks.append(asyncio.create_task(cast(Any, work[name])(), name=name))
        return process

    async def life(self, points: Points, story: Callable[[Process, str], Awaitable[T]]) -> tuple[T, str]:
        """Tell a story in a process that dies at the next of these points, then again in the process after it.

        Returns what the story told at its end, and what was struck; empty when it did not come to that point.
        """
        process = self.process or await self.start()
        name, at = self.name(), points.next()
        process.death.arm(at)
        telling = asyncio.ensure_future(story(process, name))
        dying = asyncio.ensure_future(process.death.came.wait())
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await asyncio.wait({telling, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        struck = process.death.came.is_set()
        points.told(at, process.death.points, struck=struck)
        if not struck:
            return await telling, ""
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await process.end()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await story(await self.start(), name), f"{at} of {name}"

    async def every_point(
        self, story: Callable[[Process, str], Awaitable[T]], *of: str
    ) -> AsyncIterator[tuple[T, str]]:
        """What `life` returns, for each point of a story. It must have had these, before and after their effect."""
        points = Points()
        while not points.over:
            yield await self.life(points, story)
        demand(points, *of)

    async def snapshots(self) -> set[str]:
        """The handles that the backend holds."""
        answer = await self._controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=10)
        return {entry.snapshot.snapshot_id for entry in answer.entries}

    async def volumes(self) -> set[str]:
        """The same of volumes."""
        answer = await self._controller.ListVolumes(pb.ListVolumesRequest(), timeout=10)
        return {entry.volume.volume_id for entry in answer.entries}

    def registered(self) -> dict[str, str]:
        """Nomad's volumes: id -> handle."""
        return {volume_id: row.spec["ExternalID"] for (_, volume_id), row in self.agent.state.volumes.items()}


def demand(points: Points, *of: str) -> None:
    """A story that has lost its points proves nothing."""
    for what in of:
        found = {moment for point, moment in points.struck if point.what.startswith(what)}
        assert found == {"before", "after"}, (what, found, points.struck, points.missed)


@contextlib.asynccontextmanager
async def standing(route: str) -> AsyncIterator[Stand]:
    """One agent and one plugin, reached by this route. One volume is registered: `data`."""
    folder = paths.fresh("mortal")
    async with contextlib.AsyncExitStack() as stack:
        socket = await _localdisk(stack, folder)
        agent = await stack.enter_async_context(FakeNomad())
        plugin = await agent.add_plugin(PLUGIN, socket)
        proxy = await stack.enter_async_context(FaultProxy(socket, folder / "proxy.sock"))
        # The agent dials the driver itself; what the service finds at Nomad's path is the proxy.
        path = agent.plugin_socket(plugin.allocation_id)
        path.unlink()
        path.symlink_to(proxy.listen)
        await _register(agent)
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
        )
        stand = Stand(agent, proxy, csi_pb2_grpc.ControllerStub(channel), _settings(folder, agent, route))
        try:
            yield stand
        finally:
            agent.faults.wire = None
            if stand.process is not None:
                await stand.process.end()


async def _localdisk(stack: contextlib.AsyncExitStack, folder: Path) -> Path:
    socket, stop, up = folder / "csi.sock", asyncio.Event(), asyncio.Event()
    options = localdisk_settings.Settings(
        endpoint=f"unix://{socket}", state_dir=folder / "disk", node_id="n1", rootless=True, durable=False,
        mode=localdisk_settings.Mode.DIRECTORY, topology=localdisk_settings.Topology.NONE,
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(options, stop=stop, started=up.set), name="localdisk")

    async def end() -> None:
        stop.set()
        await serving

    stack.push_async_callback(end)
    async with asyncio.timeout(20):
        await up.wait()
    return socket


async def _register(agent: FakeNomad) -> None:
    client = Client(quick(agent.url))
    row = {
        "ID": "data", "Name": "data", "PluginID": PLUGIN, "RequestedCapacityMin": 1 << 20,
        "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
    }  # fmt: skip
    try:
        query = {"namespace": "default"}
        await client.call("PUT", "/v1/volume/csi/data/create", query, body={"Volumes": [row]})
    finally:
        await client.close()


def _settings(folder: Path, agent: FakeNomad, route: str) -> config.Config:
    """Nothing is asked for by the clock, so that every life has the same points."""
    cluster = {
        "name": "east", "kind": "nomad", "address": agent.url, "route": route, "state_dir": str(agent.state_dir),
        "plugin_seconds": 60, "hooks": {"enabled": False},
    }  # fmt: skip
    document = {
        "service": {"data_dir": str(folder)},
        "csi": {"probe_interval": "10m", "poll_first": "10ms"},
        "clusters": [cluster],
    }
    file = folder / "snapbridge.yaml"
    file.write_text(yaml.safe_dump(document))
    return config.load([str(file)], Catalog().sections(), {})
