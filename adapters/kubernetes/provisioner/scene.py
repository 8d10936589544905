"""The part of a cluster that a provisioner must know: its caches, and whom a change concerns. Decides nothing.

Claims that wait or are noted are kept whole, because they are written back with PUT (upstream's rules for the role
allow no PATCH of claims). Of everything else only what is read is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from adapters.kubernetes import names, trim
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.decide import provision, source
from adapters.kubernetes.facts import path

Object = dict[str, Any]
Wake = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Extent:
    """Which kinds a driver's provisioner needs beside claims, volumes and classes."""

    topology: bool = False
    attachments: bool = False
    snapshots: bool = False
    grants: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Wakes:
    """Where news go: a claim's uid, a volume's name, a source's key."""

    claim: Wake
    volume: Wake
    source: Wake


class Scene:
    """Everything the cluster told us. All look-ups return copies."""

    def __init__(self, driver: str, extent: Extent) -> None:
        self.driver = driver
        self.claims = Cache(_claim, {"waiting": _waiting, "by-source": _by_source, "noted": _noted})
        self.volumes = Cache(_volume, {"by-handle": _by_handle})
        self.classes = Cache(trim.whole)
        self.snapshots = Cache(_snapshot, {"held": _held})
        self.csi_nodes = Cache(_csi_node)
        self.nodes = Cache(_node)
        self.attachments = Cache(_attachment, {"by-volume": _by_volume})
        self.grants = Cache(trim.whole, {"by-namespace": lambda grant: (grant["metadata"]["namespace"],)})
        self.caches: dict[names.Resource, Cache] = {
            names.CLAIMS: self.claims,
            names.VOLUMES: self.volumes,
            names.STORAGE_CLASSES: self.classes,
        }
        if extent.topology:
            self.caches |= {names.CSI_NODES: self.csi_nodes, names.NODES: self.nodes}
        if extent.attachments:
            self.caches[names.ATTACHMENTS] = self.attachments
        self._needed = tuple(self.caches.values())
        if extent.snapshots:
            self.caches[names.SNAPSHOTS] = self.snapshots
        if extent.grants:
            self.caches[names.GRANTS] = self.grants

    @property
    def synced(self) -> bool:
        """Whether what every claim needs was read in full. Snapshots and grants may be missing as kinds."""
        return all(cache.synced for cache in self._needed)

    def listen(self, wakes: Wakes) -> None:
        """Send on each change whom it concerns; nothing before all is read."""

        def tell(concerned: Callable[[Object, Wakes], None]) -> Callable[[Object | None, Object | None], None]:
            def changed(before: Object | None, after: Object | None) -> None:
                item = after or before
                if self.synced and item is not None:
                    concerned(item, wakes)

            return changed

        self.claims.listen(tell(self._on_claim))
        self.volumes.listen(tell(self._on_volume))
        self.classes.listen(tell(self._on_class))
        self.snapshots.listen(tell(self._on_snapshot))
        self.attachments.listen(tell(self._on_attachment))

    def _on_claim(self, item: Object, wakes: Wakes) -> None:
        metadata = item["metadata"]
        if provision.is_noted(item) or provision.is_ours(item, self.driver):
            wakes.claim(metadata["uid"])
        key = source_key(source.FromClaim(metadata["namespace"], metadata["name"]))
        for clone in self.claims.find("by-source", key):
            wakes.claim(clone["metadata"]["uid"])
        if metadata.get("deletionTimestamp") and names.CLONE_FINALIZER in (metadata.get("finalizers") or ()):
            wakes.source(key)

    def _on_volume(self, item: Object, wakes: Wakes) -> None:
        wakes.volume(item["metadata"]["name"])
        uid = path(item, "spec", "claimRef", "uid")
        if uid:
            wakes.claim(uid)

    def _on_class(self, item: Object, wakes: Wakes) -> None:
        for waiting in self.claims.find("waiting", item["metadata"]["name"]):
            wakes.claim(waiting["metadata"]["uid"])

    def _on_snapshot(self, item: Object, wakes: Wakes) -> None:
        metadata = item["metadata"]
        key = source_key(source.FromSnapshot(metadata["namespace"], metadata["name"]))
        for waiting in self.claims.find("by-source", key):
            wakes.claim(waiting["metadata"]["uid"])
        if metadata.get("deletionTimestamp") and names.RESTORE_FINALIZER in (metadata.get("finalizers") or ()):
            wakes.source(key)

    def _on_attachment(self, item: Object, wakes: Wakes) -> None:
        for name in _by_volume(item):
            wakes.volume(name)

    def wake_all(self, wakes: Wakes) -> None:
        """Everything that may need work, after a start or a take-over."""
        for claim in self.claims.all():
            waiting = not path(claim, "spec", "volumeName") and provision.is_ours(claim, self.driver)
            if waiting or provision.is_noted(claim):
                wakes.claim(claim["metadata"]["uid"])
        for volume in self.volumes.all():
            wakes.volume(volume["metadata"]["name"])
        self.wake_held(wakes.source)

    def wake_held(self, wake: Wake) -> None:
        """Every source that carries the finalizer of a restore or clone."""
        for snapshot in self.snapshots.find("held", "yes"):
            metadata = snapshot["metadata"]
            wake(source_key(source.FromSnapshot(metadata["namespace"], metadata["name"])))
        for claim in self.claims.all():
            metadata = claim["metadata"]
            if metadata.get("deletionTimestamp") and names.CLONE_FINALIZER in (metadata.get("finalizers") or ()):
                wake(source_key(source.FromClaim(metadata["namespace"], metadata["name"])))

    def under_way(self, key: str) -> list[str]:
        """The uids of the claims whose volumes are being made from this source, by the notes on them."""
        found = self.claims.find("by-source", key)
        return [claim["metadata"]["uid"] for claim in found if provision.is_noted(claim)]

    def is_awaited(self, key: str) -> bool:
        """Whether a claim waits for a volume from this source, whoever is to make it."""
        return self.claims.count("by-source", key) > 0


def source_key(where: source.Origin) -> str:
    """The key of a source, as indexes and loops use it.

    >>> source_key(source.FromSnapshot("apps", "monday"))
    'snapshot/apps/monday'
    """
    kind = "snapshot" if isinstance(where, source.FromSnapshot) else "claim"
    return f"{kind}/{where.namespace}/{where.name}"


def origin_of(key: str) -> source.Origin:
    """The source of a key."""
    kind, namespace, name = key.split("/", 2)
    return (source.FromSnapshot if kind == "snapshot" else source.FromClaim)(namespace, name)


# -- what is kept --------------------------------------------------------------------------------------------------


def _claim(item: Object) -> Object:
    if not path(item, "spec", "volumeName") or provision.is_noted(item):
        return trim.whole(item)
    spec, metadata = item["spec"], item["metadata"]
    return {
        "metadata": _metadata(metadata, (names.STORAGE_PROVISIONER, names.MIGRATED_TO, names.CLASS_BETA)),
        "spec": _only(spec, "volumeName", "storageClassName", "volumeMode", "resources"),
        "status": _only(item.get("status") or {}, "phase"),
    }


def _volume(item: Object) -> Object:
    spec = item.get("spec") or {}
    kept = _only(spec, "persistentVolumeReclaimPolicy", "storageClassName", "volumeMode")
    if spec.get("csi"):
        kept["csi"] = _only(spec["csi"], "driver", "volumeHandle")
    if spec.get("claimRef"):
        kept["claimRef"] = _only(spec["claimRef"], "namespace", "name", "uid")
    noted = (
        names.PROVISIONED_BY,
        names.MIGRATED_TO,
        names.VOLUME_DELETION_SECRET_NAME,
        names.VOLUME_DELETION_SECRET_NAMESPACE,
    )
    return {
        "metadata": _metadata(item["metadata"], noted),
        "spec": kept,
        "status": _only(item.get("status") or {}, "phase"),
    }


def _snapshot(item: Object) -> Object:
    return {
        "metadata": _metadata(item["metadata"], ()),
        "spec": _only(item.get("spec") or {}, "source"),
        "status": _only(item.get("status") or {}, "boundVolumeSnapshotContentName", "readyToUse", "restoreSize"),
    }


def _csi_node(item: Object) -> Object:
    return {"metadata": _metadata(item["metadata"], ()), "spec": _only(item.get("spec") or {}, "drivers")}


def _node(item: Object) -> Object:
    labels = item["metadata"].get("labels") or {}
    return {"metadata": {**_metadata(item["metadata"], ()), "labels": labels}}


def _attachment(item: Object) -> Object:
    return {"metadata": _metadata(item["metadata"], ()), "spec": _only(item["spec"], "source", "nodeName")}


def _metadata(metadata: Object, annotations: tuple[str, ...]) -> Object:
    kept = _only(metadata, "name", "namespace", "uid", "resourceVersion", "finalizers", "deletionTimestamp")
    found = _only(metadata.get("annotations") or {}, *annotations)
    return {**kept, "annotations": found} if found else kept


def _only(item: Any, *fields: str) -> Object:
    """Of what is no object, as in a malformed VolumeSnapshot, nothing is kept."""
    if type(item) is not dict:
        return {}
    return {field: item[field] for field in fields if item.get(field) is not None}


# -- indexes -------------------------------------------------------------------------------------------------------


def _waiting(claim: Object) -> Iterable[str]:
    name = source.class_name(claim)
    return (name,) if name and not path(claim, "spec", "volumeName") else ()


def _by_source(claim: Object) -> Iterable[str]:
    if path(claim, "spec", "volumeName") and not provision.is_noted(claim):
        return ()
    where = source.named(claim)
    return () if where is None else (source_key(where),)


def _noted(claim: Object) -> Iterable[str]:
    return ("yes",) if provision.is_noted(claim) else ()


def _by_handle(volume: Object) -> Iterable[str]:
    csi = path(volume, "spec", "csi") or {}
    return (f"{csi.get('driver')}/{csi.get('volumeHandle')}",) if csi else ()


def _held(snapshot: Object) -> Iterable[str]:
    return ("yes",) if names.RESTORE_FINALIZER in (snapshot["metadata"].get("finalizers") or ()) else ()


def _by_volume(attachment: Object) -> Iterable[str]:
    name = path(attachment, "spec", "source", "persistentVolumeName")
    return (name,) if name else ()
