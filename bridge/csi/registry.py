"""The plugin registry, keyed (driver, role, instance): which instances there are, how they are, which one to call.

Implements bridge.ports.plugin.Plugins and PluginSink, and bridge.ports.transport's TransportSink and LocalPlugins.
It never picks by chance, and it never raises for what a plugin does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence

from bridge.csi.carried import CarriedLink
from bridge.csi.cluster_plugins import ClusterPlugins
from bridge.csi.given import GivenMember
from bridge.csi.instance import Instance
from bridge.csi.member import NOT_YET, Member, Setting
from bridge.csi.settings import RegistrySettings, view_of
from bridge.csi.socket import SocketLink
from bridge.csi.trace import Tracer
from bridge.model.plugin import NO_RULES, CallRules, Capability, PluginDescription, PluginView, Role, Route
from bridge.ports.clock import Clock
from bridge.ports.plugin import PluginCalls
from bridge.ports.transport import Carriage, Transport

log = logging.getLogger(__name__)

_NEAREST = (Route.SOCKET, Route.NODE_AGENT, Route.ORCHESTRATOR)


class Registry:
    """Give it a clock, announce instances to it, and run it. Announcing before `run` is fine."""

    def __init__(self, settings: RegistrySettings, clock: Clock, tracer: Tracer | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._rules: dict[str, CallRules] = {}
        self._expected: dict[str, tuple[str, str, str]] = {}
        """Driver, sentence and cluster, by who expects it."""
        self._setting = Setting(settings, clock, tracer or Tracer(), self._changed, self._settings_of)
        self._members: dict[str, Member | GivenMember] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._best: dict[tuple[str, str], Member | GivenMember | None] = {}
        self._views: dict[tuple[str, str], tuple[tuple[object, ...], PluginView]] = {}
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Supervise all instances until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for member in self._members.values():
                    self._start(member)
                await asyncio.Event().wait()
        finally:
            self._group = None
            self._tasks.clear()

    async def first_look(self, seconds: float) -> None:
        """Return once every announced instance has answered or failed, at most after so long."""
        deadline = self._clock.now() + seconds
        while any(row.sentence == NOT_YET for row in self.describe()) and self._clock.now() < deadline:
            await self._clock.sleep(0.02)

    def of(self, cluster: str) -> ClusterPlugins:
        """The registry as one cluster sees it: what it announces is its own, and others' is not to be called."""
        return ClusterPlugins(self, cluster)

    def view(self, driver: str, cluster: str = "") -> PluginView:
        """See the port. `cluster`: only what may be called for its volumes."""
        member = self._best_of(driver, cluster)
        if member is None:
            own = ("", cluster)
            every = self._expected.values()
            awaited = next((text for one, text, of in every if one == driver and (not cluster or of in own)), "")
            sentence = awaited or f"no controller of driver {driver} is known: check the plugins in the config"
            seen = PluginView(driver, sentence=sentence, expected=bool(awaited))
            return view_of(seen, self._settings_of(driver, NO_RULES))
        # Asked for at every pass, and seldom another one.
        state = (
            member.healthy, member.capabilities, member.sentence, member.link.route, member.concurrency, member.rules,
            self._rules.get(driver),
        )  # fmt: skip
        known = self._views.get((driver, cluster))
        if known is not None and known[0] == state:
            return known[1]
        seen = PluginView(driver, True, member.healthy, member.capabilities, member.sentence, route=member.link.route)
        found = view_of(seen, self._settings_of(driver, member.rules))
        found = dataclasses.replace(found, concurrency=member.concurrency or found.concurrency)
        self._views[(driver, cluster)] = (state, found)
        return found

    def _settings_of(self, driver: str, rules: CallRules) -> RegistrySettings:
        """An instance's own rules, else its driver's, else the defaults."""
        counting = rules if rules != NO_RULES else self._rules.get(driver, NO_RULES)
        return self._settings if counting == NO_RULES else self._settings.under(counting)

    def controller(self, driver: str, cluster: str = "") -> PluginCalls | None:
        """See the port. The same one for as long as it is healthy and none that ranks before it appears.

        `cluster`: only one that may be called for its volumes.
        """
        member = self._best_of(driver, cluster)
        return member.controller if member is not None and member.healthy else None

    def node(self, driver: str, node: str) -> Instance | None:
        """The healthy instance with this driver's Node service on this node, or None."""
        for name in sorted(self._members):
            member = self._members[name]
            if isinstance(member, Member) and (member.driver, member.node) == (driver, node) and member.healthy:
                return member.instances.get(Role.NODE)
        return None

    def describe(self) -> Sequence[PluginDescription]:
        """See the port."""
        rows = [row for member in self._members.values() for row in member.rows()]
        return sorted(rows, key=lambda row: row.id)

    def carriage(self, instance: str) -> Carriage | None:
        """See LocalPlugins."""
        member = self._members.get(instance)
        return member.carriage() if isinstance(member, Member) else None

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """See the port. Listeners are called on the loop and must return at once."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    async def ensure_socket(
        self,
        instance: str,
        path: str,
        *,
        backend: str = "",
        node: str = "",
        rules: CallRules = NO_RULES,
        cluster: str = "",
    ) -> None:
        """See the port. Another path, backend, node or rule than before replaces the instance.

        `cluster`: whose plugin it is; empty for one that all share.
        """
        asked = (f"unix:{path}", backend, node, rules)
        async with self._lock:
            member = self._members.get(instance)
            if isinstance(member, Member) and (*_place(member), member.rules) == asked:
                return
            await self._remove(instance)
            link = SocketLink(path, self._settings, self._clock)
            member = Member(instance, link, self._setting, backend=backend, node=node, rules=rules)
            member.cluster = cluster
            self._add(instance, member)

    async def ensure_rules(self, driver: str, rules: CallRules) -> None:
        """See the port. A call under way ends by the old rules."""
        if self._rules.get(driver, NO_RULES) == rules:
            return
        self._rules[driver] = rules
        for member in self._members.values():
            if isinstance(member, Member) and member.driver == driver:
                member.retune()
        self._changed(frozenset({driver}))

    async def ensure_expected(self, name: str, driver: str, sentence: str, *, cluster: str = "") -> None:
        """See the port. `cluster`: for whose volumes; empty for all."""
        before = self._expected.pop(name, None)
        if sentence:
            self._expected[name] = (driver, sentence, cluster)
        if before != self._expected.get(name):
            self._changed(frozenset({driver}))

    async def ensure_transport(
        self,
        instance: str,
        transport: Transport,
        *,
        endpoint: str,
        node: str = "",
        backend: str = "",
        sentence: str = "",
    ) -> None:
        """See TransportSink."""
        asked = (endpoint, backend, node)
        async with self._lock:
            member = self._members.get(instance)
            same = isinstance(member, Member) and _place(member) == asked
            if same and isinstance(member, Member) and isinstance(member.link, CarriedLink):
                member.link.update(transport, sentence)
                return
            await self._remove(instance)
            link = CarriedLink(transport, sentence, endpoint=endpoint, clock=self._clock)
            self._add(instance, Member(instance, link, self._setting, backend=backend, node=node))

    async def ensure_calls(
        self,
        calls: PluginCalls,
        capabilities: frozenset[Capability],
        *,
        endpoint: str,
        sentence: str = "",
        concurrency: int = 1,
        cluster: str = "",
    ) -> None:
        """See the port. `cluster`: whose plugin it is; empty for one that all share."""
        member = GivenMember(calls, capabilities, endpoint=endpoint, sentence=sentence, concurrency=concurrency)
        member.cluster = cluster
        async with self._lock:
            before = self._members.get(member.name)
            if isinstance(before, GivenMember) and before.same_as(member):
                return
            await self._remove(member.name)
            self._add(member.name, member)

    async def ensure_no_instance(self, instance: str) -> None:
        """See the port. Calls in flight on it end as unsure."""
        async with self._lock:
            await self._remove(instance)

    async def _remove(self, instance: str) -> None:
        member = self._members.pop(instance, None)
        task = self._tasks.pop(instance, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        if member is not None:
            self._changed(frozenset({member.driver}))

    def _add(self, instance: str, member: Member | GivenMember) -> None:
        self._members[instance] = member
        if self._group is not None:
            self._start(member)
        self._changed(frozenset({member.driver}))

    def _start(self, member: Member | GivenMember) -> None:
        if isinstance(member, Member) and self._group is not None:
            task = self._group.create_task(member.run(), name=f"csi-member:{member.name}")
            self._tasks[member.name] = task

    def _best_of(self, driver: str, cluster: str = "") -> Member | GivenMember | None:
        if (driver, cluster) not in self._best:
            every = [m for m in self._members.values() if m.driver == driver and m.controller is not None]
            own = {m.backend for m in every if cluster and m.cluster == cluster} - {""}
            found = [m for m in every if _serves(m, cluster, own)]
            self._best[(driver, cluster)] = min(found, key=_rank, default=None) if driver else None
        return self._best[(driver, cluster)]

    def _changed(self, drivers: frozenset[str]) -> None:
        self._best.clear()
        self._views.clear()
        for driver in sorted(drivers):
            for listener in tuple(self._listeners):
                try:
                    listener(driver)
                except Exception:
                    log.exception("a listener for plugin changes failed", extra={"driver": driver})


def _serves(member: Member | GivenMember, cluster: str, backends: set[str]) -> bool:
    """Whether it may be called for this cluster's volumes. Another cluster's plugin of the same driver may stand
    before other storage: it would not know the volume, and would take the delete of a snapshot for done. It is shared
    where both say the same name of a backend; `backends` are those of the cluster's own plugins of the driver."""
    if not cluster or member.cluster == cluster:
        return True
    if not member.cluster:
        return not member.backend or not backends or member.backend in backends
    return member.backend in backends


def _place(member: Member) -> tuple[str, str, str]:
    return member.link.endpoint, member.backend, member.node


def _rank(member: Member | GivenMember) -> tuple[bool, bool, int, str]:
    """Healthy first, then one that cuts snapshots, then the shortest way, then by name."""
    cuts = Capability.CREATE_DELETE_SNAPSHOT in member.capabilities
    return (not member.healthy, not cuts, _NEAREST.index(member.link.route), member.name)
