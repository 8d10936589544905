"""Summaries of jobs in variables: what stands there, when it is written, and that nobody else's is touched."""

from __future__ import annotations

from adapters.nomad.client import Client
from bridge.model.failure import Failure, FailureKind
from bridge.model.snapshot import SnapshotState, SnapshotStatus
from tests.integration.nomad.conftest import bridge, job, make_volume, register
from tests.integration.nomad.doubles import MemoryIntake, until
from tests.support.nomad.agent import FakeNomad

ON = {"snapbridge_volumes": "data", "snapbridge_on_deploy": "true"}
PLACE = ("default", "snapbridge/status/web")


def told(agent: FakeNomad, key: str) -> str:
    variable = agent.state.variables.get(PLACE)
    return "" if variable is None else str(variable.items.get(key, ""))


async def test_a_summary_says_how_the_last_snapshot_stands(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    failure = Failure(FailureKind.UNSURE, "DEADLINE_EXCEEDED", "no answer in time", hint="look at the driver's log")
    intake.states["v1"] = SnapshotStatus(SnapshotState.FAILING, failure=failure)
    async with bridge(agent, intake, hooks={"link": "https://snap.example/"}):
        await register(client, job("web", "v1", meta={**ON, "snapbridge_policy": "nightly"}))
        await until(lambda: told(agent, "volume.v1").startswith("failing: web-v1-v0-"), "it fails", 20)
        lines = told(agent, "volume.v1").splitlines()
        assert "error: no answer in time (DEADLINE_EXCEEDED). look at the driver's log" in lines
        assert "asked by: nomad job web" in lines
        assert "why: deploy of version 0" in lines
        assert f"link: https://snap.example/v1/snapshots/{intake.asks[0].uid}" in lines
        assert told(agent, "command") == "snapbridge snapshot list --job web"
        assert told(agent, "notes") == "snapbridge_policy: no policy engine yet: nightly is noted only"
        assert dict(intake.asks[0].labels) == {"job": "web", "group": "g", "policy": "nightly"}
        cut = 1_795_300_000 * 10**9
        intake.states["v1"] = SnapshotStatus(SnapshotState.READY, True, "h", 4096, cut)
        await until(lambda: told(agent, "volume.v1").startswith("ready: "), "it is ready", 20)
        assert "cut: 2026-11-21T22:26:40Z" in told(agent, "volume.v1")
        assert "size: 4096 bytes" in told(agent, "volume.v1")
        assert "error" not in told(agent, "volume.v1")


async def test_a_summary_is_written_only_when_it_changes(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")

    def puts() -> int:
        return len([c for c in agent.calls if c.method == "PUT" and c.path.startswith("/v1/var/")])

    def lists() -> int:
        return len([c for c in agent.calls if c.path == "/v1/jobs" and c.method == "GET"])

    await register(client, job("web", "v1", meta=ON))
    for times in (1, 2):  # the second time, after a restart: read, and found to be the same
        async with bridge(agent, intake, resync_seconds=1.0):
            await until(lambda: told(agent, "volume.v1").startswith("ready: "), "told", 20)
            seen = lists()
            await until(lambda seen=seen: lists() >= seen + 1, "a resync", 20)  # type: ignore[misc]
            written, seen = puts(), lists()
            await until(lambda seen=seen: lists() >= seen + 2, "more resyncs", 20)  # type: ignore[misc]
            assert puts() == written
        if times == 1:
            first = written
    assert written == first
    assert agent.state.variables[PLACE].items["job_version"] == "0"


async def test_somebody_elses_variable_is_never_written_over_nor_removed(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    theirs = {"mine": "yes"}
    for path in ("web", "no-such-job"):
        await client.call("PUT", f"/v1/var/snapbridge/status/{path}", body={"Items": theirs})
    async with bridge(agent, intake) as adapter:
        await register(client, job("web", "v1", meta=ON))
        said = "the variable 'snapbridge/status/web' in 'default' is not ours"
        await until(lambda: any(said in text for text in adapter.problems()), "said", 20)
        begun = len(agent.calls)
        await until(lambda: len([c for c in agent.calls[begun:] if c.path == "/v1/jobs"]) >= 2, "resyncs", 20)
        for path in ("web", "no-such-job"):
            assert agent.state.variables[("default", f"snapbridge/status/{path}")].items == theirs
        looks = [c for c in agent.calls[begun:] if c.path == "/v1/var/snapbridge/status/no-such-job"]
        assert len(looks) <= 1, "once seen to be somebody else's it is left alone"
        await client.call("DELETE", "/v1/var/snapbridge/status/web")
        await until(lambda: told(agent, "volume.v1").startswith("ready: "), "free, so it is ours", 20)
        assert adapter.problems() == []


async def test_summaries_of_jobs_that_went_while_nobody_looked_are_removed(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake):
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: told(agent, "volume.v1").startswith("ready: "), "told", 20)
    await client.call("DELETE", "/v1/job/web", {"purge": "true"})
    await client.call("PUT", "/v1/var/snapbridge/web", body={"Items": {"on_deploy": "true"}})
    async with bridge(agent, intake):
        await until(lambda: PLACE not in agent.state.variables, "removed", 20)
        assert ("default", "snapbridge/web") in agent.state.variables, "settings are the operator's"


async def test_what_was_told_of_an_older_version_outlives_a_restart(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake):
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: told(agent, "volume.v1").startswith("ready: "), "told", 20)
        before = told(agent, "volume.v1")
    await agent.job_settled("web")
    await client.call("DELETE", "/v1/job/web")
    async with bridge(agent, intake):
        await until(lambda: told(agent, "job_version") == "1", "the stop is told", 20)
        assert told(agent, "volume.v1") == before


async def test_a_conflicting_write_is_tried_again(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    await make_volume(client, "v1")
    agent.fail_next("PUT", "/v1/var/snapbridge/status/web", status=409, text="{}")
    async with bridge(agent, intake, resync_seconds=600.0):
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: told(agent, "volume.v1").startswith("ready: "), "written in the end", 20)
