"""Holds on claims that no snapshot stands for any more: the merged mode lets its own drivers' go, and no others."""

from __future__ import annotations

from adapters.kubernetes import names
from adapters.kubernetes.groups import names as own
from tests.integration.kubernetes import group_stand as g
from tests.integration.kubernetes import stand as stands
from tests.support.bed.controlplane import ControlPlane


def is_held(stand: stands.Stand, namespace: str, name: str) -> bool:
    claim = stand.cluster.world.claims.get(namespace, name)
    return claim is not None and names.CLAIM_FINALIZER in (claim["metadata"].get("finalizers") or ())


async def test_what_a_crash_left_is_let_go_at_the_start(control_plane: ControlPlane, namespace: str) -> None:
    """Its VolumeSnapshot has been taken away by force: nothing but a look at the claims themselves finds it."""
    async with stands.running(control_plane) as stand:
        plugin = stand.plugin
        await stand.volume(namespace, "data")
        await stand.volume(namespace, "theirs", "csi.of.others")
        for name in ("data", "theirs"):
            patch = f'{{"metadata":{{"finalizers":["{names.CLAIM_FINALIZER}"]}}}}'
            await stand.kubectl("patch", "pvc", name, "-n", namespace, "--type=merge", "-p", patch)
    async with stands.running(control_plane, plugin=plugin) as stand:
        await stand.until_known(lambda: not is_held(stand, namespace, "data"))
        await stand.settle()
        assert is_held(stand, namespace, "theirs")


async def test_a_claim_may_go_when_its_cut_has_failed_for_certain(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Upstream's trap (#1305): a snapshot that can never be keeps its claim from being deleted. Here it holds it
    only while there is something to wait for; a claim that nobody deletes stays held, for the next try."""
    async with stands.running(control_plane) as stand:
        await stand.klass(namespace)
        await stand.volume(namespace, "data")
        stand.plugin.refused_volumes.add(f"vol-{namespace}-data")
        await stand.apply(stands.snapshot_object(namespace, "never", namespace, claim="data"))
        await stand.until_known(lambda: _error(stand, namespace, "never"))
        assert is_held(stand, namespace, "data")
        await stand.kubectl("delete", "pvc", "data", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: not is_held(stand, namespace, "data"))
        await stand.kubectl("delete", "volumesnapshot", "never", "-n", namespace, "--timeout=50s")
        assert stand.plugin.stored == {}


def _error(stand: stands.Stand, namespace: str, name: str) -> object:
    return ((stand.snapshot(namespace, name) or {}).get("status") or {}).get("error")


async def test_a_claim_may_go_when_its_groups_cut_has_failed_for_certain(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane, plugin=g.able()) as stand:
        await g.volumes(stand, namespace, "a", "b", app="db")
        stand.plugin.refused_volumes.add(f"vol-{namespace}-a")
        await g.create(stand, g.klass(f"{namespace}-g", stand.plugin.driver))
        await g.create(stand, g.group(namespace, "never", f"{namespace}-g", matchLabels={"app": "db"}))
        await g.until_error(stand, namespace, "never")
        assert is_held(stand, namespace, "a")
        await g.delete(stand, names.CLAIMS, namespace, "a", wait=False)
        await stand.until_known(lambda: not is_held(stand, namespace, "a"))
        await g.delete(stand, own.GROUPS, namespace, "never")
        await stand.until_known(lambda: not is_held(stand, namespace, "b"))
        assert stand.plugin.groups == {}
