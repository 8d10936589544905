"""The sample jobs are read by both agents and mean what they say; the sample policy is enough, and no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.nomad.adapter import build
from adapters.nomad.client import Client
from adapters.nomad.decide import hooks, quiesce_settings
from adapters.nomad.errors import AnswerError
from adapters.nomad.settings import Settings
from bridge.cli.main import main
from bridge.model.outcome import Done
from tests.contract.nomad.world import World, consumer_job, eventually, world
from tests.integration.nomad.doubles import MemoryIntake, MemorySecrets, MemorySink, running, until
from tests.support import localdisk
from tests.support.bed import paths
from tests.support.nomad import real
from tests.support.nomad.agent import FakeNomad

SAMPLES = paths.REPOSITORY / "configs" / "nomad"
JOBS = sorted(SAMPLES.glob("*.nomad.hcl"))


async def parsed(place: World, name: str) -> dict[str, Any]:
    text = (SAMPLES / name).read_text()
    answer = await place.client.call("POST", "/v1/jobs/parse", body={"JobHCL": text, "Canonicalize": True})
    return dict(answer.data)


def test_there_are_samples() -> None:
    assert [path.name for path in JOBS] == [
        "database.nomad.hcl",
        "localdisk-plugin.nomad.hcl",
        "meta.nomad.hcl",
        "node.nomad.hcl",
        "poststop-hook.nomad.hcl",
        "prestart-hook.nomad.hcl",
        "quiesce.nomad.hcl",
        "snapbridge-ha.nomad.hcl",
        "snapbridge.nomad.hcl",
        "web.nomad.hcl",
    ]


@pytest.mark.parametrize("name", [path.name for path in JOBS])
async def test_a_sample_is_a_valid_job(place_of: World, name: str) -> None:
    job = await parsed(place_of, name)
    answer = await place_of.client.call("PUT", f"/v1/job/{job['ID']}/plan", body={"Job": job, "Diff": False})
    warnings = answer.data["Warnings"]
    if name == "poststop-hook.nomad.hcl" and warnings:  # no ttl, on purpose: a real agent warns of that alone
        assert warnings.startswith("1 warning")
        assert "without an expiration" in warnings
    else:
        assert warnings == ""
    assert hooks.plan("east", job).problems == ()


async def test_nomad_run_registers_what_nomads_own_command_would(
    place_of: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nomad fills in what a file leaves out. The same job with all of it written out is then no new version."""
    job = place_of.fresh("web")
    text = (SAMPLES / "web.nomad.hcl").read_text().replace('job "web"', f'job "{job}"')
    text = text.replace("count = 1", "count = 0")
    file = tmp_path / "web.nomad.hcl"
    file.write_text(text)
    for name, value in (("NOMAD_ADDR", place_of.url), ("NOMAD_NAMESPACE", ""), ("SNAPBRIDGE_ADDR", "http://[::1]:1")):
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(main, ["nomad", "run", "--detach", str(file)]) == 0, capsys.readouterr().err
    first = (await place_of.client.get(f"/v1/job/{job}")).data
    answer = await place_of.client.call("POST", "/v1/jobs/parse", body={"JobHCL": text, "Canonicalize": True})
    await place_of.run_job(answer.data)
    again = (await place_of.client.get(f"/v1/job/{job}")).data
    assert (first["Version"], again["Version"]) == (0, 0)
    await place_of.purge(job)


async def test_the_web_sample_asks_for_a_snapshot_at_each_deploy(place_of: World) -> None:
    (wanted,) = hooks.plan("east", await parsed(place_of, "web.nomad.hcl")).wanted
    assert (wanted.volume, wanted.job, wanted.policy.value, dict(wanted.parameters)) == (
        "web-data",
        "web",
        "Delete",
        {},
    )


async def test_the_database_sample_has_an_identity_for_us(place_of: World) -> None:
    job = await parsed(place_of, "database.nomad.hcl")
    (task,) = [t for t in job["TaskGroups"][0]["Tasks"] if t["Lifecycle"]]
    (identity,) = task["Identities"]
    assert (identity["Name"], identity["Audience"], identity["File"]) == ("snapbridge", ["snapbridge"], True)
    assert hooks.claimed(job["TaskGroups"][0]) == ("database-data",)


@pytest.fixture(params=["fake", "real"] if real.binary() else ["fake"])
async def guarded(request: pytest.FixtureRequest) -> AsyncIterator[tuple[World, str]]:
    """An agent with ACLs on: a world of its manager, and a token with nothing but the sample's policy."""
    store = paths.fresh("store")
    if request.param == "real":
        agent = real.start(acl=True)
        try:
            async with _guarded("real", agent.url, agent.state_dir, agent.alloc_dir, store) as found:
                yield found
        finally:
            management = store / "management"
            real.stop(agent, management.read_text() if management.exists() else "")
            localdisk.clear(store)
        return
    async with FakeNomad(acl=True) as fake:
        state, alloc = str(fake.data_dir / "client"), fake.data_dir / "alloc"
        async with _guarded("fake", fake.url, state, alloc, store) as found:
            yield found


def _guarded(kind: str, url: str, state_dir: str, alloc_dir: Any, store: Any) -> Any:
    @contextlib.asynccontextmanager
    async def made() -> AsyncIterator[tuple[World, str]]:
        boot = Client(Settings(address=url))
        management = str((await boot.call("PUT", "/v1/acl/bootstrap")).data["SecretID"])
        await boot.close()
        file = store / "management"
        file.write_text(management)
        async with world(
            kind, url, state_dir=state_dir, alloc_dir=alloc_dir, store=store / "s", token_file=str(file)
        ) as found:
            rules = (SAMPLES / "policy.hcl").read_text()
            await found.client.call("PUT", "/v1/acl/policy/snapbridge", body={"Name": "snapbridge", "Rules": rules})
            body = {"Name": "snapbridge", "Type": "client", "Policies": ["snapbridge"]}
            answer = await found.client.call("PUT", "/v1/acl/token", body=body)
            own = store / "token"
            own.write_text(str(answer.data["SecretID"]))
            yield found, str(own)

    return made()


def says_the_remedy(text: str) -> bool:
    return ("could not" in text or "heartbeat" in text) and "token needs" in text


async def test_the_sample_policy_is_enough_and_no_more(guarded: tuple[World, str]) -> None:
    place, token_file = guarded
    volume, job = place.fresh("v"), place.fresh("web")
    handle = await place.volume(volume)
    intake, sink = MemoryIntake(), MemorySink()
    adapter = build("east", place.settings(token_file=token_file), secrets=MemorySecrets())
    async with running(adapter.run(lambda key: None, intake, sink)):
        await until(lambda: adapter.ready() == "", f"ready: {adapter.ready()}")
        assert adapter.version is not None
        await until(lambda: len(sink.api()) == 1, "the plugin is seen")
        calls = sink.api()[0]
        cut = await calls.create_snapshot(name="s", volume_handle=handle, parameters={}, secrets={})
        assert isinstance(cut, Done), cut
        assert isinstance(await calls.inspect_snapshot(handle=cut.value.handle, secrets={}), Done)
        assert isinstance(await calls.delete_snapshot(handle=cut.value.handle, secrets={}), Done)
        (found,) = await adapter.volumes.list()
        await adapter.volumes.forget("default", volume)
        await adapter.volumes.register(found, None)
        meta = {"snapbridge_volumes": "data", "snapbridge_on_deploy": "true"}
        row = consumer_job(job, volume, driver="raw_exec", Meta=meta)
        row["TaskGroups"][0]["Count"] = 0
        await place.run_job(row)
        await until(lambda: intake.volumes() == [volume], "the hook")
        path = f"/v1/var/snapbridge/status/{job}"

        async def told() -> bool:
            try:
                await place.client.get(path)
            except AnswerError:
                return False
            return True

        await eventually(told, "the summary is written")
    nobody = build("east", place.settings(stream_first_seconds=1.0), secrets=MemorySecrets())
    async with running(nobody.run(lambda key: None, intake, sink)):
        await until(lambda: says_the_remedy(nobody.ready()), "a denial is said, and what the token needs")
    own = Client(place.settings(token_file=token_file))
    for method, forbidden in (("PUT", "/v1/jobs"), ("PUT", "/v1/var/else"), ("GET", "/v1/nodes")):
        body = {"Job": row} if forbidden == "/v1/jobs" else {"Items": {"a": "b"}} if method == "PUT" else None
        with pytest.raises(AnswerError) as caught:
            await own.call(method, forbidden, body=body)
        assert caught.value.status == 403, forbidden
    await own.close()


async def test_the_quiesce_sample_can_be_held_still_in_both_ways(place_of: World) -> None:
    job = await parsed(place_of, "quiesce.nomad.hcl")
    (group,) = job["TaskGroups"]
    found = quiesce_settings.read(job, group).quiesce
    assert found == quiesce_settings.Quiesce("ledger", "ledger-ctl hold && sync", "ledger-ctl resume", 20, True)
    texts = {quiesce_settings.FREEZE, quiesce_settings.THAW}
    group["Meta"] = {key: text for key, text in group["Meta"].items() if key not in texts}
    group["Meta"] |= {quiesce_settings.FREEZE_ACTION: "hold", quiesce_settings.THAW_ACTION: "resume"}
    found = quiesce_settings.read(job, group).quiesce
    assert found is not None
    assert (found.freeze, found.thaw) == ("/bin/sh -c 'ledger-ctl hold && sync'", "/usr/bin/ledger-ctl resume")
