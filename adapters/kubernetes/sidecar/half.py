"""The driver half as a whole, behind the `Orchestrator` port: what it watches, what that wakes, when it may act."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from adapters.kubernetes import election, names
from adapters.kubernetes.client import Client
from adapters.kubernetes.events import Events
from adapters.kubernetes.groups import names as group_names
from adapters.kubernetes.groups.driver import DriverGroups
from adapters.kubernetes.groups.means import GROUP, Means
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.reflector import Pace, Reflector, catch_up
from adapters.kubernetes.secrets import ClusterSecrets
from adapters.kubernetes.sidecar.records import ContentRecords
from adapters.kubernetes.sidecar.requests import ContentRequests
from adapters.kubernetes.sidecar.world import DriverWorld
from adapters.kubernetes.writer import Writer, always
from bridge.model.failure import InvalidError
from bridge.model.keys import Key, group_key, snapshot_key
from bridge.model.volume import Volume
from bridge.ports.clock import Clock
from bridge.ports.group import GroupSide
from bridge.ports.orchestrator import Intake, SnapshotDraft, Traits, Wake
from bridge.ports.plugin import PluginSink

COMPONENT = "csi-snapshotter"
"""Who the events are from, before the driver's name: upstream's name, which owners filter by."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ways:
    """What its flags say."""

    naming: names.Naming = names.Naming()
    group_naming: names.Naming = group_names.NAMING
    groups: bool = True
    """Serve group snapshots where the cluster has them (the gate CSIVolumeGroupSnapshot)."""
    node: str = ""
    """Serve only the contents that are labelled with this node; empty for all."""
    pace: Pace | None = None
    lease_check_seconds: float = 10.0
    """How often to look whether another sidecar holds the driver's lease."""
    lease_namespace: str = ""
    """Where to look for it when the leases of the whole cluster may not be read."""
    forget_owners: bool = False
    """See `Settings.forget_field_owners`."""


class DriverHalf:
    """The `Orchestrator` port for the contents of one driver."""

    kind = "kubernetes"
    traits = Traits(durable_requests=True, creates_volumes=False)

    def __init__(self, driver: str, client: Client, *, cluster: str, clock: Clock, ways: Ways | None = None) -> None:
        ways = ways or Ways()
        self.cluster = cluster
        self.driver = driver
        self.client = client
        self.world = DriverWorld(driver, ways.naming, forget_owners=ways.forget_owners)
        self.election: election.Election | None = None
        writer = Writer(client, self.world, self._acting)
        events = Events(client, clock, self._acting, component=f"{COMPONENT} {driver}")
        self.requests = ContentRequests(cluster, self.world, writer, events, clock)
        self.requests.why_not = self._why_not
        self.ownership: Ownership | None = None
        if not ways.node:  # On nodes the sidecars of one driver act at once.
            self.ownership = Ownership(
                client,
                clock,
                drivers=(driver,),
                serves=None,
                check_seconds=ways.lease_check_seconds,
                quiet_seconds=0.0,
            )
            self.ownership.cluster_lease, self.ownership.lease_namespace = False, ways.lease_namespace
        self.ledger = ContentRecords(cluster, self.world, writer, events, clock)
        self.groups: GroupSide | None = None
        """What serves the driver's group contents. None: groups are left alone."""
        self.volumes = NoVolumes()
        self.secrets = ClusterSecrets(client)
        contents = names.CONTENTS
        if ways.node:
            contents = dataclasses.replace(contents, label_selector=f"{names.MANAGED_BY}={ways.node}")
        self._reflectors = [
            Reflector(client, contents, self.world.contents, pace=ways.pace, on_synced=self._on_synced),
            Reflector(client, names.CLASSES, self.world.classes, pace=ways.pace, on_synced=self._on_synced),
        ]
        self._wake: Callable[[str], None] = lambda _uid: None
        self.world.listen(lambda uid: self._wake(uid))
        self._group_half: DriverGroups | None = None
        if ways.groups and not ways.node:  # Nobody labels group contents with a node.
            means = Means(cluster, writer, events, clock)
            half = self._group_half = DriverGroups(driver, means, naming=ways.group_naming, why_not=self._why_not)
            self.groups = half.side
            self._reflectors += half.world.reflectors(client, pace=ways.pace, on_synced=self._on_synced)
            half.world.listen(lambda uid: self._wake(GROUP + uid))

    def _key(self, uid: str) -> Key:
        """The key of a content's uid, or of a group content's, which is marked."""
        if uid.startswith(GROUP):
            return group_key(self.cluster, uid.removeprefix(GROUP))
        return snapshot_key(self.cluster, uid)

    def elect(self, standing: election.Election) -> None:
        """From now on act only while elected. To be called before `run`."""
        self.election = standing
        if self.ownership is not None:
            self.ownership.election = standing

    async def run(self, wake: Wake, intake: Intake, plugins: PluginSink) -> None:
        """Watch until cancelled."""
        del intake, plugins  # Contents are durable requests; the one plugin is known.
        self._wake = lambda uid: wake(self._key(uid))
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self._reflectors:
                    group.create_task(reflector.run(), name=f"watch-{reflector.plural}")
                if self.ownership is not None:
                    group.create_task(self.ownership.run(lambda uid: self._wake(uid)), name="leases")
                if self.election is not None:
                    group.create_task(self.election.run(self._catch_up, self._on_synced), name="election")
        finally:
            self._wake = lambda _uid: None
            await self.client.close()

    def ready(self) -> str:
        """Empty when both kinds have been read; standing by is no fault."""
        reasons = [reflector.sentence for reflector in self._reflectors if reflector.sentence]
        if not reasons and self.ownership is not None and self.ownership.sentence():
            reasons = [self.ownership.sentence()]
        if self.election is not None and self.election.trouble():
            reasons.append(self.election.trouble())
        return f"cluster {self.cluster}: {'; '.join(reasons)}" if reasons else ""

    def problems(self) -> Sequence[str]:
        """That we stand by, and for whom."""
        return self.election.standing_by() if self.election is not None else ()

    def fence(self, driver: str) -> str:
        """Why we may not act at this very moment; empty when we may."""
        return self.election.why_not(driver) if self.election is not None else ""

    def leader_page(self) -> tuple[int, str]:
        """For a liveness probe: bad when a lease that names us has not been renewed for long."""
        late = self.election.late() if self.election is not None else ""
        return (500, f"{late}\n") if late else (200, "ok\n")

    async def submit(self, draft: SnapshotDraft) -> Key:
        """Requests come from the other half."""
        raise InvalidError("a driver half takes no requests of its own")

    async def withdraw(self, key: Key) -> None:
        """Requests are withdrawn by the other half."""
        raise InvalidError("a driver half withdraws no requests")

    async def abandon(self, key: Key) -> None:
        """A content is marked by its owner."""
        raise InvalidError(f"mark the VolumeSnapshotContent with {names.ABANDON}")

    async def in_use(self, key: Key, handle: str) -> str:
        """Who restores is the other half's knowledge: it marks no content that is in use."""
        return ""

    def _why_not(self, uid: str) -> str:
        """Two controllers never act on one driver: not while another one's lease is live, nor while ours is not."""
        if self.ownership is None or self.ownership.ours(self.driver, uid):
            return self.fence(self.driver)
        return self.ownership.why_not(self.driver)

    def _acting(self, driver: str) -> AbstractAsyncContextManager[None]:
        return self.election.acting(driver or self.driver) if self.election is not None else always()

    async def _catch_up(self, led_before: bool) -> None:
        """After the lease was won: everything as it stands now, and nothing taken for known from an earlier term."""
        await catch_up(self._reflectors)
        if led_before:
            self.ledger.begin_term()
            if self._group_half is not None:
                self._group_half.ledger.begin_term()

    def _on_synced(self) -> None:
        if self.world.synced:
            for uid in self.world.open_uids():
                self._wake(uid)
        if self._group_half is not None and self._group_half.world.synced:
            for uid in self._group_half.world.open_uids():
                self._wake(GROUP + uid)


class NoVolumes:
    """The `Volumes` port of a process that may read none."""

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        """None."""
        return ()

    async def find(self, namespace: str, name: str) -> Volume:
        """Refused."""
        raise InvalidError("a driver half reads no volumes")

    async def register(self, volume: Volume, like: Volume | None) -> None:
        """Refused."""
        raise InvalidError("a driver half registers no volumes")

    async def forget(self, namespace: str, name: str) -> Volume | None:
        """Refused."""
        raise InvalidError("a driver half forgets no volumes")
