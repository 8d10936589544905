"""`forget_field_owners` on a real API server: the list of field owners goes, but not where somebody applies."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.integration.kubernetes import stand as stands
from tests.support.bed.controlplane import ControlPlane

ROUTE = "/apis/snapshot.storage.k8s.io/v1/namespaces/{}/volumesnapshots"


async def owners(stand: stands.Stand, namespace: str, name: str) -> tuple[list[Any], list[Any]]:
    """The field owners of a VolumeSnapshot and of its content, as kubectl hides them."""
    found = []
    for kind, called in (
        ("volumesnapshot", name),
        ("volumesnapshotcontent", f"snapcontent-{(stand.snapshot(namespace, name) or {})['metadata']['uid']}"),
    ):
        words = ("get", kind, called, "-n", namespace, "--show-managed-fields", "-o", "json")
        found.append(json.loads(await stand.kubectl(*words))["metadata"].get("managedFields") or [])
    return found[0], found[1]


async def test_owners_are_forgotten_unless_somebody_applies_the_object(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane, forget_field_owners=True) as stand:
        await stand.klass(namespace)
        await stand.volume(namespace, "data")
        admin, route = control_plane.admin, ROUTE.format(namespace)
        created = stands.snapshot_object(namespace, "created", namespace, claim="data")
        status, body = await asyncio.to_thread(admin.request, "POST", route, created)
        assert status == 201, body
        applied = json.dumps(stands.snapshot_object(namespace, "applied", namespace, claim="data"))
        await stand.kubectl("apply", "--server-side", "-f", "-", stdin=applied)
        for name in ("created", "applied"):
            await stand.until_ready(namespace, name, 30.0)
        await stand.settle()
        assert await owners(stand, namespace, "created") == ([], [])
        kept, _ = await owners(stand, namespace, "applied")
        assert "Apply" in {entry["operation"] for entry in kept}
        # Applied from now on, with its label taken back again: as of an object from before there were owners.
        created["metadata"]["labels"] = {"team": "a"}
        await stand.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(created))
        del created["metadata"]["labels"]
        await stand.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(created))
        found = await stand.get("volumesnapshot", "created", namespace)
        assert found is not None
        assert not found["metadata"].get("labels")
        assert found["status"]["readyToUse"] is True


async def test_owners_are_kept_unless_told_otherwise(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(namespace)
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", namespace, claim="data"))
        await stand.until_ready(namespace, "one", 30.0)
        await stand.settle()
        for entries in await owners(stand, namespace, "one"):
            assert "snapbridge" in {entry["manager"] for entry in entries}
