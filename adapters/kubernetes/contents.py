"""The ledger on content objects: DESIGN section 4 says that a cluster's truth lives in the cluster.

Nothing of it is kept elsewhere but back-off counters, and what only this process can know of its own calls.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator
from typing import Any

from adapters.kubernetes import names, shape, translate
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import Facts, is_bound, is_deleting, path
from adapters.kubernetes.world import World, content_uid
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError, InvalidError, NotSyncedError
from bridge.model.keys import Key, snapshot_key
from bridge.model.snapshot import DeletionPolicy, HandleSource, Record
from bridge.ports.clock import Clock

Object = dict[str, Any]
log = logging.getLogger(__name__)

EARLIER_TERM = "earlier-term"
"""The writer of a note of ours from before another replica may have acted."""


class Contents:
    """The `Ledger` port."""

    def __init__(self, cluster: str, world: World, writer: Writer, events: Events, clock: Clock) -> None:
        self._cluster = cluster
        self._world = world
        self._writer = writer
        self._events = events
        self._clock = clock
        self._memories: dict[str, shape.Memory] = {}
        self._erased: set[str] = set()
        self._noted: set[str] = set()
        self._earlier: set[str] = set()
        """Uids whose note is from an earlier term of ours: others may have acted under it meanwhile."""
        self._term = 0
        self.source_mode = True
        """Whether a new content names the source's volume mode."""
        self._marks_later = True
        """Whether somebody takes the marks off when the VolumeSnapshot has been told that it is ready."""
        world.contents.listen(self._on_content)

    async def load(self, key: Key) -> Record | None:
        """The record, from the cache, which knows our own writes."""
        facts, content = self._find(key)
        if facts is None or content is None:
            return None
        memory = self._memories.get(key.uid)
        alone = facts.snapshot is None and shape.may_delete_alone(content)
        if alone and not (memory and memory.condemned):
            # The policy that counts is the newest one, and nobody but the server has it.
            live = await self._writer.refresh(names.CONTENTS, "", content["metadata"]["name"])
            if live is None or live["metadata"]["uid"] != content["metadata"]["uid"]:
                return None
            facts, content = self._find(key)
            if facts is None or content is None:
                return None
            if facts.snapshot is None and shape.may_delete_alone(content):
                memory = dataclasses.replace(memory or shape.Memory(), condemned=True)
                if translate.policy_of(content["spec"]) is DeletionPolicy.DELETE:
                    # Only the object goes of one that is kept: that must be true anew at each look.
                    self._memories[key.uid] = memory
        return self._of_this_term(key.uid, shape.record_of(facts, content, memory))

    async def save(self, key: Key, record: Record) -> Record:
        """Write what changed, with preconditions; what only this process needs is kept in memory."""
        if not record.version:
            return await self._begin(key, record)
        facts, content = self._find(key)
        if facts is None or content is None or self._version(content) != record.version:
            raise ConflictError(f"the content of {key} has changed meanwhile")
        self._keep(key.uid, record)
        if record.note_open:
            content = await self._write_note(content, record)
        status = shape.with_status(content, record, self._clock.now())
        if status is not None:
            answer = await self._writer.put(names.CONTENTS, status, status=True, own=True)
            content = self._world.trim_content(answer)
        if not record.note_open and not (self._marks_later and _is_awaited(facts, record)):
            content = await self._write_note(content, record)
        return dataclasses.replace(record, version=self._version(content))

    async def condemn(self, key: Key, record: Record) -> Record:
        """DELETE the content under a precondition on its version: the policy we knew is the one that counts,
        or the server refuses and the next pass sees the new one."""
        content = self._current(key, record)
        if names.CONTENT_FINALIZER not in (content["metadata"].get("finalizers") or ()) and not is_deleting(content):
            held = {**content["metadata"]}
            held["finalizers"] = [*(held.get("finalizers") or ()), names.CONTENT_FINALIZER]
            content = await self._writer.put(names.CONTENTS, {**content, "metadata": held})
        facts = self._world.facts(key.uid)
        async with self._events.refusals(facts.snapshot if facts else None, "SnapshotContentObjectDeleteError"):
            answer = await self._writer.delete(names.CONTENTS, content)
        if answer is None:
            raise ConflictError(f"the content of {key} is gone")
        condemned = dataclasses.replace(
            record,
            condemned=True,
            policy=translate.policy_of(answer["spec"]),
            version=self._version(answer),
        )
        self._keep(key.uid, condemned)
        return condemned

    async def erase(self, key: Key, record: Record, *, orphan: str = "") -> None:
        """Let the content go: delete the object if that has not been asked for, then take our finalizer off.

        A content that is to be kept (Retain) is never deleted here: the core releases its request instead.
        """
        facts, content = self._find(key)
        if facts is None or content is None:
            self._memories.pop(key.uid, None)
            return
        if self._version(content) != record.version:
            raise ConflictError(f"the content of {key} has changed meanwhile")
        if not is_deleting(content):
            if record.handle and not record.deleted:
                raise ConflictError(f"the content of {key} has a handle; its deletion is not decided")
            left = await self._writer.delete(names.CONTENTS, content)
            content = left if left is not None else content
            if left is None:
                self._after_erase(key, content)
                await self._tell_orphan(facts, orphan)
                return
        finalizers = [name for name in content["metadata"].get("finalizers") or () if name != names.CONTENT_FINALIZER]
        content = self._world.trim_content(content)
        content["metadata"]["finalizers"] = finalizers
        await self._writer.put(names.CONTENTS, content)
        self._after_erase(key, content)
        await self._tell_orphan(facts, orphan)

    async def keys(self) -> AsyncIterator[Key]:
        """The contents that are being deleted or have an open note."""
        for content in self._world.contents.all():
            if shape.may_be_under_way(content) or is_deleting(content):
                yield snapshot_key(self._cluster, content_uid(content))

    def begin_term(self) -> None:
        """We may act again after others might have: what we knew of our own calls no longer holds.

        Records read before are out of date, and a note of ours counts as another process's.
        """
        self._term += 1
        self._memories.clear()
        self._earlier |= self._noted
        self._noted.clear()

    # -- inside ----------------------------------------------------------------------------------------------

    def _find(self, key: Key) -> tuple[Facts | None, Object | None]:
        """The facts of a key, and its content if it is truly its own."""
        if not self._world.synced:
            raise NotSyncedError(f"cluster {self._cluster} is not read yet")
        facts = self._world.facts(key.uid)
        if facts is None or facts.content is None:
            return facts, None
        if facts.content["metadata"]["uid"] in self._erased:
            return facts, None
        if facts.snapshot is not None and not is_bound(facts.content, facts.snapshot):
            return facts, None
        return facts, facts.content

    def _current(self, key: Key, record: Record) -> Object:
        facts, content = self._find(key)
        if facts is None or content is None or self._version(content) != record.version:
            raise ConflictError(f"the content of {key} has changed meanwhile")
        return content

    async def _begin(self, key: Key, record: Record) -> Record:
        facts, content = self._find(key)
        if facts is None or facts.snapshot is None or content is not None:
            raise ConflictError(f"the state of {key} has changed meanwhile")
        if isinstance(record.source, HandleSource):
            unbound = facts.content
            if unbound is None or path(unbound, "spec", "source", "snapshotHandle") != record.source.handle:
                raise ConflictError(f"the content of {key} has changed meanwhile")
            async with self._events.refusals(facts.snapshot, "SnapshotBindFailed"):
                answer = await self._writer.put(names.CONTENTS, shape.bound_content(unbound, facts))
        else:
            try:
                body = shape.new_content(record, facts)
            except translate.Trouble as trouble:
                raise ConflictError(str(trouble)) from trouble
            if not self.source_mode:
                body["spec"].pop("sourceVolumeMode", None)
            async with self._events.refusals(facts.snapshot, "CreateSnapshotContentFailed"):
                answer = await self._writer.create(names.CONTENTS, "", body, own=True)
        self._keep(key.uid, record)
        return dataclasses.replace(record, version=self._version(answer))

    async def _write_note(self, content: Object, record: Record) -> Object:
        noted = shape.with_note(content, record)
        if noted is None:
            return content
        if len(str(noted["metadata"]["annotations"])) > 200_000:
            raise InvalidError("the note does not fit into annotations", hint="Shorten the class's parameters")
        answer = await self._writer.put(names.CONTENTS, noted, own=True)
        return self._world.trim_content(answer)

    def _version(self, content: Object) -> str:
        version = str(content["metadata"]["resourceVersion"])
        return f"{version}@{self._term}" if self._term else version

    def _of_this_term(self, uid: str, record: Record) -> Record:
        record = dataclasses.replace(record, version=f"{record.version}@{self._term}") if self._term else record
        if uid in self._earlier and record.note is not None and record.note.writer:
            return dataclasses.replace(record, note=dataclasses.replace(record.note, writer=EARLIER_TERM))
        return record

    def _keep(self, uid: str, record: Record) -> None:
        if record.note is not None and record.note.writer != EARLIER_TERM:
            self._noted.add(uid)
            self._earlier.discard(uid)
        memory = shape.remember(record)
        if memory.empty and record.handle:
            self._memories.pop(uid, None)
        else:
            self._memories[uid] = memory

    def _after_erase(self, key: Key, content: Object) -> None:
        self._memories.pop(key.uid, None)
        if self._world.contents.get("", content["metadata"]["name"]) is not None:
            self._erased.add(content["metadata"]["uid"])

    async def _tell_orphan(self, facts: Facts, orphan: str) -> None:
        if not orphan:
            return
        log.warning("an orphan on the backend is possible", extra={"orphan": orphan, "uid": facts.uid})
        if facts.snapshot is not None:
            text = f"Released while a create was unsettled; possibly left on the backend: {orphan}"
            await self._events.warn(facts.snapshot, "SnapshotOrphanPossible", text)

    def _on_content(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            self._erased.discard(before["metadata"]["uid"])
            for known in (self._noted, self._earlier):
                known.discard(content_uid(before))
            self._memories.pop(content_uid(before), None)


def _is_awaited(facts: Facts, record: Record) -> bool:
    """Whether it has just become ready, and its VolumeSnapshot waits to hear of that.

    The marks come off after that (`SnapshotRequests.publish`): nobody waits for them, and a write right after the
    status meets an API server that does not know that one yet and does its work twice.
    """
    return record.ready and bool(record.handle) and facts.snapshot is not None and not is_deleting(facts.snapshot)
