"""Hooks in job files: from the stream, from the list, once each, and everything that goes wrong is said."""

from __future__ import annotations

import asyncio

from adapters.nomad.adapter import build
from adapters.nomad.client import Client
from bridge.model.failure import InvalidError, NotFoundError, UnavailableError
from bridge.model.keys import Key
from bridge.model.snapshot import DeletionPolicy
from bridge.ports.orchestrator import SnapshotDraft
from tests.integration.nomad.conftest import bridge, job, make_volume, register
from tests.integration.nomad.doubles import MemoryIntake, MemorySecrets, MemorySink, quick, running, until
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver
from tests.support.nomad.settings import Settings as FakeSettings

ON = {"snapbridge_volumes": "data", "snapbridge_on_deploy": "true"}


async def test_a_deploy_is_seen_by_the_stream(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        assert adapter.version == (2, 0, 6)
        meta = {**ON, "snapbridge_deletion_policy": "Retain", "snapbridge_parameters": "a=1"}
        await register(client, job("web", "v1", meta=meta))
        await until(lambda: len(intake.booked) == 1, "the snapshot is asked for")
        (draft,) = intake.booked.values()
        assert (draft.cluster, draft.namespace, draft.volume) == ("east", "default", "v1")
        assert draft.policy is DeletionPolicy.RETAIN
        assert dict(draft.parameters) == {"a": "1"}
        assert dict(draft.labels) == {"job": "web", "group": "g"}
        assert draft.asked_by == "nomad job web"
        assert draft.why == "deploy of version 0"
        assert adapter.problems() == []


async def test_each_version_asks_once_and_its_status_changes_do_not(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=1.0):
        await register(client, job("web", "v1", meta=ON))
        await agent.job_settled("web")
        await until(lambda: len(intake.booked) == 1, "the first, which the second version would take away")
        await register(client, job("web", "v1", meta={**ON, "owner": "me"}))
        await agent.job_settled("web")
        await until(lambda: len(intake.booked) == 2, "two versions")
        await asyncio.sleep(1.2)  # a periodic list comes by
        await client.call("DELETE", "/v1/job/web")
        await agent.job_settled("web")
        await asyncio.sleep(0.2)
        assert len(intake.asks) == 2
        assert {draft.why for draft in intake.asks} == {"deploy of version 0", "deploy of version 1"}


async def test_a_restart_asks_with_the_same_uid(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    await make_volume(client, "v1")
    await register(client, job("web", "v1", meta=ON))
    for times in (1, 2):
        async with bridge(agent, intake):
            await until(lambda wanted=times: len(intake.asks) >= wanted, "asked")  # type: ignore[misc]
    assert len(intake.asks) == 2
    assert len(intake.booked) == 1


async def test_a_deploy_that_no_event_told_of_is_found_by_the_list(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake):
        agent.deny_streams()
        agent.drop_streams()
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: len(intake.booked) == 1, "found without the stream")


async def test_a_denied_stream_is_said_and_hooks_go_on(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    agent.deny_streams()
    adapter = build("east", quick(agent.url, stream_first_seconds=0.6), secrets=MemorySecrets())
    async with running(adapter.run(lambda key: None, intake, MemorySink())):
        await until(lambda: "no first heartbeat" in adapter.ready(), "it is said")
        assert "read-job" in adapter.ready()
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: len(intake.booked) == 1, "the hook works")
        agent.deny_streams(False)
        await until(lambda: adapter.ready() == "", "the stream is back")


async def test_a_stream_that_cannot_be_read_is_replaced_by_blocking_queries(intake: MemoryIntake) -> None:
    """Nomad 1.11.2 answers HTTP/0.0."""
    for version in ("1.11.2", "2.0.6-dev"):  # known by its number, or noticed
        settings = FakeSettings(version=version, stream_status_line="HTTP/0.0 200 OK")
        async with FakeNomad(settings=settings) as agent:
            await agent.add_plugin("hostpath", HostPathDriver())
            client = Client(quick(agent.url))
            await make_volume(client, "v1")
            mine = MemoryIntake()
            async with bridge(agent, mine, resync_seconds=600.0):
                await register(client, job("web", "v1", meta=ON))
                await until(lambda seen=mine: len(seen.booked) == 1, "seen by a blocking query")  # type: ignore[misc]
                streams = lambda: len([c for c in agent.calls if c.path == "/v1/event/stream"])  # noqa: E731
                tried = 0 if version == "1.11.2" else 1
                await until(lambda tried=tried, streams=streams: streams() >= tried, "it has ended")  # type: ignore[misc]
                assert streams() == tried
            await client.close()


async def test_streams_that_are_cut_are_resumed_without_doubles(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    for number in range(4):
        await make_volume(client, f"v{number}")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        for number in range(4):
            await register(client, job(f"web{number}", f"v{number}", meta=ON))
            (agent.drop_streams if number % 2 else agent.end_streams)()
        await until(lambda: len(intake.booked) == 4, "all are there")
        await until(lambda: adapter.ready() == "", "it streams again")
        assert len(intake.asks) == 4


async def test_a_restarted_agent_is_found_again(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        await agent.stop()
        await until(lambda: adapter.ready() != "", "it is said")
        await agent.start()
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: len(intake.booked) == 1, "the hook works")
        await until(lambda: adapter.ready() == "", "ready again")


async def test_a_volume_that_is_not_registered_yet_is_tried_again(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    intake.refuse["v1"] = NotFoundError("no such volume")
    async with bridge(agent, intake) as adapter:
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: any("no such volume" in text for text in adapter.problems()), "it is said")
        assert adapter.ready() == ""
        intake.refuse.clear()
        await until(lambda: len(intake.booked) == 1, "asked again")
        await until(lambda: adapter.problems() == [], "and no more said")


async def test_an_ask_that_hangs_holds_up_no_other(agent: FakeNomad, client: Client) -> None:
    class Hanging(MemoryIntake):
        """Never answers for one volume."""

        async def ask(self, draft: SnapshotDraft) -> Key:
            if draft.volume == "v1":
                await asyncio.Event().wait()
            return await super().ask(draft)

    intake = Hanging()
    async with bridge(agent, intake, resync_seconds=600.0):
        await register(client, job("slow", "v1", meta=ON))
        for number in (2, 3):
            await register(client, job(f"web{number}", f"v{number}", meta=ON))
            await until(lambda wanted=number: f"v{wanted}" in intake.volumes(), "asked for all the same", 20)  # type: ignore[misc]


async def test_an_ask_that_is_not_valid_is_said_and_not_repeated(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    intake.refuse["v1"] = InvalidError("not a volume for snapshots", hint="use another")
    async with bridge(agent, intake) as adapter:
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: len(adapter.problems()) == 1, "it is said")
        assert (
            "job 'web' in 'default': snapshot of 'v1': not a volume for snapshots. use another"
            in adapter.problems()[0]
        )
        await asyncio.sleep(1.3)
        assert len(intake.asks) == 1


async def test_an_ask_of_a_version_that_is_gone_is_dropped(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    intake.refuse["v1"] = UnavailableError("not now")
    async with bridge(agent, intake):
        await register(client, job("web", "v1", meta=ON))
        await until(lambda: len(intake.asks) >= 1, "asked")
        await register(client, job("web", "v2", meta=ON))
        await until(lambda: intake.volumes() == ["v2"], "the new one is there")
        intake.refuse.clear()
        await asyncio.sleep(1.2)
        assert intake.volumes() == ["v2"]


async def test_mistakes_in_a_job_file_are_kept_and_told_in_a_variable(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake) as adapter:
        await register(client, job("a/web", "v1", meta={**ON, "snapbridge_volumez": "x"}))
        await until(lambda: len(intake.booked) == 1, "the good part is done")
        assert any("snapbridge_volumez (job) is unknown" in text for text in adapter.problems())
        path = "/v1/var/snapbridge/status/a~2Fweb"
        place = ("default", "snapbridge/status/a~2Fweb")
        await until(lambda: "a-web-v1-v0-" in str(agent.state.variables.get(place)), "the variable is there", 20)
        items = (await client.get(path)).data["Items"]
        assert items["job_version"] == "0"
        assert "snapbridge_volumez" in items["problems"]
        assert "a-web-v1-v0-" in items["volume.v1"]
        await register(client, job("a/web", "v1", meta=ON))
        await until(lambda: adapter.problems() == [], "mended")


async def test_jobs_that_did_not_change_are_not_read_again(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    for number in range(5):
        await register(client, job(f"web{number}", "v1"))
    async with bridge(agent, intake):
        agent.calls.clear()
        paths = lambda: [call.path for call in agent.calls if call.path.startswith("/v1/job")]  # noqa: E731
        await until(lambda: paths().count("/v1/jobs") >= 3, "some lists")
        assert set(paths()) == {"/v1/jobs"}


async def test_only_the_named_namespaces_are_watched(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    for name in ("prod", "dev", "lab"):
        agent.state.put_namespace(name)
        await make_volume(client, f"v-{name}", Namespace=name)
    async with bridge(agent, intake, namespaces=["prod", "dev"]):
        for name in ("prod", "dev", "lab"):
            await register(client, job("web", f"v-{name}", meta=ON, Namespace=name), name)
        await until(lambda: intake.volumes() == ["v-dev", "v-prod"], "both")
        await asyncio.sleep(0.3)
        assert intake.volumes() == ["v-dev", "v-prod"]


async def test_a_replay_of_the_whole_buffer_brings_back_no_purged_job(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    """A fresh subscriber gets history: a job that came and went before must not be snapshotted now."""
    await make_volume(client, "v1")
    await register(client, job("web", "v1", meta=ON))
    await agent.job_settled("web")
    await client.call("DELETE", "/v1/job/web", {"purge": "true"})
    await agent.job_settled("web")
    async with bridge(agent, intake):
        await asyncio.sleep(0.3)
        assert intake.asks == []


async def test_hooks_can_be_switched_off(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    await register(client, job("web", "v1", meta=ON))
    async with bridge(agent, intake, hooks={"enabled": False}):
        await asyncio.sleep(0.2)
        assert intake.asks == []
        assert [c for c in agent.calls if c.path == "/v1/event/stream"] == []


async def test_the_stream_asks_for_no_volume_events(agent: FakeNomad, intake: MemoryIntake) -> None:
    async with bridge(agent, intake):
        assert [set(one.wanted) for one in agent.events.subscribers] == [{"Job", "CSIPlugin"}]
