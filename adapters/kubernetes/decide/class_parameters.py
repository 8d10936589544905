"""A StorageClass's parameters: what goes to the driver, which file system, and the secrets it names. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from adapters.kubernetes import names, templates
from adapters.kubernetes.decide.verdict import Refusal, State

Object = dict[str, Any]

FS_TYPE = f"{names.PARAMETER_PREFIX}fstype"
PVC_NAME = f"{names.PARAMETER_PREFIX}pvc/name"
PVC_NAMESPACE = f"{names.PARAMETER_PREFIX}pvc/namespace"
PV_NAME = f"{names.PARAMETER_PREFIX}pv/name"


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """One secret: its keys begin with `prefix`; `old` are upstream's outdated keys for its name and namespace."""

    name: str
    prefix: str
    old: str = ""


_DEFAULT = _Kind("Default", "secret")
_KINDS = {
    "provisioner": _Kind("Provisioner", "provisioner-secret", "csiProvisionerSecret"),
    "controllerPublishSecretRef": _Kind(
        "ControllerPublish", "controller-publish-secret", "csiControllerPublishSecret"
    ),
    "nodeStageSecretRef": _Kind("NodeStage", "node-stage-secret", "csiNodeStageSecret"),
    "nodePublishSecretRef": _Kind("NodePublish", "node-publish-secret", "csiNodePublishSecret"),
    "controllerExpandSecretRef": _Kind("ControllerExpand", "controller-expand-secret"),
    "nodeExpandSecretRef": _Kind("NodeExpand", "node-expand-secret"),
    "modify": _Kind("ControllerModify", "controller-modify-secret"),
}
IN_VOLUME = tuple(key for key in _KINDS if key.endswith("SecretRef"))
"""The secrets that a PersistentVolume refers to."""
_KNOWN = frozenset(
    {FS_TYPE}
    | {
        f"{names.PARAMETER_PREFIX}{kind.prefix}-{half}"
        for kind in (_DEFAULT, *_KINDS.values())
        for half in ("name", "namespace")
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """Where a Secret is."""

    namespace: str
    name: str


def fs_type(parameters: Mapping[str, str], default: str) -> str | Refusal:
    """The file system that the class asks for, or the role's default."""
    found = [value for key, value in parameters.items() if key.lower() == "fstype" or key == FS_TYPE]
    if len(found) > 1:
        return Refusal(f'fstype specified in parameters with both "fstype" and "{FS_TYPE}" keys')
    return (found[0] if found else "") or default


def for_driver(parameters: Mapping[str, str]) -> dict[str, str] | Refusal:
    """What the driver gets: everything but the keys of our prefix, which must be known ones."""
    kept = {}
    for key, value in parameters.items():
        if not key.startswith(names.PARAMETER_PREFIX):
            kept[key] = value
        elif key not in _KNOWN:
            return Refusal(
                "failed to strip CSI Parameters of prefixed keys: found unknown parameter key "
                f'"{key}" with reserved namespace {names.PARAMETER_PREFIX}'
            )
    return kept


def secrets(parameters: Mapping[str, str], *, volume: str, claim: Object) -> dict[str, Reference] | Refusal:
    """The secrets by purpose: `provisioner`, `modify`, and the fields of a PersistentVolume in IN_VOLUME."""
    found = {}
    try:
        for purpose, kind in _KINDS.items():
            reference = _reference(kind, parameters, volume, claim)
            if reference is not None:
                found[purpose] = reference
    except templates.TemplateError as error:
        return Refusal(str(error), State.NO_CHANGE)
    return found


def deletion_secret(parameters: Mapping[str, str], *, volume: str, claim: Object) -> Reference | None:
    """The provisioner secret alone, for a volume that does not name it. TemplateError as it is put."""
    return _reference(_KINDS["provisioner"], parameters, volume, claim)


def _reference(kind: _Kind, parameters: Mapping[str, str], volume: str, claim: Object) -> Reference | None:
    pair = _pair(kind, parameters, "failed to get name and namespace template from params") or _pair(
        _DEFAULT, parameters, "failed to get default name and namespace template from params"
    )
    if pair is None:
        return None
    name, namespace = pair
    metadata = claim["metadata"]
    place = {"pv.name": volume, "pvc.namespace": metadata["namespace"]}
    person = {
        **place,
        "pvc.name": metadata["name"],
        **{f"pvc.annotations['{key}']": value for key, value in (metadata.get("annotations") or {}).items()},
    }
    return Reference(templates.namespace_of(namespace, place), templates.secret_name_of(name, person))


def _pair(kind: _Kind, parameters: Mapping[str, str], what: str) -> tuple[str, str] | None:
    halves = []
    for half, old in (("name", "Name"), ("namespace", "Namespace")):
        keys = [f"{names.PARAMETER_PREFIX}{kind.prefix}-{half}", *([f"{kind.old}{old}"] if kind.old else [])]
        given = [parameters[key] for key in keys if key in parameters]
        if len(given) > 1:
            raise templates.TemplateError(
                f'{what}: {kind.name} secrets specified in parameters with both "csi" and '
                f'"{names.PARAMETER_PREFIX}" keys'
            )
        halves.append(given[0] if given else None)
    name, namespace = halves
    if name is None and namespace is None:
        return None
    if name is None or namespace is None:
        raise templates.TemplateError(
            f"{what}: either name and namespace for {kind.name} secrets specified, Both must be specified"
        )
    if not name or not namespace:
        raise templates.TemplateError(
            f"{what}: {kind.name} secrets specified in parameters but value of either namespace or name is empty"
        )
    return name, namespace
