"""Joins the rings into one service: who implements which port. It decides nothing and does no work itself."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import bridge
from bridge.api.application import make_app
from bridge.api.server import serve
from bridge.app import config, metrics, node_config
from bridge.app.clock import WallClock, mint
from bridge.app.health import ServiceHealth
from bridge.app.secrets import EnvironmentSecrets, FileSecrets, SecretChain
from bridge.csi.registry import Registry
from bridge.csi.trace import Tracer
from bridge.decide import action as act
from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.model.plugin import Route
from bridge.node.agent import NodeAgent
from bridge.node.hub import Hub
from bridge.node.settings import AgentSettings
from bridge.ports.adapter import Catalogue, Joined, Surroundings
from bridge.ports.plugin import Plugins
from bridge.ports.secrets import Secrets
from bridge.service import supervise, work
from bridge.service.acknowledgements import Acknowledgements
from bridge.service.booking import Booking
from bridge.service.catalogue import Catalogue as Snapshots
from bridge.service.desk import FrontDesk
from bridge.service.group_booking import GroupBooking
from bridge.service.group_desk import GroupFrontDesk
from bridge.service.intake import HookIntake
from bridge.service.keeper import Keeper
from bridge.service.lane import Lane, lane
from bridge.service.operations import CREATE, Operations
from bridge.service.restores import Restores
from bridge.service.revert_desk import RevertDesk
from bridge.service.reverts import Reverts
from bridge.service.runner import Runner

log = logging.getLogger(__name__)
Task = Callable[[], Awaitable[None]]
FIRST_LOOK_SECONDS = 2.0


class Service:
    """All parts of one running service."""

    def __init__(
        self,
        settings: config.Config,
        ledger: SqlLedger,
        registry: Registry,
        clock: WallClock,
        fence: Callable[[], str],
    ) -> None:
        self.fence = fence
        self.settings = settings
        self.ledger = ledger
        self.registry = registry
        self.clock = clock
        self.meter = metrics.Metrics()
        self.joined: dict[str, Joined] = {}
        self.lanes: dict[str, Lane] = {}

    async def join(self, catalogue: Catalogue) -> None:
        """Build every adapter. Each cluster has its own chain of secret resolvers: references name no cluster."""
        for cluster in self.settings.clusters:
            resolvers = self._resolvers()
            chain = SecretChain(resolvers, timeout_seconds=self.settings.secrets.timeout)
            plugins = self.registry.of(cluster.name)
            surroundings = Surroundings(
                cluster.name,
                self.ledger,
                chain,
                self.clock,
                serves=functools.partial(_serves, plugins),
                carried=self._carried,
                fence=self.fence,
            )
            joined = await catalogue.join(cluster.kind, cluster.settings, surroundings)
            self.joined[cluster.name] = joined
            resolvers.update(joined.resolvers)
            self.lanes[cluster.name] = lane(
                joined.orchestrator,
                self.ledger,
                self.ledger,
                chain,
                fence=functools.partial(_first_reason, self.fence, joined.fence),
                follow=joined.follow,
                guard=joined.guard,
                groups=joined.groups,
                workloads=joined.workloads,
                on_record=joined.on_record,
                group_book=self.ledger.groups,
                plugins=plugins,
            )

    def _carried(self, driver: str) -> bool:
        rows = self.registry.describe()
        return any(row.id.driver == driver and row.route is Route.NODE_AGENT and row.healthy for row in rows)

    def _resolvers(self) -> dict[str, Secrets]:
        allowed = self.settings.secrets
        return {
            "env": EnvironmentSecrets(allowed.environment, os.environ),
            "file": FileSecrets(allowed.directories),
        }

    def assemble(self) -> None:
        """The neutral parts, over the lanes."""
        self.operations = Operations(self.ledger, self.clock, on_end=self._count_end)
        sharing = frozenset(self.settings.csi.restored_volumes_share_blocks)
        self.keeper = Keeper(self.lanes, self.ledger, self.clock, sharing.__contains__)
        self.tools = work.Tools(
            plugins=self.registry,
            clock=self.clock,
            writer=mint(),
            busy=lambda key: self.restores.busy(key) or self.reverts.busy(key),
            kept=self.keeper.sentence,
            pinned=self.keeper.pinned,
            started_at=self.clock.now(),
            made=self.keeper.made,
            on_step=self._count_step,
        )
        snapshots = Snapshots(self.lanes, self.ledger)
        self.restores = Restores(self.lanes, snapshots, self.operations, self.tools)
        self.reverts = Reverts(self.lanes, snapshots, self.operations, self.tools)
        self.acknowledgements = Acknowledgements(self.lanes, self.ledger, self.operations, self.tools)
        self.runner = Runner(
            self.lanes,
            self.tools,
            told=self.operations.told,
            workers=self.settings.service.workers,
            resync_seconds=self.settings.service.resync_interval,
            followed=self.operations.targets,
        )
        self.group_booking = GroupBooking(
            self.ledger.groups, self.tools, Booking(self.ledger, self.tools, self.keeper)
        )
        self.desk = self._desk()
        self.hub = self._hub()
        self.intake = HookIntake(self.desk, self.lanes, self.ledger, self.runner.wake, self.group_booking)
        self.health = ServiceHealth(
            [joined.orchestrator for joined in self.joined.values()],
            self.registry,
            self.ledger.warnings(),
            {name: joined.problems for name, joined in self.joined.items()},
            self.fence,
        )

        self.meter.watch(
            metrics.Sources(
                plugins=self.registry.describe,
                clusters=self.desk.clusters,
                nodes=lambda: self.hub.nodes() if self.hub is not None else (),
                queue_depth=lambda: len(self.runner.queue),
            )
        )

    def _desk(self) -> FrontDesk:
        return FrontDesk(
            lanes=self.lanes,
            book=self.ledger,
            tools=self.tools,
            operations=self.operations,
            restores=self.restores,
            wake=self.runner.wake,
            mint=mint,
            nodes=lambda: self.hub.nodes() if self.hub is not None else (),
            keeper=self.keeper,
            reverts=self._revert_desk(),
            groups=self._group_desk(),
            delegations=lambda: [row for joined in self.joined.values() for row in joined.delegations()],
        )

    def _revert_desk(self) -> RevertDesk:
        return RevertDesk(
            lanes=self.lanes,
            book=self.ledger,
            tools=self.tools,
            catalogue=Snapshots(self.lanes, self.ledger),
            operations=self.operations,
            reverts=self.reverts,
            acknowledgements=self.acknowledgements,
            mint=mint,
        )

    def _group_desk(self) -> GroupFrontDesk:
        return GroupFrontDesk(
            lanes=self.lanes,
            book=self.ledger,
            groups=self.ledger.groups,
            booking=self.group_booking,
            keeper=self.keeper,
            operations=self.operations,
            wake=self.runner.wake,
            mint=mint,
            now=self.clock.now,
        )

    def _count_step(self, key: Key, step: act.Action) -> None:
        if isinstance(step, act.Erase) and step.orphan:
            log.warning("an orphan on the backend is possible", extra={"key": str(key), "orphan": step.orphan})
            self.meter.orphan_possible()

    def _count_end(self, operation: Operation) -> None:
        self.meter.operation_ended(operation.verb, operation.state.value)
        if operation.failure is not None and operation.failure.leftover:
            log.warning("an orphan on the backend is possible", extra={"orphan": operation.failure.leftover})
            self.meter.orphan_possible()
        if operation.verb == CREATE and operation.state is OperationState.DONE:
            self.meter.phase_ended("ready", operation.updated_at - operation.created_at)

    def tasks(self) -> Mapping[str, Task]:
        """What the supervisor keeps running."""
        return {**self.workers(), "api": self._api()}

    def workers(self) -> Mapping[str, Task]:
        """All of it but the API."""
        found: dict[str, Task] = {"registry": self.registry.run, "runner": self.runner.run}
        found["restores"] = self.restores.run
        found["reverts"] = self.reverts.run
        found["acknowledgements"] = self.acknowledgements.run
        if self.hub is not None:
            found["hub"] = self.hub.run
        for name, joined in self.joined.items():
            found[f"cluster-{name}"] = self._watch(joined)
        return found

    def _hub(self) -> Hub | None:
        section = self.settings.hub
        return Hub(section.settings(version=bridge.__version__), self.clock, self.registry) if section else None

    def _watch(self, joined: Joined) -> Task:
        async def run() -> None:
            plugins = self.registry.of(joined.orchestrator.cluster)
            await joined.orchestrator.run(self.runner.wake, self.intake, plugins)

        return run

    def _api(self) -> Task:
        authenticators = [one for joined in self.joined.values() for one in joined.authenticators]
        settings = self.settings.api.settings(authenticated_otherwise=bool(authenticators))
        app = make_app(
            self.desk, health=self.health, measures=self.meter, settings=settings, authenticators=authenticators
        )

        async def run() -> None:
            # A caller right after the start finds the plugins known, not "unknown driver".
            await self.registry.first_look(FIRST_LOOK_SECONDS)
            await serve(app, settings, started=self._started)

        return run

    def _started(self, addresses: Sequence[str]) -> None:
        self.health.started = True
        log.info("the service is up", extra={"action": "start", "addresses": list(addresses)})

    async def announce_plugins(self) -> None:
        """The sockets that the config names."""
        for plugin in self.settings.plugins:
            await self.registry.ensure_socket(
                plugin.name, plugin.socket, backend=plugin.backend, node=plugin.node, rules=plugin.calls.rules()
            )

    async def stop(self) -> None:
        """Before the tasks are cancelled: finish the turns under way."""
        self.health.stopping = True
        log.info("stopping", extra={"action": "stop"})
        await self.runner.drain(self.settings.service.shutdown_timeout)


def _serves(plugins: Plugins, driver: str) -> bool:
    return plugins.view(driver).known


def _first_reason(whole: Callable[[], str], one: Callable[[str], str], driver: str) -> str:
    return whole() or one(driver)


@contextlib.asynccontextmanager
async def assembled(
    settings: config.Config, catalogue: Catalogue, fence: Callable[[], str] = lambda: ""
) -> AsyncIterator[Service]:
    """A service whose parts are joined; nothing runs yet. `fence` tells why it may not act at this very moment."""
    clock = WallClock()
    tracer = Tracer()
    async with open_ledger(settings.service.ledger_url, clock) as ledger:
        service = Service(settings, ledger, Registry(settings.csi.settings(), clock, tracer), clock, fence)
        tracer.listen(service.meter.call_ended)
        await service.join(catalogue)
        service.assemble()
        await service.operations.load()
        await service.announce_plugins()
        yield service


async def run(settings: config.Config, catalogue: Catalogue, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then end in order."""
    async with assembled(settings, catalogue) as service:
        await supervise.run_until(stop, service.tasks(), first=service.stop)


async def run_node(
    document: node_config.NodeDocument, settings: AgentSettings, catalogue: Catalogue, stop: asyncio.Event
) -> None:
    """Run the agent of this host until `stop` is set."""
    clock = WallClock()
    registry = Registry(document.csi.settings(), clock)
    directory = document.node.registration_dir
    announcer = catalogue.announcer(directory, clock) if directory else None
    tasks: dict[str, Task] = {"registry": registry.run, "agent": NodeAgent(settings, clock, registry, announcer).run}
    for kind, section in document.finders().items():
        finder = catalogue.finder(kind, section, settings.node)
        tasks[f"sockets-{kind}"] = functools.partial(finder.run, registry)
    if announcer is not None:
        tasks["announcer"] = announcer.run
    await supervise.run_until(stop, tasks)
