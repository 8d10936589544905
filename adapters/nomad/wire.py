"""Nomad's volumes, snapshots and plugins as the model's values, and back. Pure translation; no call is made here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from bridge.model.plugin import Capability
from bridge.model.secret import SecretRef
from bridge.model.snapshot import CutSnapshot, HandleSource, VolumeSource
from bridge.model.volume import AccessMode, NewVolume, Volume, VolumeMode

Row = Mapping[str, Any]

REDACTED = "[REDACTED]"
MADE_PREFIX = "snapbridge-new-"
"""Ids of volumes that Nomad's API made for us and that have no name yet. `register` moves them to their name."""

_FLAGS = {
    "SupportsCreateDelete": Capability.CREATE_DELETE_VOLUME,
    "SupportsAttachDetach": Capability.PUBLISH_UNPUBLISH_VOLUME,
    "SupportsListVolumes": Capability.LIST_VOLUMES,
    "SupportsGetCapacity": Capability.GET_CAPACITY,
    "SupportsCreateDeleteSnapshot": Capability.CREATE_DELETE_SNAPSHOT,
    "SupportsListSnapshots": Capability.LIST_SNAPSHOTS,
    "SupportsClone": Capability.CLONE_VOLUME,
    "SupportsExpand": Capability.EXPAND_VOLUME,
    "SupportsGet": Capability.GET_VOLUME,
}
_ATTACHMENT = {VolumeMode.FILESYSTEM: "file-system", VolumeMode.BLOCK: "block-device"}


def unreachable_id(volume_id: str) -> str:
    """Why Nomad's own API cannot reach a volume of this id; empty when it can (nomad-verified.md C)."""
    if not volume_id:
        return "the volume's id is empty"
    if "/" in volume_id:
        return f"Nomad's API cannot reach a volume whose id has a slash ({volume_id!r})"
    if volume_id in (".", ".."):
        return f"Nomad's API cannot reach a volume with the id {volume_id!r}"
    return ""


def volume_handle(row: Row) -> str:
    """The CSI volume_id. Nomad takes its own id where no external id was given."""
    return str(row.get("ExternalID") or row.get("ID") or "")


def volume(cluster: str, row: Row, secret: SecretRef) -> Volume:
    """A volume from Nomad's description; from a list's row, what that row holds."""
    capabilities = row.get("RequestedCapabilities") or [
        {"AccessMode": row.get("AccessMode"), "AttachmentMode": row.get("AttachmentMode")}
    ]
    modes = tuple(dict.fromkeys(_access_mode(str(c.get("AccessMode") or "")) for c in capabilities))
    block = bool(capabilities) and all(c.get("AttachmentMode") == "block-device" for c in capabilities)
    return Volume(
        cluster=cluster,
        namespace=str(row.get("Namespace") or "default"),
        name=str(row["ID"]),
        driver=str(row.get("Provider") or ""),
        handle=volume_handle(row),
        capacity_bytes=int(row.get("Capacity") or row.get("RequestedCapacityMin") or 0) or None,
        mode=VolumeMode.BLOCK if block else VolumeMode.FILESYSTEM,
        access_modes=modes,
        fs_type=str((row.get("MountOptions") or {}).get("FSType") or ""),
        parameters=_strings(row.get("Parameters")),
        context=_strings(row.get("Context")),
        secret=secret,
        users=users(row),
        user_labels=user_labels(row),
        accessible=topologies(row),
    )


def topologies(row: Row) -> tuple[Mapping[str, str], ...]:
    """Where it can be used. Nomad puts nulls before the real ones."""
    places = (place.get("Segments") for place in row.get("Topologies") or () if place)
    return tuple(_strings(segments) for segments in places if segments)


def user_labels(row: Row) -> dict[str, tuple[str, ...]]:
    """The claims in Nomad's words: job, group, allocation, node. A claim in no list has its allocation only."""
    claims = {*(row.get("WriteAllocs") or ()), *(row.get("ReadAllocs") or ())}
    stubs = [a for a in row.get("Allocations") or () if a.get("ID") in claims]
    found = {"allocation": claims} | {
        name: {str(stub.get(field) or "") for stub in stubs}
        for name, field in (("job", "JobID"), ("group", "TaskGroup"), ("node", "NodeName"))
    }
    return {name: tuple(sorted(values - {""})) for name, values in found.items() if values - {""}}


def users(row: Row) -> tuple[str, ...]:
    """Who claims it: the writers, then the readers. A list's row gives counts only."""
    names = {a["ID"]: f"{a.get('JobID')}/{a.get('TaskGroup')}" for a in row.get("Allocations") or () if a.get("ID")}
    found: list[str] = []
    for field, word in (("WriteAllocs", "writes"), ("ReadAllocs", "reads")):
        for claim in sorted(row.get(field) or ()):
            found.append(f"allocation {claim} ({names.get(claim, 'in no list: a stuck claim?')}) {word}")
    if not found:
        for field, word in (("CurrentWriters", "write"), ("CurrentReaders", "read")):
            if row.get(field):
                found.append(f"{row[field]} allocations {word}")
    return tuple(found)


def capabilities(plugin: Row) -> frozenset[Capability]:
    """What the healthy controllers of a plugin can do; empty when there is none."""
    found: set[Capability] = set()
    for info in healthy_controllers(plugin).values():
        flags = info.get("ControllerInfo") or {}
        found |= {capability for flag, capability in _FLAGS.items() if flags.get(flag)}
        found.add(Capability.CONTROLLER_SERVICE)
    return frozenset(found)


def healthy_controllers(plugin: Row) -> dict[str, Row]:
    """Controllers by node id."""
    return {node: info for node, info in (plugin.get("Controllers") or {}).items() if info and info.get("Healthy")}


def controller_allocations(plugin: Row) -> tuple[str, ...]:
    """The allocations that hold a controller, healthy or not."""
    ids = {str(info.get("AllocID") or "") for info in (plugin.get("Controllers") or {}).values() if info}
    return tuple(sorted(ids - {""}))


def snapshot(row: Row) -> CutSnapshot:
    """One snapshot of an answer. Nomad gives whole seconds; zero means that the plugin did not say."""
    seconds = int(row.get("CreateTime") or 0)
    return CutSnapshot(
        handle=str(row.get("ID") or ""),
        source_handle=str(row.get("ExternalSourceVolumeID") or ""),
        ready=bool(row.get("IsReady")),
        size_bytes=int(row.get("SizeBytes") or 0) or None,
        cut_at_ns=seconds * 1_000_000_000 if seconds > 0 else None,
    )


def capability_rows(modes: Iterable[AccessMode], mode: VolumeMode) -> list[dict[str, str]]:
    """RequestedCapabilities for these access modes."""
    rows = [{"AccessMode": m.value.lower().replace("_", "-"), "AttachmentMode": _ATTACHMENT[mode]} for m in modes]
    return rows or [{"AccessMode": "single-node-writer", "AttachmentMode": _ATTACHMENT[mode]}]


def new_volume(new: NewVolume, plugin_id: str, namespace: str, secrets: Mapping[str, str]) -> dict[str, Any]:
    """The body of a create. Its CSI name is ours and fresh: Nomad's drivers take a known name for a repeat."""
    row: dict[str, Any] = {
        "ID": made_id(new.name),
        "Name": new.name,
        "Namespace": namespace,
        "PluginID": plugin_id,
        "RequestedCapacityMin": new.required_bytes,
        "RequestedCapacityMax": new.limit_bytes,
        "RequestedCapabilities": capability_rows(new.access_modes, new.mode),
        "Parameters": dict(new.parameters),
        "Secrets": dict(secrets),
    }
    if new.fs_type or new.mount_flags:
        row["MountOptions"] = {"FSType": new.fs_type}
    if new.mount_flags:
        row["MountOptions"]["MountFlags"] = list(new.mount_flags)
    wanted = {"Required": new.requisite, "Preferred": new.preferred}
    if any(wanted.values()):
        row["RequestedTopologies"] = {word: places(segments) for word, segments in wanted.items() if segments}
    match new.content:
        case HandleSource(handle):
            row["SnapshotID"] = handle
        case VolumeSource(handle):
            row["CloneID"] = handle
        case None:
            pass
    return row


def places(segments: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Places in Nomad's form."""
    return [{"Segments": dict(place)} for place in segments]


def to_delete(
    volume_id: str, namespace: str, plugin_id: str, handle: str, secrets: Mapping[str, str]
) -> dict[str, Any]:
    """The registration of a volume that is only to be deleted."""
    return {
        "ID": volume_id,
        "Name": volume_id,
        "Namespace": namespace,
        "PluginID": plugin_id,
        "ExternalID": handle,
        "RequestedCapabilities": capability_rows((), VolumeMode.FILESYSTEM),
        "Secrets": dict(secrets),
    }


def short(handle: str) -> str:
    """A handle as a short word that any id may hold."""
    return hashlib.sha256(handle.encode()).hexdigest()[:8]


def made_id(name: str) -> str:
    """The id under which a volume is registered while it is being made."""
    return MADE_PREFIX + name


def fresh_name(volume_id: str, handle: str) -> str:
    """The `Name` of a registration: no other handle's, so that a later create under it meets no old data."""
    return f"{volume_id}-{short(handle)}"


def secrets_header(secrets: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The header that list and delete take their secrets from, and why it cannot be made (no value is shown).

    Nomad splits it on commas, so nothing in it may hold one.
    """
    for key, value in secrets.items():
        if "," in key or "," in value or "=" in key or not key:
            return {}, f"the secret's key {key!r} or its value has a comma, which Nomad's API cannot carry"
        if any(ord(character) < 32 or ord(character) == 127 for character in key + value):
            return {}, f"the value of the secret's key {key!r} has a line break, which an HTTP header cannot carry"
    if not secrets:
        return {}, ""
    return {"X-Nomad-CSI-Secrets": ",".join(f"{key}={value}" for key, value in secrets.items())}, ""


def _access_mode(text: str) -> AccessMode:
    try:
        return AccessMode(text.upper().replace("-", "_"))
    except ValueError:
        return AccessMode.SINGLE_NODE_WRITER


def _strings(value: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in (value or {}).items()}
