"""Plugin calls through Nomad's API: outcomes, secrets, lost replies, plugins that are down."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from adapters.nomad.client import Client
from adapters.nomad.handles import Handles
from adapters.nomad.plugins import ApiCalls
from adapters.nomad.volumes import NomadVolumes
from bridge.model.failure import Failure, FailureKind
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Route
from bridge.model.snapshot import CutSnapshot, HandleSource
from bridge.model.volume import NewVolume, Volume
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import MemorySecrets, quick
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import DriverFacts, HostPathDriver, ScriptedDriver

REFUSED, UNSURE = FailureKind.REFUSED, FailureKind.UNSURE


@pytest.fixture
def calls(client: Client) -> ApiCalls:
    return ApiCalls("east", client, Handles(client), plugin_id="hostpath", driver="hostpath.csi.k8s.io")


@pytest.fixture
def scripted() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture
async def slow(agent: FakeNomad, client: Client, scripted: ScriptedDriver) -> ApiCalls:
    """Calls of the plugin `slow`, whose driver does what a snapshot's name says; with the volume `sv1`."""
    await agent.add_plugin("slow", scripted)
    await make_volume(client, "sv1", PluginID="slow", Secrets={"both": "volume", "stored": "yes"})
    return ApiCalls("east", client, Handles(client), plugin_id="slow", driver="slow.test")


def value(outcome: Outcome[CutSnapshot]) -> CutSnapshot:
    assert isinstance(outcome, Done), outcome
    return outcome.value


def failure(outcome: Outcome[object]) -> Failure:
    assert isinstance(outcome, Failed), outcome
    return outcome.failure


async def test_create_repeat_inspect_list_delete(client: Client, calls: ApiCalls, driver: HostPathDriver) -> None:
    handle = await make_volume(client, "data")
    assert calls.route is Route.ORCHESTRATOR
    assert calls.id.instance == "nomad-api:east:hostpath"
    one = value(await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={}))
    again = value(await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={}))
    assert one == again
    assert one.ready
    assert one.source_handle == handle
    assert value(await calls.inspect_snapshot(handle=one.handle, secrets={})) == one
    assert [value(o) async for o in calls.list_snapshots(volume_handle=handle, secrets={})] == [one]
    assert [o async for o in calls.list_snapshots(volume_handle="other", secrets={})] == []
    assert isinstance(await calls.delete_snapshot(handle=one.handle, secrets={}), Done)
    assert isinstance(await calls.delete_snapshot(handle=one.handle, secrets={}), Done)
    assert failure(await calls.inspect_snapshot(handle=one.handle, secrets={})).code == "NOT_FOUND"
    assert driver.snapshots == {}


async def test_a_handle_that_nomad_does_not_know(calls: ApiCalls) -> None:
    outcome = await calls.create_snapshot(name="s", volume_handle="nowhere", parameters={}, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "NOT_FOUND")
    assert "external_id" in failure(outcome).hint


async def test_a_volume_with_a_slash_in_its_id_can_still_be_cut(client: Client, calls: ApiCalls) -> None:
    """Only the paths of Nomad's API refuse it; a snapshot names the volume in its body."""
    handle = await make_volume(client, "x", ID="a/b")
    cut = value(await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={}))
    assert cut.source_handle == handle


async def test_a_volume_is_cut_by_the_id_that_it_has_now(
    client: Client, calls: ApiCalls, driver: HostPathDriver
) -> None:
    """Ids come and go under a handle: a restored volume gets its name, a reverted one another, people rename."""
    handle = await make_volume(client, "first")
    value(await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={}))
    await client.call("DELETE", "/v1/volume/csi/first")
    row = {
        "ID": "second", "Name": "second", "PluginID": "hostpath", "ExternalID": handle,
        "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
    }  # fmt: skip
    await client.call("PUT", "/v1/volume/csi/second", body={"Volumes": [row]})
    cut = value(await calls.create_snapshot(name="s2", volume_handle=handle, parameters={}, secrets={}))
    assert cut.source_handle == handle
    await client.call("DELETE", "/v1/volume/csi/second")
    other = await make_volume(client, "second", Name="made-another")
    outcome = await calls.create_snapshot(name="s3", volume_handle=handle, parameters={}, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "NOT_FOUND")
    assert other not in [made.source_id for made in driver.snapshots.values()], "another volume was cut"


async def test_a_restored_volume_can_be_cut_at_once(client: Client, driver: HostPathDriver) -> None:
    """It was registered under a passing id a moment ago, which comes before its name in the list."""
    handles = Handles(client)
    calls = ApiCalls("east", client, handles, plugin_id="hostpath", driver="hostpath.csi.k8s.io")
    made = await calls.create_volume(new=NewVolume("r1", "hostpath.csi.k8s.io", None, 1 << 20), secrets={})
    assert isinstance(made, Done)
    volumes = NomadVolumes("east", client, handles, MemorySecrets())
    wanted = Volume("east", "default", "web-copy", "hostpath.csi.k8s.io", made.value.handle, 1 << 20)
    await volumes.register(wanted, None)
    cut = value(await calls.create_snapshot(name="s1", volume_handle=made.value.handle, parameters={}, secrets={}))
    assert cut.source_handle == made.value.handle


async def test_a_name_of_another_volumes_snapshot(client: Client, calls: ApiCalls) -> None:
    first, second = await make_volume(client, "a"), await make_volume(client, "b")
    value(await calls.create_snapshot(name="s1", volume_handle=first, parameters={}, secrets={}))
    outcome = await calls.create_snapshot(name="s1", volume_handle=second, parameters={}, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", REFUSED), ("NOT_FOUND", REFUSED), ("ALREADY_EXISTS", REFUSED),
        ("PERMISSION_DENIED", REFUSED), ("UNAUTHENTICATED", REFUSED), ("UNIMPLEMENTED", REFUSED),
        ("FAILED_PRECONDITION", REFUSED), ("OUT_OF_RANGE", REFUSED), ("ABORTED", UNSURE), ("INTERNAL", UNSURE),
        ("RESOURCE_EXHAUSTED", UNSURE), ("UNAVAILABLE", UNSURE), ("DEADLINE_EXCEEDED", UNSURE),
    ],
)  # fmt: skip
async def test_a_drivers_code_comes_through(slow: ApiCalls, code: str, kind: FailureKind) -> None:
    handles = await slow._handles.of("slow", "v-made-sv1")
    assert handles
    outcome = await slow.create_snapshot(name=f"err-{code}", volume_handle="v-made-sv1", parameters={}, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (kind, code)


async def test_not_ready_is_passed_through_until_it_is(slow: ApiCalls) -> None:
    seen = []
    for _ in range(3):
        outcome = await slow.create_snapshot(name="notready-1", volume_handle="v-made-sv1", parameters={}, secrets={})
        seen.append(value(outcome).ready)
    assert seen == [False, False, True]


async def test_a_plugin_that_is_down_is_unsure_and_one_that_cannot_is_refused(
    agent: FakeNomad, client: Client, calls: ApiCalls
) -> None:
    handle = await make_volume(client, "data")
    agent.set_plugin_health("hostpath", False)
    outcome = await calls.create_snapshot(name="s", volume_handle=handle, parameters={}, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (UNSURE, "UNAVAILABLE")
    listed = [failure(o) async for o in calls.list_snapshots(secrets={})]
    assert [(f.kind, f.code) for f in listed] == [(UNSURE, "UNAVAILABLE")]
    inspected = failure(await calls.inspect_snapshot(handle="s", secrets={}))
    assert (inspected.kind, inspected.code) == (UNSURE, "UNAVAILABLE")


async def test_a_healthy_plugin_without_snapshots_refuses(agent: FakeNomad, client: Client) -> None:
    class Plain(HostPathDriver):
        async def facts(self) -> DriverFacts:
            facts = await super().facts()
            return dataclasses.replace(
                facts, name="plain", controller=facts.controller - {"CreateDeleteSnapshot", "ListSnapshots"}
            )

    await agent.add_plugin("plain", Plain())
    handle = await make_volume(client, "p", PluginID="plain")
    calls = ApiCalls("east", client, Handles(client), plugin_id="plain", driver="plain")
    for failed in (
        failure(await calls.create_snapshot(name="s", volume_handle=handle, parameters={}, secrets={})),
        failure(await calls.inspect_snapshot(handle="s", secrets={})),
        *[failure(o) async for o in calls.list_snapshots(secrets={})],
    ):
        assert (failed.kind, failed.code) == (REFUSED, "UNIMPLEMENTED")


async def test_secrets_reach_the_driver_and_no_text(
    slow: ApiCalls, scripted: ScriptedDriver, agent: FakeNomad
) -> None:
    await slow.create_snapshot(
        name="s1", volume_handle="v-made-sv1", parameters={"p": "1"}, secrets={"both": "ours", "own": "x"}
    )
    await slow.delete_snapshot(handle="s-s1", secrets={"user": "u", "pass": "a=b"})
    sent = [(name, details.get("secrets")) for name, details in scripted.calls]
    assert ("CreateSnapshot", {"both": "ours", "own": "x", "stored": "yes"}) in sent
    assert ("DeleteSnapshot", {"user": "u", "pass": "a=b"}) in sent
    outcome = await slow.delete_snapshot(handle="s", secrets={"key": "hunter2,3"})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "INVALID_ARGUMENT")
    assert "comma" in failure(outcome).message
    assert "hunter2" not in str(failure(outcome))
    agent.fail_next("DELETE", "/v1/volumes/snapshot", text="cannot log in with hunter2hunter2")
    outcome = await slow.delete_snapshot(handle="s", secrets={"key": "hunter2hunter2"})
    assert "hunter2" not in str(failure(outcome))


async def test_a_lost_reply_is_unsure_and_its_repeat_finds_the_snapshot(
    agent: FakeNomad, client: Client, calls: ApiCalls, driver: HostPathDriver
) -> None:
    handle = await make_volume(client, "data")
    agent.cut_next("PUT", "/v1/volumes/snapshot", after=True)
    outcome = await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={})
    assert failure(outcome).kind is UNSURE
    assert len(driver.snapshots) == 1
    cut = value(await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={}))
    assert list(driver.snapshots) == [cut.handle]


async def test_a_denied_call_was_not_done(agent: FakeNomad, client: Client, calls: ApiCalls) -> None:
    handle = await make_volume(client, "data")
    agent.fail_next("PUT", "/v1/volumes/snapshot", status=403, text="Permission denied")
    outcome = await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "PERMISSION_DENIED")
    assert "policy.hcl" in failure(outcome).hint


async def test_one_call_in_flight_per_plugin(slow: ApiCalls, agent: FakeNomad) -> None:
    agent.delay("PUT", "/v1/volumes/snapshot", 0.1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(
        *(slow.create_snapshot(name=f"s{i}", volume_handle="v-made-sv1", parameters={}, secrets={}) for i in range(3))
    )
    assert loop.time() - began >= 0.3


async def test_long_lists_are_paged(
    client: Client, calls: ApiCalls, driver: HostPathDriver, agent: FakeNomad
) -> None:
    handle = await make_volume(client, "data")
    wanted = [
        value(await calls.create_snapshot(name=f"s{i}", volume_handle=handle, parameters={}, secrets={})).handle
        for i in range(3)
    ]
    template = next(iter(driver.snapshots.values()))
    for i in range(1200):
        driver.snapshots[f"x{i:05}"] = dataclasses.replace(template, id=f"x{i:05}", source_id="elsewhere")
    agent.calls.clear()
    found = [value(o).handle async for o in calls.list_snapshots(secrets={})]
    assert len(found) == 1203
    assert set(wanted) <= set(found)
    assert len([c for c in agent.calls if c.path == "/v1/volumes/snapshot"]) == 3
    assert value(await calls.inspect_snapshot(handle="x01199", secrets={})).handle == "x01199"
    assert failure(await calls.inspect_snapshot(handle="none", secrets={})).code == "NOT_FOUND"


async def test_a_volume_from_a_snapshot(client: Client, calls: ApiCalls, driver: HostPathDriver) -> None:
    handle = await make_volume(client, "data")
    cut = value(await calls.create_snapshot(name="s1", volume_handle=handle, parameters={}, secrets={}))
    new = NewVolume("restore-1", "hostpath.csi.k8s.io", HandleSource(cut.handle), 1 << 20)
    made = await calls.create_volume(new=new, secrets={"k": "v"})
    again = await calls.create_volume(new=new, secrets={"k": "v"})
    assert isinstance(made, Done)
    assert made == again
    assert made.value.content == HandleSource(cut.handle)
    assert len(driver.volumes) == 2
    assert isinstance(await calls.delete_volume(handle=made.value.handle, secrets={}), Done)
    assert isinstance(await calls.delete_volume(handle=made.value.handle, secrets={}), Done)
    assert list(driver.volumes) == [handle]


async def test_the_same_name_from_another_source_is_not_taken_for_ours(
    client: Client, calls: ApiCalls, driver: HostPathDriver
) -> None:
    handle = await make_volume(client, "data")
    cuts = [
        value(await calls.create_snapshot(name=f"s{i}", volume_handle=handle, parameters={}, secrets={}))
        for i in range(2)
    ]
    for number, cut in enumerate(cuts):
        new = NewVolume("restore-1", "hostpath.csi.k8s.io", HandleSource(cut.handle), 1 << 20)
        outcome = await calls.create_volume(new=new, secrets={})
        assert isinstance(outcome, Failed) is (number == 1), outcome


async def test_nothing_is_made_in_a_namespace_that_is_not_there(agent: FakeNomad, driver: HostPathDriver) -> None:
    """Nomad makes the storage first and says no afterwards (A7)."""
    client = Client(quick(agent.url, made_namespace="nowhere"))
    calls = ApiCalls("east", client, Handles(client), plugin_id="hostpath", driver="hostpath.csi.k8s.io")
    outcome = await calls.create_volume(new=NewVolume("r", "hostpath.csi.k8s.io"), secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "NOT_FOUND")
    assert driver.volumes == {}
    await client.close()


async def test_a_volume_in_use_is_never_deleted(
    agent: FakeNomad, client: Client, calls: ApiCalls, driver: HostPathDriver
) -> None:
    """Nomad would ask the driver first and look for claims afterwards (A6)."""
    handle = await make_volume(client, "data")
    await register(client, job("web"))
    await agent.job_settled("web")
    outcome = await calls.delete_volume(handle=handle, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "FAILED_PRECONDITION")
    assert handle in driver.volumes
    assert "DeleteVolume" not in [name for name, _ in driver.calls]


async def test_a_volume_that_is_not_registered_is_registered_to_be_deleted_or_not_called_deleted(
    agent: FakeNomad, client: Client, calls: ApiCalls, driver: HostPathDriver
) -> None:
    handle = await make_volume(client, "data")
    await client.call("DELETE", "/v1/volume/csi/data")
    agent.fail_next(
        "PUT", "/v1/volume/csi/snapbridge-new-delete-*", text="rpc error: code = InvalidArgument desc = no"
    )
    outcome = await calls.delete_volume(handle=handle, secrets={})
    assert (failure(outcome).kind, failure(outcome).code) == (REFUSED, "FAILED_PRECONDITION")
    assert handle in driver.volumes
    assert isinstance(await calls.delete_volume(handle=handle, secrets={}), Done)
    assert handle not in driver.volumes
    assert (await client.get("/v1/volumes", {"type": "csi"})).data == []
