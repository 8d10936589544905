"""What a cluster does to its watchers: lost events, denied streams, restored states, elections, regions."""

from __future__ import annotations

import asyncio

import pytest

from adapters.nomad.adapter import build
from adapters.nomad.client import Client
from adapters.nomad.errors import AnswerError
from adapters.nomad.sdk import Direct, reads
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import MemoryIntake, MemorySecrets, MemorySink, quick, running, until
from tests.integration.nomad.test_hooks import ON, bridge
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver
from tests.support.nomad.settings import Settings as FakeSettings

LONG = 30.0


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()


def streams(agent: FakeNomad) -> list[dict[str, str]]:
    """The queries of the event streams that have ended."""
    return [call.query for call in agent.calls if call.path == "/v1/event/stream"]


async def test_events_that_fell_out_of_the_buffer_are_found_by_the_list(intake: MemoryIntake) -> None:
    """While nobody listened, more happened than the server keeps; nothing tells of the gap."""
    async with FakeNomad(settings=FakeSettings(event_buffer_size=3)) as agent:
        await agent.add_plugin("hostpath", HostPathDriver())
        client = Client(quick(agent.url))
        await make_volume(client, "v1")
        async with bridge(agent, intake, resync_seconds=600.0, stream_first_seconds=0.6) as adapter:
            agent.deny_streams()
            agent.drop_streams()
            await until(lambda: adapter.ready() != "", "the stream is gone")
            await register(client, _counted("web", 0))
            for number in range(6):
                await register(client, _counted(f"noise{number}", 0))
            held = [event["Key"] for _, events in agent.events.entries for event in events]
            assert "web" not in held
            agent.deny_streams(False)
            await until(lambda: len(intake.booked) == 1, "the list found it", LONG)
            await until(lambda: adapter.ready() == "", "it streams again", LONG)
        await client.close()


def _counted(name: str, count: int) -> dict[str, object]:
    row = job(name, "v1", meta=ON if name == "web" else {})
    row["TaskGroups"][0]["Count"] = count
    return row


async def test_a_denial_names_the_rule_that_is_missing(intake: MemoryIntake) -> None:
    """Since 1.11.2: 200 and silence. Before: 403. Both say the same to the operator."""
    async with FakeNomad() as agent:
        adapter = build(
            "east", quick(agent.url, namespaces=["prod"], stream_first_seconds=0.6), secrets=MemorySecrets()
        )
        agent.deny_streams()
        rule = 'namespace "prod" { capabilities = ["read-job"] }'
        async with running(adapter.run(lambda key: None, intake, MemorySink())):
            await until(lambda: "no first heartbeat" in adapter.ready(), "it is said", LONG)
            assert rule in adapter.ready()
            agent.deny_streams(False)
            await until(lambda: adapter.ready() == "", "the token may read now", LONG)
            agent.fail_next("GET", "/v1/event/stream", status=403, text="Permission denied", times=-1)
            agent.drop_streams()
            await until(lambda: "refused" in adapter.ready(), "an older agent's denial", LONG)
            assert rule in adapter.ready()


async def test_a_stream_that_ends_before_its_heartbeat_was_denied(intake: MemoryIntake) -> None:
    async with FakeNomad(settings=FakeSettings(denied_close_seconds=0.1)) as agent:
        agent.deny_streams()
        adapter = build("east", quick(agent.url), secrets=MemorySecrets())
        async with running(adapter.run(lambda key: None, intake, MemorySink())):
            await until(lambda: "ended before its first heartbeat" in adapter.ready(), "an EOF is a denial", LONG)
            assert "read-job" in adapter.ready()


async def test_a_restored_state_is_followed_from_its_own_index(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    """The cluster was restored from an older snapshot: its index went back. To wait for the old one is for ever."""
    for name in ("v1", "v2", "v3"):
        await make_volume(client, name)
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        await register(client, _web("first", "v1"))
        await until(lambda: intake.volumes() == ["v1"], "the first")
        mark = agent.state.index
        for number in range(20):
            await register(client, _counted(f"noise{number}", 0))
        await register(client, _web("second", "v2"))
        await until(lambda: intake.volumes() == ["v1", "v2"], "the second, which the restore will forget")
        high = max(index for index, rows in agent.events.entries if any(row["Topic"] == "Job" for row in rows))
        old = set(agent.events.subscribers)
        agent.restore(mark)
        await until(lambda: bool(agent.events.subscribers - old) and adapter.ready() == "", "it streams again", LONG)
        agent.calls.clear()
        await until(
            lambda: any(call.path == "/v1/plugins" for call in agent.calls), "past the list that follows", LONG
        )
        await register(client, _web("third", "v3"))
        await until(lambda: intake.volumes() == ["v1", "v2", "v3"], "an event below the old index counts", LONG)
        assert agent.state.index < high
        await register(client, _web("second", "v2"))
        await until(lambda: len(intake.booked) == 4, "a job of the same name at a lower index is a new one", LONG)
        old = set(agent.events.subscribers)
        agent.end_streams()
        await until(lambda: bool(agent.events.subscribers - old) and not agent.events.subscribers & old, "anew", LONG)
        agent.calls.clear()
        agent.drop_streams()
        await until(lambda: bool(streams(agent)), "a stream's query is told at its end", LONG)
        assert int(streams(agent)[0]["index"]) < high, "it resumes at the new index, not at the old one"


def _web(name: str, volume: str) -> dict[str, object]:
    row = job(name, volume, meta=ON)
    row["TaskGroups"][0]["Count"] = 0
    return row


async def test_blocking_queries_outlive_a_restored_state(intake: MemoryIntake) -> None:
    """1.11.2: no stream. An index above the cluster's own must not hold the watch up."""
    async with FakeNomad(settings=FakeSettings(version="1.11.2")) as agent:
        await agent.add_plugin("hostpath", HostPathDriver())
        client = Client(quick(agent.url))
        await make_volume(client, "v1")
        async with bridge(agent, intake, resync_seconds=600.0) as adapter:
            mark = agent.state.index
            for number in range(5):
                await register(client, _counted(f"noise{number}", 0))
            agent.restore(mark)
            await agent.restart()
            await register(client, _web("web", "v1"))
            await until(lambda: len(intake.booked) == 1, "seen", LONG)
            await until(lambda: adapter.ready() == "", "ready", LONG)
            assert streams(agent) == []
        await client.close()


async def test_an_upgraded_agent_is_read_as_what_it_is(intake: MemoryIntake) -> None:
    settings = FakeSettings(version="1.11.2", stream_status_line="HTTP/0.0 200 OK")
    async with FakeNomad(settings=settings) as agent, bridge(agent, intake, resync_seconds=1.0) as adapter:
        assert adapter.version == (1, 11, 2)
        assert len(agent.events.subscribers) == 0
        agent.settings = FakeSettings(version="2.0.6")
        agent.events.settings.status_line = "HTTP/1.1 200 OK"
        await until(lambda: adapter.version == (2, 0, 6), "the version is read again", LONG)
        agent.state.commit("jobs")  # the blocking query wakes
        await until(lambda: len(agent.events.subscribers) == 1, "it streams", LONG)


async def test_what_an_old_version_lacks_is_said(intake: MemoryIntake) -> None:
    async with FakeNomad(settings=FakeSettings(version="1.6.5")) as agent:
        plugins = {"hostpath": {"secret": "file:/x", "route": "api"}}
        async with bridge(agent, intake, plugins=plugins) as adapter:
            text = " ".join(adapter.problems())
            assert "GH-25976" in text
            assert "no public keys" in text
            assert [set(one.wanted) for one in agent.events.subscribers] == [{"Job"}]


@pytest.mark.parametrize("text", ["No cluster leader", "rpc error: EOF", "rpc error: failed to get conn: refused"])
async def test_a_read_outlives_a_change_of_leader(agent: FakeNomad, client: Client, text: str) -> None:
    agent.fail_next("GET", "/v1/jobs", text=text, times=2)
    assert [row["ID"] for row in (await client.get("/v1/jobs")).data] == ["csi-hostpath"]
    sdk = reads(client.settings, client)
    for reader in (sdk, Direct(client)):
        agent.fail_next("GET", "/v1/agent/self", text=text)
        assert (await reader.agent())["config"]["Region"] == "global"
    sdk.close()


async def test_a_write_is_never_repeated_for_a_change_of_leader(agent: FakeNomad, client: Client) -> None:
    agent.fail_next("PUT", "/v1/jobs", text="rpc error: EOF")
    with pytest.raises(AnswerError, match="EOF"):
        await register(client, _web("web", "v1"))
    assert len([call for call in agent.calls if call.method == "PUT" and call.path == "/v1/jobs"]) == 1


async def test_an_election_that_goes_on_is_said_and_outlived(
    agent: FakeNomad, client: Client, intake: MemoryIntake
) -> None:
    await make_volume(client, "v1")
    async with bridge(agent, intake, resync_seconds=600.0) as adapter:
        agent.fail_next("GET", "/v1/*", text="No cluster leader", times=-1)
        agent.drop_streams()
        await until(lambda: "No cluster leader" in adapter.ready(), "it is said", LONG)
        agent.clear_faults()
        await register(client, _web("web", "v1"))
        await until(lambda: len(intake.booked) == 1, "seen", LONG)
        await until(lambda: adapter.ready() == "", "ready again", LONG)


async def test_two_lines_of_one_index_are_two_events(agent: FakeNomad, client: Client, intake: MemoryIntake) -> None:
    """With all topics two lines may share an index; to take the index for the identity would lose one."""
    for name in ("v1", "v2"):
        await make_volume(client, name)
    async with bridge(agent, intake, resync_seconds=600.0):
        await register(client, _web("a", "v1"))
        await until(lambda: len(intake.booked) == 1, "the first")
        await register(client, _web("b", "v2"))
        await until(lambda: len(intake.booked) == 2, "the second")
        index, rows = next(one for one in reversed(agent.events.entries) if one[1][0]["Topic"] == "Job")
        twin = {**rows[0], "Key": "c", "Payload": {"Job": {**rows[0]["Payload"]["Job"], "ID": "c"}}}
        agent.events.publish(index, "JobRegistered", [twin])
        await until(lambda: len(intake.booked) == 3, "the same index, another job", LONG)


async def test_several_clusters_and_regions_in_one_process() -> None:
    """Two clusters, and two regions behind one agent of theirs; nothing of one is taken for the other's."""
    async with (
        FakeNomad(settings=FakeSettings(region="eu", node_name="eu-1")) as eu,
        FakeNomad(settings=FakeSettings(region="us", node_name="us-1")) as us,
        FakeNomad(settings=FakeSettings(region="lab")) as lab,
    ):
        eu.federate(us)
        for number, agent in enumerate((eu, us, lab)):
            await agent.add_plugin("hostpath", HostPathDriver())
            client = Client(quick(agent.url))
            await make_volume(client, f"v{number}")
            await client.close()
        settings = {
            "east": quick(eu.url, region="eu"), "west": quick(eu.url, region="us"), "lab": quick(lab.url)
        }  # fmt: skip
        intakes = {name: MemoryIntake() for name in settings}
        sink = MemorySink()
        adapters = {name: build(name, one, secrets=MemorySecrets()) for name, one in settings.items()}
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(adapter.run(lambda key: None, intakes[name], sink))
                for name, adapter in adapters.items()
            ]
            await until(lambda: all(one.ready() == "" for one in adapters.values()), "all three are ready", LONG)
            volumes = {name: [v.name for v in await one.volumes.list()] for name, one in adapters.items()}
            assert volumes == {"east": ["v0"], "west": ["v1"], "lab": ["v2"]}
            for number, agent in enumerate((eu, us, lab)):
                client = Client(quick(agent.url))
                await register(client, _web("web", f"v{number}"))
                await client.close()
            await until(lambda: all(len(one.booked) == 1 for one in intakes.values()), "one each", LONG)
            assert {name: one.volumes() for name, one in intakes.items()} == volumes
            uids = [uid for one in intakes.values() for uid in one.booked]
            assert len(set(uids)) == 3
            await until(lambda: len(sink.api()) == 3, "three plugins by their cluster's name", LONG)
            await lab.stop()
            await until(lambda: adapters["lab"].ready() != "", "one cluster is away", LONG)
            assert adapters["east"].ready() == adapters["west"].ready() == ""
            for task in tasks:
                task.cancel()
