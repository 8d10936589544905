"""Fakes that stand at the core's ports and keep state: a ledger, requests, a plugin with its backend, a clock.

Each external effect passes `Script.point`, where a test may put a fault: a crash before or after the effect, a lost
reply, a refusal. Every rule that the core must keep is checked here at the moment it could be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from bridge.model.failure import ConflictError, Failure, FailureKind, NotFoundError
from bridge.model.group import CutGroup
from bridge.model.keys import Key
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Capability, InstanceId, PluginDescription, PluginView, Route
from bridge.model.secret import SecretRef
from bridge.model.snapshot import (
    CutPage,
    CutSnapshot,
    DeletionPolicy,
    Record,
    SnapshotRequest,
    SnapshotStatus,
    Wish,
)
from bridge.model.volume import MadeVolume, NewVolume


class Crash(BaseException):
    """The process is gone. Not an Exception, so that nothing can swallow it."""


class VirtualClock:
    """Time that moves only when told, or when somebody sleeps."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self.instant = start

    def now(self) -> float:
        return self.instant

    async def sleep(self, seconds: float) -> None:
        self.instant += max(seconds, 0.0)
        await asyncio.sleep(0)


@dataclasses.dataclass
class Script:
    """Faults by the number of the effect they strike, and a log of what was done."""

    faults: dict[int, str] = dataclasses.field(default_factory=dict)
    done: list[str] = dataclasses.field(default_factory=list)

    def next(self, what: str) -> str:
        self.done.append(what)
        return self.faults.get(len(self.done) - 1, "ok")


class MemoryLedger:
    """The `Ledger` port. `save` and `erase` are atomic; a crash strikes before or after, never between."""

    def __init__(self, script: Script, policy: Callable[[Key], DeletionPolicy]) -> None:
        self.script = script
        self.records: dict[Key, Record] = {}
        self.orphans: list[str] = []
        self._policy = policy
        self._counter = 0

    async def load(self, key: Key) -> Record | None:
        return self.records.get(key)

    async def save(self, key: Key, record: Record) -> Record:
        return self._write(key, record, "save")

    async def condemn(self, key: Key, record: Record) -> Record:
        return self._write(key, dataclasses.replace(record, condemned=True, policy=self._policy(key)), "condemn")

    def _write(self, key: Key, record: Record, what: str) -> Record:
        fault = self.script.next(what)
        if fault == "crash before":
            raise Crash
        stored = self.records.get(key)
        if (stored.version if stored else "") != record.version or fault == "conflict":
            raise ConflictError("the record has moved on")
        self._counter += 1
        saved = dataclasses.replace(record, version=str(self._counter))
        self.records[key] = saved
        if fault == "crash after":
            raise Crash
        return saved

    async def erase(self, key: Key, record: Record, *, orphan: str = "") -> None:
        fault = self.script.next("erase")
        if fault == "crash before":
            raise Crash
        if orphan:
            self.orphans.append(orphan)
        self.records.pop(key, None)
        if fault == "crash after":
            raise Crash

    async def keys(self) -> AsyncIterator[Key]:
        for key in list(self.records):
            yield key


class MemoryRequests:
    """The `Requests` port for one request that a test edits."""

    def __init__(self, script: Script, request: SnapshotRequest) -> None:
        self.script = script
        self.request: SnapshotRequest | None = request
        self.told: list[SnapshotStatus] = []

    async def observe(self, key: Key) -> SnapshotRequest | None:
        return self.request

    async def hold(self, request: SnapshotRequest) -> None:
        self._set_held("hold", True)

    async def release(self, request: SnapshotRequest) -> None:
        self._set_held("release", False)

    def _set_held(self, what: str, held: bool) -> None:
        fault = self.script.next(what)
        if fault == "crash before":
            raise Crash
        if self.request is not None:
            self.request = dataclasses.replace(self.request, held=held)
        if fault == "crash after":
            raise Crash

    async def publish(self, request: SnapshotRequest, status: SnapshotStatus) -> None:
        if not self.told or self.told[-1] != status:
            self.told.append(status)

    async def keys(self) -> AsyncIterator[Key]:
        if self.request is not None:
            yield self.request.key


@dataclasses.dataclass
class Stored:
    """A snapshot on the fake backend."""

    handle: str
    source: str
    not_ready: int


@dataclasses.dataclass
class StoredGroup:
    """A group on the fake backend."""

    handle: str
    members: list[Stored]
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)


class MemoryPlugin:
    """A plugin with its backend, behind the `PluginCalls` and `Plugins` ports at once."""

    def __init__(self, script: Script, clock: VirtualClock, *, driver: str = "d", not_ready: int = 0) -> None:
        self.script = script
        self.clock = clock
        self.driver = driver
        self.not_ready = not_ready
        self.known = True
        self.healthy = True
        self.way = Route.SOCKET
        """How it is reached now."""
        self.concurrency = 32
        self.gates: dict[str, asyncio.Event] = {}
        """Calls whose description begins so wait for the event, within the call."""
        self.inside: list[str] = []
        """The calls under way."""
        self.most_inside = 0
        self.capabilities = {Capability.CREATE_DELETE_SNAPSHOT, Capability.CREATE_DELETE_VOLUME}
        self.stored: dict[str, Stored] = {}
        self.by_hand: dict[str, Stored] = {}
        self.volumes: dict[str, str] = {}
        self.asked: list[NewVolume] = []
        """Every CreateVolume, repeats too."""
        self.groups: dict[str, StoredGroup] = {}
        self.cannot_inspect = False
        self.secrets_seen: list[Mapping[str, str]] = []
        self.broken: list[str] = []
        self.refused_volumes: set[str] = set()
        """CSI volume_ids that are never cut."""
        self.refusal = "INVALID_ARGUMENT"
        """The code of a group's scripted refusal."""
        self.allowed: Callable[[str], str] = lambda _what: ""
        """A test's rule book: a sentence when this call may not be made now."""
        self._counter = 0

    @property
    def id(self) -> InstanceId:
        return InstanceId(self.driver, "controller", "memory")

    @property
    def route(self) -> Route:
        return self.way

    def view(self, driver: str) -> PluginView:
        if driver != self.driver:
            return PluginView(driver)
        return PluginView(
            driver, self.known, self.healthy, frozenset(self.capabilities), "asleep", route=self.way,
            concurrency=self.concurrency,
        )  # fmt: skip

    def controller(self, driver: str) -> MemoryPlugin | None:
        return self if driver == self.driver and self.known and self.healthy else None

    def describe(self) -> Sequence[PluginDescription]:
        return ()

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        return lambda: None

    def handles(self) -> set[str]:
        """All snapshots on the backend."""
        return {stored.handle for stored in (*self.stored.values(), *self.by_hand.values())}

    def member_handles(self) -> set[str]:
        """The snapshots that groups on the backend hold."""
        return {member.handle for group in self.groups.values() for member in group.members}

    def _before(self, what: str) -> str:
        breach = self.allowed(what)
        if breach:
            self.broken.append(breach)
        return self.script.next(what)

    @contextlib.asynccontextmanager
    async def _under_way(self, what: str) -> AsyncIterator[None]:
        """The call counts, and waits at its gate, in this block."""
        self.inside.append(f"{what} by {self.way.value}")
        mine = self.inside[-1]
        self.most_inside = max(self.most_inside, len(self.inside))
        try:
            for beginning, gate in list(self.gates.items()):
                if what.startswith(beginning):
                    await gate.wait()
            yield
        finally:
            self.inside.remove(mine)

    def under(self, fence: Callable[[], str]) -> MemoryPlugin:
        """Nothing is waited for here, so the fence that was asked before is as good."""
        return self

    async def create_snapshot(
        self, *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Outcome[CutSnapshot]:
        async with self._under_way(f"create snapshot {name}"):
            return self._cut(name, volume_handle)

    def _cut(self, name: str, volume_handle: str) -> Outcome[CutSnapshot]:
        fault = self._before("create")
        early = _early(fault)
        if early is not None:
            return early
        if volume_handle in self.refused_volumes:
            return Failed(Failure(FailureKind.REFUSED, "FAILED_PRECONDITION", "not this volume"))
        stored = self.stored.get(name)
        if stored is None:
            self._counter += 1
            stored = self.stored[name] = Stored(f"snap-{self._counter}", volume_handle, self.not_ready)
        elif stored.not_ready > 0:
            stored.not_ready -= 1
        late = _late(fault)
        return late if late is not None else Done(_facts(stored))

    async def delete_snapshot(self, *, handle: str, secrets: Mapping[str, str]) -> Outcome[None]:
        fault = self._before(f"delete {handle}")
        early = _early(fault)
        if early is not None:
            return early
        if handle in self.member_handles():
            self.broken.append(f"DeleteSnapshot of {handle}, which is a member of a group")
        for shelf in (self.stored, self.by_hand):
            for name in [name for name, stored in shelf.items() if stored.handle == handle]:
                del shelf[name]
        late = _late(fault)
        return late if late is not None else Done(None)

    async def inspect_snapshot(self, *, handle: str, secrets: Mapping[str, str]) -> Outcome[CutSnapshot]:
        if self.cannot_inspect:
            return Failed(Failure(FailureKind.REFUSED, "UNIMPLEMENTED", "neither GET_SNAPSHOT nor LIST_SNAPSHOTS"))
        fault = self._before("inspect")
        early = _early(fault)
        if early is not None:
            return early
        for stored in (*self.stored.values(), *self.by_hand.values()):
            if stored.handle == handle:
                stored.not_ready = max(stored.not_ready - 1, 0)
                return _late(fault) or Done(_facts(stored))
        return Failed(Failure(FailureKind.REFUSED, "NOT_FOUND", "no such snapshot"))

    async def list_snapshots(
        self, *, volume_handle: str = "", secrets: Mapping[str, str]
    ) -> AsyncIterator[Outcome[CutSnapshot]]:
        for stored in (*self.stored.values(), *self.by_hand.values()):
            yield Done(_facts(stored))

    async def page_snapshots(self, *, token: str, limit: int, secrets: Mapping[str, str]) -> Outcome[CutPage]:
        if Capability.LIST_SNAPSHOTS not in self.capabilities:
            return Failed(Failure(FailureKind.REFUSED, "UNIMPLEMENTED", "no LIST_SNAPSHOTS"))
        if token and not token.startswith("at-"):
            return Failed(Failure(FailureKind.UNSURE, "ABORTED", "no such token"))
        found = [_facts(stored) for stored in (*self.stored.values(), *self.by_hand.values())]
        start = int(token.removeprefix("at-") or 0)
        end = start + limit
        return Done(CutPage(tuple(found[start:end]), f"at-{end}" if end < len(found) else ""))

    async def create_group(
        self,
        *,
        name: str,
        volume_handles: Sequence[str],
        parameters: Mapping[str, str],
        secrets: Mapping[str, str],
    ) -> Outcome[CutGroup]:
        fault = self._before("create group")
        self.secrets_seen.append(dict(secrets))
        early = _early(fault)
        if early is not None and fault == "refused":
            return Failed(Failure(FailureKind.REFUSED, self.refusal, "no"))
        if early is not None:
            return early
        if self.refused_volumes & set(volume_handles):
            return Failed(Failure(FailureKind.REFUSED, "FAILED_PRECONDITION", "not these volumes"))
        group = self.groups.get(name)
        if group is None:
            self._counter += 1
            number = self._counter
            members = [
                Stored(f"member-{number}-{place}", volume, self.not_ready)
                for place, volume in enumerate(sorted(volume_handles))
            ]
            group = self.groups[name] = StoredGroup(f"group-{number}", members, dict(parameters))
        elif {member.source for member in group.members} != set(volume_handles):
            return Failed(Failure(FailureKind.REFUSED, "ALREADY_EXISTS", "other volumes"))
        return _late(fault) or Done(_group_facts(group))

    async def delete_group(
        self, *, handle: str, member_handles: Sequence[str], secrets: Mapping[str, str]
    ) -> Outcome[None]:
        fault = self._before(f"delete group {handle}")
        self.secrets_seen.append(dict(secrets))
        early = _early(fault)
        if early is not None:
            return early
        for name, group in list(self.groups.items()):
            if group.handle == handle:
                if {member.handle for member in group.members} != set(member_handles):
                    return Failed(Failure(FailureKind.REFUSED, "INVALID_ARGUMENT", "not all of its members"))
                del self.groups[name]
        return _late(fault) or Done(None)

    async def inspect_group(
        self, *, handle: str, member_handles: Sequence[str], secrets: Mapping[str, str]
    ) -> Outcome[CutGroup]:
        fault = self._before("inspect group")
        early = _early(fault)
        if early is not None:
            return early
        for group in self.groups.values():
            if group.handle == handle:
                if {member.handle for member in group.members} != set(member_handles):
                    return Failed(Failure(FailureKind.REFUSED, "INVALID_ARGUMENT", "not all of its members"))
                for member in group.members:
                    member.not_ready = max(member.not_ready - 1, 0)
                return _late(fault) or Done(_group_facts(group))
        return Failed(Failure(FailureKind.REFUSED, "NOT_FOUND", "no such group"))

    async def create_volume(self, *, new: NewVolume, secrets: Mapping[str, str]) -> Outcome[MadeVolume]:
        async with self._under_way(f"create volume {new.name}"):
            return self._made(new)

    def _made(self, new: NewVolume) -> Outcome[MadeVolume]:
        fault = self._before("create volume")
        self.asked.append(new)
        early = _early(fault)
        if early is not None:
            return early
        handle = self.volumes.setdefault(new.name, f"vol-{len(self.volumes) + 1}")
        return _late(fault) or Done(MadeVolume(handle, new.required_bytes, {}, new.content))

    async def delete_volume(self, *, handle: str, secrets: Mapping[str, str]) -> Outcome[None]:
        async with self._under_way(f"delete volume {handle}"):
            return self._gone(handle)

    def _gone(self, handle: str) -> Outcome[None]:
        fault = self._before("delete volume")
        early = _early(fault)
        if early is not None:
            return early
        self.volumes = {name: other for name, other in self.volumes.items() if other != handle}
        return _late(fault) or Done(None)


def _early(fault: str) -> Failed | None:
    """Faults that strike before the effect."""
    if fault == "crash before":
        raise Crash
    if fault == "lost before":
        return Failed(Failure(FailureKind.UNSURE, "UNAVAILABLE", "lost"))
    if fault == "refused":
        return Failed(Failure(FailureKind.REFUSED, "INVALID_ARGUMENT", "no"))
    return None


def _late(fault: str) -> Failed | None:
    """Faults that strike after it."""
    if fault == "crash after":
        raise Crash
    if fault == "lost after":
        return Failed(Failure(FailureKind.UNSURE, "INTERNAL", "lost"))
    return None


def _group_facts(group: StoredGroup) -> CutGroup:
    members = tuple(dataclasses.replace(_facts(member), group=group.handle) for member in group.members)
    return CutGroup(group.handle, members, all(member.ready for member in members), 1_700_000_000_000_000_000)


def _facts(stored: Stored) -> CutSnapshot:
    return CutSnapshot(stored.handle, stored.source, stored.not_ready == 0, 10, 1_700_000_000_000_000_000)


class NoSecrets:
    """The `Secrets` port with nothing in it, until a test adds the name of one to `known`."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        if ref and ref.locator not in self.known:
            raise NotFoundError(f"no secret {ref}")
        return {}


def absent(request: SnapshotRequest) -> SnapshotRequest:
    """The same request, withdrawn."""
    return dataclasses.replace(request, wish=Wish.ABSENT)
