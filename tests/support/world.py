"""A small world around the core: one request, one plugin, one ledger; `settle` runs turns as a service would.

A crash ends the process: the next turn has another writer and remembers nothing. The rule book watches every call.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from bridge.decide import action as act
from bridge.decide import snapshot
from bridge.model.failure import ConflictError
from bridge.model.keys import Key, snapshot_key
from bridge.model.snapshot import (
    DeletionPolicy,
    HandleSource,
    SnapshotRequest,
    VolumeSource,
    Wish,
)
from bridge.service import work
from tests.support import memory

KEY = snapshot_key("c", "u1")
Decide = Callable[[snapshot.Observed, float], act.Action]


class Breach(AssertionError):
    """A rule of the core was broken."""


@dataclasses.dataclass
class World:
    """Ports, their state, and the process that comes and goes."""

    policy: DeletionPolicy = DeletionPolicy.DELETE
    not_ready: int = 0
    adopt: str = ""
    faults: dict[int, str] = dataclasses.field(default_factory=dict)
    decide: Decide = snapshot.decide
    fold: work.Fold = snapshot.fold

    def __post_init__(self) -> None:
        self.script = memory.Script(dict(self.faults))
        self.clock = memory.VirtualClock()
        self.plugin = memory.MemoryPlugin(self.script, self.clock, not_ready=self.not_ready)
        self.plugin.allowed = self._breach
        self.ledger = memory.MemoryLedger(self.script, lambda _key: self.policy)
        if self.adopt:
            self.plugin.by_hand["by hand"] = memory.Stored(self.adopt, "v1", self.not_ready)
        source = HandleSource(self.adopt) if self.adopt else VolumeSource("v1")
        self.requests = memory.MemoryRequests(
            self.script,
            SnapshotRequest(KEY, Wish.PRESENT, "ns", "one", "d", source, "snapshot-u1", self.policy, held=False),
        )
        self.incarnation = 1
        self.crashes = 0
        self.doubts: set[Key] = set()
        self.seen: snapshot.Observed | None = None

    # -- what the rules say of a call, at the moment it is made

    def _breach(self, what: str) -> str:
        record = self.ledger.records.get(KEY)
        request = self.requests.request
        if record is None:
            return f"{what} without a record"
        if record.retry_at > self.clock.now():
            return f"{what} inside its back-off"
        if what == "create" and not (record.note_open or record.handle):
            return "create without an open note"
        if what == "create" and request is not None and request.wish is Wish.PRESENT and not request.held:
            return "create without a hold"
        if what.startswith("delete ") and not what.startswith("delete volume"):
            return self._delete_breach(what.removeprefix("delete "))
        return ""

    def _delete_breach(self, handle: str) -> str:
        record, request = self.ledger.records[self.key], self.requests.request
        if handle != record.handle:
            return f"delete of {handle}, which the record does not hold"
        if not record.condemned:
            return "delete without a durable decision"
        if self.policy is DeletionPolicy.RETAIN:
            return "delete under policy Retain"
        return "delete while in use" if request is not None and request.in_use else ""

    # -- running

    def want(self, **changes: object) -> None:
        """Edit the request as its owner would."""
        assert self.requests.request is not None
        self.requests.request = dataclasses.replace(self.requests.request, **changes)  # type: ignore[arg-type]

    def settle(self, *, turns: int = 200) -> act.Action:
        """Turn after turn, over crashes and waits, until the object rests or the turns are used up."""
        return asyncio.run(self._settle(turns))

    async def _settle(self, turns: int) -> act.Action:
        last: act.Action = act.Rest("never ran", "")
        for _ in range(turns):
            try:
                last = await self._step()
            except memory.Crash:
                self.crashes += 1
                self.incarnation += 1
                self.doubts = set()
                continue
            except ConflictError:
                continue
            if self.plugin.broken:
                raise Breach(self.plugin.broken[0])
            if isinstance(last, act.Rest):
                return last
            if isinstance(last, act.Wait):
                if last.reason == "in use":
                    return last
                await self.clock.sleep(last.seconds)
        return last

    async def _step(self) -> act.Action:
        tools = work.Tools(
            self.plugin,
            self.clock,
            f"writer-{self.incarnation}",
            doubts=self.doubts,
            fold=self.fold,
        )
        lane = _Lane(self.requests, self.ledger)
        seen = await work.observe(KEY, lane, tools)  # type: ignore[arg-type]
        if seen is None:
            return act.Rest("unknown", "")
        step = self.decide(seen, self.clock.now())
        if isinstance(step, act.Wait | act.Rest):
            await self.requests.publish(seen.request, snapshot.project(seen, step))
        else:
            await work.perform(seen, step, lane, tools)  # type: ignore[arg-type]
        return step

    @property
    def key(self) -> Key:
        return KEY


@dataclasses.dataclass
class _Lane:
    requests: memory.MemoryRequests
    ledger: memory.MemoryLedger
    secrets: memory.NoSecrets = dataclasses.field(default_factory=memory.NoSecrets)
    guard: None = None
    fence: Callable[[str], str] = lambda _driver: ""

    def of(self, plugins: memory.MemoryPlugin) -> memory.MemoryPlugin:
        return plugins

    def calls(self, plugins: memory.MemoryPlugin, driver: str) -> memory.MemoryPlugin | None:
        return plugins.controller(driver)
