"""The fake agent's own verbs, and its way to a real CSI driver: what the recordings cannot show."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.support import localdisk
from tests.support.nomad import real
from tests.support.nomad import replay_worlds as worlds
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver, ScriptedDriver, SnapshotMade
from tests.support.nomad.replay_player import Player
from tests.support.nomad.replay_streams import Seen, collect, open_stream, quiet, read_stream
from tests.support.nomad.settings import Settings


@asynccontextmanager
async def _player(settings: Settings | None = None) -> AsyncIterator[Player]:
    async with FakeNomad(settings=settings) as agent, aiohttp.ClientSession() as session:
        yield Player(agent, session)


def _raw_job(job_id: str, *tasks: dict[str, Any], kind: str = "batch") -> dict[str, Any]:
    return {"ID": job_id, "Type": kind, "TaskGroups": [{"Name": "g", "Tasks": list(tasks)}]}


def _raw_task(name: str, script: str, hook: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {"Name": name, "Driver": "raw_exec", "RestartPolicy": {"Attempts": 0}}
    row["Config"] = {"command": "/bin/sh", "args": ["-c", script]}
    if hook:
        row["Lifecycle"] = {"Hook": hook}
    return row


async def test_snapshots_of_a_real_driver_behind_a_socket() -> None:
    """Create, list, restore and delete reach the driver by gRPC; nothing is left in its backend."""
    driver = await asyncio.to_thread(localdisk.start_localdisk, mode="directory")
    try:
        async with _player() as player:
            plugin = await player.agent.add_plugin("disk", driver.socket)
            seen = player.agent.data_dir / "client" / "csi" / "plugins" / plugin.allocation_id / "csi.sock"
            assert seen.resolve() == driver.socket
            shown = await player.call("GET", "/v1/plugin/csi/disk")
            (controller,) = shown["Controllers"].values()
            assert controller["ControllerInfo"]["SupportsCreateDeleteSnapshot"]
            row = await worlds.volume(player, "d", "disk")
            snapshot = {"Snapshots": [{"SourceVolumeID": "d", "Name": "one"}]}
            made = (await player.call("PUT", "/v1/volumes/snapshot", snapshot))["Snapshots"][0]
            assert made["ExternalSourceVolumeID"] == row["ExternalID"]
            listed = await player.call("GET", "/v1/volumes/snapshot", plugin_id="disk")
            assert [s["ID"] for s in listed["Snapshots"]] == [made["ID"]]
            size = max(made["SizeBytes"], 1048576)
            await worlds.volume(player, "copy", "disk", SnapshotID=made["ID"], RequestedCapacityMin=size)
            await player.call("DELETE", "/v1/volumes/snapshot", plugin_id="disk", snapshot_id=made["ID"])
            for name in ("d", "copy"):
                await player.call("DELETE", f"/v1/volume/csi/{name}/delete")
        assert await asyncio.to_thread(driver.left_over) == []
    finally:
        await asyncio.to_thread(driver.__exit__, None, None, None)


async def test_a_plugin_job_starts_its_own_driver() -> None:
    """A raw_exec job with a csi_plugin block: CSI_ENDPOINT is the host's path, the directory goes when it stops."""
    argv = [sys.executable, "-m", "adapters.localdisk", "--endpoint", "${CSI_ENDPOINT}", "--state-dir",
            "${NOMAD_TASK_DIR}/state", "--node-id", "n1", "--mode", "directory"]  # fmt: skip
    async with _player() as player:
        env = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
        allocation_id = await player.agent.run_plugin("own", argv, env)
        socket = player.agent.plugin_socket(allocation_id)
        assert socket.is_socket()
        await worlds.volume(player, "d", "own")
        await worlds.stop(player, "csi-own")
        assert not socket.parent.exists()
        assert (await player.call("GET", "/v1/plugin/csi/own"))["Controllers"] == {}


class GatedDriver(ScriptedDriver):
    """Makes no snapshot before it may, and counts how many calls it has at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.under_way = self.most = 0

    async def create_snapshot(
        self, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
    ) -> SnapshotMade:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        return await super().create_snapshot(source_id, name, secrets, parameters)


async def test_one_controller_call_at_a_time() -> None:
    """Three snapshots are made one after the other; a list meanwhile does not wait (nomad-verified.md B)."""
    async with _player() as player:
        driver = GatedDriver()
        await player.agent.add_plugin("slow", driver)
        await worlds.volume(player, "v", "slow")

        async def cut(name: str) -> None:
            body = {"Snapshots": [{"SourceVolumeID": "v", "Name": name}]}
            await player.call("PUT", "/v1/volumes/snapshot", body)

        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            for number in range(3):
                group.create_task(cut(f"s-{number}"))
            while not driver.under_way:  # noqa: ASYNC110 - the driver rings no bell
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            listed = await player.call("GET", "/v1/volumes/snapshot", plugin_id="slow")
            assert (listed["Snapshots"] or [], driver.under_way) == ([], 1)
            driver.gate.set()
        assert (len(driver.snapshots), driver.most) == (3, 1)


async def test_a_failed_prestart_fails_the_allocation() -> None:
    async with _player() as player:
        await player.agent.add_plugin("hostpath", HostPathDriver())
        await worlds.volume(player, "d")
        job = _raw_job("w", _raw_task("pre", "exit 3", "prestart"), _raw_task("main", "echo never"))
        job["TaskGroups"][0]["Volumes"] = worlds.job("x", "d")["TaskGroups"][0]["Volumes"]
        await player.call("PUT", "/v1/jobs", {"Job": job})
        (allocation,) = await player.agent.job_settled("w")
        await worlds.ended(player, "w")
        assert allocation.client == "failed"
        assert allocation.tasks["main"]["StartedAt"] is None
        assert player.agent.task_log(allocation.id, "main") == ""
        assert (await player.call("GET", "/v1/volume/csi/d"))["AccessMode"] == ""


async def test_restart_loses_the_event_buffer_and_keeps_the_state() -> None:
    async with _player() as player:
        await player.agent.add_plugin("hostpath", HostPathDriver())
        await worlds.volume(player, "d")
        assert (await read_stream(player, "topic=CSIVolume", {}, 0.1)).indexes
        await player.agent.restart()
        assert (await read_stream(player, "topic=CSIVolume", {}, 0.1)).lines == [{}]
        assert (await player.call("GET", "/v1/volume/csi/d"))["ID"] == "d"


async def test_a_stopped_agent_refuses_and_comes_back_on_its_port() -> None:
    async with _player() as player:
        url = player.agent.url
        await player.agent.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await player.call("GET", "/v1/regions")
        await player.agent.start()
        assert player.agent.url == url
        assert await player.call("GET", "/v1/regions") == ["global"]


async def test_dropped_streams_end_and_new_ones_replay() -> None:
    async with _player() as player:
        await player.agent.add_plugin("hostpath", HostPathDriver())
        reader, writer = await open_stream(player, "topic=Job", {})
        seen = Seen()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_until_cut(reader, seen))
            await quiet(reading, seen, 0.1)
            player.agent.drop_streams()
            async with asyncio.timeout(30):
                await reading
        writer.close()
        assert seen.lines
        assert (await read_stream(player, "topic=Job", {}, 0.1)).indexes == seen.indexes


async def _until_cut(reader: asyncio.StreamReader, seen: Seen) -> None:
    try:
        await collect(reader, seen)
    except ConnectionResetError:
        return


async def test_faults_of_requests() -> None:
    """A refusal has no effect, a cut reply after the effect has one, a delay delays, the log tells."""
    async with _player() as player:
        agent = player.agent
        driver = HostPathDriver()
        await agent.add_plugin("hostpath", driver)
        await worlds.volume(player, "d")
        body = {"Snapshots": [{"SourceVolumeID": "d", "Name": "one"}]}
        agent.fail_next("PUT", "/v1/volumes/snapshot", status=500, text="No cluster leader")
        with pytest.raises(AssertionError, match="No cluster leader"):
            await player.call("PUT", "/v1/volumes/snapshot", body)
        assert not driver.snapshots
        # Twice, as aiohttp itself repeats a PUT once when its reply is cut.
        agent.cut_next("PUT", "/v1/volumes/snapshot", after=True, times=2)
        with pytest.raises(aiohttp.ClientError):
            await player.call("PUT", "/v1/volumes/snapshot", body)
        assert len(driver.snapshots) == 1
        agent.delay("GET", "/v1/volumes*", 0.2)
        began = time.monotonic()
        await player.call("GET", "/v1/volumes", type="csi")
        assert time.monotonic() - began >= 0.2
        agent.clear_faults()
        statuses = [call.status for call in agent.calls if call.path == "/v1/volumes/snapshot"]
        assert statuses == [500, 0, 0]


async def test_a_blocked_job_starts_when_its_volume_is_registered() -> None:
    """The crash gap of a revert (nomad-verified.md C): the job waits, and starts by itself."""
    async with _player() as player:
        await player.agent.add_plugin("hostpath", HostPathDriver())
        job = _raw_job("w", _raw_task("main", "sleep 60"), kind="service")
        job["TaskGroups"][0]["Volumes"] = worlds.job("x", "d")["TaskGroups"][0]["Volumes"]
        await player.call("PUT", "/v1/jobs", {"Job": job})
        row = await worlds.volume(player, "other")
        assert not player.agent.state.job_allocations("default", "w")
        keys = ("PluginID", "ExternalID", "RequestedCapabilities")
        body = {"ID": "d", "Name": "d", **{key: row[key] for key in keys}}
        await player.call("PUT", "/v1/volume/csi/d", {"Volumes": [body]})
        await worlds.running(player, "w")
        assert player.agent.state.volumes[("default", "d")].access_mode == "single-node-writer"


def test_the_real_agent_stays_on_loopback_and_asks_no_cloud() -> None:
    text = real.configuration(1, 2, 3, acl=True)
    assert 'bind_addr = "127.0.0.1"' in text
    assert "http = 1, rpc = 2, serf = 3" in text
    for cloud in ("env_aws", "env_gce", "env_azure", "env_digitalocean"):
        assert cloud in text
