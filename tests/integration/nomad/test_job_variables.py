"""Settings of jobs in Nomad variables: they win over meta, take effect without a restart, and cost one list."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.nomad.client import Client
from bridge.model.snapshot import DeletionPolicy
from tests.integration.nomad.conftest import bridge, job, make_volume, register
from tests.integration.nomad.doubles import MemoryIntake, quick, until
from tests.support.nomad.agent import FakeNomad

ON = {"snapbridge_volumes": "data", "snapbridge_on_deploy": "true"}


async def put(client: Client, path: str, items: dict[str, str]) -> None:
    await client.call("PUT", f"/v1/var/{path}", {"namespace": "default"}, body={"Items": items})


@pytest.mark.parametrize("name", ["web", "status"])
async def test_a_variable_alone_makes_a_running_job_ask_without_a_new_version(
    agent: FakeNomad, client: Client, intake: MemoryIntake, name: str
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        await register(client, job(name, "v1"))
        (allocation,) = await agent.job_settled(name)
        await put(client, f"snapbridge/{name}", {"volumes": "data", "on_deploy": "true", "deletion_policy": "Retain"})
        await until(lambda: len(intake.booked) == 1, "asked", 20)
        (draft,) = intake.booked.values()
        assert (draft.policy, draft.why) == (DeletionPolicy.RETAIN, "deploy of version 0")
        told = ("default", f"snapbridge/status/{name}")
        await until(lambda: told in agent.state.variables, "a summary", 20)
        assert agent.state.variables[("default", f"snapbridge/{name}")].items["volumes"] == "data"
        assert adapter.problems() == []
        assert [a.id for a in agent.state.job_allocations("default", name)] == [allocation.id]


async def test_a_variable_wins_over_meta_from_the_first_look_on(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    await make_volume(client, "v2")
    await put(client, "snapbridge/web", {"on_deploy": "false"})
    await register(client, job("web", "v1", meta=ON))
    await register(client, job("api", "v2", meta=ON))
    async with bridge(agent, intake):
        await until(lambda: intake.volumes() == ["v2"], "the other one", 20)
        assert [draft.volume for draft in intake.asks] == ["v2"]
        await client.call("DELETE", "/v1/var/snapbridge/web")
        await until(lambda: intake.volumes() == ["v1", "v2"], "meta counts again", 20)


async def test_a_variable_that_is_written_just_before_the_job_counts_for_it(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    for number in range(4):
        await make_volume(client, f"v{number}")
    async with bridge(agent, intake, resync_seconds=600.0):
        for number in range(4):
            await put(client, f"snapbridge/web{number}", {"snapbridge_deletion_policy": "Retain"})
            await register(client, job(f"web{number}", f"v{number}", meta=ON))
        await until(lambda: len(intake.booked) == 4, "asked", 20)
        assert {draft.policy for draft in intake.asks} == {DeletionPolicy.RETAIN}


async def test_the_variable_that_says_who_leads_is_no_jobs_settings(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    await put(client, "snapbridge/leader", {"deletion_policy": "Retain", "holder": "me"})
    async with bridge(agent, intake, leadership={}) as adapter:
        await register(client, job("leader", "v1", meta=ON))
        await until(lambda: len(intake.booked) == 1, "asked", 20)
        assert intake.asks[0].policy is DeletionPolicy.DELETE
        assert adapter.problems() == []


async def test_mistakes_in_a_variable_are_told_and_mended_without_a_restart(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake) as adapter:
        await put(client, "snapbridge/web", {"on_deplyo": "true", "secret": "hunter2"})
        await register(client, job("web", "v1", meta=ON))
        wrong = "on_deplyo (variable snapbridge/web) is unknown; did you mean snapbridge_on_deploy?"
        await until(lambda: any(wrong in text for text in adapter.problems()), "said", 20)
        path = ("default", "snapbridge/status/web")
        await until(lambda: path in agent.state.variables, "a summary", 20)
        told = agent.state.variables[path]
        await until(lambda: wrong in told.items["problems"], "told", 20)
        assert "hunter2" not in str(told.items)
        await put(client, "snapbridge/web", {"deletion_policy": "Retain"})
        await until(lambda: adapter.problems() == [], "mended", 20)
        await until(lambda: told.items["problems"] == "none", "and told", 20)


async def test_a_variable_that_may_not_be_read_is_said_once_and_hooks_go_on_from_meta(
    tmp_path: Path, intake: MemoryIntake
) -> None:
    async with FakeNomad(acl=True) as agent:
        boot = Client(quick(agent.url))
        management = tmp_path / "management"
        management.write_text((await boot.call("PUT", "/v1/acl/bootstrap")).data["SecretID"])
        await boot.close()
        client = Client(quick(agent.url, token_file=str(management)))
        token = await limited_token(client, '["list"]')
        own = tmp_path / "token"
        own.write_text(token)
        await put(client, "snapbridge/web", {"deletion_policy": "Retain"})
        await register(client, job("web", "v1", meta=ON))
        async with bridge(agent, intake, token_file=str(own), hooks={"write_status": False}) as adapter:
            await until(lambda: len(intake.booked) == 1, "asked from meta", 20)
            assert intake.asks[0].policy is DeletionPolicy.DELETE
            said = [text for text in adapter.problems() if "may not read the variable 'snapbridge/web'" in text]
            assert len(said) == 1
            await limited_token(client, '["list", "read"]')
            await until(lambda: adapter.problems() == [], "the token may now", 20)
            reads = [call for call in agent.calls if call.path == "/v1/var/snapbridge/web" and call.method == "GET"]
            assert any(call.status == 200 for call in reads)
        await client.close()


async def test_what_was_read_once_counts_until_it_can_be_read_again(tmp_path: Path, intake: MemoryIntake) -> None:
    """A right that is taken away for a moment must not turn a Retain into meta's Delete."""
    async with FakeNomad(acl=True) as agent:
        boot = Client(quick(agent.url))
        management = tmp_path / "management"
        management.write_text((await boot.call("PUT", "/v1/acl/bootstrap")).data["SecretID"])
        await boot.close()
        client = Client(quick(agent.url, token_file=str(management)))
        own = tmp_path / "token"
        own.write_text(await limited_token(client, '["list", "read"]'))
        await put(client, "snapbridge/web", {"deletion_policy": "Retain"})
        await register(client, job("web", "v1", meta=ON))
        async with bridge(agent, intake, token_file=str(own), hooks={"write_status": False}) as adapter:
            await until(lambda: len(intake.booked) == 1, "asked", 20)
            await limited_token(client, '["list"]')
            await register(client, job("web", "v1", meta={**ON, "other": "1"}))
            await until(lambda: len(intake.booked) == 2, "asked for the next version", 20)
            assert [draft.policy for draft in intake.asks] == [DeletionPolicy.RETAIN, DeletionPolicy.RETAIN]
            await until(lambda: any("may not read" in text for text in adapter.problems()), "and it is said", 20)
        await client.close()


async def limited_token(client: Client, capabilities: str) -> str:
    """A token that sees jobs and volumes, and variables only so far. Called again it changes the policy."""
    rules = (
        'namespace "*" { capabilities = ["list-jobs", "read-job", "csi-list-volume", "csi-read-volume"]\n'
        f'  variables {{ path "snapbridge/*" {{ capabilities = {capabilities} }} }} }}\n'
        'plugin { policy = "read" }\nagent { policy = "read" }\n'
    )
    await client.call("PUT", "/v1/acl/policy/limited", body={"Name": "limited", "Rules": rules})
    body = {"Name": "limited", "Type": "client", "Policies": ["limited"]}
    return str((await client.call("PUT", "/v1/acl/token", body=body)).data["SecretID"])


async def test_two_jobs_with_different_policies_for_one_volume_get_retain_and_both_are_told(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    await register(client, job("one", "v1", meta={**ON, "snapbridge_deletion_policy": "Delete"}))
    await register(client, job("two", "v1", meta={**ON, "snapbridge_deletion_policy": "Retain"}))
    async with bridge(agent, intake) as adapter:
        await until(lambda: len(intake.booked) == 2, "both", 20)
        assert {draft.policy for draft in intake.asks} == {DeletionPolicy.RETAIN}
        wrong = "the jobs one, two want different snapbridge_deletion_policy for 'v1'; Retain is taken"
        assert len([text for text in adapter.problems() if wrong in text]) == 2
        places = [("default", f"snapbridge/status/{name}") for name in ("one", "two")]
        for place in places:
            await until(lambda place=place: wrong in str(agent.state.variables.get(place)), "told", 20)  # type: ignore[misc]
        await put(client, "snapbridge/two", {"deletion_policy": "Delete"})
        await until(lambda: adapter.problems() == [], "agreed", 20)
        for place in places:
            variable = agent.state.variables[place]
            await until(lambda variable=variable: variable.items["problems"] == "none", "both are told", 20)  # type: ignore[misc]


async def test_what_did_not_change_is_not_asked_for_again(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    """Forty jobs, half of them with a variable: at rest a resync is two lists and nothing else."""
    count = 40
    for number in range(count):
        await make_volume(client, f"v{number}")
        await register(client, job(f"web{number}", f"v{number}", meta=ON, TaskGroups=idle(f"v{number}")))
        if number % 2:
            await put(client, f"snapbridge/web{number}", {"deletion_policy": "Retain"})
    agent.calls.clear()
    async with bridge(agent, intake, resync_seconds=1.0, hooks={"write_status": False}):
        await until(lambda: len(intake.booked) == count, "all are asked for", 20)
        reads = [c.path for c in agent.calls if c.path.startswith(("/v1/job/web", "/v1/var/"))]
        assert len(reads) == len(set(reads)) == count + count // 2
        agent.calls.clear()
        lists = lambda: [c for c in agent.calls if c.path == "/v1/jobs"]  # noqa: E731
        await until(lambda: len(lists()) >= 3, "three resyncs", 20)
        assert {c.path for c in agent.calls if "job" in c.path or "var" in c.path} == {"/v1/jobs", "/v1/vars"}
        agent.calls.clear()
        await put(client, "snapbridge/web2", {"deletion_policy": "Retain"})
        read = lambda path: [c for c in agent.calls if c.path == path and c.method == "GET"]  # noqa: E731
        await until(lambda: bool(read("/v1/var/snapbridge/web2")), "the one that changed", 20)
        await until(lambda: bool(read("/v1/job/web2")), "its job", 20)
        begun = len(lists())
        await until(lambda: len(lists()) >= begun + 2, "two resyncs: the follower's own read is over too", 20)
        single = lambda: [c.path for c in agent.calls if c.path.startswith(("/v1/job/", "/v1/var/"))]  # noqa: E731
        assert set(single()) == {"/v1/job/web2", "/v1/var/snapbridge/web2"}
        agent.calls.clear()
        await until(lambda: len(lists()) >= 2, "more resyncs", 20)
        assert single() == [], "once"
    assert len(intake.asks) == count


def idle(volume: str) -> list[dict[str, object]]:
    """A group that runs nothing."""
    (group,) = job("x", volume)["TaskGroups"]
    return [{**group, "Count": 0}]


async def test_runs_of_a_template_are_never_read(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    row = job("par", "v1", meta=ON, Type="batch", ParameterizedJob={"Payload": "optional"})
    await register(client, row)
    async with bridge(agent, intake) as adapter:
        await client.call("POST", "/v1/job/par/dispatch", body={})
        agent.calls.clear()
        await until(lambda: len([c for c in agent.calls if c.path == "/v1/jobs"]) >= 2, "two resyncs", 20)
        assert [c.path for c in agent.calls if c.path.startswith("/v1/job/par")] == []
        assert any("does nothing for a periodic or parameterized job" in text for text in adapter.problems())
        assert intake.asks == []
