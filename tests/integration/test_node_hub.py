"""Hub and agents over real streams: attach, calls, restarts, losses, and who is let in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from bridge.csi.instance import Instance
from bridge.csi.registry import Registry
from bridge.csi.settings import CallSettings, Deadlines, RegistrySettings
from bridge.model.failure import FailureKind, InvalidError
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Capability, PluginDescription, Route
from bridge.model.snapshot import CutSnapshot
from bridge.node.agent import NodeAgent
from bridge.node.hub import Hub
from bridge.node.settings import AgentSettings, HubSettings, Tls
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import csi_server
from tests.support.csi_server import Plugin, RealClock, until
from tests.support.node_pki import Authority

DRIVER = "test.csi.example"
CLOCK = RealClock()
REGISTRY = RegistrySettings(
    calls=CallSettings(deadlines=Deadlines(default_seconds=30, by_verb={"DeleteSnapshot": 0.5})),
    probe_interval_seconds=0.3,
)
NONE: dict[str, str] = {}


class Site:
    """A hub with its registry, and agents that come and go. Everything runs in one task group."""

    def __init__(self, folder: Path, group: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.authority = Authority(folder / "pki")
        self.registry = Registry(REGISTRY, CLOCK)
        certificate, key = self.authority.issue("hub", loopback=True)
        tls = Tls(str(certificate), str(key), str(self.authority.path))
        self.hub = Hub(HubSettings("127.0.0.1:0", tls, silence_seconds=30, version="9"), CLOCK, self.registry)
        self._group = group
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, work: object, name: str) -> asyncio.Task[None]:
        task = self._group.create_task(work, name=name)  # type: ignore[arg-type]
        self.tasks.append(task)
        return task

    def tls_for(self, node: str, authority: Authority | None = None) -> Tls:
        certificate, key = (authority or self.authority).issue(node)
        return Tls(str(certificate), str(key), str(self.authority.path))

    async def agent(
        self, node: str, socket: Path, tls: Tls | None = None, *, before: str = ""
    ) -> tuple[NodeAgent, asyncio.Task[None]]:
        """An agent with a local registry; cancel its task to end it. `before`: other hubs that it tries first."""
        local = Registry(REGISTRY, CLOCK)
        settings = AgentSettings(
            node, f"{before}127.0.0.1:{self.hub.port}", tls or self.tls_for(node), version="8", paths=(str(socket),),
            topology={"zone": "a"},
        )  # fmt: skip
        agent = NodeAgent(settings, CLOCK, local)

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(local.run())
                group.create_task(agent.run())

        return agent, self.start(run(), node)

    def rows(self, node: str) -> list[PluginDescription]:
        return [row for row in self.registry.describe() if row.node == node]

    async def healthy(self, node: str) -> Instance:
        await until(lambda: self.rows(node) and all(row.healthy for row in self.rows(node)))
        calls = self.registry.controller(DRIVER)
        assert isinstance(calls, Instance)
        return calls


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with asyncio.TaskGroup() as group:
        site = Site(tmp_path, group)
        site.start(site.registry.run(), "registry")
        site.start(site.hub.run(), "hub")
        await asyncio.wait_for(site.hub.started(), 30)
        yield site
        for task in site.tasks:
            task.cancel()


def failure(outcome: object) -> tuple[FailureKind, str]:
    assert isinstance(outcome, Failed), outcome
    return outcome.failure.kind, outcome.failure.code


async def test_of_several_hubs_the_one_that_listens_is_found(site: Site, tmp_path: Path) -> None:
    """The replicas of a service: one leads and listens."""
    async with csi_server.serving(Plugin(node_id="n-1"), tmp_path / "a.sock"):
        agent, _ = await site.agent("worker-1", tmp_path / "a.sock", before="127.0.0.1:1, 127.0.0.1:2, ")
        await site.healthy("worker-1")
        assert agent.sentence == ""
    with pytest.raises(InvalidError, match="not HOST:PORT"):
        AgentSettings("n", "127.0.0.1:1,nowhere", site.tls_for("n"))


async def test_calls_are_carried_to_the_plugin_and_back(site: Site, tmp_path: Path) -> None:
    plugin = Plugin(node_id="n-1")
    async with csi_server.serving(plugin, tmp_path / "a.sock"):
        await site.agent("worker-1", tmp_path / "a.sock")
        calls = await site.healthy("worker-1")
        assert calls.route is Route.NODE_AGENT
        assert calls.id.instance == f"worker-1:{tmp_path}/a.sock"
        assert site.registry.view(DRIVER).can(Capability.CREATE_DELETE_SNAPSHOT)
        made = await calls.create_snapshot(name="s", volume_handle="v", parameters=NONE, secrets={"k": "value-1"})
        assert isinstance(made, Done)
        (request,) = [one for one in plugin.requests if isinstance(one, pb.CreateSnapshotRequest)]
        assert request.secrets["k"] == "value-1"
        found = [o async for o in calls.list_snapshots(secrets=NONE)]
        assert found == [made]
        parts = [part async for part in calls.blocks.allocated(handle="s", secrets=NONE)]
        assert len(parts) == 3
        assert all(isinstance(part, Done) for part in parts)
        plugin.refuse("CreateSnapshot", grpc.StatusCode.INTERNAL, "boom")
        again = await calls.create_snapshot(name="s", volume_handle="v", parameters=NONE, secrets=NONE)
        assert failure(again) == (FailureKind.UNSURE, "INTERNAL")
        node = site.registry.node(DRIVER, "worker-1")
        assert node is not None
        (listed,) = site.hub.nodes()
        assert (listed.name, listed.connected, listed.version, listed.plugins) == ("worker-1", True, "8", (DRIVER,))
        assert listed.labels == {"zone": "a"}


async def test_deadline_and_cancel_reach_the_plugin(site: Site, tmp_path: Path) -> None:
    plugin = Plugin()
    remaining: dict[str, list[float]] = {"DeleteSnapshot": [], "CreateSnapshot": []}
    ended: list[str] = []

    async def slow(verb: str, _request: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
        remaining[verb].append(context.time_remaining())
        try:
            await asyncio.sleep(120)
        finally:
            ended.append(verb)

    for verb in remaining:
        plugin.script[verb] = functools.partial(slow, verb)
    async with csi_server.serving(plugin, tmp_path / "a.sock"):
        await site.agent("worker-1", tmp_path / "a.sock")
        calls = await site.healthy("worker-1")
        asked = 0
        while not remaining["DeleteSnapshot"] and asked < 5:  # a stalled machine may let the deadline pass on the way
            late = await calls.delete_snapshot(handle="s", secrets=NONE)
            assert failure(late) == (FailureKind.UNSURE, "DEADLINE_EXCEEDED")
            asked += 1
        assert remaining["DeleteSnapshot"][0] < 0.6
        await until(lambda: ended.count("DeleteSnapshot") == plugin.calls["DeleteSnapshot"])
        task = asyncio.create_task(calls.create_snapshot(name="s", volume_handle="v", parameters=NONE, secrets=NONE))
        await until(lambda: remaining["CreateSnapshot"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: "CreateSnapshot" in ended)
        assert remaining["CreateSnapshot"][0] > 5
        assert plugin.calls["CreateSnapshot"] == 1
        assert plugin.calls["DeleteSnapshot"] <= asked


async def test_a_killed_agent_makes_its_calls_unsure_and_spares_the_other(site: Site, tmp_path: Path) -> None:
    first, second = Plugin("one.example"), Plugin("two.example")
    tls = site.tls_for("worker-1")
    command = [
        sys.executable, "-m", "tests.support.node_process", "worker-1", f"127.0.0.1:{site.hub.port}",
        str(tmp_path / "a.sock"), tls.authorities, tls.certificate, tls.key,
    ]  # fmt: skip
    async with csi_server.serving(first, tmp_path / "a.sock"), csi_server.serving(second, tmp_path / "b.sock"):
        process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        try:
            await site.agent("worker-2", tmp_path / "b.sock")
            await until(lambda: site.registry.controller("one.example"))
            await until(lambda: site.registry.controller("two.example"))
            one, two = site.registry.controller("one.example"), site.registry.controller("two.example")
            assert one is not None
            assert two is not None
            first.hang("CreateSnapshot")
            release = second.hang("CreateSnapshot")
            lost = asyncio.create_task(
                one.create_snapshot(name="s", volume_handle="v", parameters=NONE, secrets=NONE)
            )
            kept = asyncio.create_task(
                two.create_snapshot(name="s", volume_handle="v", parameters=NONE, secrets=NONE)
            )
            await until(lambda: first.calls.get("CreateSnapshot") and second.calls.get("CreateSnapshot"))
        finally:
            process.kill()
            await process.wait()
        assert failure(await asyncio.wait_for(lost, 30)) == (FailureKind.UNSURE, "UNAVAILABLE")
        release.set()
        assert isinstance(await asyncio.wait_for(kept, 30), Done)
        await until(lambda: site.registry.controller("one.example") is None)
        await until(lambda: "worker-1 is not attached" in site.registry.view("one.example").sentence)
        assert [(node.name, node.connected) for node in site.hub.nodes()] == [("worker-1", False), ("worker-2", True)]
        after = await one.delete_snapshot(handle="s", secrets=NONE)
        assert failure(after) == (FailureKind.REFUSED, "UNAVAILABLE")
        first.script.clear()
        await site.agent("worker-1", tmp_path / "a.sock")
        await until(lambda: site.registry.controller("one.example"))
        again = await one.create_snapshot(name="s", volume_handle="v", parameters=NONE, secrets=NONE)
        assert isinstance(again, Done)
        assert first.store.created == 1


async def test_a_restarted_plugin_is_seen_through_the_agent_within_two_seconds(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    await site.agent("worker-1", path)

    async def restart(number: int) -> float:
        async with csi_server.serving(Plugin(version=f"{number}.1"), path):
            await site.healthy("worker-1")
        lost = await until(lambda: site.registry.controller(DRIVER) is None)
        await asyncio.sleep(1)
        version = f"{number}.2"
        async with csi_server.serving(Plugin(version=version), path):
            back = await until(
                lambda: site.registry.controller(DRIVER) and site.rows("worker-1")[0].vendor_version == version
            )
        await until(lambda: site.registry.controller(DRIVER) is None)
        return max(lost, back)

    await csi_server.soon(restart, 2.0)


async def test_no_call_is_repeated_however_streams_come_and_go(site: Site, tmp_path: Path) -> None:
    plugin = Plugin()
    arrived: dict[str, int] = {}
    inside = 0

    async def count(request: pb.CreateSnapshotRequest, context: object) -> object:
        nonlocal inside
        arrived[request.name] = arrived.get(request.name, 0) + 1
        inside += 1
        try:
            await asyncio.sleep(0.02)
        finally:
            inside -= 1
        return await plugin.CreateSnapshot(request, context)

    plugin.script["CreateSnapshot"] = count
    outcomes: dict[str, Outcome[CutSnapshot]] = {}
    tls = site.tls_for("worker-1")
    async with csi_server.serving(plugin, tmp_path / "a.sock"):
        _, task = await site.agent("worker-1", tmp_path / "a.sock", tls)
        calls = await site.healthy("worker-1")

        async def ask(worker: int) -> None:
            for number in range(40):
                name = f"s-{worker}-{number}"
                outcomes[name] = await calls.create_snapshot(
                    name=name, volume_handle="v", parameters=NONE, secrets=NONE
                )
                await asyncio.sleep(0.01)

        asking = asyncio.gather(*(ask(worker) for worker in range(8)))
        while not asking.done():
            await asyncio.sleep(0.15)
            # However slow the machine is: some calls are done, and one is under way when the agent goes.
            await until(lambda: asking.done() or (inside and Done in map(type, outcomes.values())))
            task.cancel()
            await asyncio.wait({task})
            _, task = await site.agent("worker-1", tmp_path / "a.sock", tls)
            await site.healthy("worker-1")
        await asking
        await asyncio.sleep(0.1)
    verdicts: dict[str, set[int]] = {"done": set(), "refused": set(), "unsure": set()}
    for name, outcome in outcomes.items():
        verdict = "done" if isinstance(outcome, Done) else outcome.failure.kind.value
        verdicts[verdict].add(arrived.get(name, 0))
    assert verdicts["done"] == {1}
    assert verdicts["refused"] <= {0}
    assert verdicts["unsure"] <= {0, 1}
    assert verdicts["unsure"], "no call was hit: the test shows nothing"


async def test_a_certificate_for_another_node_is_refused(site: Site, tmp_path: Path) -> None:
    agent, _ = await site.agent("worker-1", tmp_path / "a.sock", site.tls_for("worker-2"))
    await until(lambda: "not for the node worker-1" in agent.sentence)
    assert site.hub.nodes() == []


async def test_a_certificate_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    foreign = site.tls_for("worker-1", Authority(tmp_path / "foreign", "another authority"))
    agent, _ = await site.agent("worker-1", tmp_path / "a.sock", foreign)
    await until(lambda: "UNAVAILABLE" in agent.sentence)
    assert site.hub.nodes() == []
    site_tls = site.tls_for("worker-3")
    alien = Tls(site_tls.certificate, site_tls.key, str(tmp_path / "foreign" / "ca.pem"))
    deceived, _ = await site.agent("worker-3", tmp_path / "a.sock", alien)
    await until(lambda: "UNAVAILABLE" in deceived.sentence)
    assert site.hub.nodes() == []


async def test_an_alternative_name_will_do_and_renewed_files_are_taken(site: Site, tmp_path: Path) -> None:
    certificate, key = site.authority.issue("some-machine", dns="worker-1")
    tls = Tls(str(certificate), str(key), str(site.authority.path))
    async with csi_server.serving(Plugin(), tmp_path / "a.sock"):
        _, task = await site.agent("worker-1", tmp_path / "a.sock", tls)
        await site.healthy("worker-1")
        task.cancel()
        await until(lambda: not site.hub.nodes()[0].connected and site.registry.controller(DRIVER) is None)
        site.authority.issue("hub", loopback=True)
        await site.agent("worker-1", tmp_path / "a.sock", tls)
        await site.healthy("worker-1")


async def test_the_hub_comes_back_and_the_agents_with_it(tmp_path: Path) -> None:
    registry = Registry(REGISTRY, CLOCK)
    local = Registry(REGISTRY, CLOCK)
    # An address of its own: nobody else takes the port while the hub is away.
    settings = HubSettings("127.0.0.7:0", plaintext_on_loopback=True)
    async with csi_server.serving(Plugin(), tmp_path / "a.sock"), asyncio.TaskGroup() as group:
        tasks = [group.create_task(registry.run()), group.create_task(local.run())]
        hub = Hub(settings, CLOCK, registry)
        running = group.create_task(hub.run())
        port = await asyncio.wait_for(hub.started(), 30)
        address = f"127.0.0.7:{port}"
        agent = NodeAgent(
            AgentSettings("w", address, plaintext_on_loopback=True, paths=(str(tmp_path / "a.sock"),)), CLOCK, local
        )
        tasks.append(group.create_task(agent.run()))
        await until(lambda: registry.controller(DRIVER))
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        again = Hub(HubSettings(address, plaintext_on_loopback=True), CLOCK, Registry(REGISTRY, CLOCK))
        tasks.append(group.create_task(again.run()))
        await until(lambda: again.nodes() and again.nodes()[0].connected)
        for task in tasks:
            task.cancel()


async def test_a_second_agent_of_the_same_name_replaces_the_first(site: Site, tmp_path: Path) -> None:
    async with csi_server.serving(Plugin("a.example"), tmp_path / "a.sock"):
        first, task = await site.agent("worker-1", tmp_path / "a.sock")
        await until(lambda: site.registry.controller("a.example"))
        async with csi_server.serving(Plugin("b.example"), tmp_path / "b.sock"):
            second, other = await site.agent("worker-1", tmp_path / "b.sock")
            await until(lambda: "newer stream of the same node" in first.sentence + second.sentence)
            task.cancel()
            await until(lambda: site.registry.controller("b.example"))
            await until(lambda: not site.registry.view("a.example").known)
            other.cancel()
