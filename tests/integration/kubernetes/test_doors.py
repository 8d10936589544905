"""Our own doors on a real API server: asking for snapshots, volumes and their registration, secrets."""

from __future__ import annotations

import asyncio
import base64
import dataclasses

import pytest

from adapters.kubernetes import adapter, names
from adapters.kubernetes.settings import Settings
from bridge.model.failure import ConflictError, InvalidError, NotFoundError, UnavailableError
from bridge.model.keys import snapshot_key
from bridge.model.plugin import Capability
from bridge.model.secret import SecretRef
from bridge.model.volume import AccessMode, Volume, VolumeMode
from bridge.ports.orchestrator import SnapshotDraft
from tests.integration.kubernetes import definitions
from tests.integration.kubernetes import stand as stands
from tests.integration.kubernetes.test_snapshots import of
from tests.support import csi_server
from tests.support.bed.controlplane import ControlPlane

SIZE = 64 << 20


async def test_a_draft_becomes_a_snapshot_once_and_is_withdrawn(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.klass(f"{namespace}-c")
        await stand.volume(namespace, "data")
        draft = SnapshotDraft(
            cluster="east",
            namespace=namespace,
            name="one",
            volume="data",
            parameters={"class": f"{namespace}-c"},
            asked_by="alice",
            why="before the upgrade",
            labels={"team": "blue"},
        )
        key = await stand.cluster.submit(draft)
        assert await stand.cluster.submit(draft) == key
        with pytest.raises(ConflictError):
            await stand.cluster.submit(dataclasses.replace(draft, volume="other"))
        made = await stand.until_ready(namespace, "one")
        assert key == snapshot_key("east", made["metadata"]["uid"])
        assert made["metadata"]["annotations"][names.ASKED_BY] == "alice"
        assert made["metadata"]["labels"] == {"team": "blue"}
        await stand.cluster.withdraw(key)
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)
        await stand.cluster.withdraw(key)


async def test_a_draft_that_adopts_makes_both_objects(control_plane: ControlPlane, namespace: str) -> None:
    plugin = stands.memory()
    plugin.capabilities.add(Capability.LIST_SNAPSHOTS)
    await plugin.create_snapshot(name="older", volume_handle="v", parameters={}, secrets={})
    async with stands.running(control_plane, plugin=plugin) as stand:
        draft = SnapshotDraft(
            cluster="east", namespace=namespace, name="old", adopt_handle="snap-1", driver=plugin.driver
        )
        key = await stand.cluster.submit(draft)
        assert await stand.cluster.submit(draft) == key
        await stand.until_ready(namespace, "old")
        await stand.cluster.withdraw(key)
        await stand.until_known(lambda: stand.snapshot(namespace, "old") is None)
        await stand.settle()
        assert plugin.handles() == set()


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"volume": ""}, "volume", "name the volume"),
        ({"parameters": {"tier": "gold"}}, "parameters", "'tier' cannot be given here"),
        ({"name": "Not A Name"}, "", "Not A Name"),
        ({"name": "n" * 1000}, "", "no more than 253"),
        ({"labels": {"team": "not a value!"}}, "", "not a value!"),
        ({"volume": "", "adopt_handle": "s"}, "driver", "name its driver"),
    ],
)
async def test_a_bad_draft_is_refused_and_leaves_nothing(
    control_plane: ControlPlane, namespace: str, change: dict[str, object], field: str, words: str
) -> None:
    async with stands.running(control_plane) as stand:
        draft = dataclasses.replace(
            SnapshotDraft(cluster="east", namespace=namespace, name="one", volume="data"),
            **change,  # type: ignore[arg-type]
        )
        with pytest.raises(InvalidError) as caught:
            await stand.cluster.submit(draft)
        assert words in str(caught.value)
        assert caught.value.field == field
        assert (await stand.kubectl("get", "volumesnapshot", "-n", namespace, "-o", "name")).strip() == ""


async def test_volumes_are_listed_and_found(control_plane: ControlPlane, namespace: str) -> None:
    async with stands.running(control_plane) as stand:
        await stand.volume(namespace, "data")
        found = await stand.cluster.volumes.find(namespace, "data")
        assert found.handle == f"vol-{namespace}-data"
        assert found.driver == stand.plugin.driver
        assert found.capacity_bytes == SIZE
        assert found.mode is VolumeMode.FILESYSTEM
        assert found.access_modes == (AccessMode.SINGLE_NODE_WRITER,)
        assert found in await stand.cluster.volumes.list()
        assert await stand.cluster.volumes.list(namespace) == [found]
        with pytest.raises(NotFoundError, match="nothing"):
            await stand.cluster.volumes.find(namespace, "nothing")
        lone = stands.volume_objects(namespace, "lone", stand.plugin.driver)[1]
        await stand.apply(lone)
        await stand.until_known(lambda: stand.cluster.world.claims.get(namespace, "lone"))
        with pytest.raises(InvalidError, match="not bound"):
            await stand.cluster.volumes.find(namespace, "lone")


async def test_a_restored_volume_is_registered_like_its_source_and_forgotten_without_its_data(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane) as stand:
        source, claim = stands.volume_objects(namespace, "data", stand.plugin.driver)
        node = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}
        source["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}}
        source["spec"]["csi"] |= {"fsType": "ext4", "nodeStageSecretRef": {"namespace": "sys", "name": "key"}}
        source["spec"]["storageClassName"] = claim["spec"]["storageClassName"] = "fast"
        await stand.apply(source, claim)
        await stand.until_known(lambda: stands.is_bound(stand.cluster.world, namespace, "data"))
        like = await stand.cluster.volumes.find(namespace, "data")
        new = Volume(
            cluster="east",
            namespace=namespace,
            name="restored",
            driver=stand.plugin.driver,
            handle="vol-new",
            capacity_bytes=2 * SIZE,
            context={"pool": "a"},
        )
        await stand.cluster.volumes.register(new, like)
        await stand.cluster.volumes.register(new, like)
        await stand.until_known(lambda: stands.is_bound(stand.cluster.world, namespace, "restored"))
        found = await stand.cluster.volumes.find(namespace, "restored")
        assert (found.handle, found.capacity_bytes, found.context) == ("vol-new", 2 * SIZE, {"pool": "a"})
        made = await stand.get("pvc", "restored", namespace)
        volume = await stand.get("pv", of(made, "spec", "volumeName"))
        spec = (volume or {})["spec"]
        assert spec["persistentVolumeReclaimPolicy"] == "Retain"
        assert spec["storageClassName"] == "fast"
        assert spec["nodeAffinity"] == source["spec"]["nodeAffinity"]
        assert spec["csi"]["fsType"] == "ext4"
        assert spec["csi"]["nodeStageSecretRef"] == {"namespace": "sys", "name": "key"}
        with pytest.raises(ConflictError, match="another volume"):
            await stand.cluster.volumes.register(dataclasses.replace(new, handle="vol-other"), like)
        await stand.apply(_pod(namespace, "restored"))
        with pytest.raises(ConflictError, match="in use by pod user"):
            await stand.cluster.volumes.forget(namespace, "restored")
        await stand.kubectl("delete", "pod", "user", "-n", namespace, "--grace-period=0", "--force")
        assert await stand.cluster.volumes.forget(namespace, "restored") == found
        await stand.until_known(lambda: stand.cluster.world.claims.get(namespace, "restored") is None)
        assert await stand.cluster.volumes.forget(namespace, "restored") is None


async def test_a_secret_is_read_at_the_call_and_its_values_are_never_shown(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with stands.running(control_plane) as stand:
        values = {"user": "admin", "password": "geheim-42"}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        binary = {"blob": base64.b64encode(b"\xff\xfe").decode()}
        for name, content in (("key", data), ("binary", binary)):
            metadata = {"name": name, "namespace": namespace}
            await stand.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": content})
        secrets = stand.cluster.secrets
        assert await secrets.resolve(SecretRef("k8s", f"{namespace}/key")) == values
        assert await secrets.resolve(SecretRef()) == {}
        with pytest.raises(NotFoundError, match="does not exist"):
            await secrets.resolve(SecretRef("k8s", f"{namespace}/none"))
        with pytest.raises(InvalidError, match="'blob'"):
            await secrets.resolve(SecretRef("k8s", f"{namespace}/binary"))
        with pytest.raises(InvalidError):
            await secrets.resolve(SecretRef("k8s", "no-slash"))


async def test_secrets_named_by_templates_reach_the_calls(control_plane: ControlPlane, namespace: str) -> None:
    prefix = "csi.storage.k8s.io/snapshotter-secret"
    async with stands.running(control_plane) as stand:
        parameters = {
            f"{prefix}-name": "${volumesnapshot.name}-key",
            f"{prefix}-namespace": "${volumesnapshot.namespace}",
        }
        await stand.klass(f"{namespace}-c", parameters=parameters)
        await stand.volume(namespace, "data")
        await stand.apply(stands.snapshot_object(namespace, "one", f"{namespace}-c", claim="data"))
        await stand.until_known(lambda: of(stand.snapshot(namespace, "one"), "status", "error"))
        assert "one-key does not exist" in of(stand.snapshot(namespace, "one"), "status", "error", "message")
        metadata = {"name": "one-key", "namespace": namespace}
        await stand.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {}})
        made = await stand.until_ready(namespace, "one", 60)
        await stand.settle()
        content = await stand.get("volumesnapshotcontent", made["status"]["boundVolumeSnapshotContentName"])
        notes = of(content, "metadata", "annotations")
        assert notes == {names.DELETION_SECRET_NAME: "one-key", names.DELETION_SECRET_NAMESPACE: namespace}
        await stand.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--wait=false")
        await stand.until_known(lambda: stand.snapshot(namespace, "one") is None)


async def test_a_cluster_without_the_definitions_says_so_and_recovers(own_control_plane: ControlPlane) -> None:
    settings = Settings(kubeconfig=str(own_control_plane.kubeconfig))
    cluster = await adapter.build(settings, cluster="east", clock=stands.WallClock(), serves=lambda _driver: True)
    run = asyncio.create_task(cluster.run(lambda _key: None, None, None), name="cluster")  # type: ignore[arg-type]
    try:
        await csi_server.until(lambda: "the cluster has no volumesnapshots" in cluster.ready())
        assert "kubectl apply" in cluster.ready()
        await asyncio.to_thread(definitions.install, own_control_plane)
        await csi_server.until(lambda: cluster.ready() == "", 60.0)
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_a_wrong_token_is_named(control_plane: ControlPlane, tmp_path: object) -> None:
    settings = Settings(kubeconfig=str(control_plane.kubeconfig))
    cluster = await adapter.build(settings, cluster="east", clock=stands.WallClock())

    async def wrong() -> str:
        return "Bearer wrong"

    cluster.client._connection.authorization = wrong
    run = asyncio.create_task(cluster.run(lambda _key: None, None, None), name="cluster")  # type: ignore[arg-type]
    try:
        await csi_server.until(lambda: "volumesnapshots cannot be read: Unauthorized" in cluster.ready())
        with pytest.raises(UnavailableError):
            await cluster.volumes.list()
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


def _pod(namespace: str, claim: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user", "namespace": namespace},
        "spec": {
            "containers": [{"name": "c", "image": "x"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }
