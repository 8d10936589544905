"""The cluster as we know it: five caches with the indexes that keep the cost of an event from growing.

It looks things up and says which snapshots an event concerns. It decides nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from adapters.kubernetes import member, names, trim
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.facts import (
    Facts,
    content_seal,
    is_deleting,
    is_ready,
    path,
    snapshot_of_reference,
    snapshot_seal,
    static_content,
)
from adapters.kubernetes.problem import MalformedError

Object = dict[str, Any]

STATIC = "content:"
"""The uid of a key that is a content's own: one that no VolumeSnapshot has ever been bound to."""


class World:
    """Everything the cluster told us. What it gives is shared: nobody may change it (see `cache.py`)."""

    def __init__(
        self, naming: names.Naming | None = None, *, nodes: bool = False, forget_owners: bool = False
    ) -> None:
        """`nodes`: also know the cluster's nodes. `forget_owners`: see `Settings.forget_field_owners`."""
        self.naming = naming or names.Naming()
        self.trim_content = trim.forgetting(trim.whole) if forget_owners else trim.whole
        """An answer about a content, as the cache keeps it."""
        self.snapshots = Cache(
            trim.forgetting(trim.snapshot) if forget_owners else trim.snapshot,
            {"open-by-claim": _open_by_claim, "open-by-class": _open_by_class, "open-by-content": _open_by_content,
             "holding-claim": _holding_claim, "by-group": member.group_uids,
             "malformed": malformed(wellformed.snapshot)},
            seal=lambda snapshot: snapshot_seal(snapshot, self.content_name(snapshot)),
            shared=True,
        )  # fmt: skip
        self.contents = Cache(
            self.trim_content,
            {"by-snapshot": _by_snapshot, "by-cut": _by_cut, "malformed": malformed(wellformed.content)},
            seal=content_seal,
            shared=True,
        )
        self.classes = Cache(
            trim.whole, {"default": _default_classes, "malformed": malformed(wellformed.klass)}, shared=True
        )
        self.claims = Cache(
            trim.claim, {"restoring": _restoring, "by-namespace": _namespace, "held": _held_claim,
             "held-anywhere": _held_anywhere}, shared=True,
        )  # fmt: skip
        self.volumes = Cache(trim.volume, {"by-handle": _by_handle}, shared=True)
        self.caches: dict[names.Resource, Cache] = {
            names.SNAPSHOTS: self.snapshots,
            names.CONTENTS: self.contents,
            names.CLASSES: self.classes,
            names.CLAIMS: self.claims,
            names.VOLUMES: self.volumes,
        }
        """Each kind and its cache."""
        self.nodes = Cache(trim.node) if nodes else None
        if self.nodes is not None:
            self.caches[names.NODES] = self.nodes
        self._all = tuple(self.caches.values())
        self._synced = False
        self._last: tuple[tuple[str, int], Facts | None] = (("", 0), None)
        """The facts that were asked for last, and as of which change."""
        self.other_holders: list[Callable[[str, str, str], bool]] = []
        """Who else may need a claim (namespace, name) but the request with this uid: group snapshots."""

    @property
    def synced(self) -> bool:
        """Whether every kind has been read in full since the start."""
        self._synced = self._synced or all(cache.synced for cache in self._all)
        return self._synced

    # -- looking up ----------------------------------------------------------------------------------------

    def facts(self, uid: str) -> Facts | None:
        """All that one snapshot's translation needs; None when nothing is known of it.

        MalformedError when the VolumeSnapshot or its content is not what its definition promises.
        """
        # One pass asks several times in a row.
        asked = (uid, sum([cache.changes for cache in self._all]))
        if self._last[0] != asked:
            self._last = asked, self._facts(uid)
        return self._last[1]

    def _facts(self, uid: str) -> Facts | None:
        if uid.startswith(STATIC):
            content = self.contents.get("", uid.removeprefix(STATIC))
            if content is None or snapshot_of_reference(content):
                return None  # Bound meanwhile: its VolumeSnapshot's key speaks for it.
            return self._lone(uid, content)
        snapshot = self.snapshots.by_uid(uid)
        if snapshot is None:
            content = self.orphan_content(uid)
            return None if content is None else self._lone(uid, content)
        if self.snapshots.count("malformed", uid):
            raise MalformedError(names.SNAPSHOTS.kind, snapshot, wellformed.snapshot(snapshot), snapshot)
        content = self.content_of(snapshot)
        self._refuse_malformed(content, snapshot)
        claim, volume = self._source(snapshot)
        class_name = path(snapshot, "spec", "volumeSnapshotClassName") or ""
        if not class_name and content is not None:
            class_name = path(content, "spec", "volumeSnapshotClassName") or ""
        driver = path(volume, "spec", "csi", "driver") if volume else ""
        metadata = snapshot["metadata"]
        klass, class_trouble = self._class(class_name)
        return Facts(
            uid=uid,
            snapshot=snapshot,
            content=content,
            claim=claim,
            volume=volume,
            class_name=class_name,
            klass=klass,
            class_trouble=class_trouble,
            defaults=tuple(self.classes.find("default", driver)) if driver and not class_name else (),
            restoring=self.restoring(metadata["namespace"], metadata["name"]),
            naming=self.naming,
        )

    def _lone(self, uid: str, content: Object) -> Facts:
        """The facts of a content without a VolumeSnapshot."""
        self._refuse_malformed(content, None)
        klass, trouble = self._class(path(content, "spec", "volumeSnapshotClassName") or "")
        return Facts(uid=uid, content=content, klass=klass, class_trouble=trouble, naming=self.naming)

    def _refuse_malformed(self, content: Object | None, snapshot: Object | None) -> None:
        if content is not None and self.contents.count("malformed", content["metadata"]["uid"]):
            raise MalformedError(names.CONTENTS.kind, content, wellformed.content(content), snapshot)

    def _class(self, name: str) -> tuple[Object | None, str]:
        """A class by its name, or how it is malformed: then it counts as not there."""
        klass = self.classes.get("", name) if name else None
        if klass is not None and self.classes.count("malformed", klass["metadata"]["uid"]):
            return None, wellformed.klass(klass)
        return klass, ""

    def content_of(self, snapshot: Object) -> Object | None:
        """The content that this VolumeSnapshot names or would name; whether it points back is another question."""
        return self.contents.get("", self.content_name(snapshot))

    def content_name(self, snapshot: Object) -> str:
        """What its content is called."""
        if member.is_made_by_group(snapshot):
            return member.content_name(snapshot)
        return static_content(snapshot) or names.content_name(snapshot["metadata"]["uid"])

    def orphan_content(self, uid: str) -> Object | None:
        """A content that points to this uid; of several, one that is to go."""
        found = self.contents.find("by-snapshot", uid)
        return next((item for item in found if is_deleting(item)), found[0]) if found else None

    def sharing(self, content: Object) -> list[str]:
        """The other contents of the same snapshot on the backend that are not to go with it."""
        own = content["metadata"]["uid"]
        keys = set(_by_cut(content))
        if all(self.contents.count("by-cut", key) < 2 for key in keys):
            return []
        found = [item for key in keys for item in self.contents.find("by-cut", key)]
        return sorted(
            {item["metadata"]["name"] for item in found if item["metadata"]["uid"] != own and not self._goes(item)}
        )

    def _goes(self, content: Object) -> bool:
        """Whether this content is on its way out, so that nobody relies on its data through it."""
        snapshot = self.snapshots.by_uid(snapshot_of_reference(content))
        if is_deleting(content):
            return snapshot is None or is_deleting(snapshot)
        return path(content, "spec", "deletionPolicy") == "Delete" and snapshot is not None and is_deleting(snapshot)

    def restoring(self, namespace: str, name: str) -> tuple[str, ...]:
        """The claims ("namespace/name") that wait to be filled from this snapshot."""
        found = self.claims.find("restoring", f"{namespace}/{name}")
        return tuple(f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in found)

    def _source(self, snapshot: Object) -> tuple[Object | None, Object | None]:
        claim_name = path(snapshot, "spec", "source", "persistentVolumeClaimName")
        if not claim_name:
            return None, None
        claim = self.claims.get(snapshot["metadata"]["namespace"], claim_name)
        volume_name = path(claim, "spec", "volumeName") if claim else ""
        return claim, self.volumes.get("", volume_name) if volume_name else None

    def held_claims(self) -> list[Object]:
        """The claims with our finalizer, of all namespaces."""
        return self.claims.find("held-anywhere", "yes")

    # -- which snapshots are concerned -----------------------------------------------------------------------

    def uids(self) -> Iterator[str]:
        """Every snapshot, and every content that has none."""
        for snapshot in self.snapshots.all():
            yield snapshot["metadata"]["uid"]
        yield from self.lone_uids()

    def lone_uids(self) -> Iterator[str]:
        """The contents whose VolumeSnapshot is not there."""
        for content in self.contents.all():
            uid = content_uid(content)
            if uid.startswith(STATIC) or self.snapshots.by_uid(uid) is None:
                yield uid

    def open_uids(self) -> Iterator[str]:
        """The snapshots that still need or may need work, a hold on the claim that a crash left included."""
        held = {f"{claim['metadata']['namespace']}/{claim['metadata']['name']}" for claim in self.held_claims()}
        settled = {seal for _, seal in self.contents.seals() if seal is not None}
        for uid, seal in list(self.snapshots.seals()):
            if seal not in settled or (held and _claim_key(self.snapshots.by_uid(uid) or {}) in held):
                yield uid
        for uid, seal in list(self.contents.seals()):
            content = self.contents.by_uid(uid) if seal is None else None
            if content is not None and (is_deleting(content) or is_unread(content)):
                yield content_uid(content)

    def listen(self, wake: Callable[[str], None]) -> None:
        """Call `wake` with the uid of each snapshot that a change may concern."""

        def listener(
            cache: Cache, uids: Callable[[Object], Iterable[str]], of_write: Callable[[Object], Iterable[str]]
        ) -> Callable[[Object | None, Object | None], None]:
            """`of_write`: whom a write of our own is no news to."""

            def changed(before: Object | None, after: Object | None) -> None:
                if not self.synced:
                    return
                spared = set(of_write(after)) if cache.telling_own and after is not None else ()
                for uid in {uid for item in (before, after) if item is not None for uid in uids(item)}:
                    if uid not in spared:
                        wake(uid)

            return changed

        def itself(item: Object) -> Iterable[str]:
            return (item["metadata"]["uid"],)

        self.snapshots.listen(listener(self.snapshots, itself, itself))
        self.contents.listen(listener(self.contents, self._uids_of_content, lambda item: (content_uid(item),)))
        self.classes.listen(listener(self.classes, self._uids_of_class, _nobody))
        self.claims.listen(listener(self.claims, self._uids_of_claim, self._uids_of_claim))
        self.volumes.listen(listener(self.volumes, self._uids_of_volume, _nobody))

    def _uids_of_content(self, content: Object) -> Iterable[str]:
        yield content_uid(content)
        for snapshot in self.snapshots.find("open-by-content", content["metadata"]["name"]):
            yield snapshot["metadata"]["uid"]
        if is_deleting(content):
            yield from self._uids_that_wait_for(content)

    def _uids_that_wait_for(self, content: Object) -> Iterable[str]:
        """Other contents of the same snapshot on the backend, whose deletion may have waited for this one."""
        for key in _by_cut(content):
            for other in self.contents.find("by-cut", key):
                waits = is_deleting(other) or self._goes(other)
                if waits and other["metadata"]["uid"] != content["metadata"]["uid"]:
                    yield content_uid(other)

    def _uids_of_class(self, klass: Object) -> Iterable[str]:
        for name in (klass["metadata"]["name"], ""):
            for snapshot in self.snapshots.find("open-by-class", name):
                yield snapshot["metadata"]["uid"]

    def _uids_of_claim(self, claim: Object) -> Iterable[str]:
        metadata = claim["metadata"]
        for snapshot in self.snapshots.find("open-by-claim", f"{metadata['namespace']}/{metadata['name']}"):
            yield snapshot["metadata"]["uid"]
        for reference in _restoring(claim):
            source = self.snapshots.get(*reference.split("/", 1))
            if source is not None and source["metadata"].get("deletionTimestamp"):
                yield source["metadata"]["uid"]

    def _uids_of_volume(self, volume: Object) -> Iterable[str]:
        reference = path(volume, "spec", "claimRef") or {}
        for snapshot in self.snapshots.find("open-by-claim", f"{reference.get('namespace')}/{reference.get('name')}"):
            yield snapshot["metadata"]["uid"]


def _nobody(_item: Object) -> Iterable[str]:
    return ()


def content_uid(content: Object) -> str:
    """The uid of a content's key: its VolumeSnapshot's, or its own name when it has never been bound."""
    return snapshot_of_reference(content) or STATIC + content["metadata"]["name"]


def is_unread(content: Object) -> bool:
    """Whether it is a pre-provisioned content that is bound to no VolumeSnapshot and not known to be ready."""
    if snapshot_of_reference(content) or not path(content, "spec", "source", "snapshotHandle"):
        return False
    return path(content, "status", "readyToUse") is not True


def malformed(check: Callable[[Object], str]) -> Callable[[Object], Iterable[str]]:
    """An index of the uids of what is malformed: looked at once per version, not at each turn."""
    return lambda item: (item["metadata"]["uid"],) if check(item) else ()


def _claim_key(snapshot: Object) -> str:
    claim = path(snapshot, "spec", "source", "persistentVolumeClaimName")
    return f"{snapshot['metadata']['namespace']}/{claim}" if claim else ""


def _open_by_claim(snapshot: Object) -> Iterable[str]:
    key = _claim_key(snapshot)
    return (key,) if key and not is_ready(snapshot) else ()


def _holding_claim(snapshot: Object) -> Iterable[str]:
    """A snapshot holds its claim from the hold until it is ready or let go."""
    held = names.SOURCE_FINALIZER in (snapshot["metadata"].get("finalizers") or ())
    return _open_by_claim(snapshot) if held and not member.is_made_by_group(snapshot) else ()


def _open_by_class(snapshot: Object) -> Iterable[str]:
    return () if is_ready(snapshot) else (path(snapshot, "spec", "volumeSnapshotClassName") or "",)


def _open_by_content(snapshot: Object) -> Iterable[str]:
    content = static_content(snapshot)
    return (content,) if content and not is_ready(snapshot) else ()


def _by_snapshot(content: Object) -> Iterable[str]:
    uid = snapshot_of_reference(content)
    return (uid,) if uid else ()


def _by_cut(content: Object) -> Iterable[str]:
    """The snapshot on the backend, by driver and handle."""
    handle = path(content, "status", "snapshotHandle") or path(content, "spec", "source", "snapshotHandle")
    return (f"{path(content, 'spec', 'driver')}/{handle}",) if handle else ()


def _default_classes(klass: Object) -> Iterable[str]:
    marked = (klass["metadata"].get("annotations") or {}).get(names.DEFAULT_CLASS) == "true"
    return (str(klass.get("driver") or ""),) if marked else ()


def _namespace(claim: Object) -> Iterable[str]:
    return (claim["metadata"]["namespace"],)


def _held_claim(claim: Object) -> Iterable[str]:
    held = names.CLAIM_FINALIZER in (claim["metadata"].get("finalizers") or ())
    return (claim["metadata"]["namespace"],) if held else ()


def _held_anywhere(claim: Object) -> Iterable[str]:
    return ("yes",) if any(_held_claim(claim)) else ()


def _by_handle(volume: Object) -> Iterable[str]:
    csi = path(volume, "spec", "csi") or {}
    return (f"{csi.get('driver')}/{csi.get('volumeHandle')}",) if csi else ()


def _restoring(claim: Object) -> Iterable[str]:
    """The snapshots ("namespace/name") that a Pending claim waits for."""
    if path(claim, "status", "phase") not in (None, "", "Pending"):
        return ()
    own = claim["metadata"]["namespace"]
    found = []
    for field in ("dataSource", "dataSourceRef"):
        source = path(claim, "spec", field) or {}
        if source.get("kind") == names.SNAPSHOTS.kind and source.get("apiGroup") == names.GROUP:
            found.append(f"{source.get('namespace') or own}/{source.get('name')}")
    return tuple(dict.fromkeys(found))
