"""Drivers whose snapshots another controller makes: we create VolumeSnapshots and watch what becomes of them.

Nothing is written here. Who acts for a driver is `ownership`'s word, and it may change at any time, both ways.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from adapters.kubernetes import translate
from adapters.kubernetes.facts import Facts, is_bound, is_deleting, is_ready, path, seconds_of
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.status import size_of
from adapters.kubernetes.world import World
from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import Key
from bridge.model.plugin import InstanceId, PluginDescription, Route
from bridge.model.snapshot import DELEGATED, Followed, SnapshotState, SnapshotStatus

Object = dict[str, Any]

MEMBER = "member"
"""The reason that is told of a snapshot which its group looks after."""


class Delegation:
    """Answers `Joined.follow` and `Joined.delegations`."""

    def __init__(self, cluster: str, world: World, ownership: Ownership) -> None:
        self._cluster = cluster
        self._world = world
        self._ownership = ownership

    async def follow(self, key: Key) -> Followed | None:
        """What the other controller has told the VolumeSnapshot's owner."""
        try:
            facts = self._world.facts(key.uid) if self._world.synced else None
        except MalformedError:
            return None  # Its owner is told by who acts.
        if facts is None:
            return None
        request = translate.request(self._cluster, facts)
        if self._ownership.ours(request.driver, key.uid):
            # Nobody else acts: it is a member, and its group's own pass keeps it here.
            status = dataclasses.replace(told(facts, ""), reason=MEMBER)
            return Followed(request, status)
        return Followed(request, told(facts, self._ownership.why_not(request.driver)))

    def rows(self) -> Sequence[PluginDescription]:
        """One row per driver that we have met and do not act for."""
        return [
            PluginDescription(
                InstanceId(driver, "controller", f"cluster {self._cluster}"),
                Route.DELEGATION,
                endpoint=f"VolumeSnapshots of cluster {self._cluster}",
                healthy=acts,
                sentence=sentence,
            )
            for driver, acts, sentence in self._ownership.delegated()
        ]


def told(facts: Facts, by: str) -> SnapshotStatus:
    """The status as the objects have it. Pure. A failure is unsure here: the other controller tries again."""
    snapshot, content = facts.snapshot, facts.content
    status: Object = (snapshot or {}).get("status") or {}
    bound = content is not None and (snapshot is None or is_bound(content, snapshot))
    error = path(status, "error", "message")
    cut = seconds_of(status.get("creationTime"))
    return SnapshotStatus(
        state=_state(facts, bound),
        ready=snapshot is not None and is_ready(snapshot),
        handle=str(path(content, "status", "snapshotHandle") or "") if bound else "",
        size_bytes=size_of(str(status["restoreSize"])) if status.get("restoreSize") else None,
        cut_at_ns=int(cut * 1e9) if cut else None,
        failure=Failure(FailureKind.UNSURE, "DELEGATED", str(error)) if error else None,
        reason=DELEGATED,
        message=str(error or by),
    )


def _state(facts: Facts, bound: bool) -> SnapshotState:
    snapshot, content = facts.snapshot, facts.content
    if snapshot is None:
        return SnapshotState.DELETING if content is not None and is_deleting(content) else SnapshotState.GONE
    if is_deleting(snapshot):
        return SnapshotState.DELETING
    if is_ready(snapshot):
        return SnapshotState.READY
    if path(snapshot, "status", "error", "message"):
        return SnapshotState.FAILING
    if path(snapshot, "status", "creationTime"):
        return SnapshotState.PROCESSING
    return SnapshotState.CUTTING if bound else SnapshotState.PENDING
