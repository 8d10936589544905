"""What the cluster half does when writes fail, when it dies, and when it may not act."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.problem import ApiError
from tests.integration.kubernetes.controller import stand as stands
from tests.integration.kubernetes.stand import class_object, snapshot_object
from tests.support.bed.controlplane import ControlPlane
from tests.support.memory import Crash

Object = dict[str, Any]
DEATHS = {"hold": 0, "claim": 1, "content": 2, "status": 4, "claim let go": 7, "mark": 8, "delete": 9}
"""By their place among our writes."""


def first(method: str, ending: str, times: int = 1) -> Callable[[str, str], bool]:
    """Refuse the first such requests."""
    left = [times]

    def refuses(asked: str, where: str) -> bool:
        if asked != method or ending not in where or not left[0]:
            return False
        left[0] -= 1
        return True

    return refuses


REFUSED = {
    "7, 16 a status": ("PUT", "/one/status", "SnapshotStatusUpdateFailed"),
    "9 a content": ("POST", "/volumesnapshotcontents", "CreateSnapshotContentFailed"),
    "34 a hold": ("PUT", "/volumesnapshots/one", "SnapshotFinalizerError"),
    "a claim's hold": ("PATCH", "/persistentvolumeclaims/", "SnapshotContentCreationFailed"),
}


@pytest.mark.parametrize(("method", "ending", "reason"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_write_is_told_and_tried_again(
    control_plane: ControlPlane, namespace: str, method: str, ending: str, reason: str
) -> None:
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        stand.client.refuses = first(method, ending)
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        await stand.until(lambda: not stand.claim_is_held(namespace))
        await stand.until_event(namespace, reason)
        assert "error" not in stand.snapshot(namespace)["status"]
        assert len(stand.driver_half.cuts) == 1


async def test_refusals_on_the_way_out(control_plane: ControlPlane, namespace: str) -> None:
    """Cases 6, 22 and 29: a claim, the mark, the DELETE. Nothing is let go before it may be."""
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        stand.client.refuses = first("PATCH", "/persistentvolumeclaims/", times=10**6)
        held = {"metadata": {"finalizers": [names.CLAIM_FINALIZER]}}
        await stand.patch(names.CLAIMS, namespace, "data", held)
        await stand.until(lambda: stand.claim_is_held(namespace))
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.ready(namespace)
        await stand.quiet()
        await stand.until_event(namespace, "ErrorPVCFinalizer")
        stand.client.refuses = first("DELETE", "/volumesnapshotcontents/", times=2)
        await stand.delete(names.SNAPSHOTS, namespace, "one")
        await stand.gone(namespace)
        await stand.until_event(namespace, "SnapshotContentObjectDeleteError")
        assert stand.driver_half.cuts == {}
        await stand.until(lambda: not stand.claim_is_held(namespace))


async def test_errors_come_and_go(control_plane: ControlPlane, namespace: str) -> None:
    """Cases 3, 23 and 24: a class that comes late, an error of the driver half that is copied once and goes."""
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        stand.driver_half.error = "Failed to create snapshot: the pool is full"
        await stand.apply(snapshot_object(namespace, "one", f"{namespace}-late", claim="data"))
        await stand.until(lambda: f'"{namespace}-late" not found' in stand.error(namespace))
        assert not stand.claim_is_held(namespace)
        assert stand.content(namespace) is None
        await stand.apply(class_object(f"{namespace}-late", stand.driver))
        await stand.until(lambda: stand.error(namespace) == "Failed to create snapshot: the pool is full")
        await stand.quiet()
        stand.client.asked.clear()
        content = stand.content(namespace)
        assert content is not None
        again = {**content["status"]["error"], "time": "2026-11-21T13:00:00Z"}
        looks = stand.driver_half.writes
        body = {"status": {"error": again}}
        await stand.other.merge_patch(names.CONTENTS, "", content["metadata"]["name"], body, status=True)
        # The driver half puts its own time back: two changes to be heard of.
        await stand.until(lambda: stand.driver_half.writes > looks)
        await stand.quiet()
        assert stand.client.writes == []
        stand.driver_half.error = ""
        stand.driver_half.look(content["metadata"]["name"])
        await stand.ready(namespace)
        assert stand.error(namespace) == ""
        await stand.until_event(namespace, "GetSnapshotClassFailed")


async def test_holds_that_a_crash_left_are_swept_at_the_start(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        driver = stand.driver
    async with stands.running(control_plane, driver=driver) as stand:
        await stand.until(lambda: not stand.claim_is_held(namespace))
        held = {"metadata": {"finalizers": [names.CLAIM_FINALIZER]}}
        await stand.patch(names.CLAIMS, namespace, "data", held)
        await stand.until(lambda: stand.claim_is_held(namespace))
    async with stands.running(control_plane, driver=driver) as stand:
        await stand.until(lambda: not stand.claim_is_held(namespace))


async def test_another_controller_s_live_lease_makes_it_stand_back(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane) as stand:
        await stand.prepare(namespace)
        await stand.quiet()
        await stand.other.create(names.LEASES, namespace, _lease(namespace))
        await stand.until(stand.half.ready)
        stand.client.asked.clear()
        await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.until(lambda: stand.snapshot(namespace))
        await stand.quiet()
        assert stand.client.writes == []
        assert names.CONTROLLER_LEASE in stand.half.ready()
        await stand.delete(names.LEASES, namespace, names.CONTROLLER_LEASE)
        await stand.ready(namespace)


@pytest.mark.parametrize("at", DEATHS.values(), ids=DEATHS)
async def test_death_after_a_write(control_plane: ControlPlane, namespace: str, at: int) -> None:
    """It dies when the server has got the write. What comes after is another process's; the backend outlives both."""
    kept: list[stands.DriverHalf] = []
    assert await _life(control_plane, namespace, kept, at)
    assert not await _life(control_plane, namespace, kept)


async def _life(
    plane: ControlPlane, namespace: str, kept: list[stands.DriverHalf], dies_at: int | None = None
) -> bool:
    """From the request to its end; whether it died on the way."""

    def driver_half(client: stands.Client, driver: str) -> stands.DriverHalf:
        made = stands.DriverHalf(client, driver)
        if kept:
            made.cuts, made.calls = kept[-1].cuts, kept[-1].calls
        kept.append(made)
        return made

    driver = f"{namespace}.snapbridge.test"
    try:
        async with stands.running(plane, driver=driver, driver_half=driver_half) as stand:
            if dies_at is not None:
                await stand.prepare(namespace)
                await stand.quiet()
                stand.client.die_at(dies_at)
                await stand.apply(snapshot_object(namespace, "one", namespace, claim="data"))
            await _to_the_end(stand, namespace, kept[0])
    except BaseExceptionGroup as group:
        if group.subgroup(Crash) is None:
            raise
        return True
    return False


async def _to_the_end(stand: stands.Stand, namespace: str, backend: stands.DriverHalf) -> None:
    if not await _is_leaving(stand, namespace):
        await stand.ready(namespace)
        await stand.until(lambda: not stand.claim_is_held(namespace))
        await stand.quiet()
        assert len(stand.driver_half.cuts) == 1
        await stand.delete(names.SNAPSHOTS, namespace, "one")
    await stand.gone(namespace)
    await stand.quiet()
    assert stand.driver_half.cuts == {}
    assert len({call for call in backend.calls if call.startswith("create")}) == 1
    assert not [item for item in stand.half.world.contents.all() if item["spec"]["driver"] == stand.driver]


async def _is_leaving(stand: stands.Stand, namespace: str) -> bool:
    """Or has left: a new process may have finished the deletion before anybody looks."""
    try:
        found = await stand.other.get(names.SNAPSHOTS, namespace, "one")
    except ApiError as error:
        if not error.missing:
            raise
        return True
    await stand.until(lambda: stand.snapshot(namespace) or "deletionTimestamp" in found["metadata"])
    return "deletionTimestamp" in found["metadata"]


def _lease(namespace: str) -> Object:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": names.CONTROLLER_LEASE, "namespace": namespace},
        "spec": {
            "holderIdentity": "another",
            "leaseDurationSeconds": 3600,
            "renewTime": now,
            "acquireTime": now,
            "leaseTransitions": 0,
        },
    }
