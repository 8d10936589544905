"""The saga over Nomad's own API: the process dies, or an answer is lost, at every write. The job runs at the end."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import pytest

from adapters.nomad.client import Answer, Client, Query
from adapters.nomad.handles import Handles
from adapters.nomad.plugins import ApiCalls
from adapters.nomad.volumes import NomadVolumes
from adapters.nomad.workloads import NomadWorkloads
from bridge.model.failure import ConflictError, UnavailableError
from bridge.model.keys import snapshot_key
from bridge.model.operation import Operation, OperationState
from bridge.model.plugin import Capability, PluginView
from bridge.model.revert import Swap
from bridge.model.snapshot import SnapshotState, SnapshotStatus
from bridge.model.view import SnapshotView
from bridge.service import lane, revert_journal, work
from bridge.service.operations import REVERT, Operations
from bridge.service.reverts import Reverts
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import MemorySecrets, quick
from tests.support import memory
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver
from tests.support.reverting import LIMITS, MemoryBook, no_records

OPERATION = "0f2c4e6a"
SCALING = {"Enabled": True, "Min": 1, "Max": 3}
"""With it a group cannot be scaled to 0, so the whole job is stopped."""
PATIENT = dataclasses.replace(LIMITS, pause=1200.0, free=1200.0, verify=1200.0)
"""Virtual seconds: fifty of them pass in one of the agent, whose processes take the time that they are given."""
STRIKES = ("crash before", "crash after", "lost after")


class Dying(Client):
    """A client whose writes are struck by number. `script` outlives it."""

    def __init__(self, url: str, script: memory.Script) -> None:
        super().__init__(quick(url))
        self.script = script

    async def call(
        self, method: str, path: str, query: Query | None = None, *, body: Any = None,
        headers: Mapping[str, str] | None = None, timeout_seconds: float | None = None,
    ) -> Answer:  # fmt: skip
        fault = "ok" if method == "GET" else self.script.next(f"{method} {path}")
        if fault == "crash before":
            raise memory.Crash
        if fault == "lost before":
            raise UnavailableError("lost")
        answer = await super().call(method, path, query, body=body, headers=headers, timeout_seconds=timeout_seconds)
        if fault == "crash after":
            raise memory.Crash
        if fault == "lost after":
            raise UnavailableError("lost")
        return answer


class Story:
    """One revert of `data`, which the job `web` uses."""

    def __init__(self, agent: FakeNomad, script: memory.Script, old: str, snapshot: str) -> None:
        self.agent, self.script, self.old, self.snapshot = agent, script, old, snapshot
        self.book = MemoryBook()
        self.clock = memory.VirtualClock()
        self.crashes = 0

    async def find(self, caller: object, ref: str, *, whole: bool = False) -> SnapshotView:
        """The catalogue."""
        status = SnapshotStatus(SnapshotState.READY, ready=True, handle=self.snapshot, size_bytes=1 << 20)
        key = snapshot_key("east", ref)
        return SnapshotView(key, "default", ref, "data", self.driver, "Delete", ref, status)

    async def run(self) -> Operation:
        self.driver = self.agent.state.plugins["hostpath"].facts.name
        swap = Swap("data", self.driver, self.old, f"data-before-{OPERATION}", "snap")
        arguments = {"swaps": revert_journal.dump_swaps([swap]), "workload": "", "version": ""}
        row = Operation(OPERATION, REVERT, "east", "default", "data", OperationState.RUNNING, 0, 0, "", arguments)
        await self.book.put_operation(row)
        client, shell = await self._shell()
        for _ in range(3000):
            try:
                seconds = await shell.turn(OPERATION)
            except memory.Crash:
                self.crashes += 1
                await client.close()
                client, shell = await self._shell()
                continue
            except (UnavailableError, ConflictError):
                seconds = 1.0
            if seconds is None:
                break
            await self.clock.sleep(seconds)
            await asyncio.sleep(0.02 if seconds else 0)
        await client.close()
        return self.book.rows[OPERATION]

    async def _shell(self) -> tuple[Dying, Reverts]:
        client = Dying(self.agent.url, self.script)
        handles = Handles(client)
        volumes = NomadVolumes("east", client, handles, MemorySecrets())
        calls = ApiCalls("east", client, handles, plugin_id="hostpath", driver=self.driver)
        operations = Operations(cast(Any, self.book), self.clock)
        await operations.load()
        one = lane.Lane(
            cast(Any, _Cluster(volumes)), cast(Any, None), no_records(), MemorySecrets(),
            workloads=NomadWorkloads(client),
        )  # fmt: skip
        tools = work.Tools(plugins=cast(Any, _Plugins(calls)), clock=self.clock, writer="w")
        return client, Reverts({"east": one}, cast(Any, self), operations, tools, limits=PATIENT)


class _Cluster:
    cluster, kind = "east", "nomad"

    def __init__(self, volumes: NomadVolumes) -> None:
        self.volumes = volumes


class _Plugins:
    def __init__(self, calls: ApiCalls) -> None:
        self._calls = calls

    def view(self, driver: str) -> PluginView:
        return PluginView(driver, True, True, frozenset({Capability.CREATE_DELETE_VOLUME}))

    def controller(self, driver: str) -> ApiCalls:
        return self._calls


async def lived(scaling: bool, faults: dict[int, str]) -> tuple[Story, Operation, HostPathDriver]:
    """A fresh agent, a job that runs on `data`, and one revert; then what must be so whatever struck."""
    driver = HostPathDriver()
    async with FakeNomad() as agent:
        await agent.add_plugin("hostpath", driver)
        client = Client(quick(agent.url))
        old = await make_volume(client, "data")
        answer = await client.call(
            "PUT", "/v1/volumes/snapshot", body={"Snapshots": [{"SourceVolumeID": "data", "Name": "s"}]}
        )
        row = job("web")
        row["TaskGroups"][0]["Scaling"] = SCALING if scaling else None
        await register(client, row)
        await agent.job_settled("web")
        story = Story(agent, memory.Script(faults), old, answer.data["Snapshots"][0]["ID"])
        ended = await story.run()
        await check(agent, client, story, ended, driver)
        await client.close()
    return story, ended, driver


async def check(agent: FakeNomad, client: Client, story: Story, ended: Operation, driver: HostPathDriver) -> None:
    assert ended.state is not OperationState.RUNNING, ended.steps[-4:]
    row = (await client.get("/v1/job/web")).data
    assert not row["Stop"], "the job was left stopped"
    assert row["TaskGroups"][0]["Count"] == 1, "the job was left at zero"
    for _ in range(600):
        rows = (await client.get("/v1/job/web/allocations")).data
        if any(one["ClientStatus"] == "running" and one["DesiredStatus"] == "run" for one in rows):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the job does not run")
    names = {one["ID"]: one["ExternalID"] for one in (await client.get("/v1/volumes", {"type": "csi"})).data}
    assert story.old in driver.volumes, "the old volume is gone"
    if ended.state is OperationState.DONE:
        assert set(names) == {"data", f"data-before-{OPERATION}"}
        assert names[f"data-before-{OPERATION}"] == story.old != names["data"]
        assert set(driver.volumes) == set(names.values()), "one new volume, no more"
    else:
        assert names == {"data": story.old}
        assert set(driver.volumes) == {story.old}


@pytest.mark.parametrize("scaling", [False, True])
async def test_each_write_is_struck_once(scaling: bool) -> None:
    story, ended, _ = await lived(scaling, {})
    assert ended.state is OperationState.DONE, ended.failure
    how = [what for what in story.script.done if "/v1/job" in what]
    assert how == (["POST /v1/jobs", "POST /v1/job/web/revert"] if scaling else ["POST /v1/job/web/scale"] * 2)
    for at, what in enumerate(list(story.script.done)):
        if scaling and "/v1/job" not in what:  # the same as without
            continue
        for strike in STRIKES:
            struck, ended, _ = await lived(scaling, {at: strike})
            assert ended.state is OperationState.DONE, (at, strike, ended.failure)
            if strike.startswith("crash"):
                assert struck.crashes == 1
