"""The `GroupRequests` port on VolumeGroupSnapshot objects: read them, hold them, tell their owners, let them go."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from adapters.kubernetes.complaints import Complaints
from adapters.kubernetes.decide.group_binding import has_failed, held_group
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.groups import names, status, translate
from adapters.kubernetes.groups.facts import GroupFacts, is_bound
from adapters.kubernetes.groups.means import GROUP, ClusterMeans
from adapters.kubernetes.groups.membership import Membership
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.problem import MalformedError
from bridge.model.failure import ConflictError, ElsewhereError, NotSyncedError
from bridge.model.group import GroupRequest, GroupStatus
from bridge.model.keys import Key, group_key, snapshot_key
from bridge.model.snapshot import SnapshotState, Wish

Object = dict[str, Any]


class VolumeGroupSnapshots:
    """The `GroupRequests` port. It acts for the drivers that are ours and for no other."""

    def __init__(self, groups: GroupWorld, means: ClusterMeans) -> None:
        self._cluster = means.cluster
        self._groups = groups
        self._writer = means.writer
        self._claims = means.claims
        self._events = means.events
        self._ownership = means.ownership
        self._clock = means.clock
        self._membership = Membership(groups, means.writer)
        self.let_members_go = self._membership.let_go
        self._complaints = Complaints(means.writer, means.events, means.clock, told_in=names.GROUPS)

    async def observe(self, key: Key) -> GroupRequest | None:
        """The request as the caches have it. ElsewhereError when it is another controller's business."""
        if self._groups.absent:
            raise ElsewhereError("the cluster has no group snapshots")
        if not self._groups.synced or not self._groups.world.synced:
            raise NotSyncedError(f"cluster {self._cluster} is not read yet")
        facts = await self._facts(key.uid)
        if facts is None:
            return None
        request = translate.request(self._cluster, facts)
        if not self._ownership.ours(request.driver, GROUP + key.uid):
            raise ElsewhereError(self._ownership.why_not(request.driver))
        if request.wish is Wish.PRESENT:
            return request
        members = self._groups.members(key.uid)
        keys = tuple(snapshot_key(self._cluster, one["metadata"]["uid"]) for one in members)
        return dataclasses.replace(request, members=keys)

    async def _facts(self, uid: str) -> GroupFacts | None:
        """What is known. A malformed object is told to its owner, and left alone until it changes."""
        try:
            return self._groups.facts(uid)
        except MalformedError as error:
            if self._ownership.ours(error.driver, GROUP + uid):
                await self._complaints.tell(error)
            raise ElsewhereError(str(error)) from error

    async def hold(self, request: GroupRequest) -> None:
        """Put our finalizer on the group (and its default class, in the same write), then on each claim."""
        group = self._groups.groups.by_uid(request.key.uid)
        if group is not None and not is_deleting(group):
            await self._membership.learn_claims(group)
        facts = self._groups.facts(request.key.uid)
        if facts is None or facts.group is None or is_deleting(facts.group):
            return
        held = held_group(facts)
        if held is not None:
            await self._writer.put(names.GROUPS, held)
        for source in facts.sources:
            if source.claim is not None:
                await self._claims.take(request.namespace, source.claim["metadata"]["name"])

    async def release(self, request: GroupRequest) -> None:
        """Let the members and the claims go, and the group last: members outlast it until it is truly gone.

        A content that stays (Retain) is marked first, as upstream does: its owner may delete it later on its own.
        """
        group = self._groups.groups.by_uid(request.key.uid)
        if group is None:
            return
        await self._look_for_content(group)
        await self._membership.let_go(request.key.uid)
        await self._mark_retained(group)
        await self._drop_claims(group)
        finalizers = list(group["metadata"].get("finalizers") or ())
        wanted = [finalizer for finalizer in finalizers if finalizer != names.BOUND_FINALIZER]
        if wanted != finalizers:
            await self._writer.put(names.GROUPS, {**group, "metadata": {**group["metadata"], "finalizers": wanted}})

    async def publish(self, request: GroupRequest, told: GroupStatus) -> None:
        """Have the members say what the backend says, then the group; a group is ready after its members are."""
        facts = self._groups.facts(request.key.uid)
        if facts is None or facts.group is None or request.wish is Wish.GONE:
            return
        group = facts.group
        own = facts.content if is_bound(facts.content, group) else None
        if own is not None and told.handle and told.state is not SnapshotState.DELETING and not is_deleting(group):
            await self._membership.ensure(facts, told.members)
        news = status.tell(group, own, told, self._clock.now())
        if news.status is not None:
            group = await self._writer.put(names.GROUPS, {**group, "status": news.status}, status=True)
        if news.reason and news.warning:
            await self._events.warn(group, news.reason, news.message)
        elif news.reason:
            await self._events.tell(group, news.reason, news.message)
        if told.state is SnapshotState.READY or (own is None and told.failure is not None):
            # A request in trouble holds nothing: else a group that never can be would keep its claims for ever.
            await self._drop_claims(group)
        elif told.failure is not None and has_failed(facts):
            await self._drop_claims(group, only_deleted=True)

    async def keys(self) -> AsyncIterator[Key]:
        """Every group's key."""
        if self._groups.synced:
            for group in self._groups.groups.all():
                yield group_key(self._cluster, group["metadata"]["uid"])

    async def _look_for_content(self, group: Object) -> None:
        """A content that was never seen here may lag behind: another controller made it just before we took over."""
        name = self._groups.content_name(group)
        contents = self._groups.contents
        if contents.get("", name) is not None or contents.saw_go("", name):
            return
        if await self._writer.refresh(names.CONTENTS, "", name) is not None:
            raise ConflictError(f"the content {name} was not known yet")

    async def _mark_retained(self, group: Object) -> None:
        content = self._groups.content_of(group)
        if content is None or not is_deleting(group) or not is_bound(content, group):
            return
        notes = content["metadata"].get("annotations") or {}
        if names.BEING_DELETED in notes or is_deleting(content):
            return
        metadata = {**content["metadata"], "annotations": {**notes, names.BEING_DELETED: "yes"}}
        await self._writer.put(names.CONTENTS, {**content, "metadata": metadata})

    async def _drop_claims(self, group: Object, *, only_deleted: bool = False) -> None:
        """Every held claim of the namespace that nobody needs: what was selected may have changed since the hold."""
        namespace, uid = group["metadata"]["namespace"], group["metadata"]["uid"]
        if not path(group, "spec", "source", "selector"):
            return
        for claim in self._groups.world.claims.find("held", namespace):
            if only_deleted and not is_deleting(claim):
                continue
            await self._claims.drop(namespace, claim["metadata"]["name"], uid)
