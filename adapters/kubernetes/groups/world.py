"""The groups of a cluster as we know them: three more caches, and which groups an event concerns.

It looks things up; it decides nothing and writes nothing. A cluster without the group kinds is a cluster without
groups: that is no trouble, and it may change.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from adapters.kubernetes import trim
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.decide.group_binding import needs_claim, needs_claims
from adapters.kubernetes.facts import is_deleting, path, snapshot_of_reference
from adapters.kubernetes.groups import names, selector, shape
from adapters.kubernetes.groups.facts import (
    GroupFacts,
    Source,
    group_of_reference,
    is_bound,
    is_held,
    is_ready,
    is_settled,
    static_content,
)
from adapters.kubernetes.groups.optional import OptionalKinds
from adapters.kubernetes.names import Naming
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.world import World, malformed

Object = dict[str, Any]

STATIC = "content:"
"""The uid of a key that is a content's own: one that no group has ever been bound to."""


class GroupWorld(OptionalKinds):
    """Everything the cluster told us of groups. All look-ups return copies."""

    def __init__(self, world: World, naming: Naming | None = None) -> None:
        """`naming`: how groups are called on the backend; None for the usual way."""
        super().__init__()
        self.world = world
        self._leaving: set[str] = set()
        self.naming = naming or dataclasses.replace(names.NAMING, extra_metadata=world.naming.extra_metadata)
        self.groups = Cache(
            trim.group,
            {"open": _open, "by-content": _by_content, "deleting": _deleting,
             "malformed": malformed(wellformed.group)},
        )  # fmt: skip
        self.contents = Cache(
            trim.whole,
            {"by-group": _by_group, "by-cut": _by_cut, "malformed": malformed(wellformed.group_content)},
        )
        self.classes = Cache(trim.whole, {"default": _default_classes, "malformed": malformed(wellformed.klass)})
        self.caches = {names.GROUPS: self.groups, names.CONTENTS: self.contents, names.CLASSES: self.classes}
        world.other_holders.append(self.holds_claim)

    # -- looking up ----------------------------------------------------------------------------------------

    def facts(self, uid: str) -> GroupFacts | None:
        """All that one group's translation needs; None when nothing is known of it.

        MalformedError when the group or its content is not what its definition promises.
        """
        if uid.startswith(STATIC):
            content = self.contents.get("", uid.removeprefix(STATIC))
            refuse_malformed(self.contents, content, None)
            return (
                None if content is None else GroupFacts(uid=uid, content=content, in_use=self._in_use(None, content))
            )
        group = self.groups.by_uid(uid)
        if group is None:
            return self._orphan(uid)
        if self.groups.count("malformed", uid):
            raise MalformedError(names.GROUPS.kind, group, wellformed.group(group), group)
        content = self.content_of(group)
        refuse_malformed(self.contents, content, group)
        bound = content is not None and is_bound(content, group)
        sources = self._of_content(content) if content is not None and bound else self._selected(group)
        class_name = path(group, "spec", "volumeGroupSnapshotClassName") or ""
        if not class_name and content is not None and bound:
            class_name = path(content, "spec", "volumeGroupSnapshotClassName") or ""
        driver = path(sources[0].volume, "spec", "csi", "driver") if sources else ""
        klass, class_trouble = class_named(self.classes, class_name)
        return GroupFacts(
            uid=uid,
            group=group,
            content=content,
            sources=sources,
            class_name=class_name,
            klass=klass,
            class_trouble=class_trouble,
            defaults=tuple(self.classes.find("default", driver)) if driver and not class_name else (),
            naming=self.naming,
            in_use=self._in_use(group, content if bound else None) if is_deleting(group) else "",
        )

    def content_name(self, group: Object) -> str:
        """What its content is called."""
        return static_content(group) or names.content_name(group["metadata"]["uid"])

    def content_of(self, group: Object) -> Object | None:
        """The content that this group names or would name; whether it points back is another question."""
        return self.contents.get("", self.content_name(group))

    def members(self, uid: str) -> list[Object]:
        """The VolumeSnapshots that this group made."""
        return self.world.snapshots.find("by-group", uid)

    def by_handle(self, driver: str, handle: str) -> Object | None:
        """The group that a handle on the backend belongs to."""
        for content in self.contents.find("by-cut", f"{driver}/{handle}"):
            group = self.groups.by_uid(group_of_reference(content))
            if group is not None:
                return group
        return None

    def _orphan(self, uid: str) -> GroupFacts | None:
        """A content that points to a group which is not there; of several, one that is to go."""
        found = self.contents.find("by-group", uid)
        content = next((item for item in found if is_deleting(item)), found[0]) if found else None
        if content is None:
            return None
        refuse_malformed(self.contents, content, None)
        klass, _ = class_named(self.classes, path(content, "spec", "volumeGroupSnapshotClassName") or "")
        return GroupFacts(
            uid=uid, content=content, klass=klass, naming=self.naming, in_use=self._in_use(None, content)
        )

    def _selected(self, group: Object) -> tuple[Source, ...]:
        """The claims that the selector chooses now, by name."""
        chosen = path(group, "spec", "source", "selector")
        if chosen is None:
            return ()
        found = [
            claim
            for claim in self.world.claims.find("by-namespace", group["metadata"]["namespace"])
            if selector.matches(chosen, claim["metadata"].get("labels") or {})
        ]
        return tuple(Source(claim, self._volume_of(claim)) for claim in found)

    def _volume_of(self, claim: Object) -> Object | None:
        name = path(claim, "spec", "volumeName")
        return self.world.volumes.get("", name) if name else None

    def _of_content(self, content: Object) -> tuple[Source, ...]:
        """The volumes that a content was made of; what they are selected by may have changed since."""
        driver = path(content, "spec", "driver")
        found = []
        for handle in path(content, "spec", "source", "volumeHandles") or ():
            volumes = self.world.volumes.find("by-handle", f"{driver}/{handle}")
            if volumes:
                reference = path(volumes[0], "spec", "claimRef") or {}
                claim = self.world.claims.get(str(reference.get("namespace")), str(reference.get("name")))
                found.append(Source(claim, volumes[0]))
        return tuple(found)

    def _in_use(self, group: Object | None, content: Object | None) -> str:
        """Who relies on a member: a restore that waits for it, or another content of the same snapshot."""
        if group is not None:
            place = f"{group['metadata']['namespace']}/{group['metadata']['name']}"
            for snapshot in self.members(group["metadata"]["uid"]):
                metadata = snapshot["metadata"]
                restoring = self.world.restoring(metadata["namespace"], metadata["name"])
                if restoring:
                    return (
                        f"Snapshot {metadata['namespace']}/{metadata['name']} belonging to VolumeGroupSnapshot "
                        f"{place} is being used to restore a PVC: {', '.join(restoring)}"
                    )
        if content is None or path(content, "spec", "deletionPolicy") != "Delete":
            return ""
        if not group_of_reference(content) and not path(content, "status", "volumeGroupSnapshotHandle"):
            return ""  # Never bound and never looked up: only the object goes.
        return self._shared(content)

    def _shared(self, content: Object) -> str:
        """The data goes with the last object that names it."""
        own = content["metadata"]["uid"]
        others = [
            item["metadata"]["name"]
            for item in self.contents.find("by-cut", next(iter(_by_cut(content)), ""))
            if item["metadata"]["uid"] != own and not self._goes(item)
        ]
        if others:
            return f"The group is also held by VolumeGroupSnapshotContent {', '.join(sorted(others))}"
        uid, driver = group_of_reference(content), path(content, "spec", "driver")
        members = {member["metadata"]["uid"] for member in self.members(uid)} if uid else set()
        for cut in shape.members_of(content):
            mine = names.member_names(uid, cut.source_handle)[1]
            for item in self.world.contents.find("by-cut", f"{driver}/{cut.handle}"):
                own_member = item["metadata"]["name"] == mine or snapshot_of_reference(item) in members
                if not own_member and not is_deleting(item):
                    return f"Snapshot {cut.handle} is also held by VolumeSnapshotContent {item['metadata']['name']}"
        return ""

    def _goes(self, content: Object) -> bool:
        """Whether this content is on its way out, so that nobody relies on its data through it."""
        group = self.groups.by_uid(group_of_reference(content))
        if is_deleting(content):
            return group is None or is_deleting(group)
        return path(content, "spec", "deletionPolicy") == "Delete" and group is not None and is_deleting(group)

    @contextlib.contextmanager
    def without(self, uid: str) -> Iterator[None]:
        """For a while, as if this group needed no claim: it is about to let its own go."""
        self._leaving.add(uid)
        try:
            yield
        finally:
            self._leaving.discard(uid)

    def holds_claim(self, namespace: str, claim: str, uid: str = "") -> bool:
        """Whether another group than `uid` needs this claim. Until it is known what groups there are, one may."""
        if not self.synced and not self.absent:
            return True
        for group in self.groups.find("open", namespace):
            own = group["metadata"]["uid"]
            if own == uid or own in self._leaving or not is_held(group):
                continue
            try:
                facts = self.facts(own)
            except MalformedError:
                continue  # Nobody works on it.
            if facts is None or not needs_claims(facts):
                continue
            own_claims = (one.claim for one in facts.sources if one.claim is not None)
            if any(one["metadata"]["name"] == claim and needs_claim(facts, one) for one in own_claims):
                return True
        return False

    # -- which groups are concerned --------------------------------------------------------------------------

    def uids(self) -> Iterator[str]:
        """Every group, and every content that has none."""
        for group in self.groups.all():
            yield group["metadata"]["uid"]
        for content in self.contents.all():
            uid = content_uid(content)
            if uid.startswith(STATIC) or self.groups.by_uid(uid) is None:
                yield uid

    def open_uids(self) -> Iterator[str]:
        """The groups that still need or may need work, claims that a crash left held included."""
        for group in self.groups.all():
            held = self.world.claims.count("held", group["metadata"]["namespace"])
            if held or not is_settled(group, self.content_of(group)):
                yield group["metadata"]["uid"]
        for content in self.contents.all():
            if is_deleting(content):
                yield content_uid(content)

    def listen(self, wake: Callable[[str], None], wake_member: Callable[[str], None]) -> None:
        """Call `wake` with the uid of each group that a change may concern, `wake_member` for members to look at."""

        def listener(uids: Callable[[Object], Iterable[str]]) -> Callable[[Object | None, Object | None], None]:
            def changed(before: Object | None, after: Object | None) -> None:
                if not self.synced:
                    return
                for uid in {uid for item in (before, after) if item is not None for uid in uids(item)}:
                    wake(uid)

            return changed

        def on_group(before: Object | None, after: Object | None) -> None:
            if before is not None and after is None:
                for snapshot in self.members(before["metadata"]["uid"]):
                    wake_member(snapshot["metadata"]["uid"])

        def on_member(before: Object | None, after: Object | None) -> None:
            gone = before is not None and (after is None or is_deleting(after))
            if gone and before is not None and self.synced:
                for uid in _group_of_member(before):
                    wake(uid)

        self.groups.listen(listener(lambda item: (item["metadata"]["uid"],)))
        self.groups.listen(on_group)
        self.contents.listen(listener(self._uids_of_content))
        self.classes.listen(listener(self._uids_of_class))
        self.world.claims.listen(listener(self._uids_of_claim))
        self.world.volumes.listen(listener(self._uids_of_volume))
        self.world.snapshots.listen(on_member)

    def _uids_of_content(self, content: Object) -> Iterable[str]:
        yield content_uid(content)
        for group in self.groups.find("by-content", content["metadata"]["name"]):
            yield group["metadata"]["uid"]

    def _uids_of_class(self, klass: Object) -> Iterable[str]:
        for group in self.groups.all():
            if not is_ready(group) and path(group, "spec", "volumeGroupSnapshotClassName") in (
                None,
                klass["metadata"]["name"],
            ):
                yield group["metadata"]["uid"]

    def _uids_of_claim(self, claim: Object) -> Iterable[str]:
        namespace = claim["metadata"]["namespace"]
        for index in ("open", "deleting"):
            for group in self.groups.find(index, namespace):
                yield group["metadata"]["uid"]

    def _uids_of_volume(self, volume: Object) -> Iterable[str]:
        for group in self.groups.find("open", str(path(volume, "spec", "claimRef", "namespace"))):
            yield group["metadata"]["uid"]


def refuse_malformed(contents: Cache, content: Object | None, group: Object | None) -> None:
    """MalformedError for a group content that nobody may act on. `group` is the one that it stops."""
    if content is not None and contents.count("malformed", content["metadata"]["uid"]):
        raise MalformedError(names.CONTENTS.kind, content, wellformed.group_content(content), group)


def class_named(classes: Cache, name: str) -> tuple[Object | None, str]:
    """A class by its name, or how it is malformed: then it counts as not there."""
    klass = classes.get("", name) if name else None
    if klass is not None and classes.count("malformed", klass["metadata"]["uid"]):
        return None, wellformed.klass(klass)
    return klass, ""


def content_uid(content: Object) -> str:
    """The uid of a content's key: its group's, or its own name when it has never been bound."""
    return group_of_reference(content) or STATIC + content["metadata"]["name"]


def _group_of_member(snapshot: Object) -> tuple[str, ...]:
    references = snapshot["metadata"].get("ownerReferences") or ()
    return tuple(str(one.get("uid")) for one in references if one.get("kind") == names.GROUPS.kind)


def _open(group: Object) -> Iterable[str]:
    """Not ready: what its claims do concerns it."""
    return () if is_ready(group) or static_content(group) else (group["metadata"]["namespace"],)


def _deleting(group: Object) -> Iterable[str]:
    return (group["metadata"]["namespace"],) if is_deleting(group) else ()


def _by_content(group: Object) -> Iterable[str]:
    content = static_content(group)
    return (content,) if content else ()


def _by_group(content: Object) -> Iterable[str]:
    uid = group_of_reference(content)
    return (uid,) if uid else ()


def _by_cut(content: Object) -> Iterable[str]:
    """The group on the backend, by driver and handle."""
    handle = path(content, "status", "volumeGroupSnapshotHandle")
    handle = handle or path(content, "spec", "source", "groupSnapshotHandles", "volumeGroupSnapshotHandle")
    return (f"{path(content, 'spec', 'driver')}/{handle}",) if handle else ()


def _default_classes(klass: Object) -> Iterable[str]:
    marked = (klass["metadata"].get("annotations") or {}).get(names.DEFAULT_CLASS) == "true"
    return (str(klass.get("driver") or ""),) if marked else ()
