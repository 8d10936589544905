"""The groups of the desk in memory (`desk.py`): its rules of the port, no plugin behind it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridge.model.failure import ConflictError, DeniedError, InvalidError, NotFoundError
from bridge.model.group import GroupStatus, Means
from bridge.model.keys import Key, group_key
from bridge.model.operation import Operation
from bridge.model.plugin import Route
from bridge.model.snapshot import SnapshotState
from bridge.model.view import GroupDraft, GroupView, SnapshotView
from bridge.ports.identity import Caller
from bridge.ports.orchestrator import SnapshotDraft

if TYPE_CHECKING:
    from tests.support.desk import MemoryDesk


class MemoryGroupDesk:
    """Every group is cut at once, by a barrier; its members are snapshots of the desk."""

    def __init__(self, desk: MemoryDesk) -> None:
        self._desk = desk
        self._groups: dict[str, GroupView] = {}
        self._numbers = itertools.count(1)
        self._claims: dict[tuple[str, str], tuple[GroupDraft, GroupView, Operation]] = {}

    async def create(
        self, caller: Caller, draft: GroupDraft, *, idempotency_key: str = ""
    ) -> tuple[GroupView, Operation]:
        known = self._claims.get((caller.name, idempotency_key)) if idempotency_key else None
        if known is not None:
            if known[0] != draft:
                raise ConflictError("this idempotency key is another wish's", field="Idempotency-Key")
            return known[1], await self._desk.operation(caller, known[2].id)
        if bool(draft.volumes) == bool(draft.users):
            raise InvalidError("name the volumes, or who uses them", field="volumes")
        if draft.users:
            raise NotFoundError("nobody uses a volume here", field="users")
        if len(set(draft.volumes)) != len(draft.volumes):
            raise InvalidError("a volume is named twice", field="volumes")
        there = {volume.name for volume in await self._desk.volumes(Caller("admin"))}
        for volume in draft.volumes:
            if draft.cluster not in self._desk.cluster_names or volume not in there:
                raise NotFoundError(f"there is no volume {volume!r}", field="volume")
            if caller.volumes and volume not in caller.volumes:
                raise DeniedError(f"{caller.name} may not touch volume {volume!r}")
        if any((one.namespace, one.name) == (draft.namespace, draft.name) for one in self._groups.values()):
            raise ConflictError(f"the name {draft.name!r} is taken", field="name")
        view, operation = await self._book(caller, draft)
        if idempotency_key:
            self._claims[caller.name, idempotency_key] = (draft, view, operation)
        return view, operation

    async def _book(self, caller: Caller, draft: GroupDraft) -> tuple[GroupView, Operation]:
        members: list[SnapshotView] = []
        for volume in draft.volumes:
            one = SnapshotDraft(
                draft.cluster, draft.namespace, f"{draft.name}-{volume}", volume, labels={"group": draft.name}
            )
            member, operation = await self._desk.create_snapshot(caller, one)
            members.append(member)
        uid = f"group-{next(self._numbers):04}"
        status = GroupStatus(
            SnapshotState.READY, ready=True, means=Means.BARRIER, skew_seconds=0.004, skew_exact=True,
            route=Route.SOCKET,
        )  # fmt: skip
        view = GroupView(
            group_key(draft.cluster, uid), draft.namespace, draft.name, draft.policy.value, f"groupsnapshot-{uid}",
            status, tuple(members), draft.max_skew_seconds, self._desk.now, caller.name, draft.why,
            dict(draft.labels), dict(draft.parameters),
        )  # fmt: skip
        self._groups[uid] = view
        return view, operation

    async def all(self, caller: Caller, *, cluster: str = "", namespace: str = "") -> Sequence[GroupView]:
        if cluster and cluster not in self._desk.cluster_names:
            raise NotFoundError(f"no cluster {cluster!r} is configured", field="cluster")
        return [
            one
            for one in reversed(self._groups.values())
            if cluster in ("", one.key.cluster) and namespace in ("", one.namespace)
        ]

    async def one(self, caller: Caller, ref: str) -> GroupView:
        return self._find(ref)

    async def delete(self, caller: Caller, ref: str, *, abandon: bool = False) -> Operation:
        view = self._find(ref)
        last: Operation | None = None
        for member in view.members:
            try:
                last = await self._desk.delete_snapshot(caller, member.key.uid)
            except NotFoundError:
                continue
        if last is None:
            raise NotFoundError(f"there is no group {ref!r}")
        del self._groups[view.key.uid]
        return dataclasses.replace(last)

    async def is_there(self, key: Key) -> bool:
        return key.uid in self._groups

    def _find(self, ref: str) -> GroupView:
        for one in self._groups.values():
            if ref in (one.key.uid, f"{one.key.cluster}/{one.namespace}/{one.name}"):
                return one
        if len(ref) < 4:
            raise InvalidError(f"{ref!r} is too short for a uid", field="group")
        raise NotFoundError(f"there is no group {ref!r}", hint="`snapbridge group list` shows them")
