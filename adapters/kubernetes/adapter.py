"""One Kubernetes cluster behind the `Orchestrator` port: both upstream halves in one process.

It wires the pieces of this package and runs the reflectors. Several replicas need `leader_election`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from adapters.kubernetes import election, member, names, on_record
from adapters.kubernetes.client import Client, open_client
from adapters.kubernetes.contents import Contents
from adapters.kubernetes.decide.election import Scope
from adapters.kubernetes.delegation import Delegation
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import path
from adapters.kubernetes.groups.means import GROUP, ClusterMeans
from adapters.kubernetes.groups.side import Groups
from adapters.kubernetes.intake import Door
from adapters.kubernetes.left_holds import LeftHolds
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.reflector import Pace, Reflector, catch_up
from adapters.kubernetes.requests import SnapshotRequests
from adapters.kubernetes.secrets import ClusterSecrets
from adapters.kubernetes.settings import Settings
from adapters.kubernetes.volumes import ClaimedVolumes
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer, always
from bridge.model.failure import NotSyncedError
from bridge.model.keys import Key, group_key, snapshot_key
from bridge.model.snapshot import OnRecord
from bridge.ports.adapter import Joined
from bridge.ports.clock import Clock
from bridge.ports.orchestrator import Intake, SnapshotDraft, Traits, Wake
from bridge.ports.plugin import PluginSink

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Ways:
    """What a role's flags say beside the settings."""

    groups: bool = True
    """Serve group snapshots where the cluster has them (the gate CSIVolumeGroupSnapshot)."""
    group_naming: names.Naming | None = None
    """How groups are called on the backend; None for the usual way."""
    source_mode: bool = True
    """Note the source's volume mode in new contents (--prevent-volume-mode-conversion)."""
    pace: Pace | None = None


class Cluster:
    """The `Orchestrator` port."""

    kind = "kubernetes"
    traits = Traits(durable_requests=True, creates_volumes=True)

    def __init__(
        self,
        settings: Settings,
        client: Client,
        *,
        cluster: str,
        clock: Clock,
        serves: Callable[[str], bool] | None = None,
        ways: Ways | None = None,
    ) -> None:
        ways = ways or Ways()
        self.cluster = cluster
        self.client = client
        self.world = World(settings.naming, forget_owners=settings.forget_field_owners)
        self.ownership = Ownership(
            self.client,
            clock,
            drivers=settings.drivers,
            serves=serves,
            check_seconds=settings.lease_check_seconds,
            quiet_seconds=settings.foreign_quiet_seconds,
        )
        self.election: election.Election | None = None
        writer = Writer(self.client, self.world, self._acting)
        self._events = Events(self.client, clock, self._acting)
        self.requests = SnapshotRequests(
            cluster, self.world, writer, events=self._events, ownership=self.ownership, clock=clock
        )
        self.ledger = Contents(cluster, self.world, writer, self._events, clock)
        self.ledger.source_mode = ways.source_mode
        means = ClusterMeans(cluster, writer, self._events, clock, self.requests.claims, self.ownership)
        self.groups = Groups(self.world, means, ways.group_naming)
        self._with_groups = ways.groups
        self._left_holds = LeftHolds(
            self.world, self.requests.claims, self.ownership, all_read=self._knows_all_holders
        )
        self.volumes = ClaimedVolumes(cluster, self.world, writer, self.client)
        self.secrets = ClusterSecrets(self.client)
        self.delegation = Delegation(cluster, self.world, self.ownership)
        self._door = Door(cluster, self.world, writer)
        self._reflectors = [
            Reflector(self.client, resource, cache, pace=ways.pace, on_synced=self._on_synced)
            for resource, cache in self.world.caches.items()
        ]
        self._wake: Callable[[str], None] = lambda _uid: None
        self._listen()
        if ways.groups:
            self._serve_groups(ways.pace)
        else:
            self.world.other_holders.clear()  # No group is ever read, and none needs a claim.

    def _listen(self) -> None:
        self.world.listen(lambda uid: self._wake(uid))
        self.world.contents.listen(self._on_content)
        self.world.classes.listen(self._on_class)
        self.world.snapshots.listen(self._on_snapshot)

    def _serve_groups(self, pace: Pace | None) -> None:
        self.requests.judge_member = self.groups.judge
        self._reflectors += self.groups.world.reflectors(self.client, pace=pace, on_synced=self._on_synced)
        self.groups.world.listen(lambda uid: self._wake(GROUP + uid), lambda uid: self._wake(uid))
        self.groups.watch_foreign(self.fence)

    def elect(self, standing: election.Election) -> None:
        """From now on act only while elected. To be called before `run`."""
        self.election = standing
        self.ownership.election = standing

    def joined(self) -> Joined:
        """Itself, with all that it adds to a service."""
        return Joined(
            self,
            resolvers={"k8s": self.secrets},
            problems=self.problems,
            fence=self.fence,
            follow=self.delegation.follow,
            delegations=self.delegation.rows,
            groups=self.groups.side if self._with_groups else None,
            on_record=self.on_record,
        )

    def on_record(self, driver: str) -> OnRecord:
        """What the contents and group contents of this driver name, whoever made or acts on them."""
        if not (self.world.synced and self._has_read_groups):
            raise NotSyncedError(f"cluster {self.cluster} is not read yet")
        return on_record.of(driver, self.world.contents.all(), self.groups.world.contents.all())

    @property
    def _has_read_groups(self) -> bool:
        return self.groups.world.synced or not self._with_groups

    def _knows_all_holders(self) -> bool:
        """Whether it is known who needs a claim; a cluster without the group kinds has no groups that do."""
        return self.world.synced and (self._has_read_groups or self.groups.world.absent)

    def _acting(self, driver: str) -> AbstractAsyncContextManager[None]:
        return self.election.acting(driver) if self.election is not None else always()

    async def submit(self, draft: SnapshotDraft) -> Key:
        """Create a VolumeSnapshot; its class is the draft's parameter `class`, or the driver's default."""
        return await self._door.submit(draft)

    async def withdraw(self, key: Key) -> None:
        """Delete the VolumeSnapshot."""
        await self._door.withdraw(key)

    async def abandon(self, key: Key) -> None:
        """Mark the VolumeSnapshot as let go in spite of an unsettled create."""
        await self._door.abandon(key)

    async def in_use(self, key: Key, handle: str) -> str:
        """Who waits to be filled from this snapshot."""
        snapshot = self.world.snapshots.by_uid(key.uid)
        if snapshot is None:
            return ""
        metadata = snapshot["metadata"]
        users = self.world.restoring(metadata["namespace"], metadata["name"])
        return f"being used to restore {', '.join(users)}" if users else ""

    async def run(self, wake: Wake, intake: Intake, plugins: PluginSink) -> None:
        """Watch until cancelled."""
        del intake, plugins  # VolumeSnapshots are durable requests; plugins are found by their sockets.
        self._wake = lambda uid: wake(self._key(uid))
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self._reflectors:
                    group.create_task(reflector.run(), name=f"{self.cluster}-{reflector.plural}")
                group.create_task(self.ownership.run(lambda uid: self._wake(uid)), name=f"{self.cluster}-leases")
                group.create_task(self.requests.claims.run(), name=f"{self.cluster}-claims")
                group.create_task(self._left_holds.run(), name=f"{self.cluster}-left-holds")
                if self.election is not None:
                    run_election = self.election.run(self._catch_up, self._on_synced)
                    group.create_task(run_election, name=f"{self.cluster}-election")
        finally:
            self._wake = lambda _uid: None
            await self.client.close()

    def _key(self, uid: str) -> Key:
        """The key of a snapshot's uid, or of a group's, which is marked."""
        if uid.startswith(GROUP):
            return group_key(self.cluster, uid.removeprefix(GROUP))
        return snapshot_key(self.cluster, uid)

    def ready(self) -> str:
        """Empty when every kind has been read and, with leader election, some replica of ours can lead."""
        reasons = [reflector.sentence for reflector in self._reflectors if reflector.sentence]
        if self.election is not None and self.election.trouble():
            reasons.append(self.election.trouble())
        return f"cluster {self.cluster}: {'; '.join(reasons)}" if reasons else ""

    def problems(self) -> Sequence[str]:
        """What people may want to know though we are ready: that we stand by, and for whom."""
        elsewhere = [self.ownership.sentence()] if self.ownership.sentence() else []
        return [*elsewhere, *(self.election.standing_by() if self.election is not None else ())]

    def fence(self, driver: str) -> str:
        """Why we may not act for this driver at this very moment; empty when we may."""
        return self.election.why_not(driver) if self.election is not None else ""

    def leader_page(self) -> tuple[int, str]:
        """For a liveness probe: bad when a lease that names us has not been renewed for long."""
        late = self.election.late() if self.election is not None else ""
        return (500, f"{late}\n") if late else (200, "ok\n")

    async def _catch_up(self, led_before: bool) -> None:
        """After a lease was won: everything as it stands now, and nothing taken for known from an earlier term."""
        await catch_up(self._reflectors)
        if led_before:
            self.ledger.begin_term()
            self.groups.ledger.begin_term()

    def _on_synced(self) -> None:
        if self.world.synced:
            for uid in self.world.open_uids():
                self._wake(uid)
        if self.world.synced and self.groups.world.synced:
            for uid in self.groups.world.open_uids():
                self._wake(GROUP + uid)

    def _on_snapshot(self, before: Object | None, after: Object | None) -> None:
        if before is not None and after is None:
            self.ownership.forget(before["metadata"]["uid"])

    def _on_class(self, before: Object | None, after: Object | None) -> None:
        if after is not None and after.get("driver"):
            self.ownership.meet(str(after["driver"]))

    def _on_content(self, before: Object | None, after: Object | None) -> None:
        """A content that somebody else makes, before our eyes: our own ones carry our note from the start."""
        if after is None or not self.world.synced:
            return
        if self.fence(""):
            return  # Another replica of ours acts: that is no other controller.
        notes = after["metadata"].get("annotations") or {}
        if names.INTENT in notes or member.GROUP_HANDLE in notes or not path(after, "spec", "source", "volumeHandle"):
            return
        marked = names.BEING_CREATED in notes
        known = before is not None and (
            not marked or names.BEING_CREATED in (before["metadata"].get("annotations") or {})
        )
        if not known:
            self.ownership.saw_foreign_create(str(path(after, "spec", "driver") or ""), after["metadata"]["name"])


async def build(
    settings: Settings,
    *,
    cluster: str,
    clock: Clock,
    serves: Callable[[str], bool] | None = None,
    ways: Ways | None = None,
) -> Cluster:
    """Open the way to the API server and make the adapter; nothing is read before `run`.

    `serves` says whether this process holds a plugin of a driver; it is asked where the settings name none.
    InvalidError: the configuration cannot be used.
    """
    client = await open_client(settings)
    made = Cluster(settings, client, cluster=cluster, clock=clock, serves=serves, ways=ways)
    if settings.leader_election:
        made.elect(await standing(settings, made, clock))
    return made


async def standing(settings: Settings, cluster: Cluster, clock: Clock) -> election.Election:
    """Both halves in one process stand for both kinds of leases."""
    return await election.stand(settings, clock, scope=Scope.BOTH, drivers=cluster.ownership.chosen_drivers)
