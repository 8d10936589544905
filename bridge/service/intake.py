"""The door for adapters' own hooks: books a wish, wakes it, tells how it stands."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.model.failure import InvalidError
from bridge.model.keys import Key
from bridge.model.snapshot import SnapshotStatus
from bridge.ports.ledger import Book
from bridge.ports.orchestrator import SnapshotDraft, Wake
from bridge.service.desk import FrontDesk
from bridge.service.lane import Lane


class HookIntake:
    """The `Intake` port. A hook's uid is deterministic, so asking again changes nothing."""

    def __init__(self, desk: FrontDesk, lanes: Mapping[str, Lane], book: Book, wake: Wake) -> None:
        self._desk = desk
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

    async def status(self, key: Key) -> SnapshotStatus | None:
        """The last status told."""
        entry = await self._book.entry(key)
        return entry.status if entry is not None else None
