"""The PersistentVolume of a volume that was made, and when one is to be deleted. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.decide import class_parameters, topology
from adapters.kubernetes.decide.provision import Options, Outline
from adapters.kubernetes.decide.source import class_name
from adapters.kubernetes.facts import path
from adapters.kubernetes.status import quantity
from bridge.model.volume import AccessMode, MadeVolume, VolumeMode

Object = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A volume, and what it was made for."""

    claim: Object
    klass: Object
    outline: Outline
    volume: MadeVolume
    identity: str
    """Which process made it; the driver sees it in the volume's attributes."""


def build(made: Made, options: Options) -> Object:
    """The object to write. A capacity that the driver does not know is the one that was asked."""
    outline, klass = made.outline, made.klass
    metadata = made.claim["metadata"]
    deletion = outline.secrets.get("provisioner")
    notes = {
        names.PROVISIONED_BY: klass["provisioner"],
        names.VOLUME_DELETION_SECRET_NAME: deletion.name if deletion else "",
        names.VOLUME_DELETION_SECRET_NAMESPACE: deletion.namespace if deletion else "",
    }
    modify = outline.secrets.get("modify")
    if modify is not None:
        notes[names.VOLUME_MODIFY_SECRET_NAME] = modify.name
        notes[names.VOLUME_MODIFY_SECRET_NAMESPACE] = modify.namespace
    spec: Object = {
        "accessModes": list(made.claim["spec"].get("accessModes") or ()),
        "capacity": {"storage": quantity(made.volume.capacity_bytes or outline.required_bytes)},
        "claimRef": {
            "apiVersion": names.CLAIMS.api_version,
            "kind": names.CLAIMS.kind,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "csi": _csi(made, options),
        "storageClassName": class_name(made.claim) or "",
    }
    optional = {
        "mountOptions": list(klass.get("mountOptions") or ()),
        "persistentVolumeReclaimPolicy": klass.get("reclaimPolicy"),
        "volumeMode": made.claim["spec"].get("volumeMode"),
        "nodeAffinity": topology.affinity(made.volume.accessible),
        "volumeAttributesClassName": outline.attributes_class,
    }
    spec |= {field: value for field, value in optional.items() if value}
    return {
        "apiVersion": names.VOLUMES.api_version,
        "kind": names.VOLUMES.kind,
        "metadata": {"name": outline.name, "annotations": notes, "finalizers": [names.VOLUME_FINALIZER]},
        "spec": spec,
    }


def _csi(made: Made, options: Options) -> Object:
    outline = made.outline
    found: Object = {
        "driver": options.driver,
        "volumeHandle": made.volume.handle,
        "volumeAttributes": {**made.volume.context, names.PROVISIONER_IDENTITY: made.identity},
    }
    if options.publish_readonly and outline.access_modes == (AccessMode.MULTI_NODE_READER_ONLY,):
        found["readOnly"] = True
    if outline.mode is not VolumeMode.BLOCK and outline.fs_type:
        found["fsType"] = outline.fs_type
    for field in class_parameters.IN_VOLUME:
        reference = outline.secrets.get(field)
        if reference is not None:
            found[field] = {"name": reference.name, "namespace": reference.namespace}
    return found


# -- what becomes of it later -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is to be done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """Write these finalizers."""

    finalizers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Delete:
    """Delete the volume at the plugin, then the object."""

    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class Blocked:
    """It is to be deleted and cannot be now."""

    message: str


def reclaim(
    volume: Object, driver: str, *, attached_to: Iterable[str] = (), sharing: Iterable[str] = ()
) -> Leave | Guard | Delete | Blocked:
    """What one PersistentVolume needs. `attached_to` are the nodes that have it attached, `sharing` the other
    PersistentVolumes of the same handle that are to stay."""
    if not is_ours(volume, driver):
        return Leave()
    metadata, spec = volume["metadata"], volume["spec"]
    finalizers = tuple(metadata.get("finalizers") or ())
    policy, phase = spec.get("persistentVolumeReclaimPolicy"), path(volume, "status", "phase")
    deleting = bool(metadata.get("deletionTimestamp"))
    guarded = names.VOLUME_FINALIZER in finalizers
    if policy in ("Retain", "Recycle"):
        return Guard(tuple(one for one in finalizers if one != names.VOLUME_FINALIZER)) if guarded else Leave()
    if policy != "Delete" or phase != "Released":
        missing = policy == "Delete" and phase == "Bound" and not deleting and not guarded
        return Guard((*finalizers, names.VOLUME_FINALIZER)) if missing else Leave()
    if deleting and not guarded:
        return Leave()
    handle = path(spec, "csi", "volumeHandle")
    if not handle:
        return Blocked("invalid CSI PV")
    name = metadata["name"]
    for other in sorted(sharing):
        return Blocked(f"persistentvolume {name} has the volume of persistentvolume {other}, which is to stay")
    for node in sorted(attached_to):
        return Blocked(f"persistentvolume {name} is still attached to node {node}")
    return Delete(str(handle))


def goes(volume: Object) -> bool:
    """Whether the volume is to be deleted with this object."""
    policy = path(volume, "spec", "persistentVolumeReclaimPolicy")
    return (path(volume, "status", "phase"), policy) == ("Released", "Delete")


def is_ours(volume: Object, driver: str) -> bool:
    """Whether this driver's provisioner takes care of a PersistentVolume: it was made by it, or is one of its own."""
    notes: Mapping[str, str] = volume["metadata"].get("annotations") or {}
    if path(volume, "spec", "csi", "driver") != driver:
        return False
    return driver in (notes.get(names.PROVISIONED_BY, driver), notes.get(names.MIGRATED_TO))


def deletion_secret(volume: Object, klass: Object | None) -> class_parameters.Reference | None:
    """The secret that DeleteVolume gets. TemplateError when the class's templates are wrong."""
    notes: Mapping[str, str] = volume["metadata"].get("annotations") or {}
    keys = (names.VOLUME_DELETION_SECRET_NAME, names.VOLUME_DELETION_SECRET_NAMESPACE)
    if all(key in notes for key in keys):
        name, namespace = (notes[key] for key in keys)
        return class_parameters.Reference(namespace, name) if name and namespace else None
    reference = path(volume, "spec", "claimRef")
    if klass is None or not reference:
        return None
    claim = {"metadata": {"name": reference["name"], "namespace": reference["namespace"]}}
    given = klass.get("parameters") or {}
    return class_parameters.deletion_secret(given, volume=volume["metadata"]["name"], claim=claim)
