"""The front desk for groups: checks a caller's wish, books the group and its members, wakes the worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from bridge.model.failure import ConflictError, InvalidError, NotFoundError
from bridge.model.group import GroupStatus
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.model.snapshot import SnapshotState, Wish
from bridge.model.view import GroupDraft, GroupView
from bridge.ports.group import GroupBook, GroupEntry
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book
from bridge.ports.orchestrator import SnapshotDraft, Wake
from bridge.service import catalogue, permission
from bridge.service import operations as ops
from bridge.service.group_booking import GroupBooking, member_draft
from bridge.service.keeper import Keeper
from bridge.service.lane import Lane
from bridge.service.making import digest

PENDING = GroupStatus(SnapshotState.PENDING)


class GroupFrontDesk:
    """The `GroupDesk` port, over the book."""

    def __init__(  # noqa: PLR0913 -- keywords only; the composition root calls it once
        self,
        *,
        lanes: Mapping[str, Lane],
        book: Book,
        groups: GroupBook,
        booking: GroupBooking,
        keeper: Keeper,
        operations: ops.Operations,
        wake: Wake,
        mint: Callable[[], str],
        now: Callable[[], float],
    ) -> None:
        self._lanes = lanes
        self._book = book
        self._groups = groups
        self._booking = booking
        self._keeper = keeper
        self._operations = operations
        self._wake = wake
        self._mint = mint
        self._now = now

    async def create(
        self, caller: Caller, draft: GroupDraft, *, idempotency_key: str = ""
    ) -> tuple[GroupView, Operation]:
        """See the port."""
        lane = self._lane(draft.cluster)
        volumes = await self._volumes(lane, draft)
        for volume in volumes:
            permission.demand(caller, draft.cluster, draft.namespace, volume)
        operation_id, uid = self._mint(), self._mint()
        mine = f"{operation_id} {uid}"
        claimed = mine
        if idempotency_key:
            scope = f"create-group:{caller.name}"
            claimed = await self._book.claim(scope, idempotency_key, digest(draft), mine)
            operation_id, _, uid = claimed.partition(" ")
            known = await self._answered(operation_id, Key(draft.cluster, "group", uid))
            if known is not None:
                return known
        try:
            key = await self._booking.book(
                lane,
                [member_draft(one, group=draft.name, uid=uid) for one in _drafts(caller, draft, volumes)],
                name=draft.name,
                uid=uid,
                max_skew_seconds=draft.max_skew_seconds,
            )
        except (InvalidError, NotFoundError, ConflictError):
            if idempotency_key and claimed == mine:  # refused: the corrected request may use the same key
                await self._book.unclaim(f"create-group:{caller.name}", idempotency_key, mine)
            raise
        operation = await self._start(operation_id, ops.CREATE, key, draft.namespace, caller)
        detail = {"volumes": ",".join(volumes), "name": draft.name}
        await self._book.audit(str(key), "create", draft.asked_by or caller.name, detail)
        self._wake(key)
        return await self._view(await self._entry(key)), operation

    async def _answered(self, operation_id: str, key: Key) -> tuple[GroupView, Operation] | None:
        """The first answer to this idempotency key, if it got that far."""
        try:
            operation = await self._operations.get(operation_id)
        except NotFoundError:
            return None
        return await self._view(await self._entry(key)), operation

    async def _volumes(self, lane: Lane, draft: GroupDraft) -> list[str]:
        """The volumes that are named, or all of the namespace that somebody uses now."""
        if bool(draft.volumes) == bool(draft.users):
            raise InvalidError("name the volumes, or who uses them", field="volumes", hint="give one of the two")
        if draft.volumes:
            return list(draft.volumes)
        found = [
            volume.name
            for volume in await lane.orchestrator.volumes.list(draft.namespace)
            if all(value in volume.user_labels.get(name, ()) for name, value in draft.users.items())
        ]
        if not found:
            who = ", ".join(f"{name} {value!r}" for name, value in sorted(draft.users.items()))
            message = f"no volume of {draft.cluster}/{draft.namespace} is in use by {who}"
            raise NotFoundError(
                message, field="users", hint="`snapbridge volume list` shows who uses them; or name them"
            )
        return found

    async def all(self, caller: Caller, *, cluster: str = "", namespace: str = "") -> Sequence[GroupView]:
        """See the port."""
        if cluster:
            self._lane(cluster)
        found = await self._groups.list(cluster=cluster, namespace=namespace)
        return [await self._view(entry) for entry in found if _may(caller, entry)]

    async def one(self, caller: Caller, ref: str) -> GroupView:
        """See the port."""
        return await self._view(await self._find(caller, ref, whole=False))

    async def delete(self, caller: Caller, ref: str, *, abandon: bool = False) -> Operation:
        """See the port. The wish first: an operation that nothing carries out would run for ever."""
        entry = await self._find(caller, ref, whole=True)
        for member in (await self._view(entry)).members:
            await self._keeper.demand_free(member)
        await self._withdraw(entry.key, abandon)
        operation = await self._start(self._mint(), ops.DELETE, entry.key, entry.namespace, caller)
        verb = "abandon" if abandon else "delete"
        await self._book.audit(str(entry.key), verb, caller.name, {"name": entry.name})
        self._wake(entry.key)
        return operation

    async def is_there(self, key: Key) -> bool:
        """See the port."""
        entry = await self._groups.entry(key)
        return entry is not None and entry.wish is Wish.PRESENT and not (entry.status and entry.status.failed)

    async def _withdraw(self, key: Key, abandon: bool) -> None:
        """Set the wish; a concurrent status write only makes it try again."""
        for _ in range(20):
            entry = await self._entry(key)
            if abandon:
                await self._abandon_members(entry)
            try:
                await self._groups.change(
                    dataclasses.replace(entry, wish=Wish.ABSENT, abandon=entry.abandon or abandon)
                )
            except ConflictError:
                continue
            return
        raise ConflictError(f"the group {key} changes too fast", hint="try again")

    async def _abandon_members(self, entry: GroupEntry) -> None:
        for one in entry.members:
            member = await self._book.entry(one.key)
            if member is not None and not member.abandon:
                await self._book.change(dataclasses.replace(member, abandon=True))

    async def _find(self, caller: Caller, ref: str, *, whole: bool) -> GroupEntry:
        found: GroupEntry | None
        if "/" in ref:
            parts = ref.split("/", 2)
            if len(parts) != 3 or not all(parts):
                raise InvalidError(f"{ref!r} is not CLUSTER/NAMESPACE/NAME", field="group")
            self._lane(parts[0])
            found = await self._groups.find(*parts)
        else:
            found = await self._by_uid(ref, whole)
        if found is None or not _may(caller, found):
            raise NotFoundError(f"there is no group {ref!r}", hint="`snapbridge group list` shows them")
        return found

    async def _by_uid(self, ref: str, whole: bool) -> GroupEntry | None:
        if len(ref) < catalogue.SHORTEST_PREFIX:
            message = f"{ref!r} is too short for a uid: give {catalogue.SHORTEST_PREFIX} characters"
            raise InvalidError(message, field="group")
        found = await self._groups.list(uid_prefix=ref)
        exact = [one for one in found if one.key.uid == ref]
        if exact or whole:
            return exact[0] if exact else None
        if len(found) > 1:
            raise InvalidError(f"{ref!r} fits several groups", field="group", hint="give more of it")
        return found[0] if found else None

    async def _entry(self, key: Key) -> GroupEntry:
        entry = await self._groups.entry(key)
        if entry is None:
            raise NotFoundError(f"there is no group {key.uid!r}", hint="`snapbridge group list` shows them")
        return entry

    async def _view(self, entry: GroupEntry) -> GroupView:
        booked = [await self._book.entry(one.key) for one in entry.members]
        return GroupView(
            key=entry.key,
            namespace=entry.namespace,
            name=entry.name,
            policy=entry.policy.value,
            group_name=entry.group_name,
            status=entry.status or PENDING,
            members=tuple(catalogue.view(one) for one in booked if one is not None),
            max_skew_seconds=entry.max_skew_seconds,
            created_at=entry.created_at,
            asked_by=entry.asked_by,
            why=entry.why,
            labels=dict(entry.labels),
            parameters=dict(entry.parameters),
        )

    def _lane(self, cluster: str) -> Lane:
        lane = self._lanes.get(cluster)
        if lane is None:
            raise catalogue.unknown_cluster(cluster, self._lanes)
        return lane

    async def _start(self, operation_id: str, verb: str, key: Key, namespace: str, caller: Caller) -> Operation:
        now = self._now()
        running = OperationState.RUNNING
        return await self._operations.start(
            Operation(operation_id, verb, key.cluster, namespace, str(key), running, now, now, caller.name)
        )


def _may(caller: Caller, entry: GroupEntry) -> bool:
    return all(permission.may(caller, entry.key.cluster, entry.namespace, one.volume) for one in entry.members)


def _drafts(caller: Caller, draft: GroupDraft, volumes: Sequence[str]) -> list[SnapshotDraft]:
    return [
        SnapshotDraft(
            cluster=draft.cluster,
            namespace=draft.namespace,
            name="",
            volume=volume,
            policy=draft.policy,
            parameters=draft.parameters,
            asked_by=draft.asked_by or caller.name,
            why=draft.why,
            labels=draft.labels,
        )
        for volume in volumes
    ]
