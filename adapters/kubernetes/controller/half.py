"""The cluster half as a whole: what it watches, which keys that wakes, and when it may act."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from adapters.kubernetes import election
from adapters.kubernetes.client import Client
from adapters.kubernetes.controller.turns import CLAIM, Rules, Turns
from adapters.kubernetes.events import Events
from adapters.kubernetes.groups.controller import GroupTurns
from adapters.kubernetes.groups.means import GROUP, Means
from adapters.kubernetes.groups.side import judge
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.reflector import Pace, Reflector, catch_up
from adapters.kubernetes.settings import Settings
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer, always
from bridge.ports.clock import Clock
from bridge.ports.loop import Loop, Turn

COMPONENT = "snapshot-controller"
"""Who the events are from: upstream's name, which owners filter by."""
SNAPSHOT_QUEUE = "snapshot-controller-snapshot"
CONTENT_QUEUE = "snapshot-controller-content"
GROUP_QUEUE = "snapshot-controller-group-snapshot"
RESYNC_SLICE = 200

MakeQueue = Callable[[str, Turn], Loop]


@dataclasses.dataclass(frozen=True, slots=True)
class Ways:
    """What its flags say."""

    rules: Rules = Rules()
    groups: bool = True
    """Serve group snapshots where the cluster has them (the gate CSIVolumeGroupSnapshot)."""
    pace: Pace | None = None
    resync_seconds: float = 900.0


class ClusterHalf:
    """Reflectors, loops and the leave to act. `run` and the loops go on until they are cancelled."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        make_queue: MakeQueue,
        clock: Clock,
        ways: Ways | None = None,
    ) -> None:
        ways = ways or Ways()
        rules = ways.rules
        self.client = client
        self.world = World(nodes=rules.distributed, forget_owners=settings.forget_field_owners)
        self.ownership = Ownership(
            client,
            clock,
            drivers=(),
            serves=lambda _driver: False,
            check_seconds=settings.lease_check_seconds,
            quiet_seconds=settings.foreign_quiet_seconds,
        )
        self.election: election.Election | None = None
        self._look_at_all = asyncio.Event()
        self._resync_seconds = ways.resync_seconds
        self.writer = Writer(client, self.world, self._acting)
        self.events = Events(client, clock, self._acting, component=COMPONENT)
        self.turns = Turns(self.world, self.writer, self.events, clock=clock, rules=rules)
        self.turns.standing = self._why_not
        self._snapshots = make_queue(SNAPSHOT_QUEUE, self.turns.turn)
        self._contents = make_queue(CONTENT_QUEUE, self.turns.turn)
        self.reflectors = [
            Reflector(client, resource, cache, pace=ways.pace, on_synced=self.look_at_all)
            for resource, cache in self.world.caches.items()
        ]
        self.world.listen(self.wake)
        self.groups: GroupWorld | None = None
        self._group_snapshots: Loop | None = None
        if ways.groups:
            self._serve_groups(make_queue, clock, ways.pace)

    def _serve_groups(self, make_queue: MakeQueue, clock: Clock, pace: Pace | None) -> None:
        groups = self.groups = GroupWorld(self.world)
        self.writer.also(groups.caches)
        self.turns.judge_member = lambda facts: "" if facts.snapshot is None else judge(groups, facts.snapshot)
        turns = GroupTurns(groups, Means("", self.writer, self.events, clock), self.turns.claims)
        turns.standing = lambda key: self._why_not(GROUP + key)
        self._group_snapshots = make_queue(GROUP_QUEUE, turns.turn)
        self.reflectors += groups.reflectors(self.client, pace=pace, on_synced=self.look_at_all)
        groups.listen(self._group_snapshots.wake, self.wake)

    @property
    def loops(self) -> Sequence[Loop]:
        """What is to be run beside `run`."""
        some = (self._snapshots, self._contents, self._group_snapshots)
        return tuple(loop for loop in some if loop is not None)

    def elect(self, standing: election.Election) -> None:
        """From now on act only while elected. To be called before `run`."""
        self.election = standing
        self.ownership.election = standing

    def wake(self, key: str) -> None:
        """Have a key looked at: by the snapshots' loop where there is a VolumeSnapshot, else by the contents'."""
        if key.startswith(GROUP) and self._group_snapshots is not None:
            self._group_snapshots.wake(key.removeprefix(GROUP))
            return
        loop = self._snapshots if self.world.snapshots.knows(key) else self._contents
        loop.wake(key)

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self.reflectors:
                    group.create_task(reflector.run(), name=f"watch-{reflector.plural}")
                group.create_task(self.ownership.run(self.wake), name="leases")
                group.create_task(self._resync(), name="resync")
                group.create_task(self._looks(), name="looks")
                if self.election is not None:
                    group.create_task(self.election.run(self._catch_up, self.look_at_all), name="election")
        finally:
            await self.client.close()

    def ready(self) -> str:
        """Empty when every kind has been read, and nobody else's lease is in the way."""
        reasons = [reflector.sentence for reflector in self.reflectors if reflector.sentence]
        if not reasons and self.ownership.sentence():
            reasons = [self.ownership.sentence()]
        if self.election is not None and self.election.trouble():
            reasons.append(self.election.trouble())
        return "; ".join(reasons)

    @property
    def acting(self) -> bool:
        """Whether the work is ours at this moment."""
        elsewhere = self.election.why_not("") if self.election is not None else ""
        return not (elsewhere or self.ownership.sentence())

    def leader_page(self) -> tuple[int, str]:
        """For a liveness probe: bad when a lease that names us has not been renewed for long."""
        late = self.election.late() if self.election is not None else ""
        return (500, f"{late}\n") if late else (200, "ok\n")

    def look_at_all(self) -> None:
        """Have everything looked at soon; asked for several times in a row, it is done once."""
        self._look_at_all.set()

    # -- inside ----------------------------------------------------------------------------------------------

    async def _looks(self) -> None:
        while True:
            await self._look_at_all.wait()
            self._look_at_all.clear()
            if self.world.synced:
                self._wake_open()

    def _wake_open(self) -> None:
        """Wake whatever may need work, holds on claims that a crash left included."""
        for uid in self.world.open_uids():
            self.wake(uid)
        for claim in self.world.held_claims():
            metadata = claim["metadata"]
            self._contents.wake(f"{CLAIM}{metadata['namespace']}/{metadata['name']}")
        if self.groups is not None and self._group_snapshots is not None and self.groups.synced:
            for uid in self.groups.open_uids():
                self._group_snapshots.wake(uid)

    def _acting(self, driver: str) -> AbstractAsyncContextManager[None]:
        return self.election.acting(driver) if self.election is not None else always()

    def _why_not(self, key: str) -> str:
        """Two controllers never act: not while another one's lease is live, nor while ours is not held."""
        return "" if self.ownership.ours("", key) else self.ownership.why_not("")

    async def _catch_up(self, _led_before: bool) -> None:
        """After the lease was won: everything as it stands now."""
        await catch_up(self.reflectors)

    async def _resync(self) -> None:
        """Look at everything now and then, in slices: a look that finds nothing to do writes nothing."""
        while True:
            await asyncio.sleep(self._resync_seconds)
            for number, uid in enumerate(self.world.uids()):
                self.wake(uid)
                if number % RESYNC_SLICE == RESYNC_SLICE - 1:
                    await asyncio.sleep(0)
            self.look_at_all()
