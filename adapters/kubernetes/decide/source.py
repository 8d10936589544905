"""Where a claim's data comes from: which object, whether it may be used, and the plugin's handle of it. Pure.

The checks and their texts are upstream's, in upstream's order: people search for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, assert_never

from adapters.kubernetes import names
from adapters.kubernetes.decide import amounts
from adapters.kubernetes.decide.verdict import Ignored, Refusal, State
from adapters.kubernetes.facts import path, points_back
from bridge.model.snapshot import HandleSource, VolumeSource

Object = dict[str, Any]
Handle = HandleSource | VolumeSource

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclasses.dataclass(frozen=True, slots=True)
class FromSnapshot:
    """A VolumeSnapshot."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class FromClaim:
    """A PersistentVolumeClaim that is to be cloned."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Origin = FromSnapshot | FromClaim


def origin(
    claim: Object, *, across_namespaces: bool, grants: Iterable[Object] = ()
) -> Origin | Refusal | Ignored | None:
    """The object that the claim names as its source; None when it names none.

    `grants` are the ReferenceGrants of the source's namespace.
    """
    metadata, spec = claim["metadata"], claim["spec"]
    own = metadata["namespace"]
    source = spec.get("dataSource")
    namespace = own
    if not source:
        source = spec.get("dataSourceRef")
        if not source:
            return None
        if source.get("namespace") and not across_namespaces:
            return Refusal(
                "dataSourceRef namespace specified but the CrossNamespaceVolumeDataSource feature is disabled"
            )
        namespace = source.get("namespace") or own
    if namespace != own and not is_granted(claim, grants):
        return Refusal(
            f"accessing {namespace}/{source.get('name')} of {source.get('kind')} dataSource from "
            f"{own}/{metadata['name']} isn't allowed"
        )
    name, kind = source.get("name") or "", source.get("kind") or ""
    if not name:
        return Refusal(f"the PVC source not found for PVC {metadata['name']}")
    if kind == names.SNAPSHOTS.kind:
        group = source.get("apiGroup") or ""
        if group != names.GROUP:
            return Refusal(
                f"the PVC source does not belong to the right APIGroup. Expected {names.GROUP}, Got {group}"
            )
        return FromSnapshot(namespace, name)
    if kind == names.CLAIMS.kind:
        return FromClaim(namespace, name)
    return Ignored("Assuming an external populator will provision the volume")


def named(claim: Object) -> Origin | None:
    """The object that the claim names, whether it may or not: for those who look which claims a source has."""
    found = origin({**claim, "spec": _without_grants(claim)}, across_namespaces=True)
    if not isinstance(found, FromSnapshot | FromClaim):
        return None
    reference = {} if path(claim, "spec", "dataSource") else path(claim, "spec", "dataSourceRef") or {}
    return dataclasses.replace(found, namespace=reference.get("namespace") or found.namespace)


def _without_grants(claim: Object) -> Object:
    spec = claim["spec"]
    reference = {key: value for key, value in (spec.get("dataSourceRef") or {}).items() if key != "namespace"}
    return {**spec, "dataSourceRef": reference}


def is_granted(claim: Object, grants: Iterable[Object]) -> bool:
    """Whether a ReferenceGrant in the source's namespace lets this claim's namespace use this source."""
    reference = claim["spec"].get("dataSourceRef") or {}
    own = claim["metadata"]["namespace"]
    for grant in grants:
        spec = grant.get("spec") or {}
        giver = (
            not row.get("group") and row.get("kind") == names.CLAIMS.kind and row.get("namespace") == own
            for row in spec.get("from") or ()
        )
        if any(giver) and any(_covers(row, reference) for row in spec.get("to") or ()):
            return True
    return False


def _covers(row: Object, reference: Object) -> bool:
    if (row.get("group") or "") != (reference.get("apiGroup") or "") or row.get("kind") != reference.get("kind"):
        return False
    return row.get("name") in (None, "", reference.get("name"))


def bound_content(snapshot: Object | None, name: str) -> str | Refusal:
    """The name of the content to look at next."""
    if snapshot is None:
        group = names.GROUP
        return _refuse(f'error getting snapshot {name} from api server: volumesnapshots.{group} "{name}" not found')
    metadata = snapshot["metadata"]
    if metadata.get("deletionTimestamp") and names.RESTORE_FINALIZER not in (metadata.get("finalizers") or ()):
        return _refuse(f"snapshot {name} is being deleted")
    found = path(snapshot, "status", "boundVolumeSnapshotContentName")
    return found if found and isinstance(found, str) else _refuse(f"snapshot {name} not bound")


def check_snapshot(
    claim: Object, klass: Object, snapshot: Object, content: Object | None, *, guard_mode: bool
) -> HandleSource | Refusal:
    """The snapshot's handle, when the claim may be filled from it. `snapshot` has passed `bound_content`."""
    name = snapshot["metadata"]["name"]
    content_name = path(snapshot, "status", "boundVolumeSnapshotContentName")
    if content is None:
        return _refuse(f"error getting snapshotcontent {content_name} for snapshot {name}")
    if not path(content, "spec", "volumeSnapshotRef", "uid") or not points_back(content, snapshot):
        return _refuse(f"snapshotcontent {content_name} for snapshot {name} is bound to a different snapshot")
    if path(content, "spec", "driver") != klass["provisioner"]:
        return _refuse(
            f"snapshotcontent {content_name} for snapshot {name} is not handled by CSI driver of StorageClass "
            f"{klass['metadata']['name']}"
        )
    if path(snapshot, "status", "readyToUse") is not True:
        return _refuse(f"snapshot {name} is not Ready")
    handle = path(content, "status", "snapshotHandle")
    if not handle or not isinstance(handle, str):
        return _refuse(f"snapshot handle {name} is not available")
    return _small(claim, snapshot) or (_other_mode(claim, content) if guard_mode else None) or HandleSource(handle)


def _small(claim: Object, snapshot: Object) -> Refusal | None:
    restore_size = path(snapshot, "status", "restoreSize")
    if restore_size is None:
        return None
    name = snapshot["metadata"]["name"]
    requested = path(claim, "spec", "resources", "requests", "storage")
    if requested is None:
        return _refuse(f"error getting capacity for PVC {claim['metadata']['name']} when creating snapshot {name}")
    try:
        needed = amounts.parse_bytes(restore_size)
    except ValueError as error:
        return _refuse(f"snapshot {name} is malformed: status.restoreSize: {error}")
    wanted = amounts.parse_bytes(requested)
    if wanted < needed:
        return _refuse(
            f"requested volume size {wanted} is less than the size {needed} for the source snapshot {name}"
        )
    return None


def _other_mode(claim: Object, content: Object) -> Refusal | None:
    before, wanted = path(content, "spec", "sourceVolumeMode"), path(claim, "spec", "volumeMode")
    if not before or not wanted or before == wanted:
        return None
    metadata = claim["metadata"]
    why = (
        f"requested volume {metadata['namespace']}/{metadata['name']} modifies the mode of the source volume "
        "but does not have permission to do so. "
    )
    note = (content["metadata"].get("annotations") or {}).get(names.ALLOW_MODE_CHANGE)
    place = f"snapshotcontent {content['metadata']['name']}"
    if note is None:
        return _refuse(f"{why}{names.ALLOW_MODE_CHANGE} annotation is not present on {place}")
    if note in _TRUE:
        return None
    if note in _FALSE:
        return _refuse(f"{why}{names.ALLOW_MODE_CHANGE} is set to false on {place}")
    return _refuse(
        f"{why}failed to convert {names.ALLOW_MODE_CHANGE} annotation value to boolean with error: "
        f'strconv.ParseBool: parsing "{note}": invalid syntax'
    )


_UNUSABLE = "claim in dataSource not bound or invalid"


def check_claim(
    claim: Object, klass: Object, where: FromClaim, source: Object | None, volume: Object | None
) -> VolumeSource | Refusal:
    """The source volume's handle, when the claim may be a clone of it. `volume` is the source's own."""
    name = where.name
    if source is None:
        return _refuse(
            f'error getting PVC {name} (namespace "{claim["metadata"]["namespace"]}") from api server: '
            f'persistentvolumeclaims "{name}" not found'
        )
    phase = path(source, "status", "phase")
    if phase != "Bound":
        return _refuse(f"the PVC DataSource {name} must have a status of Bound.  Got {phase}")
    if source["metadata"].get("deletionTimestamp"):
        return _refuse(f"the PVC DataSource {name} is currently being deleted")
    for which, item in (("source", source), ("requested", claim)):
        if class_name(item) is None:
            return _refuse(f"the {which} PVC ({item['metadata']['name']}) storageclass cannot be empty")
    wanted, needed = (
        amounts.parse_bytes(path(item, "spec", "resources", "requests", "storage") or 0) for item in (claim, source)
    )
    if wanted < needed:
        return _refuse(
            "error, new PVC request must be greater than or equal in size to the specified PVC data source, "
            f"requested {wanted} but source is {needed}"
        )
    if not path(source, "spec", "volumeName"):
        return _refuse(f"volume name is empty in source PVC {name}")
    if (
        volume is None
        or not _is_bound_pair(source, volume)
        or path(volume, "spec", "csi", "driver") != klass["provisioner"]
    ):
        return _refuse(_UNUSABLE)
    before, after = (str(path(item, "spec", "volumeMode") or "Filesystem") for item in (volume, claim))
    if before != after:
        return _refuse(
            "the source PVC and destination PVCs must have the same volume mode for cloning.  "
            f"Source is {before}, but new PVC requested {after}"
        )
    return VolumeSource(path(volume, "spec", "csi", "volumeHandle"))


def class_name(claim: Object) -> str | None:
    """The class that a claim names; None when it names none (an empty text is a class name of its own)."""
    noted: str | None = (claim["metadata"].get("annotations") or {}).get(names.CLASS_BETA)
    spec: str | None = claim["spec"].get("storageClassName")
    return noted if noted is not None else spec


def _is_bound_pair(claim: Object, volume: Object) -> bool:
    reference = path(volume, "spec", "claimRef") or {}
    metadata = claim["metadata"]
    wanted = {"uid": metadata["uid"], "namespace": metadata["namespace"], "name": metadata["name"]}
    same = all(reference.get(field) == value for field, value in wanted.items())
    return same and path(volume, "status", "phase") == "Bound"


def lenient_handle(
    where: Origin, snapshot: Object | None, content: Object | None, volume: Object | None
) -> Handle | None:
    """The source's handle for a repeat whose only purpose is to find what is to be deleted; None when it is lost."""
    match where:
        case FromSnapshot():
            if snapshot is None or content is None or not points_back(content, snapshot):
                return None
            handle = path(content, "status", "snapshotHandle")
            return HandleSource(handle) if handle else None
        case FromClaim():
            handle = path(volume, "spec", "csi", "volumeHandle")
            return VolumeSource(handle) if handle else None
        case _:
            assert_never(where)


def _refuse(message: str) -> Refusal:
    return Refusal(message, State.NO_CHANGE)


def in_words(where: Origin, why: Refusal) -> Refusal:
    """The refusal as upstream puts it in an event."""
    kind = names.SNAPSHOTS.kind if isinstance(where, FromSnapshot) else names.CLAIMS.kind
    text = f"error getting handle for DataSource Type {kind} by Name {where.name}: {why.message}"
    return dataclasses.replace(why, message=text)
