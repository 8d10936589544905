"""The cluster half of groups: one look at one VolumeGroupSnapshot, until it rests. `decide/group_binding.py` decides.

It talks to no driver: the driver half, ours or upstream's, does that, and says what came of it in the content.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from adapters.kubernetes.claims import ClaimHolds
from adapters.kubernetes.complaints import Complaints
from adapters.kubernetes.decide import group_binding as binding
from adapters.kubernetes.decide.bound_status import News
from adapters.kubernetes.facts import is_deleting
from adapters.kubernetes.groups import names, shape
from adapters.kubernetes.groups.facts import GroupFacts
from adapters.kubernetes.groups.means import Means
from adapters.kubernetes.groups.membership import Membership
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.problem import MalformedError
from bridge.model.failure import BridgeError, ConflictError, ElsewhereError, NotSyncedError, UnavailableError

Object = dict[str, Any]
T = TypeVar("T")
MOST_STEPS = 32
PENDING_SECONDS = 30.0


@dataclasses.dataclass(slots=True)
class _Memory:
    """What one turn has learnt that no object says."""

    looked_up: set[str] = dataclasses.field(default_factory=set)
    members_of: str = ""
    """The version of the content that the members were made to follow."""


class GroupTurns:
    """The turn of the cluster half's group loop. A key is a group's uid, or a content's own key."""

    def __init__(self, groups: GroupWorld, means: Means, claims: ClaimHolds) -> None:
        self._groups = groups
        self._writer = means.writer
        self._events = means.events
        self._clock = means.clock
        self._claims = claims
        self._membership = Membership(groups, means.writer)
        self._complaints = Complaints(means.writer, means.events, means.clock, told_in=names.GROUPS)
        self.standing: Callable[[str], str] = lambda _key: ""
        """Why nothing may be done for a key at this moment; empty when we may act."""

    async def turn(self, key: str) -> float | None:
        """See bridge.ports.loop.Turn."""
        if self._groups.absent:
            raise ElsewhereError("the cluster has no group snapshots")
        if not self._groups.synced or not self._groups.world.synced:
            raise NotSyncedError("the groups are not read yet")
        if reason := self.standing(key):
            raise ElsewhereError(reason)
        await asyncio.sleep(0)
        memory = _Memory()
        for _ in range(MOST_STEPS):
            try:
                facts = self._groups.facts(key)
            except MalformedError as error:
                await self._complaints.tell(error)
                raise ElsewhereError(str(error)) from error
            if facts is None:
                return None
            step = binding.decide(self._view(facts, memory))
            if isinstance(step, binding.Rest):
                return None
            if isinstance(step, binding.Pending):
                assert facts.group is not None
                await self._events.warn(facts.group, "SnapshotDeletePending", step.message)
                return PENDING_SECONDS
            await self._perform(facts, step, memory)
        raise UnavailableError(f"{key} does not come to rest")

    def _view(self, facts: GroupFacts, memory: _Memory) -> binding.View:
        group, content = facts.group, facts.content
        if group is None:
            return binding.View(facts)
        name = self._groups.content_name(group)
        members = self._groups.members(facts.uid) if is_deleting(group) else []
        return binding.View(
            facts=facts,
            now=self._clock.now(),
            content_known=content is not None or name in memory.looked_up or self._groups.contents.saw_go("", name),
            members_done=bool(content and memory.members_of == content["metadata"]["resourceVersion"]),
            members_stay=any(not is_deleting(one) for one in members),
            claims_stray=bool(self._stray(facts)),
        )

    def _stray(self, facts: GroupFacts) -> list[str]:
        """Held claims of the namespace that nobody but this group may need, and it only until it is ready; of a group
        whose cut has failed for certain, those that are being deleted."""
        assert facts.group is not None
        namespace = facts.group["metadata"]["namespace"]
        if not self._groups.world.claims.count("held", namespace):
            return []
        with self._groups.without(facts.uid):
            held = self._groups.world.claims.find("held", namespace)
            if binding.has_failed(facts) and not is_deleting(facts.group):
                held = [claim for claim in held if is_deleting(claim)]
            named = [str(claim["metadata"]["name"]) for claim in held]
            return [name for name in named if not self._claims.shared(namespace, name, facts.uid)]

    async def _perform(self, facts: GroupFacts, step: binding.Step, memory: _Memory) -> None:
        group = facts.group
        match step:
            case binding.HoldClaims() | binding.DropClaims():
                await self._on_claims(facts, drop=isinstance(step, binding.DropClaims))
            case binding.Create(body):
                await self._create(facts, body)
            case binding.Amend(body, reason):
                await self._tried(self._writer.put(names.CONTENTS, body), group, reason)
            case binding.Members():
                content = facts.content
                assert content is not None
                await self._membership.ensure(facts, shape.members_of(content))
                memory.members_of = content["metadata"]["resourceVersion"]
            case binding.LetMembersGo():
                await self._tried(self._membership.let_go(facts.uid), group, "SnapshotDeleteError")
            case binding.Delete(content):
                deleting = self._writer.delete(names.CONTENTS, content)
                await self._tried(deleting, group, "GroupSnapshotContentObjectDeleteError")
            case binding.Hold(body) | binding.Release(body):
                if isinstance(step, binding.Hold):
                    await self._membership.learn_claims(body)
                await self._tried(self._writer.put(names.GROUPS, body), group, "GroupSnapshotFinalizerError")
            case binding.Look(name):
                await self._writer.refresh(names.CONTENTS, "", name)
                memory.looked_up.add(name)
            case binding.Publish(news):
                await self._publish(facts, news)
            case _:
                raise AssertionError(f"{step} is carried out by the turn itself")

    async def _on_claims(self, facts: GroupFacts, *, drop: bool) -> None:
        assert facts.group is not None
        namespace = facts.group["metadata"]["namespace"]
        if drop:
            with self._groups.without(facts.uid):
                for name in self._stray(facts):
                    await self._claims.drop(namespace, name, facts.uid)
            return
        for source in facts.sources:
            if source.claim is not None:
                await self._claims.take(namespace, source.claim["metadata"]["name"])

    async def _create(self, facts: GroupFacts, body: Object) -> None:
        group = facts.group
        assert group is not None
        await self._tried(self._writer.create(names.CONTENTS, "", body), group, "CreateGroupSnapshotContentFailed")
        event = binding.creating(group)
        await self._events.tell(group, event.reason, event.message)

    async def _publish(self, facts: GroupFacts, news: News) -> None:
        assert facts.group is not None
        writing = self._writer.put(names.GROUPS, {**facts.group, "status": news.status}, status=True)
        written = await self._tried(writing, facts.group, "GroupSnapshotStatusUpdateFailed")
        for event in news.events:
            tell = self._events.warn if event.warning else self._events.tell
            await tell(written, event.reason, event.message)

    async def _tried(self, what: Awaitable[T], group: Object | None, reason: str) -> T:
        """Await a write. If the server refuses, its owner is told under upstream's reason, and it is tried again."""
        try:
            return await what
        except (ConflictError, ElsewhereError):
            raise
        except BridgeError as error:
            if group is not None and reason:
                await self._events.warn(group, reason, str(error))
            raise
