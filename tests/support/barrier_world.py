"""A small world around a group that is cut by a barrier: three volumes, one plugin, two ledgers in memory.

A crash ends the process for every call under way; the next turn has another writer and remembers nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from bridge.decide import barrier as core
from bridge.model.failure import ConflictError
from bridge.model.group import GroupMember, GroupRecord, GroupRequest, GroupStatus, VolumesSource
from bridge.model.keys import Key, group_key, snapshot_key
from bridge.model.snapshot import (
    DeletionPolicy,
    Record,
    SnapshotRequest,
    SnapshotState,
    SnapshotStatus,
    VolumeSource,
    Wish,
)
from bridge.ports.group import GroupSide
from bridge.service import barrier, work
from bridge.service.admission import Admission
from bridge.service.booked import group_sentence
from tests.support import memory
from tests.support.world import Breach

GROUP = group_key("c", "g1")
MEMBERS = tuple(
    GroupMember(snapshot_key("c", f"m{n}"), f"data-{n}", "d", f"v{n}", f"snapshot-m{n}") for n in (1, 2, 3)
)
FAULTS = ("ok", "crash before", "crash after", "lost before", "lost after", "refused", "conflict")


class DyingScript(memory.Script):
    """After a crash nothing more is done by this process, whichever call was first."""

    dead = False

    def next(self, what: str) -> str:
        if self.dead:
            return "crash before"
        fault = super().next(what)
        self.dead = fault.startswith("crash")
        return fault


class Booked:
    """The book: the group's request, its members' requests, and the writes that span several records."""

    def __init__(self, world: BarrierWorld) -> None:
        self.world = world
        self.wish = Wish.PRESENT
        self.held = True
        self.max_skew_seconds: float | None = None
        self.told: list[GroupStatus] = []
        self.wishes = {one.key: Wish.PRESENT for one in MEMBERS}
        self.member_held = {one.key: True for one in MEMBERS}
        self.states: dict[Key, SnapshotStatus] = {}

    async def observe(self, key: Key) -> Any:
        policy = self.world.policy
        if key == GROUP:
            return GroupRequest(
                GROUP, self.wish, "ns", "one", "d", VolumesSource(tuple(one.handle for one in MEMBERS)),
                "groupsnapshot-g1", policy, held=self.held, together=MEMBERS,
                members=tuple(one.key for one in MEMBERS), max_skew_seconds=self.max_skew_seconds,
            )  # fmt: skip
        one = next(one for one in MEMBERS if one.key == key)
        waits = group_sentence(self.world.group_records.records.get(GROUP))  # type: ignore[arg-type]
        return SnapshotRequest(
            key, self.wishes[key], "ns", one.volume, "d", VolumeSource(one.handle), one.snapshot_name, policy,
            held=self.member_held[key], group=GROUP, waits_for=waits,
        )  # fmt: skip

    async def hold(self, request: Any) -> None:
        self._set_held(request.key, True)

    async def release(self, request: Any) -> None:
        if request.key == GROUP:
            await self.withdraw([one.key for one in MEMBERS])
        self._set_held(request.key, False)

    def _set_held(self, key: Key, held: bool) -> None:
        self._strike(self.world.script.next("release"), lambda: self._put_held(key, held))

    def _put_held(self, key: Key, held: bool) -> None:
        if key == GROUP:
            self.held = held
        else:
            self.member_held[key] = held

    def _strike(self, fault: str, effect: Callable[[], None]) -> None:
        if fault == "crash before":
            raise memory.Crash
        if fault == "conflict":
            raise ConflictError("moved on")
        effect()
        if fault == "crash after":
            raise memory.Crash

    async def publish(self, request: Any, status: Any) -> None:
        if request.key == GROUP:
            if status.ready and not all(self.world.records.records[one.key].ready for one in MEMBERS):
                self.world.plugin.broken.append("told ready before its members are")
            self.told.append(status)
        else:
            self.states[request.key] = status

    async def keys(self) -> AsyncIterator[Key]:
        yield GROUP

    async def open(self, key: Key, record: GroupRecord, members: Sequence[tuple[Key, Record]]) -> Sequence[Record]:
        """All records in one act."""
        world, saved = self.world, list[Record]()
        fault = world.script.next("open")

        def effect() -> None:
            world.group_records.put(key, record)  # type: ignore[arg-type]
            saved.extend(world.records.put(member, note) for member, note in members)

        self._strike(fault, effect)
        return saved

    async def member_state(self, key: Key) -> SnapshotState | None:
        status = self.states.get(key)
        return status.state if status is not None else SnapshotState.PENDING

    async def withdraw(self, keys: Sequence[Key]) -> None:
        def effect() -> None:
            for key in keys:
                self.wishes[key] = Wish.ABSENT

        self._strike(self.world.script.next("withdraw"), effect)


class Ledger(memory.MemoryLedger):
    """A ledger that can also be written within a larger act."""

    def put(self, key: Key, record: Record) -> Record:
        if (self.records[key].version if key in self.records else "") != record.version:
            raise ConflictError("the record has moved on")
        self._counter += 1
        self.records[key] = dataclasses.replace(record, version=str(self._counter))
        return self.records[key]


@dataclasses.dataclass
class _Lane:
    requests: Booked
    ledger: Ledger
    groups: GroupSide
    secrets: memory.NoSecrets = dataclasses.field(default_factory=memory.NoSecrets)
    fence: Callable[[str], str] = lambda _driver: ""
    guard: None = None

    def of(self, plugins: memory.MemoryPlugin) -> memory.MemoryPlugin:
        return plugins

    def calls(self, plugins: memory.MemoryPlugin, driver: str) -> memory.MemoryPlugin | None:
        return plugins.controller(driver)


@dataclasses.dataclass
class BarrierWorld:
    """Ports, their state, and the process that comes and goes."""

    policy: DeletionPolicy = DeletionPolicy.DELETE
    not_ready: int = 0
    faults: dict[int, str] = dataclasses.field(default_factory=dict)
    max_skew_seconds: float | None = None
    decide: barrier.Decide = core.decide

    def __post_init__(self) -> None:
        self.script = DyingScript(dict(self.faults))
        self.clock = memory.VirtualClock()
        self.plugin = memory.MemoryPlugin(self.script, self.clock, not_ready=self.not_ready)
        self.plugin.allowed = self._breach
        self.records = Ledger(self.script, lambda _key: self.policy)
        self.group_records = Ledger(self.script, lambda _key: self.policy)
        self.book = Booked(self)
        self.book.max_skew_seconds = self.max_skew_seconds
        self.crashes = 0
        self._start()

    def _start(self) -> None:
        """A new process: another writer, nothing in doubt, nothing remembered of calls."""
        self.script.dead = False
        self.tools = work.Tools(self.plugin, self.clock, f"writer-{self.crashes}", admission=Admission())

    def _breach(self, what: str) -> str:
        if what == "create" and not any(one.note_open or one.handle for one in self.records.records.values()):
            return "create without an open note"
        if what.startswith("delete "):
            handle = what.removeprefix("delete ")
            mine = [one for one in self.records.records.values() if one.handle == handle]
            if not mine or not mine[0].condemned:
                return f"delete of {handle}, which no condemned record holds"
            if self.policy is DeletionPolicy.RETAIN:
                return "delete under policy Retain"
        return ""

    @property
    def record(self) -> GroupRecord | None:
        return self.group_records.records.get(GROUP)  # type: ignore[return-value]

    def settle(self, *, rounds: int = 300) -> bool:
        """Round after round, over crashes and waits, until everything rests. False when the rounds are used up."""
        return asyncio.run(self._settle(rounds))

    async def _settle(self, rounds: int) -> bool:
        for _ in range(rounds):
            waits = [await self._turn(key) for key in (GROUP, *(one.key for one in MEMBERS))]
            if self.plugin.broken:
                raise Breach(self.plugin.broken[0])
            pending = [seconds for seconds in waits if seconds is not None]
            if not pending:
                return True
            await self.clock.sleep(max(min(pending), 0.01))
        return False

    async def _turn(self, key: Key) -> float | None:
        side = GroupSide(self.book, self.group_records, self.book)  # type: ignore[arg-type]
        lane: Any = _Lane(self.book, self.records, side)
        try:
            if key == GROUP:
                ended = await barrier.turn(key, lane, side, self.tools, decide=self.decide)
                return 0.0 if ended.wake else ended.seconds
            before = self.book.states.get(key)
            end = await work.turn(key, lane, self.tools)
            return 0.0 if self.book.states.get(key) != before else end.seconds
        except memory.Crash:
            self.crashes += 1
            self._start()
            return 0.0
        except ConflictError:
            return 0.0


def live(
    faults: dict[int, str],
    *,
    policy: DeletionPolicy = DeletionPolicy.DELETE,
    not_ready: int = 0,
    change_after: int | None = None,
    max_skew_seconds: float | None = None,
    decide: barrier.Decide = core.decide,
) -> BarrierWorld:
    """Wanted, then no longer wanted (after `change_after` rounds, or once it rests). Checks every promise."""
    world = BarrierWorld(policy, not_ready, faults, max_skew_seconds, decide)
    rested = world.settle(rounds=300 if change_after is None else change_after)
    if change_after is None:
        _check_present(world, rested)
    before = world.plugin.handles()
    world.book.wish = Wish.ABSENT
    if not world.settle():
        raise Breach(f"withdrawn, but it did not come to rest: {world.book.told[-1]}")
    _check_absent(world, before)
    return world


def _known(world: BarrierWorld) -> set[str]:
    return {one.handle for one in world.records.records.values() if one.handle}


def _check_present(world: BarrierWorld, rested: bool) -> None:
    told = world.book.told[-1] if world.book.told else None
    if not rested or told is None:
        raise Breach(f"wanted, but it did not come to rest: {told}")
    backend, record = world.plugin.handles(), world.record
    assert record is not None
    if told.ready:
        if backend != _known(world) or len(backend) != len(MEMBERS) or record.failed:
            raise Breach(f"told ready, but the backend has {backend}")
        if not all(world.records.records[one.key].ready for one in MEMBERS):
            raise Breach("ready, but a member is not")
        if record.skew_seconds is None:
            raise Breach("ready, but nobody knows how far apart the cuts were")
        return
    if not (told.failed and told.failure is not None and record.failed):
        raise Breach(f"neither ready nor failed: {told}")
    if world.policy is DeletionPolicy.DELETE and backend:
        raise Breach(f"failed under Delete, and {backend} is left")
    if not backend <= _known(world):
        raise Breach(f"failed under Retain, and nobody knows of {backend - _known(world)}")


def _check_absent(world: BarrierWorld, before: set[str]) -> None:
    left = world.plugin.handles()
    if world.policy is DeletionPolicy.DELETE and left:
        raise Breach(f"policy Delete left {left}")
    if world.policy is DeletionPolicy.RETAIN and not before <= left:
        raise Breach("policy Retain lost a snapshot")
    if not left <= _known(world):
        raise Breach(f"nobody knows of {left - _known(world)}")
    if len(left) > len(MEMBERS):
        raise Breach(f"doubled: {left}")
    if world.book.held or any(world.book.member_held.values()):
        raise Breach("withdrawn, but still held")
    states = {state.state for state in world.book.states.values()}
    if not states <= {SnapshotState.GONE, SnapshotState.RETAINED}:
        raise Breach(f"withdrawn, but members are {states}")
