"""The snapshots' workers: turns on their lanes, and the resync that finds what no event told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from bridge.decide import backoff
from bridge.model.failure import BridgeError, ElsewhereError
from bridge.model.group import GroupRequest, GroupStatus
from bridge.model.keys import GROUP, SNAPSHOT, Key
from bridge.model.snapshot import SnapshotRequest, SnapshotState, SnapshotStatus
from bridge.service import groups, work
from bridge.service.lane import Lane
from bridge.service.loop import WorkLoop

log = logging.getLogger(__name__)

Told = Callable[[Key, SnapshotRequest | GroupRequest | None, SnapshotStatus | GroupStatus], Awaitable[None]]
"""What to do with a status once its owner has been told. The request is None when nothing of it is left."""


class Runner:
    """Runs turns. It never decides what a turn does; it decides only when the next one is."""

    def __init__(  # noqa: PLR0913 -- keywords; the composition roots call it
        self,
        lanes: Mapping[str, Lane],
        tools: work.Tools,
        *,
        told: Told,
        workers: int = 16,
        resync_seconds: float = 300.0,
        retry: Callable[[int], float] = backoff.retry_delay,
        followed: Callable[[], Iterable[Key]] = tuple,
    ) -> None:
        """`followed`: what somebody waits to be told of, though perhaps neither request nor record is left of it."""
        self._followed = followed
        self._loop: WorkLoop[Key] = WorkLoop("worker", self._turn, tools.clock, workers=workers, retry=retry)
        self.queue = self._loop.queue
        self.drain = self._loop.drain
        self._lanes = lanes
        self._tools = tools
        self._told = told
        tools.admission.listen(self.queue.add, SNAPSHOT, GROUP)
        self._resync_seconds = resync_seconds
        self._waiting: dict[str, set[Key]] = {}

    def wake(self, key: Key) -> None:
        """Have the key looked at soon. Keys of clusters that are not configured are refused."""
        if key.cluster not in self._lanes:
            raise ValueError(f"no cluster {key.cluster!r} is configured")
        self._loop.wake(key)

    async def run(self) -> None:
        """Work until cancelled. A turn under way when `drain` is called is finished first."""
        stop = self._tools.plugins.on_change(self._plugin_changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._loop.run(), name="workers")
                group.create_task(self._resync(), name="resync")
        finally:
            stop()

    async def _turn(self, key: Key) -> float | None:
        """The turn of the key's kind; returns when to look again."""
        lane = self._lanes[key.cluster]
        if key.kind == GROUP:
            ended = await groups.turn(key, lane, self._tools)
            for member in ended.wake:
                self.queue.add(member)
            await self._tell_group(key, ended)
            if ended.request is not None and ended.status is not None:
                self._remember_waiting(key, ended.request.driver, failing=ended.status.failure is not None)
            elif ended.seconds is None:
                self._forget_waiting(key)
            return ended.seconds
        try:
            end = await work.turn(key, lane, self._tools)
        except ElsewhereError:
            await self._follow(key, lane)
            raise
        await self._tell(key, end)
        return end.seconds

    async def _follow(self, key: Key, lane: Lane) -> None:
        """Another controller carries it out: whoever follows it here hears what that one has told."""
        followed = await lane.follow(key)
        if followed is not None:
            await self._told(key, followed.request, followed.status)

    async def _tell(self, key: Key, end: work.Turn) -> None:
        if end.request is None and end.seconds is None:
            self._forget_waiting(key)
            await self._told(key, None, SnapshotStatus(SnapshotState.GONE))
        elif end.request is not None and end.status is not None:
            self._remember_waiting(key, end.request.driver, failing=end.status.failure is not None)
            await self._told(key, end.request, end.status)
            if end.request.group is not None:
                self.queue.add(end.request.group)

    async def _tell_group(self, key: Key, ended: groups.GroupTurn) -> None:
        """A group of the book is followed by operations like a snapshot."""
        if ended.request is not None and ended.status is not None and ended.request.together:
            await self._told(key, ended.request, ended.status)

    def _remember_waiting(self, key: Key, driver: str, *, failing: bool) -> None:
        """Which keys a change of a plugin may help."""
        waiting = self._waiting.setdefault(driver, set())
        if failing:
            waiting.add(key)
        else:
            waiting.discard(key)

    def _forget_waiting(self, key: Key) -> None:
        for waiting in self._waiting.values():
            waiting.discard(key)

    def _plugin_changed(self, driver: str) -> None:
        for key in tuple(self._waiting.get(driver, ())):
            self.queue.add(key)

    async def _resync(self) -> None:
        """Every key of every lane, at the start and then now and then."""
        while True:
            for name, lane in self._lanes.items():
                await self._resync_lane(name, lane)
            for key in self._followed():
                if key.cluster in self._lanes:
                    self.queue.add(key)
            await self._tools.clock.sleep(self._resync_seconds)

    async def _resync_lane(self, name: str, lane: Lane) -> None:
        try:
            async for key in lane.requests.keys():
                self.queue.add(key)
            async for key in lane.ledger.keys():
                if key.cluster == name:
                    self.queue.add(key)
            if lane.groups is not None:
                async for key in lane.groups.requests.keys():
                    self.queue.add(key)
                async for key in lane.groups.ledger.keys():
                    self.queue.add(key)
        except BridgeError as error:
            log.warning("the resync failed; it is tried again", extra={"cluster": name, "error": str(error)})
