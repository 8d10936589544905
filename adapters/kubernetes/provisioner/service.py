"""One driver's provisioner in one cluster: reflectors, loops, the lease, the sweep. Wires; decides nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping

from adapters.kubernetes import election, names
from adapters.kubernetes.client import Client, open_client
from adapters.kubernetes.decide import provision, topology
from adapters.kubernetes.decide.election import Scope
from adapters.kubernetes.events import Events
from adapters.kubernetes.metrics import UpstreamMetrics
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.provisioner.holds import Holds
from adapters.kubernetes.provisioner.making import Making
from adapters.kubernetes.provisioner.meters import Meters
from adapters.kubernetes.provisioner.parts import Parts
from adapters.kubernetes.provisioner.reclaiming import Reclaiming
from adapters.kubernetes.provisioner.scene import Extent, Scene, Wakes
from adapters.kubernetes.reflector import Pace, Reflector, catch_up
from adapters.kubernetes.secrets import ClusterSecrets
from adapters.kubernetes.settings import Settings
from adapters.kubernetes.writer import Writer, always
from bridge.model.plugin import Capability
from bridge.ports.clock import Clock
from bridge.ports.loop import Loop, RetrySchedule, Turn
from bridge.ports.role import RoleSurroundings

EVERYTHING = "everything"
"""What is turned away while another provisioner's lease is live, and looked at when that ends."""
OPTIONAL = (names.SNAPSHOTS, names.GRANTS)
"""Kinds that a cluster may lack, or that an older role may not watch: claims without them are served all the same."""
OPTIONAL_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    options: provision.Options
    rules: topology.Rules
    retry: RetrySchedule
    slow_seconds: float
    workers: int
    source_workers: int
    sweep_seconds: float
    """0: no sweep."""


def lease_name(driver: str) -> str:
    """The lease of upstream's provisioner: the driver's name, with dashes for what a name may not have."""
    name = re.sub(r"[^a-zA-Z0-9-]", "-", driver)
    return f"{name}X" if name.endswith("-") else name


class Election(election.Election):
    """Stands for the lease of upstream's provisioner."""

    def lease(self, driver: str) -> str:
        """See the base class."""
        return lease_name(driver)


class Provisioner:
    """The parts and their tasks."""

    def __init__(
        self,
        client: Client,
        lent: RoleSurroundings,
        wanted: Wanted,
        *,
        stand: election.Election | None,
        ownership: Ownership,
    ) -> None:
        driver = wanted.options.driver
        upstream = UpstreamMetrics(lent.meters)
        lent.on_call(upstream.call_ended)
        if stand is not None:
            upstream.watch_leases(stand.held)
        self._client = client
        self._election = stand
        self._ownership = ownership
        self._sweep_seconds = wanted.sweep_seconds
        self._clock = lent.clock
        self.scene = Scene(driver, _extent(lent, wanted))
        parts = dataclasses.replace(
            _parts(client, self.scene, lent, wanted, stand),
            why_not=lambda: "" if ownership.ours(driver, EVERYTHING) else ownership.why_not(driver),
        )
        holds = Holds(parts)
        identity = f"{int(lent.clock.now() * 1000)}-{lent.mint()[:4]}-{driver}"
        self._making = Making(parts, holds, wanted.options, wanted.rules, identity=identity)
        reclaiming = Reclaiming(parts)
        self._claims = _loop(lent, upstream, "claims", self._making.turn, wanted)
        self._volumes = _loop(lent, upstream, "volumes", reclaiming.turn, wanted)
        self._sources = lent.make_loop("sources", holds.turn, workers=wanted.source_workers, retry=wanted.retry)
        self._making.sources = self._sources
        self._wakes = Wakes(self._claims.wake, self._volumes.wake, self._sources.wake)
        self.scene.listen(self._wakes)
        self._reflectors = {
            resource: Reflector(
                client,
                resource,
                cache,
                pace=Pace(most=OPTIONAL_SECONDS) if resource in OPTIONAL else None,
                on_synced=self._on_synced,
            )
            for resource, cache in self.scene.caches.items()
        }

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Run, and drained at the stop."""
        return (self._claims, self._volumes, self._sources)

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Run until the stop."""
        found: dict[str, Callable[[], Awaitable[None]]] = {"cluster": self._run}
        if self._sweep_seconds > 0:
            found["sweep"] = self._sweep
        return found

    def ready(self) -> str:
        """Empty when it serves."""
        needed = [resource for resource in self._reflectors if resource not in OPTIONAL]
        reasons = [sentence for resource in needed if (sentence := self._reflectors[resource].sentence)]
        if not reasons and self._ownership.sentence():
            reasons = [self._ownership.sentence()]
        if self._election is not None and self._election.trouble():
            reasons.append(self._election.trouble())
        return "; ".join(reasons)

    def lease_page(self) -> tuple[int, str]:
        """Whether this process still renews what it holds."""
        late = self._election.late() if self._election is not None else ""
        return (500, f"{late}\n") if late else (200, "ok\n")

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self._reflectors.values():
                    group.create_task(reflector.run(), name=f"watch-{reflector.plural}")
                group.create_task(self._ownership.run(lambda _everything: self._on_synced()), name="leases")
                if self._election is not None:
                    group.create_task(self._election.run(self._catch_up, self._on_synced), name="lease")
        finally:
            await self._client.close()

    async def _catch_up(self, led_before: bool) -> None:
        """After a lease was won: everything as it stands now, and nothing taken for known from an earlier term."""
        await catch_up(reflector for kind, reflector in self._reflectors.items() if kind not in OPTIONAL)
        if led_before:
            self._making.forget()

    def _on_synced(self) -> None:
        if self.scene.synced:
            self.scene.wake_all(self._wakes)

    async def _sweep(self) -> None:
        """Now and then look at every held source: what a crash or another provisioner left is dropped."""
        while True:
            await self._clock.sleep(self._sweep_seconds)
            self.scene.wake_held(self._sources.wake)


def _extent(lent: RoleSurroundings, wanted: Wanted) -> Extent:
    """What this driver needs to be watched."""
    can = lent.plugins.view(wanted.options.driver).capabilities
    return Extent(
        topology=Capability.VOLUME_ACCESSIBILITY_CONSTRAINTS in can,
        attachments=Capability.PUBLISH_UNPUBLISH_VOLUME in can,
        snapshots=Capability.CREATE_DELETE_SNAPSHOT in can,
        grants=wanted.options.across_namespaces,
    )


def _parts(
    client: Client, scene: Scene, lent: RoleSurroundings, wanted: Wanted, stand: election.Election | None
) -> Parts:
    driver = wanted.options.driver
    acting = stand.acting if stand is not None else always
    return Parts(
        driver=driver,
        scene=scene,
        client=client,
        writer=Writer(client, scene, acting),
        events=Events(client, lent.clock, acting),
        secrets=ClusterSecrets(client),
        plugins=lent.plugins,
        clock=lent.clock,
        meters=Meters(lent.meters),
        retry=wanted.retry,
        slow_seconds=wanted.slow_seconds,
    )


def _loop(lent: RoleSurroundings, meters: UpstreamMetrics, name: str, turn: Turn, wanted: Wanted) -> Loop:
    """A loop whose queue is measured under upstream's name for it."""
    queue = meters.queue(name)
    return queue.watched(lent.make_loop(name, queue.timed(turn), workers=wanted.workers, retry=wanted.retry))


async def build(settings: Settings, lent: RoleSurroundings, wanted: Wanted) -> Provisioner:
    """Open the way to the API server; nothing is read before the tasks run."""
    client = await open_client(settings)
    driver = wanted.options.driver
    stand = None
    if settings.leader_election:
        stand = await election.stand(
            settings, lent.clock, scope=Scope.DRIVERS, drivers=lambda: (driver,), kind=Election
        )
    return Provisioner(
        client, lent, wanted, stand=stand, ownership=own(settings, client, lent.clock, driver, stand=stand)
    )


def own(
    settings: Settings, client: Client, clock: Clock, driver: str, *, stand: election.Election | None
) -> Ownership:
    """Looks whether another provisioner's lease for the driver is live, wherever it is."""
    found = Ownership(
        client,
        clock,
        drivers=(driver,),
        serves=None,
        check_seconds=settings.lease_check_seconds,
        quiet_seconds=0.0,
    )
    found.lease, found.cluster_lease, found.election = lease_name, False, stand
    found.lease_namespace = election.namespace(settings.lease_namespace, settings.service_account_dir)
    return found
