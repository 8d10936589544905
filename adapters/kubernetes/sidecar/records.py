"""The `Ledger` port on contents that the other half makes: the note goes onto them, the finalizer comes off them.

It never creates and never deletes an object: upstream's rules give a sidecar no right to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.contents import Contents
from adapters.kubernetes.decide import driver_half
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.sidecar.policies import Policies
from adapters.kubernetes.sidecar.requests import without_finalizer
from adapters.kubernetes.sidecar.world import DriverWorld
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError
from bridge.model.keys import Key
from bridge.model.snapshot import Record
from bridge.ports.clock import Clock

Object = dict[str, Any]

POLICY_SECONDS = 30.0
"""A deletion policy that was confirmed longer ago than this is confirmed anew before a delete; until then the watch
tells of a change. Longer than the looks at a plugin that is down, so that those cost nothing."""


class ContentRecords(Contents):
    """What differs from a ledger that makes its contents itself."""

    def __init__(self, cluster: str, world: DriverWorld, writer: Writer, events: Events, clock: Clock) -> None:
        super().__init__(cluster, world, writer, events, clock)
        self._marks_later = False
        self._policies = Policies(POLICY_SECONDS)

    async def load(self, key: Key) -> Record | None:
        """The record, from the cache, which knows our own writes."""
        facts, content = self._find(key)
        if facts is None or content is None:
            return None
        record = driver_half.record(facts, content, self._memories.get(key.uid))
        condemned = self._policies.condemned(key.uid, record, self._clock.now())
        return self._of_this_term(key.uid, dataclasses.replace(record, condemned=condemned))

    async def condemn(self, key: Key, record: Record) -> Record:
        """Its other half has condemned it. The policy that counts is the newest one: a write that changes nothing
        succeeds only on the newest version."""
        content = self._current(key, record)
        answer = await self._writer.put(names.CONTENTS, content)
        self._policies.confirm(key.uid, self._clock.now())
        condemned = dataclasses.replace(
            record, condemned=True, policy=driver_half.policy_of(answer), version=self._version(answer)
        )
        self._keep(key.uid, condemned)
        return condemned

    async def erase(self, key: Key, record: Record, *, orphan: str = "") -> None:
        """Take our finalizer off a content that goes. Where others hold it still, its status forgets the handle."""
        facts, content = self._find(key)
        if facts is None or content is None:
            self._forget(key.uid)
            return
        content = self._current(key, record)
        if not is_deleting(content):
            raise ConflictError(f"the content of {key} is not to go any more")
        others = set(content["metadata"].get("finalizers") or ()) - {names.CONTENT_FINALIZER}
        if others and record.deleted and path(content, "status", "snapshotHandle"):
            content = await self._writer.put(names.CONTENTS, {**content, "status": {}}, status=True)
        if orphan:  # Told first: afterwards there is no object any more that a crash could leave untold.
            text = f"Released while a create was unsettled; possibly left on the backend: {orphan}"
            await self._events.warn(content, "SnapshotOrphanPossible", text)
        await self._writer.put(names.CONTENTS, without_finalizer(content))
        self._forget(key.uid)

    async def keys(self) -> AsyncIterator[Key]:
        """The requests are the records: one list is enough."""
        none: tuple[Key, ...] = ()
        for key in none:
            yield key

    def begin_term(self) -> None:
        """See the base."""
        super().begin_term()
        self._policies.clear()

    def _forget(self, uid: str) -> None:
        self._memories.pop(uid, None)
        self._policies.forget(uid)

    def _on_content(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            uid = before["metadata"]["uid"]
            self._noted.discard(uid)
            self._earlier.discard(uid)
            self._forget(uid)
