"""Two ways to one plugin: its socket, behind a proxy that breaks calls, and an orchestrator's API beside it.

Real sockets and a real registry; the workers are the service's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from bridge.csi.registry import Registry
from bridge.csi.settings import CallSettings, Deadlines, RegistrySettings
from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from bridge.model.keys import Key, snapshot_key
from bridge.model.outcome import Outcome
from bridge.model.plugin import CallRules, Capability, Route
from bridge.model.snapshot import CutSnapshot, DeletionPolicy, VolumeSource
from bridge.ports.ledger import Entry
from bridge.ports.plugin import PluginCalls
from bridge.service import work
from bridge.service.lane import lane
from bridge.service.runner import Runner
from tests.support import csi_server, memory
from tests.support.csi_server import Plugin, RealClock
from tests.support.faultproxy import FaultProxy, faults
from tests.support.standalone import SmallCluster

DRIVER = "test.csi.example"
DEADLINE_SECONDS = 60.0
"""Longer than anything here may take, and than a machine stands still."""
SETTINGS = RegistrySettings(
    calls=CallSettings(deadlines=Deadlines(default_seconds=DEADLINE_SECONDS, by_verb={})),
    probe_interval_seconds=0.2,
    call_retry_first_seconds=0.1,
    call_retry_most_seconds=0.2,
)
VERBS = ("CreateSnapshot", "DeleteSnapshot")
ABLE = frozenset({Capability.CREATE_DELETE_SNAPSHOT, Capability.GET_SNAPSHOT})


class ThroughApi:
    """The calls of an orchestrator's API, which reaches the plugin by a connection of its own."""

    route = Route.ORCHESTRATOR

    def __init__(self, inner: PluginCalls) -> None:
        self._inner = inner
        self.id = dataclasses.replace(inner.id, instance="api")
        self.creates: list[tuple[str, float]] = []
        """(CSI volume_id, when), in order."""

    def under(self, _fence: Callable[[], str]) -> ThroughApi:
        return self

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._inner, verb)

    async def create_snapshot(
        self, *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Outcome[CutSnapshot]:
        self.creates.append((volume_handle, time.monotonic()))
        return await self._inner.create_snapshot(
            name=name, volume_handle=volume_handle, parameters=parameters, secrets=secrets
        )


@dataclasses.dataclass
class Place:
    """The plugin, both ways to it, and the service's workers."""

    plugin: Plugin
    proxy: FaultProxy
    registry: Registry
    api: ThroughApi
    ledger: SqlLedger
    runner: Runner

    async def ask(self, uid: str, volume: str) -> Key:
        """Book a snapshot of a CSI volume, and wake it."""
        key = snapshot_key("c", uid)
        await self.ledger.add(
            Entry(
                key,
                "default",
                uid,
                volume,
                DRIVER,
                VolumeSource(volume),
                f"snapshot-{uid}",
                DeletionPolicy.DELETE,
                held=False,
            )
        )
        self.runner.wake(key)
        return key

    async def ready(self, key: Key) -> Any:
        """Its entry, once it is told ready."""
        found: list[Entry] = []

        async def told() -> bool:
            entry = await self.ledger.entry(key)
            if entry is not None and entry.status is not None and entry.status.ready:
                found.append(entry)
            return bool(found)

        await eventually(told)
        return found[0].status

    async def in_flight(self) -> None:
        """Wait until a call has left by the socket."""
        await csi_server.until(lambda: any(row.in_flight for row in self.registry.describe()))

    async def move_to_api(self) -> None:
        """The socket is lost; the API takes its place, as the discovery of plugins announces it."""
        await self.registry.ensure_no_instance("socket")
        await self.registry.ensure_calls(self.api, ABLE, endpoint="http://agent")  # type: ignore[arg-type]

    async def move_to_socket(self) -> None:
        await self.registry.ensure_no_instance("api")
        await self.registry.ensure_socket("socket", str(self.proxy.listen))
        await csi_server.until(lambda: self.registry.view(DRIVER).healthy)


async def eventually(test: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await test():  # noqa: ASYNC110 - what is looked at rings no bell
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def place(
    folder: Path, *, plugin: Plugin | None = None, writer: str = "w", deadline_seconds: float = DEADLINE_SECONDS
) -> AsyncIterator[Place]:
    plugin, clock = plugin or Plugin(), RealClock()
    settings = SETTINGS.under(CallRules(timeouts_seconds=dict.fromkeys(VERBS, deadline_seconds)))
    registry, beside = Registry(settings, clock), Registry(settings, clock)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(csi_server.serving(plugin, folder / "plugin.sock"))
        proxy = await stack.enter_async_context(FaultProxy(folder / "plugin.sock", folder / "proxy.sock"))
        ledger = await stack.enter_async_context(open_ledger("sqlite://", clock))
        one = lane(SmallCluster(), ledger, ledger, memory.NoSecrets(), group_book=ledger.groups)
        tools = work.Tools(registry, clock, writer, started_at=clock.now())
        runner = Runner({"c": one}, tools, told=_nobody)
        tasks = [asyncio.create_task(run()) for run in (registry.run, beside.run, runner.run)]
        try:
            await asyncio.sleep(0)
            await beside.ensure_socket("beside", str(folder / "plugin.sock"))
            await registry.ensure_socket("socket", str(proxy.listen))
            await csi_server.until(lambda: beside.controller(DRIVER) and registry.view(DRIVER).healthy)
            calls = beside.controller(DRIVER)
            assert calls is not None
            yield Place(plugin, proxy, registry, ThroughApi(calls), ledger, runner)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _nobody(*_: object) -> None:
    """Nobody follows."""


async def test_a_call_lost_with_its_socket_keeps_the_api_off_its_volume_until_its_deadline(tmp_path: Path) -> None:
    deadline_seconds = 5.0
    async with place(tmp_path, deadline_seconds=deadline_seconds) as here:
        here.proxy.script("CreateSnapshot", faults.hang())
        asked = time.monotonic()
        key = await here.ask("one", "vol-1")
        await here.in_flight()
        await here.move_to_api()
        other = await here.ask("two", "vol-2")
        await here.ready(other)
        told = await here.ready(key)
        assert [volume for volume, _ in here.api.creates] == ["vol-2", "vol-1"], "another volume need not wait"
        assert here.api.creates[1][1] - asked >= deadline_seconds
        assert told.route is Route.ORCHESTRATOR
        assert len(here.plugin.store.snapshots) == 2


async def test_what_waits_for_the_other_route_says_so(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.proxy.script("CreateSnapshot", faults.hang())
        key = await here.ask("one", "vol-1")
        await here.in_flight()
        await here.move_to_api()
        seen: list[str] = []

        async def told() -> bool:
            entry = await here.ledger.entry(key)
            assert entry is not None
            if entry.status is not None:
                seen.append(entry.status.reason)
            return "ROUTE_BUSY" in seen

        await eventually(told)
        assert here.api.creates == []


async def test_the_socket_goes_on_at_once_when_it_comes_back(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.proxy.script("CreateSnapshot", faults.hang())
        key = await here.ask("one", "vol-1")
        await here.in_flight()
        await here.move_to_api()
        await here.move_to_socket()
        told = await here.ready(key)
        assert told.route is Route.SOCKET
        assert here.api.creates == []
        assert len(here.plugin.store.snapshots) == 1


async def test_aborted_pauses_its_volume_and_no_other(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.proxy.script(
            "CreateSnapshot", faults.aborted(), times=2, when=lambda sent: sent.source_volume_id == "v1"
        )
        keys = [await here.ask("one", "v1"), await here.ask("two", "v2")]
        for key in keys:
            await here.ready(key)
        names = [call.request.name for call in here.proxy.called("CreateSnapshot") if call.request is not None]
        assert names.count("snapshot-one") == 3
        assert names.count("snapshot-two") == 1


async def test_a_plugins_own_rules_bound_its_calls(tmp_path: Path) -> None:
    plugin = Plugin()
    inside: list[int] = [0, 0]
    full = asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        inside[0] += 1
        inside[1] = max(inside)
        if inside[0] == 3:
            full.set()
        await asyncio.wait_for(full.wait(), 20)  # however slowly the first three come in, they meet
        await asyncio.sleep(0.05)
        inside[0] -= 1
        return await plugin.CreateSnapshot(request, context)

    plugin.script["CreateSnapshot"] = slow
    async with place(tmp_path, plugin=plugin) as here:
        await here.registry.ensure_rules(DRIVER, CallRules(concurrency=3, timeouts_seconds={"CreateSnapshot": 90.0}))
        assert here.registry.view(DRIVER).concurrency == 3
        assert here.registry.view(DRIVER).settle_seconds == 90.0
        keys = [await here.ask(f"s{number}", f"v{number}") for number in range(12)]
        for key in keys:
            await here.ready(key)
        assert inside[1] == 3
        assert plugin.calls["CreateSnapshot"] == 12


async def test_rules_change_paces_and_deadlines_of_one_driver_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        before = here.registry.view("another.driver")
        rules = CallRules(poll_first_seconds=2.0, retry_first_seconds=5.0, retry_most_seconds=7.0)
        await here.registry.ensure_rules(DRIVER, rules)
        view = here.registry.view(DRIVER)
        assert (view.poll_first_seconds, view.retry_first_seconds, view.retry_most_seconds) == (2.0, 5.0, 7.0)
        assert view.concurrency == SETTINGS.calls.controller_concurrency
        assert here.registry.view("another.driver") == before
