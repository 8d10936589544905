"""What the fake agent asks of a CSI driver, and two drivers that live in the test's process.

`HostPathDriver` words its refusals as csi-driver-host-path 1.18 does, `ScriptedDriver` does what a snapshot's name
tells it (`err-ABORTED`, `sleep-2-x`, `notready-1`). A real driver stands behind `csi_driver.SocketDriver`.
They must not know Nomad: the agent gives the words that Nomad adds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.support.nomad.state import new_id

GO_CODES = {
    "CANCELLED": "Canceled", "UNKNOWN": "Unknown", "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded", "NOT_FOUND": "NotFound", "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied", "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition", "ABORTED": "Aborted", "OUT_OF_RANGE": "OutOfRange",
    "UNIMPLEMENTED": "Unimplemented", "INTERNAL": "Internal", "UNAVAILABLE": "Unavailable",
    "DATA_LOSS": "DataLoss", "UNAUTHENTICATED": "Unauthenticated",
}  # fmt: skip


class DriverError(Exception):
    """A gRPC status: `code` in gRPC's upper case, `text` as the driver gave it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"rpc error: code = {GO_CODES[self.code]} desc = {self.text}"


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What Nomad's fingerprint learns. `controller` and `node` hold names as CSIInfo spells them."""

    name: str
    version: str
    controller: frozenset[str] = frozenset()
    node: frozenset[str] = frozenset()
    node_id: str = "n1"
    maximum_volumes: int = 9223372036854775807  # what Nomad shows for a driver that sets no limit
    segments: Mapping[str, str] | None = None
    has_controller: bool = True


@dataclass(frozen=True, slots=True)
class VolumeAsk:
    name: str
    minimum_bytes: int
    maximum_bytes: int
    capabilities: Sequence[Mapping[str, Any]]
    snapshot_id: str = ""
    clone_id: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    topologies: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class VolumeMade:
    id: str
    capacity_bytes: int
    context: Mapping[str, str] = field(default_factory=dict)
    segments: Sequence[Mapping[str, str]] = ()
    snapshot_id: str = ""
    clone_id: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotMade:
    id: str
    source_id: str
    size_bytes: int
    created_seconds: int
    ready: bool


class Driver(Protocol):
    """The CSI calls that Nomad makes (nomad.md 1.4). Each raises DriverError."""

    async def facts(self) -> DriverFacts: ...
    async def create_volume(self, ask: VolumeAsk) -> VolumeMade: ...
    async def delete_volume(self, volume_id: str, secrets: Mapping[str, str]) -> None: ...
    async def validate_volume(self, volume_id: str, ask: VolumeAsk) -> None: ...
    async def list_volumes(self, size: int, token: str) -> tuple[list[VolumeMade], str]: ...
    async def create_snapshot(
        self, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
    ) -> SnapshotMade: ...
    async def delete_snapshot(self, snapshot_id: str, secrets: Mapping[str, str]) -> None: ...
    async def list_snapshots(
        self, size: int, token: str, secrets: Mapping[str, str]
    ) -> tuple[list[SnapshotMade], str]: ...


class HostPathDriver:
    """Keeps volumes and snapshots in memory, with the host-path driver's rules and words."""

    LIMIT_BYTES = 1 << 40

    def __init__(self, name: str = "hostpath.csi.k8s.io", version: str = "v1.18.0") -> None:
        self.name = name
        self.version = version
        self.volumes: dict[str, VolumeMade] = {}
        self.volume_names: dict[str, str] = {}
        self.snapshots: dict[str, SnapshotMade] = {}
        self.snapshot_names: dict[str, str] = {}
        self.next_number = 0x10000000
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def _id(self) -> str:
        """Ids in the order of their making; the real driver's lists are sorted by id."""
        self.next_number += 1
        return f"{self.next_number:08x}{new_id()[8:]}"

    async def facts(self) -> DriverFacts:
        controller = {"Clone", "Condition", "CreateDelete", "CreateDeleteSnapshot", "Expand", "Get", "GetCapacity",
                      "ListSnapshots", "ListVolumes"}  # fmt: skip
        return DriverFacts(
            self.name, self.version, frozenset(controller), frozenset({"Stage", "Condition", "Expand", "Stats"}),
            segments={"topology.hostpath.csi/node": "n1"},
        )  # fmt: skip

    async def create_volume(self, ask: VolumeAsk) -> VolumeMade:
        self.calls.append(("CreateVolume", {"name": ask.name, "secrets": dict(ask.secrets)}))
        if ask.minimum_bytes > self.LIMIT_BYTES:
            raise DriverError(
                "OUT_OF_RANGE",
                f"Requested capacity {ask.minimum_bytes} exceeds maximum allowed {self.LIMIT_BYTES}",
            )
        if ask.name in self.volume_names:
            # It looks at neither the source nor the parameters (nomad-verified.md A.8).
            return dataclasses.replace(self.volumes[self.volume_names[ask.name]], context=dict(ask.parameters))
        self._check_source(ask)
        made = VolumeMade(
            self._id(), ask.minimum_bytes, dict(ask.parameters), ({"topology.hostpath.csi/node": "n1"},),
            ask.snapshot_id, ask.clone_id,
        )  # fmt: skip
        self.volumes[made.id] = made
        self.volume_names[ask.name] = made.id
        return made

    def _check_source(self, ask: VolumeAsk) -> None:
        if ask.snapshot_id:
            snapshot = self.snapshots.get(ask.snapshot_id)
            if snapshot is None:
                raise DriverError("NOT_FOUND", f"snapshot id {ask.snapshot_id} does not exist in the snapshots list")
            if snapshot.size_bytes > ask.minimum_bytes:
                raise DriverError(
                    "INVALID_ARGUMENT",
                    f"snapshot {ask.snapshot_id} size {snapshot.size_bytes} is greater than "
                    f"requested volume size {ask.minimum_bytes}",
                )
        if ask.clone_id and ask.clone_id not in self.volumes:
            raise DriverError("NOT_FOUND", f"volume id {ask.clone_id} does not exist in the volumes list")

    async def delete_volume(self, volume_id: str, secrets: Mapping[str, str]) -> None:
        self.calls.append(("DeleteVolume", {"id": volume_id, "secrets": dict(secrets)}))
        self.volumes.pop(volume_id, None)
        self.volume_names = {name: held for name, held in self.volume_names.items() if held != volume_id}

    async def validate_volume(self, volume_id: str, ask: VolumeAsk) -> None:
        if volume_id not in self.volumes:
            raise DriverError("NOT_FOUND", f"volume id {volume_id} does not exist in the volumes list")

    async def list_volumes(self, size: int, token: str) -> tuple[list[VolumeMade], str]:
        return _cut(sorted(self.volumes.values(), key=lambda v: v.id), size, token, "volumes")

    async def create_snapshot(
        self, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
    ) -> SnapshotMade:
        self.calls.append(
            ("CreateSnapshot", {"name": name, "secrets": dict(secrets), "parameters": dict(parameters)})
        )
        if name in self.snapshot_names:
            known = self.snapshots[self.snapshot_names[name]]
            if known.source_id != source_id:
                raise DriverError(
                    "ALREADY_EXISTS",
                    f"snapshot with the same name: {name} but with different SourceVolumeId already exist",
                )
            return known
        volume = self.volumes.get(source_id)
        if volume is None:
            raise DriverError("NOT_FOUND", f"volume id {source_id} does not exist in the volumes list")
        made = SnapshotMade(self._id(), source_id, volume.capacity_bytes, int(time.time()), True)
        self.snapshots[made.id] = made
        self.snapshot_names[name] = made.id
        return made

    async def delete_snapshot(self, snapshot_id: str, secrets: Mapping[str, str]) -> None:
        self.calls.append(("DeleteSnapshot", {"id": snapshot_id, "secrets": dict(secrets)}))
        self.snapshots.pop(snapshot_id, None)
        self.snapshot_names = {name: held for name, held in self.snapshot_names.items() if held != snapshot_id}

    async def list_snapshots(
        self, size: int, token: str, secrets: Mapping[str, str]
    ) -> tuple[list[SnapshotMade], str]:
        self.calls.append(("ListSnapshots", {"secrets": dict(secrets)}))
        return _cut(sorted(self.snapshots.values(), key=lambda s: s.id), size, token, "snapshots")


def _cut(rows: list[Any], size: int, token: str, noun: str) -> tuple[list[Any], str]:
    start = 0
    if token:
        if not token.isdigit():
            raise DriverError("ABORTED", "startingToken=0 !< int32=4294967295")
        start = int(token)
        if start > len(rows):
            raise DriverError("ABORTED", f"startingToken={start} > len({noun})={len(rows)}")
    end = start + size if size else len(rows)
    # The host-path driver sends no token for volumes (recorded in volumes.json).
    return rows[start:end], str(end) if end < len(rows) and noun == "snapshots" else ""


class ScriptedDriver:
    """The recorded driver `slow`: a snapshot's or volume's name says what happens to it.

    `err-CODE` refuses with the code, `sleep-SECONDS-x` answers late, `notready-x` is ready at the third call,
    `nosize` has size 0, the id `s-inuse` cannot be deleted, and volumes named `busy…` cannot either.
    """

    def __init__(self, name: str = "slow.test", version: str = "0.1", *, sleep_scale: float = 1.0) -> None:
        self.name = name
        self.version = version
        self.sleep_scale = sleep_scale
        self.volumes: dict[str, VolumeMade] = {}
        self.snapshots: dict[str, SnapshotMade] = {}
        self.asked: dict[str, int] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def facts(self) -> DriverFacts:
        controller = {"AttachDetach", "CreateDelete", "CreateDeleteSnapshot", "ListSnapshots", "ListVolumes"}
        return DriverFacts(self.name, self.version, frozenset(controller))

    async def create_volume(self, ask: VolumeAsk) -> VolumeMade:
        self.calls.append(("CreateVolume", {"name": ask.name, "secrets": dict(ask.secrets)}))
        made = VolumeMade(f"v-{ask.name}", ask.minimum_bytes, {"k": "from-driver"}, ())
        return self.volumes.setdefault(made.id, made)

    async def delete_volume(self, volume_id: str, secrets: Mapping[str, str]) -> None:
        self.calls.append(("DeleteVolume", {"id": volume_id, "secrets": dict(secrets)}))
        if volume_id.startswith("v-busy"):
            raise DriverError("FAILED_PRECONDITION", "volume busy")
        self.volumes.pop(volume_id, None)

    async def validate_volume(self, volume_id: str, ask: VolumeAsk) -> None:
        self.calls.append(("ValidateVolumeCapabilities", {"id": volume_id, "secrets": dict(ask.secrets)}))

    async def list_volumes(self, size: int, token: str) -> tuple[list[VolumeMade], str]:
        return sorted(self.volumes.values(), key=lambda v: v.id), ""

    async def create_snapshot(
        self, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
    ) -> SnapshotMade:
        self.calls.append(
            ("CreateSnapshot", {"name": name, "secrets": dict(secrets), "parameters": dict(parameters)})
        )
        if name.startswith("err-"):
            raise DriverError(name.removeprefix("err-"), f"driver says {name}")
        count = self.asked[name] = self.asked.get(name, 0) + 1
        if name.startswith("sleep-"):
            # The driver goes on when the caller has given up, as a storage does.
            return await asyncio.shield(asyncio.ensure_future(self._late(source_id, name)))
        return self._made(source_id, name, ready=not name.startswith("notready") or count > 2)

    async def _late(self, source_id: str, name: str) -> SnapshotMade:
        await asyncio.sleep(float(name.split("-")[1]) * self.sleep_scale)
        return self._made(source_id, name, ready=True)

    def _made(self, source_id: str, name: str, *, ready: bool) -> SnapshotMade:
        known = self.snapshots.get(f"s-{name}")
        created = known.created_seconds if known else int(time.time())
        made = SnapshotMade(f"s-{name}", source_id, 1048576, created, ready)
        self.snapshots[made.id] = made
        return dataclasses.replace(made, size_bytes=0) if name == "nosize" else made

    async def delete_snapshot(self, snapshot_id: str, secrets: Mapping[str, str]) -> None:
        self.calls.append(("DeleteSnapshot", {"id": snapshot_id, "secrets": dict(secrets)}))
        if snapshot_id == "s-inuse":
            raise DriverError("FAILED_PRECONDITION", "snapshot is in use by a volume")
        self.snapshots.pop(snapshot_id, None)

    async def list_snapshots(
        self, size: int, token: str, secrets: Mapping[str, str]
    ) -> tuple[list[SnapshotMade], str]:
        self.calls.append(("ListSnapshots", {"secrets": dict(secrets)}))
        return sorted(self.snapshots.values(), key=lambda s: s.id), ""
