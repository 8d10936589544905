"""A small world around reverts: a cluster with names and one workload, a plugin with its backend, a book.

The real shell (`service/reverts.py`) runs in it, turn by turn. Faults strike each effect by number: a crash before or
after it, a lost answer before or after it, a refusal, and `late`: the answer is lost and the effect comes later. A
crash ends the process: the next turn has a new shell, which knows the book only.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from bridge.decide.revert import Limits
from bridge.model.failure import ConflictError, NotFoundError, UnavailableError
from bridge.model.keys import snapshot_key
from bridge.model.operation import Operation, OperationState
from bridge.model.revert import Swap, Workload, WorkloadState
from bridge.model.snapshot import DeletionPolicy, SnapshotState, SnapshotStatus
from bridge.model.view import SnapshotView
from bridge.model.volume import Volume
from bridge.service import lane, revert_journal, work
from bridge.service.operations import REVERT, Operations
from bridge.service.reverts import Reverts
from tests.support import memory

OPERATION = "0f2c4e6a"
STRIKES = ("ok", "lost before", "lost after", "refused", "crash before", "crash after")
LIMITS = Limits(pause=60.0, free=60.0, verify=30.0, settle=10.0)
NOTED = Workload("web", "web, group g: 1 instance", "stop it", "start it", "v0")


class MemoryBook:
    """The part of the `Book` port that operations use."""

    def __init__(self) -> None:
        self.rows: dict[str, Operation] = {}
        self.audited: list[tuple[str, dict[str, str]]] = []

    async def put_operation(self, operation: Operation) -> Operation:
        known = self.rows.get(operation.id)
        if (known.version if known else "") != operation.version:
            raise ConflictError("it has moved on")
        stored = dataclasses.replace(operation, version=str(int(operation.version or "0") + 1))
        self.rows[operation.id] = stored
        return stored

    async def audit(self, key: str, verb: str, who: str, detail: Mapping[str, str]) -> None:
        self.audited.append((verb, dict(detail)))

    async def operation(self, operation_id: str) -> Operation | None:
        return self.rows.get(operation_id)

    async def operations(self, *, running: bool = False, limit: int = 100) -> Sequence[Operation]:
        return [row for row in self.rows.values() if not running or row.state is OperationState.RUNNING]


class Site:
    """The cluster: which handle a name stands for, whether the workload is wanted, and who claims what."""

    kind = "memory"
    cluster = "c"

    def __init__(self, script: memory.Script, volumes: Sequence[str]) -> None:
        self.script = script
        self.names = {name: f"old-{name}" for name in volumes}
        self.watched = tuple(volumes)
        self.wanted = True
        self.version = "v0"
        self.halted = False
        self.linger = 1
        """Looks until a stopped workload's claims are gone."""
        self.comes_up = True
        self.served: list[str] = []
        """The handles that the workload has run on, in order."""
        self._claims = {name: self.names[name] for name in volumes}
        self._leaving = 0
        self._later: list[tuple[int, Callable[[], None]]] = []
        self.broken: list[str] = []

    # -- what passes by itself

    def tick(self) -> None:
        """A moment passes: late effects come, claims go, a wanted workload starts where its volumes are."""
        due = [effect for left, effect in self._later if left <= 1]
        self._later = [(left - 1, effect) for left, effect in self._later if left > 1]
        for effect in due:
            effect()
        if not self.wanted and self._claims:
            self._leaving += 1
            if self._leaving > self.linger:
                self._claims = {}
        if self.wanted and not self._claims and self.comes_up and all(name in self.names for name in self.watched):
            self._claims = {name: self.names[name] for name in self.watched}
            self.served.append(",".join(self._claims.values()))

    def claim(self, name: str) -> None:
        """Somebody else uses it."""
        self._claims[name] = self.names[name]

    def _point(self, what: str, effect: Callable[[], None]) -> None:
        fault = self.script.next(what)
        if fault == "crash before":
            raise memory.Crash
        if fault == "refused":
            raise ConflictError(f"no: {what}")
        if fault == "lost before":
            raise UnavailableError(f"lost: {what}")
        if fault == "late":
            self._later.append((3, effect))
            raise UnavailableError(f"lost: {what}")
        effect()
        if fault == "crash after":
            raise memory.Crash
        if fault == "lost after":
            raise UnavailableError(f"lost: {what}")

    # -- the Volumes port

    async def find(self, namespace: str, name: str) -> Volume:
        self.tick()
        if name not in self.names:
            raise NotFoundError(f"no volume {name}")
        handle = self.names[name]
        users = ("instance 1 of web",) if self._claims.get(name) == handle else ()
        return Volume("c", namespace, name, "d", handle, 100, users=users)

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        return [await self.find("default", name) for name in sorted(self.names)]

    async def register(self, volume: Volume, like: Volume | None) -> None:
        def effect() -> None:
            if self.names.get(volume.name, volume.handle) != volume.handle:
                raise ConflictError(f"{volume.name} is taken")
            self.names[volume.name] = volume.handle

        self._point(f"register {volume.name} {volume.handle}", effect)

    async def forget(self, namespace: str, name: str) -> Volume | None:
        def effect() -> None:
            if name in self._claims:
                raise ConflictError(f"{name} is in use")
            self.names.pop(name, None)

        self._point(f"forget {name}", effect)
        return None

    # -- the Workloads port

    async def note(
        self, namespace: str, volumes: Sequence[str], *, mark: str, name: str = "", version: str = ""
    ) -> Workload | None:
        self._point("note", lambda: None)
        return dataclasses.replace(NOTED, memo=f"{self.version}>{version}")

    async def look(self, namespace: str, workload: Workload) -> WorkloadState:
        self.tick()
        if self.halted:
            return WorkloadState.HALTED
        if not self.wanted:
            return WorkloadState.PAUSED
        return WorkloadState.RUNNING if self._claims else WorkloadState.STARTING

    async def pause(self, namespace: str, workload: Workload, *, again: bool) -> None:
        before = workload.memo.partition(">")[0]

        def effect() -> None:
            if self.halted or (self.version != before and not again):
                raise ConflictError("it has changed")
            if self.wanted:
                self._leaving = 0
            self.wanted = False

        self._point("pause", effect)

    async def resume(self, namespace: str, workload: Workload, *, back: bool) -> None:
        before, _, after = workload.memo.partition(">")

        def effect() -> None:
            if self.halted:
                raise ConflictError("somebody stopped it")
            self.wanted = True
            self.version = before if back or not after else after

        self._point("resume", effect)


class World:
    """One revert of some volumes of one workload."""

    def __init__(self, faults: dict[int, str] | None = None, *, volumes: Sequence[str] = ("data",)) -> None:
        self.script = memory.Script(dict(faults or {}))
        self.clock = memory.VirtualClock()
        self.plugin = memory.MemoryPlugin(self.script, self.clock)
        self.site = Site(self.script, volumes)
        self.book = MemoryBook()
        self.snapshot_there = True
        self.crashes = 0
        self.version = ""

    async def ask(self) -> None:
        """Write the operation down, as the desk does."""
        swaps = [
            Swap(name, "d", f"old-{name}", f"{name}-before-{OPERATION}", f"snap-{name}") for name in self.site.watched
        ]
        arguments = {"swaps": revert_journal.dump_swaps(swaps), "workload": "", "version": self.version}
        now = self.clock.now()
        running = OperationState.RUNNING
        row = Operation(OPERATION, REVERT, "c", "default", "data", running, now, now, arguments=arguments)
        await self.book.put_operation(row)

    def run(self, most: int = 400) -> World:
        """To the end, over crashes; the operation's row tells how it ended."""
        asyncio.run(self._run(most))
        return self

    async def _run(self, most: int) -> None:
        await self.ask()
        shell = await self._shell()
        for _ in range(most):
            try:
                seconds = await shell.turn(OPERATION)
            except memory.Crash:
                self.crashes += 1
                shell = await self._shell()
                continue
            except (UnavailableError, ConflictError):
                await self.clock.sleep(1.0)
                continue
            if seconds is None:
                break
            await self.clock.sleep(seconds)
        for _ in range(8):
            self.site.tick()

    async def _shell(self) -> Reverts:
        return await self.shell(work.Tools(plugins=self.plugin, clock=self.clock, writer="w"))

    async def shell(self, tools: work.Tools) -> Reverts:
        """A process of the service, which knows the book only."""
        operations = Operations(cast(Any, self.book), self.clock)
        await operations.load()
        one = lane.Lane(
            cast(Any, _Cluster(self.site)), cast(Any, None), no_records(), memory.NoSecrets(), workloads=self.site
        )
        return Reverts({"c": one}, cast(Any, self), operations, tools, limits=LIMITS)

    async def find(self, caller: object, ref: str, *, whole: bool = False) -> SnapshotView:
        """The catalogue."""
        if not self.snapshot_there:
            raise NotFoundError("gone")
        status = SnapshotStatus(SnapshotState.READY, ready=True, handle=f"handle-of-{ref}", size_bytes=10)
        key = snapshot_key("c", ref)
        return SnapshotView(key, "default", ref, ref.removeprefix("snap-"), "d", "Delete", ref, status)

    # -- how it ended

    @property
    def row(self) -> Operation:
        return self.book.rows[OPERATION]

    @property
    def made(self) -> set[str]:
        """The volumes that are on the backend by our making."""
        return set(self.plugin.volumes.values())

    def check(self) -> None:
        """What must be so at the end, whatever struck."""
        site, row = self.site, self.row
        assert row.state is not OperationState.RUNNING, (row.steps[-3:], row.failure)
        assert site.halted or site.wanted, "the workload was left stopped"
        handles = {name: site.names.get(name, "") for name in site.watched}
        kept = {name: site.names.get(f"{name}-before-{OPERATION}", "") for name in site.watched}
        if row.state is OperationState.DONE:
            assert set(handles.values()) == self.made, "a volume too many, or one that is not there"
            assert all(kept[name] == f"old-{name}" for name in site.watched), "the old volume is not kept"
            assert not any(handles[name].startswith("old-") for name in site.watched)
        else:
            assert all(handles[name] == f"old-{name}" for name in site.watched), handles
            assert not self.made, "a failed revert left a volume"
            assert not any(kept.values()), "a failed revert left a name"
            assert site.version == "v0"


def no_records() -> memory.MemoryLedger:
    """A ledger without a record of the snapshots."""
    return memory.MemoryLedger(memory.Script(), lambda _key: DeletionPolicy.DELETE)


@dataclasses.dataclass
class _Cluster:
    """The orchestrator: only its volumes are asked for."""

    volumes: Site
    cluster: str = "c"
