"""Runs one role: the shell's parts around what an adapter built from its flags. No ledger file, no API."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from bridge.api import pages
from bridge.app.clock import WallClock, mint
from bridge.app.health import ServiceHealth
from bridge.app.metrics import Metrics, Sources
from bridge.app.secrets import SecretChain
from bridge.csi.registry import Registry
from bridge.csi.settings import CallSettings, Deadlines, RegistrySettings
from bridge.csi.trace import CallEnded, Tracer
from bridge.decide import backoff
from bridge.model.failure import InvalidError
from bridge.model.group import GroupRequest, GroupStatus
from bridge.model.keys import Key
from bridge.model.snapshot import SnapshotRequest, SnapshotStatus
from bridge.ports.adapter import Joined
from bridge.ports.health import Check
from bridge.ports.loop import Loop, RetrySchedule, Turn
from bridge.ports.orchestrator import SnapshotDraft
from bridge.ports.role import Role, RolePlan, RoleSurroundings
from bridge.service import supervise, work
from bridge.service.lane import Lane
from bridge.service.loop import WorkLoop
from bridge.service.runner import Runner

log = logging.getLogger(__name__)
Task = Callable[[], Awaitable[None]]

SECRET_SECONDS = 10.0


class _NoIntake:
    """A role has no door of its own: requests come from the orchestrator's objects."""

    async def ask(self, draft: SnapshotDraft) -> Key:
        raise InvalidError("this role takes no requests of its own")

    async def ask_group(
        self, drafts: Sequence[SnapshotDraft], *, name: str, uid: str, max_skew_seconds: float | None = None
    ) -> Key:
        raise InvalidError("this role takes no requests of its own")

    async def status(self, key: Key) -> SnapshotStatus | None:
        return None


class RoleHealth:
    """The `Health` port: the role's own word, then its clusters and plugins."""

    def __init__(self, name: str, plugins: Registry) -> None:
        self._name = name
        self._plugins = plugins
        self._role: Role | None = None
        self._parts: ServiceHealth | None = None
        self.stopping = False

    def built(self, role: Role) -> None:
        """It runs from now on."""
        orchestrators = [joined.orchestrator for joined in role.joined]
        problems = {joined.orchestrator.cluster: joined.problems for joined in role.joined}
        self._role = role
        self._parts = ServiceHealth(orchestrators, self._plugins, problems=problems)
        self._parts.started = True

    def alive(self) -> str:
        """The loop answers, so the process lives; a supervised task that dies ends the process."""
        return ""

    def checks(self) -> Sequence[Check]:
        """The role first."""
        if self._role is None or self._parts is None:
            sentences = [row.sentence for row in self._plugins.describe() if row.sentence]
            return [Check(self._name, "; ".join(["it starts", *sentences]))]
        own = "it stops" if self.stopping else self._role.ready()
        parts = [check for check in self._parts.checks() if check.name != "service"]
        if not self._role.joined:
            parts = [dataclasses.replace(check, fatal=False) for check in parts]
        return [Check(self._name, own), *parts]


class RoleProcess:
    """The parts of one running role."""

    def __init__(self, plan: RolePlan) -> None:
        self.plan = plan
        self._clock = WallClock()
        self._tracer = Tracer()
        self._meter = Metrics()
        self._tracer.listen(self._meter.call_ended)
        self.registry = Registry(_registry_settings(plan), self._clock, self._tracer)
        self._health = RoleHealth(plan.name, self.registry)
        self._role: Role | None = None
        self._runner: Runner | None = None

    def surroundings(self) -> RoleSurroundings:
        """What the role is lent."""
        return RoleSurroundings(
            clock=self._clock,
            plugins=self.registry,
            sink=self.registry,
            make_loop=self._make_loop,
            on_call=self._on_call,
            meters=self._meter.registry,
            mint=mint,
        )

    async def run(self) -> None:
        """Build the role and run it until cancelled. Its pages answer from the start."""
        server = await self._listen()
        try:
            role = await self.plan.start(self.surroundings())
            self._begin(role)
            async with asyncio.TaskGroup() as group:
                for name, task in self._tasks(role).items():
                    group.create_task(supervise.guard(name, task), name=name)
        finally:
            if server is not None:
                await server.cleanup()

    async def stop(self) -> None:
        """Finish the turns under way."""
        log.info("stopping", extra={"action": "stop", "role": self.plan.name})
        self._health.stopping = True
        seconds = self.plan.shutdown_seconds
        drains = [loop.drain(seconds) for loop in (self._role.loops if self._role else ())]
        if self._runner is not None:
            drains.append(self._runner.drain(seconds))
        await asyncio.gather(*drains)

    def _begin(self, role: Role) -> None:
        self._role = role
        self._runner = self._make_runner(role) if role.joined else None
        self._meter.watch(Sources(plugins=self.registry.describe, queue_depth=self._depth))
        self._health.built(role)
        log.info("the role is up", extra={"action": "start", "role": self.plan.name})

    def _tasks(self, role: Role) -> dict[str, Task]:
        found: dict[str, Task] = dict(role.tasks)
        for number, loop in enumerate(role.loops):
            found[f"loop-{number}"] = loop.run
        if self._runner is not None:
            found["runner"] = self._runner.run
            for joined in role.joined:
                found[f"cluster-{joined.orchestrator.cluster}"] = self._watch(joined, self._runner)
        return found

    def _watch(self, joined: Joined, runner: Runner) -> Task:
        async def run() -> None:
            await joined.orchestrator.run(runner.wake, _NoIntake(), self.registry)

        return run

    def _make_runner(self, role: Role) -> Runner:
        return Runner(
            {joined.orchestrator.cluster: _lane(joined) for joined in role.joined},
            work.Tools(plugins=self.registry, clock=self._clock, writer=mint()),
            told=_nobody,
            workers=role.workers,
            resync_seconds=role.resync_seconds,
            retry=role.retry or backoff.retry_delay,
        )

    def _make_loop(self, name: str, turn: Turn, *, workers: int = 10, retry: RetrySchedule | None = None) -> Loop:
        return WorkLoop(name, turn, self._clock, workers=workers, retry=retry or backoff.retry_delay)

    def _on_call(self, listener: Callable[[str, str, str, float], None]) -> None:
        def ended(call: CallEnded) -> None:
            listener(call.driver, call.method, call.code, call.seconds)

        self._tracer.listen(ended)

    def _depth(self) -> int:
        waiting = sum(loop.depth for loop in (self._role.loops if self._role else ()))
        return waiting + (len(self._runner.queue) if self._runner is not None else 0)

    async def _listen(self) -> web.AppRunner | None:
        if not self.plan.http_address:
            return None
        app = pages.make_pages(
            self._health,
            self._meter,
            metrics_path=self.plan.metrics_path,
            more=lambda: self._role.pages if self._role is not None else {},
        )
        return await pages.listen(app, self.plan.http_address)


async def _nobody(
    _key: Key, _request: SnapshotRequest | GroupRequest | None, _status: SnapshotStatus | GroupStatus
) -> None:
    """Nobody else wants to know."""


def _lane(joined: Joined) -> Lane:
    orchestrator = joined.orchestrator
    if orchestrator.requests is None or orchestrator.ledger is None:
        raise InvalidError(f"{orchestrator.kind} keeps no requests and records of its own: it needs a ledger")
    secrets = SecretChain(joined.resolvers, timeout_seconds=SECRET_SECONDS)
    return Lane(
        orchestrator,
        orchestrator.requests,
        orchestrator.ledger,
        secrets,
        fence=joined.fence,
        follow=joined.follow,
        groups=joined.groups,
    )


def _registry_settings(plan: RolePlan) -> RegistrySettings:
    calls = CallSettings()
    if plan.call_timeout_seconds is not None:
        calls = CallSettings(deadlines=Deadlines(default_seconds=plan.call_timeout_seconds, by_verb={}))
    return RegistrySettings(
        calls=calls,
        call_retry_first_seconds=plan.retry_first_seconds,
        call_retry_most_seconds=plan.retry_most_seconds,
    )


async def run(plan: RolePlan, stop: asyncio.Event) -> None:
    """Run the role until `stop` is set, then end in order."""
    process = RoleProcess(plan)
    await supervise.run_until(stop, {"registry": process.registry.run, plan.name: process.run}, first=process.stop)
