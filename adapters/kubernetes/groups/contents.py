"""The `GroupLedger` port on VolumeGroupSnapshotContent objects; the sibling of `adapters/kubernetes/contents.py`.

Nothing is kept elsewhere but back-off counters, and what only this process can know of its own calls.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from adapters.kubernetes.cache import Cache
from adapters.kubernetes.contents import EARLIER_TERM
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.groups import names, shape
from adapters.kubernetes.groups.facts import GroupFacts, is_bound
from adapters.kubernetes.groups.means import Means
from adapters.kubernetes.groups.world import content_uid
from adapters.kubernetes.shape import Memory
from adapters.kubernetes.translate import Trouble, policy_of
from bridge.model.failure import ConflictError, InvalidError, NotSyncedError
from bridge.model.group import GroupHandleSource, GroupRecord
from bridge.model.keys import Key, group_key
from bridge.model.snapshot import DeletionPolicy

Object = dict[str, Any]
log = logging.getLogger(__name__)
MOST_NOTE_BYTES = 200_000


class Known(Protocol):
    """The caches, as a ledger needs them."""

    contents: Cache

    @property
    def synced(self) -> bool: ...

    def facts(self, uid: str) -> GroupFacts | None: ...


class GroupContents:
    """The `GroupLedger` port. `let_members_go` is called before a deletion is decided."""

    def __init__(self, groups: Known, means: Means, let_members_go: Callable[[str], Awaitable[None]]) -> None:
        self._cluster = means.cluster
        self._groups = groups
        self._writer = means.writer
        self._events = means.events
        self._clock = means.clock
        self._let_members_go = let_members_go
        self._memories: dict[str, Memory] = {}
        self._erased: set[str] = set()
        self._noted: set[str] = set()
        self._earlier: set[str] = set()
        """Uids whose note is from an earlier term of ours: others may have acted under it meanwhile."""
        self._term = 0
        groups.contents.listen(self._on_content)

    async def load(self, key: Key) -> GroupRecord | None:
        """The record, from the cache, which knows our own writes."""
        facts, content = self._find(key)
        if facts is None or content is None:
            return None
        memory = self._memories.get(key.uid)
        alone = facts.group is None and shape.may_delete_alone(content)
        if alone and not (memory and memory.condemned):
            # The policy that counts is the newest one, and nobody but the server has it.
            live = await self._writer.refresh(names.CONTENTS, "", content["metadata"]["name"])
            if live is None or live["metadata"]["uid"] != content["metadata"]["uid"]:
                return None
            facts, content = self._find(key)
            if facts is None or content is None:
                return None
            if facts.group is None and shape.may_delete_alone(content):
                memory = dataclasses.replace(memory or Memory(), condemned=True)
                if policy_of(content["spec"]) is DeletionPolicy.DELETE:
                    # Only the object goes of one that is kept: that must be true anew at each look.
                    self._memories[key.uid] = memory
        return self._of_this_term(key.uid, shape.record_of(facts, content, memory))

    async def save(self, key: Key, record: GroupRecord) -> GroupRecord:
        """Write what changed, with preconditions; what only this process needs is kept in memory."""
        if not record.version:
            return await self._begin(key, record)
        content = self._current(key, record)
        self._keep(key.uid, record)
        if record.note_open:
            content = await self._write_note(content, record)
        status = shape.with_status(content, record, self._clock.now())
        if status is not None:
            content = _bare(await self._writer.put(names.CONTENTS, status, status=True))
        if not record.note_open:
            content = await self._write_note(content, record)
        return dataclasses.replace(record, version=self._version(content))

    async def condemn(self, key: Key, record: GroupRecord) -> GroupRecord:
        """First the members are asked to go, so that nothing can begin to read them; then DELETE of the content
        under a precondition on its version: the policy we knew is the one that counts, or the server refuses."""
        content = self._current(key, record)
        await self._let_members_go(key.uid)
        if names.CONTENT_FINALIZER not in (content["metadata"].get("finalizers") or ()) and not is_deleting(content):
            content = await self._writer.put(names.CONTENTS, shape.with_finalizer(content))
        answer = await self._writer.delete(names.CONTENTS, content)
        if answer is None:
            raise ConflictError(f"the content of {key} is gone")
        condemned = dataclasses.replace(
            record, condemned=True, policy=policy_of(answer["spec"]), version=self._version(answer)
        )
        self._keep(key.uid, condemned)
        return condemned

    async def erase(self, key: Key, record: GroupRecord, *, orphan: str = "") -> None:
        """Let the content go: delete the object if that has not been asked for, then take our finalizer off."""
        facts, content = self._find(key)
        if facts is None or content is None:
            self._memories.pop(key.uid, None)
            return
        if self._version(content) != record.version:
            raise ConflictError(f"the content of {key} has changed meanwhile")
        left: Object | None = content
        if not is_deleting(content):
            if record.handle and not record.deleted:
                raise ConflictError(f"the content of {key} has a handle; its deletion is not decided")
            left = await self._writer.delete(names.CONTENTS, content)
        if left is not None:
            kept = [name for name in left["metadata"].get("finalizers") or () if name != names.CONTENT_FINALIZER]
            metadata = {**_bare(left)["metadata"], "finalizers": kept}
            await self._writer.put(names.CONTENTS, {**left, "metadata": metadata})
        self._after_erase(key, content)
        await self._tell_orphan(facts, orphan)

    async def keys(self) -> AsyncIterator[Key]:
        """The contents that are being deleted or have an open note."""
        if not self._groups.synced:
            return
        for content in self._groups.contents.all():
            if shape.may_be_under_way(content) or is_deleting(content):
                yield group_key(self._cluster, content_uid(content))

    def begin_term(self) -> None:
        """We may act again after others might have: what we knew of our own calls no longer holds."""
        self._term += 1
        self._memories.clear()
        self._earlier |= self._noted
        self._noted.clear()

    # -- inside ----------------------------------------------------------------------------------------------

    def _find(self, key: Key) -> tuple[GroupFacts | None, Object | None]:
        """The facts of a key, and its content if it is truly its own."""
        if not self._groups.synced:
            raise NotSyncedError(f"the groups of cluster {self._cluster} are not read yet")
        facts = self._groups.facts(key.uid)
        if facts is None or facts.content is None:
            return facts, None
        if facts.content["metadata"]["uid"] in self._erased:
            return facts, None
        if facts.group is not None and not is_bound(facts.content, facts.group):
            return facts, None
        return facts, facts.content

    def _current(self, key: Key, record: GroupRecord) -> Object:
        facts, content = self._find(key)
        if facts is None or content is None or self._version(content) != record.version:
            raise ConflictError(f"the content of {key} has changed meanwhile")
        return content

    async def _begin(self, key: Key, record: GroupRecord) -> GroupRecord:
        facts, content = self._find(key)
        if facts is None or facts.group is None or content is not None:
            raise ConflictError(f"the state of {key} has changed meanwhile")
        if isinstance(record.source, GroupHandleSource):
            unbound = facts.content
            handle = path(unbound, "spec", "source", "groupSnapshotHandles", "volumeGroupSnapshotHandle")
            if unbound is None or handle != record.source.handle:
                raise ConflictError(f"the content of {key} has changed meanwhile")
            answer = await self._writer.put(names.CONTENTS, shape.bound_content(unbound, facts))
        else:
            try:
                body = shape.new_content(record, facts)
            except Trouble as trouble:
                raise ConflictError(str(trouble)) from trouble
            answer = await self._writer.create(names.CONTENTS, "", body)
        self._keep(key.uid, record)
        return dataclasses.replace(record, version=self._version(answer))

    async def _write_note(self, content: Object, record: GroupRecord) -> Object:
        noted = shape.with_note(content, record)
        if noted is None:
            return content
        if len(str(noted["metadata"]["annotations"])) > MOST_NOTE_BYTES:
            raise InvalidError("the note does not fit into annotations", hint="Shorten the class's parameters")
        return _bare(await self._writer.put(names.CONTENTS, noted))

    def _version(self, content: Object) -> str:
        version = str(content["metadata"]["resourceVersion"])
        return f"{version}@{self._term}" if self._term else version

    def _of_this_term(self, uid: str, record: GroupRecord) -> GroupRecord:
        record = dataclasses.replace(record, version=f"{record.version}@{self._term}") if self._term else record
        if uid in self._earlier and record.note is not None and record.note.writer:
            return dataclasses.replace(record, note=dataclasses.replace(record.note, writer=EARLIER_TERM))
        return record

    def _keep(self, uid: str, record: GroupRecord) -> None:
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
        if self._groups.contents.get("", content["metadata"]["name"]) is not None:
            self._erased.add(content["metadata"]["uid"])

    async def _tell_orphan(self, facts: GroupFacts, orphan: str) -> None:
        if not orphan:
            return
        log.warning("an orphan on the backend is possible", extra={"orphan": orphan, "uid": facts.uid})
        if facts.group is not None:
            text = f"Released while a create was unsettled; possibly left on the backend: {orphan}"
            await self._events.warn(facts.group, "SnapshotOrphanPossible", text)

    def _on_content(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            self._erased.discard(before["metadata"]["uid"])
            for known in (self._noted, self._earlier):
                known.discard(content_uid(before))
            self._memories.pop(content_uid(before), None)


def _bare(item: Object) -> Object:
    metadata = {field: value for field, value in item["metadata"].items() if field != "managedFields"}
    return {**item, "metadata": metadata}
