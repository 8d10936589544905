"""One look at one VolumeSnapshot: gather what is known, decide, carry the step out, until it rests.

It decides nothing itself (`decide/binding.py` does), and reads nothing live but a content that it is about to miss.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from adapters.kubernetes import claims, names
from adapters.kubernetes.claims import ClaimHolds
from adapters.kubernetes.complaints import Complaints
from adapters.kubernetes.decide import affinity, binding, bound_status
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import Facts, is_ready, path
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import BridgeError, ConflictError, ElsewhereError, NotSyncedError, UnavailableError
from bridge.ports.clock import Clock

Object = dict[str, Any]
T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_STEPS = 32
CLAIM = "claim:"
"""The prefix of a key that is a claim's ("claim:namespace/name"): a hold on it that a crash may have left."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What the flags say about new contents."""

    source_mode: bool = True
    """Note the source's volume mode (--prevent-volume-mode-conversion)."""
    distributed: bool = False
    """Name the node whose driver half is to serve it (--enable-distributed-snapshotting)."""


@dataclasses.dataclass(slots=True)
class _Memory:
    """What one turn has learnt that no object says."""

    looked_up: set[str] = dataclasses.field(default_factory=set)
    claim_left: BridgeError | None = None


class Turns:
    """The turn of the cluster half's loops. A key is a VolumeSnapshot's uid, a content's own key, or a claim's."""

    def __init__(self, world: World, writer: Writer, events: Events, *, clock: Clock, rules: Rules) -> None:
        self._world = world
        self._writer = writer
        self._events = events
        self._clock = clock
        self._rules = rules
        self.claims = ClaimHolds(world, writer, shared=self.claim_is_needed)
        self._complaints = Complaints(writer, events, clock)
        self._since: dict[str, float] = {}
        """Uid -> when its content was first seen here, on the loop's clock; until it is ready or gone."""
        self.standing: Callable[[str], str] = lambda _key: ""
        """Why nothing may be done for a key at this moment; empty when we may act."""
        self.judge_member: Callable[[Facts], str] = lambda _facts: ""
        """Why its group keeps a snapshot that is being deleted; ElsewhereError when the group looks after it."""

    async def turn(self, key: str) -> float | None:
        """See bridge.ports.loop.Turn."""
        if not self._world.synced:
            raise NotSyncedError("the cluster is not read yet")
        reason = self.standing(key)
        if reason:
            raise ElsewhereError(reason)
        await asyncio.sleep(0)  # Turns that write nothing must not keep the loop to themselves.
        if key.startswith(CLAIM):
            await self._sweep(*key.removeprefix(CLAIM).split("/", 1))
            return None
        memory = _Memory()
        for _ in range(MOST_STEPS):
            try:
                facts = self._world.facts(key)
            except MalformedError as error:
                await self._complaints.tell(error)
                raise ElsewhereError(str(error)) from error
            if facts is None:
                self.forget(key)
                return None
            step = binding.decide(self._view(facts, memory))
            match step:
                case binding.Rest():
                    self._rest(facts, memory)
                    return None
                case binding.Wait(seconds):
                    return seconds
                case binding.Pending(message):
                    assert facts.snapshot is not None
                    await self._events.warn(facts.snapshot, "SnapshotDeletePending", message)
                    return binding.PENDING_SECONDS
                case _:
                    await self._perform(facts, step, memory)
        raise UnavailableError(f"{key} does not come to rest")

    def forget(self, uid: str) -> None:
        """The snapshot is gone."""
        self._since.pop(uid, None)

    def claim_is_needed(self, namespace: str, claim: str, uid: str) -> bool:
        """Whether another snapshot than `uid` needs the hold on this claim."""
        return claims.needed(self._world, namespace, claim, uid)

    # -- inside ----------------------------------------------------------------------------------------------

    def _view(self, facts: Facts, memory: _Memory) -> binding.View:
        snapshot, content = facts.snapshot, facts.content
        contents = self._world.contents
        name = self._world.content_name(snapshot) if snapshot is not None else ""
        held = names.CLAIM_FINALIZER in (path(facts.claim, "metadata", "finalizers") or ())
        shared = (
            held and facts.claim is not None and self.claim_is_needed(*_place(facts.claim["metadata"]), facts.uid)
        )
        return binding.View(
            facts=facts,
            now=self._clock.now(),
            waited_seconds=self._waited(facts),
            content_name=name,
            content_known=content is not None or name in memory.looked_up or contents.saw_go("", name),
            claim_shared=shared,
            claim_left=memory.claim_left is not None,
            shared_with=self._sharing(facts),
            kept_by_group=self.judge_member(facts),
            source_mode=self._rules.source_mode,
            node=self._node(facts),
        )

    def _waited(self, facts: Facts) -> float:
        if facts.content is None or facts.snapshot is None or is_ready(facts.snapshot):
            self._since.pop(facts.uid, None)
            return 0.0
        now = asyncio.get_running_loop().time()
        return now - self._since.setdefault(facts.uid, now)

    def _sharing(self, facts: Facts) -> tuple[str, ...]:
        """Only a deletion asks for it."""
        if facts.content is None or not path(facts.snapshot, "metadata", "deletionTimestamp"):
            return ()
        return tuple(self._world.sharing(facts.content))

    def _node(self, facts: Facts) -> str:
        if not self._rules.distributed or facts.volume is None or facts.content is not None:
            return ""
        assert self._world.nodes is not None
        return affinity.node_for(facts.volume, self._world.nodes.all())

    def _rest(self, facts: Facts, memory: _Memory) -> None:
        if facts.snapshot is None:
            self.forget(facts.uid)
        if memory.claim_left is not None:
            raise memory.claim_left

    async def _sweep(self, namespace: str, name: str) -> None:
        if not self.claim_is_needed(namespace, name, ""):
            await self.claims.drop(namespace, name, "")

    async def _perform(self, facts: Facts, step: binding.Step, memory: _Memory) -> None:
        snapshot = facts.snapshot
        match step:
            case binding.HoldClaim() | binding.DropClaim():
                await self._on_claim(facts, step, memory)
            case binding.Create(body):
                await self._create(facts, body)
            case binding.Amend(body, reason):
                binds = reason == "SnapshotBindFailed"
                await self._tried(self._writer.put(names.CONTENTS, body), snapshot, reason, in_status=binds)
            case binding.Delete(content):
                await self._tried(
                    self._writer.delete(names.CONTENTS, content), snapshot, "SnapshotContentObjectDeleteError"
                )
            case binding.Hold(body) | binding.Release(body):
                await self._tried(self._writer.put(names.SNAPSHOTS, body), snapshot, "SnapshotFinalizerError")
            case binding.Look(name):
                await self._writer.refresh(names.CONTENTS, "", name)
                memory.looked_up.add(name)
            case binding.Publish(news):
                await self._publish(facts, news)
            case _:
                raise AssertionError(f"{step} is carried out by the turn itself")

    async def _on_claim(self, facts: Facts, step: binding.HoldClaim | binding.DropClaim, memory: _Memory) -> None:
        snapshot = facts.snapshot
        assert snapshot is not None
        namespace = snapshot["metadata"]["namespace"]
        claim = path(snapshot, "spec", "source", "persistentVolumeClaimName")
        if isinstance(step, binding.HoldClaim):
            taking = self.claims.take(namespace, claim)
            await self._tried(taking, snapshot, "SnapshotContentCreationFailed", in_status=True)
            return
        try:
            await self.claims.drop(namespace, claim, facts.uid)
        except (ConflictError, ElsewhereError):
            raise
        except BridgeError as error:
            # Nothing else depends on it: the rest of the turn goes on, and the turn is tried again for this.
            memory.claim_left = error
            await self._events.warn(snapshot, "ErrorPVCFinalizer", f"Error check and remove PVC Finalizer: {error}")

    async def _create(self, facts: Facts, body: Object) -> None:
        snapshot = facts.snapshot
        assert snapshot is not None
        making = self._writer.create(names.CONTENTS, "", body)
        await self._tried(making, snapshot, "CreateSnapshotContentFailed", in_status=True)
        event = bound_status.creating(snapshot)
        await self._events.tell(snapshot, event.reason, event.message)

    async def _publish(self, facts: Facts, news: bound_status.News) -> None:
        assert facts.snapshot is not None
        writing = self._writer.put(names.SNAPSHOTS, {**facts.snapshot, "status": news.status}, status=True)
        written = await self._tried(writing, facts.snapshot, "SnapshotStatusUpdateFailed")
        for event in news.events:
            write = self._events.warn if event.warning else self._events.tell
            await write(written, event.reason, event.message)

    async def _tried(self, what: Awaitable[T], snapshot: Object | None, reason: str, *, in_status: bool = False) -> T:
        """Await a write. If the server refuses, its owner is told under upstream's reason, and it is tried again."""
        try:
            return await what
        except (ConflictError, ElsewhereError):
            raise
        except BridgeError as error:
            if snapshot is not None and reason:
                await self._tell_refusal(snapshot, bound_status.refusal(snapshot, reason, str(error)), in_status)
            raise

    async def _tell_refusal(self, snapshot: Object, event: bound_status.Event, in_status: bool) -> None:
        news = bound_status.refused(snapshot, event, self._clock.now()) if in_status else None
        if news is not None:
            try:
                snapshot = await self._writer.put(names.SNAPSHOTS, {**snapshot, "status": news.status}, status=True)
            except BridgeError as error:
                log.warning("a refusal could not be told", extra={"reason": event.reason, "error": str(error)})
        await self._events.warn(snapshot, event.reason, event.message)


def _place(metadata: Object) -> tuple[str, str]:
    return metadata["namespace"], metadata["name"]
