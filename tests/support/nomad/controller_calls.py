"""The controller calls as Nomad's client makes them: the checks before, the words around a driver's error.

It must not add a prefix of an endpoint, nor decide when a call is made.
The texts are recorded in volumes.json and snapshots.json unless a line says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.nomad.drivers import Driver, DriverError, SnapshotMade, VolumeAsk, VolumeMade

ACCESS_MODES = (
    "single-node-reader-only", "single-node-writer", "multi-node-reader-only", "multi-node-single-writer",
    "multi-node-multi-writer",
)  # fmt: skip
ATTACHMENT_MODES = ("file-system", "block-device")
_INTERNAL = "controller plugin returned an internal error, check the plugin allocation logs for more information"


class CallError(Exception):
    """A controller call that failed; the text carries `CSI.<RPC>: …` and the gRPC status if there is one."""


def _worded(rpc: str, error: DriverError, words: Mapping[str, str]) -> CallError:
    head = words.get(error.code, _INTERNAL if error.code == "INTERNAL" else "")
    return CallError(f"CSI.{rpc}: {head}: {error}" if head else f"CSI.{rpc}: {error}")


def check_capabilities(rpc: str, ask: VolumeAsk) -> None:
    for capability in ask.capabilities:
        if capability.get("AccessMode") not in ACCESS_MODES:
            raise CallError(f"CSI.{rpc}: unknown volume access mode: {capability.get('AccessMode', '')}")
        if capability.get("AttachmentMode") not in ATTACHMENT_MODES:
            # not recorded; nomad.md 1.5 (attachment modes), worded like the access mode's error
            raise CallError(f"CSI.{rpc}: unknown volume attachment mode: {capability.get('AttachmentMode', '')}")


async def create_volume(driver: Driver, ask: VolumeAsk) -> VolumeMade:
    rpc = "ControllerCreateVolume"
    check_capabilities(rpc, ask)
    if not ask.name:
        raise CallError(f"CSI.{rpc}: missing Name")
    if ask.maximum_bytes and ask.maximum_bytes < ask.minimum_bytes:
        raise CallError(f"CSI.{rpc}: LimitBytes cannot be less than RequiredBytes")
    source = f'&{{"{ask.snapshot_id}" "{ask.clone_id}"}}'
    try:
        return await driver.create_volume(ask)
    except DriverError as error:
        unfit = f'volume "{ask.name}" snapshot source {source} is not compatible with these parameters'
        words = {
            "INVALID_ARGUMENT": unfit,
            "NOT_FOUND": f'volume "{ask.name}" content source {source} does not exist',
            # not recorded: the next two follow the pattern of the recorded snapshot texts (nomad.md 2.3)
            "ALREADY_EXISTS": f'volume "{ask.name}" already exists but is incompatible with these parameters',
            "RESOURCE_EXHAUSTED": f'unable to provision "{ask.name}" in accessible_topology',
            "OUT_OF_RANGE": f'unsupported capacity_range for volume "{ask.name}"',
        }
        raise _worded(rpc, error, words) from error


async def delete_volume(driver: Driver, external_id: str, secrets: Mapping[str, str]) -> None:
    try:
        await driver.delete_volume(external_id, secrets)
    except DriverError as error:
        words = {"FAILED_PRECONDITION": f'volume "{external_id}" is in use'}
        raise _worded("ControllerDeleteVolume", error, words) from error


async def validate_volume(driver: Driver, external_id: str, ask: VolumeAsk) -> None:
    check_capabilities("ControllerValidateVolume", ask)
    try:
        await driver.validate_volume(external_id, ask)
    except DriverError as error:
        words = {"NOT_FOUND": f'volume "{external_id}" could not be found'}
        raise _worded("ControllerValidateVolume", error, words) from error


async def list_volumes(driver: Driver, size: int, token: str) -> tuple[list[VolumeMade], str]:
    try:
        return await driver.list_volumes(size, token)
    except DriverError as error:
        # not recorded for volumes; the words of ListSnapshots
        raise _worded("ControllerListVolumes", error, {"ABORTED": f'invalid starting token "{token}"'}) from error


async def create_snapshot(
    driver: Driver, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
) -> SnapshotMade:
    rpc = "ControllerCreateSnapshot"
    if not source_id:
        raise CallError(f"CSI.{rpc}: missing VolumeID")  # not recorded; nomad.md 2.3
    if not name:
        raise CallError(f"CSI.{rpc}: missing Name")
    try:
        return await driver.create_snapshot(source_id, name, secrets, parameters)
    except DriverError as error:
        words = {
            "ALREADY_EXISTS": f'snapshot "{name}" already exists but is incompatible with volume ID "{source_id}"',
            "ABORTED": f'snapshot "{name}" is already pending',
            "RESOURCE_EXHAUSTED": "storage provider does not have enough space for this snapshot",
        }
        raise _worded(rpc, error, words) from error


async def delete_snapshot(driver: Driver, snapshot_id: str, secrets: Mapping[str, str]) -> None:
    rpc = "ControllerDeleteSnapshot"
    if not snapshot_id:
        raise CallError(f"CSI.{rpc}: missing SnapshotID")
    try:
        await driver.delete_snapshot(snapshot_id, secrets)
    except DriverError as error:
        words = {"FAILED_PRECONDITION": f'snapshot "{snapshot_id}" could not be deleted because it is in use'}
        raise _worded(rpc, error, words) from error


async def list_snapshots(
    driver: Driver, size: int, token: str, secrets: Mapping[str, str]
) -> tuple[list[SnapshotMade], str]:
    try:
        return await driver.list_snapshots(size, token, secrets)
    except DriverError as error:
        words = {"ABORTED": f'invalid starting token "{token}"'}
        raise _worded("ControllerListSnapshots", error, words) from error
