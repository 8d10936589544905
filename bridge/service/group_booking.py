"""From a wish for a group to a booked one: every volume is looked up now, and all is booked in one act or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from bridge.decide import names
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.group import GroupMember, GroupStatus
from bridge.model.keys import Key, group_key
from bridge.model.snapshot import VolumeSource
from bridge.ports.group import GroupBook, GroupEntry
from bridge.ports.ledger import Entry
from bridge.ports.orchestrator import SnapshotDraft
from bridge.service.booking import Booking
from bridge.service.lane import Lane
from bridge.service.work import Tools

LABEL = "group"
"""The label of every member, with the group's name as its value."""
MOST_MEMBERS = 256


class GroupBooking:
    """Books groups for callers and hooks."""

    def __init__(self, groups: GroupBook, tools: Tools, booking: Booking) -> None:
        self._groups = groups
        self._tools = tools
        self._booking = booking

    async def book(
        self,
        lane: Lane,
        drafts: Sequence[SnapshotDraft],
        *,
        name: str,
        uid: str,
        max_skew_seconds: float | None = None,
        patient: bool = False,
    ) -> Key:
        """One draft per volume; they agree on cluster, namespace and policy. The same uid again is the same group."""
        first = _agreed(lane, drafts)
        key = group_key(first.cluster, uid)
        known = await self._groups.entry(key)
        if known is not None:
            if (known.name, [one.volume for one in known.members]) != (name, [one.volume for one in drafts]):
                raise ConflictError(f"the uid {uid!r} belongs to another group", field="uid")
            return key
        entries = [await self._booking.entry(lane, draft, patient=patient, group=key) for draft in drafts]
        members = tuple(_member(entry) for entry in entries)
        _demand_different(members)
        await self._groups.add(
            GroupEntry(
                key=key,
                namespace=first.namespace,
                name=name,
                group_name=names.group_name(uid),
                members=members,
                policy=first.policy,
                parameters=dict(first.parameters),
                max_skew_seconds=max_skew_seconds,
                asked_by=first.asked_by,
                why=first.why,
                labels={label: value for label, value in first.labels.items() if label != LABEL},
                created_at=self._tools.clock.now(),
            ),
            entries,
        )
        return key

    async def status(self, key: Key) -> GroupStatus | None:
        """The last status told, or None."""
        entry = await self._groups.entry(key)
        return entry.status if entry is not None else None


def member_draft(draft: SnapshotDraft, *, group: str, uid: str) -> SnapshotDraft:
    """The draft of one member: a name and a uid made of the group's and the volume's, and the group as a label."""
    digest = hashlib.sha256(f"{uid}\0{draft.volume}".encode()).hexdigest()
    return dataclasses.replace(
        draft,
        name=f"{group}-{draft.volume}".replace("/", "-"),
        uid=digest[:32],
        labels={**draft.labels, LABEL: group},
    )


def _agreed(lane: Lane, drafts: Sequence[SnapshotDraft]) -> SnapshotDraft:
    if not drafts:
        raise InvalidError("a group needs at least one volume", field="volumes", hint="name its volumes")
    if len(drafts) > MOST_MEMBERS:
        raise InvalidError(f"a group of {len(drafts)} volumes is too large: at most {MOST_MEMBERS}", field="volumes")
    if lane.orchestrator.traits.durable_requests:
        raise InvalidError(
            f"the cluster {lane.orchestrator.cluster!r} keeps its own group requests",
            field="cluster",
            hint="make the group there, as an object of that cluster",
        )
    first = drafts[0]
    for other in drafts:
        if (other.cluster, other.namespace, other.policy) != (first.cluster, first.namespace, first.policy):
            message = f"the volumes {first.volume!r} and {other.volume!r} differ in cluster, namespace or policy"
            raise InvalidError(message, field="volumes", hint="a group has one of each")
        if other.adopt_handle:
            raise InvalidError("an existing snapshot cannot join a group", field="volumes", hint="name its volume")
    return first


def _member(entry: Entry) -> GroupMember:
    assert isinstance(entry.source, VolumeSource)
    return GroupMember(
        key=entry.key,
        volume=entry.volume,
        driver=entry.driver,
        handle=entry.source.handle,
        snapshot_name=entry.snapshot_name,
        parameters=dict(entry.parameters),
        secret=entry.secrets.create,
    )


def _demand_different(members: Sequence[GroupMember]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for one in members:
        other = seen.setdefault((one.driver, one.handle), one.volume)
        if other != one.volume or [m.volume for m in members].count(one.volume) > 1:
            raise InvalidError(
                f"the volumes {other!r} and {one.volume!r} are the same one on the backend",
                field="volumes",
                hint="name each volume once",
            )
