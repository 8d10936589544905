"""The driver half of groups: what a VolumeGroupSnapshotContent asks of its driver, and what it is told.

The other half, ours or upstream's, makes contents, binds them and lets them go; the two speak through the content
only. Nothing here needs a VolumeGroupSnapshot, and no object is created or deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from adapters.kubernetes import trim
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.complaints import Complaints
from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.decide.driver_half import GATE_CODES
from adapters.kubernetes.events import Events
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.groups import driver_request, names
from adapters.kubernetes.groups.contents import GroupContents
from adapters.kubernetes.groups.facts import GroupFacts, group_of_reference
from adapters.kubernetes.groups.means import GROUP, Means
from adapters.kubernetes.groups.optional import OptionalKinds
from adapters.kubernetes.groups.world import class_named, refuse_malformed
from adapters.kubernetes.names import Naming
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.shape import rfc3339
from adapters.kubernetes.sidecar.policies import Policies
from adapters.kubernetes.translate import policy_of
from adapters.kubernetes.world import malformed
from bridge.model.failure import ConflictError, ElsewhereError, NotSyncedError
from bridge.model.group import GroupRecord, GroupRequest, GroupStatus
from bridge.model.keys import Key, group_key
from bridge.model.snapshot import DeletionPolicy, SnapshotState, Wish
from bridge.ports.group import GroupSide

Object = dict[str, Any]
POLICY_SECONDS = 2.0
"""A deletion policy that was confirmed longer ago than this is confirmed anew before a delete."""


class DriverGroupWorld(OptionalKinds):
    """One driver's group contents, and the classes. A uid here is a content's own."""

    def __init__(self, driver: str, naming: Naming) -> None:
        super().__init__()
        self.driver = driver
        self.naming = naming
        self.contents = Cache(
            trim.whole,
            {"by-class": _by_class, "by-cut": _by_cut, "malformed": malformed(wellformed.group_content)},
            keep=lambda item: path(item, "spec", "driver") == driver,
        )
        self.classes = Cache(
            trim.whole, {"malformed": malformed(wellformed.klass)}, keep=lambda item: item.get("driver") == driver
        )
        self.caches = {names.CONTENTS: self.contents, names.CLASSES: self.classes}

    def facts(self, uid: str) -> GroupFacts | None:
        """What is known of one content; None when it is not there. MalformedError: see GroupWorld."""
        content = self.contents.by_uid(uid)
        if content is None:
            return None
        refuse_malformed(self.contents, content, None)
        named = str(path(content, "spec", "volumeGroupSnapshotClassName") or "")
        klass, class_trouble = class_named(self.classes, named)
        return GroupFacts(
            uid=group_of_reference(content),
            content=content,
            class_name=named,
            klass=klass,
            class_trouble=class_trouble,
            naming=self.naming,
            in_use=self._shared(content),
        )

    def _shared(self, content: Object) -> str:
        """Who else holds the group that a deletion would take: it goes with the last content that names it."""
        if driver_request.wish_of(content) is not Wish.ABSENT or policy_of(content["spec"]) is DeletionPolicy.RETAIN:
            return ""
        own, key = content["metadata"]["uid"], next(iter(_by_cut(content)), "")
        if not path(content, "status", "volumeGroupSnapshotHandle") or self.contents.count("by-cut", key) < 2:
            return ""
        found = [item for item in self.contents.find("by-cut", key) if item["metadata"]["uid"] != own]
        others = sorted(item["metadata"]["name"] for item in found if not driver_request.goes(item))
        return f"The group is also held by VolumeGroupSnapshotContent {', '.join(others)}" if others else ""

    def open_uids(self) -> Iterator[str]:
        """The contents that need work or may need it."""
        for content in self.contents.all():
            if driver_request.is_open(content):
                yield content["metadata"]["uid"]

    def listen(self, wake: Callable[[str], None]) -> None:
        """Call `wake` with the uid of each content that a change may concern."""

        def content_changed(before: Object | None, after: Object | None) -> None:
            item = after or before
            if self.synced and item is not None:
                wake(item["metadata"]["uid"])

        def class_changed(before: Object | None, after: Object | None) -> None:
            item = after or before
            if self.synced and item is not None:
                for content in self.contents.find("by-class", item["metadata"]["name"]):
                    wake(content["metadata"]["uid"])

        self.contents.listen(content_changed)
        self.classes.listen(class_changed)


class DriverGroupRequests:
    """The `GroupRequests` port on contents."""

    def __init__(self, groups: DriverGroupWorld, means: Means, why_not: Callable[[str], str]) -> None:
        self._cluster = means.cluster
        self._groups = groups
        self._writer = means.writer
        self._events: Events = means.events
        self._clock = means.clock
        self._why_not = why_not
        self._complaints = Complaints(means.writer, means.events, means.clock, told_in=names.GROUPS)

    async def observe(self, key: Key) -> GroupRequest | None:
        """See the port."""
        if self._groups.absent:
            raise ElsewhereError("the cluster has no group snapshots")
        if not self._groups.synced:
            raise NotSyncedError("the group contents are not read yet")
        if reason := self._why_not(GROUP + key.uid):
            raise ElsewhereError(reason)
        try:
            facts = self._groups.facts(key.uid)
        except MalformedError as error:
            await self._complaints.tell(error)
            raise ElsewhereError(str(error)) from error
        return None if facts is None else driver_request.request(key, facts)

    async def hold(self, request: GroupRequest) -> None:
        """The other half holds what there is to hold; the note brings the content's finalizer along."""

    async def release(self, request: GroupRequest) -> None:
        """Take the finalizer off a content that goes while its group stays on the backend."""
        content = self._groups.contents.by_uid(request.key.uid)
        if content is not None and is_deleting(content) and driver_request.is_held(content):
            await self._writer.put(names.CONTENTS, driver_request.without_finalizer(content))

    async def publish(self, request: GroupRequest, status: GroupStatus) -> None:
        """Say what stands in the way, in the status and once as an event. What a record keeps is written already."""
        content = self._groups.contents.by_uid(request.key.uid)
        if content is None or request.wish is Wish.GONE:
            return
        if status.failure is None:
            if status.reason == "in use":
                await self._events.warn(content, "GroupSnapshotDeleteError", status.message)
            elif status.state is SnapshotState.READY:
                await self._tidy(content)
            return
        if status.failure.code in GATE_CODES:
            return
        reason, text = driver_request.text_of(content, status)
        if path(content, "status", "error", "message") != text:
            error = {"message": text, "time": rfc3339(self._clock.now())}
            told = {**(content.get("status") or {}), "readyToUse": status.ready, "error": error}
            content = await self._writer.put(names.CONTENTS, {**content, "status": told}, status=True)
        await self._events.warn(content, reason, text)

    async def keys(self) -> AsyncIterator[Key]:
        """The contents that need work or may need it."""
        if self._groups.synced:
            for uid in self._groups.open_uids():
                yield group_key(self._cluster, uid)

    async def _tidy(self, content: Object) -> None:
        """Take upstream's mark off a ready content: a crash left it, and upstream would not let that content go."""
        notes = dict(content["metadata"].get("annotations") or {})
        if notes.pop(names.BEING_CREATED, None) is not None:
            metadata = {**content["metadata"], "annotations": notes}
            await self._writer.put(names.CONTENTS, {**content, "metadata": metadata})


class DriverGroupRecords(GroupContents):
    """The `GroupLedger` port on contents that the other half makes; see `sidecar/records.py`."""

    def __init__(self, groups: DriverGroupWorld, means: Means) -> None:
        super().__init__(groups, means, _nobody)
        self._policies = Policies(POLICY_SECONDS)

    async def load(self, key: Key) -> GroupRecord | None:
        """The record, from the cache, which knows our own writes."""
        facts, content = self._find(key)
        if facts is None or content is None:
            return None
        record = driver_request.record(facts, content, self._memories.get(key.uid))
        condemned = self._policies.condemned(key.uid, record, self._clock.now())
        return self._of_this_term(key.uid, dataclasses.replace(record, condemned=condemned))

    async def condemn(self, key: Key, record: GroupRecord) -> GroupRecord:
        """Its other half has condemned it. The policy that counts is the newest one: a write that changes nothing
        succeeds only on the newest version."""
        content = self._current(key, record)
        answer = await self._writer.put(names.CONTENTS, content)
        self._policies.confirm(key.uid, self._clock.now())
        condemned = dataclasses.replace(
            record, condemned=True, policy=policy_of(answer["spec"]), version=self._version(answer)
        )
        self._keep(key.uid, condemned)
        return condemned

    async def erase(self, key: Key, record: GroupRecord, *, orphan: str = "") -> None:
        """Take our finalizer off a content that goes. Where others hold it still, its status forgets the handle."""
        facts, content = self._find(key)
        if facts is None or content is None:
            self._forget(key.uid)
            return
        content = self._current(key, record)
        if not is_deleting(content):
            raise ConflictError(f"the content of {key} is not to go any more")
        others = set(content["metadata"].get("finalizers") or ()) - {names.CONTENT_FINALIZER}
        if others and record.deleted and path(content, "status", "volumeGroupSnapshotHandle"):
            content = await self._writer.put(names.CONTENTS, {**content, "status": {}}, status=True)
        if orphan:  # Told first: afterwards there is no object any more that a crash could leave untold.
            text = f"Released while a create was unsettled; possibly left on the backend: {orphan}"
            await self._events.warn(content, "SnapshotOrphanPossible", text)
        await self._writer.put(names.CONTENTS, driver_request.without_finalizer(content))
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


class DriverGroups:
    """The driver half of one driver's groups, joined."""

    def __init__(self, driver: str, means: Means, *, naming: Naming, why_not: Callable[[str], str]) -> None:
        self.world = DriverGroupWorld(driver, naming)
        means.writer.also(self.world.caches)
        self.ledger = DriverGroupRecords(self.world, means)
        self.side = GroupSide(DriverGroupRequests(self.world, means, why_not), self.ledger)


async def _nobody(_uid: str) -> None:
    """Members are the other half's."""


def _by_class(content: Object) -> Iterable[str]:
    named = path(content, "spec", "volumeGroupSnapshotClassName")
    return (str(named),) if named and path(content, "status", "readyToUse") is not True else ()


def _by_cut(content: Object) -> Iterable[str]:
    handle = driver_request.handle_of(content)
    return (f"{path(content, 'spec', 'driver')}/{handle}",) if handle else ()
