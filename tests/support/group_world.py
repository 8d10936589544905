"""The small world of `world.py` for a group of two volumes, and the lives that a group may lead in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from bridge.decide import action as act
from bridge.decide import group
from bridge.decide import group_action as gact
from bridge.model.group import GroupHandleSource, GroupRequest, VolumesSource
from bridge.model.keys import Key, group_key
from bridge.model.snapshot import DeletionPolicy, Wish
from bridge.ports.group import GroupSide
from bridge.service import groups, work
from tests.support import memory
from tests.support.world import Breach, World

KEY = group_key("c", "g1")
Decide = Callable[[group.Observed, float], gact.GroupAction]
VOLUMES = ("v1", "v2")
BY_HAND = ("by-hand-a", "by-hand-b")
FAULTS = ("ok", "crash before", "crash after", "lost before", "lost after", "refused", "conflict")


@dataclasses.dataclass
class GroupWorld(World):
    """Ports, their state, and the process that comes and goes."""

    decide: Decide = group.decide
    pins: frozenset[Key] = frozenset()
    """Members that somebody pinned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plugin.capabilities.add(group.NEEDED)
        if self.adopt:
            self.plugin.by_hand.clear()
            members = [memory.Stored(handle, "v", self.not_ready) for handle in BY_HAND]
            self.plugin.groups["by hand"] = memory.StoredGroup(self.adopt, members)
        source = GroupHandleSource(self.adopt, BY_HAND) if self.adopt else VolumesSource(VOLUMES)
        self.requests = memory.MemoryRequests(
            self.script,
            GroupRequest(KEY, Wish.PRESENT, "ns", "one", "d", source, "groupsnapshot-g1", self.policy, held=False),
        )

    @property
    def key(self) -> Key:
        return KEY

    def group_handles(self) -> set[str]:
        return {one.handle for one in self.plugin.groups.values()}

    def _breach(self, what: str) -> str:
        record, request = self.ledger.records.get(KEY), self.requests.request
        if record is None:
            return f"{what} without a record"
        if record.retry_at > self.clock.now():
            return f"{what} inside its back-off"
        if what == "create group" and not (record.note_open or record.handle):
            return "create without an open note"
        if what == "create group" and request.wish is Wish.PRESENT and not request.held:
            return "create without a hold"
        if what.startswith("delete group "):
            return self._delete_breach(what.removeprefix("delete group "))
        return f"{what}: a member was touched by itself" if "group" not in what else ""

    async def _pinned(self, keys: Sequence[Key]) -> str:
        return next((f"its member {key.uid} is pinned" for key in keys if key in self.pins), "")

    async def _step(self) -> gact.GroupAction:
        tools = work.Tools(
            self.plugin, self.clock, f"writer-{self.incarnation}", doubts=self.doubts, pinned=self._pinned
        )
        side = GroupSide(self.requests, self.ledger)
        lane = _Lane(side)
        seen = await groups.observe(KEY, lane, side, tools)
        if seen is None:
            return act.Rest("unknown", "")
        step = self.decide(seen, self.clock.now())
        if isinstance(step, act.Wait | act.Rest):
            await self.requests.publish(seen.request, group.project(seen, step))
        else:
            await groups.perform(seen, step, lane, tools)
        return step


@dataclasses.dataclass
class _Lane:
    groups: GroupSide
    secrets: memory.NoSecrets = dataclasses.field(default_factory=memory.NoSecrets)
    fence: Callable[[str], str] = lambda _driver: ""
    guard: None = None

    def of(self, plugins: memory.MemoryPlugin) -> memory.MemoryPlugin:
        return plugins

    def calls(self, plugins: memory.MemoryPlugin, driver: str) -> memory.MemoryPlugin | None:
        return plugins.controller(driver)


def live(
    faults: dict[int, str],
    *,
    policy: DeletionPolicy = DeletionPolicy.DELETE,
    not_ready: int = 0,
    change_after: int | None = None,
    adopt: str = "",
    decide: Decide = group.decide,
) -> GroupWorld:
    """Wanted, then no longer wanted (after `change_after` turns, or once it rests). Checks every promise."""
    world = GroupWorld(policy, not_ready, adopt, faults, decide)
    foreign = world.group_handles()
    last = world.settle(turns=400 if change_after is None else change_after)
    if change_after is None:
        _check_present(world, last, foreign)
    before = world.group_handles()
    world.want(wish=Wish.ABSENT)
    last = world.settle(turns=400)
    _check_absent(world, last, before, foreign)
    return world


def _check_present(world: GroupWorld, last: act.Action, foreign: set[str]) -> None:
    if not (isinstance(last, act.Rest) and last.reason == "ready"):
        raise Breach(f"wanted, but it came to rest with {last}")
    made = world.group_handles() - foreign
    if not world.adopt and len(made) != 1:
        raise Breach(f"wanted one group, the backend has {len(made)}")
    told = world.requests.told[-1]
    if not told.ready or told.handle not in world.group_handles():
        raise Breach("told ready, but it does not exist")
    if {member.handle for member in told.members} != world.plugin.member_handles():
        raise Breach("the members told are not those on the backend")
    if not all(member.ready for member in told.members):
        raise Breach("ready, but a member is not")
    if not world.requests.request.held:
        raise Breach("ready, but not held")


def _check_absent(world: GroupWorld, last: act.Action, before: set[str], foreign: set[str]) -> None:
    if not isinstance(last, act.Rest):
        raise Breach(f"withdrawn, but it did not come to rest: {last}")
    if world.requests.request.held:
        raise Breach("withdrawn, but still held")
    left = world.group_handles()
    if world.policy is DeletionPolicy.DELETE and not world.adopt and left - foreign:
        raise Breach(f"policy Delete left {left}")
    if world.policy is DeletionPolicy.RETAIN and not before <= left:
        raise Breach("policy Retain lost a group")
    if world.policy is DeletionPolicy.RETAIN and left - foreign:
        record = world.ledger.records.get(KEY)
        if record is None or record.handle not in left or set(record.member_handles) != world.plugin.member_handles():
            raise Breach("a retained group that nobody knows of")
    if len(left - foreign) > 1:
        raise Breach(f"doubled: {left}")
