"""The `Volumes` port: claims and the CSI volumes behind them, and making a restored volume known.

Waiting for a claim to be bound, or for its users to be gone, is the caller's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from adapters.kubernetes import names, status
from adapters.kubernetes.client import Client
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.problem import ApiError, as_bridge_error
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError, InvalidError, NotFoundError, NotSyncedError
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.volume import AccessMode, Volume, VolumeMode

Object = dict[str, Any]

_MODES = {
    "ReadWriteOnce": AccessMode.SINGLE_NODE_WRITER,
    "ReadWriteOncePod": AccessMode.SINGLE_NODE_WRITER,
    "ReadOnlyMany": AccessMode.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": AccessMode.MULTI_NODE_MULTI_WRITER,
}
_WORDS = {
    AccessMode.SINGLE_NODE_WRITER: "ReadWriteOnce",
    AccessMode.SINGLE_NODE_READER_ONLY: "ReadOnlyMany",
    AccessMode.MULTI_NODE_READER_ONLY: "ReadOnlyMany",
    AccessMode.MULTI_NODE_SINGLE_WRITER: "ReadWriteMany",
    AccessMode.MULTI_NODE_MULTI_WRITER: "ReadWriteMany",
}
_CARRIED = ("nodeAffinity", "mountOptions", "storageClassName")
_CARRIED_CSI = (
    "controllerPublishSecretRef",
    "nodeStageSecretRef",
    "nodePublishSecretRef",
    "controllerExpandSecretRef",
    "nodeExpandSecretRef",
)
_DELETION_NOTE = "volume.kubernetes.io/provisioner-deletion-secret-"


class ClaimedVolumes:
    """The `Volumes` port."""

    def __init__(self, cluster: str, world: World, writer: Writer, client: Client) -> None:
        self._cluster = cluster
        self._world = world
        self._writer = writer
        self._client = client

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        """The CSI volumes that are bound to a claim, by name."""
        self._need_sync()
        found = []
        for claim in self._world.claims.all():
            if namespace and claim["metadata"]["namespace"] != namespace:
                continue
            volume = self._bound(claim)
            if volume is not None and path(volume, "spec", "csi"):
                found.append(self._describe(claim, volume))
        return sorted(found, key=lambda volume: (volume.namespace, volume.name))

    async def find(self, namespace: str, name: str) -> Volume:
        """The volume behind a claim."""
        self._need_sync()
        claim = self._world.claims.get(namespace, name)
        if claim is None:
            raise NotFoundError(f"there is no PersistentVolumeClaim {namespace}/{name}", field="volume")
        volume = self._bound(claim)
        if volume is None:
            hint = "Wait until it is bound, or look at its events"
            raise InvalidError(f"the claim {namespace}/{name} is not bound to a volume", field="volume", hint=hint)
        if not path(volume, "spec", "csi"):
            raise InvalidError(f"the claim {namespace}/{name} is no CSI volume", field="volume")
        return self._describe(claim, volume)

    async def register(self, volume: Volume, like: Volume | None) -> None:
        """Make a PersistentVolume with policy Retain and a claim that are bound to each other."""
        self._need_sync()
        self._refuse_taken(volume)
        pattern = self._pattern(like)
        body = _new_volume(volume, pattern)
        await self._make(names.VOLUMES, "", body)
        await self._make(names.CLAIMS, volume.namespace, _new_claim(volume, body))

    async def forget(self, namespace: str, name: str) -> Volume | None:
        """Delete the claim and the volume object, with policy Retain first, so that the data stays."""
        self._need_sync()
        claim = self._world.claims.get(namespace, name)
        if claim is None:
            return None
        volume = self._bound(claim)
        described = await self.find(namespace, name)
        assert volume is not None
        await self._refuse_used(claim)
        if path(volume, "spec", "persistentVolumeReclaimPolicy") != "Retain":
            version = volume["metadata"]["resourceVersion"]
            body = {
                "metadata": {"resourceVersion": version},
                "spec": {"persistentVolumeReclaimPolicy": "Retain"},
            }
            volume = await self._writer.merge_patch(names.VOLUMES, "", volume["metadata"]["name"], body)
        if path(volume, "spec", "persistentVolumeReclaimPolicy") != "Retain":
            raise ConflictError(f"the volume behind {namespace}/{name} cannot be set to Retain")
        await self._writer.delete(names.CLAIMS, claim, exact=False)
        await self._writer.delete(names.VOLUMES, volume, exact=False)
        return described

    # -- inside ----------------------------------------------------------------------------------------------

    def _need_sync(self) -> None:
        if not self._world.synced:
            raise NotSyncedError(f"cluster {self._cluster} is not read yet")

    def _bound(self, claim: Object) -> Object | None:
        called = path(claim, "spec", "volumeName")
        if path(claim, "status", "phase") != "Bound" or not called:
            return None
        return self._world.volumes.get("", called)

    def _describe(self, claim: Object, volume: Object) -> Volume:
        spec = volume["spec"]
        csi, own = spec["csi"], claim["metadata"]
        notes = volume["metadata"].get("annotations") or {}
        secret, place = notes.get(f"{_DELETION_NOTE}name"), notes.get(f"{_DELETION_NOTE}namespace")
        modes = tuple(dict.fromkeys(_MODES[word] for word in spec.get("accessModes") or () if word in _MODES))
        return Volume(
            cluster=self._cluster,
            namespace=own["namespace"],
            name=own["name"],
            driver=csi["driver"],
            handle=csi["volumeHandle"],
            capacity_bytes=status.size_of(str(path(spec, "capacity", "storage") or "")),
            mode=VolumeMode(spec.get("volumeMode") or "Filesystem"),
            access_modes=modes or (AccessMode.SINGLE_NODE_WRITER,),
            fs_type=csi.get("fsType") or "",
            context=dict(csi.get("volumeAttributes") or {}),
            secret=SecretRef("k8s", f"{place}/{secret}") if secret and place else NO_SECRET,
        )

    def _pattern(self, like: Volume | None) -> Object:
        """The volume object of the source, for what is to be carried over; empty when there is none."""
        if like is None or like.cluster != self._cluster:
            return {}
        found = self._world.volumes.find("by-handle", f"{like.driver}/{like.handle}")
        return found[0] if found else {}

    def _refuse_taken(self, volume: Volume) -> None:
        claim = self._world.claims.get(volume.namespace, volume.name)
        if claim is None:
            return
        known = self._world.volumes.get("", path(claim, "spec", "volumeName") or "")
        csi = path(known, "spec", "csi") or {}
        ours = path(claim, "spec", "volumeName") == registered_name(volume)
        if is_deleting(claim) or not (ours or (csi.get("driver"), csi.get("volumeHandle")) == _identity(volume)):
            raise ConflictError(
                f"there is a PersistentVolumeClaim {volume.namespace}/{volume.name} of another volume",
                field="name",
                hint="Choose another name, or delete that claim",
            )

    async def _make(self, resource: names.Resource, namespace: str, body: Object) -> None:
        """Create an object, or find that an earlier try made the same one."""
        name = body["metadata"]["name"]
        known = self._world.caches[resource].get(namespace, name)
        if known is None:
            try:
                await self._writer.create(resource, namespace, body)
                return
            except ConflictError:
                known = self._world.caches[resource].get(namespace, name)
        mark = body["metadata"]["annotations"][names.REGISTERED]
        if known is None or is_deleting(known):
            raise ConflictError(f"{resource.kind} {name} is being deleted; try again when it is gone")
        if (known["metadata"].get("annotations") or {}).get(names.REGISTERED) == mark:
            return
        if resource is names.CLAIMS and path(known, "spec", "volumeName") == path(body, "spec", "volumeName"):
            return
        raise ConflictError(f"there is another {resource.kind} {name}", field="name", hint="Choose another name")

    async def _refuse_used(self, claim: Object) -> None:
        """The pods of the namespace are read now: no cache is kept for what is asked so rarely."""
        own = claim["metadata"]
        if names.CLAIM_FINALIZER in (own.get("finalizers") or ()):
            raise ConflictError(f"a snapshot of {own['namespace']}/{own['name']} is under way", field="volume")
        try:
            async for pod in self._client.list(names.PODS, own["namespace"]):
                if path(pod, "status", "phase") in ("Succeeded", "Failed"):
                    continue
                for source in path(pod, "spec", "volumes") or ():
                    if path(source, "persistentVolumeClaim", "claimName") == own["name"]:
                        user = pod["metadata"]["name"]
                        raise ConflictError(
                            f"the volume {own['namespace']}/{own['name']} is in use by pod {user}",
                            field="volume",
                            hint="Stop the pod first",
                        )
        except ApiError as error:
            raise as_bridge_error(error, "looking for pods that use the volume") from error


def registered_name(volume: Volume) -> str:
    """The name of the PersistentVolume that `register` makes: the same for the same claim and handle."""
    text = "\0".join((volume.namespace, volume.name, volume.driver, volume.handle))
    return f"snapbridge-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _identity(volume: Volume) -> tuple[str, str]:
    return volume.driver, volume.handle


def _mark(volume: Volume) -> dict[str, str]:
    return {names.REGISTERED: f"{volume.namespace}/{volume.name} {registered_name(volume)}"}


def _new_volume(volume: Volume, pattern: Object) -> Object:
    if not volume.capacity_bytes or volume.capacity_bytes < 0:
        raise InvalidError(f"the volume {volume.name} has no capacity", field="capacity_bytes")
    old = pattern.get("spec") or {}
    csi: Object = {"driver": volume.driver, "volumeHandle": volume.handle}
    csi |= {field: old["csi"][field] for field in _CARRIED_CSI if (old.get("csi") or {}).get(field)}
    if volume.mode is VolumeMode.FILESYSTEM:
        csi["fsType"] = volume.fs_type or path(old, "csi", "fsType") or ""
    if volume.context:
        csi["volumeAttributes"] = dict(volume.context)
    spec: Object = {
        "capacity": {"storage": status.quantity(volume.capacity_bytes)},
        "accessModes": _access_words(volume, old),
        "volumeMode": volume.mode.value,
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {
            "apiVersion": "v1",
            "kind": names.CLAIMS.kind,
            "namespace": volume.namespace,
            "name": volume.name,
        },
        "csi": csi,
        **{field: old[field] for field in _CARRIED if old.get(field)},
    }
    metadata = {"name": registered_name(volume), "annotations": _mark(volume)}
    return {"apiVersion": "v1", "kind": names.VOLUMES.kind, "metadata": metadata, "spec": spec}


def _new_claim(volume: Volume, body: Object) -> Object:
    spec = body["spec"]
    return {
        "apiVersion": "v1",
        "kind": names.CLAIMS.kind,
        "metadata": {"name": volume.name, "namespace": volume.namespace, "annotations": _mark(volume)},
        "spec": {
            "accessModes": spec["accessModes"],
            "volumeMode": spec["volumeMode"],
            "storageClassName": spec.get("storageClassName", ""),
            "volumeName": body["metadata"]["name"],
            "resources": {"requests": {"storage": spec["capacity"]["storage"]}},
        },
    }


def _access_words(volume: Volume, old: Object) -> Sequence[str]:
    words = [_WORDS[mode] for mode in volume.access_modes]
    kept = [word for word in old.get("accessModes") or () if _MODES.get(word) in volume.access_modes]
    return kept or list(dict.fromkeys(words)) or ["ReadWriteOnce"]
