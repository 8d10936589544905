"""A whole service in one process, over fakes at the ports: memory plugin, memory ledger file, one small cluster.

For tests of the shell. Real servers are in tests/integration and tests/e2e.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from bridge.model.failure import ConflictError, NotFoundError
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.model.snapshot import SnapshotStatus
from bridge.model.volume import Volume
from bridge.ports.identity import Caller
from bridge.ports.orchestrator import Intake, SnapshotDraft, Traits, Wake
from bridge.ports.plugin import PluginSink
from bridge.service import work
from bridge.service.booking import Booking
from bridge.service.catalogue import Catalogue
from bridge.service.desk import FrontDesk
from bridge.service.group_booking import GroupBooking
from bridge.service.group_desk import GroupFrontDesk
from bridge.service.keeper import Keeper
from bridge.service.lane import lane
from bridge.service.operations import Operations
from bridge.service.restores import Restores
from bridge.service.runner import Runner
from tests.support import memory

ADMIN = Caller("admin")


class RealClock:
    """The wall clock, for tests that run real tasks; delays are cut to a hundredth."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return 1_000_000.0 + self._loop.time() * 100

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


class SmallCluster:
    """An orchestrator with a dict of volumes."""

    kind = "memory"
    traits = Traits()
    requests = None
    ledger = None

    def __init__(self, cluster: str = "c") -> None:
        self.cluster = cluster
        self.known = {
            ("default", "data"): Volume(cluster, "default", "data", "d", "v1", 100),
            ("default", "other"): Volume(cluster, "default", "other", "d", "v2", 100),
            ("default", "foreign"): Volume(cluster, "default", "foreign", "nobody", "v3", 100),
        }
        self.used = ""
        self.fenced = ""
        self.refuse_register = ""

    @property
    def volumes(self) -> SmallCluster:
        return self

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        return [one for one in self.known.values() if namespace in ("", one.namespace)]

    async def find(self, namespace: str, name: str) -> Volume:
        found = self.known.get((namespace, name))
        if found is None:
            raise NotFoundError(f"there is no volume {name!r} in {namespace!r}", field="volume")
        return found

    async def register(self, volume: Volume, like: Volume | None) -> None:
        known = self.known.get((volume.namespace, volume.name))
        if self.refuse_register or (known is not None and known.handle != volume.handle):
            raise ConflictError(self.refuse_register or "the name is taken")
        self.known[volume.namespace, volume.name] = volume

    async def forget(self, namespace: str, name: str) -> Volume | None:
        return self.known.pop((namespace, name), None)

    async def submit(self, draft: SnapshotDraft) -> Key:
        raise AssertionError("the book keeps this cluster's requests")

    async def withdraw(self, key: Key) -> None:
        raise AssertionError("the book keeps this cluster's requests")

    async def abandon(self, key: Key) -> None:
        raise AssertionError("the book keeps this cluster's requests")

    async def in_use(self, key: Key, handle: str) -> str:
        return self.used

    async def run(self, wake: Wake, intake: Intake, plugins: PluginSink) -> None:
        await asyncio.Event().wait()

    def ready(self) -> str:
        return ""


class StubbornBook:
    """The book as the desk sees it; the verbs in `refused` meet a conflict."""

    def __init__(self, book: SqlLedger) -> None:
        self._book = book
        self.refused: set[str] = set()

    def __getattr__(self, verb: str) -> Any:
        return self._refuse if verb in self.refused else getattr(self._book, verb)

    async def _refuse(self, *_given: object) -> None:
        raise ConflictError("it has moved on")


class Service:
    """The wired parts, for tests to reach into."""

    def __init__(self, ledger: SqlLedger, plugin: memory.MemoryPlugin, cluster: SmallCluster) -> None:
        self.ledger, self.plugin, self.cluster = ledger, plugin, cluster
        self.book = StubbornBook(ledger)
        clock = RealClock()
        numbers = itertools.count(1)
        self.secrets = memory.NoSecrets()
        self.lanes = {
            cluster.cluster: lane(cluster, ledger, ledger, self.secrets, fence=self._fence, group_book=ledger.groups)
        }
        self.operations = Operations(ledger, clock)
        catalogue = Catalogue(self.lanes, ledger)
        self.sharing: set[str] = set()
        self.keeper = keeper = Keeper(self.lanes, ledger, clock, lambda driver: driver in self.sharing)
        tools = work.Tools(
            plugin,
            clock,
            "writer-1",
            busy=lambda key: self.restores.busy(key),
            kept=keeper.sentence,
            made=keeper.made,
        )
        self.restores = Restores(self.lanes, catalogue, self.operations, tools)
        self.runner = Runner(self.lanes, tools, told=self.operations.told, followed=self.operations.targets)
        self.mint = lambda: f"id-{next(numbers):06}"
        self.group_booking = GroupBooking(ledger.groups, tools, Booking(ledger, tools, keeper))
        self.groups = GroupFrontDesk(
            lanes=self.lanes,
            book=ledger,
            groups=ledger.groups,
            booking=self.group_booking,
            keeper=keeper,
            operations=self.operations,
            wake=self.runner.wake,
            mint=self.mint,
            now=clock.now,
        )
        self.desk = FrontDesk(
            lanes=self.lanes,
            book=self.book,
            tools=tools,
            operations=self.operations,
            restores=self.restores,
            wake=self.runner.wake,
            keeper=keeper,
            mint=self.mint,
            groups=self.groups,
        )

    def _fence(self, _driver: str) -> str:
        return self.cluster.fenced

    async def finished(self, operation: Operation, seconds: float = 30.0) -> Operation:
        """Follow the operation to its end."""
        async with asyncio.timeout(seconds):
            while operation.state is OperationState.RUNNING:
                operation = await self.desk.wait_operation(
                    ADMIN, operation.id, version=operation.version, timeout_seconds=seconds
                )
        return operation

    async def told(self, uid: str, holds: Callable[[SnapshotStatus], bool], seconds: float = 30.0) -> SnapshotStatus:
        """The snapshot's status once it is so. What a pass tells comes after what it has done."""
        async with asyncio.timeout(seconds):
            while not holds(status := (await self.desk.snapshot(ADMIN, uid)).status):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return status


@contextlib.asynccontextmanager
async def running(
    *, not_ready: int = 0, faults: dict[int, str] | None = None, unfinished: Sequence[Operation] = ()
) -> AsyncIterator[Service]:
    """A running service over an in-memory ledger. `unfinished`: what an earlier one left running."""
    script = memory.Script(faults or {})
    plugin = memory.MemoryPlugin(script, memory.VirtualClock(), not_ready=not_ready)
    async with open_ledger("sqlite://", RealClock()) as ledger:
        service = Service(ledger, plugin, SmallCluster())
        for operation in unfinished:
            await ledger.put_operation(operation)
        await service.operations.load()
        tasks = [
            asyncio.create_task(service.runner.run(), name="runner"),
            asyncio.create_task(service.restores.run(), name="restores"),
        ]
        try:
            yield service
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
