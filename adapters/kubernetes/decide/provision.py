"""What one claim needs next from whoever provisions for its driver. Pure: no clock, no IO.

The life of a volume's making:

    nothing -> noted (our finalizer on the claim) -> CreateVolume, repeated -> PersistentVolume -> note taken off

While the note is on the claim a volume may exist at the plugin that no PersistentVolume tells of. A claim that is
deleted meanwhile stays until the volume is found (by the same CreateVolume) and deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.decide import amounts, class_parameters
from adapters.kubernetes.decide.source import FromClaim, FromSnapshot, Origin, class_name
from adapters.kubernetes.decide.verdict import Refusal
from adapters.kubernetes.facts import is_deleting, path
from bridge.model.plugin import Capability
from bridge.model.volume import AccessMode, VolumeMode

Object = dict[str, Any]

LATE = "WaitForFirstConsumer"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The role's flags that shape volumes."""

    driver: str
    prefix: str = "pvc"
    uuid_length: int = -1
    default_fs_type: str = ""
    extra_metadata: bool = False
    across_namespaces: bool = False
    guard_mode: bool = True
    publish_readonly: bool = False
    attributes_classes: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """One claim's surroundings, as the caches had them at one instant."""

    claim: Object
    klass: Object | None = None
    volume: Object | None = None
    """The PersistentVolume of the name that this claim's would have."""
    settled: bool = False
    """Every CreateVolume under the claim's note was answered, and the last answer left nothing behind."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done until something changes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refuse:
    """It cannot be made as things are; looked at again after a pause. `told`: the claim's owner must know."""

    message: str
    told: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Make:
    """Work out the request, note it, call the plugin, write the PersistentVolume."""

    node: str


@dataclasses.dataclass(frozen=True, slots=True)
class LetGo:
    """Take the note off the claim. `unsettled`: its owner insists though a volume may be left behind."""

    unsettled: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Undo:
    """Nobody wants the volume any more: repeat the call to learn what it made, and delete that."""

    node: str


Step = Rest | Refuse | Make | LetGo | Undo


def decide(seen: Seen, options: Options) -> Step:
    """The one next step."""
    claim = seen.claim
    noted = is_noted(claim)
    if not noted and not is_ours(claim, options.driver):
        return Rest()
    if noted and _is_anothers(claim, seen.klass, options.driver):
        return Rest()
    named = path(claim, "spec", "volumeName") or ""
    name = volume_name(claim["metadata"]["uid"], options)
    if isinstance(name, Refusal):
        return Refuse(name.message)
    if seen.volume is not None:
        return _made(seen, noted, name)
    if named == name:
        return LetGo() if noted else Rest()
    if named or is_deleting(claim):
        return _unwanted(seen, options.driver) if noted else Rest()
    return _wanted(seen, noted, options)


def _made(seen: Seen, noted: bool, name: str) -> Step:
    """A PersistentVolume of the name stands for the volume: it is in charge of its end."""
    claim = seen.claim
    named = path(claim, "spec", "volumeName") or ""
    gone = is_deleting(claim) or named not in ("", name)
    if path(seen.volume, "spec", "claimRef", "uid") != claim["metadata"]["uid"] and not gone:
        return Rest() if named else Refuse(f"the PersistentVolume {name} exists and is another claim's")
    # Not while the controller manager still binds: its writes and this one would only get in each other's way.
    return LetGo() if noted and (gone or path(claim, "status", "phase") == "Bound") else Rest()


def _unwanted(seen: Seen, driver: str) -> Step:
    if seen.settled:
        return LetGo()
    if notes(seen.claim).get(names.ABANDON) == "true":
        return LetGo(unsettled=True)
    if seen.klass is None or seen.klass.get("provisioner") != driver:
        return Refuse(
            f"a volume may have been made, and to find and delete it the StorageClass {class_name(seen.claim)} of "
            f"driver {driver} is needed: create it again, or set the annotation "
            f'{names.ABANDON}="true" to leave the volume behind'
        )
    return Undo(selected_node(seen.claim))


def _wanted(seen: Seen, noted: bool, options: Options) -> Step:
    klass = seen.klass
    if klass is None:
        return Refuse(f'storageclass.storage.k8s.io "{class_name(seen.claim) or ""}" not found', told=False)
    if klass.get("provisioner") != options.driver:
        if not noted or seen.settled:
            return LetGo() if noted else Rest()
        who = f"{class_name(seen.claim)} is now of driver {klass.get('provisioner')}"
        return Refuse(f"a volume may have been made by driver {options.driver}, and the StorageClass {who}")
    node = selected_node(seen.claim)
    if klass.get("volumeBindingMode") == LATE and not node:
        if not noted:
            return Rest()
        return LetGo() if seen.settled else Make("")
    return Make(node)


def is_ours(claim: Object, driver: str) -> bool:
    """Whether the claim's volume is this driver's to make, as the controller manager says."""
    marks = notes(claim)
    wanted = marks.get(names.STORAGE_PROVISIONER, marks.get(names.STORAGE_PROVISIONER_BETA))
    return driver in (wanted, marks.get(names.MIGRATED_TO))


def is_noted(claim: Object) -> bool:
    """Whether a volume for it may be at the plugin."""
    return names.PROVISIONING in (claim["metadata"].get("finalizers") or ())


def _is_anothers(claim: Object, klass: Object | None, driver: str) -> bool:
    """Whether the note on a claim is that of another driver's provisioner. By the note itself; else, as far as known,
    by whom the controller manager or the class names."""
    marks = notes(claim)
    by = marks.get(names.PROVISIONING_BY)
    if by:
        return by != driver
    if names.STORAGE_PROVISIONER in marks or names.STORAGE_PROVISIONER_BETA in marks:
        return not is_ours(claim, driver)
    return klass is not None and klass.get("provisioner") != driver


def with_note(claim: Object, driver: str, places: str) -> Object:
    """The claim with the note: from now on it outlives whatever this driver's plugin may make."""
    kept = without_note(claim)
    metadata = kept["metadata"]
    marks = {names.PROVISIONING_BY: driver, **({names.PLACES: places} if places else {})}
    metadata["finalizers"] = [*metadata["finalizers"], names.PROVISIONING]
    metadata["annotations"] = {**metadata["annotations"], **marks}
    return kept


def without_note(claim: Object) -> Object:
    """The claim without it."""
    metadata = dict(claim["metadata"])
    metadata["finalizers"] = [one for one in metadata.get("finalizers") or () if one != names.PROVISIONING]
    marks, ours = metadata.get("annotations") or {}, (names.PLACES, names.PROVISIONING_BY)
    metadata["annotations"] = {key: value for key, value in marks.items() if key not in ours}
    return {**claim, "metadata": metadata}


def notes(claim: Object) -> Mapping[str, str]:
    """Its annotations."""
    found: Mapping[str, str] = claim["metadata"].get("annotations") or {}
    return found


def selected_node(claim: Object) -> str:
    """The node that the scheduler wants the volume for; empty before it has chosen."""
    return notes(claim).get(names.SELECTED_NODE) or ""


def volume_name(uid: str, options: Options) -> str | Refusal:
    """The name of a claim's volume, at the plugin and in the cluster: the same for every try."""
    if not options.prefix:
        return Refusal("volume name prefix cannot be of length 0")
    if not uid:
        return Refusal("corrupted PVC object, it is missing UID")
    if options.uuid_length == -1:
        return f"{options.prefix}-{uid}"
    return f"{options.prefix}-{uid.replace('-', '')[: options.uuid_length]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Outline:
    """What of a request follows from the claim and its class alone."""

    name: str
    required_bytes: int
    mode: VolumeMode
    access_modes: tuple[AccessMode, ...]
    fs_type: str
    mount_flags: tuple[str, ...]
    parameters: Mapping[str, str]
    secrets: Mapping[str, class_parameters.Reference]
    attributes_class: str = ""


def lacking(origin: Origin | None, attributes_class: str, can: frozenset[Capability]) -> Refusal | None:
    """What the driver would have to be capable of, and is not."""
    dynamic = "CSI driver does not support dynamic provisioning: "
    rows: list[tuple[bool, Capability, str]] = [
        (True, Capability.CONTROLLER_SERVICE, f"{dynamic}plugin"),
        (True, Capability.CREATE_DELETE_VOLUME, f"{dynamic}controller"),
        (
            isinstance(origin, FromSnapshot),
            Capability.CREATE_DELETE_SNAPSHOT,
            "CSI driver does not support snapshot restore: controller",
        ),
        (
            isinstance(origin, FromClaim),
            Capability.CLONE_VOLUME,
            "CSI driver does not support clone operations: controller",
        ),
        (
            bool(attributes_class),
            Capability.MODIFY_VOLUME,
            "CSI driver does not support VolumeAttributesClass: controller",
        ),
    ]
    for needed, capability, words in rows:
        if needed and capability not in can:
            return Refusal(f"{words} {capability.value} capability is not reported")
    return None


def outline(claim: Object, klass: Object, options: Options, can: frozenset[Capability]) -> Outline | Refusal:
    """The request but for its source and its places. What the driver can do has been looked at."""
    metadata, spec = claim["metadata"], claim["spec"]
    if spec.get("selector") is not None:
        return Refusal("claim Selector is not supported")
    name = volume_name(metadata["uid"], options)
    if isinstance(name, Refusal):
        return name
    given: Mapping[str, str] = klass.get("parameters") or {}
    fs_type = class_parameters.fs_type(given, options.default_fs_type)
    if isinstance(fs_type, Refusal):
        return fs_type
    several = Capability.SINGLE_NODE_MULTI_WRITER in can
    modes = [access_mode(mode, several) for mode in spec.get("accessModes") or ()]
    for mode in modes:
        if isinstance(mode, Refusal):
            return mode
    parameters = class_parameters.for_driver(given)
    secrets = class_parameters.secrets(given, volume=name, claim=claim)
    if isinstance(secrets, Refusal):
        return secrets
    if isinstance(parameters, Refusal):
        return parameters
    if options.extra_metadata:
        parameters[class_parameters.PVC_NAME] = metadata["name"]
        parameters[class_parameters.PVC_NAMESPACE] = metadata["namespace"]
        parameters[class_parameters.PV_NAME] = name
    block = spec.get("volumeMode") == VolumeMode.BLOCK.value
    return Outline(
        name=name,
        required_bytes=amounts.parse_bytes(path(spec, "resources", "requests", "storage") or 0),
        mode=VolumeMode.BLOCK if block else VolumeMode.FILESYSTEM,
        access_modes=tuple(mode for mode in modes if isinstance(mode, AccessMode)),
        fs_type=fs_type,
        mount_flags=() if block else tuple(klass.get("mountOptions") or ()),
        parameters=parameters,
        secrets=secrets,
        attributes_class=attributes_class(claim, options),
    )


def attributes_class(claim: Object, options: Options) -> str:
    """The VolumeAttributesClass that the claim names, where the role serves them."""
    return str(claim["spec"].get("volumeAttributesClassName") or "") if options.attributes_classes else ""


def access_mode(mode: str, several_writers: bool) -> AccessMode | Refusal:
    """A claim's access mode in CSI's words. `several_writers`: the driver knows SINGLE_NODE_MULTI_WRITER."""
    writer = AccessMode.SINGLE_NODE_MULTI_WRITER if several_writers else AccessMode.SINGLE_NODE_WRITER
    alone = AccessMode.SINGLE_NODE_SINGLE_WRITER if several_writers else AccessMode.SINGLE_NODE_WRITER
    found = {
        "ReadWriteOnce": writer,
        "ReadWriteOncePod": alone,
        "ReadWriteMany": AccessMode.MULTI_NODE_MULTI_WRITER,
        "ReadOnlyMany": AccessMode.MULTI_NODE_READER_ONLY,
    }.get(mode)
    return found or Refusal(f"unsupported AccessMode combination: [{mode}]")
