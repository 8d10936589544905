"""The final snapshot of a stopped job: of quiet data, once, and lost by no restart."""

from __future__ import annotations

from typing import Any

from adapters.nomad.client import Client
from bridge.model.failure import NotFoundError
from tests.integration.nomad.conftest import bridge, job, make_volume, register
from tests.integration.nomad.doubles import MemoryIntake, until
from tests.support.nomad.agent import FakeNomad

STOP = {"snapbridge_volumes": "data", "snapbridge_on_stop": "true"}
HOLDER = "held-by-a-slow-stop"


def volume(agent: FakeNomad, name: str = "v1") -> Any:
    return agent.state.volumes[("default", name)]


def hold(agent: FakeNomad, name: str = "v1") -> None:
    """Somebody writes to the volume until `let_go`."""
    volume(agent, name).writers[HOLDER] = agent.state.node_id


def let_go(agent: FakeNomad, name: str = "v1") -> None:
    volume(agent, name).writers.pop(HOLDER)


async def stop(client: Client, name: str = "web", **query: str) -> None:
    await client.call("DELETE", f"/v1/job/{name}", query)


async def test_a_stop_is_snapshotted_when_nobody_writes_any_more(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    writers_at_ask: list[int] = []
    intake.on_ask = lambda draft: writers_at_ask.append(len(volume(agent).writers))
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        await register(client, job("web", "v1", meta=STOP))
        await agent.job_settled("web")
        assert intake.asks == []
        hold(agent)
        await stop(client)
        await agent.job_settled("web")
        path = ("default", "snapbridge/status/web")
        await until(lambda: path in agent.state.variables, "a summary")
        await until(lambda: "1 allocations still write" in str(agent.state.variables[path].items), "it waits", 20)
        assert intake.asks == []
        let_go(agent)
        await until(lambda: len(intake.booked) == 1, "the final snapshot", 20)
        (draft,) = intake.booked.values()
        assert (draft.volume, draft.why, draft.asked_by) == ("v1", "stop of the job (version 1)", "nomad job web")
        assert writers_at_ask == [0]
        assert adapter.problems() == []


async def test_it_is_cut_in_the_end_although_somebody_writes_and_that_is_said(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    row = job("web", "v1", meta={**STOP, "snapbridge_on_stop_wait": "0.4"})
    row["TaskGroups"][0]["Count"] = 0  # nobody else writes, however slowly an allocation ends
    async with bridge(agent, intake):
        await register(client, row)
        await agent.job_settled("web")
        hold(agent)
        await stop(client)
        await until(lambda: len(intake.booked) == 1, "cut after the bound", 20)
        (draft,) = intake.booked.values()
        assert draft.why == "stop of the job (version 1); not quiet: 1 allocations still wrote to it after 0.4 s"
        path = ("default", "snapbridge/status/web")
        await until(lambda: "not quiet" in str(agent.state.variables.get(path)), "told", 20)


async def test_a_stop_that_nobody_saw_is_found_by_the_list_and_never_twice(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    await register(client, job("web", "v1", meta=STOP))
    await agent.job_settled("web")
    await stop(client)
    for times in (1, 2):
        async with bridge(agent, intake):
            await until(lambda wanted=times: len(intake.asks) >= wanted, "asked", 20)  # type: ignore[misc]
    assert len(intake.booked) == 1


async def test_a_restart_in_the_middle_of_the_wait_loses_nothing(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake):
        await register(client, job("web", "v1", meta=STOP))
        await agent.job_settled("web")
        hold(agent)
        await stop(client)
        path = ("default", "snapbridge/status/web")
        await until(lambda: "still write" in str(agent.state.variables.get(path)), "it waits", 20)
    assert intake.asks == []
    async with bridge(agent, intake):
        let_go(agent)
        await until(lambda: len(intake.booked) == 1, "asked after the restart", 20)
    assert len(intake.asks) == 1


async def test_a_job_that_starts_again_ends_the_wait_and_that_is_said(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        await register(client, job("web", "v1", meta=STOP))
        await agent.job_settled("web")
        hold(agent)
        await stop(client)
        path = ("default", "snapbridge/status/web")
        await until(lambda: "still write" in str(agent.state.variables.get(path)), "it waits", 20)
        await register(client, job("web", "v1", meta=STOP))
        note = "started again (version 2) before 'v1' was quiet, so no final snapshot of its stop (version 1)"
        await until(lambda: any(note in text for text in adapter.problems()), "said", 20)
        await until(lambda: note in agent.state.variables[path].items["problems"], "told", 20)
        let_go(agent)
        await register(client, job("api", "v1", meta={**STOP, "snapbridge_on_deploy": "true"}))
        await until(lambda: len(intake.booked) == 1, "another job's hook", 20)
        assert [draft.labels["job"] for draft in intake.asks] == ["api"]


async def test_a_purge_that_is_seen_is_a_stop_and_its_summary_goes_afterwards(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake) as adapter:
        await register(client, job("web", "v1", meta=STOP))
        await agent.job_settled("web")
        hold(agent)
        await stop(client, purge="true")
        path = ("default", "snapbridge/status/web")
        await until(lambda: "still write" in str(agent.state.variables.get(path)), "it waits", 20)
        let_go(agent)
        await until(lambda: len(intake.booked) == 1, "the final snapshot", 20)
        await until(lambda: path not in agent.state.variables, "no summary of a job that is gone", 20)
        assert adapter.problems() == []


async def test_a_purge_that_the_list_sees_before_its_event_comes_is_a_stop_all_the_same(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    """The list that follows a new connection knows the job no more; its last event comes right after it."""
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        await register(client, job("web", "v1", meta=STOP))
        await agent.job_settled("web")
        path = ("default", "snapbridge/status/web")
        await until(lambda: path in agent.state.variables, "the job is known")
        agent.drop_streams()
        await stop(client, purge="true")
        await until(lambda: len(intake.booked) == 1, "the final snapshot")
        await until(lambda: adapter.ready() == "", "it streams again")
        await until(lambda: path not in agent.state.variables, "no summary of a job that is gone")
        assert len(intake.asks) == 1
        assert adapter.problems() == []


async def test_a_stop_and_then_a_purge_are_one_snapshot(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=600.0):
        await register(client, job("web", "v1", meta=STOP))
        await agent.job_settled("web")
        await stop(client)
        await until(lambda: len(intake.booked) == 1, "the final snapshot", 20)
        await stop(client, purge="true")
        await register(client, job("api", "v1", meta={**STOP, "snapbridge_on_deploy": "true"}))
        await until(lambda: len(intake.booked) == 2, "a later event", 20)
        assert [draft.labels["job"] for draft in intake.asks] == ["web", "api"]


async def test_a_purge_that_nobody_saw_leaves_nothing_to_snapshot(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    await register(client, job("web", "v1", meta=STOP))
    await agent.job_settled("web")
    await stop(client, purge="true")
    await agent.job_settled("web")
    await register(client, job("api", "v1", meta={**STOP, "snapbridge_on_deploy": "true"}))
    async with bridge(agent, intake):
        await until(lambda: len(intake.booked) == 1, "the other job's", 20)
        assert [draft.labels["job"] for draft in intake.asks] == ["api"]


async def test_a_purged_job_whose_volume_is_gone_too_is_given_up(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    intake.refuse["nope"] = NotFoundError("no such volume")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        await register(client, job("web", "nope", meta=STOP))
        await until(lambda: ("default", "snapbridge/status/web") in agent.state.variables, "a summary", 20)
        await stop(client, purge="true")
        await until(lambda: len(intake.asks) == 1, "it was asked for", 20)
        await until(lambda: ("default", "snapbridge/status/web") not in agent.state.variables, "given up", 20)
        assert adapter.problems() == []


async def test_a_group_that_is_scaled_to_zero_is_no_stop(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake) as adapter:
        await register(client, job("web", "v1", meta=STOP))
        await agent.job_settled("web")
        body = {"Count": 0, "Target": {"Group": "g"}}
        await client.call("POST", "/v1/job/web/scale", body=body)
        path = ("default", "snapbridge/status/web")
        await until(lambda: path in agent.state.variables, "a summary", 20)
        await until(lambda: agent.state.variables[path].items["job_version"] == "1", "the new version is known", 20)
        assert (intake.asks, adapter.problems()) == ([], [])


async def test_volumes_that_are_cut_together_are_asked_for_at_once_when_all_are_quiet(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    for name in ("v1", "v2"):
        await make_volume(client, name)
    row = job("web", "v1", meta={**STOP, "snapbridge_volumes": "*", "snapbridge_together": "true"})
    blocks = row["TaskGroups"][0]["Volumes"]
    blocks["logs"] = {**blocks["data"], "Source": "v2"}
    row["TaskGroups"][0]["Count"] = 0
    async with bridge(agent, intake):
        await register(client, row)
        hold(agent, "v2")
        await stop(client)
        path = ("default", "snapbridge/status/web")
        await until(lambda: "still write" in str(agent.state.variables.get(path)), "it waits", 20)
        assert intake.asks == []
        let_go(agent, "v2")
        await until(lambda: len(intake.groups) == 1, "one group", 20)
        ((uid, (name, members, skew)),) = intake.groups.items()
        assert (intake.volumes(), set(members), skew) == (["v1", "v2"], set(intake.booked), None)
        assert {draft.labels["together"] for draft in intake.asks} == {name}
        assert uid[:8] in name
        await until(lambda: f"together: {name}" in str(agent.state.variables[path].items), "told", 20)
    again = MemoryIntake()
    async with bridge(agent, again):
        await until(lambda: set(again.groups) == {uid}, "the same group after a restart", 20)
