"""Joins the group half of one cluster: caches, ports, and what the single snapshots' half asks about members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters.kubernetes import member
from adapters.kubernetes.facts import Facts, is_deleting, path
from adapters.kubernetes.groups.contents import GroupContents
from adapters.kubernetes.groups.means import ClusterMeans
from adapters.kubernetes.groups.requests import VolumeGroupSnapshots
from adapters.kubernetes.groups.world import GroupWorld
from adapters.kubernetes.names import INTENT, Naming
from adapters.kubernetes.world import World
from bridge.model.failure import ElsewhereError, NotSyncedError
from bridge.ports.group import GroupSide

Object = dict[str, Any]


class Groups:
    """The group snapshots of one cluster."""

    def __init__(self, world: World, means: ClusterMeans, naming: Naming | None = None) -> None:
        self.world = GroupWorld(world, naming)
        means.writer.also(self.world.caches)
        self._ownership = means.ownership
        self.requests = VolumeGroupSnapshots(self.world, means)
        self.ledger = GroupContents(self.world, means, self.requests.let_members_go)
        self.side = GroupSide(self.requests, self.ledger)
        self.world.classes.listen(self._on_class)

    def judge(self, facts: Facts) -> str:
        """What a single snapshot's membership means for it: a sentence when it must not be deleted now.

        ElsewhereError: its group looks after it. NotSyncedError: not known yet.
        """
        return "" if facts.snapshot is None else judge(self.world, facts.snapshot)

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

    def _on_class(self, before: Object | None, after: Object | None) -> None:
        if after is not None and after.get("driver"):
            self._ownership.meet(str(after["driver"]))


def judge(groups: GroupWorld, snapshot: Object) -> str:
    """Why its group keeps a VolumeSnapshot from being deleted; empty for no member, or when the group is gone.

    ElsewhereError: its group looks after it. NotSyncedError: not known yet.
    """
    if not member.is_member(snapshot):
        return ""
    if groups.absent:
        raise ElsewhereError("it is a member of a group snapshot, and the cluster has no group kinds")
    if not groups.synced:
        raise NotSyncedError("the groups are not read yet")
    group = _group_of(groups, snapshot)
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


def _group_of(groups: GroupWorld, snapshot: Object) -> Object | None:
    for uid in member.group_uids(snapshot):
        return groups.groups.by_uid(uid)
    return groups.groups.get(snapshot["metadata"]["namespace"], member.group_name(snapshot))
