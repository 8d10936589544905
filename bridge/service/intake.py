"""The door for adapters' own hooks: books a wish, wakes it, tells how it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bridge.model.failure import InvalidError
from bridge.model.group import GroupStatus
from bridge.model.keys import GROUP, Key
from bridge.model.snapshot import SnapshotStatus
from bridge.ports.ledger import Book
from bridge.ports.orchestrator import SnapshotDraft, Wake
from bridge.service.desk import FrontDesk
from bridge.service.group_booking import LABEL, GroupBooking
from bridge.service.lane import Lane


class HookIntake:
    """The `Intake` port. A hook's uid is deterministic, so asking again changes nothing."""

    def __init__(
        self, desk: FrontDesk, lanes: Mapping[str, Lane], book: Book, wake: Wake, groups: GroupBooking | None = None
    ) -> None:
        self._desk = desk
        self._groups = groups
        self._lanes = lanes
        self._book = book
        self._wake = wake

    async def ask(self, draft: SnapshotDraft) -> Key:
        """Book it, unless it is booked already. A plugin that is not up yet is waited for."""
        if not draft.uid:
            raise InvalidError("a hook gives its snapshot a uid: a repeat must not double it", field="uid")
        key = await self._desk.book_snapshot(self._lanes[draft.cluster], draft, patient=True)
        self._wake(key)
        return key

    async def ask_group(
        self, drafts: Sequence[SnapshotDraft], *, name: str, uid: str, max_skew_seconds: float | None = None
    ) -> Key:
        """Book them all or nothing, unless they are booked already."""
        if not uid or not all(draft.uid for draft in drafts):
            raise InvalidError("a hook gives its group and every member a uid: a repeat must not double", field="uid")
        named = [dataclasses.replace(one, labels={**one.labels, LABEL: name}) for one in drafts]
        if not named:
            raise InvalidError("a group needs at least one volume", field="volumes")
        lane = self._lanes[named[0].cluster]
        key = await self._group_booking().book(
            lane, named, name=name, uid=uid, max_skew_seconds=max_skew_seconds, patient=True
        )
        self._wake(key)
        return key

    async def status(self, key: Key) -> SnapshotStatus | None:
        """The last status told; of a group as one of all its members."""
        if key.kind == GROUP:
            told = await self._group_booking().status(key)
            return _as_one(told) if told is not None else None
        entry = await self._book.entry(key)
        return entry.status if entry is not None else None

    def _group_booking(self) -> GroupBooking:
        if self._groups is None:
            raise AssertionError("the door was made without groups")
        return self._groups


def _as_one(status: GroupStatus) -> SnapshotStatus:
    return SnapshotStatus(
        state=status.state,
        ready=status.ready,
        handle=status.handle,
        cut_at_ns=status.cut_at_ns,
        failure=status.failure,
        reason=status.reason,
        message=status.message,
        route=status.route,
    )
