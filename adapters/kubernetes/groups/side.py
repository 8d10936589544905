"""Joins the group half of one cluster: caches, ports, and what the single snapshots' half asks about members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adapters.kubernetes import member
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.client import Client
from adapters.kubernetes.facts import Facts, is_deleting, path
from adapters.kubernetes.groups.contents import GroupContents
from adapters.kubernetes.groups.means import Means
from adapters.kubernetes.groups.requests import VolumeGroupSnapshots
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.names import INTENT, Resource
from adapters.kubernetes.reflector import Pace, Reflector
from adapters.kubernetes.world import World
from bridge.model.failure import ElsewhereError, NotSyncedError
from bridge.ports.group import GroupSide

Object = dict[str, Any]


class Groups:
    """The group snapshots of one cluster."""

    def __init__(self, world: World, means: Means) -> None:
        self.world = GroupWorld(world)
        means.writer.also(self.world.caches)
        self._ownership = means.ownership
        self.requests = VolumeGroupSnapshots(self.world, means)
        self.ledger = GroupContents(self.world, means, self.requests.let_members_go)
        self.side = GroupSide(self.requests, self.ledger)
        self.world.classes.listen(self._on_class)

    def reflectors(self, client: Client, *, pace: Pace | None, on_synced: Callable[[], None]) -> Sequence[Reflector]:
        """What keeps the caches true; a kind that the cluster lacks is looked for again and again."""
        caches: dict[Resource, Cache] = self.world.caches
        return [
            Reflector(client, resource, cache, pace=pace, on_synced=on_synced, on_found=self.world.found)
            for resource, cache in caches.items()
        ]

    def judge(self, facts: Facts) -> str:
        """What a single snapshot's membership means for it: a sentence when it must not be deleted now.

        ElsewhereError: its group looks after it. NotSyncedError: not known yet.
        """
        snapshot = facts.snapshot
        if snapshot is None or not member.is_member(snapshot):
            return ""
        if self.world.absent:
            raise ElsewhereError("it is a member of a group snapshot, and the cluster has no group kinds")
        if not self.world.synced:
            raise NotSyncedError("the groups are not read yet")
        group = self._group_of(snapshot)
        if group is None:
            return ""
        metadata, place = snapshot["metadata"], f"{group['metadata']['namespace']}/{group['metadata']['name']}"
        if is_deleting(snapshot) and is_deleting(group):
            raise ElsewhereError(f"its group {place} is on its way out; the member follows it")
        if is_deleting(snapshot):
            return (
                f"deletion of the individual volume snapshot {metadata['namespace']}/{metadata['name']} is not "
                f"allowed as it belongs to group snapshot {place}. Deleting the group snapshot will trigger "
                "the deletion of all the individual volume snapshots that are part of the group."
            )
        if member.is_made_by_group(snapshot):
            raise ElsewhereError(f"its group {place} looks after it")
        return ""

    def watch_foreign(self, fence: Callable[[str], str]) -> None:
        """Notice group contents that somebody else makes: our own ones carry our note from the start."""

        def changed(before: Object | None, after: Object | None) -> None:
            if before is not None or after is None or not self.world.synced or fence(""):
                return
            notes = after["metadata"].get("annotations") or {}
            if INTENT not in notes and path(after, "spec", "source", "volumeHandles"):
                self._ownership.saw_foreign_create(
                    str(path(after, "spec", "driver") or ""), after["metadata"]["name"]
                )

        self.world.contents.listen(changed)

    def _group_of(self, snapshot: Object) -> Object | None:
        for uid in member.group_uids(snapshot):
            return self.world.groups.by_uid(uid)
        return self.world.groups.get(snapshot["metadata"]["namespace"], member.group_name(snapshot))

    def _on_class(self, before: Object | None, after: Object | None) -> None:
        if after is not None and after.get("driver"):
            self._ownership.meet(str(after["driver"]))
