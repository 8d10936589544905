"""Writes members: makes them when the group is cut, keeps their readiness fresh, and lets them go with the group.

Four writes make a member, two refresh one, none are made when nothing has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from adapters.kubernetes import member, names
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.groups import members, selector
from adapters.kubernetes.groups.facts import GroupFacts, is_ready, static_content
from adapters.kubernetes.groups.translate import handles_of
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.writer import Writer
from bridge.model.failure import InvalidError
from bridge.model.snapshot import CutSnapshot

Object = dict[str, Any]
AT_ONCE = 8
"""Members that are written at the same time."""


class Membership:
    """The members of groups, as objects."""

    def __init__(self, groups: GroupWorld, writer: Writer) -> None:
        self._groups = groups
        self._world = groups.world
        self._writer = writer

    async def ensure(self, facts: GroupFacts, cuts: Iterable[CutSnapshot]) -> None:
        """Have an object pair for each member, saying what the backend says. Raises the first failure of any."""
        assert facts.group is not None
        if static_content(facts.group):
            await _each(self._join(facts, handle) for handle in _static_handles(facts))
        else:
            plans = [members.Plan(facts, cut) for cut in cuts]
            await _each(self._make(plan) for plan in plans)
            await _each(self._refresh(plan) for plan in plans)

    async def learn_claims(self, group: Object) -> None:
        """Learn which claims the selector chooses now: a claim that its owner has labelled a moment before the group
        was made belongs to it, though the watch of claims tells of that later than the watch of groups."""
        chosen = path(group, "spec", "source", "selector")
        if chosen is not None:
            wanted = selector.text(chosen) if chosen else ""
            await self._writer.read_chosen(names.CLAIMS, group["metadata"]["namespace"], wanted)

    async def let_go(self, uid: str) -> None:
        """Ask for the end of each member; our finalizer keeps it until the group is gone."""
        await _each(
            self._writer.delete(names.SNAPSHOTS, snapshot, exact=False)
            for snapshot in self._groups.members(uid)
            if not is_deleting(snapshot)
        )

    async def _make(self, plan: members.Plan) -> None:
        """The two objects, bound to each other; two writes, or none.

        What somebody takes away with force after the group was ready is not made twice.
        """
        if is_ready(plan.group):
            return
        snapshot = self._world.snapshots.get(plan.namespace, plan.snapshot_name)
        if snapshot is None:
            snapshot = await self._writer.create(names.SNAPSHOTS, plan.namespace, members.new_snapshot(plan))
        content = self._world.contents.get("", plan.content_name)
        if not members.is_ours(snapshot, content, plan):
            place = f"{plan.namespace}/{plan.snapshot_name}"
            raise InvalidError(f"{place} or its content {plan.content_name} is in the way of a member of the group")
        if content is None:
            await self._writer.create(names.CONTENTS, "", members.new_content(plan, snapshot))
            return
        rebound = members.rebound_content(content, snapshot)
        if rebound is not None:
            await self._writer.put(names.CONTENTS, rebound)

    async def _refresh(self, plan: members.Plan) -> None:
        """What the backend says, first on the content, then on the snapshot; two writes, or none."""
        snapshot = self._world.snapshots.get(plan.namespace, plan.snapshot_name)
        content = self._world.contents.get("", plan.content_name)
        if snapshot is None or content is None or not members.is_ours(snapshot, content, plan):
            return
        if members.rebound_content(content, snapshot) is not None:
            return
        fresh = members.content_status(content, plan.cut)
        if fresh is not None:
            await self._writer.put(names.CONTENTS, fresh, status=True)
        told = members.snapshot_status(snapshot, plan)
        if told is not None:
            await self._writer.put(names.SNAPSHOTS, told, status=True)

    async def _join(self, facts: GroupFacts, handle: str) -> None:
        """A member that people made by hand for a pre-provisioned group: it becomes one by its handle."""
        group, content = facts.group, facts.content
        assert group is not None
        assert content is not None
        driver, place = path(content, "spec", "driver"), group["metadata"]["namespace"]
        for item in self._world.contents.find("by-cut", f"{driver}/{handle}"):
            reference = path(item, "spec", "volumeSnapshotRef") or {}
            snapshot = self._world.snapshots.get(place, str(reference.get("name")))
            if reference.get("namespace") != place or snapshot is None or is_deleting(snapshot):
                continue
            if path(item, "status", "volumeGroupSnapshotHandle") is None and item.get("status"):
                group_handle = path(content, "status", "volumeGroupSnapshotHandle")
                marked = {**item["status"], "volumeGroupSnapshotHandle": group_handle}
                await self._writer.put(names.CONTENTS, {**item, "status": marked}, status=True)
            await self._own(group, snapshot)

    async def _own(self, group: Object, snapshot: Object) -> None:
        metadata = snapshot["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        owners = list(metadata.get("ownerReferences") or ())
        if member.owner(snapshot) is None or names.IN_GROUP_FINALIZER not in finalizers:
            owned = {
                **metadata,
                "ownerReferences": owners if member.owner(snapshot) else [*owners, members.owner(group)],
                "finalizers": list(dict.fromkeys([*finalizers, names.IN_GROUP_FINALIZER])),
            }
            snapshot = _bare(await self._writer.put(names.SNAPSHOTS, {**snapshot, "metadata": owned}))
        status = snapshot.get("status") or {}
        if status and status.get("volumeGroupSnapshotName") != group["metadata"]["name"]:
            named = {**status, "volumeGroupSnapshotName": group["metadata"]["name"]}
            await self._writer.put(names.SNAPSHOTS, {**snapshot, "status": named}, status=True)


def _static_handles(facts: GroupFacts) -> tuple[str, ...]:
    content = facts.content
    given = path(content, "spec", "source", "groupSnapshotHandles")
    ready = path(content, "status", "volumeGroupSnapshotHandle")
    return handles_of(given).members if given and ready else ()


def _bare(item: Object) -> Object:
    """Without managedFields: the server spends half the work on it."""
    metadata = {field: value for field, value in item["metadata"].items() if field != "managedFields"}
    return {**item, "metadata": metadata}


async def _each(tasks: Iterable[Awaitable[object]]) -> None:
    """A few at a time; all are tried, then the first failure is raised."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(task: Awaitable[object]) -> None:
        async with gate:
            await task

    for failed in await asyncio.gather(*(one(task) for task in tasks), return_exceptions=True):
        if isinstance(failed, BaseException):
            raise failed
