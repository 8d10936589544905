"""The volumes port against a fake agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from adapters.nomad.client import Client
from adapters.nomad.handles import Handles
from adapters.nomad.plugins import ApiCalls
from adapters.nomad.volumes import NomadVolumes
from bridge.model.failure import BridgeError, ConflictError, InvalidError, NotFoundError, UnavailableError
from bridge.model.outcome import Done
from bridge.model.secret import SecretRef
from bridge.model.snapshot import VolumeSource
from bridge.model.volume import NewVolume, Volume
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import MemorySecrets, quick
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver

Make = Callable[..., NomadVolumes]


@pytest.fixture
def volumes(client: Client) -> NomadVolumes:
    return NomadVolumes("east", client, Handles(client), MemorySecrets())


async def test_list_and_find(agent: FakeNomad, client: Client, volumes: NomadVolumes) -> None:
    agent.state.put_namespace("prod")
    handle = await make_volume(client, "data", Parameters={"p": "1"}, MountOptions={"FSType": "ext4"})
    await make_volume(client, "other", Namespace="prod")
    found = await volumes.list()
    assert [(v.namespace, v.name) for v in found] == [("default", "data"), ("prod", "other")]
    assert [v.name for v in await volumes.list("prod")] == ["other"]
    one = await volumes.find("default", "data")
    assert one == found[0]
    assert (one.driver, one.handle, one.capacity_bytes) == ("hostpath.csi.k8s.io", handle, 1 << 20)
    assert (one.fs_type, dict(one.parameters)) == ("ext4", {"p": "1"})
    assert one.users == ()


async def test_a_second_list_reads_only_what_changed(agent: FakeNomad, client: Client, volumes: NomadVolumes) -> None:
    for name in ("a", "b", "c"):
        await make_volume(client, name)
    await volumes.list()
    agent.calls.clear()
    await volumes.list()
    assert [call.path for call in agent.calls] == ["/v1/volumes"]


async def test_users_are_named(agent: FakeNomad, client: Client, volumes: NomadVolumes) -> None:
    await make_volume(client, "data")
    await register(client, job("web"))
    await agent.job_settled("web")
    users = (await volumes.find("default", "data")).users
    assert len(users) == 1
    assert "(web/g) writes" in users[0]


async def test_what_cannot_be_found(client: Client, volumes: NomadVolumes) -> None:
    await make_volume(client, "data")
    with pytest.raises(NotFoundError, match="no CSI volume 'nope'"):
        await volumes.find("default", "nope")
    with pytest.raises(NotFoundError):
        await volumes.find("elsewhere", "data")
    with pytest.raises(InvalidError, match="slash") as caught:
        await volumes.find("default", "a/b")
    assert caught.value.field == "volume"
    await make_volume(client, "pa%5B0%5D", ID="pa[0]")
    assert (await volumes.find("default", "pa[0]")).name == "pa[0]"


async def backend_volume(driver: HostPathDriver, client: Client) -> str:
    """A volume on the backend that Nomad does not know any more."""
    handle = await make_volume(client, "passing")
    await client.call("DELETE", "/v1/volume/csi/passing")
    assert handle in driver.volumes
    return handle


async def test_register_carries_over_what_the_source_has(
    agent: FakeNomad, driver: HostPathDriver, client: Client
) -> None:
    secrets = MemorySecrets({"env:S": {"k": "v"}})
    settings = quick(agent.url, plugins={"hostpath": {"secret": "env:S", "mount_flags": ["noatime"]}})
    own = Client(settings)
    volumes = NomadVolumes("east", own, Handles(own), secrets)
    await make_volume(
        client, "data", Parameters={"p": "1"}, MountOptions={"FSType": "ext4", "MountFlags": ["noatime"]},
        RequestedCapabilities=[{"AccessMode": "multi-node-multi-writer", "AttachmentMode": "file-system"}],
    )  # fmt: skip
    like = await volumes.find("default", "data")
    handle = await backend_volume(driver, client)
    wanted = dataclasses.replace(like, name="restored", handle=handle, capacity_bytes=1 << 20, users=())
    await volumes.register(wanted, like)
    await volumes.register(wanted, like)  # again changes nothing
    row = (await own.get("/v1/volume/csi/restored")).data
    assert (row["ExternalID"], row["PluginID"], row["Parameters"]) == (handle, "hostpath", {"p": "1"})
    assert row["RequestedCapabilities"][0]["AccessMode"] == "multi-node-multi-writer"
    assert row["MountOptions"]["FSType"] == "ext4"
    assert row["RequestedTopologies"]["Required"] == [{"Segments": {"topology.hostpath.csi/node": "n1"}}]
    assert agent.state.volumes[("default", "restored")].secrets == {"k": "v"}
    assert agent.state.volumes[("default", "restored")].mount_flags == ["noatime"]
    assert row["Name"] != "restored"
    await own.close()


async def test_register_refuses_a_taken_name(driver: HostPathDriver, client: Client, volumes: NomadVolumes) -> None:
    await make_volume(client, "data")
    like = await volumes.find("default", "data")
    handle = await backend_volume(driver, client)
    with pytest.raises(ConflictError, match="choose another name"):
        await volumes.register(dataclasses.replace(like, handle=handle), like)
    assert (await volumes.find("default", "data")).handle == like.handle


async def test_register_of_an_unknown_handle_registers_nothing(client: Client, volumes: NomadVolumes) -> None:
    await make_volume(client, "data")
    like = await volumes.find("default", "data")
    with pytest.raises(NotFoundError):
        await volumes.register(dataclasses.replace(like, name="new", handle="nowhere"), like)
    assert [v.name for v in await volumes.list()] == ["data"]


async def test_a_volume_made_by_the_api_is_moved_to_its_name(client: Client, volumes: NomadVolumes) -> None:
    await make_volume(client, "data")
    like = await volumes.find("default", "data")
    calls = ApiCalls("east", client, Handles(client), plugin_id="hostpath", driver=like.driver)
    made = await calls.create_volume(
        new=NewVolume("restore-1", like.driver, VolumeSource(like.handle), 1 << 20), secrets={}
    )
    assert isinstance(made, Done)
    assert [v.name for v in await volumes.list()] == ["data", "snapbridge-new-restore-1"]
    wanted = Volume("east", "default", "restored", like.driver, made.value.handle, made.value.capacity_bytes)
    await volumes.register(wanted, like)
    assert [(v.name, v.handle) for v in await volumes.list()] == [
        ("data", like.handle),
        ("restored", made.value.handle),
    ]
    await volumes.register(wanted, None)


async def test_a_volume_that_is_made_where_only_some_namespaces_are_looked_at_leaves_nothing_behind(
    agent: FakeNomad, driver: HostPathDriver, client: Client
) -> None:
    agent.state.put_namespace("prod")
    own = Client(quick(agent.url, namespaces=["prod"]))
    handles = Handles(own)
    volumes = NomadVolumes("east", own, handles, MemorySecrets())
    calls = ApiCalls("east", own, handles, plugin_id="hostpath", driver="hostpath.csi.k8s.io")
    new = NewVolume("restore-1", "hostpath.csi.k8s.io", None, 1 << 20)
    made = await calls.create_volume(new=new, secrets={})
    assert isinstance(made, Done)
    await volumes.register(Volume("east", "prod", "r1", "hostpath.csi.k8s.io", made.value.handle, 1 << 20), None)
    rows = (await client.get("/v1/volumes", {"type": "csi", "namespace": "*"})).data
    assert [(row["Namespace"], row["ID"]) for row in rows] == [("prod", "r1")]
    assert isinstance(await calls.delete_volume(handle=made.value.handle, secrets={}), Done)
    assert driver.volumes == {}
    await own.close()


async def test_a_volume_is_registered_without_its_source(client: Client, volumes: NomadVolumes) -> None:
    """The source may be gone by then; the plugin is known by the driver's name."""
    calls = ApiCalls("east", client, Handles(client), plugin_id="hostpath", driver="hostpath.csi.k8s.io")
    made = await calls.create_volume(new=NewVolume("restore-2", "hostpath.csi.k8s.io", None, 1 << 20), secrets={})
    assert isinstance(made, Done)
    await volumes.register(
        Volume("east", "default", "r2", "hostpath.csi.k8s.io", made.value.handle, made.value.capacity_bytes), None
    )
    assert [v.name for v in await volumes.list()] == ["r2"]
    with pytest.raises(InvalidError, match="no plugin is of the driver"):
        await volumes.register(Volume("east", "default", "r3", "else.csi", "h"), None)


async def test_a_namespace_that_is_not_there_is_refused_for_good(
    driver: HostPathDriver, client: Client, volumes: NomadVolumes
) -> None:
    """Taken for "may have been done" it would be tried again for ever, with a volume that nobody can have."""
    await make_volume(client, "data")
    like = await volumes.find("default", "data")
    handle = await backend_volume(driver, client)
    with pytest.raises(InvalidError, match="no namespace 'nowhere'") as caught:
        await volumes.register(dataclasses.replace(like, name="new", namespace="nowhere", handle=handle), like)
    assert (caught.value.field, caught.value.hint) == ("namespace", "make the namespace, or name another one")


@pytest.mark.parametrize(("path", "status"), [("/v1/plugins", 403), ("/v1/plugins", 500), ("/v1/volumes", 500)])
async def test_a_plugin_that_cannot_be_looked_for_is_an_error_of_ours(
    agent: FakeNomad, driver: HostPathDriver, client: Client, volumes: NomadVolumes, path: str, status: int
) -> None:
    handle = await backend_volume(driver, client)
    agent.fail_next("GET", path, status=status, text="Permission denied" if status == 403 else "no")
    with pytest.raises(BridgeError, match="look for the plugin"):
        await volumes.register(Volume("east", "default", "new", "hostpath.csi.k8s.io", handle), None)
    await volumes.register(Volume("east", "default", "new", "hostpath.csi.k8s.io", handle), None)
    assert (await volumes.find("default", "new")).handle == handle


async def test_forget(agent: FakeNomad, driver: HostPathDriver, client: Client, volumes: NomadVolumes) -> None:
    handle = await make_volume(client, "data")
    await register(client, job("web"))
    await agent.job_settled("web")
    with pytest.raises(ConflictError, match="in use: allocation"):
        await volumes.forget("default", "data")
    await client.call("DELETE", "/v1/job/web")
    await agent.job_settled("web")
    forgotten = await volumes.forget("default", "data")
    assert forgotten is not None
    assert forgotten.handle == handle
    assert handle in driver.volumes
    assert await volumes.forget("default", "data") is None


async def test_a_lost_answer_to_register_is_found_by_the_repeat(
    agent: FakeNomad, driver: HostPathDriver, client: Client, volumes: NomadVolumes
) -> None:
    await make_volume(client, "data")
    like = await volumes.find("default", "data")
    handle = await backend_volume(driver, client)
    wanted = dataclasses.replace(like, name="new", handle=handle)
    agent.cut_next("PUT", "/v1/volume/csi/new", after=True)
    with pytest.raises(UnavailableError, match="broke off"):
        await volumes.register(wanted, like)
    await volumes.register(wanted, like)
    assert (await volumes.find("default", "new")).handle == handle


async def test_the_secret_of_a_volume_is_a_reference(agent: FakeNomad, client: Client) -> None:
    await make_volume(client, "data")
    own: Any = Client(quick(agent.url, plugins={"hostpath": {"secret": "nomadVar:default/ceph"}}))
    volumes = NomadVolumes("east", own, Handles(own), MemorySecrets())
    assert (await volumes.find("default", "data")).secret == SecretRef("nomadVar", "default/ceph")
    await own.close()
